//! Where views' changes can go.

mod blackhole;
mod file;
mod folder;
mod postgres;
mod rows;
mod stdout;
#[cfg(test)]
mod tests;
mod webhook;

use std::time::Duration;

pub use blackhole::{BlackholeSink, SinkCounts};
pub use file::FileSink;
pub use folder::FolderSink;
pub use postgres::PostgresSink;
pub use stdout::StdoutSink;
pub use webhook::WebhookSink;

/// Epochs that come closer together than this are committed together, unless the sink's options say otherwise.
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
