//! The power goes at every operation, and again while the log recovers.
//!
//! The long run: `TIDEMILL_CASES=100000 cargo test -p tidemill-storage --test crash -- --nocapture`.

mod world;

use std::path::Path;

use tidemill_env::{Fate, Fault, Operation, SimulatedDisk};
use world::{DATA, Expected, Random, SMALL, cases, live, on, seed, settle, start};

/// Opens what a crash left, checks it, and goes on a little. Returns the operations of recovery.
fn recovers(disk: &SimulatedDisk, expected: &mut Expected, seed: u64) -> Vec<Operation> {
    let mut running = match start(&on(disk), Path::new(DATA), SMALL) {
        Ok(running) => running,
        Err(error) => panic!("seed {seed}: {error}\n{:#?}", disk.files().iter().map(|f| &f.0).collect::<Vec<_>>()),
    };
    let recovery = disk.trace();
    expected.check(&running.log);
    expected.append(&running.log, 700, &mut Random(seed));
    settle(&mut running);
    expected.acknowledged = expected.records.len() as u64;
    assert_eq!(running.log.durable(), expected.acknowledged);
    expected.check_records(&running.log);
    recovery
}

fn fates(random: &mut Random, mixed: usize) -> Vec<Fate> {
    let draw = |_| Fate::Mixed(random.below(usize::MAX) as u64);
    [Fate::Lost, Fate::Kept].into_iter().chain((0..mixed).map(draw)).collect()
}

#[test]
fn nothing_acknowledged_is_lost_wherever_the_power_goes() {
    let wanted = cases(4000);
    let (mut states, mut seed, mut torn) = (0, seed(), 0);
    while states < wanted {
        seed += 1;
        let calm = SimulatedDisk::default();
        live(&calm, &mut Expected::default(), seed, 50).unwrap();
        for (operation, _) in calm.trace().iter().enumerate().filter(|(_, operation)| operation.changes()) {
            let disk = SimulatedDisk::default();
            disk.fail_at(operation, Fault::Crash);
            let mut expected = Expected::default();
            let _ = live(&disk, &mut expected, seed, 50);
            let mut random = Random(seed ^ operation as u64);
            for fate in fates(&mut random, 3) {
                let (after, mut found) = (disk.crash(fate), expected.clone());
                let recovery = recovers(&after, &mut found, seed);
                torn += usize::from(found.records.len() <= expected.records.len());
                states += 1;
                // What was appended after the recovery survives the next crash.
                recovers(&after.crash(Fate::Lost), &mut found, seed);
                states += 1;
                // Or the power goes again, somewhere in the recovery.
                let again = random.below(recovery.len());
                let half = disk.crash(fate);
                half.fail_at(again, Fault::Crash);
                assert!(start(&on(&half), Path::new(DATA), SMALL).is_err());
                let next = Fate::Mixed(random.below(usize::MAX) as u64);
                recovers(&half.crash(next), &mut expected.clone(), seed);
                states += 1;
            }
        }
    }
    assert!(torn > states / 100, "only {torn} of {states} states lost something: the disk is too kind");
    eprintln!("{states} crash states, {torn} with lost records, seeds up to {seed}");
}

#[test]
fn recovery_may_crash_at_every_operation() {
    for seed in 0..(cases(2000) / 1000).max(1) as u64 {
        let disk = SimulatedDisk::default();
        let mut expected = Expected::default();
        let calm = SimulatedDisk::default();
        live(&calm, &mut Expected::default(), seed, 60).unwrap();
        let writes = calm.trace().iter().rposition(|o| matches!(o, Operation::Sync { .. })).unwrap();
        disk.fail_at(writes, Fault::Crash);
        let _ = live(&disk, &mut expected, seed, 60);
        for fate in fates(&mut Random(seed), 8) {
            let recovery = recovers(&disk.crash(fate), &mut expected.clone(), seed).len();
            for first in 0..recovery {
                let once = disk.crash(fate);
                once.fail_at(first, Fault::Crash);
                assert!(start(&on(&once), Path::new(DATA), SMALL).is_err());
                for again in fates(&mut Random(first as u64), 4) {
                    recovers(&once.crash(again), &mut expected.clone(), seed);
                }
            }
        }
    }
}
