//! The ways of clients to the server, one statement or request after the other.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::server::PATIENCE;

/// Why there is no answer that helps.
#[derive(Debug)]
pub enum Failed {
    /// The connection is gone; what was asked may have been done.
    Lost(String),
    /// An error, with its code.
    Refused(String, String),
}

/// A row as text; NULL is `NULL`.
pub type Row = Vec<String>;

/// A session over PostgreSQL's protocol.
pub struct Pg {
    runtime: Runtime,
    client: Client,
}

impl Pg {
    pub fn connect(port: u16) -> Result<Pg, Failed> {
        Pg::connect_to(&format!("host=127.0.0.1 port={port} user=test"))
    }

    /// With any server.
    pub fn connect_to(config: &str) -> Result<Pg, Failed> {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let client = runtime.block_on(async {
            let (client, wire) = tokio_postgres::connect(config, NoTls).await?;
            tokio::spawn(wire);
            Ok(client)
        });
        client.map(|client| Pg { runtime, client }).map_err(|error: tokio_postgres::Error| failed(&error))
    }

    /// Runs statements; gives the rows of all of them.
    pub fn run(&mut self, sql: &str) -> Result<Vec<Row>, Failed> {
        let answer =
            self.runtime.block_on(async { tokio::time::timeout(PATIENCE, self.client.simple_query(sql)).await });
        let answer = answer.map_err(|_| Failed::Refused("none".into(), format!("no answer in time: {sql}")))?;
        let rows = answer.map_err(|error| failed(&error))?.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|i| row.get(i).unwrap_or("NULL").to_owned()).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }
}

fn failed(error: &tokio_postgres::Error) -> Failed {
    match error.as_db_error() {
        Some(error) => Failed::Refused(error.code().code().to_owned(), error.message().to_owned()),
        None => Failed::Lost(error.to_string()),
    }
}

/// A connection over which requests are posted.
pub struct Http {
    stream: BufReader<TcpStream>,
}

impl Http {
    pub fn connect(port: u16) -> std::io::Result<Http> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Http { stream: BufReader::new(stream) })
    }

    /// The answer's status and body.
    pub fn ask(&mut self, method: &str, path: &str, body: &str) -> Result<(u16, String), Failed> {
        self.try_ask(method, path, body).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => {
                Failed::Refused("none".into(), format!("no answer in time: {method} {path}"))
            }
            _ => Failed::Lost(error.to_string()),
        })
    }

    fn try_ask(&mut self, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
        let length = body.len();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}");
        self.stream.get_mut().write_all(request.as_bytes())?;
        let broken = || std::io::Error::other("the answer breaks off");
        let (mut status, mut length, mut line) = (None, None, String::new());
        loop {
            line.clear();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(broken());
            }
            let head = line.trim_end().to_ascii_lowercase();
            if head.is_empty() {
                break;
            }
            status = status.or_else(|| head.split(' ').nth(1)?.parse().ok());
            length = length.or_else(|| head.strip_prefix("content-length:")?.trim().parse().ok());
        }
        let mut answer = vec![0; length.ok_or_else(broken)?];
        self.stream.read_exact(&mut answer)?;
        Ok((status.ok_or_else(broken)?, String::from_utf8_lossy(&answer).into_owned()))
    }
}
