//! `x > ALL (SELECT y ...)` and the like as values: by the least and the greatest of the subquery's values, and how many there are.

use datafusion::common::{Result, ScalarValue, Spans};
use datafusion::functions_aggregate::expr_fn::{count, max, min};
use datafusion::logical_expr::expr::{InSubquery, SetComparison, SetQuantifier};
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, lit, when};

use super::unlimited;

/// A comparison in other words: `IN`, or plain comparisons of scalar subqueries; `None` if the operator does not go by an order.
pub(super) enum Compared {
    In(InSubquery),
    Value(Expr),
}

/// See the module.
pub(super) fn compared(comparison: &SetComparison) -> Result<Option<Compared>> {
    let SetComparison { expr, subquery, op, quantifier } = comparison;
    let all = matches!(quantifier, SetQuantifier::All);
    let plan = unlimited(&subquery.subquery);
    let Some(column) = plan.schema().columns().into_iter().next() else { return Ok(None) };
    let y = Expr::Column(column);
    let of = |aggregate: Expr| scalar(plan, aggregate, &subquery.outer_ref_columns);
    let against = |extreme: Expr| Expr::BinaryExpr(BinaryExpr::new(expr.clone(), *op, Box::new(extreme)));
    let test = match (op, all) {
        (Operator::Eq, false) | (Operator::NotEq, true) => {
            return Ok(Some(Compared::In(InSubquery { expr: expr.clone(), subquery: subquery.clone(), negated: all })));
        }
        (Operator::Eq, true) => against(of(min(y.clone()))?).and(against(of(max(y.clone()))?)),
        (Operator::NotEq, false) => against(of(min(y.clone()))?).or(against(of(max(y.clone()))?)),
        (Operator::Lt | Operator::LtEq, false) | (Operator::Gt | Operator::GtEq, true) => against(of(max(y.clone()))?),
        (Operator::Lt | Operator::LtEq, true) | (Operator::Gt | Operator::GtEq, false) => against(of(min(y.clone()))?),
        _ => return Ok(None),
    };
    let rows = || of(count(lit(1i64)));
    // Undecided, and a NULL on either side may have been what would decide it.
    let open = rows()?.gt(lit(0i64)).and(expr.clone().is_null().or(of(count(y))?.lt(rows()?)));
    let mut value = if all { when(!test, lit(false)) } else { when(test, lit(true)) };
    Ok(Some(Compared::Value(value.when(open, lit(ScalarValue::Boolean(None))).otherwise(lit(all))?)))
}

fn scalar(plan: &LogicalPlan, aggregate: Expr, outer: &[Expr]) -> Result<Expr> {
    let plan = LogicalPlanBuilder::from(plan.clone()).aggregate(Vec::<Expr>::new(), vec![aggregate.alias("value")])?;
    let subquery = plan.build()?.into();
    Ok(Expr::ScalarSubquery(Subquery { subquery, outer_ref_columns: outer.to_vec(), spans: Spans::new() }))
}
