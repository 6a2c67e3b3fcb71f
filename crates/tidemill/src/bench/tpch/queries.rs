//! The TPC-H queries, with the parameters that the specification's answers are for.

use crate::bench::suite::{Query, texts};

/// `CREATE TABLE` for all tables.
pub const TABLES: &str = include_str!("../../../../../bench/tpch/tables.sql");

/// All queries for tables of a scale: the fraction of query 11 is larger where there is less.
pub fn all(scale: f64) -> Vec<Query> {
    let scaled = |number, text: &str| match number {
        11 => Query::new(number, &text.replace("0.0001", &format!("{:.10}", 0.0001 / scale))),
        _ => Query::new(number, text),
    };
    (1..).zip(texts!("tpch")).map(|(number, text)| scaled(number, text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::suite::numbered;

    #[test]
    fn queries_know_their_tables() {
        let reads = |number: u32, table| numbered(all(1.0), &[number], "TPC-H").unwrap()[0].reads(table);
        assert!(reads(1, "lineitem") && !reads(1, "orders"));
        assert!(reads(16, "partsupp") && reads(16, "part") && reads(16, "supplier"));
        assert!(!reads(11, "part") && reads(11, "partsupp"));
        assert!(numbered(all(1.0), &[23], "TPC-H").is_err());
        assert_eq!(numbered(all(1.0), &[], "TPC-H").unwrap().len(), 22);
    }

    #[test]
    fn the_fraction_goes_with_the_scale() {
        let query = all(0.01)[10].create();
        assert!(query.contains("* 0.0100000000"), "{query}");
    }
}
