//! The frames of rows as ranges of places.
//!
//! Within a span both ends of the frames only move forward, so each is found by moving on from the row before.

use std::ops::Range;

use arrow::array::ArrayRef;
use tidemill_plan::{Frame, FrameOffset, FrameUnits};

use super::merged::{Peers, Sequence, Span};
use super::number::{Number, number_at};

/// What frames are made from.
pub(super) struct Given<'a> {
    pub(super) sequence: &'a Sequence,
    /// There if some frame needs them.
    pub(super) peers: Option<&'a Peers>,
    /// The values of the order column, by merged row, and whether the order descends.
    pub(super) order: Option<(&'a ArrayRef, bool)>,
}

/// The frame of each row that is asked for.
pub(super) fn frames(frame: &Frame, given: &Given<'_>) -> Vec<Range<usize>> {
    let mut frames = Vec::with_capacity(given.sequence.asked());
    for span in &given.sequence.spans {
        let from = frames.len();
        frames.extend(span.zone.clone().map(|_| span.from..span.rows.end));
        let frames = &mut frames[from..];
        if let Some(offset) = frame.start {
            let starts = Bounds { units: frame.units, offset, end: false, given, span };
            starts.each(|i, place| frames[i].start = place);
        }
        if let Some(offset) = frame.end {
            let ends = Bounds { units: frame.units, offset, end: true, given, span };
            ends.each(|i, place| frames[i].end = place);
        }
        for frame in frames {
            // A frame that ends before it starts has no rows.
            frame.end = frame.end.max(frame.start);
        }
    }
    frames
}

/// One end of the frames of a span.
struct Bounds<'a> {
    units: FrameUnits,
    offset: FrameOffset,
    /// Whether it is the end, which is the place after the last row.
    end: bool,
    given: &'a Given<'a>,
    span: &'a Span,
}

impl Bounds<'_> {
    /// Calls `set` with the number of each row of the zone and its bound.
    fn each(&self, set: impl FnMut(usize, usize)) {
        match (self.units, self.offset) {
            (FrameUnits::Rows, offset) => self.rows(whole(offset), set),
            (_, offset) if offset.is_here() => self.peers(set),
            (FrameUnits::Groups, offset) => self.groups(whole(offset), set),
            (FrameUnits::Range, offset) => self.values(offset, set),
        }
    }

    fn rows(&self, offset: i64, mut set: impl FnMut(usize, usize)) {
        let Range { start, end } = self.span.rows;
        for (i, row) in self.span.zone.clone().enumerate() {
            let place = (row as i64).saturating_add(offset).saturating_add(i64::from(self.end));
            set(i, place.clamp(start as i64, end as i64) as usize);
        }
    }

    fn of_peers(&self) -> &Peers {
        self.given.peers.expect("peers are made for frames that need them")
    }

    fn peers(&self, mut set: impl FnMut(usize, usize)) {
        let peers = self.of_peers();
        let places = if self.end { &peers.end } else { &peers.first };
        self.span.zone.clone().enumerate().for_each(|(i, row)| set(i, places[row] as usize));
    }

    fn groups(&self, offset: i64, mut set: impl FnMut(usize, usize)) {
        let peers = self.of_peers();
        let mut starts: Vec<usize> = Vec::new();
        let mut place = self.span.rows.start;
        while place < self.span.rows.end {
            starts.push(place);
            place = peers.end[place] as usize;
        }
        starts.push(place);
        for (i, row) in self.span.zone.clone().enumerate() {
            let group = i64::from(peers.group[row]).saturating_add(offset).saturating_add(i64::from(self.end));
            set(i, starts[group.clamp(0, starts.len() as i64 - 1) as usize]);
        }
    }

    fn values(&self, offset: FrameOffset, mut set: impl FnMut(usize, usize)) {
        let (column, descending) = self.given.order.expect("an order column is there for frames that need it");
        let value = |row: usize| number_at(column, self.given.sequence.merged[row] as usize, descending);
        let peers = self.of_peers();
        // NULLs are each other's frames; they stand at one end of the span.
        let all = self.span.rows.clone();
        let first = all.clone().find(|row| value(*row).is_some()).unwrap_or(all.end);
        let last = all.clone().rev().find(|row| value(*row).is_some()).map_or(first, |row| row + 1);
        let mut place = first;
        for (i, row) in self.span.zone.clone().enumerate() {
            let Some(own) = value(row) else {
                set(i, if self.end { peers.end[row] } else { peers.first[row] } as usize);
                continue;
            };
            let bound = own.plus(offset);
            let passes = |other: Number| match self.end {
                true => other.compare(bound).is_le(),
                false => other.compare(bound).is_lt(),
            };
            while place < last && value(place).is_some_and(passes) {
                place += 1;
            }
            set(i, place);
        }
    }
}

/// Distances in rows and groups are whole.
fn whole(offset: FrameOffset) -> i64 {
    match offset {
        FrameOffset::Whole(by) => by,
        FrameOffset::Float(by) => by as i64,
    }
}
