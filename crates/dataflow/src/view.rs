//! One view on one worker: its operators and where their output goes.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::SchemaRef;
use tidemill_delta::{Delta, Epoch, Micros, NO_WATERMARK};
use tidemill_plan::{ColumnPath, Node, NodeId, Op, RelationId, Route};

use crate::frame::ViewSpec;
use crate::saving::Recorded;
use crate::schedule::{Arrival, Schedule};
use crate::spill::{Memory, Saves, Spilled, keys_of};
use crate::time::{Level, Step};
use crate::{
    Aggregate, AsOf, CloseGate, Fixpoint, FlatMap, Join, Keeps, Map, Operator, OperatorError, Over, Recompute,
    Recursion, RowError, Session, StateSize, StepCx, TopN, Union, Window,
};

/// The watermarks of all sources as of one epoch.
pub(crate) type Watermarks = BTreeMap<RelationId, Micros>;

/// A view at work.
pub(crate) struct View {
    pub(crate) spec: Arc<ViewSpec>,
    /// The operators, by node; inputs have none.
    pub(crate) operators: Vec<Option<Box<dyn Operator>>>,
    /// What operators have taken in since they were saved.
    pub(crate) recorded: Vec<Recorded>,
    /// Saved state that has arrived for operators that wait for it, by node and part.
    pub(crate) loading: Vec<Option<Vec<Vec<Delta>>>>,
    /// Where each node's output goes.
    consumers: Vec<Vec<Consumer>>,
    /// When in an epoch each node runs.
    schedule: Schedule,
    /// The sources with a watermark that each node's rows are made from.
    sources: Vec<Vec<RelationId>>,
    /// Its input begins with this epoch; what was before comes as history.
    pub(crate) from: Epoch,
    /// Since when history is complete and rows go straight in.
    pub(crate) live_from: Option<Epoch>,
    /// Rows that arrived meanwhile, per input.
    pub(crate) waiting: Vec<Vec<Delta>>,
    /// It takes nothing from this epoch on.
    pub(crate) removed_from: Option<Epoch>,
    /// It cannot go on.
    pub(crate) failed: bool,
}

/// Where rows go next.
#[derive(Clone)]
pub(crate) struct Consumer {
    pub(crate) node: NodeId,
    pub(crate) port: usize,
    pub(crate) route: Route,
    pub(crate) arrival: Arrival,
}

impl View {
    /// Builds the operators. `level_of` tells the level at which a relation's rows come; with `memory`, state that does not fit
    /// goes to disk, and `saves` says how it is saved now and then.
    pub(crate) fn build(
        spec: Arc<ViewSpec>,
        from: Epoch,
        level_of: impl Fn(RelationId) -> Level,
        worker: usize,
        (memory, saves): (Option<&Memory>, Saves),
    ) -> Result<View, OperatorError> {
        let nodes = &spec.dataflow.nodes;
        let schedule = Schedule::new(nodes, |input| level_of(spec.dataflow.inputs[input].relation));
        let mut sources: Vec<Vec<RelationId>> = Vec::with_capacity(nodes.len());
        let mut operators = Vec::with_capacity(nodes.len());
        let mut consumers: Vec<Vec<Consumer>> = vec![Vec::new(); nodes.len()];
        for (id, node) in nodes.iter().enumerate() {
            let made_from = match &node.op {
                Op::Input(i) => spec.sources[*i].clone(),
                _ => {
                    // A loop's own rows, which come from a later node, are made from no other sources than what it reads.
                    let inputs = node.inputs.iter().filter(|e| e.from < id);
                    let mut all: Vec<_> = inputs.flat_map(|e| sources[e.from].clone()).collect();
                    all.sort_unstable();
                    all.dedup();
                    all
                }
            };
            for (port, edge) in node.inputs.iter().enumerate() {
                let arrival = schedule.arrival(edge.from, id);
                consumers[edge.from].push(Consumer { node: id, port, route: edge.route.clone(), arrival });
            }
            sources.push(made_from);
            operators.push(match (memory.filter(|memory| memory.is_in_use()), keys_of(node)) {
                (Some(memory), Some(keys)) => Some(spilled(&spec, (id, worker), keys, memory, saves)?),
                _ => operator(node, nodes)?,
            });
        }
        let waiting = vec![Vec::new(); spec.dataflow.inputs.len()];
        let recorded = operators.iter().map(|_| Recorded::default()).collect();
        Ok(View {
            spec,
            operators,
            recorded,
            loading: Vec::new(),
            consumers,
            schedule,
            sources,
            from,
            live_from: None,
            waiting,
            removed_from: None,
            failed: false,
        })
    }

    pub(crate) fn node_level(&self, node: NodeId) -> Level {
        self.schedule.level(node)
    }

    /// The level at which its changes come out.
    pub(crate) fn output_level(&self) -> Level {
        self.operators.len().checked_sub(1).map_or(1, |last| self.schedule.level(last))
    }

    pub(crate) fn is_output(&self, node: NodeId) -> bool {
        node + 1 == self.operators.len()
    }

    pub(crate) fn consumers(&self, node: NodeId) -> &[Consumer] {
        &self.consumers[node]
    }

    /// How many inputs a node has.
    pub(crate) fn ports(&self, node: NodeId) -> usize {
        self.spec.dataflow.nodes[node].inputs.len().max(1)
    }

    /// The node that reads the input with this number.
    pub(crate) fn input_node(&self, input: usize) -> Option<NodeId> {
        self.spec.dataflow.nodes.iter().position(|n| matches!(n.op, Op::Input(i) if i == input))
    }

    pub(crate) fn input_of(&self, node: NodeId) -> Option<usize> {
        match self.spec.dataflow.nodes[node].op {
            Op::Input(i) => Some(i),
            _ => None,
        }
    }

    pub(crate) fn is_live(&self, epoch: Epoch) -> bool {
        self.live_from.is_some_and(|from| from <= epoch)
    }

    pub(crate) fn takes(&self, epoch: Epoch) -> bool {
        !self.failed && epoch >= self.from && self.removed_from.is_none_or(|end| epoch < end)
    }

    /// The nodes that may have to do something when a watermark moves.
    pub(crate) fn timed_nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.operators.iter().enumerate().filter(|(_, op)| op.is_some()).map(|(id, _)| id)
    }

    /// The nodes that begin with a row, on the worker that owns them.
    pub(crate) fn starting_nodes(&self, worker: usize) -> Vec<NodeId> {
        (0..self.operators.len()).filter(|node| self.starts(*node, worker)).collect()
    }

    /// Whether a node has still to begin with a row on this worker: it would be there twice if another,
    /// which is woken by a watermark, began too.
    fn starts(&self, node: NodeId, worker: usize) -> bool {
        let inputs = &self.spec.dataflow.nodes[node].inputs;
        // What is made of nothing is made in one place too.
        let gathers = inputs.is_empty() || inputs.iter().any(|e| e.route == Route::Gather);
        worker == 0 && gathers && self.operators[node].as_ref().is_some_and(|op| op.wants_start())
    }

    /// The watermark of a node's input.
    pub(crate) fn watermark(&self, node: NodeId, epoch: Epoch, watermarks: &Watermarks) -> Micros {
        if !self.is_live(epoch) {
            return NO_WATERMARK;
        }
        let all = self.sources[node].iter().map(|s| watermarks.get(s).copied().unwrap_or(NO_WATERMARK));
        all.min().unwrap_or(NO_WATERMARK)
    }

    /// Whether a node without rows has something to do.
    pub(crate) fn is_due(&self, node: NodeId, worker: usize, at: Step, watermarks: &Watermarks) -> bool {
        let watermark = self.watermark(node, at.epoch, watermarks);
        let goes_on = self.next_level(node).is_some_and(|level| level <= at.level);
        self.starts(node, worker) || goes_on || self.operators[node].as_ref().is_some_and(|op| op.due(watermark))
    }

    /// At the head of a loop: when it has to go on, even without rows.
    pub(crate) fn next_level(&self, node: NodeId) -> Option<Level> {
        let round = self.operators[node].as_ref()?.next_round()?;
        Some(self.schedule.level_of_round(node, round))
    }

    /// From now on the operators wait for their saved state.
    pub(crate) fn begin_loading(&mut self) {
        self.loading = self.operators.iter().map(|op| op.is_some().then(Vec::new)).collect();
    }

    /// Remembers what an operator is about to take in, for the next save.
    pub(crate) fn record(&mut self, node: NodeId, worker: usize, inputs: &[Vec<Delta>]) {
        let Some(operator) = self.operators[node].as_deref_mut().filter(|op| op.keeps() == Keeps::Rows) else { return };
        let broadcast = |edge: &tidemill_plan::Edge| worker != 0 && edge.route == Route::Broadcast;
        if !self.spec.dataflow.nodes[node].inputs.iter().any(broadcast) {
            self.recorded[node].take_in(inputs, operator);
            return;
        }
        let own = self.spec.dataflow.nodes[node].inputs.iter().zip(inputs);
        let own: Vec<Vec<Delta>> = own.map(|(e, list)| if broadcast(e) { Vec::new() } else { list.clone() }).collect();
        self.recorded[node].take_in(&own, operator);
    }

    /// Runs one node.
    pub(crate) fn run(
        &mut self,
        node: NodeId,
        at: Step,
        watermarks: &Watermarks,
        inputs: &mut [Vec<Delta>],
        errors: &mut Vec<RowError>,
    ) -> Result<Vec<Delta>, OperatorError> {
        let (epoch, round) = (at.epoch, self.schedule.round(node, at.level));
        let watermark = self.watermark(node, epoch, watermarks);
        match &mut self.operators[node] {
            Some(operator) => operator.step(&mut StepCx { epoch, round, watermark, errors }, inputs),
            None => Ok(std::mem::take(&mut inputs[0])),
        }
    }

    /// What all its operators on this worker remember.
    pub(crate) fn state(&self) -> StateSize {
        let mut sum = StateSize::default();
        for operator in self.operators.iter().flatten() {
            let state = operator.state();
            sum.rows += state.rows;
            sum.bytes += state.bytes;
        }
        sum
    }

    /// How often operators on this worker recomputed something.
    pub(crate) fn recomputations(&self) -> u64 {
        self.operators.iter().flatten().map(|op| op.recomputations()).sum()
    }

    /// Picks an input's columns out of a relation's rows. `columns` says what the rows have: `None` for
    /// all columns of the relation.
    pub(crate) fn pick(
        &self,
        input: usize,
        columns: Option<&[ColumnPath]>,
        delta: &Delta,
    ) -> Result<Delta, OperatorError> {
        let Some(node) = self.input_node(input) else { return Ok(delta.clone()) };
        let schema = &self.spec.dataflow.nodes[node].schema;
        let picked = self.spec.dataflow.inputs[input].columns.iter().map(|path| pick_column(path, columns, delta));
        let picked = picked.collect::<Result<Vec<_>, _>>()?;
        fits(schema, &picked)?;
        Ok(delta.with_columns(schema.clone(), picked))
    }
}

fn fits(schema: &SchemaRef, columns: &[ArrayRef]) -> Result<(), OperatorError> {
    for (field, column) in schema.fields().iter().zip(columns) {
        if field.data_type() != column.data_type() {
            let (want, got) = (field.data_type(), column.data_type());
            return Err(OperatorError(format!("column {} is {got}, expected {want}", field.name())));
        }
    }
    Ok(())
}

/// A column, or a field inside it.
fn pick_column(path: &ColumnPath, has: Option<&[ColumnPath]>, delta: &Delta) -> Result<ArrayRef, OperatorError> {
    let (start, fields) = match has {
        None => (path.column, &path.fields[..]),
        Some(has) => {
            let covers = |own: &ColumnPath| own.column == path.column && path.fields.starts_with(&own.fields);
            let at = has
                .iter()
                .position(covers)
                .ok_or_else(|| OperatorError(format!("column {} was not read from the source", path.column + 1)))?;
            (at, &path.fields[has[at].fields.len()..])
        }
    };
    let mut column = delta.rows.column(start).clone();
    for field in fields {
        let parent = column
            .as_struct_opt()
            .ok_or_else(|| OperatorError(format!("there is no field {field} in a {}", column.data_type())))?;
        let child = parent.column_by_name(field).ok_or_else(|| OperatorError(format!("there is no field {field}")))?;
        let nulls = NullBuffer::union(parent.nulls(), child.nulls());
        let data = child.to_data().into_builder().nulls(nulls).build()?;
        column = arrow::array::make_array(data);
    }
    Ok(column)
}

/// The operator of a node, with state that does not fit on disk.
fn spilled(
    spec: &Arc<ViewSpec>,
    (id, worker): (NodeId, usize),
    keys: Vec<Vec<usize>>,
    memory: &Memory,
    saves: Saves,
) -> Result<Box<dyn Operator>, OperatorError> {
    let (spec, owner) = (spec.clone(), (spec.view, id, worker));
    let make = move || {
        let nodes = &spec.dataflow.nodes;
        operator(&nodes[id], nodes)?.ok_or_else(|| OperatorError("an input has no operator".into()))
    };
    Ok(Box::new(Spilled::new(Box::new(make), keys, memory, owner, saves)?))
}

/// The operator of a node.
pub(crate) fn operator(node: &Node, nodes: &[Node]) -> Result<Option<Box<dyn Operator>>, OperatorError> {
    let inputs: Vec<SchemaRef> = node.inputs.iter().map(|e| nodes[e.from].schema.clone()).collect();
    let schema = node.schema.clone();
    Ok(Some(match &node.op {
        Op::Input(_) => return Ok(None),
        Op::Map(plan) => Box::new(Map::new(plan, schema)),
        Op::Window(plan) => Box::new(Window::new(plan, &inputs, schema)?),
        Op::Aggregate(plan) => Box::new(Aggregate::new(plan, &inputs[0], schema)?),
        Op::Session(plan) => Box::new(Session::new(plan, &inputs, schema)?),
        Op::Join(plan) => Box::new(Join::new(plan, [&inputs[0], &inputs[1]], schema)?),
        Op::AsOf(plan) => Box::new(AsOf::new(plan, [&inputs[0], &inputs[1]], schema)?),
        Op::TopN(plan) => Box::new(TopN::new(plan, &inputs, schema)?),
        Op::Over(plan) => Box::new(Over::new(plan, &inputs[0], schema)?),
        Op::Union => Box::new(Union::new(&inputs, schema)?),
        Op::FlatMap(plan) => Box::new(FlatMap::new(plan, schema)),
        Op::Recompute(plan) => Box::new(Recompute::new(plan, &inputs, schema)?),
        Op::Recursion(plan) => Box::new(Recursion::new(plan, schema)?),
        Op::Fixpoint => Box::new(Fixpoint::new(&inputs[0], schema)?),
        Op::CloseGate(plan) => Box::new(CloseGate::new(plan, &inputs, schema)?),
    }))
}
