//! `SUM`, `AVG`, variance and standard deviation.
//!
//! Integers and decimals are summed as `i128`, floats exactly ([`ExactSum`]), so that taking a value
//! back leaves no trace and the order of rows never matters.

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, UInt64Type};

use tidemill_plan::{ExactSum, Moments, decimal_average};

use super::{GroupStates, exact, shared};
use crate::OperatorError;
use crate::saved::numbers;

/// Whether integers hold the sum.
fn is_integer(data_type: &DataType) -> bool {
    data_type.is_integer()
}

/// The rows' values as `i128`, with their validity.
fn for_integers(values: &ArrayRef, mut each: impl FnMut(usize, i128)) -> Result<(), OperatorError> {
    match values.data_type() {
        DataType::Decimal128(_, _) => {
            let values = values.as_primitive::<Decimal128Type>();
            (0..values.len()).filter(|i| values.is_valid(*i)).for_each(|i| each(i, values.value(i)));
        }
        DataType::UInt64 => {
            let values = values.as_primitive::<UInt64Type>();
            (0..values.len()).filter(|i| values.is_valid(*i)).for_each(|i| each(i, i128::from(values.value(i))));
        }
        _ => {
            let values = cast(values, &DataType::Int64)?;
            let values = values.as_primitive::<Int64Type>();
            if values.null_count() == 0 {
                values.values().iter().enumerate().for_each(|(i, v)| each(i, i128::from(*v)));
            } else {
                (0..values.len()).filter(|i| values.is_valid(*i)).for_each(|i| each(i, i128::from(values.value(i))));
            }
        }
    }
    Ok(())
}

fn for_floats(values: &ArrayRef, mut each: impl FnMut(usize, f64)) -> Result<(), OperatorError> {
    let values = cast(values, &DataType::Float64)?;
    let values = values.as_primitive::<Float64Type>();
    (0..values.len()).filter(|i| values.is_valid(*i)).for_each(|i| each(i, values.value(i)));
    Ok(())
}

/// Sums and counts of values that are not NULL.
enum Sums {
    Integers(Vec<i128>),
    Floats(Vec<ExactSum>),
}

/// The common part of `SUM` and `AVG`.
struct Totals {
    sums: Sums,
    counts: Vec<i64>,
}

impl Totals {
    fn new(arg: &DataType) -> Result<Self, OperatorError> {
        let sums = if is_integer(arg) || matches!(arg, DataType::Decimal128(_, _)) {
            Sums::Integers(Vec::new())
        } else if arg.is_floating() {
            Sums::Floats(Vec::new())
        } else {
            return Err(OperatorError(format!("cannot sum values of type {arg}")));
        };
        Ok(Totals { sums, counts: Vec::new() })
    }

    fn grow(&mut self, len: usize) {
        let len = len.max(self.counts.len());
        self.counts.resize(len, 0);
        match &mut self.sums {
            Sums::Integers(sums) => sums.resize(len, 0),
            Sums::Floats(sums) => sums.resize(len, ExactSum::default()),
        }
    }

    fn update(&mut self, ids: &[u32], diffs: Option<&[i64]>, values: &ArrayRef) -> Result<(), OperatorError> {
        let counts = &mut self.counts;
        let diff = |i: usize| diffs.map_or(1, |d| d[i]);
        match &mut self.sums {
            Sums::Integers(sums) => for_integers(values, |i, value| {
                let id = ids[i] as usize;
                sums[id] = sums[id].wrapping_add(value.wrapping_mul(i128::from(diff(i))));
                counts[id] += diff(i);
            }),
            Sums::Floats(sums) => for_floats(values, |i, value| {
                let id = ids[i] as usize;
                sums[id].add(value, diff(i));
                counts[id] += diff(i);
            }),
        }
    }

    fn release(&mut self, id: u32) {
        self.counts[id as usize] = 0;
        match &mut self.sums {
            Sums::Integers(sums) => sums[id as usize] = 0,
            Sums::Floats(sums) => sums[id as usize] = ExactSum::default(),
        }
    }

    fn save(&self, ids: &[u32]) -> Vec<ArrayRef> {
        let counts = Int64Array::from_iter_values(ids.iter().map(|id| self.counts[*id as usize]));
        let sums = match &self.sums {
            // Any 128 bits, whatever a decimal of this precision may be.
            Sums::Integers(sums) => shared(Decimal128Array::from_iter_values(ids.iter().map(|id| sums[*id as usize]))),
            Sums::Floats(sums) => shared(exact::save(ids.iter().map(|id| &sums[*id as usize]))),
        };
        vec![sums, shared(counts)]
    }

    fn load(&mut self, ids: &[u32], columns: &[ArrayRef]) -> Result<(), OperatorError> {
        let counts = numbers::<Int64Type>(columns, 1)?.values();
        ids.iter().zip(counts).for_each(|(id, count)| self.counts[*id as usize] = *count);
        match &mut self.sums {
            Sums::Integers(sums) => {
                let saved = numbers::<Decimal128Type>(columns, 0)?.values();
                ids.iter().zip(saved).for_each(|(id, sum)| sums[*id as usize] = *sum);
            }
            Sums::Floats(sums) => {
                for (id, sum) in ids.iter().zip(exact::load(columns, 0)?) {
                    sums[*id as usize] = sum?;
                }
            }
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        let each = match &self.sums {
            Sums::Integers(_) => 24,
            Sums::Floats(_) => 72,
        };
        self.counts.capacity() * each
    }
}

/// `SUM`.
pub(super) struct Sum {
    totals: Totals,
    data_type: DataType,
}

impl Sum {
    pub(super) fn states(arg: &DataType, data_type: &DataType) -> Result<Box<dyn GroupStates>, OperatorError> {
        Ok(Box::new(Sum { totals: Totals::new(arg)?, data_type: data_type.clone() }))
    }
}

impl GroupStates for Sum {
    fn grow(&mut self, len: usize) {
        self.totals.grow(len);
    }

    fn update(&mut self, ids: &[u32], diffs: Option<&[i64]>, args: &[ArrayRef]) -> Result<(), OperatorError> {
        self.totals.update(ids, diffs, &args[0])
    }

    fn values(&self, ids: &[u32], failed: &mut Vec<String>) -> Result<ArrayRef, OperatorError> {
        let some = |id: &u32| (self.totals.counts[*id as usize] != 0).then_some(*id as usize);
        let mut out_of_range = |sum: i128| failed.push(format!("the sum {sum} is out of range of {}", self.data_type));
        match (&self.totals.sums, &self.data_type) {
            (Sums::Floats(sums), _) => {
                let values: Float64Array = ids.iter().map(|id| some(id).map(|i| sums[i].value())).collect();
                Ok(cast(&values, &self.data_type)?)
            }
            (Sums::Integers(sums), DataType::Decimal128(precision, scale)) => {
                let values: Decimal128Array = ids.iter().map(|id| some(id).map(|i| sums[i])).collect();
                Ok(shared(values.with_precision_and_scale(*precision, *scale)?))
            }
            (Sums::Integers(sums), DataType::UInt64) => {
                let value = |i: usize| u64::try_from(sums[i]).map_err(|_| out_of_range(sums[i])).ok();
                let mut value = value;
                let values: UInt64Array = ids.iter().map(|id| some(id).and_then(&mut value)).collect();
                Ok(shared(values))
            }
            (Sums::Integers(sums), _) => {
                let mut value = |i: usize| i64::try_from(sums[i]).map_err(|_| out_of_range(sums[i])).ok();
                let values: Int64Array = ids.iter().map(|id| some(id).and_then(&mut value)).collect();
                Ok(cast(&values, &self.data_type)?)
            }
        }
    }

    fn release(&mut self, id: u32) {
        self.totals.release(id);
    }

    fn bytes(&self) -> usize {
        self.totals.bytes()
    }

    fn width(&self) -> usize {
        2
    }

    fn save(&self, ids: &[u32], _places: &mut Vec<u32>) -> Result<Vec<ArrayRef>, OperatorError> {
        Ok(self.totals.save(ids))
    }

    fn load(&mut self, ids: &[u32], columns: &[ArrayRef]) -> Result<(), OperatorError> {
        self.totals.load(ids, columns)
    }
}

/// `AVG`.
pub(super) struct Average {
    totals: Totals,
    /// Digits after the point of a decimal argument.
    arg_scale: i8,
    data_type: DataType,
}

impl Average {
    pub(super) fn states(arg: &DataType, data_type: &DataType) -> Result<Box<dyn GroupStates>, OperatorError> {
        let arg_scale = if let DataType::Decimal128(_, scale) = arg { *scale } else { 0 };
        Ok(Box::new(Average { totals: Totals::new(arg)?, arg_scale, data_type: data_type.clone() }))
    }
}

impl GroupStates for Average {
    fn grow(&mut self, len: usize) {
        self.totals.grow(len);
    }

    fn update(&mut self, ids: &[u32], diffs: Option<&[i64]>, args: &[ArrayRef]) -> Result<(), OperatorError> {
        self.totals.update(ids, diffs, &args[0])
    }

    fn values(&self, ids: &[u32], failed: &mut Vec<String>) -> Result<ArrayRef, OperatorError> {
        let counts = &self.totals.counts;
        let some = |id: &u32| (counts[*id as usize] != 0).then_some(*id as usize);
        match (&self.totals.sums, &self.data_type) {
            (Sums::Floats(sums), _) => {
                let value = |i: usize| sums[i].value() / counts[i] as f64;
                Ok(shared(ids.iter().map(|id| some(id).map(value)).collect::<Float64Array>()))
            }
            (Sums::Integers(sums), DataType::Decimal128(precision, scale)) => {
                let digits = u32::try_from(i32::from(*scale) - i32::from(self.arg_scale)).unwrap_or(0);
                let mut value = |i: usize| {
                    let average = decimal_average(sums[i], counts[i], digits);
                    if average.is_none() {
                        failed.push(format!("the average of {} values is out of range", counts[i]));
                    }
                    average
                };
                let values: Decimal128Array = ids.iter().map(|id| some(id).and_then(&mut value)).collect();
                Ok(shared(values.with_precision_and_scale(*precision, *scale)?))
            }
            (Sums::Integers(sums), _) => {
                let unit = 10f64.powi(i32::from(self.arg_scale));
                let value = |i: usize| sums[i] as f64 / unit / counts[i] as f64;
                Ok(shared(ids.iter().map(|id| some(id).map(value)).collect::<Float64Array>()))
            }
        }
    }

    fn release(&mut self, id: u32) {
        self.totals.release(id);
    }

    fn bytes(&self) -> usize {
        self.totals.bytes()
    }

    fn width(&self) -> usize {
        2
    }

    fn save(&self, ids: &[u32], _places: &mut Vec<u32>) -> Result<Vec<ArrayRef>, OperatorError> {
        Ok(self.totals.save(ids))
    }

    fn load(&mut self, ids: &[u32], columns: &[ArrayRef]) -> Result<(), OperatorError> {
        self.totals.load(ids, columns)
    }
}

/// `VAR_POP`, `VAR_SAMP`, `STDDEV_POP`, `STDDEV_SAMP`: exact sums of the values and of their squares.
pub(super) struct Variance {
    sample: bool,
    root: bool,
    groups: Vec<Moments>,
}

impl Variance {
    pub(super) fn new(sample: bool, root: bool) -> Self {
        Variance { sample, root, groups: Vec::new() }
    }
}

impl GroupStates for Variance {
    fn grow(&mut self, len: usize) {
        self.groups.resize(len.max(self.groups.len()), Moments::default());
    }

    fn update(&mut self, ids: &[u32], diffs: Option<&[i64]>, args: &[ArrayRef]) -> Result<(), OperatorError> {
        let groups = &mut self.groups;
        for_floats(&args[0], |i, value| groups[ids[i] as usize].add(value, diffs.map_or(1, |d| d[i])))
    }

    fn values(&self, ids: &[u32], _failed: &mut Vec<String>) -> Result<ArrayRef, OperatorError> {
        let value = |id: &u32| {
            let variance = self.groups[*id as usize].variance(self.sample);
            if self.root { variance.map(f64::sqrt) } else { variance }
        };
        Ok(shared(ids.iter().map(value).collect::<Float64Array>()))
    }

    fn release(&mut self, id: u32) {
        self.groups[id as usize] = Moments::default();
    }

    fn bytes(&self) -> usize {
        self.groups.capacity() * size_of::<Moments>()
    }

    fn width(&self) -> usize {
        3
    }

    fn save(&self, ids: &[u32], _places: &mut Vec<u32>) -> Result<Vec<ArrayRef>, OperatorError> {
        let sums = || ids.iter().map(|id| self.groups[*id as usize].sums());
        let counts = Int64Array::from_iter_values(sums().map(|(count, ..)| count));
        let (values, squares) = (exact::save(sums().map(|s| s.1)), exact::save(sums().map(|s| s.2)));
        Ok(vec![shared(counts), shared(values), shared(squares)])
    }

    fn load(&mut self, ids: &[u32], columns: &[ArrayRef]) -> Result<(), OperatorError> {
        let counts = numbers::<Int64Type>(columns, 0)?.values();
        let sums = exact::load(columns, 1)?.zip(exact::load(columns, 2)?);
        for ((id, count), (sum, squares)) in ids.iter().zip(counts).zip(sums) {
            self.groups[*id as usize] = Moments::from_sums(*count, sum?, squares?);
        }
        Ok(())
    }
}
