//! Two processes with two workers each: every file of `tests/slt` against process 0.

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

fn process(hosts: &Path, index: usize) -> Child {
    Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .args(["serve", "--in-memory", "--processes", "2", "--workers", "2", "--index", &index.to_string(), "--hosts"])
        .arg(hosts)
        .args(["--pg", "127.0.0.1:0", "--http", "127.0.0.1:0"])
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
    let mut processes = Processes((0..2).map(|index| process(&hosts, index)).collect());
    let port = port(&mut processes.0[0]);
    wire::play_all(port).await;
    terminate(&processes.0[0]);
    assert!(ends(&mut processes.0[0]), "process 0 goes on after it was told to end");
    assert!(ends(&mut processes.0[1]), "process 1 goes on after process 0 has ended");
}
