//! The edges: formats that turn bytes into Arrow and back, sources that read the outside world,
//! sinks that write to it, and generators.

mod source;
mod sink;

pub use sink::{Sink, SinkError};
pub use source::{BadRow, Decoded, Position, Read, Reader, Source, SourceBatch, SourceError};
