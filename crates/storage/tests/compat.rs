//! Data folders that earlier versions wrote are read; and this version still writes what it is said to write.
//!
//! The folders are in `tests/compat/`, whose README says when another one is to be made.

mod world;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tidemill_env::{Disk, SimulatedDisk};
use tidemill_storage::{Checkpoints, DataFolder, FolderStore, LogOptions, Step};
use world::{DATA, Running, SMALL, on, start};

/// All versions, and the one that this program writes.
const VERSIONS: [&str; 1] = ["storage-1"];
const CURRENT: &str = "storage-1";

const OPTIONS: LogOptions = LogOptions { segment: 500, ..SMALL };
/// How many bytes of the last record the kill left.
const TORN: usize = 100;

fn folder(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/compat").join(version)
}

fn record(number: u64) -> (u8, Vec<u8>) {
    let payload = (0..number * 7 % 250).map(|i| (i * i + number) as u8).collect();
    ((number % 3) as u8, payload)
}

fn content(file: u64) -> Vec<u8> {
    format!("file {file}\n").repeat(file as usize * 3).into_bytes()
}

/// The life of the folder: two processes, each with ten records and a checkpoint; the second one was killed.
fn live() -> SimulatedDisk {
    let disk = SimulatedDisk::default();
    let mut files = Vec::new();
    for life in 1..3 {
        let mut running = start(&on(&disk), Path::new(DATA), OPTIONS).unwrap();
        let store = FolderStore::open(&running.data, "checkpoints").unwrap();
        let mut checkpoints = Checkpoints::open(store, life).unwrap();
        for number in (life - 1) * 10..life * 10 {
            let (kind, payload) = record(number);
            running.log.append(kind, payload).unwrap();
            assert_eq!(running.writer.step(), Step::Wrote);
        }
        files.push(checkpoints.put_file(&format!("run-{life}"), content(life)).unwrap());
        checkpoints.commit(100 * life, 8 * life, files.clone()).unwrap();
        running.log.release(checkpoints.collect_garbage(2).unwrap());
        running.writer.step();
    }
    // One more record, of which not all is there.
    let Running { log, mut writer, data, .. } = start(&on(&disk), Path::new(DATA), OPTIONS).unwrap();
    let floor = files_of(&disk).remove(Path::new("log/floor")).unwrap();
    log.append(1, vec![7; 200]).unwrap();
    writer.step();
    let last = files_of(&disk).into_keys().rfind(|path| path.extension().is_some_and(|e| e == "log")).unwrap();
    drop((log, writer, data));
    let path = Path::new(DATA);
    disk.damage(&path.join(last), |bytes| bytes.truncate(bytes.len() - TORN));
    disk.damage(&path.join("log/floor"), |bytes| *bytes = floor);
    disk
}

/// The folder's files but for the lock, which is empty.
fn files_of(disk: &SimulatedDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = disk.files().into_iter().filter(|(path, _)| !path.ends_with("lock"));
    files.map(|(path, bytes)| (path.strip_prefix(DATA).unwrap().to_owned(), bytes)).collect()
}

fn stored(version: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let top = folder(version);
    let mut files = BTreeMap::new();
    for name in ["", "log", "checkpoints"] {
        for entry in fs::read_dir(top.join(name)).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                files.insert(Path::new(name).join(entry.file_name()), fs::read(entry.path()).unwrap());
            }
        }
    }
    files
}

#[test]
fn every_version_is_read() {
    for version in VERSIONS {
        let disk = SimulatedDisk::default();
        for name in ["", "log", "checkpoints"] {
            disk.create_dir(&Path::new(DATA).join(name)).unwrap();
        }
        for (path, bytes) in stored(version) {
            let file = disk.create(&Path::new(DATA).join(path)).unwrap();
            file.write_at(&bytes, 0).unwrap();
        }
        let running = start(&on(&disk), Path::new(DATA), OPTIONS).unwrap();
        assert_eq!(running.data.incarnation(), 4, "{version}");
        let torn = running.torn.as_ref().unwrap();
        assert_eq!((torn.record, torn.cause), (20, "the file ends within a record's payload"), "{version}");
        assert_eq!((running.log.first() > 0, running.log.end()), (true, 20), "{version}");
        for found in running.log.records(running.log.first()).unwrap().map(Result::unwrap) {
            assert_eq!((found.kind, found.payload), record(found.number), "{version}");
        }
        assert_eq!(checkpoint(&running.data), (200, 16, vec![content(1), content(2)]), "{version}");
    }
}

/// The newest checkpoint's epoch, log position and files.
fn checkpoint(data: &DataFolder) -> (u64, u64, Vec<Vec<u8>>) {
    let store = FolderStore::open(data, "checkpoints").unwrap();
    let checkpoints = Checkpoints::open(store, data.incarnation()).unwrap();
    let take = |files: &mut Vec<_>, _: &_, bytes| {
        files.push(bytes);
        Ok(())
    };
    let loaded = checkpoints.load(|_| Vec::new(), take).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let (manifest, files) = loaded.checkpoint.unwrap();
    (manifest.epoch, manifest.log_position, files)
}

#[test]
fn the_current_format_is_what_it_was() {
    let (now, then) = (files_of(&live()), stored(CURRENT));
    assert_eq!(now.keys().collect::<Vec<_>>(), then.keys().collect::<Vec<_>>());
    for (path, bytes) in now {
        assert!(bytes == then[&path], "{} is written in another way; see tests/compat/README.md", path.display());
    }
}

#[test]
#[ignore = "for a new version of the format only; see tests/compat/README.md"]
fn write_the_current_format() {
    let top = folder(CURRENT);
    assert!(!top.exists(), "{} is there, and shall stay as it is", top.display());
    for (path, bytes) in files_of(&live()) {
        let path = top.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}
