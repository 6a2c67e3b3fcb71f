//! `SESSION` windows.
//!
//! Grouped by their key and window, sessions have an operator. Rows beside their session, without
//! grouping, are recomputed per key.

use datafusion::common::{DFSchema, DFSchemaRef, Result};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan};
use std::sync::Arc;
use tidemill_delta::Micros;
use tidemill_plan::{Bound, Edge, NodeId, Op, Route, SessionPlan};

use super::aggregate::{Columns, PlannedCall};
use super::rel::{Base, Rel, column_as, column_at, node_schema, unique_columns};
use super::{Closing, Lower};
use crate::label::label;
use crate::window::{WINDOW_END, WINDOW_START, WindowNode};

/// Rows and their session.
#[derive(Clone)]
pub(super) struct PendingSession {
    input: NodeId,
    keys: Vec<usize>,
    time: usize,
    gap: Micros,
    window: WindowNode,
}

impl Lower<'_> {
    /// Rows beside their session; `input` has exactly the columns of the window's input.
    pub(super) fn sessions(
        &mut self,
        window: &WindowNode,
        input: NodeId,
        time: usize,
        keys: Vec<usize>,
        gap: Micros,
    ) -> Result<Rel> {
        let fields = self.nodes[input].schema.fields();
        let time_type = fields[time].data_type().clone();
        let fields = fields.iter().map(|f| (f.name().as_str(), f.data_type().clone()));
        let columns = unique_columns(fields.chain([(WINDOW_START, time_type.clone()), (WINDOW_END, time_type)]))?;
        let types = window_schema(window);
        let exprs = types.fields().iter().enumerate();
        let exprs = exprs.map(|(i, f)| column_as(&columns, i, f.data_type())).collect();
        let pending = PendingSession { input, keys, time, gap, window: window.clone() };
        Ok(Rel { base: Base::Session(Box::new(pending)), columns, filter: Vec::new(), exprs })
    }

    /// Groups of sessions, if the grouping is by exactly the sessions' keys and their window.
    pub(super) fn session_groups(
        &mut self,
        rel: &Rel,
        columns: &Columns,
        keys: &[usize],
        calls: &[PlannedCall],
        schema: &DFSchema,
    ) -> Result<Option<Rel>> {
        let Base::Session(session) = &rel.base else { return Ok(None) };
        let width = rel.columns.fields().len() - 2;
        let indices: Option<Vec<_>> = keys.iter().map(|key| rel.column_index(&columns.exprs[*key])).collect();
        let Some(indices) = indices.filter(|_| rel.filter.is_empty()) else { return Ok(None) };
        let by_window = indices.iter().any(|i| *i >= width);
        let by_keys = session.keys.iter().all(|key| indices.contains(key));
        let by_others = indices.iter().any(|i| *i < width && !session.keys.contains(i));
        let is_window = |expr: &Expr| (width..width + 2).any(|i| *expr == column_at(&rel.columns, i));
        let inside = |expr: &Expr| !is_window(expr) && uses(expr, &[width, width + 1], &rel.columns);
        if !by_window || !by_keys || by_others || columns.exprs.iter().any(inside) {
            return Ok(None);
        }
        if calls.iter().any(|call| call.uses().any(|place| is_window(&columns.exprs[place]))) {
            return Ok(None);
        }
        let mut needed = Columns::default();
        let name = label;
        let own: Vec<_> = session.keys.iter().map(|k| needed.place(column_at(&rel.columns, *k), name)).collect();
        let time = needed.place(column_at(&rel.columns, session.time), name);
        let moved = columns.exprs.iter();
        let moved: Vec<_> =
            moved.map(|e| if is_window(e) { usize::MAX } else { needed.place(e.clone(), name) }).collect();
        let (node, places) = self.node_with(self.rel_of(session.input)?, needed.exprs, &needed.names)?;
        let at = |place: usize| places.get(place).copied().unwrap_or(usize::MAX);
        let moved: Vec<_> = moved.into_iter().map(at).collect();
        let calls = calls.iter().map(|c| self.call(node, c, &moved)).collect::<Result<Vec<_>>>()?;
        let own: Vec<_> = own.into_iter().map(at).collect();
        let plan = SessionPlan {
            keys: own,
            time: at(time),
            gap: session.gap,
            calls,
            append_only: self.nodes[node].append_only,
            closes: None,
            on_close: false,
        };
        let node = self.session_node(node, plan, schema, indices.len())?;
        let mut grouped = self.rel_of(node)?;
        let key_place = |index: &usize| match index.checked_sub(width) {
            Some(window) => session.keys.len() + window,
            None => session.keys.iter().position(|k| k == index).unwrap_or(0),
        };
        let call_places = (0..schema.fields().len() - indices.len()).map(|i| session.keys.len() + 2 + i);
        let sources = indices.iter().map(key_place).chain(call_places);
        let exprs = sources.zip(schema.fields()).map(|(p, f)| column_as(&grouped.columns, p, f.data_type()));
        grouped.exprs = exprs.collect();
        Ok(Some(grouped))
    }

    fn session_node(
        &mut self,
        input: NodeId,
        mut plan: SessionPlan,
        schema: &DFSchema,
        group_width: usize,
    ) -> Result<NodeId> {
        let node = &self.nodes[input];
        plan.closes = node.bounds.iter().find(|b| b.column == plan.time).copied();
        let end = plan.keys.len() + 1;
        // A row may join a session until its time is `window_end`.
        let bounds = plan.closes.iter().map(|b| Bound { column: end, offset: b.offset }).collect();
        let field = |i: usize| (node.schema.field(i).name().as_str(), node.schema.field(i).data_type().clone());
        let time = node.schema.field(plan.time).data_type();
        let keys = plan.keys.iter().map(|k| field(*k));
        let windows = [(WINDOW_START, time.clone()), (WINDOW_END, time.clone())];
        let calls = plan.calls.iter().zip(&schema.fields()[group_width..]);
        let calls = calls.map(|(call, field)| (field.name().as_str(), call.data_type.clone()));
        let out = node_schema(keys.chain(windows).chain(calls))?;
        let route = if plan.keys.is_empty() { Route::Gather } else { Route::Hash(plan.keys.clone()) };
        let node = self.push(Op::Session(plan), vec![Edge { from: input, route }], out, false, bounds);
        self.closing.insert(node, Closing::Session);
        Ok(node)
    }

    /// Rows beside their session, as a node.
    pub(super) fn session_rows(
        &mut self,
        session: PendingSession,
        columns: &DFSchemaRef,
        exprs: Vec<Expr>,
    ) -> Result<(NodeId, DFSchemaRef, Vec<Expr>)> {
        let names: Vec<_> = columns.fields().iter().map(|f| f.name().clone()).collect();
        let plan = LogicalPlan::Extension(Extension { node: Arc::new(session.window) });
        let node = self.recompute(&plan, vec![(session.input, session.keys)], "sessions", Some(&names))?;
        Ok((node, self.rel_of(node)?.columns, exprs))
    }
}

fn window_schema(window: &WindowNode) -> &DFSchemaRef {
    datafusion::logical_expr::UserDefinedLogicalNodeCore::schema(window)
}

/// Whether an expression uses one of the columns.
fn uses(expr: &Expr, indices: &[usize], columns: &DFSchema) -> bool {
    expr.column_refs().iter().filter_map(|c| columns.maybe_index_of_column(c)).any(|i| indices.contains(&i))
}
