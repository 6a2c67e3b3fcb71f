//! Whatever has no incremental rule: DataFusion recomputes it over its whole inputs.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DFSchemaRef, Result};
use datafusion::logical_expr::{Extension, LogicalPlan, Unnest};
use tidemill_plan::{Bound, Edge, FlatMapPlan, NodeId, Op, RecomputePlan, Route};

use super::Lower;
use super::rel::{Rel, column_as, node_schema};
use crate::given::{BatchQuery, GivenNode};
use crate::label::tidy;
use crate::scalar::storage_type;

impl Lower<'_> {
    /// A plan node by recomputation.
    pub(super) fn fallback(&mut self, plan: &LogicalPlan) -> Result<Rel> {
        let children: Vec<LogicalPlan> = plan.inputs().into_iter().cloned().collect();
        let mut inputs = Vec::new();
        for child in &children {
            let rel = self.lower(child)?;
            let names: Vec<_> = child.schema().fields().iter().map(|f| f.name().clone()).collect();
            let exprs = rel.exprs.clone();
            let node = self.node_of(rel, exprs, &names)?;
            inputs.push((node, Vec::new()));
        }
        if let (LogicalPlan::Unnest(unnest), [(input, _)]) = (plan, inputs.as_slice()) {
            return self.unnest(plan, unnest, *input);
        }
        let node = self.recompute(plan, inputs, &label(plan), None)?;
        self.rel_as(node, plan.schema())
    }

    /// `UNNEST` works row by row.
    fn unnest(&mut self, plan: &LogicalPlan, unnest: &Unnest, input: NodeId) -> Result<Rel> {
        let schema = unnest.input.schema().clone();
        let over_given = plan.with_new_exprs(plan.expressions(), vec![given(0, &schema)])?;
        let (query, out) = self.batch_query(&over_given, std::slice::from_ref(&schema), None)?;
        let node = &self.nodes[input];
        let (append_only, edge) = (node.append_only, Edge { from: input, route: Route::Local });
        let from = unnest.dependency_indices.iter().enumerate();
        let bounds = from.filter_map(|(column, from)| {
            let bound = node.bounds.iter().find(|bound| bound.column == *from)?;
            Some(Bound { column, offset: bound.offset })
        });
        let bounds = bounds.collect();
        let op = Op::FlatMap(FlatMapPlan { query: Arc::new(query), label: label(plan) });
        let node = self.push(op, vec![edge], out, append_only, bounds);
        self.rel_as(node, plan.schema())
    }

    /// Recomputes a plan node whose children are `inputs` (with at least their columns), each given
    /// with the columns that partition it. `names` replaces the output's column names.
    pub(super) fn recompute(
        &mut self,
        plan: &LogicalPlan,
        inputs: Vec<(NodeId, Vec<usize>)>,
        label: &str,
        names: Option<&[String]>,
    ) -> Result<NodeId> {
        let schemas: Vec<DFSchemaRef> = plan.inputs().iter().map(|child| child.schema().clone()).collect();
        let leaves: Vec<_> = schemas.iter().enumerate().map(|(index, schema)| given(index, schema)).collect();
        let over_given = match leaves.is_empty() {
            true => plan.clone(),
            false => plan.with_new_exprs(plan.expressions(), leaves)?,
        };
        self.recompute_node(&over_given, &schemas, inputs, label, names)
    }

    /// Recomputes a plan over leaves that stand for `inputs`, whose columns are `schemas`; else as [`Lower::recompute`].
    pub(super) fn recompute_node(
        &mut self,
        plan: &LogicalPlan,
        schemas: &[DFSchemaRef],
        inputs: Vec<(NodeId, Vec<usize>)>,
        label: &str,
        names: Option<&[String]>,
    ) -> Result<NodeId> {
        let (query, out) = self.batch_query(plan, schemas, names)?;
        let whole = inputs.iter().any(|(_, keys)| keys.is_empty());
        let keys = inputs.iter().map(|(_, keys)| if whole { Vec::new() } else { keys.clone() }).collect();
        let edges = inputs.iter().map(|(from, keys)| {
            let route = if whole { Route::Gather } else { Route::Hash(keys.clone()) };
            Edge { from: *from, route }
        });
        let edges = edges.collect();
        let op = Op::Recompute(RecomputePlan { keys, query: Arc::new(query), label: label.to_string() });
        Ok(self.push(op, edges, out, false, Vec::new()))
    }

    /// A plan over given inputs as a query, and the columns of its answer.
    fn batch_query(
        &self,
        plan: &LogicalPlan,
        schemas: &[DFSchemaRef],
        names: Option<&[String]>,
    ) -> Result<(BatchQuery, SchemaRef)> {
        let fields = plan.schema().fields().iter().enumerate();
        let name = |i: usize, own: &'_ str| names.and_then(|n| n.get(i)).map_or(own.to_string(), String::clone);
        let fields: Vec<_> = fields.map(|(i, f)| (name(i, f.name()), storage_type(f.data_type()))).collect();
        let out = node_schema(fields.iter().map(|(n, t)| (n.as_str(), t.clone())))?;
        let schemas = schemas.iter().map(|s| s.inner().clone()).collect();
        let query = BatchQuery::new(self.session(), plan, schemas, out.clone())?;
        Ok((query, out))
    }

    /// Recomputes a plan as a whole over the relations it scans.
    pub(super) fn recompute_scans(&mut self, plan: &LogicalPlan) -> Result<Rel> {
        let (mut inputs, mut schemas) = (Vec::new(), Vec::new());
        let over_given = plan.clone().transform_up(|plan| match &plan {
            LogicalPlan::TableScan(scan) if scan.source.is::<crate::provider::RelationSource>() => {
                let rel = self.scan(scan)?;
                let names: Vec<_> = plan.schema().fields().iter().map(|f| f.name().clone()).collect();
                let exprs = rel.exprs.clone();
                inputs.push((self.node_of(rel, exprs, &names)?, Vec::new()));
                schemas.push(plan.schema().clone());
                Ok(Transformed::yes(given(schemas.len() - 1, plan.schema())))
            }
            _ => Ok(Transformed::no(plan)),
        })?;
        let node = self.recompute_node(&over_given.data, &schemas, inputs, &label(plan), None)?;
        self.rel_as(node, plan.schema())
    }

    /// A node's columns with the types that a plan says they have.
    pub(super) fn rel_as(&self, node: NodeId, schema: &DFSchema) -> Result<Rel> {
        let mut rel = self.rel_of(node)?;
        let fields = schema.fields().iter().enumerate();
        rel.exprs = fields.map(|(i, f)| column_as(&rel.columns, i, f.data_type())).collect();
        Ok(rel)
    }
}

/// A leaf that stands for an input.
pub(super) fn given(index: usize, schema: &DFSchemaRef) -> LogicalPlan {
    LogicalPlan::Extension(Extension { node: Arc::new(GivenNode { index, schema: schema.clone() }) })
}

/// A plan node in a few words.
fn label(plan: &LogicalPlan) -> String {
    let known = match plan {
        LogicalPlan::Unnest(_) => Some("UNNEST"),
        LogicalPlan::RecursiveQuery(_) => Some("WITH RECURSIVE"),
        LogicalPlan::Values(_) => Some("VALUES"),
        LogicalPlan::EmptyRelation(_) => Some("constant"),
        LogicalPlan::Aggregate(_) => Some("GROUPING SETS"),
        LogicalPlan::Join(join) if join.null_aware => Some("NOT IN"),
        _ => None,
    };
    if let Some(known) = known {
        return known.to_string();
    }
    let text = tidy(&plan.display().to_string());
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
