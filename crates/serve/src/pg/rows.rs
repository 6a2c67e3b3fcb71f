//! Rows on the wire.

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, FieldRef, Schema};
use bytes::{BufMut, BytesMut};
use pgwire::api::Type;
use pgwire::messages::data::RowDescription;
use tidemill_connect::{json_value, pg_text};
use tidemill_engine::SqlError;

use super::binary;
use super::types;

/// How the columns of a result go out.
#[derive(Clone, Debug)]
pub struct RowFormat {
    columns: Vec<(FieldRef, Type, bool)>,
}

impl RowFormat {
    /// The columns of a schema in the formats that the client asked for (none: text; one: for all).
    pub fn new(schema: &Schema, formats: &[i16]) -> Result<Self, SqlError> {
        if formats.len() > 1 && formats.len() != schema.fields().len() {
            let message = format!(
                "bind message has {} result formats but query has {} columns",
                formats.len(),
                schema.fields().len()
            );
            return Err(SqlError::new("08P01", message));
        }
        let format = |i: usize| formats.get(if formats.len() == 1 { 0 } else { i }) == Some(&1);
        let columns =
            schema.fields().iter().enumerate().map(|(i, field)| (field.clone(), types::of_field(field), format(i)));
        let columns = columns.collect();
        Ok(RowFormat { columns })
    }

    /// What the client learns about the columns.
    pub fn description(&self, schema: &Schema) -> RowDescription {
        let fields = schema.fields().iter().zip(&self.columns);
        RowDescription::new(fields.map(|(field, (_, _, binary))| types::describe(field, i16::from(*binary))).collect())
    }

    /// A batch, ready to be written row by row.
    pub fn batch(&self, batch: &RecordBatch) -> Result<Rows, SqlError> {
        if batch.num_columns() != self.columns.len() {
            return Err(SqlError::internal("the result has other columns than were described"));
        }
        let columns = self.columns.iter().zip(batch.columns()).map(|((field, pg_type, binary), array)| {
            let array = if *binary { binary::normalise(array.as_ref(), pg_type)? } else { array.clone() };
            Ok(Column { array, field: field.clone(), pg_type: pg_type.clone(), binary: *binary })
        });
        Ok(Rows { columns: columns.collect::<Result<_, SqlError>>()?, len: batch.num_rows(), text: String::new() })
    }
}

struct Column {
    array: ArrayRef,
    field: FieldRef,
    pg_type: Type,
    binary: bool,
}

/// A batch on its way out.
pub struct Rows {
    columns: Vec<Column>,
    len: usize,
    text: String,
}

impl Rows {
    /// How many rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Appends the `DataRow` message of a row.
    pub fn put(&mut self, out: &mut BytesMut, row: usize) -> Result<(), SqlError> {
        let at = out.len();
        let done = self.put_row(out, row);
        if done.is_err() {
            // Half a message must not go out.
            out.truncate(at);
        }
        done
    }

    fn put_row(&mut self, out: &mut BytesMut, row: usize) -> Result<(), SqlError> {
        out.put_u8(b'D');
        let message = binary::begin(out);
        out.put_i16(self.columns.len() as i16);
        for column in &self.columns {
            if column.array.is_null(row) {
                out.put_i32(-1);
                continue;
            }
            let start = binary::begin(out);
            if !(column.binary && binary::put(out, column.array.as_ref(), row, &column.pg_type)?) {
                self.text.clear();
                write_text(column.array.as_ref(), row, &column.field, &mut self.text);
                out.put_slice(self.text.as_bytes());
            }
            binary::end(out, start);
        }
        let len = out.len() - message + 4;
        let len = i32::try_from(len).map_err(|_| SqlError::new("54000", "a row is too long for one message"))?;
        out[message - 4..message].copy_from_slice(&len.to_be_bytes());
        Ok(())
    }
}

/// The text of a value that is not NULL; structs and maps as JSON, as clients know no types of ours.
pub fn write_text(array: &dyn Array, row: usize, field: &FieldRef, out: &mut String) {
    match array.data_type() {
        DataType::Struct(_) | DataType::Map(_, _) => json_value(array, row, field, out),
        _ => pg_text(array, row, field, out),
    }
}
