//! Values for `$1`, `$2`, ... as clients send them.
//!
//! A value in text whose type the client left open stays text, so that it takes the type that the
//! statement wants. Every other value is read into its type here.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array,
    Int32Array, Int64Array, IntervalMonthDayNanoArray, ListArray, StringArray, Time64MicrosecondArray,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{CastOptions, cast_with_options, concat};
use arrow::datatypes::{DataType, Field, IntervalMonthDayNanoType};
use bytes::{Buf, Bytes};
use pgwire::api::Type;
use tidemill_engine::{Param, SqlError};

use super::binary::{EPOCH_DAYS, EPOCH_MICROS, invalid};
use super::types::{PARAMETER_SCALE, item_of, to_arrow};

/// The parameters of a `Bind`: `declared` are the types the client named, `wanted` those of the statement.
pub fn read(
    values: &[Option<Bytes>],
    formats: &[i16],
    declared: &[u32],
    wanted: &[Type],
) -> Result<Vec<Param>, SqlError> {
    if values.len() != wanted.len() {
        let message =
            format!("bind message supplies {} parameters, but the statement requires {}", values.len(), wanted.len());
        return Err(SqlError::new("08P01", message));
    }
    if formats.len() > 1 && formats.len() != values.len() {
        return Err(SqlError::new("08P01", "bind message has another number of formats than of parameters"));
    }
    let one = |(i, value): (usize, &Option<Bytes>)| {
        let named = declared.get(i).and_then(|oid| Type::from_oid(*oid)).filter(|t| *t != Type::UNKNOWN);
        let binary = formats.get(if formats.len() == 1 { 0 } else { i }) == Some(&1);
        param(value.as_ref(), binary, named.as_ref(), &wanted[i])
            .map_err(|e| if e.detail.is_some() { e } else { e.detail(format!("This is parameter ${}.", i + 1)) })
    };
    values.iter().enumerate().map(one).collect()
}

fn param(value: Option<&Bytes>, binary: bool, named: Option<&Type>, wanted: &Type) -> Result<Param, SqlError> {
    let Some(value) = value else {
        return Ok(match named.and_then(|t| to_arrow(t.oid())) {
            Some(data_type) => Param::Value(new_null_array(&data_type, 1)),
            None => Param::Text(None),
        });
    };
    if binary {
        let pg_type = named.unwrap_or(wanted);
        return from_binary(value.clone(), pg_type);
    }
    let text = std::str::from_utf8(value)
        .map_err(|_| SqlError::new("22021", "invalid byte sequence for encoding \"UTF8\": 0x00"))?;
    match named {
        None => Ok(Param::Text(Some(text.to_string()))),
        Some(pg_type) if is_text(pg_type) => Ok(Param::Text(Some(text.to_string()))),
        Some(pg_type) => match from_text(text, pg_type)? {
            Some(array) => Ok(Param::Value(array)),
            None => Ok(Param::Text(Some(text.to_string()))),
        },
    }
}

/// Types whose text is the value.
fn is_text(pg_type: &Type) -> bool {
    matches!(
        *pg_type,
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::CHAR | Type::JSON | Type::JSONB | Type::UUID
    )
}

/// Reads text as a type; `None` when only the statement can tell what it is.
fn from_text(text: &str, pg_type: &Type) -> Result<Option<ArrayRef>, SqlError> {
    let Some(data_type) = to_arrow(pg_type.oid()) else { return Ok(None) };
    if let Some(item) = item_of(pg_type) {
        return array_from_text(text, &item).map(Some);
    }
    if *pg_type == Type::BYTEA {
        return Ok(Some(Arc::new(BinaryArray::from_vec(vec![&bytea(text)?]))));
    }
    if *pg_type == Type::NUMERIC && !fits_scale(text) {
        return Ok(None);
    }
    let source = StringArray::from(vec![text.trim()]);
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(&source, &data_type, &options).map(Some).map_err(|_| invalid(pg_type.name(), text))
}

/// Whether a number keeps all its digits in the type of parameters.
fn fits_scale(text: &str) -> bool {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    whole.len() <= 28 && fraction.len() <= PARAMETER_SCALE as usize && !text.contains(['e', 'E', 'N', 'I'])
}

/// Reads `\x0aff`, or the escape format.
fn bytea(text: &str) -> Result<Vec<u8>, SqlError> {
    if let Some(hex) = text.strip_prefix("\\x") {
        let digit = |c: u8| (c as char).to_digit(16).map(|d| d as u8).ok_or_else(|| invalid("bytea", text));
        if hex.len() % 2 != 0 {
            return Err(invalid("bytea", text));
        }
        return hex.as_bytes().chunks(2).map(|pair| Ok(digit(pair[0])? << 4 | digit(pair[1])?)).collect();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = match (first, tail) {
            (b'\\', [b'\\', after @ ..]) => {
                bytes.push(b'\\');
                after
            }
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                after
            }
            (b'\\', _) => return Err(invalid("bytea", text)),
            _ => {
                bytes.push(*first);
                tail
            }
        };
    }
    Ok(bytes)
}

/// Reads `{a,"b c",NULL}`.
fn array_from_text(text: &str, item: &Type) -> Result<ArrayRef, SqlError> {
    let mut items = Vec::new();
    for element in array_elements(text).ok_or_else(|| invalid(&format!("{}[]", item.name()), text))? {
        items.push(match element {
            None => None,
            Some(element) if is_text(item) => Some(Arc::new(StringArray::from(vec![element])) as ArrayRef),
            Some(element) => Some(from_text(&element, item)?.ok_or_else(|| invalid(item.name(), &element))?),
        });
    }
    list(items, item)
}

/// The elements of an array literal of one dimension; `None` if it is not one.
fn array_elements(text: &str) -> Option<Vec<Option<String>>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut elements = Vec::new();
    if inner.trim().is_empty() {
        return Some(elements);
    }
    let mut chars = inner.chars().peekable();
    loop {
        let (mut element, mut quoted, mut inside) = (String::new(), false, false);
        let more = loop {
            match chars.next() {
                None if inside => return None,
                None => break false,
                Some('\\') => element.push(chars.next()?),
                Some('"') => (quoted, inside) = (true, !inside),
                Some(',') if !inside => break true,
                Some('{' | '}') if !inside => return None,
                Some(c) if inside || !c.is_whitespace() || !element.is_empty() => element.push(c),
                Some(_) => {}
            }
        };
        if !quoted {
            element.truncate(element.trim_end().len());
        }
        elements.push(if !quoted && element.eq_ignore_ascii_case("null") { None } else { Some(element) });
        if !more {
            return Some(elements);
        }
    }
}

/// One list of the items.
fn list(items: Vec<Option<ArrayRef>>, item: &Type) -> Result<ArrayRef, SqlError> {
    let data_type = to_arrow(item.oid()).ok_or_else(|| unsupported(item))?;
    let arrays: Vec<ArrayRef> = items.into_iter().map(|i| i.unwrap_or_else(|| new_null_array(&data_type, 1))).collect();
    let parts: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
    let values = if parts.is_empty() {
        new_null_array(&data_type, 0)
    } else {
        concat(&parts).map_err(|e| SqlError::internal(e.to_string()))?
    };
    let field = Arc::new(Field::new("item", data_type, true));
    Ok(Arc::new(ListArray::new(field, OffsetBuffer::from_lengths([values.len()]), values, None)))
}

fn unsupported(pg_type: &Type) -> SqlError {
    SqlError::not_supported(format!("parameters of type {} in binary format are not supported", pg_type.name()))
}

fn malformed(pg_type: &Type) -> SqlError {
    let message = format!("incorrect binary data format for a parameter of type {}", pg_type.name());
    SqlError::new("22P03", message)
}

fn from_binary(bytes: Bytes, pg_type: &Type) -> Result<Param, SqlError> {
    if is_text(pg_type) && *pg_type != Type::UUID {
        let from = usize::from(*pg_type == Type::JSONB).min(bytes.len());
        let text = std::str::from_utf8(&bytes[from..]).map_err(|_| malformed(pg_type))?;
        return Ok(Param::Text(Some(text.to_string())));
    }
    if *pg_type == Type::NUMERIC {
        let text = numeric(bytes).ok_or_else(|| malformed(pg_type))?;
        return Ok(from_text(&text, pg_type)?.map_or(Param::Text(Some(text)), Param::Value));
    }
    Ok(Param::Value(value(bytes, pg_type)?))
}

/// A value of any type but NULL.
fn value(mut bytes: Bytes, pg_type: &Type) -> Result<ArrayRef, SqlError> {
    if let Some(item) = item_of(pg_type) {
        return array_from_binary(bytes, &item);
    }
    let array: ArrayRef = match (pg_type, bytes.len()) {
        (&Type::BOOL, 1) => Arc::new(BooleanArray::from(vec![bytes[0] != 0])),
        (&Type::INT2, 2) => Arc::new(Int16Array::from(vec![bytes.get_i16()])),
        (&Type::INT4, 4) => Arc::new(Int32Array::from(vec![bytes.get_i32()])),
        (&Type::INT8, 8) => Arc::new(Int64Array::from(vec![bytes.get_i64()])),
        (&Type::OID, 4) => Arc::new(Int64Array::from(vec![i64::from(bytes.get_u32())])),
        (&Type::FLOAT4, 4) => Arc::new(Float32Array::from(vec![bytes.get_f32()])),
        (&Type::FLOAT8, 8) => Arc::new(Float64Array::from(vec![bytes.get_f64()])),
        (&Type::BYTEA, _) => Arc::new(BinaryArray::from_vec(vec![&bytes])),
        (&Type::DATE, 4) => Arc::new(Date32Array::from(vec![bytes.get_i32().saturating_add(EPOCH_DAYS)])),
        (&Type::TIME, 8) => Arc::new(Time64MicrosecondArray::from(vec![bytes.get_i64()])),
        (&Type::TIMESTAMP, 8) => Arc::new(timestamp(bytes.get_i64())),
        (&Type::TIMESTAMPTZ, 8) => Arc::new(timestamp(bytes.get_i64()).with_timezone("UTC")),
        (&Type::INTERVAL, 16) => Arc::new(interval(bytes)?),
        (&Type::UUID, 16) => Arc::new(StringArray::from(vec![uuid_text(bytes.get_u128())])),
        (&Type::NUMERIC, _) => {
            let text = numeric(bytes).ok_or_else(|| malformed(pg_type))?;
            from_text(&text, pg_type)?.unwrap_or_else(|| Arc::new(Decimal128Array::new_null(1)))
        }
        (text, _) if is_text(text) && *text != Type::UUID => {
            let from = usize::from(*pg_type == Type::JSONB).min(bytes.len());
            Arc::new(StringArray::from(vec![std::str::from_utf8(&bytes[from..]).map_err(|_| malformed(pg_type))?]))
        }
        (other, _) if to_arrow(other.oid()).is_some() => return Err(malformed(other)),
        (other, _) => return Err(unsupported(other)),
    };
    Ok(array)
}

fn timestamp(micros: i64) -> TimestampMicrosecondArray {
    TimestampMicrosecondArray::from(vec![micros.saturating_add(EPOCH_MICROS)])
}

fn interval(mut bytes: Bytes) -> Result<IntervalMonthDayNanoArray, SqlError> {
    let (micros, days, months) = (bytes.get_i64(), bytes.get_i32(), bytes.get_i32());
    let nanos = micros.checked_mul(1000).ok_or_else(|| SqlError::new("22008", "interval out of range"))?;
    Ok(IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNanoType::make_value(months, days, nanos)]))
}

fn uuid_text(value: u128) -> String {
    let hex = format!("{value:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn array_from_binary(mut bytes: Bytes, item: &Type) -> Result<ArrayRef, SqlError> {
    let short = || malformed(item);
    let dimensions = bytes.try_get_i32().map_err(|_| short())?;
    let _has_nulls = bytes.try_get_i32().map_err(|_| short())?;
    let sent = bytes.try_get_u32().map_err(|_| short())?;
    let item = Type::from_oid(sent).filter(|t| *t == *item || item_of(t).is_none()).ok_or_else(short)?;
    match dimensions {
        0 => return list(Vec::new(), &item),
        1 => {}
        _ => {
            return Err(SqlError::not_supported(
                "parameters that are arrays of arrays are not supported in binary format",
            ));
        }
    }
    let count = bytes.try_get_i32().map_err(|_| short())?;
    let _first_index = bytes.try_get_i32().map_err(|_| short())?;
    let mut items = Vec::new();
    for _ in 0..count {
        let len = bytes.try_get_i32().map_err(|_| short())?;
        if len < 0 {
            items.push(None);
        } else if bytes.remaining() < len as usize {
            return Err(short());
        } else {
            items.push(Some(value(bytes.split_to(len as usize), &item)?));
        }
    }
    list(items, &item)
}

/// A numeric's text; `None` if malformed.
fn numeric(mut bytes: Bytes) -> Option<String> {
    let count = bytes.try_get_u16().ok()?;
    let weight = bytes.try_get_i16().ok()?;
    let sign = bytes.try_get_u16().ok()?;
    let scale = usize::from(bytes.try_get_u16().ok()?);
    match sign {
        0 | 0x4000 => {}
        0xC000 => return Some("NaN".into()),
        0xD000 => return Some("Infinity".into()),
        0xF000 => return Some("-Infinity".into()),
        _ => return None,
    }
    if bytes.remaining() != usize::from(count) * 2 || scale > 0x3fff {
        return None;
    }
    let digits: Vec<i16> = (0..count).map(|_| bytes.get_i16()).collect();
    if digits.iter().any(|d| !(0..10_000).contains(d)) {
        return None;
    }
    let group = |at: i32| digits.get(usize::try_from(at).ok()?).copied();
    let whole: String = (0..=i32::from(weight)).map(|i| format!("{:04}", group(i).unwrap_or(0))).collect();
    let first = i32::from(weight) + 1;
    let mut fraction: String =
        (0..scale.div_ceil(4) as i32).map(|i| format!("{:04}", group(first + i).unwrap_or(0))).collect();
    fraction.truncate(scale);
    let whole = Some(whole.trim_start_matches('0')).filter(|w| !w.is_empty()).unwrap_or("0");
    let sign = if sign == 0x4000 { "-" } else { "" };
    Some(if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

/// The Arrow types to plan with for the types that a client named.
pub fn declared_types(oids: &[u32]) -> Vec<Option<DataType>> {
    oids.iter().map(|oid| to_arrow(*oid)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::{Decimal128Type, Int32Type};
    use bytes::BytesMut;
    use postgres_types::ToSql;
    use tidemill_engine::state;

    fn binary(value: &dyn ToSqlHere, pg_type: &Type) -> ArrayRef {
        super::value(value.bytes(pg_type), pg_type).unwrap()
    }

    trait ToSqlHere {
        fn bytes(&self, pg_type: &Type) -> Bytes;
    }

    impl<T: ToSql> ToSqlHere for T {
        fn bytes(&self, pg_type: &Type) -> Bytes {
            let mut out = BytesMut::new();
            let _ = self.to_sql(pg_type, &mut out).unwrap();
            out.freeze()
        }
    }

    #[test]
    fn reads_what_a_foreign_encoder_writes() {
        assert_eq!(binary(&7i32, &Type::INT4).as_primitive::<Int32Type>().value(0), 7);
        assert_eq!(binary(&"x", &Type::TEXT).as_string::<i32>().value(0), "x");
        let list = binary(&vec![Some(1), None], &Type::INT4_ARRAY);
        assert_eq!(list.as_list::<i32>().value(0).len(), 2);
        assert_eq!(list.as_list::<i32>().value(0).null_count(), 1);
    }

    #[test]
    fn reads_numerics() {
        let digits = |words: &[u16]| words.iter().flat_map(|w| w.to_be_bytes()).collect::<Bytes>();
        assert_eq!(numeric(digits(&[2, 0, 0, 2, 123, 4500])).unwrap(), "123.45");
        assert_eq!(numeric(digits(&[1, 0xfffe, 0x4000, 5, 5000])).unwrap(), "-0.00005");
        assert_eq!(numeric(digits(&[1, 1, 0, 0, 12])).unwrap(), "120000");
        assert_eq!(numeric(digits(&[9, 1, 0, 0, 12])), None);
        let param = from_text("-1.5", &Type::NUMERIC).unwrap().unwrap();
        assert_eq!(param.as_primitive::<Decimal128Type>().value(0), -15_000_000_000);
    }

    #[test]
    fn reads_text() {
        assert_eq!(array_elements(r#"{a, "b,\"c", NULL}"#).unwrap(), [Some("a".into()), Some("b,\"c".into()), None]);
        assert_eq!(array_elements("{}").unwrap().len(), 0);
        assert_eq!(array_elements("{\"a}"), None);
        assert_eq!(bytea("\\x0aFF").unwrap(), [10, 255]);
        assert_eq!(bytea("a\\\\\\001").unwrap(), [b'a', b'\\', 1]);
        assert!(from_text("abc", &Type::INT4).unwrap_err().code == state::INVALID_TEXT_REPRESENTATION);
        assert!(from_text("t", &Type::BOOL).is_ok());
    }

    #[test]
    fn garbage_is_refused() {
        for pg_type in [Type::INT4, Type::UUID, Type::INT4_ARRAY, Type::NUMERIC, Type::INTERVAL, Type::TIMESTAMP] {
            for len in [0, 1, 3, 5, 11] {
                assert!(value(Bytes::from(vec![0xee; len]), &pg_type).is_err(), "{pg_type} {len}");
            }
        }
    }
}
