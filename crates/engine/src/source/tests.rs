//! Sources that are silent, and sources that fail.

use std::collections::VecDeque;

use arrow::array::{Int32Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use parking_lot::Mutex;
use tidemill_connect::{Read, Reader, SourceBatch, SourceError};
use tidemill_env::ManualClock;
use tidemill_sql::{Planner, StatementKind, parse};

use super::*;
use crate::define::define_relation;

/// What a reader answers next, per partition; then it is idle.
type Script = Arc<Mutex<Vec<VecDeque<Result<Micros, &'static str>>>>>;

struct Scripted {
    partitions: Script,
    bounded: bool,
    opened_at: Arc<Mutex<Vec<Option<Position>>>>,
}

struct ScriptedReader {
    partitions: Script,
    partition: usize,
    columns: usize,
    at: u64,
}

impl Source for Scripted {
    fn partitions(&self) -> Result<Vec<String>, SourceError> {
        Ok((0..self.partitions.lock().len()).map(|i| i.to_string()).collect())
    }

    fn open(
        &self,
        partition: &str,
        from: Option<&Position>,
        columns: Arc<[ColumnPath]>,
    ) -> Result<Box<dyn Reader>, SourceError> {
        self.opened_at.lock().push(from.cloned());
        let at = from.map_or(0, |from| from.0.parse().unwrap());
        let partition = partition.parse().unwrap();
        Ok(Box::new(ScriptedReader { partitions: self.partitions.clone(), partition, columns: columns.len(), at }))
    }

    fn bounded(&self) -> bool {
        self.bounded
    }
}

impl Reader for ScriptedReader {
    fn read(&mut self, _max_rows: usize) -> Result<Read, SourceError> {
        let Some(next) = self.partitions.lock()[self.partition].pop_front() else { return Ok(Read::Idle) };
        let time = next.map_err(|error| SourceError(error.into()))?;
        self.at += 1;
        let fields = vec![
            Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true),
            Field::new("x", DataType::Int32, true),
        ];
        let columns: Vec<arrow::array::ArrayRef> =
            vec![Arc::new(TimestampMicrosecondArray::from(vec![time])), Arc::new(Int32Array::from(vec![1]))];
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
        let rows = rows.project(&(0..self.columns).collect::<Vec<_>>()).unwrap();
        let position = Position(self.at.to_string());
        Ok(Read::Batch(SourceBatch { rows, bad: Vec::new(), position, bytes: 1 }))
    }
}

struct Stage {
    script: Script,
    opened_at: Arc<Mutex<Vec<Option<Position>>>>,
    source: RunningSource,
    taken: Vec<Taken>,
}

fn relation(options: &str) -> Arc<Relation> {
    let sql = format!("CREATE SOURCE s (ts timestamp, x int, WATERMARK FOR ts AS ts) WITH (connector = 'x'{options})");
    let StatementKind::CreateRelation(create) = parse(&sql).unwrap().remove(0).kind else { panic!("a source") };
    define_relation(&Planner::new(), 8, &create, &sql).unwrap().remove(0)
}

fn stage(relation: Arc<Relation>, script: Vec<Vec<Result<Micros, &'static str>>>, bounded: bool, env: Env) -> Stage {
    let script: Script = Arc::new(Mutex::new(script.into_iter().map(VecDeque::from).collect()));
    let opened_at = Arc::default();
    let source = Scripted { partitions: script.clone(), bounded, opened_at: Arc::clone(&opened_at) };
    let mut source = RunningSource::new(relation, Arc::new(source), 100, env, Arc::new(|| {}));
    source.need(&[ColumnPath::column(0), ColumnPath::column(1)]);
    source.start();
    Stage { script, opened_at, source, taken: Vec::new() }
}

impl Stage {
    /// Takes what comes until something holds.
    fn until(&mut self, what: &str, mut holds: impl FnMut(&Stage) -> bool) {
        for _ in 0..2_000 {
            for taken in self.source.take(100) {
                let watermark = taken.prepared.times.watermark.unwrap_or(NO_WATERMARK);
                self.source.advance(taken.partition, watermark);
                self.taken.push(taken);
            }
            if holds(self) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        panic!("in vain: {what}");
    }
}

const SECOND: Micros = 1_000_000;

#[test]
fn a_silent_partition_steps_aside_until_it_has_rows() {
    let clock = Arc::new(ManualClock::default());
    let env = Env::simulated(clock.clone());
    let mut stage = stage(relation(", idle_timeout = '10 seconds'"), vec![vec![Ok(5)], vec![Ok(3)]], false, env);
    stage.until("two rows", |stage| stage.taken.len() == 2);
    assert_eq!(stage.source.watermark(), 3);
    clock.advance_micros(8 * SECOND);
    stage.script.lock()[0].push_back(Ok(70));
    stage.until("a third row", |stage| stage.taken.len() == 3);
    assert_eq!(stage.source.watermark(), 3, "not silent long enough");
    clock.advance_micros(3 * SECOND);
    assert_eq!(stage.source.watermark(), 70, "the silent one has stepped aside");
    stage.script.lock()[1].push_back(Ok(8));
    stage.until("a fourth row", |stage| stage.taken.len() == 4);
    assert_eq!(stage.source.watermark(), 8, "it is back");
    clock.advance_micros(60 * SECOND);
    assert_eq!(stage.source.watermark(), NO_WATERMARK, "all are silent: nothing is said");
    stage.source.stop();
}

#[test]
fn what_is_off_and_what_has_an_end_is_never_idle() {
    for (bounded, options) in [(true, ""), (false, ", idle_timeout = 'off'")] {
        let clock = Arc::new(ManualClock::default());
        let mut stage =
            stage(relation(options), vec![vec![Ok(5)], vec![Ok(3)]], bounded, Env::simulated(clock.clone()));
        stage.until("two rows", |stage| stage.taken.len() == 2);
        clock.advance_micros(3_600 * SECOND);
        assert_eq!(stage.source.watermark(), 3);
        stage.source.stop();
    }
}

#[test]
fn an_unbounded_source_is_tried_again_from_where_it_was() {
    let mut stage = stage(relation(""), vec![vec![Ok(5), Err("no route"), Ok(6)]], false, Env::real());
    stage.until("the error", |stage| stage.source.retrying() == Some("no route"));
    assert_eq!((stage.taken.len(), stage.source.failed.is_none(), stage.source.ended()), (1, true, false));
    stage.until("another row", |stage| stage.taken.len() == 2);
    assert_eq!(stage.source.retrying(), None);
    assert_eq!(*stage.opened_at.lock(), [None, Some(Position("1".into()))]);
    stage.source.stop();
}

#[test]
fn a_bounded_source_stops_and_reads_on_when_it_is_resumed() {
    let mut stage = stage(relation(""), vec![vec![Ok(5), Err("no such file"), Ok(6)]], true, Env::real());
    stage.until("the error", |stage| stage.source.failed.as_deref() == Some("no such file"));
    assert!(stage.source.resume());
    stage.until("another row", |stage| stage.taken.len() == 2);
    assert_eq!(*stage.opened_at.lock(), [None, Some(Position("1".into()))]);
    assert!(!stage.source.resume(), "it runs");
    stage.source.stop();
}

#[test]
fn a_panic_in_an_expression_stops_its_source() {
    let mut unlucky = relation("").as_ref().clone();
    unlucky.event_time.as_mut().unwrap().watermark = Arc::new(crate::panics::tests::Unlucky);
    let mut stage = stage(Arc::new(unlucky), vec![vec![Ok(5), Ok(13), Ok(6)]], false, Env::real());
    stage.until("the panic", |stage| stage.source.failed.is_some());
    let reason = "an expression of \"s\" failed by a bug: thirteen!";
    assert_eq!((stage.source.failed.as_deref(), stage.taken.len()), (Some(reason), 1));
}
