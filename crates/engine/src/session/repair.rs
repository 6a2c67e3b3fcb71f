//! `APPLY LATE` and `ALTER ... RESUME`.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use tidemill_connect::Opening;
use tidemill_delta::{batch, relaxed};
use tidemill_sql::{DropKind, ObjectName, Param, Query, Relation, RelationKind, SqlError, state};
use tokio::sync::oneshot;

use super::definitions::{find_kind, opened};
use super::{Response, Session, Transaction};
use crate::conductor::{LateRows, Repair, Request, ResumedSink};
use crate::define::make;

impl Session {
    pub(super) async fn apply_late(
        &mut self,
        from: &ObjectName,
        query: &Query,
        params: &[Param],
    ) -> Result<Response, SqlError> {
        self.outside_transaction("APPLY LATE")?;
        let inner = self.engine.inner.clone();
        // Neither views nor the table's rows change meanwhile, other than by rows that come in.
        let _no_definitions = inner.ddl.lock().await;
        let _one_at_a_time = inner.dml.lock().await;
        let (side, table) = self.late_table(from)?;
        let found = self.query(query, params).await?;
        let rows = as_stored(&relaxed(&side.schema), &found.batches)?;
        let (moved, count) = oneshot::channel();
        let late = |reply| Request::Repair(Repair::ApplyLate(LateRows { table: table.id, rows, moved, reply }));
        inner.ask(late).await?;
        Ok(Response::Done(format!("APPLY LATE {}", count.await.unwrap_or(0))))
    }

    /// A table's `t$late`, and the table.
    fn late_table(&self, name: &ObjectName) -> Result<(Arc<Relation>, Arc<Relation>), SqlError> {
        let catalog = self.engine.inner.catalog();
        let side = catalog.find(name)?;
        let wrong = || {
            let message = format!("\"{}\" does not hold late rows", side.name);
            let error = SqlError::new(state::WRONG_OBJECT_TYPE, message).hint("Name the t$late of a table t.");
            match name.position {
                Some(position) => error.at(position),
                None => error,
            }
        };
        let late = side.kind == RelationKind::System && side.name.ends_with("$late");
        let of = side.id.checked_sub(2).filter(|_| late).and_then(|id| catalog.get(id)).ok_or_else(wrong)?;
        match of.kind {
            RelationKind::Table => Ok((side.clone(), of.clone())),
            _ => {
                let message = format!("late rows of source \"{}\" cannot be applied: its rows are not kept", of.name);
                Err(SqlError::not_supported(message)
                    .hint("Read them with a view over the side table, or take the rows in by a table."))
            }
        }
    }

    pub(super) async fn resume(&mut self, kind: DropKind, name: &ObjectName) -> Result<Response, SqlError> {
        let inner = self.engine.inner.clone();
        let _one_at_a_time = inner.ddl.lock().await;
        let id = find_kind(&inner.catalog(), kind, name)?;
        match kind {
            DropKind::MaterializedView => {
                inner.ask(|reply| Request::Repair(Repair::ResumeView { view: id, reply })).await?;
                Ok(Response::Done("ALTER MATERIALIZED VIEW".into()))
            }
            DropKind::Source => {
                inner.ask(|reply| Request::Repair(Repair::ResumeSource { source: id, reply })).await?;
                Ok(Response::Done("ALTER SOURCE".into()))
            }
            DropKind::Sink => {
                let object = inner.ask(|reply| Request::Repair(Repair::SinkToResume { sink: id, reply })).await?;
                let made = make(&inner.planner, &inner.catalog(), &object, &inner.env)?;
                let made = made.sink.ok_or_else(|| SqlError::internal("the definition of a sink makes none"))?;
                let incarnation = inner.incarnation.load(std::sync::atomic::Ordering::Relaxed);
                // It takes up what is there, and nobody else writes meanwhile: the one before is at rest.
                let (sink, committed) = opened(made.sink, Opening { incarnation, created: false }).await?;
                let resumed = |reply| Request::Repair(Repair::ResumeSink(ResumedSink { id, sink, committed, reply }));
                inner.ask(resumed).await?;
                Ok(Response::Done("ALTER SINK".into()))
            }
            DropKind::Table | DropKind::View => Err(SqlError::internal("tables and plain views never stop")),
        }
    }

    fn outside_transaction(&self, what: &str) -> Result<(), SqlError> {
        if matches!(self.transaction, Transaction::None) {
            return Ok(());
        }
        Err(SqlError::new("25001", format!("{what} cannot run inside a transaction block")))
    }
}

/// A query's rows with the types of the relation that they are from.
fn as_stored(schema: &SchemaRef, found: &[RecordBatch]) -> Result<Vec<RecordBatch>, SqlError> {
    let stored = |rows: &RecordBatch| {
        let columns = rows.columns().iter().zip(schema.fields()).map(|(column, field)| cast(column, field.data_type()));
        let columns = columns.collect::<Result<Vec<_>, _>>().map_err(|e| SqlError::internal(e.to_string()))?;
        Ok(batch(schema.clone(), columns, rows.num_rows()))
    };
    found.iter().map(stored).collect()
}
