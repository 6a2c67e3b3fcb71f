//! Rows kept as columns and named by number.
//!
//! Batches are appended and get consecutive numbers. Small batches are merged as they pile up, so
//! that millions of tiny epochs do not leave millions of tiny batches; a row's number never changes
//! until [`RowStore::compact`] gives all rows new ones.

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, interleave, take};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use tidemill_delta::batch;

/// Batches up to this length are merged with their neighbours.
const CHUNK: usize = 8192;

/// So few rows are looked up without a list of all chunks.
const FEW: usize = 16;

/// Rows by number.
pub struct RowStore {
    schema: SchemaRef,
    chunks: Vec<Chunk>,
    len: u32,
}

struct Chunk {
    start: u32,
    rows: RecordBatch,
}

impl RowStore {
    /// An empty store for rows of this shape.
    pub fn new(schema: SchemaRef) -> Self {
        RowStore { schema, chunks: Vec::new(), len: 0 }
    }

    /// The rows' shape.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// How many numbers are in use.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds rows; the first gets the number returned, the others follow.
    pub fn append(&mut self, rows: &RecordBatch) -> Result<u32, ArrowError> {
        let start = self.len;
        if rows.num_rows() == 0 {
            return Ok(start);
        }
        self.len = u32::try_from(self.len as usize + rows.num_rows())
            .map_err(|_| ArrowError::ComputeError("more than 4 billion rows in one operator on one worker".into()))?;
        let rows = batch(self.schema.clone(), rows.columns().to_vec(), rows.num_rows());
        self.chunks.push(Chunk { start, rows });
        self.merge_tail()?;
        Ok(start)
    }

    /// Merges like a binary counter, so that each row is copied a logarithmic number of times.
    fn merge_tail(&mut self) -> Result<(), ArrowError> {
        while let [.., before, last] = self.chunks.as_slice() {
            let (a, b) = (before.rows.num_rows(), last.rows.num_rows());
            if a + b > CHUNK || a > 2 * b {
                break;
            }
            let rows = concat_batches(&self.schema, [&before.rows, &last.rows])?;
            let start = before.start;
            self.chunks.truncate(self.chunks.len() - 2);
            self.chunks.push(Chunk { start, rows });
        }
        Ok(())
    }

    /// The columns `which` of the rows numbered, in the order given.
    pub fn gather(&self, ids: &[u32], which: &[usize]) -> Result<Vec<ArrayRef>, ArrowError> {
        if ids.is_empty() {
            return Ok(which
                .iter()
                .map(|c| arrow::array::new_empty_array(self.schema.field(*c).data_type()))
                .collect());
        }
        // Only the chunks that are hit take part: preparing the others would cost more than the rows.
        // A few rows are not worth a list of all chunks either.
        let mut place = if ids.len() > FEW { vec![u32::MAX; self.chunks.len()] } else { Vec::new() };
        // Close together, as rows jump from chunk to chunk and each jump is a search.
        let starts: Vec<u32> =
            if place.is_empty() { Vec::new() } else { self.chunks.iter().map(|c| c.start).collect() };
        let mut hit: Vec<usize> = Vec::new();
        let mut indices: Vec<(usize, usize)> = Vec::with_capacity(ids.len());
        let mut current = 0..0u32;
        let mut current_place = 0;
        for id in ids {
            if !current.contains(id) {
                let chunk = match starts.is_empty() {
                    true => self.chunks.partition_point(|c| c.start <= *id) - 1,
                    false => starts.partition_point(|start| start <= id) - 1,
                };
                let known = match place.get(chunk) {
                    Some(place) => Some(*place as usize).filter(|place| *place < hit.len()),
                    None => hit.iter().position(|hit| *hit == chunk),
                };
                current_place = known.unwrap_or(hit.len());
                if known.is_none() {
                    if let Some(place) = place.get_mut(chunk) {
                        *place = hit.len() as u32;
                    }
                    hit.push(chunk);
                }
                let start = self.chunks[chunk].start;
                current = start..start + self.chunks[chunk].rows.num_rows() as u32;
            }
            indices.push((current_place, (*id - current.start) as usize));
        }
        if let [only] = hit.as_slice() {
            let indices = UInt32Array::from_iter_values(indices.iter().map(|(_, row)| *row as u32));
            let rows = &self.chunks[*only].rows;
            return which.iter().map(|c| take(rows.column(*c), &indices, None)).collect();
        }
        which
            .iter()
            .map(|c| {
                let arrays: Vec<&dyn Array> = hit.iter().map(|h| self.chunks[*h].rows.column(*c).as_ref()).collect();
                interleave(&arrays, &indices)
            })
            .collect()
    }

    /// Whole rows.
    pub fn rows(&self, ids: &[u32]) -> Result<RecordBatch, ArrowError> {
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        Ok(batch(self.schema.clone(), self.gather(ids, &all)?, ids.len()))
    }

    /// Keeps only the rows listed, which get the numbers 0, 1, 2, ... in the order given.
    pub fn compact(&mut self, ids: &[u32]) -> Result<(), ArrowError> {
        let mut chunks = Vec::with_capacity(ids.len() / CHUNK + 1);
        for (i, part) in ids.chunks(CHUNK).enumerate() {
            chunks.push(Chunk { start: (i * CHUNK) as u32, rows: self.rows(part)? });
        }
        self.chunks = chunks;
        self.len = ids.len() as u32;
        Ok(())
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.chunks.iter().map(|c| c.rows.get_array_memory_size()).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;

    #[test]
    fn numbers_stay_while_batches_merge() {
        let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, true)]));
        let mut store = RowStore::new(schema.clone());
        let mut expected = Vec::new();
        for i in 0..300i64 {
            let len = i % 7;
            let values: Vec<i64> = (0..len).map(|j| i * 10 + j).collect();
            let start =
                store.append(&batch(schema.clone(), vec![Arc::new(Int64Array::from(values.clone()))], len as usize));
            assert_eq!(start.unwrap() as usize, expected.len());
            expected.extend(values);
        }
        assert!(store.chunks.len() < 15, "{} chunks", store.chunks.len());
        let ids: Vec<u32> = (0..expected.len() as u32).rev().collect();
        let found = store.gather(&ids, &[0]).unwrap();
        let values: Vec<i64> = found[0].as_primitive::<Int64Type>().values().iter().rev().copied().collect();
        assert_eq!(values, expected);
        store.compact(&[5, 3, 100]).unwrap();
        let found = store.gather(&[0, 1, 2], &[0]).unwrap();
        assert_eq!(found[0].as_primitive::<Int64Type>().values(), &[expected[5], expected[3], expected[100]]);
    }
}
