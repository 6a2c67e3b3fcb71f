//! Sinks in the conductor: their start, their end, and what their destinations refuse.

use std::sync::atomic::Ordering;

use tidemill_connect::Opening;
use tidemill_delta::{Delta, Epoch};
use tidemill_plan::RelationId;
use tidemill_sql::SqlError;

use super::{Conductor, Reply};
use crate::checkpoint::SavedSink;
use crate::define::MadeSink;
use crate::side_table::{REJECTED, rejected_rows};
use crate::sink::{Ending, RunningSink, Start, end_all};

impl Conductor {
    /// Starts a sink that was opened, with the rows that there are. It is released with the epoch that defines it.
    pub(super) fn define_sink(
        &mut self,
        id: RelationId,
        name: &str,
        from: RelationId,
        sink: Box<dyn tidemill_connect::Sink>,
    ) -> Result<(), SqlError> {
        let first = self.first_rows(from)?;
        self.start_sink(id, Start { name: name.to_owned(), from, sink, opening: None, first }).map(drop)
    }

    /// The rows that a new sink begins with, as of the last epoch.
    pub(super) fn first_rows(&self, from: RelationId) -> Result<Vec<(Epoch, Delta)>, SqlError> {
        let snapshot = self.shared.published.snapshot();
        let rows = snapshot.collection(from).map(|rows| rows.consolidated()).transpose();
        let rows = rows.map_err(|e| SqlError::internal(e.to_string()))?;
        Ok(rows.filter(|rows| !rows.is_empty()).map(|rows| (self.next_epoch - 1, rows)).into_iter().collect())
    }

    /// Goes on with a sink after a restart, with what may not have been delivered before. It is released when the
    /// journal has been repeated.
    pub(super) fn restore_sink(
        &mut self,
        id: RelationId,
        sink: MadeSink,
        first: Vec<(Epoch, Delta)>,
        given_up: Option<String>,
    ) -> Result<(), SqlError> {
        let MadeSink { name, from, sink, .. } = sink;
        let incarnation = self.shared.incarnation.load(Ordering::Relaxed);
        let opening = Some(Opening { incarnation, created: false });
        let running = self.start_sink(id, Start { name, from, sink, opening, first })?;
        if let Some(reason) = given_up {
            running.fail(reason);
        }
        Ok(())
    }

    fn start_sink(&mut self, id: RelationId, start: Start) -> Result<&RunningSink, SqlError> {
        let name = start.name.clone();
        let running = RunningSink::start(start, self.shared.env.clone(), self.shared.waker())
            .map_err(|e| SqlError::new("58000", format!("cannot start sink \"{name}\": {e}")))?;
        self.shared.stats.lock().sinks.insert(id, (running.progress.clone(), running.counts.clone()));
        Ok(self.sinks.entry(id).insert_entry(running).into_mut())
    }

    /// The journal is repeated: the sinks that are still there go on.
    pub(super) fn release_sinks(&self) {
        self.sinks.values().for_each(RunningSink::release);
    }

    /// Takes sinks away that the journal says were dropped.
    pub(super) fn discard_sinks(&mut self, ids: &[RelationId]) {
        ids.iter().filter_map(|id| self.sinks.remove(id)).for_each(RunningSink::discard);
    }

    /// What a checkpoint has to know of the sinks, and what they may not have delivered.
    pub(super) fn saved_sinks(&self) -> (Vec<SavedSink>, Vec<(RelationId, Vec<(Epoch, Delta)>)>) {
        let saved = |(id, sink): (&RelationId, &RunningSink)| SavedSink { sink: *id, given_up: sink.given_up() };
        let undelivered = self.sinks.iter().map(|(id, sink)| (*id, sink.undelivered()));
        (self.sinks.iter().map(saved).collect(), undelivered.collect())
    }

    /// Puts what destinations have refused into the side tables.
    pub(super) fn take_rejected(&mut self) {
        for (id, sink) in &self.sinks {
            let rejected = sink.take_rejected();
            if !rejected.is_empty() {
                // They come from outside, so the journal has them wherever they come in.
                self.side_rows.push((Epoch::MAX, id + REJECTED, Delta::inserts(rejected_rows(&rejected))));
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
