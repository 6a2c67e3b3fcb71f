//! Sessions as entries, where no rows are kept: the key, the first and the last time, and the states. A session is
//! known by its key and its first time; where that changes, as sessions grow and merge, it is another one.

use std::cmp::Reverse;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;
use tidemill_delta::Delta;
use tidemill_state::NO_KEY;

use super::timeline::Snapshot;
use super::{Session, Turn};
use crate::event_time::{raw_times, times_from_raw};
use crate::saved::{Gone, rows_of, saved_keys, take_all, wrong};
use crate::{Entries, EntryShape, OperatorError};

/// What has changed since the last save; nothing is noted before the first one.
#[derive(Default)]
pub(super) struct Changes {
    on: bool,
    /// Sessions, maybe gone since.
    sessions: Vec<u32>,
    gone: Gone,
}

impl Changes {
    pub(super) fn bytes(&self) -> usize {
        self.sessions.capacity() * 4 + self.gone.bytes()
    }

    fn restart(&mut self) {
        *self = Changes { on: true, ..Changes::default() };
    }
}

impl Session {
    pub(super) fn shapes(&self) -> Vec<EntryShape> {
        match self.history {
            Some(_) => Vec::new(),
            None => vec![EntryShape { key: self.keys.len() + 1, input_columns: self.keys.clone() }],
        }
    }

    /// Notes what an epoch has changed, while the sessions that ended are still known.
    pub(super) fn note_changes(&mut self, turn: &Turn) -> Result<(), OperatorError> {
        if !self.changes.on {
            return Ok(());
        }
        for snapshot in &turn.new {
            if self.timeline.wants_saving(snapshot.session) {
                self.changes.sessions.push(snapshot.session);
            }
        }
        let moved = |old: &Snapshot| self.timeline.snapshot(old.session).is_none_or(|new| new.first != old.first);
        let moved: Vec<Snapshot> = turn.old.iter().copied().filter(moved).collect();
        self.note_gone(&moved)
    }

    /// Remembers sessions, as they were saved, that are about to be forgotten.
    pub(super) fn note_gone(&mut self, sessions: &[Snapshot]) -> Result<(), OperatorError> {
        if !self.changes.on {
            return Ok(());
        }
        let mut saved = sessions.to_vec();
        saved.retain(|snapshot| self.timeline.leaves_saved(snapshot.session));
        let columns = self.key_columns(&saved)?;
        self.changes.gone.push(columns, saved.len());
        Ok(())
    }

    fn key_columns(&self, sessions: &[Snapshot]) -> Result<Vec<ArrayRef>, OperatorError> {
        let mut columns = self.table.columns(&sessions.iter().map(|s| s.key).collect::<Vec<_>>())?;
        columns.push(times_from_raw(sessions.iter().map(|s| s.first).collect(), &self.time_type)?);
        Ok(columns)
    }

    /// The sessions that have changed since the last save, or all.
    pub(super) fn save(&mut self, all: bool) -> Result<Vec<Entries>, OperatorError> {
        if self.history.is_some() {
            return Ok(Vec::new());
        }
        let all = all || !self.changes.on;
        let mut ids = std::mem::take(&mut self.changes.sessions);
        if all {
            ids = (0..self.timeline.capacity() as u32).collect();
        }
        ids.sort_unstable();
        ids.dedup();
        let sessions: Vec<Snapshot> = ids.iter().filter_map(|id| self.timeline.snapshot(*id)).collect();
        let mut columns = self.key_columns(&sessions)?;
        let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
        columns.push(times_from_raw(sessions.iter().map(|s| s.last).collect(), &self.time_type)?);
        columns.extend(self.calls.save(&sessions.iter().map(|s| s.session).collect::<Vec<_>>())?);
        let gone = if all { Gone::default().columns(&types)? } else { self.gone(&types)? };
        sessions.iter().for_each(|snapshot| self.timeline.set_saved(snapshot.session));
        self.changes.restart();
        Ok(vec![Entries { rows: rows_of(columns, sessions.len()), gone: rows_of(gone.0, gone.1) }])
    }

    /// The keys and first times at which there are no sessions any more, and how many.
    fn gone(&mut self, types: &[DataType]) -> Result<(Vec<ArrayRef>, usize), OperatorError> {
        let (columns, len) = self.changes.gone.columns(types)?;
        let (mut keys, width) = (Vec::new(), self.keys.len());
        self.table.lookup(&columns[..width], len, &mut keys)?;
        let firsts = raw_times(&columns[width])?;
        let there = |i: usize| keys[i] != NO_KEY && self.timeline.begins(keys[i], firsts[i]);
        let places: Vec<u32> = (0..len as u32).filter(|i| !there(*i as usize)).collect();
        let left = places.len();
        Ok((take_all(&columns, places)?, left))
    }

    pub(super) fn load_entries(&mut self, saved: &mut [Vec<Delta>]) -> Result<(), OperatorError> {
        let [saved] = saved else { return Err(wrong("sessions are one kind of entries")) };
        for delta in std::mem::take(saved).iter().filter(|delta| !delta.is_empty()) {
            self.load_sessions(delta)?;
        }
        self.changes.restart();
        Ok(())
    }

    fn load_sessions(&mut self, delta: &Delta) -> Result<(), OperatorError> {
        let columns = saved_keys(&self.table, &delta.rows)?;
        let mut keys = Vec::new();
        self.table.intern(&columns, delta.len(), &mut keys, |_| ())?;
        self.timeline.make_room(self.table.capacity());
        let rest = &delta.rows.columns()[columns.len()..];
        let [first, last, states @ ..] = rest else { return Err(wrong("a session has too few columns")) };
        if [first, last].iter().any(|time| *time.data_type() != self.time_type || time.null_count() > 0) {
            return Err(wrong("a session has other times"));
        }
        let (firsts, lasts) = (raw_times(first)?, raw_times(last)?);
        let mut sessions = Vec::with_capacity(delta.len());
        for (key, (first, last)) in keys.into_iter().zip(firsts.iter().copied().zip(lasts.iter().copied())) {
            let session = self.timeline.create(key, first, last);
            self.timeline.set_saved(session);
            if self.closes.is_some() && self.timeline.wants_closing(session) {
                self.closing.push(Reverse((self.end_of(last), session)));
            }
            sessions.push(session);
        }
        self.timeline.end_turn();
        self.calls.grow(self.timeline.capacity());
        self.calls.load(&sessions, states)
    }
}
