//! The journal: for each epoch what went in, as bytes for the durable log.
//!
//! An entry has all that is needed to repeat its epoch identically: definitions, watermarks, rows, and for sources that
//! can be read again only how far they were read. It is appended when the epoch is cut, and the epoch is
//! published once it is durable, so whatever a reader saw can be repeated.
//!
//! An entry is a JSON header (its length first, as 8 bytes) and after it the rows as Arrow IPC, one piece after the
//! other, of the lengths that the header tells.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidemill_delta::{Delta, Epoch, Micros, decode, encode};
use tidemill_plan::{ColumnPath, RelationId};
use tidemill_storage::{Log, Record, RecordNumber, Refused};

/// The version of entries that this program writes.
pub(crate) const FORMAT: u32 = 1;
/// A record that is a whole entry.
const WHOLE: u8 = 0;
/// Records that are the beginning, the middle and the end of an entry. One that has no end was cut off by a crash.
const FIRST: u8 = 1;
const MORE: u8 = 2;
const END: u8 = 3;
/// The longest record; a longer entry takes several.
const LONGEST: usize = 32 << 20;
/// The longest entry that is read back: several times what the limits on an epoch allow.
const LONGEST_ENTRY: usize = 4 << 30;

/// What went into one epoch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    pub(crate) header: Header,
    /// Rows in the order in which they went in.
    pub(crate) rows: Vec<Put>,
}

/// Rows of one relation.
#[derive(Clone, Debug)]
pub(crate) struct Put {
    pub(crate) relation: RelationId,
    /// What the columns are; `None`: all columns of the relation.
    pub(crate) columns: Option<Arc<[ColumnPath]>>,
    pub(crate) delta: Delta,
    /// Whether the rows are kept for readers.
    pub(crate) keep: bool,
}

/// All of an entry but the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) format: u32,
    pub(crate) epoch: Epoch,
    /// When it was cut, in microseconds since 1970.
    pub(crate) micros: i64,
    /// The errors of views up to the end of this epoch have entered.
    pub(crate) errors_until: Epoch,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) changes: Vec<Change>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) watermarks: Vec<(RelationId, Micros)>,
    /// How far the rows of tables allow the watermark to go from now on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) reached: Vec<(RelationId, Micros)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) reads: Vec<SourceRead>,
    /// Slices of history for new views: how many rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) slices: Vec<(RelationId, usize)>,
    /// Views that are live from here on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) live: Vec<RelationId>,
    /// What has been counted in all at the end of the cut, of relations whose counts have changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) counts: Vec<Counts>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pieces: Vec<Piece>,
}

/// A change of the catalog or of what runs, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    /// A table, source, view or sink.
    Define(Object),
    /// Objects go, dependents first.
    Drop(Vec<RelationId>),
    /// A view that failed takes nothing any more.
    Stop(RelationId),
    /// Views are built anew: their operators go.
    Unbuild(Vec<RelationId>),
    /// They are there again, without state.
    Rebuild(Vec<RelationId>),
    /// They have had all their history, and take part from here on.
    Relive(Vec<RelationId>),
    /// A sink that had given changes up goes on with those after an epoch; `None`: with all rows.
    ResumeSink { sink: RelationId, after: Option<Epoch> },
}

/// An object of the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Object {
    pub(crate) id: RelationId,
    /// The statement that made it.
    pub(crate) sql: String,
    /// Whether its rows are kept for readers.
    pub(crate) keep: bool,
    /// A view of the same name and what is beside it, which go when this one has caught up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) replaces: Vec<RelationId>,
}

/// How far a source has been read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SourceRead {
    pub(crate) source: RelationId,
    /// Whether the rows are to be read again; else they stand in the entry.
    pub(crate) again: bool,
    pub(crate) partitions: Vec<PartitionRead>,
}

/// How far a partition has been read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartitionRead {
    pub(crate) name: String,
    /// How many batches.
    pub(crate) batches: u64,
    pub(crate) position: Option<String>,
    pub(crate) watermark: Micros,
    pub(crate) ended: bool,
    pub(crate) bytes: u64,
}

/// What has been counted of a table or source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) relation: RelationId,
    pub(crate) rows_in: u64,
    pub(crate) applied: u64,
    pub(crate) late: u64,
    pub(crate) bad: u64,
}

/// Where rows stand and whose they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Piece {
    relation: RelationId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    columns: Option<Vec<(usize, Vec<String>)>>,
    keep: bool,
    bytes: usize,
}

/// Why an entry cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("record {record} of the log is not an entry of the journal: {reason}")]
pub(crate) struct BadEntry {
    record: RecordNumber,
    reason: String,
}

impl Entry {
    /// The entry as bytes.
    pub(crate) fn encode(mut self) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        for put in &self.rows {
            let start = body.len();
            encode(&put.delta, &mut body).map_err(|e| e.to_string())?;
            let columns = put.columns.as_ref().map(|c| c.iter().map(|p| (p.column, p.fields.clone())).collect());
            let piece = Piece { relation: put.relation, columns, keep: put.keep, bytes: body.len() - start };
            self.header.pieces.push(piece);
        }
        self.header.format = FORMAT;
        let header = serde_json::to_vec(&self.header).map_err(|e| e.to_string())?;
        let mut bytes = Vec::with_capacity(8 + header.len() + body.len());
        bytes.extend_from_slice(&(header.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&header);
        bytes.append(&mut body);
        Ok(bytes)
    }

    /// Reads what [`Entry::encode`] wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Entry, String> {
        let (length, rest) = bytes.split_first_chunk::<8>().ok_or("it is too short")?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|e| e.to_string())?;
        let (header, mut body) = rest.split_at_checked(length).ok_or("its header is cut off")?;
        let mut header: Header = serde_json::from_slice(header).map_err(|e| e.to_string())?;
        if header.format != FORMAT {
            return Err(format!("it has format {}, and this program reads format {FORMAT}", header.format));
        }
        let mut rows = Vec::with_capacity(header.pieces.len());
        for piece in std::mem::take(&mut header.pieces) {
            let (own, rest) = body.split_at_checked(piece.bytes).ok_or("its rows are cut off")?;
            body = rest;
            let path = |(column, fields)| ColumnPath { column, fields };
            let columns = piece.columns.map(|all| all.into_iter().map(path).collect());
            let delta = decode(own).map_err(|e| e.to_string())?;
            rows.push(Put { relation: piece.relation, columns, delta, keep: piece.keep });
        }
        Ok(Entry { header, rows })
    }
}

/// An entry on its way into the log.
pub(crate) struct Unlogged {
    bytes: Vec<u8>,
    from: usize,
}

impl Unlogged {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Unlogged { bytes, from: 0 }
    }

    /// Appends as much as the log takes now. Gives the number of the entry's last record once all of it is in.
    pub(crate) fn append(&mut self, log: &Log) -> Result<Option<RecordNumber>, Refused> {
        loop {
            let rest = &self.bytes[self.from..];
            let (kind, length) = match (self.from, rest.len() > LONGEST) {
                (0, false) => (WHOLE, rest.len()),
                (0, true) => (FIRST, LONGEST),
                (_, true) => (MORE, LONGEST),
                (_, false) => (END, rest.len()),
            };
            let record = if kind == WHOLE { std::mem::take(&mut self.bytes) } else { rest[..length].to_vec() };
            match log.append(kind, record) {
                Ok(number) if matches!(kind, WHOLE | END) => return Ok(Some(number)),
                Ok(_) => self.from += length,
                Err(Refused::Full(record)) => {
                    if self.bytes.is_empty() {
                        self.bytes = record;
                    }
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Puts the records of entries together again.
#[derive(Default)]
pub(crate) struct Assembler {
    parts: Vec<u8>,
}

impl Assembler {
    /// Takes the next record; gives the entry that it ends.
    pub(crate) fn take(&mut self, record: Record) -> Result<Option<Entry>, BadEntry> {
        let bad = |reason: String| BadEntry { record: record.number, reason };
        if self.parts.len().saturating_add(record.payload.len()) > LONGEST_ENTRY {
            return Err(bad(format!("an entry is longer than {LONGEST_ENTRY} bytes")));
        }
        match record.kind {
            WHOLE => {
                self.parts.clear();
                Entry::decode(&record.payload).map(Some).map_err(bad)
            }
            FIRST => {
                self.parts = record.payload;
                Ok(None)
            }
            MORE | END if self.parts.is_empty() => Err(bad("its beginning is missing".into())),
            MORE => {
                self.parts.extend_from_slice(&record.payload);
                Ok(None)
            }
            END => {
                let mut bytes = std::mem::take(&mut self.parts);
                bytes.extend_from_slice(&record.payload);
                Entry::decode(&bytes).map(Some).map_err(bad)
            }
            other => Err(bad(format!("records of kind {other} are not known"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use tidemill_delta::batch;

    use super::*;

    fn entry() -> Entry {
        let schema = vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)];
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Int64Array::from(vec![1, 2])), Arc::new(StringArray::from(vec![Some("x"), None]))];
        let rows = batch(Arc::new(Schema::new(schema)), columns, 2);
        let delta = Delta::new(rows.clone(), Int64Array::from(vec![1, -1]));
        let path = ColumnPath { column: 3, fields: vec!["f".into()] };
        let header = Header {
            epoch: 7,
            micros: -5,
            errors_until: 6,
            changes: vec![
                Change::Define(Object {
                    id: 4,
                    sql: "CREATE TABLE t (a int)".into(),
                    keep: true,
                    replaces: Vec::new(),
                }),
                Change::Drop(vec![8, 4]),
                Change::Stop(12),
                Change::ResumeSink { sink: 16, after: Some(3) },
            ],
            watermarks: vec![(4, i64::MIN)],
            slices: vec![(12, 5)],
            ..Header::default()
        };
        let put = |delta, columns| Put { relation: 4, columns, delta, keep: true };
        Entry { header, rows: vec![put(delta, None), put(Delta::inserts(rows), Some(Arc::from(vec![path])))] }
    }

    #[test]
    fn entries_survive_their_bytes() {
        let bytes = entry().encode().unwrap();
        let back = Entry::decode(&bytes).unwrap();
        assert_eq!(back.header, Header { format: FORMAT, ..entry().header });
        assert_eq!(format!("{:?}", back.rows), format!("{:?}", entry().rows));
        for length in 0..bytes.len() {
            assert!(Entry::decode(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
        }
    }

    #[test]
    fn a_long_entry_is_put_together_from_its_records() {
        let bytes = entry().encode().unwrap();
        let (head, tail) = bytes.split_at(100);
        let mut assembler = Assembler::default();
        let record = |number, kind, payload: &[u8]| Record { number, kind, payload: payload.to_vec() };
        assert!(assembler.take(record(0, FIRST, head)).unwrap().is_none());
        assert_eq!(assembler.take(record(1, END, tail)).unwrap().unwrap().header.epoch, 7);
        // This one was never finished.
        assert!(assembler.take(record(2, FIRST, head)).unwrap().is_none());
        assert_eq!(assembler.take(record(3, WHOLE, &bytes)).unwrap().unwrap().header.epoch, 7);
        let error =
            |assembler: &mut Assembler, kind| assembler.take(record(4, kind, &bytes)).err().unwrap().to_string();
        assert!(error(&mut assembler, END).ends_with("its beginning is missing"));
        assert!(error(&mut assembler, 9).ends_with("records of kind 9 are not known"));
    }
}
