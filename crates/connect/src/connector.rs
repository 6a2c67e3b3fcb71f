//! Sources and sinks by the names that `WITH (connector = '...')` gives them.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use tidemill_env::Env;

use crate::file::FileSource;
use crate::options::Options;
use crate::sink::{Sink, SinkError};
use crate::sinks::{BlackholeSink, FileSink, FolderSink, PostgresSink, StdoutSink, WebhookSink};
use crate::source::{Source, SourceError};

/// Connectors that sources can have.
pub const SOURCE_CONNECTORS: &[&str] = &["file", "nexmark", "datagen"];
/// Connectors that sinks can have.
pub const SINK_CONNECTORS: &[&str] = &["file", "postgres", "webhook", "stdout", "blackhole"];

/// Makes the source that the options describe, for a relation of this schema. Columns in `not_null`
/// have to have a value in every row; others may be missing.
pub fn create_source(
    options: &[(String, String)],
    schema: &SchemaRef,
    not_null: &[usize],
) -> Result<Arc<dyn Source>, SourceError> {
    match connector(options).map(str::to_ascii_lowercase).as_deref() {
        Some("file") => Ok(Arc::new(FileSource::new(options, schema, not_null)?)),
        Some("nexmark") => crate::nexmark::source(options, schema),
        Some("datagen") => crate::datagen::source(options, schema),
        other => Err(SourceError(unknown("source", other, SOURCE_CONNECTORS))),
    }
}

/// Makes the sink of this name that the options describe, for rows of this schema. `append_only`: no row will ever
/// be taken back. Nothing outside is touched before [`Sink::open`].
pub fn create_sink(
    name: &str,
    options: &[(String, String)],
    schema: &SchemaRef,
    append_only: bool,
    env: &Env,
) -> Result<Box<dyn Sink>, SinkError> {
    match connector(options).map(str::to_ascii_lowercase).as_deref() {
        Some("file") if is_folder(options, env) => {
            Ok(Box::new(FolderSink::new(name, options, schema, append_only, env)?))
        }
        Some("file") => Ok(Box::new(FileSink::new(options, schema, append_only)?)),
        Some("postgres") => Ok(Box::new(PostgresSink::new(name, options, schema, append_only)?)),
        Some("webhook") => Ok(Box::new(WebhookSink::new(name, options, schema, env)?)),
        Some("stdout") => Ok(Box::new(StdoutSink::new(options, schema, append_only)?)),
        Some("blackhole") => {
            Options::new(options).finish()?;
            Ok(Box::new(BlackholeSink::default()))
        }
        other => Err(SinkError::Fatal(unknown("sink", other, SINK_CONNECTORS))),
    }
}

/// Whether the path of a file sink is a folder: by its name, or because there is one.
fn is_folder(options: &[(String, String)], env: &Env) -> bool {
    let path = Options::new(options).get("path").unwrap_or_default();
    path.ends_with('/') || (!path.is_empty() && env.disk().list(Path::new(path)).is_ok())
}

fn connector(options: &[(String, String)]) -> Option<&str> {
    options.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case("connector")).map(|(_, value)| value.as_str())
}

fn unknown(what: &str, name: Option<&str>, known: &[&str]) -> String {
    let known = known.join(", ");
    match name {
        Some(name) => format!("there is no {what} connector \"{name}\"; there are: {known}"),
        None => format!("option \"connector\" is missing; there are: {known}"),
    }
}
