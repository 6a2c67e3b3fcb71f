//! Holds rows back until they are final.
//!
//! Input: one, any changes, with a time column that the watermark bounds. Rule: a row comes out in the epoch
//! whose watermark says that nothing about its time can change any more, with the multiplicity it has
//! then, sorted by content; nothing is ever taken back. A row whose time is NULL never becomes final
//! and is not kept.
//!
//! State: the rows not final yet, in runs sorted by time, so that the final rows of a run are its head and
//! leave without being copied. Runs are merged like a binary counter, which also cancels what has
//! been taken back. Released as rows come out.

use arrow::array::{Array, UInt32Array};
use arrow::datatypes::{SchemaRef, TimeUnit};
use tidemill_delta::{Delta, Micros, consolidate, relaxed};
use tidemill_plan::{Bound, CloseGatePlan};

use crate::event_time::{raw_times, to_micros, unit_of};
use crate::saved::{all_fitting, wrong};
use crate::{Keeps, Operator, OperatorError, StateSize, StepCx};

/// See the module.
pub struct CloseGate {
    closes: Bound,
    unit: TimeUnit,
    schema: SchemaRef,
    /// The oldest first.
    runs: Vec<Run>,
    /// The least pending time.
    least: Option<Micros>,
}

/// Rows sorted by time; never empty.
struct Run {
    times: Vec<Micros>,
    rows: Delta,
    /// How many rows at the head have come out.
    done: usize,
}

impl Run {
    fn len(&self) -> usize {
        self.times.len() - self.done
    }

    fn pending(&self) -> Delta {
        self.rows.slice(self.done, self.len())
    }
}

impl CloseGate {
    /// A gate that holds nothing.
    pub fn new(
        plan: &CloseGatePlan,
        input_schemas: &[SchemaRef],
        output_schema: SchemaRef,
    ) -> Result<Self, OperatorError> {
        let unit = unit_of(input_schemas[0].field(plan.closes.column).data_type())?;
        Ok(CloseGate { closes: plan.closes, unit, schema: relaxed(&output_schema), runs: Vec::new(), least: None })
    }

    /// Consolidates rows and sorts them by time; rows of one time stay in the order of their content.
    fn sorted(&self, deltas: &[Delta]) -> Result<Option<Run>, OperatorError> {
        let rows = consolidate(&self.schema, deltas)?;
        let column = rows.rows.column(self.closes.column);
        let raw = raw_times(column)?;
        let mut order: Vec<u32> = (0..rows.len() as u32).filter(|i| column.is_valid(*i as usize)).collect();
        if order.is_empty() {
            return Ok(None);
        }
        order.sort_by_key(|i| raw[*i as usize]);
        let times = order.iter().map(|i| to_micros(raw[*i as usize], self.unit)).collect();
        Ok(Some(Run { times, rows: rows.take(&UInt32Array::from(order))?, done: 0 }))
    }

    fn push(&mut self, run: Option<Run>) -> Result<(), OperatorError> {
        self.runs.extend(run);
        while let [.., before, last] = self.runs.as_slice()
            && before.len() <= 2 * last.len()
        {
            let merged = self.sorted(&[before.pending(), last.pending()])?;
            self.runs.truncate(self.runs.len() - 2);
            self.runs.extend(merged);
        }
        Ok(())
    }

    /// Takes the final rows out of the runs.
    fn release(&mut self, watermark: Micros) -> Vec<Delta> {
        let mut out = Vec::new();
        for run in &mut self.runs {
            let count = run.times[run.done..].partition_point(|time| self.closes.is_final(*time, watermark));
            if count > 0 {
                out.push(run.rows.slice(run.done, count));
                run.done += count;
            }
        }
        self.runs.retain(|run| run.len() > 0);
        self.least = self.runs.iter().map(|run| run.times[run.done]).min();
        out
    }

    /// Copies what is left of runs that are mostly done, so that the rest can be freed.
    fn shrink(&mut self) -> Result<(), OperatorError> {
        for i in 0..self.runs.len() {
            if self.runs[i].done > self.runs[i].len() {
                let run = &mut self.runs[i];
                let left: Vec<u32> = (run.done as u32..run.times.len() as u32).collect();
                run.rows = run.rows.take(&UInt32Array::from(left))?;
                run.times.drain(..run.done);
                run.done = 0;
            }
        }
        Ok(())
    }
}

impl Operator for CloseGate {
    fn step(&mut self, cx: &mut StepCx<'_>, inputs: &mut [Vec<Delta>]) -> Result<Vec<Delta>, OperatorError> {
        let deltas: Vec<Delta> = inputs[0].drain(..).filter(|delta| !delta.is_empty()).collect();
        if !deltas.is_empty() {
            let run = self.sorted(&deltas)?;
            self.push(run)?;
        }
        let parts = self.release(cx.watermark);
        if parts.is_empty() {
            return Ok(Vec::new());
        }
        self.shrink()?;
        let out = consolidate(&self.schema, &parts)?;
        assert!(!out.has_retractions(), "a row was taken back that was not there, or after it was final");
        Ok(if out.is_empty() { Vec::new() } else { vec![out] })
    }

    fn due(&self, watermark: Micros) -> bool {
        self.least.is_some_and(|time| self.closes.is_final(time, watermark))
    }

    fn keeps(&self) -> Keeps {
        Keeps::Rows
    }

    /// Rows that have come out already are not among them; when they are loaded from before that, they come out
    /// of that step, whose output goes nowhere.
    fn rows(&self) -> Result<Vec<Delta>, OperatorError> {
        let pending: Vec<Delta> = self.runs.iter().map(Run::pending).collect();
        Ok(vec![Delta::concat(&self.schema, &pending)?])
    }

    fn load(&mut self, cx: &mut StepCx<'_>, saved: &mut [Vec<Delta>]) -> Result<(), OperatorError> {
        let [saved] = saved else { return Err(wrong("a gate has one input")) };
        let rows = all_fitting(&self.schema, saved)?;
        self.step(cx, &mut [rows]).map(drop)
    }

    fn state(&self) -> StateSize {
        let size = |run: &Run| (run.len(), run.rows.bytes() + run.times.len() * 8);
        let (rows, bytes) = self.runs.iter().map(size).fold((0, 0), |sum, run| (sum.0 + run.0, sum.1 + run.1));
        StateSize { rows, bytes }
    }
}
