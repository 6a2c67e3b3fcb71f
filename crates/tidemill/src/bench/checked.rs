//! All views of a benchmark at once, each compared with its query as a batch while the tables change.

use std::process::ExitCode;

use serde_json::json;
use tidemill_engine::{Config, Engine, Response, Session, parse};
use tidemill_env::Env;

use super::figures::{print, table};
use super::query::run;
use super::suite::Query;
use crate::Failure;

/// What came of a view.
pub struct Verdict {
    /// Which.
    query: Query,
    /// How often it was compared.
    compared: u64,
    /// How often it had rows then.
    with_rows: u64,
    /// When it differed.
    wrong: Vec<String>,
    /// How often something was computed anew.
    recomputations: u64,
}

/// Views beside their tables.
pub struct Checked {
    /// Where they are.
    pub engine: Engine,
    session: Session,
    verdicts: Vec<Verdict>,
}

impl Checked {
    /// Empty tables and the queries' views.
    pub async fn start(tables: &str, queries: &[Query], workers: usize) -> Result<Self, Failure> {
        let engine = Engine::start(Config { workers, ..Config::default() }, Env::real())?;
        let mut session = engine.session();
        run(&mut session, tables).await?;
        let mut verdicts = Vec::new();
        for query in queries {
            run(&mut session, &query.create()).await?;
            let query = query.clone();
            verdicts.push(Verdict { query, compared: 0, with_rows: 0, wrong: Vec::new(), recomputations: 0 });
        }
        Ok(Checked { engine, session, verdicts })
    }

    /// Runs statements.
    pub async fn run(&mut self, sql: &str) -> Result<(), Failure> {
        run(&mut self.session, sql).await
    }

    /// Compares every view with its query.
    pub async fn compare(&mut self, after: &str) -> Result<(), Failure> {
        for verdict in &mut self.verdicts {
            let name = verdict.query.name();
            let differing = rows(&mut self.session, &format!("VERIFY MATERIALIZED VIEW {name}")).await?;
            verdict.compared += 1;
            verdict.with_rows += u64::from(verdict.query.view(&self.engine)?.rows > 0);
            if differing > 0 {
                verdict.wrong.push(format!("{differing} rows differ after {after}"));
            }
        }
        Ok(())
    }

    /// Stops the engine and says what came of the views.
    pub fn finish(mut self) -> Result<Vec<Verdict>, Failure> {
        for verdict in &mut self.verdicts {
            verdict.recomputations = verdict.query.view(&self.engine)?.recomputations;
        }
        self.engine.shutdown();
        Ok(self.verdicts)
    }
}

/// How many rows a statement gives.
async fn rows(session: &mut Session, sql: &str) -> Result<usize, Failure> {
    let mut rows = 0;
    for statement in parse(sql)? {
        if let Response::Rows { batches, .. } = session.execute(&statement, &[]).await? {
            rows += batches.iter().map(|batch| batch.num_rows()).sum::<usize>();
        }
    }
    Ok(rows)
}

/// Writes what came of the views; a failure if one was wrong, or recomputed.
pub fn report(verdicts: &[Verdict], as_json: bool) -> ExitCode {
    let mut failed = false;
    for verdict in verdicts {
        for wrong in &verdict.wrong {
            eprintln!("{}: {wrong}", verdict.query.name());
        }
        failed |= !verdict.wrong.is_empty() || verdict.recomputations > 0;
        if as_json {
            let said = json!({
                "query": verdict.query.number, "compared": verdict.compared, "with_rows": verdict.with_rows,
                "wrong": verdict.wrong.len(), "recomputations": verdict.recomputations,
            });
            print(&format!("{said}\n"));
        }
    }
    if !as_json {
        let row = |v: &Verdict| {
            let right = if v.wrong.is_empty() { "right" } else { "WRONG" };
            let numbers = [v.compared, v.with_rows, v.recomputations].map(|n| Some(n.to_string()));
            [vec![Some(v.query.name()), Some(right.to_string())], numbers.to_vec()].concat()
        };
        let names = ["query", "view", "compared", "with rows", "recomputations"];
        print(&table(&names, verdicts.iter().map(row).collect(), 2));
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
