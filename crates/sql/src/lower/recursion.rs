//! `WITH RECURSIVE` as a loop.
//!
//! The recursive term must be linear in the rows of the round before: it reads them once, through filters, projections and
//! the side of a join that every row comes from, as PostgreSQL asks for too. Then each row that it makes can say in which
//! round the row was that it is made of: a column more, passed on from the scan of the working table to the term's
//! own columns. Any other term is recomputed.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Column, DFSchema, DFSchemaRef, JoinType, Result};
use datafusion::datasource::cte_worktable::CteWorkTable;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{
    Distinct, Expr, Filter, Join, LogicalPlan, Projection, RecursiveQuery, SubqueryAlias, TableScan,
};
use tidemill_plan::{Edge, Op, RecursionPlan, Route};

use super::Lower;
use super::fallback::given;
use super::rel::{Rel, cast_to, column_as, node_schema};
use crate::scalar::storage_type;

/// The name of the column that says which round a row belongs to.
const ROUND: &str = "__round";

impl Lower<'_> {
    /// `WITH RECURSIVE`.
    pub(super) fn recursive(&mut self, plan: &LogicalPlan, query: &RecursiveQuery) -> Result<Rel> {
        let leaf = self.loops.len();
        let Some(term) = (Term { query, leaf }).with_rounds()? else {
            return self.recompute_scans(plan);
        };
        // The base may be a recursion too.
        self.loops.push(None);
        let fields = query.schema.fields();
        let names: Vec<String> = fields.iter().map(|f| f.name().clone()).collect();
        let columns = fields.iter().map(|f| (f.name().as_str(), storage_type(f.data_type())));
        let columns: Vec<_> = columns.collect();
        let base = self.lower(&query.static_term)?;
        let exprs = cast_to(&base, &query.schema)?;
        let base = self.node_of(base, exprs, &names)?;
        let all: Vec<usize> = (0..columns.len()).collect();
        let schema = node_schema(columns.iter().cloned().chain([(ROUND, DataType::Int64)]))?;
        let edge = |from| Edge { from, route: Route::Hash(all.clone()) };
        let op = Op::Recursion(RecursionPlan { distinct: query.is_distinct });
        let head = self.push(op, vec![edge(base)], schema, false, Vec::new());
        let mut rows = self.rel_of(head)?;
        let planned = fields.iter().map(|f| f.data_type().clone()).chain([DataType::Int64]);
        rows.exprs = planned.enumerate().map(|(i, data_type)| column_as(&rows.columns, i, &data_type)).collect();
        self.loops[leaf] = Some(rows);
        let term = self.lower(&term)?;
        let mut exprs = cast_to(&term, &query.schema)?;
        exprs.extend(term.exprs.last().cloned());
        let mut names = names;
        names.push(ROUND.into());
        let term = self.node_of(term, exprs, &names)?;
        self.nodes[head].inputs.push(edge(term));
        let edge = Edge { from: head, route: Route::Local };
        let node = self.push(Op::Fixpoint, vec![edge], node_schema(columns)?, false, Vec::new());
        self.rel_as(node, plan.schema())
    }
}

/// A recursive term on its way to one that tells rounds.
struct Term<'a> {
    query: &'a RecursiveQuery,
    /// The number of the leaf that stands for the loop's rows.
    leaf: usize,
}

impl Term<'_> {
    /// The term with the round as its last column, if it is linear.
    fn with_rounds(&self) -> Result<Option<LogicalPlan>> {
        let term = &self.query.recursive_term;
        let Some(plan) = self.passing_on(term)? else { return Ok(None) };
        let mut columns: Vec<Expr> = term.schema().columns().into_iter().map(Expr::Column).collect();
        columns.push(round_of(plan.schema())?);
        Ok(Some(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(plan))?)))
    }

    /// The scan of the working table, which may pick columns.
    fn reads(&self, scan: &TableScan) -> bool {
        let provider = source_as_provider(&scan.source);
        provider.is_ok_and(|provider| provider.is::<CteWorkTable>()) && scan.table_name.table() == self.query.name
    }

    /// Whether a plan depends on the rows of the round before.
    fn uses(&self, plan: &LogicalPlan) -> Result<bool> {
        let mut found = false;
        plan.apply_with_subqueries(|plan| {
            found |= match plan {
                LogicalPlan::TableScan(scan) => self.reads(scan),
                // A recursion inside may have the same name.
                LogicalPlan::RecursiveQuery(other) => other.name == self.query.name,
                _ => false,
            };
            Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
        })?;
        Ok(found)
    }

    /// The same plan with the round among its columns, or nothing if it is not linear in the rows of the round before.
    fn passing_on(&self, plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
        match plan {
            LogicalPlan::TableScan(scan) if self.reads(scan) && scan.filters.is_empty() && scan.fetch.is_none() => {
                Ok(Some(self.leaf(scan)?))
            }
            LogicalPlan::Projection(projection) => self.projected(&projection.input, &projection.expr),
            LogicalPlan::Filter(filter) => {
                let Some(input) = self.passing_on(&filter.input)? else { return Ok(None) };
                Ok(Some(LogicalPlan::Filter(Filter::try_new(filter.predicate.clone(), Arc::new(input))?)))
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let Some(input) = self.passing_on(&alias.input)? else { return Ok(None) };
                let alias = SubqueryAlias::try_new(Arc::new(input), alias.alias.clone())?;
                Ok(Some(LogicalPlan::SubqueryAlias(alias)))
            }
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => self.passing_on(&sort.input),
            LogicalPlan::Repartition(repartition) => self.passing_on(&repartition.input),
            // Of `UNION`, a row comes once anyway.
            LogicalPlan::Distinct(Distinct::All(input)) if self.query.is_distinct => self.passing_on(input),
            LogicalPlan::Aggregate(aggregate) if self.query.is_distinct && aggregate.aggr_expr.is_empty() => {
                let sets = aggregate.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_)));
                if sets { Ok(None) } else { self.projected(&aggregate.input, &aggregate.group_expr) }
            }
            LogicalPlan::Join(join) => self.joined(join),
            _ => Ok(None),
        }
    }

    fn projected(&self, input: &LogicalPlan, exprs: &[Expr]) -> Result<Option<LogicalPlan>> {
        let Some(input) = self.passing_on(input)? else { return Ok(None) };
        let mut exprs = exprs.to_vec();
        exprs.push(round_of(input.schema())?);
        Ok(Some(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?)))
    }

    /// A join in which each row comes from one of the round before, on the one side that reads them.
    fn joined(&self, join: &Join) -> Result<Option<LogicalPlan>> {
        use JoinType::{Inner, Left, LeftAnti, LeftSemi, Right, RightAnti, RightSemi};
        let (left, right) = match (self.uses(&join.left)?, self.uses(&join.right)?, join.join_type) {
            (true, false, Inner | Left | LeftSemi | LeftAnti) if !join.null_aware => {
                (self.passing_on(&join.left)?.map(Arc::new), Some(join.right.clone()))
            }
            (false, true, Inner | Right | RightSemi | RightAnti) if !join.null_aware => {
                (Some(join.left.clone()), self.passing_on(&join.right)?.map(Arc::new))
            }
            _ => (None, None),
        };
        let (Some(left), Some(right)) = (left, right) else { return Ok(None) };
        let (on, filter) = (join.on.clone(), join.filter.clone());
        let (kind, constraint) = (join.join_type, join.join_constraint);
        let join = Join::try_new(left, right, on, filter, kind, constraint, join.null_equality, join.null_aware)?;
        Ok(Some(LogicalPlan::Join(join)))
    }

    /// The loop's rows, as the scan has them.
    fn leaf(&self, scan: &TableScan) -> Result<LogicalPlan> {
        let name = Some(scan.table_name.clone());
        let round = Arc::new(arrow::datatypes::Field::new(ROUND, DataType::Int64, false));
        let own =
            self.query.schema.fields().iter().zip(scan.source.schema().fields().iter().cloned().collect::<Vec<_>>());
        // The working table has the columns' names, the recursion their types.
        let own =
            own.map(|(field, named)| Arc::new(field.as_ref().clone().with_name(named.name()).with_nullable(true)));
        let fields = own.chain([round]).map(|field| (name.clone(), field)).collect();
        let schema: DFSchemaRef = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        let all = given(self.leaf, &schema);
        let Some(picked) = &scan.projection else { return Ok(all) };
        let picked = picked.iter().copied().chain([schema.fields().len() - 1]);
        let columns = schema.columns();
        let columns = picked.map(|i| Expr::Column(columns[i].clone())).collect();
        Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(all))?))
    }
}

/// The column that says the round.
fn round_of(schema: &DFSchema) -> Result<Expr> {
    let found = schema.iter().find(|(_, field)| field.name() == ROUND);
    let (qualifier, field) = found.ok_or_else(|| super::internal("the round of a recursion got lost"))?;
    Ok(Expr::Column(Column::from((qualifier, field))))
}
