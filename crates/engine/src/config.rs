//! How an engine runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidemill_storage::ObjectStore;

/// How an engine runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Worker threads in this process.
    pub workers: usize,
    /// All processes' addresses for the exchange of rows; one entry or none: no network.
    pub hosts: Vec<String>,
    /// This process's place in `hosts`. Process 0 takes statements and serves.
    pub index: usize,
    /// At most about this many rows enter in one epoch.
    pub max_epoch_rows: usize,
    /// Epochs that may be in flight at once.
    pub epochs_in_flight: usize,
    /// Bytes of changes kept per view for subscribers that come back.
    pub history_bytes: usize,
    /// Rows kept in each side table (`t$bad`, `t$late`, `v$errors`); beyond that the eldest go.
    pub side_table_rows: usize,
    /// Start reading a source when its first view is created; else
    /// [`Engine::start_sources`](crate::Engine::start_sources) does.
    pub auto_start_sources: bool,
    /// Keep rows of views for `SELECT`; a benchmark that only has sinks does without.
    pub materialize: bool,
    /// Bytes of rows that may have arrived without being in an epoch; beyond them clients wait.
    pub arrived_bytes: usize,
    /// Where what happens outlives the process; `None`: it does not.
    pub data: Option<Data>,
    /// Bytes of memory that all queries together may take at one time; one that needs more than is left fails.
    pub query_bytes: usize,
    /// How much memory views' operators may take, and where the rest goes; `None`: whatever they need.
    pub spill: Option<Spill>,
}

/// State of views that does not fit in memory goes to disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spill {
    /// An existing folder of this process alone.
    pub folder: PathBuf,
    /// Bytes that the state of all views may take in memory.
    pub state_bytes: usize,
}

impl Config {
    /// Divides up the memory that the whole process may take: a quarter is for the views' state, which takes as much again while it is
    /// put aside; an eighth each for rows that have arrived and for queries; the rest for epochs in flight, relations' rows and the program.
    pub fn with_memory(mut self, bytes: usize, folder: PathBuf) -> Self {
        self.spill = Some(Spill { folder, state_bytes: bytes / 4 });
        self.arrived_bytes = self.arrived_bytes.min(bytes / 8);
        self.query_bytes = self.query_bytes.min(bytes / 8);
        self.history_bytes = self.history_bytes.min(bytes / 32);
        // The more keys a step looks for, the more of them are in a block that is read; and fewer such epochs wait.
        self.max_epoch_rows = self.max_epoch_rows.max(1 << 19);
        self.epochs_in_flight = self.epochs_in_flight.min(2);
        self
    }
}

/// A folder in which everything is kept.
#[derive(Clone, Debug)]
pub struct Data {
    /// The folder; made if it is not there.
    pub folder: PathBuf,
    /// How often a checkpoint is begun, if anything has changed since the last one.
    pub checkpoint_every: Duration,
    /// Where checkpoints are kept; `None`: in the folder.
    pub checkpoints: Option<CheckpointStore>,
}

/// A store of checkpoints that is not in the data folder.
#[derive(Clone)]
pub struct CheckpointStore {
    address: String,
    store: Arc<dyn ObjectStore>,
}

impl CheckpointStore {
    /// A store, and how a user calls it.
    pub fn new(address: impl Into<String>, store: Arc<dyn ObjectStore>) -> Self {
        CheckpointStore { address: address.into(), store }
    }

    /// How a user calls it.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn store(&self) -> Arc<dyn ObjectStore> {
        self.store.clone()
    }
}

impl std::fmt::Debug for CheckpointStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.address)
    }
}

impl Data {
    /// A folder with the usual settings.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Data { folder: folder.into(), checkpoint_every: Duration::from_secs(10), checkpoints: None }
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            workers: 1,
            hosts: Vec::new(),
            index: 0,
            max_epoch_rows: 65_536,
            epochs_in_flight: 4,
            history_bytes: 64 << 20,
            side_table_rows: 1_000_000,
            auto_start_sources: true,
            materialize: true,
            arrived_bytes: 256 << 20,
            data: None,
            query_bytes: 1 << 30,
            spill: None,
        }
    }
}
