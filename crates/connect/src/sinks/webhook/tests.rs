use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use parking_lot::Mutex;
use serde_json::Value;
use tidemill_env::ManualClock;

use super::request::signature;
use super::*;

/// A request as it arrived.
#[derive(Clone, Debug)]
struct Arrived {
    headers: BTreeMap<String, String>,
    body: String,
    /// What was answered; 0: nothing.
    status: u16,
}

impl Arrived {
    fn key(&self) -> &str {
        &self.headers["idempotency-key"]
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
}

/// What the endpoint does with the nth request.
type Manner = Box<dyn Fn(usize) -> (u16, &'static str) + Send + Sync>;

/// An endpoint on this machine.
struct Server {
    address: SocketAddr,
    arrived: Arc<Mutex<Vec<Arrived>>>,
    stopped: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn start(at: &str, manner: Manner) -> Server {
        let listener = TcpListener::bind(at).expect("a port");
        let address = listener.local_addr().expect("bound");
        let (arrived, stopped) = (Arc::<Mutex<Vec<Arrived>>>::default(), Arc::<AtomicBool>::default());
        let (shared, end) = (arrived.clone(), stopped.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                answer(stream.expect("a connection"), &shared, &manner);
            }
        });
        Server { address, arrived, stopped, thread: Some(thread) }
    }

    fn taken(&self) -> Vec<Arrived> {
        self.arrived.lock().iter().filter(|a| a.status == 200).cloned().collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server is well");
        }
    }
}

fn answer(stream: TcpStream, arrived: &Mutex<Vec<Arrived>>, manner: &Manner) {
    let mut reader = BufReader::new(stream);
    let (mut line, mut headers) = (String::new(), BTreeMap::new());
    let _ = reader.read_line(&mut line);
    loop {
        line.clear();
        let _ = reader.read_line(&mut line);
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() || headers.is_empty() {
        return;
    }
    let (status, more) = {
        let mut arrived = arrived.lock();
        let (status, more) = manner(arrived.len());
        let body = String::from_utf8(body).expect("text");
        arrived.push(Arrived { headers, body, status });
        (status, more)
    };
    if status == 1 {
        std::thread::park_timeout(Duration::from_millis(400));
    }
    if status >= 200 {
        let text = format!("HTTP/1.1 {status} x\r\n{more}connection: close\r\ncontent-length: 4\r\n\r\nsaid");
        let _ = reader.get_mut().write_all(text.as_bytes());
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("k", DataType::Utf8, true), Field::new("n", DataType::Int64, true)]))
}

fn changes(rows: &[(&str, i64, i64)]) -> Delta {
    let k = StringArray::from_iter_values(rows.iter().map(|r| r.0));
    let n = Int64Array::from_iter_values(rows.iter().map(|r| r.1));
    let batch = RecordBatch::try_new(schema(), vec![Arc::new(k), Arc::new(n)]).expect("valid");
    Delta::new(batch, Int64Array::from_iter_values(rows.iter().map(|r| r.2)))
}

fn sink_with(server: SocketAddr, pairs: &[(&str, &str)]) -> (WebhookSink, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::default());
    clock.advance_micros(1_700_000_000_000_000);
    let mut all = vec![("url".to_owned(), format!("http://{server}/hook"))];
    all.extend(pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())));
    let mut sink = WebhookSink::new("s", &all, &schema(), &Env::simulated(clock.clone())).expect("valid");
    assert_eq!(sink.open(Opening { incarnation: 3, created: true }), Ok(None));
    (sink, clock)
}

fn start(manner: impl Fn(usize) -> (u16, &'static str) + Send + Sync + 'static) -> Server {
    Server::start("127.0.0.1:0", Box::new(manner))
}

fn reason(result: Result<(), SinkError>) -> (String, Option<Duration>) {
    match result {
        Err(SinkError::Retry { reason, after }) => (reason, after),
        other => panic!("not to be tried again: {other:?}"),
    }
}

#[test]
fn rows_arrive_signed() {
    let server = start(|_| (200, ""));
    let (mut sink, _) = sink_with(server.address, &[("secret", "hush"), ("token", "t"), ("batch_rows", "2")]);
    sink.write(5, &changes(&[("b", 1, 1), ("a", 9, 2)])).expect("written");
    sink.write(5, &changes(&[("c", 1, -1)])).expect("written");
    sink.write(6, &changes(&[("a", 1, 1)])).expect("written");
    sink.commit(6).expect("taken");
    let arrived = server.taken();
    let keys: Vec<&str> = arrived.iter().map(Arrived::key).collect();
    assert_eq!(keys, ["s-5-1", "s-5-2", "s-6-1"]);
    assert_eq!(
        arrived[0].body,
        "{\"sink\":\"s\",\"epoch\":5,\"rows\":[{\"diff\":-1,\"row\":{\"k\":\"c\",\"n\":1}},\
         {\"diff\":2,\"row\":{\"k\":\"a\",\"n\":9}}]}"
    );
    for request in &arrived {
        assert_eq!(request.headers["tidemill-signature"], signature(b"hush", 1_700_000_000, &request.body));
        assert_eq!(request.headers["tidemill-incarnation"], "3");
        assert_eq!(request.headers["authorization"], "Bearer t");
        assert_eq!(request.headers["content-type"], "application/json");
    }
}

#[test]
fn the_signature_is_the_well_known_one() {
    // By `printf '1.{}' | openssl dgst -sha256 -hmac key`.
    let known = "t=1,v1=1ba6b8171186efc613e8bcc0cbdab2748f24984d7c5a84faa2637afa0e40d224";
    assert_eq!(signature(b"key", 1, "{}"), known);
}

#[test]
fn the_same_epoch_makes_the_same_requests() {
    let server = start(|_| (200, ""));
    let options = [("key", "k"), ("batch_rows", "3")];
    let rows: Vec<(String, i64)> = (0..50).map(|i| (format!("k{}", i % 7), i)).collect();
    let delta = |rows: &[(String, i64)]| changes(&rows.iter().map(|(k, n)| (k.as_str(), *n, 1)).collect::<Vec<_>>());
    let (mut sink, _) = sink_with(server.address, &options);
    sink.write(1, &delta(&rows)).expect("written");
    sink.commit(1).expect("taken");
    let (mut again, _) = sink_with(server.address, &options);
    let turned: Vec<_> = rows.iter().rev().cloned().collect();
    turned.chunks(11).for_each(|rows| again.write(1, &delta(rows)).expect("written"));
    again.commit(1).expect("taken");
    let mut bodies: BTreeMap<String, Vec<String>> = BTreeMap::new();
    server.taken().iter().for_each(|a| bodies.entry(a.key().to_owned()).or_default().push(a.body.clone()));
    assert!(bodies.len() >= 17, "{}", bodies.len());
    assert!(bodies.values().all(|b| b.len() == 2 && b[0] == b[1]), "{bodies:#?}");
}

#[test]
fn failures_lose_nothing_and_keep_each_keys_order() {
    // Of ten requests two get 503 and one no answer at all.
    let server = start(|n| match n * 7 % 10 {
        0 | 3 => (503, ""),
        6 => (0, ""),
        _ => (200, ""),
    });
    let (mut sink, _) = sink_with(server.address, &[("key", "k"), ("batch_rows", "2")]);
    let keys = ["a", "b", "c", "d", "e"];
    let mut tries = 0;
    for epoch in 1..=60 {
        let rows: Vec<_> = keys.iter().map(|k| (*k, epoch as i64, 1)).collect();
        sink.write(epoch, &changes(&rows)).expect("written");
        while let Err(error) = sink.commit(epoch) {
            assert!(matches!(error, SinkError::Retry { .. }), "{error}");
            tries += 1;
        }
    }
    assert!(tries > 20, "too few failures: {tries}");
    assert!(sink.take_rejected().is_empty());
    let mut seen: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for request in server.taken() {
        for row in request.json()["rows"].as_array().expect("rows") {
            let row = &row["row"];
            seen.entry(row["k"].as_str().expect("text").into()).or_default().push(row["n"].as_i64().expect("number"));
        }
    }
    for key in keys {
        assert_eq!(seen[key], (1..=60).collect::<Vec<_>>(), "{key}");
    }
}

#[test]
fn a_dead_endpoint_is_given_up_and_comes_back() {
    let server = start(|_| (200, ""));
    let at = server.address;
    drop(server);
    let (mut sink, clock) = sink_with(at, &[("retry_for", "1 minute"), ("batch_rows", "1")]);
    sink.write(1, &changes(&[("a", 1, 1), ("b", 2, -3)])).expect("written");
    for _ in 0..3 {
        reason(sink.commit(1));
        clock.advance_micros(20_000_000);
    }
    assert!(sink.take_rejected().is_empty());
    sink.commit(1).expect("given up");
    let rejected = sink.take_rejected();
    let told: Vec<_> = rejected.iter().map(|r| (r.epoch, r.delta.weight(0), r.attempts)).collect();
    assert_eq!(told, [(1, -3, 4), (1, 1, 0)]);
    assert!(rejected[0].reason.starts_with("given up after 60 s: "), "{}", rejected[0].reason);
    // It is known to be dead: one attempt.
    sink.write(2, &changes(&[("a", 2, 1)])).expect("written");
    sink.commit(2).expect("given up");
    assert_eq!(sink.take_rejected()[0].attempts, 1);
    let server = Server::start(&at.to_string(), Box::new(|n| if n == 1 { (500, "") } else { (200, "") }));
    sink.write(3, &changes(&[("a", 3, 1)])).expect("written");
    sink.commit(3).expect("it is back");
    sink.write(4, &changes(&[("a", 4, 1)])).expect("written");
    // And so has its whole time again.
    assert_eq!(reason(sink.commit(4)).0, "HTTP 500: said");
    sink.commit(4).expect("taken");
    assert!(sink.take_rejected().is_empty());
    assert_eq!(server.taken().len(), 2);
}

#[test]
fn answers_are_told_apart() {
    let answers = [(400, ""), (302, "location: /x\r\n"), (429, "retry-after: 7\r\n"), (408, ""), (200, "")];
    let server = start(move |n| answers[n.min(4)]);
    let (mut sink, _) = sink_with(server.address, &[("batch_rows", "1")]);
    sink.write(1, &changes(&[("a", 1, 1), ("b", 1, 1), ("c", 1, 1)])).expect("written");
    assert_eq!(reason(sink.commit(1)), ("HTTP 429: said".into(), Some(Duration::from_secs(7))));
    assert_eq!(reason(sink.commit(1)), ("HTTP 408: said".into(), None));
    sink.commit(1).expect("taken");
    let rejected: Vec<_> = sink.take_rejected().into_iter().map(|r| (r.reason, r.attempts)).collect();
    assert_eq!(rejected, [("HTTP 400: said".to_owned(), 1), ("HTTP 302: said".to_owned(), 1)]);
    assert_eq!(server.arrived.lock().len(), 5, "no redirection is followed");
}

#[test]
fn a_slow_endpoint_is_not_waited_for() {
    let server = start(|n| if n == 0 { (1, "") } else { (200, "") });
    let (mut sink, _) = sink_with(server.address, &[("timeout", "100 milliseconds")]);
    sink.write(1, &changes(&[("a", 1, 1)])).expect("written");
    assert!(reason(sink.commit(1)).0.contains("timeout"));
    while sink.commit(1).is_err() {}
    let bodies: Vec<String> = server.arrived.lock().iter().map(|a| a.body.clone()).collect();
    assert!(bodies.len() >= 2 && bodies.iter().all(|b| *b == bodies[0]));
}

#[test]
fn options_are_checked() {
    let new = |pairs: &[(&str, &str)]| {
        let all: Vec<_> = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        WebhookSink::new("s", &all, &schema(), &Env::real()).map(|_| ()).map_err(|e| e.to_string())
    };
    for url in ["https://h/hidden", "http://u:hidden@h/", "hidden", "/hidden", "ftp://hidden/"] {
        let error = new(&[("url", url)]).expect_err("refused");
        assert!(error.contains("url") && !error.contains("hidden"), "{error}");
    }
    let url = ("url", "http://h/");
    assert_eq!(new(&[url, ("key", "k"), ("concurrency", "8")]), Ok(()));
    assert!(new(&[url, ("concurrency", "2")]).expect_err("refused").contains("\"key\""));
    assert!(new(&[url, ("key", "x")]).expect_err("refused").contains("no column \"x\""));
    assert!(new(&[url, ("retry_for", "1 month")]).expect_err("refused").contains("'5 seconds'"));
    assert!(new(&[url, ("batch_rows", "0")]).expect_err("refused").contains("from 1 to"));
    assert!(new(&[url, ("token", "a\nb")]).expect_err("refused").contains("token"));
}
