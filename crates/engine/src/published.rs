//! What readers see: every relation's rows as of the end of one epoch, and recent changes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parking_lot::RwLock;
use tidemill_delta::{Delta, Epoch, Micros, NO_WATERMARK};
use tidemill_plan::RelationId;
use tidemill_sql::{Relation, Snapshot, SqlError};
use tidemill_state::Collection;
use tokio::sync::watch;

/// The readers' side of one relation.
pub(crate) struct Shown {
    /// Its rows; `None` if nobody asked to keep them.
    pub(crate) rows: Option<Collection>,
    /// Changes by epoch, eldest first, for subscribers.
    pub(crate) history: VecDeque<(Epoch, Delta)>,
    history_bytes: usize,
    /// All changes after this epoch are in `history`.
    pub(crate) complete_after: Epoch,
    pub(crate) last_epoch: Epoch,
    /// Rows listed in all deltas so far.
    pub(crate) changes: u64,
    /// Readers may see it: a new view is hidden until it has caught up.
    pub(crate) visible: bool,
}

impl Shown {
    pub(crate) fn new(schema: SchemaRef, keep: bool, epoch: Epoch) -> Self {
        Shown {
            rows: keep.then(|| Collection::new(schema)),
            history: VecDeque::new(),
            history_bytes: 0,
            complete_after: epoch,
            last_epoch: epoch,
            changes: 0,
            visible: false,
        }
    }

    /// Adds the changes of one epoch: the changes and the rows with them, if rows are kept.
    pub(crate) fn push(&mut self, epoch: Epoch, merged: Option<(Delta, Collection)>, listed: u64, limit: usize) {
        self.changes += listed;
        self.last_epoch = epoch;
        let Some((delta, rows)) = merged else { return };
        self.rows = Some(rows);
        self.push_change(epoch, delta);
        self.forget_beyond(limit);
    }

    /// Adds one epoch's changes for subscribers.
    pub(crate) fn push_change(&mut self, epoch: Epoch, delta: Delta) {
        self.history_bytes += delta.row_bytes();
        self.history.push_back((epoch, delta));
    }

    /// What was there when it was saved.
    pub(crate) fn restore(&mut self, complete_after: Epoch, last_epoch: Epoch, changes: u64, limit: usize) {
        (self.visible, self.changes, self.last_epoch) = (true, changes, last_epoch);
        self.complete_after = complete_after;
        while self.history.front().is_some_and(|(epoch, _)| *epoch <= complete_after) {
            let gone = self.history.pop_front();
            self.history_bytes -= gone.map_or(0, |(_, delta)| delta.row_bytes());
        }
        self.forget_beyond(limit);
    }

    fn forget_beyond(&mut self, limit: usize) {
        while self.history_bytes > limit {
            let Some((gone, delta)) = self.history.pop_front() else { break };
            self.history_bytes -= delta.row_bytes();
            self.complete_after = gone;
        }
    }

    /// A view that becomes visible: what came before was its building, not its changes.
    pub(crate) fn show(&mut self, epoch: Epoch) {
        self.visible = true;
        self.history.clear();
        self.history_bytes = 0;
        self.complete_after = epoch;
    }
}

/// All relations as of one epoch.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) epoch: Epoch,
    pub(crate) shown: BTreeMap<RelationId, Shown>,
    /// The watermarks that were in force in that epoch.
    pub(crate) watermarks: BTreeMap<RelationId, Micros>,
}

/// The state, and a way to wait for it to move.
pub(crate) struct Published {
    pub(crate) state: RwLock<State>,
    epoch: watch::Sender<Epoch>,
}

impl Published {
    pub(crate) fn new() -> Self {
        Published { state: RwLock::new(State::default()), epoch: watch::channel(0).0 }
    }

    /// Tells waiting readers about the epoch.
    pub(crate) fn announce(&self, epoch: Epoch) {
        self.epoch.send_replace(epoch);
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Epoch> {
        self.epoch.subscribe()
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.state.read().epoch
    }

    /// All relations' rows as of now; shares them.
    pub(crate) fn snapshot(&self) -> Arc<Rows> {
        let state = self.state.read();
        let rows = state
            .shown
            .iter()
            .filter(|(_, s)| s.visible)
            .filter_map(|(id, s)| s.rows.clone().map(|rows| (*id, rows)))
            .collect();
        Arc::new(Rows { epoch: state.epoch, rows, watermarks: state.watermarks.clone() })
    }
}

/// The rows of all relations as of one epoch.
pub(crate) struct Rows {
    epoch: Epoch,
    rows: BTreeMap<RelationId, Collection>,
    watermarks: BTreeMap<RelationId, Micros>,
}

impl Rows {
    pub(crate) fn collection(&self, id: RelationId) -> Option<&Collection> {
        self.rows.get(&id)
    }

    /// The watermark of whatever is made from these sources and tables: the least of theirs.
    pub(crate) fn watermark(&self, sources: impl IntoIterator<Item = RelationId>) -> Micros {
        let all = sources.into_iter().map(|s| self.watermarks.get(&s).copied().unwrap_or(NO_WATERMARK));
        all.min().unwrap_or(NO_WATERMARK)
    }
}

impl Snapshot for Rows {
    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn rows(&self, relation: &Relation) -> Result<Vec<RecordBatch>, SqlError> {
        let rows = self.collection(relation.id).ok_or_else(|| {
            SqlError::new(
                tidemill_sql::state::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("\"{}\" has no rows to read yet", relation.name),
            )
            .hint("A materialized view can be read once it has caught up; a source is read through a view.")
        })?;
        rows.to_batches().map_err(|e| SqlError::internal(e.to_string()))
    }
}
