//! The planner's face.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast;
use tidemill_plan::{Dataflow, RelationId};

use crate::lower;
use crate::session::session;
use crate::{Catalog, CreateRelation, Notice, Relation, Snapshot, SqlError, StatementKind};

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
    /// A planner with all functions.
    pub fn new() -> Self {
        Planner { session: Arc::new(session()) }
    }

    /// DataFusion's functions and settings.
    pub(crate) fn session(&self) -> &Arc<SessionState> {
        &self.session
    }

    /// Resolves a `CREATE TABLE` or `CREATE SOURCE`: types, defaults, generated columns, watermark.
    pub fn create_relation(&self, _id: RelationId, _create: &CreateRelation, _text: &str) -> Result<Relation, SqlError> {
        Err(SqlError::internal("planning"))
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

    /// The columns of a plain view's query, which is checked on the way.
    pub fn check_query(&self, _catalog: &dyn Catalog, _query: &ast::Query) -> Result<SchemaRef, SqlError> {
        Err(SqlError::internal("planning"))
    }

    /// What a statement takes and gives, without running it. `types` are the parameter types that the client named.
    pub fn describe(
        &self,
        _catalog: &dyn Catalog,
        _statement: &StatementKind,
        _types: &[Option<DataType>],
    ) -> Result<Description, SqlError> {
        Err(SqlError::internal("planning"))
    }

    /// Runs a query over a snapshot.
    pub async fn query(
        &self,
        _catalog: Arc<dyn Catalog>,
        _snapshot: Arc<dyn Snapshot>,
        _query: &ast::Query,
        _params: &[Param],
    ) -> Result<QueryRows, SqlError> {
        Err(SqlError::internal("planning"))
    }

    /// What an `INSERT`, `UPDATE` or `DELETE` does, over a snapshot.
    pub async fn dml(
        &self,
        _catalog: Arc<dyn Catalog>,
        _snapshot: Arc<dyn Snapshot>,
        _statement: &StatementKind,
        _params: &[Param],
    ) -> Result<DmlRows, SqlError> {
        Err(SqlError::internal("planning"))
    }

    /// Fills a partial batch (some columns of a table) up to the table's schema with defaults and
    /// generated columns.
    pub fn complete_rows(&self, _table: &Relation, _rows: RecordBatch) -> Result<RecordBatch, SqlError> {
        Err(SqlError::internal("planning"))
    }
}
