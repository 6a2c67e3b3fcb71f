//! `TUMBLE`, `HOP`, `SESSION`.

use datafusion::common::Result;
use datafusion::logical_expr::{Expr, UserDefinedLogicalNodeCore};
use tidemill_delta::Micros;
use tidemill_plan::{Bound, Edge, NodeId, Op, Route, WindowPlan};

use super::rel::{Rel, node_schema};
use super::{Lower, internal};
use crate::window::{WINDOW_END, WINDOW_START, WindowKind, WindowNode};

impl Lower<'_> {
    /// A window function.
    pub(super) fn window(&mut self, window: &WindowNode) -> Result<Rel> {
        let schema = window.input.schema();
        let rel = self.lower(&window.input)?;
        let names: Vec<_> = schema.fields().iter().map(|f| f.name().clone()).collect();
        let exprs = rel.exprs.clone();
        let input = self.node_of(rel, exprs, &names)?;
        let index = |expr: &Expr| match expr {
            Expr::Column(column) => schema.index_of_column(column),
            other => Err(internal(format!("a window over {other}"))),
        };
        let time = index(&window.time)?;
        match window.kind {
            WindowKind::Fixed { size, slide, origin } => {
                let node = self.fixed_windows(input, WindowPlan { time, size, slide, origin, panes: false })?;
                self.rel_as(node, window.schema())
            }
            WindowKind::Session { gap } => {
                let keys = window.keys.iter().map(index).collect::<Result<Vec<_>>>()?;
                self.sessions(window, input, time, keys, gap)
            }
        }
    }

    fn fixed_windows(&mut self, input: NodeId, plan: WindowPlan) -> Result<NodeId> {
        let node = &self.nodes[input];
        let fields = node.schema.fields();
        let time_type = fields[plan.time].data_type().clone();
        let own = fields.iter().map(|f| (f.name().as_str(), f.data_type().clone()));
        let added = [(WINDOW_START, time_type.clone()), (WINDOW_END, time_type)];
        let schema = node_schema(own.chain(added))?;
        let bounds = window_bounds(&node.bounds, &plan, fields.len());
        let append_only = node.append_only;
        let edge = Edge { from: input, route: Route::Local };
        Ok(self.push(Op::Window(plan), vec![edge], schema, append_only, bounds))
    }
}

/// The input's bounds, and those of `window_start` and `window_end` (columns `width` and `width + 1`).
///
/// The last row of a window is one microsecond before its end; with it, the window is final.
fn window_bounds(input: &[Bound], plan: &WindowPlan, width: usize) -> Vec<Bound> {
    let mut bounds = input.to_vec();
    if let Some(time) = input.iter().find(|b| b.column == plan.time) {
        let end: Micros = time.offset - 1;
        bounds.push(Bound { column: width, offset: plan.size.saturating_add(end) });
        bounds.push(Bound { column: width + 1, offset: end });
    }
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_final_with_its_last_microsecond() {
        let plan = WindowPlan { time: 1, size: 10, slide: 5, origin: 0, panes: false };
        let bounds = window_bounds(&[Bound { column: 1, offset: 1 }], &plan, 3);
        let expected =
            [Bound { column: 1, offset: 1 }, Bound { column: 3, offset: 10 }, Bound { column: 4, offset: 0 }];
        assert_eq!(bounds, expected);
        let later = window_bounds(&[Bound { column: 1, offset: 8 }], &plan, 3);
        assert_eq!(later[2], Bound { column: 4, offset: 7 });
        assert!(window_bounds(&[Bound { column: 0, offset: 1 }], &plan, 3).len() == 1);
    }
}
