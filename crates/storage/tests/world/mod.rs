//! A log on a simulated disk, with a record of what was appended and acknowledged.

#![allow(dead_code, reason = "each test uses its part")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidemill_env::{Env, SimulatedDisk};
use tidemill_storage::{DataFolder, Handlers, Log, LogOptions, LogWriter, Record, State, Step, StorageError, TornTail};

/// The data folder.
pub const DATA: &str = "/data";

/// Small sizes, so that little is needed to fill a batch, a segment or a queue.
pub const SMALL: LogOptions =
    LogOptions { segment: 4096, max_record: 3000, max_queue: 8000, max_batch: 2500, retry: Duration::from_millis(1) };

/// How many cases a test is to run.
pub fn cases(usual: usize) -> usize {
    std::env::var("TIDEMILL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// Where a random search begins.
pub fn seed() -> u64 {
    std::env::var("TIDEMILL_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Numbers that look random.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

pub fn on(disk: &SimulatedDisk) -> Env {
    Env::simulated(Arc::default()).with_disk(Arc::new(disk.clone()))
}

/// A running log, its folder locked.
pub struct Running {
    pub log: Log,
    pub writer: LogWriter,
    pub torn: Option<TornTail>,
    pub told: Arc<AtomicU64>,
    pub fatal: Arc<AtomicU64>,
    pub data: DataFolder,
}

pub fn start(env: &Env, path: &Path, options: LogOptions) -> Result<Running, StorageError> {
    let data = DataFolder::open(env, path)?;
    let (told, fatal) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (tell, fail) = (told.clone(), fatal.clone());
    let handlers = Handlers {
        advanced: Box::new(move |durable| {
            assert!(durable > tell.swap(durable, Ordering::SeqCst), "it advances only");
        }),
        fatal: Box::new(move |_| {
            fail.fetch_add(1, Ordering::SeqCst);
        }),
    };
    let opened = Log::open(&data, options, handlers)?;
    Ok(Running { log: opened.log, writer: opened.writer, torn: opened.torn, told, fatal, data })
}

/// What a log should hold: all records that were appended, and how many of them are acknowledged.
#[derive(Clone, Default)]
pub struct Expected {
    pub records: Vec<(u8, Vec<u8>)>,
    pub acknowledged: u64,
    /// Nobody needs what is below this.
    pub released: u64,
}

impl Expected {
    /// A record that no other one equals.
    pub fn append(&mut self, log: &Log, length: usize, random: &mut Random) -> bool {
        let kind = random.below(256) as u8;
        let payload: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
        match log.append(kind, payload.clone()) {
            Ok(number) => {
                assert_eq!(number, self.records.len() as u64);
                self.records.push((kind, payload));
                true
            }
            Err(_) => false,
        }
    }

    /// Checks an opened log: it holds what was acknowledged and not released, and is a prefix of
    /// what was appended. What was lost, being unacknowledged, is forgotten.
    pub fn check(&mut self, log: &Log) {
        let (first, end) = (log.first(), log.durable());
        assert_eq!(end, log.end(), "what was read at the start is durable");
        assert!(end >= self.acknowledged, "{} acknowledged, {end} there", self.acknowledged);
        assert!(end <= self.records.len() as u64, "more than was appended");
        assert!(first <= self.released, "record {} is needed, the log begins with {first}", self.released);
        self.check_records(log);
        self.records.truncate(end as usize);
        self.acknowledged = end;
    }

    /// Checks the content of a log. A disk that fails to read once may be asked again.
    pub fn check_records(&self, log: &Log) {
        match self.read(log) {
            Err(StorageError::Io { .. }) => self.read(log).unwrap(),
            other => other.unwrap(),
        }
    }

    fn read(&self, log: &Log) -> Result<(), StorageError> {
        let mut number = log.first();
        for record in log.records(number)? {
            let Record { number: n, kind, payload } = record?;
            assert_eq!(n, number);
            assert!((kind, payload) == self.records[n as usize], "record {n} is another one");
            number += 1;
        }
        assert_eq!(number, log.durable());
        Ok(())
    }
}

/// Steps until there is nothing to do. A full disk is tried again a few times.
pub fn settle(running: &mut Running) -> Step {
    let mut paused = 0;
    loop {
        match running.writer.step() {
            Step::Wrote => {}
            Step::Paused if paused < 3 => paused += 1,
            end => return end,
        }
    }
}

/// A life of a log: appends, groups, releases, a restart or two. Ends early if the disk fails.
pub fn live(disk: &SimulatedDisk, expected: &mut Expected, seed: u64, actions: usize) -> Result<(), StorageError> {
    let mut random = Random(seed);
    let mut running = start(&on(disk), Path::new(DATA), SMALL)?;
    expected.check(&running.log);
    for _ in 0..actions {
        match random.below(16) {
            0..8 => {
                let length = [0, 1, 40, 500, 1400, 2999][random.below(6)];
                expected.append(&running.log, length, &mut random);
            }
            8 => {
                expected.released = expected.acknowledged.saturating_sub(random.below(4) as u64).max(expected.released);
                running.log.release(expected.released);
            }
            9 => {
                if random.below(2) == 0 {
                    running.log.close();
                    settle(&mut running);
                    expected.acknowledged = running.log.durable();
                }
                drop(running);
                running = start(&on(disk), Path::new(DATA), SMALL)?;
                expected.check(&running.log);
            }
            _ => {
                let mut step = running.writer.step();
                if step == Step::Paused {
                    step = running.writer.step();
                }
                assert!(running.log.durable() >= expected.acknowledged);
                assert!(step != Step::Idle || running.log.state() == State::Running);
                expected.acknowledged = running.log.durable();
                if step == Step::Failed {
                    assert_eq!(running.fatal.load(Ordering::SeqCst), 1, "the owner is told once");
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}
