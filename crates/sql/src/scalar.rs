//! DataFusion's physical expressions as [`Scalar`]s.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result};
use datafusion::execution::SessionState;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
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
        let physical =
            create_physical_expr(expr, schema, session.execution_props(), &PhysicalPlanningContext::default())?;
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
        Ok(value)
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
