//! The dataflow's timestamp: an epoch and a level.

use serde::{Deserialize, Serialize};
use tidemill_delta::Epoch;
use timely::order::PartialOrder;
use timely::progress::timestamp::{PathSummary, Refines, Timestamp};

/// What lies between two exchanges of an epoch.
pub type Level = u64;

/// Levels come in bands of so many: 2^32. Band 0 has the views without loops.
const BAND: u32 = 32;

/// The band of a level.
pub(crate) fn band(level: Level) -> u64 {
    level >> BAND
}

/// A band's first level.
pub(crate) fn band_start(band: u64) -> Level {
    band << BAND
}

/// A step of the loop. Partially ordered: a later epoch does not wait for an earlier one's later
/// levels, so epochs overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Step {
    /// The epoch.
    pub epoch: Epoch,
    /// The level.
    pub level: Level,
}

impl Step {
    /// The step at this epoch and level.
    pub fn new(epoch: Epoch, level: Level) -> Self {
        Step { epoch, level }
    }

    /// The steps up to which must be done before this one may run, besides those of its own epoch: in a loop, epochs do
    /// not overlap.
    pub(crate) fn waits_for(&self) -> Option<Step> {
        let before = self.epoch.checked_sub(1).filter(|_| band(self.level) > 0)?;
        Some(Step::new(before, band_start(band(self.level) + 1) - 1))
    }
}

impl PartialOrder for Step {
    fn less_equal(&self, other: &Self) -> bool {
        self.epoch <= other.epoch && self.level <= other.level
    }
}

impl Timestamp for Step {
    type Summary = Step;

    fn minimum() -> Self {
        Step::default()
    }
}

impl Refines<()> for Step {
    fn to_inner(_other: ()) -> Self {
        Step::default()
    }

    fn to_outer(self) {}

    fn summarize(_path: Step) {}
}

impl PathSummary<Step> for Step {
    fn results_in(&self, src: &Step) -> Option<Step> {
        Some(Step::new(self.epoch.checked_add(src.epoch)?, self.level.checked_add(src.level)?))
    }

    fn followed_by(&self, other: &Self) -> Option<Self> {
        self.results_in(other)
    }
}
