//! Window table functions: `TUMBLE`, `HOP`, `CUMULATE` and `SESSION` in `FROM`.
//!
//! `TUMBLE(t, ts, INTERVAL '1 minute')` and `TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), ...))` become a
//! [`WindowNode`], a logical node of ours that adds `window_start` and `window_end` to its input.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalMonthDayNano};
use datafusion::common::{Column, DFSchema, DFSchemaRef, DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    Expr, ExprSchemable, Extension, LogicalPlan, LogicalPlanBuilder, UserDefinedLogicalNodeCore,
};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::sqlparser::ast::{self, FunctionArg, FunctionArgExpr, TableFactor};
use tidemill_delta::Micros;

use crate::provider::external;
use crate::{SqlError, state};

/// The columns that a window function adds.
pub(crate) const WINDOW_START: &str = "window_start";
/// See [`WINDOW_START`].
pub(crate) const WINDOW_END: &str = "window_end";

/// Which windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum WindowKind {
    /// Windows of one size at fixed places.
    Fixed {
        /// Length.
        size: Micros,
        /// From start to start.
        slide: Micros,
        /// Shift.
        origin: Micros,
    },
    /// Rows at most `gap` apart.
    Session {
        /// The longest pause.
        gap: Micros,
    },
}

/// Adds `window_start` and `window_end` to its input.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct WindowNode {
    /// What it reads.
    pub(crate) input: LogicalPlan,
    /// The time column.
    pub(crate) time: Expr,
    /// For sessions: the columns that rows must share.
    pub(crate) keys: Vec<Expr>,
    /// Which windows.
    pub(crate) kind: WindowKind,
    schema: DFSchemaRef,
}

impl WindowNode {
    fn new(input: LogicalPlan, time: Expr, keys: Vec<Expr>, kind: WindowKind) -> Result<Self> {
        let data_type = time.get_type(input.schema())?;
        let mut fields: Vec<_> =
            input.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone())).collect();
        for name in [WINDOW_START, WINDOW_END] {
            fields.push((None, Arc::new(Field::new(name, data_type.clone(), true))));
        }
        let schema = Arc::new(DFSchema::new_with_metadata(fields, HashMap::new())?);
        Ok(WindowNode { input, time, keys, kind, schema })
    }

    fn name_of_kind(&self) -> &'static str {
        match self.kind {
            WindowKind::Fixed { size, slide, .. } if size == slide => "TUMBLE",
            WindowKind::Fixed { .. } => "HOP",
            WindowKind::Session { .. } => "SESSION",
        }
    }
}

impl PartialOrd for WindowNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for WindowNode {
    fn name(&self) -> &str {
        "Window"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        std::iter::once(self.time.clone()).chain(self.keys.iter().cloned()).collect()
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        match self.kind {
            WindowKind::Fixed { .. } => [WINDOW_START, WINDOW_END].into_iter().map(String::from).collect(),
            // A row that a filter drops below may be the one that joins two sessions.
            WindowKind::Session { .. } => self.schema.fields().iter().map(|f| f.name().clone()).collect(),
        }
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:?}", self.name_of_kind(), self.time, self.kind)
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let (Some(input), false) = (inputs.pop(), exprs.is_empty()) else {
            return Err(DataFusionError::Internal("a window needs an input and a time".into()));
        };
        let time = exprs.remove(0);
        WindowNode::new(input, time, exprs, self.kind)
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.input.schema().fields().len();
        let mut needed: Vec<_> = output_columns.iter().copied().filter(|c| *c < width).collect();
        for column in self.expressions().iter().flat_map(Expr::column_refs) {
            needed.extend(self.input.schema().maybe_index_of_column(column));
        }
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}

/// Plans the window functions, and refuses what the default planner would silently ignore.
#[derive(Debug)]
pub(crate) struct WindowPlanner;

impl RelationPlanner for WindowPlanner {
    fn plan_relation(&self, relation: TableFactor, cx: &mut dyn RelationPlannerContext) -> Result<RelationPlanning> {
        match relation {
            TableFactor::Table { version: Some(_), ref name, .. } => {
                let message = format!("FOR SYSTEM_TIME AS OF is not supported (table {name})");
                Err(refuse(&message, "Join the table as it is: a view follows its changes."))
            }
            TableFactor::Table { ref name, args: Some(ref args), ref alias, .. } => match function_of(name) {
                Some(function) => plan_function(function, args.args.clone(), alias.clone(), cx),
                None => Ok(RelationPlanning::Original(Box::new(relation))),
            },
            TableFactor::TableFunction { expr: ast::Expr::Function(ref call), ref alias } => {
                let (Some(function), ast::FunctionArguments::List(list)) = (function_of(&call.name), &call.args) else {
                    return Ok(RelationPlanning::Original(Box::new(relation)));
                };
                plan_function(function, list.args.clone(), alias.clone(), cx)
            }
            other => Ok(RelationPlanning::Original(Box::new(other))),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Function {
    Tumble,
    Hop,
    Cumulate,
    Session,
}

fn function_of(name: &ast::ObjectName) -> Option<Function> {
    let [part] = name.0.as_slice() else { return None };
    match part.as_ident()?.value.to_ascii_lowercase().as_str() {
        "tumble" => Some(Function::Tumble),
        "hop" => Some(Function::Hop),
        "cumulate" => Some(Function::Cumulate),
        "session" => Some(Function::Session),
        _ => None,
    }
}

fn plan_function(
    function: Function,
    args: Vec<FunctionArg>,
    alias: Option<ast::TableAlias>,
    cx: &mut dyn RelationPlannerContext,
) -> Result<RelationPlanning> {
    let mut args = args.into_iter().map(argument).collect::<Result<Vec<_>>>()?.into_iter();
    let Some(table) = args.next() else { return Err(usage(function)) };
    let input = cx.plan(table_factor(table)?)?;
    let (mut columns, mut intervals, mut after) = (Vec::new(), Vec::new(), Vec::new());
    for arg in args {
        for arg in flatten(arg) {
            let is_column = matches!(arg, ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_));
            match (is_column, intervals.is_empty()) {
                (true, true) => columns.push(column(arg, &input, cx)?),
                (true, false) => after.push(column(arg, &input, cx)?),
                (false, _) => intervals.push(interval(arg, cx)?),
            }
        }
    }
    let Some(time) = columns.pop() else { return Err(usage(function)) };
    columns.extend(after);
    let kind = window_kind(function, &intervals)?;
    if function != Function::Session && !columns.is_empty() {
        return Err(usage(function));
    }
    check_time(&time, &input)?;
    let node = WindowNode::new(input, time.clone(), columns, kind)?;
    let mut plan = LogicalPlan::Extension(Extension { node: Arc::new(node) });
    if let (Function::Cumulate, WindowKind::Fixed { size, .. }) = (function, kind) {
        plan = cumulate(plan, time, size)?;
    }
    Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
}

fn window_kind(function: Function, intervals: &[Micros]) -> Result<WindowKind> {
    let kind = match (function, intervals) {
        (Function::Tumble, &[size]) => WindowKind::Fixed { size, slide: size, origin: 0 },
        (Function::Tumble, &[size, origin]) => WindowKind::Fixed { size, slide: size, origin },
        (Function::Hop, &[slide, size]) => WindowKind::Fixed { size, slide, origin: 0 },
        (Function::Hop, &[slide, size, origin]) => WindowKind::Fixed { size, slide, origin },
        (Function::Cumulate, &[slide, size]) => WindowKind::Fixed { size, slide, origin: 0 },
        (Function::Session, &[gap]) => WindowKind::Session { gap },
        _ => return Err(usage(function)),
    };
    let two = matches!(function, Function::Hop | Function::Cumulate);
    let lengths = if two { &intervals[..2] } else { &intervals[..1] };
    if lengths.iter().any(|length| *length <= 0) {
        return Err(invalid("the length of a window must be positive"));
    }
    match kind {
        WindowKind::Fixed { size, slide, .. } if function == Function::Cumulate && size % slide != 0 => {
            Err(invalid("the size of a CUMULATE must be a multiple of its step"))
        }
        WindowKind::Fixed { size, slide, .. } if slide > size => {
            Err(invalid("the slide of a HOP must not be longer than its windows: rows between windows would be lost"))
        }
        WindowKind::Fixed { size, slide, .. } if size / slide > MAX_OVERLAP => {
            Err(invalid(&format!("a row of this HOP would fall into more than {MAX_OVERLAP} windows")))
        }
        kind => Ok(kind),
    }
}

/// Growing windows are those of a `HOP` that end within the row's own stretch of `size`; they start
/// where it starts.
fn cumulate(hop: LogicalPlan, time: Expr, size: Micros) -> Result<LogicalPlan> {
    let interval = |micros: Micros| {
        let nanos = IntervalMonthDayNano::new(0, 0, micros.saturating_mul(1000));
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(nanos)), None)
    };
    let stretch = |time: Expr| datafusion::functions::datetime::date_bin().call(vec![interval(size), time]);
    let end = Expr::Column(Column::new_unqualified(WINDOW_END));
    let within = end.clone().lt_eq(stretch(time) + interval(size));
    let columns = hop.schema().columns();
    let exprs = columns.into_iter().map(|column| match column.relation.is_none() && column.name == WINDOW_START {
        true => stretch(end.clone() - interval(1)).alias(WINDOW_START),
        false => Expr::Column(column),
    });
    let exprs: Vec<_> = exprs.collect();
    LogicalPlanBuilder::from(hop).filter(within)?.project(exprs)?.build()
}

/// In how many windows a row can be; more is taken for a mistake in the intervals.
const MAX_OVERLAP: i64 = 10_000;

/// `DESCRIPTOR(ts)`, `(a, b)` and `PARTITION_BY(a, b)` stand for their columns.
fn flatten(expr: ast::Expr) -> Vec<ast::Expr> {
    match expr {
        ast::Expr::Tuple(list) => list,
        ast::Expr::Nested(inner) => flatten(*inner),
        ast::Expr::Function(call) => {
            let name = call.name.to_string().to_ascii_lowercase();
            match &call.args {
                ast::FunctionArguments::List(list) if name == "descriptor" || name == "partition_by" => {
                    list.args.iter().cloned().filter_map(|arg| argument(arg).ok()).collect()
                }
                _ => vec![ast::Expr::Function(call)],
            }
        }
        other => vec![other],
    }
}

fn argument(arg: FunctionArg) -> Result<ast::Expr> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
        | FunctionArg::Named { arg: FunctionArgExpr::Expr(expr), .. }
        | FunctionArg::ExprNamed { arg: FunctionArgExpr::Expr(expr), .. } => Ok(expr),
        other => Err(invalid(&format!("{other} is no argument of a window function"))),
    }
}

/// The first argument as something in `FROM`.
fn table_factor(expr: ast::Expr) -> Result<TableFactor> {
    let parts = match expr {
        ast::Expr::Identifier(ident) => vec![ident],
        ast::Expr::CompoundIdentifier(idents) => idents,
        ast::Expr::Nested(inner) => return table_factor(*inner),
        ast::Expr::Subquery(subquery) => {
            return Ok(TableFactor::Derived { lateral: false, subquery, alias: None, sample: None });
        }
        other => return Err(invalid(&format!("the first argument of a window function is a table, not {other}"))),
    };
    Ok(TableFactor::Table {
        name: ast::ObjectName::from(parts),
        alias: None,
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    })
}

fn column(expr: ast::Expr, input: &LogicalPlan, cx: &mut dyn RelationPlannerContext) -> Result<Expr> {
    match cx.sql_to_expr(expr, input.schema())? {
        column @ Expr::Column(_) => Ok(column),
        other => Err(refuse(
            &format!("a window function takes columns, not {other}"),
            "Compute it in a subquery: TUMBLE((SELECT *, ... AS ts FROM t), ts, ...).",
        )),
    }
}

fn check_time(time: &Expr, input: &LogicalPlan) -> Result<()> {
    match time.get_type(input.schema())? {
        DataType::Timestamp(_, _) => Ok(()),
        other => {
            let message = format!("the time column {time} of a window is of type {other}, not a timestamp");
            Err(external(SqlError::new(state::DATATYPE_MISMATCH, message)))
        }
    }
}

/// A constant interval in microseconds.
fn interval(expr: ast::Expr, cx: &mut dyn RelationPlannerContext) -> Result<Micros> {
    let text = expr.to_string();
    let expr = match cx.sql_to_expr(expr, &DFSchema::empty())? {
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => {
            let interval = arrow::compute::cast(
                &arrow::array::StringArray::from(vec![text]),
                &DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano),
            )?;
            Expr::Literal(ScalarValue::try_from_array(&interval, 0)?, None)
        }
        other => other,
    };
    let simplifier = ExprSimplifier::new(SimplifyContext::default());
    let simplified = simplifier.simplify(simplifier.coerce(expr, &DFSchema::empty())?)?;
    let Expr::Literal(value, _) = &simplified else {
        return Err(invalid(&format!("{text} is not a constant interval")));
    };
    interval_micros(value).ok_or_else(|| {
        let message = format!("{text} is not an interval of fixed length");
        external(SqlError::new(state::INVALID_PARAMETER_VALUE, message).hint("Use days, hours, minutes or seconds."))
    })
}

/// An interval's length in microseconds, if it has a fixed one.
pub(crate) fn interval_micros(value: &ScalarValue) -> Option<Micros> {
    match value {
        ScalarValue::IntervalMonthDayNano(Some(i)) if i.months == 0 => {
            i64::from(i.days).checked_mul(DAY)?.checked_add(i.nanoseconds / 1000)
        }
        ScalarValue::IntervalDayTime(Some(i)) => {
            i64::from(i.days).checked_mul(DAY)?.checked_add(i64::from(i.milliseconds) * 1000)
        }
        ScalarValue::DurationSecond(Some(n)) => n.checked_mul(1_000_000),
        ScalarValue::DurationMillisecond(Some(n)) => n.checked_mul(1000),
        ScalarValue::DurationMicrosecond(Some(n)) => Some(*n),
        ScalarValue::DurationNanosecond(Some(n)) => Some(n / 1000),
        _ => None,
    }
}

/// A day in microseconds.
pub(crate) const DAY: Micros = 86_400_000_000;

fn usage(function: Function) -> DataFusionError {
    invalid(match function {
        Function::Tumble => "usage: TUMBLE(table, time_column, size [, origin])",
        Function::Hop => "usage: HOP(table, time_column, slide, size [, origin])",
        Function::Cumulate => "usage: CUMULATE(table, time_column, step, size)",
        Function::Session => "usage: SESSION(table, time_column, gap [, PARTITION BY columns])",
    })
}

fn invalid(message: &str) -> DataFusionError {
    external(SqlError::new(state::INVALID_PARAMETER_VALUE, message))
}

fn refuse(message: &str, hint: &str) -> DataFusionError {
    external(SqlError::not_supported(message).hint(hint))
}
