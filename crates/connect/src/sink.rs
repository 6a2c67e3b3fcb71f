//! What a sink is to the engine.

use std::sync::Arc;

use tidemill_delta::{Delta, Epoch};

use crate::sinks::SinkCounts;

/// Why a sink cannot take rows: the sink stops with this, views go on.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct SinkError(pub String);

/// Delivery of a view's changes to the outside, epoch by epoch, in order.
pub trait Sink: Send {
    /// Takes the changes of one epoch; they may stay in a buffer until [`Sink::commit`].
    fn write(&mut self, epoch: Epoch, delta: &Delta) -> Result<(), SinkError>;

    /// Makes all that was written up to the end of `epoch` durable and visible.
    fn commit(&mut self, epoch: Epoch) -> Result<(), SinkError>;

    /// The view will not change any more.
    fn finish(&mut self) -> Result<(), SinkError>;

    /// What it has taken so far, if it keeps count.
    fn counts(&self) -> Option<Arc<SinkCounts>> {
        None
    }
}
