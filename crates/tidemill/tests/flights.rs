//! The flights example, replayed by the binary: what the views say at the end, asked over the wire.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tokio_postgres::{NoTls, SimpleQueryMessage};

fn flights() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/flights")
}

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.arg("demo").arg("--flights").arg(flights()).args(["--speed", "max"]).args(arguments);
    command
}

/// A demo that runs; it ends with the test.
struct Running {
    child: Child,
    port: u16,
}

impl Running {
    /// Starts a demo and waits until the last flight is in.
    #[allow(clippy::zombie_processes, reason = "it is killed and waited for when it is dropped")]
    fn at_the_end(arguments: &[&str]) -> Running {
        let mut child = demo(arguments)
            .args(["--pg", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        let mut port = None;
        for line in lines.by_ref() {
            let line = line.unwrap();
            if let Some(psql) = line.strip_prefix("Ask with: psql ") {
                port = psql.rsplit(' ').next().and_then(|word| word.parse().ok());
            }
            if line.starts_with("The replay is over") {
                // Nobody reads the pipe from here on, and nothing more comes.
                return Running { child, port: port.expect("the demo says where psql connects") };
            }
            said.push_str(&line);
            said.push('\n');
        }
        let _ = child.kill();
        panic!("the demo ended early:\n{said}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A query of `expected.slt`.
struct Expected {
    sql: String,
    rows: Vec<String>,
    sorted: bool,
}

fn expected() -> Vec<Expected> {
    let text = std::fs::read_to_string(flights().join("expected.slt")).unwrap();
    let mut queries = Vec::new();
    for block in text.split("\n\n") {
        let mut lines = block.lines().skip_while(|line| line.starts_with('#'));
        let Some(head) = lines.next().filter(|line| line.starts_with("query")) else { continue };
        let sql: Vec<&str> = lines.by_ref().take_while(|line| *line != "----").collect();
        let mut rows: Vec<String> = lines.map(str::to_string).collect();
        let sorted = head.ends_with("rowsort");
        if sorted {
            rows.sort();
        }
        queries.push(Expected { sql: sql.join("\n"), rows, sorted });
    }
    queries
}

async fn ask(port: u16) -> Vec<String> {
    let (client, connection) =
        tokio_postgres::connect(&format!("host=127.0.0.1 port={port} user=test"), NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut wrong = Vec::new();
    let queries = expected();
    assert!(queries.len() >= 10, "only {} queries were found", queries.len());
    for query in queries {
        let messages = match client.simple_query(&query.sql).await {
            Ok(messages) => messages,
            Err(error) => {
                wrong.push(format!("{}\n    {error}", query.sql));
                continue;
            }
        };
        let mut rows = Vec::new();
        for message in messages {
            if let SimpleQueryMessage::Row(row) = message {
                let cells: Vec<&str> = (0..row.len()).map(|column| row.get(column).unwrap_or("NULL")).collect();
                rows.push(cells.join(" "));
            }
        }
        if query.sorted {
            rows.sort();
        }
        if rows != query.rows {
            wrong.push(format!("{}\n    expected {:?}\n    answered {rows:?}", query.sql, query.rows));
        }
    }
    drop(client);
    let _ = connection.await;
    wrong
}

/// 2,696 departures, of which 22 were cancelled.
#[test]
fn three_days_come_in() {
    let output = demo(&["--limit", "3", "--no-serve"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("2,696 departures came in"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_year_ends_as_expected() {
    let running = tokio::task::spawn_blocking(|| Running::at_the_end(&["--workers", "2"])).await.unwrap();
    let wrong = ask(running.port).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
