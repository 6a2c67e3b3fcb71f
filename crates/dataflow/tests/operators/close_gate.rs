//! The gate against the final part of the accumulated input.

use crate::history::{Bag, Epoch, Row, TIME, add, histories, int, step};
use arrow::datatypes::{DataType, SchemaRef};
use proptest::prelude::*;
use tidemill_dataflow::{CloseGate, Operator};
use tidemill_plan::{Bound, CloseGatePlan};

fn input() -> SchemaRef {
    crate::history::schema(&[("w", TIME), ("v", DataType::Int64)])
}

fn gate() -> CloseGate {
    let plan = CloseGatePlan { closes: Bound { column: 0, offset: 3 } };
    CloseGate::new(&plan, &[input()], input()).expect("a good plan")
}

fn rows() -> impl Strategy<Value = Row> + Clone {
    let time = prop_oneof![1 => Just(None), 9 => (-20..60i64).prop_map(Some)];
    (time, 0..3i64).prop_map(|(t, v)| vec![int(t), int(v)])
}

/// Gives the epochs rising watermarks, and drops changes that come too late to be allowed.
fn with_watermarks(mut epochs: Vec<Epoch>, step: i64) -> Vec<Epoch> {
    let mut before = i64::MIN;
    let mut bag = Bag::new();
    for (i, epoch) in epochs.iter_mut().enumerate() {
        for batch in &mut epoch.batches {
            batch.retain(|(row, _)| !is_final(row, before));
        }
        // Without its insertion, dropped before, a retraction must go too.
        let mut kept = bag.clone();
        add(&mut kept, epoch.batches.iter().flatten().cloned());
        let broken: Vec<Row> = kept.iter().filter(|(_, n)| **n < 0).map(|(row, _)| row.clone()).collect();
        epoch.batches.iter_mut().for_each(|b| b.retain(|(row, w)| *w > 0 || !broken.contains(row)));
        add(&mut bag, epoch.batches.iter().flatten().cloned());
        epoch.watermark = (i as i64) * step - 15;
        before = epoch.watermark;
    }
    epochs
}

fn is_final(row: &Row, watermark: i64) -> bool {
    matches!(row[0], crate::history::Value::Int(t) if t + 3 <= watermark)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn gives_what_is_final(epochs in histories(rows(), true), advance in 1..25i64) {
        let mut gate = gate();
        let (mut sum, mut output) = (Bag::new(), Bag::new());
        for epoch in with_watermarks(epochs, advance) {
            add(&mut sum, epoch.batches.iter().flatten().cloned());
            let out = step(&mut gate, &input(), &epoch, &mut Vec::new());
            prop_assert!(out.is_sorted() && out.iter().all(|(_, n)| *n > 0));
            add(&mut output, out);
            let wanted: Bag = sum.clone().into_iter().filter(|(row, _)| is_final(row, epoch.watermark)).collect();
            prop_assert_eq!(&output, &wanted);
            prop_assert!(!gate.due(epoch.watermark));
        }
        let end = Epoch { batches: vec![], watermark: i64::MAX };
        let mut rest = Bag::new();
        add(&mut rest, step(&mut gate, &input(), &end, &mut Vec::new()));
        prop_assert_eq!(gate.state().rows, 0);
        add(&mut output, rest);
        let wanted: Bag = sum.into_iter().filter(|(row, _)| row[0] != crate::history::Value::Null).collect();
        prop_assert_eq!(output, wanted);
    }
}

#[test]
fn is_due_at_the_least_pending_time() {
    let mut gate = gate();
    let rows = vec![(vec![int(10), int(1)], 1), (vec![int(7), int(1)], 1), (vec![int(None), int(1)], 1)];
    assert!(step(&mut gate, &input(), &Epoch { batches: vec![rows], watermark: 9 }, &mut Vec::new()).is_empty());
    assert!(!gate.due(9) && gate.due(10));
    assert_eq!(gate.state().rows, 2);
}
