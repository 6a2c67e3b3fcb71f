//! `tidemill run`: statements in an engine that lives as long as their input.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use tidemill_engine::{
    Config, CopyOutRows, Engine, Response, Session, SqlError, Statement, StatementKind, Subscription, parse,
};
use tidemill_env::Env;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::output::{self, Format};
use crate::report::Report;
use crate::{Failure, cores, progress, runtime};

/// Run statements in an engine of their own, and end with their input.
#[derive(clap::Args)]
#[command(after_help = "\
CREATE, INSERT and the like run first, in their order; then the sources start. SELECT and VERIFY answer when
all input has been read; SUBSCRIBE prints changes as they come. With a source that never ends, the
run goes on until ctrl-c, and SELECT answers then.

Examples:
  tidemill run pipeline.sql
  tidemill run --format csv report.sql > report.csv
  tidemill run -c \"SELECT 1 + 1\"
  echo 'SELECT 1' | tidemill run -")]
pub struct Arguments {
    /// Files with statements, `-` for the standard input.
    #[arg(value_name = "FILE", required_unless_present = "command")]
    files: Vec<PathBuf>,
    /// Statements to run after the files'.
    #[arg(short, long, value_name = "SQL", allow_hyphen_values = true)]
    command: Vec<String>,
    /// How rows are printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Worker threads [default: the number of cores].
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    #[command(flatten)]
    memory: crate::memory::Limit,
}

/// Runs the statements.
pub fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let mut scripts = Vec::new();
    for file in &arguments.files {
        scripts.push(Script::read(file)?);
    }
    scripts.extend(arguments.command.iter().map(|sql| Script { name: "-c".into(), text: sql.clone() }));
    let config = Config {
        workers: arguments.workers.unwrap_or_else(cores).max(1),
        auto_start_sources: false,
        ..Config::default()
    };
    let (config, _folder) = arguments.memory.apply(config, &std::env::temp_dir().join("tidemill-spill"))?;
    runtime()?.block_on(async {
        let engine = Engine::start(config, Env::real())?;
        let done = Runner::new(engine.clone(), arguments.format).all(&scripts).await;
        engine.shutdown();
        done.map(|()| ExitCode::SUCCESS)
    })
}

/// A text with statements.
pub struct Script {
    /// How it is called in errors.
    pub name: String,
    /// The statements.
    pub text: String,
}

impl Script {
    /// Reads a file, or the standard input for `-`.
    pub fn read(path: &PathBuf) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let mut text = String::new();
        let read = match name.as_str() {
            "-" => std::io::stdin().read_to_string(&mut text).map(drop),
            _ => std::fs::read_to_string(path).map(|read| text = read),
        };
        read.map_err(|e| Failure(format!("error: cannot read {name}: {e}")))?;
        Ok(Script { name, text })
    }

    /// An error in a statement that begins at `offset`.
    fn failure(&self, error: &SqlError, offset: usize) -> Failure {
        let text = Report::new(error, offset).or_at(offset).render(Some(&self.name), &self.text);
        Failure(text.trim_end().to_string())
    }
}

/// A statement and the script it is from.
type Placed<'a> = (&'a Script, Statement);

struct Runner {
    engine: Engine,
    session: Session,
    format: Format,
    /// Tells the readers of changes that nothing more will come.
    ended: watch::Sender<bool>,
    readers: Vec<JoinHandle<Result<(), SqlError>>>,
}

impl Runner {
    fn new(engine: Engine, format: Format) -> Self {
        Runner { session: engine.session(), engine, format, ended: watch::Sender::new(false), readers: Vec::new() }
    }

    async fn all(mut self, scripts: &[Script]) -> Result<(), Failure> {
        let mut statements: Vec<Placed<'_>> = Vec::new();
        for script in scripts {
            let parsed = parse(&script.text).map_err(|e| script.failure(&e, 0))?;
            statements.extend(parsed.into_iter().map(|statement| (script, statement)));
        }
        let has_sources =
            statements.iter().any(|(_, s)| matches!(&s.kind, StatementKind::CreateRelation(c) if c.source));
        // Without a source every statement sees what those before it did, and no others.
        let (first, then) = statements.into_iter().partition::<Vec<_>, _>(|(_, s)| !has_sources || !is_answer(&s.kind));
        for statement in &first {
            self.one(statement).await?;
        }
        self.engine.start_sources();
        let interrupted = self.end_of_input().await?;
        for statement in &then {
            self.one(statement).await?;
        }
        self.ended.send_replace(true);
        for reader in self.readers {
            if interrupted {
                reader.abort();
            } else {
                reader.await??;
            }
        }
        Ok(())
    }

    /// Waits until all input is read, or without an end for ctrl-c. Returns whether it was ctrl-c.
    async fn end_of_input(&self) -> Result<bool, Failure> {
        let waiting = async {
            if let Err(error) = self.engine.wait_for_end_of_input().await {
                tracing::debug!(%error, "no end of input");
                eprintln!("a source has no end: ctrl-c stops it");
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = waiting => Ok(false),
            () = progress::show(self.engine.clone()) => Ok(false),
            pressed = tokio::signal::ctrl_c() => pressed.map(|()| true).map_err(Failure::from),
        }
    }

    async fn one(&mut self, (script, statement): &Placed<'_>) -> Result<(), Failure> {
        let failed = |error: &SqlError| script.failure(error, statement.offset);
        let response = self.session.execute(statement, &[]).await.map_err(|e| failed(&e))?;
        for notice in self.session.take_notices() {
            eprintln!("notice: {}", notice.message);
            if let Some(hint) = notice.hint {
                eprintln!("  help: {hint}");
            }
        }
        match response {
            Response::Rows { schema, batches, .. } => print(&output::rows(&schema, &batches, self.format))?,
            Response::Subscribe(subscription) => self.follow(subscription),
            Response::CopyOut { schema, rows: CopyOutRows::Batches(batches), .. } => {
                print(&output::rows(&schema, &batches, Format::Csv))?;
            }
            Response::CopyOut { rows: CopyOutRows::Live(subscription), .. } => self.follow(subscription),
            Response::CopyIn { .. } => {
                let error = SqlError::not_supported("a script has no rows for COPY ... FROM STDIN")
                    .hint("read the rows with CREATE SOURCE ... WITH (connector = 'file', ...)");
                return Err(failed(&error));
            }
            Response::Done(_) | Response::Empty => {}
        }
        Ok(())
    }

    /// Prints a subscription's changes until the input has ended and all are seen.
    fn follow(&mut self, mut subscription: Subscription) {
        let (engine, format, mut ended) = (self.engine.clone(), self.format, self.ended.subscribe());
        self.readers.push(tokio::spawn(async move {
            write(&output::changes_header(subscription.schema(), format));
            loop {
                let change = tokio::select! {
                    biased;
                    change = subscription.next() => change?,
                    _ = ended.wait_for(|ended| *ended), if subscription.position() >= engine.epoch() => None,
                };
                match change {
                    Some(change) => write(&output::changes(&change, format)),
                    None => return Ok(()),
                }
            }
        }));
    }
}

/// Whether a statement asks for rows, and so waits for the end of the input.
fn is_answer(kind: &StatementKind) -> bool {
    matches!(kind, StatementKind::Query(_) | StatementKind::Show(_) | StatementKind::Verify(_))
        || matches!(kind, StatementKind::CopyTo { what, .. } if is_answer(what))
}

/// A reader that closed the pipe is no reason for a complaint; other failures are.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        written => Ok(written?),
    }
}

fn write(text: &str) {
    if let Err(failure) = print(text) {
        tracing::warn!("{failure}");
    }
}
