//! Long chains of `AND` or `OR`, which the parser makes as deep as they are long, made shallow.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Value, VisitMut, VisitorMut};

use crate::walk::{Flow, Stop, walk_mut};

/// Chains shorter than this stay as they are.
const SHORT: usize = 16;

/// Rewrites `((a OR b) OR c) OR d` as `(a OR b) OR (c OR d)`, which means the same and prints the same.
pub(super) fn balance<T: VisitMut>(mut tree: T) -> T {
    // It never stops.
    let _ = walk_mut(&mut tree, &mut Balance);
    tree
}

struct Balance;

impl VisitorMut for Balance {
    type Break = Stop;

    /// Before its parts are visited, so that nothing ever goes down the whole chain by recursion.
    fn pre_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        let Expr::BinaryOp { op: op @ (BinaryOperator::And | BinaryOperator::Or), .. } = expr else {
            return ControlFlow::Continue(());
        };
        let op = op.clone();
        if chain_length(expr, &op) < SHORT {
            return ControlFlow::Continue(());
        }
        let chain = std::mem::replace(expr, Expr::value(Value::Null));
        *expr = joined(parts(chain, &op), &op);
        ControlFlow::Continue(())
    }
}

fn chain_length(mut expr: &Expr, op: &BinaryOperator) -> usize {
    let mut length = 1;
    while let Expr::BinaryOp { left, op: found, .. } = expr
        && found == op
    {
        expr = left;
        length += 1;
    }
    length
}

/// What a chain joins, in order.
fn parts(mut expr: Expr, op: &BinaryOperator) -> Vec<Expr> {
    let mut parts = Vec::new();
    let first = loop {
        match expr {
            Expr::BinaryOp { left, op: found, right } if found == *op => {
                parts.push(*right);
                expr = *left;
            }
            other => break other,
        }
    };
    parts.push(first);
    parts.reverse();
    parts
}

/// Joins neighbours until one is left.
fn joined(mut parts: Vec<Expr>, op: &BinaryOperator) -> Expr {
    while parts.len() > 1 {
        let mut rest = parts.into_iter();
        let mut pairs = Vec::new();
        while let Some(left) = rest.next() {
            pairs.push(match rest.next() {
                Some(right) => Expr::BinaryOp { left: Box::new(left), op: op.clone(), right: Box::new(right) },
                None => left,
            });
        }
        parts = pairs;
    }
    parts.pop().unwrap_or_else(|| Expr::value(Value::Null))
}

#[cfg(test)]
mod tests {
    use crate::StatementKind;
    use crate::statement::query_of;

    #[test]
    fn chains_keep_their_text_and_order() {
        let terms: Vec<_> = (0..100).map(|i| format!("a = {i}")).collect();
        for op in [" OR ", " AND "] {
            let text = format!("SELECT 1 WHERE {}", terms.join(op));
            match query_of(&text) {
                Ok(StatementKind::Query(query)) => assert_eq!(query.to_string(), text),
                other => panic!("{other:?}"),
            }
        }
    }
}
