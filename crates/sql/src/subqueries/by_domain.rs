//! Scalar subqueries that depend on the outer row otherwise than by equalities.
//!
//! DataFusion takes those apart whose conditions say that a column equals one of the outer row. All others are computed here for each
//! combination of values that the outer rows have (the domain), as one relation that is joined with the outer rows by these
//! values: Neumann and Kemper, "Unnesting Arbitrary Queries", BTW 2015.

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinType, NullEquality, Result, TableReference};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Aggregate, Expr, ExprSchemable, Filter, LogicalPlan, LogicalPlanBuilder, Projection, Subquery, Union, lit, when,
};

use super::{has_outer, key_of};

/// The values of the outer rows that a subquery depends on.
struct Domain {
    /// All different ones.
    plan: LogicalPlan,
    /// Its columns.
    keys: Vec<Column>,
    /// The outer rows' columns that these are.
    outer: Vec<Column>,
}

/// Joins the answers of such subqueries to the input of a projection or filter.
pub(super) fn join_answers(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let (LogicalPlan::Projection(Projection { input, .. }) | LogicalPlan::Filter(Filter { input, .. })) = &plan else {
        return Ok(Transformed::no(plan));
    };
    let (rows, mut joined, mut number) = (input.as_ref().clone(), input.as_ref().clone(), 0);
    let mut answered = |expr: Expr| match expr {
        Expr::ScalarSubquery(query) if !is_by_equalities(&query)? => match answers(&query, &rows, number)? {
            Some((plan, domain)) => {
                let keys = (0..domain.outer.len()).map(|i| Column::new(Some(answer(number)), key_name(i)));
                let on = (domain.outer, keys.collect::<Vec<_>>());
                let both = LogicalPlanBuilder::from(joined.clone());
                let both = both.join_detailed(plan, JoinType::Left, on, None, NullEquality::NullEqualsNull)?;
                joined = both.build()?;
                number += 1;
                Ok(Transformed::yes(Expr::Column(Column::new(Some(answer(number - 1)), VALUE))))
            }
            None => Ok(Transformed::no(Expr::ScalarSubquery(query))),
        },
        other => Ok(Transformed::no(other)),
    };
    let names: Vec<_> =
        plan.schema().iter().map(|(relation, field)| (relation.cloned(), field.name().clone())).collect();
    let columns = plan.schema().columns();
    let mut rewritten = plan.map_expressions(|expr| expr.transform_up(&mut answered))?;
    if number == 0 {
        return Ok(rewritten);
    }
    rewritten.data = match rewritten.data {
        LogicalPlan::Projection(projection) => {
            let named = projection.expr.into_iter().zip(names).map(|(expr, (relation, name))| match &expr {
                Expr::Column(column) if column.relation == relation && column.name == name => expr,
                _ => expr.unalias().alias_qualified(relation, name),
            });
            LogicalPlanBuilder::from(joined).project(named.collect::<Vec<_>>())?.build()?
        }
        LogicalPlan::Filter(filter) => {
            let all = columns.into_iter().map(Expr::Column).collect::<Vec<_>>();
            LogicalPlanBuilder::from(joined).filter(filter.predicate)?.project(all)?.build()?
        }
        other => other,
    };
    Ok(rewritten)
}

/// The relation of answers with this number in a step.
fn answer(number: usize) -> TableReference {
    TableReference::bare(format!("__answer_{number}"))
}

fn key_name(i: usize) -> String {
    format!("k{i}")
}

/// The answers' own column.
const VALUE: &str = "value";

/// Whether a subquery depends on the outer row in ways that DataFusion takes apart.
fn is_by_equalities(query: &Subquery) -> Result<bool> {
    if query.outer_ref_columns.is_empty() {
        return Ok(true);
    }
    let other = query.subquery.exists(|plan| match plan {
        LogicalPlan::Filter(filter) => {
            let mut other = false;
            for condition in split_conjunction(&filter.predicate) {
                other |= has_outer(condition)? && !matches!(key_of(condition)?, Some(Expr::Column(_)));
            }
            Ok(other)
        }
        LogicalPlan::Union(_) | LogicalPlan::Window(_) => depends(plan),
        other => refers(other),
    })?;
    Ok(!other)
}

/// Whether one of a step's own expressions refers to the outer row.
fn refers(plan: &LogicalPlan) -> Result<bool> {
    let mut refers = false;
    plan.apply_expressions(|expr| {
        refers |= has_outer(expr)?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(refers)
}

/// Whether a step or one below it refers to the outer row.
fn depends(plan: &LogicalPlan) -> Result<bool> {
    plan.exists(refers)
}

/// The answers to a subquery by the values of the rows that ask.
fn answers(query: &Subquery, rows: &LogicalPlan, number: usize) -> Result<Option<(LogicalPlan, Domain)>> {
    let outer = query.outer_ref_columns.iter().map(|expr| match expr {
        Expr::OuterReferenceColumn(_, column) if rows.schema().has_column(column) => Some(column.clone()),
        _ => None,
    });
    let Some(mut outer) = outer.collect::<Option<Vec<Column>>>() else { return Ok(None) };
    outer.sort();
    outer.dedup();
    let relation = TableReference::bare(format!("__asked_{number}"));
    let keys: Vec<Column> = (0..outer.len()).map(|i| Column::new(Some(relation.clone()), key_name(i))).collect();
    let asked = outer.iter().zip(&keys);
    let asked =
        asked.map(|(column, key)| Expr::Column(column.clone()).alias_qualified(key.relation.clone(), &key.name));
    let plan = LogicalPlanBuilder::from(rows.clone()).project(asked.collect::<Vec<_>>())?.distinct()?.build()?;
    let domain = Domain { plan, keys, outer };
    let Some(plan) = domain.spread(&query.subquery)? else { return Ok(None) };
    let Some(value) = query.subquery.schema().columns().into_iter().next() else { return Ok(None) };
    let keys = domain.keys.iter().enumerate();
    let keys = keys.map(|(i, key)| Expr::Column(key.clone()).alias_qualified(Some(answer(number)), key_name(i)));
    let all = keys.chain([Expr::Column(value).alias_qualified(Some(answer(number)), VALUE)]);
    Ok(Some((LogicalPlanBuilder::from(plan).project(all.collect::<Vec<_>>())?.build()?, domain)))
}

impl Domain {
    /// A plan's rows for each of the values: the keys' columns, and the plan's own.
    fn spread(&self, plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
        if !depends(plan)? {
            return LogicalPlanBuilder::from(self.plan.clone()).cross_join(plan.clone())?.build().map(Some);
        }
        match plan {
            LogicalPlan::Projection(projection) => {
                let Some(input) = self.spread(&projection.input)? else { return Ok(None) };
                let own = projection.expr.iter().zip(projection.schema.iter());
                let own = own.map(|(expr, (relation, field))| {
                    Ok(match expr {
                        Expr::Column(_) => expr.clone(),
                        _ => self.inside(expr)?.unalias().alias_qualified(relation.cloned(), field.name()),
                    })
                });
                let all = self.keys().map(Ok).chain(own).collect::<Result<Vec<_>>>()?;
                LogicalPlanBuilder::from(input).project(all)?.build().map(Some)
            }
            LogicalPlan::Filter(filter) => self.spread_filter(filter),
            LogicalPlan::SubqueryAlias(alias) => {
                let Some(input) = self.spread(&alias.input)? else { return Ok(None) };
                let own = alias.input.schema().columns().into_iter().zip(alias.schema.columns());
                let own = own.map(|(inner, outer)| Expr::Column(inner).alias_qualified(outer.relation, outer.name));
                LogicalPlanBuilder::from(input).project(self.keys().chain(own).collect::<Vec<_>>())?.build().map(Some)
            }
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => self.spread(&sort.input),
            LogicalPlan::Distinct(datafusion::logical_expr::Distinct::All(input)) => {
                let Some(input) = self.spread(input)? else { return Ok(None) };
                LogicalPlanBuilder::from(input).distinct()?.build().map(Some)
            }
            LogicalPlan::Union(union) => {
                let inputs = union.inputs.iter().map(|input| self.spread(input)).collect::<Result<Option<Vec<_>>>>()?;
                let Some(inputs) = inputs else { return Ok(None) };
                self.named_as(Union::try_new_with_loose_types(inputs.into_iter().map(Into::into).collect())?, plan)
                    .map(Some)
            }
            LogicalPlan::Window(window) => {
                let Some(input) = self.spread(&window.input)? else { return Ok(None) };
                let calls = window.window_expr.iter().map(|expr| self.partitioned(expr));
                LogicalPlanBuilder::from(input).window(calls.collect::<Result<Vec<_>>>()?)?.build().map(Some)
            }
            LogicalPlan::Aggregate(aggregate) => self.spread_aggregate(aggregate),
            _ => Ok(None),
        }
    }

    fn spread_filter(&self, filter: &Filter) -> Result<Option<LogicalPlan>> {
        let Some(input) = self.spread(&filter.input)? else { return Ok(None) };
        LogicalPlanBuilder::from(input).filter(self.inside(&filter.predicate)?)?.build().map(Some)
    }

    /// An aggregate for each of the values; one without groups has its row also where there is nothing to aggregate.
    fn spread_aggregate(&self, aggregate: &Aggregate) -> Result<Option<LogicalPlan>> {
        let Some(input) = self.spread(&aggregate.input)? else { return Ok(None) };
        let inside = |list: &[Expr]| list.iter().map(|expr| self.inside(expr)).collect::<Result<Vec<_>>>();
        let grouped = !aggregate.group_expr.is_empty();
        if matches!(aggregate.group_expr.as_slice(), [Expr::GroupingSet(_)]) {
            return Ok(None);
        }
        let groups = self.keys().map(Ok).chain(aggregate.group_expr.iter().map(|expr| self.inside(expr)));
        let groups = groups.collect::<Result<Vec<_>>>()?;
        let plan = Aggregate::try_new(input.into(), groups, inside(&aggregate.aggr_expr)?)?;
        let given = plan.schema.columns();
        let plan = LogicalPlan::Aggregate(plan);
        if grouped {
            let own = given[self.keys.len()..].iter().zip(aggregate.schema.columns());
            let own = own.map(|(inner, wanted)| named(Expr::Column(inner.clone()), inner, wanted));
            let all = self.keys().chain(own).collect::<Vec<_>>();
            return LogicalPlanBuilder::from(plan).project(all)?.build().map(Some);
        }
        // Under other names, so that they can stand beside the values that were asked for.
        let found = TableReference::bare(format!("{}_found", self.keys.first().map_or("", |key| relation_of(key))));
        let place = |name: String| Column::new(Some(found.clone()), name);
        let names = (0..given.len()).map(|i| format!("c{i}")).collect::<Vec<_>>();
        let renamed = given
            .iter()
            .zip(&names)
            .map(|(column, name)| Expr::Column(column.clone()).alias_qualified(Some(found.clone()), name));
        let there = lit(true).alias_qualified(Some(found.clone()), "there");
        let answers = LogicalPlanBuilder::from(plan).project(renamed.chain([there]).collect::<Vec<_>>())?.build()?;
        let on = (self.keys.clone(), names[..self.keys.len()].iter().cloned().map(place).collect::<Vec<_>>());
        let all = LogicalPlanBuilder::from(self.plan.clone());
        let all = all.join_detailed(answers, JoinType::Left, on, None, NullEquality::NullEqualsNull)?;
        let values = aggregate.aggr_expr.iter().zip(&names[self.keys.len()..]).zip(aggregate.schema.iter());
        let values = values.map(|((call, name), (relation, field))| {
            let value = Expr::Column(place(name.clone()));
            let value = match of_nothing(call, aggregate)? {
                Some(nothing) => when(Expr::Column(place("there".into())).is_null(), nothing).otherwise(value)?,
                None => value,
            };
            Ok(value.alias_qualified(relation.cloned(), field.name()))
        });
        let columns = self.keys().map(Ok).chain(values).collect::<Result<Vec<_>>>()?;
        all.project(columns)?.build().map(Some)
    }

    fn keys(&self) -> impl Iterator<Item = Expr> + '_ {
        self.keys.iter().cloned().map(Expr::Column)
    }

    /// A union's rows with the columns' names that the plan has.
    fn named_as(&self, union: Union, plan: &LogicalPlan) -> Result<LogicalPlan> {
        let wanted = self.keys.iter().cloned().chain(plan.schema().columns());
        let columns = union.schema.columns().into_iter().zip(wanted);
        let all = columns.map(|(own, wanted)| named(Expr::Column(own.clone()), &own, wanted)).collect::<Vec<_>>();
        LogicalPlanBuilder::from(LogicalPlan::Union(union)).project(all)?.build()
    }

    /// An expression with the values in the place of the outer row's.
    fn inside(&self, expr: &Expr) -> Result<Expr> {
        let inside = expr.clone().transform_up(|expr| match &expr {
            Expr::OuterReferenceColumn(_, column) => match self.outer.iter().position(|own| own == column) {
                Some(i) => Ok(Transformed::yes(Expr::Column(self.keys[i].clone()))),
                None => Ok(Transformed::no(expr)),
            },
            _ => Ok(Transformed::no(expr)),
        })?;
        Ok(inside.data)
    }

    /// A window function within the rows of each of the values.
    fn partitioned(&self, expr: &Expr) -> Result<Expr> {
        let name = expr.schema_name().to_string();
        let call = self.inside(expr)?.transform_up(|expr| match expr {
            Expr::WindowFunction(call) => {
                let WindowFunction { fun, mut params } = *call;
                params.partition_by.extend(self.keys());
                Ok(Transformed::yes(Expr::WindowFunction(Box::new(WindowFunction { fun, params }))))
            }
            other => Ok(Transformed::no(other)),
        })?;
        Ok(call.data.unalias().alias(name))
    }
}

fn relation_of(column: &Column) -> &str {
    column.relation.as_ref().map_or("", |relation| relation.table())
}

/// A column under another name, if it has not got it already.
fn named(expr: Expr, column: &Column, wanted: Column) -> Expr {
    if *column == wanted { expr } else { expr.alias_qualified(wanted.relation, wanted.name) }
}

/// What an aggregate gives for no rows, unless that is NULL.
fn of_nothing(call: &Expr, aggregate: &Aggregate) -> Result<Option<Expr>> {
    let Expr::AggregateFunction(function) = call.clone().unalias() else { return Ok(None) };
    let value = function.func.default_value(&call.get_type(aggregate.input.schema())?)?;
    Ok((!value.is_null()).then(|| lit(value)))
}
