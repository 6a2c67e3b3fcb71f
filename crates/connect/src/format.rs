//! One front for all formats: bytes in, rows and bad records out.

use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use memchr::{memchr, memchr_iter, memrchr};
use tidemill_plan::ColumnPath;

use crate::cells::{Cells, CsvOptions, PgTextOptions};
use crate::column::{Fault, ValueOptions};
use crate::json::{Input, scan};
use crate::record::Record;
use crate::shape::Shape;
use crate::source::{BadRow, Decoded, SourceError};

/// How much of a bad record is kept.
const BAD_BYTES: usize = 4096;

/// So much text is checked to be UTF-8 at once, while it is in the processor's cache.
const SEGMENT: usize = 64 << 10;

/// A format of rows as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// Which.
    pub kind: FormatKind,
    /// What an integer in a timestamp column counts.
    pub timestamp_unit: TimeUnit,
}

/// The formats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormatKind {
    /// One JSON object per line.
    Json,
    /// A JSON array of objects; where the text does not begin with `[`, as [`FormatKind::Json`].
    JsonArray,
    /// Comma-separated values.
    Csv(CsvOptions),
    /// The text format of PostgreSQL's `COPY`.
    PgText(PgTextOptions),
    /// An Arrow IPC stream.
    Arrow,
}

impl Format {
    /// A format whose integers in timestamp columns count milliseconds.
    pub fn new(kind: FormatKind) -> Self {
        Format { kind, timestamp_unit: TimeUnit::Millisecond }
    }

    /// Decodes a whole body: the columns given (all of the schema's, if `None`), of which those in
    /// `not_null` (numbers of the schema's columns) have to have a value.
    pub fn decode(
        &self,
        schema: &SchemaRef,
        columns: Option<&[ColumnPath]>,
        not_null: &[usize],
        body: &[u8],
    ) -> Result<Decoded, SourceError> {
        if self.kind == FormatKind::Arrow {
            return crate::arrow_stream::decode(&Shape::new(schema, columns, not_null)?, body);
        }
        let mut decoder = self.decoder(schema, columns, not_null)?;
        decoder.decode(body, true, usize::MAX);
        decoder.take()
    }

    /// Begins to decode a stream of bytes. Arrow streams cannot be decoded in this way.
    pub fn decoder(
        &self,
        schema: &SchemaRef,
        columns: Option<&[ColumnPath]>,
        not_null: &[usize],
    ) -> Result<Decoder, SourceError> {
        let shape = Shape::new(schema, columns, not_null)?;
        let options = ValueOptions { timestamp_unit: self.timestamp_unit };
        let record = Record::new(&shape.fields, shape.required.clone(), options)?;
        let texts = shape.fields.iter().any(|f| holds_text(f.data_type()));
        let syntax = match &self.kind {
            FormatKind::Json => Syntax::Lines,
            FormatKind::JsonArray => Syntax::Array,
            FormatKind::Csv(options) => Syntax::Cells(Cells::csv(options, &shape, schema)),
            FormatKind::PgText(options) => Syntax::Cells(Cells::pg_text(options, &shape, schema)),
            FormatKind::Arrow => return Err(SourceError("an Arrow stream is decoded as a whole".into())),
        };
        Ok(Decoder { syntax, table: Table { texts, shape, record, rows: 0, bad: Vec::new(), line: 0 } })
    }
}

/// Decodes a stream of bytes piece by piece.
pub struct Decoder {
    syntax: Syntax,
    table: Table,
}

enum Syntax {
    Lines,
    Array,
    Cells(Cells),
}

/// The rows under construction.
pub(crate) struct Table {
    /// Whether some wanted column holds text, which has to be UTF-8.
    texts: bool,
    shape: Shape,
    pub(crate) record: Record,
    pub(crate) rows: usize,
    bad: Vec<BadRow>,
    /// Lines (of an array: records) seen.
    pub(crate) line: u64,
}

impl Table {
    /// Keeps the row under construction, or undoes it and keeps the record with the fault.
    #[inline]
    pub(crate) fn settle(&mut self, outcome: Result<(), Box<Fault>>, line: u64, bytes: &[u8]) {
        match outcome {
            Ok(()) => self.rows += 1,
            Err(fault) => self.refuse(&fault, line, bytes),
        }
    }

    #[cold]
    fn refuse(&mut self, fault: &Fault, line: u64, bytes: &[u8]) {
        self.record.truncate(self.rows);
        let bytes = bytes[..bytes.len().min(BAD_BYTES)].to_vec();
        self.bad.push(BadRow { position: line, bytes, reason: fault.reason() });
    }

    /// Records done since the last batch, good and bad.
    pub(crate) fn records(&self) -> usize {
        self.rows + self.bad.len()
    }
}

impl Decoder {
    /// Decodes complete records at the front of `data` until there are about `max_rows`, and says how
    /// many bytes they had: the rest has to come again, with more behind it. With `last` there is
    /// nothing behind it.
    pub fn decode(&mut self, data: &[u8], last: bool, max_rows: usize) -> usize {
        match &mut self.syntax {
            Syntax::Lines => self.table.lines(data, last, max_rows),
            Syntax::Cells(cells) => cells.decode(&mut self.table, data, last, max_rows),
            Syntax::Array if !last => 0,
            Syntax::Array if data.get(scan::spaces(data, 0)) == Some(&b'[') => {
                self.table.array(data);
                data.len()
            }
            Syntax::Array => self.table.lines(data, last, max_rows),
        }
    }

    /// Records since the last [`Decoder::take`], good and bad.
    pub fn records(&self) -> usize {
        self.table.records()
    }

    /// Whether a header has to be decoded before any row.
    pub fn wants_header(&self) -> bool {
        matches!(&self.syntax, Syntax::Cells(cells) if cells.wants_header())
    }

    /// Lines decoded so far.
    pub fn line(&self) -> u64 {
        self.table.line
    }

    /// Goes on as if so many lines had been decoded.
    pub fn set_line(&mut self, line: u64) {
        self.table.line = line;
    }

    /// Leaves a record out that is too long to be held, of which `data` is the beginning.
    pub fn refuse_long(&mut self, data: &[u8]) {
        self.table.line += 1;
        let line = self.table.line;
        self.table.refuse(&Fault::new("the record is too long"), line, data);
    }

    /// Gives what has been decoded since the last time.
    pub fn take(&mut self) -> Result<Decoded, SourceError> {
        let table = &mut self.table;
        let rows = std::mem::take(&mut table.rows);
        let columns = table.record.finish(rows).map_err(|e| SourceError(e.to_string()))?;
        let rows = table.shape.project(&columns, rows).map_err(|e| SourceError(e.to_string()))?;
        Ok(Decoded { rows, bad: std::mem::take(&mut table.bad) })
    }
}

impl Table {
    /// One object per line.
    fn lines(&mut self, data: &[u8], last: bool, max_rows: usize) -> usize {
        let mut done = 0;
        while done < data.len() && self.records() < max_rows {
            let rest = &data[done..];
            let end = segment_end(rest);
            if end == 0 && !last {
                break;
            }
            let segment = if end == 0 { rest } else { &rest[..end] };
            let utf8 = !self.texts || std::str::from_utf8(segment).is_ok();
            done += self.segment(segment, utf8, max_rows);
        }
        done
    }

    /// Some lines; the last one may end without a line break. Gives the bytes decoded.
    fn segment(&mut self, segment: &[u8], utf8: bool, max_rows: usize) -> usize {
        let mut start = 0;
        let room = max_rows.saturating_sub(self.records());
        for (count, newline) in memchr_iter(b'\n', segment).enumerate() {
            if count >= room {
                return start;
            }
            self.line(&segment[start..newline], utf8);
            start = newline + 1;
        }
        if start < segment.len() {
            self.line(&segment[start..], utf8);
        }
        segment.len()
    }

    fn line(&mut self, line: &[u8], utf8: bool) {
        self.line += 1;
        let line = if self.line == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
        let start = scan::spaces(line, 0);
        if start == line.len() {
            return;
        }
        let outcome = self.object(&Input { bytes: line, utf8 }, start);
        self.settle(outcome, self.line, line);
    }

    fn object(&mut self, input: &Input<'_>, start: usize) -> Result<(), Box<Fault>> {
        let end = self.record.json_object(self.rows, input, start)?;
        if end < input.bytes.len() && scan::spaces(input.bytes, end) < input.bytes.len() {
            return Err(Fault::new("more text after the object"));
        }
        Ok(())
    }

    /// An array of objects. What is no object of the right kind is bad alone; where an element does
    /// not end, it is bad together with the rest.
    fn array(&mut self, data: &[u8]) {
        let input = Input { bytes: data, utf8: std::str::from_utf8(data).is_ok() };
        let mut at = scan::spaces(data, 0) + 1;
        at = scan::spaces(data, at);
        if data.get(at) == Some(&b']') {
            return self.after_array(data, at + 1);
        }
        loop {
            at = scan::spaces(data, at);
            self.line += 1;
            let start = at;
            match self.record.json_object(self.rows, &input, at) {
                Ok(end) => {
                    self.rows += 1;
                    at = end;
                }
                Err(fault) => match scan::skip(data, at) {
                    Ok(end) => {
                        self.refuse(&fault, self.line, &data[start..end]);
                        at = end;
                    }
                    Err(_) => return self.refuse(&fault, self.line, &data[start..]),
                },
            }
            at = scan::spaces(data, at);
            match data.get(at) {
                Some(b',') => at += 1,
                Some(b']') => return self.after_array(data, at + 1),
                _ => {
                    self.line += 1;
                    return self.refuse(&Fault::new("the array does not end"), self.line, &data[at..]);
                }
            }
        }
    }

    fn after_array(&mut self, data: &[u8], at: usize) {
        if scan::spaces(data, at) < data.len() {
            self.line += 1;
            self.refuse(&Fault::new("more text after the array"), self.line, &data[at..]);
        }
    }
}

/// Whether a type is text or has text inside.
fn holds_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 => true,
        DataType::List(item) => holds_text(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|f| holds_text(f.data_type())),
        _ => false,
    }
}

/// The end of the last line within about a segment's length; 0 if no line ends in all the data.
fn segment_end(data: &[u8]) -> usize {
    let near = &data[..data.len().min(SEGMENT)];
    match memrchr(b'\n', near) {
        Some(newline) => newline + 1,
        None => memchr(b'\n', &data[near.len()..]).map_or(0, |n| near.len() + n + 1),
    }
}
