//! As-of joins as a batch: what [`crate::as_of::AsOfNode`] does when a query runs once.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{SortOptions, concat_batches, take};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, ChildrenPropertiesMode, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
};
use futures::TryStreamExt;

/// How rows match.
#[derive(Clone, Debug)]
pub(crate) struct Match {
    /// Left and right keys, then the times, over each side's columns.
    pub(crate) places: [Vec<Arc<dyn PhysicalExpr>>; 2],
    /// The right row comes after the left one.
    pub(crate) after: bool,
    /// Equal times match.
    pub(crate) inclusive: bool,
    /// Left rows without match stay.
    pub(crate) outer: bool,
}

/// Reads both inputs, then gives each left row beside its right row.
#[derive(Debug)]
pub(crate) struct AsOfExec {
    inputs: [Arc<dyn ExecutionPlan>; 2],
    by: Match,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl AsOfExec {
    /// The schema is the left one and the right one.
    pub(crate) fn new(inputs: [Arc<dyn ExecutionPlan>; 2], by: Match, schema: SchemaRef) -> Self {
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        ));
        AsOfExec { inputs, by, schema, properties }
    }
}

impl DisplayAs for AsOfExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsOfExec: {:?}", self.by)
    }
}

impl ExecutionPlan for AsOfExec {
    fn name(&self) -> &'static str {
        "AsOfExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition; 2]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.inputs.iter().collect()
    }

    fn apply_expressions(
        &self,
        apply: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for expr in self.by.places.iter().flatten() {
            if apply(expr)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let inputs = <[_; 2]>::try_from(children)
            .map_err(|_| DataFusionError::Internal("an as-of join needs two inputs".into()))?;
        Ok(Arc::new(AsOfExec::new(inputs, self.by.clone(), self.schema.clone())))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let [left, right] = &self.inputs;
        let (left, right) = (left.execute(partition, context.clone())?, right.execute(partition, context)?);
        let (schema, by) = (self.schema.clone(), self.by.clone());
        let answer = async move {
            let left = all(left).await?;
            let right = all(right).await?;
            joined(&left, &right, &by, schema)
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), futures::stream::once(answer))))
    }
}

async fn all(input: SendableRecordBatchStream) -> Result<RecordBatch> {
    let schema = input.schema();
    let batches: Vec<RecordBatch> = input.try_collect().await?;
    Ok(concat_batches(&schema, &batches)?)
}

/// Each left row beside its match.
fn joined(left: &RecordBatch, right: &RecordBatch, by: &Match, schema: SchemaRef) -> Result<RecordBatch> {
    let (of_left, of_right) =
        (Places::new(left, &by.places[0], by.after)?, Places::new(right, &by.places[1], by.after)?);
    let fields = right.schema().fields().iter().map(|f| SortField::new(f.data_type().clone())).collect();
    let contents = RowConverter::new(fields)?.convert_columns(right.columns())?;
    let mut order: Vec<u32> = (0..right.num_rows() as u32).filter(|row| of_right.known[*row as usize]).collect();
    let key = |row: &u32| (of_right.rows.row(*row as usize), contents.row(*row as usize));
    order.sort_by(|a, b| key(a).cmp(&key(b)));
    let (mut lefts, mut rights) = (Vec::new(), Vec::new());
    for row in 0..left.num_rows() {
        let found = if of_left.known[row] { of_left.find(row, &of_right, &order, by.inclusive) } else { None };
        if found.is_some() || by.outer {
            lefts.push(row as u32);
            rights.push(found);
        }
    }
    let (lefts, rights) = (UInt32Array::from(lefts), UInt32Array::from(rights));
    let columns = left.columns().iter().map(|c| take(c, &lefts, None));
    let columns = columns.chain(right.columns().iter().map(|c| take(c, &rights, None)));
    let columns: Vec<ArrayRef> = columns.collect::<std::result::Result<_, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(lefts.len()));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

/// Where a side's rows stand: their keys and their time, as bytes that compare like them.
struct Places {
    keys: Rows,
    rows: Rows,
    /// Neither a key nor the time is NULL.
    known: Vec<bool>,
}

impl Places {
    fn new(rows: &RecordBatch, exprs: &[Arc<dyn PhysicalExpr>], descending: bool) -> Result<Self> {
        let columns = exprs.iter().map(|expr| expr.evaluate(rows)?.into_array(rows.num_rows()));
        let columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
        let mut known = vec![true; rows.num_rows()];
        for nulls in columns.iter().filter_map(|c| c.logical_nulls()) {
            known.iter_mut().enumerate().for_each(|(i, known)| *known &= nulls.is_valid(i));
        }
        let last = columns.len() - 1;
        let field = |(i, column): (usize, &ArrayRef)| {
            let options = SortOptions { descending: descending && i == last, nulls_first: true };
            SortField::new_with_options(column.data_type().clone(), options)
        };
        let fields: Vec<_> = columns.iter().enumerate().map(field).collect();
        let keys = RowConverter::new(fields[..last].to_vec())?;
        // Without keys, all rows have the empty one.
        let keys = match last {
            0 => keys.empty_rows(0, 0),
            _ => keys.convert_columns(&columns[..last])?,
        };
        Ok(Places { keys, rows: RowConverter::new(fields)?.convert_columns(&columns)?, known })
    }

    fn key(&self, row: usize) -> &[u8] {
        if self.keys.num_rows() == 0 { &[] } else { self.keys.row(row).data() }
    }

    /// The right row for a left row, among the right ones in order.
    fn find(&self, row: usize, right: &Places, order: &[u32], inclusive: bool) -> Option<u32> {
        let place = self.rows.row(row).data();
        let end = order.partition_point(|other| {
            let other = right.rows.row(*other as usize).data();
            other < place || inclusive && other == place
        });
        let found = *order.get(end.checked_sub(1)?)?;
        (right.key(found as usize) == self.key(row)).then_some(found)
    }
}
