//! Event time at the edge: generated columns, times, watermarks, late rows.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    UInt32Array,
};
use arrow::compute::{cast, max, min, take_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use tidemill_delta::{Micros, NO_WATERMARK, batch, one_zero};
use tidemill_plan::ColumnPath;
use tidemill_sql::{Relation, SqlError};

use crate::panics::guarded;

/// Rows of a source or table, ready to enter an epoch.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) rows: RecordBatch,
    /// What the rows' columns are; `None`: all columns of the relation.
    pub(crate) columns: Option<Arc<[ColumnPath]>>,
    pub(crate) times: Times,
}

/// The times of some rows; nothing if there is no event time, or no row has one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    pub(crate) earliest: Option<Micros>,
    pub(crate) latest: Option<Micros>,
    /// The watermark that the rows allow.
    pub(crate) watermark: Option<Micros>,
}

fn internal(error: arrow::error::ArrowError) -> SqlError {
    SqlError::internal(error.to_string())
}

fn scalar_error(error: tidemill_plan::ScalarError) -> SqlError {
    SqlError::new(tidemill_sql::state::DATA_EXCEPTION, error.message)
}

/// A timestamp column in microseconds since 1970.
fn micros(column: &ArrayRef) -> Result<Int64Array, SqlError> {
    let cast = cast(column, &DataType::Timestamp(TimeUnit::Microsecond, None)).map_err(internal)?;
    Ok(cast.as_primitive::<TimestampMicrosecondType>().reinterpret_cast::<Int64Type>())
}

/// Adds the generated columns that are asked for to rows read from a source, and finds their times.
///
/// `rows` has exactly the columns `read`.
pub(crate) fn prepare_source(
    relation: &Relation,
    rows: RecordBatch,
    read: &[ColumnPath],
    give: &Arc<[ColumnPath]>,
) -> Result<Prepared, SqlError> {
    guarded(&relation.name, || {
        let rows = with_generated(relation, rows, read, give)?;
        let times = times(relation, &rows, Some(give))?;
        Ok(Prepared { rows, columns: Some(give.clone()), times })
    })
}

fn with_generated(
    relation: &Relation,
    rows: RecordBatch,
    read: &[ColumnPath],
    give: &[ColumnPath],
) -> Result<RecordBatch, SqlError> {
    let mut columns: Vec<ArrayRef> = rows.columns().iter().map(one_zero).collect();
    for path in give.iter().skip(read.len()) {
        let generated = relation.generated.iter().find(|g| g.column == path.column).ok_or_else(|| {
            SqlError::internal(format!("column {} of \"{}\" is neither read nor generated", path.column, relation.name))
        })?;
        let inputs = pick(&rows, read, &generated.inputs)?;
        columns.push(generated.scalar.eval(&inputs).map_err(scalar_error)?);
    }
    let fields: Vec<Field> =
        columns.iter().enumerate().map(|(i, c)| Field::new(i.to_string(), c.data_type().clone(), true)).collect();
    Ok(batch(Arc::new(Schema::new(fields)), columns, rows.num_rows()))
}

/// Finds the times of whole rows of a table.
pub(crate) fn prepare_table(relation: &Relation, rows: RecordBatch) -> Result<Prepared, SqlError> {
    let times = guarded(&relation.name, || times(relation, &rows, None))?;
    Ok(Prepared { rows, columns: None, times })
}

fn times(relation: &Relation, rows: &RecordBatch, columns: Option<&Arc<[ColumnPath]>>) -> Result<Times, SqlError> {
    let Some(event_time) = relation.event_time.as_ref().filter(|_| rows.num_rows() > 0) else {
        return Ok(Times::default());
    };
    let all: Vec<ColumnPath>;
    let has: &[ColumnPath] = match columns {
        Some(columns) => columns,
        None => {
            all = (0..rows.num_columns()).map(ColumnPath::column).collect();
            &all
        }
    };
    let time = micros(pick(rows, has, &[ColumnPath::column(event_time.column)])?.column(0))?;
    let inputs = pick(rows, has, &event_time.inputs)?;
    let watermark = micros(&event_time.watermark.eval(&inputs).map_err(scalar_error)?)?;
    Ok(Times { earliest: min(&time), latest: max(&time), watermark: max(&watermark) })
}

/// The columns `wanted` out of rows that have the columns `has`.
fn pick(rows: &RecordBatch, has: &[ColumnPath], wanted: &[ColumnPath]) -> Result<RecordBatch, SqlError> {
    let mut columns = Vec::with_capacity(wanted.len());
    let mut fields = Vec::with_capacity(wanted.len());
    for path in wanted {
        let at = has.iter().position(|own| own == path);
        let column = match at {
            Some(at) => rows.column(at).clone(),
            None => nested(rows, has, path)?,
        };
        fields.push(Field::new(fields.len().to_string(), column.data_type().clone(), true));
        columns.push(column);
    }
    Ok(batch(Arc::new(Schema::new(fields)), columns, rows.num_rows()))
}

/// A field inside a struct column that is there as a whole.
fn nested(rows: &RecordBatch, has: &[ColumnPath], path: &ColumnPath) -> Result<ArrayRef, SqlError> {
    let missing = || SqlError::internal(format!("column {} {:?} was not read", path.column, path.fields));
    let covers = |own: &ColumnPath| own.column == path.column && path.fields.starts_with(&own.fields);
    let at = has.iter().position(covers).ok_or_else(missing)?;
    let mut column = rows.column(at).clone();
    for field in &path.fields[has[at].fields.len()..] {
        let parent = column.as_struct_opt().ok_or_else(missing)?.clone();
        let child = parent.column_by_name(field).ok_or_else(missing)?;
        let nulls = arrow::buffer::NullBuffer::union(parent.nulls(), child.nulls());
        let data = child.to_data().into_builder().nulls(nulls).build().map_err(internal)?;
        column = arrow::array::make_array(data);
    }
    Ok(column)
}

/// Under which conditions rows enter an epoch.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    /// The watermark in force.
    pub(crate) watermark: Micros,
    /// The epoch's time: when its rows arrive.
    pub(crate) arrival: Micros,
}

/// Rows told apart as they enter an epoch.
pub(crate) struct Admitted {
    pub(crate) in_time: RecordBatch,
    /// What `in_time` has; `None`: all columns of the relation.
    pub(crate) columns: Option<Arc<[ColumnPath]>>,
    /// Rows of `t$late`.
    pub(crate) late: Option<RecordBatch>,
    /// The watermark that the rows allow; those from the future have no say.
    pub(crate) watermark: Option<Micros>,
}

/// Tells rows apart: late is what is stamped before the watermark or too far ahead of its arrival. A row
/// without a time is in time.
pub(crate) fn admit(relation: &Relation, prepared: Prepared, entry: Entry) -> Result<Admitted, SqlError> {
    let Prepared { rows, columns, times } = prepared;
    let fence = relation.event_time.as_ref().and_then(|time| time.future_fence);
    let limit = fence.map_or(Micros::MAX, |fence| entry.arrival.saturating_add(fence));
    let in_time = times.earliest.is_none_or(|t| t >= entry.watermark) && times.latest.is_none_or(|t| t <= limit);
    if in_time {
        return Ok(Admitted { in_time: rows, columns, late: None, watermark: times.watermark });
    }
    guarded(&relation.name, || split(relation, &rows, columns, entry, limit))
}

fn split(
    relation: &Relation,
    rows: &RecordBatch,
    columns: Option<Arc<[ColumnPath]>>,
    entry: Entry,
    limit: Micros,
) -> Result<Admitted, SqlError> {
    let event_time = relation.event_time.as_ref();
    let path = ColumnPath::column(event_time.map_or(0, |t| t.column));
    let at = columns.as_ref().map_or(Some(path.column), |columns| columns.iter().position(|c| *c == path));
    let stamped = micros(rows.column(at.unwrap_or(0)))?;
    let (mut known, mut kept, mut late) = (Vec::new(), Vec::new(), Vec::new());
    let mut why: Vec<Option<Micros>> = Vec::new();
    for i in 0..stamped.len() {
        let time = stamped.is_valid(i).then(|| stamped.value(i));
        let ahead = time.is_some_and(|time| time > limit);
        if !ahead {
            known.push(i as u32);
        }
        if ahead || time.is_some_and(|time| time < entry.watermark) {
            late.push(i as u32);
            why.push(event_time.and_then(|t| t.future_fence).filter(|_| ahead));
        } else {
            kept.push(i as u32);
        }
    }
    let take = |list: Vec<u32>| take_record_batch(rows, &UInt32Array::from(list)).map_err(internal);
    let watermark = times(relation, &take(known)?, columns.as_ref())?.watermark;
    let late = late_rows(relation, columns.as_ref(), &take(late)?, &why, entry)?;
    Ok(Admitted { in_time: take(kept)?, columns, late: Some(late), watermark })
}

/// A duration as people say it.
fn spoken(micros: Micros) -> String {
    let units = [(86_400_000_000, "day"), (3_600_000_000, "hour"), (60_000_000, "minute"), (1_000_000, "second")];
    let fits = units.iter().find(|(unit, _)| micros >= *unit && micros % unit == 0);
    let (unit, name) = fits.copied().unwrap_or((1_000, "millisecond"));
    let count = micros / unit;
    format!("{count} {name}{}", if count == 1 { "" } else { "s" })
}

/// The columns of `t$late`: the relation's, then the watermark, how late, and why.
pub(crate) fn late_schema(relation: &Relation) -> SchemaRef {
    let mut fields: Vec<Field> =
        relation.schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
    fields.push(Field::new("watermark", DataType::Timestamp(TimeUnit::Microsecond, None), true));
    fields.push(Field::new("late_by_seconds", DataType::Float64, true));
    fields.push(Field::new("reason", DataType::Utf8, true));
    Arc::new(Schema::new(fields))
}

/// Late rows in the shape of `t$late`. Columns of a source that were not read are NULL. `ahead` has the fence for
/// each row that is too far ahead of its arrival, which is so many seconds "late" below zero.
fn late_rows(
    relation: &Relation,
    columns: Option<&Arc<[ColumnPath]>>,
    late: &RecordBatch,
    ahead: &[Option<Micros>],
    entry: Entry,
) -> Result<RecordBatch, SqlError> {
    let schema = late_schema(relation);
    let len = late.num_rows();
    let width = relation.schema.fields().len();
    let mut out: Vec<ArrayRef> = Vec::with_capacity(width + 3);
    for c in 0..width {
        let at = match columns {
            None => Some(c),
            Some(columns) => columns.iter().position(|own| *own == ColumnPath::column(c)),
        };
        out.push(match at {
            Some(at) => late.column(at).clone(),
            None => arrow::array::new_null_array(schema.field(c).data_type(), len),
        });
    }
    let time = relation.event_time.as_ref().map_or(0, |t| t.column);
    let times = micros(&out[time])?;
    let due = |ahead: &Option<Micros>| if ahead.is_some() { entry.arrival } else { entry.watermark };
    let late_by = times.iter().zip(ahead).map(|(t, ahead)| t.map(|t| due(ahead).saturating_sub(t) as f64 / 1e6));
    let reasons = ahead.iter().map(|ahead| match ahead {
        Some(fence) => format!("stamped more than {} ahead of its arrival", spoken(*fence)),
        None => "stamped before the watermark".to_owned(),
    });
    let promised = (entry.watermark != NO_WATERMARK).then_some(entry.watermark);
    out.push(Arc::new(std::iter::repeat_n(promised, len).collect::<TimestampMicrosecondArray>()));
    out.push(Arc::new(late_by.collect::<Float64Array>()));
    out.push(Arc::new(StringArray::from_iter_values(reasons)));
    Ok(batch(schema, out, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_spoken() {
        let said = [3_600_000_000, 90_000_000, 7_200_000_000, 86_400_000_000, 5_400_000_000, 1_500_000].map(spoken);
        assert_eq!(said, ["1 hour", "90 seconds", "2 hours", "1 day", "90 minutes", "1500 milliseconds"]);
    }
}
