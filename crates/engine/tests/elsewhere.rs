//! Checkpoints in a store that is not in the data folder: brought back from there, moved there, away for a while, another's.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use tidemill_engine::{CheckpointStore, Config, Data, Engine, Response, Session, SqlError, parse};
use tidemill_env::Env;
use tidemill_storage::{DataFolder, FolderStore, Object, ObjectStore, StorageError};

/// A store that can be away, and counts how often objects are got.
struct Store {
    objects: FolderStore,
    away: AtomicBool,
    gets: AtomicU64,
}

impl Store {
    fn new(folder: &Path) -> Arc<Self> {
        let data = DataFolder::open(&Env::real(), folder).expect("a folder");
        let objects = FolderStore::open(&data, "bucket").expect("a store");
        Arc::new(Store { objects, away: AtomicBool::default(), gets: AtomicU64::default() })
    }

    fn here(&self, name: &str) -> Result<&FolderStore, StorageError> {
        if !self.away.load(Ordering::SeqCst) {
            return Ok(&self.objects);
        }
        let source = std::io::Error::other("the store is away");
        Err(StorageError::Io { action: "reach", path: PathBuf::from(name), source })
    }
}

impl ObjectStore for Store {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        self.here(name)?.put(name, bytes)
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<bool, StorageError> {
        self.here(name)?.put_new(name, bytes)
    }

    fn get(&self, name: &str, at_most: usize) -> Result<Option<Vec<u8>>, StorageError> {
        self.gets.fetch_add(1, Ordering::SeqCst);
        self.here(name)?.get(name, at_most)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Object>, StorageError> {
        self.here(prefix)?.list(prefix)
    }

    fn delete(&self, name: &str) -> Result<(), StorageError> {
        self.here(name)?.delete(name)
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new("bucket:").join(name)
    }
}

const OFTEN: Duration = Duration::from_millis(10);
const NEVER: Duration = Duration::from_secs(3600);

fn start(folder: &Path, store: Option<&Arc<Store>>, checkpoint_every: Duration) -> Result<Engine, SqlError> {
    let checkpoints = store.map(|store| CheckpointStore::new("test://bucket", store.clone()));
    let data = Some(Data { checkpoint_every, checkpoints, ..Data::new(folder) });
    Engine::start(Config { workers: 2, data, ..Config::default() }, Env::real())
}

async fn run(session: &mut Session, sql: &str) -> Vec<i64> {
    let mut numbers = Vec::new();
    for statement in parse(sql).expect("SQL") {
        let answer = session.execute(&statement, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let Response::Rows { batches, .. } = answer else { continue };
        let of = |rows: &arrow::array::RecordBatch| rows.column(0).as_primitive::<Int64Type>().values().to_vec();
        numbers = batches.iter().flat_map(of).collect();
    }
    numbers
}

/// Waits until so many more checkpoints are written, while rows come in.
async fn checkpoints(engine: &Engine, session: &mut Session, more: u64) {
    let written = || engine.status().durability.map_or(0, |status| status.checkpoints);
    let enough = written() + more;
    while written() < enough {
        run(session, "INSERT INTO t VALUES (0)").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_comes_back_from_the_store() {
    let (folder, bucket) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let store = Store::new(bucket.path());
    let engine = start(folder.path(), Some(&store), OFTEN).expect("it starts");
    let mut session = engine.session();
    run(
        &mut session,
        "CREATE TABLE t (a bigint); CREATE MATERIALIZED VIEW v AS SELECT CAST(sum(a) AS bigint) AS s FROM t",
    )
    .await;
    run(&mut session, "INSERT INTO t SELECT * FROM generate_series(1, 1000)").await;
    checkpoints(&engine, &mut session, 3).await;
    let status = engine.status().durability.expect("it keeps");
    assert_eq!((status.checkpoints_at.as_deref(), status.checkpoint_failed), (Some("test://bucket"), None));
    drop(session);
    engine.shutdown();
    assert!(!folder.path().join("checkpoints").exists() || is_empty(&folder.path().join("checkpoints")));

    store.gets.store(0, Ordering::SeqCst);
    let engine = start(folder.path(), Some(&store), NEVER).expect("it starts");
    let mut session = engine.session();
    assert_eq!(run(&mut session, "SELECT s FROM v").await, [500_500]);
    run(&mut session, "INSERT INTO t VALUES (1)").await;
    assert_eq!(run(&mut session, "SELECT s FROM v").await, [500_501]);
    drop(session);
    engine.shutdown();
    let files = store.list("").expect("a list").len() as u64;
    let gets = store.gets.load(Ordering::SeqCst);
    assert!(gets > 0 && gets <= files, "{gets} gets of {files} objects: each file is read once");

    // Without the store the folder is not started, and says why.
    let error = start(folder.path(), None, NEVER).err().expect("refused");
    assert!(error.message.contains("are in test://bucket: start with --checkpoints test://bucket"), "{error}");
    store.away.store(true, Ordering::SeqCst);
    let error = start(folder.path(), Some(&store), NEVER).err().expect("refused");
    assert!(error.message.contains("the store is away"), "{error}");
    store.away.store(false, Ordering::SeqCst);
    // Another folder does not get it, and does not disturb it.
    let other = tempfile::tempdir().expect("a folder");
    let before = store.list("").expect("a list");
    let error = start(other.path(), Some(&store), NEVER).err().expect("refused");
    assert!(error.message.contains("has the checkpoints of another data folder"), "{error}");
    assert_eq!(store.list("").expect("a list"), before);
    // Another place that has none of them is not taken for the one.
    let beside = tempfile::tempdir().expect("a folder");
    let empty = Store::new(beside.path());
    let data =
        Data { checkpoints: Some(CheckpointStore::new("test://other", empty.clone())), ..Data::new(folder.path()) };
    let error = Engine::start(Config { data: Some(data), ..Config::default() }, Env::real()).err().expect("refused");
    assert!(error.message.contains("test://other has none of them"), "{error}");
    assert_eq!(empty.list("").expect("a list"), []);
    let engine = start(folder.path(), Some(&store), NEVER).expect("it starts");
    assert_eq!(run(&mut engine.session(), "SELECT s FROM v").await, [500_501]);
    engine.shutdown();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_emptied_is_no_fresh_start() {
    for inside in [false, true] {
        let (folder, bucket) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let store = Store::new(bucket.path());
        let store = (!inside).then_some(&store);
        let engine = start(folder.path(), store, OFTEN).expect("it starts");
        let mut session = engine.session();
        run(&mut session, "CREATE TABLE t (a bigint, s text)").await;
        // Several segments of the log, so that the first ones go.
        for _ in 0..5 {
            run(&mut session, "INSERT INTO t VALUES (1, repeat('x', 20000000)); DELETE FROM t").await;
        }
        for _ in 0..3 {
            let written = || engine.status().durability.map_or(0, |status| status.checkpoints);
            let enough = written() + 1;
            while written() < enough {
                run(&mut session, "INSERT INTO t VALUES (0, '')").await;
            }
        }
        drop(session);
        engine.shutdown();
        match store {
            Some(store) => {
                for object in store.list("").expect("a list") {
                    store.delete(&object.name).expect("deleted");
                }
            }
            None => std::fs::remove_dir_all(folder.path().join("checkpoints")).expect("removed"),
        }
        let error = start(folder.path(), store, NEVER).err().expect("refused");
        let told = if inside { "record 0 is needed, but the log holds records from" } else { "any more" };
        assert!(error.message.contains(told), "{error}");
    }
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).expect("a folder").next().is_none()
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_move_to_the_store() {
    let (folder, bucket) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let engine = start(folder.path(), None, OFTEN).expect("it starts");
    let mut session = engine.session();
    run(
        &mut session,
        "CREATE TABLE t (a bigint); CREATE MATERIALIZED VIEW v AS SELECT CAST(sum(a) AS bigint) AS s FROM t",
    )
    .await;
    run(&mut session, "INSERT INTO t SELECT * FROM generate_series(1, 1000)").await;
    checkpoints(&engine, &mut session, 3).await;
    drop(session);
    engine.shutdown();

    let store = Store::new(bucket.path());
    let engine = start(folder.path(), Some(&store), OFTEN).expect("it starts");
    for _ in 0..1000 {
        if engine.status().durability.is_some_and(|status| status.checkpoints > 0) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(engine.status().durability.map(|status| status.checkpoints), Some(1), "it does not wait for a change");
    let epoch = engine.status().epoch;
    engine.shutdown();
    let engine = start(folder.path(), Some(&store), NEVER).expect("it starts");
    assert!(is_empty(&folder.path().join("checkpoints")), "the old ones are gone");
    let mut session = engine.session();
    assert_eq!(run(&mut session, "SELECT s FROM v").await, [500_500]);
    assert!(engine.status().epoch >= epoch);
    // What subscribers can ask for has come along.
    run(&mut session, "INSERT INTO t VALUES (1)").await;
    assert_eq!(run(&mut session, "SELECT s FROM v").await, [500_501]);
    drop(session);
    engine.shutdown();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_delays_checkpoints_only() {
    let (folder, bucket) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let store = Store::new(bucket.path());
    let engine = start(folder.path(), Some(&store), OFTEN).expect("it starts");
    let mut session = engine.session();
    run(
        &mut session,
        "CREATE TABLE t (a bigint); CREATE MATERIALIZED VIEW v AS SELECT CAST(sum(a) AS bigint) AS s FROM t",
    )
    .await;
    checkpoints(&engine, &mut session, 2).await;
    store.away.store(true, Ordering::SeqCst);
    let failed = || engine.status().durability.and_then(|status| status.checkpoint_failed);
    let mut sum = 0;
    while failed().is_none() {
        run(&mut session, "INSERT INTO t VALUES (1)").await;
        sum += 1;
    }
    for _ in 0..50 {
        run(&mut session, "INSERT INTO t VALUES (1)").await;
        sum += 1;
        assert_eq!(run(&mut session, "SELECT s FROM v").await, [sum]);
    }
    assert!(failed().is_some_and(|reason| reason.contains("the store is away")), "{:?}", failed());
    let show = parse("SHOW CHECKPOINTS").expect("SQL").remove(0);
    let Ok(Response::Rows { batches, .. }) = session.execute(&show, &[]).await else { panic!("rows") };
    let cell = |column: usize| batches[0].column(column).as_string::<i32>().value(0).to_owned();
    assert_eq!((cell(0).as_str(), cell(1).as_str()), ("test://bucket", "retrying"));
    assert!(cell(6).contains("the store is away"), "{}", cell(6));
    // A crash now is no loss: the log has what no checkpoint has.
    drop(session);
    engine.shutdown();
    store.away.store(false, Ordering::SeqCst);
    let engine = start(folder.path(), Some(&store), OFTEN).expect("it starts");
    let mut session = engine.session();
    assert_eq!(run(&mut session, "SELECT s FROM v").await, [sum]);
    store.away.store(true, Ordering::SeqCst);
    let failed = || engine.status().durability.and_then(|status| status.checkpoint_failed);
    while failed().is_none() {
        run(&mut session, "INSERT INTO t VALUES (1)").await;
        sum += 1;
    }
    store.away.store(false, Ordering::SeqCst);
    checkpoints(&engine, &mut session, 3).await;
    assert_eq!(failed(), None);
    // Nothing is left of the attempts that failed.
    let files = store.list("").expect("a list").len();
    assert!(files < 30, "{files} objects");
    drop(session);
    engine.shutdown();
    let engine = start(folder.path(), Some(&store), NEVER).expect("it starts");
    assert_eq!(run(&mut engine.session(), "SELECT s FROM v").await, [sum]);
    engine.shutdown();
}
