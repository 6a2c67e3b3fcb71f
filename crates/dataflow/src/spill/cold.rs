//! The runs of an operator, and how they are merged.

use std::sync::Arc;

use arrow::array::UInt32Array;
use hashbrown::{HashMap, HashSet};
use tidemill_delta::Delta;

use super::aside::Aside;
use super::memory::Shelf;
use super::place::places_of;
use super::run::{Block, Run, Sorted, WriteError, Writer};
use crate::OperatorError;

/// A run is merged with the next older one unless that is so many times as large.
const GROWTH: u64 = 4;

/// See the module.
pub(super) struct Cold {
    shelf: Shelf,
    /// Parts of the operator's state.
    parts: usize,
    /// The eldest first.
    runs: Vec<Arc<Run>>,
}

impl Cold {
    /// With runs that were there before.
    pub(super) fn new(shelf: Shelf, parts: usize, before: Vec<Aside>) -> Self {
        Cold { shelf, parts, runs: before.into_iter().map(|run| run.0).collect() }
    }

    /// The runs, the eldest first.
    pub(super) fn runs(&self) -> Vec<Aside> {
        self.runs.iter().cloned().map(Aside).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Rows in all runs; those that are no longer the newest count too.
    pub(super) fn rows(&self) -> usize {
        self.runs.iter().map(|run| run.rows).sum()
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        self.runs.iter().map(|run| run.bytes()).sum()
    }

    pub(super) fn clear(&mut self) {
        self.runs.clear();
    }

    /// The hashes of all keys that are there, ascending.
    pub(super) fn hashes(&self) -> Result<Vec<u64>, OperatorError> {
        let (mut all, mut seen) = (Vec::new(), HashSet::new());
        for run in self.runs.iter().rev() {
            for number in 0..run.blocks() {
                let block = run.block(number)?;
                let here = (0..self.parts).flat_map(|part| block.hashes(part)).copied();
                let mut here: Vec<u64> = here.filter(|hash| !seen.contains(hash)).collect();
                here.sort_unstable();
                here.dedup();
                seen.extend(here.iter().chain(&block.gone).copied());
                all.extend(here);
            }
        }
        all.sort_unstable();
        Ok(all)
    }

    /// What is newest of these keys (ascending), by part.
    pub(super) fn read(&self, wanted: &[u64]) -> Result<Vec<Vec<Delta>>, OperatorError> {
        let mut found = vec![Vec::new(); self.parts];
        let mut open: Vec<u64> = wanted.to_vec();
        for run in self.runs.iter().rev() {
            let likely: Vec<(usize, u64)> = open
                .iter()
                .filter(|hash| run.may_have(**hash))
                .filter_map(|hash| Some((run.block_of(*hash)?, *hash)))
                .collect();
            let mut known = Vec::new();
            for of_block in likely.chunk_by(|a, b| a.0 == b.0) {
                let block = run.block(of_block[0].0)?;
                let hashes: Vec<u64> = of_block.iter().map(|(_, hash)| *hash).collect();
                take_from(&block, &hashes, &mut found, &mut known)?;
            }
            known.sort_unstable();
            open.retain(|hash| known.binary_search(hash).is_err());
        }
        Ok(found)
    }

    /// Writes what is there of the keys that were touched since the last run: all rows, by part, and nothing of the other keys.
    /// `keys`: where each part has the columns of the key.
    pub(super) fn write(
        &mut self,
        parts: Vec<Delta>,
        keys: &[Vec<usize>],
        mut touched: HashSet<u64>,
    ) -> Result<(), WriteError> {
        let mut sorted = Vec::with_capacity(parts.len());
        let mut hashes = Vec::new();
        for (rows, key) in parts.into_iter().zip(keys) {
            places_of(&rows.rows, key, &mut hashes)?;
            hashes.iter().for_each(|hash| {
                touched.remove(hash);
            });
            sorted.push(Sorted::new(rows, &hashes));
        }
        let mut gone: Vec<u64> =
            touched.into_iter().filter(|hash| self.runs.iter().any(|r| r.may_have(*hash))).collect();
        gone.sort_unstable();
        let keys = sorted.iter().map(Sorted::keys).sum::<usize>() + gone.len();
        let mut writer = Writer::new(&self.shelf, self.parts, keys)?;
        writer.push(&sorted, &gone)?;
        drop(sorted);
        self.runs.push(Arc::new(writer.finish()?));
        match self.merge() {
            // They are as good as one, and there may be room the next time.
            Err(WriteError::Disk(error)) => tracing::warn!(%error, "runs of state stay as they are"),
            other => other?,
        }
        Ok(())
    }

    /// Merges runs until each is much larger than the next newer one.
    fn merge(&mut self) -> Result<(), WriteError> {
        let large = |older: &Run, newer: u64| older.length >= newer.saturating_mul(GROWTH);
        let mut first = self.runs.len() - 1;
        let mut length = self.runs[first].length;
        while first > 0 && !large(&self.runs[first - 1], length) {
            first -= 1;
            length += self.runs[first].length;
        }
        if first + 1 == self.runs.len() {
            return Ok(());
        }
        let mut merging = Merging::new(self.runs[first..].iter().map(|run| (0, &**run)), self.parts);
        let keys = self.runs[first..].iter().map(|run| run.keys).sum();
        let mut writer = Writer::new(&self.shelf, self.parts, keys)?;
        // With nothing older below, what is gone need not be remembered.
        while let Some((parts, gone)) = merging.next(first == 0)? {
            writer.push(&parts, &gone)?;
        }
        let merged = writer.finish()?;
        self.runs.truncate(first);
        self.runs.push(Arc::new(merged));
        Ok(())
    }
}

/// Takes the rows of some hashes (ascending) out of a block, and tells which it knows.
fn take_from(
    block: &Block,
    wanted: &[u64],
    found: &mut [Vec<Delta>],
    known: &mut Vec<u64>,
) -> Result<(), OperatorError> {
    for (part, found) in found.iter_mut().enumerate() {
        let hashes = block.hashes(part);
        let mut rows = Vec::new();
        for hash in wanted {
            let from = hashes.partition_point(|other| other < hash);
            let same = hashes[from..].iter().take_while(|other| *other == hash).count();
            rows.extend(from as u32..(from + same) as u32);
            known.extend((same > 0).then_some(*hash));
        }
        if !rows.is_empty() {
            found.push(block.rows(part)?.take(&UInt32Array::from(rows))?);
        }
    }
    known.extend(wanted.iter().filter(|hash| block.gone.binary_search(hash).is_ok()));
    Ok(())
}

/// Runs on their way into one.
pub(super) struct Merging<'a> {
    cursors: Vec<Cursor<'a>>,
    parts: usize,
}

/// How far a run has been read.
struct Cursor<'a> {
    /// Only runs of one group know of each other's keys.
    group: usize,
    run: &'a Run,
    number: usize,
    block: Option<Loaded>,
}

/// A block of which some has been taken.
struct Loaded {
    block: Block,
    /// Rows by part; decoded once.
    rows: Vec<Option<Delta>>,
    /// How many rows of each part have been taken.
    taken: Vec<usize>,
    gone: usize,
}

impl Loaded {
    fn new(block: Block, parts: usize) -> Result<Self, OperatorError> {
        let rows = |part: usize| if block.hashes(part).is_empty() { Ok(None) } else { block.rows(part).map(Some) };
        let rows = (0..parts).map(rows).collect::<Result<_, _>>()?;
        Ok(Loaded { block, rows, taken: vec![0; parts], gone: 0 })
    }

    /// The places in a part, not taken yet, up to a hash.
    fn up_to(&self, part: usize, end: u64) -> std::ops::Range<usize> {
        self.taken[part]..self.block.hashes(part).partition_point(|hash| *hash <= end)
    }

    fn gone_up_to(&self, end: u64) -> &[u64] {
        &self.block.gone[self.gone..self.block.gone.partition_point(|hash| *hash <= end)]
    }
}

/// By group and hash: the last run that knows it.
type Newest = HashMap<(usize, u64), usize>;

/// Rows that come next, by part, and hashes of which nothing is left.
type Merged = (Vec<Sorted>, Vec<u64>);

impl<'a> Merging<'a> {
    /// Runs of several groups, of each the eldest first.
    pub(super) fn new(runs: impl Iterator<Item = (usize, &'a Run)>, parts: usize) -> Self {
        let cursor = |(group, run)| Cursor { group, run, number: 0, block: None };
        Merging { cursors: runs.map(cursor).collect(), parts }
    }

    /// The next rows, up to the hash with which some block ends.
    pub(super) fn next(&mut self, forget: bool) -> Result<Option<Merged>, OperatorError> {
        for cursor in &mut self.cursors {
            if cursor.block.is_none() && cursor.number < cursor.run.blocks() {
                cursor.block = Some(Loaded::new(cursor.run.block(cursor.number)?, self.parts)?);
                cursor.number += 1;
            }
        }
        let blocks = || self.cursors.iter().filter_map(|cursor| cursor.block.as_ref());
        let Some(end) = blocks().map(|loaded| loaded.block.last()).min() else { return Ok(None) };
        // The newest run of a group that knows a key has all of it. Only looked up, never walked.
        let mut newest: Newest = HashMap::new();
        for (i, cursor) in self.cursors.iter().enumerate() {
            let Some(loaded) = &cursor.block else { continue };
            let of = |hash: &u64| ((cursor.group, *hash), i);
            for part in 0..self.parts {
                newest.extend(loaded.block.hashes(part)[loaded.up_to(part, end)].iter().map(of));
            }
            newest.extend(loaded.gone_up_to(end).iter().map(of));
        }
        let parts = (0..self.parts).map(|part| self.part(part, end, &newest)).collect::<Result<Vec<_>, _>>()?;
        let mut gone: Vec<u64> = Vec::new();
        for (i, cursor) in self.cursors.iter().enumerate() {
            let here = cursor.block.iter().flat_map(|loaded| loaded.gone_up_to(end));
            gone.extend(here.filter(|hash| !forget && newest[&(cursor.group, **hash)] == i));
        }
        gone.sort_unstable();
        self.advance(end);
        Ok(Some((parts, gone)))
    }

    fn part(&self, part: usize, end: u64, newest: &Newest) -> Result<Sorted, OperatorError> {
        let (mut deltas, mut hashes) = (Vec::new(), Vec::new());
        for (i, cursor) in self.cursors.iter().enumerate() {
            let Some(loaded) = &cursor.block else { continue };
            let Some(rows) = &loaded.rows[part] else { continue };
            let here = loaded.up_to(part, end);
            let hash = |at: &usize| (cursor.group, loaded.block.hashes(part)[*at]);
            let kept: Vec<u32> = here.filter(|at| newest[&hash(at)] == i).map(|at| at as u32).collect();
            if !kept.is_empty() {
                hashes.extend(kept.iter().map(|at| loaded.block.hashes(part)[*at as usize]));
                deltas.push(rows.take(&UInt32Array::from(kept))?);
            }
        }
        let Some(first) = deltas.first() else { return Ok(Sorted::default()) };
        let rows = Delta::concat(&first.rows.schema(), &deltas)?;
        Ok(Sorted::new(rows, &hashes))
    }

    fn advance(&mut self, end: u64) {
        for cursor in &mut self.cursors {
            let Some(loaded) = &mut cursor.block else { continue };
            if loaded.block.last() <= end {
                cursor.block = None;
                continue;
            }
            for part in 0..self.parts {
                loaded.taken[part] = loaded.up_to(part, end).end;
            }
            loaded.gone += loaded.gone_up_to(end).len();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::Int64Type;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use tidemill_env::SimulatedDisk;

    use super::*;
    use crate::Memory;

    /// Rows of a key: for each part the values.
    type Rows = [Vec<i64>; 2];

    fn delta(rows: &BTreeMap<i64, Rows>, part: usize) -> Delta {
        let column = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as ArrayRef;
        let pairs = || rows.iter().flat_map(|(key, rows)| rows[part].iter().map(|value| (*key, *value)));
        let columns = [("k", column(pairs().map(|p| p.0).collect())), ("v", column(pairs().map(|p| p.1).collect()))];
        Delta::inserts(RecordBatch::try_from_iter(columns).expect("rows"))
    }

    fn hashes(keys: impl Iterator<Item = i64>) -> Vec<u64> {
        let mut hashes = Vec::new();
        let column = Arc::new(Int64Array::from_iter_values(keys)) as ArrayRef;
        places_of(&RecordBatch::try_from_iter([("k", column)]).expect("keys"), &[0], &mut hashes).expect("hashes");
        hashes
    }

    fn read(cold: &Cold, keys: impl Iterator<Item = i64>) -> BTreeMap<i64, Rows> {
        let mut wanted = hashes(keys);
        wanted.sort_unstable();
        let mut found: BTreeMap<i64, Rows> = BTreeMap::new();
        for (part, deltas) in cold.read(&wanted).expect("reads").iter().enumerate() {
            for delta in deltas {
                let columns: Vec<_> = delta.rows.columns().iter().map(|c| c.as_primitive::<Int64Type>()).collect();
                for i in 0..delta.len() {
                    found.entry(columns[0].value(i)).or_default()[part].push(columns[1].value(i));
                }
            }
        }
        found.values_mut().flatten().for_each(|values| values.sort_unstable());
        found
    }

    fn cold() -> Cold {
        let disk = SimulatedDisk::default();
        let memory = Memory::new(Arc::new(disk), PathBuf::from("/"), 0).expect("a folder");
        Cold::new(memory.shelf(), 2, Vec::new())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_was_written_last_is_found(
            runs in vec(vec((0..60i64, vec(0..9i64, 0..4), vec(0..9i64, 0..3)), 1..40), 1..12),
        ) {
            let (mut cold, mut all) = (cold(), BTreeMap::new());
            for run in runs {
                let mut touched: BTreeMap<i64, Rows> = BTreeMap::new();
                for (key, mut one, mut other) in run {
                    one.sort_unstable();
                    other.sort_unstable();
                    touched.insert(key, [one, other]);
                }
                let of_keys = hashes(touched.keys().copied()).into_iter().collect();
                let parts = vec![delta(&touched, 0), delta(&touched, 1)];
                cold.write(parts, &[vec![0], vec![0]], of_keys).expect("writes");
                all.extend(touched);
                all.retain(|_, rows| rows.iter().any(|values| !values.is_empty()));
                prop_assert_eq!(&read(&cold, 0..60), &all);
                let some: BTreeMap<i64, Rows> = all.iter().filter(|(key, _)| *key % 7 == 3).map(|(k, r)| (*k, r.clone())).collect();
                prop_assert_eq!(read(&cold, (0..60).filter(|key| key % 7 == 3)), some);
                let mut known = hashes(all.keys().copied());
                known.sort_unstable();
                prop_assert_eq!(cold.hashes().expect("reads"), known);
            }
            prop_assert!(cold.runs.len() < 6, "{} runs", cold.runs.len());
        }
    }

    #[test]
    fn many_blocks_are_merged_and_old_files_go() {
        let disk = Arc::new(SimulatedDisk::default());
        let memory = Memory::new(disk.clone(), PathBuf::from("/"), 0).expect("a folder");
        let mut cold = Cold::new(memory.shelf(), 2, Vec::new());
        let mut all: BTreeMap<i64, Rows> = BTreeMap::new();
        for round in 0..8i64 {
            let keys = (0..20_000i64).filter(|key| key % 8 == round || key % 5 == round % 5);
            // Every third key has nothing left.
            let rows = keys.map(|key| {
                (key, if (key + round) % 3 == 0 { Rows::default() } else { [vec![round], vec![key, round]] })
            });
            let touched: BTreeMap<i64, Rows> = rows
                .map(|(key, mut rows)| {
                    rows.iter_mut().for_each(|values| values.sort_unstable());
                    (key, rows)
                })
                .collect();
            let of_keys = hashes(touched.keys().copied()).into_iter().collect();
            cold.write(vec![delta(&touched, 0), delta(&touched, 1)], &[vec![0], vec![0]], of_keys).expect("writes");
            all.extend(touched);
        }
        all.retain(|_, rows| !rows[0].is_empty());
        assert_eq!(read(&cold, 0..20_000), all);
        assert!(cold.runs.iter().any(|run| run.blocks() > 3));
        let files = || tidemill_env::Disk::list(disk.as_ref(), &PathBuf::from("/")).expect("a folder").len();
        assert_eq!(files(), cold.runs.len());
        cold.clear();
        assert_eq!(files(), 0);
    }
}
