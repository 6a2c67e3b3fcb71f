//! Sinks at work: a thread each, fed through a short queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use tidemill_connect::{Sink, SinkCounts};
use tidemill_delta::{Delta, Epoch};
use tidemill_plan::RelationId;

/// Epochs that may wait for a sink before it holds the engine up.
const QUEUE: usize = 64;

enum Item {
    Changes(Epoch, Delta),
    /// Everything up to here was sent: answer when it is delivered.
    Flush(Sender<()>),
    Finish,
}

/// What a sink has done; shared with `SHOW SINKS`.
#[derive(Default)]
pub(crate) struct SinkProgress {
    pub(crate) rows: AtomicU64,
    pub(crate) epoch: AtomicU64,
    pub(crate) failed: Mutex<Option<String>>,
}

/// A sink at work.
pub(crate) struct RunningSink {
    pub(crate) from: RelationId,
    queue: Sender<Item>,
    thread: Option<JoinHandle<()>>,
    pub(crate) progress: Arc<SinkProgress>,
    pub(crate) counts: Option<Arc<SinkCounts>>,
}

impl RunningSink {
    pub(crate) fn start(name: &str, from: RelationId, sink: Box<dyn Sink>) -> std::io::Result<Self> {
        let (queue, receiver) = bounded(QUEUE);
        let progress = Arc::new(SinkProgress::default());
        let (shared, counts) = (progress.clone(), sink.counts());
        let thread = std::thread::Builder::new()
            .name(format!("sink {name}"))
            .spawn(move || deliver(sink, &receiver, &shared))?;
        Ok(RunningSink { from, queue, thread: Some(thread), progress, counts })
    }

    /// Hands changes over; waits while the sink is behind.
    pub(crate) fn send(&self, epoch: Epoch, delta: Delta) {
        // A sink that has failed listens no more; its state says so.
        let _ = self.queue.send(Item::Changes(epoch, delta));
    }

    /// Gives a way to wait until all that was sent is delivered.
    pub(crate) fn flush(&self) -> Receiver<()> {
        let (done, wait) = bounded(1);
        let _ = self.queue.send(Item::Flush(done));
        wait
    }

    /// Lets the sink finish what it has, and waits for it.
    pub(crate) fn finish(mut self) {
        let _ = self.queue.send(Item::Finish);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            *self.progress.failed.lock() = Some("the sink panicked".into());
        }
    }
}

fn deliver(mut sink: Box<dyn Sink>, queue: &Receiver<Item>, progress: &SinkProgress) {
    while let Ok(item) = queue.recv() {
        let result = match item {
            Item::Changes(epoch, delta) => {
                let rows: u64 = (0..delta.len()).map(|i| delta.weight(i).unsigned_abs()).sum();
                let written = sink.write(epoch, &delta).and_then(|()| sink.commit(epoch));
                progress.rows.fetch_add(rows, Ordering::Relaxed);
                progress.epoch.store(epoch, Ordering::Relaxed);
                written
            }
            Item::Flush(done) => {
                let _ = done.send(());
                Ok(())
            }
            Item::Finish => {
                if let Err(error) = sink.finish() {
                    *progress.failed.lock() = Some(error.to_string());
                }
                return;
            }
        };
        if let Err(error) = result {
            *progress.failed.lock() = Some(error.to_string());
            return;
        }
    }
}
