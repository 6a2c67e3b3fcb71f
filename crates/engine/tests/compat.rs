//! Data folders that earlier versions of the engine wrote are restored: the catalog, rows, state, what came after the checkpoint.
//!
//! The folders and the statements whose life they are, with what is to be found in the end, are in `tests/compat/`, whose README says when another one
//! is to be made.

#![allow(clippy::disallowed_methods, reason = "tests wait by the real clock")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidemill_engine::{Config, Data, Engine, Response, Session, Spill, parse};
use tidemill_env::Env;

/// All versions: of the first, state is rows; of the second, state was put aside too.
const VERSIONS: [&str; 2] = ["engine-1", "engine-2"];
const CURRENT: &str = "engine-2";

/// Views that are there in the end and can be verified.
const VIEWS: [&str; 7] = ["per_item", "sold", "largest", "windows", "closed", "sittings", "late"];

fn compat() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/compat")
}

fn life(name: &str) -> String {
    fs::read_to_string(compat().join("life").join(name)).expect("a script")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").map(Result::unwrap) {
        let (own, other) = (entry.path(), to.join(entry.file_name()));
        if own.is_dir() {
            copy(&own, &other);
        } else if entry.file_name() != "lock" {
            fs::copy(&own, &other).expect("a copy");
        }
    }
}

async fn run(session: &mut Session, sql: &str) -> Vec<String> {
    let mut rows = Vec::new();
    for statement in parse(sql).expect("SQL") {
        let answer = session.execute(&statement, &[]).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        let Response::Rows { batches, .. } = answer else { continue };
        let each = batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| line(batch, row)));
        rows = each.collect();
    }
    rows.sort();
    rows
}

fn line(batch: &arrow::array::RecordBatch, row: usize) -> String {
    let schema = batch.schema();
    let cells = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
        let mut text = String::new();
        tidemill_connect::pg_text(column.as_ref(), row, field, &mut text);
        text
    });
    cells.collect::<Vec<_>>().join("|")
}

/// Asks what `answers.txt` asks, and writes it as that does: of each query its rows, sorted.
async fn answers(session: &mut Session) -> String {
    let mut text = String::new();
    for query in life("answers.txt").lines().filter(|line| line.starts_with("SELECT ")) {
        let rows = run(session, query).await;
        text += &format!("{query}\n{}\n\n", rows.join("\n"));
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_is_restored() {
    for version in VERSIONS {
        for (workers, spilled) in [(2, false), (3, true)] {
            let place = format!("{version}, {workers} workers, spilled: {spilled}");
            let folder = tempfile::tempdir().expect("a folder");
            copy(&compat().join(version), &folder.path().join("data"));
            let spill = folder.path().join("spill");
            fs::create_dir(&spill).expect("a folder");
            let config = || Config {
                workers,
                data: Some(Data::new(folder.path().join("data"))),
                spill: spilled.then(|| Spill { folder: spill.clone(), state_bytes: 0 }),
                ..Config::default()
            };
            // The second time from what this version has made of it.
            for _ in 0..2 {
                let engine = Engine::start(config(), Env::real()).unwrap_or_else(|e| panic!("{place}: {e}"));
                let mut session = engine.session();
                let found = answers(&mut session).await;
                assert!(found == life("answers.txt"), "{place}:\n{found}");
                for view in VIEWS {
                    let differs = run(&mut session, &format!("VERIFY MATERIALIZED VIEW {view}")).await;
                    assert!(differs.is_empty(), "{place}: {view}: {differs:?}");
                }
                run(&mut session, "DELETE FROM sales WHERE item = 4; INSERT INTO sales VALUES (4, 1, 5, '2024-02-02')")
                    .await;
                drop(session);
                engine.shutdown();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "for a new version of the format only; see tests/compat/README.md"]
async fn write_the_current_format() {
    let top = compat().join(CURRENT);
    assert!(!top.exists(), "{} is there, and shall stay as it is", top.display());
    let folder = tempfile::tempdir().expect("a folder");
    let (data, spill) = (folder.path().join("data"), folder.path().join("spill"));
    fs::create_dir(&spill).expect("a folder");
    let config = Config {
        workers: 2,
        data: Some(Data { checkpoint_every: Duration::from_secs(3), ..Data::new(&data) }),
        spill: Some(Spill { folder: spill, state_bytes: 0 }),
        ..Config::default()
    };
    let engine = Engine::start(config, Env::real()).expect("the engine starts");
    let mut session = engine.session();
    run(&mut session, &life("before.sql")).await;
    while run(&mut session, "SELECT n FROM sums").await.len() < 10 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let wanted = engine.epoch();
    while engine.status().durability.expect("a data folder").checkpoint_epoch < wanted {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // One that has what was put aside, and changes that came after it.
    run(&mut session, &life("after.sql")).await;
    copy(&data, &top);
    drop(session);
    engine.shutdown();
    assert!(fs::read_dir(top.join("log")).expect("a log").count() > 0);
}
