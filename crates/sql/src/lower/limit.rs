//! `ORDER BY ... LIMIT`.

use arrow::compute::SortOptions;
use datafusion::common::Result;
use datafusion::logical_expr::{FetchType, LogicalPlan, SkipType, SortExpr};
use tidemill_plan::{OrderBy, TopNPlan};

use super::Lower;
use super::rel::{Rel, column_as, unique_columns};
use crate::Notice;
use crate::SqlError;
use crate::label::label;
use crate::provider::external;

/// "All rows": no collection gets there, and sums with an offset do not overflow.
const NO_LIMIT: usize = usize::MAX / 4;

impl Lower<'_> {
    /// A limit, or a sort with one.
    pub(super) fn limit(&mut self, plan: &LogicalPlan) -> Result<Rel> {
        match plan {
            LogicalPlan::Limit(limit) => {
                let (SkipType::Literal(skip), FetchType::Literal(fetch)) =
                    (limit.get_skip_type()?, limit.get_fetch_type()?)
                else {
                    let error = SqlError::not_supported("LIMIT and OFFSET of a view must be constants");
                    return Err(external(error));
                };
                self.limited(&limit.input, skip, fetch.unwrap_or(NO_LIMIT))
            }
            LogicalPlan::Sort(sort) => self.limited(plan, 0, sort.fetch.unwrap_or(NO_LIMIT)),
            other => self.lower(other),
        }
    }

    /// Some of a plan's rows, in the order of the sort that is next below it.
    fn limited(&mut self, plan: &LogicalPlan, skip: usize, fetch: usize) -> Result<Rel> {
        match plan {
            LogicalPlan::Projection(projection) => {
                let rel = self.limited(&projection.input, skip, fetch)?;
                self.project(rel, projection.input.schema(), &projection.expr)
            }
            LogicalPlan::SubqueryAlias(alias) => self.limited(&alias.input, skip, fetch),
            LogicalPlan::Sort(sort) => {
                let fetch = sort.fetch.map_or(fetch, |own| fetch.min(own.saturating_sub(skip)));
                self.first(&sort.input, &sort.expr, skip, fetch)
            }
            other => self.first(other, &[], skip, fetch),
        }
    }

    fn first(&mut self, input: &LogicalPlan, sort: &[SortExpr], offset: usize, limit: usize) -> Result<Rel> {
        let schema = input.schema();
        let rel = self.lower(input)?;
        let used: Vec<_> = sort.iter().map(|s| s.expr.clone()).collect();
        let rel = self.settle_heavy(rel, schema, &used, 0)?;
        let mut exprs = rel.exprs.clone();
        let mut names: Vec<_> = schema.fields().iter().map(|f| f.name().clone()).collect();
        let mut order = Vec::new();
        for by in sort {
            let expr = rel.resolve(schema, &by.expr)?;
            let column = exprs.iter().position(|e| *e == expr).unwrap_or_else(|| {
                names.push(label(&expr));
                exprs.push(expr);
                exprs.len() - 1
            });
            order.push(OrderBy { column, options: SortOptions { descending: !by.asc, nulls_first: by.nulls_first } });
        }
        let node = self.node_of(rel, exprs, &names)?;
        let fields = self.nodes[node].schema.fields();
        let columns = unique_columns(fields.iter().map(|f| (f.name().as_str(), f.data_type().clone())))?;
        let partition = Vec::new();
        let top =
            TopNPlan { partition, order, offset, limit, ties: false, number: false, append_only: false, closes: None };
        let node = self.top_node(node, top, &columns)?;
        let mut rel = self.rel_of(node)?;
        rel.exprs =
            schema.fields().iter().enumerate().map(|(i, f)| column_as(&rel.columns, i, f.data_type())).collect();
        Ok(rel)
    }

    /// Says that a sort without limit at the top of a view has no effect.
    pub(super) fn note_final_sort(&mut self, plan: &LogicalPlan) {
        match plan {
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => self.notices.push(Notice {
                message: "ORDER BY without LIMIT has no effect in a view".into(),
                hint: Some("Order when you read it: SELECT ... FROM view ORDER BY ...".into()),
            }),
            LogicalPlan::Projection(projection) => self.note_final_sort(&projection.input),
            _ => {}
        }
    }
}
