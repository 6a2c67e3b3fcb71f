//! The value of the only row: what a scalar subquery gives.

use std::mem::size_of_val;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};
use std::sync::Arc;

use crate::SqlError;
use crate::provider::external;

/// The aggregate; see the module.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct OnlyRow {
    signature: Signature,
}

impl OnlyRow {
    /// The aggregate.
    pub(super) fn new() -> Self {
        OnlyRow { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for OnlyRow {
    fn name(&self) -> &str {
        "only_row"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Null))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(vec![
            Arc::new(Field::new(format!("{}[value]", args.name), args.return_field.data_type().clone(), true)),
            Arc::new(Field::new(format!("{}[known]", args.name), DataType::Boolean, true)),
        ])
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let value = ScalarValue::try_from(args.return_type())?;
        Ok(Box::new(Only { value, known: false }))
    }
}

#[derive(Debug)]
struct Only {
    value: ScalarValue,
    known: bool,
}

impl Only {
    fn add(&mut self, values: &ArrayRef, rows: impl Iterator<Item = usize>) -> Result<()> {
        for row in rows {
            if self.known {
                let message = "more than one row returned by a subquery used as an expression";
                return Err(external(SqlError::new("21000", message)));
            }
            self.value = ScalarValue::try_from_array(values, row)?;
            self.known = true;
        }
        Ok(())
    }
}

impl Accumulator for Only {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(&values[0], 0..values[0].len())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(self.value.clone())
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.value.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.value.clone(), ScalarValue::Boolean(Some(self.known))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let known: &BooleanArray = states[1].as_boolean();
        self.add(&states[0], (0..known.len()).filter(|row| known.value(*row)))
    }
}
