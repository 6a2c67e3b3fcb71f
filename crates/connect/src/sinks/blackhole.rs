//! A sink that keeps nothing but a count and a checksum: for benchmarks, and to compare runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidemill_delta::{Delta, Epoch, hash_columns};

use crate::sink::{Opening, Pace, Sink, SinkError};

/// What a [`BlackholeSink`] has taken, for others to look at.
#[derive(Debug, Default)]
pub struct SinkCounts {
    rows: AtomicU64,
    checksum: AtomicU64,
    epoch: AtomicU64,
}

impl SinkCounts {
    /// Rows taken in and taken back: the sum of the multiplicities' sizes.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Acquire)
    }

    /// The sum of multiplicity × hash over all rows. It depends on the final rows only, not on the
    /// order or the detours by which they came.
    pub fn checksum(&self) -> u64 {
        self.checksum.load(Ordering::Acquire)
    }

    /// The last epoch committed.
    pub fn epoch(&self) -> Epoch {
        self.epoch.load(Ordering::Acquire)
    }
}

/// Takes everything and keeps a count.
#[derive(Default)]
pub struct BlackholeSink {
    counts: Arc<SinkCounts>,
    hashes: Vec<u64>,
}

impl Sink for BlackholeSink {
    fn open(&mut self, _opening: Opening) -> Result<Option<Epoch>, SinkError> {
        Ok(None)
    }

    fn write(&mut self, _epoch: Epoch, delta: &Delta) -> Result<(), SinkError> {
        hash_columns(delta.rows.columns(), delta.len(), &mut self.hashes)
            .map_err(|e| SinkError::fatal(e.to_string()))?;
        let (mut rows, mut checksum) = (0u64, 0u64);
        for (i, hash) in self.hashes.iter().enumerate() {
            let weight = delta.weight(i);
            rows = rows.wrapping_add(weight.unsigned_abs());
            checksum = checksum.wrapping_add(hash.wrapping_mul(weight as u64));
        }
        self.counts.rows.fetch_add(rows, Ordering::AcqRel);
        self.counts.checksum.fetch_add(checksum, Ordering::AcqRel);
        Ok(())
    }

    fn commit(&mut self, epoch: Epoch) -> Result<(), SinkError> {
        self.counts.epoch.store(epoch, Ordering::Release);
        Ok(())
    }

    fn pace(&self) -> Pace {
        Pace { commit_interval: Duration::ZERO, local: true, retry_for: None }
    }

    fn counts(&self) -> Option<Arc<SinkCounts>> {
        Some(self.counts.clone())
    }
}
