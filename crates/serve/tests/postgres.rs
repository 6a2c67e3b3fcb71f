//! PostgreSQL as the judge: random tables, histories and queries of the dialect that both know.
//!
//! The cases are those of the engine's histories. After each batch of changes, PostgreSQL's answer, Tidemill's answer as a batch and
//! the rows of Tidemill's view must be the same, over the wire, values and types.
//!
//! `TIDEMILL_POSTGRES` is how to connect, as in `host=127.0.0.1 port=5433 user=postgres`; `tests/run-postgres` starts a server and
//! sets it. `TIDEMILL_CASES`, `TIDEMILL_SEED`, `TIDEMILL_VIEWS`, `TIDEMILL_BATCHES` and `TIDEMILL_SHRUNK` are as in the histories.

#![allow(clippy::print_stdout, reason = "long runs say how far they are")]

#[path = "../../engine/tests/histories/case.rs"]
#[expect(dead_code, reason = "here each batch is one transaction, without noise")]
mod case;
#[path = "postgres/compare.rs"]
mod compare;
#[path = "../../engine/tests/histories/expression.rs"]
mod expression;
#[path = "../../engine/tests/histories/from.rs"]
mod from;
#[path = "../../engine/tests/histories/grouping.rs"]
mod grouping;
#[path = "../../engine/tests/histories/over.rs"]
mod over;
#[path = "../../engine/tests/histories/partition.rs"]
mod partition;
#[path = "../../engine/tests/histories/query.rs"]
mod query;
#[path = "../../engine/tests/slt/random.rs"]
mod random;
#[path = "../../engine/tests/histories/recursion.rs"]
mod recursion;
#[path = "../../engine/tests/histories/shrink.rs"]
mod shrink;
#[path = "../../engine/tests/histories/subquery.rs"]
mod subquery;

use case::{Size, case};
use compare::Judges;
use shrink::smaller;

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a PostgreSQL server: tests/run-postgres starts one"]
async fn answers_are_those_of_postgres() {
    let address = std::env::var("TIDEMILL_POSTGRES").expect("TIDEMILL_POSTGRES says where PostgreSQL is");
    let (first, cases) = (variable("TIDEMILL_SEED", 1), variable("TIDEMILL_CASES", 20));
    let size =
        Size { batches: variable("TIDEMILL_BATCHES", 4) as usize, views: variable("TIDEMILL_VIEWS", 10) as usize };
    let mut judges = Judges::new(&address).await;
    // More would take long and say little.
    let shrunk = variable("TIDEMILL_SHRUNK", 4) as usize;
    let mut failures = Vec::new();
    for seed in first..first + cases {
        let steps = case(seed, size);
        for failure in judges.failures(&steps, None).await {
            let shown = failures.len() < shrunk;
            let steps = steps.clone();
            let (steps, failure) =
                if shown { smaller(&mut judges.quiet(), steps, failure).await } else { (steps, failure) };
            let sql: Vec<String> = steps.iter().map(|step| format!("  {};", step.sql())).collect();
            let sql = if shown { sql.join("\n") } else { failure.query.clone() };
            failures.push(format!(
                "== seed {seed}, {}\n{sql}\n  -- {}\n{}",
                failure.kind, failure.query, failure.complaint
            ));
        }
    }
    let counts = &judges.counts;
    println!("{cases} cases, {} queries, {} comparisons, {} failures", counts.queries, counts.checks, failures.len());
    for (what, by) in [("PostgreSQL", &counts.not_postgres), ("Tidemill", &counts.not_tidemill)] {
        by.iter().for_each(|(why, queries)| {
            println!("  {} not for {what}: {why}\n    as in {}", queries.len(), queries[0]);
        });
    }
    counts.types.iter().for_each(|(how, n)| println!("  {n} columns: {how}"));
    assert!(counts.queries > 0, "nothing was asked");
    assert!(failures.is_empty(), "{} answers differ\n{}", failures.len(), failures.join("\n"));
}
