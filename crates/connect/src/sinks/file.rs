//! Changes in a file: NDJSON, CSV or Parquet.
//!
//! The file is written beside its place, under the name with `.part` behind it, and takes its place
//! when the view has come to its end: whoever sees the file sees all of it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use tidemill_delta::{Delta, Epoch};

use super::rows::{Mode, TextFormat};
use crate::options::Options;
use crate::sink::{Sink, SinkError};

/// Text is written to the file when there is so much of it.
const PIECE: usize = 1 << 20;

/// Writes a file.
pub struct FileSink {
    path: PathBuf,
    part: PathBuf,
    mode: Mode,
    output: Output,
}

enum Output {
    Text { format: TextFormat, text: String, file: File },
    Parquet(Box<ArrowWriter<File>>),
    Finished,
}

impl FileSink {
    /// A sink from its options: `path`, `format` (json, csv or parquet; else by the path's ending), `mode`.
    pub fn new(options: &[(String, String)], schema: &SchemaRef, append_only: bool) -> Result<FileSink, SinkError> {
        let mut options = Options::new(options);
        let path = PathBuf::from(options.required("path").map_err(|e| SinkError(e.0))?);
        let mode = Mode::of(&mut options, append_only)?;
        let ending = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
        let name = match (options.get("format"), ending.as_deref()) {
            (Some(format), _) => format.to_ascii_lowercase(),
            (None, Some(known @ ("csv" | "parquet"))) => known.to_string(),
            (None, _) => "json".into(),
        };
        let text = TextFormat::named(&name, &mut options)?;
        if text.is_none() && name != "parquet" {
            return Err(SinkError(format!("there is no file format \"{name}\"; there are: json, csv, parquet")));
        }
        options.finish().map_err(|e| SinkError(e.0))?;
        let mut part = OsString::from(&path);
        part.push(".part");
        let part = PathBuf::from(part);
        let file = File::create(&part).map_err(|e| failed(&part, &e))?;
        let written = mode.schema(schema);
        let output = match text {
            Some(format) => {
                let mut text = String::new();
                format.begin(&written, &mut text);
                Output::Text { format, text, file }
            }
            None => {
                let level = ZstdLevel::try_new(1).map_err(|e| failed(&part, &e))?;
                let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
                let writer = ArrowWriter::try_new(file, written, Some(properties)).map_err(|e| failed(&part, &e))?;
                Output::Parquet(Box::new(writer))
            }
        };
        Ok(FileSink { path, part, mode, output })
    }

    fn flush(&mut self, least: usize) -> Result<(), SinkError> {
        if let Output::Text { text, file, .. } = &mut self.output
            && text.len() >= least
        {
            file.write_all(text.as_bytes()).map_err(|e| failed(&self.part, &e))?;
            text.clear();
        }
        Ok(())
    }
}

fn failed(path: &Path, e: &dyn std::fmt::Display) -> SinkError {
    SinkError(format!("{}: {e}", path.display()))
}

impl Sink for FileSink {
    fn write(&mut self, epoch: Epoch, delta: &Delta) -> Result<(), SinkError> {
        let rows = self.mode.rows(epoch, delta)?;
        match &mut self.output {
            Output::Text { format, text, .. } => {
                format.write(&rows, text);
                self.flush(PIECE)
            }
            Output::Parquet(writer) => writer.write(&rows).map_err(|e| failed(&self.part, &e)),
            Output::Finished => Err(SinkError("the file is finished".into())),
        }
    }

    fn commit(&mut self, _epoch: Epoch) -> Result<(), SinkError> {
        self.flush(1)
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.flush(1)?;
        let part = &self.part;
        let file = match std::mem::replace(&mut self.output, Output::Finished) {
            Output::Text { file, .. } => file,
            Output::Parquet(writer) => writer.into_inner().map_err(|e| failed(part, &e))?,
            Output::Finished => return Ok(()),
        };
        file.sync_all().map_err(|e| failed(part, &e))?;
        fs::rename(part, &self.path).map_err(|e| failed(&self.path, &e))?;
        // The rename itself has to survive a crash.
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|f| f.sync_all()).map_err(|e| failed(folder, &e))
    }
}
