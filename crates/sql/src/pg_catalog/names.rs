//! Numbers and names of things: OIDs of relations and types, types as PostgreSQL spells them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};

use super::system_relations;
use crate::{Catalog, Relation, RelationKind};

/// PostgreSQL gives numbers below this one to its own objects.
const FIRST_USER_OID: i64 = 16_384;
/// Indexes (there is one per primary key) have numbers of their own, far above.
const FIRST_INDEX_OID: i64 = 1 << 30;
/// System tables without a famous number count from here.
const FIRST_SYSTEM_OID: i64 = 12_000;

/// The user whom everything belongs to.
pub(super) const OWNER: &str = "tidemill";
/// That user's number.
pub(super) const OWNER_OID: i64 = 10;
/// The only database.
pub(super) const DATABASE: &str = "tidemill";

/// The namespaces, with PostgreSQL's numbers for its own.
pub(super) const NAMESPACES: [(&str, i64); 4] =
    [("pg_catalog", 11), ("public", 2200), ("information_schema", 13_000), ("tidemill", 13_001)];

/// The number of a relation.
pub(super) fn relation_oid(relation: &Relation) -> i64 {
    if relation.kind == RelationKind::System && relation.id >= super::SYSTEM_IDS {
        return match relation.name.as_str() {
            "pg_type" => 1247,
            "pg_attribute" => 1249,
            "pg_proc" => 1255,
            "pg_class" => 1259,
            "pg_authid" => 1260,
            "pg_database" => 1262,
            "pg_constraint" => 2606,
            "pg_index" => 2610,
            "pg_namespace" => 2615,
            "pg_description" => 2609,
            _ => FIRST_SYSTEM_OID + (relation.id - super::SYSTEM_IDS) as i64,
        };
    }
    FIRST_USER_OID + relation.id as i64
}

/// The number of a relation's primary key, as an index and as a constraint.
pub(super) fn index_oid(relation: &Relation) -> i64 {
    FIRST_INDEX_OID + relation.id as i64
}

/// The name of that index.
pub(super) fn index_name(relation: &Relation) -> String {
    format!("{}_pkey", relation.name)
}

/// A namespace's number.
pub(super) fn namespace_oid(name: &str) -> i64 {
    NAMESPACES.iter().find(|(n, _)| *n == name).map_or(0, |(_, oid)| *oid)
}

/// A namespace's name.
pub(super) fn namespace_name(oid: i64) -> Option<&'static str> {
    NAMESPACES.iter().find(|(_, o)| *o == oid).map(|(name, _)| *name)
}

/// The user's relations and the system's.
pub(super) fn all_relations(catalog: &dyn Catalog) -> Vec<Arc<Relation>> {
    let mut all = catalog.relations();
    all.retain(|r| !(r.kind == RelationKind::System && r.id >= super::SYSTEM_IDS));
    all.extend(system_relations().cloned());
    all
}

/// Whether a name is found without its namespace.
pub(super) fn visible(relation: &Relation) -> bool {
    matches!(relation.namespace.as_str(), "public" | "pg_catalog")
}

/// A name in quotes, if it needs them.
pub(super) fn quoted(name: &str) -> String {
    let plain =
        |(i, c): (usize, char)| c.is_ascii_lowercase() || c == '_' || (i > 0 && (c.is_ascii_digit() || c == '$'));
    if !name.is_empty() && name.chars().enumerate().all(plain) {
        return name.to_string();
    }
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A relation's name as it has to be written.
pub(super) fn written(relation: &Relation) -> String {
    if visible(relation) {
        return quoted(&relation.name);
    }
    format!("{}.{}", quoted(&relation.namespace), quoted(&relation.name))
}

/// The parts of a name as it may be written.
pub(super) fn parts(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut inside = false;
    let mut chars = text.trim().chars().peekable();
    while let Some(c) = chars.next() {
        let last = parts.len() - 1;
        match c {
            '"' if inside && chars.peek() == Some(&'"') => {
                chars.next();
                parts[last].push('"');
            }
            '"' => inside = !inside,
            '.' if !inside => parts.push(String::new()),
            c if inside => parts[last].push(c),
            c => parts[last].extend(c.to_lowercase()),
        }
    }
    parts
}

/// A type: number, name in `pg_type`, name in SQL, size, category, number of its arrays.
pub(super) struct TypeName {
    pub(super) oid: i64,
    pub(super) name: &'static str,
    pub(super) sql: &'static str,
    pub(super) len: i64,
    pub(super) category: &'static str,
    pub(super) array: i64,
}

const fn type_name(
    oid: i64,
    name: &'static str,
    sql: &'static str,
    len: i64,
    category: &'static str,
    array: i64,
) -> TypeName {
    TypeName { oid, name, sql, len, category, array }
}

/// The types that columns and clients use.
pub(super) const TYPES: [TypeName; 33] = [
    type_name(16, "bool", "boolean", 1, "B", 1000),
    type_name(17, "bytea", "bytea", -1, "U", 1001),
    type_name(18, "char", "\"char\"", 1, "Z", 1002),
    type_name(19, "name", "name", 64, "S", 1003),
    type_name(20, "int8", "bigint", 8, "N", 1016),
    type_name(21, "int2", "smallint", 2, "N", 1005),
    type_name(22, "int2vector", "int2vector", -1, "A", 1006),
    type_name(23, "int4", "integer", 4, "N", 1007),
    type_name(24, "regproc", "regproc", 4, "N", 1008),
    type_name(25, "text", "text", -1, "S", 1009),
    type_name(26, "oid", "oid", 4, "N", 1028),
    type_name(30, "oidvector", "oidvector", -1, "A", 1013),
    type_name(114, "json", "json", -1, "U", 199),
    type_name(142, "xml", "xml", -1, "U", 143),
    type_name(700, "float4", "real", 4, "N", 1021),
    type_name(701, "float8", "double precision", 8, "N", 1022),
    type_name(705, "unknown", "unknown", -2, "X", 0),
    type_name(790, "money", "money", 8, "N", 791),
    type_name(869, "inet", "inet", -1, "I", 1041),
    type_name(1042, "bpchar", "character", -1, "S", 1014),
    type_name(1043, "varchar", "character varying", -1, "S", 1015),
    type_name(1082, "date", "date", 4, "D", 1182),
    type_name(1083, "time", "time without time zone", 8, "D", 1183),
    type_name(1114, "timestamp", "timestamp without time zone", 8, "D", 1115),
    type_name(1184, "timestamptz", "timestamp with time zone", 8, "D", 1185),
    type_name(1186, "interval", "interval", 16, "T", 1187),
    type_name(1266, "timetz", "time with time zone", 12, "D", 1270),
    type_name(1700, "numeric", "numeric", -1, "N", 1231),
    type_name(2205, "regclass", "regclass", 4, "N", 2210),
    type_name(2206, "regtype", "regtype", 4, "N", 2211),
    type_name(2249, "record", "record", -1, "P", 2287),
    type_name(2950, "uuid", "uuid", 16, "U", 2951),
    type_name(3802, "jsonb", "jsonb", -1, "U", 3807),
];

/// A column's type: its number and modifier (-1: none).
pub(super) fn column_type(field: &Field) -> (i64, i64) {
    let named = field.metadata().get("tidemill.type").and_then(|name| TYPES.iter().find(|t| t.name == name));
    if let Some(named) = named {
        return (named.oid, -1);
    }
    let oid = match field.data_type() {
        DataType::Boolean => 16,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => 17,
        DataType::Int64 | DataType::UInt32 => 20,
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => 21,
        DataType::Int32 | DataType::UInt16 => 23,
        DataType::Float16 | DataType::Float32 => 700,
        DataType::Float64 => 701,
        DataType::Date32 | DataType::Date64 => 1082,
        DataType::Time32(_) | DataType::Time64(_) => 1083,
        DataType::Timestamp(_, None) => 1114,
        DataType::Timestamp(_, Some(_)) => 1184,
        DataType::Interval(_) | DataType::Duration(_) => 1186,
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            return (1700, (i64::from(*precision) << 16 | i64::from(*scale as u8)) + 4);
        }
        DataType::UInt64 => 1700,
        DataType::Struct(_) | DataType::Map(_, _) => 114,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            let (item, modifier) = column_type(item);
            return (TYPES.iter().find(|t| t.oid == item).map_or(item, |t| t.array), modifier);
        }
        DataType::Dictionary(_, value) => return column_type(&Field::new("", value.as_ref().clone(), true)),
        _ => 25,
    };
    (oid, -1)
}

/// What PostgreSQL calls the column of a cast to a type: the type, or that of its items.
pub(crate) fn type_name_of(field: &Field) -> &'static str {
    let (oid, _) = column_type(field);
    TYPES.iter().find(|t| t.oid == oid || t.array == oid && oid != 0).map_or("text", |t| t.name)
}

/// A type as SQL spells it.
pub(super) fn format_type(oid: i64, modifier: Option<i64>) -> String {
    if let Some(item) = TYPES.iter().find(|t| t.array == oid && oid != 0) {
        return format!("{}[]", format_type(item.oid, modifier));
    }
    let Some(found) = TYPES.iter().find(|t| t.oid == oid) else { return "???".into() };
    match (found.oid, modifier) {
        (1700, Some(m)) if m >= 4 => format!("numeric({},{})", (m - 4) >> 16, (m - 4) & 0xff),
        (1043 | 1042, Some(m)) if m >= 4 => format!("{}({})", found.sql, m - 4),
        _ => found.sql.to_string(),
    }
}

/// A type's number by any of its names.
pub(super) fn type_oid(name: &str) -> Option<i64> {
    let name = name.trim().to_lowercase();
    let name = name.strip_prefix("pg_catalog.").unwrap_or(&name);
    if let Some(item) = name.strip_suffix("[]") {
        let item = type_oid(item)?;
        return TYPES.iter().find(|t| t.oid == item).map(|t| t.array);
    }
    let name = name.split('(').next().unwrap_or(name).trim();
    let name = match name {
        "int" => "integer",
        "varchar" => "character varying",
        "decimal" => "numeric",
        "float" => "double precision",
        "string" => "text",
        other => other,
    };
    TYPES.iter().find(|t| t.name == name || t.sql == name).map(|t| t.oid)
}
