//! State that was put aside comes back without being in memory: as files of the same blocks, for the operators that the next epoch builds.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_dataflow::{Aside, Memory, Placement, SavedShape, rows_of, saved_shapes};
use tidemill_delta::Delta;
use tidemill_plan::{NodeId, RelationId};
use tidemill_sql::SqlError;
use tidemill_storage::Checkpoints;

use crate::checkpoint::{Directory, Of, Packs, Run, Store, piece_of};
use crate::conductor::Conductor;
use crate::conductor::recover::failed;

/// Runs by operator and by the worker that saved them; the eldest first.
type ByOperator = BTreeMap<(RelationId, NodeId), BTreeMap<usize, Vec<Aside>>>;

/// What was put aside.
#[derive(Default)]
pub(super) struct Asides {
    /// The operators that have it as runs again.
    pub(super) operators: BTreeSet<(RelationId, NodeId)>,
    /// Rows, by operator, worker before and part, where a worker is in another process now: its files are not within reach. What else
    /// was saved of the operator came after them.
    pub(super) rows: BTreeMap<(RelationId, NodeId, usize, usize), Delta>,
    /// There were such rows.
    pub(super) taken_in: bool,
}

impl Conductor {
    /// Brings back what operators had put aside.
    pub(super) fn restore_asides(
        &self,
        directory: &Directory,
        (store, packs): (&Checkpoints<Store>, &mut Packs),
        runs: &BTreeMap<Of, Vec<&Run>>,
    ) -> Result<Asides, SqlError> {
        let mut operators = ByOperator::new();
        for (of, pieces) in runs {
            let Of::Aside { view, node, worker, name } = *of else { continue };
            let (Some(memory), Some(shapes)) = (&self.shared.memory, self.saved_shapes_of(view, node)?) else {
                continue;
            };
            memory.use_reserve().map_err(failed)?;
            let keys = pieces.first().map_or(0, |piece| piece.keys);
            let mut returning = memory.bring_back(name, shapes.len(), keys).map_err(failed)?;
            for piece in pieces {
                let pack = packs.get(store, &piece.pack).map_err(failed)?;
                returning.take(piece_of(piece, &pack).map_err(failed)?).map_err(failed)?;
            }
            let run = returning.finish().map_err(failed)?;
            operators.entry((view, node)).or_default().entry(worker).or_default().push(run);
        }
        let (mut found, same) = (Asides::default(), directory.workers == self.workers());
        let Some(memory) = &self.shared.memory else { return Ok(found) };
        let here = self.shared.config.workers.max(1);
        for ((view, node), by_worker) in operators {
            let elsewhere = if same { by_worker.keys().any(|worker| *worker >= here) } else { self.workers() > here };
            if elsewhere {
                found.taken_in = true;
                let parts = self.saved_shapes_of(view, node)?.unwrap_or_default().len();
                for (worker, runs) in by_worker {
                    let rows = rows_of(&runs, parts).map_err(failed)?.into_iter().enumerate();
                    found.rows.extend(rows.filter_map(|(part, rows)| Some(((view, node, worker, part), rows?))));
                }
                continue;
            }
            found.operators.insert((view, node));
            if same {
                by_worker.into_iter().for_each(|(worker, runs)| memory.give(view, node, worker, runs));
            } else {
                self.share_out_asides(memory, (view, node), by_worker.into_values().collect())?;
            }
        }
        Ok(found)
    }

    /// Shares out anew what other workers had put aside.
    fn share_out_asides(
        &self,
        memory: &Memory,
        (view, node): (RelationId, NodeId),
        runs: Vec<Vec<Aside>>,
    ) -> Result<(), SqlError> {
        let shapes = self.saved_shapes_of(view, node)?.unwrap_or_default();
        let placement: Vec<Placement> = shapes.into_iter().map(|shape| shape.placement).collect();
        let runs = memory.share_out(&runs, &placement, self.workers()).map_err(failed)?;
        runs.into_iter().enumerate().for_each(|(worker, run)| memory.give(view, node, worker, vec![run]));
        Ok(())
    }

    /// The parts that an operator saves; nothing if its view is not there or has stopped.
    pub(super) fn saved_shapes_of(&self, view: RelationId, node: NodeId) -> Result<Option<Vec<SavedShape>>, SqlError> {
        let Some(spec) = self.specs.get(&view).filter(|_| !self.failed.contains(&view)) else { return Ok(None) };
        Ok(Some(saved_shapes(spec).map_err(failed)?.into_iter().nth(node).unwrap_or_default()))
    }
}
