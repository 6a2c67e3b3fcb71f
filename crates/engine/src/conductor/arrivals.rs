//! Rows that arrive: what becomes of each. It is applied, late or bad, and is counted as just that.
//!
//! A row is told apart before it touches a primary key, so a late one does not take a key. Whatever can fail is done
//! before anything is put into the epoch: a request goes in as a whole or not at all.

use std::collections::{BTreeSet, btree_map};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::{filter_record_batch, not};
use tidemill_connect::BadRow;
use tidemill_delta::{Delta, Epoch, Micros, NO_WATERMARK, relaxed};
use tidemill_plan::{ColumnPath, RelationId};
use tidemill_sql::{OnConflict, Relation, RelationKind, SqlError};

use super::cut::{Cut, gone};
use super::{Conductor, Reply};
use crate::event_time::{Admitted, Entry, Prepared, admit, prepare_table};
use crate::retained::Retained;
use crate::side_table::{bad_rows, duplicate_rows};
use crate::table::{TableChange, changed_meanwhile};

/// What becomes of the rows of one change.
struct Arrived {
    relation: Arc<Relation>,
    /// What the rows applied have; `None`: all columns of the relation.
    columns: Option<Arc<[ColumnPath]>>,
    applied: Delta,
    /// How many rows of the change that is.
    count: u64,
    late: Vec<RecordBatch>,
    bad: Option<RecordBatch>,
    watermark: Option<Micros>,
}

/// A table's change, told apart by time.
struct Sorted {
    relation: Arc<Relation>,
    change: TableChange,
    late: Vec<RecordBatch>,
    watermark: Option<Micros>,
}

fn without_keys(relation: &Arc<Relation>, admitted: Admitted) -> Arrived {
    let Admitted { in_time, columns, late, watermark } = admitted;
    let (relation, count, late) = (relation.clone(), in_time.num_rows() as u64, late.into_iter().collect());
    Arrived { relation, columns, applied: Delta::inserts(in_time), count, late, bad: None, watermark }
}

fn rows_in(batches: &[RecordBatch]) -> u64 {
    batches.iter().map(|rows| rows.num_rows() as u64).sum()
}

impl Conductor {
    pub(super) fn cut_write(&mut self, cut: &mut Cut, changes: Vec<(RelationId, TableChange)>, reply: Reply<Epoch>) {
        match self.arrived(cut, changes) {
            Ok(all) => {
                all.into_iter().for_each(|arrived| self.put_arrived(cut, arrived));
                cut.replies.push(reply);
            }
            Err(error) => {
                let _ = reply.send(Err(error));
            }
        }
    }

    /// Takes rows out that have become too old, or too many. Nothing has come in, so nothing is counted.
    pub(super) fn cut_expired(
        &mut self,
        cut: &mut Cut,
        table: RelationId,
        (rows, seen): (RecordBatch, Epoch),
        reply: Reply<Epoch>,
    ) {
        match self.expired(table, rows, seen) {
            Ok(delta) => {
                self.put(cut, table, None, delta, true);
                cut.replies.push(reply);
            }
            Err(error) => {
                let _ = reply.send(Err(error));
            }
        }
    }

    fn expired(&mut self, table: RelationId, rows: RecordBatch, seen: Epoch) -> Result<Delta, SqlError> {
        let relation = self.relations.get(&table).cloned().ok_or_else(gone)?;
        let (added, on_conflict) = (Vec::new(), OnConflict::Error);
        let Some(keys) = self.keys.get_mut(&table) else {
            let change = TableChange { removed: vec![rows], added, on_conflict, seen };
            let delta = self.without_key(&relation, &change)?;
            self.note_removed(table, &change.removed)?;
            return Ok(delta);
        };
        let removed = vec![filter_record_batch(&rows, &keys.holds(&rows)?).map_err(internal)?];
        keys.apply(&TableChange { removed, added, on_conflict, seen })
    }

    /// A change of a table without a key. What it takes out must be there still: it is refused if any of it has been taken out
    /// since it was read.
    fn without_key(&self, relation: &Relation, change: &TableChange) -> Result<Delta, SqlError> {
        if let Some(removed) = self.removed.get(&relation.id).filter(|_| change.removes())
            && removed.concern(&change.removed, change.seen).map_err(internal)?
        {
            return Err(changed_meanwhile(&relation.name));
        }
        change.delta(&relation.schema)
    }

    /// Remembers what is taken out of a table without a key.
    fn note_removed(&mut self, table: RelationId, rows: &[RecordBatch]) -> Result<(), SqlError> {
        self.removed.entry(table).or_default().note(rows, self.next_epoch).map_err(internal)
    }

    /// What becomes of a transaction's changes, or why none of them can be applied.
    fn arrived(&mut self, cut: &Cut, changes: Vec<(RelationId, TableChange)>) -> Result<Vec<Arrived>, SqlError> {
        let sorted: Vec<Sorted> =
            changes.into_iter().map(|(id, change)| self.sorted(cut, id, change)).collect::<Result<_, _>>()?;
        let mut done: Vec<(Arc<Relation>, Delta)> = Vec::with_capacity(sorted.len());
        for Sorted { relation, change, .. } in &sorted {
            let delta = match self.keys.get_mut(&relation.id) {
                Some(keys) => keys.apply(change),
                None => self.without_key(relation, change),
            };
            match delta {
                Ok(delta) => done.push((relation.clone(), delta)),
                Err(error) => {
                    // Keys that the changes before have taken go back to what they were.
                    self.undo_keys(&done);
                    return Err(error);
                }
            }
        }
        for Sorted { relation, change, .. } in sorted.iter().filter(|s| s.change.removes()) {
            if !self.keys.contains_key(&relation.id) {
                self.note_removed(relation.id, &change.removed)?;
            }
        }
        let arrived = sorted.into_iter().zip(done).map(|(sorted, (relation, applied))| {
            let Sorted { change, late, watermark, .. } = sorted;
            // An UPDATE takes a row and gives one: that is one row.
            let count = rows_in(&change.added).max(rows_in(&change.removed));
            Arrived { relation, columns: None, applied, count, late, bad: None, watermark }
        });
        Ok(arrived.collect())
    }

    fn sorted(&self, cut: &Cut, id: RelationId, change: TableChange) -> Result<Sorted, SqlError> {
        let relation = self.relations.get(&id).cloned().ok_or_else(gone)?;
        if relation.event_time.is_none() {
            return Ok(Sorted { relation, change, late: Vec::new(), watermark: None });
        }
        let (mut in_time, mut late, mut watermark) = (Vec::new(), Vec::new(), None::<Micros>);
        for rows in change.added {
            let admitted = admit(&relation, prepare_table(&relation, rows)?, self.entry(cut, id))?;
            in_time.push(admitted.in_time);
            late.extend(admitted.late);
            watermark = watermark.max(admitted.watermark);
        }
        let change = TableChange { added: in_time, ..change };
        Ok(Sorted { relation, change, late, watermark })
    }

    fn entry(&self, cut: &Cut, relation: RelationId) -> Entry {
        let watermark = self.in_force.get(&relation).copied().unwrap_or(NO_WATERMARK);
        Entry { watermark, arrival: cut.arrival }
    }

    pub(super) fn cut_ingest(
        &mut self,
        cut: &mut Cut,
        table: RelationId,
        rows: Vec<Prepared>,
        upsert: bool,
        bad: &[BadRow],
    ) -> Result<(), SqlError> {
        let relation = self.relations.get(&table).cloned().ok_or_else(gone)?;
        let entry = self.entry(cut, table);
        let admitted = rows.into_iter().map(|rows| admit(&relation, rows, entry)).collect::<Result<Vec<_>, _>>()?;
        let all: Vec<Arrived> = admitted
            .into_iter()
            .map(|admitted| self.with_keys(&relation, admitted, upsert))
            .collect::<Result<_, _>>()?;
        all.into_iter().for_each(|arrived| self.put_arrived(cut, arrived));
        self.put_bad(cut, table, bad);
        Ok(())
    }

    /// Lets a request's rows take their keys. A table that only grows keeps the row that has a key already; the
    /// other one is bad.
    fn with_keys(&mut self, relation: &Arc<Relation>, admitted: Admitted, upsert: bool) -> Result<Arrived, SqlError> {
        let Some(keys) = self.keys.get_mut(&relation.id) else { return Ok(without_keys(relation, admitted)) };
        let Admitted { in_time, columns, late, watermark } = admitted;
        let (relation, late) = (relation.clone(), late.into_iter().collect());
        let (fresh, bad) = if relation.append_only {
            let fresh = keys.fresh(&in_time)?;
            let taken = filter_record_batch(&in_time, &not(&fresh).map_err(internal)?).map_err(internal)?;
            let bad = (taken.num_rows() > 0).then(|| duplicate_rows(&taken));
            (filter_record_batch(&in_time, &fresh).map_err(internal)?, bad)
        } else {
            (in_time, None)
        };
        let on_conflict = if upsert { OnConflict::Replace } else { OnConflict::Error };
        let count = fresh.num_rows() as u64;
        let applied = keys.apply(&TableChange { removed: Vec::new(), added: vec![fresh], on_conflict, seen: 0 })?;
        Ok(Arrived { relation, columns, applied, count, late, bad, watermark })
    }

    /// Puts rows of a source in; gives the watermark that they allow.
    pub(super) fn put_prepared(
        &mut self,
        cut: &mut Cut,
        relation: &Arc<Relation>,
        prepared: Prepared,
    ) -> Result<Option<Micros>, SqlError> {
        let admitted = admit(relation, prepared, self.entry(cut, relation.id))?;
        let watermark = admitted.watermark;
        self.put_arrived(cut, without_keys(relation, admitted));
        Ok(watermark)
    }

    fn put_arrived(&mut self, cut: &mut Cut, arrived: Arrived) {
        let Arrived { relation, columns, applied, count, late, bad, watermark } = arrived;
        let keep = relation.kind == RelationKind::Table;
        if let Some(reached) = watermark
            && keep
        {
            let now = self.reached.entry(relation.id).or_insert(NO_WATERMARK);
            *now = (*now).max(reached);
        }
        self.count(cut, relation.id, count, rows_in(&late), bad.as_ref().map_or(0, |rows| rows.num_rows() as u64));
        self.put(cut, relation.id, columns, applied, keep);
        late.into_iter().for_each(|rows| self.put_side(cut, relation.id + 2, Delta::inserts(rows)));
        bad.into_iter().for_each(|rows| self.put_side(cut, relation.id + 1, Delta::inserts(rows)));
    }

    pub(super) fn put_bad(&mut self, cut: &mut Cut, of: RelationId, bad: &[BadRow]) {
        if !bad.is_empty() {
            self.count(cut, of, 0, 0, bad.len() as u64);
            self.put_side(cut, of + 1, Delta::inserts(bad_rows(bad)));
        }
    }

    /// Counts rows that have arrived, by what became of them.
    fn count(&self, cut: &mut Cut, relation: RelationId, applied: u64, late: u64, bad: u64) {
        cut.counted.insert(relation);
        let mut stats = self.shared.stats.lock();
        let counters = stats.counters(relation);
        counters.rows_in += applied + late + bad;
        counters.applied += applied;
        counters.late += late;
        counters.bad += bad;
        stats.rows_in += applied + late + bad;
    }

    /// Changes a side table; what is too much in it goes. The journal is told what goes also where it is not told of what
    /// came, so repeating an epoch decides nothing.
    pub(super) fn put_side(&mut self, cut: &mut Cut, relation: RelationId, delta: Delta) {
        // A view's errors may come after it was dropped; those of a sink's query are not kept.
        if delta.is_empty() || !self.relations.contains_key(&relation) {
            return;
        }
        let repeating = self.repeating;
        let changes = self.retained(relation).and_then(|retained| {
            if repeating {
                retained.follow(std::slice::from_ref(&delta)).map(|()| (delta, None)).map_err(internal)
            } else {
                retained.apply(&delta).map_err(internal)
            }
        });
        match changes {
            Ok((delta, gone)) => {
                self.put(cut, relation, None, delta, true);
                let unwritten = std::mem::replace(&mut cut.unwritten, false);
                gone.into_iter().for_each(|gone| self.put(cut, relation, None, gone, true));
                cut.unwritten = unwritten;
            }
            Err(error) => tracing::error!(relation, %error, "a side table's rows are lost"),
        }
    }

    /// What is kept of a side table. It begins with the rows that are there after a restart, in the order in which they lie.
    pub(super) fn retained(&mut self, relation: RelationId) -> Result<&mut Retained, SqlError> {
        match self.retained.entry(relation) {
            btree_map::Entry::Occupied(found) => Ok(found.into_mut()),
            btree_map::Entry::Vacant(free) => {
                let schema = relaxed(&self.relations.get(&relation).ok_or_else(gone)?.schema);
                let mut retained = Retained::new(schema, self.shared.config.side_table_rows).map_err(internal)?;
                let state = self.shared.published.state.read();
                let rows = state.shown.get(&relation).and_then(|shown| shown.rows.clone());
                drop(state);
                if let Some(rows) = rows.filter(|rows| rows.rows() > 0) {
                    let there: Vec<Delta> =
                        rows.to_batches().map_err(internal)?.into_iter().map(Delta::inserts).collect();
                    retained.follow(&there).map_err(internal)?;
                }
                Ok(free.insert(retained))
            }
        }
    }

    /// Keeps up with changes of side tables that are in the journal; all of one epoch.
    pub(super) fn follow_side(&mut self, changes: &[(RelationId, Delta)]) -> Result<(), SqlError> {
        let relations: BTreeSet<RelationId> = changes.iter().map(|(relation, _)| *relation).collect();
        for relation in relations {
            let own = changes.iter().filter(|(of, _)| *of == relation).map(|(_, delta)| delta.clone());
            let own: Vec<Delta> = own.collect();
            self.retained(relation)?.follow(&own).map_err(internal)?;
        }
        Ok(())
    }
}

fn internal(error: arrow::error::ArrowError) -> SqlError {
    SqlError::internal(error.to_string())
}

#[cfg(test)]
mod tests;
