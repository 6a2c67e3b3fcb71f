//! Opening a log: every segment is read and checked, a torn tail is cut, all else is an error.
//!
//! A record that is not readable at the end of the last segment was being written when the power
//! went, unless something says that it had been durable: the floor, or a later record. Then the
//! disk lost it, and the log is not opened.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::{Condvar, Mutex};
use xxhash_rust::xxh3::xxh3_64;

use super::format::{FLOOR, FLOOR_NAME, Floor, SEGMENT_ENDING, SegmentHeader, segment_name};
use super::read::{Found, SegmentReader, missing};
use super::writer::Segment;
use super::{Handlers, Log, LogOptions, LogWriter, Queue, Record, RecordNumber, Shared, State};
use crate::error::At;
use crate::folder::{Folder, LOG};
use crate::{DataFolder, StorageError};

/// A log that was opened.
pub struct Opened {
    /// To append.
    pub log: Log,
    /// To be run: [`LogWriter::spawn`].
    pub writer: LogWriter,
    /// What a crash had left unfinished, if anything; none of it was acknowledged.
    pub torn: Option<TornTail>,
}

/// The end of a log that was cut off because it was written by half when the power went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment.
    pub path: PathBuf,
    /// Where it was cut, in bytes.
    pub offset: u64,
    /// How many bytes were cut off.
    pub bytes: u64,
    /// The number of the first record that could not be read.
    pub record: RecordNumber,
    /// What was wrong with it.
    pub cause: &'static str,
}

impl Log {
    /// Opens the log of a data folder, or makes a new one. All of it is read and checked.
    ///
    /// # Errors
    /// `Damaged` for whatever is not as it was written and durable.
    pub fn open(data: &DataFolder, options: LogOptions, handlers: Handlers) -> Result<Opened, StorageError> {
        let folder = data.inner(LOG)?;
        folder.remove_unfinished()?;
        let mut found = segments(&folder)?;
        let mut floor = match read_floor(&folder)? {
            Some(floor) => floor,
            None if found.is_empty() => new_floor(&folder, data)?,
            None => return Err(StorageError::damaged(&folder.at(FLOOR_NAME), 0, "the file is missing")),
        };
        if found.is_empty() && floor.first == floor.durable {
            let header =
                SegmentHeader { log: floor.log, first: floor.first, previous: 0, incarnation: data.incarnation() };
            folder.put(&segment_name(floor.first), &header.encode().0)?;
            found.push(floor.first);
        }
        let mut ignore = |_: &Record| {};
        let max_record = options.max_record;
        let mut scan =
            Scan { folder: &folder, floor, incarnation: data.incarnation(), max_record, settled: 0, seen: &mut ignore };
        let last = scan.all(&found, &mut Err)?;
        let mut last = last.ok_or_else(|| missing(&folder, floor.first))?;
        let torn = scan.tail(&mut last)?;
        scan.settle(&mut last, torn.as_ref())?;
        folder.sync()?;

        floor.durable = last.next;
        floor.writes += 1;
        let path = folder.at(FLOOR_NAME);
        let floor_file = folder.disk.open(&path).at("open", &path)?;
        let (bytes, at) = floor.encode();
        floor_file.write_at(&bytes, at as u64).at("write", &path)?;
        floor_file.sync().at("sync", &path)?;

        let end = last.next;
        let queue =
            Queue { waiting: [].into(), bytes: 0, next: end, release: found[0], state: State::Running, closing: false };
        let shared = Arc::new(Shared {
            queue: Mutex::new(queue),
            work: Condvar::new(),
            news: Condvar::new(),
            first: AtomicU64::new(found[0]),
            durable: AtomicU64::new(end),
        });
        let segment = Segment { file: last.file, path: last.path, identity: last.identity, length: last.length };
        let log = Log { shared, folder, options, identity: floor.log };
        let writer = LogWriter::new(&log, handlers, segment, found.into(), (floor, floor_file), data.incarnation());
        Ok(Opened { log, writer, torn })
    }
}

/// The first records of the segments in a log's folder, sorted.
pub(super) fn segments(folder: &Folder) -> Result<Vec<RecordNumber>, StorageError> {
    let names = folder.list()?.into_iter().filter(|name| name.ends_with(SEGMENT_ENDING));
    let numbers = names.map(|name| {
        let first = name.trim_end_matches(SEGMENT_ENDING).parse();
        let first = first.ok().filter(|first| segment_name(*first) == name);
        first.ok_or_else(|| StorageError::damaged(&folder.at(&name), 0, "this is not the name of a segment"))
    });
    numbers.collect()
}

pub(super) fn read_floor(folder: &Folder) -> Result<Option<Floor>, StorageError> {
    let Some(bytes) = folder.read(FLOOR_NAME, FLOOR)? else { return Ok(None) };
    let floor = Floor::decode(&bytes);
    let damaged = || StorageError::damaged(&folder.at(FLOOR_NAME), 0, "neither of the two copies is whole");
    floor.map(Some).ok_or_else(damaged)
}

/// The floor of a log that holds nothing yet, with the log's identity.
fn new_floor(folder: &Folder, data: &DataFolder) -> Result<Floor, StorageError> {
    let mut born = folder.path.as_os_str().as_encoded_bytes().to_vec();
    born.extend_from_slice(&data.opened_micros().to_le_bytes());
    born.extend_from_slice(&data.incarnation().to_le_bytes());
    let floor = Floor { log: xxh3_64(&born), ..Floor::default() };
    folder.put(FLOOR_NAME, &floor.encode_both())?;
    Ok(Floor { writes: 1, ..floor })
}

/// Reads segments as an opening log does.
pub(super) struct Scan<'a> {
    pub(super) folder: &'a Folder,
    pub(super) floor: Floor,
    pub(super) incarnation: u64,
    pub(super) max_record: u64,
    /// Offset in the segment up to which everything is known to be durable.
    pub(super) settled: u64,
    /// Is shown each record that is whole.
    pub(super) seen: &'a mut dyn FnMut(&Record),
}

/// What to do about a segment that is not whole: stop with the error, or note it and go on with the next one.
pub(super) type Bad<'a> = dyn FnMut(StorageError) -> Result<(), StorageError> + 'a;

impl Scan<'_> {
    /// Reads all segments but the last one, whose reader stands at its beginning; there is none if that one's header is
    /// bad.
    pub(super) fn all(
        &mut self,
        firsts: &[RecordNumber],
        bad: &mut Bad<'_>,
    ) -> Result<Option<SegmentReader>, StorageError> {
        if firsts.first().is_none_or(|first| *first > self.floor.first) {
            bad(missing(self.folder, self.floor.first))?;
        }
        let mut before = None;
        for (i, first) in firsts.iter().enumerate() {
            match self.one(*first, before.take(), firsts.get(i + 1).copied()) {
                Ok(reader) => before = Some(reader),
                Err(error) => bad(error)?,
            }
        }
        Ok(before)
    }

    /// Opens a segment that follows on another, and reads it up to where the next one begins, if there is one.
    fn one(
        &mut self,
        first: RecordNumber,
        before: Option<SegmentReader>,
        next: Option<RecordNumber>,
    ) -> Result<SegmentReader, StorageError> {
        let mut reader = self.segment(first)?;
        if let Some(before) = before
            && (reader.header.previous != before.identity || reader.header.incarnation < before.header.incarnation)
        {
            let cause = format!("this segment does not follow on {}", before.path.display());
            return Err(StorageError::damaged(&reader.path, 0, cause));
        }
        let Some(next) = next else { return Ok(reader) };
        let bad = match self.read(&mut reader)? {
            None if next > reader.next => return Err(missing(self.folder, reader.next)),
            None if next < reader.next => Some("the next segment begins with a record of this one"),
            other => other,
        };
        match bad {
            Some(cause) => Err(StorageError::damaged(&reader.path, reader.offset, cause)),
            None => Ok(reader),
        }
    }

    fn segment(&self, first: RecordNumber) -> Result<SegmentReader, StorageError> {
        let reader = SegmentReader::open(self.folder, first, self.max_record)?;
        let header = &reader.header;
        if header.log != self.floor.log {
            return Err(StorageError::damaged(&reader.path, 0, "this is a segment of another log"));
        }
        if header.incarnation > self.incarnation {
            let cause = format!(
                "written by incarnation {}, but the folder counts only {}: a file of it was lost or put back",
                header.incarnation, self.incarnation
            );
            return Err(StorageError::damaged(&reader.path, 0, cause));
        }
        Ok(reader)
    }

    /// Reads what is readable. Says what is wrong after that, if it is not the file's end.
    fn read(&mut self, reader: &mut SegmentReader) -> Result<Option<&'static str>, StorageError> {
        self.settled = reader.offset;
        loop {
            match reader.next()? {
                Found::Record(record) => {
                    (self.seen)(&record);
                    if record.number < self.floor.durable {
                        self.settled = reader.offset;
                    }
                }
                Found::End => return Ok(None),
                Found::Bad(cause) => return Ok(Some(cause)),
            }
        }
    }

    /// Reads the last segment, and tells what a crash left unfinished there from what the disk lost.
    pub(super) fn tail(&mut self, last: &mut SegmentReader) -> Result<Option<TornTail>, StorageError> {
        let bad = self.read(last)?;
        let (path, offset, record) = (last.path.clone(), last.offset, last.next);
        if record < self.floor.durable {
            let cause = bad.unwrap_or("the file ends here");
            let cause = format!("record {record}: {cause}; records below {} were durable", self.floor.durable);
            return Err(StorageError::damaged(&path, offset, cause));
        }
        let Some(cause) = bad else { return Ok(None) };
        if let Some(proof) = last.proof_of(record)? {
            let cause = format!("record {record}: {cause}; the record at byte {proof} says that it was durable");
            return Err(StorageError::damaged(&path, offset, cause));
        }
        Ok(Some(TornTail { path, offset, bytes: last.length - offset, record, cause }))
    }

    /// Cuts the last segment's torn tail, and makes the rest durable.
    fn settle(&self, last: &mut SegmentReader, torn: Option<&TornTail>) -> Result<(), StorageError> {
        if let Some(torn) = torn {
            last.file.set_length(torn.offset).at("cut", &last.path)?;
            last.length = torn.offset;
        }
        self.rewrite(last)?;
        last.file.sync().at("sync", &last.path)
    }

    /// Writes again what is not known to be durable.
    ///
    /// If a sync failed before, the operating system may show bytes that it has given up writing;
    /// a sync alone would then claim success. Written again, they are really synced.
    fn rewrite(&self, last: &SegmentReader) -> Result<(), StorageError> {
        let mut at = self.settled;
        let mut piece = vec![0; 1 << 20];
        while at < last.length {
            let want = usize::try_from(last.length - at).unwrap_or(piece.len()).min(piece.len());
            let read = last.file.read_at(&mut piece[..want], at).at("read", &last.path)?;
            if read == 0 {
                return Err(StorageError::damaged(&last.path, at, "the file was cut meanwhile"));
            }
            last.file.write_at(&piece[..read], at).at("write", &last.path)?;
            at += read as u64;
        }
        Ok(())
    }
}
