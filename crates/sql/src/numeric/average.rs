//! `avg` of decimals: exact until it is rounded once, with as many digits as a quotient has.

use std::collections::HashSet;
use std::mem::size_of;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Int64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, ReversedUDAF, Signature, Volatility};
use tidemill_plan::decimal_average;

use super::arithmetic::QUOTIENT_SCALE;
use crate::provider::external;
use crate::{SqlError, state};

/// What averages of integers are computed from.
pub(crate) const AVERAGE_ARGUMENT: DataType = DataType::Decimal128(20, 0);

/// The aggregate; see the module.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Average {
    signature: Signature,
}

impl Average {
    /// The aggregate.
    pub(super) fn new() -> Self {
        Average { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

fn scale_of(data_type: &DataType) -> i8 {
    if let DataType::Decimal128(_, scale) = data_type { *scale } else { 0 }
}

impl AggregateUDFImpl for Average {
    fn name(&self) -> &str {
        "avg"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(types.to_vec())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Decimal128(38, types.first().map_or(0, scale_of).max(QUOTIENT_SCALE)))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let scale = args.input_fields.first().map_or(0, |field| scale_of(field.data_type()));
        let value = DataType::Decimal128(38, scale);
        if args.is_distinct {
            let list = DataType::List(Arc::new(Field::new_list_field(value, true)));
            return Ok(vec![Arc::new(Field::new(format_state_name(args.name, "values"), list, true))]);
        }
        Ok(vec![
            Arc::new(Field::new(format_state_name(args.name, "sum"), value, true)),
            Arc::new(Field::new(format_state_name(args.name, "count"), DataType::Int64, true)),
        ])
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let scale = args.expr_fields.first().map_or(0, |field| scale_of(field.data_type()));
        let totals = Totals { sum: 0, count: 0, scale, result: scale_of(args.return_type()) };
        Ok(match args.is_distinct {
            true => Box::new(DistinctTotals { totals, seen: HashSet::new() }),
            false => Box::new(totals),
        })
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }
}

/// A sum and a count.
#[derive(Debug)]
struct Totals {
    sum: i128,
    count: i64,
    scale: i8,
    result: i8,
}

impl Totals {
    fn add(&mut self, values: &ArrayRef, sign: i128) -> Result<()> {
        for value in values.as_primitive::<Decimal128Type>().iter().flatten() {
            self.sum = self.sum.checked_add(value * sign).ok_or_else(out_of_range)?;
        }
        let counted = values.len() - values.logical_null_count();
        self.count += i64::try_from(sign).unwrap_or(1) * i64::try_from(counted).unwrap_or(i64::MAX);
        Ok(())
    }

    fn value(&self) -> Result<ScalarValue> {
        let average = match self.count {
            0 => None,
            count => {
                let digits = u32::try_from(self.result - self.scale).unwrap_or(0);
                Some(decimal_average(self.sum, count, digits).ok_or_else(out_of_range)?)
            }
        };
        Ok(ScalarValue::Decimal128(average, 38, self.result))
    }
}

fn out_of_range() -> datafusion::common::DataFusionError {
    external(SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, "value overflows numeric format"))
}

impl Accumulator for Totals {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(&values[0], 1)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.value()
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Decimal128(Some(self.sum), 38, self.scale), ScalarValue::Int64(Some(self.count))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let (sums, counts) = (states[0].as_primitive::<Decimal128Type>(), states[1].as_primitive::<Int64Type>());
        for (sum, count) in sums.iter().flatten().zip(counts.iter().flatten()) {
            self.sum = self.sum.checked_add(sum).ok_or_else(out_of_range)?;
            self.count += count;
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(&values[0], -1)
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }
}

/// Each value once.
#[derive(Debug)]
struct DistinctTotals {
    totals: Totals,
    /// Only asked whether it has a value, never walked, but for its state, which is a set again.
    seen: HashSet<i128>,
}

impl DistinctTotals {
    fn add(&mut self, values: &ArrayRef) -> Result<()> {
        for value in values.as_primitive::<Decimal128Type>().iter().flatten() {
            if self.seen.insert(value) {
                self.totals.sum = self.totals.sum.checked_add(value).ok_or_else(out_of_range)?;
                self.totals.count += 1;
            }
        }
        Ok(())
    }
}

impl Accumulator for DistinctTotals {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(&values[0])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.totals.value()
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.seen.capacity() * size_of::<i128>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let mut seen: Vec<_> = self.seen.iter().copied().collect();
        seen.sort_unstable();
        let data_type = DataType::Decimal128(38, self.totals.scale);
        let values: Vec<_> =
            seen.into_iter().map(|v| ScalarValue::Decimal128(Some(v), 38, self.totals.scale)).collect();
        Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&values, &data_type))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let lists = states[0].as_list::<i32>();
        lists.iter().flatten().try_for_each(|values| self.add(&values))
    }
}
