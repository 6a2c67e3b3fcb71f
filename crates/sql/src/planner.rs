//! The planner's face.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast;
use tidemill_delta::Micros;
use tidemill_plan::{Dataflow, RelationId};

use crate::session::session;
use crate::{Catalog, CreateRelation, CreateView, Notice, Relation, Snapshot, SqlError, StatementKind, ViewQuery};
use crate::{batch, complete, describe, dml, lower, relation, view_query};

/// Plans and runs SQL. Cheap to clone.
#[derive(Clone)]
pub struct Planner {
    session: Arc<SessionState>,
}

/// A value for a `$n` placeholder.
#[derive(Clone, Debug)]
pub enum Param {
    /// Text (`None`: NULL) that takes the type the statement wants.
    Text(Option<String>),
    /// A value of a known type: an array of length 1.
    Value(ArrayRef),
}

/// What a statement takes and gives.
#[derive(Clone, Debug)]
pub struct Description {
    /// The types of `$1`, `$2`, ...; what stays open is text.
    pub params: Vec<DataType>,
    /// The columns it returns, if it returns rows.
    pub schema: Option<SchemaRef>,
}

/// A view's query, planned.
#[derive(Debug)]
pub struct PlannedView {
    /// The dataflow.
    pub dataflow: Dataflow,
    /// The view's columns.
    pub schema: SchemaRef,
    /// The query as canonical SQL text.
    pub definition: String,
    /// What the user should know: unbounded state, recomputation.
    pub notices: Vec<Notice>,
}

/// A query's answer.
#[derive(Debug)]
pub struct QueryRows {
    /// The columns.
    pub schema: SchemaRef,
    /// The rows.
    pub batches: Vec<RecordBatch>,
}

/// What `INSERT`, `UPDATE` or `DELETE` does to a table.
#[derive(Debug)]
pub struct DmlRows {
    /// The table.
    pub table: Arc<Relation>,
    /// Rows that go; in the table's schema.
    pub removed: Vec<RecordBatch>,
    /// Rows that come; in the table's schema, defaults filled in, generated columns computed.
    pub added: Vec<RecordBatch>,
    /// How many rows the statement touched, for its tag.
    pub count: usize,
    /// `ON CONFLICT DO NOTHING` / `DO UPDATE`: keep the old row (false: error).
    pub on_conflict: OnConflict,
    /// `RETURNING`, if asked.
    pub returning: Option<QueryRows>,
}

/// What happens when an inserted primary key exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConflict {
    /// The statement fails.
    Error,
    /// The new row is dropped.
    Nothing,
    /// The new row takes the old one's place.
    Replace,
}

impl Default for Planner {
    fn default() -> Self {
        Planner::new()
    }
}

impl Planner {
    /// A planner with all functions. What its queries hold in memory at one time is at most 1 GiB.
    pub fn new() -> Self {
        Planner::with_memory(1 << 30)
    }

    /// A planner whose queries all together may hold so many bytes in memory at one time; one that needs more than is left fails.
    pub fn with_memory(bytes: usize) -> Self {
        Planner { session: Arc::new(session(bytes)) }
    }

    /// DataFusion's functions and settings.
    pub(crate) fn session(&self) -> &Arc<SessionState> {
        &self.session
    }

    /// Resolves a `CREATE TABLE` or `CREATE SOURCE`: types, defaults, generated columns, watermark.
    pub fn create_relation(&self, id: RelationId, create: &CreateRelation, text: &str) -> Result<Relation, SqlError> {
        relation::create_relation(self, id, create, text)
    }

    /// Plans a view's query as a dataflow. `columns` renames the output columns unless it is empty.
    pub fn plan_view(
        &self,
        catalog: &dyn Catalog,
        query: &ast::Query,
        on_close: bool,
        columns: &[String],
    ) -> Result<PlannedView, SqlError> {
        lower::plan_view(self, catalog, query, on_close, columns)
    }

    /// A materialized view's query as a batch; of a view that is emitted on window close, what the watermark (in
    /// microseconds) has made final.
    pub fn view_query(
        &self,
        catalog: &dyn Catalog,
        view: &CreateView,
        watermark: Micros,
    ) -> Result<ViewQuery, SqlError> {
        view_query::view_query(self, catalog, view, watermark)
    }

    /// Runs a view's query over a snapshot, and hands its rows on as they come.
    pub async fn run_view_query(
        &self,
        query: &ViewQuery,
        snapshot: &Arc<dyn Snapshot>,
        each: &mut (dyn FnMut(RecordBatch) -> Result<(), SqlError> + Send),
    ) -> Result<(), SqlError> {
        view_query::run(self, query, snapshot, each).await
    }

    /// The columns of a plain view's query, which is checked on the way.
    pub fn check_query(&self, catalog: &dyn Catalog, query: &ast::Query) -> Result<SchemaRef, SqlError> {
        batch::result_schema(self, self.logical_plan(catalog, query)?)
    }

    /// What a statement takes and gives, without running it. `types` are the parameter types that the client named.
    pub fn describe(
        &self,
        catalog: &dyn Catalog,
        statement: &StatementKind,
        types: &[Option<DataType>],
    ) -> Result<Description, SqlError> {
        describe::describe(self, catalog, statement, types)
    }

    /// Runs a query over a snapshot.
    pub async fn query(
        &self,
        catalog: Arc<dyn Catalog>,
        snapshot: Arc<dyn Snapshot>,
        query: &ast::Query,
        params: &[Param],
    ) -> Result<QueryRows, SqlError> {
        batch::query(self, catalog, snapshot, query, params).await
    }

    /// What an `INSERT`, `UPDATE` or `DELETE` does, over a snapshot.
    pub async fn dml(
        &self,
        catalog: Arc<dyn Catalog>,
        snapshot: Arc<dyn Snapshot>,
        statement: &StatementKind,
        params: &[Param],
    ) -> Result<DmlRows, SqlError> {
        dml::dml(self, catalog, snapshot, statement, params).await
    }

    /// Fills a partial batch (some columns of a table) up to the table's schema with defaults and
    /// generated columns.
    pub fn complete_rows(&self, table: &Relation, rows: RecordBatch) -> Result<RecordBatch, SqlError> {
        complete::complete_rows(self, table, &rows)
    }
}
