//! The frozen hash: key → key group → worker.
//!
//! State that outlives a process is split by key group, so this hash is part of the format: the
//! same values must give the same number in every release and on every machine. Integers, floats,
//! dates and times are mixed as their 64-bit value with the finaliser of SplitMix64, bytes and text
//! with XXH3-64 (seed 0); columns are folded left to right. NULL has a number of its own.

use arrow::array::{Array, ArrayRef, AsArray, GenericByteArray, GenericByteViewArray};
use arrow::datatypes::{
    ArrowPrimitiveType, BinaryType, BinaryViewType, ByteArrayType, ByteViewType, DataType, Date32Type, Date64Type,
    Decimal128Type, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType,
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNanoType, IntervalUnit,
    LargeBinaryType, LargeUtf8Type, StringViewType, Time64MicrosecondType, Time64NanosecondType, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type, Utf8Type,
};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use xxhash_rust::xxh3::xxh3_64;

/// How many key groups there are. Frozen: checkpoints are split by key group.
pub const KEY_GROUPS: usize = 256;

const START: u64 = 0x51_7C_C1_B7_27_22_0A_95;
const NULL: u64 = 0x9E37_79B9_7F4A_7C15;

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
#[inline]
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[inline]
fn fold(hash: u64, value: u64) -> u64 {
    mix(hash.rotate_left(23) ^ value)
}

/// The frozen hash of one byte string.
#[inline]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// The key group of a hash.
#[inline]
pub fn key_group(hash: u64) -> usize {
    (hash >> 56) as usize
}

/// Which of `workers` owns a hash's key group: contiguous ranges of key groups.
#[inline]
pub fn worker_of(hash: u64, workers: usize) -> usize {
    key_group(hash) * workers / KEY_GROUPS
}

/// The frozen hash of each row over all the columns given; `hashes` is overwritten.
pub fn hash_columns(columns: &[ArrayRef], rows: usize, hashes: &mut Vec<u64>) -> Result<(), ArrowError> {
    hashes.clear();
    hashes.resize(rows, START);
    columns.iter().try_for_each(|column| hash_column(column, hashes))
}

/// The frozen hash of each row of a batch over the columns with the numbers given.
pub fn hash_rows(rows: &arrow::array::RecordBatch, columns: &[usize], hashes: &mut Vec<u64>) -> Result<(), ArrowError> {
    hashes.clear();
    hashes.resize(rows.num_rows(), START);
    columns.iter().try_for_each(|c| hash_column(rows.column(*c), hashes))
}

fn primitive<T: ArrowPrimitiveType>(column: &ArrayRef, hashes: &mut [u64], as_u64: impl Fn(T::Native) -> u64) {
    let array = column.as_primitive::<T>();
    if array.null_count() == 0 {
        for (hash, value) in hashes.iter_mut().zip(array.values()) {
            *hash = fold(*hash, as_u64(*value));
        }
    } else {
        for (i, hash) in hashes.iter_mut().enumerate() {
            *hash = fold(*hash, if array.is_null(i) { NULL } else { as_u64(array.value(i)) });
        }
    }
}

fn byte_array<T: ByteArrayType>(array: &GenericByteArray<T>, hashes: &mut [u64]) {
    for (i, hash) in hashes.iter_mut().enumerate() {
        let value = if array.is_null(i) { NULL } else { xxh3_64(array.value(i).as_ref()) };
        *hash = fold(*hash, value);
    }
}

fn byte_view<T: ByteViewType>(array: &GenericByteViewArray<T>, hashes: &mut [u64]) {
    for (i, hash) in hashes.iter_mut().enumerate() {
        let value = if array.is_null(i) { NULL } else { xxh3_64(array.value(i).as_ref()) };
        *hash = fold(*hash, value);
    }
}

/// -0.0 and every NaN hash as the value they compare equal to.
fn float_bits(value: f64) -> u64 {
    if value == 0.0 {
        0
    } else if value.is_nan() {
        f64::NAN.to_bits()
    } else {
        value.to_bits()
    }
}

fn hash_column(column: &ArrayRef, hashes: &mut [u64]) -> Result<(), ArrowError> {
    match column.data_type() {
        DataType::Int8 => primitive::<Int8Type>(column, hashes, |v| v as i64 as u64),
        DataType::Int16 => primitive::<Int16Type>(column, hashes, |v| v as i64 as u64),
        DataType::Int32 => primitive::<Int32Type>(column, hashes, |v| v as i64 as u64),
        DataType::Int64 => primitive::<Int64Type>(column, hashes, |v| v as u64),
        DataType::UInt8 => primitive::<UInt8Type>(column, hashes, u64::from),
        DataType::UInt16 => primitive::<UInt16Type>(column, hashes, u64::from),
        DataType::UInt32 => primitive::<UInt32Type>(column, hashes, u64::from),
        DataType::UInt64 => primitive::<UInt64Type>(column, hashes, |v| v),
        DataType::Float32 => primitive::<Float32Type>(column, hashes, |v| float_bits(f64::from(v))),
        DataType::Float64 => primitive::<Float64Type>(column, hashes, float_bits),
        DataType::Decimal128(_, _) => primitive::<Decimal128Type>(column, hashes, |v| mix(v as u64) ^ (v >> 64) as u64),
        DataType::Date32 => primitive::<Date32Type>(column, hashes, |v| v as i64 as u64),
        DataType::Date64 => primitive::<Date64Type>(column, hashes, |v| v as u64),
        DataType::Time64(TimeUnit::Microsecond) => primitive::<Time64MicrosecondType>(column, hashes, |v| v as u64),
        DataType::Time64(TimeUnit::Nanosecond) => primitive::<Time64NanosecondType>(column, hashes, |v| v as u64),
        DataType::Timestamp(TimeUnit::Second, _) => primitive::<TimestampSecondType>(column, hashes, |v| v as u64),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            primitive::<TimestampMillisecondType>(column, hashes, |v| v as u64)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            primitive::<TimestampMicrosecondType>(column, hashes, |v| v as u64)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            primitive::<TimestampNanosecondType>(column, hashes, |v| v as u64)
        }
        DataType::Duration(TimeUnit::Second) => primitive::<DurationSecondType>(column, hashes, |v| v as u64),
        DataType::Duration(TimeUnit::Millisecond) => primitive::<DurationMillisecondType>(column, hashes, |v| v as u64),
        DataType::Duration(TimeUnit::Microsecond) => primitive::<DurationMicrosecondType>(column, hashes, |v| v as u64),
        DataType::Duration(TimeUnit::Nanosecond) => primitive::<DurationNanosecondType>(column, hashes, |v| v as u64),
        DataType::Interval(IntervalUnit::MonthDayNano) => primitive::<IntervalMonthDayNanoType>(column, hashes, |v| {
            fold(fold(v.months as u64, v.days as u64), v.nanoseconds as u64)
        }),
        DataType::Utf8 => byte_array::<Utf8Type>(column.as_bytes(), hashes),
        DataType::LargeUtf8 => byte_array::<LargeUtf8Type>(column.as_bytes(), hashes),
        DataType::Binary => byte_array::<BinaryType>(column.as_bytes(), hashes),
        DataType::LargeBinary => byte_array::<LargeBinaryType>(column.as_bytes(), hashes),
        DataType::Utf8View => byte_view::<StringViewType>(column.as_byte_view(), hashes),
        DataType::BinaryView => byte_view::<BinaryViewType>(column.as_byte_view(), hashes),
        DataType::Boolean => {
            let array = column.as_boolean();
            for (i, hash) in hashes.iter_mut().enumerate() {
                *hash = fold(*hash, if array.is_null(i) { NULL } else { u64::from(array.value(i)) });
            }
        }
        DataType::Null => hashes.iter_mut().for_each(|hash| *hash = fold(*hash, NULL)),
        // Nested and rare types go through the comparable row format, which is part of the format too.
        other => {
            let converter = RowConverter::new(vec![SortField::new(other.clone())])?;
            let rows = converter.convert_columns(std::slice::from_ref(column))?;
            for (hash, row) in hashes.iter_mut().zip(rows.iter()) {
                *hash = fold(*hash, xxh3_64(row.as_ref()));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int32Array, Int64Array, StringArray, StringViewArray};

    use super::*;

    fn hashes(columns: &[ArrayRef]) -> Vec<u64> {
        let mut out = Vec::new();
        hash_columns(columns, columns[0].len(), &mut out).unwrap();
        out
    }

    /// The numbers are part of the state format: a change here orphans every checkpoint.
    #[test]
    fn the_hash_is_frozen() {
        let ints: ArrayRef = Arc::new(Int64Array::from(vec![Some(0), Some(1), Some(-1), None]));
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some(""), Some("a"), Some("tide"), None]));
        assert_eq!(hashes(&[ints, text]), FROZEN);
    }

    const FROZEN: [u64; 4] = [15506440305879511910, 15922954149852226346, 15745566200778755894, 11184679254129094132];

    #[test]
    fn width_and_layout_do_not_matter() {
        let narrow: ArrayRef = Arc::new(Int32Array::from(vec![7, -7]));
        let wide: ArrayRef = Arc::new(Int64Array::from(vec![7, -7]));
        assert_eq!(hashes(&[narrow]), hashes(&[wide]));
        let flat: ArrayRef = Arc::new(StringArray::from(vec!["mill", "a string longer than twelve bytes"]));
        let view: ArrayRef = Arc::new(StringViewArray::from(vec!["mill", "a string longer than twelve bytes"]));
        assert_eq!(hashes(&[flat]), hashes(&[view]));
    }

    #[test]
    fn key_groups_spread_over_workers() {
        let ints: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100_000));
        let mut counts = [0usize; 3];
        hashes(&[ints]).iter().for_each(|h| counts[worker_of(*h, 3)] += 1);
        assert!(counts.iter().all(|c| (30_000..37_000).contains(c)), "{counts:?}");
    }
}
