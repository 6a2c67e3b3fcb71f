//! A view equals its query, whatever happened: random tables, views and histories.
//!
//! Each case is made from a seed: two or three tables, some materialized views (some over others, some in pairs that
//! must have the same rows, one made when rows are there already), and batches of inserts, updates and deletes. After every
//! batch each view's rows must be what its defining query gives as a batch; and in a second engine, with three workers,
//! where each statement is an epoch of its own and rows come and go in between, they must be the same.
//!
//! `TIDEMILL_CASES` says how many seeds are tried (20 unless told), `TIDEMILL_SEED` where they begin, so
//! that `TIDEMILL_CASES=1 TIDEMILL_SEED=17` repeats seed 17; `TIDEMILL_VIEWS` and `TIDEMILL_BATCHES` say how large each is.
//! A failing case is made smaller by leaving statements and words out before it is shown; `TIDEMILL_SHRUNK` says how many of them.

#![allow(clippy::print_stdout, reason = "long runs say how far they are")]

#[path = "histories/case.rs"]
#[expect(dead_code, reason = "columns' types matter where PostgreSQL is asked")]
mod case;
#[path = "slt/embedded.rs"]
mod embedded;
#[path = "histories/expression.rs"]
mod expression;
#[path = "histories/from.rs"]
mod from;
#[path = "histories/grouping.rs"]
mod grouping;
#[path = "histories/over.rs"]
mod over;
#[path = "histories/partition.rs"]
mod partition;
#[path = "slt/play.rs"]
#[expect(dead_code, reason = "histories compare in their own way")]
mod play;
#[path = "histories/query.rs"]
mod query;
#[path = "slt/random.rs"]
mod random;
#[path = "histories/recursion.rs"]
mod recursion;
#[path = "histories/replay.rs"]
mod replay;
#[path = "histories/rows.rs"]
mod rows;
#[path = "slt/script.rs"]
#[expect(dead_code, reason = "histories are no files")]
mod script;
#[path = "histories/shrink.rs"]
mod shrink;
#[path = "histories/subquery.rs"]
mod subquery;
#[path = "slt/ways.rs"]
#[expect(dead_code, reason = "histories are dealt out by their generator")]
mod ways;

use std::collections::BTreeMap;

use case::Size;
use replay::{Replays, replay};
use shrink::{Failure, smaller};

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread")]
async fn views_equal_their_queries() {
    let (first, cases) = (variable("TIDEMILL_SEED", 1), variable("TIDEMILL_CASES", 20));
    let size =
        Size { batches: variable("TIDEMILL_BATCHES", 5) as usize, views: variable("TIDEMILL_VIEWS", 10) as usize };
    // More would take long and say little.
    let shrunk = variable("TIDEMILL_SHRUNK", 4) as usize;
    let (mut failures, mut views, mut checks) = (Vec::new(), 0, 0);
    let mut refused: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for seed in first..first + cases {
        let case = case::case(seed, size);
        let replayed = replay(&case, None).await;
        views += replayed.views;
        checks += replayed.checks;
        replayed.refused.into_iter().for_each(|(why, queries)| refused.entry(why).or_default().extend(queries));
        if let Some(failure) = replayed.failure {
            let shown = failures.len() < shrunk;
            let (steps, failure) = if shown { smaller(&mut Replays, case, failure).await } else { (case, failure) };
            failures.push(told(seed, &steps, &failure));
        }
    }
    let unsupported: usize = refused.values().map(Vec::len).sum();
    println!(
        "{cases} cases, {views} views, {checks} comparisons, {unsupported} queries refused, {} failures",
        failures.len()
    );
    refused.iter().for_each(|(why, queries)| println!("  {} refused: {why}\n    as in {}", queries.len(), queries[0]));
    assert!(views > 0, "no view was made");
    assert!(failures.is_empty(), "{} of {cases} cases failed\n{}", failures.len(), failures.join("\n"));
}

fn told(seed: u64, steps: &[case::Step], failure: &Failure) -> String {
    let sql: Vec<String> = steps.iter().map(|step| format!("  {};", step.sql())).collect();
    format!("== seed {seed}, {}\n{}\n  -- {}\n{}", failure.kind, sql.join("\n"), failure.query, failure.complaint)
}
