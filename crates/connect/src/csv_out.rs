//! Rows as lines of cells: CSV, and the text format of PostgreSQL's `COPY`.

use arrow::array::{Array, RecordBatch};

use crate::cells::{CsvOptions, PgTextOptions};
use crate::pg_text::pg_text;

/// Appends the names of the columns as a CSV record, with the line break.
pub fn csv_header<'a>(names: impl IntoIterator<Item = &'a str>, options: &CsvOptions, out: &mut String) {
    for (i, name) in names.into_iter().enumerate() {
        if i > 0 {
            out.push(char::from(options.delimiter));
        }
        csv_cell(name, options, out);
    }
    out.push('\n');
}

/// Appends one row as a CSV record, with the line break.
pub fn csv_row(rows: &RecordBatch, row: usize, options: &CsvOptions, out: &mut String) {
    let mut text = String::new();
    for (i, (column, field)) in rows.columns().iter().zip(rows.schema_ref().fields()).enumerate() {
        if i > 0 {
            out.push(char::from(options.delimiter));
        }
        if column.is_null(row) {
            out.push_str(&options.null);
        } else {
            text.clear();
            pg_text(column.as_ref(), row, field, &mut text);
            csv_cell(&text, options, out);
        }
    }
    out.push('\n');
}

/// A cell, in quotes where it would be read as something else without.
fn csv_cell(text: &str, options: &CsvOptions, out: &mut String) {
    let quote = char::from(options.quote);
    let special = |b: u8| b == options.delimiter || b == options.quote || matches!(b, b'\n' | b'\r');
    if text != options.null && text != "\\." && !text.bytes().any(special) && !text.is_empty() {
        out.push_str(text);
        return;
    }
    out.push(quote);
    for c in text.chars() {
        if c == quote {
            out.push(quote);
        }
        out.push(c);
    }
    out.push(quote);
}

/// Appends one row as a line of `COPY`'s text format, with the line break.
pub fn copy_row(rows: &RecordBatch, row: usize, options: &PgTextOptions, out: &mut String) {
    let delimiter = char::from(options.delimiter);
    let mut text = String::new();
    for (i, (column, field)) in rows.columns().iter().zip(rows.schema_ref().fields()).enumerate() {
        if i > 0 {
            out.push(delimiter);
        }
        if column.is_null(row) {
            out.push_str(&options.null);
            continue;
        }
        text.clear();
        pg_text(column.as_ref(), row, field, &mut text);
        for c in text.chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{b}' => out.push_str("\\v"),
                '\u{c}' => out.push_str("\\f"),
                c => {
                    if c == delimiter {
                        out.push('\\');
                    }
                    out.push(c);
                }
            }
        }
    }
    out.push('\n');
}
