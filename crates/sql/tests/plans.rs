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
