//! How fast the log takes records, beside what the disk does by itself.
//!
//! `cargo run --release -p tidemill-storage --example append_speed [FOLDER] [MIB]` writes MIB
//! mebibytes (256) per line to a new folder in FOLDER (the working folder), and removes it again.

#![allow(clippy::print_stdout, reason = "this is its purpose")]

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
    println!("| record | written by | MB/s | records/s | syncs | µs per sync |");
    println!("|---|---|---|---|---|---|");
    for (record, name) in [(1 << 10, "1 KiB"), (64 << 10, "64 KiB"), (1 << 20, "1 MiB")] {
        let path = temporary.path().join(format!("log-{record}"));
        let disk = plain(&env, temporary.path(), record, 8 << 20, bytes)?;
        line(name, "write, sync each 8 MiB", record, &disk);
        line(name, "the log, sync per group", record, &log(&env, &path, record, bytes, false)?);
        // One by one takes a sync each: fewer will do.
        let few = (bytes / 16).min(record * 2000);
        let disk = plain(&env, temporary.path(), record, record, few)?;
        line(name, "write, sync each", record, &disk);
        let path = temporary.path().join(format!("one-{record}"));
        line(name, "the log, waiting for each", record, &log(&env, &path, record, few, true)?);
    }
    Ok(())
}

struct Measured {
    nanos: u64,
    bytes: usize,
    syncs: u64,
}

fn line(record: &str, by: &str, length: usize, Measured { nanos, bytes, syncs }: &Measured) {
    let seconds = *nanos as f64 / 1e9;
    let (rate, records) = (*bytes as f64 / seconds / 1e6, (bytes / length) as f64 / seconds);
    println!("| {record} | {by} | {rate:.1} | {records:.0} | {syncs} | {:.0} |", seconds * 1e6 / *syncs as f64);
}

/// What a record holds; not zeros, which some disks do not store.
fn payload(length: usize) -> Vec<u8> {
    (0..length as u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect()
}

/// Plain writes of a record's length, one after the other, with a sync after so many bytes.
fn plain(env: &Env, folder: &Path, record: usize, sync: usize, bytes: usize) -> Result<Measured, Box<dyn Error>> {
    let path = folder.join("plain");
    let file = env.disk().create(&path)?;
    // As many records in one write as are synced together, as the log does it.
    let piece = payload(record.max(sync));
    let start = env.monotonic_nanos();
    let syncs = bytes / piece.len();
    for i in 0..syncs {
        file.write_at(&piece, (i * piece.len()) as u64)?;
        file.sync()?;
    }
    let nanos = env.monotonic_nanos() - start;
    env.disk().remove(&path)?;
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
    Ok(Measured { nanos, bytes: bytes / record * record, syncs: syncs.load(Ordering::Relaxed) })
}
