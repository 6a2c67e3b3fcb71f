//! Sessions against cutting each key's sorted times anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::history::{Bag, Epoch, Row, TIME, Value, add, all_taken_back, check, histories, int, step};
use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use proptest::prelude::*;
use tidemill_dataflow::{Operator, Session};
use tidemill_delta::{NO_WATERMARK, batch};
use tidemill_plan::{AggregateCall, AggregateFunction, Bound, Recompute, ScalarError, SessionPlan};

const GAP: i64 = 10;

fn input() -> SchemaRef {
    crate::history::schema(&[("k", DataType::Int64), ("t", TIME), ("v", DataType::Int64)])
}

fn call(function: AggregateFunction, args: Vec<usize>) -> AggregateCall {
    let label = format!("{function:?}");
    AggregateCall { function, args, filter: None, distinct: false, data_type: DataType::Int64, label }
}

/// Times of rows, as one number: anything that depends on all rows does.
#[derive(Debug)]
struct Digest;

impl Recompute for Digest {
    fn compute(&self, inputs: &[RecordBatch]) -> Result<RecordBatch, ScalarError> {
        let values = inputs[0].column(0).as_primitive::<Int64Type>();
        let digest = digest(values.iter());
        let schema = crate::history::schema(&[("d", DataType::Int64)]);
        Ok(batch(schema, vec![Arc::new(Int64Array::from(vec![digest]))], 1))
    }
}

fn digest(values: impl Iterator<Item = Option<i64>>) -> i64 {
    values.fold(7, |sum: i64, v| sum.wrapping_mul(31).wrapping_add(v.unwrap_or(-99)) % 1_000_003)
}

fn plan(heavy: bool, append_only: bool) -> SessionPlan {
    use AggregateFunction::{Count, FromRows, Max, Min, Sum};
    let mut calls = vec![call(Count, vec![]), call(Count, vec![2]), call(Min, vec![2]), call(Max, vec![2])];
    if heavy {
        calls.extend([call(Sum, vec![2]), call(FromRows(Arc::new(Digest)), vec![2])]);
    }
    SessionPlan { keys: vec![0], time: 1, gap: GAP, calls, append_only, closes: None, on_close: false }
}

fn operator(plan: &SessionPlan) -> Session {
    let mut columns = vec![("k", DataType::Int64), ("s", TIME), ("e", TIME)];
    columns.extend((0..plan.calls.len()).map(|_| ("c", DataType::Int64)));
    Session::new(plan, &[input()], crate::history::schema(&columns)).expect("a good plan")
}

fn sessions(input: &Bag) -> Vec<Vec<Row>> {
    let mut keys: BTreeMap<Value, Vec<Row>> = BTreeMap::new();
    for (row, n) in input.iter().filter(|(row, _)| row[1] != Value::Null) {
        keys.entry(row[0].clone()).or_default().extend(std::iter::repeat_n(row.clone(), *n as usize));
    }
    let mut out: Vec<Vec<Row>> = Vec::new();
    for mut rows in keys.into_values() {
        rows.sort_by_key(|row| row[1].clone());
        let together = |a: &Row, b: &Row| number(&b[1]).zip(number(&a[1])).is_some_and(|(b, a)| b - a <= GAP);
        out.extend(rows.chunk_by(together).map(<[Row]>::to_vec));
    }
    out
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(v) => Some(*v),
        _ => None,
    }
}

fn output_row(session: &[Row], heavy: bool) -> Row {
    let times = || session.iter().filter_map(|row| number(&row[1]));
    let values = || session.iter().filter_map(|row| number(&row[2]));
    let mut out = vec![session[0][0].clone(), int(times().min()), int(times().max().map(|t| t + GAP))];
    out.extend([int(session.len() as i64), int(values().count() as i64), int(values().min()), int(values().max())]);
    if heavy {
        let mut all: Vec<Option<i64>> = session.iter().map(|row| number(&row[2])).collect();
        all.sort();
        let sum = values().next().map(|_| values().sum::<i64>());
        out.extend([int(sum), int(digest(all.into_iter()))]);
    }
    out
}

fn reference(heavy: bool, input: &Bag) -> Bag {
    let mut out = Bag::new();
    add(&mut out, sessions(input).iter().map(|session| (output_row(session, heavy), 1)));
    out
}

fn rows() -> impl Strategy<Value = Row> + Clone {
    let key = prop_oneof![1 => Just(None), 5 => (0..2i64).prop_map(Some)];
    let time = prop_oneof![1 => Just(None), 20 => (-60..120i64).prop_map(Some)];
    let value = prop_oneof![1 => Just(None), 5 => (-2..3i64).prop_map(Some)];
    (key, time, value).prop_map(|(k, t, v)| vec![int(k), int(t), int(v)])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn equals_cutting_anew(epochs in histories(rows(), true), heavy in any::<bool>()) {
        let mut operator = operator(&plan(heavy, false));
        let mut output = check(&mut operator, &input(), &epochs, |input| reference(heavy, input));
        let rest = step(&mut operator, &input(), &all_taken_back(&epochs), &mut Vec::new());
        add(&mut output, rest);
        prop_assert!(output.is_empty());
        prop_assert_eq!(operator.state().rows, 0);
    }

    #[test]
    fn equals_cutting_anew_append_only(epochs in appended(), heavy in any::<bool>()) {
        let mut operator = operator(&plan(heavy, true));
        check(&mut operator, &input(), &epochs, |input| reference(heavy, input));
    }

    #[test]
    fn batching_does_not_matter(epochs in histories(rows(), true), heavy in any::<bool>()) {
        let (mut one, mut other) = (operator(&plan(heavy, false)), operator(&plan(heavy, false)));
        for epoch in &epochs {
            let mut whole: Vec<_> = epoch.batches.concat();
            whole.reverse();
            let whole = Epoch { batches: vec![whole], watermark: NO_WATERMARK };
            let (mut a, mut b) = (Bag::new(), Bag::new());
            add(&mut a, step(&mut one, &input(), epoch, &mut Vec::new()));
            add(&mut b, step(&mut other, &input(), &whole, &mut Vec::new()));
            prop_assert_eq!(a, b);
        }
    }

    #[test]
    fn on_close_gives_final_sessions_once(
        epochs in appended(),
        (heavy, append_only, on_close) in any::<(bool, bool, bool)>(),
        advance in 1..60i64,
    ) {
        let closes = Some(Bound { column: 1, offset: 1 });
        let plan = SessionPlan { closes, on_close, ..plan(heavy, append_only) };
        let mut operator = operator(&plan);
        let (mut sum, mut output) = (Bag::new(), Bag::new());
        for epoch in in_time(epochs, advance) {
            add(&mut sum, epoch.batches.iter().flatten().cloned());
            add(&mut output, step(&mut operator, &input(), &epoch, &mut Vec::new()));
            let mut wanted = reference(heavy, &sum);
            if on_close {
                wanted.retain(|row, _| number(&row[2]).is_some_and(|end| end < epoch.watermark));
            }
            prop_assert_eq!(&output, &wanted);
            prop_assert!(!operator.due(epoch.watermark));
        }
        let end = Epoch { batches: vec![], watermark: i64::MAX };
        add(&mut output, step(&mut operator, &input(), &end, &mut Vec::new()));
        prop_assert_eq!(&output, &reference(heavy, &sum));
        prop_assert_eq!(operator.state().rows, 0);
    }
}

fn appended() -> impl Strategy<Value = Vec<Epoch>> {
    histories(rows(), false).prop_map(|mut epochs| {
        epochs.iter_mut().flat_map(|e| &mut e.batches).for_each(|b| b.retain(|(_, w)| *w > 0));
        epochs
    })
}

/// Gives the epochs rising watermarks and drops rows that are late.
fn in_time(mut epochs: Vec<Epoch>, advance: i64) -> Vec<Epoch> {
    let mut before = i64::MIN;
    for (i, epoch) in epochs.iter_mut().enumerate() {
        epoch.batches.iter_mut().for_each(|b| b.retain(|(row, _)| number(&row[1]).is_none_or(|t| t >= before)));
        epoch.watermark = i as i64 * advance - 50;
        before = epoch.watermark;
    }
    epochs
}

#[test]
fn a_row_at_the_end_still_belongs() {
    let mut operator = operator(&plan(false, true));
    let epoch = |times: &[i64]| {
        let rows = times.iter().map(|t| (vec![int(1), int(*t), int(0)], 1)).collect();
        Epoch { batches: vec![rows], watermark: NO_WATERMARK }
    };
    let out = step(&mut operator, &input(), &epoch(&[0, 11]), &mut Vec::new());
    assert_eq!(out.len(), 2);
    let out = step(&mut operator, &input(), &epoch(&[10]), &mut Vec::new());
    assert_eq!(out.len(), 3, "two sessions go, their union comes: {out:?}");
    assert_eq!(operator.state().rows, 1);
}

#[test]
fn times_without_an_end_are_errors() {
    let mut operator = operator(&plan(false, true));
    let rows = vec![(vec![int(1), int(i64::MAX), int(0)], 1)];
    let mut errors = Vec::new();
    let epoch = Epoch { batches: vec![rows], watermark: NO_WATERMARK };
    assert!(step(&mut operator, &input(), &epoch, &mut errors).is_empty());
    assert_eq!(errors.len(), 1);
}
