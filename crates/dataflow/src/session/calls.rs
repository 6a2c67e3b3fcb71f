//! The aggregates of all sessions, a session's number being its group's number.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Int64Type, SchemaRef};
use tidemill_plan::{AggregateCall, AggregateFunction};

use crate::aggregate::{GroupStates, group_states};
use crate::{OperatorError, RowError};

pub(super) struct Calls {
    calls: Vec<AggregateCall>,
    states: Vec<Box<dyn GroupStates>>,
}

impl Calls {
    pub(super) fn new(calls: &[AggregateCall], input: &SchemaRef, append_only: bool) -> Result<Self, OperatorError> {
        let states = calls.iter().map(|call| group_states(call, input, append_only)).collect::<Result<_, _>>()?;
        Ok(Calls { calls: calls.to_vec(), states })
    }

    /// Whether a session's values can be had from the values of its parts.
    pub(super) fn can_merge(&self) -> bool {
        self.calls.iter().all(|call| match call.function {
            AggregateFunction::Count => !call.distinct,
            AggregateFunction::Min | AggregateFunction::Max | AggregateFunction::Bool { .. } => true,
            _ => false,
        })
    }

    /// Makes room for sessions.
    pub(super) fn grow(&mut self, capacity: usize) {
        self.states.iter_mut().for_each(|state| state.grow(capacity));
    }

    /// Adds rows to the sessions they belong to.
    pub(super) fn update(
        &mut self,
        sessions: &[u32],
        diffs: Option<&[i64]>,
        rows: &RecordBatch,
    ) -> Result<(), OperatorError> {
        for (call, state) in self.calls.iter().zip(&mut self.states) {
            let args = call.args.iter().map(|a| rows.column(*a).clone());
            let Some(filter) = call.filter else {
                state.update(sessions, diffs, &args.collect::<Vec<_>>())?;
                continue;
            };
            let passing = true_rows(rows.column(filter));
            let sessions: Vec<u32> = passing.values().iter().map(|i| sessions[*i as usize]).collect();
            let diffs = diffs.map(|d| passing.values().iter().map(|i| d[*i as usize]).collect::<Vec<_>>());
            let args = args.map(|a| take(&a, &passing, None)).collect::<Result<Vec<_>, _>>()?;
            state.update(&sessions, diffs.as_deref(), &args)?;
        }
        Ok(())
    }

    /// Adds to each first session of the pairs what the second one holds.
    pub(super) fn merge(&mut self, pairs: &[(u32, u32)]) -> Result<(), OperatorError> {
        let into: Vec<u32> = pairs.iter().map(|(into, _)| *into).collect();
        let from: Vec<u32> = pairs.iter().map(|(_, from)| *from).collect();
        for (call, state) in self.calls.iter().zip(&mut self.states) {
            let values = state.values(&from, &mut Vec::new())?;
            match call.function {
                // A part's count is how often to count a row.
                AggregateFunction::Count => {
                    state.update(&into, Some(values.as_primitive::<Int64Type>().values()), &[])?
                }
                _ => state.update(&into, None, &[values])?,
            }
        }
        Ok(())
    }

    /// The sessions' values, one column per call. What cannot be computed is NULL and reported.
    pub(super) fn values(&self, sessions: &[u32], errors: &mut Vec<RowError>) -> Result<Vec<ArrayRef>, OperatorError> {
        let mut columns = Vec::with_capacity(self.states.len());
        for (call, state) in self.calls.iter().zip(&self.states) {
            let mut failed = Vec::new();
            columns.push(state.values(sessions, &mut failed)?);
            errors.extend(failed.into_iter().map(|message| RowError {
                message: format!("{}: {message}", call.label),
                row: String::new(),
                weight: 1,
            }));
        }
        Ok(columns)
    }

    /// Empties a session.
    pub(super) fn release(&mut self, session: u32) {
        self.states.iter_mut().for_each(|state| state.release(session));
    }

    /// How often a value was computed from all rows of its session.
    pub(super) fn recomputations(&self) -> u64 {
        self.states.iter().map(|state| state.recomputations()).sum()
    }

    pub(super) fn bytes(&self) -> usize {
        self.states.iter().map(|state| state.bytes()).sum()
    }
}

/// The numbers of the rows where the condition is true; NULL is not true.
fn true_rows(condition: &ArrayRef) -> UInt32Array {
    let mask = condition.as_boolean();
    let rows = (0..mask.len()).filter(|i| mask.is_valid(*i) && mask.value(*i));
    UInt32Array::from_iter_values(rows.map(|i| i as u32))
}
