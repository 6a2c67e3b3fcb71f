//! Arrays.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int32Array, ListArray, StringArray, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Float64Type, Int32Type};
use arrow::row::{RowConverter, SortField};

use super::Takes::{Float, Int, List};
use super::{Function, Gives, function, invalid, text_rows};
use crate::SqlError;
use crate::error_map::arrow_error;

pub(super) static FUNCTIONS: &[Function] = &[
    function("array_length", &[List, Int], Gives::Int, |args, _| lengths(args)),
    function("array_upper", &[List, Int], Gives::Int, |args, _| lengths(args)),
    function("array_lower", &[List, Int], Gives::Int, |args, _| {
        let lengths = lengths(args)?;
        let first = lengths.as_primitive::<Int32Type>().iter().map(|length| length.map(|_| 1));
        Ok(Arc::new(first.collect::<Int32Array>()))
    }),
    function("array_dims", &[List], Gives::Text, |args, _| dimensions(args)),
    function("trim_array", &[List, Int], Gives::Same(0), |args, _| trimmed(args)),
    function("list_mode", &[List], Gives::Item(0), |args, _| picked(args, most_frequent)),
    function("list_percentile", &[List, Float], Gives::Item(0), |args, _| percentiles(args)),
    function("array_overlap", &[List, List], Gives::Bool, |args, _| overlaps(args)),
];

/// How long a dimension is; NULL for empty arrays.
fn lengths(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    let dimensions = args[1].as_primitive::<Int32Type>();
    let length = |row: usize| -> Option<i32> {
        if args[0].is_null(row) || dimensions.is_null(row) || dimensions.value(row) < 1 {
            return None;
        }
        let mut items = args[0].as_list::<i32>().value(row);
        for _ in 1..dimensions.value(row) {
            let inner = items.as_list_opt::<i32>().filter(|inner| !inner.is_empty())?.value(0);
            items = inner;
        }
        i32::try_from(items.len()).ok().filter(|length| *length > 0)
    };
    Ok(Arc::new((0..args[0].len()).map(length).collect::<Int32Array>()))
}

fn dimensions(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    let text = |row: usize| -> Option<String> {
        if args[0].is_null(row) {
            return None;
        }
        let (mut out, mut items) = (String::new(), args[0].as_list::<i32>().value(row));
        while !items.is_empty() {
            out.push_str(&format!("[1:{}]", items.len()));
            let Some(inner) = items.as_list_opt::<i32>().map(|inner| inner.value(0)) else { break };
            items = inner;
        }
        (!out.is_empty()).then_some(out)
    };
    let texts: StringArray = (0..args[0].len()).map(text).collect();
    text_rows(&[Arc::new(texts.clone())], |row| Ok(Some(texts.value(row).to_owned())))
}

/// `trim_array(array, n)`: without its last elements.
fn trimmed(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    let (lists, counts) = (args[0].as_list::<i32>(), args[1].as_primitive::<Int32Type>());
    let (mut kept, mut lengths) = (Vec::new(), Vec::new());
    for row in 0..lists.len() {
        let (start, length) = (lists.value_offsets()[row], lists.value_length(row));
        let gone = if counts.is_null(row) { 0 } else { counts.value(row) };
        if lists.is_valid(row) && !(0..=length).contains(&gone) {
            let message = format!("number of elements to trim must be between 0 and {length}");
            return Err(SqlError::new("2202E", message));
        }
        let length = if lists.is_valid(row) { length - gone } else { 0 };
        kept.extend((start..start + length).map(|i| i.unsigned_abs()));
        lengths.push(usize::try_from(length).unwrap_or(0));
    }
    let values = take(lists.values(), &UInt32Array::from(kept), None).map_err(|e| arrow_error(&e))?;
    let DataType::List(item) = lists.data_type() else { return Err(invalid("no array")) };
    let list = ListArray::try_new(item.clone(), OffsetBuffer::from_lengths(lengths), values, lists.nulls().cloned());
    Ok(Arc::new(list.map_err(|e| arrow_error(&e))?))
}

/// One element of each array.
fn picked(
    args: &[ArrayRef],
    pick: impl Fn(&ArrayRef, usize) -> Result<Option<usize>, SqlError>,
) -> Result<ArrayRef, SqlError> {
    let lists = args[0].as_list::<i32>();
    let place = |row: usize| -> Result<Option<u32>, SqlError> {
        if lists.is_null(row) || lists.value_length(row) == 0 {
            return Ok(None);
        }
        let start = lists.value_offsets()[row].unsigned_abs();
        let picked = pick(&lists.value(row), row)?;
        Ok(picked.and_then(|at| u32::try_from(at).ok()).map(|at| start + at))
    };
    let places = (0..lists.len()).map(place).collect::<Result<UInt32Array, SqlError>>()?;
    take(lists.values(), &places, None).map_err(|e| arrow_error(&e))
}

/// Where the first of the most frequent values of a sorted array is.
fn most_frequent(values: &ArrayRef, _: usize) -> Result<Option<usize>, SqlError> {
    let converter = RowConverter::new(vec![SortField::new(values.data_type().clone())]).map_err(|e| arrow_error(&e))?;
    let rows = converter.convert_columns(std::slice::from_ref(values)).map_err(|e| arrow_error(&e))?;
    let (mut best, mut start) = ((0, 0), 0);
    for at in 1..=values.len() {
        if at == values.len() || rows.row(at) != rows.row(start) {
            if at - start > best.1 {
                best = (start, at - start);
            }
            start = at;
        }
    }
    Ok(Some(best.0))
}

/// `percentile_disc`: the first value of a sorted array at or above which that share of them is.
fn percentiles(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    let shares = args[1].as_primitive::<Float64Type>();
    picked(args, |values, row| {
        if shares.is_null(row) {
            return Ok(None);
        }
        let share = shares.value(row);
        if !(0.0..=1.0).contains(&share) {
            let message = format!("percentile value {share} is not between 0 and 1");
            return Err(SqlError::new("22003", message));
        }
        let rank = (share * values.len() as f64).ceil() as usize;
        Ok(Some(rank.saturating_sub(1)))
    })
}

/// `&&`: whether they have an element in common.
fn overlaps(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    let item = |array: &ArrayRef| match array.data_type() {
        DataType::List(item) => item.data_type().clone(),
        other => other.clone(),
    };
    let wanted = DataType::List(Arc::new(Field::new_list_field(item(&args[0]), true)));
    let right = arrow::compute::cast(&args[1], &wanted).map_err(|e| arrow_error(&e))?;
    let (left, right) = (args[0].as_list::<i32>(), right.as_list::<i32>());
    let converter = RowConverter::new(vec![SortField::new(item(&args[0]))]).map_err(|e| arrow_error(&e))?;
    let overlap = |row: usize| -> Result<Option<bool>, SqlError> {
        if left.is_null(row) || right.is_null(row) {
            return Ok(None);
        }
        let (a, b) = (left.value(row), right.value(row));
        let known = |array: &ArrayRef| -> Result<Vec<Vec<u8>>, SqlError> {
            let rows = converter.convert_columns(std::slice::from_ref(array)).map_err(|e| arrow_error(&e))?;
            let nulls = array.logical_nulls();
            let valid = |i: &usize| nulls.as_ref().is_none_or(|n| n.is_valid(*i));
            Ok((0..array.len()).filter(valid).map(|i| rows.row(i).as_ref().to_vec()).collect())
        };
        let mut a = known(&a)?;
        a.sort_unstable();
        Ok(Some(known(&b)?.iter().any(|value| a.binary_search(value).is_ok())))
    };
    Ok(Arc::new((0..left.len()).map(overlap).collect::<Result<BooleanArray, SqlError>>()?))
}
