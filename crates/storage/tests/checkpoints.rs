//! Checkpoints through crashes, damage and older incarnations.

mod world;

use std::path::Path;

use tidemill_env::{Disk, Env, Fate, Fault, Operation, SimulatedDisk};
use tidemill_storage::{Checkpoints, DataFolder, FileEntry, FolderStore, Manifest, ObjectStore, StorageError};
use world::{DATA, Random, cases, on};

const KEEP: usize = 2;

fn open(env: &Env, path: &Path) -> Result<(DataFolder, Checkpoints<FolderStore>), StorageError> {
    let data = DataFolder::open(env, path)?;
    let checkpoints = Checkpoints::open(FolderStore::open(&data, "checkpoints")?, data.incarnation())?;
    Ok((data, checkpoints))
}

fn content(epoch: u64, file: u64) -> Vec<u8> {
    format!("file {file} of epoch {epoch} ").repeat(1 + (epoch as usize * 7 + file as usize) % 60).into_bytes()
}

/// One checkpoint: two new files, and one that the checkpoint before has too.
fn take(checkpoints: &mut Checkpoints<FolderStore>, incarnation: u64, epoch: u64) -> Result<Manifest, StorageError> {
    let before = checkpoints.newest()?.manifest;
    let mut files: Vec<_> = before.into_iter().flat_map(|manifest| manifest.files).take(1).collect();
    for file in 0..2 {
        files.push(checkpoints.put_file(&format!("run-{incarnation}-{epoch}-{file}"), content(epoch, file))?);
    }
    checkpoints.commit(epoch, epoch * 10, files)
}

/// Takes checkpoints from an epoch on; tells of each that was committed.
fn live(disk: &SimulatedDisk, committed: &mut u64, attempted: &mut u64) -> Result<(), StorageError> {
    for _ in 0..2 {
        let (data, mut checkpoints) = open(&on(disk), Path::new(DATA))?;
        for _ in 0..3 {
            *attempted += 1;
            let manifest = take(&mut checkpoints, data.incarnation(), *attempted)?;
            *committed = manifest.epoch;
            let needed = checkpoints.collect_garbage(KEEP)?;
            assert_eq!(needed, manifest.epoch.saturating_sub(KEEP as u64 - 1).max(1) * 10);
        }
    }
    Ok(())
}

/// The newest checkpoint's epoch, after its files were compared with what was put.
fn newest(checkpoints: &Checkpoints<FolderStore>) -> Result<u64, StorageError> {
    let Some(manifest) = checkpoints.newest()?.manifest else { return Ok(0) };
    for entry in &manifest.files {
        assert_eq!(checkpoints.get_file(entry)?, of_name(&entry.name), "{}", entry.name);
    }
    Ok(manifest.epoch)
}

/// What was put under a name.
fn of_name(name: &str) -> Vec<u8> {
    let words: Vec<u64> = name.split('-').filter_map(|word| word.parse().ok()).collect();
    content(words[1], words[2])
}

#[test]
fn a_committed_checkpoint_survives_wherever_the_power_goes() {
    let calm = SimulatedDisk::default();
    live(&calm, &mut 0, &mut 0).unwrap();
    let (mut states, mut random) = (0, Random(world::seed()));
    while states < cases(1000) {
        for operation in (0..calm.trace().len()).filter(|i| calm.trace()[*i].changes()) {
            let disk = SimulatedDisk::default();
            disk.fail_at(operation, Fault::Crash);
            let (mut committed, mut attempted) = (0, 0);
            assert!(live(&disk, &mut committed, &mut attempted).is_err());
            for fate in [Fate::Lost, Fate::Kept, Fate::Mixed(random.below(usize::MAX) as u64)] {
                let after = disk.crash(fate);
                let (data, mut checkpoints) = open(&on(&after), Path::new(DATA)).unwrap();
                let found = newest(&checkpoints).unwrap();
                assert!(found == committed || found == attempted, "{found}, but {committed} was committed");
                take(&mut checkpoints, data.incarnation(), attempted + 1).unwrap();
                checkpoints.collect_garbage(KEEP).unwrap();
                assert_eq!(newest(&checkpoints).unwrap(), attempted + 1);
                let names = after.files().len();
                // The lock, the incarnation, the claim and two fences; manifests; files.
                assert!(names <= 5 + 2 + 2 * 3, "{names} files: something was not removed");
                states += 1;
            }
        }
    }
    eprintln!("{states} crash states");
}

#[test]
fn every_operation_may_fail_once() {
    let calm = SimulatedDisk::default();
    live(&calm, &mut 0, &mut 0).unwrap();
    for operation in 0..calm.trace().len() {
        for fault in [Fault::Device, Fault::NoSpace] {
            let disk = SimulatedDisk::default();
            disk.fail_at(operation, fault);
            let (mut committed, mut attempted) = (0, 0);
            let result = live(&disk, &mut committed, &mut attempted);
            let (data, mut checkpoints) = open(&on(&disk.restart()), Path::new(DATA)).unwrap();
            let found = newest(&checkpoints).unwrap();
            assert!(found == committed || (result.is_err() && found == attempted));
            take(&mut checkpoints, data.incarnation(), attempted + 1).unwrap();
            let after = disk.restart();
            drop((data, checkpoints));
            assert!(newest(&open(&on(&after.crash(Fate::Lost)), Path::new(DATA)).unwrap().1).unwrap() >= committed);
        }
    }
}

/// Whether the damage was noticed by falling back. Panics if anything wrong is served.
fn falls_back(disk: &SimulatedDisk, what: &str) -> bool {
    let (_, checkpoints) = open(&on(disk), Path::new(DATA)).unwrap();
    let found = checkpoints.newest().unwrap();
    let epoch = newest(&checkpoints).unwrap();
    assert!(epoch == 6 || epoch == 5, "{what}: epoch {epoch}");
    assert_eq!(found.warnings.len(), usize::from(epoch == 5), "{what}: {:?}", found.warnings);
    epoch == 5
}

#[test]
fn a_damaged_checkpoint_falls_back_to_the_one_before() {
    let disk = SimulatedDisk::default();
    live(&disk, &mut 0, &mut 0).unwrap();
    let manifest = open(&on(&disk.restart()), Path::new(DATA)).unwrap().1.newest().unwrap().manifest.unwrap();
    // Files of the newest checkpoint only; the one that both share is the next test's.
    let is_new = |name: &str| name.ends_with("00006") || name.contains("-6-");
    let folder = Path::new(DATA).join("checkpoints");
    let files: Vec<_> = disk.files().into_iter().filter(|(path, _)| path.starts_with(&folder)).collect();
    let new: Vec<_> = files.iter().filter(|(path, _)| is_new(path.to_str().unwrap())).collect();
    assert_eq!((manifest.epoch, new.len()), (6, 3));
    for (path, bytes) in new {
        for bit in 0..bytes.len() * 8 {
            let bad = disk.restart();
            bad.damage(path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            assert!(falls_back(&bad, "bit"), "bit {bit} of {}", path.display());
        }
        for length in 0..bytes.len() {
            let bad = disk.restart();
            bad.damage(path, |bytes| bytes.truncate(length));
            assert!(falls_back(&bad, "cut"), "{} cut at {length}", path.display());
        }
        for (_, content) in files.iter().filter(|(other, _)| other != path) {
            let bad = disk.restart();
            bad.damage(path, |bytes| bytes.clone_from(content));
            assert!(falls_back(&bad, "exchanged"), "{}", path.display());
        }
        let bad = disk.restart();
        bad.remove(path).unwrap();
        let removed_manifest = path.to_str().unwrap().contains("manifest");
        if removed_manifest {
            // No trace of it is left: the checkpoint before is the newest.
            assert_eq!(newest(&open(&on(&bad), Path::new(DATA)).unwrap().1).unwrap(), 5);
        } else {
            assert!(falls_back(&bad, "removed"), "{} removed", path.display());
        }
    }
}

#[test]
fn without_a_whole_checkpoint_the_reason_is_said_and_nothing_removed() {
    let disk = SimulatedDisk::default();
    live(&disk, &mut 0, &mut 0).unwrap();
    let shared = open(&on(&disk.restart()), Path::new(DATA)).unwrap().1.newest().unwrap().manifest.unwrap();
    let shared = shared.files[0].name.clone();
    disk.damage(&Path::new(DATA).join("checkpoints").join(&shared), |bytes| bytes[3] ^= 4);
    let (_data, checkpoints) = open(&on(&disk.restart()), Path::new(DATA)).unwrap();
    let error = checkpoints.newest().unwrap_err();
    assert!(matches!(error, StorageError::NoCheckpoint(_)));
    assert_eq!(error.to_string().matches(&shared).count(), 4, "both manifests, file and name: {error}");
    let before = disk.restart().files().len();
    assert!(matches!(checkpoints.collect_garbage(1), Err(StorageError::Damaged { .. })));
    assert_eq!(disk.restart().files().len(), before);
}

#[test]
fn files_of_a_checkpoint_under_way_are_not_garbage() {
    let disk = SimulatedDisk::default();
    let (data, mut checkpoints) = open(&on(&disk), Path::new(DATA)).unwrap();
    take(&mut checkpoints, data.incarnation(), 1).unwrap();
    let file = checkpoints.put_file("run-1-2-0", content(2, 0)).unwrap();
    checkpoints.collect_garbage(1).unwrap();
    checkpoints.commit(2, 20, vec![file]).unwrap();
    assert_eq!(newest(&checkpoints).unwrap(), 2);
    // The one that nobody committed goes when its writer is gone.
    checkpoints.put_file("run-1-3-0", content(3, 0)).unwrap();
    drop((data, checkpoints));
    let (_data, checkpoints) = open(&on(&disk), Path::new(DATA)).unwrap();
    checkpoints.collect_garbage(1).unwrap();
    let names: Vec<_> = checkpoints.store().list("run").unwrap().into_iter().map(|object| object.name).collect();
    assert_eq!(names, ["run-1-2-0"]);
    assert!(matches!(
        checkpoints.get_file(&FileEntry { name: "run-1-3-0".into(), length: 9, checksum: 9 }),
        Err(StorageError::Damaged { .. })
    ));
}

#[test]
fn loading_reads_each_file_once_and_begins_anew_with_the_one_before() {
    let disk = SimulatedDisk::default();
    live(&disk, &mut 0, &mut 0).unwrap();
    for damaged in [None, Some("run-2-6-1")] {
        let disk = disk.restart();
        if let Some(name) = damaged {
            disk.damage(&Path::new(DATA).join("checkpoints").join(name), |bytes| bytes[0] ^= 1);
        }
        let (_data, checkpoints) = open(&on(&disk), Path::new(DATA)).unwrap();
        let before = reads_of_files(&disk);
        let mut begun = Vec::new();
        let loaded = checkpoints.load(
            |manifest| {
                begun.push(manifest.epoch);
                Vec::new()
            },
            |files, entry, bytes| {
                files.push((entry.name.clone(), bytes));
                Ok(())
            },
        );
        let loaded = loaded.unwrap();
        let (manifest, files) = loaded.checkpoint.unwrap();
        assert_eq!(loaded.warnings.len(), usize::from(damaged.is_some()));
        assert_eq!(begun, if damaged.is_some() { vec![6, 5] } else { vec![6] });
        assert_eq!(manifest.epoch, *begun.last().unwrap());
        let names: Vec<_> = files.iter().map(|(name, _)| name).collect();
        assert_eq!(names, manifest.files.iter().map(|file| &file.name).collect::<Vec<_>>(), "of one checkpoint only");
        assert!(files.iter().all(|(name, bytes)| *bytes == of_name(name)));
        assert_eq!(reads_of_files(&disk) - before, 3 * begun.len());
    }
}

#[test]
fn what_cannot_be_understood_is_as_good_as_damaged() {
    let disk = SimulatedDisk::default();
    live(&disk, &mut 0, &mut 0).unwrap();
    let (_data, checkpoints) = open(&on(&disk), Path::new(DATA)).unwrap();
    let only_5 = |epoch: &mut u64, _: &FileEntry, _| if *epoch == 5 { Ok(()) } else { Err("a riddle".to_owned()) };
    let loaded = checkpoints.load(|manifest| manifest.epoch, only_5).unwrap();
    assert_eq!(loaded.checkpoint.unwrap().0.epoch, 5);
    assert!(loaded.warnings[0].to_string().ends_with("is damaged at byte 0: a riddle"), "{:?}", loaded.warnings);
}

#[test]
fn each_file_is_read_back_once() {
    let disk = SimulatedDisk::default();
    let (data, mut checkpoints) = open(&on(&disk), Path::new(DATA)).unwrap();
    let mut files = Vec::new();
    for epoch in 1..8 {
        let name = format!("run-{}-{epoch}-0", data.incarnation());
        files.push(checkpoints.put_file(&name, content(epoch, 0)).unwrap());
        checkpoints.commit(epoch, epoch * 10, files.clone()).unwrap();
        let before = reads_of_files(&disk);
        checkpoints.collect_garbage(1).unwrap();
        assert_eq!(reads_of_files(&disk) - before, 1, "only the new one");
    }
    // Another process does not take this one's word.
    drop((data, checkpoints));
    let (_data, checkpoints) = open(&on(&disk), Path::new(DATA)).unwrap();
    let before = reads_of_files(&disk);
    checkpoints.collect_garbage(1).unwrap();
    assert_eq!(reads_of_files(&disk) - before, files.len());
    // What is gone or was cut is found without reading it.
    let path = Path::new(DATA).join("checkpoints").join(&files[2].name);
    disk.damage(&path, |bytes| bytes.truncate(40));
    assert!(matches!(checkpoints.collect_garbage(1), Err(StorageError::Damaged { .. })));
    disk.remove(&path).unwrap();
    assert!(matches!(checkpoints.collect_garbage(1), Err(StorageError::Damaged { .. })));
}

/// How often a file of a checkpoint was read.
fn reads_of_files(disk: &SimulatedDisk) -> usize {
    let is_file = |operation: &Operation| matches!(operation, Operation::Read { path, .. } if path.to_str().unwrap().contains("run-"));
    disk.trace().iter().filter(|operation| is_file(operation)).count()
}

#[test]
fn an_older_incarnation_commits_nothing() {
    let disk = SimulatedDisk::default();
    let data = DataFolder::open(&on(&disk), Path::new(DATA)).unwrap();
    let store = || FolderStore::open(&data, "checkpoints").unwrap();
    let mut old = Checkpoints::open(store(), 7).unwrap();
    take(&mut old, 7, 1).unwrap();
    let mut new = Checkpoints::open(store(), 8).unwrap();
    assert!(matches!(take(&mut old, 7, 2), Err(StorageError::Replaced { ours: 7, theirs: 8 })));
    assert_eq!(take(&mut new, 8, 3).unwrap().sequence, 2);
    assert!(matches!(Checkpoints::open(store(), 7).err(), Some(StorageError::Replaced { ours: 7, theirs: 8 })));
    assert_eq!(newest(&new).unwrap(), 3);
}

#[test]
fn the_real_disk_keeps_checkpoints_too() {
    let folder = tempfile::tempdir().unwrap();
    for epoch in 1..5 {
        let (data, mut checkpoints) = open(&Env::real(), folder.path()).unwrap();
        assert_eq!(newest(&checkpoints).unwrap(), epoch - 1);
        take(&mut checkpoints, data.incarnation(), epoch).unwrap();
        assert_eq!(checkpoints.collect_garbage(1).unwrap(), epoch * 10);
        assert_eq!(checkpoints.store().path("a"), folder.path().join("checkpoints/a"));
    }
}
