//! A case: tables, views and a history, all from one seed.

use super::expression::{Column, STORED, Type};
use super::query::{Maker, Query, Source};
use super::random::Random;

/// What happens in a case.
#[derive(Clone, Debug)]
pub enum Step {
    /// A statement that makes a table.
    Table(String),
    /// A materialized view.
    View {
        name: String,
        query: String,
        /// What its columns are.
        types: Vec<Type>,
        /// The view before it that must have the same rows.
        same: Option<String>,
    },
    /// Statements that change tables, in one transaction.
    Batch {
        statements: Vec<String>,
        /// Rows that come before the batch and go again, here or after it: they must leave no trace.
        noise: Option<Noise>,
    },
}

/// Rows that come and go.
#[derive(Clone, Debug)]
pub struct Noise {
    pub come: String,
    pub go: String,
    /// They go before the batch, which might change them otherwise.
    pub first: bool,
}

impl Step {
    /// As SQL.
    pub fn sql(&self) -> String {
        match self {
            Step::Table(sql) => sql.clone(),
            Step::View { name, query, .. } => format!("CREATE MATERIALIZED VIEW {name} AS {query}"),
            Step::Batch { statements, .. } if statements.len() == 1 => statements[0].clone(),
            Step::Batch { statements, .. } => format!("BEGIN; {}; COMMIT", statements.join("; ")),
        }
    }

    /// The same change in other epochs: a statement each, with rows between that come and go.
    pub fn dealt(&self) -> Vec<String> {
        let Step::Batch { statements, noise } = self else { return vec![self.sql()] };
        let mut dealt = statements.clone();
        if let Some(noise) = noise {
            dealt.insert(if noise.first { 0 } else { dealt.len() }, noise.go.clone());
            dealt.insert(0, noise.come.clone());
        }
        dealt
    }
}

/// How large a case is.
#[derive(Clone, Copy)]
pub struct Size {
    /// Batches of changes.
    pub batches: usize,
    /// Views before the last one, which is made when rows are there.
    pub views: usize,
}

/// Values of `k` from here on are noise.
const NOISE: usize = 1000;

struct Table {
    source: Source,
    /// For each column whether it may be NULL.
    nullable: Vec<bool>,
}

/// The case of a seed.
pub fn case(seed: u64, size: Size) -> Vec<Step> {
    let random = &mut Random::new(seed);
    let tables: Vec<Table> = (0..2 + random.below(2)).map(|i| table(random, i)).collect();
    let mut steps: Vec<Step> = tables.iter().map(create).collect();
    let mut sources: Vec<Source> = tables.iter().map(|t| t.source.clone()).collect();
    let mut views = 0;
    while views < size.views {
        views += view(random, &mut sources, views, &mut steps);
    }
    let late = random.below(size.batches);
    for i in 0..size.batches {
        if i == late {
            view(random, &mut sources, views, &mut steps);
        }
        // Some rows to begin with: many queries have nothing to say of few.
        let begin = |table: &Table, random: &mut Random| insert(random, table, 10);
        steps.push(match i {
            0 => Step::Batch { statements: tables.iter().map(|t| begin(t, random)).collect(), noise: None },
            _ => batch(random, &tables),
        });
    }
    steps
}

fn table(random: &mut Random, number: usize) -> Table {
    let others = 2 + random.below(3);
    let mut columns = vec![("k".to_string(), Type::Int)];
    columns.extend((0..others).map(|i| (format!("x{i}"), STORED[random.below(STORED.len())])));
    let nullable = columns.iter().map(|_| random.below(4) > 0).collect();
    Table { source: Source { sql: format!("t{number}"), columns }, nullable }
}

fn create(table: &Table) -> Step {
    let columns = table.source.columns.iter().zip(&table.nullable);
    let columns: Vec<String> = columns
        .map(|((name, of), nullable)| format!("{name} {}{}", of.sql(), if *nullable { "" } else { " NOT NULL" }))
        .collect();
    Step::Table(format!("CREATE TABLE {} ({})", table.source.sql, columns.join(", ")))
}

/// Adds a view, or two that must be the same; says how many.
fn view(random: &mut Random, sources: &mut Vec<Source>, number: usize, steps: &mut Vec<Step>) -> usize {
    let mut maker = Maker::new(random, sources);
    let (first, second) = match maker.one_in(5) {
        true => {
            let (one, other) = maker.same_answers();
            (one, Some(other))
        }
        false => (maker.query(2), None),
    };
    let name = format!("v{number}");
    let Query { sql: query, types } = first;
    let columns: Vec<Column> = types.iter().enumerate().map(|(i, of)| (format!("c{i}"), *of)).collect();
    // A source has to have something to use.
    if columns.iter().any(|c| c.1 != Type::Inexact) {
        sources.push(Source { sql: name.clone(), columns });
    }
    steps.push(Step::View { name: name.clone(), query, types: types.clone(), same: None });
    match second {
        Some(Query { sql: query, .. }) => {
            steps.push(Step::View { name: format!("v{}", number + 1), query, types, same: Some(name) });
            2
        }
        None => 1,
    }
}

fn row(random: &mut Random, table: &Table, key: Option<usize>) -> String {
    let cells = table.source.columns.iter().zip(&table.nullable).enumerate().map(|(i, ((_, of), nullable))| match key
        .filter(|_| i == 0)
    {
        Some(key) => key.to_string(),
        None if *nullable && random.below(6) == 0 => "NULL".to_string(),
        None => of.value(random),
    });
    format!("({})", cells.collect::<Vec<_>>().join(", "))
}

/// Statements of one transaction. One that reads a table which the transaction has changed is refused,
/// so that only inserts follow on a table's first change.
fn batch(random: &mut Random, tables: &[Table]) -> Step {
    let mut changed = vec![false; tables.len()];
    let statements: Vec<String> = (0..1 + random.below(3))
        .map(|_| {
            let place = random.below(tables.len());
            let only_insert = std::mem::replace(&mut changed[place], true);
            if only_insert { insert(random, &tables[place], 6) } else { change(random, &tables[place]) }
        })
        .collect();
    let inserts = statements.iter().all(|s| s.starts_with("INSERT"));
    let noise = (random.below(2) == 0).then(|| noise(random, tables, !inserts));
    Step::Batch { statements, noise }
}

fn noise(random: &mut Random, tables: &[Table], first: bool) -> Noise {
    let table = &tables[random.below(tables.len())];
    let rows: Vec<String> = (0..1 + random.below(4)).map(|i| row(random, table, Some(NOISE + i % 2))).collect();
    let name = &table.source.sql;
    Noise {
        come: format!("INSERT INTO {name} VALUES {}", rows.join(", ")),
        go: format!("DELETE FROM {name} WHERE k >= {NOISE}"),
        first,
    }
}

fn change(random: &mut Random, table: &Table) -> String {
    let name = &table.source.sql;
    let condition = |random: &mut Random| {
        let mut maker = Maker { random, sources: Vec::new(), aliases: 0, nested: 0 };
        maker.predicate(&table.source.columns, 1)
    };
    match random.below(5) {
        0 => format!("DELETE FROM {name} WHERE {}", condition(random)),
        1 => {
            let place = random.below(table.source.columns.len());
            let (column, of) = &table.source.columns[place];
            let null = table.nullable[place] && random.below(6) == 0;
            let new = if null { "NULL".to_string() } else { of.value(random) };
            format!("UPDATE {name} SET {column} = {new} WHERE {}", condition(random))
        }
        _ => insert(random, table, 6),
    }
}

fn insert(random: &mut Random, table: &Table, most: usize) -> String {
    let mut rows: Vec<String> = Vec::new();
    for _ in 0..1 + random.below(most) {
        let twice = rows.last().filter(|_| random.below(5) == 0).cloned();
        rows.push(twice.unwrap_or_else(|| row(random, table, None)));
    }
    format!("INSERT INTO {} VALUES {}", table.source.sql, rows.join(", "))
}
