//! `UNION ALL`. (`UNION` is it below a `DISTINCT`.)

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::{Union, lit};
use tidemill_plan::{Bound, Edge, NodeId, Op, Route};

use super::Lower;
use super::rel::{Rel, cast_to, node_schema};
use crate::scalar::storage_type;

impl Lower<'_> {
    /// All rows of all inputs.
    pub(super) fn union(&mut self, union: &Union) -> Result<Rel> {
        let inputs = union.inputs.iter().map(|input| self.lower(input)).collect::<Result<Vec<_>>>()?;
        self.union_of(inputs, &union.schema)
    }

    /// All rows of all inputs, cast to the columns of `schema`.
    pub(super) fn union_of(&mut self, inputs: Vec<Rel>, schema: &DFSchema) -> Result<Rel> {
        // Where only the number of rows is asked for, each has a column that says that it is there.
        let bare = schema.fields().is_empty();
        let mut names: Vec<_> = schema.fields().iter().map(|f| f.name().clone()).collect();
        names.extend(bare.then(|| "row".to_owned()));
        let mut nodes = Vec::new();
        for rel in inputs {
            let mut exprs = cast_to(&rel, schema)?;
            exprs.extend(bare.then(|| lit(true)));
            nodes.push(self.node_of(rel, exprs, &names)?);
        }
        let fields = schema.fields().iter().map(|f| (f.name().as_str(), storage_type(f.data_type())));
        let out = node_schema(fields.chain(bare.then_some(("row", DataType::Boolean))))?;
        let append_only = nodes.iter().all(|n| self.nodes[*n].append_only);
        let bounds = self.shared_bounds(&nodes);
        let edges = nodes.into_iter().map(|from| Edge { from, route: Route::Local }).collect();
        let node = self.push(Op::Union, edges, out, append_only, bounds);
        self.rel_as(node, schema)
    }

    /// The bounds that all nodes have, the later offset each.
    fn shared_bounds(&self, nodes: &[NodeId]) -> Vec<Bound> {
        let Some((first, others)) = nodes.split_first() else { return Vec::new() };
        let shared = |bound: &Bound| {
            others.iter().try_fold(*bound, |bound, node| {
                let other = self.nodes[*node].bounds.iter().find(|b| b.column == bound.column)?;
                Some(Bound { offset: bound.offset.max(other.offset), ..bound })
            })
        };
        self.nodes[*first].bounds.iter().filter_map(shared).collect()
    }
}
