//! Arrow types and PostgreSQL types.
//!
//! A text column may be more to PostgreSQL than text: its field's metadata says so under
//! `tidemill.type` (`jsonb`, `json`, `uuid`, `name`, ...), and integer columns of the system tables are `oid`s.

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use pgwire::api::Type;
use pgwire::messages::data::FieldDescription;

/// The key under which a field's metadata names its PostgreSQL type.
const TYPE_KEY: &str = "tidemill.type";

/// Digits after the point that a parameter declared as plain `numeric` can have.
pub const PARAMETER_SCALE: i8 = 10;

/// A column's type on the wire.
pub fn of_field(field: &Field) -> Type {
    match field.metadata().get(TYPE_KEY).map(String::as_str) {
        Some("jsonb") => Type::JSONB,
        Some("json") => Type::JSON,
        Some("uuid") => Type::UUID,
        Some("name") => Type::NAME,
        Some("char") => Type::CHAR,
        Some("oid") => Type::OID,
        Some("varchar") => Type::VARCHAR,
        _ => of_type(field.data_type()),
    }
}

/// The PostgreSQL type that holds an Arrow type's values.
pub fn of_type(data_type: &DataType) -> Type {
    match data_type {
        DataType::Boolean => Type::BOOL,
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => Type::INT2,
        DataType::Int32 | DataType::UInt16 => Type::INT4,
        DataType::Int64 | DataType::UInt32 => Type::INT8,
        DataType::Float16 | DataType::Float32 => Type::FLOAT4,
        DataType::Float64 => Type::FLOAT8,
        DataType::UInt64
        | DataType::Decimal32(_, _)
        | DataType::Decimal64(_, _)
        | DataType::Decimal128(_, _)
        | DataType::Decimal256(_, _) => Type::NUMERIC,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Type::BYTEA,
        DataType::Date32 | DataType::Date64 => Type::DATE,
        DataType::Time32(_) | DataType::Time64(_) => Type::TIME,
        DataType::Timestamp(_, None) => Type::TIMESTAMP,
        DataType::Timestamp(_, Some(_)) => Type::TIMESTAMPTZ,
        DataType::Interval(_) | DataType::Duration(_) => Type::INTERVAL,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            array_of(&of_field(item))
        }
        DataType::Struct(_) | DataType::Map(_, _) => Type::JSON,
        DataType::Dictionary(_, value) => of_type(value),
        _ => Type::TEXT,
    }
}

/// The type of arrays of a type.
fn array_of(item: &Type) -> Type {
    match *item {
        Type::BOOL => Type::BOOL_ARRAY,
        Type::INT2 => Type::INT2_ARRAY,
        Type::INT4 => Type::INT4_ARRAY,
        Type::INT8 => Type::INT8_ARRAY,
        Type::FLOAT4 => Type::FLOAT4_ARRAY,
        Type::FLOAT8 => Type::FLOAT8_ARRAY,
        Type::NUMERIC => Type::NUMERIC_ARRAY,
        Type::BYTEA => Type::BYTEA_ARRAY,
        Type::DATE => Type::DATE_ARRAY,
        Type::TIME => Type::TIME_ARRAY,
        Type::TIMESTAMP => Type::TIMESTAMP_ARRAY,
        Type::TIMESTAMPTZ => Type::TIMESTAMPTZ_ARRAY,
        Type::INTERVAL => Type::INTERVAL_ARRAY,
        Type::JSON => Type::JSON_ARRAY,
        Type::JSONB => Type::JSONB_ARRAY,
        Type::UUID => Type::UUID_ARRAY,
        Type::NAME => Type::NAME_ARRAY,
        Type::OID => Type::OID_ARRAY,
        // Arrays of arrays have their elements' type in PostgreSQL.
        ref array if item_of(array).is_some() => array.clone(),
        _ => Type::TEXT_ARRAY,
    }
}

/// The type of an array type's elements; `None` for other types.
pub fn item_of(array: &Type) -> Option<Type> {
    match array.kind() {
        postgres_types::Kind::Array(item) => Some(item.clone()),
        _ => None,
    }
}

/// What the client's type for a parameter means here; `None` leaves it to the statement.
pub fn to_arrow(oid: u32) -> Option<DataType> {
    let pg_type = Type::from_oid(oid)?;
    if let Some(item) = item_of(&pg_type) {
        return Some(DataType::List(Field::new("item", to_arrow(item.oid())?, true).into()));
    }
    Some(match pg_type {
        Type::BOOL => DataType::Boolean,
        Type::INT2 => DataType::Int16,
        Type::INT4 => DataType::Int32,
        Type::INT8 | Type::OID => DataType::Int64,
        Type::FLOAT4 => DataType::Float32,
        Type::FLOAT8 => DataType::Float64,
        Type::NUMERIC => DataType::Decimal128(38, PARAMETER_SCALE),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::CHAR => DataType::Utf8,
        Type::UUID | Type::JSON | Type::JSONB => DataType::Utf8,
        Type::BYTEA => DataType::Binary,
        Type::DATE => DataType::Date32,
        Type::TIME => DataType::Time64(TimeUnit::Microsecond),
        Type::TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, None),
        Type::TIMESTAMPTZ => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Type::INTERVAL => DataType::Interval(IntervalUnit::MonthDayNano),
        _ => return None,
    })
}

/// What the client learns about a column.
pub fn describe(field: &Field, format: i16) -> FieldDescription {
    let pg_type = of_field(field);
    FieldDescription::new(field.name().clone(), 0, 0, pg_type.oid(), size(&pg_type), modifier(field), format)
}

/// The type's size in bytes, -1 where it varies.
fn size(pg_type: &Type) -> i16 {
    match *pg_type {
        Type::BOOL | Type::CHAR => 1,
        Type::INT2 => 2,
        Type::INT4 | Type::FLOAT4 | Type::DATE | Type::OID => 4,
        Type::INT8 | Type::FLOAT8 | Type::TIME | Type::TIMESTAMP | Type::TIMESTAMPTZ => 8,
        Type::INTERVAL | Type::UUID => 16,
        Type::NAME => 64,
        _ => -1,
    }
}

/// Precision and scale of a numeric as PostgreSQL packs them, else -1.
fn modifier(field: &Field) -> i32 {
    match field.data_type() {
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) if *scale >= 0 => {
            (i32::from(*precision) << 16 | i32::from(*scale)) + 4
        }
        _ => -1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_with_a_name_is_that_type() {
        let field = Field::new("a", DataType::Utf8, true);
        assert_eq!(of_field(&field), Type::TEXT);
        let json = field.with_metadata([(TYPE_KEY.to_string(), "jsonb".to_string())].into());
        assert_eq!(of_field(&json), Type::JSONB);
        assert_eq!(of_type(&DataType::List(json.into())), Type::JSONB_ARRAY);
    }

    #[test]
    fn parameters_come_back() {
        for pg_type in
            [Type::INT2, Type::INT8, Type::FLOAT8, Type::NUMERIC, Type::DATE, Type::TIMESTAMPTZ, Type::INT4_ARRAY]
        {
            assert_eq!(of_type(&to_arrow(pg_type.oid()).unwrap()), pg_type);
        }
        assert_eq!(to_arrow(0), None);
    }
}
