//! Values of the order column that `RANGE` frames with offsets reckon with.

use std::cmp::Ordering;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use tidemill_plan::FrameOffset;

use crate::OperatorError;

/// A value that is not NULL, negated where the order is descending, so that `PRECEDING` always means less.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Whole(i128),
    Float(f64),
}

impl Number {
    /// The value this far away. Integers do not overflow: they have room.
    pub(super) fn plus(self, offset: FrameOffset) -> Number {
        match (self, offset) {
            (Number::Whole(value), FrameOffset::Whole(by)) => Number::Whole(value.saturating_add(i128::from(by))),
            (Number::Whole(value), FrameOffset::Float(by)) => Number::Float(value as f64 + by),
            (Number::Float(value), FrameOffset::Whole(by)) => Number::Float(value + by as f64),
            (Number::Float(value), FrameOffset::Float(by)) => Number::Float(value + by),
        }
    }

    /// The order of the values; NaN is beyond all others.
    pub(super) fn compare(self, other: Number) -> Ordering {
        match (self, other) {
            (Number::Whole(a), Number::Whole(b)) => a.cmp(&b),
            (Number::Float(a), Number::Float(b)) => a.total_cmp(&b),
            (Number::Whole(a), Number::Float(b)) => (a as f64).total_cmp(&b),
            (Number::Float(a), Number::Whole(b)) => a.total_cmp(&(b as f64)),
        }
    }
}

/// Whether values of the type can be reckoned with.
pub(super) fn check(data_type: &DataType) -> Result<(), OperatorError> {
    let known = data_type.is_integer() || matches!(data_type, DataType::Float32 | DataType::Float64);
    match data_type {
        DataType::Date32 | DataType::Timestamp(..) | DataType::Decimal128(..) => Ok(()),
        _ if known => Ok(()),
        other => Err(OperatorError(format!("a RANGE frame with an offset cannot be over {other}"))),
    }
}

/// The value at `i`; `None`: NULL.
pub(super) fn number_at(column: &ArrayRef, i: usize, descending: bool) -> Option<Number> {
    if column.is_null(i) {
        return None;
    }
    let whole = |value: i128| Number::Whole(if descending { -value } else { value });
    let float = |value: f64| {
        let value = if value.is_nan() { f64::NAN.abs() } else { value };
        Number::Float(if descending { -value } else { value })
    };
    Some(match column.data_type() {
        DataType::Int8 => whole(column.as_primitive::<Int8Type>().value(i).into()),
        DataType::Int16 => whole(column.as_primitive::<Int16Type>().value(i).into()),
        DataType::Int32 => whole(column.as_primitive::<Int32Type>().value(i).into()),
        DataType::Int64 => whole(column.as_primitive::<Int64Type>().value(i).into()),
        DataType::UInt8 => whole(column.as_primitive::<UInt8Type>().value(i).into()),
        DataType::UInt16 => whole(column.as_primitive::<UInt16Type>().value(i).into()),
        DataType::UInt32 => whole(column.as_primitive::<UInt32Type>().value(i).into()),
        DataType::UInt64 => whole(column.as_primitive::<UInt64Type>().value(i).into()),
        DataType::Decimal128(..) => whole(column.as_primitive::<Decimal128Type>().value(i)),
        DataType::Date32 => whole(column.as_primitive::<Date32Type>().value(i).into()),
        DataType::Timestamp(TimeUnit::Second, _) => whole(column.as_primitive::<TimestampSecondType>().value(i).into()),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            whole(column.as_primitive::<TimestampMillisecondType>().value(i).into())
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            whole(column.as_primitive::<TimestampMicrosecondType>().value(i).into())
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            whole(column.as_primitive::<TimestampNanosecondType>().value(i).into())
        }
        DataType::Float32 => float(column.as_primitive::<Float32Type>().value(i).into()),
        DataType::Float64 => float(column.as_primitive::<Float64Type>().value(i)),
        other => panic!("{other} was let through as an order column of a RANGE frame"),
    })
}
