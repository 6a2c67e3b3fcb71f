//! Variances without rounding on the way.

use crate::ExactSum;

/// Exact sums of values and of their squares, from which values can be taken back.
#[derive(Clone, Debug, Default)]
pub struct Moments {
    count: i64,
    sum: ExactSum,
    squares: ExactSum,
}

impl Moments {
    /// Adds `value` `diff` times; a negative number takes it back.
    pub fn add(&mut self, value: f64, diff: i64) {
        self.count += diff;
        self.sum.add(value, diff);
        let square = value * value;
        self.squares.add(square, diff);
        if square.is_finite() {
            let lost = value.mul_add(value, -square);
            if lost != 0.0 {
                self.squares.add(lost, diff);
            }
        }
    }

    /// So many values with these sums of themselves and of their squares.
    pub fn from_sums(count: i64, sum: ExactSum, squares: ExactSum) -> Self {
        Moments { count, sum, squares }
    }

    /// How many values, their sum, and the sum of their squares.
    pub fn sums(&self) -> (i64, &ExactSum, &ExactSum) {
        (self.count, &self.sum, &self.squares)
    }

    /// Adds the values of another.
    pub fn merge(&mut self, other: &Moments) {
        self.count += other.count;
        self.sum.merge(&other.sum);
        self.squares.merge(&other.squares);
    }

    /// The variance of a sample or of the population; `None` of too few values.
    ///
    /// `(Σx² - (Σx)²/n) / (n or n-1)`. The difference is formed as `(n Σx² - (Σx)²) / n` from the exact
    /// parts, so that it does not cancel.
    pub fn variance(&self, sample: bool) -> Option<f64> {
        let divisor = self.count - i64::from(sample);
        if self.count <= 0 || divisor <= 0 {
            return None;
        }
        if self.sum.is_special() || self.squares.is_special() {
            return Some(f64::NAN);
        }
        let n = self.count as f64;
        let mut spread = ExactSum::default();
        for part in self.squares.parts() {
            spread.add_product(*part, n);
        }
        for a in self.sum.parts() {
            for b in self.sum.parts() {
                spread.add_product(-*a, *b);
            }
        }
        Some((spread.value() / n / divisor as f64).max(0.0))
    }
}
