//! `tidemill verify` and `VERIFY` against a server process, and in `tidemill run`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};

/// A server that ends with the test.
struct Server {
    process: Child,
    pg: String,
    http: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn tidemill(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidemill")).args(arguments).output().unwrap()
}

impl Server {
    fn start() -> Server {
        let mut process = Command::new(env!("CARGO_BIN_EXE_tidemill"))
            .args(["serve", "--in-memory", "--workers", "2", "--pg", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        let address = |line: String| line.split_whitespace().find(|w| w.starts_with("127.0.0.1:")).map(str::to_owned);
        let mut addresses = lines.filter_map(address);
        let (pg, http) = (addresses.next().unwrap(), addresses.next().unwrap());
        Server { process, pg: pg.rsplit(':').next().unwrap().to_owned(), http }
    }

    fn sql(&self, sql: &str) -> Output {
        tidemill(&["sql", "--port", &self.pg, "-c", sql])
    }

    fn verify(&self, views: &[&str]) -> (Option<i32>, String) {
        let output = tidemill(&[&["verify", "--port", &self.pg], views].concat());
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.code(), text)
    }

    fn post(&self, sql: &str) -> String {
        let mut stream = TcpStream::connect(&self.http).unwrap();
        let length = sql.len();
        write!(
            stream,
            "POST /v1/sql HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{sql}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

#[test]
fn all_views_of_a_server_are_verified() {
    let server = Server::start();
    let (code, text) = server.verify(&[]);
    assert_eq!((code, text.contains("0 right, 0 wrong, 0 skipped, 0 not answered")), (Some(0), true), "{text}");
    let made = server.sql(
        "CREATE TABLE t (a int, b double precision);
         CREATE SOURCE s (id bigint) WITH (connector = 'datagen', rows = 100);
         CREATE MATERIALIZED VIEW \"Sums\" AS SELECT a, sum(b) AS s FROM t GROUP BY a;
         CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM s;
         CREATE MATERIALIZED VIEW shares AS SELECT 6 / a AS share FROM t;
         INSERT INTO t VALUES (1, 0.1), (1, 0.2), (2, 0.3)",
    );
    assert!(made.status.success(), "{made:?}");
    let (code, text) = server.verify(&[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("2 right, 0 wrong, 1 skipped, 0 not answered"), "{text}");
    assert!(text.contains("rows of source \"s\" are not kept"), "{text}");
    assert!(text.contains("view \"Sums\" is right at epoch "), "{text}");
    let answer = server.post("VERIFY MATERIALIZED VIEW \"Sums\"");
    assert!(answer.contains("\"tag\":\"VERIFY\",\"row_count\":0"), "{answer}");
    assert!(answer.contains("is right at epoch "), "{answer}");
    // A query that fails over the view's rows cannot be compared with.
    assert!(server.sql("INSERT INTO t VALUES (0, 0)").status.success());
    let (code, text) = server.verify(&["shares", "\"Sums\""]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("1 right, 0 wrong, 0 skipped, 1 not answered"), "{text}");
    let (code, text) = server.verify(&["--host", "127.0.0.1", "--port", "1"]);
    assert_eq!(code, Some(2), "{text}");
}

#[test]
fn a_run_verifies_at_the_end_of_its_input() {
    let script = "CREATE SOURCE s (id bigint) WITH (connector = 'datagen', rows = 1000);
        CREATE MATERIALIZED VIEW one AS SELECT id % 10 AS k FROM s;
        CREATE MATERIALIZED VIEW two AS SELECT k, count(*) AS n FROM one GROUP BY k;
        VERIFY two; SELECT sum(n) AS n FROM two";
    let output = tidemill(&["run", "--format", "csv", "-c", script]);
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(out, "side,times,k,n\nn\n1000\n", "{err}");
    assert!(err.contains("view \"two\" is right at epoch "), "{err}");
}
