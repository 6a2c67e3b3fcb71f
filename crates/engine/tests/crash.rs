//! The power goes at any write, sync or rename of a whole engine, and again while it comes back.
//!
//! A small workload of tables, views, a sink to a folder and checkpoints runs once on a simulated disk, which keeps what
//! it is like before each operation that changes something. Whatever the power may have left of that comes up again: with
//! all that was acknowledged, whole statements only, and views that equal their queries. Then the workload goes
//! on, and in the end everything is as in a run without a failure: tables, views, the catalog, and the sink's files,
//! which have each change once. Some runs have no memory for views' state, so that it goes to disk and comes back from there.
//!
//! `TIDEMILL_CASES` says how many disks come up again (`all`: one for each operation, fate and kind of run),
//! `TIDEMILL_SEED` which.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests wait and measure by the real clock, and say how far they are"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidemill_engine::{Config, Data, Engine, Response, Session, Spill, parse};
use tidemill_env::{Disk, Env, Fate, ManualClock, SimulatedDisk};

#[path = "slt/random.rs"]
mod random;
use random::Random;

/// What clients do, one after the other. Each changes something that can be seen.
const STEPS: [&str; 23] = [
    "CREATE TABLE t (k int PRIMARY KEY, n int)",
    "CREATE TABLE told (at timestamp, what text, WATERMARK FOR at AS at - INTERVAL '1 second')",
    "CREATE MATERIALIZED VIEW v AS SELECT n % 3 AS g, count(*) AS c, sum(n) AS s, string_agg(CAST(k AS text), ',' ORDER BY k) AS ks FROM t GROUP BY n % 3",
    "CREATE SINK s FROM v WITH (connector = 'file', path = '/place/', format = 'json', commit_interval = '0 seconds')",
    "INSERT INTO t VALUES (1, 10), (2, 20), (3, 30)",
    "INSERT INTO told VALUES ('2024-01-01 00:00:10', 'a'), ('2024-01-01 00:00:12', 'b')",
    "CREATE MATERIALIZED VIEW pairs AS SELECT a.k, b.k AS other FROM t a LEFT JOIN t b ON b.n = a.n + 10",
    "UPDATE t SET n = n + 1 WHERE k < 3",
    "CREATE MATERIALIZED VIEW windows AS SELECT window_start, count(*) AS n FROM TUMBLE(told, at, INTERVAL '2 seconds') GROUP BY window_start",
    "INSERT INTO told VALUES ('2024-01-01 00:00:20', 'c'), ('2024-01-01 00:00:05', 'late')",
    "BEGIN; INSERT INTO t VALUES (4, 40); INSERT INTO told VALUES ('2024-01-01 00:00:21', 'd'); COMMIT",
    "CREATE MATERIALIZED VIEW shares AS SELECT k, 100 / (n - 40) AS share FROM t",
    "DELETE FROM t WHERE k = 2",
    "INSERT INTO t SELECT x, x % 7 FROM generate_series(100, 160) AS g(x)",
    "CREATE SINK again AS SELECT k, n FROM t WHERE n > 5 WITH (connector = 'file', path = '/again/', format = 'json', commit_interval = '0 seconds')",
    "UPDATE t SET n = 41 WHERE k = 4",
    "DROP MATERIALIZED VIEW shares",
    "UPDATE t SET n = n * 2 WHERE k > 130",
    "APPLY LATE FROM told$late",
    "DROP SINK again",
    "DELETE FROM t WHERE k BETWEEN 110 AND 120",
    "INSERT INTO told VALUES ('2024-01-01 00:00:40', 'e')",
    "INSERT INTO t VALUES (5, 50)",
];

/// What is looked at after each step.
const LOOKS: [&str; 11] = [
    "SHOW TABLES",
    "SHOW VIEWS",
    "SHOW SINKS",
    "SELECT k, n FROM t",
    "SELECT at, what FROM told",
    "SELECT at, what FROM told$late",
    "SELECT g, c, s, ks FROM v",
    "SELECT window_start, n FROM windows",
    "SELECT k, share FROM shares",
    "SELECT message FROM shares$errors",
    "SELECT k, other FROM pairs",
];

/// How often there are checkpoints, and whether state is on disk.
const KINDS: [(Duration, bool); 3] =
    [(Duration::ZERO, true), (Duration::from_secs(3600), false), (Duration::ZERO, false)];

/// The rows of all looks, sorted; `None` where there is no such thing.
type Seen = Vec<Option<Vec<String>>>;

/// Kinds of runs.
#[derive(Clone, Copy, Debug)]
struct Kind {
    checkpoint_every: Duration,
    /// No state stays in memory from one step to the next.
    spilled: bool,
}

struct World {
    runtime: tokio::runtime::Runtime,
    engine: Engine,
    session: Session,
}

/// A clock that stands still in 2026: what is told of 2024 is not ahead of it.
fn clock() -> Arc<ManualClock> {
    let clock = ManualClock::default();
    clock.advance_micros(1_780_000_000_000_000);
    Arc::new(clock)
}

impl World {
    fn start(disk: &SimulatedDisk, Kind { checkpoint_every, spilled }: Kind) -> World {
        let env = Env::simulated(clock()).with_disk(Arc::new(disk.clone()));
        let data = Data { checkpoint_every, ..Data::new("/data") };
        let folder = PathBuf::from("/spill");
        if spilled && !disk.exists(&folder).expect("a disk") {
            disk.create_dir(&folder).expect("a folder");
        }
        let spill = spilled.then_some(Spill { folder, state_bytes: 0 });
        let config = Config { workers: 2, data: Some(data), spill, ..Config::default() };
        let engine = Engine::start(config, env).unwrap_or_else(|error| panic!("it does not come up: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        World { runtime, session: engine.session(), engine }
    }

    fn run(&mut self, sql: &str) -> Result<Vec<String>, String> {
        let mut rows = Vec::new();
        for statement in parse(sql).map_err(|e| e.to_string())? {
            let answer = self.runtime.block_on(self.session.execute(&statement, &[])).map_err(|e| e.to_string())?;
            if let Response::Rows { batches, .. } = answer {
                rows =
                    batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| line(batch, row))).collect();
            }
        }
        Ok(rows)
    }

    fn look(&mut self) -> Seen {
        let look = |sql: &&str| {
            let mut rows = self.run(sql).ok()?;
            if sql.starts_with("SHOW") {
                // The names: their counts are a matter of when one looks.
                rows = rows.iter().filter_map(|row| row.split('|').next().map(str::to_owned)).collect();
            }
            rows.sort();
            Some(rows)
        };
        LOOKS.iter().map(look).collect()
    }

    /// Looks until something is found in it, for a while: errors of an epoch come into their table in the next one.
    fn look_for<T>(&mut self, find: impl Fn(&Seen) -> Option<T>) -> (Seen, Option<T>) {
        let mut tries = 0;
        loop {
            let seen = self.look();
            let found = find(&seen);
            tries += 1;
            if found.is_some() || tries > 1_000 {
                return (seen, found);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until no view catches up any more: one whose creation was not acknowledged may be there and have no rows yet.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            if !self.run("SHOW VIEWS").is_ok_and(|rows| rows.iter().any(|row| row.contains("catching up"))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("a view catches up for ever");
    }

    /// Does the steps from this one on; tells what the disk had done when each was acknowledged.
    fn go_on(&mut self, from: usize, disk: &SimulatedDisk) -> Vec<usize> {
        let step = |sql: &&str| {
            self.run(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
            disk.operations()
        };
        STEPS[from..].iter().map(step).collect()
    }

    fn verify(&mut self, place: &str) {
        for view in ["v", "windows", "pairs"] {
            if let Ok(rows) = self.run(&format!("VERIFY MATERIALIZED VIEW {view}")) {
                assert!(rows.is_empty(), "{place}: {view} differs: {rows:?}");
            }
        }
    }

    fn end(self) {
        drop(self.session);
        self.engine.shutdown();
    }
}

fn line(batch: &arrow::array::RecordBatch, row: usize) -> String {
    let cell = |(column, field): (&arrow::array::ArrayRef, &Arc<arrow::datatypes::Field>)| {
        let mut text = String::new();
        tidemill_connect::pg_text(column.as_ref(), row, field, &mut text);
        text
    };
    let schema = batch.schema();
    batch.columns().iter().zip(schema.fields()).map(cell).collect::<Vec<_>>().join("|")
}

/// What a sink's files add up to. Each file that is seen is whole, and has the epochs after the one before.
fn delivered(disk: &SimulatedDisk, folder: &str, place: &str) -> BTreeMap<String, i64> {
    let files: BTreeMap<PathBuf, Vec<u8>> = disk.files().into_iter().collect();
    let (mut sums, mut last) = (BTreeMap::new(), 0);
    for (path, bytes) in files {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        if !path.starts_with(folder) || name.starts_with('.') {
            continue;
        }
        let text = String::from_utf8(bytes).unwrap_or_else(|_| panic!("{place}: {name} is torn"));
        let epoch: u64 = name.rsplit('-').nth(1).and_then(|part| part.parse().ok()).expect("an epoch");
        assert!(text.ends_with("}\n"), "{place}: {name} is torn: {text:?}");
        for line in text.lines() {
            let mut change: serde_json::Value =
                serde_json::from_str(line).unwrap_or_else(|e| panic!("{place}: {name}: {e}: {line:?}"));
            let members = change.as_object_mut().expect("an object");
            let of = members.remove("epoch").and_then(|value| value.as_u64()).expect("an epoch");
            let diff = members.remove("diff").and_then(|value| value.as_i64()).expect("a number");
            assert!(of > last && of <= epoch, "{place}: {name} has a change of epoch {of}, after {last}");
            *sums.entry(change.to_string()).or_insert(0) += diff;
        }
        last = epoch;
    }
    sums.retain(|_, sum| *sum != 0);
    sums
}

/// A run without a failure: what is seen after each step, and what the sink has in the end.
struct Calm {
    seen: Vec<Seen>,
    delivered: BTreeMap<String, i64>,
}

fn calm() -> Calm {
    let disk = SimulatedDisk::default();
    let mut world = World::start(&disk, Kind { checkpoint_every: Duration::from_secs(3600), spilled: false });
    let mut seen = vec![world.look()];
    for sql in STEPS {
        world.run(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        // Its errors are there in the next epoch.
        std::thread::sleep(Duration::from_millis(20));
        seen.push(world.look());
        let last = seen.len() - 1;
        assert!(seen[last] != seen[last - 1], "nothing can be seen of: {sql}");
    }
    world.verify("calm");
    world.end();
    let delivered = delivered(&disk, "/place", "calm");
    assert_eq!(delivered.len(), seen.last().and_then(|seen| seen[6].as_ref()).map_or(0, Vec::len));
    Calm { seen, delivered }
}

/// Comes up on what is left of a disk. All that was acknowledged is there, and at most one statement more. With
/// `photograph` the disk keeps what it is like meanwhile. Gives how many steps have been done.
fn comes_up(disk: &SimulatedDisk, acknowledged: usize, calm: &Calm, kind: Kind, place: &str) -> (World, usize) {
    for folder in ["/place", "/again"] {
        delivered(disk, folder, place);
    }
    let mut world = World::start(disk, kind);
    world.settle();
    let possible = acknowledged..=(acknowledged + 1).min(STEPS.len());
    let (seen, done) = world.look_for(|seen| possible.clone().find(|done| calm.seen[*done] == *seen));
    let done = done.unwrap_or_else(|| {
        panic!("{place}: after {acknowledged} steps there is {seen:#?}, not {:#?}", calm.seen[acknowledged])
    });
    world.verify(place);
    (world, done)
}

/// Goes on to the end, and compares with the run without a failure.
fn goes_on(mut world: World, disk: &SimulatedDisk, done: usize, calm: &Calm, place: &str) {
    world.go_on(done, disk);
    let (seen, _) = world.look_for(|seen| (*seen == calm.seen[STEPS.len()]).then_some(()));
    assert_eq!(seen, calm.seen[STEPS.len()], "{place}: in the end");
    world.verify(place);
    world.end();
    assert_eq!(delivered(disk, "/place", place), calm.delivered, "{place}: the sink");
}

#[test]
fn the_power_may_go_at_any_operation() {
    let all = std::env::var("TIDEMILL_CASES").is_ok_and(|cases| cases == "all");
    let cases: usize = std::env::var("TIDEMILL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(24);
    let seed: u64 = std::env::var("TIDEMILL_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let (calm, mut random) = (calm(), Random::new(seed));
    let (mut came_up, mut operations, mut again) = (0, 0, 0);
    for (every, spilled) in KINDS {
        let mut kind = Kind { checkpoint_every: every, spilled };
        let disk = SimulatedDisk::default();
        disk.photograph(1, 0);
        let mut world = World::start(&disk, kind);
        let acknowledged = world.go_on(0, &disk);
        world.end();
        let mut photographs = disk.photographs();
        operations += photographs.len();
        while !all && photographs.len() > cases / KINDS.len() {
            photographs.swap_remove(random.below(photographs.len()));
        }
        for (operation, photograph) in photographs {
            let steps = acknowledged.partition_point(|at| *at <= operation);
            let mixed = Fate::Mixed(random.next());
            let fates = if all { vec![Fate::Lost, Fate::Kept, mixed] } else { vec![mixed] };
            for fate in fates {
                let place = format!("seed {seed}, {kind:?}, operation {operation} of {}, {fate:?}", disk.operations());
                // What was on disk may be taken in by one that has memory, and the other way round.
                kind.spilled = random.below(2) == 0;
                let left = photograph.crash(fate);
                let begin = left.operations();
                left.photograph(1, begin);
                let (world, done) = comes_up(&left, steps, &calm, kind, &place);
                let recovery = left.photographs();
                left.photograph(1, usize::MAX);
                goes_on(world, &left, done, &calm, &place);
                came_up += 1;
                // The power goes again while it comes up.
                if let Some((second, photograph)) = recovery.get(random.below(recovery.len().max(1)))
                    && (all || random.below(2) == 0)
                {
                    let fate = Fate::Mixed(random.next());
                    let place = format!("{place}, and at operation {second} of recovery, {fate:?}");
                    let left = photograph.crash(fate);
                    let (world, done) = comes_up(&left, steps, &calm, kind, &place);
                    goes_on(world, &left, done, &calm, &place);
                    again += 1;
                }
            }
        }
    }
    println!("{operations} operations; {came_up} disks came up again, {again} of them twice (seed {seed})");
    assert!(came_up > 0 && again > 0);
}
