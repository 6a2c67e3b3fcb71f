//! What happens is written down: epochs in the journal as they are cut, and now and then a checkpoint.
//!
//! An epoch is published once its entry is durable and the workers are done with it. A checkpoint is taken between
//! two epochs: when it is due, no epoch is begun until those in flight are published; the next one then carries
//! the order to save to all workers before its own rows. Writing it goes on beside the epochs that follow.

use std::collections::BTreeMap;
use std::thread::JoinHandle;

use tidemill_dataflow::{Command, Saved, saved_shapes};
use tidemill_delta::{Epoch, hash_bytes};
use tidemill_plan::{Dataflow, RelationId};
use tidemill_storage::{DataFolder, Log, RecordNumber};

use super::Conductor;
use super::cut::Cut;
use crate::checkpoint::{Directory, Job, Keeper, SavedObject, SavedRelation};
use crate::engine::IDS_PER_OBJECT;
use crate::journal::{Counts, Unlogged};

/// Where the journal has an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Logged {
    /// Nowhere: nothing is written down, or it was read from there.
    Not,
    /// It waits for room.
    Waiting,
    /// With this record it is complete.
    Record(RecordNumber),
}

/// The journal and the checkpoints.
pub(super) struct Durable {
    /// Held for its lock.
    pub(super) _folder: DataFolder,
    pub(super) log: Log,
    pub(super) writer: JoinHandle<()>,
    pub(super) keeper: Keeper,
    /// Nanoseconds between checkpoints.
    pub(super) every: u64,
    /// When the last one was begun.
    pub(super) last: u64,
    /// The first epoch that is not in the last one that was begun.
    pub(super) next: Epoch,
    /// The next one has to have all state, not only what has changed.
    pub(super) save_all: bool,
    /// The epoch whose entry waits for room in the log.
    pub(super) unlogged: Option<(Epoch, Unlogged)>,
    /// The checkpoint that waits for what the workers tell in this epoch.
    pub(super) saving: Option<(Epoch, Job)>,
    /// Wakes the conductor now and then while this is held.
    pub(super) _ticker: crossbeam_channel::Sender<()>,
}

impl Durable {
    /// Writes what is queued, and lets go of the folder.
    pub(super) fn close(self) {
        drop(self.keeper);
        self.log.close();
        if self.writer.join().is_err() {
            tracing::error!("the log's thread panicked");
        }
    }
}

impl Conductor {
    /// Whether an epoch may be begun: the last one's entry is in the log, and no checkpoint waits for the epochs in flight.
    pub(super) fn is_ready_to_cut(&mut self) -> bool {
        let due = self.checkpoint_is_due();
        let Some(durable) = &mut self.durable else { return true };
        if let Some((epoch, entry)) = &mut durable.unlogged {
            match entry.append(&durable.log) {
                Ok(None) => return false,
                Ok(Some(record)) => {
                    let epoch = *epoch;
                    durable.unlogged = None;
                    self.in_flight
                        .iter_mut()
                        .filter(|flight| flight.epoch == epoch)
                        .for_each(|flight| flight.logged = Logged::Record(record));
                }
                // The log's own handler ends the process.
                Err(error) => {
                    tracing::error!(%error, "the journal takes nothing any more");
                    return false;
                }
            }
        }
        !due || self.in_flight.is_empty()
    }

    /// The state saved so far of views that are built anew is of no use any more.
    pub(super) fn save_all_next(&mut self) {
        if let Some(durable) = &mut self.durable {
            durable.save_all = true;
        }
    }

    fn checkpoint_is_due(&self) -> bool {
        let Some(durable) = &self.durable else { return false };
        let changed = self.next_epoch > durable.next;
        let time = self.shared.env.monotonic_nanos().saturating_sub(durable.last) >= durable.every;
        // A view that has not caught up would have to begin again.
        let quiet = self.catching_up.is_empty() && self.rebuild.is_none() && !self.repeating;
        changed && time && quiet && durable.saving.is_none() && !durable.keeper.saving.busy()
    }

    /// Begins a checkpoint with an epoch, if one is due; nothing is in flight then.
    pub(super) fn begin_checkpoint(&mut self, cut: &mut Cut) {
        // It may have become due since this cut was allowed to begin, with epochs in flight: what they change is not published.
        if !self.in_flight.is_empty() || !self.checkpoint_is_due() {
            return;
        }
        let mut directory = self.directory();
        let (sinks, undelivered) = self.saved_sinks();
        directory.sinks = sinks;
        let state = self.shared.published.state.read();
        let Some(durable) = &mut self.durable else { return };
        let all = durable.save_all || durable.keeper.saving.failed.lock().is_some();
        let since = durable.keeper.saving.epoch.load(std::sync::atomic::Ordering::Acquire);
        let rows = state.shown.iter().filter_map(|(id, s)| Some((*id, s.rows.as_ref()?.runs().to_vec())));
        let changes = state.shown.iter().map(|(id, shown)| {
            let new = shown.history.iter().skip_while(|(epoch, _)| *epoch <= since);
            (*id, new.cloned().collect())
        });
        let changes = changes.collect();
        let rows = rows.collect();
        drop(state);
        let mut keys = BTreeMap::new();
        for spec in self.specs.values() {
            let Ok(nodes) = saved_shapes(spec) else { continue };
            for (node, shapes) in nodes.into_iter().enumerate() {
                keys.extend(shapes.into_iter().enumerate().map(|(part, s)| ((spec.view, node, part), s.key)));
            }
        }
        let log_position = durable.log.end();
        let job = Job { directory, log_position, rows, changes, undelivered, saved: Vec::new(), keys, all };
        durable.saving = Some((self.next_epoch, job));
        durable.last = self.shared.env.monotonic_nanos();
        // The epoch that begins with this is not in it, but it may have nothing else.
        durable.next = self.next_epoch + 1;
        durable.save_all = false;
        cut.begin.commands.push(Command::Save { all });
    }

    /// All that the conductor knows as of the last epoch.
    fn directory(&self) -> Directory {
        let stats = self.shared.stats.lock();
        let failed = |id: &RelationId| {
            let stopped = self.failed.contains(id);
            stopped.then(|| stats.peek(*id).and_then(|c| c.reason.clone()).unwrap_or_default())
        };
        let objects = self.objects.values().map(|object| SavedObject {
            failed: failed(&object.id),
            plan: self.specs.get(&object.id).map(|spec| plan_hash(&spec.dataflow)),
            object: object.clone(),
        });
        let state = self.shared.published.state.read();
        let relations = state.shown.iter().map(|(id, shown)| SavedRelation {
            relation: *id,
            complete_after: shown.complete_after,
            last_epoch: shown.last_epoch,
            changes: shown.changes,
        });
        Directory {
            epoch: self.next_epoch - 1,
            next_id: self.shared.next_id(),
            workers: self.workers(),
            objects: objects.collect(),
            sources: self.sources.values().map(|source| source.saved()).collect(),
            in_force: self.in_force.iter().map(|(id, at)| (*id, *at)).collect(),
            reached: self.reached.iter().map(|(id, at)| (*id, *at)).collect(),
            counts: self.relations.keys().filter_map(|id| counts(&stats, *id)).collect(),
            relations: relations.collect(),
            ..Directory::default()
        }
    }

    /// Takes a part of a view's state for the checkpoint in the making.
    pub(super) fn take_saved(&mut self, epoch: Epoch, saved: Saved) {
        let saving = self.durable.as_mut().and_then(|durable| durable.saving.as_mut());
        if let Some((_, job)) = saving.filter(|(at, _)| *at == epoch) {
            job.saved.push(saved);
        }
    }

    /// Hands a checkpoint to its writer once the workers have told everything.
    pub(super) fn end_saving(&mut self, epoch: Epoch) {
        let Some(durable) = &mut self.durable else { return };
        if let Some((_, job)) = durable.saving.take_if(|(at, _)| *at == epoch) {
            durable.keeper.write(job);
        }
    }

    /// Puts an epoch in the journal.
    pub(super) fn write_down(&mut self, cut: &mut Cut, epoch: Epoch) -> Logged {
        let sources: Vec<_> = self.sources.values_mut().filter_map(|source| source.take_reads()).collect();
        if self.durable.is_none() || self.repeating {
            return Logged::Not;
        }
        let mut entry = std::mem::take(&mut cut.entry);
        let touched: std::collections::BTreeSet<RelationId> = entry
            .rows
            .iter()
            .map(|put| put.relation - put.relation % IDS_PER_OBJECT)
            .chain(sources.iter().map(|read| read.source))
            .chain(std::mem::take(&mut cut.counted))
            .collect();
        {
            let stats = self.shared.stats.lock();
            entry.header.counts = touched.iter().filter_map(|id| counts(&stats, *id)).collect();
        }
        entry.header.reached = touched.iter().filter_map(|id| Some((*id, *self.reached.get(id)?))).collect();
        entry.header.epoch = epoch;
        entry.header.micros = cut.arrival;
        entry.header.errors_until = self.in_flight.front().map_or(epoch, |flight| flight.epoch) - 1;
        entry.header.watermarks = cut.begin.watermarks.clone();
        entry.header.reads = sources;
        let Some(durable) = &mut self.durable else { return Logged::Not };
        let bytes = entry.encode().expect("an epoch's rows can be written as Arrow IPC");
        let mut unlogged = Unlogged::new(bytes);
        match unlogged.append(&durable.log) {
            Ok(Some(record)) => Logged::Record(record),
            Ok(None) => {
                durable.unlogged = Some((epoch, unlogged));
                Logged::Waiting
            }
            Err(error) => {
                tracing::error!(%error, "the journal takes nothing any more");
                durable.unlogged = Some((epoch, unlogged));
                Logged::Waiting
            }
        }
    }

    /// Whether an epoch that is in the journal like this may be seen.
    pub(super) fn is_durable(&self, logged: Logged) -> bool {
        match (logged, &self.durable) {
            (Logged::Record(record), Some(durable)) => durable.log.durable() > record,
            (Logged::Waiting, _) => false,
            (Logged::Not, _) | (_, None) => true,
        }
    }
}

fn counts(stats: &crate::status::Stats, relation: RelationId) -> Option<Counts> {
    let found = stats.peek(relation)?;
    let crate::status::Counters { rows_in, applied, late, bad, .. } = *found;
    Some(Counts { relation, rows_in, applied, late, bad })
}

/// Tells whether two dataflows are the same, so that one may go on with the other's state.
pub(super) fn plan_hash(dataflow: &Dataflow) -> u64 {
    hash_bytes(format!("{:?}", tidemill_plan::explain(dataflow)).as_bytes())
}
