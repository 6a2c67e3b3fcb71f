//! `EMIT ON WINDOW CLOSE`.

use datafusion::common::Result;
use tidemill_plan::{Bound, CloseGatePlan, Edge, NodeId, Op, Route};

use super::{ClosingAt, Lower};
use crate::SqlError;
use crate::provider::external;

impl Lower<'_> {
    /// Makes the answer come out once it is final: at the aggregate itself if only projections and
    /// filters follow it, else through a gate.
    ///
    /// The output has no bounds any more: rows come when the watermark has passed them, which is
    /// after a bound would have promised the last of them.
    pub(super) fn close(&mut self, root: NodeId) -> Result<NodeId> {
        let chain = self.row_wise_chain(root);
        let last = chain.last().copied().unwrap_or(root);
        if (last == root || self.consumers(last) == 1) && self.close_operator(last) {
            for node in chain {
                self.nodes[node].append_only = true;
                self.nodes[node].bounds.clear();
            }
            return Ok(root);
        }
        let Some(closes) = self.nodes[root].bounds.iter().min_by_key(|b| b.offset).copied() else {
            return Err(external(self.why_not_closing(root)));
        };
        let schema = self.nodes[root].schema.clone();
        // A row and its being taken back must meet, also when another number of workers goes on with what is held back.
        let route = match self.nodes[root].append_only {
            true => Route::Local,
            false => Route::Hash((0..schema.fields().len()).collect()),
        };
        let edge = Edge { from: root, route };
        Ok(self.push(Op::CloseGate(CloseGatePlan { closes }), vec![edge], schema, true, Vec::new()))
    }

    /// The maps from the root down, and what they start from.
    fn row_wise_chain(&self, root: NodeId) -> Vec<NodeId> {
        let mut chain = vec![root];
        while let Some(node) = chain.last().map(|n| &self.nodes[*n])
            && let (Op::Map(_), [edge]) = (&node.op, node.inputs.as_slice())
            && self.consumers(edge.from) == 1
        {
            chain.push(edge.from);
        }
        chain
    }

    /// Tells an operator that can do so to emit on close.
    fn close_operator(&mut self, node: NodeId) -> bool {
        match &mut self.nodes[node].op {
            Op::Aggregate(aggregate) if aggregate.closes.is_some() => {
                aggregate.on_close = true;
                true
            }
            Op::Session(session) if session.closes.is_some() => {
                session.on_close = true;
                true
            }
            _ => false,
        }
    }

    /// Where rows are held back, once [`Lower::close`] has seen to it.
    pub(super) fn closing_at(&self) -> Option<ClosingAt> {
        let operator =
            |node: usize, closes: Option<Bound>| Some(ClosingAt::Operator(*self.closing.get(&node)?, closes?.offset));
        self.nodes.iter().enumerate().rev().find_map(|(i, node)| match &node.op {
            Op::CloseGate(gate) => Some(ClosingAt::Output(gate.closes)),
            Op::Aggregate(aggregate) if aggregate.on_close => operator(i, aggregate.closes),
            Op::Session(session) if session.on_close => operator(i, session.closes),
            _ => None,
        })
    }

    fn why_not_closing(&self, root: NodeId) -> SqlError {
        let error = SqlError::not_supported("EMIT ON WINDOW CLOSE: no row of this view ever becomes final");
        let Some(time) = &self.time_column else {
            return error.hint("None of its sources has a WATERMARK; declare one with WATERMARK FOR column AS ...");
        };
        let lost = (0..root).rev().find_map(|n| {
            let node = &self.nodes[n];
            node.bounds.first().map(|b| node.schema.field(b.column).name())
        });
        let column = lost.unwrap_or(time);
        error.hint(format!("Keep {column} in the view: group by window_start and window_end, and select one of them."))
    }
}
