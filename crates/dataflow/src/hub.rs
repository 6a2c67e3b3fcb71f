//! The hub: all views' operators on one worker, stepped epoch by epoch and level by level.
//!
//! The hub knows nothing of timely. It takes packets ([`Hub::receive`]), tells which steps it wants
//! to run ([`Hub::take_wanted`]), runs a step when it is told that the step's input is complete
//! ([`Hub::run`]), and leaves packets for other workers ([`Hub::take_outgoing`]). So it can also be
//! driven by one thread in a test.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::UInt32Array;
use crossbeam_channel::Sender;
use tidemill_delta::{Delta, Epoch, hash_rows, worker_of};
use tidemill_plan::{ColumnPath, NodeId, RelationId, Route};

use crate::frame::{Begin, Command, Definition, Packet, ViewSpec};
use crate::saving::Saved;
use crate::schedule::Arrival;
use crate::spill::Saves;
use crate::time::{Level, Step};
use crate::view::{Consumer, View, Watermarks};
use crate::{Memory, OperatorError, RowError, StateSize};

/// What a hub tells the engine, in the process that serves.
#[derive(Debug)]
pub enum Output {
    /// A view changes.
    Changes {
        /// The view.
        view: RelationId,
        /// In which epoch.
        epoch: Epoch,
        /// How.
        delta: Delta,
    },
    /// Rows of a view have no answer.
    Errors {
        /// The view.
        view: RelationId,
        /// In which epoch.
        epoch: Epoch,
        /// The rows.
        errors: Vec<RowError>,
    },
    /// A view cannot go on.
    Failed {
        /// The view.
        view: RelationId,
        /// Since which epoch.
        epoch: Epoch,
        /// Why.
        reason: String,
    },
    /// What an operator remembers.
    Saved {
        /// At the beginning of which epoch.
        epoch: Epoch,
        /// A part of it.
        saved: Box<Saved>,
    },
}

/// How a process plans views that another process defined.
pub type Deploy = Arc<dyn Fn(&str) -> Option<Arc<ViewSpec>> + Send + Sync>;

/// What operators remember, by view; shared with whoever shows it.
pub type StateSizes = Arc<parking_lot::Mutex<BTreeMap<(RelationId, usize), (StateSize, u64)>>>;

/// Which worker this is.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// This worker.
    pub worker: usize,
    /// All workers.
    pub workers: usize,
    /// Whether this worker's process serves.
    pub serves: bool,
}

/// All views on one worker.
pub struct Hub {
    place: Place,
    views: BTreeMap<RelationId, View>,
    /// Who reads a relation: view and input.
    readers: BTreeMap<RelationId, Vec<(RelationId, usize)>>,
    work: BTreeMap<Step, BTreeMap<RelationId, BTreeMap<NodeId, Vec<Vec<Delta>>>>>,
    wanted: Vec<Step>,
    outgoing: BTreeMap<usize, Vec<Packet>>,
    /// The watermarks since which epoch.
    watermarks: BTreeMap<Epoch, Arc<Watermarks>>,
    outputs: Sender<Output>,
    deploy: Deploy,
    sizes: StateSizes,
    /// Whether what comes in is remembered for the next save.
    records: bool,
    /// What operators may take; `None`: whatever they need.
    memory: Option<Memory>,
}

impl Hub {
    /// A hub without views.
    pub fn new(
        place: Place,
        outputs: Sender<Output>,
        deploy: Deploy,
        sizes: StateSizes,
        memory: Option<Memory>,
    ) -> Self {
        Hub {
            place,
            views: BTreeMap::new(),
            readers: BTreeMap::new(),
            work: BTreeMap::new(),
            wanted: Vec::new(),
            outgoing: BTreeMap::new(),
            watermarks: BTreeMap::from([(0, Arc::new(Watermarks::new()))]),
            outputs,
            deploy,
            sizes,
            records: false,
            memory,
        }
    }

    /// Takes a packet that arrives at a step.
    pub fn receive(&mut self, at: Step, packet: Packet) {
        match packet {
            Packet::Begin(begin) => self.begin(at, &begin),
            Packet::Input { relation, columns, delta } => self.deliver(relation, at, columns.as_deref(), &delta),
            Packet::History { view, input, delta } => self.history(view, input, at, &delta),
            Packet::Rows { view, node, port, level, delta } => {
                self.add_work(Step::new(at.epoch, level), view, node, port, Some(delta));
            }
            Packet::Output { view, delta } => self.tell(Output::Changes { view, epoch: at.epoch, delta }),
            Packet::Errors { view, errors } => self.tell(Output::Errors { view, epoch: at.epoch, errors }),
            Packet::Failed { view, reason } => self.tell(Output::Failed { view, epoch: at.epoch, reason }),
            Packet::Load { view, node, part, delta } => {
                if let Some(view) = self.views.get_mut(&view) {
                    view.take_saved(node, part, delta);
                }
            }
            Packet::Saved(saved) => self.tell(Output::Saved { epoch: at.epoch, saved: Box::new(saved) }),
        }
    }

    /// The steps that have work since the last call.
    pub fn take_wanted(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.wanted)
    }

    /// Whether a step has work.
    pub fn has_work(&self, at: &Step) -> bool {
        self.work.contains_key(at)
    }

    /// Packets for other workers, which arrive at the next level.
    pub fn take_outgoing(&mut self) -> BTreeMap<usize, Vec<Packet>> {
        std::mem::take(&mut self.outgoing)
    }

    /// Runs nodes of a step whose input is complete until `enough` says so. Returns whether the step
    /// is finished.
    pub fn run(&mut self, at: Step, mut enough: impl FnMut() -> bool) -> bool {
        while let Some((view, node, inputs)) = self.next_work(at) {
            self.run_node(at, view, node, inputs);
            if enough() {
                return !self.work.contains_key(&at);
            }
        }
        true
    }

    /// Forgets what no epoch before `epoch` needs any more.
    pub fn retire(&mut self, epoch: Epoch) {
        while self.watermarks.range(..=epoch).nth(1).is_some() {
            self.watermarks.pop_first();
        }
        let gone: Vec<RelationId> = self
            .views
            .iter()
            .filter(|(_, v)| v.removed_from.is_some_and(|end| end <= epoch))
            .map(|(id, _)| *id)
            .collect();
        gone.into_iter().for_each(|id| self.forget(id));
    }

    fn forget(&mut self, id: RelationId) {
        if self.views.remove(&id).is_none() {
            return;
        }
        self.sizes.lock().remove(&(id, self.place.worker));
        for list in self.readers.values_mut() {
            list.retain(|(view, _)| *view != id);
        }
        self.readers.retain(|_, list| !list.is_empty());
    }

    /// Wants a step to be run even if no node has work: what goes out while packets come in leaves with it.
    fn want(&mut self, at: Step) {
        if !self.work.contains_key(&at) {
            self.wanted.push(at);
            self.work.insert(at, BTreeMap::new());
        }
    }

    fn next_work(&mut self, at: Step) -> Option<(RelationId, NodeId, Vec<Vec<Delta>>)> {
        let views = self.work.get_mut(&at)?;
        if views.is_empty() {
            self.work.remove(&at);
            return None;
        }
        let mut entry = views.first_entry()?;
        let view = *entry.key();
        let (node, inputs) = entry.get_mut().pop_first()?;
        if entry.get().is_empty() {
            entry.remove();
        }
        if views.is_empty() {
            self.work.remove(&at);
        }
        Some((view, node, inputs))
    }

    fn add_work(&mut self, at: Step, view: RelationId, node: NodeId, port: usize, delta: Option<Delta>) {
        let Some(found) = self.views.get(&view) else { return };
        let ports = found.ports(node);
        let nodes = match self.work.get_mut(&at) {
            Some(views) => views.entry(view).or_default(),
            None => {
                self.wanted.push(at);
                self.work.entry(at).or_default().entry(view).or_default()
            }
        };
        let inputs = nodes.entry(node).or_insert_with(|| vec![Vec::new(); ports]);
        inputs[port].extend(delta.filter(|d| !d.is_empty()));
    }

    fn begin(&mut self, at: Step, begin: &Begin) {
        for command in &begin.commands {
            match command {
                Command::Define(definition) => self.define(at, definition),
                Command::GoLive(view) => self.go_live(at, *view),
                Command::Remove(view) => {
                    if let Some(view) = self.views.get_mut(view) {
                        view.removed_from = Some(at.epoch);
                    }
                }
                Command::Record => self.records = true,
                Command::Save { all } => self.save(at, *all),
                Command::Restore(view) => {
                    if let Some(view) = self.views.get_mut(view) {
                        view.begin_loading();
                    }
                    self.go_live(at, *view);
                }
            }
        }
        if !begin.watermarks.is_empty() {
            self.advance(at, begin);
        }
    }

    fn define(&mut self, at: Step, definition: &Definition) {
        let spec = definition.spec.get_or_init(|| (self.deploy)(&definition.text)).clone();
        let Some(spec) = spec else { return };
        let id = spec.view;
        // A view that is built anew was removed in an epoch before, which may not have been retired yet.
        self.forget(id);
        let level_of = |relation: RelationId| self.views.get(&relation).map_or(1, View::output_level);
        let saves = match (self.records, self.place.serves) {
            (false, _) => Saves::Nothing,
            (true, false) => Saves::Rows,
            (true, true) => Saves::Runs,
        };
        let memory = (self.memory.as_ref(), saves);
        match View::build(spec.clone(), at.epoch, level_of, self.place.worker, memory) {
            Ok(view) => {
                for (input, read) in spec.dataflow.inputs.iter().enumerate() {
                    self.readers.entry(read.relation).or_default().push((id, input));
                }
                let starting = view.starting_nodes(self.place.worker);
                let levels: Vec<_> = starting.iter().map(|n| (*n, view.node_level(*n))).collect();
                self.views.insert(id, view);
                for (node, level) in levels {
                    self.add_work(Step::new(at.epoch, level), id, node, 0, None);
                }
            }
            Err(error) => {
                self.report_failure(at, id, error.to_string());
                self.want(at);
            }
        }
    }

    fn go_live(&mut self, at: Step, id: RelationId) {
        let Some(view) = self.views.get_mut(&id) else { return };
        view.live_from = Some(at.epoch);
        // What waited goes in where the input's rows come, after those of the epochs before; and
        // every node may act on the watermark, which holds from now on.
        let inputs = (0..view.waiting.len()).filter_map(|i| view.input_node(i));
        let mut nodes: Vec<_> = inputs.chain(view.timed_nodes()).map(|n| (n, view.node_level(n))).collect();
        nodes.sort_unstable();
        for (node, level) in nodes {
            self.add_work(Step::new(at.epoch, level), id, node, 0, None);
        }
    }

    /// Tells what all views remember as of the epochs before.
    fn save(&mut self, at: Step, all: bool) {
        let mut failed = Vec::new();
        let mut found = Vec::new();
        for (id, view) in self.views.iter_mut().filter(|(_, v)| v.takes(at.epoch)) {
            let saved = catch_unwind(AssertUnwindSafe(|| view.save(self.place.worker, all, |s| found.push(s))));
            match saved {
                Ok(Ok(())) => {}
                Ok(Err(error)) => failed.push((*id, error.to_string())),
                Err(panic) => failed.push((*id, panic_message(panic.as_ref()))),
            }
        }
        for saved in found {
            if self.place.serves {
                self.tell(Output::Saved { epoch: at.epoch, saved: Box::new(saved) });
            } else {
                self.outgoing.entry(0).or_default().push(Packet::Saved(saved));
            }
        }
        for (view, reason) in failed {
            self.fail(at, view, format!("its state cannot be saved: {reason}"));
        }
        self.want(at);
    }

    fn advance(&mut self, at: Step, begin: &Begin) {
        let mut now = self.watermarks_at(at.epoch).as_ref().clone();
        let mut moved = Vec::new();
        for (relation, watermark) in &begin.watermarks {
            if now.insert(*relation, *watermark).is_none_or(|before| before < *watermark) {
                moved.push(*relation);
            }
        }
        self.watermarks.insert(at.epoch, Arc::new(now));
        let mut due = Vec::new();
        for (id, view) in &self.views {
            if view.takes(at.epoch) && view.spec.sources.iter().flatten().any(|s| moved.contains(s)) {
                due.extend(view.timed_nodes().map(|n| (*id, n, view.node_level(n))));
            }
        }
        for (view, node, level) in due {
            self.add_work(Step::new(at.epoch, level), view, node, 0, None);
        }
    }

    fn watermarks_at(&self, epoch: Epoch) -> Arc<Watermarks> {
        let (_, found) = self.watermarks.range(..=epoch).next_back().expect("there are watermarks since epoch 0");
        found.clone()
    }

    /// Gives rows of a relation to all that read it.
    fn deliver(&mut self, relation: RelationId, at: Step, columns: Option<&[ColumnPath]>, delta: &Delta) {
        let Some(readers) = self.readers.get(&relation) else { return };
        for (id, input) in readers.clone() {
            let Some(view) = self.views.get_mut(&id) else { continue };
            if !view.takes(at.epoch) {
                continue;
            }
            match view.pick(input, columns, delta) {
                Ok(picked) if !view.is_live(at.epoch) => view.waiting[input].push(picked),
                Ok(picked) => {
                    if let Some(node) = view.input_node(input) {
                        self.add_work(at, id, node, 0, Some(picked));
                    }
                }
                Err(error) => self.fail(at, id, error.to_string()),
            }
        }
    }

    fn history(&mut self, id: RelationId, input: usize, at: Step, delta: &Delta) {
        let Some(view) = self.views.get(&id).filter(|v| v.takes(at.epoch)) else { return };
        match (view.pick(input, None, delta), view.input_node(input)) {
            (Ok(picked), Some(node)) => {
                let level = view.node_level(node);
                self.add_work(Step::new(at.epoch, level), id, node, 0, Some(picked));
            }
            (Err(error), _) => self.fail(at, id, error.to_string()),
            _ => {}
        }
    }

    fn run_node(&mut self, at: Step, id: RelationId, node: NodeId, mut inputs: Vec<Vec<Delta>>) {
        let watermarks = self.watermarks_at(at.epoch);
        let Some(view) = self.views.get_mut(&id).filter(|v| v.takes(at.epoch)) else { return };
        match catch_unwind(AssertUnwindSafe(|| view.load(node, at.epoch, &watermarks))) {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => return,
            Ok(Err(error)) => return self.fail(at, id, format!("its state cannot be restored: {error}")),
            Err(panic) => {
                let reason = panic_message(panic.as_ref());
                return self.fail(at, id, format!("its state cannot be restored: {reason}"));
            }
        }
        if let Some(input) = view.input_of(node)
            && view.is_live(at.epoch)
        {
            inputs[0].append(&mut view.waiting[input]);
        }
        if inputs.iter().all(Vec::is_empty) && !view.is_due(node, self.place.worker, at, &watermarks) {
            return;
        }
        if self.records {
            view.record(node, self.place.worker, &inputs);
        }
        let mut errors = Vec::new();
        // A panic in an expression ends this view; the others' state was not touched.
        let ran = catch_unwind(AssertUnwindSafe(|| view.run(node, at, &watermarks, &mut inputs, &mut errors)));
        if self.records {
            view.forget_recorded(node);
        }
        let next = view.next_level(node).filter(|_| matches!(ran, Ok(Ok(_))));
        if !errors.is_empty() {
            self.report_errors(at, id, errors);
        }
        if let Some(level) = next {
            self.add_work(Step::new(at.epoch, level), id, node, 0, None);
        }
        match ran {
            Ok(Ok(out)) => self.emit(at, id, node, out),
            Ok(Err(error)) => self.fail(at, id, error.to_string()),
            Err(panic) => self.fail(at, id, panic_message(panic.as_ref())),
        }
    }

    /// Sends a node's output to the nodes that read it.
    fn emit(&mut self, at: Step, id: RelationId, node: NodeId, out: Vec<Delta>) {
        let out: Vec<Delta> = out.into_iter().filter(|d| !d.is_empty()).collect();
        if out.is_empty() {
            return;
        }
        let Some(view) = self.views.get(&id) else { return };
        let consumers = view.consumers(node).to_vec();
        if view.is_output(node) {
            for delta in &out {
                self.deliver(id, at, None, delta);
                self.output(id, at.epoch, delta.clone());
            }
        }
        for consumer in &consumers {
            for delta in &out {
                if let Err(error) = self.route(at, id, consumer, delta) {
                    self.fail(at, id, error.to_string());
                    return;
                }
            }
        }
    }

    fn output(&mut self, view: RelationId, epoch: Epoch, delta: Delta) {
        if self.place.serves {
            self.tell(Output::Changes { view, epoch, delta });
        } else {
            self.outgoing.entry(0).or_default().push(Packet::Output { view, delta });
        }
    }

    fn route(&mut self, at: Step, view: RelationId, to: &Consumer, delta: &Delta) -> Result<(), OperatorError> {
        let level = match to.arrival {
            Arrival::At(level) => level,
            Arrival::After(levels) => at.level + levels,
        };
        let step = Step::new(at.epoch, level);
        match &to.route {
            Route::Local => self.add_work(step, view, to.node, to.port, Some(delta.clone())),
            Route::Gather => self.send(0, step, view, to, delta.clone()),
            Route::Broadcast => {
                for target in 0..self.place.workers {
                    self.send(target, step, view, to, delta.clone());
                }
            }
            Route::Hash(_) if self.place.workers == 1 => self.send(0, step, view, to, delta.clone()),
            Route::Hash(columns) => {
                for (target, part) in partition(delta, columns, self.place.workers)? {
                    self.send(target, step, view, to, part);
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, target: usize, at: Step, view: RelationId, to: &Consumer, delta: Delta) {
        if target == self.place.worker {
            self.add_work(at, view, to.node, to.port, Some(delta));
        } else {
            let packet = Packet::Rows { view, node: to.node, port: to.port, level: at.level, delta };
            self.outgoing.entry(target).or_default().push(packet);
        }
    }

    fn report_errors(&mut self, at: Step, view: RelationId, errors: Vec<RowError>) {
        if self.place.serves {
            self.tell(Output::Errors { view, epoch: at.epoch, errors });
        } else {
            self.outgoing.entry(0).or_default().push(Packet::Errors { view, errors });
        }
    }

    /// Stops a view; everything else goes on.
    fn fail(&mut self, at: Step, id: RelationId, reason: String) {
        if let Some(view) = self.views.get_mut(&id) {
            if view.failed {
                return;
            }
            view.failed = true;
        }
        self.report_failure(at, id, reason);
    }

    fn report_failure(&mut self, at: Step, view: RelationId, reason: String) {
        if self.place.serves {
            self.tell(Output::Failed { view, epoch: at.epoch, reason });
        } else {
            self.outgoing.entry(0).or_default().push(Packet::Failed { view, reason });
        }
    }

    fn tell(&self, output: Output) {
        // The engine stops listening only when it stops altogether.
        let _ = self.outputs.send(output);
    }

    /// Writes down what the views remember.
    pub fn measure(&self) {
        let mut sizes = self.sizes.lock();
        for (id, view) in &self.views {
            sizes.insert((*id, self.place.worker), (view.state(), view.recomputations()));
        }
    }

    /// All workers of all processes.
    pub fn workers(&self) -> usize {
        self.place.workers
    }

    /// Whether this is worker 0.
    pub fn is_first(&self) -> bool {
        self.place.worker == 0
    }

    /// The level up to which some view has nodes, for tests of the loop's depth.
    pub fn deepest_level(&self) -> Level {
        self.views.values().map(View::output_level).max().unwrap_or(1)
    }
}

/// A delta's rows by the worker that owns their key.
pub(crate) fn partition(
    delta: &Delta,
    columns: &[usize],
    workers: usize,
) -> Result<Vec<(usize, Delta)>, OperatorError> {
    let mut hashes = Vec::new();
    hash_rows(&delta.rows, columns, &mut hashes)?;
    let mut lists: Vec<Vec<u32>> = vec![Vec::new(); workers];
    for (i, hash) in hashes.iter().enumerate() {
        lists[worker_of(*hash, workers)].push(i as u32);
    }
    let mut parts = Vec::with_capacity(workers);
    for (target, list) in lists.into_iter().enumerate().filter(|(_, l)| !l.is_empty()) {
        let part = if list.len() == delta.len() { delta.clone() } else { delta.take(&UInt32Array::from(list))? };
        parts.push((target, part));
    }
    Ok(parts)
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "the view's operator panicked".into())
}
