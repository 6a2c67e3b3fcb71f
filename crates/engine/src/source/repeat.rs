//! How far a source has been read, for the journal; and reading the same again.

use std::sync::Arc;

use tidemill_connect::{Position, Read, Reader};
use tidemill_delta::NO_WATERMARK;
use tidemill_plan::ColumnPath;
use tidemill_sql::SqlError;

use super::{Partition, RunningSource, Taken};
use crate::checkpoint::SavedSource;
use crate::event_time::prepare_source;
use crate::journal::{PartitionRead, SourceRead};

/// A reader that goes over what was read before a restart.
pub(super) struct Repeating {
    reader: Box<dyn Reader>,
    read: Arc<[ColumnPath]>,
    give: Arc<[ColumnPath]>,
}

impl RunningSource {
    /// Whether what was read can be read again, batch by batch.
    pub(crate) fn repeats(&self) -> bool {
        self.source.repeats()
    }

    /// What has been read since the last call; nothing if nothing has.
    pub(crate) fn take_reads(&mut self) -> Option<SourceRead> {
        if !self.partitions.iter().any(|p| p.changed) {
            return None;
        }
        let partitions = self.partitions.iter_mut().filter(|p| p.changed).map(|partition| {
            let read = partition.read();
            (partition.changed, partition.batches) = (false, 0);
            read
        });
        let partitions = partitions.collect();
        Some(SourceRead { source: self.relation.id, again: self.repeats(), partitions })
    }

    /// Where the source stands.
    pub(crate) fn saved(&self) -> SavedSource {
        SavedSource {
            source: self.relation.id,
            started: self.started,
            failed: self.failed.clone(),
            partitions: self.partitions.iter().map(Partition::read).collect(),
        }
    }

    /// Stands where it stood when it was saved. It reads nothing until [`RunningSource::release`].
    pub(crate) fn restore(&mut self, saved: SavedSource) {
        self.held = true;
        if saved.started {
            self.start();
        }
        self.failed = self.failed.take().or(saved.failed);
        for read in saved.partitions {
            self.stand_at(&read);
        }
    }

    /// Reads nothing until it is released.
    pub(crate) fn hold(&mut self) {
        self.held = true;
    }

    /// Reads on.
    pub(crate) fn release(&mut self) {
        self.held = false;
        self.repeating.clear();
        if self.started && self.failed.is_none() {
            self.restart();
        }
    }

    fn stand_at(&mut self, read: &PartitionRead) {
        let found = self.partitions.iter().position(|p| p.name == read.name);
        let at = found.unwrap_or_else(|| {
            // A file that is not there any more; its rows went in.
            self.partitions.push(Partition::new(read.name.clone()));
            self.partitions.len() - 1
        });
        let partition = &mut self.partitions[at];
        self.bytes = (self.bytes + read.bytes).saturating_sub(partition.bytes);
        partition.bytes = read.bytes;
        partition.position = read.position.clone().map(Position);
        partition.watermark = read.watermark;
        partition.ended = read.ended;
    }

    /// Reads again what an epoch had read; or only stands where that had ended, if its rows are in the journal.
    pub(crate) fn repeat(&mut self, reads: &SourceRead) -> Result<Vec<Taken>, SqlError> {
        let mut taken = Vec::new();
        // It had been resumed if it had stopped before.
        self.failed = None;
        self.start();
        if reads.again {
            for read in &reads.partitions {
                self.read_again(read, &mut taken).map_err(|reason| self.cannot_repeat(&read.name, &reason))?;
            }
        }
        reads.partitions.iter().for_each(|read| self.stand_at(read));
        Ok(taken)
    }

    fn read_again(&mut self, read: &PartitionRead, taken: &mut Vec<Taken>) -> Result<(), String> {
        let at = self.partitions.iter().position(|p| p.name == read.name).ok_or("it is not there any more")?;
        let columns = self.columns.clone();
        let mut repeating = match self.repeating.remove(&read.name) {
            Some(repeating) if repeating.give == columns => repeating,
            _ => {
                let plain: Arc<[ColumnPath]> = columns.iter().filter(|c| !self.is_generated(c)).cloned().collect();
                let from = self.partitions[at].position.clone();
                let reader = self.source.open(&read.name, from.as_ref(), plain.clone()).map_err(|e| e.to_string())?;
                Repeating { reader, read: plain, give: columns }
            }
        };
        let mut stands = None;
        let mut left = read.batches;
        while left > 0 {
            match repeating.reader.read(self.max_rows).map_err(|e| e.to_string())? {
                Read::Idle => std::thread::park_timeout(crate::reading::PAUSE),
                Read::End => return Err("it is shorter than it was".into()),
                Read::Batch(found) => {
                    left -= 1;
                    stands = Some(found.position.0);
                    let prepared = prepare_source(&self.relation, found.rows, &repeating.read, &repeating.give);
                    let prepared = prepared.map_err(|e| e.to_string())?;
                    taken.push(Taken { partition: at, prepared, bad: found.bad });
                }
            }
        }
        if read.batches > 0 && stands != read.position {
            return Err(format!("it does not come to {:?} again, but to {stands:?}", read.position));
        }
        self.repeating.insert(read.name.clone(), repeating);
        Ok(())
    }

    fn cannot_repeat(&self, partition: &str, reason: &str) -> SqlError {
        let name = &self.relation.name;
        let message = format!("what source \"{name}\" had read of {partition} cannot be read again: {reason}");
        SqlError::new("58030", message).hint(
            "The journal only says how far this source was read. Put back what it reads, as it was, and start again.",
        )
    }
}

impl Partition {
    pub(super) fn new(name: String) -> Self {
        Partition {
            name,
            queue: None,
            stop: Arc::default(),
            thread: None,
            position: None,
            watermark: NO_WATERMARK,
            last_rows: 0,
            retrying: None,
            ended: false,
            changed: false,
            batches: 0,
            bytes: 0,
        }
    }

    fn read(&self) -> PartitionRead {
        PartitionRead {
            name: self.name.clone(),
            batches: self.batches,
            position: self.position.clone().map(|p| p.0),
            watermark: self.watermark,
            ended: self.ended,
            bytes: self.bytes,
        }
    }
}
