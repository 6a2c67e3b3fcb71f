//! The PostgreSQL door: the wire protocol, version 3.
//!
//! [`serve`] takes connections; each is a task with a session of its own. `startup` shakes hands,
//! `connection` reads messages and answers simple queries, `extended` answers prepared ones, `copy` and
//! `live` move rows in and out in bulk and without end. Text comes from the formats of `connect`,
//! `binary` and `params` know the binary format, `types` knows which type is which.

mod binary;
mod cancel;
mod connection;
mod copy;
mod extended;
mod failure;
mod frame;
mod live;
mod outgoing;
mod params;
mod rows;
mod startup;
mod types;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tidemill_engine::Engine;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use cancel::Cancels;
use connection::Connection;

/// How long to wait after a failure to accept (no file descriptors left) before trying again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves sessions on a listener until dropped; then its connections end too.
pub async fn serve(engine: Engine, listener: TcpListener) -> io::Result<()> {
    let cancels = Arc::new(Cancels::default());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(talk(engine.clone(), stream, cancels.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended && error.is_panic() {
                    tracing::error!(%error, "a connection ended by a bug");
                }
            }
        }
    }
}

/// One connection from its beginning to its end.
async fn talk(engine: Engine, stream: TcpStream, cancels: Arc<Cancels>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no low-delay socket");
    }
    let (reader, writer) = stream.into_split();
    let done = match startup::begin(reader, writer, engine, cancels).await {
        Ok(Some(connection)) => Connection::run(connection).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = done
        && !matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        )
    {
        tracing::debug!(%error, "a connection ended");
    }
}
