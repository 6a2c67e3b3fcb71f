//! The types of columns by which subqueries depend on an outer row, after types have changed.
//!
//! A subquery notes the type that such a column had when the query was planned. Rules that come before types are coerced change the types
//! of some columns: a whole number, which DataFusion takes for a `bigint`, becomes an `integer`. What the subquery compares
//! with the column must then be compared as that.

use std::cell::Cell;

use arrow::datatypes::Field;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan, Subquery, SubqueryAlias};
use datafusion::optimizer::AnalyzerRule;

/// The rule; see the module.
#[derive(Debug)]
pub(crate) struct OuterTypes;

impl AnalyzerRule for OuterTypes {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        corrected(plan, &Cell::new(false))
    }

    fn name(&self) -> &str {
        "outer_types"
    }
}

/// The plan with the right types. `changed` says whether there was any wrong one so far: what is above it has other types too.
fn corrected(plan: LogicalPlan, changed: &Cell<bool>) -> Result<LogicalPlan> {
    let node = |node: LogicalPlan| {
        let schema = merge_schema(&node.inputs());
        let node = node.map_expressions(|expr| expr.transform_up(|expr| in_expression(expr, &schema, changed)))?.data;
        let node = in_lateral(node, changed)?;
        Ok(Transformed::yes(if changed.get() { node.recompute_schema()? } else { node }))
    };
    Ok(plan.transform_up(node)?.data)
}

fn in_expression(expr: Expr, schema: &DFSchema, changed: &Cell<bool>) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::ScalarSubquery(query) => Transformed::yes(Expr::ScalarSubquery(in_subquery(query, schema, changed)?)),
        Expr::Exists(mut exists) => {
            exists.subquery = in_subquery(exists.subquery, schema, changed)?;
            Transformed::yes(Expr::Exists(exists))
        }
        Expr::InSubquery(mut contained) => {
            contained.subquery = in_subquery(contained.subquery, schema, changed)?;
            Transformed::yes(Expr::InSubquery(contained))
        }
        Expr::SetComparison(mut comparison) => {
            comparison.subquery = in_subquery(comparison.subquery, schema, changed)?;
            Transformed::yes(Expr::SetComparison(comparison))
        }
        other => Transformed::no(other),
    })
}

/// The right side of a join that depends on the row of the left.
fn in_lateral(plan: LogicalPlan, changed: &Cell<bool>) -> Result<LogicalPlan> {
    let LogicalPlan::Join(mut join) = plan else { return Ok(plan) };
    let schema = join.left.schema().as_ref();
    let right = match join.right.as_ref() {
        LogicalPlan::Subquery(query) => Some(LogicalPlan::Subquery(in_subquery(query.clone(), schema, changed)?)),
        LogicalPlan::SubqueryAlias(alias) => match alias.input.as_ref() {
            LogicalPlan::Subquery(query) => {
                let query = LogicalPlan::Subquery(in_subquery(query.clone(), schema, changed)?);
                Some(LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(query.into(), alias.alias.clone())?))
            }
            _ => None,
        },
        _ => None,
    };
    if let Some(right) = right {
        join.right = right.into();
    }
    Ok(LogicalPlan::Join(join))
}

fn in_subquery(query: Subquery, schema: &DFSchema, changed: &Cell<bool>) -> Result<Subquery> {
    let typed = |expr: Expr| {
        expr.transform_up(|expr| match expr {
            Expr::OuterReferenceColumn(field, column) => Ok(match schema.qualified_field_from_column(&column) {
                Ok((_, now)) if now.data_type() != field.data_type() => {
                    changed.set(true);
                    let typed = Field::clone(&field).with_data_type(now.data_type().clone());
                    Transformed::yes(Expr::OuterReferenceColumn(typed.into(), column))
                }
                _ => Transformed::no(Expr::OuterReferenceColumn(field, column)),
            }),
            other => Ok(Transformed::no(other)),
        })
    };
    // Scopes further in come later, so that what they call by the same name is right in the end.
    let plan = query.subquery.as_ref().clone().transform_down_with_subqueries(|plan| plan.map_expressions(typed))?;
    let outer = query.outer_ref_columns.into_iter().map(|expr| Ok(typed(expr)?.data)).collect::<Result<_>>()?;
    Ok(Subquery { subquery: corrected(plan.data, changed)?.into(), outer_ref_columns: outer, ..query })
}
