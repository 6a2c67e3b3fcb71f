//! A row for each window that its time falls into.
//!
//! Input: one, any changes. Rule: row by row; windows are `[start, start + size)` with starts at
//! multiples of `slide` plus the origin, and each window that holds the row's time gives a copy of
//! the row with the window's start and end, with the row's multiplicity. A row whose time is NULL
//! is in no window; a row with a window that reaches beyond what the time's type can express goes to the
//! error side. With `panes`, the rows of a batch that are equal but for their times within a pane are
//! added up before they are copied: overlapping windows then cost by distinct row, not by row. State: none.

use arrow::array::{Array, ArrayRef, Int64Array, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, SchemaRef};
use tidemill_delta::{Delta, batch, relaxed};
use tidemill_plan::WindowPlan;
use tidemill_state::KeyTable;

use crate::event_time::{out_of_range, raw_times, span_in, times_from_raw, unit_of};
use crate::{Operator, OperatorError, RowError, StepCx};

/// See the module. Times are in the unit of the time column.
pub struct Window {
    time: usize,
    time_type: DataType,
    size: i64,
    slide: i64,
    origin: i64,
    /// Inside `low..=high` no sum can overflow, so that the usual row needs no checks.
    low: i64,
    high: i64,
    panes: bool,
    schema: SchemaRef,
}

/// The windows of a batch: for each output row the input row and the window's start.
struct Expansion {
    rows: Vec<u32>,
    starts: Vec<i64>,
}

impl Window {
    /// Prepares the windows in the unit of the time column.
    pub fn new(
        plan: &WindowPlan,
        input_schemas: &[SchemaRef],
        output_schema: SchemaRef,
    ) -> Result<Self, OperatorError> {
        if plan.size <= 0 || plan.slide <= 0 {
            return Err(OperatorError("a window's size and slide must be positive".into()));
        }
        let time_type = input_schemas[0].field(plan.time).data_type().clone();
        let unit = unit_of(&time_type)?;
        let (size, slide) = (span_in(unit, plan.size)?, span_in(unit, plan.slide)?);
        if size > i64::MAX / 4 || slide > i64::MAX / 4 {
            return Err(OperatorError("a window's size or slide is too large".into()));
        }
        let origin = span_in(unit, plan.origin)?.rem_euclid(slide);
        let margin = size + 2 * slide;
        let (low, high) = (i64::MIN + margin, i64::MAX - margin);
        let schema = relaxed(&output_schema);
        Ok(Window { time: plan.time, time_type, size, slide, origin, low, high, panes: plan.panes, schema })
    }

    /// The start of the last window that begins at or before `time`.
    #[inline]
    fn last_start(&self, time: i64) -> i64 {
        time - (time - self.origin).rem_euclid(self.slide)
    }

    /// As [`Window::last_start`], where sums may overflow: `None` when some window of `time` does.
    fn last_start_checked(&self, time: i64) -> Option<i64> {
        let (wide, size, slide) = (i128::from(time), i128::from(self.size), i128::from(self.slide));
        let last = wide - (wide - i128::from(self.origin)).rem_euclid(slide);
        let windows = (size - (wide - last) + slide - 1).div_euclid(slide);
        let first = last - (windows - 1).max(0) * slide;
        i64::try_from(first).ok()?;
        i64::try_from(last + size).ok()?;
        i64::try_from(last).ok()
    }

    /// Appends the windows of `time`, whose last start is known, in the order of time.
    fn push_windows(&self, row: u32, time: i64, last: i64, out: &mut Expansion) {
        let at = out.starts.len();
        let mut start = last;
        // Starts step back until a window ends at or before the time.
        while time - start < self.size {
            out.starts.push(start);
            out.rows.push(row);
            match start.checked_sub(self.slide) {
                Some(earlier) => start = earlier,
                None => break,
            }
        }
        out.starts[at..].reverse();
    }

    fn windows(&self, delta: &Delta, errors: &mut Vec<RowError>) -> Result<Expansion, OperatorError> {
        let column = delta.rows.column(self.time);
        let times = raw_times(column)?;
        let capacity = times.len() * (self.size / self.slide + 1).min(64) as usize;
        let mut out = Expansion { rows: Vec::with_capacity(capacity), starts: Vec::with_capacity(capacity) };
        let nulls = column.nulls();
        // Neighbouring rows mostly share their window, which saves the division.
        let (mut seen, mut seen_end) = (i64::MAX, i64::MAX);
        for (row, &time) in times.iter().enumerate() {
            if nulls.is_some_and(|n| n.is_null(row)) {
                continue;
            }
            if time >= seen && time < seen_end {
                self.push_windows(row as u32, time, seen, &mut out);
            } else if time >= self.low && time <= self.high {
                seen = self.last_start(time);
                seen_end = seen + self.slide;
                self.push_windows(row as u32, time, seen, &mut out);
            } else if let Some(last) = self.last_start_checked(time) {
                self.push_windows(row as u32, time, last, &mut out);
            } else {
                errors.push(out_of_range(&delta.rows, row, delta.weight(row), "window"));
            }
        }
        Ok(out)
    }

    /// The rows that differ in more than their time within a pane, with the sums of their multiplicities.
    fn merge_panes(&self, delta: &Delta) -> Result<Delta, OperatorError> {
        let column = delta.rows.column(self.time);
        let times = raw_times(column)?;
        let (low, high) = (self.low, self.high);
        if column.null_count() > 0 || times.iter().any(|time| *time < low || *time > high) {
            return Ok(delta.clone());
        }
        let panes = Int64Array::from_iter_values(self.panes_of(&times));
        let mut columns = delta.rows.columns().to_vec();
        columns[self.time] = std::sync::Arc::new(panes) as ArrayRef;
        let types = columns.iter().map(|c| c.data_type().clone()).collect();
        let (mut ids, mut first) = (Vec::new(), Vec::new());
        KeyTable::new(types)?.intern(&columns, delta.len(), &mut ids, |id| first.push(id))?;
        let mut sums = vec![0i64; first.len()];
        let mut rows = Vec::with_capacity(first.len());
        for (row, id) in ids.iter().enumerate() {
            // Numbers are handed out in the order of the rows.
            if *id as usize == rows.len() {
                rows.push(row as u32);
            }
            sums[*id as usize] += delta.weight(row);
        }
        let mut at = 0;
        rows.retain(|_| {
            at += 1;
            sums[at - 1] != 0
        });
        sums.retain(|sum| *sum != 0);
        Ok(Delta::new(take_record_batch(&delta.rows, &UInt32Array::from(rows))?, sums.into()))
    }

    /// The start of the pane of each time; all are far from the ends of what the type can express.
    fn panes_of(&self, times: &[i64]) -> impl Iterator<Item = i64> {
        let mut pane = i64::MAX;
        times.iter().map(move |time| {
            // Neighbouring rows mostly share their pane, which saves the division.
            if *time < pane || time - pane >= self.slide {
                pane = self.last_start(*time);
            }
            pane
        })
    }

    fn expand(&self, delta: &Delta, errors: &mut Vec<RowError>) -> Result<Option<Delta>, OperatorError> {
        let Expansion { rows, starts } = self.windows(delta, errors)?;
        if rows.is_empty() {
            return Ok(None);
        }
        let ends = starts.iter().map(|start| start + self.size).collect();
        let unchanged = rows.len() == delta.len() && rows.iter().enumerate().all(|(i, row)| i == *row as usize);
        let taken = if unchanged { delta.clone() } else { take(delta, rows)? };
        let mut columns = taken.rows.columns().to_vec();
        columns.push(times_from_raw(starts, &self.time_type)?);
        columns.push(times_from_raw(ends, &self.time_type)?);
        Ok(Some(Delta { rows: batch(self.schema.clone(), columns, taken.len()), diff: taken.diff }))
    }
}

fn take(delta: &Delta, rows: Vec<u32>) -> Result<Delta, OperatorError> {
    let diff = delta.diff.as_ref().map(|d| rows.iter().map(|row| d.value(*row as usize)).collect::<Vec<_>>().into());
    Ok(Delta { rows: take_record_batch(&delta.rows, &UInt32Array::from(rows))?, diff })
}

impl Operator for Window {
    fn step(&mut self, cx: &mut StepCx<'_>, inputs: &mut [Vec<Delta>]) -> Result<Vec<Delta>, OperatorError> {
        let mut out = Vec::with_capacity(inputs[0].len());
        for delta in inputs[0].drain(..) {
            let delta = if self.panes { self.merge_panes(&delta)? } else { delta };
            out.extend(self.expand(&delta, cx.errors)?);
        }
        Ok(out)
    }
}
