//! Where two multisets of rows differ, found in little memory while they are the same.
//!
//! The first pass keeps of each side only sums: rows are put into buckets by a hash of their content, and a bucket
//! holds the sum of another hash of each of its rows, times its multiplicity. Equal multisets have equal sums; others have
//! equal sums with a chance of about 2⁻⁶⁴. Only rows of buckets that differ are looked at in a second pass.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float32Array, Float64Array, Int64Array, RecordBatch, UInt32Array};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{DataType, Float32Type, Float64Type, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use tidemill_delta::{Delta, batch, consolidate, hash_bytes};

/// Buckets: a difference in a few rows makes a second look at a thousandth of all others.
const BUCKETS: usize = 4096;
/// Rows looked at together.
const CHUNK: usize = 8192;
/// How many rows of both sides a second pass keeps at most.
pub(crate) const KEPT: u64 = 100_000;

/// What is known of the rows of one bucket.
#[derive(Clone, Copy, Default)]
struct Bucket {
    /// Zero if both sides are the same.
    sum: u64,
    /// Rows of both sides.
    rows: u64,
}

/// The sums of both sides. Rows of the one are added, those of the other taken away.
pub(crate) struct Sums {
    buckets: Vec<Bucket>,
    hasher: RowHasher,
}

/// Finds a number for a row's content.
struct RowHasher {
    converter: RowConverter,
}

impl RowHasher {
    fn new(schema: &SchemaRef) -> Result<Self, ArrowError> {
        let fields = schema.fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
        Ok(RowHasher { converter: RowConverter::new(fields)? })
    }

    /// Calls back with each row's place in the delta and hash.
    fn each(&self, delta: &Delta, mut take: impl FnMut(usize, u64)) -> Result<(), ArrowError> {
        for start in (0..delta.len()).step_by(CHUNK) {
            let rows = delta.rows.slice(start, CHUNK.min(delta.len() - start));
            if rows.num_columns() == 0 {
                (0..rows.num_rows()).for_each(|i| take(start + i, hash_bytes(&[])));
                continue;
            }
            let rows = self.converter.convert_columns(rows.columns())?;
            rows.iter().enumerate().for_each(|(i, row)| take(start + i, hash_bytes(row.data())));
        }
        Ok(())
    }
}

fn bucket_of(hash: u64) -> usize {
    // The frozen hash's lowest bits; the sum takes all of them, mixed by a multiplication.
    (hash % BUCKETS as u64) as usize
}

impl Sums {
    /// Of no rows of this shape.
    pub(crate) fn new(schema: &SchemaRef) -> Result<Self, ArrowError> {
        Ok(Sums { buckets: vec![Bucket::default(); BUCKETS], hasher: RowHasher::new(schema)? })
    }

    /// Adds rows times `sign`.
    pub(crate) fn add(&mut self, delta: &Delta, sign: i64) -> Result<(), ArrowError> {
        let delta = normal(delta);
        let buckets = &mut self.buckets;
        self.hasher.each(&delta, |i, hash| {
            let bucket = &mut buckets[bucket_of(hash)];
            let mixed = hash.rotate_left(32).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ hash;
            bucket.sum = bucket.sum.wrapping_add(mixed.wrapping_mul((delta.weight(i) * sign) as u64));
            bucket.rows += 1;
        })
    }

    /// What to look at again: the buckets that differ, as far as their rows can be kept; `None` if all are the same.
    pub(crate) fn suspects(self) -> Option<Suspects> {
        let mut wanted = vec![false; BUCKETS];
        let (mut rows, mut some, mut more) = (0, false, false);
        for (wanted, bucket) in wanted.iter_mut().zip(&self.buckets).filter(|(_, bucket)| bucket.sum != 0) {
            // One bucket is always looked at.
            *wanted = !some || rows + bucket.rows <= KEPT;
            more |= !*wanted;
            rows += if *wanted { bucket.rows } else { 0 };
            some = true;
        }
        some.then_some(Suspects { wanted, more, hasher: self.hasher, found: Vec::new() })
    }
}

/// The rows of buckets that differ.
pub(crate) struct Suspects {
    wanted: Vec<bool>,
    /// There are more differences than are looked at.
    pub(crate) more: bool,
    hasher: RowHasher,
    found: Vec<Delta>,
}

impl Suspects {
    /// Keeps the rows that are to be looked at, times `sign`.
    pub(crate) fn add(&mut self, delta: &Delta, sign: i64) -> Result<(), ArrowError> {
        let delta = normal(delta);
        let mut keep: Vec<u32> = Vec::new();
        self.hasher.each(&delta, |i, hash| keep.extend(self.wanted[bucket_of(hash)].then_some(i as u32)))?;
        if keep.is_empty() {
            return Ok(());
        }
        let kept = if delta.rows.num_columns() == 0 { delta } else { delta.take(&UInt32Array::from(keep))? };
        self.found.push(if sign < 0 { kept.negate() } else { kept });
        Ok(())
    }

    /// Each row that differs, with how often it occurs more (less: negative) on the side that was added.
    pub(crate) fn difference(self, schema: &SchemaRef) -> Result<Delta, ArrowError> {
        consolidate(schema, &self.found)
    }
}

/// The rows with one zero and one NaN only: which of 0 and -0 stands for both in a group is nobody's promise.
fn normal(delta: &Delta) -> Delta {
    let floats = |f: &Arc<arrow::datatypes::Field>| f.data_type().is_floating();
    let schema = delta.rows.schema();
    if !schema.fields().iter().any(floats) {
        return delta.clone();
    }
    let columns = delta.rows.columns().iter().map(normal_column).collect();
    Delta { rows: batch(schema, columns, delta.len()), diff: delta.diff.clone() }
}

fn normal_column(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float64 => {
            let floats = column.as_primitive::<Float64Type>();
            let one = |v: &f64| if v.is_nan() { f64::NAN } else { v + 0.0 };
            let values: ScalarBuffer<f64> = floats.values().iter().map(one).collect();
            Arc::new(Float64Array::new(values, floats.nulls().cloned()))
        }
        DataType::Float32 => {
            let floats = column.as_primitive::<Float32Type>();
            let one = |v: &f32| if v.is_nan() { f32::NAN } else { v + 0.0 };
            let values: ScalarBuffer<f32> = floats.values().iter().map(one).collect();
            Arc::new(Float32Array::new(values, floats.nulls().cloned()))
        }
        _ => column.clone(),
    }
}

/// A difference as rows for the user: the side, how often, and the row.
pub(crate) fn as_rows(difference: &Delta, schema: SchemaRef) -> RecordBatch {
    let weights = difference.weights();
    let side = |weight: &i64| if *weight > 0 { "view" } else { "query" };
    let sides: arrow::array::StringArray = weights.values().iter().map(|w| Some(side(w))).collect();
    let times = Int64Array::from_iter_values(weights.values().iter().map(|w| w.saturating_abs()));
    let mut columns: Vec<ArrayRef> = vec![Arc::new(sides), Arc::new(times)];
    columns.extend(difference.rows.columns().iter().cloned());
    batch(schema, columns, difference.len())
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;
    use arrow::datatypes::{Field, Schema};

    use super::*;

    fn schema() -> SchemaRef {
        let fields = vec![Field::new("k", DataType::Utf8, true), Field::new("v", DataType::Float64, true)];
        Arc::new(Schema::new(fields))
    }

    fn delta(rows: &[(Option<&str>, f64, i64)]) -> Delta {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|r| r.0).collect::<StringArray>()),
            Arc::new(rows.iter().map(|r| Some(r.1)).collect::<Float64Array>()),
        ];
        let weights = Int64Array::from_iter_values(rows.iter().map(|r| r.2));
        Delta::new(batch(schema(), columns, rows.len()), weights)
    }

    fn compare(view: &[Delta], query: &[Delta]) -> Option<Vec<(Option<String>, f64, i64)>> {
        let mut sums = Sums::new(&schema()).unwrap();
        view.iter().for_each(|d| sums.add(d, 1).unwrap());
        query.iter().for_each(|d| sums.add(d, -1).unwrap());
        let mut suspects = sums.suspects()?;
        view.iter().for_each(|d| suspects.add(d, 1).unwrap());
        query.iter().for_each(|d| suspects.add(d, -1).unwrap());
        assert!(!suspects.more);
        let found = suspects.difference(&schema()).unwrap();
        let (k, v) = (found.rows.column(0).as_string::<i32>(), found.rows.column(1).as_primitive::<Float64Type>());
        let row = |i: usize| (k.is_valid(i).then(|| k.value(i).to_owned()), v.value(i), found.weight(i));
        Some((0..found.len()).map(row).collect())
    }

    #[test]
    fn equal_multisets_are_equal_however_they_are_cut() {
        let view =
            [delta(&[(Some("a"), 1.0, 2), (None, -0.0, 1)]), delta(&[(Some("a"), 1.0, -1), (Some("b"), 2.0, 1)])];
        let query = [delta(&[(Some("b"), 2.0, 1), (None, 0.0, 1), (Some("a"), 1.0, 1)])];
        assert_eq!(compare(&view, &query), None);
        assert_eq!(compare(&[], &[]), None);
    }

    #[test]
    fn each_difference_is_found_with_its_side_and_count() {
        let rows: Vec<_> = (0..20_000).map(|i| (None, f64::from(i), 1)).collect();
        let view = [delta(&rows), delta(&[(Some("only here"), 1.0, 3), (Some("twice"), 1.0, 2)])];
        let query = [delta(&rows), delta(&[(Some("only there"), 1.0, 1), (Some("twice"), 1.0, 1)])];
        let found = compare(&view, &query).unwrap();
        let row = |k: &str, weight| (Some(k.to_owned()), 1.0, weight);
        assert_eq!(found, vec![row("only here", 3), row("only there", -1), row("twice", 1)]);
    }

    #[test]
    fn a_difference_in_everything_is_cut_off() {
        let rows: Vec<_> = (0..300_000).map(|i| (None, f64::from(i), 1)).collect();
        let mut sums = Sums::new(&schema()).unwrap();
        sums.add(&delta(&rows), 1).unwrap();
        let mut suspects = sums.suspects().unwrap();
        assert!(suspects.more);
        suspects.add(&delta(&rows), 1).unwrap();
        let found = suspects.difference(&schema()).unwrap().len() as u64;
        assert!(found > KEPT / 2 && found <= KEPT, "{found}");
    }
}
