//! `GROUP BY`, `DISTINCT` and aggregates without groups.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::expr::{AggregateFunction as Call, AggregateFunctionParams};
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, Extension, LogicalPlan, SortExpr};
use tidemill_plan::{AggregateCall, AggregateFunction, AggregatePlan, Bound, Edge, NodeId, Op, Route};

use super::rel::{Base, Rel, column_as, node_schema, unalias};
use super::{Closing, Lower, internal};
use crate::given::{BatchQuery, GivenNode};
use crate::label::label;
use crate::numeric::{AVERAGE_ARGUMENT, SUM_ARGUMENT};
use crate::scalar::storage_type;
use crate::ties::argument_order;

/// Columns that an operator's input must have.
#[derive(Default)]
pub(super) struct Columns {
    pub(super) exprs: Vec<Expr>,
    pub(super) names: Vec<String>,
}

impl Columns {
    /// The place of an expression, which is added if it is new.
    pub(super) fn place(&mut self, expr: Expr, name: impl FnOnce(&Expr) -> String) -> usize {
        if let Some(place) = self.exprs.iter().position(|e| *e == expr) {
            return place;
        }
        self.names.push(name(&expr));
        self.exprs.push(expr);
        self.exprs.len() - 1
    }
}

/// An aggregate over places in [`Columns`].
pub(super) struct PlannedCall {
    call: Call,
    args: Vec<usize>,
    filter: Option<usize>,
    order: Vec<(usize, SortExpr)>,
    data_type: DataType,
    label: String,
}

impl PlannedCall {
    /// The places it takes values from.
    pub(super) fn uses(&self) -> impl Iterator<Item = usize> {
        self.args.iter().copied().chain(self.filter).chain(self.order.iter().map(|(place, _)| *place))
    }
}

/// Whether an argument is the same for all rows, so that it is no column of the operator's input. The first
/// argument is one, as there would be no row without it to compute from; except where only its being there counts.
fn is_constant(call: &Call, place: usize, arg: &Expr) -> bool {
    let stays = place > 0 || call.func.name() == "count" && !call.params.distinct;
    stays && matches!(arg, Expr::Literal(value, _) if !value.is_null())
}

impl Lower<'_> {
    /// Groups.
    pub(super) fn aggregate(&mut self, plan: &LogicalPlan, aggregate: &Aggregate) -> Result<Rel> {
        if aggregate.group_expr.iter().any(|e| matches!(unalias(e.clone()), Expr::GroupingSet(_))) {
            return self.fallback(plan);
        }
        let input_schema = aggregate.input.schema();
        let rel = self.lower(&aggregate.input)?;
        let all: Vec<_> = aggregate.group_expr.iter().chain(&aggregate.aggr_expr).cloned().collect();
        let rel = self.settle_heavy(rel, input_schema, &all, usize::MAX)?;
        let mut columns = Columns::default();
        let fields = aggregate.schema.fields();
        let mut keys = Vec::new();
        for (expr, field) in aggregate.group_expr.iter().zip(fields) {
            let key = rel.resolve(input_schema, expr)?;
            keys.push(columns.place(key, |_| field.name().clone()));
        }
        let mut calls = Vec::new();
        for (expr, field) in aggregate.aggr_expr.iter().zip(&fields[aggregate.group_expr.len()..]) {
            calls.push(plan_call(&rel, input_schema, expr, field.data_type(), &mut columns)?);
        }
        if let Base::Session(_) = &rel.base
            && let Some(done) = self.session_groups(&rel, &columns, &keys, &calls, &aggregate.schema)?
        {
            return Ok(done);
        }
        let (input, places) = self.node_with(rel, columns.exprs, &columns.names)?;
        let keys: Vec<_> = keys.into_iter().map(|k| places[k]).collect();
        self.aggregate_node(input, keys, &calls, &places, &aggregate.schema)
    }

    /// `SELECT DISTINCT`.
    pub(super) fn distinct(&mut self, input: &LogicalPlan) -> Result<Rel> {
        let rel = self.lower(input)?;
        let names: Vec<_> = input.schema().fields().iter().map(|f| f.name().clone()).collect();
        let exprs = rel.exprs.clone();
        let (node, places) = self.node_with(rel, exprs, &names)?;
        let schema = input.schema();
        self.aggregate_node(node, places, &[], &[], schema)
    }

    fn aggregate_node(
        &mut self,
        input: NodeId,
        keys: Vec<usize>,
        calls: &[PlannedCall],
        places: &[usize],
        schema: &DFSchema,
    ) -> Result<Rel> {
        // A key that occurs twice is one key; the columns above still find it.
        let mut distinct: Vec<usize> = Vec::new();
        let key_places: Vec<_> = keys.iter().map(|key| place_of(&mut distinct, *key)).collect();
        let calls = calls.iter().map(|call| self.call(input, call, places)).collect::<Result<Vec<_>>>()?;
        let node = &self.nodes[input];
        let bounds: Vec<Bound> = distinct
            .iter()
            .enumerate()
            .filter_map(|(column, key)| {
                node.bounds.iter().find(|b| b.column == *key).map(|b| Bound { column, offset: b.offset })
            })
            .collect();
        let closes = closing(&distinct, &node.bounds);
        let closing_key = closes.and_then(|bound| {
            let column = distinct.iter().position(|key| *key == bound.column)?;
            key_places.iter().position(|place| *place == column)
        });
        let append_only = node.append_only;
        let types = distinct.iter().map(|key| node.schema.field(*key).data_type().clone());
        let types: Vec<_> = types.chain(calls.iter().map(|c| c.data_type.clone())).collect();
        let fields = schema.fields();
        let name = |i: usize| match i.checked_sub(distinct.len()) {
            Some(call) => fields[keys.len() + call].name().as_str(),
            None => key_places.iter().position(|p| *p == i).map_or("", |key| fields[key].name().as_str()),
        };
        let out = node_schema(types.into_iter().enumerate().map(|(i, t)| (name(i), t)))?;
        // Groups without aggregates come and stay.
        let stays = append_only && calls.is_empty() && !distinct.is_empty();
        let route = if distinct.is_empty() { Route::Gather } else { Route::Hash(distinct.clone()) };
        let keys_len = distinct.len();
        let op = Op::Aggregate(AggregatePlan { keys: distinct, calls, append_only, closes, on_close: false });
        let node = self.push(op, vec![Edge { from: input, route }], out, stays, bounds);
        self.closing.extend(closing_key.map(|key| (node, Closing::Key(key))));
        let mut rel = self.rel_of(node)?;
        let sources = key_places.into_iter().chain((0..fields.len() - keys.len()).map(|i| keys_len + i));
        rel.exprs =
            sources.zip(fields).map(|(place, field)| column_as(&rel.columns, place, field.data_type())).collect();
        Ok(rel)
    }

    /// An aggregate over the columns of a node.
    pub(super) fn call(&self, input: NodeId, planned: &PlannedCall, places: &[usize]) -> Result<AggregateCall> {
        let args: Vec<_> = planned.args.iter().map(|arg| places[*arg]).collect();
        let filter = planned.filter.map(|f| places[f]);
        let data_type = storage_type(&planned.data_type);
        let label = planned.label.clone();
        let schema = &self.nodes[input].schema;
        let arg_type = args.first().map(|arg| schema.field(*arg).data_type().clone());
        if let Some(function) = incremental(planned, arg_type.as_ref()) {
            let distinct = planned.call.params.distinct && needs_distinct(&function);
            return Ok(AggregateCall { function, args, filter, distinct, data_type, label });
        }
        // What is argument and order alike is one column: that they are the same matters to `DISTINCT`.
        let mut all: Vec<usize> = args;
        let order: Vec<_> = planned.order.iter().map(|(place, _)| place_of(&mut all, places[*place])).collect();
        let types: Vec<_> = all.iter().map(|i| schema.field(*i).data_type().clone()).collect();
        let query = self.rows_query(planned, &order, &types)?;
        let function = AggregateFunction::FromRows(Arc::new(query));
        Ok(AggregateCall { function, args: all, filter, distinct: false, data_type, label })
    }

    /// The aggregate as a query over its arguments and what orders them.
    ///
    /// The columns have the types given; arguments come first, `order` says which ones order.
    fn rows_query(&self, planned: &PlannedCall, order: &[usize], types: &[DataType]) -> Result<BatchQuery> {
        let names: Vec<_> = (0..types.len()).map(|i| format!("c{i}")).collect();
        let fields = names.iter().zip(types).map(|(name, t)| Field::new(name, t.clone(), true));
        let given = Arc::new(DFSchema::try_from(Schema::new(fields.collect::<Vec<_>>()))?);
        let columns: Vec<_> = names.iter().map(|name| Expr::Column(Column::new_unqualified(name))).collect();
        let constants = planned.call.params.args.iter();
        let mut args = columns[..planned.args.len()].iter();
        let args = constants
            .enumerate()
            .map(|(place, arg)| match arg {
                arg if is_constant(&planned.call, place, arg) => Ok(arg.clone()),
                _ => args.next().cloned().ok_or_else(|| internal("an aggregate lost an argument")),
            })
            .collect::<Result<Vec<_>>>()?;
        let order = order.iter().zip(&planned.order).map(|(column, (_, sort))| SortExpr {
            expr: columns[*column].clone(),
            asc: sort.asc,
            nulls_first: sort.nulls_first,
        });
        let order: Vec<_> = order.collect();
        let ties = argument_order(&planned.call, &args, types);
        let params = AggregateFunctionParams {
            args,
            distinct: planned.call.params.distinct,
            filter: None,
            order_by: order.into_iter().chain(ties).collect(),
            null_treatment: planned.call.params.null_treatment,
        };
        let call = Expr::AggregateFunction(Call { func: planned.call.func.clone(), params });
        let leaf = GivenNode { index: 0, schema: given.clone() };
        let leaf = LogicalPlan::Extension(Extension { node: Arc::new(leaf) });
        let plan = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(leaf), Vec::new(), vec![call])?);
        let field = Field::new("value", storage_type(&planned.data_type), true);
        BatchQuery::new(self.session(), &plan, vec![given.inner().clone()], Arc::new(Schema::new(vec![field])))
    }
}

fn place_of(list: &mut Vec<usize>, value: usize) -> usize {
    list.iter().position(|v| *v == value).unwrap_or_else(|| {
        list.push(value);
        list.len() - 1
    })
}

/// The key whose bound makes a group final first.
pub(super) fn closing(keys: &[usize], bounds: &[Bound]) -> Option<Bound> {
    bounds.iter().filter(|b| keys.contains(&b.column)).min_by_key(|b| b.offset).copied()
}

/// Resolves an aggregate's arguments, filter and order to places in `columns`.
pub(super) fn plan_call(
    rel: &Rel,
    schema: &DFSchema,
    expr: &Expr,
    data_type: &DataType,
    columns: &mut Columns,
) -> Result<PlannedCall> {
    let Expr::AggregateFunction(call) = unalias(expr.clone()) else {
        return Err(internal(format!("{expr} is no aggregate")));
    };
    let text = label(expr);
    let mut place = |expr: &Expr, cast_to: Option<&DataType>| -> Result<usize> {
        let mut resolved = rel.resolve(schema, expr)?;
        if let Some(wanted) = cast_to
            && resolved.get_type(&rel.columns)? != *wanted
        {
            resolved = resolved.cast_to(wanted, &rel.columns)?;
        }
        Ok(columns.place(resolved, label))
    };
    let args = call.params.args.iter().enumerate().filter(|(at, arg)| !is_constant(&call, *at, arg));
    let args = args.map(|(_, arg)| place(summed(&call, arg), None)).collect::<Result<Vec<_>>>()?;
    let filter = call.params.filter.as_deref().map(|f| place(f, Some(&DataType::Boolean))).transpose()?;
    let order = call.params.order_by.iter();
    let order = order.map(|sort| Ok((place(&sort.expr, None)?, sort.clone()))).collect::<Result<Vec<_>>>()?;
    Ok(PlannedCall { call, args, filter, order, data_type: data_type.clone(), label: text })
}

/// The operator sums integers as they are, whatever the type of the sum.
fn summed<'a>(call: &Call, arg: &'a Expr) -> &'a Expr {
    let Expr::Cast(cast) = arg else { return arg };
    let widened = match call.func.name() {
        "sum" => SUM_ARGUMENT,
        "avg" => AVERAGE_ARGUMENT,
        _ => return arg,
    };
    if *cast.field.data_type() == widened { &cast.expr } else { arg }
}

/// The incremental function for a call, if there is one for its types.
fn incremental(planned: &PlannedCall, arg: Option<&DataType>) -> Option<AggregateFunction> {
    let params = &planned.call.params;
    let constants = params.args.len() - planned.args.len();
    let name = planned.call.func.name();
    if name == "count" && params.args.len() == 1 {
        return Some(AggregateFunction::Count);
    }
    let arg = arg.filter(|_| planned.args.len() == 1 && constants == 0)?;
    let number = matches!(arg, DataType::Int64 | DataType::UInt64 | DataType::Float64 | DataType::Decimal128(..));
    let float = matches!(arg, DataType::Float64);
    let variance = |sample, root| float.then_some(AggregateFunction::Variance { sample, root });
    match name {
        "sum" if number => Some(AggregateFunction::Sum),
        "avg" if float || matches!(arg, DataType::Decimal128(..)) => Some(AggregateFunction::Avg),
        "avg" if arg.is_integer() && planned.data_type.is_decimal() => Some(AggregateFunction::Avg),
        "min" if is_ordered(arg) => Some(AggregateFunction::Min),
        "max" if is_ordered(arg) => Some(AggregateFunction::Max),
        "bool_and" => Some(AggregateFunction::Bool { any: false }),
        "bool_or" => Some(AggregateFunction::Bool { any: true }),
        "var" | "var_samp" => variance(true, false),
        "var_pop" => variance(false, false),
        "stddev" | "stddev_samp" => variance(true, true),
        "stddev_pop" => variance(false, true),
        _ => None,
    }
}

/// Whether distinct arguments make a difference.
fn needs_distinct(function: &AggregateFunction) -> bool {
    !matches!(function, AggregateFunction::Min | AggregateFunction::Max | AggregateFunction::Bool { .. })
}

pub(super) fn is_ordered(data_type: &DataType) -> bool {
    data_type.is_primitive() && !matches!(data_type, DataType::Interval(_))
        || matches!(data_type, DataType::Utf8 | DataType::Binary | DataType::Boolean)
}
