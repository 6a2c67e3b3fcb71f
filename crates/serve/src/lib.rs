//! The doors: PostgreSQL's wire protocol, HTTP with the console page, and what binds their ports.

pub mod http;
pub mod pg;

use std::io;
use std::net::SocketAddr;

use tidemill_engine::Engine;
use tokio::net::TcpListener;

/// Where to listen; a door without an address stays shut.
#[derive(Clone, Debug, Default)]
pub struct ServeOptions {
    /// For PostgreSQL clients.
    pub pg: Option<SocketAddr>,
    /// For HTTP clients and the console page.
    pub http: Option<SocketAddr>,
}

/// Bound ports that are not served yet: whoever asked for port 0 can learn which one it became.
#[derive(Debug)]
pub struct Doors {
    pg: Option<TcpListener>,
    http: Option<TcpListener>,
}

impl Doors {
    /// Binds the ports; the error names the address that cannot be had.
    pub async fn bind(options: &ServeOptions) -> io::Result<Doors> {
        Ok(Doors { pg: bind(options.pg).await?, http: bind(options.http).await? })
    }

    /// The address of the PostgreSQL door.
    pub fn pg_address(&self) -> Option<SocketAddr> {
        self.pg.as_ref().and_then(|l| l.local_addr().ok())
    }

    /// The address of the HTTP door.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().and_then(|l| l.local_addr().ok())
    }

    /// Serves until a door fails or the task is dropped. Without doors it waits forever.
    pub async fn serve(self, engine: Engine) -> io::Result<()> {
        let pg = door(self.pg, |listener| pg::serve(engine.clone(), listener));
        let http = door(self.http, |listener| http::serve(engine.clone(), listener));
        tokio::try_join!(pg, http).map(|_| ())
    }
}

/// Binds the ports and serves.
pub async fn serve(engine: Engine, options: ServeOptions) -> io::Result<()> {
    Doors::bind(&options).await?.serve(engine).await
}

async fn bind(address: Option<SocketAddr>) -> io::Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    let bound = TcpListener::bind(address).await;
    bound.map(Some).map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {address}: {e}")))
}

async fn door<F: Future<Output = io::Result<()>>>(
    listener: Option<TcpListener>,
    serve: impl FnOnce(TcpListener) -> F,
) -> io::Result<()> {
    match listener {
        Some(listener) => serve(listener).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let options = ServeOptions { pg: None, http: Some(SocketAddr::from(([127, 0, 0, 1], 0))) };
        let doors = Doors::bind(&options).await.expect("a free port");
        assert_eq!(doors.pg_address(), None);
        let taken = doors.http_address().expect("bound");
        let error = Doors::bind(&ServeOptions { pg: Some(taken), http: None }).await.expect_err("taken");
        assert!(error.to_string().contains(&taken.to_string()), "{error}");
    }
}
