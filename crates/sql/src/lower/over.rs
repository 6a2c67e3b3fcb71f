//! `OVER`: window functions.
//!
//! `row_number()` or `rank()` with a condition on it is a top-n. All others have an operator per partition and order, in a chain
//! in which each adds its columns; a few, for which there is none, recompute the partitions that change.

mod call;

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, DFSchemaRef, Result, ScalarValue};
use datafusion::logical_expr::expr::{Sort, WindowFunction};
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator, Window, WindowFunctionDefinition};
use tidemill_plan::{Bound, Edge, NodeId, Op, OrderBy, OverCall, OverPlan, Route, TopNPlan};

use super::aggregate::{Columns, closing};
use super::fallback::given;
use super::rel::{Base, Rel, column_as, column_at, node_schema, unalias, unique_columns};
use super::{Lower, internal};
use crate::label::label;
use crate::ties::settle_window;

/// Rows with their row numbers or ranks.
#[derive(Clone)]
pub(super) struct Numbered {
    /// The node with the plan's columns, followed by what partitions and orders.
    input: NodeId,
    /// How many columns the plan's input has.
    width: usize,
    partition: Vec<usize>,
    order: Vec<OrderBy>,
    /// `rank()` instead of `row_number()`.
    ties: bool,
    /// The highest number wanted, once it is known.
    limit: Option<usize>,
    plan: LogicalPlan,
}

/// Functions that share partition and order.
struct Group {
    partition: Vec<usize>,
    order: Vec<OrderBy>,
    calls: Vec<OverCall>,
    /// Which columns of the plan they are, counted from its input's on.
    places: Vec<usize>,
}

impl Lower<'_> {
    /// Window functions.
    pub(super) fn over(&mut self, plan: &LogicalPlan, window: &Window) -> Result<Rel> {
        let functions: Vec<_> = window.window_expr.iter().map(window_function).collect::<Result<_>>()?;
        let schema = window.input.schema();
        let rel = self.lower(&window.input)?;
        let used: Vec<_> = window.window_expr.clone();
        let rel = self.settle_heavy(rel, schema, &used, 0)?;
        let width = rel.exprs.len();
        let names = schema.fields().iter().map(|f| f.name().clone()).collect();
        let mut columns = Columns { exprs: rel.exprs.clone(), names };
        let mut groups: Option<Vec<Group>> = Some(Vec::new());
        for (i, function) in functions.iter().enumerate() {
            let data_type = plan.schema().field(width + i).data_type();
            let call = call::over_call(&rel, schema, function, data_type, &mut columns)?;
            let partition = partition_of(&rel, schema, &function.params.partition_by, &mut columns)?;
            let order = order_of(&rel, schema, &function.params.order_by, &mut columns)?;
            groups = groups.zip(call).map(|(groups, call)| grouped(groups, partition, order, (call, i)));
        }
        if let ([function], Some([group])) = (functions.as_slice(), groups.as_deref())
            && let Some(ties) = numbers_with_ties(function)
        {
            let (partition, order) = (group.partition.clone(), group.order.clone());
            let input = self.node_of(rel, columns.exprs, &columns.names)?;
            return self.numbered(Numbered { input, width, partition, order, ties, limit: None, plan: plan.clone() });
        }
        let Some(groups) = groups else {
            let common = common_partition(&functions).into_iter().cloned().collect::<Vec<_>>();
            let partition = partition_of(&rel, schema, &common, &mut columns)?;
            let input = self.node_of(rel, columns.exprs, &columns.names)?;
            let names = functions.iter().map(|f| f.fun.name().to_string()).collect::<Vec<_>>().join(", ");
            let over_given = Window::try_new(window.window_expr.clone(), Arc::new(given(0, schema)))?;
            let (settled, label) = (settle_window(&over_given)?, format!("{names} over the partition"));
            let inputs = vec![(input, partition)];
            let node = self.recompute_node(&settled, std::slice::from_ref(schema), inputs, &label, None)?;
            return self.rel_as(node, plan.schema());
        };
        let mut node = self.node_of(rel, columns.exprs, &columns.names)?;
        let mut places = vec![0; functions.len()];
        for group in groups {
            let from = self.nodes[node].schema.fields().len();
            group.places.iter().enumerate().for_each(|(n, place)| places[*place] = from + n);
            let names: Vec<_> = group.places.iter().map(|place| functions[*place].fun.name().to_string()).collect();
            node = self.over_node(node, group, &names)?;
        }
        let mut rel = self.rel_of(node)?;
        let sources = (0..width).chain(places).zip(plan.schema().fields());
        rel.exprs = sources.map(|(place, field)| column_as(&rel.columns, place, field.data_type())).collect();
        Ok(rel)
    }

    /// The operator for functions that share partition and order; `names` are those of its new columns.
    fn over_node(&mut self, input: NodeId, group: Group, names: &[String]) -> Result<NodeId> {
        let Group { partition, order, calls, .. } = group;
        let node = &self.nodes[input];
        let own = node.schema.fields().iter().map(|f| (f.name().as_str(), f.data_type().clone()));
        let new = names.iter().zip(&calls).map(|(name, call)| (name.as_str(), call.data_type.clone()));
        let schema = node_schema(own.chain(new))?;
        // What a row says may change whenever a row of its partition does; with functions that only look back, only
        // when one that is not later does.
        let ascending = |by: &&OrderBy| !by.options.descending && !by.options.nulls_first;
        let leading = order.first().filter(ascending).map(|by| by.column);
        let leading = leading.filter(|_| !calls.iter().any(call::looks_ahead));
        let stays = |bound: &&Bound| partition.contains(&bound.column) || leading == Some(bound.column);
        let bounds = node.bounds.iter().filter(stays).copied().collect();
        let closes = closing(&partition, &node.bounds);
        let route = if partition.is_empty() { Route::Gather } else { Route::Hash(partition.clone()) };
        let evicts = node.bounds.iter().find(|bound| leading == Some(bound.column)).copied();
        let evicts = evicts.filter(|_| closes.is_none() && !calls.iter().any(call::looks_back_to_start));
        let op = Op::Over(OverPlan { partition, order, calls, closes, evicts });
        Ok(self.push(op, vec![Edge { from: input, route }], schema, false, bounds))
    }

    fn numbered(&mut self, numbered: Numbered) -> Result<Rel> {
        let fields = self.nodes[numbered.input].schema.fields();
        let fields = fields.iter().map(|f| (f.name().as_str(), f.data_type().clone()));
        let columns =
            unique_columns(fields.chain([(if numbered.ties { "rank" } else { "row_number" }, DataType::UInt64)]))?;
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
            let Numbered { input, partition, order, ties, .. } = numbered;
            let call = if ties { call::rank() } else { call::row_number() };
            let group = Group { partition, order, calls: vec![call], places: Vec::new() };
            let node = self.over_node(input, group, &[columns.field(last).name().clone()])?;
            return Ok((node, columns.clone(), exprs));
        };
        let number = column_at(columns, last);
        let used = exprs.iter().any(|e| e.column_refs().into_iter().any(|c| Expr::Column(c.clone()) == number));
        let top = TopNPlan {
            partition: numbered.partition,
            order: numbered.order,
            offset: 0,
            limit,
            ties: numbered.ties,
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

/// Where the columns are that partition, in a fixed order.
fn partition_of(rel: &Rel, schema: &DFSchema, by: &[Expr], columns: &mut Columns) -> Result<Vec<usize>> {
    let place = |expr: &Expr| Ok(columns.place(rel.resolve(schema, expr)?, label));
    let mut partition = by.iter().map(place).collect::<Result<Vec<_>>>()?;
    partition.sort_unstable();
    partition.dedup();
    Ok(partition)
}

/// Where the columns are that order. A constant orders nothing.
fn order_of(rel: &Rel, schema: &DFSchema, by: &[Sort], columns: &mut Columns) -> Result<Vec<OrderBy>> {
    let by = by.iter().filter(|sort| !matches!(sort.expr, Expr::Literal(..)));
    let order = by.map(|sort| {
        let options = SortOptions { descending: !sort.asc, nulls_first: sort.nulls_first };
        Ok(OrderBy { column: columns.place(rel.resolve(schema, &sort.expr)?, label), options })
    });
    order.collect()
}

/// Adds a call to those that share its partition and order.
fn grouped(
    mut groups: Vec<Group>,
    partition: Vec<usize>,
    order: Vec<OrderBy>,
    (call, place): (OverCall, usize),
) -> Vec<Group> {
    let fits = |group: &&mut Group| group.partition == partition && group.order == order;
    match groups.iter_mut().find(fits) {
        Some(group) => {
            group.calls.push(call);
            group.places.push(place);
        }
        None => groups.push(Group { partition, order, calls: vec![call], places: vec![place] }),
    }
    groups
}

/// For `row_number()` and `rank()`: whether rows that tie have the same number.
fn numbers_with_ties(function: &WindowFunction) -> Option<bool> {
    let WindowFunctionDefinition::WindowUDF(function) = &function.fun else { return None };
    match function.name() {
        "row_number" => Some(false),
        "rank" => Some(true),
        _ => None,
    }
}

/// What all functions partition by: rows that differ in it never meet.
fn common_partition(functions: &[WindowFunction]) -> Vec<&Expr> {
    let Some((first, others)) = functions.split_first() else { return Vec::new() };
    let shared = |expr: &&Expr| others.iter().all(|f| f.params.partition_by.contains(expr));
    first.params.partition_by.iter().filter(shared).collect()
}

/// The highest number or rank that meets a condition of the form `number <= n`, and whether all up to it do.
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
