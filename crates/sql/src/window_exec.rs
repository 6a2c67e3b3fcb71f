//! Window table functions as a batch: what [`crate::window::WindowNode`] does when a query runs once.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Int64Type, SchemaRef, TimeUnit};
use arrow::row::{RowConverter, SortField};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
};
use futures::TryStreamExt;
use tidemill_delta::Micros;

use crate::window::WindowKind;

/// Reads all of its input, then gives each row once for each of its windows.
#[derive(Debug)]
pub(crate) struct WindowExec {
    input: Arc<dyn ExecutionPlan>,
    time: usize,
    keys: Vec<usize>,
    kind: WindowKind,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl WindowExec {
    /// Windows of the input's column `time`; the schema is the input's and two more columns.
    pub(crate) fn new(
        input: Arc<dyn ExecutionPlan>,
        time: usize,
        keys: Vec<usize>,
        kind: WindowKind,
        schema: SchemaRef,
    ) -> Self {
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        ));
        WindowExec { input, time, keys, kind, schema, properties }
    }
}

impl DisplayAs for WindowExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WindowExec: {:?}", self.kind)
    }
}

impl ExecutionPlan for WindowExec {
    fn name(&self) -> &'static str {
        "WindowExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.pop().ok_or_else(|| DataFusionError::Internal("a window needs an input".into()))?;
        Ok(Arc::new(WindowExec::new(input, self.time, self.keys.clone(), self.kind, self.schema.clone())))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let options =
            ReplaceChildrenOptions::new(datafusion::physical_plan::execution_plan::ChildrenPropertiesMode::Recompute);
        self.replace_children(children, options)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let (schema, kind, time, keys) = (self.schema.clone(), self.kind, self.time, self.keys.clone());
        let answer = async move {
            let input_schema = input.schema();
            let batches: Vec<RecordBatch> = input.try_collect().await?;
            let rows = concat_batches(&input_schema, &batches)?;
            windows(&rows, kind, time, &keys, schema)
        };
        let stream = futures::stream::once(answer);
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), stream)))
    }
}

/// The rows with their windows, in the given schema.
fn windows(
    rows: &RecordBatch,
    kind: WindowKind,
    time: usize,
    keys: &[usize],
    schema: SchemaRef,
) -> Result<RecordBatch> {
    let times = to_micros(rows.column(time))?;
    let assigned = match kind {
        WindowKind::Fixed { size, slide, origin } => fixed(&times, size, slide, origin),
        WindowKind::Session { gap } => sessions(&times, &session_keys(rows, keys)?, gap),
    };
    let taken = take_record_batch(rows, &UInt32Array::from(assigned.rows))?;
    let mut columns = taken.columns().to_vec();
    let data_type = rows.column(time).data_type();
    columns.push(from_micros(assigned.starts, data_type)?);
    columns.push(from_micros(assigned.ends, data_type)?);
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// Rows and the windows they are in.
#[derive(Default)]
struct Assigned {
    rows: Vec<u32>,
    starts: Vec<Micros>,
    ends: Vec<Micros>,
}

impl Assigned {
    fn push(&mut self, row: usize, start: Micros, end: Micros) {
        self.rows.push(u32::try_from(row).unwrap_or(u32::MAX));
        self.starts.push(start);
        self.ends.push(end);
    }
}

fn fixed(times: &Int64Array, size: Micros, slide: Micros, origin: Micros) -> Assigned {
    let mut assigned = Assigned::default();
    for row in (0..times.len()).filter(|row| times.is_valid(*row)) {
        let time = times.value(row);
        let shifted = time.saturating_sub(origin);
        let mut start = time.saturating_sub(shifted.rem_euclid(slide));
        while start.saturating_add(size) > time {
            assigned.push(row, start, start.saturating_add(size));
            start = start.saturating_sub(slide);
        }
    }
    assigned
}

fn sessions(times: &Int64Array, keys: &[usize], gap: Micros) -> Assigned {
    let mut order: Vec<usize> = (0..times.len()).filter(|row| times.is_valid(*row)).collect();
    order.sort_by_key(|row| (keys[*row], times.value(*row)));
    let mut assigned = Assigned::default();
    let apart = |a: &usize, b: &usize| keys[*a] == keys[*b] && times.value(*b).saturating_sub(times.value(*a)) <= gap;
    for session in order.chunk_by(apart) {
        let start = session.first().map_or(0, |row| times.value(*row));
        let end = session.last().map_or(0, |row| times.value(*row)).saturating_add(gap);
        session.iter().for_each(|row| assigned.push(*row, start, end));
    }
    assigned
}

/// A number per row, the same for rows with equal keys.
fn session_keys(rows: &RecordBatch, keys: &[usize]) -> Result<Vec<usize>> {
    if keys.is_empty() {
        return Ok(vec![0; rows.num_rows()]);
    }
    let columns: Vec<ArrayRef> = keys.iter().map(|k| rows.column(*k).clone()).collect();
    let fields = columns.iter().map(|c| SortField::new(c.data_type().clone())).collect();
    let converted = RowConverter::new(fields)?.convert_columns(&columns)?;
    let mut numbers = HashMap::new();
    Ok(converted
        .iter()
        .map(|key| {
            let next = numbers.len();
            *numbers.entry(key.owned()).or_insert(next)
        })
        .collect())
}

/// A timestamp column in microseconds.
fn to_micros(column: &ArrayRef) -> Result<Int64Array> {
    let zone = match column.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        other => return Err(DataFusionError::Internal(format!("a window over {other}"))),
    };
    let micros = cast(column, &DataType::Timestamp(TimeUnit::Microsecond, zone))?;
    Ok(cast(&micros, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

/// Microseconds as a timestamp column of the given type.
fn from_micros(values: Vec<Micros>, data_type: &DataType) -> Result<ArrayRef> {
    let zone = match data_type {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    let micros = cast(&Int64Array::from(values), &DataType::Timestamp(TimeUnit::Microsecond, zone))?;
    Ok(cast(&micros, data_type)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_in_every_window_that_covers_it() {
        let assigned = fixed(&Int64Array::from(vec![Some(7), None, Some(-1)]), 10, 5, 0);
        assert_eq!(assigned.rows, vec![0, 0, 2, 2]);
        assert_eq!(assigned.starts, vec![5, 0, -5, -10]);
        assert_eq!(assigned.ends, vec![15, 10, 5, 0]);
    }

    #[test]
    fn origin_shifts_windows() {
        let assigned = fixed(&Int64Array::from(vec![2, 3]), 10, 10, 3);
        assert_eq!(assigned.starts, vec![-7, 3]);
    }

    #[test]
    fn sessions_end_after_more_than_the_gap() {
        let times = Int64Array::from(vec![10, 0, 5, 16, 5]);
        let assigned = sessions(&times, &[0, 0, 0, 0, 1], 5);
        assert_eq!(assigned.rows, vec![1, 2, 0, 3, 4]);
        assert_eq!(assigned.starts, vec![0, 0, 0, 16, 5]);
        assert_eq!(assigned.ends, vec![15, 15, 15, 21, 10]);
    }
}
