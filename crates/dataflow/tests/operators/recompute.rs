//! Recomputation against the query over the whole input.

use std::sync::Arc;

use crate::history::{Bag, Epoch, Row, add, all_taken_back, delta, histories, int, rows_of, step};
use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use proptest::prelude::*;
use tidemill_dataflow::{Operator, Recompute, StepCx};
use tidemill_delta::{NO_WATERMARK, RowsByContent, batch};
use tidemill_plan::{Recompute as Query, RecomputePlan, ScalarError};

fn input() -> SchemaRef {
    crate::history::schema(&[("k", DataType::Int64), ("v", DataType::Int64)])
}

/// All rows of all inputs, and one row with k = NULL and the number of rows; fails on a row with v = 13.
#[derive(Debug)]
struct Everything;

impl Query for Everything {
    fn compute(&self, inputs: &[RecordBatch]) -> Result<RecordBatch, ScalarError> {
        for rows in inputs {
            let order = RowsByContent::new(rows).expect("comparable").sorted();
            assert!(order.is_sorted(), "inputs come sorted by content");
        }
        let all = concat_batches(&input(), inputs).map_err(ScalarError::new)?;
        if all.column(1).as_primitive::<Int64Type>().iter().any(|v| v == Some(13)) {
            return Err(ScalarError::new("thirteen"));
        }
        let keys: Int64Array = [None].into_iter().collect();
        let count = Int64Array::from(vec![all.num_rows() as i64]);
        let count = batch(input(), vec![Arc::new(keys), Arc::new(count)], 1);
        concat_batches(&input(), [&all, &count]).map_err(ScalarError::new)
    }
}

fn operator(keyed: bool, inputs: usize) -> Recompute {
    let keys = vec![if keyed { vec![0] } else { vec![] }; inputs];
    let plan = RecomputePlan { keys, query: Arc::new(Everything), label: "everything".into() };
    Recompute::new(&plan, &vec![input(); inputs], input()).expect("a good plan")
}

fn reference(keyed: bool, rows: &Bag) -> Bag {
    let mut parts: std::collections::BTreeMap<crate::history::Value, Bag> = Default::default();
    if !keyed {
        parts.insert(crate::history::Value::Null, Bag::new());
    }
    for (row, n) in rows {
        let key = if keyed { row[0].clone() } else { crate::history::Value::Null };
        add(parts.entry(key).or_default(), [(row.clone(), *n)]);
    }
    let mut out = Bag::new();
    for part in parts.into_values().filter(|part| part.keys().all(|row| row[1] != int(13))) {
        let count = part.values().sum::<i64>();
        add(&mut out, part);
        add(&mut out, [(vec![int(None), int(count)], 1)]);
    }
    out
}

fn rows() -> impl Strategy<Value = Row> + Clone {
    let key = prop_oneof![1 => Just(None), 5 => (0..3i64).prop_map(Some)];
    let value = prop_oneof![1 => Just(None), 9 => (0..5i64).prop_map(Some), 1 => Just(Some(13))];
    (key, value).prop_map(|(k, v)| vec![int(k), int(v)])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn equals_the_query(epochs in histories(rows(), true), keyed in any::<bool>()) {
        let mut operator = operator(keyed, 1);
        let (mut sum, mut output) = (Bag::new(), Bag::new());
        let mut errors = Vec::new();
        for epoch in epochs.iter().chain([&all_taken_back(&epochs)]) {
            add(&mut sum, epoch.batches.iter().flatten().cloned());
            add(&mut output, step(&mut operator, &input(), epoch, &mut errors));
            prop_assert_eq!(&output, &reference(keyed, &sum));
            let failing = sum.keys().filter(|row| row[1] == int(13));
            let partition = |row: &Row| if keyed { row[0].clone() } else { int(0) };
            let failing: std::collections::BTreeSet<_> = failing.map(partition).collect();
            prop_assert_eq!(errors.iter().map(|e| e.weight).sum::<i64>(), failing.len() as i64);
        }
        prop_assert_eq!(operator.state().rows, usize::from(!keyed));
    }

    #[test]
    fn several_inputs(left in histories(rows(), true), right in histories(rows(), true), keyed in any::<bool>()) {
        let mut operator = operator(keyed, 2);
        let (mut sum, mut output) = (Bag::new(), Bag::new());
        for (a, b) in left.iter().zip(&right) {
            let deltas = |e: &Epoch| e.batches.iter().map(|rows| delta(&input(), rows)).collect::<Vec<_>>();
            let mut errors = Vec::new();
            let mut cx = StepCx { epoch: 0, round: 0, watermark: NO_WATERMARK, errors: &mut errors };
            let out = operator.step(&mut cx, &mut [deltas(a), deltas(b)]).expect("goes on");
            add(&mut output, out.iter().flat_map(rows_of));
            add(&mut sum, a.batches.iter().chain(&b.batches).flatten().cloned());
            prop_assert_eq!(&output, &reference(keyed, &sum));
        }
    }
}

#[test]
fn only_touched_partitions_are_recomputed() {
    let mut operator = operator(true, 1);
    assert!(!operator.wants_start());
    let epoch = |rows: Vec<(Row, i64)>| Epoch { batches: vec![rows], watermark: NO_WATERMARK };
    let rows = (0..10).map(|k| (vec![int(k), int(1)], 1)).collect();
    step(&mut operator, &input(), &epoch(rows), &mut Vec::new());
    assert_eq!(operator.recomputations(), 10);
    let out = step(&mut operator, &input(), &epoch(vec![(vec![int(3), int(2)], 1)]), &mut Vec::new());
    assert_eq!((operator.recomputations(), out.len()), (11, 3));
}

#[test]
fn a_query_without_partitions_has_an_answer_from_the_start() {
    let mut operator = operator(false, 1);
    assert!(operator.wants_start());
    let out = step(&mut operator, &input(), &Epoch { batches: vec![], watermark: NO_WATERMARK }, &mut Vec::new());
    assert_eq!(out, [(vec![int(None), int(0)], 1)]);
}
