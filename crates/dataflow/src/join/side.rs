//! One side of a join: rows by key.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use hashbrown::HashTable;
use tidemill_delta::{Micros, hash_columns};
use tidemill_plan::Bound;
use tidemill_state::{KeyTable, Long, NO_KEY, RowStore};

use crate::OperatorError;
use crate::aggregate::micros;

const NONE: u32 = u32::MAX;

/// The stored rows of one input.
pub(super) struct Side {
    columns: Vec<usize>,
    append_only: bool,
    bound: Option<Bound>,
    keys: KeyTable,
    /// A key's newest row.
    heads: Long<u32>,
    store: RowStore,
    /// Per row: the next elder row of its key.
    nexts: Long<u32>,
    /// Per row: its multiplicity; 0: gone, its place not yet reused.
    weights: Long<i64>,
    /// Per row: the hash of all its columns, to find it when it is taken back.
    hashes: Long<u64>,
    /// Rows by that hash; a key may have very many rows.
    by_hash: HashTable<u32>,
    /// Per row: how many rows of the other side match; only if that decides something.
    matches: Option<Long<i64>>,
    /// Rows whose matches changed in this step, with the number before; and a mark per row.
    changed: Vec<(u32, i64)>,
    changed_mark: Long<bool>,
    /// Ranges of rows by when all of them can go.
    expiring: BTreeMap<Micros, Vec<std::ops::Range<u32>>>,
    live: usize,
}

/// The rows added, and those taken back: their place in the batch, matches at the start, weight.
type Applied = (Vec<u32>, Vec<(u32, i64, i64)>);

impl Side {
    pub(super) fn new(
        schema: SchemaRef,
        columns: Vec<usize>,
        append_only: bool,
        count_matches: bool,
        bound: Option<Bound>,
    ) -> Result<Self, OperatorError> {
        let types = columns.iter().map(|c| schema.field(*c).data_type().clone()).collect();
        Ok(Side {
            columns,
            append_only,
            bound,
            keys: KeyTable::new(types)?,
            heads: Long::new(),
            store: RowStore::new(schema),
            nexts: Long::new(),
            weights: Long::new(),
            hashes: Long::new(),
            by_hash: HashTable::new(),
            matches: count_matches.then(Long::new),
            changed: Vec::new(),
            changed_mark: Long::new(),
            expiring: BTreeMap::new(),
            live: 0,
        })
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        self.store.schema()
    }

    pub(super) fn len(&self) -> usize {
        self.live
    }

    pub(super) fn counts_matches(&self) -> bool {
        self.matches.is_some()
    }

    pub(super) fn is_append_only(&self) -> bool {
        self.append_only
    }

    /// The rows there are, the eldest first.
    pub(super) fn live(&self) -> Vec<u32> {
        (0..self.weights.len() as u32).filter(|row| self.weights[*row as usize] != 0).collect()
    }

    /// Makes room for this many more rows where growing copies what is there.
    pub(super) fn reserve(&mut self, rows: usize) {
        if !self.append_only {
            let hashes = &self.hashes;
            self.by_hash.reserve(rows, |row| hashes[*row as usize]);
        }
    }

    pub(super) fn lookup(&self, columns: &[ArrayRef], rows: usize, keys: &mut Vec<u32>) -> Result<(), OperatorError> {
        Ok(self.keys.lookup(columns, rows, keys)?)
    }

    /// The newest row of a key.
    #[inline]
    pub(super) fn first(&mut self, key: u32) -> Option<u32> {
        if key == NO_KEY {
            return None;
        }
        let linked = self.heads[key as usize];
        let row = self.alive_from(linked);
        if row != linked {
            self.heads[key as usize] = row;
        }
        (row != NONE).then_some(row)
    }

    /// The next elder row of the same key.
    #[inline]
    pub(super) fn next(&mut self, row: u32) -> Option<u32> {
        let linked = self.nexts[row as usize];
        let elder = self.alive_from(linked);
        if elder != linked {
            self.nexts[row as usize] = elder;
        }
        (elder != NONE).then_some(elder)
    }

    /// The first row from this one on that is not gone. Whoever asks links to it, so that each row that is gone is passed
    /// once: the row of a key that changes over and over again would else be behind all that it has been.
    #[inline]
    fn alive_from(&self, mut row: u32) -> u32 {
        while row != NONE && self.weights[row as usize] == 0 {
            row = self.nexts[row as usize];
        }
        row
    }

    #[inline]
    pub(super) fn weight(&self, row: u32) -> i64 {
        self.weights[row as usize]
    }

    pub(super) fn matches(&self, row: u32) -> i64 {
        self.matches.as_ref().map_or(0, |m| m[row as usize])
    }

    /// Notes that `weight` more rows of the other side match a stored row.
    #[inline]
    pub(super) fn count_match(&mut self, row: u32, weight: i64) {
        let Some(matches) = &mut self.matches else { return };
        let count = &mut matches[row as usize];
        if !self.changed_mark[row as usize] {
            self.changed_mark[row as usize] = true;
            self.changed.push((row, *count));
        }
        *count += weight;
    }

    /// Rows whose matches changed: row, before, after, multiplicity. Rows that came in this step are
    /// not among them.
    pub(super) fn take_match_changes(&mut self) -> Vec<(u32, i64, i64, i64)> {
        let changed = std::mem::take(&mut self.changed);
        changed
            .into_iter()
            .filter_map(|(row, before)| {
                self.changed_mark[row as usize] = false;
                (before >= 0).then(|| (row, before, self.matches(row), self.weights[row as usize]))
            })
            .collect()
    }

    pub(super) fn gather(&self, rows: &[u32], columns: &[usize]) -> Result<Vec<ArrayRef>, OperatorError> {
        Ok(self.store.gather(rows, columns)?)
    }

    /// Stores rows and takes rows back. `matches` is the number of matches of each row.
    pub(super) fn apply(
        &mut self,
        rows: &RecordBatch,
        weights: &[i64],
        matchable: &[bool],
        matches: &[i64],
    ) -> Result<Applied, OperatorError> {
        let hashes = if self.append_only {
            Vec::new()
        } else {
            let mut hashes = Vec::new();
            hash_columns(rows.columns(), rows.num_rows(), &mut hashes)?;
            hashes
        };
        let coming: Vec<u32> =
            (0..weights.len() as u32).filter(|i| matchable[*i as usize] && weights[*i as usize] > 0).collect();
        let inserted = self.insert(rows, &coming, weights, &hashes, matches)?;
        let going: Vec<u32> =
            (0..weights.len() as u32).filter(|i| matchable[*i as usize] && weights[*i as usize] < 0).collect();
        let removed = self.remove(&going, weights, &hashes)?;
        Ok((inserted, removed))
    }

    fn insert(
        &mut self,
        rows: &RecordBatch,
        coming: &[u32],
        weights: &[i64],
        hashes: &[u64],
        matches: &[i64],
    ) -> Result<Vec<u32>, OperatorError> {
        if coming.is_empty() {
            return Ok(Vec::new());
        }
        let kept = if coming.len() == rows.num_rows() {
            rows.clone()
        } else {
            take_record_batch(rows, &UInt32Array::from(coming.to_vec()))?
        };
        let start = self.store.append(&kept)?;
        let columns: Vec<ArrayRef> = self.columns.iter().map(|c| kept.column(*c).clone()).collect();
        let mut keys = Vec::new();
        self.keys.intern(&columns, kept.num_rows(), &mut keys, |_| {})?;
        self.heads.grow(self.keys.capacity(), NONE);
        for (i, key) in keys.iter().enumerate() {
            let row = start + i as u32;
            self.nexts.push(std::mem::replace(&mut self.heads[*key as usize], row));
        }
        self.weights.extend(coming.iter().map(|i| weights[*i as usize]));
        if !self.append_only {
            self.hashes.extend(coming.iter().map(|i| hashes[*i as usize]));
            let all = &self.hashes;
            for row in start..start + coming.len() as u32 {
                self.by_hash.insert_unique(all[row as usize], row, |r| all[*r as usize]);
            }
        }
        if let Some(own) = &mut self.matches {
            own.extend(coming.iter().map(|i| matches[*i as usize]));
            self.changed_mark.grow(own.len(), false);
            // Whatever still changes in this step concerns a row that was not there before.
            for i in 0..coming.len() as u32 {
                self.changed_mark[(start + i) as usize] = true;
                self.changed.push((start + i, -1));
            }
        }
        self.live += coming.len();
        self.note_expiry(&kept, start)?;
        Ok((start..start + coming.len() as u32).collect())
    }

    /// Notes when the rows of a batch can go: all at once, when the last of them can.
    fn note_expiry(&mut self, rows: &RecordBatch, start: u32) -> Result<(), OperatorError> {
        let Some(bound) = self.bound else { return Ok(()) };
        let times = micros(rows.column(bound.column))?;
        // A row without a time stays for ever.
        let Some(last) = arrow::compute::max(&times) else { return Ok(()) };
        let ranges = self.expiring.entry(last.saturating_add(bound.offset)).or_default();
        match times.nulls().filter(|nulls| nulls.null_count() > 0) {
            None => ranges.push(start..start + rows.num_rows() as u32),
            Some(nulls) => ranges.extend(nulls.valid_slices().map(|(a, b)| start + a as u32..start + b as u32)),
        }
        Ok(())
    }

    fn remove(
        &mut self,
        going: &[u32],
        weights: &[i64],
        hashes: &[u64],
    ) -> Result<Vec<(u32, i64, i64)>, OperatorError> {
        if going.is_empty() {
            return Ok(Vec::new());
        }
        assert!(!self.append_only, "a row of an append-only input is taken back");
        let before: BTreeMap<u32, i64> = self.changed.iter().copied().collect();
        let mut removed = Vec::new();
        for i in going {
            let hash = hashes[*i as usize];
            let mut left = -weights[*i as usize];
            while left > 0 {
                let Ok(found) = self.by_hash.find_entry(hash, |r| self.hashes[*r as usize] == hash) else { break };
                let row = *found.get();
                let part = left.min(self.weights[row as usize]);
                self.weights[row as usize] -= part;
                left -= part;
                if self.weights[row as usize] == 0 {
                    self.live -= 1;
                    found.remove();
                }
                let at_start = before.get(&row).copied().unwrap_or_else(|| self.matches(row));
                // A row that came in this very step was never seen by anyone.
                if at_start >= 0 {
                    removed.push((*i, at_start, part));
                }
            }
            // With a bound the row may have been dropped as final.
            assert!(left == 0 || self.bound.is_some(), "a row that is not there is taken back from a join");
        }
        Ok(removed)
    }

    pub(super) fn due(&self, watermark: Micros) -> bool {
        self.expiring.first_key_value().is_some_and(|(at, _)| *at <= watermark)
    }

    /// Drops the rows that can match nothing any more.
    pub(super) fn evict(&mut self, watermark: Micros) -> Result<(), OperatorError> {
        while let Some(entry) = self.expiring.first_entry() {
            if *entry.key() > watermark {
                break;
            }
            for range in entry.remove() {
                for row in range {
                    if self.weights[row as usize] != 0 {
                        self.weights[row as usize] = 0;
                        self.live -= 1;
                        self.forget_hash(row);
                    }
                }
            }
        }
        Ok(())
    }

    fn forget_hash(&mut self, row: u32) {
        if !self.append_only
            && let Ok(found) = self.by_hash.find_entry(self.hashes[row as usize], |r| *r == row)
        {
            found.remove();
        }
    }

    /// Gives all rows new numbers once most places are empty; each row is moved a bounded number of
    /// times per row dropped.
    pub(super) fn compact(&mut self) -> Result<(), OperatorError> {
        if self.weights.len() < 1024 || self.live * 2 > self.weights.len() {
            return Ok(());
        }
        let kept: Vec<u32> = (0..self.weights.len() as u32).filter(|r| self.weights[*r as usize] != 0).collect();
        self.store.compact(&kept)?;
        self.weights = kept.iter().map(|r| self.weights[*r as usize]).collect();
        if !self.append_only {
            self.hashes = kept.iter().map(|r| self.hashes[*r as usize]).collect();
            self.by_hash.clear();
            let all = &self.hashes;
            for row in 0..kept.len() as u32 {
                self.by_hash.insert_unique(all[row as usize], row, |r| all[*r as usize]);
            }
        }
        if let Some(matches) = &mut self.matches {
            *matches = kept.iter().map(|r| matches[*r as usize]).collect();
            self.changed_mark = Long::new();
            self.changed_mark.grow(kept.len(), false);
        }
        self.reindex(kept.len())?;
        self.renumber_expiry(&kept);
        Ok(())
    }

    fn reindex(&mut self, len: usize) -> Result<(), OperatorError> {
        let types = self.columns.iter().map(|c| self.store.schema().field(*c).data_type().clone()).collect();
        let keys = std::mem::replace(&mut self.keys, KeyTable::new(types)?).len();
        // About as many keys as rows have stayed, and not more than there were.
        self.keys.reserve(keys.min(len));
        (self.heads, self.nexts) = (Long::new(), Long::new());
        let rows: Vec<u32> = (0..len as u32).collect();
        let mut keys = Vec::new();
        for part in rows.chunks(8192) {
            let columns = self.store.gather(part, &self.columns)?;
            self.keys.intern(&columns, part.len(), &mut keys, |_| {})?;
            self.heads.grow(self.keys.capacity(), NONE);
            for (row, key) in part.iter().zip(&keys) {
                self.nexts.push(std::mem::replace(&mut self.heads[*key as usize], *row));
            }
        }
        Ok(())
    }

    fn renumber_expiry(&mut self, kept: &[u32]) {
        let place = |row: u32| kept.partition_point(|k| *k < row) as u32;
        for ranges in self.expiring.values_mut() {
            ranges.iter_mut().for_each(|r| *r = place(r.start)..place(r.end));
            ranges.retain(|r| !r.is_empty());
        }
        self.expiring.retain(|_, ranges| !ranges.is_empty());
    }

    pub(super) fn bytes(&self) -> usize {
        let matches = self.matches.as_ref().map_or(0, Long::bytes) + self.changed_mark.bytes();
        let rows = self.nexts.bytes() + self.weights.bytes() + self.hashes.bytes() + self.by_hash.allocation_size();
        self.keys.bytes() + self.store.bytes() + self.heads.bytes() + rows + matches
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn rows(keys: &[i64], values: &[i64]) -> RecordBatch {
        let field = |name: &str| Field::new(name, DataType::Int64, true);
        let schema = Arc::new(Schema::new(vec![field("k"), field("v")]));
        let columns: [ArrayRef; 2] =
            [Arc::new(Int64Array::from(keys.to_vec())), Arc::new(Int64Array::from(values.to_vec()))];
        tidemill_delta::batch(schema, columns.to_vec(), keys.len())
    }

    /// A key's rows, and how many links lead to the last of them.
    fn chain(side: &mut Side, key: i64) -> (usize, usize) {
        let mut keys = Vec::new();
        side.lookup(&[Arc::new(Int64Array::from(vec![key]))], 1, &mut keys).unwrap();
        let mut links = 0;
        let mut row = side.heads[keys[0] as usize];
        while row != NONE {
            links += 1;
            row = side.nexts[row as usize];
        }
        let (mut found, mut cursor) = (0, side.first(keys[0]));
        while let Some(row) = cursor {
            found += 1;
            cursor = side.next(row);
        }
        (found, links)
    }

    #[test]
    fn a_key_that_changes_often_is_found_at_once() {
        let all: Vec<i64> = (0..10_000).collect();
        let batch = rows(&all, &all);
        let mut side = Side::new(batch.schema(), vec![0], false, false, None).unwrap();
        side.apply(&batch, &vec![1; all.len()], &vec![true; all.len()], &vec![0; all.len()]).unwrap();
        for version in 0..5_000 {
            let old = if version == 0 { 7 } else { -version };
            let change = rows(&[7, 7], &[old, -version - 1]);
            side.apply(&change, &[-1, 1], &[true; 2], &[0; 2]).unwrap();
            let (found, links) = chain(&mut side, 7);
            assert_eq!(found, 1);
            assert!(links <= 3, "{links} links to one row after {version} changes");
        }
    }

    /// What a row with a key of 16 bytes and a value of 8 takes.
    #[test]
    fn rows_take_less_than_100_bytes() {
        let field = |name: &str| Field::new(name, DataType::Int64, true);
        let schema = Arc::new(Schema::new(vec![field("a"), field("b"), field("v")]));
        let mut side = Side::new(schema.clone(), vec![0, 1], false, false, None).unwrap();
        let (count, len) = (300_000, 10_000);
        for start in (0..count).step_by(len) {
            let column = |times: i64| -> ArrayRef {
                let values = (start..start + len).map(|i| i as i64 * times);
                Arc::new(Int64Array::from_iter_values(values))
            };
            let batch = tidemill_delta::batch(schema.clone(), vec![column(1), column(-7), column(3)], len);
            side.apply(&batch, &vec![1; len], &vec![true; len], &vec![0; len]).unwrap();
        }
        let each = side.bytes() / count;
        assert!((60..100).contains(&each), "{each} bytes a row");
    }
}
