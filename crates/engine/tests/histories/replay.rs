//! Replays cases, compares views with their queries, makes failing cases smaller.

use std::time::Duration;

use super::case::Step;
use super::embedded::Embedded;
use super::play::{Database, verify};

/// Long enough for a slow machine, short enough to end a test that hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// Smaller cases that are tried for each failing one.
const TRIALS: usize = 150;

/// A view that is not its query.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The view's name, if it is about one.
    view: Option<String>,
    /// What was asked.
    pub query: String,
    /// What was wrong.
    pub complaint: String,
}

/// What came of a case.
#[derive(Default)]
pub struct Replayed {
    /// Views compared with their queries.
    pub checks: usize,
    /// Views that could not be made as their kind is not supported.
    pub refused: usize,
    /// The first thing that went wrong.
    pub failure: Option<Failure>,
}

/// Replays a case in an engine of its own.
pub async fn replay(steps: &[Step], workers: usize) -> Replayed {
    let mut database = Embedded::new(workers);
    let mut replayed = Replayed::default();
    let mut views: Vec<(&str, &str)> = Vec::new();
    for step in steps {
        let answer = patiently(&mut database, &step.sql()).await;
        match (step, answer) {
            (Step::View(name, query), Ok(_)) => views.push((name, query)),
            // A view that reads one which was refused is refused for that.
            (Step::View(..), Err(error)) if refusal(&error) => replayed.refused += 1,
            (_, Ok(_)) => {}
            (_, Err(error)) => {
                replayed.failure = Some(Failure { view: None, query: step.sql(), complaint: error });
                return replayed;
            }
        }
        if let Some(complaint) = verify(&mut database).await.pop() {
            replayed.failure = Some(Failure { view: None, query: "VERIFY".into(), complaint });
            return replayed;
        }
        for (name, query) in &views {
            replayed.checks += 1;
            replayed.failure = compare(&mut database, name, query).await;
            if replayed.failure.is_some() {
                return replayed;
            }
        }
    }
    replayed
}

fn refusal(error: &str) -> bool {
    error.starts_with("0A000") || error.starts_with("42P01")
}

async fn patiently(database: &mut Embedded, sql: &str) -> Result<Vec<String>, String> {
    let ran = tokio::time::timeout(PATIENCE, database.run(sql)).await;
    ran.unwrap_or_else(|_| Err("no answer in time".to_string()))
}

async fn compare(database: &mut Embedded, name: &str, query: &str) -> Option<Failure> {
    let kept = patiently(database, &format!("SELECT * FROM {name}")).await;
    let batch = patiently(database, query).await;
    let complaint = match (kept, batch) {
        (Ok(kept), Ok(batch)) => difference(rounded(kept), rounded(batch))?,
        // A row without an answer is on the error side of a view, and ends a batch.
        (Ok(_), Err(error)) => {
            let errors = patiently(database, &format!("SELECT message FROM {name}$errors")).await;
            if errors.is_ok_and(|rows| !rows.is_empty()) {
                return None;
            }
            format!("only the batch fails: {error}")
        }
        (Err(error), _) => format!("the view cannot be read: {error}"),
    };
    Some(Failure { view: Some(name.to_string()), query: format!("{name} AS {query}"), complaint })
}

/// The rows, sorted, with numbers of at most nine digits after the point, and one zero only: which of 0
/// and -0 stands for both in a group is nobody's promise.
fn rounded(rows: Vec<String>) -> Vec<String> {
    let cell = |cell: &str| match cell.parse::<f64>() {
        Ok(number) if cell.contains('.') => {
            let text = format!("{number:.9}");
            let text = text.trim_end_matches('0').trim_end_matches('.');
            if text == "-0" { "0".to_string() } else { text.to_string() }
        }
        Ok(number) if number == 0.0 => "0".to_string(),
        _ => cell.to_string(),
    };
    let line = |row: &String| row.split(' ').map(cell).collect::<Vec<_>>().join(" ");
    let mut rows: Vec<String> = rows.iter().map(line).collect();
    rows.sort();
    rows
}

fn difference(kept: Vec<String>, batch: Vec<String>) -> Option<String> {
    if kept == batch {
        return None;
    }
    Some(format!("  the view has\n    {}\n  the batch gives\n    {}", kept.join("\n    "), batch.join("\n    ")))
}

/// Leaves out statements for as long as the same view stays wrong.
pub async fn smaller(mut steps: Vec<Step>, workers: usize, mut failure: Failure) -> (Vec<Step>, Failure) {
    let mut trials = TRIALS;
    let mut at = steps.len();
    while at > 0 && trials > 0 {
        at -= 1;
        for candidate in without(&steps, at) {
            trials = trials.saturating_sub(1);
            let replayed = replay(&candidate, workers).await;
            if let Some(other) = replayed.failure.filter(|other| same(other, &failure)) {
                (steps, failure) = (candidate, other);
                break;
            }
        }
    }
    (steps, failure)
}

fn same(one: &Failure, other: &Failure) -> bool {
    one.view == other.view && (one.view.is_some() || one.complaint == other.complaint)
}

/// The case without a step, or with less of it.
fn without(steps: &[Step], at: usize) -> Vec<Vec<Step>> {
    let mut all = vec![[&steps[..at], &steps[(at + 1).min(steps.len())..]].concat()];
    if let Some(Step::Batch(statements)) = steps.get(at).filter(|s| matches!(s, Step::Batch(b) if b.len() > 1)) {
        for i in 0..statements.len() {
            let mut fewer = statements.clone();
            fewer.remove(i);
            all.push([&steps[..at], &[Step::Batch(fewer)], &steps[at + 1..]].concat());
        }
    }
    all
}
