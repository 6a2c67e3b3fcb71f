use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::Int64Array;
use arrow::datatypes::{DataType, Field, Schema};
use tidemill_env::{Fate, Fault, ManualClock, SimulatedDisk};

use super::*;

const LAST: Epoch = 7;
/// The epochs after which it is committed.
const COMMITS: [Epoch; 4] = [1, 3, 4, LAST];

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]))
}

/// The change of an epoch: a row that tells it.
fn change(epoch: Epoch) -> Delta {
    let rows = RecordBatch::try_new(schema(), vec![Arc::new(Int64Array::from(vec![epoch as i64]))]);
    Delta::inserts(rows.expect("valid"))
}

fn new_disk() -> SimulatedDisk {
    let disk = SimulatedDisk::default();
    disk.create_dir(Path::new("/out")).expect("made");
    disk.sync_dir(Path::new("/")).expect("synced");
    disk
}

fn sink_named(name: &str, disk: &SimulatedDisk) -> FolderSink {
    let env = Env::simulated(Arc::new(ManualClock::default())).with_disk(Arc::new(disk.clone()));
    let options = [("path", "/out/"), ("format", "ndjson")].map(|(k, v)| (k.to_string(), v.to_string()));
    FolderSink::new(name, &options, &schema(), true, &env).expect("valid")
}

fn sink(disk: &SimulatedDisk) -> FolderSink {
    sink_named("s", disk)
}

fn opening(incarnation: u64, created: bool) -> Opening {
    Opening { incarnation, created }
}

/// The files that readers see.
fn shown(disk: &SimulatedDisk) -> BTreeMap<String, String> {
    let name = |path: &Path| path.file_name().and_then(|n| n.to_str()).expect("named").to_owned();
    let files = disk.files().into_iter().map(|(path, bytes)| (name(&path), String::from_utf8(bytes).expect("text")));
    files.filter(|(name, _)| !name.starts_with('.')).collect()
}

/// The epochs that readers see; each file is whole.
fn epochs(disk: &SimulatedDisk) -> Vec<Epoch> {
    let read = |text: &String| {
        assert!(text.ends_with("}\n"), "a torn file: {text:?}");
        let number = |line: &str| line.strip_prefix("{\"a\":")?.strip_suffix('}')?.parse().ok();
        text.lines().map(|line| number(line).unwrap_or_else(|| panic!("a torn line: {line:?}"))).collect::<Vec<Epoch>>()
    };
    shown(disk).values().flat_map(read).collect()
}

/// What an engine does. `created` is set once the sink was opened, as then the catalog has it.
fn deliver(disk: &SimulatedDisk, incarnation: u64, known: &mut bool) -> Result<(), SinkError> {
    let mut sink = sink(disk);
    let committed = again(|| sink.open(opening(incarnation, !*known)))?;
    *known = true;
    for epoch in 1..=LAST {
        if committed.is_some_and(|c| epoch <= c) {
            continue;
        }
        sink.write(epoch, &change(epoch))?;
        if COMMITS.contains(&epoch) {
            again(|| sink.commit(epoch))?;
        }
    }
    sink.finish()
}

/// Tries again where that is said to help.
fn again<T>(mut act: impl FnMut() -> Result<T, SinkError>) -> Result<T, SinkError> {
    for _ in 0..3 {
        match act() {
            Err(SinkError::Retry { .. }) => {}
            other => return other,
        }
    }
    act()
}

#[test]
fn a_file_per_commit() {
    let disk = new_disk();
    deliver(&disk, 3, &mut false).expect("delivered");
    let names: Vec<String> = shown(&disk).into_keys().collect();
    assert_eq!(names, COMMITS.map(|epoch| format!("s-{epoch:020}-3.ndjson")));
    assert_eq!(epochs(&disk), (1..=LAST).collect::<Vec<_>>());
}

#[test]
fn a_crash_at_any_step_loses_and_repeats_nothing() {
    let disk = new_disk();
    let before = disk.trace().len();
    deliver(&disk, 1, &mut false).expect("delivered");
    let steps = disk.trace().len();
    assert!(steps - before > 24, "too little happens: {steps}");
    for step in before..steps {
        for fate in [Fate::Lost, Fate::Kept, Fate::Mixed(1), Fate::Mixed(2), Fate::Mixed(3)] {
            let (disk, mut known) = (new_disk(), false);
            disk.fail_at(step, Fault::Crash);
            deliver(&disk, 1, &mut known).expect_err("it crashes");
            let disk = disk.crash(fate);
            let seen = epochs(&disk);
            assert!(seen.iter().copied().eq(1..=seen.len() as u64), "step {step}, {fate:?}: {seen:?}");
            // Another crash while it comes back, and then none.
            let recovery = disk.restart();
            deliver(&recovery, 2, &mut known.clone()).unwrap_or_else(|e| panic!("step {step}, {fate:?}: {e}"));
            for second in 0..recovery.trace().len() {
                let (disk, mut known) = (disk.restart(), known);
                disk.fail_at(second, Fault::Crash);
                deliver(&disk, 2, &mut known).expect_err("it crashes again");
                let disk = disk.crash(fate);
                deliver(&disk, 3, &mut known).unwrap_or_else(|e| panic!("steps {step} and {second}, {fate:?}: {e}"));
                assert_eq!(epochs(&disk), (1..=LAST).collect::<Vec<_>>(), "steps {step} and {second}, {fate:?}");
                let leftovers = disk.files().into_iter().filter(|(path, _)| path.to_string_lossy().ends_with(".tmp"));
                assert_eq!(leftovers.count(), 0, "steps {step} and {second}, {fate:?}");
            }
        }
    }
}

#[test]
fn a_fault_at_any_step_loses_and_repeats_nothing() {
    let disk = new_disk();
    let before = disk.trace().len();
    deliver(&disk, 1, &mut false).expect("delivered");
    for step in before..disk.trace().len() {
        for fault in [Fault::Device, Fault::NoSpace] {
            let (disk, mut known) = (new_disk(), false);
            disk.fail_at(step, fault);
            let first = deliver(&disk, 1, &mut known);
            if fault == Fault::Device {
                first.expect_err("it stops");
            } else if let Err(error) = first {
                assert!(matches!(error, SinkError::Fatal(_)), "{error:?}");
            }
            let disk = disk.restart();
            deliver(&disk, 2, &mut known).unwrap_or_else(|e| panic!("step {step}, {fault:?}: {e}"));
            assert_eq!(epochs(&disk), (1..=LAST).collect::<Vec<_>>(), "step {step}, {fault:?}");
        }
    }
}

#[test]
fn a_full_disk_is_waited_for() {
    let disk = new_disk();
    let mut sink = sink(&disk);
    sink.open(opening(1, true)).expect("opened");
    sink.write(1, &change(1)).expect("written");
    disk.set_capacity(Some(4));
    assert!(matches!(sink.commit(1), Err(SinkError::Retry { .. })));
    assert_eq!(epochs(&disk), Vec::<Epoch>::new());
    disk.set_capacity(None);
    sink.commit(1).expect("there is room");
    sink.commit(1).expect("nothing waits");
    assert_eq!(epochs(&disk), [1]);
}

#[test]
fn an_older_incarnation_cannot_commit() {
    let disk = new_disk();
    let mut old = sink(&disk);
    assert_eq!(old.open(opening(4, true)), Ok(None));
    old.write(1, &change(1)).expect("written");
    old.commit(1).expect("committed");
    old.write(2, &change(2)).expect("written");
    let mut new = sink(&disk);
    assert_eq!(new.open(opening(5, false)), Ok(Some(1)));
    assert!(matches!(old.commit(2), Err(SinkError::Fenced(_))));
    assert_eq!(epochs(&disk), [1]);
    new.write(2, &change(2)).expect("written");
    new.commit(2).expect("committed");
    let error = sink(&disk).open(opening(4, false)).expect_err("refused");
    assert_eq!(error, SinkError::fenced(4, 5));
    // Nor can it forget what is no longer its own.
    old.forget().expect("nothing to do");
    assert_eq!(sink(&disk).open(opening(6, false)), Ok(Some(2)));
}

#[test]
fn neighbours_leave_each_other_alone() {
    let disk = new_disk();
    let mut sinks = ["s", "s-b", "s-00000000000000000001-1"].map(|name| sink_named(name, &disk));
    for sink in &mut sinks {
        sink.open(opening(1, true)).expect("opened");
        // As if it were in the middle of a commit.
        let aside = format!("/out/.{}-00000000000000000009-1.ndjson.tmp", sink.name);
        disk.create(Path::new(&aside)).expect("created");
    }
    let left = || disk.files().into_iter().filter(|(path, _)| path.to_string_lossy().ends_with(".tmp")).count();
    for rest in [2, 1, 0] {
        let mut again = sink_named(&sinks[rest].name, &disk);
        assert_eq!(again.open(opening(2, false)), Ok(None));
        assert_eq!(left(), rest);
    }
}

#[test]
fn a_commit_waits_for_the_lock() {
    let disk = new_disk();
    let mut sink = sink(&disk);
    sink.open(opening(1, true)).expect("opened");
    sink.write(1, &change(1)).expect("written");
    let held = disk.lock(Path::new("/out/.s.lock")).expect("free");
    assert!(matches!(sink.commit(1), Err(SinkError::Retry { .. })));
    assert_eq!(epochs(&disk), Vec::<Epoch>::new());
    drop(held);
    sink.commit(1).expect("committed");
    assert_eq!(epochs(&disk), [1]);
}

#[test]
fn a_new_sink_wants_a_place_of_its_own() {
    let disk = new_disk();
    let mut known = false;
    deliver(&disk, 1, &mut known).expect("delivered");
    let error = sink(&disk).open(opening(1, true)).expect_err("taken");
    assert!(error.to_string().contains("an earlier sink of this name"), "{error}");
    assert_eq!(sink_named("s-00000000000000000001-1", &disk).open(opening(1, true)), Ok(None));
    assert_eq!(sink_named("../S ü", &disk).open(opening(1, true)), Ok(None));
    assert!(disk.exists(Path::new("/out/.%2e%2e%2fS%20%c3%bc.fence")).expect("answers"));
    let mut dropped = sink(&disk);
    dropped.open(opening(1, false)).expect("opened");
    dropped.forget().expect("forgotten");
    let error = sink(&disk).open(opening(2, false)).expect_err("unknown");
    assert!(error.to_string().contains(".s.fence is missing"), "{error}");
    let folder = SimulatedDisk::default();
    assert_eq!(sink(&folder).open(opening(1, true)), Ok(None), "the folder is made");
}
