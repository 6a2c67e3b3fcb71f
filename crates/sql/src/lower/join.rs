//! Joins.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchemaRef, JoinType, NullEquality, Result};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, ExprSchemable, Join, LogicalPlan, lit};
use tidemill_plan::{Bound, Edge, JoinKind, JoinPlan, NodeId, Op, Route};

use super::aggregate::Columns;
use super::join_bounds::{Sides, constraints};
use super::rel::{Base, Rel, column_as, node_schema, unique_columns};
use super::{Lower, conjunction};
use crate::label::label;
use crate::scalar::BatchScalar;

/// A join of which it is not known yet which columns are wanted.
#[derive(Clone)]
pub(super) struct PendingJoin {
    inputs: [NodeId; 2],
    plan: JoinPlan,
    /// Over left ++ right.
    bounds: Vec<Bound>,
    append_only: bool,
}

impl Lower<'_> {
    /// A join, or what it amounts to.
    pub(super) fn join(&mut self, plan: &LogicalPlan, join: &Join) -> Result<Rel> {
        let nullable = |exprs: &mut dyn Iterator<Item = (&Expr, &LogicalPlan)>| -> Result<bool> {
            for (expr, side) in exprs {
                if expr.nullable(side.schema())? {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        if join.null_aware {
            let mut keys = join.on.iter().flat_map(|(l, r)| [(l, join.left.as_ref()), (r, join.right.as_ref())]);
            if join.filter.is_some() || nullable(&mut keys)? {
                // NOT IN is NULL where a NULL is in the list, which a plain anti join does not know.
                return self.fallback(plan);
            }
        }
        match join.join_type {
            JoinType::Inner => self.join_as(join, JoinKind::Inner),
            JoinType::Left => self.join_as(join, JoinKind::Left),
            JoinType::Right => self.join_as(join, JoinKind::Right),
            JoinType::Full => self.join_as(join, JoinKind::Full),
            JoinType::LeftSemi => self.join_as(join, JoinKind::LeftSemi),
            JoinType::LeftAnti => self.join_as(join, JoinKind::LeftAnti),
            // An inner join with a key of the left side, of which no column is wanted, becomes one.
            JoinType::RightSemi => self.join_as(&mirrored(join, JoinType::LeftSemi), JoinKind::LeftSemi),
            JoinType::LeftMark if !join.null_aware => self.mark_join(join),
            _ => self.fallback(plan),
        }
    }

    /// `EXISTS` as a value: the left rows with a match beside true, the others beside false.
    fn mark_join(&mut self, join: &Join) -> Result<Rel> {
        let mut inputs = Vec::new();
        for (kind, mark) in [(JoinKind::LeftSemi, true), (JoinKind::LeftAnti, false)] {
            let mut rel = self.join_as(join, kind)?;
            rel.exprs.push(lit(mark));
            inputs.push(rel);
        }
        self.union_of(inputs, &join.schema)
    }

    fn join_as(&mut self, join: &Join, kind: JoinKind) -> Result<Rel> {
        let (left_on, right_on): (Vec<_>, Vec<_>) = join.on.iter().cloned().unzip();
        let left = self.side(&join.left, &left_on)?;
        let right = self.side(&join.right, &right_on)?;
        let columns = self.joined_columns(left.node, right.node)?;
        let sides = self.sides(&left, &right);
        let exprs = self.joined_exprs(join, &left, &right, &columns);
        let residual = resolve_residual(join, &exprs)?;
        let filter = match conjunction(&residual) {
            Some(condition) => Some(BatchScalar::compile(self.session(), &condition, &columns)?),
            None => None,
        };
        let known = constraints(&left.keys, &right.keys, sides.width, &residual, &columns);
        let plan = JoinPlan {
            kind,
            left_keys: left.keys,
            right_keys: right.keys,
            null_equals_null: join.null_equality == NullEquality::NullEqualsNull,
            filter,
            append_only: sides.append_only,
            evict: sides.evictions(&known),
            project: Vec::new(),
        };
        let append_only = matches!(kind, JoinKind::Inner | JoinKind::LeftSemi) && sides.append_only == [true; 2];
        let bounds = sides.surviving(&known, kind);
        let inputs = [left.node, right.node];
        let pending = PendingJoin { inputs, plan, bounds, append_only };
        let one_sided = matches!(kind, JoinKind::LeftSemi | JoinKind::LeftAnti);
        let width = if one_sided { left.places.len() } else { exprs.len() };
        Ok(Rel {
            base: Base::Join(Box::new(pending)),
            columns,
            filter: Vec::new(),
            exprs: exprs.into_iter().take(width).collect(),
        })
    }

    /// A join's input with its key columns.
    pub(super) fn side(&mut self, plan: &LogicalPlan, on: &[Expr]) -> Result<Side> {
        let schema = plan.schema();
        let rel = self.lower(plan)?;
        let rel = self.settle_heavy(rel, schema, on, 0)?;
        let mut columns = Columns::default();
        let names = schema.fields().iter().map(|f| f.name().clone());
        let places: Vec<_> =
            rel.exprs.clone().into_iter().zip(names).map(|(e, name)| columns.place(e, |_| name)).collect();
        let mut keys = Vec::new();
        for key in on {
            let key = rel.resolve(schema, key)?;
            keys.push(columns.place(key, label));
        }
        let (node, moved) = self.node_with(rel, columns.exprs, &columns.names)?;
        let at = |places: Vec<usize>| places.into_iter().map(|p| moved[p]).collect();
        Ok(Side { node, places: at(places), keys: at(keys) })
    }

    fn joined_columns(&self, left: NodeId, right: NodeId) -> Result<DFSchemaRef> {
        let fields = [left, right].into_iter().flat_map(|node| self.nodes[node].schema.fields().iter());
        unique_columns(fields.map(|f| (f.name().as_str(), f.data_type().clone())))
    }

    fn sides(&self, left: &Side, right: &Side) -> Sides {
        let width = self.nodes[left.node].schema.fields().len();
        let right_bounds = self.nodes[right.node].bounds.iter();
        let right_bounds = right_bounds.map(|b| Bound { column: b.column + width, offset: b.offset });
        Sides {
            width,
            bounds: self.nodes[left.node].bounds.iter().copied().chain(right_bounds).collect(),
            append_only: [self.nodes[left.node].append_only, self.nodes[right.node].append_only],
        }
    }

    /// The plan's left columns and right columns, over the joined ones.
    fn joined_exprs(&self, join: &Join, left: &Side, right: &Side, columns: &DFSchemaRef) -> Vec<Expr> {
        let width = self.nodes[left.node].schema.fields().len();
        let types = |plan: &LogicalPlan| -> Vec<DataType> {
            plan.schema().fields().iter().map(|f| f.data_type().clone()).collect()
        };
        let left = left.places.iter().copied().zip(types(&join.left));
        let right = right.places.iter().map(|p| p + width).zip(types(&join.right));
        left.chain(right).map(|(place, data_type)| column_as(columns, place, &data_type)).collect()
    }

    /// Makes the join, with the columns that `exprs` use.
    pub(super) fn join_node(
        &mut self,
        pending: PendingJoin,
        columns: &DFSchemaRef,
        exprs: Vec<Expr>,
    ) -> Result<(NodeId, DFSchemaRef, Vec<Expr>)> {
        let mut project: Vec<usize> = Vec::new();
        for column in exprs.iter().flat_map(Expr::column_refs_in_order) {
            if let Some(index) = columns.maybe_index_of_column(column)
                && !project.contains(&index)
            {
                project.push(index);
            }
        }
        let kept = project.iter().map(|i| columns.field(*i));
        let schema = node_schema(kept.map(|f| (f.name().as_str(), f.data_type().clone())))?;
        let place = |b: &Bound| project.iter().position(|p| *p == b.column);
        let bounds =
            pending.bounds.iter().filter_map(|b| Some(Bound { column: place(b)?, offset: b.offset })).collect();
        let route = |keys: &Vec<usize>| match keys.is_empty() {
            true => Route::Gather,
            false => Route::Hash(keys.clone()),
        };
        let edges = vec![
            Edge { from: pending.inputs[0], route: route(&pending.plan.left_keys) },
            Edge { from: pending.inputs[1], route: route(&pending.plan.right_keys) },
        ];
        let op = Op::Join(JoinPlan { project, ..pending.plan });
        let node = self.push(op, edges, schema, pending.append_only, bounds);
        let columns = self.rel_of(node)?.columns;
        Ok((node, columns, exprs))
    }
}

/// The join with its sides changed over.
fn mirrored(join: &Join, join_type: JoinType) -> Join {
    let on = join.on.iter().map(|(left, right)| (right.clone(), left.clone())).collect();
    Join { left: join.right.clone(), right: join.left.clone(), on, join_type, ..join.clone() }
}

/// One input of a join.
pub(super) struct Side {
    pub(super) node: NodeId,
    /// Where the plan's columns are.
    pub(super) places: Vec<usize>,
    pub(super) keys: Vec<usize>,
}

/// The conditions that are not key equalities, over the joined columns.
fn resolve_residual(join: &Join, exprs: &[Expr]) -> Result<Vec<Expr>> {
    let Some(filter) = &join.filter else { return Ok(Vec::new()) };
    let schema = join.left.schema().join(join.right.schema())?;
    let resolve = |condition: &Expr| -> Result<Expr> {
        let resolved = condition.clone().transform_down(|expr| match expr {
            Expr::Column(column) => {
                let index = schema.index_of_column(&column)?;
                Ok(Transformed::new(exprs[index].clone(), true, TreeNodeRecursion::Jump))
            }
            other => Ok(Transformed::no(other)),
        })?;
        Ok(resolved.data)
    };
    let conditions = split_conjunction(filter).into_iter();
    conditions.filter(|c| **c != lit(true)).map(resolve).collect()
}

/// Columns in the order in which an expression names them; the plan must not depend on hashing.
trait ColumnsInOrder {
    fn column_refs_in_order(&self) -> Vec<&Column>;
}

impl ColumnsInOrder for Expr {
    fn column_refs_in_order(&self) -> Vec<&Column> {
        let mut columns = Vec::new();
        // The closure never fails.
        let _ = self.apply(|expr| {
            if let Expr::Column(column) = expr {
                columns.push(column);
            }
            Ok(TreeNodeRecursion::Continue)
        });
        columns
    }
}
