//! SQL text → statement → plan, and the batch engine. The only crate that names DataFusion.
//!
//! [`parse`] turns text into [`Statement`]s. A [`Planner`] turns a view's query into a dataflow
//! ([`Planner::plan_view`]), and runs queries over a [`Snapshot`] of the relations
//! ([`Planner::query`], and the sources of `INSERT`, `UPDATE` and `DELETE`).

mod any_order;
mod as_of;
mod as_of_exec;
mod assign;
mod batch;
mod bounded;
mod casts;
mod catalog;
mod complete;
mod cross_join;
mod describe;
mod dml;
mod equijoins;
mod error;
mod error_map;
mod exact;
mod expansion;
mod filters;
mod functions;
mod given;
mod in_value;
mod label;
mod lower;
mod merged;
mod multiset;
mod names;
mod numeric;
mod operators;
mod outer_types;
mod params;
mod pg_catalog;
mod planner;
mod provider;
mod regexp;
mod relation;
mod rounding;
mod scalar;
mod session;
mod signed;
mod sql_type;
mod statement;
mod subqueries;
mod syntax;
mod ties;
mod to_char;
mod told_apart;
mod view_query;
mod walk;
mod window;
mod window_exec;

pub use datafusion::sql::sqlparser::ast::Query;

pub use catalog::{Catalog, EventTime, Generated, Relation, RelationKind, Retention, Snapshot};
pub use describe::{explain_schema, show_schema, type_name, verify_schema};
pub use error::{Notice, SqlError, state};
pub use planner::{Description, DmlRows, OnConflict, Param, PlannedView, Planner, QueryRows};
pub use statement::{
    ColumnDefinition, CopyFormat, CopyOptions, CreateRelation, CreateSink, CreateView, DropKind, Limit, ObjectName,
    Piece, RetentionOptions, ShowWhat, Statement, StatementKind, SubscribeTo, TimeOptions, parse, split,
    with_other_values,
};
pub use view_query::ViewQuery;
