//! Rows for people and programs: aligned tables, CSV and JSON lines.

use std::fmt::Write;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use clap::ValueEnum;
use comfy_table::{Cell, CellAlignment, ContentLineStyle, LineStyle, Table, TableStyle};
use tidemill_connect::{json_members, pg_text};
use tidemill_engine::Change;

/// As psql draws tables: a line under the header, and none between rows.
const STYLE: TableStyle = TableStyle::new()
    .header_lines(ContentLineStyle::none().junction('|'))
    .header_separator(LineStyle::none().fill('-').junction('+'))
    .content_lines(ContentLineStyle::none().junction('|'));

/// How rows are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns.
    #[default]
    Table,
    /// Comma-separated values with a header.
    Csv,
    /// A JSON object a line.
    Json,
}

/// All rows of an answer.
pub fn rows(schema: &SchemaRef, batches: &[RecordBatch], format: Format) -> String {
    match format {
        Format::Table => {
            let names = schema.fields().iter().map(|f| f.name().clone()).collect();
            let right = schema.fields().iter().map(|f| f.data_type().is_numeric()).collect();
            let rows = batches.iter().flat_map(|b| (0..b.num_rows()).map(|row| texts(b, row))).collect();
            table(names, rows, right)
        }
        Format::Csv => {
            let mut text = csv_line(schema.fields().iter().map(|f| Some(f.name().clone())));
            for batch in batches {
                (0..batch.num_rows()).for_each(|row| text += &csv_line(texts(batch, row)));
            }
            text
        }
        Format::Json => {
            let mut text = String::new();
            for batch in batches {
                for row in 0..batch.num_rows() {
                    text.push('{');
                    json_members(batch, row, &mut text);
                    text.push_str("}\n");
                }
            }
            text
        }
    }
}

/// What comes before the first change of a subscription.
pub fn changes_header(schema: &SchemaRef, format: Format) -> String {
    let names = ["epoch", "diff"].into_iter().chain(schema.fields().iter().map(|f| f.name().as_str()));
    match format {
        Format::Table => names.collect::<Vec<_>>().join("\t") + "\n",
        Format::Csv => csv_line(names.map(|name| Some(name.to_string()))),
        Format::Json => String::new(),
    }
}

/// The changes of an epoch, a line each; the sign tells what comes and what goes.
pub fn changes(change: &Change, format: Format) -> String {
    let mut text = String::new();
    for row in 0..change.delta.len() {
        let (epoch, diff) = (change.epoch, change.delta.weight(row));
        match format {
            Format::Table => {
                let _ = write!(text, "{epoch}\t{diff:+}");
                for value in texts(&change.delta.rows, row) {
                    text.push('\t');
                    text.push_str(value.as_deref().unwrap_or("NULL"));
                }
                text.push('\n');
            }
            Format::Csv => {
                let head = [Some(epoch.to_string()), Some(diff.to_string())];
                text += &csv_line(head.into_iter().chain(texts(&change.delta.rows, row)));
            }
            Format::Json => {
                let _ = write!(text, "{{\"epoch\":{epoch},\"diff\":{diff}");
                if change.delta.rows.num_columns() > 0 {
                    text.push(',');
                }
                json_members(&change.delta.rows, row, &mut text);
                text.push_str("}\n");
            }
        }
    }
    text
}

/// A row's values as PostgreSQL writes them; `None` is NULL.
pub fn texts(batch: &RecordBatch, row: usize) -> Vec<Option<String>> {
    let schema = batch.schema();
    let columns = batch.columns().iter().zip(schema.fields());
    let text = |(column, field): (&arrow::array::ArrayRef, &arrow::datatypes::FieldRef)| {
        if column.is_null(row) || *column.data_type() == DataType::Null {
            return None;
        }
        let mut text = String::new();
        pg_text(column, row, field, &mut text);
        Some(text)
    };
    columns.map(text).collect()
}

/// An aligned table; `right` tells which columns hold numbers.
pub fn table(names: Vec<String>, rows: Vec<Vec<Option<String>>>, right: Vec<bool>) -> String {
    if names.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_style(STYLE);
    table.set_header(names);
    for row in rows {
        let cell = |(i, value): (usize, Option<String>)| {
            let is_right = right.get(i).copied().unwrap_or(false);
            let alignment = if is_right { CellAlignment::Right } else { CellAlignment::Left };
            Cell::new(value.as_deref().unwrap_or("NULL")).set_alignment(alignment)
        };
        table.add_row(row.into_iter().enumerate().map(cell));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A line of comma-separated values: NULL is empty, an empty text is quoted.
pub fn csv_line(values: impl IntoIterator<Item = Option<String>>) -> String {
    let quoted = |value: Option<String>| match value {
        None => String::new(),
        Some(text) if text.is_empty() || text.contains([',', '"', '\n', '\r']) => {
            format!("\"{}\"", text.replace('"', "\"\""))
        }
        Some(text) => text,
    };
    values.into_iter().map(quoted).collect::<Vec<_>>().join(",") + "\n"
}

/// `1 row`, `2 rows`.
pub fn count(n: u64) -> String {
    if n == 1 { "1 row".to_string() } else { format!("{n} rows") }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{Field, Schema};
    use tidemill_delta::Delta;

    use super::*;

    fn batch() -> RecordBatch {
        let fields = vec![Field::new("n", DataType::Int64, true), Field::new("t", DataType::Utf8, true)];
        let numbers = Int64Array::from(vec![Some(7), None]);
        let texts = StringArray::from(vec![Some("a,\"b"), Some("")]);
        RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![Arc::new(numbers), Arc::new(texts)]).unwrap()
    }

    #[test]
    fn all_formats() {
        let batch = batch();
        let text = |format| rows(&batch.schema(), std::slice::from_ref(&batch), format);
        assert_eq!(text(Format::Csv), "n,t\n7,\"a,\"\"b\"\n,\"\"\n");
        assert_eq!(text(Format::Json), "{\"n\":7,\"t\":\"a,\\\"b\"}\n{\"n\":null,\"t\":\"\"}\n");
        assert_eq!(text(Format::Table), " n    | t\n------+------\n    7 | a,\"b\n NULL |\n");
    }

    #[test]
    fn changes_tell_their_sign() {
        let change = Change { epoch: 3, delta: Delta::inserts(batch().slice(0, 1)).negate(), snapshot: false };
        assert_eq!(changes(&change, Format::Table), "3\t-1\t7\ta,\"b\n");
        assert_eq!(changes(&change, Format::Json), "{\"epoch\":3,\"diff\":-1,\"n\":7,\"t\":\"a,\\\"b\"}\n");
    }
}
