//! The conductor: catalog, DDL, epochs, ingestion, subscriptions, sessions.
//!
//! The doors (`serve`, the command line) see [`Engine`], [`Session`] and [`Subscription`].

mod api;

pub use api::*;
pub use tidemill_connect::BadRow;
pub use tidemill_sql::{
    CopyFormat, CopyOptions, Description, Notice, Param, Relation, RelationKind, SqlError, Statement, StatementKind, parse, state,
};
