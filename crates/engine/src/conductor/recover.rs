//! Coming back: the last checkpoint, then the journal's epochs again, one by one, as they were.
//!
//! Nothing is served before this has ended. Sinks are not sent again what they have committed, and sources read on only
//! when the last epoch was repeated.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidemill_dataflow::Command;
use tidemill_delta::Delta;
use tidemill_plan::RelationId;
use tidemill_sql::{RelationKind, SqlError};
use tidemill_storage::{Checkpoints, DataFolder, Handlers, Log, LogOptions, Opened, StorageError};
use tokio::sync::oneshot;

use super::cut::Cut;
use super::durable::Durable;
use super::{Conductor, Define};
use crate::catalog::CatalogState;
use crate::checkpoint::{Found, Keeper, Restored, SavedSink, Store, find};
use crate::config::Data;
use crate::define::Made;
use crate::journal::{Assembler, Change, Counts, Entry, SourceRead};

/// What could not be kept or brought back.
pub(super) fn failed(error: impl std::fmt::Display) -> SqlError {
    SqlError::new("58030", error.to_string())
}

impl Conductor {
    /// Opens the data folder, if there is one, and brings back what is in it.
    pub(super) fn recover(&mut self) -> Result<(), SqlError> {
        let Some(data) = self.shared.config.data.clone() else { return Ok(()) };
        let began = self.shared.env.monotonic_nanos();
        let folder = DataFolder::open(&self.shared.env, &data.folder).map_err(failed)?;
        self.shared.incarnation.store(folder.incarnation(), Ordering::Relaxed);
        self.shared.memory.iter().for_each(|memory| memory.begin_life(folder.incarnation()));
        let opened = self.open_log(&folder)?;
        if let Some(torn) = &opened.torn {
            tracing::warn!(
                file = %torn.path.display(), offset = torn.offset, bytes = torn.bytes, cause = torn.cause,
                "the end of the log had not been written completely and was cut off; none of it had been acknowledged"
            );
        }
        let Opened { log, writer, .. } = opened;
        let Found { checkpoints, newest, moved } =
            find(data.checkpoints.as_ref(), &folder, &log, self.bytes_of_packs()).map_err(failed)?;
        let writer = writer.spawn().map_err(failed)?;
        *self.shared.log.lock() = Some(log.clone());
        self.repeating = true;
        self.commands.push(Command::Record);
        // Without a checkpoint everything has to be in the log.
        let from = newest.as_ref().map_or(0, |(manifest, _)| manifest.log_position);
        let restored = newest.map(|(manifest, packs)| self.restore(&checkpoints, &manifest, packs)).transpose()?;
        let checkpoint = restored.as_ref().map(|r| r.directory.epoch);
        let held = restored.filter(|_| !moved);
        self.keep_on(&data, folder, checkpoints, (log.clone(), writer), held)?;
        if let (true, Some(durable)) = (moved, &mut self.durable) {
            // The first checkpoint in the other store does not wait for a change.
            durable.next = 0;
        }
        let repeated = self.repeat_journal(&log, from)?;
        self.settle();
        let (epoch, took) = (self.next_epoch - 1, (self.shared.env.monotonic_nanos() - began) / 1_000_000);
        tracing::info!(
            folder = %data.folder.display(), epoch, checkpoint, repeated, milliseconds = took,
            "restored what was there"
        );
        Ok(())
    }

    /// How many bytes of a checkpoint's files may be in memory while it is read or written.
    fn bytes_of_packs(&self) -> usize {
        self.shared.config.spill.as_ref().map_or(usize::MAX / 2, |spill| spill.state_bytes / 8)
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
        checkpoints: Checkpoints<Store>,
        (log, writer): (Log, std::thread::JoinHandle<()>),
        restored: Option<Restored>,
    ) -> Result<(), SqlError> {
        let (incarnation, last) = (folder.incarnation(), self.shared.env.monotonic_nanos());
        // State that other workers saved is replaced as a whole.
        let save_all = restored.as_ref().is_none_or(|restored| restored.reshaped);
        let fatal: Arc<dyn Fn(&str) + Send + Sync> = Arc::new(end_process);
        let wake = self.shared.waker();
        let keeper = Keeper::start(
            checkpoints,
            log.clone(),
            incarnation,
            restored.unwrap_or_default(),
            self.shared.saving.clone(),
            self.bytes_of_packs(),
            wake,
            fatal,
        )
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

    fn repeat_read(&mut self, cut: &mut Cut, read: &SourceRead) -> Result<(), SqlError> {
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
                    self.restore_sink(object.id, sink, first, SavedSink::default())?;
                }
                let (reply, _) = oneshot::channel();
                let Made { relations, spec, source, .. } = made;
                let id = object.id;
                let enter = Box::new(|_: &mut CatalogState| {});
                self.define(cut, Define { relations, spec, object, source, sink: None, enter, reply });
                self.waiting.clear();
                if let Some(source) = self.sources.get_mut(&id) {
                    source.hold();
                }
            }
            Change::Drop(ids) => {
                self.discard_sinks(&ids);
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
            Change::ResumeSink { sink, after } => self.repeat_resume(sink, after)?,
        }
        Ok(())
    }

    /// Begins an epoch of the journal again.
    fn begin_repeated(&mut self, cut: Cut) {
        let epoch = self.next_epoch;
        self.begin_any(cut);
        debug_assert_eq!(self.next_epoch, epoch + 1, "an epoch of the journal was not begun");
    }

    pub(super) fn set_counts(&self, counts: Counts) {
        let mut stats = self.shared.stats.lock();
        let own = stats.counters(counts.relation);
        (own.rows_in, own.applied, own.late, own.bad) = (counts.rows_in, counts.applied, counts.late, counts.bad);
    }

    /// The journal is repeated: from now on it goes on.
    fn settle(&mut self) {
        self.repeating = false;
        // Where a view and the one that it was to replace are both there, the new one stays if it was complete.
        for object in self.objects.values() {
            if object.replaces.iter().any(|id| self.objects.contains_key(id)) {
                let complete = !self.failed.contains(&object.id) && !self.catching_up.contains_key(&object.id);
                if complete { self.replaced.push(object.replaces.clone()) } else { self.abandoned.push(object.id) }
            }
        }
        self.release_sinks();
        self.sources.values_mut().for_each(|source| source.release());
        let ids: Vec<RelationId> = self.sources.keys().copied().collect();
        ids.into_iter().for_each(|id| self.note_source(id));
        if let Some(durable) = &mut self.durable {
            durable.last = self.shared.env.monotonic_nanos();
        }
    }
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
