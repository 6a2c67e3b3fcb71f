//! Syntax of PostgreSQL that DataFusion's planner knows in another form only.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{AccessExpr, Expr, Value, VisitMut, visit_expressions_mut};

/// The same statement or expression, as DataFusion wants it.
pub(crate) fn for_planning<T: VisitMut>(mut tree: T) -> T {
    let _: ControlFlow<()> = visit_expressions_mut(&mut tree, |expr| {
        if let Expr::CompoundFieldAccess { access_chain, .. } = expr {
            access_chain.iter_mut().for_each(name_field);
        }
        ControlFlow::Continue(())
    });
    tree
}

/// `(column).field`: the field as a string.
fn name_field(access: &mut AccessExpr) {
    if let AccessExpr::Dot(field) = access
        && let Expr::Identifier(ident) = field
    {
        let name = match ident.quote_style {
            Some(_) => ident.value.clone(),
            None => ident.value.to_ascii_lowercase(),
        };
        *field = Expr::value(Value::SingleQuotedString(name));
    }
}
