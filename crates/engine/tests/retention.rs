//! Tables whose rows go by themselves: by age and by number, with and without a key, through views, sinks and restarts.

#![allow(clippy::disallowed_methods, reason = "tests wait and measure by the real clock")]

use std::path::Path;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use tidemill_engine::{Config, Data, Engine, Response, Session, parse};
use tidemill_env::Env;

/// Runs statements; gives the rows of the last one as text, cells separated by `|`.
async fn run(session: &mut Session, sql: &str) -> Vec<String> {
    let mut rows = Vec::new();
    for statement in parse(sql).expect("SQL") {
        let answer = session.execute(&statement, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let Response::Rows { batches, .. } = answer else { continue };
        rows.clear();
        for batch in batches {
            let columns: Vec<_> = batch.columns().iter().map(|c| cast(c, &DataType::Utf8).expect("text")).collect();
            let cell =
                |c: &dyn Array, row| if c.is_null(row) { "NULL" } else { c.as_string::<i32>().value(row) }.to_owned();
            let row = |row| columns.iter().map(|c| cell(c.as_ref(), row)).collect::<Vec<_>>().join("|");
            rows.extend((0..batch.num_rows()).map(row));
        }
    }
    rows
}

async fn refused(session: &mut Session, sql: &str) -> (String, String) {
    let parsed = match parse(sql) {
        Ok(mut all) => all.remove(0),
        Err(error) => return (error.code.to_string(), error.message),
    };
    let error = session.execute(&parsed, &[]).await.err().unwrap_or_else(|| panic!("{sql} is not refused"));
    (error.code.to_string(), error.message)
}

async fn until(session: &mut Session, sql: &str, wanted: &[&str]) {
    let (began, mut got) = (Instant::now(), Vec::new());
    while began.elapsed() < Duration::from_secs(60) {
        got = run(session, sql).await;
        if got == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{sql}: {got:?}, not {wanted:?}");
}

fn engine(data: Option<&Path>) -> Engine {
    let data = data.map(|folder| Data { checkpoint_every: Duration::from_millis(50), ..Data::new(folder) });
    Engine::start(Config { workers: 2, data, ..Config::default() }, Env::real()).expect("the engine starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_go_when_they_are_too_old_and_views_follow() {
    for key in ["", " PRIMARY KEY"] {
        let folder = tempfile::tempdir().expect("a folder");
        let start = || engine(Some(folder.path()));
        let mut running = start();
        let mut session = running.session();
        let create = format!(
            "CREATE TABLE t (id bigint{key}, at timestamp NOT NULL, n bigint)
                WITH (retention = '7 days', retention_column = 'at');
             CREATE MATERIALIZED VIEW v AS SELECT count(*) AS rows, sum(n) AS n, max(n) AS most FROM t;
             CREATE MATERIALIZED VIEW j AS SELECT a.id, b.n FROM t AS a JOIN t AS b ON a.id = b.id"
        );
        run(&mut session, &create).await;
        // More than go in one epoch; 70,000 of them are too old.
        run(
            &mut session,
            "INSERT INTO t SELECT i, timestamp '2000-01-01' + i * interval '1 second', i FROM generate_series(1, 70000) AS g(i);
             INSERT INTO t VALUES (-1, timestamp '2200-01-01', -5), (-2, now() - interval '1 day', -6),
                (-3, now() - interval '8 days', 80000)",
        )
        .await;
        until(&mut session, "SELECT rows, n, most FROM v", &["2|-11|-5"]).await;
        assert_eq!(run(&mut session, "SELECT id FROM t ORDER BY id").await, ["-2", "-1"]);
        assert_eq!(run(&mut session, "SELECT id, n FROM j ORDER BY id").await, ["-2|-6", "-1|-5"]);
        for view in ["v", "j"] {
            assert_eq!(run(&mut session, &format!("VERIFY MATERIALIZED VIEW {view}")).await, Vec::<String>::new());
        }
        // They came in and were applied; that they went is no arrival.
        let counts = run(&mut session, "SHOW TABLES").await.into_iter().find(|line| line.starts_with("t|"));
        assert!(counts.as_ref().is_some_and(|line| line.starts_with("t|running|2|70003|70003|0|0")), "{counts:?}");
        drop(session);
        running.shutdown();

        running = start();
        let mut session = running.session();
        assert_eq!(run(&mut session, "SELECT rows, n, most FROM v").await, ["2|-11|-5"]);
        // The option is a part of the definition.
        run(&mut session, "INSERT INTO t VALUES (9, timestamp '2001-01-01', 9)").await;
        until(&mut session, "SELECT rows, n, most FROM v", &["2|-11|-5"]).await;
        drop(session);
        running.shutdown();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_eldest_go_when_there_are_too_many() {
    let running = engine(None);
    let mut session = running.session();
    run(
        &mut session,
        "CREATE TABLE t (day date NOT NULL, n bigint) WITH (retention_rows = 100, retention_column = day);
         CREATE MATERIALIZED VIEW v AS SELECT count(*) AS rows, min(day) AS first, sum(n) AS n FROM t;
         INSERT INTO t SELECT date '2020-01-01' + CAST(i / 10 AS int), 1 FROM generate_series(0, 999) AS g(i)",
    )
    .await;
    until(&mut session, "SELECT rows, n FROM v", &["100|100"]).await;
    assert_eq!(run(&mut session, "SELECT first FROM v").await, ["2020-03-31"]);
    // Of a day that goes in part, so many go as have to; equal rows too.
    run(&mut session, "INSERT INTO t VALUES (date '2020-06-01', 7), (date '2020-06-01', 7), (date '2019-01-01', 1000)")
        .await;
    until(&mut session, "SELECT rows, n FROM v", &["100|112"]).await;
    assert_eq!(run(&mut session, "SELECT count(*) FROM t WHERE day = date '2020-03-31'").await, ["8"]);
    run(&mut session, "INSERT INTO t SELECT date '2021-01-01', 1 FROM generate_series(1, 250)").await;
    until(&mut session, "SELECT rows, first, n FROM v", &["100|2021-01-01|100"]).await;
    assert_eq!(run(&mut session, "VERIFY MATERIALIZED VIEW v").await, Vec::<String>::new());
    // Deleted rows make room.
    run(&mut session, "DELETE FROM t; INSERT INTO t VALUES (date '1999-01-01', 3)").await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(run(&mut session, "SELECT rows, n FROM v").await, ["1|3"]);
    drop(session);
    running.shutdown();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_eldest_go_when_they_are_too_large() {
    let running = engine(None);
    let mut session = running.session();
    // A date takes 4 bytes, a text its own.
    run(
        &mut session,
        "CREATE TABLE t (day date NOT NULL, text text) WITH (retention_size = '10 kB', retention_column = day);
         CREATE MATERIALIZED VIEW v AS SELECT count(*) AS rows, min(day) AS first, sum(4 + length(text)) AS bytes FROM t;
         INSERT INTO t SELECT date '2020-01-01' + CAST(i AS int), repeat('x', 96) FROM generate_series(0, 149) AS g(i)",
    )
    .await;
    until(&mut session, "SELECT rows, first, bytes FROM v", &["100|2020-02-20|10000"]).await;
    // Larger ones take more with them; of a day that goes in part, what has to.
    run(&mut session, "INSERT INTO t VALUES (date '2021-01-01', repeat('y', 4996))").await;
    until(&mut session, "SELECT rows, first, bytes FROM v", &["51|2020-04-10|10000"]).await;
    run(&mut session, "INSERT INTO t SELECT date '2022-01-01', repeat('z', 6) FROM generate_series(1, 2000) AS g(i)")
        .await;
    until(&mut session, "SELECT rows, first, bytes FROM v", &["1000|2022-01-01|10000"]).await;
    assert_eq!(run(&mut session, "VERIFY MATERIALIZED VIEW v").await, Vec::<String>::new());
    drop(session);
    running.shutdown();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_go_beside_statements_that_change_them() {
    let running = engine(None);
    let mut session = running.session();
    run(
        &mut session,
        "CREATE TABLE t (id bigint PRIMARY KEY, at timestamp NOT NULL)
            WITH (retention = '1 hour', retention_column = 'at', retention_rows = 50);
         CREATE TABLE u (id bigint, at timestamp NOT NULL) WITH (retention_rows = 50, retention_column = 'at');
         CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM t;
         CREATE MATERIALIZED VIEW w AS SELECT count(*) AS n FROM u",
    )
    .await;
    let began = Instant::now();
    let mut round = 0;
    while began.elapsed() < Duration::from_secs(4) {
        round += 1;
        run(
            &mut session,
            &format!(
                "INSERT INTO t SELECT i, now() - i * interval '1 minute' FROM generate_series(1, 200) AS g(i)
                    ON CONFLICT (id) DO UPDATE SET at = EXCLUDED.at;
                 DELETE FROM t WHERE id % 7 = {}; UPDATE t SET at = now() WHERE id % 5 = 0;
                 INSERT INTO u SELECT i, now() FROM generate_series(1, 100) AS g(i);
                 DELETE FROM u WHERE id % 3 = 0",
                round % 7
            ),
        )
        .await;
    }
    until(&mut session, "SELECT CAST(n <= 50 AS text), (SELECT CAST(n <= 50 AS text) FROM w) FROM v", &["true|true"])
        .await;
    for view in ["v", "w"] {
        assert_eq!(run(&mut session, &format!("VERIFY MATERIALIZED VIEW {view}")).await, Vec::<String>::new());
    }
    run(&mut session, "DROP TABLE t CASCADE; DROP TABLE u CASCADE").await;
    drop(session);
    running.shutdown();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused() {
    let running = engine(None);
    let mut session = running.session();
    for (sql, code, told) in [
        ("CREATE TABLE t (at timestamp) WITH (retention = '1 day', retention_column = 'at')", "42804", "may be NULL"),
        ("CREATE TABLE t (at text NOT NULL) WITH (retention = '1 day', retention_column = 'at')", "42804", "not text"),
        (
            "CREATE TABLE t (at date NOT NULL) WITH (retention = '1 day', retention_column = 'a')",
            "42703",
            "does not exist",
        ),
        (
            "CREATE TABLE t (at timestamp NOT NULL, WATERMARK FOR at AS at) WITH (retention = '1 day', retention_column = 'at')",
            "22023",
            "only grows",
        ),
    ] {
        let (own, message) = refused(&mut session, sql).await;
        assert!(own == code && message.contains(told), "{sql}: {own} {message}");
    }
    running.shutdown();
}
