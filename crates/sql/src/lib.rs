//! SQL text → statement → plan, and the batch engine. The only crate that names DataFusion.
//!
//! [`parse`] turns text into [`Statement`]s. A [`Planner`] turns a view's query into a dataflow
//! ([`Planner::plan_view`]), and runs queries over a [`Snapshot`] of the relations
//! ([`Planner::query`], and the sources of `INSERT`, `UPDATE` and `DELETE`).

mod catalog;
mod error;
mod error_map;
mod functions;
mod given;
mod lower;
mod names;
mod pg_catalog;
mod planner;
mod provider;
mod scalar;
mod session;
mod statement;
mod window;
mod window_exec;

pub use catalog::{Catalog, EventTime, Generated, Relation, RelationKind, Snapshot};
pub use error::{Notice, SqlError, state};
pub use planner::{Description, DmlRows, OnConflict, Param, PlannedView, Planner, QueryRows};
pub use statement::{
    ColumnDefinition, CopyFormat, CopyOptions, CreateRelation, CreateSink, CreateView, DropKind, ObjectName, Piece,
    ShowWhat, Statement, StatementKind, SubscribeTo, parse, split,
};
