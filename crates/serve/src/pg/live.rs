//! Rows without end: `SUBSCRIBE`.
//!
//! Each row is led by the epoch at whose end it holds and by its multiplicity. What a client sees is flushed at
//! each epoch; the stream ends when the client cancels or goes away, or when the relation is dropped.

use arrow::array::RecordBatch;
use tidemill_engine::{Subscription, change_rows, change_schema};

use super::connection::Connection;
use super::failure::{Failure, cancelled};
use super::rows::RowFormat;

impl Connection {
    /// The next change as rows; `None` at the end of the stream.
    pub(super) async fn next_change(
        &mut self,
        subscription: &mut Subscription,
    ) -> Result<Option<RecordBatch>, Failure> {
        let change = tokio::select! {
            change = subscription.next() => change?,
            () = self.entry.cancel.requested() => return Err(cancelled().into()),
            error = self.incoming.closed() => return Err(Failure::Gone(error)),
        };
        Ok(change.as_ref().map(change_rows))
    }

    /// Streams rows as the answer to a simple query.
    pub(super) async fn stream(&mut self, mut subscription: Subscription) -> Result<(), Failure> {
        let schema = change_schema(subscription.schema());
        let format = RowFormat::new(&schema, &[])?;
        self.outgoing.put(&format.description(&schema))?;
        self.outgoing.flush().await?;
        let mut count = 0;
        while let Some(batch) = self.next_change(&mut subscription).await? {
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
