//! `to_timestamp(text, format)`, `to_date(text, format)`, `to_char(interval, format)`.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{IntervalMonthDayNanoType, TimestampMicrosecondType};
use chrono::{NaiveDate, NaiveTime, TimeDelta};

use super::super::{text_rows, texts};
use super::values;
use crate::SqlError;

/// Reads texts by formats.
pub(super) fn read(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    let times: PrimitiveArray<TimestampMicrosecondType> =
        values(args, |row| parsed(texts(&args[0]).value(row), texts(&args[1]).value(row)))?;
    Ok(Arc::new(times))
}

/// The patterns; longer ones first.
const PATTERNS: &[&str] = &[
    "MONTH", "YYYY", "HH24", "HH12", "MON", "DAY", "DDD", "SSSS", "TZH", "TZM", "YY", "MM", "DD", "HH", "MI", "SS",
    "MS", "US", "DY", "AM", "PM", "A.M.", "P.M.", "FM", "TH", "TM", "FX",
];

const MONTHS: &[&str] = &[
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

struct Fields {
    year: i32,
    month: u32,
    day: u32,
    day_of_year: Option<u32>,
    hour: u32,
    minute: u32,
    second: u32,
    micros: u32,
    afternoon: Option<bool>,
    offset_minutes: i64,
}

fn parsed(text: &str, format: &str) -> Result<i64, SqlError> {
    let bad = |what: &str| SqlError::new("22007", format!("invalid value \"{text}\" for \"{what}\""));
    let mut fields = Fields {
        year: 1,
        month: 1,
        day: 1,
        day_of_year: None,
        hour: 0,
        minute: 0,
        second: 0,
        micros: 0,
        afternoon: None,
        offset_minutes: 0,
    };
    let (mut rest, mut format) = (text.trim_start(), format);
    while let Some(first) = format.chars().next() {
        let matching =
            |pattern: &&&str| format.get(..pattern.len()).is_some_and(|head| head.eq_ignore_ascii_case(pattern));
        if let Some(pattern) = PATTERNS.iter().find(matching) {
            format = &format[pattern.len()..];
            // Where digits follow digits, each pattern takes its own number of them.
            let tight = format.starts_with(|c: char| c.is_ascii_alphabetic());
            rest = fields.take(pattern, rest.trim_start(), tight).ok_or_else(|| bad(pattern))?;
        } else if let Some(quoted) = format.strip_prefix('"') {
            let (inside, after) = quoted.split_once('"').unwrap_or((quoted, ""));
            rest = inside.chars().fold(rest, |rest, _| skip(rest));
            format = after;
        } else {
            if first.is_whitespace() {
                rest = rest.trim_start();
            } else if rest.starts_with(|c: char| !c.is_alphanumeric() || c == first) {
                rest = skip(rest);
            }
            format = &format[first.len_utf8()..];
        }
    }
    fields.micros().ok_or_else(|| SqlError::new("22008", format!("date/time field value out of range: \"{text}\"")))
}

fn skip(text: &str) -> &str {
    let mut chars = text.chars();
    chars.next();
    chars.as_str()
}

impl Fields {
    /// Takes what a pattern stands for from a text and gives the rest.
    fn take<'a>(&mut self, pattern: &str, text: &'a str, tight: bool) -> Option<&'a str> {
        let number = |most: usize| -> Option<(u32, usize)> {
            let signs = usize::from(text.starts_with(['+', '-']));
            let digits = text[signs..].bytes().take(most).take_while(u8::is_ascii_digit).count();
            Some((text.get(signs..signs + digits)?.parse().ok()?, signs + digits))
        };
        let put = |field: &mut u32, most: usize| -> Option<&'a str> {
            let (value, end) = number(most)?;
            *field = value;
            Some(&text[end..])
        };
        match pattern {
            "YYYY" => {
                let (year, end) = number(if tight { 4 } else { 9 })?;
                self.year = i32::try_from(year).ok()?;
                Some(&text[end..])
            }
            "YY" => {
                let (year, end) = number(2)?;
                self.year = i32::try_from(year).ok()? + if year < 70 { 2000 } else { 1900 };
                Some(&text[end..])
            }
            "MM" => put(&mut self.month, 2),
            "DD" => put(&mut self.day, 2),
            "DDD" => {
                let (day, end) = number(3)?;
                self.day_of_year = Some(day);
                Some(&text[end..])
            }
            "HH24" | "HH12" | "HH" => put(&mut self.hour, 2),
            "MI" => put(&mut self.minute, 2),
            "SS" => put(&mut self.second, 2),
            "SSSS" => {
                let (seconds, end) = number(5)?;
                (self.hour, self.minute, self.second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
                Some(&text[end..])
            }
            "MS" | "US" => {
                let most = if pattern == "MS" { 3 } else { 6 };
                let digits = text.bytes().take(most).take_while(u8::is_ascii_digit).count();
                self.micros += format!("{:0<6}", &text[..digits]).parse::<u32>().ok().filter(|_| digits > 0)?;
                Some(&text[digits..])
            }
            "TZH" | "TZM" => {
                let (value, end) = number(2)?;
                let sign = if text.starts_with('-') { -1 } else { 1 };
                let minutes = i64::from(value) * if pattern == "TZH" { 60 } else { 1 };
                self.offset_minutes += if self.offset_minutes < 0 { -minutes } else { sign * minutes };
                Some(&text[end..])
            }
            "MONTH" | "MON" => {
                let (month, length) = name(text, MONTHS, pattern == "MON")?;
                self.month = month + 1;
                Some(&text[length..])
            }
            "DAY" | "DY" => Some(text.trim_start_matches(char::is_alphabetic)),
            "AM" | "PM" | "A.M." | "P.M." => {
                self.afternoon = Some(match text.get(..1)?.to_ascii_lowercase().as_str() {
                    "p" => true,
                    "a" => false,
                    _ => return None,
                });
                text.get(pattern.len()..)
            }
            "TH" => text.get(2..).or(Some("")),
            // FM, TM and FX say how strict to be about spaces.
            _ => Some(text),
        }
    }

    fn micros(&self) -> Option<i64> {
        let hour = match self.afternoon {
            Some(_) if self.hour > 12 => return None,
            Some(true) => self.hour % 12 + 12,
            Some(false) => self.hour % 12,
            None => self.hour,
        };
        let date = match self.day_of_year {
            Some(day) => NaiveDate::from_yo_opt(self.year, day)?,
            None => NaiveDate::from_ymd_opt(self.year, self.month, self.day)?,
        };
        let time = NaiveTime::from_hms_micro_opt(hour, self.minute, self.second, self.micros)?;
        let local = date.and_time(time).checked_sub_signed(TimeDelta::minutes(self.offset_minutes))?;
        Some(local.and_utc().timestamp_micros())
    }
}

/// Which of the names a text begins with, and its length there.
fn name(text: &str, names: &[&str], short: bool) -> Option<(u32, usize)> {
    let lower = text.to_ascii_lowercase();
    let begins = |name: &&str| lower.starts_with(if short { &name[..3] } else { name });
    let at = names.iter().position(begins).or_else(|| names.iter().position(|n| lower.starts_with(&n[..3])))?;
    let length = if !short && lower.starts_with(names[at]) { names[at].len() } else { 3 };
    Some((u32::try_from(at).ok()?, length))
}

/// `to_char(interval, format)`: hours go beyond 24.
pub(super) fn intervals(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    let all = args[0].as_primitive::<IntervalMonthDayNanoType>();
    text_rows(args, |row| {
        let own = all.value(row);
        let micros = own.nanoseconds / 1000;
        let part = |pattern: &str| -> Option<(i64, usize)> {
            Some(match pattern {
                "YYYY" => (i64::from(own.months / 12), 4),
                "MM" => (i64::from(own.months % 12), 2),
                "DD" => (i64::from(own.days), 2),
                "HH24" => (micros / 3_600_000_000, 2),
                "HH12" | "HH" => (micros / 3_600_000_000 % 12, 2),
                "MI" => (micros / 60_000_000 % 60, 2),
                "SS" => (micros / 1_000_000 % 60, 2),
                "MS" => (micros / 1000 % 1000, 3),
                "US" => (micros % 1_000_000, 6),
                _ => return None,
            })
        };
        let (mut out, mut format) = (String::new(), texts(&args[1]).value(row));
        while let Some(first) = format.chars().next() {
            let known = ["YYYY", "HH24", "HH12", "MM", "DD", "HH", "MI", "SS", "MS", "US"];
            let head = |p: &&&str| format.get(..p.len()).is_some_and(|head| head.eq_ignore_ascii_case(p));
            match known.iter().find(head).and_then(|pattern| Some((pattern.len(), part(pattern)?))) {
                Some((length, (value, width))) => {
                    let _ = write!(out, "{value:0width$}");
                    format = &format[length..];
                }
                None => {
                    out.push(first);
                    format = &format[first.len_utf8()..];
                }
            }
        }
        Ok(Some(out))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_by_their_format() {
        let at = |text: &str| text.parse::<chrono::NaiveDateTime>().expect("a time").and_utc().timestamp_micros();
        for (text, format, expected) in [
            ("05 Dec 2000", "DD Mon YYYY", "2000-12-05T00:00:00"),
            ("2024-03-05 14:05:06", "YYYY-MM-DD HH24:MI:SS", "2024-03-05T14:05:06"),
            ("20240305", "YYYYMMDD", "2024-03-05T00:00:00"),
            ("March 5, 2024 2:05 PM", "Month DD, YYYY HH12:MI AM", "2024-03-05T14:05:00"),
            ("24/3/5", "YY/MM/DD", "2024-03-05T00:00:00"),
        ] {
            assert_eq!(parsed(text, format), Ok(at(expected)), "{text}");
        }
        assert!(parsed("2024-13-05", "YYYY-MM-DD").is_err());
        assert!(parsed("x", "YYYY").is_err());
    }
}
