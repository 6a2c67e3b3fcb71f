//! Sources at work: one thread per partition reads and decodes ahead, into a short queue.

mod repeat;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use tidemill_connect::{BadRow, Position, Read, Source};
use tidemill_delta::{END_OF_TIME, Micros, NO_WATERMARK};
use tidemill_plan::ColumnPath;
use tidemill_sql::{Relation, SqlError};

use crate::event_time::{Prepared, prepare_source};

/// Batches read ahead per partition.
const AHEAD: usize = 4;
/// How long a reader without rows waits before it asks again.
const PAUSE: Duration = Duration::from_millis(5);

/// What a reader thread hands over.
enum Item {
    Rows { prepared: Prepared, bad: Vec<BadRow>, position: Position, bytes: u64 },
    End,
    Failed(String),
}

/// One partition being read.
struct Partition {
    name: String,
    queue: Option<Receiver<Item>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    position: Option<Position>,
    watermark: Micros,
    ended: bool,
    /// Whether the journal does not know yet where it stands, and how many batches those are.
    changed: bool,
    batches: u64,
    /// Bytes read in all.
    bytes: u64,
}

/// Rows taken from a source for one epoch.
pub(crate) struct Taken {
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
    max_rows: usize,
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
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> Self {
        RunningSource {
            relation,
            source,
            partitions: Vec::new(),
            columns: Arc::from(Vec::new()),
            started: false,
            failed: None,
            bytes: 0,
            max_rows,
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
        self.failed.is_some() || (self.started && self.partitions.iter().all(|p| p.ended))
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
        if self.started {
            return;
        }
        self.started = true;
        match self.source.partitions() {
            Ok(names) => {
                self.partitions = names.into_iter().map(Partition::new).collect();
                self.restart();
            }
            Err(error) => self.failed = Some(error.to_string()),
        }
    }

    fn restart(&mut self) {
        if self.held {
            return;
        }
        for i in 0..self.partitions.len() {
            self.partitions[i].halt();
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
                    partition.watermark = partition.watermark.max(prepared.watermark.unwrap_or(NO_WATERMARK));
                    (partition.changed, partition.batches) = (true, partition.batches + 1);
                    partition.bytes += bytes;
                    self.bytes += bytes;
                    rows += prepared.rows.num_rows().max(1);
                    empty = 0;
                    taken.push(Taken { prepared, bad });
                }
                Some(Ok(Item::End)) => {
                    self.partitions[at].ended = true;
                    self.partitions[at].changed = true;
                    self.partitions[at].halt();
                }
                Some(Ok(Item::Failed(reason))) => self.failed = Some(reason),
                Some(Err(TryRecvError::Disconnected)) if !self.partitions[at].ended => {
                    self.failed = Some(format!("the reader of {} stopped", self.partitions[at].name));
                }
                _ => empty += 1,
            }
        }
        taken
    }

    /// The watermark that all partitions allow: the least of those that go on.
    pub(crate) fn watermark(&self) -> Micros {
        if !self.started || self.failed.is_some() {
            return NO_WATERMARK;
        }
        self.partitions.iter().filter(|p| !p.ended).map(|p| p.watermark).min().unwrap_or(END_OF_TIME)
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

/// A reader thread's work.
struct Reading {
    relation: Arc<Relation>,
    source: Arc<dyn Source>,
    partition: String,
    from: Option<Position>,
    columns: Arc<[ColumnPath]>,
    max_rows: usize,
    stop: Arc<AtomicBool>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl Reading {
    fn run(&self, queue: &Sender<Item>) {
        let last = match self.read_all(queue) {
            Ok(true) => Item::End,
            Ok(false) => return,
            Err(error) => Item::Failed(error.to_string()),
        };
        if queue.send(last).is_ok() {
            (self.wake)();
        }
    }

    /// Reads to the end (true), or until nobody listens any more (false).
    fn read_all(&self, queue: &Sender<Item>) -> Result<bool, SqlError> {
        let generated = |c: &&ColumnPath| !self.relation.generated.iter().any(|g| g.column == c.column);
        let read: Arc<[ColumnPath]> = self.columns.iter().filter(generated).cloned().collect();
        let failed = |e: tidemill_connect::SourceError| SqlError::new("58000", e.to_string());
        let mut reader = self.source.open(&self.partition, self.from.as_ref(), read.clone()).map_err(failed)?;
        while !self.stop.load(Ordering::Acquire) {
            match reader.read(self.max_rows).map_err(failed)? {
                Read::Idle => std::thread::park_timeout(PAUSE),
                Read::End => return Ok(true),
                Read::Batch(found) => {
                    let prepared = prepare_source(&self.relation, found.rows, &read, &self.columns)?;
                    let item = Item::Rows { prepared, bad: found.bad, position: found.position, bytes: found.bytes };
                    if queue.send(item).is_err() {
                        return Ok(false);
                    }
                    (self.wake)();
                }
            }
        }
        Ok(false)
    }
}
