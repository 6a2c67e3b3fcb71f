//! Text files and standard input, piece by piece.

use std::fs::File;
use std::io::{Read as _, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use memchr::memchr;

use crate::format::Decoder;
use crate::source::{Position, Read, Reader, SourceBatch, SourceError};

/// So much is read at once.
const PIECE: usize = 1 << 20;
/// A record longer than this is bad.
const MAX_RECORD: usize = 64 << 20;
/// How long to wait for standard input before saying that there is nothing.
const PATIENCE: Duration = Duration::from_millis(5);

/// Reads records of text.
pub(crate) struct LineReader {
    input: Input,
    decoder: Decoder,
    /// Bytes read and not yet decoded: from `start` on.
    buffer: Vec<u8>,
    start: usize,
    /// Where in the file `start` is.
    offset: u64,
    /// Up to where batches have been given out.
    given: u64,
    /// Inside a record that is too long: everything up to the next line break goes.
    skipping: bool,
    /// Nothing more will come.
    ended: bool,
}

enum Input {
    File {
        file: File,
        path: PathBuf,
        follow: bool,
    },
    /// Pieces from a thread, because reading standard input may block for ever.
    Pipe(Receiver<std::io::Result<Vec<u8>>>),
}

/// What came of reading.
enum More {
    Bytes,
    Nothing,
    End,
}

impl LineReader {
    pub(crate) fn file(
        path: &Path,
        decoder: Decoder,
        from: Option<&Position>,
        follow: bool,
    ) -> Result<LineReader, SourceError> {
        let failed = |e: std::io::Error| SourceError(format!("{}: {e}", path.display()));
        let file = File::open(path).map_err(failed)?;
        let input = Input::File { file, path: path.to_path_buf(), follow };
        let mut reader = LineReader::new(input, decoder);
        if let Some((offset, line)) = from.map(parse_position).transpose()?.filter(|(offset, _)| *offset > 0) {
            reader.resume(offset, line)?;
        }
        Ok(reader)
    }

    pub(crate) fn standard_input(decoder: Decoder, from: Option<&Position>) -> Result<LineReader, SourceError> {
        if from.map(parse_position).transpose()?.is_some_and(|(offset, _)| offset > 0) {
            return Err(SourceError("standard input cannot be read again".into()));
        }
        // Two pieces ahead: reading and decoding overlap, and memory is bounded.
        let (sender, receiver) = bounded(2);
        let read = move || {
            let mut input = std::io::stdin().lock();
            loop {
                let mut piece = vec![0; PIECE];
                let outcome = input.read(&mut piece).map(|n| {
                    piece.truncate(n);
                    piece
                });
                let last = outcome.as_ref().map_or(true, Vec::is_empty);
                if sender.send(outcome).is_err() || last {
                    return;
                }
            }
        };
        thread::Builder::new()
            .name("standard-input".into())
            .spawn(read)
            .map_err(|e| SourceError(format!("standard input: {e}")))?;
        Ok(LineReader::new(Input::Pipe(receiver), decoder))
    }

    fn new(input: Input, decoder: Decoder) -> Self {
        let buffer = Vec::new();
        LineReader { input, decoder, buffer, start: 0, offset: 0, given: 0, skipping: false, ended: false }
    }

    /// Goes on after `offset` bytes; a header is read from the file's start.
    fn resume(&mut self, offset: u64, line: u64) -> Result<(), SourceError> {
        while self.decoder.wants_header() && self.buffer.len() < MAX_RECORD && matches!(self.more()?, More::Bytes) {
            // No rows are wanted, so only the header is decoded.
            self.decoder.decode(&self.buffer, false, 0);
        }
        let Input::File { file, path, .. } = &mut self.input else {
            return Ok(());
        };
        let failed = |e: std::io::Error| SourceError(format!("{}: {e}", path.display()));
        if file.metadata().map_err(failed)?.len() < offset {
            return Err(SourceError(format!("{} is shorter than what has been read of it", path.display())));
        }
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        self.decoder.set_line(line);
        self.buffer.clear();
        (self.start, self.offset, self.given, self.ended) = (0, offset, offset, false);
        Ok(())
    }

    /// Reads the next piece behind what is in the buffer.
    fn more(&mut self) -> Result<More, SourceError> {
        self.buffer.drain(..self.start);
        self.start = 0;
        match &mut self.input {
            Input::File { file, path, follow } => {
                let failed = |e: std::io::Error| SourceError(format!("{}: {e}", path.display()));
                let before = self.buffer.len();
                self.buffer.reserve(PIECE);
                file.by_ref().take(PIECE as u64).read_to_end(&mut self.buffer).map_err(failed)?;
                if self.buffer.len() > before {
                    return Ok(More::Bytes);
                }
                if !*follow {
                    self.ended = true;
                    return Ok(More::End);
                }
                if file.metadata().map_err(failed)?.len() < self.offset {
                    return Err(SourceError(format!("{} has become shorter while it was followed", path.display())));
                }
                Ok(More::Nothing)
            }
            Input::Pipe(pieces) => match pieces.recv_timeout(PATIENCE) {
                Ok(Ok(piece)) if !piece.is_empty() => {
                    self.buffer.extend_from_slice(&piece);
                    Ok(More::Bytes)
                }
                Ok(Err(e)) => Err(SourceError(format!("standard input: {e}"))),
                Err(RecvTimeoutError::Timeout) => Ok(More::Nothing),
                Ok(Ok(_)) | Err(RecvTimeoutError::Disconnected) => {
                    self.ended = true;
                    Ok(More::End)
                }
            },
        }
    }

    /// Decodes what is in the buffer.
    fn decode(&mut self, max_rows: usize) {
        if self.skipping {
            match memchr(b'\n', &self.buffer[self.start..]) {
                Some(newline) => {
                    self.advance(newline + 1);
                    self.skipping = false;
                }
                None => return self.advance(self.buffer.len() - self.start),
            }
        }
        let done = self.decoder.decode(&self.buffer[self.start..], self.ended, max_rows);
        self.advance(done);
        if done == 0 && self.buffer.len() - self.start > MAX_RECORD {
            self.decoder.refuse_long(&self.buffer[self.start..]);
            self.skipping = true;
        }
    }

    fn advance(&mut self, bytes: usize) {
        self.start += bytes;
        self.offset += bytes as u64;
    }

    fn batch(&mut self) -> Result<Read, SourceError> {
        let decoded = self.decoder.take()?;
        let bytes = self.offset - self.given;
        self.given = self.offset;
        let position = Position(format!("{} {}", self.offset, self.decoder.line()));
        Ok(Read::Batch(SourceBatch { rows: decoded.rows, bad: decoded.bad, position, bytes }))
    }
}

impl Reader for LineReader {
    fn read(&mut self, max_rows: usize) -> Result<Read, SourceError> {
        let max_rows = max_rows.max(1);
        loop {
            self.decode(max_rows);
            if self.decoder.records() >= max_rows {
                return self.batch();
            }
            if self.ended {
                return if self.offset > self.given { self.batch() } else { Ok(Read::End) };
            }
            match self.more()? {
                // At the end what is left in the buffer is decoded as well.
                More::Bytes | More::End => {}
                More::Nothing if self.offset > self.given => return self.batch(),
                More::Nothing => return Ok(Read::Idle),
            }
        }
    }
}

/// `offset line`.
fn parse_position(position: &Position) -> Result<(u64, u64), SourceError> {
    let parts = position.0.split_once(' ').and_then(|(o, l)| Some((o.parse().ok()?, l.parse().ok()?)));
    parts.ok_or_else(|| SourceError(format!("\"{}\" is no position in a text file", position.0)))
}
