//! `tidemill verify`: every materialized view of a server against its query.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::client::Server;
use crate::client::connection::{cause, connect};
use crate::output::table;
use crate::{Failure, runtime};

/// The SQLSTATE of a view that reads what is not kept.
const NOT_SUPPORTED: &str = "0A000";

/// Compare the views of a server with their queries.
#[derive(clap::Args)]
#[command(after_help = "\
Each view's query is run again, as a batch, over exactly the rows that the view has seen; the stream
runs on meanwhile. VERIFY MATERIALIZED VIEW v in SQL lists the rows that differ.

Exit codes: 0 no view differs, 1 a view differs, 2 a view or the server could not be asked.
A view that reads a source directly is skipped: a source's rows are not kept.

Examples:
  tidemill verify
  tidemill verify revenue best        (only these)
  tidemill verify --host db1 --port 7432")]
pub struct Arguments {
    /// Which views, as SQL names [default: all materialized views].
    #[arg(value_name = "VIEW")]
    views: Vec<String>,
    #[command(flatten)]
    server: Server,
}

/// What came of one view.
struct Verdict {
    view: String,
    result: &'static str,
    /// Rows that differ.
    rows: Option<u64>,
    millis: u128,
    /// What the server said.
    words: String,
}

/// Verifies views.
pub fn verify(arguments: Arguments) -> Result<ExitCode, Failure> {
    match runtime()?.block_on(verify_all(&arguments)) {
        Ok(code) => Ok(code),
        Err(failure) => {
            eprintln!("{failure}");
            Ok(ExitCode::from(2))
        }
    }
}

#[allow(clippy::print_stdout, reason = "this is the command's answer")]
async fn verify_all(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let told: Arc<Mutex<Option<String>>> = Arc::default();
    let last = told.clone();
    let notice = move |notice: &tokio_postgres::error::DbError| {
        *last.lock().unwrap_or_else(|e| e.into_inner()) = Some(notice.message().to_owned());
    };
    let client = connect(&arguments.server.host, arguments.server.port, "tidemill verify", notice).await?;
    let views = if arguments.views.is_empty() { all_views(&client).await? } else { arguments.views.clone() };
    let bar = progress(views.len());
    let mut verdicts = Vec::with_capacity(views.len());
    for view in views {
        bar.set_message(view.clone());
        let mut verdict = verify_one(&client, view).await?;
        let said = told.lock().unwrap_or_else(|e| e.into_inner()).take();
        verdict.words = said.filter(|_| verdict.words.is_empty()).unwrap_or(verdict.words);
        verdicts.push(verdict);
        bar.inc(1);
    }
    drop(bar);
    print!("{}", listed(&verdicts));
    Ok(conclusion(&verdicts))
}

async fn all_views(client: &Client) -> Result<Vec<String>, Failure> {
    let rows = client.simple_query("SHOW MATERIALIZED VIEWS").await;
    let rows = rows.map_err(|e| Failure(format!("error: {}", cause(&e))))?;
    let names = rows.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get("name").map(|name| format!("\"{}\"", name.replace('"', "\"\""))),
        _ => None,
    });
    Ok(names.collect())
}

async fn verify_one(client: &Client, view: String) -> Result<Verdict, Failure> {
    let began = Instant::now();
    let answer = client.simple_query(&format!("VERIFY MATERIALIZED VIEW {view}")).await;
    let millis = began.elapsed().as_millis();
    let (result, rows, words) = match answer {
        Ok(messages) => {
            let rows = messages.iter().filter(|m| matches!(m, SimpleQueryMessage::Row(_))).count() as u64;
            (if rows == 0 { "right" } else { "wrong" }, Some(rows), String::new())
        }
        Err(error) => match error.as_db_error() {
            Some(error) if error.code().code() == NOT_SUPPORTED => ("skipped", None, error.message().to_owned()),
            Some(error) => ("error", None, error.message().to_owned()),
            None => return Err(Failure(format!("error: {}", cause(&error)))),
        },
    };
    Ok(Verdict { view, result, rows, millis, words })
}

fn progress(views: usize) -> ProgressBar {
    let bar = ProgressBar::new(views as u64).with_finish(ProgressFinish::AndClear);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} views {msg}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn listed(verdicts: &[Verdict]) -> String {
    let names = ["view", "result", "differing rows", "ms", "details"].map(String::from).to_vec();
    let rows = verdicts.iter().map(|v| {
        let rows = v.rows.map(|rows| rows.to_string()).unwrap_or_default();
        [v.view.clone(), v.result.to_owned(), rows, v.millis.to_string(), v.words.clone()].map(Some).to_vec()
    });
    table(names, rows.collect(), vec![false, false, true, true, false])
}

fn conclusion(verdicts: &[Verdict]) -> ExitCode {
    let count = |result: &str| verdicts.iter().filter(|v| v.result == result).count();
    let (right, wrong, skipped, failed) = (count("right"), count("wrong"), count("skipped"), count("error"));
    eprintln!("{right} right, {wrong} wrong, {skipped} skipped, {failed} not answered");
    match (wrong, failed) {
        (0, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::from(2),
        _ => ExitCode::from(1),
    }
}
