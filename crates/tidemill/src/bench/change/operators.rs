//! The views of `tidemill bench change`: one for each incremental operator.

/// A view.
#[derive(Clone, Copy)]
pub struct Operator {
    /// What it is called.
    pub name: &'static str,
    /// How many tables it reads.
    pub tables: usize,
    /// Its query.
    pub sql: &'static str,
}

impl Operator {
    /// Whether only its last rows change: what comes after a row changes with it.
    pub fn changes_at_end(&self) -> bool {
        self.name.ends_with("-at-end")
    }
}

/// The tables: `k` is unique, `g` the same for ten rows, `v` unique and in no order, `ts` ascends.
pub const TABLES: &str = "
CREATE TABLE t (id BIGINT PRIMARY KEY, k BIGINT NOT NULL, g BIGINT NOT NULL, v BIGINT NOT NULL, ts TIMESTAMP NOT NULL,
  live BOOLEAN NOT NULL);
CREATE TABLE u (id BIGINT PRIMARY KEY, k BIGINT NOT NULL, g BIGINT NOT NULL, v BIGINT NOT NULL, ts TIMESTAMP NOT NULL,
  live BOOLEAN NOT NULL);
CREATE VIEW l AS SELECT id, k, g, v, ts FROM t WHERE live;
CREATE VIEW r AS SELECT id, k, g, v, ts FROM u WHERE live;";

macro_rules! operators {
    ($($name:literal $tables:literal $sql:literal)*) => {
        const OPERATORS: &[Operator] = &[$(Operator { name: $name, tables: $tables, sql: $sql }),*];
    };
}

operators! {
    "filter" 1 "SELECT id, v FROM l"
    "join" 2 "SELECT l.k, l.v, r.v AS w FROM l JOIN r ON l.k = r.k"
    "join-16-byte-key" 2 "SELECT count(*) AS n, sum(l.v - r.v) AS s FROM l JOIN r ON l.k = r.k AND l.g = r.g"
    "left-join" 2 "SELECT l.k, l.v, r.v AS w FROM l LEFT JOIN r ON l.k = r.k"
    "full-join" 2 "SELECT l.k, l.v, r.v AS w FROM l FULL JOIN r ON l.k = r.k"
    "semi-join" 2 "SELECT l.k, l.v FROM l WHERE EXISTS (SELECT 1 FROM r WHERE r.k = l.k)"
    "anti-join" 2 "SELECT l.k, l.v FROM l WHERE NOT EXISTS (SELECT 1 FROM r WHERE r.k = l.k)"
    "asof-join" 2 "SELECT l.k, l.v, r.v AS w FROM l ASOF JOIN r MATCH_CONDITION (l.ts >= r.ts) ON l.g = r.g"
    "aggregate" 1 "SELECT g, count(*) AS n, sum(v) AS s FROM l GROUP BY g"
    "one-group" 1 "SELECT count(*) AS n, sum(v) AS s, avg(v) AS a FROM l"
    "min-max" 1 "SELECT g, min(v) AS low, max(v) AS high FROM l GROUP BY g"
    "min-max-one-group" 1 "SELECT min(v) AS low, max(v) AS high FROM l"
    "count-distinct" 1 "SELECT g % 10 AS d, count(DISTINCT v) AS n FROM l GROUP BY 1"
    "distinct" 1 "SELECT DISTINCT g FROM l"
    "top-3-per-key" 1 "SELECT g, v, n FROM (SELECT g, v, row_number() OVER (PARTITION BY g ORDER BY v DESC) AS n FROM l) WHERE n <= 3"
    "rank-3-per-key" 1 "SELECT g, v, n FROM (SELECT g, v, rank() OVER (PARTITION BY g ORDER BY v DESC) AS n FROM l) WHERE n <= 3"
    "top-10" 1 "SELECT id, v FROM l ORDER BY v DESC LIMIT 10"
    "row-number" 1 "SELECT id, row_number() OVER (PARTITION BY g ORDER BY v) AS n FROM l"
    "running-sum" 1 "SELECT id, sum(v) OVER (PARTITION BY g ORDER BY ts) AS s FROM l"
    "running-sum-at-end" 1 "SELECT id, sum(v) OVER (ORDER BY ts) AS s FROM l"
    "lag-one-partition" 1 "SELECT id, v - lag(v) OVER (ORDER BY ts) AS d FROM l"
    "moving-sum" 1 "SELECT id, sum(v) OVER (ORDER BY ts ROWS 5 PRECEDING) AS s FROM l"
    "session" 1 "SELECT g, window_start, window_end, count(*) AS n FROM SESSION(l, g, ts, INTERVAL '5 seconds') GROUP BY g, window_start, window_end"
    "recursion" 1 "WITH RECURSIVE c(k, n) AS (SELECT k, 0 FROM l WHERE k % 30 = 0 UNION SELECT l.k, c.n + 1 FROM c JOIN l ON l.k = c.k + 3 WHERE l.k % 30 > 0) SELECT k, n FROM c"
    "union-all" 2 "SELECT k, v FROM l UNION ALL SELECT k, v FROM r"
    "union" 2 "SELECT k FROM l UNION SELECT k FROM r"
    "except" 2 "SELECT k FROM l EXCEPT SELECT k + 1 FROM r"
    "intersect" 2 "SELECT k FROM l INTERSECT SELECT k FROM r"
}

/// The operators with these names; all of them for none.
pub fn named(names: &[String]) -> Result<Vec<Operator>, String> {
    if names.is_empty() {
        return Ok(OPERATORS.to_vec());
    }
    let known = || OPERATORS.iter().map(|o| o.name).collect::<Vec<_>>().join(", ");
    let find = |name: &String| OPERATORS.iter().find(|o| o.name == name).copied();
    names
        .iter()
        .map(|n| find(n).ok_or_else(|| format!("error: there is no operator '{n}'; there are {}", known())))
        .collect()
}
