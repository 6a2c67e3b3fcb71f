//! `tidemill check`: every error of a file, without reading any source.

use std::path::PathBuf;
use std::process::ExitCode;

use tidemill_engine::{Config, Engine, Session, SqlError, Statement, StatementKind, parse};
use tidemill_env::Env;

use crate::report::Report;
use crate::run::Script;
use crate::{Failure, runtime, script};

/// Parse and plan every statement of a file without reading any source.
#[derive(clap::Args)]
#[command(after_help = "\
CREATE statements run in an empty engine whose sources never start; queries and DML are only planned,
sinks are not opened. All errors are printed; the exit code is 1 if there is one.

Examples:
  tidemill check pipeline.sql
  tidemill check schema.sql views.sql     (later files see what earlier ones create)")]
pub struct Arguments {
    /// Files with statements, `-` for the standard input.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

/// Checks the files.
pub fn check(arguments: Arguments) -> Result<ExitCode, Failure> {
    let scripts = arguments.files.iter().map(Script::read).collect::<Result<Vec<_>, _>>()?;
    let (mut statements, mut errors) = (0, 0);
    runtime()?.block_on(async {
        let config = Config { auto_start_sources: false, ..Config::default() };
        let engine = Engine::start(config, Env::real())?;
        let mut session = engine.session();
        for script in &scripts {
            let (of_script, wrong) = check_script(&mut session, script).await;
            statements += of_script;
            errors += wrong;
        }
        engine.shutdown();
        Ok::<(), Failure>(())
    })?;
    match errors {
        0 => eprintln!("{statements} statements, no errors"),
        n => eprintln!("{statements} statements, {n} with errors"),
    }
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How many statements a script has, and how many of them are wrong.
async fn check_script(session: &mut Session, script: &Script) -> (usize, usize) {
    let pieces = script::pieces(&script.text);
    let mut errors = 0;
    for piece in &pieces {
        if let Err(error) = check_statement(session, piece.text).await {
            errors += 1;
            eprintln!(
                "{}",
                Report::new(&error, piece.offset).or_at(piece.offset).render(Some(&script.name), &script.text)
            );
        }
    }
    (pieces.len(), errors)
}

async fn check_statement(session: &mut Session, text: &str) -> Result<(), SqlError> {
    for statement in parse(text)? {
        // The text is one statement, whose own positions begin where the text does.
        match planned(&statement) {
            Some(planned) => session.describe(&planned, &[]).await.map(drop)?,
            None => session.execute(&statement, &[]).await.map(drop)?,
        }
    }
    Ok(())
}

/// The statement to plan in place of one that must not run; `None`: it may run.
fn planned(statement: &Statement) -> Option<Statement> {
    let kind = match &statement.kind {
        // Opening a sink touches the world outside.
        StatementKind::CreateSink(sink) => match &sink.query {
            Some(query) => StatementKind::Query(query.clone()),
            None => return sink.from.as_ref().and_then(|name| select_from(&name.namespace, &name.name)),
        },
        StatementKind::CreateRelation(_) | StatementKind::CreateView(_) | StatementKind::Drop { .. } => return None,
        StatementKind::Set { .. } | StatementKind::Reset(_) | StatementKind::Empty => return None,
        StatementKind::Begin | StatementKind::Commit | StatementKind::Rollback => return None,
        other => other.clone(),
    };
    Some(Statement { kind, ..statement.clone() })
}

fn select_from(namespace: &Option<String>, name: &str) -> Option<Statement> {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let namespace = namespace.as_ref().map(|n| quoted(n) + ".").unwrap_or_default();
    parse(&format!("SELECT * FROM {namespace}{}", quoted(name))).ok()?.pop()
}
