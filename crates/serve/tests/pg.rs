//! The PostgreSQL door, with real clients: `tokio-postgres` and `psql`.

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::Duration;

use futures::{SinkExt, StreamExt, TryStreamExt, pin_mut};
use tidemill_engine::{Config, Engine};
use tidemill_env::Env;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// A server in this process; its engine stops with the test.
struct Server {
    address: SocketAddr,
    engine: Engine,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.engine.shutdown();
    }
}

async fn server() -> Server {
    let engine = Engine::start(Config::default(), Env::real()).expect("the engine starts");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(tidemill_serve::pg::serve(engine.clone(), listener));
    Server { address, engine }
}

async fn connect(server: &Server) -> Client {
    let options = format!("host=127.0.0.1 port={} user=test dbname=tidemill", server.address.port());
    let (client, connection) = tokio_postgres::connect(&options, NoTls).await.expect("a session");
    tokio::spawn(connection);
    client
}

/// Runs `psql` with a command; on a thread of its own, as the server runs in this one's runtime.
async fn psql(server: &Server, command: &str) -> Output {
    let (port, command) = (server.address.port().to_string(), command.to_string());
    let run = move || {
        Command::new("psql")
            .args(["-X", "-h", "127.0.0.1", "-p", &port, "-U", "test", "-d", "tidemill", "-A", "-c", &command])
            .output()
            .expect("psql is installed")
    };
    tokio::task::spawn_blocking(run).await.expect("psql ran")
}

async fn shown(server: &Server, command: &str) -> String {
    let output = psql(server, command).await;
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn code(error: &tokio_postgres::Error) -> String {
    error.code().map_or_else(|| error.to_string(), |c| c.code().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_in_binary_and_rows_back() {
    let server = server().await;
    let client = connect(&server).await;
    client
        .batch_execute(
            "CREATE TABLE kinds (id int PRIMARY KEY, b bool, l bigint, f double precision, t text, x bytea, j jsonb)",
        )
        .await
        .unwrap();
    let insert = client.prepare("INSERT INTO kinds VALUES ($1, $2, $3, $4, $5, $6, $7)").await.unwrap();
    assert_eq!(insert.params()[..4], [Type::INT4, Type::BOOL, Type::INT8, Type::FLOAT8]);
    let bytes: &[u8] = &[0, 255];
    let count = client
        .execute(&insert, &[&1i32, &true, &(1i64 << 60), &1.5f64, &"ä", &bytes, &"{\"a\": [1, 2]}"])
        .await
        .unwrap();
    assert_eq!(count, 1);
    let nothing: Option<bool> = None;
    client
        .execute(&insert, &[&2i32, &nothing, &None::<i64>, &None::<f64>, &None::<&str>, &None::<&[u8]>, &None::<&str>])
        .await
        .unwrap();
    let rows = client.query("SELECT b, l, f, t, x FROM kinds WHERE id <= $1 ORDER BY id", &[&2i32]).await.unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].get::<_, i64>("l"), 1 << 60);
    assert_eq!(rows[0].get::<_, f64>("f"), 1.5);
    assert_eq!(rows[0].get::<_, &str>("t"), "ä");
    assert_eq!(rows[0].get::<_, &[u8]>("x"), [0, 255]);
    let messages = client.simple_query("SELECT j FROM kinds WHERE id = 1").await.unwrap();
    let json = messages.iter().find_map(|m| match m {
        SimpleQueryMessage::Row(row) => row.get(0).map(|j| j.replace(' ', "")),
        _ => None,
    });
    assert_eq!(json.as_deref(), Some("{\"a\":[1,2]}"));
    assert_eq!(rows[1].get::<_, Option<bool>>("b"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn portals_pause() {
    let server = server().await;
    let mut client = connect(&server).await;
    client.batch_execute("CREATE TABLE n (i int); INSERT INTO n VALUES (1), (2), (3), (4), (5)").await.unwrap();
    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind("SELECT i FROM n ORDER BY i", &[]).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let rows = transaction.query_portal(&portal, 2).await.unwrap();
        seen.push(rows.iter().map(|r| r.get::<_, i32>(0)).collect::<Vec<_>>());
    }
    assert_eq!(seen, [vec![1, 2], vec![3, 4], vec![5]]);
    transaction.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_codes_and_positions_and_the_session_goes_on() {
    let server = server().await;
    let client = connect(&server).await;
    let wrong = [("SELEC 1", "42601"), ("SELECT * FROM nowhere", "42P01"), ("SELECT nothing", "42703")];
    for (sql, state) in wrong {
        assert_eq!(code(&client.simple_query(sql).await.unwrap_err()), state, "{sql}");
        assert_eq!(code(&client.query(sql, &[]).await.unwrap_err()), state, "{sql}");
    }
    let error = client.simple_query("SELECT 1; SELECT * FROM nowhere").await.unwrap_err();
    let position = error.as_db_error().unwrap().position();
    assert_eq!(position, Some(&tokio_postgres::error::ErrorPosition::Original(25)));
    assert_eq!(client.query_one("SELECT 1", &[]).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_in_and_out() {
    let server = server().await;
    let client = connect(&server).await;
    client.batch_execute("CREATE TABLE sales (id int, item text)").await.unwrap();
    let sink = client.copy_in("COPY sales FROM STDIN").await.unwrap();
    pin_mut!(sink);
    for i in 0..1000 {
        sink.send(bytes::Bytes::from(format!("{i}\titem {}\n", i % 3))).await.unwrap();
    }
    assert_eq!(sink.finish().await.unwrap(), 1000);
    let count: i64 = client.query_one("SELECT count(*) FROM sales", &[]).await.unwrap().get(0);
    assert_eq!(count, 1000);
    let out = client.copy_out("COPY (SELECT id, item FROM sales WHERE id < 2 ORDER BY id) TO STDOUT").await.unwrap();
    let parts: Vec<bytes::Bytes> = out.try_collect().await.unwrap();
    assert_eq!(parts.concat(), b"0\titem 0\n1\titem 1\n");

    let sink = client.copy_in("COPY sales FROM STDIN").await.unwrap();
    pin_mut!(sink);
    sink.send(bytes::Bytes::from_static(b"1\ta\nx\tb\n")).await.unwrap();
    assert_eq!(code(&sink.finish().await.unwrap_err()), "22P02");
    let count: i64 = client.query_one("SELECT count(*) FROM sales", &[]).await.unwrap().get(0);
    assert_eq!(count, 1000, "all or nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_copy_streams_until_cancelled() {
    let server = server().await;
    let (reader, writer) = (connect(&server).await, connect(&server).await);
    writer.batch_execute("CREATE TABLE t (k int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 10)").await.unwrap();
    let stream = reader.copy_out("COPY (SUBSCRIBE TO t) TO STDOUT").await.unwrap();
    pin_mut!(stream);
    let line = |bytes: bytes::Bytes| String::from_utf8(bytes.to_vec()).unwrap().split_once('\t').unwrap().1.to_string();
    assert_eq!(line(stream.next().await.unwrap().unwrap()), "1\t1\t10\n");
    writer.execute("UPDATE t SET v = 11 WHERE k = 1", &[]).await.unwrap();
    let mut changes = vec![line(stream.next().await.unwrap().unwrap()), line(stream.next().await.unwrap().unwrap())];
    changes.sort();
    assert_eq!(changes, ["-1\t1\t10\n", "1\t1\t11\n"]);
    reader.cancel_token().cancel_query(NoTls).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(10), stream.next()).await.expect("the stream ends");
    assert_eq!(code(&ended.unwrap().unwrap_err()), "57014");
    assert_eq!(reader.query_one("SELECT 1", &[]).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_describes() {
    let server = server().await;
    let client = connect(&server).await;
    client
        .batch_execute(
            "CREATE TABLE orders (id bigint PRIMARY KEY, item text NOT NULL, price numeric(10, 2) DEFAULT 0, at timestamptz);
             CREATE MATERIALIZED VIEW totals AS SELECT item, count(*) AS n FROM orders GROUP BY item;
             CREATE VIEW cheap AS SELECT id FROM orders WHERE price < 1",
        )
        .await
        .unwrap();
    assert!(shown(&server, "\\dt").await.contains("public|orders|table|"));
    assert!(shown(&server, "\\dm").await.contains("public|totals|materialized view|"));
    assert!(shown(&server, "\\dv").await.contains("public|cheap|view|"));
    assert!(shown(&server, "\\d").await.lines().count() >= 3);
    let described = shown(&server, "\\d orders").await;
    assert!(described.contains("id|bigint||not null|"), "{described}");
    assert!(described.contains("price|numeric(10,2)|||0"), "{described}");
    assert!(described.contains("\"orders_pkey\" PRIMARY KEY"), "{described}");
    assert!(shown(&server, "\\d totals").await.contains("n|bigint"));
    for command in [
        "\\d+ orders",
        "\\d+ totals",
        "\\d+ cheap",
        "\\l",
        "\\dn",
        "\\du",
        "\\df",
        "\\di",
        "\\dT",
        "\\dp",
        "\\dx",
        "\\db",
    ] {
        shown(&server, command).await;
    }
    assert!(shown(&server, "\\d+ cheap").await.to_lowercase().contains("select id from orders"));
}

#[tokio::test(flavor = "multi_thread")]
async fn start_up_queries_of_drivers() {
    let server = server().await;
    let client = connect(&server).await;
    client.batch_execute("CREATE TABLE orders (id bigint PRIMARY KEY)").await.unwrap();
    for sql in [
        "select pg_catalog.version()",
        "select current_schema()",
        "SELECT current_schema",
        "SELECT current_database(), current_user, session_user",
        "show transaction isolation level",
        "show standard_conforming_strings",
        "SHOW client_encoding",
        "SELECT current_setting('server_version_num')",
        "SELECT set_config('search_path', '', false)",
        "SELECT typname AS name, oid, typarray AS array_oid, oid::regtype::text AS regtype, typdelim AS delimiter \
         FROM pg_type t WHERE t.oid = to_regtype('jsonb') ORDER BY t.oid",
        "SELECT pg_catalog.pg_class.relname FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace ON \
         pg_catalog.pg_namespace.oid = pg_catalog.pg_class.relnamespace WHERE pg_catalog.pg_class.relkind = \
         ANY (ARRAY['r', 'p']) AND pg_catalog.pg_class.relpersistence != 't' AND \
         pg_catalog.pg_table_is_visible(pg_catalog.pg_class.oid)",
        "SELECT table_schema, table_name FROM information_schema.tables WHERE table_type = 'BASE TABLE'",
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'orders'",
        "SELECT db.oid, db.* FROM pg_catalog.pg_database db WHERE datallowconn AND NOT datistemplate",
        "SELECT 'orders'::regclass::oid",
        "SELECT n.oid, n.*, d.description FROM pg_catalog.pg_namespace n LEFT OUTER JOIN pg_catalog.pg_description d \
         ON d.objoid = n.oid AND d.objsubid = 0 AND d.classoid = 'pg_namespace'::regclass ORDER BY nspname",
    ] {
        let answer = client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        assert!(answer.iter().any(|m| matches!(m, SimpleQueryMessage::Row(_))), "{sql}");
        client.query(sql, &[]).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions() {
    let server = server().await;
    let mut client = connect(&server).await;
    client.batch_execute("CREATE TABLE t (k int)").await.unwrap();
    let transaction = client.transaction().await.unwrap();
    transaction.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap();
    assert!(transaction.execute("SELECT * FROM nowhere", &[]).await.is_err());
    assert_eq!(code(&transaction.execute("SELECT 1", &[]).await.unwrap_err()), "25P02");
    transaction.rollback().await.unwrap();
    let count: i64 = client.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get(0);
    assert_eq!(count, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_ends_only_its_own_connection() {
    let server = server().await;
    let client = connect(&server).await;
    let start = b"\0\0\0\x13\0\x03\0\0user\0test\0\0";
    let frames: [&[u8]; 6] = [
        b"Q\xff\xff\xff\xff",
        b"Q\0\0\0\0",
        b"\x01\0\0\0\x04",
        b"B\0\0\0\x05\0S\0\0\0\x04",
        b"P\0\0\0\x08a\0b\0S\0\0\0\x04",
        b"p\0\0\0\x05\0",
    ];
    for frame in frames {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(start).await.unwrap();
        stream.write_all(frame).await.unwrap();
        let mut answer = vec![0; 4096];
        let _ = tokio::time::timeout(Duration::from_millis(200), stream.read(&mut answer)).await;
    }
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(&[0xff; 64]).await.unwrap();
    assert_eq!(client.query_one("SELECT 1", &[]).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_left_does_not_keep_the_others_from_defining() {
    let server = server().await;
    let client = connect(&server).await;
    let rows = "CREATE TABLE t (a int); INSERT INTO t SELECT i FROM generate_series(1, 400000) AS g(i)";
    client.batch_execute(rows).await.unwrap();
    // Each slice of the table's rows changes all groups, so that this takes long.
    let slow = "CREATE MATERIALIZED VIEW v AS SELECT a % 1000 AS k, string_agg(CAST(a AS text), ',' ORDER BY a) AS list \
                FROM t GROUP BY a % 1000\0";
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"\0\0\0\x13\0\x03\0\0user\0test\0\0").await.unwrap();
    let mut query = vec![b'Q'];
    query.extend_from_slice(&(slow.len() as u32 + 4).to_be_bytes());
    query.extend_from_slice(slow.as_bytes());
    stream.write_all(&query).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(stream);
    // What it has begun is taken back, and so its name is free.
    client.batch_execute("CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM t").await.unwrap();
    let count: i64 = client.query_one("SELECT n FROM v", &[]).await.unwrap().get(0);
    assert_eq!(count, 400_000);
    // One that leaves at once has its short statement done.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"\0\0\0\x13\0\x03\0\0user\0test\0\0").await.unwrap();
    stream.write_all(b"Q\0\0\0\x27INSERT INTO t VALUES (1), (2), (3)\0").await.unwrap();
    drop(stream);
    let done = async {
        while client.query_one("SELECT n FROM v", &[]).await.unwrap().get::<_, i64>(0) != 400_003 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), done).await.expect("the statement was not done");
}
