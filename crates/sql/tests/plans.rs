//! The dataflows of views, as `EXPLAIN` prints them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use tidemill_plan::{
    AggregateFunction, ColumnPath, Expr, FrameOffset, FrameUnits, Op, OverFunction, Recompute, explain,
};
use tidemill_sql::{Catalog, PlannedView, Planner, Relation, RelationKind, SqlError, Statement, StatementKind, parse};

/// Relations by name.
#[derive(Default)]
struct Relations {
    by_name: HashMap<String, Arc<Relation>>,
}

impl Catalog for Relations {
    fn relation(&self, _namespace: Option<&str>, name: &str) -> Option<Arc<Relation>> {
        self.by_name.get(name).cloned()
    }

    fn relations(&self) -> Vec<Arc<Relation>> {
        self.by_name.values().cloned().collect()
    }
}

/// A catalog made by statements.
struct World {
    planner: Planner,
    relations: Relations,
}

impl World {
    fn new(script: &str) -> Self {
        let mut world = World { planner: Planner::new(), relations: Relations::default() };
        for statement in parse(script).expect("the script parses") {
            world.run(&statement);
        }
        world
    }

    fn run(&mut self, statement: &Statement) {
        let id = self.relations.by_name.len() as u64 + 1;
        let relation = match &statement.kind {
            StatementKind::CreateRelation(create) => {
                self.planner.create_relation(id, create, &statement.text).expect("a relation")
            }
            StatementKind::CreateView(view) => {
                let planned = self.planner.plan_view(&self.relations, &view.query, view.on_close, &view.columns);
                let planned = planned.unwrap_or_else(|e| panic!("{}: {e:?}", view.name.name));
                let output = planned.dataflow.output();
                let kind = if view.materialized { RelationKind::MaterializedView } else { RelationKind::View };
                Relation {
                    id,
                    namespace: "public".into(),
                    name: view.name.name.clone(),
                    kind,
                    schema: planned.schema.clone(),
                    primary_key: Vec::new(),
                    append_only: output.append_only,
                    event_time: None,
                    generated: Vec::new(),
                    retention: None,
                    defaults: Vec::new(),
                    bounds: output.bounds.clone(),
                    definition: Some(planned.definition.clone()),
                    sql: statement.text.clone(),
                }
            }
            StatementKind::Empty => return,
            other => panic!("not in a script: {other:?}"),
        };
        self.relations.by_name.insert(relation.name.clone(), Arc::new(relation));
    }

    fn try_plan(&self, sql: &str) -> Result<PlannedView, SqlError> {
        let on_close = sql.contains("EMIT ON WINDOW CLOSE");
        let sql = sql.replace("EMIT ON WINDOW CLOSE", "");
        let mut statements = parse(&sql)?;
        let Some(Statement { kind: StatementKind::Query(query), .. }) = statements.pop() else {
            panic!("not a query: {sql}");
        };
        self.planner.plan_view(&self.relations, &query, on_close, &[]).map_err(|e| e.in_text(&sql))
    }

    fn plan(&self, sql: &str) -> PlannedView {
        self.try_plan(sql).unwrap_or_else(|e| panic!("{sql}\n{e:?}"))
    }
}

fn nexmark() -> World {
    let schema = include_str!("../../../bench/nexmark/schema.sql");
    World::new(&schema.replace("${SOURCE}", "").replace("${SIDE}", ""))
}

fn nexmark_query(number: usize) -> String {
    let path = format!("{}/../../bench/nexmark/q{number}.sql", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).expect("the query")
}

#[test]
fn all_nexmark_queries_are_incremental() {
    let world = nexmark();
    let mut text = String::new();
    for number in 0..=23 {
        let planned = world.plan(&nexmark_query(number));
        let lines = explain(&planned.dataflow).join("\n");
        let recomputed = planned.dataflow.nodes.iter().any(|n| matches!(n.op, Op::Recompute(_)));
        assert!(!recomputed, "q{number}:\n{lines}");
        text.push_str(&format!("q{number}\n{lines}\n\n"));
    }
    compare("nexmark.txt", &text);
}

#[test]
fn all_tpch_queries_are_incremental() {
    all_are_incremental("tpch");
}

#[test]
fn all_ch_benchmark_queries_are_incremental() {
    all_are_incremental("ch");
}

/// Of the queries in a folder in `bench`, numbered 1 to 22.
fn all_are_incremental(benchmark: &str) {
    let folder = format!("{}/../../bench/{benchmark}", env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read_to_string(format!("{folder}/{name}.sql")).expect("a file");
    let world = World::new(&read("tables"));
    let mut text = String::new();
    for number in 1..=22 {
        let name = format!("q{number:02}");
        let planned = world.plan(&read(&name));
        let lines = explain(&planned.dataflow).join("\n");
        assert!(!lines.contains("recompute"), "{name}:\n{lines}");
        text.push_str(&format!("{name}\n{lines}\n\n"));
    }
    compare(&format!("{benchmark}.txt"), &text);
}

/// Compares with a file of expected plans; `UPDATE_PLANS=1` writes it.
fn compare(file: &str, text: &str) {
    let path = format!("{}/tests/plans/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_PLANS").is_some() {
        std::fs::write(&path, text).expect("the file can be written");
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    for (block, expected) in text.split("\n\n").zip(expected.split("\n\n")) {
        assert_eq!(block, expected, "{file} differs; UPDATE_PLANS=1 writes it anew");
    }
    assert_eq!(text.len(), expected.len(), "{file} differs; UPDATE_PLANS=1 writes it anew");
}

const SMALL: &str = "
    CREATE TABLE t (id BIGINT PRIMARY KEY, k VARCHAR, v BIGINT, d DOUBLE PRECISION, ts TIMESTAMP, tags VARCHAR[]);
    CREATE SOURCE s (k VARCHAR, v BIGINT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '5 seconds');
    CREATE SOURCE r (k VARCHAR, w BIGINT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '5 seconds');
";

/// One query a line.
const QUERIES: &str = include_str!("plans/constructs.sql");

#[test]
fn plans_of_each_construct() {
    let world = World::new(SMALL);
    let mut text = String::new();
    for sql in QUERIES.lines() {
        text.push_str(&format!("-- {sql}\n"));
        match world.try_plan(sql) {
            Ok(planned) => {
                text.push_str(&explain(&planned.dataflow).join("\n"));
                let fields = planned.schema.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type()));
                text.push_str(&format!("\n=> {}", fields.collect::<Vec<_>>().join(", ")));
                for bound in &planned.dataflow.output().bounds {
                    let name = planned.schema.field(bound.column).name();
                    text.push_str(&format!("\n=> {name} is final {} us later", bound.offset));
                }
                planned.notices.iter().for_each(|n| text.push_str(&format!("\nnotice: {}", n.message)));
            }
            Err(e) => {
                text.push_str(&format!("error {} {}", e.code, e.message));
                e.position.iter().for_each(|p| text.push_str(&format!(" (at {p})")));
                e.hint.iter().for_each(|hint| text.push_str(&format!("\nhint: {hint}")));
            }
        }
        text.push_str("\n\n");
    }
    compare("constructs.txt", &text);
}

fn inputs(planned: &PlannedView) -> Vec<String> {
    let column = |path: &ColumnPath| format!("{}{}", path.column, path.fields.concat());
    planned.dataflow.inputs.iter().flat_map(|input| input.columns.iter().map(column)).collect()
}

#[test]
fn only_the_struct_fields_in_use_are_read() {
    let planned = nexmark().plan(&nexmark_query(0));
    assert_eq!(inputs(&planned), ["3auction", "3bidder", "3price", "4", "3extra", "0"]);
}

#[test]
fn equal_parts_of_a_plan_are_one_node() {
    let planned = nexmark().plan(&nexmark_query(5));
    let windows = planned.dataflow.nodes.iter().filter(|n| matches!(n.op, Op::Window(_))).count();
    assert_eq!((windows, planned.dataflow.inputs.len()), (1, 1));
}

#[test]
fn an_interval_join_forgets_both_sides() {
    let planned = nexmark().plan(&nexmark_query(7));
    let join = planned.dataflow.nodes.iter().find_map(|n| match &n.op {
        Op::Join(join) => Some((join, n)),
        _ => None,
    });
    let (join, node) = join.expect("a join");
    // Bids: windows still to come end after the watermark, up to 10 s after the bid.
    let left = join.evict[0].expect("bids go");
    assert_eq!((node_column(&planned, node, 0, left.column), left.offset), ("dateTime".into(), 10_000_000));
    // Windows: bids still to come are not before the watermark, and at most at the window's end.
    let right = join.evict[1].expect("windows go");
    assert_eq!((node_column(&planned, node, 1, right.column), right.offset), ("endtime".into(), 1));
    assert_eq!(join.append_only, [true, false]);
}

fn node_column(planned: &PlannedView, node: &tidemill_plan::Node, input: usize, column: usize) -> String {
    planned.dataflow.nodes[node.inputs[input].from].schema.field(column).name().clone()
}

#[test]
fn rows_emitted_on_close_have_no_bound_and_stay() {
    let world = World::new(SMALL);
    let sql = "SELECT window_start, count(*) AS n FROM TUMBLE(s, ts, INTERVAL '1 minute') GROUP BY window_start";
    let open = world.plan(sql);
    assert!(!open.dataflow.output().append_only);
    assert_eq!(open.dataflow.output().bounds.len(), 1);
    let closed = world.plan(&format!("{sql} EMIT ON WINDOW CLOSE"));
    assert!(closed.dataflow.output().append_only);
    assert!(closed.dataflow.output().bounds.is_empty());
}

#[test]
fn views_over_views_expand_and_rename() {
    let mut world = World::new(SMALL);
    for statement in parse(
        "CREATE VIEW big (key, value) AS SELECT k, v FROM s WHERE v > 10;
         CREATE MATERIALIZED VIEW per AS
           SELECT k, window_end, count(*) AS n FROM TUMBLE(s, ts, INTERVAL '1 minute') GROUP BY k, window_end;",
    )
    .expect("statements")
    {
        world.run(&statement);
    }
    let planned = world.plan("SELECT key FROM big WHERE value < 20");
    assert_eq!(planned.dataflow.inputs[0].name, "s");
    let planned = world.plan("SELECT window_end, sum(n) AS n FROM per GROUP BY window_end");
    assert_eq!(planned.dataflow.inputs[0].name, "per");
    let Op::Aggregate(aggregate) = &planned.dataflow.output().op else { panic!("an aggregate") };
    assert!(aggregate.closes.is_some(), "the bound of a view carries over");
}

#[test]
fn definitions_plan_again() {
    let world = nexmark();
    for number in [0, 5, 7, 8, 9, 11, 15, 19, 21] {
        let planned = world.plan(&nexmark_query(number));
        let again = world.plan(&planned.definition);
        assert_eq!(explain(&planned.dataflow), explain(&again.dataflow), "q{number}");
    }
}

/// The batch functions of recomputed nodes and aggregates.
fn recomputed(planned: &PlannedView) -> Arc<dyn Recompute> {
    let found = planned.dataflow.nodes.iter().find_map(|n| match &n.op {
        Op::Recompute(plan) => Some(plan.query.clone()),
        Op::Aggregate(plan) => plan.calls.iter().find_map(|call| match &call.function {
            AggregateFunction::FromRows(query) => Some(query.clone()),
            _ => None,
        }),
        _ => None,
    });
    found.expect("something recomputed")
}

fn column<A: Array + 'static>(name: &str, array: A) -> (String, ArrayRef) {
    (name.to_string(), Arc::new(array) as ArrayRef)
}

fn text(rows: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let columns: Vec<_> =
        rows.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options).expect("a format")).collect();
    let row = |i: usize| columns.iter().map(|c| c.value(i).to_string()).collect::<Vec<_>>().join(" ");
    (0..rows.num_rows()).map(row).collect()
}

#[test]
fn window_functions_without_a_rule_are_computed_per_partition() {
    let planned = World::new(SMALL).plan("SELECT k, v, bool_or(v > 1) OVER (PARTITION BY k) AS large FROM t");
    let rows = RecordBatch::try_from_iter([
        column("k", StringArray::from(vec!["a", "a", "a"])),
        column("v", Int64Array::from(vec![Some(1), Some(2), None])),
    ])
    .expect("rows");
    let mut answer = text(&recomputed(&planned).compute(std::slice::from_ref(&rows)).expect("an answer"));
    answer.sort();
    assert_eq!(answer, ["a 1 true", "a 2 true", "a NULL true"]);
    // Again, with other rows: nothing is left of the first time.
    let answer = recomputed(&planned).compute(&[rows.slice(0, 1)]).expect("an answer");
    assert_eq!(text(&answer), ["a 1 false"]);
}

#[test]
fn window_functions_are_calls() {
    let world = World::new(SMALL);
    let calls = |sql: &str| -> Vec<_> {
        let planned = world.plan(sql);
        let calls = planned.dataflow.nodes.iter().filter_map(|n| match &n.op {
            Op::Over(plan) => Some(plan.calls.clone()),
            _ => None,
        });
        calls.flatten().collect()
    };
    let call = |text: &str| match calls(&format!("SELECT {text} FROM t")).as_slice() {
        [call] => call.clone(),
        other => panic!("{text}: {other:?}"),
    };
    let frame = |text: &str| {
        let frame = call(&format!("sum(v) OVER (ORDER BY {text})")).frame;
        (frame.units, frame.start, frame.end)
    };
    let (minute, here) = (60_000_000, Some(FrameOffset::HERE));
    let by = |by: i64| Some(FrameOffset::Whole(by));
    assert_eq!(frame("v"), (FrameUnits::Range, None, here));
    assert_eq!(frame("v ROWS 2 PRECEDING"), (FrameUnits::Rows, by(-2), here));
    assert_eq!(frame("v GROUPS BETWEEN 1 FOLLOWING AND 3 FOLLOWING"), (FrameUnits::Groups, by(1), by(3)));
    assert_eq!(frame("v RANGE BETWEEN 5 PRECEDING AND UNBOUNDED FOLLOWING"), (FrameUnits::Range, by(-5), None));
    let times = "ts RANGE BETWEEN INTERVAL '1 day' PRECEDING AND INTERVAL '1 minute' FOLLOWING";
    assert_eq!(frame(times), (FrameUnits::Range, by(-24 * 60 * minute), by(minute)));
    assert_eq!(frame("d RANGE BETWEEN 0.5 PRECEDING AND CURRENT ROW").1, Some(FrameOffset::Float(-0.5)));
    assert!(matches!(call("lead(v, 3) OVER (ORDER BY ts)").function, OverFunction::Lag { offset: -3, default: None }));
    let OverFunction::Lag { default: Some(default), .. } = call("lag(k, 1, 'none') OVER (ORDER BY ts)").function else {
        panic!("a default")
    };
    assert_eq!((default.len(), default.data_type()), (1, &DataType::Utf8));
    assert!(matches!(call("ntile(4) OVER (ORDER BY ts)").function, OverFunction::Ntile(4)));
    assert!(matches!(call("nth_value(v, 2) OVER (ORDER BY ts)").function, OverFunction::NthValue(2)));
    assert!(matches!(call("avg(v) OVER (ORDER BY ts)").function, OverFunction::Avg));
    assert!(call("count(*) FILTER (WHERE v > 1) OVER ()").filter.is_some());
    // What an interval of months is in microseconds depends on where it begins.
    assert!(calls("SELECT sum(v) OVER (ORDER BY ts RANGE INTERVAL '1 month' PRECEDING) FROM t").is_empty());
}

#[test]
fn ordered_aggregates_are_computed_from_their_rows() {
    let planned = World::new(SMALL).plan("SELECT k, array_agg(v ORDER BY ts DESC) AS all FROM t GROUP BY k");
    let rows = RecordBatch::try_from_iter([
        column("v", Int64Array::from(vec![1, 2, 3])),
        column("ts", TimestampMicrosecondArray::from(vec![20, 30, 10])),
    ])
    .expect("rows");
    let query = recomputed(&planned);
    assert_eq!(text(&query.compute(std::slice::from_ref(&rows)).expect("an answer")), ["[2, 1, 3]"]);
    assert_eq!(query.compute(&[rows.slice(0, 0)]).expect("an answer").num_rows(), 1);
}

#[test]
fn whatever_has_no_rule_is_computed_as_a_whole() {
    let world = World::new(SMALL);
    let values = recomputed(&world.plan("VALUES (1, 'a'), (2, 'b')"));
    assert_eq!(text(&values.compute(&[]).expect("an answer")), ["1 a", "2 b"]);
    // Not linear: it counts the rows of the round before.
    let sql =
        "WITH RECURSIVE n AS (SELECT v FROM t UNION ALL SELECT max(v) + 1 FROM n HAVING max(v) < 3) SELECT v FROM n";
    let rows = RecordBatch::try_from_iter([column("v", Int64Array::from(vec![1]))]).expect("rows");
    let answer = recomputed(&world.plan(sql)).compute(&[rows]).expect("an answer");
    assert_eq!(text(&answer), ["1", "2", "3"]);
    let keys =
        |keys: Vec<Option<&str>>| RecordBatch::try_from_iter([column("k", StringArray::from(keys))]).expect("rows");
    let not_in = recomputed(&world.plan("SELECT k FROM t WHERE k NOT IN (SELECT k FROM s)"));
    let left = keys(vec![Some("a"), Some("b"), None]);
    assert_eq!(text(&not_in.compute(&[left.clone(), keys(vec![Some("a")])]).expect("an answer")), ["b"]);
    assert_eq!(not_in.compute(&[left, keys(vec![Some("a"), None])]).expect("an answer").num_rows(), 0);
}

#[test]
fn bad_values_are_errors() {
    let planned = World::new(SMALL).plan("SELECT 10 / v AS q, CAST(k AS BIGINT) AS n FROM t");
    let Op::Map(map) = &planned.dataflow.output().op else { panic!("a map") };
    let scalar = |i: usize| match &map.project[i] {
        Expr::Scalar(scalar) => scalar.clone(),
        Expr::Column(_) => panic!("computed"),
    };
    let rows = |v: i64, k: &str| {
        RecordBatch::try_from_iter([column("v", Int64Array::from(vec![v])), column("k", StringArray::from(vec![k]))])
            .expect("rows")
    };
    assert_eq!(scalar(0).eval(&rows(0, "1")).expect_err("no quotient").message, "division by zero");
    assert!(scalar(1).eval(&rows(1, "x")).expect_err("no number").message.contains('x'));
    assert_eq!(scalar(1).eval(&rows(1, "7")).expect("a number").as_ref(), &Int64Array::from(vec![7]) as &dyn Array);
}

#[test]
fn json_operators_give_text() {
    let world = World::new("CREATE TABLE d (id BIGINT, doc VARCHAR)");
    let planned = world.plan("SELECT doc->>'a' AS a, doc->'b'->>'c' AS c FROM d");
    assert!(planned.schema.fields().iter().all(|f| *f.data_type() == DataType::Utf8));
    let Op::Map(map) = &planned.dataflow.output().op else { panic!("a map") };
    let doc = StringArray::from(vec![r#"{"a": 1, "b": {"c": "x"}}"#]);
    let rows = RecordBatch::try_from_iter([column("doc", doc)]).expect("rows");
    let values = map.project.iter().map(|expr| match expr {
        Expr::Scalar(scalar) => {
            text(&RecordBatch::try_from_iter([("v", scalar.eval(&rows).expect("text"))]).expect("rows"))
        }
        Expr::Column(_) => panic!("computed"),
    });
    assert_eq!(values.collect::<Vec<_>>().concat(), ["1", "x"]);
}
