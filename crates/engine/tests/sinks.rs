//! Sinks through SQL: what they deliver, what they refuse, what is shown of them.

#![allow(clippy::disallowed_methods, reason = "tests wait and measure by the real clock")]

use std::path::Path;
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use tidemill_engine::{Config, Data, Engine, Response, Session, parse};
use tidemill_env::Env;

/// Runs statements; gives the rows of the last one as text, cells separated by `|`.
async fn run(session: &mut Session, sql: &str) -> Result<Vec<String>, String> {
    let mut rows = Vec::new();
    for statement in parse(sql).map_err(|e| e.to_string())? {
        let Response::Rows { batches, .. } = session.execute(&statement, &[]).await.map_err(|e| e.to_string())? else {
            continue;
        };
        rows.clear();
        for batch in batches {
            let columns: Vec<_> = batch.columns().iter().map(|c| cast(c, &DataType::Utf8).expect("text")).collect();
            let cell =
                |c: &dyn Array, row| if c.is_null(row) { "NULL" } else { c.as_string::<i32>().value(row) }.to_owned();
            let row = |row| columns.iter().map(|c| cell(c.as_ref(), row)).collect::<Vec<_>>().join("|");
            rows.extend((0..batch.num_rows()).map(row));
        }
    }
    Ok(rows)
}

fn engine() -> Engine {
    Engine::start(Config { workers: 2, ..Config::default() }, Env::real()).expect("the engine starts")
}

/// An engine on a data folder.
fn kept(data: &Path, checkpoint_every: Duration, history_bytes: usize) -> Engine {
    let data = Some(Data { checkpoint_every, ..Data::new(data) });
    let config = Config { workers: 2, history_bytes, data, ..Config::default() };
    Engine::start(config, Env::real()).expect("the engine starts")
}

/// A statement's SQLSTATE and message.
async fn refused(session: &mut Session, sql: &str) -> (String, String) {
    let statement = parse(sql).expect("it is understood").remove(0);
    let error = session.execute(&statement, &[]).await.err().unwrap_or_else(|| panic!("{sql} is not refused"));
    (error.code.to_string(), error.message)
}

/// Waits until `SHOW SINKS` has this state and so many rows of the sink. Gives the reason.
async fn shown(session: &mut Session, state: &str, rows: Option<u64>) -> String {
    let mut line = String::new();
    for _ in 0..1000 {
        line = run(session, "SHOW SINKS").await.expect("an answer").join("\n");
        let cells: Vec<&str> = line.splitn(5, '|').collect();
        if cells[1] == state && rows.is_none_or(|rows| cells[3] == rows.to_string()) {
            return cells[4].to_owned();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("SHOW SINKS: {line}, not {state} with {rows:?} rows");
}

/// The numbers `n` in a folder's files, in order.
fn numbers(folder: &Path) -> Vec<i64> {
    let number = |line: &String| {
        let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
        value["n"].as_i64().expect("a number")
    };
    lines(folder).iter().map(number).collect()
}

/// The lines of all files that a reader of the folder sees, in the files' order.
fn lines(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "ndjson")).collect();
    files.sort();
    files
        .iter()
        .flat_map(|f| std::fs::read_to_string(f).expect("text").lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

/// Waits until a query answers so.
async fn until(session: &mut Session, sql: &str, wanted: &[&str]) {
    let mut got = Vec::new();
    for _ in 0..1000 {
        got = run(session, sql).await.expect("an answer");
        if got == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let sinks = run(session, "SHOW SINKS").await;
    panic!("{sql}: {got:?}, not {wanted:?}; {sinks:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_has_each_change_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = engine();
    let mut session = engine.session();
    let path = folder.path().join("totals");
    let setup = "CREATE TABLE t (k text PRIMARY KEY, n bigint);
        CREATE MATERIALIZED VIEW v AS SELECT k, n * 2 AS n FROM t;
        INSERT INTO t VALUES ('a', 1), ('b', 2)";
    run(&mut session, setup).await.expect("runs");
    let create =
        format!("CREATE SINK s FROM v WITH (connector = 'file', path = '{}/', format = 'json')", path.display());
    run(&mut session, &create).await.expect("runs");
    run(&mut session, "UPDATE t SET n = 5 WHERE k = 'a'; DELETE FROM t WHERE k = 'b'").await.expect("runs");
    run(&mut session, "DROP SINK s").await.expect("runs");
    let sums = lines(&path).into_iter().fold(std::collections::BTreeMap::<String, i64>::new(), |mut sums, line| {
        let change: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        *sums.entry(format!("{}{}", change["k"], change["n"])).or_default() +=
            change["diff"].as_i64().expect("a number");
        sums
    });
    let left: Vec<_> = sums.into_iter().filter(|(_, n)| *n != 0).collect();
    assert_eq!(left, [("\"a\"10".to_owned(), 1)]);
    let error = run(&mut session, &create).await.expect_err("the files are in the way");
    assert!(error.contains("an earlier sink of this name"), "{error}");
    assert_eq!(run(&mut session, "SHOW SINKS").await.expect("runs"), Vec::<String>::new());
    engine.shutdown();
}

/// An engine whose journal is repeated from its beginning.
fn kept_in(folder: &Path) -> Engine {
    let data = Data { checkpoint_every: Duration::from_secs(3600), ..Data::new(folder) };
    Engine::start(Config { data: Some(data), ..Config::default() }, Env::real()).expect("the engine starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_sink_does_not_come_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, place) = (folder.path().join("data"), folder.path().join("place"));
    let create =
        format!("CREATE SINK s FROM t WITH (connector = 'file', path = '{}/', mode = 'append')", place.display());
    let engine = kept_in(&data);
    let mut session = engine.session();
    run(&mut session, "CREATE TABLE t (a int); INSERT INTO t VALUES (1)").await.expect("runs");
    run(&mut session, &create).await.expect("runs");
    run(&mut session, "INSERT INTO t VALUES (2); DROP SINK s").await.expect("runs");
    assert_eq!(lines(&place), ["{\"a\":1}", "{\"a\":2}"]);
    std::fs::remove_dir_all(&place).expect("the folder is removed");
    drop(session);
    engine.shutdown();

    let engine = kept_in(&data);
    let mut session = engine.session();
    run(&mut session, "INSERT INTO t VALUES (3)").await.expect("runs");
    std::thread::sleep(Duration::from_millis(300));
    assert!(!place.exists(), "the folder is back");
    // Another one of its name has the place to itself, before and after a restart.
    run(&mut session, &create).await.expect("runs");
    drop(session);
    engine.shutdown();
    for value in [4, 5, 6] {
        let engine = kept_in(&data);
        let mut session = engine.session();
        run(&mut session, &format!("INSERT INTO t VALUES ({value})")).await.expect("runs");
        drop(session);
        engine.shutdown();
    }
    let engine = kept_in(&data);
    run(&mut engine.session(), "DROP SINK s").await.expect("runs");
    assert_eq!(lines(&place), [1, 2, 3, 4, 5, 6].map(|a| format!("{{\"a\":{a}}}")));
    engine.shutdown();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_webhook_fills_its_table_and_holds_nothing_up() {
    let engine = engine();
    let mut session = engine.session();
    let setup = "CREATE TABLE t (k text, n bigint);
        CREATE SINK s AS SELECT k, 10 / n AS n FROM t
            WITH (connector = 'webhook', url = 'http://127.0.0.1:1/', secret = 'hid''den', retry_for = '0 seconds');
        CREATE MATERIALIZED VIEW refused AS SELECT count(*) AS n, max(attempts) AS most FROM \"s$rejected\";
        INSERT INTO t VALUES ('a', 1), ('b', 2), ('c', 0)";
    run(&mut session, setup).await.expect("runs");
    let told = "SELECT diff, row, attempts FROM \"s$rejected\" ORDER BY row";
    until(&mut session, told, &["1|{\"k\":\"a\",\"n\":10}|1", "1|{\"k\":\"b\",\"n\":5}|1"]).await;
    assert_eq!(run(&mut session, "SELECT n, most FROM refused").await.expect("runs"), ["2|1"]);
    let reasons = run(&mut session, "SELECT DISTINCT reason FROM \"s$rejected\"").await.expect("runs");
    assert!(reasons.len() == 1 && reasons[0].starts_with("given up after 0 s"), "{reasons:?}");
    assert_eq!(run(&mut session, "SELECT message FROM \"s$errors\"").await.expect("runs"), ["division by zero"]);
    let shown = run(&mut session, "SHOW CREATE SINK s").await.expect("runs");
    assert!(shown[0].contains("secret = '***'") && !shown[0].contains("den'"), "{shown:?}");
    assert!(engine.status().sinks.iter().all(|s| !s.sql.contains("hid")));
    run(&mut session, "DROP SINK s CASCADE").await.expect("runs");
    let error = run(&mut session, "SELECT * FROM \"s$rejected\"").await.expect_err("it is gone");
    assert!(error.contains("does not exist"), "{error}");
    engine.shutdown();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_waits_for_its_destination_says_so() {
    let engine = engine();
    let mut session = engine.session();
    let setup = "CREATE TABLE t (k text);
        CREATE SINK s FROM t WITH (connector = 'webhook', url = 'http://127.0.0.1:1/', retry_for = '1 hour');
        INSERT INTO t VALUES ('a')";
    run(&mut session, setup).await.expect("runs");
    let mut shown = Vec::new();
    for _ in 0..1000 {
        shown = run(&mut session, "SHOW SINKS").await.expect("runs");
        if shown[0].starts_with("s|retrying|0|0|") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(shown[0].contains("refused"), "{shown:?}");
    for _ in 0..10 {
        run(&mut session, "INSERT INTO t VALUES ('b')").await.expect("the table goes on");
    }
    // Neither the drop nor the end waits for the hour.
    run(&mut session, "DROP SINK s").await.expect("runs");
    let create = "CREATE SINK s FROM t WITH (connector = 'webhook', url = 'http://127.0.0.1:1/')";
    run(&mut session, create).await.expect("runs");
    engine.shutdown();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_destination_is_told_at_once() {
    let engine = engine();
    let mut session = engine.session();
    run(&mut session, "CREATE TABLE t (k text)").await.expect("runs");
    for (options, told) in [
        ("connector = 'file', path = '/proc/nowhere/'", "/proc/nowhere"),
        (
            "connector = 'postgres', url = 'postgres://u:hidden@127.0.0.1:1/d', table = 't', primary_key = 'k'",
            "refused",
        ),
        (
            "connector = 'postgres', url = 'postgres://u:hidden@127.0.0.1:1/d', table = 't', mode = 'append'",
            "takes rows back",
        ),
        ("connector = 'webhook', url = 'http://u:hidden@h/'", "token"),
    ] {
        let error = run(&mut session, &format!("CREATE SINK s FROM t WITH ({options})")).await.expect_err(options);
        assert!(error.contains(told) && !error.contains("hidden"), "{error}");
    }
    assert_eq!(run(&mut session, "SHOW SINKS").await.expect("runs"), Vec::<String>::new());
    engine.shutdown();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_has_stopped_goes_on_where_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, path, away) = (folder.path().join("data"), folder.path().join("out"), folder.path().join("away"));
    let create =
        format!("CREATE SINK s FROM t WITH (connector = 'file', path = '{}/', format = 'json')", path.display());
    let take_away = || std::fs::rename(&path, &away).expect("renamed");
    let put_back = || {
        // What a start has made meanwhile.
        std::fs::remove_dir_all(&path).unwrap_or_default();
        std::fs::rename(&away, &path).expect("renamed");
    };

    let engine = kept(&data, Duration::from_millis(10), 64 << 20);
    let mut session = engine.session();
    run(&mut session, "CREATE TABLE t (n bigint)").await.expect("runs");
    run(&mut session, &create).await.expect("runs");
    run(&mut session, "INSERT INTO t VALUES (1)").await.expect("runs");
    shown(&mut session, "running", Some(1)).await;
    let (code, message) = refused(&mut session, "ALTER SINK s RESUME").await;
    assert_eq!((code.as_str(), message.as_str()), ("55000", "sink s has not stopped"));
    let (code, message) = refused(&mut session, "ALTER SINK t RESUME").await;
    assert_eq!((code.as_str(), message.as_str()), ("42P01", "sink \"t\" does not exist"));

    take_away();
    run(&mut session, "INSERT INTO t VALUES (2)").await.expect("the table goes on");
    shown(&mut session, "stopped", Some(1)).await;
    run(&mut session, "INSERT INTO t VALUES (3)").await.expect("the table goes on");
    let (code, message) = refused(&mut session, "ALTER SINK s RESUME").await;
    assert!(code == "58000" && message.contains("is missing, so what the folder has cannot be known"), "{message}");
    assert!(shown(&mut session, "stopped", Some(1)).await.contains("No such file"));
    put_back();
    run(&mut session, "ALTER SINK s RESUME").await.expect("it goes on");
    run(&mut session, "INSERT INTO t VALUES (4)").await.expect("runs");
    shown(&mut session, "running", Some(4)).await;
    assert_eq!(numbers(&path), [1, 2, 3, 4]);

    // And with a restart between the two.
    take_away();
    run(&mut session, "INSERT INTO t VALUES (5)").await.expect("runs");
    shown(&mut session, "stopped", Some(4)).await;
    drop(session);
    engine.shutdown();
    let engine = kept(&data, Duration::from_millis(10), 64 << 20);
    let mut session = engine.session();
    shown(&mut session, "stopped", Some(0)).await;
    run(&mut session, "INSERT INTO t VALUES (6)").await.expect("runs");
    put_back();
    run(&mut session, "ALTER SINK s RESUME").await.expect("it goes on");
    run(&mut session, "INSERT INTO t VALUES (7)").await.expect("runs");
    shown(&mut session, "running", Some(3)).await;
    assert_eq!(numbers(&path), [1, 2, 3, 4, 5, 6, 7]);

    // It can be dropped when it has stopped, too.
    take_away();
    run(&mut session, "INSERT INTO t VALUES (8)").await.expect("runs");
    shown(&mut session, "stopped", Some(3)).await;
    run(&mut session, "DROP SINK s").await.expect("runs");
    assert_eq!(run(&mut session, "SHOW SINKS").await.expect("runs"), Vec::<String>::new());
    let (code, _) = refused(&mut session, "ALTER SINK s RESUME").await;
    assert_eq!(code, "42P01");
    drop(session);
    engine.shutdown();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_fell_behind_goes_on_as_long_as_its_changes_are_kept() {
    let hour = Duration::from_secs(3600);
    let create = |path: &Path| {
        format!("CREATE SINK s FROM t WITH (connector = 'file', path = '{}/', format = 'json')", path.display())
    };
    // More than may wait for a sink.
    let fall_behind = "UPDATE t SET filler = repeat('x', 20000000) WHERE n = 1;
         UPDATE t SET filler = repeat('y', 20000000) WHERE n = 1;
         UPDATE t SET filler = repeat('z', 20000000) WHERE n = 1;
         UPDATE t SET filler = '' WHERE n = 1";
    for history_bytes in [512 << 20, 32 << 20] {
        let folder = tempfile::tempdir().expect("a folder");
        let (data, path, away) = (folder.path().join("data"), folder.path().join("out"), folder.path().join("away"));
        let engine = kept(&data, Duration::from_millis(10), history_bytes);
        let mut session = engine.session();
        run(&mut session, "CREATE TABLE t (n bigint PRIMARY KEY, filler text); INSERT INTO t VALUES (1, 'a')")
            .await
            .expect("runs");
        run(&mut session, &create(&path)).await.expect("runs");
        shown(&mut session, "running", Some(1)).await;
        std::fs::rename(&path, &away).expect("renamed");
        run(&mut session, fall_behind).await.expect("the table goes on");
        run(&mut session, "INSERT INTO t VALUES (2, '')").await.expect("the table goes on");
        assert!(shown(&mut session, "stopped", Some(1)).await.contains("fell behind by more than 64 MiB"));
        // A checkpoint that knows of it.
        let seen = engine.status().durability.map_or(0, |d| d.checkpoints);
        while engine.status().durability.map_or(0, |d| d.checkpoints) < seen + 2 {
            run(&mut session, "INSERT INTO t VALUES (3, ''); DELETE FROM t WHERE n = 3").await.expect("runs");
        }
        drop(session);
        engine.shutdown();

        let engine = kept(&data, hour, history_bytes);
        let mut session = engine.session();
        std::fs::remove_dir_all(&path).unwrap_or_default();
        std::fs::rename(&away, &path).expect("renamed");
        // It does not go on by itself.
        assert!(shown(&mut session, "stopped", Some(0)).await.contains("fell behind by more than 64 MiB"));
        if history_bytes < 64 << 20 {
            let (code, message) = refused(&mut session, "ALTER SINK s RESUME").await;
            assert!(code == "55000" && message.contains("are not kept any more"), "{message}");
            engine.shutdown();
            continue;
        }
        run(&mut session, "ALTER SINK s RESUME").await.expect("it goes on");
        run(&mut session, "INSERT INTO t VALUES (4, '')").await.expect("runs");
        shown(&mut session, "running", None).await;
        drop(session);
        engine.shutdown();

        // The last checkpoint has it stopped; the journal has that it was resumed.
        let engine = kept(&data, hour, history_bytes);
        let mut session = engine.session();
        shown(&mut session, "running", None).await;
        run(&mut session, "INSERT INTO t VALUES (5, '')").await.expect("runs");
        let wanted = |lines: &[String]| lines.iter().any(|line| line.contains("\"n\":5"));
        for _ in 0..1000 {
            if wanted(&lines(&path)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drop(session);
        engine.shutdown();
        let mut sums = std::collections::BTreeMap::<(i64, String), i64>::new();
        for line in lines(&path) {
            let change: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            let filler: String = change["filler"].as_str().expect("text").chars().take(1).collect();
            let row = (change["n"].as_i64().expect("a number"), filler);
            *sums.entry(row).or_default() += change["diff"].as_i64().expect("a number");
        }
        let left: Vec<_> = sums.into_iter().filter(|(_, sum)| *sum != 0).map(|((n, _), sum)| (n, sum)).collect();
        assert_eq!(left, [(1, 1), (2, 1), (4, 1), (5, 1)]);
    }
}
