//! Aggregates over frames that move forward: what enters is added, what leaves is taken back.
//!
//! Integers are summed as `i128` and floats exactly, so that what is taken back leaves no trace; the least
//! and the greatest are kept in a queue of candidates, each of which is better than all behind it.

use std::collections::VecDeque;
use std::ops::Range;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, UInt32Array, UInt64Array,
};
use arrow::compute::{cast, concat, take};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, UInt64Type};
use tidemill_plan::{ExactSum, OverCall, OverFunction, decimal_average};

use super::anchors::{Carry, Cut};
use super::functions::Answer;
use super::merged::{Sequence, Span};
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
    /// The call's number in its node.
    pub(super) number: usize,
    /// Where anchors are to be set.
    pub(super) cuts: &'a [Cut],
}

/// What is known of the rows in a frame.
trait Window {
    /// Row `place`, which is merged row `row`, enters.
    fn enter(&mut self, place: usize, row: usize);
    /// It leaves again; rows leave in the order in which they entered.
    fn leave(&mut self, place: usize, row: usize);
    /// All are gone; instead it holds what is carried to the span with this number.
    fn begin(&mut self, span: usize, carry: &Carry);
    /// What is in it, to be carried on.
    fn carry(&self) -> Result<Carry, OperatorError>;
}

impl Rows<'_> {
    /// Moves a window over the frames and calls `value` with it and the row's number at each. Gives what it holds
    /// before the rows at the cuts.
    fn slide<W: Window>(&self, window: &mut W, mut value: impl FnMut(&W, usize)) -> Result<Vec<Carry>, OperatorError> {
        let nulls = self.arg.and_then(|arg| arg.logical_nulls()).filter(|nulls| nulls.null_count() > 0);
        let counts = |row: usize| {
            nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row))
                && self.filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
        };
        let merged = |place: usize| self.sequence.merged[place] as usize;
        let (mut number, mut carries, mut cuts) = (0, Vec::with_capacity(self.cuts.len()), self.cuts.iter().peekable());
        for (i, span) in self.sequence.spans.iter().enumerate() {
            let frames = &self.frames[number..number + span.zone.len()];
            let mut held = frames.first().map_or(0..0, |frame| frame.start..frame.start);
            window.begin(i, self.carry_of(span));
            for (place, frame) in span.zone.clone().zip(frames) {
                if cuts.next_if(|cut| cut.place == place).is_some() {
                    debug_assert_eq!(held.end, place, "running frames end where the next row begins");
                    carries.push(window.carry()?);
                }
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
        Ok(carries)
    }

    fn carry_of<'b>(&self, span: &'b Span) -> &'b Carry {
        span.carries.as_ref().and_then(|carries| carries.get(self.number)).unwrap_or(&Carry::Nothing)
    }

    /// The call's value for each frame.
    pub(super) fn aggregate(&self, call: &OverCall) -> Result<Answer, OperatorError> {
        let arg = || self.arg.ok_or_else(|| OperatorError(format!("{} needs an argument", call.label)));
        match &call.function {
            OverFunction::Count => {
                let mut counts = Vec::with_capacity(self.frames.len());
                let carries = self.slide(&mut Count(0), |count, _| counts.push(count.0))?;
                Ok(Answer { values: shared(Int64Array::from(counts)), failed: Vec::new(), carries })
            }
            OverFunction::Sum | OverFunction::Avg if arg()?.data_type().is_floating() => {
                self.floats(arg()?, matches!(call.function, OverFunction::Avg))
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
            OverFunction::Min => self.best(arg()?, false),
            OverFunction::Max => self.best(arg()?, true),
            other => Err(OperatorError(format!("{other:?} is no aggregate"))),
        }
    }

    fn floats(&self, arg: &ArrayRef, average: bool) -> Result<Answer, OperatorError> {
        let arg = cast(arg, &DataType::Float64)?;
        let values = arg.as_primitive::<Float64Type>();
        let mut out: Vec<Option<f64>> = Vec::with_capacity(self.frames.len());
        let mut window = FloatSum { values: values.values(), sum: ExactSum::default(), count: 0 };
        let carries = self.slide(&mut window, |window, _| {
            let divisor = if average { window.count as f64 } else { 1.0 };
            out.push((window.count > 0).then(|| window.sum.value() / divisor));
        })?;
        Ok(Answer { values: shared(Float64Array::from(out)), failed: Vec::new(), carries })
    }

    /// `result` of the sum and the count.
    fn integers(
        &self,
        arg: &ArrayRef,
        result: impl Fn(i128, i64) -> Result<i128, String>,
        data_type: &DataType,
    ) -> Result<Answer, OperatorError> {
        let (mut out, mut failed) = (Vec::with_capacity(self.frames.len()), Vec::new());
        let mut window = IntegerSum { values: integers(arg)?, sum: 0, count: 0 };
        let fits = |value: i128| match data_type {
            DataType::Int64 => i64::try_from(value).is_ok(),
            DataType::UInt64 => u64::try_from(value).is_ok(),
            _ => true,
        };
        let carries = self.slide(&mut window, |window, number| {
            if window.count == 0 {
                return out.push(None);
            }
            let value = result(window.sum, window.count).and_then(|value| match fits(value) {
                true => Ok(value),
                false => Err(format!("the sum {value} is out of range of {data_type}")),
            });
            out.push(value.map_err(|message| failed.push((number, message))).ok());
        })?;
        let values: ArrayRef = match data_type {
            DataType::Decimal128(precision, scale) => {
                shared(Decimal128Array::from(out).with_precision_and_scale(*precision, *scale)?)
            }
            DataType::UInt64 => shared(out.into_iter().map(|v| v.map(|v| v as u64)).collect::<UInt64Array>()),
            DataType::Int64 => shared(out.into_iter().map(|v| v.map(|v| v as i64)).collect::<Int64Array>()),
            other => return Err(OperatorError(format!("integers cannot be added up to {other}"))),
        };
        Ok(Answer { values, failed, carries })
    }

    /// The least or greatest value.
    fn best(&self, arg: &ArrayRef, greatest: bool) -> Result<Answer, OperatorError> {
        // What is carried stands behind the values of the rows.
        let (mut parts, mut carried, mut len) = (vec![arg.as_ref()], Vec::new(), arg.len() as u32);
        for span in &self.sequence.spans {
            let value = if let Carry::Best(value) = self.carry_of(span) { value.as_ref() } else { None };
            carried.push(value.map(|_| len));
            parts.extend(value.map(|value| value.as_ref()));
            len += u32::from(value.is_some());
        }
        let arg = if parts.len() == 1 { arg.clone() } else { concat(&parts)? };
        let mut out: Vec<Option<u32>> = Vec::with_capacity(self.frames.len());
        let keys = Comparable::new(&arg)?;
        let mut window = Best { values: &arg, keys, greatest, carried, candidates: VecDeque::new() };
        let carries = self.slide(&mut window, |window, _| out.push(window.first()))?;
        Ok(Answer { values: take(&arg, &UInt32Array::from(out), None)?, failed: Vec::new(), carries })
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

    fn begin(&mut self, _: usize, carry: &Carry) {
        self.0 = if let Carry::Count(count) = carry { *count } else { 0 };
    }

    fn carry(&self) -> Result<Carry, OperatorError> {
        Ok(Carry::Count(self.0))
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

    fn begin(&mut self, _: usize, carry: &Carry) {
        (self.sum, self.count) = if let Carry::Integers(sum, count) = carry { (*sum, *count) } else { (0, 0) };
    }

    fn carry(&self) -> Result<Carry, OperatorError> {
        Ok(Carry::Integers(self.sum, self.count))
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

    fn begin(&mut self, _: usize, carry: &Carry) {
        (self.sum, self.count) = match carry {
            Carry::Floats(sum, count) => (sum.clone(), *count),
            _ => (ExactSum::default(), 0),
        };
    }

    fn carry(&self) -> Result<Carry, OperatorError> {
        Ok(Carry::Floats(self.sum.clone(), self.count))
    }
}

struct Best<'a> {
    /// By merged row, then those carried.
    values: &'a ArrayRef,
    keys: Comparable,
    greatest: bool,
    /// By span: which of the values is carried to it.
    carried: Vec<Option<u32>>,
    /// Places and merged rows; the first is the best.
    candidates: VecDeque<(usize, u32)>,
}

impl Best<'_> {
    fn first(&self) -> Option<u32> {
        self.candidates.front().map(|(_, row)| *row)
    }
}

impl Window for Best<'_> {
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

    fn begin(&mut self, span: usize, _: &Carry) {
        self.candidates.clear();
        // Running frames lose no row, so no place of its own is needed.
        self.candidates.extend(self.carried[span].map(|row| (usize::MAX, row)));
    }

    fn carry(&self) -> Result<Carry, OperatorError> {
        let best = self.first().map(|row| take(self.values, &UInt32Array::from(vec![row]), None));
        Ok(Carry::Best(best.transpose()?))
    }
}
