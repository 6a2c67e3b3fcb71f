//! Casts as PostgreSQL has them, before DataFusion coerces types.
//!
//! - Texts become times, intervals, arrays, truth values, `jsonb` and `uuid` as they do in an `INSERT`.
//! - `varchar(n)` and `char(n)` cut, `timestamp(p)` rounds.
//! - `j -> 'a'` is a `jsonb`; DataFusion's JSON functions give a union of types.
//! - A literal beside a time is a time, in all forms that PostgreSQL reads.

use std::hash::Hash;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, Cast, ColumnarValue, Expr, ExprSchemable, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility, lit,
};
use datafusion::optimizer::AnalyzerRule;

use crate::assign::{assign, round_times};
use crate::functions::parse_timestamp;
use crate::provider::external;
use crate::sql_type::{LENGTH_KEY, PRECISION_KEY, TYPE_KEY, tagged};

/// The rule; see the module.
#[derive(Debug)]
pub(crate) struct Casts {
    /// Functions of ours by their names.
    functions: Vec<Arc<ScalarUDF>>,
    get: Arc<ScalarUDF>,
}

/// The functions that take anything and make JSON of it.
const TO_JSON: &[&str] =
    &["to_json", "to_jsonb", "json_build_object", "jsonb_build_object", "json_build_array", "jsonb_build_array"];

/// The functions whose second argument is an array of texts, which may be written `'{a,b}'`.
const WITH_TEXTS: &[&str] = &[
    "jsonb_at_path",
    "jsonb_at_path_text",
    "jsonb_set",
    "jsonb_insert",
    "jsonb_delete_path",
    "jsonb_exists_any",
    "jsonb_exists_all",
];

impl Casts {
    /// With functions of ours.
    pub(crate) fn new(functions: Vec<Arc<ScalarUDF>>) -> Self {
        Casts { functions, get: Arc::new(ScalarUDF::new_from_impl(JsonGet::new())) }
    }

    fn rewrite(&self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let schema = merge_schema(&plan.inputs());
        let names = NamePreserver::new(&plan);
        let plan = plan.map_expressions(|expr| {
            if matches!(expr, Expr::GroupingSet(_)) {
                return Ok(Transformed::no(expr));
            }
            let name = names.save(&expr);
            let rewritten = expr.transform_up(|expr| self.rewrite_expr(expr, &schema))?;
            Ok(rewritten.update_data(|expr| name.restore(expr)))
        })?;
        plan.map_data(|plan| plan.recompute_schema())
    }

    fn rewrite_expr(&self, expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        Ok(match expr {
            Expr::Cast(cast) => self.cast(cast, schema)?,
            Expr::BinaryExpr(binary) => Transformed::yes(Expr::BinaryExpr(beside_times(binary, schema))),
            Expr::ScalarFunction(mut call) if call.func.name() == "json_get" => {
                call.func = self.get.clone();
                Transformed::yes(Expr::ScalarFunction(call))
            }
            Expr::ScalarFunction(mut call) if WITH_TEXTS.contains(&call.func.name()) => {
                let texts = Arc::new(Field::new("texts", DataType::new_list(DataType::Utf8, true), true));
                for arg in call.args.iter_mut().skip(1).take(1) {
                    if matches!(arg.get_type(schema), Ok(own) if own.is_string()) {
                        *arg = ScalarUDF::new_from_impl(ReadText::new(&texts)).call(vec![arg.clone()]);
                    }
                }
                Transformed::yes(Expr::ScalarFunction(call))
            }
            Expr::ScalarFunction(call) if TO_JSON.contains(&call.func.name()) => self.marked(call, schema)?,
            other => Transformed::no(other),
        })
    }

    fn function(&self, name: &str, args: Vec<Expr>) -> Result<Expr> {
        let function = self.functions.iter().find(|function| function.name() == name);
        let function = function.ok_or_else(|| DataFusionError::Internal(format!("no function {name}")))?;
        Ok(function.call(args))
    }

    /// Tells `jsonb` among arguments of any type from text.
    fn marked(&self, mut call: ScalarFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
        for arg in &mut call.args {
            if is_json(arg, schema) {
                *arg = self.function("jsonb_mark", vec![arg.clone()])?;
            }
        }
        Ok(Transformed::yes(Expr::ScalarFunction(call)))
    }

    fn cast(&self, cast: Cast, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let Cast { expr, field } = cast;
        let from = expr.get_type(schema).ok();
        let kind = field.metadata().get(TYPE_KEY).map(String::as_str);
        let text = from.as_ref().is_some_and(DataType::is_string);
        let read = text
            && (kind.is_some() || is_read(field.data_type()))
            && !(kind == Some("jsonb") && is_json(&expr, schema));
        if matches!(from, Some(DataType::Decimal128(38, 10))) && field.data_type().is_string() {
            return Ok(Transformed::yes(self.function("trimmed_text", vec![*expr])?));
        }
        let limit = |key: &str| field.metadata().get(key).and_then(|n| n.parse::<i32>().ok());
        let (length, precision) = (limit(LENGTH_KEY), limit(PRECISION_KEY));
        if !read && length.is_none() && precision.is_none() {
            return Ok(Transformed::no(Expr::Cast(Cast { expr, field })));
        }
        let mut value = match read {
            true => ScalarUDF::new_from_impl(ReadText::new(&field)).call(vec![*expr]),
            false => Expr::Cast(Cast::new(expr, field.data_type().clone())),
        };
        if let Some(length) = length {
            value = self.function("limit_text", vec![value, lit(length)])?;
        }
        if let Some(precision) = precision {
            value = ScalarUDF::new_from_impl(RoundTime::new(precision)).call(vec![value]);
        }
        Ok(Transformed::yes(value))
    }
}

impl AnalyzerRule for Casts {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        Ok(plan.transform_up_with_subqueries(|plan| self.rewrite(plan))?.data)
    }

    fn name(&self) -> &str {
        "casts"
    }
}

fn is_json(expr: &Expr, schema: &DFSchema) -> bool {
    expr.to_field(schema).is_ok_and(|(_, field)| field.metadata().get(TYPE_KEY).is_some_and(|name| name == "jsonb"))
}

/// Types that are read from text by us.
fn is_read(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::List(_) | DataType::Timestamp(..) | DataType::Date32 | DataType::Interval(_) | DataType::Boolean
    )
}

/// A text literal beside a time as a time.
fn beside_times(binary: BinaryExpr, schema: &DFSchema) -> BinaryExpr {
    let zone = |expr: &Expr| match expr.get_type(schema) {
        Ok(DataType::Timestamp(_, zone)) => Some(zone),
        _ => None,
    };
    let time = |literal: &Expr, other: &Expr| -> Option<Expr> {
        let Expr::Literal(ScalarValue::Utf8(Some(text)), _) = literal else { return None };
        let zone = zone(other)?;
        let micros = parse_timestamp(text, zone.is_some())?;
        Some(Expr::Literal(ScalarValue::TimestampMicrosecond(Some(micros), zone), None))
    };
    if let Some(left) = time(&binary.left, &binary.right) {
        return BinaryExpr { left: Box::new(left), ..binary };
    }
    match time(&binary.right, &binary.left) {
        Some(right) => BinaryExpr { right: Box::new(right), ..binary },
        None => binary,
    }
}

/// Reads texts as values of a type, as an `INSERT` does.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ReadText {
    target: FieldRef,
    signature: Signature,
}

impl ReadText {
    fn new(target: &FieldRef) -> Self {
        let mut field = Field::new("value", target.data_type().clone(), true);
        if let Some(kind) = target.metadata().get(TYPE_KEY) {
            field = tagged(field, kind);
        }
        ReadText { target: Arc::new(field), signature: Signature::string(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for ReadText {
    fn name(&self) -> &str {
        "read"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.target.data_type().clone())
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(self.target.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        over_array(args, |texts| {
            let texts = arrow::compute::cast(texts, &DataType::Utf8)?;
            assign(&texts, &self.target).map_err(external)
        })
    }
}

/// Rounds times to some digits of a second.
#[derive(Debug, PartialEq, Eq, Hash)]
struct RoundTime {
    digits: i32,
    signature: Signature,
}

impl RoundTime {
    fn new(digits: i32) -> Self {
        RoundTime { digits, signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for RoundTime {
    fn name(&self) -> &str {
        "round_time"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Timestamp(TimeUnit::Microsecond, None)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        over_array(args, |times| Ok(round_times(times, self.digits)))
    }
}

/// `j -> key`: the JSON functions' `json_get_json`, with the type of its result.
#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonGet {
    inner: Arc<ScalarUDF>,
    signature: Signature,
}

impl JsonGet {
    fn new() -> Self {
        let inner = datafusion_functions_json::udfs::json_get_json_udf();
        JsonGet { signature: inner.signature().clone(), inner }
    }
}

impl ScalarUDFImpl for JsonGet {
    fn name(&self) -> &str {
        "jsonb_get"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let field = self.inner.return_field_from_args(args)?;
        Ok(Arc::new(tagged(field.as_ref().clone(), "jsonb")))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.inner.invoke_with_args(args)
    }
}

/// Applies a function of one array.
fn over_array(args: ScalarFunctionArgs, each: impl Fn(&ArrayRef) -> Result<ArrayRef>) -> Result<ColumnarValue> {
    let value = args.args.into_iter().next();
    let value = value.ok_or_else(|| DataFusionError::Internal("a cast without a value".into()))?;
    Ok(match value {
        ColumnarValue::Array(array) => ColumnarValue::Array(each(&array)?),
        ColumnarValue::Scalar(scalar) => {
            ColumnarValue::Scalar(ScalarValue::try_from_array(&each(&scalar.to_array()?)?, 0)?)
        }
    })
}
