//! The calls' values for the rows of a sequence.

use std::ops::Range;

use arrow::array::{ArrayRef, AsArray, Float64Array, UInt32Array, UInt64Array};
use arrow::compute::{cast, concat, take};
use tidemill_plan::{FrameOffset, FrameUnits, OverCall, OverFunction};

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

/// The input of a call: columns by merged row.
pub(super) struct Input<'a> {
    pub(super) given: Given<'a>,
    pub(super) arg: Option<&'a ArrayRef>,
    pub(super) filter: Option<&'a ArrayRef>,
}

impl Input<'_> {
    /// The call's value for each row that is asked for; NULL where there is none, and why.
    pub(super) fn values(&self, call: &OverCall) -> Result<(ArrayRef, Vec<Failure>), OperatorError> {
        let (values, failed) = match &call.function {
            OverFunction::RowNumber
            | OverFunction::Rank
            | OverFunction::DenseRank
            | OverFunction::PercentRank
            | OverFunction::CumeDist
            | OverFunction::Ntile(_) => (self.rank(&call.function)?, Vec::new()),
            OverFunction::Lag { offset, default } => (self.lag(call, *offset, default.as_ref())?, Vec::new()),
            OverFunction::FirstValue => (self.pick(call, |frame| Some(frame.start))?, Vec::new()),
            OverFunction::LastValue => (self.pick(call, |frame| frame.end.checked_sub(1))?, Vec::new()),
            OverFunction::NthValue(n) => {
                (self.pick(call, |frame| frame.start.checked_add(n.checked_sub(1)?))?, Vec::new())
            }
            _ => {
                let frames = frames(&call.frame, &self.given);
                let filter = self.filter.map(|filter| filter.as_boolean());
                let rows = Rows { sequence: self.sequence(), frames: &frames, arg: self.arg, filter };
                rows.aggregate(call)?
            }
        };
        let planned = *values.data_type() == call.data_type;
        Ok((if planned { values } else { cast(&values, &call.data_type)? }, failed))
    }

    fn sequence(&self) -> &Sequence {
        self.given.sequence
    }

    fn argument(&self, call: &OverCall) -> Result<&ArrayRef, OperatorError> {
        self.arg.ok_or_else(|| OperatorError(format!("{} needs an argument", call.label)))
    }

    /// Functions of the row's place alone.
    fn rank(&self, function: &OverFunction) -> Result<ArrayRef, OperatorError> {
        let place = |row: usize, span: &Span| row - span.rows.start;
        let whole = |value: &dyn Fn(usize, &Span) -> usize| {
            shared(UInt64Array::from_iter_values(self.sequence().zones().map(|(row, span)| value(row, span) as u64)))
        };
        let part = |value: &dyn Fn(usize, &Span) -> f64| {
            shared(Float64Array::from_iter_values(self.sequence().zones().map(|(row, span)| value(row, span))))
        };
        let peers = || self.given.peers.ok_or_else(|| OperatorError("a rank without peers".into()));
        let before = |peers: &Peers, row: usize, span: &Span| peers.first[row] as usize - span.rows.start;
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
                whole(&|row, _| peers.group[row] as usize + 1)
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
