//! One client's state, and what each statement does.

mod cursor;
mod definitions;
mod parameters;
mod repair;
mod show;
mod verify;
mod writes;

use std::collections::BTreeMap;
use std::sync::Arc;

use std::panic::AssertUnwindSafe;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use futures::FutureExt;
use tidemill_plan::RelationId;
use tidemill_sql::{
    CopyOptions, Description, Notice, Param, Relation, RelationKind, SqlError, Statement, StatementKind, SubscribeTo,
    state,
};

pub use self::cursor::{change_rows, change_schema};

use self::cursor::Cursor;
use self::parameters::Parameters;
use crate::catalog::kind_name;
use crate::engine::Engine;
use crate::panics::panic_text;
use crate::subscription::{SubscribeFrom, Subscription};
use crate::table::TableChange;

/// What a statement answers.
pub enum Response {
    /// Rows.
    Rows {
        /// The columns.
        schema: SchemaRef,
        /// The rows.
        batches: Vec<RecordBatch>,
        /// The command tag without the row count (`SELECT`, `INSERT 0`, `FETCH`, `SHOW`, `EXPLAIN`).
        tag: String,
    },
    /// Done: the full command tag (`CREATE TABLE`, `INSERT 0 3`).
    Done(String),
    /// Wants rows: decode what comes and give it to [`Session::copy_rows`].
    CopyIn {
        /// The table.
        table: Arc<Relation>,
        /// The columns sent, as numbers of the table's.
        columns: Vec<usize>,
        /// In what form.
        options: CopyOptions,
    },
    /// Gives rows in `COPY` form.
    CopyOut {
        /// The columns.
        schema: SchemaRef,
        /// The rows, or a live reader.
        rows: CopyOutRows,
        /// In what form.
        options: CopyOptions,
    },
    /// A live reader (plain `SUBSCRIBE`).
    Subscribe(Subscription),
    /// The statement was empty.
    Empty,
}

/// What `COPY ... TO STDOUT` gives.
#[allow(clippy::large_enum_variant, reason = "there is one per statement")]
pub enum CopyOutRows {
    /// Rows.
    Batches(Vec<RecordBatch>),
    /// Changes without end, each row led by epoch and diff.
    Live(Subscription),
}

/// Where a session's transaction stands.
enum Transaction {
    None,
    /// Changes wait for `COMMIT`.
    Open(Vec<(Arc<Relation>, TableChange)>),
    Failed,
}

/// One client's state: transaction, parameters, cursors, notices.
pub struct Session {
    engine: Engine,
    transaction: Transaction,
    parameters: Parameters,
    cursors: BTreeMap<String, Cursor>,
    notices: Vec<Notice>,
}

impl Session {
    pub(crate) fn new(engine: Engine) -> Self {
        Session {
            engine,
            transaction: Transaction::None,
            parameters: Parameters::default(),
            cursors: BTreeMap::new(),
            notices: Vec::new(),
        }
    }

    /// What a statement takes and gives, without running it.
    pub async fn describe(
        &mut self,
        statement: &Statement,
        types: &[Option<DataType>],
    ) -> Result<Description, SqlError> {
        match &statement.kind {
            StatementKind::Fetch { name, .. } => {
                let schema = Some(self.cursor(name)?.schema());
                Ok(Description { params: Vec::new(), schema })
            }
            StatementKind::Subscribe(to) => {
                let relation = self.engine.inner.catalog().find(&to.name)?;
                Ok(Description { params: Vec::new(), schema: Some(change_schema(&relation.schema)) })
            }
            kind => {
                let inner = &self.engine.inner;
                let described = async { inner.planner.describe(inner.catalog().as_ref(), kind, types) };
                caught(described).await.map_err(|error| error.in_text(&statement.text))
            }
        }
    }

    /// Runs a statement.
    pub async fn execute(&mut self, statement: &Statement, params: &[Param]) -> Result<Response, SqlError> {
        let ends = matches!(statement.kind, StatementKind::Commit | StatementKind::Rollback);
        if matches!(self.transaction, Transaction::Failed) && !ends {
            let message = "current transaction is aborted, commands ignored until end of transaction block";
            return Err(SqlError::new("25P02", message));
        }
        let result = caught(Box::pin(self.run(&statement.kind, &statement.text, params))).await;
        let result = result.map_err(|error| error.in_text(&statement.text));
        if result.is_err() {
            self.fail_transaction();
        }
        result
    }

    async fn run(&mut self, kind: &StatementKind, text: &str, params: &[Param]) -> Result<Response, SqlError> {
        match kind {
            StatementKind::Empty => Ok(Response::Empty),
            StatementKind::CreateRelation(create) => self.create_relation(create, text).await,
            StatementKind::CreateView(create) => self.create_view(create, text).await,
            StatementKind::CreateSink(create) => self.create_sink(create, text).await,
            StatementKind::Drop { kind, names, if_exists, cascade } => {
                self.drop_objects(*kind, names, *if_exists, *cascade).await
            }
            StatementKind::Query(query) => {
                let rows = self.query(query, params).await?;
                Ok(Response::Rows { schema: rows.schema, batches: rows.batches, tag: "SELECT".into() })
            }
            StatementKind::Insert(_) | StatementKind::Update(_) | StatementKind::Delete(_) => {
                self.write(kind, params).await
            }
            StatementKind::Truncate(names) => self.truncate(names).await,
            StatementKind::CopyFrom { table, columns, options } => self.copy_from(table, columns, options),
            StatementKind::CopyTo { what, options } => self.copy_to(what, options, params).await,
            StatementKind::Subscribe(to) => Ok(Response::Subscribe(self.subscribe(to)?)),
            StatementKind::Explain(what) => self.explain(what),
            StatementKind::Show(what) => self.show(what),
            StatementKind::Verify(name) => self.verify(name).await,
            StatementKind::ApplyLate { from, query } => self.apply_late(from, query, params).await,
            StatementKind::Resume { kind, name } => self.resume(*kind, name).await,
            StatementKind::Set { name, value } => {
                self.parameters.set(name, value.as_deref())?;
                Ok(Response::Done("SET".into()))
            }
            StatementKind::Reset(name) => {
                self.parameters.reset(name.as_deref());
                Ok(Response::Done("RESET".into()))
            }
            StatementKind::Begin => Ok(self.begin()),
            StatementKind::Commit => self.commit().await,
            StatementKind::Rollback => Ok(self.rollback()),
            StatementKind::Declare { name, what } => self.declare(name, what, params).await,
            StatementKind::Fetch { name, count, timeout_ms } => self.fetch(name, *count, *timeout_ms).await,
            StatementKind::Close(name) => self.close(name.as_deref()),
            StatementKind::Discard => {
                self.cursors.clear();
                Ok(Response::Done("DISCARD ALL".into()))
            }
        }
    }

    async fn query(&self, query: &tidemill_sql::Query, params: &[Param]) -> Result<tidemill_sql::QueryRows, SqlError> {
        let inner = &self.engine.inner;
        // The catalog first: what it names is in the rows, which only gain relations after it.
        let catalog = inner.catalog();
        self.in_time(inner.planner.query(catalog, inner.published.snapshot(), query, params)).await
    }

    /// Waits for reading work, but no longer than the session's `statement_timeout`.
    async fn in_time<T>(&self, work: impl Future<Output = Result<T, SqlError>>) -> Result<T, SqlError> {
        let Some(limit) = self.parameters.statement_timeout() else { return work.await };
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
            let message = format!("the statement took more than {} ms", limit.as_millis());
            Err(SqlError::new(state::QUERY_CANCELED, message).hint("SET statement_timeout = 0 takes the limit away."))
        })
    }

    fn subscribe(&self, to: &SubscribeTo) -> Result<Subscription, SqlError> {
        let relation = self.engine.inner.catalog().find(&to.name)?;
        let from = match (to.as_of, to.snapshot) {
            (Some(epoch), _) => SubscribeFrom::After(epoch),
            (None, true) => SubscribeFrom::Snapshot,
            (None, false) => SubscribeFrom::Now,
        };
        self.engine.subscribe_to(&relation, from)
    }

    fn copy_from(
        &self,
        name: &tidemill_sql::ObjectName,
        columns: &[String],
        options: &CopyOptions,
    ) -> Result<Response, SqlError> {
        let table = self.engine.inner.catalog().find(name)?;
        writable(&table)?;
        let place = |column: &String| {
            table.schema.index_of(column).map_err(|_| {
                let message = format!("column \"{column}\" of relation \"{}\" does not exist", table.name);
                SqlError::new(state::UNDEFINED_COLUMN, message)
            })
        };
        let columns = if columns.is_empty() {
            let generated = |c: &usize| table.generated.iter().any(|g| g.column == *c);
            (0..table.schema.fields().len()).filter(|c| !generated(c)).collect()
        } else {
            columns.iter().map(place).collect::<Result<_, _>>()?
        };
        Ok(Response::CopyIn { table, columns, options: options.clone() })
    }

    async fn copy_to(
        &mut self,
        what: &StatementKind,
        options: &CopyOptions,
        params: &[Param],
    ) -> Result<Response, SqlError> {
        match what {
            StatementKind::Subscribe(to) => {
                let live = self.subscribe(to)?;
                let schema = change_schema(live.schema());
                Ok(Response::CopyOut { schema, rows: CopyOutRows::Live(live), options: options.clone() })
            }
            StatementKind::Query(query) => {
                let rows = self.query(query, params).await?;
                let options = options.clone();
                Ok(Response::CopyOut { schema: rows.schema, rows: CopyOutRows::Batches(rows.batches), options })
            }
            _ => Err(SqlError::not_supported("COPY TO gives the rows of a query or of a SUBSCRIBE")),
        }
    }

    /// Takes rows of a `COPY ... FROM STDIN`: batches of the columns that [`Response::CopyIn`]
    /// named. All or nothing: a bad row fails the `COPY`, as in PostgreSQL. Returns the row count.
    pub async fn copy_rows(
        &mut self,
        table: &Arc<Relation>,
        columns: &[usize],
        rows: Vec<RecordBatch>,
    ) -> Result<u64, SqlError> {
        let result = self.copy_all(table, columns, rows).await;
        if result.is_err() {
            self.fail_transaction();
        }
        result
    }

    /// Notices of the last statement.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// The transaction status for the wire: `I` idle, `T` in a transaction, `E` in a failed one.
    pub fn transaction_status(&self) -> u8 {
        match self.transaction {
            Transaction::None => b'I',
            Transaction::Open(_) => b'T',
            Transaction::Failed => b'E',
        }
    }

    /// Marks an open transaction as failed (after an error outside `execute`).
    pub fn fail_transaction(&mut self) {
        if matches!(self.transaction, Transaction::Open(_)) {
            self.transaction = Transaction::Failed;
        }
    }

    /// A run-time parameter (`client_encoding`, `application_name`, ...), set or default.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.parameters.get(name)
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}

/// A statement gets another stack if less than this is left, in bytes.
const ROOM: usize = 16 << 20;
/// The size of that stack; memory is taken as it is used.
const STACK: usize = 64 << 20;

/// A statement's work: a panic, always a bug of ours, ends that statement only.
async fn caught<T>(work: impl Future<Output = Result<T, SqlError>>) -> Result<T, SqlError> {
    let mut work = std::pin::pin!(AssertUnwindSafe(work).catch_unwind());
    // Planning recurses as deep as statements are nested, and callers' threads may have small stacks.
    let deep = std::future::poll_fn(|cx| stacker::maybe_grow(ROOM, STACK, || work.as_mut().poll(cx)));
    deep.await.unwrap_or_else(|panic| {
        let text = panic_text(panic.as_ref());
        tracing::error!(panic = text, "a statement panicked");
        Err(SqlError::internal(format!("the statement failed by a bug: {text}")))
    })
}

/// Whether statements may change a relation's rows.
fn writable(relation: &Relation) -> Result<RelationId, SqlError> {
    if relation.kind == RelationKind::Table {
        return Ok(relation.id);
    }
    let message = format!("cannot change {} \"{}\"", kind_name(relation.kind), relation.name);
    Err(SqlError::new(state::WRONG_OBJECT_TYPE, message).hint("Rows can only be put into tables."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_of_its_statement() {
        let panics = async { if true { panic!("no {}", "luck") } else { Ok(()) } };
        let error = caught(panics).await.expect_err("an error");
        assert_eq!((error.code, error.message.as_str()), ("XX000", "the statement failed by a bug: no luck"));
        assert_eq!(caught(async { Ok(1) }).await, Ok(1));
    }
}
