//! Cross joins become joins by keys, but not beside joins in which NULL equals NULL.
//!
//! DataFusion's rule takes a tree of inner joins apart and puts it together again with one notion of equality for all; a pair of NULLs that `IS NOT
//! DISTINCT FROM` found equal is lost then. (Conditions above a cross join reach it all the same, when filters are pushed down.)

use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{JoinType, NullEquality, Result};
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::eliminate_cross_join::EliminateCrossJoin;
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

/// DataFusion's rule where it is right.
#[derive(Debug, Default)]
pub(crate) struct SafeCrossJoins {
    inner: EliminateCrossJoin,
}

impl OptimizerRule for SafeCrossJoins {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.inner.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let mut equal_nulls = false;
        plan.apply_with_subqueries(|plan| {
            equal_nulls |= matches!(plan, LogicalPlan::Join(join)
                if join.join_type == JoinType::Inner && join.null_equality == NullEquality::NullEqualsNull);
            Ok(if equal_nulls { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        if equal_nulls { Ok(Transformed::no(plan)) } else { self.inner.rewrite(plan, config) }
    }
}
