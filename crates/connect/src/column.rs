//! Columns under construction: plain vectors that a decoder fills and that become Arrow arrays
//! without a copy.
//!
//! A column may lag behind: rows that never named it are filled with NULL when the next value or the
//! end comes. So a decoder touches only the columns that a record names, and a record that turns out
//! bad is undone by cutting every column back.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, Decimal128Array, Float32Array, Float64Array,
    IntervalMonthDayNanoArray, ListArray, NullBufferBuilder, PrimitiveArray, StringArray, StructArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Field, FieldRef, Int8Type, Int16Type, Int32Type, Int64Type,
    IntervalMonthDayNano, IntervalUnit, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow::error::ArrowError;

use crate::json_out::is_jsonb;
use crate::parse::DateCache;
use crate::record::Record;
use crate::source::SourceError;

/// Why a record is bad: cold, so it may allocate.
#[derive(Debug)]
pub(crate) struct Fault {
    what: &'static str,
    column: String,
}

/// What decoding steps return: small, because it is returned for every value.
pub(crate) type Step<T> = Result<T, Box<Fault>>;

impl Fault {
    #[cold]
    pub(crate) fn new(what: &'static str) -> Box<Fault> {
        Box::new(Fault { what, column: String::new() })
    }

    /// The fault is in the field of this name.
    #[cold]
    pub(crate) fn within(mut self: Box<Self>, name: &str) -> Box<Fault> {
        let inner = std::mem::take(&mut self.column);
        self.column = if inner.is_empty() { name.to_string() } else { format!("{name}.{inner}") };
        self
    }

    /// For people.
    pub(crate) fn reason(&self) -> String {
        if self.column.is_empty() { self.what.to_string() } else { format!("column {}: {}", self.column, self.what) }
    }
}

/// How values are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ValueOptions {
    /// What an integer in a timestamp column counts.
    pub(crate) timestamp_unit: TimeUnit,
}

/// What the text in a text column has to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextKind {
    Plain,
    Json,
    Uuid,
}

/// A column under construction.
pub(crate) struct Column {
    data_type: DataType,
    /// Its length is the column's.
    pub(crate) nulls: NullBufferBuilder,
    pub(crate) data: Data,
}

/// The values; where a value is NULL stands anything.
pub(crate) enum Data {
    Bool(BooleanBufferBuilder),
    /// All integers but `UInt64`, kept within their type's range.
    Int {
        values: Vec<i64>,
        min: i64,
        max: i64,
    },
    UInt64(Vec<u64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Decimal {
        values: Vec<i128>,
        precision: u8,
        scale: i8,
    },
    Date(Vec<i32>),
    Time(Vec<i64>),
    /// In microseconds, whatever the type's unit.
    Timestamp {
        values: Vec<i64>,
        unit: TimeUnit,
        /// What an integer counts.
        integers: TimeUnit,
        cache: DateCache,
    },
    Interval(Vec<IntervalMonthDayNano>),
    Text {
        strings: Strings,
        kind: TextKind,
    },
    Binary(Strings),
    List {
        ends: Vec<i32>,
        item: Box<Column>,
        field: FieldRef,
    },
    Struct(Box<Record>),
}

/// Byte strings, one after the other.
pub(crate) struct Strings {
    pub(crate) bytes: Vec<u8>,
    /// Offsets as Arrow has them: one more than there are strings.
    pub(crate) ends: Vec<i32>,
}

impl Strings {
    fn new() -> Self {
        Strings { bytes: Vec::new(), ends: vec![0] }
    }

    /// Closes the string whose bytes have been appended.
    #[inline]
    pub(crate) fn close(&mut self) -> Step<()> {
        match i32::try_from(self.bytes.len()) {
            Ok(end) => {
                self.ends.push(end);
                Ok(())
            }
            Err(_) => Err(Fault::new("more than 2 GiB of text in one batch")),
        }
    }

    /// Where the string under construction begins.
    pub(crate) fn open_at(&self) -> usize {
        self.ends.last().map_or(0, |e| *e as usize)
    }

    fn take(&mut self) -> (OffsetBuffer<i32>, Buffer) {
        let fresh = Strings { bytes: Vec::with_capacity(self.bytes.len()), ends: Vec::with_capacity(self.ends.len()) };
        let Strings { bytes, ends } = std::mem::replace(self, fresh);
        self.ends.push(0);
        (OffsetBuffer::new(ends.into()), Buffer::from_vec(bytes))
    }
}

impl Column {
    /// An empty column for a field.
    pub(crate) fn new(field: &Field, options: ValueOptions) -> Result<Column, SourceError> {
        let int = |min, max| Data::Int { values: Vec::new(), min, max };
        let data = match field.data_type() {
            DataType::Boolean => Data::Bool(BooleanBufferBuilder::new(0)),
            DataType::Int8 => int(i8::MIN.into(), i8::MAX.into()),
            DataType::Int16 => int(i16::MIN.into(), i16::MAX.into()),
            DataType::Int32 => int(i32::MIN.into(), i32::MAX.into()),
            DataType::Int64 => int(i64::MIN, i64::MAX),
            DataType::UInt8 => int(0, u8::MAX.into()),
            DataType::UInt16 => int(0, u16::MAX.into()),
            DataType::UInt32 => int(0, u32::MAX.into()),
            DataType::UInt64 => Data::UInt64(Vec::new()),
            DataType::Float32 => Data::Float32(Vec::new()),
            DataType::Float64 => Data::Float64(Vec::new()),
            DataType::Decimal128(p, s) => Data::Decimal { values: Vec::new(), precision: *p, scale: *s },
            DataType::Date32 => Data::Date(Vec::new()),
            DataType::Time64(TimeUnit::Microsecond) => Data::Time(Vec::new()),
            DataType::Timestamp(unit, _) => Data::Timestamp {
                values: Vec::new(),
                unit: *unit,
                integers: options.timestamp_unit,
                cache: DateCache::default(),
            },
            DataType::Interval(IntervalUnit::MonthDayNano) => Data::Interval(Vec::new()),
            DataType::Utf8 => Data::Text { strings: Strings::new(), kind: text_kind(field) },
            DataType::Binary => Data::Binary(Strings::new()),
            DataType::List(item) => {
                let column = Column::new(item, options)?;
                Data::List { ends: vec![0], item: Box::new(column), field: item.clone() }
            }
            DataType::Struct(fields) => {
                let required = (0..fields.len()).filter(|i| !fields[*i].is_nullable()).collect();
                Data::Struct(Box::new(Record::new(fields, required, options)?))
            }
            other => {
                return Err(SourceError(format!("column {}: type {other} cannot be read from text", field.name())));
            }
        };
        Ok(Column { data_type: field.data_type().clone(), nulls: NullBufferBuilder::new(0), data })
    }

    /// How many values it has.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.nulls.len()
    }

    /// Makes the next value the one of row `row`: fills up rows that never named this column, or
    /// drops the value that an earlier member of the same name gave.
    #[inline]
    pub(crate) fn align(&mut self, row: usize) {
        if self.len() != row {
            self.realign(row);
        }
    }

    #[inline(never)]
    fn realign(&mut self, row: usize) {
        if self.len() > row {
            self.truncate(row);
        } else {
            self.pad(row - self.len());
        }
    }

    /// Appends NULL.
    pub(crate) fn push_null(&mut self) {
        self.pad(1);
    }

    fn pad(&mut self, n: usize) {
        self.nulls.append_n_nulls(n);
        let len = self.nulls.len();
        match &mut self.data {
            Data::Bool(values) => values.append_n(n, false),
            Data::Int { values, .. } | Data::Time(values) | Data::Timestamp { values, .. } => values.resize(len, 0),
            Data::UInt64(values) => values.resize(len, 0),
            Data::Float32(values) => values.resize(len, 0.0),
            Data::Float64(values) => values.resize(len, 0.0),
            Data::Decimal { values, .. } => values.resize(len, 0),
            Data::Date(values) => values.resize(len, 0),
            Data::Interval(values) => values.resize(len, IntervalMonthDayNano::ZERO),
            Data::Text { strings: Strings { ends, .. }, .. }
            | Data::Binary(Strings { ends, .. })
            | Data::List { ends, .. } => ends.resize(len + 1, ends.last().copied().unwrap_or(0)),
            // Its columns may lag behind.
            Data::Struct(_) => {}
        }
    }

    /// Cuts it back to `len` values (it may have fewer) and drops what a failed value left behind.
    pub(crate) fn truncate(&mut self, len: usize) {
        let len = len.min(self.len());
        self.nulls.truncate(len);
        match &mut self.data {
            Data::Bool(values) => values.truncate(len),
            Data::Int { values, .. } | Data::Time(values) | Data::Timestamp { values, .. } => values.truncate(len),
            Data::UInt64(values) => values.truncate(len),
            Data::Float32(values) => values.truncate(len),
            Data::Float64(values) => values.truncate(len),
            Data::Decimal { values, .. } => values.truncate(len),
            Data::Date(values) => values.truncate(len),
            Data::Interval(values) => values.truncate(len),
            Data::Text { strings, .. } | Data::Binary(strings) => {
                strings.ends.truncate(len + 1);
                strings.bytes.truncate(strings.open_at());
            }
            Data::List { ends, item, .. } => {
                ends.truncate(len + 1);
                item.truncate(ends.last().map_or(0, |e| *e as usize));
            }
            Data::Struct(record) => record.truncate(len),
        }
    }

    /// Closes the list whose items have been appended.
    pub(crate) fn close_list(&mut self) -> Step<()> {
        if let Data::List { ends, item, .. } = &mut self.data {
            ends.push(i32::try_from(item.len()).map_err(|_| Fault::new("too many list items in one batch"))?);
            self.nulls.append_non_null();
        }
        Ok(())
    }

    /// Gives the first `rows` values as an array, NULL where there is none, and begins anew.
    pub(crate) fn finish(&mut self, rows: usize) -> Result<ArrayRef, ArrowError> {
        self.align(rows);
        let nulls = self.nulls.finish();
        Ok(match &mut self.data {
            Data::Bool(values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Data::Int { values, .. } => integers(&self.data_type, again(values), nulls),
            Data::UInt64(values) => primitive::<UInt64Type>(again(values), nulls),
            Data::Float32(values) => Arc::new(Float32Array::new(again(values).into(), nulls)),
            Data::Float64(values) => Arc::new(Float64Array::new(again(values).into(), nulls)),
            Data::Decimal { values, precision, scale } => {
                let array = Decimal128Array::new(again(values).into(), nulls);
                Arc::new(array.with_precision_and_scale(*precision, *scale)?)
            }
            Data::Date(values) => primitive::<Date32Type>(again(values), nulls),
            Data::Time(values) => primitive::<Time64MicrosecondType>(again(values), nulls),
            Data::Timestamp { values, unit, .. } => timestamps(&self.data_type, *unit, again(values), nulls),
            Data::Interval(values) => Arc::new(IntervalMonthDayNanoArray::new(again(values).into(), nulls)),
            Data::Text { strings, .. } => {
                let (offsets, bytes) = strings.take();
                Arc::new(StringArray::try_new(offsets, bytes, nulls)?)
            }
            Data::Binary(strings) => {
                let (offsets, bytes) = strings.take();
                Arc::new(BinaryArray::try_new(offsets, bytes, nulls)?)
            }
            Data::List { ends, item, field } => {
                let items = item.finish(ends.last().map_or(0, |e| *e as usize))?;
                let offsets = OffsetBuffer::new(again(ends).into());
                ends.push(0);
                Arc::new(ListArray::try_new(field.clone(), offsets, items, nulls)?)
            }
            Data::Struct(record) => {
                let columns = record.finish(rows)?;
                Arc::new(StructArray::try_new_with_length(record.fields().clone(), columns, nulls, rows)?)
            }
        })
    }
}

/// Takes the values and leaves a vector of the same capacity: the next batch is likely as large.
fn again<T>(values: &mut Vec<T>) -> Vec<T> {
    let capacity = values.len();
    std::mem::replace(values, Vec::with_capacity(capacity))
}

fn text_kind(field: &Field) -> TextKind {
    if is_jsonb(field) {
        TextKind::Json
    } else if field.metadata().get("tidemill.type").is_some_and(|t| t == "uuid") {
        TextKind::Uuid
    } else {
        TextKind::Plain
    }
}

fn primitive<T: ArrowPrimitiveType>(values: Vec<T::Native>, nulls: Option<NullBuffer>) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(values), nulls))
}

/// Narrows integers, which are within their type's range already.
fn integers(data_type: &DataType, values: Vec<i64>, nulls: Option<NullBuffer>) -> ArrayRef {
    fn narrow<T: ArrowPrimitiveType>(
        values: &[i64],
        nulls: Option<NullBuffer>,
        cast: impl Fn(i64) -> T::Native,
    ) -> ArrayRef {
        primitive::<T>(values.iter().map(|v| cast(*v)).collect(), nulls)
    }
    match data_type {
        DataType::Int8 => narrow::<Int8Type>(&values, nulls, |v| v as i8),
        DataType::Int16 => narrow::<Int16Type>(&values, nulls, |v| v as i16),
        DataType::Int32 => narrow::<Int32Type>(&values, nulls, |v| v as i32),
        DataType::UInt8 => narrow::<UInt8Type>(&values, nulls, |v| v as u8),
        DataType::UInt16 => narrow::<UInt16Type>(&values, nulls, |v| v as u16),
        DataType::UInt32 => narrow::<UInt32Type>(&values, nulls, |v| v as u32),
        _ => primitive::<Int64Type>(values, nulls),
    }
}

/// Turns microseconds into the type's unit.
fn timestamps(data_type: &DataType, unit: TimeUnit, mut values: Vec<i64>, nulls: Option<NullBuffer>) -> ArrayRef {
    let zone = match data_type {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    let mut each = |convert: fn(i64) -> i64| values.iter_mut().for_each(|v| *v = convert(*v));
    match unit {
        TimeUnit::Second => each(|v| v.div_euclid(1_000_000)),
        TimeUnit::Millisecond => each(|v| v.div_euclid(1000)),
        TimeUnit::Microsecond => {}
        TimeUnit::Nanosecond => each(|v| v.saturating_mul(1000)),
    }
    let values = ScalarBuffer::from(values);
    match unit {
        TimeUnit::Second => Arc::new(PrimitiveArray::<TimestampSecondType>::new(values, nulls).with_timezone_opt(zone)),
        TimeUnit::Millisecond => {
            Arc::new(PrimitiveArray::<TimestampMillisecondType>::new(values, nulls).with_timezone_opt(zone))
        }
        TimeUnit::Microsecond => {
            Arc::new(PrimitiveArray::<TimestampMicrosecondType>::new(values, nulls).with_timezone_opt(zone))
        }
        TimeUnit::Nanosecond => {
            Arc::new(PrimitiveArray::<TimestampNanosecondType>::new(values, nulls).with_timezone_opt(zone))
        }
    }
}
