//! The places asked for of one partition, before and after an epoch, and the change between them.

use std::cmp::Ordering;
use std::ops::Range;

use crate::ordered_rows::{Comparison, Entry, OrderedRows};

/// A row in the answer and the places it takes there; peers take the same ones where they have one rank.
#[derive(Clone, Copy)]
pub(super) struct Visible {
    entry: Entry,
    from: i64,
    to: i64,
}

/// A row that enters or leaves the answer.
pub(super) struct Change {
    pub(super) row: u32,
    pub(super) weight: i64,
    /// Its row number or rank, where numbers are part of the answer.
    pub(super) number: i64,
}

/// The changes of an epoch.
pub(super) type Changes = Vec<Change>;

/// Appends the rows that take the places asked for.
#[inline]
pub(super) fn visible(rows: &OrderedRows, places: &Range<i64>, out: &mut Vec<Visible>) {
    let mut place = 0;
    for entry in rows.iter() {
        let next = place + entry.weight;
        let (from, to) = (place.max(places.start), next.min(places.end));
        if from < to {
            out.push(Visible { entry: *entry, from, to });
        }
        if next >= places.end {
            break;
        }
        place = next;
    }
}

/// Appends the rows of a rank up to `last`, each at the places from its rank on.
pub(super) fn ranked(rows: &OrderedRows, last: i64, with: Comparison<'_>, out: &mut Vec<Visible>) {
    let (mut place, mut rank): (i64, Option<(Entry, i64)>) = (0, None);
    for entry in rows.iter() {
        let from = match rank {
            Some((peer, from)) if with.are_peers(&peer, entry) => from,
            _ => place,
        };
        if from >= last {
            break;
        }
        rank = Some((*entry, from));
        out.push(Visible { entry: *entry, from, to: from + entry.weight });
        place += entry.weight;
    }
}

/// Rows whose multiplicity or rank in the answer changed. Both sides are in order, so this is a merge.
pub(super) fn reranked(before: &[Visible], after: &[Visible], with: Comparison<'_>, out: &mut Changes) {
    let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
    loop {
        let ordering = match (before.peek(), after.peek()) {
            (Some(old), Some(new)) => with.compare(&old.entry, &new.entry),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return,
        };
        let change =
            |v: &Visible, sign: i64| Change { row: v.entry.row, weight: sign * (v.to - v.from), number: v.from + 1 };
        let old = before.next_if(|_| ordering.is_le());
        let new = after.next_if(|_| ordering.is_ge());
        match (old, new) {
            (Some(old), Some(new)) if old.from == new.from => {
                let weight = (new.to - new.from) - (old.to - old.from);
                out.extend((weight != 0).then(|| Change { weight, ..change(new, 1) }));
            }
            (old, new) => out.extend(old.map(|v| change(v, -1)).into_iter().chain(new.map(|v| change(v, 1)))),
        }
    }
}

/// Rows whose multiplicity in the answer changed. Both sides are in order, so this is a merge.
pub(super) fn unnumbered(before: &[Visible], after: &[Visible], with: Comparison<'_>, out: &mut Changes) {
    let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
    loop {
        let ordering = match (before.peek(), after.peek()) {
            (Some(old), Some(new)) => with.compare(&old.entry, &new.entry),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return,
        };
        let old = before.next_if(|_| ordering.is_le()).map(|v| (v.entry.row, v.from - v.to));
        let new = after.next_if(|_| ordering.is_ge()).map(|v| (v.entry.row, v.to - v.from));
        let weight = old.map_or(0, |o| o.1) + new.map_or(0, |n| n.1);
        if let Some((row, _)) = new.or(old)
            && weight != 0
        {
            out.push(Change { row, weight, number: 0 });
        }
    }
}

/// Places at which another row stands than before.
pub(super) fn numbered(before: &[Visible], after: &[Visible], with: Comparison<'_>, out: &mut Changes) {
    let (mut i, mut j) = (0, 0);
    let mut place = before.first().or(after.first()).map_or(0, |v| v.from);
    while i < before.len() || j < after.len() {
        let (old, new) = (before.get(i), after.get(j));
        let end = old.map_or(i64::MAX, |v| v.to).min(new.map_or(i64::MAX, |v| v.to));
        let same = matches!((old, new), (Some(o), Some(n)) if with.compare(&o.entry, &n.entry).is_eq());
        if !same {
            let at = |number| move |v: &Visible, weight| Change { row: v.entry.row, weight, number };
            for number in place + 1..=end {
                out.extend(old.map(|v| at(number)(v, -1)));
                out.extend(new.map(|v| at(number)(v, 1)));
            }
        }
        place = end;
        i += usize::from(old.is_some_and(|v| v.to == end));
        j += usize::from(new.is_some_and(|v| v.to == end));
    }
}
