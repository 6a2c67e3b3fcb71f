//! `tidemill bench start`: what a server costs before anything happens, and what views cost.

use std::net::TcpListener;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use tokio_postgres::{Client, NoTls};

use super::process::{cpu, memory, mib};
use crate::{Failure, output, runtime};

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often all views are made and dropped again.
const ROUNDS: usize = 3;
/// Between two attempts to connect.
const RETRY: Duration = Duration::from_micros(500);
/// How long idleness is watched.
const WATCH: Duration = Duration::from_secs(5);

/// Time to start, memory when idle, and what a thousand views cost.
#[derive(clap::Args)]
#[command(after_help = "\
Starts `tidemill serve` as another process and asks it over the PostgreSQL wire.

Example:
  tidemill bench start --views 1000")]
pub struct Arguments {
    /// How many views are made and dropped.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    views: usize,
    /// Worker threads of the server [default: the number of cores].
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Measures.
pub fn start(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let runtime = runtime()?;
    let (pg, http) = (free_port()?, free_port()?);
    let begun = Instant::now();
    let server = Server::start(pg, http, arguments.workers)?;
    let figures = runtime.block_on(measure(&server, pg, begun, arguments.views))?;
    drop(server);
    print(figures, arguments.json);
    Ok(ExitCode::SUCCESS)
}

/// A server that ends with this value.
struct Server {
    child: Child,
}

impl Server {
    fn start(pg: u16, http: u16, workers: Option<usize>) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([
            "serve",
            "--in-memory",
            "--pg",
            &format!("127.0.0.1:{pg}"),
            "--http",
            &format!("127.0.0.1:{http}"),
        ]);
        if let Some(workers) = workers {
            command.arg(format!("--workers={workers}"));
        }
        Ok(Server { child: command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()? })
    }

    fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// The share of a core that it uses for some seconds.
    async fn cores(&self) -> f64 {
        let before = cpu(&self.pid());
        tokio::time::sleep(WATCH).await;
        let used = cpu(&self.pid()).zip(before).map(|(after, before)| after - before);
        used.map_or(f64::NAN, |used| used.as_secs_f64() / WATCH.as_secs_f64())
    }

    fn resident_mib(&self) -> f64 {
        mib(memory(&self.pid()).now)
    }

    /// Without the pages of the program's file.
    fn own_mib(&self) -> f64 {
        mib(memory(&self.pid()).own)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody has at the moment.
fn free_port() -> Result<u16, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

type Figures = Vec<(&'static str, f64)>;

async fn measure(server: &Server, port: u16, begun: Instant, views: usize) -> Result<Figures, Failure> {
    let client = connect(port, begun).await?;
    client.simple_query("SELECT 1").await?;
    let mut figures = vec![("start to first answer, ms", millis(begun))];
    figures.push(("idle, MiB", server.resident_mib()));
    figures.push(("idle, cores", server.cores().await));
    client.simple_query("CREATE TABLE t (k INT, v BIGINT)").await?;
    // What is needed once only (the planner's code and tables) is no view's.
    create(&client, 1).await?;
    drop_all(&client, 1).await?;
    figures.push(("own memory before, MiB", server.own_mib()));
    let start = Instant::now();
    create(&client, views).await?;
    figures.push(("create a view, ms", millis(start) / views.max(1) as f64));
    figures.push(("all views, MiB", server.resident_mib()));
    figures.push(("own memory with all views, MiB", server.own_mib()));
    figures.push(("all views idle, cores", server.cores().await));
    figures.push(("insert a row that all views see, ms", insert(&client).await?));
    let start = Instant::now();
    drop_all(&client, views).await?;
    figures.push(("drop a view, ms", millis(start) / views.max(1) as f64));
    figures.push(("own memory, all dropped, MiB", server.own_mib()));
    for _ in 0..ROUNDS {
        create(&client, views).await?;
        drop_all(&client, views).await?;
    }
    // The allocator gives memory back a moment later.
    tokio::time::sleep(WATCH).await;
    figures.push(("own memory after more rounds, MiB", server.own_mib()));
    Ok(figures)
}

async fn create(client: &Client, views: usize) -> Result<(), Failure> {
    for n in 0..views {
        let sql = format!(
            "CREATE MATERIALIZED VIEW v{n} AS SELECT k, count(*) AS n, sum(v) AS s FROM t WHERE v > {n} GROUP BY k"
        );
        client.simple_query(&sql).await?;
    }
    Ok(())
}

async fn drop_all(client: &Client, views: usize) -> Result<(), Failure> {
    for n in 0..views {
        client.simple_query(&format!("DROP MATERIALIZED VIEW v{n}")).await?;
    }
    Ok(())
}

/// The mean of a few inserts.
async fn insert(client: &Client) -> Result<f64, Failure> {
    const INSERTS: u32 = 10;
    let start = Instant::now();
    for n in 0..INSERTS {
        client.simple_query(&format!("INSERT INTO t VALUES ({n}, 1000000)")).await?;
    }
    Ok(millis(start) / f64::from(INSERTS))
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

async fn connect(port: u16, begun: Instant) -> Result<Client, Failure> {
    let config = format!("host=127.0.0.1 port={port} user=bench dbname=tidemill");
    loop {
        match tokio_postgres::connect(&config, NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                return Ok(client);
            }
            Err(error) if begun.elapsed() > PATIENCE => return Err(error.into()),
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}

#[expect(clippy::print_stdout, reason = "the measurements are the command's output")]
fn print(figures: Figures, json: bool) {
    if json {
        let figures = figures.into_iter().map(|(name, figure)| (name.to_string(), Value::from(figure)));
        println!("{}", Value::Object(figures.collect::<Map<_, _>>()));
        return;
    }
    let rows = figures.iter().map(|(name, figure)| vec![Some(name.to_string()), Some(format!("{figure:.2}"))]);
    print!("{}", output::table(vec!["what".into(), "figure".into()], rows.collect(), vec![false, true]));
}
