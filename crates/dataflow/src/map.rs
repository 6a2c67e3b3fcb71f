//! Filter and project, row by row.
//!
//! - Input: one collection. Output: its rows where the filter is true, as the columns projected,
//!   with the same multiplicities.
//! - State: none.
//! - Errors: a row for which an expression has no value is left out and reported with its
//!   multiplicity. The batch is halved until the rows at fault stand alone, so good rows stay
//!   vectorised.

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use tidemill_delta::{Delta, batch};
use tidemill_plan::{Expr, MapPlan, Scalar, ScalarError};

use crate::{Operator, OperatorError, RowError, StepCx};

/// The operator; see the module.
pub struct Map {
    plan: MapPlan,
    schema: SchemaRef,
}

impl Map {
    /// The operator of a plan; `schema` is that of the output.
    pub fn new(plan: &MapPlan, schema: SchemaRef) -> Self {
        Map { plan: plan.clone(), schema }
    }

    fn apply(&self, delta: &Delta) -> Result<Delta, ScalarError> {
        let kept = match &self.plan.filter {
            Some(filter) => filter_delta(delta, filter.as_ref())?,
            None => delta.clone(),
        };
        if kept.is_empty() {
            return Ok(Delta::empty(self.schema.clone()));
        }
        let columns = self.plan.project.iter().map(|e| match e {
            Expr::Column(i) => Ok(kept.rows.column(*i).clone()),
            Expr::Scalar(scalar) => scalar.eval(&kept.rows),
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        Ok(Delta { rows: batch(self.schema.clone(), columns, kept.len()), diff: kept.diff })
    }

    /// Applies the plan, setting rows at fault aside.
    fn apply_parts(&self, delta: &Delta, out: &mut Vec<Delta>, errors: &mut Vec<RowError>) {
        match self.apply(delta) {
            Ok(done) if done.is_empty() => {}
            Ok(done) => out.push(done),
            Err(error) if delta.len() <= 1 => errors.push(RowError {
                message: error.message,
                row: row_text(&delta.rows, 0),
                weight: if delta.is_empty() { 1 } else { delta.weight(0) },
            }),
            Err(_) => {
                let half = delta.len() / 2;
                self.apply_parts(&delta.slice(0, half), out, errors);
                self.apply_parts(&delta.slice(half, delta.len() - half), out, errors);
            }
        }
    }
}

/// The rows where the predicate is true.
fn filter_delta(delta: &Delta, predicate: &dyn Scalar) -> Result<Delta, ScalarError> {
    let mask = predicate.eval(&delta.rows)?;
    let mask = mask.as_boolean();
    let passing = mask.true_count();
    if passing == delta.len() {
        return Ok(delta.clone());
    }
    if passing == 0 {
        return Ok(delta.slice(0, 0));
    }
    let rows = filter_record_batch(&delta.rows, mask).map_err(ScalarError::new)?;
    let diff = match &delta.diff {
        None => None,
        Some(diff) => {
            let kept = arrow::compute::filter(diff, mask).map_err(ScalarError::new)?;
            Some(kept.as_primitive().clone())
        }
    };
    Ok(Delta { rows, diff })
}

impl Operator for Map {
    fn step(&mut self, cx: &mut StepCx<'_>, inputs: &mut [Vec<Delta>]) -> Result<Vec<Delta>, OperatorError> {
        let mut out = Vec::new();
        for delta in inputs[0].drain(..).filter(|d| !d.is_empty()) {
            self.apply_parts(&delta, &mut out, cx.errors);
        }
        Ok(out)
    }
}

/// A row as text for an error message, at most about 200 characters.
pub(crate) fn row_text(rows: &RecordBatch, row: usize) -> String {
    let options = FormatOptions::default().with_null("NULL").with_display_error(true);
    let mut text = String::new();
    for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        if text.len() > 200 {
            text.push_str(", ...");
            break;
        }
        if !text.is_empty() {
            text.push_str(", ");
        }
        let value = match ArrayFormatter::try_new(column.as_ref(), &options) {
            Ok(formatter) if row < column.len() => formatter.value(row).to_string(),
            _ => "?".to_owned(),
        };
        text.push_str(field.name());
        text.push('=');
        text.extend(value.chars().take(100));
    }
    text
}
