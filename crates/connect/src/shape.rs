//! Which part of a relation's columns is wanted: what to decode, and how to give it out.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, make_array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use tidemill_plan::ColumnPath;

use crate::source::SourceError;

/// The wanted columns.
pub(crate) struct Shape {
    /// What to decode: the relation's columns that are wanted, structs cut down to the wanted fields.
    pub(crate) fields: Fields,
    /// Which of `fields` may not be NULL.
    pub(crate) required: Vec<usize>,
    /// The number in the relation of each of `fields`.
    pub(crate) numbers: Vec<usize>,
    /// How to reach each output column: a place in `fields`, then places in the structs inside.
    outputs: Vec<Vec<usize>>,
    /// What comes out.
    pub(crate) schema: SchemaRef,
}

impl Shape {
    /// Works out what to decode for `columns` (all, if `None`) of a relation. Only the columns in
    /// `not_null` have to have values: others may be missing, whatever the schema says, since they
    /// have a default.
    pub(crate) fn new(
        relation: &SchemaRef,
        columns: Option<&[ColumnPath]>,
        not_null: &[usize],
    ) -> Result<Shape, SourceError> {
        let all: Vec<ColumnPath>;
        let columns = match columns {
            Some(columns) => columns,
            None => {
                all = (0..relation.fields().len()).map(ColumnPath::column).collect();
                &all
            }
        };
        let mut numbers: Vec<usize> = columns.iter().map(|c| c.column).collect();
        numbers.sort_unstable();
        numbers.dedup();
        if let Some(unknown) = numbers.iter().find(|n| **n >= relation.fields().len()) {
            return Err(SourceError(format!("there is no column number {unknown}")));
        }
        let mut fields = Vec::with_capacity(numbers.len());
        for number in &numbers {
            let paths: Vec<&[String]> =
                columns.iter().filter(|c| c.column == *number).map(|c| c.fields.as_slice()).collect();
            let nullable = !not_null.contains(number);
            let field = pruned(&relation.fields()[*number], &paths)?;
            fields.push(Arc::new(field.as_ref().clone().with_nullable(nullable)));
        }
        let fields = Fields::from(fields);
        let required = (0..fields.len()).filter(|i| !fields[*i].is_nullable()).collect();
        let mut outputs = Vec::with_capacity(columns.len());
        let mut out_fields = Vec::with_capacity(columns.len());
        for column in columns {
            let place = numbers.binary_search(&column.column).unwrap_or(0);
            let (places, field) = resolve(&fields, place, &column.fields)?;
            outputs.push(places);
            out_fields.push(field);
        }
        Ok(Shape { fields, required, numbers, outputs, schema: Arc::new(Schema::new(out_fields)) })
    }

    /// Picks the output columns from the decoded ones.
    pub(crate) fn project(&self, columns: &[ArrayRef], rows: usize) -> Result<RecordBatch, ArrowError> {
        let out = self.outputs.iter().map(|places| reach(&columns[places[0]], &places[1..]));
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.schema.clone(), out.collect::<Result<_, _>>()?, &options)
    }
}

/// A struct field cut down to the paths that are wanted inside it.
fn pruned(field: &FieldRef, paths: &[&[String]]) -> Result<FieldRef, SourceError> {
    if paths.iter().any(|p| p.is_empty()) {
        return Ok(field.clone());
    }
    let DataType::Struct(children) = field.data_type() else {
        return Err(SourceError(format!("column {} has no fields", field.name())));
    };
    let mut kept = Vec::new();
    for child in children {
        let inside: Vec<&[String]> = paths.iter().filter(|p| p[0] == *child.name()).map(|p| &p[1..]).collect();
        if !inside.is_empty() {
            kept.push(pruned(child, &inside)?);
        }
    }
    if let Some(unknown) = paths.iter().find(|p| !children.iter().any(|c| p[0] == *c.name())) {
        return Err(SourceError(format!("column {} has no field {}", field.name(), unknown[0])));
    }
    Ok(Arc::new(field.as_ref().clone().with_data_type(DataType::Struct(kept.into()))))
}

/// Follows a path through the pruned fields.
fn resolve(fields: &Fields, place: usize, path: &[String]) -> Result<(Vec<usize>, FieldRef), SourceError> {
    let mut places = vec![place];
    let mut field = fields[place].clone();
    let mut name = field.name().clone();
    for step in path {
        let DataType::Struct(children) = field.data_type() else {
            return Err(SourceError(format!("column {name} has no fields")));
        };
        let (i, child) =
            children.find(step).ok_or_else(|| SourceError(format!("column {name} has no field {step}")))?;
        places.push(i);
        name = format!("{name}.{step}");
        field = child.clone();
    }
    if path.is_empty() {
        return Ok((places, field));
    }
    // The struct around it may be NULL.
    let out: Field = field.as_ref().clone().with_name(name).with_nullable(true);
    Ok((places, Arc::new(out)))
}

/// The array at the end of a path of structs, NULL where a struct around it is.
fn reach(array: &ArrayRef, places: &[usize]) -> Result<ArrayRef, ArrowError> {
    let Some((place, rest)) = places.split_first() else {
        return Ok(array.clone());
    };
    let outer = array.as_struct();
    let inner = outer.column(*place);
    let hidden = |nulls: &NullBuffer| !inner.nulls().is_some_and(|n| n.contains(nulls));
    match outer.nulls().filter(|n| n.null_count() > 0 && hidden(n)) {
        None => reach(inner, rest),
        Some(nulls) => {
            let nulls = NullBuffer::union(Some(nulls), inner.nulls());
            reach(&make_array(inner.to_data().into_builder().nulls(nulls).build()?), rest)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(column: usize, fields: &[&str]) -> ColumnPath {
        ColumnPath { column, fields: fields.iter().map(|f| f.to_string()).collect() }
    }

    #[test]
    fn structs_are_cut_down_to_what_is_wanted() {
        let inner = Fields::from(vec![
            Field::new("x", DataType::Int64, true),
            Field::new("y", DataType::Utf8, true),
            Field::new("z", DataType::Int64, true),
        ]);
        let relation: SchemaRef = Arc::new(Schema::new(vec![
            Field::new("a", DataType::Int64, false),
            Field::new("s", DataType::Struct(inner), true),
        ]));
        let wanted = [path(1, &["z"]), path(0, &[]), path(1, &["x"]), path(1, &["z"])];
        let shape = Shape::new(&relation, Some(&wanted), &[0]).expect("valid");
        assert_eq!(shape.fields.len(), 2);
        assert_eq!(shape.outputs, [vec![1, 1], vec![0], vec![1, 0], vec![1, 1]]);
        let names: Vec<&str> = shape.schema.fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!(names, ["s.z", "a", "s.x", "s.z"]);
        assert!(Shape::new(&relation, Some(&[path(1, &["w"])]), &[]).is_err());
        assert!(Shape::new(&relation, Some(&[path(0, &["w"])]), &[]).is_err());
        assert!(Shape::new(&relation, Some(&[path(2, &[])]), &[]).is_err());
    }
}
