//! Row by row, any number of rows for each: `UNNEST`.
//!
//! - Input: one collection. Output: the query's answer for each of its rows, with the row's
//!   multiplicity. The query runs over all rows of one multiplicity at once.
//! - State: none.
//! - Errors: a row for which the query fails is left out and reported with its multiplicity. The
//!   batch is halved until the rows at fault stand alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Int64Array, UInt32Array};
use arrow::datatypes::SchemaRef;
use tidemill_delta::{Delta, batch, relaxed};
use tidemill_plan::{FlatMapPlan, Recompute as Query, ScalarError};

use crate::map::row_text;
use crate::{Operator, OperatorError, RowError, StepCx};

/// The operator; see the module.
pub struct FlatMap {
    query: Arc<dyn Query>,
    schema: SchemaRef,
}

impl FlatMap {
    /// The operator of a plan; `schema` is that of the output.
    pub fn new(plan: &FlatMapPlan, schema: SchemaRef) -> Self {
        FlatMap { query: plan.query.clone(), schema: relaxed(&schema) }
    }

    /// The answer for rows that all have the multiplicity of the first.
    fn apply(&self, rows: &Delta) -> Result<Delta, ScalarError> {
        let out = self.query.compute(std::slice::from_ref(&rows.rows))?;
        let weights = Int64Array::from_value(rows.weight(0), out.num_rows());
        Ok(Delta::new(batch(self.schema.clone(), out.columns().to_vec(), out.num_rows()), weights))
    }

    /// Applies the query, setting rows at fault aside.
    fn apply_parts(&self, rows: &Delta, out: &mut Vec<Delta>, errors: &mut Vec<RowError>) {
        match self.apply(rows) {
            Ok(done) if done.is_empty() => {}
            Ok(done) => out.push(done),
            Err(error) if rows.len() == 1 => {
                errors.push(RowError { message: error.message, row: row_text(&rows.rows, 0), weight: rows.weight(0) })
            }
            Err(_) => {
                let half = rows.len() / 2;
                self.apply_parts(&rows.slice(0, half), out, errors);
                self.apply_parts(&rows.slice(half, rows.len() - half), out, errors);
            }
        }
    }
}

/// The rows in parts of one multiplicity each.
fn by_weight(delta: Delta) -> Result<Vec<Delta>, OperatorError> {
    if delta.diff.is_none() {
        return Ok(vec![delta]);
    }
    let mut parts: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
    for i in 0..delta.len() {
        parts.entry(delta.weight(i)).or_default().push(i as u32);
    }
    parts.into_values().map(|rows| Ok(delta.take(&UInt32Array::from(rows))?)).collect()
}

impl Operator for FlatMap {
    fn step(&mut self, cx: &mut StepCx<'_>, inputs: &mut [Vec<Delta>]) -> Result<Vec<Delta>, OperatorError> {
        let mut out = Vec::new();
        for delta in inputs[0].drain(..).filter(|d| !d.is_empty()) {
            for part in by_weight(delta)? {
                self.apply_parts(&part, &mut out, cx.errors);
            }
        }
        Ok(out)
    }
}
