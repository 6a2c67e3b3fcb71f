//! The engine's face to the doors.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use tidemill_connect::BadRow;
use tidemill_delta::{Delta, Epoch};
use tidemill_env::Env;
use tidemill_sql::{CopyOptions, Description, Notice, Param, Relation, SqlError, Statement};

/// How an engine runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Worker threads in this process.
    pub workers: usize,
    /// All processes' addresses for the exchange of rows, this one's place among them; one entry (or none): no network.
    pub hosts: Vec<String>,
    /// This process's place in `hosts`. Process 0 takes statements and serves.
    pub index: usize,
    /// At most about this many rows enter in one epoch.
    pub max_epoch_rows: usize,
    /// Epochs that may be in flight at once.
    pub epochs_in_flight: usize,
    /// Bytes of changes kept per view for subscribers that come back.
    pub history_bytes: usize,
    /// Start reading a source when its first view is created; else [`Engine::start_sources`] does.
    pub auto_start_sources: bool,
    /// Keep rows of views for `SELECT`; a benchmark that only has sinks does without.
    pub materialize: bool,
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
            auto_start_sources: true,
            materialize: true,
        }
    }
}

/// A running engine; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

/// What the conductor and the doors share.
pub(crate) struct Inner {}

/// What became of an ingest request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The epoch that holds the rows; a read at or after it sees them.
    pub epoch: Epoch,
    /// Rows taken in (late ones are among them; they are told apart when the epoch is cut).
    pub accepted: u64,
    /// Records refused, which are in `t$bad`.
    pub refused: u64,
}

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

/// What a statement answers.
pub enum Response {
    /// Rows.
    Rows {
        /// The columns.
        schema: SchemaRef,
        /// The rows.
        batches: Vec<RecordBatch>,
        /// The command tag without the row count (`SELECT`, `INSERT 0`, `FETCH`, `SHOW`, `EXPLAIN`).
        tag: String,
    },
    /// Done: the full command tag (`CREATE TABLE`, `INSERT 0 3`).
    Done(String),
    /// Wants rows: decode what comes and give it to [`Session::copy_rows`].
    CopyIn {
        /// The table.
        table: Arc<Relation>,
        /// The columns sent, as numbers of the table's.
        columns: Vec<usize>,
        /// In what form.
        options: CopyOptions,
    },
    /// Gives rows in `COPY` form.
    CopyOut {
        /// The columns.
        schema: SchemaRef,
        /// The rows, or a live reader.
        rows: CopyOutRows,
        /// In what form.
        options: CopyOptions,
    },
    /// A live reader (plain `SUBSCRIBE`).
    Subscribe(Subscription),
    /// The statement was empty.
    Empty,
}

/// What `COPY ... TO STDOUT` gives.
pub enum CopyOutRows {
    /// Rows.
    Batches(Vec<RecordBatch>),
    /// Changes without end, each row led by epoch and diff.
    Live(Subscription),
}

/// A live reader of a table or view.
pub struct Subscription {
    pub(crate) schema: SchemaRef,
}

impl Subscription {
    /// The relation's columns (without epoch and diff).
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The next change; waits for one. `None`: the relation was dropped or the engine stops. An error
    /// means that the position asked for is no longer kept.
    pub async fn next(&mut self) -> Result<Option<Change>, SqlError> {
        Err(SqlError::internal("not running"))
    }

    /// The epoch up to which this subscription has seen everything (also epochs without changes).
    pub fn position(&self) -> Epoch {
        0
    }
}

/// One client's state: transaction, parameters, cursors, notices.
pub struct Session {
    pub(crate) engine: Engine,
}

impl Session {
    /// What a statement takes and gives, without running it.
    pub async fn describe(&mut self, _statement: &Statement, _types: &[Option<DataType>]) -> Result<Description, SqlError> {
        Err(SqlError::internal("not running"))
    }

    /// Runs a statement.
    pub async fn execute(&mut self, _statement: &Statement, _params: &[Param]) -> Result<Response, SqlError> {
        Err(SqlError::internal("not running"))
    }

    /// Takes rows of a `COPY ... FROM STDIN`: a batch of the columns that [`Response::CopyIn`]
    /// named. All or nothing: a bad row fails the `COPY`, as in PostgreSQL. Returns the row count.
    pub async fn copy_rows(&mut self, _table: &Arc<Relation>, _columns: &[usize], _rows: Vec<RecordBatch>) -> Result<u64, SqlError> {
        Err(SqlError::internal("not running"))
    }

    /// Notices of the last statement.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        Vec::new()
    }

    /// The transaction status for the wire: `I` idle, `T` in a transaction, `E` in a failed one.
    pub fn transaction_status(&self) -> u8 {
        b'I'
    }

    /// Marks an open transaction as failed (after an error outside `execute`).
    pub fn fail_transaction(&mut self) {}

    /// A run-time parameter (`client_encoding`, `application_name`, ...), set or default.
    pub fn parameter(&self, _name: &str) -> Option<String> {
        None
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}

/// A table, source, view or sink at work, for `SHOW`, `/metrics` and the page.
#[derive(Clone, Debug)]
pub struct RelationStatus {
    /// What it is.
    pub relation: Arc<Relation>,
    /// `running`, `catching up`, `stopped`, `ended`, ...
    pub state: String,
    /// Why it stopped.
    pub reason: Option<String>,
    /// Rows that came in (sources, tables).
    pub rows_in: u64,
    /// Of these, rows applied.
    pub applied: u64,
    /// Of these, late.
    pub late: u64,
    /// Of these, bad.
    pub bad: u64,
    /// Changes that came out (views): rows listed in deltas.
    pub changes: u64,
    /// Rows held now.
    pub rows: u64,
    /// Bytes held now, by the rows and the operators' state.
    pub bytes: u64,
    /// The watermark in microseconds, if there is one.
    pub watermark: Option<i64>,
    /// The last epoch in which it changed.
    pub last_epoch: Epoch,
    /// Bytes read and in all, for bounded sources.
    pub progress: Option<(u64, u64)>,
}

/// The whole engine at work.
#[derive(Clone, Debug, Default)]
pub struct EngineStatus {
    /// The last epoch that readers see.
    pub epoch: Epoch,
    /// Epochs that had rows.
    pub epochs_with_rows: u64,
    /// Rows that came in.
    pub rows_in: u64,
    /// Seconds since the start.
    pub uptime_seconds: f64,
    /// Subscriptions open now.
    pub subscriptions: u64,
    /// Last epochs' latency from cut to publication, microseconds: p50, p99.
    pub epoch_latency_micros: (u64, u64),
    /// Tables, sources, views and sinks, by name.
    pub relations: Vec<RelationStatus>,
}

impl Engine {
    /// Starts the engine's threads. In a process other than 0 this serves as workers only.
    pub fn start(_config: Config, _env: Env) -> Result<Engine, SqlError> {
        Err(SqlError::internal("not running"))
    }

    /// A new client.
    pub fn session(&self) -> Session {
        Session { engine: self.clone() }
    }

    /// Takes decoded rows for a table (the columns numbered; others get their defaults) and the
    /// records that could not be decoded. Returns when the rows are in an epoch; with `wait`, when
    /// that epoch is published.
    pub async fn ingest(
        &self,
        _table: &Arc<Relation>,
        _columns: &[usize],
        _rows: Vec<RecordBatch>,
        _bad: Vec<BadRow>,
        _wait: bool,
    ) -> Result<Receipt, SqlError> {
        Err(SqlError::internal("not running"))
    }

    /// A live reader of a table or materialized view by name.
    pub fn subscribe(&self, _name: &str, _from: SubscribeFrom) -> Result<Subscription, SqlError> {
        Err(SqlError::internal("not running"))
    }

    /// A table or view by name (`t`, `public.t`).
    pub fn relation(&self, _name: &str) -> Result<Arc<Relation>, SqlError> {
        Err(SqlError::internal("not running"))
    }

    /// The last epoch that readers see.
    pub fn epoch(&self) -> Epoch {
        0
    }

    /// Waits until readers see this epoch.
    pub async fn wait_for(&self, _epoch: Epoch) -> Result<(), SqlError> {
        Err(SqlError::internal("not running"))
    }

    /// Starts all sources that wait.
    pub fn start_sources(&self) {}

    /// Waits until all bounded sources have ended and their effects are published; an error if there
    /// is an unbounded one.
    pub async fn wait_for_end_of_input(&self) -> Result<(), SqlError> {
        Err(SqlError::internal("not running"))
    }

    /// The engine at work.
    pub fn status(&self) -> EngineStatus {
        EngineStatus::default()
    }

    /// Stops: sources end, epochs in flight complete, threads join.
    pub fn shutdown(&self) {}
}
