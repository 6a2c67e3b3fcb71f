//! A server in this process on a free port, and the least HTTP client that can talk to it.

use std::net::SocketAddr;

use serde_json::Value;
use tidemill_engine::{Config, Engine};
use tidemill_env::Env;
use tidemill_serve::{Doors, ServeOptions};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// A server that stops answering with the test; its engine's threads end with the process.
pub struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    pub fn error_code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_else(|| panic!("{}", self.body)).to_owned()
    }
}

/// One server-sent event.
#[derive(Debug, Default)]
pub struct Event {
    pub id: Option<u64>,
    pub kind: String,
    pub data: Value,
}

/// An open stream of events.
pub struct Events {
    lines: BufReader<TcpStream>,
}

impl Server {
    pub async fn start() -> Server {
        let engine = Engine::start(Config::default(), Env::real()).expect("the engine starts");
        let http = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        let doors = Doors::bind(&ServeOptions { pg: None, http }).await.expect("a free port");
        let address = doors.http_address().expect("bound");
        let task = tokio::spawn(async move { doors.serve(engine).await.expect("serving") });
        Server { address, task }
    }

    async fn open(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.expect("connects");
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        if !headers.iter().any(|(name, _)| *name == "Content-Length") {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).await.expect("sent");
        stream.write_all(body).await.expect("sent");
        stream
    }

    pub async fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut stream = self.open(method, path, headers, body).await;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.expect("an answer");
        let text = String::from_utf8(bytes).expect("UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").expect("head and body");
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("status");
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], b"").await
    }

    pub async fn ingest(&self, table: &str, kind: &str, body: impl AsRef<[u8]>) -> Answer {
        let path = format!("/v1/ingest/{table}?wait=published");
        self.request("POST", &path, &[("Content-Type", kind)], body.as_ref()).await
    }

    /// Runs statements that must succeed; the results.
    pub async fn sql(&self, sql: &str) -> Value {
        let answer = self.request("POST", "/v1/sql", &[], sql.as_bytes()).await;
        assert_eq!(answer.status, 200, "{sql}: {}", answer.body);
        answer.json()["results"].take()
    }

    /// The rows of the last statement.
    pub async fn rows(&self, sql: &str) -> Value {
        let mut results = self.sql(sql).await;
        results.as_array_mut().and_then(Vec::pop).expect("a result")["rows"].take()
    }

    pub async fn events(&self, path: &str, headers: &[(&str, &str)]) -> Events {
        let mut lines = BufReader::new(self.open("GET", path, headers, b"").await);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(lines.read_line(&mut head).await.expect("a head") > 0, "closed after {head:?}");
        }
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.to_lowercase().contains("text/event-stream"), "{head}");
        Events { lines }
    }
}

impl Events {
    /// The next event of any kind; chunk sizes between the lines are passed over.
    pub async fn any(&mut self) -> Event {
        let mut event = Event::default();
        loop {
            let mut line = String::new();
            let read = tokio::time::timeout(std::time::Duration::from_secs(20), self.lines.read_line(&mut line));
            assert!(read.await.expect("an event in time").expect("a line") > 0, "the stream ended");
            let line = line.trim_end_matches(['\r', '\n']);
            if let Some(id) = line.strip_prefix("id: ") {
                event.id = Some(id.parse().expect("an epoch"));
            } else if let Some(kind) = line.strip_prefix("event: ") {
                event.kind = kind.to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                event.data = serde_json::from_str(data).expect("JSON");
                return event;
            }
        }
    }

    /// The next event that is not a sign of life.
    pub async fn next(&mut self) -> Event {
        loop {
            let event = self.any().await;
            if event.kind != "progress" && event.kind != "status" {
                return event;
            }
        }
    }
}
