//! What an slt file says, read into records.

use std::path::{Path, PathBuf};

/// What must come of a record.
#[derive(Clone, Debug)]
pub enum Expect {
    /// The statement goes well.
    Done,
    /// The statement fails with a message that this pattern finds.
    Error(String),
    /// The query gives these lines; sorted first if the flag says so.
    Rows(Vec<String>, bool),
}

/// A statement or query of a file.
#[derive(Clone, Debug)]
pub struct Record {
    /// Where its head stands in the file.
    pub line: usize,
    /// Its SQL.
    pub sql: String,
    /// What must come of it.
    pub expect: Expect,
    /// The ways in which it does not count (`skipif`).
    pub skipped: Vec<String>,
}

/// A file.
#[derive(Clone, Debug)]
pub struct Script {
    /// Its path below the folder of all of them.
    pub name: String,
    /// What it says.
    pub records: Vec<Record>,
}

/// All files below the folder, by name.
pub fn all() -> Vec<Script> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/slt");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    paths.sort();
    let only = std::env::var("TIDEMILL_SLT").unwrap_or_default();
    let scripts = paths.iter().map(|path| {
        let name = path.strip_prefix(&root).expect("below the root").display().to_string();
        let text = std::fs::read_to_string(path).expect("a readable file");
        Script { records: records(&name, &text), name }
    });
    scripts.filter(|script| script.name.contains(&only)).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|e| e == "slt") {
            paths.push(path);
        }
    }
}

fn records(name: &str, text: &str) -> Vec<Record> {
    let mut records = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    let mut at = 0;
    while at < lines.len() {
        let end = (at..lines.len()).find(|i| lines[*i].is_empty()).unwrap_or(lines.len());
        records.extend(record(name, at, &lines[at..end]));
        at = end + 1;
    }
    records
}

/// One block between empty lines; `None` if it is only a comment.
fn record(name: &str, at: usize, block: &[&str]) -> Option<Record> {
    let mut skipped = Vec::new();
    for (i, line) in block.iter().enumerate() {
        if let Some(way) = line.strip_prefix("skipif ") {
            skipped.push(way.trim().to_string());
        } else if !line.starts_with('#') {
            let (sql, expect) = body(name, at + i + 1, line, &block[i + 1..]);
            return Some(Record { line: at + i + 1, sql, expect, skipped });
        }
    }
    None
}

fn body(name: &str, line: usize, head: &str, rest: &[&str]) -> (String, Expect) {
    if head == "statement ok" {
        return (rest.join("\n"), Expect::Done);
    }
    if let Some(pattern) = head.strip_prefix("statement error") {
        return (rest.join("\n"), Expect::Error(pattern.trim().to_string()));
    }
    let (Some(head), Some(rule)) = (head.strip_prefix("query "), rest.iter().position(|l| *l == "----")) else {
        panic!("{name}:{line}: neither a statement nor a query with its rows: {head}");
    };
    let rows = rest[rule + 1..].iter().map(ToString::to_string).collect();
    (rest[..rule].join("\n"), Expect::Rows(rows, head.ends_with("rowsort")))
}
