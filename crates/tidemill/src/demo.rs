//! `tidemill demo`: a year of flights, replayed into a running engine.

mod replay;
mod speed;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tidemill_engine::{Config, Engine, EngineStatus, parse};
use tidemill_env::Env;
use tidemill_serve::{Doors, ServeOptions};

use crate::{Failure, runtime};
use replay::{Replay, load};
use speed::Speed;

/// Tables that are known before the first departure.
const DIMENSIONS: [&str; 3] = ["airlines", "airports", "planes"];

/// Replays a year of departures from New York's airports, live, with views over them.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  \
    tidemill demo                    an hour of 2013 in a second\n  \
    tidemill demo --speed 24h/s      a day in a second\n  \
    tidemill demo --speed max --limit 30 --no-serve")]
pub struct DemoArgs {
    /// Simulated time per second: `90m/s`, `1h/s`, `2d/s`; `max` for as fast as the engine takes it.
    #[arg(long, default_value = "1h/s")]
    pub speed: Speed,

    /// The folder with the data and `pipeline.sql`.
    #[arg(long, default_value = "examples/flights")]
    pub flights: PathBuf,

    /// Stop after this many days of 2013.
    #[arg(long, value_name = "DAYS")]
    pub limit: Option<u32>,

    /// Open no ports, and end with the replay.
    #[arg(long)]
    pub no_serve: bool,

    /// Where PostgreSQL clients connect.
    #[arg(long, default_value = "127.0.0.1:7432")]
    pub pg: SocketAddr,

    /// Where the page and the HTTP interface are.
    #[arg(long, default_value = "127.0.0.1:7480")]
    pub http: SocketAddr,

    /// Worker threads.
    #[arg(long, default_value_t = 1)]
    pub workers: usize,
}

/// Runs the demo to its end.
pub fn run(arguments: DemoArgs) -> Result<ExitCode, Failure> {
    runtime()?.block_on(demo(arguments)).map_err(|e| Failure(format!("error: {e}")))?;
    Ok(ExitCode::SUCCESS)
}

/// Starts an engine and its doors, creates the pipeline, replays the flights, and goes on serving
/// until ctrl-c.
pub async fn demo(args: DemoArgs) -> Result<(), String> {
    let script = args.flights.join("pipeline.sql");
    let sql = std::fs::read_to_string(&script).map_err(|e| {
        format!("{}: {e} (run this in the repository, or name the folder with --flights)", script.display())
    })?;
    let env = Env::real();
    let config = Config { workers: args.workers.max(1), ..Config::default() };
    let engine = Engine::start(config, env.clone()).map_err(|e| e.to_string())?;
    let doors = if args.no_serve { None } else { Some(open_doors(&args, &engine).await?) };

    run_script(&engine, &sql).await.map_err(|e| format!("{}: {e}", script.display()))?;
    for name in DIMENSIONS {
        load(&engine, &args.flights, name).await?;
    }
    let replay = Replay::open(&engine, &args.flights, args.limit)?;
    let bar = progress_bar(replay.len());
    tokio::select! {
        done = replay.run(&engine, &env, args.speed, &bar) => done?,
        stopped = tokio::signal::ctrl_c() => {
            bar.abandon();
            engine.shutdown();
            return stopped.map_err(|e| e.to_string());
        }
    }
    bar.finish();
    say(&summary(&engine.status()));

    if let Some(mut doors) = doors {
        say("The replay is over; the views stay. Stop with ctrl-c.");
        tokio::select! {
            ended = &mut doors => ended.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?,
            stopped = tokio::signal::ctrl_c() => stopped.map_err(|e| e.to_string())?,
        }
    }
    engine.shutdown();
    Ok(())
}

/// Binds the ports, says where they are, and serves beside the replay.
async fn open_doors(args: &DemoArgs, engine: &Engine) -> Result<tokio::task::JoinHandle<std::io::Result<()>>, String> {
    let options = ServeOptions { pg: Some(args.pg), http: Some(args.http) };
    let doors = Doors::bind(&options)
        .await
        .map_err(|e| format!("{e} (another server runs there? choose others with --pg and --http)"))?;
    if let Some(address) = doors.http_address() {
        say(&format!("Open http://{address} and watch the views change."));
    }
    if let Some(address) = doors.pg_address() {
        say(&format!("Ask with: psql -h {} -p {}", address.ip(), address.port()));
    }
    Ok(tokio::spawn(doors.serve(engine.clone())))
}

/// Runs every statement of a script.
async fn run_script(engine: &Engine, sql: &str) -> Result<(), String> {
    let mut session = engine.session();
    for statement in parse(sql).map_err(|e| e.to_string())? {
        session.execute(&statement, &[]).await.map_err(|e| {
            let line = sql.chars().take(statement.offset).filter(|c| *c == '\n').count() + 1;
            format!("statement at line {line}: {e}")
        })?;
    }
    Ok(())
}

fn progress_bar(rows: u64) -> ProgressBar {
    let bar = ProgressBar::new(rows);
    // The template is fixed; a mistake in it would show as the plain bar.
    if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:32} {percent:>3} %  {msg}") {
        bar.set_style(style);
    }
    bar
}

/// What came in and what came of it.
fn summary(status: &EngineStatus) -> String {
    let mut views = 0;
    let mut changes = 0;
    let mut line = String::from("nothing came in");
    for relation in &status.relations {
        if relation.relation.definition.is_some() {
            views += 1;
            changes += relation.changes;
        }
        if relation.relation.name == "departures" {
            line = format!(
                "{} departures came in: {} in time, {} late",
                thousands(relation.rows_in),
                thousands(relation.applied),
                thousands(relation.late)
            );
        }
    }
    format!("{line}; {} changes of {views} views in {} epochs", thousands(changes), thousands(status.epochs_with_rows))
}

/// A number with commas between thousands.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Tells the user something, beside the progress bar's stream.
fn say(line: &str) {
    eprintln!("{line}");
}

/// Where a table's rows are.
fn parquet_path(folder: &Path, table: &str) -> PathBuf {
    folder.join(format!("{table}.parquet"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1000), "1,000");
        assert_eq!(thousands(336_776), "336,776");
        assert_eq!(thousands(1_234_567_890), "1,234,567,890");
    }
}
