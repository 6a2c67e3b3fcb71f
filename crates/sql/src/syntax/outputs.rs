//! Columns of one name that get others from outside: `WITH w (a, b) AS (SELECT n, n FROM t)`.
//!
//! The planner wants a name of its own for each column of a `SELECT`, before it gives them those of the list behind the alias.

use datafusion::sql::sqlparser::ast::{self, Expr, Ident, SelectItem, SetExpr, TableAlias};

/// Gives the columns of a query the names of the list behind its alias, if two have the same name.
pub(super) fn name_outputs(query: &mut ast::Query, alias: &TableAlias) {
    let names: Vec<&Ident> = alias.columns.iter().map(|column| &column.name).collect();
    if !names.is_empty() {
        name_body(&mut query.body, &names);
    }
}

fn name_body(body: &mut SetExpr, names: &[&Ident]) {
    match body {
        SetExpr::Select(select) => name_items(&mut select.projection, names),
        SetExpr::Query(query) => name_body(&mut query.body, names),
        SetExpr::SetOperation { left, right, .. } => {
            name_body(left, names);
            name_body(right, names);
        }
        _ => {}
    }
}

fn name_items(items: &mut [SelectItem], names: &[&Ident]) {
    let own: Vec<String> = items.iter().filter_map(plain_name).collect();
    let twice = own.iter().enumerate().any(|(i, name)| own[..i].contains(name));
    if !twice || own.len() != items.len() {
        return;
    }
    for (item, name) in items.iter_mut().zip(names) {
        if let SelectItem::UnnamedExpr(expr) = item {
            let expr = std::mem::replace(expr, Expr::value(ast::Value::Null));
            *item = SelectItem::ExprWithAlias { expr, alias: (*name).clone() };
        }
    }
}

/// What names a column, if it is known without its table: of a plain column its name, of an expression its text.
fn plain_name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last().map(|part| part.value.clone()),
        SelectItem::UnnamedExpr(expr) => Some(expr.to_string()),
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.clone()),
        _ => None,
    }
}
