//! The PostgreSQL sink against a real server.
//!
//! `TIDEMILL_POSTGRES` is how to connect, as in `host=127.0.0.1 port=5433 user=postgres dbname=postgres`; `tests/run-postgres`
//! starts a server and sets it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, ListArray,
    RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};
use tidemill_connect::{Opening, Sink, SinkError, create_sink};
use tidemill_delta::{Delta, Epoch};
use tidemill_env::Env;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Client, Config, NoTls};

/// The server, as a client that looks on sees it.
struct Server {
    runtime: Runtime,
    client: Client,
    options: Vec<(String, String)>,
    /// One test at a time, as connections are cut without asking whose they are.
    _alone: MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());

impl Server {
    /// With an empty schema of the test's own in front of the others.
    fn new(test: &str) -> Server {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let address = std::env::var("TIDEMILL_POSTGRES").expect("TIDEMILL_POSTGRES says where PostgreSQL is");
        let config: Config = address.parse().expect("an address");
        let tokio_postgres::config::Host::Tcp(host) = &config.get_hosts()[0] else { panic!("a host") };
        let (user, dbname) = (config.get_user().expect("a user"), config.get_dbname().expect("a database"));
        let url = format!(
            "postgres://{user}:hidden@{host}:{}/{dbname}?options=-c%20search_path%3D{test}",
            config.get_ports()[0]
        );
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let client = runtime.block_on(async {
            let (client, connection) = config.connect(NoTls).await.expect("connected");
            tokio::spawn(connection);
            client
        });
        let options = vec![("connector".to_owned(), "postgres".to_owned()), ("url".to_owned(), url)];
        let server = Server { runtime, client, options, _alone: alone };
        server.run(&format!("DROP SCHEMA IF EXISTS {test} CASCADE; CREATE SCHEMA {test}; SET search_path = {test}"));
        server
    }

    fn run(&self, sql: &str) {
        self.runtime.block_on(self.client.batch_execute(sql)).unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }

    /// The rows of a query, their cells as text, separated by `|`.
    fn ask(&self, sql: &str) -> Vec<String> {
        let messages = self.runtime.block_on(self.client.simple_query(sql)).unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        let row = |message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|i| row.get(i).unwrap_or("NULL").to_owned()).collect::<Vec<_>>().join("|"))
            }
            _ => None,
        };
        messages.into_iter().filter_map(row).collect()
    }

    fn sink(&self, name: &str, pairs: &[(&str, &str)], schema: &SchemaRef) -> Result<Box<dyn Sink>, SinkError> {
        let mut options = self.options.clone();
        options.extend(pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())));
        create_sink(name, &options, schema, !pairs.iter().any(|(k, _)| *k == "primary_key"), &Env::real())
    }

    /// Ends all connections of sinks.
    fn cut(&self) {
        self.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tidemill'");
    }
}

fn opening(incarnation: u64, created: bool) -> Opening {
    Opening { incarnation, created }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("v", DataType::Utf8, true)]))
}

fn changes(rows: &[(i64, &str, i64)]) -> Delta {
    let k = Int64Array::from_iter_values(rows.iter().map(|r| r.0));
    let v = StringArray::from_iter_values(rows.iter().map(|r| r.1));
    let batch = RecordBatch::try_new(schema(), vec![Arc::new(k), Arc::new(v)]).expect("valid");
    Delta::new(batch, Int64Array::from_iter_values(rows.iter().map(|r| r.2)))
}

/// Tries again while that may help, as the engine does.
fn commit(sink: &mut dyn Sink, epoch: Epoch) -> Result<usize, SinkError> {
    let mut tries = 0;
    loop {
        match sink.commit(epoch) {
            Ok(()) => return Ok(tries),
            Err(SinkError::Retry { .. }) if tries < 20 => tries += 1,
            Err(error) => return Err(error),
        }
        std::thread::park_timeout(std::time::Duration::from_millis(50));
    }
}

#[test]
#[ignore = "needs a PostgreSQL server: tests/run-postgres starts one"]
fn rows_are_appended_once() {
    let server = Server::new("appended");
    server.run("CREATE TABLE \"T x\" (k bigint, v text)");
    let options = [("table", "T x")];
    let mut sink = server.sink("s", &options, &schema()).expect("valid");
    assert_eq!(sink.open(opening(1, true)), Ok(None));
    sink.write(3, &changes(&[(1, "a\tb\\\n", 2), (2, "", 1)])).expect("written");
    sink.write(4, &changes(&[(3, "é", 1)])).expect("written");
    commit(sink.as_mut(), 4).expect("committed");
    let rows = ["1|a\tb\\\n", "1|a\tb\\\n", "2|", "3|é"];
    assert_eq!(server.ask("SELECT * FROM \"T x\" ORDER BY k"), rows);
    assert_eq!(server.ask("SELECT * FROM tidemill_sinks"), ["s|1|4"]);
    // A commit whose answer was lost is made again, and is there already.
    sink.write(4, &changes(&[(3, "é", 1)])).expect("written");
    commit(sink.as_mut(), 4).expect("nothing to do");
    assert_eq!(server.ask("SELECT count(*) FROM \"T x\""), ["4"]);

    // The next incarnation takes over; this one can do nothing any more.
    sink.write(5, &changes(&[(4, "old", 1)])).expect("written");
    let mut next = server.sink("s", &options, &schema()).expect("valid");
    assert_eq!(next.open(opening(2, false)), Ok(Some(4)));
    assert_eq!(sink.commit(5), Err(SinkError::fenced(1, 2)));
    next.write(5, &changes(&[(4, "new", 1)])).expect("written");
    commit(next.as_mut(), 5).expect("committed");
    assert_eq!(server.ask("SELECT v FROM \"T x\" WHERE k = 4"), ["new"]);
    let error = server.sink("s", &options, &schema()).expect("valid").open(opening(1, false));
    assert_eq!(error, Err(SinkError::fenced(1, 2)));
    let error = server.sink("s", &options, &schema()).expect("valid").open(opening(3, true)).expect_err("taken");
    assert!(error.to_string().contains("an earlier sink \"s\""), "{error}");
    sink.forget().expect("it is not its own");
    assert_eq!(server.ask("SELECT * FROM tidemill_sinks"), ["s|2|5"]);
    next.forget().expect("forgotten");
    assert!(server.ask("SELECT * FROM tidemill_sinks").is_empty());
    let error = server.sink("s", &options, &schema()).expect("valid").open(opening(3, false)).expect_err("unknown");
    assert!(error.to_string().contains("does not know the sink"), "{error}");
}

#[test]
#[ignore = "needs a PostgreSQL server: tests/run-postgres starts one"]
fn a_table_follows_its_view_through_cut_connections() {
    let server = Server::new("followed");
    server.run("CREATE TABLE t (v text, \"K k\" bigint PRIMARY KEY, n integer DEFAULT 7)");
    let schema =
        Arc::new(Schema::new(vec![Field::new("K k", DataType::Int64, true), Field::new("v", DataType::Utf8, true)]));
    let options = [("table", "t"), ("primary_key", "K k"), ("schema", "followed")];
    let (mut incarnation, mut failures) = (1, 0);
    let mut sink = server.sink("s", &options, &schema).expect("valid");
    assert_eq!(sink.open(opening(1, true)), Ok(None));
    let (mut view, mut seed) = (BTreeMap::<i64, String>::new(), 7u64);
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for epoch in 1..=150 {
        let mut rows: Vec<(i64, String, i64)> = Vec::new();
        for _ in 0..=random(4) {
            let key = random(12) as i64;
            if rows.iter().any(|r| r.0 == key) {
                continue;
            }
            rows.extend(view.remove(&key).map(|old| (key, old, -1)));
            if random(3) > 0 {
                let new = format!("{epoch}");
                rows.push((key, new.clone(), 1));
                view.insert(key, new);
            }
        }
        let delta = changes(&rows.iter().map(|(k, v, d)| (*k, v.as_str(), *d)).collect::<Vec<_>>());
        let delta = delta.with_columns(schema.clone(), delta.rows.columns().to_vec());
        sink.write(epoch, &delta).expect("written");
        match random(10) {
            0 => server.cut(),
            // The commit is cut off while it waits for a lock.
            1 => {
                server.run("BEGIN; LOCK TABLE t");
                std::thread::scope(|scope| {
                    let blocked = scope.spawn(|| sink.commit(epoch));
                    let waits = "SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND NOT granted";
                    while server.ask(waits) == ["0"] && !blocked.is_finished() {}
                    server.cut();
                    if blocked.join().expect("no panic").is_err() {
                        failures += 1;
                    }
                });
                server.run("COMMIT");
            }
            // The server starts again.
            2 => {
                commit(sink.as_mut(), epoch).expect("committed");
                incarnation += 1;
                sink = server.sink("s", &options, &schema).expect("valid");
                assert_eq!(sink.open(opening(incarnation, false)), Ok(Some(epoch)));
                continue;
            }
            3.. => {}
        }
        failures += commit(sink.as_mut(), epoch).expect("committed");
        let rows = server.ask("SELECT \"K k\", v, n FROM t ORDER BY 1");
        let wanted: Vec<String> = view.iter().map(|(k, v)| format!("{k}|{v}|7")).collect();
        assert_eq!(rows, wanted, "epoch {epoch}");
    }
    assert!(failures > 10 && incarnation > 5, "too little happened: {failures}, {incarnation}");
}

#[test]
#[ignore = "needs a PostgreSQL server: tests/run-postgres starts one"]
fn mistakes_are_told_when_the_sink_is_made() {
    let server = Server::new("mistaken");
    server.run("CREATE TABLE t (k bigint, v text NOT NULL); CREATE TABLE w (k bigint)");
    let open = |pairs: &[(&str, &str)]| {
        let mut sink = server.sink("s", pairs, &schema()).expect("valid");
        sink.open(opening(1, true)).expect_err("refused")
    };
    let told = |error: SinkError, what: &str| {
        assert!(matches!(error, SinkError::Fatal(_)) && error.to_string().contains(what), "{error:?}");
        assert!(!error.to_string().contains("hidden"), "{error}");
    };
    told(open(&[("table", "nowhere")]), "relation \"nowhere\" does not exist");
    told(open(&[("table", "w")]), "column \"v\" does not exist");
    told(open(&[("table", "t"), ("primary_key", "k")]), "no unique or exclusion constraint");
    let mut sink = server.sink("s", &[("table", "t")], &schema()).expect("valid");
    assert_eq!(sink.open(opening(1, true)), Ok(None));
    server.run("ALTER TABLE t ALTER v TYPE integer USING 0");
    sink.write(1, &changes(&[(1, "x", 1)])).expect("written");
    told(sink.commit(1).expect_err("refused"), "invalid input syntax for type integer");
    // Once it is mended, what waited goes on.
    server.run("ALTER TABLE t ALTER v TYPE text");
    sink.commit(1).expect("committed");
    assert_eq!(server.ask("SELECT * FROM t"), ["1|x"]);
}

#[test]
#[ignore = "needs a PostgreSQL server: tests/run-postgres starts one"]
fn values_of_all_types_arrive() {
    let server = Server::new("typed");
    server.run(
        "CREATE TABLE t (i bigint, f double precision, d numeric, b boolean, t timestamp, z timestamptz, day date, \
         bytes bytea, list integer[], j jsonb, s text); SET TimeZone = 'UTC'",
    );
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None]);
    let micros = 1_700_000_000_123_456;
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("i", Arc::new(Int64Array::from(vec![Some(i64::MIN), None]))),
        ("f", Arc::new(Float64Array::from(vec![Some(f64::NEG_INFINITY), None]))),
        ("d", Arc::new(Decimal128Array::from(vec![Some(-1234), None]).with_precision_and_scale(20, 3).expect("valid"))),
        ("b", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        ("t", Arc::new(TimestampMicrosecondArray::from(vec![Some(micros), None]))),
        ("z", Arc::new(TimestampMicrosecondArray::from(vec![Some(micros), None]).with_timezone("UTC"))),
        ("day", Arc::new(Date32Array::from(vec![Some(-1), None]))),
        ("bytes", Arc::new(BinaryArray::from(vec![Some(b"\\\x00x".as_slice()), None]))),
        ("list", Arc::new(list)),
        ("j", Arc::new(StringArray::from(vec![Some("{\"a\": [1, \"\\n\"]}"), None]))),
        ("s", Arc::new(StringArray::from(vec![Some("\\N"), None]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).expect("valid");
    let mut sink = server.sink("s", &[("table", "t")], &batch.schema()).expect("valid");
    sink.open(opening(1, true)).expect("opened");
    sink.write(1, &Delta::inserts(batch)).expect("written");
    sink.commit(1).expect("committed");
    assert_eq!(
        server.ask("SELECT * FROM t"),
        [
            "-9223372036854775808|-Infinity|-1.234|t|2023-11-14 22:13:20.123456|2023-11-14 22:13:20.123456+00|\
             1969-12-31|\\x5c0078|{1,NULL}|{\"a\": [1, \"\\n\"]}|\\N",
            "NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL",
        ]
    );
}
