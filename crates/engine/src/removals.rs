//! Which rows were taken out of a table without a key lately.
//!
//! A change says as of which epoch it read the rows that it takes out. If any of them was taken out since, it must not be taken out
//! again. Rows are known by their hashes: rows that are equal have the same, and others that have it by chance are taken for them.

use std::collections::{HashSet, VecDeque};

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use tidemill_delta::{Epoch, hash_columns};

/// So many rows are remembered; of older ones, that there were some.
const REMEMBERED: usize = 1 << 18;

/// See the module.
#[derive(Default)]
pub(crate) struct Removals {
    /// By epoch, eldest first. The hashes are only looked up, never walked.
    recent: VecDeque<(Epoch, HashSet<u64>)>,
    rows: usize,
    /// Rows up to this epoch are not remembered one by one.
    forgotten: Epoch,
}

impl Removals {
    /// Whether some of these rows, which were there as of epoch `seen`, may have been taken out since.
    pub(crate) fn concern(&self, rows: &[RecordBatch], seen: Epoch) -> Result<bool, ArrowError> {
        if self.forgotten > seen {
            return Ok(true);
        }
        let since = || self.recent.iter().rev().take_while(|(epoch, _)| *epoch > seen);
        if since().next().is_none() {
            return Ok(false);
        }
        let mut hashes = Vec::new();
        for batch in rows {
            hash_columns(batch.columns(), batch.num_rows(), &mut hashes)?;
            if hashes.iter().any(|hash| since().any(|(_, gone)| gone.contains(hash))) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Notes that rows are taken out in an epoch, which is none before the last.
    pub(crate) fn note(&mut self, rows: &[RecordBatch], epoch: Epoch) -> Result<(), ArrowError> {
        let mut hashes = Vec::new();
        for batch in rows {
            hash_columns(batch.columns(), batch.num_rows(), &mut hashes)?;
            if self.recent.back().is_none_or(|(last, _)| *last != epoch) {
                self.recent.push_back((epoch, HashSet::new()));
            }
            if let Some((_, gone)) = self.recent.back_mut() {
                self.rows -= gone.len();
                gone.extend(&hashes);
                self.rows += gone.len();
            }
        }
        while self.rows > REMEMBERED
            && let Some((epoch, gone)) = self.recent.pop_front()
        {
            self.rows -= gone.len();
            self.forgotten = epoch;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    fn rows(values: std::ops::Range<i64>) -> Vec<RecordBatch> {
        let column = Arc::new(Int64Array::from_iter_values(values)) as ArrayRef;
        vec![RecordBatch::try_from_iter([("a", column)]).expect("rows")]
    }

    #[test]
    fn only_the_same_rows_are_refused() {
        let mut removals = Removals::default();
        removals.note(&rows(0..10), 5).expect("rows");
        removals.note(&rows(20..30), 5).expect("rows");
        let concern = |removals: &Removals, values, seen| removals.concern(&rows(values), seen).expect("rows");
        assert!(concern(&removals, 9..12, 4) && concern(&removals, 25..26, 4));
        assert!(!concern(&removals, 10..20, 4), "other rows");
        assert!(!concern(&removals, 0..10, 5), "they came again");
        removals.note(&rows(100..100 + REMEMBERED as i64), 7).expect("rows");
        assert!(concern(&removals, 10..20, 4), "what is not known any more");
        assert!(!concern(&removals, 10..20, 6));
    }
}
