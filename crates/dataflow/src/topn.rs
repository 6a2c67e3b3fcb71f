//! The first rows of each partition.
//!
//! Input: one, any changes. Rule: a partition's rows stand in the order given, rows that compare equal there in
//! the order of their columns' values (NULLs first); a row of multiplicity n takes n places. Places
//! `offset..offset + limit` are the answer, with the place as a number if asked for. With ties, rows that compare equal
//! have one rank, the place of the first of them, and the answer is the rows of a rank up to `limit`. An epoch gives the net change
//! of the answers of the partitions it touched, in the order in which they were touched.
//!
//! State: each partition's rows in order; of an append-only input only those up to the last place
//! asked for. Released when rows are taken back or pushed out, and for a whole partition once the
//! watermark says that it is final.

mod window;

use std::collections::BTreeSet;

use arrow::array::{Array, ArrayRef, Int64Array, UInt64Array};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use tidemill_delta::{Delta, Micros, batch, relaxed};
use tidemill_plan::{Bound, TopNPlan};
use tidemill_state::KeyTable;

use crate::event_time::{raw_times, to_micros, unit_of};
use crate::kept_rows::KeptRows;
use crate::ordered_rows::{Comparison, Entry, OrderedRows};
use crate::row_order::RowOrder;
use crate::saved::{all_fitting, wrong};
use crate::{Keeps, Operator, OperatorError, StateSize, StepCx};
use window::{Change, Changes, Visible};

/// See the module.
pub struct TopN {
    partition: Vec<usize>,
    /// The places asked for.
    places: std::ops::Range<i64>,
    /// Whether rows that compare equal stand or fall together.
    ties: bool,
    number: Option<DataType>,
    append_only: bool,
    closes: Option<(Bound, TimeUnit)>,
    order: RowOrder,
    input_schema: SchemaRef,
    schema: SchemaRef,
    keys: KeyTable,
    rows: KeptRows,
    partitions: Vec<Partition>,
    /// When partitions are final.
    closing: BTreeSet<(Micros, u32)>,
    epoch: EpochWork,
}

struct Partition {
    rows: OrderedRows,
    /// The value that says when the partition is final.
    closes: Option<Micros>,
    /// Whether the epoch has touched it.
    touched: bool,
}

/// What an epoch needs while it is worked on; kept to reuse its memory.
#[derive(Default)]
struct EpochWork {
    touched: Vec<Touched>,
    /// The answers before the epoch of all touched partitions.
    before: Vec<Visible>,
    after: Vec<Visible>,
    /// Rows to release at the end of the epoch: until then old answers refer to them.
    dead: Vec<u32>,
    changes: Changes,
    /// Bytes of all partitions' orders but the touched ones: to add them up would take longer the more there are.
    ordered: usize,
}

/// A touched partition and where its old answer is in [`EpochWork::before`].
struct Touched {
    partition: u32,
    before: std::ops::Range<usize>,
}

impl TopN {
    /// An operator without rows.
    pub fn new(plan: &TopNPlan, input_schemas: &[SchemaRef], output_schema: SchemaRef) -> Result<Self, OperatorError> {
        let input_schema = relaxed(&input_schemas[0]);
        let types = plan.partition.iter().map(|c| input_schema.field(*c).data_type().clone()).collect();
        let closes =
            plan.closes.map(|bound| unit_of(input_schema.field(bound.column).data_type()).map(|unit| (bound, unit)));
        let place = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        Ok(TopN {
            partition: plan.partition.clone(),
            places: place(plan.offset)..place(plan.offset.saturating_add(plan.limit)),
            ties: plan.ties,
            number: number_type(plan, &output_schema)?,
            append_only: plan.append_only,
            closes: closes.transpose()?,
            order: RowOrder::new(&input_schema, &plan.order)?,
            rows: KeptRows::new(input_schema.clone()),
            input_schema,
            schema: relaxed(&output_schema),
            keys: KeyTable::new(types)?,
            partitions: Vec::new(),
            closing: BTreeSet::new(),
            epoch: EpochWork::default(),
        })
    }

    /// Sorts the epoch's rows into their partitions.
    fn take_in(&mut self, delta: Delta) -> Result<(), OperatorError> {
        let partitions = self.intern(&delta)?;
        let prefixes = self.order.prefixes(&delta.rows)?;
        let weights = delta.diff.as_ref();
        assert!(!self.append_only || !delta.has_retractions(), "a row was taken back from an append-only input");
        let rows = self.rows.append(delta.rows);
        for (i, (prefix, row)) in prefixes.into_iter().zip(rows).enumerate() {
            let weight = weights.map_or(1, |w| w.value(i));
            self.add(partitions[i], Entry { prefix, weight, row });
        }
        Ok(())
    }

    fn intern(&mut self, delta: &Delta) -> Result<Vec<u32>, OperatorError> {
        let columns: Vec<ArrayRef> = self.partition.iter().map(|c| delta.rows.column(*c).clone()).collect();
        let mut ids = Vec::with_capacity(delta.len());
        let mut added = Vec::new();
        self.keys.intern(&columns, delta.len(), &mut ids, |id| added.push(id))?;
        self.partitions.resize_with(self.keys.capacity(), || Partition {
            rows: OrderedRows::default(),
            closes: None,
            touched: false,
        });
        if !added.is_empty() && self.closes.is_some() {
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

    #[inline]
    fn add(&mut self, id: u32, entry: Entry) {
        let partition = &mut self.partitions[id as usize];
        let with = Comparison { order: &self.order, rows: &self.rows };
        // With ties, what is not needed shows only when all rows of the epoch are there.
        let forgets = self.append_only && !self.ties;
        let full = forgets && partition.rows.total() >= self.places.end;
        if full && partition.rows.last().is_none_or(|last| with.compare(last, &entry).is_lt()) {
            return self.epoch.dead.push(entry.row);
        }
        self.epoch.touch(id, partition, |rows, out| match self.ties {
            true => window::ranked(rows, self.places.end, with, out),
            false => window::visible(rows, &self.places, out),
        });
        if full {
            // First the room, then the row: a top 1 never holds two rows and so stays in place.
            forget_last(&mut partition.rows, self.places.end - entry.weight, &mut self.epoch.dead);
        }
        partition.rows.add(entry, with, &mut self.epoch.dead);
        if forgets {
            // A row of multiplicity n may push out several others.
            while forget_last(&mut partition.rows, self.places.end, &mut self.epoch.dead) {}
        }
    }

    /// The net change of the touched partitions' answers.
    fn changes(&mut self) -> Result<Option<Delta>, OperatorError> {
        let with = Comparison { order: &self.order, rows: &self.rows };
        let EpochWork { touched, before, after, changes, dead, .. } = &mut self.epoch;
        changes.clear();
        for Touched { partition, before: range } in touched.iter() {
            let rows = &mut self.partitions[*partition as usize].rows;
            assert!(!rows.is_broken(), "a row was taken back that was not there");
            after.clear();
            let before = &before[range.clone()];
            match (&self.number, self.ties) {
                (number, true) => {
                    window::ranked(rows, self.places.end, with, after);
                    let changed = if number.is_some() { window::reranked } else { window::unnumbered };
                    changed(before, after, with, changes);
                }
                (Some(_), false) => {
                    window::visible(rows, &self.places, after);
                    window::numbered(before, after, with, changes);
                }
                (None, false) => {
                    window::visible(rows, &self.places, after);
                    window::unnumbered(before, after, with, changes);
                }
            }
            if self.append_only && self.ties {
                rows.keep_first(after.len(), dead);
            }
        }
        if changes.is_empty() {
            return Ok(None);
        }
        let rows: Vec<u32> = changes.iter().map(|c| c.row).collect();
        let mut columns = self.rows.gather(&rows)?.columns().to_vec();
        columns.extend(self.number.as_ref().map(|data_type| numbers(changes, data_type)));
        let weights = Int64Array::from_iter_values(changes.iter().map(|c| c.weight));
        Ok(Some(Delta::new(batch(self.schema.clone(), columns, rows.len()), weights)))
    }

    /// Releases what the epoch has pushed out, and partitions left empty.
    fn clean(&mut self) -> Result<(), OperatorError> {
        for Touched { partition: id, .. } in std::mem::take(&mut self.epoch.touched) {
            let partition = &mut self.partitions[id as usize];
            partition.touched = false;
            self.epoch.ordered += partition.rows.bytes();
            if partition.rows.is_empty() {
                if let Some(value) = partition.closes.take() {
                    self.closing.remove(&(value, id));
                }
                self.keys.release(id);
            }
        }
        self.epoch.before.clear();
        self.rows.release(&self.epoch.dead);
        self.epoch.dead.clear();
        Ok(self.rows.tidy()?)
    }

    fn end_epoch(&mut self, watermark: Micros) -> Result<(), OperatorError> {
        self.clean()?;
        self.close(watermark);
        if self.epoch.dead.is_empty() { Ok(()) } else { self.clean() }
    }

    /// Forgets the partitions that are final.
    fn close(&mut self, watermark: Micros) {
        let Some((bound, _)) = self.closes else { return };
        while let Some((value, id)) = self.closing.first().copied()
            && bound.is_final(value, watermark)
        {
            self.closing.pop_first();
            let partition = &mut self.partitions[id as usize];
            let rows = std::mem::take(&mut partition.rows);
            self.epoch.ordered -= rows.bytes();
            partition.closes = None;
            self.epoch.dead.extend(rows.iter().map(|entry| entry.row));
            self.keys.release(id);
        }
    }
}

impl EpochWork {
    /// Remembers the answer of a partition before it changes for the first time in the epoch.
    #[inline]
    fn touch(&mut self, id: u32, partition: &mut Partition, answer: impl FnOnce(&OrderedRows, &mut Vec<Visible>)) {
        if !std::mem::replace(&mut partition.touched, true) {
            self.ordered -= partition.rows.bytes();
            let start = self.before.len();
            answer(&partition.rows, &mut self.before);
            self.touched.push(Touched { partition: id, before: start..self.before.len() });
        }
    }
}

/// Drops the last entry if the others take all places up to `end`; whether it did.
#[inline]
fn forget_last(rows: &mut OrderedRows, end: i64, dead: &mut Vec<u32>) -> bool {
    let needless = rows.last().filter(|last| rows.total() - last.weight >= end).map(|last| last.row);
    dead.extend(needless);
    needless.is_some() && rows.pop().is_some()
}

fn number_type(plan: &TopNPlan, output: &SchemaRef) -> Result<Option<DataType>, OperatorError> {
    if !plan.number {
        return Ok(None);
    }
    match output.fields().last().map(|field| field.data_type().clone()) {
        Some(data_type @ (DataType::Int64 | DataType::UInt64)) => Ok(Some(data_type)),
        other => Err(OperatorError(format!("a row number must be an Int64 or UInt64, not {other:?}"))),
    }
}

fn numbers(changes: &[Change], data_type: &DataType) -> ArrayRef {
    let places = changes.iter().map(|c| c.number);
    match data_type {
        DataType::UInt64 => std::sync::Arc::new(UInt64Array::from_iter_values(places.map(|n| n as u64))),
        _ => std::sync::Arc::new(Int64Array::from_iter_values(places)),
    }
}

impl Operator for TopN {
    fn step(&mut self, cx: &mut StepCx<'_>, inputs: &mut [Vec<Delta>]) -> Result<Vec<Delta>, OperatorError> {
        let deltas: Vec<Delta> = inputs[0].drain(..).filter(|delta| !delta.is_empty()).collect();
        for delta in deltas {
            let columns = delta.rows.columns().to_vec();
            self.take_in(delta.with_columns(self.input_schema.clone(), columns))?;
        }
        let changes = self.changes()?;
        self.end_epoch(cx.watermark)?;
        Ok(changes.into_iter().collect())
    }

    fn keeps(&self) -> Keeps {
        Keeps::Rows
    }

    fn rows(&self) -> Result<Vec<Delta>, OperatorError> {
        Ok(vec![self.rows.weighted(self.partitions.iter().map(|partition| &partition.rows))?])
    }

    fn load(&mut self, cx: &mut StepCx<'_>, saved: &mut [Vec<Delta>]) -> Result<(), OperatorError> {
        let [saved] = saved else { return Err(wrong("the first rows are those of one input")) };
        for delta in all_fitting(&self.input_schema, saved)? {
            self.take_in(delta)?;
        }
        if self.partitions.iter().any(|partition| partition.rows.is_broken()) {
            return Err(wrong("a row is taken back that is not there"));
        }
        self.end_epoch(cx.watermark)
    }

    fn due(&self, watermark: Micros) -> bool {
        match (self.closes, self.closing.first()) {
            (Some((bound, _)), Some((value, _))) => bound.is_final(*value, watermark),
            _ => false,
        }
    }

    fn state(&self) -> StateSize {
        let fixed = self.partitions.capacity() * size_of::<Partition>() + self.closing.len() * 32;
        StateSize { rows: self.rows.len(), bytes: self.rows.bytes() + self.keys.bytes() + self.epoch.ordered + fixed }
    }
}
