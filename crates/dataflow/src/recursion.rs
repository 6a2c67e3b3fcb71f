//! The head of a loop: the rows of each round of a recursion.
//!
//! Input: the rows of the base term, and what the recursive term makes of this operator's own output; those rows
//! have one column more, the round of the row that they were made from. Output: rows and their round. A base row
//! belongs to round 0, a row made of one of round n to round n + 1. Of `UNION ALL` every row of a round comes out, as often as it was
//! made; of `UNION` each row comes out once, in the first round in which it was made, as SQL's working table has it.
//!
//! Rule: the recursive term is linear in the rows of a round, so a change of round n is a change of round n + 1 alone. An epoch
//! goes through the rounds in their order, and touches only rows that change: when a row is not made any more in
//! the round in which it stood, it goes, with all that was made of it, and stands again in the next round in which it is
//! still made without it. So rows that only support each other, in a circle, go away together. It is the iteration of
//! differential dataflow (McSherry, Murray, Isaacs, Isard: "Differential dataflow", CIDR 2013) with the times
//! (epoch, round), of which only the sums up to the present epoch are kept.
//!
//! State: of `UNION`, each row and how often it is made in each round; of `UNION ALL` nothing but the epoch's own
//! changes. Released when a row is made no more. Saved: the rows of both inputs, with their rounds.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use tidemill_delta::{Delta, Epoch, batch, relaxed};
use tidemill_plan::RecursionPlan;
use tidemill_state::KeyTable;

use crate::saved::{all_fitting, wrong};
use crate::{Keeps, Operator, OperatorError, StateSize, StepCx};

/// A recursion of more rounds than this is taken for one without end.
const MAX_ROUNDS: u64 = 10_000;
/// A recursion that gives more rows than this in one epoch on one worker is taken for one without end.
const MAX_ROWS: usize = 1 << 24;

/// See the module.
pub struct Recursion {
    distinct: bool,
    /// The rows without their round.
    columns: SchemaRef,
    schema: SchemaRef,
    rows: KeyTable,
    /// How often each row is made in each round. Of `UNION` only.
    made: BTreeMap<(u32, u64), i64>,
    /// By row: in which round it stands.
    stands: Vec<Option<u64>>,
    /// By row: in how many rounds it is still to be looked at.
    awaited: Vec<u32>,
    /// What is still to be looked at, and how much more often it is made.
    pending: BTreeMap<u64, BTreeMap<u32, i64>>,
    /// The epoch, and how many rows came out in it.
    given: (Epoch, usize),
}

/// Changes of rows that stand in a round.
#[derive(Default)]
struct Changes {
    rows: Vec<u32>,
    rounds: Vec<i64>,
    weights: Vec<i64>,
}

impl Changes {
    fn push(&mut self, row: u32, round: u64, weight: i64) {
        self.rows.push(row);
        self.rounds.push(round as i64);
        self.weights.push(weight);
    }
}

impl Recursion {
    /// An operator without rows. `output_schema` has the rows' columns and their round.
    pub fn new(plan: &RecursionPlan, output_schema: SchemaRef) -> Result<Self, OperatorError> {
        let schema = relaxed(&output_schema);
        let Some((round, columns)) = schema.fields().split_last().filter(|(_, columns)| !columns.is_empty()) else {
            return Err(OperatorError("a recursion needs columns".into()));
        };
        if *round.data_type() != DataType::Int64 {
            return Err(OperatorError(format!("a round must be an Int64, not {}", round.data_type())));
        }
        let types = columns.iter().map(|field| field.data_type().clone()).collect();
        let columns = arrow::datatypes::Schema::new(columns.to_vec());
        Ok(Recursion {
            distinct: plan.distinct,
            columns: Arc::new(columns),
            schema,
            rows: KeyTable::new(types)?,
            made: BTreeMap::new(),
            stands: Vec::new(),
            awaited: Vec::new(),
            pending: BTreeMap::new(),
            given: (0, 0),
        })
    }

    /// The numbers of rows.
    fn intern(&mut self, columns: &[ArrayRef], len: usize) -> Result<Vec<u32>, OperatorError> {
        let mut ids = Vec::with_capacity(len);
        self.rows.intern(columns, len, &mut ids, |_| ())?;
        self.stands.resize(self.rows.capacity(), None);
        self.awaited.resize(self.rows.capacity(), 0);
        Ok(ids)
    }

    /// Visits the rows of an input with the round that they belong to.
    fn each(
        &mut self,
        input: usize,
        delta: &Delta,
        mut visit: impl FnMut(&mut Self, u32, u64, i64) -> Result<(), OperatorError>,
    ) -> Result<(), OperatorError> {
        let width = self.columns.fields().len();
        let ids = self.intern(&delta.rows.columns()[..width], delta.len())?;
        let rounds = (input == 1).then(|| delta.rows.column(width).as_primitive::<Int64Type>());
        for (i, id) in ids.into_iter().enumerate() {
            let round = match rounds {
                Some(rounds) => u64::try_from(rounds.value(i)).map_err(|_| wrong("a round is negative"))? + 1,
                None => 0,
            };
            visit(self, id, round, delta.weight(i))?;
        }
        Ok(())
    }

    /// Notes that a row is to be looked at in a round, in which it is made so much more often.
    fn await_round(&mut self, id: u32, round: u64, weight: i64) -> Result<(), OperatorError> {
        match self.pending.entry(round).or_default().entry(id) {
            Entry::Vacant(entry) => {
                entry.insert(weight);
                self.awaited[id as usize] += 1;
            }
            Entry::Occupied(mut entry) => {
                let sum = entry.get().checked_add(weight);
                let more = || OperatorError("a row of the recursion is there too often to be counted".into());
                *entry.get_mut() = sum.ok_or_else(more)?;
            }
        }
        Ok(())
    }

    /// Settles which rows stand in a round.
    fn settle(&mut self, round: u64) -> Result<Changes, OperatorError> {
        let mut changes = Changes::default();
        for (id, weight) in self.pending.remove(&round).unwrap_or_default() {
            self.awaited[id as usize] -= 1;
            if self.distinct {
                self.settle_row(id, round, weight, &mut changes)?;
            } else if weight != 0 {
                changes.push(id, round, weight);
            }
        }
        self.given.1 += changes.rows.len();
        if self.given.1 > MAX_ROWS {
            let message = format!("the recursion gives more than {MAX_ROWS} rows at once; has it an end?");
            return Err(OperatorError(message));
        }
        Ok(changes)
    }

    fn settle_row(&mut self, id: u32, round: u64, weight: i64, changes: &mut Changes) -> Result<(), OperatorError> {
        let made = self.made.entry((id, round)).or_default();
        *made += weight;
        assert!(*made >= 0, "a row was taken back that was not there");
        if *made == 0 {
            self.made.remove(&(id, round));
        }
        let first = self.first_round(id);
        let stood = self.stands[id as usize];
        let now = if first == Some(round) {
            first
        } else {
            // In which later round it stands shows when that is settled.
            if let (Some(later), true) = (first.filter(|first| *first > round), stood.is_none_or(|s| s == round)) {
                self.await_round(id, later, 0)?;
            }
            stood.filter(|s| *s != round)
        };
        if now == stood {
            return Ok(());
        }
        self.stands[id as usize] = now;
        if let Some(stood) = stood {
            changes.push(id, stood, -1);
        }
        if let Some(now) = now {
            changes.push(id, now, 1);
        }
        Ok(())
    }

    /// The first round in which a row is made, as far as rounds are settled.
    fn first_round(&self, id: u32) -> Option<u64> {
        self.made.range((id, 0)..=(id, u64::MAX)).next().map(|((_, round), _)| *round)
    }

    fn delta(&self, changes: Changes) -> Result<Delta, OperatorError> {
        let mut columns = self.rows.columns(&changes.rows)?;
        columns.push(Arc::new(Int64Array::from(changes.rounds)));
        Ok(Delta::new(batch(self.schema.clone(), columns, changes.rows.len()), Int64Array::from(changes.weights)))
    }

    /// Forgets rows that are made no more.
    fn release(&mut self, ids: impl IntoIterator<Item = u32>) {
        for id in ids.into_iter().collect::<BTreeSet<_>>() {
            if self.awaited[id as usize] == 0 && self.first_round(id).is_none() && self.rows.contains(id) {
                self.rows.release(id);
            }
        }
    }

    /// The shape of an input's rows.
    fn shape(&self, input: usize) -> &SchemaRef {
        if input == 0 { &self.columns } else { &self.schema }
    }
}

impl Operator for Recursion {
    fn step(&mut self, cx: &mut StepCx<'_>, inputs: &mut [Vec<Delta>]) -> Result<Vec<Delta>, OperatorError> {
        if cx.round > MAX_ROUNDS {
            let message = format!("the recursion comes to no end within {MAX_ROUNDS} rounds");
            return Err(OperatorError(message));
        }
        if self.given.0 != cx.epoch {
            self.given = (cx.epoch, 0);
        }
        for (input, deltas) in inputs.iter_mut().enumerate() {
            for delta in deltas.drain(..) {
                self.each(input, &delta, |own, id, round, weight| own.await_round(id, round, weight))?;
            }
        }
        let looked_at: Vec<u32> = self.pending.get(&cx.round).into_iter().flat_map(|p| p.keys().copied()).collect();
        let changes = self.settle(cx.round)?;
        let out = if changes.rows.is_empty() { Vec::new() } else { vec![self.delta(changes)?] };
        self.release(looked_at);
        Ok(out)
    }

    fn next_round(&self) -> Option<u64> {
        self.pending.keys().next().copied()
    }

    fn keeps(&self) -> Keeps {
        if self.distinct { Keeps::Rows } else { Keeps::Nothing }
    }

    fn rows(&self) -> Result<Vec<Delta>, OperatorError> {
        let of = |input: usize| -> Result<Delta, OperatorError> {
            let made = self.made.iter().filter(|((_, round), _)| (*round > 0) == (input == 1));
            let mut parts = Changes::default();
            made.for_each(|((id, round), count)| parts.push(*id, round.saturating_sub(1), *count));
            let mut columns = self.rows.columns(&parts.rows)?;
            if input == 1 {
                columns.push(Arc::new(Int64Array::from(parts.rounds)));
            }
            let rows = batch(self.shape(input).clone(), columns, parts.rows.len());
            Ok(Delta::new(rows, Int64Array::from(parts.weights)))
        };
        Ok(vec![of(0)?, of(1)?])
    }

    fn load(&mut self, _cx: &mut StepCx<'_>, saved: &mut [Vec<Delta>]) -> Result<(), OperatorError> {
        for (input, deltas) in saved.iter_mut().enumerate().take(2) {
            for delta in all_fitting(&self.shape(input).clone(), deltas)? {
                if delta.rows.columns().last().is_some_and(|rounds| input == 1 && rounds.null_count() > 0) {
                    return Err(wrong("a round is missing"));
                }
                self.each(input, &delta, |own, id, round, weight| {
                    *own.made.entry((id, round)).or_default() += weight;
                    Ok(())
                })?;
            }
        }
        if self.made.values().any(|count| *count < 0) {
            return Err(wrong("a row is taken back that is not there"));
        }
        self.made.retain(|_, count| *count != 0);
        let ids: Vec<u32> = (0..self.rows.capacity() as u32).filter(|id| self.rows.contains(*id)).collect();
        for id in &ids {
            self.stands[*id as usize] = self.first_round(*id);
        }
        self.release(ids);
        Ok(())
    }

    fn state(&self) -> StateSize {
        let bytes =
            self.rows.bytes() + self.made.len() * 40 + self.stands.capacity() * 16 + self.awaited.capacity() * 4;
        StateSize { rows: self.rows.len(), bytes }
    }
}
