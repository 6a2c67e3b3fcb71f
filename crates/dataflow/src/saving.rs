//! Saving what operators remember, and giving it back.
//!
//! What is saved are rows, so it does not depend on the number of workers. An operator that keeps rows is saved as
//! the changes of its input since the last time; when these have become much more than what is left of them, as
//! what is left. An operator that keeps entries is asked for those that have changed.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use tidemill_delta::{Delta, Epoch};
use tidemill_plan::{NodeId, Op, RelationId, Route};

use crate::spill::{Aside, Spilled, WriteError};
use crate::view::{View, Watermarks};
use crate::{Keeps, Operator, OperatorError, StepCx};

/// Rows that an operator takes in before anybody asks how many it still needs.
const UNASKED: usize = 65_536;

/// A part of an operator's state on one worker: what has changed, or all.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The view.
    pub view: RelationId,
    /// The operator.
    pub node: NodeId,
    /// Which of its inputs or kinds of entries.
    pub part: usize,
    /// The worker.
    pub worker: usize,
    /// Whether this replaces all that was saved of this part on this worker.
    pub whole: bool,
    /// Changes of rows, or entries.
    pub delta: Delta,
    /// For entries: the keys that have none any more.
    pub gone: Option<Delta>,
    /// What is on disk of the operator, in all parts, the eldest run first. If set this replaces all that was saved of it on this
    /// worker, and nothing else is.
    pub aside: Option<Vec<Aside>>,
    /// Why nothing can be saved of the operator now: the disk does not take it.
    pub refused: Option<String>,
}

/// What an operator that keeps rows has taken in since it was saved.
#[derive(Default)]
pub(crate) struct Recorded {
    /// By input.
    inputs: Vec<Vec<Delta>>,
    /// How many rows these are.
    rows: usize,
    /// How many rows may come in before the operator is asked how many it needs.
    limit: usize,
    /// How many rows were saved since the last time that all were.
    saved: usize,
    /// It was more than is worth keeping: all is saved next.
    whole: bool,
}

impl Recorded {
    /// Remembers rows that an operator is about to take in.
    pub(crate) fn take_in(&mut self, inputs: &[Vec<Delta>], operator: &mut dyn Operator) {
        if self.whole {
            return;
        }
        self.inputs.resize_with(inputs.len().max(self.inputs.len()), Vec::new);
        for (own, new) in self.inputs.iter_mut().zip(inputs) {
            self.rows += new.iter().map(Delta::len).sum::<usize>();
            own.extend(new.iter().cloned());
        }
        if self.rows > self.limit.max(UNASKED) {
            self.limit = most(operator);
            if self.rows > self.limit {
                (self.whole, self.rows) = (true, 0);
                self.inputs.clear();
            }
        }
    }
}

/// The most rows that are worth saving instead of what an operator still has. What is on disk is saved already, and what is not
/// yet saved takes memory.
fn most(operator: &mut dyn Operator) -> usize {
    match operator.spilled().filter(|spilled| spilled.saves_runs()) {
        Some(spilled) => UNASKED + spilled.rows_in_memory(),
        None => UNASKED + 2 * operator.state().rows,
    }
}

impl View {
    /// Whether another worker saves what comes in at this input too.
    fn saved_elsewhere(&self, node: NodeId, part: usize, worker: usize) -> bool {
        let input = self.spec.dataflow.nodes[node].inputs.get(part);
        worker != 0 && input.is_some_and(|edge| edge.route == Route::Broadcast)
    }

    /// Tells the state of all operators on this worker to `tell`.
    pub(crate) fn save(&mut self, worker: usize, all: bool, mut tell: impl FnMut(Saved)) -> Result<(), OperatorError> {
        for node in 0..self.operators.len() {
            let mut found = self.save_node(node, worker, all)?;
            found.retain(|saved| !self.saved_elsewhere(node, saved.part, worker));
            found.into_iter().for_each(&mut tell);
        }
        Ok(())
    }

    fn save_node(&mut self, node: NodeId, worker: usize, mut all: bool) -> Result<Vec<Saved>, OperatorError> {
        let mut found = Vec::new();
        let (view, inputs) = (self.spec.view, self.spec.dataflow.nodes[node].inputs.len());
        let Some(operator) = &mut self.operators[node] else { return Ok(found) };
        let (delta, recorded) = (nothing(), &mut self.recorded[node]);
        let (gone, aside, refused) = (None, None, None);
        let empty = Saved { view, node, part: 0, worker, whole: false, delta, gone, aside, refused };
        if let Some(spilled) = operator.spilled().filter(|spilled| spilled.saves_runs()) {
            found.extend(save_runs(spilled, recorded, all, &empty)?);
            if found.iter().any(|saved| saved.refused.is_some()) {
                return Ok(found);
            }
            all = false;
        }
        match operator.keeps() {
            Keeps::Nothing => {}
            Keeps::Rows => found.extend(save_rows(operator.as_mut(), recorded, all, &empty)?),
            Keeps::Entries => found.extend(save_entries(operator.as_mut(), all, &empty)?),
        }
        debug_assert!(inputs > 0 || found.iter().all(|s| s.gone.is_some() || s.delta.is_empty()));
        Ok(found)
    }

    /// What came in before an operator's state was put aside is saved with that.
    pub(crate) fn forget_recorded(&mut self, node: NodeId) {
        let spilled = self.operators[node].as_mut().and_then(|operator| operator.spilled());
        if spilled.is_some_and(|spilled| spilled.saves_runs() && spilled.was_put_aside()) {
            self.recorded[node] = Recorded::default();
        }
    }

    /// Takes a part of a saved state in, until the operators run for the first time. Behind the operator's own parts are, in their
    /// order, keys of which no entry is left after its runs.
    pub(crate) fn take_saved(&mut self, node: NodeId, part: usize, delta: Delta) {
        let Some(loading) = self.loading.get_mut(node).and_then(Option::as_mut) else { return };
        if loading.len() <= part {
            loading.resize_with(part + 1, Vec::new);
        }
        loading[part].push(delta);
    }

    /// Gives an operator its saved state, if it waits for one. Tells whether it did.
    pub(crate) fn load(&mut self, node: NodeId, epoch: Epoch, watermarks: &Watermarks) -> Result<bool, OperatorError> {
        let Some(mut saved) = self.loading.get_mut(node).and_then(Option::take) else { return Ok(false) };
        let watermark = self.watermark(node, epoch, watermarks);
        let Some(operator) = &mut self.operators[node] else { return Ok(true) };
        let parts = match operator.keeps() {
            Keeps::Entries => operator.entry_shapes().len(),
            _ => self.spec.dataflow.nodes[node].inputs.len(),
        };
        let mut cx = StepCx { epoch, round: 0, watermark, errors: &mut Vec::new() };
        let mut gone = saved.split_off(saved.len().min(parts));
        saved.resize_with(parts, Vec::new);
        self.recorded[node].saved = saved.iter().flatten().map(Delta::len).sum();
        match operator.spilled() {
            Some(spilled) => {
                gone.resize_with(parts, Vec::new);
                spilled.load_after_runs(&mut cx, saved, gone)?;
            }
            None => operator.load(&mut cx, &mut saved)?,
        }
        self.forget_recorded(node);
        Ok(true)
    }
}

/// What is on disk of an operator, if that has changed since it was saved; before, all is put there if what came in since is too
/// much to be saved.
fn save_runs(
    spilled: &mut Spilled,
    recorded: &mut Recorded,
    all: bool,
    empty: &Saved,
) -> Result<Option<Saved>, OperatorError> {
    let much = UNASKED + spilled.rows_in_memory();
    if all || spilled.owes_all() || recorded.whole || recorded.rows + recorded.saved > much {
        match spilled.put_aside() {
            Err(WriteError::Disk(error)) => return Ok(Some(Saved { refused: Some(error), ..empty.clone() })),
            other => other?,
        }
        spilled.was_put_aside();
        *recorded = Recorded::default();
    }
    Ok(spilled.new_runs(all).map(|runs| {
        recorded.saved = 0;
        Saved { whole: true, aside: Some(runs), ..empty.clone() }
    }))
}

/// What an operator that keeps rows has taken in since it was saved, or all that it has.
fn save_rows(
    operator: &mut dyn Operator,
    recorded: &mut Recorded,
    all: bool,
    empty: &Saved,
) -> Result<Vec<Saved>, OperatorError> {
    let saved = |part: usize, whole: bool, delta: Delta| Saved { part, whole, delta, ..empty.clone() };
    let before = std::mem::take(recorded);
    let rows = before.rows + before.saved;
    if all || before.whole || rows > most(operator) {
        let left = operator.rows()?;
        recorded.saved = left.iter().map(Delta::len).sum();
        return Ok(left.into_iter().enumerate().map(|(part, delta)| saved(part, true, delta)).collect());
    }
    recorded.saved = rows;
    let parts = before.inputs.into_iter().enumerate();
    Ok(parts.flat_map(|(part, list)| list.into_iter().map(move |delta| saved(part, false, delta))).collect())
}

/// The entries of an operator that have changed since it was saved, or all.
fn save_entries(operator: &mut dyn Operator, all: bool, empty: &Saved) -> Result<Vec<Saved>, OperatorError> {
    let mut found = Vec::new();
    for (part, entries) in operator.entries(all)?.into_iter().enumerate() {
        let (rows, gone) = (Delta::inserts(entries.rows), Delta::inserts(entries.gone));
        if all || !rows.is_empty() || !gone.is_empty() {
            found.push(Saved { part, whole: all, delta: rows, gone: Some(gone), ..empty.clone() });
        }
    }
    Ok(found)
}

/// Rows of no columns, of which there are none.
fn nothing() -> Delta {
    Delta::inserts(RecordBatch::new_empty(Arc::new(Schema::empty())))
}

/// How the rows of a part of a node's state are shared out among workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// By the hash of these columns.
    Hash(Vec<usize>),
    /// All to the first.
    First,
    /// All to all.
    All,
    /// Any to any.
    Any,
}

/// What a node saves and how it is shared out again; made from the plan alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedShape {
    /// For entries: how many leading columns are the key.
    pub key: Option<usize>,
    /// Who gets which rows.
    pub placement: Placement,
}

/// The parts that the nodes of a view save, by node.
pub fn saved_shapes(spec: &crate::ViewSpec) -> Result<Vec<Vec<SavedShape>>, OperatorError> {
    let nodes = &spec.dataflow.nodes;
    let shapes = nodes.iter().map(|node| {
        if matches!(node.op, Op::Input(_)) {
            return Ok(Vec::new());
        }
        let Some(operator) = crate::view::operator(node, nodes)? else { return Ok(Vec::new()) };
        let route = |port: usize| node.inputs.get(port).map(|edge| &edge.route);
        Ok(match operator.keeps() {
            Keeps::Nothing => Vec::new(),
            Keeps::Rows => (0..node.inputs.len())
                .map(|port| SavedShape { key: None, placement: placement(route(port), Some) })
                .collect(),
            Keeps::Entries => {
                let shapes = operator.entry_shapes().into_iter().map(|shape| {
                    let place = |column| shape.input_columns.iter().position(|own| *own == column);
                    SavedShape { key: Some(shape.key), placement: placement(route(0), place) }
                });
                shapes.collect()
            }
        })
    });
    shapes.collect()
}

fn placement(route: Option<&Route>, place: impl Fn(usize) -> Option<usize>) -> Placement {
    match route {
        Some(Route::Hash(columns)) => {
            let places = columns.iter().map(|column| place(*column)).collect::<Option<Vec<_>>>();
            Placement::Hash(places.expect("an operator saves the columns that its rows are routed by"))
        }
        Some(Route::Broadcast) => Placement::All,
        Some(Route::Local) => Placement::Any,
        Some(Route::Gather) | None => Placement::First,
    }
}

impl Placement {
    /// The rows by worker. `saved_by`: the worker that saved them, if there were as many workers then.
    pub fn share_out(
        &self,
        delta: &Delta,
        workers: usize,
        saved_by: Option<usize>,
    ) -> Result<Vec<(usize, Delta)>, OperatorError> {
        match (self, saved_by) {
            // A worker that saves all that it has replaces what it saved before, so it must have that.
            (Placement::Any, Some(worker)) => Ok(vec![(worker, delta.clone())]),
            _ => self.share_out_anew(delta, workers),
        }
    }

    fn share_out_anew(&self, delta: &Delta, workers: usize) -> Result<Vec<(usize, Delta)>, OperatorError> {
        match self {
            Placement::Hash(columns) => crate::hub::partition(delta, columns, workers),
            Placement::First => Ok(vec![(0, delta.clone())]),
            Placement::All => Ok((0..workers).map(|worker| (worker, delta.clone())).collect()),
            // Rows that cancel each other must meet.
            Placement::Any => {
                let all: Vec<usize> = (0..delta.rows.num_columns()).collect();
                crate::hub::partition(delta, &all, workers)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};

    use super::*;

    #[test]
    fn rows_that_may_be_anywhere_go_back_to_where_they_were() {
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100));
        let rows = Delta::inserts(RecordBatch::try_from_iter([("a", values)]).unwrap());
        let workers = |saved_by| {
            let shared = Placement::Any.share_out(&rows, 2, saved_by).unwrap();
            shared.into_iter().map(|(worker, rows)| (worker, rows.len())).collect::<Vec<_>>()
        };
        assert_eq!(workers(Some(1)), [(1, 100)]);
        assert_eq!(workers(None).len(), 2);
        assert_eq!(workers(None).into_iter().map(|(_, rows)| rows).sum::<usize>(), 100);
        let hashed = Placement::Hash(vec![0]).share_out(&rows, 2, Some(1)).unwrap();
        assert_eq!(hashed.len(), 2, "what has its place by its key goes there");
    }
}
