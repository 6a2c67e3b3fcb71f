//! Records that are valid but for a few bytes, between good ones, in every format that rows come in.
//!
//! Whatever was done to a record: no panic, no call without an end, memory within bounds, and every good record is
//! there with its values. In pieces of any size the same comes out as in one.
//!
//! `TIDEMILL_CASES` says how many records of each format are mutated, `TIDEMILL_SEED` which way. By hand:
//! `TIDEMILL_CASES=10000000 cargo test -p tidemill-connect --test mutated -- --nocapture`.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tests wait and measure by the real clock, and say how far they are"
)]

#[path = "mutated/formats.rs"]
mod formats;
#[path = "mutated/mutation.rs"]
mod mutation;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use tidemill_connect::{CsvOptions, Decoded, Format, FormatKind, PgTextOptions};

use formats::{Good, schema};
use mutation::{Damage, Random};

/// Records of a body; about half of them are mutated.
const RECORDS: usize = 60;
/// No call takes longer, however slow the machine.
const LONGEST: Duration = Duration::from_secs(30);
/// What the process may ever hold, in KiB.
const RESIDENT: u64 = 1 << 20;

/// One at a time, so that the memory is that of the one.
static ALONE: Mutex<()> = Mutex::new(());

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// A body: its bytes, the good records in it, and how many are not.
#[derive(Default)]
struct Body {
    bytes: Vec<u8>,
    good: Vec<Good>,
    mutated: usize,
    /// Whether a mutation can reach beyond its record, so that good ones may be lost with it.
    reaches: bool,
}

/// What came out: how often each good record is there with all its values, and how many records there were.
fn check(body: &Body, decoded: &Decoded, place: &str) {
    assert!(decoded.bad.iter().all(|bad| bad.bytes.len() <= 4096 && !bad.reason.is_empty()), "{place}");
    if body.reaches {
        return;
    }
    let rows = by_id(&decoded.rows);
    for good in &body.good {
        let Some(found) = rows.get(&good.id) else {
            let bad: Vec<_> = decoded.bad.iter().map(|b| (b.position, &b.reason)).collect();
            panic!(
                "{place}: record {} is not there; bad are {bad:?}\n{}",
                good.id,
                String::from_utf8_lossy(&body.bytes)
            );
        };
        assert!(found.iter().any(|row| good.is(&decoded.rows, *row)), "{place}: record {} has other values", good.id);
    }
}

fn by_id(rows: &RecordBatch) -> BTreeMap<i64, Vec<usize>> {
    let mut places: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    let ids = rows.column(0).as_primitive::<Int64Type>();
    (0..ids.len()).for_each(|row| places.entry(ids.value(row)).or_default().push(row));
    places
}

/// In pieces, as a connection or a file brings them.
fn in_pieces(format: &Format, bytes: &[u8], random: &mut Random) -> Decoded {
    let mut decoder = format.decoder(&schema(), None, &[0]).expect("a decoder");
    let (mut from, mut to) = (0, 0);
    let mut parts = Vec::new();
    let mut bad = Vec::new();
    while from < bytes.len() {
        to = (to + 1 + random.below(700)).min(bytes.len());
        from += decoder.decode(&bytes[from..to], to == bytes.len(), 1 + random.below(20));
        let part = decoder.take().expect("rows");
        parts.push(part.rows);
        bad.extend(part.bad);
    }
    let rows = arrow::compute::concat_batches(&parts[0].schema(), &parts).expect("rows of one schema");
    Decoded { rows, bad }
}

fn same(a: &Decoded, b: &Decoded) -> bool {
    let told = |d: &Decoded| d.bad.iter().map(|bad| (bad.position, bad.reason.clone())).collect::<Vec<_>>();
    a.rows == b.rows && told(a) == told(b)
}

/// What is left of memory, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Decodes body after body, until so many records were mutated.
fn force(name: &'static str, format: &Format, pieces: bool, make: fn(&mut Random, usize) -> Body) {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let (cases, seed) = (number("TIDEMILL_CASES", 4_000), number("TIDEMILL_SEED", 1) as u64);
    let (alive, lives) = channel::<u64>();
    // A call without an end does not come back to be measured.
    let watch = std::thread::spawn(move || {
        let mut at = seed;
        loop {
            match lives.recv_timeout(LONGEST) {
                Ok(next) => at = next,
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    eprintln!("{name}: TIDEMILL_SEED={at}: no end within {LONGEST:?}");
                    std::process::abort();
                }
            }
        }
    });
    let (began, mut longest) = (Instant::now(), Duration::ZERO);
    let (mut mutated, mut good, mut bad, mut bodies, mut bytes) = (0, 0, 0, 0u64, 0);
    while mutated < cases {
        let own = seed + bodies;
        let _ = alive.send(own);
        let mut random = Random::new(own);
        let body = make(&mut random, RECORDS);
        let place = format!("{name}, TIDEMILL_SEED={own}");
        let call = Instant::now();
        let decoded = format.decode(&schema(), None, &[0], &body.bytes);
        longest = longest.max(call.elapsed());
        match &decoded {
            Ok(decoded) => {
                check(&body, decoded, &place);
                (good, bad) = (good + decoded.rows.num_rows(), bad + decoded.bad.len());
                if pieces && bodies.is_multiple_of(4) {
                    let other = in_pieces(format, &body.bytes, &mut random);
                    assert!(same(decoded, &other), "{place}: in pieces comes {other:?}, not {decoded:?}");
                }
            }
            Err(error) => assert!(body.reaches, "{place}: {error}"),
        }
        (mutated, bodies, bytes) = (mutated + body.mutated, bodies + 1, bytes + body.bytes.len());
    }
    drop(alive);
    watch.join().expect("no panic");
    let peak = peak();
    println!(
        "{name}: {mutated} records mutated in {bodies} bodies of {} MB (from seed {seed}): {good} rows, {bad} bad, longest call {longest:.2?}, \
         at most {} MB, in {:.0?}",
        bytes >> 20,
        peak >> 10,
        began.elapsed()
    );
    assert!(peak < RESIDENT, "{name}: {peak} KiB");
}

#[test]
fn lines_of_json() {
    force("NDJSON", &Format::new(FormatKind::Json), true, |random, records| {
        formats::lines(random, records, formats::json_record, Damage::Line)
    });
}

#[test]
fn an_array_of_json() {
    force("JSON array", &Format::new(FormatKind::JsonArray), false, formats::array);
}

#[test]
fn csv() {
    force("CSV", &Format::new(FormatKind::Csv(CsvOptions::default())), true, |random, records| {
        let mut body = formats::lines(random, records, formats::csv_record, Damage::Cells);
        let mut bytes = formats::CSV_HEADER.as_bytes().to_vec();
        bytes.append(&mut body.bytes);
        Body { bytes, ..body }
    });
}

#[test]
fn copy() {
    force("COPY", &Format::new(FormatKind::PgText(PgTextOptions::default())), true, |random, records| {
        formats::lines(random, records, formats::copy_record, Damage::Copy)
    });
}

#[test]
fn an_arrow_stream() {
    // The reader's panics are caught; they need not be printed.
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.location().is_some_and(|at| at.file().contains("arrow") && !at.file().contains("tests")) {
            before(info);
        }
    }));
    force("Arrow", &Format::new(FormatKind::Arrow), false, formats::arrow);
}
