//! A join's rows, saved and loaded.
//!
//! Where matches decide, the rows that are left carry one column more, the number of their matches: rows of the other
//! side may be gone by the watermark, though what they matched is not. So rows with that column match each other
//! without being looked at again, and only rows that came in later are paired, to count. No pair comes out.

use arrow::array::{Array, AsArray, Int64Array, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::Int64Type;
use tidemill_delta::{Delta, Micros, batch, relaxed};

use super::Join;
use crate::OperatorError;
use crate::saved::{fitting, wrong};

/// Rows are taken in this many at a time: those taken in together are dropped together, once the last of them can go.
const PART: usize = 8192;

impl Join {
    fn counts_matches(&self) -> bool {
        self.sides.iter().any(|side| side.counts_matches())
    }

    pub(super) fn save(&self) -> Result<Vec<Delta>, OperatorError> {
        let side = |side: &super::Side| {
            let rows = side.live();
            let all: Vec<usize> = (0..side.schema().fields().len()).collect();
            let weights = Int64Array::from_iter_values(rows.iter().map(|row| side.weight(*row)));
            let mut columns = side.gather(&rows, &all)?;
            let mut fields = relaxed(side.schema()).fields().to_vec();
            if self.counts_matches() {
                let matches = Int64Array::from_iter_values(rows.iter().map(|row| side.matches(*row)));
                fields.push(arrow::datatypes::Field::new("matches", matches.data_type().clone(), true).into());
                columns.push(std::sync::Arc::new(matches));
            }
            let schema = std::sync::Arc::new(arrow::datatypes::Schema::new(fields));
            Ok(Delta::new(batch(schema, columns, rows.len()), weights))
        };
        self.sides.iter().map(side).collect()
    }

    pub(super) fn load_rows(&mut self, watermark: Micros, saved: &mut [Vec<Delta>]) -> Result<(), OperatorError> {
        let mut later = [Vec::new(), Vec::new()];
        for (i, later) in later.iter_mut().enumerate() {
            let deltas = saved.get_mut(i).map(std::mem::take).ok_or_else(|| wrong("a join has two inputs"))?;
            self.sides[i].reserve(deltas.iter().map(Delta::len).sum());
            let width = self.sides[i].schema().fields().len();
            let (left, came): (Vec<Delta>, _) = deltas.into_iter().partition(|d| d.rows.num_columns() > width);
            left.iter().try_for_each(|delta| self.load_left(i, delta))?;
            *later = came;
        }
        self.loading = true;
        let loaded = later.iter().enumerate().try_for_each(|(side, came)| self.load_later(side, came));
        self.loading = false;
        loaded?;
        for side in &mut self.sides {
            side.take_match_changes();
            side.evict(watermark)?;
            side.compact()?;
        }
        Ok(())
    }

    /// Takes rows in that were left, with the numbers of their matches.
    fn load_left(&mut self, side: usize, delta: &Delta) -> Result<(), OperatorError> {
        let width = self.sides[side].schema().fields().len();
        let counted = delta.rows.column(width).as_primitive_opt::<Int64Type>();
        let counted = counted.filter(|c| c.null_count() == 0).ok_or_else(|| wrong("a row's matches are no number"))?;
        let all = fitting(self.sides[side].schema(), delta)?;
        for part in parts(&all, |_| true) {
            let weights: Vec<i64> = part.values().iter().map(|i| all.weight(*i as usize)).collect();
            if weights.iter().any(|weight| *weight < 0) {
                return Err(wrong("a row that is left is taken back"));
            }
            let matches: Vec<i64> = part.values().iter().map(|i| counted.value(*i as usize)).collect();
            self.sides[side].apply(
                &take_record_batch(&all.rows, &part)?,
                &weights,
                &vec![true; part.len()],
                &matches,
            )?;
            // They were there before anything else comes.
            self.sides[side].take_match_changes();
        }
        Ok(())
    }

    /// Takes rows in that came later: first those that came, then those that went.
    fn load_later(&mut self, side: usize, deltas: &[Delta]) -> Result<(), OperatorError> {
        for coming in [true, false] {
            for delta in deltas {
                let delta = &fitting(self.sides[side].schema(), delta)?;
                if self.sides[side].is_append_only() && delta.has_retractions() {
                    return Err(wrong("a row of an append-only input is taken back"));
                }
                for part in parts(delta, |weight| (weight > 0) == coming) {
                    self.load_part(side, delta.take(&part)?)?;
                }
            }
        }
        Ok(())
    }

    fn load_part(&mut self, side: usize, part: Delta) -> Result<(), OperatorError> {
        let mut arrived = self.arrived(side, part);
        if self.counts_matches() {
            self.pair(side, &mut arrived, &mut Vec::new(), &mut Vec::new())?;
        }
        self.sides[side].apply(&arrived.rows, &arrived.weights, &arrived.matchable, &arrived.matches)?;
        self.sides[side].take_match_changes();
        Ok(())
    }
}

/// The numbers of the rows with such a weight, a part at a time.
fn parts(delta: &Delta, wanted: impl Fn(i64) -> bool) -> Vec<UInt32Array> {
    let rows: Vec<u32> = (0..delta.len() as u32).filter(|i| wanted(delta.weight(*i as usize))).collect();
    rows.chunks(PART).map(|part| UInt32Array::from(part.to_vec())).collect()
}
