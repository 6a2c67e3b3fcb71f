//! Functions that clients call about the system tables, and about the session.
//!
//! They run a row at a time over [`Value`]s: the tables are small, and plain code serves better here than speed.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use super::columns::{Value, array};
use super::names::{
    DATABASE, OWNER, TYPES, format_type, index_oid, namespace_name, namespace_oid, parts, quoted, relation_oid,
    type_oid, visible,
};
use super::relations::{class_name, index_definition, key_columns};
use super::{constants, names};
use crate::{Catalog, Relation, RelationKind};

/// What functions know.
struct Facts {
    relations: Vec<Arc<Relation>>,
}

type Body = fn(&Facts, &[Value]) -> Value;

/// A function's result type, in short.
#[derive(Clone, Copy)]
enum Gives {
    Text,
    Int,
    Bool,
    Texts,
}

struct Function {
    name: &'static str,
    gives: Gives,
    body: Body,
}

const fn function_of(name: &'static str, gives: Gives, body: Body) -> Function {
    Function { name, gives, body }
}

/// The functions. Permissions are always granted, comments and sizes always missing.
static FUNCTIONS: [Function; 76] = {
    use Gives::{Bool, Int, Text, Texts};
    [
        function_of("version", Text, |_, _| {
            concat!("PostgreSQL 16.0 (Tidemill ", env!("CARGO_PKG_VERSION"), ")").into()
        }),
        function_of("current_schema", Text, |_, _| "public".into()),
        function_of("current_schemas", Texts, |_, args| schemas(args)),
        function_of("current_database", Text, |_, _| DATABASE.into()),
        function_of("current_catalog", Text, |_, _| DATABASE.into()),
        function_of("current_user", Text, |_, _| OWNER.into()),
        function_of("current_role", Text, |_, _| OWNER.into()),
        function_of("session_user", Text, |_, _| OWNER.into()),
        function_of("user", Text, |_, _| OWNER.into()),
        function_of("current_setting", Text, |_, args| setting(args)),
        function_of("set_config", Text, |_, args| args.get(1).cloned().unwrap_or(Value::Null)),
        function_of("pg_backend_pid", Int, |_, _| 0.into()),
        function_of("pg_is_in_recovery", Bool, |_, _| false.into()),
        function_of("pg_is_wal_replay_paused", Bool, |_, _| false.into()),
        function_of("txid_current", Int, |_, _| 1.into()),
        function_of("pg_my_temp_schema", Int, |_, _| 0.into()),
        function_of("pg_is_other_temp_schema", Bool, |_, _| false.into()),
        function_of("pg_encoding_to_char", Text, |_, _| "UTF8".into()),
        function_of("pg_char_to_encoding", Int, |_, _| 6.into()),
        function_of("pg_client_encoding", Text, |_, _| "UTF8".into()),
        function_of("pg_get_userbyid", Text, |_, _| OWNER.into()),
        function_of("pg_table_is_visible", Bool, table_visible),
        function_of("pg_type_is_visible", Bool, |_, _| true.into()),
        function_of("pg_function_is_visible", Bool, |_, _| true.into()),
        function_of("pg_operator_is_visible", Bool, |_, _| true.into()),
        function_of("pg_opclass_is_visible", Bool, |_, _| true.into()),
        function_of("pg_collation_is_visible", Bool, |_, _| true.into()),
        function_of("pg_statistics_obj_is_visible", Bool, |_, _| true.into()),
        function_of("has_table_privilege", Bool, |_, _| true.into()),
        function_of("has_any_column_privilege", Bool, |_, _| true.into()),
        function_of("has_column_privilege", Bool, |_, _| true.into()),
        function_of("has_database_privilege", Bool, |_, _| true.into()),
        function_of("has_function_privilege", Bool, |_, _| true.into()),
        function_of("has_language_privilege", Bool, |_, _| true.into()),
        function_of("has_schema_privilege", Bool, |_, _| true.into()),
        function_of("has_sequence_privilege", Bool, |_, _| true.into()),
        function_of("has_tablespace_privilege", Bool, |_, _| true.into()),
        function_of("pg_has_role", Bool, |_, _| true.into()),
        function_of("row_security_active", Bool, |_, _| false.into()),
        function_of("pg_relation_is_publishable", Bool, |_, _| false.into()),
        function_of("format_type", Text, |_, args| shown_type(args)),
        function_of("pg_get_expr", Text, |_, args| args.first().cloned().unwrap_or(Value::Null)),
        function_of("pg_get_viewdef", Text, viewdef),
        function_of("pg_get_indexdef", Text, indexdef),
        function_of("pg_get_constraintdef", Text, constraintdef),
        function_of("pg_get_triggerdef", Text, |_, _| Value::Null),
        function_of("pg_get_ruledef", Text, |_, _| Value::Null),
        function_of("pg_get_functiondef", Text, |_, _| Value::Null),
        function_of("pg_get_function_result", Text, |_, _| "text".into()),
        function_of("pg_get_function_arguments", Text, |_, _| "".into()),
        function_of("pg_get_function_identity_arguments", Text, |_, _| "".into()),
        function_of("pg_get_function_sqlbody", Text, |_, _| Value::Null),
        function_of("pg_get_partkeydef", Text, |_, _| Value::Null),
        function_of("pg_get_serial_sequence", Text, |_, _| Value::Null),
        function_of("pg_get_statisticsobjdef_columns", Text, |_, _| Value::Null),
        function_of("pg_tablespace_location", Text, |_, _| "".into()),
        function_of("obj_description", Text, |_, _| Value::Null),
        function_of("col_description", Text, |_, _| Value::Null),
        function_of("shobj_description", Text, |_, _| Value::Null),
        function_of("pg_relation_size", Int, |_, _| 0.into()),
        function_of("pg_table_size", Int, |_, _| 0.into()),
        function_of("pg_indexes_size", Int, |_, _| 0.into()),
        function_of("pg_total_relation_size", Int, |_, _| 0.into()),
        function_of("pg_database_size", Int, |_, _| 0.into()),
        function_of("pg_tablespace_size", Int, |_, _| 0.into()),
        function_of("pg_size_pretty", Text, |_, args| size(args)),
        function_of("pg_stat_get_numscans", Int, |_, _| 0.into()),
        function_of("age", Int, |_, _| 0.into()),
        function_of("quote_ident", Text, |_, args| quote(args)),
        function_of("to_regclass", Int, to_class),
        function_of("to_regtype", Int, |_, args| to_type(args)),
        function_of("to_regnamespace", Int, |_, args| to_namespace(args)),
        function_of("regclass_name", Text, from_class),
        function_of("regtype_name", Text, |_, args| shown_type(args)),
        function_of("regnamespace_name", Text, |_, args| from_namespace(args)),
        function_of("regproc_name", Text, |_, args| text(args.first()).map_or(Value::Null, Value::from)),
    ]
};

/// The names for `pg_proc`.
pub(super) const NAMES: [&str; 12] = [
    "version",
    "current_schema",
    "current_database",
    "current_setting",
    "set_config",
    "format_type",
    "pg_get_expr",
    "pg_get_viewdef",
    "pg_get_indexdef",
    "pg_get_constraintdef",
    "obj_description",
    "pg_table_is_visible",
];

/// A function by name, which sees the catalog as it is now.
pub(crate) fn function(catalog: &dyn Catalog, name: &str) -> Option<Arc<ScalarUDF>> {
    let found = FUNCTIONS.iter().find(|f| f.name == name)?;
    let facts = Arc::new(Facts { relations: names::all_relations(catalog) });
    let signature = Signature::one_of(vec![TypeSignature::Nullary, TypeSignature::VariadicAny], Volatility::Stable);
    Some(Arc::new(ScalarUDF::new_from_impl(SystemFunction { function: found, facts, signature })))
}

struct SystemFunction {
    function: &'static Function,
    facts: Arc<Facts>,
    signature: Signature,
}

impl std::fmt::Debug for SystemFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.function.name)
    }
}

// Within a query all functions see the same catalog, so that the name alone tells them apart.
impl PartialEq for SystemFunction {
    fn eq(&self, other: &Self) -> bool {
        self.function.name == other.function.name
    }
}

impl Eq for SystemFunction {}

impl Hash for SystemFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.function.name.hash(state);
    }
}

impl ScalarUDFImpl for SystemFunction {
    fn name(&self) -> &str {
        self.function.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.function.gives {
            Gives::Text => DataType::Utf8,
            Gives::Int => DataType::Int64,
            Gives::Bool => DataType::Boolean,
            Gives::Texts => DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let columns: Vec<Vec<Value>> =
            args.args.iter().map(|arg| values(&arg.to_array(rows)?)).collect::<Result<_>>()?;
        let one = |row: usize| {
            let arguments: Vec<Value> = columns.iter().map(|c| c[row].clone()).collect();
            (self.function.body)(&self.facts, &arguments)
        };
        let results: Vec<Value> = (0..rows).map(one).collect();
        Ok(ColumnarValue::Array(array(&self.return_type(&[])?, results.iter())))
    }
}

/// An array's values.
fn values(array: &ArrayRef) -> Result<Vec<Value>> {
    let data_type = array.data_type();
    if data_type.is_integer() {
        let array = cast(array, &DataType::Int64)?;
        return Ok(array.as_primitive::<Int64Type>().iter().map(Value::from).collect());
    }
    Ok(match data_type {
        DataType::Boolean => array.as_boolean().iter().map(Value::from).collect(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let array = cast(array, &DataType::Utf8)?;
            array.as_string::<i32>().iter().map(Value::from).collect()
        }
        _ => vec![Value::Null; array.len()],
    })
}

fn int(value: Option<&Value>) -> Option<i64> {
    match value? {
        Value::Int(v) => Some(*v),
        Value::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn text(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::Text(text) => Some(text.clone()),
        Value::Int(v) => Some(v.to_string()),
        _ => None,
    }
}

fn schemas(args: &[Value]) -> Value {
    let implicit = args.first() == Some(&Value::Bool(true));
    let names =
        if implicit { vec!["pg_catalog".to_string(), "public".to_string()] } else { vec!["public".to_string()] };
    Value::Texts(names)
}

fn setting(args: &[Value]) -> Value {
    let name = text(args.first()).unwrap_or_default();
    let found = constants::SETTINGS.iter().find(|(n, _)| n.eq_ignore_ascii_case(&name));
    found.map_or(Value::Null, |(_, value)| (*value).into())
}

fn table_visible(facts: &Facts, args: &[Value]) -> Value {
    let Some(oid) = int(args.first()) else { return Value::Null };
    facts.relations.iter().find(|r| relation_oid(r) == oid || index_oid(r) == oid).is_some_and(|r| visible(r)).into()
}

fn shown_type(args: &[Value]) -> Value {
    int(args.first()).map_or(Value::Null, |oid| format_type(oid, int(args.get(1))).into())
}

/// A view's query, ended as PostgreSQL does.
pub(super) fn view_definition(relation: &Relation) -> Option<String> {
    relation.definition.as_ref().map(|query| format!("{};", query.trim().trim_end_matches(';')))
}

/// The relation that a number or a written name means.
fn named<'a>(facts: &'a Facts, value: Option<&Value>) -> Option<&'a Arc<Relation>> {
    let oid = match value? {
        Value::Text(name) if name.trim().parse::<i64>().is_err() => class_oid(facts, name)?,
        other => int(Some(other))?,
    };
    facts.relations.iter().find(|r| relation_oid(r) == oid)
}

fn viewdef(facts: &Facts, args: &[Value]) -> Value {
    let relation =
        named(facts, args.first()).filter(|r| matches!(r.kind, RelationKind::View | RelationKind::MaterializedView));
    relation.and_then(|r| view_definition(r)).into()
}

/// The relation whose primary key has this number.
fn keyed<'a>(facts: &'a Facts, value: Option<&Value>) -> Option<&'a Arc<Relation>> {
    let oid = int(value)?;
    facts.relations.iter().find(|r| !r.primary_key.is_empty() && index_oid(r) == oid)
}

fn indexdef(facts: &Facts, args: &[Value]) -> Value {
    let Some(relation) = keyed(facts, args.first()) else { return Value::Null };
    match int(args.get(1)).unwrap_or(0) {
        0 => index_definition(relation).into(),
        column => {
            let column = usize::try_from(column - 1).ok().and_then(|i| relation.primary_key.get(i));
            column.map(|c| quoted(relation.schema.field(*c).name())).into()
        }
    }
}

fn constraintdef(facts: &Facts, args: &[Value]) -> Value {
    keyed(facts, args.first()).map(|r| format!("PRIMARY KEY ({})", key_columns(r))).into()
}

fn size(args: &[Value]) -> Value {
    int(args.first()).map(|bytes| format!("{bytes} bytes")).into()
}

fn quote(args: &[Value]) -> Value {
    text(args.first()).map(|name| quoted(&name)).into()
}

fn class_oid(facts: &Facts, name: &str) -> Option<i64> {
    let mut parts = parts(name);
    let name = parts.pop()?;
    let namespace = parts.pop();
    let fits = |r: &&Arc<Relation>| match &namespace {
        Some(namespace) => r.namespace == *namespace,
        None => visible(r),
    };
    let relation = facts.relations.iter().filter(fits).find(|r| r.name == name);
    let index =
        || facts.relations.iter().filter(fits).find(|r| !r.primary_key.is_empty() && names::index_name(r) == name);
    relation.map(|r| relation_oid(r)).or_else(|| index().map(|r| index_oid(r)))
}

fn to_class(facts: &Facts, args: &[Value]) -> Value {
    match args.first() {
        Some(Value::Text(name)) => name.trim().parse().ok().or_else(|| class_oid(facts, name)).into(),
        other => int(other).into(),
    }
}

fn from_class(facts: &Facts, args: &[Value]) -> Value {
    int(args.first()).map(|oid| class_name(&facts.relations, oid)).into()
}

fn to_type(args: &[Value]) -> Value {
    text(args.first()).and_then(|name| name.trim().parse().ok().or_else(|| type_oid(&name))).into()
}

fn to_namespace(args: &[Value]) -> Value {
    let name = text(args.first());
    name.and_then(|n| n.trim().parse().ok().or_else(|| Some(namespace_oid(&parts(&n).pop()?)).filter(|o| *o != 0)))
        .into()
}

fn from_namespace(args: &[Value]) -> Value {
    int(args.first()).map(|oid| namespace_name(oid).map_or_else(|| oid.to_string(), str::to_string)).into()
}

/// A type's size in bytes, -1 where it varies.
pub(super) fn type_length(oid: i64) -> i64 {
    TYPES.iter().find(|t| t.oid == oid).map_or(-1, |t| t.len)
}

/// A type's name in `pg_type`.
pub(super) fn type_name(oid: i64) -> String {
    let array = || TYPES.iter().find(|t| t.array == oid).map(|t| format!("_{}", t.name));
    TYPES.iter().find(|t| t.oid == oid).map(|t| t.name.to_string()).or_else(array).unwrap_or_default()
}
