//! The calls' values for the rows of a sequence.

use std::ops::Range;

use arrow::array::{ArrayRef, AsArray, Float64Array, UInt32Array, UInt64Array};
use arrow::compute::{cast, concat, take};
use tidemill_plan::{FrameOffset, FrameUnits, OverCall, OverFunction};

use super::anchors::{Carry, Cut, runs};
use super::frames::{Given, frames};
use super::merged::{Peers, Sequence, Span};
use super::sliding::{Failure, Rows};
use crate::OperatorError;
use crate::aggregate::shared;

/// Whether a call asks who is whose peer.
pub(super) fn needs_peers(call: &OverCall) -> bool {
    match &call.function {
        OverFunction::RowNumber | OverFunction::Ntile(_) | OverFunction::Lag { .. } => false,
        OverFunction::Rank | OverFunction::DenseRank | OverFunction::PercentRank | OverFunction::CumeDist => true,
        _ => call.frame.units != FrameUnits::Rows && (call.frame.start.is_some() || call.frame.end.is_some()),
    }
}

/// Whether a call's frame is a matter of the distance between values of the order column.
pub(super) fn needs_distances(call: &OverCall) -> bool {
    let ranks = matches!(
        call.function,
        OverFunction::Rank | OverFunction::DenseRank | OverFunction::PercentRank | OverFunction::CumeDist
    );
    let far = |bound: Option<FrameOffset>| bound.is_some_and(|offset| !offset.is_here());
    let frame = &call.frame;
    !ranks && needs_peers(call) && frame.units == FrameUnits::Range && (far(frame.start) || far(frame.end))
}

/// A call's values for the rows that are asked for.
pub(super) struct Answer {
    /// NULL where there is none.
    pub(super) values: ArrayRef,
    /// The rows where there is none, and why.
    pub(super) failed: Vec<Failure>,
    /// For each cut: what an anchor there carries.
    pub(super) carries: Vec<Carry>,
}

/// The input of a call: columns by merged row.
pub(super) struct Input<'a> {
    pub(super) given: Given<'a>,
    /// The call's number in its node.
    pub(super) number: usize,
    /// Where anchors are to be set.
    pub(super) cuts: &'a [Cut],
    pub(super) arg: Option<&'a ArrayRef>,
    pub(super) filter: Option<&'a ArrayRef>,
}

impl Input<'_> {
    /// The call's value for each row that is asked for.
    pub(super) fn values(&self, call: &OverCall) -> Result<Answer, OperatorError> {
        let without_carries = |values: ArrayRef| Answer { values, failed: Vec::new(), carries: self.no_carries() };
        let mut answer = match &call.function {
            OverFunction::RowNumber
            | OverFunction::Rank
            | OverFunction::DenseRank
            | OverFunction::PercentRank
            | OverFunction::CumeDist
            | OverFunction::Ntile(_) => {
                Answer { carries: self.ranks_carried(&call.function), ..without_carries(self.rank(&call.function)?) }
            }
            OverFunction::Lag { offset, default } => without_carries(self.lag(call, *offset, default.as_ref())?),
            OverFunction::FirstValue => without_carries(self.pick(call, |frame| Some(frame.start))?),
            OverFunction::LastValue => without_carries(self.pick(call, |frame| frame.end.checked_sub(1))?),
            OverFunction::NthValue(n) => {
                without_carries(self.pick(call, |frame| frame.start.checked_add(n.checked_sub(1)?))?)
            }
            _ => {
                let frames = frames(&call.frame, &self.given);
                let filter = self.filter.map(|filter| filter.as_boolean());
                let cuts = if runs(call) { self.cuts } else { &[] };
                let (sequence, number) = (self.sequence(), self.number);
                let mut answer =
                    Rows { sequence, frames: &frames, arg: self.arg, filter, number, cuts }.aggregate(call)?;
                answer.carries.resize(self.cuts.len(), Carry::Nothing);
                answer
            }
        };
        if *answer.values.data_type() != call.data_type {
            answer.values = cast(&answer.values, &call.data_type)?;
        }
        Ok(answer)
    }

    fn no_carries(&self) -> Vec<Carry> {
        vec![Carry::Nothing; self.cuts.len()]
    }

    /// Rows (or groups) before a span's part that is looked at.
    fn carried(&self, span: &Span) -> usize {
        match span.carries.as_ref().and_then(|carries| carries.get(self.number)) {
            Some(Carry::Rows(rows)) => *rows,
            _ => 0,
        }
    }

    /// For each cut: the rows before it, or the groups.
    fn ranks_carried(&self, function: &OverFunction) -> Vec<Carry> {
        let before = |cut: &Cut| {
            let span = &self.sequence().spans[cut.span];
            let here = match (function, self.given.peers) {
                (OverFunction::DenseRank, Some(peers)) => (peers.group[cut.place] - peers.group[span.from]) as usize,
                _ => cut.place - span.from,
            };
            Carry::Rows(here + self.carried(span))
        };
        self.cuts.iter().map(before).collect()
    }

    fn sequence(&self) -> &Sequence {
        self.given.sequence
    }

    fn argument(&self, call: &OverCall) -> Result<&ArrayRef, OperatorError> {
        self.arg.ok_or_else(|| OperatorError(format!("{} needs an argument", call.label)))
    }

    /// Functions of the row's place alone.
    fn rank(&self, function: &OverFunction) -> Result<ArrayRef, OperatorError> {
        let place = |row: usize, span: &Span| row - span.from + self.carried(span);
        let whole = |value: &dyn Fn(usize, &Span) -> usize| {
            shared(UInt64Array::from_iter_values(self.sequence().zones().map(|(row, span)| value(row, span) as u64)))
        };
        let part = |value: &dyn Fn(usize, &Span) -> f64| {
            shared(Float64Array::from_iter_values(self.sequence().zones().map(|(row, span)| value(row, span))))
        };
        let peers = || self.given.peers.ok_or_else(|| OperatorError("a rank without peers".into()));
        let before =
            |peers: &Peers, row: usize, span: &Span| peers.first[row] as usize - span.from + self.carried(span);
        Ok(match function {
            OverFunction::RowNumber => whole(&|row, span| place(row, span) + 1),
            OverFunction::Ntile(buckets) => {
                whole(&|row, span| bucket(place(row, span) as u64, span.rows.len() as u64, *buckets) as usize)
            }
            OverFunction::Rank => {
                let peers = peers()?;
                whole(&|row, span| before(peers, row, span) + 1)
            }
            OverFunction::DenseRank => {
                let peers = peers()?;
                let groups = |row: usize, span: &Span| (peers.group[row] - peers.group[span.from]) as usize;
                whole(&|row, span| groups(row, span) + self.carried(span) + 1)
            }
            OverFunction::PercentRank => {
                let peers = peers()?;
                part(&|row, span| before(peers, row, span) as f64 / (span.rows.len() - 1).max(1) as f64)
            }
            _ => {
                let peers = peers()?;
                part(&|row, span| (peers.end[row] as usize - span.rows.start) as f64 / span.rows.len() as f64)
            }
        })
    }

    fn lag(&self, call: &OverCall, offset: i64, default: Option<&ArrayRef>) -> Result<ArrayRef, OperatorError> {
        let arg = self.argument(call)?;
        let from = match default {
            Some(default) => concat(&[arg, default])?,
            None => arg.clone(),
        };
        let otherwise = default.map(|_| arg.len() as u32);
        let at = |row: usize, span: &Span| {
            let place = usize::try_from((row as i64).checked_sub(offset)?).ok()?;
            span.rows.contains(&place).then(|| self.sequence().merged[place])
        };
        let indices = self.sequence().zones().map(|(row, span)| at(row, span).or(otherwise));
        Ok(take(&from, &indices.collect::<UInt32Array>(), None)?)
    }

    /// The argument in one row of the frame.
    fn pick(&self, call: &OverCall, place: impl Fn(&Range<usize>) -> Option<usize>) -> Result<ArrayRef, OperatorError> {
        let at = |frame: &Range<usize>| {
            place(frame).filter(|place| frame.contains(place)).map(|place| self.sequence().merged[place])
        };
        let indices = frames(&call.frame, &self.given).iter().map(at).collect::<UInt32Array>();
        Ok(take(self.argument(call)?, &indices, None)?)
    }
}

/// The bucket, from 1, of the row at a place: the first buckets have one row more where rows are left over.
fn bucket(place: u64, rows: u64, buckets: u64) -> u64 {
    let (size, left) = (rows / buckets, rows % buckets);
    let large = left * (size + 1);
    if place < large { place / (size + 1) + 1 } else { left + (place - large) / size + 1 }
}
