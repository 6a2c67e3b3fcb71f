//! `WITH RECURSIVE` that comes to an end: of values that are there already, or of a few rounds.

use super::expression::{Column, Type};
use super::query::{Maker, Query};

impl Maker<'_> {
    /// A recursion over one or two columns of a source, and what is made of it.
    pub fn recursive(&mut self) -> Query {
        let (base, scope) = self.named();
        let usable: Vec<Column> = scope.iter().filter(|c| c.1 != Type::Other).cloned().collect();
        if usable.is_empty() {
            return self.select(0, "", None);
        }
        let columns: Vec<Column> = (0..1 + self.random.below(2)).map(|_| self.pick(&usable).clone()).collect();
        let all = self.one_in(3);
        // `UNION` of rows out of few values ends by itself, in circles too.
        let counted = all || self.one_in(3);
        let mut items: Vec<String> = columns.iter().enumerate().map(|(i, c)| format!("{} AS c{i}", c.0)).collect();
        items.extend(counted.then(|| "0 AS n".to_string()));
        let base = format!("SELECT {} FROM {base}{}", items.join(", "), self.filter(&scope));
        let (name, own) = (format!("w{}", self.alias()), self.alias());
        let types: Vec<Type> = columns.iter().map(|c| c.1).collect();
        let term = self.recursive_term(&name, &own, &types, counted);
        let word = if all { "UNION ALL" } else { "UNION" };
        let mut shown: Vec<String> = (0..types.len()).map(|i| format!("c{i}")).collect();
        let mut types = types;
        if counted && self.one_in(2) {
            shown.push(format!("n AS c{}", types.len()));
            types.push(Type::Int);
        }
        let grouped = self.one_in(3);
        if grouped {
            types.push(Type::Bigint);
        }
        let select = match grouped {
            false => format!("SELECT {} FROM {name}", shown.join(", ")),
            true => {
                let keys: Vec<String> = (1..=shown.len()).map(|i| i.to_string()).collect();
                let count = format!("count(*) AS c{}", shown.len());
                format!("SELECT {}, {count} FROM {name} GROUP BY {}", shown.join(", "), keys.join(", "))
            }
        };
        Query { sql: format!("WITH RECURSIVE {name} AS ({base} {word} {term}) {select}"), types }
    }

    /// The rows of the round before, filtered or joined with a source.
    fn recursive_term(&mut self, name: &str, own: &str, types: &[Type], counted: bool) -> String {
        let before: Vec<Column> = types.iter().enumerate().map(|(i, of)| (format!("{own}.c{i}"), *of)).collect();
        let mut scope = before.clone();
        let (mut from, mut conditions) = (format!("{name} AS {own}"), Vec::new());
        if !self.one_in(6) {
            let (other, columns) = self.named();
            let condition = self.join_condition(&before, &columns, true);
            let condition = if condition == "1 = 1" { self.predicate(&columns, 1) } else { condition };
            from = match self.random.below(5) {
                0 => format!("{from} LEFT JOIN {other} ON {condition}"),
                1 => format!("{other} JOIN {from} ON {condition}"),
                _ => format!("{from} JOIN {other} ON {condition}"),
            };
            scope.extend(columns);
        } else if self.one_in(2) {
            let (other, columns) = self.named();
            let condition = self.join_condition(&before, &columns, true);
            let not = self.pick(&["", "NOT "]);
            conditions.push(format!("{not}EXISTS (SELECT 1 FROM {other} WHERE {condition})"));
        }
        conditions.extend(counted.then(|| format!("{own}.n < 2")));
        if self.one_in(3) {
            // Subqueries might read the rows of the round before.
            let nested = std::mem::take(&mut self.nested);
            conditions.push(self.predicate(&scope, 1));
            self.nested = nested;
        }
        let items = types.iter().enumerate().map(|(i, of)| {
            let fitting: Vec<&Column> = scope.iter().filter(|c| c.1 == *of).collect();
            let picked = fitting[self.random.below(fitting.len())];
            format!("{} AS c{i}", picked.0)
        });
        let mut items: Vec<String> = items.collect();
        items.extend(counted.then(|| format!("{own}.n + 1 AS n")));
        let filter = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        format!("SELECT {} FROM {from}{filter}", items.join(", "))
    }
}
