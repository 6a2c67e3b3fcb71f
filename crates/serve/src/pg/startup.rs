//! The handshake: no TLS, no password, session parameters.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use pgwire::messages::response::{GssEncResponse, ReadyForQuery, SslResponse, TransactionStatus};
use pgwire::messages::startup::{Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey};
use tidemill_engine::{Engine, Session, SqlError, parse};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::cancel::Cancels;
use super::connection::Connection;
use super::failure::error_response;
use super::frame::{Incoming, Opening};
use super::outgoing::Outgoing;

/// A client that has not begun a session by then is let go.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The server's version, in the form that drivers parse.
pub const SERVER_VERSION: &str = concat!("16.0 (Tidemill ", env!("CARGO_PKG_VERSION"), ")");

/// Parameters that clients hear of at the start and when they change.
const REPORTED: [(&str, &str); 11] = [
    ("server_version", SERVER_VERSION),
    ("server_encoding", "UTF8"),
    ("client_encoding", "UTF8"),
    ("application_name", ""),
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("integer_datetimes", "on"),
    ("standard_conforming_strings", "on"),
    ("is_superuser", "on"),
    ("default_transaction_read_only", "off"),
];

/// Shakes hands; `None` if the connection was only a cancel request, or the client went away.
pub async fn begin(
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    engine: Engine,
    cancels: Arc<Cancels>,
) -> io::Result<Option<Connection>> {
    let mut incoming = Incoming::new(reader);
    let mut outgoing = Outgoing::new(writer);
    let greeted = tokio::time::timeout(TIMEOUT, greet(&mut incoming, &mut outgoing, &cancels)).await;
    let Some(parameters) = greeted.unwrap_or(Ok(None))? else { return Ok(None) };
    let entry = cancels.enter();
    let mut session = engine.session();
    adopt(&mut session, &parameters).await;
    outgoing.put(&Authentication::Ok)?;
    let mut reported = Reported::default();
    reported.report(&session, &mut outgoing)?;
    outgoing.put(&BackendKeyData::new(entry.pid, SecretKey::I32(entry.secret as i32)))?;
    outgoing.put(&ReadyForQuery::new(TransactionStatus::Idle))?;
    outgoing.flush().await?;
    Ok(Some(Connection::new(incoming, outgoing, session, entry, reported)))
}

/// Answers until the client begins a session; returns its parameters.
async fn greet(
    incoming: &mut Incoming<OwnedReadHalf>,
    outgoing: &mut Outgoing<OwnedWriteHalf>,
    cancels: &Cancels,
) -> io::Result<Option<Vec<(String, String)>>> {
    while let Some(opening) = incoming.opening().await? {
        match opening {
            Ok(Opening::Ssl) => outgoing.put(&SslResponse::Refuse)?,
            Ok(Opening::Gss) => outgoing.put(&GssEncResponse::Refuse)?,
            Ok(Opening::Cancel { pid, secret }) => {
                cancels.cancel(pid, &secret);
                return Ok(None);
            }
            Ok(Opening::Startup { version: (3, minor), parameters }) => {
                negotiate(outgoing, minor, &parameters)?;
                return accept(outgoing, parameters).await;
            }
            Ok(Opening::Startup { version: (major, minor), .. }) => {
                let message = format!("unsupported frontend protocol {major}.{minor}: server supports 3.0");
                return refuse(outgoing, SqlError::new("0A000", message)).await;
            }
            Err(violation) => return refuse(outgoing, violation.into()).await,
        }
        outgoing.flush().await?;
    }
    Ok(None)
}

/// Tells a client that wants newer protocol features that it gets 3.0.
fn negotiate(outgoing: &mut Outgoing<OwnedWriteHalf>, minor: u16, parameters: &[(String, String)]) -> io::Result<()> {
    let options: Vec<String> = parameters.iter().map(|p| p.0.clone()).filter(|n| n.starts_with("_pq_.")).collect();
    if minor == 0 && options.is_empty() {
        return Ok(());
    }
    outgoing.put(&NegotiateProtocolVersion::new(0, options))
}

async fn accept(
    outgoing: &mut Outgoing<OwnedWriteHalf>,
    parameters: Vec<(String, String)>,
) -> io::Result<Option<Vec<(String, String)>>> {
    let named = |name: &str| parameters.iter().any(|(n, value)| n == name && !value.is_empty());
    if !named("user") {
        return refuse(outgoing, SqlError::new("28000", "no PostgreSQL user name specified in startup packet")).await;
    }
    Ok(Some(parameters))
}

async fn refuse<T>(outgoing: &mut Outgoing<OwnedWriteHalf>, error: SqlError) -> io::Result<Option<T>> {
    outgoing.put(&error_response(&error, "FATAL", 0))?;
    outgoing.flush().await?;
    Ok(None)
}

/// Sets what the client asked for at the start. Parameters that the engine does not know are left out:
/// drivers send all sorts.
async fn adopt(session: &mut Session, parameters: &[(String, String)]) {
    for (name, value) in parameters {
        if matches!(name.as_str(), "user" | "database" | "options" | "replication") || name.starts_with("_pq_.") {
            continue;
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        if name.is_empty() || !name.chars().all(plain) {
            continue;
        }
        let Ok(statements) = parse(&format!("SET {name} = '{}'", value.replace('\'', "''"))) else { continue };
        for statement in &statements {
            let _ = session.execute(statement, &[]).await;
        }
    }
    session.take_notices();
}

/// What the client knows of the session's parameters.
#[derive(Default)]
pub struct Reported {
    values: Vec<String>,
}

impl Reported {
    /// Tells the client what it does not know yet.
    pub fn report(&mut self, session: &Session, outgoing: &mut Outgoing<OwnedWriteHalf>) -> io::Result<()> {
        for (i, (name, default)) in REPORTED.iter().enumerate() {
            // These four are ours to say.
            let fixed = matches!(*name, "server_version" | "server_encoding" | "integer_datetimes" | "is_superuser");
            let set =
                if fixed { None } else { session.parameter(name).or_else(|| session.parameter(&name.to_lowercase())) };
            let value = set.unwrap_or_else(|| (*default).to_string());
            if self.values.get(i) == Some(&value) {
                continue;
            }
            outgoing.put(&ParameterStatus::new((*name).to_string(), value.clone()))?;
            if i < self.values.len() {
                self.values[i] = value;
            } else {
                self.values.push(value);
            }
        }
        Ok(())
    }
}
