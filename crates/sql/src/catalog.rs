//! What planning needs to know about relations, and where their rows come from.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tidemill_delta::{Epoch, Micros};
use tidemill_plan::{Bound, ColumnPath, RelationId, Scalar};

use crate::{Limit, SqlError};

/// What kind of relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelationKind {
    /// A durable stored relation that DML changes.
    Table,
    /// An outside stream; not stored, so only views can read it.
    Source,
    /// A named query, expanded where it is used.
    View,
    /// A maintained query.
    MaterializedView,
    /// A table that the server fills: side tables (`t$bad`), system catalogs. Read-only.
    System,
}

/// A table, source or view as the planner sees it.
#[derive(Clone, Debug)]
pub struct Relation {
    /// Its number; plain views have one too.
    pub id: RelationId,
    /// The namespace: `public`, `pg_catalog`, `information_schema`, `tidemill`.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: RelationKind,
    /// Its columns. Nullability is as declared.
    pub schema: SchemaRef,
    /// The primary key's columns; empty if there is none.
    pub primary_key: Vec<usize>,
    /// Whether rows are never taken back.
    pub append_only: bool,
    /// Event time, if a watermark is declared.
    pub event_time: Option<EventTime>,
    /// Generated columns.
    pub generated: Vec<Generated>,
    /// Which rows of a table go by themselves.
    pub retention: Option<Retention>,
    /// Default values: column and SQL expression.
    pub defaults: Vec<(usize, String)>,
    /// Time columns bounded by the watermark (of the sources it is made from).
    pub bounds: Vec<Bound>,
    /// The defining query of a view, as SQL.
    pub definition: Option<String>,
    /// The statement that created it.
    pub sql: String,
}

/// The `WATERMARK FOR column AS expression` clause.
#[derive(Clone, Debug)]
pub struct EventTime {
    /// The time column, a timestamp.
    pub column: usize,
    /// The watermark expression over a batch with exactly the columns `inputs`.
    pub watermark: Arc<dyn Scalar>,
    /// What `watermark` reads.
    pub inputs: Vec<ColumnPath>,
    /// As written.
    pub text: String,
    /// How far ahead of its arrival a row may be stamped, in microseconds; `None`: as far as it likes.
    pub future_fence: Option<Micros>,
    /// How long a partition may be without rows before the watermark goes on without it.
    pub idle_timeout: Limit,
}

/// Which rows go by themselves: those that are too old, and the eldest when there are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The column that tells how old a row is, a timestamp or date that is never NULL.
    pub column: usize,
    /// How old a row may become, in microseconds.
    pub age: Option<Micros>,
    /// How many rows may stay.
    pub rows: Option<u64>,
    /// How many bytes the values of the rows that stay may take.
    pub bytes: Option<u64>,
}

/// A column computed from the others when a row arrives.
#[derive(Clone, Debug)]
pub struct Generated {
    /// The column.
    pub column: usize,
    /// Its expression over a batch with exactly the columns `inputs`.
    pub scalar: Arc<dyn Scalar>,
    /// What the expression reads; never another generated column.
    pub inputs: Vec<ColumnPath>,
}

/// Finds relations by name.
pub trait Catalog: Send + Sync {
    /// The relation with this name; without a namespace `public`, then `pg_catalog`, is searched.
    fn relation(&self, namespace: Option<&str>, name: &str) -> Option<Arc<Relation>>;
    /// All relations, by name.
    fn relations(&self) -> Vec<Arc<Relation>>;
}

/// The rows of all relations as of the end of one epoch.
pub trait Snapshot: Send + Sync {
    /// Which epoch.
    fn epoch(&self) -> Epoch;
    /// The rows, each listed as often as it occurs.
    fn rows(&self, relation: &Relation) -> Result<Vec<RecordBatch>, SqlError>;
}
