//! Queries over a snapshot, run once by DataFusion.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::{TableType, provider_as_source};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit};
use datafusion::execution::{SessionState, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::sql::sqlparser::ast;
use futures::StreamExt;
use tidemill_delta::one_zero;

use crate::assign::text_format;
use crate::error_map::{arrow_error, sql_error};
use crate::names::{cast_fields, result_names};
use crate::pg_catalog::with_system_tables;
use crate::provider::{RelationSource, external};
use crate::sql_type::output_type;
use crate::ties::settle_windows;
use crate::{Catalog, Param, Planner, QueryRows, Relation, RelationKind, Snapshot, SqlError, params, state};

/// See [`Planner::query`].
pub(crate) async fn query(
    planner: &Planner,
    catalog: Arc<dyn Catalog>,
    snapshot: Arc<dyn Snapshot>,
    query: &ast::Query,
    values: &[Param],
) -> Result<QueryRows, SqlError> {
    let query = params::substitute(planner, catalog.as_ref(), query, values)?;
    let plan = planner.logical_plan(catalog.as_ref(), &query)?;
    run(planner, with_system_tables(catalog, snapshot), plan).await
}

/// Runs a plan that is fresh from the SQL planner.
pub(crate) async fn run(
    planner: &Planner,
    snapshot: Arc<dyn Snapshot>,
    plan: LogicalPlan,
) -> Result<QueryRows, SqlError> {
    let (names, casts) = (result_names(&plan), cast_fields(&plan));
    let prepared = prepare(planner, plan, &snapshot).await?;
    let schema = output_schema(&prepared.plan.schema(), &names, &casts);
    let batches = collect(prepared, &schema).await?;
    Ok(QueryRows { schema, batches })
}

/// A query over a snapshot, ready to run.
pub(crate) struct Prepared {
    state: SessionState,
    plan: Arc<dyn ExecutionPlan>,
}

impl Prepared {
    async fn new(state: SessionState, optimized: &LogicalPlan) -> Result<Self, SqlError> {
        let plan = state.query_planner().create_physical_plan(optimized, &state).await.map_err(sql_error)?;
        Ok(Prepared { state, plan })
    }
}

/// Makes a plan run over a snapshot.
pub(crate) async fn prepare(
    planner: &Planner,
    plan: LogicalPlan,
    snapshot: &Arc<dyn Snapshot>,
) -> Result<Prepared, SqlError> {
    let state = session_now(planner);
    let plan = over_snapshot(plan, snapshot).map_err(sql_error)?;
    let plan = settle_windows(state.optimize(&plan).map_err(sql_error)?).map_err(sql_error)?;
    Prepared::new(state, &plan).await
}

/// As [`prepare`] for a plan that is analysed already: types would be found a second time, from what the first
/// time made of them.
pub(crate) async fn prepare_analyzed(
    planner: &Planner,
    plan: LogicalPlan,
    snapshot: &Arc<dyn Snapshot>,
) -> Result<Prepared, SqlError> {
    let state = session_now(planner);
    let plan = over_snapshot(plan, snapshot).map_err(sql_error)?;
    let plan = state.optimizer().optimize(plan, &state, |_, _| {}).map_err(sql_error)?;
    Prepared::new(state, &plan).await
}

/// Runs a query, and hands its rows on in another schema's names and types as they come.
pub(crate) async fn stream(
    query: Prepared,
    schema: &SchemaRef,
    each: &mut (dyn FnMut(RecordBatch) -> Result<(), SqlError> + Send),
) -> Result<(), SqlError> {
    let Prepared { state, plan } = query;
    let failed = |error| run_error(error, &state);
    let mut stream = execute_stream(plan, Arc::new(TaskContext::from(&state))).map_err(failed)?;
    while let Some(batch) = stream.next().await {
        let batch = conform(&batch.map_err(failed)?, schema)?;
        if batch.num_rows() > 0 {
            each(batch)?;
        }
    }
    Ok(())
}

/// The planner's session with the time of this statement.
fn session_now(planner: &Planner) -> SessionState {
    let mut state = planner.session().as_ref().clone();
    state.mark_start_execution();
    state
}

/// The columns of a query's answer as the user sees them, from a plan without parameters.
pub(crate) fn result_schema(planner: &Planner, plan: LogicalPlan) -> Result<SchemaRef, SqlError> {
    let (names, casts) = (result_names(&plan), cast_fields(&plan));
    let state = planner.session();
    let options = state.config().options();
    let analyzed = state.analyzer().execute_and_check(plan, options, |_, _| {}).map_err(sql_error)?;
    Ok(output_schema(analyzed.schema().as_arrow(), &names, &casts))
}

fn output_schema(schema: &Schema, names: &[String], casts: &[Option<Arc<Field>>]) -> SchemaRef {
    let field = |(i, field): (usize, &Arc<Field>)| {
        let name = names.get(i).unwrap_or(field.name());
        let own = match casts.get(i) {
            Some(Some(cast)) => field.as_ref().clone().with_metadata(cast.metadata().clone()),
            _ => field.as_ref().clone(),
        };
        own.with_name(name).with_data_type(output_type(field.data_type())).with_nullable(true)
    };
    Arc::new(Schema::new(schema.fields().iter().enumerate().map(field).collect::<Vec<_>>()))
}

async fn collect(query: Prepared, schema: &SchemaRef) -> Result<Vec<RecordBatch>, SqlError> {
    // Freed when the query has ended or was dropped; what the caller then keeps is no longer counted.
    let state = query.state.clone();
    let reservation = MemoryConsumer::new("result").register(&state.runtime_env().memory_pool);
    let mut batches = Vec::new();
    let mut keep = |batch: RecordBatch| {
        reservation.try_grow(size(&batch)).map_err(|error| run_error(error, &state))?;
        batches.push(batch);
        Ok(())
    };
    stream(query, schema, &mut keep).await?;
    Ok(batches)
}

/// Bytes of a batch's own rows: slices of one large batch share its buffers.
fn size(rows: &RecordBatch) -> usize {
    rows.columns().iter().map(|c| c.to_data().get_slice_memory_size().unwrap_or(0)).sum()
}

/// An error at run time; that of the memory limit says what to do.
fn run_error(error: DataFusionError, session: &SessionState) -> SqlError {
    let exhausted = matches!(error.find_root(), DataFusionError::ResourcesExhausted(_));
    let error = sql_error(error);
    if !exhausted {
        return error;
    }
    let error = SqlError::new(state::OUT_OF_MEMORY, "the query needs more memory than is allowed");
    let error = match session.runtime_env().memory_pool.memory_limit() {
        MemoryLimit::Finite(bytes) => error.detail(format!("all queries together may use {} MiB", bytes >> 20)),
        MemoryLimit::Infinite | MemoryLimit::Unknown => error,
    };
    error.hint("Add a filter or a LIMIT, or create a materialized view.")
}

/// The batch with the names and types of another schema.
fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, SqlError> {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| plain(column, field)).collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(|error| arrow_error(&error))
}

fn plain(column: &ArrayRef, field: &Field) -> Result<ArrayRef, SqlError> {
    if column.data_type() == field.data_type() {
        return Ok(one_zero(column));
    }
    let options = CastOptions { safe: false, format_options: text_format() };
    let cast = cast_with_options(column, field.data_type(), &options).map_err(|error| arrow_error(&error))?;
    Ok(one_zero(&cast))
}

/// Makes a plan's scans read a snapshot.
fn over_snapshot(plan: LogicalPlan, snapshot: &Arc<dyn Snapshot>) -> DfResult<LogicalPlan> {
    let over = |plan: LogicalPlan| {
        let LogicalPlan::TableScan(scan) = &plan else { return Ok(Transformed::no(plan)) };
        let Some(source) = scan.source.downcast_ref::<RelationSource>() else { return Ok(Transformed::no(plan)) };
        let relation = source.relation.clone();
        refuse_source(&relation).map_err(external)?;
        let rows = SnapshotRows { relation, snapshot: snapshot.clone() };
        let source = provider_as_source(Arc::new(rows));
        Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan.clone() })))
    };
    plan.transform_down_with_subqueries(over).map(|transformed| transformed.data)
}

fn refuse_source(relation: &Relation) -> Result<(), SqlError> {
    if relation.kind != RelationKind::Source {
        return Ok(());
    }
    let name = &relation.name;
    let message = format!("\"{name}\" is a source; its rows are not stored, so a query cannot read them");
    Err(SqlError::new(state::WRONG_OBJECT_TYPE, message)
        .hint(format!("Create a materialized view over it: CREATE MATERIALIZED VIEW v AS SELECT ... FROM {name}.")))
}

/// A relation's rows in a snapshot, fetched when they are scanned.
struct SnapshotRows {
    relation: Arc<Relation>,
    snapshot: Arc<dyn Snapshot>,
}

impl fmt::Debug for SnapshotRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnapshotRows({} at {})", self.relation.name, self.snapshot.epoch())
    }
}

#[async_trait]
impl TableProvider for SnapshotRows {
    fn schema(&self) -> SchemaRef {
        self.relation.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let schema = self.schema();
        let rows = self.snapshot.rows(&self.relation).map_err(external)?;
        let rows = rows.iter().map(|rows| conform(rows, &schema)).collect::<Result<Vec<_>, _>>().map_err(external)?;
        Ok(MemorySourceConfig::try_new_exec(&[rows], schema, projection.cloned())?)
    }
}
