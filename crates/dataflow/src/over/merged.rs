//! The rows of the stretches that an epoch touches, as they were and as they are, one below the other.

use std::ops::Range;

use arrow::array::ArrayRef;
use arrow::compute::partition;

use super::anchors::Carries;
use super::reach::Stretch;
use crate::OperatorError;
use crate::ordered_rows::{Comparison, Entry, OrderedRows};

/// A distinct row and how often it was and is there.
#[derive(Clone, Copy)]
pub(super) struct Merged {
    /// Its number in the operator's kept rows.
    pub(super) row: u32,
    pub(super) old: i64,
    pub(super) new: i64,
}

/// A stretch in the list of merged rows.
struct Part {
    partition: u32,
    rows: Range<usize>,
    from: usize,
    carries: Option<Carries>,
    zone: Range<usize>,
}

/// The list; see the module.
#[derive(Default)]
pub(super) struct MergedRows {
    pub(super) rows: Vec<Merged>,
    parts: Vec<Part>,
}

/// A stretch in a list of rows in which a row of multiplicity n stands n times.
pub(super) struct Span {
    pub(super) rows: Range<usize>,
    /// Where frames begin that begin with the partition; what they hold before is in `carries`.
    pub(super) from: usize,
    pub(super) carries: Option<Carries>,
    /// The rows whose values are asked for.
    pub(super) zone: Range<usize>,
}

/// All stretches before or after the epoch: each stands for a partition as far as its zone can tell.
pub(super) struct Sequence {
    pub(super) spans: Vec<Span>,
    /// The merged row that stands at each place.
    pub(super) merged: Vec<u32>,
}

/// The peers of each row of a sequence.
pub(super) struct Peers {
    pub(super) first: Vec<u32>,
    /// The place after the last.
    pub(super) end: Vec<u32>,
    /// How many groups of peers the span has before.
    pub(super) group: Vec<u32>,
}

impl MergedRows {
    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.parts.clear();
    }

    /// Adds a stretch of a partition.
    pub(super) fn add(
        &mut self,
        partition: u32,
        rows: &OrderedRows,
        stretch: &Stretch,
        changes: &[(u32, Entry)],
        with: Comparison<'_>,
    ) {
        let start = self.rows.len();
        let mut changes = changes[stretch.changes.clone()].iter().map(|(_, change)| change).peekable();
        let (mut begin, mut from, mut place) = (start, start, stretch.rows.start);
        let added = |c: &Entry| Merged { row: c.row, old: 0, new: c.weight };
        let to = loop {
            if place == stretch.from {
                begin = self.rows.len();
            }
            if place == stretch.zone.start {
                from = self.rows.len();
            }
            if place == stretch.zone.end {
                self.rows.extend(changes.map(added));
                break self.rows.len();
            }
            let entry = rows.at(place).expect("a stretch ends where its partition does");
            while let Some(change) = changes.next_if(|c| with.compare(c, entry).is_lt()) {
                self.rows.push(added(change));
            }
            let change = changes.next_if(|c| with.compare(c, entry).is_eq()).map_or(0, |c| c.weight);
            self.rows.push(Merged { row: entry.row, old: entry.weight, new: entry.weight + change });
            place = rows.after(place);
        };
        while place != stretch.rows.end {
            let entry = rows.at(place).expect("a stretch ends where its partition does");
            self.rows.push(Merged { row: entry.row, old: entry.weight, new: entry.weight });
            place = rows.after(place);
        }
        let carries = stretch.carries.clone();
        self.parts.push(Part { partition, rows: start..self.rows.len(), from: begin, carries, zone: from..to });
    }

    /// The partition of a span, by its number.
    pub(super) fn partition_of(&self, span: usize) -> u32 {
        self.parts[span].partition
    }

    /// The merged rows whose values may change.
    pub(super) fn zones(&self) -> impl Iterator<Item = &Merged> {
        self.parts.iter().flat_map(|part| &self.rows[part.zone.clone()])
    }

    /// The rows as they were or are.
    pub(super) fn sequence(&self, count: impl Fn(&Merged) -> i64) -> Sequence {
        let mut sequence = Sequence { spans: Vec::with_capacity(self.parts.len()), merged: Vec::new() };
        for part in &self.parts {
            let start = sequence.merged.len();
            sequence.expand(part.rows.start..part.from, &self.rows, &count);
            let begin = sequence.merged.len();
            sequence.expand(part.from..part.zone.start, &self.rows, &count);
            let from = sequence.merged.len();
            sequence.expand(part.zone.clone(), &self.rows, &count);
            let to = sequence.merged.len();
            sequence.expand(part.zone.end..part.rows.end, &self.rows, &count);
            let (rows, carries) = (start..sequence.merged.len(), part.carries.clone());
            sequence.spans.push(Span { rows, from: begin, carries, zone: from..to });
        }
        sequence
    }

    /// A number per merged row that is the same for peers and for nobody else. `order` has the columns of
    /// the ORDER BY.
    pub(super) fn peer_numbers(&self, order: &[ArrayRef]) -> Result<Vec<u32>, OperatorError> {
        let mut numbers = vec![0; self.rows.len()];
        if !order.is_empty() && !self.rows.is_empty() {
            for (number, range) in partition(order)?.ranges().into_iter().enumerate() {
                numbers[range].fill(number as u32);
            }
        }
        Ok(numbers)
    }
}

impl Sequence {
    fn expand(&mut self, range: Range<usize>, rows: &[Merged], count: impl Fn(&Merged) -> i64) {
        for i in range {
            let times = usize::try_from(count(&rows[i])).expect("a row was taken back that was not there");
            self.merged.extend(std::iter::repeat_n(i as u32, times));
        }
    }

    /// How many rows' values are asked for.
    pub(super) fn asked(&self) -> usize {
        self.spans.iter().map(|span| span.zone.len()).sum()
    }

    /// The rows whose values are asked for, each with its span.
    pub(super) fn zones(&self) -> impl Iterator<Item = (usize, &Span)> {
        self.spans.iter().flat_map(|span| span.zone.clone().map(move |row| (row, span)))
    }

    /// Who is whose peer.
    pub(super) fn peers(&self, numbers: &[u32]) -> Peers {
        let len = self.merged.len();
        let mut peers = Peers { first: vec![0; len], end: vec![0; len], group: vec![0; len] };
        for span in &self.spans {
            let (mut from, mut group) = (span.rows.start, 0);
            while from < span.rows.end {
                let number = numbers[self.merged[from] as usize];
                let others = self.merged[from..span.rows.end].iter();
                let to = from + others.take_while(|row| numbers[**row as usize] == number).count();
                peers.first[from..to].fill(from as u32);
                peers.end[from..to].fill(to as u32);
                peers.group[from..to].fill(group);
                (from, group) = (to, group + 1);
            }
        }
        peers
    }
}
