//! The ways to deal the same statements out to epochs.

use super::random::Random;
use super::script::{Expect, Record, Script};

/// How a file is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As it is written.
    Plain,
    /// Every row of an `INSERT` in a statement, so in an epoch, of its own.
    RowByRow,
    /// The rows of neighbouring `INSERT`s regrouped, some groups in one transaction.
    RandomBatches(u64),
}

/// The records of a file, dealt out in one way.
pub fn deal(script: &Script, way: Way) -> Vec<Record> {
    match way {
        Way::Plain => script.records.clone(),
        Way::RowByRow => script.records.iter().flat_map(row_by_row).collect(),
        Way::RandomBatches(seed) => random_batches(script, &mut Random::new(seed)),
    }
}

fn row_by_row(record: &Record) -> Vec<Record> {
    let Some((head, rows)) = insert(record) else { return vec![record.clone()] };
    rows.iter().map(|row| with_sql(record, format!("{head} {row}"))).collect()
}

fn with_sql(record: &Record, sql: String) -> Record {
    Record { sql, ..record.clone() }
}

fn random_batches(script: &Script, random: &mut Random) -> Vec<Record> {
    // Where a watermark has to pass between two statements, they cannot share an epoch.
    let in_order = script.records.iter().any(|r| r.skipped.iter().any(|way| way == "batch"));
    let mut dealt = Vec::new();
    let mut at = 0;
    while at < script.records.len() {
        let run = script.records[at..].iter().take_while(|r| insert(r).is_some()).count();
        let run = if in_order { run.min(1) } else { run };
        if run == 0 {
            dealt.push(script.records[at].clone());
        } else {
            regroup(&script.records[at..at + run], random, &mut dealt);
        }
        at += run.max(1);
    }
    dealt
}

/// Deals the rows of neighbouring inserts out to new inserts, in their order, and puts some of these into transactions.
fn regroup(inserts: &[Record], random: &mut Random, dealt: &mut Vec<Record>) {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for record in inserts {
        let Some((head, rows)) = insert(record) else { continue };
        for row in rows {
            match groups.last_mut() {
                Some((last, rows)) if *last == head && random.below(3) > 0 => rows.push(row),
                _ => groups.push((head.clone(), vec![row])),
            }
        }
    }
    let mut open = false;
    for (head, rows) in groups {
        if !open && random.below(2) == 0 {
            dealt.push(with_sql(&inserts[0], "BEGIN".into()));
            open = true;
        }
        dealt.push(with_sql(&inserts[0], format!("{head} {}", rows.join(", "))));
        if open && random.below(2) == 0 {
            dealt.push(with_sql(&inserts[0], "COMMIT".into()));
            open = false;
        }
    }
    if open {
        dealt.push(with_sql(&inserts[0], "COMMIT".into()));
    }
}

/// A plain `INSERT INTO ... VALUES` that must go well: what comes before its rows, and its rows.
fn insert(record: &Record) -> Option<(String, Vec<String>)> {
    let sql = record.sql.trim();
    let upper = sql.to_ascii_uppercase();
    if !matches!(record.expect, Expect::Done) || !upper.starts_with("INSERT INTO") {
        return None;
    }
    let values = upper.find("VALUES")? + "VALUES".len();
    Some((sql[..values].to_string(), rows(&sql[values..])?))
}

/// The parenthesised rows of a `VALUES` list; `None` if anything else is in it.
fn rows(text: &str) -> Option<Vec<String>> {
    let (mut rows, mut row, mut depth, mut quoted) = (Vec::new(), String::new(), 0, false);
    for c in text.chars() {
        quoted ^= c == '\'';
        depth += i32::from(c == '(' && !quoted);
        if depth > 0 {
            row.push(c);
        } else if c != ',' && !c.is_whitespace() {
            return None;
        }
        if c == ')' && !quoted {
            depth -= 1;
            if depth == 0 {
                rows.push(std::mem::take(&mut row));
            }
        }
    }
    (depth == 0 && !rows.is_empty()).then_some(rows)
}

/// The query with the materialized view that it reads replaced by that view's defining query;
/// `None` if it is not simply over one view. `definition` knows the materialized views.
pub fn as_batch(sql: &str, definition: impl Fn(&str) -> Option<(String, Vec<String>)>) -> Option<String> {
    let words: Vec<&str> = sql.split_whitespace().collect();
    let froms = words.iter().filter(|w| w.eq_ignore_ascii_case("from")).count();
    let joins = words.iter().any(|w| w.eq_ignore_ascii_case("join") || w.contains("$"));
    let at = words.iter().position(|w| w.eq_ignore_ascii_case("from"))?;
    let name = words.get(at + 1).filter(|n| froms == 1 && !joins && !n.contains([',', '(']))?;
    let bare = name.strip_prefix("public.").unwrap_or(name);
    let (found, columns) = definition(bare.trim_matches('"'))?;
    let columns = columns.iter().map(|column| format!("\"{column}\"")).collect::<Vec<_>>().join(", ");
    let (head, tail) = (words[..=at].join(" "), words[at + 2..].join(" "));
    Some(format!("{head} ({found}) AS {bare} ({columns}) {tail}"))
}
