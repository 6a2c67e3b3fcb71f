//! A server whose checkpoints are in a real store that speaks S3's protocol: `tests/run-s3` starts such a store, and runs these.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// Long enough for a debug build on a busy machine, short enough to end a test that hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// As `tests/run-s3` sets it: the bucket, which is there, and the store's `host:port`. The key comes by the usual variables.
fn bucket() -> String {
    std::env::var("TIDEMILL_S3_BUCKET").unwrap()
}

fn address() -> String {
    std::env::var("TIDEMILL_S3_ADDRESS").unwrap()
}

/// A prefix that no other test has.
fn prefix(test: &str) -> String {
    format!("s3://{}/served-{}/{test}", bucket(), std::process::id())
}

fn tidemill(endpoint: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.env("AWS_ENDPOINT_URL", format!("http://{endpoint}"));
    command
}

fn serve(data: &Path, endpoint: &str, url: &str) -> Command {
    let mut command = tidemill(endpoint);
    command.args(["serve", "--pg", "127.0.0.1:0", "--http", "127.0.0.1:0", "--workers", "2"]);
    command.args(["--checkpoint-every", "200ms", "--checkpoints", url, "--data"]).arg(data);
    command
}

/// A server that ends with the test, and a session.
struct Server {
    process: Child,
    log: PathBuf,
    http: u16,
    runtime: Runtime,
    client: Client,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Server {
    fn start(data: &Path, endpoint: &str, url: &str) -> Server {
        let log = data.with_extension("log");
        let file = std::fs::File::options().append(true).create(true).open(&log).unwrap();
        let mut process = serve(data, endpoint, url).stdout(Stdio::piped()).stderr(file).spawn().unwrap();
        let mut ports =
            BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok).filter_map(|line| {
                let address = line.split_whitespace().find(|word| word.starts_with("127.0.0.1:"))?;
                address.rsplit(':').next()?.parse::<u16>().ok()
            });
        let mut port = || ports.next().unwrap_or_else(|| panic!("{}", std::fs::read_to_string(&log).unwrap()));
        let (pg, http) = (port(), port());
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let client = runtime.block_on(async {
            let (client, wire) =
                tokio_postgres::connect(&format!("host=127.0.0.1 port={pg} user=test"), NoTls).await.unwrap();
            tokio::spawn(wire);
            client
        });
        Server { process, log, http, runtime, client }
    }

    /// The rows of the last statement, cells separated by `|`.
    fn run(&self, sql: &str) -> Vec<String> {
        let asked = async { tokio::time::timeout(PATIENCE, self.client.simple_query(sql)).await };
        let answer = self.runtime.block_on(asked).expect("an answer in time").unwrap_or_else(|e| panic!("{sql}: {e}"));
        let rows = answer.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|i| row.get(i).unwrap_or("NULL")).collect::<Vec<_>>().join("|"))
            }
            _ => None,
        });
        rows.collect()
    }

    /// The cells of `SHOW CHECKPOINTS`.
    fn checkpoints(&self) -> Vec<String> {
        self.run("SHOW CHECKPOINTS").remove(0).split('|').map(str::to_owned).collect()
    }

    fn metric(&self, name: &str) -> f64 {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let line = text.lines().find(|line| line.split(' ').next() == Some(name)).unwrap_or_else(|| panic!("{text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Waits until so many more checkpoints are written, while rows come in. Gives how many rows.
    fn write_until_saved(&self, more: u64) -> i64 {
        let written = || self.checkpoints()[3].parse::<u64>().unwrap();
        let (enough, began, mut rows) = (written() + more, Instant::now(), 0);
        while written() < enough {
            self.run("INSERT INTO t VALUES ('more', 1)");
            rows += 1;
            let said = || std::fs::read_to_string(&self.log).unwrap();
            assert!(began.elapsed() < PATIENCE, "no checkpoint in time: {:?} {}", self.checkpoints(), said());
        }
        rows
    }

    fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn define(server: &Server) {
    server.run(
        "CREATE TABLE t (k text, n bigint);
         CREATE MATERIALIZED VIEW v AS SELECT k, sum(n) AS n FROM t GROUP BY k;
         CREATE MATERIALIZED VIEW j AS SELECT t.k, t.n, v.n AS total FROM t JOIN v ON t.k = v.k;
         INSERT INTO t SELECT 'k' || i % 100, i FROM generate_series(1, 20000) AS g(i)",
    );
}

const TOTALS: &str = "SELECT count(*) AS groups, sum(n) AS n, (SELECT count(*) AS c FROM j) AS joined,
    (SELECT sum(total) AS s FROM j WHERE k = 'k7') AS k7 FROM v";

#[test]
#[ignore = "needs a store, as tests/run-s3 starts one, and the feature s3"]
fn a_killed_server_comes_back_from_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let (data, url) = (folder.path().join("data"), prefix("killed"));
    let mut server = Server::start(&data, &address(), &url);
    define(&server);
    for round in 0..4 {
        server.write_until_saved(2);
        server.run("INSERT INTO t VALUES ('k7', 5); DELETE FROM t WHERE k = 'k8' AND n < 500");
        let (totals, shown) = (server.run(TOTALS), server.checkpoints());
        assert_eq!((shown[0].as_str(), shown[1].as_str()), (url.as_str(), "running"), "{shown:?}");
        server.kill();
        server = Server::start(&data, &address(), &url);
        assert_eq!(server.run(TOTALS), totals, "round {round}");
        for view in ["v", "j"] {
            assert_eq!(server.run(&format!("VERIFY MATERIALIZED VIEW {view}")), Vec::<String>::new());
        }
        let restored = std::fs::read_to_string(&server.log).unwrap();
        let last = restored.lines().rfind(|line| line.contains("restored what was there")).unwrap();
        assert!(last.contains("checkpoint="), "it came from a checkpoint: {last}");
    }
    server.kill();
    assert!(
        !data.join("checkpoints").exists() || std::fs::read_dir(data.join("checkpoints")).unwrap().next().is_none()
    );

    // The doctor reads them too, and says where they are if he is not told.
    let doctor =
        |arguments: &[&str]| told(tidemill(&address()).arg("doctor").arg(&data).args(arguments).output().unwrap());
    let (code, said) = doctor(&["--checkpoints", &url]);
    // Killed between a commit and the removal of what is older, there is one more than are kept.
    let found = [2, 3].iter().any(|count| said.contains(&format!("checkpoints in {url}: {count};")));
    assert!(code == Some(0) && found, "{said}");
    assert!(said.contains("a start takes the checkpoint of epoch ") && said.ends_with("healthy\n"), "{said}");
    let (code, said) = doctor(&[]);
    assert!(code == Some(0) && said.contains(&format!("--checkpoints {url} looks at them too")), "{said}");

    // What cannot be right is refused at the start.
    let start = |command: &mut Command| told(command.output().unwrap());
    let mut without = tidemill(&address());
    let (code, said) =
        start(without.args(["serve", "--pg", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data"]).arg(&data));
    assert!(code == Some(1) && said.contains(&format!("start with --checkpoints {url}")), "{said}");
    let (code, said) = start(&mut serve(&folder.path().join("other"), &address(), &url));
    assert!(code == Some(1) && said.contains("has the checkpoints of another data folder"), "{said}");
}

/// A process's exit code, and what it said.
fn told(output: Output) -> (Option<i32>, String) {
    let said = String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
    (output.status.code(), said)
}

#[test]
#[ignore = "needs a store, as tests/run-s3 starts one, and the feature s3"]
fn what_cannot_work_is_said_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let refused = |command: &mut Command, words: &[&str]| {
        let (code, said) = told(command.output().unwrap());
        assert_eq!(code, Some(1), "{said}");
        for word in ["error: the store for checkpoints cannot be used", "AWS_ENDPOINT_URL"].iter().chain(words) {
            assert!(said.contains(word), "{word} is not in: {said}");
        }
        assert!(!said.contains("hidden"), "{said}");
        assert!(!data.exists(), "nothing was begun");
    };
    let url = prefix("refused");
    refused(&mut serve(&data, &address(), "s3://no-such-bucket/a"), &["cannot list s3://no-such-bucket/a/", "404"]);
    refused(serve(&data, &address(), &url).env("AWS_SECRET_ACCESS_KEY", "hidden"), &["cannot list", "403"]);
    refused(serve(&data, &address(), &url).env("AWS_ACCESS_KEY_ID", "nobody"), &["cannot list", "403"]);
    refused(&mut serve(&data, &address(), "bucket/a"), &["does not begin with s3://"]);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    refused(&mut serve(&data, &free, &url), &["cannot list"]);
}

/// Stands before the store, and can be away.
fn proxy() -> (String, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let away = Arc::new(AtomicBool::default());
    let told = away.clone();
    thread::spawn(move || {
        for client in listener.incoming().map(Result::unwrap) {
            if told.load(Ordering::SeqCst) {
                continue;
            }
            let server = TcpStream::connect(crate::address()).unwrap();
            let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let (there, back) = (told.clone(), told.clone());
            thread::spawn(move || pass(from, to, &there));
            thread::spawn(move || pass(server, client, &back));
        }
    });
    (address, away)
}

fn pass(mut from: TcpStream, mut to: TcpStream, away: &AtomicBool) {
    let mut buffer = [0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if away.load(Ordering::SeqCst) || to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
}

#[test]
#[ignore = "needs a store, as tests/run-s3 starts one, and the feature s3"]
fn a_store_that_is_away_holds_nothing_up() {
    let folder = tempfile::tempdir().unwrap();
    let (data, url) = (folder.path().join("data"), prefix("away"));
    let (endpoint, away) = proxy();
    let mut server = Server::start(&data, &endpoint, &url);
    define(&server);
    server.write_until_saved(2);
    assert_eq!(server.metric("tidemill_checkpoint_failed"), 0.0);
    away.store(true, Ordering::SeqCst);
    let (began, mut slowest) = (Instant::now(), Duration::ZERO);
    while server.checkpoints()[1] != "retrying" {
        let before = Instant::now();
        server.run("INSERT INTO t VALUES ('k7', 1)");
        slowest = slowest.max(before.elapsed());
        assert!(began.elapsed() < PATIENCE, "{:?}", server.checkpoints());
        thread::sleep(Duration::from_millis(20));
    }
    assert!(slowest < Duration::from_secs(5), "a statement took {slowest:?}");
    assert_eq!(server.metric("tidemill_checkpoint_failed"), 1.0);
    assert!(server.checkpoints()[6].contains(&url), "{:?}", server.checkpoints());
    let said = std::fs::read_to_string(&server.log).unwrap();
    assert!(said.contains("a checkpoint could not be written; the one before holds"), "{said}");
    let totals = server.run(TOTALS);
    // What came since is in the log.
    server.kill();
    away.store(false, Ordering::SeqCst);
    let server = Server::start(&data, &endpoint, &url);
    assert_eq!(server.run(TOTALS), totals);
    away.store(true, Ordering::SeqCst);
    let began = Instant::now();
    while server.checkpoints()[1] != "retrying" {
        server.run("INSERT INTO t VALUES ('k7', 1)");
        assert!(began.elapsed() < PATIENCE, "{:?}", server.checkpoints());
        thread::sleep(Duration::from_millis(20));
    }
    away.store(false, Ordering::SeqCst);
    server.write_until_saved(1);
    assert_eq!((server.checkpoints()[1].as_str(), server.metric("tidemill_checkpoint_failed")), ("running", 0.0));
}
