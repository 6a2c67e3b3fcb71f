//! Views that have stopped go on; late rows change views that have forgotten.

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use tidemill_env::Env;
use tidemill_sql::parse;

use crate::conductor::publish::tests::{create_superstitious, run};
use crate::{Change, Config, Engine, Session, SubscribeFrom, Subscription};

async fn fails(session: &mut Session, sql: &str) -> String {
    let statement = parse(sql).unwrap().remove(0);
    let error = session.execute(&statement, &[]).await.err().unwrap_or_else(|| panic!("{sql} went well"));
    format!("{}: {}", error.code, error.message)
}

/// A change's rows, each with its weight.
fn rows_of(change: &Change) -> Vec<String> {
    let columns: Vec<_> = change.delta.rows.columns().iter().map(|c| cast(c, &DataType::Utf8).unwrap()).collect();
    let mut rows: Vec<String> = (0..change.delta.len())
        .map(|i| {
            let cells: Vec<&str> = columns.iter().map(|c| c.as_string::<i32>().value(i)).collect();
            format!("{:+} {}", change.delta.weight(i), cells.join(" "))
        })
        .collect();
    rows.sort_unstable();
    rows
}

fn changes(subscription: &mut Subscription) -> Vec<Vec<String>> {
    std::iter::from_fn(|| subscription.poll_now().unwrap()).map(|change| rows_of(&change)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_view_is_built_anew_with_what_reads_it() {
    for workers in [1, 3] {
        let engine = Engine::start(Config { workers, ..Config::default() }, Env::real()).unwrap();
        let mut session = engine.session();
        run(&mut session, "CREATE TABLE t (a int)").await;
        create_superstitious(&engine).await;
        run(&mut session, "CREATE MATERIALIZED VIEW above AS SELECT sum(b) AS s FROM v").await;
        run(&mut session, "INSERT INTO t VALUES (12)").await;
        assert_eq!(
            fails(&mut session, "ALTER MATERIALIZED VIEW v RESUME").await,
            "55000: materialized view v has not stopped"
        );
        run(&mut session, "INSERT INTO t VALUES (13)").await;
        run(&mut session, "INSERT INTO t VALUES (14)").await;
        // What stopped it is still there.
        let error = fails(&mut session, "ALTER MATERIALIZED VIEW v RESUME").await;
        assert_eq!(error, "22000: the view cannot be computed: thirteen!");
        let status = engine.status();
        let state_of = |name: &str| status.relations.iter().find(|r| r.relation.name == name).unwrap().state.clone();
        assert_eq!([state_of("v"), state_of("above")], ["stopped", "stopped"]);
        assert_eq!(run(&mut session, "SELECT s FROM above").await, ["12"]);

        run(&mut session, "DELETE FROM t WHERE a = 13").await;
        let mut seen = engine.subscribe("v", SubscribeFrom::Now).unwrap();
        run(&mut session, "ALTER MATERIALIZED VIEW v RESUME").await;
        assert_eq!(changes(&mut seen), [["+1 14"]], "the difference, at once");
        run(&mut session, "ALTER MATERIALIZED VIEW above RESUME").await;
        assert_eq!(run(&mut session, "SELECT s FROM above").await, ["26"]);
        run(&mut session, "INSERT INTO t VALUES (15)").await;
        assert_eq!(run(&mut session, "SELECT s FROM above").await, ["41"]);
        let status = engine.status();
        let states = status.relations.iter().filter(|r| ["v", "above"].contains(&r.relation.name.as_str()));
        assert!(states.clone().all(|r| r.state == "running" && r.reason.is_none()), "{:?}", states.collect::<Vec<_>>());
        // One that reads a view that stops later, and goes on with it.
        run(&mut session, "INSERT INTO t VALUES (13)").await;
        run(&mut session, "DELETE FROM t WHERE a = 13 OR a = 12").await;
        let mut seen = engine.subscribe("above", SubscribeFrom::Now).unwrap();
        run(&mut session, "ALTER MATERIALIZED VIEW v RESUME").await;
        assert_eq!(changes(&mut seen), [["+1 29", "-1 41"]]);
        run(&mut session, "DROP MATERIALIZED VIEW v CASCADE").await;
        engine.shutdown();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_see_what_late_rows_change() {
    let engine = Engine::start(Config { workers: 2, ..Config::default() }, Env::real()).unwrap();
    let mut session = engine.session();
    let sql = "
        CREATE TABLE t (ts timestamp, x int, WATERMARK FOR ts AS ts);
        CREATE MATERIALIZED VIEW w AS SELECT x % 7 AS k, window_start, count(*) AS n
            FROM TUMBLE(t, ts, INTERVAL '1 minute') GROUP BY x % 7, window_start;
        CREATE MATERIALIZED VIEW errors AS SELECT 10 / (x - 5) AS e FROM t WHERE x < 10;
        CREATE MATERIALIZED VIEW broken AS SELECT window_start, sum(10 / (x - 5)) AS e
            FROM TUMBLE(t, ts, INTERVAL '1 minute') GROUP BY window_start;
        INSERT INTO t SELECT TIMESTAMP '2024-01-01' + i * INTERVAL '10 milliseconds', i::int FROM generate_series(0, 99999) AS g(i);
        INSERT INTO t VALUES ('2024-01-02', 1);
        INSERT INTO t VALUES ('2024-01-02', 2)";
    run(&mut session, sql).await;
    run(&mut session, "INSERT INTO t VALUES ('2024-01-01 00:00:30', 700), ('2024-01-01 12:00:00', 5)").await;
    let windows = run(&mut session, "SELECT count(*) FROM w").await;
    let errors = run(&mut session, "SELECT count(*) FROM broken$errors").await;
    assert_eq!(errors, ["1"]);
    let mut seen = engine.subscribe("w", SubscribeFrom::Now).unwrap();
    let mut seen_table = engine.subscribe("t", SubscribeFrom::Now).unwrap();
    run(&mut session, "APPLY LATE FROM t$late").await;
    let [change] = &changes(&mut seen)[..] else { panic!("one change") };
    assert_eq!(
        change[..],
        ["+1 0 2024-01-01T00:00:00 859", "+1 5 2024-01-01T12:00:00 1", "-1 0 2024-01-01T00:00:00 858"]
    );
    assert_eq!(changes(&mut seen_table).iter().map(Vec::len).collect::<Vec<_>>(), [2]);
    assert_eq!(run(&mut session, "SELECT count(*) - 1 FROM w").await, windows);
    // The row with the error is there anew, and the one of before did not come twice.
    assert_eq!(run(&mut session, "SELECT count(*) FROM broken$errors").await, ["2"]);
    assert_eq!(run(&mut session, "SELECT count(*) FROM errors$errors").await, ["2"]);
    let none: Vec<String> = Vec::new();
    assert_eq!(run(&mut session, "VERIFY w").await, none);
    engine.shutdown();
}
