//! Subqueries in expressions.

use super::expression::{Column, STORED, Type};
use super::query::Maker;

impl Maker<'_> {
    /// A source with a condition that ties it to the outer row, or not: `FROM`, `WHERE`, scope.
    fn inner(&mut self, outer: &[Column]) -> (String, String, Vec<Column>) {
        let (from, scope) = self.named();
        let pairs: Vec<(String, String)> = scope
            .iter()
            .flat_map(|i| outer.iter().map(move |o| (i, o)))
            .filter(|(i, o)| i.1 == o.1 && i.1 != Type::Other)
            .map(|(i, o)| (i.0.clone(), o.0.clone()))
            .collect();
        let mut conditions = Vec::new();
        if !pairs.is_empty() && !self.one_in(3) {
            let (i, o) = self.pick(&pairs).clone();
            let operator = if self.one_in(5) { self.comparison() } else { "=" };
            conditions.push(format!("{i} {operator} {o}"));
        }
        if self.one_in(3) {
            conditions.push(self.predicate(&scope, 1));
        }
        let filter = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        (from, filter, scope)
    }

    /// `EXISTS`, `IN`, a comparison with one value or all of them.
    pub fn subquery_predicate(&mut self, outer: &[Column]) -> String {
        self.nested -= 1;
        let not = *self.pick(&["", "NOT "]);
        if self.one_in(3) {
            let (from, filter, _) = self.inner(outer);
            return format!("{not}EXISTS (SELECT 1 FROM {from}{filter})");
        }
        let (from, filter, scope) = self.inner(outer);
        let stored: Vec<Column> = scope.iter().filter(|c| STORED.contains(&c.1)).cloned().collect();
        if stored.is_empty() {
            return format!("{not}EXISTS (SELECT 1 FROM {from}{filter})");
        }
        let (column, of) = self.pick(&stored).clone();
        let left = self.expression(outer, of, 1);
        match self.random.below(6) {
            0 => format!("{left} {} ALL (SELECT {column} FROM {from}{filter})", self.comparison()),
            1 => format!("{left} {} ANY (SELECT {column} FROM {from}{filter})", self.comparison()),
            2 if of != Type::Bool => {
                let call = *self.pick(&["min", "max"]);
                format!("{left} {} (SELECT {call}({column}) FROM {from}{filter})", self.comparison())
            }
            _ => format!("{left} {not}IN (SELECT {column} FROM {from}{filter})"),
        }
    }

    /// One value of a type.
    pub fn scalar_subquery(&mut self, outer: &[Column], of: Type) -> String {
        self.nested -= 1;
        let (from, filter, scope) = self.inner(outer);
        let value = self.expression(&scope, of, 1);
        let item = match of {
            Type::Bigint if self.one_in(2) => "count(*)".to_string(),
            Type::Bool => format!("{}({value})", self.pick(&["bool_and", "bool_or"])),
            Type::Double if self.one_in(2) => format!("sum({value})"),
            _ => format!("{}({value})", self.pick(&["min", "max"])),
        };
        format!("(SELECT {item} FROM {from}{filter})")
    }
}
