//! Casts that can be told apart by their names.
//!
//! DataFusion names `CAST(x AS bigint)` like `x`, so that a query with the aggregates `sum(x)` and `sum(CAST(x AS bigint))`, or with both as
//! keys of its groups, has two columns of one name, which it refuses. Such a query is planned again with each cast inside of a function that
//! has the type as an argument, and does nothing; the optimiser takes it away.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::sql::sqlparser::ast::{self, VisitMut};

use crate::walk::walk_expressions;

/// The function's name.
pub(crate) const TOLD_APART: &str = "__cast";

/// Puts all casts of a statement into the function.
pub(crate) fn tell_casts_apart<T: VisitMut>(tree: &mut T) {
    // It never stops.
    let _ = walk_expressions(tree, |expr| {
        if let ast::Expr::Cast { data_type, .. } = expr {
            let text = ast::Expr::value(ast::Value::SingleQuotedString(data_type.to_string()));
            let cast = std::mem::replace(expr, ast::Expr::value(ast::Value::Null));
            *expr = crate::syntax::call(TOLD_APART, vec![cast, text]);
        }
        Ok(())
    });
}

/// Whether groups of a plan have two columns of one name, which fails only when the plan is made better.
pub(crate) fn has_namesakes(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|plan| {
        if let LogicalPlan::Aggregate(aggregate) = plan {
            let mut seen = BTreeSet::new();
            found |= !aggregate.schema.columns().into_iter().all(|column| seen.insert(column.flat_name()));
        }
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// Its first argument.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct ToldApart {
    signature: Signature,
}

impl ToldApart {
    /// The function.
    pub(crate) fn new() -> Self {
        ToldApart { signature: Signature::any(2, Volatility::Immutable) }
    }
}

fn wrong() -> DataFusionError {
    DataFusionError::Plan(format!("{TOLD_APART} takes a value and a type"))
}

impl ScalarUDFImpl for ToldApart {
    fn name(&self) -> &str {
        TOLD_APART
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        args.first().cloned().ok_or_else(wrong)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let value = args.arg_fields.first().ok_or_else(wrong)?;
        Ok(Arc::new(value.as_ref().clone().with_name(self.name())))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        args.args.into_iter().next().ok_or_else(wrong)
    }

    fn simplify(&self, args: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult> {
        args.into_iter().next().map(ExprSimplifyResult::Simplified).ok_or_else(wrong)
    }
}
