//! The dataflows of views, as `EXPLAIN` prints them.

use std::collections::HashMap;
use std::sync::Arc;

use tidemill_plan::{ColumnPath, Op, explain};
use tidemill_sql::{
    Catalog, PlannedView, Planner, Relation, RelationKind, SqlError, Statement, StatementKind, parse, state,
};

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

    fn explain(&self, sql: &str) -> String {
        explain(&self.plan(sql).dataflow).join("\n")
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
    let mut failed = Vec::new();
    for number in 0..=23 {
        match world.try_plan(&nexmark_query(number)) {
            Err(error) => failed.push(format!("q{number}: {error:?}")),
            Ok(planned) => {
                println!("q{number}\n{}\n{:?}\n", explain(&planned.dataflow).join("\n"), planned.notices);
                let recomputed = planned.dataflow.nodes.iter().any(|n| matches!(n.op, Op::Recompute(_)));
                if recomputed != (number == 6) {
                    failed.push(format!("q{number}:\n{}", explain(&planned.dataflow).join("\n")));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

const SMALL: &str = "
    CREATE TABLE t (id BIGINT PRIMARY KEY, k VARCHAR, v BIGINT, d DOUBLE PRECISION, ts TIMESTAMP, tags VARCHAR[]);
    CREATE SOURCE s (k VARCHAR, v BIGINT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '5 seconds');
    CREATE SOURCE r (k VARCHAR, w BIGINT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '5 seconds');
";

#[test]
fn dump() {
    let world = World::new(SMALL);
    let queries = [
        "SELECT k, count(*) FROM s GROUP BY k HAVING count(*) > 2",
        "SELECT count(*), sum(v), avg(v), min(k), stddev(d), bool_or(v > 1) FROM t",
        "SELECT DISTINCT k FROM s",
        "SELECT DISTINCT ON (k) k, v, ts FROM t ORDER BY k, ts DESC",
        "SELECT k, v FROM t ORDER BY v DESC LIMIT 3 OFFSET 1",
        "SELECT k FROM t ORDER BY v",
        "SELECT k, array_agg(v ORDER BY ts) FROM t GROUP BY k",
        "SELECT k, string_agg(k, ',') FILTER (WHERE v > 1), median(v) FROM t GROUP BY k",
        "SELECT t.k, s.v FROM t LEFT JOIN s ON t.k = s.k AND s.v > t.v",
        "SELECT t.k, s.v FROM t FULL JOIN s ON t.k = s.k",
        "SELECT t.k FROM t WHERE EXISTS (SELECT 1 FROM s WHERE s.k = t.k)",
        "SELECT t.k FROM t WHERE k IN (SELECT k FROM s) OR v = 1",
        "SELECT t.k FROM t WHERE k NOT IN (SELECT k FROM s)",
        "SELECT t.k FROM t WHERE NOT EXISTS (SELECT 1 FROM s WHERE s.k = t.k)",
        "SELECT t.k, s.k AS k2 FROM t, s WHERE t.v < s.v",
        "SELECT k FROM t UNION ALL SELECT k FROM s",
        "SELECT k, v FROM t UNION SELECT k, v FROM s",
        "SELECT k FROM t INTERSECT SELECT k FROM s",
        "SELECT k FROM t EXCEPT SELECT k FROM s",
        "SELECT k, v, (SELECT max(v) FROM s) FROM t",
        "SELECT k, v, (SELECT max(v) FROM s WHERE s.k = t.k) FROM t",
        "SELECT k, rank() OVER (PARTITION BY k ORDER BY v) FROM t",
        "SELECT k, sum(v) OVER (PARTITION BY k ORDER BY ts ROWS 2 PRECEDING) FROM t",
        "SELECT * FROM (SELECT k, v, row_number() OVER (PARTITION BY k ORDER BY v DESC) AS n FROM t) q WHERE n <= 3",
        "SELECT k, v FROM (SELECT k, v, row_number() OVER (PARTITION BY k ORDER BY v DESC) AS n FROM t) q WHERE n = 1",
        "SELECT k, v FROM (SELECT k, v, row_number() OVER (ORDER BY v DESC) AS n FROM t) q WHERE n BETWEEN 2 AND 3",
        "SELECT k, row_number() OVER (PARTITION BY k ORDER BY v) FROM t",
        "SELECT 1 AS one, 'x' AS x",
        "VALUES (1, 'a'), (2, 'b')",
        "SELECT k, unnest(tags) FROM t",
        "WITH RECURSIVE n AS (SELECT v FROM t UNION ALL SELECT v + 1 FROM n WHERE v < 10) SELECT * FROM n",
        "SELECT k, v, GROUPING(k) FROM t GROUP BY ROLLUP (k, v)",
        "SELECT window_start, count(*) FROM TUMBLE(s, ts, INTERVAL '1 minute') GROUP BY window_start EMIT ON WINDOW CLOSE",
        "SELECT k, count(*) FROM TABLE(HOP(TABLE s, DESCRIPTOR(ts), INTERVAL '10' SECOND, INTERVAL '1' MINUTE)) GROUP BY k, window_start, window_end EMIT ON WINDOW CLOSE",
        "SELECT k, window_end, count(*), max(v) FROM SESSION(s, ts, INTERVAL '10 seconds', PARTITION BY k) GROUP BY k, window_start, window_end EMIT ON WINDOW CLOSE",
        "SELECT * FROM SESSION(s, k, ts, INTERVAL '10 seconds')",
        "SELECT * FROM TUMBLE((SELECT * FROM s WHERE v > 1), ts, INTERVAL '1 minute') AS w WHERE w.window_end > TIMESTAMP '2026-01-01'",
        "SELECT date_trunc('minute', ts) AS m, sum(v) FROM s GROUP BY 1 EMIT ON WINDOW CLOSE",
        "SELECT date_bin(INTERVAL '15 minutes', ts) AS m, sum(v) FROM s GROUP BY 1",
        "SELECT s.k, s.ts, r.w FROM s JOIN r ON s.k = r.k AND r.ts BETWEEN s.ts AND s.ts + INTERVAL '1 minute' EMIT ON WINDOW CLOSE",
        "SELECT s.k, s.ts, r.w FROM s LEFT JOIN r ON s.k = r.k AND r.ts BETWEEN s.ts AND s.ts + INTERVAL '1 minute'",
        "SELECT s.k, s.ts, r.w FROM s JOIN r ON s.k = r.k AND s.ts = r.ts",
        "SELECT k, ts FROM s EMIT ON WINDOW CLOSE",
        "SELECT k, v FROM s EMIT ON WINDOW CLOSE",
        "SELECT k, count(*) FROM t GROUP BY k EMIT ON WINDOW CLOSE",
        "SELECT now(), k FROM s",
        "SELECT k FROM s WHERE ts > now() - INTERVAL '1 hour'",
        "SELECT k FROM s WHERE v > random()",
        "SELECT k, k FROM s",
        "SELECT nope FROM s",
        "SELECT k FROM nope",
        "SELECT k, v FROM s GROUP BY k",
        "SELECT k FROM s FOR SYSTEM_TIME AS OF ts",
        "SELECT sum(k) FROM s",
        "SELECT frob(k) FROM s",
        "SELECT count(*) FROM TUMBLE(s, k, INTERVAL '1 minute') GROUP BY window_start",
        "SELECT count(*) FROM TUMBLE(s, ts, INTERVAL '1 month') GROUP BY window_start",
        "SELECT s.k, count(*) FROM s JOIN (SELECT k, count(*) AS c FROM t GROUP BY k) q ON s.k = q.k GROUP BY s.k",
        "SELECT t.id, t.k, count(*) FROM t JOIN s ON s.k = t.k GROUP BY t.id",
        "SELECT count(DISTINCT k), count(DISTINCT v) FROM t",
        "SELECT CASE WHEN v > 0 THEN 10 / v END AS q, CAST(k AS BIGINT) AS n FROM t",
    ];
    for sql in queries {
        println!("-- {sql}");
        match world.try_plan(sql) {
            Ok(planned) => {
                println!("{}", explain(&planned.dataflow).join("\n"));
                let fields = planned.schema.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type()));
                println!("   => {}  bounds {:?}", fields.collect::<Vec<_>>().join(", "), planned.dataflow.output().bounds);
                planned.notices.iter().for_each(|n| println!("   !! {} / {:?}", n.message, n.hint));
            }
            Err(e) => println!("   ERROR {} {} at {:?} hint {:?}", e.code, e.message, e.position, e.hint),
        }
    }
}
