//! Windows against counting through all of them.

use std::sync::Arc;

use crate::history::{Bag, Epoch, Row, TIME, Value, add, check, histories, int, step};
use arrow::array::{ArrayRef, AsArray, TimestampMillisecondArray, TimestampNanosecondArray};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit, TimestampMillisecondType};
use proptest::prelude::*;
use tidemill_dataflow::{Operator, StepCx, Window};
use tidemill_delta::{Delta, NO_WATERMARK, batch};
use tidemill_plan::WindowPlan;

fn input() -> SchemaRef {
    crate::history::schema(&[("t", TIME), ("v", DataType::Int64)])
}

fn window(plan: &WindowPlan) -> Window {
    let output = [("t", TIME), ("v", DataType::Int64), ("window_start", TIME), ("window_end", TIME)];
    Window::new(plan, &[input()], crate::history::schema(&output)).expect("a good plan")
}

fn reference(plan: &WindowPlan, input: &Bag) -> Bag {
    let mut out = Bag::new();
    for (row, n) in input {
        let Value::Int(time) = row[0] else { continue };
        let windows = (-200..200i64).map(|i| plan.origin + i * plan.slide);
        let windows = windows.filter(|start| *start <= time && time < start + plan.size);
        add(
            &mut out,
            windows.map(|start| {
                let mut row: Row = row.clone();
                row.extend([Value::Int(start), Value::Int(start + plan.size)]);
                (row, *n)
            }),
        );
    }
    out
}

fn rows() -> impl Strategy<Value = Row> + Clone {
    let time = prop_oneof![1 => Just(None), 9 => (-50..50i64).prop_map(Some)];
    (time, 0..3i64).prop_map(|(t, v)| vec![int(t), int(v)])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn equals_counting_through_windows(
        epochs in histories(rows(), true).prop_map(net),
        size in 1..15i64,
        slide in 1..15i64,
        origin in -20..20i64,
    ) {
        let plan = WindowPlan { time: 0, size, slide, origin, panes: false };
        check(&mut window(&plan), &input(), &epochs, |input| reference(&plan, input));
    }

    /// What is left when the times are not read is the same, in no more rows.
    #[test]
    fn panes_add_up_to_the_same(epochs in histories(rows(), true), slide in 1..15i64, times in 1..6i64, origin in -20..20i64) {
        let plan = WindowPlan { time: 0, size: slide * times, slide, origin, panes: false };
        let (mut plain, mut merging) = (window(&plan), window(&WindowPlan { panes: true, ..plan }));
        for epoch in &epochs {
            let (plain, plain_rows) = without_times(&mut plain, epoch);
            let (merged, merged_rows) = without_times(&mut merging, epoch);
            prop_assert_eq!(plain, merged);
            prop_assert!(merged_rows <= plain_rows);
        }
    }
}

/// An epoch's output without its first column, and how many rows listed it.
fn without_times(window: &mut Window, epoch: &Epoch) -> (Bag, usize) {
    let deltas = epoch.batches.iter().map(|rows| crate::history::delta(&input(), rows)).collect();
    let mut errors = Vec::new();
    let mut cx = StepCx { epoch: 0, round: 0, watermark: epoch.watermark, errors: &mut errors };
    let out = window.step(&mut cx, &mut [deltas]).expect("goes on");
    let mut bag = Bag::new();
    add(&mut bag, out.iter().flat_map(crate::history::rows_of).map(|(row, n)| (row[1..].to_vec(), n)));
    (bag, out.iter().map(Delta::len).sum())
}

/// A row-wise operator's output is net where its input is.
fn net(mut epochs: Vec<Epoch>) -> Vec<Epoch> {
    for epoch in &mut epochs {
        let mut bag = Bag::new();
        add(&mut bag, epoch.batches.concat());
        epoch.batches = crate::history::cut(bag.into_iter().collect(), 7, 2);
    }
    epochs
}

#[test]
fn windows_out_of_range_are_errors() {
    let plan = WindowPlan { time: 0, size: 10, slide: 5, origin: 0, panes: false };
    let mut errors = Vec::new();
    let times = [i64::MIN, i64::MIN + 9, i64::MAX - 20, i64::MAX - 1, i64::MAX];
    let rows = times.iter().map(|t| (vec![int(*t), int(1)], 2)).collect();
    let out = step(&mut window(&plan), &input(), &Epoch { batches: vec![rows], watermark: NO_WATERMARK }, &mut errors);
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert!(errors.iter().all(|e| e.weight == 2));
    assert_eq!(out.len(), 4);
}

fn one_column(unit: TimeUnit, column: ArrayRef) -> (Window, Delta) {
    let time = DataType::Timestamp(unit, None);
    let plan = WindowPlan { time: 0, size: 2_000, slide: 1_000, origin: 0, panes: false };
    let input = crate::history::schema(&[("t", time.clone())]);
    let output = crate::history::schema(&[("t", time.clone()), ("s", time.clone()), ("e", time)]);
    let window = Window::new(&plan, std::slice::from_ref(&input), output).expect("a good plan");
    let len = column.len();
    (window, Delta::inserts(batch(input, vec![column], len)))
}

fn run(window: &mut Window, delta: Delta) -> Delta {
    let mut errors = Vec::new();
    let mut cx = StepCx { epoch: 1, round: 0, watermark: NO_WATERMARK, errors: &mut errors };
    window.step(&mut cx, &mut [vec![delta]]).expect("goes on").remove(0)
}

#[test]
fn other_units() {
    let (mut window, delta) = one_column(TimeUnit::Millisecond, Arc::new(TimestampMillisecondArray::from(vec![-1, 0])));
    let out = run(&mut window, delta);
    let starts = out.rows.column(1).as_primitive::<TimestampMillisecondType>();
    assert_eq!(starts.values(), &[-2, -1, -1, 0]);
    let (mut window, delta) = one_column(TimeUnit::Nanosecond, Arc::new(TimestampNanosecondArray::from(vec![-1])));
    assert_eq!(run(&mut window, delta).len(), 2);
    let time = DataType::Timestamp(TimeUnit::Second, None);
    let plan = WindowPlan { time: 0, size: 1_500_000, slide: 1_500_000, origin: 0, panes: false };
    let schema = crate::history::schema(&[("t", time)]);
    assert!(Window::new(&plan, std::slice::from_ref(&schema), schema.clone()).is_err(), "seconds cannot express 1.5 s");
}
