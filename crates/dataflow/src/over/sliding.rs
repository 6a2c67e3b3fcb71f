//! Aggregates over frames that move forward: what enters is added, what leaves is taken back.
//!
//! Integers are summed as `i128` and floats exactly, so that what is taken back leaves no trace; the least
//! and the greatest are kept in a queue of candidates, each of which is better than all behind it.

use std::collections::VecDeque;
use std::ops::Range;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, UInt32Array, UInt64Array,
};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, UInt64Type};
use tidemill_plan::{ExactSum, OverCall, OverFunction, decimal_average};

use super::merged::Sequence;
use crate::OperatorError;
use crate::aggregate::{Comparable, shared};

/// A row without a value, by its number among those asked for, and why.
pub(super) type Failure = (usize, String);

/// An aggregate's input: columns by merged row.
pub(super) struct Rows<'a> {
    pub(super) sequence: &'a Sequence,
    pub(super) frames: &'a [Range<usize>],
    pub(super) arg: Option<&'a ArrayRef>,
    pub(super) filter: Option<&'a BooleanArray>,
}

/// What is known of the rows in a frame.
trait Window {
    /// Row `place`, which is merged row `row`, enters.
    fn enter(&mut self, place: usize, row: usize);
    /// It leaves again; rows leave in the order in which they entered.
    fn leave(&mut self, place: usize, row: usize);
    /// All are gone.
    fn clear(&mut self);
}

impl Rows<'_> {
    /// Moves a window over the frames and calls `value` with it and the row's number at each.
    fn slide<W: Window>(&self, window: &mut W, mut value: impl FnMut(&W, usize)) {
        let nulls = self.arg.and_then(|arg| arg.logical_nulls()).filter(|nulls| nulls.null_count() > 0);
        let counts = |row: usize| {
            nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row))
                && self.filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
        };
        let merged = |place: usize| self.sequence.merged[place] as usize;
        let mut number = 0;
        for span in &self.sequence.spans {
            let frames = &self.frames[number..number + span.zone.len()];
            let mut held = frames.first().map_or(0..0, |frame| frame.start..frame.start);
            window.clear();
            for frame in frames {
                debug_assert!(held.start <= frame.start && held.end <= frame.end, "frames move forward");
                for place in held.end..frame.end {
                    if counts(merged(place)) {
                        window.enter(place, merged(place));
                    }
                }
                for place in held.start..frame.start {
                    if counts(merged(place)) {
                        window.leave(place, merged(place));
                    }
                }
                held = frame.clone();
                value(window, number);
                number += 1;
            }
        }
    }

    /// The call's value for each frame.
    pub(super) fn aggregate(&self, call: &OverCall) -> Result<(ArrayRef, Vec<Failure>), OperatorError> {
        let arg = || self.arg.ok_or_else(|| OperatorError(format!("{} needs an argument", call.label)));
        match &call.function {
            OverFunction::Count => {
                let mut counts = Vec::with_capacity(self.frames.len());
                self.slide(&mut Count(0), |count, _| counts.push(count.0));
                Ok((shared(Int64Array::from(counts)), Vec::new()))
            }
            OverFunction::Sum | OverFunction::Avg if arg()?.data_type().is_floating() => {
                Ok((self.floats(arg()?, matches!(call.function, OverFunction::Avg))?, Vec::new()))
            }
            OverFunction::Sum => self.integers(arg()?, |sum, _| Ok(sum), &call.data_type),
            OverFunction::Avg => {
                let scale = |data_type: &DataType| match data_type {
                    DataType::Decimal128(_, scale) => i32::from(*scale),
                    _ => 0,
                };
                let digits = u32::try_from(scale(&call.data_type) - scale(arg()?.data_type())).unwrap_or(0);
                let average = |sum, count| {
                    let out_of_range = || format!("the average of {count} values is out of range");
                    decimal_average(sum, count, digits).ok_or_else(out_of_range)
                };
                self.integers(arg()?, average, &call.data_type)
            }
            OverFunction::Min => Ok((self.best(arg()?, false)?, Vec::new())),
            OverFunction::Max => Ok((self.best(arg()?, true)?, Vec::new())),
            other => Err(OperatorError(format!("{other:?} is no aggregate"))),
        }
    }

    fn floats(&self, arg: &ArrayRef, average: bool) -> Result<ArrayRef, OperatorError> {
        let arg = cast(arg, &DataType::Float64)?;
        let values = arg.as_primitive::<Float64Type>();
        let mut out: Vec<Option<f64>> = Vec::with_capacity(self.frames.len());
        let mut window = FloatSum { values: values.values(), sum: ExactSum::default(), count: 0 };
        self.slide(&mut window, |window, _| {
            let divisor = if average { window.count as f64 } else { 1.0 };
            out.push((window.count > 0).then(|| window.sum.value() / divisor));
        });
        Ok(shared(Float64Array::from(out)))
    }

    /// `result` of the sum and the count.
    fn integers(
        &self,
        arg: &ArrayRef,
        result: impl Fn(i128, i64) -> Result<i128, String>,
        data_type: &DataType,
    ) -> Result<(ArrayRef, Vec<Failure>), OperatorError> {
        let (mut out, mut failed) = (Vec::with_capacity(self.frames.len()), Vec::new());
        let mut window = IntegerSum { values: integers(arg)?, sum: 0, count: 0 };
        let fits = |value: i128| match data_type {
            DataType::Int64 => i64::try_from(value).is_ok(),
            DataType::UInt64 => u64::try_from(value).is_ok(),
            _ => true,
        };
        self.slide(&mut window, |window, number| {
            if window.count == 0 {
                return out.push(None);
            }
            let value = result(window.sum, window.count).and_then(|value| match fits(value) {
                true => Ok(value),
                false => Err(format!("the sum {value} is out of range of {data_type}")),
            });
            out.push(value.map_err(|message| failed.push((number, message))).ok());
        });
        let values: ArrayRef = match data_type {
            DataType::Decimal128(precision, scale) => {
                shared(Decimal128Array::from(out).with_precision_and_scale(*precision, *scale)?)
            }
            DataType::UInt64 => shared(out.into_iter().map(|v| v.map(|v| v as u64)).collect::<UInt64Array>()),
            DataType::Int64 => shared(out.into_iter().map(|v| v.map(|v| v as i64)).collect::<Int64Array>()),
            other => return Err(OperatorError(format!("integers cannot be added up to {other}"))),
        };
        Ok((values, failed))
    }

    /// The least or greatest value.
    fn best(&self, arg: &ArrayRef, greatest: bool) -> Result<ArrayRef, OperatorError> {
        let mut out: Vec<Option<u32>> = Vec::with_capacity(self.frames.len());
        let mut window = Best { keys: Comparable::new(arg)?, greatest, candidates: VecDeque::new() };
        self.slide(&mut window, |window, _| out.push(window.candidates.front().map(|(_, row)| *row)));
        Ok(take(arg, &UInt32Array::from(out), None)?)
    }
}

/// Values as `i128`; what is under NULLs is anything.
fn integers(arg: &ArrayRef) -> Result<Vec<i128>, OperatorError> {
    Ok(match arg.data_type() {
        DataType::Decimal128(..) => arg.as_primitive::<Decimal128Type>().values().to_vec(),
        DataType::UInt64 => arg.as_primitive::<UInt64Type>().values().iter().map(|v| i128::from(*v)).collect(),
        _ => {
            let arg = cast(arg, &DataType::Int64)?;
            arg.as_primitive::<Int64Type>().values().iter().map(|v| i128::from(*v)).collect()
        }
    })
}

struct Count(i64);

impl Window for Count {
    fn enter(&mut self, _: usize, _: usize) {
        self.0 += 1;
    }

    fn leave(&mut self, _: usize, _: usize) {
        self.0 -= 1;
    }

    fn clear(&mut self) {
        self.0 = 0;
    }
}

struct IntegerSum {
    values: Vec<i128>,
    sum: i128,
    count: i64,
}

impl Window for IntegerSum {
    fn enter(&mut self, _: usize, row: usize) {
        self.sum = self.sum.wrapping_add(self.values[row]);
        self.count += 1;
    }

    fn leave(&mut self, _: usize, row: usize) {
        self.sum = self.sum.wrapping_sub(self.values[row]);
        self.count -= 1;
    }

    fn clear(&mut self) {
        (self.sum, self.count) = (0, 0);
    }
}

struct FloatSum<'a> {
    values: &'a [f64],
    sum: ExactSum,
    count: i64,
}

impl Window for FloatSum<'_> {
    fn enter(&mut self, _: usize, row: usize) {
        self.sum.add(self.values[row], 1);
        self.count += 1;
    }

    fn leave(&mut self, _: usize, row: usize) {
        self.sum.add(self.values[row], -1);
        self.count -= 1;
    }

    fn clear(&mut self) {
        (self.sum, self.count) = (ExactSum::default(), 0);
    }
}

struct Best {
    keys: Comparable,
    greatest: bool,
    /// Places and merged rows; the first is the best.
    candidates: VecDeque<(usize, u32)>,
}

impl Window for Best {
    fn enter(&mut self, place: usize, row: usize) {
        let beats = |other: usize| match self.greatest {
            true => self.keys.compare(row, other).is_gt(),
            false => self.keys.compare(row, other).is_lt(),
        };
        while self.candidates.back().is_some_and(|(_, other)| beats(*other as usize)) {
            self.candidates.pop_back();
        }
        self.candidates.push_back((place, row as u32));
    }

    fn leave(&mut self, place: usize, _: usize) {
        if self.candidates.front().is_some_and(|(first, _)| *first == place) {
            self.candidates.pop_front();
        }
    }

    fn clear(&mut self) {
        self.candidates.clear();
    }
}
