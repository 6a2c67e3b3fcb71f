//! Rows as JSON text: for HTTP, for subscriptions, for sinks and for the command line.
//!
//! Timestamps are ISO text, decimals are numbers with all their digits, byte strings are PostgreSQL's
//! hexadecimal form, `jsonb` values stand in the output as they are, and what JSON cannot express
//! (NaN, infinities) is null.

use std::fmt::Write;

use arrow::array::{Array, AsArray, GenericListArray, OffsetSizeTrait, RecordBatch};
use arrow::datatypes::{
    DataType, Decimal128Type, Decimal256Type, Field, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use crate::calendar::{DAY_MICROS, write_date, write_time};
use crate::pg_text::{pg_text, shown_decimal, timestamp_micros};

/// Whether a column holds JSON text (field metadata `tidemill.type` = `jsonb`).
pub fn is_jsonb(field: &Field) -> bool {
    field.metadata().get("tidemill.type").is_some_and(|t| t == "jsonb")
}

/// Appends one row as a JSON object.
pub fn json_row(rows: &RecordBatch, row: usize, out: &mut String) {
    out.push('{');
    json_members(rows, row, out);
    out.push('}');
}

/// Appends one row as the inside of a JSON object (`"a":1,"b":2`), so that a caller can add members.
pub fn json_members(rows: &RecordBatch, row: usize, out: &mut String) {
    for (i, (column, field)) in rows.columns().iter().zip(rows.schema_ref().fields()).enumerate() {
        if i > 0 {
            out.push(',');
        }
        json_string(field.name(), out);
        out.push(':');
        json_value(column.as_ref(), row, field, out);
    }
}

/// Appends one row as a JSON array of its values.
pub fn json_array(rows: &RecordBatch, row: usize, out: &mut String) {
    out.push('[');
    for (i, (column, field)) in rows.columns().iter().zip(rows.schema_ref().fields()).enumerate() {
        if i > 0 {
            out.push(',');
        }
        json_value(column.as_ref(), row, field, out);
    }
    out.push(']');
}

/// Appends one value.
pub fn json_value(array: &dyn Array, row: usize, field: &Field, out: &mut String) {
    if array.is_null(row) {
        out.push_str("null");
        return;
    }
    match array.data_type() {
        DataType::Null => out.push_str("null"),
        DataType::Boolean => out.push_str(if array.as_boolean().value(row) { "true" } else { "false" }),
        DataType::Int8 => number(array.as_primitive::<Int8Type>().value(row), out),
        DataType::Int16 => number(array.as_primitive::<Int16Type>().value(row), out),
        DataType::Int32 => number(array.as_primitive::<Int32Type>().value(row), out),
        DataType::Int64 => number(array.as_primitive::<Int64Type>().value(row), out),
        DataType::UInt8 => number(array.as_primitive::<UInt8Type>().value(row), out),
        DataType::UInt16 => number(array.as_primitive::<UInt16Type>().value(row), out),
        DataType::UInt32 => number(array.as_primitive::<UInt32Type>().value(row), out),
        DataType::UInt64 => number(array.as_primitive::<UInt64Type>().value(row), out),
        DataType::Float16 => float(f32::from(array.as_primitive::<Float16Type>().value(row)), out),
        DataType::Float32 => float(array.as_primitive::<Float32Type>().value(row), out),
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(row), out),
        DataType::Decimal128(precision, scale) => {
            let text = array.as_primitive::<Decimal128Type>().value_as_string(row);
            out.push_str(shown_decimal(&text, *precision, *scale));
        }
        DataType::Decimal256(..) => out.push_str(&array.as_primitive::<Decimal256Type>().value_as_string(row)),
        DataType::Utf8 => text(array.as_string::<i32>().value(row), field, out),
        DataType::LargeUtf8 => text(array.as_string::<i64>().value(row), field, out),
        DataType::Utf8View => text(array.as_string_view().value(row), field, out),
        DataType::Timestamp(unit, zone) => timestamp(timestamp_micros(array, row, *unit), zone.is_some(), out),
        DataType::List(item) => list(array.as_list::<i32>(), row, item, out),
        DataType::LargeList(item) => list(array.as_list::<i64>(), row, item, out),
        DataType::Struct(_) => object(array, row, out),
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            json_value(dictionary.values().as_ref(), dictionary.normalized_keys()[row], field, out);
        }
        // Dates, times, intervals and byte strings: PostgreSQL's text, which needs no escapes but
        // for the backslash.
        _ => {
            let mut plain = String::new();
            pg_text(array, row, field, &mut plain);
            json_string(&plain, out);
        }
    }
}

fn number(value: impl std::fmt::Display, out: &mut String) {
    let _ = write!(out, "{value}");
}

/// Shortest digits that give the same number back, in a form that JSON allows.
fn float<F: Into<f64> + Copy + std::fmt::Display + std::fmt::LowerExp>(value: F, out: &mut String) {
    let wide: f64 = value.into();
    let size = wide.abs();
    if !wide.is_finite() {
        out.push_str("null");
    } else if size != 0.0 && !(1e-5..1e16).contains(&size) {
        let _ = write!(out, "{value:e}");
    } else {
        let _ = write!(out, "{value}");
    }
}

fn text(value: &str, field: &Field, out: &mut String) {
    if !is_jsonb(field) {
        json_string(value, out);
    } else if value.contains(['\n', '\r']) {
        // One row is one line in NDJSON and in server-sent events; inside JSON strings line breaks
        // are escaped, so these are white space.
        out.extend(value.chars().filter(|c| !matches!(c, '\n' | '\r')));
    } else {
        out.push_str(value);
    }
}

fn timestamp(micros: i64, zoned: bool, out: &mut String) {
    out.push('"');
    let before_christ = write_date(micros.div_euclid(DAY_MICROS), out);
    out.push('T');
    write_time(micros.rem_euclid(DAY_MICROS) as u64, out);
    if zoned {
        out.push('Z');
    }
    out.push_str(if before_christ { " BC\"" } else { "\"" });
}

fn list<O: OffsetSizeTrait>(array: &GenericListArray<O>, row: usize, item: &Field, out: &mut String) {
    let values = array.value(row);
    out.push('[');
    for i in 0..values.len() {
        if i > 0 {
            out.push(',');
        }
        json_value(values.as_ref(), i, item, out);
    }
    out.push(']');
}

fn object(array: &dyn Array, row: usize, out: &mut String) {
    let array = array.as_struct();
    out.push('{');
    for (i, (column, field)) in array.columns().iter().zip(array.fields()).enumerate() {
        if i > 0 {
            out.push(',');
        }
        json_string(field.name(), out);
        out.push(':');
        json_value(column.as_ref(), row, field, out);
    }
    out.push('}');
}

/// Appends a JSON string with its quotes.
pub fn json_string(value: &str, out: &mut String) {
    out.push('"');
    let mut done = 0;
    for (i, byte) in value.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..=0x1f => "",
            _ => continue,
        };
        out.push_str(&value[done..i]);
        if escape.is_empty() {
            let _ = write!(out, "\\u{byte:04x}");
        } else {
            out.push_str(escape);
        }
        done = i + 1;
    }
    out.push_str(&value[done..]);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BinaryArray, Decimal128Array, Float64Array, Int64Array, StringArray, StructArray,
        TimestampMicrosecondArray,
    };
    use arrow::datatypes::Schema;

    use super::*;

    #[test]
    fn a_row_of_many_types() {
        let inner: ArrayRef = Arc::new(Int64Array::from(vec![None, Some(7)]));
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("i", Arc::new(Int64Array::from(vec![1, i64::MIN]))),
            ("f", Arc::new(Float64Array::from(vec![f64::NAN, 1e300]))),
            ("d", Arc::new(Decimal128Array::from(vec![-1, 5]).with_precision_and_scale(9, 3).expect("valid"))),
            ("t", Arc::new(TimestampMicrosecondArray::from(vec![1_357_017_300_000_000, 500_000]).with_timezone("UTC"))),
            ("s", Arc::new(StringArray::from(vec!["a\"\\\n\u{1}é", ""]))),
            ("b", Arc::new(BinaryArray::from_vec(vec![b"\xab", b""]))),
            ("j", Arc::new(StringArray::from(vec!["{\"x\":\n[1]}", "null"]))),
            ("n", Arc::new(StructArray::from(vec![(Arc::new(Field::new("x", DataType::Int64, true)), inner)]))),
        ];
        let jsonb = [("tidemill.type".to_string(), "jsonb".to_string())].into();
        let fields: Vec<Field> = columns
            .iter()
            .map(|(name, column)| {
                let field = Field::new(*name, column.data_type().clone(), true);
                if *name == "j" { field.with_metadata(std::collections::HashMap::clone(&jsonb)) } else { field }
            })
            .collect();
        let columns = columns.into_iter().map(|(_, c)| c).collect();
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("valid");
        let mut out = String::new();
        json_row(&rows, 0, &mut out);
        out.push('\n');
        json_row(&rows, 1, &mut out);
        assert_eq!(
            out,
            "{\"i\":1,\"f\":null,\"d\":-0.001,\"t\":\"2013-01-01T05:15:00Z\",\"s\":\"a\\\"\\\\\\n\\u0001é\",\
             \"b\":\"\\\\xab\",\"j\":{\"x\":[1]},\"n\":{\"x\":null}}\n\
             {\"i\":-9223372036854775808,\"f\":1e300,\"d\":0.005,\"t\":\"1970-01-01T00:00:00.5Z\",\"s\":\"\",\
             \"b\":\"\\\\x\",\"j\":null,\"n\":{\"x\":7}}"
        );
    }
}
