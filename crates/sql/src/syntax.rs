//! Syntax of PostgreSQL that DataFusion's planner knows in another form only, or with another meaning.

mod aggregates;
mod outputs;
mod rows;
mod tables;

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, AccessExpr, BinaryOperator, CastKind, DateTimeField, Expr, Fetch, FunctionArg, FunctionArgExpr,
    FunctionArguments, Ident, LimitClause, Query, UnaryOperator, Value, VisitMut, VisitorMut,
};

pub(crate) use self::tables::rewrite as rewrite_tables;
use crate::functions::parse_interval;
use crate::walk::{Flow, Stop, walk_mut};

/// The same statement or expression, as DataFusion wants it.
pub(crate) fn for_planning<T: VisitMut>(mut tree: T) -> T {
    // It never stops.
    let _ = walk_mut(&mut tree, &mut Rewriter);
    tree
}

struct Rewriter;

impl VisitorMut for Rewriter {
    type Break = Stop;

    fn pre_visit_query(&mut self, query: &mut Query) -> Flow {
        fetch_as_limit(query);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        rewrite(expr);
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

fn rewrite(expr: &mut Expr) {
    rows::rewrite(expr);
    if let Expr::CompoundFieldAccess { access_chain, .. } = expr {
        access_chain.iter_mut().for_each(name_field);
    }
    if let Expr::Function(function) = expr {
        rename(function);
    }
    let rewritten = match expr {
        Expr::Value(value) => large_number(&value.value),
        Expr::UnaryOp { op, expr } => unary(*op, expr),
        Expr::AtTimeZone { timestamp, time_zone } => {
            Some(call("timezone", vec![time_zone.as_ref().clone(), timestamp.as_ref().clone()]))
        }
        Expr::Extract { field, expr, .. } => extract(field, expr),
        Expr::SimilarTo { negated, expr, pattern, escape_char: None } => {
            let similar = call("similar_to", vec![expr.as_ref().clone(), pattern.as_ref().clone()]);
            Some(match negated {
                true => Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(similar) },
                false => similar,
            })
        }
        Expr::Substring { expr, substring_from: Some(from), substring_for: None, .. } if is_text(from) => {
            Some(call("substring_of_pattern", vec![expr.as_ref().clone(), from.as_ref().clone()]))
        }
        Expr::Interval(interval) => interval_literal(interval),
        Expr::Function(function) => aggregates::rewrite(function),
        _ => None,
    };
    if let Some(rewritten) = rewritten {
        *expr = rewritten;
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

fn is_text(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_)))
}

/// A call of a function of ours or of DataFusion's.
pub(crate) fn call(name: &str, args: Vec<Expr>) -> Expr {
    let args = args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect();
    let list = ast::FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() };
    Expr::Function(ast::Function {
        name: ast::ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(list),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

fn cast(expr: Expr, data_type: ast::DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}

/// A number beyond all decimals is a float.
fn large_number(value: &Value) -> Option<Expr> {
    let Value::Number(text, _) = value else { return None };
    let text = text.replace('_', "");
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((&text, "0"));
    let exponent: i64 = exponent.parse().unwrap_or(i64::MAX / 2);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let count = |digits: &str| i64::try_from(digits.len()).unwrap_or(i64::MAX / 4);
    let scale = (count(fraction) - exponent).max(0);
    let before = (count(whole.trim_start_matches('0')) + exponent).max(0);
    let large = before + scale > 38;
    large.then(|| cast(Expr::value(Value::SingleQuotedString(text.clone())), ast::DataType::DoublePrecision))
}

fn unary(op: UnaryOperator, expr: &Expr) -> Option<Expr> {
    let name = match op {
        UnaryOperator::PGAbs => "abs",
        UnaryOperator::PGSquareRoot => "sqrt",
        UnaryOperator::PGCubeRoot => "cbrt",
        UnaryOperator::BitwiseNot => {
            let (left, right) = (Expr::value(Value::Number("-1".into(), false)), expr.clone());
            let left = Box::new(Expr::Nested(Box::new(left)));
            return Some(Expr::Nested(Box::new(Expr::BinaryOp {
                left,
                op: BinaryOperator::Minus,
                right: Box::new(Expr::Nested(Box::new(right))),
            })));
        }
        _ => return None,
    };
    Some(call(name, vec![expr.clone()]))
}

/// Fields that are numbers with a fraction, or that DataFusion does not know.
fn extract(field: &DateTimeField, expr: &Expr) -> Option<Expr> {
    let name = match field.to_string().to_ascii_lowercase().trim_matches('\'') {
        "epoch" => "extract_epoch",
        "second" | "seconds" => "extract_second",
        "millisecond" | "milliseconds" => "extract_milliseconds",
        "microsecond" | "microseconds" => "extract_microseconds",
        "century" => "extract_century",
        "millennium" => "extract_millennium",
        "decade" => "extract_decade",
        "julian" => "extract_julian",
        _ => return None,
    };
    Some(call(name, vec![expr.clone()]))
}

/// Intervals in forms that only PostgreSQL reads, in one that all read.
fn interval_literal(interval: &ast::Interval) -> Option<Expr> {
    let Expr::Value(value) = interval.value.as_ref() else { return None };
    let (Value::SingleQuotedString(text), None | Some(DateTimeField::Year)) = (&value.value, &interval.leading_field)
    else {
        return None;
    };
    let months = interval.leading_field.is_some();
    if months && interval.last_field != Some(DateTimeField::Month) {
        return None;
    }
    // What Arrow reads too stays as it is written.
    if !months && !text.contains([':', '-']) && !text.trim_start().starts_with(['P', 'p']) {
        return None;
    }
    let parsed = parse_interval(text)?;
    let text = format!("{} months {} days {} nanoseconds", parsed.months, parsed.days, parsed.nanoseconds);
    let plain = ast::Interval {
        value: Box::new(Expr::value(Value::SingleQuotedString(text))),
        leading_field: None,
        leading_precision: None,
        last_field: None,
        fractional_seconds_precision: None,
    };
    // A sign before it is not to become a part of its text.
    Some(Expr::Nested(Box::new(Expr::Interval(plain))))
}

/// Functions that DataFusion knows by another name.
fn rename(function: &mut ast::Function) {
    let [part] = function.name.0.as_slice() else { return };
    let Some(ident) = part.as_ident().filter(|ident| ident.quote_style.is_none()) else { return };
    let FunctionArguments::List(list) = &mut function.args else { return };
    let name = match ident.value.to_ascii_lowercase().as_str() {
        "ceiling" => "ceil",
        "every" => "bool_and",
        "variance" => "var_samp",
        "array_remove" => "array_remove_all",
        "array_replace" => "array_replace_all",
        "gen_random_uuid" => "uuid",
        "age" if list.args.len() == 2 => "age_between",
        "date_trunc" if list.args.len() == 3 => "date_trunc_in_zone",
        "make_interval" => {
            order_interval_args(&mut list.args);
            return;
        }
        _ => return,
    };
    let span = ident.span;
    function.name = ast::ObjectName::from(vec![Ident { value: name.into(), quote_style: None, span }]);
}

/// `make_interval(days => 10)` with all arguments at their places.
fn order_interval_args(args: &mut Vec<FunctionArg>) {
    const NAMES: [&str; 7] = ["years", "months", "weeks", "days", "hours", "mins", "secs"];
    if !args.iter().any(|arg| matches!(arg, FunctionArg::Named { .. } | FunctionArg::ExprNamed { .. })) {
        return;
    }
    let zero = || FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::value(Value::Number("0".into(), false))));
    let mut placed: Vec<FunctionArg> = NAMES.iter().map(|_| zero()).collect();
    for (i, arg) in args.iter().enumerate() {
        let (place, value) = match arg {
            FunctionArg::Named { name, arg, .. } => {
                (NAMES.iter().position(|known| name.value.eq_ignore_ascii_case(known)), arg)
            }
            FunctionArg::ExprNamed { name, arg, .. } => {
                (NAMES.iter().position(|known| name.to_string().eq_ignore_ascii_case(known)), arg)
            }
            FunctionArg::Unnamed(arg) => (Some(i), arg),
        };
        // An unknown name is left for the planner to refuse.
        let Some(slot) = place.and_then(|place| placed.get_mut(place)) else { return };
        *slot = FunctionArg::Unnamed(value.clone());
    }
    *args = placed;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::expression_of;

    fn planned(text: &str) -> String {
        for_planning(expression_of(text).expect("an expression")).to_string()
    }

    #[test]
    fn forms_of_postgres_become_calls() {
        assert_eq!(planned("ts AT TIME ZONE 'UTC'"), "timezone('UTC', ts)");
        assert_eq!(planned("extract(epoch from ts)"), "extract_epoch(ts)");
        assert_eq!(planned("a NOT SIMILAR TO 'x%'"), "NOT similar_to(a, 'x%')");
        assert_eq!(planned("1e300"), "CAST('1e300' AS DOUBLE PRECISION)");
        assert_eq!(planned("1.5e3 + 0.001"), "1.5e3 + 0.001");
        assert_eq!(planned("(a, b) = (1, 2)"), "(a = 1 AND b = 2)");
        assert_eq!(planned("(a, b) < (1, 2)"), "(a < 1 OR (a = 1 AND b < 2))");
        assert_eq!(planned("(a, b) IN ((1, 2), (3, 4))"), "((a = 1 AND b = 2) OR (a = 3 AND b = 4))");
        assert_eq!(planned("make_interval(days => 10)"), "make_interval(0, 0, 0, 10, 0, 0, 0)");
    }
}
