//! The nodes of a dataflow.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, SchemaRef};
use tidemill_delta::Micros;

use crate::{Bound, Expr, Recompute, RelationId, Scalar};

/// The number of a node in its dataflow.
pub type NodeId = usize;

/// A query as a graph of operators.
///
/// Nodes are in topological order, but for the edge that closes a loop; the last one gives the answer.
#[derive(Clone, Debug)]
pub struct Dataflow {
    /// The nodes; a node's inputs have smaller numbers, except for the second input of an [`Op::Recursion`].
    pub nodes: Vec<Node>,
    /// The relations read, one entry per [`Op::Input`], which names it by its place here.
    pub inputs: Vec<Input>,
}

impl Dataflow {
    /// The node that gives the answer.
    ///
    /// # Panics
    /// When there are no nodes.
    pub fn output(&self) -> &Node {
        self.nodes.last().expect("a dataflow has at least one node")
    }
}

/// A relation that a dataflow reads.
#[derive(Clone, Debug)]
pub struct Input {
    /// Which table, source or view.
    pub relation: RelationId,
    /// Its name, for people.
    pub name: String,
    /// Which of its columns are read, in the order of the input node's schema.
    pub columns: Vec<ColumnPath>,
}

/// A column of a relation, or a field inside a struct column: what a source has to decode.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ColumnPath {
    /// The column's number in the relation.
    pub column: usize,
    /// The fields to follow inside it; empty for the whole column.
    pub fields: Vec<String>,
}

impl ColumnPath {
    /// The whole column.
    pub fn column(column: usize) -> Self {
        ColumnPath { column, fields: Vec::new() }
    }
}

/// One operator and where its rows come from.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it does.
    pub op: Op,
    /// Its inputs, in the order the operator expects.
    pub inputs: Vec<Edge>,
    /// The columns of its output.
    pub schema: SchemaRef,
    /// Whether its output never takes a row back.
    pub append_only: bool,
    /// Columns of its output that the watermark bounds.
    pub bounds: Vec<Bound>,
}

/// From where and how rows reach an operator.
#[derive(Clone, Debug)]
pub struct Edge {
    /// The node they come from.
    pub from: NodeId,
    /// Which worker they go to.
    pub route: Route,
}

/// Which worker a row goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// The worker it is on.
    Local,
    /// The worker that owns the key made of these columns.
    Hash(Vec<usize>),
    /// Worker 0.
    Gather,
    /// All workers.
    Broadcast,
}

/// The operators.
#[derive(Clone, Debug)]
pub enum Op {
    /// Rows of the relation at this place in [`Dataflow::inputs`].
    Input(usize),
    /// Row by row: filter, then compute columns.
    Map(MapPlan),
    /// Row by row: a row for each window that its time falls into.
    Window(WindowPlan),
    /// Groups. With no keys there is one group, which exists even without rows.
    Aggregate(AggregatePlan),
    /// Groups per key and session: rows less than `gap` apart.
    Session(SessionPlan),
    /// Two inputs, matched by key.
    Join(JoinPlan),
    /// Two inputs, each left row with the right row next to it in time.
    AsOf(AsOfPlan),
    /// The first rows of each partition.
    TopN(TopNPlan),
    /// Each row with what window functions say of it.
    Over(OverPlan),
    /// All rows of all inputs.
    Union,
    /// Row by row: any number of rows for each.
    FlatMap(FlatMapPlan),
    /// Whatever has no incremental rule: recompute the touched partitions and emit the difference.
    Recompute(RecomputePlan),
    /// The head of a loop: the rows of each round, beside their round (Int64). Its inputs are the base rows, and what the
    /// recursive term makes of its output, beside the round that was read: the only edge from a later node.
    Recursion(RecursionPlan),
    /// The way out of a loop: its head's rows without their round.
    Fixpoint,
    /// Holds rows back until they are final.
    CloseGate(CloseGatePlan),
}

impl Op {
    /// Whether it drops what the watermark has passed, so that rows from before cannot be taken into account any more.
    pub fn forgets(&self) -> bool {
        match self {
            Op::Aggregate(plan) => plan.closes.is_some(),
            Op::Session(plan) => plan.closes.is_some(),
            Op::Join(plan) => plan.evict.iter().any(Option::is_some),
            Op::AsOf(plan) => plan.evict.is_some(),
            Op::TopN(plan) => plan.closes.is_some(),
            Op::Over(plan) => plan.closes.is_some() || plan.evicts.is_some(),
            Op::CloseGate(_) => true,
            Op::Input(_) | Op::Map(_) | Op::Window(_) | Op::Union | Op::FlatMap(_) | Op::Recompute(_) => false,
            Op::Recursion(_) | Op::Fixpoint => false,
        }
    }

    /// Whether what it gives is final, never to be corrected.
    pub fn is_final(&self) -> bool {
        match self {
            Op::Aggregate(plan) => plan.on_close,
            Op::Session(plan) => plan.on_close,
            Op::CloseGate(_) => true,
            _ => false,
        }
    }
}

/// Filter, then project.
#[derive(Clone, Debug)]
pub struct MapPlan {
    /// Rows pass where this is true; NULL is not true.
    pub filter: Option<Arc<dyn Scalar>>,
    /// The output columns, over the input columns.
    pub project: Vec<Expr>,
}

/// Fixed windows: appends `window_start` and `window_end`, of the type of the time column, to the
/// input columns. A row in which the time is NULL is in no window.
#[derive(Clone, Debug)]
pub struct WindowPlan {
    /// The input's time column.
    pub time: usize,
    /// A window's length in microseconds; positive.
    pub size: Micros,
    /// From one window's start to the next; positive; smaller than `size` for overlapping windows,
    /// equal to it for tumbling ones. Windows start at multiples of it, plus `origin`.
    pub slide: Micros,
    /// Shifts all windows, in microseconds.
    pub origin: Micros,
    /// Whether nothing above reads the time, but only the windows: then rows of one pane (the time between
    /// two starts) that are equal otherwise may come out as one row, with the sum of their multiplicities and any time
    /// of the pane. Needs a size that is a multiple of the slide.
    pub panes: bool,
}

/// Groups and their aggregates. Output: the key columns, then one column per call.
#[derive(Clone, Debug)]
pub struct AggregatePlan {
    /// The input columns that make the key. NULLs make one group.
    pub keys: Vec<usize>,
    /// The aggregates.
    pub calls: Vec<AggregateCall>,
    /// Whether the input never takes a row back, so that cheaper states do.
    pub append_only: bool,
    /// A time column of the input, also in `keys`, whose bound says when a group is final and its
    /// state can go.
    pub closes: Option<Bound>,
    /// Emit a group once, when it is final, instead of at every change. Needs `closes`.
    pub on_close: bool,
}

/// One aggregate.
#[derive(Clone, Debug)]
pub struct AggregateCall {
    /// Which function.
    pub function: AggregateFunction,
    /// The input columns it takes.
    pub args: Vec<usize>,
    /// A boolean input column: only rows where it is true count.
    pub filter: Option<usize>,
    /// Only distinct arguments count.
    pub distinct: bool,
    /// The type of the result.
    pub data_type: DataType,
    /// As the user wrote it.
    pub label: String,
}

impl AggregateCall {
    /// Whether it is computed from all of its group's rows whenever the group changes.
    pub fn is_recomputed(&self) -> bool {
        matches!(self.function, AggregateFunction::FromRows(_))
    }

    /// Whether it has to remember all values, or all distinct ones, not just a number.
    pub fn keeps_values(&self, append_only: bool) -> bool {
        let extreme = matches!(self.function, AggregateFunction::Min | AggregateFunction::Max);
        self.is_recomputed() || self.distinct || extreme && !append_only
    }
}

/// Aggregate functions. NULL arguments are skipped, as in SQL.
#[derive(Clone, Debug)]
pub enum AggregateFunction {
    /// Rows (no argument), or rows whose argument is not NULL.
    Count,
    /// The sum. Integers are summed as i64 (u64), decimals as i128, floats exactly and rounded once.
    Sum,
    /// Sum divided by count; type Float64 or a decimal.
    Avg,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// Variance or its root over the population or a sample.
    Variance {
        /// Divide by n - 1 instead of n.
        sample: bool,
        /// Take the square root.
        root: bool,
    },
    /// All of them are true (`bool_and`) / any of them is (`bool_or`).
    Bool {
        /// `bool_or` instead of `bool_and`.
        any: bool,
    },
    /// Anything else: computed from all the group's rows whenever the group changes. The batch it
    /// gets has the argument columns (NULLs included), sorted by content; it gives one row with one
    /// column.
    FromRows(Arc<dyn Recompute>),
}

/// Sessions: rows of one key whose times are at most `gap` apart belong together. Output: the key
/// columns, `window_start` (first time), `window_end` (last time + gap), one column per call.
#[derive(Clone, Debug)]
pub struct SessionPlan {
    /// The input columns that make the key.
    pub keys: Vec<usize>,
    /// The input's time column.
    pub time: usize,
    /// Microseconds without rows that end a session; positive.
    pub gap: Micros,
    /// The aggregates over a session's rows.
    pub calls: Vec<AggregateCall>,
    /// Whether the input never takes a row back.
    pub append_only: bool,
    /// The bound of the time column, if it has one: when a session can be dropped.
    pub closes: Option<Bound>,
    /// Emit a session once, when it is final. Needs `closes`.
    pub on_close: bool,
}

/// How two inputs are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    /// Matching pairs.
    Inner,
    /// Matching pairs, and left rows without a match beside NULLs.
    Left,
    /// Matching pairs, and right rows without a match beside NULLs.
    Right,
    /// Both.
    Full,
    /// Left rows that have a match; left columns only.
    LeftSemi,
    /// Left rows that have none; left columns only.
    LeftAnti,
}

/// An equi-join with an optional further condition. Output: left columns, then right columns (semi
/// and anti: left columns), of which `project` picks some.
#[derive(Clone, Debug)]
pub struct JoinPlan {
    /// How.
    pub kind: JoinKind,
    /// Key columns of the left input; may be empty (then every pair is a candidate, on one worker).
    pub left_keys: Vec<usize>,
    /// Key columns of the right input, of the same types.
    pub right_keys: Vec<usize>,
    /// Whether NULL keys match each other.
    pub null_equals_null: bool,
    /// A further condition over the left columns followed by the right columns.
    pub filter: Option<Arc<dyn Scalar>>,
    /// Whether the inputs never take a row back.
    pub append_only: [bool; 2],
    /// When a stored row of each side can match nothing any more and be dropped: a bound on a
    /// column of that side.
    pub evict: [Option<Bound>; 2],
    /// Which columns of left ++ right come out, in order.
    pub project: Vec<usize>,
}

/// Each left row beside the one right row with its key that is next to it in time. Output: left columns,
/// then right columns.
#[derive(Clone, Debug)]
pub struct AsOfPlan {
    /// Key columns of the left input; may be empty.
    pub left_keys: Vec<usize>,
    /// Key columns of the right input, of the same types.
    pub right_keys: Vec<usize>,
    /// The left input's time column.
    pub left_time: usize,
    /// The right input's time column, of the same type.
    pub right_time: usize,
    /// The right row comes after the left one in time, instead of before it.
    pub after: bool,
    /// A right row at the same time matches.
    pub inclusive: bool,
    /// Left rows without a match come out beside NULLs.
    pub outer: bool,
    /// How far behind the watermark, in microseconds, times are final on both sides, which take nothing
    /// back, so that state can go. Needs times of microseconds and a match before.
    pub evict: Option<Micros>,
}

/// Rows `offset..offset + limit` of each partition in the order given. Rows that compare equal are
/// put in a fixed order that depends only on their content. With `ties`: rows of a rank up to `limit`, so those that
/// compare equal to the last one too. Output: the input columns, then the row number or the rank
/// (Int64 or UInt64 as the schema says, from 1) if `number`.
#[derive(Clone, Debug)]
pub struct TopNPlan {
    /// The input columns that make the partition; none: one partition.
    pub partition: Vec<usize>,
    /// The order.
    pub order: Vec<OrderBy>,
    /// How many rows to leave out.
    pub offset: usize,
    /// How many rows to give.
    pub limit: usize,
    /// Whether rows that compare equal stand or fall together, as their rank is the same. Needs an offset of 0.
    pub ties: bool,
    /// Whether the row number is an output column.
    pub number: bool,
    /// Whether the input never takes a row back, so that rows beyond the limit can be forgotten.
    pub append_only: bool,
    /// A time column of the input, also in `partition`, whose bound says when a partition is final.
    pub closes: Option<Bound>,
}

/// One column of an order.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderBy {
    /// The column.
    pub column: usize,
    /// Direction and place of NULLs.
    pub options: SortOptions,
}

/// Window functions that share partition and order. A partition's rows stand in the order given, rows
/// that compare equal there (peers) in a fixed order that depends only on their content; a row of multiplicity n
/// takes n places. Output: the input columns, then one column per call.
#[derive(Clone, Debug)]
pub struct OverPlan {
    /// The input columns that make the partition; none: one partition.
    pub partition: Vec<usize>,
    /// The order.
    pub order: Vec<OrderBy>,
    /// The functions.
    pub calls: Vec<OverCall>,
    /// A time column of the input, also in `partition`, whose bound says when a partition is final.
    pub closes: Option<Bound>,
    /// A time column of the input that leads the order, ascending with NULLs last, whose bound says which rows are
    /// final, so that those that no frame can reach are dropped. Only where no call looks ahead (beyond peers) nor back to the
    /// partition's start, and without `closes`.
    pub evicts: Option<Bound>,
}

/// One window function.
#[derive(Clone, Debug)]
pub struct OverCall {
    /// Which function.
    pub function: OverFunction,
    /// The input column it takes, if it takes one.
    pub arg: Option<usize>,
    /// A boolean input column: only rows where it is true count. Only for aggregates.
    pub filter: Option<usize>,
    /// Which rows it looks at. Only for aggregates and [`OverFunction::FirstValue`] and its kin.
    pub frame: Frame,
    /// The type of the result.
    pub data_type: DataType,
    /// As the user wrote it.
    pub label: String,
}

/// Window functions.
#[derive(Clone, Debug)]
pub enum OverFunction {
    /// A row's place, from 1. Type UInt64, as are the next two and `ntile`.
    RowNumber,
    /// The place of its first peer.
    Rank,
    /// The number of its group of peers, from 1.
    DenseRank,
    /// `(rank - 1) / (rows - 1)`, 0 for a single row. Type Float64, as is the next one.
    PercentRank,
    /// The part of the rows up to its last peer.
    CumeDist,
    /// The number of the row's bucket, of this many of (nearly) equal size; positive.
    Ntile(u64),
    /// The argument in the row so many places before (negative: after).
    Lag {
        /// How many places.
        offset: i64,
        /// One value, for where there is no such row; NULL if missing.
        default: Option<ArrayRef>,
    },
    /// The argument in the frame's first row.
    FirstValue,
    /// The argument in the frame's last row.
    LastValue,
    /// The argument in the frame's row with this number, from 1.
    NthValue(usize),
    /// Rows of the frame (no argument), or those whose argument is not NULL.
    Count,
    /// The sum over the frame, as [`AggregateFunction::Sum`].
    Sum,
    /// The average over the frame, as [`AggregateFunction::Avg`].
    Avg,
    /// The least in the frame.
    Min,
    /// The greatest in the frame.
    Max,
}

/// Which of the partition's rows a function looks at, seen from the current row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frame {
    /// What the bounds count.
    pub units: FrameUnits,
    /// The first row; `None`: the partition's first.
    pub start: Option<FrameOffset>,
    /// The last row; `None`: the partition's last.
    pub end: Option<FrameOffset>,
}

/// What a frame's bounds count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameUnits {
    /// Rows.
    Rows,
    /// Groups of peers.
    Groups,
    /// The value of the only order column. Offset 0 stands for the current row's peers, in any order.
    Range,
}

/// How far a bound is from the current row: negative for `PRECEDING`, 0 for `CURRENT ROW`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FrameOffset {
    /// Rows, groups, or units of the order column: its integers, a decimal's last digits, days of a date, a time's ticks.
    Whole(i64),
    /// A distance between floats.
    Float(f64),
}

impl FrameOffset {
    /// `CURRENT ROW`.
    pub const HERE: FrameOffset = FrameOffset::Whole(0);

    /// Whether it is the current row.
    pub fn is_here(&self) -> bool {
        matches!(self, FrameOffset::Whole(0)) || matches!(self, FrameOffset::Float(f) if *f == 0.0)
    }
}

/// A query that answers for each row by itself.
#[derive(Clone, Debug)]
pub struct FlatMapPlan {
    /// The query; its answer over some rows is the sum of its answers over each of them.
    pub query: Arc<dyn Recompute>,
    /// What it does, for people.
    pub label: String,
}

/// Keep the inputs, recompute the partitions that changed, emit the difference.
#[derive(Clone, Debug)]
pub struct RecomputePlan {
    /// Per input: the columns that make the partition. All empty: one partition, on one worker.
    pub keys: Vec<Vec<usize>>,
    /// The query over one partition's rows.
    pub query: Arc<dyn Recompute>,
    /// What it does, for people.
    pub label: String,
}

/// `WITH RECURSIVE`: a fixpoint.
#[derive(Clone, Debug)]
pub struct RecursionPlan {
    /// `UNION` instead of `UNION ALL`: a row that was there in an earlier round is not there again.
    pub distinct: bool,
}

/// Rows come out once they are final.
#[derive(Clone, Debug)]
pub struct CloseGatePlan {
    /// The column that says when.
    pub closes: Bound,
}
