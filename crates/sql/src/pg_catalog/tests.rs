use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Schema};

use super::names::relation_oid;
use super::*;
use crate::StatementKind;

struct One(Arc<Relation>);

impl Catalog for One {
    fn relation(&self, namespace: Option<&str>, name: &str) -> Option<Arc<Relation>> {
        (namespace.unwrap_or("public") == "public" && name == self.0.name).then(|| self.0.clone())
    }

    fn relations(&self) -> Vec<Arc<Relation>> {
        vec![self.0.clone()]
    }
}

fn catalog() -> One {
    let fields = vec![Field::new("id", DataType::Int64, false), Field::new("price", DataType::Decimal128(10, 2), true)];
    One(Arc::new(Relation {
        id: 1,
        namespace: "public".into(),
        name: "orders".into(),
        kind: RelationKind::Table,
        schema: Arc::new(Schema::new(fields)),
        primary_key: vec![0],
        append_only: false,
        event_time: None,
        retention: None,
        generated: vec![],
        defaults: vec![(1, "0".into())],
        bounds: vec![],
        definition: None,
        sql: String::new(),
    }))
}

fn rewritten(sql: &str) -> String {
    let Some(StatementKind::Query(mut query)) = crate::parse(sql).unwrap().pop().map(|s| s.kind) else {
        panic!("{sql}")
    };
    rewrite(&mut query);
    query.to_string()
}

#[test]
fn every_table_fills_its_columns() {
    let catalog = catalog();
    for relation in system_relations() {
        let rows = system_rows(&catalog, relation).unwrap().unwrap();
        assert_eq!(rows.schema(), relation.schema, "{}", relation.name);
    }
}

#[test]
fn columns_are_found() {
    let catalog = catalog();
    let relation = resolve(&catalog, None, "pg_attribute").unwrap();
    let rows = system_rows(&catalog, &relation).unwrap().unwrap();
    let names = rows.column_by_name("attname").unwrap();
    assert!(names.as_string::<i32>().iter().flatten().any(|n| n == "price"));
    assert_eq!(relation_oid(&catalog.0), 16_385);
    assert!(resolve(&catalog, Some("information_schema"), "columns").is_some());
    assert!(resolve(&catalog, None, "nothing").is_none());
}

#[test]
fn operators_collations_and_names() {
    assert_eq!(
        rewritten(
            "SELECT 1 FROM pg_catalog.pg_class c WHERE c.relname OPERATOR(pg_catalog.~) '^(t)$' COLLATE pg_catalog.default"
        ),
        "SELECT 1 FROM pg_catalog.pg_class c WHERE c.relname ~ '^(t)$'"
    );
    assert_eq!(rewritten("SELECT pg_catalog.version(), current_user"), "SELECT version(), current_user()");
    assert_eq!(rewritten("SELECT 1 FROM pg_class WHERE oid = '16385'"), "SELECT 1 FROM pg_class WHERE oid = 16385");
}

#[test]
fn casts_to_object_types() {
    assert_eq!(rewritten("SELECT 'orders'::regclass"), "SELECT to_regclass('orders')");
    assert_eq!(
        rewritten("SELECT 'orders'::pg_catalog.regclass::pg_catalog.text"),
        "SELECT regclass_name(to_regclass('orders'))"
    );
    assert_eq!(
        rewritten("SELECT c.oid::pg_catalog.regclass FROM pg_class c"),
        "SELECT regclass_name(c.oid) FROM pg_class c"
    );
    assert_eq!(rewritten("SELECT x::pg_catalog.oid FROM t"), "SELECT x::BIGINT FROM t");
}

#[test]
fn subqueries_become_aggregates() {
    let sql = "SELECT (SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid) FROM pg_catalog.pg_attrdef d \
               WHERE d.adrelid = a.attrelid) FROM pg_catalog.pg_attribute a";
    assert!(rewritten(sql).contains("(SELECT max(pg_get_expr(d.adbin, d.adrelid)) FROM"));
    let users = "SELECT (SELECT b FROM u WHERE u.a = t.a) FROM t";
    assert_eq!(rewritten(users), users);
}

#[test]
fn what_has_no_rows_gives_none() {
    let sql = "SELECT pol.polname, array(select 1) AS roles FROM pg_catalog.pg_policy pol WHERE pol.polrelid = '1' ORDER BY 1";
    assert_eq!(rewritten(sql), "SELECT NULL::TEXT AS \"polname\", NULL::TEXT AS roles WHERE false");
    assert!(rewritten("SELECT count(*) FROM pg_catalog.pg_policy").contains("FROM"));
}
