//! A process that appends is killed, over and over, on the operating system's disk.
//!
//! The process is this test's own program, told by a variable to be the victim.

mod world;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use tidemill_env::Env;
use tidemill_storage::{DataFolder, Handlers, Log, LogOptions};
use world::{Random, SMALL, cases, seed, start};

const FOLDER: &str = "TIDEMILL_TEST_VICTIM";
const OPTIONS: LogOptions = LogOptions { segment: 1 << 16, ..SMALL };

/// What the record of this number holds, whoever wrote it.
fn payload(number: u64) -> Vec<u8> {
    let mut random = Random(number);
    (0..random.below(2000)).map(|_| random.below(256) as u8).collect()
}

/// Appends until it is killed, and says what is durable.
#[test]
fn victim() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let data = DataFolder::open(&Env::real(), Path::new(&folder)).unwrap();
    let advanced = Box::new(|durable| {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "durable {durable}").and_then(|()| out.flush());
    });
    let opened = Log::open(&data, OPTIONS, Handlers { advanced, fatal: Box::new(|error| panic!("{error}")) }).unwrap();
    let _thread = opened.writer.spawn().unwrap();
    let mut kept = 0;
    loop {
        let next = opened.log.end();
        let durable = opened.log.durable();
        if opened.log.append(1, payload(next)).is_err() {
            opened.log.wait(durable).unwrap();
        }
        // Lets go of all but the last hundreds, so that segments are dropped as well.
        if next > kept + 500 {
            kept = next - 300;
            opened.log.release(kept);
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(seed());
    for kill in 1..=cases(10).min(3000) as u64 {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "victim", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let told = BufReader::new(victim.stdout.take().unwrap()).lines();
        let mut told = told.map_while(Result::ok).filter_map(|line| line.strip_prefix("durable ")?.parse::<u64>().ok());
        let mut last = told.nth(random.below(30)).unwrap();
        victim.kill().unwrap();
        // What it said before it died counts too.
        last = told.last().unwrap_or(last);
        victim.wait().unwrap();

        let running = start(&Env::real(), folder.path(), OPTIONS).unwrap();
        assert_eq!(running.data.incarnation(), 2 * kill);
        assert!(running.log.durable() >= last, "{last} acknowledged, {} there", running.log.durable());
        assert!(running.log.first() <= last.saturating_sub(200), "the last 200 were never let go of");
        for record in running.log.records(running.log.first()).unwrap().map(Result::unwrap) {
            assert!(record.payload == payload(record.number), "record {}", record.number);
        }
    }
}
