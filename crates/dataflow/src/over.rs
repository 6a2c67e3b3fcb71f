//! Window functions: `OVER (PARTITION BY ... ORDER BY ...)`.
//!
//! Input: one, any changes. Rule: a partition's rows stand in the order given, rows that compare equal there
//! (peers) in the order of their columns' values (NULLs first), so that the order is total; a row of
//! multiplicity n takes n places. Each row comes out with its calls' values. An epoch's changes say which rows'
//! values may change: those from which a changed row can be seen (through a frame of some rows, of
//! some distance, or up to the partition's start or end). These, and the rows that they look at, are put
//! together as they were and as they are; both are evaluated, for all partitions at once, and the difference
//! comes out. So no answer is kept.
//!
//! State: each partition's rows in order, and for running frames in long partitions what is in them every so many
//! rows ([`anchors`]). Released when rows are taken back, for a whole partition once the watermark says that it is
//! final, and row by row where the order is that of time and frames are bounded: once a row is final and no frame
//! can reach it.
//!
//! Errors: a value that cannot be computed is NULL, and the row is reported for as long as that is so.

mod anchors;
mod difference;
mod eviction;
mod frames;
mod functions;
mod merged;
mod number;
mod reach;
mod sliding;

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, ArrayRef, Int64Array, UInt32Array};
use arrow::compute::{concat, take};
use arrow::datatypes::{SchemaRef, TimeUnit};
use arrow::row::{RowConverter, SortField};
use tidemill_delta::{Delta, Micros, batch, relaxed};
use tidemill_plan::{Bound, OverPlan};
use tidemill_state::KeyTable;

use self::anchors::{Anchor, Carry, Cut, can_anchor, cuts, drop_from};
use self::difference::{Change, difference};
use self::eviction::Eviction;
use self::frames::Given;
use self::functions::{Input, needs_distances, needs_peers};
use self::merged::{Merged, MergedRows, Sequence};
use self::reach::Reach;
use crate::event_time::{raw_times, to_micros, unit_of};
use crate::kept_rows::KeptRows;
use crate::map::row_text;
use crate::ordered_rows::{Comparison, Entry, OrderedRows};
use crate::row_order::RowOrder;
use crate::saved::{all_fitting, wrong};
use crate::{Keeps, Operator, OperatorError, RowError, StateSize, StepCx};

/// See the module.
pub struct Over {
    plan: OverPlan,
    closes: Option<(Bound, TimeUnit)>,
    evicts: Option<Eviction>,
    order: RowOrder,
    reach: Reach,
    /// Whether anchors save adding up from a partition's start.
    anchored: bool,
    /// The input columns that the calls look at.
    columns: Vec<usize>,
    converter: RowConverter,
    input_schema: SchemaRef,
    schema: SchemaRef,
    keys: KeyTable,
    rows: KeptRows,
    partitions: Vec<Partition>,
    /// Bytes of all partitions' orders but the touched ones: to add them up would take longer the more there are.
    ordered: usize,
    /// The values that must be final before partitions or some of their rows can go.
    closing: BTreeSet<(Micros, u32)>,
    /// The partitions that the epoch touches, in the order of their first rows.
    touched: Vec<u32>,
    /// The epoch's rows, each with its partition's place in `touched`.
    arrived: Vec<(u32, Entry)>,
    /// Rows to release at the end of the epoch: until then the rows as they were refer to them.
    dead: Vec<u32>,
    merged: MergedRows,
}

#[derive(Default)]
struct Partition {
    rows: OrderedRows,
    /// In the rows' order.
    anchors: Vec<Anchor>,
    /// Its place among those that the epoch touches.
    touched: Option<u32>,
    /// The value under which it is in `closing`.
    closes: Option<Micros>,
}

/// The calls' values for the rows asked for, before or after the epoch.
struct Values {
    columns: Vec<ArrayRef>,
    failed: Vec<(usize, String)>,
    /// By call and cut.
    carries: Vec<Vec<Carry>>,
}

/// An epoch's changes, and the anchors to set in partitions.
type Changed = (Option<Delta>, Vec<(u32, Anchor)>);

impl Over {
    /// An operator without rows, for input rows of shape `input`.
    pub fn new(plan: &OverPlan, input: &SchemaRef, output_schema: SchemaRef) -> Result<Self, OperatorError> {
        let input_schema = relaxed(input);
        let type_of = |column: usize| input_schema.field(column).data_type();
        let closes = plan.closes.map(|bound| unit_of(type_of(bound.column)).map(|unit| (bound, unit)));
        if let Some(call) = plan.calls.iter().find(|call| needs_distances(call)) {
            match plan.order.as_slice() {
                [by] => number::check(type_of(by.column))?,
                _ => return Err(OperatorError(format!("{} needs one order column", call.label))),
            }
        }
        let mut columns: Vec<usize> = plan.calls.iter().flat_map(|c| c.arg.into_iter().chain(c.filter)).collect();
        if plan.calls.iter().any(needs_peers) {
            columns.extend(plan.order.iter().map(|by| by.column));
        }
        columns.sort_unstable();
        columns.dedup();
        let reach = Reach::of(&plan.calls, &plan.order);
        let evicts = plan.evicts.map(|bound| {
            let (rows, span) = reach.back_to();
            unit_of(type_of(bound.column)).map(|unit| Eviction { bound, unit, rows, span })
        });
        let values = plan.calls.iter().map(|call| SortField::new(call.data_type.clone())).collect();
        Ok(Over {
            closes: closes.transpose()?,
            evicts: evicts.transpose()?,
            order: RowOrder::new(&input_schema, &plan.order)?,
            anchored: can_anchor(&plan.calls) && plan.evicts.is_none(),
            reach,
            columns,
            converter: RowConverter::new(values)?,
            keys: KeyTable::new(plan.partition.iter().map(|c| type_of(*c).clone()).collect())?,
            rows: KeptRows::new(input_schema.clone()),
            plan: plan.clone(),
            input_schema,
            schema: relaxed(&output_schema),
            partitions: Vec::new(),
            ordered: 0,
            closing: BTreeSet::new(),
            touched: Vec::new(),
            arrived: Vec::new(),
            dead: Vec::new(),
            merged: MergedRows::default(),
        })
    }

    /// Sorts the epoch's rows into their partitions.
    fn take_in(&mut self, delta: Delta) -> Result<(), OperatorError> {
        let partitions = self.intern(&delta)?;
        let prefixes = self.order.prefixes(&delta.rows)?;
        let weights = delta.diff.as_ref();
        let rows = self.rows.append(delta.rows);
        for (i, (prefix, row)) in prefixes.into_iter().zip(rows).enumerate() {
            let Partition { touched, rows, .. } = &mut self.partitions[partitions[i] as usize];
            let place = *touched.get_or_insert_with(|| {
                self.ordered -= rows.bytes();
                self.touched.push(partitions[i]);
                self.touched.len() as u32 - 1
            });
            self.arrived.push((place, Entry { prefix, weight: weights.map_or(1, |w| w.value(i)), row }));
        }
        Ok(())
    }

    fn intern(&mut self, delta: &Delta) -> Result<Vec<u32>, OperatorError> {
        let columns: Vec<ArrayRef> = self.plan.partition.iter().map(|c| delta.rows.column(*c).clone()).collect();
        let (mut ids, mut added) = (Vec::with_capacity(delta.len()), Vec::new());
        self.keys.intern(&columns, delta.len(), &mut ids, |id| added.push(id))?;
        self.partitions.resize_with(self.keys.capacity(), Partition::default);
        if !added.is_empty() {
            self.schedule(delta, &ids, &added)?;
        }
        Ok(ids)
    }

    /// Notes when new partitions will be final.
    fn schedule(&mut self, delta: &Delta, ids: &[u32], added: &[u32]) -> Result<(), OperatorError> {
        let Some((bound, unit)) = self.closes else { return Ok(()) };
        let column = delta.rows.column(bound.column);
        let times = raw_times(column)?;
        let mut new = added.iter().peekable();
        for (i, id) in ids.iter().enumerate() {
            // New partitions are reported in the order of their first rows.
            if new.next_if_eq(&id).is_some() && column.is_valid(i) {
                let value = to_micros(times[i], unit);
                self.partitions[*id as usize].closes = Some(value);
                self.closing.insert((value, *id));
            }
        }
        Ok(())
    }

    /// Lists the rows of the touched partitions that matter, and brings the partitions up to date.
    fn merge(&mut self) {
        let with = Comparison { order: &self.order, rows: &self.rows };
        net(&mut self.arrived, with, &mut self.dead);
        self.merged.clear();
        let mut stretches = Vec::new();
        for changes in self.arrived.chunk_by(|a, b| a.0 == b.0) {
            let id = self.touched[changes[0].0 as usize];
            let Partition { rows, anchors, .. } = &mut self.partitions[id as usize];
            drop_from(anchors, &changes[0].1, with);
            self.reach.stretches(rows, anchors, changes, with, &mut stretches);
            for stretch in stretches.drain(..) {
                self.merged.add(id, rows, &stretch, changes, with);
                // Those in between are set again.
                anchors.truncate(anchors.partition_point(|anchor| rows.place_of(&anchor.entry, with) <= stretch.from));
            }
            for (_, change) in changes {
                rows.add(*change, with, &mut self.dead);
            }
            assert!(!rows.is_broken(), "a row was taken back that was not there");
        }
        self.arrived.clear();
    }

    /// The difference that the epoch makes.
    fn changes(&self, errors: &mut Vec<RowError>) -> Result<Changed, OperatorError> {
        let rows: Vec<u32> = self.merged.rows.iter().map(|merged| merged.row).collect();
        let columns = self.rows.gather_columns(&rows, &self.columns)?;
        let peers = match self.plan.calls.iter().any(needs_peers) {
            true => Some(self.merged.peer_numbers(&self.order_columns(&columns))?),
            false => None,
        };
        let (old, new) = (self.merged.sequence(|row| row.old), self.merged.sequence(|row| row.new));
        let cuts = if self.anchored { cuts(&self.merged, &new, peers.as_deref()) } else { Vec::new() };
        let before = self.values(&old, peers.as_deref(), &columns, &[])?;
        let after = self.values(&new, peers.as_deref(), &columns, &cuts)?;
        self.report(&before, &after, errors)?;
        let changes = difference(&self.merged, &self.converter, &before.columns, &after.columns)?;
        let out = if changes.is_empty() { None } else { Some(self.output(&changes, &before, &after)?) };
        Ok((out, self.new_anchors(&new, &cuts, &after.carries)?))
    }

    /// The anchors at the cuts, each with its partition.
    fn new_anchors(
        &self,
        new: &Sequence,
        cuts: &[Cut],
        carries: &[Vec<Carry>],
    ) -> Result<Vec<(u32, Anchor)>, OperatorError> {
        let rows: Vec<u32> = cuts.iter().map(|cut| self.merged.rows[new.merged[cut.place] as usize].row).collect();
        let prefixes = self.order.prefixes(&self.rows.gather(&rows)?)?;
        let anchor = |(number, (row, prefix)): (usize, (u32, u128))| {
            let entry = Entry { prefix, weight: 0, row };
            let carries = carries.iter().map(|of_call| of_call[number].clone()).collect();
            (self.merged.partition_of(cuts[number].span), Anchor { entry, carries })
        };
        Ok(rows.into_iter().zip(prefixes).enumerate().map(anchor).collect())
    }

    /// The columns of the ORDER BY among those gathered.
    fn order_columns(&self, gathered: &[ArrayRef]) -> Vec<ArrayRef> {
        let column = |column: usize| self.gathered(gathered, column).cloned();
        self.plan.order.iter().filter_map(|by| column(by.column)).collect()
    }

    fn gathered<'a>(&self, gathered: &'a [ArrayRef], column: usize) -> Option<&'a ArrayRef> {
        self.columns.binary_search(&column).ok().map(|at| &gathered[at])
    }

    fn values(
        &self,
        sequence: &Sequence,
        peers: Option<&[u32]>,
        gathered: &[ArrayRef],
        cuts: &[Cut],
    ) -> Result<Values, OperatorError> {
        let peers = peers.map(|numbers| sequence.peers(numbers));
        let by = self.plan.order.first();
        let order = by.and_then(|by| Some((self.gathered(gathered, by.column)?, by.options.descending)));
        let mut values = Values { columns: Vec::new(), failed: Vec::new(), carries: Vec::new() };
        for (number, call) in self.plan.calls.iter().enumerate() {
            let column = |column: Option<usize>| column.and_then(|c| self.gathered(gathered, c));
            let given = Given { sequence, peers: peers.as_ref(), order };
            let input = Input { given, number, cuts, arg: column(call.arg), filter: column(call.filter) };
            let answer = input.values(call)?;
            values.columns.push(answer.values);
            values.failed.extend(answer.failed.into_iter().map(|(row, why)| (row, format!("{}: {why}", call.label))));
            values.carries.push(answer.carries);
        }
        Ok(values)
    }

    /// Reports rows that have lost or got a value that cannot be computed.
    fn report(&self, before: &Values, after: &Values, errors: &mut Vec<RowError>) -> Result<(), OperatorError> {
        if before.failed.is_empty() && after.failed.is_empty() {
            return Ok(());
        }
        let mut net: BTreeMap<(u32, &str), i64> = BTreeMap::new();
        let copies = |count: fn(&Merged) -> i64| -> Vec<u32> {
            self.merged.zones().flat_map(|row| std::iter::repeat_n(row.row, count(row) as usize)).collect()
        };
        for (values, rows, weight) in [(before, copies(|row| row.old), -1), (after, copies(|row| row.new), 1)] {
            for (row, message) in &values.failed {
                *net.entry((rows[*row], message)).or_default() += weight;
            }
        }
        for ((row, message), weight) in net.into_iter().filter(|(_, weight)| *weight != 0) {
            let row = row_text(&self.rows.gather(&[row])?, 0);
            errors.push(RowError { message: message.to_owned(), row, weight });
        }
        Ok(())
    }

    fn output(&self, changes: &[Change], before: &Values, after: &Values) -> Result<Delta, OperatorError> {
        let rows: Vec<u32> = changes.iter().map(|change| change.row).collect();
        let mut columns = self.rows.gather(&rows)?.columns().to_vec();
        for (old, new) in before.columns.iter().zip(&after.columns) {
            let place = |change: &Change| change.values + if change.new { old.len() } else { 0 };
            let places = UInt32Array::from_iter_values(changes.iter().map(|change| place(change) as u32));
            columns.push(take(&concat(&[old, new])?, &places, None)?);
        }
        let weights = Int64Array::from_iter_values(changes.iter().map(|change| change.weight));
        Ok(Delta::new(batch(self.schema.clone(), columns, changes.len()), weights))
    }

    /// Forgets rows that no frame can reach, and notes when to look again.
    fn evict(&mut self, id: u32, watermark: Micros) {
        let Some(evicts) = &self.evicts else { return };
        let partition = &mut self.partitions[id as usize];
        partition.rows.remove_before(evicts.first_kept(&partition.rows, watermark), &mut self.dead);
        if let Some(value) = partition.closes.take() {
            self.closing.remove(&(value, id));
        }
        let last = evicts.last_value(&partition.rows).filter(|value| !evicts.bound.is_final(*value, watermark));
        if let Some(value) = last {
            partition.closes = Some(value);
            self.closing.insert((value, id));
        }
    }

    /// Releases what the epoch has taken back, and partitions left empty.
    fn clean(&mut self, watermark: Micros) -> Result<(), OperatorError> {
        for id in std::mem::take(&mut self.touched) {
            self.partitions[id as usize].touched = None;
            self.evict(id, watermark);
            self.ordered += self.partitions[id as usize].rows.bytes();
            self.release_if_empty(id);
        }
        self.close(watermark);
        self.rows.release(&self.dead);
        self.dead.clear();
        Ok(self.rows.tidy()?)
    }

    fn release_if_empty(&mut self, id: u32) {
        let partition = &mut self.partitions[id as usize];
        if partition.rows.is_empty() {
            if let Some(value) = partition.closes.take() {
                self.closing.remove(&(value, id));
            }
            self.keys.release(id);
        }
    }

    /// Forgets the partitions that are final, or what of them has got out of reach.
    fn close(&mut self, watermark: Micros) {
        while self.due(watermark)
            && let Some((_, id)) = self.closing.pop_first()
        {
            let partition = &mut self.partitions[id as usize];
            partition.closes = None;
            self.ordered -= partition.rows.bytes();
            if self.closes.is_some() {
                let Partition { rows, .. } = std::mem::take(partition);
                self.dead.extend(rows.iter().map(|entry| entry.row));
            } else {
                self.evict(id, watermark);
            }
            self.ordered += self.partitions[id as usize].rows.bytes();
            self.release_if_empty(id);
        }
    }
}

/// Sorts changes by partition and order, and adds up those of one row; rows that are not needed go to `dead`.
fn net(changes: &mut Vec<(u32, Entry)>, with: Comparison<'_>, dead: &mut Vec<u32>) {
    let compare = |a: &(u32, Entry), b: &(u32, Entry)| a.0.cmp(&b.0).then_with(|| with.compare(&a.1, &b.1));
    changes.sort_by(compare);
    changes.dedup_by(|next, first| {
        let same = compare(next, first).is_eq();
        if same {
            first.1.weight += next.1.weight;
            dead.push(next.1.row);
        }
        same
    });
    changes.retain(|(_, change)| {
        if change.weight == 0 {
            dead.push(change.row);
        }
        change.weight != 0
    });
}

impl Operator for Over {
    fn step(&mut self, cx: &mut StepCx<'_>, inputs: &mut [Vec<Delta>]) -> Result<Vec<Delta>, OperatorError> {
        let deltas: Vec<Delta> = inputs[0].drain(..).filter(|delta| !delta.is_empty()).collect();
        for delta in deltas {
            let columns = delta.rows.columns().to_vec();
            self.take_in(delta.with_columns(self.input_schema.clone(), columns))?;
        }
        self.merge();
        let (changes, anchors) =
            if self.merged.rows.is_empty() { Changed::default() } else { self.changes(cx.errors)? };
        anchors.into_iter().for_each(|(id, anchor)| self.partitions[id as usize].anchors.push(anchor));
        self.clean(cx.watermark)?;
        Ok(changes.into_iter().collect())
    }

    fn keeps(&self) -> Keeps {
        Keeps::Rows
    }

    fn rows(&self) -> Result<Vec<Delta>, OperatorError> {
        Ok(vec![self.rows.weighted(self.partitions.iter().map(|partition| &partition.rows))?])
    }

    /// Puts the rows into their partitions; their values follow from them when they are asked for.
    fn load(&mut self, cx: &mut StepCx<'_>, saved: &mut [Vec<Delta>]) -> Result<(), OperatorError> {
        let [saved] = saved else { return Err(wrong("window functions have one input")) };
        for delta in all_fitting(&self.input_schema, saved)? {
            self.take_in(delta)?;
        }
        let with = Comparison { order: &self.order, rows: &self.rows };
        net(&mut self.arrived, with, &mut self.dead);
        for (place, row) in self.arrived.drain(..) {
            let rows = &mut self.partitions[self.touched[place as usize] as usize].rows;
            rows.add(row, with, &mut self.dead);
            if rows.is_broken() {
                return Err(wrong("a row is taken back that is not there"));
            }
        }
        self.clean(cx.watermark)
    }

    fn due(&self, watermark: Micros) -> bool {
        let bound = self.closes.map(|(bound, _)| bound).or(self.evicts.as_ref().map(|evicts| evicts.bound));
        let value = self.closing.first().map(|(value, _)| *value);
        bound.zip(value).is_some_and(|(bound, value)| bound.is_final(value, watermark))
    }

    fn state(&self) -> StateSize {
        let fixed = self.partitions.capacity() * size_of::<Partition>() + self.closing.len() * 32;
        StateSize { rows: self.rows.len(), bytes: self.rows.bytes() + self.keys.bytes() + self.ordered + fixed }
    }
}
