//! Arrow IPC streams from untrusted hands.
//!
//! Arrow's reader checks what it reads but was made for friends: it may panic on some broken streams,
//! and a few bytes can claim rows without end, or one long text a million times. So panics are caught
//! here, and the size of what the columns would unfold to is bounded by the size of the body.

pub(crate) mod compressed;

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::Buffer;
use arrow::compute::concat_batches;
use arrow::datatypes::DataType;
use arrow::ipc::reader::StreamDecoder;

use crate::conform::conform;
use crate::shape::Shape;
use crate::source::{Decoded, SourceError};

/// How many rows a byte of the body may claim: a truth value takes a bit.
const ROWS_PER_BYTE: usize = 8;
/// How many bytes a byte of the body may unfold to, beyond the allowance.
const UNFOLDED_PER_BYTE: usize = 32;
/// So much any body may unfold to.
const ALLOWANCE: usize = 16 << 20;
/// How deep types may nest.
const MAX_DEPTH: usize = 32;

/// Decodes a whole stream.
pub(crate) fn decode(shape: &Shape, body: &[u8]) -> Result<Decoded, SourceError> {
    catch_unwind(AssertUnwindSafe(|| decode_trusting(shape, body)))
        .unwrap_or_else(|_| Err(SourceError("not a valid Arrow stream".into())))
}

fn decode_trusting(shape: &Shape, body: &[u8]) -> Result<Decoded, SourceError> {
    let failed = |e: arrow::error::ArrowError| SourceError(format!("Arrow stream: {e}"));
    compressed::check(body, &mut most_bytes(body.len()))?;
    let mut buffer = Buffer::from(body);
    let mut decoder = StreamDecoder::new();
    let mut budget = Budget::new(body.len());
    let mut batches = Vec::new();
    let mut bad = Vec::new();
    let mut rows = 0;
    while !buffer.is_empty() {
        let Some(batch) = decoder.decode(&mut buffer).map_err(failed)? else { break };
        budget.spend(&batch)?;
        let decoded = conform(shape, &batch, rows + 1).map_err(failed)?;
        rows += batch.num_rows() as u64;
        batches.push(decoded.rows);
        bad.extend(decoded.bad);
    }
    decoder.finish().map_err(failed)?;
    if decoder.schema().is_none() && !body.is_empty() {
        return Err(SourceError("not an Arrow stream".into()));
    }
    Ok(Decoded { rows: concat_batches(&shape.schema, &batches).map_err(failed)?, bad })
}

/// How many bytes a body of this size may unfold to.
pub(crate) fn most_bytes(body: usize) -> usize {
    body.saturating_mul(UNFOLDED_PER_BYTE).saturating_add(ALLOWANCE)
}

fn refused() -> SourceError {
    SourceError("the Arrow stream unfolds to far more than its size".into())
}

/// What a body may still unfold to.
pub(crate) struct Budget {
    rows: usize,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(body: usize) -> Self {
        Budget { rows: body.saturating_mul(ROWS_PER_BYTE), bytes: most_bytes(body) }
    }

    /// Takes a batch's share.
    pub(crate) fn spend(&mut self, batch: &RecordBatch) -> Result<(), SourceError> {
        self.rows = self.rows.checked_sub(batch.num_rows()).ok_or_else(refused)?;
        for column in batch.columns() {
            let size = unfolded(column, self.rows.saturating_add(batch.num_rows()), 0)?;
            self.bytes = self.bytes.checked_sub(size).ok_or_else(refused)?;
        }
        Ok(())
    }
}

/// How many bytes an array has once all sharing inside it is gone.
fn unfolded(array: &ArrayRef, max_rows: usize, depth: usize) -> Result<usize, SourceError> {
    if array.len() > max_rows || depth > MAX_DEPTH {
        return Err(SourceError("the Arrow stream claims more values than it has room for".into()));
    }
    let views = |views: &[u128]| views.iter().map(|v| (*v & 0xffff_ffff) as usize).sum::<usize>();
    Ok(match array.data_type() {
        DataType::Utf8View => views(array.as_string_view().views()),
        DataType::BinaryView => views(array.as_binary_view().views()),
        DataType::Dictionary(..) => {
            let values = array.as_any_dictionary().values();
            // The longest value might be meant by every key.
            let longest = match values.data_type() {
                DataType::Utf8 => longest(values.as_string::<i32>().offsets().lengths()),
                DataType::LargeUtf8 => longest(values.as_string::<i64>().offsets().lengths()),
                DataType::Binary => longest(values.as_binary::<i32>().offsets().lengths()),
                DataType::LargeBinary => longest(values.as_binary::<i64>().offsets().lengths()),
                other => other.primitive_width().ok_or_else(|| {
                    SourceError(format!("a dictionary of {other} in an Arrow stream is not supported"))
                })?,
            };
            array.len().saturating_mul(longest)
        }
        DataType::RunEndEncoded(..)
        | DataType::ListView(_)
        | DataType::LargeListView(_)
        | DataType::Union(..)
        | DataType::FixedSizeList(..) => {
            return Err(SourceError(format!("{} in an Arrow stream is not supported", array.data_type())));
        }
        DataType::Struct(_) => {
            let parts = array.as_struct().columns().iter().map(|c| unfolded(c, max_rows, depth + 1));
            parts.sum::<Result<usize, _>>()?
        }
        DataType::List(_) => unfolded(array.as_list::<i32>().values(), max_rows, depth + 1)?,
        DataType::LargeList(_) => unfolded(array.as_list::<i64>().values(), max_rows, depth + 1)?,
        DataType::Map(..) => {
            unfolded(array.as_map().keys(), max_rows, depth + 1)?
                + unfolded(array.as_map().values(), max_rows, depth + 1)?
        }
        other => array.len().saturating_mul(other.primitive_width().unwrap_or(8)),
    })
}

fn longest(lengths: impl Iterator<Item = usize>) -> usize {
    lengths.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{DictionaryArray, Int32Array, Int64Array, NullArray, StringArray, StringViewArray};
    use arrow::datatypes::{Field, Int32Type, Schema, SchemaRef, TimeUnit};
    use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};

    use super::*;
    use crate::format::{Format, FormatKind};

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("a", DataType::Int32, false),
            Field::new("b", DataType::Utf8, true),
            Field::new("t", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        ]))
    }

    pub(super) fn stream(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
        let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)));
        let batch = batch.expect("valid");
        let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).expect("valid");
        writer.write(&batch).expect("valid");
        writer.write(&batch).expect("valid");
        writer.finish().expect("valid");
        writer.into_inner().expect("finished")
    }

    fn decode(body: &[u8]) -> Result<Decoded, SourceError> {
        Format::new(FormatKind::Arrow).decode(&schema(), None, &[0], body)
    }

    #[test]
    fn columns_are_matched_and_cast() {
        let words: DictionaryArray<Int32Type> = vec!["x", "y", "x"].into_iter().collect();
        let body = stream(vec![
            ("b", Arc::new(words)),
            ("other", Arc::new(NullArray::new(3))),
            ("a", Arc::new(Int64Array::from(vec![Some(1), Some(1 << 40), None]))),
        ]);
        let decoded = decode(&body).expect("decodes");
        assert_eq!(decoded.rows.num_rows(), 2);
        assert_eq!(decoded.rows.column(1).as_string::<i32>().value(1), "x");
        let bad: Vec<(u64, &str)> = decoded.bad.iter().map(|b| (b.position, b.reason.as_str())).collect();
        let unfit = "column a: the value does not fit the column's type";
        let null = "column a: NULL where a value has to be";
        assert_eq!(bad, [(2, unfit), (3, null), (5, unfit), (6, null)]);
    }

    #[test]
    fn broken_streams_are_errors() {
        let body = stream(vec![
            ("a", Arc::new(Int32Array::from(vec![1, 2, 3]))),
            ("b", Arc::new(StringArray::from(vec!["x", "y", "z"]))),
        ]);
        assert_eq!(decode(&body).expect("decodes").rows.num_rows(), 6);
        for cut in 1..body.len() {
            // Cut between two messages it is a shorter stream.
            if let Ok(decoded) = decode(&body[..cut]) {
                assert!(decoded.rows.num_rows() <= 6);
            }
        }
        for i in 0..body.len() {
            let mut broken = body.clone();
            broken[i] ^= 0xff;
            let _ = decode(&broken);
        }
        assert!(decode(b"not arrow at all").is_err());
    }

    #[test]
    fn a_compressed_buffer_cannot_claim_more_than_there_is_room_for() {
        // Message 2 of a stream that says it is compressed, and whose first buffer claims 2^55 bytes.
        let rows: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
        let batch = RecordBatch::try_from_iter([("a", rows)]).expect("valid");
        for codec in [arrow::ipc::CompressionType::LZ4_FRAME, arrow::ipc::CompressionType::ZSTD] {
            let options = IpcWriteOptions::default().try_with_compression(Some(codec)).expect("a codec");
            let mut writer = StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options).expect("valid");
            // Whether there is the codec is a matter of the build.
            if writer.write(&batch).is_err() {
                continue;
            }
            let mut body = writer.into_inner().expect("finished");
            assert_eq!(decode(&body).expect("decodes").rows.num_rows(), 1000);
            let claim = body.windows(8).rposition(|bytes| bytes == 8000u64.to_le_bytes()).expect("a length");
            body[claim..claim + 8].copy_from_slice(&(1u64 << 55).to_le_bytes());
            let error = decode(&body).expect_err("refused");
            assert!(error.to_string().contains("unfolds to far more"), "{error}");
        }
    }

    #[test]
    fn what_unfolds_without_end_is_refused() {
        let long = "x".repeat(1 << 20);
        let views = StringViewArray::from_iter_values(std::iter::repeat_n(long.as_str(), 1));
        let many = arrow::compute::take(&views, &Int32Array::from(vec![0; 100_000]), None).expect("valid");
        assert!(decode(&stream(vec![("a", Arc::new(Int32Array::from(vec![1; 100_000]))), ("b", many)])).is_err());
    }
}
