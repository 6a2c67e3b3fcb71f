//! One session: reads messages, answers simple queries, hands the others on.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use pgwire::messages::response::{CommandComplete, EmptyQueryResponse, ReadyForQuery, TransactionStatus};
use tidemill_engine::{Response, Session, SqlError, Statement, StatementKind, parse};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::cancel::{Cancel, Entry};
use super::extended::{Portal, Prepared};
use super::failure::{Failure, cancelled, error_response, notice_response};
use super::frame::{Frontend, Incoming, Violation};
use super::outgoing::Outgoing;
use super::rows::RowFormat;
use super::startup::Reported;

/// One session.
pub struct Connection {
    pub(super) incoming: Incoming<OwnedReadHalf>,
    pub(super) outgoing: Outgoing<OwnedWriteHalf>,
    pub(super) session: Session,
    pub(super) entry: Entry,
    pub(super) statements: HashMap<String, Prepared>,
    pub(super) portals: HashMap<String, Portal>,
    reported: Reported,
    /// After an error in the extended protocol, messages up to the next `Sync` do not count.
    skipping: bool,
}

/// A statement that takes longer than this ends when its client is gone; what a client has sent before it left is done if it is short.
const LEFT: Duration = Duration::from_secs(1);

/// Waits for work, unless the client cancels or leaves.
pub async fn guarded<T>(
    cancel: &Cancel,
    incoming: &mut Incoming<OwnedReadHalf>,
    work: impl Future<Output = Result<T, SqlError>>,
) -> Result<T, Failure> {
    let left = async {
        tokio::time::sleep(LEFT).await;
        incoming.closed().await
    };
    tokio::select! {
        biased;
        done = work => Ok(done?),
        () = cancel.requested() => Err(cancelled().into()),
        error = left => Err(Failure::Gone(error)),
    }
}

impl Connection {
    /// A session after its handshake.
    pub fn new(
        incoming: Incoming<OwnedReadHalf>,
        outgoing: Outgoing<OwnedWriteHalf>,
        session: Session,
        entry: Entry,
        reported: Reported,
    ) -> Self {
        let (statements, portals) = (HashMap::new(), HashMap::new());
        Connection { incoming, outgoing, session, entry, statements, portals, reported, skipping: false }
    }

    /// Serves until the client leaves.
    pub async fn run(mut self) -> io::Result<()> {
        while let Some(message) = self.incoming.next().await? {
            match message {
                Ok(Frontend::Terminate) => return Ok(()),
                Ok(Frontend::Query(sql)) => self.query(&sql).await?,
                Ok(Frontend::Sync) => self.sync().await?,
                Ok(Frontend::Flush) => self.outgoing.flush().await?,
                // What was under way when a `COPY` failed.
                Ok(Frontend::CopyData(_) | Frontend::CopyDone | Frontend::CopyFail(_)) => {}
                Ok(Frontend::Password) => return self.end(SqlError::new("08P01", "no password was asked for")).await,
                Ok(_) if self.skipping => {}
                Ok(message) => self.extended(message).await?,
                Err(violation) if violation.fatal => return self.end(violation.into()).await,
                Err(violation) => self.violated(violation).await?,
            }
        }
        Ok(())
    }

    /// Tells of an error and ends the connection.
    async fn end(mut self, error: SqlError) -> io::Result<()> {
        self.outgoing.put(&error_response(&error, "FATAL", 0))?;
        self.outgoing.flush().await
    }

    async fn violated(&mut self, violation: Violation) -> io::Result<()> {
        let simple = violation.simple;
        if !self.skipping || simple {
            self.failed(&violation.into())?;
        }
        if simple {
            return self.ready().await;
        }
        self.skipping = true;
        Ok(())
    }

    async fn extended(&mut self, message: Frontend) -> io::Result<()> {
        match self.answer(message).await {
            Ok(()) => Ok(()),
            Err(Failure::Gone(error)) => Err(error),
            Err(Failure::Sql(error)) => {
                self.skipping = true;
                self.failed(&error)
            }
        }
    }

    async fn sync(&mut self) -> io::Result<()> {
        self.skipping = false;
        self.ready().await
    }

    /// Tells of an error; an open transaction fails with it.
    fn failed(&mut self, error: &SqlError) -> io::Result<()> {
        self.session.fail_transaction();
        self.notices()?;
        self.outgoing.put(&error_response(error, "ERROR", 0))
    }

    /// The end of an answer: the client may speak again.
    async fn ready(&mut self) -> io::Result<()> {
        let status = match self.session.transaction_status() {
            b'T' => TransactionStatus::Transaction,
            b'E' => TransactionStatus::Error,
            _ => TransactionStatus::Idle,
        };
        if status == TransactionStatus::Idle {
            // Portals live as long as their transaction.
            self.portals.clear();
        }
        self.reported.report(&self.session, &mut self.outgoing)?;
        self.outgoing.put(&ReadyForQuery::new(status))?;
        self.outgoing.flush().await
    }

    async fn query(&mut self, sql: &str) -> io::Result<()> {
        self.skipping = false;
        self.statements.remove("");
        self.portals.remove("");
        match self.run_script(sql).await {
            Ok(()) => {}
            Err(Failure::Sql(error)) => self.failed(&error)?,
            Err(Failure::Gone(error)) => return Err(error),
        }
        self.ready().await
    }

    async fn run_script(&mut self, sql: &str) -> Result<(), Failure> {
        let statements = parse(sql)?;
        let mut ran = false;
        for statement in statements.iter().filter(|s| !matches!(s.kind, StatementKind::Empty)) {
            ran = true;
            self.run_statement(statement).await.map_err(|failure| match failure {
                Failure::Sql(mut error) => {
                    error.position = error.position.map(|p| p + statement.offset);
                    Failure::Sql(error)
                }
                gone => gone,
            })?;
        }
        if !ran {
            self.outgoing.put(&EmptyQueryResponse::new())?;
        }
        Ok(())
    }

    async fn run_statement(&mut self, statement: &Statement) -> Result<(), Failure> {
        self.entry.cancel.reset();
        let response = guarded(&self.entry.cancel, &mut self.incoming, self.session.execute(statement, &[])).await?;
        match response {
            Response::Rows { schema, batches, tag } => self.send_rows(&schema, &batches, &tag).await,
            Response::Done(tag) => Ok(self.complete(&tag)?),
            Response::CopyIn { table, columns, options } => self.copy_in(&table, &columns, &options).await,
            Response::CopyOut { schema, rows, options } => self.copy_out(&schema, rows, &options).await,
            Response::Subscribe(subscription) => self.stream(subscription).await,
            Response::Empty => Ok(self.outgoing.put(&EmptyQueryResponse::new())?),
        }
    }

    async fn send_rows(&mut self, schema: &SchemaRef, batches: &[RecordBatch], tag: &str) -> Result<(), Failure> {
        let format = RowFormat::new(schema, &[])?;
        self.outgoing.put(&format.description(schema))?;
        let mut count = 0;
        for batch in batches {
            let mut rows = format.batch(batch)?;
            for row in 0..rows.len() {
                rows.put(self.outgoing.buffer(), row)?;
                self.outgoing.flush_if_full().await?;
            }
            count += rows.len();
        }
        Ok(self.complete(&counted(tag, count))?)
    }

    /// The end of a statement.
    pub(super) fn complete(&mut self, tag: &str) -> io::Result<()> {
        self.notices()?;
        self.outgoing.put(&CommandComplete::new(tag.to_string()))
    }

    fn notices(&mut self) -> io::Result<()> {
        for notice in self.session.take_notices() {
            self.outgoing.put(&notice_response(&notice))?;
        }
        Ok(())
    }
}

/// The tag of a statement that gave rows; some commands do not count theirs.
pub fn counted(tag: &str, count: usize) -> String {
    if matches!(tag, "SHOW" | "EXPLAIN") { tag.to_string() } else { format!("{tag} {count}") }
}
