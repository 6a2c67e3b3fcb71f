//! Sources at work: one thread per partition reads and decodes ahead, into a short queue.
//!
//! State: each partition's position, which is that of the last rows taken, and its watermark. A partition
//! without rows for the relation's `idle_timeout` steps aside for the watermark until it has rows again. An
//! error of an unbounded source is retried, by the reader thread or, when the partitions cannot be listed, here;
//! what trying again cannot help stops the source until it is resumed.

mod repeat;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use tidemill_connect::{BadRow, Position, Source};
use tidemill_delta::{END_OF_TIME, Micros, NO_WATERMARK};
use tidemill_env::Env;
use tidemill_plan::ColumnPath;
use tidemill_sql::{Limit, Relation};

use crate::event_time::Prepared;
use crate::reading::{Backoff, Item, Reading};

/// Batches read ahead per partition.
const AHEAD: usize = 4;
/// How long an unbounded source's partition may be silent unless an option says otherwise, in nanoseconds.
const IDLE_TIMEOUT: u64 = 60_000_000_000;

/// One partition being read.
struct Partition {
    name: String,
    queue: Option<Receiver<Item>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    position: Option<Position>,
    watermark: Micros,
    /// When rows last came, on the monotonic clock.
    last_rows: u64,
    /// Why it is tried again.
    retrying: Option<String>,
    ended: bool,
    /// Whether the journal does not know yet where it stands, and how many batches those are.
    changed: bool,
    batches: u64,
    /// Bytes read in all.
    bytes: u64,
}

/// Rows taken from a source for one epoch.
pub(crate) struct Taken {
    /// Which partition they are from.
    pub(crate) partition: usize,
    pub(crate) prepared: Prepared,
    pub(crate) bad: Vec<BadRow>,
}

/// A source at work.
pub(crate) struct RunningSource {
    pub(crate) relation: Arc<Relation>,
    source: Arc<dyn Source>,
    partitions: Vec<Partition>,
    /// What is read; grows with the views.
    columns: Arc<[ColumnPath]>,
    pub(crate) started: bool,
    pub(crate) failed: Option<String>,
    pub(crate) bytes: u64,
    /// Why its partitions could not be listed, and when that is tried again.
    again: Option<(String, u64)>,
    backoff: Backoff,
    /// Nanoseconds without rows after which a partition steps aside.
    idle_timeout: Option<u64>,
    max_rows: usize,
    env: Env,
    wake: Arc<dyn Fn() + Send + Sync>,
    next: usize,
    /// It reads nothing for now.
    held: bool,
    /// Readers that go over what was read before a restart, by partition.
    repeating: BTreeMap<String, repeat::Repeating>,
}

impl RunningSource {
    pub(crate) fn new(
        relation: Arc<Relation>,
        source: Arc<dyn Source>,
        max_rows: usize,
        env: Env,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> Self {
        let idle_timeout = match relation.event_time.as_ref().map(|time| time.idle_timeout) {
            Some(Limit::Usual) => (!source.bounded()).then_some(IDLE_TIMEOUT),
            Some(Limit::After(micros)) => Some(micros.unsigned_abs().saturating_mul(1_000)),
            Some(Limit::Off) | None => None,
        };
        RunningSource {
            relation,
            source,
            partitions: Vec::new(),
            columns: Arc::from(Vec::new()),
            started: false,
            failed: None,
            bytes: 0,
            again: None,
            backoff: Backoff::default(),
            idle_timeout,
            max_rows,
            env,
            wake,
            next: 0,
            held: false,
            repeating: BTreeMap::new(),
        }
    }

    pub(crate) fn bounded(&self) -> bool {
        self.source.bounded()
    }

    pub(crate) fn size(&self) -> Option<u64> {
        self.source.bytes()
    }

    /// Whether nothing will come any more.
    pub(crate) fn ended(&self) -> bool {
        self.failed.is_some() || (self.started && self.again.is_none() && self.partitions.iter().all(|p| p.ended))
    }

    /// Why something is tried again just now.
    pub(crate) fn retrying(&self) -> Option<&str> {
        let partition = self.partitions.iter().find_map(|p| p.retrying.as_deref());
        self.again.as_ref().map(|(reason, _)| reason.as_str()).or(partition)
    }

    /// Adds columns to what is read. If the source runs already without them, its readers go on from
    /// their positions with the new columns; what they had read ahead is read again.
    pub(crate) fn need(&mut self, columns: &[ColumnPath]) {
        let generated = |c: &ColumnPath| self.is_generated(c);
        let mut all: Vec<ColumnPath> = self.columns.iter().chain(columns).cloned().collect();
        if let Some(time) = &self.relation.event_time {
            all.push(ColumnPath::column(time.column));
            all.extend(time.inputs.iter().cloned());
        }
        let made: Vec<ColumnPath> = all.iter().filter(|c| generated(c)).cloned().collect();
        for path in &made {
            let inputs = self.relation.generated.iter().filter(|g| g.column == path.column);
            all.extend(inputs.flat_map(|g| g.inputs.iter().cloned()));
        }
        all.sort_unstable();
        all.dedup();
        let whole: Vec<ColumnPath> = all.iter().filter(|c| c.fields.is_empty()).cloned().collect();
        let covered = |c: &ColumnPath| !c.fields.is_empty() && whole.iter().any(|w| w.column == c.column);
        all.retain(|c| !covered(c));
        // What is read comes first, what is made from it after.
        let (made, mut ordered): (Vec<_>, Vec<_>) = all.into_iter().partition(|c| generated(c));
        ordered.extend(made);
        if self.columns[..] == ordered[..] {
            return;
        }
        self.columns = Arc::from(ordered);
        if self.started && self.failed.is_none() {
            self.restart();
        }
    }

    fn is_generated(&self, column: &ColumnPath) -> bool {
        self.relation.generated.iter().any(|g| g.column == column.column)
    }

    /// Begins to read.
    pub(crate) fn start(&mut self) {
        if !self.started {
            self.started = true;
            self.list();
        }
    }

    /// Finds the partitions, and reads those that are new and those that were known.
    fn list(&mut self) {
        self.again = None;
        match self.source.partitions() {
            Ok(names) => {
                self.backoff = Backoff::default();
                for name in names {
                    if !self.partitions.iter().any(|p| p.name == name) {
                        self.partitions.push(Partition::new(name));
                    }
                }
                self.restart();
            }
            Err(error) if !self.source.bounded() => {
                let wait = self.backoff.next();
                let at = self.env.monotonic_nanos().saturating_add(wait.as_nanos() as u64);
                self.again = Some((error.to_string(), at));
                self.wake_after(wait);
            }
            Err(error) => self.failed = Some(error.to_string()),
        }
    }

    fn wake_after(&self, wait: Duration) {
        let wake = self.wake.clone();
        let spawned = std::thread::Builder::new().name("retry".into()).spawn(move || {
            let _ = crossbeam_channel::after(wait).recv();
            wake();
        });
        if let Err(error) = spawned {
            tracing::warn!(source = self.relation.name, %error, "nothing wakes a source that waits");
        }
    }

    /// Goes on from its positions after it has stopped, or at once where it waits to try again. Tells whether there
    /// was anything to resume.
    pub(crate) fn resume(&mut self) -> bool {
        if self.failed.is_none() && self.retrying().is_none() {
            return false;
        }
        self.failed = None;
        self.backoff = Backoff::default();
        if self.partitions.is_empty() || self.again.is_some() {
            self.list();
        } else {
            self.restart();
        }
        true
    }

    /// Stops it for a reason that trying again cannot help.
    pub(crate) fn fail(&mut self, reason: String) {
        self.failed = Some(reason);
        self.stop();
    }

    fn restart(&mut self) {
        if self.held {
            return;
        }
        let now = self.env.monotonic_nanos();
        for i in 0..self.partitions.len() {
            self.partitions[i].halt();
            self.partitions[i].retrying = None;
            self.partitions[i].last_rows = now;
            if !self.partitions[i].ended {
                self.read(i);
            }
        }
    }

    fn read(&mut self, partition: usize) {
        let (sender, receiver) = bounded(AHEAD);
        let reading = Reading {
            relation: self.relation.clone(),
            source: self.source.clone(),
            partition: self.partitions[partition].name.clone(),
            from: self.partitions[partition].position.clone(),
            columns: self.columns.clone(),
            max_rows: self.max_rows,
            idle_timeout: self.idle_timeout,
            env: self.env.clone(),
            stop: self.partitions[partition].stop.clone(),
            wake: self.wake.clone(),
        };
        let name = format!("source {}", self.relation.name);
        match std::thread::Builder::new().name(name).spawn(move || reading.run(&sender)) {
            Ok(thread) => {
                self.partitions[partition].thread = Some(thread);
                self.partitions[partition].queue = Some(receiver);
            }
            Err(error) => self.failed = Some(format!("cannot start a reader: {error}")),
        }
    }

    /// Takes what has been read, up to about `limit` rows.
    pub(crate) fn take(&mut self, limit: usize) -> Vec<Taken> {
        let now = self.env.monotonic_nanos();
        if self.failed.is_none() && self.again.as_ref().is_some_and(|(_, at)| *at <= now) {
            self.list();
        }
        let mut taken = Vec::new();
        let mut rows = 0;
        let count = self.partitions.len();
        let mut empty = 0;
        while rows < limit && empty < count && self.failed.is_none() {
            let at = self.next % count;
            self.next = (self.next + 1) % count;
            match self.partitions[at].queue.as_ref().map(Receiver::try_recv) {
                Some(Ok(Item::Rows { prepared, bad, position, bytes })) => {
                    let partition = &mut self.partitions[at];
                    partition.position = Some(position);
                    partition.last_rows = now;
                    partition.retrying = None;
                    (partition.changed, partition.batches) = (true, partition.batches + 1);
                    partition.bytes += bytes;
                    self.bytes += bytes;
                    rows += prepared.rows.num_rows().max(1);
                    empty = 0;
                    taken.push(Taken { partition: at, prepared, bad });
                }
                Some(Ok(Item::Retrying(reason))) => self.partitions[at].retrying = Some(reason),
                Some(Ok(Item::Reading)) => self.partitions[at].retrying = None,
                Some(Ok(Item::End)) => {
                    self.partitions[at].ended = true;
                    self.partitions[at].changed = true;
                    self.partitions[at].halt();
                }
                Some(Ok(Item::Failed(reason))) => self.fail(reason),
                Some(Err(TryRecvError::Disconnected)) if !self.partitions[at].ended => {
                    self.failed = Some(format!("the reader of {} stopped", self.partitions[at].name));
                }
                _ => empty += 1,
            }
        }
        taken
    }

    /// Rows of a partition allow this watermark.
    pub(crate) fn advance(&mut self, partition: usize, watermark: Micros) {
        if let Some(partition) = self.partitions.get_mut(partition) {
            partition.watermark = partition.watermark.max(watermark);
        }
    }

    /// The watermark that all partitions allow: the least of those that go on and are not idle. Where all are
    /// idle, nothing is said.
    pub(crate) fn watermark(&self) -> Micros {
        if !self.started || self.failed.is_some() || self.again.is_some() {
            return NO_WATERMARK;
        }
        if self.ended() {
            return END_OF_TIME;
        }
        let now = self.env.monotonic_nanos();
        let going = self.partitions.iter().filter(|p| !p.ended && !self.is_idle(p, now));
        going.map(|p| p.watermark).min().unwrap_or(NO_WATERMARK)
    }

    /// Whether a partition is silent: not one with rows that have not been taken yet, nor one that cannot be read.
    fn is_idle(&self, partition: &Partition, now: u64) -> bool {
        let silent = |after| now.saturating_sub(partition.last_rows) >= after;
        let empty = partition.queue.as_ref().is_none_or(Receiver::is_empty);
        empty && partition.retrying.is_none() && self.idle_timeout.is_some_and(silent)
    }

    pub(crate) fn stop(&mut self) {
        self.partitions.iter_mut().for_each(Partition::halt);
    }
}

impl Partition {
    fn halt(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.stop = Arc::default();
        // A reader that waits for room in the queue notices that nobody listens.
        self.queue = None;
        self.thread = None;
    }
}

#[cfg(test)]
mod tests;
