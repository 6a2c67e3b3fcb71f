//! A view's changes as lines of text, or as batches that say what they change.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tidemill_delta::{Delta, Epoch};

use crate::cells::CsvOptions;
use crate::csv_out::{csv_header, csv_row};
use crate::json_out::json_row;
use crate::options::Options;
use crate::sink::SinkError;

/// What a sink makes of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Rows only ever come; one that is taken back cannot be expressed.
    Append,
    /// Each row is led by the epoch and the multiplicity of its change.
    Changes,
}

/// How rows are written as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TextFormat {
    Json,
    Csv(CsvOptions),
}

impl Mode {
    /// By its option, or by what the view needs.
    pub(crate) fn of(options: &mut Options<'_>, append_only: bool) -> Result<Mode, SinkError> {
        match options.get("mode") {
            None if append_only => Ok(Mode::Append),
            None | Some("changes") => Ok(Mode::Changes),
            Some("append") => Ok(Mode::Append),
            Some(other) => Err(SinkError(format!("option \"mode\" is append or changes, not \"{other}\""))),
        }
    }

    /// The columns of what is written.
    pub(crate) fn schema(self, schema: &SchemaRef) -> SchemaRef {
        if self == Mode::Append {
            return schema.clone();
        }
        let led = [Field::new("epoch", DataType::UInt64, false), Field::new("diff", DataType::Int64, false)];
        let fields = led.into_iter().map(Arc::new).chain(schema.fields().iter().cloned());
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// The rows to write for the changes of an epoch.
    pub(crate) fn rows(self, epoch: Epoch, delta: &Delta) -> Result<RecordBatch, SinkError> {
        let failed = |e: arrow::error::ArrowError| SinkError(e.to_string());
        if self == Mode::Changes {
            let epochs: ArrayRef = Arc::new(UInt64Array::from_value(epoch, delta.len()));
            let weights: ArrayRef = Arc::new(delta.weights());
            let columns = [epochs, weights].into_iter().chain(delta.rows.columns().iter().cloned()).collect();
            return RecordBatch::try_new(self.schema(&delta.rows.schema()), columns).map_err(failed);
        }
        match &delta.diff {
            None => Ok(delta.rows.clone()),
            Some(weights) => repeated(&delta.rows, weights),
        }
    }
}

/// Each row as often as it was inserted.
fn repeated(rows: &RecordBatch, weights: &Int64Array) -> Result<RecordBatch, SinkError> {
    if weights.values().iter().any(|w| *w < 0) {
        return Err(SinkError(
            "the view takes rows back, which a sink in mode 'append' cannot express: use mode = 'changes'".into(),
        ));
    }
    let indices = weights.values().iter().enumerate().flat_map(|(i, w)| std::iter::repeat_n(i as u32, *w as usize));
    take_record_batch(rows, &UInt32Array::from_iter_values(indices)).map_err(|e| SinkError(e.to_string()))
}

impl TextFormat {
    /// The text format of this name, if it is one.
    pub(crate) fn named(name: &str, options: &mut Options<'_>) -> Result<Option<TextFormat>, SinkError> {
        let failed = |e: crate::source::SourceError| SinkError(e.0);
        Ok(match name {
            "json" | "ndjson" => Some(TextFormat::Json),
            "csv" => {
                let default = CsvOptions::default();
                Some(TextFormat::Csv(CsvOptions {
                    delimiter: options.character("delimiter", default.delimiter).map_err(failed)?,
                    header: options.flag("header", default.header).map_err(failed)?,
                    null: options.get("null").unwrap_or(&default.null).to_string(),
                    ..default
                }))
            }
            _ => None,
        })
    }

    /// What stands before all rows.
    pub(crate) fn begin(&self, schema: &SchemaRef, out: &mut String) {
        if let TextFormat::Csv(options) = self
            && options.header
        {
            csv_header(schema.fields().iter().map(|f| f.name().as_str()), options, out);
        }
    }

    /// A line per row.
    pub(crate) fn write(&self, rows: &RecordBatch, out: &mut String) {
        for row in 0..rows.num_rows() {
            match self {
                TextFormat::Json => {
                    json_row(rows, row, out);
                    out.push('\n');
                }
                TextFormat::Csv(options) => csv_row(rows, row, options, out),
            }
        }
    }
}
