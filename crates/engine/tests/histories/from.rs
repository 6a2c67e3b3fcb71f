//! What stands in `FROM`.

use super::expression::{Column, Type};
use super::query::{Maker, Source};

impl Maker<'_> {
    /// Something in `FROM` with the columns that it brings into scope.
    pub fn from(&mut self, depth: usize) -> (String, Vec<Column>) {
        match self.random.below(8) {
            0..3 => self.join(depth),
            3 => self.shared_columns(),
            4 if depth > 0 => self.subquery(depth - 1),
            5 if self.one_in(4) => self.values(),
            6 if self.one_in(8) => {
                let ((left, mut columns), (right, others)) = (self.named(), self.named());
                columns.extend(others);
                (format!("{left}, {right}"), columns)
            }
            _ => self.named(),
        }
    }

    /// One of the first half more often: there are the tables, and views have fewer rows.
    fn source(&mut self) -> Source {
        let most = if self.one_in(2) { self.sources.len() } else { self.sources.len().div_ceil(2) };
        self.sources[self.random.below(most)].clone()
    }

    /// A table or view.
    pub fn named(&mut self) -> (String, Vec<Column>) {
        let source = self.source();
        let alias = self.alias();
        (format!("{} AS {alias}", source.sql), in_scope(&alias, &source.columns))
    }

    fn subquery(&mut self, depth: usize) -> (String, Vec<Column>) {
        let query = self.query(depth);
        let alias = self.alias();
        let columns: Vec<Column> = query.types.iter().enumerate().map(|(i, of)| (format!("c{i}"), *of)).collect();
        let scope = in_scope(&alias, &columns);
        if scope.is_empty() { self.named() } else { (format!("({}) AS {alias}", query.sql), scope) }
    }

    fn values(&mut self) -> (String, Vec<Column>) {
        let types = [*self.pick(&[Type::Int, Type::Bigint]), *self.pick(&[Type::Text, Type::Date])];
        let alias = self.alias();
        let rows: Vec<String> = (0..1 + self.random.below(3))
            .map(|_| format!("({}, {})", types[0].constant(self.random), types[1].constant(self.random)))
            .collect();
        let columns = [("p".to_string(), types[0]), ("q".to_string(), types[1])];
        (format!("(VALUES {}) AS {alias} (p, q)", rows.join(", ")), in_scope(&alias, &columns))
    }

    fn join(&mut self, depth: usize) -> (String, Vec<Column>) {
        let deeper = depth > 0 && self.one_in(3);
        let (left, mut columns) = match self.random.below(2) {
            0 if deeper => self.join(depth - 1),
            _ if deeper => self.subquery(depth - 1),
            _ => self.named(),
        };
        let (right, others) = self.named();
        if self.one_in(12) {
            columns.extend(others);
            return (format!("{left} CROSS JOIN {right}"), columns);
        }
        let kind = *self.pick(&["JOIN", "JOIN", "LEFT JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
        let condition = self.join_condition(&columns, &others, kind == "FULL JOIN");
        columns.extend(others);
        (format!("{left} {kind} {right} ON {condition}"), columns)
    }

    /// Mostly an equality; a full join has to have one, as PostgreSQL wants it.
    pub fn join_condition(&mut self, left: &[Column], right: &[Column], equal: bool) -> String {
        // Subqueries in the conditions of outer joins are refused.
        let nested = std::mem::take(&mut self.nested);
        let condition = self.plain_condition(left, right, equal);
        self.nested = nested;
        condition
    }

    fn plain_condition(&mut self, left: &[Column], right: &[Column], equal: bool) -> String {
        let pairs: Vec<(String, String)> = left
            .iter()
            .flat_map(|l| right.iter().map(move |r| (l, r)))
            .filter(|(l, r)| l.1 == r.1 && l.1 != Type::Other)
            .map(|(l, r)| (l.0.clone(), r.0.clone()))
            .collect();
        let all = [left, right].concat();
        if pairs.is_empty() {
            return if equal { "1 = 1".to_string() } else { self.predicate(&all, 1) };
        }
        let (l, r) = self.pick(&pairs).clone();
        let mut condition = match self.random.below(6) {
            0 if !equal => format!("{l} {} {r}", self.comparison()),
            1 if !equal => format!("{l} IS NOT DISTINCT FROM {r}"),
            _ => format!("{l} = {r}"),
        };
        if self.one_in(4) {
            let (l, r) = self.pick(&pairs).clone();
            let operator = if self.one_in(2) { "=" } else { self.comparison() };
            condition = format!("{condition} AND {l} {operator} {r}");
        }
        if self.one_in(4) {
            condition = format!("{condition} AND {}", self.predicate(&all, 1));
        }
        condition
    }

    /// `USING` or `NATURAL`, where two sources have columns of one name and type.
    fn shared_columns(&mut self) -> (String, Vec<Column>) {
        let (left, right) = (self.source(), self.source());
        let (l, r) = (self.alias(), self.alias());
        let of = |source: &Source, name: &str| source.columns.iter().find(|c| c.0 == name).map(|c| c.1);
        let names: Vec<&Column> = left.columns.iter().filter(|c| of(&right, &c.0).is_some()).collect();
        let usable = |c: &&Column| of(&right, &c.0) == Some(c.1) && !matches!(c.1, Type::Other | Type::Inexact);
        let common: Vec<Column> = names.iter().copied().filter(usable).cloned().collect();
        if common.is_empty() {
            return (format!("{} AS {l}", left.sql), in_scope(&l, &left.columns));
        }
        let natural = common.len() == names.len() && self.one_in(2);
        let shared = if natural { common } else { vec![self.pick(&common).clone()] };
        let kind = *self.pick(&["JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
        let own = |source: &Source| -> Vec<Column> {
            source.columns.iter().filter(|c| !shared.iter().any(|s| s.0 == c.0)).cloned().collect()
        };
        let scope = [shared.clone(), in_scope(&l, &own(&left)), in_scope(&r, &own(&right))].concat();
        let (word, using) = match natural {
            true => ("NATURAL ", String::new()),
            false => ("", format!(" USING ({})", shared[0].0)),
        };
        (format!("{} AS {l} {word}{kind} {} AS {r}{using}", left.sql, right.sql), scope)
    }
}

/// Columns under an alias; inexact ones are not for use.
fn in_scope(alias: &str, columns: &[Column]) -> Vec<Column> {
    let exact = columns.iter().filter(|c| c.1 != Type::Inexact);
    exact.map(|(name, of)| (format!("{alias}.{name}"), *of)).collect()
}
