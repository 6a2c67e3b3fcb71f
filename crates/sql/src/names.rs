//! The names of a query's columns, as PostgreSQL gives them.

use std::collections::BTreeSet;

use arrow::datatypes::FieldRef;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::Alias;
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan};
use datafusion::sql::sqlparser::ast;

use crate::pg_catalog::type_name_of;
use crate::told_apart::TOLD_APART;

/// The names of a plan's columns for the user: `count`, not `count(*)`. The plan is fresh from the
/// SQL planner, not optimised.
pub(crate) fn result_names(plan: &LogicalPlan) -> Vec<String> {
    match plan {
        LogicalPlan::Projection(projection) => {
            projection.expr.iter().map(|expr| name_of(expr, &projection.input)).collect()
        }
        LogicalPlan::Distinct(Distinct::On(distinct)) => {
            distinct.select_expr.iter().map(|expr| name_of(expr, &distinct.input)).collect()
        }
        LogicalPlan::Distinct(Distinct::All(input)) => result_names(input),
        LogicalPlan::Sort(sort) => result_names(&sort.input),
        LogicalPlan::Limit(limit) => result_names(&limit.input),
        LogicalPlan::Union(union) => match union.inputs.first() {
            Some(first) => result_names(first),
            None => Vec::new(),
        },
        other => other.schema().fields().iter().map(|f| f.name().clone()).collect(),
    }
}

/// Ends the name that [`tell_apart`] gives a column; what follows is a number.
const APART: char = '\u{1}';

/// Renames columns that a `SELECT` names twice, or names and also has by a wildcard: DataFusion wants
/// different names, PostgreSQL does not. [`result_names`] gives the names back.
pub(crate) fn tell_apart(query: &mut ast::Query) {
    let ast::SetExpr::Select(select) = query.body.as_mut() else { return };
    let wildcard =
        |item: &ast::SelectItem| matches!(item, ast::SelectItem::Wildcard(_) | ast::SelectItem::QualifiedWildcard(..));
    let all = select.projection.iter().any(wildcard);
    let (mut seen, mut given) = (BTreeSet::new(), BTreeSet::new());
    for (i, item) in select.projection.iter_mut().enumerate() {
        if let ast::SelectItem::ExprWithAlias { alias, .. } = item
            && !given.insert(folded(alias))
        {
            *alias = ast::Ident::with_quote('"', format!("{}{APART}{i}", folded(alias)));
        }
        let ast::SelectItem::UnnamedExpr(expr) = item else { continue };
        let name = match expr {
            ast::Expr::Identifier(name) => Some(name.clone()),
            ast::Expr::CompoundIdentifier(parts) => parts.last().cloned(),
            _ => None,
        };
        let Some(name) = name else { continue };
        if !seen.insert(expr.to_string()) || all {
            let alias = ast::Ident::with_quote('"', format!("{}{APART}{i}", folded(&name)));
            *item = ast::SelectItem::ExprWithAlias { expr: expr.clone(), alias };
        }
    }
}

/// A name as it is compared.
fn folded(name: &ast::Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}

/// What a cast at the top of a query says of its column's type beside the storage: `jsonb` made text
/// is text. `None` for columns that are no casts.
pub(crate) fn cast_fields(plan: &LogicalPlan) -> Vec<Option<FieldRef>> {
    match plan {
        LogicalPlan::Projection(projection) => projection.expr.iter().map(cast_field).collect(),
        LogicalPlan::Distinct(Distinct::All(input)) => cast_fields(input),
        LogicalPlan::Sort(sort) => cast_fields(&sort.input),
        LogicalPlan::Limit(limit) => cast_fields(&limit.input),
        other => vec![None; other.schema().fields().len()],
    }
}

fn cast_field(expr: &Expr) -> Option<FieldRef> {
    match expr {
        Expr::Alias(alias) => cast_field(&alias.expr),
        Expr::Cast(cast) => Some(cast.field.clone()),
        Expr::ScalarFunction(call) if call.func.name() == TOLD_APART => call.args.first().and_then(cast_field),
        _ => None,
    }
}

fn name_of(expr: &Expr, below: &LogicalPlan) -> String {
    match expr {
        Expr::Alias(alias) if is_count_of_rows(alias) => "count".into(),
        Expr::Alias(alias) => alias.name.split(APART).next().unwrap_or_default().to_owned(),
        Expr::Column(column) => match computed(below, &column.name) {
            Some(expr) => name_of(&expr, below),
            None if column.name.starts_with("UNNEST(") => "unnest".into(),
            None => column.name.clone(),
        },
        Expr::Cast(cast) => {
            let mut inner = &cast.expr;
            while let Expr::Cast(cast) = inner.as_ref() {
                inner = &cast.expr;
            }
            match name_of(inner, below) {
                name if name == UNKNOWN || name == CASE => type_name_of(&cast.field).into(),
                name => name,
            }
        }
        Expr::AggregateFunction(call) => call.func.name().to_string(),
        Expr::WindowFunction(call) => call.fun.name().to_string(),
        Expr::ScalarFunction(call) if call.func.name() == "get_field" => match call.args.last() {
            Some(Expr::Literal(ScalarValue::Utf8(Some(field)), _)) => field.clone(),
            _ => UNKNOWN.into(),
        },
        Expr::ScalarFunction(call) if call.func.name() == TOLD_APART => {
            call.args.first().map_or(UNKNOWN.into(), |value| name_of(value, below))
        }
        Expr::ScalarFunction(call) => function_name(call.func.name()).to_string(),
        Expr::Case(_) => CASE.into(),
        Expr::Exists(_) => "exists".into(),
        Expr::ScalarSubquery(query) => result_names(&query.subquery).pop().unwrap_or_else(|| UNKNOWN.into()),
        _ => UNKNOWN.into(),
    }
}

/// What PostgreSQL calls the column of a function, which may stand for something else here.
fn function_name(name: &str) -> &str {
    match name {
        "jsonb_array_of" => "jsonb_agg",
        "jsonb_object_of" => "jsonb_object_agg",
        "list_mode" => "mode",
        "list_percentile" => "percentile_disc",
        "age_between" => "age",
        "date_trunc_in_zone" => "date_trunc",
        "substring_of_pattern" => "substring",
        _ if name.starts_with("extract_") => "extract",
        "similar_to"
        | "array_overlap"
        | "interval_times"
        | "interval_over"
        | "timestamp_difference"
        | "jsonb_concat"
        | "jsonb_delete"
        | "jsonb_delete_path"
        | "jsonb_at_path"
        | "jsonb_at_path_text"
        | "jsonb_contains"
        | "jsonb_exists"
        | "jsonb_exists_any"
        | "jsonb_exists_all" => UNKNOWN,
        other => other,
    }
}

/// What PostgreSQL calls a `CASE`.
const CASE: &str = "case";

/// `count(*)`, with or without a window, which DataFusion plans as a count of something under this name.
fn is_count_of_rows(alias: &Alias) -> bool {
    alias.name.strip_prefix("count(*)").is_some_and(|window| window.is_empty() || window.starts_with(' '))
}

/// What PostgreSQL calls a column that has no name.
const UNKNOWN: &str = "?column?";

/// The aggregate or window function that DataFusion has planned below under a name of its own.
fn computed(plan: &LogicalPlan, name: &str) -> Option<Expr> {
    let found = |exprs: &[Expr]| exprs.iter().find(|e| e.schema_name().to_string() == name).cloned();
    let known = |expr: &Expr| !matches!(expr, Expr::Column(_)) && !is_named(expr);
    match plan {
        LogicalPlan::Aggregate(a) => found(&a.aggr_expr).or_else(|| found(&a.group_expr)).filter(known),
        LogicalPlan::Window(w) => found(&w.window_expr).filter(known).or_else(|| computed(&w.input, name)),
        LogicalPlan::Filter(f) => computed(&f.input, name),
        LogicalPlan::Sort(s) => computed(&s.input, name),
        _ => None,
    }
}

fn is_named(expr: &Expr) -> bool {
    matches!(expr, Expr::Alias(alias) if !is_count_of_rows(alias))
}
