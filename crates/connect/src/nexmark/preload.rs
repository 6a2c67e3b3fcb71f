//! A benchmark's input: everything is generated before the first row is handed out.

#![allow(clippy::disallowed_methods, reason = "readers that make rows up pace themselves by the real clock")]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::NexmarkReader;
use crate::{Position, Read, Reader, SourceBatch, SourceError};

/// Rows of a preloaded batch; smaller reads get slices of it.
const ROWS: usize = 1 << 16;
/// How long a reader sleeps before it looks at the gate again.
const NAP: Duration = Duration::from_micros(100);
/// After how many naps it says that it has nothing: seldom, as it is then left alone for longer.
const NAPS: usize = 500;

/// Holds preloaded rows back until a stopwatch runs.
#[derive(Default)]
pub struct Gate {
    closed: AtomicBool,
    ready: AtomicUsize,
}

/// The process's gate; open unless somebody closed it.
pub fn gate() -> &'static Gate {
    static GATE: Gate = Gate { closed: AtomicBool::new(false), ready: AtomicUsize::new(0) };
    &GATE
}

impl Gate {
    /// From now on preloaded readers have nothing to give.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// How many readers have everything in memory.
    pub fn ready(&self) -> usize {
        self.ready.load(Ordering::SeqCst)
    }

    /// Waits a while for the gate to be open.
    fn wait(&self) -> bool {
        for _ in 0..NAPS {
            if !self.closed.load(Ordering::SeqCst) {
                return true;
            }
            std::thread::sleep(NAP);
        }
        false
    }

    /// Lets the readers go on.
    pub fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
    }
}

/// Hands out batches that were generated when it was opened, and keeps nothing of what it has handed out.
pub(super) struct PreloadedReader {
    batches: VecDeque<Preloaded>,
    /// Rows of the first batch that were handed out.
    taken: usize,
}

struct Preloaded {
    /// Where the batch begins.
    start: Position,
    batch: SourceBatch,
}

impl PreloadedReader {
    pub(super) fn new(mut from: NexmarkReader) -> Result<Self, SourceError> {
        let mut batches = VecDeque::new();
        let taken = std::mem::take(&mut from.leave_out);
        while !from.ended() {
            let start = Position(from.generator.position(0));
            let batch = from.generate(ROWS, u64::MAX)?;
            if batch.rows.num_rows() > 0 {
                batches.push_back(Preloaded { start, batch });
            }
        }
        gate().ready.fetch_add(1, Ordering::SeqCst);
        Ok(PreloadedReader { batches, taken })
    }
}

impl Reader for PreloadedReader {
    fn read(&mut self, max_rows: usize) -> Result<Read, SourceError> {
        if !gate().wait() {
            return Ok(Read::Idle);
        }
        let Some(Preloaded { start, batch }) = self.batches.front() else { return Ok(Read::End) };
        let all = batch.rows.num_rows();
        let taken = self.taken.min(all);
        let rows = (all - taken).min(max_rows.max(1));
        let bytes = batch.bytes * rows as u64 / all as u64;
        let (rows, whole) = (batch.rows.slice(taken, rows), taken + rows == all);
        let position = if whole {
            batch.position.clone()
        } else {
            // In the middle: the batch's beginning, and how many of its rows are done.
            let start = start.0.strip_suffix(" 0").unwrap_or(&start.0);
            Position(format!("{start} {}", taken + rows.num_rows()))
        };
        self.taken = if whole { 0 } else { taken + rows.num_rows() };
        if whole {
            self.batches.pop_front();
        }
        Ok(Read::Batch(SourceBatch { rows, bad: Vec::new(), position, bytes }))
    }
}
