//! The rows of a table or view as a small stack of immutable runs, shared with readers.
//!
//! Each epoch's delta becomes a run. Runs are merged like the levels of a log-structured merge tree
//! (O'Neil et al., 1996): a run is merged with its elder neighbour once it is at least half as long,
//! so a row is copied a logarithmic number of times. Runs without retractions are only concatenated;
//! once rows are taken back, merging adds up the multiplicities of equal rows.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use tidemill_delta::{Delta, consolidate};

/// Runs without retractions are not merged beyond this length: it would only copy.
const LARGE: usize = 65_536;

/// A collection as of one epoch. Cloning shares the runs.
#[derive(Clone)]
pub struct Collection {
    schema: SchemaRef,
    runs: Vec<Arc<Delta>>,
    /// Sum of all multiplicities.
    rows: i64,
    retracted: bool,
}

impl Collection {
    /// No rows.
    pub fn new(schema: SchemaRef) -> Self {
        Collection { schema, runs: Vec::new(), rows: 0, retracted: false }
    }

    /// The rows that runs add up to, eldest first.
    pub fn of_runs(schema: SchemaRef, runs: Vec<Arc<Delta>>) -> Self {
        let rows = runs.iter().map(|run| (0..run.len()).map(|i| run.weight(i)).sum::<i64>()).sum();
        let retracted = runs.iter().any(|run| run.has_retractions());
        Collection { schema, runs, rows, retracted }
    }

    /// The shape of the rows.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// How many rows, each counted as often as it occurs.
    pub fn rows(&self) -> u64 {
        self.rows.max(0) as u64
    }

    /// Whether a row was ever taken back.
    pub fn has_retractions(&self) -> bool {
        self.retracted
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.runs.iter().map(|r| r.bytes()).sum()
    }

    /// Adds one epoch's changes.
    pub fn push(&mut self, delta: Delta) -> Result<(), ArrowError> {
        if delta.is_empty() {
            return Ok(());
        }
        self.rows += (0..delta.len()).map(|i| delta.weight(i)).sum::<i64>();
        self.retracted |= delta.has_retractions();
        self.runs.push(Arc::new(delta));
        while let [.., before, last] = self.runs.as_slice() {
            if last.len() * 2 < before.len() || (before.len() > LARGE && !self.retracted) {
                break;
            }
            let pair = [before.as_ref().clone(), last.as_ref().clone()];
            let merged =
                if self.retracted { consolidate(&self.schema, &pair)? } else { Delta::concat(&self.schema, &pair)? };
            self.runs.truncate(self.runs.len() - 2);
            if !merged.is_empty() {
                self.runs.push(Arc::new(merged));
            }
        }
        Ok(())
    }

    /// All changes so far as one consolidated delta: each row once, with its multiplicity.
    pub fn consolidated(&self) -> Result<Delta, ArrowError> {
        let runs: Vec<Delta> = self.runs.iter().map(|r| r.as_ref().clone()).collect();
        consolidate(&self.schema, &runs)
    }

    /// The rows, each listed as often as it occurs.
    ///
    /// # Panics
    /// When a row's multiplicity is negative: an operator broke its contract.
    pub fn to_batches(&self) -> Result<Vec<RecordBatch>, ArrowError> {
        if !self.retracted && self.runs.iter().all(|r| r.diff.is_none()) {
            return Ok(self.runs.iter().map(|r| r.rows.clone()).collect());
        }
        let all = self.consolidated()?;
        let mut indices = Vec::with_capacity(all.len());
        for i in 0..all.len() {
            let weight = all.weight(i);
            assert!(weight > 0, "a row of a collection occurs {weight} times");
            indices.extend(std::iter::repeat_n(i as u32, weight as usize));
        }
        if all.rows.num_columns() == 0 {
            return Ok(vec![tidemill_delta::batch(self.schema.clone(), vec![], indices.len())]);
        }
        Ok(vec![arrow::compute::take_record_batch(&all.rows, &arrow::array::UInt32Array::from(indices))?])
    }

    /// The runs, eldest first.
    pub fn runs(&self) -> &[Arc<Delta>] {
        &self.runs
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use tidemill_delta::batch;

    use super::*;

    #[test]
    fn a_collection_is_the_sum_of_its_deltas() {
        let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, true)]));
        let delta = |v: Vec<i64>, d: Vec<i64>| {
            Delta::new(batch(schema.clone(), vec![Arc::new(Int64Array::from(v))], d.len()), Int64Array::from(d))
        };
        let mut collection = Collection::new(schema.clone());
        for i in 0..100 {
            collection.push(delta(vec![i, i], vec![1, 1])).unwrap();
            collection.push(delta(vec![i], vec![-1])).unwrap();
            if i % 2 == 0 {
                collection.push(delta(vec![i], vec![-1])).unwrap();
            }
        }
        assert!(collection.runs().len() < 12, "{} runs", collection.runs().len());
        assert_eq!(collection.rows(), 50);
        let rows = collection.to_batches().unwrap();
        let values: Vec<i64> = rows[0].column(0).as_primitive::<Int64Type>().values().to_vec();
        assert_eq!(values, (0..100).filter(|i| i % 2 == 1).collect::<Vec<_>>());
    }
}
