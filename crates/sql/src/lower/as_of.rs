//! As-of joins.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::Result;
use datafusion::logical_expr::{Expr, UserDefinedLogicalNodeCore};
use tidemill_delta::Micros;
use tidemill_plan::{AsOfPlan, Bound, Edge, NodeId, Op, Route};

use super::Lower;
use super::join::Side;
use super::rel::{Rel, column_as, node_schema};
use crate::as_of::AsOfNode;

impl Lower<'_> {
    /// An as-of join.
    pub(super) fn as_of(&mut self, join: &AsOfNode) -> Result<Rel> {
        let (mut left_on, mut right_on): (Vec<Expr>, Vec<Expr>) = join.on.iter().cloned().unzip();
        left_on.push(join.times.0.clone());
        right_on.push(join.times.1.clone());
        let left = self.side(&join.left, &left_on)?;
        let right = self.side(&join.right, &right_on)?;
        let plan = self.as_of_plan(join, &left, &right);
        let left_fields = self.nodes[left.node].schema.fields().clone();
        let right_fields = self.nodes[right.node].schema.fields().clone();
        let fields = left_fields.iter().chain(right_fields.iter());
        let schema = node_schema(fields.map(|f| (f.name().as_str(), f.data_type().clone())))?;
        let bounds = self.as_of_bound(&plan, left.node, right.node);
        let route = |keys: &Vec<usize>| if keys.is_empty() { Route::Gather } else { Route::Hash(keys.clone()) };
        let edges = vec![
            Edge { from: left.node, route: route(&plan.left_keys) },
            Edge { from: right.node, route: route(&plan.right_keys) },
        ];
        let node = self.push(Op::AsOf(plan), edges, schema, false, bounds);
        let mut rel = self.rel_of(node)?;
        let width = left_fields.len();
        let places = left.places.iter().copied().chain(right.places.iter().map(|place| place + width));
        let types = join.schema().fields().iter().map(|field| field.data_type());
        rel.exprs = places.zip(types).map(|(place, t)| column_as(&rel.columns, place, t)).collect();
        Ok(rel)
    }

    fn as_of_plan(&self, join: &AsOfNode, left: &Side, right: &Side) -> AsOfPlan {
        let split = |side: &Side| match side.keys.split_last() {
            Some((time, keys)) => (keys.to_vec(), *time),
            None => (Vec::new(), 0),
        };
        let ((left_keys, left_time), (right_keys, right_time)) = (split(left), split(right));
        let of = |node: NodeId, column: usize| self.time_bound(node, column).filter(|_| self.nodes[node].append_only);
        let evict = of(left.node, left_time).zip(of(right.node, right_time)).map(|(a, b)| a.max(b));
        AsOfPlan {
            left_keys,
            right_keys,
            left_time,
            right_time,
            after: join.after,
            inclusive: join.inclusive,
            outer: join.outer,
            evict: evict.filter(|_| !join.after),
        }
    }

    /// How far behind the watermark a time column of microseconds is final.
    fn time_bound(&self, node: NodeId, column: usize) -> Option<Micros> {
        let node = &self.nodes[node];
        let micros = matches!(node.schema.field(column).data_type(), DataType::Timestamp(TimeUnit::Microsecond, _));
        node.bounds.iter().find(|b| b.column == column && micros).map(|b| b.offset)
    }

    /// A change on the right concerns left rows after it, so that the left time stays bounded.
    fn as_of_bound(&self, plan: &AsOfPlan, left: NodeId, right: NodeId) -> Vec<Bound> {
        let both = self.time_bound(left, plan.left_time).zip(self.time_bound(right, plan.right_time));
        let bound = both.filter(|_| !plan.after).map(|(a, b)| Bound { column: plan.left_time, offset: a.max(b) });
        bound.into_iter().collect()
    }
}
