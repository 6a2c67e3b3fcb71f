//! Compares the stream with what the file generator writes.

#![allow(clippy::disallowed_methods, reason = "tests wait and measure by the real clock")]

use arrow::array::{Array, AsArray, RecordBatch, StructArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMillisecondType};

use super::*;

const GOLDEN: &str = include_str!("golden/seed42.json");

fn schema() -> SchemaRef {
    let number = |name: &str| Field::new(name, DataType::Int64, true);
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let time = |name: &str| Field::new(name, DataType::Timestamp(TimeUnit::Millisecond, None), true);
    let person = ["name", "emailAddress", "creditCard", "city", "state"].map(text);
    let person = [vec![number("id")], person.to_vec(), vec![time("dateTime"), text("extra")]].concat();
    let auction = vec![
        number("id"),
        text("itemName"),
        text("description"),
        number("initialBid"),
        number("reserve"),
        time("dateTime"),
        time("expires"),
        number("seller"),
        number("category"),
        text("extra"),
    ];
    let bid = vec![
        number("auction"),
        number("bidder"),
        number("price"),
        text("channel"),
        text("url"),
        time("dateTime"),
        text("extra"),
    ];
    let member = |name: &str, fields: Vec<Field>| Field::new(name, DataType::Struct(fields.into()), true);
    Arc::new(Schema::new(vec![
        Field::new("event_type", DataType::Int32, true),
        member("person", person),
        member("auction", auction),
        member("bid", bid),
    ]))
}

fn flat_bids() -> SchemaRef {
    let DataType::Struct(fields) = schema().field(3).data_type().clone() else { panic!("bid is a struct") };
    Arc::new(Schema::new(fields))
}

fn options(text: &str) -> Vec<(String, String)> {
    let pairs = text.split_whitespace().map(|pair| pair.split_once('=').expect("key=value"));
    pairs.map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn path(column: usize, field: &str) -> ColumnPath {
    ColumnPath { column, fields: if field.is_empty() { vec![] } else { vec![field.to_string()] } }
}

fn whole(schema: &SchemaRef) -> Vec<ColumnPath> {
    (0..schema.fields().len()).map(ColumnPath::column).collect()
}

fn drain(reader: &mut dyn Reader, max_rows: usize) -> Vec<SourceBatch> {
    let mut batches = Vec::new();
    loop {
        match reader.read(max_rows).unwrap() {
            Read::Batch(batch) => batches.push(batch),
            Read::Idle => {}
            Read::End => return batches,
        }
    }
}

fn read(text: &str, schema: &SchemaRef, columns: Vec<ColumnPath>, max_rows: usize) -> Vec<RecordBatch> {
    let source = source(&options(text), schema).unwrap();
    let columns: Arc<[ColumnPath]> = columns.into();
    let one = |partition: &String| {
        let mut reader = source.open(partition, None, columns.clone()).unwrap();
        let batches: Vec<_> = drain(&mut *reader, max_rows).into_iter().map(|batch| batch.rows).collect();
        concat_batches(&batches[0].schema(), &batches).unwrap()
    };
    source.partitions().unwrap().iter().map(one).collect()
}

/// A row as the file generator writes it.
fn line(rows: &RecordBatch, row: usize) -> String {
    let mut text = format!("{{\"event_type\":{}", rows.column(0).as_primitive::<Int32Type>().value(row));
    for (i, name) in ["person", "auction", "bid"].iter().enumerate() {
        let member = rows.column(i + 1).as_struct();
        text += &format!(",\"{name}\":");
        text += &if member.is_null(row) { "null".to_string() } else { object(member, row) };
    }
    text + "}\n"
}

fn object(member: &StructArray, row: usize) -> String {
    let fields = member.fields().iter().zip(member.columns()).map(|(field, column)| {
        let value = match column.data_type() {
            DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
            DataType::Utf8 => format!("\"{}\"", column.as_string::<i32>().value(row)),
            _ => {
                let time = column.as_primitive::<TimestampMillisecondType>().value_as_datetime(row).unwrap();
                format!("\"{}\"", time.format("%Y-%m-%d %H:%M:%S%.3f"))
            }
        };
        format!("\"{}\":{value}", field.name())
    });
    format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
}

fn fingerprint(rows: &RecordBatch) -> u64 {
    let bytes = (0..rows.num_rows()).flat_map(|row| line(rows, row).into_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

#[test]
fn same_lines_as_the_file_generator() {
    let rows = read("events=60 seed=42", &schema(), whole(&schema()), 7).remove(0);
    let lines: Vec<_> = (0..rows.num_rows()).map(|row| line(&rows, row)).collect();
    for (line, golden) in lines.iter().zip(GOLDEN.lines()) {
        assert_eq!(line.trim_end(), golden);
    }
    assert_eq!(lines.len(), GOLDEN.lines().count());
}

#[test]
fn same_bytes_over_twenty_thousand_events() {
    let rows = read("events=20000", &schema(), whole(&schema()), 8192).remove(0);
    assert_eq!(fingerprint(&rows), 0xe2ae_8d41_1b14_f423);
}

#[test]
fn same_bytes_with_other_options() {
    let text = "events=5000 seed=7 shares=2,5,13 hot=3,2,5 sizes=50,150,20 out_of_order=10 rate=777 \
                active_people=30 in_flight=17 bidder_offset=2000";
    let rows = read(text, &schema(), whole(&schema()), 1000).remove(0);
    assert_eq!(fingerprint(&rows), 0x5b0e_f23f_2016_98b5);
}

#[test]
fn fewer_columns_have_the_same_values() {
    let all = read("events=3000", &schema(), whole(&schema()), 512).remove(0);
    for (column, member) in schema().fields().iter().enumerate().skip(1) {
        let DataType::Struct(fields) = member.data_type() else { panic!("a struct") };
        for (i, field) in fields.iter().enumerate() {
            let one = read("events=3000", &schema(), vec![path(column, field.name())], 512).remove(0);
            let events = all.column(column).as_struct();
            assert_eq!(one.column(0).logical_nulls(), events.logical_nulls(), "{}", field.name());
            assert_eq!(one.column(0).as_ref(), events.column(i).as_ref(), "{}", field.name());
        }
    }
}

#[test]
fn partitions_share_the_epochs() {
    let all = read("events=1020", &schema(), whole(&schema()), 100).remove(0);
    let parts = read("events=1020 partitions=3", &schema(), whole(&schema()), 64);
    let mut next = [0; 3];
    for row in 0..all.num_rows() {
        let part = row / 50 % 3;
        assert_eq!(line(&all, row), line(&parts[part], next[part]));
        next[part] += 1;
    }
    assert_eq!(next.to_vec(), parts.iter().map(RecordBatch::num_rows).collect::<Vec<_>>());
}

#[test]
fn flat_rows_of_one_stream() {
    let all = read("events=1000", &schema(), vec![ColumnPath::column(3)], 100).remove(0);
    let bids = arrow::compute::filter(all.column(0), &arrow::compute::is_not_null(all.column(0)).unwrap()).unwrap();
    let flat = read("events=1000 stream=bid", &flat_bids(), whole(&flat_bids()), 100).remove(0);
    assert_eq!(flat.num_rows(), 920);
    for (i, column) in flat.columns().iter().enumerate() {
        assert_eq!(column.as_ref(), bids.as_struct().column(i).as_ref());
    }
}

#[test]
fn goes_on_where_it_was() {
    for text in ["events=1000 partitions=2", "events=1000 partitions=2 preload=true"] {
        let source = source(&options(text), &schema()).unwrap();
        let columns: Arc<[ColumnPath]> = whole(&schema()).into();
        let batches = drain(&mut *source.open("1", None, columns.clone()).unwrap(), 70);
        let all = concat_batches(&batches[0].rows.schema(), batches.iter().map(|b| &b.rows)).unwrap();
        assert_eq!(all.num_rows(), 500);
        let mut seen = 0;
        for batch in &batches {
            seen += batch.rows.num_rows();
            let rest = drain(&mut *source.open("1", Some(&batch.position), columns.clone()).unwrap(), 33);
            let rest = concat_batches(&all.schema(), rest.iter().map(|b| &b.rows)).unwrap();
            assert_eq!(rest, all.slice(seen, 500 - seen), "{text} after {seen}");
        }
    }
}

#[test]
fn no_columns_still_count() {
    let rows = read("events=120", &schema(), Vec::new(), 50).remove(0);
    assert_eq!(rows.num_rows(), 120);
}

#[test]
fn mistakes_are_told() {
    let error = |text: &str| source(&options(text), &schema()).err().map(|e| e.0).unwrap_or_default();
    assert!(error("event=5").contains("no option 'event'"));
    assert!(error("rate=0").contains("'rate' must be at least 1"));
    assert!(error("seed=x").contains("'seed' of the connector 'nexmark' is 'x'"));
    assert!(error("events=0 preload=true").contains("needs an end"));
    let source = source(&options("stream=bid"), &schema()).unwrap();
    let error = source.open("0", None, vec![ColumnPath::column(0)].into()).err().unwrap();
    assert!(error.0.contains("no column \"event_type\""), "{error}");
    assert!(source.open("1", None, Vec::new().into()).is_err());
}

#[test]
fn is_held_back_to_its_rate() {
    let source = source(&options("events=0 rate_limit=20000"), &schema()).unwrap();
    assert!(!source.bounded());
    let mut reader = source.open("0", None, vec![ColumnPath::column(0)].into()).unwrap();
    let (start, mut rows) = (Instant::now(), 0);
    while rows < 1000 {
        if let Read::Batch(batch) = reader.read(4096).unwrap() {
            rows += batch.rows.num_rows();
        }
    }
    assert!(start.elapsed() >= Duration::from_millis(50));
}
