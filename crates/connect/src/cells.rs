//! Text in cells: CSV, and the text format of PostgreSQL's `COPY`.
//!
//! A record that cannot be read is bad alone. A quote that never closes spoils only the line it is on:
//! reading goes on with the next line.

use arrow::datatypes::SchemaRef;
use memchr::{memchr, memchr_iter, memchr2};

use crate::column::{Fault, Step};
use crate::format::Table;
use crate::shape::Shape;

/// A quoted cell longer than this is taken for one whose closing quote is missing.
const MAX_QUOTED: usize = 1 << 20;

/// How CSV is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvOptions {
    /// Between cells.
    pub delimiter: u8,
    /// Around cells.
    pub quote: u8,
    /// Whether the first record names the columns; else they are the schema's, in order.
    pub header: bool,
    /// What stands for NULL, if not quoted.
    pub null: String,
}

impl Default for CsvOptions {
    fn default() -> Self {
        CsvOptions { delimiter: b',', quote: b'"', header: true, null: String::new() }
    }
}

/// How the text format of `COPY` is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgTextOptions {
    /// Between cells.
    pub delimiter: u8,
    /// Whether the first line names the columns.
    pub header: bool,
    /// What stands for NULL.
    pub null: String,
}

impl Default for PgTextOptions {
    fn default() -> Self {
        PgTextOptions { delimiter: b'\t', header: false, null: "\\N".into() }
    }
}

/// Reads records of cells.
pub(crate) struct Cells {
    delimiter: u8,
    /// `None`: `COPY`'s text format, with backslashes.
    quote: Option<u8>,
    null: Vec<u8>,
    /// Whether the header is still to come.
    header: bool,
    /// For each cell the column that it is for.
    columns: Vec<Option<usize>>,
    /// Whether `\.` has come, which ends the data.
    ended: bool,
    /// Room for a cell with escapes.
    cell: Vec<u8>,
}

/// Where a record ends.
enum End {
    /// After so many bytes, with its line break.
    At(usize),
    /// Not in this piece.
    Later,
    /// A quote is not closed.
    Never,
}

/// A cell: its text, whether it was quoted, where the next one begins (`None`: it was the last).
struct Cell<'a> {
    text: &'a [u8],
    quoted: bool,
    next: Option<usize>,
}

impl Cells {
    pub(crate) fn csv(options: &CsvOptions, shape: &Shape, schema: &SchemaRef) -> Self {
        Cells {
            delimiter: options.delimiter,
            quote: Some(options.quote),
            null: options.null.clone().into_bytes(),
            header: options.header,
            columns: in_order(shape, schema),
            ended: false,
            cell: Vec::new(),
        }
    }

    pub(crate) fn pg_text(options: &PgTextOptions, shape: &Shape, schema: &SchemaRef) -> Self {
        Cells {
            delimiter: options.delimiter,
            quote: None,
            null: options.null.clone().into_bytes(),
            header: options.header,
            columns: in_order(shape, schema),
            ended: false,
            cell: Vec::new(),
        }
    }

    /// Whether the header is still to come.
    pub(crate) fn wants_header(&self) -> bool {
        self.header
    }

    /// Decodes complete records; gives the bytes they had.
    pub(crate) fn decode(&mut self, table: &mut Table, data: &[u8], last: bool, max_rows: usize) -> usize {
        let mut at = 0;
        // At least the header is read, whatever `max_rows` says.
        while at < data.len() && (self.header || table.records() < max_rows) {
            if self.ended {
                return data.len();
            }
            let rest = &data[at..];
            let (length, whole) = match self.record_end(rest) {
                End::At(length) => (length, true),
                End::Later if !last => return at,
                End::Later => (rest.len(), true),
                End::Never if !last && rest.len() < MAX_QUOTED => return at,
                // The line alone is bad.
                End::Never => (memchr(b'\n', rest).map_or(rest.len(), |n| n + 1), false),
            };
            self.record(table, &rest[..length], whole);
            at += length;
        }
        at
    }

    /// One record, with its line break.
    fn record(&mut self, table: &mut Table, bytes: &[u8], whole: bool) {
        let line = table.line + 1;
        table.line += 1;
        let content = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let content = content.strip_suffix(b"\r").unwrap_or(content);
        if self.quote.is_some() {
            table.line += memchr_iter(b'\n', content).count() as u64;
        }
        let content = if line == 1 { content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content) } else { content };
        if self.header {
            self.header = false;
            return self.read_header(table, content);
        }
        // A line without anything is no record, unless it is the empty text of a single column.
        if content.is_empty() && self.columns.len() != 1 {
            return;
        }
        if self.quote.is_none() && content == b"\\." {
            self.ended = true;
            return;
        }
        let outcome = if whole { self.row(table, content) } else { Err(Fault::new("a quote is not closed")) };
        table.settle(outcome, line, content);
    }

    fn row(&mut self, table: &mut Table, content: &[u8]) -> Step<()> {
        let mut buffer = std::mem::take(&mut self.cell);
        let outcome = self.row_with(table, content, &mut buffer);
        self.cell = buffer;
        outcome
    }

    fn row_with(&self, table: &mut Table, content: &[u8], buffer: &mut Vec<u8>) -> Step<()> {
        let mut at = Some(0);
        for column in &self.columns {
            let start = at.ok_or_else(|| Fault::new("too few cells"))?;
            let cell = self.cell(content, start, buffer)?;
            at = cell.next;
            let Some(column) = *column else { continue };
            if cell.text == self.null && !cell.quoted {
                continue;
            }
            let target = &mut table.record.columns[column];
            target.align(table.rows);
            let pushed = if self.quote.is_none() && cell.text.contains(&b'\\') {
                target.push_text(&unescaped(cell.text)?, false)
            } else {
                target.push_text(cell.text, false)
            };
            pushed.map_err(|fault| fault.within(table.record.name(column)))?;
        }
        if at.is_some() {
            return Err(Fault::new("too many cells"));
        }
        table.record.complete(table.rows)
    }

    /// The header of CSV says which cell is for which column; that of `COPY` is for people.
    fn read_header(&mut self, table: &Table, content: &[u8]) {
        if self.quote.is_none() {
            return;
        }
        let mut buffer = Vec::new();
        let mut columns = Vec::new();
        let mut at = Some(0);
        while let Some(start) = at {
            let Ok(cell) = self.cell(content, start, &mut buffer) else { break };
            columns.push(table.record.find(cell.text.trim_ascii()));
            at = cell.next;
        }
        self.columns = columns;
    }

    /// Where the record at the front of `data` ends.
    fn record_end(&self, data: &[u8]) -> End {
        let Some(quote) = self.quote else {
            return self.line_end(data);
        };
        let mut at = 0;
        loop {
            if data.get(at) == Some(&quote) {
                match closing_quote(data, at + 1, quote) {
                    Some(close) => at = close + 1,
                    None => return End::Never,
                }
            }
            match memchr2(self.delimiter, b'\n', &data[at..]) {
                None => return End::Later,
                Some(found) if data[at + found] == b'\n' => return End::At(at + found + 1),
                Some(found) => at += found + 1,
            }
        }
    }

    /// In `COPY`'s text format a backslash before the line break makes it part of the cell.
    fn line_end(&self, data: &[u8]) -> End {
        for newline in memchr_iter(b'\n', data) {
            let backslashes = data[..newline].iter().rev().take_while(|b| **b == b'\\').count();
            if backslashes % 2 == 0 {
                return End::At(newline + 1);
            }
        }
        End::Later
    }

    /// The cell that begins at `start`.
    fn cell<'a>(&self, content: &'a [u8], start: usize, buffer: &'a mut Vec<u8>) -> Step<Cell<'a>> {
        match self.quote {
            Some(quote) if content.get(start) == Some(&quote) => self.quoted_cell(content, start, quote, buffer),
            Some(_) => Ok(self.plain_cell(content, start, memchr(self.delimiter, &content[start..]))),
            None => {
                let mut from = start;
                let found = loop {
                    match memchr2(self.delimiter, b'\\', &content[from..]) {
                        Some(found) if content[from + found] == b'\\' => from = (from + found + 2).min(content.len()),
                        found => break found.map(|f| from + f - start),
                    }
                };
                Ok(self.plain_cell(content, start, found))
            }
        }
    }

    fn plain_cell<'a>(&self, content: &'a [u8], start: usize, length: Option<usize>) -> Cell<'a> {
        match length {
            Some(length) => {
                Cell { text: &content[start..start + length], quoted: false, next: Some(start + length + 1) }
            }
            None => Cell { text: &content[start..], quoted: false, next: None },
        }
    }

    fn quoted_cell<'a>(&self, content: &'a [u8], start: usize, quote: u8, buffer: &'a mut Vec<u8>) -> Step<Cell<'a>> {
        let close = closing_quote(content, start + 1, quote).ok_or_else(|| Fault::new("a quote is not closed"))?;
        let next = match content.get(close + 1) {
            None => None,
            Some(byte) if *byte == self.delimiter => Some(close + 2),
            Some(_) => return Err(Fault::new("text after a closing quote")),
        };
        let inside = &content[start + 1..close];
        if memchr(quote, inside).is_none() {
            return Ok(Cell { text: inside, quoted: true, next });
        }
        buffer.clear();
        let mut skip = false;
        for byte in inside {
            skip = *byte == quote && !skip;
            if !skip {
                buffer.push(*byte);
            }
        }
        Ok(Cell { text: buffer, quoted: true, next })
    }
}

/// For each column of the relation the place where it is decoded, if it is wanted.
fn in_order(shape: &Shape, schema: &SchemaRef) -> Vec<Option<usize>> {
    (0..schema.fields().len()).map(|n| shape.numbers.binary_search(&n).ok()).collect()
}

/// The quote that closes a cell whose content begins at `at`; doubled ones belong to the content.
fn closing_quote(data: &[u8], mut at: usize, quote: u8) -> Option<usize> {
    loop {
        let found = at + memchr(quote, data.get(at..)?)?;
        if data.get(found + 1) != Some(&quote) {
            return Some(found);
        }
        at = found + 2;
    }
}

/// The text that a cell of `COPY`'s text format stands for.
fn unescaped(cell: &[u8]) -> Step<Vec<u8>> {
    let mut out = Vec::with_capacity(cell.len());
    let mut rest = cell;
    while let Some(found) = memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..found]);
        rest = &rest[found + 1..];
        let Some(byte) = rest.first() else {
            return Err(Fault::new("a backslash at the end of a cell"));
        };
        let (value, length) = match byte {
            b'b' => (8, 1),
            b'f' => (12, 1),
            b'n' => (b'\n', 1),
            b'r' => (b'\r', 1),
            b't' => (b'\t', 1),
            b'v' => (11, 1),
            b'0'..=b'7' => number(rest, 8, 3),
            b'x' if rest.get(1).is_some_and(u8::is_ascii_hexdigit) => {
                let (value, length) = number(&rest[1..], 16, 2);
                (value, length + 1)
            }
            other => (*other, 1),
        };
        out.push(value);
        rest = &rest[length..];
    }
    out.extend_from_slice(rest);
    Ok(out)
}

/// The byte that up to `most` digits at the front stand for, and how many they are.
fn number(text: &[u8], radix: u32, most: usize) -> (u8, usize) {
    let digits = text.iter().take(most).map_while(|b| char::from(*b).to_digit(radix));
    let (value, length) = digits.fold((0, 0), |(value, length), d| (value * radix + d, length + 1));
    ((value & 0xff) as u8, length)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, RecordBatch};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;
    use crate::format::{Format, FormatKind};
    use crate::json_out::json_array;
    use crate::source::Decoded;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("a", DataType::Int64, false),
            Field::new("b", DataType::Utf8, true),
            Field::new("c", DataType::Float64, true),
        ]))
    }

    fn csv(header: bool, body: &str) -> Decoded {
        let format = Format::new(FormatKind::Csv(CsvOptions { header, ..CsvOptions::default() }));
        format.decode(&schema(), None, &[0], body.as_bytes()).expect("decodes")
    }

    fn rows(rows: &RecordBatch) -> Vec<String> {
        (0..rows.num_rows())
            .map(|i| {
                let mut out = String::new();
                json_array(rows, i, &mut out);
                out
            })
            .collect()
    }

    #[test]
    fn csv_with_quotes_nulls_and_bad_rows() {
        let body =
            "1,x,1.5\r\n2,\"a \"\"b\"\"\nc\",\n,z,1\nx,y,2\n3,,\n4,\"\",7\n5,only\n6,a,1,extra\n7,\"open,1\n8,z,2";
        let decoded = csv(false, body);
        assert_eq!(
            rows(&decoded.rows),
            ["[1,\"x\",1.5]", "[2,\"a \\\"b\\\"\\nc\",null]", "[3,null,null]", "[4,\"\",7]", "[8,\"z\",2]"]
        );
        let bad: Vec<(u64, &str)> = decoded.bad.iter().map(|b| (b.position, b.reason.as_str())).collect();
        assert_eq!(
            bad,
            [
                (4, "column a: NULL where a value has to be"),
                (5, "column a: not an integer"),
                (8, "too few cells"),
                (9, "too many cells"),
                (10, "a quote is not closed"),
            ]
        );
    }

    #[test]
    fn a_header_names_the_columns() {
        let decoded = csv(true, "c,zzz,a\n1.5,?,1\n,?,2\n");
        assert_eq!(rows(&decoded.rows), ["[1,null,1.5]", "[2,null,null]"]);
        assert!(decoded.bad.is_empty());
        assert_eq!(csv(true, "").rows.num_rows(), 0);
        assert_eq!(csv(true, "b\nx\n").bad.len(), 1);
    }

    #[test]
    fn pieces_do_not_matter() {
        let body = "a,b,c\n1,\"x\ny\",2\n2,z,\n3,\"q\"\"\",4\n";
        let format = Format::new(FormatKind::Csv(CsvOptions::default()));
        let whole = format.decode(&schema(), None, &[0], body.as_bytes()).expect("decodes");
        for size in 1..body.len() {
            let mut decoder = format.decoder(&schema(), None, &[0]).expect("valid");
            let (mut done, mut have) = (0, 0);
            while have < body.len() {
                have = (have + size).min(body.len());
                done += decoder.decode(&body.as_bytes()[done..have], have == body.len(), usize::MAX);
            }
            let decoded = decoder.take().expect("valid");
            assert_eq!(decoded.rows, whole.rows);
            assert_eq!(decoded.bad, []);
        }
    }

    #[test]
    fn copy_text() {
        let format = Format::new(FormatKind::PgText(PgTextOptions::default()));
        let body = "1\ta\\tb\\\\\\n\\x41\\101\t\\N\n2\t\\N\t1.5\nx\ty\tz\n3\t\\\\N\t2\n\\.\nignored\n";
        let decoded = format.decode(&schema(), None, &[0], body.as_bytes()).expect("decodes");
        assert_eq!(rows(&decoded.rows), ["[1,\"a\\tb\\\\\\nAA\",null]", "[2,null,1.5]", "[3,\"\\\\N\",2]"]);
        assert_eq!(decoded.bad.len(), 1);
        assert_eq!(decoded.rows.column(0).as_primitive::<Int64Type>().values(), &[1, 2, 3]);
    }
}
