//! What to compute: a view's dataflow as plain data.
//!
//! `sql` makes these plans, `dataflow` runs them, `EXPLAIN` prints them. A [`Dataflow`] is a list of
//! [`Node`]s in topological order; a node's inputs are earlier nodes. Expressions and aggregates
//! that only the SQL front end knows how to evaluate come in as trait objects ([`Scalar`],
//! [`Recompute`]) that work on whole batches.

mod exact_sum;
mod explain;
mod moments;
mod node;
mod scalar;
mod time;

pub use exact_sum::{ExactSum, decimal_average};
pub use explain::explain;
pub use moments::Moments;
pub use node::{
    AggregateCall, AggregateFunction, AggregatePlan, AsOfPlan, CloseGatePlan, ColumnPath, Dataflow, Edge, FlatMapPlan,
    Frame, FrameOffset, FrameUnits, Input, JoinKind, JoinPlan, MapPlan, Node, NodeId, Op, OrderBy, OverCall,
    OverFunction, OverPlan, RecomputePlan, RecursionPlan, Route, SessionPlan, TopNPlan, WindowPlan,
};
pub use scalar::{Expr, Recompute, Scalar, ScalarError};
pub use time::Bound;

/// Names a table, source or view inside the engine; never reused.
pub type RelationId = u64;
