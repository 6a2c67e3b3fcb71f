//! Queries over tables, views, joins and subqueries: all that PostgreSQL and Tidemill both know.
//!
//! Every query has one right answer, as a bag of rows: rows are cut off and numbered in an order of all their
//! columns, so that rows that tie are the same.

use super::expression::{Column, STORED, Type};
use super::random::Random;

/// A table, view or subquery: what stands in `FROM`, and its columns.
#[derive(Clone, Debug)]
pub struct Source {
    pub sql: String,
    pub columns: Vec<Column>,
}

/// A query and the types of its columns, which are named c0, c1, ...
#[derive(Clone, Debug)]
pub struct Query {
    pub sql: String,
    pub types: Vec<Type>,
}

/// Makes queries over the sources given.
pub struct Maker<'a> {
    pub random: &'a mut Random,
    pub sources: Vec<Source>,
    /// For the names of sources in `FROM`.
    pub aliases: usize,
    /// Subqueries in expressions that may still be made.
    pub nested: usize,
}

impl<'a> Maker<'a> {
    /// Over these sources.
    pub fn new(random: &'a mut Random, sources: &[Source]) -> Self {
        let nested = random.below(3);
        Maker { random, sources: sources.to_vec(), aliases: 0, nested }
    }
}

impl Maker<'_> {
    /// Whether one in `n` came up.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.random.below(n) == 0
    }

    /// One of a list.
    pub fn pick<'t, T>(&mut self, list: &'t [T]) -> &'t T {
        &list[self.random.below(list.len())]
    }

    /// A name for something in `FROM`.
    pub fn alias(&mut self) -> String {
        self.aliases += 1;
        format!("s{}", self.aliases)
    }

    /// A query.
    pub fn query(&mut self, depth: usize) -> Query {
        match self.random.below(16) {
            0..3 => self.select(depth, "", None),
            3..6 => self.aggregate(depth),
            6 => self.grouping_sets(depth),
            7 => self.select(depth, "DISTINCT ", None),
            8 | 9 => self.set_operation(depth),
            10 => self.top(depth),
            11 => self.distinct_on(depth),
            12 | 13 => self.over(depth),
            14 => self.recursive(),
            _ if depth > 0 => self.with(depth - 1),
            _ => self.aggregate(depth),
        }
    }

    /// A `WHERE`, or nothing.
    pub fn filter(&mut self, scope: &[Column]) -> String {
        if self.one_in(3) { format!(" WHERE {}", self.predicate(scope, 2)) } else { String::new() }
    }

    /// Values of the types given.
    pub fn items(&mut self, scope: &[Column], types: &[Type]) -> String {
        let items = types.iter().enumerate();
        let items = items.map(|(i, of)| format!("{} AS c{i}", self.expression(scope, *of, 2)));
        items.collect::<Vec<_>>().join(", ")
    }

    /// A few types, most of them such as are there.
    pub fn types(&mut self, scope: &[Column]) -> Vec<Type> {
        let count = 1 + self.random.below(4);
        let some = |maker: &mut Self| match maker.random.below(4) {
            0 => STORED[maker.random.below(STORED.len())],
            _ => scope[maker.random.below(scope.len())].1,
        };
        (0..count).map(|_| some(self)).collect()
    }

    /// `SELECT` of expressions.
    pub fn select(&mut self, depth: usize, word: &str, types: Option<&[Type]>) -> Query {
        let (from, scope) = self.from(depth);
        let types = match types {
            Some(types) => types.to_vec(),
            None => self.types(&scope),
        };
        let items = self.items(&scope, &types);
        Query { sql: format!("SELECT {word}{items} FROM {from}{}", self.filter(&scope)), types }
    }

    /// `UNION`, `INTERSECT`, `EXCEPT`, with and without `ALL`, of two or three queries.
    fn set_operation(&mut self, depth: usize) -> Query {
        let count = 1 + self.random.below(2);
        // Few values meet in many columns.
        let types: Vec<Type> = (0..count).map(|_| STORED[self.random.below(STORED.len())]).collect();
        let mut sql = self.select(depth, "", Some(&types)).sql;
        for _ in 0..1 + self.random.below(2) {
            let word = *self.pick(&["UNION", "UNION ALL", "INTERSECT", "INTERSECT ALL", "EXCEPT", "EXCEPT ALL"]);
            let other = self.select(depth, "", Some(&types)).sql;
            sql = match self.random.below(3) {
                0 => format!("{other} {word} ({sql})"),
                1 => format!("({sql}) {word} {other}"),
                _ => format!("{sql} {word} {other}"),
            };
        }
        Query { sql, types }
    }

    /// The order by all of some columns; ties are the same rows.
    pub fn total_order(&mut self, columns: &[String]) -> String {
        let from = self.random.below(columns.len());
        let order = columns[from..].iter().chain(&columns[..from]);
        let order = order.map(|c| format!("{c}{}", self.pick(&["", "", " DESC", " NULLS FIRST", " DESC NULLS LAST"])));
        order.collect::<Vec<_>>().join(", ")
    }

    /// The first rows.
    fn top(&mut self, depth: usize) -> Query {
        let Query { sql, types } = self.select(depth, "", None);
        let columns: Vec<String> = (0..types.len()).map(|i| format!("c{i}")).collect();
        let order = self.total_order(&columns);
        let limit = match self.random.below(6) {
            0 => "OFFSET 2".to_string(),
            1 => format!("LIMIT {} OFFSET 1", self.random.below(4)),
            2 => format!("FETCH FIRST {} ROWS ONLY", 1 + self.random.below(3)),
            _ => format!("LIMIT {}", 1 + self.random.below(5)),
        };
        Query { sql: format!("{sql} ORDER BY {order} {limit}"), types }
    }

    fn distinct_on(&mut self, depth: usize) -> Query {
        let Query { sql, types } = self.select(depth, "", None);
        let alias = self.alias();
        let columns: Vec<String> = (0..types.len()).map(|i| format!("c{i}")).collect();
        let keys = 1 + self.random.below(columns.len());
        let mut order = columns[..keys].join(", ");
        if keys < columns.len() {
            order = format!("{order}, {}", self.total_order(&columns[keys..]));
        }
        let on = columns[..keys].join(", ");
        let sql = format!("SELECT DISTINCT ON ({on}) {} FROM ({sql}) AS {alias} ORDER BY {order}", columns.join(", "));
        Query { sql, types }
    }

    /// A query over a common table expression, mostly more than once.
    fn with(&mut self, depth: usize) -> Query {
        let named = self.query(depth);
        if named.types.iter().all(|of| *of == Type::Inexact) {
            return named;
        }
        let name = format!("w{}", self.alias());
        let columns = named.types.iter().enumerate().map(|(i, of)| (format!("c{i}"), *of)).collect();
        let source = Source { sql: name.clone(), columns };
        let others = self.sources.clone();
        let kept = self.random.below(others.len());
        self.sources = vec![source.clone(), source, others[kept].clone()];
        let Query { sql, types } = self.plain_query(depth);
        self.sources = others;
        Query { sql: format!("WITH {name} AS ({}) {sql}", named.sql), types }
    }

    /// One that begins with `SELECT`.
    fn plain_query(&mut self, depth: usize) -> Query {
        match self.random.below(5) {
            0 => self.select(depth, "", None),
            1 => self.set_operation(depth),
            2 => self.over(depth),
            _ => self.aggregate(depth),
        }
    }
}
