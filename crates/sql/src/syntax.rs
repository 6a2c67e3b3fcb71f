//! Syntax of PostgreSQL that DataFusion's planner knows in another form only.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    AccessExpr, Expr, Fetch, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident,
    LimitClause, ObjectName, Query, Value, VisitMut, VisitorMut,
};

/// The same statement or expression, as DataFusion wants it.
pub(crate) fn for_planning<T: VisitMut>(mut tree: T) -> T {
    let _ = tree.visit(&mut Rewriter);
    tree
}

struct Rewriter;

impl VisitorMut for Rewriter {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        fetch_as_limit(query);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::CompoundFieldAccess { access_chain, .. } = expr {
            access_chain.iter_mut().for_each(name_field);
        }
        ControlFlow::Continue(())
    }
}

/// `FETCH FIRST n ROWS ONLY` is `LIMIT n`. With ties or per cent it is more, which the planner refuses.
fn fetch_as_limit(query: &mut Query) {
    let plain = |fetch: &mut Fetch| !fetch.with_ties && !fetch.percent;
    let offset = match &mut query.limit_clause {
        None => None,
        Some(LimitClause::LimitOffset { limit: None, offset, .. }) => offset.take(),
        Some(_) => return,
    };
    let limit = query.fetch.take_if(plain);
    let limit = limit.map(|fetch| fetch.quantity.unwrap_or_else(|| Expr::value(Value::Number("1".into(), false))));
    if limit.is_some() || offset.is_some() {
        query.limit_clause = Some(LimitClause::LimitOffset { limit, offset, limit_by: Vec::new() });
    }
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

/// A call of a function.
pub(crate) fn call(name: &str, args: [Expr; 2]) -> Expr {
    let args = args.map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).into();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}
