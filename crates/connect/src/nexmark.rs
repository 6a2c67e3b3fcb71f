//! The built-in Nexmark stream: people who put things up for auction, and the bids on them.
//!
//! The same seed gives the very same events as the benchmark's file generator. Rows go straight
//! into Arrow columns, and only those that a reader was opened for are built.
//!
//! ```sql
//! CREATE SOURCE bid (auction BIGINT, bidder BIGINT, price BIGINT, "dateTime" TIMESTAMP)
//! WITH (connector = 'nexmark', stream = 'bid', events = 1000000);
//! ```
//!
//! Without `stream`, rows have the columns `event_type`, `person`, `auction`, `bid` (structs, of
//! which two are null) and, if declared, `"dateTime"`, the time of the event whatever its kind.

#![allow(clippy::disallowed_methods, reason = "readers that make rows up pace themselves by the real clock")]

mod columns;
mod model;
mod options;
mod preload;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use tidemill_plan::ColumnPath;

use columns::{Columns, Projection};
use model::{Generator, Model};
use options::Options;
use preload::PreloadedReader;
pub use preload::{Gate, gate};

use crate::{Position, Read, Reader, Source, SourceBatch, SourceError};

/// Events looked at in one read at most, so that a stream of few kinds does not block for long.
const EVENTS_PER_READ: u64 = 1 << 18;
/// Rows in one read at most; keeps texts far below what 32-bit offsets can address.
const ROWS_PER_READ: usize = 1 << 18;
/// How long a reader sleeps that is ahead of its rate limit.
const PACE: Duration = Duration::from_millis(1);

/// The source for these `WITH` options and columns.
pub fn source(options: &[(String, String)], schema: &SchemaRef) -> Result<Arc<dyn Source>, SourceError> {
    let options = Options::parse(options)?;
    Ok(Arc::new(Nexmark { model: Arc::new(Model::new(options)), schema: schema.clone() }))
}

struct Nexmark {
    model: Arc<Model>,
    schema: SchemaRef,
}

impl Source for Nexmark {
    fn partitions(&self) -> Result<Vec<String>, SourceError> {
        Ok((0..self.model.options.partitions).map(|n| n.to_string()).collect())
    }

    fn open(
        &self,
        partition: &str,
        from: Option<&Position>,
        columns: Arc<[ColumnPath]>,
    ) -> Result<Box<dyn Reader>, SourceError> {
        let options = &self.model.options;
        let number = partition.parse().ok().filter(|n| *n < options.partitions);
        let number = number.ok_or_else(|| SourceError(format!("a nexmark stream has no partition '{partition}'")))?;
        let projection = Projection::new(&self.schema, &columns, options.stream)?;
        let reader = NexmarkReader::new(self.model.clone(), number, projection, from)?;
        if options.preload { Ok(Box::new(PreloadedReader::new(reader)?)) } else { Ok(Box::new(reader)) }
    }

    fn bounded(&self) -> bool {
        self.model.options.events.is_some()
    }

    fn bytes(&self) -> Option<u64> {
        self.model.options.events.map(|events| events * self.model.options.event_bytes())
    }
}

/// Generates one partition: every `partitions`-th epoch. The others' events are drawn and forgotten.
struct NexmarkReader {
    model: Arc<Model>,
    partition: u64,
    projection: Projection,
    generator: Generator,
    forgotten: Columns,
    /// Rows to leave out at the start: they were read before.
    leave_out: usize,
    pace: Option<Pace>,
}

impl NexmarkReader {
    fn new(
        model: Arc<Model>,
        partition: u64,
        projection: Projection,
        from: Option<&Position>,
    ) -> Result<Self, SourceError> {
        let mut generator = Generator::new(model.clone());
        let leave_out = match from {
            Some(position) => generator.seek(&position.0)?,
            None => 0,
        };
        let options = &model.options;
        let pace = (options.rate_limit > 0).then(|| Pace::new(options.rate_limit as f64 / options.partitions as f64));
        Ok(NexmarkReader { model, partition, projection, generator, forgotten: Columns::nothing(), leave_out, pace })
    }

    fn ended(&self) -> bool {
        self.model.options.events.is_some_and(|events| self.generator.number() >= events)
    }

    /// Generates at most so many rows out of at most so many events of this partition.
    fn generate(&mut self, max_rows: usize, max_events: u64) -> Result<SourceBatch, SourceError> {
        let options = &self.model.options;
        let (epoch, partitions) = (options.epoch(), options.partitions);
        let (stream, last) = (options.stream, options.events.unwrap_or(u64::MAX));
        let needs_kinds = self.projection.needs_kinds();
        let mut kinds: Vec<u8> = Vec::with_capacity(if needs_kinds { max_rows } else { 0 });
        let mut columns = self.projection.columns(max_rows);
        let (mut rows, mut events) = (0, 0);
        while rows < max_rows && events < max_events && self.generator.number() < last {
            let number = self.generator.number();
            let mine = number / epoch % partitions == self.partition;
            let end = (number - number % epoch).saturating_add(epoch).min(last);
            if !mine {
                self.forget(end);
                continue;
            }
            while self.generator.number() < end && rows < max_rows && events < max_events {
                events += 1;
                if stream.is_some_and(|kind| kind != self.generator.kind()) {
                    self.generator.event(0, &mut self.forgotten);
                    continue;
                }
                let kind = self.generator.event(rows, &mut columns);
                if needs_kinds {
                    kinds.push(kind as u8);
                }
                rows += 1;
            }
        }
        if let Some(pace) = &mut self.pace {
            pace.done += events;
        }
        let rows = self.projection.batch(columns, rows, &kinds)?;
        let position = Position(self.generator.position(0));
        Ok(SourceBatch { rows, bad: Vec::new(), position, bytes: events * self.model.options.event_bytes() })
    }

    fn forget(&mut self, end: u64) {
        while self.generator.number() < end {
            self.generator.event(0, &mut self.forgotten);
        }
    }
}

impl Reader for NexmarkReader {
    fn read(&mut self, max_rows: usize) -> Result<Read, SourceError> {
        if self.ended() {
            return Ok(Read::End);
        }
        let mut max_events = EVENTS_PER_READ;
        if let Some(pace) = &mut self.pace {
            max_events = max_events.min(pace.due());
            if max_events == 0 {
                std::thread::sleep(PACE);
                return Ok(Read::Idle);
            }
        }
        let max_rows = max_rows.clamp(1, ROWS_PER_READ).min(max_events as usize);
        let mut batch = self.generate(max_rows, max_events)?;
        if self.leave_out > 0 {
            let left_out = self.leave_out.min(batch.rows.num_rows());
            batch.rows = batch.rows.slice(left_out, batch.rows.num_rows() - left_out);
            self.leave_out -= left_out;
        }
        Ok(if batch.rows.num_rows() == 0 { Read::Idle } else { Read::Batch(batch) })
    }
}

/// Keeps a partition to its rate.
struct Pace {
    per_second: f64,
    start: Option<Instant>,
    done: u64,
}

impl Pace {
    fn new(per_second: f64) -> Self {
        Pace { per_second, start: None, done: 0 }
    }

    /// How many events are due now.
    fn due(&mut self) -> u64 {
        let start = *self.start.get_or_insert_with(Instant::now);
        ((start.elapsed().as_secs_f64() * self.per_second) as u64).saturating_sub(self.done)
    }
}
