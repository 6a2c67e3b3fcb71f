//! Bits flip, files are cut, removed, exchanged: found, or without any effect on what is read.

mod world;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidemill_env::{Disk, Env, ManualClock, SimulatedDisk};
use tidemill_storage::{Inspection, LogOptions, StorageError};
use world::{DATA, Expected, Random, SMALL, cases, on, seed, settle, start};

/// A log of a few segments, closed or as a killed process leaves it.
fn log(records: usize, options: LogOptions, seed: u64, closed: bool) -> (SimulatedDisk, Expected) {
    let disk = SimulatedDisk::default();
    let mut expected = Expected::default();
    let mut random = Random(seed);
    let mut running = start(&on(&disk), Path::new(DATA), options).unwrap();
    for _ in 0..records {
        let length = random.below(options.max_record as usize / 8);
        expected.append(&running.log, length, &mut random);
        if random.below(3) == 0 {
            settle(&mut running);
        }
    }
    settle(&mut running);
    if closed {
        running.log.close();
        settle(&mut running);
    }
    expected.acknowledged = running.log.durable();
    drop(running);
    (disk, expected)
}

/// Whether the damage was found. If it was not, everything must be read as it was written.
fn found(disk: &SimulatedDisk, expected: &Expected, options: LogOptions, what: &str) -> bool {
    let looked = look(disk, options);
    match start(&on(disk), Path::new(DATA), options) {
        Ok(running) => {
            expected.clone().check(&running.log);
            assert_eq!(running.log.durable(), expected.acknowledged, "{what}");
            assert_eq!(looked, Vec::<String>::new(), "{what}: looking finds damage where there is none");
            false
        }
        Err(error @ StorageError::Damaged { .. }) => {
            assert!(error.to_string().contains(DATA), "{error} does not name the file");
            assert_eq!(looked.first(), Some(&error.to_string()), "{what}: looking finds something else");
            true
        }
        Err(error) => panic!("{what}: {error}"),
    }
}

/// The damage that one finds who only looks, and changes nothing.
fn look(disk: &SimulatedDisk, options: LogOptions) -> Vec<String> {
    let before = disk.files();
    let inspection = Inspection::open(&on(disk), Path::new(DATA)).unwrap();
    let count = inspection.incarnation().err();
    let log = inspection.log(options.max_record, &mut |_| {}).unwrap();
    let damage = count.into_iter().chain(log.into_iter().flat_map(|log| log.damage));
    let damage = damage.map(|error| error.to_string()).collect();
    assert!(disk.files() == before, "looking changed something");
    damage
}

fn in_log(disk: &SimulatedDisk) -> Vec<(PathBuf, Vec<u8>)> {
    disk.files()
        .into_iter()
        .filter(|(path, bytes)| !bytes.is_empty() && path.parent() != Some(Path::new(DATA)))
        .collect()
}

#[test]
fn every_bit_of_a_small_log_may_flip() {
    for closed in [false, true] {
        let options = LogOptions { segment: 300, max_record: 300, ..SMALL };
        let (disk, expected) = log(15, options, 1, closed);
        let files = in_log(&disk);
        assert!(files.len() > 3, "some segments and the floor: {}", files.len());
        for (path, bytes) in files {
            let mut harmless = 0;
            // Most of the floor's bytes mean nothing.
            let step = if path.ends_with("floor") { 7 } else { 1 };
            for bit in (0..bytes.len() * 8).step_by(step) {
                let bad = disk.restart();
                bad.damage(&path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
                let what = format!("bit {bit} of {}", path.display());
                harmless += usize::from(!found(&bad, &expected, options, &what));
            }
            // One copy of the floor makes up for the other; in segments every bit counts.
            assert!(harmless == 0 || path.ends_with("floor"), "{harmless} bits of {}", path.display());
        }
    }
}

#[test]
fn random_bits_of_a_larger_log_may_flip() {
    let (disk, expected) = log(200, SMALL, 2, false);
    let files = in_log(&disk);
    let mut random = Random(seed());
    for _ in 0..cases(1000) {
        let (path, bytes) = &files[random.below(files.len())];
        let bit = random.below(bytes.len() * 8);
        let bad = disk.restart();
        bad.damage(path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        let what = format!("bit {bit} of {}", path.display());
        assert!(found(&bad, &expected, SMALL, &what) || path.ends_with("floor"), "{what}");
    }
}

#[test]
fn files_may_be_cut_removed_and_exchanged() {
    let options = LogOptions { segment: 600, max_record: 300, ..SMALL };
    let (disk, expected) = log(30, options, 3, false);
    let files = in_log(&disk);
    for (path, bytes) in &files {
        for length in 0..bytes.len() {
            let bad = disk.restart();
            bad.damage(path, |bytes| bytes.truncate(length));
            let what = format!("{} cut at {length}", path.display());
            assert!(found(&bad, &expected, options, &what) || path.ends_with("floor"), "{what}");
        }
        for (other, content) in files.iter().filter(|(other, _)| other != path) {
            let bad = disk.restart();
            bad.damage(path, |bytes| bytes.clone_from(content));
            assert!(found(&bad, &expected, options, "copied"), "{} over {}", other.display(), path.display());
            bad.damage(other, |old| old.clone_from(bytes));
            assert!(found(&bad, &expected, options, "exchanged"), "{} and {}", other.display(), path.display());
        }
        let bad = disk.restart();
        bad.remove(path).unwrap();
        assert!(found(&bad, &expected, options, "removed"), "{} removed", path.display());
        // Garbage at the end of a segment.
        let bad = disk.restart();
        bad.damage(path, |bytes| bytes.extend_from_slice(&[0x55; 99]));
        let last = files.iter().rfind(|(path, _)| path.extension().is_some()).is_some_and(|(last, _)| last == path);
        assert!(found(&bad, &expected, options, "longer") || last, "{} longer", path.display());
    }
}

#[test]
fn another_logs_segment_is_not_taken() {
    let options = LogOptions { segment: 600, max_record: 300, ..SMALL };
    let (disk, _) = log(30, options, 4, true);
    // A log of the same shape that was made at another time.
    let other = SimulatedDisk::default();
    let clock = ManualClock::default();
    clock.advance_micros(1);
    let env = Env::simulated(Arc::new(clock)).with_disk(Arc::new(other.clone()));
    drop(start(&env, Path::new(DATA), options).unwrap());
    for (path, bytes) in in_log(&disk).into_iter().filter(|(path, _)| path.extension().is_some()) {
        let bad = other.restart();
        if !bad.exists(&path).unwrap() {
            bad.create(&path).unwrap();
        }
        bad.damage(&path, |old| *old = bytes);
        let error = start(&on(&bad), Path::new(DATA), options).err().unwrap();
        assert!(matches!(error, StorageError::Damaged { .. }), "{}: {error}", path.display());
    }
}

/// Two copies of a log that went different ways: same log, same numbers, but another history.
#[test]
fn a_segment_of_another_history_is_not_taken() {
    let options = LogOptions { segment: 600, ..SMALL };
    let (disk, expected) = log(0, options, 5, true);
    let goes_on = |starts: usize| {
        let disk = disk.restart();
        for _ in 1..starts {
            drop(start(&on(&disk), Path::new(DATA), options).unwrap());
        }
        let mut running = start(&on(&disk), Path::new(DATA), options).unwrap();
        let mut expected = expected.clone();
        for _ in 0..9 {
            expected.append(&running.log, 400, &mut Random(starts as u64));
            settle(&mut running);
        }
        expected.acknowledged = running.log.durable();
        drop(running);
        (disk, expected)
    };
    let ((ours, expected), (theirs, _)) = (goes_on(1), goes_on(2));
    let segments: Vec<_> = in_log(&ours).into_iter().filter(|(path, _)| path.extension().is_some()).collect();
    assert_eq!(segments.len(), 9);
    for (path, bytes) in in_log(&theirs).into_iter().filter(|(path, _)| path.extension().is_some()).skip(2) {
        let bad = ours.restart();
        bad.damage(&path, |old| *old = bytes);
        let error = start(&on(&bad), Path::new(DATA), options).err().unwrap().to_string();
        assert!(error.contains("does not follow on"), "{error}");
        assert!(!found(&ours.restart(), &expected, options, "untouched"));
    }
}

/// A power failure may leave the floor behind; rot in front of the last group is found all the same.
#[test]
fn rot_before_the_last_group_is_found_without_the_floor() {
    let disk = SimulatedDisk::default();
    let options = LogOptions { segment: 1 << 20, ..SMALL };
    let mut running = start(&on(&disk), Path::new(DATA), options).unwrap();
    let mut expected = Expected::default();
    let mut random = Random(5);
    let floor = Path::new(DATA).join("log/floor");
    let old = disk.files().into_iter().find(|(path, _)| *path == floor).unwrap().1;
    let mut groups = Vec::new();
    for _ in 0..20 {
        expected.append(&running.log, 200, &mut random);
        settle(&mut running);
        groups.push(running.log.durable());
    }
    drop(running);
    disk.damage(&floor, |bytes| *bytes = old);
    let segment = in_log(&disk).into_iter().find(|(path, _)| path.extension().is_some()).unwrap();
    let record = 48 + 200;
    let mut harmless = 0;
    for byte in 56..segment.1.len() {
        let bad = disk.restart();
        bad.damage(&segment.0, |bytes| bytes[byte] ^= 0x10);
        match start(&on(&bad), Path::new(DATA), options) {
            Err(StorageError::Damaged { offset, .. }) => {
                assert_eq!((offset as usize - 56) / record, (byte - 56) / record, "the place is named");
            }
            Err(error) => panic!("{error}"),
            Ok(running) => {
                // The very last group cannot be told from one that was being written.
                assert_eq!((running.log.durable(), (byte - 56) / record), (19, 19));
                assert_eq!(running.torn.unwrap().record, 19);
                harmless += 1;
            }
        }
    }
    assert_eq!(harmless, record);
}
