//! `DECLARE`, `FETCH`, `CLOSE`: over a query's rows, or over changes as they come.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tidemill_delta::batch;
use tidemill_sql::{Param, SqlError, StatementKind, state};

use super::{Response, Session};
use crate::subscription::{Change, Subscription};

/// Rows in all that one `FETCH` gives at most when it does not say how many.
const FETCH_ALL: usize = 1_000_000;
/// How long a `FETCH` over changes waits for the first, when it does not say.
const DEFAULT_WAIT: Duration = Duration::from_secs(1);

/// A cursor.
#[allow(clippy::large_enum_variant, reason = "there are few")]
pub(super) enum Cursor {
    /// Rows not yet fetched.
    Rows { schema: SchemaRef, rows: VecDeque<RecordBatch> },
    /// Changes not yet fetched, and where more come from.
    Live { live: Subscription, rows: VecDeque<RecordBatch> },
}

impl Cursor {
    pub(super) fn schema(&self) -> SchemaRef {
        match self {
            Cursor::Rows { schema, .. } => schema.clone(),
            Cursor::Live { live, .. } => change_schema(live.schema()),
        }
    }

    fn rows(&mut self) -> &mut VecDeque<RecordBatch> {
        match self {
            Cursor::Rows { rows, .. } | Cursor::Live { rows, .. } => rows,
        }
    }
}

/// The columns of changes as rows: epoch, diff, then the relation's.
pub fn change_schema(schema: &SchemaRef) -> SchemaRef {
    let mut fields = vec![Field::new("epoch", DataType::Int64, false), Field::new("diff", DataType::Int64, false)];
    fields.extend(schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)));
    Arc::new(Schema::new(fields))
}

/// A change as rows: epoch, diff, then the relation's columns.
pub fn change_rows(change: &Change) -> RecordBatch {
    let len = change.delta.len();
    let epoch = UInt64Array::from_value(change.epoch, len);
    let epoch = Int64Array::from_iter_values(epoch.values().iter().map(|e| *e as i64));
    let mut columns: Vec<ArrayRef> = vec![Arc::new(epoch), Arc::new(change.delta.weights())];
    columns.extend(change.delta.rows.columns().iter().cloned());
    batch(change_schema(&change.delta.rows.schema()), columns, len)
}

impl Session {
    pub(super) fn cursor(&self, name: &str) -> Result<&Cursor, SqlError> {
        self.cursors.get(name).ok_or_else(|| missing(name))
    }

    pub(super) async fn declare(
        &mut self,
        name: &str,
        what: &StatementKind,
        params: &[Param],
    ) -> Result<Response, SqlError> {
        if self.cursors.contains_key(name) {
            return Err(SqlError::new("42P03", format!("cursor \"{name}\" already exists")));
        }
        let cursor = match what {
            StatementKind::Subscribe(to) => Cursor::Live { live: self.subscribe(to)?, rows: VecDeque::new() },
            StatementKind::Query(query) => {
                let rows = self.query(query, params).await?;
                Cursor::Rows { schema: rows.schema, rows: rows.batches.into() }
            }
            _ => return Err(SqlError::not_supported("a cursor is over a query or a SUBSCRIBE")),
        };
        self.cursors.insert(name.to_owned(), cursor);
        Ok(Response::Done("DECLARE CURSOR".into()))
    }

    pub(super) async fn fetch(
        &mut self,
        name: &str,
        count: Option<usize>,
        timeout_ms: Option<u64>,
    ) -> Result<Response, SqlError> {
        let cursor = self.cursors.get_mut(name).ok_or_else(|| missing(name))?;
        let wanted = count.unwrap_or(FETCH_ALL);
        if let Cursor::Live { live, rows } = cursor
            && wanted > 0
        {
            let wait = timeout_ms.map_or(DEFAULT_WAIT, Duration::from_millis);
            fill(live, rows, wanted, wait).await?;
        }
        let schema = cursor.schema();
        let batches = take_rows(cursor.rows(), wanted);
        Ok(Response::Rows { schema, batches, tag: "FETCH".into() })
    }

    pub(super) fn close(&mut self, name: Option<&str>) -> Result<Response, SqlError> {
        match name {
            None => self.cursors.clear(),
            Some(name) => {
                self.cursors.remove(name).ok_or_else(|| missing(name))?;
            }
        }
        Ok(Response::Done("CLOSE CURSOR".into()))
    }
}

fn missing(name: &str) -> SqlError {
    SqlError::new(state::INVALID_CURSOR_NAME, format!("cursor \"{name}\" does not exist"))
}

/// Waits for the first change if there is none, then takes what is there, up to the rows wanted.
async fn fill(
    live: &mut Subscription,
    rows: &mut VecDeque<RecordBatch>,
    wanted: usize,
    wait: Duration,
) -> Result<(), SqlError> {
    let have = |rows: &VecDeque<RecordBatch>| rows.iter().map(RecordBatch::num_rows).sum::<usize>();
    if rows.is_empty()
        && let Ok(change) = tokio::time::timeout(wait, live.next()).await
        && let Some(change) = change?
    {
        rows.push_back(change_rows(&change));
    }
    while have(rows) < wanted {
        match live.poll_now()? {
            Some(change) => rows.push_back(change_rows(&change)),
            None => break,
        }
    }
    Ok(())
}

fn take_rows(rows: &mut VecDeque<RecordBatch>, wanted: usize) -> Vec<RecordBatch> {
    let mut taken = Vec::new();
    let mut left = wanted;
    while left > 0 {
        let Some(batch) = rows.pop_front() else { break };
        if batch.num_rows() > left {
            rows.push_front(batch.slice(left, batch.num_rows() - left));
            taken.push(batch.slice(0, left));
            break;
        }
        left -= batch.num_rows();
        taken.push(batch);
    }
    taken
}
