//! Saved state as columns: made, and read back with their types checked, as they come from a disk.

use std::sync::Arc;

use arrow::array::UInt32Array;
use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, BooleanArray, PrimitiveArray, RecordBatch,
};
use arrow::compute::{cast, concat, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tidemill_delta::{Delta, batch, relaxed};
use tidemill_state::KeyTable;

use crate::OperatorError;

/// `len` rows of columns that have no names but their places.
pub(crate) fn rows_of(columns: Vec<ArrayRef>, len: usize) -> RecordBatch {
    let field = |(i, column): (usize, &ArrayRef)| Field::new(format!("c{i}"), column.data_type().clone(), true);
    let fields: Vec<Field> = columns.iter().enumerate().map(field).collect();
    batch(Arc::new(Schema::new(fields)), columns, len)
}

/// The columns at the places given.
pub(crate) fn take_all(columns: &[ArrayRef], places: Vec<u32>) -> Result<Vec<ArrayRef>, OperatorError> {
    let places = UInt32Array::from(places);
    Ok(columns.iter().map(|column| take(column, &places, None)).collect::<Result<_, _>>()?)
}

/// Parts of the same columns, one after the other; there is at least one.
pub(crate) fn concat_all(parts: &[&[ArrayRef]]) -> Result<Vec<ArrayRef>, OperatorError> {
    let width = parts.first().map_or(0, |part| part.len());
    let column = |c: usize| concat(&parts.iter().map(|part| part[c].as_ref()).collect::<Vec<&dyn Array>>());
    Ok((0..width).map(column).collect::<Result<_, _>>()?)
}

/// Keys that are no longer there: columns and how many rows they have, which may be no columns at all.
#[derive(Default)]
pub(crate) struct Gone {
    parts: Vec<(Vec<ArrayRef>, usize)>,
}

impl Gone {
    pub(crate) fn push(&mut self, columns: Vec<ArrayRef>, len: usize) {
        if len > 0 {
            self.parts.push((columns, len));
        }
    }

    /// Puts all in one part, of columns of the types given.
    pub(crate) fn columns(&mut self, types: &[DataType]) -> Result<(Vec<ArrayRef>, usize), OperatorError> {
        let len = self.parts.iter().map(|(_, len)| len).sum();
        let parts = std::mem::take(&mut self.parts);
        if parts.is_empty() {
            return Ok((types.iter().map(arrow::array::new_empty_array).collect(), 0));
        }
        Ok((concat_all(&parts.iter().map(|(columns, _)| &columns[..]).collect::<Vec<_>>())?, len))
    }

    pub(crate) fn clear(&mut self) {
        self.parts.clear();
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        self.parts.iter().flat_map(|(columns, _)| columns).map(|column| column.get_array_memory_size()).sum()
    }
}

/// The leading columns as keys of a table.
pub(crate) fn saved_keys(table: &KeyTable, rows: &RecordBatch) -> Result<Vec<ArrayRef>, OperatorError> {
    let of_type = |(i, data_type): (usize, &DataType)| {
        let column = rows.columns().get(i).ok_or_else(|| wrong(&format!("key column {i} is missing")))?;
        match data_type {
            same if same == column.data_type() => Ok(column.clone()),
            // A table gives the values of dictionaries.
            DataType::Dictionary(_, _) => Ok(cast(column, data_type)?),
            other => Err(wrong(&format!("a key is {}, expected {other}", column.data_type()))),
        }
    };
    table.types().iter().enumerate().map(of_type).collect()
}

/// Rows as an operator takes them, of the shape given; columns behind those are left out.
pub(crate) fn fitting(schema: &SchemaRef, delta: &Delta) -> Result<Delta, OperatorError> {
    let columns =
        delta.rows.columns().get(..schema.fields().len()).ok_or_else(|| wrong("a row has too few columns"))?;
    for (field, column) in schema.fields().iter().zip(columns) {
        if field.data_type() != column.data_type() {
            let (want, got) = (field.data_type(), column.data_type());
            return Err(wrong(&format!("column {} is {got}, expected {want}", field.name())));
        }
    }
    Ok(delta.with_columns(relaxed(schema), columns.to_vec()))
}

/// The rows of one input, as they were saved.
pub(crate) fn all_fitting(schema: &SchemaRef, saved: &mut Vec<Delta>) -> Result<Vec<Delta>, OperatorError> {
    let saved = std::mem::take(saved);
    saved.iter().filter(|delta| !delta.is_empty()).map(|delta| fitting(schema, delta)).collect()
}

/// The column at a place, of a type that is fixed.
pub(crate) fn numbers<T: ArrowPrimitiveType>(
    columns: &[ArrayRef],
    at: usize,
) -> Result<&PrimitiveArray<T>, OperatorError> {
    let column = columns.get(at).and_then(|column| column.as_primitive_opt::<T>());
    column.filter(|c| c.null_count() == 0).ok_or_else(|| wrong(&format!("column {at} is no {}", T::DATA_TYPE)))
}

/// A column of truth values.
pub(crate) fn booleans(columns: &[ArrayRef], at: usize) -> Result<&BooleanArray, OperatorError> {
    columns
        .get(at)
        .and_then(|column| column.as_boolean_opt())
        .ok_or_else(|| wrong(&format!("column {at} is no boolean")))
}

/// A column of bytes.
pub(crate) fn binaries(columns: &[ArrayRef], at: usize) -> Result<&BinaryArray, OperatorError> {
    columns
        .get(at)
        .and_then(|column| column.as_binary_opt::<i32>())
        .ok_or_else(|| wrong(&format!("column {at} is no bytes")))
}

/// What is wrong with state that was saved.
pub(crate) fn wrong(what: &str) -> OperatorError {
    OperatorError(format!("saved state does not fit: {what}"))
}
