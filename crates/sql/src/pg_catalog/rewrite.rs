//! What clients write and DataFusion cannot plan, written otherwise.
//!
//! - `pg_catalog.f(x)` is `f(x)`, `pg_catalog.int4` is `int4`; functions without parentheses get some;
//! - `a OPERATOR(pg_catalog.~) b` is `a ~ b`; `COLLATE` falls away, as there is only one collation;
//! - `'t'::regclass` looks the number up, `oid::regclass` the name, the same for types and namespaces;
//! - a number in quotes that is compared with a column of numbers loses its quotes;
//! - a scalar subquery over system tables that depends on the outer row becomes an aggregate
//!   (`max` of its at most one row), which can be turned into a join; what it asks of the outer row alone goes outside;
//!   `ARRAY(SELECT x ...)` becomes `array_agg(x)`;
//! - a `SELECT` from a system table that never has rows here gives no rows, whatever else it does.
//!
//! Nothing here changes what a query over the user's own tables means.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, BinaryOperator, CaseWhen, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentList, FunctionArguments, GroupByExpr, Ident, JoinOperator, ObjectName, ObjectNamePart, Query,
    Select, SelectItem, SetExpr, TableFactor, Value, VisitorMut,
};

use super::{always_empty, find};

use crate::walk::{Flow, Stop, walk_mut};

/// Rewrites a query in place.
pub(crate) fn rewrite(query: &mut Query) {
    // It never stops.
    let _ = walk_mut(query, &mut Rewriter);
}

struct Rewriter;

impl VisitorMut for Rewriter {
    type Break = Stop;

    fn pre_visit_query(&mut self, query: &mut Query) -> Flow {
        if empty(&mut query.body) {
            // It may name columns that are gone.
            query.order_by = None;
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        rewrite_expr(expr);
        ControlFlow::Continue(())
    }
}

/// Empties the branches of a query that read a table without rows; whether there were any.
fn empty(body: &mut SetExpr) -> bool {
    match body {
        SetExpr::Select(select) => {
            let without_rows = select.from.iter().any(|from| {
                let inner = from.joins.iter().all(|j| inner_join(&j.join_operator));
                let left = from.joins.iter().all(|j| inner_join(&j.join_operator) || left_join(&j.join_operator));
                (left && never_has_rows(&from.relation))
                    || (inner && from.joins.iter().any(|j| never_has_rows(&j.relation)))
            });
            let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(by, _) if by.is_empty());
            if !without_rows || grouped || select.projection.iter().any(may_aggregate) {
                return false;
            }
            make_empty(select);
            true
        }
        SetExpr::SetOperation { left, right, .. } => {
            let left = empty(left);
            empty(right) || left
        }
        _ => false,
    }
}

fn inner_join(join: &JoinOperator) -> bool {
    matches!(join, JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_))
}

fn left_join(join: &JoinOperator) -> bool {
    matches!(join, JoinOperator::Left(_) | JoinOperator::LeftOuter(_))
}

/// A table's namespace and name.
fn table_name(name: &ObjectName) -> Option<(&str, &str)> {
    let parts: Vec<&str> = name.0.iter().map(|p| p.as_ident().map(|i| i.value.as_str())).collect::<Option<_>>()?;
    match parts.as_slice() {
        [name] => Some(("pg_catalog", name)),
        [.., namespace, name] => Some((namespace, name)),
        [] => None,
    }
}

fn never_has_rows(factor: &TableFactor) -> bool {
    let TableFactor::Table { name, args: None, .. } = factor else { return false };
    table_name(name).is_some_and(|(namespace, name)| always_empty(namespace, name))
}

/// `count(*)` over no rows is a row.
fn may_aggregate(item: &SelectItem) -> bool {
    let (SelectItem::UnnamedExpr(Expr::Function(f)) | SelectItem::ExprWithAlias { expr: Expr::Function(f), .. }) = item
    else {
        return matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    };
    let name = last(&f.name).to_lowercase();
    matches!(
        name.as_str(),
        "count" | "sum" | "min" | "max" | "avg" | "array_agg" | "string_agg" | "bool_or" | "bool_and"
    )
}

fn make_empty(select: &mut Select) {
    let mut names: Vec<String> = Vec::new();
    for item in &mut select.projection {
        let mut name = match item {
            SelectItem::ExprWithAlias { alias, .. } => alias.clone(),
            SelectItem::UnnamedExpr(expr) => Ident::with_quote('"', output_name(expr)),
            _ => continue,
        };
        // Names that come twice are an error.
        if names.contains(&name.value) {
            name = Ident::with_quote('"', format!("{} {}", name.value, names.len() + 1));
        }
        names.push(name.value.clone());
        let null = Expr::Value(Value::Null.into());
        let expr = cast_to(null, DataType::Text);
        *item = SelectItem::ExprWithAlias { expr, alias: name };
    }
    select.from.clear();
    select.distinct = None;
    select.selection = Some(Expr::Value(Value::Boolean(false).into()));
    select.having = None;
}

/// What PostgreSQL names a column.
fn output_name(expr: &Expr) -> String {
    match expr {
        Expr::Identifier(ident) => ident.value.clone(),
        Expr::CompoundIdentifier(parts) => parts.last().map_or_else(String::new, |i| i.value.clone()),
        Expr::Function(f) => last(&f.name),
        Expr::Cast { expr, .. } | Expr::Nested(expr) | Expr::Collate { expr, .. } => output_name(expr),
        Expr::Case { .. } => "case".into(),
        _ => "?column?".into(),
    }
}

fn last(name: &ObjectName) -> String {
    name.0.last().and_then(|p| p.as_ident()).map_or_else(String::new, |i| i.value.clone())
}

fn cast_to(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::DoubleColon, expr: Box::new(expr), data_type, array: false, format: None }
}

fn call(name: &str, args: Vec<Expr>) -> Expr {
    let args = args.into_iter().map(|e| FunctionArg::Unnamed(FunctionArgExpr::Expr(e))).collect();
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

/// Takes an expression out of its place.
fn take(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, Expr::Value(Value::Null.into()))
}

/// Whether an expression is the text of an array.
fn is_array_text(expr: &Expr) -> bool {
    match expr {
        Expr::Value(value) => matches!(&value.value, Value::SingleQuotedString(text) if text.starts_with('{')),
        _ => false,
    }
}

fn rewrite_expr(expr: &mut Expr) {
    match expr {
        Expr::Collate { expr: inner, .. } => *expr = take(inner),
        Expr::Function(function) => {
            rewrite_call(function);
            if let Some(array) = array_of(function) {
                *expr = array;
            }
        }
        Expr::BinaryOp { left, op, right } => {
            if let BinaryOperator::PGCustomBinaryOperator(parts) = op
                && let Some(plain) = parts.last().and_then(|symbol| operator(symbol))
            {
                *op = plain;
            }
            unquote(left, right);
            unquote(right, left);
            // An array compared with its text form, `polroles = '{0}'`.
            if *op == BinaryOperator::Eq && is_array_text(right) {
                **left = Expr::Cast {
                    kind: CastKind::Cast,
                    expr: Box::new(take(left)),
                    data_type: DataType::Text,
                    array: false,
                    format: None,
                };
            }
            // Every column has its type's collation, as there is only one.
            if *op == BinaryOperator::NotEq && is_column(left, "attcollation") && is_column(right, "typcollation") {
                *expr = Expr::Value(Value::Boolean(false).into());
            }
        }
        Expr::InList { expr: left, list, .. } => list.iter_mut().for_each(|item| unquote(left, item)),
        Expr::Identifier(ident) if ident.quote_style.is_none() && is_bare_function(&ident.value) => {
            *expr = call(&ident.value.to_lowercase(), Vec::new());
        }
        Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } if !matches!(**right, Expr::Subquery(_)) => {
            *expr = call("array_has", vec![take(right), take(left)]);
        }
        Expr::Cast { .. } => rewrite_cast(expr),
        Expr::Subquery(query) => {
            if let Some(condition) = aggregate(query) {
                *expr = case_when(condition, take(expr));
            }
        }
        _ => {}
    }
}

/// Functions that are called without parentheses and that the parser takes for columns.
fn is_bare_function(name: &str) -> bool {
    ["current_schema", "current_role", "session_user", "current_catalog", "current_user"]
        .iter()
        .any(|f| f.eq_ignore_ascii_case(name))
}

fn rewrite_call(function: &mut Function) {
    if let [ObjectNamePart::Identifier(namespace), _] = function.name.0.as_slice()
        && namespace.value.eq_ignore_ascii_case("pg_catalog")
    {
        function.name.0.remove(0);
    }
    let bare = ["current_user", "session_user", "current_catalog", "current_role", "current_schema", "user"];
    if matches!(function.args, FunctionArguments::None) && bare.contains(&last(&function.name).to_lowercase().as_str())
    {
        function.args = FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: Vec::new(),
            clauses: Vec::new(),
        });
    }
}

/// `ARRAY(SELECT x ...)` as a scalar subquery.
fn array_of(function: &mut Function) -> Option<Expr> {
    let FunctionArguments::Subquery(query) = &mut function.args else { return None };
    if !last(&function.name).eq_ignore_ascii_case("array") {
        return None;
    }
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    if select.from.is_empty() || select.from.iter().any(|from| unnests_nothing(&from.relation)) {
        let texts = DataType::Array(ArrayElemTypeDef::SquareBracket(Box::new(DataType::Text), None));
        return Some(cast_to(call("make_array", Vec::new()), texts));
    }
    let [SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }] = select.projection.as_mut_slice()
    else {
        return None;
    };
    *expr = call("array_agg", vec![take(expr)]);
    query.order_by = None;
    Some(Expr::Subquery(query.clone()))
}

/// `unnest(c.reloptions)`: relations have no such options here.
fn unnests_nothing(factor: &TableFactor) -> bool {
    let TableFactor::Table { name, args: Some(args), .. } = factor else { return false };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))] = args.args.as_slice() else { return false };
    last(name).eq_ignore_ascii_case("unnest") && is_column(argument, "reloptions")
}

fn operator(symbol: &str) -> Option<BinaryOperator> {
    Some(match symbol {
        "~" => BinaryOperator::PGRegexMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "!~*" => BinaryOperator::PGRegexNotIMatch,
        "~~" => BinaryOperator::PGLikeMatch,
        "~~*" => BinaryOperator::PGILikeMatch,
        "!~~" => BinaryOperator::PGNotLikeMatch,
        "!~~*" => BinaryOperator::PGNotILikeMatch,
        "=" => BinaryOperator::Eq,
        "<>" => BinaryOperator::NotEq,
        "<" => BinaryOperator::Lt,
        ">" => BinaryOperator::Gt,
        "<=" => BinaryOperator::LtEq,
        ">=" => BinaryOperator::GtEq,
        "+" => BinaryOperator::Plus,
        "-" => BinaryOperator::Minus,
        "||" => BinaryOperator::StringConcat,
        _ => return None,
    })
}

/// Columns of numbers that clients compare with numbers in quotes.
const OID_COLUMNS: [&str; 20] = [
    "oid",
    "adrelid",
    "attrelid",
    "atttypid",
    "classoid",
    "classid",
    "conrelid",
    "confrelid",
    "conindid",
    "indexrelid",
    "indrelid",
    "inhparent",
    "inhrelid",
    "objid",
    "objoid",
    "refobjid",
    "relnamespace",
    "typnamespace",
    "typrelid",
    "tgrelid",
];

/// `c.oid = '16384'` compares numbers.
fn unquote(column: &Expr, value: &mut Expr) {
    let name = match column {
        Expr::Identifier(ident) => &ident.value,
        Expr::CompoundIdentifier(parts) => match parts.last() {
            Some(ident) => &ident.value,
            None => return,
        },
        _ => return,
    };
    if OID_COLUMNS.contains(&name.to_lowercase().as_str())
        && let Some(text) = literal(value)
        && text.parse::<i64>().is_ok()
    {
        *value = Expr::Value(Value::Number(text.to_string(), false).into());
    }
}

/// The text of a literal in quotes.
fn literal(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Some(text),
            _ => None,
        },
        Expr::Nested(inner) => literal(inner),
        _ => None,
    }
}

/// The name of a type that DataFusion does not know.
fn foreign_type(data_type: &DataType) -> Option<String> {
    match data_type {
        DataType::Custom(name, _) => Some(last(name).to_lowercase()),
        DataType::Regclass => Some("regclass".into()),
        _ => None,
    }
}

fn rewrite_cast(expr: &mut Expr) {
    let Expr::Cast { expr: inner, data_type, .. } = expr else { return };
    let Some(name) = foreign_type(data_type) else {
        return shown_name(expr);
    };
    let base = name.trim_end_matches("[]");
    *expr = match base {
        "regclass" | "regtype" | "regnamespace" => {
            let inner = take(inner);
            call(&if is_constant(&inner) { format!("to_{base}") } else { format!("{base}_name") }, vec![inner])
        }
        "regproc" | "regprocedure" | "regoper" | "regrole" => call("regproc_name", vec![take(inner)]),
        _ => match plain_type(base) {
            Some(plain) => {
                *data_type = plain;
                return shown_name(expr);
            }
            None => return,
        },
    };
}

/// Whether it is text from the client: a literal, a parameter, or a value in a parameter's place.
fn is_constant(expr: &Expr) -> bool {
    match expr {
        Expr::Value(value) => matches!(value.value, Value::Placeholder(_)) || literal(expr).is_some(),
        Expr::Cast { expr: inner, .. } | Expr::Nested(inner) => is_constant(inner),
        _ => false,
    }
}

/// `to_regclass('t')::text` shows the name, not the number.
fn shown_name(expr: &mut Expr) {
    let Expr::Cast { expr: inner, data_type: DataType::Text | DataType::Varchar(_), .. } = expr else { return };
    if let Expr::Function(function) = inner.as_ref() {
        let name = last(&function.name);
        if let Some(base) = name.strip_prefix("to_reg") {
            *expr = call(&format!("reg{base}_name"), vec![take(inner)]);
        }
    }
}

/// Types of PostgreSQL's system tables, and qualified ones, as plain types.
fn plain_type(name: &str) -> Option<DataType> {
    Some(match name {
        "text" | "name" | "char" | "varchar" | "bpchar" | "character" | "citext" | "cstring" | "aclitem"
        | "unknown" => DataType::Text,
        "oid" | "xid" | "int8" | "bigint" | "cid" => DataType::BigInt(None),
        "int4" | "integer" | "int" => DataType::Integer(None),
        "int2" | "smallint" => DataType::SmallInt(None),
        "bool" | "boolean" => DataType::Boolean,
        "float8" => DataType::DoublePrecision,
        "float4" => DataType::Real,
        "numeric" => DataType::Numeric(datafusion::sql::sqlparser::ast::ExactNumberInfo::None),
        _ => return None,
    })
}

fn is_column(expr: &Expr, name: &str) -> bool {
    matches!(expr, Expr::CompoundIdentifier(parts) if parts.last().is_some_and(|p| p.value.eq_ignore_ascii_case(name)))
}

fn case_when(condition: Expr, result: Expr) -> Expr {
    Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![CaseWhen { condition, result }],
        else_result: None,
    }
}

/// Takes out of a condition what only depends on tables outside (`a.atthasdef`): it cannot become part of a join.
fn take_outer(condition: &mut Expr, inner: &[String]) -> Option<Expr> {
    match condition {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            let (a, b) = (take_outer(left, inner), take_outer(right, inner));
            match (a, b) {
                (Some(a), Some(b)) => {
                    Some(Expr::BinaryOp { left: Box::new(a), op: BinaryOperator::And, right: Box::new(b) })
                }
                (a, b) => a.or(b),
            }
        }
        Expr::CompoundIdentifier(parts) if parts.len() == 2 && !inner.contains(&parts[0].value) => {
            Some(std::mem::replace(condition, Expr::Value(Value::Boolean(true).into())))
        }
        _ => None,
    }
}

/// The name by which columns of a table are called.
fn called(factor: &TableFactor) -> Option<String> {
    let TableFactor::Table { name, alias, .. } = factor else { return None };
    Some(alias.as_ref().map_or_else(|| last(name), |a| a.name.value.clone()))
}

/// Makes an aggregate of a subquery over system tables that selects one expression. What is returned is a
/// condition on the outer row alone, under which the subquery counts.
fn aggregate(query: &mut Query) -> Option<Expr> {
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    let system = |from: &TableFactor| {
        let TableFactor::Table { name, .. } = from else { return false };
        table_name(name).is_some_and(|(namespace, name)| find(namespace, name).is_some())
    };
    let tables =
        select.from.iter().flat_map(|f| std::iter::once(&f.relation).chain(f.joins.iter().map(|j| &j.relation)));
    let ungrouped = matches!(&select.group_by, GroupByExpr::Expressions(by, _) if by.is_empty());
    if select.from.is_empty() || !tables.into_iter().all(system) || !ungrouped || select.selection.is_none() {
        return None;
    }
    let [item] = select.projection.as_mut_slice() else { return None };
    if may_aggregate(item) {
        return None;
    }
    match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => *expr = call("max", vec![take(expr)]),
        _ => return None,
    }
    let factors =
        select.from.iter().flat_map(|f| std::iter::once(&f.relation).chain(f.joins.iter().map(|j| &j.relation)));
    let inner: Vec<String> = factors.filter_map(called).collect();
    let condition = select.selection.as_mut().and_then(|selection| take_outer(selection, &inner));
    query.order_by = None;
    query.limit_clause = None;
    condition
}
