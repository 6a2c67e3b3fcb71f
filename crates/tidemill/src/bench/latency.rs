//! `tidemill bench latency`: from an HTTP request with one row to the change of a windowed view.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tidemill_engine::{Config, Engine, parse};
use tidemill_env::Env;
use tidemill_serve::{Doors, ServeOptions};
use tokio::time::MissedTickBehavior;

use super::http::{Events, Http};
use crate::{Failure, cores, output, runtime};

/// What is asked of the server.
const SCHEMA: &str = "
CREATE TABLE readings (
  sensor INT, mark BIGINT, at TIMESTAMP, WATERMARK FOR at AS at - INTERVAL '1 hour'
);
CREATE MATERIALIZED VIEW per_second AS
SELECT sensor, window_start, count(*) AS readings, max(mark) AS mark
FROM TUMBLE(readings, at, INTERVAL '1 second')
GROUP BY sensor, window_start;";

/// How often the background sends rows.
const BEAT: Duration = Duration::from_millis(10);
/// Sensors of the background.
const SENSORS: u64 = 100;
/// How long a change is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Probes before the clock counts.
const WARM_UP: u64 = 20;

/// From an HTTP request with one row to the change of a windowed view at a subscriber.
#[derive(clap::Args)]
#[command(after_help = "\
A server runs inside of this process. A probe posts one row on a kept connection and waits until the
changed window has come as a Server-Sent Event on another; first with nothing else to do, then while
others post --rate rows a second.

Example:
  tidemill bench latency --probes 2000 --rate 50000")]
pub struct Arguments {
    /// How many rows are timed.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    probes: u64,
    /// Rows a second of the background.
    #[arg(long, value_name = "R", default_value_t = 10_000)]
    rate: u64,
    /// Worker threads [default: the number of cores].
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// A line of JSON for each measurement instead of a table.
    #[arg(long)]
    json: bool,
}

/// Measures.
pub fn latency(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let runtime = runtime()?;
    let measured = runtime.block_on(async {
        let workers = arguments.workers.unwrap_or_else(cores).max(1);
        let engine = Engine::start(Config { workers, ..Config::default() }, Env::real())?;
        let mut session = engine.session();
        for statement in parse(SCHEMA)? {
            session.execute(&statement, &[]).await?;
        }
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let doors = Doors::bind(&ServeOptions { pg: None, http: Some(anywhere) }).await?;
        let address = doors.http_address().ok_or_else(|| Failure("error: the server has no HTTP address".into()))?;
        let server = tokio::spawn(doors.serve(engine.clone()));
        let measured = measure(arguments, address).await;
        server.abort();
        engine.shutdown();
        measured
    })?;
    print(&measured, arguments.json);
    Ok(ExitCode::SUCCESS)
}

/// Times of the probes in microseconds, sorted.
struct Measured {
    what: String,
    rate: f64,
    micros: Vec<u64>,
}

impl Measured {
    fn percentile(&self, percent: usize) -> u64 {
        let last = self.micros.len().saturating_sub(1);
        self.micros.get(last * percent / 100).copied().unwrap_or(0)
    }
}

async fn measure(arguments: &Arguments, address: SocketAddr) -> Result<Vec<Measured>, Failure> {
    let mut probe = Probe::new(address).await?;
    eprintln!("{} probes, idle", arguments.probes);
    let idle = probe.times(arguments.probes).await?;
    let mut measured = vec![Measured { what: "idle".into(), rate: 0.0, micros: idle }];
    if arguments.rate > 0 {
        eprintln!("{} probes, with {} rows/s beside them", arguments.probes, arguments.rate);
        let sent = Arc::new(AtomicU64::new(0));
        let background = tokio::spawn(background(address, arguments.rate, sent.clone()));
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (start, before) = (Instant::now(), sent.load(Ordering::Relaxed));
        let micros = probe.times(arguments.probes).await?;
        let rate = (sent.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64();
        if background.is_finished() {
            background.await??;
        } else {
            background.abort();
        }
        measured.push(Measured { what: "busy".into(), rate, micros });
    }
    Ok(measured)
}

/// Posts rows that are told apart by their mark, and waits for each.
struct Probe {
    post: Http,
    events: Events,
    mark: i64,
}

impl Probe {
    async fn new(address: SocketAddr) -> Result<Self, Failure> {
        let events = Http::connect(address).await?.events("/v1/subscribe/per_second").await?;
        let mut probe = Probe { post: Http::connect(address).await?, events, mark: 0 };
        probe.times(WARM_UP).await?;
        Ok(probe)
    }

    async fn times(&mut self, probes: u64) -> Result<Vec<u64>, Failure> {
        let mut micros = Vec::new();
        for _ in 0..probes {
            self.mark += 1;
            // Every probe opens or changes another window.
            let row = row(0, self.mark, self.mark.unsigned_abs());
            let wanted = [format!("\"mark\":{},", self.mark), format!("\"mark\":{}}}", self.mark)];
            let start = Instant::now();
            let post = self.post.post("/v1/ingest/readings", "application/x-ndjson", &row);
            let seen = seen(&mut self.events, &wanted);
            let (posted, arrived) = tokio::join!(post, tokio::time::timeout(PATIENCE, seen));
            posted?;
            let arrived = arrived.map_err(|_| Failure("error: a change did not come in time".into()))??;
            micros.push(arrived.duration_since(start).as_micros() as u64);
        }
        micros.sort_unstable();
        Ok(micros)
    }
}

/// When a line came that holds one of these.
async fn seen(events: &mut Events, wanted: &[String]) -> Result<Instant, Failure> {
    loop {
        let line = events.line().await?;
        let compact = line.starts_with("data:");
        if compact && wanted.iter().any(|wanted| line.contains(wanted)) {
            return Ok(Instant::now());
        }
    }
}

/// A row of some second of an hour.
fn row(sensor: u64, mark: i64, second: u64) -> String {
    let (minute, second) = (second / 60 % 60, second % 60);
    format!("{{\"sensor\":{sensor},\"mark\":{mark},\"at\":\"2024-01-01 00:{minute:02}:{second:02}\"}}\n")
}

/// Posts rows of other sensors, evenly paced; their marks are negative, so that no probe is taken for one.
async fn background(address: SocketAddr, rate: u64, sent: Arc<AtomicU64>) -> Result<(), Failure> {
    let mut http = Http::connect(address).await?;
    let start = Instant::now();
    let mut ticks = tokio::time::interval(BEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let due = (start.elapsed().as_secs_f64() * rate as f64) as u64;
        let done = sent.load(Ordering::Relaxed);
        let rows: String = (done..due).map(|n| row(1 + n % SENSORS, -(n as i64) - 1, n / rate)).collect();
        if !rows.is_empty() {
            http.post("/v1/ingest/readings", "application/x-ndjson", &rows).await?;
            sent.store(due, Ordering::Relaxed);
        }
    }
}

#[expect(clippy::print_stdout, reason = "the measurements are the command's output")]
fn print(measured: &[Measured], json: bool) {
    if json {
        for m in measured {
            let (p50, p99, max) = (m.percentile(50), m.percentile(99), m.percentile(100));
            let probes = m.micros.len();
            let rate = m.rate.round();
            println!("{}", json!({"load": m.what, "rate": rate, "probes": probes, "p50": p50, "p99": p99, "max": max}));
        }
        return;
    }
    let millis = |micros: u64| Some(format!("{:.2}", micros as f64 / 1000.0));
    let row = |m: &Measured| {
        let head = vec![Some(m.what.clone()), Some(format!("{:.0}", m.rate)), Some(m.micros.len().to_string())];
        [head, [50, 99, 100].map(|percent| millis(m.percentile(percent))).to_vec()].concat()
    };
    let names = ["load", "rows/s", "probes", "p50 ms", "p99 ms", "max ms"].map(String::from).to_vec();
    print!("{}", output::table(names, measured.iter().map(row).collect(), vec![false, true, true, true, true, true]));
}
