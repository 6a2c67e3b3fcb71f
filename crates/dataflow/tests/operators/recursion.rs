//! The head of a loop beside rounds computed anew: what can be reached in a graph whose edges come and go.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use proptest::collection::vec;
use proptest::prelude::*;
use tidemill_dataflow::{Operator, Recursion, StepCx};
use tidemill_delta::{Delta, NO_WATERMARK, batch};
use tidemill_plan::RecursionPlan;

type Bag<T> = BTreeMap<T, i64>;

fn add<T: Ord>(bag: &mut Bag<T>, row: T, weight: i64) {
    let count = bag.entry(row).or_default();
    *count += weight;
}

fn net<T: Ord>(mut bag: Bag<T>) -> Bag<T> {
    bag.retain(|_, count| *count != 0);
    bag
}

/// `new - old`.
fn change<T: Ord + Copy>(old: &Bag<T>, new: &Bag<T>) -> Bag<T> {
    let mut change = new.clone();
    old.iter().for_each(|(row, count)| add(&mut change, *row, -count));
    net(change)
}

/// What the recursive term makes of rows: the ends of the edges that begin at them, beside the rows' round.
fn term(rows: &Bag<(i64, i64)>, edges: &Bag<(i64, i64)>) -> Bag<(i64, i64)> {
    let mut made = Bag::new();
    for ((node, round), count) in rows {
        for ((_, end), often) in edges.range((*node, i64::MIN)..=(*node, i64::MAX)) {
            add(&mut made, (*end, *round), count * often);
        }
    }
    net(made)
}

/// The rows of each round, computed from nothing.
fn rounds(base: &Bag<i64>, edges: &Bag<(i64, i64)>, distinct: bool) -> Bag<(i64, i64)> {
    let (mut all, mut round) = (Bag::new(), 0);
    let mut made: Bag<i64> = base.clone();
    while !made.is_empty() {
        let mut rows = Bag::new();
        for (node, count) in &made {
            let known = all.keys().any(|(other, _)| other == node);
            if !distinct || !known {
                add(&mut rows, (*node, round), if distinct { 1 } else { *count });
            }
        }
        made = Bag::new();
        term(&rows, edges).into_iter().for_each(|((node, _), count)| add(&mut made, node, count));
        rows.into_iter().for_each(|(row, count)| add(&mut all, row, count));
        round += 1;
    }
    all
}

fn schema(columns: &[&str]) -> SchemaRef {
    let fields = columns.iter().map(|name| Field::new(*name, DataType::Int64, true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn column(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

fn weights(values: impl Iterator<Item = i64>) -> Int64Array {
    Int64Array::from_iter_values(values)
}

fn base_delta(rows: &Bag<i64>) -> Delta {
    let nodes = column(rows.keys().copied());
    Delta::new(batch(schema(&["node"]), vec![nodes], rows.len()), weights(rows.values().copied()))
}

fn term_delta(rows: &Bag<(i64, i64)>) -> Delta {
    let columns = vec![column(rows.keys().map(|r| r.0)), column(rows.keys().map(|r| r.1))];
    Delta::new(batch(schema(&["node", "round"]), columns, rows.len()), weights(rows.values().copied()))
}

fn operator(distinct: bool) -> Recursion {
    Recursion::new(&RecursionPlan { distinct }, schema(&["node", "round"])).expect("a good plan")
}

/// One epoch: goes through the rounds that have something to do; gives what comes out.
fn epoch(
    head: &mut Recursion,
    number: u64,
    base: &Bag<i64>,
    edges: [&Bag<(i64, i64)>; 2],
    rows: &mut Bag<(i64, i64)>,
) -> u64 {
    let (mut round, mut steps) = (0, 0);
    let mut inputs = vec![vec![base_delta(base)], Vec::new()];
    let mut made = term(rows, edges[0]);
    loop {
        let mut errors = Vec::new();
        let mut cx = StepCx { epoch: number, round, watermark: NO_WATERMARK, errors: &mut errors };
        for delta in head.step(&mut cx, &mut inputs).expect("no failure") {
            let (nodes, of) =
                (delta.rows.column(0).as_primitive::<Int64Type>(), delta.rows.column(1).as_primitive::<Int64Type>());
            (0..delta.len()).for_each(|i| add(rows, (nodes.value(i), of.value(i)), delta.weight(i)));
        }
        steps += 1;
        let now = term(rows, edges[1]);
        let more = change(&made, &now);
        made = now;
        inputs = vec![Vec::new(), Vec::new()];
        let next = head.next_round();
        if more.is_empty() && next.is_none() {
            break;
        }
        if !more.is_empty() {
            inputs[1].push(term_delta(&more));
        }
        // Rows arrive one round later; what is awaited may be later still.
        round = if more.is_empty() { next.expect("something to do") } else { round + 1 };
    }
    let left = std::mem::take(rows);
    *rows = net(left);
    steps
}

/// What happens to a graph.
#[derive(Clone, Debug)]
enum Change {
    Edge(i64, i64),
    /// The edge with this number goes, if there are so many.
    NoEdge(usize),
    Start(i64),
    NoStart(i64),
}

fn changes() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (0..7i64, 0..7i64).prop_map(|(a, b)| Change::Edge(a, b)),
        3 => (0..12usize).prop_map(Change::NoEdge),
        1 => (0..7i64).prop_map(Change::Start),
        1 => (0..7i64).prop_map(Change::NoStart),
    ]
}

fn apply(change: &Change, base: &mut Bag<i64>, edges: &mut Bag<(i64, i64)>, circles: bool) {
    match change {
        Change::Edge(a, b) if circles || a < b => add(edges, (*a, *b), 1),
        Change::Edge(a, b) => add(edges, (*b, *a + 1), 1),
        Change::NoEdge(number) => {
            if let Some(edge) = edges.keys().nth(*number).copied() {
                add(edges, edge, -1);
            }
        }
        Change::Start(node) => add(base, *node, 1),
        Change::NoStart(node) => base.iter_mut().filter(|(other, _)| *other == node).for_each(|(_, count)| *count -= 1),
    }
    *base = net(std::mem::take(base));
    *edges = net(std::mem::take(edges));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_round_has_the_rows_that_a_computation_from_nothing_has(
        epochs in vec((vec(changes(), 0..5), 0..4u8), 1..12),
        distinct in any::<bool>(),
    ) {
        let mut head = operator(distinct);
        let (mut base, mut edges, mut rows) = (Bag::new(), Bag::new(), Bag::new());
        for (number, (changes, again)) in epochs.iter().enumerate() {
            let (old_base, old_edges) = (base.clone(), edges.clone());
            // `UNION ALL` of a circle has no end.
            changes.iter().for_each(|change| apply(change, &mut base, &mut edges, distinct));
            if *again == 0 {
                head = loaded(&head, distinct);
            }
            let changed = change(&old_base, &base);
            epoch(&mut head, number as u64, &changed, [&old_edges, &edges], &mut rows);
            prop_assert_eq!(&rows, &rounds(&base, &edges, distinct));
        }
        let (gone, none) = (change(&base, &Bag::new()), Bag::new());
        epoch(&mut head, 100, &gone, [&edges, &none], &mut rows);
        prop_assert_eq!((rows.len(), head.state().rows), (0, 0));
    }
}

/// A new operator with what another has saved.
fn loaded(head: &Recursion, distinct: bool) -> Recursion {
    let mut loaded = operator(distinct);
    if distinct {
        let mut saved: Vec<Vec<Delta>> = head.rows().expect("saves").into_iter().map(|rows| vec![rows]).collect();
        let mut errors = Vec::new();
        let mut cx = StepCx { epoch: 0, round: 0, watermark: NO_WATERMARK, errors: &mut errors };
        loaded.load(&mut cx, &mut saved).expect("loads");
    }
    loaded
}

#[test]
fn a_change_at_the_end_of_a_long_way_touches_only_that() {
    let mut head = operator(true);
    let mut edges: Bag<(i64, i64)> = (0..500).map(|n| ((n, n + 1), 1)).collect();
    let mut rows = Bag::new();
    let none = Bag::new();
    assert_eq!(epoch(&mut head, 0, &Bag::from([(0, 1)]), [&none, &edges], &mut rows), 501);
    let before = edges.clone();
    edges.insert((499, 1000), 1);
    let steps = epoch(&mut head, 1, &Bag::new(), [&before, &edges], &mut rows);
    assert!(steps <= 3, "{steps} steps for one row");
    assert_eq!(rows.get(&(1000, 500)), Some(&1));
}

#[test]
fn a_recursion_without_end_stops_with_a_message() {
    let mut head = operator(false);
    let mut errors = Vec::new();
    let mut cx = StepCx { epoch: 0, round: 10_001, watermark: NO_WATERMARK, errors: &mut errors };
    let error = head.step(&mut cx, &mut [Vec::new(), Vec::new()]).expect_err("too many rounds");
    assert_eq!(error.to_string(), "the recursion comes to no end within 10000 rounds");
    let twice = Bag::from([(1, i64::MAX)]);
    let mut cx = StepCx { epoch: 1, round: 0, watermark: NO_WATERMARK, errors: &mut errors };
    let error = head.step(&mut cx, &mut [vec![base_delta(&twice), base_delta(&twice)], Vec::new()]);
    assert!(error.expect_err("too many").to_string().contains("too often"));
}
