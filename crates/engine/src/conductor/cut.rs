//! Cutting an epoch: what goes in, in which order, under which watermarks.

use std::sync::Arc;

use tidemill_dataflow::{Begin, Command, Definition, Feed, Packet};
use tidemill_delta::{Delta, Epoch, Micros, NO_WATERMARK};
use tidemill_plan::{ColumnPath, RelationId};
use tidemill_sql::{OnConflict, Relation, RelationKind, SqlError};

use super::catch_up::CatchUp;
use super::sinks::end_dropped;
use super::{Conductor, Define, InFlight, Reply, Request, Waiting};
use crate::event_time::{Prepared, late_rows, split_late};
use crate::published::Shown;
use crate::side_table::bad_rows;
use crate::source::RunningSource;
use crate::table::{PrimaryKey, TableChange};

/// A batch at least this long is divided among the workers.
const DIVIDE: usize = 4096;

/// An epoch in the making.
#[derive(Default)]
struct Cut {
    begin: Begin,
    packets: Vec<(usize, Packet)>,
    writes: Vec<(RelationId, Delta)>,
    replies: Vec<Reply<Epoch>>,
    early: Vec<Reply<Epoch>>,
    live: Vec<RelationId>,
    tell: Vec<RelationId>,
    rows: u64,
}

impl Conductor {
    /// Begins an epoch if there is something to begin it with and room in flight.
    pub(super) fn cut(&mut self) -> bool {
        if self.in_flight.len() >= self.shared.config.epochs_in_flight.max(1) {
            return false;
        }
        let mut cut = Cut::default();
        self.cut_watermarks(&mut cut);
        for view in std::mem::take(&mut self.removals) {
            cut.begin.commands.push(Command::Remove(view));
        }
        self.take_rejected();
        for (relation, delta) in std::mem::take(&mut self.side_rows) {
            self.put(&mut cut, relation, None, delta, true);
        }
        cut.replies.append(&mut self.late_replies);
        cut.tell.append(&mut self.late_tell);
        self.cut_requests(&mut cut);
        self.cut_sources(&mut cut);
        self.cut_history(&mut cut);
        self.begin_epoch(cut)
    }

    fn begin_epoch(&mut self, cut: Cut) -> bool {
        let begins = !cut.begin.commands.is_empty() || !cut.begin.watermarks.is_empty();
        if !begins && cut.packets.is_empty() && cut.writes.is_empty() && cut.replies.is_empty() && cut.early.is_empty()
        {
            return false;
        }
        let epoch = self.next_epoch;
        self.next_epoch += 1;
        for reply in cut.early {
            let _ = reply.send(Ok(epoch));
        }
        self.in_flight.push_back(InFlight {
            epoch,
            began: self.shared.env.monotonic_nanos(),
            writes: cut.writes,
            watermarks: cut.begin.watermarks.clone(),
            replies: cut.replies,
            tell: cut.tell.into_iter().chain(cut.live.iter().copied()).collect(),
            live: cut.live,
            rows: cut.rows,
        });
        if let Some(loop_) = &self.loop_ {
            loop_.begin(Feed { epoch, begin: begins.then(|| Arc::new(cut.begin)), packets: cut.packets });
        }
        true
    }

    /// Puts the watermarks in force that the rows of the epochs before allow.
    fn cut_watermarks(&mut self, cut: &mut Cut) {
        for (id, source) in &self.sources {
            if source.relation.event_time.is_some() {
                self.reached.insert(*id, source.watermark());
            }
        }
        for (id, reached) in &self.reached {
            let now = self.in_force.entry(*id).or_insert(NO_WATERMARK);
            if *reached > *now {
                *now = *reached;
                cut.begin.watermarks.push((*id, *reached));
            }
        }
        if !cut.begin.watermarks.is_empty() {
            let mut stats = self.shared.stats.lock();
            for (id, at) in &cut.begin.watermarks {
                stats.counters(*id).watermark = Some(*at);
            }
        }
    }

    fn cut_requests(&mut self, cut: &mut Cut) {
        let limit = self.shared.config.max_epoch_rows as u64;
        while cut.rows < limit {
            let structural = matches!(self.queue.front(), Some(Request::Define(_) | Request::Drop { .. }));
            // A new view begins with the rows as of the epoch before: that one must be published.
            if structural && !self.in_flight.is_empty() {
                return;
            }
            let Some(request) = self.queue.pop_front() else { return };
            self.queued_rows = self.queued_rows.saturating_sub(super::rows_of(&request));
            match request {
                Request::Write { changes, reply } => self.cut_write(cut, changes, reply),
                Request::Ingest { table, rows, upsert, bad, wait, reply } => {
                    let done = self.cut_ingest(cut, table, rows, upsert, &bad);
                    match done {
                        Ok(()) if wait => cut.replies.push(reply),
                        Ok(()) => cut.early.push(reply),
                        Err(error) => {
                            let _ = reply.send(Err(error));
                        }
                    }
                }
                Request::Define(define) => self.define(cut, *define),
                Request::Drop { ids, reply } => {
                    let sinks = ids.iter().filter_map(|id| self.sinks.remove(id)).collect();
                    self.remove(cut, &ids);
                    end_dropped(sinks, reply);
                }
                Request::StartSources | Request::EndOfInput { .. } | Request::Wake | Request::Shutdown => {}
            }
        }
    }

    fn cut_write(&mut self, cut: &mut Cut, changes: Vec<(RelationId, TableChange)>, reply: Reply<Epoch>) {
        let mut deltas = Vec::with_capacity(changes.len());
        for (id, change) in &changes {
            let Some(relation) = self.relations.get(id).cloned() else {
                let _ = reply.send(Err(gone()));
                return;
            };
            let delta = match self.keys.get_mut(id) {
                Some(keys) => keys.apply(change),
                None => change.delta(&relation.schema),
            };
            match delta {
                Ok(delta) => deltas.push((relation, delta)),
                Err(error) => {
                    // Changes of other tables in the same transaction were not put in yet; their
                    // keys go back to what they were.
                    self.undo_keys(&deltas);
                    let _ = reply.send(Err(error));
                    return;
                }
            }
        }
        for (relation, delta) in deltas {
            self.count_in(relation.id, delta.len() as u64);
            if relation.event_time.is_some() && !delta.has_retractions() {
                match crate::event_time::prepare_table(&relation, delta.rows.clone()) {
                    Ok(prepared) => self.put_prepared(cut, &relation, prepared),
                    Err(error) => tracing::error!(table = relation.name, %error, "rows without event time"),
                }
            } else {
                self.count_applied(relation.id, delta.len() as u64);
                self.put(cut, relation.id, None, delta, true);
            }
        }
        cut.replies.push(reply);
    }

    fn undo_keys(&mut self, deltas: &[(Arc<Relation>, Delta)]) {
        for (relation, delta) in deltas.iter().rev() {
            let Some(keys) = self.keys.get_mut(&relation.id) else { continue };
            let rows = |sign: i64| -> Vec<u32> {
                (0..delta.len() as u32).filter(|i| delta.weight(*i as usize).signum() == sign).collect()
            };
            let take = |list: Vec<u32>| {
                arrow::compute::take_record_batch(&delta.rows, &arrow::array::UInt32Array::from(list))
                    .into_iter()
                    .collect()
            };
            let back = TableChange { removed: take(rows(1)), added: take(rows(-1)), on_conflict: OnConflict::Error };
            let undone = keys.apply(&back);
            debug_assert!(undone.is_ok(), "{undone:?}");
        }
    }

    fn cut_ingest(
        &mut self,
        cut: &mut Cut,
        table: RelationId,
        rows: Vec<Prepared>,
        upsert: bool,
        bad: &[tidemill_connect::BadRow],
    ) -> Result<(), SqlError> {
        let relation = self.relations.get(&table).cloned().ok_or_else(gone)?;
        for prepared in rows {
            self.count_in(table, prepared.rows.num_rows() as u64);
            match self.keys.get_mut(&table) {
                Some(keys) => {
                    let on_conflict = if upsert { OnConflict::Replace } else { OnConflict::Error };
                    let change = TableChange { removed: Vec::new(), added: vec![prepared.rows], on_conflict };
                    let delta = keys.apply(&change)?;
                    self.count_applied(table, change.added.iter().map(|b| b.num_rows() as u64).sum());
                    self.put(cut, table, None, delta, true);
                }
                None => self.put_prepared(cut, &relation, prepared),
            }
        }
        self.put_bad(cut, table, bad);
        Ok(())
    }

    fn put_bad(&mut self, cut: &mut Cut, of: RelationId, bad: &[tidemill_connect::BadRow]) {
        if bad.is_empty() {
            return;
        }
        {
            let mut stats = self.shared.stats.lock();
            let counters = stats.counters(of);
            counters.rows_in += bad.len() as u64;
            counters.bad += bad.len() as u64;
        }
        self.put(cut, of + 1, None, Delta::inserts(bad_rows(bad)), true);
    }

    fn count_in(&self, relation: RelationId, rows: u64) {
        let mut stats = self.shared.stats.lock();
        stats.counters(relation).rows_in += rows;
        stats.rows_in += rows;
    }

    fn count_applied(&self, relation: RelationId, rows: u64) {
        self.shared.stats.lock().counters(relation).applied += rows;
    }

    /// Puts rows in that have a time, the late ones aside.
    fn put_prepared(&mut self, cut: &mut Cut, relation: &Arc<Relation>, prepared: Prepared) {
        let keep = relation.kind == RelationKind::Table;
        let watermark = self.in_force.get(&relation.id).copied().unwrap_or(NO_WATERMARK);
        if let Some(reached) = prepared.watermark
            && keep
        {
            let now = self.reached.entry(relation.id).or_insert(NO_WATERMARK);
            *now = (*now).max(reached);
        }
        if prepared.earliest.is_none_or(|t| t >= watermark) {
            self.count_applied(relation.id, prepared.rows.num_rows() as u64);
            return self.put(cut, relation.id, prepared.columns, Delta::inserts(prepared.rows), keep);
        }
        match self.split(relation, &prepared, watermark) {
            Ok((in_time, late)) => {
                {
                    let mut stats = self.shared.stats.lock();
                    let counters = stats.counters(relation.id);
                    counters.applied += in_time.len() as u64;
                    counters.late += late.len() as u64;
                }
                self.put(cut, relation.id, prepared.columns, in_time, keep);
                self.put(cut, relation.id + 2, None, late, true);
            }
            Err(error) => tracing::error!(relation = relation.name, %error, "late rows could not be told apart"),
        }
    }

    fn split(&self, relation: &Relation, prepared: &Prepared, at: Micros) -> Result<(Delta, Delta), SqlError> {
        let split = split_late(relation, prepared, at)?;
        let late = late_rows(relation, prepared.columns.as_ref(), &split.late, at)?;
        Ok((Delta::inserts(split.in_time), Delta::inserts(late)))
    }

    /// Puts a relation's rows in: to the workers if a view reads them, to the rows kept if they are kept.
    fn put(
        &mut self,
        cut: &mut Cut,
        relation: RelationId,
        columns: Option<Arc<[ColumnPath]>>,
        delta: Delta,
        keep: bool,
    ) {
        if delta.is_empty() {
            return;
        }
        cut.rows += delta.len() as u64;
        if self.read_by.contains_key(&relation) {
            let packet = |delta| Packet::Input { relation, columns: columns.clone(), delta };
            self.deal(&delta, |worker, part| cut.packets.push((worker, packet(part))));
        }
        if keep {
            cut.writes.push((relation, delta));
        }
    }

    /// Divides rows among the workers.
    fn deal(&mut self, delta: &Delta, mut give: impl FnMut(usize, Delta)) {
        let workers = self.loop_.as_ref().map_or(1, |l| l.workers);
        if workers == 1 || delta.len() < DIVIDE {
            self.spread = (self.spread + 1) % workers;
            return give(self.spread, delta.clone());
        }
        let each = delta.len().div_ceil(workers);
        for worker in 0..workers {
            let from = worker * each;
            if from < delta.len() {
                give(worker, delta.slice(from, each.min(delta.len() - from)));
            }
        }
    }

    fn cut_sources(&mut self, cut: &mut Cut) {
        let limit = self.shared.config.max_epoch_rows as u64;
        let ids: Vec<RelationId> = self.sources.keys().copied().collect();
        for id in ids {
            let room = usize::try_from(limit.saturating_sub(cut.rows)).unwrap_or(usize::MAX);
            let Some(source) = self.sources.get_mut(&id) else { continue };
            let (taken, relation) = (source.take(room), source.relation.clone());
            for rows in taken {
                self.count_in(id, rows.prepared.rows.num_rows() as u64);
                self.put_prepared(cut, &relation, rows.prepared);
                self.put_bad(cut, id, &rows.bad);
            }
            self.note_source(id);
        }
    }

    fn note_source(&self, id: RelationId) {
        let Some(source) = self.sources.get(&id) else { return };
        let mut stats = self.shared.stats.lock();
        let counters = stats.counters(id);
        counters.progress = source.size().map(|size| (source.bytes, size));
        counters.state = match (&source.failed, source.ended(), source.started) {
            (Some(_), _, _) => "stopped",
            (None, true, _) => "ended",
            (None, false, true) => "running",
            (None, false, false) => "waiting for a view",
        };
        counters.reason = source.failed.clone();
    }

    fn cut_history(&mut self, cut: &mut Cut) {
        let views: Vec<RelationId> = self.catching_up.keys().copied().collect();
        for view in views {
            let Some(catch_up) = self.catching_up.get_mut(&view) else { continue };
            let (packets, last) = catch_up.next_slice();
            for packet in packets {
                if let Packet::History { view, input, delta } = packet {
                    self.deal(&delta, |worker, delta| {
                        cut.packets.push((worker, Packet::History { view, input, delta }));
                    });
                }
            }
            if last {
                self.catching_up.remove(&view);
                cut.begin.commands.push(Command::GoLive(view));
                cut.live.push(view);
            }
        }
    }

    fn define(&mut self, cut: &mut Cut, define: Define) {
        let mut reply = Some(define.reply);
        if let Some((id, name, from, sink)) = define.sink
            && let Err(error) = self.define_sink(id, &name, from, sink)
        {
            return answer(&mut reply, Err(error));
        }
        for relation in &define.relations {
            if let Err(error) = self.define_relation(relation, define.keep) {
                return answer(&mut reply, Err(error));
            }
        }
        if let (Some(source), Some(relation)) = (define.source, define.relations.first()) {
            let rows = self.shared.config.max_epoch_rows.min(32_768);
            let source = RunningSource::new(relation.clone(), source, rows, self.shared.waker());
            self.sources.insert(relation.id, source);
            self.note_source(relation.id);
        }
        let definition = Definition { text: define.text, spec: std::sync::OnceLock::new() };
        let _ = definition.spec.set(define.spec.clone());
        if define.spec.is_some() || self.shared.config.hosts.len() > 1 {
            cut.begin.commands.push(Command::Define(Arc::new(definition)));
        }
        match define.spec {
            None => answer(&mut reply, Ok(())),
            Some(spec) => {
                let view = spec.view;
                let history = self.history_of(&spec);
                self.read_sources(&spec);
                self.shared.stats.lock().counters(view).state = "catching up";
                self.add_spec(spec);
                self.catching_up.insert(view, CatchUp::new(view, history));
                if let Some(reply) = reply.take() {
                    self.waiting.push(Waiting { view, reply });
                }
            }
        }
    }

    fn define_relation(&mut self, relation: &Arc<Relation>, keep: bool) -> Result<(), SqlError> {
        if relation.kind == RelationKind::View {
            return Ok(());
        }
        if let Some(keys) = PrimaryKey::new(relation)? {
            self.keys.insert(relation.id, keys);
        }
        let stored = relation.kind != RelationKind::Source && keep;
        let mut shown = Shown::new(tidemill_delta::relaxed(&relation.schema), stored, self.next_epoch - 1);
        shown.visible = relation.kind != RelationKind::MaterializedView;
        self.shared.published.state.write().shown.insert(relation.id, shown);
        self.shared.stats.lock().counters(relation.id).state = "running";
        self.relations.insert(relation.id, relation.clone());
        Ok(())
    }

    /// The rows that a new view's inputs have now.
    fn history_of(&self, spec: &tidemill_dataflow::ViewSpec) -> Vec<(usize, Delta)> {
        let state = self.shared.published.state.read();
        let mut history = Vec::new();
        for (input, read) in spec.dataflow.inputs.iter().enumerate() {
            let rows = state.shown.get(&read.relation).and_then(|s| s.rows.as_ref());
            history.extend(rows.into_iter().flat_map(|r| r.runs()).map(|run| (input, run.as_ref().clone())));
        }
        history
    }

    fn read_sources(&mut self, spec: &tidemill_dataflow::ViewSpec) {
        for read in &spec.dataflow.inputs {
            let auto = self.shared.config.auto_start_sources;
            if let Some(source) = self.sources.get_mut(&read.relation) {
                source.need(&read.columns);
                if auto {
                    source.start();
                }
                self.note_source(read.relation);
            }
        }
    }

    fn remove(&mut self, cut: &mut Cut, ids: &[RelationId]) {
        for id in ids {
            let runs = self.remove_spec(*id);
            if !self.failed.remove(id) && runs {
                cut.begin.commands.push(Command::Remove(*id));
            }
            if let Some(mut source) = self.sources.remove(id) {
                source.stop();
            }
            self.relations.remove(id);
            self.keys.remove(id);
            self.reached.remove(id);
            self.in_force.remove(id);
            self.catching_up.remove(id);
            {
                let mut state = self.shared.published.state.write();
                state.shown.remove(id);
                state.watermarks.remove(id);
            }
            self.shared.stats.lock().forget(*id);
        }
    }
}

fn answer(reply: &mut Option<Reply<()>>, result: Result<(), SqlError>) {
    if let Some(reply) = reply.take() {
        let _ = reply.send(result);
    }
}

fn gone() -> SqlError {
    SqlError::new(tidemill_sql::state::UNDEFINED_TABLE, "the table was dropped meanwhile")
}
