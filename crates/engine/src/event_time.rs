//! Event time at the edge: generated columns, times, watermarks, late rows.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use tidemill_delta::{Micros, batch};
use tidemill_plan::ColumnPath;
use tidemill_sql::{Relation, SqlError};

/// Rows of a source or table, ready to enter an epoch.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) rows: RecordBatch,
    /// What the rows' columns are; `None`: all columns of the relation.
    pub(crate) columns: Option<Arc<[ColumnPath]>>,
    /// The least event time, if there is event time and a row has one.
    pub(crate) earliest: Option<Micros>,
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
    let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
    for path in give.iter().skip(read.len()) {
        let generated = relation.generated.iter().find(|g| g.column == path.column).ok_or_else(|| {
            SqlError::internal(format!("column {} of \"{}\" is neither read nor generated", path.column, relation.name))
        })?;
        let inputs = pick(&rows, read, &generated.inputs)?;
        columns.push(generated.scalar.eval(&inputs).map_err(scalar_error)?);
    }
    let fields: Vec<Field> =
        columns.iter().enumerate().map(|(i, c)| Field::new(i.to_string(), c.data_type().clone(), true)).collect();
    let rows = batch(Arc::new(Schema::new(fields)), columns, rows.num_rows());
    let (earliest, watermark) = times(relation, &rows, Some(give))?;
    Ok(Prepared { rows, columns: Some(give.clone()), earliest, watermark })
}

/// Finds the times of whole rows of a table.
pub(crate) fn prepare_table(relation: &Relation, rows: RecordBatch) -> Result<Prepared, SqlError> {
    let (earliest, watermark) = times(relation, &rows, None)?;
    Ok(Prepared { rows, columns: None, earliest, watermark })
}

fn times(
    relation: &Relation,
    rows: &RecordBatch,
    columns: Option<&Arc<[ColumnPath]>>,
) -> Result<(Option<Micros>, Option<Micros>), SqlError> {
    let Some(event_time) = relation.event_time.as_ref().filter(|_| rows.num_rows() > 0) else {
        return Ok((None, None));
    };
    let all: Vec<ColumnPath>;
    let has: &[ColumnPath] = match columns {
        Some(columns) => columns,
        None => {
            all = (0..rows.num_columns()).map(ColumnPath::column).collect();
            &all
        }
    };
    let time = pick(rows, has, &[ColumnPath::column(event_time.column)])?;
    let earliest = arrow::compute::min(&micros(time.column(0))?);
    let inputs = pick(rows, has, &event_time.inputs)?;
    let watermark = event_time.watermark.eval(&inputs).map_err(scalar_error)?;
    Ok((earliest, arrow::compute::max(&micros(&watermark)?)))
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

/// The row numbers in time and too late.
pub(crate) struct Split {
    pub(crate) in_time: RecordBatch,
    pub(crate) late: RecordBatch,
}

/// Splits rows by the watermark: late is what is stamped before it. A row without a time is in time.
pub(crate) fn split_late(relation: &Relation, prepared: &Prepared, watermark: Micros) -> Result<Split, SqlError> {
    let column = relation.event_time.as_ref().map_or(0, |t| t.column);
    let path = ColumnPath::column(column);
    let at = match &prepared.columns {
        None => column,
        Some(columns) => columns.iter().position(|c| *c == path).unwrap_or(0),
    };
    let times = micros(prepared.rows.column(at))?;
    let is_late = |i: &u32| times.is_valid(*i as usize) && times.value(*i as usize) < watermark;
    let (late, in_time): (Vec<u32>, Vec<u32>) = (0..times.len() as u32).partition(is_late);
    let take = |list: Vec<u32>| take_record_batch(&prepared.rows, &UInt32Array::from(list)).map_err(internal);
    Ok(Split { in_time: take(in_time)?, late: take(late)? })
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

/// Late rows in the shape of `t$late`. Columns of a source that were not read are NULL.
pub(crate) fn late_rows(
    relation: &Relation,
    columns: Option<&Arc<[ColumnPath]>>,
    late: &RecordBatch,
    watermark: Micros,
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
    let late_by = times.iter().map(|t| t.map(|t| (watermark - t) as f64 / 1e6));
    let late_by: ArrayRef = Arc::new(late_by.collect::<arrow::array::Float64Array>());
    out.push(Arc::new(TimestampMicrosecondArray::from_value(watermark, len)));
    out.push(late_by);
    out.push(Arc::new(StringArray::from_iter_values(std::iter::repeat_n("stamped before the watermark", len))));
    Ok(batch(schema, out, len))
}
