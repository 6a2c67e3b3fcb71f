//! `MIN` and `MAX`: of values that only come, the best so far; of values that come and go, an
//! ordered multiset per group.
//!
//! Numbers, dates and times are compared as 64-bit integers in an order-preserving form; all other
//! types as bytes of arrow's comparable row format.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, UInt64Type};
use arrow::row::{RowConverter, Rows, SortField};
use tidemill_delta::zero_nulls;

use super::{GroupStates, shared};
use crate::OperatorError;
use crate::saved::numbers;

/// Values in a form whose order is the values' order.
enum Order {
    /// As an `i64`.
    Integer { data_type: DataType, via: Via },
    /// As bytes.
    Bytes { converter: RowConverter },
}

/// How a type becomes an `i64`.
#[derive(Clone, Copy)]
enum Via {
    Signed,
    Unsigned,
    Float,
}

impl Order {
    fn of(data_type: DataType) -> Result<Self, OperatorError> {
        let via = match &data_type {
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Some(Via::Signed),
            DataType::Date32 | DataType::Date64 | DataType::Time32(_) | DataType::Time64(_) => Some(Via::Signed),
            DataType::Timestamp(_, _) | DataType::Duration(_) => Some(Via::Signed),
            DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => Some(Via::Unsigned),
            DataType::Float32 | DataType::Float64 => Some(Via::Float),
            _ => None,
        };
        Ok(match via {
            Some(via) => Order::Integer { data_type, via },
            None => Order::Bytes { converter: RowConverter::new(vec![SortField::new(data_type)])? },
        })
    }
}

fn to_integers(values: &ArrayRef, via: Via) -> Result<Int64Array, OperatorError> {
    let widened = match values.data_type() {
        DataType::Date32 | DataType::Time32(_) => cast(&cast(values, &DataType::Int32)?, &DataType::Int64)?,
        _ => match via {
            Via::Signed => cast(values, &DataType::Int64)?,
            Via::Unsigned => cast(values, &DataType::UInt64)?,
            Via::Float => cast(values, &DataType::Float64)?,
        },
    };
    Ok(match via {
        Via::Signed => widened.as_primitive::<Int64Type>().clone(),
        Via::Unsigned => widened.as_primitive::<UInt64Type>().unary(|v| (v ^ (1 << 63)) as i64),
        Via::Float => widened.as_primitive::<Float64Type>().unary(float_order),
    })
}

/// IEEE 754's total order as an integer, with NaN greatest, as in PostgreSQL.
fn float_order(value: f64) -> i64 {
    let bits = if value.is_nan() { f64::NAN.to_bits() as i64 } else { value.to_bits() as i64 };
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

fn from_integers(values: Int64Array, data_type: &DataType, via: Via) -> Result<ArrayRef, OperatorError> {
    let widened: ArrayRef = match via {
        Via::Signed => shared(values),
        Via::Unsigned => shared(values.unary::<_, UInt64Type>(|v| (v as u64) ^ (1 << 63)) as UInt64Array),
        Via::Float => {
            let floats: Float64Array =
                values.unary(|bits: i64| f64::from_bits((bits ^ (((bits >> 63) as u64) >> 1) as i64) as u64));
            shared(floats)
        }
    };
    Ok(match data_type {
        DataType::Date32 | DataType::Time32(_) => cast(&cast(&widened, &DataType::Int32)?, data_type)?,
        _ => cast(&widened, data_type)?,
    })
}

fn encode(converter: &RowConverter, values: &ArrayRef) -> Result<Rows, OperatorError> {
    Ok(converter.convert_columns(std::slice::from_ref(values))?)
}

/// A column's values that are not NULL, to be compared by their rows.
pub(crate) enum Comparable {
    /// As 64-bit integers.
    Integers(Int64Array),
    /// As bytes.
    Bytes(Rows),
}

impl Comparable {
    /// The values of a column.
    pub(crate) fn new(values: &ArrayRef) -> Result<Self, OperatorError> {
        Ok(match Order::of(values.data_type().clone())? {
            Order::Integer { via, .. } => Comparable::Integers(to_integers(values, via)?),
            Order::Bytes { converter } => Comparable::Bytes(encode(&converter, values)?),
        })
    }

    /// The order of two rows' values.
    #[inline]
    pub(crate) fn compare(&self, a: usize, b: usize) -> Ordering {
        match self {
            Comparable::Integers(values) => values.value(a).cmp(&values.value(b)),
            Comparable::Bytes(rows) => rows.row(a).cmp(&rows.row(b)),
        }
    }
}

/// The least or greatest of values that are never taken back.
pub(super) struct AppendOnlyExtreme {
    order: Order,
    greatest: bool,
    integers: Vec<i64>,
    bytes: Vec<Option<Box<[u8]>>>,
    seen: Vec<bool>,
}

impl AppendOnlyExtreme {
    pub(super) fn states(data_type: DataType, greatest: bool) -> Result<Box<dyn GroupStates>, OperatorError> {
        let order = Order::of(data_type)?;
        Ok(Box::new(AppendOnlyExtreme { order, greatest, integers: Vec::new(), bytes: Vec::new(), seen: Vec::new() }))
    }
}

impl GroupStates for AppendOnlyExtreme {
    fn grow(&mut self, len: usize) {
        let len = len.max(self.seen.len());
        match self.order {
            Order::Integer { .. } => {
                self.integers.resize(len, 0);
                self.seen.resize(len, false);
            }
            Order::Bytes { .. } => self.bytes.resize(len, None),
        }
    }

    fn update(&mut self, ids: &[u32], _diffs: Option<&[i64]>, args: &[ArrayRef]) -> Result<(), OperatorError> {
        let nulls = args[0].logical_nulls().filter(|n| n.null_count() > 0);
        let valid = |i: usize| nulls.as_ref().is_none_or(|n| n.is_valid(i));
        match &self.order {
            Order::Integer { via, .. } => {
                let values = to_integers(&args[0], *via)?;
                for (i, id) in ids.iter().enumerate().filter(|(i, _)| valid(*i)) {
                    let (value, id) = (values.values()[i], *id as usize);
                    let best = &mut self.integers[id];
                    if !self.seen[id] || (if self.greatest { value > *best } else { value < *best }) {
                        *best = value;
                        self.seen[id] = true;
                    }
                }
            }
            Order::Bytes { converter } => {
                let rows = encode(converter, &args[0])?;
                for (i, id) in ids.iter().enumerate().filter(|(i, _)| valid(*i)) {
                    let value = rows.row(i);
                    let best = &mut self.bytes[*id as usize];
                    let better = best
                        .as_ref()
                        .is_none_or(|b| if self.greatest { value.as_ref() > &**b } else { value.as_ref() < &**b });
                    if better {
                        *best = Some(value.as_ref().into());
                    }
                }
            }
        }
        Ok(())
    }

    fn values(&self, ids: &[u32], _failed: &mut Vec<String>) -> Result<ArrayRef, OperatorError> {
        match &self.order {
            Order::Integer { data_type, via } => {
                let values = ids.iter().map(|id| self.seen[*id as usize].then(|| self.integers[*id as usize]));
                from_integers(values.collect(), data_type, *via)
            }
            Order::Bytes { converter } => decode(converter, ids.iter().map(|id| self.bytes[*id as usize].as_deref())),
        }
    }

    fn release(&mut self, id: u32) {
        match self.order {
            Order::Integer { .. } => self.seen[id as usize] = false,
            Order::Bytes { .. } => self.bytes[id as usize] = None,
        }
    }

    fn bytes(&self) -> usize {
        self.integers.capacity() * 9
            + self.bytes.capacity() * 16
            + self.bytes.iter().flatten().map(|b| b.len()).sum::<usize>()
    }

    fn width(&self) -> usize {
        1
    }

    fn save(&self, ids: &[u32], _places: &mut Vec<u32>) -> Result<Vec<ArrayRef>, OperatorError> {
        Ok(zero_nulls(vec![self.values(ids, &mut Vec::new())?]))
    }

    fn load(&mut self, ids: &[u32], columns: &[ArrayRef]) -> Result<(), OperatorError> {
        self.update(ids, None, columns)
    }
}

/// Values from their bytes; `None` becomes NULL.
fn decode<'a>(
    converter: &RowConverter,
    values: impl Iterator<Item = Option<&'a [u8]>>,
) -> Result<ArrayRef, OperatorError> {
    let parser = converter.parser();
    let mut present = Vec::new();
    let mut places = Vec::new();
    for value in values {
        places.push(value.map(|bytes| {
            present.push(parser.parse(bytes));
            present.len() as u32 - 1
        }));
    }
    let mut columns = converter.convert_rows(present)?;
    let column = columns.pop().ok_or_else(|| OperatorError("a value without a column".into()))?;
    Ok(arrow::compute::take(&column, &arrow::array::UInt32Array::from(places), None)?)
}

/// The least or greatest of values that come and go.
pub(super) struct Extreme {
    order: Order,
    greatest: bool,
    integers: Vec<BTreeMap<i64, i64>>,
    bytes: Vec<BTreeMap<Box<[u8]>, i64>>,
    entries: usize,
}

impl Extreme {
    pub(super) fn states(data_type: DataType, greatest: bool) -> Result<Box<dyn GroupStates>, OperatorError> {
        let order = Order::of(data_type)?;
        Ok(Box::new(Extreme { order, greatest, integers: Vec::new(), bytes: Vec::new(), entries: 0 }))
    }

    /// The first or last value of a multiset whose count is positive.
    fn best<'a, K: Ord>(&self, values: &'a BTreeMap<K, i64>) -> Option<&'a K> {
        let entry = if self.greatest { values.last_key_value() } else { values.first_key_value() };
        entry.map(|(key, _)| key)
    }
}

fn count<K: Ord>(values: &mut BTreeMap<K, i64>, key: K, diff: i64, entries: &mut usize) {
    match values.entry(key) {
        std::collections::btree_map::Entry::Vacant(entry) => {
            entry.insert(diff);
            *entries += 1;
        }
        std::collections::btree_map::Entry::Occupied(mut entry) => {
            *entry.get_mut() += diff;
            if *entry.get() == 0 {
                entry.remove();
                *entries -= 1;
            }
        }
    }
}

impl GroupStates for Extreme {
    fn grow(&mut self, len: usize) {
        match self.order {
            Order::Integer { .. } => self.integers.resize_with(len.max(self.integers.len()), BTreeMap::new),
            Order::Bytes { .. } => self.bytes.resize_with(len.max(self.bytes.len()), BTreeMap::new),
        }
    }

    fn update(&mut self, ids: &[u32], diffs: Option<&[i64]>, args: &[ArrayRef]) -> Result<(), OperatorError> {
        let nulls = args[0].logical_nulls().filter(|n| n.null_count() > 0);
        let valid = |i: usize| nulls.as_ref().is_none_or(|n| n.is_valid(i));
        match &self.order {
            Order::Integer { via, .. } => {
                let values = to_integers(&args[0], *via)?;
                for (i, id) in ids.iter().enumerate().filter(|(i, _)| valid(*i)) {
                    let diff = diffs.map_or(1, |d| d[i]);
                    count(&mut self.integers[*id as usize], values.values()[i], diff, &mut self.entries);
                }
            }
            Order::Bytes { converter } => {
                let rows = encode(converter, &args[0])?;
                for (i, id) in ids.iter().enumerate().filter(|(i, _)| valid(*i)) {
                    let key: Box<[u8]> = rows.row(i).as_ref().into();
                    count(&mut self.bytes[*id as usize], key, diffs.map_or(1, |d| d[i]), &mut self.entries);
                }
            }
        }
        Ok(())
    }

    fn values(&self, ids: &[u32], _failed: &mut Vec<String>) -> Result<ArrayRef, OperatorError> {
        match &self.order {
            Order::Integer { data_type, via } => {
                let values = ids.iter().map(|id| self.best(&self.integers[*id as usize]).copied());
                from_integers(values.collect(), data_type, *via)
            }
            Order::Bytes { converter } => {
                decode(converter, ids.iter().map(|id| self.best(&self.bytes[*id as usize]).map(|b| &**b)))
            }
        }
    }

    fn release(&mut self, id: u32) {
        match self.order {
            Order::Integer { .. } => self.entries -= std::mem::take(&mut self.integers[id as usize]).len(),
            Order::Bytes { .. } => self.entries -= std::mem::take(&mut self.bytes[id as usize]).len(),
        }
    }

    fn bytes(&self) -> usize {
        (self.integers.capacity() + self.bytes.capacity()) * 24 + self.entries * 40
    }

    fn is_multiset(&self) -> bool {
        true
    }

    /// A value, and how often it is there.
    fn width(&self) -> usize {
        2
    }

    fn save(&self, ids: &[u32], places: &mut Vec<u32>) -> Result<Vec<ArrayRef>, OperatorError> {
        let mut counts: Vec<i64> = Vec::new();
        let mut listed = |place: usize, count: i64| {
            places.push(place as u32);
            counts.push(count);
        };
        let groups = || ids.iter().enumerate().map(|(place, id)| (place, *id as usize));
        let values = match &self.order {
            Order::Integer { data_type, via } => {
                groups().for_each(|(place, id)| self.integers[id].values().for_each(|count| listed(place, *count)));
                let values = groups().flat_map(|(_, id)| self.integers[id].keys().copied());
                from_integers(Int64Array::from_iter_values(values), data_type, *via)?
            }
            Order::Bytes { converter } => {
                groups().for_each(|(place, id)| self.bytes[id].values().for_each(|count| listed(place, *count)));
                decode(converter, groups().flat_map(|(_, id)| self.bytes[id].keys().map(|bytes| Some(&**bytes))))?
            }
        };
        Ok(vec![values, shared(Int64Array::from(counts))])
    }

    fn load(&mut self, ids: &[u32], columns: &[ArrayRef]) -> Result<(), OperatorError> {
        let counts = numbers::<Int64Type>(columns, 1)?;
        self.update(ids, Some(counts.values()), &columns[..1])
    }
}
