//! Groups per key and session: rows whose times are at most the gap apart belong together.
//!
//! Input: one, any changes. Rule: per key, the rows' times in order are cut wherever two neighbours are
//! more than `gap` apart; each piece is a session, from its first time to its last plus the gap. An epoch
//! gives the net change of the sessions it touched: a session that grows, merges or splits is taken back
//! and comes anew. With `on_close` a session comes once, when it is final: when the watermark rules out
//! that a row at its end, which would still belong to it, can come. A row whose time is NULL is in no session;
//! one so near the end of time that its session has no end goes to the error side.
//!
//! State: sessions and the states of their aggregates. Where rows can be taken back, or an aggregate
//! cannot be merged from its parts, also the rows, in the order of time ([`history`]). Released when rows
//! are taken back, and once the watermark says that a session is final.
//!
//! Saved: the rows where they are kept, else the sessions that have changed, as entries ([`saved`]).

mod history;
mod saved;
mod timeline;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use tidemill_delta::{Delta, Micros, batch, relaxed};
use tidemill_plan::{Bound, SessionPlan};
use tidemill_state::KeyTable;

use self::saved::Changes;
use crate::aggregate::Calls;
use crate::event_time::{out_of_range, raw_times, span_in, times_from_raw, to_micros, unit_of};
use crate::row_order::same_values;
use crate::saved::{all_fitting, wrong};
use crate::{Entries, EntryShape, Keeps, Operator, OperatorError, RowError, StateSize, StepCx};
use history::History;
use timeline::{Snapshot, Timeline};

/// See the module.
pub struct Session {
    keys: Vec<usize>,
    time: usize,
    time_type: DataType,
    unit: TimeUnit,
    /// In the unit of the time column.
    gap: i64,
    gap_micros: Micros,
    append_only: bool,
    closes: Option<Bound>,
    on_close: bool,
    schema: SchemaRef,
    input_schema: SchemaRef,
    table: KeyTable,
    timeline: Timeline,
    calls: Calls,
    /// The rows, where the states alone do not do.
    history: Option<History>,
    /// When each session is final at the earliest; an entry may be behind its session.
    closing: BinaryHeap<Reverse<(Micros, u32)>>,
    changes: Changes,
}

/// An epoch's rows that have a session: their keys and times.
struct Timed {
    rows: Delta,
    keys: Vec<u32>,
    times: Vec<i64>,
}

/// What an epoch does to the sessions.
#[derive(Default)]
struct Turn {
    /// The touched sessions that were there before, as they were.
    old: Vec<Snapshot>,
    /// The touched sessions that are there now.
    new: Vec<Snapshot>,
    /// For each of these the place in `old` of the session that it may equal.
    twins: Vec<Option<u32>>,
    /// Keys that may have lost their last session, each once.
    keys: Vec<u32>,
}

impl Session {
    /// An operator without rows.
    pub fn new(
        plan: &SessionPlan,
        input_schemas: &[SchemaRef],
        output_schema: SchemaRef,
    ) -> Result<Self, OperatorError> {
        let input_schema = relaxed(&input_schemas[0]);
        let time_type = input_schema.field(plan.time).data_type().clone();
        let unit = unit_of(&time_type)?;
        let gap = span_in(unit, plan.gap)?;
        if gap <= 0 || gap > i64::MAX / 4 {
            return Err(OperatorError("the gap of a session must be positive and not too large".into()));
        }
        if plan.on_close && plan.closes.is_none() {
            return Err(OperatorError("sessions without a watermark never close".into()));
        }
        let types = plan.keys.iter().map(|k| input_schema.field(*k).data_type().clone()).collect();
        let calls = Calls::new(&plan.calls, &input_schema, plan.append_only)?;
        let light = plan.append_only && calls.can_merge();
        let history = if light { None } else { Some(History::new(&input_schema, plan.time, gap)?) };
        Ok(Session {
            keys: plan.keys.clone(),
            time: plan.time,
            time_type,
            unit,
            gap,
            gap_micros: plan.gap,
            append_only: plan.append_only,
            closes: plan.closes,
            on_close: plan.on_close,
            schema: relaxed(&output_schema),
            input_schema,
            table: KeyTable::new(types)?,
            timeline: Timeline::new(gap),
            calls,
            history,
            closing: BinaryHeap::new(),
            changes: Changes::default(),
        })
    }

    /// The epoch's rows that have a session, as one delta.
    fn timed(&mut self, deltas: Vec<Delta>, errors: &mut Vec<RowError>) -> Result<Timed, OperatorError> {
        let rows = Delta::concat(&self.input_schema, &deltas)?;
        assert!(!self.append_only || !rows.has_retractions(), "a row was taken back from an append-only input");
        let column = rows.rows.column(self.time);
        let times = raw_times(column)?;
        let (low, high) = (i64::MIN + 2 * self.gap, i64::MAX - 2 * self.gap);
        let mut kept: Vec<u32> = Vec::new();
        for (i, time) in times.iter().enumerate() {
            if column.is_null(i) {
                continue;
            }
            if *time < low || *time > high {
                errors.push(out_of_range(&rows.rows, i, rows.weight(i), "session"));
                continue;
            }
            kept.push(i as u32);
        }
        let rows = if kept.len() == rows.len() { rows } else { rows.take(&UInt32Array::from(kept))? };
        let times = raw_times(rows.rows.column(self.time))?.to_vec();
        let columns: Vec<ArrayRef> = self.keys.iter().map(|c| rows.rows.column(*c).clone()).collect();
        let mut keys = Vec::with_capacity(rows.len());
        self.table.intern(&columns, rows.len(), &mut keys, |_| ())?;
        self.timeline.make_room(self.table.capacity());
        Ok(Timed { rows, keys, times })
    }

    /// Works rows into the states alone. Gives the sessions as they were, with their values.
    fn merge_in(&mut self, timed: &Timed) -> Result<(Turn, Vec<ArrayRef>), OperatorError> {
        let mut sessions: Vec<u32> =
            timed.keys.iter().zip(&timed.times).map(|(key, time)| self.timeline.place(*key, *time)).collect();
        self.calls.grow(self.timeline.capacity());
        let turn = self.timeline.turn();
        let before = self.values_before(&turn)?;
        let merges = self.timeline.merges();
        if !merges.is_empty() {
            self.calls.merge(&merges)?;
            sessions.iter_mut().for_each(|session| *session = self.timeline.resolve(*session));
        }
        let diffs = timed.rows.diff.as_ref().map(|d| &d.values()[..]);
        self.calls.update(&sessions, diffs, &timed.rows.rows)?;
        Ok((turn, before))
    }

    /// Works rows into the history and cuts the touched parts of it anew.
    fn rewrite(&mut self, timed: Timed) -> Result<(Turn, Vec<ArrayRef>), OperatorError> {
        let history = self.history.as_mut().expect("only called with a history");
        let rewriting = history.rewrite(timed, &mut self.timeline)?;
        self.calls.grow(self.timeline.capacity());
        let before = self.values_before(&rewriting.turn)?;
        let history = self.history.as_mut().expect("only called with a history");
        let rows = history.rows(&rewriting.rows)?;
        self.calls.update(&rewriting.sessions, Some(&rewriting.weights), &rows)?;
        history.clean()?;
        Ok((rewriting.turn, before))
    }

    fn values_before(&self, turn: &Turn) -> Result<Vec<ArrayRef>, OperatorError> {
        if self.on_close {
            return Ok(Vec::new());
        }
        let ids: Vec<u32> = turn.old.iter().map(|s| s.session).collect();
        // Errors were reported when the sessions came out.
        self.calls.values(&ids, &mut Vec::new())
    }

    /// Output rows of sessions as they were or are.
    fn output(&self, sessions: &[Snapshot], values: Vec<ArrayRef>) -> Result<RecordBatch, OperatorError> {
        let keys: Vec<u32> = sessions.iter().map(|s| s.key).collect();
        let mut columns = self.table.columns(&keys)?;
        columns.push(times_from_raw(sessions.iter().map(|s| s.first).collect(), &self.time_type)?);
        columns.push(times_from_raw(sessions.iter().map(|s| s.last + self.gap).collect(), &self.time_type)?);
        columns.extend(values);
        Ok(batch(self.schema.clone(), columns, sessions.len()))
    }

    /// The difference between the sessions as they were and as they are.
    fn changes(
        &self,
        turn: &Turn,
        before: Vec<ArrayRef>,
        errors: &mut Vec<RowError>,
    ) -> Result<Option<Delta>, OperatorError> {
        let ids: Vec<u32> = turn.new.iter().map(|s| s.session).collect();
        let new = self.output(&turn.new, self.calls.values(&ids, errors)?)?;
        let old = self.output(&turn.old, before)?;
        let (keep_old, keep_new) = unequal(turn, &old, &new);
        if keep_old.is_empty() && keep_new.is_empty() {
            return Ok(None);
        }
        let weights = (0..keep_old.len() + keep_new.len()).map(|i| if i < keep_old.len() { -1 } else { 1 });
        let weights = Int64Array::from_iter_values(weights);
        let old = take_record_batch(&old, &UInt32Array::from(keep_old))?;
        let new = take_record_batch(&new, &UInt32Array::from(keep_new))?;
        Ok(Some(Delta::new(concat_batches(&self.schema, [&old, &new])?, weights)))
    }

    /// Notes when new sessions will be final, and empties those that are gone.
    fn settle(&mut self, turn: &Turn) -> Result<(), OperatorError> {
        self.note_changes(turn)?;
        for snapshot in &turn.new {
            if self.closes.is_some() && self.timeline.wants_closing(snapshot.session) {
                self.closing.push(Reverse((self.end_of(snapshot.last), snapshot.session)));
            }
        }
        for session in self.timeline.end_turn() {
            self.calls.release(session);
            // Those that still wait to become final are recycled when their time has come.
            if !self.timeline.is_closing(session) {
                self.timeline.recycle(session);
            }
        }
        turn.keys.iter().for_each(|key| self.forget_key_if_empty(*key));
        Ok(())
    }

    fn forget_key_if_empty(&mut self, key: u32) {
        if self.timeline.is_gone(key) {
            self.table.release(key);
        }
    }

    /// A session's end in microseconds.
    fn end_of(&self, last: i64) -> Micros {
        to_micros(last, self.unit).saturating_add(self.gap_micros)
    }

    /// Emits (with `on_close`) and forgets the sessions that are final.
    fn close(&mut self, watermark: Micros, errors: &mut Vec<RowError>) -> Result<Option<Delta>, OperatorError> {
        let mut closed = self.take_final(watermark);
        if closed.is_empty() {
            return Ok(None);
        }
        let out = if self.on_close { Some(self.final_rows(&mut closed, errors)?) } else { None };
        self.forget(closed)?;
        Ok(out)
    }

    /// The sessions that are final, which are not waited for any more.
    fn take_final(&mut self, watermark: Micros) -> Vec<Snapshot> {
        let mut closed = Vec::new();
        let Some(bound) = self.closes else { return closed };
        while let Some(Reverse((end, session))) = self.closing.peek().copied()
            && bound.is_final(end, watermark)
        {
            self.closing.pop();
            let Some(snapshot) = self.timeline.snapshot(session) else {
                self.timeline.recycle(session);
                continue;
            };
            let end = self.end_of(snapshot.last);
            if bound.is_final(end, watermark) {
                closed.push(snapshot);
            } else {
                self.closing.push(Reverse((end, session)));
            }
        }
        closed
    }

    fn final_rows(&self, closed: &mut [Snapshot], errors: &mut Vec<RowError>) -> Result<Delta, OperatorError> {
        let ids: Vec<u32> = closed.iter().map(|s| s.session).collect();
        Ok(Delta::inserts(self.output(closed, self.calls.values(&ids, errors)?)?))
    }

    fn forget(&mut self, closed: Vec<Snapshot>) -> Result<(), OperatorError> {
        self.note_gone(&closed)?;
        for snapshot in closed {
            self.timeline.remove(snapshot.session);
            self.timeline.recycle(snapshot.session);
            self.calls.release(snapshot.session);
            if let Some(history) = &mut self.history {
                history.forget(&snapshot);
            }
            self.forget_key_if_empty(snapshot.key);
        }
        match &mut self.history {
            Some(history) => history.clean(),
            None => Ok(()),
        }
    }
}

/// The rows of each side that the other one does not have.
fn unequal(turn: &Turn, old: &RecordBatch, new: &RecordBatch) -> (Vec<u32>, Vec<u32>) {
    let mut equal = vec![false; turn.old.len()];
    let mut keep_new = Vec::with_capacity(turn.new.len());
    for (j, twin) in turn.twins.iter().enumerate() {
        match twin.map(|i| i as usize).filter(|i| same_values(old, *i, new, j)) {
            Some(i) => equal[i] = true,
            None => keep_new.push(j as u32),
        }
    }
    let keep_old = (0..turn.old.len() as u32).filter(|i| !equal[*i as usize]).collect();
    (keep_old, keep_new)
}

impl Operator for Session {
    fn step(&mut self, cx: &mut StepCx<'_>, inputs: &mut [Vec<Delta>]) -> Result<Vec<Delta>, OperatorError> {
        let deltas: Vec<Delta> = inputs[0].drain(..).filter(|delta| !delta.is_empty()).collect();
        let mut out = Vec::new();
        if !deltas.is_empty() {
            let timed = self.timed(deltas, cx.errors)?;
            let (turn, before) = match self.history {
                None => self.merge_in(&timed)?,
                Some(_) => self.rewrite(timed)?,
            };
            if !self.on_close {
                out.extend(self.changes(&turn, before, cx.errors)?);
            }
            self.settle(&turn)?;
        }
        out.extend(self.close(cx.watermark, cx.errors)?);
        Ok(out)
    }

    fn due(&self, watermark: Micros) -> bool {
        match (self.closes, self.closing.peek()) {
            (Some(bound), Some(Reverse((end, _)))) => bound.is_final(*end, watermark),
            _ => false,
        }
    }

    fn recomputations(&self) -> u64 {
        self.calls.recomputations()
    }

    fn state(&self) -> StateSize {
        let (rows, kept) = self.history.as_ref().map_or((self.timeline.len(), 0), |h| (h.len(), h.bytes()));
        let sessions = self.timeline.bytes() + self.calls.bytes() + self.closing.capacity() * 16;
        StateSize { rows, bytes: sessions + kept + self.table.bytes() + self.changes.bytes() }
    }

    fn keeps(&self) -> Keeps {
        if self.history.is_some() { Keeps::Rows } else { Keeps::Entries }
    }

    fn rows(&self) -> Result<Vec<Delta>, OperatorError> {
        self.history.iter().map(History::all).collect()
    }

    fn entry_shapes(&self) -> Vec<EntryShape> {
        self.shapes()
    }

    fn entries(&mut self, all: bool) -> Result<Vec<Entries>, OperatorError> {
        self.save(all)
    }

    fn load(&mut self, cx: &mut StepCx<'_>, saved: &mut [Vec<Delta>]) -> Result<(), OperatorError> {
        if self.history.is_none() {
            return self.load_entries(saved);
        }
        let [saved] = saved else { return Err(wrong("sessions have one input")) };
        let timed = self.timed(all_fitting(&self.input_schema, saved)?, &mut Vec::new())?;
        let (turn, _) = self.rewrite(timed)?;
        self.settle(&turn)?;
        let closed = self.take_final(cx.watermark);
        self.forget(closed)
    }
}
