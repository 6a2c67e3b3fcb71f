//! A view's query as a batch, for whoever wants to know whether the view is right.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, SchemaRef, TimeUnit, TimestampNanosecondType};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, Distinct, Expr, Extension, Filter, LogicalPlan, LogicalPlanBuilder, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use tidemill_delta::Micros;
use tidemill_plan::Bound;

use crate::error_map::sql_error;
use crate::lower::{Closing, ClosingAt, closing_of, on_large_stack};
use crate::ties::settle;
use crate::window::{WINDOW_END, WindowKind, WindowNode};
use crate::{Catalog, CreateView, Planner, Snapshot, SqlError, batch};

/// A view's query, to be run once over a snapshot.
#[derive(Clone, Debug)]
pub struct ViewQuery {
    plan: LogicalPlan,
    /// With everything decided that SQL leaves open, if that can be run.
    settled: LogicalPlan,
    /// As it was written, if nothing has to be held back: what was made of it cannot always be run (columns of grouping
    /// sets that share a name).
    written: Option<LogicalPlan>,
    schema: SchemaRef,
}

impl ViewQuery {
    /// The view's columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

/// See [`Planner::view_query`].
pub(crate) fn view_query(
    planner: &Planner,
    catalog: &dyn Catalog,
    view: &CreateView,
    watermark: Micros,
) -> Result<ViewQuery, SqlError> {
    on_large_stack(|| {
        let (plan, schema, closing) = closing_of(planner, catalog, view)?;
        let written = match closing {
            None => Some(planner.logical_plan(catalog, &view.query)?),
            Some(_) => None,
        };
        let plan = match closing {
            None => Ok(plan),
            Some(closing) => closed(plan, &closing, watermark),
        };
        let plan = plan.and_then(json_as_text).map_err(sql_error)?;
        let settled = settle(plan.clone()).map_err(sql_error)?;
        Ok(ViewQuery { plan, settled, written, schema })
    })
}

/// See [`Planner::run_view_query`].
pub(crate) async fn run(
    planner: &Planner,
    query: &ViewQuery,
    snapshot: &Arc<dyn Snapshot>,
    each: &mut (dyn FnMut(RecordBatch) -> Result<(), SqlError> + Send),
) -> Result<(), SqlError> {
    let mut physical = batch::prepare_analyzed(planner, query.settled.clone(), snapshot).await;
    if physical.is_err() {
        // Not all orders go together in one aggregate.
        physical = batch::prepare_analyzed(planner, query.plan.clone(), snapshot).await;
    }
    if let (Err(_), Some(written)) = (&physical, &query.written) {
        physical = batch::prepare(planner, written.clone(), snapshot).await;
    }
    let physical = physical?;
    batch::stream(physical, &query.schema, each).await
}

/// The plan with only what is final: rows below whatever closes, or in the answer itself.
fn closed(plan: LogicalPlan, closing: &ClosingAt, watermark: Micros) -> Result<LogicalPlan> {
    match closing {
        ClosingAt::Output(bound) => {
            let (qualifier, field) = plan.schema().qualified_field(bound.column);
            let column = Expr::Column((qualifier, field).into());
            only_final(plan, column, bound.offset, watermark)
        }
        ClosingAt::Operator(closing, offset) => below(plan, closing, *offset, watermark),
    }
}

fn only_final(plan: LogicalPlan, time: Expr, offset: Micros, watermark: Micros) -> Result<LogicalPlan> {
    let is_final = ScalarUDF::new_from_impl(IsFinal::new(offset, watermark));
    Ok(LogicalPlan::Filter(Filter::try_new(is_final.call(vec![time]), Arc::new(plan))?))
}

/// Puts the filter below the first grouping from the root down. Rows of one group share what closes it.
fn below(plan: LogicalPlan, closing: &Closing, offset: Micros, watermark: Micros) -> Result<LogicalPlan> {
    let onto = |input: &LogicalPlan, time: Expr| only_final(input.clone(), time, offset, watermark);
    match (&plan, closing) {
        (LogicalPlan::Extension(Extension { node }), Closing::Session) => {
            match node.as_any().downcast_ref::<WindowNode>() {
                Some(window) if matches!(window.kind, WindowKind::Session { .. }) => {
                    let end = plan.schema().fields().len() - 1;
                    let (qualifier, field) = plan.schema().qualified_field(end);
                    debug_assert_eq!(field.name(), WINDOW_END);
                    let end = Expr::Column((qualifier, field).into());
                    return onto(&plan, end);
                }
                _ => {}
            }
        }
        (LogicalPlan::Aggregate(aggregate), Closing::Key(key)) => {
            let time = aggregate.group_expr.get(*key).cloned().ok_or_else(|| lost("key"))?;
            let input = onto(&aggregate.input, unaliased(time))?;
            return plan.with_new_exprs(plan.expressions(), vec![input]);
        }
        (LogicalPlan::Distinct(Distinct::All(input)), Closing::Key(key)) => {
            let (qualifier, field) = input.schema().qualified_field(*key);
            let input = onto(input, Expr::Column((qualifier, field).into()))?;
            return Ok(LogicalPlan::Distinct(Distinct::All(Arc::new(input))));
        }
        _ => {}
    }
    match plan.inputs().as_slice() {
        [input] => {
            let input = below((*input).clone(), closing, offset, watermark)?;
            plan.with_new_exprs(plan.expressions(), vec![input])
        }
        _ => Err(lost("grouping")),
    }
}

fn unaliased(expr: Expr) -> Expr {
    match expr {
        Expr::Alias(alias) => unaliased(*alias.expr),
        other => other,
    }
}

fn lost(what: &str) -> DataFusionError {
    DataFusionError::Internal(format!("the {what} that closes this view was lost"))
}

/// What the JSON operator `->` gives is kept as text.
fn json_as_text(plan: LogicalPlan) -> Result<LogicalPlan> {
    let is_json = |data_type: &DataType| matches!(data_type, DataType::Union(..));
    if !plan.schema().fields().iter().any(|f| is_json(f.data_type())) {
        return Ok(plan);
    }
    let columns = plan.schema().iter().map(|(qualifier, field)| {
        let column = Expr::Column((qualifier, field).into());
        match is_json(field.data_type()) {
            true => datafusion_functions_json::udfs::json_union_to_text_udf().call(vec![column]).alias(field.name()),
            false => column,
        }
    });
    let columns: Vec<_> = columns.collect();
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}

/// Whether the watermark has passed a time: what [`Bound::is_final`] says of a column.
#[derive(Debug, PartialEq, Eq, Hash)]
struct IsFinal {
    signature: Signature,
    offset: Micros,
    watermark: Micros,
}

impl IsFinal {
    fn new(offset: Micros, watermark: Micros) -> Self {
        IsFinal { signature: Signature::any(1, Volatility::Immutable), offset, watermark }
    }
}

impl ScalarUDFImpl for IsFinal {
    fn name(&self) -> &str {
        "is_final"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [times] = arrays.as_slice() else { return Err(lost("time")) };
        let bound = Bound { column: 0, offset: self.offset };
        let times = micros_up(times)?;
        let is_final = |time: Option<i64>| Some(time.is_some_and(|time| bound.is_final(time, self.watermark)));
        let is_final: BooleanArray = times.into_iter().map(is_final).collect();
        Ok(ColumnarValue::Array(Arc::new(is_final)))
    }
}

/// Times in microseconds, rounded up: nothing is final too early.
fn micros_up(times: &ArrayRef) -> Result<Vec<Option<i64>>> {
    if let DataType::Timestamp(TimeUnit::Nanosecond, _) = times.data_type() {
        let up = |nanos: i64| nanos.div_euclid(1_000) + i64::from(nanos.rem_euclid(1_000) != 0);
        return Ok(times.as_primitive::<TimestampNanosecondType>().iter().map(|time| time.map(up)).collect());
    }
    let zone = match times.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        other => return Err(DataFusionError::Internal(format!("a time of type {other}"))),
    };
    let micros = cast(times, &DataType::Timestamp(TimeUnit::Microsecond, zone))?;
    let micros = cast(&micros, &DataType::Int64)?;
    Ok(micros.as_primitive::<Int64Type>().iter().collect())
}
