//! The rows of `tidemill bench change`: each is made from its number alone.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::error::ArrowError;

/// Rows put in at a time while the tables grow.
pub const BULK: usize = 65_536;

/// Odd, so that numbers times it are in no order and none comes twice.
const SCATTER: i64 = 0x5851_F42D_4C95_7F2D;

/// Rows by their numbers.
pub struct Rows {
    ids: Vec<i64>,
}

impl Rows {
    /// Consecutive ones.
    pub fn range(first: usize, len: usize) -> Self {
        Rows { ids: (first..first + len).map(|id| id as i64).collect() }
    }

    /// These.
    pub fn at(ids: Vec<i64>) -> Self {
        Rows { ids }
    }

    /// As rows of a table; views have all of them, or none.
    pub fn in_view(&self, live: bool) -> Result<RecordBatch, ArrowError> {
        self.batch(|_| live)
    }

    /// As rows of a table of which views have all but one in a hundred.
    pub fn mostly_in_view(&self) -> Result<RecordBatch, ArrowError> {
        self.batch(|id| id % 100 != 0)
    }

    fn batch(&self, live: impl Fn(i64) -> bool) -> Result<RecordBatch, ArrowError> {
        let numbers = |value: fn(i64) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(self.ids.iter().map(|id| value(*id))))
        };
        let times = TimestampMicrosecondArray::from_iter_values(self.ids.iter().map(|id| id * 1_000_000));
        RecordBatch::try_from_iter([
            ("id", numbers(|id| id)),
            ("k", numbers(|id| id.wrapping_mul(3))),
            ("g", numbers(|id| id / 10)),
            ("v", numbers(|id| id.wrapping_mul(SCATTER) >> 24)),
            ("ts", Arc::new(times) as ArrayRef),
            ("live", Arc::new(BooleanArray::from_iter(self.ids.iter().map(|id| Some(live(*id))))) as ArrayRef),
        ])
    }
}

/// Which rows change.
pub enum Spread {
    /// Spread over all rows, none twice before all have come.
    Over {
        /// So many rows.
        rows: usize,
        /// From one to the next.
        step: usize,
        /// The last one.
        at: usize,
    },
    /// Always the last of so many rows.
    AtEnd(usize),
}

impl Spread {
    /// Over so many rows.
    pub fn over(rows: usize) -> Self {
        // About the golden ratio of them, and prime to them.
        let mut step = (rows as f64 * 0.618) as usize | 1;
        while step > 1 && gcd(step, rows) > 1 {
            step -= 1;
        }
        Spread::Over { rows, step, at: rows / 3 }
    }

    /// The next ones.
    pub fn take(&mut self, count: usize) -> Vec<i64> {
        match self {
            Spread::AtEnd(rows) => (rows.saturating_sub(count)..*rows).map(|row| row as i64).collect(),
            Spread::Over { rows, step, at } => {
                let next = |_| {
                    *at = (*at + *step) % *rows;
                    *at as i64
                };
                (0..count).map(next).collect()
            }
        }
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn spread_numbers_come_once() {
        for rows in [1000, 1024, 4_999] {
            let all: BTreeSet<i64> = Spread::over(rows).take(rows).into_iter().collect();
            assert_eq!(all.len(), rows);
        }
        assert_eq!(Spread::AtEnd(10).take(2), [8, 9]);
    }
}
