//! The queries of a published benchmark as views.

use std::time::Duration;

use tidemill_engine::{Engine, RelationStatus};

use crate::Failure;

/// The engine looks at the size of its state about five times a second.
pub const SIZES: Duration = Duration::from_millis(300);

/// A query of a benchmark that numbers them from 1 to 22.
#[derive(Clone)]
pub struct Query {
    /// Which.
    pub number: u32,
    sql: String,
}

/// The texts of all queries of a folder in `bench/`, in order.
macro_rules! texts {
    ($folder:literal) => {
        crate::bench::suite::texts!($folder "01" "02" "03" "04" "05" "06" "07" "08" "09" "10" "11"
            "12" "13" "14" "15" "16" "17" "18" "19" "20" "21" "22")
    };
    ($folder:literal $($file:literal)*) => {
        [$(include_str!(concat!("../../../../../bench/", $folder, "/q", $file, ".sql"))),*]
    };
}
pub(crate) use texts;

impl Query {
    /// A query from its file, of which comments are left out.
    pub fn new(number: u32, text: &str) -> Self {
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("--")).collect();
        Query { number, sql: lines.join("\n") }
    }

    /// The name of its view.
    pub fn name(&self) -> String {
        format!("q{:02}", self.number)
    }

    /// The statement that makes its view.
    pub fn create(&self) -> String {
        format!("CREATE MATERIALIZED VIEW {} AS\n{}", self.name(), self.sql)
    }

    /// Whether it reads a table.
    pub fn reads(&self, table: &str) -> bool {
        self.sql.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == table)
    }

    /// Its view at work; an error if that has stopped.
    pub fn view(&self, engine: &Engine) -> Result<RelationStatus, Failure> {
        let name = self.name();
        let view = engine.status().relations.into_iter().find(|r| r.relation.name == name);
        let view = view.ok_or_else(|| Failure(format!("error: there is no view {name}")))?;
        match view.reason {
            Some(reason) => Err(Failure(format!("error: {name} stopped: {reason}"))),
            None => Ok(view),
        }
    }
}

/// The queries with these numbers; all of them for none.
pub fn numbered(all: Vec<Query>, numbers: &[u32], benchmark: &str) -> Result<Vec<Query>, Failure> {
    if numbers.is_empty() {
        return Ok(all);
    }
    let find = |number: &u32| all.iter().find(|query| query.number == *number).cloned();
    let missing = |number: &u32| Failure(format!("error: there is no {benchmark} query {number}"));
    numbers.iter().map(|number| find(number).ok_or_else(|| missing(number))).collect()
}
