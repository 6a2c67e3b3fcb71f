//! Expressions of known types that have an answer for every row.

use super::query::Maker;
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
    Date,
    Bool,
    /// Of a type that is only passed on.
    Other,
    /// A number whose last digits are nobody's promise: it is shown, and nothing is made from it.
    Inexact,
}

/// What tables' columns are.
pub const STORED: [Type; 8] =
    [Type::Int, Type::Bigint, Type::Text, Type::Double, Type::Decimal, Type::Timestamp, Type::Date, Type::Bool];

/// A column in scope: how it is written, and what it is.
pub type Column = (String, Type);

impl Type {
    /// As `CREATE TABLE` writes it.
    pub fn sql(self) -> &'static str {
        match self {
            Type::Int => "int",
            Type::Bigint => "bigint",
            Type::Text | Type::Other => "text",
            Type::Double | Type::Inexact => "double precision",
            Type::Decimal => "decimal(12, 2)",
            Type::Timestamp => "timestamp",
            Type::Date => "date",
            Type::Bool => "boolean",
        }
    }

    /// A value out of few, so that values meet, as `INSERT` takes it.
    pub fn value(self, random: &mut Random) -> String {
        let n = random.below(6) as i64;
        match self {
            Type::Int | Type::Bigint => (n - 1).to_string(),
            Type::Text | Type::Other => ["''", "'a'", "'b'", "'ab'", "'B'", "'ä'"][n as usize].to_string(),
            // Sums of these are exact in whatever order they are made.
            Type::Double | Type::Inexact => format!("{}", (n - 2) as f64 * 0.25),
            Type::Decimal => format!("{}.{}5", n - 2, n),
            Type::Timestamp => format!("timestamp '2024-0{}-01 0{n}:30:00'", 1 + n % 2),
            Type::Date => format!("date '2024-0{}-1{n}'", 1 + n % 3),
            Type::Bool => (n % 2 == 0).to_string(),
        }
    }

    /// A constant of exactly this type.
    pub fn constant(self, random: &mut Random) -> String {
        let value = self.value(random);
        match self {
            Type::Bigint | Type::Double | Type::Decimal => format!("CAST({value} AS {})", self.sql()),
            _ => value,
        }
    }
}

impl Maker<'_> {
    fn column_of(&mut self, scope: &[Column], of: Type) -> Option<String> {
        let fitting: Vec<&Column> = scope.iter().filter(|c| c.1 == of).collect();
        if fitting.is_empty() { None } else { Some(fitting[self.random.below(fitting.len())].0.clone()) }
    }

    /// One of some types, mostly one that is there.
    pub fn present(&mut self, scope: &[Column], types: &[Type]) -> Type {
        let there: Vec<Type> = scope.iter().map(|c| c.1).filter(|of| types.contains(of)).collect();
        if there.is_empty() || self.one_in(5) { *self.pick(types) } else { *self.pick(&there) }
    }

    /// An expression of a type.
    pub fn expression(&mut self, scope: &[Column], of: Type, depth: usize) -> String {
        let plain = depth == 0 || self.one_in(3);
        if let Some(column) = self.column_of(scope, of).filter(|_| plain || of == Type::Other) {
            return column;
        }
        if plain {
            return if self.one_in(12) { format!("CAST(NULL AS {})", of.sql()) } else { of.constant(self.random) };
        }
        match self.random.below(6) {
            0 => self.conditional(scope, of, depth - 1),
            1 => format!("coalesce({}, {})", self.expression(scope, of, depth - 1), of.constant(self.random)),
            2 if self.nested > 0 && self.one_in(3) => self.scalar_subquery(scope, of),
            _ => self.own(scope, of, depth - 1),
        }
    }

    fn conditional(&mut self, scope: &[Column], of: Type, depth: usize) -> String {
        let condition = self.predicate(scope, depth);
        let (yes, no) = (self.expression(scope, of, depth), self.expression(scope, of, depth));
        match self.random.below(4) {
            0 => format!("nullif({yes}, {})", of.constant(self.random)),
            1 => format!("CASE WHEN {condition} THEN {yes} END"),
            2 => {
                let by = *self.pick(&[Type::Int, Type::Text]);
                let (value, one, two) =
                    (self.expression(scope, by, depth), by.constant(self.random), by.constant(self.random));
                format!("CASE {value} WHEN {one} THEN {yes} WHEN {two} THEN {no} END")
            }
            _ => format!("CASE WHEN {condition} THEN {yes} ELSE {no} END"),
        }
    }

    /// What only expressions of this type have.
    fn own(&mut self, scope: &[Column], of: Type, depth: usize) -> String {
        let choice = self.random.below(8);
        match of {
            Type::Int => self.own_int(scope, depth, choice),
            Type::Bigint => self.own_bigint(scope, depth, choice),
            Type::Double => self.own_double(scope, depth, choice),
            Type::Decimal => self.own_decimal(scope, depth, choice),
            Type::Text => self.own_text(scope, depth, choice),
            Type::Timestamp | Type::Date => self.own_time(scope, of, depth, choice),
            Type::Bool => format!("({})", self.predicate(scope, depth)),
            Type::Other | Type::Inexact => self.expression(scope, Type::Text, depth),
        }
    }

    fn own_int(&mut self, scope: &[Column], depth: usize, choice: usize) -> String {
        let mut of_type = |t: Type| self.expression(scope, t, depth);
        match choice {
            0 => format!("length({})", of_type(Type::Text)),
            1 => format!("({} % 3)", of_type(Type::Int)),
            2 => format!("({} / nullif({}, 0))", of_type(Type::Int), of_type(Type::Int)),
            3 => format!("(({} * {}) % 7)", of_type(Type::Int), of_type(Type::Int)),
            4 => format!("CAST({} AS int)", of_type(Type::Decimal)),
            5 => format!("CAST(extract(month FROM {}) AS int)", of_type(Type::Timestamp)),
            6 => format!("(ARRAY[{}, {}])[2]", of_type(Type::Int), of_type(Type::Int)),
            _ => format!("({} - {})", of_type(Type::Int), of_type(Type::Int)),
        }
    }

    fn own_bigint(&mut self, scope: &[Column], depth: usize, choice: usize) -> String {
        let mut of_type = |t: Type| self.expression(scope, t, depth);
        match choice {
            0 | 1 => format!("CAST({} AS bigint)", of_type(Type::Int)),
            2 => format!("abs({})", of_type(Type::Bigint)),
            3 => format!("CAST({} AS bigint)", of_type(Type::Double)),
            _ => format!("({} + {})", of_type(Type::Bigint), of_type(Type::Bigint)),
        }
    }

    fn own_double(&mut self, scope: &[Column], depth: usize, choice: usize) -> String {
        let mut of_type = |t: Type| self.expression(scope, t, depth);
        match choice {
            0 => format!("CAST({} AS double precision)", of_type(Type::Int)),
            1 => format!("abs({})", of_type(Type::Double)),
            2 => format!("(- {})", of_type(Type::Double)),
            3 => format!("floor({})", of_type(Type::Double)),
            _ => format!("({} * 2 - {})", of_type(Type::Double), of_type(Type::Double)),
        }
    }

    fn own_decimal(&mut self, scope: &[Column], depth: usize, choice: usize) -> String {
        let mut of_type = |t: Type| self.expression(scope, t, depth);
        match choice {
            0 => format!("(- {})", of_type(Type::Decimal)),
            1 => format!("CAST({} AS decimal(12, 2))", of_type(Type::Int)),
            2 => format!("CAST({} * {} AS decimal(12, 2))", of_type(Type::Decimal), of_type(Type::Int)),
            _ => format!("CAST({} + {} AS decimal(12, 2))", of_type(Type::Decimal), of_type(Type::Decimal)),
        }
    }

    fn own_text(&mut self, scope: &[Column], depth: usize, choice: usize) -> String {
        let mut of_type = |t: Type| self.expression(scope, t, depth);
        match choice {
            0 => format!("upper({})", of_type(Type::Text)),
            1 => format!("CAST({} AS text)", of_type(Type::Int)),
            2 => format!("substr({}, 1, 2)", of_type(Type::Text)),
            3 => format!("replace({}, 'a', 'bb')", of_type(Type::Text)),
            4 => format!("lower(trim({}))", of_type(Type::Text)),
            5 => format!("CAST({} AS text)", of_type(Type::Date)),
            _ => format!("({} || {})", of_type(Type::Text), of_type(Type::Text)),
        }
    }

    fn own_time(&mut self, scope: &[Column], of: Type, depth: usize, choice: usize) -> String {
        let mut of_type = |t: Type| self.expression(scope, t, depth);
        match (of, choice) {
            (Type::Timestamp, 0..3) => format!("date_trunc('month', {})", of_type(of)),
            (Type::Timestamp, 3 | 4) => format!("CAST({} AS timestamp)", of_type(Type::Date)),
            (Type::Timestamp, _) => format!("({} + interval '1 hour')", of_type(of)),
            (_, 0..3) => format!("CAST({} AS date)", of_type(Type::Timestamp)),
            _ => format!("CAST({} + interval '1 month' AS date)", of_type(Type::Date)),
        }
    }

    /// A condition.
    pub fn predicate(&mut self, scope: &[Column], depth: usize) -> String {
        if self.nested > 0 && depth > 0 && self.one_in(5) {
            return self.subquery_predicate(scope);
        }
        let of = self.present(scope, &STORED);
        let left = self.expression(scope, of, depth.saturating_sub(1));
        let constant = of.constant(self.random);
        let other = of.constant(self.random);
        match self.random.below(if depth == 0 { 9 } else { 15 }) {
            0 => format!("{left} IS NULL"),
            1 => format!("{left} IS NOT NULL"),
            2 => format!("{left} IN ({constant}, {other})"),
            3 => format!("{left} NOT IN ({constant}, {})", if self.one_in(4) { "NULL" } else { other.as_str() }),
            4 => format!("{left} IS {}DISTINCT FROM {constant}", self.pick(&["", "NOT "])),
            5 | 6 if of == Type::Text => {
                let (no, like) = (*self.pick(&["", "NOT "]), *self.pick(&["LIKE", "LIKE", "ILIKE"]));
                format!("{left} {no}{like} {}", self.pick(&["'%a%'", "'_'", "'a%'", "'%B'", "'%'"]))
            }
            5 => format!("{left} BETWEEN {constant} AND {other}"),
            6 => format!("{left} NOT BETWEEN {constant} AND {other}"),
            7 | 8 => format!("{left} {} {constant}", self.comparison()),
            9 => format!("({} AND {})", self.predicate(scope, depth - 1), self.predicate(scope, depth - 1)),
            10 => format!("({} OR {})", self.predicate(scope, depth - 1), self.predicate(scope, depth - 1)),
            11 => format!("(NOT {})", self.predicate(scope, depth - 1)),
            12 => {
                let test = *self.pick(&["TRUE", "NOT TRUE", "FALSE", "NOT FALSE", "UNKNOWN"]);
                format!("({}) IS {test}", self.predicate(scope, depth - 1))
            }
            _ => format!("{left} {} {}", self.comparison(), self.expression(scope, of, depth - 1)),
        }
    }

    /// A comparison operator.
    pub fn comparison(&mut self) -> &'static str {
        self.pick::<&str>(&["=", "<>", "<", "<=", ">", ">="])
    }
}
