//! Functions that PostgreSQL has and DataFusion has not, or has with another meaning.
//!
//! One file for each kind of value. A function is a row in a table: its name, what it takes, what it gives,
//! and its body, which works on whole columns. Where DataFusion has a function of the same name for other
//! types, that one stays for these.

mod array;
mod json;
mod number;
mod text;
mod time;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, TimeUnit};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

pub(crate) use self::json::normal as normal_json;
pub(crate) use self::time::{parse_interval, parse_timestamp};
use crate::as_of::MatchMark;
use crate::provider::external;
use crate::signed::signed_functions;
use crate::sql_type::{tagged, timestamptz, type_name};
use crate::to_char::ToChar;
use crate::told_apart::ToldApart;
use crate::{SqlError, state};

/// What an argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    Text,
    Int,
    Long,
    Float,
    /// A decimal; integers become decimals.
    Decimal,
    /// A decimal and nothing else.
    Exact,
    /// A float and nothing else.
    Double,
    /// A time of the day.
    Time,
    Bool,
    Timestamp,
    TimestampTz,
    Interval,
    /// A list of anything.
    List,
    /// A list of texts.
    Texts,
    /// Whatever comes, as it is.
    Any,
}

/// What a function gives.
#[derive(Clone, Copy)]
pub(crate) enum Gives {
    Text,
    Int,
    Float,
    Bool,
    Timestamp,
    TimestampTz,
    Date,
    Time,
    Interval,
    Texts,
    Json,
    /// A decimal of 38 digits with so many after the point.
    Decimal(i8),
    /// What this argument is.
    Same(usize),
    /// What the elements of this argument are.
    Item(usize),
}

type Body = fn(&[ArrayRef], &DataType) -> Result<ArrayRef, SqlError>;

/// A function of ours.
pub(crate) struct Function {
    name: &'static str,
    takes: &'static [Takes],
    /// How many arguments there must be; the last one may be repeated if `repeats`.
    required: usize,
    repeats: bool,
    gives: Gives,
    body: Body,
}

const fn function(name: &'static str, takes: &'static [Takes], gives: Gives, body: Body) -> Function {
    Function { name, takes, required: takes.len(), repeats: false, gives, body }
}

impl Function {
    /// The arguments from the `required`th on may be left out.
    const fn required(self, required: usize) -> Self {
        Function { required, ..self }
    }

    /// The last argument may be repeated.
    const fn repeats(self) -> Self {
        Function { repeats: true, ..self }
    }

    /// The types that arguments of these types become; `None` if they do not fit.
    fn accept(&self, types: &[DataType]) -> Option<Vec<DataType>> {
        if types.len() < self.required || types.len() > self.takes.len() && !self.repeats {
            return None;
        }
        let last = self.takes.last();
        types.iter().enumerate().map(|(i, own)| self.takes.get(i).or(last)?.accept(own)).collect()
    }

    fn result(&self, types: &[DataType]) -> DataType {
        match self.gives {
            Gives::Text | Gives::Json => DataType::Utf8,
            Gives::Int => DataType::Int32,
            Gives::Float => DataType::Float64,
            Gives::Bool => DataType::Boolean,
            Gives::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Gives::TimestampTz => timestamptz(),
            Gives::Date => DataType::Date32,
            Gives::Time => DataType::Time64(TimeUnit::Microsecond),
            Gives::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            Gives::Texts => DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))),
            Gives::Decimal(scale) => DataType::Decimal128(38, scale),
            Gives::Item(arg) => match types.get(arg) {
                Some(DataType::List(item)) => item.data_type().clone(),
                _ => DataType::Utf8,
            },
            Gives::Same(arg) => types.get(arg).cloned().unwrap_or(DataType::Utf8),
        }
    }
}

impl Takes {
    fn accept(self, own: &DataType) -> Option<DataType> {
        // What `->` gives before it is made a `jsonb`.
        let json = matches!(own, DataType::Union(..));
        let text = own.is_string() || json || *own == DataType::Null;
        let number = own.is_numeric() || *own == DataType::Null;
        let time = text || matches!(own, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64);
        match self {
            Takes::Text => text.then_some(DataType::Utf8),
            Takes::Int => (own.is_integer() || *own == DataType::Null).then_some(DataType::Int32),
            Takes::Long => (own.is_integer() || *own == DataType::Null).then_some(DataType::Int64),
            Takes::Float => number.then_some(DataType::Float64),
            Takes::Decimal => match own {
                DataType::Decimal128(..) => Some(own.clone()),
                own if own.is_integer() => Some(DataType::Decimal128(20, 0)),
                _ => None,
            },
            Takes::Exact => matches!(own, DataType::Decimal128(..)).then(|| own.clone()),
            Takes::Double => matches!(own, DataType::Float32 | DataType::Float64).then_some(DataType::Float64),
            Takes::Time => matches!(own, DataType::Time64(_)).then_some(DataType::Time64(TimeUnit::Microsecond)),
            Takes::Bool => matches!(own, DataType::Boolean | DataType::Null).then_some(DataType::Boolean),
            Takes::Timestamp => time.then_some(DataType::Timestamp(TimeUnit::Microsecond, None)),
            Takes::TimestampTz => matches!(own, DataType::Timestamp(_, Some(_))).then(timestamptz),
            Takes::Interval => {
                let interval = matches!(own, DataType::Interval(_) | DataType::Duration(_));
                interval.then_some(DataType::Interval(IntervalUnit::MonthDayNano))
            }
            Takes::List => match own {
                DataType::List(_) => Some(own.clone()),
                DataType::LargeList(item) | DataType::FixedSizeList(item, _) => Some(DataType::List(item.clone())),
                _ => None,
            },
            Takes::Texts => {
                let list =
                    text || matches!(own, DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..));
                list.then(|| DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))))
            }
            Takes::Any => Some(match own {
                DataType::Utf8View | DataType::LargeUtf8 | DataType::Null | DataType::Union(..) => DataType::Utf8,
                DataType::Dictionary(_, values) => values.as_ref().clone(),
                other => other.clone(),
            }),
        }
    }
}

/// Functions of one name for different arguments, and DataFusion's of that name for others.
struct Overloaded {
    name: &'static str,
    ours: Vec<&'static Function>,
    theirs: Option<Arc<ScalarUDF>>,
    signature: Signature,
}

impl Overloaded {
    fn ours(&self, types: &[DataType]) -> Option<(&'static Function, Vec<DataType>)> {
        self.ours.iter().find_map(|function| Some((*function, function.accept(types)?)))
    }

    fn unknown(&self, types: &[DataType]) -> DataFusionError {
        let names: Vec<_> = types.iter().map(type_name).collect();
        let message = format!("function {}({}) does not exist", self.name, names.join(", "));
        let error = SqlError::new(state::UNDEFINED_FUNCTION, message);
        external(error.hint("No function matches the given name and argument types; you might need a cast."))
    }
}

impl std::fmt::Debug for Overloaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Overloaded {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Overloaded {}

impl Hash for Overloaded {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Overloaded {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        if let Some((_, accepted)) = self.ours(types) {
            return Ok(accepted);
        }
        let Some(theirs) = &self.theirs else { return Err(self.unknown(types)) };
        let fields: Vec<FieldRef> = types.iter().map(|t| Arc::new(Field::new("", t.clone(), true))).collect();
        let fields = fields_with_udf(&fields, theirs.as_ref()).map_err(|_| self.unknown(types))?;
        Ok(fields.iter().map(|field| field.data_type().clone()).collect())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match (self.ours(types), &self.theirs) {
            (Some((function, accepted)), _) => Ok(function.result(&accepted)),
            (None, Some(theirs)) => theirs.return_type(types),
            (None, None) => Err(self.unknown(types)),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let types: Vec<_> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let Some((function, accepted)) = self.ours(&types) else {
            let Some(theirs) = &self.theirs else { return Err(self.unknown(&types)) };
            return theirs.return_field_from_args(args);
        };
        let field = Field::new(self.name, function.result(&accepted), true);
        Ok(Arc::new(match function.gives {
            Gives::Json => tagged(field, "jsonb"),
            _ => field,
        }))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let types: Vec<_> = args.args.iter().map(ColumnarValue::data_type).collect();
        let Some((function, _)) = self.ours(&types) else {
            let Some(theirs) = &self.theirs else { return Err(self.unknown(&types)) };
            return theirs.invoke_with_args(args);
        };
        let scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { args.number_rows };
        let arrays = args.args.into_iter().map(|arg| arg.into_array(rows)).collect::<Result<Vec<_>>>()?;
        let value = (function.body)(&arrays, args.return_field.data_type()).map_err(external)?;
        Ok(match scalar {
            true => ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(&value, 0)?),
            false => ColumnarValue::Array(value),
        })
    }

    fn simplify(&self, args: Vec<Expr>, context: &SimplifyContext) -> Result<ExprSimplifyResult> {
        match &self.theirs {
            Some(theirs) if self.ours.is_empty() => theirs.simplify(args, context),
            _ => Ok(ExprSimplifyResult::Original(args)),
        }
    }
}

/// Adds them to a session.
pub(crate) fn register(state: &mut SessionState) -> Result<()> {
    state.register_udf(Arc::new(ScalarUDF::new_from_impl(ToChar::new())))?;
    state.register_udf(Arc::new(crate::numeric::modulo()))?;
    state.register_udf(Arc::new(ScalarUDF::new_from_impl(ToldApart::new())))?;
    for function in signed_functions() {
        state.register_udwf(Arc::new(function))?;
    }
    for mark in MatchMark::both() {
        state.register_udf(Arc::new(ScalarUDF::new_from_impl(mark)))?;
    }
    let tables: [&'static [Function]; 5] =
        [text::FUNCTIONS, number::FUNCTIONS, time::FUNCTIONS, json::FUNCTIONS, array::FUNCTIONS];
    let mut names: Vec<(&'static str, Vec<&'static Function>)> = Vec::new();
    for function in tables.into_iter().flatten() {
        match names.iter_mut().find(|(name, _)| *name == function.name) {
            Some((_, functions)) => functions.push(function),
            None => names.push((function.name, vec![function])),
        }
    }
    for (name, ours) in names {
        let theirs = state.scalar_functions().get(name).cloned();
        let signature = Signature::user_defined(Volatility::Immutable);
        state.register_udf(Arc::new(ScalarUDF::new_from_impl(Overloaded { name, ours, theirs, signature })))?;
    }
    Ok(())
}

fn texts(array: &ArrayRef) -> &StringArray {
    array.as_string::<i32>()
}

/// One text per row; NULL where an argument is.
fn text_rows(
    args: &[ArrayRef],
    each: impl Fn(usize) -> Result<Option<String>, SqlError>,
) -> Result<ArrayRef, SqlError> {
    let rows = args.first().map_or(0, |array| array.len());
    let known = |row: usize| args.iter().all(|array| array.is_valid(row));
    let values = (0..rows).map(|row| if known(row) { each(row) } else { Ok(None) });
    Ok(Arc::new(values.collect::<Result<StringArray, SqlError>>()?))
}

/// The error of a function about one of its arguments.
fn invalid(message: impl Into<String>) -> SqlError {
    SqlError::new(state::INVALID_PARAMETER_VALUE, message)
}
