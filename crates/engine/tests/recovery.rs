//! Stopping and starting again on one folder: what readers, subscribers and sources find afterwards.

use std::path::Path;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use tidemill_engine::{Config, Data, Engine, Response, Session, SubscribeFrom, parse};
use tidemill_env::Env;

/// A start without, and one with a checkpoint at every chance.
const EVERY: [Duration; 2] = [Duration::from_secs(3600), Duration::ZERO];

fn start(folder: &Path, checkpoint_every: Duration, workers: usize) -> Engine {
    let data = Data { checkpoint_every, ..Data::new(folder) };
    let config = Config { workers, max_epoch_rows: 1000, data: Some(data), ..Config::default() };
    Engine::start(config, Env::real()).expect("the engine starts")
}

/// Runs statements; gives the last one's rows as text.
async fn run(session: &mut Session, sql: &str) -> Vec<String> {
    let mut rows = Vec::new();
    for statement in parse(sql).expect("SQL") {
        let answer = session.execute(&statement, &[]).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        if let Response::Rows { batches, .. } = answer {
            rows = batches.iter().flat_map(lines).collect();
        }
    }
    rows
}

fn lines(batch: &arrow::array::RecordBatch) -> Vec<String> {
    let columns: Vec<_> = batch.columns().iter().map(|c| cast(c, &DataType::Utf8).expect("text")).collect();
    let cell = |row: usize| columns.iter().map(|c| c.as_string::<i32>().value(row).to_owned()).collect::<Vec<_>>();
    (0..batch.num_rows()).map(|row| cell(row).join(" ")).collect()
}

/// Everything that a subscriber after this epoch is told so far.
async fn changes(engine: &Engine, view: &str, after: u64) -> Vec<(u64, String)> {
    let mut subscription = engine.subscribe(view, SubscribeFrom::After(after)).expect("a position that is kept");
    let mut all = Vec::new();
    while let Some(change) = subscription.poll_now().expect("changes that are kept") {
        for (i, line) in lines(&change.delta.rows).into_iter().enumerate() {
            all.push((change.epoch, format!("{line} {:+}", change.delta.weight(i))));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_comes_back_is_told_the_same_and_what_it_missed() {
    for every in EVERY {
        let folder = tempfile::tempdir().expect("a folder");
        let engine = start(folder.path(), every, 2);
        let mut session = engine.session();
        run(
            &mut session,
            "CREATE TABLE t (k int, a int); CREATE MATERIALIZED VIEW v AS SELECT k, sum(a) AS s FROM t GROUP BY k",
        )
        .await;
        let begin = engine.epoch();
        for i in 0..40 {
            run(&mut session, &format!("INSERT INTO t VALUES ({}, {i})", i % 3)).await;
        }
        let (seen, told) = (engine.epoch(), changes(&engine, "v", begin).await);
        assert!(told.len() > 70, "{told:?}");
        drop(session);
        engine.shutdown();
        drop(engine);

        let engine = start(folder.path(), every, 3);
        assert!(engine.epoch() >= seen, "{} after {seen}", engine.epoch());
        assert_eq!(changes(&engine, "v", begin).await, told);
        assert_eq!(changes(&engine, "v", seen).await, []);
        run(&mut engine.session(), "INSERT INTO t VALUES (0, 1000)").await;
        let missed = changes(&engine, "v", seen).await;
        let total: i32 = (0..40).filter(|i| i % 3 == 0).sum();
        let lines: Vec<&str> = missed.iter().map(|(_, line)| line.as_str()).collect();
        assert_eq!(lines, [format!("0 {total} -1"), format!("0 {} +1", total + 1000)]);
        engine.shutdown();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_read_on_where_it_stood() {
    const ROWS: u64 = 400_000;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rows.ndjson");
    let text: String = (0..ROWS).map(|i| format!("{{\"k\": {}, \"a\": {i}}}\n", i % 7)).collect();
    std::fs::write(&file, text).expect("a file");
    for every in EVERY {
        let data = folder.path().join(format!("data-{}", every.as_secs()));
        let engine = start(&data, every, 1);
        let source = format!(
            "CREATE SOURCE s (k int, a bigint) WITH (connector = 'file', path = '{}', format = 'json')",
            file.display()
        );
        run(&mut engine.session(), &source).await;
        run(
            &mut engine.session(),
            "CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS n, sum(a) AS s FROM s GROUP BY k",
        )
        .await;
        let mut engine = engine;
        let (mut restarts, mut last) = (0, 0);
        loop {
            let read: u64 =
                run(&mut engine.session(), "SELECT coalesce(sum(n), 0) FROM v").await[0].parse().expect("a number");
            assert!(read >= last, "{read} rows after {last}");
            last = read;
            if read == ROWS {
                break;
            }
            engine.shutdown();
            drop(engine);
            restarts += 1;
            engine = start(&data, every, 1 + restarts % 3);
        }
        assert!(restarts > 1, "it was read in one go");
        let expected: Vec<String> = (0..7u64)
            .map(|k| {
                let rows = (0..ROWS).filter(|i| i % 7 == k);
                format!("{k} {} {}", rows.clone().count(), rows.sum::<u64>())
            })
            .collect();
        assert_eq!(run(&mut engine.session(), "SELECT * FROM v ORDER BY k").await, expected);
        engine.shutdown();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_checkpoint_is_passed_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = start(folder.path(), Duration::ZERO, 1);
    let mut session = engine.session();
    run(
        &mut session,
        "CREATE TABLE t (k int PRIMARY KEY, a int); CREATE MATERIALIZED VIEW v AS SELECT count(*), sum(a) FROM t",
    )
    .await;
    for i in 0..30 {
        run(&mut session, &format!("INSERT INTO t VALUES ({i}, {i})")).await;
    }
    drop(session);
    engine.shutdown();
    drop(engine);

    let entries = std::fs::read_dir(folder.path().join("checkpoints")).expect("checkpoints");
    let mut packs: Vec<_> = entries.map(|e| e.expect("an entry").path()).collect();
    packs.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("directory-")));
    packs.sort();
    assert!(packs.len() >= 2, "{packs:?}");
    let newest = packs.last().expect("one");
    let mut bytes = std::fs::read(newest).expect("bytes");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(newest, bytes).expect("written");

    let engine = start(folder.path(), Duration::from_secs(3600), 1);
    let mut session = engine.session();
    assert_eq!(run(&mut session, "SELECT * FROM v").await, ["30 435"]);
    run(&mut session, "INSERT INTO t VALUES (30, 30)").await;
    assert_eq!(run(&mut session, "SELECT * FROM v").await, ["31 465"]);
    engine.shutdown();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_engine_at_a_time_has_a_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = start(folder.path(), EVERY[0], 1);
    let config = Config { data: Some(Data::new(folder.path())), ..Config::default() };
    let error = Engine::start(config, Env::real()).err().expect("refused");
    assert!(error.message.contains("is in use by another process"), "{}", error.message);
    engine.shutdown();
}
