//! Subqueries in forms that DataFusion does not take apart, before types are coerced.
//!
//! - `LATERAL` items without a `FROM` of their own, such as `UNNEST(a.list)`: computed row by row of the left side.
//! - `LATERAL (SELECT ... WHERE b.k = a.k ORDER BY ... LIMIT n)`: the first rows of each `b.k`, numbered below the condition.
//! - A scalar subquery that is no aggregate: the one row that it gives; more than one are an error.
//! - `EXISTS` and `IN` as values: by counting; `> ALL` and the like by the least or greatest value.
//! - Scalar subqueries that depend on the outer row otherwise than by equalities: for all values that are asked for.
//! - Columns of the same name inside and by which the subquery depends on the outer row: the latter get names of their own.

mod by_domain;
mod compared;
mod only_row;
mod own_names;

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, merge_schema, split_conjunction};
use datafusion::logical_expr::{
    AggregateUDF, BinaryExpr, Expr, ExprFunctionExt, ExprSchemable, FetchType, Filter, Join, JoinType, LogicalPlan,
    LogicalPlanBuilder, Operator, SkipType, SortExpr, Subquery, SubqueryAlias, lit, when,
};
use datafusion::optimizer::AnalyzerRule;

use self::compared::{Compared, compared};

/// The rule; see the module.
#[derive(Debug)]
pub(crate) struct Subqueries {
    only_row: Arc<AggregateUDF>,
}

/// The name of the row number below a `LATERAL` with a limit.
const NUMBER: &str = "__lateral_number";
/// The name of what a scalar subquery gives.
const VALUE: &str = "__value";

impl Subqueries {
    /// The rule.
    pub(crate) fn new() -> Self {
        Subqueries { only_row: Arc::new(AggregateUDF::new_from_impl(only_row::OnlyRow::new())) }
    }

    fn rewrite(&self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let schema = merge_schema(&plan.inputs());
        let filter = matches!(plan, LogicalPlan::Filter(_) | LogicalPlan::Join(_) | LogicalPlan::TableScan(_));
        let plan = match plan {
            LogicalPlan::Join(join) => lateral(join)?,
            other => Transformed::no(other),
        };
        let names = NamePreserver::new(&plan.data);
        let rewritten = plan.data.map_expressions(|expr| {
            if matches!(expr, Expr::GroupingSet(_)) {
                return Ok(Transformed::no(expr));
            }
            let name = names.save(&expr);
            let rewritten = expr.transform_up(|expr| self.value(expr, filter, &schema))?;
            Ok(rewritten.update_data(|expr| name.restore(expr)))
        })?;
        let rewritten = rewritten.transform_data(by_domain::join_answers)?;
        let rewritten = rewritten.transform_data(|plan| {
            let names = NamePreserver::new(&plan);
            plan.map_expressions(|expr| {
                let name = names.save(&expr);
                Ok(own_names::in_expression(expr)?.update_data(|expr| name.restore(expr)))
            })
        })?;
        let changed = rewritten.transformed;
        let data = if changed { rewritten.data.recompute_schema()? } else { rewritten.data };
        Ok(Transformed::new(data, plan.transformed || changed, TreeNodeRecursion::Continue))
    }

    /// An expression that is a subquery.
    fn value(&self, expr: Expr, in_filter: bool, schema: &DFSchema) -> Result<Transformed<Expr>> {
        Ok(match expr {
            Expr::ScalarSubquery(query) => match self.scalar(&query)? {
                Some(query) => Transformed::yes(Expr::ScalarSubquery(query)),
                None => Transformed::no(Expr::ScalarSubquery(query)),
            },
            Expr::Exists(Exists { subquery, negated }) if !in_filter => {
                let some = counted(subquery.subquery.as_ref(), subquery.outer_ref_columns.clone(), None)?;
                Transformed::yes(if negated { some.eq(lit(0i64)) } else { some.gt(lit(0i64)) })
            }
            Expr::InSubquery(query) if !in_filter && !has_outer(&query.expr)? => {
                Transformed::yes(contained(query, schema)?)
            }
            Expr::SetComparison(comparison) if !in_filter && !has_outer(&comparison.expr)? => {
                match compared(&comparison)? {
                    Some(Compared::In(query)) => Transformed::yes(contained(query, schema)?),
                    Some(Compared::Value(value)) => Transformed::yes(value),
                    None => Transformed::no(Expr::SetComparison(comparison)),
                }
            }
            other => Transformed::no(other),
        })
    }

    /// A correlated scalar subquery as an aggregate, if it is none.
    fn scalar(&self, query: &Subquery) -> Result<Option<Subquery>> {
        if query.outer_ref_columns.is_empty() || is_aggregate(&query.subquery) {
            return Ok(None);
        }
        let plan = limited(&query.subquery)?.map_or_else(|| query.subquery.clone(), Arc::new);
        let Some(column) = plan.schema().columns().into_iter().next() else { return Ok(None) };
        let only = self.only_row.call(vec![Expr::Column(column)]);
        let plan = LogicalPlanBuilder::from(plan).aggregate(Vec::<Expr>::new(), vec![only.clone()])?;
        let plan =
            plan.project(vec![Expr::Column(Column::new_unqualified(only.schema_name().to_string())).alias(VALUE)])?;
        Ok(Some(Subquery { subquery: Arc::new(plan.build()?), ..query.clone() }))
    }
}

impl AnalyzerRule for Subqueries {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(|plan| self.rewrite(plan))?.data)
    }

    fn name(&self) -> &str {
        "subqueries"
    }
}

/// Whether a subquery gives one row by its form.
fn is_aggregate(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Projection(p) => is_aggregate(&p.input),
        LogicalPlan::Filter(f) => is_aggregate(&f.input),
        LogicalPlan::SubqueryAlias(a) => is_aggregate(&a.input),
        LogicalPlan::Sort(s) => is_aggregate(&s.input),
        LogicalPlan::Limit(l) => is_aggregate(&l.input),
        _ => false,
    }
}

/// How many rows a subquery gives, those that meet a condition.
fn counted(plan: &LogicalPlan, outer: Vec<Expr>, condition: Option<Expr>) -> Result<Expr> {
    let mut builder = LogicalPlanBuilder::from(unlimited(plan).clone());
    if let Some(condition) = condition {
        builder = builder.filter(condition)?;
    }
    let plan = builder.aggregate(Vec::<Expr>::new(), vec![count(lit(1i64)).alias("rows")])?.build()?;
    let spans = datafusion::common::Spans::new();
    Ok(Expr::ScalarSubquery(Subquery { subquery: Arc::new(plan), outer_ref_columns: outer, spans }))
}

/// Without a sort that changes nothing about whether there are rows.
fn unlimited(plan: &LogicalPlan) -> &LogicalPlan {
    match plan {
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => unlimited(&sort.input),
        other => other,
    }
}

/// `x IN (SELECT y ...)` as a value: true, false, or NULL where a NULL leaves it open.
fn contained(query: InSubquery, schema: &DFSchema) -> Result<Expr> {
    let InSubquery { expr, subquery, negated } = query;
    let plan = subquery.subquery.as_ref();
    let Some(column) = plan.schema().columns().into_iter().next() else { return Ok(lit(ScalarValue::Null)) };
    let inner = Expr::Column(column);
    let mut outer = subquery.outer_ref_columns.clone();
    let value = expr.as_ref().clone().transform_up(|expr| match expr {
        Expr::Column(column) => {
            let field = schema.qualified_field_from_column(&column)?.1.clone();
            let reference = Expr::OuterReferenceColumn(field, column);
            if !outer.contains(&reference) {
                outer.push(reference.clone());
            }
            Ok(Transformed::yes(reference))
        }
        other => Ok(Transformed::no(other)),
    })?;
    let own = subquery.outer_ref_columns.clone();
    let found = counted(plan, outer, Some(inner.clone().eq(value.data)))?.gt(lit(0i64));
    let mut open = None;
    if inner.nullable(plan.schema())? {
        open = Some(counted(plan, own.clone(), Some(inner.is_null()))?.gt(lit(0i64)));
    }
    if expr.nullable(schema)? {
        let unknown = expr.is_null().and(counted(plan, own, None)?.gt(lit(0i64)));
        open = Some(open.map_or(unknown.clone(), |open| open.or(unknown)));
    }
    let mut value = when(found, lit(true));
    let value = match open {
        Some(open) => value.when(open, lit(ScalarValue::Boolean(None))).otherwise(lit(false))?,
        None => value.otherwise(lit(false))?,
    };
    Ok(if negated { !value } else { value })
}

fn has_outer(expr: &Expr) -> Result<bool> {
    expr.exists(|expr| Ok(matches!(expr, Expr::OuterReferenceColumn(..))))
}

/// A `LATERAL` join that DataFusion can take apart, or that needs no taking apart any more.
fn lateral(join: Join) -> Result<Transformed<LogicalPlan>> {
    let (subquery, alias) = match join.right.as_ref() {
        LogicalPlan::Subquery(subquery) => (subquery, None),
        LogicalPlan::SubqueryAlias(alias) => match alias.input.as_ref() {
            LogicalPlan::Subquery(subquery) => (subquery, Some(&alias.alias)),
            _ => return Ok(Transformed::no(LogicalPlan::Join(join))),
        },
        _ => return Ok(Transformed::no(LogicalPlan::Join(join))),
    };
    let plan = match alias {
        Some(alias) => LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(subquery.subquery.clone(), alias.clone())?),
        None => subquery.subquery.as_ref().clone(),
    };
    let outer = join.join_type == JoinType::Left;
    let always = join.filter.as_ref().is_none_or(|filter| *filter == lit(true));
    if (join.join_type == JoinType::Inner || outer && always)
        && let Some(mut rows) = row_wise(&plan, &join.left, outer)?
    {
        if let Some(filter) = join.filter.clone().filter(|_| !always) {
            rows = LogicalPlan::Filter(Filter::try_new(filter, Arc::new(rows))?);
        }
        return Ok(Transformed::yes(rows));
    }
    let Some(first) = limited(&subquery.subquery)? else { return Ok(Transformed::no(LogicalPlan::Join(join))) };
    let right = LogicalPlan::Subquery(Subquery { subquery: Arc::new(first), ..subquery.clone() });
    let right = match alias {
        Some(alias) => LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(right), alias.clone())?),
        None => right,
    };
    Ok(Transformed::yes(LogicalPlan::Join(Join { right: Arc::new(right), ..join })))
}

/// A plan over nothing but the left row, on top of the left side: its columns after the left ones.
fn row_wise(plan: &LogicalPlan, left: &LogicalPlan, outer: bool) -> Result<Option<LogicalPlan>> {
    let lefts = || left.schema().columns().into_iter().map(Expr::Column);
    Ok(match plan {
        LogicalPlan::EmptyRelation(empty) if empty.produce_one_row => Some(left.clone()),
        LogicalPlan::Projection(projection) => {
            let Some(input) = row_wise(&projection.input, left, outer)? else { return Ok(None) };
            let own = projection.expr.iter().map(inlined);
            let own = own.collect::<Result<Vec<_>>>()?;
            Some(LogicalPlanBuilder::from(input).project(lefts().chain(own))?.build()?)
        }
        LogicalPlan::Filter(filter) if !outer => {
            let Some(input) = row_wise(&filter.input, left, outer)? else { return Ok(None) };
            Some(LogicalPlanBuilder::from(input).filter(inlined(&filter.predicate)?)?.build()?)
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let Some(input) = row_wise(&alias.input, left, outer)? else { return Ok(None) };
            let own = alias.input.schema().columns().into_iter().zip(alias.schema.columns());
            let own = own.map(|(inner, column)| Expr::Column(inner).alias_qualified(column.relation, column.name));
            Some(LogicalPlanBuilder::from(input).project(lefts().chain(own))?.build()?)
        }
        LogicalPlan::Unnest(unnest) => {
            let Some(input) = row_wise(&unnest.input, left, outer)? else { return Ok(None) };
            let input = if outer { empty_as_null(input, &unnest.exec_columns)? } else { input };
            let options = unnest.options.clone().with_preserve_nulls(outer);
            let plan =
                LogicalPlanBuilder::from(input).unnest_columns_with_options(unnest.exec_columns.clone(), options)?;
            Some(plan.build()?)
        }
        _ => None,
    })
}

/// An empty array as NULL, so that its row stays.
fn empty_as_null(input: LogicalPlan, arrays: &[Column]) -> Result<LogicalPlan> {
    let cardinality = datafusion::functions_nested::cardinality::cardinality_udf();
    let columns = input.schema().columns().into_iter().map(|column| {
        let value = Expr::Column(column.clone());
        if !arrays.contains(&column) {
            return Ok(value);
        }
        let filled = cardinality.call(vec![value.clone()]).gt(lit(0u64));
        Ok(when(filled, value).end()?.alias_qualified(column.relation, column.name))
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    LogicalPlanBuilder::from(input).project(columns)?.build()
}

/// References to the left row as its columns.
fn inlined(expr: &Expr) -> Result<Expr> {
    let inlined = expr.clone().transform_up(|expr| match expr {
        Expr::OuterReferenceColumn(_, column) => Ok(Transformed::yes(Expr::Column(column))),
        other => Ok(Transformed::no(other)),
    })?;
    let name = NamePreserver::new_for_projection().save(expr);
    Ok(match has_outer(expr)? {
        true => name.restore(inlined.data),
        false => inlined.data,
    })
}

/// A correlated subquery with a limit, with row numbers below its condition instead; `None` for others.
fn limited(plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    match plan {
        LogicalPlan::Projection(projection) => {
            let Some(input) = limited(&projection.input)? else { return Ok(None) };
            Ok(Some(LogicalPlanBuilder::from(input).project(projection.expr.clone())?.build()?))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let Some(input) = limited(&alias.input)? else { return Ok(None) };
            Ok(Some(LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(input), alias.alias.clone())?)))
        }
        LogicalPlan::Limit(limit) => {
            let (SkipType::Literal(skip), FetchType::Literal(Some(fetch))) =
                (limit.get_skip_type()?, limit.get_fetch_type()?)
            else {
                return Ok(None);
            };
            let (sort, below) = match limit.input.as_ref() {
                LogicalPlan::Sort(sort) => (sort.expr.clone(), sort.input.as_ref()),
                LogicalPlan::Projection(projection) => match projection.input.as_ref() {
                    LogicalPlan::Sort(sort) => {
                        let Some(rows) = numbered(&sort.input, &sort.expr, skip, fetch)? else { return Ok(None) };
                        let rows = LogicalPlanBuilder::from(rows).project(projection.expr.clone())?.build()?;
                        return Ok(Some(rows));
                    }
                    _ => (Vec::new(), limit.input.as_ref()),
                },
                other => (Vec::new(), other),
            };
            numbered(below, &sort, skip, fetch)
        }
        _ => Ok(None),
    }
}

/// The rows `skip..skip + fetch` in an order, of each group of rows that the condition cannot tell apart.
fn numbered(plan: &LogicalPlan, sort: &[SortExpr], skip: usize, fetch: usize) -> Result<Option<LogicalPlan>> {
    match plan {
        LogicalPlan::Projection(projection) => {
            // The order is over what the projection gives; below it is over what that is made of.
            let names = projection.schema.columns();
            let below = |expr: &Expr| {
                expr.clone().transform_up(|expr| {
                    let found = match &expr {
                        Expr::Column(column) => names.iter().position(|name| name == column),
                        _ => None,
                    };
                    Ok(match found {
                        Some(place) => Transformed::yes(projection.expr[place].clone().unalias()),
                        None => Transformed::no(expr),
                    })
                })
            };
            let sort = sort.iter().map(|by| Ok(SortExpr { expr: below(&by.expr)?.data, ..by.clone() }));
            let sort = sort.collect::<Result<Vec<_>>>()?;
            let Some(input) = numbered(&projection.input, &sort, skip, fetch)? else { return Ok(None) };
            Ok(Some(LogicalPlanBuilder::from(input).project(projection.expr.clone())?.build()?))
        }
        LogicalPlan::Filter(filter) => {
            let (mut correlated, mut plain, mut keys) = (Vec::new(), Vec::new(), Vec::new());
            for condition in split_conjunction(&filter.predicate) {
                if !has_outer(condition)? {
                    plain.push(condition.clone());
                    continue;
                }
                let Some(key) = key_of(condition)? else { return Ok(None) };
                keys.push(key);
                correlated.push(condition.clone());
            }
            let mut input = LogicalPlanBuilder::from(filter.input.as_ref().clone());
            if let Some(plain) = conjunction(plain) {
                input = input.filter(plain)?;
            }
            let number = row_number().partition_by(keys).order_by(sort.to_vec()).build()?.alias(NUMBER);
            let columns: Vec<_> = filter.input.schema().columns().into_iter().map(Expr::Column).collect();
            let number_column = Expr::Column(Column::new_unqualified(NUMBER));
            let last = u64::try_from(skip.saturating_add(fetch)).unwrap_or(u64::MAX);
            correlated.push(number_column.clone().lt_eq(lit(last)));
            if skip > 0 {
                correlated.push(number_column.gt(lit(u64::try_from(skip).unwrap_or(u64::MAX))));
            }
            let Some(condition) = conjunction(correlated) else { return Ok(None) };
            Ok(Some(input.window(vec![number])?.filter(condition)?.project(columns)?.build()?))
        }
        _ => Ok(None),
    }
}

/// The inner side of an equality with the left row.
fn key_of(condition: &Expr) -> Result<Option<Expr>> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else { return Ok(None) };
    let inner = |expr: &Expr| -> Result<bool> { Ok(!has_outer(expr)?) };
    let outer = |expr: &Expr| -> Result<bool> { Ok(expr.column_refs().is_empty()) };
    Ok(match (inner(left)? && outer(right)?, inner(right)? && outer(left)?) {
        (true, _) => Some(left.as_ref().clone()),
        (_, true) => Some(right.as_ref().clone()),
        _ => None,
    })
}
