//! Messages that clients send, read with bounds.
//!
//! The message definitions of the `pgwire` crate serve for what goes out. What comes in is read here,
//! because its decoders take lengths on trust (a short `Bind` panics), allow a gigabyte per message, and
//! cannot watch the socket while a statement runs.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest message taken: larger ones end the connection with an error.
pub const MAX_MESSAGE: usize = 64 << 20;
/// The longest message before the session has started.
const MAX_OPENING: usize = 10_000;
/// How much is read ahead while a statement runs, so that a client that goes away is noticed.
const READ_AHEAD: usize = 64 << 10;

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;

/// What a connection begins with.
#[derive(Debug, PartialEq, Eq)]
pub enum Opening {
    /// Asks for TLS.
    Ssl,
    /// Asks for GSS encryption.
    Gss,
    /// Asks that another connection's statement stops.
    Cancel {
        /// That connection's number.
        pid: i32,
        /// Its secret.
        secret: Bytes,
    },
    /// Begins a session.
    Startup {
        /// The protocol's major and minor version.
        version: (u16, u16),
        /// `user`, `database`, `application_name`, ...
        parameters: Vec<(String, String)>,
    },
}

/// What `Describe` and `Close` mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A prepared statement.
    Statement(String),
    /// A portal.
    Portal(String),
}

/// What a client says in a session.
#[derive(Debug, PartialEq, Eq)]
pub enum Frontend {
    /// A simple query: statements as text.
    Query(String),
    /// Prepares a statement.
    Parse {
        /// Its name, or empty.
        name: String,
        /// Its text.
        query: String,
        /// Types of the parameters; 0 for open ones.
        types: Vec<u32>,
    },
    /// Makes a portal of a statement and values.
    Bind(Bind),
    /// Asks for types.
    Describe(Target),
    /// Runs a portal.
    Execute {
        /// Which.
        portal: String,
        /// At most so many rows; 0 for all.
        max_rows: usize,
    },
    /// Forgets a statement or portal.
    Close(Target),
    /// The end of a batch of extended messages.
    Sync,
    /// Asks for the answers so far.
    Flush,
    /// Good-bye.
    Terminate,
    /// A piece of `COPY` data.
    CopyData(Bytes),
    /// The end of `COPY` data.
    CopyDone,
    /// The client gives `COPY` up.
    CopyFail(String),
    /// A password, though none was asked for.
    Password,
}

/// The values for a portal.
#[derive(Debug, PartialEq, Eq)]
pub struct Bind {
    /// The portal's name, or empty.
    pub portal: String,
    /// The statement's name, or empty.
    pub statement: String,
    /// Formats of the parameters: none, one for all, or one each.
    pub formats: Vec<i16>,
    /// The values; `None` for NULL.
    pub values: Vec<Option<Bytes>>,
    /// Formats of the result's columns: none, one for all, or one each.
    pub results: Vec<i16>,
}

/// A message that breaks the protocol.
#[derive(Debug, PartialEq, Eq)]
pub struct Violation {
    /// What is wrong.
    pub message: String,
    /// Whether the next message cannot be found any more.
    pub fatal: bool,
    /// Whether it is text that is not UTF-8.
    pub encoding: bool,
    /// Whether it was a simple query, which wants an answer of its own.
    pub simple: bool,
}

impl Violation {
    fn fatal(message: impl Into<String>) -> Self {
        Violation { message: message.into(), fatal: true, encoding: false, simple: false }
    }

    fn body(message: impl Into<String>) -> Self {
        Violation { fatal: false, ..Violation::fatal(message) }
    }

    fn short() -> Self {
        Violation::body("insufficient data left in message")
    }
}

/// What comes from a client.
pub struct Incoming<R> {
    reader: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Incoming<R> {
    /// Reads from here.
    pub fn new(reader: R) -> Self {
        Incoming { reader, buffer: BytesMut::with_capacity(8 << 10) }
    }

    /// Fills the buffer up to `len` bytes; `false` at the end of the stream.
    async fn fill(&mut self, len: usize) -> io::Result<bool> {
        while self.buffer.len() < len {
            // Grows with what has come, never with what a length field promises.
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The next message of a connection whose session has not begun; `None` at the end.
    pub async fn opening(&mut self) -> io::Result<Option<Result<Opening, Violation>>> {
        if !self.fill(4).await? {
            return Ok(None);
        }
        let len = u32::from_be_bytes([self.buffer[0], self.buffer[1], self.buffer[2], self.buffer[3]]) as usize;
        if !(8..=MAX_OPENING).contains(&len) {
            return Ok(Some(Err(Violation::fatal("invalid length of startup packet"))));
        }
        if !self.fill(len).await? {
            return Ok(None);
        }
        let mut body = Body(self.buffer.split_to(len).freeze());
        body.0.advance(4);
        Ok(Some(body.opening()))
    }

    /// The next message; `None` at the end.
    pub async fn next(&mut self) -> io::Result<Option<Result<Frontend, Violation>>> {
        if !self.fill(5).await? {
            return Ok(None);
        }
        let kind = self.buffer[0];
        let len = u32::from_be_bytes([self.buffer[1], self.buffer[2], self.buffer[3], self.buffer[4]]) as usize;
        if !known(kind) {
            return Ok(Some(Err(Violation::fatal(format!("invalid frontend message type {kind}")))));
        }
        if len < 4 {
            return Ok(Some(Err(Violation::fatal("invalid message length"))));
        }
        if len > MAX_MESSAGE {
            let limit = MAX_MESSAGE >> 20;
            return Ok(Some(Err(Violation::fatal(format!("message of {len} bytes exceeds the limit of {limit} MiB")))));
        }
        if !self.fill(len + 1).await? {
            return Ok(None);
        }
        let mut body = Body(self.buffer.split_to(len + 1).freeze());
        body.0.advance(5);
        Ok(Some(body.message(kind).map_err(|v| Violation { simple: kind == b'Q', ..v })))
    }

    /// Waits until the client has gone; reads a little ahead to notice. May be dropped at any time.
    pub async fn closed(&mut self) -> io::Error {
        while self.buffer.len() < READ_AHEAD {
            match self.reader.read_buf(&mut self.buffer).await {
                Ok(0) => return io::ErrorKind::UnexpectedEof.into(),
                Ok(_) => {}
                Err(error) => return error,
            }
        }
        std::future::pending().await
    }
}

/// Whether clients send messages of this kind.
fn known(kind: u8) -> bool {
    matches!(kind, b'Q' | b'P' | b'B' | b'D' | b'E' | b'C' | b'S' | b'H' | b'X' | b'd' | b'c' | b'f' | b'p')
}

/// A message's body.
struct Body(Bytes);

impl Body {
    fn need(&self, len: usize) -> Result<(), Violation> {
        if self.0.remaining() < len { Err(Violation::short()) } else { Ok(()) }
    }

    fn u8(&mut self) -> Result<u8, Violation> {
        self.need(1)?;
        Ok(self.0.get_u8())
    }

    fn u16(&mut self) -> Result<u16, Violation> {
        self.need(2)?;
        Ok(self.0.get_u16())
    }

    fn u32(&mut self) -> Result<u32, Violation> {
        self.need(4)?;
        Ok(self.0.get_u32())
    }

    fn string(&mut self) -> Result<String, Violation> {
        let Some(end) = self.0.iter().position(|b| *b == 0) else {
            return Err(Violation::body("invalid string in message"));
        };
        let bytes = self.0.split_to(end);
        self.0.advance(1);
        let wrong = || Violation { encoding: true, ..Violation::body("invalid byte sequence for encoding \"UTF8\"") };
        String::from_utf8(bytes.to_vec()).map_err(|_| wrong())
    }

    fn opening(&mut self) -> Result<Opening, Violation> {
        match self.u32()? {
            SSL_REQUEST => Ok(Opening::Ssl),
            GSS_REQUEST => Ok(Opening::Gss),
            CANCEL_REQUEST => Ok(Opening::Cancel { pid: self.u32()? as i32, secret: self.0.clone() }),
            version => Ok(Opening::Startup {
                version: ((version >> 16) as u16, version as u16),
                parameters: self.parameters()?,
            }),
        }
    }

    fn parameters(&mut self) -> Result<Vec<(String, String)>, Violation> {
        let mut parameters = Vec::new();
        loop {
            let name = self.string()?;
            if name.is_empty() {
                return Ok(parameters);
            }
            parameters.push((name, self.string()?));
        }
    }

    fn message(mut self, kind: u8) -> Result<Frontend, Violation> {
        Ok(match kind {
            b'Q' => Frontend::Query(self.string()?),
            b'P' => Frontend::Parse { name: self.string()?, query: self.string()?, types: self.list(4, Body::u32)? },
            b'B' => Frontend::Bind(self.bind()?),
            b'D' => Frontend::Describe(self.target()?),
            b'E' => Frontend::Execute { portal: self.string()?, max_rows: (self.u32()? as i32).max(0) as usize },
            b'C' => Frontend::Close(self.target()?),
            b'S' => Frontend::Sync,
            b'H' => Frontend::Flush,
            b'X' => Frontend::Terminate,
            b'd' => Frontend::CopyData(self.0),
            b'c' => Frontend::CopyDone,
            b'f' => Frontend::CopyFail(self.string()?),
            _ => Frontend::Password,
        })
    }

    /// A counted list of elements of `size` bytes; the count is checked before room is made.
    fn list<T>(&mut self, size: usize, read: fn(&mut Body) -> Result<T, Violation>) -> Result<Vec<T>, Violation> {
        let count = usize::from(self.u16()?);
        self.need(count * size)?;
        (0..count).map(|_| read(self)).collect()
    }

    fn format(&mut self) -> Result<i16, Violation> {
        Ok(self.u16()? as i16)
    }

    fn value(&mut self) -> Result<Option<Bytes>, Violation> {
        let len = self.u32()? as i32;
        if len < 0 {
            return Ok(None);
        }
        self.need(len as usize)?;
        Ok(Some(self.0.split_to(len as usize)))
    }

    fn bind(&mut self) -> Result<Bind, Violation> {
        Ok(Bind {
            portal: self.string()?,
            statement: self.string()?,
            formats: self.list(2, Body::format)?,
            values: self.list(4, Body::value)?,
            results: self.list(2, Body::format)?,
        })
    }

    fn target(&mut self) -> Result<Target, Violation> {
        match self.u8()? {
            b'S' => Ok(Target::Statement(self.string()?)),
            b'P' => Ok(Target::Portal(self.string()?)),
            other => Err(Violation::body(format!("invalid target of DESCRIBE or CLOSE: {other}"))),
        }
    }
}

#[cfg(test)]
mod mutated;
#[cfg(test)]
mod tests;
