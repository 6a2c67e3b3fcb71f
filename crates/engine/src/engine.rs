//! The engine's face to the doors.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use arrow::array::RecordBatch;
use parking_lot::{Mutex, RwLock};
use tidemill_connect::BadRow;
use tidemill_dataflow::{Cluster, Deploy, Guards, Memory, StateSizes, start};
use tidemill_delta::Epoch;
use tidemill_env::Env;
use tidemill_plan::RelationId;
use tidemill_sql::{ObjectName, Planner, Relation, RelationKind, SqlError, state};
use tidemill_storage::{Log, State};
use tokio::sync::{mpsc, oneshot};

use crate::catalog::{CatalogState, kind_name};
use crate::checkpoint::Saving;
use crate::conductor::{Conductor, Request};
use crate::config::Config;
use crate::event_time::prepare_table;
use crate::panics::guarded;
use crate::published::Published;
use crate::replica::Replica;
use crate::room::Room;
use crate::session::Session;
use crate::status::Stats;
use crate::subscription::{SubscribeFrom, Subscription};

/// Requests that may wait for the conductor.
const REQUESTS: usize = 1024;
/// The conductor plans the statements of a catalog that it restores. Memory is taken as it is used.
const CONDUCTOR_STACK: usize = 64 << 20;
/// Numbers that an object takes: itself and the side tables beside it.
pub(crate) const IDS_PER_OBJECT: RelationId = 4;

/// A running engine; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

/// What the conductor and the doors share.
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) env: Env,
    pub(crate) planner: Planner,
    catalog: RwLock<Arc<CatalogState>>,
    pub(crate) published: Arc<Published>,
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) stats: Mutex<Stats>,
    pub(crate) sizes: StateSizes,
    pub(crate) subscriptions: Arc<AtomicU64>,
    /// A wake-up is on its way to the conductor.
    pub(crate) awake: Arc<AtomicBool>,
    /// One statement at a time defines objects.
    pub(crate) ddl: Arc<tokio::sync::Mutex<()>>,
    /// One statement at a time reads rows in order to change them.
    pub(crate) dml: tokio::sync::Mutex<()>,
    /// One view at a time is verified: it reads all of its inputs.
    pub(crate) verifying: Arc<tokio::sync::Mutex<()>>,
    next_id: AtomicU64,
    room: Room,
    /// The durable log while it is open; it holds the folder's lock.
    pub(crate) log: Mutex<Option<Log>>,
    /// How the checkpoints go.
    pub(crate) saving: Arc<Saving>,
    /// Which start on the data folder this is; sinks' destinations refuse earlier ones. 1 where nothing is kept.
    pub(crate) incarnation: AtomicU64,
    /// What operators of this process may take.
    pub(crate) memory: Option<Memory>,
    pub(crate) started: u64,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Ends the thread that takes old rows out, when it is dropped.
    retention: Mutex<Option<crossbeam_channel::Sender<()>>>,
    /// The workers, in a process that only works.
    guards: Mutex<Option<Guards>>,
}

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

impl Inner {
    pub(crate) fn catalog(&self) -> Arc<CatalogState> {
        self.catalog.read().clone()
    }

    /// Changes the catalog; readers keep what they have.
    pub(crate) fn change_catalog(&self, change: impl FnOnce(&mut CatalogState)) {
        let mut catalog = self.catalog.write();
        let mut next = catalog.as_ref().clone();
        change(&mut next);
        *catalog = Arc::new(next);
    }

    /// Numbers for a new object.
    pub(crate) fn new_id(&self) -> RelationId {
        self.next_id.fetch_add(IDS_PER_OBJECT, Ordering::Relaxed)
    }

    /// The number that the next object gets.
    pub(crate) fn next_id(&self) -> RelationId {
        self.next_id.load(Ordering::Relaxed)
    }

    /// Numbers below this one are taken.
    pub(crate) fn take_ids_below(&self, id: RelationId) {
        self.next_id.fetch_max(id, Ordering::Relaxed);
    }

    /// Wakes the conductor; any thread may call it.
    pub(crate) fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        waker(self.requests.clone(), self.awake.clone())
    }

    /// Asks the conductor and waits for its answer.
    pub(crate) async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, SqlError>>) -> Request,
    ) -> Result<T, SqlError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// As [`Inner::ask`], for a thread that may wait.
    pub(crate) fn ask_blocking<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, SqlError>>) -> Request,
    ) -> Result<T, SqlError> {
        let (reply, answer) = oneshot::channel();
        self.requests.blocking_send(request(reply)).map_err(|_| stopped())?;
        answer.blocking_recv().map_err(|_| stopped())?
    }

    /// An error while nothing can be written down.
    pub(crate) fn refuse_while_full(&self) -> Result<(), SqlError> {
        let state = self.log.lock().as_ref().map(Log::state);
        let Some(State::Paused { reason }) = state else { return Ok(()) };
        Err(SqlError::new("53100", format!("nothing can be taken in: {reason}"))
            .hint("Views can be read meanwhile. Make room on the disk; then send the rows again."))
    }

    /// Asks the conductor to take rows in. Waits while too many others wait, and refuses while the disk is full.
    pub(crate) async fn ask_with_rows<'a>(
        &self,
        rows: impl Iterator<Item = &'a RecordBatch>,
        request: impl FnOnce(oneshot::Sender<Result<Epoch, SqlError>>) -> Request,
    ) -> Result<Epoch, SqlError> {
        self.refuse_while_full()?;
        let _room = self.room.take(rows.map(RecordBatch::get_array_memory_size).sum()).await?;
        self.ask(request).await
    }
}

fn stopped() -> SqlError {
    SqlError::new("57P01", "the engine is stopping")
}

/// One wake-up in the queue at a time is enough.
fn waker(requests: mpsc::Sender<Request>, awake: Arc<AtomicBool>) -> Arc<dyn Fn() + Send + Sync> {
    Arc::new(move || {
        if !awake.swap(true, Ordering::AcqRel) && requests.try_send(Request::Wake).is_err() {
            // A full queue keeps the conductor awake by itself.
            awake.store(false, Ordering::Release);
        }
    })
}

/// The folder in the data folder for what operators had put aside before.
const SPILL: &str = "spill";

/// What operators may take. Without a limit there may still be state on disk: that of a process before which had one.
fn memory(config: &Config, env: &Env) -> Result<Option<Memory>, SqlError> {
    let Some(spill) = &config.spill else {
        let data = config.data.as_ref().filter(|_| config.index == 0);
        return Ok(data.map(|data| Memory::in_reserve(env.disk().clone(), data.folder.join(SPILL))));
    };
    let made = Memory::new(env.disk().clone(), spill.folder.clone(), spill.state_bytes);
    made.map(Some).map_err(|e| {
        let folder = spill.folder.display();
        SqlError::new("58030", format!("the folder {folder} for state that does not fit in memory cannot be used: {e}"))
    })
}

impl Engine {
    /// Starts the engine's threads. In a process other than 0 this serves as workers only.
    pub fn start(config: Config, env: Env) -> Result<Engine, SqlError> {
        let (requests, receiver) = mpsc::channel(REQUESTS);
        let (outputs, results) = crossbeam_channel::unbounded();
        let (sizes, awake) = (StateSizes::default(), Arc::new(AtomicBool::new(false)));
        let (planner, arrived_bytes) = (Planner::with_memory(config.query_bytes), config.arrived_bytes);
        let memory = memory(&config, &env)?;
        let (workers, hosts) = (config.workers.max(1), config.hosts.clone());
        let cluster = Cluster { workers, index: config.index, hosts, memory: memory.clone() };
        let replica = Replica::new(planner.clone());
        let deploy: Deploy = Arc::new(move |text| replica.deploy(text));
        let on_done = waker(requests.clone(), awake.clone());
        let (loop_, guards) = start(&cluster, env.clone(), outputs, deploy, sizes.clone(), on_done)
            .map_err(|e| SqlError::new("58000", format!("cannot start the workers: {e}")))?;
        let inner = Arc::new(Inner {
            started: env.monotonic_nanos(),
            config,
            env,
            planner,
            catalog: RwLock::new(Arc::new(CatalogState::default())),
            published: Arc::new(Published::new()),
            requests,
            stats: Mutex::new(Stats::default()),
            sizes,
            subscriptions: Arc::new(AtomicU64::new(0)),
            awake,
            ddl: Arc::default(),
            dml: tokio::sync::Mutex::new(()),
            verifying: Arc::default(),
            next_id: AtomicU64::new(IDS_PER_OBJECT),
            room: Room::new(arrived_bytes),
            log: Mutex::new(None),
            saving: Arc::default(),
            incarnation: AtomicU64::new(1),
            memory,
            thread: Mutex::new(None),
            retention: Mutex::new(None),
            guards: Mutex::new(None),
        });
        if inner.config.index > 0 {
            *inner.guards.lock() = Some(guards);
            return Ok(Engine { inner });
        }
        let conductor = Conductor::new(inner.clone(), receiver, results, loop_, guards);
        let (ready, recovered) = crossbeam_channel::bounded(1);
        let thread = std::thread::Builder::new().name("conductor".into()).stack_size(CONDUCTOR_STACK);
        let thread = thread.spawn(move || conductor.run(&ready));
        let thread = thread.map_err(|e| SqlError::new("58000", format!("cannot start the conductor: {e}")))?;
        *inner.thread.lock() = Some(thread);
        recovered.recv().map_err(|_| SqlError::internal("the conductor stopped while it started"))??;
        let retention = crate::retention::start(Arc::downgrade(&inner));
        *inner.retention.lock() =
            Some(retention.map_err(|e| SqlError::new("58000", format!("cannot start a thread for retention: {e}")))?);
        Ok(Engine { inner })
    }

    /// A new client.
    pub fn session(&self) -> Session {
        Session::new(self.clone())
    }

    /// Takes decoded rows for a table (the columns numbered; others get their defaults) and the
    /// records that could not be decoded. Rows whose primary key exists take the old row's place.
    /// Returns when the rows are in an epoch; with `wait`, when that epoch is published.
    pub async fn ingest(
        &self,
        table: &Arc<Relation>,
        columns: &[usize],
        rows: Vec<RecordBatch>,
        bad: Vec<BadRow>,
        wait: bool,
    ) -> Result<Receipt, SqlError> {
        if table.kind != RelationKind::Table {
            let message = format!("\"{}\" is a {}, rows can only go into tables", table.name, kind_name(table.kind));
            return Err(SqlError::new(state::WRONG_OBJECT_TYPE, message));
        }
        let refused = bad.len() as u64;
        let mut prepared = Vec::with_capacity(rows.len());
        let mut accepted = 0;
        for rows in rows {
            let rows = self.inner.complete(table, columns, rows)?;
            accepted += rows.num_rows() as u64;
            prepared.push(prepare_table(table, rows)?);
        }
        let id = table.id;
        let batches: Vec<RecordBatch> = prepared.iter().map(|p| p.rows.clone()).collect();
        let ask = |reply| Request::Ingest { table: id, rows: prepared, upsert: true, bad, wait, reply };
        let epoch = self.inner.ask_with_rows(batches.iter(), ask).await?;
        Ok(Receipt { epoch, accepted, refused })
    }

    /// A live reader of a table or materialized view by name.
    pub fn subscribe(&self, name: &str, from: SubscribeFrom) -> Result<Subscription, SqlError> {
        let relation = self.relation(name)?;
        self.subscribe_to(&relation, from)
    }

    pub(crate) fn subscribe_to(&self, relation: &Relation, from: SubscribeFrom) -> Result<Subscription, SqlError> {
        if matches!(relation.kind, RelationKind::View | RelationKind::Source) {
            let message = format!("cannot subscribe to {} \"{}\"", kind_name(relation.kind), relation.name);
            return Err(SqlError::new(state::WRONG_OBJECT_TYPE, message)
                .hint("Create a materialized view over it and subscribe to that."));
        }
        let what = (relation.id, relation.name.as_str(), tidemill_delta::relaxed(&relation.schema));
        Subscription::new(self.inner.published.clone(), what, from, self.inner.subscriptions.clone())
    }

    /// A table or view by name (`t`, `public.t`).
    pub fn relation(&self, name: &str) -> Result<Arc<Relation>, SqlError> {
        let (namespace, name) = match name.split_once('.') {
            Some((namespace, name)) => (Some(namespace.to_owned()), name.to_owned()),
            None => (None, name.to_owned()),
        };
        self.inner.catalog().find(&ObjectName { namespace, name, position: None })
    }

    /// The last epoch that readers see.
    pub fn epoch(&self) -> Epoch {
        self.inner.published.epoch()
    }

    /// Waits until readers see this epoch.
    pub async fn wait_for(&self, epoch: Epoch) -> Result<(), SqlError> {
        let mut epochs = self.inner.published.watch();
        epochs.wait_for(|seen| *seen >= epoch).await.map(|_| ()).map_err(|_| stopped())
    }

    /// Starts all sources that wait.
    pub fn start_sources(&self) {
        // Called rarely, and by threads that may wait.
        let requests = self.inner.requests.clone();
        if requests.try_send(Request::StartSources).is_err() {
            std::thread::spawn(move || requests.blocking_send(Request::StartSources));
        }
    }

    /// Waits until all bounded sources have ended and their effects are published; an error if there
    /// is an unbounded one.
    pub async fn wait_for_end_of_input(&self) -> Result<(), SqlError> {
        self.inner.ask(|reply| Request::EndOfInput { reply }).await
    }

    /// Stops: sources end, epochs in flight complete, threads join.
    pub fn shutdown(&self) {
        let Some(thread) = self.inner.thread.lock().take() else { return };
        *self.inner.retention.lock() = None;
        let requests = self.inner.requests.clone();
        // The queue may be full, and this may be an async task: let another thread wait.
        let asked = std::thread::spawn(move || requests.blocking_send(Request::Shutdown));
        if asked.join().is_err() || thread.join().is_err() {
            tracing::error!("the conductor panicked");
        }
    }

    /// Waits for the workers of a process that only works; they end with process 0.
    pub fn join(&self) {
        drop(self.inner.guards.lock().take());
    }
}

impl Inner {
    /// Rows of some of a table's columns as rows of the table.
    pub(crate) fn complete(
        &self,
        table: &Relation,
        columns: &[usize],
        rows: RecordBatch,
    ) -> Result<RecordBatch, SqlError> {
        let fields: Vec<_> = columns.iter().map(|c| table.schema.field(*c).clone().with_nullable(true)).collect();
        let schema = Arc::new(arrow::datatypes::Schema::new(fields));
        let named = tidemill_delta::batch(schema, rows.columns().to_vec(), rows.num_rows());
        guarded(&table.name, || self.planner.complete_rows(table, named))
    }
}
