//! Rows that are final and that no frame can reach any more.
//!
//! Only where time leads the order (ascending, NULLs last), and where no call looks ahead nor back to the partition's
//! start: then what is still to come has later times than what is final, and looks back a known
//! number of rows or a known span of time.

use arrow::datatypes::TimeUnit;
use tidemill_delta::Micros;
use tidemill_plan::Bound;

use crate::event_time::to_micros;
use crate::ordered_rows::{OrderedRows, Place};
use crate::row_order::{time_of_prefix, time_prefix};

/// See the module.
pub(super) struct Eviction {
    pub(super) bound: Bound,
    pub(super) unit: TimeUnit,
    /// How many rows a row looks back.
    pub(super) rows: i64,
    /// How far it looks back in time, in the column's unit.
    pub(super) span: i64,
}

/// The least prefix of rows in which the time is NULL: these come last.
const NO_TIME: u128 = 0xff << 120;

impl Eviction {
    /// The last time that is final, in the column's unit.
    fn last_final(&self, watermark: Micros) -> i64 {
        let time = watermark.saturating_sub(self.bound.offset);
        match self.unit {
            TimeUnit::Second => time.div_euclid(1_000_000),
            TimeUnit::Millisecond => time.div_euclid(1_000),
            TimeUnit::Microsecond => time,
            TimeUnit::Nanosecond => time.saturating_mul(1_000),
        }
    }

    /// The place of the first row that can still be reached.
    pub(super) fn first_kept(&self, rows: &OrderedRows, watermark: Micros) -> Place {
        let last = self.last_final(watermark);
        let from = |time: Option<i64>| rows.place_from(time.map_or(NO_TIME, time_prefix));
        let mut by_count = from(last.checked_add(1));
        let mut left = self.rows;
        while left > 0
            && let Some(place) = rows.before(by_count)
            && let Some(entry) = rows.at(place)
        {
            left -= entry.weight;
            by_count = place;
        }
        by_count.min(from(last.saturating_sub(self.span).checked_add(1)))
    }

    /// The value that must be final before all that time can release is released.
    pub(super) fn last_value(&self, rows: &OrderedRows) -> Option<Micros> {
        let last = rows.around(NO_TIME).0?;
        Some(to_micros(time_of_prefix(last.prefix).saturating_add(self.span), self.unit))
    }
}
