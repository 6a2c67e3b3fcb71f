//! The log's bytes: the header of a segment, the header of a record, the floor.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::RecordNumber;
use crate::number;

/// Length of a segment's header in bytes.
pub(super) const SEGMENT_HEADER: usize = 56;
/// What a record takes in the log beside its payload, in bytes.
pub const RECORD_HEADER: usize = 48;
/// Length of the floor's file: two sectors, each with one copy.
pub(super) const FLOOR: usize = 2 * SECTOR;

const SEGMENT_MAGIC: &[u8; 8] = b"TmLogSeg";
const RECORD_MAGIC: &[u8; 4] = b"TmRc";
const FLOOR_MAGIC: &[u8; 8] = b"TmFloor1";
const VERSION: u64 = 1;
const SECTOR: usize = 512;
const FLOOR_COPY: usize = 48;

fn words<const N: usize>(magic: &[u8; 8], rest: [u64; N]) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    for word in rest {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Which log it is of.
    pub(super) log: u64,
    /// The number of its first record.
    pub(super) first: RecordNumber,
    /// The identity of the segment before, 0 in the log's first one.
    pub(super) previous: u64,
    /// Who wrote the header.
    pub(super) incarnation: u64,
}

impl SegmentHeader {
    /// The header's bytes, and the segment's identity, which is their checksum.
    pub(super) fn encode(&self) -> (Vec<u8>, u64) {
        let SegmentHeader { log, first, previous, incarnation } = *self;
        let mut bytes = words(SEGMENT_MAGIC, [VERSION, log, first, previous, incarnation]);
        let identity = xxh3_64(&bytes);
        bytes.extend_from_slice(&identity.to_le_bytes());
        (bytes, identity)
    }

    /// The header and the identity, or what is wrong with it.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, u64), String> {
        if bytes.len() < SEGMENT_HEADER {
            return Err(format!("{} bytes are too few for a segment's header", bytes.len()));
        }
        let identity = number(bytes, 48);
        if &bytes[..8] != SEGMENT_MAGIC || xxh3_64(&bytes[..48]) != identity {
            return Err("this is not a segment's header, or it was changed".into());
        }
        let [version, log, first, previous, incarnation] = [8, 16, 24, 32, 40].map(|at| number(bytes, at));
        if version != VERSION {
            return Err(format!("format version {version}, but this program reads version {VERSION}"));
        }
        Ok((SegmentHeader { log, first, previous, incarnation }, identity))
    }
}

/// What stands before a record's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) kind: u8,
    pub(super) length: u64,
    pub(super) number: RecordNumber,
    /// Every record below this one was durable when this one was written.
    pub(super) durable: RecordNumber,
    /// The payload's checksum.
    pub(super) checksum: u64,
}

impl RecordHeader {
    pub(super) fn of(kind: u8, number: RecordNumber, durable: RecordNumber, payload: &[u8]) -> Self {
        RecordHeader { kind, length: payload.len() as u64, number, durable, checksum: xxh3_64(payload) }
    }

    /// Checksums are seeded with the segment's identity, so no record of another segment, and no
    /// bytes in a payload, are taken for one of this segment.
    pub(super) fn encode(&self, identity: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(RECORD_MAGIC);
        out.extend_from_slice(&u32::from(self.kind).to_le_bytes());
        for word in [self.length, self.number, self.durable, self.checksum] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        let own = xxh3_64_with_seed(&out[start..], identity);
        out.extend_from_slice(&own.to_le_bytes());
    }

    /// The header, if these bytes are one.
    pub(super) fn decode(bytes: &[u8], identity: u64) -> Option<Self> {
        let good = bytes.len() >= RECORD_HEADER
            && bytes[..4] == *RECORD_MAGIC
            && bytes[5..8] == [0; 3]
            && xxh3_64_with_seed(&bytes[..40], identity) == number(bytes, 40);
        let [length, of, durable, checksum] = [8, 16, 24, 32].map(|at| if good { number(bytes, at) } else { 0 });
        good.then(|| RecordHeader { kind: bytes[4], length, number: of, durable, checksum })
    }

    /// Whether the payload is the one that was written.
    pub(super) fn matches(&self, payload: &[u8]) -> bool {
        payload.len() as u64 == self.length && xxh3_64(payload) == self.checksum
    }

    /// Where a header could begin, at or after a place.
    pub(super) fn find(bytes: &[u8], from: usize) -> Option<usize> {
        let rest = bytes.get(from..)?;
        rest.windows(RECORD_MAGIC.len()).position(|window| window == RECORD_MAGIC).map(|at| from + at)
    }
}

/// What the log must at least hold: records from `first` up to, not including, `durable`.
///
/// Kept beside the segments, in two copies that are written in turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Floor {
    pub(super) log: u64,
    pub(super) first: RecordNumber,
    pub(super) durable: RecordNumber,
    /// Counts the writes; the copy with the greater number holds.
    pub(super) writes: u64,
}

impl Floor {
    /// One copy's bytes and their place in the file.
    pub(super) fn encode(&self) -> (Vec<u8>, usize) {
        let mut bytes = words(FLOOR_MAGIC, [self.log, self.first, self.durable, self.writes]);
        let checksum = xxh3_64(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        (bytes, if self.writes.is_multiple_of(2) { 0 } else { SECTOR })
    }

    /// A new file: both copies.
    pub(super) fn encode_both(&self) -> Vec<u8> {
        let mut file = vec![0; FLOOR];
        for writes in [self.writes, self.writes + 1] {
            let (bytes, at) = Floor { writes, ..*self }.encode();
            file[at..at + FLOOR_COPY].copy_from_slice(&bytes);
        }
        file
    }

    /// The newest copy that is whole.
    pub(super) fn decode(file: &[u8]) -> Option<Self> {
        let copies = [0, SECTOR].into_iter().filter_map(|at| {
            let bytes = file.get(at..at + FLOOR_COPY)?;
            let good = bytes[..8] == *FLOOR_MAGIC && xxh3_64(&bytes[..40]) == number(bytes, 40);
            let [log, first, durable, writes] = [8, 16, 24, 32].map(|at| number(bytes, at));
            good.then_some(Floor { log, first, durable, writes })
        });
        copies.max_by_key(|floor| floor.writes)
    }
}

/// The name of the floor's file.
pub(super) const FLOOR_NAME: &str = "floor";

/// A segment's file name.
pub(super) fn segment_name(first: RecordNumber) -> String {
    format!("{first:020}{SEGMENT_ENDING}")
}

/// How the names of segments end.
pub(super) const SEGMENT_ENDING: &str = ".log";
