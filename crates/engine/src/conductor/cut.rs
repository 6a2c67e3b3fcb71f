//! Cutting an epoch: what goes in, in which order, under which watermarks.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidemill_dataflow::{Begin, Command, Definition, Feed, Packet, ViewSpec};
use tidemill_delta::{Delta, Epoch, Micros, NO_WATERMARK};
use tidemill_plan::{ColumnPath, RelationId};
use tidemill_sql::{OnConflict, Relation, RelationKind, SqlError};

use super::catch_up::{CatchUp, SLICE};
use super::{Conductor, Define, Entering, InFlight, Reply, Request, Waiting};
use crate::engine::IDS_PER_OBJECT;
use crate::journal::{Change, Entry, Object, Put};
use crate::published::Shown;
use crate::replica::definition;
use crate::sink::RunningSink;
use crate::source::RunningSource;
use crate::table::{PrimaryKey, TableChange};

/// A batch at least this long is divided among the workers.
const DIVIDE: usize = 4096;

/// An epoch in the making.
#[derive(Default)]
pub(super) struct Cut {
    /// The epoch's time: that of its rows' arrival.
    pub(super) arrival: Micros,
    pub(super) begin: Begin,
    pub(super) packets: Vec<(usize, Packet)>,
    writes: Vec<(RelationId, Delta)>,
    pub(super) replies: Vec<Reply<Epoch>>,
    early: Vec<Reply<Epoch>>,
    live: Vec<RelationId>,
    tell: Vec<RelationId>,
    /// Whoever waits for a definition or a removal.
    defined: Vec<(Entering, Reply<()>)>,
    /// Sinks that are new, or resumed.
    pub(super) sinks: Vec<RelationId>,
    /// Sinks that were dropped, and whoever waits for their end.
    pub(super) dropped: Vec<(Vec<RunningSink>, Entering, Reply<()>)>,
    rows: u64,
    /// Tables and sources whose counts have changed.
    pub(super) counted: BTreeSet<RelationId>,
    /// What the journal is told.
    pub(super) entry: Entry,
    /// The rows that go in now can be had again, or come from the journal: it is not told of them.
    pub(super) unwritten: bool,
}

impl Conductor {
    /// Begins an epoch if there is something to begin it with and room in flight.
    pub(super) fn cut(&mut self) -> bool {
        if self.in_flight.len() >= self.shared.config.epochs_in_flight.max(1) || !self.is_ready_to_cut() {
            return false;
        }
        let mut cut = Cut { arrival: self.shared.env.now_micros(), ..Cut::default() };
        self.begin_checkpoint(&mut cut);
        cut.begin.commands.append(&mut self.commands);
        if self.is_rebuilding() {
            return self.cut_rebuild(cut);
        }
        self.cut_watermarks(&mut cut);
        for view in std::mem::take(&mut self.removals) {
            cut.begin.commands.push(Command::Remove(view));
            cut.entry.header.changes.push(Change::Stop(view));
        }
        self.cut_left(&mut cut);
        self.take_rejected();
        for (_, relation, delta) in std::mem::take(&mut self.side_rows) {
            self.put_side(&mut cut, relation, delta);
        }
        cut.replies.append(&mut self.late_replies);
        cut.tell.append(&mut self.late_tell);
        self.cut_requests(&mut cut);
        self.cut_sources(&mut cut);
        self.cut_history(&mut cut);
        // A rebuild that has just been asked for begins at once, also where this epoch is empty.
        self.begin_epoch(cut) || self.is_rebuilding()
    }

    /// Takes back what was being created, and is not to be, and what others have taken the place of.
    fn cut_left(&mut self, cut: &mut Cut) {
        let (catching_up, mut left) = (&self.catching_up, Vec::new());
        self.waiting.retain(|waiting| {
            let gone = waiting.reply.is_closed() && catching_up.contains_key(&waiting.view);
            left.extend(gone.then_some(waiting.view));
            !gone
        });
        self.abandoned.append(&mut left);
        let mut all = std::mem::take(&mut self.replaced);
        for view in std::mem::take(&mut self.abandoned) {
            let beside = view..view + IDS_PER_OBJECT;
            all.push(self.relations.keys().copied().filter(|id| beside.contains(id)).collect());
        }
        for ids in all {
            self.remove(cut, &ids);
            self.shared.change_catalog(|catalog| ids.iter().for_each(|id| catalog.remove(*id)));
            cut.entry.header.changes.push(Change::Drop(ids));
        }
    }

    pub(super) fn begin_epoch(&mut self, cut: Cut) -> bool {
        let begins = !cut.begin.commands.is_empty() || !cut.begin.watermarks.is_empty();
        let changes =
            begins || !cut.entry.header.changes.is_empty() || !cut.defined.is_empty() || !cut.dropped.is_empty();
        let rows = !cut.packets.is_empty() || !cut.writes.is_empty();
        if !changes && !rows && cut.replies.is_empty() && cut.early.is_empty() {
            return false;
        }
        self.begin_any(cut);
        true
    }

    /// Begins an epoch, even with nothing.
    pub(super) fn begin_any(&mut self, mut cut: Cut) {
        let begins = !cut.begin.commands.is_empty() || !cut.begin.watermarks.is_empty();
        let epoch = self.next_epoch;
        self.next_epoch += 1;
        let logged = self.write_down(&mut cut, epoch);
        self.in_flight.push_back(InFlight {
            epoch,
            began: self.shared.env.monotonic_nanos(),
            writes: cut.writes,
            watermarks: cut.begin.watermarks.clone(),
            replies: cut.replies,
            early: cut.early,
            defined: cut.defined,
            sinks: cut.sinks,
            dropped: cut.dropped,
            logged,
            tell: cut.tell.into_iter().chain(cut.live.iter().copied()).collect(),
            live: cut.live,
            rows: cut.rows,
        });
        if let Some(loop_) = &self.loop_ {
            loop_.begin(Feed { epoch, begin: begins.then(|| Arc::new(cut.begin)), packets: cut.packets });
        }
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
            let structural = self.next_is_structural();
            // A new view begins with the rows as of the epoch before: that one must be published, and rows that
            // go in with the view must come after it.
            if structural && (!self.in_flight.is_empty() || cut.rows > 0) {
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
                Request::Expire { table, rows, seen, reply } => self.cut_expired(cut, table, (rows, seen), reply),
                Request::Define(define) => self.define(cut, *define),
                Request::Repair(repair) => {
                    self.repair(cut, repair);
                    if self.is_rebuilding() {
                        return;
                    }
                }
                Request::Drop { ids, enter, reply } => {
                    let sinks: Vec<RunningSink> = ids.iter().filter_map(|id| self.sinks.remove(id)).collect();
                    self.remove(cut, &ids);
                    cut.entry.header.changes.push(Change::Drop(ids));
                    if sinks.is_empty() {
                        cut.defined.push((enter, reply));
                    } else {
                        cut.dropped.push((sinks, enter, reply));
                    }
                }
                Request::StartSources | Request::EndOfInput { .. } | Request::Wake | Request::Shutdown => {}
            }
        }
    }

    pub(super) fn undo_keys(&mut self, deltas: &[(Arc<Relation>, Delta)]) {
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
            let back =
                TableChange { removed: take(rows(1)), added: take(rows(-1)), on_conflict: OnConflict::Error, seen: 0 };
            let undone = keys.apply(&back);
            debug_assert!(undone.is_ok(), "{undone:?}");
        }
    }

    /// Puts a relation's rows in: to the workers if a view reads them, to the rows kept if they are kept.
    pub(super) fn put(
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
        if self.durable.is_some() && !cut.unwritten {
            cut.entry.rows.push(Put { relation, columns: columns.clone(), delta: delta.clone(), keep });
        }
        if self.read_by.contains_key(&relation) {
            let packet = |delta| Packet::Input { relation, columns: columns.clone(), delta };
            self.deal(&delta, |worker, part| cut.packets.push((worker, packet(part))));
        }
        if keep {
            cut.writes.push((relation, delta));
        }
    }

    /// Divides rows among the workers.
    pub(super) fn deal(&mut self, delta: &Delta, mut give: impl FnMut(usize, Delta)) {
        let workers = self.workers();
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

    /// Whether the next request has to wait for the epochs in flight.
    fn next_is_structural(&self) -> bool {
        matches!(self.queue.front(), Some(Request::Define(_) | Request::Drop { .. } | Request::Repair(_)))
    }

    fn cut_sources(&mut self, cut: &mut Cut) {
        // A source that always has rows would keep epochs in flight for ever, and so whoever waits for their end.
        if self.stopping || self.next_is_structural() {
            return;
        }
        let limit = self.shared.config.max_epoch_rows as u64;
        let ids: Vec<RelationId> = self.sources.keys().copied().collect();
        for id in ids {
            let room = usize::try_from(limit.saturating_sub(cut.rows)).unwrap_or(usize::MAX);
            let Some(source) = self.sources.get_mut(&id) else { continue };
            let (taken, relation) = (source.take(room), source.relation.clone());
            cut.unwritten = source.repeats();
            for rows in taken {
                let put = self.put_prepared(cut, &relation, rows.prepared);
                self.put_bad(cut, id, &rows.bad);
                if let Some(source) = self.sources.get_mut(&id) {
                    match put {
                        Ok(watermark) => source.advance(rows.partition, watermark.unwrap_or(NO_WATERMARK)),
                        Err(error) => source.fail(error.message),
                    }
                }
            }
            self.note_source(id);
        }
        cut.unwritten = false;
    }

    pub(super) fn note_source(&self, id: RelationId) {
        let Some(source) = self.sources.get(&id) else { return };
        let mut stats = self.shared.stats.lock();
        let counters = stats.counters(id);
        counters.progress = source.size().map(|size| (source.bytes, size));
        counters.state = match (&source.failed, source.ended(), source.started) {
            (Some(_), _, _) => "stopped",
            (None, true, _) => "ended",
            (None, false, true) if source.retrying().is_some() => "retrying",
            (None, false, true) => "running",
            (None, false, false) => "waiting for a view",
        };
        counters.reason = source.failed.clone().or(source.retrying().map(str::to_owned));
    }

    fn cut_history(&mut self, cut: &mut Cut) {
        let views: Vec<RelationId> = self.catching_up.keys().copied().collect();
        for view in views {
            self.cut_slice(cut, view, SLICE);
        }
    }

    /// Puts a slice of a new view's history in; with the last one the view goes live.
    pub(super) fn cut_slice(&mut self, cut: &mut Cut, view: RelationId, rows: usize) {
        let Some(catch_up) = self.catching_up.get_mut(&view) else { return };
        let (packets, last) = catch_up.next_slice(rows);
        let mut listed = 0;
        for packet in packets {
            if let Packet::History { view, input, delta } = packet {
                listed += delta.len();
                self.deal(&delta, |worker, delta| {
                    cut.packets.push((worker, Packet::History { view, input, delta }));
                });
            }
        }
        cut.entry.header.slices.push((view, listed));
        if last {
            self.catching_up.remove(&view);
            cut.begin.commands.push(Command::GoLive(view));
            cut.entry.header.live.push(view);
            cut.live.push(view);
        }
    }

    pub(super) fn define(&mut self, cut: &mut Cut, define: Define) {
        let mut reply = Some(define.reply);
        if let Some((id, name, from, sink)) = define.sink {
            if let Err(error) = self.define_sink(id, &name, from, sink) {
                return answer(&mut reply, Err(error));
            }
            cut.sinks.push(id);
        }
        for relation in &define.relations {
            if let Err(error) = self.define_relation(relation, define.object.keep) {
                return answer(&mut reply, Err(error));
            }
        }
        if let (Some(source), Some(relation)) = (define.source, define.relations.first()) {
            self.add_source(relation.clone(), source);
        }
        self.deploy(cut, &define.object, define.spec.clone());
        cut.entry.header.changes.push(Change::Define(define.object.clone()));
        let replaced = define.object.replaces.clone();
        self.objects.insert(define.object.id, define.object);
        match define.spec {
            None => {
                if !replaced.is_empty() && !self.repeating {
                    self.remove(cut, &replaced);
                    cut.entry.header.changes.push(Change::Drop(replaced));
                }
                cut.defined.extend(reply.take().map(|reply| (define.enter, reply)));
            }
            Some(spec) => {
                let view = spec.view;
                let history = self.history_of(&spec);
                self.read_sources(&spec);
                self.shared.stats.lock().counters(view).state = "catching up";
                self.add_spec(spec);
                self.catching_up.insert(view, CatchUp::new(view, history));
                if let Some(reply) = reply.take() {
                    self.waiting.push(Waiting { view, enter: define.enter, reply });
                }
            }
        }
    }

    pub(super) fn add_source(&mut self, relation: Arc<Relation>, source: Arc<dyn tidemill_connect::Source>) {
        let rows = self.shared.config.max_epoch_rows.min(32_768);
        let id = relation.id;
        self.sources
            .insert(id, RunningSource::new(relation, source, rows, self.shared.env.clone(), self.shared.waker()));
        self.note_source(id);
    }

    /// Tells the workers of an object.
    pub(super) fn deploy(&mut self, cut: &mut Cut, object: &Object, spec: Option<Arc<ViewSpec>>) {
        if spec.is_none() && self.shared.config.hosts.len() <= 1 {
            return;
        }
        let definition = Definition { text: definition(object.id, &object.sql), spec: std::sync::OnceLock::new() };
        let _ = definition.spec.set(spec);
        cut.begin.commands.push(Command::Define(Arc::new(definition)));
    }

    pub(super) fn define_relation(&mut self, relation: &Arc<Relation>, keep: bool) -> Result<(), SqlError> {
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
    fn history_of(&self, spec: &ViewSpec) -> Vec<(usize, Delta)> {
        let state = self.shared.published.state.read();
        let mut history = Vec::new();
        for (input, read) in spec.dataflow.inputs.iter().enumerate() {
            let rows = state.shown.get(&read.relation).and_then(|s| s.rows.as_ref());
            history.extend(rows.into_iter().flat_map(|r| r.runs()).map(|run| (input, run.as_ref().clone())));
        }
        history
    }

    pub(super) fn read_sources(&mut self, spec: &ViewSpec) {
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

    pub(super) fn remove(&mut self, cut: &mut Cut, ids: &[RelationId]) {
        for id in ids {
            self.objects.remove(id);
            let runs = self.remove_spec(*id);
            if !self.failed.remove(id) && runs {
                cut.begin.commands.push(Command::Remove(*id));
            }
            if let Some(mut source) = self.sources.remove(id) {
                source.stop();
            }
            self.relations.remove(id);
            self.keys.remove(id);
            self.removed.remove(id);
            self.reached.remove(id);
            self.in_force.remove(id);
            self.retained.remove(id);
            self.stopped.remove(id);
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

pub(super) fn gone() -> SqlError {
    SqlError::new(tidemill_sql::state::UNDEFINED_TABLE, "the table was dropped meanwhile")
}
