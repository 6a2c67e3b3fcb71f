//! All rows of all inputs.
//!
//! Input: any number of inputs whose columns have the output's types. Rule: every delta comes out
//! as it is, input by input, under the output's column names. State: none.

use arrow::datatypes::SchemaRef;
use tidemill_delta::{Delta, relaxed};

use crate::{Operator, OperatorError, StepCx};

/// See the module.
pub struct Union {
    schema: SchemaRef,
}

impl Union {
    /// Checks that the inputs fit each other.
    pub fn new(input_schemas: &[SchemaRef], output_schema: SchemaRef) -> Result<Self, OperatorError> {
        let types = |schema: &SchemaRef| schema.fields().iter().map(|f| f.data_type().clone()).collect::<Vec<_>>();
        let wanted = types(&output_schema);
        match input_schemas.iter().position(|schema| types(schema) != wanted) {
            Some(i) => Err(OperatorError(format!("input {i} of a union has other column types than its output"))),
            None => Ok(Union { schema: relaxed(&output_schema) }),
        }
    }
}

impl Operator for Union {
    fn step(&mut self, _cx: &mut StepCx<'_>, inputs: &mut [Vec<Delta>]) -> Result<Vec<Delta>, OperatorError> {
        let deltas = inputs.iter_mut().flat_map(|input| input.drain(..)).filter(|delta| !delta.is_empty());
        Ok(deltas.map(|delta| delta.with_columns(self.schema.clone(), delta.rows.columns().to_vec())).collect())
    }
}
