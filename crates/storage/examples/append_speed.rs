//! How fast the log takes records, beside what the disk does by itself.
//!
//! `cargo run --release -p tidemill-storage --example append_speed [FOLDER] [MIB]` writes MIB
//! mebibytes (256) per line to a new folder in FOLDER (the working folder), and removes it again;
//! all lines in turn, [`ROUNDS`] times, as disks that others use too vary a lot. It prints each line's
//! median.

#![allow(clippy::print_stdout, reason = "this is its purpose")]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidemill_env::Env;
use tidemill_storage::{DataFolder, Handlers, Log, LogOptions, Refused};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().unwrap_or_else(|| ".".into());
    let bytes = arguments.next().map_or(Ok(256), |mib| mib.parse::<usize>())? << 20;
    let temporary = tempfile::tempdir_in(folder)?;
    let env = Env::real();
    let sizes = [(1 << 10, "1 KiB"), (64 << 10, "64 KiB"), (1 << 20, "1 MiB")];
    let ways = ["write, sync each 8 MiB", "the log, sync per group", "write, sync each", "the log, waiting for each"];
    let mut lines: BTreeMap<_, Vec<Measured>> = BTreeMap::new();
    for round in 0..ROUNDS {
        for (record, _) in sizes {
            // One by one takes a sync each: fewer will do.
            let few = (bytes / 16).min(record * 1000);
            for way in 0..ways.len() {
                let path = temporary.path().join(format!("{round}-{record}-{way}"));
                let measured = match way {
                    0 => plain(&env, &path, record.max(8 << 20), bytes),
                    1 => log(&env, &path, record, bytes, false),
                    2 => plain(&env, &path, record, few),
                    _ => log(&env, &path, record, few, true),
                }?;
                lines.entry((record, way)).or_default().push(measured);
            }
        }
    }
    println!("| record | written by | MB/s | of rounds | records/s | µs per sync |");
    println!("|---|---|--:|--:|--:|--:|");
    for (record, name) in sizes {
        for (way, by) in ways.into_iter().enumerate() {
            line(name, by, record, &mut lines.remove(&(record, way)).unwrap_or_default());
        }
    }
    Ok(())
}

/// How often everything is measured.
const ROUNDS: usize = 5;

struct Measured {
    nanos: u64,
    bytes: usize,
    syncs: u64,
}

impl Measured {
    fn rate(&self) -> f64 {
        self.bytes as f64 * 1e3 / self.nanos as f64
    }
}

fn line(record: &str, by: &str, length: usize, rounds: &mut [Measured]) {
    rounds.sort_by(|a, b| a.rate().total_cmp(&b.rate()));
    let (worst, best) = (rounds[0].rate(), rounds[rounds.len() - 1].rate());
    let median = &rounds[rounds.len() / 2];
    let (rate, sync) = (median.rate(), median.nanos as f64 / 1e3 / median.syncs as f64);
    println!("| {record} | {by} | {rate:.1} | {worst:.1}–{best:.1} | {:.0} | {sync:.0} |", rate * 1e6 / length as f64);
}

/// What a record holds; not zeros, which some disks do not store.
fn payload(length: usize) -> Vec<u8> {
    (0..length as u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect()
}

/// Plain writes of pieces of one length, a sync after each. The log writes what it syncs at once, too.
fn plain(env: &Env, path: &Path, piece: usize, bytes: usize) -> Result<Measured, Box<dyn Error>> {
    let file = env.disk().create(path)?;
    let piece = payload(piece);
    let start = env.monotonic_nanos();
    let syncs = bytes / piece.len();
    for i in 0..syncs {
        file.write_at(&piece, (i * piece.len()) as u64)?;
        file.sync()?;
    }
    let nanos = env.monotonic_nanos() - start;
    env.disk().remove(path)?;
    Ok(Measured { nanos, bytes: syncs * piece.len(), syncs: syncs as u64 })
}

/// Appends as fast as the log takes it, or one by one.
fn log(env: &Env, path: &Path, record: usize, bytes: usize, wait: bool) -> Result<Measured, Box<dyn Error>> {
    let data = DataFolder::open(env, path)?;
    let syncs = Arc::new(AtomicU64::new(0));
    let count = syncs.clone();
    let handlers = Handlers {
        advanced: Box::new(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        }),
        fatal: Box::new(|error| panic!("{error}")),
    };
    let opened = Log::open(&data, LogOptions::default(), handlers)?;
    let (log, writer) = (opened.log, opened.writer.spawn()?);
    let piece = payload(record);
    let start = env.monotonic_nanos();
    for _ in 0..bytes / record {
        let mut payload = piece.clone();
        let number = loop {
            let durable = log.durable();
            match log.append(0, payload) {
                Ok(number) => break number,
                Err(Refused::Full(back)) => {
                    payload = back;
                    log.wait(durable)?;
                }
                Err(other) => return Err(other.into()),
            }
        };
        if wait {
            log.wait(number)?;
        }
    }
    log.wait(log.end() - 1)?;
    let nanos = env.monotonic_nanos() - start;
    log.close();
    writer.join().map_err(|_| "the log's writer panicked")?;
    std::fs::remove_dir_all(path)?;
    Ok(Measured { nanos, bytes: bytes / record * record, syncs: syncs.load(Ordering::Relaxed) })
}
