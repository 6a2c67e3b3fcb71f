//! Expressions of known types that have an answer for every row.

use super::random::Random;

/// What a column or expression is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Int,
    Bigint,
    Text,
    Double,
    Decimal,
    Timestamp,
    Bool,
    /// Of a type that is only passed on.
    Other,
}

/// What tables' columns are.
pub const STORED: [Type; 7] =
    [Type::Int, Type::Bigint, Type::Text, Type::Double, Type::Decimal, Type::Timestamp, Type::Bool];

/// A column in scope: how it is written, and what it is.
pub type Column = (String, Type);

impl Type {
    /// As `CREATE TABLE` writes it.
    pub fn sql(self) -> &'static str {
        match self {
            Type::Int => "int",
            Type::Bigint => "bigint",
            Type::Text | Type::Other => "text",
            Type::Double => "double precision",
            Type::Decimal => "decimal(12, 2)",
            Type::Timestamp => "timestamp",
            Type::Bool => "boolean",
        }
    }

    /// A constant out of few, so that values meet.
    pub fn constant(self, random: &mut Random) -> String {
        let n = random.below(6) as i64;
        match self {
            Type::Int | Type::Bigint => (n - 1).to_string(),
            Type::Text | Type::Other => ["''", "'a'", "'b'", "'ab'", "'B'", "'ä'"][n as usize].to_string(),
            // Sums of these are exact in whatever order they are made.
            Type::Double => format!("{}", (n - 2) as f64 * 0.25),
            Type::Decimal => format!("{}.{}5", n - 2, n),
            Type::Timestamp => format!("timestamp '2024-0{}-01 0{n}:30:00'", 1 + n % 2),
            Type::Bool => (n % 2 == 0).to_string(),
        }
    }
}

fn column_of(random: &mut Random, scope: &[Column], of: Type) -> Option<String> {
    let fitting: Vec<&Column> = scope.iter().filter(|c| c.1 == of).collect();
    if fitting.is_empty() { None } else { Some(fitting[random.below(fitting.len())].0.clone()) }
}

/// An expression of a type.
pub fn expression(random: &mut Random, scope: &[Column], of: Type, depth: usize) -> String {
    let plain = depth == 0 || random.below(3) == 0;
    if let Some(column) = column_of(random, scope, of).filter(|_| plain || of == Type::Other) {
        return column;
    }
    if plain {
        return of.constant(random);
    }
    match random.below(4) {
        0 => conditional(random, scope, of, depth - 1),
        1 => format!("coalesce({}, {})", expression(random, scope, of, depth - 1), of.constant(random)),
        _ => own(random, scope, of, depth - 1),
    }
}

fn conditional(random: &mut Random, scope: &[Column], of: Type, depth: usize) -> String {
    let condition = predicate(random, scope, depth);
    let (yes, no) = (expression(random, scope, of, depth), expression(random, scope, of, depth));
    match random.below(3) {
        0 => format!("nullif({yes}, {})", of.constant(random)),
        1 => format!("CASE WHEN {condition} THEN {yes} END"),
        _ => format!("CASE WHEN {condition} THEN {yes} ELSE {no} END"),
    }
}

/// What only expressions of this type have.
fn own(random: &mut Random, scope: &[Column], of: Type, depth: usize) -> String {
    let choice = random.below(4);
    let mut of_type = |t: Type| expression(random, scope, t, depth);
    match (of, choice) {
        (Type::Int, 0) => format!("length({})", of_type(Type::Text)),
        (Type::Int, 1) => format!("({} % 3)", of_type(Type::Int)),
        (Type::Bigint, 0) => format!("({})::bigint", of_type(Type::Int)),
        (Type::Int | Type::Bigint, _) => format!("({} + {})", of_type(of), of_type(of)),
        (Type::Double, 0) => format!("({})::double precision", of_type(Type::Int)),
        (Type::Double, 1) => format!("abs({})", of_type(of)),
        (Type::Double | Type::Decimal, 2) => format!("(- {})", of_type(of)),
        (Type::Double, _) => format!("({} * 2 - {})", of_type(of), of_type(of)),
        (Type::Decimal, _) => format!("({} + {})::decimal(12, 2)", of_type(of), of_type(of)),
        (Type::Text, 0) => format!("upper({})", of_type(of)),
        (Type::Text, 1) => format!("({})::text", of_type(Type::Int)),
        (Type::Text, 2) => format!("substr({}, 1, 2)", of_type(of)),
        (Type::Text | Type::Other, _) => format!("({} || {})", of_type(Type::Text), of_type(Type::Text)),
        (Type::Timestamp, 0 | 1) => format!("date_trunc('month', {})", of_type(of)),
        (Type::Timestamp, _) => format!("({} + interval '1 hour')", of_type(of)),
        (Type::Bool, _) => format!("({})", predicate(random, scope, depth)),
    }
}

/// A condition.
pub fn predicate(random: &mut Random, scope: &[Column], depth: usize) -> String {
    let of = STORED[random.below(STORED.len())];
    let left = expression(random, scope, of, depth.saturating_sub(1));
    let operator = ["=", "<>", "<", "<=", ">", ">="][random.below(6)];
    let constant = of.constant(random);
    match random.below(if depth == 0 { 5 } else { 9 }) {
        0 => format!("{left} IS NULL"),
        1 => format!("{left} IS NOT NULL"),
        2 => format!("{left} IN ({constant}, {})", of.constant(random)),
        3 => format!("{left} IS DISTINCT FROM {constant}"),
        4 if of == Type::Text => format!("{left} LIKE '%a%'"),
        4 => format!("{left} BETWEEN {constant} AND {}", of.constant(random)),
        5 => format!("({} AND {})", predicate(random, scope, depth - 1), predicate(random, scope, depth - 1)),
        6 => format!("({} OR {})", predicate(random, scope, depth - 1), predicate(random, scope, depth - 1)),
        7 => format!("(NOT {})", predicate(random, scope, depth - 1)),
        _ => format!("{left} {operator} {}", expression(random, scope, of, depth - 1)),
    }
}
