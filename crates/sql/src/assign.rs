//! Assignment casts: how a value becomes one of a column's type, as PostgreSQL does it.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, Date32Array, Float32Array, Float64Array, IntervalMonthDayNanoArray,
    StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Date32Type, Field, Float32Type, Float64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit,
    TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::error_map::arrow_error;
use crate::functions::{normal_json, parse_interval, parse_timestamp};
use crate::sql_type::{LENGTH_KEY, PRECISION_KEY, TYPE_KEY, type_name};
use crate::{SqlError, state};

const TIMESTAMP: &str = "%Y-%m-%d %H:%M:%S%.f";
const TIMESTAMPTZ: &str = "%Y-%m-%d %H:%M:%S%.f%:z";

/// How values are written as text.
pub(crate) fn text_format() -> FormatOptions<'static> {
    FormatOptions::new().with_timestamp_format(Some(TIMESTAMP)).with_timestamp_tz_format(Some(TIMESTAMPTZ))
}

/// The values as those of the column `field`.
pub(crate) fn assign(values: &ArrayRef, field: &Field) -> Result<ArrayRef, SqlError> {
    let target = field.data_type();
    if values.data_type() == target {
        return checked(values.clone(), field);
    }
    if *values.data_type() == DataType::Null {
        return Ok(new_null_array(target, values.len()));
    }
    if !assignable(values.data_type(), target) {
        let from = type_name(values.data_type());
        let message =
            format!("column \"{}\" is of type {} but expression is of type {from}", field.name(), type_name(target));
        let hint = "You will need to rewrite or cast the expression.";
        return Err(SqlError::new(state::DATATYPE_MISMATCH, message).hint(hint));
    }
    checked(convert(values, target)?, field)
}

/// Whether PostgreSQL converts without being asked. From text it does so only for literals; here, where
/// a literal cannot be told from a text, for all.
fn assignable(from: &DataType, to: &DataType) -> bool {
    let temporal = |t: &DataType| matches!(t, DataType::Date32 | DataType::Date64 | DataType::Timestamp(..));
    let interval = |t: &DataType| matches!(t, DataType::Interval(_) | DataType::Duration(_));
    let time = |t: &DataType| matches!(t, DataType::Time32(_) | DataType::Time64(_));
    let text = |t: &DataType| t.is_string();
    let binary = |t: &DataType| t.is_binary();
    match (from, to) {
        (DataType::Dictionary(_, values), to) => assignable(values, to),
        (DataType::List(a) | DataType::LargeList(a) | DataType::FixedSizeList(a, _), DataType::List(b)) => {
            *a.data_type() == DataType::Null
                || a.data_type() == b.data_type()
                || assignable(a.data_type(), b.data_type())
        }
        (DataType::Struct(a), DataType::Struct(b)) => {
            let same = |(x, y): (&Arc<Field>, &Arc<Field>)| {
                x.data_type() == y.data_type() || assignable(x.data_type(), y.data_type())
            };
            a.len() == b.len() && a.iter().zip(b).all(same)
        }
        (from, to) => {
            text(from)
                || (text(to) && !from.is_nested())
                || (from.is_numeric() && to.is_numeric())
                || (temporal(from) && temporal(to))
                || (matches!(from, DataType::Timestamp(..)) && time(to))
                || (time(from) && time(to))
                || (interval(from) && interval(to))
                || (binary(from) && binary(to))
        }
    }
}

fn convert(values: &ArrayRef, target: &DataType) -> Result<ArrayRef, SqlError> {
    match (values.data_type(), target) {
        (from, DataType::Binary) if from.is_string() => bytes(values),
        (from, to) if from.is_string() && !to.is_string() => parse(values, to),
        (DataType::Binary, DataType::Utf8) => hex(values),
        (DataType::Float32 | DataType::Float64, to) if to.is_integer() => strict(&rounded(values), to),
        (DataType::Decimal128(precision, _), to) if to.is_integer() => {
            strict(&strict(values, &DataType::Decimal128(*precision, 0))?, to)
        }
        (_, to) => strict(values, to),
    }
}

/// A cast in which any value that does not fit is an error.
fn strict(values: &ArrayRef, target: &DataType) -> Result<ArrayRef, SqlError> {
    let options = CastOptions { safe: false, format_options: text_format() };
    cast_with_options(values, target, &options).map_err(|error| match error {
        ArrowError::CastError(_) | ArrowError::InvalidArgumentError(_) if target.is_numeric() => {
            SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, format!("{} out of range", type_name(target)))
        }
        other => arrow_error(&other),
    })
}

/// Halves to the even neighbour, where Arrow would cut.
fn rounded(values: &ArrayRef) -> ArrayRef {
    match values.data_type() {
        DataType::Float32 => {
            let values: Float32Array = values.as_primitive::<Float32Type>().unary(f32::round_ties_even);
            Arc::new(values)
        }
        DataType::Float64 => {
            let values: Float64Array = values.as_primitive::<Float64Type>().unary(f64::round_ties_even);
            Arc::new(values)
        }
        _ => values.clone(),
    }
}

/// Reads texts as values of another type.
fn parse(values: &ArrayRef, target: &DataType) -> Result<ArrayRef, SqlError> {
    let texts = strict(values, &DataType::Utf8)?;
    let texts = texts.as_string::<i32>();
    let input: ArrayRef = match target {
        DataType::Boolean => Arc::new(texts.iter().map(|text| text.map(boolean)).collect::<StringArray>()),
        DataType::List(element) => return lists(texts, element),
        DataType::Struct(_) => {
            let message = format!("a text cannot be read as {}", type_name(target));
            return Err(SqlError::not_supported(message));
        }
        _ => Arc::new(texts.iter().map(|text| text.map(str::trim)).collect::<StringArray>()),
    };
    let options = CastOptions { safe: true, format_options: text_format() };
    let parsed = cast_with_options(&input, target, &options).map_err(|error| arrow_error(&error))?;
    let parsed = if parsed.null_count() > texts.null_count() { reread(texts, parsed, target) } else { parsed };
    match (0..texts.len()).find(|i| parsed.is_null(*i) && !texts.is_null(*i)) {
        None => Ok(parsed),
        Some(row) => Err(invalid(target, texts.value(row))),
    }
}

/// Times and intervals in forms that only PostgreSQL reads.
fn reread(texts: &StringArray, parsed: ArrayRef, target: &DataType) -> ArrayRef {
    match target {
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            let known = parsed.as_primitive::<TimestampMicrosecondType>();
            let read =
                |(text, known): (Option<&str>, Option<i64>)| known.or_else(|| parse_timestamp(text?, zone.is_some()));
            let times: TimestampMicrosecondArray = texts.iter().zip(known).map(read).collect();
            Arc::new(times.with_data_type(target.clone()))
        }
        DataType::Date32 => {
            let known = parsed.as_primitive::<Date32Type>();
            let day = |text: &str| i32::try_from(parse_timestamp(text, false)?.div_euclid(86_400_000_000)).ok();
            Arc::new(texts.iter().zip(known).map(|(text, known)| known.or_else(|| day(text?))).collect::<Date32Array>())
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let known = parsed.as_primitive::<IntervalMonthDayNanoType>();
            let read = |(text, known): (Option<&str>, Option<_>)| known.or_else(|| parse_interval(text?));
            Arc::new(texts.iter().zip(known).map(read).collect::<IntervalMonthDayNanoArray>())
        }
        _ => parsed,
    }
}

/// The error for a text that is no value of a type.
fn invalid(target: &DataType, text: &str) -> SqlError {
    let digits = |t: &str| {
        let t = t.trim().trim_start_matches(['+', '-']);
        !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit())
    };
    if target.is_integer() && digits(text) {
        let message = format!("value \"{text}\" is out of range for type {}", type_name(target));
        return SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, message);
    }
    if let DataType::Decimal128(precision, scale) = target
        && text.trim().parse::<f64>().is_ok_and(f64::is_finite)
    {
        let detail = format!(
            "A field with precision {precision}, scale {scale} must round to an absolute value less than 10^{}.",
            i16::from(*precision) - i16::from(*scale)
        );
        return SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, "numeric field overflow").detail(detail);
    }
    let (code, name) = match target {
        DataType::Timestamp(..) | DataType::Date32 | DataType::Time64(_) | DataType::Interval(_) => {
            (state::INVALID_DATETIME_FORMAT, type_name(target))
        }
        DataType::Decimal128(..) => (state::INVALID_TEXT_REPRESENTATION, "numeric".to_owned()),
        _ => (state::INVALID_TEXT_REPRESENTATION, type_name(target)),
    };
    SqlError::new(code, format!("invalid input syntax for type {name}: \"{text}\""))
}

/// PostgreSQL's spellings as Arrow's.
fn boolean(text: &str) -> &'static str {
    match text.trim().to_ascii_lowercase().as_str() {
        "t" | "tr" | "tru" | "true" | "y" | "ye" | "yes" | "on" | "1" => "true",
        "f" | "fa" | "fal" | "fals" | "false" | "n" | "no" | "of" | "off" | "0" => "false",
        _ => "?",
    }
}

/// `\x0aff`, or the text's own bytes.
fn bytes(values: &ArrayRef) -> Result<ArrayRef, SqlError> {
    let texts = strict(values, &DataType::Utf8)?;
    let read = |text: Option<&str>| match text {
        None => Ok(None),
        Some(text) => match text.strip_prefix("\\x") {
            None => Ok(Some(text.as_bytes().to_vec())),
            Some(digits) => unhex(digits).map(Some).ok_or_else(|| invalid(&DataType::Binary, text)),
        },
    };
    let values = texts.as_string::<i32>().iter().map(read).collect::<Result<Vec<_>, SqlError>>()?;
    Ok(Arc::new(BinaryArray::from_iter(values)))
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let nibble = |byte: u8| char::from(byte).to_digit(16);
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::try_from(nibble(*pair.first()?)? * 16 + nibble(*pair.get(1)?)?).ok()).collect()
}

fn hex(values: &ArrayRef) -> Result<ArrayRef, SqlError> {
    let write = |bytes: &[u8]| bytes.iter().fold("\\x".to_owned(), |text, byte| text + &format!("{byte:02x}"));
    Ok(Arc::new(values.as_binary::<i32>().iter().map(|value| value.map(write)).collect::<StringArray>()))
}

/// Reads `{a,"b c",NULL}`.
fn lists(texts: &StringArray, element: &Arc<Field>) -> Result<ArrayRef, SqlError> {
    let mut items: Vec<Option<String>> = Vec::new();
    let mut lengths = Vec::with_capacity(texts.len());
    for text in texts {
        let before = items.len();
        if let Some(text) = text {
            list_items(text, &mut items).ok_or_else(|| {
                let message = format!("malformed array literal: \"{text}\"");
                SqlError::new(state::INVALID_TEXT_REPRESENTATION, message)
            })?;
        }
        lengths.push(items.len() - before);
    }
    let items: ArrayRef = Arc::new(StringArray::from_iter(items));
    let items = if items.data_type() == element.data_type() { items } else { convert(&items, element.data_type())? };
    let offsets = arrow::buffer::OffsetBuffer::from_lengths(lengths);
    let list = arrow::array::ListArray::try_new(element.clone(), offsets, items, texts.nulls().cloned());
    list.map(|list| Arc::new(list) as ArrayRef).map_err(|error| arrow_error(&error))
}

/// The elements of a one-dimensional array literal.
fn list_items(text: &str, items: &mut Vec<Option<String>>) -> Option<()> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut rest = inner.trim_start();
    while !rest.is_empty() {
        let (item, after) = list_item(rest)?;
        items.push(item);
        let after = after.trim_start();
        rest = match after.strip_prefix(',') {
            Some(next) if !next.trim().is_empty() => next.trim_start(),
            Some(_) => return None,
            None if after.is_empty() => after,
            None => return None,
        };
    }
    Some(())
}

fn list_item(text: &str) -> Option<(Option<String>, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(',').unwrap_or(text.len());
        let item = text[..end].trim();
        if item.is_empty() || item.contains(['{', '}', '"']) {
            return None;
        }
        let item = if item.eq_ignore_ascii_case("null") { None } else { Some(item.to_owned()) };
        return Some((item, &text[end..]));
    };
    let mut item = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, ch)) = chars.next() {
        match ch {
            '"' => return Some((Some(item), &quoted[at + 1..])),
            '\\' => item.push(chars.next()?.1),
            ch => item.push(ch),
        }
    }
    None
}

/// What a column's type says of its values beside their storage: the normal forms of `jsonb` and `uuid`, the
/// length of texts, the digits of times.
fn checked(values: ArrayRef, field: &Field) -> Result<ArrayRef, SqlError> {
    let limit = |key: &str| field.metadata().get(key).and_then(|limit| limit.parse::<usize>().ok());
    if let Some(digits) = limit(PRECISION_KEY) {
        return Ok(round_times(&values, i32::try_from(digits).unwrap_or(6)));
    }
    let Some(texts) = values.as_string_opt::<i32>() else { return Ok(values) };
    let kind = field.metadata().get(TYPE_KEY).map(String::as_str);
    let changed = |change: &dyn Fn(&str) -> Result<String, SqlError>| -> Result<ArrayRef, SqlError> {
        let texts = texts.iter().map(|text| text.map(change).transpose());
        Ok(Arc::new(texts.collect::<Result<StringArray, SqlError>>()?))
    };
    match (kind, limit(LENGTH_KEY)) {
        (Some("jsonb"), _) => changed(&normal_json),
        (Some("uuid"), _) => changed(&uuid),
        (_, Some(length)) => {
            let blanks = kind == Some("bpchar");
            changed(&|text| limited(text, length, blanks))
        }
        _ => Ok(values),
    }
}

/// A text of at most so many characters; blanks beyond them go, and all blanks at the end of a `char(n)`.
fn limited(text: &str, length: usize, blanks: bool) -> Result<String, SqlError> {
    let text = if blanks { text.trim_end_matches(' ') } else { text };
    let Some((end, _)) = text.char_indices().nth(length) else { return Ok(text.to_owned()) };
    if text[end..].chars().all(|c| c == ' ') {
        return Ok(text[..end].to_owned());
    }
    let name = if blanks { "character" } else { "character varying" };
    Err(SqlError::new(state::STRING_TOO_LONG, format!("value too long for type {name}({length})")))
}

/// Times rounded to some digits of a second.
pub(crate) fn round_times(times: &ArrayRef, digits: i32) -> ArrayRef {
    let Some(micros) = times.as_primitive_opt::<TimestampMicrosecondType>() else { return times.clone() };
    let unit = 10i64.pow(u32::try_from(6 - digits).unwrap_or(0).min(6));
    let round = |time: i64| time.saturating_add(unit / 2).div_euclid(unit).saturating_mul(unit);
    let rounded: TimestampMicrosecondArray = micros.unary(round);
    Arc::new(rounded.with_data_type(times.data_type().clone()))
}

/// A `uuid` in its normal form.
fn uuid(text: &str) -> Result<String, SqlError> {
    let lower = text.trim().trim_matches(['{', '}']).to_ascii_lowercase();
    let digits: String = lower.chars().filter(|c| *c != '-').collect();
    if digits.len() != 32 || !(is_uuid(&lower) || lower == digits) || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        let message = format!("invalid input syntax for type uuid: \"{text}\"");
        return Err(SqlError::new(state::INVALID_TEXT_REPRESENTATION, message));
    }
    let (a, b, c, d, e) = (&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]);
    Ok(format!("{a}-{b}-{c}-{d}-{e}"))
}

fn is_uuid(text: &str) -> bool {
    let groups: Vec<_> = text.split('-').collect();
    let hex = |group: &&str| group.bytes().all(|byte| byte.is_ascii_hexdigit());
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]) && groups.iter().all(hex)
}

/// One value as text; `None` for NULL.
pub(crate) fn value_text(values: &dyn Array, row: usize) -> Result<Option<String>, SqlError> {
    if values.is_null(row) {
        return Ok(None);
    }
    let options = text_format();
    let formatter = ArrayFormatter::try_new(values, &options).map_err(|error| arrow_error(&error))?;
    Ok(Some(formatter.value(row).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BooleanArray, Decimal128Array, Int32Array};
    use arrow::datatypes::{Int16Type, Int32Type};

    fn texts(values: &[&str]) -> ArrayRef {
        Arc::new(StringArray::from_iter_values(values))
    }

    fn to(values: &ArrayRef, target: DataType) -> Result<ArrayRef, SqlError> {
        assign(values, &Field::new("c", target, true))
    }

    #[test]
    fn numbers_are_rounded_and_checked() {
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![0.5, 1.5, -2.5, 2.6]));
        let ints = to(&floats, DataType::Int32).expect("fits");
        assert_eq!(ints.as_primitive::<Int32Type>().values(), &[0, 2, -2, 3]);
        let decimals: ArrayRef =
            Arc::new(Decimal128Array::from(vec![150, 249]).with_precision_and_scale(5, 2).expect("a decimal"));
        let ints = to(&decimals, DataType::Int16).expect("fits");
        assert_eq!(ints.as_primitive::<Int16Type>().values(), &[2, 2]);
        let large: ArrayRef = Arc::new(Int32Array::from(vec![70_000]));
        let error = to(&large, DataType::Int16).expect_err("too large");
        assert_eq!((error.code, error.message.as_str()), (state::NUMERIC_VALUE_OUT_OF_RANGE, "smallint out of range"));
    }

    #[test]
    fn texts_are_read_as_postgres_does() {
        let bools = to(&texts(&["t", " yes ", "OFF", "0"]), DataType::Boolean).expect("booleans");
        assert_eq!(bools.as_boolean(), &BooleanArray::from(vec![true, true, false, false]));
        for (text, target, code) in [
            ("abc", DataType::Int32, state::INVALID_TEXT_REPRESENTATION),
            ("1.5", DataType::Int32, state::INVALID_TEXT_REPRESENTATION),
            ("99999999999", DataType::Int32, state::NUMERIC_VALUE_OUT_OF_RANGE),
            ("maybe", DataType::Boolean, state::INVALID_TEXT_REPRESENTATION),
            ("today-ish", DataType::Timestamp(TimeUnit::Microsecond, None), state::INVALID_DATETIME_FORMAT),
            ("\\xabc", DataType::Binary, state::INVALID_TEXT_REPRESENTATION),
        ] {
            let error = to(&texts(&[text]), target).expect_err(text);
            assert_eq!(error.code, code, "{text}: {error}");
            assert!(error.message.contains(text), "{error}");
        }
        let stamps =
            to(&texts(&["2024-01-02 03:04:05.5", "2024-01-02"]), DataType::Timestamp(TimeUnit::Microsecond, None));
        assert_eq!(stamps.expect("timestamps").null_count(), 0);
        let bytes = to(&texts(&["\\x00ff", "ab"]), DataType::Binary).expect("bytes");
        assert_eq!(bytes.as_binary::<i32>().value(0), [0, 255]);
    }

    #[test]
    fn lists_are_read() {
        let target = DataType::List(Arc::new(Field::new_list_field(DataType::Int32, true)));
        let lists = to(&texts(&["{1, 2,NULL}", "{}"]), target.clone()).expect("lists");
        let lists = lists.as_list::<i32>();
        assert_eq!((lists.value(0).len(), lists.value(0).null_count(), lists.value(1).len()), (3, 1, 0));
        for bad in ["1", "{1", "{1,}", "{,1}", "{a}", "{{1}}"] {
            assert!(to(&texts(&[bad]), target.clone()).is_err(), "{bad}");
        }
        let target = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
        let lists = to(&texts(&[r#"{"a \"b\"", "NULL", c d}"#]), target).expect("lists");
        assert_eq!(
            lists.as_list::<i32>().value(0).as_string::<i32>(),
            &StringArray::from(vec!["a \"b\"", "NULL", "c d"])
        );
    }

    #[test]
    fn what_does_not_fit_is_a_mismatch() {
        let ints: ArrayRef = Arc::new(Int32Array::from(vec![1]));
        for target in [DataType::Boolean, DataType::Timestamp(TimeUnit::Microsecond, None), DataType::Date32] {
            assert_eq!(to(&ints, target).expect_err("refused").code, state::DATATYPE_MISMATCH);
        }
    }

    #[test]
    fn json_and_uuid_are_checked() {
        let tagged = |name: &str| {
            Field::new("c", DataType::Utf8, true)
                .with_metadata([("tidemill.type".to_owned(), name.to_owned())].into_iter().collect())
        };
        assert!(assign(&texts(&["{\"a\": 1}", "3"]), &tagged("jsonb")).is_ok());
        assert!(assign(&texts(&["{a: 1}"]), &tagged("jsonb")).is_err());
        assert!(assign(&texts(&["123e4567-e89b-12d3-a456-426614174000"]), &tagged("uuid")).is_ok());
        assert!(assign(&texts(&["123e4567"]), &tagged("uuid")).is_err());
    }
}
