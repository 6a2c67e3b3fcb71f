//! Sinks in the conductor: their start, their end, how they are resumed, and what their destinations refuse.

use std::sync::atomic::Ordering;

use tidemill_connect::{Opening, Sink};
use tidemill_delta::{Delta, Epoch};
use tidemill_plan::RelationId;
use tidemill_sql::SqlError;

use super::Conductor;
use super::cut::Cut;
use super::publish::for_sinks;
use super::repair::{ResumedSink, not_now};
use crate::checkpoint::SavedSink;
use crate::define::{MadeSink, make};
use crate::journal::{Change, Object};
use crate::side_table::{REJECTED, rejected_rows};
use crate::sink::{Ending, QUEUE_BYTES, RunningSink, Start, end_all};

impl Conductor {
    /// Starts a sink that was opened, with the rows that there are. It is released with the epoch that defines it.
    pub(super) fn define_sink(
        &mut self,
        id: RelationId,
        name: &str,
        from: RelationId,
        sink: Box<dyn Sink>,
    ) -> Result<(), SqlError> {
        let first = self.first_rows(from)?;
        let name = name.to_owned();
        self.start_sink(id, Start { name, from, sink, opening: None, committed: None, rows: 0, first }).map(drop)
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
        saved: SavedSink,
    ) -> Result<(), SqlError> {
        let MadeSink { name, from, sink, .. } = sink;
        // One that another incarnation has taken over must not take it back.
        let opening = (!saved.fenced).then(|| self.opening());
        let committed = Some(saved.committed).filter(|epoch| *epoch > 0);
        self.start_sink(id, Start { name, from, sink, opening, committed, rows: 0, first })?;
        match (saved.given_up, self.sinks.get(&id)) {
            (Some(reason), Some(running)) if saved.fenced => running.fail_fenced(reason),
            (Some(reason), Some(running)) => running.fail(reason),
            _ => {}
        }
        Ok(())
    }

    /// As what a sink that is there already comes to its destination.
    fn opening(&self) -> Opening {
        Opening { incarnation: self.shared.incarnation.load(Ordering::Relaxed), created: false }
    }

    /// Starts a sink; gives the one that was in its place.
    fn start_sink(&mut self, id: RelationId, start: Start) -> Result<Option<RunningSink>, SqlError> {
        let name = start.name.clone();
        let running = RunningSink::start(start, self.shared.env.clone(), self.shared.waker())
            .map_err(|e| SqlError::new("58000", format!("cannot start sink \"{name}\": {e}")))?;
        self.shared.stats.lock().sinks.insert(id, (running.progress.clone(), running.counts.clone()));
        Ok(self.sinks.insert(id, running))
    }

    /// How a sink is made that has stopped and may go on.
    pub(super) fn sink_to_resume(&self, id: RelationId) -> Result<Object, SqlError> {
        let sink = self.stopped_sink(id)?;
        let name = self.shared.catalog().describe(id);
        if sink.fenced() {
            let message = format!("{name} cannot go on: another incarnation has taken its destination over");
            return Err(not_now(message).hint("Drop it and create it again, with another destination."));
        }
        if !sink.at_rest() {
            return Err(not_now(format!("{name} has not ended its last commit")).hint("Try again in a moment."));
        }
        self.objects.get(&id).cloned().ok_or_else(|| SqlError::internal(format!("{name} has no definition")))
    }

    fn stopped_sink(&self, id: RelationId) -> Result<&RunningSink, SqlError> {
        let name = self.shared.catalog().describe(id);
        let sink = self.sinks.get(&id).ok_or_else(|| not_now(format!("{name} was dropped meanwhile")))?;
        if sink.has_stopped() { Ok(sink) } else { Err(not_now(format!("{name} has not stopped"))) }
    }

    /// Lets a sink that was opened anew go on in the place of one that has stopped.
    pub(super) fn resume_sink(&mut self, cut: &mut Cut, resumed: ResumedSink) {
        let ResumedSink { id, sink, committed, reply } = resumed;
        match self.try_resume(id, sink, committed) {
            Ok(noted) => {
                cut.entry.header.changes.extend(noted);
                cut.sinks.push(id);
                cut.replies.push(reply);
            }
            Err(error) => {
                let _ = reply.send(Err(error));
            }
        }
    }

    /// Gives what the journal has to know of it: only of changes that were given up, as a start sends all others again.
    fn try_resume(
        &mut self,
        id: RelationId,
        sink: Box<dyn Sink>,
        has: Option<Epoch>,
    ) -> Result<Option<Change>, SqlError> {
        let before = self.stopped_sink(id)?;
        let known = Some(before.committed()).filter(|epoch| *epoch > 0);
        if let (Some(has), Some(known)) = (has, known)
            && has < known
        {
            let name = self.shared.catalog().describe(id);
            return Err(not_now(format!(
                "{name} has committed epoch {known}, and its destination has only epoch {has}"
            ))
            .hint("It was put back to an earlier state. Drop the sink and create it again."));
        }
        let after = has.or(known);
        let given_up = before.given_up().is_some();
        let first = if given_up { self.given_up_after(id, before.from, after)? } else { self.waiting(id, before)? };
        self.put_in_place(id, sink, None, after, first)?;
        Ok(given_up.then_some(Change::ResumeSink { sink: id, after }))
    }

    /// What waits for a sink.
    fn waiting(&self, id: RelationId, sink: &RunningSink) -> Result<Vec<(Epoch, Delta)>, SqlError> {
        let waiting = sink.undelivered();
        // It does not count for the bound of the queue that it goes into.
        if waiting.iter().map(|(_, delta)| delta.row_bytes()).sum::<usize>() > 2 * QUEUE_BYTES {
            let name = self.shared.catalog().describe(id);
            let message = format!("more than {} MiB of changes wait for {name} already", (2 * QUEUE_BYTES) >> 20);
            return Err(not_now(message).hint("Drop it and create it again."));
        }
        Ok(waiting)
    }

    /// The changes after an epoch that a sink had given up, as far as they are kept for subscribers. Without an epoch
    /// nothing has been delivered, so that it begins with all rows.
    fn given_up_after(
        &self,
        id: RelationId,
        from: RelationId,
        after: Option<Epoch>,
    ) -> Result<Vec<(Epoch, Delta)>, SqlError> {
        let not_kept = || {
            let name = self.shared.catalog().describe(id);
            let since = after.map_or(String::new(), |epoch| format!(" since epoch {epoch}"));
            not_now(format!("{name} cannot go on: the changes that it has given up{since} are not kept any more"))
                .hint("Drop it and create it again.")
        };
        let state = self.shared.published.state.read();
        let shown = state.shown.get(&from).filter(|shown| shown.rows.is_some()).ok_or_else(not_kept)?;
        let Some(after) = after else {
            drop(state);
            return self.first_rows(from);
        };
        if shown.complete_after > after {
            return Err(not_kept());
        }
        let mut changes = Vec::new();
        for (epoch, delta) in shown.history.iter().filter(|(epoch, _)| *epoch > after) {
            let net = for_sinks(std::slice::from_ref(delta)).map_err(|e| SqlError::internal(e.to_string()))?;
            changes.extend(net.iter().filter(|d| !d.is_empty()).map(|d| (*epoch, d.clone())));
        }
        Ok(changes)
    }

    fn put_in_place(
        &mut self,
        id: RelationId,
        sink: Box<dyn Sink>,
        opening: Option<Opening>,
        committed: Option<Epoch>,
        first: Vec<(Epoch, Delta)>,
    ) -> Result<(), SqlError> {
        let Some(before) = self.sinks.get(&id) else { return Ok(()) };
        let (name, from) = (before.name().to_owned(), before.from);
        let rows = before.progress.rows.load(Ordering::Relaxed);
        let next = Start { name, from, sink, opening, committed, rows, first };
        if let Some(before) = self.start_sink(id, next)? {
            before.retire();
        }
        Ok(())
    }

    /// Repeats that a sink was resumed. One that has not given anything up goes on by itself.
    pub(super) fn repeat_resume(&mut self, id: RelationId, after: Option<Epoch>) -> Result<(), SqlError> {
        let Some(before) = self.sinks.get(&id) else { return Ok(()) };
        let (Some(object), true) = (self.objects.get(&id), before.given_up().is_some() && !before.fenced()) else {
            return Ok(());
        };
        match self.given_up_after(id, before.from, after) {
            Ok(first) => {
                let made = make(&self.shared.planner, &self.shared.catalog(), object, &self.shared.env)?;
                let Some(MadeSink { sink, .. }) = made.sink else { return Ok(()) };
                self.put_in_place(id, sink, Some(self.opening()), after, first)
            }
            Err(error) => {
                tracing::warn!(sink = before.name(), reason = error.message, "a sink that was resumed stays stopped");
                Ok(())
            }
        }
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
        let saved = |(id, sink): (&RelationId, &RunningSink)| SavedSink {
            sink: *id,
            given_up: sink.given_up(),
            fenced: sink.fenced(),
            committed: sink.committed(),
        };
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
pub(super) fn end_dropped(sinks: Vec<RunningSink>, answer: impl FnOnce() + Send + 'static) {
    if sinks.is_empty() {
        return answer();
    }
    let end = move || {
        end_all(sinks, Ending::Drop);
        answer();
    };
    if let Err(error) = std::thread::Builder::new().name("sinks' end".into()).spawn(end) {
        tracing::warn!(%error, "sinks were dropped without a last commit");
    }
}
