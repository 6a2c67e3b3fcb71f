//! Writes checkpoints, on a thread of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use tidemill_dataflow::Saved;
use tidemill_delta::{Delta, Epoch};
use tidemill_plan::RelationId;
use tidemill_storage::{Checkpoints, FileEntry, Log, Manifest, RecordNumber};

use super::merge::{Loaded, changes_after, merge, with_epochs};
use super::pack::{Packing, Packs, StoreError, read_run};
use super::{DIRECTORY, Directory, FORMATS, Of, Run, Store};

/// Checkpoints that are kept.
const KEEP: usize = 2;
/// What was put aside is copied in pieces of about so many bytes.
const PIECE: usize = 4 << 20;

/// What is to be written.
pub(crate) struct Job {
    /// All but the runs.
    pub(crate) directory: Directory,
    /// The first record of the log that is not in it.
    pub(crate) log_position: RecordNumber,
    /// Each relation's rows; shared with readers.
    pub(crate) rows: Vec<(RelationId, Vec<Arc<Delta>>)>,
    /// Each relation's changes since the last checkpoint, epoch by epoch.
    pub(crate) changes: Vec<(RelationId, Vec<(Epoch, Delta)>)>,
    /// What sinks may not have delivered, likewise.
    pub(crate) undelivered: Vec<(RelationId, Vec<(Epoch, Delta)>)>,
    /// What operators remember.
    pub(crate) saved: Vec<Saved>,
    /// How many leading columns of a part of an operator's state are its key.
    pub(crate) keys: BTreeMap<(RelationId, usize, usize), Option<usize>>,
    /// All of it is there, so nothing that was saved before holds any more.
    pub(crate) all: bool,
}

/// How the writing goes; shared with the conductor.
#[derive(Default)]
pub(crate) struct Saving {
    /// The epoch of the last checkpoint.
    pub(crate) epoch: AtomicU64,
    /// How many were written.
    pub(crate) written: AtomicU64,
    /// The bytes of the last checkpoint's new files.
    pub(crate) bytes: AtomicU64,
    /// Why the last one failed.
    pub(crate) failed: Mutex<Option<String>>,
    busy: AtomicU64,
}

impl Saving {
    /// Whether a checkpoint is being written.
    pub(crate) fn busy(&self) -> bool {
        self.busy.load(Ordering::Acquire) > 0
    }
}

/// The thread and the way to it.
pub(crate) struct Keeper {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    pub(crate) saving: Arc<Saving>,
}

/// The checkpoint that an engine begins with; nothing, if there is none.
#[derive(Default)]
pub(crate) struct Restored {
    pub(crate) directory: Directory,
    pub(crate) files: Vec<FileEntry>,
    /// The rows of relations and where they are.
    pub(crate) rows: Vec<(Arc<Delta>, Run)>,
    /// State was given to the workers in another form than it is in there, so that the next checkpoint has to have all of it.
    pub(crate) reshaped: bool,
}

/// A relation's runs that are in a pack already; the delta is held so that its address stays its own.
type Known = BTreeMap<usize, (Arc<Delta>, Run)>;

impl Keeper {
    /// Begins with the checkpoint that was restored. About `most` bytes of older
    /// files stay in memory while one is written.
    pub(crate) fn start(
        store: Checkpoints<Store>,
        log: Log,
        incarnation: u64,
        restored: Restored,
        saving: Arc<Saving>,
        most: usize,
        wake: Arc<dyn Fn() + Send + Sync>,
        fatal: Arc<dyn Fn(&str) + Send + Sync>,
    ) -> std::io::Result<Keeper> {
        let Restored { directory, files, rows, .. } = restored;
        saving.epoch.store(directory.epoch, Ordering::Release);
        let known = rows.into_iter().map(|(delta, run)| (address(&delta), (delta, run))).collect();
        let mut writer = Writer { store, incarnation, written: 0, runs: directory.runs, files, known, most };
        let (jobs, queue): (_, Receiver<Job>) = bounded(1);
        let shared = saving.clone();
        let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(move || {
            while let Ok(job) = queue.recv() {
                let epoch = job.directory.epoch;
                match writer.write(job) {
                    Ok((release, bytes)) => {
                        log.release(release);
                        shared.epoch.store(epoch, Ordering::Release);
                        shared.bytes.store(bytes, Ordering::Relaxed);
                        shared.written.fetch_add(1, Ordering::Relaxed);
                        *shared.failed.lock() = None;
                    }
                    Err(StoreError::Storage(error)) if error.is_fatal() => fatal(&error.to_string()),
                    Err(error) => {
                        tracing::warn!(epoch, %error, "a checkpoint could not be written; the one before holds");
                        *shared.failed.lock() = Some(error.to_string());
                    }
                }
                shared.busy.store(0, Ordering::Release);
                wake();
            }
        })?;
        Ok(Keeper { jobs: Some(jobs), thread: Some(thread), saving })
    }

    /// Hands a checkpoint over; there must be none in the making.
    pub(crate) fn write(&self, job: Job) {
        self.saving.busy.store(1, Ordering::Release);
        // The thread ends only when this does.
        let _ = self.jobs.as_ref().map(|jobs| jobs.send(job));
    }
}

impl Drop for Keeper {
    /// Finishes what is begun.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the checkpoints' thread panicked");
        }
    }
}

fn address(delta: &Arc<Delta>) -> usize {
    Arc::as_ptr(delta) as usize
}

struct Writer {
    store: Checkpoints<Store>,
    incarnation: u64,
    written: u64,
    /// The runs of the last checkpoint.
    runs: Vec<Run>,
    /// Its files.
    files: Vec<FileEntry>,
    known: Known,
    /// How many bytes of files may be held in memory.
    most: usize,
}

/// A checkpoint in the making.
struct Making {
    packing: Packing,
    packs: Packs,
    /// Runs by what they are a part of, eldest first.
    runs: BTreeMap<Of, Vec<Run>>,
    /// Relations' rows.
    rows: Vec<(Arc<Delta>, Run)>,
    /// The epochs up to which relations' changes are not kept any more.
    complete_after: BTreeMap<RelationId, Epoch>,
}

impl Writer {
    /// Writes a checkpoint. Gives the first record of the log that is still needed, and how many bytes are new.
    fn write(&mut self, mut job: Job) -> Result<(RecordNumber, u64), StoreError> {
        if let Some(reason) = job.saved.iter().find_map(|saved| saved.refused.as_ref()) {
            return Err(StoreError::Refused(reason.clone()));
        }
        // A number is never used twice, not even after a failure.
        self.written += 1;
        let name = format!("{:020}-{:020}", self.incarnation, self.written);
        // What an attempt before has put, and did not commit, is garbage.
        self.store.abandon();
        let mut making = Making {
            packing: Packing::new(format!("pack-{name}")),
            packs: Packs::new(&self.files, self.most),
            runs: BTreeMap::new(),
            rows: Vec::new(),
            complete_after: job.directory.relations.iter().map(|r| (r.relation, r.complete_after)).collect(),
        };
        self.carry_over(&job, &mut making);
        self.add_asides(&job.saved, &mut making)?;
        self.add_state(&job.saved, &job.keys, &mut making)?;
        self.add_changes(&job.changes, |relation| Of::Changes { relation }, &mut making)?;
        self.add_changes(&job.undelivered, |sink| Of::Undelivered { sink }, &mut making)?;
        self.merge_runs(&mut making)?;
        self.add_rows(&job.rows, &mut making)?;
        self.copy_from_sparse(&mut making)?;

        let mut files = making.packing.finish(&mut self.store)?;
        let mut runs: Vec<Run> = making.runs.into_values().flatten().collect();
        runs.extend(making.rows.iter().map(|(_, run)| run.clone()));
        let used: BTreeSet<&str> = runs.iter().map(|run| run.pack.as_str()).collect();
        job.directory.format = *FORMATS.end();
        job.directory.runs = runs.clone();
        let text = serde_json::to_vec(&job.directory).map_err(|e| StoreError::Directory(e.to_string()))?;
        files.push(self.store.put_file(&format!("{DIRECTORY}{name}"), text)?);
        let new: u64 = files.iter().map(|file| file.length).sum();
        files.extend(self.files.iter().filter(|file| used.contains(file.name.as_str())).cloned());
        let Manifest { files, .. } = self.store.commit(job.directory.epoch, job.log_position, files)?;
        (self.runs, self.files) = (runs, files);
        self.known = making.rows.into_iter().map(|(delta, run)| (address(&delta), (delta, run))).collect();
        let release = self.store.collect_garbage(KEEP)?;
        Ok((release, new))
    }

    /// The runs of the last checkpoint that still hold.
    fn carry_over(&self, job: &Job, making: &mut Making) {
        let relations = &making.complete_after;
        let objects: BTreeSet<RelationId> = job.directory.objects.iter().map(|o| o.object.id).collect();
        let replaced: BTreeSet<_> =
            job.saved.iter().filter(|s| s.whole).map(|s| (s.view, s.node, s.part, s.worker)).collect();
        let aside: BTreeSet<_> =
            job.saved.iter().filter(|s| s.aside.is_some()).map(|s| (s.view, s.node, s.worker)).collect();
        for run in &self.runs {
            let holds = match run.of {
                // These are known by their address, and these are told anew.
                Of::Rows { .. } | Of::Undelivered { .. } => false,
                // Subscribers can only ask for what came after.
                Of::Changes { relation } => relations.get(&relation).is_some_and(|after| run.until > *after),
                Of::State { view, node, part, worker, .. } => {
                    let gone = replaced.contains(&(view, node, part, worker)) || aside.contains(&(view, node, worker));
                    !job.all && objects.contains(&view) && !gone
                }
                Of::Aside { view, node, worker, .. } => {
                    !job.all && objects.contains(&view) && !aside.contains(&(view, node, worker))
                }
            };
            if holds {
                making.runs.entry(run.of).or_default().push(run.clone());
            }
        }
    }

    /// What operators have put aside; runs that are in a pack already stay there.
    fn add_asides(&mut self, saved: &[Saved], making: &mut Making) -> Result<(), StoreError> {
        for saved in saved {
            for aside in saved.aside.iter().flatten() {
                let Saved { view, node, worker, .. } = *saved;
                let of = Of::Aside { view, node, worker, name: aside.name() };
                let mut pieces: Vec<Run> = self.runs.iter().filter(|run| run.of == of).cloned().collect();
                if pieces.is_empty() {
                    let (packing, store) = (&mut making.packing, &mut self.store);
                    aside.pieces(PIECE, |piece| {
                        pieces.push(packing.add_piece(store, of, aside.keys(), &piece)?);
                        Ok::<(), StoreError>(())
                    })?;
                }
                making.runs.insert(of, pieces);
            }
        }
        Ok(())
    }

    fn add_state(
        &mut self,
        saved: &[Saved],
        keys: &BTreeMap<(RelationId, usize, usize), Option<usize>>,
        making: &mut Making,
    ) -> Result<(), StoreError> {
        let mut by_part: BTreeMap<Of, Vec<&Saved>> = BTreeMap::new();
        for part in saved.iter().filter(|saved| saved.aside.is_none()) {
            let Saved { view, node, part: number, worker, .. } = *part;
            let key = keys.get(&(view, node, number)).copied().flatten();
            by_part.entry(Of::State { view, node, part: number, worker, key }).or_default().push(part);
        }
        for (of, parts) in by_part {
            let loaded: Vec<Loaded> = parts.iter().map(|p| (p.delta.clone(), p.gone.clone())).collect();
            // All parts of one save have one shape.
            let whole = loaded.len() == 1;
            let (delta, gone) = if whole { loaded[0].clone() } else { merge(of, &loaded, false)? };
            if delta.is_empty() && gone.as_ref().is_none_or(Delta::is_empty) {
                continue;
            }
            let run = making.packing.add(&mut self.store, of, &delta, gone.as_ref())?;
            making.runs.entry(of).or_default().push(run);
        }
        Ok(())
    }

    fn add_changes(
        &mut self,
        changes: &[(RelationId, Vec<(Epoch, Delta)>)],
        of: impl Fn(RelationId) -> Of,
        making: &mut Making,
    ) -> Result<(), StoreError> {
        for (id, epochs) in changes {
            let Some(delta) = with_epochs(epochs)?.filter(|delta| !delta.is_empty()) else { continue };
            let of = of(*id);
            let run = making.packing.add(&mut self.store, of, &delta, None)?;
            making.runs.entry(of).or_default().push(run);
        }
        Ok(())
    }

    /// Merges a run with the one before it once it is at least half as long: a row is written a logarithmic
    /// number of times.
    fn merge_runs(&mut self, making: &mut Making) -> Result<(), StoreError> {
        let merged = |of: &Of| !matches!(of, Of::Aside { .. });
        let owner = |of: &Of| match *of {
            Of::Aside { view, node, worker, .. } => Some((view, node, worker)),
            _ => None,
        };
        let asides: BTreeSet<_> = making.runs.keys().filter_map(owner).collect();
        let after_runs = |of: &Of| match *of {
            Of::State { view, node, worker, .. } => asides.contains(&(view, node, worker)),
            _ => false,
        };
        let parts: Vec<Of> = making.runs.keys().copied().filter(merged).collect();
        for of in parts {
            let Some(runs) = making.runs.get_mut(&of) else { continue };
            let mut from = runs.len().saturating_sub(1);
            let (mut rows, columns) = runs.last().map_or((0, 0), |run| (run.rows, run.columns));
            while from > 0 && rows * 2 >= runs[from - 1].rows && runs[from - 1].columns == columns {
                from -= 1;
                rows += runs[from].rows;
            }
            if from + 1 >= runs.len() {
                continue;
            }
            let tail = runs.split_off(from);
            let mut loaded = Vec::with_capacity(tail.len());
            for run in &tail {
                loaded.push(match making.packing.read(&self.store, run)? {
                    Some(own) => own,
                    None => read_run(run, &making.packs.get(&self.store, &run.pack)?)?,
                });
            }
            // What was put aside is before all of them.
            let eldest = from == 0 && !after_runs(&of);
            let (mut delta, gone) = merge(of, &loaded, eldest)?;
            if let Of::Changes { relation } = of {
                delta = changes_after(&delta, making.complete_after.get(&relation).copied().unwrap_or(0))?;
            }
            if !delta.is_empty() || gone.as_ref().is_some_and(|gone| !gone.is_empty()) {
                let run = making.packing.add(&mut self.store, of, &delta, gone.as_ref())?;
                if let Some(runs) = making.runs.get_mut(&of) {
                    runs.push(run);
                }
            }
        }
        making.runs.retain(|_, runs| !runs.is_empty());
        Ok(())
    }

    fn add_rows(&mut self, rows: &[(RelationId, Vec<Arc<Delta>>)], making: &mut Making) -> Result<(), StoreError> {
        for (relation, runs) in rows {
            let of = Of::Rows { relation: *relation };
            for delta in runs {
                let run = match self.known.get(&address(delta)) {
                    Some((_, run)) => run.clone(),
                    None => making.packing.add(&mut self.store, of, delta, None)?,
                };
                making.rows.push((delta.clone(), run));
            }
        }
        Ok(())
    }

    /// Copies what is left of packs that are mostly dead.
    fn copy_from_sparse(&mut self, making: &mut Making) -> Result<(), StoreError> {
        let Making { packing, packs, runs, rows, .. } = making;
        let mut live: BTreeMap<String, u64> = BTreeMap::new();
        for run in runs.values().flatten().chain(rows.iter().map(|(_, run)| run)) {
            *live.entry(run.pack.clone()).or_default() += run.bytes as u64;
        }
        let is_sparse = |file: &&FileEntry| live.get(&file.name).is_some_and(|live| live * 2 < file.length);
        let sparse: BTreeSet<String> = self.files.iter().filter(is_sparse).map(|file| file.name.clone()).collect();
        let all = runs.values_mut().flatten().chain(rows.iter_mut().map(|(_, run)| run));
        for run in all.filter(|run| sparse.contains(&run.pack)) {
            let pack = packs.get(&self.store, &run.pack)?;
            *run = packing.copy(&mut self.store, run, &pack)?;
        }
        Ok(())
    }
}
