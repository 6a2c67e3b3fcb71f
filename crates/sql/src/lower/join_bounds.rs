//! Event time across a join: what still has a bound after it, and when stored rows can go.
//!
//! All of it rests on inequalities `a <= b + k` between a time column of one side and one of the
//! other, which every joined pair meets. A change on the right side meets old left rows, so a left
//! column stays bounded only if such an inequality ties it to a bounded right column.

use datafusion::common::DFSchema;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use tidemill_delta::Micros;
use tidemill_plan::{Bound, JoinKind};

use super::bounds::shifted;

/// `least <= most + slack` for every joined pair; columns of left ++ right, one of each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AtMost {
    pub(super) least: usize,
    pub(super) most: usize,
    pub(super) slack: Micros,
}

/// What is known about the two inputs.
pub(super) struct Sides {
    /// How many columns the left one has.
    pub(super) width: usize,
    /// The bounds of left ++ right.
    pub(super) bounds: Vec<Bound>,
    /// Whether they never take a row back.
    pub(super) append_only: [bool; 2],
}

/// The inequalities that key equalities and conditions imply.
pub(super) fn constraints(
    left_keys: &[usize],
    right_keys: &[usize],
    width: usize,
    residual: &[Expr],
    columns: &DFSchema,
) -> Vec<AtMost> {
    let mut known = Vec::new();
    for (left, right) in left_keys.iter().zip(right_keys) {
        let right = right + width;
        known.push(AtMost { least: *left, most: right, slack: 0 });
        known.push(AtMost { least: right, most: *left, slack: 0 });
    }
    residual.iter().for_each(|condition| from_condition(condition, columns, &mut known));
    known.retain(|c| (c.least < width) != (c.most < width));
    known
}

fn from_condition(condition: &Expr, columns: &DFSchema, known: &mut Vec<AtMost>) {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => from_comparison(left, *op, right, columns, known),
        Expr::Between(between) if !between.negated => {
            from_comparison(&between.low, Operator::LtEq, &between.expr, columns, known);
            from_comparison(&between.expr, Operator::LtEq, &between.high, columns, known);
        }
        _ => {}
    }
}

fn from_comparison(left: &Expr, op: Operator, right: &Expr, columns: &DFSchema, known: &mut Vec<AtMost>) {
    let (Some((left, by)), Some((right, than))) = (shifted(left, columns), shifted(right, columns)) else { return };
    // left + by <= right + than
    let mut at_most = |least, most, slack: Option<Micros>| {
        if let Some(slack) = slack {
            known.push(AtMost { least, most, slack });
        }
    };
    if matches!(op, Operator::LtEq | Operator::Lt | Operator::Eq) {
        at_most(left, right, than.checked_sub(by));
    }
    if matches!(op, Operator::GtEq | Operator::Gt | Operator::Eq) {
        at_most(right, left, by.checked_sub(than));
    }
}

impl Sides {
    fn bound(&self, column: usize) -> Option<Micros> {
        self.bounds.iter().find(|b| b.column == column).map(|b| b.offset)
    }

    fn side(&self, column: usize) -> usize {
        usize::from(column >= self.width)
    }

    /// When a stored row of each side can match nothing any more, in columns of its side.
    pub(super) fn evictions(&self, known: &[AtMost]) -> [Option<Bound>; 2] {
        [0, 1].map(|side| {
            let candidates = known.iter().filter(|c| self.side(c.most) == side);
            let best = candidates.filter_map(|c| self.eviction(side, c)).min_by_key(|b| b.offset)?;
            Some(Bound { column: best.column - side * self.width, offset: best.offset })
        })
    }

    /// Rows still to come on the other side have `least > watermark - offset`; to match one of them a
    /// stored row needs `most + slack` beyond that too.
    fn eviction(&self, side: usize, constraint: &AtMost) -> Option<Bound> {
        let reach = self.bound(constraint.least)?.checked_add(constraint.slack)?;
        // A stored row that may still be taken back has to stay for that.
        let own = match self.append_only[side] {
            true => reach,
            false => self.bound(constraint.most)?,
        };
        Some(Bound { column: constraint.most, offset: reach.max(own) })
    }

    /// The bounds that hold for the join's output, in columns of left ++ right.
    pub(super) fn surviving(&self, known: &[AtMost], kind: JoinKind) -> Vec<Bound> {
        let kept = |column: usize| match kind {
            JoinKind::Inner => true,
            JoinKind::Left | JoinKind::LeftSemi | JoinKind::LeftAnti => column < self.width,
            JoinKind::Right => column >= self.width,
            JoinKind::Full => false,
        };
        let survive = |own: &Bound| {
            let ties = known.iter().filter(|c| c.most == own.column);
            let reach = ties.filter_map(|c| self.bound(c.least)?.checked_add(c.slack)).min()?;
            Some(Bound { column: own.column, offset: own.offset.max(reach) })
        };
        self.bounds.iter().filter(|b| kept(b.column)).filter_map(survive).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Micros = 1_000_000;

    fn bound(column: usize, offset: Micros) -> Bound {
        Bound { column, offset }
    }

    /// Left: 0 = bid time. Right: 1 = window end. `end - 10 s <= time <= end`.
    fn interval() -> (Sides, Vec<AtMost>) {
        let sides = Sides { width: 1, bounds: vec![bound(0, 1), bound(1, 0)], append_only: [true, false] };
        let known = vec![AtMost { least: 1, most: 0, slack: 10 * SECOND }, AtMost { least: 0, most: 1, slack: 0 }];
        (sides, known)
    }

    #[test]
    fn both_sides_of_an_interval_join_are_evicted() {
        let (sides, known) = interval();
        assert_eq!(sides.evictions(&known), [Some(bound(0, 10 * SECOND)), Some(bound(0, 1))]);
    }

    #[test]
    fn bounds_survive_where_the_other_side_cannot_reach_back() {
        let (sides, known) = interval();
        assert_eq!(sides.surviving(&known, JoinKind::Inner), vec![bound(0, 10 * SECOND), bound(1, 1)]);
        assert_eq!(sides.surviving(&known, JoinKind::Left), vec![bound(0, 10 * SECOND)]);
        assert_eq!(sides.surviving(&known[1..], JoinKind::Inner), vec![bound(1, 1)]);
        assert!(sides.surviving(&known, JoinKind::Full).is_empty());
    }

    #[test]
    fn updating_rows_without_a_bound_of_their_own_stay() {
        let (mut sides, known) = interval();
        sides.bounds.remove(0);
        sides.append_only = [false, false];
        assert_eq!(sides.evictions(&known), [None, None]);
        sides.append_only = [true, false];
        assert_eq!(sides.evictions(&known), [Some(bound(0, 10 * SECOND)), None]);
    }

    #[test]
    fn without_a_tie_nothing_survives() {
        let (sides, _) = interval();
        assert_eq!(sides.evictions(&[]), [None, None]);
        assert!(sides.surviving(&[], JoinKind::Inner).is_empty());
    }
}
