//! DataFusion's physical expressions as [`Scalar`]s.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::execution::SessionState;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use tidemill_delta::one_zero;
use tidemill_plan::{Scalar, ScalarError};

use crate::error_map::sql_error;
use crate::label::label;

/// A physical expression of DataFusion.
#[derive(Debug)]
pub(crate) struct BatchScalar {
    expr: Arc<dyn PhysicalExpr>,
    data_type: DataType,
    label: String,
}

impl BatchScalar {
    /// Prepares an expression, already coerced, over batches with the columns of `schema`. Its
    /// values are cast to the storage type (see [`storage_type`]) of its own type.
    pub(crate) fn compile(session: &SessionState, expr: &Expr, schema: &DFSchema) -> Result<Arc<dyn Scalar>> {
        let own_type = expr.get_type(schema)?;
        let as_text;
        let expr = match own_type {
            // What the JSON operator `->` gives.
            DataType::Union(..) => {
                as_text = datafusion_functions_json::udfs::json_union_to_text_udf().call(vec![expr.clone()]);
                &as_text
            }
            _ => expr,
        };
        let data_type = storage_type(&own_type);
        let quick = expr.clone().transform(|part| as_duration(part, schema))?.data;
        let physical =
            create_physical_expr(&quick, schema, session.execution_props(), &PhysicalPlanningContext::default())?;
        Ok(Arc::new(BatchScalar { expr: physical, data_type, label: label(expr) }))
    }

    fn value(&self, rows: &RecordBatch) -> Result<ArrayRef> {
        let array = self.expr.evaluate(rows)?.into_array(rows.num_rows())?;
        if array.data_type() == &self.data_type {
            return Ok(array);
        }
        let options = CastOptions { safe: false, ..CastOptions::default() };
        Ok(cast_with_options(&array, &self.data_type, &options)?)
    }
}

impl fmt::Display for BatchScalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label)
    }
}

impl Scalar for BatchScalar {
    fn eval(&self, rows: &RecordBatch) -> std::result::Result<ArrayRef, ScalarError> {
        let value = self.value(rows).map_err(|error| ScalarError::new(sql_error(error).message))?;
        if value.len() != rows.num_rows() {
            let message = format!("{} gave {} values for {} rows", self.label, value.len(), rows.num_rows());
            return Err(ScalarError::new(message));
        }
        Ok(one_zero(&value))
    }

    fn data_type(&self) -> &DataType {
        &self.data_type
    }
}

/// The type in which values of a type flow and are kept: plain arrays, no views into foreign
/// buffers, no dictionaries.
pub(crate) fn storage_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Union(..) => DataType::Utf8,
        DataType::Dictionary(_, values) => storage_type(values),
        DataType::RunEndEncoded(_, values) => storage_type(values.data_type()),
        other => other.clone(),
    }
}

/// A timestamp and an interval of fixed length as a timestamp and a duration: the same time, by an
/// addition instead of the calendar. Every row of a source goes through its watermark's expression.
fn as_duration(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Plus | Operator::Minus), right }) = &expr else {
        return Ok(Transformed::no(expr));
    };
    let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), metadata) = right.as_ref() else {
        return Ok(Transformed::no(expr));
    };
    // With a time zone a day may have 23 hours.
    let DataType::Timestamp(unit, None) = left.get_type(schema)? else { return Ok(Transformed::no(expr)) };
    let Some(duration) = duration(*interval, unit) else { return Ok(Transformed::no(expr)) };
    let right = Expr::Literal(duration, metadata.clone());
    Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(left.clone(), *op, Box::new(right)))))
}

/// The interval in whole units, if it is so many.
fn duration(interval: IntervalMonthDayNano, unit: TimeUnit) -> Option<ScalarValue> {
    let nanos = match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1000,
        TimeUnit::Nanosecond => 1,
    };
    if interval.months != 0 || interval.nanoseconds % nanos != 0 {
        return None;
    }
    let days = i64::from(interval.days).checked_mul(86_400_000_000_000 / nanos)?;
    let length = Some(days.checked_add(interval.nanoseconds / nanos)?);
    Some(match unit {
        TimeUnit::Second => ScalarValue::DurationSecond(length),
        TimeUnit::Millisecond => ScalarValue::DurationMillisecond(length),
        TimeUnit::Microsecond => ScalarValue::DurationMicrosecond(length),
        TimeUnit::Nanosecond => ScalarValue::DurationNanosecond(length),
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{TimestampMicrosecondArray, TimestampSecondArray};
    use arrow::datatypes::{Field, Schema};
    use datafusion::logical_expr::{col, lit};
    use datafusion::prelude::SessionContext;

    use super::*;

    /// Whether a duration takes the interval's place; checks that the times are the same.
    fn is_quick(column: ArrayRef, op: Operator, interval: (i32, i32, i64)) -> bool {
        let fields = Schema::new(vec![Field::new("t", column.data_type().clone(), true)]);
        let schema = DFSchema::try_from(fields.clone()).unwrap();
        let rows = RecordBatch::try_new(Arc::new(fields), vec![column]).unwrap();
        let (months, days, nanos) = interval;
        let interval = lit(ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(months, days, nanos))));
        let expr = Expr::BinaryExpr(BinaryExpr::new(Box::new(col("t")), op, Box::new(interval)));
        let session = SessionContext::new().state();
        let scalar = BatchScalar::compile(&session, &expr, &schema).unwrap();
        let slow = create_physical_expr(&expr, &schema, session.execution_props(), &PhysicalPlanningContext::default());
        let slow = slow.unwrap().evaluate(&rows).unwrap().into_array(rows.num_rows()).unwrap();
        assert_eq!(&scalar.eval(&rows).unwrap(), &slow);
        as_duration(expr, &schema).unwrap().transformed
    }

    #[test]
    fn intervals_of_fixed_length_are_durations() {
        let micros =
            || Arc::new(TimestampMicrosecondArray::from(vec![Some(0), None, Some(-1), Some(1_700_000_000_000_001)]));
        assert!(is_quick(micros(), Operator::Minus, (0, 0, 4_000_000_000)));
        assert!(is_quick(micros(), Operator::Plus, (0, -3, 5_000)));
        assert!(!is_quick(micros(), Operator::Plus, (1, 0, 0)), "a month has no length");
        assert!(!is_quick(micros(), Operator::Minus, (0, 0, 1)), "a nanosecond is less than the unit");
        let seconds = TimestampSecondArray::from(vec![Some(1_700_000_000), None]);
        assert!(is_quick(Arc::new(seconds.clone()), Operator::Minus, (0, 1, 2_000_000_000)));
        assert!(!is_quick(Arc::new(seconds.with_timezone("+01:00")), Operator::Plus, (0, 1, 0)), "days vary");
    }
}
