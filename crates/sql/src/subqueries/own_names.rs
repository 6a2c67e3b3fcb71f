//! Names of their own for the columns by which a subquery depends on the outer row.
//!
//! When DataFusion takes a subquery apart it adds these columns to what each step of the subquery gives, where one that the query
//! itself gives may have the same name already: `(SELECT max(b.x) AS x FROM b WHERE b.x = a.x)`.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, LogicalPlanBuilder, Subquery};

use super::has_outer;

/// How the names begin.
const NAME: &str = "__outer_";

/// Renames such columns in the subqueries of an expression where a name is taken.
pub(super) fn in_expression(expr: Expr) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| {
        Ok(match expr {
            Expr::ScalarSubquery(query) => in_subquery(query)?.update_data(Expr::ScalarSubquery),
            Expr::Exists(mut exists) => {
                let query = in_subquery(exists.subquery)?;
                exists.subquery = query.data;
                Transformed::new(Expr::Exists(exists), query.transformed, query.tnr)
            }
            Expr::InSubquery(mut contained) => {
                let query = in_subquery(contained.subquery)?;
                contained.subquery = query.data;
                Transformed::new(Expr::InSubquery(contained), query.transformed, query.tnr)
            }
            other => Transformed::no(other),
        })
    })
}

fn in_subquery(query: Subquery) -> Result<Transformed<Subquery>> {
    let named = query.subquery.as_ref().clone().transform_up(named_by_projection)?;
    let query = if named.transformed { Subquery { subquery: named.data.into(), ..query } } else { query };
    let names = names(&query.subquery)?;
    if !is_taken(&query.subquery, &names)? {
        return Ok(Transformed::new(query, named.transformed, named.tnr));
    }
    let renamed = query.subquery.as_ref().clone().transform_up(|plan| match plan {
        LogicalPlan::Filter(filter) if has_outer(&filter.predicate)? => Ok(Transformed::yes(rename(filter, &names)?)),
        other => Ok(Transformed::yes(other.recompute_schema()?)),
    })?;
    Ok(Transformed::yes(Subquery { subquery: renamed.data.into(), ..query }))
}

/// A new name for what depends on the outer row as a projection, which DataFusion adds columns to; to the name alone it does not.
fn named_by_projection(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let depends = |plan: &LogicalPlan| match plan {
        LogicalPlan::Filter(filter) => has_outer(&filter.predicate),
        _ => Ok(false),
    };
    match &plan {
        LogicalPlan::SubqueryAlias(alias) if alias.input.exists(depends)? => {
            let columns = alias.input.schema().columns().into_iter().zip(alias.schema.columns());
            let named = columns.map(|(inner, outer)| Expr::Column(inner).alias_qualified(outer.relation, outer.name));
            let input = LogicalPlanBuilder::from(alias.input.as_ref().clone());
            Ok(Transformed::yes(input.project(named.collect::<Vec<_>>())?.build()?))
        }
        _ => Ok(Transformed::no(plan)),
    }
}

/// The columns by which the subquery depends on the outer row, and their new names.
fn names(plan: &LogicalPlan) -> Result<BTreeMap<Column, String>> {
    let mut names = BTreeMap::new();
    plan.apply(|plan| {
        if let LogicalPlan::Filter(filter) = plan {
            for condition in split_conjunction(&filter.predicate) {
                if has_outer(condition)? {
                    // In an order of their own: a plan must be the same each time, and sets of columns have none.
                    let columns: BTreeSet<&Column> = condition.column_refs().into_iter().collect();
                    for column in columns {
                        let name = format!("{NAME}{}", names.len());
                        names.entry(column.clone()).or_insert(name);
                    }
                }
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(names)
}

/// Whether a step gives another column of such a name.
fn is_taken(plan: &LogicalPlan, names: &BTreeMap<Column, String>) -> Result<bool> {
    plan.exists(|plan| {
        let gives = matches!(plan, LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) | LogicalPlan::Window(_));
        let other = |given: &Column| names.keys().any(|own| own.name == given.name && own != given);
        Ok(gives && plan.schema().columns().iter().any(other))
    })
}

/// The filter over columns that have their own names too.
fn rename(filter: Filter, names: &BTreeMap<Column, String>) -> Result<LogicalPlan> {
    let (mut conditions, mut used) = (Vec::new(), BTreeMap::new());
    for condition in split_conjunction(&filter.predicate) {
        if !has_outer(condition)? {
            conditions.push(condition.clone());
            continue;
        }
        let renamed = condition.clone().transform_up(|expr| match &expr {
            Expr::Column(column) if names.contains_key(column) => {
                used.insert(names[column].clone(), column.clone());
                Ok(Transformed::yes(Expr::Column(Column::new_unqualified(&names[column]))))
            }
            _ => Ok(Transformed::no(expr)),
        })?;
        conditions.push(renamed.data);
    }
    let all = filter.input.schema().columns().into_iter().map(Expr::Column);
    let own = used.into_iter().map(|(name, column)| Expr::Column(column).alias(name));
    let input = LogicalPlanBuilder::from(filter.input.as_ref().clone()).project(all.chain(own))?;
    match conjunction(conditions) {
        Some(conditions) => input.filter(conditions)?.build(),
        None => input.build(),
    }
}
