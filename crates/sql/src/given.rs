//! Plans of DataFusion that run over batches handed in at each call.
//!
//! This is the fallback's engine: a part of a view's plan that has no incremental rule is planned
//! once, with [`GivenNode`]s where its inputs come in, and run again whenever they change.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::fmt;
use std::future::poll_fn;
use std::hash::Hash;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{DFSchemaRef, DataFusionError, Result};
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    Distinct, Expr, Limit, LogicalPlan, LogicalPlanBuilder, Projection, UserDefinedLogicalNode,
    UserDefinedLogicalNodeCore, lit,
};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, reset_plan_states};
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions, execute_stream,
};
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use futures::StreamExt;
use tidemill_delta::one_zero;
use tidemill_plan::{Recompute, ScalarError};

use crate::as_of::AsOfNode;
use crate::as_of_exec::{AsOfExec, Match};
use crate::error_map::sql_error;
use crate::provider::external;
use crate::window::WindowNode;
use crate::window_exec::WindowExec;
use crate::{SqlError, state};

/// A leaf of a plan whose rows are handed in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GivenNode {
    /// Which of the inputs.
    pub(crate) index: usize,
    /// Its columns.
    pub(crate) schema: DFSchemaRef,
}

impl PartialOrd for GivenNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for GivenNode {
    fn name(&self) -> &str {
        "Given"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        Vec::new()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Given {}", self.index)
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, _: Vec<LogicalPlan>) -> Result<Self> {
        Ok(self.clone())
    }
}

/// The batches of one call, by input.
struct GivenRows(Vec<RecordBatch>);

/// Gives the batch that was handed in.
#[derive(Debug)]
struct GivenExec {
    index: usize,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl GivenExec {
    fn new(index: usize, schema: SchemaRef) -> Self {
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        ));
        GivenExec { index, schema, properties }
    }
}

impl DisplayAs for GivenExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GivenExec: {}", self.index)
    }
}

impl ExecutionPlan for GivenExec {
    fn name(&self) -> &'static str {
        "GivenExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let given = context.session_config().get_extension::<GivenRows>();
        let rows = given.as_ref().and_then(|given| given.0.get(self.index));
        let Some(rows) = rows else {
            return Err(DataFusionError::Internal(format!("input {} was not handed in", self.index)));
        };
        Ok(Box::pin(MemoryStream::try_new(vec![rows.clone()], self.schema.clone(), None)?))
    }
}

/// Plans our logical nodes.
struct NodePlanner;

#[async_trait]
impl ExtensionPlanner for NodePlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let schema = node.schema().inner().clone();
        if let Some(given) = node.as_any().downcast_ref::<GivenNode>() {
            return Ok(Some(Arc::new(GivenExec::new(given.index, schema))));
        }
        if let (Some(join), [left, right]) = (node.as_any().downcast_ref::<AsOfNode>(), inputs) {
            let physical =
                |expr: &Expr, plan: &LogicalPlan| planner.create_physical_expr(expr, plan.schema(), session, context);
            let lefts = join.on.iter().map(|(left, _)| left).chain([&join.times.0]);
            let rights = join.on.iter().map(|(_, right)| right).chain([&join.times.1]);
            let lefts = lefts.map(|expr| physical(expr, &join.left)).collect::<Result<Vec<_>>>()?;
            let rights = rights.map(|expr| physical(expr, &join.right)).collect::<Result<Vec<_>>>()?;
            let places = [lefts, rights];
            let by = Match { places, after: join.after, inclusive: join.inclusive, outer: join.outer };
            return Ok(Some(Arc::new(AsOfExec::new([left.clone(), right.clone()], by, schema))));
        }
        let (Some(window), [input]) = (node.as_any().downcast_ref::<WindowNode>(), inputs) else { return Ok(None) };
        let index = |expr: &Expr| match expr {
            Expr::Column(column) => window.input.schema().index_of_column(column),
            other => Err(DataFusionError::Internal(format!("a window over {other}"))),
        };
        let time = index(&window.time)?;
        let keys = window.keys.iter().map(index).collect::<Result<Vec<_>>>()?;
        Ok(Some(Arc::new(WindowExec::new(input.clone(), time, keys, window.kind, schema))))
    }
}

/// DataFusion's physical planner with our nodes.
#[derive(Debug)]
pub(crate) struct BatchPlanner;

#[async_trait]
impl QueryPlanner for BatchPlanner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(NodePlanner)]);
        planner.create_physical_plan(&made_ready(plan.clone())?, session).await
    }
}

/// "All rows": no batch gets there, and sums with an offset do not overflow.
const NO_LIMIT: i64 = i64::MAX / 4;

/// Makes a plan ready for the physical planner: gives each offset without a limit one. DataFusion takes a limit without one for a node through which a sort can be pushed; the rows
/// that are left out would be others then. And it comes directly after the sort: one that is followed by a projection without the sort's
/// columns would be left out as of no use.
fn made_ready(plan: LogicalPlan) -> Result<LogicalPlan> {
    let limited = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Limit(Limit { skip: Some(skip), fetch: None, input }) => {
            let fetch = Some(Box::new(lit(NO_LIMIT)));
            Ok(Transformed::yes(below_projections(Limit { skip: Some(skip), fetch, input })?))
        }
        // Views leave it as it is, as they have an operator for it.
        LogicalPlan::Distinct(Distinct::All(input)) => Ok(Transformed::yes(grouped(&input)?)),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(limited.data)
}

/// The different rows of a plan, as an aggregate.
fn grouped(input: &LogicalPlan) -> Result<LogicalPlan> {
    let input = LogicalPlanBuilder::from(input.clone());
    let columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    match columns.is_empty() {
        true => input.limit(0, Some(1))?.build(),
        false => input.aggregate(columns, Vec::<Expr>::new())?.build(),
    }
}

fn below_projections(limit: Limit) -> Result<LogicalPlan> {
    match limit.input.as_ref() {
        LogicalPlan::Projection(projection) => {
            let input = below_projections(Limit { input: projection.input.clone(), ..limit.clone() })?;
            Ok(LogicalPlan::Projection(Projection::try_new(projection.expr.clone(), input.into())?))
        }
        _ => Ok(LogicalPlan::Limit(limit)),
    }
}

/// A plan over given inputs, ready to run.
pub(crate) struct BatchQuery {
    session: Arc<SessionState>,
    plan: Arc<dyn ExecutionPlan>,
    /// What the plan expects of each input.
    inputs: Vec<SchemaRef>,
    output: SchemaRef,
    /// The logical plan, for people and for telling plans apart.
    text: String,
}

impl BatchQuery {
    /// Prepares an optimised plan whose leaves are [`GivenNode`]s with the schemas `inputs`. The
    /// answer is cast to `output`.
    pub(crate) fn new(
        session: &Arc<SessionState>,
        logical: &LogicalPlan,
        inputs: Vec<SchemaRef>,
        output: SchemaRef,
    ) -> Result<Self> {
        let plan = block_on(BatchPlanner.create_physical_plan(logical, session.as_ref()))??;
        Ok(BatchQuery { session: session.clone(), plan, inputs, output, text: logical.display_indent().to_string() })
    }

    fn run(&self, inputs: &[RecordBatch]) -> Result<RecordBatch> {
        let given =
            inputs.iter().zip(&self.inputs).map(|(rows, schema)| conform(rows, schema)).collect::<Result<_>>()?;
        let config = self.session.config().clone().with_extension(Arc::new(GivenRows(given)));
        // What a view needs is not of the memory that queries share.
        static UNSHARED: LazyLock<Arc<RuntimeEnv>> = LazyLock::new(Arc::default);
        let context = TaskContext::from(self.session.as_ref()).with_session_config(config);
        let context = Arc::new(context.with_runtime(UNSHARED.clone()));
        let plan = reset_plan_states(self.plan.clone())?;
        let schema = plan.schema();
        let batches = block_on(collect_bounded(plan, context))??;
        conform(&concat_batches(&schema, &batches)?, &self.output)
    }
}

impl fmt::Debug for BatchQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Recompute for BatchQuery {
    fn compute(&self, inputs: &[RecordBatch]) -> std::result::Result<RecordBatch, ScalarError> {
        self.run(inputs).map_err(|error| ScalarError::new(sql_error(error).message))
    }
}

/// A recomputed answer may not be larger than this many bytes.
const MAX_ANSWER: usize = 1 << 30;
/// How often a recomputed answer is asked for its next rows: a recursion gives some at each step.
const MAX_STEPS: usize = 10_000;

/// All rows of an answer that comes to an end: a worker that waits for ever holds all views up.
async fn collect_bounded(plan: Arc<dyn ExecutionPlan>, context: Arc<TaskContext>) -> Result<Vec<RecordBatch>> {
    let mut stream = execute_stream(plan, context)?;
    let (mut batches, mut bytes, mut steps) = (Vec::new(), 0, 0);
    let refuse = |what: String| external(SqlError::new(state::PROGRAM_LIMIT_EXCEEDED, what));
    let mut next = |cx: &mut Context<'_>| {
        steps += 1;
        if steps > MAX_STEPS {
            let error = refuse(format!("what is recomputed comes to no end within {MAX_STEPS} steps"));
            return Poll::Ready(Some(Err(error)));
        }
        stream.poll_next_unpin(cx)
    };
    while let Some(batch) = poll_fn(&mut next).await {
        let batch = batch?;
        bytes += batch.get_array_memory_size();
        if bytes > MAX_ANSWER {
            return Err(refuse(format!("what is recomputed has more than {} MiB", MAX_ANSWER >> 20)));
        }
        batches.push(batch);
    }
    Ok(batches)
}

/// The batch with another schema's names and types.
pub(crate) fn conform(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = rows
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| match column.data_type() == field.data_type() {
            true => Ok(one_zero(column)),
            false => cast(column, field.data_type()).map(|column| one_zero(&column)),
        })
        .collect::<std::result::Result<Vec<ArrayRef>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

/// Runs a future to its end on this thread. DataFusion's operators ask for a tokio runtime, so each
/// thread gets a small one; inside another runtime, where that is not allowed, a thread helps out.
fn block_on<F>(future: F) -> Result<F::Output>
where
    F: Future + Send,
    F::Output: Send,
{
    if tokio::runtime::Handle::try_current().is_ok() {
        return std::thread::scope(|scope| {
            let helper = scope.spawn(|| block_on_here(future));
            helper.join().map_err(|_| DataFusionError::Internal("the batch engine panicked".into()))?
        });
    }
    block_on_here(future)
}

fn block_on_here<F: Future>(future: F) -> Result<F::Output> {
    thread_local! {
        static RUNTIME: RefCell<Option<tokio::runtime::Runtime>> = const { RefCell::new(None) };
    }
    RUNTIME.with(|slot| {
        let mut slot = slot.borrow_mut();
        let runtime = match slot.take() {
            Some(runtime) => runtime,
            None => tokio::runtime::Builder::new_current_thread().build()?,
        };
        Ok(slot.insert(runtime).block_on(future))
    })
}
