//! Equalities become keys of joins, but not where keys that are NULL are equal.
//!
//! DataFusion's rule makes `a.x = b.x` a key also of a join whose keys are compared by `IS NOT DISTINCT FROM`. There two NULLs would
//! meet, which are not equal; as a condition beside the keys it is right.

use datafusion::common::tree_node::Transformed;
use datafusion::common::{NullEquality, Result};
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate;
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

/// DataFusion's rule where it is right.
#[derive(Debug, Default)]
pub(crate) struct SafeEquijoins {
    inner: ExtractEquijoinPredicate,
}

impl OptimizerRule for SafeEquijoins {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.inner.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        match &plan {
            LogicalPlan::Join(join) if join.null_equality == NullEquality::NullEqualsNull && !join.on.is_empty() => {
                Ok(Transformed::no(plan))
            }
            _ => self.inner.rewrite(plan, config),
        }
    }
}
