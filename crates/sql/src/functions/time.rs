//! Dates, times and intervals.

mod format;
mod interval;
mod read;
mod zone;

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Decimal128Array, Int32Array, PrimitiveArray,
    Time64MicrosecondArray,
};
use arrow::datatypes::{
    DataType, Float64Type, Int32Type, IntervalMonthDayNanoType, Time64MicrosecondType, TimestampMicrosecondType,
};
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime};

pub(crate) use self::interval::parse as parse_interval;
pub(crate) use self::read::timestamp as parse_timestamp;
use super::Takes::{Any, Float, Int, Interval, Text, Time, Timestamp, TimestampTz};
use super::{Function, Gives, function};
use crate::SqlError;
use crate::sql_type::timestamptz;

pub(super) const DAY: i64 = 86_400_000_000;

pub(super) static FUNCTIONS: &[Function] = &[
    function("age_between", &[Timestamp, Timestamp], Gives::Interval, |args, _| interval::ages(args)),
    function("timestamp_difference", &[Timestamp, Timestamp], Gives::Interval, |args, _| interval::differences(args)),
    function("interval_times", &[Interval, Float], Gives::Interval, |args, _| {
        interval::scaled(args, |x, f| Some(x * f))
    }),
    function("interval_over", &[Interval, Float], Gives::Interval, |args, _| {
        interval::scaled(args, |x, f| (f != 0.0).then_some(x / f))
    }),
    function("interval_length", &[Interval], Gives::Decimal(0), |args, _| interval::lengths(args)),
    function("clock_interval", &[Time], Gives::Interval, |args, _| interval::of_clocks(args)),
    function("justify_days", &[Interval], Gives::Interval, |args, _| interval::each(args, interval::justify_days)),
    function("justify_hours", &[Interval], Gives::Interval, |args, _| interval::each(args, interval::justify_hours)),
    function("justify_interval", &[Interval], Gives::Interval, |args, _| {
        interval::each(args, interval::justify_interval)
    }),
    function("date_trunc", &[Text, Interval], Gives::Interval, |args, _| interval::truncated(args)),
    function("date_trunc_in_zone", &[Text, TimestampTz, Text], Gives::TimestampTz, |args, _| zone::truncated(args)),
    function("timezone", &[Text, TimestampTz], Gives::Timestamp, |args, _| zone::to_local(args)),
    function("timezone", &[Text, Timestamp], Gives::TimestampTz, |args, _| zone::from_local(args)),
    function("isfinite", &[Any], Gives::Bool, |args, _| {
        let finite = (0..args[0].len()).map(|row| args[0].is_valid(row).then_some(true));
        Ok(Arc::new(finite.collect::<BooleanArray>()))
    }),
    function("make_time", &[Int, Int, Float], Gives::Time, |args, _| made_times(args)),
    function("make_timestamp", &[Int, Int, Int, Int, Int, Float], Gives::Timestamp, |args, _| made_timestamps(args)),
    function("make_timestamptz", &[Int, Int, Int, Int, Int, Float], Gives::TimestampTz, |args, t| {
        arrow::compute::cast(&made_timestamps(args)?, t).map_err(|e| crate::error_map::arrow_error(&e))
    }),
    function("make_timestamptz", &[Int, Int, Int, Int, Int, Float, Text], Gives::TimestampTz, |args, _| {
        zone::from_local(&[args[6].clone(), made_timestamps(&args[..6])?])
    }),
    function("make_interval", &[Int, Int, Int, Int, Int, Int, Float], Gives::Interval, |args, _| interval::made(args))
        .required(0),
    function("to_timestamp", &[Text, Text], Gives::TimestampTz, |args, _| {
        let zoned = format::read(args)?;
        arrow::compute::cast(&zoned, &timestamptz()).map_err(|e| crate::error_map::arrow_error(&e))
    }),
    function("to_date", &[Text, Text], Gives::Date, |args, t| {
        arrow::compute::cast(&format::read(args)?, t).map_err(|e| crate::error_map::arrow_error(&e))
    }),
    function("to_char", &[Interval, Text], Gives::Text, |args, _| format::intervals(args)),
    function("extract_epoch", &[Interval], Gives::Decimal(6), |args, _| {
        decimals(args, 6, |row| interval::epoch(args[0].as_primitive::<IntervalMonthDayNanoType>().value(row)))
    }),
    function("extract_epoch", &[Timestamp], Gives::Decimal(6), |args, _| {
        let times = args[0].as_primitive::<TimestampMicrosecondType>();
        decimals(args, 6, |row| i128::from(times.value(row)))
    }),
    function("extract_second", &[Any], Gives::Decimal(6), |args, _| seconds(args, 6)),
    function("extract_milliseconds", &[Any], Gives::Decimal(3), |args, _| seconds(args, 3)),
    function("extract_microseconds", &[Any], Gives::Decimal(0), |args, _| seconds(args, 0)),
    function("extract_century", &[Timestamp], Gives::Int, |args, _| years(args, |year| era(year, 100))),
    function("extract_millennium", &[Timestamp], Gives::Int, |args, _| years(args, |year| era(year, 1000))),
    function("extract_decade", &[Timestamp], Gives::Int, |args, _| years(args, |year| year.div_euclid(10))),
    function("extract_julian", &[Timestamp], Gives::Decimal(6), |args, _| {
        let times = args[0].as_primitive::<TimestampMicrosecondType>();
        decimals(args, 6, |row| {
            (i128::from(times.value(row)) + 2_440_588 * i128::from(DAY)) * 1_000_000 / i128::from(DAY)
        })
    }),
];

pub(super) fn datetime(micros: i64) -> Result<NaiveDateTime, SqlError> {
    DateTime::from_timestamp_micros(micros).map(|time| time.naive_utc()).ok_or_else(out_of_range)
}

pub(super) fn out_of_range() -> SqlError {
    SqlError::new("22008", "date/time field value out of range")
}

/// One value of a type per row; NULL where an argument is.
pub(super) fn values<T: ArrowPrimitiveType>(
    args: &[ArrayRef],
    each: impl Fn(usize) -> Result<T::Native, SqlError>,
) -> Result<PrimitiveArray<T>, SqlError> {
    let rows = args.first().map_or(1, |array| array.len());
    let known = |row: usize| args.iter().all(|array| array.is_valid(row));
    (0..rows).map(|row| if known(row) { each(row).map(Some) } else { Ok(None) }).collect()
}

fn decimals(args: &[ArrayRef], scale: i8, each: impl Fn(usize) -> i128) -> Result<ArrayRef, SqlError> {
    let values: Decimal128Array = values(args, |row| Ok(each(row)))?;
    Ok(Arc::new(values.with_precision_and_scale(38, scale).map_err(|e| crate::error_map::arrow_error(&e))?))
}

/// The seconds with their fraction, in units of which there are `10^(6 - scale)` in a microsecond's million.
fn seconds(args: &[ArrayRef], scale: i8) -> Result<ArrayRef, SqlError> {
    let array = &args[0];
    let minute = 60_000_000i128;
    let micros = |row: usize| -> i128 {
        match array.data_type() {
            DataType::Time64(_) => i128::from(array.as_primitive::<Time64MicrosecondType>().value(row)),
            DataType::Interval(_) => {
                i128::from(array.as_primitive::<IntervalMonthDayNanoType>().value(row).nanoseconds / 1000)
            }
            DataType::Timestamp(..) => i128::from(array.as_primitive::<TimestampMicrosecondType>().value(row)),
            _ => 0,
        }
    };
    let negative = matches!(array.data_type(), DataType::Interval(_));
    // Seconds of the minute; the digits are microseconds whatever the unit is called.
    decimals(args, scale, |row| if negative { micros(row) % minute } else { micros(row).rem_euclid(minute) })
}

fn years(args: &[ArrayRef], each: impl Fn(i32) -> i32) -> Result<ArrayRef, SqlError> {
    let times = args[0].as_primitive::<TimestampMicrosecondType>();
    let years: Int32Array = values(args, |row| Ok(each(datetime(times.value(row))?.year())))?;
    Ok(Arc::new(years))
}

/// The number of the `length` years that a year is in, from 1.
fn era(year: i32, length: i32) -> i32 {
    if year > 0 { (year - 1) / length + 1 } else { year / length - 1 }
}

fn clock(hour: i32, minute: i32, seconds: f64) -> Option<i64> {
    if !(0..24).contains(&hour) || !(0..60).contains(&minute) || !(0.0..=60.0).contains(&seconds) {
        return None;
    }
    let seconds = (seconds * 1e6).round() as i64;
    Some((i64::from(hour) * 60 + i64::from(minute)) * 60_000_000 + seconds)
}

fn made_times(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    let whole = |arg: usize, row: usize| args[arg].as_primitive::<Int32Type>().value(row);
    let times: Time64MicrosecondArray = values(args, |row| {
        let seconds = args[2].as_primitive::<Float64Type>().value(row);
        clock(whole(0, row), whole(1, row), seconds).ok_or_else(out_of_range)
    })?;
    Ok(Arc::new(times))
}

fn made_timestamps(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    let whole = |arg: usize, row: usize| args[arg].as_primitive::<Int32Type>().value(row);
    let times: PrimitiveArray<TimestampMicrosecondType> = values(args, |row| {
        let (month, day) = (u32::try_from(whole(1, row)).ok(), u32::try_from(whole(2, row)).ok());
        let date = month.zip(day).and_then(|(month, day)| NaiveDate::from_ymd_opt(whole(0, row), month, day));
        let clock = clock(whole(3, row), whole(4, row), args[5].as_primitive::<Float64Type>().value(row));
        let midnight = date.map(|date| date.and_time(NaiveTime::MIN).and_utc().timestamp_micros());
        midnight.zip(clock).map(|(midnight, clock)| midnight + clock).ok_or_else(out_of_range)
    })?;
    Ok(Arc::new(times))
}
