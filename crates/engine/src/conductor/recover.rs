//! Coming back: the last checkpoint, then the journal's epochs again, one by one, as they were.
//!
//! Nothing is served before this has ended. Sinks are not sent again what they have committed, and sources read on only
//! when the last epoch was repeated.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::AsArray;
use arrow::datatypes::{Schema, UInt64Type};
use tidemill_dataflow::{Command, Feed, Packet, saved_shapes};
use tidemill_delta::{Delta, Epoch, relaxed};
use tidemill_plan::RelationId;
use tidemill_sql::{OnConflict, RelationKind, SqlError};
use tidemill_state::Collection;
use tidemill_storage::{
    Checkpoints, DataFolder, FileEntry, FolderStore, Handlers, Log, LogOptions, Manifest, Newest, Opened, StorageError,
};
use tokio::sync::oneshot;

use super::cut::Cut;
use super::durable::{Durable, plan_hash};
use super::{Conductor, Define};
use crate::checkpoint::{DIRECTORY, Directory, FORMAT, Keeper, Of, Packs, Run, newest_entries, read_run};
use crate::config::Data;
use crate::define::{Made, make};
use crate::journal::{Assembler, Change, Entry, Object};
use crate::table::TableChange;

/// The folder's store of checkpoints.
const CHECKPOINTS: &str = "checkpoints";

/// What could not be kept or brought back.
fn failed(error: impl std::fmt::Display) -> SqlError {
    SqlError::new("58030", error.to_string())
}

/// The last checkpoint.
struct Restored {
    directory: Directory,
    files: Vec<FileEntry>,
    /// The rows of relations and where they are.
    rows: Vec<(Arc<Delta>, Run)>,
}

impl Conductor {
    /// Opens the data folder, if there is one, and brings back what is in it.
    pub(super) fn recover(&mut self) -> Result<(), SqlError> {
        let Some(data) = self.shared.config.data.clone() else { return Ok(()) };
        let began = self.shared.env.monotonic_nanos();
        let folder = DataFolder::open(&self.shared.env, &data.folder).map_err(failed)?;
        self.shared.incarnation.store(folder.incarnation(), Ordering::Relaxed);
        let store = FolderStore::open(&folder, CHECKPOINTS).map_err(failed)?;
        let checkpoints = Checkpoints::open(store, folder.incarnation()).map_err(failed)?;
        let Newest { manifest, warnings } = checkpoints.newest().map_err(failed)?;
        for warning in warnings {
            tracing::warn!(%warning, "a checkpoint is damaged; an older one is used");
        }
        let opened = self.open_log(&folder)?;
        if let Some(torn) = &opened.torn {
            tracing::warn!(
                file = %torn.path.display(), offset = torn.offset, bytes = torn.bytes, cause = torn.cause,
                "the end of the log had not been written completely and was cut off; none of it had been acknowledged"
            );
        }
        let Opened { log, writer, .. } = opened;
        let writer = writer.spawn().map_err(failed)?;
        *self.shared.log.lock() = Some(log.clone());
        self.repeating = true;
        self.commands.push(Command::Record);
        let from = manifest.as_ref().map_or(log.first(), |m| m.log_position);
        let restored = manifest.map(|manifest| self.restore(&checkpoints, &manifest)).transpose()?;
        let checkpoint = restored.as_ref().map(|r| r.directory.epoch);
        self.keep_on(&data, folder, checkpoints, (log.clone(), writer), restored)?;
        let repeated = self.repeat_journal(&log, from)?;
        self.settle();
        let (epoch, took) = (self.next_epoch - 1, (self.shared.env.monotonic_nanos() - began) / 1_000_000);
        tracing::info!(
            folder = %data.folder.display(), epoch, checkpoint, repeated, milliseconds = took,
            "restored what was there"
        );
        Ok(())
    }

    fn open_log(&self, folder: &DataFolder) -> Result<Opened, SqlError> {
        let wake = self.shared.waker();
        let advanced = Box::new(move |_| wake());
        let fatal = Box::new(|error: &StorageError| end_process(&error.to_string()));
        Log::open(folder, LogOptions::default(), Handlers { advanced, fatal }).map_err(failed)
    }

    /// From here on checkpoints are written.
    fn keep_on(
        &mut self,
        data: &Data,
        folder: DataFolder,
        checkpoints: Checkpoints<FolderStore>,
        (log, writer): (Log, std::thread::JoinHandle<()>),
        restored: Option<Restored>,
    ) -> Result<(), SqlError> {
        let (incarnation, last) = (folder.incarnation(), self.shared.env.monotonic_nanos());
        // State that other workers saved is replaced as a whole.
        let save_all = restored.as_ref().is_none_or(|r| r.directory.workers != self.workers());
        let (known, rows) = match restored {
            Some(Restored { directory, files, rows }) => (Some((directory, files)), rows),
            None => (None, Vec::new()),
        };
        let fatal: Arc<dyn Fn(&str) + Send + Sync> = Arc::new(end_process);
        let wake = self.shared.waker();
        let keeper =
            Keeper::start(checkpoints, log.clone(), incarnation, known, rows, self.shared.saving.clone(), wake, fatal)
                .map_err(failed)?;
        let every = u64::try_from(data.checkpoint_every.as_nanos()).unwrap_or(u64::MAX);
        let ticker = tick(self.shared.waker(), data.checkpoint_every).map_err(failed)?;
        self.durable = Some(Durable {
            _folder: folder,
            log,
            writer,
            keeper,
            every,
            last,
            next: self.next_epoch,
            save_all,
            unlogged: None,
            saving: None,
            _ticker: ticker,
        });
        Ok(())
    }

    /// Brings a checkpoint back.
    fn restore(&mut self, store: &Checkpoints<FolderStore>, manifest: &Manifest) -> Result<Restored, SqlError> {
        let mut packs = Packs::new(&manifest.files);
        let directory = manifest.files.iter().find(|f| f.name.starts_with(DIRECTORY));
        let directory = directory.ok_or_else(|| failed("the last checkpoint has no directory"))?;
        let text = packs.get(store, &directory.name).map_err(failed)?;
        let directory: Directory = serde_json::from_slice(&text).map_err(failed)?;
        if directory.format != FORMAT {
            let found = directory.format;
            return Err(failed(format!(
                "the last checkpoint has format {found}, and this program reads format {FORMAT}"
            )));
        }
        let mut runs: BTreeMap<Of, Vec<&Run>> = BTreeMap::new();
        directory.runs.iter().for_each(|run| runs.entry(run.of).or_default().push(run));
        self.next_epoch = directory.epoch;
        self.shared.take_ids_below(directory.next_id);
        let mut cut = Cut::default();
        cut.begin.commands.append(&mut self.commands);
        let mut sinks = saved_sinks(&directory, &runs, &mut packs, store)?;
        for saved in &directory.objects {
            self.restore_object(&mut cut, saved, &mut sinks)?;
        }
        for source in &directory.sources {
            if let Some(own) = self.sources.get_mut(&source.source) {
                own.restore(source.clone());
            }
            self.note_source(source.source);
        }
        self.in_force = directory.in_force.iter().copied().collect();
        self.reached = directory.reached.iter().copied().collect();
        cut.begin.watermarks = directory.in_force.clone();
        directory.counts.iter().for_each(|counts| self.set_counts(*counts));
        let mut rows = Vec::new();
        for (of, runs) in &runs {
            let mut read = |run: &Run| -> Result<_, SqlError> {
                let pack = packs.get(store, &run.pack).map_err(failed)?;
                read_run(run, &pack).map_err(failed)
            };
            let mut loaded = Vec::with_capacity(runs.len());
            for run in runs {
                loaded.push(read(run)?);
            }
            match *of {
                Of::Rows { relation } => {
                    let shared: Vec<Arc<Delta>> = loaded.into_iter().map(|(delta, _)| Arc::new(delta)).collect();
                    rows.extend(shared.iter().cloned().zip(runs.iter().map(|run| (*run).clone())));
                    self.restore_rows(relation, shared)?;
                }
                Of::Changes { relation } => {
                    for (delta, _) in loaded {
                        self.restore_changes(relation, &delta)?;
                    }
                }
                // The sinks have it already.
                Of::Undelivered { .. } => {}
                Of::State { view, node, part, key, worker } => {
                    let saved_by = (directory.workers == self.workers()).then_some(worker);
                    self.load(&mut cut, (view, node, part), (key, saved_by), &loaded)?;
                }
            }
        }
        self.restore_shown(&directory)?;
        self.begin_restored(cut);
        Ok(Restored { files: manifest.files.clone(), directory, rows })
    }

    fn restore_object(
        &mut self,
        cut: &mut Cut,
        saved: &crate::checkpoint::SavedObject,
        sinks: &mut BTreeMap<RelationId, SinkBefore>,
    ) -> Result<(), SqlError> {
        let object = &saved.object;
        let made = self.make(object)?;
        for relation in &made.relations {
            self.define_relation(relation, object.keep)?;
        }
        if let Some(sink) = made.sink {
            let saved = sinks.remove(&object.id).unwrap_or_default();
            self.restore_sink(object.id, sink, saved.first, saved.given_up)?;
        }
        if let (Some(source), Some(relation)) = (made.source, made.relations.first()) {
            self.add_source(relation.clone(), source);
        }
        if let Some(spec) = made.spec {
            let view = spec.view;
            self.read_sources(&spec);
            self.deploy(cut, object, Some(spec.clone()));
            let fits = saved.plan.is_none_or(|plan| plan == plan_hash(&spec.dataflow));
            self.add_spec(spec);
            let changed = "this version of the program computes it in another way, so its state does not fit any more";
            match saved.failed.clone().or_else(|| (!fits).then(|| changed.to_owned())) {
                Some(reason) => self.stop_view(view, &reason),
                None => {
                    cut.begin.commands.push(Command::Restore(view));
                    self.shared.stats.lock().counters(view).state = "running";
                }
            }
        } else {
            self.deploy(cut, object, None);
        }
        self.objects.insert(object.id, object.clone());
        Ok(())
    }

    /// What a definition makes; the catalog learns of it.
    fn make(&mut self, object: &Object) -> Result<Made, SqlError> {
        let made = make(&self.shared.planner, &self.shared.catalog(), object, &self.shared.env).map_err(|error| {
            let message = format!("a definition that was accepted is refused now: {}: {}", error.message, object.sql);
            SqlError::new(error.code, message)
        })?;
        self.shared.take_ids_below(object.id + crate::engine::IDS_PER_OBJECT);
        let sink = made.sink.as_ref().map(|sink| (sink.name.clone(), sink.shown.clone()));
        self.shared.change_catalog(|catalog| made.enter(object, sink, catalog));
        Ok(made)
    }

    fn restore_rows(&mut self, relation: RelationId, runs: Vec<Arc<Delta>>) -> Result<(), SqlError> {
        let mut state = self.shared.published.state.write();
        let Some(shown) = state.shown.get_mut(&relation) else { return Ok(()) };
        let Some(rows) = &mut shown.rows else { return Ok(()) };
        *rows = Collection::of_runs(rows.schema().clone(), runs);
        if let Some(keys) = self.keys.get_mut(&relation) {
            for rows in rows.to_batches().map_err(failed)? {
                let change = TableChange { removed: Vec::new(), added: vec![rows], on_conflict: OnConflict::Error };
                keys.apply(&change)?;
            }
        }
        Ok(())
    }

    /// Recent changes, an epoch after the other.
    fn restore_changes(&mut self, relation: RelationId, delta: &Delta) -> Result<(), SqlError> {
        let mut state = self.shared.published.state.write();
        let Some(shown) = state.shown.get_mut(&relation) else { return Ok(()) };
        for (epoch, delta) in by_epoch(delta)? {
            shown.push_change(epoch, delta);
        }
        Ok(())
    }

    fn restore_shown(&mut self, directory: &Directory) -> Result<(), SqlError> {
        let limit = self.shared.config.history_bytes;
        let mut state = self.shared.published.state.write();
        for saved in &directory.relations {
            if let Some(shown) = state.shown.get_mut(&saved.relation) {
                shown.restore(saved.complete_after, saved.last_epoch, saved.changes, limit);
            }
        }
        state.watermarks = directory.in_force.iter().copied().collect();
        state.epoch = directory.epoch;
        Ok(())
    }

    /// Gives a part of an operator's state to the workers that go on with it.
    fn load(
        &mut self,
        cut: &mut Cut,
        (view, node, part): (RelationId, usize, usize),
        (key, saved_by): (Option<usize>, Option<usize>),
        runs: &[(Delta, Option<Delta>)],
    ) -> Result<(), SqlError> {
        let Some(spec) = self.specs.get(&view).filter(|_| !self.failed.contains(&view)) else { return Ok(()) };
        let shapes = saved_shapes(spec).map_err(failed)?;
        let shape = shapes.get(node).and_then(|parts| parts.get(part));
        let placement = &shape.ok_or_else(|| failed("the checkpoint has state that no operator keeps"))?.placement;
        let rows = match key {
            Some(key) => vec![newest_entries(runs, key).map_err(failed)?.0],
            None => runs.iter().map(|(rows, _)| rows.clone()).collect(),
        };
        for rows in rows {
            for (worker, delta) in placement.share_out(&rows, self.workers(), saved_by).map_err(failed)? {
                cut.packets.push((worker, Packet::Load { view, node, part, delta }));
            }
        }
        Ok(())
    }

    /// Lets the workers build and load in the checkpoint's own epoch, and waits for them.
    fn begin_restored(&mut self, cut: Cut) {
        let epoch = self.next_epoch;
        self.next_epoch += 1;
        if let Some(loop_) = &self.loop_ {
            loop_.begin(Feed { epoch, begin: Some(Arc::new(cut.begin)), packets: cut.packets });
        }
        while self.loop_.as_ref().is_some_and(|l| l.done() <= epoch) {
            self.wait();
        }
        for output in self.outputs.try_iter().collect::<Vec<_>>() {
            if let tidemill_dataflow::Output::Failed { view, reason, .. } = output {
                self.stop_view(view, &reason);
            }
        }
        self.shared.published.announce(epoch);
    }

    /// Repeats the epochs of the journal. Gives their number.
    fn repeat_journal(&mut self, log: &Log, from: u64) -> Result<u64, SqlError> {
        let mut assembler = Assembler::default();
        let mut repeated = 0;
        for record in log.records(from).map_err(failed)? {
            let Some(entry) = assembler.take(record.map_err(failed)?).map_err(failed)? else { continue };
            // An entry that stands before the checkpoint was cut off from its beginning.
            if entry.header.epoch < self.next_epoch {
                continue;
            }
            self.repeat(entry)?;
            repeated += 1;
        }
        self.drain();
        Ok(repeated)
    }

    /// Publishes until fewer than so many epochs are in flight.
    fn drain_to(&mut self, most: usize) {
        loop {
            self.publish();
            if self.in_flight.len() <= most {
                return;
            }
            self.wait();
        }
    }

    fn drain(&mut self) {
        self.drain_to(0);
    }

    /// Repeats one epoch.
    fn repeat(&mut self, entry: Entry) -> Result<(), SqlError> {
        let Entry { header, rows } = entry;
        let room = self.shared.config.epochs_in_flight.max(1) - 1;
        self.drain_to(if header.changes.is_empty() { room } else { 0 });
        self.next_epoch = header.epoch;
        self.entered_errors = self.entered_errors.max(header.errors_until);
        self.side_rows.retain(|(epoch, ..)| *epoch > header.errors_until);
        let mut cut = Cut::default();
        (cut.unwritten, cut.arrival) = (true, header.micros);
        cut.begin.commands.append(&mut self.commands);
        for (id, at) in &header.watermarks {
            self.in_force.insert(*id, *at);
            self.shared.stats.lock().counters(*id).watermark = Some(*at);
            cut.begin.watermarks.push((*id, *at));
        }
        for change in header.changes {
            self.repeat_change(&mut cut, change)?;
        }
        let mut side: Vec<(RelationId, Delta)> = Vec::new();
        for put in rows {
            if self.relations.get(&put.relation).is_some_and(|r| r.kind == RelationKind::System) {
                side.push((put.relation, put.delta.clone()));
            }
            if let Some(keys) = self.keys.get_mut(&put.relation) {
                keys.follow(&put.delta)?;
            }
            self.put(&mut cut, put.relation, put.columns, put.delta, put.keep);
        }
        for read in &header.reads {
            self.repeat_read(&mut cut, read)?;
        }
        self.follow_side(&side)?;
        self.reached.extend(header.reached);
        header.counts.iter().for_each(|counts| self.set_counts(*counts));
        for (view, rows) in header.slices {
            let rows = if header.live.contains(&view) { usize::MAX } else { rows };
            self.cut_slice(&mut cut, view, rows);
        }
        self.begin_repeated(cut);
        Ok(())
    }

    fn repeat_read(&mut self, cut: &mut Cut, read: &crate::journal::SourceRead) -> Result<(), SqlError> {
        let Some(source) = self.sources.get_mut(&read.source) else { return Ok(()) };
        let (taken, relation) = (source.repeat(read)?, source.relation.clone());
        for rows in taken {
            let put = self.put_prepared(cut, &relation, rows.prepared);
            self.put_bad(cut, read.source, &rows.bad);
            if let (Err(error), Some(source)) = (put, self.sources.get_mut(&read.source)) {
                source.fail(error.message);
            }
        }
        self.note_source(read.source);
        Ok(())
    }

    fn repeat_change(&mut self, cut: &mut Cut, change: Change) -> Result<(), SqlError> {
        match change {
            Change::Define(object) => {
                let made = self.make(&object)?;
                if let Some(sink) = made.sink {
                    let first = self.first_rows(sink.from)?;
                    self.restore_sink(object.id, sink, first, None)?;
                }
                let (reply, _) = oneshot::channel();
                let Made { relations, spec, source, .. } = made;
                let id = object.id;
                self.define(cut, Define { relations, spec, object, source, sink: None, reply });
                if let Some(source) = self.sources.get_mut(&id) {
                    source.hold();
                }
            }
            Change::Drop(ids) => {
                self.remove(cut, &ids);
                self.shared.change_catalog(|catalog| ids.iter().for_each(|id| catalog.remove(*id)));
            }
            Change::Stop(view) => {
                // Now it may have gone well: with other workers, or more room.
                self.stop_view(view, "it had stopped before the server was started again");
                self.removals.retain(|own| *own != view);
                cut.begin.commands.push(Command::Remove(view));
            }
            Change::Unbuild(views) => self.repeat_unbuild(cut, &views),
            Change::Rebuild(_) => self.repeat_rebuild(cut),
            Change::Relive(_) => self.repeat_relive(cut),
        }
        Ok(())
    }

    /// Begins an epoch of the journal again.
    fn begin_repeated(&mut self, cut: Cut) {
        let epoch = self.next_epoch;
        self.begin_any(cut);
        debug_assert_eq!(self.next_epoch, epoch + 1, "an epoch of the journal was not begun");
    }

    fn set_counts(&self, counts: crate::journal::Counts) {
        let mut stats = self.shared.stats.lock();
        let own = stats.counters(counts.relation);
        (own.rows_in, own.applied, own.late, own.bad) = (counts.rows_in, counts.applied, counts.late, counts.bad);
    }

    /// The journal is repeated: from now on it goes on.
    fn settle(&mut self) {
        self.repeating = false;
        self.sources.values_mut().for_each(|source| source.release());
        let ids: Vec<RelationId> = self.sources.keys().copied().collect();
        ids.into_iter().for_each(|id| self.note_source(id));
        if let Some(durable) = &mut self.durable {
            durable.last = self.shared.env.monotonic_nanos();
        }
    }
}

/// What a sink had before.
#[derive(Default)]
struct SinkBefore {
    first: Vec<(Epoch, Delta)>,
    given_up: Option<String>,
}

fn saved_sinks(
    directory: &Directory,
    runs: &BTreeMap<Of, Vec<&Run>>,
    packs: &mut Packs,
    store: &Checkpoints<FolderStore>,
) -> Result<BTreeMap<RelationId, SinkBefore>, SqlError> {
    let mut sinks = BTreeMap::new();
    for saved in &directory.sinks {
        let mut first = Vec::new();
        for run in runs.get(&Of::Undelivered { sink: saved.sink }).into_iter().flatten() {
            let pack = packs.get(store, &run.pack).map_err(failed)?;
            first.extend(by_epoch(&read_run(run, &pack).map_err(failed)?.0)?);
        }
        sinks.insert(saved.sink, SinkBefore { first, given_up: saved.given_up.clone() });
    }
    Ok(sinks)
}

/// Changes with their epoch as the last column, by epoch.
fn by_epoch(delta: &Delta) -> Result<Vec<(Epoch, Delta)>, SqlError> {
    let mut columns = delta.rows.columns().to_vec();
    let epochs = columns.pop().ok_or_else(|| failed("changes without their epoch"))?;
    let epochs = epochs.as_primitive_opt::<UInt64Type>().ok_or_else(|| failed("an epoch is not a number"))?;
    let fields = delta.rows.schema_ref().fields()[..columns.len()].to_vec();
    let plain = delta.with_columns(relaxed(&Arc::new(Schema::new(fields))), columns);
    let (mut all, mut from) = (Vec::new(), 0);
    while from < epochs.len() {
        let epoch = epochs.value(from);
        let same = epochs.values()[from..].iter().take_while(|e| **e == epoch).count();
        all.push((epoch, plain.slice(from, same)));
        from += same;
    }
    Ok(all)
}

/// Wakes the conductor now and then, so that a checkpoint is begun when nothing else happens. Ends when what it
/// gives is dropped.
fn tick(
    wake: Arc<dyn Fn() + Send + Sync>,
    every: std::time::Duration,
) -> std::io::Result<crossbeam_channel::Sender<()>> {
    let (ticker, ends) = crossbeam_channel::bounded::<()>(0);
    let pause = every.clamp(std::time::Duration::from_millis(10), std::time::Duration::from_secs(1));
    std::thread::Builder::new().name("ticker".into()).spawn(move || {
        while ends.recv_timeout(pause) == Err(crossbeam_channel::RecvTimeoutError::Timeout) {
            wake();
        }
    })?;
    Ok(ticker)
}

/// Nobody knows any more what is on disk: the process ends at once, and recovers when it is started again.
fn end_process(reason: &str) {
    tracing::error!(reason, "the disk failed; ending at once, nothing more is acknowledged");
    std::process::exit(74);
}

#[cfg(test)]
mod tests;
