//! Aggregates of PostgreSQL that are a function of all values as an array.

use datafusion::sql::sqlparser::ast::{
    self, CastKind, Expr, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArguments, Ident,
};

use super::call;

/// `jsonb_agg(x)` as `jsonb_array_of(array_agg(to_jsonb(x)))`, and the like.
pub(super) fn rewrite(function: &ast::Function) -> Option<Expr> {
    let [part] = function.name.0.as_slice() else { return None };
    let name = part.as_ident()?.value.to_ascii_lowercase();
    let FunctionArguments::List(list) = &function.args else { return None };
    let args: Vec<Expr> = list.args.iter().map(plain).collect::<Option<_>>()?;
    let to_json = |expr: &Expr| call("to_jsonb", vec![expr.clone()]);
    match (name.as_str(), args.as_slice()) {
        ("jsonb_agg" | "json_agg", [value]) => Some(call("jsonb_array_of", vec![collected(function, to_json(value))?])),
        ("jsonb_object_agg" | "json_object_agg", [key, value]) => {
            let key = Expr::Cast {
                kind: CastKind::Cast,
                expr: Box::new(key.clone()),
                data_type: ast::DataType::Text,
                array: false,
                format: None,
            };
            let pairs = collected(function, call("jsonb_build_array", vec![key, value.clone()]))?;
            Some(call("jsonb_object_of", vec![pairs]))
        }
        ("mode", []) => Some(call("list_mode", vec![ordered(function)?])),
        ("percentile_disc", [share]) => Some(call("list_percentile", vec![ordered(function)?, share.clone()])),
        _ => None,
    }
}

fn plain(arg: &FunctionArg) -> Option<Expr> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    }
}

/// `array_agg(value)` with the clauses of another aggregate.
fn collected(function: &ast::Function, value: Expr) -> Option<Expr> {
    let mut function = function.clone();
    function.name = ast::ObjectName::from(vec![Ident::new("array_agg")]);
    let FunctionArguments::List(list) = &mut function.args else { return None };
    list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(value))];
    Some(Expr::Function(function))
}

/// The values of `WITHIN GROUP (ORDER BY x)` in their order, without NULLs.
fn ordered(function: &ast::Function) -> Option<Expr> {
    let [order] = function.within_group.as_slice() else { return None };
    let mut collected = function.clone();
    collected.within_group = Vec::new();
    collected.name = ast::ObjectName::from(vec![Ident::new("array_agg")]);
    let FunctionArguments::List(list) = &mut collected.args else { return None };
    list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(order.expr.clone()))];
    list.clauses = vec![FunctionArgumentClause::OrderBy(vec![order.clone()])];
    let known = Expr::IsNotNull(Box::new(order.expr.clone()));
    let filter = match collected.filter.take() {
        Some(filter) => Expr::BinaryOp { left: filter, op: ast::BinaryOperator::And, right: Box::new(known) },
        None => known,
    };
    collected.filter = Some(Box::new(filter));
    Some(Expr::Function(collected))
}
