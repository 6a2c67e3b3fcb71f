//! What clients of a data folder are told.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch};
use tidemill_engine::{Config, Data, Engine, parse};
use tidemill_env::Env;

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
