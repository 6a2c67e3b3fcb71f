//! Top n against sorting each partition anew.

use std::collections::BTreeMap;

use crate::history::{Bag, Epoch, Row, TIME, Value, add, all_taken_back, check, histories, int, step};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, SchemaRef};
use proptest::prelude::*;
use tidemill_dataflow::{Operator, TopN};
use tidemill_delta::NO_WATERMARK;
use tidemill_plan::{Bound, OrderBy, TopNPlan};

fn input() -> SchemaRef {
    crate::history::schema(&[("k", DataType::Int64), ("v", DataType::Int64), ("s", DataType::Utf8)])
}

fn plan(partition: bool, by_text: bool, offset: usize, limit: usize, number: bool, append_only: bool) -> TopNPlan {
    let value = OrderBy { column: 1, options: SortOptions { descending: true, nulls_first: false } };
    let text = OrderBy { column: 2, options: SortOptions { descending: true, nulls_first: true } };
    TopNPlan {
        partition: if partition { vec![0] } else { vec![] },
        order: if by_text { vec![text] } else { vec![value] },
        offset,
        limit,
        ties: false,
        number,
        append_only,
        closes: None,
    }
}

fn operator(plan: &TopNPlan) -> TopN {
    let mut columns = vec![("k", DataType::Int64), ("v", DataType::Int64), ("s", DataType::Utf8)];
    columns.extend(plan.number.then_some(("n", DataType::Int64)));
    TopN::new(plan, &[input()], crate::history::schema(&columns)).expect("a good plan")
}

/// Descending, NULLs last, by value; descending, NULLs first, by text; then by content.
fn sort_key(row: &Row, by_text: bool) -> (bool, std::cmp::Reverse<Value>, Row) {
    let value = if by_text { &row[2] } else { &row[1] };
    let null_place = (*value == Value::Null) != by_text;
    (null_place, std::cmp::Reverse(value.clone()), row.clone())
}

fn reference(plan: &TopNPlan, input: &Bag) -> Bag {
    let by_text = plan.order[0].column == 2;
    let mut partitions: BTreeMap<Value, Vec<Row>> = BTreeMap::new();
    for (row, n) in input {
        let key = if plan.partition.is_empty() { Value::Null } else { row[0].clone() };
        partitions.entry(key).or_default().extend(std::iter::repeat_n(row.clone(), *n as usize));
    }
    let mut out = Bag::new();
    for mut rows in partitions.into_values() {
        rows.sort_by_key(|row| sort_key(row, by_text));
        let peers = |a: &Row, b: &Row| a[plan.order[0].column] == b[plan.order[0].column];
        let number = |i: usize| match plan.ties {
            true => 1 + rows.iter().position(|row| peers(row, &rows[i])).expect("the row itself") as i64,
            false => 1 + i as i64,
        };
        let last = i64::try_from(plan.offset.saturating_add(plan.limit)).unwrap_or(i64::MAX);
        let places = plan.offset as i64 + 1..=last;
        let numbers: Vec<i64> = (0..rows.len()).map(number).collect();
        let numbered = rows.into_iter().zip(numbers).filter(|(_, n)| places.contains(n));
        add(
            &mut out,
            numbered.map(|(mut row, n)| {
                row.extend(plan.number.then_some(Value::Int(n)));
                (row, 1)
            }),
        );
    }
    out
}

fn rows() -> impl Strategy<Value = Row> + Clone {
    let key = prop_oneof![1 => Just(None), 5 => (0..3i64).prop_map(Some)];
    let value = prop_oneof![1 => Just(None), 5 => (-3..4i64).prop_map(Some)];
    const TEXTS: [&str; 5] = ["", "a", "b", "a text longer than sixteen bytes 1", "a text longer than sixteen bytes 2"];
    let text =
        prop_oneof![1 => Just(Value::Null), 5 => prop::sample::select(&TEXTS[..]).prop_map(|t| Value::Text(t.into()))];
    (key, value, text).prop_map(|(k, v, s)| vec![int(k), int(v), s])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn equals_sorting_anew(
        epochs in histories(rows(), true),
        (partition, by_text, number) in any::<(bool, bool, bool)>(),
        offset in 0..4usize,
        limit in prop_oneof![1..5usize, Just(usize::MAX)],
    ) {
        let plan = plan(partition, by_text, offset, limit, number, false);
        let mut operator = operator(&plan);
        let output = check(&mut operator, &input(), &epochs, |input| reference(&plan, input));
        let rest = step(&mut operator, &input(), &all_taken_back(&epochs), &mut Vec::new());
        let mut sum = output;
        add(&mut sum, rest);
        prop_assert!(sum.is_empty());
        prop_assert_eq!(operator.state().rows, 0);
    }

    #[test]
    fn equals_sorting_anew_append_only(
        epochs in histories(rows(), false).prop_map(without_retractions),
        (partition, by_text, number) in any::<(bool, bool, bool)>(),
        offset in 0..3usize,
        limit in 1..4usize,
    ) {
        let plan = plan(partition, by_text, offset, limit, number, true);
        let mut operator = operator(&plan);
        check(&mut operator, &input(), &epochs, |input| reference(&plan, input));
        prop_assert!(operator.state().rows <= 4 * (offset + limit));
    }

    #[test]
    fn ranks_equal_sorting_anew(
        (append_only, epochs) in any::<bool>().prop_flat_map(|a| (Just(a), histories(rows(), !a))),
        (partition, by_text, number) in any::<(bool, bool, bool)>(),
        limit in prop_oneof![1..5usize, Just(i64::MAX as usize)],
    ) {
        let epochs = if append_only { without_retractions(epochs) } else { epochs };
        let plan = TopNPlan { ties: true, ..plan(partition, by_text, 0, limit, number, append_only) };
        let mut operator = operator(&plan);
        let output = check(&mut operator, &input(), &epochs, |input| reference(&plan, input));
        if append_only {
            let mut answer: Vec<Row> = output.keys().cloned().collect();
            answer.iter_mut().for_each(|row| row.truncate(3));
            prop_assert_eq!(operator.state().rows, answer.len(), "only rows of the answer are kept");
        } else {
            let rest = step(&mut operator, &input(), &all_taken_back(&epochs), &mut Vec::new());
            let mut sum = output;
            add(&mut sum, rest);
            prop_assert!(sum.is_empty());
            prop_assert_eq!(operator.state().rows, 0);
        }
    }

    #[test]
    fn batching_does_not_matter(epochs in histories(rows(), true), number in any::<bool>()) {
        let plan = plan(true, false, 1, 2, number, false);
        let (mut one, mut other) = (operator(&plan), operator(&plan));
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
}

fn without_retractions(mut epochs: Vec<Epoch>) -> Vec<Epoch> {
    for batch in epochs.iter_mut().flat_map(|e| &mut e.batches) {
        batch.retain(|(_, weight)| *weight > 0);
    }
    epochs
}

/// Many rows: pieces split, chunks are merged and compacted.
#[test]
fn large_partitions() {
    for number in [false, true] {
        let plan = plan(false, false, 2, 5, number, false);
        let mut operator = operator(&plan);
        let row = |i: i64| vec![int(i % 5), int((i * 7919) % 10_007), Value::Text(format!("row {i}"))];
        let mut epochs: Vec<Epoch> = Vec::new();
        for e in 0..40i64 {
            let mut rows: Vec<_> = (e * 250..(e + 1) * 250).map(|i| (row(i), 1)).collect();
            // Nine in ten rows go again five epochs later.
            rows.extend(((e - 5).max(0) * 250..(e - 4).max(0) * 250).filter(|i| i % 10 != 0).map(|i| (row(i), -1)));
            epochs.push(Epoch { batches: vec![rows], watermark: NO_WATERMARK });
        }
        check(&mut operator, &input(), &epochs, |input| reference(&plan, input));
        assert_eq!(operator.state().rows, 40 * 250 - 35 * 225);
    }
}

#[test]
fn final_partitions_are_forgotten() {
    let schema = crate::history::schema(&[("w", TIME), ("v", DataType::Int64)]);
    let order = vec![OrderBy { column: 1, options: SortOptions::default() }];
    let closes = Some(Bound { column: 0, offset: 0 });
    let plan = TopNPlan {
        partition: vec![0],
        order,
        offset: 0,
        limit: 2,
        ties: false,
        number: false,
        append_only: true,
        closes,
    };
    let mut operator = TopN::new(&plan, std::slice::from_ref(&schema), schema.clone()).expect("a good plan");
    let rows = (0..10).map(|i| (vec![int(i / 2 * 10), int(i)], 1)).collect();
    let out = step(&mut operator, &schema, &Epoch { batches: vec![rows], watermark: 5 }, &mut Vec::new());
    assert_eq!(out.len(), 10);
    assert_eq!(operator.state().rows, 8, "the window that ends at 0 is final");
    assert!(!operator.due(9) && operator.due(10));
    assert!(step(&mut operator, &schema, &Epoch { batches: vec![], watermark: 40 }, &mut Vec::new()).is_empty());
    assert_eq!(operator.state().rows, 0);
    assert!(!operator.due(i64::MAX));
}

#[test]
#[should_panic(expected = "taken back that was not there")]
fn retraction_of_nothing_panics() {
    let mut operator = operator(&plan(true, false, 0, 1, false, false));
    let rows = vec![(vec![int(1), int(1), Value::Null], -1)];
    step(&mut operator, &input(), &Epoch { batches: vec![rows], watermark: NO_WATERMARK }, &mut Vec::new());
}
