//! How much memory operators may take, and the folder where the rest goes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use tidemill_delta::RowsByContent;
use tidemill_env::Disk;

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
    files: AtomicUsize,
}

/// Where runs are kept.
#[derive(Clone)]
pub(super) struct Shelf {
    pub(super) disk: Arc<dyn Disk>,
    folder: PathBuf,
    shared: Arc<Shared>,
}

impl Shelf {
    /// A name for a new file.
    pub(super) fn name(&self) -> PathBuf {
        let number = self.shared.files.fetch_add(1, Ordering::Relaxed);
        self.folder.join(format!("{number}.run"))
    }

    /// How many bytes of memory a run's filter may take.
    pub(super) fn for_filter(&self) -> usize {
        (self.shared.limit / 8).max(LEAST_FILTER)
    }
}

impl Memory {
    /// Memory of `limit` bytes, and a folder for what does not fit; it exists, and what is in it from before is of no use and goes.
    pub fn new(disk: Arc<dyn Disk>, folder: PathBuf, limit: usize) -> std::io::Result<Self> {
        for name in disk.list(&folder)?.iter().filter(|name| name.ends_with(".run")) {
            disk.remove(&folder.join(name))?;
        }
        let zero = || AtomicUsize::new(0);
        let shared = Arc::new(Shared { limit, used: zero(), members: zero(), files: zero() });
        Ok(Memory { disk, folder, shared })
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
