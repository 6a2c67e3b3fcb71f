//! How fast NDJSON is decoded: `decode_speed FILE [REPEATS]`, for files of Nexmark events.

#![allow(clippy::disallowed_methods, reason = "tests wait and measure by the real clock")]

use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use tidemill_connect::{Format, FormatKind};
use tidemill_plan::ColumnPath;

/// Rows per batch, as an engine asks for.
const BATCH: usize = 65_536;
/// Bytes given to the decoder at once, as a file reader does.
const PIECE: usize = 1 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: decode_speed FILE [REPEATS]")?;
    let repeats: usize = arguments.next().map_or(Ok(5), |n| n.parse())?;
    let data = std::fs::read(&path)?;
    let (schema, cases) = if data.starts_with(b"{\"event_type") { events() } else { bids() };
    eprintln!("{path}: {} MB", data.len() / 1_000_000);
    for (name, columns) in cases {
        let columns = columns.map(|names| paths(&schema, names));
        let mut best = f64::INFINITY;
        let (mut rows, mut bad) = (0, 0);
        for _ in 0..repeats {
            let start = Instant::now();
            (rows, bad) = decode(&schema, columns.as_deref(), &data)?;
            best = best.min(start.elapsed().as_secs_f64());
        }
        let (speed, each) = (data.len() as f64 / best / 1e6, best * 1e9 / rows.max(1) as f64);
        eprintln!("{name:32} {speed:7.0} MB/s  {each:6.0} ns/row  {rows} rows, {bad} bad");
    }
    Ok(())
}

fn decode(
    schema: &SchemaRef,
    columns: Option<&[ColumnPath]>,
    data: &[u8],
) -> Result<(usize, usize), Box<dyn std::error::Error>> {
    let mut decoder = Format::new(FormatKind::Json).decoder(schema, columns, &[])?;
    let (mut done, mut rows, mut bad) = (0, 0, 0);
    while done < data.len() {
        let end = (done + PIECE).min(data.len());
        done += decoder.decode(&data[done..end], end == data.len(), BATCH);
        if decoder.records() >= BATCH || done == data.len() {
            let decoded = decoder.take()?;
            rows += decoded.rows.num_rows();
            bad += decoded.bad.len();
        }
    }
    Ok((rows, bad))
}

/// `bid.price` and the like as paths.
fn paths(schema: &SchemaRef, names: &[&str]) -> Vec<ColumnPath> {
    let path = |name: &&str| {
        let mut parts = name.split('.').map(str::to_string);
        let column = parts.next().and_then(|c| schema.index_of(&c).ok()).unwrap_or(0);
        ColumnPath { column, fields: parts.collect() }
    };
    names.iter().map(path).collect()
}

type Cases = Vec<(&'static str, Option<&'static [&'static str]>)>;

fn bid_fields() -> Vec<Field> {
    let int = |name: &str| Field::new(name, DataType::Int64, true);
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let time = Field::new("dateTime", DataType::Timestamp(TimeUnit::Microsecond, None), true);
    vec![int("auction"), int("bidder"), int("price"), text("channel"), text("url"), time, text("extra")]
}

fn events() -> (SchemaRef, Cases) {
    let int = |name: &str| Field::new(name, DataType::Int64, true);
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let time = |name: &str| Field::new(name, DataType::Timestamp(TimeUnit::Microsecond, None), true);
    let nested = |name: &str, fields: Vec<Field>| Field::new(name, DataType::Struct(Fields::from(fields)), true);
    let person = vec![
        int("id"),
        text("name"),
        text("emailAddress"),
        text("creditCard"),
        text("city"),
        text("state"),
        time("dateTime"),
        text("extra"),
    ];
    let auction = vec![
        int("id"),
        text("itemName"),
        text("description"),
        int("initialBid"),
        int("reserve"),
        time("dateTime"),
        time("expires"),
        int("seller"),
        int("category"),
        text("extra"),
    ];
    let columns =
        vec![int("event_type"), nested("person", person), nested("auction", auction), nested("bid", bid_fields())];
    let cases: Cases = vec![
        ("all", None),
        ("no column", Some(&[])),
        ("bid.auction, bid.price", Some(&["bid.auction", "bid.price"])),
        ("bid.auction, price, dateTime", Some(&["bid.auction", "bid.price", "bid.dateTime"])),
        ("bid, whole", Some(&["bid"])),
        ("auction.id, auction.seller", Some(&["auction.id", "auction.seller"])),
    ];
    (Arc::new(Schema::new(columns)), cases)
}

fn bids() -> (SchemaRef, Cases) {
    let cases: Cases = vec![
        ("all", None),
        ("no column", Some(&[])),
        ("auction, price", Some(&["auction", "price"])),
        ("auction, price, dateTime", Some(&["auction", "price", "dateTime"])),
        ("url", Some(&["url"])),
    ];
    (Arc::new(Schema::new(bid_fields())), cases)
}
