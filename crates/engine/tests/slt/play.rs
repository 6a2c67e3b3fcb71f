//! Plays a file against a database, and says what came out otherwise.

use std::time::Duration;

use super::script::{Expect, Record};
use super::ways::as_batch;

/// Long enough for a slow machine, short enough to end a test that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whatever takes statements.
#[allow(async_fn_in_trait, reason = "the tests' futures stay on their thread")]
pub trait Database {
    /// Runs a statement; rows come as lines of cells in text form.
    async fn run(&mut self, sql: &str) -> Result<Vec<String>, String>;

    /// The defining query of a materialized view and its columns, where the database tells.
    fn definition(&self, _view: &str) -> Option<(String, Vec<String>)> {
        None
    }
}

/// A cell as slt files write it.
pub fn cell(text: Option<&str>) -> &str {
    match text {
        None => "NULL",
        Some("") => "(empty)",
        Some(text) => text,
    }
}

/// Runs all records; returns what was not as expected.
pub async fn play(database: &mut impl Database, records: &[Record], batch: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for record in records {
        let answer = patiently(database, &record.sql).await;
        check(record, &record.sql, answer, &mut wrong);
        if !batch || record.skipped.iter().any(|way| way == "batch") || !matches!(record.expect, Expect::Rows(..)) {
            continue;
        }
        if let Some(sql) = as_batch(&record.sql, |view| database.definition(view)) {
            let answer = patiently(database, &sql).await;
            check(record, &sql, answer, &mut wrong);
        }
        wrong.extend(verify(database).await.into_iter().map(|complaint| format!("line {}: {complaint}", record.line)));
    }
    wrong.extend(verify(database).await);
    wrong
}

/// What `VERIFY` has to say against the views that are there.
pub async fn verify(database: &mut impl Database) -> Vec<String> {
    let views = match patiently(database, "SELECT relname FROM pg_class WHERE relkind = 'm'").await {
        Ok(views) => views,
        Err(error) => return vec![format!("the views cannot be listed: {error}")],
    };
    let mut wrong = Vec::new();
    for view in views {
        let sql = format!("VERIFY MATERIALIZED VIEW \"{view}\"");
        match patiently(database, &sql).await {
            Ok(rows) if rows.is_empty() => {}
            Ok(rows) => wrong.push(format!("{sql}\n  {}", rows.join("\n  "))),
            // Rows without an answer end a batch.
            Err(error) if error.starts_with("55000") && error.contains("its query fails") => {
                let errors = patiently(database, &format!("SELECT * FROM \"{view}$errors\"")).await;
                if errors.as_ref().is_ok_and(Vec::is_empty) {
                    wrong.push(format!("{sql}\n  the view has no errors, but: {error}"));
                }
            }
            Err(error) => wrong.push(format!("{sql}\n  {error}")),
        }
    }
    wrong
}

async fn patiently(database: &mut impl Database, sql: &str) -> Result<Vec<String>, String> {
    let ran = tokio::time::timeout(PATIENCE, database.run(sql)).await;
    ran.unwrap_or_else(|_| Err("no answer in time".to_string()))
}

fn check(record: &Record, sql: &str, answer: Result<Vec<String>, String>, wrong: &mut Vec<String>) {
    let complaint = match (&record.expect, answer) {
        (Expect::Done, Ok(_)) => return,
        (Expect::Done, Err(error)) => format!("must go well: {error}"),
        (Expect::Error(pattern), Ok(_)) => format!("must fail with /{pattern}/"),
        (Expect::Error(pattern), Err(error)) => {
            let found = regex::Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(&error));
            if found {
                return;
            }
            format!("must fail with /{pattern}/, not with: {error}")
        }
        (Expect::Rows(..), Err(error)) => format!("must give rows: {error}"),
        (Expect::Rows(rows, sort), Ok(mut answered)) => {
            let mut expected = rows.clone();
            if *sort {
                expected.sort();
                answered.sort();
            }
            if expected == answered {
                return;
            }
            format!("expected\n    {}\n  answered\n    {}", expected.join("\n    "), answered.join("\n    "))
        }
    };
    wrong.push(format!("line {}: {sql}\n  {complaint}", record.line));
}

/// Fails the test with all that went wrong, if anything did.
pub fn report(files: usize, failures: Vec<(String, Vec<String>)>) {
    assert!(files > 0, "no file was found");
    let failed: Vec<&(String, Vec<String>)> = failures.iter().filter(|(_, wrong)| !wrong.is_empty()).collect();
    let text: Vec<String> = failed.iter().map(|(name, wrong)| format!("== {name}\n{}", wrong.join("\n"))).collect();
    assert!(failed.is_empty(), "{} of {files} files failed\n{}", failed.len(), text.join("\n"));
}
