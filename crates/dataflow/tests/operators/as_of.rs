//! As-of joins against looking for each left row's match anew.

use crate::history::{Bag, Row, TIME, Value, add, delta, histories, int, rows_of};
use arrow::datatypes::{DataType, SchemaRef};
use proptest::prelude::*;
use tidemill_dataflow::{AsOf, Operator, StepCx};
use tidemill_delta::NO_WATERMARK;
use tidemill_plan::AsOfPlan;

fn side() -> SchemaRef {
    crate::history::schema(&[("k", DataType::Int64), ("ts", TIME), ("s", DataType::Utf8)])
}

fn output() -> SchemaRef {
    let all = [("k", DataType::Int64), ("ts", TIME), ("s", DataType::Utf8)];
    let right = [("rk", DataType::Int64), ("rts", TIME), ("rs", DataType::Utf8)];
    crate::history::schema(&[all, right].concat())
}

fn plan(keyed: bool, after: bool, inclusive: bool, outer: bool, evict: Option<i64>) -> AsOfPlan {
    let keys = if keyed { vec![0] } else { Vec::new() };
    AsOfPlan { left_keys: keys.clone(), right_keys: keys, left_time: 1, right_time: 1, after, inclusive, outer, evict }
}

fn operator(plan: &AsOfPlan) -> AsOf {
    let schema = side();
    AsOf::new(plan, [&schema, &schema], output()).expect("a good plan")
}

/// The match of a left row: the nearest in time, then the greatest.
fn found<'a>(plan: &AsOfPlan, left: &Row, right: &'a Bag) -> Option<&'a Row> {
    let Value::Int(time) = left[1] else { return None };
    if plan.left_keys == [0] && left[0] == Value::Null {
        return None;
    }
    let fits = |row: &&Row| match row[1] {
        Value::Int(other) if plan.left_keys.is_empty() || row[0] == left[0] => match (plan.after, plan.inclusive) {
            (false, true) => other <= time,
            (false, false) => other < time,
            (true, true) => other >= time,
            (true, false) => other > time,
        },
        _ => false,
    };
    let near = |row: &&Row| match row[1] {
        Value::Int(other) if plan.after => -other,
        Value::Int(other) => other,
        _ => i64::MIN,
    };
    right.keys().filter(fits).max_by(|a, b| (near(a), *a).cmp(&(near(b), *b)))
}

fn reference(plan: &AsOfPlan, left: &Bag, right: &Bag) -> Bag {
    let mut out = Bag::new();
    for (row, weight) in left {
        let nulls = vec![Value::Null; 3];
        let matched = found(plan, row, right).or(plan.outer.then_some(&nulls));
        add(&mut out, matched.map(|matched| ([row.clone(), matched.clone()].concat(), *weight)));
    }
    out
}

fn row() -> impl Strategy<Value = Row> + Clone + 'static {
    let key = prop_oneof![1 => Just(Value::Null), 6 => (0..3i64).prop_map(int)];
    let time = prop_oneof![1 => Just(Value::Null), 9 => (0..12i64).prop_map(int)];
    let text = prop_oneof![Just(Value::Null), Just(Value::Text("a".into())), Just(Value::Text("b".into()))];
    (key, time, text).prop_map(|(k, t, s)| vec![k, t, s])
}

fn step(operator: &mut AsOf, left: &[Vec<(Row, i64)>], right: &[Vec<(Row, i64)>], watermark: i64) -> Vec<(Row, i64)> {
    let schema = side();
    let deltas = |batches: &[Vec<(Row, i64)>]| batches.iter().map(|rows| delta(&schema, rows)).collect::<Vec<_>>();
    let mut errors = Vec::new();
    let mut cx = StepCx { epoch: 0, round: 0, watermark, errors: &mut errors };
    let out = operator.step(&mut cx, &mut [deltas(left), deltas(right)]).expect("the operator goes on");
    let rows: Vec<_> = out.iter().flat_map(rows_of).collect();
    let mut listed: Vec<_> = rows.iter().map(|(row, _)| row).collect();
    listed.sort();
    listed.dedup();
    assert_eq!(listed.len(), rows.len(), "the output is not net: {rows:?}");
    rows
}

proptest! {
    #[test]
    fn matches_are_corrected(
        left in histories(row(), true),
        right in histories(row(), true),
        keyed: bool, after: bool, inclusive: bool, outer: bool,
    ) {
        let plan = plan(keyed, after, inclusive, outer, None);
        let mut operator = operator(&plan);
        let (mut lefts, mut rights, mut out) = (Bag::new(), Bag::new(), Bag::new());
        for at in 0..left.len().max(right.len()) {
            let none = Vec::new();
            let l = left.get(at).map_or(&none, |epoch| &epoch.batches);
            let r = right.get(at).map_or(&none, |epoch| &epoch.batches);
            add(&mut lefts, l.iter().flatten().cloned());
            add(&mut rights, r.iter().flatten().cloned());
            add(&mut out, step(&mut operator, l, r, NO_WATERMARK));
            prop_assert_eq!(&out, &reference(&plan, &lefts, &rights));
        }
        let gone = |bag: &Bag| vec![bag.iter().map(|(row, n)| (row.clone(), -n)).collect::<Vec<_>>()];
        add(&mut out, step(&mut operator, &gone(&lefts), &gone(&rights), NO_WATERMARK));
        prop_assert!(out.is_empty() && operator.state().rows == 0);
    }
}

/// Rows come in the order of time; what the watermark has made final is forgotten, and nothing is missed.
#[test]
fn final_rows_are_forgotten() {
    let plan = plan(true, false, true, false, Some(10));
    let mut operator = operator(&plan);
    let (mut lefts, mut rights, mut out) = (Bag::new(), Bag::new(), Bag::new());
    let mut most = 0;
    for at in 0..4000i64 {
        let one = |text: &str| vec![vec![(vec![int(at % 3), int(at), Value::Text(text.into())], 1)]];
        let (l, r) = (one("l"), if at % 5 == 0 { one("r") } else { Vec::new() });
        add(&mut lefts, l.iter().flatten().cloned());
        add(&mut rights, r.iter().flatten().cloned());
        add(&mut out, step(&mut operator, &l, &r, at));
        most = most.max(operator.state().rows);
    }
    assert_eq!(out, reference(&plan, &lefts, &rights));
    assert!(most < 1500, "{most} rows were kept");
}
