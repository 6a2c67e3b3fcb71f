//! Bits flip in the files of a whole engine, and files are cut: the log, packs with rows and with state that was put aside, directories and
//! manifests. A start finds it and says so, or nothing is missing and all answers are right.
//!
//! `TIDEMILL_CASES` says how many bits flip, `TIDEMILL_SEED` which.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests wait by the real clock, and say how far they are"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidemill_engine::{Config, Data, Engine, Response, Session, Spill, parse};
use tidemill_env::{Disk, Env, ManualClock, SimulatedDisk};

#[path = "slt/random.rs"]
mod random;
use random::Random;

/// Files are cut at each multiple of this, and at some places between.
const STEP: usize = 4096;

fn life(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/compat/life").join(name);
    std::fs::read_to_string(path).expect("a script")
}

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Files by path.
type Files = BTreeMap<PathBuf, Vec<u8>>;

fn disk_with(files: &Files) -> SimulatedDisk {
    let disk = SimulatedDisk::default();
    for (path, bytes) in files {
        let folders: Vec<&Path> = path.ancestors().skip(1).collect();
        for folder in folders.into_iter().rev().skip(1) {
            if !disk.exists(folder).expect("a disk") {
                disk.create_dir(folder).expect("a folder");
            }
        }
        disk.create(path).expect("a file").write_at(bytes, 0).expect("room");
    }
    disk
}

/// A clock that stands still in 2026: what is told of 2024 is not ahead of it.
fn clock() -> Arc<ManualClock> {
    let clock = ManualClock::default();
    clock.advance_micros(1_780_000_000_000_000);
    Arc::new(clock)
}

fn start(disk: &SimulatedDisk, checkpoint_every: Duration) -> Result<Engine, String> {
    let env = Env::simulated(clock()).with_disk(Arc::new(disk.clone()));
    let spill = PathBuf::from("/spill");
    if !disk.exists(&spill).expect("a disk") {
        disk.create_dir(&spill).expect("a folder");
    }
    let data = Some(Data { checkpoint_every, ..Data::new("/data") });
    let spill = Some(Spill { folder: spill, state_bytes: 0 });
    Engine::start(Config { workers: 2, data, spill, ..Config::default() }, env).map_err(|error| error.to_string())
}

fn run(runtime: &tokio::runtime::Runtime, session: &mut Session, sql: &str) -> Vec<String> {
    let mut rows = Vec::new();
    for statement in parse(sql).expect("SQL") {
        let answer = runtime.block_on(session.execute(&statement, &[])).unwrap_or_else(|e| panic!("{sql}: {e}"));
        let Response::Rows { batches, .. } = answer else { continue };
        let line = |batch: &arrow::array::RecordBatch, row| {
            let schema = batch.schema();
            let cells = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
                let mut text = String::new();
                tidemill_connect::pg_text(column.as_ref(), row, field, &mut text);
                text
            });
            cells.collect::<Vec<_>>().join("|")
        };
        rows = batches
            .iter()
            .flat_map(|batch| (0..batch.num_rows()).map(|row| line(batch, row)).collect::<Vec<_>>())
            .collect();
    }
    rows.sort();
    rows
}

fn answers(runtime: &tokio::runtime::Runtime, session: &mut Session) -> String {
    let mut text = String::new();
    for query in life("answers.txt").lines().filter(|line| line.starts_with("SELECT ")) {
        text += &format!("{query}\n{}\n\n", run(runtime, session, query).join("\n"));
    }
    text
}

/// The files of an engine that was stopped, with a checkpoint and a journal that goes on after it.
fn lived(runtime: &tokio::runtime::Runtime) -> Files {
    let disk = SimulatedDisk::default();
    let engine = start(&disk, Duration::ZERO).expect("the engine starts");
    let mut session = engine.session();
    run(runtime, &mut session, &life("before.sql"));
    while run(runtime, &mut session, "SELECT n FROM sums").len() < 10 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let wanted = engine.epoch();
    while engine.status().durability.expect("a data folder").checkpoint_epoch < wanted {
        run(runtime, &mut session, "UPDATE items SET price = 13.00 WHERE id = 1");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(session);
    engine.shutdown();
    // Nothing of the rest is in a checkpoint.
    let engine = start(&disk, Duration::from_secs(3600)).expect("the engine starts");
    let mut session = engine.session();
    run(runtime, &mut session, &life("after.sql"));
    drop(session);
    engine.shutdown();
    let files: Files = disk.files().into_iter().filter(|(path, _)| path.starts_with("/data")).collect();
    let has = |text: &str| files.keys().any(|path| path.to_string_lossy().contains(text));
    assert!(["pack-", "directory-", "manifest-", "/log/"].iter().all(|text| has(text)), "{:?}", files.keys());
    files
}

/// Starts on damaged files. Tells whether the start was refused.
fn comes_up(runtime: &tokio::runtime::Runtime, files: &Files, right: &str, place: &str) -> bool {
    let disk = disk_with(files);
    match start(&disk, Duration::from_secs(3600)) {
        Err(error) => {
            assert!(!error.is_empty(), "{place}");
            true
        }
        Ok(engine) => {
            let mut session = engine.session();
            let found = answers(runtime, &mut session);
            drop(session);
            engine.shutdown();
            assert!(found == right, "{place} was not found, and there is\n{found}");
            false
        }
    }
}

#[test]
fn rot_is_found_or_has_no_effect() {
    let (cases, seed) = (number("TIDEMILL_CASES", 150), number("TIDEMILL_SEED", 1) as u64);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (files, right, mut random) = (lived(&runtime), life("answers.txt"), Random::new(seed));
    assert!(!comes_up(&runtime, &files, &right, "no damage"), "a start without damage is refused");
    let paths: Vec<&PathBuf> = files.iter().filter(|(_, bytes)| !bytes.is_empty()).map(|(path, _)| path).collect();
    let (mut refused, mut passed) = (0, 0);
    let mut note = |refuses: bool| if refuses { refused += 1 } else { passed += 1 };
    for case in 0..cases {
        // Small files as often as large ones.
        let path = paths[case % paths.len()];
        let mut damaged = files.clone();
        let bytes = damaged.get_mut(path).expect("a file");
        let (at, bit) = (random.below(bytes.len()), random.below(8));
        bytes[at] ^= 1 << bit;
        let place = format!("seed {seed}: bit {bit} of byte {at} of {} in {}", bytes.len(), path.display());
        note(comes_up(&runtime, &damaged, &right, &place));
    }
    let mut cuts = 0;
    for path in &paths {
        let length = files[*path].len();
        let between = (0..2).map(|_| random.below(length)).collect::<Vec<_>>();
        for to in (0..length).step_by(STEP).chain(between) {
            let mut damaged = files.clone();
            damaged.get_mut(*path).expect("a file").truncate(to);
            note(comes_up(&runtime, &damaged, &right, &format!("{} cut to {to} of {length}", path.display())));
            cuts += 1;
        }
    }
    println!("{cases} flips and {cuts} cuts in {} files: {refused} refused, {passed} without effect", paths.len());
}
