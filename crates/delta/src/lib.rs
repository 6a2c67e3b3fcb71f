//! What flows: deltas, epochs, the frozen hash that places keys on workers, consolidation, and
//! the bytes that travel between processes.

mod consolidate;
mod hash;
mod ipc;
mod nulls;
mod zeros;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, UInt32Array};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

pub use consolidate::{RowsByContent, consolidate, net};
pub use hash::{KEY_GROUPS, hash_bytes, hash_columns, hash_rows, key_group, worker_of};
pub use ipc::{decode, encode};
pub use nulls::zero_nulls;
pub use zeros::one_zero;

/// One step of the engine; the timestamp of the dataflow; the position that users see.
pub type Epoch = u64;

/// A point in event time, in microseconds since 1970-01-01 UTC.
pub type Micros = i64;

/// The watermark of a source that has not promised anything yet.
pub const NO_WATERMARK: Micros = i64::MIN;

/// The watermark of a source that has ended: nothing can be late any more, every window closes.
pub const END_OF_TIME: Micros = i64::MAX;

/// Rows with signed multiplicities, all of one epoch.
///
/// The same row may occur more than once; what counts is the sum of its multiplicities. A
/// multiplicity is never 0.
#[derive(Clone, Debug)]
pub struct Delta {
    /// The rows.
    pub rows: RecordBatch,
    /// The multiplicity of each row; `None` stands for +1 everywhere.
    pub diff: Option<Int64Array>,
}

impl Delta {
    /// Rows that are all inserted once.
    pub fn inserts(rows: RecordBatch) -> Self {
        Delta { rows, diff: None }
    }

    /// Rows with the multiplicities given.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn new(rows: RecordBatch, diff: Int64Array) -> Self {
        assert_eq!(rows.num_rows(), diff.len(), "a delta needs one multiplicity per row");
        debug_assert!(diff.null_count() == 0 && diff.values().iter().all(|d| *d != 0));
        if diff.values().iter().all(|d| *d == 1) { Delta::inserts(rows) } else { Delta { rows, diff: Some(diff) } }
    }

    /// No rows of the given shape.
    pub fn empty(schema: SchemaRef) -> Self {
        Delta::inserts(RecordBatch::new_empty(schema))
    }

    /// How many rows are listed, whatever their multiplicities.
    pub fn len(&self) -> usize {
        self.rows.num_rows()
    }

    /// Whether no row is listed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The multiplicity of row `i`.
    #[inline]
    pub fn weight(&self, i: usize) -> i64 {
        self.diff.as_ref().map_or(1, |d| d.value(i))
    }

    /// All multiplicities as an array.
    pub fn weights(&self) -> Int64Array {
        self.diff.clone().unwrap_or_else(|| Int64Array::from_value(1, self.len()))
    }

    /// Whether some row is taken back.
    pub fn has_retractions(&self) -> bool {
        self.diff.as_ref().is_some_and(|d| d.values().iter().any(|w| *w < 0))
    }

    /// The rows with the given numbers.
    pub fn take(&self, indices: &UInt32Array) -> Result<Delta, ArrowError> {
        let rows = arrow::compute::take_record_batch(&self.rows, indices)?;
        let of_rows =
            |d: &Int64Array| Int64Array::from_iter_values(indices.values().iter().map(|i| d.value(*i as usize)));
        let diff = self.diff.as_ref().map(of_rows);
        Ok(Delta { rows, diff })
    }

    /// The rows `from..from + len`, without copying.
    pub fn slice(&self, from: usize, len: usize) -> Delta {
        Delta { rows: self.rows.slice(from, len), diff: self.diff.as_ref().map(|d| d.slice(from, len)) }
    }

    /// The same multiplicities over other columns.
    ///
    /// # Panics
    /// When `columns` do not fit `schema` or have another length.
    pub fn with_columns(&self, schema: SchemaRef, columns: Vec<ArrayRef>) -> Delta {
        Delta { rows: batch(schema, columns, self.len()), diff: self.diff.clone() }
    }

    /// Every row with its multiplicity's sign turned.
    pub fn negate(&self) -> Delta {
        let diff = Int64Array::from_iter_values((0..self.len()).map(|i| -self.weight(i)));
        Delta { rows: self.rows.clone(), diff: Some(diff) }
    }

    /// Joins deltas of one shape into one; order is kept.
    pub fn concat(schema: &SchemaRef, deltas: &[Delta]) -> Result<Delta, ArrowError> {
        match deltas {
            [] => Ok(Delta::empty(schema.clone())),
            [one] => Ok(one.clone()),
            many => {
                let rows = arrow::compute::concat_batches(schema, many.iter().map(|d| &d.rows))?;
                let diff = many.iter().any(|d| d.diff.is_some()).then(|| {
                    let mut all = Vec::with_capacity(rows.num_rows());
                    for delta in many {
                        match &delta.diff {
                            Some(d) => all.extend_from_slice(d.values()),
                            None => all.resize(all.len() + delta.len(), 1),
                        }
                    }
                    Int64Array::from(all)
                });
                Ok(Delta { rows, diff })
            }
        }
    }

    /// Bytes of the rows: a slice counts for its part of the columns that it shares.
    pub fn row_bytes(&self) -> usize {
        let bytes = |c: &ArrayRef| c.to_data().get_slice_memory_size().unwrap_or_else(|_| c.get_array_memory_size());
        self.rows.columns().iter().map(bytes).sum::<usize>() + self.diff.as_ref().map_or(0, |d| d.len() * 8)
    }

    /// Bytes that the columns hold in memory.
    pub fn bytes(&self) -> usize {
        self.rows.columns().iter().map(|c| c.get_array_memory_size()).sum::<usize>()
            + self.diff.as_ref().map_or(0, |d| d.len() * 8)
    }
}

/// A record batch of `len` rows, also when there are no columns.
///
/// # Panics
/// When `columns` do not fit `schema`: that is a bug of the caller, never a property of the data.
pub fn batch(schema: SchemaRef, columns: Vec<ArrayRef>, len: usize) -> RecordBatch {
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(len));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
        .unwrap_or_else(|e| panic!("columns do not fit {schema:?}: {e}"))
}

/// The schema without nullability and metadata, so that batches of different origins fit together.
pub fn relaxed(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<_> = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
    Arc::new(arrow::datatypes::Schema::new(fields))
}
