//! Values as PostgreSQL writes them: for its wire protocol, for CSV and for `COPY`.

use std::fmt::Write;

use arrow::array::{Array, AsArray, GenericListArray, OffsetSizeTrait, StructArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Date64Type, Decimal128Type, Decimal256Type, Field, Float16Type,
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, IntervalMonthDayNano,
    IntervalMonthDayNanoType, IntervalUnit, Time32MillisecondType, Time32SecondType, Time64MicrosecondType,
    Time64NanosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::calendar::{DAY_MICROS, push_padded, write_date, write_fraction, write_time};

/// Precision and scale of a `numeric` that was declared without them.
const UNLIMITED: (u8, i8) = (38, 10);

/// A decimal's text as users see it. A `numeric` without a scale has no zeros of its own at the end.
pub(crate) fn shown_decimal(text: &str, precision: u8, scale: i8) -> &str {
    match (precision, scale) == UNLIMITED && text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => text,
    }
}

/// Appends the text of one value; nothing for NULL, which every format marks in its own way.
pub fn pg_text(array: &dyn Array, row: usize, field: &Field, out: &mut String) {
    if array.is_null(row) {
        return;
    }
    match array.data_type() {
        DataType::Null => {}
        DataType::Boolean => out.push(if array.as_boolean().value(row) { 't' } else { 'f' }),
        DataType::Int8 => display::<Int8Type>(array, row, out),
        DataType::Int16 => display::<Int16Type>(array, row, out),
        DataType::Int32 => display::<Int32Type>(array, row, out),
        DataType::Int64 => display::<Int64Type>(array, row, out),
        DataType::UInt8 => display::<UInt8Type>(array, row, out),
        DataType::UInt16 => display::<UInt16Type>(array, row, out),
        DataType::UInt32 => display::<UInt32Type>(array, row, out),
        DataType::UInt64 => display::<UInt64Type>(array, row, out),
        DataType::Float16 => write_f32(f32::from(array.as_primitive::<Float16Type>().value(row)), out),
        DataType::Float32 => write_f32(array.as_primitive::<Float32Type>().value(row), out),
        DataType::Float64 => write_f64(array.as_primitive::<Float64Type>().value(row), out),
        DataType::Decimal128(precision, scale) => {
            let text = array.as_primitive::<Decimal128Type>().value_as_string(row);
            out.push_str(shown_decimal(&text, *precision, *scale));
        }
        DataType::Decimal256(..) => out.push_str(&array.as_primitive::<Decimal256Type>().value_as_string(row)),
        DataType::Date32 => date(i64::from(array.as_primitive::<Date32Type>().value(row)), out),
        DataType::Date64 => date(array.as_primitive::<Date64Type>().value(row).div_euclid(86_400_000), out),
        DataType::Time32(_) | DataType::Time64(_) => time(array, row, out),
        DataType::Timestamp(unit, zone) => timestamp(timestamp_micros(array, row, *unit), ' ', zone.is_some(), out),
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            write_interval(array.as_primitive::<IntervalMonthDayNanoType>().value(row), out);
        }
        DataType::List(item) => list(array.as_list::<i32>(), row, item, out),
        DataType::LargeList(item) => list(array.as_list::<i64>(), row, item, out),
        DataType::Struct(_) => record(array.as_struct(), row, out),
        _ => bytes_or_other(array, row, field, out),
    }
}

/// Text and byte strings of any layout, and whatever else Arrow knows.
fn bytes_or_other(array: &dyn Array, row: usize, field: &Field, out: &mut String) {
    match array.data_type() {
        DataType::Utf8 => out.push_str(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => out.push_str(array.as_string::<i64>().value(row)),
        DataType::Utf8View => out.push_str(array.as_string_view().value(row)),
        DataType::Binary => write_hex(array.as_binary::<i32>().value(row), out),
        DataType::LargeBinary => write_hex(array.as_binary::<i64>().value(row), out),
        DataType::BinaryView => write_hex(array.as_binary_view().value(row), out),
        DataType::FixedSizeBinary(_) => write_hex(array.as_fixed_size_binary().value(row), out),
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let key = dictionary.normalized_keys()[row];
            pg_text(dictionary.values().as_ref(), key, field, out);
        }
        _ => other(array, row, out),
    }
}

/// Types that SQL gives no name: as Arrow prints them.
pub(crate) fn other(array: &dyn Array, row: usize, out: &mut String) {
    if let Ok(formatter) = ArrayFormatter::try_new(array, &FormatOptions::default()) {
        let _ = write!(out, "{}", formatter.value(row));
    }
}

fn display<T: ArrowPrimitiveType>(array: &dyn Array, row: usize, out: &mut String)
where
    T::Native: std::fmt::Display,
{
    let _ = write!(out, "{}", array.as_primitive::<T>().value(row));
}

fn date(days: i64, out: &mut String) {
    if write_date(days, out) {
        out.push_str(" BC");
    }
}

/// A time of day of any unit, in microseconds.
fn time(array: &dyn Array, row: usize, out: &mut String) {
    let micros = match array.data_type() {
        DataType::Time32(TimeUnit::Second) => {
            i64::from(array.as_primitive::<Time32SecondType>().value(row)) * 1_000_000
        }
        DataType::Time32(_) => i64::from(array.as_primitive::<Time32MillisecondType>().value(row)) * 1000,
        DataType::Time64(TimeUnit::Nanosecond) => array.as_primitive::<Time64NanosecondType>().value(row) / 1000,
        _ => array.as_primitive::<Time64MicrosecondType>().value(row),
    };
    write_time(micros.rem_euclid(DAY_MICROS) as u64, out);
}

/// A timestamp of any unit in microseconds.
pub(crate) fn timestamp_micros(array: &dyn Array, row: usize, unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => array.as_primitive::<TimestampSecondType>().value(row).saturating_mul(1_000_000),
        TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().value(row).saturating_mul(1000),
        TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().value(row),
        TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().value(row).div_euclid(1000),
    }
}

fn timestamp(micros: i64, between: char, zoned: bool, out: &mut String) {
    let before_christ = write_date(micros.div_euclid(DAY_MICROS), out);
    out.push(between);
    write_time(micros.rem_euclid(DAY_MICROS) as u64, out);
    if zoned {
        out.push_str("+00");
    }
    if before_christ {
        out.push_str(" BC");
    }
}

/// `\x` and two digits per byte.
pub(crate) fn write_hex(bytes: &[u8], out: &mut String) {
    out.push_str("\\x");
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            out.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
}

/// As PostgreSQL writes `double precision`: the shortest digits that give the same number back.
pub(crate) fn write_f64(value: f64, out: &mut String) {
    if !special(value, out) {
        shortest(&format!("{value:e}"), 15, out);
    }
}

/// As PostgreSQL writes `real`.
pub(crate) fn write_f32(value: f32, out: &mut String) {
    if !special(f64::from(value), out) {
        shortest(&format!("{value:e}"), 6, out);
    }
}

fn special(value: f64, out: &mut String) -> bool {
    if value.is_nan() {
        out.push_str("NaN");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "Infinity" } else { "-Infinity" });
    }
    !value.is_finite()
}

/// Turns `-1.25e3` into `-1250`, keeping the exponent when it is below -4 or at least `fixed_below`.
fn shortest(scientific: &str, fixed_below: i32, out: &mut String) {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, digits) = mantissa.strip_prefix('-').map_or(("", mantissa), |m| ("-", m));
    out.push_str(sign);
    if exponent < -4 || exponent >= fixed_below {
        out.push_str(digits);
        out.push_str(if exponent < 0 { "e-" } else { "e+" });
        push_padded(out, u64::from(exponent.unsigned_abs()), 2);
        return;
    }
    let digits: String = digits.chars().filter(|c| *c != '.').collect();
    if exponent < 0 {
        out.push_str("0.");
        (1..-exponent).for_each(|_| out.push('0'));
        out.push_str(&digits);
        return;
    }
    let whole = exponent as usize + 1;
    if digits.len() <= whole {
        out.push_str(&digits);
        (digits.len()..whole).for_each(|_| out.push('0'));
    } else {
        out.push_str(&digits[..whole]);
        out.push('.');
        out.push_str(&digits[whole..]);
    }
}

/// As PostgreSQL writes `interval`: `1 year 2 mons -3 days +04:05:06.7`.
pub(crate) fn write_interval(value: IntervalMonthDayNano, out: &mut String) {
    let start = out.len();
    let mut after_negative = false;
    for (count, one, many) in
        [(value.months / 12, "year", "years"), (value.months % 12, "mon", "mons"), (value.days, "day", "days")]
    {
        if count != 0 {
            let space = if out.len() > start { " " } else { "" };
            let plus = if after_negative && count > 0 { "+" } else { "" };
            let unit = if count == 1 { one } else { many };
            let _ = write!(out, "{space}{plus}{count} {unit}");
            after_negative = count < 0;
        }
    }
    let micros = value.nanoseconds / 1000;
    if micros == 0 && out.len() > start {
        return;
    }
    if out.len() > start {
        out.push(' ');
    }
    if micros < 0 {
        out.push('-');
    } else if after_negative {
        out.push('+');
    }
    let (micros, seconds) = (micros.unsigned_abs() % 1_000_000, micros.unsigned_abs() / 1_000_000);
    push_padded(out, seconds / 3600, 2);
    out.push(':');
    push_padded(out, seconds / 60 % 60, 2);
    out.push(':');
    push_padded(out, seconds % 60, 2);
    write_fraction(micros, out);
}

fn list<O: OffsetSizeTrait>(array: &GenericListArray<O>, row: usize, item: &Field, out: &mut String) {
    let values = array.value(row);
    out.push('{');
    let mut text = String::new();
    for i in 0..values.len() {
        if i > 0 {
            out.push(',');
        }
        if values.is_null(i) {
            out.push_str("NULL");
        } else if matches!(values.data_type(), DataType::List(_) | DataType::LargeList(_)) {
            pg_text(values.as_ref(), i, item, out);
        } else {
            text.clear();
            pg_text(values.as_ref(), i, item, &mut text);
            quoted_element(&text, out);
        }
    }
    out.push('}');
}

fn quoted_element(text: &str, out: &mut String) {
    let special = |c: char| matches!(c, '{' | '}' | ',' | '"' | '\\') || c.is_ascii_whitespace();
    if !text.is_empty() && !text.eq_ignore_ascii_case("null") && !text.contains(special) {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

/// A composite value: `(1,"a b",)`.
fn record(array: &StructArray, row: usize, out: &mut String) {
    out.push('(');
    let mut text = String::new();
    for (i, (column, field)) in array.columns().iter().zip(array.fields()).enumerate() {
        if i > 0 {
            out.push(',');
        }
        if column.is_null(row) {
            continue;
        }
        text.clear();
        pg_text(column.as_ref(), row, field, &mut text);
        let special = |c: char| matches!(c, '(' | ')' | ',' | '"' | '\\') || c.is_ascii_whitespace();
        if !text.is_empty() && !text.contains(special) {
            out.push_str(&text);
            continue;
        }
        out.push('"');
        for c in text.chars() {
            if matches!(c, '"' | '\\') {
                // PostgreSQL doubles both in composite values.
                out.push(c);
            }
            out.push(c);
        }
        out.push('"');
    }
    out.push(')');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float32Array, Float64Array, ListArray, StringArray,
        TimestampMicrosecondArray,
    };
    use arrow::datatypes::Int32Type;

    use super::*;

    fn text(array: &dyn Array) -> Vec<String> {
        let field = Field::new("c", array.data_type().clone(), true);
        (0..array.len())
            .map(|i| {
                let mut out = String::new();
                pg_text(array, i, &field, &mut out);
                out
            })
            .collect()
    }

    #[test]
    fn floats() {
        let values = [1.0, 1.5, -0.0, 1e14, 1e15, 123_456_789_012_345_680.0, 0.0001, 0.00001, 0.1 + 0.2, f64::NAN];
        let expect = [
            "1",
            "1.5",
            "-0",
            "100000000000000",
            "1e+15",
            "1.2345678901234568e+17",
            "0.0001",
            "1e-05",
            "0.30000000000000004",
            "NaN",
        ];
        assert_eq!(text(&Float64Array::from_iter_values(values)), expect);
        let reals = Float32Array::from(vec![1.5, 100_000.0, 1_000_000.0, f32::INFINITY]);
        assert_eq!(text(&reals), ["1.5", "100000", "1e+06", "Infinity"]);
    }

    #[test]
    fn scalars() {
        assert_eq!(text(&BooleanArray::from(vec![true, false])), ["t", "f"]);
        assert_eq!(text(&BinaryArray::from_vec(vec![b"\x00\xff"])), ["\\x00ff"]);
        let numbers = Decimal128Array::from(vec![-5, 12_345]).with_precision_and_scale(10, 2);
        assert_eq!(text(&numbers.expect("valid")), ["-0.05", "123.45"]);
        let times = vec![1_357_017_300_000_000, 1_357_017_300_120_000, -1];
        let plain = TimestampMicrosecondArray::from(times.clone());
        assert_eq!(text(&plain), ["2013-01-01 05:15:00", "2013-01-01 05:15:00.12", "1969-12-31 23:59:59.999999"]);
        let zoned = TimestampMicrosecondArray::from(times).with_timezone("UTC");
        assert_eq!(text(&zoned)[0], "2013-01-01 05:15:00+00");
    }

    #[test]
    fn intervals() {
        let show = |months, days, nanos| {
            let mut out = String::new();
            write_interval(IntervalMonthDayNano::new(months, days, nanos), &mut out);
            out
        };
        assert_eq!(show(0, 0, 0), "00:00:00");
        assert_eq!(show(14, 3, 14_706_700_000_000), "1 year 2 mons 3 days 04:05:06.7");
        assert_eq!(show(0, -1, 7_200_000_000_000), "-1 days +02:00:00");
        assert_eq!(show(-1, 1, -1_000_000_000), "-1 mons +1 day -00:00:01");
    }

    #[test]
    fn nested() {
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), Some(vec![])]);
        assert_eq!(text(&list), ["{1,NULL}", "{}"]);
        let words: ArrayRef =
            Arc::new(StringArray::from(vec![Some("a b"), Some("NULL"), Some("x\"y"), Some("z"), None]));
        let mut out = String::from("{");
        (0..4).for_each(|i| {
            quoted_element(words.as_string::<i32>().value(i), &mut out);
            out.push(',');
        });
        assert_eq!(out, "{\"a b\",\"NULL\",\"x\\\"y\",z,");
        let field = Arc::new(Field::new("w", DataType::Utf8, true));
        let rows = StructArray::from(vec![(field, words)]);
        assert_eq!(text(&rows), ["(\"a b\")", "(NULL)", "(\"x\"\"y\")", "(z)", "()"]);
    }
}
