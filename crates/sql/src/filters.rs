//! Filters are pushed down, but not below an aggregate without groups.
//!
//! DataFusion's rule pushes each condition below an aggregate that is over its groups only, which a condition without columns
//! always is. But an aggregate without groups has a row even of nothing: one that is false above it would be true.

use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

/// DataFusion's rule where it is right.
#[derive(Debug, Default)]
pub(crate) struct SafeFilters {
    inner: PushDownFilter,
}

impl OptimizerRule for SafeFilters {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.inner.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if is_above_total(&plan) { Ok(Transformed::no(plan)) } else { self.inner.rewrite(plan, config) }
    }
}

/// Whether it is a filter of an aggregate without groups, or of one of several groupings, of which one may be without. (Filters
/// above each other are taken for one.)
fn is_above_total(plan: &LogicalPlan) -> bool {
    let LogicalPlan::Filter(filter) = plan else { return false };
    match filter.input.as_ref() {
        LogicalPlan::Aggregate(aggregate) => {
            matches!(aggregate.group_expr.as_slice(), [] | [Expr::GroupingSet(_)])
        }
        other => is_above_total(other),
    }
}
