//! The conductor: cuts epochs, feeds the workers, publishes what they finish.
//!
//! One thread. It takes what has arrived (statements' writes, ingested rows, sources' batches),
//! fixes the watermarks, and begins an epoch with it as soon as fewer than a few epochs are in
//! flight: a quiet system takes tiny epochs, a busy one large ones. When the workers are done with
//! an epoch, all views' changes of it become visible at once.

mod arrivals;
mod catch_up;
mod cut;
mod durable;
mod publish;
mod rebuild;
mod recover;
mod repair;
mod restore;
mod sinks;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use arrow::array::RecordBatch;
use crossbeam_channel::Receiver;
use tidemill_connect::{BadRow, Sink, Source};
use tidemill_dataflow::{Command, Guards, Loop, Output, ViewSpec};
use tidemill_delta::{Delta, Epoch, Micros};
use tidemill_plan::RelationId;
use tidemill_sql::{Relation, SqlError};
use tokio::sync::{mpsc, oneshot};

use self::catch_up::CatchUp;
use self::durable::{Durable, Logged};
use self::rebuild::Rebuild;
pub(crate) use self::repair::{LateRows, Repair, ResumedSink};
use crate::catalog::CatalogState;
use crate::engine::Inner;
use crate::event_time::Prepared;
use crate::journal::Object;
use crate::removals::Removals;
use crate::retained::Retained;
use crate::sink::{Ending, RunningSink, end_all};
use crate::source::RunningSource;
use crate::table::{PrimaryKey, TableChange};

/// An answer for whoever asked.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, SqlError>>;

/// What a definition or a removal changes in the catalog, once it holds. The lock on definitions goes with it, whether or not whoever
/// asked still waits.
pub(crate) type Entering = Box<dyn FnOnce(&mut CatalogState) + Send>;

/// What the conductor is asked to do.
pub(crate) enum Request {
    /// Changes of tables, all in one epoch or none.
    Write { changes: Vec<(RelationId, TableChange)>, reply: Reply<Epoch> },
    /// Rows from outside; answered when they are in an epoch, or when it is published.
    Ingest { table: RelationId, rows: Vec<Prepared>, upsert: bool, bad: Vec<BadRow>, wait: bool, reply: Reply<Epoch> },
    /// Rows of a table that go by themselves. Those that have changed meanwhile stay.
    Expire { table: RelationId, rows: RecordBatch, seen: Epoch, reply: Reply<Epoch> },
    /// A new object.
    Define(Box<Define>),
    /// Objects go, dependents first.
    Drop { ids: Vec<RelationId>, enter: Entering, reply: Reply<()> },
    /// What went wrong is put right.
    Repair(Repair),
    /// Sources begin to read.
    StartSources,
    /// Answer when all bounded input has been read and its effects are published.
    EndOfInput { reply: Reply<()> },
    /// Something has moved: look.
    Wake,
    /// Finish what is begun and stop.
    Shutdown,
}

/// A new table, source, view or sink.
pub(crate) struct Define {
    /// The relation and those beside it.
    pub(crate) relations: Vec<Arc<Relation>>,
    /// A view's dataflow.
    pub(crate) spec: Option<Arc<ViewSpec>>,
    /// What the catalog and other processes are told.
    pub(crate) object: Object,
    pub(crate) source: Option<Arc<dyn Source>>,
    /// A sink, its name, and whose changes it takes.
    pub(crate) sink: Option<(RelationId, String, RelationId, Box<dyn Sink>)>,
    pub(crate) enter: Entering,
    pub(crate) reply: Reply<()>,
}

/// An epoch that the workers are on.
struct InFlight {
    epoch: Epoch,
    began: u64,
    /// Changes of tables and side tables, visible with the epoch.
    writes: Vec<(RelationId, Delta)>,
    replies: Vec<Reply<Epoch>>,
    /// Whoever only waits until it is durable.
    early: Vec<Reply<Epoch>>,
    /// Whoever waits for a definition or a removal.
    defined: Vec<(Entering, Reply<()>)>,
    /// Sinks that are new: nothing is delivered before their definition is durable.
    sinks: Vec<RelationId>,
    /// Sinks that were dropped, and whoever waits for their end.
    dropped: Vec<(Vec<RunningSink>, Entering, Reply<()>)>,
    /// Where the journal has it.
    logged: Logged,
    /// The watermarks that moved with it.
    watermarks: Vec<(RelationId, Micros)>,
    /// Views that are live from this epoch on.
    live: Vec<RelationId>,
    /// Views whose creators learn with this epoch that they are live.
    tell: Vec<RelationId>,
    rows: u64,
}

/// How a view's creator is told.
struct Waiting {
    view: RelationId,
    enter: Entering,
    reply: Reply<()>,
}

/// The conductor's state.
pub(crate) struct Conductor {
    shared: Arc<Inner>,
    requests: mpsc::Receiver<Request>,
    outputs: Receiver<Output>,
    loop_: Option<Loop>,
    guards: Option<Guards>,
    next_epoch: Epoch,
    in_flight: VecDeque<InFlight>,
    /// Requests not yet in an epoch.
    queue: VecDeque<Request>,
    queued_rows: usize,
    /// Outputs of epochs that are not done yet.
    finished: BTreeMap<Epoch, Vec<Output>>,
    relations: BTreeMap<RelationId, Arc<Relation>>,
    keys: BTreeMap<RelationId, PrimaryKey>,
    /// The rows of tables without a key that were taken out lately.
    removed: BTreeMap<RelationId, Removals>,
    sources: BTreeMap<RelationId, RunningSource>,
    sinks: BTreeMap<RelationId, RunningSink>,
    specs: BTreeMap<RelationId, Arc<ViewSpec>>,
    /// How many inputs of views read a relation.
    read_by: BTreeMap<RelationId, usize>,
    failed: BTreeSet<RelationId>,
    /// The dataflows of views that have stopped.
    stopped: BTreeMap<RelationId, Arc<ViewSpec>>,
    rebuild: Option<Rebuild>,
    /// What is kept in side tables that have had rows.
    retained: BTreeMap<RelationId, Retained>,
    /// The watermark that the rows so far allow, and the one in force.
    reached: BTreeMap<RelationId, Micros>,
    in_force: BTreeMap<RelationId, Micros>,
    /// Rows for side tables, to enter the next epoch; and the epoch that they come from.
    side_rows: Vec<(Epoch, RelationId, Delta)>,
    /// Whoever waits for the epoch that has the errors of an earlier one.
    late_replies: Vec<Reply<Epoch>>,
    late_tell: Vec<RelationId>,
    removals: Vec<RelationId>,
    catching_up: BTreeMap<RelationId, CatchUp>,
    waiting: Vec<Waiting>,
    /// Views that were being created, and are not to be any more: they failed, or nobody waits for them.
    abandoned: Vec<RelationId>,
    /// Views, each with what is beside it, that others have taken the place of.
    replaced: Vec<Vec<RelationId>>,
    /// What has been defined, in that order.
    objects: BTreeMap<RelationId, Object>,
    /// Commands for the workers with the next epoch.
    commands: Vec<Command>,
    /// Where what happens is written down; `None`: nowhere.
    durable: Option<Durable>,
    /// The errors of views up to this epoch have entered, while the journal is repeated.
    entered_errors: Epoch,
    /// The journal is being repeated.
    repeating: bool,
    end_waiters: Vec<Reply<()>>,
    stopping: bool,
    spread: usize,
}

impl Conductor {
    pub(crate) fn new(
        shared: Arc<Inner>,
        requests: mpsc::Receiver<Request>,
        outputs: Receiver<Output>,
        loop_: Loop,
        guards: Guards,
    ) -> Self {
        Conductor {
            shared,
            requests,
            outputs,
            loop_: Some(loop_),
            guards: Some(guards),
            next_epoch: 1,
            in_flight: VecDeque::new(),
            queue: VecDeque::new(),
            queued_rows: 0,
            finished: BTreeMap::new(),
            relations: BTreeMap::new(),
            keys: BTreeMap::new(),
            removed: BTreeMap::new(),
            sources: BTreeMap::new(),
            sinks: BTreeMap::new(),
            specs: BTreeMap::new(),
            read_by: BTreeMap::new(),
            failed: BTreeSet::new(),
            stopped: BTreeMap::new(),
            rebuild: None,
            retained: BTreeMap::new(),
            reached: BTreeMap::new(),
            in_force: BTreeMap::new(),
            side_rows: Vec::new(),
            late_replies: Vec::new(),
            late_tell: Vec::new(),
            removals: Vec::new(),
            catching_up: BTreeMap::new(),
            waiting: Vec::new(),
            abandoned: Vec::new(),
            replaced: Vec::new(),
            objects: BTreeMap::new(),
            commands: Vec::new(),
            durable: None,
            entered_errors: 0,
            repeating: false,
            end_waiters: Vec::new(),
            stopping: false,
            spread: 0,
        }
    }

    /// Restores what was there, says whether that went well, and runs until it is told to stop.
    pub(crate) fn run(mut self, ready: &crossbeam_channel::Sender<Result<(), SqlError>>) {
        let recovered = self.recover();
        let failed = recovered.is_err();
        // Whoever started the engine waits for this.
        let _ = ready.send(recovered);
        if failed {
            return self.stop();
        }
        loop {
            while self.queued_rows < self.shared.config.max_epoch_rows * 2 {
                match self.requests.try_recv() {
                    Ok(request) => self.take(request),
                    Err(_) => break,
                }
            }
            self.publish();
            if self.cut() {
                continue;
            }
            self.answer_end_of_input();
            if self.stopping && self.in_flight.is_empty() {
                break;
            }
            self.wait();
        }
        self.stop();
    }

    /// Waits for a request, or until it is time for a checkpoint.
    fn wait(&mut self) {
        match self.requests.blocking_recv() {
            Some(request) => self.take(request),
            None => self.stopping = true,
        }
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Wake => self.shared.awake.store(false, std::sync::atomic::Ordering::Release),
            Request::StartSources => self.sources.values_mut().for_each(RunningSource::start),
            Request::EndOfInput { reply } => self.end_waiters.push(reply),
            Request::Shutdown => self.stopping = true,
            other => {
                self.queued_rows += rows_of(&other);
                self.queue.push_back(other);
            }
        }
    }

    fn add_spec(&mut self, spec: Arc<ViewSpec>) {
        for input in &spec.dataflow.inputs {
            *self.read_by.entry(input.relation).or_default() += 1;
        }
        self.specs.insert(spec.view, spec);
    }

    /// Forgets a view's dataflow; tells whether there was one.
    fn remove_spec(&mut self, view: RelationId) -> bool {
        let Some(spec) = self.specs.remove(&view) else { return false };
        for input in &spec.dataflow.inputs {
            if let Some(count) = self.read_by.get_mut(&input.relation) {
                *count -= 1;
                if *count == 0 {
                    self.read_by.remove(&input.relation);
                }
            }
        }
        true
    }

    /// Tells those who wait for the end of input.
    fn answer_end_of_input(&mut self) {
        if self.end_waiters.is_empty() {
            return;
        }
        if let Some(endless) = self.sources.values().find(|s| !s.bounded()) {
            let message = format!("source \"{}\" has no end to wait for", endless.relation.name);
            let code = tidemill_sql::state::OBJECT_NOT_IN_PREREQUISITE_STATE;
            return self.answer_all(Err(SqlError::new(code, message)));
        }
        if let Some(failed) = self.sources.values().find(|s| s.failed.is_some()) {
            let reason = failed.failed.clone().unwrap_or_default();
            let message = format!("source \"{}\" stopped: {reason}", failed.relation.name);
            return self.answer_all(Err(SqlError::new("58000", message)));
        }
        let idle = self.in_flight.is_empty() && self.queue.is_empty() && self.catching_up.is_empty();
        let idle = idle && self.rebuild.is_none();
        if idle && self.sources.values().all(RunningSource::ended) {
            // All of them hurry; the last one wakes us.
            let behind = self.sinks.values().filter(|sink| !sink.flushed()).count();
            if behind == 0 {
                self.answer_all(Ok(()));
            }
        }
    }

    fn answer_all(&mut self, answer: Result<(), SqlError>) {
        for reply in self.end_waiters.drain(..) {
            let _ = reply.send(answer.clone());
        }
    }

    /// How many workers there are.
    fn workers(&self) -> usize {
        self.loop_.as_ref().map_or(1, |l| l.workers)
    }

    fn stop(mut self) {
        self.sources.values_mut().for_each(RunningSource::stop);
        end_all(std::mem::take(&mut self.sinks).into_values().collect(), Ending::Stop);
        // The folder is free for another engine after this.
        *self.shared.log.lock() = None;
        self.durable.take().into_iter().for_each(Durable::close);
        // Without a source of epochs the workers finish what is in flight, and end.
        self.loop_ = None;
        self.guards = None;
    }
}

fn rows_of(request: &Request) -> usize {
    match request {
        Request::Ingest { rows, .. } => rows.iter().map(|p| p.rows.num_rows()).sum(),
        Request::Write { changes, .. } => {
            let rows = |c: &TableChange| c.added.iter().chain(&c.removed).map(|b| b.num_rows()).sum::<usize>();
            changes.iter().map(|(_, c)| rows(c)).sum()
        }
        Request::Expire { rows, .. } => rows.num_rows(),
        _ => 0,
    }
}
