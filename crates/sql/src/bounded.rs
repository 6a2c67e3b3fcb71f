//! Functions whose answer can be far larger than their arguments, such as `repeat` and `||`: how large it would be is
//! worked out first, as there is no way to give an error once memory has run out.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::kernels::concat_elements::concat_elements_dyn;
use arrow::compute::kernels::length::length;
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, FieldRef, Int64Type, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

use crate::provider::external;
use crate::{SqlError, state};

/// Bytes of one column in one batch that a function may make.
const MAX_BYTES: u128 = 64 << 20;
/// What an element of an array counts for.
const ELEMENT: u128 = 8;

/// Puts bounds around functions and operators. Comes after types are coerced.
#[derive(Debug)]
pub(crate) struct BoundedGrowth;

impl AnalyzerRule for BoundedGrowth {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(rewrite)?.data)
    }

    fn name(&self) -> &str {
        "bounded_growth"
    }
}

fn rewrite(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let schema = merge_schema(&plan.inputs());
    let names = NamePreserver::new(&plan);
    plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let rewritten = expr.transform_up(|expr| Ok(bounded(expr, &schema)))?;
        Ok(rewritten.update_data(|expr| name.restore(expr)))
    })
}

fn bounded(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    match expr {
        Expr::ScalarFunction(ScalarFunction { func, args }) => {
            let grows = grows(func.name()).filter(|_| !func.inner().is::<Bounded>());
            let Some(grows) = grows else {
                return Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args }));
            };
            Transformed::yes(ScalarUDF::new_from_impl(Bounded { inner: func, grows }).call(args))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }) => {
            let is_text = |expr: &Expr| expr.get_type(schema).is_ok_and(|t| t.is_string());
            if is_text(&left) && is_text(&right) {
                return Transformed::yes(ScalarUDF::new_from_impl(Concat::new()).call(vec![*left, *right]));
            }
            Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }))
        }
        other => Transformed::no(other),
    }
}

/// How an answer grows with the arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Grows {
    /// `repeat(text, n)`.
    Repeat,
    /// `lpad(text, n, ...)`.
    Pad,
    /// `replace(text, from, to)`.
    Replace,
    /// `regexp_replace(text, pattern, to, ...)`: in the worst case between all characters.
    ReplaceMatches,
    /// All arguments one after the other.
    Sum,
    /// `array_repeat(value, n)`.
    RepeatElement,
    /// `array_resize(array, n, ...)`.
    Resize,
    /// `generate_series(from, to, step)`.
    Series,
}

fn grows(function: &str) -> Option<Grows> {
    Some(match function {
        "repeat" => Grows::Repeat,
        "lpad" | "rpad" => Grows::Pad,
        "replace" => Grows::Replace,
        "regexp_replace" => Grows::ReplaceMatches,
        "concat" | "concat_ws" | "array_concat" | "array_cat" => Grows::Sum,
        "array_repeat" => Grows::RepeatElement,
        "array_resize" => Grows::Resize,
        "range" | "generate_series" => Grows::Series,
        _ => return None,
    })
}

/// One argument: as it is, and how large each of its values is (bytes of texts, elements of arrays).
struct Argument {
    values: ArrayRef,
    sizes: Option<Int64Array>,
    constant: bool,
}

impl Argument {
    fn new(value: &ColumnarValue) -> Result<Self> {
        let constant = matches!(value, ColumnarValue::Scalar(_));
        let values = match value {
            ColumnarValue::Array(array) => array.clone(),
            ColumnarValue::Scalar(scalar) => scalar.to_array_of_size(1)?,
        };
        let sizes = length(values.as_ref()).and_then(|sizes| cast(&sizes, &DataType::Int64));
        let sizes = sizes.ok().map(|sizes| sizes.as_primitive::<Int64Type>().clone());
        Ok(Argument { values, sizes, constant })
    }

    fn at(&self, row: usize) -> usize {
        if self.constant { 0 } else { row }
    }

    /// Bytes or elements; what has no length is one element.
    fn size(&self, row: usize) -> u128 {
        let row = self.at(row);
        match &self.sizes {
            Some(sizes) if sizes.is_valid(row) => u128::from(sizes.value(row).unsigned_abs()),
            Some(_) => 0,
            None => 1,
        }
    }

    /// Bytes, roughly.
    fn bytes(&self, row: usize) -> u128 {
        if self.values.data_type().is_string() { self.size(row) } else { self.size(row) * ELEMENT }
    }

    /// Whole numbers; times in microseconds.
    fn number(&self, row: usize) -> Option<i64> {
        let row = self.at(row);
        let plain = match self.values.data_type() {
            DataType::Date32 | DataType::Timestamp(..) => {
                cast(&self.values.slice(row, 1), &DataType::Timestamp(TimeUnit::Microsecond, None)).ok()?
            }
            _ => self.values.slice(row, 1),
        };
        let number = cast(&plain, &DataType::Int64).ok()?;
        let number = number.as_primitive::<Int64Type>();
        number.is_valid(0).then(|| number.value(0))
    }

    fn text(&self, row: usize) -> Option<String> {
        let value = cast(&self.values.slice(self.at(row), 1), &DataType::Utf8).ok()?;
        let value = value.as_string::<i32>();
        value.is_valid(0).then(|| value.value(0).to_owned())
    }
}

impl Grows {
    /// How many bytes the answer for a row has, roughly.
    fn bytes(self, args: &[Argument], row: usize) -> u128 {
        let times = |i: usize| args.get(i).and_then(|arg| u128::try_from(arg.number(row)?).ok()).unwrap_or(0);
        let first = args.first().map_or(0, |arg| arg.bytes(row));
        match self {
            Grows::Repeat => first.saturating_mul(times(1)),
            Grows::RepeatElement => first.max(ELEMENT).saturating_mul(times(1)),
            Grows::Pad => times(1),
            Grows::Resize => times(1).saturating_mul(ELEMENT),
            Grows::Sum => args.iter().map(|arg| arg.bytes(row)).sum(),
            Grows::Replace => replaced(args, row).unwrap_or(first),
            Grows::ReplaceMatches => {
                let worst = (first + 1).saturating_mul(args.get(2).map_or(0, |to| to.size(row)));
                // Only single answers are refused: what all would be at worst says little.
                if worst > MAX_BYTES { worst } else { first }
            }
            Grows::Series => series(args, row).unwrap_or(0).saturating_mul(ELEMENT),
        }
    }
}

/// The bytes of a text after `replace`.
fn replaced(args: &[Argument], row: usize) -> Option<u128> {
    let (from, to) = (args.get(1)?.size(row), args.get(2)?.size(row));
    let whole = args.first()?.size(row);
    if from == 0 || to <= from || whole.saturating_mul(to) / from <= MAX_BYTES / 1024 {
        return Some(whole);
    }
    let found = args.first()?.text(row)?.matches(&args.get(1)?.text(row)?).count() as u128;
    Some(whole + found * (to - from))
}

/// How many numbers or times a series has.
fn series(args: &[Argument], row: usize) -> Option<u128> {
    let (from, to) = match args {
        [to] => (0, to.number(row)?),
        [from, to, ..] => (from.number(row)?, to.number(row)?),
        [] => return None,
    };
    let step = match args.get(2) {
        None => 1,
        Some(step) => step_of(step, row)?,
    };
    Some(u128::from(from.abs_diff(to)) / u128::from(step.unsigned_abs().max(1)) + 1)
}

/// A step; an interval in microseconds.
fn step_of(step: &Argument, row: usize) -> Option<i64> {
    use arrow::datatypes::IntervalMonthDayNanoType;
    if let Some(intervals) = step.values.as_primitive_opt::<IntervalMonthDayNanoType>() {
        let interval = intervals.value(step.at(row));
        let days = i64::from(interval.months).saturating_mul(28).saturating_add(i64::from(interval.days));
        return Some(days.saturating_mul(86_400_000_000).saturating_add(interval.nanoseconds / 1000));
    }
    step.number(row)
}

fn check(name: &str, grows: Grows, args: &ScalarFunctionArgs) -> Result<()> {
    let arguments = args.args.iter().map(Argument::new).collect::<Result<Vec<_>>>()?;
    let mut bytes = 0u128;
    for row in 0..args.number_rows {
        bytes = bytes.saturating_add(grows.bytes(&arguments, row));
        if bytes > MAX_BYTES {
            let message = format!("{name} would make more than {} MiB at once", MAX_BYTES >> 20);
            return Err(external(SqlError::new(state::PROGRAM_LIMIT_EXCEEDED, message)));
        }
        if arguments.iter().all(|arg| arg.constant) {
            break;
        }
    }
    Ok(())
}

/// A function of DataFusion's that refuses to make too much.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    grows: Grows,
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        self.inner.return_type(args)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        check(self.name(), self.grows, &args)?;
        self.inner.invoke_with_args(args)
    }
}

/// `||` of texts.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Concat {
    signature: Signature,
}

impl Concat {
    fn new() -> Self {
        Concat { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Concat {
    fn name(&self) -> &str {
        "||"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        check(self.name(), Grows::Sum, &args)?;
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [left, right] = arrays.as_slice() else {
            return Err(DataFusionError::Internal("|| takes two texts".into()));
        };
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let text = |array: &ArrayRef| cast_with_options(array, &DataType::Utf8, &options);
        Ok(ColumnarValue::Array(concat_elements_dyn(text(left)?.as_ref(), text(right)?.as_ref())?))
    }
}
