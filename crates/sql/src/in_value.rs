//! `x IN (SELECT ...)` as a value is true, false or NULL: NULL where no row is equal but some is not known to be another.
//!
//! DataFusion knows that of a `NOT IN` by which rows are chosen. Below `OR`, `NOT`, `IS NULL` and the like it takes what is not true for false.
//! There, `IN` becomes the comparison `x = ANY (SELECT ...)`, which it plans with all three answers.

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::expr::{InSubquery, SetComparison, SetQuantifier};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{BinaryExpr, Expr, Filter, LogicalPlan, Operator};
use datafusion::optimizer::AnalyzerRule;

/// Replaces `IN` with a subquery where its NULL matters. Comes before types are coerced.
#[derive(Debug)]
pub(crate) struct InAsValue;

impl AnalyzerRule for InAsValue {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let replaced = plan.transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::Filter(Filter { predicate, input, .. }) => {
                let conditions = split_conjunction_owned(predicate).into_iter().map(condition);
                let conditions = conditions.collect::<Result<Vec<_>>>()?;
                let predicate = conjunction(conditions).unwrap_or_else(|| datafusion::logical_expr::lit(true));
                Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(predicate, input)?)))
            }
            other => Ok(Transformed::no(other)),
        })?;
        Ok(replaced.data)
    }

    fn name(&self) -> &str {
        "in_as_value"
    }
}

/// A condition of a `WHERE` or `HAVING`: it chooses rows by itself.
fn condition(expr: Expr) -> Result<Expr> {
    match expr {
        Expr::InSubquery(list) if is_join(&list) => Ok(Expr::InSubquery(list)),
        Expr::Not(inner) => match *inner {
            Expr::InSubquery(list) => condition(Expr::InSubquery(InSubquery { negated: !list.negated, ..list })),
            other => value(Expr::Not(Box::new(other)), true),
        },
        other => value(other, true),
    }
}

/// Whether the join that stands for a chosen `IN` knows of NULL. That of `NOT IN` does where it is by one key, a column on the left, and
/// nothing else.
fn is_join(list: &InSubquery) -> bool {
    !list.negated || list.expr.any_column_refs() && list.subquery.outer_ref_columns.is_empty()
}

/// An expression; `chooses` says that for the rows chosen NULL is as good as false.
fn value(expr: Expr, chooses: bool) -> Result<Expr> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            let (left, right) = (value(*left, chooses)?, value(*right, chooses)?);
            Ok(Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(right) }))
        }
        Expr::InSubquery(InSubquery { expr, subquery, negated }) if !chooses || negated => {
            let any = SetComparison::new(expr, subquery, Operator::Eq, SetQuantifier::Any);
            let any = Expr::SetComparison(any);
            Ok(if negated { Expr::Not(Box::new(any)) } else { any })
        }
        Expr::InSubquery(_) => Ok(expr),
        other => Ok(other.map_children(|child| Ok(Transformed::yes(value(child, false)?)))?.data),
    }
}
