//! Aggregates: with and without groups, and over several sets of groups.

use super::expression::{Column, Type};
use super::query::{Maker, Query};

impl Maker<'_> {
    /// Groups and aggregates.
    pub fn aggregate(&mut self, depth: usize) -> Query {
        let (from, scope) = self.from(depth);
        let (mut items, mut types, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.random.below(3) {
            let of = scope[self.random.below(scope.len())].1;
            let depth = self.random.below(2);
            // PostgreSQL does not group by expressions with subqueries in them.
            let nested = std::mem::take(&mut self.nested);
            let key = self.expression(&scope, of, depth);
            self.nested = nested;
            items.push(format!("{key} AS c{}", items.len()));
            keys.push(items.len().to_string());
            types.push(of);
        }
        self.calls(&scope, &mut items, &mut types);
        let mut sql = format!("SELECT {} FROM {from}{}", items.join(", "), self.filter(&scope));
        if !keys.is_empty() {
            sql = format!("{sql} GROUP BY {}", keys.join(", "));
        }
        Query { sql: format!("{sql}{}", self.having(&scope)), types }
    }

    fn calls(&mut self, scope: &[Column], items: &mut Vec<String>, types: &mut Vec<Type>) {
        for _ in 0..1 + self.random.below(3) {
            let (call, of) = self.call(scope);
            items.push(format!("{call} AS c{}", items.len()));
            types.push(of);
        }
    }

    fn having(&mut self, scope: &[Column]) -> String {
        if !self.one_in(4) {
            return String::new();
        }
        let (call, _) = self.call(scope);
        let condition = format!("{call} IS NOT NULL AND count(*) > {}", self.random.below(3));
        format!(" HAVING {condition}")
    }

    /// `ROLLUP`, `CUBE`, `GROUPING SETS`, with `grouping` and expressions over the keys.
    pub fn grouping_sets(&mut self, depth: usize) -> Query {
        let (from, scope) = self.from(depth);
        let mut keys: Vec<Column> = Vec::new();
        for _ in 0..1 + self.random.below(3) {
            let key = self.pick(&scope).clone();
            if !keys.iter().any(|k| k.0 == key.0) {
                keys.push(key);
            }
        }
        let names: Vec<String> = keys.iter().map(|k| k.0.clone()).collect();
        let all = names.join(", ");
        let by = match self.random.below(4) {
            0 => format!("ROLLUP ({all})"),
            1 => format!("CUBE ({all})"),
            2 => format!("GROUPING SETS (({all}), ())"),
            _ => {
                let sets: Vec<String> = names.iter().map(|n| format!("({n})")).collect();
                format!("GROUPING SETS ({})", sets.join(", "))
            }
        };
        let (mut items, mut types) = (Vec::new(), Vec::new());
        for key in &keys {
            items.push(format!("{} AS c{}", key.0, items.len()));
            types.push(key.1);
        }
        if self.one_in(3) {
            items.push(format!("grouping({all}) AS c{}", items.len()));
            types.push(Type::Int);
        }
        self.calls(&scope, &mut items, &mut types);
        let filter = self.filter(&scope);
        let sql = format!("SELECT {} FROM {from}{filter} GROUP BY {by}{}", items.join(", "), self.having(&scope));
        Query { sql, types }
    }

    /// An aggregate call and what it gives.
    pub fn call(&mut self, scope: &[Column]) -> (String, Type) {
        let nested = std::mem::take(&mut self.nested);
        let (call, of) = self.plain_call(scope);
        let filtered = match self.random.below(4) {
            0 => format!("{call} FILTER (WHERE {})", self.predicate(scope, 1)),
            _ => call,
        };
        self.nested = nested;
        (filtered, of)
    }

    fn plain_call(&mut self, scope: &[Column]) -> (String, Type) {
        let number = self.present(scope, &[Type::Int, Type::Bigint, Type::Double, Type::Decimal]);
        let ordered = [Type::Int, Type::Bigint, Type::Double, Type::Decimal, Type::Text, Type::Timestamp, Type::Date];
        let any = self.present(scope, &ordered);
        let summed = match number {
            Type::Double => Type::Double,
            Type::Int => Type::Bigint,
            _ => Type::Other,
        };
        let mut argument = |of: Type| self.expression(scope, of, 1);
        let (numeric, value, condition, text) =
            (argument(number), argument(any), argument(Type::Bool), argument(Type::Text));
        let distinct = if self.one_in(3) { "DISTINCT " } else { "" };
        match self.random.below(14) {
            0 | 1 => ("count(*)".to_string(), Type::Bigint),
            2 => (format!("count({value})"), Type::Bigint),
            3 => (format!("count(DISTINCT {value})"), Type::Bigint),
            4 => (format!("min({value})"), any),
            5 => (format!("max({value})"), any),
            6..9 => (format!("sum({distinct}{numeric})"), summed),
            9 => (format!("avg({distinct}{numeric})"), Type::Inexact),
            10 => (format!("{}({condition})", self.pick(&["bool_and", "bool_or"])), Type::Bool),
            11 => (format!("string_agg({distinct}{text}, ',' ORDER BY {text})"), Type::Text),
            12 => (format!("array_agg({distinct}{value} ORDER BY {value})"), Type::Other),
            _ => {
                let double = self.expression(scope, Type::Double, 1);
                let name = *self.pick(&["var_pop", "stddev", "var_samp", "stddev_pop"]);
                (format!("{name}({double})"), Type::Inexact)
            }
        }
    }
}
