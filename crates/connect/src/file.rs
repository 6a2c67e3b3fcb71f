//! Files as sources: NDJSON, CSV, Parquet and Arrow, one or many, whole or growing, or standard input.
//!
//! Each file is a partition, in the order of their names.

mod columnar;
mod lines;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{SchemaRef, TimeUnit};
use tidemill_plan::ColumnPath;

use crate::cells::{CsvOptions, PgTextOptions};
use crate::format::{Format, FormatKind};
use crate::options::Options;
use crate::shape::Shape;
use crate::source::{Position, Reader, Source, SourceError};

/// What stands for standard input.
const STANDARD_INPUT: &str = "-";

/// Files, or standard input, as a source.
pub struct FileSource {
    pattern: String,
    kind: FileKind,
    follow: bool,
    schema: SchemaRef,
    not_null: Arc<[usize]>,
}

/// How a file is read.
enum FileKind {
    Text(Format),
    Parquet,
    Arrow,
}

impl FileSource {
    /// A source from its options: `path`, `format`, `follow`, and those of the format.
    pub fn new(
        options: &[(String, String)],
        schema: &SchemaRef,
        not_null: &[usize],
    ) -> Result<FileSource, SourceError> {
        let mut options = Options::new(options);
        let pattern = options.required("path")?.to_string();
        let follow = options.flag("follow", false)?;
        let kind = kind(&mut options, &pattern)?;
        options.finish()?;
        if follow && !matches!(kind, FileKind::Text(_)) {
            return Err(SourceError("only text formats can be followed while they grow".into()));
        }
        if pattern == STANDARD_INPUT && !matches!(kind, FileKind::Text(_)) {
            return Err(SourceError("standard input has to be json or csv".into()));
        }
        Ok(FileSource { pattern, kind, follow, schema: schema.clone(), not_null: not_null.into() })
    }

    fn paths(&self) -> Result<Vec<PathBuf>, SourceError> {
        let failed = |e: &dyn std::fmt::Display| SourceError(format!("path \"{}\": {e}", self.pattern));
        let path = Path::new(&self.pattern);
        let mut found: Vec<PathBuf> = if path.is_dir() {
            let entries = std::fs::read_dir(path).map_err(|e| failed(&e))?;
            entries.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>().map_err(|e| failed(&e))?
        } else if path.exists() {
            vec![path.to_path_buf()]
        } else {
            let matches = glob::glob(&self.pattern).map_err(|e| failed(&e))?;
            matches.collect::<Result<_, _>>().map_err(|e| failed(&e))?
        };
        found.retain(|p| !p.is_dir() && !p.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b".")));
        found.sort();
        if found.is_empty() { Err(failed(&"there is no such file")) } else { Ok(found) }
    }
}

/// The format by its option, or by the file's name.
fn kind(options: &mut Options<'_>, pattern: &str) -> Result<FileKind, SourceError> {
    let extension = Path::new(pattern).extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    let format = options.get("format");
    let format = format.or(options.get("encode")).map(str::to_ascii_lowercase);
    let format = match (format.as_deref(), extension.as_deref()) {
        (Some(format), _) => format.to_string(),
        (None, Some("json" | "ndjson" | "jsonl")) => "json".into(),
        (None, Some(known @ ("csv" | "tsv" | "parquet"))) => known.into(),
        (None, Some("arrow" | "arrows" | "ipc" | "feather")) => "arrow".into(),
        (None, _) => return Err(SourceError("option \"format\" is missing: json, csv, text, parquet or arrow".into())),
    };
    let kind = match format.as_str() {
        "json" | "ndjson" => FormatKind::Json,
        "csv" | "tsv" => {
            let default = CsvOptions::default();
            FormatKind::Csv(CsvOptions {
                delimiter: options.character("delimiter", if format == "tsv" { b'\t' } else { default.delimiter })?,
                quote: options.character("quote", default.quote)?,
                header: options.flag("header", default.header)?,
                null: options.get("null").unwrap_or(&default.null).to_string(),
            })
        }
        "text" => {
            let default = PgTextOptions::default();
            FormatKind::PgText(PgTextOptions {
                delimiter: options.character("delimiter", default.delimiter)?,
                header: options.flag("header", default.header)?,
                null: options.get("null").unwrap_or(&default.null).to_string(),
            })
        }
        "parquet" => return Ok(FileKind::Parquet),
        "arrow" => return Ok(FileKind::Arrow),
        other => {
            return Err(SourceError(format!(
                "there is no file format \"{other}\"; there are: json, csv, tsv, text, parquet, arrow"
            )));
        }
    };
    let timestamp_unit = match options.get("timestamp_unit") {
        None | Some("ms" | "milliseconds") => TimeUnit::Millisecond,
        Some("s" | "seconds") => TimeUnit::Second,
        Some("us" | "microseconds") => TimeUnit::Microsecond,
        Some("ns" | "nanoseconds") => TimeUnit::Nanosecond,
        Some(other) => {
            return Err(SourceError(format!("option \"timestamp_unit\" is s, ms, us or ns, not \"{other}\"")));
        }
    };
    Ok(FileKind::Text(Format { kind, timestamp_unit }))
}

impl Source for FileSource {
    fn partitions(&self) -> Result<Vec<String>, SourceError> {
        if self.pattern == STANDARD_INPUT {
            return Ok(vec![STANDARD_INPUT.into()]);
        }
        self.paths()?
            .into_iter()
            .map(|p| p.into_os_string().into_string().map_err(|p| SourceError(format!("{p:?} is not UTF-8"))))
            .collect()
    }

    fn open(
        &self,
        partition: &str,
        from: Option<&Position>,
        columns: Arc<[ColumnPath]>,
    ) -> Result<Box<dyn Reader>, SourceError> {
        let (schema, not_null) = (&self.schema, &self.not_null);
        match &self.kind {
            FileKind::Text(format) => {
                let decoder = format.decoder(schema, Some(&columns), not_null)?;
                if partition == STANDARD_INPUT {
                    return Ok(Box::new(lines::LineReader::standard_input(decoder, from)?));
                }
                Ok(Box::new(lines::LineReader::file(Path::new(partition), decoder, from, self.follow)?))
            }
            FileKind::Parquet => {
                let shape = Shape::new(schema, Some(&columns), not_null)?;
                Ok(Box::new(columnar::ColumnarReader::parquet(Path::new(partition), shape, from)?))
            }
            FileKind::Arrow => {
                let shape = Shape::new(schema, Some(&columns), not_null)?;
                Ok(Box::new(columnar::ColumnarReader::arrow(Path::new(partition), shape, from)?))
            }
        }
    }

    /// A text file is cut into batches of so many records, wherever one begins to read. What is not a file that stands
    /// still, or has batches of its own, is not sure to be cut in the same way.
    fn repeats(&self) -> bool {
        matches!(self.kind, FileKind::Text(_)) && !self.follow && self.pattern != STANDARD_INPUT
    }

    fn bounded(&self) -> bool {
        !self.follow
    }

    fn bytes(&self) -> Option<u64> {
        if self.pattern == STANDARD_INPUT {
            return None;
        }
        let sizes = self.paths().ok()?.into_iter().map(|p| std::fs::metadata(p).ok().map(|m| m.len()));
        sizes.sum()
    }
}

#[cfg(test)]
mod tests;
