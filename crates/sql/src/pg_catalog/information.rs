//! `information_schema`, as far as clients ask for it.

use std::sync::Arc;

use super::columns::{Row, Table, Value, row};
use super::names::{DATABASE, NAMESPACES, OWNER, all_relations, column_type, format_type, index_name};
use super::{Definition, functions, none};
use crate::{Catalog, Relation, RelationKind};

fn table(name: &'static str, columns: &'static str, rows: fn(&dyn Catalog) -> Vec<Row>) -> Definition {
    Definition { table: Table { namespace: "information_schema", name, columns }, rows }
}

/// These tables.
pub(super) fn definitions() -> Vec<Definition> {
    vec![
        table(
            "schemata",
            "catalog_name:name schema_name:name schema_owner:name default_character_set_name:name",
            schemata,
        ),
        table(
            "tables",
            "table_catalog:name table_schema:name table_name:name table_type:text is_insertable_into:text is_typed:text",
            tables,
        ),
        table(
            "columns",
            "table_catalog:name table_schema:name table_name:name column_name:name ordinal_position:int4 \
             column_default:text is_nullable:text data_type:text character_maximum_length:int4 \
             character_octet_length:int4 numeric_precision:int4 numeric_precision_radix:int4 numeric_scale:int4 \
             datetime_precision:int4 udt_catalog:name udt_schema:name udt_name:name is_identity:text is_generated:text \
             is_updatable:text",
            columns,
        ),
        table(
            "views",
            "table_catalog:name table_schema:name table_name:name view_definition:text check_option:text is_updatable:text",
            views,
        ),
        table(
            "table_constraints",
            "constraint_catalog:name constraint_schema:name constraint_name:name table_catalog:name table_schema:name \
             table_name:name constraint_type:text is_deferrable:text initially_deferred:text enforced:text",
            constraints,
        ),
        table(
            "key_column_usage",
            "constraint_catalog:name constraint_schema:name constraint_name:name table_catalog:name table_schema:name \
             table_name:name column_name:name ordinal_position:int4 position_in_unique_constraint:int4",
            key_columns,
        ),
        table(
            "constraint_column_usage",
            "table_catalog:name table_schema:name table_name:name column_name:name constraint_catalog:name \
             constraint_schema:name constraint_name:name",
            none,
        ),
        table(
            "referential_constraints",
            "constraint_catalog:name constraint_schema:name constraint_name:name unique_constraint_catalog:name \
             unique_constraint_schema:name unique_constraint_name:name match_option:text update_rule:text delete_rule:text",
            none,
        ),
        table(
            "routines",
            "specific_schema:name specific_name:name routine_schema:name routine_name:name routine_type:text",
            none,
        ),
        table("sequences", "sequence_catalog:name sequence_schema:name sequence_name:name data_type:text", none),
        table("triggers", "trigger_catalog:name trigger_schema:name trigger_name:name event_object_table:name", none),
    ]
}

fn schemata(_: &dyn Catalog) -> Vec<Row> {
    NAMESPACES.iter().map(|(name, _)| row![DATABASE, *name, OWNER, Value::Null]).collect()
}

/// The user's relations and the system's.
fn relations(catalog: &dyn Catalog) -> impl Iterator<Item = Arc<Relation>> {
    all_relations(catalog).into_iter()
}

fn yes_no(yes: bool) -> &'static str {
    if yes { "YES" } else { "NO" }
}

fn tables(catalog: &dyn Catalog) -> Vec<Row> {
    let kind = |r: &Relation| match r.kind {
        RelationKind::View => "VIEW",
        RelationKind::MaterializedView => "MATERIALIZED VIEW",
        _ => "BASE TABLE",
    };
    let entry = |r: Arc<Relation>| {
        let writable = yes_no(r.kind == RelationKind::Table);
        row![DATABASE, r.namespace.as_str(), r.name.as_str(), kind(&r), writable, "NO"]
    };
    relations(catalog).map(entry).collect()
}

fn columns(catalog: &dyn Catalog) -> Vec<Row> {
    let mut rows = Vec::new();
    for relation in relations(catalog) {
        rows.extend((0..relation.schema.fields().len()).map(|i| column(&relation, i)));
    }
    rows
}

fn column(relation: &Relation, i: usize) -> Row {
    let field = relation.schema.field(i);
    let (oid, modifier) = column_type(field);
    let default = relation.defaults.iter().find(|(column, _)| *column == i).map(|(_, text)| text.clone());
    let nullable = field.is_nullable() && !relation.primary_key.contains(&i);
    let generated = relation.generated.iter().any(|g| g.column == i);
    let sql = format_type(oid, None);
    let shown = if sql.ends_with("[]") { "ARRAY".to_string() } else { sql };
    let (precision, radix, scale) = match (oid, modifier) {
        (21, _) => (Some(16), Some(2), Some(0)),
        (23, _) => (Some(32), Some(2), Some(0)),
        (20, _) => (Some(64), Some(2), Some(0)),
        (700, _) => (Some(24), Some(2), None),
        (701, _) => (Some(53), Some(2), None),
        (1700, m) if m >= 4 => (Some((m - 4) >> 16), Some(10), Some((m - 4) & 0xff)),
        (1700, _) => (None, Some(10), None),
        _ => (None, None, None),
    };
    let time = matches!(oid, 1083 | 1114 | 1184 | 1186).then_some(6);
    row![
        DATABASE,
        relation.namespace.as_str(),
        relation.name.as_str(),
        field.name().as_str(),
        i as i64 + 1,
        default,
        yes_no(nullable),
        shown,
        Value::Null,
        Value::Null,
        precision,
        radix,
        scale,
        time,
        DATABASE,
        "pg_catalog",
        functions::type_name(oid),
        "NO",
        if generated { "ALWAYS" } else { "NEVER" },
        yes_no(relation.kind == RelationKind::Table),
    ]
}

fn views(catalog: &dyn Catalog) -> Vec<Row> {
    let entry = |r: Arc<Relation>| {
        let definition = functions::view_definition(&r);
        row![DATABASE, r.namespace.as_str(), r.name.as_str(), definition, "NONE", "NO"]
    };
    relations(catalog).filter(|r| r.kind == RelationKind::View).map(entry).collect()
}

fn constraints(catalog: &dyn Catalog) -> Vec<Row> {
    let entry = |r: Arc<Relation>| {
        let (namespace, name) = (r.namespace.as_str(), r.name.as_str());
        row![DATABASE, namespace, index_name(&r), DATABASE, namespace, name, "PRIMARY KEY", "NO", "NO", "YES"]
    };
    relations(catalog).filter(|r| !r.primary_key.is_empty()).map(entry).collect()
}

fn key_columns(catalog: &dyn Catalog) -> Vec<Row> {
    let mut rows = Vec::new();
    for r in relations(catalog) {
        for (i, column) in r.primary_key.iter().enumerate() {
            let (namespace, name) = (r.namespace.as_str(), r.name.as_str());
            let column = r.schema.field(*column).name().as_str();
            rows.push(row![DATABASE, namespace, index_name(&r), DATABASE, namespace, name, column, i as i64 + 1]);
        }
    }
    rows
}
