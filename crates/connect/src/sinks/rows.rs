//! A view's changes as lines of text, or as batches that say what they change.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
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

/// How rows are written to files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FileFormat {
    Text(TextFormat),
    Parquet,
}

impl Mode {
    /// By its option, or by what the view needs.
    pub(crate) fn of(options: &mut Options<'_>, append_only: bool) -> Result<Mode, SinkError> {
        match options.get("mode") {
            None if append_only => Ok(Mode::Append),
            None | Some("changes") => Ok(Mode::Changes),
            Some("append") => Ok(Mode::Append),
            Some(other) => Err(SinkError::fatal(format!("option \"mode\" is append or changes, not \"{other}\""))),
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
        return Err(SinkError::fatal(
            "the view takes rows back, which a sink in mode 'append' cannot express: use mode = 'changes'",
        ));
    }
    let indices = weights.values().iter().enumerate().flat_map(|(i, w)| std::iter::repeat_n(i as u32, *w as usize));
    take_record_batch(rows, &UInt32Array::from_iter_values(indices)).map_err(failed)
}

impl FileFormat {
    /// The format that the option `format` names, or else the path's ending.
    pub(crate) fn of(options: &mut Options<'_>, path: &Path) -> Result<FileFormat, SinkError> {
        let ending = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
        let name = match (options.get("format"), ending.as_deref()) {
            (Some(format), _) => format.to_ascii_lowercase(),
            (None, Some(known @ ("csv" | "parquet"))) => known.to_string(),
            (None, _) => "json".into(),
        };
        match TextFormat::named(&name, options)? {
            Some(text) => Ok(FileFormat::Text(text)),
            None if name == "parquet" => Ok(FileFormat::Parquet),
            None => {
                let message = format!("there is no file format \"{name}\"; there are: json, csv, parquet");
                Err(SinkError::Fatal(message))
            }
        }
    }

    /// What files of this format are called.
    pub(crate) fn extension(&self) -> &'static str {
        match self {
            FileFormat::Text(TextFormat::Json) => "ndjson",
            FileFormat::Text(TextFormat::Csv(_)) => "csv",
            FileFormat::Parquet => "parquet",
        }
    }

    /// A whole file.
    pub(crate) fn file(&self, schema: &SchemaRef, rows: &[RecordBatch]) -> Result<Vec<u8>, SinkError> {
        match self {
            FileFormat::Text(format) => {
                let mut text = String::new();
                format.begin(schema, &mut text);
                rows.iter().for_each(|rows| format.write(rows, &mut text));
                Ok(text.into_bytes())
            }
            FileFormat::Parquet => {
                let mut writer = parquet_writer(Vec::new(), schema.clone()).map_err(failed)?;
                rows.iter().try_for_each(|rows| writer.write(rows)).map_err(failed)?;
                writer.into_inner().map_err(failed)
            }
        }
    }
}

fn failed(error: impl std::fmt::Display) -> SinkError {
    SinkError::Fatal(error.to_string())
}

/// A Parquet file in the making.
pub(crate) fn parquet_writer<W: std::io::Write + Send>(
    to: W,
    schema: SchemaRef,
) -> Result<ArrowWriter<W>, ParquetError> {
    let level = ZstdLevel::try_new(1)?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
    ArrowWriter::try_new(to, schema, Some(properties))
}

impl TextFormat {
    /// The text format of this name, if it is one.
    pub(crate) fn named(name: &str, options: &mut Options<'_>) -> Result<Option<TextFormat>, SinkError> {
        Ok(match name {
            "json" | "ndjson" => Some(TextFormat::Json),
            "csv" => {
                let default = CsvOptions::default();
                Some(TextFormat::Csv(CsvOptions {
                    delimiter: options.character("delimiter", default.delimiter)?,
                    header: options.flag("header", default.header)?,
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
