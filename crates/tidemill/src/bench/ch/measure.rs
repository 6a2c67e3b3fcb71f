//! Some of the views in an engine, and what the transactions cost beside them.

use serde_json::{Value, json};
use tidemill_engine::{Config, Engine, Session};
use tidemill_env::Env;

use super::TABLES;
use super::population::{Database, Scale, populate};
use super::transactions::KINDS;
use crate::Failure;
use crate::bench::query::run;
use crate::bench::suite::{Query, SIZES};
use crate::bench::timer::{Cost, Timer, micros_each};

/// Measures transactions beside the views of some queries.
pub async fn measure(
    queries: &[Query],
    scale: Scale,
    seed: u64,
    transactions: usize,
    workers: usize,
) -> Result<Value, Failure> {
    let engine = Engine::start(Config { workers, ..Config::default() }, Env::real())?;
    let mut session = engine.session();
    run(&mut session, TABLES).await?;
    for query in queries {
        run(&mut session, &query.create()).await?;
    }
    let (mut database, load) = populate(scale, seed);
    for statement in load {
        run(&mut session, &statement).await?;
    }
    let epochs = engine.status().epochs_with_rows;
    let mut said = transact(&mut session, &mut database, transactions).await?;
    said["epochs"] = (engine.status().epochs_with_rows - epochs).into();
    tokio::time::sleep(SIZES).await;
    // An epoch after which sizes are known.
    run(&mut session, &database.transaction().sql()).await?;
    let (mut bytes, mut rows, mut recomputations) = (0, 0, 0);
    for query in queries {
        let view = query.view(&engine)?;
        bytes += view.bytes;
        rows += view.rows;
        recomputations += view.recomputations;
    }
    said["state_bytes"] = bytes.into();
    said["view_rows"] = rows.into();
    said["recomputations"] = recomputations.into();
    engine.shutdown();
    Ok(said)
}

/// Runs transactions one after the other, each until readers see it.
async fn transact(session: &mut Session, database: &mut Database, transactions: usize) -> Result<Value, Failure> {
    let mut kinds = [(Cost::default(), 0); KINDS.len()];
    for _ in 0..transactions {
        let transaction = database.transaction();
        let (sql, (cost, count)) = (transaction.sql(), &mut kinds[transaction.kind as usize]);
        let mut timer = Timer::start();
        run(session, &sql).await?;
        timer.note(cost);
        *count += 1;
    }
    let all = kinds.iter().fold(Cost::default(), |all, (cost, _)| all.and(*cost));
    let mut said = json!({
        "transactions": transactions,
        "seconds": all.wall.as_secs_f64(),
        "transactions_per_second": transactions as f64 / all.wall.as_secs_f64(),
        "cpu_micros": { "mean": micros_each(all.cpu, transactions) },
    });
    for (kind, (cost, count)) in KINDS.iter().zip(kinds) {
        said["cpu_micros"][kind.name()] = micros_each(cost.cpu, count).into();
    }
    Ok(said)
}
