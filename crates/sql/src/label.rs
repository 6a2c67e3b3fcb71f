//! Expressions for people: DataFusion's text without the types of constants.

use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Expr, binary_expr};

use crate::numeric;

/// An expression as the user might have written it.
pub(crate) fn label(expr: &Expr) -> String {
    match expr {
        Expr::Alias(alias) => label(&alias.expr),
        Expr::AggregateFunction(call) => aggregate(call),
        other => tidy(&readable(other).human_display().to_string()),
    }
}

/// Arithmetic as operators again, without the casts to a common type.
fn readable(expr: &Expr) -> Expr {
    let rewritten = expr.clone().transform_up(|expr| {
        let Expr::ScalarFunction(call) = &expr else { return Ok(Transformed::no(expr)) };
        let (Some(op), [left, right]) = (numeric::operator(call), call.args.as_slice()) else {
            return Ok(Transformed::no(expr));
        };
        Ok(Transformed::yes(binary_expr(operand(left), op, operand(right))))
    });
    rewritten.map_or_else(|_| expr.clone(), |rewritten| rewritten.data)
}

fn operand(expr: &Expr) -> Expr {
    match expr {
        // Once planned, what is named keeps the name that it had.
        Expr::Alias(alias) => Expr::Column(Column::new_unqualified(alias.name.clone())),
        Expr::Cast(cast) if cast.field.data_type().is_numeric() && !matches!(*cast.expr, Expr::Cast(_)) => {
            operand(&cast.expr)
        }
        other => other.clone(),
    }
}

fn aggregate(call: &AggregateFunction) -> String {
    let params = &call.params;
    let args: Vec<_> = params.args.iter().map(label).collect();
    let distinct = if params.distinct { "DISTINCT " } else { "" };
    let star = call.func.name() == "count" && matches!(params.args.as_slice(), [Expr::Literal(..)]);
    let args = if star { "*".to_string() } else { args.join(", ") };
    let order: Vec<_> = params.order_by.iter().map(|s| tidy(&s.to_string())).collect();
    let order = if order.is_empty() { String::new() } else { format!(" ORDER BY {}", order.join(", ")) };
    let filter = params.filter.as_deref().map(|f| format!(" FILTER (WHERE {})", label(f))).unwrap_or_default();
    format!("{}({distinct}{args}{order}){filter}", call.func.name())
}

/// Names in which DataFusion wraps constants.
const TYPES: &[&str] = &[
    "Utf8", "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float32", "Float64", "Boolean",
];

/// `price < Int64(100)` as `price < 100`, `Utf8("x")` as `'x'`, intervals in seconds.
pub(crate) fn tidy(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let fresh = !out.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if let Some((written, after)) = Some(rest).filter(|_| fresh).and_then(constant) {
            out.push_str(&written);
            rest = after;
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

/// A wrapped constant at the beginning of a text: how to write it, and what follows.
fn constant(text: &str) -> Option<(String, &str)> {
    let wrapped = text.strip_prefix("IntervalMonthDayNano(\"");
    if let Some(inner) = wrapped.unwrap_or(text).strip_prefix("IntervalMonthDayNano { ") {
        let (fields, after) = inner.split_once(if wrapped.is_some() { " }\")" } else { " }" })?;
        let number = |name: &str| fields.split(", ").find_map(|f| f.strip_prefix(name)?.parse::<i64>().ok());
        let (months, days, nanos) = (number("months: ")?, number("days: ")?, number("nanoseconds: ")?);
        return Some((interval(months, days, nanos), after));
    }
    if let Some((written, after)) = text.strip_prefix("Decimal128(").and_then(|t| t.split_once(')')) {
        let (value, _) = written.split_once(',').filter(|(value, _)| !value.contains('('))?;
        return Some((value.to_string(), after));
    }
    let after_type = TYPES.iter().find_map(|t| text.strip_prefix(t)?.strip_prefix('('))?;
    if let Some(quoted) = after_type.strip_prefix('"') {
        let end = quoted.find("\")")?;
        return Some((format!("'{}'", &quoted[..end]), &quoted[end + 2..]));
    }
    let (value, after) = after_type.split_once(')')?;
    Some((value.to_string(), after))
}

fn interval(months: i64, days: i64, nanos: i64) -> String {
    let mut parts = Vec::new();
    if months != 0 {
        parts.push(format!("{months} months"));
    }
    if days != 0 {
        parts.push(format!("{days} days"));
    }
    if nanos != 0 || parts.is_empty() {
        #[allow(clippy::cast_precision_loss)]
        let seconds = nanos as f64 / 1e9;
        parts.push(format!("{seconds} seconds"));
    }
    format!("interval '{}'", parts.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_lose_their_types() {
        assert_eq!(tidy("f(a, Utf8(\"x y\")) < Int64(-10)"), "f(a, 'x y') < -10");
        assert_eq!(tidy("a * Decimal128(-0.908,3,3) < Decimal128(12,2,0)"), "a * -0.908 < 12");
        assert_eq!(tidy("MyInt64(1)"), "MyInt64(1)");
        let interval = "ts - IntervalMonthDayNano { months: 0, days: 1, nanoseconds: 1500000000 }";
        assert_eq!(tidy(interval), "ts - interval '1 days 1.5 seconds'");
    }
}
