//! Rows from the bytes of `COPY ... FROM STDIN`.
//!
//! Bytes wait only until there are enough of them to decode; then they become Arrow columns. The engine takes all rows
//! at once (all or nothing), so that their size is limited.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use tidemill_connect::{BadRow, CsvOptions, Decoder, Format, FormatKind, PgTextOptions};
use tidemill_engine::{CopyFormat, CopyOptions, Relation, SqlError, state};

/// Bytes that are decoded together.
const PIECE: usize = 256 << 10;
/// The longest record.
const MAX_RECORD: usize = 64 << 20;
/// The most memory that the rows of one `COPY` may take.
const MAX_ROWS: usize = 1 << 30;

/// Reads records.
pub struct CopyReader {
    table: String,
    schema: SchemaRef,
    /// Columns that must have a value.
    required: Vec<usize>,
    decoder: Decoder,
    pending: Vec<u8>,
    /// Whether the first line, which names the columns, is still to come.
    header: bool,
    batches: Vec<RecordBatch>,
    held: usize,
}

impl CopyReader {
    /// Reads these columns of a table.
    pub fn new(table: &Relation, columns: &[usize], options: &CopyOptions) -> Result<Self, SqlError> {
        let schema = table.schema.project(columns).map_err(|e| SqlError::internal(e.to_string()))?;
        let required = (0..columns.len()).filter(|i| !schema.field(*i).is_nullable()).collect();
        let fields: Vec<_> = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
        let schema = Arc::new(Schema::new(fields));
        let (delimiter, null) = (options.delimiter, options.null.clone());
        let kind = match options.format {
            CopyFormat::Text => FormatKind::PgText(PgTextOptions { delimiter, header: false, null }),
            CopyFormat::Csv => FormatKind::Csv(CsvOptions { delimiter, quote: b'"', header: false, null }),
        };
        let decoder =
            Format::new(kind).decoder(&schema, None, &[]).map_err(|e| SqlError::not_supported(e.to_string()))?;
        let (pending, batches) = (Vec::new(), Vec::new());
        let table = table.name.clone();
        Ok(CopyReader { table, schema, required, decoder, pending, header: options.header, batches, held: 0 })
    }

    /// Takes bytes as they come, cut anywhere.
    pub fn push(&mut self, data: &[u8]) -> Result<(), SqlError> {
        self.pending.extend_from_slice(data);
        if self.pending.len() < PIECE {
            return Ok(());
        }
        self.decode(false)?;
        if self.pending.len() > MAX_RECORD {
            return Err(SqlError::new(state::PROGRAM_LIMIT_EXCEEDED, "a record of COPY is too long"));
        }
        Ok(())
    }

    /// The end of the bytes: all rows.
    pub fn finish(mut self) -> Result<Vec<RecordBatch>, SqlError> {
        self.decode(true)?;
        Ok(self.batches)
    }

    fn decode(&mut self, last: bool) -> Result<(), SqlError> {
        if self.header {
            // The names are not looked at: PostgreSQL goes by the columns' order too.
            let Some(end) = self.pending.iter().position(|b| *b == b'\n') else { return Ok(()) };
            self.pending.drain(..=end);
            self.decoder.set_line(1);
            self.header = false;
        }
        let done = self.decoder.decode(&self.pending, last, usize::MAX);
        self.pending.drain(..done);
        let decoded = self.decoder.take().map_err(|e| SqlError::internal(e.to_string()))?;
        if let Some(bad) = decoded.bad.first() {
            return Err(self.refused(bad));
        }
        self.check(&decoded.rows)?;
        if decoded.rows.num_rows() > 0 {
            self.held += decoded.rows.get_array_memory_size();
            self.batches.push(decoded.rows);
        }
        if self.held > MAX_ROWS {
            let error = SqlError::new(state::PROGRAM_LIMIT_EXCEEDED, "one COPY cannot hold more than 1 GiB of rows");
            return Err(error.hint("Send the rows in several COPY statements."));
        }
        Ok(())
    }

    fn refused(&self, bad: &BadRow) -> SqlError {
        let text: String = String::from_utf8_lossy(&bad.bytes).trim_end().chars().take(100).collect();
        SqlError::new(state::INVALID_TEXT_REPRESENTATION, bad.reason.clone())
            .detail(format!("COPY {}, line {}: \"{text}\"", self.table, bad.position))
    }

    fn check(&self, rows: &RecordBatch) -> Result<(), SqlError> {
        match self.required.iter().find(|i| rows.column(**i).null_count() > 0) {
            None => Ok(()),
            Some(column) => {
                let (column, table) = (self.schema.field(*column).name(), &self.table);
                let message =
                    format!("null value in column \"{column}\" of relation \"{table}\" violates not-null constraint");
                Err(SqlError::new(state::NOT_NULL_VIOLATION, message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, Field, Int32Type};
    use tidemill_engine::RelationKind;

    fn reader(format: CopyFormat, delimiter: u8, header: bool, null: &str) -> CopyReader {
        let schema = Schema::new(vec![
            Field::new("n", DataType::Int32, true),
            Field::new("s", DataType::Utf8, true),
            Field::new("b", DataType::Binary, true),
        ]);
        let table = Relation {
            id: 1,
            namespace: "public".into(),
            name: "t".into(),
            kind: RelationKind::Table,
            schema: Arc::new(schema),
            primary_key: vec![],
            append_only: false,
            event_time: None,
            retention: None,
            generated: vec![],
            defaults: vec![],
            bounds: vec![],
            definition: None,
            sql: String::new(),
        };
        let options = CopyOptions { format, delimiter, header, null: null.into() };
        CopyReader::new(&table, &[0, 1, 2], &options).unwrap()
    }

    fn rows(batches: &[RecordBatch]) -> Vec<(Option<i32>, Option<String>)> {
        let mut rows = Vec::new();
        for batch in batches {
            let (numbers, texts) = (batch.column(0).as_primitive::<Int32Type>(), batch.column(1).as_string::<i32>());
            rows.extend(numbers.iter().zip(texts.iter().map(|t| t.map(str::to_string))));
        }
        rows
    }

    #[test]
    fn text() {
        let mut reader = reader(CopyFormat::Text, b'\t', false, "\\N");
        reader.push(b"1\ta\\tb\t\\N\n2\t\\N\t\\\\x00ff\n3\te").unwrap();
        reader.push(b"nd\t\\\\x\n\\.\n").unwrap();
        let batches = reader.finish().unwrap();
        let expected = [(Some(1), Some("a\tb".into())), (Some(2), None), (Some(3), Some("end".into()))];
        assert_eq!(rows(&batches), expected);
        assert_eq!(batches[0].column(2).as_binary::<i32>().value(1), [0, 255]);
    }

    #[test]
    fn csv_with_quotes() {
        let mut reader = reader(CopyFormat::Csv, b',', true, "");
        reader.push(b"x,y,z\n1,\"a,\"\"b\"\"\n").unwrap();
        reader.push(b"c\",\n,\"\",\\x00").unwrap();
        let batches = reader.finish().unwrap();
        assert_eq!(rows(&batches), [(Some(1), Some("a,\"b\"\nc".into())), (None, Some(String::new()))]);
    }

    #[test]
    fn errors_say_where() {
        let mut reader = reader(CopyFormat::Text, b'\t', false, "\\N");
        reader.push(b"1\ta\t\\N\nx\tb\t\\N\n").unwrap();
        let error = reader.finish().unwrap_err();
        assert_eq!(error.code, state::INVALID_TEXT_REPRESENTATION);
        assert!(error.detail.unwrap().starts_with("COPY t, line 2"));
    }
}
