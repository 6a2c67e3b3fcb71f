//! The basic cases on the operating system's disk, with the writer on its thread.

mod world;

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use tidemill_env::Env;
use tidemill_storage::{LogOptions, State, StorageError};
use world::{Expected, Random, Running, SMALL, start};

/// Appends from this thread while the writer's thread writes; closes.
fn fill(path: &Path, options: LogOptions, expected: &mut Expected, records: usize) {
    let Running { log, writer, told, data, .. } = start(&Env::real(), path, options).unwrap();
    let thread = writer.spawn().unwrap();
    let mut random = Random(records as u64);
    for i in 0..records {
        let length = random.below(2000);
        while !expected.append(&log, length, &mut random) {
            // The queue is full: wait for the newest record, as a slow disk makes everyone do.
            log.wait(log.end() - 1).unwrap();
        }
        if i % 100 == 0 {
            log.wait(i as u64).unwrap();
        }
    }
    log.wait(log.end() - 1).unwrap();
    log.close();
    thread.join().unwrap();
    assert_eq!(log.state(), State::Closed);
    assert_eq!(told.load(Ordering::SeqCst), expected.records.len() as u64);
    expected.acknowledged = log.durable();
    drop(data);
}

#[test]
fn a_log_grows_over_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let mut expected = Expected::default();
    for round in 1..4 {
        fill(&path, LogOptions { segment: 1 << 16, ..SMALL }, &mut expected, 150 * round);
        let running = start(&Env::real(), &path, SMALL).unwrap();
        assert_eq!((running.torn.clone(), running.data.incarnation()), (None, 2 * round as u64));
        expected.check(&running.log);
        assert!(matches!(start(&Env::real(), &path, SMALL), Err(StorageError::InUse(_))));
    }
}

#[test]
fn a_torn_tail_is_cut_and_rot_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut expected = Expected::default();
    fill(folder.path(), SMALL, &mut expected, 20);
    let mut segments: Vec<_> = fs::read_dir(folder.path().join("log")).unwrap().map(|e| e.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some());
    segments.sort();
    let last = segments.last().unwrap();

    let mut bytes = fs::read(last).unwrap();
    bytes.extend_from_slice(&[1; 777]);
    fs::write(last, &bytes).unwrap();
    let running = start(&Env::real(), folder.path(), SMALL).unwrap();
    let torn = running.torn.clone().unwrap();
    assert_eq!((&torn.path, torn.bytes, torn.record), (last, 777, 20));
    expected.check(&running.log);
    drop(running);
    assert_eq!(fs::metadata(last).unwrap().len(), bytes.len() as u64 - 777);

    let mut bytes = fs::read(&segments[0]).unwrap();
    bytes[200] ^= 1;
    fs::write(&segments[0], &bytes).unwrap();
    let error = start(&Env::real(), folder.path(), SMALL).err().unwrap().to_string();
    assert!(error.contains("00000000000000000000.log is damaged at byte "), "{error}");
}
