//! A case: tables, views and a history, all from one seed.

use super::expression::{Column, STORED, Type, predicate};
use super::query::{Maker, Source};
use super::random::Random;

/// What happens in a case.
#[derive(Clone, Debug)]
pub enum Step {
    /// A statement that makes a table.
    Table(String),
    /// A view's name and its query.
    View(String, String),
    /// Statements that change tables, in one transaction.
    Batch(Vec<String>),
}

impl Step {
    /// As SQL.
    pub fn sql(&self) -> String {
        match self {
            Step::Table(sql) => sql.clone(),
            Step::View(name, query) => format!("CREATE MATERIALIZED VIEW {name} AS {query}"),
            Step::Batch(statements) if statements.len() == 1 => statements[0].clone(),
            Step::Batch(statements) => format!("BEGIN; {}; COMMIT", statements.join("; ")),
        }
    }
}

/// Batches of a history.
const BATCHES: usize = 8;

/// The case of a seed.
pub fn case(seed: u64) -> Vec<Step> {
    let random = &mut Random::new(seed);
    let tables: Vec<Source> = (0..2 + random.below(2)).map(|i| table(random, i)).collect();
    let mut steps: Vec<Step> = tables.iter().map(create).collect();
    let mut sources = tables.clone();
    let views = 2 + random.below(3);
    for i in 0..views {
        steps.push(view(random, &mut sources, i));
    }
    let late = random.below(BATCHES);
    for i in 0..BATCHES {
        if i == late {
            steps.push(view(random, &mut sources, views));
        }
        steps.push(batch(random, &tables));
    }
    steps
}

fn table(random: &mut Random, number: usize) -> Source {
    let others = 2 + random.below(3);
    let mut columns = vec![("k".to_string(), Type::Int)];
    columns.extend((0..others).map(|i| (format!("x{i}"), STORED[random.below(STORED.len())])));
    Source { sql: format!("t{number}"), columns }
}

fn create(table: &Source) -> Step {
    let columns: Vec<String> = table.columns.iter().map(|(name, of)| format!("{name} {}", of.sql())).collect();
    Step::Table(format!("CREATE TABLE {} ({})", table.sql, columns.join(", ")))
}

fn view(random: &mut Random, sources: &mut Vec<Source>, number: usize) -> Step {
    let query = Maker { random, sources, aliases: 0 }.query(2);
    let name = format!("v{number}");
    let columns: Vec<Column> = query.types.iter().enumerate().map(|(i, of)| (format!("c{i}"), *of)).collect();
    sources.push(Source { sql: name.clone(), columns });
    Step::View(name, query.sql)
}

fn value(random: &mut Random, of: Type) -> String {
    if random.below(6) == 0 { "NULL".to_string() } else { of.constant(random) }
}

/// Statements of one transaction. One that reads a table which the transaction has changed is refused,
/// so that only inserts follow on a table's first change.
fn batch(random: &mut Random, tables: &[Source]) -> Step {
    let mut changed = vec![false; tables.len()];
    let statements = 0..1 + random.below(3);
    let statements = statements.map(|_| {
        let place = random.below(tables.len());
        let only_insert = std::mem::replace(&mut changed[place], true);
        if only_insert { insert(random, &tables[place]) } else { change(random, &tables[place]) }
    });
    Step::Batch(statements.collect())
}

fn change(random: &mut Random, table: &Source) -> String {
    match random.below(5) {
        0 => format!("DELETE FROM {} WHERE {}", table.sql, predicate(random, &table.columns, 1)),
        1 => {
            let (column, of) = table.columns[random.below(table.columns.len())].clone();
            let new = value(random, of);
            format!("UPDATE {} SET {column} = {new} WHERE {}", table.sql, predicate(random, &table.columns, 1))
        }
        _ => insert(random, table),
    }
}

fn insert(random: &mut Random, table: &Source) -> String {
    let mut rows: Vec<String> = Vec::new();
    for _ in 0..1 + random.below(6) {
        let twice = rows.last().filter(|_| random.below(5) == 0).cloned();
        rows.push(twice.unwrap_or_else(|| {
            let cells: Vec<String> = table.columns.iter().map(|c| value(random, c.1)).collect();
            format!("({})", cells.join(", "))
        }));
    }
    format!("INSERT INTO {} VALUES {}", table.sql, rows.join(", "))
}
