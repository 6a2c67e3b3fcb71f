//! A connection, with the runtime that drives it: only while the sink's thread waits for an answer.

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Client, Config, NoTls, Transaction};

use super::statements::Statements;
use crate::sink::SinkError;

/// A connection.
pub(super) struct Link {
    client: Client,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl Link {
    pub(super) fn new(address: &Config, statements: &Statements, timeout: Duration) -> Result<Link, SinkError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| SinkError::retry(format!("cannot begin to connect: {e}")))?;
        let connected = runtime.block_on(async {
            let (client, connection) =
                within(timeout, async { address.connect(NoTls).await.map_err(|e| failed(&e)) }).await?;
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a sink's connection ended");
                }
            });
            within(timeout, statements.prepare(&client)).await?;
            Ok(client)
        });
        match connected {
            Ok(client) => Ok(Link { client, runtime: Some(runtime) }),
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Runs a transaction.
    pub(super) fn transact<T>(
        &mut self,
        timeout: Duration,
        work: impl AsyncFnOnce(&Transaction<'_>) -> Result<T, SinkError>,
    ) -> Result<T, SinkError> {
        let Link { client, runtime } = self;
        let Some(runtime) = runtime else { return Err(SinkError::retry("the connection is closed")) };
        runtime.block_on(async {
            let begun = async { client.transaction().await.map_err(|e| failed(&e)) };
            let transaction = within(timeout, begun).await?;
            let done = work(&transaction).await?;
            within(timeout, async { transaction.commit().await.map_err(|e| failed(&e)) }).await?;
            Ok(done)
        })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // A sink may be dropped by a thread of another runtime, which must not wait.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A step that may not take longer than this.
pub(super) async fn within<T>(
    timeout: Duration,
    step: impl Future<Output = Result<T, SinkError>>,
) -> Result<T, SinkError> {
    let late = |_| SinkError::retry(format!("no answer from PostgreSQL within {} s", timeout.as_secs_f64()));
    tokio::time::timeout(timeout, step).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
}

/// What an error of PostgreSQL or of the connection means.
pub(super) fn failed(error: &tokio_postgres::Error) -> SinkError {
    let Some(said) = error.as_db_error() else {
        let cause = std::error::Error::source(error).map(|e| format!(": {e}")).unwrap_or_default();
        return SinkError::retry(format!("{error}{cause}"));
    };
    let code = said.code().code();
    let detail = said.detail().map(|d| format!(" ({d})")).unwrap_or_default();
    let reason = format!("PostgreSQL: {}{detail}", said.message());
    // Connection, roll-back, resources, intervention, system; a lock; a standby that may become the primary.
    let passes = matches!(&code[..2], "08" | "40" | "53" | "57" | "58") || matches!(code, "55P03" | "25006");
    if passes { SinkError::retry(reason) } else { SinkError::Fatal(reason) }
}
