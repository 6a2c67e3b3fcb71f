use tempfile::TempDir;
use tidemill_delta::Epoch;
use tidemill_env::Env;
use tidemill_sql::parse;
use tidemill_storage::{DataFolder, Handlers, Log, LogOptions};

use crate::journal::{Change, Entry, Unlogged};
use crate::{Config, Data, Engine};

fn start(folder: &TempDir) -> Engine {
    let data = Data { checkpoint_every: std::time::Duration::from_secs(3600), ..Data::new(folder.path()) };
    Engine::start(Config { data: Some(data), ..Config::default() }, Env::real()).unwrap()
}

/// Writes one more epoch behind those in the journal.
fn add_to_journal(folder: &TempDir, epoch: Epoch, change: Change) {
    let folder = DataFolder::open(&Env::real(), folder.path()).unwrap();
    let handlers = Handlers { advanced: Box::new(|_| ()), fatal: Box::new(|error| panic!("{error}")) };
    let opened = Log::open(&folder, LogOptions::default(), handlers).unwrap();
    let writer = opened.writer.spawn().unwrap();
    let mut entry = Entry::default();
    (entry.header.epoch, entry.header.changes) = (epoch, vec![change]);
    let entry = entry.encode().unwrap();
    assert!(Unlogged::new(entry).append(&opened.log).unwrap().is_some());
    opened.log.close();
    writer.join().unwrap();
}

async fn run(engine: &Engine, sql: &str) {
    let mut session = engine.session();
    for statement in parse(sql).unwrap() {
        session.execute(&statement, &[]).await.unwrap();
    }
}

/// The state of view `v`, and why.
fn state(engine: &Engine) -> (String, Option<String>) {
    let status = engine.status();
    let found = status.relations.iter().find(|relation| relation.relation.name == "v").unwrap();
    (found.state.clone(), found.reason.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_began_with_errors_runs_again() {
    let folder = tempfile::tempdir().unwrap();
    let engine = start(&folder);
    run(&engine, "CREATE TABLE t (a int); INSERT INTO t VALUES (0), (1)").await;
    run(&engine, "CREATE MATERIALIZED VIEW v AS SELECT 1 / a AS b FROM t").await;
    engine.shutdown();
    let engine = start(&folder);
    assert_eq!(state(&engine), ("running".into(), None));
    engine.shutdown();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_had_stopped_stays_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let engine = start(&folder);
    run(&engine, "CREATE TABLE t (a int); CREATE MATERIALIZED VIEW v AS SELECT a FROM t; INSERT INTO t VALUES (1)")
        .await;
    let (view, epoch) = (engine.relation("v").unwrap().id, engine.epoch());
    engine.shutdown();
    // What it met then, it does not meet when its epochs are repeated.
    add_to_journal(&folder, epoch + 1, Change::Stop(view));
    let engine = start(&folder);
    assert_eq!(state(&engine), ("stopped".into(), Some("it had stopped before the server was started again".into())));
    engine.shutdown();
}
