//! The way out of a loop: the rows of all rounds of a recursion, once it has come to its end.
//!
//! Input: rows and their round, any changes. Rule: the rows without their round, net: a row that has only moved
//! to another round is no change. State: none.

use arrow::datatypes::SchemaRef;
use tidemill_delta::{Delta, net, relaxed};

use crate::{Operator, OperatorError, StepCx};

/// See the module.
pub struct Fixpoint {
    schema: SchemaRef,
}

impl Fixpoint {
    /// Leaves the last column out.
    pub fn new(input_schema: &SchemaRef, output_schema: SchemaRef) -> Result<Self, OperatorError> {
        let types = |schema: &SchemaRef| schema.fields().iter().map(|f| f.data_type().clone()).collect::<Vec<_>>();
        let mut wanted = types(input_schema);
        wanted.pop();
        if wanted != types(&output_schema) {
            return Err(OperatorError("a recursion's answer has other columns than its rounds".into()));
        }
        Ok(Fixpoint { schema: relaxed(&output_schema) })
    }
}

impl Operator for Fixpoint {
    fn step(&mut self, _cx: &mut StepCx<'_>, inputs: &mut [Vec<Delta>]) -> Result<Vec<Delta>, OperatorError> {
        let width = self.schema.fields().len();
        let rows = inputs[0].drain(..).filter(|delta| !delta.is_empty());
        let rows = rows.map(|delta| delta.with_columns(self.schema.clone(), delta.rows.columns()[..width].to_vec()));
        let rows: Vec<Delta> = rows.collect();
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        Ok(vec![net(&self.schema, &rows)?])
    }
}
