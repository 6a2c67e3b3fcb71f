//! Rows that go by themselves: those of tables with `retention`.
//!
//! A thread looks at these tables now and then, and has rows deleted as a statement would: under the lock that keeps
//! others from changing what is read meanwhile, in an epoch, so that views and sinks see it and the journal has it. Only the decision
//! what is too old is made by the clock, once. A look at a table reads one column of its rows; it is made as rarely as is needed for
//! it to take little of a processor.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arrow::array::{AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::{cast, filter, filter_record_batch};
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tidemill_delta::{Delta, Epoch, Micros, consolidate};
use tidemill_plan::RelationId;
use tidemill_sql::{Relation, Retention, SqlError};
use tidemill_state::Collection;

use crate::conductor::Request;
use crate::engine::Inner;

/// How often tables are looked at, at most.
const EVERY: Duration = Duration::from_secs(1);
/// A look may take this part of the time.
const PART: u64 = 50;
/// Rows that go in one epoch.
const ROWS: usize = 65_536;
/// Epochs for which statements that delete have to wait.
const EPOCHS: usize = 16;

/// Starts the thread. It ends when what this gives is dropped.
pub(crate) fn start(inner: Weak<Inner>) -> std::io::Result<Sender<()>> {
    let (running, ended) = bounded(0);
    std::thread::Builder::new().name("retention".into()).spawn(move || {
        Cleaner { inner, tables: BTreeMap::new() }.run(&ended);
    })?;
    Ok(running)
}

/// What is known of a table since the last look.
#[derive(Clone, Copy)]
struct Look {
    /// The table's last change then.
    epoch: Epoch,
    /// How old the eldest row that was left is, as a time.
    eldest: Option<Micros>,
    /// When it may be looked at again, by the monotonic clock.
    next: u64,
}

struct Cleaner {
    inner: Weak<Inner>,
    tables: BTreeMap<RelationId, Look>,
}

impl Cleaner {
    fn run(mut self, ended: &Receiver<()>) {
        while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
            let Some(inner) = self.inner.upgrade() else { return };
            let tables = inner.catalog().with_retention();
            let there: HashSet<RelationId> = tables.iter().map(|table| table.id).collect();
            self.tables.retain(|id, _| there.contains(id));
            for table in &tables {
                let Some(retention) = &table.retention else { continue };
                if let Err(error) = self.clean(&inner, table, retention) {
                    // The next look tries again.
                    tracing::debug!(table = table.name, %error, "rows that are too old stay for now");
                }
            }
        }
    }

    fn clean(&mut self, inner: &Inner, table: &Relation, retention: &Retention) -> Result<(), SqlError> {
        let began = inner.env.monotonic_nanos();
        let oldest = retention.age.map(|age| inner.env.now_micros().saturating_sub(age));
        if self.tables.get(&table.id).is_some_and(|look| !look.is_due(began, oldest, || last_change(inner, table.id))) {
            return Ok(());
        }
        let epoch = last_change(inner, table.id);
        let eldest = loop {
            // Nobody deletes the same rows meanwhile.
            let _one_at_a_time = inner.dml.blocking_lock();
            let Some((mut seen, rows)) = rows_of(inner, table.id) else { return Ok(()) };
            let Found { gone, eldest } =
                find(&rows, retention, oldest).map_err(|e| SqlError::internal(e.to_string()))?;
            let more = gone.len() > EPOCHS;
            for rows in gone.into_iter().take(EPOCHS) {
                // Others would wait for the lock, and not be told why.
                inner.refuse_while_full()?;
                seen = inner.ask_blocking(|reply| Request::Expire { table: table.id, rows, seen, reply })?;
            }
            if !more {
                break eldest;
            }
        };
        let took = inner.env.monotonic_nanos().saturating_sub(began);
        let next = began.saturating_add(took.saturating_mul(PART));
        self.tables.insert(table.id, Look { epoch, eldest, next });
        Ok(())
    }
}

impl Look {
    fn is_due(&self, now: u64, oldest: Option<Micros>, last_change: impl Fn() -> Epoch) -> bool {
        let aged = || oldest.is_some_and(|oldest| self.eldest.is_some_and(|eldest| eldest < oldest));
        now >= self.next && (aged() || last_change() != self.epoch)
    }
}

fn last_change(inner: &Inner, table: RelationId) -> Epoch {
    inner.published.state.read().shown.get(&table).map_or(0, |shown| shown.last_epoch)
}

/// A table's rows, and the epoch of which they are.
fn rows_of(inner: &Inner, table: RelationId) -> Option<(Epoch, Collection)> {
    let state = inner.published.state.read();
    Some((state.epoch, state.shown.get(&table)?.rows.clone()?))
}

/// What a look finds.
struct Found {
    /// The rows that have to go, in batches for an epoch each.
    gone: Vec<RecordBatch>,
    /// The time of the eldest row that stays.
    eldest: Option<Micros>,
}

/// The rows that are too old, or too many.
fn find(rows: &Collection, retention: &Retention, oldest: Option<Micros>) -> Result<Found, ArrowError> {
    let times: Vec<Int64Array> =
        rows.runs().iter().map(|run| micros(run, retention.column)).collect::<Result<_, _>>()?;
    let (mut before, mut some) = (oldest.unwrap_or(Micros::MIN), 0);
    // A row that went has taken its time along.
    let each = || rows.runs().iter().zip(&times).flat_map(|(run, t)| (0..t.len()).map(|i| (t.value(i), run.weight(i))));
    if let Some(limit) = retention.rows {
        let aged: i64 = each().filter(|(time, _)| *time < before).map(|(_, weight)| weight).sum();
        let count = |rows: u64| i64::try_from(rows).unwrap_or(i64::MAX);
        let excess = count(rows.rows()).saturating_sub(aged).saturating_sub(count(limit));
        if excess > 0 {
            (before, some) = eldest_of(each().filter(|(time, _)| *time >= before).collect(), excess);
        }
    }
    let eldest = each().map(|(time, _)| time).filter(|time| *time >= before).min();
    Ok(Found { gone: take(rows, &times, before, some)?, eldest })
}

/// For so many of the eldest rows: all that are older than a time, and how many of that time.
fn eldest_of(mut all: Vec<(Micros, i64)>, mut most: i64) -> (Micros, i64) {
    all.sort_unstable();
    for same in all.chunk_by(|a, b| a.0 == b.0) {
        let count: i64 = same.iter().map(|(_, weight)| weight).sum();
        if count > most {
            return (same[0].0, most);
        }
        most -= count;
    }
    (Micros::MAX, 0)
}

/// The rows of a time before this, and of this time so many.
fn take(rows: &Collection, times: &[Int64Array], before: Micros, some: i64) -> Result<Vec<RecordBatch>, ArrowError> {
    let select = |wanted: &dyn Fn(Micros) -> bool| -> Result<Delta, ArrowError> {
        let mut parts = Vec::new();
        for (run, times) in rows.runs().iter().zip(times) {
            let mask: BooleanArray = times.values().iter().map(|time| Some(wanted(*time))).collect();
            if mask.true_count() == 0 {
                continue;
            }
            let own = filter_record_batch(&run.rows, &mask)?;
            parts.push(match &run.diff {
                None => Delta::inserts(own),
                Some(diff) => Delta::new(own, filter(diff, &mask)?.as_primitive::<Int64Type>().clone()),
            });
        }
        consolidate(rows.schema(), &parts)
    };
    let indices = |delta: &Delta, most: i64| -> Vec<u32> {
        let mut left = most;
        let each = (0..delta.len()).flat_map(|i| {
            let times = delta.weight(i).clamp(0, left);
            left -= times;
            std::iter::repeat_n(i as u32, usize::try_from(times).unwrap_or(0))
        });
        each.collect()
    };
    let mut gone = Vec::new();
    let whole = select(&|time| time < before)?;
    let part = if some > 0 { Some(select(&|time| time == before)?) } else { None };
    for (delta, most) in [(Some(whole), i64::MAX), (part, some)] {
        let Some(delta) = delta else { continue };
        for chunk in indices(&delta, most).chunks(ROWS) {
            let list = arrow::array::UInt32Array::from(chunk.to_vec());
            gone.push(arrow::compute::take_record_batch(&delta.rows, &list)?);
        }
    }
    Ok(gone)
}

/// A column's times in microseconds.
fn micros(run: &Arc<Delta>, column: usize) -> Result<Int64Array, ArrowError> {
    let times = cast(run.rows.column(column), &DataType::Timestamp(TimeUnit::Microsecond, None))?;
    Ok(times.as_primitive::<TimestampMicrosecondType>().reinterpret_cast::<Int64Type>())
}
