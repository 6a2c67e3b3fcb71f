//! What SQL leaves open, decided by content: which of several rows that tie under an `ORDER BY` come first, and the
//! order inside `array_agg` and its like.
//!
//! A view decides such things by the rows' content, so that its answer depends on nothing else. Done to a batch too,
//! both have the same answer.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{AggregateFunction, WindowFunction};
use datafusion::logical_expr::{
    Aggregate, Expr, ExprSchemable, Limit, LogicalPlan, Projection, Sort, SortExpr, SubqueryAlias, Window, WindowFrame,
    WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition,
};

/// Decides everything in an optimised plan.
pub(crate) fn settle(plan: LogicalPlan) -> Result<LogicalPlan> {
    let settled = plan.transform_up_with_subqueries(|plan| {
        Ok(Transformed::yes(match plan {
            LogicalPlan::Limit(limit) => {
                let input = Arc::new(sorted(Arc::unwrap_or_clone(limit.input))?);
                LogicalPlan::Limit(Limit { input, ..limit })
            }
            LogicalPlan::Sort(sort) if sort.fetch.is_some() => LogicalPlan::Sort(sort_further(sort)),
            LogicalPlan::Window(window) => settle_window(&window)?,
            LogicalPlan::Aggregate(aggregate) => settle_aggregate(aggregate)?,
            other => return Ok(Transformed::no(other)),
        }))
    })?;
    Ok(settled.data)
}

/// Decides, in an optimised plan, only which rows come first to window functions: that costs next to nothing.
pub(crate) fn settle_windows(plan: LogicalPlan) -> Result<LogicalPlan> {
    let settled = plan.transform_up_with_subqueries(|plan| match &plan {
        LogicalPlan::Window(window) => Ok(Transformed::yes(settle_window(window)?)),
        _ => Ok(Transformed::no(plan)),
    })?;
    Ok(settled.data)
}

/// What stands below a limit, in an order without ties.
fn sorted(plan: LogicalPlan) -> Result<LogicalPlan> {
    Ok(match plan {
        LogicalPlan::Projection(Projection { expr, input, schema, .. }) => {
            let input = Arc::new(sorted(Arc::unwrap_or_clone(input))?);
            LogicalPlan::Projection(Projection::try_new_with_schema(expr, input, schema)?)
        }
        LogicalPlan::SubqueryAlias(SubqueryAlias { input, alias, .. }) => {
            let input = Arc::new(sorted(Arc::unwrap_or_clone(input))?);
            LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(input, alias)?)
        }
        LogicalPlan::Sort(sort) => LogicalPlan::Sort(sort_further(sort)),
        other => {
            let expr = by_content(other.schema());
            match expr.is_empty() {
                true => other,
                false => LogicalPlan::Sort(Sort { expr, input: Arc::new(other), fetch: None }),
            }
        }
    })
}

fn sort_further(sort: Sort) -> Sort {
    let mut expr = sort.expr;
    append(&mut expr, by_content(sort.input.schema()));
    Sort { expr, ..sort }
}

/// Sort keys that are not there yet.
fn append(order: &mut Vec<SortExpr>, more: Vec<SortExpr>) {
    for key in more {
        if order.iter().all(|own| own.expr != key.expr) {
            order.push(key);
        }
    }
}

/// All columns, ascending, NULLs first, as operators compare rows that tie.
fn by_content(schema: &DFSchema) -> Vec<SortExpr> {
    let columns = schema.iter().filter(|(_, field)| !field.data_type().is_nested());
    columns.map(|(qualifier, field)| ascending(Expr::Column(Column::from((qualifier, field))))).collect()
}

fn ascending(expr: Expr) -> SortExpr {
    SortExpr { expr, asc: true, nulls_first: true }
}

/// Window functions that look at single rows get an order without ties, in a node of their own: functions in one node
/// share an order.
pub(crate) fn settle_window(window: &Window) -> Result<LogicalPlan> {
    let content = by_content(window.input.schema());
    let (mut of_peers, mut of_rows) = (Vec::new(), Vec::new());
    for expr in &window.window_expr {
        let (function, name) = match expr {
            Expr::Alias(alias) => (alias.expr.as_ref(), alias.name.clone()),
            other => (other, other.schema_name().to_string()),
        };
        match function {
            Expr::WindowFunction(function) if looks_at_rows(function) => {
                let mut function = function.clone();
                if function.params.window_frame.units != WindowFrameUnits::Rows {
                    // Up to the row itself will do, where only the partition's first row counts, or none.
                    let start = WindowFrameBound::Preceding(ScalarValue::UInt64(None));
                    let end = WindowFrameBound::CurrentRow;
                    function.params.window_frame = WindowFrame::new_bounds(WindowFrameUnits::Rows, start, end);
                }
                append(&mut function.params.order_by, content.clone());
                of_rows.push(Expr::WindowFunction(function).alias(name));
            }
            _ => of_peers.push(expr.clone()),
        }
    }
    if of_rows.is_empty() || of_peers.is_empty() {
        let exprs = if of_rows.is_empty() { of_peers } else { of_rows };
        return Ok(LogicalPlan::Window(Window::try_new(exprs, window.input.clone())?));
    }
    let below = LogicalPlan::Window(Window::try_new(of_peers, window.input.clone())?);
    let above = LogicalPlan::Window(Window::try_new(of_rows, Arc::new(below))?);
    let columns = window.schema.iter().map(|column| Expr::Column(Column::from(column)));
    Ok(LogicalPlan::Projection(Projection::try_new(columns.collect(), Arc::new(above))?))
}

/// Whether rows that tie are told apart, so that a finer order changes nothing but the ties.
fn looks_at_rows(function: &WindowFunction) -> bool {
    let frame = &function.params.window_frame;
    let by_rows = frame.units == WindowFrameUnits::Rows;
    // The partition's first row, whichever rows follow up to the current one.
    let first_of_all = frame.start_bound.is_unbounded()
        && matches!(frame.end_bound, WindowFrameBound::CurrentRow | WindowFrameBound::Following(_));
    match &function.fun {
        WindowFunctionDefinition::WindowUDF(own) => match own.name() {
            "row_number" | "lag" | "lead" | "ntile" => true,
            "first_value" => by_rows || first_of_all,
            "last_value" | "nth_value" => by_rows,
            _ => false,
        },
        WindowFunctionDefinition::AggregateUDF(_) => by_rows,
    }
}

fn settle_aggregate(aggregate: Aggregate) -> Result<LogicalPlan> {
    let schema = aggregate.input.schema();
    let exprs = aggregate.aggr_expr.iter().map(|expr| {
        let (call, name) = match expr {
            Expr::Alias(alias) => (alias.expr.as_ref(), alias.name.clone()),
            other => (other, other.schema_name().to_string()),
        };
        let Expr::AggregateFunction(call) = call else { return Ok(expr.clone()) };
        let types = call.params.args.iter().map(|arg| arg.get_type(schema)).collect::<Result<Vec<_>>>()?;
        let order = argument_order(call, &call.params.args, &types);
        if order.is_empty() {
            return Ok(expr.clone());
        }
        let mut call = call.clone();
        append(&mut call.params.order_by, order);
        Ok(Expr::AggregateFunction(call).alias(name))
    });
    let exprs = exprs.collect::<Result<Vec<_>>>()?;
    Ok(LogicalPlan::Aggregate(Aggregate::try_new(aggregate.input, aggregate.group_expr, exprs)?))
}

/// What to order the rows of an aggregate by where its `ORDER BY` leaves ties: the arguments themselves.
pub(crate) fn argument_order(call: &AggregateFunction, args: &[Expr], types: &[DataType]) -> Vec<SortExpr> {
    let ordered = matches!(call.func.name(), "array_agg" | "string_agg" | "first_value" | "last_value" | "nth_value");
    if !ordered || (call.params.distinct && !call.params.order_by.is_empty()) {
        return Vec::new();
    }
    let sortable = args.iter().zip(types).filter(|(arg, t)| !matches!(arg, Expr::Literal(..)) && !t.is_nested());
    sortable.map(|(arg, _)| ascending(arg.clone())).collect()
}
