//! `to_char(timestamp, format)` with PostgreSQL's formats (DataFusion's takes those of C's `strftime`).

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Datelike, NaiveDateTime, Timelike};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

use crate::provider::external;
use crate::{SqlError, state};

/// See the module.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct ToChar {
    signature: Signature,
}

impl ToChar {
    /// The function.
    pub(crate) fn new() -> Self {
        ToChar { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for ToChar {
    fn name(&self) -> &str {
        "to_char"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [time, _] = types else { return Err(usage("to_char takes a timestamp and a format")) };
        let zone = match time {
            DataType::Timestamp(_, zone) => zone.clone(),
            DataType::Date32 | DataType::Date64 | DataType::Utf8 | DataType::Null => None,
            other => return Err(usage(&format!("to_char({other}, ...) is not supported, only timestamps and dates"))),
        };
        Ok(vec![DataType::Timestamp(TimeUnit::Microsecond, zone), DataType::Utf8])
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [times, formats] = args.args.as_slice() else {
            return Err(usage("to_char takes a timestamp and a format"));
        };
        let times = times.to_array(args.number_rows)?;
        match formats {
            ColumnarValue::Scalar(ScalarValue::Utf8(Some(format))) => {
                Ok(ColumnarValue::Array(Arc::new(one_format(&times, format)?)))
            }
            ColumnarValue::Scalar(_) => Ok(ColumnarValue::Array(Arc::new(StringArray::new_null(times.len())))),
            ColumnarValue::Array(formats) => Ok(ColumnarValue::Array(Arc::new(many_formats(&times, formats)?))),
        }
    }
}

fn usage(message: &str) -> DataFusionError {
    external(SqlError::new(state::UNDEFINED_FUNCTION, message))
}

/// All times in one format. Neighbours mostly fall into the same day or minute: they share a text.
fn one_format(times: &ArrayRef, format: &str) -> Result<StringArray> {
    let format = Format::parse(format)?;
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let mut texts = StringBuilder::with_capacity(times.len(), times.len() * 12);
    let mut last: Option<(i64, String)> = None;
    for time in times.iter() {
        let Some(time) = time else {
            texts.append_null();
            continue;
        };
        let unit = time.div_euclid(format.unit);
        match &mut last {
            Some((known, text)) if *known == unit => texts.append_value(text),
            last => {
                let text = format.text(time)?;
                texts.append_value(&text);
                *last = Some((unit, text));
            }
        }
    }
    Ok(texts.finish())
}

fn many_formats(times: &ArrayRef, formats: &ArrayRef) -> Result<StringArray> {
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let pairs = times.iter().zip(formats.as_string::<i32>());
    let texts = pairs.map(|pair| match pair {
        (Some(time), Some(format)) => Format::parse(format)?.text(time).map(Some),
        _ => Ok(None),
    });
    texts.collect::<Result<StringArray>>()
}

/// A piece of a format.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field {
        pattern: &'static str,
        /// `FM`: without padding.
        bare: bool,
        /// `TH`, `th`: with the ending of an ordinal number.
        ordinal: Option<&'static str>,
    },
}

/// A format, taken apart.
struct Format {
    pieces: Vec<Piece>,
    /// Times of the same multiple of these microseconds have the same text.
    unit: i64,
}

/// The patterns and the microseconds that they tell apart; longer ones first.
const PATTERNS: &[(&str, i64)] = &[
    ("MONTH", DAY),
    ("Month", DAY),
    ("month", DAY),
    ("YYYY", DAY),
    ("HH24", HOUR),
    ("HH12", HOUR),
    ("IYYY", DAY),
    ("DDD", DAY),
    ("DAY", DAY),
    ("Day", DAY),
    ("day", DAY),
    ("MON", DAY),
    ("Mon", DAY),
    ("mon", DAY),
    ("YY", DAY),
    ("MM", DAY),
    ("DD", DAY),
    ("DY", DAY),
    ("Dy", DAY),
    ("dy", DAY),
    ("ID", DAY),
    ("IW", DAY),
    ("HH", HOUR),
    ("MI", 60_000_000),
    ("SS", 1_000_000),
    ("MS", 1000),
    ("US", 1),
    ("AM", HOUR),
    ("PM", HOUR),
    ("am", HOUR),
    ("pm", HOUR),
    ("D", DAY),
    ("Q", DAY),
];
const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;

impl Format {
    fn parse(format: &str) -> Result<Format> {
        let (mut pieces, mut unit) = (Vec::new(), DAY);
        let (mut rest, mut bare) = (format, false);
        while let Some(first) = rest.chars().next() {
            let upper = |pattern: &str| pattern.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
            let matches = |pattern: &&(&'static str, i64)| {
                let head = rest.get(..pattern.0.len());
                // Patterns that print digits may be written in lower case too.
                head == Some(pattern.0)
                    || prints_digits(pattern.0)
                        && upper(pattern.0)
                        && head.is_some_and(|h| h.eq_ignore_ascii_case(pattern.0))
            };
            if first == '"' {
                let (quoted, after) = rest[1..].split_once('"').unwrap_or((&rest[1..], ""));
                pieces.push(Piece::Text(quoted.to_string()));
                rest = after;
            } else if let Some((pattern, own)) = PATTERNS.iter().find(matches) {
                unit = unit.min(*own);
                rest = &rest[pattern.len()..];
                let ordinal = ["TH", "th"].into_iter().find(|th| rest.starts_with(th));
                rest = &rest[ordinal.map_or(0, str::len)..];
                pieces.push(Piece::Field { pattern, bare, ordinal });
                bare = false;
            } else if rest.get(..2).is_some_and(|head| head.eq_ignore_ascii_case("FM")) {
                bare = true;
                rest = &rest[2..];
            } else {
                match pieces.last_mut() {
                    Some(Piece::Text(text)) => text.push(first),
                    _ => pieces.push(Piece::Text(first.to_string())),
                }
                rest = &rest[first.len_utf8()..];
            }
        }
        Ok(Format { pieces, unit })
    }

    fn text(&self, micros: i64) -> Result<String> {
        let Some(time) = DateTime::from_timestamp_micros(micros) else {
            let message = format!("timestamp out of range: {micros}");
            return Err(external(SqlError::new("22008", message)));
        };
        let time = time.naive_utc();
        let mut text = String::with_capacity(self.pieces.len() * 4);
        for piece in &self.pieces {
            let written = match piece {
                Piece::Text(own) => text.write_str(own),
                Piece::Field { pattern, bare: false, ordinal: None } => write_field(&mut text, pattern, &time),
                Piece::Field { pattern, bare, ordinal } => {
                    let mut field = String::new();
                    let written = write_field(&mut field, pattern, &time);
                    text.push_str(&adorned(field, *bare, *ordinal));
                    written
                }
            };
            written.map_err(|_| DataFusionError::Internal("to_char cannot write".into()))?;
        }
        Ok(text)
    }
}

/// A field without padding, or with the ending of an ordinal number.
fn adorned(field: String, bare: bool, ordinal: Option<&str>) -> String {
    let mut text = match bare {
        true => {
            let trimmed = field.trim().trim_start_matches('0');
            if trimmed.is_empty() { "0".to_owned() } else { trimmed.to_owned() }
        }
        false => field,
    };
    if let Some(case) = ordinal {
        let number = text.trim().parse::<u32>().unwrap_or(0);
        let ending = match (number % 100, number % 10) {
            (11..=13, _) => "th",
            (_, 1) => "st",
            (_, 2) => "nd",
            (_, 3) => "rd",
            _ => "th",
        };
        text.push_str(&if case == "TH" { ending.to_uppercase() } else { ending.to_owned() });
    }
    text
}

fn prints_digits(pattern: &str) -> bool {
    !matches!(pattern, "MONTH" | "MON" | "DAY" | "DY" | "AM" | "PM")
}

fn write_field(out: &mut String, pattern: &str, time: &NaiveDateTime) -> std::fmt::Result {
    let (_, hour12) = time.hour12();
    match pattern {
        "YYYY" => write!(out, "{:04}", time.year()),
        "YY" => write!(out, "{:02}", time.year().rem_euclid(100)),
        "IYYY" => write!(out, "{:04}", time.iso_week().year()),
        "IW" => write!(out, "{:02}", time.iso_week().week()),
        "MM" => write!(out, "{:02}", time.month()),
        "DD" => write!(out, "{:02}", time.day()),
        "DDD" => write!(out, "{:03}", time.ordinal()),
        "D" => write!(out, "{}", time.weekday().number_from_sunday()),
        "ID" => write!(out, "{}", time.weekday().number_from_monday()),
        "Q" => write!(out, "{}", time.month0() / 3 + 1),
        "HH24" => write!(out, "{:02}", time.hour()),
        "HH12" | "HH" => write!(out, "{hour12:02}"),
        "MI" => write!(out, "{:02}", time.minute()),
        "SS" => write!(out, "{:02}", time.second()),
        "MS" => write!(out, "{:03}", time.and_utc().timestamp_subsec_millis()),
        "US" => write!(out, "{:06}", time.and_utc().timestamp_subsec_micros()),
        "AM" | "PM" => out.write_str(if time.hour() < 12 { "AM" } else { "PM" }),
        "am" | "pm" => out.write_str(if time.hour() < 12 { "am" } else { "pm" }),
        name => write_name(out, name, time),
    }
}

/// Names of months and days; the long ones are padded to nine characters, as in PostgreSQL.
fn write_name(out: &mut String, pattern: &str, time: &NaiveDateTime) -> std::fmt::Result {
    let (short, long) = match pattern.to_ascii_lowercase().as_str() {
        "month" | "mon" => (time.format("%b").to_string(), time.format("%B").to_string()),
        _ => (time.format("%a").to_string(), time.format("%A").to_string()),
    };
    let name =
        if matches!(pattern.len(), 5) || pattern.eq_ignore_ascii_case("day") { format!("{long:<9}") } else { short };
    match pattern {
        _ if pattern.chars().all(|c| c.is_ascii_uppercase()) => out.write_str(&name.to_uppercase()),
        _ if pattern.chars().all(|c| c.is_ascii_lowercase()) => out.write_str(&name.to_lowercase()),
        _ => out.write_str(&name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-03-09 14:05:06.007008, a Monday.
    const TIME: i64 = 1_773_065_106_007_008;

    fn text(format: &str) -> String {
        Format::parse(format).and_then(|f| f.text(TIME)).expect("a text")
    }

    #[test]
    fn formats_are_postgresqls() {
        assert_eq!(text("YYYY-MM-DD HH24:MI:SS.US"), "2026-03-09 14:05:06.007008");
        assert_eq!(text("yyyy/mm/dd HH12:MI AM MS"), "2026/03/09 02:05 PM 007");
        assert_eq!(text("Dy, DD Mon YY \"at\" HH24"), "Mon, 09 Mar 26 at 14");
        assert_eq!(text("Month|Q|DDD|IW"), "March    |1|068|11");
        assert_eq!(text("FMMonth DDth, FMDD, FMHH24:MI"), "March 09th, 9, 14:05");
    }

    #[test]
    fn neighbours_share_a_text_only_within_the_format_unit() {
        let times: ArrayRef = Arc::new(arrow::array::TimestampMicrosecondArray::from(vec![
            Some(TIME),
            None,
            Some(TIME + 60_000_000),
            Some(TIME + 60_000_001),
        ]));
        let texts = one_format(&times, "HH24:MI").expect("texts");
        let texts: Vec<_> = texts.iter().collect();
        assert_eq!(texts, [Some("14:05"), None, Some("14:06"), Some("14:06")]);
    }
}
