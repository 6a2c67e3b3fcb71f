//! Arrow batches from outside, made to fit a relation: columns matched by name and cast, rows that do
//! not fit told apart.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StructArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, filter};
use arrow::datatypes::{DataType, Field, Fields};
use arrow::error::ArrowError;

use crate::json::scan;
use crate::json_out::{is_jsonb, json_row};
use crate::shape::Shape;
use crate::source::{BadRow, Decoded};

/// How much of a bad record is kept.
const BAD_BYTES: usize = 4096;

/// Gives the wanted columns of a batch whose first row has the number `first`.
pub(crate) fn conform(shape: &Shape, batch: &RecordBatch, first: u64) -> Result<Decoded, ArrowError> {
    let rows = batch.num_rows();
    let mut faults: Vec<Option<String>> = Vec::new();
    let mut columns = Vec::with_capacity(shape.fields.len());
    for (i, field) in shape.fields.iter().enumerate() {
        let source = batch.column_by_name(field.name());
        let column = match source {
            Some(source) => cast_to(source, field)?,
            None => new_null_array(field.data_type(), rows),
        };
        let required = shape.required.contains(&i);
        note_faults(source, &column, field, required, &mut faults, rows);
        columns.push(column);
    }
    if faults.is_empty() {
        return Ok(Decoded { rows: shape.project(&columns, rows)?, bad: Vec::new() });
    }
    let good = BooleanArray::from_iter(faults.iter().map(|f| Some(f.is_none())));
    let columns = columns.iter().map(|c| filter(c, &good)).collect::<Result<Vec<_>, _>>()?;
    let bad = faults.into_iter().enumerate().filter_map(|(i, fault)| {
        let mut text = String::new();
        fault.as_ref()?;
        json_row(batch, i, &mut text);
        let mut bytes = text.into_bytes();
        bytes.truncate(BAD_BYTES);
        Some(BadRow { position: first + i as u64, bytes, reason: fault? })
    });
    let bad: Vec<BadRow> = bad.collect();
    Ok(Decoded { rows: shape.project(&columns, rows - bad.len())?, bad })
}

/// Casts a column; structs field by field, matched by name. What cannot be cast becomes NULL.
fn cast_to(source: &ArrayRef, field: &Field) -> Result<ArrayRef, ArrowError> {
    if source.data_type() == field.data_type() {
        return Ok(source.clone());
    }
    if let (DataType::Struct(_), DataType::Struct(fields)) = (source.data_type(), field.data_type()) {
        return cast_struct(source.as_struct(), fields);
    }
    let options = CastOptions { safe: true, ..CastOptions::default() };
    cast_with_options(source, field.data_type(), &options)
        .map_err(|e| ArrowError::CastError(format!("column {}: {e}", field.name())))
}

fn cast_struct(source: &StructArray, fields: &Fields) -> Result<ArrayRef, ArrowError> {
    let mut columns = Vec::with_capacity(fields.len());
    for field in fields {
        columns.push(match source.column_by_name(field.name()) {
            Some(column) => cast_to(column, field)?,
            None => new_null_array(field.data_type(), source.len()),
        });
    }
    let (fields, nulls) = (fields.clone(), source.nulls().cloned());
    Ok(Arc::new(StructArray::try_new_with_length(fields, columns, nulls, source.len())?))
}

/// Writes down, per row, the first reason why it is bad; `faults` stays empty while there is none.
fn note_faults(
    source: Option<&ArrayRef>,
    column: &ArrayRef,
    field: &Field,
    required: bool,
    faults: &mut Vec<Option<String>>,
    rows: usize,
) {
    let mut note = |row: usize, what: &str| {
        if faults.is_empty() {
            faults.resize(rows, None);
        }
        faults[row].get_or_insert_with(|| format!("column {}: {what}", field.name()));
    };
    if column.null_count() > 0 {
        let was_null = source.and_then(|s| s.logical_nulls());
        for row in (0..rows).filter(|r| column.is_null(*r)) {
            if source.is_some() && !was_null.as_ref().is_some_and(|n| n.is_null(row)) {
                note(row, "the value does not fit the column's type");
            } else if required {
                note(row, "NULL where a value has to be");
            }
        }
    }
    if is_jsonb(field)
        && let Some(texts) = column.as_string_opt::<i32>()
    {
        for row in (0..rows).filter(|r| texts.is_valid(*r)) {
            let text = texts.value(row).as_bytes();
            let end = scan::check(text, scan::spaces(text, 0)).map(|end| scan::spaces(text, end));
            if end.ok() != Some(text.len()) {
                note(row, "not valid JSON");
            }
        }
    }
}
