//! The pairs of groups and distinct arguments as entries of their own: only those are written that have changed.
//!
//! An entry is the group's key, the arguments, and for which members they occur: a number with a bit for each, or a
//! count for each.

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, UInt32Array, UInt64Array};
use arrow::datatypes::{DataType, Int64Type, UInt32Type, UInt64Type};
use tidemill_delta::Delta;
use tidemill_state::{KeyTable, NO_KEY};

use super::{DistinctSet, NONE, Seen, bits};
use crate::aggregate::shared;
use crate::saved::{Gone, numbers, rows_of, saved_keys, take_all, wrong};
use crate::{Entries, OperatorError};

/// What has changed since the last save; nothing is noted before the first one.
#[derive(Default)]
pub(super) struct Changes {
    /// How many saves there were.
    period: i64,
    /// Pairs, maybe more than once, and maybe gone since.
    pairs: Vec<u32>,
    gone: Gone,
}

impl Changes {
    /// What differs from save to save; as long as there was none, what new pairs have.
    #[inline]
    pub(super) fn period(&self) -> i64 {
        self.period
    }

    #[inline]
    pub(super) fn push(&mut self, pair: u32) {
        if self.period != 0 {
            self.pairs.push(pair);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.pairs.capacity() * 4 + self.gone.bytes()
    }

    fn restart(&mut self) {
        self.period += 1;
        self.pairs.clear();
        self.gone.clear();
    }
}

impl DistinctSet {
    /// Remembers the pairs of groups that were saved and are about to be released; `keys` are the groups' keys.
    pub(in crate::aggregate) fn note_gone(&mut self, groups: &[u32], keys: &[ArrayRef]) -> Result<(), OperatorError> {
        let (mut places, mut pairs) = (Vec::new(), Vec::new());
        for (place, group) in groups.iter().enumerate() {
            let mut pair = self.first[*group as usize];
            while pair != NONE {
                places.push(place as u32);
                pairs.push(pair);
                pair = self.next[pair as usize];
            }
        }
        if pairs.is_empty() {
            return Ok(());
        }
        let mut columns = take_all(keys, places)?;
        columns.extend(self.pairs.columns(&pairs)?.into_iter().skip(1));
        self.changes.gone.push(columns, pairs.len());
        Ok(())
    }

    /// The pairs that have changed since the last save, or all; `groups` are the groups' keys.
    pub(in crate::aggregate) fn entries(&mut self, all: bool, groups: &KeyTable) -> Result<Entries, OperatorError> {
        let mut pairs = std::mem::take(&mut self.changes.pairs);
        if all {
            pairs = (0..self.pairs.capacity() as u32).collect();
        }
        pairs.sort_unstable();
        pairs.dedup();
        let (there, not_there): (Vec<u32>, Vec<u32>) = pairs.into_iter().partition(|pair| self.occurs(*pair));
        let mut columns = self.key_columns(&there, groups)?;
        columns.extend(self.seen_columns(&there));
        let gone = match all {
            true => Vec::new(),
            // What counts nothing any more stays in the table until its group is released.
            false => not_there.into_iter().filter(|pair| self.pairs.contains(*pair)).collect(),
        };
        let emptied = (self.key_columns(&gone, groups)?, gone.len());
        let gone = if all { emptied } else { self.gone(emptied, groups)? };
        self.changes.restart();
        Ok(Entries { rows: rows_of(columns, there.len()), gone: rows_of(gone.0, gone.1) })
    }

    /// Pairs that were released and have not come again, and those that count nothing any more.
    fn gone(
        &mut self,
        emptied: (Vec<ArrayRef>, usize),
        groups: &KeyTable,
    ) -> Result<(Vec<ArrayRef>, usize), OperatorError> {
        let types: Vec<DataType> = emptied.0.iter().map(|column| column.data_type().clone()).collect();
        let (columns, len) = self.changes.gone.columns(&types)?;
        let (mut ids, mut found) = (Vec::new(), Vec::new());
        let keys = groups.types().len();
        groups.lookup(&columns[..keys], len, &mut ids)?;
        let mut pair = vec![shared(UInt32Array::from(ids))];
        pair.extend_from_slice(&columns[keys..]);
        self.pairs.lookup(&pair, len, &mut found)?;
        let places: Vec<u32> = (0..len as u32).filter(|i| found[*i as usize] == NO_KEY).collect();
        let mut gone = Gone::default();
        let left = places.len();
        gone.push(take_all(&columns, places)?, left);
        gone.push(emptied.0, emptied.1);
        gone.columns(&types)
    }

    fn occurs(&self, pair: u32) -> bool {
        match &self.seen {
            Seen::Ever(seen) => seen[pair as usize] != 0,
            Seen::Times(times) => self.times(times, pair).iter().any(|times| *times != 0),
        }
    }

    /// A pair's counts.
    fn times<'a>(&self, times: &'a [i64], pair: u32) -> &'a [i64] {
        &times[pair as usize * (self.members.len() + 1)..][..self.members.len()]
    }

    /// The groups' keys, then the arguments.
    fn key_columns(&self, pairs: &[u32], groups: &KeyTable) -> Result<Vec<ArrayRef>, OperatorError> {
        let columns = self.pairs.columns(pairs)?;
        let ids = columns[0].as_primitive::<UInt32Type>().values().to_vec();
        let mut keys = groups.columns(&ids)?;
        keys.extend(columns.into_iter().skip(1));
        Ok(keys)
    }

    fn seen_columns(&self, pairs: &[u32]) -> Vec<ArrayRef> {
        match &self.seen {
            Seen::Ever(seen) => {
                vec![shared(UInt64Array::from_iter_values(pairs.iter().map(|pair| seen[*pair as usize])))]
            }
            Seen::Times(times) => {
                let of = |member: usize| pairs.iter().map(move |pair| self.times(times, *pair)[member]);
                (0..self.members.len()).map(|member| shared(Int64Array::from_iter_values(of(member)))).collect()
            }
        }
    }

    /// Takes saved pairs in, of groups that are there.
    pub(in crate::aggregate) fn load(&mut self, saved: Vec<Delta>, groups: &KeyTable) -> Result<(), OperatorError> {
        for delta in saved.iter().filter(|delta| !delta.is_empty()) {
            let keys = saved_keys(groups, &delta.rows)?;
            let mut ids = Vec::new();
            groups.lookup(&keys, delta.len(), &mut ids)?;
            if ids.contains(&NO_KEY) {
                return Err(wrong("arguments of a group that is not there"));
            }
            let (args, seen) = delta.rows.columns()[keys.len()..]
                .split_at_checked(self.args.len())
                .ok_or_else(|| wrong("arguments have too few columns"))?;
            self.load_pairs(&ids, args, seen)?;
        }
        self.changes.restart();
        Ok(())
    }

    fn load_pairs(&mut self, groups: &[u32], args: &[ArrayRef], saved: &[ArrayRef]) -> Result<(), OperatorError> {
        let pairs = self.find_pairs(groups, args)?;
        let width = self.members.len();
        for (row, pair) in pairs.iter().enumerate() {
            let pair = *pair as usize;
            let mut occurs = 0;
            match &mut self.seen {
                Seen::Ever(seen) => {
                    occurs = numbers::<UInt64Type>(saved, 0)?.value(row);
                    seen[pair] = occurs;
                }
                Seen::Times(times) => {
                    for member in 0..width {
                        let count = numbers::<Int64Type>(saved, member)?.value(row);
                        times[pair * (width + 1) + member] = count;
                        occurs |= u64::from(count > 0) << member;
                    }
                }
            }
            for member in bits(occurs) {
                let member =
                    self.members.get_mut(member).ok_or_else(|| wrong("arguments of more calls than planned"))?;
                member.rows.push(row as u32);
                member.signs.push(1);
            }
        }
        self.tell_members(groups, false, args)
    }
}
