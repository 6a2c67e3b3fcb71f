//! Window functions.

use super::expression::{Column, Type};
use super::query::{Maker, Query};

impl Maker<'_> {
    /// Window functions, or the rows that one of them numbers low.
    pub fn over(&mut self, depth: usize) -> Query {
        let (from, scope) = self.from(depth);
        let partition = self.partition(&scope);
        let columns: Vec<String> = scope.iter().map(|c| c.0.clone()).collect();
        let order = self.total_order(&columns);
        let mut types = self.types(&scope);
        let items = types.iter().enumerate();
        let mut items: Vec<String> =
            items.map(|(i, of)| format!("{} AS c{i}", self.expression(&scope, *of, 1))).collect();
        if self.one_in(3) {
            return self.low_numbers(&from, &scope, &format!("{partition}ORDER BY {order}"), (items, types));
        }
        for _ in 0..1 + self.random.below(2) {
            let (call, of) = self.window_call(&scope, &partition, &order);
            items.push(format!("{call} AS c{}", items.len()));
            types.push(of);
        }
        Query { sql: format!("SELECT {} FROM {from}{}", items.join(", "), self.filter(&scope)), types }
    }

    fn partition(&mut self, scope: &[Column]) -> String {
        if self.one_in(4) { String::new() } else { format!("PARTITION BY {} ", self.pick(scope).0) }
    }

    fn low_numbers(
        &mut self,
        from: &str,
        scope: &[Column],
        over: &str,
        (mut items, mut types): (Vec<String>, Vec<Type>),
    ) -> Query {
        let number = *self.pick(&["row_number", "row_number", "rank", "dense_rank"]);
        items.push(format!("{number}() OVER ({over}) AS c{}", items.len()));
        types.push(Type::Bigint);
        let (last, alias) = (items.len() - 1, self.alias());
        let bound = match self.random.below(3) {
            0 => format!("= {}", 1 + self.random.below(2)),
            1 => format!("< {}", 1 + self.random.below(4)),
            _ => format!("<= {}", 1 + self.random.below(3)),
        };
        let filter = self.filter(scope);
        let inner = format!("SELECT {} FROM {from}{filter}", items.join(", "));
        Query { sql: format!("SELECT * FROM ({inner}) AS {alias} WHERE {alias}.c{last} {bound}"), types }
    }

    /// One call with its window, and what it gives.
    fn window_call(&mut self, scope: &[Column], partition: &str, order: &str) -> (String, Type) {
        let of = scope[self.random.below(scope.len())].1;
        let nested = std::mem::take(&mut self.nested);
        let value = self.expression(scope, of, 1);
        let (int, double) = (self.expression(scope, Type::Int, 1), self.expression(scope, Type::Double, 1));
        self.nested = nested;
        // Functions of the frame, and functions of the partition.
        if self.one_in(2) {
            let (call, of) = match self.random.below(7) {
                0 => ("count(*)".to_string(), Type::Bigint),
                1 => (format!("sum({int})"), Type::Bigint),
                2 => (format!("sum({double})"), Type::Double),
                3 => (format!("min({int})"), Type::Int),
                4 => (format!("max({int})"), Type::Int),
                5 => (format!("first_value({value})"), of),
                _ => (format!("last_value({value})"), of),
            };
            // Which row is first matters to some.
            let ordered = call.contains("_value");
            return (format!("{call} OVER ({})", self.frame(ordered, partition, order)), of);
        }
        let (call, of) = match self.random.below(8) {
            0 => ("row_number()".to_string(), Type::Bigint),
            1 => ("rank()".to_string(), Type::Bigint),
            2 => ("dense_rank()".to_string(), Type::Bigint),
            3 => (format!("lag({value})"), of),
            4 => (format!("lead({value}, 2)"), of),
            5 => ("cume_dist()".to_string(), Type::Inexact),
            6 => ("percent_rank()".to_string(), Type::Inexact),
            _ => (format!("nth_value({value}, 2)"), of),
        };
        (format!("{call} OVER ({partition}ORDER BY {order})"), of)
    }

    fn frame(&mut self, ordered: bool, partition: &str, order: &str) -> String {
        let start = ["UNBOUNDED PRECEDING", "2 PRECEDING", "1 PRECEDING", "CURRENT ROW"];
        let end = ["CURRENT ROW", "1 FOLLOWING", "UNBOUNDED FOLLOWING"];
        let (start, end) = (*self.pick(&start), *self.pick(&end));
        match self.random.below(5) {
            0 if !ordered => partition.to_string(),
            0 | 1 => format!("{partition}ORDER BY {order}"),
            2 => format!("{partition}ORDER BY {order} RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW"),
            _ => format!("{partition}ORDER BY {order} ROWS BETWEEN {start} AND {end}"),
        }
    }
}
