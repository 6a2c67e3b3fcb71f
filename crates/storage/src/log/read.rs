//! Reading a segment from its start to its end, with bounded memory.

use std::path::PathBuf;

use tidemill_env::DiskFile;

use super::format::{RECORD_HEADER, RecordHeader, SEGMENT_HEADER, SegmentHeader, segment_name};
use super::{Record, RecordNumber};
use crate::StorageError;
use crate::error::At;
use crate::folder::Folder;

/// How much is read at once, in bytes.
const CHUNK: usize = 256 * 1024;

/// A segment that is being read.
pub(super) struct SegmentReader {
    pub(super) path: PathBuf,
    pub(super) file: Box<dyn DiskFile>,
    pub(super) header: SegmentHeader,
    pub(super) identity: u64,
    pub(super) length: u64,
    /// The offset of the next record, and its number if it is there.
    pub(super) offset: u64,
    pub(super) next: RecordNumber,
    max_record: u64,
    /// A piece of the file, and the offset where it begins.
    chunk: Vec<u8>,
    chunk_at: u64,
}

/// What stands where the next record should be.
pub(super) enum Found {
    Record(Record),
    /// The file's end, exactly.
    End,
    /// Something else, and what is wrong with it.
    Bad(&'static str),
}

impl SegmentReader {
    pub(super) fn open(folder: &Folder, first: RecordNumber, max_record: u64) -> Result<Self, StorageError> {
        let path = folder.at(&segment_name(first));
        let file = folder.disk.open(&path).at("open", &path)?;
        let length = file.length().at("measure", &path)?;
        let mut bytes = [0; SEGMENT_HEADER];
        let read = file.read_at(&mut bytes, 0).at("read", &path)?;
        let (header, identity) =
            SegmentHeader::decode(&bytes[..read]).map_err(|cause| StorageError::damaged(&path, 0, cause))?;
        if header.first != first {
            let cause = format!("the file's name says record {first}, its header record {}", header.first);
            return Err(StorageError::damaged(&path, 0, cause));
        }
        let (offset, chunk) = (SEGMENT_HEADER as u64, Vec::new());
        Ok(Self { path, file, header, identity, length, offset, next: first, max_record, chunk, chunk_at: 0 })
    }

    /// Reads the next record.
    ///
    /// # Errors
    /// `Io` if the disk cannot read; `Damaged` for a record that was written whole, but cannot be
    /// what this log holds here: its number is another one, or it is longer than allowed.
    pub(super) fn next(&mut self) -> Result<Found, StorageError> {
        let left = self.length - self.offset;
        if left == 0 {
            return Ok(Found::End);
        }
        if left < RECORD_HEADER as u64 {
            return Ok(Found::Bad("the file ends within a record's header"));
        }
        let identity = self.identity;
        let Some(header) = RecordHeader::decode(self.bytes(self.offset, RECORD_HEADER)?, identity) else {
            return Ok(Found::Bad("this is not a record's header, or it was changed"));
        };
        if header.number != self.next {
            let cause = format!("record {} stands where record {} should", header.number, self.next);
            return Err(StorageError::damaged(&self.path, self.offset, cause));
        }
        let Some(length) = usize::try_from(header.length).ok().filter(|_| header.length <= self.max_record) else {
            let cause = format!("a record of {} bytes, but {} are allowed", header.length, self.max_record);
            return Err(StorageError::damaged(&self.path, self.offset, cause));
        };
        if left - (RECORD_HEADER as u64) < header.length {
            return Ok(Found::Bad("the file ends within a record's payload"));
        }
        let payload = self.bytes(self.offset + RECORD_HEADER as u64, length)?;
        if !header.matches(payload) {
            return Ok(Found::Bad("the payload's checksum is not the header's"));
        }
        let record = Record { number: header.number, kind: header.kind, payload: payload.to_vec() };
        self.offset += RECORD_HEADER as u64 + header.length;
        self.next += 1;
        Ok(Found::Record(record))
    }

    /// Whether some later record proves that record `number`, which is not readable, was durable.
    ///
    /// Then the disk lost it. Otherwise it was being written when the power went. A copy of a record
    /// in someone's payload proves nothing wrong: those written before this one say less.
    pub(super) fn proof_of(&mut self, number: RecordNumber) -> Result<Option<u64>, StorageError> {
        let (mut at, identity, length) = (self.offset + 1, self.identity, self.length);
        while at + RECORD_HEADER as u64 <= length {
            let want = usize::try_from(length - at).unwrap_or(CHUNK).min(CHUNK);
            let bytes = self.bytes(at, want)?;
            let mut from = 0;
            while let Some(found) = RecordHeader::find(bytes, from) {
                let header = RecordHeader::decode(&bytes[found..], identity);
                if header.is_some_and(|header| header.durable > number) {
                    return Ok(Some(at + found as u64));
                }
                from = found + 1;
            }
            // A header may lie across the edge of two pieces.
            at += (want - (RECORD_HEADER - 1)) as u64;
        }
        Ok(None)
    }

    /// Bytes of the file that are there, from memory or read with what follows them.
    fn bytes(&mut self, offset: u64, length: usize) -> Result<&[u8], StorageError> {
        let end = offset + length as u64;
        if offset < self.chunk_at || end > self.chunk_at + self.chunk.len() as u64 {
            let rest = usize::try_from(self.length - offset).unwrap_or(usize::MAX);
            self.chunk.resize(length.max(CHUNK).min(rest), 0);
            let read = self.file.read_at(&mut self.chunk, offset).at("read", &self.path)?;
            if read < length {
                return Err(StorageError::damaged(&self.path, offset + read as u64, "the file was cut meanwhile"));
            }
            self.chunk.truncate(read);
            self.chunk_at = offset;
        }
        let from = usize::try_from(offset - self.chunk_at).unwrap_or(usize::MAX);
        Ok(&self.chunk[from..from + length])
    }
}

/// The error for a segment that should be there.
pub(super) fn missing(folder: &Folder, first: RecordNumber) -> StorageError {
    StorageError::damaged(&folder.at(&segment_name(first)), 0, "the segment is missing")
}

/// The log's records in order.
pub struct Records {
    pub(super) folder: Folder,
    pub(super) max_record: u64,
    /// The segments that are still to be read, the next one last.
    pub(super) segments: Vec<RecordNumber>,
    pub(super) reader: Option<SegmentReader>,
    pub(super) from: RecordNumber,
    /// The next record, which the next segment begins with, and the one not to read any more.
    pub(super) next: RecordNumber,
    pub(super) end: RecordNumber,
}

impl Records {
    fn step(&mut self) -> Result<Option<Record>, StorageError> {
        while self.next < self.end {
            let Some(reader) = &mut self.reader else {
                let first = self.segments.pop().filter(|first| *first == self.next);
                let first = first.ok_or_else(|| missing(&self.folder, self.next))?;
                self.reader = Some(SegmentReader::open(&self.folder, first, self.max_record)?);
                continue;
            };
            match reader.next()? {
                Found::Record(record) => {
                    self.next = record.number + 1;
                    if record.number >= self.from {
                        return Ok(Some(record));
                    }
                }
                Found::End => self.reader = None,
                Found::Bad(cause) => return Err(StorageError::damaged(&reader.path, reader.offset, cause)),
            }
        }
        Ok(None)
    }
}

impl Iterator for Records {
    type Item = Result<Record, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = self.step();
        if record.is_err() {
            // Nothing after a damaged record is served.
            self.end = 0;
        }
        record.transpose()
    }
}
