//! Casts of numbers to integers round, as in PostgreSQL; DataFusion's cut the fraction off.
//!
//! Floating-point numbers go to the nearest integer, halves to the even one; decimals' halves go away
//! from zero.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::{cast, unary};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, Result};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Cast, ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::optimizer::AnalyzerRule;

/// Rounds what is cast to an integer. Comes after types are coerced.
#[derive(Debug)]
pub(crate) struct RoundingCasts {
    rint: Arc<ScalarUDF>,
}

impl RoundingCasts {
    /// The rule.
    pub(crate) fn new() -> Self {
        RoundingCasts { rint: Arc::new(ScalarUDF::new_from_impl(Rint::new())) }
    }

    fn rewrite(&self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let schema = merge_schema(&plan.inputs());
        let names = NamePreserver::new(&plan);
        let plan = plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let rewritten = expr.transform_up(|expr| Ok(self.rounded(expr, &schema)))?;
            Ok(rewritten.update_data(|expr| name.restore(expr)))
        })?;
        plan.map_data(|plan| plan.recompute_schema())
    }

    fn rounded(&self, expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
        let Expr::Cast(Cast { expr: number, field }) = expr else { return Transformed::no(expr) };
        let rounded = match number.get_type(schema) {
            Ok(from) if field.data_type().is_integer() => self.whole(&number, &from),
            _ => None,
        };
        match rounded {
            Some(whole) => Transformed::yes(Expr::Cast(Cast { expr: Box::new(whole), field })),
            None => Transformed::no(Expr::Cast(Cast { expr: number, field })),
        }
    }

    /// A number without its fraction; `None` if it has none by its type or was rounded before.
    fn whole(&self, number: &Expr, from: &DataType) -> Option<Expr> {
        match (number, from) {
            (Expr::ScalarFunction(call), _) if call.func == self.rint => None,
            // A function also for decimals: the optimiser takes a cast in a comparison for one that loses nothing.
            (_, DataType::Float32 | DataType::Float64) => Some(self.rint.call(vec![number.clone()])),
            (_, DataType::Decimal128(_, scale)) if *scale > 0 => Some(self.rint.call(vec![number.clone()])),
            _ => None,
        }
    }
}

impl AnalyzerRule for RoundingCasts {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(|plan| self.rewrite(plan))?.data)
    }

    fn name(&self) -> &str {
        "rounding_casts"
    }
}

/// The nearest integer as a number of the same kind.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Rint {
    signature: Signature,
}

impl Rint {
    fn new() -> Self {
        Rint { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Rint {
    fn name(&self) -> &str {
        "rint"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        match args {
            [DataType::Decimal128(precision, scale)] if *scale > 0 => {
                // One digit more: 9.9 becomes 10.
                Ok(DataType::Decimal128(precision.saturating_sub(scale.unsigned_abs()) + 1, 0))
            }
            [DataType::Float32 | DataType::Float64] => Ok(args[0].clone()),
            _ => Err(DataFusionError::Plan("rint takes a number with a fraction".into())),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [numbers] = arrays.as_slice() else { return Err(DataFusionError::Plan("rint takes a number".into())) };
        let rounded: ArrayRef = match numbers.data_type() {
            DataType::Float32 => {
                Arc::new(unary::<_, _, Float32Type>(numbers.as_primitive::<Float32Type>(), f32::round_ties_even))
            }
            DataType::Float64 => {
                Arc::new(unary::<_, _, Float64Type>(numbers.as_primitive::<Float64Type>(), f64::round_ties_even))
            }
            // Arrow rounds halves of decimals away from zero.
            _ => cast(numbers, args.return_field.data_type())?,
        };
        Ok(ColumnarValue::Array(rounded))
    }
}
