//! New views over old rows: the rows are fed in slices, a slice an epoch, while live rows go on.

use std::collections::VecDeque;

use tidemill_dataflow::Packet;
use tidemill_delta::Delta;
use tidemill_plan::RelationId;

/// History rows per epoch and view: small enough that live views keep their pace.
pub(super) const SLICE: usize = 32_768;

/// What is left of a new view's history.
pub(super) struct CatchUp {
    view: RelationId,
    runs: VecDeque<(usize, Delta)>,
}

impl CatchUp {
    /// The history of a view: runs of rows, each with the number of the input they belong to.
    pub(super) fn new(view: RelationId, runs: impl IntoIterator<Item = (usize, Delta)>) -> Self {
        CatchUp { view, runs: runs.into_iter().collect() }
    }

    /// The next slice of so many rows, as packets; and whether it was the last.
    pub(super) fn next_slice(&mut self, rows: usize) -> (Vec<Packet>, bool) {
        let mut packets = Vec::new();
        let mut room = rows;
        while room > 0 {
            let Some((input, delta)) = self.runs.pop_front() else { break };
            let (now, rest) = if delta.len() > room {
                (delta.slice(0, room), Some(delta.slice(room, delta.len() - room)))
            } else {
                (delta, None)
            };
            room -= now.len();
            packets.push(Packet::History { view: self.view, input, delta: now });
            if let Some(rest) = rest {
                self.runs.push_front((input, rest));
            }
        }
        (packets, self.runs.is_empty())
    }
}
