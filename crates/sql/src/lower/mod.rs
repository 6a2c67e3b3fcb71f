//! A view's query as a dataflow.
//!
//! The logical plan is walked once, bottom up, one file per kind of node. What is in between (filters
//! and projections) collects in a [`Rel`]; whatever has no incremental rule ends up in [`fallback`].

mod aggregate;
mod as_of;
mod bounds;
mod close;
mod fallback;
mod grouping_sets;
mod join;
mod join_bounds;
mod limit;
mod notices;
mod optimize;
mod over;
mod panes;
mod recursion;
mod rel;
mod scan;
mod session;
mod shared_work;
mod union;
mod window;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::SessionState;
use datafusion::logical_expr::utils::{conjunction as and, split_conjunction};
use datafusion::logical_expr::{Distinct, Expr, Extension, LogicalPlan};
use datafusion::sql::sqlparser::ast;
use tidemill_delta::Micros;
use tidemill_plan::{Bound, Dataflow, Edge, Expr as Output, Input, MapPlan, Node, NodeId, Op, Route};

use self::rel::Rel;
use crate::as_of::AsOfNode;
use crate::error_map::sql_error;
use crate::given::GivenNode;
use crate::names::result_names;
use crate::window::WindowNode;
use crate::{Catalog, CreateView, Notice, PlannedView, Planner, SqlError, state};

pub(crate) use self::optimize::refuse_unstable;
pub(crate) use self::scan::reading;

/// See [`Planner::plan_view`].
pub(crate) fn plan_view(
    planner: &Planner,
    catalog: &dyn Catalog,
    query: &ast::Query,
    on_close: bool,
    columns: &[String],
) -> Result<PlannedView, SqlError> {
    on_large_stack(|| {
        let plan = planner.logical_plan(catalog, query)?;
        let names = view_names(&plan, columns)?;
        let mut lower = Lower::new(planner);
        let schema = lower.view(plan, &names, on_close).map_err(sql_error)?;
        panes::merge_panes(&mut lower.nodes);
        let notices = lower.notices();
        let dataflow = Dataflow { nodes: lower.nodes, inputs: lower.inputs };
        Ok(PlannedView { dataflow, schema, definition: query.to_string(), notices })
    })
}

/// A view's optimised plan and its columns, and what closes it if it is emitted on window close.
pub(crate) fn closing_of(
    planner: &Planner,
    catalog: &dyn Catalog,
    view: &CreateView,
) -> Result<(LogicalPlan, SchemaRef, Option<ClosingAt>), SqlError> {
    let plan = planner.logical_plan(catalog, &view.query)?;
    let names = view_names(&plan, &view.columns)?;
    let mut lower = Lower::new(planner);
    let schema = lower.view(plan.clone(), &names, view.on_close).map_err(sql_error)?;
    let plan = optimize::optimize(planner.session(), plan).map_err(sql_error)?;
    let closing = if view.on_close { lower.closing_at() } else { None };
    if view.on_close && closing.is_none() {
        return Err(SqlError::internal("nothing closes this view"));
    }
    Ok((plan, schema, closing))
}

/// What makes rows of a grouping final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    /// The grouping's expression with this number, in the logical plan.
    Key(usize),
    /// The end of the session.
    Session,
}

/// Where a view that is emitted on window close holds rows back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClosingAt {
    /// At its output, by a bound of one of its columns.
    Output(Bound),
    /// At the grouping next below its output, by a time plus so many microseconds.
    Operator(Closing, Micros),
}

/// Plans recurse as deep as queries are nested; a small thread's stack would not do.
const STACK: usize = 64 << 20;

/// Runs it where there is room for deep recursion.
pub(crate) fn on_large_stack<T: Send>(work: impl FnOnce() -> Result<T, SqlError> + Send) -> Result<T, SqlError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("plan".into()).stack_size(STACK);
        let planned = thread.spawn_scoped(scope, work).map_err(|e| SqlError::internal(format!("no thread: {e}")))?;
        planned.join().map_err(|_| SqlError::internal("planning panicked"))?
    })
}

/// The view's column names as the user sees them.
fn view_names(plan: &LogicalPlan, columns: &[String]) -> Result<Vec<String>, SqlError> {
    let mut names = result_names(plan);
    if columns.len() > names.len() {
        let message = format!("the view has {} columns, but {} names are given", names.len(), columns.len());
        return Err(SqlError::new(state::SYNTAX_ERROR, message));
    }
    names.splice(..columns.len(), columns.iter().cloned());
    for (i, name) in names.iter().enumerate() {
        if names[..i].contains(name) {
            let message = format!("column \"{name}\" is specified more than once");
            let error = SqlError::new(state::DUPLICATE_COLUMN, message);
            return Err(error.hint("Give one of them another name with AS."));
        }
    }
    Ok(names)
}

/// The dataflow being made.
pub(crate) struct Lower<'a> {
    planner: &'a Planner,
    nodes: Vec<Node>,
    inputs: Vec<Input>,
    /// Equal nodes are made once.
    known: HashMap<String, NodeId>,
    notices: Vec<Notice>,
    /// What makes the rows of each grouping final, where something does.
    closing: HashMap<NodeId, Closing>,
    /// A time column that some relation has, for hints.
    time_column: Option<String>,
    /// The rows of the loops that are being made, by the number of the leaf that stands for them.
    loops: Vec<Option<Rel>>,
}

impl<'a> Lower<'a> {
    fn new(planner: &'a Planner) -> Self {
        Lower {
            planner,
            nodes: Vec::new(),
            inputs: Vec::new(),
            known: HashMap::new(),
            notices: Vec::new(),
            closing: HashMap::new(),
            time_column: None,
            loops: Vec::new(),
        }
    }

    fn session(&self) -> &'a Arc<SessionState> {
        self.planner.session()
    }

    /// Lowers a whole query; gives the view's columns.
    fn view(&mut self, plan: LogicalPlan, names: &[String], on_close: bool) -> Result<SchemaRef> {
        refuse_unstable(&plan)?;
        self.note_final_sort(&plan);
        let plan = optimize::optimize(self.session(), plan)?;
        let rel = self.lower(&plan)?;
        let exprs = rel.exprs.clone();
        let mut root = self.node_of(rel, exprs, names)?;
        if on_close {
            root = self.close(root)?;
        }
        let schema = self.finish(root, names)?;
        // Text may be more to the user: `jsonb`, `uuid`.
        let fields = schema.fields().iter().zip(plan.schema().fields());
        let fields = fields.map(|(field, planned)| field.as_ref().clone().with_metadata(planned.metadata().clone()));
        Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
    }

    /// Makes the root the last node, with the view's column names.
    fn finish(&mut self, root: NodeId, names: &[String]) -> Result<SchemaRef> {
        let fields = self.nodes[root].schema.fields().iter().zip(names);
        let fields: Vec<_> = fields.map(|(f, name)| Field::new(name, f.data_type().clone(), true)).collect();
        let schema = Arc::new(Schema::new(fields));
        if root + 1 == self.nodes.len() && self.consumers(root) == 0 && !matches!(self.nodes[root].op, Op::Input(_)) {
            self.nodes[root].schema = schema.clone();
            return Ok(schema);
        }
        let project = (0..names.len()).map(Output::Column).collect();
        let (append_only, bounds) = (self.nodes[root].append_only, self.nodes[root].bounds.clone());
        let op = Op::Map(MapPlan { filter: None, project });
        let edge = Edge { from: root, route: Route::Local };
        self.nodes.push(Node { op, inputs: vec![edge], schema: schema.clone(), append_only, bounds });
        Ok(schema)
    }

    /// How many edges leave a node.
    fn consumers(&self, node: NodeId) -> usize {
        self.nodes.iter().flat_map(|n| &n.inputs).filter(|edge| edge.from == node).count()
    }

    /// Adds a node, or finds the equal one that exists.
    fn push(&mut self, op: Op, inputs: Vec<Edge>, schema: SchemaRef, append_only: bool, bounds: Vec<Bound>) -> NodeId {
        // The text of a recomputed plan leaves things out, so it cannot tell equal ones.
        let key = match op {
            Op::Recompute(_) | Op::FlatMap(_) => None,
            // Loops are told apart by what closes them.
            Op::Recursion(_) => None,
            _ => Some(format!("{op:?} {inputs:?} {:?}", schema.fields())),
        };
        if let Some(node) = key.as_ref().and_then(|key| self.known.get(key)) {
            return *node;
        }
        let node = self.nodes.len();
        self.nodes.push(Node { op, inputs, schema, append_only, bounds });
        self.known.extend(key.map(|key| (key, node)));
        node
    }

    /// Lowers a plan; the result has an expression for each of the plan's columns.
    fn lower(&mut self, plan: &LogicalPlan) -> Result<Rel> {
        match plan {
            LogicalPlan::TableScan(scan) if scan.fetch.is_none() => self.scan(scan),
            LogicalPlan::Projection(projection) => {
                let input = self.lower(&projection.input)?;
                self.project(input, projection.input.schema(), &projection.expr)
            }
            LogicalPlan::Filter(filter) => {
                let input = self.lower(&filter.input)?;
                let conditions: Vec<_> = split_conjunction(&filter.predicate).into_iter().cloned().collect();
                self.filter(input, filter.input.schema(), &conditions)
            }
            LogicalPlan::SubqueryAlias(alias) => self.lower(&alias.input),
            LogicalPlan::Repartition(repartition) => self.lower(&repartition.input),
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => self.lower(&sort.input),
            LogicalPlan::Sort(_) | LogicalPlan::Limit(_) => self.limit(plan),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(plan, aggregate),
            LogicalPlan::Distinct(Distinct::All(input)) => self.distinct(input),
            LogicalPlan::Join(join) => self.join(plan, join),
            LogicalPlan::Union(union) => self.union(union),
            LogicalPlan::RecursiveQuery(query) => self.recursive(plan, query),
            LogicalPlan::Window(window) => self.over(plan, window),
            LogicalPlan::Extension(extension) => self.extension(plan, extension),
            _ => self.fallback(plan),
        }
    }

    /// A node of ours.
    fn extension(&mut self, plan: &LogicalPlan, extension: &Extension) -> Result<Rel> {
        if let Some(window) = extension.node.as_any().downcast_ref::<WindowNode>() {
            return self.window(window);
        }
        if let Some(given) = extension.node.as_any().downcast_ref::<GivenNode>() {
            let rows = self.loops.get(given.index).cloned().flatten();
            return rows.ok_or_else(|| internal(format!("there is no loop {}", given.index)));
        }
        match extension.node.as_any().downcast_ref::<AsOfNode>() {
            Some(join) => self.as_of(join),
            None => self.fallback(plan),
        }
    }
}

/// All of the conditions as one.
fn conjunction(conditions: &[Expr]) -> Option<Expr> {
    and(conditions.iter().cloned())
}

/// A bug of ours.
fn internal(message: impl Into<String>) -> DataFusionError {
    DataFusionError::Internal(message.into())
}
