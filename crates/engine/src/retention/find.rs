//! Which rows are too old, too many or too large.

use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::{cast, filter, filter_record_batch};
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use tidemill_delta::{Delta, Micros, consolidate};
use tidemill_sql::Retention;
use tidemill_state::Collection;

use super::size::row_sizes;

/// Rows that go in one epoch.
const ROWS: usize = 65_536;

/// What a look finds.
pub(super) struct Found {
    /// The rows that have to go, in batches for an epoch each.
    pub(super) gone: Vec<RecordBatch>,
    /// The time of the eldest row that stays.
    pub(super) eldest: Option<Micros>,
}

/// The rows that are too old, or too many.
pub(super) fn find(rows: &Collection, retention: &Retention, oldest: Option<Micros>) -> Result<Found, ArrowError> {
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
    if let Some(limit) = retention.bytes {
        let sizes: Vec<Vec<u64>> = rows.runs().iter().map(|run| row_sizes(&run.rows)).collect::<Result<_, _>>()?;
        let of_run = |((run, times), sizes): ((&Arc<Delta>, &Int64Array), &Vec<u64>)| {
            let row = |i: usize| (times.value(i), run.weight(i), i128::from(sizes[i]) * i128::from(run.weight(i)));
            (0..sizes.len()).map(row).collect::<Vec<_>>()
        };
        let all = rows.runs().iter().zip(&times).zip(&sizes).flat_map(of_run);
        let left: Vec<_> = all.filter(|(time, ..)| *time >= before).collect();
        let excess = left.iter().map(|(.., bytes)| bytes).sum::<i128>() - i128::from(limit);
        if excess > 0 {
            // Both are the eldest rows up to some one.
            (before, some) = (before, some).max(eldest_of_bytes(left, excess));
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

/// For so many bytes of the eldest rows (time, weight, bytes): as above. Of a time that goes in part, rows are taken to be equally large.
fn eldest_of_bytes(mut all: Vec<(Micros, i64, i128)>, mut excess: i128) -> (Micros, i64) {
    all.sort_unstable();
    for same in all.chunk_by(|a, b| a.0 == b.0) {
        let bytes: i128 = same.iter().map(|(.., bytes)| bytes).sum();
        if bytes > excess {
            let count: i128 = same.iter().map(|(_, weight, _)| i128::from(*weight)).sum();
            let rows = (excess.max(0) * count + bytes - 1) / bytes;
            return (same[0].0, i64::try_from(rows).unwrap_or(i64::MAX));
        }
        excess -= bytes;
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
