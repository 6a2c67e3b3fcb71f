//! Changes in one file: NDJSON, CSV or Parquet.
//!
//! The file is written beside its place, under the name with `.part` behind it, and takes its place
//! when the view has come to its end: whoever sees the file sees all of it. It is for runs that end; a server that
//! starts again cannot go on with it. What can is a [folder](super::FolderSink).

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use tidemill_delta::{Delta, Epoch};

use super::rows::{FileFormat, Mode, TextFormat, parquet_writer};
use crate::options::Options;
use crate::sink::{Opening, Pace, Sink, SinkError};

/// Text is written to the file when there is so much of it.
const PIECE: usize = 1 << 20;

/// Writes a file.
pub struct FileSink {
    path: PathBuf,
    part: PathBuf,
    mode: Mode,
    format: FileFormat,
    schema: SchemaRef,
    output: Output,
}

enum Output {
    None,
    Text { format: TextFormat, text: String, file: File },
    Parquet(Box<ArrowWriter<File>>),
}

impl FileSink {
    /// A sink from its options: `path`, `format` (json, csv or parquet; else by the path's ending), `mode`.
    pub fn new(options: &[(String, String)], schema: &SchemaRef, append_only: bool) -> Result<FileSink, SinkError> {
        let mut options = Options::new(options);
        let path = PathBuf::from(options.required("path")?);
        let mode = Mode::of(&mut options, append_only)?;
        let format = FileFormat::of(&mut options, &path)?;
        options.finish()?;
        let mut part = OsString::from(&path);
        part.push(".part");
        Ok(FileSink { path, part: part.into(), mode, format, schema: mode.schema(schema), output: Output::None })
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
    SinkError::Fatal(format!("{}: {e}", path.display()))
}

impl Sink for FileSink {
    fn open(&mut self, opening: Opening) -> Result<Option<Epoch>, SinkError> {
        if !opening.created {
            let message = "one file cannot be gone on with after a restart: drop the sink and create one whose path is a \
                           folder, with a / at its end";
            return Err(SinkError::fatal(message));
        }
        let part = &self.part;
        let file = File::create(part).map_err(|e| failed(part, &e))?;
        self.output = match &self.format {
            FileFormat::Text(format) => {
                let mut text = String::new();
                format.begin(&self.schema, &mut text);
                Output::Text { format: format.clone(), text, file }
            }
            FileFormat::Parquet => {
                let writer = parquet_writer(file, self.schema.clone()).map_err(|e| failed(part, &e))?;
                Output::Parquet(Box::new(writer))
            }
        };
        Ok(None)
    }

    fn write(&mut self, epoch: Epoch, delta: &Delta) -> Result<(), SinkError> {
        let rows = self.mode.rows(epoch, delta)?;
        match &mut self.output {
            Output::Text { format, text, .. } => {
                format.write(&rows, text);
                self.flush(PIECE)
            }
            Output::Parquet(writer) => writer.write(&rows).map_err(|e| failed(&self.part, &e)),
            Output::None => Err(SinkError::fatal("the file is finished")),
        }
    }

    fn commit(&mut self, _epoch: Epoch) -> Result<(), SinkError> {
        self.flush(1)
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.flush(1)?;
        let part = &self.part;
        let file = match std::mem::replace(&mut self.output, Output::None) {
            Output::Text { file, .. } => file,
            Output::Parquet(writer) => writer.into_inner().map_err(|e| failed(part, &e))?,
            Output::None => return Ok(()),
        };
        file.sync_all().map_err(|e| failed(part, &e))?;
        fs::rename(part, &self.path).map_err(|e| failed(&self.path, &e))?;
        // The rename itself has to survive a crash.
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|f| f.sync_all()).map_err(|e| failed(folder, &e))
    }

    fn pace(&self) -> Pace {
        Pace { commit_interval: Duration::ZERO, local: true, retry_for: None }
    }
}
