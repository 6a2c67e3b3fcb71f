//! Rows without end: `SUBSCRIBE`.
//!
//! Each row is led by the epoch at whose end it holds and by its multiplicity. What a client sees is flushed at
//! each epoch; the stream ends when the client cancels or goes away, or when the relation is dropped.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tidemill_engine::{Change, SqlError, Subscription};

use super::connection::Connection;
use super::failure::{Failure, cancelled};
use super::rows::RowFormat;

/// The columns of a stream of changes: `epoch`, `diff` and the relation's.
pub fn schema(relation: &SchemaRef) -> SchemaRef {
    let mut fields = vec![
        Arc::new(Field::new("epoch", DataType::Int64, false)),
        Arc::new(Field::new("diff", DataType::Int64, false)),
    ];
    fields.extend(relation.fields().iter().cloned());
    Arc::new(Schema::new(fields))
}

/// A change as rows of such a stream.
pub fn rows(schema: &SchemaRef, change: &Change) -> Result<RecordBatch, SqlError> {
    let epoch = i64::try_from(change.epoch).unwrap_or(i64::MAX);
    let mut columns: Vec<ArrayRef> =
        vec![Arc::new(Int64Array::from_value(epoch, change.delta.len())), Arc::new(change.delta.weights())];
    columns.extend(change.delta.rows.columns().iter().cloned());
    RecordBatch::try_new(schema.clone(), columns).map_err(|e| SqlError::internal(e.to_string()))
}

impl Connection {
    /// The next change as rows; `None` at the end of the stream.
    pub(super) async fn next_change(
        &mut self,
        schema: &SchemaRef,
        subscription: &mut Subscription,
    ) -> Result<Option<RecordBatch>, Failure> {
        let change = tokio::select! {
            change = subscription.next() => change?,
            () = self.entry.cancel.requested() => return Err(cancelled().into()),
            error = self.incoming.closed() => return Err(Failure::Gone(error)),
        };
        Ok(change.map(|change| rows(schema, &change)).transpose()?)
    }

    /// Streams rows as the answer to a simple query.
    pub(super) async fn stream(&mut self, mut subscription: Subscription) -> Result<(), Failure> {
        let schema = schema(subscription.schema());
        let format = RowFormat::new(&schema, &[])?;
        self.outgoing.put(&format.description(&schema))?;
        self.outgoing.flush().await?;
        let mut count = 0;
        while let Some(batch) = self.next_change(&schema, &mut subscription).await? {
            let mut rows = format.batch(&batch)?;
            for row in 0..rows.len() {
                rows.put(self.outgoing.buffer(), row)?;
                self.outgoing.flush_if_full().await?;
            }
            count += rows.len();
            self.outgoing.flush().await?;
        }
        Ok(self.complete(&format!("SUBSCRIBE {count}"))?)
    }
}
