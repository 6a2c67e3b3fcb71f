//! Publishing an epoch: all views' changes become visible at once.

use std::borrow::Cow;
use std::collections::BTreeMap;

use arrow::error::ArrowError;
use tidemill_dataflow::Output;
use tidemill_delta::{Delta, Epoch, Micros, net};
use tidemill_plan::RelationId;
use tidemill_sql::SqlError;
use tidemill_state::Collection;

use super::sinks::end_dropped;
use super::{Conductor, InFlight};
use crate::side_table::error_rows;
use crate::sink::RunningSink;

impl InFlight {
    /// Tells those who only wait until it is durable.
    fn answer_durable(&mut self) {
        for reply in self.early.drain(..) {
            let _ = reply.send(Ok(self.epoch));
        }
    }
}

impl Conductor {
    /// Publishes the epochs that the workers have done.
    pub(super) fn publish(&mut self) {
        let done = self.loop_.as_ref().map_or(0, |l| l.done());
        self.answer_durable();
        while self.in_flight.front().is_some_and(|f| f.epoch < done && self.is_durable(f.logged)) {
            let Some(mut flight) = self.in_flight.pop_front() else { return };
            // It may have become durable since those who wait for that were told.
            flight.answer_durable();
            self.publish_one(flight);
        }
    }

    /// Tells those who only wait until their rows are durable.
    fn answer_durable(&mut self) {
        for i in 0..self.in_flight.len() {
            if self.in_flight[i].early.is_empty() {
                continue;
            }
            if !self.is_durable(self.in_flight[i].logged) {
                return;
            }
            self.in_flight[i].answer_durable();
        }
    }

    fn publish_one(&mut self, mut flight: InFlight) {
        let epoch = flight.epoch;
        // All outputs of an epoch were sent before it was done.
        for output in self.outputs.try_iter() {
            let at = match &output {
                Output::Changes { epoch, .. }
                | Output::Errors { epoch, .. }
                | Output::Failed { epoch, .. }
                | Output::Saved { epoch, .. } => *epoch,
            };
            self.finished.entry(at).or_default().push(output);
        }
        let outputs = self.finished.remove(&epoch).unwrap_or_default();
        for output in &outputs {
            if let Output::Failed { view, reason, .. } = output {
                self.stop_view(*view, reason);
            }
        }
        let outputs = self.rebuilt(&mut flight, outputs);
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
                // While the journal is repeated, it has the errors that have entered.
                Output::Errors { .. } if epoch <= self.entered_errors => {}
                Output::Errors { view, errors, .. } => {
                    self.side_rows.push((epoch, view + 1, error_rows(epoch, &errors)));
                }
                Output::Saved { saved, .. } => self.take_saved(epoch, *saved),
                Output::Changes { .. } | Output::Failed { .. } => {}
            }
        }
        self.end_saving(epoch);
        self.show(epoch, changes, &flight.live, &flight.watermarks);
        self.shared.published.announce(epoch);
        self.note_latency(flight.began, flight.rows);
        flight.sinks.iter().filter_map(|id| self.sinks.get(id)).for_each(RunningSink::release);
        for (enter, reply) in flight.defined {
            self.shared.change_catalog(enter);
            let _ = reply.send(Ok(()));
        }
        for (sinks, enter, reply) in flight.dropped {
            let shared = self.shared.clone();
            end_dropped(sinks, move || {
                shared.change_catalog(enter);
                let _ = reply.send(Ok(()));
            });
        }
        // While the journal is repeated nobody waits, and its next epoch may be the last.
        if no_errors || self.repeating {
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
            match for_sinks(deltas) {
                Ok(deltas) => sink.send(epoch, &deltas),
                Err(error) => sink.fail(error.to_string()),
            }
        }
    }

    pub(super) fn stop_view(&mut self, view: RelationId, reason: &str) {
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
        if let Some(spec) = self.specs.get(&view).cloned() {
            self.stopped.insert(view, spec);
        }
        self.remove_spec(view);
        self.catching_up.remove(&view);
        self.removals.push(view);
        let (told, rest) = std::mem::take(&mut self.waiting).into_iter().partition(|w| w.view == view);
        self.waiting = rest;
        for waiting in told {
            self.abandoned.push(view);
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
            let replaced = self.objects.get(&waiting.view).map(|object| object.replaces.clone());
            self.replaced.extend(replaced.filter(|ids| !ids.is_empty()));
            self.shared.change_catalog(waiting.enter);
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

/// An epoch's changes as a sink sees them: their net.
pub(super) fn for_sinks(deltas: &[Delta]) -> Result<Cow<'_, [Delta]>, ArrowError> {
    match deltas.first() {
        Some(first) if deltas.iter().any(|d| d.diff.is_some()) => {
            Ok(Cow::Owned(vec![net(&tidemill_delta::relaxed(first.rows.schema_ref()), deltas)?]))
        }
        _ => Ok(Cow::Borrowed(deltas)),
    }
}

/// A relation's rows with an epoch's changes, and those changes as one delta.
fn merge(mut rows: Collection, deltas: &[Delta]) -> Result<(Delta, Collection), ArrowError> {
    let delta = Delta::concat(&rows.schema().clone(), deltas)?;
    rows.push(delta.clone())?;
    Ok((delta, rows))
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, RecordBatch};
    use arrow::compute::cast;
    use arrow::datatypes::{DataType, Int32Type};
    use tidemill_dataflow::ViewSpec;
    use tidemill_env::Env;
    use tidemill_plan::{Expr, Op, Scalar, ScalarError};
    use tidemill_sql::{StatementKind, parse};

    use crate::catalog::CatalogState;
    use crate::conductor::{Define, Request};
    use crate::define::define_view;
    use crate::journal::Object;
    use crate::{Config, Engine, Response, Session};

    /// Its argument, unless that is 13.
    #[derive(Debug)]
    struct Superstitious;

    impl std::fmt::Display for Superstitious {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("superstitious")
        }
    }

    impl Scalar for Superstitious {
        fn eval(&self, rows: &RecordBatch) -> Result<ArrayRef, ScalarError> {
            assert!(!rows.column(0).as_primitive::<Int32Type>().values().contains(&13), "thirteen!");
            cast(rows.column(0), &DataType::Int64).map_err(ScalarError::new)
        }

        fn data_type(&self) -> &DataType {
            &DataType::Int64
        }
    }

    /// Runs statements; gives the rows of the last one's first column.
    pub(in crate::conductor) async fn run(session: &mut Session, sql: &str) -> Vec<String> {
        let mut rows = Vec::new();
        for statement in parse(sql).unwrap() {
            let answer = session.execute(&statement, &[]).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
            let Response::Rows { batches, .. } = answer else { continue };
            let texts = batches.iter().map(|b| cast(b.column(0), &DataType::Utf8).unwrap());
            rows = texts
                .flat_map(|t| t.as_string::<i32>().iter().map(|v| v.unwrap().to_owned()).collect::<Vec<_>>())
                .collect();
        }
        rows
    }

    /// Creates `v` with an expression that SQL cannot write.
    pub(in crate::conductor) async fn create_superstitious(engine: &Engine) {
        let (inner, sql) = (engine.inner.clone(), "CREATE MATERIALIZED VIEW v AS SELECT CAST(a AS bigint) AS b FROM t");
        let StatementKind::CreateView(create) = parse(sql).unwrap().remove(0).kind else { panic!("a view") };
        let (id, catalog) = (inner.new_id(), inner.catalog());
        let made = define_view(&inner.planner, &catalog, id, &create, sql).unwrap();
        let spec = made.spec.unwrap();
        let mut dataflow = spec.dataflow.clone();
        let Some(Op::Map(map)) = dataflow.nodes.last_mut().map(|n| &mut n.op) else { panic!("a projection") };
        map.project = vec![Expr::Scalar(Arc::new(Superstitious))];
        let spec = ViewSpec { view: id, dataflow, sources: spec.sources.clone() };
        let relations = made.relations.clone();
        let define = |reply| {
            let spec = Some(Arc::new(spec));
            let object = Object { id, sql: String::new(), keep: true, replaces: Vec::new() };
            let enter = Box::new(move |catalog: &mut CatalogState| {
                let reads = [made.reads.clone(), BTreeSet::from([id])];
                made.relations.into_iter().zip(reads).for_each(|(relation, reads)| catalog.add(relation, reads));
            });
            Request::Define(Box::new(Define { relations, spec, object, source: None, sink: None, enter, reply }))
        };
        inner.ask(define).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_panic_in_an_expression_stops_its_view_only() {
        let engine = Engine::start(Config { workers: 2, ..Config::default() }, Env::real()).unwrap();
        let mut session = engine.session();
        run(&mut session, "CREATE TABLE t (a int); CREATE MATERIALIZED VIEW other AS SELECT count(*) AS n FROM t")
            .await;
        create_superstitious(&engine).await;
        run(&mut session, "CREATE MATERIALIZED VIEW above AS SELECT b FROM v").await;
        run(&mut session, "INSERT INTO t VALUES (12)").await;
        assert_eq!(run(&mut session, "SELECT b FROM v").await, ["12"]);
        run(&mut session, "INSERT INTO t VALUES (13)").await;
        run(&mut session, "INSERT INTO t VALUES (14)").await;
        assert_eq!(run(&mut session, "SELECT n FROM other").await, ["3"]);
        let status = engine.status();
        let stopped = status.relations.iter().find(|r| r.relation.name == "v").unwrap();
        assert_eq!((stopped.state.as_str(), stopped.reason.as_deref()), ("stopped", Some("thirteen!")));
        let verify = parse("VERIFY v").unwrap().remove(0);
        let error = session.execute(&verify, &[]).await.err().unwrap();
        assert_eq!(
            (error.code, error.message.ends_with("cannot be verified: thirteen!")),
            ("55000", true),
            "{error:?}"
        );
        run(&mut session, "DROP MATERIALIZED VIEW v CASCADE").await;
        assert_eq!(run(&mut session, "SHOW MATERIALIZED VIEWS").await, ["other"]);
        engine.shutdown();
    }
}
