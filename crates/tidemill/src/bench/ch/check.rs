//! All views at once, compared with their queries while the transactions run.

use super::TABLES;
use super::population::{Scale, populate};
use crate::Failure;
use crate::bench::checked::{Checked, Verdict};
use crate::bench::suite::Query;

/// How often the transactions stop to compare.
const STOPS: usize = 5;

/// Loads, runs transactions, and compares.
pub async fn check(
    queries: &[Query],
    scale: Scale,
    seed: u64,
    transactions: usize,
    workers: usize,
) -> Result<Vec<Verdict>, Failure> {
    let mut checked = Checked::start(TABLES, queries, workers).await?;
    let (mut database, load) = populate(scale, seed);
    for statement in &load {
        checked.run(statement).await?;
    }
    checked.compare("the load").await?;
    for done in 1..=transactions {
        checked.run(&database.transaction().sql()).await?;
        if done * STOPS / transactions > (done - 1) * STOPS / transactions {
            checked.compare(&format!("transaction {done}")).await?;
        }
    }
    checked.finish()
}
