//! Reads the flights and deals them out as they happened.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use arrow::temporal_conversions::timestamp_us_to_datetime;
use indicatif::ProgressBar;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tidemill_delta::Epoch;
use tidemill_engine::{Engine, Relation};
use tidemill_env::Env;

use super::{Speed, parquet_path, thousands};

/// From one look at the clock to the next.
const TICK: Duration = Duration::from_millis(20);

/// Rows per epoch when there is no speed limit.
const CHUNK: usize = 4096;

const DAY_MICROS: i64 = 86_400_000_000;

/// One table's rows, in the order of their arrival.
struct Stream {
    table: Arc<Relation>,
    columns: Vec<usize>,
    rows: RecordBatch,
    /// When each row arrives, in microseconds; never falls.
    arrives: Vec<i64>,
    /// Rows that have arrived.
    done: usize,
    /// The epoch of the last of them.
    epoch: Epoch,
}

/// The departures and the weather of a year.
pub struct Replay {
    // In this order within a tick: an hour's weather is known before its departures.
    weather: Stream,
    departures: Stream,
}

/// Loads a table's file whole, and waits until readers see it.
pub async fn load(engine: &Engine, folder: &Path, name: &str) -> Result<(), String> {
    let stream = Stream::open(engine, folder, name, &[])?;
    let rows = vec![stream.rows];
    engine
        .ingest(&stream.table, &stream.columns, rows, Vec::new(), true)
        .await
        .map_err(|e| format!("loading {name}: {e}"))?;
    Ok(())
}

impl Replay {
    /// Reads the files; `limit` is a number of days.
    pub fn open(engine: &Engine, folder: &Path, limit: Option<u32>) -> Result<Replay, String> {
        let mut weather = Stream::open(engine, folder, "weather", &["observed"])?;
        let mut departures = Stream::open(engine, folder, "departures", &["departed", "scheduled"])?;
        if let (Some(days), Some(first)) = (limit, departures.arrives.first()) {
            let end = first - first.rem_euclid(DAY_MICROS) + i64::from(days) * DAY_MICROS;
            weather.cut(end);
            departures.cut(end);
        }
        Ok(Replay { weather, departures })
    }

    /// How many departures there are.
    pub fn len(&self) -> u64 {
        self.departures.arrives.len() as u64
    }

    /// Feeds everything in at the given speed; ends when readers see the last row.
    pub async fn run(mut self, engine: &Engine, env: &Env, speed: Speed, bar: &ProgressBar) -> Result<(), String> {
        let start = match (self.departures.arrives.first(), self.weather.arrives.first()) {
            (Some(a), Some(b)) => *a.min(b),
            _ => return Ok(()),
        };
        let begun = env.monotonic_nanos();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut month = String::new();
        while self.departures.done < self.departures.arrives.len() {
            let now = match speed {
                Speed::Max => {
                    let next = self.departures.done + CHUNK;
                    self.departures.arrives.get(next).or(self.departures.arrives.last()).copied().unwrap_or(start)
                }
                Speed::PerSecond(micros) => {
                    ticks.tick().await;
                    let elapsed = i128::from(env.monotonic_nanos() - begun);
                    start + i64::try_from(elapsed * i128::from(micros) / 1_000_000_000).unwrap_or(i64::MAX / 2)
                }
            };
            self.weather.feed(engine, now).await?;
            self.departures.feed(engine, now).await?;
            self.report(env, begun, now, bar, &mut month);
        }
        self.weather.feed(engine, i64::MAX).await?;
        engine.wait_for(self.weather.epoch.max(self.departures.epoch)).await.map_err(|e| e.to_string())
    }

    /// Shows how far it is: in the bar, or a line a month where no bar is seen.
    fn report(&self, env: &Env, begun: u64, now: i64, bar: &ProgressBar, month: &mut String) {
        let done = self.departures.done as u64;
        let seconds = (env.monotonic_nanos() - begun) as f64 / 1e9;
        let rate = if seconds > 0.0 { done as f64 / seconds } else { 0.0 };
        let clock = clock_text(now);
        let message = format!("{} departures, {} rows/s", thousands(done), thousands(rate as u64));
        if bar.is_hidden() {
            let this_month = clock.get(..7).unwrap_or_default();
            if this_month != month.as_str() {
                *month = this_month.to_string();
                super::say(&format!("{clock}  {message}"));
            }
        }
        bar.set_position(done);
        bar.set_prefix(clock);
        bar.set_message(message);
    }
}

impl Stream {
    /// Reads a table's file in the table's types. A row arrives at the first of `times` that is not NULL.
    fn open(engine: &Engine, folder: &Path, name: &str, times: &[&str]) -> Result<Stream, String> {
        let table = engine.relation(name).map_err(|e| format!("{name}: {e}"))?;
        let path = parquet_path(folder, name);
        let file = read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let arrives = arrival(&file, times).map_err(|e| format!("{}: {e}", path.display()))?;
        let (columns, rows) = as_table(&file, &table).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Stream { table, columns, rows, arrives, done: 0, epoch: 0 })
    }

    /// Leaves out what arrives at `end` or later.
    fn cut(&mut self, end: i64) {
        let rows = self.arrives.partition_point(|at| *at < end);
        self.arrives.truncate(rows);
        self.rows = self.rows.slice(0, rows);
    }

    /// Gives the engine what has arrived by `now`.
    async fn feed(&mut self, engine: &Engine, now: i64) -> Result<(), String> {
        let upto = self.done + self.arrives[self.done..].partition_point(|at| *at <= now);
        if upto == self.done {
            return Ok(());
        }
        let rows = vec![self.rows.slice(self.done, upto - self.done)];
        self.done = upto;
        let receipt = engine
            .ingest(&self.table, &self.columns, rows, Vec::new(), false)
            .await
            .map_err(|e| format!("{}: {e}", self.table.name))?;
        self.epoch = receipt.epoch;
        Ok(())
    }
}

/// A whole Parquet file as one batch.
fn read(path: &Path) -> Result<RecordBatch, String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| e.to_string())?;
    let schema = reader.schema().clone();
    let batches = reader.build().map_err(|e| e.to_string())?.collect::<Result<Vec<_>, _>>();
    concat_batches(&schema, &batches.map_err(|e| e.to_string())?).map_err(|e| e.to_string())
}

/// When each row arrives: the first of the columns that is not NULL. The hour that the end of daylight
/// saving time repeats must not send the clock back, so a row is never before the one above it.
fn arrival(rows: &RecordBatch, times: &[&str]) -> Result<Vec<i64>, String> {
    let mut columns = Vec::with_capacity(times.len());
    for name in times {
        let column = rows.column_by_name(name).ok_or_else(|| format!("no column {name}"))?;
        let column = cast(column, &DataType::Timestamp(TimeUnit::Microsecond, None)).map_err(|e| e.to_string())?;
        columns.push(column.as_primitive::<TimestampMicrosecondType>().clone());
    }
    if columns.is_empty() {
        return Ok(Vec::new());
    }
    let mut last = i64::MIN;
    let mut arrives = Vec::with_capacity(rows.num_rows());
    for row in 0..rows.num_rows() {
        let at = columns.iter().find(|c| c.is_valid(row)).map(|c| c.value(row));
        last = last.max(at.ok_or_else(|| format!("row {row} has no time"))?);
        arrives.push(last);
    }
    Ok(arrives)
}

/// The file's columns by name, cast to the table's types.
fn as_table(file: &RecordBatch, table: &Relation) -> Result<(Vec<usize>, RecordBatch), String> {
    let mut numbers = Vec::new();
    let mut columns = Vec::new();
    for (field, column) in file.schema_ref().fields().iter().zip(file.columns()) {
        let number = table.schema.index_of(field.name()).map_err(|e| e.to_string())?;
        columns.push(cast(column, table.schema.field(number).data_type()).map_err(|e| e.to_string())?);
        numbers.push(number);
    }
    let schema = table.schema.project(&numbers).map_err(|e| e.to_string())?;
    let rows = RecordBatch::try_new(Arc::new(schema), columns).map_err(|e| e.to_string())?;
    Ok((numbers, rows))
}

/// Microseconds as `2013-03-04 15:20`.
fn clock_text(micros: i64) -> String {
    timestamp_us_to_datetime(micros).map_or_else(String::new, |time| time.format("%Y-%m-%d %H:%M").to_string())
}

#[cfg(test)]
mod tests {
    use arrow::array::TimestampMicrosecondArray;

    use super::*;

    fn times(columns: [Vec<Option<i64>>; 2]) -> RecordBatch {
        let [departed, scheduled] = columns.map(|c| Arc::new(TimestampMicrosecondArray::from(c)) as Arc<dyn Array>);
        RecordBatch::try_from_iter([("departed", departed), ("scheduled", scheduled)]).unwrap()
    }

    #[test]
    fn a_cancelled_flight_arrives_on_schedule_and_time_does_not_go_back() {
        let rows = times([vec![Some(5), None, Some(6), Some(9)], vec![Some(1), Some(7), Some(2), Some(9)]]);
        assert_eq!(arrival(&rows, &["departed", "scheduled"]), Ok(vec![5, 7, 7, 9]));
        assert!(arrival(&rows, &["departed", "missing"]).is_err());
        let unknown = times([vec![None], vec![None]]);
        assert!(arrival(&unknown, &["departed", "scheduled"]).is_err());
    }

    #[test]
    fn the_clock_is_readable() {
        assert_eq!(clock_text(1_362_410_400_000_000), "2013-03-04 15:20");
    }
}
