//! Money is neither made nor lost: transfers between accounts, and what readers see of them at every epoch.
//!
//! Each transfer is a credit of one account and a debit of another, so that all balances together are 0 at any moment at which all
//! views have seen the same transfers. Views on views, outer joins and an aggregate without groups lead to that sum; one that
//! is an epoch ahead of another shows. Subscriptions, snapshots and a file sink watch while transfers come in random batches, are
//! changed and are taken back, with four workers.
//! (After Jamie Brandon, "Internal consistency in streaming systems", 2021.)
//!
//! `TIDEMILL_TRANSFERS` says how many transfers there are (20,000 unless told).

#![allow(clippy::print_stdout, reason = "long runs say how far they are")]

#[path = "slt/random.rs"]
mod random;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use random::Random;
use tidemill_engine::{Change, Config, Engine, Response, Session, SubscribeFrom, Subscription, parse};
use tidemill_env::Env;

const ACCOUNTS: usize = 500;
const WORKERS: usize = 4;
/// So few that a large batch takes several epochs.
const EPOCH_ROWS: usize = 2_000;
/// Statements that change or delete transfers; each reads the whole table.
const STATEMENTS: usize = 30;

const VIEWS: [&str; 9] = [
    "CREATE TABLE transfers (id bigint PRIMARY KEY, source int NOT NULL, target int NOT NULL, amount bigint NOT NULL, at timestamp)",
    "CREATE MATERIALIZED VIEW credits AS SELECT target AS account, sum(amount) AS credit FROM transfers GROUP BY target",
    "CREATE MATERIALIZED VIEW debits AS SELECT source AS account, sum(amount) AS debit FROM transfers GROUP BY source",
    "CREATE MATERIALIZED VIEW balances AS
     SELECT coalesce(c.account, d.account) AS account, coalesce(credit, 0) - coalesce(debit, 0) AS balance
     FROM credits c FULL JOIN debits d ON c.account = d.account",
    "CREATE MATERIALIZED VIEW total AS SELECT coalesce(sum(balance), 0) AS total FROM balances",
    "CREATE MATERIALIZED VIEW volume AS SELECT coalesce(sum(amount), 0) AS volume, count(*) AS transfers FROM transfers",
    "CREATE MATERIALIZED VIEW matched AS
     SELECT t.id, o.id AS other, t.amount - o.amount AS difference FROM transfers t LEFT JOIN transfers o ON o.id = t.id",
    "CREATE MATERIALIZED VIEW unmatched AS
     SELECT count(*) FILTER (WHERE other IS NULL OR difference <> 0) AS unmatched, count(*) AS transfers FROM matched",
    "CREATE MATERIALIZED VIEW flow AS
     SELECT (SELECT coalesce(sum(credit), 0) FROM credits) - (SELECT coalesce(sum(debit), 0) FROM debits) AS difference",
];

/// What a subscription has seen: at each epoch with a change, one number.
type Series = BTreeMap<u64, i64>;

fn transfers() -> usize {
    std::env::var("TIDEMILL_TRANSFERS").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000)
}

async fn run(session: &mut Session, sql: &str) -> Vec<RecordBatch> {
    let mut rows = Vec::new();
    for statement in parse(sql).expect("SQL") {
        loop {
            match session.execute(&statement, &[]).await {
                Ok(Response::Rows { batches, .. }) => rows = batches,
                Ok(_) => {}
                // Rows that came in meanwhile took the place of those it read.
                Err(error) if error.code == "40001" => continue,
                Err(error) => panic!("{sql}: {} {}", error.code, error.message),
            }
            break;
        }
    }
    rows
}

/// A column as whole numbers.
fn numbers(rows: &RecordBatch, column: usize) -> Int64Array {
    let column = cast(rows.column(column), &DataType::Int64).expect("numbers");
    column.as_primitive::<Int64Type>().clone()
}

/// The changes of a column's sum.
fn change_of(change: &Change, column: usize) -> i64 {
    let values = numbers(&change.delta.rows, column);
    assert_eq!(values.null_count(), 0, "a sum of nothing");
    (0..values.len()).map(|i| values.value(i) * change.delta.weight(i)).sum()
}

/// Follows a view to an epoch; the sum of a column at each epoch.
async fn follow(mut subscription: Subscription, column: usize, done: Arc<AtomicBool>) -> Series {
    let (mut series, mut sum) = (Series::new(), 0);
    loop {
        let last = done.load(Ordering::Acquire);
        while let Some(change) = subscription.poll_now().expect("the subscription keeps up") {
            sum += change_of(&change, column);
            let before = series.insert(change.epoch, sum);
            assert!(before.is_none(), "epoch {} came twice", change.epoch);
        }
        if last {
            return series;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

/// Follows the balances: one per account, and at each epoch they are 0 together.
async fn follow_balances(mut subscription: Subscription, done: Arc<AtomicBool>) -> usize {
    let (mut balances, mut epochs): (BTreeMap<i64, BTreeMap<i64, i64>>, usize) = (BTreeMap::new(), 0);
    loop {
        let last = done.load(Ordering::Acquire);
        while let Some(change) = subscription.poll_now().expect("the subscription keeps up") {
            let (accounts, values) = (numbers(&change.delta.rows, 0), numbers(&change.delta.rows, 1));
            for i in 0..accounts.len() {
                let of_account = balances.entry(accounts.value(i)).or_default();
                let count = of_account.entry(values.value(i)).or_default();
                *count += change.delta.weight(i);
                of_account.retain(|_, count| *count != 0);
            }
            balances.retain(|_, of_account| !of_account.is_empty());
            let single = balances.values().all(|of_account| of_account.values().eq([&1]));
            assert!(single, "epoch {}: an account has two balances", change.epoch);
            let sum: i64 = balances.values().flat_map(|of_account| of_account.keys()).sum();
            assert_eq!(sum, 0, "epoch {}: the balances are not 0 together", change.epoch);
            epochs += 1;
        }
        if last {
            return epochs;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

/// Asks for several views in one statement again and again; all must be of the same moment.
async fn ask(mut session: Session, done: Arc<AtomicBool>) -> usize {
    let mut snapshots = 0;
    while !done.load(Ordering::Acquire) {
        let rows = run(
            &mut session,
            "SELECT (SELECT coalesce(sum(balance), 0) FROM balances), (SELECT total FROM total),
                    (SELECT coalesce(sum(credit), 0) FROM credits) - (SELECT volume FROM volume),
                    (SELECT coalesce(sum(debit), 0) FROM debits) - (SELECT volume FROM volume),
                    (SELECT difference FROM flow), (SELECT unmatched FROM unmatched),
                    (SELECT transfers FROM unmatched) - (SELECT transfers FROM volume)",
        )
        .await;
        let row: Vec<i64> = (0..7).map(|column| numbers(&rows[0], column).value(0)).collect();
        assert_eq!(row, [0; 7], "snapshot {snapshots}: views are of different moments");
        snapshots += 1;
    }
    snapshots
}

/// A batch of transfers: new ones, and some in the place of old ones.
fn batch(random: &mut Random, next: &mut usize, len: usize) -> RecordBatch {
    let mut ids: Vec<i64> = Vec::with_capacity(len);
    for _ in 0..len {
        let old = *next > 0 && random.below(10) == 0;
        let id = if old { random.below(*next) } else { *next };
        *next += usize::from(!old);
        if !ids.contains(&(id as i64)) {
            ids.push(id as i64);
        }
    }
    let len = ids.len();
    let accounts = |random: &mut Random| -> ArrayRef {
        Arc::new(Int32Array::from_iter_values((0..len).map(|_| random.below(ACCOUNTS) as i32)))
    };
    let (source, target) = (accounts(random), accounts(random));
    let amount: ArrayRef = Arc::new(Int64Array::from_iter_values((0..len).map(|_| random.below(1000) as i64)));
    let at: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(ids.iter().map(|id| id * 1000)));
    let ids: ArrayRef = Arc::new(Int64Array::from(ids));
    RecordBatch::try_from_iter([("id", ids), ("source", source), ("target", target), ("amount", amount), ("at", at)])
        .expect("columns of one length")
}

/// Puts all transfers in, in batches between one row and some thousands, and changes and deletes some.
async fn feed(engine: &Engine, wanted: usize) -> u64 {
    let random = &mut Random::new(4);
    let mut session = engine.session();
    let table = engine.relation("transfers").expect("the table");
    let (mut next, mut sent, mut statements) = (0, 0, 0);
    while next < wanted {
        let largest = [3, 50, 1000, 1 + wanted / 100][random.below(4)];
        let len = 1 + random.below(largest);
        let rows = batch(random, &mut next, len);
        sent += rows.num_rows() as u64;
        let wait = random.below(3) == 0;
        engine.ingest(&table, &[0, 1, 2, 3, 4], vec![rows], Vec::new(), wait).await.expect("rows go in");
        if next * STATEMENTS / wanted > statements {
            statements += 1;
            let (from, len) = (random.below(next), random.below(wanted / 200 + 2));
            let rows = format!("id BETWEEN {from} AND {}", from + len);
            let sql = match statements % 3 {
                0 => format!("UPDATE transfers SET amount = amount + 7 WHERE {rows}"),
                1 => format!("UPDATE transfers SET source = target, target = source WHERE {rows}"),
                _ => format!("DELETE FROM transfers WHERE {rows}"),
            };
            run(&mut session, &sql).await;
        }
    }
    // What is in flight comes to its end.
    run(&mut session, "DELETE FROM transfers WHERE id = 0").await;
    sent
}

/// What the sink has written: at each epoch the changes of all balances are 0 together.
fn check_file(path: &Path) -> usize {
    let text = std::fs::read_to_string(path).expect("the sink has written its file");
    let mut epochs: BTreeMap<u64, i64> = BTreeMap::new();
    let mut last = 0;
    for line in text.lines() {
        let change: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        let number = |name: &str| change[name].as_i64().expect("a number");
        let epoch = number("epoch") as u64;
        assert!(epoch >= last, "epoch {epoch} comes after {last}");
        last = epoch;
        *epochs.entry(epoch).or_default() += number("diff") * number("balance");
    }
    let wrong: Vec<_> = epochs.iter().filter(|(_, sum)| **sum != 0).take(5).collect();
    assert!(wrong.is_empty(), "the sink has seen balances that are not 0 together: {wrong:?}");
    epochs.len()
}

/// At every epoch of either series both have the same value.
fn agree(one: &Series, other: &Series, what: &str) {
    let at = |series: &Series, epoch: u64| series.range(..=epoch).next_back().map_or(0, |(_, value)| *value);
    for epoch in one.keys().chain(other.keys()) {
        assert_eq!(at(one, *epoch), at(other, *epoch), "epoch {epoch}: {what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::disallowed_methods, reason = "says how long it took")]
async fn balances_are_zero_together_at_every_epoch() {
    let (wanted, began) = (transfers(), Instant::now());
    let config = Config { workers: WORKERS, max_epoch_rows: EPOCH_ROWS, ..Config::default() };
    let engine = Engine::start(config, Env::real()).expect("the engine starts");
    let mut session = engine.session();
    for sql in VIEWS {
        run(&mut session, sql).await;
    }
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("balances.json");
    let _ = std::fs::remove_file(&path);
    run(
        &mut session,
        &format!("CREATE SINK file FROM balances WITH (connector = 'file', path = '{}')", path.display()),
    )
    .await;

    let done = Arc::new(AtomicBool::new(false));
    let series = |view: &str, column: usize| {
        let subscription = engine.subscribe(view, SubscribeFrom::Snapshot).expect("a subscription");
        tokio::spawn(follow(subscription, column, done.clone()))
    };
    let zeros = [series("total", 0), series("flow", 0), series("unmatched", 0)];
    let (credits, debits, volume) = (series("credits", 1), series("debits", 1), series("volume", 0));
    let balances = engine.subscribe("balances", SubscribeFrom::Snapshot).expect("a subscription");
    let balances = tokio::spawn(follow_balances(balances, done.clone()));
    let asked = tokio::spawn(ask(engine.session(), done.clone()));

    let sent = feed(&engine, wanted).await;
    done.store(true, Ordering::Release);

    let epochs = balances.await.expect("balances are right");
    for zero in zeros {
        let wrong = zero.await.expect("the series is read").into_iter().find(|(_, value)| *value != 0);
        assert_eq!(wrong, None, "a number that is 0 at every epoch is not");
    }
    let (credits, debits) = (credits.await.expect("credits"), debits.await.expect("debits"));
    let volume = volume.await.expect("the volume");
    agree(&credits, &debits, "credits are not debits");
    agree(&credits, &volume, "credits are not the transfers' sum");
    let snapshots = asked.await.expect("snapshots are right");
    engine.shutdown();
    let written = check_file(&path);
    println!(
        "{wanted} transfers ({sent} rows sent): {epochs} epochs watched by subscribers, {snapshots} snapshots, \
         {written} epochs in the file, {:.1} s",
        began.elapsed().as_secs_f64()
    );
    assert!(epochs > 20 && written > 20 && snapshots > 1, "too little was watched");
}
