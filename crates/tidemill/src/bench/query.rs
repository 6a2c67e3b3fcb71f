//! One Nexmark query in a process of its own; prints a line of JSON.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use arrow::array::{RecordBatch, UInt32Array};
use clap::ValueEnum;
use serde_json::json;
use tidemill_connect::nexmark::gate;
use tidemill_engine::{Config, Engine, Session, SubscribeFrom, parse};
use tidemill_env::Env;

use super::answer::checksum;
use super::process::{self, SELF};
use super::queries::{self, Query, SCHEMA};
use crate::{Failure, runtime};

/// How long preloading may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// Where the events come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Input {
    /// Generated before the clock starts, then handed out from memory.
    Memory,
    /// Generated while the query runs.
    Generator,
    /// JSON lines in files.
    File,
}

/// How a query is run; the parent hands these on as they are.
#[derive(clap::Args, Clone)]
pub struct Settings {
    /// How many events (not for files: they have what they have).
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub events: u64,
    /// The seed of the events.
    #[arg(long, value_name = "S", default_value_t = 42)]
    pub seed: u64,
    /// Where the events come from.
    #[arg(long, value_enum, default_value_t = Input::Memory)]
    pub input: Input,
    /// The folder that the file generator made; events are in events/part-*.json.
    #[arg(long, value_name = "FOLDER", required_if_eq("input", "file"))]
    pub data: Option<PathBuf>,
    /// Worker threads [default: the number of cores].
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,
    /// At most about this many rows in an epoch.
    #[arg(long, value_name = "N", default_value_t = Config::default().max_epoch_rows)]
    pub epoch_rows: usize,
    /// Keep the answer and compare it with the recorded one instead of measuring.
    #[arg(long)]
    pub check: bool,
}

impl Settings {
    /// How many worker threads.
    pub fn workers(&self) -> usize {
        self.workers.unwrap_or_else(crate::cores).max(1)
    }

    /// The arguments that make a child do the same.
    pub fn to_arguments(&self) -> Vec<String> {
        let input = self.input.to_possible_value().map(|value| value.get_name().to_string()).unwrap_or_default();
        let mut arguments = vec![
            format!("--events={}", self.events),
            format!("--seed={}", self.seed),
            format!("--input={input}"),
            format!("--workers={}", self.workers()),
            format!("--epoch-rows={}", self.epoch_rows),
        ];
        arguments.extend(self.data.as_ref().map(|data| format!("--data={}", data.display())));
        arguments.extend(self.check.then(|| "--check".to_string()));
        arguments
    }

    fn config(&self) -> Config {
        Config {
            workers: self.workers(),
            max_epoch_rows: self.epoch_rows,
            auto_start_sources: false,
            materialize: self.check,
            ..Config::default()
        }
    }

    /// The sources and views for this input.
    fn schema(&self) -> String {
        let workers = self.workers();
        let (source, side) = match self.input {
            Input::File => {
                let data = self.data.clone().unwrap_or_default();
                let path = |name: &str| data.join(name).display().to_string().replace('\'', "''");
                let (events, side) = (path("events/part-*.json"), path("side_input.csv"));
                (
                    format!("WITH (connector = 'file', path = '{events}', format = 'json')"),
                    format!("WITH (connector = 'file', path = '{side}', format = 'csv', header = 'false')"),
                )
            }
            _ => (
                format!(
                    "WITH (connector = 'nexmark', events = {}, seed = {}, partitions = {workers}, preload = '{}')",
                    self.events,
                    self.seed,
                    self.input == Input::Memory
                ),
                "WITH (connector = 'datagen', rows = 10000, fields.key.kind = 'sequence', fields.value.kind = 'sequence')"
                    .to_string(),
            ),
        };
        SCHEMA.replace("${SOURCE}", &source).replace("${SIDE}", &side)
    }
}

/// One Nexmark query.
#[derive(clap::Args)]
pub struct Arguments {
    /// Which.
    query: String,
    #[command(flatten)]
    settings: Settings,
}

/// Runs the query and prints what it took.
#[expect(clippy::print_stdout, reason = "the line of JSON is what the parent reads")]
pub fn query(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let query = queries::named(std::slice::from_ref(&arguments.query)).map_err(Failure)?[0];
    println!("{}", runtime()?.block_on(measure(&query, &arguments.settings))?);
    Ok(ExitCode::SUCCESS)
}

async fn measure(query: &Query, settings: &Settings) -> Result<serde_json::Value, Failure> {
    let engine = Engine::start(settings.config(), Env::real())?;
    let mut session = engine.session();
    run(&mut session, &settings.schema()).await?;
    let create = match settings.check {
        true => format!("CREATE MATERIALIZED VIEW answer AS\n{}", query.sql),
        false => format!("CREATE SINK answer AS\n{}\nWITH (connector = 'blackhole')", query.sql.trim_end()),
    };
    run(&mut session, &create).await?;
    start(&engine, settings).await?;
    let (begun, cpu, before) = (Instant::now(), process::cpu(SELF), process::memory(SELF));
    gate().open();
    engine.wait_for_end_of_input().await?;
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = process::cpu(SELF).zip(cpu).map(|(after, before)| (after - before).as_secs_f64());
    let memory = process::memory(SELF);
    let status = engine.status();
    let relation = |name: &str| status.relations.iter().find(|r| r.relation.name == name);
    let (view, sink) = (relation("answer"), status.sinks.first());
    let events = relation("events").map_or(settings.events, |r| r.rows_in);
    let mut said = json!({
        "query": query.name,
        "events": events,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "input_bytes": before.now,
        "peak_bytes": memory.peak,
        "epochs": status.epochs_with_rows,
        "late": relation("events").map_or(0, |r| r.late),
        "changes": sink.map(|s| s.rows).or(view.map(|v| v.changes)),
        "checksum": sink.and_then(|s| s.checksum).map(|sum| format!("{sum:016x}")),
        "recomputations": view.map(|v| v.recomputations),
    });
    if settings.check {
        compare(query, settings, &engine, &mut said).await?;
    }
    engine.shutdown();
    Ok(said)
}

/// Starts reading; returns when all input is in memory, if it is to be.
async fn start(engine: &Engine, settings: &Settings) -> Result<(), Failure> {
    if settings.input == Input::Memory {
        gate().close();
    }
    engine.start_sources();
    let begun = Instant::now();
    while settings.input == Input::Memory && gate().ready() < settings.workers() {
        if begun.elapsed() > PATIENCE {
            return Err(Failure("error: the input was not generated in time".into()));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

async fn compare(
    query: &Query,
    settings: &Settings,
    engine: &Engine,
    said: &mut serde_json::Value,
) -> Result<(), Failure> {
    let rows = answer(engine).await?;
    let sum = checksum(&rows.schema(), std::slice::from_ref(&rows), query.expected.stable)?;
    said["rows"] = sum.rows.into();
    said["sha256"] = sum.sha256.clone().into();
    let known = settings.seed == 42 && said["events"] == queries::EXPECTED_EVENTS;
    said["right"] = match known {
        true => (sum.rows == query.expected.rows && sum.sha256 == query.expected.sha256).into(),
        false => serde_json::Value::Null,
    };
    Ok(())
}

/// The rows of the view, as a subscriber first sees them: a query's answer may not be as large.
async fn answer(engine: &Engine) -> Result<RecordBatch, Failure> {
    let mut subscription = engine.subscribe("answer", SubscribeFrom::Snapshot)?;
    let first = subscription.next().await?.ok_or_else(|| Failure("error: the view is gone".into()))?;
    let delta = first.delta;
    let times = |row: usize| std::iter::repeat_n(row as u32, delta.weight(row).max(0) as usize);
    let each: UInt32Array = (0..delta.len()).flat_map(times).collect::<Vec<u32>>().into();
    Ok(delta.take(&each)?.rows)
}

/// Runs statements.
pub async fn run(session: &mut Session, sql: &str) -> Result<(), Failure> {
    for statement in parse(sql)? {
        if let Err(error) = session.execute(&statement, &[]).await {
            let report = crate::report::Report::new(&error, statement.offset).or_at(statement.offset);
            return Err(Failure(report.render(None, sql)));
        }
    }
    Ok(())
}
