//! Live readers: a cursor over a relation's recent changes. Nothing is queued per reader; one that
//! falls behind what is kept gets an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::SchemaRef;
use tidemill_delta::{Delta, Epoch, consolidate};
use tidemill_plan::RelationId;
use tidemill_sql::{SqlError, state};
use tokio::sync::watch;

use crate::published::Published;

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscribeFrom {
    /// First the rows as of now, then changes.
    Snapshot,
    /// Only changes from now on.
    Now,
    /// Changes after this epoch, which the subscriber has seen.
    After(Epoch),
}

/// Changes of one epoch, or the first rows.
#[derive(Clone, Debug)]
pub struct Change {
    /// The epoch at whose end this holds.
    pub epoch: Epoch,
    /// The rows; consolidated.
    pub delta: Delta,
    /// Whether these are the first rows as of `epoch`.
    pub snapshot: bool,
}

/// A live reader of a table or view.
pub struct Subscription {
    name: String,
    id: RelationId,
    schema: SchemaRef,
    published: Arc<Published>,
    epochs: watch::Receiver<Epoch>,
    first: Option<Change>,
    seen: Epoch,
    open: Arc<AtomicU64>,
}

impl Subscription {
    pub(crate) fn new(
        published: Arc<Published>,
        relation: (RelationId, &str, SchemaRef),
        from: SubscribeFrom,
        open: Arc<AtomicU64>,
    ) -> Result<Self, SqlError> {
        let (id, name, schema) = relation;
        let epochs = published.watch();
        let (first, seen) = {
            let state = published.state.read();
            let shown = state.shown.get(&id).filter(|s| s.visible && s.rows.is_some());
            let shown = shown.ok_or_else(|| unreadable(name))?;
            match from {
                SubscribeFrom::Now => (None, state.epoch),
                SubscribeFrom::Snapshot => (shown.rows.clone(), state.epoch),
                SubscribeFrom::After(epoch) if epoch < shown.complete_after => {
                    return Err(too_old(name, epoch, shown.complete_after));
                }
                SubscribeFrom::After(epoch) if epoch > state.epoch => {
                    let message = format!("epoch {epoch} of \"{name}\" lies ahead: the last one is {}", state.epoch);
                    return Err(SqlError::new(state::INVALID_PARAMETER_VALUE, message));
                }
                SubscribeFrom::After(epoch) => (None, epoch),
            }
        };
        // Sorting a large view must not hold the state's lock.
        let first = first
            .map(|rows| rows.consolidated().map(|delta| Change { epoch: seen, delta, snapshot: true }))
            .transpose()
            .map_err(|e| SqlError::internal(e.to_string()))?;
        open.fetch_add(1, Ordering::Relaxed);
        Ok(Subscription { name: name.to_owned(), id, schema, published, epochs, first, seen, open })
    }

    /// The relation's columns (without epoch and diff).
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The next change; waits for one. `None`: the relation was dropped or the engine stops. An error
    /// means that the position asked for is no longer kept.
    pub async fn next(&mut self) -> Result<Option<Change>, SqlError> {
        loop {
            match self.try_next()? {
                Poll::Change(change) => return Ok(Some(change)),
                Poll::Gone => return Ok(None),
                Poll::Nothing => {
                    if self.epochs.changed().await.is_err() {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// The next change if there is one now.
    pub fn poll_now(&mut self) -> Result<Option<Change>, SqlError> {
        Ok(match self.try_next()? {
            Poll::Change(change) => Some(change),
            Poll::Gone | Poll::Nothing => None,
        })
    }

    fn try_next(&mut self) -> Result<Poll, SqlError> {
        if let Some(first) = self.first.take() {
            return Ok(Poll::Change(first));
        }
        loop {
            let found = {
                let state = self.published.state.read();
                let Some(shown) = state.shown.get(&self.id) else { return Ok(Poll::Gone) };
                if self.seen < shown.complete_after {
                    return Err(too_old(&self.name, self.seen, shown.complete_after));
                }
                let at = shown.history.partition_point(|(epoch, _)| *epoch <= self.seen);
                match shown.history.get(at) {
                    Some((epoch, delta)) => {
                        self.seen = *epoch;
                        delta.clone()
                    }
                    None => {
                        self.seen = state.epoch;
                        return Ok(Poll::Nothing);
                    }
                }
            };
            let delta = consolidate(&self.schema, &[found]).map_err(|e| SqlError::internal(e.to_string()))?;
            if !delta.is_empty() {
                return Ok(Poll::Change(Change { epoch: self.seen, delta, snapshot: false }));
            }
        }
    }

    /// The epoch up to which this subscription has seen everything (also epochs without changes).
    pub fn position(&self) -> Epoch {
        self.seen
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

enum Poll {
    Change(Change),
    Nothing,
    Gone,
}

fn unreadable(name: &str) -> SqlError {
    SqlError::new(state::OBJECT_NOT_IN_PREREQUISITE_STATE, format!("\"{name}\" cannot be subscribed to"))
        .hint("Subscribe to a table or to a materialized view that has caught up.")
}

fn too_old(name: &str, asked: Epoch, kept: Epoch) -> SqlError {
    let message = format!("changes of \"{name}\" after epoch {asked} are no longer kept, only those after {kept}");
    SqlError::new(state::OBJECT_NOT_IN_PREREQUISITE_STATE, message).hint("Subscribe again with a snapshot.")
}
