use std::fs;
use std::io::Write as _;

use arrow::array::{AsArray, Int32Array, RecordBatch, StringArray, StructArray};
use arrow::datatypes::{DataType, Field, Fields, Int64Type, Schema};
use arrow::ipc::writer::FileWriter;
use parquet::arrow::ArrowWriter;
use tempfile::TempDir;

use super::*;
use crate::source::{BadRow, Read};

fn schema() -> SchemaRef {
    let inner = Fields::from(vec![Field::new("x", DataType::Int64, true), Field::new("y", DataType::Utf8, true)]);
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
        Field::new("s", DataType::Struct(inner), true),
    ]))
}

fn options(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

fn source(pairs: &[(&str, &str)]) -> Result<FileSource, SourceError> {
    FileSource::new(&options(pairs), &schema(), &[0])
}

fn id_and_x() -> Arc<[ColumnPath]> {
    [ColumnPath::column(0), ColumnPath { column: 2, fields: vec!["x".into()] }].into()
}

/// Reads until the end, or until there is nothing now.
fn drain(reader: &mut dyn Reader, max_rows: usize) -> (Vec<i64>, Vec<BadRow>, Vec<Position>, u64) {
    let (mut ids, mut bad, mut positions, mut bytes) = (vec![], vec![], vec![], 0);
    while let Read::Batch(batch) = reader.read(max_rows).expect("reads") {
        ids.extend_from_slice(batch.rows.column(0).as_primitive::<Int64Type>().values());
        bad.extend(batch.bad);
        positions.push(batch.position);
        bytes += batch.bytes;
    }
    (ids, bad, positions, bytes)
}

#[test]
fn files_in_order_of_names_and_every_position_resumes() {
    let folder = TempDir::new().expect("folder");
    for (name, body) in [("b.json", "{\"id\":3}\n"), ("a.json", "{\"id\":1}\nbad\n\n{\"id\":2}"), ("c.txt", "no")] {
        fs::write(folder.path().join(name), body).expect("written");
    }
    let pattern = folder.path().join("*.json");
    let source = source(&[("connector", "file"), ("path", pattern.to_str().expect("text"))]).expect("valid");
    let partitions = source.partitions().expect("found");
    assert_eq!(partitions.len(), 2);
    assert!(partitions[0].ends_with("a.json") && source.bounded());
    assert_eq!(source.bytes(), Some(31));
    let mut reader = source.open(&partitions[0], None, id_and_x()).expect("opens");
    let (ids, bad, positions, bytes) = drain(reader.as_mut(), 1);
    assert_eq!((ids, bytes), (vec![1, 2], 22));
    assert_eq!(bad[0].position, 2);
    for (i, position) in positions.iter().enumerate() {
        let mut reader = source.open(&partitions[0], Some(position), id_and_x()).expect("opens");
        let (ids, bad, ..) = drain(reader.as_mut(), 10);
        assert_eq!(ids, if i < 2 { vec![2] } else { vec![] });
        assert_eq!(bad.first().map(|b| b.position), (i == 0).then_some(2));
    }
}

#[test]
fn csv_resumes_behind_its_header() {
    let folder = TempDir::new().expect("folder");
    let path = folder.path().join("a.csv");
    fs::write(&path, "name,id\nx,1\n\"y\n\",2\nz,oops\n,4\n").expect("written");
    let path = path.to_str().expect("text");
    let source = source(&[("path", path)]).expect("valid");
    let mut reader = source.open(path, None, id_and_x()).expect("opens");
    let (ids, bad, positions, _) = drain(reader.as_mut(), 1);
    assert_eq!(ids, [1, 2, 4]);
    assert_eq!(bad[0].position, 5);
    let mut reader = source.open(path, Some(&positions[1]), id_and_x()).expect("opens");
    let (ids, bad, ..) = drain(reader.as_mut(), 100);
    assert_eq!(ids, [4]);
    assert_eq!(bad[0].position, 5);
}

#[test]
fn a_growing_file_is_followed() {
    let folder = TempDir::new().expect("folder");
    let path = folder.path().join("a.log");
    fs::write(&path, "{\"id\":1}\n{\"id\":").expect("written");
    let text = path.to_str().expect("text");
    let source = source(&[("path", text), ("format", "json"), ("follow", "true")]).expect("valid");
    assert!(!source.bounded());
    let mut reader = source.open(text, None, id_and_x()).expect("opens");
    assert_eq!(drain(reader.as_mut(), 100).0, [1]);
    assert!(matches!(reader.read(100), Ok(Read::Idle)));
    let mut file = fs::OpenOptions::new().append(true).open(&path).expect("opens");
    file.write_all(b"2}\n{\"id\":3}\n").expect("written");
    assert_eq!(drain(reader.as_mut(), 100).0, [2, 3]);
    file.set_len(3).expect("cut");
    assert!(reader.read(100).is_err());
}

fn batch() -> RecordBatch {
    let x = Arc::new(Int32Array::from(vec![Some(10), None, Some(30)]));
    let unused = Arc::new(StringArray::from(vec!["p", "q", "r"]));
    let s = StructArray::from(vec![
        (Arc::new(Field::new("unused", DataType::Utf8, true)), unused as _),
        (Arc::new(Field::new("x", DataType::Int32, true)), x as _),
    ]);
    let columns: Vec<(&str, arrow::array::ArrayRef)> = vec![
        ("s", Arc::new(s)),
        ("other", Arc::new(StringArray::from(vec!["a", "b", "c"]))),
        ("id", Arc::new(StringArray::from(vec!["1", "two", "3"]))),
    ];
    RecordBatch::try_from_iter(columns).expect("valid")
}

#[test]
fn parquet_and_arrow_are_cast() {
    let folder = TempDir::new().expect("folder");
    let (parquet, arrow) = (folder.path().join("a.parquet"), folder.path().join("a.arrow"));
    let mut writer =
        ArrowWriter::try_new(fs::File::create(&parquet).expect("file"), batch().schema(), None).expect("valid");
    writer.write(&batch()).expect("valid");
    writer.close().expect("valid");
    let mut writer = FileWriter::try_new(fs::File::create(&arrow).expect("file"), &batch().schema()).expect("valid");
    writer.write(&batch()).expect("valid");
    writer.finish().expect("valid");
    for path in [parquet, arrow] {
        let path = path.to_str().expect("text");
        let source = source(&[("path", path)]).expect("valid");
        let mut reader = source.open(path, None, id_and_x()).expect("opens");
        let Ok(Read::Batch(first)) = reader.read(100) else { panic!("no batch") };
        assert_eq!(first.rows.column(0).as_primitive::<Int64Type>().values(), &[1, 3]);
        assert_eq!(first.rows.column(1).as_primitive::<Int64Type>().values(), &[10, 30]);
        assert_eq!(first.bad[0].reason, "column id: the value does not fit the column's type");
        assert_eq!(first.bad[0].position, 2);
        assert!(matches!(reader.read(100), Ok(Read::End)));
        let mut reader = source.open(path, Some(&Position("2".into())), id_and_x()).expect("opens");
        assert_eq!(drain(reader.as_mut(), 100).0, [3]);
        let mut reader = source.open(path, None, id_and_x()).expect("opens");
        assert_eq!(drain(reader.as_mut(), 1).0, [1, 3]);
        let mut reader = source.open(path, None, [].into()).expect("opens");
        let Ok(Read::Batch(none)) = reader.read(100) else { panic!("no batch") };
        assert_eq!(none.rows.num_rows(), 3);
        // Broken in any place: an error or other rows, never a panic.
        let whole = fs::read(path).expect("read");
        for at in (0..whole.len()).step_by(7) {
            let mut broken = whole.clone();
            broken[at] ^= 0x55;
            fs::write(path, &broken).expect("written");
            if let Ok(mut reader) = source.open(path, None, id_and_x()) {
                while let Ok(Read::Batch(_)) = reader.read(100) {}
            }
        }
    }
}

#[test]
fn a_record_that_is_too_long_is_bad_alone() {
    let folder = TempDir::new().expect("folder");
    let path = folder.path().join("a.json");
    let mut file = fs::File::create(&path).expect("file");
    file.write_all(b"{\"id\":1}\n{\"id\":2,\"name\":\"").expect("written");
    let piece = vec![b'x'; 1 << 20];
    (0..70).for_each(|_| file.write_all(&piece).expect("written"));
    file.write_all(b"\"}\n{\"id\":3}\n").expect("written");
    let text = path.to_str().expect("text");
    let source = source(&[("path", text)]).expect("valid");
    let mut reader = source.open(text, None, id_and_x()).expect("opens");
    let (ids, bad, _, bytes) = drain(reader.as_mut(), 100);
    assert_eq!(ids, [1, 3]);
    assert_eq!((bad.len(), bad[0].position, bad[0].reason.as_str()), (1, 2, "the record is too long"));
    assert_eq!(Some(bytes), source.bytes());
}

#[test]
fn mistakes_are_told() {
    let told = |pairs: &[(&str, &str)]| source(pairs).err().map(|e| e.0).unwrap_or_default();
    assert!(told(&[]).contains("\"path\" is missing"));
    assert!(told(&[("path", "x")]).contains("\"format\" is missing"));
    assert!(told(&[("path", "x.json"), ("colour", "red")]).contains("no option \"colour\""));
    assert!(told(&[("path", "x"), ("format", "xml")]).contains("json, csv"));
    assert!(told(&[("path", "x.csv"), ("delimiter", "ab")]).contains("one character"));
    assert!(told(&[("path", "x.parquet"), ("follow", "true")]).contains("text"));
    let missing = source(&[("path", "/nowhere/x.json")]).expect("valid");
    assert!(missing.partitions().is_err());
}
