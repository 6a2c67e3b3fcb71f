//! Deltas as bytes between processes: a stream of Arrow IPC with one batch. The multiplicities travel
//! as one more column.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow::error::ArrowError;
use arrow::ipc::MetadataVersion;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};

use crate::{Delta, batch};

const DIFF: &str = "diff";

/// Appends the delta's bytes to `out`.
pub fn encode(delta: &Delta, out: &mut Vec<u8>) -> Result<(), ArrowError> {
    let mut fields: Vec<Arc<Field>> = delta.rows.schema().fields().iter().cloned().collect();
    let mut columns: Vec<ArrayRef> = delta.rows.columns().to_vec();
    if let Some(diff) = &delta.diff {
        fields.push(Arc::new(Field::new(DIFF, DataType::Int64, false)));
        columns.push(Arc::new(diff.clone()));
    }
    out.push(u8::from(delta.diff.is_some()));
    let schema = Arc::new(Schema::new(fields));
    // Small alignment keeps the many small batches of a quiet system small.
    let options = IpcWriteOptions::try_new(8, false, MetadataVersion::V5)?;
    let mut writer = StreamWriter::try_new_with_options(&mut *out, &schema, options)?;
    writer.write(&batch(schema.clone(), columns, delta.len()))?;
    writer.finish()
}

/// Reads what [`encode`] wrote.
pub fn decode(bytes: &[u8]) -> Result<Delta, ArrowError> {
    let (has_diff, body) = bytes.split_first().ok_or_else(|| ArrowError::IpcError("empty delta".into()))?;
    let rows = StreamReader::try_new(body, None)?
        .next()
        .ok_or_else(|| ArrowError::IpcError("a delta without a batch".into()))??;
    if *has_diff == 0 {
        return Ok(Delta::inserts(rows));
    }
    let len = rows.num_rows();
    let mut columns = rows.columns().to_vec();
    let last = columns.pop().ok_or_else(|| ArrowError::IpcError("a delta without multiplicities".into()))?;
    let fields = &rows.schema_ref().fields()[..columns.len()];
    let schema = Arc::new(Schema::new(fields.to_vec()));
    Ok(Delta { rows: batch(schema, columns, len), diff: Some(last.as_primitive::<Int64Type>().clone()) })
}
