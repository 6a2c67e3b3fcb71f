//! The user's pages are true: every `sql` block of `docs/*.md` runs, page by page, in order, and a
//! `result` block is what the statement above it answers.

use std::path::{Path, PathBuf};

use tidemill_connect::pg_text;
use tidemill_engine::{Config, Engine, Response, Session, parse};
use tidemill_env::Env;

/// A fenced block of a page.
struct Block {
    /// The words after the fence.
    info: String,
    /// What stands in it.
    text: String,
    /// The line of the opening fence, from 1.
    line: usize,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in page.lines().enumerate() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(_), Some(block)) => blocks.push(block),
            (Some(info), None) => {
                open = Some(Block { info: info.trim().to_string(), text: String::new(), line: number + 1 });
            }
            (None, Some(mut block)) => {
                block.text.push_str(line);
                block.text.push('\n');
                open = Some(block);
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    blocks
}

/// Rows as the pages show them: the columns' names, then a line per row.
fn table(response: &Response) -> Option<String> {
    let Response::Rows { schema, batches, .. } = response else { return None };
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let mut text = names.join(" | ") + "\n";
    for batch in batches {
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
                let mut cell = String::new();
                if column.is_null(row) {
                    cell.push_str("NULL");
                } else {
                    pg_text(column.as_ref(), row, field, &mut cell);
                }
                cell
            });
            text.push_str(&cells.collect::<Vec<_>>().join(" | "));
            text.push('\n');
        }
    }
    Some(text)
}

async fn run(session: &mut Session, sql: &str) -> Result<Option<String>, String> {
    let mut last = None;
    for statement in parse(sql).map_err(|e| e.to_string())? {
        let response = session.execute(&statement, &[]).await;
        last = table(&response.map_err(|e| format!("{}\n    {e}", statement.text.trim()))?);
    }
    Ok(last)
}

async fn check_page(path: &Path, workers: usize, wrong: &mut Vec<String>) -> usize {
    let page = std::fs::read_to_string(path).unwrap();
    let engine = Engine::start(Config { workers, ..Config::default() }, Env::real()).unwrap();
    let mut session = engine.session();
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let mut answer: Option<String> = None;
    let mut ran = 0;
    for block in blocks(&page) {
        let place = format!("{name}:{} ({workers} workers)", block.line);
        match block.info.as_str() {
            "sql" => {
                ran += 1;
                answer = match run(&mut session, &block.text).await {
                    Ok(answer) => answer,
                    Err(error) => {
                        wrong.push(format!("{place}: {error}"));
                        None
                    }
                };
            }
            "sql fails" => {
                ran += 1;
                if run(&mut session, &block.text).await.is_ok() {
                    wrong.push(format!("{place}: this must fail"));
                }
            }
            "result" => match &answer {
                Some(answer) if *answer == block.text => {}
                Some(answer) => {
                    wrong.push(format!("{place}: the page says\n{}but the answer is\n{answer}", block.text))
                }
                None => wrong.push(format!("{place}: there is no answer to compare with")),
            },
            _ => {}
        }
    }
    engine.shutdown();
    ran
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_true() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "md")).collect();
    pages.sort();
    let mut wrong = Vec::new();
    let mut ran = 0;
    for page in &pages {
        for workers in [1, 3] {
            ran += check_page(page, workers, &mut wrong).await;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(ran >= 30, "only {ran} blocks were found");
}
