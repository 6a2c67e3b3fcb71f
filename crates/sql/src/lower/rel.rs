//! A part of a plan on its way into nodes.
//!
//! Filters and projections are not made into nodes one by one. They collect in a [`Rel`] until
//! something needs rows; then one `Map` does them all, and what lies below learns which columns are
//! needed: a scan reads only these, a join gives only these.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DFSchemaRef, Result};
use datafusion::logical_expr::{Cast, Expr, ExprSchemable};
use tidemill_plan::{Bound, Edge, Expr as Output, MapPlan, NodeId, Op, Route};

use super::bounds::expr_offset;
use super::join::PendingJoin;
use super::over::Numbered;
use super::session::PendingSession;
use super::{Lower, conjunction, internal};
use crate::Relation;
use crate::label::{label, tidy};
use crate::scalar::{BatchScalar, storage_type};

/// Rows in the making: a base, and expressions over its columns.
#[derive(Clone)]
pub(super) struct Rel {
    /// Where rows come from.
    pub(super) base: Base,
    /// The base's columns, each with a name of its own.
    pub(super) columns: DFSchemaRef,
    /// Conditions that rows must meet.
    pub(super) filter: Vec<Expr>,
    /// One expression for each column of the logical plan, of its type.
    pub(super) exprs: Vec<Expr>,
}

/// Where rows come from.
#[derive(Clone)]
pub(super) enum Base {
    /// A relation; which columns are read is not known yet.
    Scan(Arc<Relation>),
    /// A node.
    Node(NodeId),
    /// A join; which columns come out is not known yet.
    Join(Box<PendingJoin>),
    /// Rows with their `row_number()`; whether only the first ones are wanted is not known yet.
    Numbered(Box<Numbered>),
    /// Rows with their session; whether they are grouped by it is not known yet.
    Session(Box<PendingSession>),
}

impl Rel {
    /// All columns of a base.
    pub(super) fn new(base: Base, columns: DFSchemaRef) -> Self {
        let exprs = columns.fields().iter().map(|f| Expr::Column(Column::new_unqualified(f.name()))).collect();
        Rel { base, columns, filter: Vec::new(), exprs }
    }

    /// Expressions over the plan's columns as expressions over the base's.
    pub(super) fn resolve(&self, schema: &DFSchema, expr: &Expr) -> Result<Expr> {
        let resolved = expr.clone().transform_down(|expr| match expr {
            Expr::Column(column) => {
                let index = schema.index_of_column(&column)?;
                let own = self.exprs.get(index).ok_or_else(|| internal(format!("no column {column}")))?;
                Ok(Transformed::new(own.clone(), true, TreeNodeRecursion::Jump))
            }
            other => Ok(Transformed::no(other)),
        })?;
        Ok(unalias(resolved.data))
    }

    /// The index of a column that the expression is, if it is just one of the base's.
    pub(super) fn column_index(&self, expr: &Expr) -> Option<usize> {
        match expr {
            Expr::Column(column) => self.columns.maybe_index_of_column(column),
            _ => None,
        }
    }
}

/// A base column by index.
pub(super) fn column_at(columns: &DFSchema, index: usize) -> Expr {
    Expr::Column(Column::new_unqualified(columns.field(index).name()))
}

/// A column with the type that expressions above expect: nodes keep plain arrays where DataFusion
/// may have planned with views.
pub(super) fn column_as(columns: &DFSchema, index: usize, data_type: &DataType) -> Expr {
    let column = column_at(columns, index);
    if columns.field(index).data_type() == data_type {
        return column;
    }
    Expr::Cast(Cast::new(Box::new(column), data_type.clone()))
}

/// Undoes [`column_as`].
pub(super) fn plain(expr: Expr, columns: &DFSchema) -> Expr {
    if let Expr::Cast(cast) = &expr
        && let Expr::Column(column) = cast.expr.as_ref()
        && let Some(index) = columns.maybe_index_of_column(column)
        && storage_type(cast.field.data_type()) == *columns.field(index).data_type()
        && cast.field.data_type() != columns.field(index).data_type()
    {
        return cast.expr.as_ref().clone();
    }
    expr
}

/// A part's columns with the types of a schema.
pub(super) fn cast_to(rel: &Rel, schema: &DFSchema) -> Result<Vec<Expr>> {
    let columns = rel.exprs.iter().zip(schema.fields());
    let columns = columns.map(|(expr, field)| {
        let wanted = storage_type(field.data_type());
        let own = storage_type(&expr.get_type(&rel.columns)?);
        if own == wanted { Ok(expr.clone()) } else { expr.clone().cast_to(&wanted, &rel.columns) }
    });
    columns.collect()
}

/// The expression without its name.
pub(super) fn unalias(expr: Expr) -> Expr {
    match expr {
        Expr::Alias(alias) => unalias(*alias.expr),
        other => other,
    }
}

/// Fields as unqualified columns with names of their own.
pub(super) fn unique_columns<'a>(fields: impl IntoIterator<Item = (&'a str, DataType)>) -> Result<DFSchemaRef> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let fields = fields.into_iter().map(|(name, data_type)| {
        let name = tidy(name);
        let mut unique = name.clone();
        while seen.contains_key(&unique) {
            let count = seen.entry(name.clone()).or_default();
            *count += 1;
            unique = format!("{name}:{count}");
        }
        seen.insert(unique.clone(), 0);
        Field::new(unique, data_type, true)
    });
    let schema = Schema::new(fields.collect::<Vec<_>>());
    Ok(Arc::new(DFSchema::try_from(schema)?))
}

/// Whether some expensive column is used more often than `allowed`.
fn uses_heavy(rel: &Rel, schema: &DFSchema, exprs: &[Expr], allowed: usize) -> Result<bool> {
    let mut uses = vec![0; rel.exprs.len()];
    for expr in exprs {
        expr.apply(|expr| {
            if let Expr::Column(column) = expr
                && let Some(count) = schema.maybe_index_of_column(column).and_then(|i| uses.get_mut(i))
            {
                *count += 1;
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    Ok(rel.exprs.iter().zip(&uses).any(|(expr, uses)| *uses > allowed && is_heavy(expr)))
}

/// Worth computing only once.
pub(super) fn is_heavy(expr: &Expr) -> bool {
    match expr {
        Expr::Column(_) | Expr::Literal(..) => false,
        Expr::Cast(cast) => is_heavy(&cast.expr),
        other => super::scan::path_of(other).is_none(),
    }
}

impl Lower<'_> {
    /// Replaces the columns of `rel` by `exprs`, which are over `schema`.
    pub(super) fn project(&mut self, rel: Rel, schema: &DFSchema, exprs: &[Expr]) -> Result<Rel> {
        let mut rel = self.settle_heavy(rel, schema, exprs, 1)?;
        rel.exprs = exprs.iter().map(|expr| rel.resolve(schema, expr)).collect::<Result<_>>()?;
        Ok(rel)
    }

    /// Gives `rel` further conditions, which are over `schema`.
    ///
    /// Those over cheap columns come first: one on a row number has to be known before a node is made.
    pub(super) fn filter(&mut self, mut rel: Rel, schema: &DFSchema, conditions: &[Expr]) -> Result<Rel> {
        let (mut cheap, mut dear) = (Vec::new(), Vec::new());
        for condition in conditions {
            let heavy = uses_heavy(&rel, schema, std::slice::from_ref(condition), 0)?;
            if heavy { dear.push(condition) } else { cheap.push(condition) }
        }
        for condition in cheap {
            let resolved = rel.resolve(schema, condition)?;
            rel.filter.push(resolved);
        }
        rel = self.limit_numbered(rel)?;
        if !dear.is_empty() {
            rel = self.settled(rel, schema)?;
        }
        for condition in dear {
            let resolved = rel.resolve(schema, condition)?;
            rel.filter.push(resolved);
        }
        Ok(rel)
    }

    /// Makes a node when some expensive column would be computed more often than `allowed`.
    pub(super) fn settle_heavy(&mut self, rel: Rel, schema: &DFSchema, exprs: &[Expr], allowed: usize) -> Result<Rel> {
        if uses_heavy(&rel, schema, exprs, allowed)? { self.settled(rel, schema) } else { Ok(rel) }
    }

    /// The same rows with a node as their base.
    pub(super) fn settled(&mut self, rel: Rel, schema: &DFSchema) -> Result<Rel> {
        let types: Vec<_> = rel.exprs.iter().map(|e| e.get_type(&rel.columns)).collect::<Result<_>>()?;
        let names: Vec<_> = schema.fields().iter().map(|f| f.name().clone()).collect();
        let exprs = rel.exprs.clone();
        let node = self.node_of(rel, exprs, &names)?;
        let mut settled = self.rel_of(node)?;
        settled.exprs = types.iter().enumerate().map(|(i, t)| column_as(&settled.columns, i, t)).collect();
        Ok(settled)
    }

    /// All columns of a node.
    pub(super) fn rel_of(&self, node: NodeId) -> Result<Rel> {
        let schema = &self.nodes[node].schema;
        let columns = unique_columns(schema.fields().iter().map(|f| (f.name().as_str(), f.data_type().clone())))?;
        Ok(Rel::new(Base::Node(node), columns))
    }

    /// A node that gives exactly `exprs`, which are over the base's columns, for the rows that pass.
    pub(super) fn node_of(&mut self, rel: Rel, exprs: Vec<Expr>, names: &[String]) -> Result<NodeId> {
        let none = exprs.is_empty();
        let (node, columns, filter, exprs) = self.settle(rel, exprs)?;
        if none {
            return self.map_node(node, &columns, &filter, &[], names);
        }
        if filter.is_empty() && is_identity(&exprs, &columns) {
            return Ok(node);
        }
        self.map_node(node, &columns, &filter, &exprs, names)
    }

    /// A node that gives at least `exprs`, and where each of them is.
    pub(super) fn node_with(&mut self, rel: Rel, exprs: Vec<Expr>, names: &[String]) -> Result<(NodeId, Vec<usize>)> {
        let (mut distinct, mut distinct_names, mut places): (Vec<Expr>, Vec<String>, Vec<usize>) = Default::default();
        for (i, expr) in exprs.into_iter().enumerate() {
            let expr = plain(expr, &rel.columns);
            places.push(distinct.iter().position(|e| *e == expr).unwrap_or_else(|| {
                distinct.push(expr);
                distinct_names.push(names.get(i).cloned().unwrap_or_default());
                distinct.len() - 1
            }));
        }
        let (node, columns, filter, distinct) = self.settle(rel, distinct)?;
        let indices: Option<Vec<usize>> = distinct.iter().map(|e| index_in(e, &columns)).collect();
        if let Some(indices) = indices
            && filter.is_empty()
            && indices.len() == columns.fields().len()
        {
            return Ok((node, places.into_iter().map(|p| indices[p]).collect()));
        }
        Ok((self.map_node(node, &columns, &filter, &distinct, &distinct_names)?, places))
    }

    /// Makes a node of the base, now that it is known what is needed of it.
    fn settle(&mut self, rel: Rel, mut exprs: Vec<Expr>) -> Result<(NodeId, DFSchemaRef, Vec<Expr>, Vec<Expr>)> {
        if exprs.is_empty() {
            // Rows without columns would be hard to tell apart from no rows.
            exprs.extend(self.some_column(&rel));
        }
        let filters = rel.filter.len();
        let all: Vec<Expr> = exprs.into_iter().chain(rel.filter).map(|e| plain(e, &rel.columns)).collect();
        let (node, columns, mut all) = match rel.base {
            Base::Node(node) => (node, rel.columns, all),
            Base::Scan(relation) => self.scan_node(&relation, &rel.columns, all)?,
            Base::Join(join) => self.join_node(*join, &rel.columns, all)?,
            Base::Numbered(numbered) => self.numbered_node(*numbered, &rel.columns, all)?,
            Base::Session(session) => self.session_rows(*session, &rel.columns, all)?,
        };
        let filter = all.split_off(all.len() - filters);
        Ok((node, columns, filter, all))
    }

    /// A column that is cheap to carry.
    fn some_column(&self, rel: &Rel) -> Option<Expr> {
        let used = rel.filter.iter().flat_map(|f| f.column_refs()).next();
        let fields = rel.columns.fields();
        let narrow = || fields.iter().position(|f| f.data_type().is_primitive());
        match used {
            Some(column) if !matches!(self.type_in(rel, column), Some(DataType::Struct(_))) => {
                Some(Expr::Column(column.clone()))
            }
            _ => (!fields.is_empty()).then(|| column_at(&rel.columns, narrow().unwrap_or(0))),
        }
    }

    fn type_in(&self, rel: &Rel, column: &Column) -> Option<DataType> {
        rel.columns.maybe_index_of_column(column).map(|i| rel.columns.field(i).data_type().clone())
    }

    pub(super) fn map_node(
        &mut self,
        input: NodeId,
        columns: &DFSchema,
        filter: &[Expr],
        exprs: &[Expr],
        names: &[String],
    ) -> Result<NodeId> {
        let (input, columns, filter, exprs) = self.share_work(input, columns, filter, exprs)?;
        let (columns, filter, exprs) = (columns.as_ref(), filter.as_ref(), exprs.as_ref());
        let filter = match conjunction(filter) {
            Some(condition) => Some(BatchScalar::compile(self.session(), &condition, columns)?),
            None => None,
        };
        let mut project = Vec::new();
        let mut fields = Vec::new();
        for (i, expr) in exprs.iter().enumerate() {
            let name = names.get(i).cloned().unwrap_or_else(|| label(expr));
            let (output, data_type) = match index_in(expr, columns) {
                Some(index) => (Output::Column(index), columns.field(index).data_type().clone()),
                None => {
                    let scalar = BatchScalar::compile(self.session(), expr, columns)?;
                    let data_type = scalar.data_type().clone();
                    (Output::Scalar(scalar), data_type)
                }
            };
            project.push(output);
            fields.push((name, data_type));
        }
        let schema = node_schema(fields.iter().map(|(n, t)| (n.as_str(), t.clone())))?;
        let bounds = self.map_bounds(input, columns, exprs);
        let append_only = self.nodes[input].append_only;
        let edge = Edge { from: input, route: Route::Local };
        Ok(self.push(Op::Map(MapPlan { filter, project }), vec![edge], schema, append_only, bounds))
    }

    fn map_bounds(&self, input: NodeId, columns: &DFSchema, exprs: &[Expr]) -> Vec<Bound> {
        let known = &self.nodes[input].bounds;
        let of = |expr: &Expr| {
            let (column, more) = expr_offset(expr, columns)?;
            let bound = known.iter().find(|b| b.column == column)?;
            bound.offset.checked_add(more)
        };
        exprs.iter().enumerate().filter_map(|(column, e)| Some(Bound { column, offset: of(e)? })).collect()
    }
}

/// A node's schema: names made unique, everything nullable.
pub(super) fn node_schema<'a>(fields: impl IntoIterator<Item = (&'a str, DataType)>) -> Result<SchemaRef> {
    Ok(unique_columns(fields)?.inner().clone())
}

fn index_in(expr: &Expr, columns: &DFSchema) -> Option<usize> {
    match expr {
        Expr::Column(column) => columns.maybe_index_of_column(column),
        _ => None,
    }
}

fn is_identity(exprs: &[Expr], columns: &DFSchema) -> bool {
    exprs.len() == columns.fields().len() && exprs.iter().enumerate().all(|(i, e)| index_in(e, columns) == Some(i))
}
