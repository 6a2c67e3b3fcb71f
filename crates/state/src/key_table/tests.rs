//! Keys of all kinds, interned, found and released.

use std::sync::Arc;

use arrow::array::{Int32Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::TimeUnit;

use super::*;

fn check(types: Vec<DataType>, columns: Vec<ArrayRef>, expected: &[u32]) {
    let rows = columns[0].len();
    let mut table = KeyTable::new(types).unwrap();
    let (mut ids, mut found, mut new) = (Vec::new(), Vec::new(), Vec::new());
    table.intern(&columns, rows, &mut ids, |id| new.push(id)).unwrap();
    assert_eq!(ids, expected);
    table.lookup(&columns, rows, &mut found).unwrap();
    assert_eq!(ids, found);
    assert_eq!(new.len(), table.len());
    assert_eq!(&table.columns(&ids).unwrap(), &columns);
    assert!((0..table.capacity() as u32).all(|id| table.contains(id)));
    table.release(0);
    assert!(!table.contains(0));
    table.lookup(&columns, rows, &mut found).unwrap();
    assert_eq!(found[0], NO_KEY);
    table.intern(&columns, rows, &mut ids, |id| assert_eq!(id, 0)).unwrap();
    assert_eq!(ids, expected);
}

#[test]
fn packed_keys_with_nulls() {
    let a: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None, Some(1), Some(0), Some(-1)]));
    let b: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![Some(5), Some(5), Some(5), None, Some(-5)]));
    check(vec![DataType::Int32, DataType::Timestamp(TimeUnit::Microsecond, None)], vec![a, b], &[0, 1, 0, 2, 3]);
}

#[test]
fn null_is_not_zero() {
    let a: ArrayRef = Arc::new(Int64Array::from(vec![Some(0), None, Some(0), None]));
    check(vec![DataType::Int64], vec![a], &[0, 1, 0, 1]);
}

#[test]
fn a_key_and_a_window() {
    let k: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(1), None, Some(1), Some(2)]));
    let time = |values: Vec<Option<i64>>| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(values)) };
    let start = time(vec![Some(0), Some(0), Some(0), Some(10), Some(0)]);
    let end = time(vec![Some(10), Some(10), Some(10), Some(20), None]);
    let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
    check(vec![DataType::Int64, micros.clone(), micros], vec![k, start, end], &[0, 0, 1, 2, 3]);
}

#[test]
fn zero_has_no_sign() {
    let zeros: ArrayRef = Arc::new(arrow::array::Float64Array::from(vec![0.0, -0.0, 1.0]));
    let mut table = KeyTable::new(vec![DataType::Float64]).unwrap();
    let mut ids = Vec::new();
    table.intern(&[zeros], 3, &mut ids, |_| {}).unwrap();
    assert_eq!(ids, [0, 0, 1]);
}

#[test]
fn text_keys() {
    let a: ArrayRef = Arc::new(StringArray::from(vec![Some("x"), Some(""), None, Some("x")]));
    let b: ArrayRef = Arc::new(Int64Array::from(vec![1, 1, 1, 1]));
    check(vec![DataType::Utf8, DataType::Int64], vec![a, b], &[0, 1, 2, 0]);
}
