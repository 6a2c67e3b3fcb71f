//! The edges: formats that turn bytes into Arrow and back, sources that read the outside world,
//! sinks that write to it, and generators.

mod arrow_stream;
mod calendar;
mod cells;
mod column;
mod conform;
mod connector;
mod csv_out;
pub mod datagen;
mod file;
mod format;
mod json;
mod json_out;
pub mod nexmark;
mod options;
mod parse;
mod pg_text;
mod record;
mod secrets;
mod shape;
mod sink;
mod sinks;
mod source;
mod text;

pub use cells::{CsvOptions, PgTextOptions};
pub use connector::{SINK_CONNECTORS, SOURCE_CONNECTORS, create_sink, create_source};
pub use csv_out::{copy_row, csv_header, csv_row};
pub use file::FileSource;
pub use format::{Decoder, Format, FormatKind};
pub use json_out::{is_jsonb, json_array, json_members, json_row, json_string, json_value};
pub use pg_text::pg_text;
pub use secrets::shown_option;
pub use sink::{Opening, Pace, Rejected, Sink, SinkError};
pub use sinks::{BlackholeSink, FileSink, FolderSink, PostgresSink, SinkCounts, StdoutSink, WebhookSink};
pub use source::{BadRow, Decoded, Position, Read, Reader, Source, SourceBatch, SourceError};
