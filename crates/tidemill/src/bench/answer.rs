//! The checksum of an answer, by the rules that the recorded ones were made with.
//!
//! A line per row: columns parted by `|`, null as `\N`, times as `YYYY-MM-DD HH:MM:SS.mmm`, decimals
//! with three places. The lines are sorted by bytes, each ended by a newline.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, SchemaRef, TimeUnit, TimestampMillisecondType};
use arrow::error::ArrowError;
use sha2::{Digest, Sha256};
use tidemill_connect::pg_text;

/// An answer's size and checksum.
#[derive(Debug, PartialEq, Eq)]
pub struct Checksum {
    /// How many rows.
    pub rows: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

/// The checksum of an answer over some of its columns; none given: over all.
pub fn checksum(schema: &SchemaRef, batches: &[RecordBatch], columns: &[&str]) -> Result<Checksum, ArrowError> {
    let numbers = match columns {
        [] => (0..schema.fields().len()).collect(),
        names => names.iter().map(|name| schema.index_of(name)).collect::<Result<Vec<_>, _>>()?,
    };
    let mut lines = Vec::new();
    for batch in batches {
        let texts = numbers.iter().map(|i| Texts::new(batch.column(*i), &schema.fields()[*i]));
        let texts = texts.collect::<Result<Vec<_>, _>>()?;
        lines.extend((0..batch.num_rows()).map(|row| line(&texts, row)));
    }
    lines.sort_unstable();
    let mut sha = Sha256::new();
    lines.iter().for_each(|line| sha.update(line));
    let sha256 = sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Checksum { rows: lines.len() as u64, sha256 })
}

fn line(columns: &[Texts], row: usize) -> String {
    let mut line = String::new();
    for (i, column) in columns.iter().enumerate() {
        if i > 0 {
            line.push('|');
        }
        column.push(row, &mut line);
    }
    line.push('\n');
    line
}

/// A column whose values can be written.
struct Texts {
    array: ArrayRef,
    field: FieldRef,
}

impl Texts {
    fn new(array: &ArrayRef, field: &FieldRef) -> Result<Self, ArrowError> {
        let to = match array.data_type() {
            DataType::Timestamp(..) => DataType::Timestamp(TimeUnit::Millisecond, None),
            DataType::Decimal128(..) | DataType::Decimal256(..) => DataType::Decimal128(38, 3),
            other => other.clone(),
        };
        Ok(Texts { array: cast(array, &to)?, field: field.clone() })
    }

    fn push(&self, row: usize, into: &mut String) {
        if self.array.is_null(row) {
            return into.push_str("\\N");
        }
        match self.array.data_type() {
            DataType::Timestamp(..) => {
                let time = self.array.as_primitive::<TimestampMillisecondType>().value_as_datetime(row);
                let time = time.map(|time| time.format("%Y-%m-%d %H:%M:%S%.3f").to_string());
                into.push_str(time.as_deref().unwrap_or("out of range"));
            }
            DataType::Decimal128(..) => {
                into.push_str(&self.array.as_primitive::<arrow::datatypes::Decimal128Type>().value_as_string(row));
            }
            _ => pg_text(&self.array, row, &self.field, into),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Decimal128Array, Int64Array, StringArray, TimestampMicrosecondArray};

    use super::*;

    #[test]
    fn lines_are_as_recorded() {
        let decimals = Decimal128Array::from(vec![908, 1]).with_precision_and_scale(23, 3).unwrap();
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("n", Arc::new(Int64Array::from(vec![2, 1]))),
            ("d", Arc::new(decimals)),
            ("t", Arc::new(TimestampMicrosecondArray::from(vec![1_704_067_200_001_000, 0]))),
            ("s", Arc::new(StringArray::from(vec![None, Some("x")]))),
        ];
        let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap();
        let schema: SchemaRef = batch.schema();
        let wanted = "1|0.001|1970-01-01 00:00:00.000|x\n2|0.908|2024-01-01 00:00:00.001|\\N\n";
        let wanted: String = Sha256::digest(wanted).iter().map(|byte| format!("{byte:02x}")).collect();
        let all = checksum(&schema, std::slice::from_ref(&batch), &[]).unwrap();
        assert_eq!(all, Checksum { rows: 2, sha256: wanted });
        let digest: String = Sha256::digest("1\n2\n").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(checksum(&schema, &[batch], &["n"]).unwrap().sha256, digest);
    }
}
