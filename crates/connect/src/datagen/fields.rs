//! What one column of made-up rows holds.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, ListArray, StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use arrow::compute::{can_cast_types, cast, nullif};
use arrow::datatypes::{DataType, Field, TimeUnit};

use crate::SourceError;

/// Letters that random texts are made of.
const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
/// 2024-01-01 00:00:00 UTC in microseconds: where times begin unless told otherwise.
const FIRST_TIME: i64 = 1_704_067_200_000_000;
/// A day in microseconds: how far random times spread.
const DAY: i64 = 86_400_000_000;

/// Makes the values of a column.
#[derive(Clone)]
pub(super) struct Maker {
    data_type: DataType,
    seed: u64,
    /// The share of nulls, as a bound on a random number; 0: none.
    nulls: u64,
    how: How,
}

/// How values come about, before they are cast to the column's type.
#[derive(Clone)]
enum How {
    /// From a first value on, one up for each row; seconds for times.
    Sequence(i64),
    /// One of these texts.
    Values(Arc<[String]>),
    Boolean,
    Whole(i64, i64),
    Real(f64, f64),
    Time(i64, i64),
    Text(usize, u64),
    Members(Vec<(Arc<Field>, Maker)>),
    Items(Arc<Field>, Box<Maker>, i64),
}

/// A field's options.
#[derive(Default)]
struct Told<'a> {
    kind: Option<&'a str>,
    min: Option<&'a str>,
    max: Option<&'a str>,
    length: Option<&'a str>,
    cardinality: Option<&'a str>,
    values: Option<&'a str>,
    nulls: Option<&'a str>,
}

impl<'a> Told<'a> {
    fn new(name: &str, options: &[(&str, &str, &'a str)]) -> Result<Self, SourceError> {
        let mut told = Told::default();
        for (_, option, value) in options.iter().filter(|(field, ..)| field.eq_ignore_ascii_case(name)) {
            let slot = match *option {
                "kind" => &mut told.kind,
                "min" | "start" => &mut told.min,
                "max" => &mut told.max,
                "length" => &mut told.length,
                "cardinality" => &mut told.cardinality,
                "values" => &mut told.values,
                "nulls" => &mut told.nulls,
                _ => return Err(SourceError(format!("generated columns have no option 'fields.{name}.{option}'"))),
            };
            *slot = Some(value);
        }
        Ok(told)
    }
}

fn number<T: std::str::FromStr>(name: &str, told: Option<&str>, default: T) -> Result<T, SourceError> {
    let Some(text) = told else { return Ok(default) };
    text.parse().map_err(|_| SourceError(format!("'{text}', given for generated column '{name}', is not a number")))
}

/// A time as a text that Arrow reads, or as microseconds.
fn time(name: &str, told: Option<&str>, default: i64) -> Result<i64, SourceError> {
    let Some(text) = told else { return Ok(default) };
    arrow::compute::kernels::cast_utils::string_to_timestamp_nanos(text)
        .map(|nanos| nanos / 1000)
        .or_else(|_| number(name, Some(text), default))
}

impl Maker {
    pub(super) fn new(
        data_type: &DataType,
        name: &str,
        options: &[(&str, &str, &str)],
        seed: u64,
    ) -> Result<Self, SourceError> {
        let told = Told::new(name, options)?;
        let nulls: f64 = number(name, told.nulls, 0.0)?;
        let how = Self::how(data_type, name, options, seed, &told)?;
        let made = how.data_type(data_type);
        if !can_cast_types(&made, data_type) {
            return Err(SourceError(format!("column '{name}' is {data_type}, which cannot be generated from {made}")));
        }
        let nulls = (nulls.clamp(0.0, 1.0) * u64::MAX as f64) as u64;
        Ok(Maker { data_type: data_type.clone(), seed: mix(seed ^ 0x5EED), nulls, how })
    }

    fn how(
        data_type: &DataType,
        name: &str,
        options: &[(&str, &str, &str)],
        seed: u64,
        told: &Told<'_>,
    ) -> Result<How, SourceError> {
        let is_time = matches!(data_type, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64);
        match told.kind {
            Some("sequence") if is_time => return Ok(How::Sequence(time(name, told.min, FIRST_TIME)?)),
            Some("sequence") => return Ok(How::Sequence(number(name, told.min, 0)?)),
            None | Some("random") => {}
            Some(other) => {
                return Err(SourceError(format!("'fields.{name}.kind' is '{other}', not sequence or random")));
            }
        }
        if let Some(values) = told.values {
            return Ok(How::Values(values.split(',').map(|value| value.trim().to_string()).collect()));
        }
        if is_time {
            let min = time(name, told.min, FIRST_TIME)?;
            return Ok(How::Time(min, time(name, told.max, min + DAY)?.max(min)));
        }
        Ok(match data_type {
            DataType::Boolean => How::Boolean,
            DataType::Float16 | DataType::Float32 | DataType::Float64 | DataType::Decimal128(..) => {
                let min = number(name, told.min, 0.0)?;
                How::Real(min, number(name, told.max, min + 1.0)?)
            }
            t if t.is_integer() => {
                let (min, most) = (number(name, told.min, 0)?, number(name, told.cardinality, 1000)?);
                How::Whole(min, number(name, told.max, min + most - 1)?.max(min))
            }
            DataType::Struct(fields) => {
                let member = |(i, field): (usize, &Arc<Field>)| {
                    let path = format!("{name}.{}", field.name());
                    let maker = Maker::new(field.data_type(), &path, options, mix(seed.wrapping_add(i as u64)))?;
                    Ok((field.clone(), maker))
                };
                How::Members(fields.iter().enumerate().map(member).collect::<Result<_, SourceError>>()?)
            }
            DataType::List(field) => {
                let length: i64 = number(name, told.length, 3)?;
                let item = format!("{name}.{}", field.name());
                How::Items(field.clone(), Box::new(Maker::new(field.data_type(), &item, options, mix(seed))?), length)
            }
            _ => How::Text(number(name, told.length, 8)?, number(name, told.cardinality, 0)?),
        })
    }

    pub(super) fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// The maker of a field inside.
    pub(super) fn inside(&self, fields: &[String]) -> Option<&Maker> {
        match (fields, &self.how) {
            ([], _) => Some(self),
            ([name, rest @ ..], How::Members(members)) => {
                members.iter().find(|(field, _)| field.name() == name)?.1.inside(rest)
            }
            _ => None,
        }
    }

    /// The values of these rows.
    pub(super) fn array(&self, rows: &[u64]) -> Result<ArrayRef, SourceError> {
        let failed = |e: arrow::error::ArrowError| SourceError(e.to_string());
        let made = self.made(rows)?;
        let array =
            if made.data_type() == &self.data_type { made } else { cast(&made, &self.data_type).map_err(failed)? };
        if self.nulls == 0 {
            return Ok(array);
        }
        let null = |row: &u64| mix(!self.random(*row)) < self.nulls;
        nullif(&array, &BooleanArray::from_iter(rows.iter().map(|row| Some(null(row))))).map_err(failed)
    }

    fn random(&self, row: u64) -> u64 {
        mix(self.seed.wrapping_add(row.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }

    fn made(&self, rows: &[u64]) -> Result<ArrayRef, SourceError> {
        let below = |row: &u64, n: u64| ((u128::from(self.random(*row)) * u128::from(n)) >> 64) as u64;
        let between = |row: &u64, min: i64, max: i64| min + below(row, max.abs_diff(min).saturating_add(1)) as i64;
        Ok(match &self.how {
            How::Sequence(first) => self.sequence(*first, rows),
            How::Values(values) => {
                let one = |row| &values[below(row, values.len() as u64) as usize];
                Arc::new(StringArray::from_iter_values(rows.iter().map(one)))
            }
            How::Boolean => Arc::new(BooleanArray::from_iter(rows.iter().map(|row| Some(below(row, 2) == 1)))),
            How::Whole(min, max) => Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| between(r, *min, *max)))),
            How::Real(min, max) => {
                let unit = |row: &u64| (self.random(*row) >> 11) as f64 / (1u64 << 53) as f64;
                Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| min + unit(row) * (max - min))))
            }
            How::Time(min, max) => {
                Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|r| between(r, *min, *max))))
            }
            How::Text(length, cardinality) => {
                let word = |row: &u64| match cardinality {
                    0 => word(self.random(*row), *length),
                    n => word(mix(self.seed ^ below(row, *n)), *length),
                };
                Arc::new(StringArray::from_iter_values(rows.iter().map(word)))
            }
            How::Members(members) => {
                let arrays = members.iter().map(|(_, maker)| maker.array(rows)).collect::<Result<Vec<_>, _>>()?;
                let fields = members.iter().map(|(field, _)| field.clone()).collect();
                Arc::new(StructArray::try_new(fields, arrays, None).map_err(|e| SourceError(e.to_string()))?)
            }
            How::Items(field, maker, length) => {
                let length = (*length).max(0) as u64;
                let items: Vec<u64> = rows.iter().flat_map(|row| (0..length).map(move |i| row * length + i)).collect();
                let offsets = OffsetBuffer::from_lengths(rows.iter().map(|_| length as usize));
                let list = ListArray::try_new(field.clone(), offsets, maker.array(&items)?, None::<NullBuffer>);
                Arc::new(list.map_err(|e| SourceError(e.to_string()))?)
            }
        })
    }

    fn sequence(&self, first: i64, rows: &[u64]) -> ArrayRef {
        match self.data_type {
            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
                let second = |row: &u64| first + *row as i64 * 1_000_000;
                Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(second)))
            }
            DataType::Boolean => {
                Arc::new(BooleanArray::new(BooleanBuffer::collect_bool(rows.len(), |i| rows[i] % 2 == 1), None))
            }
            _ => Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| first + *row as i64))),
        }
    }
}

impl How {
    /// What it makes, for a column of this type.
    fn data_type(&self, column: &DataType) -> DataType {
        let time = DataType::Timestamp(TimeUnit::Microsecond, None);
        match (self, column) {
            (How::Sequence(_), DataType::Timestamp(..) | DataType::Date32 | DataType::Date64) => time,
            (How::Sequence(_), DataType::Boolean) | (How::Boolean, _) => DataType::Boolean,
            (How::Sequence(_) | How::Whole(..), _) => DataType::Int64,
            (How::Values(_) | How::Text(..), _) => DataType::Utf8,
            (How::Real(..), _) => DataType::Float64,
            (How::Time(..), _) => time,
            (How::Members(_) | How::Items(..), _) => column.clone(),
        }
    }
}

fn word(mut random: u64, length: usize) -> String {
    let letter = |i: usize| {
        if i > 0 && i.is_multiple_of(8) {
            random = mix(random);
        }
        LETTERS[(random >> (i % 8 * 8)) as usize % LETTERS.len()] as char
    };
    (0..length).map(letter).collect()
}

/// SplitMix64's mixing step: spreads a number over all 64 bits.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
