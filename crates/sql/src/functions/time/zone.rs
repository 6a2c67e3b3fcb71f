//! Time zones: by their names in the tz database, or as offsets.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::TimestampMicrosecondType;
use chrono::{
    DateTime, Datelike, FixedOffset, MappedLocalTime, NaiveDate, NaiveDateTime, Offset, TimeDelta, TimeZone, Timelike,
};
use chrono_tz::Tz;

use super::super::{invalid, texts};
use super::{datetime, out_of_range, values};
use crate::SqlError;
use crate::sql_type::timestamptz;

type Times = PrimitiveArray<TimestampMicrosecondType>;

/// A zone.
#[derive(Clone, Copy)]
pub(super) enum Zone {
    Named(Tz),
    Fixed(FixedOffset),
}

impl Zone {
    pub(super) fn parse(name: &str) -> Result<Zone, SqlError> {
        let unknown = || invalid(format!("time zone \"{name}\" not recognized"));
        if name.eq_ignore_ascii_case("z") {
            return Ok(Zone::Named(Tz::UTC));
        }
        if name.starts_with(['+', '-']) {
            // As in POSIX, what is written is what is added to get to UTC.
            let seconds = super::read::offset(name).ok_or_else(unknown)?;
            return FixedOffset::east_opt(-seconds).map(Zone::Fixed).ok_or_else(unknown);
        }
        let found = chrono_tz::TZ_VARIANTS.iter().find(|zone| zone.name().eq_ignore_ascii_case(name));
        found.map(|zone| Zone::Named(*zone)).ok_or_else(unknown)
    }

    fn local(self, micros: i64) -> Result<NaiveDateTime, SqlError> {
        let utc = DateTime::from_timestamp_micros(micros).ok_or_else(out_of_range)?;
        Ok(match self {
            Zone::Named(zone) => utc.with_timezone(&zone).naive_local(),
            Zone::Fixed(offset) => utc.with_timezone(&offset).naive_local(),
        })
    }

    /// The UTC time of a local one. Of two it is the later, in standard time; a time that the clock has leapt
    /// over is taken by the offset from before.
    pub(super) fn utc(self, local: NaiveDateTime) -> Result<i64, SqlError> {
        let offset = match self {
            Zone::Fixed(offset) => offset,
            Zone::Named(zone) => match zone.offset_from_local_datetime(&local) {
                MappedLocalTime::Single(offset) | MappedLocalTime::Ambiguous(_, offset) => offset.fix(),
                MappedLocalTime::None => {
                    let before = local.checked_sub_signed(TimeDelta::hours(3)).ok_or_else(out_of_range)?;
                    zone.offset_from_local_datetime(&before).latest().ok_or_else(out_of_range)?.fix()
                }
            },
        };
        let utc = local.checked_sub_offset(offset).ok_or_else(out_of_range)?;
        Ok(utc.and_utc().timestamp_micros())
    }
}

/// Neighbouring rows mostly share their zone.
fn zones(names: &ArrayRef) -> impl Fn(usize) -> Result<Zone, SqlError> + '_ {
    let last: std::cell::RefCell<Option<(String, Zone)>> = std::cell::RefCell::new(None);
    move |row| {
        let name = texts(names).value(row);
        if let Some((known, zone)) = last.borrow().as_ref()
            && known == name
        {
            return Ok(*zone);
        }
        let zone = Zone::parse(name)?;
        *last.borrow_mut() = Some((name.to_owned(), zone));
        Ok(zone)
    }
}

/// `timestamptz AT TIME ZONE zone`.
pub(super) fn to_local(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    let (zone, times) = (zones(&args[0]), args[1].as_primitive::<TimestampMicrosecondType>());
    let local: Times = values(args, |row| Ok(zone(row)?.local(times.value(row))?.and_utc().timestamp_micros()))?;
    Ok(Arc::new(local))
}

/// `timestamp AT TIME ZONE zone`.
pub(super) fn from_local(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    let (zone, times) = (zones(&args[0]), args[1].as_primitive::<TimestampMicrosecondType>());
    let utc: Times = values(args, |row| zone(row)?.utc(datetime(times.value(row))?))?;
    Ok(Arc::new(utc.with_data_type(timestamptz())))
}

/// `date_trunc(unit, timestamptz, zone)`.
pub(super) fn truncated(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    let (zone, times) = (zones(&args[2]), args[1].as_primitive::<TimestampMicrosecondType>());
    let utc: Times = values(args, |row| {
        let local = truncate(zone(row)?.local(times.value(row))?, texts(&args[0]).value(row))?;
        zone(row)?.utc(local)
    })?;
    Ok(Arc::new(utc.with_data_type(timestamptz())))
}

fn truncate(time: NaiveDateTime, unit: &str) -> Result<NaiveDateTime, SqlError> {
    let day = |date: Option<NaiveDate>| date.map(|date| date.and_time(chrono::NaiveTime::MIN));
    let date = time.date();
    let to = |micros: u32| time.with_nanosecond(time.nanosecond() / (micros * 1000) * (micros * 1000));
    let second = time.with_nanosecond(0);
    let minute = second.and_then(|t| t.with_second(0));
    let truncated = match unit.to_ascii_lowercase().as_str() {
        "microseconds" | "microsecond" => Some(time),
        "milliseconds" | "millisecond" => to(1000),
        "second" => second,
        "minute" => minute,
        "hour" => minute.and_then(|t| t.with_minute(0)),
        "day" => day(Some(date)),
        "week" => day(date.checked_sub_signed(TimeDelta::days(i64::from(date.weekday().num_days_from_monday())))),
        "month" => day(date.with_day(1)),
        "quarter" => day(NaiveDate::from_ymd_opt(date.year(), date.month0() / 3 * 3 + 1, 1)),
        "year" => day(NaiveDate::from_ymd_opt(date.year(), 1, 1)),
        other => return Err(invalid(format!("unit \"{other}\" not recognized for type timestamp with time zone"))),
    };
    truncated.ok_or_else(out_of_range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_leap_and_repeat() {
        let berlin = Zone::parse("europe/berlin").expect("a zone");
        let at = |text: &str| text.parse::<NaiveDateTime>().expect("a time");
        let utc = |text: &str| at(text).and_utc().timestamp_micros();
        assert_eq!(berlin.utc(at("2024-03-31T02:30:00")), Ok(utc("2024-03-31T01:30:00")));
        assert_eq!(berlin.utc(at("2024-10-27T02:30:00")), Ok(utc("2024-10-27T01:30:00")));
        assert!(Zone::parse("Nowhere/Else").is_err());
    }
}
