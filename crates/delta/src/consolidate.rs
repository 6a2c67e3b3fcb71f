//! Consolidation: one row per distinct content, with the sum of its multiplicities. [`consolidate`] also sorts;
//! [`net`] leaves the order as it is and costs little where hardly any row is there twice.

use std::cmp::Ordering;

use arrow::array::{Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};

use crate::{Delta, batch, hash_columns};

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

/// The sum of the deltas: each row once, where it first occurs, with its multiplicity, rows of
/// multiplicity 0 left out.
pub fn net(schema: &SchemaRef, deltas: &[Delta]) -> Result<Delta, ArrowError> {
    if schema.fields().is_empty() {
        return consolidate(schema, deltas);
    }
    let all = Delta::concat(schema, deltas)?;
    let mut hashes = Vec::new();
    hash_columns(all.rows.columns(), all.len(), &mut hashes)?;
    let twins = UInt32Array::from(twins(&hashes));
    if twins.is_empty() {
        return Ok(all);
    }
    let content = RowsByContent::new(&take_record_batch(&all.rows, &twins)?)?;
    let order = content.sorted();
    let mut sums = all.weights().values().to_vec();
    for equal in order.chunk_by(|a, b| content.compare(*a as usize, *b as usize).is_eq()) {
        let row = |place: &u32| twins.value(*place as usize) as usize;
        let sum = equal.iter().map(|place| sums[row(place)]).sum();
        equal.iter().for_each(|place| sums[row(place)] = 0);
        sums[row(&equal[0])] = sum;
    }
    let keep: Vec<u32> = (0..all.len() as u32).filter(|i| sums[*i as usize] != 0).collect();
    sums.retain(|sum| *sum != 0);
    Ok(Delta::new(take_record_batch(&all.rows, &UInt32Array::from(keep))?, Int64Array::from(sums)))
}

/// The rows whose hash some other row has too, in order.
fn twins(hashes: &[u64]) -> Vec<u32> {
    // Nearly all rows have a bit for themselves, which tells without looking for them that they are alone.
    let bits = (hashes.len() * 16).next_power_of_two().max(64);
    let place = |hash: u64| ((hash as usize & (bits - 1)) / 64, 1u64 << (hash % 64));
    let (mut once, mut again) = (vec![0u64; bits / 64], vec![0u64; bits / 64]);
    for (word, bit) in hashes.iter().map(|hash| place(*hash)) {
        again[word] |= once[word] & bit;
        once[word] |= bit;
    }
    let alone = |hash: u64| {
        let (word, bit) = place(hash);
        again[word] & bit == 0
    };
    let mut suspects: Vec<(u64, u32)> =
        hashes.iter().enumerate().filter(|(_, h)| !alone(**h)).map(|(row, hash)| (*hash, row as u32)).collect();
    suspects.sort_unstable();
    let groups = suspects.chunk_by(|a, b| a.0 == b.0).filter(|group| group.len() > 1);
    let mut twins: Vec<u32> = groups.flatten().map(|(_, row)| *row).collect();
    twins.sort_unstable();
    twins
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

    #[test]
    fn net_is_the_same_sum_in_another_order() {
        let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true)]));
        let delta = |keys: Vec<Option<i64>>, weights: Vec<i64>| {
            Delta::new(batch(schema.clone(), vec![Arc::new(Int64Array::from(keys))], weights.len()), weights.into())
        };
        let rows = |delta: &Delta| -> Vec<(Option<i64>, i64)> {
            let keys = delta.rows.column(0).as_primitive::<Int64Type>();
            keys.iter().enumerate().map(|(i, key)| (key, delta.weight(i))).collect()
        };
        let first = delta(vec![Some(9), None, Some(7), Some(9), Some(5)], vec![2, -1, 1, 1, 1]);
        let second = delta(vec![Some(7), None, Some(8)], vec![-1, -1, -1]);
        let sum = net(&schema, &[first, second]).unwrap();
        assert_eq!(rows(&sum), [(Some(9), 3), (None, -2), (Some(5), 1), (Some(8), -1)]);

        // Keys that come seldom, sometimes and often, beside the sum that sorts.
        let many = |n: i64, salt: i64| {
            let keys = (0..n).map(|i| Some((i * salt) % (n / 2 + 1) * (1 + i % 3))).collect();
            delta(keys, (0..n).map(|i| if i % 4 == 0 { -1 } else { 1 + i % 2 }).collect())
        };
        for n in [1, 2, 63, 64, 5000] {
            let deltas = [many(n, 7919), many(n, 104_729)];
            let mut found = rows(&net(&schema, &deltas).unwrap());
            found.sort_unstable();
            assert_eq!(found, rows(&consolidate(&schema, &deltas).unwrap()), "{n} rows");
        }
    }

    #[test]
    fn twins_have_equal_hashes_not_equal_bits() {
        assert_eq!(twins(&[]), [0u32; 0]);
        assert_eq!(twins(&[3]), [0u32; 0]);
        // 3 and 3 + 2^40 share their low bits only.
        assert_eq!(twins(&[3, 3 + (1 << 40), 5, 3, 5, 6]), [0, 2, 3, 4]);
    }
}
