//! `sum`, `avg`, `var` and `stddev` of floats without rounding on the way: a query over tables answers bit by bit what a view over them holds, in whichever order rows come.
//!
//! Other arguments, and `DISTINCT`, stay with DataFusion's own functions.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, GroupsAccumulator, ReversedUDAF, SetMonotonicity,
    Signature,
};
use tidemill_plan::{ExactSum, Moments};

/// Puts them in the place of DataFusion's.
pub(crate) fn register(state: &mut SessionState) -> Result<()> {
    let variance = |sample, root| Of::Variance { sample, root };
    let functions = [
        ("sum", Of::Sum),
        ("avg", Of::Average),
        ("var", variance(true, false)),
        ("var_pop", variance(false, false)),
        ("stddev", variance(true, true)),
        ("stddev_pop", variance(false, true)),
    ];
    for (name, of) in functions {
        let inner = state.udaf(name)?;
        state.register_udaf(Arc::new(AggregateUDF::new_from_impl(Exact { inner, of })))?;
    }
    Ok(())
}

/// Which value is made of the sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Of {
    Sum,
    Average,
    Variance { sample: bool, root: bool },
}

/// One of DataFusion's functions, with an accumulator of ours where sums could be rounded.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Exact {
    inner: Arc<AggregateUDF>,
    of: Of,
}

impl Exact {
    /// Whether the sums of the arguments could be rounded.
    fn is_ours(arg: Option<&FieldRef>, distinct: bool) -> bool {
        !distinct && arg.is_some_and(|arg| arg.data_type() == &DataType::Float64)
    }

    fn own(&self) -> Box<dyn Accumulator> {
        match self.of {
            Of::Variance { sample, root } => Box::new(Spread { moments: Moments::default(), sample, root }),
            of => Box::new(Total { sum: ExactSum::default(), count: 0, average: of == Of::Average }),
        }
    }
}

impl AggregateUDFImpl for Exact {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        self.inner.return_type(args)
    }

    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(args)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match Exact::is_ours(args.expr_fields.first(), args.is_distinct) {
            true => Ok(self.own()),
            false => self.inner.accumulator(args),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        if !Exact::is_ours(args.input_fields.first(), args.is_distinct) {
            return self.inner.state_fields(args);
        }
        let field = |name: &str, data_type| Arc::new(Field::new(format!("{}[{name}]", args.name), data_type, true));
        let list = |name: &str, item| field(name, DataType::List(Arc::new(Field::new_list_field(item, true))));
        let sum = |name: &str| {
            [list(name, DataType::Float64), list(&format!("{name} specials"), DataType::Int64)].into_iter()
        };
        let count = std::iter::once(field("count", DataType::Int64));
        Ok(match self.of {
            Of::Variance { .. } => count.chain(sum("sum")).chain(sum("squares")).collect(),
            _ => count.chain(sum("sum")).collect(),
        })
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        !Exact::is_ours(args.expr_fields.first(), args.is_distinct) && self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        self.inner.create_groups_accumulator(args)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        match Exact::is_ours(args.expr_fields.first(), args.is_distinct) {
            true => Ok(self.own()),
            false => self.inner.create_sliding_accumulator(args),
        }
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn is_nullable(&self) -> bool {
        self.inner.is_nullable()
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.inner.default_value(data_type)
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.inner.inner().set_monotonicity(data_type)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}

/// Each value that is not NULL.
fn each_float(values: &[ArrayRef], mut take: impl FnMut(f64)) -> Result<()> {
    let values = column(values, 0)?.as_primitive::<Float64Type>();
    values.iter().flatten().for_each(&mut take);
    Ok(())
}

fn column(columns: &[ArrayRef], at: usize) -> Result<&ArrayRef> {
    columns.get(at).ok_or_else(|| DataFusionError::Internal("an aggregate lost a column".into()))
}

/// A sum as two lists: its parts, and how often it has what has no exact sum.
fn sum_state(sum: &ExactSum) -> [ScalarValue; 2] {
    let parts: Vec<_> = sum.parts().iter().map(|part| ScalarValue::Float64(Some(*part))).collect();
    let specials = sum.specials().map(|count| ScalarValue::Int64(Some(count)));
    [
        ScalarValue::List(ScalarValue::new_list_nullable(&parts, &DataType::Float64)),
        ScalarValue::List(ScalarValue::new_list_nullable(&specials, &DataType::Int64)),
    ]
}

/// Undoes [`sum_state`] for one row of its two columns, which begin at `at`.
fn sum_of(states: &[ArrayRef], at: usize, row: usize) -> Result<ExactSum> {
    let (parts, specials) = (column(states, at)?.as_list::<i32>(), column(states, at + 1)?.as_list::<i32>());
    let (parts, specials) = (parts.value(row), specials.value(row));
    let specials = specials.as_primitive::<Int64Type>();
    let special = |i: usize| if i < specials.len() { specials.value(i) } else { 0 };
    Ok(ExactSum::from_parts(parts.as_primitive::<Float64Type>().values(), [special(0), special(1), special(2)]))
}

fn counts(states: &[ArrayRef]) -> Result<&arrow::array::Int64Array> {
    Ok(column(states, 0)?.as_primitive::<Int64Type>())
}

/// `sum` and `avg` of floats.
#[derive(Debug)]
struct Total {
    sum: ExactSum,
    count: i64,
    average: bool,
}

impl Accumulator for Total {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        each_float(values, |value| {
            self.sum.add(value, 1);
            self.count += 1;
        })
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        each_float(values, |value| {
            self.sum.add(value, -1);
            self.count -= 1;
        })
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let divisor = if self.average { self.count as f64 } else { 1.0 };
        Ok(ScalarValue::Float64((self.count != 0).then(|| self.sum.value() / divisor)))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok([ScalarValue::Int64(Some(self.count))].into_iter().chain(sum_state(&self.sum)).collect())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for (row, count) in counts(states)?.values().iter().enumerate() {
            self.count += count;
            self.sum.merge(&sum_of(states, 1, row)?);
        }
        Ok(())
    }
}

/// `var` and `stddev`.
#[derive(Debug)]
struct Spread {
    moments: Moments,
    sample: bool,
    root: bool,
}

impl Accumulator for Spread {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        each_float(values, |value| self.moments.add(value, 1))
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        each_float(values, |value| self.moments.add(value, -1))
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let variance = self.moments.variance(self.sample);
        Ok(ScalarValue::Float64(if self.root { variance.map(f64::sqrt) } else { variance }))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let (count, sum, squares) = self.moments.sums();
        let count = ScalarValue::Int64(Some(count));
        Ok([count].into_iter().chain(sum_state(sum)).chain(sum_state(squares)).collect())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for (row, count) in counts(states)?.values().iter().enumerate() {
            let (sum, squares) = (sum_of(states, 1, row)?, sum_of(states, 3, row)?);
            self.moments.merge(&Moments::from_sums(*count, sum, squares));
        }
        Ok(())
    }
}
