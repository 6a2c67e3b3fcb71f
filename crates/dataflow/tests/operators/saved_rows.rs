//! Operators whose state is rows, saved and loaded at any time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Int64Type, SchemaRef, TimestampMicrosecondType};
use proptest::prelude::*;
use tidemill_dataflow::{AsOf, CloseGate, Join, Operator, Over, Recompute, StepCx, TopN};
use tidemill_delta::{NO_WATERMARK, batch};
use tidemill_plan::{
    AsOfPlan, Bound, CloseGatePlan, Frame, FrameOffset, FrameUnits, JoinKind, JoinPlan, OrderBy, OverCall,
    OverFunction, OverPlan, Recompute as Query, RecomputePlan, Scalar, ScalarError, TopNPlan,
};

use crate::history::{Epoch, Row, TIME, Value, delta, histories, int, rows_of, schema};
use crate::saving::{Case, in_time, pauses, plain, run, without_retractions};

/// A key, a time, a number and a text.
fn input() -> SchemaRef {
    schema(&[("k", DataType::Int64), ("t", TIME), ("v", DataType::Int64), ("s", DataType::Utf8)])
}

fn rows() -> impl Strategy<Value = Row> + Clone {
    let null_or = |values: std::ops::Range<i64>| prop_oneof![1 => Just(int(None)), 6 => values.prop_map(int)];
    let text =
        prop_oneof![Just(Value::Null), Just(Value::Text("a".into())), Just(Value::Text("a longer text, as b".into()))];
    (null_or(0..4), null_or(-20..60), null_or(-3..4), text).prop_map(|(k, t, v, s)| vec![k, t, v, s])
}

/// Rows with equal times mostly meet.
fn near_rows() -> impl Strategy<Value = Row> + Clone {
    rows().prop_map(|mut row| {
        if let Value::Int(time) = &mut row[1] {
            *time = *time / 4 - 5;
        }
        row
    })
}

fn by(column: usize, descending: bool) -> OrderBy {
    OrderBy { column, options: SortOptions { descending, nulls_first: false } }
}

fn histories_of(retract: bool) -> BoxedStrategy<Vec<Epoch>> {
    let all = histories(rows(), retract);
    if retract { all } else { all.prop_map(without_retractions).boxed() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn first_rows(
        (append_only, epochs) in any::<bool>().prop_flat_map(|a| (Just(a), histories_of(!a))),
        (by_time, number, partition) in any::<(bool, bool, bool)>(),
        (offset, limit) in (0..3usize, 1..4usize),
        advance in 1..25i64,
        pauses in pauses(),
    ) {
        let closes = by_time.then_some(Bound { column: 1, offset: 3 });
        let mut keys = if partition { vec![0] } else { vec![] };
        keys.extend(by_time.then_some(1));
        let ties = offset == 0 && limit != 2;
        let order = vec![by(2, true)];
        let plan = TopNPlan { partition: keys.clone(), order, offset, limit, ties, number, append_only, closes };
        let mut columns = vec![("k", DataType::Int64), ("t", TIME), ("v", DataType::Int64), ("s", DataType::Utf8)];
        columns.extend(number.then_some(("n", DataType::Int64)));
        let make = || Box::new(TopN::new(&plan, &[input()], schema(&columns)).expect("a good plan")) as Box<dyn Operator>;
        let case = Case { make: &make, routes: vec![keys], delta: &plain(&input()) };
        run(&case, &[in_time(epochs, 1, 3, advance)], &pauses);
    }

    #[test]
    fn window_functions(
        epochs in histories_of(true),
        (kind, range, partition) in (0..3usize, any::<bool>(), any::<bool>()),
        advance in 1..25i64,
        pauses in pauses(),
    ) {
        let bound = Bound { column: 1, offset: 3 };
        let units = if range { FrameUnits::Range } else { FrameUnits::Rows };
        let frame = Frame { units, start: Some(FrameOffset::Whole(-6)), end: Some(FrameOffset::HERE) };
        let call = |function, arg, frame| OverCall { function, arg, filter: None, frame, data_type: DataType::Int64, label: "call".into() };
        let mut calls = vec![call(OverFunction::Sum, Some(2), frame), call(OverFunction::Count, None, frame)];
        let lag = OverFunction::Lag { offset: 2, default: None };
        calls.push(call(lag, Some(2), frame));
        if kind == 1 {
            let whole = Frame { units: FrameUnits::Rows, start: None, end: None };
            calls.push(call(OverFunction::Max, Some(2), whole));
        }
        let mut keys = if partition { vec![0] } else { vec![] };
        keys.extend((kind == 1).then_some(1));
        let (closes, evicts) = ((kind == 1).then_some(bound), (kind == 2).then_some(bound));
        let plan = OverPlan { partition: keys.clone(), order: vec![by(1, false)], calls, closes, evicts };
        let mut columns = vec![("k", DataType::Int64), ("t", TIME), ("v", DataType::Int64), ("s", DataType::Utf8)];
        columns.extend(plan.calls.iter().map(|_| ("c", DataType::Int64)));
        let make = || Box::new(Over::new(&plan, &input(), schema(&columns)).expect("a good plan")) as Box<dyn Operator>;
        let case = Case { make: &make, routes: vec![keys], delta: &plain(&input()) };
        run(&case, &[in_time(epochs, 1, 3, advance)], &pauses);
    }

    #[test]
    fn gates(epochs in histories_of(true), advance in 1..25i64, keyed in any::<bool>(), pauses in pauses()) {
        let plan = CloseGatePlan { closes: Bound { column: 1, offset: 3 } };
        let make = || Box::new(CloseGate::new(&plan, &[input()], input()).expect("a good plan")) as Box<dyn Operator>;
        let case = Case { make: &make, routes: vec![if keyed { vec![0] } else { vec![] }], delta: &plain(&input()) };
        run(&case, &[in_time(epochs, 1, 3, advance)], &pauses);
    }

    #[test]
    fn joins_by_time(
        (left, right) in (histories(near_rows(), true), histories(near_rows(), true)),
        (keyed, after, inclusive, outer, evict) in any::<(bool, bool, bool, bool, bool)>(),
        advance in 1..6i64,
        pauses in pauses(),
    ) {
        let keys = if keyed { vec![0] } else { vec![] };
        let evict = (evict && !after).then_some(1);
        let (mut left, mut right) = (left, right);
        if evict.is_some() {
            (left, right) = (without_retractions(left), without_retractions(right));
        }
        let plan = AsOfPlan {
            left_keys: keys.clone(), right_keys: keys.clone(), left_time: 1, right_time: 1, after, inclusive, outer, evict,
        };
        let both = || input().fields().iter().chain(input().fields()).cloned().collect::<Vec<_>>();
        let output: SchemaRef = Arc::new(arrow::datatypes::Schema::new(both()));
        let make = || Box::new(AsOf::new(&plan, [&input(), &input()], output.clone()).expect("a good plan")) as Box<dyn Operator>;
        let case = Case { make: &make, routes: vec![keys.clone(), keys.clone()], delta: &plain(&input()) };
        run(&case, &[in_time(left, 1, 1, advance), in_time(right, 1, 1, advance)], &pauses);
    }

    #[test]
    fn recomputations(
        (left, right) in (histories_of(true), histories_of(true)),
        (keyed, two) in any::<(bool, bool)>(),
        pauses in pauses(),
    ) {
        let inputs = if two { 2 } else { 1 };
        let keys = if keyed { vec![0] } else { vec![] };
        let plan = RecomputePlan { keys: vec![keys.clone(); inputs], query: Arc::new(Sums), label: "sums".into() };
        let make = || Box::new(Recompute::new(&plan, &vec![input(); inputs], sums()).expect("a good plan")) as Box<dyn Operator>;
        let case = Case { make: &make, routes: vec![keys.clone(); inputs], delta: &plain(&input()) };
        run(&case, &[left, right][..inputs], &pauses);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn joins(
        (left, right) in (histories(near_rows(), true), histories(near_rows(), true)),
        kind in prop::sample::select(&KINDS[..]),
        (filter, null_equals_null, keyed) in any::<(bool, bool, bool)>(),
        (evict_left, evict_right, append_left, append_right) in any::<(bool, bool, bool, bool)>(),
        advance in 1..8i64,
        pauses in pauses(),
    ) {
        let plan = JoinPlan {
            kind,
            left_keys: if keyed { vec![0] } else { vec![] },
            right_keys: if keyed { vec![0] } else { vec![] },
            null_equals_null,
            filter: filter.then(|| Arc::new(Near { columns: 4 }) as Arc<dyn Scalar>),
            append_only: [append_left, append_right],
            // What comes has times from the watermark on, and meets what is at most the distance before it.
            evict: [evict_left, evict_right].map(|evict| (evict && filter).then_some(Bound { column: 1, offset: DISTANCE + 1 })),
            project: if semi(kind) { vec![1, 2, 3] } else { vec![1, 2, 3, 5, 6, 7] },
        };
        let shape = |append_only, epochs| {
            let epochs = if append_only { without_retractions(epochs) } else { epochs };
            in_time(epochs, 1, 1, advance)
        };
        let (left, right) = (shape(append_left, left), shape(append_right, right));
        let columns = [("t", TIME), ("v", DataType::Int64), ("s", DataType::Utf8)];
        let output = if semi(kind) { schema(&columns) } else { schema(&[columns.clone(), columns].concat()) };
        let make = || Box::new(Join::new(&plan, [&input(), &input()], output.clone()).expect("a good plan")) as Box<dyn Operator>;
        let routes = vec![plan.left_keys.clone(), plan.right_keys.clone()];
        let case = Case { make: &make, routes, delta: &plain(&input()) };
        run(&case, &[left, right], &pauses);
    }
}

const KINDS: [JoinKind; 6] =
    [JoinKind::Inner, JoinKind::Left, JoinKind::Right, JoinKind::Full, JoinKind::LeftSemi, JoinKind::LeftAnti];

fn semi(kind: JoinKind) -> bool {
    matches!(kind, JoinKind::LeftSemi | JoinKind::LeftAnti)
}

/// How far apart the times of rows may be that match.
const DISTANCE: i64 = 2;

/// Whether the times of both sides are near each other.
#[derive(Debug)]
struct Near {
    columns: usize,
}

impl std::fmt::Display for Near {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("near")
    }
}

impl Scalar for Near {
    fn eval(&self, rows: &RecordBatch) -> Result<ArrayRef, ScalarError> {
        let time = |column: usize| rows.column(column).as_primitive::<TimestampMicrosecondType>();
        let pairs = time(1).iter().zip(time(1 + self.columns));
        let near = pairs.map(|(a, b)| Some((a? - b?).abs() <= DISTANCE));
        Ok(Arc::new(near.collect::<BooleanArray>()))
    }

    fn data_type(&self) -> &DataType {
        &DataType::Boolean
    }
}

fn sums() -> SchemaRef {
    schema(&[("k", DataType::Int64), ("n", DataType::Int64), ("v", DataType::Int64)])
}

/// The first key, the number of rows and the sum of v; no answer where it is 7.
#[derive(Debug)]
struct Sums;

impl Query for Sums {
    fn compute(&self, inputs: &[RecordBatch]) -> Result<RecordBatch, ScalarError> {
        let values = |rows: &RecordBatch| rows.column(2).as_primitive::<Int64Type>().iter().flatten().sum::<i64>();
        let sum: i64 = inputs.iter().map(values).sum();
        if sum == 7 {
            return Err(ScalarError::new("seven"));
        }
        let keys = inputs.iter().find(|rows| rows.num_rows() > 0).map(|rows| rows.column(0).slice(0, 1));
        let key = keys.unwrap_or_else(|| Arc::new(Int64Array::from(vec![None])));
        let count = inputs.iter().map(RecordBatch::num_rows).sum::<usize>() as i64;
        let number = |n: i64| Arc::new(Int64Array::from(vec![n])) as ArrayRef;
        Ok(batch(sums(), vec![key, number(count), number(sum)], 1))
    }
}

/// Rows that are dropped by the watermark are not what is left, and yet have matched.
#[test]
fn what_has_matched_stays_matched() {
    let plan = JoinPlan {
        kind: JoinKind::Left,
        left_keys: vec![0],
        right_keys: vec![0],
        null_equals_null: false,
        filter: None,
        append_only: [true, true],
        evict: [None, Some(Bound { column: 1, offset: 0 })],
        project: vec![2, 6],
    };
    let output = schema(&[("v", DataType::Int64), ("w", DataType::Int64)]);
    let make = || Join::new(&plan, [&input(), &input()], output.clone()).expect("a good plan");
    let row = |t: i64, v: i64| delta(&input(), &[(vec![int(1), int(t), int(v), Value::Null], 1)]);
    let mut errors = Vec::new();
    let mut join = make();
    let mut cx = StepCx { epoch: 0, round: 0, watermark: NO_WATERMARK, errors: &mut errors };
    join.step(&mut cx, &mut [vec![row(1, 10)], vec![row(1, 20)]]).expect("goes on");
    cx.watermark = 5;
    join.step(&mut cx, &mut [vec![], vec![]]).expect("goes on");
    let rows = join.rows().expect("rows");
    assert_eq!((rows[0].len(), rows[1].len()), (1, 0));
    let mut loaded = make();
    loaded.load(&mut cx, &mut rows.into_iter().map(|rows| vec![rows]).collect::<Vec<_>>()).expect("loads");
    let out = loaded.step(&mut cx, &mut [vec![], vec![row(9, 21)]]).expect("goes on");
    assert_eq!(out.len(), 1, "the row beside NULLs went long ago: {out:?}");
}

/// Loaded rows are dropped as early as if they had come one after the other.
#[test]
fn loaded_rows_are_dropped_in_parts() {
    let plan = JoinPlan {
        kind: JoinKind::Inner,
        left_keys: vec![0],
        right_keys: vec![0],
        null_equals_null: false,
        filter: None,
        append_only: [true, true],
        evict: [Some(Bound { column: 1, offset: 0 }), None],
        project: vec![2, 6],
    };
    let output = schema(&[("v", DataType::Int64), ("w", DataType::Int64)]);
    let mut join = Join::new(&plan, [&input(), &input()], output).expect("a good plan");
    let rows: Vec<(Row, i64)> = (0..100_000).map(|t| (vec![int(t % 7), int(t), int(t), Value::Null], 1)).collect();
    let mut errors = Vec::new();
    let mut cx = StepCx { epoch: 0, round: 0, watermark: 50_000, errors: &mut errors };
    join.load(&mut cx, &mut [vec![delta(&input(), &rows)], vec![]]).expect("loads");
    let left = join.state().rows;
    assert!((50_000..60_000).contains(&left), "{left} rows are left");
}

/// A row without a time is not dropped with those that came with it.
#[test]
fn rows_without_a_time_stay() {
    let plan = JoinPlan {
        kind: JoinKind::Left,
        left_keys: vec![0],
        right_keys: vec![0],
        null_equals_null: false,
        filter: None,
        append_only: [false, true],
        evict: [Some(Bound { column: 1, offset: 0 }), None],
        project: vec![2, 6],
    };
    let output = schema(&[("v", DataType::Int64), ("w", DataType::Int64)]);
    let mut join = Join::new(&plan, [&input(), &input()], output).expect("a good plan");
    let timeless = vec![int(1), int(None), int(7), Value::Null];
    let rows = [(vec![int(1), int(1), int(5), Value::Null], 1), (timeless.clone(), 1)];
    let mut errors = Vec::new();
    let mut cx = StepCx { epoch: 0, round: 0, watermark: 5, errors: &mut errors };
    join.step(&mut cx, &mut [vec![delta(&input(), &rows)], vec![]]).expect("goes on");
    assert_eq!(join.state().rows, 1);
    let out = join.step(&mut cx, &mut [vec![delta(&input(), &[(timeless, -1)])], vec![]]).expect("goes on");
    assert_eq!(out.iter().flat_map(rows_of).collect::<Vec<_>>(), [(vec![int(7), int(None)], -1)]);
}
