//! Groups as entries.
//!
//! The first kind has one row per group: its key, the sum of its rows' multiplicities, whether its row is out, and the
//! states that take one row. A kind of its own has, for each call whose state is a multiset, the key and rows of
//! the multiset; and one, for each set of distinct arguments, the key, the arguments and for which calls they occur.
//!
//! A step's first touch of a group compares when it was touched before with the last save, so that a row costs
//! nothing; a group that was saved is remembered by its key when it is released.

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array};
use arrow::datatypes::{DataType, Int64Type};
use tidemill_delta::Delta;
use tidemill_state::NO_KEY;

use super::{Aggregate, shared};
use crate::saved::{Gone, booleans, numbers, rows_of, saved_keys, take_all, wrong};
use crate::{Entries, EntryShape, OperatorError};

/// What has changed since the last save; nothing is noted before the first one.
#[derive(Default)]
pub(super) struct Changes {
    /// The last step before the last save.
    since: Option<u64>,
    /// Groups, each once, and maybe gone since.
    groups: Vec<u32>,
    gone: Gone,
}

impl Changes {
    /// Notes that a group is touched, which was touched last in step `before`.
    #[inline]
    pub(super) fn touch(&mut self, group: u32, before: u64) {
        if self.since.is_some_and(|since| before <= since) {
            self.groups.push(group);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.groups.capacity() * 4 + self.gone.bytes()
    }

    fn restart(&mut self, since: u64) {
        *self = Changes { since: Some(since), ..Changes::default() };
    }
}

impl Aggregate {
    pub(super) fn shapes(&self) -> Vec<EntryShape> {
        let key = self.plan.keys.len();
        let shape = |more: usize| EntryShape { key: key + more, input_columns: self.plan.keys.clone() };
        let mut shapes = vec![shape(0); 1 + self.calls.multisets()];
        shapes.extend(self.calls.sets().iter().map(|set| shape(set.args().len())));
        shapes
    }

    /// Remembers the keys of groups that were saved and are about to be released.
    pub(super) fn note_gone(&mut self, ids: &[u32]) -> Result<(), OperatorError> {
        let saved: Vec<u32> = ids.iter().copied().filter(|id| self.groups.saved[*id as usize]).collect();
        if saved.is_empty() {
            return Ok(());
        }
        let keys = self.keys.columns(&saved)?;
        self.calls.sets_mut().iter_mut().try_for_each(|set| set.note_gone(&saved, &keys))?;
        self.changes.gone.push(keys, saved.len());
        Ok(())
    }

    /// The entries that have changed since the last save, or all.
    pub(super) fn save(&mut self, all: bool) -> Result<Vec<Entries>, OperatorError> {
        let all = all || self.changes.since.is_none();
        let groups = self.changed(all);
        let gone = if all { (self.keys.columns(&[])?, 0) } else { self.gone()? };
        let keys = self.keys.columns(&groups)?;
        let mut columns = keys.clone();
        columns.push(shared(Int64Array::from_iter_values(groups.iter().map(|id| self.groups.weight[*id as usize]))));
        let emitted = groups.iter().map(|id| Some(self.groups.emitted[*id as usize]));
        columns.push(shared(emitted.collect::<BooleanArray>()));
        columns.extend(self.calls.save(&groups)?);
        let rows = rows_of(columns, groups.len());
        let mut out = vec![Entries { rows, gone: rows_of(gone.0.clone(), gone.1) }];
        for states in self.calls.multisets_mut() {
            let mut places = Vec::new();
            let saved = states.save(&groups, &mut places)?;
            let mut empty = vec![!all; groups.len()];
            places.iter().for_each(|place| empty[*place as usize] = false);
            let empty = (0..groups.len() as u32).filter(|place| empty[*place as usize]).collect();
            let gone = with_some(&gone, &keys, empty)?;
            let len = places.len();
            let mut columns = take_all(&keys, places)?;
            columns.extend(saved);
            out.push(Entries { rows: rows_of(columns, len), gone });
        }
        for set in self.calls.sets_mut() {
            out.push(set.entries(all, &self.keys)?);
        }
        groups.iter().for_each(|id| self.groups.saved[*id as usize] = true);
        self.changes.restart(self.steps);
        Ok(out)
    }

    /// The groups that are there and have changed, or all, by their numbers.
    fn changed(&mut self, all: bool) -> Vec<u32> {
        let mut groups = std::mem::take(&mut self.changes.groups);
        if all {
            groups = (0..self.groups.weight.len() as u32).collect();
        }
        groups.sort_unstable();
        let global = self.is_global();
        groups.retain(|id| global || self.groups.weight[*id as usize] != 0);
        groups
    }

    /// The keys that were released and have not come again, and how many.
    fn gone(&mut self) -> Result<(Vec<ArrayRef>, usize), OperatorError> {
        let types: Vec<DataType> = self.keys.columns(&[])?.iter().map(|column| column.data_type().clone()).collect();
        let (columns, len) = self.changes.gone.columns(&types)?;
        let mut found = Vec::new();
        self.keys.lookup(&columns, len, &mut found)?;
        let places: Vec<u32> = (0..len as u32).filter(|i| found[*i as usize] == NO_KEY).collect();
        let left = places.len();
        Ok((take_all(&columns, places)?, left))
    }

    pub(super) fn load_entries(&mut self, saved: &mut [Vec<Delta>]) -> Result<(), OperatorError> {
        let mut kinds = saved.iter_mut().map(std::mem::take);
        let mut next = || kinds.next().ok_or_else(|| wrong("a kind of entries is missing"));
        for delta in next()?.iter().filter(|delta| !delta.is_empty()) {
            self.load_groups(delta)?;
        }
        self.started = self.is_global() && !self.keys.is_empty();
        let width = self.plan.keys.len();
        for states in self.calls.multisets_mut() {
            for delta in next()?.iter().filter(|delta| !delta.is_empty()) {
                let mut ids = Vec::new();
                self.keys.lookup(&saved_keys(&self.keys, &delta.rows)?, delta.len(), &mut ids)?;
                if ids.contains(&NO_KEY) {
                    return Err(wrong("values of a group that is not there"));
                }
                let columns = &delta.rows.columns()[width..];
                if columns.len() != states.width() {
                    return Err(wrong("values have another number of columns"));
                }
                states.load(&ids, columns)?;
            }
        }
        for set in self.calls.sets_mut() {
            set.load(next()?, &self.keys)?;
        }
        self.changes.restart(self.steps);
        Ok(())
    }

    fn load_groups(&mut self, delta: &Delta) -> Result<(), OperatorError> {
        let columns = &delta.rows.columns()[self.plan.keys.len().min(delta.rows.num_columns())..];
        let (mut ids, mut new) = (Vec::new(), Vec::new());
        self.keys.intern(&saved_keys(&self.keys, &delta.rows)?, delta.len(), &mut ids, |id| new.push(id))?;
        if new.len() != ids.len() {
            return Err(wrong("a group is there twice"));
        }
        self.make_room(&new)?;
        let (weights, emitted) = (numbers::<Int64Type>(columns, 0)?.values(), booleans(columns, 1)?);
        for (i, id) in ids.iter().enumerate() {
            self.groups.weight[*id as usize] = weights[i];
            self.groups.emitted[*id as usize] = emitted.value(i);
            self.groups.saved[*id as usize] = true;
        }
        self.calls.load(&ids, &columns[2..])
    }
}

/// The keys that are gone, and of some others those at the places given.
fn with_some(
    gone: &(Vec<ArrayRef>, usize),
    keys: &[ArrayRef],
    places: Vec<u32>,
) -> Result<arrow::array::RecordBatch, OperatorError> {
    let types: Vec<DataType> = keys.iter().map(|column| column.data_type().clone()).collect();
    let mut all = Gone::default();
    all.push(gone.0.clone(), gone.1);
    let len = places.len();
    all.push(take_all(keys, places)?, len);
    let (columns, len) = all.columns(&types)?;
    Ok(rows_of(columns, len))
}
