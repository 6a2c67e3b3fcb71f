//! Consolidation: one row per distinct content, with the sum of its multiplicities.

use std::cmp::Ordering;

use arrow::array::{Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};

use crate::{Delta, batch};

/// Rows in a comparable byte form, in which equal rows are equal bytes and the order is the
/// columns' order with NULLs first.
pub struct RowsByContent {
    rows: Option<Rows>,
    len: usize,
}

impl RowsByContent {
    /// Encodes all columns of a batch.
    pub fn new(rows: &RecordBatch) -> Result<Self, ArrowError> {
        let len = rows.num_rows();
        if rows.num_columns() == 0 {
            return Ok(RowsByContent { rows: None, len });
        }
        let fields = rows.schema().fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
        let converter = RowConverter::new(fields)?;
        Ok(RowsByContent { rows: Some(converter.convert_columns(rows.columns())?), len })
    }

    /// Compares two rows.
    pub fn compare(&self, a: usize, b: usize) -> Ordering {
        self.rows.as_ref().map_or(Ordering::Equal, |rows| rows.row(a).cmp(&rows.row(b)))
    }

    /// The row numbers in the rows' order; equal rows stay in the order given.
    pub fn sorted(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.len as u32).collect();
        order.sort_by(|a, b| self.compare(*a as usize, *b as usize));
        order
    }
}

/// The sum of the deltas: each row once, sorted by content, with its multiplicity, rows of
/// multiplicity 0 left out.
pub fn consolidate(schema: &SchemaRef, deltas: &[Delta]) -> Result<Delta, ArrowError> {
    let rows = concat_batches(schema, deltas.iter().map(|d| &d.rows))?;
    let weights: Vec<i64> = deltas.iter().flat_map(|d| (0..d.len()).map(|i| d.weight(i))).collect();
    let content = RowsByContent::new(&rows)?;
    let order = content.sorted();
    let (mut keep, mut sums) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < order.len() {
        let first = order[at] as usize;
        let mut sum = weights[first];
        at += 1;
        while at < order.len() && content.compare(first, order[at] as usize) == Ordering::Equal {
            sum += weights[order[at] as usize];
            at += 1;
        }
        if sum != 0 {
            keep.push(first as u32);
            sums.push(sum);
        }
    }
    let taken = if rows.num_columns() == 0 {
        batch(schema.clone(), vec![], keep.len())
    } else {
        take_record_batch(&rows, &UInt32Array::from(keep))?
    };
    Ok(Delta::new(taken, Int64Array::from(sums)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;

    #[test]
    fn sums_and_drops() {
        let schema =
            Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("v", DataType::Utf8, true)]));
        let delta = |k: Vec<Option<i64>>, v: Vec<&str>, d: Vec<i64>| {
            let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(k)), Arc::new(StringArray::from(v))];
            Delta::new(batch(schema.clone(), columns, d.len()), Int64Array::from(d))
        };
        let a = delta(vec![Some(2), None, Some(1)], vec!["b", "n", "a"], vec![1, 2, 1]);
        let b = delta(vec![Some(1), None], vec!["a", "n"], vec![-1, -1]);
        let sum = consolidate(&schema, &[a, b]).unwrap();
        assert_eq!(sum.rows.column(0).as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [None, Some(2)]);
        assert!(sum.diff.is_none());
    }
}
