//! Window functions as the operator's calls.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{NullTreatment, WindowFunction};
use datafusion::logical_expr::{Expr, ExprSchemable, WindowFrame, WindowFrameBound, WindowFrameUnits};
use tidemill_plan::{Frame, FrameOffset, FrameUnits, OverCall, OverFunction};

use super::super::aggregate::{Columns, is_ordered};
use super::super::rel::Rel;
use crate::label::label;
use crate::scalar::storage_type;

/// All rows up to the current row's last peer: what SQL takes where no frame is given.
const UP_TO_PEERS: Frame = Frame { units: FrameUnits::Range, start: None, end: Some(FrameOffset::HERE) };

/// All rows.
const WHOLE: Frame = Frame { units: FrameUnits::Rows, start: None, end: None };

/// `row_number()`.
pub(super) fn row_number() -> OverCall {
    OverCall {
        function: OverFunction::RowNumber,
        arg: None,
        filter: None,
        frame: UP_TO_PEERS,
        data_type: DataType::UInt64,
        label: "row_number()".into(),
    }
}

/// `rank()`.
pub(super) fn rank() -> OverCall {
    OverCall { function: OverFunction::Rank, label: "rank()".into(), ..row_number() }
}

/// Whether what a row says is a matter of rows that come after its peers.
pub(super) fn looks_ahead(call: &OverCall) -> bool {
    match &call.function {
        OverFunction::RowNumber | OverFunction::Rank | OverFunction::DenseRank => false,
        OverFunction::PercentRank | OverFunction::CumeDist | OverFunction::Ntile(_) => true,
        OverFunction::Lag { offset, .. } => *offset < 0,
        _ => match call.frame.end {
            None => true,
            Some(FrameOffset::Whole(by)) => by > 0,
            Some(FrameOffset::Float(by)) => by > 0.0,
        },
    }
}

/// Whether what a row says is a matter of rows any number of places before it.
pub(super) fn looks_back_to_start(call: &OverCall) -> bool {
    match &call.function {
        OverFunction::Lag { .. } => false,
        function if takes_place(function) => true,
        _ => match call.frame.start {
            None => true,
            Some(offset) => call.frame.units == FrameUnits::Groups && !offset.is_here(),
        },
    }
}

/// The call for a window function whose value is of the type given, if the operator has it; its arguments get places
/// in `columns`.
pub(super) fn over_call(
    rel: &Rel,
    schema: &DFSchema,
    function: &WindowFunction,
    data_type: &DataType,
    columns: &mut Columns,
) -> Result<Option<OverCall>> {
    let params = &function.params;
    if params.distinct || params.null_treatment == Some(NullTreatment::IgnoreNulls) {
        return Ok(None);
    }
    let args = params.args.iter().map(|arg| rel.resolve(schema, arg)).collect::<Result<Vec<_>>>()?;
    let arg_type = args.first().map(|arg| arg.get_type(&rel.columns)).transpose()?.map(|t| storage_type(&t));
    let data_type = storage_type(data_type);
    let Some(function_of_rows) = over_function(function.fun.name(), &args, arg_type.as_ref(), &data_type) else {
        return Ok(None);
    };
    let order = params.order_by.iter().map(|sort| rel.resolve(schema, &sort.expr)?.get_type(&rel.columns));
    let order = order.collect::<Result<Vec<_>>>()?;
    let placed = takes_place(&function_of_rows);
    let frame = if placed { Some(UP_TO_PEERS) } else { frame_of(&params.window_frame, &order) };
    let Some(frame) = frame else { return Ok(None) };
    let filter = match &params.filter {
        Some(filter) => {
            let condition = rel.resolve(schema, filter)?.cast_to(&DataType::Boolean, &rel.columns)?;
            Some(columns.place(condition, label))
        }
        None => None,
    };
    let arg = match args.into_iter().next() {
        Some(Expr::Literal(value, _)) if matches!(function_of_rows, OverFunction::Count) && !value.is_null() => None,
        Some(arg) if !matches!(function_of_rows, OverFunction::Ntile(_)) => Some(columns.place(arg, label)),
        _ => None,
    };
    let label = call_label(function, &frame, placed);
    Ok(Some(OverCall { function: function_of_rows, arg, filter, frame, data_type, label }))
}

/// Whether a function is about the row's place, whatever the frame.
fn takes_place(function: &OverFunction) -> bool {
    use OverFunction::{CumeDist, DenseRank, Lag, Ntile, PercentRank, Rank, RowNumber};
    matches!(function, RowNumber | Rank | DenseRank | PercentRank | CumeDist | Ntile(_) | Lag { .. })
}

fn over_function(name: &str, args: &[Expr], arg_type: Option<&DataType>, data_type: &DataType) -> Option<OverFunction> {
    let number =
        |t: &DataType| matches!(t, DataType::Int64 | DataType::UInt64 | DataType::Float64 | DataType::Decimal128(..));
    let same = arg_type == Some(data_type);
    match (name, args) {
        ("row_number", []) => Some(OverFunction::RowNumber),
        ("rank", []) => Some(OverFunction::Rank),
        ("dense_rank", []) => Some(OverFunction::DenseRank),
        ("percent_rank", []) => Some(OverFunction::PercentRank),
        ("cume_dist", []) => Some(OverFunction::CumeDist),
        ("ntile", [buckets]) => {
            let buckets = u64::try_from(whole(buckets)?).ok().filter(|buckets| *buckets > 0)?;
            Some(OverFunction::Ntile(buckets))
        }
        ("lag" | "lead", [_, more @ ..]) if same && more.len() <= 2 => {
            let by = more.first().map_or(Some(1), whole)?;
            let default = match more.get(1) {
                None => None,
                Some(Expr::Literal(value, _)) if value.is_null() => None,
                Some(Expr::Literal(value, _)) => Some(value.cast_to(data_type).ok()?.to_array().ok()?),
                Some(_) => return None,
            };
            let offset = if name == "lag" { by } else { by.checked_neg()? };
            Some(OverFunction::Lag { offset, default })
        }
        ("first_value", [_]) if same => Some(OverFunction::FirstValue),
        ("last_value", [_]) if same => Some(OverFunction::LastValue),
        ("nth_value", [_, place]) if same => {
            let place = usize::try_from(whole(place)?).ok().filter(|place| *place > 0)?;
            Some(OverFunction::NthValue(place))
        }
        ("count", [_]) => Some(OverFunction::Count),
        ("sum", [_]) if arg_type.is_some_and(number) && number(data_type) => Some(OverFunction::Sum),
        ("avg", [_]) => match (arg_type?, data_type) {
            (DataType::Float64, DataType::Float64) => Some(OverFunction::Avg),
            (DataType::Decimal128(..), DataType::Decimal128(..)) => Some(OverFunction::Avg),
            (arg, DataType::Decimal128(..)) if arg.is_integer() => Some(OverFunction::Avg),
            _ => None,
        },
        ("min", [_]) if same && is_ordered(data_type) => Some(OverFunction::Min),
        ("max", [_]) if same && is_ordered(data_type) => Some(OverFunction::Max),
        _ => None,
    }
}

/// A constant whole number.
fn whole(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(value, _) => match value.cast_to(&DataType::Int64).ok()? {
            ScalarValue::Int64(value) if value.is_some() && value_is_whole(expr) => value,
            _ => None,
        },
        Expr::Negative(inner) => whole(inner)?.checked_neg(),
        Expr::Cast(cast) if cast.field.data_type().is_integer() => whole(&cast.expr),
        _ => None,
    }
}

fn value_is_whole(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(value, _) if value.data_type().is_integer())
}

/// The frame, given the types that order; `None`: the operator does not have it.
fn frame_of(frame: &WindowFrame, order: &[DataType]) -> Option<Frame> {
    let units = match frame.units {
        WindowFrameUnits::Rows => FrameUnits::Rows,
        WindowFrameUnits::Groups => FrameUnits::Groups,
        WindowFrameUnits::Range => FrameUnits::Range,
    };
    // The outer `None` is a bound that cannot be had, the inner one is `UNBOUNDED`.
    let bound = |bound: &WindowFrameBound| -> Option<Option<FrameOffset>> {
        let (value, away) = match bound {
            WindowFrameBound::CurrentRow => return Some(Some(FrameOffset::HERE)),
            WindowFrameBound::Preceding(value) => (value, -1),
            WindowFrameBound::Following(value) => (value, 1),
        };
        if value.is_null() {
            return Some(None);
        }
        let offset =
            if units == FrameUnits::Range { distance(value, order)? } else { FrameOffset::Whole(count(value)?) };
        Some(Some(match offset {
            FrameOffset::Whole(by) if by >= 0 => FrameOffset::Whole(by * away),
            FrameOffset::Float(by) if by >= 0.0 => FrameOffset::Float(by * away as f64),
            _ => return None,
        }))
    };
    Some(Frame { units, start: bound(&frame.start_bound)?, end: bound(&frame.end_bound)? })
}

fn count(value: &ScalarValue) -> Option<i64> {
    match value.cast_to(&DataType::Int64).ok()? {
        ScalarValue::Int64(value) => value,
        _ => None,
    }
}

/// A distance in the units of the only order column.
fn distance(value: &ScalarValue, order: &[DataType]) -> Option<FrameOffset> {
    let [order] = order else { return None };
    match (order, value) {
        (DataType::Timestamp(unit, _), value) => {
            let nanos = nanoseconds(value)?;
            let tick = match unit {
                TimeUnit::Second => 1_000_000_000,
                TimeUnit::Millisecond => 1_000_000,
                TimeUnit::Microsecond => 1_000,
                TimeUnit::Nanosecond => 1,
            };
            exact(nanos, tick)
        }
        (DataType::Date32, value) => exact(nanoseconds(value)?, DAY),
        (DataType::Float64 | DataType::Float32, value) => match value.cast_to(&DataType::Float64).ok()? {
            ScalarValue::Float64(by) => Some(FrameOffset::Float(by.filter(|by| by.is_finite())?)),
            _ => None,
        },
        (DataType::Decimal128(..), value) => match value.cast_to(order).ok()? {
            ScalarValue::Decimal128(by, _, _) => Some(FrameOffset::Whole(i64::try_from(by?).ok()?)),
            _ => None,
        },
        (order, value) if order.is_integer() && value.data_type().is_integer() => {
            Some(FrameOffset::Whole(count(value)?))
        }
        _ => None,
    }
}

const DAY: i128 = 86_400_000_000_000;

fn exact(nanos: i128, tick: i128) -> Option<FrameOffset> {
    (nanos % tick == 0).then(|| i64::try_from(nanos / tick).ok()).flatten().map(FrameOffset::Whole)
}

/// An interval of a fixed length; months have none.
fn nanoseconds(value: &ScalarValue) -> Option<i128> {
    match value {
        ScalarValue::IntervalMonthDayNano(Some(by)) if by.months == 0 => {
            Some(i128::from(by.days) * DAY + i128::from(by.nanoseconds))
        }
        ScalarValue::IntervalDayTime(Some(by)) => {
            Some(i128::from(by.days) * DAY + i128::from(by.milliseconds) * 1_000_000)
        }
        _ => None,
    }
}

/// `sum(price) rows between 10 preceding and current row`.
fn call_label(function: &WindowFunction, frame: &Frame, takes_place: bool) -> String {
    let params = &function.params;
    let name = function.fun.name();
    let star = name == "count" && matches!(params.args.as_slice(), [Expr::Literal(..)]);
    let args: Vec<_> = params.args.iter().map(label).collect();
    let args = if star { "*".to_string() } else { args.join(", ") };
    let filter = params.filter.as_deref().map(|f| format!(" filter (where {})", label(f))).unwrap_or_default();
    let usual = takes_place || *frame == UP_TO_PEERS || *frame == WHOLE && params.order_by.is_empty();
    let frame = if usual {
        String::new()
    } else {
        format!(" {}", crate::label::tidy(&params.window_frame.to_string()).to_lowercase())
    };
    format!("{name}({args}){filter}{frame}")
}
