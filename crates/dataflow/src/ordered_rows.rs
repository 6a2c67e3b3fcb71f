//! An ordered multiset of rows: a list of short sorted pieces.
//!
//! Small sets (one row of a top 1) live in place without any allocation; large ones insert and remove in the
//! time of a binary search and of moving a piece's tail.

use std::cmp::Ordering;

use smallvec::SmallVec;

use crate::kept_rows::KeptRows;
use crate::row_order::RowOrder;

/// A piece is split when it gets longer; then it has just filled a room of 256.
const LONGEST: usize = 255;

/// One distinct row and how often it is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// See [`RowOrder::prefixes`].
    pub(crate) prefix: u128,
    /// Inside an epoch it may be negative or 0, as rows arrive in any order.
    pub(crate) weight: i64,
    /// The number of the row in the operator's [`KeptRows`].
    pub(crate) row: u32,
}

/// What it takes to compare entries.
#[derive(Clone, Copy)]
pub(crate) struct Comparison<'a> {
    pub(crate) order: &'a RowOrder,
    pub(crate) rows: &'a KeptRows,
}

impl Comparison<'_> {
    #[inline]
    pub(crate) fn compare(&self, a: &Entry, b: &Entry) -> Ordering {
        match a.prefix.cmp(&b.prefix) {
            Ordering::Equal if a.row == b.row => Ordering::Equal,
            Ordering::Equal => self.compare_rows(a, b),
            unequal => unequal,
        }
    }

    /// Whether the columns of the ORDER BY are equal in both.
    pub(crate) fn are_peers(&self, a: &Entry, b: &Entry) -> bool {
        let ((rows_a, i), (rows_b, j)) = (self.rows.row(a.row), self.rows.row(b.row));
        self.order.are_peers(rows_a, i, rows_b, j)
    }

    #[cold]
    fn compare_rows(&self, a: &Entry, b: &Entry) -> Ordering {
        let ((rows_a, i), (rows_b, j)) = (self.rows.row(a.row), self.rows.row(b.row));
        self.order.compare_rest(rows_a, i, rows_b, j)
    }
}

/// Where an entry is, until the set changes; the default is the first entry's place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    piece: usize,
    at: usize,
}

type Piece = SmallVec<[Entry; 1]>;

/// See the module.
#[derive(Default)]
pub(crate) struct OrderedRows {
    pieces: SmallVec<[Piece; 1]>,
    /// The sum of all weights.
    total: i64,
    /// How many entries have a negative weight; 0 between epochs.
    negative: usize,
}

impl OrderedRows {
    /// The sum of the multiplicities.
    pub(crate) fn total(&self) -> i64 {
        self.total
    }

    /// Whether some row was taken back more often than it was there.
    pub(crate) fn is_broken(&self) -> bool {
        self.negative > 0
    }

    /// Whether there are no rows.
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Bytes outside of the value itself, estimated in a fixed time.
    pub(crate) fn bytes(&self) -> usize {
        match self.pieces.as_slice() {
            [] => 0,
            [only] => {
                if only.spilled() {
                    only.capacity() * size_of::<Entry>()
                } else {
                    0
                }
            }
            // All pieces but one have been split, or come of a split.
            many => self.pieces.capacity() * size_of::<Piece>() + many.len() * (LONGEST + 1) * size_of::<Entry>(),
        }
    }

    /// Entries in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.pieces.iter().flatten()
    }

    /// The place of the first entry that is not less.
    pub(crate) fn place_of(&self, entry: &Entry, with: Comparison<'_>) -> Place {
        let piece = self.pieces.partition_point(|p| with.compare(&p[p.len() - 1], entry) == Ordering::Less);
        let at = self.pieces.get(piece).map_or(0, |p| p.partition_point(|e| with.compare(e, entry).is_lt()));
        Place { piece, at }
    }

    /// The place of the first entry whose prefix is at least `prefix`.
    pub(crate) fn place_from(&self, prefix: u128) -> Place {
        let piece = self.pieces.partition_point(|p| p[p.len() - 1].prefix < prefix);
        Place { piece, at: self.pieces.get(piece).map_or(0, |p| p.partition_point(|e| e.prefix < prefix)) }
    }

    /// The entry at a place; none at the end.
    pub(crate) fn at(&self, place: Place) -> Option<&Entry> {
        self.pieces.get(place.piece).and_then(|piece| piece.get(place.at))
    }

    /// The place after an entry's.
    pub(crate) fn after(&self, place: Place) -> Place {
        let last = place.at + 1 >= self.pieces[place.piece].len();
        if last { Place { piece: place.piece + 1, at: 0 } } else { Place { at: place.at + 1, ..place } }
    }

    /// The place of the entry before; none at the start.
    pub(crate) fn before(&self, place: Place) -> Option<Place> {
        match place.at.checked_sub(1) {
            Some(at) => Some(Place { at, ..place }),
            None => place.piece.checked_sub(1).map(|piece| Place { piece, at: self.pieces[piece].len() - 1 }),
        }
    }

    /// The place after the last entry.
    pub(crate) fn end(&self) -> Place {
        Place { piece: self.pieces.len(), at: 0 }
    }

    /// Entries in order from the first one whose prefix is at least `prefix`.
    pub(crate) fn iter_from(&self, prefix: u128) -> impl Iterator<Item = &Entry> {
        let piece = self.pieces.partition_point(|p| p[p.len() - 1].prefix < prefix);
        let skip = self.pieces.get(piece).map_or(0, |p| p.partition_point(|e| e.prefix < prefix));
        self.pieces[piece..].iter().flatten().skip(skip)
    }

    /// The last entry whose prefix is less than `prefix`, and the first one whose prefix is not.
    pub(crate) fn around(&self, prefix: u128) -> (Option<&Entry>, Option<&Entry>) {
        let piece = self.pieces.partition_point(|p| p[p.len() - 1].prefix < prefix);
        let Some(entries) = self.pieces.get(piece) else { return (self.last(), None) };
        let at = entries.partition_point(|e| e.prefix < prefix);
        let before = match at.checked_sub(1) {
            Some(before) => entries.get(before),
            None => piece.checked_sub(1).and_then(|previous| self.pieces[previous].last()),
        };
        (before, entries.get(at))
    }

    /// The entry that comes last.
    pub(crate) fn last(&self) -> Option<&Entry> {
        self.pieces.last().and_then(|piece| piece.last())
    }

    /// Removes the entry that comes last.
    pub(crate) fn pop(&mut self) -> Option<Entry> {
        let piece = self.pieces.last_mut()?;
        let entry = piece.pop()?;
        if piece.is_empty() {
            self.pieces.pop();
        }
        self.forget(&entry);
        Some(entry)
    }

    /// Removes all entries but the first `count` and reports their rows.
    pub(crate) fn keep_first(&mut self, count: usize, dead: &mut Vec<u32>) {
        let mut surplus = self.pieces.iter().map(|piece| piece.len()).sum::<usize>().saturating_sub(count);
        while surplus > 0 {
            dead.extend(self.pop().map(|entry| entry.row));
            surplus -= 1;
        }
    }

    /// Adds `new.weight` times the row; rows whose numbers are not needed any more go to `dead`.
    pub(crate) fn add(&mut self, new: Entry, with: Comparison<'_>, dead: &mut Vec<u32>) {
        self.total += new.weight;
        let piece = self.pieces.partition_point(|p| with.compare(&p[p.len() - 1], &new) == Ordering::Less);
        if piece == self.pieces.len() {
            return self.push(new);
        }
        match self.pieces[piece].binary_search_by(|entry| with.compare(entry, &new)) {
            Ok(at) => self.change(piece, at, new, dead),
            Err(at) => {
                self.negative += usize::from(new.weight < 0);
                self.pieces[piece].insert(at, new);
                self.split(piece);
            }
        }
    }

    /// Removes the entries whose prefixes are in the range and reports their rows.
    pub(crate) fn remove_range(&mut self, range: std::ops::RangeInclusive<u128>, dead: &mut Vec<u32>) {
        let first = self.pieces.partition_point(|p| p[p.len() - 1].prefix < *range.start());
        let mut removed = 0;
        for piece in &mut self.pieces[first..] {
            if piece[0].prefix > *range.end() {
                break;
            }
            piece.retain(|entry| {
                let gone = range.contains(&entry.prefix);
                if gone {
                    dead.push(entry.row);
                    removed += entry.weight;
                }
                !gone
            });
        }
        self.total -= removed;
        self.pieces.retain(|piece| !piece.is_empty());
    }

    /// Removes the entries before a place and reports their rows.
    pub(crate) fn remove_before(&mut self, place: Place, dead: &mut Vec<u32>) {
        let mut removed = 0;
        let mut gone = |entry: Entry| {
            removed += entry.weight;
            dead.push(entry.row);
        };
        self.pieces.drain(..place.piece).flatten().for_each(&mut gone);
        if let Some(piece) = self.pieces.first_mut() {
            piece.drain(..place.at).for_each(&mut gone);
        }
        self.total -= removed;
    }

    /// Adds an entry that is greater than all others.
    fn push(&mut self, new: Entry) {
        self.negative += usize::from(new.weight < 0);
        match self.pieces.last_mut() {
            Some(piece) => {
                piece.push(new);
                self.split(self.pieces.len() - 1);
            }
            None => self.pieces.push(smallvec::smallvec![new]),
        }
    }

    fn change(&mut self, piece: usize, at: usize, new: Entry, dead: &mut Vec<u32>) {
        let entry = &mut self.pieces[piece][at];
        let before = entry.weight;
        entry.weight += new.weight;
        let after = entry.weight;
        dead.push(new.row);
        self.negative = self.negative + usize::from(after < 0) - usize::from(before < 0);
        if after == 0 {
            dead.push(entry.row);
            self.pieces[piece].remove(at);
            if self.pieces[piece].is_empty() {
                self.pieces.remove(piece);
            }
        }
    }

    fn forget(&mut self, entry: &Entry) {
        self.total -= entry.weight;
        self.negative -= usize::from(entry.weight < 0);
    }

    fn split(&mut self, piece: usize) {
        if self.pieces[piece].len() > LONGEST {
            let upper: Piece = self.pieces[piece].drain(LONGEST / 2..).collect();
            self.pieces.insert(piece + 1, upper);
        }
    }
}
