//! The aggregate calls of an operator, for all its groups.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Int64Type, SchemaRef};
use tidemill_plan::{AggregateCall, AggregateFunction};

use super::distinct::DistinctSet;
use super::states::{GroupStates, needs_distinct, states};
use crate::saved::wrong;
use crate::{OperatorError, RowError};

/// States of all calls, by group number.
pub(crate) struct Calls {
    calls: Vec<AggregateCall>,
    places: Vec<Place>,
    plain: Vec<Box<dyn GroupStates>>,
    /// One for each list of arguments that some call wants distinct.
    sets: Vec<DistinctSet>,
}

/// Where a call's states are.
#[derive(Clone, Copy)]
enum Place {
    Plain(usize),
    Distinct { set: usize, member: usize },
}

impl Calls {
    /// No groups yet; rows will have the shape of `input`.
    pub(crate) fn new(calls: &[AggregateCall], input: &SchemaRef, append_only: bool) -> Result<Self, OperatorError> {
        let mut all = Calls { calls: calls.to_vec(), places: Vec::new(), plain: Vec::new(), sets: Vec::new() };
        for call in calls {
            let states = states(call, input, append_only)?;
            let place = if call.distinct && needs_distinct(&call.function) {
                let open = |set: &DistinctSet| set.args() == call.args && set.has_room();
                let set = match all.sets.iter().position(open) {
                    Some(set) => set,
                    None => {
                        all.sets.push(DistinctSet::new(&call.args, input, append_only)?);
                        all.sets.len() - 1
                    }
                };
                Place::Distinct { set, member: all.sets[set].add_member(call.filter, states) }
            } else {
                all.plain.push(states);
                Place::Plain(all.plain.len() - 1)
            };
            all.places.push(place);
        }
        Ok(all)
    }

    /// Makes room for groups up to `capacity`; new ones are empty.
    pub(crate) fn grow(&mut self, capacity: usize) {
        self.plain.iter_mut().for_each(|states| states.grow(capacity));
        self.sets.iter_mut().for_each(|set| set.grow(capacity));
    }

    /// Adds rows: row `i` belongs to group `groups[i]` and counts `diffs[i]` times (+1 if `None`).
    pub(crate) fn update(
        &mut self,
        groups: &[u32],
        diffs: Option<&[i64]>,
        rows: &RecordBatch,
    ) -> Result<(), OperatorError> {
        let mut passing: Vec<(usize, Passing)> = Vec::new();
        for (call, place) in self.calls.iter().zip(&self.places) {
            let Place::Plain(place) = *place else { continue };
            let args = call.args.iter().map(|a| rows.column(*a).clone());
            let Some(filter) = call.filter else {
                self.plain[place].update(groups, diffs, &args.collect::<Vec<_>>())?;
                continue;
            };
            let known = passing.iter().position(|(column, _)| *column == filter).unwrap_or_else(|| {
                passing.push((filter, Passing::new(rows.column(filter).as_boolean(), groups, diffs)));
                passing.len() - 1
            });
            let (_, Passing { rows, groups, diffs }) = &passing[known];
            let args = args.map(|a| take(&a, rows, None)).collect::<Result<Vec<_>, _>>()?;
            self.plain[place].update(groups, diffs.as_deref(), &args)?;
        }
        self.sets.iter_mut().try_for_each(|set| set.update(groups, diffs, rows))
    }

    /// The groups' values, one column per call. What cannot be computed is NULL and reported.
    pub(crate) fn values(&self, groups: &[u32], errors: &mut Vec<RowError>) -> Result<Vec<ArrayRef>, OperatorError> {
        let mut columns = Vec::with_capacity(self.calls.len());
        for (call, place) in self.calls.iter().zip(&self.places) {
            let mut failed = Vec::new();
            columns.push(self.states(*place).values(groups, &mut failed)?);
            errors.extend(failed.into_iter().map(|message| RowError {
                message: format!("{}: {message}", call.label),
                row: String::new(),
                weight: 1,
            }));
        }
        Ok(columns)
    }

    /// Whether a group's values can be had from the values of its parts.
    pub(crate) fn can_merge(&self) -> bool {
        self.calls.iter().all(|call| match call.function {
            AggregateFunction::Count => !call.distinct,
            AggregateFunction::Min | AggregateFunction::Max | AggregateFunction::Bool { .. } => true,
            _ => false,
        })
    }

    /// Adds to each first group of the pairs what the second one holds; only if [`Calls::can_merge`].
    pub(crate) fn merge(&mut self, pairs: &[(u32, u32)]) -> Result<(), OperatorError> {
        let into: Vec<u32> = pairs.iter().map(|(into, _)| *into).collect();
        let from: Vec<u32> = pairs.iter().map(|(_, from)| *from).collect();
        for (call, states) in self.calls.iter().zip(&mut self.plain) {
            let values = states.values(&from, &mut Vec::new())?;
            match call.function {
                // A part's count is how often to count a row.
                AggregateFunction::Count => {
                    states.update(&into, Some(values.as_primitive::<Int64Type>().values()), &[])?
                }
                _ => states.update(&into, None, &[values])?,
            }
        }
        Ok(())
    }

    /// Empties a group.
    pub(crate) fn release(&mut self, group: u32) {
        self.plain.iter_mut().for_each(|states| states.release(group));
        self.sets.iter_mut().for_each(|set| set.release(group));
    }

    /// The states that are saved as one row per group.
    pub(crate) fn save(&self, groups: &[u32]) -> Result<Vec<ArrayRef>, OperatorError> {
        let mut columns = Vec::new();
        for states in self.plain.iter().filter(|states| !states.is_multiset()) {
            columns.extend(states.save(groups, &mut Vec::new())?);
        }
        Ok(columns)
    }

    /// Gives empty groups the states that [`Calls::save`] gave.
    pub(crate) fn load(&mut self, groups: &[u32], columns: &[ArrayRef]) -> Result<(), OperatorError> {
        let mut rest = columns;
        for states in self.plain.iter_mut().filter(|states| !states.is_multiset()) {
            let (own, others) =
                rest.split_at_checked(states.width()).ok_or_else(|| wrong("a group has too few columns"))?;
            states.load(groups, own)?;
            rest = others;
        }
        if rest.is_empty() { Ok(()) } else { Err(wrong("a group has too many columns")) }
    }

    /// How many calls' states are saved as any number of rows per group.
    pub(super) fn multisets(&self) -> usize {
        self.plain.iter().filter(|states| states.is_multiset()).count()
    }

    /// These states.
    pub(super) fn multisets_mut(&mut self) -> impl Iterator<Item = &mut Box<dyn GroupStates>> {
        self.plain.iter_mut().filter(|states| states.is_multiset())
    }

    /// The sets of distinct arguments.
    pub(super) fn sets(&self) -> &[DistinctSet] {
        &self.sets
    }

    /// The sets of distinct arguments, to be changed.
    pub(super) fn sets_mut(&mut self) -> &mut [DistinctSet] {
        &mut self.sets
    }

    /// How often a value was computed from all rows of its group.
    pub(crate) fn recomputations(&self) -> u64 {
        self.places.iter().map(|place| self.states(*place).recomputations()).sum()
    }

    /// Bytes of memory, estimated.
    pub(crate) fn bytes(&self) -> usize {
        self.plain.iter().map(|states| states.bytes()).sum::<usize>()
            + self.sets.iter().map(DistinctSet::bytes).sum::<usize>()
    }

    fn states(&self, place: Place) -> &dyn GroupStates {
        match place {
            Place::Plain(place) => self.plain[place].as_ref(),
            Place::Distinct { set, member } => self.sets[set].member(member),
        }
    }
}

/// The rows that a filter lets pass.
struct Passing {
    rows: UInt32Array,
    groups: Vec<u32>,
    diffs: Option<Vec<i64>>,
}

impl Passing {
    /// The rows where the condition is true; NULL is not true.
    fn new(condition: &BooleanArray, groups: &[u32], diffs: Option<&[i64]>) -> Self {
        let truth = condition.values();
        let rows: Vec<u32> = match condition.nulls() {
            None => truth.set_indices_u32().collect(),
            Some(nulls) => (truth & nulls.inner()).set_indices_u32().collect(),
        };
        Passing {
            groups: rows.iter().map(|i| groups[*i as usize]).collect(),
            diffs: diffs.map(|d| rows.iter().map(|i| d[*i as usize]).collect()),
            rows: UInt32Array::from(rows),
        }
    }
}
