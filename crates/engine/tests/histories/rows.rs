//! A view's rows, however they were learnt, in a form that can be compared.

use std::collections::BTreeMap;

use arrow::array::{Array, RecordBatch};
use tidemill_connect::pg_text;
use tidemill_engine::Subscription;

/// Rows in text form and how often each is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows(pub BTreeMap<String, i64>);

/// Lines of a difference that are shown.
const SHOWN: usize = 8;

impl Rows {
    /// From lines.
    pub fn of(lines: &[String]) -> Rows {
        let mut rows = BTreeMap::new();
        lines.iter().for_each(|line| *rows.entry(rounded(line)).or_default() += 1);
        Rows(rows)
    }

    /// What is here and not there, and the other way round.
    pub fn difference(&self, other: &Rows, names: [&str; 2]) -> Option<String> {
        if self == other {
            return None;
        }
        let only = |one: &Rows, other: &Rows, name: &str| {
            let count = |line: &String| other.0.get(line).copied().unwrap_or(0);
            let lines: Vec<String> = one
                .0
                .iter()
                .filter(|(line, n)| **n > count(line))
                .map(|(line, n)| format!("\n    {} times {line}", n - count(line)))
                .collect();
            let more =
                if lines.len() > SHOWN { format!("\n    and {} more", lines.len() - SHOWN) } else { String::new() };
            format!("  only {name}:{}{more}", lines[..lines.len().min(SHOWN)].concat())
        };
        Some(format!("{}\n{}", only(self, other, names[0]), only(other, self, names[1])))
    }
}

/// A view followed from its first rows on.
pub struct Followed {
    subscription: Subscription,
    /// Rows with all their digits.
    lines: BTreeMap<String, i64>,
}

impl Followed {
    /// Follows a view.
    pub fn new(subscription: Subscription) -> Followed {
        Followed { subscription, lines: BTreeMap::new() }
    }

    /// The rows as of now; an error when something is taken back that was never there.
    pub fn rows(&mut self) -> Result<Rows, String> {
        while let Some(change) = self.subscription.poll_now().map_err(|e| e.message)? {
            for (i, line) in lines(&change.delta.rows).into_iter().enumerate() {
                let count = self.lines.entry(line).or_default();
                *count += change.delta.weight(i);
            }
        }
        self.lines.retain(|_, count| *count != 0);
        let mut rows = BTreeMap::new();
        for (line, count) in &self.lines {
            if *count < 0 {
                return Err(format!("{line} was taken back {} times too often", -count));
            }
            *rows.entry(rounded(line)).or_default() += count;
        }
        Ok(Rows(rows))
    }
}

/// Rows as lines of cells in text form. 0 and -0 are the same here: which of them stands for both in a group is nobody's promise.
fn lines(rows: &RecordBatch) -> Vec<String> {
    let schema = rows.schema();
    let cell = |column: &dyn Array, row: usize, i: usize| {
        let mut text = String::new();
        match column.is_valid(row) {
            true => pg_text(column, row, schema.field(i), &mut text),
            false => text.push_str("NULL"),
        }
        match text.as_str() {
            "" => "(empty)".to_string(),
            "-0" => "0".to_string(),
            _ => text,
        }
    };
    let line = |row: usize| {
        let columns = rows.columns().iter().enumerate();
        columns.map(|(i, column)| cell(column.as_ref(), row, i)).collect::<Vec<_>>().join(" ")
    };
    (0..rows.num_rows()).map(line).collect()
}

/// Numbers with at most nine digits after the point, and one zero only.
fn rounded(line: &str) -> String {
    let cell = |cell: &str| match cell.parse::<f64>() {
        Ok(number) if cell.contains(['.', 'e']) => {
            let text = format!("{number:.9}");
            let text = text.trim_end_matches('0').trim_end_matches('.');
            if text == "-0" { "0".to_string() } else { text.to_string() }
        }
        Ok(0.0) => "0".to_string(),
        _ => cell.to_string(),
    };
    line.split(' ').map(cell).collect::<Vec<_>>().join(" ")
}
