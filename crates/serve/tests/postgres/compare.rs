//! Plays a case in PostgreSQL and in Tidemill and compares.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_engine::{Config, Engine};
use tidemill_env::Env;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::case::Step;
use super::expression::Type;
use super::shrink::{Failure, Judge};

/// How far apart two answers of an inexact column may be.
const TOLERANCE: f64 = 1e-6;
/// Workers of Tidemill.
const WORKERS: usize = 2;
/// Types that differ on purpose: PostgreSQL's, Tidemill's.
const OTHER_TYPES: [(&str, &str); 4] =
    [("numeric", "int8"), ("numeric", "float8"), ("int4", "int8"), ("_int4", "_int8")];

/// What was asked and what came of it.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Queries that all three have answered.
    pub queries: usize,
    /// Comparisons.
    pub checks: usize,
    /// Queries that PostgreSQL refuses, by its reason.
    pub not_postgres: BTreeMap<String, Vec<String>>,
    /// Queries that only Tidemill refuses, by its reason.
    pub not_tidemill: BTreeMap<String, Vec<String>>,
    /// Columns of another type on purpose.
    pub types: BTreeMap<String, usize>,
}

/// PostgreSQL, and counts.
pub struct Judges {
    postgres: Client,
    pub counts: Counts,
}

/// A view that all of them have.
struct Kept<'a> {
    name: &'a str,
    query: &'a str,
    types: &'a [Type],
}

async fn connect(address: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(address, NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

/// A row's cells.
type Row = Vec<Option<String>>;

async fn ask(client: &Client, sql: &str) -> Result<Vec<Row>, String> {
    let messages = client.simple_query(sql).await.map_err(|error| match error.as_db_error() {
        Some(error) => format!("{}: {}", error.code().code(), error.message()),
        None => error.to_string(),
    })?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|i| row.get(i).map(str::to_string)).collect()),
        _ => None,
    });
    Ok(rows.collect())
}

/// The types of a query's columns.
async fn types(client: &Client, sql: &str) -> Result<Vec<String>, String> {
    let statement = client.prepare(sql).await.map_err(|error| match error.as_db_error() {
        Some(error) => format!("{}: {}", error.code().code(), error.message()),
        None => error.to_string(),
    })?;
    Ok(statement.columns().iter().map(|column| column.type_().name().to_string()).collect())
}

/// A Tidemill behind a port; it stops when dropped.
struct Tidemill {
    engine: Engine,
    server: JoinHandle<std::io::Result<()>>,
    client: Client,
}

impl Tidemill {
    async fn start() -> Tidemill {
        let config = Config { workers: WORKERS, ..Config::default() };
        let engine = Engine::start(config, Env::real()).expect("the engine starts");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let server = tokio::spawn(tidemill_serve::pg::serve(engine.clone(), listener));
        let client = connect(&format!("host=127.0.0.1 port={port} user=test")).await;
        Tidemill { engine, server, client }
    }
}

impl Drop for Tidemill {
    fn drop(&mut self) {
        self.server.abort();
        self.engine.shutdown();
    }
}

impl Judges {
    /// With PostgreSQL at an address.
    pub async fn new(address: &str) -> Judges {
        Judges { postgres: connect(address).await, counts: Counts::default() }
    }

    /// The same without counting.
    pub fn quiet(&mut self) -> Quiet<'_> {
        Quiet(self)
    }

    /// What is wrong in a case, at most one failure per view; only with one view if it is given.
    pub async fn failures(&mut self, steps: &[Step], only: Option<&str>) -> Vec<Failure> {
        let tidemill = Tidemill::start().await;
        let fresh = format!(
            "SET client_min_messages = error; DROP SCHEMA IF EXISTS c{0} CASCADE; CREATE SCHEMA c{0}; SET search_path = c{0}",
            std::process::id()
        );
        ask(&self.postgres, &fresh).await.expect("a fresh schema");
        let (mut views, mut failures) = (Vec::new(), Vec::new());
        let mut wrong: BTreeSet<&str> = BTreeSet::new();
        for step in steps {
            if let Step::View { name, query, types, .. } = step {
                let view = Kept { name, query, types };
                match self.view(&tidemill, step, &view).await {
                    Ok(true) => views.push(view),
                    Ok(false) => {}
                    Err(failure) => failures.push(failure),
                }
                continue;
            }
            let both = ask(&self.postgres, &step.sql()).await.and(ask(&tidemill.client, &step.sql()).await);
            if let Err(complaint) = both {
                let _ = ask(&self.postgres, "ROLLBACK").await;
                failures.push(Failure { view: None, kind: "error", query: step.sql(), complaint });
                return failures;
            }
            let batch = matches!(step, Step::Batch { .. });
            for view in &views {
                if batch && let Err(e) = ask(&self.postgres, &format!("REFRESH MATERIALIZED VIEW {}", view.name)).await
                {
                    // A row without an answer: PostgreSQL has none for the whole query.
                    wrong.insert(view.name);
                    self.counts.not_postgres.entry(gist(&e)).or_default().push(view.query.to_string());
                }
                if !batch || wrong.contains(view.name) || only.is_some_and(|only| only != view.name) {
                    continue;
                }
                // What reads a wrong view is wrong for that.
                let reads_wrong = wrong.iter().any(|name| view.query.contains(&format!("{name} AS ")));
                match self.compare(&tidemill, view).await {
                    _ if reads_wrong => drop(wrong.insert(view.name)),
                    Err(failure) => {
                        wrong.insert(view.name);
                        failures.push(failure);
                    }
                    Ok(()) => {}
                }
            }
        }
        failures
    }

    /// Makes a view on both sides; says whether there is one, and fails where its columns have other types.
    async fn view(&mut self, tidemill: &Tidemill, step: &Step, view: &Kept<'_>) -> Result<bool, Failure> {
        let Kept { name, query, .. } = view;
        if let Err(error) = ask(&self.postgres, &step.sql()).await {
            self.counts.not_postgres.entry(gist(&error)).or_default().push(query.to_string());
            return Ok(false);
        }
        if let Err(error) = ask(&tidemill.client, &step.sql()).await {
            let _ = ask(&self.postgres, &format!("DROP MATERIALIZED VIEW {name}")).await;
            // What reads a view that was refused is not refused for a reason of its own.
            if !error.starts_with("42P01") {
                self.counts.not_tidemill.entry(gist(&error)).or_default().push(query.to_string());
            }
            return Ok(false);
        }
        self.counts.queries += 1;
        let fail =
            |complaint| Failure { view: Some(name.to_string()), kind: "types differ", query: step.sql(), complaint };
        let expected = types(&self.postgres, &format!("SELECT * FROM {name}")).await.map_err(fail)?;
        let kept = types(&tidemill.client, &format!("SELECT * FROM {name}")).await.map_err(fail)?;
        let batch = types(&tidemill.client, query).await.map_err(fail)?;
        for (postgres, ours) in expected.iter().zip(&kept).filter(|(a, b)| a != b) {
            *self.counts.types.entry(format!("{postgres} is {ours}")).or_default() += 1;
        }
        let known = |(a, b): (&String, &String)| a == b || OTHER_TYPES.contains(&(a.as_str(), b.as_str()));
        if kept != batch || kept.len() != expected.len() || !expected.iter().zip(&kept).all(known) {
            ask(&self.postgres, &format!("DROP MATERIALIZED VIEW {name}")).await.map_err(fail)?;
            ask(&tidemill.client, &format!("DROP MATERIALIZED VIEW {name}")).await.map_err(fail)?;
            return Err(fail(format!("  PostgreSQL {expected:?}\n  the view   {kept:?}\n  the batch  {batch:?}")));
        }
        Ok(true)
    }

    async fn compare(&mut self, tidemill: &Tidemill, view: &Kept<'_>) -> Result<(), Failure> {
        let fail = |kind, complaint| Failure {
            view: Some(view.name.to_string()),
            kind,
            query: format!("{} AS {}", view.name, view.query),
            complaint,
        };
        self.counts.checks += 1;
        let kept = ask(&tidemill.client, &format!("SELECT * FROM {}", view.name)).await;
        let kept = kept.map_err(|e| fail("view error", e))?;
        let batch = ask(&tidemill.client, view.query).await;
        let expected = match ask(&self.postgres, &format!("SELECT * FROM {}", view.name)).await {
            Ok(expected) => expected,
            // A row without an answer ends a query in both.
            Err(_) if batch.is_err() => return Ok(()),
            Err(error) => return Err(fail("PostgreSQL's error", error)),
        };
        let batch = match batch {
            // A view can do more than a batch.
            Err(error) if error.starts_with("0A000") => {
                self.counts.not_tidemill.entry(gist(&error)).or_default().push(view.query.to_string());
                kept.clone()
            }
            batch => batch.map_err(|e| fail("batch error", e))?,
        };
        for (kind, rows) in [("batch differs", &batch), ("view differs", &kept)] {
            if let Some(difference) = difference(&expected, rows, view.types) {
                return Err(fail(kind, difference));
            }
        }
        Ok(())
    }
}

/// Judges that do not count.
pub struct Quiet<'a>(&'a mut Judges);

impl Judge for Quiet<'_> {
    async fn failure(&mut self, steps: &[Step], view: Option<&str>) -> Option<Failure> {
        let counts = self.0.counts.clone();
        let failures = self.0.failures(steps, view).await;
        self.0.counts = counts;
        failures.into_iter().find(|failure| failure.view.as_deref() == view)
    }
}

/// An error's message without the names in it.
fn gist(error: &str) -> String {
    let words: Vec<&str> = error.split_whitespace().take(16).collect();
    words.join(" ").split('"').step_by(2).collect::<Vec<_>>().join("_")
}

/// A row in two parts: what must be equal, and numbers that may be a little apart.
fn parts(row: &Row, types: &[Type]) -> (String, Vec<f64>) {
    let (mut exact, mut near) = (Vec::new(), Vec::new());
    for (cell, of) in row.iter().zip(types) {
        exact.push(match (cell, of) {
            (None, _) => "NULL".to_string(),
            (Some(text), Type::Inexact) => {
                near.push(text.parse().unwrap_or(f64::NAN));
                "~".to_string()
            }
            // Which zero stands for both is nobody's promise.
            (Some(text), Type::Double) if text == "-0" => "0".to_string(),
            (Some(text), Type::Other) => text.split_inclusive(['{', ',', '}']).map(zero).collect(),
            (Some(text), _) => text.clone(),
        });
    }
    (exact.join("|"), near)
}

fn zero(item: &str) -> &str {
    if item.trim_end_matches([',', '}']) == "-0" { &item[1..] } else { item }
}

fn difference(expected: &[Row], rows: &[Row], types: &[Type]) -> Option<String> {
    let sorted = |rows: &[Row]| {
        let mut parts: Vec<(String, Vec<f64>)> = rows.iter().map(|row| parts(row, types)).collect();
        parts.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
        parts
    };
    let (expected, rows) = (sorted(expected), sorted(rows));
    let close = |a: &f64, b: &f64| (a - b).abs() <= TOLERANCE * a.abs().max(1.0);
    let same = |a: &(String, Vec<f64>), b: &(String, Vec<f64>)| {
        a.0 == b.0 && a.1.len() == b.1.len() && a.1.iter().zip(&b.1).all(|(a, b)| close(a, b))
    };
    if expected.len() == rows.len() && expected.iter().zip(&rows).all(|(a, b)| same(a, b)) {
        return None;
    }
    let only = |these: &[(String, Vec<f64>)], others: &[(String, Vec<f64>)]| {
        let mut left = others.to_vec();
        let mut only = Vec::new();
        for row in these {
            match left.iter().position(|other| same(row, other)) {
                Some(at) => drop(left.swap_remove(at)),
                None => only.push(format!("\n    {} {:?}", row.0, row.1)),
            }
        }
        only.truncate(8);
        only.concat()
    };
    Some(format!("  only PostgreSQL:{}\n  only Tidemill:{}", only(&expected, &rows), only(&rows, &expected)))
}
