//! State that was put on disk and comes back from a checkpoint: with as many workers or others, with memory or without, and it
//! stays on disk until its keys are touched.

#![allow(clippy::disallowed_methods, reason = "tests wait by the real clock")]

use std::path::Path;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use tidemill_engine::{Config, Data, Engine, Response, Session, Spill, SqlError, parse};
use tidemill_env::{Env, SimulatedDisk};

#[path = "slt/random.rs"]
mod random;
use random::Random;

/// Joins, groups with sets of values, first rows and windows: what operators put aside as rows, and as entries.
const VIEWS: [(&str, &str); 5] = [
    ("joined", "SELECT a.id, a.n, b.id AS other FROM a LEFT JOIN b ON b.k = a.k"),
    ("both", "SELECT a.id, b.id AS other FROM a FULL JOIN b ON b.k = a.k AND b.n = a.n"),
    (
        "grouped",
        "SELECT k, count(*) AS c, sum(n) AS s, min(n) AS least, max(n) AS most, count(DISTINCT n) AS ns, avg(n) AS m
         FROM a GROUP BY k",
    ),
    (
        "first",
        "SELECT id, k FROM (SELECT *, row_number() OVER (PARTITION BY k ORDER BY n, id) AS place FROM a) AS s WHERE place < 3",
    ),
    ("before", "SELECT id, lag(n) OVER (PARTITION BY k ORDER BY n, id) AS n FROM b"),
];

struct Running {
    engine: Engine,
    session: Session,
}

impl Running {
    /// `state`: how many bytes views' state may take; `None`: there is no limit.
    fn start(folder: &Path, workers: usize, state: Option<usize>) -> Running {
        Running::start_in(Env::real(), folder, workers, state)
    }

    fn start_in(env: Env, folder: &Path, workers: usize, state: Option<usize>) -> Running {
        let data = Data { checkpoint_every: Duration::from_millis(1), ..Data::new(folder.join("data")) };
        let spill = folder.join("aside");
        if !env.disk().exists(&spill).expect("a disk") {
            env.disk().create_dir(&spill).expect("a folder");
        }
        let spill = state.map(|state_bytes| Spill { folder: spill, state_bytes });
        let config = Config { workers, data: Some(data), spill, max_epoch_rows: 4096, ..Config::default() };
        let engine = Engine::start(config, env).expect("the engine starts");
        Running { session: engine.session(), engine }
    }

    async fn run(&mut self, sql: &str) -> Vec<String> {
        self.attempt(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    async fn attempt(&mut self, sql: &str) -> Result<Vec<String>, SqlError> {
        let mut rows = Vec::new();
        for statement in parse(sql).expect("SQL") {
            let answer = self.session.execute(&statement, &[]).await?;
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

    async fn verify(&mut self, place: &str) {
        for (view, _) in VIEWS {
            let differs = self.run(&format!("VERIFY MATERIALIZED VIEW {view}")).await;
            assert!(differs.is_empty(), "{place}: {view} differs: {differs:?}");
        }
    }

    /// Waits for a checkpoint that has all that was done before.
    async fn checkpoint(&mut self) {
        let wanted = self.engine.epoch();
        for _ in 0..2_000 {
            let durability = self.engine.status().durability.expect("a data folder");
            if durability.checkpoint_epoch >= wanted {
                return assert_eq!(durability.checkpoint_failed, None);
            }
            // One is only begun with something to do.
            self.run("INSERT INTO told VALUES (1)").await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("no checkpoint");
    }

    /// Bytes that views' state takes in memory.
    fn bytes(&self) -> u64 {
        let of_views = |name: &str| VIEWS.iter().any(|(view, _)| *view == name);
        let rows = |r: &tidemill_engine::RelationStatus| r.bytes;
        self.engine.status().relations.iter().filter(|r| of_views(&r.relation.name)).map(rows).sum()
    }

    fn stop(self) {
        drop(self.session);
        self.engine.shutdown();
    }
}

async fn define(running: &mut Running) {
    running
        .run(
            "CREATE TABLE a (id bigint PRIMARY KEY, k bigint, n int); CREATE TABLE b (id bigint PRIMARY KEY, k bigint, n int);
             CREATE TABLE told (n int)",
        )
        .await;
    for (view, query) in VIEWS {
        running.run(&format!("CREATE MATERIALIZED VIEW {view} AS {query}")).await;
    }
}

/// Rows of a table, so many, in so many groups.
fn rows(table: &str, from: usize, to: usize, groups: usize) -> String {
    format!("INSERT INTO {table} SELECT i, i % {groups}, i % 13 FROM generate_series({from}, {to}) AS g(i)")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_aside_comes_back_for_others() {
    let seed: u64 = std::env::var("TIDEMILL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut random = Random::new(seed);
    for round in 0..4 {
        let folder = tempfile::tempdir().expect("a folder");
        let mut running = Running::start(folder.path(), 2, Some(0));
        define(&mut running).await;
        for life in 0..8 {
            for _ in 0..1 + random.below(4) {
                let (table, from) = (["a", "b"][random.below(2)], random.below(3_000));
                let to = from + [3, 40, 900][random.below(3)];
                let range = format!("id BETWEEN {from} AND {to}");
                let statement = match random.below(5) {
                    0 => format!("UPDATE {table} SET n = n + 1 WHERE {range}"),
                    1 => format!("UPDATE {table} SET k = k + 1 WHERE {range}"),
                    // Of some groups nothing is left.
                    2 => format!("DELETE FROM {table} WHERE {range} OR k % 5 = {}", random.below(5)),
                    _ => rows(table, from, to, 700) + " ON CONFLICT (id) DO UPDATE SET k = EXCLUDED.k, n = EXCLUDED.n",
                };
                running.run(&statement).await;
                if random.below(3) == 0 {
                    running.checkpoint().await;
                }
            }
            let place = format!("seed {seed}, round {round}, life {life}");
            running.verify(&place).await;
            if random.below(2) == 0 {
                running.checkpoint().await;
            }
            running.stop();
            let state = [Some(0), Some(0), Some(100_000), None][random.below(4)];
            let workers = [2, 2, 1, 3][random.below(4)];
            running = Running::start(folder.path(), workers, state);
            running.verify(&format!("{place}, then {workers} workers, state in {state:?}")).await;
        }
        running.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_aside_stays_on_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut running = Running::start(folder.path(), 2, None);
    define(&mut running).await;
    running.run(&rows("a", 1, 60_000, 20_000)).await;
    running.run(&rows("b", 1, 60_000, 20_000)).await;
    running.checkpoint().await;
    let in_memory = running.bytes();
    running.stop();

    // All is put aside as it is loaded, and is on disk in the next checkpoint.
    let mut running = Running::start(folder.path(), 2, Some(0));
    running.run("UPDATE a SET n = n + 1 WHERE id < 100").await;
    running.checkpoint().await;
    running.verify("with state on disk").await;
    let on_disk = running.bytes();
    running.stop();

    for workers in [2, 3] {
        let mut running = Running::start(folder.path(), workers, None);
        // With no limit at all it is not taken in either, but for what is touched.
        running.run("UPDATE a SET n = n + 1 WHERE id < 200").await;
        let after = running.bytes();
        // The views' rows themselves are in memory.
        assert!(
            after < on_disk + (in_memory - on_disk) / 4,
            "{workers} workers: {after} bytes, {on_disk} on disk, {in_memory} in memory"
        );
        running.verify("without a limit").await;
        running.checkpoint().await;
        running.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_no_view() {
    let disk = SimulatedDisk::default();
    let start =
        || Running::start_in(Env::real().with_disk(std::sync::Arc::new(disk.clone())), Path::new("/"), 2, Some(0));
    let bytes = || disk.files().iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
    let mut running = start();
    define(&mut running).await;
    running.run(&rows("a", 1, 2_000, 700)).await;
    running.run(&rows("b", 1, 2_000, 700)).await;
    running.checkpoint().await;
    let mut refused = 0;
    for round in 0..6 {
        // There is room for what goes into the log, and not for all of the state, or not even for that.
        disk.set_capacity(Some(bytes() + 40_000 * round));
        let (from, statement) = (2_001 + round as usize * 300, "DELETE FROM b WHERE id % 7 = 3");
        for sql in [rows("a", from, from + 299, 700), rows("b", from, from + 299, 700), statement.to_owned()] {
            let mut done = false;
            for _ in 0..20 {
                let waited = tokio::time::timeout(Duration::from_millis(300), running.attempt(&sql)).await;
                let views = running.run("SHOW VIEWS").await;
                assert!(views.iter().all(|view| view.contains("|running|")), "{views:?}");
                assert_eq!(running.run("SELECT count(*) > 0 FROM grouped").await, ["true"]);
                done = matches!(waited, Ok(Ok(_)));
                if done {
                    break;
                }
                refused += 1;
                if let Ok(Err(error)) = waited {
                    // It had been taken in although nobody was told.
                    done = error.code == "23505";
                    let again = error.code == "40001" || error.code.to_string().starts_with("53");
                    assert!(done || again, "{error}");
                }
                disk.set_capacity(None);
            }
            assert!(done, "{sql} never went in");
        }
        disk.set_capacity(None);
        running.verify(&format!("round {round}")).await;
        running.checkpoint().await;
        if round % 2 == 1 {
            running.stop();
            running = start();
            running.verify(&format!("after round {round}")).await;
        }
    }
    assert!(refused > 0, "the disk was never full");
    running.stop();
}
