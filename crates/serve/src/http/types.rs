//! The names of types as SQL knows them.

use arrow::datatypes::{DataType, Field};
use tidemill_connect::is_jsonb;

/// The name of a column's type.
pub(crate) fn type_name(field: &Field) -> String {
    let name = match field.data_type() {
        _ if is_jsonb(field) => "jsonb",
        DataType::Null | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text",
        DataType::Boolean => "boolean",
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "smallint",
        DataType::Int32 | DataType::UInt16 => "integer",
        DataType::Int64 | DataType::UInt32 => "bigint",
        DataType::UInt64 => "numeric(20,0)",
        DataType::Float16 | DataType::Float32 => "real",
        DataType::Float64 => "double precision",
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => return format!("numeric({p},{s})"),
        DataType::Date32 | DataType::Date64 => "date",
        DataType::Time32(_) | DataType::Time64(_) => "time",
        DataType::Timestamp(_, Some(_)) => "timestamptz",
        DataType::Timestamp(_, None) => "timestamp",
        DataType::Interval(_) | DataType::Duration(_) => "interval",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => "bytea",
        DataType::List(f) | DataType::LargeList(f) | DataType::ListView(f) | DataType::FixedSizeList(f, _) => {
            return format!("{}[]", type_name(f));
        }
        DataType::Dictionary(_, value) => return type_name(&Field::new("", value.as_ref().clone(), true)),
        DataType::Struct(_) => "record",
        other => return other.to_string().to_lowercase(),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::TimeUnit;

    use super::*;

    fn name_of(data_type: DataType) -> String {
        type_name(&Field::new("a", data_type, true))
    }

    #[test]
    fn types_have_sql_names() {
        assert_eq!(name_of(DataType::List(Arc::new(Field::new("item", DataType::Int32, true)))), "integer[]");
        assert_eq!(name_of(DataType::Decimal128(10, 2)), "numeric(10,2)");
        assert_eq!(name_of(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))), "timestamptz");
        assert_eq!(name_of(DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8))), "text");
        let metadata = [("tidemill.type".to_owned(), "jsonb".to_owned())].into();
        assert_eq!(type_name(&Field::new("a", DataType::Utf8, true).with_metadata(metadata)), "jsonb");
    }
}
