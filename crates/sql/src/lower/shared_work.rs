//! Work that a filter and the columns behind it have in common.
//!
//! A function that a condition calls for every row, and that the columns above call again, is computed once,
//! in a node before the condition (and after those before it). Only what the condition computes for every row anyway is moved there:
//! what stands behind `AND`, `OR` or in a `CASE` may be there to keep it from being computed.

use std::borrow::Cow;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DFSchemaRef, Result};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator};
use tidemill_plan::NodeId;

use super::Lower;
use super::rel::{column_as, column_at, is_heavy};
use crate::label::label;

/// A node, its columns, and the filter and columns to be computed over it.
type Shared<'a> = (NodeId, Cow<'a, DFSchema>, Cow<'a, [Expr]>, Cow<'a, [Expr]>);

impl Lower<'_> {
    /// Puts a node that computes the common work behind `input`, if there is such work.
    pub(super) fn share_work<'a>(
        &mut self,
        input: NodeId,
        columns: &'a DFSchema,
        filter: &'a [Expr],
        exprs: &'a [Expr],
    ) -> Result<Shared<'a>> {
        let first =
            (0..filter.len()).map(|i| (i, common_calls(&filter[i], exprs))).find(|(_, calls)| !calls.is_empty());
        let Some((before, common)) = first else {
            return Ok((input, Cow::Borrowed(columns), Cow::Borrowed(filter), Cow::Borrowed(exprs)));
        };
        let input = self.passing(input, columns, &filter[..before])?;
        let filter = &filter[before..];
        let width = columns.fields().len();
        let mut names: Vec<String> = columns.fields().iter().map(|f| f.name().clone()).collect();
        names.extend(common.iter().map(label));
        let mut all: Vec<Expr> = (0..width).map(|i| column_at(columns, i)).collect();
        all.extend(common.iter().cloned());
        let node = self.map_node(input, columns, &[], &all, &names)?;
        let shared: DFSchemaRef = self.rel_of(node)?.columns;
        let mut known: Vec<(Expr, Expr)> = Vec::new();
        for (i, call) in common.into_iter().enumerate() {
            let data_type = call.get_type(columns)?;
            known.push((call, column_as(&shared, width + i, &data_type)));
        }
        let place = |expr: &Expr| replace(expr, columns, &shared, &known);
        let filter = filter.iter().map(place).collect::<Result<Vec<_>>>()?;
        let exprs = exprs.iter().map(place).collect::<Result<Vec<_>>>()?;
        Ok((node, Cow::Owned(shared.as_ref().clone()), Cow::Owned(filter), Cow::Owned(exprs)))
    }

    /// The same columns of the rows that meet the conditions.
    fn passing(&mut self, input: NodeId, columns: &DFSchema, conditions: &[Expr]) -> Result<NodeId> {
        if conditions.is_empty() {
            return Ok(input);
        }
        let names: Vec<String> = columns.fields().iter().map(|f| f.name().clone()).collect();
        let all: Vec<Expr> = (0..names.len()).map(|i| column_at(columns, i)).collect();
        self.map_node(input, columns, conditions, &all, &names)
    }
}

/// An expression over the old columns as one over the new, with what is known taken from there.
fn replace(expr: &Expr, columns: &DFSchema, shared: &DFSchema, known: &[(Expr, Expr)]) -> Result<Expr> {
    let replaced = expr.clone().transform_down(|expr| {
        if let Some((_, column)) = known.iter().find(|(call, _)| *call == expr) {
            return Ok(Transformed::new(column.clone(), true, TreeNodeRecursion::Jump));
        }
        match &expr {
            Expr::Column(column) => Ok(Transformed::yes(column_at(shared, columns.index_of_column(column)?))),
            _ => Ok(Transformed::no(expr)),
        }
    })?;
    Ok(replaced.data)
}

/// The function calls that a condition makes for every row and some column makes too.
fn common_calls(condition: &Expr, exprs: &[Expr]) -> Vec<Expr> {
    let mut common = Vec::new();
    calls_for_every_row(condition, &mut |call| {
        let used = exprs.iter().any(|expr| expr.exists(|e| Ok(e == call)).unwrap_or(false));
        if used && !common.contains(call) {
            common.push(call.clone());
        }
        used
    });
    common
}

/// Visits the calls that are made whatever the values are; what is below a call that is taken is left out.
fn calls_for_every_row(expr: &Expr, take: &mut impl FnMut(&Expr) -> bool) {
    match expr {
        Expr::ScalarFunction(call) if is_heavy(expr) && !call.func.short_circuits() && !take(expr) => {
            call.args.iter().for_each(|arg| calls_for_every_row(arg, take));
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And | Operator::Or, .. }) => calls_for_every_row(left, take),
        Expr::BinaryExpr(BinaryExpr { left, right, .. }) => {
            calls_for_every_row(left, take);
            calls_for_every_row(right, take);
        }
        Expr::Not(inner) | Expr::IsNull(inner) | Expr::IsNotNull(inner) | Expr::Negative(inner) => {
            calls_for_every_row(inner, take);
        }
        Expr::Cast(cast) => calls_for_every_row(&cast.expr, take),
        Expr::InList(list) => calls_for_every_row(&list.expr, take),
        Expr::Like(like) => calls_for_every_row(&like.expr, take),
        _ => {}
    }
}
