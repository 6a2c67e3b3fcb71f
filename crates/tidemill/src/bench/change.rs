//! `tidemill bench change`: what one changed row costs in a view whose state grows.

mod operators;
mod rows;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use serde_json::{Value, json};
use tidemill_engine::{Config, Engine, RelationStatus, Session};
use tidemill_env::Env;

use self::operators::{Operator, TABLES};
use self::rows::{Rows, Spread};
use super::figures::{print, table, thousands};
use super::process::{self, SELF, engine_cpu};
use super::query::run;
use crate::{Failure, runtime};

/// Epochs of one row, after some that do not count.
const SINGLES: usize = 400;
const WARM_UP: usize = 50;
/// Epochs of this many rows.
const MANY: usize = 1000;
const BATCHES: usize = 20;
/// The engine looks at the size of its state about five times a second.
const SIZES: Duration = Duration::from_millis(300);

/// What a changed row costs in a view, by the view's size.
#[derive(clap::Args)]
#[command(after_help = "\
Each operator is the heart of one view over a table (joins: over two). The table is loaded up to each of the sizes; then rows,
spread over all of it, are taken out of the view and put back (by a column that the view's WHERE looks at), one in an epoch and
1,000 in an epoch. The columns: the CPU that the engine's threads need per changed row, epochs and the change of the table
included (operator `filter` is that alone); state is that of the view and its operators, per row of the tables.

Example:
  tidemill bench change --operator join,aggregate --rows 10000,1000000")]
pub struct Arguments {
    /// Which operators [default: all].
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    operator: Vec<String>,
    /// The sizes, ascending.
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_values_t = [10_000, 100_000, 1_000_000, 10_000_000])]
    rows: Vec<usize>,
    /// Worker threads.
    #[arg(long, value_name = "N", default_value_t = 1)]
    workers: usize,
    /// Create the view when the tables are full, and measure what it adds to this process's memory; only the last size.
    #[arg(long)]
    memory: bool,
    /// A line of JSON for each operator and size instead of a table.
    #[arg(long)]
    json: bool,
}

/// Measures.
pub fn change(arguments: &Arguments) -> Result<ExitCode, Failure> {
    if !arguments.rows.is_sorted() || arguments.rows.first().is_none_or(|rows| *rows < MANY) {
        return Err(Failure(format!("error: the sizes must ascend from {MANY} or more")));
    }
    let operators = operators::named(&arguments.operator).map_err(Failure)?;
    if arguments.memory {
        return memories(&operators, arguments);
    }
    let mut said = Vec::new();
    for operator in operators {
        let values = runtime()?.block_on(measure(&operator, arguments))?;
        if arguments.json {
            values.iter().for_each(|value| print(&format!("{value}\n")));
        }
        said.push((operator.name, values));
    }
    if !arguments.json {
        print(&cost_table(&said, &arguments.rows));
    }
    Ok(ExitCode::SUCCESS)
}

/// What views over full tables take.
fn memories(operators: &[Operator], arguments: &Arguments) -> Result<ExitCode, Failure> {
    let size = arguments.rows.last().copied().unwrap_or(MANY);
    let mut said = Vec::new();
    for operator in operators {
        let value = runtime()?.block_on(memory(operator, size, arguments.workers.max(1)))?;
        if arguments.json {
            print(&format!("{value}\n"));
        }
        said.push(value);
    }
    if !arguments.json {
        print(&memory_table(&said));
    }
    Ok(ExitCode::SUCCESS)
}

/// A view that grows.
struct Growing {
    engine: Engine,
    session: Session,
    tables: usize,
    at_end: bool,
    loaded: usize,
}

async fn measure(operator: &Operator, arguments: &Arguments) -> Result<Vec<Value>, Failure> {
    let config = Config { workers: arguments.workers.max(1), ..Config::default() };
    let engine = Engine::start(config, Env::real())?;
    let at_end = operator.changes_at_end();
    let mut growing = Growing { session: engine.session(), engine, tables: operator.tables, at_end, loaded: 0 };
    run(&mut growing.session, TABLES).await?;
    run(&mut growing.session, &format!("CREATE MATERIALIZED VIEW measured AS {}", operator.sql)).await?;
    let mut values = Vec::new();
    for size in &arguments.rows {
        if std::io::stderr().is_terminal() {
            eprint!("{} {}          \r", operator.name, thousands(*size as f64));
        }
        growing.grow(*size, |rows| rows.in_view(true)).await?;
        let one = growing.change(1, SINGLES).await?;
        let many = growing.change(MANY, BATCHES).await?;
        let view = growing.view()?;
        values.push(json!({
            "operator": operator.name,
            "rows": size,
            "one_row_micros": one.as_secs_f64() * 1e6,
            "many_rows_micros": many.as_secs_f64() * 1e6,
            "state_bytes_per_row": view.bytes as f64 / *size as f64,
            "view_rows": view.rows,
            "recomputations": view.recomputations,
        }));
    }
    growing.engine.shutdown();
    Ok(values)
}

/// What a view over full tables takes; a hundredth of their rows is not in it, so that it has copies of its own.
async fn memory(operator: &Operator, size: usize, workers: usize) -> Result<Value, Failure> {
    let engine = Engine::start(Config { workers, ..Config::default() }, Env::real())?;
    let session = engine.session();
    let mut growing = Growing { session, engine, tables: operator.tables, at_end: false, loaded: 0 };
    run(&mut growing.session, TABLES).await?;
    growing.grow(size, Rows::mostly_in_view).await?;
    let before = process::memory(SELF).own;
    run(&mut growing.session, &format!("CREATE MATERIALIZED VIEW measured AS {}", operator.sql)).await?;
    tokio::time::sleep(SIZES).await;
    growing.put(0, Rows::range(0, 1).mostly_in_view()?, true).await?;
    tokio::time::sleep(SIZES).await;
    let (after, view) = (process::memory(SELF).own, growing.view()?);
    growing.engine.shutdown();
    Ok(json!({
        "operator": operator.name,
        "rows": size,
        "resident_bytes_per_row": after.saturating_sub(before) as f64 / size as f64,
        "state_bytes_per_row": view.bytes as f64 / size as f64,
        "view_rows": view.rows,
    }))
}

impl Growing {
    /// Loads up to so many rows in all tables together.
    async fn grow(
        &mut self,
        size: usize,
        batch: impl Fn(&Rows) -> Result<RecordBatch, ArrowError>,
    ) -> Result<(), Failure> {
        let each = size / self.tables;
        while self.loaded < each {
            let len = (each - self.loaded).min(rows::BULK);
            let last = self.loaded + len == each;
            for number in 0..self.tables {
                let rows = batch(&Rows::range(self.loaded, len))?;
                self.put(number, rows, last).await?;
            }
            self.loaded += len;
        }
        tokio::time::sleep(SIZES).await;
        Ok(())
    }

    async fn put(&self, table: usize, rows: RecordBatch, wait: bool) -> Result<(), Failure> {
        let relation = self.engine.relation(["t", "u"][table])?;
        let columns: Vec<usize> = (0..rows.num_columns()).collect();
        self.engine.ingest(&relation, &columns, vec![rows], Vec::new(), wait).await?;
        Ok(())
    }

    /// Takes rows out of the view and puts them back, so many in an epoch; CPU per row and change.
    async fn change(&mut self, rows: usize, epochs: usize) -> Result<Duration, Failure> {
        let mut spread = if self.at_end { Spread::AtEnd(self.loaded) } else { Spread::over(self.loaded) };
        let mut cpu = Duration::ZERO;
        let begun = Instant::now();
        let (mut counted, warm_up) = (0u32, if rows == 1 { WARM_UP } else { 2 });
        for epoch in 0..epochs + warm_up {
            let changed = Rows::at(spread.take(rows));
            for in_view in [false, true] {
                let batch = changed.in_view(in_view)?;
                let before = engine_cpu();
                self.put(epoch % self.tables, batch, true).await?;
                if epoch >= warm_up {
                    cpu += engine_cpu() - before;
                    counted += 1;
                }
            }
            // What costs very much need not be measured as often.
            if counted >= 10 && begun.elapsed() > Duration::from_secs(20) {
                break;
            }
        }
        Ok(cpu / counted.max(1) / rows as u32)
    }

    fn view(&self) -> Result<RelationStatus, Failure> {
        let view = self.engine.status().relations.into_iter().find(|r| r.relation.name == "measured");
        let view = view.ok_or_else(|| Failure("error: the view is gone".into()))?;
        match view.reason {
            Some(reason) => Err(Failure(format!("error: the view stopped: {reason}"))),
            None => Ok(view),
        }
    }
}

fn memory_table(said: &[Value]) -> String {
    let number = |value: &Value, key: &str| thousands(value[key].as_f64().unwrap_or(f64::NAN));
    let keys = ["rows", "view_rows", "resident_bytes_per_row", "state_bytes_per_row"];
    let row = |value: &Value| {
        let name = value["operator"].as_str().unwrap_or_default().to_string();
        std::iter::once(Some(name)).chain(keys.iter().map(|key| Some(number(value, key)))).collect()
    };
    let names = ["operator", "rows", "view rows", "resident B/row", "state B/row"];
    table(&names, said.iter().map(row).collect(), 1)
}

fn cost_table(said: &[(&str, Vec<Value>)], sizes: &[usize]) -> String {
    let number = |value: &Value, key: &str| value[key].as_f64().unwrap_or(f64::NAN);
    let head = ["operator".to_string()].into_iter();
    let head = head.chain(sizes.iter().map(|size| format!("1 row: {}", thousands(*size as f64))));
    let head = head.chain(sizes.iter().map(|size| format!("1,000: {}", thousands(*size as f64))));
    let head: Vec<String> = head.chain(["state B/row".to_string()]).collect();
    let row = |(name, values): &(&str, Vec<Value>)| -> Vec<Option<String>> {
        let one = values.iter().map(|value| format!("{:.1}", number(value, "one_row_micros")));
        let many = values.iter().map(|value| format!("{:.2}", number(value, "many_rows_micros")));
        let state = values.last().map(|value| format!("{:.0}", number(value, "state_bytes_per_row")));
        let cells = std::iter::once(name.to_string()).chain(one).chain(many).chain(state);
        cells.map(Some).collect()
    };
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    table(&head, said.iter().map(row).collect(), 1)
}
