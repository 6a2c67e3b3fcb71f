//! A small language to write system tables down: columns as words, rows as values.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Int16Builder, Int32Builder, Int64Builder, ListBuilder, RecordBatch, StringBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::SqlError;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Text(String),
    Texts(Vec<String>),
    Ints(Vec<i64>),
}

/// A row.
pub(super) type Row = Vec<Value>;

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::Int(value)
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Value::Int(value.into())
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::Text(value.to_string())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Value::Text(value)
    }
}

impl From<Vec<i64>> for Value {
    fn from(value: Vec<i64>) -> Self {
        Value::Ints(value)
    }
}

impl From<Vec<String>> for Value {
    fn from(value: Vec<String>) -> Self {
        Value::Texts(value)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// A row of values of any kind.
macro_rules! row {
    ($($value:expr),* $(,)?) => { vec![$($crate::pg_catalog::columns::Value::from($value)),*] };
}
pub(super) use row;

/// A system table's name and columns: `"oid:oid relname:name relpages:int4"`.
pub(super) struct Table {
    pub(super) namespace: &'static str,
    pub(super) name: &'static str,
    pub(super) columns: &'static str,
}

impl Table {
    /// Its columns for Arrow. Types that Arrow does not have are named in the metadata.
    pub(super) fn schema(&self) -> SchemaRef {
        let fields = self.columns.split_whitespace().map(|column| {
            let (name, kind) = column.split_once(':').unwrap_or((column, "text"));
            let (data_type, named) = arrow_type(kind);
            let field = Field::new(name, data_type, true);
            match named {
                Some(pg_type) => field.with_metadata([("tidemill.type".to_string(), pg_type.to_string())].into()),
                None => field,
            }
        });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// Rows as a batch. Rows may be shorter than the columns: the rest is NULL.
    pub(super) fn batch(&self, rows: &[Row]) -> Result<RecordBatch, SqlError> {
        let schema = self.schema();
        let columns = schema
            .fields()
            .iter()
            .enumerate()
            .map(|(i, field)| array(field.data_type(), rows.iter().map(|row| row.get(i).unwrap_or(&Value::Null))));
        let columns = columns.collect();
        RecordBatch::try_new(schema, columns).map_err(|e| SqlError::internal(format!("{}: {e}", self.name)))
    }
}

fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

fn arrow_type(kind: &str) -> (DataType, Option<&'static str>) {
    match kind {
        "bool" => (DataType::Boolean, None),
        "int2" => (DataType::Int16, None),
        "int4" => (DataType::Int32, None),
        "int8" => (DataType::Int64, None),
        "oid" => (DataType::Int64, Some("oid")),
        "name" => (DataType::Utf8, Some("name")),
        "char" => (DataType::Utf8, Some("char")),
        "text[]" => (list_of(DataType::Utf8), None),
        "int8[]" => (list_of(DataType::Int64), None),
        _ => (DataType::Utf8, None),
    }
}

/// Values as an array; a value of another kind is NULL.
pub(super) fn array<'a>(data_type: &DataType, values: impl Iterator<Item = &'a Value>) -> ArrayRef {
    let int = |value: &Value| if let Value::Int(v) = value { Some(*v) } else { None };
    match data_type {
        DataType::Boolean => {
            let mut builder = BooleanBuilder::new();
            values.for_each(|v| builder.append_option(if let Value::Bool(b) = v { Some(*b) } else { None }));
            Arc::new(builder.finish())
        }
        DataType::Int16 => {
            let mut builder = Int16Builder::new();
            values.for_each(|v| builder.append_option(int(v).and_then(|v| v.try_into().ok())));
            Arc::new(builder.finish())
        }
        DataType::Int32 => {
            let mut builder = Int32Builder::new();
            values.for_each(|v| builder.append_option(int(v).and_then(|v| v.try_into().ok())));
            Arc::new(builder.finish())
        }
        DataType::Int64 => {
            let mut builder = Int64Builder::new();
            values.for_each(|v| builder.append_option(int(v)));
            Arc::new(builder.finish())
        }
        DataType::List(item) if item.data_type() == &DataType::Int64 => {
            let mut builder = ListBuilder::new(Int64Builder::new());
            for value in values {
                match value {
                    Value::Ints(items) => builder.append_value(items.iter().map(|v| Some(*v))),
                    _ => builder.append_null(),
                }
            }
            Arc::new(builder.finish())
        }
        DataType::List(_) => {
            let mut builder = ListBuilder::new(StringBuilder::new());
            for value in values {
                match value {
                    Value::Texts(items) => builder.append_value(items.iter().map(Some)),
                    _ => builder.append_null(),
                }
            }
            Arc::new(builder.finish())
        }
        _ => {
            let mut builder = StringBuilder::new();
            values.for_each(|v| builder.append_option(if let Value::Text(t) = v { Some(t) } else { None }));
            Arc::new(builder.finish())
        }
    }
}
