//! Building views anew from the rows of what they read, without anybody seeing them half-built.
//!
//! The views' operators are removed in one epoch and defined again in a later one; the rows of their inputs are fed in slices,
//! a slice an epoch, as for a new view. Nothing else enters until the last slice. In that epoch the views go live, late rows enter
//! their table if that is what this is for, and the difference between what the views were and what they are becomes visible, all
//! at once. An operator takes an epoch's rows into account before it drops what the watermark has passed, so rows that enter
//! in the epoch in which a view goes live find all of its state.
//!
//! The journal has the stages, so a restart repeats them; one that was not finished goes on, without the late rows, which
//! nobody was told of.
//!
//! State: what the views have given since they were defined again. Released when the last epoch is published.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::AsArray;
use tidemill_dataflow::{Command, Output, Packet, RowError, ViewSpec};
use tidemill_delta::{Delta, Epoch, consolidate};
use tidemill_plan::RelationId;
use tidemill_sql::{SqlError, state};

use super::catch_up::{CatchUp, SLICE};
use super::cut::Cut;
use super::repair::LateRows;
use super::{Conductor, InFlight, Reply};
use crate::journal::{Change, Object};

/// Views that are being built anew.
pub(super) struct Rebuild {
    /// What is read comes before what reads it.
    views: Vec<Arc<ViewSpec>>,
    stage: Stage,
    histories: Vec<CatchUp>,
    contents: BTreeMap<RelationId, Vec<Delta>>,
    errors: BTreeMap<RelationId, Vec<RowError>>,
    late: Option<LateRows>,
    /// The view that was stopped, and who waits for it.
    resumed: Option<(RelationId, Reply<Epoch>)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The old operators are still there.
    Begun,
    Removed,
    /// The new ones get their history, from this epoch on.
    Filling(Epoch),
    /// The first and the last epoch of the building.
    Live(Epoch, Epoch),
}

impl Rebuild {
    pub(super) fn for_late(views: Vec<Arc<ViewSpec>>, late: LateRows) -> Self {
        Rebuild { late: Some(late), ..Self::of(views) }
    }

    pub(super) fn for_view(views: Vec<Arc<ViewSpec>>, view: RelationId, reply: Reply<Epoch>) -> Self {
        Rebuild { resumed: Some((view, reply)), ..Self::of(views) }
    }

    fn of(views: Vec<Arc<ViewSpec>>) -> Self {
        Rebuild {
            views,
            stage: Stage::Begun,
            histories: Vec::new(),
            contents: BTreeMap::new(),
            errors: BTreeMap::new(),
            late: None,
            resumed: None,
        }
    }

    fn ids(&self) -> Vec<RelationId> {
        self.views.iter().map(|spec| spec.view).collect()
    }

    fn has(&self, view: RelationId) -> bool {
        self.views.iter().any(|spec| spec.view == view)
    }
}

impl Conductor {
    /// Whether nothing but a rebuild's own rows may enter.
    pub(super) fn is_rebuilding(&self) -> bool {
        self.rebuild.as_ref().is_some_and(|rebuild| !matches!(rebuild.stage, Stage::Live(..)))
    }

    /// Begins the next epoch of a rebuild.
    pub(super) fn cut_rebuild(&mut self, mut cut: Cut) -> bool {
        let Some(mut rebuild) = self.rebuild.take() else { return false };
        let waits = !self.in_flight.is_empty();
        if rebuild.stage == Stage::Begun && !waits {
            self.remove_old(&rebuild, &mut cut);
            rebuild.stage = Stage::Removed;
        } else if rebuild.stage == Stage::Removed && !waits {
            self.define_new(&mut rebuild, &mut cut);
            rebuild.stage = Stage::Filling(self.next_epoch);
        }
        if let Stage::Filling(first) = rebuild.stage {
            self.feed(&mut rebuild, &mut cut, SLICE);
            if rebuild.histories.is_empty() {
                Self::go_live(&rebuild, &mut cut);
                if let Some(late) = rebuild.late.take() {
                    self.put_late(&mut cut, late);
                }
                rebuild.stage = Stage::Live(first, self.next_epoch);
            }
        }
        let again = rebuild.stage == Stage::Removed && cut.begin.commands.is_empty() && !waits;
        self.rebuild = Some(rebuild);
        // Where no old operator had to go, there is no epoch to wait for.
        if again { self.cut_rebuild(cut) } else { self.begin_epoch(cut) }
    }

    fn remove_old(&mut self, rebuild: &Rebuild, cut: &mut Cut) {
        for view in std::mem::take(&mut self.removals) {
            cut.begin.commands.push(Command::Remove(view));
            cut.entry.header.changes.push(Change::Stop(view));
        }
        cut.entry.header.changes.push(Change::Unbuild(rebuild.ids()));
        for spec in &rebuild.views {
            if self.remove_spec(spec.view) {
                cut.begin.commands.push(Command::Remove(spec.view));
            }
            self.shared.stats.lock().counters(spec.view).state = "rebuilding";
        }
        self.save_all_next();
    }

    fn define_new(&mut self, rebuild: &mut Rebuild, cut: &mut Cut) {
        cut.entry.header.changes.push(Change::Rebuild(rebuild.ids()));
        let mut histories = Vec::with_capacity(rebuild.views.len());
        for spec in &rebuild.views {
            let unknown = || Object { id: spec.view, sql: String::new(), keep: true, replaces: Vec::new() };
            let object = self.objects.get(&spec.view).cloned().unwrap_or_else(unknown);
            self.deploy(cut, &object, Some(spec.clone()));
            // What a rebuilt view reads of another one comes from that one's new operators.
            let old = |input: &usize| !rebuild.has(spec.dataflow.inputs[*input].relation);
            let inputs = (0..spec.dataflow.inputs.len()).filter(old);
            let history = inputs.flat_map(|input| self.net_rows(spec, input).into_iter().map(move |run| (input, run)));
            histories.push(CatchUp::new(spec.view, history));
            self.failed.remove(&spec.view);
            self.stopped.remove(&spec.view);
            self.add_spec(spec.clone());
        }
        rebuild.histories = histories;
    }

    /// What an input of a view has now. Of rows that were taken back nothing is left: one of them may be what has
    /// stopped the view.
    fn net_rows(&self, spec: &ViewSpec, input: usize) -> Vec<Delta> {
        let relation = spec.dataflow.inputs[input].relation;
        let rows = self.shared.published.state.read().shown.get(&relation).and_then(|shown| shown.rows.clone());
        let Some(rows) = rows else { return Vec::new() };
        let runs = || rows.runs().iter().map(|run| run.as_ref().clone()).collect();
        if !rows.has_retractions() {
            return runs();
        }
        rows.consolidated().map_or_else(|_| runs(), |net| vec![net])
    }

    fn go_live(rebuild: &Rebuild, cut: &mut Cut) {
        cut.begin.commands.extend(rebuild.views.iter().map(|spec| Command::GoLive(spec.view)));
        cut.entry.header.changes.push(Change::Relive(rebuild.ids()));
    }

    /// So many rows of each view's history.
    fn feed(&mut self, rebuild: &mut Rebuild, cut: &mut Cut, rows: usize) {
        for mut history in std::mem::take(&mut rebuild.histories) {
            let (packets, last) = history.next_slice(rows);
            for packet in packets {
                if let Packet::History { view, input, delta } = packet {
                    self.deal(&delta, |worker, delta| {
                        cut.packets.push((worker, Packet::History { view, input, delta }));
                    });
                }
            }
            if !last {
                rebuild.histories.push(history);
            }
        }
    }

    /// Repeats the beginning of a rebuild; nothing is in flight.
    pub(super) fn repeat_unbuild(&mut self, cut: &mut Cut, views: &[RelationId]) {
        let spec = |view: &RelationId| self.specs.get(view).or(self.stopped.get(view)).cloned();
        let mut rebuild = Rebuild::of(views.iter().filter_map(spec).collect());
        self.remove_old(&rebuild, cut);
        rebuild.stage = Stage::Removed;
        self.rebuild = Some(rebuild);
    }

    pub(super) fn repeat_rebuild(&mut self, cut: &mut Cut) {
        let Some(mut rebuild) = self.rebuild.take() else { return };
        self.define_new(&mut rebuild, cut);
        rebuild.stage = Stage::Filling(self.next_epoch);
        self.rebuild = Some(rebuild);
    }

    /// Repeats the end of a rebuild: all history in one epoch.
    pub(super) fn repeat_relive(&mut self, cut: &mut Cut) {
        let Some(mut rebuild) = self.rebuild.take() else { return };
        if let Stage::Filling(first) = rebuild.stage {
            self.feed(&mut rebuild, cut, usize::MAX);
            Self::go_live(&rebuild, cut);
            rebuild.stage = Stage::Live(first, self.next_epoch);
        }
        self.rebuild = Some(rebuild);
    }

    /// What an epoch's outputs are to readers: of views that are being rebuilt nothing, and in the end the difference.
    pub(super) fn rebuilt(&mut self, flight: &mut InFlight, outputs: Vec<Output>) -> Vec<Output> {
        let epoch = flight.epoch;
        let Some(mut rebuild) = self.rebuild.take() else { return outputs };
        let (Stage::Filling(first) | Stage::Live(first, _)) = rebuild.stage else {
            self.rebuild = Some(rebuild);
            return outputs;
        };
        let mut rest = Vec::new();
        for output in outputs {
            match output {
                Output::Changes { view, delta, .. } if epoch >= first && rebuild.has(view) => {
                    rebuild.contents.entry(view).or_default().push(delta);
                }
                Output::Errors { view, errors, .. } if epoch >= first && rebuild.has(view) => {
                    rebuild.errors.entry(view).or_default().extend(errors);
                }
                other => rest.push(other),
            }
        }
        match rebuild.stage {
            Stage::Live(_, last) if last == epoch => self.finish_rebuild(rebuild, flight, &mut rest),
            _ => self.rebuild = Some(rebuild),
        }
        rest
    }

    fn finish_rebuild(&mut self, mut rebuild: Rebuild, flight: &mut InFlight, outputs: &mut Vec<Output>) {
        let epoch = flight.epoch;
        for spec in &rebuild.views {
            let view = spec.view;
            if let Some(input) = spec.dataflow.inputs.iter().find(|input| self.failed.contains(&input.relation)) {
                let input = self.shared.catalog().describe(input.relation);
                self.stop_view(view, &format!("{input}, which it reads, has stopped"));
            }
            if self.failed.contains(&view) {
                continue;
            }
            match self.difference(view, rebuild.contents.remove(&view).unwrap_or_default()) {
                Ok(delta) if delta.is_empty() => {}
                Ok(delta) => outputs.push(Output::Changes { view, epoch, delta }),
                Err(error) => {
                    self.stop_view(view, &error.message);
                    continue;
                }
            }
            let errors = self.error_difference(view, rebuild.errors.remove(&view).unwrap_or_default());
            if !errors.is_empty() {
                outputs.push(Output::Errors { view, epoch, errors });
            }
            let mut stats = self.shared.stats.lock();
            let counters = stats.counters(view);
            (counters.state, counters.reason) = ("running", None);
        }
        let Some((view, reply)) = rebuild.resumed else { return };
        if self.failed.contains(&view) {
            let reason = self.shared.stats.lock().counters(view).reason.clone().unwrap_or_default();
            let message = format!("the view cannot be computed: {reason}");
            let _ = reply.send(Err(SqlError::new(state::DATA_EXCEPTION, message)));
        } else {
            flight.replies.push(reply);
        }
    }

    /// What a view is now without what it was.
    fn difference(&self, view: RelationId, mut new: Vec<Delta>) -> Result<Delta, SqlError> {
        let internal = |error: arrow::error::ArrowError| SqlError::internal(error.to_string());
        let rows = self.shared.published.state.read().shown.get(&view).and_then(|shown| shown.rows.clone());
        let rows = rows.ok_or_else(|| SqlError::internal("a view without rows was rebuilt"))?;
        new.push(rows.consolidated().map_err(internal)?.negate());
        let all = Delta::concat(rows.schema(), &new).map_err(internal)?;
        consolidate(rows.schema(), &[all]).map_err(internal)
    }

    /// The same of its errors.
    fn error_difference(&self, view: RelationId, new: Vec<RowError>) -> Vec<RowError> {
        let mut net: BTreeMap<(String, String), i64> = BTreeMap::new();
        for error in new {
            *net.entry((error.message, error.row)).or_default() += error.weight;
        }
        let rows = self.shared.published.state.read().shown.get(&(view + 1)).and_then(|shown| shown.rows.clone());
        if let Some(Ok(old)) = rows.map(|rows| rows.consolidated()) {
            let (messages, texts) = (old.rows.column(0).as_string::<i32>(), old.rows.column(1).as_string::<i32>());
            for i in 0..old.len() {
                let key = (messages.value(i).to_owned(), texts.value(i).to_owned());
                *net.entry(key).or_default() -= old.weight(i);
            }
        }
        net.retain(|_, weight| *weight != 0);
        net.into_iter().map(|((message, row), weight)| RowError { message, row, weight }).collect()
    }
}

#[cfg(test)]
mod tests;
