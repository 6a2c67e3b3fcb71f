//! What sorts and groups rows in a batch takes them as in no order.
//!
//! DataFusion infers in which order rows come and which columns have one value only, and leaves sorts out by that. It infers too much: a
//! column that has one value on the side of a join that may be missing has NULLs beside it above the join, and is still taken for
//! constant. Then sorts are missing, groups come twice, and window functions are refused their input. Tables have no order that could be
//! made use of, so this rule, the first of the physical ones, puts a node of which nothing is known but its schema below each
//! node that sorts, groups or has windows.

use std::fmt;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, Statistics};

/// The rule; see the module.
#[derive(Debug)]
pub(crate) struct AnyOrderBelow;

impl PhysicalOptimizerRule for AnyOrderBelow {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let over_any_order = |plan: Arc<dyn ExecutionPlan>| {
            if !goes_by_order(plan.as_ref()) {
                return Ok(Transformed::no(plan));
            }
            let inputs = plan.children().into_iter().cloned();
            let inputs = inputs.map(|input| Arc::new(AnyOrder::new(input)) as Arc<dyn ExecutionPlan>).collect();
            let anew = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
            Ok(Transformed::yes(plan.replace_children(inputs, anew)?))
        };
        plan.transform_up(over_any_order).data()
    }

    fn name(&self) -> &str {
        "any_order_below"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn goes_by_order(plan: &dyn ExecutionPlan) -> bool {
    // What goes on with another aggregate's groups is made one with it by a later rule, if nothing stands between them.
    let first =
        |aggregate: &AggregateExec| !matches!(aggregate.mode(), AggregateMode::Final | AggregateMode::FinalPartitioned);
    plan.is::<SortExec>()
        || plan.is::<WindowAggExec>()
        || plan.is::<BoundedWindowAggExec>()
        || plan.downcast_ref::<AggregateExec>().is_some_and(first)
}

/// Its input's rows, in an order that nobody knows.
#[derive(Debug)]
struct AnyOrder {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl AnyOrder {
    fn new(input: Arc<dyn ExecutionPlan>) -> Self {
        let of_input = input.properties();
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(input.schema()),
            of_input.partitioning.clone(),
            of_input.emission_type,
            of_input.boundedness,
        ));
        AnyOrder { input, properties }
    }
}

impl DisplayAs for AnyOrder {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnyOrder")
    }
}

impl ExecutionPlan for AnyOrder {
    fn name(&self) -> &'static str {
        "AnyOrder"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.pop().ok_or_else(|| DataFusionError::Internal("it needs an input".into()))?;
        Ok(Arc::new(AnyOrder::new(input)))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.input.execute(partition, context)
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let input = inputs.first().ok_or_else(|| DataFusionError::Internal("it needs an input".into()))?;
        Ok(input.clone())
    }
}
