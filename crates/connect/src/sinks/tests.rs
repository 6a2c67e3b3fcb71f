use std::fs;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use tempfile::TempDir;
use tidemill_delta::Delta;
use tidemill_env::Env;

use crate::connector::{create_sink, create_source};
use crate::sink::{Opening, Sink, SinkError};
use crate::source::Read;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)]))
}

fn rows(values: &[(i64, Option<&str>)]) -> RecordBatch {
    let a = Int64Array::from_iter_values(values.iter().map(|(a, _)| *a));
    let b = StringArray::from_iter(values.iter().map(|(_, b)| *b));
    RecordBatch::try_new(schema(), vec![Arc::new(a), Arc::new(b)]).expect("valid")
}

fn changes(values: &[(i64, Option<&str>)], weights: &[i64]) -> Delta {
    Delta::new(rows(values), Int64Array::from(weights.to_vec()))
}

fn options(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

fn new_sink(pairs: &[(&str, &str)], append_only: bool) -> Result<Box<dyn Sink>, SinkError> {
    let mut sink = create_sink("s", &options(pairs), &schema(), append_only, &Env::real())?;
    sink.open(Opening { incarnation: 1, created: true })?;
    Ok(sink)
}

fn file_sink(pairs: &[(&str, &str)], append_only: bool) -> Box<dyn Sink> {
    let pairs: Vec<_> = [("connector", "file")].into_iter().chain(pairs.iter().copied()).collect();
    new_sink(&pairs, append_only).expect("valid")
}

#[test]
fn text_files_appear_when_they_are_whole() {
    let folder = TempDir::new().expect("folder");
    let path = folder.path().join("out.json");
    let text = path.to_str().expect("text");
    let mut sink = file_sink(&[("path", text)], false);
    sink.write(3, &changes(&[(1, Some("x\n")), (2, None)], &[1, -2])).expect("written");
    sink.commit(3).expect("flushed");
    assert!(!path.exists());
    sink.finish().expect("finished");
    sink.finish().expect("again");
    let lines = fs::read_to_string(&path).expect("there");
    assert_eq!(
        lines,
        "{\"epoch\":3,\"diff\":1,\"a\":1,\"b\":\"x\\n\"}\n{\"epoch\":3,\"diff\":-2,\"a\":2,\"b\":null}\n"
    );
    let path = folder.path().join("out.csv");
    let mut sink = file_sink(&[("path", path.to_str().expect("text"))], true);
    sink.write(1, &changes(&[(1, Some("x,y")), (2, None), (3, Some(""))], &[2, 1, 1])).expect("written");
    sink.finish().expect("finished");
    assert_eq!(fs::read_to_string(&path).expect("there"), "a,b\n1,\"x,y\"\n1,\"x,y\"\n2,\n3,\"\"\n");
}

#[test]
fn a_folder_gets_whole_files() {
    let folder = TempDir::new().expect("folder");
    let name = folder.path().to_str().expect("text");
    let formats = [("json", "ndjson"), ("csv", "csv"), ("parquet", "parquet")];
    for (format, ending) in formats {
        let path = format!("{name}/{format}/");
        let pairs = [("path", path.as_str()), ("format", format), ("commit_interval", "1 second")];
        let mut sink = file_sink(&pairs, false);
        assert_eq!(sink.pace().commit_interval, std::time::Duration::from_secs(1));
        sink.write(3, &changes(&[(1, Some("x")), (2, None)], &[1, -2])).expect("written");
        sink.write(4, &changes(&[(3, None)], &[1])).expect("written");
        sink.commit(4).expect("committed");
        let file = format!("{path}s-00000000000000000004-1.{ending}");
        match format {
            "json" => {
                let text = "{\"epoch\":3,\"diff\":1,\"a\":1,\"b\":\"x\"}\n{\"epoch\":3,\"diff\":-2,\"a\":2,\"b\":null}\n\
                            {\"epoch\":4,\"diff\":1,\"a\":3,\"b\":null}\n";
                assert_eq!(fs::read_to_string(&file).expect("there"), text);
            }
            "csv" => {
                let text = "epoch,diff,a,b\n3,1,1,x\n3,-2,2,\n4,1,3,\n";
                assert_eq!(fs::read_to_string(&file).expect("there"), text);
            }
            _ => {
                let file = fs::File::open(&file).expect("there");
                let reader = ParquetRecordBatchReader::try_new(file, 10).expect("Parquet");
                let rows: Vec<RecordBatch> = reader.map(|r| r.expect("valid")).collect();
                assert_eq!((rows.len(), rows[0].num_rows(), rows[0].num_columns()), (1, 3, 4));
            }
        }
    }
}

#[test]
fn one_file_is_not_gone_on_with() {
    let folder = TempDir::new().expect("folder");
    let path = folder.path().join("out.json");
    let pairs = options(&[("connector", "file"), ("path", path.to_str().expect("text"))]);
    let mut sink = create_sink("s", &pairs, &schema(), true, &Env::real()).expect("valid");
    let error = sink.open(Opening { incarnation: 2, created: false }).expect_err("refused");
    assert!(error.to_string().contains("a folder"), "{error}");
}

#[test]
fn append_refuses_retractions() {
    let folder = TempDir::new().expect("folder");
    let path = folder.path().join("out.json");
    let mut sink = file_sink(&[("path", path.to_str().expect("text")), ("mode", "append")], false);
    let error = sink.write(1, &changes(&[(1, None)], &[-1])).expect_err("refused");
    assert!(error.to_string().contains("mode = 'changes'"));
}

#[test]
fn parquet_comes_back() {
    let folder = TempDir::new().expect("folder");
    let path = folder.path().join("out.parquet");
    let text = path.to_str().expect("text");
    let mut sink = file_sink(&[("path", text)], true);
    sink.write(1, &Delta::inserts(rows(&[(1, Some("x")), (2, None)]))).expect("written");
    sink.commit(1).expect("committed");
    sink.finish().expect("finished");
    let source = create_source(&options(&[("connector", "file"), ("path", text)]), &schema(), &[]).expect("valid");
    let columns = [tidemill_plan::ColumnPath::column(0), tidemill_plan::ColumnPath::column(1)];
    let mut reader = source.open(text, None, columns.into()).expect("opens");
    let Ok(Read::Batch(batch)) = reader.read(10) else { panic!("no batch") };
    assert_eq!(batch.rows, rows(&[(1, Some("x")), (2, None)]));
}

#[test]
fn the_blackhole_counts() {
    let new = || new_sink(&[("connector", "blackhole")], false).expect("valid");
    let (mut one, mut other) = (new(), new());
    one.write(1, &changes(&[(1, Some("x")), (2, None)], &[1, 2])).expect("written");
    one.commit(1).expect("committed");
    other.write(1, &changes(&[(2, None), (3, None)], &[3, 1])).expect("written");
    other.write(2, &changes(&[(2, None), (3, None), (1, Some("x"))], &[-1, -1, 1])).expect("written");
    let (one, other) = (one.counts().expect("counts"), other.counts().expect("counts"));
    assert_eq!((one.rows(), other.rows(), one.epoch()), (3, 7, 1));
    assert_eq!(one.checksum(), other.checksum());
    assert_ne!(one.checksum(), 0);
}

#[test]
fn mistakes_are_told() {
    let sink = |pairs: &[(&str, &str)]| new_sink(pairs, true).err().expect("refused").to_string();
    assert!(sink(&[("connector", "kafka")]).contains("file, postgres, webhook, stdout, blackhole"));
    assert!(sink(&[]).contains("is missing"));
    assert!(sink(&[("connector", "blackhole"), ("x", "y")]).contains("no option \"x\""));
    assert!(sink(&[("connector", "stdout"), ("format", "xml")]).contains("json, csv"));
    assert!(sink(&[("connector", "stdout"), ("mode", "x")]).contains("append or changes"));
    let source = create_source(&options(&[("connector", "kafka")]), &schema(), &[]).err().expect("refused");
    assert!(source.0.contains("file, nexmark, datagen"));
}
