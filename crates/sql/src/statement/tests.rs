//! What parses, to what, and how errors read.

#![allow(clippy::disallowed_methods, reason = "tests wait and measure by the real clock")]

use super::*;

fn one(sql: &str) -> StatementKind {
    let mut statements = parse(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    assert_eq!(statements.len(), 1, "{sql}");
    statements.remove(0).kind
}

fn error(sql: &str) -> SqlError {
    match parse(sql) {
        Err(error) => error,
        Ok(statements) => panic!("{sql} parsed: {:?}", statements[0].kind),
    }
}

fn relation(sql: &str) -> CreateRelation {
    match one(sql) {
        StatementKind::CreateRelation(create) => *create,
        other => panic!("{sql}: {other:?}"),
    }
}

fn view(sql: &str) -> CreateView {
    match one(sql) {
        StatementKind::CreateView(create) => *create,
        other => panic!("{sql}: {other:?}"),
    }
}

fn sink(sql: &str) -> CreateSink {
    match one(sql) {
        StatementKind::CreateSink(create) => *create,
        other => panic!("{sql}: {other:?}"),
    }
}

fn pairs(options: &[(String, String)]) -> Vec<(&str, &str)> {
    options.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

#[test]
fn scripts_come_apart_with_text_and_offset() {
    let script = "select 1;\n-- note\nTABLE t ; ; drop view V";
    let statements = parse(script).expect("parses");
    let seen: Vec<_> = statements.iter().map(|s| (s.text.as_str(), s.offset)).collect();
    assert_eq!(seen, [("select 1", 0), ("-- note\nTABLE t", 10), ("drop view V", 30)]);
    assert!(matches!(one(" ; -- nothing"), StatementKind::Empty));
    assert!(matches!(one(""), StatementKind::Empty));
    match &statements[1].kind {
        StatementKind::Query(query) => assert_eq!(query.to_string(), "SELECT * FROM t"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn sources_with_everything() {
    let create = relation(
        "CREATE SOURCE IF NOT EXISTS Public.\"Bids\" (
            auction BIGINT NOT NULL, price numeric(10, 2) DEFAULT 1.5 NOT NULL,
            extra struct<a int, b struct<c text, d timestamp[]>>, tags text[],
            day DATE AS (CAST(ts AS DATE)), cents bigint GENERATED ALWAYS AS (price * 100) STORED,
            untyped AS auction + 1,
            ts TIMESTAMP WITH TIME ZONE, PRIMARY KEY (auction, ts) NOT ENFORCED,
            WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
        ) WITH ('Connector' = 'kafka', properties.bootstrap.servers = \"h:9\", \"a.B\" = 5, neg = -1.5, flag = true,)
        FORMAT PLAIN ENCODE JSON (strict = 'yes')",
    );
    assert!(create.source && create.if_not_exists);
    assert_eq!((create.name.namespace.as_deref(), create.name.name.as_str()), (Some("public"), "Bids"));
    let names: Vec<_> = create.columns.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["auction", "price", "extra", "tags", "day", "cents", "untyped", "ts"]);
    assert!(create.columns[0].not_null && create.columns[1].not_null && !create.columns[2].not_null);
    assert_eq!(create.columns[1].default.as_ref().map(ToString::to_string).as_deref(), Some("1.5"));
    assert_eq!(create.columns[6].data_type, ast::DataType::Unspecified);
    assert!(create.columns[4..7].iter().all(|c| c.generated.is_some()));
    assert_eq!(create.primary_key, ["auction", "ts"]);
    let (column, watermark) = create.watermark.expect("a watermark");
    assert_eq!((column.as_str(), watermark.to_string().as_str()), ("ts", "ts - INTERVAL '5' SECOND"));
    assert_eq!(
        pairs(&create.options),
        [
            ("connector", "kafka"),
            ("properties.bootstrap.servers", "h:9"),
            ("a.b", "5"),
            ("neg", "-1.5"),
            ("flag", "true"),
            ("format", "plain"),
            ("encode", "json"),
            ("strict", "yes"),
        ]
    );
}

#[test]
fn all_types_parse() {
    for data_type in [
        "bool",
        "boolean",
        "smallint",
        "int2",
        "int",
        "integer",
        "int4",
        "bigint",
        "int8",
        "real",
        "float4",
        "float",
        "double precision",
        "float8",
        "double",
        "decimal",
        "decimal(10)",
        "numeric(38, 10)",
        "text",
        "varchar",
        "varchar(10)",
        "character varying(3)",
        "char(3)",
        "string",
        "bytea",
        "date",
        "time",
        "time without time zone",
        "timestamp",
        "timestamp(3)",
        "timestamptz",
        "timestamp with time zone",
        "timestamp(6) with time zone",
        "interval",
        "jsonb",
        "json",
        "uuid",
        "int[]",
        "int[][]",
        "struct<a int>",
        "row(a int, b text[])[]",
        "struct<a struct<b struct<c int>>, d int>",
        "struct<a row(b int)>[]",
    ] {
        let create = relation(&format!("CREATE TABLE t (c {data_type} NOT NULL, d int)"));
        assert_eq!(create.columns.len(), 2, "{data_type}");
        assert!(create.columns[0].not_null, "{data_type}");
    }
    let nested = relation("CREATE TABLE t (c struct<a struct<b struct<c int>>, d int>)");
    match &nested.columns[0].data_type {
        ast::DataType::Struct(fields, _) => assert_eq!(fields.len(), 2),
        other => panic!("{other:?}"),
    }
    assert_eq!(error("CREATE TABLE t (c struct<a int>>)").code, state::SYNTAX_ERROR);
    assert_eq!(error("CREATE TABLE t (c struct<a int)").code, state::SYNTAX_ERROR);
    let deep = format!("CREATE TABLE t (c {}int{})", "struct<a ".repeat(40), ">".repeat(40));
    assert_eq!(error(&deep).code, state::STATEMENT_TOO_COMPLEX);
}

#[test]
fn views_with_emit() {
    let create = view("CREATE OR REPLACE MATERIALIZED VIEW v (a, \"B\") AS SELECT x, y FROM t EMIT ON WINDOW CLOSE");
    assert!(create.or_replace && create.materialized && create.on_close);
    assert_eq!(create.columns, ["a", "B"]);
    assert_eq!(create.query.to_string(), "SELECT x, y FROM t");
    assert!(!view("create materialized view if not exists v as select 1 emit on update").on_close);
    let plain = view("CREATE VIEW v WITH (ttl = '1h') AS (SELECT emit FROM t AS emit)");
    assert!(!plain.materialized);
    assert_eq!(pairs(&plain.options), [("ttl", "1h")]);
    assert_eq!(error("SELECT 1 FROM t EMIT ON WINDOW CLOSE").position, Some(17));
}

#[test]
fn sinks() {
    let from = sink("CREATE SINK s FROM v WITH (connector = 'kafka', topic = 't') FORMAT UPSERT ENCODE JSON");
    assert_eq!(from.from.map(|name| name.name).as_deref(), Some("v"));
    assert_eq!(pairs(&from.options).last(), Some(&("encode", "json")));
    let query = sink("CREATE SINK IF NOT EXISTS s AS SELECT a FROM t EMIT ON WINDOW CLOSE WITH (connector = 'files')");
    assert!(query.on_close && query.if_not_exists);
    assert!(query.query.expect("a query").to_string().contains("SELECT a FROM t"));
    assert_eq!(pairs(&query.options), [("connector", "files")]);
    let with = sink("CREATE SINK s AS WITH x AS (SELECT 1) SELECT * FROM x WITH (connector = 'files')");
    assert_eq!(with.options.len(), 1);
}

#[test]
fn window_functions_parse_in_both_spellings() {
    for sql in [
        "SELECT * FROM TUMBLE(t, ts, INTERVAL '10 seconds')",
        "SELECT * FROM TUMBLE(t, ts, INTERVAL '10' SECOND) AS w",
        "SELECT * FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '10' SECOND))",
        "SELECT * FROM TABLE(HOP(DATA => TABLE s.t, DESCRIPTOR(ts), INTERVAL '1' SECOND, INTERVAL '2' SECOND))",
        "SELECT * FROM HOP((SELECT * FROM t), ts, INTERVAL '2 seconds', INTERVAL '10 seconds')",
        "SELECT * FROM o JOIN r FOR SYSTEM_TIME AS OF o.ts ON o.c = r.c",
        "SELECT count(*) FILTER (WHERE x > 1), a ->> 'b', ARRAY[1,2][1], (s).f, x::int FROM t",
    ] {
        assert!(matches!(one(sql), StatementKind::Query(_)), "{sql}");
    }
}

#[test]
fn drops() {
    match one("DROP MATERIALIZED VIEW IF EXISTS a, s.\"B\" CASCADE") {
        StatementKind::Drop { kind, names, if_exists, cascade } => {
            assert_eq!((kind, if_exists, cascade), (DropKind::MaterializedView, true, true));
            assert_eq!(names[1].namespace.as_deref(), Some("s"));
            assert_eq!((names[1].name.as_str(), names[0].position), ("B", Some(34)));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(one("drop source s restrict"), StatementKind::Drop { kind: DropKind::Source, .. }));
}

#[test]
fn copies() {
    let from = |sql: &str| match one(sql) {
        StatementKind::CopyFrom { columns, options, .. } => (columns.len(), options),
        other => panic!("{other:?}"),
    };
    let (columns, options) =
        from("COPY t (a, b) FROM STDIN WITH (FORMAT csv, HEADER, DELIMITER ';', NULL 'x', ENCODING 'UTF8')");
    assert_eq!((columns, options.format, options.header, options.delimiter), (2, CopyFormat::Csv, true, b';'));
    assert_eq!(options.null, "x");
    let (_, options) = from("COPY t FROM stdin");
    assert_eq!((options.format, options.delimiter, options.null.as_str()), (CopyFormat::Text, b'\t', "\\N"));
    let (_, options) = from("copy t from stdin csv header delimiter as '|' null as ''");
    assert_eq!((options.format, options.delimiter, options.header), (CopyFormat::Csv, b'|', true));
    match one("COPY (SUBSCRIBE TO v AS OF 7 WITH SNAPSHOT) TO STDOUT") {
        StatementKind::CopyTo { what, .. } => match *what {
            StatementKind::Subscribe(to) => assert_eq!((to.as_of, to.snapshot), (Some(7), true)),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
    match one("COPY s.\"T\" (a) TO STDOUT (FORMAT csv)") {
        StatementKind::CopyTo { what, .. } => match *what {
            StatementKind::Query(query) => assert_eq!(query.to_string(), "SELECT \"a\" FROM \"s\".\"T\""),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
    assert_eq!(error("COPY t FROM '/etc/passwd'").code, state::FEATURE_NOT_SUPPORTED);
    assert_eq!(error("COPY t FROM STDIN (FORMAT binary)").code, state::FEATURE_NOT_SUPPORTED);
    assert_eq!(error("COPY t FROM STDIN (DELIMITER 'ab')").code, state::INVALID_PARAMETER_VALUE);
}

#[test]
fn sessions() {
    let set = |sql: &str| match one(sql) {
        StatementKind::Set { name, value } => (name, value),
        other => panic!("{other:?}"),
    };
    assert_eq!(set("SET SESSION a.B TO 'x y'"), ("a.b".into(), Some("x y".into())));
    assert_eq!(set("set search_path = public, \"X\""), ("search_path".into(), Some("public, X".into())));
    assert_eq!(set("SET TIME ZONE 'UTC'"), ("timezone".into(), Some("UTC".into())));
    assert_eq!(set("SET extra_float_digits = 3"), ("extra_float_digits".into(), Some("3".into())));
    assert_eq!(set("SET x TO DEFAULT"), ("x".into(), None));
    assert_eq!(set("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY").1.as_deref(), Some("read only"));
    assert!(matches!(one("RESET ALL"), StatementKind::Reset(None)));
    for sql in ["BEGIN", "START TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY", "begin work"] {
        assert!(matches!(one(sql), StatementKind::Begin), "{sql}");
    }
    assert!(matches!(one("END"), StatementKind::Commit));
    assert!(matches!(one("ABORT TRANSACTION"), StatementKind::Rollback));
    assert_eq!(error("ROLLBACK TO s").code, state::FEATURE_NOT_SUPPORTED);
    assert!(matches!(one("DISCARD ALL"), StatementKind::Discard));
    assert!(matches!(one("DEALLOCATE PREPARE \"s1\""), StatementKind::Discard));
    assert!(matches!(one("CLOSE ALL"), StatementKind::Close(None)));
}

#[test]
fn cursors_and_subscriptions() {
    match one("DECLARE c NO SCROLL CURSOR WITHOUT HOLD FOR SUBSCRIBE v WITHOUT SNAPSHOT") {
        StatementKind::Declare { name, what } => match *what {
            StatementKind::Subscribe(to) => assert_eq!((name.as_str(), to.as_of, to.snapshot), ("c", None, false)),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
    let fetch = |sql: &str| match one(sql) {
        StatementKind::Fetch { name, count, timeout_ms } => (name, count, timeout_ms),
        other => panic!("{other:?}"),
    };
    assert_eq!(fetch("FETCH ALL FROM c WITH (timeout = '1500ms')"), ("c".into(), None, Some(1_500)));
    assert_eq!(fetch("FETCH FORWARD 10 IN c"), ("c".into(), Some(10), None));
    assert_eq!(fetch("fetch c"), ("c".into(), Some(1), None));
    assert_eq!(fetch("FETCH NEXT c"), ("c".into(), Some(1), None));
    assert!(matches!(one("SUBSCRIBE v AS OF 3"), StatementKind::Subscribe(to) if !to.snapshot));
    assert!(matches!(one("SUBSCRIBE TO v"), StatementKind::Subscribe(to) if to.snapshot));
}

#[test]
fn shows_and_explains() {
    let show = |sql: &str| match one(sql) {
        StatementKind::Show(what) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(show("show materialized views"), ShowWhat::Views);
    assert_eq!(show("SHOW CHECKPOINTS"), ShowWhat::Checkpoints);
    assert_eq!(show("SHOW server_version"), ShowWhat::Parameter("server_version".into()));
    assert_eq!(show("SHOW TRANSACTION ISOLATION LEVEL"), ShowWhat::Parameter("transaction_isolation".into()));
    assert!(matches!(show("SHOW CREATE MATERIALIZED VIEW v"), ShowWhat::Create(name) if name.name == "v"));
    assert!(matches!(show("DESCRIBE t"), ShowWhat::Columns(name) if name.name == "t"));
    let explained = |sql: &str| match one(sql) {
        StatementKind::Explain(what) => *what,
        other => panic!("{other:?}"),
    };
    for sql in ["VERIFY MATERIALIZED VIEW v", "verify view V", "VERIFY v"] {
        let statement = parse(sql).expect("it parses").remove(0);
        assert!(matches!(statement.kind, StatementKind::Verify(name) if name.name == "v"), "{sql}");
    }
    assert!(matches!(explained("EXPLAIN SELECT 1"), StatementKind::Query(_)));
    for sql in ["EXPLAIN MATERIALIZED VIEW v", "EXPLAIN VIEW v", "EXPLAIN v", "EXPLAIN \"v\""] {
        assert!(matches!(explained(sql), StatementKind::Subscribe(to) if to.name.name == "v"), "{sql}");
    }
    assert!(matches!(
        explained("EXPLAIN CREATE MATERIALIZED VIEW v AS SELECT a FROM t EMIT ON WINDOW CLOSE"),
        StatementKind::CreateView(create) if create.on_close
    ));
}

#[test]
fn dml_parses() {
    assert!(matches!(
        one("INSERT INTO t VALUES (1, DEFAULT) ON CONFLICT DO NOTHING RETURNING *"),
        StatementKind::Insert(_)
    ));
    assert!(matches!(one("INSERT INTO t DEFAULT VALUES"), StatementKind::Insert(_)));
    assert!(matches!(one("UPDATE t SET a = b FROM u WHERE t.id = u.id"), StatementKind::Update(_)));
    assert!(matches!(one("DELETE FROM t USING u WHERE t.id = u.id"), StatementKind::Delete(_)));
    match one("WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x") {
        StatementKind::Insert(insert) => assert!(insert.source.expect("a source").with.is_some()),
        other => panic!("{other:?}"),
    }
    assert!(matches!(one("TRUNCATE TABLE a, b"), StatementKind::Truncate(names) if names.len() == 2));
}

#[test]
fn syntax_errors_have_a_place_and_name_what_was_expected() {
    let cases = [
        ("SELECT FORM x y z", 15, "\"y\""),
        ("SELECT 1 FROM", 14, "end of the statement"),
        ("select 1;\n  frobnicate x", 13, "expected a statement"),
        ("CREATE TABLE t (a int b)", 23, "expected \",\" or \")\""),
        ("CREATE TABLE t (a int", 22, "expected \",\" or \")\""),
        ("CREATE SINK s INTO x", 15, "expected FROM or AS"),
        ("CREATE VIEW v SELECT 1", 15, "expected AS"),
        ("DROP VIEWS v", 6, "expected TABLE, SOURCE"),
        ("SELECT 'ä' || 'open", 15, "unterminated"),
        ("COPY t FROM STDIN (FORMAT csv", 30, "expected \")\""),
        ("FETCH 3 FROM", 13, "a cursor's name"),
    ];
    for (sql, position, part) in cases {
        let error = error(sql);
        assert_eq!(error.code, state::SYNTAX_ERROR, "{sql}: {error}");
        assert_eq!(error.position, Some(position), "{sql}: {error}");
        assert!(error.message.contains(part), "{sql}: {error}");
    }
}

#[test]
fn what_is_not_done_is_named() {
    for (sql, part) in [
        ("ALTER TABLE t ADD c int", "ALTER"),
        ("GRANT ALL ON t TO x", "GRANT"),
        ("CREATE INDEX i ON t (a)", "CREATE INDEX"),
        ("CREATE TABLE t AS SELECT 1", "CREATE TABLE AS"),
        ("CREATE TEMP TABLE t (a int)", "TEMP"),
        ("CREATE TABLE t (a int UNIQUE)", "UNIQUE"),
        ("CREATE TABLE t (a int, CHECK (a > 1))", "CHECK"),
        ("DROP SCHEMA s", "DROP SCHEMA"),
        ("REFRESH MATERIALIZED VIEW v", "REFRESH"),
        ("SELECT 1 FROM t; SAVEPOINT x", "SAVEPOINT"),
    ] {
        let error = error(sql);
        assert_eq!(error.code, state::FEATURE_NOT_SUPPORTED, "{sql}: {error}");
        assert!(error.message.contains(part), "{sql}: {error}");
    }
}

#[test]
fn large_and_deep_texts_are_refused_without_harm() {
    let long = format!("SELECT '{}'", "x".repeat(1 << 20));
    assert_eq!(error(&long).code, state::PROGRAM_LIMIT_EXCEEDED);
    let deep: Vec<String> = vec![
        format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000)),
        format!("SELECT {}1{}", "(".repeat(60), ")".repeat(60)),
        format!("SELECT * FROM {}t{}", "(".repeat(60), ")".repeat(60)),
        format!("SELECT * FROM {}t{}", "(SELECT * FROM ".repeat(60), ")".repeat(60)),
        format!("SELECT {}1", "- ".repeat(100_000)),
        format!("SELECT {}true", "NOT ".repeat(100_000)),
        format!("SELECT 1{}", " + 1".repeat(100_000)),
        format!("SELECT 1 WHERE a{}", " OR a".repeat(100_000)),
        format!("SELECT {}1", "CASE WHEN a THEN ".repeat(200)),
        format!("SELECT a{}", "[1]".repeat(10_000)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(20_000)),
        format!("SELECT a{}", "::int".repeat(50_000)),
        format!("SELECT 1 FROM t{}", " JOIN t ON true".repeat(20_000)),
        format!("SELECT {}1{}", "ARRAY[".repeat(300), "]".repeat(300)),
    ];
    for sql in deep {
        let start = std::time::Instant::now();
        let shown: String = sql.chars().take(40).collect();
        let error = error(&sql);
        assert_eq!(error.code, state::STATEMENT_TOO_COMPLEX, "{shown}: {error}");
        assert!(start.elapsed().as_secs() < 5, "{shown} took {:?}", start.elapsed());
    }
}

#[test]
fn nothing_takes_exponential_time() {
    for (open, close) in [
        ("f(", ")"),
        ("ceil(", ")"),
        ("trim(", ")"),
        ("position(", ")"),
        ("extract(day from ", ")"),
        ("cast(", " as int)"),
        ("(", ")"),
        ("((", "))"),
        ("a in (", ")"),
        ("a in ((", "))"),
        ("interval ", ""),
        ("not ", ""),
        ("exists (select ", ")"),
        ("array[", "]"),
        ("a.b.", ""),
        ("substring(", " from 1)"),
        ("(select * from (", "))"),
    ] {
        for middle in ["1", "+", "select", "1 1"] {
            for depth in [10, 22, 40] {
                for prefix in ["SELECT ", "SELECT * FROM ", "INSERT INTO t VALUES (", "CREATE TABLE t (a int DEFAULT "]
                {
                    let sql = format!("{prefix}{}{middle}{}", open.repeat(depth), close.repeat(depth));
                    let start = std::time::Instant::now();
                    let _ = parse(&sql);
                    assert!(start.elapsed().as_millis() < 2_000, "{:?} for {sql}", start.elapsed());
                }
            }
        }
    }
}

#[test]
fn chains_within_the_limit_can_be_copied_printed_and_dropped() {
    // The stack of a test's thread is 2 MiB, as that of the server's threads.
    let chain = format!("SELECT a = 1{}", " OR a = 1".repeat(1_900));
    for sql in [chain, format!("SELECT 1{}", " + 1".repeat(240)), format!("SELECT 1{}", " UNION SELECT 1".repeat(64))] {
        let statement = one(&sql);
        let copy = statement.clone();
        match &copy {
            StatementKind::Query(query) => assert!(query.to_string().len() > 500),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn long_lists_are_fine() {
    let rows = "(1, 'a', now() - interval '1 second'), ".repeat(5_000);
    assert!(matches!(one(&format!("INSERT INTO t VALUES {rows} (1, 'b', NULL)")), StatementKind::Insert(_)));
    let list = "1, ".repeat(20_000);
    assert!(matches!(one(&format!("SELECT * FROM t WHERE a IN ({list} 2)")), StatementKind::Query(_)));
}

#[test]
fn distinct_from_binds_before_and() {
    let outermost = |sql: &str| {
        let StatementKind::Query(query) = one(sql) else { panic!("{sql} is no query") };
        let ast::SetExpr::Select(select) = *query.body else { panic!("{sql} is no SELECT") };
        match &select.projection[0] {
            ast::SelectItem::UnnamedExpr(ast::Expr::BinaryOp { op, .. }) => op.to_string(),
            ast::SelectItem::UnnamedExpr(ast::Expr::UnaryOp { op, .. }) => op.to_string(),
            other => other.to_string(),
        }
    };
    assert_eq!(outermost("SELECT a IS DISTINCT FROM b AND c"), "AND");
    assert_eq!(outermost("SELECT a IS NOT DISTINCT FROM b + 1 OR c"), "OR");
    assert_eq!(outermost("SELECT NOT a IS DISTINCT FROM b"), "NOT");
    assert_eq!(outermost("SELECT a IS DISTINCT FROM b + 1"), "a IS DISTINCT FROM b + 1");
}
