//! `INTERSECT ALL` and `EXCEPT ALL` count: of a row that is there m times on the left and n times on the right, min(m, n) or m - n
//! stay.
//!
//! DataFusion plans both as semi and anti joins, which keep all m or none. So equal rows are numbered on both
//! sides, and the number takes part in the comparison.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, JoinType, NullEquality, Result};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{Distinct, Expr, ExprFunctionExt, Join, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::AnalyzerRule;

/// The numbers' names on the left and on the right.
const NUMBERS: [&str; 2] = ["__left_number", "__right_number"];

/// Numbers equal rows on both sides of such an operation.
#[derive(Debug)]
pub(crate) struct CountedSetOperations;

impl AnalyzerRule for CountedSetOperations {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let counted = plan.transform_up_with_subqueries(|plan| match &plan {
            LogicalPlan::Join(join) if is_all(join) => Ok(Transformed::yes(counted(join)?)),
            _ => Ok(Transformed::no(plan)),
        })?;
        Ok(counted.data)
    }

    fn name(&self) -> &str {
        "counted_set_operations"
    }
}

/// Whether a join stands for a set operation with `ALL`. What is not for a set operation is no such join before the optimiser
/// has run; without `ALL` the left rows are distinct, and a plan that comes a second time has its numbers already.
fn is_all(join: &Join) -> bool {
    let numbered = join.on.last().is_some_and(|(left, _)| *left == Expr::Column(Column::new_unqualified(NUMBERS[0])));
    !numbered
        && matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
        && join.null_equality == NullEquality::NullEqualsNull
        && join.filter.is_none()
        && !matches!(join.left.as_ref(), LogicalPlan::Distinct(Distinct::All(_)))
}

fn counted(join: &Join) -> Result<LogicalPlan> {
    let (left_keys, right_keys): (Vec<Expr>, Vec<Expr>) = join.on.iter().cloned().unzip();
    let left = numbered(&join.left, left_keys, NUMBERS[0])?;
    let right = numbered(&join.right, right_keys, NUMBERS[1])?;
    let columns: Vec<Expr> = join.left.schema().columns().into_iter().map(Expr::Column).collect();
    let [one, other] = NUMBERS.map(|name| Expr::Column(Column::new_unqualified(name)));
    let on = join.on.iter().cloned().chain([(one, other)]).collect();
    let joined = Join::try_new(
        Arc::new(left),
        Arc::new(right),
        on,
        None,
        join.join_type,
        join.join_constraint,
        join.null_equality,
        join.null_aware,
    )?;
    LogicalPlanBuilder::from(LogicalPlan::Join(joined)).project(columns)?.build()
}

/// Rows with their numbers among those with equal keys.
fn numbered(rows: &LogicalPlan, keys: Vec<Expr>, name: &str) -> Result<LogicalPlan> {
    let number = row_number().partition_by(keys).build()?.alias(name);
    LogicalPlanBuilder::from(rows.clone()).window(vec![number])?.build()
}
