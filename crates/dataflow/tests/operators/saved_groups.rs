//! Aggregates and sessions, saved and loaded at any time, with calls of every kind.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch, UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use proptest::prelude::*;
use tidemill_dataflow::{Aggregate, Keeps, Operator, Session, StepCx};
use tidemill_delta::{Delta, NO_WATERMARK, batch};
use tidemill_plan::{
    AggregateCall, AggregateFunction, AggregatePlan, Bound, Recompute as Query, ScalarError, SessionPlan,
};

use crate::history::{Epoch, Row, TIME, Value, delta, histories, int, schema};
use crate::saving::{Case, in_time, pauses, run, sizes, through_bytes, without_retractions};

/// What histories have: a key, a time, a number, a text and a truth value.
fn drawn() -> SchemaRef {
    let number = DataType::Int64;
    schema(&[("k", number.clone()), ("t", TIME), ("v", number), ("s", DataType::Utf8), ("b", DataType::Boolean)])
}

/// What operators get: these, and the number and the text in other types; last the key as a float.
fn input() -> SchemaRef {
    let mut fields: Vec<_> = drawn().fields().iter().cloned().collect();
    let more = schema(&[
        ("float", DataType::Float64),
        ("decimal", DataType::Decimal128(20, 2)),
        ("unsigned", DataType::UInt64),
        ("day", DataType::Date32),
        ("small", DataType::Float32),
        ("view", DataType::Utf8View),
        ("float_key", DataType::Float64),
    ]);
    fields.extend(more.fields().iter().cloned());
    Arc::new(arrow::datatypes::Schema::new(fields))
}

const FLOATS: [f64; 8] = [0.1, -0.0, 0.0, 1e300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -7.25];

fn float(value: i64) -> f64 {
    FLOATS[value.rem_euclid(8) as usize]
}

fn make_delta(_input: usize, rows: &[(Row, i64)]) -> Delta {
    let drawn = delta(&drawn(), rows);
    let numbers = |column: usize| drawn.rows.column(column).as_primitive::<Int64Type>().iter();
    let floats: ArrayRef = Arc::new(numbers(2).map(|v| v.map(float)).collect::<Float64Array>());
    let decimals = numbers(2).map(|v| v.map(|v| i128::from(v) * 333)).collect::<Decimal128Array>();
    let mut columns = drawn.rows.columns().to_vec();
    columns.push(floats.clone());
    columns.push(Arc::new(decimals.with_precision_and_scale(20, 2).expect("fits")));
    columns.push(Arc::new(numbers(2).map(|v| v.map(|v| v.wrapping_add(100) as u64)).collect::<UInt64Array>()));
    columns.push(Arc::new(numbers(2).map(|v| v.map(|v| v as i32)).collect::<Date32Array>()));
    columns.push(cast(&floats, &DataType::Float32).expect("a float"));
    columns.push(cast(drawn.rows.column(3), &DataType::Utf8View).expect("a text"));
    columns.push(Arc::new(numbers(0).map(|k| k.map(float)).collect::<Float64Array>()));
    drawn.with_columns(input(), columns)
}

fn rows() -> impl Strategy<Value = Row> + Clone {
    let null_or = |values: std::ops::Range<i64>| prop_oneof![1 => Just(int(None)), 6 => values.prop_map(int)];
    let text = |text: &str| Value::Text(text.into());
    let texts = vec![Value::Null, text(""), text("b"), text("longer than twelve bytes")];
    let text = prop::sample::select(texts);
    (null_or(0..5), null_or(-20..60), null_or(-3..5), text, null_or(0..2))
        .prop_map(|(k, t, v, s, b)| vec![k, t, v, s, b])
}

/// All rows as a number, but none where it is odd.
#[derive(Debug)]
struct Digest;

impl Query for Digest {
    fn compute(&self, inputs: &[RecordBatch]) -> Result<RecordBatch, ScalarError> {
        let shown: Vec<String> = inputs[0].columns().iter().map(|column| format!("{column:?}")).collect();
        let digest = shown.concat().bytes().fold(7i64, |sum, b| (sum * 31 + i64::from(b)) % 1_000_003);
        if digest % 5 == 1 {
            return Err(ScalarError::new("odd"));
        }
        Ok(batch(schema(&[("d", DataType::Int64)]), vec![Arc::new(Int64Array::from(vec![digest]))], 1))
    }
}

fn call(function: AggregateFunction, args: &[usize], data_type: DataType) -> AggregateCall {
    let label = format!("{function:?} of {args:?}");
    AggregateCall { function, args: args.to_vec(), filter: None, distinct: false, data_type, label }
}

/// Every kind of call over every kind of argument.
fn all_calls() -> Vec<AggregateCall> {
    use AggregateFunction::{Avg, Bool, Count, FromRows, Max, Min, Sum, Variance};
    use DataType::{Boolean, Date32, Decimal128, Float32, Float64, Int64, UInt64, Utf8, Utf8View};
    let (v, s, b, float, decimal, unsigned, day, small, view) = (2, 3, 4, 5, 6, 7, 8, 9, 10);
    let mut calls = vec![
        call(Count, &[], Int64),
        call(Count, &[v], Int64),
        call(Sum, &[v], Int64),
        call(Sum, &[float], Float64),
        call(Sum, &[small], Float32),
        call(Sum, &[decimal], Decimal128(38, 2)),
        call(Sum, &[unsigned], UInt64),
        call(Avg, &[v], Float64),
        call(Avg, &[float], Float64),
        call(Avg, &[decimal], Decimal128(38, 6)),
        call(Variance { sample: true, root: false }, &[float], Float64),
        call(Variance { sample: false, root: true }, &[v], Float64),
        call(Bool { any: true }, &[b], Boolean),
        call(Bool { any: false }, &[b], Boolean),
        call(FromRows(Arc::new(Digest)), &[v], Int64),
        call(FromRows(Arc::new(Digest)), &[s, float], Int64),
        call(FromRows(Arc::new(Digest)), &[view], Int64),
    ];
    let extremes = [
        (v, Int64),
        (1, TIME),
        (s, Utf8),
        (float, Float64),
        (decimal, Decimal128(20, 2)),
        (unsigned, UInt64),
        (day, Date32),
        (small, Float32),
        (view, Utf8View),
        (b, Boolean),
    ];
    for (arg, data_type) in extremes {
        calls.push(call(Min, &[arg], data_type.clone()));
        calls.push(call(Max, &[arg], data_type));
    }
    let distinct = [
        call(Count, &[v], Int64),
        call(Count, &[s], Int64),
        call(Count, &[view, v], Int64),
        call(Sum, &[v], Int64),
        call(Sum, &[float], Float64),
        call(Avg, &[v], Float64),
        call(Variance { sample: false, root: false }, &[v], Float64),
        call(FromRows(Arc::new(Digest)), &[s], Int64),
        call(FromRows(Arc::new(Digest)), &[float], Int64),
    ];
    calls.extend(distinct.into_iter().map(|call| AggregateCall { distinct: true, ..call }));
    calls
}

fn some_calls() -> impl Strategy<Value = Vec<AggregateCall>> {
    let one = (prop::sample::select(all_calls()), prop::bool::weighted(0.3));
    let filtered = one.prop_map(|(call, filter)| AggregateCall { filter: filter.then_some(4), ..call });
    prop::collection::vec(filtered, 0..6)
}

fn aggregate(plan: &AggregatePlan) -> Aggregate {
    let keys = plan.keys.iter().map(|k| ("k", input().field(*k).data_type().clone()));
    let calls = plan.calls.iter().map(|call| ("c", call.data_type.clone()));
    Aggregate::new(plan, &input(), schema(&keys.chain(calls).collect::<Vec<_>>())).expect("a good plan")
}

fn check_aggregate(plan: &AggregatePlan, epochs: Vec<Epoch>, advance: i64, pauses: &[crate::saving::Pause]) {
    let make = || Box::new(aggregate(plan)) as Box<dyn Operator>;
    // Sometimes rows are routed by a part of the key.
    let route = plan.keys.iter().copied().take(if advance % 2 == 0 { 1 } else { 9 }).collect();
    let case = Case { make: &make, routes: vec![route], delta: &make_delta };
    run(&case, &[in_time(epochs, 1, 3, advance)], pauses);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn groups(
        (append_only, epochs) in any::<bool>().prop_flat_map(|append_only| (Just(append_only), histories(rows(), !append_only))),
        keys in prop::sample::select(vec![vec![], vec![0], vec![10], vec![11], vec![11, 3], vec![0, 1], vec![1, 10, 4]]),
        calls in some_calls(),
        on_close in any::<bool>(),
        advance in 1..25i64,
        pauses in pauses(),
    ) {
        let closes = keys.contains(&1).then_some(Bound { column: 1, offset: 3 });
        let epochs = if append_only { without_retractions(epochs) } else { epochs };
        let plan = AggregatePlan { keys, calls, append_only, closes, on_close: on_close && closes.is_some() };
        check_aggregate(&plan, epochs, advance, &pauses);
    }

    #[test]
    fn sessions(
        (append_only, epochs) in any::<bool>().prop_flat_map(|append_only| (Just(append_only), histories(rows(), !append_only))),
        keys in prop::sample::select(vec![vec![], vec![0], vec![11, 10]]),
        (light, closes, on_close) in any::<(bool, bool, bool)>(),
        calls in some_calls(),
        advance in 1..25i64,
        pauses in pauses(),
    ) {
        let mut calls = calls;
        if light {
            use AggregateFunction::{Bool, Count, Max, Min};
            calls.retain(|call| matches!(call.function, Count | Min | Max | Bool { .. }) && !call.distinct);
        }
        let epochs = if append_only { without_retractions(epochs) } else { epochs };
        let closes = closes.then_some(Bound { column: 1, offset: 1 });
        let on_close = on_close && closes.is_some();
        let plan = SessionPlan { keys: keys.clone(), time: 1, gap: 7, calls, append_only, closes, on_close };
        let named = keys.iter().map(|k| ("k", input().field(*k).data_type().clone()));
        let columns = named.chain([("s", TIME), ("e", TIME)]);
        let columns = columns.chain(plan.calls.iter().map(|call| ("c", call.data_type.clone()))).collect::<Vec<_>>();
        let make = || Box::new(Session::new(&plan, &[input()], schema(&columns)).expect("a good plan")) as Box<dyn Operator>;
        if light && append_only {
            prop_assert_eq!(make().keeps(), Keeps::Entries);
        }
        let case = Case { make: &make, routes: vec![keys], delta: &make_delta };
        run(&case, &[in_time(epochs, 1, 1, advance)], &pauses);
    }
}

/// Each call alone, so that none is left to chance.
#[test]
fn every_call() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for call in all_calls() {
        for append_only in [false, true] {
            for _ in 0..5 {
                use proptest::strategy::ValueTree;
                let all = (histories(rows(), true), pauses());
                let (epochs, pauses) = all.new_tree(&mut runner).expect("a history").current();
                let epochs = if append_only { without_retractions(epochs) } else { epochs };
                let plan = AggregatePlan {
                    keys: vec![0],
                    calls: vec![call.clone()],
                    append_only,
                    closes: None,
                    on_close: false,
                };
                check_aggregate(&plan, epochs, 3, &pauses);
            }
        }
    }
}

fn row(k: i64, t: i64, v: i64) -> Row {
    vec![int(k), int(t), int(v), Value::Text(format!("{}", v % 3)), int(1)]
}

fn feed(operator: &mut dyn Operator, rows: &[(Row, i64)], watermark: i64) {
    let mut errors = Vec::new();
    let mut cx = StepCx { epoch: 0, round: 0, watermark, errors: &mut errors };
    operator.step(&mut cx, &mut [vec![make_delta(0, rows)]]).expect("goes on");
}

/// An aggregate with three kinds of entries: groups, values of `min`, and distinct texts.
fn three_kinds() -> AggregatePlan {
    use AggregateFunction::{Count, Min, Sum};
    let count = AggregateCall { distinct: true, ..call(Count, &[3], DataType::Int64) };
    let calls = vec![call(Sum, &[2], DataType::Int64), call(Min, &[2], DataType::Int64), count];
    AggregatePlan { keys: vec![0], calls, append_only: false, closes: None, on_close: false }
}

#[test]
fn only_what_has_changed_is_saved() {
    let mut operator = aggregate(&three_kinds());
    let all: Vec<(Row, i64)> = (0..10_000).flat_map(|k| [(row(k, 0, 1), 1), (row(k, 0, 2), 1)]).collect();
    feed(&mut operator, &all, NO_WATERMARK);
    assert_eq!(sizes(&operator.entries(false).expect("saves")), [(10_000, 0), (20_000, 0), (20_000, 0)]);
    assert_eq!(sizes(&operator.entries(false).expect("saves")), [(0, 0); 3]);
    // A value that is there already, and a text that is not.
    feed(&mut operator, &[(row(77, 0, 1), 1), (row(77, 0, 3), 1)], NO_WATERMARK);
    assert_eq!(sizes(&operator.entries(false).expect("saves")), [(1, 0), (3, 0), (2, 0)]);
    assert_eq!(sizes(&operator.entries(true).expect("saves")), [(10_000, 0), (20_001, 0), (20_001, 0)]);
    assert_eq!(sizes(&operator.entries(false).expect("saves")), [(0, 0); 3]);
}

#[test]
fn groups_that_go_are_gone_once() {
    let mut operator = aggregate(&three_kinds());
    let (come, go) = ([(row(1, 0, 1), 1), (row(2, 0, 1), 1)], [(row(1, 0, 1), -1)]);
    feed(&mut operator, &come, NO_WATERMARK);
    operator.entries(false).expect("saves");
    feed(&mut operator, &go, NO_WATERMARK);
    assert_eq!(sizes(&operator.entries(false).expect("saves")), [(0, 1); 3]);
    // What comes and goes between two saves was never there.
    feed(&mut operator, &come[..1], NO_WATERMARK);
    feed(&mut operator, &go, NO_WATERMARK);
    assert_eq!(sizes(&operator.entries(false).expect("saves")), [(0, 0); 3]);
    // What goes and comes again has changed, and is not gone.
    feed(&mut operator, &[(row(2, 0, 1), -1)], NO_WATERMARK);
    feed(&mut operator, &[(row(3, 0, 1), 1)], NO_WATERMARK);
    feed(&mut operator, &[(row(2, 0, 1), 1)], NO_WATERMARK);
    assert_eq!(sizes(&operator.entries(false).expect("saves")), [(2, 0); 3]);
}

/// The last row that counts for a set, and the last value, may go while the group stays.
#[test]
fn groups_may_lose_all_their_values() {
    let mut operator = aggregate(&three_kinds());
    let nulls = vec![int(1), int(0), Value::Null, Value::Text("0".into()), int(1)];
    feed(&mut operator, &[(row(1, 0, 1), 1), (nulls, 1)], NO_WATERMARK);
    assert_eq!(sizes(&operator.entries(false).expect("saves")), [(1, 0), (1, 0), (2, 0)]);
    feed(&mut operator, &[(row(1, 0, 1), -1)], NO_WATERMARK);
    assert_eq!(sizes(&operator.entries(false).expect("saves")), [(1, 0), (0, 1), (0, 1)]);
}

#[test]
fn windows_that_close_between_saves_leave_nothing() {
    let plan = AggregatePlan { keys: vec![0, 1], closes: Some(Bound { column: 1, offset: 0 }), ..three_kinds() };
    let mut operator = aggregate(&plan);
    operator.entries(false).expect("saves");
    let empty = operator.state().bytes;
    for t in 0..1000 {
        let rows: Vec<_> = (0..10).map(|k| (row(k, t, 1), 1)).collect();
        feed(&mut operator, &rows, t);
    }
    assert_eq!(operator.state().rows, 0);
    assert!(operator.state().bytes < empty + 10_000, "{} bytes", operator.state().bytes);
    assert_eq!(sizes(&operator.entries(false).expect("saves")), [(0, 0); 3]);
}

#[test]
fn the_only_group_is_there_again() {
    let mut operator = aggregate(&AggregatePlan { keys: vec![], ..three_kinds() });
    assert!(operator.wants_start());
    let before = operator.entries(false).expect("saves");
    assert_eq!(sizes(&before), [(0, 0); 3]);
    feed(&mut operator, &[], NO_WATERMARK);
    let entries = operator.entries(false).expect("saves");
    assert_eq!(sizes(&entries), [(1, 0), (0, 1), (0, 0)]);
    let mut loaded = aggregate(&AggregatePlan { keys: vec![], ..three_kinds() });
    let mut saved: Vec<_> = entries.into_iter().map(|e| vec![Delta::inserts(e.rows)]).collect();
    let mut errors = Vec::new();
    loaded.load(&mut StepCx { epoch: 0, round: 0, watermark: 0, errors: &mut errors }, &mut saved).expect("loads");
    assert!(!loaded.wants_start());
}

/// Sums of 128 bits, and state of another plan.
#[test]
fn sums_are_saved_whole_and_other_state_is_refused() {
    let plan = |function, data_type| AggregatePlan { calls: vec![call(function, &[2], data_type)], ..three_kinds() };
    let mut operator = aggregate(&plan(AggregateFunction::Sum, DataType::Int64));
    feed(&mut operator, &[(row(1, 0, 1), 1), (row(1, 0, i64::MAX), i64::MAX - 1)], NO_WATERMARK);
    let entries = operator.entries(true).expect("saves");
    let saved = || entries.iter().map(|e| vec![Delta::inserts(e.rows.clone())]).collect::<Vec<_>>();
    let widest: ArrayRef = Arc::new(Decimal128Array::from(vec![i128::MIN, i128::MAX]));
    let widest = Delta::inserts(batch(schema(&[("d", widest.data_type().clone())]), vec![widest], 2));
    assert_eq!(through_bytes(&widest).rows, widest.rows, "sums may have all bits that there are");
    let mut errors = Vec::new();
    let mut cx = StepCx { epoch: 0, round: 0, watermark: NO_WATERMARK, errors: &mut errors };
    let mut loaded = aggregate(&plan(AggregateFunction::Sum, DataType::Int64));
    loaded.load(&mut cx, &mut saved()).expect("loads");
    assert_eq!(loaded.entries(true).expect("saves")[0].rows, entries[0].rows);
    let mut other = aggregate(&plan(AggregateFunction::Variance { sample: true, root: false }, DataType::Float64));
    assert!(other.load(&mut cx, &mut saved()).is_err());
    let mut twice = saved();
    let again = twice[0][0].clone();
    twice[0].push(again);
    assert!(aggregate(&plan(AggregateFunction::Sum, DataType::Int64)).load(&mut cx, &mut twice).is_err());
}
