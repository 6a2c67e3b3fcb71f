//! The rows of all sessions in the order of time, for input that takes rows back and for aggregates
//! that cannot be merged: where an epoch changes the bounds of sessions, they are cut anew from it.

use tidemill_plan::OrderBy;

use arrow::array::RecordBatch;
use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use tidemill_delta::Delta;

use super::timeline::{Snapshot, Timeline};
use super::{Timed, Turn};
use crate::OperatorError;
use crate::kept_rows::KeptRows;
use crate::ordered_rows::{Comparison, Entry, OrderedRows};
use crate::row_order::{RowOrder, time_of_prefix, time_prefix};

/// All that a prefix holds after the time.
const AFTER_TIME: u128 = (1 << 56) - 1;

pub(super) struct History {
    gap: i64,
    order: RowOrder,
    kept: KeptRows,
    keys: Vec<OrderedRows>,
    /// Rows to release at the end of the epoch.
    dead: Vec<u32>,
}

/// What an epoch's rows mean for the sessions: rows to add to their states.
pub(super) struct Rewriting {
    pub(super) turn: Turn,
    pub(super) rows: Vec<u32>,
    pub(super) weights: Vec<i64>,
    pub(super) sessions: Vec<u32>,
}

/// A changed row of a key. Sorting puts a key's changes together, in the order of time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Changed {
    key: u32,
    time: i64,
    row: u32,
    weight: i64,
}

impl History {
    pub(super) fn new(schema: &SchemaRef, time: usize, gap: i64) -> Result<Self, OperatorError> {
        let by_time = OrderBy { column: time, options: SortOptions::default() };
        Ok(History {
            gap,
            order: RowOrder::new(schema, &[by_time])?,
            kept: KeptRows::new(schema.clone()),
            keys: Vec::new(),
            dead: Vec::new(),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    pub(super) fn bytes(&self) -> usize {
        let lists: usize = self.keys.iter().map(|rows| rows.bytes() + size_of::<OrderedRows>()).sum();
        self.kept.bytes() + lists
    }

    /// Whole rows by their numbers.
    pub(super) fn rows(&self, ids: &[u32]) -> Result<RecordBatch, OperatorError> {
        Ok(self.kept.gather(ids)?)
    }

    /// All rows, key by key, in the order of time.
    pub(super) fn all(&self) -> Result<Delta, OperatorError> {
        Ok(self.kept.weighted(self.keys.iter())?)
    }

    /// Releases what the epoch took back.
    pub(super) fn clean(&mut self) -> Result<(), OperatorError> {
        self.kept.release(&self.dead);
        self.dead.clear();
        Ok(self.kept.tidy()?)
    }

    /// Forgets the rows of a session.
    pub(super) fn forget(&mut self, session: &Snapshot) {
        let range = time_prefix(session.first)..=time_prefix(session.last) | AFTER_TIME;
        self.keys[session.key as usize].remove_range(range, &mut self.dead);
    }

    /// Takes an epoch's rows in and cuts the sessions they touch anew.
    pub(super) fn rewrite(&mut self, timed: Timed, timeline: &mut Timeline) -> Result<Rewriting, OperatorError> {
        let changed = self.take_in(timed)?;
        let mut keys: Vec<u32> = changed.iter().map(|c| c.key).collect();
        keys.dedup();
        let mut out = Rewriting { turn: Turn::default(), rows: Vec::new(), weights: Vec::new(), sessions: Vec::new() };
        let mut rest = &changed[..];
        while !rest.is_empty() {
            let (region, old) = self.region(rest, timeline);
            self.cut(&rest[..region], &old, timeline, &mut out);
            rest = &rest[region..];
        }
        out.turn = Turn { keys, ..timeline.turn() };
        Ok(out)
    }

    fn take_in(&mut self, timed: Timed) -> Result<Vec<Changed>, OperatorError> {
        let Timed { rows, keys, times } = timed;
        let prefixes = self.order.prefixes(&rows.rows)?;
        let most = keys.iter().max().map_or(0, |key| *key as usize + 1);
        self.keys.resize_with(most.max(self.keys.len()), OrderedRows::default);
        let ids = self.kept.append(rows.rows.clone());
        let with = Comparison { order: &self.order, rows: &self.kept };
        let mut changed = Vec::with_capacity(ids.len());
        for (i, row) in ids.into_iter().enumerate() {
            let (key, weight) = (keys[i], rows.weight(i));
            self.keys[key as usize].add(Entry { prefix: prefixes[i], weight, row }, with, &mut self.dead);
            changed.push(Changed { key, time: times[i], row, weight });
        }
        changed.sort_unstable();
        Ok(changed)
    }

    /// How many of the changes, which are in order, belong to one stretch of touching sessions, and the
    /// sessions of it as they are.
    fn region(&self, changed: &[Changed], timeline: &Timeline) -> (usize, Vec<Snapshot>) {
        let Changed { key, time: from, .. } = changed[0];
        let mut end = from;
        let mut count = 0;
        loop {
            let more = changed[count..].iter().take_while(|c| c.key == key && c.time <= end.saturating_add(self.gap));
            let (more, to) = more.fold((0, end), |(n, to), c| (n + 1, to.max(c.time)));
            let old = timeline.touching(key, from, to);
            let reach = old.last().map_or(to, |s| to.max(s.last));
            count += more;
            if reach == end && count > 0 {
                return (count, old);
            }
            end = reach;
            if more == 0 && count > 0 {
                return (count, old);
            }
        }
    }

    /// Replaces the sessions of a stretch by those that its rows make now.
    fn cut(&self, changed: &[Changed], old: &[Snapshot], timeline: &mut Timeline, out: &mut Rewriting) {
        let key = changed[0].key;
        let rows = &self.keys[key as usize];
        assert!(!rows.is_broken(), "a row was taken back that was not there");
        let (low, high) = (changed[0].time, changed[changed.len() - 1].time);
        let from = old.first().map_or(low, |s| low.min(s.first));
        let to = old.last().map_or(high, |s| high.max(s.last));
        let pieces = match self.may_split(rows, changed, from, to) {
            true => self.pieces(rows, from, to),
            false => ends(rows, from, to).into_iter().collect(),
        };
        if let ([before], &[(first, last)]) = (old, &pieces[..])
            && last >= before.last
        {
            // The usual case: one session, to whose states the changes can be added.
            timeline.touch(before.session);
            timeline.reshape(before.session, first, last);
            return out.extend(before.session, changed.iter().map(|c| (c.row, c.weight)));
        }
        old.iter().for_each(|s| timeline.end(s.session));
        for (first, last) in pieces {
            let session = timeline.create(key, first, last);
            let inside = rows.iter_from(time_prefix(first)).take_while(|e| time_of_prefix(e.prefix) <= last);
            out.extend(session, inside.map(|e| (e.row, e.weight)));
        }
    }

    /// Whether some row that went leaves a gap between two that are still there. A stretch was one chain of rows
    /// at most the gap apart before rows went, so that it is one session unless this is so.
    fn may_split(&self, rows: &OrderedRows, changed: &[Changed], from: i64, to: i64) -> bool {
        let gone = changed.iter().filter(|c| c.weight < 0);
        gone.map(|c| rows.around(time_prefix(c.time))).any(|neighbours| match neighbours {
            (Some(before), Some(after)) => {
                let (before, after) = (time_of_prefix(before.prefix), time_of_prefix(after.prefix));
                before >= from && after <= to && after - before > self.gap
            }
            _ => false,
        })
    }

    /// The first and last times of the sessions that the rows between two times make.
    fn pieces(&self, rows: &OrderedRows, from: i64, to: i64) -> Vec<(i64, i64)> {
        let mut pieces: Vec<(i64, i64)> = Vec::new();
        for entry in rows.iter_from(time_prefix(from)) {
            let time = time_of_prefix(entry.prefix);
            if time > to {
                break;
            }
            match pieces.last_mut() {
                Some((_, last)) if time - *last <= self.gap => *last = time,
                _ => pieces.push((time, time)),
            }
        }
        pieces
    }
}

/// The first and last times of the rows between two times.
fn ends(rows: &OrderedRows, from: i64, to: i64) -> Option<(i64, i64)> {
    let first = time_of_prefix(rows.around(time_prefix(from)).1?.prefix);
    let last = time_of_prefix(rows.around((time_prefix(to) | AFTER_TIME) + 1).0?.prefix);
    (first <= to && last >= from).then_some((first, last))
}

impl Rewriting {
    fn extend(&mut self, session: u32, rows: impl Iterator<Item = (u32, i64)>) {
        for (row, weight) in rows {
            self.rows.push(row);
            self.weights.push(weight);
            self.sessions.push(session);
        }
    }
}
