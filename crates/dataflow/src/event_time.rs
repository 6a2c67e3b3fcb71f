//! Timestamp columns as plain integers in their own unit, and those integers as microseconds.

use arrow::array::{ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, RecordBatch};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{
    DataType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use tidemill_delta::Micros;

use crate::map::row_text;
use crate::{OperatorError, RowError};

/// The unit of a timestamp type.
pub(crate) fn unit_of(data_type: &DataType) -> Result<TimeUnit, OperatorError> {
    match data_type {
        DataType::Timestamp(unit, _) => Ok(*unit),
        other => Err(OperatorError(format!("a time column must be a TIMESTAMP, not {other}"))),
    }
}

/// The values of a timestamp column in its own unit, without copying. Values under NULLs are
/// whatever the column holds there.
pub(crate) fn raw_times(column: &ArrayRef) -> Result<ScalarBuffer<i64>, OperatorError> {
    Ok(match unit_of(column.data_type())? {
        TimeUnit::Second => column.as_primitive::<TimestampSecondType>().values().clone(),
        TimeUnit::Millisecond => column.as_primitive::<TimestampMillisecondType>().values().clone(),
        TimeUnit::Microsecond => column.as_primitive::<TimestampMicrosecondType>().values().clone(),
        TimeUnit::Nanosecond => column.as_primitive::<TimestampNanosecondType>().values().clone(),
    })
}

/// A timestamp column of the type given from values in its unit.
pub(crate) fn times_from_raw(values: Vec<i64>, data_type: &DataType) -> Result<ArrayRef, OperatorError> {
    fn typed<T: ArrowPrimitiveType<Native = i64>>(values: Vec<i64>, data_type: &DataType) -> ArrayRef {
        std::sync::Arc::new(PrimitiveArray::<T>::from_iter_values(values).with_data_type(data_type.clone()))
    }
    Ok(match unit_of(data_type)? {
        TimeUnit::Second => typed::<TimestampSecondType>(values, data_type),
        TimeUnit::Millisecond => typed::<TimestampMillisecondType>(values, data_type),
        TimeUnit::Microsecond => typed::<TimestampMicrosecondType>(values, data_type),
        TimeUnit::Nanosecond => typed::<TimestampNanosecondType>(values, data_type),
    })
}

/// A value in microseconds; rounded up, so that nothing counts as final too early, and capped where
/// microseconds end.
pub(crate) fn to_micros(raw: i64, unit: TimeUnit) -> Micros {
    match unit {
        TimeUnit::Second => raw.saturating_mul(1_000_000),
        TimeUnit::Millisecond => raw.saturating_mul(1_000),
        TimeUnit::Microsecond => raw,
        TimeUnit::Nanosecond => raw.div_euclid(1_000) + i64::from(raw.rem_euclid(1_000) != 0),
    }
}

/// The error of a row whose `what` would reach beyond what its time's type can express.
pub(crate) fn out_of_range(rows: &RecordBatch, row: usize, weight: i64, what: &str) -> RowError {
    RowError { message: format!("timestamp out of range for a {what}"), row: row_text(rows, row), weight }
}

/// A span of microseconds in another unit; an error where that unit cannot express it.
pub(crate) fn span_in(unit: TimeUnit, span: Micros) -> Result<i64, OperatorError> {
    let inexact = || OperatorError(format!("an interval of {span} microseconds does not fit a timestamp in {unit:?}s"));
    let divided = |by: i64| if span % by == 0 { Ok(span / by) } else { Err(inexact()) };
    match unit {
        TimeUnit::Second => divided(1_000_000),
        TimeUnit::Millisecond => divided(1_000),
        TimeUnit::Microsecond => Ok(span),
        TimeUnit::Nanosecond => span.checked_mul(1_000).ok_or_else(inexact),
    }
}
