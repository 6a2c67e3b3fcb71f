//! Row values: `(a, b) < (c, d)`, `(a, b) IN (...)` as conditions on their columns.

use datafusion::sql::sqlparser::ast::{self, BinaryOperator, Expr, Ident, UnaryOperator};

use crate::statement::{StatementKind, query_of};

/// Rewrites an expression whose parts are rewritten.
pub(super) fn rewrite(expr: &mut Expr) {
    let rewritten = match expr {
        Expr::BinaryOp { left, op, right } => match (columns(left), columns(right)) {
            (Some(left), Some(right)) if left.len() == right.len() => compared(left, op, right),
            _ => None,
        },
        Expr::InList { expr, list, negated } => columns(expr).and_then(|row| in_list(row, list, *negated)),
        Expr::InSubquery { expr, subquery, negated: false } => columns(expr).and_then(|row| in_query(row, subquery)),
        _ => None,
    };
    if let Some(rewritten) = rewritten {
        *expr = rewritten;
    }
}

fn columns(expr: &Expr) -> Option<&[Expr]> {
    match expr {
        Expr::Tuple(columns) if columns.len() > 1 => Some(columns),
        Expr::Nested(inner) => columns(inner),
        _ => None,
    }
}

fn operation(left: &Expr, op: BinaryOperator, right: &Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left.clone()), op, right: Box::new(right.clone()) }
}

fn joined(parts: Vec<Expr>, op: &BinaryOperator) -> Option<Expr> {
    let all = parts.into_iter().reduce(|left, right| operation(&left, op.clone(), &right));
    all.map(|all| Expr::Nested(Box::new(all)))
}

fn equal(left: &[Expr], right: &[Expr]) -> Option<Expr> {
    let pairs = left.iter().zip(right).map(|(l, r)| operation(l, BinaryOperator::Eq, r));
    joined(pairs.collect(), &BinaryOperator::And)
}

fn compared(left: &[Expr], op: &BinaryOperator, right: &[Expr]) -> Option<Expr> {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    match op {
        Eq => equal(left, right),
        NotEq => equal(left, right).map(|equal| Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(equal) }),
        Lt | Gt | LtEq | GtEq => {
            let strict = if matches!(op, Lt | LtEq) { Lt } else { Gt };
            ordered(left, &strict, op, right)
        }
        _ => None,
    }
}

/// The first columns that differ decide.
fn ordered(left: &[Expr], strict: &BinaryOperator, last: &BinaryOperator, right: &[Expr]) -> Option<Expr> {
    let (Some((l, left)), Some((r, right))) = (left.split_first(), right.split_first()) else { return None };
    if left.is_empty() {
        return Some(operation(l, last.clone(), r));
    }
    let rest = ordered(left, strict, last, right)?;
    let tied = joined(vec![operation(l, BinaryOperator::Eq, r), rest], &BinaryOperator::And)?;
    joined(vec![operation(l, strict.clone(), r), tied], &BinaryOperator::Or)
}

fn in_list(row: &[Expr], list: &[Expr], negated: bool) -> Option<Expr> {
    let rows = list.iter().map(|item| columns(item).filter(|item| item.len() == row.len()));
    let equals = rows.map(|item| equal(row, item?)).collect::<Option<Vec<_>>>()?;
    let found = joined(equals, &BinaryOperator::Or)?;
    Some(if negated { Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(found) } } else { found })
}

/// `(a, b) IN (SELECT ...)`: there is a row that equals it.
fn in_query(row: &[Expr], subquery: &ast::Query) -> Option<Expr> {
    let name = |i: usize| format!("in_column_{i}");
    let names: Vec<_> = (0..row.len()).map(name).collect();
    let text = format!("SELECT 1 FROM (SELECT 1) AS in_row ({}) WHERE true", names.join(", "));
    let Ok(StatementKind::Query(mut query)) = query_of(&text) else { return None };
    let ast::SetExpr::Select(select) = query.body.as_mut() else { return None };
    if let Some(ast::TableFactor::Derived { subquery: inner, .. }) =
        select.from.first_mut().map(|from| &mut from.relation)
    {
        **inner = subquery.clone();
    }
    let own = |i: usize| Expr::CompoundIdentifier(vec![Ident::new("in_row"), Ident::new(name(i))]);
    let own: Vec<_> = (0..row.len()).map(own).collect();
    select.selection = equal(&own, row);
    Some(Expr::Exists { subquery: query, negated: false })
}
