//! The `tidemill` binary: serve, run a file, talk to a server, check a file, measure.

#![allow(clippy::disallowed_methods, reason = "the command line measures and waits by the real clock")]

mod bench;
mod check;
mod client;
mod demo;
mod doctor;
mod memory;
mod object_store;
mod output;
mod progress;
mod report;
mod run;
mod script;
mod serve;
mod verify;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Streaming SQL: answers stay current while events stream in.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Exit codes: 0 all went well, 1 a statement or check failed, 2 the command line is wrong.
The variable TIDEMILL_LOG sets what is logged: error, warn, info, debug, tidemill_engine=trace, ..."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve PostgreSQL clients and HTTP until ctrl-c.
    Serve(serve::Arguments),
    /// Run statements in an engine of their own, and end with their input.
    Run(run::Arguments),
    /// Talk to a server.
    Sql(client::Arguments),
    /// Parse and plan every statement of a file without reading any source.
    Check(check::Arguments),
    /// Compare the views of a server with their queries.
    Verify(verify::Arguments),
    /// Tell what is in a data folder, and whether it is whole.
    Doctor(doctor::Arguments),
    /// Measure.
    Bench(bench::Arguments),
    /// Replay a year of real flights, live.
    Demo(demo::DemoArgs),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let serving = matches!(arguments.command, Command::Serve(_));
    log_to_stderr(if serving { "info" } else { "warn" });
    let done = match arguments.command {
        Command::Serve(arguments) => serve::serve(arguments),
        Command::Run(arguments) => run::run(arguments),
        Command::Sql(arguments) => client::client(arguments),
        Command::Check(arguments) => check::check(arguments),
        Command::Verify(arguments) => verify::verify(arguments),
        Command::Doctor(arguments) => doctor::doctor(arguments),
        Command::Bench(arguments) => bench::bench(arguments),
        Command::Demo(arguments) => demo::run(arguments),
    };
    match done {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn log_to_stderr(default: &str) {
    let filter = EnvFilter::try_from_env("TIDEMILL_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    // Colours are for people: not for files and pipes, nor for who does not want any (no-color.org).
    let coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(coloured).init();
}

/// What ends the program early; its text is for the user.
#[derive(Debug)]
struct Failure(String);

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure(format!("error: {error}"))
    }
}

/// Stack of a thread that plans statements, which recurses as deep as they are nested. Memory is taken as it is used.
const STACK: usize = 64 << 20;

/// Threads for what is not the engine's work.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_stack_size(STACK).enable_all().build()?)
}

/// As many workers as the machine has cores.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
