//! Side tables: where rows go that cannot go on. `t$bad`, `t$late`, `v$errors`, `s$rejected`.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use tidemill_connect::{BadRow, Rejected, json_row};
use tidemill_dataflow::RowError;
use tidemill_delta::{Delta, Epoch, batch};
use tidemill_plan::RelationId;
use tidemill_sql::{CreateSink, Relation, RelationKind};

use crate::event_time::late_schema;

/// A relation beside another one, filled by the server. Its rows can go: the eldest, beyond what is kept; late ones
/// that are applied; errors with their rows.
fn side_table(id: RelationId, name: String, schema: SchemaRef) -> Relation {
    Relation {
        id,
        namespace: "public".into(),
        name,
        kind: RelationKind::System,
        schema,
        primary_key: Vec::new(),
        append_only: false,
        event_time: None,
        generated: Vec::new(),
        retention: None,
        defaults: Vec::new(),
        bounds: Vec::new(),
        definition: None,
        sql: String::new(),
    }
}

/// `t$bad`.
pub(crate) fn bad_table(id: RelationId, of: &Relation) -> Relation {
    side_table(id, format!("{}$bad", of.name), bad_schema())
}

/// `t$late`.
pub(crate) fn late_table(id: RelationId, of: &Relation) -> Relation {
    side_table(id, format!("{}$late", of.name), late_schema(of))
}

/// `v$errors`: an error goes when its row does.
pub(crate) fn error_table(id: RelationId, of: &str) -> Relation {
    side_table(id, format!("{of}$errors"), error_schema())
}

/// The number of `s$rejected`, counted from its sink's.
pub(crate) const REJECTED: RelationId = 2;

/// `s$rejected`.
fn rejected_table(id: RelationId, of: &str) -> Relation {
    side_table(id, format!("{of}$rejected"), rejected_schema())
}

/// The tables beside a sink: rows that the destination refused and, if it has a query, rows without an answer.
pub(crate) fn sink_tables(id: RelationId, sink: &CreateSink) -> Vec<Arc<Relation>> {
    let name = &sink.name.name;
    let errors = sink.query.is_some().then(|| error_table(id + 1, name));
    errors.into_iter().chain([rejected_table(id + REJECTED, name)]).map(Arc::new).collect()
}

fn bad_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("position", DataType::Int64, true),
        Field::new("record", DataType::Utf8, true),
        Field::new("reason", DataType::Utf8, true),
    ]))
}

fn error_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("message", DataType::Utf8, true), Field::new("row", DataType::Utf8, true)]))
}

fn rejected_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("epoch", DataType::Int64, true),
        Field::new("diff", DataType::Int64, true),
        Field::new("row", DataType::Utf8, true),
        Field::new("reason", DataType::Utf8, true),
        Field::new("attempts", DataType::Int32, true),
    ]))
}

/// Changes that a destination refused, as rows of `s$rejected`.
pub(crate) fn rejected_rows(rejected: &[Rejected]) -> RecordBatch {
    let each = rejected.iter().flat_map(|r| (0..r.delta.len()).map(move |i| (r, i)));
    // Arrays are made from iterators that know their length.
    let all: Vec<(&Rejected, usize)> = each.collect();
    let json = |(r, i): (&Rejected, usize)| {
        let mut text = String::new();
        json_row(&r.delta.rows, i, &mut text);
        text
    };
    let epoch = |r: &Rejected| i64::try_from(r.epoch).unwrap_or(i64::MAX);
    let attempts = |r: &Rejected| i32::try_from(r.attempts).unwrap_or(i32::MAX);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(all.iter().map(|(r, _)| epoch(r)))),
        Arc::new(Int64Array::from_iter_values(all.iter().map(|(r, i)| r.delta.weight(*i)))),
        Arc::new(StringArray::from_iter_values(all.iter().copied().map(json))),
        Arc::new(StringArray::from_iter_values(all.iter().map(|(r, _)| r.reason.as_str()))),
        Arc::new(Int32Array::from_iter_values(all.iter().map(|(r, _)| attempts(r)))),
    ];
    batch(rejected_schema(), columns, all.len())
}

/// Records that could not be decoded, as rows of `t$bad`.
pub(crate) fn bad_rows(bad: &[BadRow]) -> RecordBatch {
    let positions = bad.iter().map(|b| i64::try_from(b.position).unwrap_or(i64::MAX));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(positions)),
        Arc::new(StringArray::from_iter_values(bad.iter().map(|b| String::from_utf8_lossy(&b.bytes)))),
        Arc::new(StringArray::from_iter_values(bad.iter().map(|b| b.reason.as_str()))),
    ];
    batch(bad_schema(), columns, bad.len())
}

/// Rows whose key was taken, in a table that only grows, as rows of `t$bad`.
pub(crate) fn duplicate_rows(rows: &RecordBatch) -> RecordBatch {
    let bad = |row: usize| BadRow {
        position: row as u64 + 1,
        bytes: row_text(rows, row).into_bytes(),
        reason: "its primary key exists already, and a table with a WATERMARK only takes new rows".into(),
    };
    bad_rows(&(0..rows.num_rows()).map(bad).collect::<Vec<_>>())
}

/// A row as `name: value, ...`.
fn row_text(rows: &RecordBatch, row: usize) -> String {
    let options = FormatOptions::default().with_null("NULL");
    let cell = |(field, column): (&Arc<Field>, &ArrayRef)| {
        let value = ArrayFormatter::try_new(column.as_ref(), &options);
        let value = value.map_or_else(|e| e.to_string(), |f| f.value(row).to_string());
        format!("{}: {value}", field.name())
    };
    rows.schema_ref().fields().iter().zip(rows.columns()).map(cell).collect::<Vec<_>>().join(", ")
}

/// Rows without an answer, as changes of `v$errors`.
pub(crate) fn error_rows(_epoch: Epoch, errors: &[RowError]) -> Delta {
    let errors: Vec<&RowError> = errors.iter().filter(|e| e.weight != 0).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(errors.iter().map(|e| e.message.as_str()))),
        Arc::new(StringArray::from_iter_values(errors.iter().map(|e| e.row.as_str()))),
    ];
    let rows = batch(error_schema(), columns, errors.len());
    Delta::new(rows, Int64Array::from_iter_values(errors.iter().map(|e| e.weight)))
}
