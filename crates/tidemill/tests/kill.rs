//! `kill -9` at any moment: what was acknowledged is there after the restart, and all views and subscribers go on as if
//! nothing had happened.
//!
//! A server keeps everything in a folder while clients write, define, drop and subscribe, and while sinks write to folders and,
//! if it is installed, to PostgreSQL; it is killed, at random and where it hurts,
//! and started again. After each start the tables have exactly what clients know that they have, views equal their
//! queries, the catalog has what was defined; what a subscriber adds up over all kills is the view in the
//! end; and sinks' places have what the views have, each change once. Two loops that only burn time run beside it.
//!
//! `TIDEMILL_KILLS` says how often (20 times unless told, 70 times with `CI`; half as often over streams), `TIDEMILL_SEED` which way, `TIDEMILL_CHECKPOINTS` how often
//! there are checkpoints, `TIDEMILL_BINARY` which program is killed, if not the one of this build. A failure leaves its folder.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests wait and measure by the real clock, and say how far they are"
)]

#[path = "kill/book.rs"]
mod book;
#[path = "kill/check.rs"]
mod check;
#[path = "kill/clients.rs"]
mod clients;
#[path = "kill/files.rs"]
mod files;
#[path = "kill/gate.rs"]
mod gate;
#[path = "kill/link.rs"]
mod link;
#[path = "kill/outlets.rs"]
mod outlets;
#[path = "kill/postgres.rs"]
mod postgres;
#[path = "../../engine/tests/slt/random.rs"]
mod random;
#[path = "kill/report.rs"]
mod report;
#[path = "kill/round.rs"]
mod round;
#[path = "kill/server.rs"]
mod server;
#[path = "kill/streams.rs"]
mod streams;
#[path = "kill/tables.rs"]
mod tables;
#[path = "kill/watch.rs"]
mod watch;

use std::sync::Mutex;

use random::Random;
use report::{Burners, Report};

/// The tests go one after the other: each needs the machine.
static TURN: Mutex<()> = Mutex::new(());

/// Kills after which a new folder is begun, so that what is compared stays small.
const KILLS_OF_A_FOLDER: usize = 10;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |d| d.as_secs());
    number("TIDEMILL_SEED", now % 1_000_000)
}

fn kills() -> usize {
    let otherwise = if std::env::var_os("CI").is_some() { 70 } else { 20 };
    number("TIDEMILL_KILLS", otherwise) as usize
}

#[test]
fn nothing_is_lost_of_tables() {
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let _burners = Burners::start();
    let (seed, kills) = (seed(), kills());
    let mut report = Report::new("tables", seed);
    let mut random = Random::new(seed);
    let postgres = postgres::Postgres::start();
    while report.kills() < kills && report.faults.is_empty() {
        let left = kills - report.kills();
        round::run(random.next() % 1_000_000_007, left.min(KILLS_OF_A_FOLDER), postgres.as_ref(), &mut report);
        println!("{} of {kills} kills, {} acknowledged", report.kills(), report.acknowledged);
    }
    report.end();
}

#[test]
fn nothing_is_lost_of_streams() {
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let _burners = Burners::start();
    let (seed, kills) = (seed(), kills() / 2);
    let mut report = Report::new("streams", seed);
    // All of them take long in a debug build.
    let reference = streams::Reference::make(seed, if std::env::var_os("TIDEMILL_BINARY").is_some() { 8 } else { 4 });
    let mut random = Random::new(seed);
    while report.kills() < kills && report.faults.is_empty() {
        streams::run(random.next() % 1_000_000_007, kills - report.kills(), &reference, &mut report);
    }
    report.end();
}
