//! Where a key stands in a run: a number that has its place and its identity in one.
//!
//! The lower 40 bits are of the key's hash. The upper 24 say in which stretch of values the key's numbers and times lie, so that
//! keys that were made at about the same time (orders, sessions, events with running numbers), and are usually touched at about the
//! same time, share blocks. Keys without such columns have the whole hash. Two keys with the same number are put aside and read back
//! together, which is right, and rare: both parts of it must be the same.
//!
//! Checkpoints have runs with these numbers: to compute them in another way is a new version of their format.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow::error::ArrowError;
use tidemill_delta::hash_rows;

/// Bits that are of the hash.
const HASH_BITS: u32 = 40;
/// So many values of an integer are one stretch, as a power of two.
const INTEGERS: u32 = 6;

/// The place of each row's key, whose columns are given; `places` is overwritten.
pub(super) fn places_of(rows: &RecordBatch, key: &[usize], places: &mut Vec<u64>) -> Result<(), ArrowError> {
    hash_rows(rows, key, places)?;
    let mut stretches = vec![0u64; places.len()];
    let mut any = false;
    for column in key {
        any |= add_stretches(rows.column(*column), &mut stretches);
    }
    if any {
        for (place, stretch) in places.iter_mut().zip(&stretches) {
            *place = stretch << HASH_BITS | *place >> (64 - HASH_BITS);
        }
    }
    Ok(())
}

/// Adds which stretch each value lies in; says whether the column's type has stretches. NULL adds nothing.
fn add_stretches(column: &ArrayRef, stretches: &mut [u64]) -> bool {
    match column.data_type() {
        DataType::Int8 => add::<Int8Type>(column, stretches, |v| v as u64 >> INTEGERS),
        DataType::Int16 => add::<Int16Type>(column, stretches, |v| v as u64 >> INTEGERS),
        DataType::Int32 => add::<Int32Type>(column, stretches, |v| v as u64 >> INTEGERS),
        DataType::Int64 => add::<Int64Type>(column, stretches, |v| v as u64 >> INTEGERS),
        DataType::UInt8 => add::<UInt8Type>(column, stretches, |v| u64::from(v) >> INTEGERS),
        DataType::UInt16 => add::<UInt16Type>(column, stretches, |v| u64::from(v) >> INTEGERS),
        DataType::UInt32 => add::<UInt32Type>(column, stretches, |v| u64::from(v) >> INTEGERS),
        DataType::UInt64 => add::<UInt64Type>(column, stretches, |v| v >> INTEGERS),
        DataType::Date32 => add::<Date32Type>(column, stretches, |v| v as u64),
        // About a second.
        DataType::Timestamp(TimeUnit::Second, _) => add::<TimestampSecondType>(column, stretches, |v| v as u64),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            add::<TimestampMillisecondType>(column, stretches, |v| v as u64 >> 10)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            add::<TimestampMicrosecondType>(column, stretches, |v| v as u64 >> 20)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            add::<TimestampNanosecondType>(column, stretches, |v| v as u64 >> 30)
        }
        _ => false,
    }
}

fn add<T: ArrowPrimitiveType>(column: &ArrayRef, stretches: &mut [u64], stretch: impl Fn(T::Native) -> u64) -> bool {
    let column = column.as_primitive::<T>();
    for (i, (sum, value)) in stretches.iter_mut().zip(column.values()).enumerate() {
        if column.is_valid(i) {
            *sum = sum.wrapping_add(stretch(*value));
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int32Array, Int64Array, StringArray};
    use arrow::buffer::NullBuffer;

    use super::*;

    fn places(columns: &[ArrayRef]) -> Vec<u64> {
        let named = columns.iter().enumerate().map(|(i, column)| (i.to_string(), column.clone()));
        let rows = RecordBatch::try_from_iter_with_nullable(named.map(|(name, column)| (name, column, true)));
        let (mut places, key) = (Vec::new(), (0..columns.len()).collect::<Vec<_>>());
        places_of(&rows.expect("columns of one length"), &key, &mut places).expect("types with a hash");
        places
    }

    #[test]
    fn neighbours_are_near_and_none_are_one() {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(-100_000..100_000));
        let shops: ArrayRef = Arc::new(StringArray::from_iter_values((0..200_000).map(|i| format!("shop {}", i % 7))));
        for key in [vec![numbers.clone()], vec![shops, numbers]] {
            let mut places = places(&key);
            // Stretches have 64 numbers and follow each other.
            let turns = places.windows(2).filter(|pair| pair[0] >> HASH_BITS != pair[1] >> HASH_BITS).count();
            assert_eq!(turns, 200_000 / 64);
            places.sort_unstable();
            places.dedup();
            assert_eq!(places.len(), 200_000);
        }
    }

    #[test]
    fn equal_keys_have_one_place() {
        let narrow: ArrayRef = Arc::new(Int32Array::from(vec![7, -7, 1_000]));
        let wide: ArrayRef = Arc::new(Int64Array::from(vec![7, -7, 1_000]));
        assert_eq!(places(&[narrow]), places(&[wide]));
        // What is below a NULL does not matter.
        let nulls = Int64Array::new(vec![1, 1 << 40, 5].into(), Some(NullBuffer::from(vec![false, false, true])));
        let found = places(&[Arc::new(nulls)]);
        assert_eq!(found[0], found[1]);
        assert_ne!(found[1], found[2]);
    }
}
