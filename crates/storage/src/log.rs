//! The durable log: records in segments, appended in groups, each group synced once.
//!
//! [`Log::append`] only queues, so the thread that cuts epochs may call it. The [`LogWriter`], on a
//! thread of its own or stepped by a test, writes what is queued in one go, syncs it, and then
//! tells: records below [`Log::durable`] are on disk. A failed sync is the end: nothing after it
//! is acknowledged, and the owner's handler is to end the process. On a full disk the writer
//! pauses and tries again until there is room.

mod format;
pub(crate) mod inspect;
mod open;
mod read;
mod writer;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

pub use format::RECORD_HEADER;
pub use open::{Opened, TornTail};
pub use read::Records;
pub use writer::{LogWriter, Step};

use crate::StorageError;
use crate::folder::Folder;

/// Records are numbered from 0, without gaps, over the log's whole life.
pub type RecordNumber = u64;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the log.
    pub number: RecordNumber,
    /// What the owner says that it is.
    pub kind: u8,
    /// The owner's bytes.
    pub payload: Vec<u8>,
}

/// Sizes of a log, in bytes but for the last.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// A segment that would grow beyond this is followed by a new one.
    pub segment: u64,
    /// The longest payload.
    pub max_record: u64,
    /// The longest queue, headers included; beyond it [`Log::append`] refuses.
    pub max_queue: usize,
    /// The most that is written and synced at once, if it is more than one record.
    pub max_batch: usize,
    /// How long the writer waits before it tries a full disk again.
    pub retry: Duration,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions {
            segment: 64 << 20,
            max_record: 64 << 20,
            max_queue: 32 << 20,
            max_batch: 8 << 20,
            retry: Duration::from_millis(200),
        }
    }
}

/// What the owner wants to be told, on the writer's thread.
pub struct Handlers {
    /// Records below this number are durable now.
    pub advanced: Box<dyn FnMut(RecordNumber) + Send>,
    /// The log cannot go on; nothing more is acknowledged. In the product this ends the process.
    pub fatal: Box<dyn FnMut(&StorageError) + Send>,
}

/// What the log is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It writes what comes.
    Running,
    /// It cannot write now, and tries again by itself.
    Paused {
        /// Why.
        reason: String,
    },
    /// It cannot go on.
    Failed {
        /// Why.
        reason: String,
    },
    /// It was closed, or its writer is gone.
    Closed,
}

/// Why a record was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The queue is full; the payload comes back. Try again when the log has advanced.
    #[error("the log's queue is full")]
    Full(Vec<u8>),
    /// The payload is longer than any record may be.
    #[error("a record of {length} bytes is longer than the {max} bytes that are allowed")]
    TooLong {
        /// The payload's length.
        length: usize,
        /// What is allowed.
        max: u64,
    },
    /// Waited for, or appended, a record that will not become durable.
    #[error("the log has failed: {0}")]
    Failed(String),
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

/// A handle to append records and to watch them become durable. Clones are the same log.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
    folder: Folder,
    options: LogOptions,
    identity: u64,
}

/// What handles and the writer share.
struct Shared {
    queue: Mutex<Queue>,
    /// There is something to do for the writer.
    work: Condvar,
    /// The log advanced, or will never again.
    news: Condvar,
    first: AtomicU64,
    durable: AtomicU64,
}

struct Queue {
    waiting: VecDeque<(u8, Vec<u8>)>,
    /// What the records will take in the log, in all.
    bytes: usize,
    /// The number of the next record that is appended.
    next: RecordNumber,
    /// Records below this one are not needed any more.
    release: RecordNumber,
    state: State,
    closing: bool,
}

impl Log {
    /// Queues a record and gives its number, without waiting for the disk.
    ///
    /// # Errors
    /// [`Refused`], and then nothing was queued.
    pub fn append(&self, kind: u8, payload: Vec<u8>) -> Result<RecordNumber, Refused> {
        let length = payload.len();
        if length as u64 > self.options.max_record {
            return Err(Refused::TooLong { length, max: self.options.max_record });
        }
        let mut queue = self.shared.queue.lock();
        match &queue.state {
            State::Failed { reason } => return Err(Refused::Failed(reason.clone())),
            State::Closed => return Err(Refused::Closed),
            _ if queue.closing => return Err(Refused::Closed),
            _ => {}
        }
        let length = RECORD_HEADER + length;
        if !queue.waiting.is_empty() && queue.bytes + length > self.options.max_queue {
            return Err(Refused::Full(payload));
        }
        let number = queue.next;
        queue.next += 1;
        queue.bytes += length;
        queue.waiting.push_back((kind, payload));
        self.shared.work.notify_one();
        Ok(number)
    }

    /// How many bytes [`Log::append`] surely takes now, if nobody else appends meanwhile: records that
    /// have no more in all, each with [`RECORD_HEADER`] bytes beside its payload. 0 for a log that takes nothing any more.
    ///
    /// It shrinks while the disk is slow or full, so whoever cuts epochs can stop before a record is
    /// refused. An empty queue takes one record of any length that is allowed, even if it is longer than this.
    pub fn room(&self) -> usize {
        let queue = self.shared.queue.lock();
        let open = !queue.closing && matches!(queue.state, State::Running | State::Paused { .. });
        if open { self.options.max_queue.saturating_sub(queue.bytes) } else { 0 }
    }

    /// What tells it from all other logs, since it was made.
    pub fn identity(&self) -> u64 {
        self.identity
    }

    /// The number of the log's first record. Those before were dropped.
    pub fn first(&self) -> RecordNumber {
        self.shared.first.load(Ordering::Acquire)
    }

    /// Every record below this number is on disk.
    pub fn durable(&self) -> RecordNumber {
        self.shared.durable.load(Ordering::Acquire)
    }

    /// The number that the next record will get.
    pub fn end(&self) -> RecordNumber {
        self.shared.queue.lock().next
    }

    /// What the log is doing.
    pub fn state(&self) -> State {
        self.shared.queue.lock().state.clone()
    }

    /// Waits until the record is on disk.
    ///
    /// # Errors
    /// If the log failed or was closed before.
    pub fn wait(&self, number: RecordNumber) -> Result<(), Refused> {
        let mut queue = self.shared.queue.lock();
        while self.durable() <= number {
            match &queue.state {
                State::Failed { reason } => return Err(Refused::Failed(reason.clone())),
                State::Closed => return Err(Refused::Closed),
                State::Running | State::Paused { .. } => self.shared.news.wait(&mut queue),
            }
        }
        Ok(())
    }

    /// Lets go of the records below this number. The writer drops the segments that hold only
    /// such; the last segment stays always.
    pub fn release(&self, below: RecordNumber) {
        let mut queue = self.shared.queue.lock();
        queue.release = queue.release.max(below);
        self.shared.work.notify_one();
    }

    /// Takes no more records. The writer writes what is queued and then stops; on a full
    /// disk, when there is room.
    pub fn close(&self) {
        self.shared.queue.lock().closing = true;
        self.shared.work.notify_one();
    }

    /// The durable records from this number on.
    ///
    /// # Errors
    /// `NotInLog` if the log begins later or ends before; else what the disk says.
    pub fn records(&self, from: RecordNumber) -> Result<Records, StorageError> {
        let (first, end) = (self.first(), self.durable());
        if from < first || from > end {
            return Err(StorageError::NotInLog { needed: from, first, end });
        }
        let mut segments = open::segments(&self.folder)?;
        // The segment that holds the record is the last one that does not begin after it.
        segments.drain(..segments.partition_point(|first| *first <= from).saturating_sub(1));
        let next = segments.first().copied().unwrap_or(from);
        segments.reverse();
        let (folder, max_record) = (self.folder.clone(), self.options.max_record);
        Ok(Records { folder, max_record, segments, reader: None, from, next, end })
    }
}

impl Shared {
    fn set_state(&self, state: State) {
        self.queue.lock().state = state;
        self.news.notify_all();
    }
}
