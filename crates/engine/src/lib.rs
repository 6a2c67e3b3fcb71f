//! The conductor: catalog, DDL, epochs, ingestion, subscriptions, sessions.
//!
//! The doors (`serve`, the command line) see [`Engine`], [`Session`] and [`Subscription`].

mod catalog;
mod checkpoint;
mod conductor;
mod config;
mod define;
mod difference;
mod engine;
mod event_time;
mod journal;
mod panics;
mod published;
mod reading;
mod removals;
mod replica;
mod retained;
mod retention;
mod room;
mod session;
mod side_table;
mod sink;
mod source;
mod status;
mod subscription;
mod table;

pub use config::{CheckpointStore, Config, Data, Spill};
pub use engine::{Engine, Receipt};
pub use session::{CopyOutRows, Response, Session, change_rows, change_schema};
pub use status::{DurabilityStatus, EngineStatus, RelationStatus, SinkStatus};
pub use subscription::{Change, SubscribeFrom, Subscription};
pub use tidemill_connect::BadRow;
pub use tidemill_sql::{
    CopyFormat, CopyOptions, Description, Notice, Param, Relation, RelationKind, SqlError, Statement, StatementKind,
    parse, state,
};
