//! `tidemill doctor` on folders that are whole, damaged, in use, or none.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tidemill_env::Env;
use tidemill_storage::{Checkpoints, DataFolder, FolderStore, Handlers, Log, LogOptions, Step};

/// What the doctor says, and its exit code.
fn doctor(folder: &Path, json: bool) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.arg("doctor").arg(folder).args(json.then_some("--json"));
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said)
}

fn json(folder: &Path) -> (Option<i32>, Value) {
    let (code, said) = doctor(folder, true);
    (code, serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}")))
}

/// A folder with two checkpoints and a log of three segments, of which the first records were let go.
fn fill(folder: &Path) {
    let data = DataFolder::open(&Env::real(), folder).unwrap();
    let handlers = Handlers { advanced: Box::new(|_| {}), fatal: Box::new(|error| panic!("{error}")) };
    let options = LogOptions { segment: 4096, ..LogOptions::default() };
    let mut opened = Log::open(&data, options, handlers).unwrap();
    let store = FolderStore::open(&data, "checkpoints").unwrap();
    let mut checkpoints = Checkpoints::open(store, data.incarnation()).unwrap();
    let mut files = Vec::new();
    for i in 0..20u8 {
        opened.log.append(if i % 5 == 4 { 9 } else { 0 }, vec![i; 500]).unwrap();
        while opened.writer.step() == Step::Wrote {}
        if i == 8 || i == 12 {
            files.push(checkpoints.put_file(&format!("run-1-{i}-0"), vec![i; 1000]).unwrap());
            checkpoints.commit(i.into(), u64::from(i) + 1, files.clone()).unwrap();
        }
    }
    opened.log.release(checkpoints.collect_garbage(2).unwrap());
    opened.writer.step();
    opened.log.close();
    assert_eq!(opened.writer.step(), Step::Closed);
}

/// All files' contents and times of change, and the folders' names.
fn state(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let changed = entry.metadata().unwrap().modified().unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(state(&entry.path()));
            found.insert(entry.path(), (Vec::new(), changed));
        } else {
            found.insert(entry.path(), (fs::read(entry.path()).unwrap(), changed));
        }
    }
    found
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn a_healthy_folder_is_described_and_left_alone() {
    let temporary = tempfile::tempdir().unwrap();
    fill(temporary.path());
    let before = state(temporary.path());
    let (code, found) = json(temporary.path());
    assert_eq!((code, &found["verdict"]), (Some(0), &"healthy".into()), "{found:#}");
    assert_eq!(found["incarnation"], 1);
    assert_eq!((&found["log"]["first"], &found["log"]["end"]), (&7.into(), &20.into()));
    assert_eq!(found["log"]["segments"].as_array().unwrap().len(), 2);
    let kinds = serde_json::json!([
        {"kind": 0, "name": "epoch", "records": 10, "payload_bytes": 5000},
        {"kind": 9, "name": "unknown", "records": 3, "payload_bytes": 1500},
    ]);
    assert_eq!(found["log"]["kinds"], kinds);
    let recovery = serde_json::json!({"epoch": 12, "from_record": 13, "records": 7});
    assert_eq!(found["recovery"], recovery);
    let states: Vec<_> = found["checkpoints"]["checkpoints"].as_array().unwrap().iter().map(|c| &c["state"]).collect();
    assert_eq!(states, ["whole", "whole"]);

    let (code, said) = doctor(temporary.path(), false);
    assert_eq!(code, Some(0));
    for line in
        ["log: records 7 to 19; segments: 2", "a start takes the checkpoint of epoch 12, then of the log: 13 to 19"]
    {
        assert!(said.contains(line), "{said}");
    }
    assert!(said.ends_with("\nhealthy\n"), "{said}");
    assert_eq!(state(temporary.path()), before, "nothing changed");
}

#[test]
fn a_torn_tail_is_no_damage() {
    let temporary = tempfile::tempdir().unwrap();
    fill(temporary.path());
    let last = files_in(&temporary.path().join("log")).into_iter().rfind(|path| path.extension().is_some()).unwrap();
    let mut bytes = fs::read(&last).unwrap();
    let length = bytes.len();
    bytes.extend_from_slice(&[1; 77]);
    fs::write(&last, &bytes).unwrap();
    fs::write(temporary.path().join("log/00000000000000000099.log.new"), "").unwrap();
    let (code, found) = json(temporary.path());
    let torn = &found["log"]["torn"];
    assert_eq!((code, &torn["bytes"], &torn["byte"]), (Some(0), &77.into(), &length.into()), "{found:#}");
    let (_, said) = doctor(temporary.path(), false);
    assert!(said.contains("torn tail: record 20 was being written"), "{said}");
    assert!(said.contains("note: 1 files were being written"), "{said}");
    assert_eq!(fs::read(&last).unwrap(), bytes, "it is not cut");
}

#[test]
fn damage_is_found_and_its_place_is_said() {
    let temporary = tempfile::tempdir().unwrap();
    fill(temporary.path());
    let mut paths = files_in(temporary.path());
    paths.retain(|path| path.ends_with("incarnation"));
    for folder in ["log", "checkpoints"] {
        let of_folder = files_in(&temporary.path().join(folder));
        paths.extend(of_folder.into_iter().filter(|path| fs::metadata(path).unwrap().len() > 0));
    }
    assert_eq!(paths.len(), 1 + 3 + 4, "{paths:?}");
    for path in paths {
        let good = fs::read(&path).unwrap();
        let mut flipped = good.clone();
        // In the floor's copies, in a payload or a text.
        for at in if path.ends_with("floor") { vec![20, 532] } else { vec![good.len() / 2] } {
            flipped[at] ^= 1;
        }
        for bad in [Some(flipped), None] {
            match &bad {
                Some(bad) => fs::write(&path, bad).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let (code, found) = json(temporary.path());
            let name = path.display().to_string();
            // Without its manifest a checkpoint was never there.
            let trace = bad.is_some() || !name.contains("manifest");
            assert_eq!(code, Some(i32::from(trace)), "{name}: {found:#}");
            let wrong = found["wrong"].as_array().unwrap();
            assert_eq!(found["verdict"], if trace { "damaged" } else { "healthy" });
            // Of the last segment, when it is gone, only the one before can tell that something is missing.
            let named = trace && (bad.is_some() || !name.ends_with("14.log"));
            assert_eq!(wrong.iter().any(|wrong| wrong["file"] == *name), named, "{name}: {found:#}");
            let (_, said) = doctor(temporary.path(), false);
            assert_eq!(said.contains(&format!("damaged: {name} at byte ")), named, "{said}");
        }
        fs::write(&path, &good).unwrap();
    }
    assert_eq!(doctor(temporary.path(), false).0, Some(0));
}

#[test]
fn a_damaged_checkpoint_leaves_the_one_before() {
    let temporary = tempfile::tempdir().unwrap();
    fill(temporary.path());
    fs::write(temporary.path().join("checkpoints/run-1-12-0"), "something else").unwrap();
    let (code, found) = json(temporary.path());
    assert_eq!((code, &found["recovery"]["epoch"]), (Some(1), &8.into()), "{found:#}");
    fs::remove_file(temporary.path().join("checkpoints/run-1-8-0")).unwrap();
    let (_, found) = json(temporary.path());
    assert_eq!(found["recovery"]["epoch"], Value::Null);
    // Without a checkpoint the log would have to begin with record 0.
    let (_, said) = doctor(temporary.path(), false);
    assert!(said.contains("record 0 is needed, but the log holds records from 7"), "{said}");
}

#[test]
fn what_cannot_be_looked_at_is_said() {
    let temporary = tempfile::tempdir().unwrap();
    let (code, said) = doctor(&temporary.path().join("nowhere"), false);
    assert!(code == Some(2) && said.contains("cannot read"), "{said}");
    let (code, said) = doctor(temporary.path(), false);
    assert!(code == Some(2) && said.contains("is not a data folder"), "{said}");
    assert_eq!(files_in(temporary.path()), Vec::<PathBuf>::new(), "no lock is left there");
    let data = DataFolder::open(&Env::real(), temporary.path()).unwrap();
    let (code, said) = doctor(temporary.path(), false);
    assert!(code == Some(2) && said.contains("is in use by another process"), "{said}");
    drop(data);
    assert_eq!(doctor(temporary.path(), false).0, Some(0));
}
