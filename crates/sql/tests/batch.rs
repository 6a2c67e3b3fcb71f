//! Definitions, queries and DML over a catalog and snapshot in memory.

use std::sync::{Arc, Mutex};

use arrow::array::{Array, ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, StructArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::util::display::array_value_to_string;
use tidemill_delta::Epoch;
use tidemill_plan::{Bound, ColumnPath};
use tidemill_sql::{
    Catalog, DmlRows, OnConflict, Param, Planner, Relation, RelationKind, Snapshot, SqlError, StatementKind, parse,
    state,
};

/// Relations and their rows.
#[derive(Clone, Default)]
struct World {
    relations: Arc<Mutex<Vec<(Arc<Relation>, Vec<RecordBatch>)>>>,
}

impl Catalog for World {
    fn relation(&self, namespace: Option<&str>, name: &str) -> Option<Arc<Relation>> {
        let public = namespace.is_none_or(|namespace| namespace == "public");
        let relations = self.relations.lock().expect("a lock");
        relations.iter().map(|(relation, _)| relation).find(|r| public && r.name == name).cloned()
    }

    fn relations(&self) -> Vec<Arc<Relation>> {
        self.relations.lock().expect("a lock").iter().map(|(relation, _)| relation.clone()).collect()
    }
}

impl Snapshot for World {
    fn epoch(&self) -> Epoch {
        7
    }

    fn rows(&self, relation: &Relation) -> Result<Vec<RecordBatch>, SqlError> {
        let relations = self.relations.lock().expect("a lock");
        let found = relations.iter().find(|(known, _)| known.id == relation.id);
        Ok(found.map(|(_, rows)| rows.clone()).unwrap_or_default())
    }
}

fn kind(sql: &str) -> StatementKind {
    parse(sql).unwrap_or_else(|error| panic!("{sql}: {error}")).remove(0).kind
}

fn define(id: u64, sql: &str) -> Result<Relation, SqlError> {
    match kind(sql) {
        StatementKind::CreateRelation(create) => Planner::new().create_relation(id, &create, sql),
        other => panic!("{other:?}"),
    }
}

impl World {
    fn with(definitions: &[&str]) -> World {
        let world = World::default();
        for sql in definitions {
            let id = world.relations().len() as u64 + 1;
            let relation = define(id, sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
            world.relations.lock().expect("a lock").push((Arc::new(relation), Vec::new()));
        }
        world
    }

    fn view(&self, name: &str, query: &str) {
        let StatementKind::Query(parsed) = kind(query) else { panic!("{query}") };
        let schema = Planner::new().check_query(self, &parsed).expect("a view's query");
        let relation = Relation {
            id: 1000,
            namespace: "public".into(),
            name: name.into(),
            kind: RelationKind::View,
            schema,
            primary_key: Vec::new(),
            append_only: false,
            event_time: None,
            generated: Vec::new(),
            retention: None,
            defaults: Vec::new(),
            bounds: Vec::new(),
            definition: Some(query.into()),
            sql: query.into(),
        };
        self.relations.lock().expect("a lock").push((Arc::new(relation), Vec::new()));
    }

    async fn query(&self, sql: &str, params: &[Param]) -> Result<Vec<String>, SqlError> {
        let StatementKind::Query(query) = kind(sql) else { panic!("{sql}") };
        let answer = Planner::new().query(Arc::new(self.clone()), Arc::new(self.clone()), &query, params).await?;
        for batch in &answer.batches {
            assert_eq!(batch.schema(), answer.schema, "{sql}");
        }
        Ok(lines(&answer.batches))
    }

    async fn dml(&self, sql: &str, params: &[Param]) -> Result<DmlRows, SqlError> {
        Planner::new().dml(Arc::new(self.clone()), Arc::new(self.clone()), &kind(sql), params).await
    }

    /// Runs DML on tables that hold no row twice, and keeps the outcome.
    async fn apply(&self, sql: &str) -> usize {
        let change = self.dml(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let mut relations = self.relations.lock().expect("a lock");
        let (_, rows) = relations.iter_mut().find(|(known, _)| known.id == change.table.id).expect("the table");
        let removed = lines(&change.removed);
        let kept = rows.iter().flat_map(|batch| (0..batch.num_rows()).map(|row| batch.slice(row, 1)));
        let mut kept: Vec<_> = kept.filter(|row| !removed.contains(&lines(std::slice::from_ref(row))[0])).collect();
        kept.extend(change.added);
        *rows = kept;
        change.count
    }
}

fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let cell = |column: &ArrayRef, row| match column.is_null(row) {
        true => "null".to_owned(),
        false => array_value_to_string(column, row).expect("a value"),
    };
    let line = |batch: &RecordBatch, row| batch.columns().iter().map(|c| cell(c, row)).collect::<Vec<_>>().join("|");
    batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| line(batch, row))).collect()
}

fn text(value: &str) -> Param {
    Param::Text(Some(value.into()))
}

async fn shop() -> World {
    let world = World::with(&[
        "CREATE TABLE items (id int PRIMARY KEY, name text NOT NULL, price numeric(8,2) DEFAULT 1.5, n bigint)",
        "CREATE TABLE sales (item int, amount int, day date)",
        "CREATE SOURCE clicks (id int, ts timestamp, WATERMARK FOR ts AS ts)",
        "CREATE TABLE log (ts timestamp, line text, WATERMARK FOR ts AS ts - INTERVAL '1 second')",
    ]);
    world
        .apply("INSERT INTO items VALUES (1, 'apple', 0.5, 10), (2, 'pear', DEFAULT, -20), (3, 'fig', 2.25, NULL)")
        .await;
    world.apply("INSERT INTO sales VALUES (1, 3, '2024-01-01'), (1, 4, '2024-01-02'), (3, 1, NULL)").await;
    world
}

#[test]
fn definitions_become_relations() {
    let sql = "CREATE SOURCE bids (
        id bigint PRIMARY KEY, price float, big numeric, small numeric(5,1), doc jsonb, u uuid, raw bytea,
        at timestamp, atz timestamptz, t time, d date, i interval, tags text[],
        person struct<name text, city struct<zip int, name text>>,
        zip int AS ((person).city.zip), cents bigint GENERATED ALWAYS AS (price * 100) STORED,
        WATERMARK FOR atz AS atz - INTERVAL '5 seconds')";
    let relation = define(5, sql).expect("a source");
    let data_type = |name: &str| relation.schema.field_with_name(name).expect("a column").data_type().clone();
    assert_eq!(data_type("price"), DataType::Float64);
    assert_eq!(data_type("big"), DataType::Decimal128(38, 10));
    assert_eq!(data_type("small"), DataType::Decimal128(5, 1));
    assert_eq!(data_type("doc"), DataType::Utf8);
    assert_eq!(relation.schema.field_with_name("doc").expect("doc").metadata()["tidemill.type"], "jsonb");
    assert_eq!(relation.schema.field_with_name("u").expect("u").metadata()["tidemill.type"], "uuid");
    assert_eq!(data_type("raw"), DataType::Binary);
    assert_eq!(data_type("atz"), DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
    assert_eq!(data_type("t"), DataType::Time64(TimeUnit::Microsecond));
    assert!(matches!(data_type("tags"), DataType::List(element) if *element.data_type() == DataType::Utf8));
    assert!(!relation.schema.field(0).is_nullable() && relation.schema.field(1).is_nullable());
    assert!(relation.append_only && relation.kind == RelationKind::Source);
    assert_eq!(relation.bounds, [Bound { column: 8, offset: 1 }]);
    let time = relation.event_time.expect("event time");
    assert_eq!((time.column, time.inputs), (8, vec![ColumnPath::column(8)]));
    assert_eq!(time.watermark.data_type(), &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
    let zip = &relation.generated[0];
    assert_eq!(zip.inputs, [ColumnPath { column: 13, fields: vec!["city".into(), "zip".into()] }]);
    assert_eq!(relation.generated[1].scalar.data_type(), &DataType::Int64);
}

#[test]
fn definitions_that_cannot_be() {
    for (sql, code, position) in [
        ("CREATE TABLE t (a int, a text)", state::DUPLICATE_COLUMN, None),
        ("CREATE TABLE t (a int, PRIMARY KEY (b))", state::UNDEFINED_COLUMN, None),
        ("CREATE TABLE t (a nonsense)", state::UNDEFINED_OBJECT, Some(19)),
        ("CREATE TABLE t (a numeric(50, 2))", state::INVALID_PARAMETER_VALUE, None),
        ("CREATE TABLE t (a int, WATERMARK FOR a AS a)", state::DATATYPE_MISMATCH, None),
        ("CREATE TABLE t (a int, WATERMARK FOR b AS b)", state::UNDEFINED_COLUMN, None),
        ("CREATE TABLE t (a int,\n b int AS (nope + 1))", state::UNDEFINED_COLUMN, Some(35)),
        ("CREATE TABLE t (a int, b int AS (a + 1), c int AS (b + 1))", state::INVALID_OBJECT_DEFINITION, None),
        ("CREATE TABLE t (a int, b timestamptz AS (now()))", state::INVALID_OBJECT_DEFINITION, None),
        ("CREATE TABLE t (a int DEFAULT 'x')", state::INVALID_TEXT_REPRESENTATION, None),
        ("CREATE TABLE t (a bool DEFAULT 1)", state::DATATYPE_MISMATCH, None),
    ] {
        let error = define(1, sql).expect_err(sql);
        assert_eq!(error.code, code, "{sql}: {error}");
        if position.is_some() {
            assert_eq!(error.position, position, "{sql}: {error}");
        }
    }
}

#[tokio::test]
async fn queries_run_over_the_snapshot() {
    let world = shop().await;
    assert_eq!(world.query("SELECT 1 + 1, 'a' || 'b'", &[]).await, Ok(vec!["2|ab".into()]));
    let rows = world.query("SELECT name, price FROM items ORDER BY id DESC LIMIT 2", &[]).await;
    assert_eq!(rows, Ok(vec!["fig|2.25".into(), "pear|1.50".into()]));
    let joined = "SELECT name, sum(amount) FROM items JOIN sales ON id = item GROUP BY name ORDER BY 1";
    assert_eq!(world.query(joined, &[]).await, Ok(vec!["apple|7".into(), "fig|1".into()]));
    world.view("totals", "SELECT item, count(*) AS n FROM sales GROUP BY item");
    let rows = world.query("SELECT n FROM totals WHERE item = (SELECT max(item) FROM totals)", &[]).await;
    assert_eq!(rows, Ok(vec!["1".into()]));
    assert_eq!(world.query("TABLE totals ORDER BY 1 LIMIT 1", &[]).await, Ok(vec!["1|2".into()]));
    let rows =
        world.query("SELECT '5'::int, 2.5::float8, '{\"a\":1}'::jsonb, TIMESTAMP '2024-01-01 00:00:00'", &[]).await;
    assert_eq!(rows, Ok(vec!["5|2.5|{\"a\": 1}|2024-01-01T00:00:00".into()]));
}

#[tokio::test]
async fn results_have_plain_types_and_postgres_names() {
    let world = shop().await;
    let sql = "SELECT count(*), upper(name), 1, row_number() OVER (), now() FROM items GROUP BY name";
    let StatementKind::Query(query) = kind(sql) else { panic!("{sql}") };
    let answer =
        Planner::new().query(Arc::new(world.clone()), Arc::new(world.clone()), &query, &[]).await.expect("rows");
    let fields = answer.schema.fields();
    let names: Vec<_> = fields.iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["count", "upper", "?column?", "row_number", "now"]);
    assert_eq!([fields[0].data_type(), fields[1].data_type()], [&DataType::Int64, &DataType::Utf8]);
    assert_eq!(fields[3].data_type(), &DataType::Int64);
    assert_eq!(fields[4].data_type(), &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
    let described = Planner::new().describe(&world, &kind(sql), &[]).expect("a description");
    assert_eq!(described.schema, Some(answer.schema));
}

#[tokio::test]
async fn queries_fail_as_in_postgres() {
    let world = shop().await;
    for (sql, code) in [
        ("SELECT 1 / (n - n) FROM items WHERE n IS NOT NULL", state::DIVISION_BY_ZERO),
        ("SELECT 1 / 0", state::DIVISION_BY_ZERO),
        ("SELECT CAST(name AS int) FROM items", state::INVALID_TEXT_REPRESENTATION),
        ("SELECT 'x'::int", state::INVALID_TEXT_REPRESENTATION),
        ("SELECT * FROM clicks", state::WRONG_OBJECT_TYPE),
        ("SELECT * FROM nowhere", state::UNDEFINED_TABLE),
        ("SELECT nope FROM items", state::UNDEFINED_COLUMN),
        ("SELECT $1::int", state::UNDEFINED_PARAMETER),
    ] {
        let error = world.query(sql, &[]).await.expect_err(sql);
        assert_eq!(error.code, code, "{sql}: {error}");
    }
}

#[tokio::test]
async fn parameters() {
    let world = shop().await;
    let rows =
        world.query("SELECT name FROM items WHERE id = $1 OR price > $2 ORDER BY 1", &[text("1"), text("2")]).await;
    assert_eq!(rows, Ok(vec!["apple".into(), "fig".into()]));
    let value: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let rows = world.query("SELECT id, $2 FROM items ORDER BY id LIMIT $1", &[Param::Value(value), text("it's")]).await;
    assert_eq!(rows, Ok(vec!["1|it's".into()]));
    let error = world.query("SELECT * FROM items WHERE id = $1", &[text("x")]).await.expect_err("no integer");
    assert_eq!(error.code, state::INVALID_TEXT_REPRESENTATION);
    assert_eq!(world.query("SELECT 1 WHERE $1::int IS NULL", &[Param::Text(None)]).await, Ok(vec!["1".into()]));
}

#[test]
fn descriptions() {
    let world = World::with(&[
        "CREATE TABLE t (id int PRIMARY KEY, name text, at timestamp, price numeric(8,2))",
        "CREATE TABLE u (id int)",
    ]);
    let describe = |sql: &str| {
        let described =
            Planner::new().describe(&world, &kind(sql), &[]).unwrap_or_else(|error| panic!("{sql}: {error}"));
        let names = described.schema.map(|schema| schema.fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>());
        (described.params, names.map(|names| names.join(",")))
    };
    let stamp = DataType::Timestamp(TimeUnit::Microsecond, None);
    let decimal = DataType::Decimal128(8, 2);
    assert_eq!(
        describe("SELECT id, $1 AS p FROM t WHERE id = $2"),
        (vec![DataType::Utf8, DataType::Int32], Some("id,p".into()))
    );
    assert_eq!(describe("SELECT $1::date LIMIT $2").0, [DataType::Date32, DataType::Int64]);
    assert_eq!(describe("INSERT INTO t (at, id) VALUES ($2, $1)"), (vec![DataType::Int32, stamp.clone()], None));
    assert_eq!(
        describe("INSERT INTO t SELECT id FROM u WHERE id < $1 RETURNING id + 1 AS x"),
        (vec![DataType::Int32], Some("x".into()))
    );
    assert_eq!(describe("UPDATE t SET price = $1, at = $3 WHERE id = $2").0, [decimal, DataType::Int32, stamp]);
    assert_eq!(describe("DELETE FROM t WHERE name = $1 RETURNING *").1, Some("id,name,at,price".into()));
    assert_eq!(describe("SHOW SINKS").1, Some("name,state,epoch,rows,reason".into()));
    assert_eq!(describe("SHOW server_version").1, Some("server_version".into()));
    assert_eq!(describe("EXPLAIN SELECT 1").1, Some("QUERY PLAN".into()));
    assert_eq!(describe("FETCH 1 FROM c"), (Vec::new(), None));
    assert_eq!(describe("BEGIN"), (Vec::new(), None));
    let named = Planner::new().describe(&world, &kind("SELECT $1"), &[Some(DataType::Int64)]).expect("a description");
    assert_eq!(named.params, [DataType::Int64]);
    assert_eq!(named.schema.expect("columns").field(0).data_type(), &DataType::Int64);
}

#[tokio::test]
async fn inserts() {
    let world = World::with(&[
        "CREATE TABLE t (a int PRIMARY KEY, b text DEFAULT upper('x'), c numeric(6,2),
            d int AS (a * 2), e timestamptz DEFAULT now())",
        "CREATE TABLE s (x bigint, y text)",
    ]);
    let added = async |sql: &str, params: &[Param]| {
        let change = world.dml(sql, params).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(change.added.iter().map(RecordBatch::num_rows).sum::<usize>(), change.count);
        let rows: Vec<_> = change.added.iter().map(|rows| rows.project(&[0, 1, 2, 3]).expect("columns")).collect();
        lines(&rows)
    };
    assert_eq!(added("INSERT INTO t (c, a) VALUES (1.005, -1), ('2', 2)", &[]).await, ["-1|X|1.01|-2", "2|X|2.00|4"]);
    assert_eq!(added("INSERT INTO t VALUES (1, 'q', DEFAULT, DEFAULT)", &[]).await, ["1|q|null|2"]);
    assert_eq!(added("INSERT INTO t (a, c) VALUES (1.5, 1 + 1)", &[]).await, ["2|X|2.00|4"]);
    assert_eq!(
        added("INSERT INTO t (a, b) VALUES ($1, $2)", &[text("7"), Param::Text(None)]).await,
        ["7|null|null|14"]
    );
    assert_eq!(added("INSERT INTO t (a, b) VALUES ($1 + 1, $2)", &[text("7"), text("z")]).await, ["8|z|null|16"]);
    world.apply("INSERT INTO s VALUES (5, 'five'), (6, 'six')").await;
    assert_eq!(added("INSERT INTO t (a, b) SELECT x, y FROM s WHERE x > 5", &[]).await, ["6|six|null|12"]);
    assert_eq!(added("WITH w AS (SELECT 9 AS n) INSERT INTO t (a) SELECT n FROM w", &[]).await, ["9|X|null|18"]);
    let change = world.dml("INSERT INTO t (a) VALUES (4) RETURNING a + d AS sum, b", &[]).await.expect("a change");
    assert_eq!(lines(&change.returning.expect("rows").batches), ["12|X"]);
}

#[tokio::test]
async fn inserts_that_fail() {
    let world = shop().await;
    for (sql, code, part) in [
        ("INSERT INTO items (name) VALUES ('x')", state::NOT_NULL_VIOLATION, "column \"id\" of relation \"items\""),
        ("INSERT INTO items VALUES (9, NULL)", state::NOT_NULL_VIOLATION, "column \"name\""),
        ("INSERT INTO items VALUES ('x', 'y')", state::INVALID_TEXT_REPRESENTATION, "type integer: \"x\""),
        ("INSERT INTO items VALUES (99999999999, 'y')", state::NUMERIC_VALUE_OUT_OF_RANGE, "integer"),
        ("INSERT INTO items VALUES (1, 'y', 9999999)", state::NUMERIC_VALUE_OUT_OF_RANGE, "numeric"),
        ("INSERT INTO items VALUES (true, 'y')", state::DATATYPE_MISMATCH, "column \"id\""),
        ("INSERT INTO items VALUES (1, 'a', 1, 1, 1)", state::SYNTAX_ERROR, "more expressions"),
        ("INSERT INTO items (id, name) VALUES (1)", state::SYNTAX_ERROR, "more target columns"),
        ("INSERT INTO items VALUES (1, 'a'), (2)", state::SYNTAX_ERROR, "same length"),
        ("INSERT INTO items (id, nope) VALUES (1, 2)", state::UNDEFINED_COLUMN, "\"nope\""),
        ("INSERT INTO items (id, id) VALUES (1, 2)", state::DUPLICATE_COLUMN, "\"id\""),
        ("INSERT INTO items VALUES (8, 'a'), (8, 'b')", state::UNIQUE_VIOLATION, "items_pkey"),
        ("INSERT INTO clicks VALUES (1)", state::WRONG_OBJECT_TYPE, "source"),
        ("INSERT INTO nowhere VALUES (1)", state::UNDEFINED_TABLE, "nowhere"),
        (
            "INSERT INTO items VALUES (1, 'a') ON CONFLICT (name) DO NOTHING",
            state::INVALID_COLUMN_REFERENCE,
            "ON CONFLICT",
        ),
        (
            "INSERT INTO items VALUES (1, 'a') ON CONFLICT (id) DO UPDATE SET name = excluded.name",
            state::FEATURE_NOT_SUPPORTED,
            "whole row",
        ),
    ] {
        let error = world.dml(sql, &[]).await.expect_err(sql);
        assert_eq!(error.code, code, "{sql}: {error}");
        assert!(error.message.contains(part), "{sql}: {error}");
    }
}

#[tokio::test]
async fn conflicts() {
    let world = shop().await;
    let nothing =
        world.dml("INSERT INTO items VALUES (8, 'a'), (8, 'b') ON CONFLICT DO NOTHING", &[]).await.expect("a change");
    assert_eq!((nothing.on_conflict, nothing.count), (OnConflict::Nothing, 1));
    let sql = "INSERT INTO items VALUES (1, 'a') ON CONFLICT (id) DO UPDATE
        SET name = excluded.name, price = EXCLUDED.price, n = excluded.n";
    assert_eq!(world.dml(sql, &[]).await.expect("a change").on_conflict, OnConflict::Replace);
    let twice = sql.replace("(1, 'a')", "(1, 'a'), (1, 'b')");
    assert_eq!(world.dml(&twice, &[]).await.expect_err("twice").code, state::CARDINALITY_VIOLATION);
}

#[tokio::test]
async fn updates_and_deletes() {
    let world = shop().await;
    assert_eq!(world.apply("UPDATE items SET n = n * 2, price = DEFAULT WHERE n IS NOT NULL").await, 2);
    let rows = world.query("SELECT id, price, n FROM items ORDER BY id", &[]).await;
    assert_eq!(rows, Ok(vec!["1|1.50|20".into(), "2|1.50|-40".into(), "3|2.25|null".into()]));
    // Two sales match item 1; it changes once.
    assert_eq!(
        world.apply("UPDATE items AS i SET n = s.amount FROM sales s WHERE s.item = i.id AND i.id = 1").await,
        1
    );
    assert_eq!(world.apply("DELETE FROM items USING sales WHERE items.id = sales.item").await, 2);
    assert_eq!(world.query("SELECT id FROM items", &[]).await, Ok(vec!["2".into()]));
    let change = world.dml("UPDATE items SET (name, n) = ($1, $2) RETURNING name, n", &[text("kiwi"), text("5")]).await;
    assert_eq!(lines(&change.expect("a change").returning.expect("rows").batches), ["kiwi|5"]);
    let change = world.dml("DELETE FROM items RETURNING *", &[]).await.expect("a change");
    assert_eq!((change.count, lines(&change.returning.expect("rows").batches).len()), (1, 1));
    for (sql, code) in [
        ("UPDATE log SET line = 'x'", state::FEATURE_NOT_SUPPORTED),
        ("DELETE FROM log", state::FEATURE_NOT_SUPPORTED),
        ("UPDATE items SET name = NULL", state::NOT_NULL_VIOLATION),
        ("UPDATE items SET nope = 1", state::UNDEFINED_COLUMN),
        ("UPDATE items SET n = 1, n = 2", state::SYNTAX_ERROR),
        ("UPDATE items SET id = 'x'", state::INVALID_TEXT_REPRESENTATION),
        ("UPDATE items SET n = 1 / 0", state::DIVISION_BY_ZERO),
    ] {
        let error = world.dml(sql, &[]).await.expect_err(sql);
        assert_eq!(error.code, code, "{sql}: {error}");
    }
}

#[test]
fn partial_rows_are_completed() {
    let table = define(
        1,
        "CREATE TABLE t (id int NOT NULL, s struct<a int, b text>, k int DEFAULT 3, twice bigint AS ((s).a * 2))",
    )
    .expect("a table");
    let a: ArrayRef = Arc::new(Int32Array::from(vec![Some(4), None]));
    let b: ArrayRef = Arc::new(StringArray::from(vec!["x", "y"]));
    let fields = vec![Field::new("a", DataType::Int32, true), Field::new("b", DataType::Utf8, true)];
    let s: ArrayRef = Arc::new(StructArray::new(fields.into(), vec![a, b], None));
    let id: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let schema =
        Schema::new(vec![Field::new("s", s.data_type().clone(), true), Field::new("id", DataType::Int64, true)]);
    let rows = RecordBatch::try_new(Arc::new(schema), vec![s, id]).expect("rows");
    let full = Planner::new().complete_rows(&table, rows.clone()).expect("completed");
    assert_eq!(full.schema(), table.schema);
    assert_eq!(lines(&[full]), ["1|{a: 4, b: x}|3|8", "2|{a: , b: y}|3|null"]);
    let without = rows.project(&[0]).expect("a column");
    let error = Planner::new().complete_rows(&table, without).expect_err("no id");
    assert_eq!(error.code, state::NOT_NULL_VIOLATION);
}

#[test]
fn what_parses_can_be_planned_without_harm() {
    // As sessions do, on a stack with room for what is allowed to nest.
    let plan =
        || tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(plan_what_parses());
    let thread = std::thread::Builder::new().stack_size(64 << 20).spawn(plan).expect("a thread");
    thread.join().expect("no harm");
}

async fn plan_what_parses() {
    let world = shop().await;
    let sum = format!("SELECT 1{}", " + 1".repeat(240));
    assert_eq!(world.query(&sum, &[]).await, Ok(vec!["241".into()]));
    let any = format!("SELECT count(*) FROM items WHERE id = 1{}", " OR id = 2".repeat(1_900));
    assert_eq!(world.query(&any, &[]).await, Ok(vec!["2".into()]));
    let numbers: Vec<_> = (0..1_900).map(|i| format!("(n <> {} OR id < 0)", i + 100)).collect();
    let all = format!("SELECT count(*) FROM items WHERE {}", numbers.join(" AND "));
    assert_eq!(world.query(&all, &[]).await, Ok(vec!["2".into()]));
    let union = format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(60));
    assert_eq!(world.query(&union, &[]).await.map(|rows| rows.len()), Ok(61));
    let nested = format!("SELECT {}1{}", "abs(".repeat(40), ")".repeat(40));
    assert_eq!(world.query(&nested, &[]).await, Ok(vec!["1".into()]));
    let casts = format!("SELECT 1{}", "::bigint::text".repeat(60));
    assert_eq!(world.query(&casts, &[]).await, Ok(vec!["1".into()]));
}

#[tokio::test]
async fn memory_is_bounded() {
    let world = shop().await;
    let many = "SELECT a.v AS a, b.v AS b FROM generate_series(1, 20000) AS a(v), generate_series(1, 20000) AS b(v)
        ORDER BY 2, 1";
    match world.query(many, &[]).await {
        Err(error) => assert!(matches!(error.code, "53200" | state::UNDEFINED_FUNCTION), "{error}"),
        Ok(rows) => panic!("{} rows", rows.len()),
    }
}

#[tokio::test]
async fn a_query_that_needs_more_than_its_share_fails_alone() {
    let world = Arc::new(shop().await);
    let planner = Planner::with_memory(4 << 20);
    let run = async |sql: &str| {
        let StatementKind::Query(query) = kind(sql) else { panic!("{sql}") };
        planner.query(world.clone(), world.clone(), &query, &[]).await
    };
    let large = "SELECT DISTINCT v, repeat('x', 50) AS x FROM generate_series(1, 200000) AS s(v) ORDER BY v DESC";
    let (small, error) = tokio::join!(run("SELECT count(*) AS n FROM generate_series(1, 1000) AS s(v)"), run(large));
    assert_eq!(small.map(|answer| lines(&answer.batches)), Ok(vec!["1000".into()]));
    let error = error.expect_err("not within 4 MiB");
    assert_eq!((error.code, error.detail.as_deref()), ("53200", Some("all queries together may use 4 MiB")));
    // What it had is free again.
    assert!(run("SELECT DISTINCT v FROM generate_series(1, 10000) AS s(v)").await.is_ok());
}
