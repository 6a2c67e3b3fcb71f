//! Each left row beside the right row that is next to it in time (`ASOF JOIN`, temporal join).
//!
//! - Input: left and right, both routed by key, any changes. Output: left columns, then right columns.
//! - Rule: a left row's match is, among the right rows with its key, the one with the greatest time at (or
//!   strictly) before its own; with `after`, the one with the least time at or after it. Of right rows with
//!   equal times it is the one that is greatest when the columns are compared from the first to the last,
//!   NULLs least. A change on the right concerns the left rows from its time up to the next right row's:
//!   their old match is taken back and the new one comes. A row in which the time or a key is NULL has no match.
//! - State: both sides' rows in the order of key and time.
//! - Released: when a row is taken back. With `evict`, where nothing is taken back, also left rows once the
//!   watermark rules out that their match changes, and right rows that a later one has replaced by then. That is
//!   looked for whenever the state has doubled, so that it costs a fixed amount per row.

use std::collections::BTreeMap;
use std::ops::Bound;

use arrow::array::{Array, ArrayRef, Int64Array, UInt32Array};
use arrow::compute::{SortOptions, take};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use tidemill_delta::{Delta, Micros, batch, consolidate, relaxed, zero_nulls};
use tidemill_plan::AsOfPlan;

use crate::saved::{all_fitting, wrong};
use crate::{Keeps, Operator, OperatorError, StateSize, StepCx};

/// How many rows there may be before final ones are looked for.
const SWEEP: usize = 1024;

/// The operator; see the module.
pub struct AsOf {
    plan: AsOfPlan,
    schema: SchemaRef,
    sides: [Side; 2],
    /// The number of rows at which final ones are looked for again.
    sweep_at: usize,
}

/// A row in bytes that compare like key, time and content, in this order.
type Entry = Box<[u8]>;

/// What is known of an entry beside its bytes.
#[derive(Clone, Copy)]
struct Kept {
    weight: i64,
    /// Where the content begins.
    content: u32,
}

/// One side's rows.
struct Side {
    schema: SchemaRef,
    keys: Vec<usize>,
    time: usize,
    /// Bytes of a time.
    time_width: usize,
    places: RowConverter,
    contents: RowConverter,
    rows: BTreeMap<Entry, Kept>,
}

/// One epoch's rows of a side, each once.
#[derive(Default)]
struct Arrived {
    rows: BTreeMap<Entry, Kept>,
    /// The contents of rows that have no match, with their weights.
    alone: Vec<(Entry, i64)>,
}

/// Rows to give: the contents of the left and of the right row.
type Pairs = Vec<(Entry, Option<Entry>, i64)>;

impl Side {
    fn new(schema: &SchemaRef, keys: &[usize], time: usize, descending: bool) -> Result<Self, OperatorError> {
        let schema = relaxed(schema);
        let options = SortOptions { descending, nulls_first: true };
        let Some(width) = schema.field(time).data_type().primitive_width() else {
            return Err(OperatorError(format!("{} is no time", schema.field(time).data_type())));
        };
        let field = |c: &usize| SortField::new(schema.field(*c).data_type().clone());
        let mut places: Vec<_> = keys.iter().map(field).collect();
        places.push(SortField::new_with_options(schema.field(time).data_type().clone(), options));
        let contents = (0..schema.fields().len()).map(|c| field(&c)).collect();
        Ok(Side {
            keys: keys.to_vec(),
            time,
            time_width: width + 1,
            places: RowConverter::new(places)?,
            contents: RowConverter::new(contents)?,
            rows: BTreeMap::new(),
            schema,
        })
    }

    /// The epoch's rows as entries.
    fn arrive(&self, deltas: &[Delta]) -> Result<Arrived, OperatorError> {
        let all = Delta::concat(&self.schema, deltas)?;
        let mut arrived = Arrived::default();
        if all.is_empty() {
            return Ok(arrived);
        }
        let columns: Vec<ArrayRef> =
            self.keys.iter().chain([&self.time]).map(|c| all.rows.column(*c).clone()).collect();
        let nulls: Vec<_> = columns.iter().filter_map(|c| c.logical_nulls()).collect();
        let (places, contents) =
            (self.places.convert_columns(&columns)?, self.contents.convert_columns(all.rows.columns())?);
        for i in 0..all.len() {
            let (place, content) = (places.row(i), contents.row(i));
            if nulls.iter().any(|n| n.is_null(i)) {
                arrived.alone.push((content.as_ref().into(), all.weight(i)));
                continue;
            }
            let content_at = u32::try_from(place.as_ref().len())
                .map_err(|_| OperatorError("the key of a row is longer than 4 GiB".into()))?;
            let entry: Entry = [place.as_ref(), content.as_ref()].concat().into();
            let kept = arrived.rows.entry(entry).or_insert(Kept { weight: 0, content: content_at });
            kept.weight += all.weight(i);
        }
        arrived.rows.retain(|_, kept| kept.weight != 0);
        Ok(arrived)
    }

    fn apply(&mut self, entry: Entry, change: Kept) {
        match self.rows.entry(entry) {
            std::collections::btree_map::Entry::Vacant(vacant) => {
                debug_assert!(change.weight > 0, "a row is taken back that is not there");
                vacant.insert(change);
            }
            std::collections::btree_map::Entry::Occupied(mut known) => {
                known.get_mut().weight += change.weight;
                if known.get().weight == 0 {
                    known.remove();
                }
            }
        }
    }

    fn key<'a>(&self, place: &'a [u8]) -> &'a [u8] {
        &place[..place.len() - self.time_width]
    }

    fn bytes(&self) -> usize {
        let each = self.rows.first_key_value().map_or(0, |(entry, _)| entry.len() + size_of::<(Entry, Kept)>());
        self.rows.len() * each
    }

    /// The columns of rows given by their contents.
    fn columns<'a>(&self, contents: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>, OperatorError> {
        let parser = self.contents.parser();
        let rows: Vec<_> = contents.map(|content| parser.parse(content)).collect();
        Ok(self.contents.convert_rows(rows)?)
    }
}

/// The least bytes that are greater than all that begin with these; none if there are none.
fn after_all(prefix: &[u8]) -> Option<Entry> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut next = prefix[..=last].to_vec();
    next[last] += 1;
    Some(next.into())
}

fn below(end: Option<&[u8]>) -> Bound<&[u8]> {
    end.map_or(Bound::Unbounded, Bound::Excluded)
}

impl AsOf {
    /// The operator of a plan, for inputs of the shapes given.
    pub fn new(plan: &AsOfPlan, inputs: [&SchemaRef; 2], schema: SchemaRef) -> Result<Self, OperatorError> {
        let left = Side::new(inputs[0], &plan.left_keys, plan.left_time, plan.after)?;
        let right = Side::new(inputs[1], &plan.right_keys, plan.right_time, plan.after)?;
        Ok(AsOf { plan: plan.clone(), schema, sides: [left, right], sweep_at: SWEEP })
    }

    /// The right row's content for a left row at a place.
    fn matching(&self, place: &[u8]) -> Option<Entry> {
        let right = &self.sides[1];
        let all = if self.plan.inclusive { after_all(place) } else { None };
        let end = match (self.plan.inclusive, &all) {
            (true, end) => below(end.as_deref()),
            (false, _) => Bound::Excluded(place),
        };
        let key = right.key(place);
        let (entry, kept) = right.rows.range::<[u8], _>((Bound::Included(key), end)).next_back()?;
        entry.starts_with(key).then(|| entry[kept.content as usize..].into())
    }

    /// The stored left rows whose match a right row at this place may be, with the match that they have.
    fn concerned(&self, place: &[u8], found: &mut BTreeMap<Entry, (Kept, Option<Entry>)>) {
        let (left, right) = (&self.sides[0], &self.sides[1]);
        let beyond = after_all(place);
        let next = right
            .rows
            .range::<[u8], _>((beyond.as_deref().map_or(Bound::Unbounded, Bound::Included), Bound::Unbounded));
        let key = right.key(place);
        let next = next.map(|(entry, kept)| &entry[..kept.content as usize]).next();
        let next = next.filter(|next| beyond.is_some() && next.starts_with(key));
        let (start, end) = match self.plan.inclusive {
            true => (Some(place.into()), next.map(Entry::from)),
            false => (beyond, next.and_then(after_all)),
        };
        let Some(start) = start else { return };
        let end = if next.is_none() { after_all(key) } else { end };
        if end.as_ref().is_some_and(|end| *end <= start) {
            return;
        }
        for (entry, kept) in left.rows.range::<[u8], _>((Bound::Included(&*start), below(end.as_deref()))) {
            if !found.contains_key(entry) {
                let old = self.matching(&entry[..kept.content as usize]);
                found.insert(entry.clone(), (*kept, old));
            }
        }
    }

    fn pair(&self, entry: &[u8], kept: Kept, right: Option<Entry>, weight: i64, out: &mut Pairs) {
        if right.is_some() || self.plan.outer {
            out.push((entry[kept.content as usize..].into(), right, weight));
        }
    }

    /// Stores left rows of one sign and pairs them with the right rows as they are.
    fn take_left(&mut self, rows: &BTreeMap<Entry, Kept>, come: bool, out: &mut Pairs) {
        for (entry, kept) in rows.iter().filter(|(_, kept)| (kept.weight > 0) == come) {
            let right = self.matching(&entry[..kept.content as usize]);
            self.pair(entry, *kept, right, kept.weight, out);
            self.sides[0].apply(entry.clone(), *kept);
        }
    }

    /// Stores the right rows and corrects the matches of the left rows that are there.
    fn take_right(&mut self, rows: BTreeMap<Entry, Kept>, out: &mut Pairs) {
        let mut concerned = BTreeMap::new();
        for (entry, kept) in &rows {
            self.concerned(&entry[..kept.content as usize], &mut concerned);
        }
        for (entry, kept) in rows {
            self.sides[1].apply(entry, kept);
        }
        for (entry, (kept, old)) in concerned {
            let new = self.matching(&entry[..kept.content as usize]);
            if old != new {
                self.pair(&entry, kept, old, -kept.weight, out);
                self.pair(&entry, kept, new, kept.weight, out);
            }
        }
    }

    fn output(&self, pairs: &Pairs) -> Result<Vec<Delta>, OperatorError> {
        if pairs.is_empty() {
            return Ok(Vec::new());
        }
        let mut columns = self.sides[0].columns(pairs.iter().map(|(left, ..)| &**left))?;
        let found = self.sides[1].columns(pairs.iter().filter_map(|(_, right, _)| right.as_deref()))?;
        let mut at = 0;
        let places: UInt32Array = pairs
            .iter()
            .map(|(_, right, _)| {
                right.as_ref().map(|_| {
                    at += 1;
                    at - 1
                })
            })
            .collect();
        for column in found {
            columns.push(take(&column, &places, None)?);
        }
        let rows = batch(self.schema.clone(), columns, pairs.len());
        let diff = Int64Array::from_iter_values(pairs.iter().map(|(.., weight)| *weight));
        let net = consolidate(&self.schema, &[Delta::new(rows, diff)])?;
        Ok(if net.is_empty() { Vec::new() } else { vec![net] })
    }

    /// Forgets what the watermark has made final, if the state has grown.
    fn sweep(&mut self, watermark: Micros) {
        let Some(offset) = self.plan.evict else { return };
        let [left, right] = &mut self.sides;
        if left.rows.len() + right.rows.len() < self.sweep_at {
            return;
        }
        let last = watermark.saturating_sub(offset);
        let width = left.time_width;
        let is_final =
            |entry: &[u8], kept: &Kept| micros(&entry[kept.content as usize - width..]).is_some_and(|t| t <= last);
        left.rows.retain(|entry, kept| !is_final(entry, kept));
        let mut replaced = Vec::new();
        for ((entry, kept), (next, next_kept)) in right.rows.iter().zip(right.rows.iter().skip(1)) {
            let key = &entry[..kept.content as usize - width];
            if next.starts_with(key) && is_final(next, next_kept) {
                replaced.push(entry.clone());
            }
        }
        for entry in replaced {
            right.rows.remove(&entry);
        }
        self.sweep_at = SWEEP.max(2 * (left.rows.len() + right.rows.len()));
    }
}

/// The time in the bytes of an ascending 64-bit time that is not NULL.
fn micros(bytes: &[u8]) -> Option<Micros> {
    let bytes: [u8; 8] = bytes.get(1..9)?.try_into().ok()?;
    Some((u64::from_be_bytes(bytes) ^ (1 << 63)).cast_signed())
}

impl Operator for AsOf {
    fn step(&mut self, cx: &mut StepCx<'_>, inputs: &mut [Vec<Delta>]) -> Result<Vec<Delta>, OperatorError> {
        let left = self.sides[0].arrive(&std::mem::take(&mut inputs[0]))?;
        let right = self.sides[1].arrive(&std::mem::take(&mut inputs[1]))?;
        let mut pairs = Pairs::new();
        self.take_left(&left.rows, false, &mut pairs);
        self.take_right(right.rows, &mut pairs);
        self.take_left(&left.rows, true, &mut pairs);
        if self.plan.outer {
            pairs.extend(left.alone.into_iter().map(|(content, weight)| (content, None, weight)));
        }
        let out = self.output(&pairs)?;
        self.sweep(cx.watermark);
        Ok(out)
    }

    fn keeps(&self) -> Keeps {
        Keeps::Rows
    }

    fn rows(&self) -> Result<Vec<Delta>, OperatorError> {
        let rows = |side: &Side| {
            let columns = side.columns(side.rows.iter().map(|(entry, kept)| &entry[kept.content as usize..]))?;
            let weights = Int64Array::from_iter_values(side.rows.values().map(|kept| kept.weight));
            Ok(Delta::new(batch(side.schema.clone(), zero_nulls(columns), side.rows.len()), weights))
        };
        self.sides.iter().map(rows).collect()
    }

    fn load(&mut self, cx: &mut StepCx<'_>, saved: &mut [Vec<Delta>]) -> Result<(), OperatorError> {
        for (side, saved) in self.sides.iter_mut().zip(saved) {
            side.rows = side.arrive(&all_fitting(&side.schema, saved)?)?.rows;
            if side.rows.values().any(|kept| kept.weight < 0) {
                return Err(wrong("a row is taken back that is not there"));
            }
        }
        self.sweep(cx.watermark);
        Ok(())
    }

    fn state(&self) -> StateSize {
        StateSize {
            rows: self.sides.iter().map(|side| side.rows.len()).sum(),
            bytes: self.sides.iter().map(Side::bytes).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_have_an_end() {
        assert_eq!(after_all(&[1, 2]).as_deref(), Some([1, 3].as_slice()));
        assert_eq!(after_all(&[1, 255]).as_deref(), Some([2].as_slice()));
        assert_eq!(after_all(&[255]), None);
        assert_eq!(after_all(&[]), None);
    }
}
