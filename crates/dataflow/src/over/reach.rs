//! Which rows a change can concern, and which rows must be looked at to say what became of them.

use std::ops::Range;

use tidemill_plan::{Frame, FrameOffset, FrameUnits, OrderBy, OverCall, OverFunction};

use super::anchors::{Anchor, Carries};
use super::number::number_at;
use crate::ordered_rows::{Comparison, Entry, OrderedRows, Place};

/// How far a row looks to one side.
#[derive(Clone, Debug, Default)]
pub(super) struct Side {
    /// To the partition's end.
    pub(super) all: bool,
    /// This many rows.
    rows: i64,
    /// Its peers.
    peers: bool,
    /// Rows whose order values are at most this far away.
    value: Option<FrameOffset>,
}

impl Side {
    fn widen(&mut self, other: &Side) {
        self.all |= other.all;
        self.rows = self.rows.max(other.rows);
        self.peers |= other.peers;
        self.value = match (self.value, other.value) {
            (Some(a), Some(b)) => Some(farther(a, b)),
            (a, b) => a.or(b),
        };
    }
}

fn farther(a: FrameOffset, b: FrameOffset) -> FrameOffset {
    match (a, b) {
        (FrameOffset::Whole(x), FrameOffset::Whole(y)) => {
            if x.abs() >= y.abs() {
                a
            } else {
                b
            }
        }
        (FrameOffset::Float(x), FrameOffset::Float(y)) => {
            if x.abs() >= y.abs() {
                a
            } else {
                b
            }
        }
        (FrameOffset::Whole(x), FrameOffset::Float(y)) => {
            if x.abs() as f64 >= y.abs() {
                a
            } else {
                b
            }
        }
        (FrameOffset::Float(x), FrameOffset::Whole(y)) => {
            if x.abs() >= y.abs() as f64 {
                a
            } else {
                b
            }
        }
    }
}

/// How far a row looks, for all calls of a node together.
#[derive(Clone, Debug, Default)]
pub(super) struct Reach {
    before: Side,
    after: Side,
    /// The order column that distances are in, and whether it descends.
    column: Option<(usize, bool)>,
}

/// Rows that must be looked at together, as places in the partition before the epoch's changes.
pub(super) struct Stretch {
    /// All of them.
    pub(super) rows: Range<Place>,
    /// Where frames begin that begin with the partition; what they hold before is in `carries`.
    pub(super) from: Place,
    /// What the anchor there carries, unless it is the partition's start.
    pub(super) carries: Option<Carries>,
    /// Those of which the values may change.
    pub(super) zone: Range<Place>,
    /// The changes that are in it.
    pub(super) changes: Range<usize>,
}

impl Reach {
    pub(super) fn of(calls: &[OverCall], order: &[OrderBy]) -> Self {
        let mut reach = Reach::default();
        for call in calls {
            let (before, after) = sides(call);
            reach.before.widen(&before);
            reach.after.widen(&after);
        }
        if reach.before.value.is_some() || reach.after.value.is_some() {
            reach.column = order.first().map(|by| (by.column, by.options.descending));
        }
        reach
    }

    /// How many rows, and how far in the units of the order column, a row looks back.
    pub(super) fn back_to(&self) -> (i64, i64) {
        let span = match self.before.value {
            Some(FrameOffset::Whole(by)) => by.saturating_abs(),
            _ => 0,
        };
        (self.before.rows, span)
    }

    /// Adds the stretches that changes of one partition, in order and net, touch.
    ///
    /// Distances are counted over rows that do not change: those are the same before and after. A row behind
    /// another change is near that one too, so no row that a change concerns is left out.
    ///
    /// `anchors` are those that the changes do not concern.
    pub(super) fn stretches(
        &self,
        rows: &OrderedRows,
        anchors: &[Anchor],
        changes: &[(u32, Entry)],
        with: Comparison<'_>,
        stretches: &mut Vec<Stretch>,
    ) {
        for (number, (_, change)) in changes.iter().enumerate() {
            let place = rows.place_of(change, with);
            let is_there = rows.at(place).is_some_and(|entry| with.compare(entry, change).is_eq());
            let next = if is_there { rows.after(place) } else { place };
            let start = self.back(rows, place, &self.after, |row| self.sees_after(row, change, with), change, with);
            let end = self.forth(rows, next, &self.before, |row| self.sees_before(row, change, with), change, with);
            match stretches.last_mut() {
                Some(last) if start <= last.zone.end => {
                    last.zone.start = last.zone.start.min(start);
                    last.zone.end = last.zone.end.max(end);
                    last.changes.end = number + 1;
                }
                _ => stretches.push(Stretch {
                    rows: start..end,
                    from: start,
                    carries: None,
                    zone: start..end,
                    changes: number..number + 1,
                }),
            }
        }
        for stretch in stretches {
            self.add_context(rows, anchors, stretch, changes, with);
        }
    }

    /// Adds the rows at both ends that the zone's first and last rows look at.
    fn add_context(
        &self,
        rows: &OrderedRows,
        anchors: &[Anchor],
        stretch: &mut Stretch,
        changes: &[(u32, Entry)],
        with: Comparison<'_>,
    ) {
        let Range { start, end } = stretch.zone;
        let within = start < end;
        let (mut first, mut last) = (&changes[stretch.changes.start].1, &changes[stretch.changes.end - 1].1);
        if within && let Some(entry) = rows.at(start).filter(|entry| with.compare(entry, first).is_lt()) {
            first = entry;
        }
        if within
            && let Some(entry) = rows.before(end).and_then(|place| rows.at(place))
            && with.compare(entry, last).is_gt()
        {
            last = entry;
        }
        let mut near = anchors.iter().rev().map(|anchor| (rows.place_of(&anchor.entry, with), anchor));
        let anchor = near.find(|(place, _)| *place <= start);
        let side = Side { all: self.before.all && anchor.is_none(), ..self.before.clone() };
        let from = self.back(rows, start, &side, |row| self.sees_before(first, row, with), first, with);
        let to = self.forth(rows, end, &self.after, |row| self.sees_after(last, row, with), last, with);
        stretch.from = anchor.as_ref().map_or(from, |(place, _)| *place);
        stretch.carries = anchor.map(|(_, anchor)| anchor.carries.clone());
        stretch.rows = from.min(stretch.from)..to;
    }

    fn back(
        &self,
        rows: &OrderedRows,
        mut from: Place,
        side: &Side,
        sees: impl Fn(&Entry) -> bool,
        of: &Entry,
        with: Comparison<'_>,
    ) -> Place {
        if side.all {
            return Place::default();
        }
        let mut left = side.rows;
        while let Some(place) = rows.before(from)
            && let Some(entry) = rows.at(place)
            && (left > 0 || (side.peers && with.are_peers(entry, of)) || sees(entry))
        {
            left -= entry.weight;
            from = place;
        }
        from
    }

    fn forth(
        &self,
        rows: &OrderedRows,
        mut from: Place,
        side: &Side,
        sees: impl Fn(&Entry) -> bool,
        of: &Entry,
        with: Comparison<'_>,
    ) -> Place {
        if side.all {
            return rows.end();
        }
        let mut left = side.rows;
        while let Some(entry) = rows.at(from)
            && (left > 0 || (side.peers && with.are_peers(entry, of)) || sees(entry))
        {
            left -= entry.weight;
            from = rows.after(from);
        }
        from
    }

    /// Whether `row` sees `other`, which comes before it, by the distance of their values.
    fn sees_before(&self, row: &Entry, other: &Entry, with: Comparison<'_>) -> bool {
        self.distance(self.before.value, row, other, with).is_some_and(std::cmp::Ordering::is_le)
    }

    /// Whether `row` sees `other`, which comes after it, by the distance of their values.
    fn sees_after(&self, row: &Entry, other: &Entry, with: Comparison<'_>) -> bool {
        self.distance(self.after.value, row, other, with).is_some_and(std::cmp::Ordering::is_ge)
    }

    /// How the end of what `row` sees compares with `other`.
    fn distance(
        &self,
        offset: Option<FrameOffset>,
        row: &Entry,
        other: &Entry,
        with: Comparison<'_>,
    ) -> Option<std::cmp::Ordering> {
        let (offset, (column, descending)) = (offset?, self.column?);
        let value = |entry: &Entry| {
            let (rows, i) = with.rows.row(entry.row);
            number_at(rows.column(column), i, descending)
        };
        Some(value(row)?.plus(offset).compare(value(other)?))
    }
}

/// How far a row looks before and after itself for one call.
pub(super) fn sides(call: &OverCall) -> (Side, Side) {
    let all = || Side { all: true, ..Side::default() };
    let rows = |rows: i64| Side { rows, ..Side::default() };
    match &call.function {
        OverFunction::RowNumber | OverFunction::Rank | OverFunction::DenseRank => (all(), Side::default()),
        OverFunction::PercentRank | OverFunction::CumeDist | OverFunction::Ntile(_) => (all(), all()),
        OverFunction::Lag { offset, .. } => (rows((*offset).max(0)), rows(offset.saturating_neg().max(0))),
        _ => frame_sides(&call.frame),
    }
}

fn frame_sides(frame: &Frame) -> (Side, Side) {
    let side = |bound: Option<FrameOffset>, away: i64| {
        let Some(offset) = bound else { return Side { all: true, ..Side::default() } };
        let outward = match offset {
            FrameOffset::Whole(by) => by.signum() == away,
            FrameOffset::Float(by) => by * away as f64 > 0.0,
        };
        match (frame.units, offset) {
            (FrameUnits::Rows, FrameOffset::Whole(by)) if outward => {
                Side { rows: by.saturating_abs(), ..Side::default() }
            }
            (FrameUnits::Rows, _) => Side::default(),
            // The groups between are counted in rows that are not known beforehand.
            (FrameUnits::Groups, _) if !offset.is_here() => Side { all: true, ..Side::default() },
            (FrameUnits::Range, _) if outward => Side { peers: true, value: Some(offset), ..Side::default() },
            _ => Side { peers: true, ..Side::default() },
        }
    };
    (side(frame.start, -1), side(frame.end, 1))
}
