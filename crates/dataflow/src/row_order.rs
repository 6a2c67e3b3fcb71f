//! A fixed total order over whole rows: by the columns of an ORDER BY, then by all columns.
//!
//! Rows that compare equal are equal in every column. The first bytes of arrow's comparable row format
//! stand for a row in nearly all comparisons: they are computed for a whole batch at once
//! and kept as one `u128`. Only where two rows agree in them are columns looked at.

use std::cmp::Ordering;

use arrow::array::{
    Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, PrimitiveArray, RecordBatch, make_comparator,
};
use arrow::compute::SortOptions;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int16Type, Int32Type, Int64Type, SchemaRef, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt64Type,
};
use arrow::row::{RowConverter, SortField};
use tidemill_plan::OrderBy;

use crate::OperatorError;

/// How many bytes of a row's comparable form the prefix holds.
const PREFIX: usize = 16;

/// See the module.
pub(crate) struct RowOrder {
    /// All columns, the most significant first.
    sequence: Vec<(usize, SortOptions)>,
    /// How many leading columns of the sequence the ORDER BY names.
    named: usize,
    /// How many leading columns of the sequence the prefix tells apart completely.
    covered: usize,
    /// The leading columns of which the prefix is made.
    prefix_columns: Vec<usize>,
    /// `None`: there is nothing to make a prefix of.
    converter: Option<RowConverter>,
}

impl RowOrder {
    /// The order `by`, then all other columns ascending with NULLs first.
    pub(crate) fn new(schema: &SchemaRef, by: &[OrderBy]) -> Result<Self, OperatorError> {
        let mut sequence: Vec<(usize, SortOptions)> = Vec::new();
        let content = (0..schema.fields().len()).map(|c| (c, SortOptions::default()));
        for (column, options) in by.iter().map(|o| (o.column, o.options)).chain(content) {
            // A column that has decided already decides nothing more.
            if sequence.iter().all(|(c, _)| *c != column) {
                sequence.push((column, options));
            }
        }
        let named = sequence.iter().take_while(|(c, _)| by.iter().any(|o| o.column == *c)).count();
        let type_of = |column: usize| schema.field(column).data_type();
        let (used, covered) = prefix_shape(sequence.iter().map(|(c, _)| type_of(*c)), by.len());
        let fields: Vec<_> =
            sequence[..used].iter().map(|(c, o)| SortField::new_with_options(type_of(*c).clone(), *o)).collect();
        let converter = if fields.is_empty() { None } else { Some(RowConverter::new(fields)?) };
        let prefix_columns = sequence[..used].iter().map(|(c, _)| *c).collect();
        Ok(RowOrder { sequence, named, covered, prefix_columns, converter })
    }

    /// A number per row that never contradicts the order: lesser rows have lesser or equal numbers.
    pub(crate) fn prefixes(&self, rows: &RecordBatch) -> Result<Vec<u128>, OperatorError> {
        let Some(converter) = &self.converter else { return Ok(vec![0; rows.num_rows()]) };
        let columns: Vec<ArrayRef> = self.prefix_columns.iter().map(|c| rows.column(*c).clone()).collect();
        Ok(converter.convert_columns(&columns)?.iter().map(|row| leading(row.data())).collect())
    }

    /// Whether the columns of the ORDER BY are equal in both rows.
    pub(crate) fn are_peers(&self, a: &RecordBatch, i: usize, b: &RecordBatch, j: usize) -> bool {
        let mut named = self.sequence[..self.named].iter();
        named.all(|(c, options)| compare_values(a.column(*c), i, b.column(*c), j, *options).is_eq())
    }

    /// Compares two rows whose prefixes are equal.
    pub(crate) fn compare_rest(&self, a: &RecordBatch, i: usize, b: &RecordBatch, j: usize) -> Ordering {
        let rest = self.sequence[self.covered..].iter();
        rest.map(|(c, options)| compare_values(a.column(*c), i, b.column(*c), j, *options))
            .find(|ordering| ordering.is_ne())
            .unwrap_or(Ordering::Equal)
    }
}

/// Whether two rows are equal in all columns.
pub(crate) fn same_values(a: &RecordBatch, i: usize, b: &RecordBatch, j: usize) -> bool {
    let mut columns = a.columns().iter().zip(b.columns());
    columns.all(|(a, b)| compare_values(a, i, b, j, SortOptions::default()).is_eq())
}

/// The prefix of a row in which the leading column is a timestamp (not NULL, ascending) of this value
/// and all else is least.
pub(crate) fn time_prefix(raw: i64) -> u128 {
    (1u128 << 120) | (u128::from((raw as u64) ^ (1 << 63)) << 56)
}

/// The timestamp that leads a row with this prefix; see [`time_prefix`].
pub(crate) fn time_of_prefix(prefix: u128) -> i64 {
    (((prefix >> 56) as u64) ^ (1 << 63)) as i64
}

/// Of the leading columns: how many take part in the prefix, and how many lie in it completely.
fn prefix_shape<'a>(types: impl Iterator<Item = &'a DataType>, ordered: usize) -> (usize, usize) {
    let (mut used, mut covered, mut bytes) = (0, 0, 0);
    for data_type in types {
        let width = encoded_width(data_type);
        // Columns that only break ties are worth their encoding if that is cheap and all of it counts.
        let wanted = used < ordered || width.is_some_and(|w| bytes + w <= PREFIX);
        if bytes >= PREFIX || !wanted {
            break;
        }
        used += 1;
        match width {
            Some(width) if bytes + width <= PREFIX => covered = used,
            _ => break,
        }
        bytes += width.unwrap_or(PREFIX);
    }
    (used, covered)
}

/// Bytes of a value in the comparable row format, if all values take the same.
fn encoded_width(data_type: &DataType) -> Option<usize> {
    match data_type {
        DataType::Boolean => Some(2),
        DataType::Decimal128(_, _) => Some(17),
        DataType::Interval(_) | DataType::Decimal256(_, _) => None,
        other => other.primitive_width().map(|width| width + 1),
    }
}

#[inline]
fn leading(bytes: &[u8]) -> u128 {
    match bytes.first_chunk::<PREFIX>() {
        Some(chunk) => u128::from_be_bytes(*chunk),
        None => {
            let mut padded = [0; PREFIX];
            padded[..bytes.len()].copy_from_slice(bytes);
            u128::from_be_bytes(padded)
        }
    }
}

fn compare_values(a: &ArrayRef, i: usize, b: &ArrayRef, j: usize, options: SortOptions) -> Ordering {
    let valid = match a.data_type() {
        DataType::Int16 => natives::<Int16Type>,
        DataType::Int32 => natives::<Int32Type>,
        DataType::Int64 => natives::<Int64Type>,
        DataType::UInt64 => natives::<UInt64Type>,
        DataType::Float64 => natives::<Float64Type>,
        DataType::Date32 => natives::<Date32Type>,
        DataType::Decimal128(_, _) => natives::<Decimal128Type>,
        DataType::Timestamp(TimeUnit::Second, _) => natives::<TimestampSecondType>,
        DataType::Timestamp(TimeUnit::Millisecond, _) => natives::<TimestampMillisecondType>,
        DataType::Timestamp(TimeUnit::Microsecond, _) => natives::<TimestampMicrosecondType>,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => natives::<TimestampNanosecondType>,
        DataType::Utf8 => texts,
        DataType::Utf8View => text_views,
        DataType::Boolean => booleans,
        _ => return compare_any(a, i, b, j, options),
    };
    match (a.is_null(i), b.is_null(j)) {
        (true, true) => Ordering::Equal,
        (true, false) if options.nulls_first => Ordering::Less,
        (true, false) => Ordering::Greater,
        (false, true) if options.nulls_first => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) if options.descending => valid(b, j, a, i),
        (false, false) => valid(a, i, b, j),
    }
}

fn natives<T: ArrowPrimitiveType>(a: &ArrayRef, i: usize, b: &ArrayRef, j: usize) -> Ordering {
    let (a, b): (&PrimitiveArray<T>, &PrimitiveArray<T>) = (a.as_primitive(), b.as_primitive());
    a.value(i).compare(b.value(j))
}

fn texts(a: &ArrayRef, i: usize, b: &ArrayRef, j: usize) -> Ordering {
    a.as_string::<i32>().value(i).cmp(b.as_string::<i32>().value(j))
}

fn text_views(a: &ArrayRef, i: usize, b: &ArrayRef, j: usize) -> Ordering {
    a.as_string_view().value(i).cmp(b.as_string_view().value(j))
}

fn booleans(a: &ArrayRef, i: usize, b: &ArrayRef, j: usize) -> Ordering {
    a.as_boolean().value(i).cmp(&b.as_boolean().value(j))
}

/// Types that are rare in ties: arrow builds a comparator for the pair.
fn compare_any(a: &ArrayRef, i: usize, b: &ArrayRef, j: usize, options: SortOptions) -> Ordering {
    let (a, b) = (a.slice(i, 1), b.slice(j, 1));
    make_comparator(&a, &b, options).expect("columns of one schema compare")(0, 0)
}
