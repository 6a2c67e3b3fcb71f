//! How much of a side table is kept.
//!
//! Input: its changes, an epoch's at a time. Rule: at most so many rows are kept; beyond that those that came first go. What
//! goes is a change like any other, in the same epoch, so it depends on nothing but the order of the changes. A row that is taken
//! back later, though it has gone already, is not taken back twice. State: each row's content with its count, and the order in
//! which they came. Released with the side table.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use arrow::array::{Int64Array, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use tidemill_delta::{Delta, batch, consolidate, zero_nulls};

type Content = Arc<[u8]>;

/// The rows of one side table, in the order in which they came.
pub(crate) struct Retained {
    schema: SchemaRef,
    converter: RowConverter,
    /// Only looked up by content, never walked.
    counts: HashMap<Content, i64>,
    /// The eldest first. An entry whose rows were taken back stays until it is met or swept out.
    order: VecDeque<(Content, i64)>,
    rows: i64,
    limit: i64,
}

impl Retained {
    pub(crate) fn new(schema: SchemaRef, limit: usize) -> Result<Self, ArrowError> {
        let fields = schema.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
        Ok(Retained {
            converter: RowConverter::new(fields)?,
            schema,
            counts: HashMap::new(),
            order: VecDeque::new(),
            rows: 0,
            limit: i64::try_from(limit).unwrap_or(i64::MAX),
        })
    }

    /// What becomes of an epoch's changes: those that count, and what has to go for them.
    pub(crate) fn apply(&mut self, delta: &Delta) -> Result<(Delta, Option<Delta>), ArrowError> {
        // Changes of which some cancel each other are netted; others keep their order.
        let mixed = delta.diff.is_some();
        let delta = if mixed { consolidate(&self.schema, std::slice::from_ref(delta))? } else { delta.clone() };
        let contents = self.converter.convert_columns(delta.rows.columns())?;
        let mut weights: Vec<i64> = Vec::with_capacity(delta.len());
        for i in 0..delta.len() {
            let (content, weight) = (contents.row(i), delta.weight(i));
            if weight > 0 {
                self.add(content.as_ref().into(), weight);
                weights.push(weight);
            } else {
                weights.push(-self.remove(content.as_ref(), -weight));
            }
        }
        let gone = self.shrink()?;
        self.sweep();
        if !mixed {
            return Ok((delta, gone));
        }
        let (rows, weights): (Vec<u32>, Vec<i64>) = (0..).zip(weights).filter(|(_, weight)| *weight != 0).unzip();
        let rows = take_record_batch(&delta.rows, &UInt32Array::from(rows))?;
        Ok((Delta::new(rows, Int64Array::from(weights)), gone))
    }

    /// Keeps up with an epoch's changes that were decided before: what comes, then what goes.
    pub(crate) fn follow(&mut self, changes: &[Delta]) -> Result<(), ArrowError> {
        for comes in [true, false] {
            for delta in changes {
                let contents = self.converter.convert_columns(delta.rows.columns())?;
                for i in 0..delta.len() {
                    match delta.weight(i) {
                        weight if weight > 0 && comes => self.add(contents.row(i).as_ref().into(), weight),
                        weight if weight < 0 && !comes => {
                            self.remove(contents.row(i).as_ref(), -weight);
                        }
                        _ => {}
                    }
                }
            }
        }
        self.sweep();
        Ok(())
    }

    /// Which of these rows are there, each as often as it is listed.
    pub(crate) fn present(&self, rows: &Delta) -> Result<Vec<bool>, ArrowError> {
        let contents = self.converter.convert_columns(rows.rows.columns())?;
        let mut taken: HashMap<&[u8], i64> = HashMap::new();
        let contents: Vec<_> = (0..rows.len()).map(|i| contents.row(i).owned()).collect();
        let mut present = Vec::with_capacity(rows.len());
        for content in &contents {
            let content = content.as_ref();
            let count = taken.entry(content).or_default();
            *count += 1;
            present.push(*count <= self.counts.get(content).copied().unwrap_or(0));
        }
        Ok(present)
    }

    fn add(&mut self, content: Content, weight: i64) {
        *self.counts.entry(content.clone()).or_default() += weight;
        self.order.push_back((content, weight));
        self.rows += weight;
    }

    /// Removes up to so many rows of this content; tells how many.
    fn remove(&mut self, content: &[u8], weight: i64) -> i64 {
        let Some(count) = self.counts.get_mut(content) else { return 0 };
        let removed = weight.min(*count);
        *count -= removed;
        if *count == 0 {
            self.counts.remove(content);
        }
        self.rows -= removed;
        removed
    }

    /// Removes the eldest rows beyond the limit.
    fn shrink(&mut self) -> Result<Option<Delta>, ArrowError> {
        let mut gone: Vec<(Content, i64)> = Vec::new();
        while self.rows > self.limit {
            let Some((content, weight)) = self.order.pop_front() else { break };
            let removed = self.remove(&content, weight.min(self.rows - self.limit));
            if removed < weight && self.counts.contains_key(&content) {
                self.order.push_front((content.clone(), weight - removed));
            }
            gone.push((content, -removed));
        }
        gone.retain(|(_, weight)| *weight != 0);
        if gone.is_empty() {
            return Ok(None);
        }
        let parser = self.converter.parser();
        let columns = self.converter.convert_rows(gone.iter().map(|(content, _)| parser.parse(content)))?;
        let rows = batch(self.schema.clone(), zero_nulls(columns), gone.len());
        Ok(Some(Delta::new(rows, Int64Array::from_iter_values(gone.iter().map(|(_, weight)| *weight)))))
    }

    /// Forgets entries whose rows were taken back, once they are the most.
    fn sweep(&mut self) {
        if self.order.len() < 1024 || self.order.len() / 2 < self.counts.len() {
            return;
        }
        // The youngest entries are those that still count.
        let mut left = self.counts.clone();
        let mut kept = VecDeque::with_capacity(left.len());
        while let Some((content, weight)) = self.order.pop_back() {
            let Some(count) = left.get_mut(&content) else { continue };
            let weight = weight.min(*count);
            *count -= weight;
            if weight > 0 {
                kept.push_front((content, weight));
            }
        }
        self.order = kept;
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;

    fn delta(schema: &SchemaRef, rows: &[(i64, i64)]) -> Delta {
        let values = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0)));
        let batch = batch(schema.clone(), vec![values], rows.len());
        if rows.iter().all(|r| r.1 == 1) {
            return Delta::inserts(batch);
        }
        Delta::new(batch, Int64Array::from_iter_values(rows.iter().map(|r| r.1)))
    }

    fn changes((delta, gone): (Delta, Option<Delta>)) -> Vec<(i64, i64)> {
        let all: Vec<Delta> = std::iter::once(delta).chain(gone).collect();
        let delta = consolidate(&all[0].rows.schema(), &all).unwrap();
        let values = delta.rows.column(0).as_primitive::<Int64Type>();
        let mut all: Vec<_> = (0..delta.len()).map(|i| (values.value(i), delta.weight(i))).collect();
        all.retain(|(_, weight)| *weight != 0);
        all.sort_unstable();
        all
    }

    fn table(limit: usize) -> (SchemaRef, Retained) {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, true)]));
        (schema.clone(), Retained::new(schema, limit).unwrap())
    }

    #[test]
    fn the_eldest_go_first() {
        let (schema, mut retained) = table(3);
        let mut step = |rows: &[(i64, i64)]| changes(retained.apply(&delta(&schema, rows)).unwrap());
        assert_eq!(step(&[(9, 1), (1, 1)]), [(1, 1), (9, 1)]);
        assert_eq!(step(&[(5, 2)]), [(5, 2), (9, -1)]);
        // Taken back after it went: nothing to take back. What is there is taken back.
        assert_eq!(step(&[(9, -1), (1, -1)]), [(1, -1)]);
        // More at once than may stay: the last ones.
        assert_eq!(step(&[(6, 1), (7, 1), (8, 1), (4, 1)]), [(4, 1), (5, -2), (7, 1), (8, 1)]);
    }

    #[test]
    fn what_comes_and_goes_again_and_again_takes_no_room() {
        let (schema, mut retained) = table(100_000);
        for i in 0..20_000 {
            retained.apply(&delta(&schema, &[(i % 7, 1)])).unwrap();
            retained.apply(&delta(&schema, &[(i % 7, -1)])).unwrap();
        }
        assert_eq!((retained.rows, retained.counts.len()), (0, 0));
        assert!(retained.order.len() <= 1024, "{} entries", retained.order.len());
    }

    #[test]
    fn the_rest_of_a_row_that_occurs_often_stays() {
        let (schema, mut retained) = table(4);
        let mut step = |rows: &[(i64, i64)]| changes(retained.apply(&delta(&schema, rows)).unwrap());
        assert_eq!(step(&[(1, 4)]), [(1, 4)]);
        assert_eq!(step(&[(2, 1)]), [(1, -1), (2, 1)]);
        assert_eq!(step(&[(3, 3)]), [(1, -3), (3, 3)]);
    }
}
