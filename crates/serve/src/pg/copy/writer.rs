//! Rows as lines of `COPY ... TO`.

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use tidemill_engine::{CopyFormat, CopyOptions};

use crate::pg::rows::write_text;

/// Writes rows as lines.
pub struct CopyWriter {
    schema: SchemaRef,
    options: CopyOptions,
    line: String,
    value: String,
    count: usize,
}

impl CopyWriter {
    /// Lines with these columns.
    pub fn new(schema: SchemaRef, options: CopyOptions) -> Self {
        CopyWriter { schema, options, line: String::new(), value: String::new(), count: 0 }
    }

    /// The line that names the columns, if one is wanted.
    pub fn header(&mut self) -> Option<&str> {
        if !self.options.header {
            return None;
        }
        self.line.clear();
        for i in 0..self.schema.fields().len() {
            self.value.clear();
            self.value.push_str(self.schema.field(i).name());
            self.add(i);
        }
        self.line.push('\n');
        Some(&self.line)
    }

    /// A row's line.
    pub fn line(&mut self, batch: &RecordBatch, row: usize) -> &str {
        self.line.clear();
        for (i, column) in batch.columns().iter().enumerate() {
            if column.is_null(row) {
                self.separate(i);
                self.line.push_str(&self.options.null);
                continue;
            }
            self.value.clear();
            write_text(column.as_ref(), row, &self.schema.fields()[i], &mut self.value);
            self.add(i);
        }
        self.line.push('\n');
        self.count += 1;
        &self.line
    }

    /// How many rows were written.
    pub fn count(&self) -> usize {
        self.count
    }

    fn separate(&mut self, column: usize) {
        if column > 0 {
            self.line.push(self.options.delimiter as char);
        }
    }

    fn add(&mut self, column: usize) {
        self.separate(column);
        match self.options.format {
            CopyFormat::Text => escape(&self.value, self.options.delimiter as char, &mut self.line),
            CopyFormat::Csv => {
                quote(&self.value, &self.options, column == 0 && self.schema.fields().len() == 1, &mut self.line)
            }
        }
    }
}

/// Text format: a backslash before what would end the field.
fn escape(value: &str, delimiter: char, out: &mut String) {
    for c in value.chars() {
        let letter = match c {
            '\\' => '\\',
            '\u{8}' => 'b',
            '\u{c}' => 'f',
            '\n' => 'n',
            '\r' => 'r',
            '\t' => 't',
            '\u{b}' => 'v',
            c if c == delimiter => c,
            c => {
                out.push(c);
                continue;
            }
        };
        out.push('\\');
        out.push(letter);
    }
}

/// CSV: quotes around what would not read as itself.
fn quote(value: &str, options: &CopyOptions, alone: bool, out: &mut String) {
    let special = |c: char| c == options.delimiter as char || matches!(c, '"' | '\n' | '\r');
    // A lone `\.` would read as the end of the data.
    if value != options.null && !value.contains(special) && !(alone && value == "\\.") {
        out.push_str(value);
        return;
    }
    out.push('"');
    for c in value.chars() {
        if c == '"' {
            out.push('"');
        }
        out.push(c);
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow::array::{Int32Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    fn lines(format: CopyFormat, delimiter: u8, null: &str) -> Vec<String> {
        let schema =
            Arc::new(Schema::new(vec![Field::new("n", DataType::Int32, true), Field::new("s", DataType::Utf8, true)]));
        let texts = StringArray::from(vec![Some("a\tb\\"), None, Some(""), Some("x,\"y\"")]);
        let batch = RecordBatch::try_new(
            schema.clone(),
            vec![Arc::new(Int32Array::from(vec![Some(1), None, Some(3), Some(4)])), Arc::new(texts)],
        );
        let batch = batch.unwrap();
        let options = CopyOptions { format, delimiter, header: true, null: null.into() };
        let mut writer = CopyWriter::new(schema, options);
        let mut lines = vec![writer.header().unwrap().to_string()];
        lines.extend((0..4).map(|row| writer.line(&batch, row).to_string()));
        lines
    }

    #[test]
    fn text() {
        let expected = ["n\ts\n", "1\ta\\tb\\\\\n", "\\N\t\\N\n", "3\t\n", "4\tx,\"y\"\n"];
        assert_eq!(lines(CopyFormat::Text, b'\t', "\\N"), expected);
    }

    #[test]
    fn csv() {
        let expected = ["n,s\n", "1,a\tb\\\n", ",\n", "3,\"\"\n", "4,\"x,\"\"y\"\"\"\n"];
        assert_eq!(lines(CopyFormat::Csv, b',', ""), expected);
    }
}
