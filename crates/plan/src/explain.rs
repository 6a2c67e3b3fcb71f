//! `EXPLAIN`: a dataflow as an indented tree, the answer's node first.

use std::fmt::Write;

use crate::{
    AggregateCall, AggregatePlan, Bound, Dataflow, JoinPlan, Node, NodeId, Op, OrderBy, OverPlan, Route, SessionPlan,
    TopNPlan,
};

/// The dataflow for people, one line a node, inputs indented below the node that reads them.
///
/// Each line says what the operator does, whether it is maintained incrementally or recomputed,
/// whether its output is append-only or updating, what state it keeps and what bounds that state.
pub fn explain(dataflow: &Dataflow) -> Vec<String> {
    let mut lines = Vec::new();
    if !dataflow.nodes.is_empty() {
        explain_node(dataflow, dataflow.nodes.len() - 1, 0, &mut Vec::new(), &mut lines);
    }
    lines
}

fn explain_node(dataflow: &Dataflow, id: NodeId, depth: usize, loops: &mut Vec<NodeId>, lines: &mut Vec<String>) {
    if loops.contains(&id) {
        return lines.push(format!("{:indent$}Rows of the round before", "", indent = depth * 2));
    }
    loops.extend(matches!(dataflow.nodes[id].op, Op::Recursion(_)).then_some(id));
    let node = &dataflow.nodes[id];
    let mut line = format!("{:indent$}{}", "", describe(dataflow, node), indent = depth * 2);
    let kind = match &node.op {
        Op::Recompute(_) => "recompute",
        Op::Aggregate(AggregatePlan { calls, .. }) | Op::Session(SessionPlan { calls, .. })
            if calls.iter().any(AggregateCall::is_recomputed) =>
        {
            "recompute of changed groups"
        }
        _ => "incremental",
    };
    let output = if node.append_only { "append-only" } else { "updating" };
    let _ = write!(line, "  [{kind}, {output}{}]", state(dataflow, node));
    lines.push(line);
    for edge in &node.inputs {
        match &edge.route {
            Route::Local => explain_node(dataflow, edge.from, depth + 1, loops, lines),
            route => {
                let indent = (depth + 1) * 2;
                lines.push(format!("{:indent$}Exchange {}", "", route_name(dataflow, edge.from, route)));
                explain_node(dataflow, edge.from, depth + 2, loops, lines);
            }
        }
    }
    loops.pop_if(|open| *open == id);
}

fn route_name(dataflow: &Dataflow, from: NodeId, route: &Route) -> String {
    match route {
        Route::Local => "local".into(),
        Route::Hash(columns) => format!("by hash of {}", names(dataflow, from, columns)),
        Route::Gather => "to one worker".into(),
        Route::Broadcast => "to all workers".into(),
    }
}

fn names(dataflow: &Dataflow, node: NodeId, columns: &[usize]) -> String {
    let schema = &dataflow.nodes[node].schema;
    let list: Vec<_> = columns.iter().map(|c| schema.field(*c).name().as_str()).collect();
    format!("({})", list.join(", "))
}

fn describe(dataflow: &Dataflow, node: &Node) -> String {
    let input = |i: usize| node.inputs[i].from;
    match &node.op {
        Op::Input(i) => {
            let columns: Vec<_> = node.schema.fields().iter().map(|f| f.name().as_str()).collect();
            format!("Read {} ({})", dataflow.inputs[*i].name, columns.join(", "))
        }
        Op::Map(map) => match &map.filter {
            Some(filter) => format!("Filter {filter}; project {:?}", map.project),
            None => format!("Project {:?}", map.project),
        },
        Op::Window(w) if w.size == w.slide => {
            format!("Tumble {} size {}", names(dataflow, input(0), &[w.time]), duration(w.size))
        }
        Op::Window(w) => {
            format!(
                "Hop {} slide {} size {}{}",
                names(dataflow, input(0), &[w.time]),
                duration(w.slide),
                duration(w.size),
                if w.panes { ", added up by pane" } else { "" }
            )
        }
        Op::Aggregate(AggregatePlan { keys, calls, on_close, .. }) => {
            let calls: Vec<_> = calls.iter().map(|c| c.label.as_str()).collect();
            let when = if *on_close { " on window close" } else { "" };
            match (calls.is_empty(), keys.is_empty()) {
                (true, _) => format!("Distinct{when} {}", names(dataflow, input(0), keys)),
                (false, true) => format!("Aggregate{when} {}", calls.join(", ")),
                (false, false) => {
                    format!("Aggregate{when} {} by {}", calls.join(", "), names(dataflow, input(0), keys))
                }
            }
        }
        Op::Session(SessionPlan { keys, gap, calls, .. }) => {
            let calls: Vec<_> = calls.iter().map(|c| c.label.as_str()).collect();
            format!("Session gap {} {} by {}", duration(*gap), calls.join(", "), names(dataflow, input(0), keys))
        }
        Op::Join(JoinPlan { kind, left_keys, right_keys, filter, .. }) => {
            let (left, right) = (names(dataflow, input(0), left_keys), names(dataflow, input(1), right_keys));
            let residual = filter.as_ref().map_or(String::new(), |f| format!(" where {f}"));
            match left_keys.is_empty() {
                true => format!("{kind:?} join of all pairs{residual}"),
                false => format!("{kind:?} join on {left} = {right}{residual}"),
            }
        }
        Op::AsOf(plan) => {
            let (left, right) =
                (names(dataflow, input(0), &plan.left_keys), names(dataflow, input(1), &plan.right_keys));
            let times = (names(dataflow, input(0), &[plan.left_time]), names(dataflow, input(1), &[plan.right_time]));
            let sign = match (plan.after, plan.inclusive) {
                (false, true) => ">=",
                (false, false) => ">",
                (true, true) => "<=",
                (true, false) => "<",
            };
            let kind = if plan.outer { "Left as-of join" } else { "As-of join" };
            let on = if plan.left_keys.is_empty() { String::new() } else { format!(" on {left} = {right}") };
            format!("{kind}{on} by {} {sign} {}", times.0, times.1)
        }
        Op::TopN(TopNPlan { partition, order, offset, limit, ties, .. }) => {
            let skip = if *offset > 0 { format!(" after {offset}") } else { String::new() };
            let ties = if *ties { " with ties" } else { "" };
            format!("First {limit}{skip}{ties}{}", by_and_per(dataflow, input(0), order, partition))
        }
        Op::Over(OverPlan { partition, order, calls, .. }) => {
            let calls: Vec<_> = calls.iter().map(|c| c.label.as_str()).collect();
            format!("Over {}{}", calls.join(", "), by_and_per(dataflow, input(0), order, partition))
        }
        Op::Union => "Union all".into(),
        Op::FlatMap(map) => map.label.clone(),
        Op::Recompute(recompute) => match recompute.keys.first().filter(|keys| !keys.is_empty()) {
            Some(keys) => format!("Recompute {} per {}", recompute.label, names(dataflow, input(0), keys)),
            None => format!("Recompute {}", recompute.label),
        },
        Op::Recursion(plan) if plan.distinct => "Loop: rows of each round that are new".into(),
        Op::Recursion(_) => "Loop: all rows of each round".into(),
        Op::Fixpoint => "Rows of all rounds".into(),
        Op::CloseGate(gate) => format!("Hold until {} is final", names(dataflow, input(0), &[gate.closes.column])),
    }
}

/// An order and a partition, where there are any.
fn by_and_per(dataflow: &Dataflow, input: NodeId, order: &[OrderBy], partition: &[usize]) -> String {
    let order = order.iter().map(|o| {
        let name = dataflow.nodes[input].schema.field(o.column).name().clone();
        if o.options.descending { format!("{name} desc") } else { name }
    });
    let order: Vec<_> = order.collect();
    let by = if order.is_empty() { String::new() } else { format!(" by ({})", order.join(", ")) };
    let per = if partition.is_empty() { String::new() } else { format!(" per {}", names(dataflow, input, partition)) };
    by + &per
}

/// What the operator remembers, and until when.
fn state(dataflow: &Dataflow, node: &Node) -> String {
    let until = |input: usize, bound: &Option<Bound>| match bound {
        Some(bound) => {
            format!("until the watermark passes {}", names(dataflow, node.inputs[input].from, &[bound.column]))
        }
        None => "unbounded".into(),
    };
    match &node.op {
        Op::Input(_) | Op::Map(_) | Op::Window(_) | Op::Union | Op::FlatMap(_) => String::new(),
        Op::Aggregate(a) if a.keys.is_empty() => format!(", state: one group{}", values(&a.calls, a.append_only)),
        Op::Aggregate(a) => {
            format!(", state: groups{}, {}", values(&a.calls, a.append_only), until(0, &a.closes))
        }
        Op::Session(s) => {
            format!(", state: open sessions{}, {}", values(&s.calls, s.append_only), until(0, &s.closes))
        }
        Op::Join(j) => format!(", state: left rows, {}; right rows, {}", until(0, &j.evict[0]), until(1, &j.evict[1])),
        Op::AsOf(a) => match a.evict {
            Some(_) => {
                ", state: rows of both sides, until the watermark passes their times; the last one per key".into()
            }
            None => ", state: rows of both sides, unbounded".into(),
        },
        Op::TopN(t) if t.append_only => {
            format!(", state: first {} rows per partition, {}", t.offset + t.limit, until(0, &t.closes))
        }
        Op::TopN(t) => format!(", state: all rows, {}", until(0, &t.closes)),
        Op::Over(o) if o.evicts.is_some() => {
            format!(", state: rows in reach of a frame, others {}", until(0, &o.evicts))
        }
        Op::Over(o) => format!(", state: all rows, {}", until(0, &o.closes)),
        Op::Recompute(_) => ", state: all rows of its inputs, unbounded".into(),
        Op::Recursion(plan) if plan.distinct => ", state: all rows and their rounds, unbounded".into(),
        Op::Recursion(_) | Op::Fixpoint => String::new(),
        Op::CloseGate(g) => format!(", state: rows not yet final, {}", until(0, &Some(g.closes))),
    }
}

/// The aggregates that remember more than a number per group.
fn values(calls: &[AggregateCall], append_only: bool) -> String {
    let kept: Vec<_> = calls.iter().filter(|c| c.keeps_values(append_only)).map(|c| c.label.as_str()).collect();
    match kept.as_slice() {
        [] => String::new(),
        [first, second, _, ..] => format!(" with all values of {first}, {second} and {} more", kept.len() - 2),
        few => format!(" with all values of {}", few.join(", ")),
    }
}

/// Microseconds as people write them.
pub(crate) fn duration(micros: i64) -> String {
    for (unit, size) in
        [("d", 86_400_000_000), ("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000), ("ms", 1000)]
    {
        if micros % size == 0 {
            return format!("{} {unit}", micros / size);
        }
    }
    format!("{micros} us")
}
