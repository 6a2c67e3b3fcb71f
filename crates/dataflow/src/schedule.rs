//! When in an epoch each node of a view runs.
//!
//! A node's level is one more than that of the last node whose rows are exchanged on their way to it. A loop has a
//! band of levels of its own, so many that its rounds find room there: a round is some levels later than the one before, and
//! what reads the loop's answer runs in the next band, when the loop has come to its end.

use tidemill_plan::{Edge, Node, NodeId, Op, Route};

use crate::time::{Level, band, band_start};

/// See the module.
pub(crate) struct Schedule {
    levels: Vec<Level>,
    /// The loop that a node is part of.
    loops: Vec<Option<Round>>,
}

/// A loop that a node is part of.
#[derive(Clone, Copy)]
struct Round {
    head: NodeId,
    /// How many levels a round has.
    levels: Level,
}

/// When rows come to the node that reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// At a level.
    At(Level),
    /// So many levels after they were sent.
    After(Level),
}

/// The inputs of a node that are there before it.
fn forward(node: &Node) -> &[Edge] {
    match node.op {
        Op::Recursion(_) => &node.inputs[..node.inputs.len().min(1)],
        _ => &node.inputs,
    }
}

/// Where a loop ends.
fn last_of(node: &Node) -> Option<NodeId> {
    match node.op {
        Op::Recursion(_) => node.inputs.get(1).map(|edge| edge.from),
        _ => None,
    }
}

/// Which nodes are part of the loop with this head.
fn members(nodes: &[Node], head: NodeId) -> Vec<bool> {
    let mut follows = vec![false; nodes.len()];
    for (id, node) in nodes.iter().enumerate() {
        follows[id] = id == head || forward(node).iter().any(|edge| follows[edge.from]);
    }
    let mut leads = vec![false; nodes.len()];
    leads[head] = true;
    leads[last_of(&nodes[head]).unwrap_or(head)] = true;
    for id in (0..nodes.len()).rev().filter(|id| *id != head) {
        if leads[id] {
            forward(&nodes[id]).iter().for_each(|edge| leads[edge.from] = true);
        }
    }
    follows.into_iter().zip(leads).map(|(follows, leads)| follows && leads).collect()
}

impl Schedule {
    /// Finds the levels; `input` tells at which one the rows of an input come.
    pub(crate) fn new(nodes: &[Node], input: impl Fn(usize) -> Level) -> Schedule {
        let heads = (0..nodes.len()).filter(|id| last_of(&nodes[*id]).is_some());
        let loops: Vec<(NodeId, Vec<bool>)> = heads.map(|head| (head, members(nodes, head))).collect();
        let mut levels: Vec<Option<Level>> = vec![None; nodes.len()];
        // What a loop reads may be numbered after its head.
        while levels.contains(&None) {
            let known = levels.iter().flatten().count();
            for id in 0..nodes.len() {
                if levels[id].is_none() {
                    levels[id] = level(nodes, id, &levels, &loops, &input);
                }
            }
            assert!(levels.iter().flatten().count() > known, "nodes wait for each other");
        }
        let levels: Vec<Level> = levels.into_iter().flatten().collect();
        let round = |id: NodeId| {
            let (head, _) = loops.iter().find(|(_, members)| members[id])?;
            let last = last_of(&nodes[*head])?;
            Some(Round { head: *head, levels: levels[last] + 1 - levels[*head] })
        };
        let loops = (0..nodes.len()).map(round).collect();
        Schedule { levels, loops }
    }

    /// The level at which a node runs; in a loop, for the first round.
    pub(crate) fn level(&self, node: NodeId) -> Level {
        self.levels[node]
    }

    /// The round of its loop in which a node runs at a level; 0 outside of loops.
    pub(crate) fn round(&self, node: NodeId, at: Level) -> u64 {
        self.loops[node].map_or(0, |round| at.saturating_sub(self.levels[node]) / round.levels)
    }

    /// The level at which a node runs for a round of its loop.
    pub(crate) fn level_of_round(&self, node: NodeId, round: u64) -> Level {
        self.levels[node] + self.loops[node].map_or(0, |own| own.levels * round)
    }

    /// When rows come from one node to another that reads them.
    pub(crate) fn arrival(&self, from: NodeId, to: NodeId) -> Arrival {
        let (sent, level) = (self.levels[from], self.levels[to]);
        match (self.loops[from], self.loops[to]) {
            (Some(own), Some(other)) if own.head == other.head && to == own.head => {
                Arrival::After(level + own.levels - sent)
            }
            (Some(own), Some(other)) if own.head == other.head => Arrival::After(level - sent),
            _ => Arrival::At(level),
        }
    }
}

/// A node's level, if those of the nodes that it waits for are known.
fn level(
    nodes: &[Node],
    id: NodeId,
    levels: &[Option<Level>],
    loops: &[(NodeId, Vec<bool>)],
    input: &impl Fn(usize) -> Level,
) -> Option<Level> {
    let node = &nodes[id];
    let after = |edge: &Edge| Some(levels[edge.from]? + u64::from(edge.route != Route::Local));
    let last = |edges: &mut dyn Iterator<Item = &Edge>| {
        edges.map(after).try_fold(1, |last, level| Some(Level::max(last, level?)))
    };
    match &node.op {
        Op::Input(number) => Some(input(*number)),
        Op::Fixpoint => Some(band_start(band(levels[node.inputs[0].from]?) + 1)),
        Op::Recursion(_) => {
            let (_, members) = loops.iter().find(|(head, _)| *head == id)?;
            let inside = (0..nodes.len()).filter(|id| members[*id]);
            let mut outer = inside.flat_map(|id| forward(&nodes[id])).filter(|edge| !members[edge.from]);
            Some(band_start(band(last(&mut outer)?) + 1))
        }
        _ => last(&mut node.inputs.iter()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Schema;
    use tidemill_plan::{MapPlan, RecursionPlan};

    use super::*;

    fn node(op: Op, inputs: Vec<(NodeId, Route)>) -> Node {
        let inputs = inputs.into_iter().map(|(from, route)| Edge { from, route }).collect();
        Node { op, inputs, schema: Arc::new(Schema::empty()), append_only: false, bounds: Vec::new() }
    }

    #[test]
    fn a_loop_has_a_band_of_its_own() {
        let map = || Op::Map(MapPlan { filter: None, project: Vec::new() });
        let by_hash = || Route::Hash(vec![0]);
        // 0 -> head 1 -> 3 -> 4 -> back to 1; 3 reads 2 too, which is made of 0; 5 is the way out, 6 reads it and 0.
        let nodes = vec![
            node(Op::Input(0), vec![]),
            node(Op::Recursion(RecursionPlan { distinct: true }), vec![(0, by_hash()), (4, by_hash())]),
            node(map(), vec![(0, by_hash())]),
            node(Op::Union, vec![(1, by_hash()), (2, by_hash())]),
            node(map(), vec![(3, Route::Local)]),
            node(Op::Fixpoint, vec![(1, Route::Local)]),
            node(Op::Union, vec![(5, by_hash()), (0, Route::Local)]),
        ];
        let schedule = Schedule::new(&nodes, |_| 1);
        let start = band_start(1);
        assert_eq!((0..7).map(|id| schedule.level(id)).collect::<Vec<_>>(), {
            [1, start, 2, start + 1, start + 1, band_start(2), band_start(2) + 1]
        });
        assert_eq!(schedule.arrival(1, 3), Arrival::After(1));
        assert_eq!(schedule.arrival(3, 4), Arrival::After(0));
        assert_eq!(schedule.arrival(4, 1), Arrival::After(1));
        assert_eq!(schedule.arrival(2, 3), Arrival::At(start + 1));
        assert_eq!(schedule.arrival(1, 5), Arrival::At(band_start(2)));
        assert_eq!(schedule.level_of_round(1, 3), start + 6);
        assert_eq!((schedule.round(1, start + 6), schedule.round(3, start + 7), schedule.round(6, start)), (3, 3, 0));
    }
}
