//! Made-up rows are what the options say, and the same however they are read.

use std::collections::HashSet;

use arrow::array::{Array, AsArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};

use super::*;

fn schema() -> SchemaRef {
    let inner = Field::new("x", DataType::Int32, true);
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        Field::new("amount", DataType::Decimal128(10, 2), true),
        Field::new("ok", DataType::Boolean, true),
        Field::new("pair", DataType::Struct(vec![inner].into()), true),
        Field::new("items", DataType::new_list(DataType::Int64, true), true),
    ]))
}

const OPTIONS: &[(&str, &str)] = &[
    ("connector", "datagen"),
    ("rows", "1000"),
    ("fields.id.kind", "sequence"),
    ("fields.id.start", "10"),
    ("fields.name.values", "a, b,c"),
    ("fields.name.nulls", "0.5"),
    ("fields.amount.max", "5"),
    ("fields.pair.x.min", "7"),
    ("fields.pair.x.max", "9"),
];

fn options(extra: &[(&str, &str)]) -> Vec<(String, String)> {
    OPTIONS.iter().chain(extra).map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn read(source: &dyn Source, partition: &str, from: Option<&Position>, max_rows: usize) -> (RecordBatch, Position) {
    let columns = (0..schema().fields().len()).map(ColumnPath::column).collect();
    let mut reader = source.open(partition, from, columns).unwrap();
    let (mut batches, mut last) = (Vec::new(), Position::default());
    while let Read::Batch(batch) = reader.read(max_rows).unwrap() {
        last = batch.position;
        batches.push(batch.rows);
    }
    (concat_batches(&schema(), &batches).unwrap(), last)
}

#[test]
fn columns_are_as_told() {
    let source = source(&options(&[]), &schema()).unwrap();
    assert!(source.bounded());
    let (rows, _) = read(&*source, "0", None, 64);
    let ids = rows.column(0).as_primitive::<Int64Type>().values();
    assert!(ids.iter().copied().eq(10..1010));
    let names: HashSet<_> = rows.column(1).as_string::<i32>().iter().flatten().collect();
    assert_eq!(names, HashSet::from(["a", "b", "c"]));
    assert!((400..600).contains(&rows.column(1).null_count()));
    let inner = rows.column(5).as_struct().column(0).as_primitive::<arrow::datatypes::Int32Type>();
    assert_eq!(inner.values().iter().copied().collect::<HashSet<_>>(), HashSet::from([7, 8, 9]));
}

#[test]
fn the_same_rows_however_they_are_read() {
    let one = source(&options(&[]), &schema()).unwrap();
    let (all, _) = read(&*one, "0", None, 64);
    assert_eq!(read(&*one, "0", None, 999).0, all);
    assert_eq!(read(&*one, "0", Some(&Position("900".into())), 7).0, all.slice(900, 100));
    let three = source(&options(&[("partitions", "3")]), &schema()).unwrap();
    let (second, end) = read(&*three, "1", None, 100);
    assert_eq!(second.slice(5, 1), all.slice(16, 1));
    assert_eq!(end, Position("1000".into()));
}

#[test]
fn mistakes_are_told() {
    let error = |key: &str, value: &str| source(&options(&[(key, value)]), &schema()).err().unwrap().0;
    assert!(error("row", "5").contains("no option 'row'"));
    assert!(error("fields.nme.kind", "random").contains("names no column"));
    assert!(error("fields.id.kind", "often").contains("not sequence or random"));
    assert!(error("fields.id.odd", "1").contains("no option 'fields.id.odd'"));
}
