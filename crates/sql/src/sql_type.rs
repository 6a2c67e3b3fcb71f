//! SQL's types as Arrow's, and back.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, IntervalUnit, TimeUnit};
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast::{self, ArrayElemTypeDef, ExactNumberInfo, TimezoneInfo};

use crate::statement::fold;
use crate::{SqlError, state};

/// The key under which a field's metadata holds a type that Arrow does not have.
pub(crate) const TYPE_KEY: &str = "tidemill.type";
/// The key under which it holds how many characters a text may have.
pub(crate) const LENGTH_KEY: &str = "tidemill.length";
/// The key under which it holds to how many digits of a second times are rounded.
pub(crate) const PRECISION_KEY: &str = "tidemill.precision";
/// Digits of a `numeric` without precision: all that 128 bits hold.
const NUMERIC_PRECISION: u8 = 38;
/// Digits after the point of a `numeric` without precision.
const NUMERIC_SCALE: i8 = 10;

/// `timestamp with time zone`.
pub(crate) fn timestamptz() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// A column of a SQL type. Types that are kept as text say in their metadata what they are.
pub(crate) fn field(name: &str, sql_type: &ast::DataType, nullable: bool) -> Result<Field, SqlError> {
    let field = Field::new(name, arrow_type(sql_type)?, nullable);
    Ok(match sql_type {
        ast::DataType::JSON | ast::DataType::JSONB => tagged(field, "jsonb"),
        ast::DataType::Uuid => tagged(field, "uuid"),
        ast::DataType::Varchar(length)
        | ast::DataType::CharacterVarying(length)
        | ast::DataType::CharVarying(length) => limited(field, LENGTH_KEY, length.as_ref().and_then(characters)),
        ast::DataType::Char(length) | ast::DataType::Character(length) => {
            let length = length.as_ref().map_or(Some(1), characters);
            limited(tagged(field, "bpchar"), LENGTH_KEY, length)
        }
        ast::DataType::Timestamp(digits, _) => limited(field, PRECISION_KEY, digits.filter(|digits| *digits < 6)),
        _ => field,
    })
}

fn limited(field: Field, key: &str, limit: Option<u64>) -> Field {
    let Some(limit) = limit else { return field };
    let mut metadata = field.metadata().clone();
    metadata.insert(key.to_owned(), limit.to_string());
    field.with_metadata(metadata)
}

fn characters(length: &ast::CharacterLength) -> Option<u64> {
    match length {
        ast::CharacterLength::IntegerLength { length, .. } => Some(*length),
        ast::CharacterLength::Max => None,
    }
}

/// A field of text that is more to PostgreSQL.
pub(crate) fn tagged(field: Field, name: &str) -> Field {
    field.with_metadata(HashMap::from([(TYPE_KEY.to_owned(), name.to_owned())]))
}

/// The Arrow type of a SQL type.
pub(crate) fn arrow_type(sql_type: &ast::DataType) -> Result<DataType, SqlError> {
    use ast::DataType as Sql;
    Ok(match sql_type {
        Sql::Bool | Sql::Boolean => DataType::Boolean,
        Sql::SmallInt(_) | Sql::Int2(_) | Sql::TinyInt(_) => DataType::Int16,
        Sql::Int(_) | Sql::Integer(_) | Sql::Int4(_) | Sql::MediumInt(_) => DataType::Int32,
        Sql::BigInt(_) | Sql::Int8(_) => DataType::Int64,
        Sql::Real | Sql::Float4 => DataType::Float32,
        Sql::Float(ExactNumberInfo::Precision(digits)) if *digits <= 24 => DataType::Float32,
        Sql::Float(_) | Sql::Double(_) | Sql::DoublePrecision | Sql::Float8 => DataType::Float64,
        Sql::Numeric(info) | Sql::Decimal(info) | Sql::Dec(info) => decimal(info)?,
        Sql::Text | Sql::String(_) | Sql::Varchar(_) | Sql::CharacterVarying(_) | Sql::CharVarying(_) => DataType::Utf8,
        Sql::Char(_) | Sql::Character(_) | Sql::JSON | Sql::JSONB | Sql::Uuid => DataType::Utf8,
        Sql::Bytea => DataType::Binary,
        Sql::Date => DataType::Date32,
        Sql::Time(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => DataType::Time64(TimeUnit::Microsecond),
        Sql::Timestamp(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            DataType::Timestamp(TimeUnit::Microsecond, None)
        }
        Sql::Timestamp(..) => timestamptz(),
        Sql::Interval { .. } => DataType::Interval(IntervalUnit::MonthDayNano),
        Sql::Array(
            ArrayElemTypeDef::SquareBracket(element, _)
            | ArrayElemTypeDef::AngleBracket(element)
            | ArrayElemTypeDef::Parenthesis(element),
        ) => DataType::List(Arc::new(Field::new_list_field(arrow_type(element)?, true))),
        Sql::Struct(fields, _) => DataType::Struct(structure(fields)?),
        Sql::Custom(name, _) => named(sql_type, name)?,
        other => return Err(unknown(other)),
    })
}

fn unknown(sql_type: &ast::DataType) -> SqlError {
    let name = sql_type.to_string().to_lowercase();
    SqlError::new(state::UNDEFINED_OBJECT, format!("type \"{name}\" does not exist or is not supported"))
}

/// Types that sqlparser has no word for.
fn named(sql_type: &ast::DataType, name: &ast::ObjectName) -> Result<DataType, SqlError> {
    let ident = name.0.last().and_then(|part| part.as_ident());
    let Some(ident) = ident else { return Err(unknown(sql_type)) };
    match fold(ident).as_str() {
        "string" | "name" | "bpchar" | "citext" => Ok(DataType::Utf8),
        _ => {
            let error = unknown(sql_type);
            match ident.span.start {
                start if start.line > 0 => Err(error.located(start.line, start.column)),
                _ => Err(error),
            }
        }
    }
}

fn decimal(info: &ExactNumberInfo) -> Result<DataType, SqlError> {
    let (precision, scale) = match *info {
        ExactNumberInfo::None => return Ok(DataType::Decimal128(NUMERIC_PRECISION, NUMERIC_SCALE)),
        ExactNumberInfo::Precision(precision) => (precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (precision, scale),
    };
    let invalid = |message| Err(SqlError::new(state::INVALID_PARAMETER_VALUE, message));
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(precision @ 1..=NUMERIC_PRECISION), Ok(scale)) if (0..=precision as i8).contains(&scale) => {
            Ok(DataType::Decimal128(precision, scale))
        }
        (Ok(1..=NUMERIC_PRECISION), _) => {
            invalid(format!("numeric scale {scale} must be between 0 and precision {precision}"))
        }
        _ => invalid(format!("numeric precision {precision} must be between 1 and {NUMERIC_PRECISION}")),
    }
}

fn structure(fields: &[ast::StructField]) -> Result<Fields, SqlError> {
    let mut result: Vec<Field> = Vec::with_capacity(fields.len());
    for (i, member) in fields.iter().enumerate() {
        let name = member.field_name.as_ref().map_or_else(|| format!("f{}", i + 1), fold);
        if result.iter().any(|known| *known.name() == name) {
            return Err(SqlError::new(
                state::DUPLICATE_COLUMN,
                format!("field \"{name}\" is specified more than once"),
            ));
        }
        result.push(field(&name, &member.field_type, true)?);
    }
    Ok(result.into())
}

/// A type as PostgreSQL calls it.
pub(crate) fn type_name(data_type: &DataType) -> String {
    let name = match data_type {
        DataType::Boolean => "boolean",
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => "smallint",
        DataType::UInt16 | DataType::Int32 => "integer",
        DataType::UInt32 | DataType::Int64 | DataType::UInt64 => "bigint",
        DataType::Float16 | DataType::Float32 => "real",
        DataType::Float64 => "double precision",
        DataType::Decimal128(NUMERIC_PRECISION, NUMERIC_SCALE) => "numeric",
        DataType::Decimal128(precision, scale) => return format!("numeric({precision},{scale})"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => "text",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "bytea",
        DataType::Date32 | DataType::Date64 => "date",
        DataType::Time32(_) | DataType::Time64(_) => "time without time zone",
        DataType::Timestamp(_, None) => "timestamp without time zone",
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone",
        DataType::Interval(_) | DataType::Duration(_) => "interval",
        DataType::List(element) | DataType::LargeList(element) => {
            return format!("{}[]", type_name(element.data_type()));
        }
        DataType::Struct(fields) => {
            let fields: Vec<_> = fields.iter().map(|f| format!("{} {}", f.name(), type_name(f.data_type()))).collect();
            return format!("struct<{}>", fields.join(", "));
        }
        other => return other.to_string(),
    };
    name.to_owned()
}

/// The SQL type that a cast to an Arrow type names, if there is one.
pub(crate) fn cast_type(data_type: &DataType) -> Option<ast::DataType> {
    use ast::DataType as Sql;
    Some(match data_type {
        DataType::Boolean => Sql::Boolean,
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => Sql::SmallInt(None),
        DataType::UInt16 | DataType::Int32 => Sql::Integer(None),
        DataType::UInt32 | DataType::Int64 | DataType::UInt64 => Sql::BigInt(None),
        DataType::Float16 | DataType::Float32 => Sql::Real,
        DataType::Float64 => Sql::DoublePrecision,
        DataType::Decimal128(precision, scale) => {
            Sql::Numeric(ExactNumberInfo::PrecisionAndScale(u64::from(*precision), i64::from(*scale)))
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Sql::Text,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Sql::Bytea,
        DataType::Date32 | DataType::Date64 => Sql::Date,
        DataType::Time32(_) | DataType::Time64(_) => Sql::Time(None, TimezoneInfo::None),
        DataType::Timestamp(_, None) => Sql::Timestamp(None, TimezoneInfo::None),
        DataType::Timestamp(_, Some(_)) => Sql::Timestamp(None, TimezoneInfo::WithTimeZone),
        DataType::Interval(_) | DataType::Duration(_) => Sql::Interval { fields: None, precision: None },
        DataType::List(element) => {
            Sql::Array(ArrayElemTypeDef::SquareBracket(Box::new(cast_type(element.data_type())?), None))
        }
        _ => return None,
    })
}

/// The type in which a value of a query goes to the user: what PostgreSQL would give, as a plain
/// array.
pub(crate) fn output_type(data_type: &DataType) -> DataType {
    let within = |field: &FieldRef| Arc::new(field.as_ref().clone().with_data_type(output_type(field.data_type())));
    match data_type {
        DataType::Null | DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Int8 | DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::Timestamp(_, None) | DataType::Date64 => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(_, Some(_)) => timestamptz(),
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Interval(_) | DataType::Duration(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Dictionary(_, values) => output_type(values),
        DataType::RunEndEncoded(_, values) => output_type(values.data_type()),
        DataType::List(element) | DataType::LargeList(element) | DataType::ListView(element) => {
            DataType::List(within(element))
        }
        DataType::FixedSizeList(element, _) => DataType::List(within(element)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(within).collect()),
        other => other.clone(),
    }
}

/// Makes casts in queries name the same types as column definitions do.
#[derive(Debug)]
pub(crate) struct SqlTypes;

impl TypePlanner for SqlTypes {
    fn plan_type_field(&self, sql_type: &ast::DataType) -> DfResult<Option<FieldRef>> {
        // What is not ours (`regclass`, ...) stays DataFusion's to refuse.
        Ok(field("", sql_type, true).ok().map(Arc::new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_types() {
        for data_type in [
            DataType::Boolean,
            DataType::Int16,
            DataType::Int64,
            DataType::Float32,
            DataType::Decimal128(12, 2),
            DataType::Utf8,
            DataType::Binary,
            DataType::Date32,
            DataType::Time64(TimeUnit::Microsecond),
            DataType::Timestamp(TimeUnit::Microsecond, None),
            timestamptz(),
            DataType::Interval(IntervalUnit::MonthDayNano),
            DataType::List(Arc::new(Field::new_list_field(DataType::Int32, true))),
        ] {
            let sql = cast_type(&data_type).expect("a SQL type");
            assert_eq!(arrow_type(&sql), Ok(data_type.clone()), "{sql}");
            assert_eq!(output_type(&data_type), data_type);
        }
    }

    #[test]
    fn numeric_limits() {
        assert_eq!(decimal(&ExactNumberInfo::None), Ok(DataType::Decimal128(38, 10)));
        assert_eq!(decimal(&ExactNumberInfo::Precision(5)), Ok(DataType::Decimal128(5, 0)));
        for (precision, scale) in [(0, 0), (39, 0), (300, 1), (5, 6), (5, -1)] {
            let error = decimal(&ExactNumberInfo::PrecisionAndScale(precision, scale)).expect_err("refused");
            assert_eq!(error.code, state::INVALID_PARAMETER_VALUE);
        }
    }
}
