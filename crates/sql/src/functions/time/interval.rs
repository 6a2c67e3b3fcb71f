//! Intervals: months, days and a time of their own.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Decimal128Array, PrimitiveArray};
use arrow::datatypes::{
    Float64Type, Int32Type, IntervalMonthDayNano, IntervalMonthDayNanoType, Time64MicrosecondType,
    TimestampMicrosecondType,
};
use chrono::{Datelike, NaiveDate, NaiveDateTime, Timelike};

use super::super::{invalid, texts};
use super::{DAY, datetime, out_of_range, values};
use crate::{SqlError, state};

type Intervals = PrimitiveArray<IntervalMonthDayNanoType>;

fn interval(months: i64, days: i64, micros: i64) -> Result<IntervalMonthDayNano, SqlError> {
    let out_of_range = || SqlError::new("22008", "interval out of range");
    let months = i32::try_from(months).map_err(|_| out_of_range())?;
    let days = i32::try_from(days).map_err(|_| out_of_range())?;
    Ok(IntervalMonthDayNano::new(months, days, micros.checked_mul(1000).ok_or_else(out_of_range)?))
}

pub(super) fn each(
    args: &[ArrayRef],
    change: impl Fn(IntervalMonthDayNano) -> Result<IntervalMonthDayNano, SqlError>,
) -> Result<ArrayRef, SqlError> {
    let all = args[0].as_primitive::<IntervalMonthDayNanoType>();
    let changed: Intervals = values(args, |row| change(all.value(row)))?;
    Ok(Arc::new(changed))
}

/// Times of the day as intervals.
pub(super) fn of_clocks(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    let clocks = args[0].as_primitive::<Time64MicrosecondType>();
    let all: Intervals = values(args, |row| interval(0, 0, clocks.value(row)))?;
    Ok(Arc::new(all))
}

/// `a - b` in days and a time.
pub(super) fn differences(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    let (a, b) =
        (args[0].as_primitive::<TimestampMicrosecondType>(), args[1].as_primitive::<TimestampMicrosecondType>());
    let between: Intervals = values(args, |row| {
        let micros = a.value(row).checked_sub(b.value(row)).ok_or_else(out_of_range)?;
        interval(0, micros / DAY, micros % DAY)
    })?;
    Ok(Arc::new(between))
}

/// `age(a, b)`: from `b` to `a` in years, months, days and a time, as people count.
pub(super) fn ages(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    let (a, b) =
        (args[0].as_primitive::<TimestampMicrosecondType>(), args[1].as_primitive::<TimestampMicrosecondType>());
    let ages: Intervals = values(args, |row| age(datetime(a.value(row))?, datetime(b.value(row))?))?;
    Ok(Arc::new(ages))
}

fn age(a: NaiveDateTime, b: NaiveDateTime) -> Result<IntervalMonthDayNano, SqlError> {
    let sign = if a < b { -1 } else { 1 };
    let (late, early) = if a < b { (b, a) } else { (a, b) };
    let micros =
        |t: &NaiveDateTime| i64::from(t.num_seconds_from_midnight()) * 1_000_000 + i64::from(t.nanosecond() / 1000);
    let month = |t: &NaiveDateTime| i64::from(t.year()) * 12 + i64::from(t.month0());
    let (mut months, mut days) = (month(&late) - month(&early), i64::from(late.day()) - i64::from(early.day()));
    let mut time = micros(&late) - micros(&early);
    if time < 0 {
        time += DAY;
        days -= 1;
    }
    if days < 0 {
        days += days_in_month(early.year(), early.month());
        months -= 1;
    }
    interval(sign * months, sign * days, sign * time)
}

fn days_in_month(year: i32, month: u32) -> i64 {
    let next =
        if month == 12 { NaiveDate::from_ymd_opt(year + 1, 1, 1) } else { NaiveDate::from_ymd_opt(year, month + 1, 1) };
    next.and_then(|next| next.pred_opt()).map_or(31, |last| i64::from(last.day()))
}

/// An interval times or by a number; parts of months become days of which a month has 30, parts of days a time.
pub(super) fn scaled(args: &[ArrayRef], scale: impl Fn(f64, f64) -> Option<f64>) -> Result<ArrayRef, SqlError> {
    let all = args[0].as_primitive::<IntervalMonthDayNanoType>();
    let factors = args[1].as_primitive::<Float64Type>();
    let scaled: Intervals = values(args, |row| {
        let (own, factor) = (all.value(row), factors.value(row));
        let by = |x: f64| scale(x, factor).ok_or_else(|| SqlError::new(state::DIVISION_BY_ZERO, "division by zero"));
        let (months, days) = (by(f64::from(own.months))?, by(f64::from(own.days))?);
        let micros = by((own.nanoseconds / 1000) as f64)?;
        let more_days = tidy((months - months.trunc()) * 30.0);
        let more_seconds = tidy((days - days.trunc() + more_days - more_days.trunc()) * 86_400.0);
        let total = micros + more_seconds * 1e6;
        if !total.is_finite() || total.abs() > 9e18 {
            return Err(out_of_range());
        }
        interval(months.trunc() as i64, (days.trunc() + more_days.trunc()) as i64, total.round() as i64)
    })?;
    Ok(Arc::new(scaled))
}

/// Without the noise beyond a microsecond.
fn tidy(x: f64) -> f64 {
    (x * 1e6).round() / 1e6
}

/// Microseconds with months of 30 days: what intervals compare by.
fn length(own: IntervalMonthDayNano) -> i128 {
    (i128::from(own.months) * 30 + i128::from(own.days)) * i128::from(DAY) + i128::from(own.nanoseconds / 1000)
}

pub(super) fn lengths(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    let all = args[0].as_primitive::<IntervalMonthDayNanoType>();
    let lengths: Decimal128Array = values(args, |row| Ok(length(all.value(row))))?;
    Ok(Arc::new(lengths.with_precision_and_scale(38, 0).map_err(|e| crate::error_map::arrow_error(&e))?))
}

/// Microseconds with years of 365.25 days and months of 30: `extract(epoch from i)`.
pub(super) fn epoch(own: IntervalMonthDayNano) -> i128 {
    let (years, months) = (i128::from(own.months / 12), i128::from(own.months % 12));
    let days = months * 30 + i128::from(own.days);
    years * 31_557_600_000_000 + days * i128::from(DAY) + i128::from(own.nanoseconds / 1000)
}

pub(super) fn justify_days(own: IntervalMonthDayNano) -> Result<IntervalMonthDayNano, SqlError> {
    let (mut months, mut days) = (i64::from(own.months) + i64::from(own.days / 30), i64::from(own.days % 30));
    if months > 0 && days < 0 {
        (months, days) = (months - 1, days + 30);
    } else if months < 0 && days > 0 {
        (months, days) = (months + 1, days - 30);
    }
    interval(months, days, own.nanoseconds / 1000)
}

pub(super) fn justify_hours(own: IntervalMonthDayNano) -> Result<IntervalMonthDayNano, SqlError> {
    let micros = own.nanoseconds / 1000;
    let (mut days, mut micros) = (i64::from(own.days) + micros / DAY, micros % DAY);
    if days > 0 && micros < 0 {
        (days, micros) = (days - 1, micros + DAY);
    } else if days < 0 && micros > 0 {
        (days, micros) = (days + 1, micros - DAY);
    }
    interval(i64::from(own.months), days, micros)
}

pub(super) fn justify_interval(own: IntervalMonthDayNano) -> Result<IntervalMonthDayNano, SqlError> {
    let total = length(own);
    let (month, day) = (30 * i128::from(DAY), i128::from(DAY));
    let part = |x: i128| i64::try_from(x).unwrap_or(i64::MAX);
    interval(part(total / month), part(total % month / day), part(total % day))
}

/// `date_trunc(unit, interval)`.
pub(super) fn truncated(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    let (units, all) = (texts(&args[0]), args[1].as_primitive::<IntervalMonthDayNanoType>());
    let truncated: Intervals = values(args, |row| {
        let own = all.value(row);
        let (months, days, micros) = (i64::from(own.months), i64::from(own.days), own.nanoseconds / 1000);
        let to = |unit: i64| interval(months, days, micros - micros % unit);
        match units.value(row).to_ascii_lowercase().as_str() {
            "year" => interval(months - months % 12, 0, 0),
            "quarter" => interval(months - months % 3, 0, 0),
            "month" => interval(months, 0, 0),
            "day" => interval(months, days, 0),
            "hour" => to(3_600_000_000),
            "minute" => to(60_000_000),
            "second" => to(1_000_000),
            "milliseconds" | "millisecond" => to(1000),
            "microseconds" | "microsecond" => to(1),
            other => Err(invalid(format!("unit \"{other}\" not recognized for type interval"))),
        }
    })?;
    Ok(Arc::new(truncated))
}

/// `make_interval(years, months, weeks, days, hours, minutes, seconds)`.
pub(super) fn made(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    let whole =
        |arg: usize, row: usize| args.get(arg).map_or(0, |a| i64::from(a.as_primitive::<Int32Type>().value(row)));
    let made: Intervals = values(args, |row| {
        let seconds = args.get(6).map_or(0.0, |a| a.as_primitive::<Float64Type>().value(row));
        let micros = (whole(4, row) * 60 + whole(5, row)) * 60_000_000 + (seconds * 1e6).round() as i64;
        interval(whole(0, row) * 12 + whole(1, row), whole(2, row) * 7 + whole(3, row), micros)
    })?;
    Ok(Arc::new(made))
}

/// Reads PostgreSQL's and ISO 8601's forms: `1 year 2 mons -3 days 04:05:06.7`, `1-2`, `P1Y2M3DT4H5M6S`, `... ago`.
pub(crate) fn parse(text: &str) -> Option<IntervalMonthDayNano> {
    let text = text.trim();
    if let Some(iso) = text.strip_prefix(['P', 'p']) {
        return parse_iso(iso);
    }
    let mut sum = Sum::default();
    let mut words = spaced(text).into_iter().peekable();
    let mut any = false;
    while let Some(word) = words.next() {
        any = true;
        if word.eq_ignore_ascii_case("ago") {
            sum.negate();
        } else if word.contains(':') {
            sum.micros += clock(&word)?;
        } else if let Some((years, months)) = word.split_once('-').filter(|(years, _)| !years.is_empty()) {
            let sign = if years.starts_with('-') { -1.0 } else { 1.0 };
            sum.add(years.parse().ok()?, "year")?;
            sum.add(sign * months.parse::<f64>().ok()?, "month")?;
        } else {
            let number: f64 = word.parse().ok()?;
            // A number without a unit is in seconds.
            let unit = words.next_if(|next| next.chars().all(char::is_alphabetic) && !next.eq_ignore_ascii_case("ago"));
            sum.add(number, unit.as_deref().unwrap_or("second"))?;
        }
    }
    if any { sum.interval() } else { None }
}

/// Words; a number and the unit behind it are two.
fn spaced(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for word in text.split_whitespace() {
        let split = word.find(char::is_alphabetic).filter(|at| *at > 0 && !word.contains(':'));
        match split {
            Some(at) => words.extend([word[..at].to_owned(), word[at..].to_owned()]),
            None => words.push(word.to_owned()),
        }
    }
    words
}

/// `[-]04:05[:06.7]` in microseconds.
fn clock(text: &str) -> Option<f64> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut parts = text.split(':');
    let hours: f64 = parts.next()?.parse().ok()?;
    let minutes: f64 = parts.next()?.parse().ok()?;
    let seconds: f64 = parts.next().map_or(Some(0.0), |s| s.parse().ok())?;
    let good =
        parts.next().is_none() && hours >= 0.0 && (0.0..60.0).contains(&minutes) && (0.0..=60.0).contains(&seconds);
    good.then_some(sign * ((hours * 60.0 + minutes) * 60.0 + seconds) * 1e6)
}

fn parse_iso(text: &str) -> Option<IntervalMonthDayNano> {
    let (date, time) = text.split_once(['T', 't']).unwrap_or((text, ""));
    let mut sum = Sum::default();
    let units =
        [("YyMmWwDd", date, ["year", "month", "week", "day"]), ("HhMmSs", time, ["hour", "minute", "second", ""])];
    for (letters, mut rest, names) in units {
        while !rest.is_empty() {
            let end = rest.find(char::is_alphabetic)?;
            let name = names[letters.find(&rest[end..=end])? / 2];
            sum.add(rest[..end].parse().ok()?, name)?;
            rest = &rest[end + 1..];
        }
    }
    sum.interval().filter(|_| !text.is_empty())
}

#[derive(Default)]
struct Sum {
    months: f64,
    days: f64,
    micros: f64,
}

impl Sum {
    fn add(&mut self, number: f64, unit: &str) -> Option<()> {
        let unit = unit.to_ascii_lowercase();
        match unit.as_str() {
            "millennium" | "millennia" | "mil" | "mils" => self.add_months(number * 12_000.0),
            "century" | "centuries" | "c" | "cent" => self.add_months(number * 1200.0),
            "decade" | "decades" | "dec" | "decs" => self.add_months(number * 120.0),
            "year" | "years" | "yr" | "yrs" | "y" => self.add_months(number * 12.0),
            "month" | "months" | "mon" | "mons" => self.add_months(number),
            "week" | "weeks" | "w" => self.add_days(number * 7.0),
            "day" | "days" | "d" => self.add_days(number),
            "hour" | "hours" | "hr" | "hrs" | "h" => self.micros += number * 3.6e9,
            "minute" | "minutes" | "min" | "mins" | "m" => self.micros += number * 6e7,
            "second" | "seconds" | "sec" | "secs" | "s" => self.micros += number * 1e6,
            "millisecond" | "milliseconds" | "msec" | "msecs" | "ms" => self.micros += number * 1e3,
            "microsecond" | "microseconds" | "usec" | "usecs" | "us" => self.micros += number,
            "nanosecond" | "nanoseconds" | "ns" => self.micros += number / 1e3,
            _ => return None,
        }
        Some(())
    }

    fn add_months(&mut self, months: f64) {
        self.months += months.trunc();
        self.add_days(tidy(months.fract() * 30.0));
    }

    fn add_days(&mut self, days: f64) {
        self.days += days.trunc();
        self.micros += tidy(days.fract() * 86_400.0) * 1e6;
    }

    fn negate(&mut self) {
        (self.months, self.days, self.micros) = (-self.months, -self.days, -self.micros);
    }

    fn interval(&self) -> Option<IntervalMonthDayNano> {
        let fits = self.months.abs() < 2e9 && self.days.abs() < 2e9 && self.micros.abs() < 9e15;
        fits.then(|| interval(self.months as i64, self.days as i64, self.micros.round() as i64).ok())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_read() {
        for (text, months, days, micros) in [
            ("1 year 2 months 3 days 04:05:06.7", 14, 3, 14_706_700_000),
            ("-1 day +02:03:04", 0, -1, 7_384_000_000),
            ("P1Y2M3DT4H5M6S", 14, 3, 14_706_000_000),
            ("1-2", 14, 0, 0),
            ("90 minutes", 0, 0, 5_400_000_000),
            ("1.5 hours", 0, 0, 5_400_000_000),
            ("1.5 months", 1, 15, 0),
            ("2h30m", 0, 0, 0),
            ("3 days ago", 0, -3, 0),
            ("15", 0, 0, 15_000_000),
        ] {
            let expected = (text != "2h30m").then(|| IntervalMonthDayNano::new(months, days, micros * 1000));
            assert_eq!(parse(text), expected, "{text}");
        }
        assert_eq!(parse("5 frogs"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn ages_borrow_from_the_month() {
        let at = |y, m, d| NaiveDate::from_ymd_opt(y, m, d).expect("a date").and_time(chrono::NaiveTime::MIN);
        assert_eq!(age(at(2001, 4, 10), at(1957, 6, 13)), Ok(IntervalMonthDayNano::new(43 * 12 + 9, 27, 0)));
        assert_eq!(age(at(2024, 2, 28), at(2024, 3, 1)), Ok(IntervalMonthDayNano::new(0, -2, 0)));
    }
}
