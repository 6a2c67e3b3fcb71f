//! Every file of `tests/slt`, in this process: the same rows however the statements are dealt out
//! to epochs, with one worker and three, and as batches. `TIDEMILL_SLT=join/` runs only files whose
//! name contains that; `TIDEMILL_SEED` seeds the random batches.

#[path = "slt/embedded.rs"]
mod embedded;
#[path = "slt/play.rs"]
mod play;
#[path = "slt/random.rs"]
mod random;
#[path = "slt/restarting.rs"]
mod restarting;
#[path = "slt/script.rs"]
mod script;
#[path = "slt/ways.rs"]
mod ways;

use embedded::Embedded;
use tidemill_engine::{Config, Spill};
use ways::Way;

/// Runs all files in one way, each in a database of its own.
async fn all(way: Way, workers: usize, batch: bool) {
    let scripts = script::all();
    let mut failures = Vec::new();
    for script in &scripts {
        let mut database = Embedded::new(workers);
        failures.push((script.name.clone(), play::play(&mut database, &ways::deal(script, way), batch).await));
    }
    play::report(scripts.len(), failures);
}

#[tokio::test(flavor = "multi_thread")]
async fn plainly_with_one_worker() {
    all(Way::Plain, 1, false).await;
}

/// Files with views that have no incremental rule
/// (constants count as recomputed, once).
const RECOMPUTED: &[&str] = &[
    "aggregate/arrays.slt",
    "aggregate/avg_decimal.slt",
    "aggregate/distinct_ordered.slt",
    "aggregate/nothing_above.slt",
    "aggregate/ordered.slt",
    "compose/constants.slt",
    "compose/verify.slt",
    "join/correlated_names.slt",
    "join/correlated_types.slt",
    "join/in_as_value.slt",
    "join/lateral.slt",
    "join/never.slt",
    "recursion/constants.slt",
    "select/set_operations_all.slt",
    "select/table_functions.slt",
    "select/union_of_nullable.slt",
    "topn/offset.slt",
    "topn/whole_numbers.slt",
];

#[tokio::test(flavor = "multi_thread")]
async fn incremental_views_recompute_nothing() {
    let (mut wrong, mut counted) = (Vec::new(), 0);
    for script in script::all() {
        let mut database = Embedded::new(1);
        play::play(&mut database, &ways::deal(&script, Way::Plain), false).await;
        for (view, recomputed, times) in database.recomputations().await {
            let allowed = recomputed && RECOMPUTED.contains(&script.name.as_str());
            counted += u64::from(times > 0);
            if (recomputed || times > 0) && !allowed {
                wrong.push(format!("{} {view}: recomputed {times} times; its plan says so: {recomputed}", script.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(counted > 0, "nothing was counted, so nothing is known");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_three_workers() {
    all(Way::Plain, 3, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn row_by_row() {
    all(Way::RowByRow, 2, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_random_batches() {
    let seed = std::env::var("TIDEMILL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    for seed in seed..seed + 3 {
        all(Way::RandomBatches(seed), 1 + seed as usize % 3, false).await;
    }
}

/// Stopped and started again at random places, with another number of workers each time.
#[tokio::test(flavor = "multi_thread")]
async fn with_restarts() {
    let seed = std::env::var("TIDEMILL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let (scripts, mut failures) = (script::all(), Vec::new());
    for (number, script) in scripts.iter().enumerate() {
        let mut database = restarting::Restarting::new(seed * 1000 + number as u64);
        failures.push((script.name.clone(), play::play(&mut database, &ways::deal(script, Way::Plain), false).await));
    }
    play::report(scripts.len(), failures);
}

/// No operator's state stays in memory from one step to the next.
#[tokio::test(flavor = "multi_thread")]
async fn without_memory_for_state() {
    let (scripts, mut failures, mut files) = (script::all(), Vec::new(), 0);
    for (number, script) in scripts.iter().enumerate() {
        let folder = tempfile::tempdir().expect("a folder");
        let spill = Some(Spill { folder: folder.path().into(), state_bytes: 0 });
        let mut database = Embedded::with(Config { workers: 1 + number % 3, spill, ..Config::default() });
        let way = if number % 2 == 0 { Way::RowByRow } else { Way::RandomBatches(number as u64) };
        failures.push((script.name.clone(), play::play(&mut database, &ways::deal(script, way), false).await));
        files += std::fs::read_dir(folder.path()).expect("the folder").count();
    }
    assert!(files > scripts.len(), "only {files} files with state");
    play::report(scripts.len(), failures);
}

#[tokio::test(flavor = "multi_thread")]
async fn as_batches_too() {
    all(Way::Plain, 1, true).await;
}
