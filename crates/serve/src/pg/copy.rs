//! `COPY`: rows in bulk, in and out.

mod reader;
mod writer;

use std::io;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use pgwire::messages::copy::{CopyData, CopyDone, CopyInResponse, CopyOutResponse};
use tidemill_engine::{CopyOptions, CopyOutRows, Relation, SqlError};

use super::connection::{Connection, guarded};
use super::failure::Failure;
use super::frame::Frontend;
use reader::CopyReader;
use writer::CopyWriter;

impl Connection {
    /// Takes rows for a table: all of them, or none and an error.
    pub(super) async fn copy_in(
        &mut self,
        table: &Arc<Relation>,
        columns: &[usize],
        options: &CopyOptions,
    ) -> Result<(), Failure> {
        let formats = vec![0; columns.len()];
        self.outgoing.put(&CopyInResponse::new(0, columns.len() as i16, formats))?;
        self.outgoing.flush().await?;
        let mut reader = CopyReader::new(table, columns, options)?;
        loop {
            match self.copy_message().await? {
                Frontend::CopyData(data) => reader.push(&data)?,
                Frontend::CopyDone => break,
                Frontend::CopyFail(reason) => {
                    let message = format!("COPY from stdin failed: {reason}");
                    return Err(SqlError::new("57014", message).into());
                }
                // Clients may send these before they notice that the statement is a `COPY`.
                Frontend::Flush | Frontend::Sync => {}
                _ => return Err(SqlError::new("08P01", "unexpected message during COPY from stdin").into()),
            }
        }
        let batches = reader.finish()?;
        let work = self.session.copy_rows(table, columns, batches);
        let count = guarded(&self.entry.cancel, &mut self.incoming, work).await?;
        Ok(self.complete(&format!("COPY {count}"))?)
    }

    async fn copy_message(&mut self) -> Result<Frontend, Failure> {
        let message = tokio::select! {
            biased;
            () = self.entry.cancel.requested() => return Err(super::failure::cancelled().into()),
            message = self.incoming.next() => message?,
        };
        match message {
            None => Err(Failure::Gone(io::ErrorKind::UnexpectedEof.into())),
            Some(Ok(Frontend::Terminate)) => Err(Failure::Gone(io::ErrorKind::UnexpectedEof.into())),
            Some(Ok(message)) => Ok(message),
            Some(Err(violation)) if violation.fatal => Err(Failure::Gone(io::Error::other(violation.message))),
            Some(Err(violation)) => Err(SqlError::from(violation).into()),
        }
    }

    /// Gives rows, or changes without end.
    pub(super) async fn copy_out(
        &mut self,
        schema: &SchemaRef,
        rows: CopyOutRows,
        options: &CopyOptions,
    ) -> Result<(), Failure> {
        match rows {
            CopyOutRows::Batches(batches) => {
                let mut writer = self.begin_copy_out(schema, options).await?;
                for batch in &batches {
                    self.copy_batch(&mut writer, batch).await?;
                }
                self.end_copy_out(&writer)
            }
            CopyOutRows::Live(mut subscription) => {
                let mut writer = self.begin_copy_out(schema, options).await?;
                self.outgoing.flush().await?;
                while let Some(batch) = self.next_change(&mut subscription).await? {
                    self.copy_batch(&mut writer, &batch).await?;
                    self.outgoing.flush().await?;
                }
                self.end_copy_out(&writer)
            }
        }
    }

    async fn begin_copy_out(&mut self, schema: &SchemaRef, options: &CopyOptions) -> Result<CopyWriter, Failure> {
        let width = schema.fields().len();
        self.outgoing.put(&CopyOutResponse::new(0, width as i16, vec![0; width]))?;
        let mut writer = CopyWriter::new(schema.clone(), options.clone());
        if let Some(header) = writer.header() {
            self.outgoing.put(&CopyData::new(Bytes::copy_from_slice(header.as_bytes())))?;
        }
        Ok(writer)
    }

    async fn copy_batch(&mut self, writer: &mut CopyWriter, batch: &RecordBatch) -> Result<(), Failure> {
        for row in 0..batch.num_rows() {
            // One row per message, as clients that read row by row expect.
            let line = writer.line(batch, row);
            self.outgoing.put(&CopyData::new(Bytes::copy_from_slice(line.as_bytes())))?;
            self.outgoing.flush_if_full().await?;
        }
        Ok(())
    }

    fn end_copy_out(&mut self, writer: &CopyWriter) -> Result<(), Failure> {
        self.outgoing.put(&CopyDone::new())?;
        Ok(self.complete(&format!("COPY {}", writer.count()))?)
    }
}
