//! Window functions against a reference that looks at every row of the partition for every row.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, SchemaRef};
use proptest::prelude::*;
use proptest::sample::select;
use tidemill_dataflow::{Operator, Over, RowError, StepCx};
use tidemill_delta::NO_WATERMARK;
use tidemill_plan::{Bound, Frame, FrameOffset, FrameUnits, OrderBy, OverCall, OverFunction, OverPlan};

use crate::history::{Bag, Epoch, Row, TIME, Value, add, all_taken_back, check, delta, float, histories, int, step};

const COLUMNS: [(&str, DataType); 4] =
    [("k", DataType::Int64), ("o", DataType::Int64), ("v", DataType::Int64), ("f", DataType::Boolean)];

fn input() -> SchemaRef {
    crate::history::schema(&COLUMNS)
}

fn output(plan: &OverPlan) -> SchemaRef {
    let calls = plan.calls.iter().map(|call| ("c", call.data_type.clone()));
    crate::history::schema(&COLUMNS.iter().cloned().chain(calls).collect::<Vec<_>>())
}

fn operator(plan: &OverPlan) -> Over {
    Over::new(plan, &input(), output(plan)).expect("a good plan")
}

const PEERS: Frame = Frame { units: FrameUnits::Range, start: None, end: Some(FrameOffset::HERE) };

fn call(function: OverFunction, frame: Frame, filter: bool) -> OverCall {
    use OverFunction::{Avg, Count, CumeDist, FirstValue, Lag, LastValue, Max, Min, NthValue, PercentRank, Sum};
    let aggregate = matches!(function, Count | Sum | Avg | Min | Max);
    let with_arg = aggregate || matches!(function, Lag { .. } | FirstValue | LastValue | NthValue(_));
    let arg = with_arg.then_some(if matches!(function, Avg) { 4 } else { 2 });
    let data_type = match &function {
        PercentRank | CumeDist => DataType::Float64,
        _ if with_arg => DataType::Int64,
        _ => DataType::UInt64,
    };
    // Averages of integers are planned over floats; here the sum of the same frame stands for them.
    let (function, arg) = if matches!(function, Avg) { (Sum, Some(2)) } else { (function, arg) };
    OverCall { function, arg, filter: (aggregate && filter).then_some(3), frame, data_type, label: "call".into() }
}

fn functions() -> impl Strategy<Value = OverFunction> {
    let default = prop_oneof![Just(None), Just(Some(Arc::new(Int64Array::from(vec![77])) as ArrayRef))];
    prop_oneof![
        Just(OverFunction::RowNumber),
        Just(OverFunction::Rank),
        Just(OverFunction::DenseRank),
        Just(OverFunction::PercentRank),
        Just(OverFunction::CumeDist),
        (1..5u64).prop_map(OverFunction::Ntile),
        (-3..4i64, default).prop_map(|(offset, default)| OverFunction::Lag { offset, default }),
        Just(OverFunction::FirstValue),
        Just(OverFunction::LastValue),
        (1..4usize).prop_map(OverFunction::NthValue),
        Just(OverFunction::Count),
        Just(OverFunction::Sum),
        Just(OverFunction::Min),
        Just(OverFunction::Max),
    ]
}

fn frames() -> impl Strategy<Value = Frame> {
    let units = select(&[FrameUnits::Rows, FrameUnits::Rows, FrameUnits::Range, FrameUnits::Groups][..]);
    let bound = || prop_oneof![1 => Just(None), 4 => (-3..4i64).prop_map(|by| Some(FrameOffset::Whole(by)))];
    prop_oneof![1 => Just(PEERS), 5 => (units, bound(), bound()).prop_map(|(units, start, end)| Frame { units, start, end })]
}

fn plans() -> impl Strategy<Value = OverPlan> {
    let calls = prop::collection::vec((functions(), frames(), any::<bool>()), 1..4);
    let options = (any::<bool>(), any::<bool>());
    (calls, any::<bool>(), options, 0..4usize).prop_map(|(calls, partition, (descending, nulls_first), by)| {
        let options = SortOptions { descending, nulls_first };
        // Mostly one column, sometimes none, sometimes two.
        let order: Vec<_> = match by {
            0 => vec![],
            1 => vec![OrderBy { column: 1, options }, OrderBy { column: 2, options: SortOptions::default() }],
            _ => vec![OrderBy { column: 1, options }],
        };
        let calls = calls.into_iter().map(|(function, mut frame, filter)| {
            if frame.units == FrameUnits::Range && order.len() != 1 {
                frame = PEERS;
            }
            call(function, frame, filter)
        });
        OverPlan {
            partition: if partition { vec![0] } else { vec![] },
            calls: calls.collect(),
            order,
            closes: None,
            evicts: None,
        }
    })
}

/// Plans in which frames begin with the partition and end with the row, beside functions that look at some rows only.
fn running_plans() -> impl Strategy<Value = OverPlan> {
    use OverFunction::{Count, DenseRank, LastValue, Max, Min, Rank, RowNumber, Sum};
    let running = |units| Frame { units, start: None, end: Some(FrameOffset::HERE) };
    let frames = [PEERS, running(FrameUnits::Rows), running(FrameUnits::Groups), rows_frame(-2, 0)];
    let functions = prop_oneof![
        3 => select(vec![RowNumber, Rank, DenseRank, Count, Sum, Min, Max]),
        1 => (-2..3i64).prop_map(|offset| OverFunction::Lag { offset, default: None }),
        1 => Just(LastValue),
    ];
    let calls = prop::collection::vec((functions, select(frames.to_vec()), any::<bool>()), 1..4);
    (calls, any::<bool>(), any::<bool>()).prop_map(|(calls, partition, descending)| {
        let calls = calls.into_iter().map(|(function, frame, filter)| match function {
            // With a frame from the partition's start it would have to know all rows.
            LastValue => call(LastValue, rows_frame(-1, 0), false),
            function => call(function, frame, filter),
        });
        let options = SortOptions { descending, nulls_first: false };
        OverPlan {
            partition: if partition { vec![0] } else { vec![] },
            calls: calls.collect(),
            order: vec![OrderBy { column: 1, options }],
            closes: None,
            evicts: None,
        }
    })
}

/// `u`, `v` by the columns of the ORDER BY.
fn by_order(order: &[OrderBy], u: &Row, v: &Row) -> Ordering {
    let by = |by: &OrderBy| {
        let (a, b) = (&u[by.column], &v[by.column]);
        let nulls = match (*a == Value::Null, *b == Value::Null) {
            (true, true) => return Ordering::Equal,
            (true, false) => Some(Ordering::Less),
            (false, true) => Some(Ordering::Greater),
            _ => None,
        };
        match nulls {
            Some(nulls) if by.options.nulls_first => nulls,
            Some(nulls) => nulls.reverse(),
            None if by.options.descending => b.cmp(a),
            None => a.cmp(b),
        }
    };
    order.iter().map(by).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
}

/// Whether row `j` is in the frame of row `i`, as the standard words it.
fn in_frame(plan: &OverPlan, frame: &Frame, rows: &[Row], i: usize, j: usize) -> bool {
    let peers = |a: usize, b: usize| by_order(&plan.order, &rows[a], &rows[b]).is_eq();
    let whole = |offset: FrameOffset| match offset {
        FrameOffset::Whole(by) => by,
        FrameOffset::Float(_) => unreachable!("not in these tests"),
    };
    let group = |row: usize| (1..=row).filter(|r| !peers(*r - 1, *r)).count() as i64;
    // Distance from i to j in the frame's units, positive when j comes after i; none: not comparable.
    let distance = |offset: FrameOffset| match frame.units {
        FrameUnits::Rows => Some(j as i64 - i as i64),
        FrameUnits::Groups => Some(group(j) - group(i)),
        FrameUnits::Range if offset.is_here() => Some(if peers(i, j) { 0 } else { j as i64 - i as i64 }),
        FrameUnits::Range => {
            let sign = if plan.order[0].options.descending { -1 } else { 1 };
            match (&rows[i][1], &rows[j][1]) {
                (Value::Int(a), Value::Int(b)) => Some(sign * (b - a)),
                _ => None,
            }
        }
    };
    // A NULL is near NULLs only, and as far from all else as can be.
    let far = || if peers(i, j) { None } else { Some(j as i64 > i as i64) };
    let after_start = frame.start.is_none_or(|offset| match distance(offset) {
        Some(distance) => distance >= whole(offset),
        None => far().unwrap_or(true),
    });
    let before_end = frame.end.is_none_or(|offset| match distance(offset) {
        Some(distance) => distance <= whole(offset),
        None => far().is_none_or(|after| !after),
    });
    after_start && before_end
}

fn value(plan: &OverPlan, call: &OverCall, rows: &[Row], i: usize) -> Value {
    let n = rows.len();
    let peers = |a: usize, b: usize| by_order(&plan.order, &rows[a], &rows[b]).is_eq();
    let first = (0..n).find(|j| peers(*j, i)).expect("the row itself");
    let last = (0..n).rev().find(|j| peers(*j, i)).expect("the row itself");
    let arg = |j: usize| call.arg.map_or(Value::Null, |a| rows[j][a].clone());
    let framed: Vec<usize> = (0..n).filter(|j| in_frame(plan, &call.frame, rows, i, *j)).collect();
    let nth = |place: Option<&usize>| place.map_or(Value::Null, |j| arg(*j));
    let passing = framed.iter().filter(|j| call.filter.is_none_or(|f| rows[**j][f] == int(1)));
    let values: Vec<i64> = passing.filter_map(|j| if let Value::Int(v) = arg(*j) { Some(v) } else { None }).collect();
    match &call.function {
        OverFunction::RowNumber => int(i as i64 + 1),
        OverFunction::Rank => int(first as i64 + 1),
        OverFunction::DenseRank => int((0..first).filter(|j| !peers(*j, *j + 1)).count() as i64 + 1),
        OverFunction::PercentRank => float(if n == 1 { 0.0 } else { first as f64 / (n as f64 - 1.0) }),
        OverFunction::CumeDist => float((last as f64 + 1.0) / n as f64),
        OverFunction::Ntile(buckets) => {
            // Buckets of n / buckets rows, the first n % buckets of them one larger.
            let sizes = (0..*buckets as usize).map(|b| n / *buckets as usize + usize::from(b < n % *buckets as usize));
            let ends = sizes.scan(0, |sum, size| {
                *sum += size;
                Some(*sum)
            });
            int(ends.take_while(|end| *end <= i).count() as i64 + 1)
        }
        OverFunction::Lag { offset, default } => match usize::try_from(i as i64 - offset) {
            Ok(j) if j < n => arg(j),
            _ => int(default.as_ref().map(|_| 77)),
        },
        OverFunction::FirstValue => nth(framed.first()),
        OverFunction::LastValue => nth(framed.last()),
        OverFunction::NthValue(place) => nth(framed.get(place - 1)),
        OverFunction::Count => int(values.len() as i64),
        OverFunction::Min => int(values.into_iter().min()),
        OverFunction::Max => int(values.into_iter().max()),
        OverFunction::Sum if values.is_empty() => Value::Null,
        OverFunction::Sum => int(values.iter().sum::<i64>()),
        OverFunction::Avg => unreachable!("not in these tests"),
    }
}

fn reference(plan: &OverPlan, input: &Bag) -> Bag {
    let mut partitions: BTreeMap<Value, Vec<Row>> = BTreeMap::new();
    for (row, n) in input {
        let key = if plan.partition.is_empty() { Value::Null } else { row[0].clone() };
        partitions.entry(key).or_default().extend(std::iter::repeat_n(row.clone(), *n as usize));
    }
    let mut out = Bag::new();
    for mut rows in partitions.into_values() {
        rows.sort_by(|a, b| by_order(&plan.order, a, b).then_with(|| a.cmp(b)));
        let whole = (0..rows.len()).map(|i| {
            let values = plan.calls.iter().map(|call| value(plan, call, &rows, i));
            (rows[i].iter().cloned().chain(values).collect(), 1)
        });
        add(&mut out, whole.collect::<Vec<_>>());
    }
    out
}

fn rows() -> impl Strategy<Value = Row> + Clone {
    let null_or = |values: std::ops::Range<i64>| prop_oneof![1 => Just(int(None)), 5 => values.prop_map(int)];
    (null_or(0..2), null_or(-4..5), null_or(-3..4), null_or(0..2)).prop_map(|(k, o, v, f)| vec![k, o, v, f])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn equals_looking_at_every_row(epochs in histories(rows(), true), plan in plans()) {
        let mut operator = operator(&plan);
        let mut sum = check(&mut operator, &input(), &epochs, |input| reference(&plan, input));
        add(&mut sum, step(&mut operator, &input(), &all_taken_back(&epochs), &mut Vec::new()));
        prop_assert!(sum.is_empty());
        prop_assert_eq!(operator.state().rows, 0);
        prop_assert_eq!(operator.recomputations(), 0);
    }

    /// In tests what is before a row is remembered every few rows.
    #[test]
    fn running_frames_go_on_from_what_is_remembered(epochs in histories(rows(), true), plan in running_plans()) {
        let mut operator = operator(&plan);
        let mut sum = check(&mut operator, &input(), &epochs, |input| reference(&plan, input));
        add(&mut sum, step(&mut operator, &input(), &all_taken_back(&epochs), &mut Vec::new()));
        prop_assert!(sum.is_empty());
    }

    #[test]
    fn batching_does_not_matter(epochs in histories(rows(), true), plan in plans()) {
        let (mut one, mut other) = (operator(&plan), operator(&plan));
        let (mut a, mut b) = (Bag::new(), Bag::new());
        let everything: Vec<_> = epochs.iter().flat_map(|epoch| epoch.batches.concat()).collect();
        for epoch in &epochs {
            add(&mut a, step(&mut one, &input(), epoch, &mut Vec::new()));
        }
        let whole = Epoch { batches: vec![everything], watermark: NO_WATERMARK };
        add(&mut b, step(&mut other, &input(), &whole, &mut Vec::new()));
        prop_assert_eq!(a, b);
    }
}

fn plan(calls: Vec<OverCall>) -> OverPlan {
    let order = vec![OrderBy { column: 1, options: SortOptions::default() }];
    OverPlan { partition: vec![0], order, calls, closes: None, evicts: None }
}

fn row(k: i64, o: i64, v: i64) -> Row {
    vec![int(k), int(o), int(v), int(1)]
}

fn rows_frame(start: i64, end: i64) -> Frame {
    Frame { units: FrameUnits::Rows, start: Some(FrameOffset::Whole(start)), end: Some(FrameOffset::Whole(end)) }
}

/// Many rows, changes far apart: only the rows near them come out again.
#[test]
fn bounded_frames_touch_what_is_near() {
    let range = Frame { units: FrameUnits::Range, ..rows_frame(-30, 0) };
    for frame in [rows_frame(-3, 0), range] {
        let plan = plan(vec![call(OverFunction::Sum, frame, false)]);
        let mut operator = operator(&plan);
        let all: Vec<_> = (0..1200).map(|i| (row(0, i * 10, i), 1)).collect();
        let epoch = Epoch { batches: vec![all], watermark: NO_WATERMARK };
        let mut input_bag = Bag::new();
        add(&mut input_bag, epoch.batches.concat());
        let mut sum = Bag::new();
        add(&mut sum, step(&mut operator, &input(), &epoch, &mut Vec::new()));
        let changes = vec![(row(0, 5_000, 500), -1), (row(0, 8_005, 7), 1), (row(0, 11_990, 1199), -1)];
        let epoch = Epoch { batches: vec![changes.clone()], watermark: NO_WATERMARK };
        let out = step(&mut operator, &input(), &epoch, &mut Vec::new());
        // One row goes and three others change; one comes and three others change; the last one goes.
        assert_eq!(out.len(), (1 + 2 * 3) + (1 + 2 * 3) + 1);
        add(&mut input_bag, changes);
        add(&mut sum, out);
        assert_eq!(sum, reference(&plan, &input_bag));
    }
}

/// A sum beyond 64 bits is NULL, reported once, and taken back when it fits again.
#[test]
fn sums_out_of_range_are_reported() {
    let mut operator = operator(&plan(vec![call(OverFunction::Sum, rows_frame(-1, 0), false)]));
    let mut run = |rows: Vec<(Row, i64)>| {
        let mut errors: Vec<RowError> = Vec::new();
        let mut cx = StepCx { epoch: 0, round: 0, watermark: NO_WATERMARK, errors: &mut errors };
        let out = operator.step(&mut cx, &mut [vec![delta(&input(), &rows)]]).expect("it goes on");
        let mut bag = Bag::new();
        add(&mut bag, out.iter().flat_map(crate::history::rows_of));
        (bag, errors)
    };
    let (out, errors) = run(vec![(row(0, 1, i64::MAX), 1), (row(0, 2, 5), 1), (row(0, 9, 6), 1)]);
    assert!(out.contains_key(&vec![int(0), int(2), int(5), int(1), Value::Null]));
    assert_eq!(errors.iter().map(|e| e.weight).collect::<Vec<_>>(), [1]);
    assert!(errors[0].message.contains("out of range"), "{errors:?}");
    let (_, errors) = run(vec![(row(0, 9, 6), -1)]);
    assert!(errors.is_empty(), "what stays wrong is not told again: {errors:?}");
    let (out, errors) = run(vec![(row(0, 1, i64::MAX), -1)]);
    assert_eq!(out.get(&vec![int(0), int(2), int(5), int(1), int(5)]), Some(&1));
    assert_eq!(errors.iter().map(|e| e.weight).collect::<Vec<_>>(), [-1]);
}

#[test]
fn final_partitions_are_forgotten() {
    let columns = [("w", TIME), ("o", DataType::Int64), ("v", DataType::Int64), ("f", DataType::Boolean)];
    let schema = crate::history::schema(&columns);
    let mut plan = plan(vec![call(OverFunction::RowNumber, PEERS, false)]);
    plan.closes = Some(Bound { column: 0, offset: 0 });
    let out = crate::history::schema(&[&columns[..], &[("n", DataType::UInt64)]].concat());
    let mut operator = Over::new(&plan, &schema, out).expect("a good plan");
    let rows = (0..10).map(|i| (row(i / 2 * 10, i, i), 1)).collect();
    let out = step(&mut operator, &schema, &Epoch { batches: vec![rows], watermark: 5 }, &mut Vec::new());
    assert_eq!(out.len(), 10);
    assert_eq!(operator.state().rows, 8, "the window that ends at 0 is final");
    assert!(!operator.due(9) && operator.due(10));
    assert!(step(&mut operator, &schema, &Epoch { batches: vec![], watermark: 40 }, &mut Vec::new()).is_empty());
    assert_eq!(operator.state().rows, 0);
    assert!(!operator.due(i64::MAX));
}

/// Rows of a stream, each at most so late that the watermark has not passed it; forgotten are those that no frame reaches.
#[test]
fn rows_out_of_reach_are_forgotten() {
    let columns = [("k", DataType::Int64), ("o", TIME), ("v", DataType::Int64), ("f", DataType::Boolean)];
    let schema = crate::history::schema(&columns);
    let out = crate::history::schema(&[&columns[..], &[("n", DataType::Int64)]].concat());
    let range = Frame { units: FrameUnits::Range, ..rows_frame(-20, 0) };
    for (frame, most, rest) in [(rows_frame(-2, 0), 20, 4), (range, 26, 0)] {
        let mut plan = plan(vec![call(OverFunction::Sum, frame, false)]);
        plan.evicts = Some(Bound { column: 1, offset: 1 });
        let mut operator = Over::new(&plan, &schema, out.clone()).expect("a good plan");
        let (mut all, mut sum) = (Bag::new(), Bag::new());
        for e in 0..100i64 {
            let times = [e * 5, e * 5 - 7, e * 5 - 3, e * 5 - 3].into_iter().zip(0..);
            let rows: Vec<_> = times.map(|(o, n)| (row(n % 2, o, o + n), 1)).collect();
            add(&mut all, rows.clone());
            let epoch = Epoch { batches: vec![rows], watermark: e * 5 - 8 };
            add(&mut sum, step(&mut operator, &schema, &epoch, &mut Vec::new()));
            assert!(operator.state().rows <= most, "{} rows in epoch {e}", operator.state().rows);
        }
        assert_eq!(sum, reference(&plan, &all));
        assert!(operator.due(10_000));
        step(&mut operator, &schema, &Epoch { batches: vec![], watermark: 10_000 }, &mut Vec::new());
        assert_eq!(
            operator.state().rows,
            rest,
            "two rows of each partition may be counted from, no row is near in time"
        );
        assert!(!operator.due(i64::MAX));
    }
}

#[test]
#[should_panic(expected = "taken back that was not there")]
fn retraction_of_nothing_panics() {
    let mut operator = operator(&plan(vec![call(OverFunction::RowNumber, PEERS, false)]));
    let rows = vec![(row(1, 1, 1), -1)];
    step(&mut operator, &input(), &Epoch { batches: vec![rows], watermark: NO_WATERMARK }, &mut Vec::new());
}
