//! Functions that PostgreSQL has and DataFusion has not.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    AggregateUDF, ColumnarValue, Expr, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    binary_expr,
};

use crate::average::Average;
use crate::signed::signed_functions;
use crate::to_char::ToChar;
use crate::told_apart::ToldApart;

/// Adds them to a session.
pub(crate) fn register(state: &mut SessionState) -> Result<()> {
    state.register_udf(Arc::new(ScalarUDF::new_from_impl(Modulo::new())))?;
    state.register_udf(Arc::new(ScalarUDF::new_from_impl(ToChar::new())))?;
    state.register_udf(Arc::new(ScalarUDF::new_from_impl(ToldApart::new())))?;
    for function in signed_functions() {
        state.register_udwf(Arc::new(function))?;
    }
    state.register_udaf(Arc::new(AggregateUDF::new_from_impl(Average::default())))?;
    Ok(())
}

/// `mod(a, b)`, which is `a % b`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Modulo {
    signature: Signature,
}

impl Modulo {
    fn new() -> Self {
        Modulo { signature: Signature::numeric(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Modulo {
    fn name(&self) -> &str {
        "mod"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        args.first().cloned().ok_or_else(|| DataFusionError::Plan("mod takes two numbers".into()))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [left, right] = arrays.as_slice() else {
            return Err(DataFusionError::Plan("mod takes two numbers".into()));
        };
        Ok(ColumnarValue::Array(arrow::compute::kernels::numeric::rem(left, right)?))
    }

    fn simplify(&self, mut args: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult> {
        match (args.pop(), args.pop()) {
            (Some(right), Some(left)) if args.is_empty() => {
                Ok(ExprSimplifyResult::Simplified(binary_expr(left, Operator::Modulo, right)))
            }
            _ => Err(DataFusionError::Plan("mod takes two numbers".into())),
        }
    }
}
