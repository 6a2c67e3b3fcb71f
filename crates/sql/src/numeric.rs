//! Numbers as PostgreSQL has them, before DataFusion coerces types.
//!
//! - `+ - * / %` between numbers become functions of ours ([`arithmetic`]): integers do not wrap, a
//!   division of decimals keeps 16 digits, a float is not divided by zero.
//! - `sum(bigint)` and `avg` of integers and decimals are decimals ([`average`]).
//! - A whole number in the query is an `integer` where its type decides that of the result, if it fits.
//! - Where a decimal meets a float, both are floats; DataFusion would make decimals of them.

mod arithmetic;
mod average;

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::expr::{AggregateFunction, GroupingSet, InList, ScalarFunction, WindowFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    AggregateUDF, Between, BinaryExpr, Case, Cast, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator,
    ScalarUDF, Union, Values, WindowFunctionDefinition,
};
use datafusion::optimizer::AnalyzerRule;

use self::arithmetic::{Arithmetic, Sign};
pub(crate) use self::average::AVERAGE_ARGUMENT;

/// What integers are summed as where `bigint` might be too small.
pub(crate) const SUM_ARGUMENT: DataType = DataType::Decimal128(28, 0);

/// The rule; see the module. Comes before types are coerced.
#[derive(Debug)]
pub(crate) struct Numbers {
    signs: Vec<(Sign, Arc<ScalarUDF>)>,
    average: Arc<AggregateUDF>,
}

impl Numbers {
    /// The rule.
    pub(crate) fn new() -> Self {
        let function = |sign: Sign| (sign, Arc::new(ScalarUDF::new_from_impl(Arithmetic::new(sign))));
        Numbers {
            signs: Sign::ALL.into_iter().map(function).collect(),
            average: Arc::new(AggregateUDF::new_from_impl(average::Average::new())),
        }
    }

    fn rewrite(&self, plan: LogicalPlan, narrow: bool) -> Result<Transformed<LogicalPlan>> {
        match plan {
            LogicalPlan::Values(values) if narrow => Ok(Transformed::yes(narrow_values(values)?)),
            LogicalPlan::Union(union) => Ok(Transformed::yes(union_as_floats(union)?)),
            plan => self.rewrite_expressions(plan, narrow),
        }
    }

    fn rewrite_expressions(&self, plan: LogicalPlan, narrow: bool) -> Result<Transformed<LogicalPlan>> {
        let schema = merge_schema(&plan.inputs());
        let names = NamePreserver::new(&plan);
        let top = narrow && matches!(plan, LogicalPlan::Projection(_));
        let limit = matches!(plan, LogicalPlan::Limit(_));
        let plan = plan.map_expressions(|expr| match limit {
            true => Ok(Transformed::no(expr)),
            false => self.named(expr, &schema, &names, narrow, top),
        })?;
        plan.map_data(|plan| plan.recompute_schema())
    }

    /// The expression rewritten, with the name that it had.
    fn named(
        &self,
        expr: Expr,
        schema: &DFSchema,
        names: &NamePreserver,
        narrow: bool,
        top: bool,
    ) -> Result<Transformed<Expr>> {
        if let Expr::GroupingSet(set) = expr {
            // The set itself can have no name, what is in it can.
            let mut one = |expr: Expr| Ok(self.named(expr, schema, names, narrow, false)?.data);
            let mut all = |exprs: Vec<Expr>| exprs.into_iter().map(&mut one).collect::<Result<Vec<_>>>();
            let set = match set {
                GroupingSet::Rollup(exprs) => GroupingSet::Rollup(all(exprs)?),
                GroupingSet::Cube(exprs) => GroupingSet::Cube(all(exprs)?),
                GroupingSet::GroupingSets(sets) => {
                    GroupingSet::GroupingSets(sets.into_iter().map(all).collect::<Result<_>>()?)
                }
            };
            return Ok(Transformed::yes(Expr::GroupingSet(set)));
        }
        let name = names.save(&expr);
        let rewritten = expr.transform_up(|expr| self.rewrite_expr(expr, schema, narrow))?;
        let rewritten = rewritten.update_data(|expr| if top { narrow_top(expr) } else { expr });
        Ok(rewritten.update_data(|expr| name.restore(expr)))
    }

    /// One expression whose parts are rewritten.
    fn rewrite_expr(&self, expr: Expr, schema: &DFSchema, narrow: bool) -> Result<Transformed<Expr>> {
        let small = |expr: Expr| if narrow { narrow_literal(expr) } else { expr };
        Ok(match expr {
            Expr::Literal(value, metadata) => match plain_number(&value) {
                Some(number) => Transformed::yes(Expr::Literal(number, metadata)),
                None => Transformed::no(Expr::Literal(value, metadata)),
            },
            Expr::BinaryExpr(binary) => self.binary(binary, schema, &small),
            Expr::Negative(inner) => self.negated(inner, schema),
            Expr::Between(between) => {
                let [expr, low, high] = as_floats([*between.expr, *between.low, *between.high], schema);
                let [expr, low, high] = [expr, low, high].map(Box::new);
                Transformed::yes(Expr::Between(Between { expr, negated: between.negated, low, high }))
            }
            Expr::InList(list) => {
                let all = std::iter::once(*list.expr).chain(list.list).collect();
                let mut all = all_as_floats(all, schema).into_iter();
                let Some(expr) = all.next() else { return Err(DataFusionError::Internal("IN without a value".into())) };
                Transformed::yes(Expr::InList(InList::new(Box::new(expr), all.collect(), list.negated)))
            }
            Expr::Case(case) => Transformed::yes(Expr::Case(case_of(case, schema, &small))),
            Expr::ScalarFunction(call) => self.function(call, schema, &small),
            Expr::AggregateFunction(call) => {
                Transformed::yes(Expr::AggregateFunction(self.aggregate(call, schema, &small)))
            }
            Expr::WindowFunction(call) => {
                Transformed::yes(Expr::WindowFunction(Box::new(self.window(*call, schema, &small))))
            }
            other => Transformed::no(other),
        })
    }

    fn sign(&self, sign: Sign, args: Vec<Expr>) -> Option<Expr> {
        let (_, function) = self.signs.iter().find(|(known, _)| *known == sign)?;
        Some(function.call(args))
    }

    /// A float as what is left of 0 without it, which is never -0.
    fn negated(&self, inner: Box<Expr>, schema: &DFSchema) -> Transformed<Expr> {
        let zero = match inner.get_type(schema) {
            Ok(DataType::Float64) => ScalarValue::Float64(Some(0.0)),
            Ok(DataType::Float32) => ScalarValue::Float32(Some(0.0)),
            _ => return Transformed::no(Expr::Negative(inner)),
        };
        match self.sign(Sign::Minus, vec![Expr::Literal(zero, None), inner.as_ref().clone()]) {
            Some(difference) => Transformed::yes(difference),
            None => Transformed::no(Expr::Negative(inner)),
        }
    }

    fn binary(&self, binary: BinaryExpr, schema: &DFSchema, small: &dyn Fn(Expr) -> Expr) -> Transformed<Expr> {
        let BinaryExpr { left, op, right } = binary;
        let numbers = |types: Option<(DataType, DataType)>| {
            types.is_some_and(|(l, r)| is_number(&l) && is_number(&r) && (l != DataType::Null || r != DataType::Null))
        };
        let types = left.get_type(schema).ok().zip(right.get_type(schema).ok());
        if let Some(sign) = Sign::of(op)
            && numbers(types)
            && let Some(call) = self.sign(sign, vec![small(*left.clone()), small(*right.clone())])
        {
            return Transformed::yes(call);
        }
        if is_comparison(op) {
            let [left, right] = as_floats([*left, *right], schema).map(Box::new);
            return Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }));
        }
        Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))
    }

    fn function(&self, mut call: ScalarFunction, schema: &DFSchema, small: &dyn Fn(Expr) -> Expr) -> Transformed<Expr> {
        match call.func.name() {
            "coalesce" | "nullif" | "greatest" | "least" | "nvl" | "ifnull" => {
                call.args = all_as_floats(call.args.into_iter().map(small).collect(), schema);
                Transformed::yes(Expr::ScalarFunction(call))
            }
            "abs" | "%" | "pg_typeof" => {
                call.args = call.args.into_iter().map(small).collect();
                Transformed::yes(Expr::ScalarFunction(call))
            }
            _ => Transformed::no(Expr::ScalarFunction(call)),
        }
    }

    fn aggregate(
        &self,
        mut call: AggregateFunction,
        schema: &DFSchema,
        small: &dyn Fn(Expr) -> Expr,
    ) -> AggregateFunction {
        if let Some(average) = self.argument(call.func.name(), &mut call.params.args, schema, small) {
            call.func = average;
        }
        call
    }

    fn window(&self, mut call: WindowFunction, schema: &DFSchema, small: &dyn Fn(Expr) -> Expr) -> WindowFunction {
        if let WindowFunctionDefinition::AggregateUDF(function) = &call.fun
            && let Some(average) = self.argument(function.name(), &mut call.params.args, schema, small)
        {
            call.fun = WindowFunctionDefinition::AggregateUDF(average);
        }
        call
    }

    /// Gives an aggregate's argument the type that PostgreSQL's aggregate has its result from; returns
    /// the function to take instead, if another one is needed.
    fn argument(
        &self,
        name: &str,
        args: &mut [Expr],
        schema: &DFSchema,
        small: &dyn Fn(Expr) -> Expr,
    ) -> Option<Arc<AggregateUDF>> {
        let arg = args.first_mut()?;
        if matches!(name, "sum" | "avg" | "mean" | "min" | "max" | "array_agg" | "first_value" | "last_value") {
            *arg = small(arg.clone());
        }
        let data_type = arg.get_type(schema).ok()?;
        match (name, &data_type) {
            // What was made wider only to be summed is no `bigint`; plans may come here twice.
            ("sum", _) if is_widened(arg, schema) => None,
            ("sum", DataType::Int64 | DataType::UInt64) => {
                *arg = cast(arg.clone(), SUM_ARGUMENT);
                None
            }
            ("avg" | "mean", own) if own.is_integer() => {
                *arg = cast(arg.clone(), AVERAGE_ARGUMENT);
                Some(self.average.clone())
            }
            ("avg" | "mean", DataType::Decimal128(..)) => Some(self.average.clone()),
            _ => None,
        }
    }
}

impl AnalyzerRule for Numbers {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        // What a recursion gives has the types that were found when it was planned.
        let narrow = !plan.exists(|plan| Ok(matches!(plan, LogicalPlan::RecursiveQuery(_))))?;
        Ok(plan.transform_up_with_subqueries(|plan| self.rewrite(plan, narrow))?.data)
    }

    fn name(&self) -> &str {
        "numbers"
    }
}

/// The operator that a call of ours stands for.
pub(crate) fn operator(call: &ScalarFunction) -> Option<Operator> {
    call.func.inner().downcast_ref::<Arithmetic>().map(Arithmetic::operator)
}

/// `mod(a, b)`.
pub(crate) fn modulo() -> ScalarUDF {
    ScalarUDF::new_from_impl(Arithmetic::new(Sign::Modulo))
}

fn cast(expr: Expr, data_type: DataType) -> Expr {
    match expr {
        Expr::Alias(alias) => cast(*alias.expr, data_type),
        expr => Expr::Cast(Cast::new(Box::new(expr), data_type)),
    }
}

/// Whether it is a smaller integer as a `bigint`.
fn is_widened(expr: &Expr, schema: &DFSchema) -> bool {
    let Expr::Cast(cast) = expr else { return false };
    let small = |t: DataType| matches!(t, DataType::Int8 | DataType::Int16 | DataType::Int32);
    *cast.field.data_type() == DataType::Int64 && cast.expr.get_type(schema).is_ok_and(small)
}

fn is_comparison(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

fn is_number(data_type: &DataType) -> bool {
    let known = matches!(data_type, DataType::Decimal128(..) | DataType::Null);
    known || data_type.is_integer() || matches!(data_type, DataType::Float32 | DataType::Float64)
}

/// Literals that DataFusion writes as no type of PostgreSQL's: decimals without digits before the point's
/// place, unsigned integers.
fn plain_number(value: &ScalarValue) -> Option<ScalarValue> {
    match value {
        ScalarValue::Decimal128(Some(digits), _, scale) if *scale < 0 => {
            let factor = 10i128.checked_pow(u32::from(scale.unsigned_abs()))?;
            let digits = digits.checked_mul(factor)?;
            let precision = u8::try_from(digits.unsigned_abs().to_string().len()).ok()?;
            Some(ScalarValue::Decimal128(Some(digits), precision, 0))
        }
        ScalarValue::UInt64(Some(number)) if i64::try_from(*number).is_err() => {
            Some(ScalarValue::Decimal128(Some(i128::from(*number)), 20, 0))
        }
        _ => None,
    }
}

/// A whole number as an `integer`, if it fits.
fn narrow_literal(expr: Expr) -> Expr {
    match expr {
        Expr::Literal(ScalarValue::Int64(Some(number)), metadata) => match i32::try_from(number) {
            Ok(small) => Expr::Literal(ScalarValue::Int32(Some(small)), metadata),
            Err(_) => Expr::Literal(ScalarValue::Int64(Some(number)), metadata),
        },
        other => other,
    }
}

/// [`narrow_literal`] for a column of a `SELECT`.
fn narrow_top(expr: Expr) -> Expr {
    match expr {
        Expr::Alias(mut alias) => {
            alias.expr = Box::new(narrow_literal(*alias.expr));
            Expr::Alias(alias)
        }
        other => narrow_literal(other),
    }
}

fn narrow_values(values: Values) -> Result<LogicalPlan> {
    let number = |expr: &Expr| matches!(expr, Expr::Literal(ScalarValue::Int64(Some(_)), _));
    if !values.values.iter().flatten().any(number) {
        return Ok(LogicalPlan::Values(values));
    }
    let mut rows = values.values.clone();
    let columns = values.schema.fields().len();
    for column in 0..columns {
        let number = |row: &Vec<Expr>| matches!(row[column], Expr::Literal(ScalarValue::Int64(Some(_)), _));
        let fits = rows.iter().any(number)
            && rows.iter().all(|row| match &row[column] {
                Expr::Literal(ScalarValue::Int64(Some(number)), _) => i32::try_from(*number).is_ok(),
                Expr::Literal(value, _) => value.is_null(),
                _ => false,
            });
        for row in rows.iter_mut().filter(|_| fits) {
            row[column] = match &row[column] {
                Expr::Literal(value, _) if value.is_null() => Expr::Literal(ScalarValue::Int32(None), None),
                other => narrow_literal(other.clone()),
            };
        }
    }
    LogicalPlanBuilder::values(rows)?.build()
}

/// Where one of the expressions is a float, the decimals as floats.
fn all_as_floats(mut exprs: Vec<Expr>, schema: &DFSchema) -> Vec<Expr> {
    let types: Vec<_> = exprs.iter().map(|expr| expr.get_type(schema).ok()).collect();
    let float = types.iter().flatten().any(|t| matches!(t, DataType::Float32 | DataType::Float64));
    if float {
        for (expr, data_type) in exprs.iter_mut().zip(types) {
            if matches!(data_type, Some(DataType::Decimal128(..))) {
                *expr = as_float(expr.clone());
            }
        }
    }
    exprs
}

fn as_floats<const N: usize>(exprs: [Expr; N], schema: &DFSchema) -> [Expr; N] {
    let mut all = all_as_floats(exprs.to_vec(), schema).into_iter();
    exprs.map(|expr| all.next().unwrap_or(expr))
}

fn as_float(expr: Expr) -> Expr {
    if let Expr::Literal(value, metadata) = &expr
        && let Ok(float) = value.cast_to(&DataType::Float64)
    {
        return Expr::Literal(float, metadata.clone());
    }
    cast(expr, DataType::Float64)
}

fn case_of(case: Case, schema: &DFSchema, small: &dyn Fn(Expr) -> Expr) -> Case {
    let Case { expr, when_then_expr, else_expr } = case;
    let (whens, thens): (Vec<_>, Vec<_>) = when_then_expr.into_iter().unzip();
    let results = thens.into_iter().chain(else_expr.clone()).map(|result| small(*result)).collect();
    let mut results = all_as_floats(results, schema).into_iter().map(Box::new);
    let when_then_expr = whens.into_iter().zip(results.by_ref()).collect();
    Case { expr, when_then_expr, else_expr: else_expr.and(results.next()) }
}

/// Casts the decimal columns of a `UNION` to floats where another input has floats.
fn union_as_floats(union: Union) -> Result<LogicalPlan> {
    let width = union.schema.fields().len();
    let inputs: Vec<_> = union.inputs.iter().map(|input| input.as_ref().clone()).collect();
    let of = |input: &LogicalPlan, column: usize| input.schema().fields().get(column).map(|f| f.data_type().clone());
    let float = |column: usize| {
        inputs.iter().any(|i| matches!(of(i, column), Some(DataType::Float32 | DataType::Float64)))
            && inputs.iter().any(|i| matches!(of(i, column), Some(DataType::Decimal128(..))))
    };
    let floats: Vec<_> = (0..width).map(float).collect();
    let convert = |input: LogicalPlan| -> Result<Arc<LogicalPlan>> {
        if !floats.contains(&true) || input.schema().fields().len() != width {
            return Ok(Arc::new(input));
        }
        let columns =
            input.schema().columns().into_iter().enumerate().map(|(i, column)| match (floats[i], of(&input, i)) {
                (true, Some(DataType::Decimal128(..))) => {
                    let (relation, name) = (column.relation.clone(), column.name.clone());
                    cast(Expr::Column(column), DataType::Float64).alias_qualified(relation, name)
                }
                _ => Expr::Column(column),
            });
        let columns: Vec<_> = columns.collect();
        Ok(Arc::new(LogicalPlanBuilder::from(input).project(columns)?.build()?))
    };
    let inputs = inputs.iter().cloned().map(convert).collect::<Result<Vec<_>>>()?;
    Ok(LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?))
}
