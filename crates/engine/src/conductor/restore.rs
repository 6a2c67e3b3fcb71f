//! Bringing a checkpoint back: definitions, rows, recent changes, and state for as many workers as there are now.

mod asides;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{Schema, UInt64Type};
use tidemill_dataflow::{Command, Feed, Memory, Packet};
use tidemill_delta::{Delta, Epoch, relaxed};
use tidemill_plan::RelationId;
use tidemill_sql::{OnConflict, SqlError};
use tidemill_state::Collection;
use tidemill_storage::{Checkpoints, Manifest};

use super::Conductor;
use super::cut::Cut;
use super::durable::plan_hash;
use super::recover::failed;
use crate::checkpoint::{
    DIRECTORY, Directory, FORMATS, Of, Packs, Restored, Run, SavedSink, Store, newest_entries, read_run,
};
use crate::define::{Made, make};
use crate::journal::Object;
use crate::table::TableChange;

impl Conductor {
    /// Brings a checkpoint back.
    pub(super) fn restore(
        &mut self,
        store: &Checkpoints<Store>,
        manifest: &Manifest,
        mut packs: Packs,
    ) -> Result<Restored, SqlError> {
        let directory = manifest.files.iter().find(|f| f.name.starts_with(DIRECTORY));
        let directory = directory.ok_or_else(|| failed("the last checkpoint has no directory"))?;
        let text = packs.get(store, &directory.name).map_err(failed)?;
        let directory: Directory = serde_json::from_slice(&text).map_err(failed)?;
        if !FORMATS.contains(&directory.format) {
            let (found, last) = (directory.format, FORMATS.end());
            return Err(failed(format!(
                "the last checkpoint has format {found}, and this program reads formats up to {last}"
            )));
        }
        let mut runs: BTreeMap<Of, Vec<&Run>> = BTreeMap::new();
        directory.runs.iter().for_each(|run| runs.entry(run.of).or_default().push(run));
        self.next_epoch = directory.epoch;
        self.shared.take_ids_below(directory.next_id);
        let mut cut = Cut::default();
        cut.begin.commands.append(&mut self.commands);
        let mut sinks = saved_sinks(&directory, &runs, &mut packs, store)?;
        for saved in &directory.objects {
            self.restore_object(&mut cut, saved, &mut sinks)?;
        }
        for source in &directory.sources {
            if let Some(own) = self.sources.get_mut(&source.source) {
                own.restore(source.clone());
            }
            self.note_source(source.source);
        }
        self.in_force = directory.in_force.iter().copied().collect();
        self.reached = directory.reached.iter().copied().collect();
        cut.begin.watermarks = directory.in_force.clone();
        directory.counts.iter().for_each(|counts| self.set_counts(*counts));
        let mut asides = self.restore_asides(&directory, (store, &mut packs), &runs)?;
        let mut rows = Vec::new();
        for (of, runs) in &runs {
            if matches!(of, Of::Aside { .. }) {
                continue;
            }
            let mut read = |run: &Run| -> Result<_, SqlError> {
                let pack = packs.get(store, &run.pack).map_err(failed)?;
                read_run(run, &pack).map_err(failed)
            };
            let mut loaded = Vec::with_capacity(runs.len() + 1);
            for run in runs {
                loaded.push(read(run)?);
            }
            match *of {
                Of::Rows { relation } => {
                    let shared: Vec<Arc<Delta>> = loaded.into_iter().map(|(delta, _)| Arc::new(delta)).collect();
                    rows.extend(shared.iter().cloned().zip(runs.iter().map(|run| (*run).clone())));
                    self.restore_rows(relation, shared)?;
                }
                Of::Changes { relation } => {
                    for (delta, _) in loaded {
                        self.restore_changes(relation, &delta)?;
                    }
                }
                // The sinks have it already.
                Of::Undelivered { .. } | Of::Aside { .. } => {}
                Of::State { view, node, part, key, worker } => {
                    let saved_by = (directory.workers == self.workers()).then_some(worker);
                    let after_runs = asides.operators.contains(&(view, node));
                    if let Some(rows) = asides.rows.remove(&(view, node, worker, part)) {
                        loaded.insert(0, (rows, None));
                    }
                    self.load(&mut cut, (view, node, part), (key, saved_by, after_runs), &loaded)?;
                }
            }
        }
        let reshaped = directory.workers != self.workers() || asides.taken_in;
        for ((view, node, _, part), rows) in asides.rows {
            self.load(&mut cut, (view, node, part), (None, None, false), &[(rows, None)])?;
        }
        self.restore_shown(&directory)?;
        self.begin_restored(cut);
        self.shared.memory.iter().for_each(Memory::forget_given);
        Ok(Restored { files: manifest.files.clone(), directory, rows, reshaped })
    }

    fn restore_object(
        &mut self,
        cut: &mut Cut,
        saved: &crate::checkpoint::SavedObject,
        sinks: &mut BTreeMap<RelationId, SinkBefore>,
    ) -> Result<(), SqlError> {
        let object = &saved.object;
        let made = self.make(object)?;
        for relation in &made.relations {
            self.define_relation(relation, object.keep)?;
        }
        if let Some(sink) = made.sink {
            let saved = sinks.remove(&object.id).unwrap_or_default();
            self.restore_sink(object.id, sink, saved.first, saved.sink)?;
        }
        if let (Some(source), Some(relation)) = (made.source, made.relations.first()) {
            self.add_source(relation.clone(), source);
        }
        if let Some(spec) = made.spec {
            let view = spec.view;
            self.read_sources(&spec);
            self.deploy(cut, object, Some(spec.clone()));
            let fits = saved.plan.is_none_or(|plan| plan == plan_hash(&spec.dataflow));
            self.add_spec(spec);
            let changed = "this version of the program computes it in another way, so its state does not fit any more";
            match saved.failed.clone().or_else(|| (!fits).then(|| changed.to_owned())) {
                Some(reason) => self.stop_view(view, &reason),
                None => {
                    cut.begin.commands.push(Command::Restore(view));
                    self.shared.stats.lock().counters(view).state = "running";
                }
            }
        } else {
            self.deploy(cut, object, None);
        }
        self.objects.insert(object.id, object.clone());
        Ok(())
    }

    /// What a definition makes; the catalog learns of it.
    pub(super) fn make(&mut self, object: &Object) -> Result<Made, SqlError> {
        let made = make(&self.shared.planner, &self.shared.catalog(), object, &self.shared.env).map_err(|error| {
            let message = format!("a definition that was accepted is refused now: {}: {}", error.message, object.sql);
            SqlError::new(error.code, message)
        })?;
        self.shared.take_ids_below(object.id + crate::engine::IDS_PER_OBJECT);
        let sink = made.sink.as_ref().map(|sink| (sink.name.clone(), sink.shown.clone()));
        self.shared.change_catalog(|catalog| made.enter(object, sink, catalog));
        Ok(made)
    }

    fn restore_rows(&mut self, relation: RelationId, runs: Vec<Arc<Delta>>) -> Result<(), SqlError> {
        let mut state = self.shared.published.state.write();
        let Some(shown) = state.shown.get_mut(&relation) else { return Ok(()) };
        let Some(rows) = &mut shown.rows else { return Ok(()) };
        *rows = Collection::of_runs(rows.schema().clone(), runs);
        if let Some(keys) = self.keys.get_mut(&relation) {
            for rows in rows.to_batches().map_err(failed)? {
                let change =
                    TableChange { removed: Vec::new(), added: vec![rows], on_conflict: OnConflict::Error, seen: 0 };
                keys.apply(&change)?;
            }
        }
        Ok(())
    }

    /// Recent changes, an epoch after the other.
    fn restore_changes(&mut self, relation: RelationId, delta: &Delta) -> Result<(), SqlError> {
        let mut state = self.shared.published.state.write();
        let Some(shown) = state.shown.get_mut(&relation) else { return Ok(()) };
        for (epoch, delta) in by_epoch(delta)? {
            shown.push_change(epoch, delta);
        }
        Ok(())
    }

    fn restore_shown(&mut self, directory: &Directory) -> Result<(), SqlError> {
        let limit = self.shared.config.history_bytes;
        let mut state = self.shared.published.state.write();
        for saved in &directory.relations {
            if let Some(shown) = state.shown.get_mut(&saved.relation) {
                shown.restore(saved.complete_after, saved.last_epoch, saved.changes, limit);
            }
        }
        state.watermarks = directory.in_force.iter().copied().collect();
        state.epoch = directory.epoch;
        Ok(())
    }

    /// Gives a part of an operator's state to the workers that go on with it.
    fn load(
        &mut self,
        cut: &mut Cut,
        (view, node, part): (RelationId, usize, usize),
        (key, saved_by, after_runs): (Option<usize>, Option<usize>, bool),
        runs: &[(Delta, Option<Delta>)],
    ) -> Result<(), SqlError> {
        let Some(shapes) = self.saved_shapes_of(view, node)? else { return Ok(()) };
        let shape = shapes.get(part);
        let placement = &shape.ok_or_else(|| failed("the checkpoint has state that no operator keeps"))?.placement;
        let rows = match key {
            Some(key) => {
                let (rows, gone) = newest_entries(runs, key).map_err(failed)?;
                // Only what is on disk can have entries of keys that have none any more.
                if after_runs { vec![(part, rows), (shapes.len() + part, gone)] } else { vec![(part, rows)] }
            }
            None => runs.iter().map(|(rows, _)| (part, rows.clone())).collect(),
        };
        for (part, rows) in rows {
            for (worker, delta) in placement.share_out(&rows, self.workers(), saved_by).map_err(failed)? {
                cut.packets.push((worker, Packet::Load { view, node, part, delta }));
            }
        }
        Ok(())
    }

    /// Lets the workers build and load in the checkpoint's own epoch, and waits for them.
    fn begin_restored(&mut self, cut: Cut) {
        let epoch = self.next_epoch;
        self.next_epoch += 1;
        if let Some(loop_) = &self.loop_ {
            loop_.begin(Feed { epoch, begin: Some(Arc::new(cut.begin)), packets: cut.packets });
        }
        while self.loop_.as_ref().is_some_and(|l| l.done() <= epoch) {
            self.wait();
        }
        for output in self.outputs.try_iter().collect::<Vec<_>>() {
            if let tidemill_dataflow::Output::Failed { view, reason, .. } = output {
                self.stop_view(view, &reason);
            }
        }
        self.shared.published.announce(epoch);
    }
}

/// What a sink had before.
#[derive(Default)]
struct SinkBefore {
    first: Vec<(Epoch, Delta)>,
    sink: SavedSink,
}

fn saved_sinks(
    directory: &Directory,
    runs: &BTreeMap<Of, Vec<&Run>>,
    packs: &mut Packs,
    store: &Checkpoints<Store>,
) -> Result<BTreeMap<RelationId, SinkBefore>, SqlError> {
    let mut sinks = BTreeMap::new();
    for saved in &directory.sinks {
        let mut first = Vec::new();
        for run in runs.get(&Of::Undelivered { sink: saved.sink }).into_iter().flatten() {
            let pack = packs.get(store, &run.pack).map_err(failed)?;
            first.extend(by_epoch(&read_run(run, &pack).map_err(failed)?.0)?);
        }
        sinks.insert(saved.sink, SinkBefore { first, sink: saved.clone() });
    }
    Ok(sinks)
}

/// Changes with their epoch as the last column, by epoch.
fn by_epoch(delta: &Delta) -> Result<Vec<(Epoch, Delta)>, SqlError> {
    let mut columns = delta.rows.columns().to_vec();
    let epochs = columns.pop().ok_or_else(|| failed("changes without their epoch"))?;
    let epochs = epochs.as_primitive_opt::<UInt64Type>().ok_or_else(|| failed("an epoch is not a number"))?;
    let fields = delta.rows.schema_ref().fields()[..columns.len()].to_vec();
    let plain = delta.with_columns(relaxed(&Arc::new(Schema::new(fields))), columns);
    let (mut all, mut from) = (Vec::new(), 0);
    while from < epochs.len() {
        let epoch = epochs.value(from);
        let same = epochs.values()[from..].iter().take_while(|e| **e == epoch).count();
        all.push((epoch, plain.slice(from, same)));
        from += same;
    }
    Ok(all)
}
