//! What goes to a client: messages gathered in a buffer and written together.

use std::io;

use bytes::BytesMut;
use pgwire::messages::Message;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// When so many bytes have gathered they are written.
const FULL: usize = 64 << 10;

/// What goes to a client.
pub struct Outgoing<W> {
    writer: W,
    buffer: BytesMut,
}

impl<W: AsyncWrite + Unpin> Outgoing<W> {
    /// Writes there.
    pub fn new(writer: W) -> Self {
        Outgoing { writer, buffer: BytesMut::with_capacity(FULL + (8 << 10)) }
    }

    /// Adds a message.
    pub fn put(&mut self, message: &impl Message) -> io::Result<()> {
        message.encode(&mut self.buffer).map_err(io::Error::other)
    }

    /// The buffer, to encode rows in place.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Writes if much has gathered.
    pub async fn flush_if_full(&mut self) -> io::Result<()> {
        if self.buffer.len() >= FULL { self.flush().await } else { Ok(()) }
    }

    /// Writes all.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.writer.write_all(&self.buffer).await?;
        self.buffer.clear();
        self.writer.flush().await
    }
}
