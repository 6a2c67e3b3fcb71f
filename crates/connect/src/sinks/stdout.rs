//! Changes on standard output.

use std::io::Write as _;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use tidemill_delta::{Delta, Epoch};

use super::rows::{Mode, TextFormat};
use crate::options::Options;
use crate::sink::{Opening, Pace, Sink, SinkError};

/// Writes lines to standard output when an epoch commits.
pub struct StdoutSink {
    mode: Mode,
    format: TextFormat,
    text: String,
}

impl StdoutSink {
    /// A sink from its options: `format` (json or csv), `mode`.
    pub fn new(options: &[(String, String)], schema: &SchemaRef, append_only: bool) -> Result<StdoutSink, SinkError> {
        let mut options = Options::new(options);
        let mode = Mode::of(&mut options, append_only)?;
        let name = options.get("format").unwrap_or("json");
        let format = TextFormat::named(name, &mut options)?
            .ok_or_else(|| SinkError::fatal(format!("there is no text format \"{name}\"; there are: json, csv")))?;
        options.finish()?;
        let mut text = String::new();
        format.begin(&mode.schema(schema), &mut text);
        Ok(StdoutSink { mode, format, text })
    }
}

impl Sink for StdoutSink {
    fn open(&mut self, _opening: Opening) -> Result<Option<Epoch>, SinkError> {
        Ok(None)
    }

    fn write(&mut self, epoch: Epoch, delta: &Delta) -> Result<(), SinkError> {
        self.format.write(&self.mode.rows(epoch, delta)?, &mut self.text);
        Ok(())
    }

    fn commit(&mut self, _epoch: Epoch) -> Result<(), SinkError> {
        let mut out = std::io::stdout().lock();
        let written = out.write_all(self.text.as_bytes()).and_then(|()| out.flush());
        self.text.clear();
        written.map_err(|e| SinkError::fatal(format!("standard output: {e}")))
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.commit(Epoch::MAX)
    }

    fn pace(&self) -> Pace {
        Pace { commit_interval: Duration::ZERO, local: true, retry_for: None }
    }
}
