//! What changed between the values that rows had and those they have.

use std::cmp::Ordering;

use arrow::array::ArrayRef;
use arrow::row::{RowConverter, Rows};

use super::merged::{Merged, MergedRows};
use crate::OperatorError;

/// A row that leaves or enters the answer.
pub(super) struct Change {
    /// The input row, by its number in the operator's kept rows.
    pub(super) row: u32,
    /// Whether its values are among the new ones.
    pub(super) new: bool,
    /// The number of its values.
    pub(super) values: usize,
    pub(super) weight: i64,
}

/// The net changes; values stand in the order of the merged rows' zones, a row's copies one after another.
pub(super) fn difference(
    merged: &MergedRows,
    converter: &RowConverter,
    old: &[ArrayRef],
    new: &[ArrayRef],
) -> Result<Vec<Change>, OperatorError> {
    let sides = Sides { old: converter.convert_columns(old)?, new: converter.convert_columns(new)? };
    let (mut changes, mut from_old, mut from_new) = (Vec::new(), 0, 0);
    for row in merged.zones() {
        let (old, new) = (row.old as usize, row.new as usize);
        match (old, new) {
            (1, 1) if sides.old.row(from_old) == sides.new.row(from_new) => {}
            (0, 1) => changes.push(Change { row: row.row, new: true, values: from_new, weight: 1 }),
            (1, 0) => changes.push(Change { row: row.row, new: false, values: from_old, weight: -1 }),
            _ => sides.compare(row, from_old, from_new, &mut changes),
        }
        from_old += old;
        from_new += new;
    }
    Ok(changes)
}

struct Sides {
    old: Rows,
    new: Rows,
}

impl Sides {
    /// The changes of one row, whose copies may have different values.
    fn compare(&self, row: &Merged, from_old: usize, from_new: usize, changes: &mut Vec<Change>) {
        let mut old: Vec<usize> = (from_old..from_old + row.old as usize).collect();
        let mut new: Vec<usize> = (from_new..from_new + row.new as usize).collect();
        old.sort_by(|a, b| self.old.row(*a).cmp(&self.old.row(*b)));
        new.sort_by(|a, b| self.new.row(*a).cmp(&self.new.row(*b)));
        let (mut i, mut j) = (0, 0);
        while i < old.len() || j < new.len() {
            let ordering = match (old.get(i), new.get(j)) {
                (Some(a), Some(b)) => self.old.row(*a).cmp(&self.new.row(*b)),
                (Some(_), None) => Ordering::Less,
                _ => Ordering::Greater,
            };
            let gone = if ordering.is_le() { run(&self.old, &old[i..]) } else { 0 };
            let come = if ordering.is_ge() { run(&self.new, &new[j..]) } else { 0 };
            let weight = come as i64 - gone as i64;
            if weight != 0 {
                let values = if ordering.is_ge() { new[j] } else { old[i] };
                changes.push(Change { row: row.row, new: ordering.is_ge(), values, weight });
            }
            i += gone;
            j += come;
        }
    }
}

/// How many of the first rows are equal.
fn run(rows: &Rows, list: &[usize]) -> usize {
    list.iter().take_while(|i| rows.row(**i) == rows.row(list[0])).count()
}
