//! `DISTINCT` inside an aggregate: the inner states see each distinct argument of a group once.

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::DataType;
use tidemill_state::KeyTable;

use super::{GroupStates, shared};
use crate::OperatorError;

const NONE: u32 = u32::MAX;

/// Wraps another state.
pub(super) struct Distinct {
    /// (group, arguments) pairs.
    pairs: KeyTable,
    /// How often each pair occurs.
    counts: Vec<i64>,
    /// The pairs of a group as a chain, so that a group can be emptied.
    next: Vec<u32>,
    first: Vec<u32>,
    inner: Box<dyn GroupStates>,
}

impl Distinct {
    pub(super) fn new(args: Vec<DataType>, inner: Box<dyn GroupStates>) -> Result<Self, OperatorError> {
        let types = std::iter::once(DataType::UInt32).chain(args).collect();
        Ok(Distinct { pairs: KeyTable::new(types)?, counts: Vec::new(), next: Vec::new(), first: Vec::new(), inner })
    }

    /// Puts pairs that are new in their groups' chains.
    fn chain(&mut self, new: &[(u32, u32)]) {
        self.counts.resize(self.pairs.capacity(), 0);
        self.next.resize(self.pairs.capacity(), NONE);
        for (pair, group) in new {
            self.next[*pair as usize] = self.first[*group as usize];
            self.first[*group as usize] = *pair;
        }
    }
}

impl GroupStates for Distinct {
    fn grow(&mut self, len: usize) {
        self.first.resize(len.max(self.first.len()), NONE);
        self.inner.grow(len);
    }

    fn update(&mut self, ids: &[u32], diffs: Option<&[i64]>, args: &[ArrayRef]) -> Result<(), OperatorError> {
        let mut columns: Vec<ArrayRef> = vec![shared(UInt32Array::from(ids.to_vec()))];
        columns.extend(args.iter().cloned());
        let (mut pairs, mut added) = (Vec::new(), Vec::new());
        self.pairs.intern(&columns, ids.len(), &mut pairs, |pair| added.push(pair))?;
        if !added.is_empty() {
            // A pair that is new in this batch belongs to the group of the first row that has it.
            let mut new = Vec::with_capacity(added.len());
            let mut at = 0;
            for (i, pair) in pairs.iter().enumerate() {
                if at < added.len() && *pair == added[at] {
                    new.push((*pair, ids[i]));
                    at += 1;
                }
            }
            self.chain(&new);
        }
        let (mut rows, mut signs) = (Vec::new(), Vec::new());
        for (i, pair) in pairs.iter().enumerate() {
            let count = &mut self.counts[*pair as usize];
            let before = *count;
            *count += diffs.map_or(1, |d| d[i]);
            if (before > 0) != (*count > 0) {
                rows.push(i as u32);
                signs.push(if *count > 0 { 1 } else { -1 });
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        let groups: Vec<u32> = rows.iter().map(|i| ids[*i as usize]).collect();
        let rows = UInt32Array::from(rows);
        let args = args.iter().map(|a| take(a, &rows, None)).collect::<Result<Vec<_>, _>>()?;
        let signs = diffs.map(|_| signs.as_slice());
        self.inner.update(&groups, signs, &args)
    }

    fn values(&self, ids: &[u32], failed: &mut Vec<String>) -> Result<ArrayRef, OperatorError> {
        self.inner.values(ids, failed)
    }

    fn release(&mut self, id: u32) {
        let mut pair = std::mem::replace(&mut self.first[id as usize], NONE);
        while pair != NONE {
            self.pairs.release(pair);
            self.counts[pair as usize] = 0;
            pair = std::mem::replace(&mut self.next[pair as usize], NONE);
        }
        self.inner.release(id);
    }

    fn bytes(&self) -> usize {
        self.pairs.bytes() + self.counts.capacity() * 12 + self.first.capacity() * 4 + self.inner.bytes()
    }

    fn recomputations(&self) -> u64 {
        self.inner.recomputations()
    }
}
