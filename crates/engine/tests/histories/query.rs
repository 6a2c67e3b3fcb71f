//! Queries over tables, views, joins and subqueries.

use super::expression::{Column, STORED, Type, expression, predicate};
use super::random::Random;

/// A table, view or subquery: what stands in `FROM`, and its columns.
#[derive(Clone, Debug)]
pub struct Source {
    pub sql: String,
    pub columns: Vec<Column>,
}

/// A query and the types of its columns, which are named c0, c1, ...
pub struct Query {
    pub sql: String,
    pub types: Vec<Type>,
}

/// Makes queries over the sources given.
pub struct Maker<'a> {
    pub random: &'a mut Random,
    pub sources: &'a [Source],
    /// For the names of sources in `FROM`.
    pub aliases: usize,
}

impl Maker<'_> {
    /// A query.
    pub fn query(&mut self, depth: usize) -> Query {
        match self.random.below(10) {
            0..3 => self.projection(depth),
            3..7 => self.aggregate(depth),
            7 => self.distinct(depth),
            8 => self.union_all(depth),
            _ => self.top(depth),
        }
    }

    fn alias(&mut self) -> String {
        self.aliases += 1;
        format!("s{}", self.aliases)
    }

    /// Something in `FROM` with the columns that it brings into scope.
    fn from(&mut self, depth: usize) -> (String, Vec<Column>) {
        match self.random.below(6) {
            0 | 1 => self.join(depth),
            2 if depth > 0 => self.subquery(depth - 1),
            _ => self.named(),
        }
    }

    fn named(&mut self) -> (String, Vec<Column>) {
        let source = self.sources[self.random.below(self.sources.len())].clone();
        let alias = self.alias();
        let columns = source.columns.iter().map(|(name, of)| (format!("{alias}.{name}"), *of)).collect();
        (format!("{} AS {alias}", source.sql), columns)
    }

    fn subquery(&mut self, depth: usize) -> (String, Vec<Column>) {
        let query = self.query(depth);
        let alias = self.alias();
        let columns = query.types.iter().enumerate().map(|(i, of)| (format!("{alias}.c{i}"), *of)).collect();
        (format!("({}) AS {alias}", query.sql), columns)
    }

    fn join(&mut self, depth: usize) -> (String, Vec<Column>) {
        let deeper = self.random.below(4) == 0 && depth > 0;
        let (left, mut columns) = if deeper { self.from(depth - 1) } else { self.named() };
        let (right, others) = self.named();
        let pairs: Vec<(String, String)> = columns
            .iter()
            .flat_map(|l| others.iter().map(move |r| (l, r)))
            .filter(|(l, r)| l.1 == r.1 && l.1 != Type::Other)
            .map(|(l, r)| (l.0.clone(), r.0.clone()))
            .collect();
        if pairs.is_empty() {
            return (left, columns);
        }
        let (l, r) = &pairs[self.random.below(pairs.len())];
        let mut condition = format!("{l} = {r}");
        if self.random.below(4) == 0 {
            let (l, r) = &pairs[self.random.below(pairs.len())];
            condition = format!("{condition} AND {l} = {r}");
        }
        columns.extend(others);
        if self.random.below(4) == 0 {
            condition = format!("{condition} AND {}", predicate(self.random, &columns, 1));
        }
        let kind = ["JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"][self.random.below(5)];
        (format!("{left} {kind} {right} ON {condition}"), columns)
    }

    fn filter(&mut self, scope: &[Column]) -> String {
        match self.random.below(2) {
            0 => format!(" WHERE {}", predicate(self.random, scope, 2)),
            _ => String::new(),
        }
    }

    /// `count` values of given or random types.
    fn items(&mut self, scope: &[Column], types: &[Type]) -> String {
        let items = types.iter().enumerate();
        let items = items.map(|(i, of)| format!("{} AS c{i}", expression(self.random, scope, *of, 2)));
        items.collect::<Vec<_>>().join(", ")
    }

    fn types(&mut self, scope: &[Column]) -> Vec<Type> {
        let count = 1 + self.random.below(4);
        // Mostly types that are there.
        (0..count)
            .map(|_| match self.random.below(4) {
                0 => STORED[self.random.below(STORED.len())],
                _ => scope[self.random.below(scope.len())].1,
            })
            .collect()
    }

    fn select(&mut self, depth: usize, word: &str, types: Option<&[Type]>) -> Query {
        let (from, scope) = self.from(depth);
        let types = match types {
            Some(types) => types.to_vec(),
            None => self.types(&scope),
        };
        let items = self.items(&scope, &types);
        Query { sql: format!("SELECT {word}{items} FROM {from}{}", self.filter(&scope)), types }
    }

    fn projection(&mut self, depth: usize) -> Query {
        self.select(depth, "", None)
    }

    fn distinct(&mut self, depth: usize) -> Query {
        self.select(depth, "DISTINCT ", None)
    }

    fn union_all(&mut self, depth: usize) -> Query {
        let count = 1 + self.random.below(3);
        let types: Vec<Type> = (0..count).map(|_| STORED[self.random.below(STORED.len())]).collect();
        let one = self.select(depth, "", Some(&types));
        let two = self.select(depth, "", Some(&types));
        Query { sql: format!("{} UNION ALL {}", one.sql, two.sql), types }
    }

    /// The first rows in an order of all columns: rows that tie are the same.
    fn top(&mut self, depth: usize) -> Query {
        let Query { sql, types } = self.select(depth, "", None);
        let order = (0..types.len()).map(|i| format!("c{i}{}", ["", " DESC", " NULLS FIRST"][self.random.below(3)]));
        let order = order.collect::<Vec<_>>().join(", ");
        let offset = ["", " OFFSET 1"][self.random.below(2)];
        Query { sql: format!("{sql} ORDER BY {order} LIMIT {}{offset}", 1 + self.random.below(4)), types }
    }

    fn aggregate(&mut self, depth: usize) -> Query {
        let (from, scope) = self.from(depth);
        let (mut items, mut types, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.random.below(3) {
            let of = scope[self.random.below(scope.len())].1;
            let depth = self.random.below(2);
            let key = expression(self.random, &scope, of, depth);
            items.push(format!("{key} AS c{}", items.len()));
            keys.push(items.len().to_string());
            types.push(of);
        }
        for _ in 0..1 + self.random.below(3) {
            let (call, of) = self.call(&scope);
            items.push(format!("{call} AS c{}", items.len()));
            types.push(of);
        }
        let mut sql = format!("SELECT {} FROM {from}{}", items.join(", "), self.filter(&scope));
        if !keys.is_empty() {
            sql = format!("{sql} GROUP BY {}", keys.join(", "));
        }
        if self.random.below(4) == 0 {
            let (call, _) = self.call(&scope);
            sql = format!("{sql} HAVING {call} IS NOT NULL AND count(*) > {}", self.random.below(3));
        }
        Query { sql, types }
    }

    /// An aggregate call and what it gives.
    fn call(&mut self, scope: &[Column]) -> (String, Type) {
        let numbers = [Type::Int, Type::Bigint, Type::Double, Type::Decimal];
        let ordered = [Type::Int, Type::Bigint, Type::Double, Type::Decimal, Type::Text, Type::Timestamp];
        let number = numbers[self.random.below(numbers.len())];
        let any = ordered[self.random.below(ordered.len())];
        let mut argument = |of: Type| expression(self.random, scope, of, 1);
        let (number_argument, any_argument) = (argument(number), argument(any));
        let (call, of) = match self.random.below(7) {
            0 => ("count(*)".to_string(), Type::Bigint),
            1 => (format!("count({any_argument})"), Type::Bigint),
            2 => (format!("count(DISTINCT {any_argument})"), Type::Bigint),
            3 => (format!("min({any_argument})"), any),
            4 => (format!("max({any_argument})"), any),
            5 => (format!("sum({number_argument})"), if number == Type::Double { number } else { Type::Other }),
            _ => (format!("avg({number_argument})"), Type::Other),
        };
        match self.random.below(4) {
            0 => (format!("{call} FILTER (WHERE {})", predicate(self.random, scope, 1)), of),
            _ => (call, of),
        }
    }
}
