//! A sink's thread: takes changes from the queue in groups, and commits each until it is taken.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use tidemill_connect::{Opening, Sink, SinkError};
use tidemill_delta::{Delta, Epoch};

use super::{Ending, Queue, Shared, SinkState};

/// A group at least this large is not made larger, unless its last epoch is.
const GROUP_BYTES: usize = 8 << 20;
/// Nor one of so many pieces.
const GROUP_PIECES: usize = 1 << 12;
/// The first pause before another try; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause of our own.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest pause that the destination can ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(300);

/// Starts the thread.
pub(super) fn spawn(
    sink: Box<dyn Sink>,
    opening: Option<Opening>,
    committed: Option<Epoch>,
    shared: Arc<Shared>,
) -> std::io::Result<JoinHandle<()>> {
    let name = format!("sink {}", shared.name);
    std::thread::Builder::new().name(name).spawn(move || {
        let end = End(shared.clone());
        Delivery { sink, shared, committed, last: None }.run(opening);
        drop(end);
    })
}

/// Tells the conductor's side that the thread is gone, however it goes.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.progress.at_rest.store(true, Ordering::Release);
        if std::thread::panicking() {
            self.0.set_state(SinkState::Stopped("the sink failed by a bug".into()));
        }
        self.0.queue.lock().ended = true;
        self.0.moved.notify_all();
        (self.0.wake)();
    }
}

/// Whether to go on.
type Goes = ControlFlow<()>;

struct Delivery {
    sink: Box<dyn Sink>,
    shared: Arc<Shared>,
    /// The last epoch that is at the destination.
    committed: Option<Epoch>,
    /// When the last commit ended.
    last: Option<u64>,
}

impl Delivery {
    fn run(mut self, opening: Option<Opening>) {
        // A sink that has stopped lingers, so that the destination can be told when it is dropped.
        if self.work(opening).is_break() {
            self.shared.progress.at_rest.store(true, Ordering::Release);
            let mut queue = self.shared.queue.lock();
            self.shared.moved.wait_while(&mut queue, |q| q.ending.is_none());
        }
        if self.shared.queue.lock().ending == Some(Ending::Drop)
            && let Err(error) = self.sink.forget()
        {
            tracing::warn!(sink = self.shared.name, %error, "the destination still knows the dropped sink");
        }
    }

    /// Delivers until the end; breaks off if something remains undelivered.
    fn work(&mut self, opening: Option<Opening>) -> Goes {
        self.hold()?;
        if let Some(opening) = opening {
            self.committed = self.persist(|sink| sink.open(opening))?.or(self.committed);
            self.shared.progress.epoch.store(self.committed.unwrap_or(0), Ordering::Release);
        }
        while let Some(group) = self.next_group()? {
            self.deliver(&group)?;
        }
        if let Err(error) = self.sink.finish() {
            self.stop(&error);
        }
        Goes::Continue(())
    }

    /// Waits until it may go to the destination; breaks off if it never may.
    fn hold(&self) -> Goes {
        let mut queue = self.shared.queue.lock();
        let waits = |q: &mut Queue| q.held && !q.closed && q.ending.is_none() && !Shared::is_full(q);
        self.shared.moved.wait_while(&mut queue, waits);
        if queue.closed || (queue.held && queue.ending.is_some()) { Goes::Break(()) } else { Goes::Continue(()) }
    }

    /// Waits for changes to commit; none come at the end. They stay in the queue.
    fn next_group(&self) -> ControlFlow<(), Option<Vec<(Epoch, Delta)>>> {
        let mut queue = self.shared.queue.lock();
        loop {
            if queue.closed {
                return ControlFlow::Break(());
            }
            // After a restart come epochs that are there already.
            while let Some(front) = queue.waiting.front()
                && Some(front.epoch) <= self.committed
            {
                queue.bytes -= front.bytes;
                queue.waiting.pop_front();
            }
            if queue.waiting.is_empty() {
                if queue.ending.is_some() {
                    return ControlFlow::Continue(None);
                }
                if std::mem::take(&mut queue.flush) {
                    (self.shared.wake)();
                }
                self.shared.moved.notify_all();
                self.shared.moved.wait(&mut queue);
                continue;
            }
            let wanted = queue.flush || queue.ending.is_some();
            let hurries = wanted || queue.bytes >= GROUP_BYTES || queue.waiting.len() >= GROUP_PIECES;
            let Some(left) = self.left().filter(|_| !hurries) else { break };
            self.shared.moved.wait_for(&mut queue, left);
        }
        let (mut group, mut bytes, mut last) = (Vec::new(), 0, None);
        for waiting in &queue.waiting {
            if (bytes >= GROUP_BYTES || group.len() >= GROUP_PIECES) && last != Some(waiting.epoch) {
                break;
            }
            bytes += waiting.delta.row_bytes();
            last = Some(waiting.epoch);
            group.push((waiting.epoch, waiting.delta.clone()));
        }
        ControlFlow::Continue(Some(group))
    }

    /// How long the next commit is to wait.
    fn left(&self) -> Option<Duration> {
        let since = Duration::from_nanos(self.shared.env.monotonic_nanos().saturating_sub(self.last?));
        self.shared.pace.commit_interval.checked_sub(since).filter(|left| !left.is_zero())
    }

    fn deliver(&mut self, group: &[(Epoch, Delta)]) -> Goes {
        let Some((last, _)) = group.last() else { return Goes::Continue(()) };
        for (epoch, delta) in group {
            if let Err(error) = self.sink.write(*epoch, delta) {
                self.stop(&error);
                return Goes::Break(());
            }
        }
        self.persist(|sink| sink.commit(*last))?;
        self.hand_over_rejected()?;
        let rows: u64 = group.iter().map(|(_, d)| (0..d.len()).map(|i| d.weight(i).unsigned_abs()).sum::<u64>()).sum();
        self.shared.progress.rows.fetch_add(rows, Ordering::Relaxed);
        self.shared.progress.epoch.store(*last, Ordering::Release);
        self.committed = Some(*last);
        self.last = Some(self.shared.env.monotonic_nanos());
        let mut queue = self.shared.queue.lock();
        if !queue.closed {
            let freed: usize = queue.waiting.drain(..group.len()).map(|w| w.bytes).sum();
            queue.bytes -= freed;
        }
        self.shared.moved.notify_all();
        Goes::Continue(())
    }

    /// Does something until it succeeds, with longer and longer pauses.
    fn persist<T>(&mut self, mut act: impl FnMut(&mut dyn Sink) -> Result<T, SinkError>) -> ControlFlow<(), T> {
        let (mut pause, mut since) = (FIRST_PAUSE, None);
        loop {
            let (reason, after) = match act(self.sink.as_mut()) {
                Ok(done) => {
                    if since.is_some() {
                        self.recovered();
                    }
                    return ControlFlow::Continue(done);
                }
                Err(SinkError::Retry { reason, after }) => (reason, after),
                Err(error) => {
                    self.stop(&error);
                    return ControlFlow::Break(());
                }
            };
            let now = self.shared.env.monotonic_nanos();
            let failing = Duration::from_nanos(now.saturating_sub(*since.get_or_insert(now)));
            if self.shared.pace.retry_for.is_some_and(|limit| failing >= limit) {
                self.stop(&SinkError::Fatal(reason));
                return ControlFlow::Break(());
            }
            self.pause(reason, pause.max(after.unwrap_or_default().min(LONGEST_ASKED)))?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Waits before another try; breaks off if there is none to be.
    fn pause(&self, reason: String, pause: Duration) -> Goes {
        let mut queue = self.shared.queue.lock();
        if queue.closed {
            return Goes::Break(());
        }
        tracing::debug!(sink = self.shared.name, reason, "a sink tries again");
        self.shared.set_state(SinkState::Retrying(reason));
        if queue.ending.is_some() {
            return Goes::Break(());
        }
        self.shared.moved.wait_while_for(&mut queue, |q| !q.closed && q.ending.is_none(), pause);
        if queue.closed { Goes::Break(()) } else { Goes::Continue(()) }
    }

    fn recovered(&self) {
        let queue = self.shared.queue.lock();
        if !queue.closed {
            self.shared.set_state(SinkState::Running);
        }
    }

    /// Gives what was refused to the conductor, and waits until it has it.
    fn hand_over_rejected(&mut self) -> Goes {
        let rejected = self.sink.take_rejected();
        if rejected.is_empty() {
            return Goes::Continue(());
        }
        let mut queue = self.shared.queue.lock();
        queue.rejected = rejected;
        (self.shared.wake)();
        self.shared.moved.wait_while(&mut queue, |q| !q.rejected.is_empty() && q.ending.is_none() && !q.closed);
        // If nobody comes for it, it was not delivered.
        if queue.rejected.is_empty() { Goes::Continue(()) } else { Goes::Break(()) }
    }

    /// Stops until it is resumed. What waits is kept for that or for the next start, unless it may never be delivered.
    fn stop(&self, error: &SinkError) {
        let mut queue = self.shared.queue.lock();
        if queue.closed {
            return;
        }
        // Whoever sees that it has stopped may put another one in its place.
        self.shared.progress.at_rest.store(true, Ordering::Release);
        if matches!(error, SinkError::Fenced(_)) {
            queue.fenced = true;
            self.shared.close(&mut queue, error.to_string());
        } else {
            tracing::warn!(sink = self.shared.name, reason = %error, "a sink stopped");
            self.shared.set_state(SinkState::Stopped(error.to_string()));
        }
    }
}
