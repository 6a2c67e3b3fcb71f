//! Sinks that need nothing but this machine: files, standard output, and one that only counts.

mod blackhole;
mod file;
mod rows;
mod stdout;
#[cfg(test)]
mod tests;

pub use blackhole::{BlackholeSink, SinkCounts};
pub use file::FileSink;
pub use stdout::StdoutSink;
