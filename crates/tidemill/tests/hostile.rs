//! Statements that mean harm, against a server process with little memory: each is answered, rightly or with a clean
//! error, and the server and its other views go on.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests wait and measure by the real clock, and say how far they are"
)]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// Address space of the server, in KiB.
const ADDRESS_SPACE: u64 = 12 << 20;
/// What the server may ever hold in memory, in KiB.
const RESIDENT: u64 = 3 << 20;
/// Long enough for a slow machine and a debug build, short enough to end a test that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Queries that would go on for ever end with this.
const LIMIT: &str = "SET statement_timeout = '1s'";

/// What hostile statements find.
const TABLES: &str = "CREATE TABLE t (a int, s text, j jsonb); CREATE TABLE e (ts timestamp, WATERMARK FOR ts AS ts);
    CREATE MATERIALIZED VIEW alive AS SELECT count(*) AS n FROM e;
    INSERT INTO t VALUES (1, 'x', '{\"a\": 1}'), (2, 'y', NULL)";

/// A server that ends with the test.
struct Server {
    process: Child,
    pg: u16,
    http: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    fn start() -> Server {
        let tidemill = env!("CARGO_BIN_EXE_tidemill");
        let serve = "serve --in-memory --workers 2 --pg 127.0.0.1:0 --http 127.0.0.1:0";
        let mut process = Command::new("sh")
            .args(["-c", &format!("ulimit -v {ADDRESS_SPACE}; exec \"{tidemill}\" {serve}")])
            .env("RUST_BACKTRACE", "0")
            .stdout(Stdio::piped())
            .stderr(std::env::var("TIDEMILL_HOSTILE_LOG").map_or_else(
                |_| Stdio::null(),
                |path| {
                    std::fs::File::options().append(true).create(true).open(path).expect("a file for the log").into()
                },
            ))
            .spawn()
            .expect("a shell");
        let mut lines = BufReader::new(process.stdout.take().expect("its output")).lines();
        let mut port = |before: &str| -> u16 {
            let line = lines.find_map(|line| line.ok().filter(|line| line.contains(before)));
            let line = line.unwrap_or_else(|| panic!("the greeting does not say {before}"));
            let address = line.split_whitespace().find(|word| word.starts_with("127.0.0.1:")).expect("an address");
            address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
        };
        let (pg, http) = (port("PostgreSQL"), port("HTTP"));
        Server { process, pg, http }
    }

    async fn connect(&self) -> Client {
        let config = format!("host=127.0.0.1 port={} user=test", self.pg);
        let (client, wire) = tokio_postgres::connect(&config, NoTls).await.expect("the server takes connections");
        tokio::spawn(wire);
        client.simple_query(LIMIT).await.expect("a limit of time");
        client
    }

    /// What the server answers to a script over HTTP: the status.
    fn post(&self, sql: &str) -> std::io::Result<u16> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "POST /v1/sql HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            sql.len()
        )?;
        stream.write_all(sql.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let head = String::from_utf8_lossy(&answer[..answer.len().min(64)]).into_owned();
        head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| std::io::Error::other(head))
    }

    /// The most memory that it ever held, in KiB.
    fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(u64::MAX)
    }
}

/// The rows of the last answer, or the SQLSTATE and message.
async fn ask(client: &Client, sql: &str) -> Result<Vec<String>, String> {
    let answer = tokio::time::timeout(PATIENCE, client.simple_query(sql)).await.map_err(|_| "no answer in time")?;
    let messages = answer.map_err(|error| match error.as_db_error() {
        Some(error) => format!("{} {}", error.code().code(), error.message()),
        None => format!("lost {error}"),
    })?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").chars().take(80).collect()),
        _ => None,
    });
    Ok(rows.collect())
}

/// `open` n times, `inner`, `close` n times.
fn nested(n: usize, open: &str, inner: &str, close: &str) -> String {
    format!("{}{inner}{}", open.repeat(n), close.repeat(n))
}

fn chain(n: usize, term: &str, operator: &str) -> String {
    vec![term; n].join(operator)
}

/// Names of `n` columns.
fn columns(n: usize, each: impl Fn(usize) -> String) -> String {
    (0..n).map(each).collect::<Vec<_>>().join(", ")
}

/// `WITH` queries that each read the one before twice.
fn doubling(levels: usize, step: impl Fn(usize) -> String, last: &str) -> String {
    let mut sql = "WITH q0 AS (SELECT 1 AS x)".to_owned();
    for level in 1..=levels {
        let _ = write!(sql, ", q{level} AS ({})", step(level - 1));
    }
    format!("{sql} {last} FROM q{levels}")
}

/// Queries that nest or chain too deeply, or are too long.
fn shapes() -> Vec<(&'static str, String)> {
    let n = 100_000;
    let select = |expression: String| format!("SELECT {expression} AS x FROM t");
    vec![
        ("parentheses", select(nested(n, "(", "1", ")"))),
        ("open parentheses", select("(".repeat(n))),
        ("closed parentheses", select(")".repeat(n))),
        ("CASE", select(nested(n, "CASE WHEN true THEN ", "1", " END"))),
        ("CASE that is open", select("CASE WHEN ".repeat(n))),
        ("many WHENs", select(format!("CASE {} END", chain(n, "WHEN a = 1 THEN 2", " ")))),
        ("calls", select(nested(n, "abs(", "a", ")"))),
        ("casts", select(nested(n, "CAST(", "a", " AS int)"))),
        ("short casts", select(format!("a{}", "::int".repeat(n)))),
        ("NOT", select(format!("{} true", "NOT ".repeat(n)))),
        ("minus", select(format!("{} 1", "- ".repeat(n)))),
        ("plus", select(format!("{} 1", "+ ".repeat(n)))),
        ("scalar subqueries", format!("SELECT {}", nested(n, "(SELECT ", "1", ")"))),
        ("EXISTS", format!("SELECT 1 WHERE {}", nested(n, "EXISTS (SELECT 1 WHERE ", "true", ")"))),
        ("subqueries", format!("SELECT * FROM {}", nested(n, "(SELECT * FROM ", "t", ") AS s"))),
        ("joins in parentheses", format!("SELECT * FROM {}", nested(n, "(", "t", ")"))),
        ("lateral", format!("SELECT 1 FROM t {}", ", LATERAL (SELECT 1) AS l".repeat(n))),
        ("joins", format!("SELECT 1 FROM t {}", "CROSS JOIN t AS u ".repeat(2_000))),
        ("arrays", select(nested(n, "ARRAY[", "1", "]"))),
        ("subscripts", select(format!("ARRAY[1]{}", "[1]".repeat(n)))),
        ("rows", select(nested(n, "ROW(", "1", ")"))),
        ("JSON paths", select(format!("j{}", "->'a'".repeat(n)))),
        ("JSON text", select(format!("('{}'::jsonb) -> 0", nested(n, "[", "", "]")))),
        ("names", select(format!("a{}", ".a".repeat(n)))),
        ("AND", format!("SELECT a FROM t WHERE {}", chain(n, "a = 1", " AND "))),
        ("OR", format!("SELECT a FROM t WHERE {}", chain(n, "a = 1", " OR "))),
        ("AND that is allowed", format!("SELECT a FROM t WHERE {}", chain(1_900, "a <> 1", " AND "))),
        ("OR that is allowed", format!("SELECT a FROM t WHERE {}", chain(1_900, "a = 1", " OR "))),
        ("additions", select(chain(n, "a", " + "))),
        ("additions that are allowed", select(chain(200, "a", " + "))),
        ("concatenations", select(chain(n, "'x'", " || "))),
        ("comparisons", select(chain(n, "a", " = "))),
        ("BETWEEN", select(format!("a{}", " BETWEEN 1 AND 2".repeat(n)))),
        ("IS NULL", select(format!("a{}", " IS NULL".repeat(n)))),
        ("COLLATE", select(format!("s{}", " COLLATE \"C\"".repeat(n)))),
        ("AT TIME ZONE", select(format!("now(){}", " AT TIME ZONE 'UTC'".repeat(n)))),
        ("LIKE", select(chain(n, "'x'", " LIKE "))),
        ("UNION ALL", chain(n, "SELECT 1", " UNION ALL ")),
        ("UNION ALL that is allowed", chain(60, "SELECT a FROM t", " UNION ALL ")),
        ("INTERSECT", chain(n, "SELECT a FROM t", " INTERSECT ")),
        ("WITH in WITH", format!("{} SELECT 1", nested(n, "WITH x AS (", "SELECT 1", ") SELECT 1"))),
        ("OVER", select(nested(n, "sum(", "a", ") OVER ()"))),
        ("FILTER", select(nested(n, "sum(a) FILTER (WHERE ", "true", ")"))),
        ("IN in IN", format!("SELECT 1 WHERE {}", nested(n, "1 IN (", "1", ")"))),
        ("a long list", format!("SELECT a FROM t WHERE a IN ({})", chain(1_000_000, "7", ","))),
        ("a list that is allowed", format!("SELECT a FROM t WHERE a IN ({})", columns(50_000, |i| i.to_string()))),
        ("many values", format!("SELECT * FROM (VALUES {}) AS v", chain(1_000_000, "(1)", ","))),
        ("a long text", format!("SELECT '{}'", "x".repeat(10_000_000))),
        ("a long comment", format!("SELECT 1 /* {} */", "x".repeat(10_000_000))),
        ("nested comments", format!("SELECT 1 {}", nested(n, "/*", "", "*/"))),
        ("a long name", format!("SELECT 1 AS \"{}\"", "x".repeat(900_000))),
        ("many columns", format!("SELECT {} FROM t", columns(10_000, |i| format!("a AS c{i}")))),
        ("many groups", format!("SELECT 1 FROM t GROUP BY {}", columns(10_000, |i| format!("a + {i}")))),
        ("many sort keys", format!("SELECT a FROM t ORDER BY {} LIMIT 1", columns(10_000, |i| format!("a + {i}")))),
        ("many statements", "SELECT 1;".repeat(300)),
        ("grouping sets", format!("SELECT count(*) FROM t GROUP BY CUBE ({})", columns(40, |i| format!("a + {i}")))),
        ("cubes times cubes", format!("SELECT count(*) FROM t GROUP BY {}", chain(12, "CUBE (a, s)", ", "))),
    ]
}

/// Queries that would blow up when they are planned or run.
fn explosions() -> Vec<(&'static str, String)> {
    let twice = |i: usize| format!("SELECT l.x FROM q{i} AS l, q{i} AS r");
    let union = |i: usize| format!("SELECT x FROM q{i} UNION ALL SELECT x FROM q{i}");
    let sums = |i: usize| format!("SELECT x + x AS x FROM q{i}");
    let mut all: Vec<(&str, String)> = vec![
        ("joined twice", doubling(40, twice, "SELECT count(*)")),
        ("united twice", doubling(40, union, "SELECT count(*)")),
        ("added twice", doubling(60, sums, "SELECT x")),
        (
            "texts twice",
            doubling(60, |i| format!("SELECT x || x AS x FROM q{i}"), "SELECT length(x)")
                .replace("SELECT 1 AS x", "SELECT 'abcdefgh' AS x"),
        ),
        (
            "arrays twice",
            doubling(60, |i| format!("SELECT array_cat(x, x) AS x FROM q{i}"), "SELECT cardinality(x)")
                .replace("SELECT 1 AS x", "SELECT ARRAY[1] AS x"),
        ),
    ];
    let plain = [
        ("repeat", "SELECT length(repeat('x', 2000000000))"),
        ("repeat of repeat", "SELECT length(repeat(repeat('x', 100000), 100000))"),
        ("repeat per row", "SELECT length(repeat(s, 1000000000)) FROM t"),
        ("repeat less than never", "SELECT repeat('x', -9223372036854775808)"),
        ("lpad", "SELECT length(lpad('x', 2000000000))"),
        ("lpad per row", "SELECT length(lpad(s, 2000000000, 'ab')) FROM t"),
        ("rpad", "SELECT length(rpad('x', 2147483647, 'abc'))"),
        ("replace", "SELECT length(replace(repeat('a', 1000000), 'a', repeat('b', 1000000)))"),
        ("regexp_replace", "SELECT length(regexp_replace(repeat('a', 1000000), 'a', repeat('b', 1000000), 'g'))"),
        ("translate", "SELECT translate(repeat('a', 1000000), 'a', 'b')"),
        ("concat", "SELECT length(concat(repeat('a', 10000000), repeat('b', 10000000)))"),
        ("array_repeat", "SELECT cardinality(array_repeat(1, 2000000000))"),
        ("array_repeat of arrays", "SELECT cardinality(array_repeat(array_repeat(1, 100000), 100000))"),
        ("array_resize", "SELECT cardinality(array_resize(ARRAY[1], 2000000000, 0))"),
        ("range", "SELECT cardinality(range(1, 4000000000))"),
        (
            "range of times",
            "SELECT cardinality(generate_series(TIMESTAMP '0001-01-01', TIMESTAMP '9999-01-01', INTERVAL '1 second'))",
        ),
        ("generate_series", "SELECT cardinality(generate_series(1, 4000000000))"),
        ("generate_series in FROM", "SELECT g FROM generate_series(1, 9223372036854775807) AS s(g)"),
        ("generate_series that ends nowhere", "SELECT count(*) FROM generate_series(1, 10, 0)"),
        ("generate_series unnested", "SELECT count(*) FROM unnest(generate_series(1, 4000000000))"),
        ("string_to_array", "SELECT cardinality(string_to_array(repeat('a,', 10000000), ','))"),
        ("recursion without end", "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT n FROM r"),
        (
            "recursion that doubles",
            "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT l.n FROM r AS l, r AS k) SELECT count(*) FROM r",
        ),
        ("a large number", "SELECT 1e400"),
        ("a long exponent", "SELECT 1e999999999999999999999"),
        ("power", "SELECT CAST(power(10.0, 400) AS bigint)"),
        ("factorial", "SELECT factorial(1000)"),
        ("least integer", "SELECT abs(-9223372036854775807 - 1)"),
        ("least integer negated", "SELECT -(-9223372036854775807 - 1)"),
        ("least integer divided", "SELECT (-9223372036854775807 - 1) / -1"),
        ("least integer's rest", "SELECT (-9223372036854775807 - 1) % -1"),
        ("least of rows divided", "SELECT (a - 9223372036854775807 - a - 1) / (a / a * -1) FROM t"),
        (
            "least of rows' rest",
            "SELECT (b - 9223372036854775807 - b - 1) % (b / b * -1) FROM (SELECT CAST(a AS bigint) AS b FROM t) AS s",
        ),
        ("gcd", "SELECT gcd(-9223372036854775807 - 1, -9223372036854775807 - 1)"),
        ("lcm", "SELECT lcm(9223372036854775807, 9223372036854775806)"),
        (
            "a wide decimal",
            "SELECT CAST('99999999999999999999999999999999999999' AS numeric(38, 0)) * 99999999999999999999",
        ),
        ("a decimal's digits", "SELECT CAST(1 AS numeric(1000, 999))"),
        ("round", "SELECT round(1.5, 2147483647), round(1.5, -2147483648), trunc(1.5, -2147483648)"),
        ("round of a decimal", "SELECT round(CAST(1.5 AS numeric(10, 2)), 2147483647)"),
        ("a large interval", "SELECT INTERVAL '999999999999 years'"),
        ("an interval of months", "SELECT TIMESTAMP '2024-01-01' + INTERVAL '178956970 years'"),
        ("times an interval", "SELECT INTERVAL '100000 years' * 1000000"),
        ("before time", "SELECT TIMESTAMP '2024-01-01' - INTERVAL '290000 years' - INTERVAL '290000 years'"),
        ("beyond time", "SELECT DATE '9999-12-31' + INTERVAL '1000000 years'"),
        ("make_date", "SELECT make_date(2147483647, 1, 1), make_date(-2147483648, 1, 1)"),
        ("to_timestamp", "SELECT to_timestamp(9223372036854775807), to_timestamp(1e300)"),
        (
            "date_trunc",
            "SELECT date_trunc('millennium', TIMESTAMP '0001-01-01'), date_trunc('week', DATE '-100000-01-01')",
        ),
        ("date_bin of nothing", "SELECT date_bin(INTERVAL '0 seconds', TIMESTAMP '2024-01-01')"),
        ("date_bin of less", "SELECT date_bin(INTERVAL '-1 second', TIMESTAMP '2024-01-01')"),
        ("extract", "SELECT extract(epoch FROM TIMESTAMP '290000-01-01')"),
        ("to_char", "SELECT to_char(TIMESTAMP '290000-01-01', repeat('YYYY', 100000))"),
        ("substr", "SELECT substr('abc', -9223372036854775808, 9223372036854775807)"),
        ("substr backwards", "SELECT substr('abc', 9223372036854775807, 9223372036854775807)"),
        ("left", "SELECT left('abc', -9223372036854775808), right('abc', -9223372036854775808)"),
        ("split_part", "SELECT split_part('a,b', ',', -9223372036854775808)"),
        ("overlay", "SELECT overlay('abc' PLACING 'x' FROM -5 FOR 1000)"),
        ("chr", "SELECT chr(1114112)"),
        ("chr of less", "SELECT chr(-1)"),
        ("subscript", "SELECT (ARRAY[1, 2])[9223372036854775807], (ARRAY[1, 2])[-9223372036854775808]"),
        ("slice", "SELECT (ARRAY[1, 2])[-9223372036854775808:9223372036854775807]"),
        ("array_slice by nothing", "SELECT array_slice(ARRAY[1, 2], 1, 2, 0)"),
        ("ntile", "SELECT ntile(0) OVER (ORDER BY a) FROM t"),
        ("nth_value", "SELECT nth_value(a, -9223372036854775808) OVER (ORDER BY a) FROM t"),
        (
            "lag",
            "SELECT lag(a, 9223372036854775807) OVER (ORDER BY a), lead(a, -9223372036854775808) OVER (ORDER BY a) FROM t",
        ),
        (
            "frames",
            "SELECT sum(a) OVER (ORDER BY a ROWS BETWEEN 9223372036854775807 PRECEDING AND 9223372036854775807 FOLLOWING) FROM t",
        ),
        ("percentile", "SELECT percentile_cont(2) WITHIN GROUP (ORDER BY a) FROM t"),
        ("LIMIT", "SELECT a FROM t ORDER BY a LIMIT 9223372036854775807 OFFSET 9223372036854775807"),
        ("LIMIT of less", "SELECT a FROM t LIMIT -1"),
        ("regex that backtracks", "SELECT repeat('a', 100000) ~ '(a+)+$'"),
        ("regex that is large", "SELECT 'a' ~ 'a{1000}{1000}{1000}'"),
        ("regex of everything", "SELECT regexp_replace(repeat('a', 100000), '(a|aa|aaa)*', 'b')"),
        ("LIKE that backtracks", "SELECT repeat('a', 100000) LIKE '%a%a%a%a%a%a%a%a%a%b'"),
        ("SIMILAR TO", "SELECT repeat('a', 10000) SIMILAR TO '(a|b)*c'"),
        ("levenshtein", "SELECT levenshtein(repeat('a', 20000), repeat('b', 20000))"),
        (
            "a HOP with many windows",
            "SELECT count(*) FROM HOP(e, ts, INTERVAL '1 microsecond', INTERVAL '1000 years') GROUP BY window_start",
        ),
        ("a TUMBLE of nothing", "SELECT count(*) FROM TUMBLE(e, ts, INTERVAL '0 seconds') GROUP BY window_start"),
        ("a TUMBLE of less", "SELECT count(*) FROM TUMBLE(e, ts, INTERVAL '-1 second') GROUP BY window_start"),
        ("a SESSION of ages", "SELECT count(*) FROM SESSION(e, ts, INTERVAL '290000 years') GROUP BY window_start"),
        (
            "a CUMULATE with many steps",
            "SELECT count(*) FROM CUMULATE(e, ts, INTERVAL '1 microsecond', INTERVAL '1 year') GROUP BY window_start",
        ),
    ];
    all.extend(plain.map(|(name, sql)| (name, sql.to_owned())));
    all.push(("regex that nests", format!("SELECT 'a' ~ '{}'", nested(20_000, "(", "a", ")"))));
    all.push(("regex of many words", format!("SELECT 'a' ~ '{}'", chain(100_000, "word", "|"))));
    all
}

/// Statements that are no queries.
fn others() -> Vec<(&'static str, String)> {
    vec![
        ("a wide table", format!("CREATE TABLE wide ({}); DROP TABLE wide", columns(10_000, |i| format!("c{i} int")))),
        ("a deep DEFAULT", format!("CREATE TABLE d (a int DEFAULT {})", nested(100_000, "(", "1", ")"))),
        (
            "a deep watermark",
            format!("CREATE TABLE d (a timestamp, WATERMARK FOR a AS {})", nested(100_000, "(", "a", ")")),
        ),
        ("many rows", format!("INSERT INTO t VALUES {}", chain(100_000, "(1, 'x', NULL)", ","))),
        ("a deep INSERT", format!("INSERT INTO t VALUES ({}, 'x', NULL)", nested(100_000, "(", "1", ")"))),
        ("a deep UPDATE", format!("UPDATE t SET a = {}", chain(100_000, "a", " + "))),
        ("a deep DELETE", format!("DELETE FROM t WHERE {}", chain(100_000, "a = 9", " OR "))),
        ("types in types", format!("CREATE TABLE d (a int{})", "[]".repeat(100_000))),
        ("structs in structs", format!("CREATE TABLE d (a {})", nested(100_000, "STRUCT<a ", "int", ">"))),
        ("EXPLAIN in EXPLAIN", format!("{} SELECT 1", "EXPLAIN ".repeat(100_000))),
        (
            "a deep sink",
            format!("CREATE SINK d AS SELECT {} WITH (connector = 'blackhole')", nested(100_000, "(", "1", ")")),
        ),
        ("names to drop", format!("DROP TABLE IF EXISTS {}", columns(50_000, |i| format!("n{i}")))),
        ("a value to set", format!("SET application_name = '{}'", "x".repeat(900_000))),
        ("a quote that is open", format!("SELECT '{}", "''".repeat(100_000))),
        ("a dollar quote that is open", format!("SELECT $a${}", "$a".repeat(100_000))),
        ("NUL", "SELECT 1 AS \"a\u{1}\"".to_owned()),
    ]
}

struct Harness {
    server: Server,
    client: Client,
    wrong: Vec<String>,
    slow: Vec<(Duration, String)>,
    /// Tells of each statement.
    verbose: bool,
}

impl Harness {
    /// Sends a statement over the wire; the server must answer, and go on.
    async fn wire(&mut self, name: &str, sql: &str) -> bool {
        let began = Instant::now();
        let answer = ask(&self.client, sql).await;
        self.note(began, name, &answer);
        let complaint = match &answer {
            Err(error) if error.starts_with("lost") || error.starts_with("no answer") => Some(error.clone()),
            _ => match ask(&self.client, "SELECT 1").await {
                Ok(rows) if rows == ["1"] => None,
                other => Some(format!("then SELECT 1 gave {other:?}")),
            },
        };
        if let Some(complaint) = complaint {
            self.wrong.push(format!("{name}: {complaint}"));
            self.again().await;
        }
        answer.is_ok()
    }

    /// A new session; after its death, a new server, so that all that is wrong comes to light.
    async fn again(&mut self) {
        std::thread::sleep(Duration::from_millis(200));
        if let Ok(Some(status)) = self.server.process.try_wait() {
            self.wrong.push(format!("  the server ended: {status}"));
            self.server = Server::start();
            self.client = self.server.connect().await;
            ask(&self.client, TABLES).await.expect("the tables");
            return;
        }
        self.client = self.server.connect().await;
    }

    async fn http(&mut self, name: &str, sql: &str) {
        let began = Instant::now();
        match self.server.post(&format!("{LIMIT}; {sql}")) {
            Ok(200 | 400 | 413 | 500) => {}
            other => {
                self.wrong.push(format!("{name}: HTTP answered {other:?}"));
                self.again().await;
            }
        }
        self.note(began, &format!("{name} over HTTP"), &"");
    }

    fn note(&mut self, began: Instant, name: &str, answer: &impl std::fmt::Debug) {
        let took = began.elapsed();
        if self.verbose {
            let answer: String = format!("{answer:?}").chars().take(160).collect();
            eprintln!("{:>6} ms {:>6} MiB  {name}: {answer}", took.as_millis(), self.server.peak() >> 10);
        }
        self.slow.push((took, name.to_owned()));
    }

    async fn view(&mut self, name: &str, query: &str) {
        if self.wire(&format!("view of {name}"), &format!("CREATE MATERIALIZED VIEW h AS {query}")).await {
            self.wire(&format!("dropping the view of {name}"), "DROP MATERIALIZED VIEW h").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_outlives_hostile_statements() {
    let server = Server::start();
    let client = server.connect().await;
    ask(&client, TABLES).await.expect("the tables");
    let mut harness = Harness { server, client, wrong: Vec::new(), slow: Vec::new(), verbose: false };
    harness.verbose = std::env::var_os("TIDEMILL_VERBOSE").is_some();
    let only = std::env::var("TIDEMILL_HOSTILE").unwrap_or_default();
    let mut inserted = 0;
    for (name, sql) in shapes().into_iter().chain(explosions()).filter(|(name, _)| name.contains(&only)) {
        harness.wire(name, &sql).await;
        harness.view(name, &sql).await;
        // The way in is another, what follows is the same.
        if inserted % 4 == 0 {
            harness.http(name, &sql).await;
        }
        inserted += 1;
        let insert = format!("INSERT INTO e VALUES (TIMESTAMP '2024-01-01' + INTERVAL '{inserted} seconds')");
        harness.wire("an honest insert", &insert).await;
    }
    for (name, sql) in others().into_iter().filter(|(name, _)| name.contains(&only)) {
        harness.wire(name, &sql).await;
        harness.http(name, &sql).await;
    }
    assert_eq!(ask(&harness.client, "SELECT n FROM alive").await, Ok(vec![inserted.to_string()]));
    harness.slow.sort();
    let slowest = harness.slow.iter().rev().take(12).map(|(took, name)| format!("{took:.1?} {name}"));
    eprintln!("peak {} MiB; slowest:\n  {}", harness.server.peak() >> 10, slowest.collect::<Vec<_>>().join("\n  "));
    assert!(harness.wrong.is_empty(), "{}", harness.wrong.join("\n"));
    assert!(harness.server.peak() < RESIDENT, "{} KiB were held", harness.server.peak());
}
