//! Views that are being created: they fail, nobody waits for them any more, or they take another one's place.

#![allow(clippy::disallowed_methods, reason = "tests wait by the real clock")]

use std::path::Path;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use tidemill_engine::{Config, Data, Engine, Response, Session, parse};
use tidemill_env::Env;

fn start(folder: &Path, checkpoint_every: Duration) -> Engine {
    let data = Data { checkpoint_every, ..Data::new(folder) };
    let config = Config { workers: 2, data: Some(data), ..Config::default() };
    Engine::start(config, Env::real()).expect("the engine starts")
}

async fn attempt(session: &mut Session, sql: &str) -> Result<Vec<String>, String> {
    let mut rows = Vec::new();
    for statement in parse(sql).map_err(|e| e.to_string())? {
        let answer = session.execute(&statement, &[]).await.map_err(|e| e.to_string())?;
        let Response::Rows { batches, .. } = answer else { continue };
        rows.clear();
        for batch in batches {
            let columns: Vec<_> = batch.columns().iter().map(|c| cast(c, &DataType::Utf8).expect("text")).collect();
            let row = |row| columns.iter().map(|c| c.as_string::<i32>().value(row)).collect::<Vec<_>>().join("|");
            rows.extend((0..batch.num_rows()).map(row));
        }
    }
    Ok(rows)
}

async fn run(session: &mut Session, sql: &str) -> Vec<String> {
    attempt(session, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// Takes long over many rows: each slice of history changes all groups.
const SLOW: &str = "SELECT a % 100 AS k, string_agg(CAST(a AS text), ',' ORDER BY a) AS list FROM t GROUP BY a % 100";
/// Gives more rows than there may be in one epoch.
const FAILING: &str = "SELECT x.a, y.a AS b FROM t AS x, t AS y";

/// A start with checkpoints as they come, and one where all is in the journal.
const EVERY: [Duration; 2] = [Duration::ZERO, Duration::from_secs(3600)];

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_or_was_given_up_leaves_nothing_behind() {
    for every in EVERY {
        let folder = tempfile::tempdir().expect("a folder");
        let engine = start(folder.path(), every);
        let mut session = engine.session();
        run(&mut session, "CREATE TABLE t (a int); INSERT INTO t SELECT i FROM generate_series(1, 200000) AS g(i)")
            .await;
        let error =
            attempt(&mut session, &format!("CREATE MATERIALIZED VIEW f AS {FAILING}")).await.expect_err("too much");
        assert!(error.contains("cannot be computed"), "{error}");
        for view in ["v", "v", "w"] {
            let sql = format!("CREATE MATERIALIZED VIEW {view} AS {SLOW}");
            let given_up = tokio::time::timeout(Duration::from_millis(40), run(&mut session, &sql)).await;
            assert!(given_up.is_err(), "it is too fast to be given up");
        }
        // The names are free, and nothing reads the table.
        run(&mut session, "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM t").await;
        assert_eq!(run(&mut session, "SELECT n FROM v").await, ["200000"]);
        assert_eq!(run(&mut session, "SHOW VIEWS").await.len(), 1);
        drop(session);
        engine.shutdown();
        drop(engine);

        let engine = start(folder.path(), every);
        let mut session = engine.session();
        assert_eq!(run(&mut session, "SHOW VIEWS").await.len(), 1);
        run(&mut session, "DROP MATERIALIZED VIEW v; DROP TABLE t").await;
        drop(session);
        engine.shutdown();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_replaced_when_the_new_one_is_complete_and_else_stays() {
    for every in EVERY {
        let folder = tempfile::tempdir().expect("a folder");
        let engine = start(folder.path(), every);
        let mut session = engine.session();
        run(
            &mut session,
            "CREATE TABLE t (a int); INSERT INTO t SELECT i FROM generate_series(1, 200000) AS g(i);
             CREATE TABLE only_before (a int); INSERT INTO only_before VALUES (7);
             CREATE MATERIALIZED VIEW v AS SELECT sum(a) AS n FROM only_before; CREATE VIEW p AS SELECT a FROM only_before",
        )
        .await;
        for query in ["SELECT b FROM t", "SELECT n FROM v", FAILING] {
            let sql = format!("CREATE OR REPLACE MATERIALIZED VIEW v AS {query}");
            assert!(attempt(&mut session, &sql).await.is_err(), "{sql} is not refused");
            assert_eq!(run(&mut session, "SELECT n FROM v").await, ["7"], "after {sql}");
        }
        let slow = format!("CREATE OR REPLACE MATERIALIZED VIEW v AS {SLOW}");
        let given_up = tokio::time::timeout(Duration::from_millis(40), run(&mut session, &slow)).await;
        assert!(given_up.is_err(), "it is too fast to be given up");
        assert_eq!(run(&mut session, "INSERT INTO only_before VALUES (1); SELECT n FROM v").await, ["8"]);

        // Until the new one is complete the old one is read, and kept current.
        let mut other = engine.session();
        let replaced = run(&mut session, &slow);
        let reads = async {
            let mut seen = 0;
            while let Ok(rows) = attempt(&mut other, "INSERT INTO only_before VALUES (1); SELECT n FROM v").await {
                assert_eq!(rows, [(9 + seen).to_string()]);
                seen += 1;
            }
            seen
        };
        let (_, seen) = tokio::join!(replaced, reads);
        assert!(seen > 0, "the old view was never read");
        let lists = run(&mut session, "SELECT count(*), min(length(list)) > 1000 FROM v").await;
        assert_eq!(lists, ["100|true"]);
        run(&mut session, "CREATE OR REPLACE VIEW p AS SELECT a + 1 AS a FROM t WHERE a < 3").await;
        drop(session);
        drop(other);
        engine.shutdown();
        drop(engine);

        let engine = start(folder.path(), every);
        let mut session = engine.session();
        assert_eq!(run(&mut session, "SELECT count(*) FROM v").await, ["100"]);
        assert_eq!(run(&mut session, "SELECT a FROM p ORDER BY a").await, ["2", "3"]);
        assert_eq!(run(&mut session, "VERIFY MATERIALIZED VIEW v").await, Vec::<String>::new());
        // The old ones are gone.
        run(&mut session, "DROP TABLE only_before").await;
        assert_eq!(run(&mut session, "SHOW VIEWS").await.len(), 1);
        drop(session);
        engine.shutdown();
    }
}
