//! Values in PostgreSQL's binary format.

use arrow::array::types::*;
use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, IntervalUnit, TimeUnit, i256};
use bytes::{BufMut, BytesMut};
use pgwire::api::Type;
use tidemill_engine::SqlError;

use super::types::{item_of, of_type};

/// Microseconds from 1970-01-01 to 2000-01-01, PostgreSQL's zero.
pub const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// Days from 1970-01-01 to 2000-01-01.
pub const EPOCH_DAYS: i32 = 10_957;

/// Brings an array into one of the types that [`put`] knows; once per batch.
pub fn normalise(array: &dyn Array, pg_type: &Type) -> Result<arrow::array::ArrayRef, SqlError> {
    let wanted = match (pg_type, array.data_type()) {
        (&Type::OID | &Type::INT8, _) => DataType::Int64,
        (&Type::INT2, _) => DataType::Int16,
        (&Type::INT4, _) => DataType::Int32,
        (&Type::FLOAT4, _) => DataType::Float32,
        (&Type::NUMERIC, DataType::Decimal256(_, _)) => return Ok(array.slice(0, array.len())),
        (&Type::NUMERIC, DataType::UInt64) => DataType::Decimal128(20, 0),
        (&Type::NUMERIC, DataType::Decimal32(p, s) | DataType::Decimal64(p, s)) => DataType::Decimal128(*p, *s),
        (&Type::BYTEA, _) => DataType::Binary,
        (&Type::DATE, _) => DataType::Date32,
        (&Type::TIME, _) => DataType::Time64(TimeUnit::Microsecond),
        (&Type::TIMESTAMP | &Type::TIMESTAMPTZ, DataType::Timestamp(_, zone)) => {
            DataType::Timestamp(TimeUnit::Microsecond, zone.clone())
        }
        (&Type::INTERVAL, DataType::Duration(_)) => DataType::Duration(TimeUnit::Microsecond),
        (&Type::INTERVAL, DataType::Interval(IntervalUnit::DayTime | IntervalUnit::YearMonth)) => {
            DataType::Interval(IntervalUnit::MonthDayNano)
        }
        (_, DataType::Utf8View | DataType::LargeUtf8) => DataType::Utf8,
        (_, DataType::Dictionary(_, value)) => value.as_ref().clone(),
        (_, DataType::LargeList(item) | DataType::FixedSizeList(item, _)) => DataType::List(item.clone()),
        _ => return Ok(array.slice(0, array.len())),
    };
    cast(array, &wanted).map_err(|e| SqlError::internal(e.to_string()))
}

/// Appends a value that is not NULL, of an array from [`normalise`]; `false` if the type has no binary format here.
pub fn put(out: &mut BytesMut, array: &dyn Array, row: usize, pg_type: &Type) -> Result<bool, SqlError> {
    match array.data_type() {
        DataType::Boolean => out.put_u8(array.as_boolean().value(row).into()),
        DataType::Int16 => out.put_i16(array.as_primitive::<Int16Type>().value(row)),
        DataType::Int32 => out.put_i32(array.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 if *pg_type == Type::OID => out.put_u32(array.as_primitive::<Int64Type>().value(row) as u32),
        DataType::Int64 => out.put_i64(array.as_primitive::<Int64Type>().value(row)),
        DataType::Float32 => out.put_f32(array.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => out.put_f64(array.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(_, scale) => {
            put_numeric(out, i256::from_i128(array.as_primitive::<Decimal128Type>().value(row)), *scale);
        }
        DataType::Decimal256(_, scale) => put_numeric(out, array.as_primitive::<Decimal256Type>().value(row), *scale),
        DataType::Binary => out.put_slice(array.as_binary::<i32>().value(row)),
        DataType::Date32 => out.put_i32(array.as_primitive::<Date32Type>().value(row).saturating_sub(EPOCH_DAYS)),
        DataType::Time64(TimeUnit::Microsecond) => {
            out.put_i64(array.as_primitive::<Time64MicrosecondType>().value(row));
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let micros = array.as_primitive::<TimestampMicrosecondType>().value(row);
            out.put_i64(micros.saturating_sub(EPOCH_MICROS));
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let value = array.as_primitive::<IntervalMonthDayNanoType>().value(row);
            put_interval(out, value.nanoseconds / 1000, value.days, value.months);
        }
        DataType::Duration(TimeUnit::Microsecond) => {
            put_interval(out, array.as_primitive::<DurationMicrosecondType>().value(row), 0, 0);
        }
        DataType::Utf8 => put_text(out, array.as_string::<i32>().value(row), pg_type)?,
        DataType::List(_) => put_array(out, array.as_list::<i32>().value(row).as_ref(), pg_type)?,
        _ => return Ok(false),
    }
    Ok(true)
}

fn put_interval(out: &mut BytesMut, micros: i64, days: i32, months: i32) {
    out.put_i64(micros);
    out.put_i32(days);
    out.put_i32(months);
}

fn put_text(out: &mut BytesMut, text: &str, pg_type: &Type) -> Result<(), SqlError> {
    match *pg_type {
        Type::UUID => out.put_u128(uuid(text)?),
        Type::JSONB => {
            // The version of the format comes first.
            out.put_u8(1);
            out.put_slice(text.as_bytes());
        }
        _ => out.put_slice(text.as_bytes()),
    }
    Ok(())
}

/// A UUID's number.
pub fn uuid(text: &str) -> Result<u128, SqlError> {
    let digits: String = text.chars().filter(|c| !matches!(c, '-' | '{' | '}')).collect();
    if digits.len() != 32 {
        return Err(invalid("uuid", text));
    }
    u128::from_str_radix(&digits, 16).map_err(|_| invalid("uuid", text))
}

/// A value that does not read as its type.
pub fn invalid(type_name: &str, text: &str) -> SqlError {
    let shown: String = text.chars().take(80).collect();
    let message = format!("invalid input syntax for type {type_name}: \"{shown}\"");
    SqlError::new(tidemill_engine::state::INVALID_TEXT_REPRESENTATION, message)
}

/// An array of one dimension: number of dimensions, NULL flag, element type, length, first index, elements.
fn put_array(out: &mut BytesMut, items: &dyn Array, pg_type: &Type) -> Result<(), SqlError> {
    let item = item_of(pg_type).unwrap_or_else(|| of_type(items.data_type()));
    if matches!(items.data_type(), DataType::List(_)) {
        return Err(SqlError::not_supported("arrays of arrays have no binary format here; ask for text"));
    }
    out.put_i32(i32::from(!items.is_empty()));
    out.put_i32(i32::from(items.null_count() > 0));
    out.put_u32(item.oid());
    if items.is_empty() {
        return Ok(());
    }
    out.put_i32(items.len() as i32);
    out.put_i32(1);
    let items = normalise(items, &item)?;
    for row in 0..items.len() {
        if items.is_null(row) {
            out.put_i32(-1);
            continue;
        }
        let start = begin(out);
        if !put(out, items.as_ref(), row, &item)? {
            return Err(SqlError::not_supported(format!("type {} has no binary format here", item.name())));
        }
        end(out, start);
    }
    Ok(())
}

/// Leaves room for a value's length.
pub fn begin(out: &mut BytesMut) -> usize {
    out.put_i32(0);
    out.len()
}

/// Fills in the length of the value that began at `start`.
pub fn end(out: &mut BytesMut, start: usize) {
    let len = (out.len() - start) as i32;
    out[start - 4..start].copy_from_slice(&len.to_be_bytes());
}

/// A numeric: count of digits to base 10,000, weight of the first, sign, scale, digits.
fn put_numeric(out: &mut BytesMut, value: i256, scale: i8) {
    let text = decimal_text(value, scale);
    let (negative, text) = text.strip_prefix('-').map_or((false, text.as_str()), |rest| (true, rest));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole_groups = whole.len().div_ceil(4);
    let padded =
        format!("{whole:0>width$}{fraction:0<rest$}", width = whole_groups * 4, rest = fraction.len().div_ceil(4) * 4);
    let groups: Vec<i16> =
        padded.as_bytes().chunks(4).map(|c| c.iter().fold(0, |n, d| n * 10 + i16::from(d - b'0'))).collect();
    let leading = groups.iter().take_while(|g| **g == 0).count();
    let trailing = groups[leading..].iter().rev().take_while(|g| **g == 0).count();
    let digits = &groups[leading..groups.len() - trailing];
    out.put_i16(digits.len() as i16);
    out.put_i16(if digits.is_empty() { 0 } else { whole_groups as i16 - 1 - leading as i16 });
    out.put_u16(if negative && !digits.is_empty() { 0x4000 } else { 0 });
    out.put_i16(fraction.len() as i16);
    for digit in digits {
        out.put_i16(*digit);
    }
}

/// A decimal's digits with a point, all `scale` of them after it.
fn decimal_text(value: i256, scale: i8) -> String {
    let text = value.to_string();
    if scale <= 0 {
        return if value == i256::ZERO { text } else { text + &"0".repeat(usize::from(scale.unsigned_abs())) };
    }
    let scale = scale as usize;
    let (sign, digits) = text.strip_prefix('-').map_or(("", text.as_str()), |rest| ("-", rest));
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Date32Array, Int32Array, ListArray, StringArray};
    use postgres_types::FromSql;

    fn numeric(value: i128, scale: i8) -> Vec<i16> {
        let mut out = BytesMut::new();
        put_numeric(&mut out, i256::from_i128(value), scale);
        out.chunks(2).map(|c| i16::from_be_bytes([c[0], c[1]])).collect()
    }

    #[test]
    fn numerics() {
        assert_eq!(numeric(0, 2), [0, 0, 0, 2]);
        assert_eq!(numeric(12345, 2), [2, 0, 0, 2, 123, 4500]);
        assert_eq!(numeric(-12345, 0), [2, 1, 0x4000, 0, 1, 2345]);
        assert_eq!(numeric(5, 5), [1, -2, 0, 5, 5000]);
        assert_eq!(numeric(10_000, 0), [1, 1, 0, 0, 1]);
        assert_eq!(numeric(12, -4), [1, 1, 0, 0, 12]);
    }

    #[test]
    fn a_foreign_decoder_reads_arrays_and_dates() {
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None, Some(3)])]);
        let mut out = BytesMut::new();
        assert!(put(&mut out, &list, 0, &Type::INT4_ARRAY).unwrap());
        let read = Vec::<Option<i32>>::from_sql(&Type::INT4_ARRAY, &out).unwrap();
        assert_eq!(read, [Some(1), None, Some(3)]);
        let mut out = BytesMut::new();
        put(&mut out, &Date32Array::from(vec![EPOCH_DAYS + 1]), 0, &Type::DATE).unwrap();
        assert_eq!(out.as_ref(), 1i32.to_be_bytes());
        let mut out = BytesMut::new();
        put(&mut out, &Int32Array::from(vec![-7]), 0, &Type::INT4).unwrap();
        assert_eq!(i32::from_sql(&Type::INT4, &out).unwrap(), -7);
    }

    #[test]
    fn uuids() {
        let text = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        let mut out = BytesMut::new();
        put(&mut out, &StringArray::from(vec![text]), 0, &Type::UUID).unwrap();
        assert_eq!(out.len(), 16);
        assert_eq!(out[0], 0xa0);
        assert!(uuid("nonsense").is_err());
    }
}
