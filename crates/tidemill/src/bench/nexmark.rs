//! `tidemill bench nexmark`: every query in a process of its own, and a table of what they took.

use std::io::IsTerminal;
use std::process::{Command, ExitCode, Stdio};

use serde_json::Value;

use super::figures::{print, table, thousands};
use super::process::mib;
use super::queries::{self, Query};
use super::query::Settings;
use crate::Failure;

/// The Nexmark queries: speed, CPU and memory, or whether the answers are right.
#[derive(clap::Args)]
#[command(after_help = "\
With --check the answers are compared with those recorded for the first 1,000,000 events of seed 42.
The columns: CPU is user and system time of the whole process per event; events/s/core is what a core
does if it does nothing else; peak is the most memory that was resident, input what of it was there
before the clock started; changes is how many rows came out, insertions and retractions; checksum is of all of them in any order.

Examples:
  tidemill bench nexmark --check
  tidemill bench nexmark --events 10000000 --queries q3,q5,q17 --workers 2
  tidemill bench nexmark --input file --data DIR --json")]
pub struct Arguments {
    /// Which queries [default: all].
    #[arg(long, value_name = "q0,q1,...", value_delimiter = ',')]
    queries: Vec<String>,
    #[command(flatten)]
    settings: Settings,
    /// A line of JSON for each query instead of a table.
    #[arg(long)]
    json: bool,
}

/// Runs the queries.
pub fn nexmark(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let queries = queries::named(&arguments.queries).map_err(Failure)?;
    let (mut said, mut failures) = (Vec::new(), 0);
    for query in &queries {
        if std::io::stderr().is_terminal() {
            eprint!("{:<4}\r", query.name);
        }
        match child(query, &arguments.settings) {
            Ok(value) => {
                failures += usize::from(value["right"] == false);
                if arguments.json {
                    print(&format!("{value}\n"));
                }
                said.push(value);
            }
            Err(Failure(reason)) => {
                failures += 1;
                eprintln!("{}: {}", query.name, reason.trim_end());
            }
        }
    }
    if !arguments.json && !said.is_empty() {
        print(&if arguments.settings.check { check_table(&said) } else { speed_table(&said) });
    }
    if failures > 0 {
        eprintln!("{failures} of {} queries failed", queries.len());
    }
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn child(query: &Query, settings: &Settings) -> Result<Value, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench", "nexmark-query", query.name]).args(settings.to_arguments());
    let output = command.stderr(Stdio::piped()).output()?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).into_owned();
        let ended = || Failure(format!("ended with {}", output.status));
        return Err(if reason.trim().is_empty() { ended() } else { Failure(reason) });
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn speed_table(said: &[Value]) -> String {
    let names =
        ["query", "events/s", "events/s/core", "CPU ns/event", "wall s", "peak MiB", "input MiB", "epochs", "changes"];
    let row = |value: &Value| {
        let number = |key: &str| value[key].as_f64().unwrap_or(f64::NAN);
        let (events, seconds, cpu) = (number("events"), number("seconds"), number("cpu_seconds"));
        let cells = [
            value["query"].as_str().unwrap_or_default().to_string(),
            thousands(events / seconds),
            thousands(events / cpu),
            format!("{:.1}", cpu * 1e9 / events),
            format!("{seconds:.2}"),
            format!("{:.0}", mib(number("peak_bytes") as u64)),
            format!("{:.0}", mib(number("input_bytes") as u64)),
            thousands(number("epochs")),
            thousands(number("changes")),
            value["checksum"].as_str().unwrap_or("-").to_string(),
        ];
        cells.map(Some).to_vec()
    };
    table(&names, said.iter().map(row).collect(), 1)
}

fn check_table(said: &[Value]) -> String {
    let row = |value: &Value| {
        let verdict = match &value["right"] {
            Value::Bool(true) => "right",
            Value::Bool(false) => "WRONG",
            _ => "unknown",
        };
        let cells = [
            value["query"].as_str().unwrap_or_default().to_string(),
            verdict.to_string(),
            thousands(value["rows"].as_f64().unwrap_or(f64::NAN)),
            value["sha256"].as_str().unwrap_or_default().to_string(),
            format!("{:.2}", value["seconds"].as_f64().unwrap_or(f64::NAN)),
        ];
        cells.map(Some).to_vec()
    };
    table(&["query", "answer", "rows", "SHA-256", "wall s"], said.iter().map(row).collect(), 2)
}
