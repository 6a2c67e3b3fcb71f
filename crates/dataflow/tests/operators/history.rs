//! Random histories for operators, and what an operator made of them: shared by the tests of operators.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{
    DataType, Field, Float64Type, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType, UInt64Type,
};
use proptest::prelude::*;
use tidemill_dataflow::{Operator, RowError, StepCx};
use tidemill_delta::{Delta, NO_WATERMARK, batch};

/// A value of a test: integers and timestamps, or text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    Null,
    Int(i64),
    Text(String),
}

pub type Row = Vec<Value>;

/// A collection: rows and how often each is there.
pub type Bag = BTreeMap<Row, i64>;

pub fn int(value: impl Into<Option<i64>>) -> Value {
    value.into().map_or(Value::Null, Value::Int)
}

/// A float, told apart by its shortest text.
pub fn float(value: f64) -> Value {
    Value::Text(format!("{value:?}"))
}

pub const TIME: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

pub fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(|(n, t)| Field::new(*n, t.clone(), true)).collect::<Vec<_>>()))
}

fn column(rows: &[(Row, i64)], at: usize, data_type: &DataType) -> ArrayRef {
    let ints = rows.iter().map(|(row, _)| match &row[at] {
        Value::Int(v) => Some(*v),
        _ => None,
    });
    let texts = rows.iter().map(|(row, _)| match &row[at] {
        Value::Text(v) => Some(v.clone()),
        _ => None,
    });
    match data_type {
        DataType::Int64 => Arc::new(ints.collect::<Int64Array>()),
        DataType::Utf8 => Arc::new(texts.collect::<StringArray>()),
        DataType::Boolean => Arc::new(ints.map(|v| v.map(|v| v != 0)).collect::<BooleanArray>()),
        _ => Arc::new(ints.collect::<TimestampMicrosecondArray>()),
    }
}

pub fn delta(schema: &SchemaRef, rows: &[(Row, i64)]) -> Delta {
    let columns = schema.fields().iter().enumerate().map(|(i, f)| column(rows, i, f.data_type())).collect();
    let weights: Int64Array = rows.iter().map(|(_, w)| Some(*w)).collect();
    Delta::new(batch(schema.clone(), columns, rows.len()), weights)
}

fn value(array: &ArrayRef, i: usize) -> Value {
    if array.is_null(i) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Int64 => Value::Int(array.as_primitive::<Int64Type>().value(i)),
        DataType::UInt64 => Value::Int(array.as_primitive::<UInt64Type>().value(i) as i64),
        DataType::Boolean => Value::Int(array.as_boolean().value(i).into()),
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(i)),
        DataType::Utf8 => Value::Text(array.as_string::<i32>().value(i).to_owned()),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            Value::Int(array.as_primitive::<TimestampMicrosecondType>().value(i))
        }
        other => panic!("no test value of type {other}"),
    }
}

pub fn rows_of(delta: &Delta) -> Vec<(Row, i64)> {
    let row = |i| delta.rows.columns().iter().map(|c| value(c, i)).collect();
    (0..delta.len()).map(|i| (row(i), delta.weight(i))).collect()
}

/// Adds rows to a collection.
pub fn add(bag: &mut Bag, rows: impl IntoIterator<Item = (Row, i64)>) {
    for (row, weight) in rows {
        let count = bag.entry(row).or_default();
        *count += weight;
    }
    bag.retain(|_, count| *count != 0);
}

/// One epoch: its rows, cut into batches, and its watermark.
#[derive(Clone, Debug)]
pub struct Epoch {
    pub batches: Vec<Vec<(Row, i64)>>,
    pub watermark: i64,
}

/// Steps an operator of one input. Its output must be net: no row listed twice.
pub fn step(
    operator: &mut dyn Operator,
    schema: &SchemaRef,
    epoch: &Epoch,
    errors: &mut Vec<RowError>,
) -> Vec<(Row, i64)> {
    let deltas = epoch.batches.iter().map(|rows| delta(schema, rows)).collect();
    let mut cx = StepCx { epoch: 0, round: 0, watermark: epoch.watermark, errors };
    let out = operator.step(&mut cx, &mut [deltas]).expect("the operator goes on");
    let rows: Vec<(Row, i64)> = out.iter().flat_map(rows_of).collect();
    let mut sorted: Vec<&Row> = rows.iter().map(|(row, _)| row).collect();
    sorted.sort();
    let listed = sorted.len();
    sorted.dedup();
    assert_eq!(sorted.len(), listed, "the output is not net: {rows:?}");
    rows
}

/// Histories: epochs of inserted rows, and with `retract` also of rows taken back that are there. Inside an
/// epoch the rows are in any order and cut into batches.
pub fn histories(row: impl Strategy<Value = Row> + Clone + 'static, retract: bool) -> BoxedStrategy<Vec<Epoch>> {
    let inserts = prop::collection::vec((row, 1..4i64), 0..12);
    let take_back = prop::collection::vec(any::<prop::sample::Index>(), 0..if retract { 10 } else { 1 });
    let epoch = (inserts, take_back, any::<u64>(), 1..4usize);
    prop::collection::vec(epoch, 1..8).prop_map(build).boxed()
}

type Draft = (Vec<(Row, i64)>, Vec<prop::sample::Index>, u64, usize);

fn build(drafts: Vec<Draft>) -> Vec<Epoch> {
    let mut bag = Bag::new();
    let mut epochs = Vec::new();
    for (inserts, take_back, seed, batches) in drafts {
        let mut rows = inserts.clone();
        add(&mut bag, inserts);
        for index in take_back {
            if !bag.is_empty() {
                let row = index.get(&bag.keys().cloned().collect::<Vec<_>>()).clone();
                add(&mut bag, [(row.clone(), -1)]);
                rows.push((row, -1));
            }
        }
        epochs.push(Epoch { batches: cut(rows, seed, batches), watermark: NO_WATERMARK });
    }
    epochs
}

/// Shuffles rows and cuts them into batches.
pub fn cut(mut rows: Vec<(Row, i64)>, mut seed: u64, batches: usize) -> Vec<Vec<(Row, i64)>> {
    for i in (1..rows.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        rows.swap(i, (seed >> 33) as usize % (i + 1));
    }
    let size = rows.len().div_ceil(batches).max(1);
    rows.chunks(size).map(<[_]>::to_vec).collect()
}

/// Runs a history and compares the accumulated output with the reference after every epoch.
pub fn check(
    operator: &mut dyn Operator,
    schema: &SchemaRef,
    epochs: &[Epoch],
    reference: impl Fn(&Bag) -> Bag,
) -> Bag {
    let (mut input, mut output) = (Bag::new(), Bag::new());
    for epoch in epochs {
        add(&mut input, epoch.batches.iter().flatten().cloned());
        add(&mut output, step(operator, schema, epoch, &mut Vec::new()));
        assert_eq!(output, reference(&input));
    }
    output
}

/// An epoch that takes back everything of a history.
pub fn all_taken_back(epochs: &[Epoch]) -> Epoch {
    let mut bag = Bag::new();
    add(&mut bag, epochs.iter().flat_map(|e| e.batches.iter().flatten().cloned()));
    let rows = bag.into_iter().map(|(row, n)| (row, -n)).collect();
    Epoch { batches: vec![rows], watermark: NO_WATERMARK }
}
