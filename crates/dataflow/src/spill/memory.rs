//! How much memory operators may take, and the folder where the rest goes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;
use tidemill_delta::{Delta, RowsByContent};
use tidemill_env::Disk;
use tidemill_plan::{NodeId, RelationId};

use super::aside::Aside;
use super::run::RunName;
use crate::{Entries, OperatorError};

/// A filter of so many bytes is never too large.
const LEAST_FILTER: usize = 64 << 10;

/// The memory of all operators of a process; clones share it.
#[derive(Clone)]
pub struct Memory {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    shared: Arc<Shared>,
}

struct Shared {
    /// Bytes that all may take.
    limit: usize,
    /// Bytes that all take.
    used: AtomicUsize,
    /// Operators that share it.
    members: AtomicUsize,
    /// Names for files.
    files: AtomicU64,
    /// Which life of the data folder this process is.
    incarnation: AtomicU64,
    /// Whether operators are to use it.
    in_use: AtomicBool,
    /// What a checkpoint had of operators that are not built yet.
    given: Mutex<BTreeMap<Owner, Vec<Aside>>>,
}

/// An operator on a worker.
pub(super) type Owner = (RelationId, NodeId, usize);

/// Where runs are kept.
#[derive(Clone)]
pub(super) struct Shelf {
    pub(super) disk: Arc<dyn Disk>,
    folder: PathBuf,
    shared: Arc<Shared>,
}

impl Shelf {
    /// A name for a new run, and its file.
    pub(super) fn name(&self) -> (RunName, PathBuf) {
        let number = self.shared.files.fetch_add(1, Ordering::Relaxed);
        let name = (self.shared.incarnation.load(Ordering::Relaxed), number);
        (name, self.folder.join(format!("{number}.run")))
    }

    /// How many bytes of memory a run's filter may take.
    pub(super) fn for_filter(&self) -> usize {
        (self.shared.limit / 8).max(LEAST_FILTER)
    }
}

impl Memory {
    /// Memory of `limit` bytes, and a folder for what does not fit; it exists, and what is in it from before is of no use and goes.
    pub fn new(disk: Arc<dyn Disk>, folder: PathBuf, limit: usize) -> std::io::Result<Self> {
        let memory = Self::made(disk, folder, limit);
        memory.clear()?;
        Ok(memory)
    }

    /// Memory without a limit, that operators only use once they are told so: what a checkpoint has on disk stays there. The folder
    /// is made then.
    pub fn in_reserve(disk: Arc<dyn Disk>, folder: PathBuf) -> Self {
        Self::made(disk, folder, usize::MAX)
    }

    fn made(disk: Arc<dyn Disk>, folder: PathBuf, limit: usize) -> Self {
        let shared = Shared {
            limit,
            used: AtomicUsize::new(0),
            members: AtomicUsize::new(0),
            files: AtomicU64::new(0),
            incarnation: AtomicU64::new(0),
            in_use: AtomicBool::new(limit < usize::MAX),
            given: Mutex::default(),
        };
        Memory { disk, folder, shared: Arc::new(shared) }
    }

    fn clear(&self) -> std::io::Result<()> {
        for name in self.disk.list(&self.folder)?.iter().filter(|name| name.ends_with(".run")) {
            self.disk.remove(&self.folder.join(name))?;
        }
        Ok(())
    }

    /// Names runs from now on by this life of the data folder.
    pub fn begin_life(&self, incarnation: u64) {
        self.shared.incarnation.store(incarnation, Ordering::Relaxed);
    }

    /// Operators that are built from now on use it.
    pub fn use_reserve(&self) -> std::io::Result<()> {
        if !self.shared.in_use.load(Ordering::Relaxed) {
            if !self.disk.exists(&self.folder)? {
                self.disk.create_dir(&self.folder)?;
            }
            self.clear()?;
            self.shared.in_use.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether operators are to use it.
    pub(crate) fn is_in_use(&self) -> bool {
        self.shared.in_use.load(Ordering::Relaxed)
    }

    /// Leaves runs for an operator that is built later.
    pub fn give(&self, view: RelationId, node: NodeId, worker: usize, runs: Vec<Aside>) {
        self.shared.given.lock().insert((view, node, worker), runs);
    }

    /// Forgets runs that no operator has asked for.
    pub fn forget_given(&self) {
        self.shared.given.lock().clear();
    }

    /// The runs that were left for an operator.
    pub(super) fn claim(&self, owner: Owner) -> Vec<Aside> {
        self.shared.given.lock().remove(&owner).unwrap_or_default()
    }

    /// Bytes that operators take of it.
    pub fn used(&self) -> usize {
        self.shared.used.load(Ordering::Relaxed)
    }

    pub(super) fn shelf(&self) -> Shelf {
        Shelf { disk: self.disk.clone(), folder: self.folder.clone(), shared: self.shared.clone() }
    }

    pub(super) fn share(&self) -> Share {
        self.shared.members.fetch_add(1, Ordering::Relaxed);
        Share { shared: self.shared.clone(), bytes: 0 }
    }
}

/// What one operator takes; given back when this is dropped.
pub(super) struct Share {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Share {
    /// Notes how many bytes the operator takes now.
    pub(super) fn set(&mut self, bytes: usize) {
        if bytes >= self.bytes {
            self.shared.used.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            self.shared.used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }

    /// Whether this operator should put its state aside: all together take too much, and it is one of those that take most.
    /// `fixed` bytes it would keep all the same.
    pub(super) fn is_due(&self, fixed: usize) -> bool {
        let used = self.shared.used.load(Ordering::Relaxed);
        let members = self.shared.members.load(Ordering::Relaxed).max(1);
        used > self.shared.limit && self.bytes > fixed && self.bytes >= used / members
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
        self.shared.members.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The entries of a kind once a change of them has come after those that there are.
pub(super) fn entries_after(
    there: &[Delta],
    rows: Vec<Delta>,
    gone: Vec<Delta>,
    key: usize,
) -> Result<Vec<Delta>, OperatorError> {
    let (Some(first), false) = (rows.iter().chain(there).next(), rows.is_empty() && gone.is_empty()) else {
        return Ok(there.to_vec());
    };
    let schema = first.rows.schema();
    let keys = Arc::new(schema.project(&(0..key).collect::<Vec<_>>())?);
    let batch = |schema: &SchemaRef, deltas: &[Delta]| Delta::concat(schema, deltas).map(|delta| delta.rows);
    let none = batch(&keys, &[])?;
    let before = Entries { rows: batch(&schema, there)?, gone: none };
    let now = Entries { rows: batch(&schema, &rows)?, gone: batch(&keys, &gone)? };
    Ok(vec![Delta::inserts(newest(vec![before], now, key)?.rows)])
}

/// The last change of each key out of several changes of entries, eldest first. `key`: how many leading columns are the key.
pub(super) fn newest(before: Vec<Entries>, now: Entries, key: usize) -> Result<Entries, OperatorError> {
    if before.is_empty() {
        return Ok(now);
    }
    let all: Vec<Entries> = before.into_iter().chain([now]).collect();
    let columns: Vec<usize> = (0..key).collect();
    let mut keys = Vec::new();
    for entries in &all {
        keys.push(entries.rows.project(&columns)?);
        keys.push(entries.gone.project(&columns)?);
    }
    let schema = keys[0].schema();
    let keys = keys.into_iter().map(|batch| RecordBatch::try_new(schema.clone(), batch.columns().to_vec()));
    let keys = concat_batches(&schema, &keys.collect::<Result<Vec<_>, _>>()?)?;
    // For each row of all rows and gone keys in turn: in which change it is.
    let change: Vec<usize> = all
        .iter()
        .enumerate()
        .flat_map(|(i, entries)| std::iter::repeat_n(i, entries.rows.num_rows() + entries.gone.num_rows()))
        .collect();
    let content = RowsByContent::new(&keys)?;
    let order = content.sorted();
    let mut last = vec![false; change.len()];
    for equal in order.chunk_by(|a, b| content.compare(*a as usize, *b as usize).is_eq()) {
        let newest = equal.iter().map(|row| change[*row as usize]).max();
        equal.iter().for_each(|row| last[*row as usize] = Some(change[*row as usize]) == newest);
    }
    let (mut rows, mut gone, mut at) = (Vec::new(), Vec::new(), 0);
    for entries in &all {
        for (batch, kept) in [(&entries.rows, &mut rows), (&entries.gone, &mut gone)] {
            let places = (0..batch.num_rows() as u32).filter(|i| last[at + *i as usize]);
            kept.push(take_record_batch(batch, &UInt32Array::from_iter_values(places))?);
            at += batch.num_rows();
        }
    }
    let joined = |batches: Vec<RecordBatch>| {
        let schema = batches[0].schema();
        let same = batches.into_iter().map(|b| RecordBatch::try_new(schema.clone(), b.columns().to_vec()));
        concat_batches(&schema, &same.collect::<Result<Vec<_>, _>>()?)
    };
    Ok(Entries { rows: joined(rows)?, gone: joined(gone)? })
}
