//! `tidemill bench ch`: the CH-benCHmark (Cole et al., DBTest 2011), its queries as views over TPC-C's tables while
//! TPC-C's transactions change them.

mod check;
mod measure;
mod nations;
mod population;
mod queries;
mod random;
mod rows;
mod transactions;

use std::io::IsTerminal;
use std::process::ExitCode;

use serde_json::Value;

use self::population::{Scale, populate};
use self::transactions::KINDS;
use super::checked::report;
use super::figures::{print, table, thousands};
use super::process::mib;
use super::suite::{Query, numbered};
use crate::{Failure, cores, runtime};

/// `CREATE TABLE` for all tables.
const TABLES: &str = include_str!("../../../../bench/ch/tables.sql");

/// The CH-benCHmark: TPC-C's transactions with analytical queries as views, or whether they are right.
#[derive(clap::Args)]
#[command(after_help = "\
Each query's view runs alone in an engine, over all tables, which are loaded first; then transactions run one after the other,
each in one epoch, until readers see it: new orders, payments and deliveries, 45 : 43 : 4. Before the views the transactions
run beside none, and at last beside all together. CPU is that of the engine's threads; state is that of views and operators.
With --check all queries run in one engine, and each is compared with its query as a batch (VERIFY MATERIALIZED VIEW) after the
load and after every fifth of the transactions.

Examples:
  tidemill bench ch --check
  tidemill bench ch --warehouses 2 --transactions 2000 --queries 1,5,21")]
pub struct Arguments {
    /// Warehouses, each with ten districts.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    warehouses: u32,
    /// Items, which each warehouse has; TPC-C has 100000.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    items: u32,
    /// Customers of each district, and orders that it begins with; TPC-C has 3000.
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=3000))]
    customers: u32,
    /// Transactions.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    transactions: u32,
    /// The seed of the rows and transactions.
    #[arg(long, value_name = "S", default_value_t = 42)]
    seed: u64,
    /// Which queries [default: all].
    #[arg(long, value_name = "1,2,...", value_delimiter = ',')]
    queries: Vec<u32>,
    /// Worker threads [default: the number of cores].
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Compare instead of measuring.
    #[arg(long)]
    check: bool,
    /// A line of JSON for each query instead of tables.
    #[arg(long)]
    json: bool,
    /// Print the rows and transactions as SQL instead of running them.
    #[arg(long, conflicts_with_all = ["check", "json", "queries", "workers"])]
    sql: bool,
}

/// Measures, checks or prints.
pub fn ch(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let Arguments { warehouses, items, customers, seed, .. } = *arguments;
    let scale = Scale { warehouses, items, customers };
    let transactions = arguments.transactions as usize;
    if arguments.sql {
        script(scale, seed, transactions);
        return Ok(ExitCode::SUCCESS);
    }
    let queries = numbered(queries::all(), &arguments.queries, "CH-benCHmark")?;
    let workers = arguments.workers.unwrap_or_else(cores).max(1);
    if arguments.check {
        let checking = check::check(&queries, scale, seed, transactions, workers);
        return Ok(report(&runtime()?.block_on(checking)?, arguments.json));
    }
    let mut said = Vec::new();
    for (name, queries) in measurements(&queries) {
        if std::io::stderr().is_terminal() {
            eprint!("{name}  \r");
        }
        let measuring = measure::measure(queries, scale, seed, transactions, workers);
        let mut value = runtime()?.block_on(measuring)?;
        value["views"] = name.into();
        if arguments.json {
            print(&format!("{value}\n"));
        }
        said.push(value);
    }
    if !arguments.json {
        print(&cost_table(&said));
    }
    Ok(ExitCode::SUCCESS)
}

/// No view, each alone, and all.
fn measurements(queries: &[Query]) -> Vec<(String, &[Query])> {
    let mut all: Vec<(String, &[Query])> = vec![("none".into(), &[])];
    all.extend(queries.chunks(1).map(|query| (query[0].name(), query)));
    if queries.len() > 1 {
        all.push(("all".into(), queries));
    }
    all
}

/// Prints the load and the transactions as statements.
fn script(scale: Scale, seed: u64, transactions: usize) {
    let (mut database, load) = populate(scale, seed);
    for statement in load {
        print(&format!("{statement};\n"));
    }
    for _ in 0..transactions {
        print(&database.transaction().sql());
    }
}

fn cost_table(said: &[Value]) -> String {
    let row = |value: &Value| {
        let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
        let cpu = &value["cpu_micros"];
        let mut cells = vec![
            value["views"].as_str().unwrap_or_default().to_string(),
            thousands(number(&value["transactions_per_second"])),
            thousands(number(&cpu["mean"])),
        ];
        cells.extend(KINDS.iter().map(|kind| thousands(number(&cpu[kind.name()]))));
        cells.push(format!("{:.2}", mib(number(&value["state_bytes"]) as u64)));
        cells.push(thousands(number(&value["view_rows"])));
        cells.push(thousands(number(&value["recomputations"])));
        cells.into_iter().map(Some).collect()
    };
    let kinds = KINDS.iter().map(|kind| kind.name());
    let names: Vec<&str> = ["views", "transactions/s", "CPU us each"].into_iter().chain(kinds).collect();
    let names = [names, vec!["state MiB", "view rows", "recomputations"]].concat();
    table(&names, said.iter().map(row).collect(), 1)
}
