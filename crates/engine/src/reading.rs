//! A reader thread: one partition of a source, read and prepared ahead of the conductor.
//!
//! Hands over rows, and says when there will be none any more and why. Errors of an unbounded source are retried from
//! the last rows handed over, after a second at first, later after up to a minute; rows in between begin that anew. An
//! expression that fails, and a panic, would do so again: these stop the source.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::Sender;
use tidemill_connect::{BadRow, Position, Read, Source, SourceError};
use tidemill_env::Env;
use tidemill_plan::ColumnPath;
use tidemill_sql::{Relation, SqlError};

use crate::event_time::{Prepared, prepare_source};
use crate::panics::panic_text;

/// How long a reader without rows waits before it asks again.
pub(crate) const PAUSE: Duration = Duration::from_millis(5);
/// How often a reader that waits to try again looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// What a reader thread hands over.
pub(crate) enum Item {
    Rows {
        prepared: Prepared,
        bad: Vec<BadRow>,
        position: Position,
        bytes: u64,
    },
    /// It cannot be read now, and will be tried again.
    Retrying(String),
    /// It can be read again.
    Reading,
    End,
    /// Trying again would not help.
    Failed(String),
}

/// How long to wait before each further try.
#[derive(Default)]
pub(crate) struct Backoff {
    last: Option<Duration>,
}

impl Backoff {
    const FIRST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(60);

    pub(crate) fn next(&mut self) -> Duration {
        let wait = self.last.map_or(Self::FIRST, |last| (last * 2).min(Self::LONGEST));
        self.last = Some(wait);
        wait
    }
}

/// A reader thread's work.
pub(crate) struct Reading {
    pub(crate) relation: Arc<Relation>,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) partition: String,
    pub(crate) from: Option<Position>,
    pub(crate) columns: Arc<[ColumnPath]>,
    pub(crate) max_rows: usize,
    /// Nanoseconds without rows after which the conductor is to look.
    pub(crate) idle_timeout: Option<u64>,
    pub(crate) env: Env,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) wake: Arc<dyn Fn() + Send + Sync>,
}

/// How reading ended.
enum Stopped {
    End,
    /// Nobody listens any more.
    Unheard,
    Error(SourceError),
    /// What would happen again.
    Broken(String),
}

impl From<SourceError> for Stopped {
    fn from(error: SourceError) -> Self {
        Stopped::Error(error)
    }
}

impl From<SqlError> for Stopped {
    fn from(error: SqlError) -> Self {
        Stopped::Broken(error.message)
    }
}

/// What is remembered from one try to the next.
struct Tries {
    from: Option<Position>,
    backoff: Backoff,
    /// The last try failed, and nothing was read since.
    failing: bool,
}

impl Reading {
    pub(crate) fn run(mut self, queue: &Sender<Item>) {
        let mut tries = Tries { from: self.from.take(), backoff: Backoff::default(), failing: false };
        loop {
            let read = catch_unwind(AssertUnwindSafe(|| self.read_all(&mut tries, queue)));
            let stopped = read.unwrap_or_else(|panic| {
                Stopped::Broken(format!("the reader failed by a bug: {}", panic_text(panic.as_ref())))
            });
            let last = match stopped {
                Stopped::Unheard => return,
                Stopped::End => Item::End,
                Stopped::Broken(reason) => Item::Failed(reason),
                Stopped::Error(error) if self.source.bounded() => Item::Failed(error.to_string()),
                Stopped::Error(error) => {
                    tries.failing = true;
                    if !self.tell(queue, Item::Retrying(error.to_string())) || !self.wait(tries.backoff.next()) {
                        return;
                    }
                    continue;
                }
            };
            self.tell(queue, last);
            return;
        }
    }

    /// Hands something over; tells whether somebody listens.
    fn tell(&self, queue: &Sender<Item>, item: Item) -> bool {
        let heard = queue.send(item).is_ok();
        if heard {
            (self.wake)();
        }
        heard
    }

    /// Waits; false if it is not wanted any more.
    fn wait(&self, time: Duration) -> bool {
        let mut left = time;
        while !left.is_zero() && !self.stop.load(Ordering::Acquire) {
            let now = left.min(LOOK);
            let _ = crossbeam_channel::after(now).recv();
            left -= now;
        }
        left.is_zero()
    }

    fn read_all(&self, tries: &mut Tries, queue: &Sender<Item>) -> Stopped {
        self.try_read(tries, queue).unwrap_or_else(|stopped| stopped)
    }

    fn try_read(&self, tries: &mut Tries, queue: &Sender<Item>) -> Result<Stopped, Stopped> {
        let generated = |c: &&ColumnPath| !self.relation.generated.iter().any(|g| g.column == c.column);
        let read: Arc<[ColumnPath]> = self.columns.iter().filter(generated).cloned().collect();
        let mut reader = self.source.open(&self.partition, tries.from.as_ref(), read.clone())?;
        let mut told = self.env.monotonic_nanos();
        while !self.stop.load(Ordering::Acquire) {
            let found = reader.read(self.max_rows)?;
            if std::mem::take(&mut tries.failing) && !self.tell(queue, Item::Reading) {
                return Ok(Stopped::Unheard);
            }
            match found {
                Read::Idle => {
                    self.nudge(&mut told);
                    std::thread::park_timeout(PAUSE);
                }
                Read::End => return Ok(Stopped::End),
                Read::Batch(found) => {
                    let prepared = prepare_source(&self.relation, found.rows, &read, &self.columns)?;
                    tries.from = Some(found.position.clone());
                    tries.backoff = Backoff::default();
                    let item = Item::Rows { prepared, bad: found.bad, position: found.position, bytes: found.bytes };
                    if !self.tell(queue, item) {
                        return Ok(Stopped::Unheard);
                    }
                    told = self.env.monotonic_nanos();
                }
            }
        }
        Ok(Stopped::Unheard)
    }

    /// Wakes the conductor now and then in a silence, as only it decides which partitions are idle.
    fn nudge(&self, told: &mut u64) {
        let Some(after) = self.idle_timeout else { return };
        let now = self.env.monotonic_nanos();
        if now.saturating_sub(*told) >= (after / 4).max(PAUSE.as_nanos() as u64) {
            *told = now;
            (self.wake)();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_get_rarer() {
        let mut backoff = Backoff::default();
        let waits: Vec<u64> = (0..8).map(|_| backoff.next().as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
