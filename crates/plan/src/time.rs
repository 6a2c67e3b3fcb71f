//! What event time promises about a column.

use tidemill_delta::Micros;

/// A promise about a timestamp column of a node's output: a change to a row in which the column is
/// `v` (microseconds) comes only while `watermark < v + offset`.
///
/// So with `v + offset <= watermark` everything about `v` is final: state may be dropped and windows
/// emitted. A source's own time column has offset 1 (a row stamped exactly at the watermark is not
/// late), `window_end` has offset 0, `window_start` the window's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The column's number.
    pub column: usize,
    /// Microseconds to add to a value to know when it is final.
    pub offset: Micros,
}

impl Bound {
    /// Whether rows with this value are final.
    #[inline]
    pub fn is_final(&self, value: Micros, watermark: Micros) -> bool {
        value.saturating_add(self.offset) <= watermark
    }
}
