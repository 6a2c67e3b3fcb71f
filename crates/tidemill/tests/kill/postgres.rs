//! A PostgreSQL's server, where sinks write to; nobody kills it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::link::{Failed, Pg, Row};

/// A server of the test's own. It ends with the test, however that ends.
pub struct Postgres {
    process: Child,
    /// Open as long as the server is wanted.
    wanted: Option<ChildStdin>,
    address: String,
}

impl Postgres {
    /// Starts one, if it is installed.
    pub fn start() -> Option<Postgres> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/with-postgres");
        let mut process = Command::new(script)
            .args(["sh", "-c", "echo \"$TIDEMILL_POSTGRES\"; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("tests/with-postgres");
        let mut address = String::new();
        let told = process.stdout.take().map(|output| BufReader::new(output).read_line(&mut address));
        assert!(told.is_some_and(|told| told.is_ok()), "tests/with-postgres says nothing");
        let wanted = process.stdin.take();
        let server = Postgres { process, wanted, address: address.trim().to_owned() };
        assert!(
            !server.address.is_empty() || std::env::var_os("CI").is_none_or(|ci| ci.is_empty()),
            "PostgreSQL's server is missing"
        );
        (!server.address.is_empty()).then_some(server)
    }

    /// An empty database.
    pub fn database(&self, name: &str) -> Database {
        let mut pg = Pg::connect_to(&self.address).expect("PostgreSQL");
        for sql in [format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"), format!("CREATE DATABASE {name}")] {
            pg.run(&sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
        Database { address: self.address.replace("dbname=postgres", &format!("dbname={name}")), name: name.to_owned() }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.wanted = None;
        let _ = self.process.wait();
    }
}

/// A database that sinks write to.
#[derive(Clone)]
pub struct Database {
    address: String,
    name: String,
}

impl Database {
    /// A session.
    pub fn connect(&self) -> Result<Pg, String> {
        Pg::connect_to(&self.address).map_err(|error| format!("PostgreSQL: {error:?}"))
    }

    /// Runs statements in a session of their own.
    pub fn run(&self, sql: &str) -> Result<Vec<Row>, String> {
        let told = |error: Failed| format!("PostgreSQL: {sql}: {error:?}");
        self.connect()?.run(sql).map_err(told)
    }

    /// The options that lead a sink here.
    pub fn options(&self) -> String {
        let part = |name: &str| {
            let words = self.address.split_whitespace().find_map(|word| word.strip_prefix(&format!("{name}=")));
            words.unwrap_or_default().to_owned()
        };
        let (host, port, user) = (part("host"), part("port"), part("user"));
        format!(
            "connector = 'postgres', host = '{host}', port = '{port}', user = '{user}', dbname = '{}', table = ",
            self.name
        )
    }
}
