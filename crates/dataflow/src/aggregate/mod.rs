//! Groups and their aggregates.
//!
//! - Input: one collection, already routed by key. Output: one row per group that has rows: the
//!   key, then each call's value. With no keys there is one group, which always has its row.
//! - Rule: an epoch's rows update the states of the groups they touch; for each touched group the
//!   row as it was is taken back and the row as it is comes instead, unless they are equal.
//! - State: per group its key, its number of rows and one state per call, in columns. Calls with
//!   `DISTINCT` also keep each distinct argument per group, once for all calls that share it.
//! - Released: when the group has no rows left, or when the watermark has made it final (`closes`).
//!   With `on_close` a group's row comes out once, at that moment.
//! - Saved: the groups that have changed, as entries ([`saved`]).

mod calls;
mod distinct;
mod exact;
mod extreme;
mod from_rows;
mod numeric;
mod saved;
mod states;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, UInt32Array};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{cast, concat, take};
use arrow::datatypes::{DataType, Int64Type, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use tidemill_delta::{Delta, Micros, batch};
use tidemill_plan::AggregatePlan;
use tidemill_state::KeyTable;

pub(crate) use calls::Calls;
pub(crate) use extreme::Comparable;
use saved::Changes;
use states::GroupStates;

use crate::{Entries, EntryShape, Keeps, Operator, OperatorError, RowError, StateSize, StepCx};

/// The operator; see the module.
pub struct Aggregate {
    plan: AggregatePlan,
    schema: SchemaRef,
    keys: KeyTable,
    groups: Groups,
    calls: Calls,
    /// Groups by when they are final; only with `closes`.
    closing: BTreeMap<Micros, Vec<u32>>,
    /// The groups touched in this step, in order of first touch.
    touched: Vec<u32>,
    steps: u64,
    started: bool,
    changes: Changes,
}

/// What is known of every group, by its number.
#[derive(Default)]
struct Groups {
    /// The sum of its rows' multiplicities.
    weight: Vec<i64>,
    /// Whether its row is out.
    emitted: Vec<bool>,
    /// The last step that touched it.
    touched: Vec<u64>,
    /// Whether it has been saved.
    saved: Vec<bool>,
}

impl Groups {
    fn grow(&mut self, len: usize) {
        self.weight.resize(len, 0);
        self.emitted.resize(len, false);
        self.touched.resize(len, 0);
        self.saved.resize(len, false);
    }
}

impl Aggregate {
    /// The operator of a plan, for input rows of shape `input`.
    pub fn new(plan: &AggregatePlan, input: &SchemaRef, schema: SchemaRef) -> Result<Self, OperatorError> {
        let types = plan.keys.iter().map(|k| input.field(*k).data_type().clone()).collect();
        Ok(Aggregate {
            plan: plan.clone(),
            schema,
            keys: KeyTable::new(types)?,
            groups: Groups::default(),
            calls: Calls::new(&plan.calls, input, plan.append_only)?,
            closing: BTreeMap::new(),
            touched: Vec::new(),
            steps: 0,
            started: false,
            changes: Changes::default(),
        })
    }

    fn is_global(&self) -> bool {
        self.plan.keys.is_empty()
    }

    /// Finds the groups of a batch's rows, makes those that are new, and lists the touched ones.
    fn find_groups(&mut self, delta: &Delta, ids: &mut Vec<u32>) -> Result<(), ArrowError> {
        let columns: Vec<ArrayRef> = self.plan.keys.iter().map(|k| delta.rows.column(*k).clone()).collect();
        let mut new = Vec::new();
        self.keys.intern(&columns, delta.len(), ids, |id| new.push(id))?;
        if !new.is_empty() {
            self.make_room(&new)?;
        }
        for id in ids.iter() {
            let mark = self.groups.touched[*id as usize];
            if mark != self.steps {
                self.touch(*id, mark);
            }
        }
        Ok(())
    }

    /// Prepares for groups that are new, and notes when they will be final.
    fn make_room(&mut self, new: &[u32]) -> Result<(), ArrowError> {
        let capacity = self.keys.capacity();
        self.groups.grow(capacity);
        self.calls.grow(capacity);
        if let Some(bound) = self.plan.closes {
            let place = self.plan.keys.iter().position(|k| *k == bound.column).expect("closes is on a key");
            let times = micros(&self.keys.columns(new)?[place])?;
            for (id, time) in new.iter().zip(times.iter()) {
                // A group without a time never closes.
                if let Some(time) = time {
                    self.closing.entry(time.saturating_add(bound.offset)).or_default().push(*id);
                }
            }
        }
        Ok(())
    }

    /// Lists a group as touched in this step; `before` is the step that touched it last.
    #[inline]
    fn touch(&mut self, id: u32, before: u64) {
        self.changes.touch(id, before);
        self.groups.touched[id as usize] = self.steps;
        self.touched.push(id);
    }

    fn update(&mut self, delta: &Delta, ids: &[u32]) -> Result<(), OperatorError> {
        let diffs = delta.diff.as_ref().map(|d| &d.values()[..]);
        for (i, id) in ids.iter().enumerate() {
            self.groups.weight[*id as usize] += diffs.map_or(1, |d| d[i]);
        }
        self.calls.update(ids, diffs, &delta.rows)
    }

    /// Rows as they were, for the groups that were out.
    fn old_rows(&self) -> Result<(Vec<u32>, Vec<ArrayRef>), OperatorError> {
        if self.plan.on_close {
            return Ok((Vec::new(), Vec::new()));
        }
        let out: Vec<u32> = self.touched.iter().copied().filter(|id| self.groups.emitted[*id as usize]).collect();
        // An error was reported when the row came out.
        let values = self.calls.values(&out, &mut Vec::new())?;
        Ok((out, values))
    }

    /// The difference between the rows as they were and as they are.
    fn changes(
        &mut self,
        old: (Vec<u32>, Vec<ArrayRef>),
        errors: &mut Vec<RowError>,
    ) -> Result<Option<Delta>, OperatorError> {
        let (old_ids, old_values) = old;
        let global = self.is_global();
        let alive = |id: &u32| global || self.groups.weight[*id as usize] != 0;
        let mut new_ids: Vec<u32> = old_ids.iter().copied().filter(alive).collect();
        let both = new_ids.len();
        new_ids.extend(self.touched.iter().copied().filter(|id| !self.groups.emitted[*id as usize] && alive(id)));
        let new_values = self.calls.values(&new_ids, errors)?;

        let old_places: Vec<u32> = (0..old_ids.len() as u32).filter(|i| alive(&old_ids[*i as usize])).collect();
        let same = same_rows(&old_values, &old_places, &new_values, both)?;
        let mut place = 0;
        let keep_old: Vec<u32> = (0..old_ids.len() as u32)
            .filter(|i| {
                if !alive(&old_ids[*i as usize]) {
                    return true;
                }
                place += 1;
                !same[place - 1]
            })
            .collect();
        let keep_new: Vec<u32> =
            (0..new_ids.len() as u32).filter(|i| *i as usize >= both || !same[*i as usize]).collect();
        new_ids.iter().for_each(|id| self.groups.emitted[*id as usize] = true);
        if keep_old.is_empty() && keep_new.is_empty() {
            return Ok(None);
        }
        let ids: Vec<u32> = keep_old
            .iter()
            .map(|i| old_ids[*i as usize])
            .chain(keep_new.iter().map(|i| new_ids[*i as usize]))
            .collect();
        let mut columns = self.keys.columns(&ids)?;
        let (keep_old, keep_new) = (UInt32Array::from(keep_old), UInt32Array::from(keep_new));
        for (i, new) in new_values.iter().enumerate() {
            let after = take(new, &keep_new, None)?;
            columns.push(match old_values.get(i) {
                Some(old) if !keep_old.is_empty() => concat(&[take(old, &keep_old, None)?.as_ref(), after.as_ref()])?,
                _ => after,
            });
        }
        let diff = Int64Array::from_iter_values((0..ids.len()).map(|i| if i < keep_old.len() { -1 } else { 1 }));
        Ok(Some(Delta::new(batch(self.schema.clone(), columns, ids.len()), diff)))
    }

    /// Forgets groups without rows.
    fn release_empty(&mut self) -> Result<(), OperatorError> {
        if self.is_global() {
            return Ok(());
        }
        let mut empty = std::mem::take(&mut self.touched);
        empty.retain(|id| self.groups.weight[*id as usize] == 0);
        if let Some(bound) = self.plan.closes {
            empty.iter().for_each(|id| self.forget_closing(*id, bound));
        }
        self.release(&empty)
    }

    fn release(&mut self, ids: &[u32]) -> Result<(), OperatorError> {
        self.note_gone(ids)?;
        for id in ids {
            self.keys.release(*id);
            self.calls.release(*id);
            self.groups.weight[*id as usize] = 0;
            self.groups.emitted[*id as usize] = false;
            self.groups.saved[*id as usize] = false;
        }
        Ok(())
    }

    fn forget_closing(&mut self, id: u32, bound: tidemill_plan::Bound) {
        let place = self.plan.keys.iter().position(|k| *k == bound.column).expect("closes is on a key");
        let Ok(columns) = self.keys.columns(&[id]) else { return };
        let Ok(times) = micros(&columns[place]) else { return };
        if times.is_null(0) {
            return;
        }
        let at = times.value(0).saturating_add(bound.offset);
        if let Some(list) = self.closing.get_mut(&at) {
            list.retain(|other| *other != id);
            if list.is_empty() {
                self.closing.remove(&at);
            }
        }
    }

    /// Emits (with `on_close`) and forgets the groups that are final.
    fn close(&mut self, watermark: Micros, errors: &mut Vec<RowError>) -> Result<Option<Delta>, OperatorError> {
        let mut closed = Vec::new();
        while let Some(entry) = self.closing.first_entry() {
            if *entry.key() > watermark {
                break;
            }
            closed.extend(entry.remove());
        }
        if closed.is_empty() {
            return Ok(None);
        }
        let out = if self.plan.on_close {
            let mut columns = self.keys.columns(&closed)?;
            columns.extend(self.calls.values(&closed, errors)?);
            Some(Delta::inserts(batch(self.schema.clone(), columns, closed.len())))
        } else {
            None
        };
        self.release(&closed)?;
        Ok(out)
    }
}

impl Operator for Aggregate {
    fn step(&mut self, cx: &mut StepCx<'_>, inputs: &mut [Vec<Delta>]) -> Result<Vec<Delta>, OperatorError> {
        self.steps += 1;
        self.touched.clear();
        let deltas: Vec<Delta> = inputs[0].drain(..).filter(|d| !d.is_empty()).collect();
        let mut ids: Vec<Vec<u32>> = vec![Vec::new(); deltas.len()];
        for (delta, ids) in deltas.iter().zip(&mut ids) {
            self.find_groups(delta, ids)?;
        }
        if self.is_global() && !self.started {
            self.start()?;
        }
        let old = self.old_rows()?;
        for (delta, ids) in deltas.iter().zip(&ids) {
            self.update(delta, ids)?;
        }
        debug_assert!(
            self.touched.iter().all(|id| self.groups.weight[*id as usize] >= 0),
            "a group has fewer than no rows after epoch {}",
            cx.epoch
        );
        let mut out = Vec::new();
        if !self.plan.on_close {
            out.extend(self.changes(old, cx.errors)?);
        }
        self.release_empty()?;
        out.extend(self.close(cx.watermark, cx.errors)?);
        Ok(out)
    }

    fn due(&self, watermark: Micros) -> bool {
        self.closing.first_key_value().is_some_and(|(at, _)| *at <= watermark)
    }

    fn wants_start(&self) -> bool {
        self.is_global() && !self.started
    }

    fn recomputations(&self) -> u64 {
        self.calls.recomputations()
    }

    fn state(&self) -> StateSize {
        let bytes = self.keys.bytes() + self.groups.weight.capacity() * 18 + self.calls.bytes();
        StateSize { rows: self.keys.len(), bytes: bytes + self.changes.bytes() }
    }

    fn keeps(&self) -> Keeps {
        Keeps::Entries
    }

    fn entry_shapes(&self) -> Vec<EntryShape> {
        self.shapes()
    }

    fn entries(&mut self, all: bool) -> Result<Vec<Entries>, OperatorError> {
        self.save(all)
    }

    fn load(&mut self, _cx: &mut StepCx<'_>, saved: &mut [Vec<Delta>]) -> Result<(), OperatorError> {
        self.load_entries(saved)
    }
}

impl Aggregate {
    /// Makes the one group of an aggregate without keys.
    fn start(&mut self) -> Result<(), OperatorError> {
        self.started = true;
        let (mut ids, mut new) = (Vec::new(), false);
        self.keys.intern(&[], 1, &mut ids, |_| new = true)?;
        self.groups.grow(self.keys.capacity());
        self.calls.grow(1);
        let mark = self.groups.touched[ids[0] as usize];
        if mark != self.steps {
            self.touch(ids[0], mark);
        }
        Ok(())
    }
}

/// Which of the first `both` new rows equal the old rows at `places`.
fn same_rows(old: &[ArrayRef], places: &[u32], new: &[ArrayRef], both: usize) -> Result<Vec<bool>, OperatorError> {
    let mut same = vec![true; both];
    if both == 0 {
        return Ok(same);
    }
    let places = UInt32Array::from(places.to_vec());
    for (old, new) in old.iter().zip(new) {
        let old = take(old, &places, None)?;
        let equal = equal_values(&old, &new.slice(0, both))?;
        same.iter_mut().enumerate().for_each(|(i, s)| *s &= equal.value(i));
    }
    Ok(same)
}

fn equal_values(a: &ArrayRef, b: &ArrayRef) -> Result<BooleanArray, ArrowError> {
    if a.data_type().is_nested() {
        let rows = |array: &ArrayRef| {
            let converter = arrow::row::RowConverter::new(vec![arrow::row::SortField::new(array.data_type().clone())])?;
            converter.convert_columns(std::slice::from_ref(array))
        };
        let (a, b) = (rows(a)?, rows(b)?);
        return Ok((0..a.num_rows()).map(|i| Some(a.row(i) == b.row(i))).collect());
    }
    not_distinct(a, b)
}

/// A timestamp or date column in microseconds.
pub(crate) fn micros(times: &ArrayRef) -> Result<Int64Array, ArrowError> {
    let micros = match times.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => times.clone(),
        DataType::Int64 => return Ok(times.as_primitive::<Int64Type>().clone()),
        _ => cast(times, &DataType::Timestamp(TimeUnit::Microsecond, None))?,
    };
    Ok(micros.as_primitive::<arrow::datatypes::TimestampMicrosecondType>().reinterpret_cast::<Int64Type>())
}

/// Columns by their numbers, as an aggregate's arguments.
pub(crate) fn args_type(args: &[usize], input: &SchemaRef) -> Option<DataType> {
    args.first().map(|a| input.field(*a).data_type().clone())
}

/// A shared array.
pub(crate) fn shared(array: impl Array + 'static) -> ArrayRef {
    Arc::new(array)
}
