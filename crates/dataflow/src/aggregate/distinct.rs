//! `DISTINCT` inside aggregates: calls over the same arguments share one set of distinct values.
//!
//! A group's distinct arguments are kept once for all calls that want them. Of each is known for which of
//! the calls (the set's members) it occurs: a bit each while nothing is ever taken back, else how often. A
//! member's own states see an argument when it occurs for the first time, and again when it is gone. So what is
//! saved are the pairs ([`saved`]): the members' states follow from them.

mod saved;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};
use tidemill_delta::one_zero;
use tidemill_state::KeyTable;

use self::saved::Changes;
use super::shared;
use super::states::GroupStates;
use crate::OperatorError;

const NONE: u32 = u32::MAX;

/// One bit each in a number.
const MEMBERS: usize = 64;

/// The distinct arguments of all groups; see the module.
pub(super) struct DistinctSet {
    args: Vec<usize>,
    /// (group, arguments) pairs.
    pairs: KeyTable,
    seen: Seen,
    /// The pairs of a group as a chain, so that a group can be emptied.
    next: Vec<u32>,
    first: Vec<u32>,
    members: Vec<Member>,
    changes: Changes,
}

/// By pair: for which members it occurs.
enum Seen {
    /// A bit per member.
    Ever(Vec<u64>),
    /// A count per pair and member, and behind each pair's counts the save since which it has changed.
    Times(Vec<i64>),
}

struct Member {
    filter: Option<usize>,
    states: Box<dyn GroupStates>,
    /// The rows of a batch in which an argument comes (+1) or goes (-1); kept to reuse their memory.
    rows: Vec<u32>,
    signs: Vec<i64>,
}

impl DistinctSet {
    pub(super) fn new(args: &[usize], input: &SchemaRef, append_only: bool) -> Result<Self, OperatorError> {
        let types = args.iter().map(|a| input.field(*a).data_type().clone());
        Ok(DistinctSet {
            args: args.to_vec(),
            pairs: KeyTable::new(std::iter::once(DataType::UInt32).chain(types).collect())?,
            seen: if append_only { Seen::Ever(Vec::new()) } else { Seen::Times(Vec::new()) },
            next: Vec::new(),
            first: Vec::new(),
            members: Vec::new(),
            changes: Changes::default(),
        })
    }

    /// The input columns whose distinct values it keeps.
    pub(super) fn args(&self) -> &[usize] {
        &self.args
    }

    pub(super) fn has_room(&self) -> bool {
        self.members.len() < MEMBERS
    }

    /// Adds a call, of which only rows count where `filter` is true; its number.
    pub(super) fn add_member(&mut self, filter: Option<usize>, states: Box<dyn GroupStates>) -> usize {
        self.members.push(Member { filter, states, rows: Vec::new(), signs: Vec::new() });
        self.members.len() - 1
    }

    pub(super) fn member(&self, member: usize) -> &dyn GroupStates {
        self.members[member].states.as_ref()
    }

    pub(super) fn grow(&mut self, len: usize) {
        self.first.resize(len.max(self.first.len()), NONE);
        self.members.iter_mut().for_each(|m| m.states.grow(len));
    }

    pub(super) fn update(
        &mut self,
        groups: &[u32],
        diffs: Option<&[i64]>,
        rows: &RecordBatch,
    ) -> Result<(), OperatorError> {
        let args: Vec<ArrayRef> = self.args.iter().map(|a| rows.column(*a).clone()).collect();
        // What a member sees when an argument comes, when it goes and when it is loaded must be the same.
        let args: Vec<ArrayRef> = args.iter().map(one_zero).collect();
        let wanted = self.wanted(rows);
        if wanted.contains(&0) {
            // What no member wants is not kept.
            let some: Vec<u32> = (0..groups.len() as u32).filter(|i| wanted[*i as usize] != 0).collect();
            let groups: Vec<u32> = some.iter().map(|i| groups[*i as usize]).collect();
            let diffs: Option<Vec<i64>> = diffs.map(|d| some.iter().map(|i| d[*i as usize]).collect());
            let wanted: Vec<u64> = some.iter().map(|i| wanted[*i as usize]).collect();
            let some = UInt32Array::from(some);
            let args = args.iter().map(|a| take(a, &some, None)).collect::<Result<Vec<_>, _>>()?;
            return self.add(&groups, diffs.as_deref(), &wanted, &args);
        }
        self.add(groups, diffs, &wanted, &args)
    }

    /// By row: a bit for each member that wants it.
    fn wanted(&self, rows: &RecordBatch) -> Vec<u64> {
        let always = self.members.iter().enumerate().filter(|(_, m)| m.filter.is_none());
        let mut wanted = vec![always.fold(0, |bits, (i, _)| bits | 1u64 << i); rows.num_rows()];
        for (i, member) in self.members.iter().enumerate() {
            let Some(filter) = member.filter else { continue };
            let condition = rows.column(filter).as_boolean();
            let mut set = |truth: &BooleanBuffer| truth.set_indices().for_each(|row| wanted[row] |= 1 << i);
            match condition.nulls() {
                None => set(condition.values()),
                Some(nulls) => set(&(condition.values() & nulls.inner())),
            }
        }
        wanted
    }

    fn add(
        &mut self,
        groups: &[u32],
        diffs: Option<&[i64]>,
        wanted: &[u64],
        args: &[ArrayRef],
    ) -> Result<(), OperatorError> {
        let pairs = self.find_pairs(groups, args)?;
        let (width, members) = (self.members.len(), &mut self.members);
        let changes = &mut self.changes;
        let mut report = |member: usize, row: usize, sign: i64| {
            members[member].rows.push(row as u32);
            members[member].signs.push(sign);
        };
        match &mut self.seen {
            Seen::Ever(seen) => {
                for (row, (pair, wanted)) in pairs.iter().zip(wanted).enumerate() {
                    let seen = &mut seen[*pair as usize];
                    let new = wanted & !*seen;
                    *seen |= new;
                    if new != 0 {
                        changes.push(*pair);
                    }
                    bits(new).for_each(|member| report(member, row, 1));
                }
            }
            Seen::Times(times) => {
                for (row, (pair, wanted)) in pairs.iter().zip(wanted).enumerate() {
                    let diff = diffs.map_or(1, |d| d[row]);
                    let times = &mut times[*pair as usize * (width + 1)..][..=width];
                    if times[width] != changes.period() {
                        times[width] = changes.period();
                        changes.push(*pair);
                    }
                    for member in bits(*wanted) {
                        let times = &mut times[member];
                        let before = *times;
                        *times += diff;
                        if (before > 0) != (*times > 0) {
                            report(member, row, if *times > 0 { 1 } else { -1 });
                        }
                    }
                }
            }
        }
        self.tell_members(groups, diffs.is_some(), args)
    }

    /// The rows' pairs; new ones are put in their groups' chains.
    fn find_pairs(&mut self, groups: &[u32], args: &[ArrayRef]) -> Result<Vec<u32>, OperatorError> {
        let mut columns: Vec<ArrayRef> = vec![shared(UInt32Array::from(groups.to_vec()))];
        columns.extend(args.iter().cloned());
        let (mut pairs, mut added) = (Vec::new(), Vec::new());
        self.pairs.intern(&columns, groups.len(), &mut pairs, |pair| added.push(pair))?;
        if added.is_empty() {
            return Ok(pairs);
        }
        let capacity = self.pairs.capacity();
        self.next.resize(capacity, NONE);
        match &mut self.seen {
            Seen::Ever(seen) => seen.resize(capacity, 0),
            Seen::Times(times) => times.resize(capacity * (self.members.len() + 1), 0),
        }
        // New pairs are reported in the order of the first rows that have them.
        let mut new = added.iter().peekable();
        for (pair, group) in pairs.iter().zip(groups) {
            if new.next_if_eq(&pair).is_some() {
                self.next[*pair as usize] = std::mem::replace(&mut self.first[*group as usize], *pair);
            }
        }
        Ok(pairs)
    }

    fn tell_members(&mut self, groups: &[u32], may_go: bool, args: &[ArrayRef]) -> Result<(), OperatorError> {
        for member in self.members.iter_mut().filter(|m| !m.rows.is_empty()) {
            let groups: Vec<u32> = member.rows.iter().map(|i| groups[*i as usize]).collect();
            let rows = UInt32Array::from(std::mem::take(&mut member.rows));
            let args = args.iter().map(|a| take(a, &rows, None)).collect::<Result<Vec<_>, _>>()?;
            member.states.update(&groups, may_go.then_some(member.signs.as_slice()), &args)?;
            member.signs.clear();
        }
        Ok(())
    }

    /// Empties a group.
    pub(super) fn release(&mut self, group: u32) {
        let width = self.members.len();
        let mut pair = std::mem::replace(&mut self.first[group as usize], NONE);
        while pair != NONE {
            self.pairs.release(pair);
            let place = pair as usize;
            match &mut self.seen {
                Seen::Ever(seen) => seen[place] = 0,
                Seen::Times(times) => times[place * (width + 1)..][..width].fill(0),
            }
            pair = std::mem::replace(&mut self.next[place], NONE);
        }
        self.members.iter_mut().for_each(|m| m.states.release(group));
    }

    pub(super) fn bytes(&self) -> usize {
        let seen = match &self.seen {
            Seen::Ever(seen) => seen.capacity(),
            Seen::Times(times) => times.capacity(),
        };
        let members = self.members.iter().map(|m| m.states.bytes() + m.rows.capacity() * 12).sum::<usize>();
        let links = (self.next.capacity() + self.first.capacity()) * 4;
        self.pairs.bytes() + seen * 8 + links + members + self.changes.bytes()
    }
}

/// The numbers of the bits that are set.
fn bits(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (set != 0).then(|| set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(bit)
    })
}
