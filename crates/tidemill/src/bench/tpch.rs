//! `tidemill bench tpch`: the TPC-H queries as views over tables that are loaded row group by row group, and then change.

mod check;
mod columns;
mod data;
mod measure;
mod queries;

use std::io::IsTerminal;
use std::process::ExitCode;

use serde_json::Value;

use super::checked::report;
use super::figures::{print, table, thousands};
use super::process::mib;
use super::suite::numbered;
use crate::{Failure, cores, runtime};

/// The TPC-H queries as views: load, state and the cost of a change, or whether they are right.
#[derive(clap::Args)]
#[command(after_help = "\
The rows are generated first. Each query runs alone in an engine, over the tables that it reads. Then rows of each of these
tables, evenly spread, are deleted, inserted and updated one by one. The columns: CPU of the load is that of all threads, per
row loaded; state is that of the view and its operators; a change's CPU is that of the engine's threads, its time that of an
insert or update until readers see it.
With --check all queries run in one engine, and each is compared with its query as a batch (VERIFY MATERIALIZED VIEW) at every
tenth of the load and after deletes and updates.

Examples:
  tidemill bench tpch --check
  tidemill bench tpch --scale 0.1 --queries 1,3,9 --workers 2")]
pub struct Arguments {
    /// Size of the tables; 1 is 8.7 million rows.
    #[arg(long, value_name = "F", default_value_t = 0.01)]
    scale: f64,
    /// Which queries [default: all].
    #[arg(long, value_name = "1,2,...", value_delimiter = ',')]
    queries: Vec<u32>,
    /// Worker threads [default: the number of cores].
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Rows of each table that change one by one.
    #[arg(long, value_name = "N", default_value_t = 40)]
    changes: usize,
    /// Compare instead of measuring.
    #[arg(long)]
    check: bool,
    /// A line of JSON for each query instead of tables.
    #[arg(long)]
    json: bool,
}

/// Measures, or checks.
pub fn tpch(arguments: &Arguments) -> Result<ExitCode, Failure> {
    if !(arguments.scale > 0.0 && arguments.scale <= 100.0) {
        return Err(Failure("error: the scale must be above 0 and at most 100".into()));
    }
    let queries = numbered(queries::all(arguments.scale), &arguments.queries, "TPC-H")?;
    let tables = data::generate(arguments.scale)?;
    let workers = arguments.workers.unwrap_or_else(cores).max(1);
    if arguments.check {
        let verdicts = runtime()?.block_on(check::check(&queries, &tables, workers))?;
        return Ok(report(&verdicts, arguments.json));
    }
    let mut said = Vec::new();
    for query in &queries {
        if std::io::stderr().is_terminal() {
            eprint!("{}\r", query.name());
        }
        let measuring = measure::measure(query, &tables, workers, arguments.changes);
        let value = runtime()?.block_on(measuring)?;
        if arguments.json {
            print(&format!("{value}\n"));
        }
        said.push(value);
    }
    if !arguments.json {
        print(&load_table(&said));
        print(
            "\nCPU in us per change of one row (mean of delete, insert and update), and us until an insert or update is seen:\n",
        );
        print(&change_table(&said));
    }
    Ok(ExitCode::SUCCESS)
}

fn load_table(said: &[Value]) -> String {
    let row = |value: &Value| {
        let number = |key: &str| value[key].as_f64().unwrap_or(f64::NAN);
        let cells = [
            number("query").to_string(),
            thousands(number("rows")),
            thousands(number("rows_per_second")),
            thousands(number("cpu_ns_per_row")),
            format!("{:.2}", mib(number("state_bytes") as u64)),
            thousands(number("view_rows")),
            thousands(number("recomputations")),
        ];
        cells.map(Some).to_vec()
    };
    let names = ["query", "rows", "rows/s", "CPU ns/row", "state MiB", "view rows", "recomputations"];
    table(&names, said.iter().map(row).collect(), 0)
}

fn change_table(said: &[Value]) -> String {
    let names = ["lineitem", "orders", "customer", "part", "partsupp", "supplier", "nation", "region"];
    let cell = |value: &Value, name: &str| {
        let costs = value["changes"].as_array().into_iter().flatten().find(|costs| costs["table"] == name);
        costs.map(|costs| {
            let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
            let wall = &costs["wall_micros"];
            let wall = (number(&wall["insert"]) + number(&wall["update"])) / 2.0;
            format!("{:.0} / {wall:.0}", number(&costs["cpu_micros"]["mean"]))
        })
    };
    let row = |value: &Value| {
        let query = Some(value["query"].to_string());
        std::iter::once(query).chain(names.iter().map(|name| Some(cell(value, name).unwrap_or_default()))).collect()
    };
    let head: Vec<&str> = std::iter::once("query").chain(names).collect();
    table(&head, said.iter().map(row).collect(), 0)
}
