//! One connection: sends statements, prints what comes back.

use std::future::poll_fn;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, pin_mut};
use tokio_postgres::error::{DbError, ErrorPosition};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, SimpleColumn, SimpleQueryMessage, SimpleQueryRow, Socket};

use crate::Failure;
use crate::output::{self, Format};
use crate::report::Report;

/// Rows that are aligned together.
const ROWS_PER_TABLE: usize = 1000;
/// How long a row waits for others to be aligned with: a subscription's rows must not wait for more.
const PATIENCE: Duration = Duration::from_millis(200);

/// A connection and how to print.
pub struct Connection {
    client: Client,
    format: Format,
    /// Whether the time that a statement took is printed.
    pub timing: bool,
}

impl Connection {
    /// Connects.
    pub async fn open(host: &str, port: u16, format: Format) -> Result<Self, Failure> {
        let client = connect(host, port, "tidemill sql", print_notice).await?;
        Ok(Connection { client, format, timing: false })
    }

    /// Runs a statement and prints its answer; `false` if it failed. Errors point into the script, if it
    /// is part of one.
    pub async fn run(&mut self, sql: &str, script: Option<(&str, usize)>) -> Result<bool, Failure> {
        let start = Instant::now();
        let done = tokio::select! {
            done = self.answer(sql) => done,
            pressed = tokio::signal::ctrl_c() => {
                pressed?;
                self.client.cancel_token().cancel_query(NoTls).await?;
                eprintln!("cancelled");
                return Ok(false);
            }
        };
        let Err(error) = done? else {
            if self.timing {
                eprintln!("{:.1} ms", start.elapsed().as_secs_f64() * 1000.0);
            }
            return Ok(true);
        };
        match error.as_db_error() {
            Some(error) => eprint!("{}", report(error, sql, script)),
            None => return Err(Failure(format!("error: {}", cause(&error)))),
        }
        Ok(false)
    }

    /// What a statement answers, as texts: for the client's own questions.
    async fn answer(&self, sql: &str) -> Result<Result<(), tokio_postgres::Error>, Failure> {
        let stream = match self.client.simple_query_raw(sql).await {
            Ok(stream) => stream,
            Err(error) => return Ok(Err(error)),
        };
        pin_mut!(stream);
        let mut printer = Printer::new(self.format);
        loop {
            let message = match tokio::time::timeout(PATIENCE, stream.next()).await {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(Ok(())),
                Err(_) => {
                    printer.flush()?;
                    continue;
                }
            };
            match message {
                Ok(message) => printer.take(message)?,
                Err(error) => {
                    printer.flush()?;
                    return Ok(Err(error));
                }
            }
        }
    }
}

/// Connects; what the server tells beside its answers goes to `notice`.
pub async fn connect(
    host: &str,
    port: u16,
    application: &str,
    notice: impl Fn(&DbError) + Send + 'static,
) -> Result<Client, Failure> {
    let mut config = Config::new();
    config.host(host).port(port).user(user()).dbname("tidemill").application_name(application);
    if let Ok(password) = std::env::var("PGPASSWORD") {
        config.password(password);
    }
    let hint = format!("is a server running there? `tidemill serve` starts one on port {port}");
    let connected = config.connect(NoTls).await;
    let (client, wire) = connected
        .map_err(|e| Failure(format!("error: cannot connect to {host}:{port}: {}\n  help: {hint}", cause(&e))))?;
    tokio::spawn(listen(wire, notice));
    Ok(client)
}

fn user() -> String {
    std::env::var("PGUSER").or_else(|_| std::env::var("USER")).unwrap_or_else(|_| "tidemill".into())
}

/// The innermost cause says most: `connection refused` rather than `error connecting to server`.
pub fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(inner) = innermost.source() {
        innermost = inner;
    }
    innermost.to_string()
}

fn print_notice(notice: &DbError) {
    eprintln!("{}: {}", notice.severity().to_lowercase(), notice.message());
    if let Some(hint) = notice.hint() {
        eprintln!("  help: {hint}");
    }
}

/// Drives the connection and passes the server's notices on.
async fn listen(
    mut wire: tokio_postgres::Connection<Socket, tokio_postgres::tls::NoTlsStream>,
    told: impl Fn(&DbError),
) {
    while let Some(message) = poll_fn(|cx| wire.poll_message(cx)).await {
        match message {
            Ok(AsyncMessage::Notice(notice)) => told(&notice),
            Ok(_) => {}
            // Whoever waits for an answer gets this error too.
            Err(_) => return,
        }
    }
}

fn report(error: &DbError, sql: &str, script: Option<(&str, usize)>) -> String {
    let (text, offset) = script.unwrap_or((sql, 0));
    let position = match error.position() {
        Some(ErrorPosition::Original(position)) => Some(*position as usize),
        _ => None,
    };
    let report = Report {
        code: error.code().code(),
        message: error.message(),
        at: position.map(|position| offset + position.saturating_sub(1)),
        detail: error.detail(),
        hint: error.hint(),
    };
    report.render(None, text)
}

/// Prints rows as they come, some at a time.
struct Printer {
    format: Format,
    columns: Option<Arc<[SimpleColumn]>>,
    rows: Vec<SimpleQueryRow>,
    /// Rows printed already.
    printed: usize,
}

impl Printer {
    fn new(format: Format) -> Self {
        Printer { format, columns: None, rows: Vec::new(), printed: 0 }
    }

    fn take(&mut self, message: SimpleQueryMessage) -> Result<(), Failure> {
        match message {
            SimpleQueryMessage::RowDescription(columns) => self.columns = Some(columns),
            SimpleQueryMessage::Row(row) => {
                self.rows.push(row);
                if self.rows.len() >= ROWS_PER_TABLE {
                    self.flush()?;
                }
            }
            SimpleQueryMessage::CommandComplete(count) => self.complete(count)?,
            _ => {}
        }
        Ok(())
    }

    fn complete(&mut self, count: u64) -> Result<(), Failure> {
        let had_columns = self.columns.is_some();
        if had_columns && self.printed == 0 && self.rows.is_empty() {
            self.print()?;
        }
        self.flush()?;
        let rows = self.printed as u64;
        (self.columns, self.printed) = (None, 0);
        if self.format == Format::Table {
            match (had_columns, count) {
                (true, _) => eprintln!("({})", output::count(rows)),
                (false, 0) => eprintln!("ok"),
                (false, count) => eprintln!("ok, {}", output::count(count)),
            }
        }
        Ok(())
    }

    /// Prints the rows that wait.
    fn flush(&mut self) -> Result<(), Failure> {
        if self.rows.is_empty() { Ok(()) } else { self.print() }
    }

    fn print(&mut self) -> Result<(), Failure> {
        let rows = std::mem::take(&mut self.rows);
        let names: Vec<String> = self.columns.iter().flat_map(|c| c.iter()).map(|c| c.name().to_string()).collect();
        let values = rows.iter().map(|row| (0..row.len()).map(|i| row.get(i).map(str::to_string)).collect());
        let values: Vec<Vec<Option<String>>> = values.collect();
        let first = self.printed == 0;
        self.printed += rows.len();
        let text = match self.format {
            Format::Table => {
                let right = numeric(&values, names.len());
                let text = output::table(names, values, right);
                // Later rows need no second header.
                if first { text } else { text.split_inclusive('\n').skip(2).collect() }
            }
            Format::Csv => {
                let header = if first { output::csv_line(names.into_iter().map(Some)) } else { String::new() };
                header + &values.into_iter().map(output::csv_line).collect::<String>()
            }
            Format::Json => values.into_iter().map(|row| json_line(&names, row)).collect(),
        };
        let mut out = std::io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
            written => Ok(written?),
        }
    }
}

/// The wire's simple protocol has texts only; a column of nothing but numbers is taken for one of numbers.
fn numeric(rows: &[Vec<Option<String>>], columns: usize) -> Vec<bool> {
    let all = |i: usize| {
        let mut texts = rows.iter().filter_map(|row| row[i].as_deref()).peekable();
        texts.peek().is_some() && texts.all(|text| text.parse::<f64>().is_ok())
    };
    (0..columns).map(all).collect()
}

fn json_line(names: &[String], row: Vec<Option<String>>) -> String {
    let value = |text: Option<String>| text.map_or(serde_json::Value::Null, serde_json::Value::String);
    let members = names.iter().zip(row).map(|(name, text)| (name.clone(), value(text)));
    serde_json::Value::Object(members.collect()).to_string() + "\n"
}
