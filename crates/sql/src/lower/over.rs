//! `OVER`: window functions.
//!
//! `row_number()` with a condition on it is a top-n, which has an operator; everything else recomputes
//! the partitions that change.

use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, DFSchemaRef, Result, ScalarValue};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator, Window, WindowFunctionDefinition};
use tidemill_plan::{Bound, Edge, NodeId, Op, OrderBy, Route, TopNPlan};

use super::aggregate::closing;
use super::rel::{Base, Rel, column_as, column_at, node_schema, unalias, unique_columns};
use super::{Lower, internal};
use crate::label::label;
use crate::ties::settle_window;

/// Rows with their row numbers.
#[derive(Clone)]
pub(super) struct Numbered {
    /// The node with the plan's columns, followed by what partitions and orders.
    input: NodeId,
    /// How many columns the plan's input has.
    width: usize,
    partition: Vec<usize>,
    order: Vec<OrderBy>,
    /// The highest number wanted, once it is known.
    limit: Option<usize>,
    plan: LogicalPlan,
}

impl Lower<'_> {
    /// Window functions.
    pub(super) fn over(&mut self, plan: &LogicalPlan, window: &Window) -> Result<Rel> {
        let functions: Vec<_> = window.window_expr.iter().map(window_function).collect::<Result<_>>()?;
        let schema = window.input.schema();
        let rel = self.lower(&window.input)?;
        let used: Vec<_> = window.window_expr.clone();
        let rel = self.settle_heavy(rel, schema, &used, 0)?;
        let mut exprs = rel.exprs.clone();
        let mut names: Vec<_> = schema.fields().iter().map(|f| f.name().clone()).collect();
        let width = exprs.len();
        let mut place = |expr: &Expr| -> Result<usize> {
            let expr = rel.resolve(schema, expr)?;
            Ok(exprs.iter().position(|e| *e == expr).unwrap_or_else(|| {
                names.push(label(&expr));
                exprs.push(expr);
                exprs.len() - 1
            }))
        };
        let mut partition = Vec::new();
        for expr in common_partition(&functions) {
            partition.push(place(expr)?);
        }
        partition.sort_unstable();
        partition.dedup();
        if let [function] = functions.as_slice()
            && is_row_number(function)
        {
            let order = function.params.order_by.iter().map(|sort| {
                let options = SortOptions { descending: !sort.asc, nulls_first: sort.nulls_first };
                Ok(OrderBy { column: place(&sort.expr)?, options })
            });
            let order = order.collect::<Result<Vec<_>>>()?;
            let input = self.node_of(rel, exprs, &names)?;
            return self.numbered(Numbered { input, width, partition, order, limit: None, plan: plan.clone() });
        }
        let input = self.node_of(rel, exprs, &names)?;
        let names = functions.iter().map(|f| f.fun.name().to_string()).collect::<Vec<_>>().join(", ");
        let plan = &settle_window(window)?;
        let node = self.recompute(plan, vec![(input, partition)], &format!("{names} over the partition"), None)?;
        self.rel_as(node, plan.schema())
    }

    fn numbered(&mut self, numbered: Numbered) -> Result<Rel> {
        let fields = self.nodes[numbered.input].schema.fields();
        let fields = fields.iter().map(|f| (f.name().as_str(), f.data_type().clone()));
        let columns = unique_columns(fields.chain([("row_number", DataType::UInt64)]))?;
        let number = columns.fields().len() - 1;
        let schema = numbered.plan.schema().clone();
        let place = |i: usize| if i < numbered.width { i } else { number };
        let exprs = schema.fields().iter().enumerate();
        let exprs = exprs.map(|(i, field)| column_as(&columns, place(i), field.data_type())).collect();
        Ok(Rel { base: Base::Numbered(Box::new(numbered)), columns, filter: Vec::new(), exprs })
    }

    /// Turns conditions on the row number into a limit.
    pub(super) fn limit_numbered(&mut self, mut rel: Rel) -> Result<Rel> {
        let Base::Numbered(numbered) = &mut rel.base else { return Ok(rel) };
        let number = column_at(&rel.columns, rel.columns.fields().len() - 1);
        if numbered.limit.is_some() {
            return Ok(rel);
        }
        let highest = |condition: &Expr| Some(highest(condition, &number)?.0).filter(|limit| *limit > 0);
        let Some(limit) = rel.filter.iter().filter_map(highest).min() else { return Ok(rel) };
        numbered.limit = Some(limit);
        // `<= n` is what the limit says; `= n` says more.
        rel.filter.retain(|condition| self::highest(condition, &number) != Some((limit, true)));
        Ok(rel)
    }

    /// Makes the node, now that it is known whether numbers are wanted.
    pub(super) fn numbered_node(
        &mut self,
        numbered: Numbered,
        columns: &DFSchemaRef,
        exprs: Vec<Expr>,
    ) -> Result<(NodeId, DFSchemaRef, Vec<Expr>)> {
        let last = columns.fields().len() - 1;
        let Some(limit) = numbered.limit else {
            let kept: Vec<_> = (0..numbered.width).chain([last]).map(|i| columns.field(i).name().clone()).collect();
            let inputs = vec![(numbered.input, numbered.partition)];
            let plan = match &numbered.plan {
                LogicalPlan::Window(window) => settle_window(window)?,
                other => other.clone(),
            };
            let node = self.recompute(&plan, inputs, "row_number over the partition", Some(&kept))?;
            return Ok((node, self.rel_of(node)?.columns, exprs));
        };
        let number = column_at(columns, last);
        let used = exprs.iter().any(|e| e.column_refs().into_iter().any(|c| Expr::Column(c.clone()) == number));
        let top = TopNPlan {
            partition: numbered.partition,
            order: numbered.order,
            offset: 0,
            limit,
            number: used,
            append_only: false,
            closes: None,
        };
        let node = self.top_node(numbered.input, top, columns)?;
        Ok((node, self.rel_of(node)?.columns, exprs))
    }

    /// A top-n; what depends on its input is filled in. `columns` are its output's, with the number.
    pub(super) fn top_node(&mut self, input: NodeId, top: TopNPlan, columns: &DFSchema) -> Result<NodeId> {
        let node = &self.nodes[input];
        let bounds: Vec<Bound> = node.bounds.iter().filter(|b| top.partition.contains(&b.column)).copied().collect();
        let top = TopNPlan { append_only: node.append_only, closes: closing(&top.partition, &node.bounds), ..top };
        let width = node.schema.fields().len() + usize::from(top.number);
        let fields = columns.fields().iter().take(width);
        let schema = node_schema(fields.map(|f| (f.name().as_str(), f.data_type().clone())))?;
        let route = if top.partition.is_empty() { Route::Gather } else { Route::Hash(top.partition.clone()) };
        Ok(self.push(Op::TopN(top), vec![Edge { from: input, route }], schema, false, bounds))
    }
}

fn window_function(expr: &Expr) -> Result<WindowFunction> {
    match unalias(expr.clone()) {
        Expr::WindowFunction(function) => Ok(*function),
        other => Err(internal(format!("{other} is no window function"))),
    }
}

fn is_row_number(function: &WindowFunction) -> bool {
    matches!(&function.fun, WindowFunctionDefinition::WindowUDF(f) if f.name() == "row_number")
}

/// What all functions partition by: rows that differ in it never meet.
fn common_partition(functions: &[WindowFunction]) -> Vec<&Expr> {
    let Some((first, others)) = functions.split_first() else { return Vec::new() };
    let shared = |expr: &&Expr| others.iter().all(|f| f.params.partition_by.contains(expr));
    first.params.partition_by.iter().filter(shared).collect()
}

/// The highest number that meets a condition of the form `number <= n`, and whether all up to it do.
fn highest(condition: &Expr, number: &Expr) -> Option<(usize, bool)> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else { return None };
    let (op, value) = match (is_number(left, number), is_number(right, number)) {
        (true, false) => (*op, whole(right)?),
        (false, true) => (op.swap()?, whole(left)?),
        _ => return None,
    };
    match op {
        Operator::LtEq => Some((usize::try_from(value).ok()?, true)),
        Operator::Lt => Some((usize::try_from(value.checked_sub(1)?).ok()?, true)),
        Operator::Eq if value == 1 => Some((1, true)),
        Operator::Eq => Some((usize::try_from(value).ok()?, false)),
        _ => None,
    }
}

fn is_number(expr: &Expr, number: &Expr) -> bool {
    match expr {
        Expr::Cast(cast) => is_number(&cast.expr, number),
        other => other == number,
    }
}

fn whole(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Literal(ScalarValue::UInt64(Some(n)), _) => i64::try_from(*n).ok(),
        Expr::Literal(ScalarValue::Int64(Some(n)), _) => Some(*n),
        Expr::Literal(ScalarValue::Int32(Some(n)), _) => Some(i64::from(*n)),
        _ => None,
    }
}
