//! `tidemill serve`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tidemill_engine::{CheckpointStore, Config, Data, Engine};
use tidemill_env::Env;
use tidemill_serve::{Doors, ServeOptions};

use crate::{Failure, cores, object_store, runtime};

/// Serve PostgreSQL clients and HTTP until ctrl-c.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tidemill serve
  tidemill serve --data /var/lib/tidemill --pg 0.0.0.0:7432 --http 0.0.0.0:7480 --workers 4
  tidemill serve --memory 2GiB                   (what does not fit goes to disk)
  tidemill serve --hosts hosts.txt --index 1     (one of several processes)

Checkpoints in an object store; the log stays in the folder. Key, region and address come from the usual variables:
  export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... AWS_REGION=eu-central-1
  export AWS_ENDPOINT_URL=https://minio.example:9000     (if it is not Amazon's)
  tidemill serve --data /var/lib/tidemill --checkpoints s3://bucket/prefix

Then:  psql -h 127.0.0.1 -p 7432     or     tidemill sql     or a browser at http://127.0.0.1:7480")]
pub struct Arguments {
    /// Where PostgreSQL clients connect.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7432", env = "TIDEMILL_PG")]
    pg: SocketAddr,
    /// Where HTTP clients and browsers connect.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7480", env = "TIDEMILL_HTTP")]
    http: SocketAddr,
    /// Worker threads in this process [default: the number of cores].
    #[arg(long, value_name = "N", env = "TIDEMILL_WORKERS")]
    workers: Option<usize>,
    /// How many processes exchange rows; must be the number of lines of --hosts.
    #[arg(long, value_name = "N", default_value_t = 1)]
    processes: usize,
    /// This process's place among them, from 0; process 0 takes statements and serves.
    #[arg(long, value_name = "I", default_value_t = 0)]
    index: usize,
    /// A file with one address a line, for the exchange of rows between processes.
    #[arg(long, value_name = "FILE")]
    hosts: Option<PathBuf>,
    /// The folder in which everything is kept; made if it is not there.
    #[arg(long, value_name = "FOLDER", default_value = "tidemill-data", env = "TIDEMILL_DATA")]
    data: PathBuf,
    /// Keep nothing: the next start begins empty.
    #[arg(long, conflicts_with = "data")]
    in_memory: bool,
    /// Keep checkpoints in an object store instead of in the folder: s3://bucket or s3://bucket/prefix.
    #[arg(long, value_name = "URL", conflicts_with = "in_memory", env = "TIDEMILL_CHECKPOINT_STORE")]
    checkpoints: Option<String>,
    /// How often what has changed is saved, so that a start after a crash has less to repeat.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    checkpoint_every: Duration,
    /// Bytes of recent changes that are kept per table and view, for subscribers that come back.
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    history_bytes: usize,
    /// Rows kept in each side table (t$bad, t$late, v$errors); beyond that the eldest go.
    #[arg(long, value_name = "N", default_value_t = Config::default().side_table_rows, env = "TIDEMILL_SIDE_TABLE_ROWS")]
    side_table_rows: usize,
    #[command(flatten)]
    memory: crate::memory::Limit,
}

/// Serves until ctrl-c.
pub fn serve(arguments: Arguments) -> Result<ExitCode, Failure> {
    let within =
        if arguments.in_memory { std::env::temp_dir().join("tidemill-spill") } else { arguments.data.join("spill") };
    let (config, folder) = arguments.memory.apply(config(&arguments)?, &within)?;
    let (workers, first) = (config.workers, config.index == 0);
    runtime()?.block_on(async {
        let engine = Engine::start(config, Env::real())?;
        if first && !arguments.in_memory {
            // The data folder is this process's now.
            folder.remove_others();
        }
        let served = if first { doors(&arguments, &engine, workers).await } else { work(&engine).await };
        engine.shutdown();
        served
    })?;
    Ok(ExitCode::SUCCESS)
}

fn config(arguments: &Arguments) -> Result<Config, Failure> {
    let hosts = match &arguments.hosts {
        None if arguments.processes > 1 => {
            return Err(Failure("error: several processes need --hosts, a file with an address a line".into()));
        }
        None => Vec::new(),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|e| Failure(format!("error: cannot read {}: {e}", path.display())))?;
            text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_string).collect::<Vec<_>>()
        }
    };
    if arguments.processes > 1 && arguments.processes != hosts.len() {
        let (told, lines) = (arguments.processes, hosts.len());
        return Err(Failure(format!("error: --processes is {told}, but --hosts has {lines} addresses")));
    }
    if arguments.index >= hosts.len().max(1) {
        return Err(Failure(format!("error: --index {} is beyond the last process", arguments.index)));
    }
    let workers = arguments.workers.unwrap_or_else(cores).max(1);
    // The other processes get from the first what it has kept.
    let keeps = !arguments.in_memory && arguments.index == 0;
    let checkpoints = match arguments.checkpoints.as_ref().filter(|_| keeps) {
        Some(url) => Some(CheckpointStore::new(url, object_store::open(url)?)),
        None => None,
    };
    let data = Data { folder: arguments.data.clone(), checkpoint_every: arguments.checkpoint_every, checkpoints };
    Ok(Config {
        workers,
        hosts,
        index: arguments.index,
        history_bytes: arguments.history_bytes,
        side_table_rows: arguments.side_table_rows,
        data: keeps.then_some(data),
        ..Config::default()
    })
}

async fn doors(arguments: &Arguments, engine: &Engine, workers: usize) -> Result<(), Failure> {
    let doors = Doors::bind(&ServeOptions { pg: Some(arguments.pg), http: Some(arguments.http) }).await?;
    greet(&doors, workers, arguments);
    tokio::select! {
        served = doors.serve(engine.clone()) => Ok(served?),
        stopped = ctrl_c() => stopped,
    }
}

/// Works for the other processes until they end or ctrl-c.
async fn work(engine: &Engine) -> Result<(), Failure> {
    let engine = engine.clone();
    let (done, ended) = tokio::sync::oneshot::channel();
    // A thread of its own: the runtime would wait for one of its threads when it stops.
    std::thread::spawn(move || {
        engine.join();
        // Nobody listens any more after ctrl-c.
        let _ = done.send(());
    });
    tokio::select! {
        _ = ended => Ok(()),
        stopped = ctrl_c() => stopped,
    }
}

/// Says what listens where. Nobody may be reading, which is no reason to end.
fn greet(doors: &Doors, workers: usize, arguments: &Arguments) {
    let folder = arguments.data.display();
    let kept = match &arguments.checkpoints {
        _ if arguments.in_memory => "in memory only".to_owned(),
        None => format!("in {folder}"),
        Some(url) => format!("in {folder}, checkpoints in {url}"),
    };
    let mut text =
        format!("Tidemill {} with {workers} worker threads; everything is kept {kept}\n", env!("CARGO_PKG_VERSION"));
    if let Some(pg) = doors.pg_address() {
        text += &format!("  PostgreSQL  {pg}   psql -h {} -p {}\n", pg.ip(), pg.port());
    }
    if let Some(http) = doors.http_address() {
        text += &format!("  HTTP        {http}   http://{http}/\n");
    }
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Waits for ctrl-c, or for the supervisor's wish to end.
async fn ctrl_c() -> Result<(), Failure> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed?,
        _ = terminate.recv() => {}
    }
    eprintln!("stopping");
    Ok(())
}
