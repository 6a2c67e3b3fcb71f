//! The TPC-H queries, with the parameters that the specification's answers are for.

/// A query.
#[derive(Clone, Copy)]
pub struct Query {
    /// 1 to 22.
    pub number: u32,
    sql: &'static str,
}

/// `CREATE TABLE` for all tables.
pub const TABLES: &str = include_str!("../../../../../bench/tpch/tables.sql");

macro_rules! queries {
    ($($number:literal $file:literal)*) => {
        const QUERIES: &[Query] = &[$(Query {
            number: $number,
            sql: include_str!(concat!("../../../../../bench/tpch/q", $file, ".sql")),
        }),*];
    };
}

queries! {
    1 "01" 2 "02" 3 "03" 4 "04" 5 "05" 6 "06" 7 "07" 8 "08" 9 "09" 10 "10" 11 "11"
    12 "12" 13 "13" 14 "14" 15 "15" 16 "16" 17 "17" 18 "18" 19 "19" 20 "20" 21 "21" 22 "22"
}

impl Query {
    /// The name of its view.
    pub fn name(&self) -> String {
        format!("q{:02}", self.number)
    }

    /// Its text without comments. The fraction of query 11 is larger where there is less.
    pub fn sql(&self, scale: f64) -> String {
        let lines: Vec<&str> = self.sql.lines().filter(|line| !line.starts_with("--")).collect();
        let text = lines.join("\n");
        if self.number == 11 { text.replace("0.0001", &format!("{:.10}", 0.0001 / scale)) } else { text }
    }

    /// The statement that makes its view.
    pub fn create(&self, scale: f64) -> String {
        format!("CREATE MATERIALIZED VIEW {} AS\n{}", self.name(), self.sql(scale))
    }

    /// Whether it reads a table.
    pub fn reads(&self, table: &str) -> bool {
        self.sql(1.0).split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == table)
    }
}

/// The queries with these numbers; all of them for none.
pub fn numbered(numbers: &[u32]) -> Result<Vec<Query>, String> {
    if numbers.is_empty() {
        return Ok(QUERIES.to_vec());
    }
    let find = |number: &u32| QUERIES.iter().find(|q| q.number == *number).copied();
    numbers.iter().map(|n| find(n).ok_or_else(|| format!("error: there is no TPC-H query {n}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_know_their_tables() {
        let reads = |number: u32, table| numbered(&[number]).unwrap()[0].reads(table);
        assert!(reads(1, "lineitem") && !reads(1, "orders"));
        assert!(reads(16, "partsupp") && reads(16, "part") && reads(16, "supplier"));
        assert!(!reads(11, "part") && reads(11, "partsupp"));
        assert!(numbered(&[23]).is_err());
        assert_eq!(numbered(&[]).unwrap().len(), 22);
    }

    #[test]
    fn the_fraction_goes_with_the_scale() {
        let query = numbered(&[11]).unwrap()[0];
        assert!(query.sql(0.01).contains("* 0.0100000000"), "{}", query.sql(0.01));
    }
}
