//! A database in this process, without a door.

use tidemill_connect::pg_text;
use tidemill_engine::{Config, Engine, RelationKind, Response, Session, parse};
use tidemill_env::Env;

use super::play::{Database, cell};

/// An engine and its one client; it stops when dropped.
pub struct Embedded {
    pub engine: Engine,
    session: Session,
}

impl Embedded {
    /// An empty database.
    pub fn new(workers: usize) -> Embedded {
        Embedded::with(Config { workers, ..Config::default() })
    }

    /// A database of this configuration.
    pub fn with(config: Config) -> Embedded {
        let engine = Engine::start(config, Env::real()).expect("the engine starts");
        Embedded { session: engine.session(), engine }
    }
}

impl Embedded {
    /// The materialized views: their name, whether `EXPLAIN` says that something is recomputed, and how often that was done.
    #[allow(dead_code, reason = "histories do not ask")]
    pub async fn recomputations(&mut self) -> Vec<(String, bool, u64)> {
        // Counters are written down at the end of an epoch, at most every 200 ms.
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
        self.run("CREATE TABLE last_epoch (a int)").await.expect("a table");
        self.run("INSERT INTO last_epoch VALUES (1)").await.expect("an epoch");
        let status = self.engine.status();
        let views = status.relations.into_iter().filter(|r| r.relation.kind == RelationKind::MaterializedView);
        let mut all = Vec::new();
        for view in views {
            let name = view.relation.name.clone();
            let plan = self.run(&format!("EXPLAIN \"{name}\"")).await.expect("a plan");
            all.push((name, plan.iter().any(|line| line.contains("[recompute")), view.recomputations));
        }
        all
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.engine.shutdown();
    }
}

impl Database for Embedded {
    async fn run(&mut self, sql: &str) -> Result<Vec<String>, String> {
        let mut lines = Vec::new();
        for statement in parse(sql).map_err(|e| format!("{}: {}", e.code, e.message))? {
            let response = self.session.execute(&statement, &[]).await;
            let response = response.map_err(|e| format!("{}: {}", e.code, e.message))?;
            if let Response::Rows { schema, batches, .. } = response {
                for batch in batches {
                    lines.extend((0..batch.num_rows()).map(|row| {
                        let cells = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
                            let mut text = String::new();
                            if column.is_valid(row) {
                                pg_text(column.as_ref(), row, field, &mut text);
                            }
                            cell(column.is_valid(row).then_some(text.as_str())).to_string()
                        });
                        cells.collect::<Vec<_>>().join(" ")
                    }));
                }
            }
        }
        Ok(lines)
    }

    fn definition(&self, view: &str) -> Option<(String, Vec<String>)> {
        let folded = view.to_lowercase();
        let relation = self.engine.relation(view).or_else(|_| self.engine.relation(&folded)).ok()?;
        let columns = relation.schema.fields().iter().map(|field| field.name().clone()).collect();
        let query = relation.definition.clone().filter(|_| relation.kind == RelationKind::MaterializedView)?;
        Some((query, columns))
    }
}
