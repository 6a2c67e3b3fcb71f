//! Runs into one.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, UInt64Type};
use arrow::error::ArrowError;
use tidemill_delta::{Delta, Epoch, consolidate, relaxed};
use tidemill_state::KeyTable;

use super::Of;

/// A run in memory: rows, and for entries the keys that have none any more.
pub(crate) type Loaded = (Delta, Option<Delta>);

/// Merges runs, eldest first. `eldest`: there is no run before them, so what is gone need not be remembered.
pub(super) fn merge(of: Of, runs: &[Loaded], eldest: bool) -> Result<Loaded, ArrowError> {
    let rows: Vec<Delta> = runs.iter().map(|(rows, _)| rows.clone()).collect();
    let schema = relaxed(rows[0].rows.schema_ref());
    match of {
        Of::State { key: Some(key), .. } => {
            let (rows, gone) = newest_entries(runs, key)?;
            Ok((rows, Some(if eldest { gone.slice(0, 0) } else { gone })))
        }
        // Changes stay as they came: a subscriber is told each epoch's.
        Of::Changes { .. } | Of::Undelivered { .. } => Ok((Delta::concat(&schema, &rows)?, None)),
        Of::Rows { .. } | Of::State { .. } => Ok((consolidate(&schema, &rows)?, None)),
        Of::Aside { .. } => Err(ArrowError::InvalidArgumentError("what was put aside is not merged".into())),
    }
}

/// Changes of several epochs as one delta with the epoch as one more column, if there are any.
pub(super) fn with_epochs(changes: &[(Epoch, Delta)]) -> Result<Option<Delta>, ArrowError> {
    let all: Vec<Delta> = changes.iter().map(|(epoch, delta)| with_epoch(*epoch, delta)).collect();
    let Some(first) = all.first() else { return Ok(None) };
    Ok(Some(Delta::concat(&relaxed(first.rows.schema_ref()), &all)?))
}

fn with_epoch(epoch: Epoch, delta: &Delta) -> Delta {
    let rows = &delta.rows;
    let mut fields: Vec<Arc<Field>> = rows.schema_ref().fields().iter().cloned().collect();
    let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
    fields.push(Arc::new(Field::new("epoch", DataType::UInt64, false)));
    columns.push(Arc::new(UInt64Array::from_value(epoch, delta.len())));
    delta.with_columns(Arc::new(Schema::new(fields)), columns)
}

/// The epochs of recent changes, which only grow.
fn epochs(changes: &Delta) -> Result<&[Epoch], ArrowError> {
    let column = changes.rows.columns().last().and_then(|column| column.as_primitive_opt::<UInt64Type>());
    let column = column.ok_or_else(|| ArrowError::SchemaError("recent changes without their epoch".into()))?;
    Ok(column.values())
}

/// The last epoch of recent changes.
pub(super) fn last_epoch(changes: &Delta) -> Result<Epoch, ArrowError> {
    Ok(epochs(changes)?.last().copied().unwrap_or(0))
}

/// The recent changes after an epoch.
pub(super) fn changes_after(changes: &Delta, epoch: Epoch) -> Result<Delta, ArrowError> {
    let from = epochs(changes)?.partition_point(|own| *own <= epoch);
    Ok(changes.slice(from, changes.len() - from))
}

/// The newest entries of each key, and the keys that have none: a key's entries in a run replace those of all
/// runs before it.
pub(crate) fn newest_entries(runs: &[Loaded], key: usize) -> Result<(Delta, Delta), ArrowError> {
    let Some(((first, _), _)) = runs.split_first() else {
        return Err(ArrowError::InvalidArgumentError("no run to merge".into()));
    };
    let schema = relaxed(first.rows.schema_ref());
    let mut keys = KeyTable::new(schema.fields()[..key].iter().map(|f| f.data_type().clone()).collect())?;
    // For each key: the newest run that has it. Without columns all rows have the one key that there is.
    let mut newest_run: Vec<usize> = Vec::new();
    let (mut kept, mut gone, mut ids) = (Vec::new(), Vec::new(), Vec::new());
    for (run, (rows, none)) in runs.iter().enumerate().rev() {
        let mut newest = |delta: &Delta| -> Result<RecordBatch, ArrowError> {
            if key == 0 {
                newest_run.resize(1, run);
                ids = vec![0; delta.len()];
            } else {
                keys.intern(&delta.rows.columns()[..key], delta.len(), &mut ids, |_| newest_run.push(run))?;
            }
            let new = (0..delta.len() as u32).filter(|i| newest_run[ids[*i as usize] as usize] == run);
            let new = UInt32Array::from_iter_values(new);
            if new.len() == delta.len() { Ok(delta.rows.clone()) } else { take_record_batch(&delta.rows, &new) }
        };
        if !rows.is_empty() {
            kept.push(newest(rows)?);
        }
        if let Some(none) = none.as_ref().filter(|none| !none.is_empty()) {
            gone.push(newest(none)?);
        }
    }
    kept.reverse();
    gone.reverse();
    let keys = Arc::new(Schema::new(schema.fields()[..key].to_vec()));
    Ok((Delta::inserts(concat_batches(&schema, &kept)?), Delta::inserts(concat_batches(&keys, &gone)?)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use tidemill_delta::batch;

    use super::*;

    fn rows(columns: Vec<Vec<i64>>) -> Delta {
        let fields: Vec<_> = (0..columns.len()).map(|i| Field::new(i.to_string(), DataType::Int64, true)).collect();
        let len = columns[0].len();
        let arrays = columns.into_iter().map(|c| Arc::new(Int64Array::from(c)) as ArrayRef).collect();
        Delta::inserts(batch(Arc::new(Schema::new(fields)), arrays, len))
    }

    fn values(delta: &Delta) -> Vec<Vec<i64>> {
        let column = |c: &ArrayRef| c.as_primitive::<Int64Type>().values().to_vec();
        delta.rows.columns().iter().map(column).collect()
    }

    #[test]
    fn the_newest_entries_of_a_key_replace_the_others() {
        let runs = [
            (rows(vec![vec![1, 1, 2, 3], vec![10, 11, 20, 30]]), Some(rows(vec![vec![9]]))),
            (rows(vec![vec![1], vec![12]]), Some(rows(vec![vec![2, 7]]))),
            (rows(vec![vec![7, 7], vec![70, 71]]), Some(rows(vec![vec![3]]))),
        ];
        let (kept, gone) = newest_entries(&runs, 1).unwrap();
        assert_eq!(values(&kept), [[1, 7, 7], [12, 70, 71]]);
        assert_eq!(values(&gone), [[9, 2, 3]]);
        let of = Of::State { view: 1, node: 0, part: 0, worker: 0, key: Some(1) };
        assert!(merge(of, &runs, true).unwrap().1.unwrap().is_empty());
    }

    #[test]
    fn changes_that_nobody_asks_for_any_more_are_cut_off() {
        let values: ArrayRef = Arc::new(Int64Array::from(vec![10, 20, 21, 40]));
        let epochs: ArrayRef = Arc::new(UInt64Array::from(vec![1, 2, 2, 4]));
        let changes = Delta::inserts(RecordBatch::try_from_iter([("a", values), ("epoch", epochs)]).unwrap());
        let after = |epoch| {
            changes_after(&changes, epoch).unwrap().rows.column(0).as_primitive::<Int64Type>().values().to_vec()
        };
        assert_eq!((after(0), after(1), after(3)), (vec![10, 20, 21, 40], vec![20, 21, 40], vec![40]));
        assert_eq!((after(4), last_epoch(&changes).unwrap()), (vec![], 4));
    }

    #[test]
    fn without_key_columns_the_last_run_holds() {
        let runs = [(rows(vec![vec![1, 2]]), None), (rows(vec![vec![3]]), None)];
        assert_eq!(values(&newest_entries(&runs, 0).unwrap().0), [[3]]);
    }

    #[test]
    fn rows_that_cancel_each_other_go() {
        let taken_back = rows(vec![vec![2]]).negate();
        let runs = [(rows(vec![vec![1, 2]]), None), (taken_back, None)];
        assert_eq!(values(&merge(Of::Rows { relation: 4 }, &runs, true).unwrap().0), [[1]]);
    }
}
