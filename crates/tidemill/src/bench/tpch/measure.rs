//! One query alone in an engine: what its load and one-row changes cost.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use serde_json::{Value, json};
use tidemill_engine::{Config, Engine, Relation, Session};
use tidemill_env::Env;

use super::data::{Table, slices};
use super::queries::TABLES;
use crate::Failure;
use crate::bench::process::own_cpu;
use crate::bench::query::run;
use crate::bench::suite::{Query, SIZES};
use crate::bench::timer::{Cost, Timer, micros_each};

/// In how many slices tables are loaded at least.
const SLICES: usize = 10;

/// A view beside the tables that it reads.
struct Measured<'a> {
    query: &'a Query,
    engine: Engine,
    session: Session,
    tables: Vec<&'a Table>,
}

/// Measures a query; `changes` rows of each table it reads are deleted, inserted and updated.
pub async fn measure(query: &Query, tables: &[Table], workers: usize, changes: usize) -> Result<Value, Failure> {
    let engine = Engine::start(Config { workers, ..Config::default() }, Env::real())?;
    let mut session = engine.session();
    run(&mut session, TABLES).await?;
    run(&mut session, &query.create()).await?;
    let tables = tables.iter().filter(|table| query.reads(table.name)).collect();
    let mut measured = Measured { query, engine: engine.clone(), session, tables };
    let mut said = measured.load().await?;
    let mut costs = Vec::new();
    for table in measured.tables.clone() {
        costs.push(measured.changes(table, changes).await?);
    }
    said["changes"] = costs.into();
    said["recomputations"] = query.view(&engine)?.recomputations.into();
    engine.shutdown();
    Ok(said)
}

impl Measured<'_> {
    async fn load(&mut self) -> Result<Value, Failure> {
        let rows: usize = self.tables.iter().map(|table| table.rows.num_rows()).sum();
        let slices = slices(self.tables.iter().copied(), SLICES);
        let (begun, cpu) = (Instant::now(), own_cpu());
        for slice in 0..slices {
            for table in &self.tables {
                // Only the last rows are waited for: the engine decides how many make an epoch.
                let last = slice + 1 == slices;
                put(&self.engine, table.name, table.slice(slice, slices), last).await?;
            }
        }
        let (seconds, cpu) = (begun.elapsed().as_secs_f64(), (own_cpu() - cpu).as_secs_f64());
        tokio::time::sleep(SIZES).await;
        // An epoch without a change, after which sizes are known.
        put(&self.engine, self.tables[0].name, self.tables[0].row(0), true).await?;
        let view = self.query.view(&self.engine)?;
        Ok(json!({
            "query": self.query.number,
            "rows": rows,
            "seconds": seconds,
            "rows_per_second": rows as f64 / seconds,
            "cpu_ns_per_row": cpu * 1e9 / rows as f64,
            "state_bytes": view.bytes,
            "view_rows": view.rows,
        }))
    }

    /// Deletes rows one by one, puts each back, gives it another row's values, and its own again.
    async fn changes(&mut self, table: &Table, changes: usize) -> Result<Value, Failure> {
        let all = table.rows.num_rows();
        let changes = changes.min(all);
        let (mut deletes, mut inserts, mut updates) = (Cost::default(), Cost::default(), Cost::default());
        for change in 0..changes {
            let row = all * change / changes;
            let delete = format!("DELETE FROM {} WHERE {}", table.name, table.is_row(row));
            let mut timer = Timer::start();
            run(&mut self.session, &delete).await?;
            timer.note(&mut deletes);
            put(&self.engine, table.name, table.row(row), true).await?;
            timer.note(&mut inserts);
            put(&self.engine, table.name, table.mixed(row, (row + all / 2) % all)?, true).await?;
            timer.note(&mut updates);
            put(&self.engine, table.name, table.row(row), true).await?;
        }
        let micros = |time| micros_each(time, changes);
        Ok(json!({
            "table": table.name,
            "cpu_micros": {
                "delete": micros(deletes.cpu), "insert": micros(inserts.cpu), "update": micros(updates.cpu),
                "mean": micros(deletes.cpu + inserts.cpu + updates.cpu) / 3.0,
            },
            // A DELETE is a statement, whose time is that of a query over the whole table.
            "wall_micros": { "insert": micros(inserts.wall), "update": micros(updates.wall) },
        }))
    }
}

/// Puts rows into a table; with `wait`, until readers see them.
pub async fn put(engine: &Engine, table: &str, rows: RecordBatch, wait: bool) -> Result<(), Failure> {
    let relation: Arc<Relation> = engine.relation(table)?;
    let columns: Vec<usize> = (0..rows.num_columns()).collect();
    engine.ingest(&relation, &columns, vec![rows], Vec::new(), wait).await?;
    Ok(())
}
