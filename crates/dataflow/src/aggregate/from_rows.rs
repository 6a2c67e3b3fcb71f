//! Aggregates without an incremental rule: a group's arguments are kept as a multiset in content
//! order, and the value is computed from all of them whenever the group changes.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, new_null_array};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use tidemill_delta::{batch, zero_nulls};
use tidemill_plan::Recompute;

use super::{GroupStates, shared};
use crate::OperatorError;
use crate::saved::numbers;

pub(super) struct FromRows {
    query: Arc<dyn Recompute>,
    schema: SchemaRef,
    data_type: DataType,
    converter: RowConverter,
    groups: Vec<BTreeMap<Box<[u8]>, i64>>,
    bytes: usize,
    recomputations: Cell<u64>,
}

impl FromRows {
    pub(super) fn new(query: Arc<dyn Recompute>, args: Vec<Field>, data_type: DataType) -> Result<Self, OperatorError> {
        let fields = args.iter().map(|f| SortField::new(f.data_type().clone())).collect();
        let fields_nullable: Vec<Field> = args.into_iter().map(|f| f.with_nullable(true)).collect();
        Ok(FromRows {
            query,
            schema: Arc::new(Schema::new(fields_nullable)),
            data_type,
            converter: RowConverter::new(fields)?,
            groups: Vec::new(),
            bytes: 0,
            recomputations: Cell::new(0),
        })
    }

    fn value(&self, rows: &BTreeMap<Box<[u8]>, i64>) -> Result<ArrayRef, String> {
        self.recomputations.set(self.recomputations.get() + 1);
        let parser = self.converter.parser();
        let listed = rows.iter().flat_map(|(row, n)| std::iter::repeat_n(row, usize::try_from(*n).unwrap_or(0)));
        let parsed: Vec<_> = listed.map(|row| parser.parse(row)).collect();
        let len = parsed.len();
        let columns = self.converter.convert_rows(parsed).map_err(|e| e.to_string())?;
        let answer =
            self.query.compute(&[batch(self.schema.clone(), zero_nulls(columns), len)]).map_err(|e| e.message)?;
        if answer.num_rows() != 1 || answer.num_columns() != 1 {
            return Err(format!("expected one value, got {} rows", answer.num_rows()));
        }
        Ok(answer.column(0).clone())
    }
}

impl GroupStates for FromRows {
    fn grow(&mut self, len: usize) {
        self.groups.resize_with(len.max(self.groups.len()), BTreeMap::new);
    }

    fn update(&mut self, ids: &[u32], diffs: Option<&[i64]>, args: &[ArrayRef]) -> Result<(), OperatorError> {
        let rows = self.converter.convert_columns(args)?;
        for (i, id) in ids.iter().enumerate() {
            let row = rows.row(i);
            let bytes: &[u8] = row.as_ref();
            let group = &mut self.groups[*id as usize];
            let diff = diffs.map_or(1, |d| d[i]);
            match group.get_mut(bytes) {
                Some(count) => {
                    *count += diff;
                    if *count == 0 {
                        group.remove(bytes);
                        self.bytes -= bytes.len() + 40;
                    }
                }
                None => {
                    group.insert(bytes.into(), diff);
                    self.bytes += bytes.len() + 40;
                }
            }
        }
        Ok(())
    }

    fn values(&self, ids: &[u32], failed: &mut Vec<String>) -> Result<ArrayRef, OperatorError> {
        let mut values = Vec::with_capacity(ids.len());
        for id in ids {
            values.push(self.value(&self.groups[*id as usize]).unwrap_or_else(|message| {
                failed.push(message);
                new_null_array(&self.data_type, 1)
            }));
        }
        if values.is_empty() {
            return Ok(new_null_array(&self.data_type, 0));
        }
        let parts: Vec<&dyn Array> = values.iter().map(|v| v.as_ref()).collect();
        Ok(concat(&parts)?)
    }

    fn release(&mut self, id: u32) {
        for row in std::mem::take(&mut self.groups[id as usize]).into_keys() {
            self.bytes -= row.len() + 40;
        }
    }

    fn bytes(&self) -> usize {
        self.bytes + self.groups.capacity() * 24
    }

    fn recomputations(&self) -> u64 {
        self.recomputations.get()
    }

    fn is_multiset(&self) -> bool {
        true
    }

    /// The arguments, and how often they are there.
    fn width(&self) -> usize {
        self.schema.fields().len() + 1
    }

    fn save(&self, ids: &[u32], places: &mut Vec<u32>) -> Result<Vec<ArrayRef>, OperatorError> {
        let parser = self.converter.parser();
        let (mut rows, mut counts) = (Vec::new(), Vec::new());
        for (place, id) in ids.iter().enumerate() {
            for (row, count) in &self.groups[*id as usize] {
                places.push(place as u32);
                rows.push(parser.parse(row));
                counts.push(*count);
            }
        }
        let mut columns = zero_nulls(self.converter.convert_rows(rows)?);
        columns.push(shared(Int64Array::from(counts)));
        Ok(columns)
    }

    fn load(&mut self, ids: &[u32], columns: &[ArrayRef]) -> Result<(), OperatorError> {
        let args = self.schema.fields().len();
        let counts = numbers::<Int64Type>(columns, args)?;
        self.update(ids, Some(counts.values()), &columns[..args])
    }
}
