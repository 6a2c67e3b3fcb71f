//! For every table and source: the rows that came in are those applied, late and bad together, after whatever was done.
//!
//! Random requests and statements, of which some fail, go to tables with and without a key and a watermark. A count kept beside them
//! says how many rows came in; side tables and `SHOW` say what became of them. `TIDEMILL_SEED` seeds them.

#[path = "slt/random.rs"]
mod random;

use std::sync::Arc;

use arrow::array::{Array, AsArray, Int32Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use random::Random;
use tidemill_engine::{BadRow, Config, Engine, Response, Session, parse};
use tidemill_env::Env;

const TABLES: [&str; 4] = ["plain", "keyed", "timed", "both"];
const STEPS: usize = 250;
const SECOND: i64 = 1_000_000;

async fn run(session: &mut Session, sql: &str) -> Result<(String, Vec<Vec<String>>), String> {
    let mut rows = Vec::new();
    let mut tag = String::new();
    for statement in parse(sql).map_err(|e| e.to_string())? {
        let answer = session.execute(&statement, &[]).await.map_err(|e| format!("{}: {}", e.code, e.message))?;
        match answer {
            Response::Rows { batches, .. } => rows = batches.iter().flat_map(cells).collect(),
            Response::Done(done) => tag = done,
            _ => {}
        }
    }
    Ok((tag, rows))
}

fn cells(batch: &RecordBatch) -> Vec<Vec<String>> {
    let columns: Vec<_> = batch.columns().iter().map(|c| cast(c, &DataType::Utf8).expect("text")).collect();
    let cell = |c: &arrow::array::ArrayRef, i: usize| match c.is_null(i) {
        true => String::new(),
        false => c.as_string::<i32>().value(i).to_owned(),
    };
    (0..batch.num_rows()).map(|i| columns.iter().map(|c| cell(c, i)).collect()).collect()
}

async fn number(session: &mut Session, sql: &str) -> u64 {
    let (_, rows) = run(session, sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    rows[0][0].parse().expect("a number")
}

/// The number at the end of a command tag.
fn count_of(tag: &str) -> u64 {
    tag.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("no count in {tag}"))
}

/// Event times move on, with some long ago and some far ahead.
fn time(random: &mut Random, step: usize) -> i64 {
    let base = 1_700_000_000 * SECOND + step as i64 * 10 * SECOND;
    match random.below(12) {
        0 | 1 => base - 100_000 * SECOND,
        2 => base + 4_000_000_000 * SECOND,
        _ => base + random.below(5) as i64 * SECOND,
    }
}

fn literal(micros: i64) -> String {
    format!("to_timestamp({}.0)::timestamp", micros / SECOND)
}

fn rows(random: &mut Random, step: usize) -> RecordBatch {
    let len = random.below(6);
    let ids = Int32Array::from_iter_values((0..len).map(|_| random.below(40) as i32));
    let times = TimestampMicrosecondArray::from_iter_values((0..len).map(|_| time(random, step)));
    let fields = vec![
        Field::new("id", DataType::Int32, false),
        Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true),
    ];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![Arc::new(ids), Arc::new(times)]).expect("rows")
}

/// Does something to a table; tells how many rows came in.
async fn step(engine: &Engine, session: &mut Session, table: &str, random: &mut Random, step: usize) -> u64 {
    match random.below(8) {
        0 | 1 => {
            let bad = |i| BadRow { position: i, bytes: b"{".to_vec(), reason: format!("no {step}") };
            let bad: Vec<BadRow> = (0..random.below(3) as u64).map(bad).collect();
            let batches = vec![rows(random, step), rows(random, step)];
            let sent = batches.iter().map(|b| b.num_rows() as u64).sum::<u64>() + bad.len() as u64;
            let relation = engine.relation(table).expect("a table");
            let receipt = engine.ingest(&relation, &[0, 1], batches, bad, true).await.expect("rows go in");
            assert_eq!(receipt.accepted + receipt.refused, sent);
            sent
        }
        2 | 3 => {
            let (count, first) = (1 + random.below(4), random.below(50) * 4);
            let value = |k: usize| format!("({}, {})", first + k, literal(time(random, step)));
            let values: Vec<String> = (0..count).map(value).collect();
            let ending = if random.below(2) == 0 { "" } else { " ON CONFLICT DO NOTHING" };
            let answer = run(session, &format!("INSERT INTO {table} VALUES {}{ending}", values.join(", "))).await;
            // All or nothing: a key that is taken.
            answer.map_or(0, |_| values.len() as u64)
        }
        4 => {
            let sql = format!("UPDATE {table} SET ts = ts + INTERVAL '1 second' WHERE id < {}", random.below(20));
            run(session, &sql).await.map_or(0, |(tag, _)| count_of(&tag))
        }
        5 => {
            let sql = format!("DELETE FROM {table} WHERE id > {}", 30 + random.below(20));
            run(session, &sql).await.map_or(0, |(tag, _)| count_of(&tag))
        }
        6 => {
            let row = format!("({}, {})", 1000 + step, literal(time(random, step)));
            let ends = ["COMMIT", "ROLLBACK", "INSERT INTO nowhere VALUES (1); COMMIT"];
            let end = ends[random.below(3)];
            let done = run(session, &format!("BEGIN; INSERT INTO {table} VALUES {row}; {end}")).await;
            if done.is_err() {
                run(session, "ROLLBACK").await.expect("a rollback");
            }
            u64::from(done.is_ok() && end == "COMMIT")
        }
        _ => {
            if table == "timed" || table == "both" {
                let before = number(session, &format!("SELECT count(*) FROM {table}")).await;
                let sql = format!("APPLY LATE FROM {table}$late WHERE id % 3 = {}", random.below(3));
                let (tag, _) = run(session, &sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
                let after = number(session, &format!("SELECT count(*) FROM {table}")).await;
                assert_eq!(after - before, count_of(&tag), "{sql}");
            }
            0
        }
    }
}

/// What `SHOW TABLES` says: rows, in, applied, late, bad.
async fn shown(session: &mut Session, table: &str) -> [u64; 5] {
    let (_, rows) = run(session, "SHOW TABLES").await.expect("tables");
    let row = rows.iter().find(|row| row[0] == table).expect("the table");
    [2, 3, 4, 5, 6].map(|column| row[column].parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_is_applied_or_late_or_bad() {
    let seed = std::env::var("TIDEMILL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut random = Random::new(seed);
    let config = Config { workers: 2, ..Config::default() };
    let engine = Engine::start(config, Env::real()).expect("the engine starts");
    let mut session = engine.session();
    let sql = "CREATE TABLE plain (id int, ts timestamp);
        CREATE TABLE keyed (id int PRIMARY KEY, ts timestamp);
        CREATE TABLE timed (id int, ts timestamp, WATERMARK FOR ts AS ts - INTERVAL '5 seconds');
        CREATE TABLE both (id int PRIMARY KEY, ts timestamp, WATERMARK FOR ts AS ts - INTERVAL '5 seconds');
        CREATE MATERIALIZED VIEW v AS SELECT window_start, count(*) AS n FROM TUMBLE(timed, ts, INTERVAL '1 minute') GROUP BY window_start;
        CREATE MATERIALIZED VIEW w AS SELECT b.id, t.ts FROM both b JOIN timed t
            ON b.id = t.id AND t.ts BETWEEN b.ts AND b.ts + INTERVAL '1 minute'";
    run(&mut session, sql).await.expect("definitions");
    let mut came_in = [0u64; TABLES.len()];
    let mut side = [0u64; 2];
    for i in 0..STEPS {
        let at = random.below(TABLES.len());
        let table = TABLES[at];
        came_in[at] += step(&engine, &mut session, table, &mut random, i).await;
        let [rows, came, applied, late, bad] = shown(&mut session, table).await;
        assert_eq!(came, applied + late + bad, "seed {seed}, step {i}: {table}");
        assert_eq!(came, came_in[at], "seed {seed}, step {i}: {table}");
        assert_eq!(bad, number(&mut session, &format!("SELECT count(*) FROM {table}$bad")).await, "{table}, step {i}");
        if table == "timed" || table == "both" {
            let waiting = number(&mut session, &format!("SELECT count(*) FROM {table}$late")).await;
            assert_eq!(late, waiting, "seed {seed}, step {i}: {table}");
            side[0] += late;
        }
        if table == "timed" {
            assert_eq!(rows, applied, "seed {seed}, step {i}: {table}");
        }
        side[1] += bad;
    }
    assert!(side.iter().all(|n| *n > 0), "nothing was late or bad: {side:?}");
    for view in ["v", "w"] {
        assert_eq!(run(&mut session, &format!("VERIFY {view}")).await.expect("a verdict").1, Vec::<Vec<String>>::new());
    }
    engine.shutdown();
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_count_too() {
    let folder = std::env::temp_dir().join(format!("tidemill-counts-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let lines = |from: i64| -> String {
        let line = |i: i64| match i % 10 {
            3 => "{\"id\": oops}\n".to_owned(),
            7 => format!("{{\"id\": {i}, \"ts\": \"2024-01-01T00:00:00\"}}\n"),
            8 => format!("{{\"id\": {i}, \"ts\": \"2999-01-01T00:00:00\"}}\n"),
            _ => format!("{{\"id\": {i}, \"ts\": \"2024-02-01T00:{:02}:00\"}}\n", (i / 100) % 60),
        };
        (from..from + 2_000).map(line).collect()
    };
    std::fs::write(folder.join("a.json"), lines(0)).expect("a file");
    let config = Config { max_epoch_rows: 100, ..Config::default() };
    let engine = Engine::start(config, Env::real()).expect("the engine starts");
    let mut session = engine.session();
    let sql = format!(
        "CREATE SOURCE s (id int, ts timestamp, WATERMARK FOR ts AS ts) WITH (connector = 'file', path = '{}/*.json', format = 'json');
         CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM s",
        folder.display()
    );
    run(&mut session, &sql).await.unwrap_or_else(|e| panic!("{e}"));
    engine.wait_for_end_of_input().await.expect("the end");
    let (_, shown) = run(&mut session, "SHOW SOURCES").await.expect("sources");
    let counts: Vec<u64> = (2..6).map(|c| shown[0][c].parse().expect("a number")).collect();
    let late = number(&mut session, "SELECT count(*) FROM s$late").await;
    assert_eq!(counts[..], [2_000, 2_000 - 200 - late, late, 200]);
    assert_eq!(number(&mut session, "SELECT n FROM v").await, counts[1]);
    let ahead = "SELECT count(*) FROM s$late WHERE reason = 'stamped more than 1 hour ahead of its arrival'";
    assert_eq!(number(&mut session, ahead).await, 200);
    assert!(late > 300, "{late} late rows");
    engine.shutdown();
    std::fs::remove_dir_all(&folder).expect("the folder goes");
}

#[tokio::test(flavor = "multi_thread")]
async fn side_tables_keep_the_last_rows() {
    let config = Config { side_table_rows: 10, ..Config::default() };
    let engine = Engine::start(config, Env::real()).expect("the engine starts");
    let mut session = engine.session();
    let sql = "CREATE TABLE t (id int, ts timestamp);
        CREATE MATERIALIZED VIEW reasons AS SELECT reason FROM t$bad;
        CREATE MATERIALIZED VIEW v AS SELECT 10 / id AS x, ts FROM t";
    run(&mut session, sql).await.expect("definitions");
    let relation = engine.relation("t").expect("a table");
    for i in 0..25u64 {
        let bad = vec![BadRow { position: i, bytes: Vec::new(), reason: format!("no {i}") }];
        engine.ingest(&relation, &[0, 1], Vec::new(), bad, true).await.expect("a bad row");
    }
    let expected: Vec<Vec<String>> = (15..25).map(|i| vec![format!("no {i}")]).collect();
    for from in ["t$bad", "reasons"] {
        let (_, rows) = run(&mut session, &format!("SELECT reason FROM {from} ORDER BY reason")).await.expect("rows");
        assert_eq!(rows, expected, "{from}");
    }
    assert_eq!(shown(&mut session, "t").await, [0, 25, 0, 0, 25], "they are counted all the same");
    for i in 0..25 {
        let sql = format!("INSERT INTO t VALUES (0, '2024-01-01'::timestamp + INTERVAL '{i} days')");
        run(&mut session, &sql).await.expect("a row");
    }
    assert_eq!(number(&mut session, "SELECT count(*) FROM v$errors").await, 10);
    // An error that has gone already does not go twice with its row.
    run(&mut session, "DELETE FROM t WHERE ts < '2024-01-20'").await.expect("rows go");
    assert_eq!(number(&mut session, "SELECT count(*) FROM v$errors").await, 6);
    run(&mut session, "DELETE FROM t").await.expect("rows go");
    assert_eq!(number(&mut session, "SELECT count(*) FROM v$errors").await, 0);
    engine.shutdown();
}
