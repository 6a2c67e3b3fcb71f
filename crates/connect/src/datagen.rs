//! Made-up rows for any columns: sequences and random values, for demonstrations and tests.
//!
//! ```sql
//! CREATE SOURCE clicks (id BIGINT, page VARCHAR, ms DOUBLE PRECISION)
//! WITH (connector = 'datagen', rows = 1000, fields.id.kind = 'sequence',
//!       fields.page.values = 'home,shop,help', fields.ms.min = 0, fields.ms.max = 250);
//! ```
//!
//! A value depends only on the seed, the column and the row's number. So the same options always
//! give the same rows, however they are read, and a reader can go on anywhere at once.

#![allow(clippy::disallowed_methods, reason = "readers that make rows up pace themselves by the real clock")]

mod fields;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use tidemill_plan::ColumnPath;

use fields::Maker;

use crate::{Position, Read, Reader, Source, SourceBatch, SourceError};

/// Rows in one read at most.
const ROWS_PER_READ: usize = 1 << 16;
/// How long a reader sleeps that is ahead of its rate limit.
const PACE: Duration = Duration::from_millis(1);

/// The source for these `WITH` options and columns: `rows` (0 or none: without end), `seed`,
/// `partitions`, `rate_limit` (rows per second, 0: as fast as possible), and for each column
/// `fields.<column>.` followed by `kind` (`sequence` or `random`), `min`, `max`, `length`,
/// `cardinality`, `values` (with commas between) or `nulls` (a share from 0 to 1).
pub fn source(options: &[(String, String)], schema: &SchemaRef) -> Result<Arc<dyn Source>, SourceError> {
    let mut datagen =
        Datagen { rows: None, seed: 42, partitions: 1, rate_limit: 0, schema: schema.clone(), makers: vec![] };
    let mut of_fields = Vec::new();
    for (key, value) in options {
        match key.as_str() {
            "connector" | "format" | "encode" => {}
            "rows" => datagen.rows = Some(number(key, value)?).filter(|rows| *rows > 0),
            "seed" => datagen.seed = number(key, value)?,
            "partitions" => datagen.partitions = number(key, value)?.max(1),
            "rate_limit" => datagen.rate_limit = number(key, value)?,
            _ => match key.strip_prefix("fields.").and_then(|rest| rest.rsplit_once('.')) {
                Some((field, option)) => of_fields.push((field, option, value.as_str())),
                None => return Err(SourceError(format!("the connector 'datagen' has no option '{key}'"))),
            },
        }
    }
    datagen.makers = makers(schema, &of_fields, datagen.seed)?;
    Ok(Arc::new(datagen))
}

fn number(key: &str, value: &str) -> Result<u64, SourceError> {
    let wrong = || SourceError(format!("option '{key}' of the connector 'datagen' is '{value}', not a whole number"));
    value.trim().replace('_', "").parse().map_err(|_| wrong())
}

fn makers(schema: &SchemaRef, options: &[(&str, &str, &str)], seed: u64) -> Result<Vec<Maker>, SourceError> {
    let named = |field: &str| schema.fields().iter().any(|f| belongs(field, f.name()));
    if let Some((field, ..)) = options.iter().find(|(field, ..)| !named(field)) {
        return Err(SourceError(format!("option 'fields.{field}' names no column")));
    }
    let maker = |(i, field): (usize, &Arc<Field>)| {
        Maker::new(field.data_type(), field.name(), options, seed ^ (i as u64) << 32)
    };
    schema.fields().iter().enumerate().map(maker).collect()
}

/// Whether an option's field is this column or inside it. Options are folded to lower case.
fn belongs(field: &str, column: &str) -> bool {
    let (field, column) = (field.to_lowercase(), column.to_lowercase());
    field.strip_prefix(&column).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

struct Datagen {
    rows: Option<u64>,
    seed: u64,
    partitions: u64,
    rate_limit: u64,
    schema: SchemaRef,
    makers: Vec<Maker>,
}

impl Source for Datagen {
    fn partitions(&self) -> Result<Vec<String>, SourceError> {
        Ok((0..self.partitions).map(|n| n.to_string()).collect())
    }

    fn open(
        &self,
        partition: &str,
        from: Option<&Position>,
        columns: Arc<[ColumnPath]>,
    ) -> Result<Box<dyn Reader>, SourceError> {
        let partition = partition.parse().ok().filter(|n| *n < self.partitions);
        let partition = partition.ok_or_else(|| SourceError("there is no such partition of generated rows".into()))?;
        let next = match from {
            Some(position) => number("position", &position.0)?,
            None => partition,
        };
        let mut fields = Vec::with_capacity(columns.len());
        let mut makers = Vec::with_capacity(columns.len());
        for path in columns.iter() {
            let maker = self.makers.get(path.column).and_then(|maker| maker.inside(&path.fields));
            let maker = maker.ok_or_else(|| SourceError(format!("the source has no column {path:?}")))?;
            let name = self.schema.field(path.column).name();
            let name = std::iter::once(name).chain(&path.fields).map(String::as_str).collect::<Vec<_>>().join(".");
            fields.push(Field::new(name, maker.data_type().clone(), true));
            makers.push(maker.clone());
        }
        let per_second = self.rate_limit as f64 / self.partitions as f64;
        Ok(Box::new(DatagenReader {
            schema: Arc::new(Schema::new(fields)),
            makers,
            next,
            step: self.partitions,
            end: self.rows.unwrap_or(u64::MAX),
            pace: (self.rate_limit > 0).then(|| (Instant::now(), per_second, 0)),
        }))
    }

    fn bounded(&self) -> bool {
        self.rows.is_some()
    }
}

/// Makes every `step`-th row.
struct DatagenReader {
    schema: SchemaRef,
    makers: Vec<Maker>,
    next: u64,
    step: u64,
    end: u64,
    /// Since when, rows per second, rows given.
    pace: Option<(Instant, f64, u64)>,
}

impl Reader for DatagenReader {
    fn read(&mut self, max_rows: usize) -> Result<Read, SourceError> {
        if self.next >= self.end {
            return Ok(Read::End);
        }
        let mut count = (self.end - self.next).div_ceil(self.step).min(max_rows.clamp(1, ROWS_PER_READ) as u64);
        if let Some((since, per_second, given)) = &mut self.pace {
            let due = (since.elapsed().as_secs_f64() * *per_second) as u64;
            count = count.min(due.saturating_sub(*given));
            if count == 0 {
                std::thread::sleep(PACE);
                return Ok(Read::Idle);
            }
            *given += count;
        }
        let rows: Vec<u64> = (0..count).map(|i| self.next + i * self.step).collect();
        let arrays = self.makers.iter().map(|maker| maker.array(&rows)).collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options);
        let rows = rows.map_err(|e| SourceError(e.to_string()))?;
        self.next += count * self.step;
        Ok(Read::Batch(SourceBatch { rows, bad: Vec::new(), position: Position(self.next.to_string()), bytes: 0 }))
    }
}
