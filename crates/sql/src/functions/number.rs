//! Numbers.

mod format;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int32Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int32Type};

use super::Takes::{Any, Decimal, Double, Exact, Float, Int, List, Long, Text};
use super::{Function, Gives, function, invalid};
use crate::sql_type::type_name;
use crate::{SqlError, state};

pub(super) static FUNCTIONS: &[Function] = &[
    function("div", &[Decimal, Decimal], Gives::Decimal(0), |args, _| quotient(args)),
    function("width_bucket", &[Float, Float, Float, Int], Gives::Int, |args, _| buckets(args)),
    function("width_bucket", &[Float, List], Gives::Int, |args, _| thresholds(args)),
    function("ceil", &[Exact], Gives::Decimal(0), |args, _| {
        whole(args, |quotient, rest| quotient + i128::from(rest > 0))
    }),
    function("floor", &[Exact], Gives::Decimal(0), |args, _| {
        whole(args, |quotient, rest| quotient - i128::from(rest < 0))
    }),
    function("trunc", &[Exact], Gives::Decimal(0), |args, _| whole(args, |quotient, _| quotient)),
    function("round", &[Double], Gives::Float, |args, _| floats(args, f64::round_ties_even)),
    function("to_char", &[Exact, Text], Gives::Text, |args, _| format::numbers(args)),
    function("to_char", &[Long, Text], Gives::Text, |args, _| format::numbers(args)),
    function("to_char", &[Double, Text], Gives::Text, |args, _| format::numbers(args)),
    function("to_number", &[Text, Text], Gives::Decimal(10), |args, _| format::read(args)),
    function("trimmed_text", &[Exact], Gives::Text, |args, _| format::trimmed(args)),
    function("sign", &[Float], Gives::Float, |args, _| {
        floats(args, |x| if x == 0.0 || x.is_nan() { x } else { x.signum() })
    }),
    function("scale", &[Decimal], Gives::Int, |args, _| {
        let scale = scale_of(&args[0]);
        Ok(Arc::new(args[0].as_primitive::<Decimal128Type>().iter().map(|v| v.map(|_| scale)).collect::<Int32Array>()))
    }),
    function("min_scale", &[Decimal], Gives::Int, |args, _| {
        let scale = scale_of(&args[0]);
        let least = |value: i128| {
            let zeros = (0..scale).take_while(|n| value % 10i128.pow(n.unsigned_abs() + 1) == 0).count();
            if value == 0 { 0 } else { scale - i32::try_from(zeros).unwrap_or(0) }
        };
        Ok(Arc::new(args[0].as_primitive::<Decimal128Type>().iter().map(|v| v.map(least)).collect::<Int32Array>()))
    }),
    function("sind", &[Float], Gives::Float, |args, _| floats(args, |x| exact_degrees(x, f64::sin))),
    function("cosd", &[Float], Gives::Float, |args, _| floats(args, |x| exact_degrees(x, f64::cos))),
    function("tand", &[Float], Gives::Float, |args, _| floats(args, |x| exact_degrees(x, f64::tan))),
    function("num_nulls", &[Any], Gives::Int, |args, _| Ok(Arc::new(count(args, true)))).repeats(),
    function("num_nonnulls", &[Any], Gives::Int, |args, _| Ok(Arc::new(count(args, false)))).repeats(),
    function("pg_typeof", &[Any], Gives::Text, |args, _| {
        let name = type_name(args[0].data_type());
        let name = name.split('(').next().unwrap_or_default();
        Ok(Arc::new(StringArray::from_iter_values(std::iter::repeat_n(name, args[0].len()))))
    }),
];

fn scale_of(decimals: &ArrayRef) -> i32 {
    match decimals.data_type() {
        DataType::Decimal128(_, scale) => i32::from(*scale),
        _ => 0,
    }
}

fn floats(args: &[ArrayRef], each: impl Fn(f64) -> f64) -> Result<ArrayRef, SqlError> {
    let values: Float64Array = args[0].as_primitive::<Float64Type>().unary(each);
    Ok(Arc::new(values))
}

/// A function of an angle in degrees, without the noise of the conversion at round angles.
fn exact_degrees(degrees: f64, function: impl Fn(f64) -> f64) -> f64 {
    let value = function(degrees.to_radians());
    let rounded = (value * 1e15).round() / 1e15;
    if (rounded * 2.0).fract() == 0.0 { rounded } else { value }
}

/// The whole part of decimals, corrected by what is behind the point.
fn whole(args: &[ArrayRef], correct: impl Fn(i128, i128) -> i128) -> Result<ArrayRef, SqlError> {
    let unit = 10i128.checked_pow(scale_of(&args[0]).unsigned_abs()).ok_or_else(overflow)?;
    let values: Decimal128Array =
        args[0].as_primitive::<Decimal128Type>().unary(|value| correct(value / unit, value % unit));
    let values = values.with_precision_and_scale(38, 0).map_err(|error| crate::error_map::arrow_error(&error))?;
    Ok(Arc::new(values))
}

/// The whole part of `a / b`.
fn quotient(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    let (s1, s2) = (scale_of(&args[0]), scale_of(&args[1]));
    let scale = s1.max(s2);
    let up = |from: i32| 10i128.checked_pow((scale - from).unsigned_abs()).ok_or_else(overflow);
    let (up_left, up_right) = (up(s1)?, up(s2)?);
    let divide = |(a, b): (Option<i128>, Option<i128>)| -> Result<Option<i128>, SqlError> {
        let (Some(a), Some(b)) = (a, b) else { return Ok(None) };
        let (a, b) = (a.checked_mul(up_left).ok_or_else(overflow)?, b.checked_mul(up_right).ok_or_else(overflow)?);
        if b == 0 {
            return Err(SqlError::new(state::DIVISION_BY_ZERO, "division by zero"));
        }
        Ok(a.checked_div(b))
    };
    let pairs = args[0].as_primitive::<Decimal128Type>().iter().zip(args[1].as_primitive::<Decimal128Type>());
    let values = pairs.map(divide).collect::<Result<Decimal128Array, SqlError>>()?;
    let values = values.with_precision_and_scale(38, 0).map_err(|error| crate::error_map::arrow_error(&error))?;
    Ok(Arc::new(values))
}

fn overflow() -> SqlError {
    SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, "value overflows numeric format")
}

/// `width_bucket(x, low, high, count)`.
fn buckets(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    let number = |arg: usize, row: usize| args[arg].as_primitive::<Float64Type>().value(row);
    let counts = args[3].as_primitive::<Int32Type>();
    let bucket = |row: usize| -> Result<Option<i32>, SqlError> {
        if args.iter().any(|array| array.is_null(row)) {
            return Ok(None);
        }
        let (x, low, high, count) = (number(0, row), number(1, row), number(2, row), counts.value(row));
        if count <= 0 {
            return Err(SqlError::new("2201G", "count must be greater than zero"));
        }
        if low == high || !low.is_finite() || !high.is_finite() {
            return Err(SqlError::new("2201G", "lower bound cannot equal upper bound"));
        }
        let share = (x - low) / (high - low);
        let inside = (share * f64::from(count)).floor() as i32;
        Ok(Some(if share < 0.0 {
            0
        } else if share >= 1.0 {
            count.saturating_add(1)
        } else {
            inside + 1
        }))
    };
    Ok(Arc::new((0..args[0].len()).map(bucket).collect::<Result<Int32Array, SqlError>>()?))
}

/// `width_bucket(x, thresholds)`: how many of the sorted thresholds are at most `x`.
fn thresholds(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    let values = args[0].as_primitive::<Float64Type>();
    let lists = args[1].as_list::<i32>();
    let bucket = |row: usize| -> Result<Option<i32>, SqlError> {
        if values.is_null(row) || lists.is_null(row) {
            return Ok(None);
        }
        let limits = cast(&lists.value(row), &DataType::Float64).map_err(|e| crate::error_map::arrow_error(&e))?;
        if limits.null_count() > 0 {
            return Err(invalid("thresholds array must not contain NULLs"));
        }
        let limits = limits.as_primitive::<Float64Type>().values();
        let below = limits.partition_point(|limit| *limit <= values.value(row));
        Ok(Some(i32::try_from(below).unwrap_or(i32::MAX)))
    };
    Ok(Arc::new((0..values.len()).map(bucket).collect::<Result<Int32Array, SqlError>>()?))
}

fn count(args: &[ArrayRef], nulls: bool) -> Int32Array {
    let rows = args.first().map_or(0, |array| array.len());
    let of = |row: usize| args.iter().filter(|array| array.is_null(row) == nulls).count();
    (0..rows).map(|row| i32::try_from(of(row)).ok()).collect()
}
