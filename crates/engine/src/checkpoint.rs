//! Checkpoints: all that is remembered as of the end of an epoch, as files.
//!
//! A checkpoint is a directory and the packs that it names. A pack holds runs: pieces of a relation's rows, of its
//! recent changes, or of an operator's state, as Arrow IPC. A checkpoint writes one pack or a few with what is new, and
//! a directory that also names the runs of older packs that still hold. Runs are merged like the levels of a
//! log-structured merge tree, and what is left of a pack is copied once more than half of it is dead, so
//! the files stay within a small multiple of what they hold.
//!
//! [`Keeper`] writes them, on a thread of its own: the conductor only hands it shared columns.

mod find;
mod keeper;
mod merge;
mod pack;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidemill_dataflow::RunName;
use tidemill_delta::{Epoch, Micros};
use tidemill_plan::{NodeId, RelationId};
use tidemill_storage::ObjectStore;

pub(crate) use find::{Found, find};
pub(crate) use keeper::{Job, Keeper, Restored, Saving};
pub(crate) use merge::newest_entries;
pub(crate) use pack::{Packs, piece_of, read_run};

use crate::journal::{Counts, Object, PartitionRead};

/// Where checkpoints are kept.
pub(crate) type Store = Arc<dyn ObjectStore>;

/// The versions of directories that this program reads; it writes the last. Version 2 knows state that was put aside.
pub(crate) const FORMATS: std::ops::RangeInclusive<u32> = 1..=2;
/// How the names of directories begin.
pub(crate) const DIRECTORY: &str = "directory-";

/// What a checkpoint holds, but for rows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Directory {
    pub(crate) format: u32,
    /// The epoch whose end this is.
    pub(crate) epoch: Epoch,
    /// The number that the next object gets.
    pub(crate) next_id: RelationId,
    /// How many workers saved it.
    pub(crate) workers: usize,
    /// In the order of their definition.
    pub(crate) objects: Vec<SavedObject>,
    pub(crate) sources: Vec<SavedSource>,
    pub(crate) sinks: Vec<SavedSink>,
    /// The watermarks in force.
    pub(crate) in_force: Vec<(RelationId, Micros)>,
    /// The watermarks that the rows of tables allow.
    pub(crate) reached: Vec<(RelationId, Micros)>,
    pub(crate) counts: Vec<Counts>,
    pub(crate) relations: Vec<SavedRelation>,
    pub(crate) runs: Vec<Run>,
}

/// An object of the catalog.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SavedObject {
    pub(crate) object: Object,
    /// Why it stopped.
    pub(crate) failed: Option<String>,
    /// A hash of its dataflow: state only fits the dataflow that made it.
    pub(crate) plan: Option<u64>,
}

/// A source.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SavedSource {
    pub(crate) source: RelationId,
    pub(crate) started: bool,
    pub(crate) failed: Option<String>,
    pub(crate) partitions: Vec<PartitionRead>,
}

/// A sink.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct SavedSink {
    pub(crate) sink: RelationId,
    /// Why it has given changes up, if it has.
    pub(crate) given_up: Option<String>,
    /// Another incarnation has the destination.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) fenced: bool,
    /// The last epoch known to be committed; 0 before the first.
    #[serde(default)]
    pub(crate) committed: Epoch,
}

/// What readers see of a relation, but for rows.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct SavedRelation {
    pub(crate) relation: RelationId,
    /// All changes after this epoch are there for subscribers.
    pub(crate) complete_after: Epoch,
    pub(crate) last_epoch: Epoch,
    /// Rows listed in all deltas so far.
    pub(crate) changes: u64,
}

/// Where a run is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) of: Of,
    /// How many rows it lists.
    pub(crate) rows: usize,
    /// How many columns these have: only runs of one shape are merged. What is left of a join's rows has one more than
    /// the changes of its input.
    pub(crate) columns: usize,
    pub(crate) pack: String,
    /// Where in the pack it begins, in bytes.
    pub(crate) at: usize,
    /// Its length in bytes.
    pub(crate) bytes: usize,
    /// For entries: how many bytes at its end are the keys that have no entries any more.
    pub(crate) gone: usize,
    /// For recent changes: the last epoch in it.
    pub(crate) until: Epoch,
    /// For state that was put aside: how many keys all of it knows.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) keys: usize,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// What a run is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Of {
    /// The rows of a relation.
    Rows { relation: RelationId },
    /// Recent changes of a relation, with the epoch as one more column.
    Changes { relation: RelationId },
    /// What a sink may not have delivered, likewise.
    Undelivered { sink: RelationId },
    /// The state of an operator on one worker. `key`: for entries, how many leading columns are the key.
    State { view: RelationId, node: NodeId, part: usize, worker: usize, key: Option<usize> },
    /// A piece of what an operator on one worker has put on disk, in all parts. Pieces of one name follow each other; greater names
    /// are later. What `State` has of the operator came after it.
    Aside { view: RelationId, node: NodeId, worker: usize, name: RunName },
}
