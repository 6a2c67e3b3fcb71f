//! State that was put aside comes back without being in memory: as files of the same blocks, for the operators that the next epoch builds.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_dataflow::{Aside, Memory, Packet, Placement, SavedShape, Share, saved_shapes};
use tidemill_plan::{NodeId, RelationId};
use tidemill_sql::SqlError;
use tidemill_storage::Checkpoints;

use crate::checkpoint::{Directory, Of, Packs, Run, Store, piece_of};
use crate::conductor::Conductor;
use crate::conductor::cut::Cut;
use crate::conductor::recover::failed;

/// Runs by operator and by the worker that saved them; the eldest first.
type ByOperator = BTreeMap<(RelationId, NodeId), BTreeMap<usize, Vec<Aside>>>;

impl Conductor {
    /// Brings back what operators had put aside. Gives these operators.
    pub(super) fn restore_asides(
        &self,
        cut: &mut Cut,
        directory: &Directory,
        (store, packs): (&Checkpoints<Store>, &mut Packs),
        runs: &BTreeMap<Of, Vec<&Run>>,
    ) -> Result<BTreeSet<(RelationId, NodeId)>, SqlError> {
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
        let found = operators.keys().copied().collect();
        let Some(memory) = &self.shared.memory else { return Ok(found) };
        for ((view, node), by_worker) in operators {
            if directory.workers == self.workers() {
                by_worker.into_iter().for_each(|(worker, runs)| memory.give(view, node, worker, runs));
            } else {
                self.share_out_asides(cut, memory, (view, node), by_worker.into_values().collect())?;
            }
        }
        Ok(found)
    }

    /// Shares out anew what other workers had put aside.
    fn share_out_asides(
        &self,
        cut: &mut Cut,
        memory: &Memory,
        (view, node): (RelationId, NodeId),
        runs: Vec<Vec<Aside>>,
    ) -> Result<(), SqlError> {
        let shapes = self.saved_shapes_of(view, node)?.unwrap_or_default();
        let placement: Vec<Placement> = shapes.into_iter().map(|shape| shape.placement).collect();
        let workers = (self.workers(), self.shared.config.workers.max(1));
        let shares = memory.share_out(&runs, &placement, workers).map_err(failed)?;
        for (worker, share) in shares.into_iter().enumerate() {
            match share {
                Share::Run(run) => memory.give(view, node, worker, vec![run]),
                Share::Rows(parts) => {
                    let each =
                        parts.into_iter().enumerate().flat_map(|(part, list)| list.into_iter().map(move |d| (part, d)));
                    cut.packets.extend(each.map(|(part, delta)| (worker, Packet::Load { view, node, part, delta })));
                }
            }
        }
        Ok(())
    }

    /// The parts that an operator saves; nothing if its view is not there or has stopped.
    pub(super) fn saved_shapes_of(&self, view: RelationId, node: NodeId) -> Result<Option<Vec<SavedShape>>, SqlError> {
        let Some(spec) = self.specs.get(&view).filter(|_| !self.failed.contains(&view)) else { return Ok(None) };
        Ok(Some(saved_shapes(spec).map_err(failed)?.into_iter().nth(node).unwrap_or_default()))
    }
}
