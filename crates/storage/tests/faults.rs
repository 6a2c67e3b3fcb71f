//! The disk fails without a crash: errors of the device, a full disk, a failed sync.

mod world;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;

use tidemill_env::{Fate, Fault, Operation, SimulatedDisk};
use tidemill_storage::{RECORD_HEADER, Refused, State, Step};
use world::{DATA, Expected, Random, Running, SMALL, cases, live, on, seed, settle, start};

/// After any single fault the next start has everything, also after a crash that follows.
fn starts_again(disk: &SimulatedDisk, expected: &Expected) {
    let next = disk.restart();
    let mut found = expected.clone();
    let mut running = start(&on(&next), Path::new(DATA), SMALL).unwrap();
    found.check(&running.log);
    for fate in [Fate::Lost, Fate::Mixed(3)] {
        let after = start(&on(&next.crash(fate)), Path::new(DATA), SMALL).unwrap();
        found.clone().check(&after.log);
    }
    found.append(&running.log, 10, &mut Random(3));
    assert_eq!(settle(&mut running), Step::Idle);
    found.acknowledged += 1;
    for fate in [Fate::Lost, Fate::Kept, Fate::Mixed(1), Fate::Mixed(2)] {
        let after = start(&on(&next.crash(fate)), Path::new(DATA), SMALL).unwrap();
        found.clone().check(&after.log);
    }
}

#[test]
fn every_operation_may_fail_once() {
    let (mut faults, mut seed) = (0, seed());
    while faults < cases(1000) {
        seed += 1;
        let calm = SimulatedDisk::default();
        live(&calm, &mut Expected::default(), seed, 50).unwrap();
        for operation in 0..calm.trace().len() {
            for fault in [Fault::Device, Fault::NoSpace] {
                let disk = SimulatedDisk::default();
                disk.fail_at(operation, fault);
                let mut expected = Expected::default();
                let _ = live(&disk, &mut expected, seed, 50);
                starts_again(&disk, &expected);
                faults += 1;
            }
        }
    }
}

#[test]
fn a_failed_sync_is_the_end() {
    for fault in [Fault::Device, Fault::NoSpace] {
        let disk = SimulatedDisk::default();
        let mut expected = Expected::default();
        let mut random = Random(1);
        let mut running = start(&on(&disk), Path::new(DATA), SMALL).unwrap();
        expected.append(&running.log, 100, &mut random);
        settle(&mut running);
        expected.acknowledged = 1;
        expected.append(&running.log, 100, &mut random);
        disk.fail_at(disk.trace().len() + 1, fault);
        assert_eq!(running.writer.step(), Step::Failed);
        let Operation::Sync { path } = disk.trace().pop().unwrap() else { panic!("{:?}", disk.trace()) };
        assert!(path.ends_with("00000000000000000000.log"));

        let before = disk.trace().len();
        assert_eq!(running.writer.step(), Step::Failed);
        assert_eq!(disk.trace().len(), before, "nothing is tried again");
        assert_eq!((running.log.durable(), running.told.load(Ordering::SeqCst)), (1, 1));
        assert_eq!(running.fatal.load(Ordering::SeqCst), 1);
        assert!(matches!(running.log.state(), State::Failed { reason } if reason.contains("cannot sync")));
        assert!(matches!(running.log.wait(1), Err(Refused::Failed(_))));
        assert!(matches!(running.log.append(0, vec![]), Err(Refused::Failed(_))));
        starts_again(&disk, &expected);
    }
}

#[test]
fn a_full_disk_pauses_the_log_until_there_is_room() {
    let disk = SimulatedDisk::default();
    let mut expected = Expected::default();
    let mut random = Random(2);
    let mut running = start(&on(&disk), Path::new(DATA), SMALL).unwrap();
    disk.set_capacity(Some(12_000));
    let mut full = false;
    while !full {
        full = !expected.append(&running.log, 999, &mut random);
        running.writer.step();
    }
    assert_eq!(settle(&mut running), Step::Paused);
    let State::Paused { reason } = running.log.state() else { panic!("{:?}", running.log.state()) };
    assert!(reason.contains("cannot write /data/log/"), "{reason}");
    assert_eq!(running.fatal.load(Ordering::SeqCst), 0);
    let acknowledged = running.log.durable();
    assert!(acknowledged >= 8 && acknowledged < expected.records.len() as u64);
    expected.check_records(&running.log);
    // Nothing of what did not fit is left behind, and a crash now loses nothing.
    let mut found = Expected { acknowledged, ..expected.clone() };
    let after = start(&on(&disk.crash(Fate::Kept)), Path::new(DATA), SMALL).unwrap();
    assert_eq!(after.torn, None);
    found.check(&after.log);
    // Letting go of old records makes room by itself.
    running.log.release(acknowledged);
    expected.released = acknowledged;
    assert_eq!(settle(&mut running), Step::Idle);
    assert_eq!(running.log.state(), State::Running);
    assert_eq!(running.log.durable(), expected.records.len() as u64);
    assert!(running.log.first() > 0);
    expected.check_records(&running.log);
}

#[test]
fn a_paused_thread_goes_on_by_itself() {
    let disk = SimulatedDisk::default();
    let Running { log, writer, .. } = start(&on(&disk), Path::new(DATA), SMALL).unwrap();
    let thread = writer.spawn().unwrap();
    for round in 0..3 {
        disk.set_capacity(Some(0));
        let number = log.append(0, vec![round; 100]).unwrap();
        while !matches!(log.state(), State::Paused { .. }) {
            thread::yield_now();
        }
        assert_eq!(log.durable(), number);
        disk.set_capacity(None);
        log.wait(number).unwrap();
        assert_eq!(log.state(), State::Running);
    }
    log.close();
    thread.join().unwrap();
    assert_eq!(log.state(), State::Closed);
}

#[test]
fn those_who_wait_hear_that_the_writer_is_gone() {
    let Running { log, writer, .. } = start(&on(&SimulatedDisk::default()), Path::new(DATA), SMALL).unwrap();
    let number = log.append(0, vec![1]).unwrap();
    let waiting = log.clone();
    let waiter = thread::spawn(move || waiting.wait(number));
    drop(writer);
    assert!(matches!(waiter.join().unwrap(), Err(Refused::Closed)));
}

#[test]
fn the_queue_and_records_are_bounded() {
    let disk = SimulatedDisk::default();
    let mut running = start(&on(&disk), Path::new(DATA), SMALL).unwrap();
    assert!(matches!(running.log.append(0, vec![0; 3001]), Err(Refused::TooLong { length: 3001, max: 3000 })));
    assert_eq!(running.log.room(), 8000);
    let taken = (0..9).take_while(|_| running.log.append(0, vec![0; 3000]).is_ok()).count();
    assert_eq!(taken, 2, "8,000 bytes may wait");
    assert_eq!(running.log.room(), 8000 - 2 * (3000 + RECORD_HEADER));
    let Err(Refused::Full(back)) = running.log.append(1, vec![7; 3000]) else { panic!("the queue is full") };
    assert_eq!(back, vec![7; 3000]);
    assert_eq!(running.log.durable(), 0);
    let room = running.log.room();
    assert!(matches!(running.log.append(1, vec![7; room - RECORD_HEADER + 1]), Err(Refused::Full(_))));
    running.log.append(1, vec![7; room - RECORD_HEADER]).unwrap();
    assert_eq!(running.log.room(), 0);
    // Empty records take room too, or there could be any number of them.
    assert!(matches!(running.log.append(1, vec![]), Err(Refused::Full(_))));
    assert_eq!(settle(&mut running), Step::Idle);
    assert_eq!(running.log.room(), 8000);
    assert_eq!(running.log.append(1, back).unwrap(), 3);
    running.log.close();
    assert_eq!(running.log.room(), 0);
    assert!(matches!(running.log.append(1, vec![]), Err(Refused::Closed)));
    assert_eq!(settle(&mut running), Step::Closed);
    running.log.wait(3).unwrap();
    assert!(matches!(running.log.wait(4), Err(Refused::Closed)));
}
