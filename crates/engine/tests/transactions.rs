//! Two sessions that take out the same rows.

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use tidemill_engine::{Config, Engine, Response, Session, SqlError, parse};
use tidemill_env::Env;

async fn run(session: &mut Session, sql: &str) -> Result<Vec<i64>, SqlError> {
    let mut numbers = Vec::new();
    for statement in parse(sql).expect("SQL") {
        let Response::Rows { batches, .. } = session.execute(&statement, &[]).await? else { continue };
        let of = |rows: &arrow::array::RecordBatch| rows.column(0).as_primitive::<Int64Type>().values().to_vec();
        numbers = batches.iter().flat_map(of).collect();
    }
    Ok(numbers)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_taken_out_once() {
    let engine = Engine::start(Config { workers: 2, ..Config::default() }, Env::real()).expect("the engine starts");
    let (mut one, mut two) = (engine.session(), engine.session());
    for key in ["", " PRIMARY KEY"] {
        let setup = format!(
            "CREATE TABLE t (a bigint{key}); INSERT INTO t VALUES (1), (2);
             CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM t"
        );
        run(&mut one, &setup).await.expect("runs");
        for (first, second) in [
            ("DELETE FROM t WHERE a = 1", "DELETE FROM t WHERE a = 1"),
            ("TRUNCATE t", "UPDATE t SET a = 5 WHERE a = 2"),
        ] {
            run(&mut one, &format!("BEGIN; {first}")).await.expect("runs");
            run(&mut two, second).await.expect("runs");
            let error = run(&mut one, "COMMIT").await.expect_err("the row is gone");
            assert_eq!(error.code, "40001", "{error}");
            assert_eq!(run(&mut two, "SELECT a FROM t").await.expect("runs").len(), 1);
            run(&mut two, "ROLLBACK").await.expect("runs");
        }
        assert_eq!(run(&mut one, "SELECT n FROM v").await.expect("runs"), [1]);
        // What comes meanwhile is in nobody's way.
        run(&mut one, "BEGIN; DELETE FROM t WHERE a = 5").await.expect("runs");
        run(&mut two, "INSERT INTO t VALUES (7), (8)").await.expect("runs");
        run(&mut one, "COMMIT; DELETE FROM t WHERE a = 7; DELETE FROM t WHERE a = 8").await.expect("runs");
        assert_eq!(run(&mut one, "SELECT n FROM v").await.expect("runs"), [0]);
        run(&mut one, "DROP TABLE t CASCADE").await.expect("runs");
    }
    drop((one, two));
    engine.shutdown();
}
