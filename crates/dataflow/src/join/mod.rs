//! Equi-joins of two changing collections.
//!
//! - Input: left and right, both routed by key. Output: columns of matching pairs; for outer, semi and
//!   anti joins also (or only) rows that have or lack a match.
//! - Rule: Δ(L ⋈ R) = ΔL ⋈ R ∪ (L + ΔL) ⋈ ΔR. Each row on a side whose presence depends on having a
//!   match keeps the number of its matches; when that number leaves or reaches zero, the row's
//!   output comes or goes.
//! - State: both sides' rows, indexed by key.
//! - Released: when a row is taken back, or when the watermark says that nothing can match it any
//!   more (`evict`), for sides whose plan has such a bound.
//!
//! A key with NULL matches nothing unless the plan says so; such rows are not stored.
//!
//! Saved: both sides' rows ([`saved`]).

mod saved;
mod side;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::take;
use arrow::datatypes::{Schema, SchemaRef};
use std::sync::Arc;
use tidemill_delta::{Delta, Micros, batch};
use tidemill_plan::{JoinKind, JoinPlan, Scalar};

use self::side::Side;
use crate::map::row_text;
use crate::{Keeps, Operator, OperatorError, RowError, StateSize, StepCx};

/// Candidate pairs are built and filtered at most about this many at a time.
const PAIRS: usize = 16_384;

/// Batches of so many rows are worth a turn of their own.
const LARGE: usize = 1024;

/// The operator; see the module.
pub struct Join {
    plan: JoinPlan,
    schema: SchemaRef,
    /// left ++ right, what the residual filter sees.
    pair_schema: SchemaRef,
    sides: [Side; 2],
    /// Whether matches are counted only, because what comes was here before.
    loading: bool,
}

/// A batch of one input's rows in this step.
struct Arrived {
    rows: RecordBatch,
    weights: Vec<i64>,
    /// Whether the key can match at all.
    matchable: Vec<bool>,
    /// How many stored rows of the other side (counted with multiplicity) each row matches.
    matches: Vec<i64>,
}

/// Rows that one step may give: a join that gives more has lost its condition, and would take all memory.
const MAX_ROWS: usize = 1 << 24;

/// Pairs of an arrived row and a stored row of the other side.
#[derive(Default)]
struct Pairs {
    arrived: Vec<u32>,
    stored: Vec<u32>,
}

fn check_size(out: &[Delta]) -> Result<(), OperatorError> {
    if out.iter().map(Delta::len).sum::<usize>() <= MAX_ROWS {
        return Ok(());
    }
    Err(OperatorError(format!("a join gives more than {MAX_ROWS} rows in one epoch; does it lack a condition?")))
}

impl Join {
    /// The operator of a plan, for inputs of the shapes given.
    pub fn new(plan: &JoinPlan, inputs: [&SchemaRef; 2], schema: SchemaRef) -> Result<Self, OperatorError> {
        let fields: Vec<_> = inputs.iter().flat_map(|s| s.fields().iter().cloned()).collect();
        let counts = match plan.kind {
            JoinKind::Inner => [false, false],
            JoinKind::Left | JoinKind::LeftSemi | JoinKind::LeftAnti => [true, false],
            JoinKind::Right => [false, true],
            JoinKind::Full => [true, true],
        };
        let side = |i: usize, keys: &[usize]| {
            Side::new(inputs[i].clone(), keys.to_vec(), plan.append_only[i], counts[i], plan.evict[i])
        };
        Ok(Join {
            plan: plan.clone(),
            schema,
            pair_schema: tidemill_delta::relaxed(&Arc::new(Schema::new(fields))),
            sides: [side(0, &plan.left_keys)?, side(1, &plan.right_keys)?],
            loading: false,
        })
    }

    fn keys(&self, side: usize) -> &[usize] {
        if side == 0 { &self.plan.left_keys } else { &self.plan.right_keys }
    }

    /// An input's rows: in one batch, or as they come if they can be taken in one batch after the other.
    fn arrive(&self, side: usize, deltas: Vec<Delta>) -> Result<Vec<Arrived>, OperatorError> {
        // What is never taken back, and whose own matches nobody counts, need not be copied together if it is much.
        let large = deltas.iter().map(Delta::len).sum::<usize>() >= deltas.len() * LARGE;
        let apart = large && self.plan.append_only[side] && !self.sides[side].counts_matches();
        let batches = if apart { deltas } else { vec![Delta::concat(self.sides[side].schema(), &deltas)?] };
        Ok(batches.into_iter().filter(|all| !all.is_empty()).map(|all| self.arrived(side, all)).collect())
    }

    fn arrived(&self, side: usize, all: Delta) -> Arrived {
        let mut matchable = vec![true; all.len()];
        if !self.plan.null_equals_null {
            for key in self.keys(side) {
                if let Some(nulls) = all.rows.column(*key).logical_nulls().filter(|n| n.null_count() > 0) {
                    matchable.iter_mut().enumerate().for_each(|(i, m)| *m &= nulls.is_valid(i));
                }
            }
        }
        let weights = (0..all.len()).map(|i| all.weight(i)).collect();
        Arrived { matches: vec![0; all.len()], rows: all.rows, weights, matchable }
    }

    /// Pairs the arrived rows of one side with the stored rows of the other.
    fn pair(
        &mut self,
        side: usize,
        arrived: &mut Arrived,
        out: &mut Vec<Delta>,
        errors: &mut Vec<RowError>,
    ) -> Result<(), OperatorError> {
        let other = 1 - side;
        let columns: Vec<ArrayRef> = self.keys(side).iter().map(|k| arrived.rows.column(*k).clone()).collect();
        let mut keys = Vec::new();
        self.sides[other].lookup(&columns, arrived.rows.num_rows(), &mut keys)?;
        let mut pairs = Pairs::default();
        for (i, key) in keys.iter().enumerate() {
            if !arrived.matchable[i] {
                continue;
            }
            let mut cursor = self.sides[other].first(*key);
            while let Some(row) = cursor {
                pairs.arrived.push(i as u32);
                pairs.stored.push(row);
                if pairs.stored.len() >= PAIRS {
                    self.emit_pairs(side, arrived, &std::mem::take(&mut pairs), out, errors)?;
                    check_size(out)?;
                }
                cursor = self.sides[other].next(row);
            }
        }
        if !pairs.stored.is_empty() {
            self.emit_pairs(side, arrived, &pairs, out, errors)?;
        }
        Ok(())
    }

    /// Filters candidate pairs, counts the matches and emits the pairs that remain.
    fn emit_pairs(
        &mut self,
        side: usize,
        arrived: &mut Arrived,
        pairs: &Pairs,
        out: &mut Vec<Delta>,
        errors: &mut Vec<RowError>,
    ) -> Result<(), OperatorError> {
        let other = 1 - side;
        let filtered;
        let pairs = match self.plan.filter.clone() {
            None => pairs,
            Some(filter) => {
                filtered = self.filter_pairs(side, arrived, pairs, filter.as_ref(), errors)?;
                &filtered
            }
        };
        for (a, s) in pairs.arrived.iter().zip(&pairs.stored) {
            arrived.matches[*a as usize] += self.sides[other].weight(*s);
            self.sides[other].count_match(*s, arrived.weights[*a as usize]);
        }
        let semi = matches!(self.plan.kind, JoinKind::LeftSemi | JoinKind::LeftAnti);
        if semi || self.loading || pairs.stored.is_empty() {
            return Ok(());
        }
        let weights = pairs.arrived.iter().zip(&pairs.stored);
        let diff: Vec<i64> =
            weights.map(|(a, s)| arrived.weights[*a as usize] * self.sides[other].weight(*s)).collect();
        let columns = self.pair_columns(side, arrived, pairs, &self.plan.project)?;
        let rows = batch(self.schema.clone(), columns, pairs.stored.len());
        out.push(Delta::new(rows, Int64Array::from(diff)));
        Ok(())
    }

    /// The columns `which` (numbered over left ++ right) of the pairs.
    fn pair_columns(
        &self,
        side: usize,
        arrived: &Arrived,
        pairs: &Pairs,
        which: &[usize],
    ) -> Result<Vec<ArrayRef>, OperatorError> {
        let left = self.sides[0].schema().fields().len();
        let of_side = |c: usize| usize::from(c >= left);
        let place = |c: usize| if c >= left { c - left } else { c };
        let stored: Vec<usize> = which.iter().filter(|c| of_side(**c) != side).map(|c| place(*c)).collect();
        let mut stored = self.sides[1 - side].gather(&pairs.stored, &stored)?.into_iter();
        let indices = UInt32Array::from(pairs.arrived.clone());
        let mut columns = Vec::with_capacity(which.len());
        for c in which {
            columns.push(if of_side(*c) == side {
                take(arrived.rows.column(place(*c)), &indices, None)?
            } else {
                stored.next().ok_or_else(|| OperatorError("a stored column is missing".into()))?
            });
        }
        Ok(columns)
    }

    fn filter_pairs(
        &self,
        side: usize,
        arrived: &Arrived,
        pairs: &Pairs,
        filter: &dyn Scalar,
        errors: &mut Vec<RowError>,
    ) -> Result<Pairs, OperatorError> {
        let all = self.pair_schema.fields().len();
        let wanted = filter.columns().unwrap_or_else(|| (0..all).collect());
        let mut found = self.pair_columns(side, arrived, pairs, &wanted)?.into_iter();
        let len = pairs.stored.len();
        let columns = (0..all)
            .map(|c| match wanted.contains(&c).then(|| found.next()).flatten() {
                Some(column) => column,
                // The filter does not look at it.
                None => new_null_array(self.pair_schema.field(c).data_type(), len),
            })
            .collect();
        let rows = batch(self.pair_schema.clone(), columns, len);
        let mut kept = Pairs::default();
        self.filter_part(&rows, 0, arrived, pairs, filter, &mut kept, errors);
        Ok(kept)
    }

    /// Evaluates the filter over a part of the pairs, halving it when a row has no answer.
    #[allow(clippy::too_many_arguments)]
    fn filter_part(
        &self,
        rows: &RecordBatch,
        offset: usize,
        arrived: &Arrived,
        pairs: &Pairs,
        filter: &dyn Scalar,
        kept: &mut Pairs,
        errors: &mut Vec<RowError>,
    ) {
        match filter.eval(rows) {
            Ok(mask) => {
                let mask = mask.as_boolean();
                for i in (0..rows.num_rows()).filter(|i| mask.is_valid(*i) && mask.value(*i)) {
                    kept.arrived.push(pairs.arrived[offset + i]);
                    kept.stored.push(pairs.stored[offset + i]);
                }
            }
            Err(error) if rows.num_rows() <= 1 => errors.push(RowError {
                message: error.message,
                row: row_text(rows, 0),
                weight: arrived.weights[pairs.arrived[offset] as usize].signum(),
            }),
            Err(_) => {
                let half = rows.num_rows() / 2;
                self.filter_part(&rows.slice(0, half), offset, arrived, pairs, filter, kept, errors);
                let rest = rows.slice(half, rows.num_rows() - half);
                self.filter_part(&rest, offset + half, arrived, pairs, filter, kept, errors);
            }
        }
    }

    /// Whether a row that has `matches` matches is there by itself: beside NULLs (outer joins), or
    /// as the answer (semi and anti joins).
    fn stands(&self, matches: i64) -> bool {
        if self.plan.kind == JoinKind::LeftSemi { matches > 0 } else { matches == 0 }
    }

    /// Rows of one side that stand by themselves now and did not, or the other way round.
    fn emit_standing(
        &mut self,
        side: usize,
        arrived: Option<&Arrived>,
        inserted: &[u32],
        removed: &[(u32, i64)],
        out: &mut Vec<Delta>,
    ) -> Result<(), OperatorError> {
        let mut stored: Vec<(u32, i64)> = Vec::new();
        for (row, old, new, weight) in self.sides[side].take_match_changes() {
            let change = i64::from(self.stands(new)) - i64::from(self.stands(old));
            if change != 0 && weight != 0 {
                stored.push((row, change * weight));
            }
        }
        for row in inserted {
            // What came may have been taken back in this very step.
            let weight = self.sides[side].weight(*row);
            if weight != 0 && self.stands(self.sides[side].matches(*row)) {
                stored.push((*row, weight));
            }
        }
        if !stored.is_empty() {
            let ids: Vec<u32> = stored.iter().map(|(row, _)| *row).collect();
            let all: Vec<usize> = (0..self.sides[side].schema().fields().len()).collect();
            let columns = self.sides[side].gather(&ids, &all)?;
            out.push(self.standing_delta(side, columns, stored.iter().map(|(_, w)| *w).collect())?);
        }
        let Some(arrived) = arrived else { return Ok(()) };
        // Rows taken back, and rows whose key matches nothing and which are therefore not stored.
        let mut direct: Vec<(u32, i64)> = Vec::new();
        direct.extend(removed.iter().map(|(place, weight)| (*place, -weight)));
        if self.stands(0) {
            let unmatchable = (0..arrived.weights.len()).filter(|i| !arrived.matchable[*i]);
            direct.extend(unmatchable.map(|i| (i as u32, arrived.weights[i])));
        }
        if !direct.is_empty() {
            let indices = UInt32Array::from_iter_values(direct.iter().map(|(i, _)| *i));
            let columns = arrived.rows.columns().iter().map(|c| take(c, &indices, None)).collect::<Result<_, _>>()?;
            out.push(self.standing_delta(side, columns, direct.iter().map(|(_, w)| *w).collect())?);
        }
        Ok(())
    }

    /// A delta of one side's rows beside NULLs, projected.
    fn standing_delta(&self, side: usize, columns: Vec<ArrayRef>, diff: Vec<i64>) -> Result<Delta, OperatorError> {
        let left = self.sides[0].schema().fields().len();
        let len = diff.len();
        let project = self.plan.project.iter().map(|c| match (side, *c >= left) {
            (0, false) => columns[*c].clone(),
            (1, true) => columns[*c - left].clone(),
            _ => new_null_array(self.pair_schema.field(*c).data_type(), len),
        });
        Ok(Delta::new(batch(self.schema.clone(), project.collect(), len), Int64Array::from(diff)))
    }

    /// Pairs and stores one side's rows. Returns the rows stored, and those removed that stood by
    /// themselves before.
    fn take_side(
        &mut self,
        side: usize,
        arrived: &mut Arrived,
        out: &mut Vec<Delta>,
        errors: &mut Vec<RowError>,
    ) -> Result<(Vec<u32>, Vec<(u32, i64)>), OperatorError> {
        self.pair(side, arrived, out, errors)?;
        let Arrived { rows, weights, matchable, matches } = arrived;
        let (inserted, removed) = self.sides[side].apply(rows, weights, matchable, matches)?;
        let stood: Vec<_> = removed
            .into_iter()
            .filter(|(_, matches_at_start, _)| self.stands(*matches_at_start))
            .map(|(place, _, weight)| (place, weight))
            .collect();
        Ok((inserted, stood))
    }
}

impl Operator for Join {
    fn step(&mut self, cx: &mut StepCx<'_>, inputs: &mut [Vec<Delta>]) -> Result<Vec<Delta>, OperatorError> {
        let mut out = Vec::new();
        let [left, right] = [0, 1].map(|side| std::mem::take(&mut inputs[side]));
        let mut arrived = [self.arrive(0, left)?, self.arrive(1, right)?];
        let (mut stored, mut removed) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        for (side, batches) in arrived.iter_mut().enumerate() {
            for part in batches {
                let (came, went) = self.take_side(side, part, &mut out, cx.errors)?;
                stored[side].extend(came);
                removed[side].extend(went);
            }
        }
        for (side, batches) in arrived.iter().enumerate() {
            if self.sides[side].counts_matches() {
                self.emit_standing(side, batches.first(), &stored[side], &removed[side], &mut out)?;
            }
        }
        for side in &mut self.sides {
            side.evict(cx.watermark)?;
            side.compact()?;
        }
        Ok(out)
    }

    fn due(&self, watermark: Micros) -> bool {
        self.sides.iter().any(|s| s.due(watermark))
    }

    fn keeps(&self) -> Keeps {
        Keeps::Rows
    }

    fn rows(&self) -> Result<Vec<Delta>, OperatorError> {
        self.save()
    }

    fn load(&mut self, cx: &mut StepCx<'_>, saved: &mut [Vec<Delta>]) -> Result<(), OperatorError> {
        self.load_rows(cx.watermark, saved)
    }

    fn state(&self) -> StateSize {
        StateSize { rows: self.sides.iter().map(Side::len).sum(), bytes: self.sides.iter().map(Side::bytes).sum() }
    }
}
