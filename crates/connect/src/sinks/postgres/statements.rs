//! The SQL that a sink speaks.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use bytes::Bytes;
use futures::SinkExt;
use tidemill_delta::Epoch;
use tokio_postgres::{Client, Transaction};

use super::link::{failed, within};
use crate::cells::PgTextOptions;
use crate::csv_out::copy_row;
use crate::sink::{Opening, SinkError};

/// `COPY` data is sent in pieces of this size.
const PIECE: usize = 1 << 20;

/// What is said about one table.
#[derive(Clone)]
pub(super) struct Statements {
    /// Makes the places for a commit's rows and keys; empty when rows are appended.
    prepare: String,
    /// Asks for what must be there.
    check: String,
    copy: String,
    copy_gone: String,
    delete: String,
    insert: String,
}

/// A name in quotes.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Statements {
    pub(super) fn new(namespace: Option<&str>, table: &str, schema: &Schema, key: &[usize]) -> Statements {
        let name = |c: usize| quoted(schema.field(c).name());
        let list = |columns: &mut dyn Iterator<Item = usize>| columns.map(name).collect::<Vec<_>>().join(", ");
        let columns = list(&mut (0..schema.fields().len()));
        let table = namespace.map(|n| quoted(n) + ".").unwrap_or_default() + &quoted(table);
        let check = format!("SELECT {columns} FROM {table} LIMIT 0");
        if key.is_empty() {
            let copy = format!("COPY {table} ({columns}) FROM STDIN");
            let none = String::new;
            return Statements { prepare: none(), check, copy, copy_gone: none(), delete: none(), insert: none() };
        }
        let keys = list(&mut key.iter().copied());
        let same = |a: &str, b: &str| {
            let pairs = key.iter().map(|c| format!("{a}.{} = {b}.{}", name(*c), name(*c)));
            pairs.collect::<Vec<_>>().join(" AND ")
        };
        let others = (0..schema.fields().len()).filter(|c| !key.contains(c));
        let set: Vec<String> = others.map(|c| format!("{} = EXCLUDED.{}", name(c), name(c))).collect();
        let action = if set.is_empty() { "NOTHING".into() } else { format!("UPDATE SET {}", set.join(", ")) };
        let temporary = |name: &str, columns: &str| {
            let made = format!("ON COMMIT DELETE ROWS AS SELECT {columns} FROM {table} WITH NO DATA;");
            format!("CREATE TEMP TABLE {name} {made}")
        };
        let (rows, gone) = ("pg_temp.tidemill_rows", "pg_temp.tidemill_gone");
        Statements {
            prepare: temporary("tidemill_rows", &columns) + &temporary("tidemill_gone", &keys),
            check,
            copy: format!("COPY {rows} ({columns}) FROM STDIN"),
            copy_gone: format!("COPY {gone} ({keys}) FROM STDIN"),
            delete: format!(
                "DELETE FROM {table} AS t USING {gone} AS g WHERE {} AND NOT EXISTS (SELECT FROM {rows} AS r WHERE {})",
                same("t", "g"),
                same("r", "g")
            ),
            insert: format!(
                "INSERT INTO {table} ({columns}) SELECT {columns} FROM {rows} ON CONFLICT ({keys}) DO {action}"
            ),
        }
    }

    /// Once per connection.
    pub(super) async fn prepare(&self, client: &Client) -> Result<(), SinkError> {
        client.batch_execute(&self.prepare).await.map_err(|e| failed(&e))
    }

    /// Fails if the table, a column or the constraint on the key is missing.
    pub(super) async fn check(&self, transaction: &Transaction<'_>) -> Result<(), SinkError> {
        transaction.batch_execute(&self.check).await.map_err(|e| failed(&e))?;
        // Of no rows, but planned, which needs the constraint.
        transaction.batch_execute(&self.insert).await.map_err(|e| failed(&e))
    }

    pub(super) async fn append(
        &self,
        transaction: &Transaction<'_>,
        rows: &[RecordBatch],
        timeout: Duration,
    ) -> Result<(), SinkError> {
        copy(transaction, &self.copy, rows, timeout).await
    }

    pub(super) async fn upsert(
        &self,
        transaction: &Transaction<'_>,
        gone: &RecordBatch,
        rows: &RecordBatch,
        timeout: Duration,
    ) -> Result<(), SinkError> {
        copy(transaction, &self.copy, std::slice::from_ref(rows), timeout).await?;
        if gone.num_rows() > 0 {
            copy(transaction, &self.copy_gone, std::slice::from_ref(gone), timeout).await?;
            let delete = async { transaction.batch_execute(&self.delete).await.map_err(|e| failed(&e)) };
            within(timeout, delete).await?;
        }
        within(timeout, async { transaction.batch_execute(&self.insert).await.map_err(|e| failed(&e)) }).await
    }
}

async fn copy(
    transaction: &Transaction<'_>,
    statement: &str,
    rows: &[RecordBatch],
    timeout: Duration,
) -> Result<(), SinkError> {
    if rows.iter().all(|batch| batch.num_rows() == 0) {
        return Ok(());
    }
    let begun = async { transaction.copy_in::<_, Bytes>(statement).await.map_err(|e| failed(&e)) };
    let mut to = std::pin::pin!(within(timeout, begun).await?);
    let (options, mut text) = (PgTextOptions::default(), String::new());
    for batch in rows {
        for row in 0..batch.num_rows() {
            copy_row(batch, row, &options, &mut text);
            if text.len() >= PIECE {
                let piece = Bytes::from(std::mem::take(&mut text));
                within(timeout, async { to.send(piece).await.map_err(|e| failed(&e)) }).await?;
            }
        }
    }
    let end = async {
        to.send(Bytes::from(text)).await.map_err(|e| failed(&e))?;
        to.as_mut().finish().await.map_err(|e| failed(&e))
    };
    within(timeout, end).await.map(|_| ())
}

/// A number as PostgreSQL has them.
pub(super) fn number(number: u64) -> Result<i64, SinkError> {
    i64::try_from(number).map_err(|_| SinkError::fatal("the number is too large for a bigint"))
}

/// The incarnation and the epoch recorded for a sink, its row locked.
async fn locked(transaction: &Transaction<'_>, sink: &str) -> Result<Option<(u64, Option<Epoch>)>, SinkError> {
    let select = "SELECT incarnation, epoch FROM tidemill_sinks WHERE sink = $1 FOR UPDATE";
    let row = transaction.query_opt(select, &[&sink]).await.map_err(|e| failed(&e))?;
    let Some(row) = row else { return Ok(None) };
    let incarnation: i64 = row.try_get(0).map_err(|e| failed(&e))?;
    let epoch: Option<i64> = row.try_get(1).map_err(|e| failed(&e))?;
    Ok(Some((incarnation.try_into().unwrap_or(0), epoch.and_then(|e| e.try_into().ok()))))
}

/// Makes this incarnation the one that may write; answers the epoch recorded.
pub(super) async fn take_over(
    transaction: &Transaction<'_>,
    sink: &str,
    opening: Opening,
) -> Result<Option<Epoch>, SinkError> {
    let missing = "SELECT to_regclass('tidemill_sinks') IS NULL";
    let missing = transaction.query_one(missing, &[]).await.and_then(|row| row.try_get(0)).map_err(|e| failed(&e))?;
    if missing {
        let create = "CREATE TABLE tidemill_sinks (sink text PRIMARY KEY, incarnation bigint NOT NULL, epoch bigint)";
        // Another sink may just be making it.
        transaction.batch_execute(create).await.map_err(|e| SinkError::retry(failed(&e).to_string()))?;
    }
    let own = number(opening.incarnation)?;
    let Some((incarnation, epoch)) = locked(transaction, sink).await? else {
        if !opening.created {
            return Err(SinkError::Fatal(format!(
                "table tidemill_sinks does not know the sink \"{sink}\" any more, so what the table has cannot be known"
            )));
        }
        let insert = "INSERT INTO tidemill_sinks (sink, incarnation) VALUES ($1, $2)";
        transaction.execute(insert, &[&sink, &own]).await.map_err(|e| failed(&e))?;
        return Ok(None);
    };
    if incarnation > opening.incarnation {
        return Err(SinkError::fenced(opening.incarnation, incarnation));
    }
    if opening.created && epoch.is_some() {
        return Err(SinkError::Fatal(format!(
            "table tidemill_sinks knows an earlier sink \"{sink}\": choose another name or, to begin anew, delete its row"
        )));
    }
    let update = "UPDATE tidemill_sinks SET incarnation = $2 WHERE sink = $1";
    transaction.execute(update, &[&sink, &own]).await.map_err(|e| failed(&e))?;
    Ok(epoch)
}

/// The epoch recorded, if this incarnation may write.
pub(super) async fn recorded(
    transaction: &Transaction<'_>,
    sink: &str,
    incarnation: u64,
) -> Result<Option<Epoch>, SinkError> {
    match locked(transaction, sink).await? {
        Some((recorded, epoch)) if recorded == incarnation => Ok(epoch),
        Some((recorded, _)) => Err(SinkError::fenced(incarnation, recorded)),
        None => Err(SinkError::Fenced("another incarnation has dropped the sink".into())),
    }
}

/// Records the epoch that the transaction goes up to.
pub(super) async fn record(transaction: &Transaction<'_>, sink: &str, epoch: Epoch) -> Result<(), SinkError> {
    let update = "UPDATE tidemill_sinks SET epoch = $2 WHERE sink = $1";
    transaction.execute(update, &[&sink, &number(epoch)?]).await.map(|_| ()).map_err(|e| failed(&e))
}
