//! The edges: formats that turn bytes into Arrow and back, sources that read the outside world,
//! sinks that write to it, and generators.

mod calendar;
pub mod datagen;
mod json_out;
pub mod nexmark;
mod pg_text;
mod sink;
mod source;

pub use json_out::{is_jsonb, json_array, json_members, json_row, json_string, json_value};
pub use pg_text::pg_text;
pub use sink::{Sink, SinkError};
pub use source::{BadRow, Decoded, Position, Read, Reader, Source, SourceBatch, SourceError};
