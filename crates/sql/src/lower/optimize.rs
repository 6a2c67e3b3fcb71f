//! What happens to a view's logical plan before it is lowered.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result};
use datafusion::execution::SessionState;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{
    Distinct, DistinctOn, Expr, ExprFunctionExt, Filter, LogicalPlan, LogicalPlanBuilder, Volatility, lit,
};
use datafusion::optimizer::common_subexpr_eliminate::CommonSubexprEliminate;
use datafusion::optimizer::decorrelate_lateral_join::DecorrelateLateralJoin;
use datafusion::optimizer::decorrelate_predicate_subquery::DecorrelatePredicateSubquery;
use datafusion::optimizer::eliminate_duplicated_expr::EliminateDuplicatedExpr;
use datafusion::optimizer::eliminate_filter::EliminateFilter;
use datafusion::optimizer::eliminate_group_by_constant::EliminateGroupByConstant;
use datafusion::optimizer::eliminate_join::EliminateJoin;
use datafusion::optimizer::eliminate_outer_join::EliminateOuterJoin;
use datafusion::optimizer::extract_leaf_expressions::{ExtractLeafExpressions, PushDownLeafProjections};
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::optimize_unions::OptimizeUnions;
use datafusion::optimizer::propagate_empty_relation::PropagateEmptyRelation;
use datafusion::optimizer::rewrite_set_comparison::RewriteSetComparison;
use datafusion::optimizer::scalar_subquery_to_join::ScalarSubqueryToJoin;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::optimizer::{Optimizer, OptimizerContext, OptimizerRule};

use super::grouping_sets;
use crate::SqlError;
use crate::cross_join::SafeCrossJoins;
use crate::equijoins::SafeEquijoins;
use crate::filters::SafeFilters;
use crate::provider::external;

/// Coerces and optimises with the rules that are valid when inputs change.
///
/// Left out of DataFusion's own list: joins as semi joins (which have to count matches), distinct
/// aggregates as nested ones and `DISTINCT` as an aggregate (both have operators here), limits below
/// joins (which rows come out would change with every row), and everything that reads the clock.
pub(super) fn optimize(session: &SessionState, plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = session.analyzer().execute_and_check(plan, session.config_options(), |_, _| {})?;
    let plan = grouping_sets::expand(distinct_on_as_row_number(plan)?)?;
    let context = OptimizerContext::new_with_config_options(session.config_options().clone())
        .without_query_execution_start_time();
    Optimizer::with_rules(rules()).optimize(plan, &context, |_, _| {})
}

fn rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    vec![
        Arc::new(RewriteSetComparison::new()),
        Arc::new(OptimizeUnions::new()),
        Arc::new(SimplifyExpressions::new()),
        // Before filters are pushed down: one that is false would get below an aggregate, which has a row all the same.
        Arc::new(EliminateJoin::new()),
        Arc::new(DecorrelatePredicateSubquery::new()),
        Arc::new(ScalarSubqueryToJoin::new()),
        Arc::new(DecorrelateLateralJoin::new()),
        Arc::new(SafeEquijoins::default()),
        Arc::new(EliminateDuplicatedExpr::new()),
        Arc::new(EliminateFilter::new()),
        Arc::new(SafeCrossJoins::default()),
        Arc::new(PropagateEmptyRelation::new()),
        Arc::new(EliminateOuterJoin::new()),
        Arc::new(SafeFilters::default()),
        Arc::new(EliminateGroupByConstant::new()),
        Arc::new(CommonSubexprEliminate::new()),
        Arc::new(ExtractLeafExpressions::new()),
        Arc::new(PushDownLeafProjections::new()),
        Arc::new(OptimizeProjections::new()),
    ]
}

/// `DISTINCT ON (k) ... ORDER BY k, o` is the first row of each `k`, for which there is an operator.
fn distinct_on_as_row_number(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Distinct(Distinct::On(distinct)) => Ok(Transformed::yes(first_rows(distinct)?)),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(rewritten.data)
}

fn first_rows(distinct: DistinctOn) -> Result<LogicalPlan> {
    const NUMBER: &str = "__row_number";
    let DistinctOn { on_expr, select_expr, sort_expr, input, .. } = distinct;
    let number = row_number().partition_by(on_expr).order_by(sort_expr.unwrap_or_default()).build()?.alias(NUMBER);
    let numbered = LogicalPlanBuilder::from(input).window(vec![number])?.build()?;
    let first = Expr::Column(Column::new_unqualified(NUMBER)).lt_eq(lit(1u64));
    let first = LogicalPlan::Filter(Filter::try_new(first, Arc::new(numbered))?);
    LogicalPlanBuilder::from(first).project(select_expr)?.build()
}

/// Refuses what does not depend on its arguments alone: a view could not keep up with it.
pub(crate) fn refuse_unstable(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|plan| {
        for expr in plan.expressions() {
            expr.apply(|expr| {
                match expr {
                    Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => {
                        return Err(unstable(call.func.name()));
                    }
                    Expr::Placeholder(placeholder) => {
                        let message = format!("a view cannot have the parameter {}", placeholder.id);
                        return Err(external(SqlError::not_supported(message)));
                    }
                    _ => {}
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

fn unstable(name: &str) -> datafusion::common::DataFusionError {
    let message = format!("{name}() is not supported in a view: its value changes although no input does");
    external(SqlError::not_supported(message).hint("Use the event time of the rows, for example with TUMBLE."))
}
