//! A query per row, against running it for each row alone.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use proptest::prelude::*;
use tidemill_dataflow::{FlatMap, Operator, RowError, StepCx};
use tidemill_plan::{FlatMapPlan, Recompute, ScalarError};

use crate::history::{Bag, Row, Value, add, delta, histories, int, rows_of};

fn input() -> SchemaRef {
    crate::history::schema(&[("n", DataType::Int64)])
}

/// Every number from 1 up to the row's; a negative one fails.
#[derive(Debug)]
struct Count;

impl Recompute for Count {
    fn compute(&self, inputs: &[RecordBatch]) -> Result<RecordBatch, ScalarError> {
        let numbers = inputs[0].column(0).as_primitive::<Int64Type>();
        if numbers.iter().flatten().any(|n| n < 0) {
            return Err(ScalarError::new("less than nothing"));
        }
        let counted: Int64Array = numbers.iter().flatten().flat_map(|n| (1..=n).map(Some)).collect();
        let counted: ArrayRef = Arc::new(counted);
        Ok(RecordBatch::try_new(input(), vec![counted]).expect("one column"))
    }
}

fn reference(input: &[(Row, i64)]) -> (Bag, i64) {
    let (mut out, mut failed) = (Bag::new(), 0);
    for (row, weight) in input {
        match row[0] {
            Value::Int(n) if n < 0 => failed += weight,
            Value::Int(n) => add(&mut out, (1..=n).map(|i| (vec![int(i)], *weight))),
            _ => {}
        }
    }
    (out, failed)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn equals_row_by_row(
        epochs in histories(prop_oneof![1 => Just(int(None)), 9 => (-1..5i64).prop_map(int)].prop_map(|n| vec![n]), true),
    ) {
        let plan = FlatMapPlan { query: Arc::new(Count), label: "count".into() };
        let mut operator = FlatMap::new(&plan, input());
        for epoch in &epochs {
            let mut errors: Vec<RowError> = Vec::new();
            let mut cx = StepCx { epoch: 0, round: 0, watermark: 0, errors: &mut errors };
            let deltas = epoch.batches.iter().map(|rows| delta(&input(), rows)).collect();
            let out = operator.step(&mut cx, &mut [deltas]).expect("it goes on");
            let mut sum = Bag::new();
            add(&mut sum, out.iter().flat_map(rows_of));
            let (expected, failed) = reference(&epoch.batches.concat());
            prop_assert_eq!(sum, expected);
            prop_assert_eq!(errors.iter().map(|e| e.weight).sum::<i64>(), failed);
        }
        prop_assert_eq!(operator.recomputations(), 0);
        prop_assert_eq!(operator.state().rows, 0);
    }
}
