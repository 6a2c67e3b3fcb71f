//! As much of HTTP/1.1 as the measurements need: requests on one connection, and a stream of events.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::Failure;

/// A connection that is used again and again.
pub struct Http {
    stream: BufReader<TcpStream>,
}

impl Http {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Http { stream: BufReader::new(stream) })
    }

    /// Posts a body and reads the answer; anything but success is a failure.
    pub async fn post(&mut self, path: &str, content_type: &str, body: &str) -> Result<String, Failure> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        // One write: a head and a body apart would be two packets.
        self.stream.get_mut().write_all(&[head.as_bytes(), body.as_bytes()].concat()).await?;
        let head = self.head().await?;
        let mut text = String::new();
        if head.chunked {
            while let Some(chunk) = self.chunk().await? {
                text.push_str(&String::from_utf8_lossy(&chunk));
            }
        } else {
            let mut bytes = vec![0; head.length];
            self.stream.read_exact(&mut bytes).await?;
            text = String::from_utf8_lossy(&bytes).into_owned();
        }
        if head.status >= 300 {
            return Err(Failure(format!("error: POST {path} was answered with {}: {text}", head.status)));
        }
        Ok(text)
    }

    /// Opens a stream of Server-Sent Events.
    pub async fn events(mut self, path: &str) -> Result<Events, Failure> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes()).await?;
        let head = self.head().await?;
        if head.status != 200 {
            return Err(Failure(format!("error: GET {path} was answered with {}", head.status)));
        }
        Ok(Events { http: self, chunked: head.chunked, pending: Vec::new() })
    }

    async fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            return Err(Failure("error: the server closed the connection".into()));
        }
        Ok(line.trim_end().to_string())
    }

    async fn head(&mut self) -> Result<Head, Failure> {
        let first = self.line().await?;
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| Failure(format!("error: '{first}' is not HTTP")))?;
        let mut head = Head { status, length: 0, chunked: false };
        loop {
            let line = self.line().await?.to_lowercase();
            match line.split_once(':') {
                Some(("content-length", length)) => head.length = length.trim().parse()?,
                Some(("transfer-encoding", encoding)) => head.chunked = encoding.contains("chunked"),
                Some(_) => {}
                None => return Ok(head),
            }
        }
    }

    /// The next chunk; `None` after the last.
    async fn chunk(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let size = self.line().await?;
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default(), 16)?;
        let mut bytes = vec![0; size + 2];
        self.stream.read_exact(&mut bytes).await?;
        bytes.truncate(size);
        Ok((size > 0).then_some(bytes))
    }
}

struct Head {
    status: u16,
    length: usize,
    chunked: bool,
}

/// A stream of events, read line by line.
pub struct Events {
    http: Http,
    chunked: bool,
    pending: Vec<u8>,
}

impl Events {
    /// The next line; empty lines part events.
    pub async fn line(&mut self) -> Result<String, Failure> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_string());
            }
            if self.chunked {
                let chunk = self.http.chunk().await?;
                let chunk = chunk.ok_or_else(|| Failure("error: the stream of events has ended".into()))?;
                self.pending.extend_from_slice(&chunk);
            } else {
                let line = self.http.line().await?;
                self.pending.extend_from_slice(line.as_bytes());
                self.pending.push(b'\n');
            }
        }
    }
}
