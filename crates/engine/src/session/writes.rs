//! `INSERT`, `UPDATE`, `DELETE`, `TRUNCATE`, `COPY FROM` and transactions.
//!
//! Outside a transaction a statement's changes go into one epoch, and the statement returns when that
//! epoch can be read. Inside one, changes wait for `COMMIT` and go into one epoch together.

use std::sync::Arc;

use arrow::array::RecordBatch;
use tidemill_plan::RelationId;
use tidemill_sql::{DmlRows, Notice, ObjectName, OnConflict, Param, Relation, Snapshot, SqlError, StatementKind};

use super::{Response, Session, Transaction, writable};
use crate::conductor::Request;
use crate::table::TableChange;

impl Session {
    pub(super) async fn write(&mut self, kind: &StatementKind, params: &[Param]) -> Result<Response, SqlError> {
        let inner = self.engine.inner.clone();
        // What a statement reads must not change before its own change is in; plain inserts read nothing.
        let reads = !matches!(kind, StatementKind::Insert(_));
        let _one_at_a_time = if reads { Some(inner.dml.lock().await) } else { None };
        let (catalog, snapshot) = (inner.catalog(), inner.published.snapshot());
        let seen = snapshot.epoch();
        let rows = self.in_time(inner.planner.dml(catalog, snapshot, kind, params)).await?;
        let verb = match kind {
            StatementKind::Insert(_) => "INSERT 0",
            StatementKind::Update(_) => "UPDATE",
            _ => "DELETE",
        };
        writable(&rows.table)?;
        self.check_append_only(&rows)?;
        let DmlRows { table, removed, added, count, on_conflict, returning } = rows;
        if !(removed.iter().chain(&added).all(|b| b.num_rows() == 0)) {
            self.check_own_changes(&table, reads)?;
            self.change(table, TableChange { removed, added, on_conflict, seen }).await?;
        }
        match returning {
            Some(rows) => Ok(Response::Rows { schema: rows.schema, batches: rows.batches, tag: verb.into() }),
            None => Ok(Response::Done(format!("{verb} {count}"))),
        }
    }

    fn check_append_only(&self, rows: &DmlRows) -> Result<(), SqlError> {
        if !rows.table.append_only || rows.removed.iter().all(|b| b.num_rows() == 0) {
            return Ok(());
        }
        let message = format!("rows of \"{}\" cannot be changed: a table with a watermark only grows", rows.table.name);
        Err(SqlError::not_supported(message).hint("Leave out WATERMARK FOR to be able to update and delete."))
    }

    /// A statement that reads rows does not see what its own transaction has not committed yet.
    fn check_own_changes(&self, table: &Relation, reads: bool) -> Result<(), SqlError> {
        match &self.transaction {
            Transaction::Open(changes) if reads && changes.iter().any(|(t, _)| t.id == table.id) => {
                let message = format!("\"{}\" was already changed in this transaction", table.name);
                Err(SqlError::not_supported(message).hint("Commit before you update or delete its rows."))
            }
            _ => Ok(()),
        }
    }

    /// Puts a change into an epoch, or into the transaction.
    async fn change(&mut self, table: Arc<Relation>, change: TableChange) -> Result<(), SqlError> {
        if let Transaction::Open(changes) = &mut self.transaction {
            changes.push((table, change));
            return Ok(());
        }
        self.write_changes(vec![(table.id, change)]).await
    }

    async fn write_changes(&self, changes: Vec<(RelationId, TableChange)>) -> Result<(), SqlError> {
        let rows: Vec<RecordBatch> =
            changes.iter().flat_map(|(_, change)| change.removed.iter().chain(&change.added)).cloned().collect();
        self.engine.inner.ask_with_rows(rows.iter(), |reply| Request::Write { changes, reply }).await?;
        Ok(())
    }

    pub(super) async fn truncate(&mut self, names: &[ObjectName]) -> Result<Response, SqlError> {
        let inner = self.engine.inner.clone();
        let _one_at_a_time = inner.dml.lock().await;
        let (catalog, snapshot) = (inner.catalog(), inner.published.snapshot());
        for name in names {
            let table = catalog.find(name)?;
            writable(&table)?;
            let removed: Vec<RecordBatch> = snapshot.rows(&table)?;
            let rows = DmlRows {
                table: table.clone(),
                removed,
                added: Vec::new(),
                count: 0,
                on_conflict: OnConflict::Error,
                returning: None,
            };
            self.check_append_only(&rows)?;
            self.check_own_changes(&table, true)?;
            let change = TableChange {
                removed: rows.removed,
                added: Vec::new(),
                on_conflict: OnConflict::Error,
                seen: snapshot.epoch(),
            };
            self.change(table, change).await?;
        }
        Ok(Response::Done("TRUNCATE TABLE".into()))
    }

    pub(super) async fn copy_all(
        &mut self,
        table: &Arc<Relation>,
        columns: &[usize],
        rows: Vec<RecordBatch>,
    ) -> Result<u64, SqlError> {
        let inner = self.engine.inner.clone();
        let complete = |rows| inner.complete(table, columns, rows);
        let added = rows.into_iter().map(complete).collect::<Result<Vec<_>, _>>()?;
        let count = added.iter().map(|b| b.num_rows() as u64).sum();
        if count > 0 {
            let change = TableChange { removed: Vec::new(), added, on_conflict: OnConflict::Error, seen: 0 };
            self.change(table.clone(), change).await?;
        }
        Ok(count)
    }

    pub(super) fn begin(&mut self) -> Response {
        if matches!(self.transaction, Transaction::None) {
            self.transaction = Transaction::Open(Vec::new());
        } else {
            self.warn("there is already a transaction in progress");
        }
        Response::Done("BEGIN".into())
    }

    pub(super) async fn commit(&mut self) -> Result<Response, SqlError> {
        self.cursors.clear();
        match std::mem::replace(&mut self.transaction, Transaction::None) {
            Transaction::None => {
                self.warn("there is no transaction in progress");
                Ok(Response::Done("COMMIT".into()))
            }
            Transaction::Failed => Ok(Response::Done("ROLLBACK".into())),
            Transaction::Open(changes) => {
                let changes: Vec<(RelationId, TableChange)> = changes.into_iter().map(|(t, c)| (t.id, c)).collect();
                if !changes.is_empty() {
                    self.write_changes(changes).await?;
                }
                Ok(Response::Done("COMMIT".into()))
            }
        }
    }

    pub(super) fn rollback(&mut self) -> Response {
        self.cursors.clear();
        if matches!(std::mem::replace(&mut self.transaction, Transaction::None), Transaction::None) {
            self.warn("there is no transaction in progress");
        }
        Response::Done("ROLLBACK".into())
    }

    fn warn(&mut self, message: &str) {
        self.notices.push(Notice { message: message.to_owned(), hint: None });
    }
}
