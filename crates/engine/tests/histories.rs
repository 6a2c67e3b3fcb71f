//! A view equals its query, whatever happened: random tables, views and histories.
//!
//! Each case is made from a seed: two or three tables, a few materialized views (some over others,
//! one made when rows are there already), and batches of inserts, updates and deletes. After every
//! batch each view's rows must be what its defining query gives as a batch, with one worker and three.
//!
//! `TIDEMILL_CASES` says how many seeds are tried (40 unless told), `TIDEMILL_SEED` where they begin, so
//! that `TIDEMILL_CASES=1 TIDEMILL_SEED=17` repeats seed 17. A failing case is made smaller by leaving
//! statements out before it is shown.

#[path = "histories/case.rs"]
mod case;
#[path = "slt/embedded.rs"]
mod embedded;
#[path = "histories/expression.rs"]
mod expression;
#[path = "slt/play.rs"]
#[expect(dead_code, reason = "histories compare in their own way")]
mod play;
#[path = "histories/query.rs"]
mod query;
#[path = "slt/random.rs"]
mod random;
#[path = "histories/replay.rs"]
mod replay;
#[path = "slt/script.rs"]
#[expect(dead_code, reason = "histories are no files")]
mod script;
#[path = "slt/ways.rs"]
#[expect(dead_code, reason = "histories are dealt out by their generator")]
mod ways;

use replay::{Failure, replay, smaller};

/// Cases that are made smaller; more would take long and say little.
const SHRUNK: usize = 8;

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread")]
async fn views_equal_their_queries() {
    let (first, cases) = (variable("TIDEMILL_SEED", 1), variable("TIDEMILL_CASES", 40));
    let (mut failures, mut checks, mut refused) = (Vec::new(), 0, 0);
    for seed in first..first + cases {
        let case = case::case(seed);
        for workers in [1, 3] {
            let replayed = replay(&case, workers).await;
            checks += replayed.checks;
            refused += replayed.refused;
            if let Some(failure) = replayed.failure {
                let shown = failures.len() < SHRUNK;
                let (steps, failure) = if shown { smaller(case, workers, failure).await } else { (case, failure) };
                failures.push(told(seed, workers, &steps, &failure));
                break;
            }
        }
    }
    println!("{cases} cases, {checks} views compared, {refused} views refused, {} failures", failures.len());
    assert!(failures.is_empty(), "{} of {cases} cases failed\n{}", failures.len(), failures.join("\n"));
}

fn told(seed: u64, workers: usize, steps: &[case::Step], failure: &Failure) -> String {
    let sql: Vec<String> = steps.iter().map(|step| format!("  {};", step.sql())).collect();
    format!("== seed {seed}, {workers} workers\n{}\n  -- {}\n{}", sql.join("\n"), failure.query, failure.complaint)
}
