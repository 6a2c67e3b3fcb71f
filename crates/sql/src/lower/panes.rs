//! Overlapping windows that are only counted.
//!
//! A `HOP` copies each row into every window it falls into. Where a count is all that is made of the
//! copies, rows that fall into the same windows can be added up before: see [`WindowPlan::panes`].

use tidemill_plan::{AggregateFunction, AggregatePlan, Expr, MapPlan, Node, NodeId, Op, WindowPlan};

/// Marks the windows of which nothing but counts by other columns than the time is made.
pub(super) fn merge_panes(nodes: &mut [Node]) {
    for window in 0..nodes.len() {
        let readers = readers_of(nodes, window);
        let wanted = match &nodes[window].op {
            Op::Window(plan) => {
                let overlaps = plan.slide < plan.size && plan.size % plan.slide == 0;
                overlaps && !readers.is_empty() && readers.iter().all(|reader| only_counts(nodes, *reader, plan))
            }
            _ => false,
        };
        if let Op::Window(plan) = &mut nodes[window].op {
            plan.panes = wanted;
        }
    }
}

fn readers_of(nodes: &[Node], node: NodeId) -> Vec<NodeId> {
    let reads = |reader: &NodeId| nodes[*reader].inputs.iter().any(|edge| edge.from == node);
    (0..nodes.len()).filter(reads).collect()
}

/// Whether a reader of a window's rows counts them, perhaps after picking columns, without their times.
fn only_counts(nodes: &[Node], reader: NodeId, window: &WindowPlan) -> bool {
    match &nodes[reader].op {
        Op::Aggregate(plan) => counts_by_other(plan, |key| key != window.time),
        Op::Map(MapPlan { filter: None, project }) => {
            let other = |expr: &Expr| matches!(expr, Expr::Column(column) if *column != window.time);
            let readers = readers_of(nodes, reader);
            let counts =
                |reader: &NodeId| matches!(&nodes[*reader].op, Op::Aggregate(plan) if counts_by_other(plan, |_| true));
            project.iter().all(other) && !readers.is_empty() && readers.iter().all(counts)
        }
        _ => false,
    }
}

fn counts_by_other(plan: &AggregatePlan, other: impl Fn(usize) -> bool) -> bool {
    let counts = plan
        .calls
        .iter()
        .all(|call| matches!(call.function, AggregateFunction::Count) && call.args.is_empty() && call.filter.is_none());
    counts && plan.keys.iter().all(|key| other(*key))
}
