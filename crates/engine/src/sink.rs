//! Sinks at work: a queue and a thread each.
//!
//! The conductor puts every published epoch's changes into the queue, whole epochs at a time; the thread commits them to
//! the destination in groups. Changes stay in the queue until they are committed, so that a checkpoint can save them
//! ([`RunningSink::undelivered`]). The queue is bounded: a destination that is down or slow never holds views up. A sink
//! that falls further behind loses its queue and stops, with the reason to be seen. Only one that depends on nothing but
//! this machine is waited for while it works.
//!
//! A sink that has stopped is resumed by another one in its place, which goes on with what waits here or, if that was
//! given up, with what readers' recent changes still have of it.
//!
//! What the destination refuses is handed to the conductor ([`RunningSink::take_rejected`]) before it counts as
//! committed.

mod deliver;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use tidemill_connect::{Opening, Pace, Rejected, Sink, SinkCounts};
use tidemill_delta::{Delta, Epoch};
use tidemill_env::Env;
use tidemill_plan::RelationId;

/// Bytes of changes that may wait for a sink.
pub(crate) const QUEUE_BYTES: usize = 64 << 20;
/// Pieces of changes that may wait for a sink, as small ones cost more than their bytes.
const QUEUE_PIECES: usize = 1 << 16;
/// How long the end of the engine waits for a sink that does not come to its own.
const FINISH_WAIT: Duration = Duration::from_secs(10);

/// What a sink is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum SinkState {
    #[default]
    Running,
    /// The destination did not take the last commit; it is tried again.
    Retrying(String),
    /// It will not go on.
    Stopped(String),
}

impl SinkState {
    /// In a word, and why.
    pub(crate) fn told(&self) -> (&'static str, Option<String>) {
        match self {
            SinkState::Running => ("running", None),
            SinkState::Retrying(reason) => ("retrying", Some(reason.clone())),
            SinkState::Stopped(reason) => ("stopped", Some(reason.clone())),
        }
    }
}

/// What a sink has done; shared with `SHOW SINKS`.
#[derive(Default)]
pub(crate) struct SinkProgress {
    pub(crate) rows: AtomicU64,
    /// The last epoch committed; 0 before the first.
    pub(crate) epoch: AtomicU64,
    /// The thread will not touch the destination any more, unless the sink is dropped.
    at_rest: AtomicBool,
    state: Mutex<SinkState>,
}

impl SinkProgress {
    pub(crate) fn state(&self) -> SinkState {
        self.state.lock().clone()
    }
}

/// What a sink starts with.
pub(crate) struct Start {
    pub(crate) name: String,
    pub(crate) from: RelationId,
    pub(crate) sink: Box<dyn Sink>,
    /// How to open it; `None` if that is done.
    pub(crate) opening: Option<Opening>,
    /// The last epoch known to be committed. What the destination says when it is opened counts more.
    pub(crate) committed: Option<Epoch>,
    /// How many rows it has delivered before.
    pub(crate) rows: u64,
    /// Changes from before: the rows that were there when the sink was created, or what a checkpoint saved. They do not
    /// count for the queue's bound.
    pub(crate) first: Vec<(Epoch, Delta)>,
}

/// Why a sink ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The engine stops; a later incarnation may go on.
    Stop,
    /// It was dropped.
    Drop,
}

/// Changes that are not committed yet.
struct Waiting {
    epoch: Epoch,
    delta: Delta,
    /// What it counts for in the queue's bound.
    bytes: usize,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    rejected: Vec<Rejected>,
    /// Nothing may be delivered yet.
    held: bool,
    /// Somebody waits for the queue to be empty.
    flush: bool,
    ending: Option<Ending>,
    /// The sink was too far behind, or may not write any more: nothing is taken in.
    closed: bool,
    /// Another incarnation has the destination.
    fenced: bool,
    /// The thread is gone.
    ended: bool,
}

/// What a sink's thread and the conductor share.
struct Shared {
    name: String,
    queue: Mutex<Queue>,
    /// The queue or the state has moved.
    moved: Condvar,
    progress: Arc<SinkProgress>,
    pace: Pace,
    env: Env,
    wake: Arc<dyn Fn() + Send + Sync>,
}

/// A sink at work.
pub(crate) struct RunningSink {
    pub(crate) from: RelationId,
    pub(crate) progress: Arc<SinkProgress>,
    pub(crate) counts: Option<Arc<SinkCounts>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Shared {
    fn set_state(&self, state: SinkState) {
        *self.progress.state.lock() = state;
        self.moved.notify_all();
        // Whoever waits for it to be flushed waits no more if it has stopped.
        (self.wake)();
    }

    /// Gives up what waits.
    fn close(&self, queue: &mut MutexGuard<'_, Queue>, reason: String) {
        queue.closed = true;
        queue.waiting.clear();
        queue.bytes = 0;
        tracing::warn!(sink = self.name, reason, "a sink stopped");
        self.set_state(SinkState::Stopped(reason));
    }

    fn is_full(queue: &Queue) -> bool {
        queue.bytes >= QUEUE_BYTES || queue.waiting.len() >= QUEUE_PIECES
    }
}

impl RunningSink {
    /// Starts the thread, which does nothing until the sink is released; `wake` wakes the conductor.
    pub(crate) fn start(start: Start, env: Env, wake: Arc<dyn Fn() + Send + Sync>) -> std::io::Result<Self> {
        let Start { name, from, sink, opening, committed, rows, first } = start;
        let waiting = first.into_iter().map(|(epoch, delta)| Waiting { epoch, delta, bytes: 0 }).collect();
        let (progress, counts) = (SinkProgress::default(), sink.counts());
        progress.rows.store(rows, Ordering::Relaxed);
        progress.epoch.store(committed.unwrap_or(0), Ordering::Release);
        let progress = Arc::new(progress);
        let shared = Arc::new(Shared {
            name: name.clone(),
            queue: Mutex::new(Queue { waiting, held: true, ..Queue::default() }),
            moved: Condvar::new(),
            progress: progress.clone(),
            pace: sink.pace(),
            env,
            wake,
        });
        let thread = deliver::spawn(sink, opening, committed, shared.clone())?;
        Ok(RunningSink { from, progress, counts, shared, thread: Some(thread) })
    }

    /// Lets it go to its destination: from now on it is certain that there is such a sink. Until then its definition is
    /// not durable, or the journal, which is being repeated, may say that it was dropped. If too much waits meanwhile, it
    /// goes all the same.
    pub(crate) fn release(&self) {
        self.shared.queue.lock().held = false;
        self.shared.moved.notify_all();
    }

    /// Ends a sink that was dropped before the server was started again: its destination is left alone.
    pub(crate) fn discard(self) {
        {
            let mut queue = self.shared.queue.lock();
            queue.closed = true;
            queue.waiting.clear();
            queue.bytes = 0;
            queue.ending = Some(Ending::Stop);
        }
        self.shared.moved.notify_all();
        // A later sink of its name may come to the same place.
        if self.shared.pace.local {
            self.wait();
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.shared.name
    }

    /// Hands an epoch's changes over, all of them at once. Waits for a local sink that is behind; any other that is too
    /// far behind is stopped.
    pub(crate) fn send(&self, epoch: Epoch, deltas: &[Delta]) {
        let mut queue = self.shared.queue.lock();
        while Shared::is_full(&queue) && self.shared.pace.local && self.progress.state() == SinkState::Running {
            self.shared.moved.wait(&mut queue);
        }
        if queue.closed {
            return;
        }
        // While it is held, what waits is not its destination's fault.
        if Shared::is_full(&queue) && !queue.held {
            let why = self.progress.state().told().1.map_or_else(String::new, |reason| format!("; it was: {reason}"));
            let reason = format!(
                "it fell behind by more than {} MiB of changes, which are given up; ALTER SINK ... RESUME goes on if they \
                 are kept for subscribers, else drop it and create it again{why}",
                QUEUE_BYTES >> 20
            );
            return self.shared.close(&mut queue, reason);
        }
        for delta in deltas.iter().filter(|d| !d.is_empty()) {
            let bytes = delta.row_bytes();
            queue.bytes += bytes;
            queue.waiting.push_back(Waiting { epoch, delta: delta.clone(), bytes });
        }
        self.shared.moved.notify_all();
    }

    /// Stops the sink: its changes cannot be known any more.
    pub(crate) fn fail(&self, reason: String) {
        let mut queue = self.shared.queue.lock();
        self.shared.close(&mut queue, reason);
    }

    /// Stops the sink: another incarnation has the destination.
    pub(crate) fn fail_fenced(&self, reason: String) {
        let mut queue = self.shared.queue.lock();
        queue.fenced = true;
        self.shared.close(&mut queue, reason);
    }

    /// Whether it has stopped, however that came about.
    pub(crate) fn has_stopped(&self) -> bool {
        matches!(self.progress.state(), SinkState::Stopped(_))
    }

    /// Whether it has stopped and its thread is done with the destination.
    pub(crate) fn at_rest(&self) -> bool {
        self.has_stopped() && self.progress.at_rest.load(Ordering::Acquire)
    }

    /// Whether another incarnation has the destination, so that this one may never write to it again.
    pub(crate) fn fenced(&self) -> bool {
        self.shared.queue.lock().fenced
    }

    /// Whether all that was sent is committed, or the sink has stopped. If not, it hurries, and wakes the conductor.
    pub(crate) fn flushed(&self) -> bool {
        let mut queue = self.shared.queue.lock();
        if queue.waiting.is_empty() || matches!(self.progress.state(), SinkState::Stopped(_)) {
            return true;
        }
        queue.flush = true;
        self.shared.moved.notify_all();
        false
    }

    /// What was sent and is not known to be committed, in order: what a checkpoint has to save.
    pub(crate) fn undelivered(&self) -> Vec<(Epoch, Delta)> {
        self.shared.queue.lock().waiting.iter().map(|w| (w.epoch, w.delta.clone())).collect()
    }

    /// The last epoch known to be committed; 0 before the first.
    pub(crate) fn committed(&self) -> Epoch {
        self.progress.epoch.load(Ordering::Acquire)
    }

    /// Why the sink has given changes up, if it has: then there is a gap, and it must not go on by itself after a restart
    /// either.
    pub(crate) fn given_up(&self) -> Option<String> {
        let closed = self.shared.queue.lock().closed;
        self.progress.state().told().1.filter(|_| closed)
    }

    /// What the destination has refused, to be put into the side table; after this it counts as committed.
    pub(crate) fn take_rejected(&self) -> Vec<Rejected> {
        let mut queue = self.shared.queue.lock();
        if !queue.rejected.is_empty() {
            self.shared.moved.notify_all();
        }
        std::mem::take(&mut queue.rejected)
    }

    fn end(&self, ending: Ending) {
        self.shared.queue.lock().ending = Some(ending);
        self.shared.moved.notify_all();
    }

    /// Lets the thread go, without anything more for the destination: another one takes its place.
    pub(crate) fn retire(self) {
        self.end(Ending::Stop);
    }

    /// Waits until the sink has done what it can. One that hangs in the destination is left behind.
    fn wait(mut self) {
        let mut queue = self.shared.queue.lock();
        while !queue.ended {
            let timeout = self.shared.moved.wait_while_for(&mut queue, |q| !q.ended, FINISH_WAIT).timed_out();
            let works = self.shared.pace.local && self.progress.state() == SinkState::Running;
            if timeout && !works {
                tracing::warn!(sink = self.shared.name, "the sink does not come to its end");
                return;
            }
        }
        drop(queue);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Lets sinks commit what they have, all at the same time, and waits for them.
pub(crate) fn end_all(sinks: Vec<RunningSink>, ending: Ending) {
    sinks.iter().for_each(|sink| sink.end(ending));
    sinks.into_iter().for_each(RunningSink::wait);
}
