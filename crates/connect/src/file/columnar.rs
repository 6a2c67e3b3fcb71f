//! Parquet and Arrow files, batch by batch; only the wanted columns are read.

use std::fs::File;
use std::io::{Read as _, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::arrow_stream::compressed::{self, Next};
use crate::arrow_stream::{Budget, most_bytes};
use crate::conform::conform;
use crate::shape::Shape;
use crate::source::{Position, Read, Reader, SourceBatch, SourceError};

/// Rows that a Parquet reader decodes at once.
const BATCH_ROWS: usize = 8192;

/// So much of an Arrow file is read at once.
const PIECE: u64 = 4 << 20;

/// Batches of an opened file.
type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>;

/// Reads a file of batches.
pub(crate) struct ColumnarReader {
    name: String,
    batches: Batches,
    shape: Shape,
    /// What was more than a reader wanted.
    rest: Option<RecordBatch>,
    /// Rows given out.
    row: u64,
    /// For progress: the file's size and, if known, its number of rows.
    size: u64,
    rows: Option<u64>,
}

impl ColumnarReader {
    /// A Parquet file.
    pub(crate) fn parquet(path: &Path, shape: Shape, from: Option<&Position>) -> Result<Self, SourceError> {
        let name = path.display().to_string();
        let row = from.map_or(Ok(0), parse_position)?;
        let failed = |e: &dyn std::fmt::Display| SourceError(format!("{name}: {e}"));
        let file = File::open(path).map_err(|e| failed(&e))?;
        let size = file.metadata().map_err(|e| failed(&e))?.len();
        let opened = guarded(|| {
            let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
            let rows: i64 = builder.metadata().row_groups().iter().map(|g| g.num_rows()).sum();
            let names: Vec<String> = shape.fields.iter().flat_map(|f| leaves(f)).collect();
            let mask = ProjectionMask::columns(builder.parquet_schema(), names.iter().map(String::as_str));
            let skipped = usize::try_from(row).unwrap_or(usize::MAX);
            let reader = builder.with_projection(mask).with_batch_size(BATCH_ROWS).with_offset(skipped).build()?;
            Ok((Box::new(reader) as Batches, rows.max(0) as u64))
        });
        let (batches, rows) = opened.map_err(|e: ArrowError| failed(&e))?;
        Ok(ColumnarReader { name, batches, shape, rest: None, row, size, rows: Some(rows) })
    }

    /// An Arrow file, or an Arrow stream in a file.
    pub(crate) fn arrow(path: &Path, shape: Shape, from: Option<&Position>) -> Result<Self, SourceError> {
        let name = path.display().to_string();
        let row = from.map_or(Ok(0), parse_position)?;
        let failed = |e: &dyn std::fmt::Display| SourceError(format!("{name}: {e}"));
        let file = File::open(path).map_err(|e| failed(&e))?;
        let size = file.metadata().map_err(|e| failed(&e))?.len();
        let pieces = ArrowPieces::new(file, size).map_err(|e| failed(&e))?;
        let batches = Box::new(pieces) as Batches;
        let mut reader = ColumnarReader { name, batches, shape, rest: None, row: 0, size, rows: None };
        reader.skip(row)?;
        Ok(reader)
    }

    fn skip(&mut self, rows: u64) -> Result<(), SourceError> {
        while self.row < rows {
            let Some(batch) = self.next()? else { break };
            let whole = batch.num_rows();
            let part = usize::try_from(rows - self.row).unwrap_or(usize::MAX).min(whole);
            self.row += part as u64;
            self.rest = (part < whole).then(|| batch.slice(part, whole - part));
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<RecordBatch>, SourceError> {
        if let Some(rest) = self.rest.take() {
            return Ok(Some(rest));
        }
        let next = guarded(|| self.batches.next().transpose());
        next.map_err(|e| SourceError(format!("{}: {e}", self.name)))
    }
}

/// The batches of an Arrow file or stream.
///
/// Arrow's own readers allocate whatever length a message claims, so a broken file could end the
/// process; the decoder used here only ever holds bytes that were really there.
struct ArrowPieces {
    file: File,
    /// Bytes still to read.
    left: u64,
    /// What was read.
    read: Vec<u8>,
    /// Where the messages begin in it that were not taken yet.
    at: usize,
    /// A message, or what is left of the file.
    buffer: Buffer,
    decoder: StreamDecoder,
    budget: Budget,
    /// How many bytes compressed buffers may still unfold to.
    room: usize,
    ended: bool,
}

impl ArrowPieces {
    fn new(mut file: File, size: u64) -> std::io::Result<Self> {
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        let (budget, room) = (Budget::new(length), most_bytes(length));
        let mut head = Vec::new();
        file.by_ref().take(256).read_to_end(&mut head)?;
        let (mut start, mut end) = (0, size);
        if head.starts_with(b"ARROW1") {
            // A file is a stream between a head, which is filled up with zeros to some multiple of
            // 8 bytes, and a footer, whose length and a mark of 6 bytes are the file's end.
            let zeros = head[6..].iter().take_while(|b| **b == 0).count();
            start = (6 + zeros) as u64 / 8 * 8;
            let mut tail = [0; 10];
            file.seek(SeekFrom::End(-10))?;
            file.read_exact(&mut tail)?;
            let footer = u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]);
            end = size.saturating_sub(10).saturating_sub(footer.into());
        }
        file.seek(SeekFrom::Start(start))?;
        let left = end.saturating_sub(start);
        let (read, buffer) = (Vec::new(), Buffer::from_vec(Vec::<u8>::new()));
        Ok(ArrowPieces { file, left, read, at: 0, buffer, decoder: StreamDecoder::new(), budget, room, ended: false })
    }

    fn batch(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        loop {
            if !self.buffer.is_empty()
                && let Some(batch) = self.decoder.decode(&mut self.buffer)?
            {
                self.budget.spend(&batch).map_err(|e| ArrowError::ParseError(e.0))?;
                return Ok(Some(batch));
            }
            let there = self.read.len() - self.at;
            let whole = match compressed::next(&self.read[self.at..]) {
                Next::Whole(whole, ..) => Some(whole.len()),
                Next::Begun => None,
                Next::Other => Some(there),
            };
            let length = match whole {
                Some(length) => length,
                None if self.read_piece()? => continue,
                None => there,
            };
            let message = self.read[self.at..self.at + length].to_vec();
            self.at += length;
            if message.is_empty() {
                self.decoder.finish()?;
                return Ok(None);
            }
            compressed::check(&message, &mut self.room).map_err(|e| ArrowError::ParseError(e.0))?;
            self.buffer = Buffer::from_vec(message);
        }
    }

    /// Reads on; false at the end.
    fn read_piece(&mut self) -> std::io::Result<bool> {
        if self.left == 0 {
            return Ok(false);
        }
        self.read.drain(..self.at);
        self.at = 0;
        let read = self.file.by_ref().take(self.left.min(PIECE)).read_to_end(&mut self.read)?;
        self.left -= read as u64;
        Ok(read > 0)
    }
}

impl Iterator for ArrowPieces {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        // Set before, so that nothing is tried again after an error or a panic.
        self.ended = true;
        let next = self.batch().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

/// Runs a reader that may panic on broken files.
fn guarded<T>(read: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, ArrowError> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(ArrowError::ParseError("the file is broken".to_string())))
}

/// The dotted names of what is wanted of a column: structs may have been cut down.
fn leaves(field: &Field) -> Vec<String> {
    match field.data_type() {
        DataType::Struct(children) => {
            let inner = children.iter().flat_map(|c| leaves(c));
            inner.map(|name| format!("{}.{name}", field.name())).collect()
        }
        _ => vec![field.name().clone()],
    }
}

impl Reader for ColumnarReader {
    fn read(&mut self, max_rows: usize) -> Result<Read, SourceError> {
        let Some(mut batch) = self.next()? else {
            return Ok(Read::End);
        };
        let max_rows = max_rows.max(1);
        if batch.num_rows() > max_rows {
            self.rest = Some(batch.slice(max_rows, batch.num_rows() - max_rows));
            batch = batch.slice(0, max_rows);
        }
        let decoded = guarded(|| conform(&self.shape, &batch, self.row + 1));
        let decoded = decoded.map_err(|e| SourceError(format!("{}: {e}", self.name)))?;
        let count = batch.num_rows() as u64;
        self.row += count;
        let bytes = match self.rows {
            Some(rows) if rows > 0 => (u128::from(self.size) * u128::from(count) / u128::from(rows)) as u64,
            _ => batch.get_array_memory_size() as u64,
        };
        let position = Position(self.row.to_string());
        Ok(Read::Batch(SourceBatch { rows: decoded.rows, bad: decoded.bad, position, bytes }))
    }
}

/// The number of rows read.
fn parse_position(position: &Position) -> Result<u64, SourceError> {
    position.0.parse().map_err(|_| SourceError(format!("\"{}\" is no position in a file of rows", position.0)))
}
