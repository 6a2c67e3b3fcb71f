//! What is in the data folder, and what clients are told of it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int32Array, RecordBatch};
use tidemill_engine::{Config, Data, Engine, parse};
use tidemill_env::Env;

/// The bytes of all files in a folder.
fn bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("a folder");
    entries.map(|entry| entry.and_then(|entry| entry.metadata()).map_or(0, |file| file.len())).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_subscribers_cannot_ask_for_leave_the_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = Data { checkpoint_every: Duration::ZERO, ..Data::new(folder.path()) };
    let config = Config { history_bytes: 20_000, data: Some(data), ..Config::default() };
    let engine = Engine::start(config, Env::real()).expect("the engine starts");
    let mut session = engine.session();
    let mut sql = "CREATE TABLE t (a int PRIMARY KEY, s text)".to_owned();
    for i in 0..300 {
        sql += &format!("; INSERT INTO t VALUES ({i}, repeat('x', 2000)); DELETE FROM t WHERE a = {i}");
    }
    for statement in parse(&sql).expect("SQL") {
        session.execute(&statement, &[]).await.expect("a statement");
    }
    drop(session);
    engine.shutdown();
    // Two checkpoints, each with what is kept and as much that is to be cut off.
    let found = bytes(&folder.path().join("checkpoints"));
    assert!(found < 300_000, "{found} bytes are left of 1,200,000 bytes of changes, of which 20,000 are kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_the_disk_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config { data: Some(Data::new(folder.path())), ..Config::default() };
    let engine = Engine::start(config, Env::real()).expect("the engine starts");
    for statement in parse("CREATE TABLE t (a int)").expect("SQL") {
        engine.session().execute(&statement, &[]).await.expect("a statement");
    }
    let table = engine.relation("t").expect("the table");
    // The disk and the workers are done at about the same time now and then.
    let clients = (0..4).map(|client| {
        let (engine, table) = (engine.clone(), table.clone());
        tokio::spawn(async move {
            for i in 0..1_000 {
                let values: ArrayRef = Arc::new(Int32Array::from(vec![client, i]));
                let rows = RecordBatch::try_new(table.schema.clone(), vec![values]).expect("rows");
                engine.ingest(&table, &[0], vec![rows], Vec::new(), false).await.expect("an answer");
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("a client without an error");
    }
    engine.shutdown();
}
