//! The writer of a log: takes what is queued, writes it at once, syncs once, tells.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

use tidemill_env::DiskFile;

use super::format::{FLOOR_NAME, Floor, RECORD_HEADER, RecordHeader, SEGMENT_HEADER, SegmentHeader, segment_name};
use super::{Handlers, Log, LogOptions, RecordNumber, Shared, State};
use crate::StorageError;
use crate::error::At;
use crate::folder::Folder;

/// What one step of the writer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It wrote and synced a group of records.
    Wrote,
    /// There was nothing to do.
    Idle,
    /// The disk is full; what is to be written is kept for the next step.
    Paused,
    /// The log has failed.
    Failed,
    /// The log was closed, and everything is written.
    Closed,
}

/// The segment that is appended to. Its length is that of the durable part.
pub(super) struct Segment {
    pub(super) file: Box<dyn DiskFile>,
    pub(super) path: PathBuf,
    pub(super) identity: u64,
    pub(super) length: u64,
}

/// The part of a log that writes. One thread runs it, or a test steps it.
pub struct LogWriter {
    shared: Arc<Shared>,
    folder: Folder,
    options: LogOptions,
    handlers: Handlers,
    incarnation: u64,
    /// The first records of all segments, the one that is appended to last.
    segments: VecDeque<RecordNumber>,
    segment: Segment,
    floor: Floor,
    floor_file: Box<dyn DiskFile>,
    /// Records in their final form that are not durable yet, and the number after them.
    batch: Vec<u8>,
    batch_end: RecordNumber,
}

impl LogWriter {
    pub(super) fn new(
        log: &Log,
        handlers: Handlers,
        segment: Segment,
        segments: VecDeque<RecordNumber>,
        (floor, floor_file): (Floor, Box<dyn DiskFile>),
        incarnation: u64,
    ) -> Self {
        let (shared, folder, options, batch_end) = (log.shared.clone(), log.folder.clone(), log.options, log.durable());
        let batch = Vec::new();
        Self { shared, folder, options, handlers, incarnation, segments, segment, floor, floor_file, batch, batch_end }
    }

    /// Runs the writer on a thread of its own until the log is closed or fails.
    ///
    /// # Errors
    /// If the operating system gives no thread.
    pub fn spawn(self) -> io::Result<JoinHandle<()>> {
        thread::Builder::new().name("log".into()).spawn(move || self.run())
    }

    /// Runs until the log is closed or fails.
    pub fn run(mut self) {
        loop {
            match self.step() {
                Step::Wrote => {}
                Step::Idle => self.wait_for_work(),
                Step::Paused => self.wait_for_room(),
                Step::Failed | Step::Closed => return,
            }
        }
    }

    fn wait_for_work(&self) {
        let mut queue = self.shared.queue.lock();
        while queue.waiting.is_empty() && !queue.closing && self.releasable(queue.release) == 0 {
            self.shared.work.wait(&mut queue);
        }
    }

    /// New records make no room; more segments that are released do.
    fn wait_for_room(&self) {
        let mut queue = self.shared.queue.lock();
        let before = queue.release;
        self.shared.work.wait_while_for(&mut queue, |queue| queue.release == before, self.options.retry);
    }

    /// Does what there is to do, once.
    pub fn step(&mut self) -> Step {
        let paused = match self.shared.queue.lock().state {
            State::Failed { .. } => return Step::Failed,
            State::Closed => return Step::Closed,
            State::Running => false,
            State::Paused { .. } => true,
        };
        match self.work() {
            Ok(Step::Idle) if paused => {
                self.shared.set_state(State::Running);
                Step::Idle
            }
            Ok(step) => step,
            Err(error) if error.is_full() && !error.is_fatal() => {
                self.shared.set_state(State::Paused { reason: error.to_string() });
                Step::Paused
            }
            Err(error) => {
                self.shared.set_state(State::Failed { reason: error.to_string() });
                (self.handlers.fatal)(&error);
                Step::Failed
            }
        }
    }

    fn work(&mut self) -> Result<Step, StorageError> {
        // First, and while paused too: it makes room.
        self.drop_released()?;
        if self.batch.is_empty() {
            let (next, closing) = {
                let queue = self.shared.queue.lock();
                (queue.waiting.front().map(|(_, payload)| payload.len()), queue.closing)
            };
            match next {
                None if closing => return self.close(),
                None => return Ok(Step::Idle),
                Some(length) => self.roll_if_full(length)?,
            }
            self.take();
        }
        self.write()?;
        self.advance()?;
        Ok(Step::Wrote)
    }

    /// Takes records from the queue, as many as fit, and at least one.
    fn take(&mut self) {
        let mut room = self
            .options
            .max_batch
            .min(usize::try_from(self.options.segment.saturating_sub(self.segment.length)).unwrap_or(usize::MAX));
        let mut taken = Vec::new();
        let mut queue = self.shared.queue.lock();
        while let Some((_, payload)) = queue.waiting.front() {
            let length = RECORD_HEADER + payload.len();
            if length > room && !taken.is_empty() {
                break;
            }
            room = room.saturating_sub(length);
            queue.bytes -= length;
            taken.extend(queue.waiting.pop_front());
        }
        drop(queue);
        for (kind, payload) in taken {
            let header = RecordHeader::of(kind, self.batch_end, self.floor.durable, &payload);
            header.encode(self.segment.identity, &mut self.batch);
            self.batch.extend_from_slice(&payload);
            self.batch_end += 1;
        }
    }

    fn write(&mut self) -> Result<(), StorageError> {
        let Segment { file, path, length, .. } = &mut self.segment;
        let written = file.write_at(&self.batch, *length).at("write", path);
        if let Err(error) = &written
            && error.is_full()
        {
            file.set_length(*length).at("cut", path)?;
        }
        written?;
        file.sync().at("sync", path)?;
        *length += self.batch.len() as u64;
        self.batch.clear();
        // A record of unusual length shall not hold its memory for ever.
        self.batch.shrink_to(self.options.max_batch);
        Ok(())
    }

    /// Tells what is durable: the next start first, then everyone.
    fn advance(&mut self) -> Result<(), StorageError> {
        self.floor.durable = self.batch_end;
        match self.write_floor() {
            // The floor may lag; the next one will do.
            Err(error) if error.is_full() => {}
            other => other?,
        }
        self.shared.durable.store(self.batch_end, Ordering::Release);
        self.shared.set_state(State::Running);
        (self.handlers.advanced)(self.batch_end);
        Ok(())
    }

    /// Writes one copy of the floor. If it fails, the next one goes to the same place, so that the
    /// other copy stays whole.
    fn write_floor(&mut self) -> Result<(), StorageError> {
        let next = Floor { writes: self.floor.writes + 1, ..self.floor };
        let (bytes, at) = next.encode();
        self.floor_file.write_at(&bytes, at as u64).at("write", &self.folder.at(FLOOR_NAME))?;
        self.floor = next;
        Ok(())
    }

    fn sync_floor(&mut self) -> Result<(), StorageError> {
        self.write_floor()?;
        self.floor_file.sync().at("sync", &self.folder.at(FLOOR_NAME))
    }

    /// Begins a new segment if the next record does not fit. The old one is durable by then: what
    /// is written after a group begins only when the group is synced.
    fn roll_if_full(&mut self, next: usize) -> Result<(), StorageError> {
        let Segment { length, identity, .. } = self.segment;
        if length == SEGMENT_HEADER as u64 || length + (RECORD_HEADER + next) as u64 <= self.options.segment {
            return Ok(());
        }
        let first = self.batch_end;
        let header = SegmentHeader { log: self.floor.log, first, previous: identity, incarnation: self.incarnation };
        let (bytes, identity) = header.encode();
        let name = segment_name(first);
        let file = self.folder.put(&name, &bytes)?;
        self.segment = Segment { file, path: self.folder.at(&name), identity, length: bytes.len() as u64 };
        self.segments.push_back(first);
        Ok(())
    }

    /// How many segments hold only records below this one.
    fn releasable(&self, below: RecordNumber) -> usize {
        self.segments.iter().skip(1).take_while(|first| **first <= below).count()
    }

    /// Drops segments that nobody needs: the floor first, so that none of them is missed. One by
    /// one and in order, so that a crash leaves no gap.
    fn drop_released(&mut self) -> Result<(), StorageError> {
        let count = self.releasable(self.shared.queue.lock().release);
        if count == 0 {
            return Ok(());
        }
        self.floor.first = self.segments[count];
        self.sync_floor()?;
        self.sync_floor()?;
        for _ in 0..count {
            self.folder.remove(&segment_name(self.segments[0]))?;
            self.segments.pop_front();
            self.shared.first.store(self.segments[0], Ordering::Release);
        }
        Ok(())
    }

    fn close(&mut self) -> Result<Step, StorageError> {
        self.sync_floor()?;
        self.shared.set_state(State::Closed);
        Ok(Step::Closed)
    }
}

impl Drop for LogWriter {
    /// Without a writer nothing becomes durable: those who wait must hear of it.
    fn drop(&mut self) {
        if !matches!(self.shared.queue.lock().state, State::Failed { .. }) {
            self.shared.set_state(State::Closed);
        }
    }
}
