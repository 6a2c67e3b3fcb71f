//! Sources and sinks by the names that `WITH (connector = '...')` gives them.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use crate::file::FileSource;
use crate::sink::{Sink, SinkError};
use crate::sinks::{BlackholeSink, FileSink, StdoutSink};
use crate::source::{Source, SourceError};

/// Connectors that sources can have.
pub const SOURCE_CONNECTORS: &[&str] = &["file", "nexmark", "datagen"];
/// Connectors that sinks can have.
pub const SINK_CONNECTORS: &[&str] = &["file", "stdout", "blackhole"];

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

/// Makes the sink that the options describe, for rows of this schema. `append_only`: no row will ever
/// be taken back.
pub fn create_sink(
    options: &[(String, String)],
    schema: &SchemaRef,
    append_only: bool,
) -> Result<Box<dyn Sink>, SinkError> {
    match connector(options).map(str::to_ascii_lowercase).as_deref() {
        Some("file") => Ok(Box::new(FileSink::new(options, schema, append_only)?)),
        Some("stdout") => Ok(Box::new(StdoutSink::new(options, schema, append_only)?)),
        Some("blackhole") => {
            crate::options::Options::new(options).finish().map_err(|e| SinkError(e.0))?;
            Ok(Box::new(BlackholeSink::default()))
        }
        other => Err(SinkError(unknown("sink", other, SINK_CONNECTORS))),
    }
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
