//! `GROUPING SETS`, `ROLLUP` and `CUBE` as a union: each set of groups is an aggregate of its own, so that each is
//! incremental.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::expr::GroupingSet;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, Union, lit};

use super::internal;
use crate::SqlError;
use crate::provider::external;

/// How many expressions a `CUBE` may have: each makes twice as many aggregates.
const MAX_CUBE: usize = 10;

/// Rewrites all of a plan's.
pub(super) fn expand(plan: LogicalPlan) -> Result<LogicalPlan> {
    let expanded = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Aggregate(aggregate) => match aggregate.group_expr.as_slice() {
            [Expr::GroupingSet(set)] => Ok(Transformed::yes(union_of_sets(&aggregate, set)?)),
            _ => Ok(Transformed::no(LogicalPlan::Aggregate(aggregate))),
        },
        other => Ok(Transformed::no(other)),
    })?;
    Ok(expanded.data)
}

fn union_of_sets(aggregate: &Aggregate, set: &GroupingSet) -> Result<LogicalPlan> {
    let all: Vec<&Expr> = set.distinct_expr();
    let mut before: Vec<u64> = Vec::new();
    let mut inputs = Vec::new();
    for exprs in sets(set)? {
        let mask = mask_of(&all, &exprs);
        let ordinal = before.iter().filter(|known| **known == mask).count() as u64;
        before.push(mask);
        inputs.push(Arc::new(one_set(aggregate, &all, &exprs, mask | ordinal << all.len())?));
    }
    let union = match inputs.as_slice() {
        [one] => one.as_ref().clone(),
        _ => LogicalPlan::Union(Union::try_new(inputs)?),
    };
    // A union forgets of which relation columns are, so until here they have numbers for names.
    let columns = union.schema().columns().into_iter().zip(aggregate.schema.columns());
    let named = columns.map(|(own, wanted)| Expr::Column(own).alias_qualified(wanted.relation, wanted.name));
    let named: Vec<_> = named.collect();
    LogicalPlanBuilder::from(union).project(named)?.build()
}

/// The groupings that a set stands for.
fn sets(set: &GroupingSet) -> Result<Vec<Vec<&Expr>>> {
    Ok(match set {
        GroupingSet::Cube(exprs) if exprs.len() > MAX_CUBE => {
            let message = format!("CUBE of more than {MAX_CUBE} expressions is not supported in a view");
            return Err(external(SqlError::not_supported(message)));
        }
        GroupingSet::GroupingSets(sets) => sets.iter().map(|set| set.iter().collect()).collect(),
        GroupingSet::Rollup(exprs) => (0..=exprs.len()).rev().map(|n| exprs[..n].iter().collect()).collect(),
        GroupingSet::Cube(exprs) => (0..1usize << exprs.len())
            .map(|chosen| exprs.iter().enumerate().filter(|(i, _)| chosen >> i & 1 == 1).map(|(_, e)| e).collect())
            .collect(),
    })
}

/// A bit for each expression that a grouping leaves out; the last one's is the lowest.
fn mask_of(all: &[&Expr], exprs: &[&Expr]) -> u64 {
    all.iter().fold(0, |mask, expr| mask << 1 | u64::from(!exprs.contains(expr)))
}

/// One grouping with the columns of all, NULL where it has none.
fn one_set(aggregate: &Aggregate, all: &[&Expr], exprs: &[&Expr], id: u64) -> Result<LogicalPlan> {
    let mut keys: Vec<Expr> = Vec::new();
    for expr in exprs {
        if !keys.contains(expr) {
            keys.push((*expr).clone());
        }
    }
    let mut calls = aggregate.aggr_expr.clone();
    if keys.is_empty() && calls.is_empty() {
        calls.push(count(lit(1i64)));
    }
    let grouped = Aggregate::try_new(aggregate.input.clone(), keys.clone(), calls)?;
    let own = grouped.schema.columns();
    let mut columns = Vec::new();
    for i in 0..aggregate.schema.fields().len() {
        let data_type = aggregate.schema.field(i).data_type();
        let value = match (all.get(i), i.checked_sub(all.len() + 1)) {
            (Some(expr), _) => match keys.iter().position(|key| key == *expr) {
                Some(place) => Expr::Column(own[place].clone()),
                None => Expr::Literal(ScalarValue::try_from(data_type)?, None),
            },
            (None, None) => Expr::Literal(ScalarValue::UInt64(Some(id)).cast_to(data_type)?, None),
            (None, Some(call)) => {
                let call = own.get(keys.len() + call);
                Expr::Column(call.cloned().ok_or_else(|| internal("a grouping set lost an aggregate"))?)
            }
        };
        let name = aggregate.schema.field(i).name();
        columns.push(value.alias(if i == all.len() { name.clone() } else { format!("__{i}") }));
    }
    LogicalPlanBuilder::from(LogicalPlan::Aggregate(grouped)).project(columns)?.build()
}
