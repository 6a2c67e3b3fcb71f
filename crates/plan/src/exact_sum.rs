//! Exact sums of floats, and averages of decimals: what `SUM` and `AVG` mean, in a view as in a batch.
//!
//! A sum that takes values back must come out as if they had never been added, and must not depend
//! on the order in which workers deliver rows. So a sum is held without rounding as a list of
//! floats that do not overlap (an expansion: J. R. Shewchuk, "Adaptive Precision Floating-Point
//! Arithmetic and Fast Robust Geometric Predicates", 1997, GROW-EXPANSION), and rounded once, to
//! the nearest float, when it is read.

use smallvec::SmallVec;

/// A multiset of floats, of which only the exact sum is kept.
#[derive(Clone, Debug, Default)]
pub struct ExactSum {
    /// Non-overlapping parts, least magnitude first, none of them zero.
    parts: SmallVec<[f64; 2]>,
    /// How many infinities and NaNs are in it: they have no exact sum and are counted.
    positive_infinities: i64,
    negative_infinities: i64,
    nans: i64,
}

/// The sum rounded, and what rounding lost (Knuth's TWO-SUM).
#[inline]
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    (sum, (a - (sum - b_part)) + (b - b_part))
}

impl ExactSum {
    /// Adds `value` `weight` times; a negative weight takes it back.
    #[inline]
    pub fn add(&mut self, value: f64, weight: i64) {
        if !value.is_finite() {
            self.count_special(value, weight);
        } else if weight == 1 {
            self.grow(value);
        } else if weight == -1 {
            self.grow(-value);
        } else {
            self.add_product(value, weight as f64);
        }
    }

    /// Adds the exact product of two finite floats.
    #[inline]
    pub fn add_product(&mut self, a: f64, b: f64) {
        let product = a * b;
        self.grow(product);
        let lost = a.mul_add(b, -product);
        if lost != 0.0 {
            self.grow(lost);
        }
    }

    fn count_special(&mut self, value: f64, weight: i64) {
        if value.is_nan() {
            self.nans += weight;
        } else if value > 0.0 {
            self.positive_infinities += weight;
        } else {
            self.negative_infinities += weight;
        }
    }

    #[inline]
    fn grow(&mut self, value: f64) {
        let mut rest = value;
        let mut kept = 0;
        for i in 0..self.parts.len() {
            let (sum, lost) = two_sum(rest, self.parts[i]);
            if lost != 0.0 {
                self.parts[kept] = lost;
                kept += 1;
            }
            rest = sum;
        }
        self.parts.truncate(kept);
        if rest != 0.0 {
            self.parts.push(rest);
        }
    }

    /// The sum of which [`ExactSum::parts`] and [`ExactSum::specials`] are these: the very same, bit for bit.
    pub fn from_parts(parts: &[f64], [positive_infinities, negative_infinities, nans]: [i64; 3]) -> Self {
        ExactSum { parts: SmallVec::from_slice(parts), positive_infinities, negative_infinities, nans }
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &ExactSum) {
        other.parts.iter().for_each(|part| self.grow(*part));
        self.positive_infinities += other.positive_infinities;
        self.negative_infinities += other.negative_infinities;
        self.nans += other.nans;
    }

    /// How many positive infinities, negative ones and NaNs are in it.
    pub fn specials(&self) -> [i64; 3] {
        [self.positive_infinities, self.negative_infinities, self.nans]
    }

    /// The sum, rounded once.
    pub fn value(&self) -> f64 {
        if self.nans > 0 || (self.positive_infinities > 0 && self.negative_infinities > 0) {
            return f64::NAN;
        }
        if self.positive_infinities > 0 {
            return f64::INFINITY;
        }
        if self.negative_infinities > 0 {
            return f64::NEG_INFINITY;
        }
        self.round()
    }

    /// Adds the parts from the greatest down until something is lost; the rest can only decide a tie.
    fn round(&self) -> f64 {
        let Some((last, rest)) = self.parts.split_last() else { return 0.0 };
        let mut sum = *last;
        for (i, part) in rest.iter().enumerate().rev() {
            let (next, lost) = two_sum(sum, *part);
            sum = next;
            if lost != 0.0 {
                // Exactly half-way between two floats, and there is more on the same side: round away.
                if i > 0 && (lost < 0.0) == (rest[i - 1] < 0.0) {
                    let doubled = lost * 2.0;
                    let other = sum + doubled;
                    if other - sum == doubled {
                        sum = other;
                    }
                }
                break;
            }
        }
        sum
    }

    /// Whether the multiset holds infinities or NaNs.
    pub fn is_special(&self) -> bool {
        self.nans != 0 || self.positive_infinities != 0 || self.negative_infinities != 0
    }

    /// The parts, for sums of sums: floats whose exact sum it is.
    pub fn parts(&self) -> &[f64] {
        &self.parts
    }
}

/// `sum / count` rounded half away from zero, with `digits` more digits after the point; `None` if it is out of
/// range. `count` is not 0.
pub fn decimal_average(sum: i128, count: i64, digits: u32) -> Option<i128> {
    let (count, unit) = (i128::from(count), 10i128.checked_pow(digits)?);
    // The rest is small, so that sums that leave no room for more digits still have an average.
    let (whole, rest) = (sum / count, (sum % count).checked_mul(unit)?);
    let (fraction, rest) = (rest / count, rest % count);
    let up = i128::from(rest.abs() * 2 >= count.abs()) * sum.signum() * count.signum();
    whole.checked_mul(unit)?.checked_add(fraction + up)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_rounded_once() {
        assert_eq!(decimal_average(370, 6, 14), Some(6_166_666_666_666_667));
        assert_eq!(decimal_average(-5, 2, 0), Some(-3));
        let (large, unit) = (i128::from(i64::MAX), 10i128.pow(16));
        assert_eq!(decimal_average(large * 1_000_000, 1_000_000, 16), Some(large * unit));
        assert_eq!(decimal_average(i128::MAX, 1, 16), None);
    }

    #[test]
    fn what_is_taken_back_was_never_there() {
        let mut sum = ExactSum::default();
        for v in [1e300, 0.1, 1e-300, -7.25, 1e16] {
            sum.add(v, 1);
        }
        for v in [1e16, 1e300, -7.25, 1e-300] {
            sum.add(v, -1);
        }
        assert_eq!(sum.value(), 0.1);
        sum.add(0.1, -1);
        assert_eq!(sum.value(), 0.0);
        assert!(sum.parts().is_empty());
    }

    #[test]
    fn sums_of_sums_are_exact() {
        let (mut whole, mut merged) = (ExactSum::default(), ExactSum::default());
        for chunk in [[1e300, 0.1, f64::INFINITY], [-1e300, 0.2, 1e-300]] {
            let mut part = ExactSum::default();
            chunk.iter().for_each(|v| part.add(*v, 1));
            chunk.iter().for_each(|v| whole.add(*v, 1));
            merged.merge(&ExactSum::from_parts(part.parts(), part.specials()));
        }
        assert_eq!(merged.value(), f64::INFINITY);
        merged.add(f64::INFINITY, -1);
        whole.add(f64::INFINITY, -1);
        assert_eq!(merged.value().to_bits(), whole.value().to_bits());
    }

    #[test]
    fn order_does_not_matter() {
        let values: Vec<f64> = (0..1000).map(|i| ((i * 7919) % 1013) as f64 * 0.1 - 33.3).collect();
        let (mut forward, mut backward) = (ExactSum::default(), ExactSum::default());
        values.iter().for_each(|v| forward.add(*v, 1));
        values.iter().rev().for_each(|v| backward.add(*v, 1));
        assert_eq!(forward.value().to_bits(), backward.value().to_bits());
    }

    #[test]
    fn ten_tenths_are_one() {
        let mut sum = ExactSum::default();
        sum.add(0.1, 10);
        let mut one_by_one = ExactSum::default();
        (0..10).for_each(|_| one_by_one.add(0.1, 1));
        assert_eq!(sum.value(), 1.0);
        assert_eq!(one_by_one.value(), 1.0);
    }

    #[test]
    fn infinities_come_and_go() {
        let mut sum = ExactSum::default();
        sum.add(2.5, 1);
        sum.add(f64::INFINITY, 1);
        assert_eq!(sum.value(), f64::INFINITY);
        sum.add(f64::NEG_INFINITY, 1);
        assert!(sum.value().is_nan());
        sum.add(f64::INFINITY, -1);
        sum.add(f64::NEG_INFINITY, -1);
        assert_eq!(sum.value(), 2.5);
    }
}
