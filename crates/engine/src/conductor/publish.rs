//! Publishing an epoch: all views' changes become visible at once.

use std::collections::BTreeMap;

use arrow::error::ArrowError;
use tidemill_dataflow::Output;
use tidemill_delta::{Delta, Epoch, Micros, consolidate};
use tidemill_plan::RelationId;
use tidemill_sql::SqlError;
use tidemill_state::Collection;

use super::{Conductor, InFlight};
use crate::side_table::error_rows;

impl Conductor {
    /// Publishes the epochs that the workers have done.
    pub(super) fn publish(&mut self) {
        let done = self.loop_.as_ref().map_or(0, |l| l.done());
        while self.in_flight.front().is_some_and(|f| f.epoch < done) {
            let Some(flight) = self.in_flight.pop_front() else { return };
            self.publish_one(flight);
        }
    }

    fn publish_one(&mut self, flight: InFlight) {
        let epoch = flight.epoch;
        // All outputs of an epoch were sent before it was done.
        for output in self.outputs.try_iter() {
            let at = match &output {
                Output::Changes { epoch, .. } | Output::Errors { epoch, .. } | Output::Failed { epoch, .. } => *epoch,
            };
            self.finished.entry(at).or_default().push(output);
        }
        let outputs = self.finished.remove(&epoch).unwrap_or_default();
        for output in &outputs {
            if let Output::Failed { view, reason, .. } = output {
                self.stop_view(*view, reason);
            }
        }
        let no_errors = !outputs.iter().any(|output| matches!(output, Output::Errors { .. }));
        let mut changes: BTreeMap<RelationId, Vec<Delta>> = BTreeMap::new();
        for (relation, delta) in flight.writes {
            changes.entry(relation).or_default().push(delta);
        }
        for output in outputs {
            match output {
                Output::Changes { view, delta, .. } if !self.failed.contains(&view) => {
                    changes.entry(view).or_default().push(delta);
                }
                Output::Errors { view, errors, .. } => self.side_rows.push((view + 1, error_rows(epoch, &errors))),
                Output::Changes { .. } | Output::Failed { .. } => {}
            }
        }
        self.show(epoch, changes, &flight.live, &flight.watermarks);
        self.shared.published.announce(epoch);
        self.note_latency(flight.began, flight.rows);
        if no_errors {
            for reply in flight.replies {
                let _ = reply.send(Ok(epoch));
            }
            self.tell_live(&flight.tell);
        } else {
            // The errors enter with the next epoch, and whoever waits is to see them too.
            self.late_replies.extend(flight.replies);
            self.late_tell.extend(flight.tell);
        }
    }

    fn show(
        &mut self,
        epoch: Epoch,
        changes: BTreeMap<RelationId, Vec<Delta>>,
        live: &[RelationId],
        watermarks: &[(RelationId, Micros)],
    ) {
        let limit = self.shared.config.history_bytes;
        // Merging rows may take long, so it is done beside the readers' state, and then swapped in.
        let mut next: Vec<(RelationId, Option<(Delta, Collection)>, u64)> = Vec::with_capacity(changes.len());
        for (relation, deltas) in changes {
            let listed = deltas.iter().map(|d| d.len() as u64).sum();
            let rows = self.shared.published.state.read().shown.get(&relation).and_then(|s| s.rows.clone());
            let merged = rows.map(|rows| merge(rows, &deltas)).transpose();
            self.deliver(epoch, relation, &deltas);
            match merged {
                Ok(merged) => next.push((relation, merged, listed)),
                Err(error) => self.stop_view(relation, &error.to_string()),
            }
        }
        let mut state = self.shared.published.state.write();
        for (relation, merged, listed) in next {
            // A sink's own view is not shown.
            if let Some(shown) = state.shown.get_mut(&relation) {
                shown.push(epoch, merged, listed, limit);
            }
        }
        for view in live {
            if let Some(shown) = state.shown.get_mut(view) {
                shown.show(epoch);
            }
        }
        state.watermarks.extend(watermarks.iter().copied());
        state.epoch = epoch;
    }

    /// Hands a relation's changes to its sinks.
    fn deliver(&self, epoch: Epoch, relation: RelationId, deltas: &[Delta]) {
        for sink in self.sinks.values().filter(|s| s.from == relation) {
            if deltas.iter().all(|d| d.diff.is_none()) {
                deltas.iter().for_each(|d| sink.send(epoch, d.clone()));
                continue;
            }
            let Some(first) = deltas.first() else { continue };
            // A sink sees the net change.
            match consolidate(&tidemill_delta::relaxed(first.rows.schema_ref()), deltas) {
                Ok(delta) if !delta.is_empty() => sink.send(epoch, delta),
                Ok(_) => {}
                Err(error) => *sink.progress.failed.lock() = Some(error.to_string()),
            }
        }
    }

    fn stop_view(&mut self, view: RelationId, reason: &str) {
        if !self.failed.insert(view) {
            return;
        }
        tracing::warn!(view, reason, "a view stopped");
        {
            let mut stats = self.shared.stats.lock();
            let counters = stats.counters(view);
            counters.state = "stopped";
            counters.reason = Some(reason.to_owned());
        }
        self.remove_spec(view);
        self.catching_up.remove(&view);
        self.removals.push(view);
        let (told, rest) = std::mem::take(&mut self.waiting).into_iter().partition(|w| w.view == view);
        self.waiting = rest;
        for waiting in told {
            let message = format!("the view cannot be computed: {reason}");
            let _ = waiting.reply.send(Err(SqlError::new(tidemill_sql::state::DATA_EXCEPTION, message)));
        }
    }

    fn tell_live(&mut self, live: &[RelationId]) {
        if live.is_empty() {
            return;
        }
        {
            let mut stats = self.shared.stats.lock();
            for view in live.iter().filter(|v| !self.failed.contains(v)) {
                stats.counters(*view).state = "running";
            }
        }
        let (told, rest) = std::mem::take(&mut self.waiting).into_iter().partition(|w| live.contains(&w.view));
        self.waiting = rest;
        for waiting in told {
            let _ = waiting.reply.send(Ok(()));
        }
    }

    fn note_latency(&self, began: u64, rows: u64) {
        let took = (self.shared.env.monotonic_nanos() - began) / 1000;
        let mut stats = self.shared.stats.lock();
        stats.epochs_with_rows += u64::from(rows > 0);
        stats.note_latency(took);
    }
}

/// A relation's rows with an epoch's changes, and those changes as one delta.
fn merge(mut rows: Collection, deltas: &[Delta]) -> Result<(Delta, Collection), ArrowError> {
    let delta = Delta::concat(&rows.schema().clone(), deltas)?;
    rows.push(delta.clone())?;
    Ok((delta, rows))
}
