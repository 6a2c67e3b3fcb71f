//! Two processes with two workers each: every file of `tests/slt` against process 0.

#![allow(clippy::disallowed_methods, reason = "tests wait and measure by the real clock")]

#[path = "../../engine/tests/slt/play.rs"]
mod play;
#[path = "../../engine/tests/slt/random.rs"]
mod random;
#[path = "../../engine/tests/slt/script.rs"]
mod script;
#[path = "../../engine/tests/slt/ways.rs"]
#[expect(dead_code, reason = "over the wire, files are run as they are written")]
mod ways;
#[path = "../../engine/tests/slt/wire.rs"]
mod wire;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use play::Database;

/// Processes that end with the test.
struct Processes(Vec<Child>);

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Ports that were free a moment ago.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

/// A file with the processes' addresses, in the folder for tests of the build.
fn hosts(name: &str, ports: &[u16]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let lines: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}\n")).collect();
    std::fs::write(&path, lines.concat()).unwrap();
    path
}

fn process(hosts: &Path, index: usize, data: Option<&Path>) -> Child {
    process_with(hosts, index, data, &[])
}

fn process_with(hosts: &Path, index: usize, data: Option<&Path>, more: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.args(["serve", "--processes", "2", "--workers", "2", "--index", &index.to_string()]);
    match data {
        Some(folder) => command.args(["--checkpoint-every", "100ms", "--data"]).arg(folder),
        None => command.arg("--in-memory"),
    };
    command
        .arg("--hosts")
        .arg(hosts)
        .args(["--pg", "127.0.0.1:0", "--http", "127.0.0.1:0"])
        .args(more)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The port that the greeting names for PostgreSQL clients.
fn port(child: &mut Child) -> u16 {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in lines {
        let line = line.unwrap();
        if let Some((_, psql)) = line.split_once("psql ") {
            return psql.rsplit(' ').next().and_then(|word| word.parse().ok()).expect("a port");
        }
    }
    panic!("process 0 ended without a greeting");
}

/// Whether a process ends by itself soon.
fn ends(child: &mut Child) -> bool {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(20) {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}

fn terminate(child: &Child) {
    let done = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(done.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_files_in_two_processes() {
    let hosts = hosts("processes.txt", &free_ports(2));
    let mut processes = Processes((0..2).map(|index| process(&hosts, index, None)).collect());
    let port = port(&mut processes.0[0]);
    wire::play_all(port).await;
    terminate(&processes.0[0]);
    assert!(ends(&mut processes.0[0]), "process 0 goes on after it was told to end");
    assert!(ends(&mut processes.0[1]), "process 1 goes on after process 0 has ended");
}

/// What the second process's workers remember is saved and given back too.
#[tokio::test(flavor = "multi_thread")]
async fn two_processes_come_back_with_what_they_kept() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..4 {
        let hosts = hosts("kept.txt", &free_ports(2));
        let mut processes = Processes((0..2).map(|index| process(&hosts, index, Some(folder.path()))).collect());
        let mut wire = wire::Wire::connect(port(&mut processes.0[0])).await.expect("a session");
        if round == 0 {
            for sql in [
                "CREATE TABLE t (k int, a int)",
                "CREATE MATERIALIZED VIEW v AS SELECT k, sum(a) AS s, count(DISTINCT a) AS d FROM t GROUP BY k",
                "CREATE MATERIALIZED VIEW j AS SELECT t.k, t.a, v.s FROM t JOIN v ON t.k = v.k",
            ] {
                wire.run(sql).await.unwrap();
            }
        }
        let insert = "INSERT INTO t SELECT CAST(g % 50 AS int), CAST(g AS int) FROM generate_series(1, 500) AS x(g)";
        for sql in [insert, "DELETE FROM t WHERE a % 7 = 3", "INSERT INTO t VALUES (1, 1), (2, 2), (30, 3)"] {
            wire.run(sql).await.unwrap();
            // Long enough for a checkpoint between two statements.
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        for view in ["v", "j"] {
            let differs = wire.run(&format!("VERIFY MATERIALIZED VIEW {view}")).await.unwrap();
            assert!(differs.is_empty(), "round {round}, {view}: {differs:?}");
        }
    }
}

/// What does not fit into the memory of either process comes back too: of the first as runs, of the second as rows.
#[tokio::test(flavor = "multi_thread")]
async fn two_processes_come_back_with_more_state_than_memory() {
    let (folder, spill) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let memory = ["--memory", "128MiB", "--spill", spill.path().to_str().unwrap()];
    const ROWS: i32 = 25_000;
    // As many workers in one process, and back: what one has on disk the other one cannot read.
    let alone = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.args([
            "serve",
            "--workers",
            "4",
            "--checkpoint-every",
            "100ms",
            "--pg",
            "127.0.0.1:0",
            "--http",
            "127.0.0.1:0",
        ]);
        command.arg("--data").arg(folder.path()).args(memory).stdout(Stdio::piped()).spawn().unwrap()
    };
    for round in 0..5 {
        let hosts = hosts("spilled.txt", &free_ports(2));
        let start = |index| process_with(&hosts, index, Some(folder.path()), &memory);
        let started = if round == 2 { vec![alone()] } else { (0..2).map(start).collect() };
        let mut processes = Processes(started);
        let mut wire = wire::Wire::connect(port(&mut processes.0[0])).await.expect("a session");
        if round == 0 {
            for sql in [
                "CREATE TABLE a (k int, pad text); CREATE TABLE b (k int, pad text)",
                "CREATE MATERIALIZED VIEW j AS SELECT a.k, a.pad = b.pad AS same FROM a LEFT JOIN b ON b.k = a.k",
                "CREATE MATERIALIZED VIEW g AS SELECT k, count(DISTINCT pad) AS n, min(pad) > 'w' AS late FROM a GROUP BY k",
            ] {
                wire.run(sql).await.unwrap();
            }
            // A statement may take an eighth of the memory.
            for first in (1..=ROWS).step_by(2_500) {
                let pad =
                    format!("'x' || g || repeat('x', 2000) FROM generate_series({first}, {}) AS s(g)", first + 2_499);
                for table in ["a", "b"] {
                    wire.run(&format!("INSERT INTO {table} SELECT CAST(g AS int), {pad}")).await.unwrap();
                }
            }
            let of_process = |index: usize| {
                let own = format!("process-{index}-");
                let folders = std::fs::read_dir(spill.path()).unwrap().map(|entry| entry.unwrap().path());
                let folders = folders.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(&own));
                folders.map(|path| std::fs::read_dir(path).unwrap().count()).sum::<usize>()
            };
            assert!(of_process(0) > 0 && of_process(1) > 0, "nothing was put aside");
        }
        for sql in [
            format!("DELETE FROM a WHERE k % 11 = {round}"),
            format!("UPDATE b SET pad = 'v' WHERE k % 101 = {round}"),
            "INSERT INTO a VALUES (5, 'w'), (6, 'x')".to_owned(),
        ] {
            wire.run(&sql).await.unwrap();
            // Long enough for a checkpoint between two statements.
            tokio::time::sleep(Duration::from_millis(if round >= 2 { 2_500 } else { 250 })).await;
        }
        // A row is the same as long as neither it nor its partner was touched; 5 and 6 have others beside.
        let left: Vec<i32> = (1..=ROWS).filter(|k| k % 11 > round).collect();
        let same = left.iter().filter(|k| *k % 101 > round).count();
        let joined = wire.run("SELECT count(*), count(*) FILTER (WHERE same) FROM j").await.unwrap();
        assert_eq!(joined, [format!("{} {same}", left.len() as i32 + 2 * (round + 1))], "round {round}");
        let grouped = wire.run("SELECT count(*), sum(n), count(*) FILTER (WHERE late) FROM g").await.unwrap();
        let groups = left.len();
        assert_eq!(grouped, [format!("{groups} {} {}", groups + 2, groups - 1)], "round {round}");
    }
}
