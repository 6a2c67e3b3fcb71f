//! What a source is to the engine.

use std::sync::Arc;

use arrow::array::RecordBatch;
use tidemill_plan::ColumnPath;

/// A record that could not be turned into a row. It alone is left out, and goes to `t$bad`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// Which record: the line number from 1 for text formats, else the record's number from 1.
    pub position: u64,
    /// The record's bytes, at most 4 KiB of them.
    pub bytes: Vec<u8>,
    /// Why, naming the column.
    pub reason: String,
}

/// What became of some bytes.
#[derive(Debug)]
pub struct Decoded {
    /// The good rows.
    pub rows: RecordBatch,
    /// The others.
    pub bad: Vec<BadRow>,
}

/// Where a reader stands, so that another can go on from there; opaque to all but the source.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Position(pub String);

/// Why a source cannot be read: the source stops with this, and may be retried.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(pub String);

/// Rows of one partition, in its order.
#[derive(Debug)]
pub struct SourceBatch {
    /// The rows: exactly the columns the reader was opened for, in that order.
    pub rows: RecordBatch,
    /// Records that could not be decoded.
    pub bad: Vec<BadRow>,
    /// Where the next batch begins.
    pub position: Position,
    /// Bytes read, for progress.
    pub bytes: u64,
}

/// What a reader has.
#[derive(Debug)]
pub enum Read {
    /// Rows.
    Batch(SourceBatch),
    /// Nothing now; ask again later.
    Idle,
    /// Nothing ever again.
    End,
}

/// An outside stream. Cheap; reading happens in its [`Reader`]s.
pub trait Source: Send + Sync {
    /// The names of its partitions; each is read in order by one reader.
    fn partitions(&self) -> Result<Vec<String>, SourceError>;

    /// Begins to read a partition, from the start or after a position. The reader gives exactly the
    /// columns (and fields of struct columns) named, of the types that the relation declares.
    fn open(
        &self,
        partition: &str,
        from: Option<&Position>,
        columns: Arc<[ColumnPath]>,
    ) -> Result<Box<dyn Reader>, SourceError>;

    /// Whether it has an end.
    fn bounded(&self) -> bool;

    /// Whether a partition that is opened at a position again gives the very same batches again.
    fn repeats(&self) -> bool {
        false
    }

    /// The size in bytes, if known, for progress bars.
    fn bytes(&self) -> Option<u64> {
        None
    }
}

/// Reads one partition; runs on a thread of its own.
pub trait Reader: Send {
    /// The next rows, at most about `max_rows`. May block for some milliseconds, not for long.
    fn read(&mut self, max_rows: usize) -> Result<Read, SourceError>;
}
