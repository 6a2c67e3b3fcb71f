//! Putting right what went wrong: late rows that are applied after all, views, sources and sinks that have stopped.
//!
//! Late rows enter their table like any others. A view that has dropped state by the watermark could not take them into account:
//! it is rebuilt from the rows of what it reads, together with all that read it (see `rebuild`). So nobody sees anything but
//! the difference, at the epoch at which the rows enter. What cannot be made exact is refused before anything moves.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use tidemill_connect::Sink;
use tidemill_dataflow::ViewSpec;
use tidemill_delta::{Delta, Epoch, batch, relaxed};
use tidemill_plan::RelationId;
use tidemill_sql::{OnConflict, RelationKind, SqlError, state};
use tokio::sync::oneshot;

use super::cut::{Cut, gone};
use super::rebuild::Rebuild;
use super::{Conductor, Reply};
use crate::journal::Object;
use crate::table::TableChange;

/// What is to be put right.
pub(crate) enum Repair {
    /// Late rows enter their table.
    ApplyLate(LateRows),
    /// A view that has stopped is built anew.
    ResumeView { view: RelationId, reply: Reply<Epoch> },
    /// A source that has stopped reads on.
    ResumeSource { source: RelationId, reply: Reply<()> },
    /// Whether a sink has stopped and may go on; tells how it is made.
    SinkToResume { sink: RelationId, reply: Reply<Object> },
    /// A sink that has stopped goes on.
    ResumeSink(ResumedSink),
}

/// A sink that is to go on, made and opened anew.
pub(crate) struct ResumedSink {
    pub(crate) id: RelationId,
    pub(crate) sink: Box<dyn Sink>,
    /// What the destination says that it has; `None` if it has nothing or does not know.
    pub(crate) committed: Option<Epoch>,
    pub(crate) reply: Reply<Epoch>,
}

/// Rows of a table's `t$late` that are to enter the table.
pub(crate) struct LateRows {
    pub(crate) table: RelationId,
    /// With all columns of `t$late`.
    pub(crate) rows: Vec<RecordBatch>,
    /// Told how many of them did.
    pub(crate) moved: oneshot::Sender<u64>,
    pub(crate) reply: Reply<Epoch>,
}

fn internal(error: arrow::error::ArrowError) -> SqlError {
    SqlError::internal(error.to_string())
}

pub(super) fn not_now(message: String) -> SqlError {
    SqlError::new(state::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
}

impl Conductor {
    pub(super) fn repair(&mut self, cut: &mut Cut, repair: Repair) {
        match repair {
            Repair::ApplyLate(late) => match self.touched_by_late(late.table) {
                Ok(views) if views.is_empty() => self.put_late(cut, late),
                Ok(views) => self.rebuild = Some(Rebuild::for_late(views, late)),
                Err(error) => {
                    let _ = late.reply.send(Err(error));
                }
            },
            Repair::ResumeView { view, reply } => match self.resumed_with(view) {
                Ok(views) => self.rebuild = Some(Rebuild::for_view(views, view, reply)),
                Err(error) => {
                    let _ = reply.send(Err(error));
                }
            },
            Repair::ResumeSource { source, reply } => {
                let _ = reply.send(self.resume_source(source));
            }
            Repair::SinkToResume { sink, reply } => {
                let _ = reply.send(self.sink_to_resume(sink));
            }
            Repair::ResumeSink(resumed) => self.resume_sink(cut, resumed),
        }
    }

    fn resume_source(&mut self, id: RelationId) -> Result<(), SqlError> {
        let source = self.sources.get_mut(&id).ok_or_else(gone)?;
        if !source.resume() {
            return Err(not_now(format!("source \"{}\" has not stopped", source.relation.name)));
        }
        self.note_source(id);
        Ok(())
    }

    /// The views to rebuild for late rows of a table: those that have dropped state, and what reads them.
    fn touched_by_late(&self, table: RelationId) -> Result<Vec<Arc<ViewSpec>>, SqlError> {
        let all = self.reading(BTreeSet::from([table]));
        let forget = all.iter().filter(|spec| spec.dataflow.nodes.iter().any(|node| node.op.forgets()));
        let forget: BTreeSet<RelationId> = forget.map(|spec| spec.view).collect();
        let below = self.reading(forget.clone());
        let views: Vec<_> = all.into_iter().filter(|spec| forget.contains(&spec.view)).chain(below).collect();
        let views = in_order(views);
        for spec in &views {
            self.check_rebuild(spec, false)?;
        }
        Ok(views)
    }

    /// The views to rebuild for one that has stopped: itself and what reads it.
    fn resumed_with(&self, view: RelationId) -> Result<Vec<Arc<ViewSpec>>, SqlError> {
        if !self.failed.contains(&view) {
            return Err(not_now(format!("{} has not stopped", self.shared.catalog().describe(view))));
        }
        let spec = self.stopped.get(&view).cloned().ok_or_else(gone)?;
        let below = self.reading(BTreeSet::from([view]));
        self.check_rebuild(&spec, true)?;
        for spec in &below {
            self.check_rebuild(spec, false)?;
        }
        Ok(in_order(below.into_iter().chain([spec]).collect()))
    }

    /// The views at work that read any of these, directly or through others. A view comes after what it reads.
    fn reading(&self, mut these: BTreeSet<RelationId>) -> Vec<Arc<ViewSpec>> {
        let mut found = Vec::new();
        for (id, spec) in &self.specs {
            if spec.dataflow.inputs.iter().any(|input| these.contains(&input.relation)) {
                these.insert(*id);
                found.push(spec.clone());
            }
        }
        found
    }

    /// Whether a view can be built anew from rows that are kept, and may take back what it said.
    fn check_rebuild(&self, spec: &ViewSpec, may_be_final: bool) -> Result<(), SqlError> {
        let name = self.shared.catalog().describe(spec.view);
        let cannot = |why: String| {
            SqlError::not_supported(format!("{name} cannot be built anew: {why}"))
                .hint("Drop it, do this, and create it again.")
        };
        if self.catching_up.contains_key(&spec.view) {
            return Err(not_now(format!("{name} is still being built")).hint("Try again when it has caught up."));
        }
        if !may_be_final && spec.dataflow.nodes.iter().any(|node| node.op.is_final()) {
            return Err(cannot("what EMIT ON WINDOW CLOSE has given is final".into()));
        }
        for input in &spec.dataflow.inputs {
            if let Some(source) = self.relations.get(&input.relation).filter(|r| r.kind == RelationKind::Source) {
                return Err(cannot(format!("the rows of source \"{}\" are not kept", source.name)));
            }
        }
        let state = self.shared.published.state.read();
        if state.shown.get(&spec.view).is_none_or(|shown| shown.rows.is_none()) {
            return Err(cannot("what it has given is not kept".into()));
        }
        Ok(())
    }

    /// Moves rows from `t$late` into their table. Those that have gone meanwhile, and those whose primary key is taken, stay
    /// where they are.
    pub(super) fn put_late(&mut self, cut: &mut Cut, late: LateRows) {
        let LateRows { table, rows, moved, reply } = late;
        match self.move_late(cut, table, &rows) {
            Ok(count) => {
                let _ = moved.send(count);
                cut.replies.push(reply);
            }
            Err(error) => {
                let _ = reply.send(Err(error));
            }
        }
    }

    fn move_late(&mut self, cut: &mut Cut, table: RelationId, rows: &[RecordBatch]) -> Result<u64, SqlError> {
        let relation = self.relations.get(&table).cloned().ok_or_else(gone)?;
        let side = table + 2;
        let schema = relaxed(&self.relations.get(&side).ok_or_else(gone)?.schema);
        let all = concat_batches(&schema, rows).map_err(internal)?;
        let retained = self.retained(side)?;
        let present = retained.present(&Delta::inserts(all.clone())).map_err(internal)?;
        let there = filter_record_batch(&all, &BooleanArray::from(present)).map_err(internal)?;
        let own = |rows: &RecordBatch| {
            let columns = rows.columns()[..relation.schema.fields().len()].to_vec();
            batch(relation.schema.clone(), columns, rows.num_rows())
        };
        let (from, into) = match self.keys.get_mut(&table) {
            None => (there.clone(), Delta::inserts(own(&there))),
            Some(keys) => {
                let from = filter_record_batch(&there, &keys.fresh(&own(&there))?).map_err(internal)?;
                let added = vec![own(&from)];
                let change = TableChange { removed: Vec::new(), added, on_conflict: OnConflict::Error, seen: 0 };
                (from, keys.apply(&change)?)
            }
        };
        let count = from.num_rows() as u64;
        self.put_side(cut, side, Delta::inserts(from).negate());
        self.put(cut, table, None, into, true);
        cut.counted.insert(table);
        let mut stats = self.shared.stats.lock();
        let counters = stats.counters(table);
        counters.late = counters.late.saturating_sub(count);
        counters.applied += count;
        Ok(count)
    }
}

/// What is read before what reads it, each once: views are numbered in the order of their creation.
fn in_order(mut views: Vec<Arc<ViewSpec>>) -> Vec<Arc<ViewSpec>> {
    views.sort_by_key(|spec| spec.view);
    views.dedup_by_key(|spec| spec.view);
    views
}
