//! Functions that give rows, in `FROM` and in the select list, as `UNNEST` of arrays; `FETCH FIRST`.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, LimitClause, SelectItem,
    SetExpr, TableAlias, TableAliasColumnDef, TableFactor, Value, VisitorMut,
};

use super::call;
use super::outputs::name_outputs;
use crate::SqlError;
use crate::statement::expression_of;
use crate::walk::{Flow, Stop, stop, walk_mut};

/// Rewrites all queries in a tree.
pub(crate) fn rewrite(query: &mut ast::Query) -> Result<(), SqlError> {
    walk_mut(query, &mut Tables)
}

struct Tables;

impl VisitorMut for Tables {
    type Break = Stop;

    fn pre_visit_query(&mut self, query: &mut ast::Query) -> Flow {
        for cte in query.with.iter_mut().flat_map(|with| &mut with.cte_tables) {
            name_outputs(&mut cte.query, &cte.alias);
        }
        match fetch_as_limit(query) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => stop(error),
        }
    }

    fn pre_visit_select(&mut self, select: &mut ast::Select) -> Flow {
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) = item
                && let Some((name, arrays)) = rows_of_expr(expr)
                && let [array] = arrays.as_slice()
            {
                *item =
                    SelectItem::ExprWithAlias { expr: call("unnest", vec![array.clone()]), alias: Ident::new(name) };
            } else if let SelectItem::ExprWithAlias { expr, .. } = item
                && let Some((_, arrays)) = rows_of_expr(expr)
                && let [array] = arrays.as_slice()
            {
                *expr = call("unnest", vec![array.clone()]);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> Flow {
        if let Some(rewritten) = table(factor) {
            *factor = rewritten;
        }
        if let TableFactor::Derived { subquery, alias: Some(alias), .. } = factor {
            name_outputs(subquery, alias);
        }
        ControlFlow::Continue(())
    }
}

fn rows_of_expr(expr: &Expr) -> Option<(String, Vec<Expr>)> {
    let Expr::Function(function) = expr else { return None };
    if function.over.is_some() || function.filter.is_some() {
        return None;
    }
    let FunctionArguments::List(list) = &function.args else { return None };
    let name = function_name(&function.name)?;
    let (arrays, _) = arrays(&name, plain_args(&list.args)?)?;
    (name != "unnest").then_some((name, arrays))
}

fn function_name(name: &ast::ObjectName) -> Option<String> {
    let [part] = name.0.as_slice() else { return None };
    part.as_ident().map(|ident| ident.value.to_ascii_lowercase())
}

fn plain_args(args: &[FunctionArg]) -> Option<Vec<Expr>> {
    let plain = |arg: &FunctionArg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    args.iter().map(plain).collect()
}

/// The arrays whose elements are the rows of a function, and the names of the columns that they make.
fn arrays(name: &str, args: Vec<Expr>) -> Option<(Vec<Expr>, Vec<&'static str>)> {
    let one = |function: &str, args: Vec<Expr>, column| Some((vec![call(function, args)], vec![column]));
    match (name, args.len()) {
        ("unnest", 1..) => Some((args, Vec::new())),
        ("generate_series", 2 | 3) => one("generate_series", args, ""),
        ("jsonb_array_elements" | "json_array_elements", 1) => one("jsonb_elements", args, "value"),
        ("jsonb_array_elements_text" | "json_array_elements_text", 1) => one("jsonb_elements_text", args, "value"),
        ("jsonb_object_keys" | "json_object_keys", 1) => one("jsonb_keys", args, ""),
        ("jsonb_each" | "json_each" | "jsonb_each_text" | "json_each_text", 1) => {
            let values = if name.ends_with("_text") { "jsonb_values_text" } else { "jsonb_values" };
            Some((vec![call("jsonb_keys", args.clone()), call(values, args)], vec!["key", "value"]))
        }
        ("regexp_split_to_table", 2 | 3) => one("regexp_split_to_array", args, ""),
        ("string_to_table", 2 | 3) => one("string_to_array", args, ""),
        _ => None,
    }
}

/// A function in `FROM` as an `UNNEST` with names for its columns.
fn table(factor: &TableFactor) -> Option<TableFactor> {
    let (name, args, alias, ordinality) = match factor {
        TableFactor::Function { name, args, alias, .. } => (function_name(name)?, plain_args(args)?, alias, false),
        TableFactor::Table { name, args: Some(args), alias, with_ordinality, version: None, .. } => {
            (function_name(name)?, plain_args(&args.args)?, alias, *with_ordinality)
        }
        // One that is done already has names for its columns.
        TableFactor::UNNEST { alias: Some(alias), with_ordinality: false, with_offset: false, .. }
            if !alias.columns.is_empty() =>
        {
            return None;
        }
        TableFactor::UNNEST { alias, array_exprs, with_ordinality, with_offset: false, .. } => {
            ("unnest".to_owned(), array_exprs.clone(), alias, *with_ordinality)
        }
        _ => return None,
    };
    let (mut arrays, own) = arrays(&name, args)?;
    let mut columns: Vec<TableAliasColumnDef> = alias.as_ref().map_or_else(Vec::new, |alias| alias.columns.clone());
    let table = alias.as_ref().map_or_else(|| Ident::new(name.clone()), |alias| alias.name.clone());
    for place in columns.len()..arrays.len() {
        // A function that gives one column names it like itself, or like its alias.
        let given = own.get(place).filter(|own| !own.is_empty() && (arrays.len() > 1 || alias.is_none()));
        let column = given.map_or_else(|| table.clone(), |own| Ident::new(*own));
        columns.push(TableAliasColumnDef { name: column, data_type: None });
    }
    if ordinality {
        let first = arrays.first()?.clone();
        arrays.push(call("generate_series", vec![number(1), call("cardinality", vec![first])]));
        if columns.len() < arrays.len() {
            columns.push(TableAliasColumnDef { name: Ident::new("ordinality"), data_type: None });
        }
    }
    Some(TableFactor::UNNEST {
        alias: Some(TableAlias { explicit: true, name: table, columns, at: None }),
        array_exprs: arrays,
        with_offset: false,
        with_offset_alias: None,
        with_ordinality: false,
    })
}

fn number(n: u32) -> Expr {
    Expr::value(Value::Number(n.to_string(), false))
}

/// `FETCH FIRST n ROWS ONLY` is a limit; `WITH TIES` keeps all whose rank is at most `n`.
fn fetch_as_limit(query: &mut ast::Query) -> Result<(), SqlError> {
    let Some(fetch) = query.fetch.take() else { return Ok(()) };
    if fetch.percent {
        return Err(SqlError::not_supported("FETCH FIRST n PERCENT is not supported"));
    }
    let quantity = fetch.quantity.unwrap_or_else(|| number(1));
    if !fetch.with_ties {
        let offset = match query.limit_clause.take() {
            Some(LimitClause::LimitOffset { offset, .. }) => offset,
            _ => None,
        };
        let limit = LimitClause::LimitOffset { limit: Some(quantity), offset, limit_by: Vec::new() };
        query.limit_clause = Some(limit);
        return Ok(());
    }
    let order = query.order_by.as_ref().map(ToString::to_string);
    let (Some(order), SetExpr::Select(select)) = (order, query.body.as_mut()) else {
        let error = SqlError::not_supported("FETCH FIRST ... WITH TIES needs a SELECT with ORDER BY");
        return Err(error.hint("Number the rows in a subquery with rank() OVER (ORDER BY ...)."));
    };
    if query.limit_clause.is_some() || select.qualify.is_some() {
        return Err(SqlError::not_supported("FETCH FIRST ... WITH TIES with OFFSET or QUALIFY is not supported"));
    }
    let rank = expression_of(&format!("rank() OVER ({order})"))?;
    let within = Expr::BinaryOp { left: Box::new(rank), op: BinaryOperator::LtEq, right: Box::new(quantity) };
    select.qualify = Some(within);
    Ok(())
}
