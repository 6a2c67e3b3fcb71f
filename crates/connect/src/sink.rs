//! What a sink is to the engine: a destination that knows what it has.
//!
//! The engine may compute epochs again after a crash, identically, and so send changes again that the
//! destination has already. What makes a change arrive once all the same:
//!
//! - A sink commits whole epochs: the rows and the record that they are there become durable in one step.
//! - [`Sink::open`] answers the last epoch committed; the engine leaves out all up to it.
//! - Every start of the server has a greater number, the incarnation, and the destination remembers the greatest it has
//!   seen. Whoever comes with a smaller one, a server that was thought dead for instance, can commit nothing any more.
//!
//! Where a destination cannot remember (webhooks, standard output), `open` answers `None` and changes since the last
//! checkpoint may arrive twice.

use std::sync::Arc;
use std::time::Duration;

use tidemill_delta::{Delta, Epoch};

use crate::sinks::SinkCounts;
use crate::source::SourceError;

/// Why a sink cannot take rows. Views go on whatever it is. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// Another try may succeed; not before `after`, if the destination said so.
    #[error("{reason}")]
    Retry {
        /// What went wrong.
        reason: String,
        /// How long the destination wants to be left alone.
        after: Option<Duration>,
    },
    /// It would fail again: the sink stops.
    #[error("{0}")]
    Fatal(String),
    /// A later incarnation has taken the destination over: this one must never write to it again.
    #[error("{0}")]
    Fenced(String),
}

impl SinkError {
    /// An error that another try may get around.
    pub fn retry(reason: impl Into<String>) -> Self {
        SinkError::Retry { reason: reason.into(), after: None }
    }

    /// An error that stays.
    pub fn fatal(reason: impl Into<String>) -> Self {
        SinkError::Fatal(reason.into())
    }

    /// The error for an incarnation that comes to a destination which a later one has taken over.
    pub fn fenced(own: u64, recorded: u64) -> Self {
        SinkError::Fenced(format!("incarnation {recorded} has taken over; this one, {own}, may not write any more"))
    }
}

impl From<SourceError> for SinkError {
    /// A mistake in the options.
    fn from(error: SourceError) -> Self {
        SinkError::Fatal(error.0)
    }
}

/// Who comes to the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Which start of the server this is; each later one is greater.
    pub incarnation: u64,
    /// The sink was created just now, so the destination must not know it yet. Otherwise it must.
    pub created: bool,
}

/// How the engine goes about a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Epochs that come closer together than this are committed together.
    pub commit_interval: Duration,
    /// It depends on nothing but this machine, so that waiting for it is like waiting for a busy processor. While it
    /// works the engine waits; one that is not local is stopped when it falls too far behind.
    pub local: bool,
    /// For how long a failing commit is tried again before the sink stops; `None`: without end.
    pub retry_for: Option<Duration>,
}

/// Pieces that the destination did not take, and why; they go to `<sink>$rejected`.
#[derive(Clone, Debug)]
pub struct Rejected {
    /// The epoch of the changes.
    pub epoch: Epoch,
    /// The changes.
    pub delta: Delta,
    /// What the destination said.
    pub reason: String,
    /// How often they were sent.
    pub attempts: u32,
}

/// Delivery of a view's changes to the outside, epoch by epoch, in order.
///
/// The engine calls `open` until it succeeds, then any number of times `write`, `write`, ..., `commit`, and at the end
/// `finish`. All may block; none is called by a thread that others wait for.
pub trait Sink: Send {
    /// Takes the destination for this incarnation, and answers the last epoch that is committed there.
    fn open(&mut self, opening: Opening) -> Result<Option<Epoch>, SinkError>;

    /// Takes changes of one epoch into a buffer. It touches nothing outside, so that what fails here stays wrong.
    fn write(&mut self, epoch: Epoch, delta: &Delta) -> Result<(), SinkError>;

    /// Makes all that was written up to the end of `epoch` durable and visible in one step, together with the record
    /// that it is. After [`SinkError::Retry`] all of it is still in the buffer, and `commit` may be called again.
    fn commit(&mut self, epoch: Epoch) -> Result<(), SinkError>;

    /// The engine stops, or the sink was dropped: no change will come any more.
    fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// After `finish`: the sink was dropped, and the destination need not know it any more.
    fn forget(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// What the destination has refused since the last call, after `commit`. It counts as committed.
    fn take_rejected(&mut self) -> Vec<Rejected> {
        Vec::new()
    }

    /// How the engine goes about it.
    fn pace(&self) -> Pace;

    /// What it has taken so far, if it keeps count.
    fn counts(&self) -> Option<Arc<SinkCounts>> {
        None
    }
}
