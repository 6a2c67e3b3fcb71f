//! Places in a long partition up to which its running frames are known, so that they need not be added up from its start.
//!
//! - An anchor stands before a row and carries, for each call whose frames begin with the partition, what is in them up to
//!   that row.
//! - Rule: a change at or before its row drops it. Values behind a change are computed anew up to the partition's end, and
//!   anchors are set on the way, every [`APART`] rows. So a change costs what comes after it, and at most so many rows before.
//! - Only where all calls can do with one ([`can_anchor`]).

use std::sync::Arc;

use arrow::array::ArrayRef;
use tidemill_plan::{ExactSum, OverCall, OverFunction};

use super::merged::{MergedRows, Sequence};
use super::reach::sides;
use crate::ordered_rows::{Comparison, Entry};

/// Rows from one anchor to the next; few where it is tests that run.
const APART: usize = if cfg!(debug_assertions) { 3 } else { 1024 };

/// See the module.
pub(super) struct Anchor {
    /// The row before which it stands.
    pub(super) entry: Entry,
    /// By call.
    pub(super) carries: Carries,
}

/// What an anchor carries, by call.
pub(super) type Carries = Arc<[Carry]>;

/// What is known of the rows before an anchor.
#[derive(Clone, Debug, Default)]
pub(super) enum Carry {
    /// Nothing: the call's frames do not begin with the partition.
    #[default]
    Nothing,
    /// How many rows there are (or, for `dense_rank`, groups of peers).
    Rows(usize),
    /// How many of them count.
    Count(i64),
    /// The sum of those that count, and how many these are.
    Integers(i128, i64),
    /// Likewise.
    Floats(ExactSum, i64),
    /// The least or greatest value; one value, if there is one.
    Best(Option<ArrayRef>),
}

/// A row before which a new anchor is to stand.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    /// The number of its span.
    pub(super) span: usize,
    /// Its place in the sequence.
    pub(super) place: usize,
}

/// Whether a call's frames begin with the partition.
pub(super) fn runs(call: &OverCall) -> bool {
    sides(call).0.all
}

/// Whether anchors are of use to the calls of a node, and do for all of them.
pub(super) fn can_anchor(calls: &[OverCall]) -> bool {
    let can = |call: &OverCall| match &call.function {
        _ if sides(call).1.all => false,
        OverFunction::RowNumber | OverFunction::Rank | OverFunction::DenseRank => true,
        OverFunction::Count | OverFunction::Sum | OverFunction::Avg | OverFunction::Min | OverFunction::Max => {
            let to_here = call.frame.end.is_some_and(|end| end.is_here());
            !runs(call) || (call.frame.start.is_none() && to_here)
        }
        _ => !runs(call),
    };
    calls.iter().any(runs) && calls.iter().all(can)
}

/// Drops the anchors that a change at this row concerns, and all behind them.
pub(super) fn drop_from(anchors: &mut Vec<Anchor>, change: &Entry, with: Comparison<'_>) {
    anchors.truncate(anchors.partition_point(|anchor| with.compare(&anchor.entry, change).is_lt()));
}

/// Where anchors are to be set: before the first copy of a row, and where `peers` are told, of the first of its peers.
pub(super) fn cuts(merged: &MergedRows, sequence: &Sequence, peers: Option<&[u32]>) -> Vec<Cut> {
    let mut cuts = Vec::new();
    for (number, span) in sequence.spans.iter().enumerate() {
        let mut last = span.from;
        for place in span.zone.start + 1..span.zone.end {
            let (row, before) = (sequence.merged[place] as usize, sequence.merged[place - 1] as usize);
            let begins = peers.map_or(row != before, |peers| peers[row] != peers[before]);
            if begins && place - last >= APART {
                debug_assert!(merged.rows[row].new > 0, "the row is there");
                cuts.push(Cut { span: number, place });
                last = place;
            }
        }
    }
    cuts
}
