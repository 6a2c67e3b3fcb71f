//! Looking at a log without opening it.

use std::collections::BTreeMap;

use super::format::{FLOOR_NAME, RECORD_HEADER, SEGMENT_HEADER, segment_name};
use super::open::{Scan, read_floor, segments};
use super::{Record, RecordNumber, TornTail};
use crate::StorageError;
use crate::folder::Folder;

/// What there is of a log. A start would open it if there is no damage.
#[derive(Debug, Default)]
pub struct LogFindings {
    /// Its segments.
    pub segments: Vec<SegmentFinding>,
    /// By kind: how many whole records, and how many bytes their payloads have.
    pub kinds: BTreeMap<u8, (u64, u64)>,
    /// The number of the first record that is needed, and the number after the last one that was durable, as the
    /// floor says.
    pub floor: Option<(RecordNumber, RecordNumber)>,
    /// The first whole record's number and the number after the last whole one's; equal if there is none.
    pub records: (RecordNumber, RecordNumber),
    /// What a crash left unfinished at the end; the next start cuts it off.
    pub torn: Option<TornTail>,
    /// What keeps a start from opening the log: at most one place in each segment.
    pub damage: Vec<StorageError>,
}

/// A segment of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFinding {
    /// The file's name.
    pub name: String,
    /// The number of its first record.
    pub first: RecordNumber,
    /// Its whole records.
    pub records: u64,
    /// The file's length.
    pub bytes: u64,
}

/// Looks at the log in a folder. `read` hears how many bytes were read of it.
pub(crate) fn inspect(
    folder: &Folder,
    incarnation: u64,
    max_record: u64,
    read: &mut dyn FnMut(u64),
) -> Result<LogFindings, StorageError> {
    let mut findings = LogFindings::default();
    let found = match segments(folder) {
        Err(error @ StorageError::Damaged { .. }) => {
            findings.damage.push(error);
            return Ok(findings);
        }
        other => other?,
    };
    for first in &found {
        let name = segment_name(*first);
        let bytes = folder.length(&name)?.unwrap_or(0);
        findings.segments.push(SegmentFinding { name, first: *first, records: 0, bytes });
    }
    let floor = match read_floor(folder) {
        Ok(Some(floor)) => floor,
        Ok(None) if found.is_empty() => return Ok(findings),
        Ok(None) => {
            findings.damage.push(StorageError::damaged(&folder.at(FLOOR_NAME), 0, "the file is missing"));
            return Ok(findings);
        }
        Err(error) => {
            findings.damage.push(error);
            return Ok(findings);
        }
    };
    findings.floor = Some((floor.first, floor.durable));
    findings.records = (floor.first, floor.first);
    if found.is_empty() && floor.first == floor.durable {
        // The first start had no time to begin a segment.
        return Ok(findings);
    }
    let LogFindings { segments, kinds, records, torn, damage, .. } = &mut findings;
    let mut any = false;
    let mut seen = |record: &Record| {
        let payload = record.payload.len() as u64;
        let of_kind = kinds.entry(record.kind).or_default();
        *of_kind = (of_kind.0 + 1, of_kind.1 + payload);
        let at = segments.partition_point(|segment| segment.first <= record.number);
        if let Some(segment) = at.checked_sub(1).and_then(|at| segments.get_mut(at)) {
            segment.records += 1;
        }
        *records = (if any { records.0 } else { record.number }, record.number + 1);
        any = true;
        read(RECORD_HEADER as u64 + payload);
    };
    let mut scan = Scan { folder, floor, incarnation, max_record, settled: 0, seen: &mut seen };
    let last = scan.all(&found, &mut |error| {
        damage.push(error);
        Ok(())
    })?;
    if let Some(mut last) = last {
        match scan.tail(&mut last) {
            Ok(tail) => *torn = tail,
            Err(error) => damage.push(error),
        }
    }
    read((SEGMENT_HEADER * found.len()) as u64);
    if !any {
        let first = found.first().copied().unwrap_or(floor.first);
        *records = (first, first);
    }
    Ok(findings)
}
