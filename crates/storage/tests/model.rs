//! Random histories of a log beside a plain list.

mod world;

use std::path::Path;

use proptest::prelude::*;
use tidemill_env::{Fate, SimulatedDisk};
use tidemill_storage::{Step, StorageError};
use world::{DATA, Expected, Random, SMALL, cases, on, settle, start};

#[derive(Clone, Debug)]
enum Action {
    Append(usize),
    Step,
    Release(usize),
    Read(usize),
    Capacity(Option<u64>),
    Close,
    Kill,
    Crash(u64),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => prop_oneof![Just(0), 1..60usize, Just(2999), 500..1500usize].prop_map(Action::Append),
        6 => Just(Action::Step),
        2 => (0..20usize).prop_map(Action::Release),
        2 => (0..40usize).prop_map(Action::Read),
        1 => prop::option::of(2000..20_000u64).prop_map(Action::Capacity),
        1 => Just(Action::Close),
        1 => Just(Action::Kill),
        1 => any::<u64>().prop_map(Action::Crash),
    ]
}

fn check(actions: Vec<Action>) {
    let path = Path::new(DATA);
    let mut disk = SimulatedDisk::default();
    let mut expected = Expected::default();
    let mut random = Random(7);
    let mut running = start(&on(&disk), path, SMALL).unwrap();
    let mut incarnation = running.data.incarnation();
    for action in actions {
        match action {
            Action::Append(length) => {
                expected.append(&running.log, length, &mut random);
            }
            Action::Step => {
                assert_ne!(running.writer.step(), Step::Failed);
                expected.acknowledged = running.log.durable();
            }
            Action::Release(back) => {
                expected.released = expected.released.max(expected.acknowledged.saturating_sub(back as u64));
                running.log.release(expected.released);
            }
            Action::Read(from) => {
                let (from, log) = (from as u64, &running.log);
                match log.records(from) {
                    Ok(records) => {
                        let read: Vec<_> =
                            records.map(|r| r.unwrap()).map(|r| (r.number, (r.kind, r.payload))).collect();
                        let wanted = (from..log.durable()).map(|n| (n, expected.records[n as usize].clone()));
                        assert!(read == wanted.collect::<Vec<_>>());
                    }
                    Err(StorageError::NotInLog { .. }) => assert!(from < log.first() || from > log.durable()),
                    Err(error) => panic!("{error}"),
                }
            }
            Action::Capacity(bytes) => disk.set_capacity(bytes),
            Action::Close | Action::Kill | Action::Crash(_) => {
                // A start on a full disk is refused until there is room.
                disk.set_capacity(None);
                if let Action::Close = action {
                    running.log.close();
                    assert_eq!(settle(&mut running), Step::Closed);
                    expected.acknowledged = expected.records.len() as u64;
                }
                drop(running);
                if let Action::Crash(seed) = action {
                    disk = disk.crash(Fate::Mixed(seed));
                }
                running = start(&on(&disk), path, SMALL).unwrap();
                assert!(!matches!(action, Action::Close) || running.torn.is_none());
                assert!(running.data.incarnation() > incarnation);
                incarnation = running.data.incarnation();
                expected.check(&running.log);
            }
        }
    }
    disk.set_capacity(None);
    assert_eq!(settle(&mut running), Step::Idle);
    assert_eq!(running.log.durable(), expected.records.len() as u64);
    expected.check_records(&running.log);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(256) as u32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_log_is_a_list(actions in prop::collection::vec(action(), 1..80)) {
        check(actions);
    }
}
