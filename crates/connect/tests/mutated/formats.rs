//! Bodies of each format: good records, and mutated ones between them.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, StringViewArray,
    TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Decimal128Type, Field, Int16Type, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};

use super::Body;
use super::mutation::{Damage, Random, mutate};

pub fn schema() -> SchemaRef {
    let jsonb = [("tidemill.type".to_string(), "jsonb".to_string())].into();
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
        Field::new("price", DataType::Decimal128(12, 2), true),
        Field::new("ratio", DataType::Float64, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("flag", DataType::Boolean, true),
        Field::new("small", DataType::Int16, true),
        Field::new("tags", DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))), true),
        Field::new("j", DataType::Utf8, true).with_metadata(jsonb),
    ]))
}

/// A record that nothing was done to.
#[derive(Clone)]
pub struct Good {
    pub id: i64,
    name: String,
    cents: i64,
    small: i16,
}

impl Good {
    fn new(random: &mut Random) -> Good {
        // No mutation comes upon such a number by chance.
        let id = (1 << 60) + (random.next() >> 8) as i64;
        let letters = ["a", "é", "😀", "x y", "0"];
        let name = (0..random.below(6)).map(|_| letters[random.below(letters.len())]).collect();
        Good { id, name, cents: random.below(1_000_000) as i64, small: random.below(30_000) as i16 }
    }

    /// Whether the row has its values.
    pub fn is(&self, rows: &RecordBatch, row: usize) -> bool {
        let name = rows.column(1).as_string::<i32>();
        rows.column(0).as_primitive::<Int64Type>().value(row) == self.id
            && name.is_valid(row)
            && name.value(row) == self.name
            && rows.column(2).as_primitive::<Decimal128Type>().value(row) == i128::from(self.cents)
            && rows.column(6).as_primitive::<Int16Type>().value(row) == self.small
    }
}

pub fn json_record(good: &Good, random: &mut Random) -> Vec<u8> {
    let Good { id, name, cents, small } = good;
    let (whole, part) = (cents / 100, cents % 100);
    let mut text = format!("{{\"id\": {id}, \"name\": \"{name}\", \"price\": {whole}.{part:02}, \"small\": {small}");
    if random.below(2) == 0 {
        let _ = write!(
            text,
            ", \"ratio\": {}e-3, \"flag\": true, \"tags\": [\"a\\n\", null, \"\\u00e9\"]",
            random.below(99)
        );
    }
    if random.below(2) == 0 {
        let at = random.below(60);
        let _ = write!(
            text,
            ", \"at\": \"2024-05-06 07:08:{at:02}\", \"j\": {{\"a\": [1, {{\"b\": null}}]}}, \"more\": [[{at}]]"
        );
    }
    text.push('}');
    text.into_bytes()
}

/// The columns of CSV.
pub const CSV_HEADER: &str = "id,name,price,small,ratio,at,flag\n";

pub fn csv_record(good: &Good, random: &mut Random) -> Vec<u8> {
    let Good { id, name, cents, small } = good;
    let name = if name.is_empty() || random.below(4) == 0 { format!("\"{name}\"") } else { name.clone() };
    let rest = if random.below(2) == 0 { ",," } else { "0.25,2024-05-06 07:08:09,t" };
    format!("{id},{name},{}.{:02},{small},{rest}", cents / 100, cents % 100).into_bytes()
}

pub fn copy_record(good: &Good, random: &mut Random) -> Vec<u8> {
    let Good { id, name, cents, small } = good;
    let ratio = if random.below(2) == 0 { "\\N" } else { "1e3" };
    let (whole, part) = (cents / 100, cents % 100);
    let j = if random.below(2) == 0 { "\\N" } else { "{\"a\": \"\\\\n\"}" };
    format!("{id}\t{name}\t{whole}.{part:02}\t{ratio}\t2024-05-06 07:08:09\tf\t{small}\t\\N\t{j}").into_bytes()
}

/// A record per line.
pub fn lines(random: &mut Random, records: usize, print: fn(&Good, &mut Random) -> Vec<u8>, damage: Damage) -> Body {
    let mut body = Body { reaches: damage != Damage::Line && random.below(4) == 0, ..Body::default() };
    let damage = if body.reaches { Damage::Any } else { damage };
    let mut last = Vec::new();
    for _ in 0..records {
        let good = Good::new(random);
        let mut record = print(&good, random);
        if damage == Damage::Cells {
            record.retain(|byte| *byte != b'"');
            if good.name.is_empty() {
                continue;
            }
        }
        let before = record.clone();
        if random.below(2) == 0 {
            mutate(&mut record, &last, random, damage);
            body.mutated += 1;
        } else {
            body.good.push(good);
        }
        last = before;
        body.bytes.append(&mut record);
        body.bytes.push(b'\n');
    }
    if random.below(4) == 0 {
        body.bytes.pop();
    }
    body
}

/// Values that do not fit where they are, but end where they should.
const WRONG: [&str; 16] = [
    "null",
    "true",
    "\"text\"",
    "[]",
    "{}",
    "[1, [2, {\"id\": 3}]]",
    "{\"id\": {\"id\": 1}}",
    "1e999",
    "-0.0001",
    "99999999999999999999999999",
    "\"\\ud800\"",
    "\"2024-13-01\"",
    "[\"]\", \"}\", \"\\\\\"]",
    "\"\"",
    "1.5",
    "{\"a\": \"\\\"}\"}",
];

/// An element whose values are wrong, or that is no object.
fn wrong_element(random: &mut Random) -> Vec<u8> {
    if random.below(4) == 0 {
        return WRONG[random.below(WRONG.len())].as_bytes().to_vec();
    }
    let names = ["id", "name", "price", "ratio", "at", "flag", "small", "tags", "j", "more", "id"];
    let members = (0..random.below(7)).map(|_| {
        let (name, value) = (names[random.below(names.len())], WRONG[random.below(WRONG.len())]);
        format!("\"{name}\": {value}")
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(", ")).into_bytes()
}

pub fn array(random: &mut Random, records: usize) -> Body {
    let mut body = Body { reaches: random.below(2) == 0, ..Body::default() };
    let mut last = Vec::new();
    body.bytes.push(b'[');
    for i in 0..records {
        if i > 0 {
            body.bytes.extend_from_slice(b", ");
        }
        let good = Good::new(random);
        let mut record = json_record(&good, random);
        let before = record.clone();
        match (random.below(2) == 0, body.reaches) {
            (true, true) => mutate(&mut record, &last, random, Damage::Any),
            (true, false) => record = wrong_element(random),
            (false, _) => body.good.push(good.clone()),
        }
        body.mutated += usize::from(body.good.last().is_none_or(|last| last.id != good.id));
        last = before;
        body.bytes.append(&mut record);
    }
    body.bytes.push(b']');
    body
}

/// Batches of rows, some of whose values do not fit; or broken bytes.
pub fn arrow(random: &mut Random, records: usize) -> Body {
    let mut body = Body { reaches: random.below(4) > 0, ..Body::default() };
    let batches: Vec<RecordBatch> = (0..2)
        .map(|_| {
            let rows = 1 + random.below(records);
            arrow_batch(random, rows, &mut body)
        })
        .collect();
    let codec = [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)][random.below(3)];
    // Whether there is a codec is a matter of the build.
    let mut bytes = arrow_stream(&batches, codec).or_else(|| arrow_stream(&batches, None)).expect("a stream");
    if body.reaches {
        body.mutated = records / 2;
        for _ in 0..1 + random.below(8) {
            let at = random.below(bytes.len());
            match random.below(8) {
                0 => bytes.truncate(at + 1),
                1 => drop(bytes.splice(at..at, vec![0xff; 1 + random.below(9)])),
                2 => drop(bytes.drain(at..(at + 1 + random.below(9)).min(bytes.len()))),
                3 => bytes[at] = [0, 0x7f, 0x80, 0xff][random.below(4)],
                _ => bytes[at] ^= 1 << random.below(8),
            }
            if bytes.is_empty() {
                break;
            }
        }
    }
    Body { bytes, ..body }
}

fn arrow_stream(batches: &[RecordBatch], codec: Option<CompressionType>) -> Option<Vec<u8>> {
    let options = IpcWriteOptions::default().try_with_compression(codec).expect("a codec");
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &batches[0].schema(), options).expect("valid");
    batches.iter().try_for_each(|batch| writer.write(batch)).ok()?;
    writer.finish().expect("valid");
    writer.into_inner().ok()
}

fn arrow_batch(random: &mut Random, rows: usize, body: &mut Body) -> RecordBatch {
    let (mut ids, mut names, mut prices, mut smalls, mut flags, mut times) =
        (vec![], vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..rows {
        let good = Good::new(random);
        let bad = random.below(2) == 0;
        let (id, small) = match (bad, random.below(2)) {
            (false, _) => (Some(good.id), Some(i64::from(good.small))),
            (true, 0) => (None, Some(3)),
            (true, _) => (Some(7), Some(1 << (16 + random.below(47)))),
        };
        ids.push(id);
        smalls.push(small);
        names.push(good.name.clone());
        prices.push(format!("{}.{:02}", good.cents / 100, good.cents % 100));
        flags.push((random.below(3) > 0).then_some(bad));
        times.push((random.below(3) > 0).then_some(random.next() as i64 >> 20));
        match bad {
            true => body.mutated += 1,
            false => body.good.push(good),
        }
    }
    let columns: [(&str, ArrayRef); 7] = [
        ("small", Arc::new(Int64Array::from(smalls))),
        ("name", Arc::new(StringViewArray::from_iter_values(names))),
        ("price", Arc::new(StringArray::from_iter_values(prices))),
        ("id", Arc::new(Int64Array::from(ids))),
        ("flag", Arc::new(BooleanArray::from(flags))),
        ("at", Arc::new(TimestampMillisecondArray::from(times))),
        ("ratio", Arc::new(Float64Array::from_iter_values((0..rows).map(|row| row as f64)))),
    ];
    let columns = columns.into_iter().map(|(name, column)| (name, column, true));
    RecordBatch::try_from_iter_with_nullable(columns).expect("valid")
}
