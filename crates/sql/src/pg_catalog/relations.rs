//! System tables about the user's tables, sources and views, and their columns and keys.

use super::columns::{Row, Table, Value, row};
use super::names::{
    OWNER, OWNER_OID, all_relations, column_type, index_name, index_oid, namespace_oid, quoted, relation_oid, written,
};
use super::{Definition, functions};
use crate::{Catalog, Relation, RelationKind};

fn table(name: &'static str, columns: &'static str, rows: fn(&dyn Catalog) -> Vec<Row>) -> Definition {
    Definition { table: Table { namespace: "pg_catalog", name, columns }, rows }
}

/// These tables.
pub(super) fn definitions() -> Vec<Definition> {
    vec![
        table(
            "pg_class",
            "oid:oid relname:name relnamespace:oid reltype:oid reloftype:oid relowner:oid relam:oid relfilenode:oid \
             reltablespace:oid relpages:int4 reltuples:int8 relallvisible:int4 reltoastrelid:oid relhasindex:bool \
             relisshared:bool relpersistence:char relkind:char relnatts:int2 relchecks:int2 relhasrules:bool \
             relhastriggers:bool relhassubclass:bool relrowsecurity:bool relforcerowsecurity:bool relispopulated:bool \
             relreplident:char relispartition:bool relrewrite:oid relfrozenxid:int8 relminmxid:int8 relacl:text[] \
             reloptions:text[] relpartbound:text",
            classes,
        ),
        table(
            "pg_attribute",
            "attrelid:oid attname:name atttypid:oid attstattarget:int4 attlen:int2 attnum:int2 attndims:int4 \
             atttypmod:int4 attnotnull:bool atthasdef:bool atthasmissing:bool attidentity:char attgenerated:char \
             attisdropped:bool attislocal:bool attinhcount:int4 attcollation:oid attacl:text[] attoptions:text[] \
             attfdwoptions:text[] attstorage:char attcompression:char",
            attributes,
        ),
        table("pg_attrdef", "oid:oid adrelid:oid adnum:int2 adbin:text adsrc:text", defaults),
        table(
            "pg_index",
            "indexrelid:oid indrelid:oid indnatts:int2 indnkeyatts:int2 indisunique:bool indisprimary:bool \
             indisexclusion:bool indimmediate:bool indisclustered:bool indisvalid:bool indcheckxmin:bool indisready:bool \
             indislive:bool indisreplident:bool indkey:int8[] indcollation:int8[] indclass:int8[] indoption:int8[] \
             indexprs:text indpred:text indnullsnotdistinct:bool",
            indexes,
        ),
        table("pg_indexes", "schemaname:name tablename:name indexname:name tablespace:name indexdef:text", index_list),
        table(
            "pg_constraint",
            "oid:oid conname:name connamespace:oid contype:char condeferrable:bool condeferred:bool convalidated:bool \
             conrelid:oid contypid:oid conindid:oid conparentid:oid confrelid:oid confupdtype:char confdeltype:char \
             confmatchtype:char conislocal:bool coninhcount:int4 connoinherit:bool conkey:int8[] confkey:int8[] conbin:text",
            constraints,
        ),
        table(
            "pg_tables",
            "schemaname:name tablename:name tableowner:name tablespace:name hasindexes:bool hasrules:bool hastriggers:bool \
             rowsecurity:bool",
            tables,
        ),
        table("pg_views", "schemaname:name viewname:name viewowner:name definition:text", views),
        table(
            "pg_matviews",
            "schemaname:name matviewname:name matviewowner:name tablespace:name hasindexes:bool ispopulated:bool \
             definition:text",
            materialized_views,
        ),
        table(
            "pg_proc",
            "oid:oid proname:name pronamespace:oid proowner:oid prolang:oid prokind:char prosecdef:bool proleakproof:bool \
             proisstrict:bool proretset:bool provolatile:char proparallel:char pronargs:int2 prorettype:oid \
             proargtypes:int8[] proallargtypes:int8[] proargnames:text[] prosrc:text proacl:text[]",
            procedures,
        ),
        table(
            "pg_stat_user_tables",
            "relid:oid schemaname:name relname:name seq_scan:int8 n_live_tup:int8 n_dead_tup:int8",
            statistics,
        ),
    ]
}

/// The letter that `pg_class` has for a kind.
fn letter(relation: &Relation) -> &'static str {
    match relation.kind {
        RelationKind::Table | RelationKind::Source | RelationKind::System => "r",
        RelationKind::View => "v",
        RelationKind::MaterializedView => "m",
    }
}

fn classes(catalog: &dyn Catalog) -> Vec<Row> {
    let mut rows = Vec::new();
    for relation in all_relations(catalog) {
        let keyed = !relation.primary_key.is_empty();
        let access = if relation.kind == RelationKind::View { 0 } else { 2 };
        let columns = relation.schema.fields().len();
        rows.push(class(relation_oid(&relation), &relation.name, &relation, access, keyed, letter(&relation), columns));
        if keyed {
            let (oid, name, width) = (index_oid(&relation), index_name(&relation), relation.primary_key.len());
            rows.push(class(oid, &name, &relation, 403, false, "i", width));
        }
    }
    rows
}

fn class(oid: i64, name: &str, relation: &Relation, access: i64, keyed: bool, kind: &str, columns: usize) -> Row {
    row![
        oid,
        name,
        namespace_oid(&relation.namespace),
        0,
        0,
        OWNER_OID,
        access,
        oid,
        0,
        0,
        -1,
        0,
        0,
        keyed,
        false,
        "p",
        kind,
        columns as i64,
        0,
        false,
        false,
        false,
        false,
        false,
        true,
        "d",
        false,
        0,
        0,
        0,
    ]
}

fn attributes(catalog: &dyn Catalog) -> Vec<Row> {
    let mut rows = Vec::new();
    for relation in all_relations(catalog) {
        let oid = relation_oid(&relation);
        for i in 0..relation.schema.fields().len() {
            rows.push(attribute(oid, &relation, i, i));
        }
        for (number, column) in relation.primary_key.iter().enumerate() {
            rows.push(attribute(index_oid(&relation), &relation, *column, number));
        }
    }
    rows
}

/// A column as the column `number` of a relation or index.
fn attribute(oid: i64, relation: &Relation, column: usize, number: usize) -> Row {
    let field = relation.schema.field(column);
    let (type_oid, modifier) = column_type(field);
    let generated = relation.generated.iter().any(|g| g.column == column);
    let has_default = generated || relation.defaults.iter().any(|(c, _)| *c == column);
    let required = !field.is_nullable() || relation.primary_key.contains(&column);
    let length = functions::type_length(type_oid);
    let collation = if matches!(type_oid, 25 | 1043 | 1042 | 19) { 100 } else { 0 };
    row![
        oid,
        field.name().as_str(),
        type_oid,
        -1,
        length,
        number as i64 + 1,
        0,
        modifier,
        required,
        has_default,
        false,
        "",
        if generated { "s" } else { "" },
        false,
        true,
        0,
        collation,
        Value::Null,
        Value::Null,
        Value::Null,
        "x",
        "",
    ]
}

fn defaults(catalog: &dyn Catalog) -> Vec<Row> {
    let mut rows = Vec::new();
    for relation in catalog.relations() {
        let oid = relation_oid(&relation);
        let generated = relation.generated.iter().map(|g| (g.column, "(generated)".to_string()));
        for (column, text) in relation.defaults.iter().cloned().chain(generated) {
            let number = column as i64 + 1;
            // The number of the default itself only has to be unlike others.
            rows.push(row![oid * 2000 + number, oid, number, text.clone(), text]);
        }
    }
    rows
}

fn with_key(catalog: &dyn Catalog) -> Vec<std::sync::Arc<Relation>> {
    catalog.relations().into_iter().filter(|r| !r.primary_key.is_empty()).collect()
}

fn key_numbers(relation: &Relation) -> Vec<i64> {
    relation.primary_key.iter().map(|c| *c as i64 + 1).collect()
}

fn indexes(catalog: &dyn Catalog) -> Vec<Row> {
    let index = |relation: &std::sync::Arc<Relation>| {
        let keys = key_numbers(relation);
        let (width, zeros) = (keys.len() as i64, vec![0; keys.len()]);
        row![
            index_oid(relation),
            relation_oid(relation),
            width,
            width,
            true,
            true,
            false,
            true,
            false,
            true,
            false,
            true,
            true,
            false,
            keys,
            zeros.clone(),
            zeros.clone(),
            zeros,
            Value::Null,
            Value::Null,
            false,
        ]
    };
    with_key(catalog).iter().map(index).collect()
}

/// The statement that would make a primary key's index.
pub(super) fn index_definition(relation: &Relation) -> String {
    format!(
        "CREATE UNIQUE INDEX {} ON {}.{} USING btree ({})",
        quoted(&index_name(relation)),
        quoted(&relation.namespace),
        quoted(&relation.name),
        key_columns(relation)
    )
}

/// A primary key's columns as they have to be written.
pub(super) fn key_columns(relation: &Relation) -> String {
    let names: Vec<_> = relation.primary_key.iter().map(|c| quoted(relation.schema.field(*c).name())).collect();
    names.join(", ")
}

fn index_list(catalog: &dyn Catalog) -> Vec<Row> {
    let index = |r: &std::sync::Arc<Relation>| {
        row![r.namespace.as_str(), r.name.as_str(), index_name(r), Value::Null, index_definition(r)]
    };
    with_key(catalog).iter().map(index).collect()
}

fn constraints(catalog: &dyn Catalog) -> Vec<Row> {
    let constraint = |r: &std::sync::Arc<Relation>| {
        row![
            index_oid(r),
            index_name(r),
            namespace_oid(&r.namespace),
            "p",
            false,
            false,
            true,
            relation_oid(r),
            0,
            index_oid(r),
            0,
            0,
            " ",
            " ",
            " ",
            true,
            0,
            true,
            key_numbers(r),
        ]
    };
    with_key(catalog).iter().map(constraint).collect()
}

fn tables(catalog: &dyn Catalog) -> Vec<Row> {
    let stored = |r: &std::sync::Arc<Relation>| !matches!(r.kind, RelationKind::View | RelationKind::MaterializedView);
    let entry = |r: std::sync::Arc<Relation>| {
        let keyed = !r.primary_key.is_empty();
        row![r.namespace.as_str(), r.name.as_str(), OWNER, Value::Null, keyed, false, false, false]
    };
    all_relations(catalog).into_iter().filter(stored).map(entry).collect()
}

fn of_kind(catalog: &dyn Catalog, kind: RelationKind) -> Vec<std::sync::Arc<Relation>> {
    catalog.relations().into_iter().filter(|r| r.kind == kind).collect()
}

fn views(catalog: &dyn Catalog) -> Vec<Row> {
    let entry = |r: std::sync::Arc<Relation>| {
        row![r.namespace.as_str(), r.name.as_str(), OWNER, functions::view_definition(&r)]
    };
    of_kind(catalog, RelationKind::View).into_iter().map(entry).collect()
}

fn materialized_views(catalog: &dyn Catalog) -> Vec<Row> {
    let entry = |r: std::sync::Arc<Relation>| {
        let definition = functions::view_definition(&r);
        row![r.namespace.as_str(), r.name.as_str(), OWNER, Value::Null, false, true, definition]
    };
    of_kind(catalog, RelationKind::MaterializedView).into_iter().map(entry).collect()
}

fn procedures(_: &dyn Catalog) -> Vec<Row> {
    let entry = |(i, name): (usize, &&str)| {
        let none = Value::Ints(Vec::new());
        row![
            10_000 + i as i64,
            *name,
            11,
            OWNER_OID,
            12,
            "f",
            false,
            false,
            false,
            false,
            "s",
            "s",
            0,
            25,
            none,
            Value::Null,
            Value::Null,
            *name,
        ]
    };
    functions::NAMES.iter().enumerate().map(entry).collect()
}

fn statistics(catalog: &dyn Catalog) -> Vec<Row> {
    let stored = |r: &std::sync::Arc<Relation>| matches!(r.kind, RelationKind::Table | RelationKind::MaterializedView);
    let entry = |r: std::sync::Arc<Relation>| row![relation_oid(&r), r.namespace.as_str(), r.name.as_str(), 0, 0, 0];
    catalog.relations().into_iter().filter(stored).map(entry).collect()
}

/// What `::regclass` shows.
pub(super) fn class_name(relations: &[std::sync::Arc<Relation>], oid: i64) -> String {
    for relation in relations {
        if relation_oid(relation) == oid {
            return written(relation);
        }
        if !relation.primary_key.is_empty() && index_oid(relation) == oid {
            return quoted(&index_name(relation));
        }
    }
    if oid == 0 { "-".into() } else { oid.to_string() }
}
