//! The states of one call for all groups.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use tidemill_plan::{AggregateCall, AggregateFunction};

use super::extreme::{AppendOnlyExtreme, Extreme};
use super::from_rows::FromRows;
use super::numeric::{Average, Sum, Variance};
use super::{args_type, shared};
use crate::OperatorError;
use crate::saved::numbers;

/// One aggregate's states, by group number.
pub(super) trait GroupStates: Send {
    /// Makes room for groups up to `len`; new ones are empty.
    fn grow(&mut self, len: usize);
    /// Adds rows: row `i` belongs to group `ids[i]` and counts `diffs[i]` times (+1 if `None`).
    fn update(&mut self, ids: &[u32], diffs: Option<&[i64]>, args: &[ArrayRef]) -> Result<(), OperatorError>;
    /// The groups' values; a value that cannot be computed is NULL and its reason goes to `failed`.
    fn values(&self, ids: &[u32], failed: &mut Vec<String>) -> Result<ArrayRef, OperatorError>;
    /// Empties a group.
    fn release(&mut self, id: u32);
    /// Bytes of memory, estimated.
    fn bytes(&self) -> usize;
    /// How often a value was computed from all of its group's rows.
    fn recomputations(&self) -> u64 {
        0
    }
    /// Whether a group's state is saved as any number of rows, instead of exactly one.
    fn is_multiset(&self) -> bool {
        false
    }
    /// How many columns these rows have.
    fn width(&self) -> usize;
    /// The groups' states as rows, group by group. For a multiset `places` gets the place in `ids` of each row's group.
    fn save(&self, ids: &[u32], places: &mut Vec<u32>) -> Result<Vec<ArrayRef>, OperatorError>;
    /// Gives empty groups the states that were saved: row `i` is of group `ids[i]`.
    fn load(&mut self, ids: &[u32], columns: &[ArrayRef]) -> Result<(), OperatorError>;
}

/// Whether distinct arguments make a difference: MIN and MAX of distinct values are MIN and MAX.
pub(super) fn needs_distinct(function: &AggregateFunction) -> bool {
    !matches!(function, AggregateFunction::Min | AggregateFunction::Max | AggregateFunction::Bool { .. })
}

/// The states for a call over rows of shape `input`, `DISTINCT` left aside.
pub(super) fn states(
    call: &AggregateCall,
    input: &SchemaRef,
    append_only: bool,
) -> Result<Box<dyn GroupStates>, OperatorError> {
    let arg = || args_type(&call.args, input).ok_or_else(|| OperatorError(format!("{} needs an argument", call.label)));
    Ok(match &call.function {
        AggregateFunction::Count => Box::new(Count::default()),
        AggregateFunction::Sum => Sum::states(&arg()?, &call.data_type)?,
        AggregateFunction::Avg => Average::states(&arg()?, &call.data_type)?,
        AggregateFunction::Min | AggregateFunction::Max => {
            let greatest = matches!(call.function, AggregateFunction::Max);
            if append_only { AppendOnlyExtreme::states(arg()?, greatest)? } else { Extreme::states(arg()?, greatest)? }
        }
        AggregateFunction::Variance { sample, root } => Box::new(Variance::new(*sample, *root)),
        AggregateFunction::Bool { any } => Box::new(Bool { any: *any, counts: Vec::new() }),
        AggregateFunction::FromRows(query) => {
            let fields = call.args.iter().map(|a| input.field(*a).clone()).collect::<Vec<_>>();
            Box::new(FromRows::new(query.clone(), fields, call.data_type.clone())?)
        }
    })
}

/// `COUNT`.
#[derive(Default)]
struct Count {
    counts: Vec<i64>,
}

impl GroupStates for Count {
    fn grow(&mut self, len: usize) {
        self.counts.resize(len.max(self.counts.len()), 0);
    }

    fn update(&mut self, ids: &[u32], diffs: Option<&[i64]>, args: &[ArrayRef]) -> Result<(), OperatorError> {
        // Of several arguments none may be NULL.
        let nulls = args.iter().fold(None, |nulls, a| NullBuffer::union(nulls.as_ref(), a.logical_nulls().as_ref()));
        let nulls = nulls.filter(|nulls| nulls.null_count() > 0);
        match (nulls, diffs) {
            (None, None) => ids.iter().for_each(|id| self.counts[*id as usize] += 1),
            (None, Some(diffs)) => ids.iter().zip(diffs).for_each(|(id, d)| self.counts[*id as usize] += d),
            (Some(nulls), diffs) => {
                for (i, id) in ids.iter().enumerate().filter(|(i, _)| nulls.is_valid(*i)) {
                    self.counts[*id as usize] += diffs.map_or(1, |d| d[i]);
                }
            }
        }
        Ok(())
    }

    fn values(&self, ids: &[u32], _failed: &mut Vec<String>) -> Result<ArrayRef, OperatorError> {
        Ok(shared(Int64Array::from_iter_values(ids.iter().map(|id| self.counts[*id as usize]))))
    }

    fn release(&mut self, id: u32) {
        self.counts[id as usize] = 0;
    }

    fn bytes(&self) -> usize {
        self.counts.capacity() * 8
    }

    fn width(&self) -> usize {
        1
    }

    fn save(&self, ids: &[u32], _places: &mut Vec<u32>) -> Result<Vec<ArrayRef>, OperatorError> {
        Ok(vec![shared(Int64Array::from_iter_values(ids.iter().map(|id| self.counts[*id as usize])))])
    }

    fn load(&mut self, ids: &[u32], columns: &[ArrayRef]) -> Result<(), OperatorError> {
        let counts = numbers::<Int64Type>(columns, 0)?.values();
        ids.iter().zip(counts).for_each(|(id, count)| self.counts[*id as usize] = *count);
        Ok(())
    }
}

/// `BOOL_AND`, `BOOL_OR`: counts of true and false.
struct Bool {
    any: bool,
    counts: Vec<(i64, i64)>,
}

impl GroupStates for Bool {
    fn grow(&mut self, len: usize) {
        self.counts.resize(len.max(self.counts.len()), (0, 0));
    }

    fn update(&mut self, ids: &[u32], diffs: Option<&[i64]>, args: &[ArrayRef]) -> Result<(), OperatorError> {
        if args[0].data_type() != &DataType::Boolean {
            return Err(OperatorError(format!("a boolean argument is expected, not {}", args[0].data_type())));
        }
        let values = args[0].as_boolean();
        for (i, id) in ids.iter().enumerate().filter(|(i, _)| values.is_valid(*i)) {
            let count = &mut self.counts[*id as usize];
            let diff = diffs.map_or(1, |d| d[i]);
            if values.value(i) { count.0 += diff } else { count.1 += diff }
        }
        Ok(())
    }

    fn values(&self, ids: &[u32], _failed: &mut Vec<String>) -> Result<ArrayRef, OperatorError> {
        let value = |id: &u32| match self.counts[*id as usize] {
            (0, 0) => None,
            (yes, _) if self.any => Some(yes > 0),
            (_, no) => Some(no == 0),
        };
        Ok(shared(ids.iter().map(value).collect::<BooleanArray>()))
    }

    fn release(&mut self, id: u32) {
        self.counts[id as usize] = (0, 0);
    }

    fn bytes(&self) -> usize {
        self.counts.capacity() * 16
    }

    fn width(&self) -> usize {
        2
    }

    fn save(&self, ids: &[u32], _places: &mut Vec<u32>) -> Result<Vec<ArrayRef>, OperatorError> {
        let counts = || ids.iter().map(|id| self.counts[*id as usize]);
        let (yes, no) = (counts().map(|count| count.0), counts().map(|count| count.1));
        Ok(vec![shared(Int64Array::from_iter_values(yes)), shared(Int64Array::from_iter_values(no))])
    }

    fn load(&mut self, ids: &[u32], columns: &[ArrayRef]) -> Result<(), OperatorError> {
        let (yes, no) = (numbers::<Int64Type>(columns, 0)?.values(), numbers::<Int64Type>(columns, 1)?.values());
        ids.iter().zip(yes.iter().zip(no)).for_each(|(id, (yes, no))| self.counts[*id as usize] = (*yes, *no));
        Ok(())
    }
}
