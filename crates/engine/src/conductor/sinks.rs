//! Sinks in the conductor: their start, their end, and what their destinations refuse.

use tidemill_delta::Delta;
use tidemill_plan::RelationId;
use tidemill_sql::SqlError;

use super::{Conductor, Reply};
use crate::side_table::{REJECTED, rejected_rows};
use crate::sink::{Ending, RunningSink, Start, end_all};

impl Conductor {
    /// Starts a sink that was opened, with the rows that there are.
    pub(super) fn define_sink(
        &mut self,
        id: RelationId,
        name: &str,
        from: RelationId,
        sink: Box<dyn tidemill_connect::Sink>,
    ) -> Result<(), SqlError> {
        let snapshot = self.shared.published.snapshot();
        let rows = snapshot.collection(from).map(|rows| rows.consolidated()).transpose();
        let rows = rows.map_err(|e| SqlError::internal(e.to_string()))?;
        let first = rows.filter(|rows| !rows.is_empty()).map(|rows| (self.next_epoch - 1, rows)).into_iter().collect();
        let start = Start { name: name.to_owned(), from, sink, opening: None, first };
        let running = RunningSink::start(start, self.shared.env.clone(), self.shared.waker())
            .map_err(|e| SqlError::new("58000", format!("cannot start sink \"{name}\": {e}")))?;
        self.shared.stats.lock().sinks.insert(id, (running.progress.clone(), running.counts.clone()));
        self.sinks.insert(id, running);
        Ok(())
    }

    /// Puts what destinations have refused into the side tables.
    pub(super) fn take_rejected(&mut self) {
        for (id, sink) in &self.sinks {
            let rejected = sink.take_rejected();
            if !rejected.is_empty() {
                self.side_rows.push((id + REJECTED, Delta::inserts(rejected_rows(&rejected))));
            }
        }
    }
}

/// Lets dropped sinks end, and answers then. Nobody waits for a destination in here.
pub(super) fn end_dropped(sinks: Vec<RunningSink>, reply: Reply<()>) {
    if sinks.is_empty() {
        let _ = reply.send(Ok(()));
        return;
    }
    let end = move || {
        end_all(sinks, Ending::Drop);
        let _ = reply.send(Ok(()));
    };
    if let Err(error) = std::thread::Builder::new().name("sinks' end".into()).spawn(end) {
        tracing::warn!(%error, "sinks were dropped without a last commit");
    }
}
