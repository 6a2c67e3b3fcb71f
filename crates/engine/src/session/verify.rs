//! `VERIFY MATERIALIZED VIEW v`: the view against its query, over the same prefix of the same inputs.
//!
//! Published epochs are snapshots that share their rows with the live ones, so the stream runs on meanwhile. The query
//! runs on a thread of its own, and of its rows only sums are kept as long as both sides agree.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidemill_delta::{Delta, relaxed};
use tidemill_sql::{
    CreateView, Notice, ObjectName, Planner, Relation, RelationKind, Snapshot, SqlError, StatementKind, ViewQuery,
    parse, state, verify_schema,
};
use tidemill_state::Collection;
use tokio::sync::{OwnedMutexGuard, oneshot};

use super::{Response, Session};
use crate::catalog::{CatalogState, kind_name};
use crate::difference::{KEPT, Sums, as_rows};

/// Planning and running a query recurse as deep as it is nested.
const STACK: usize = 64 << 20;

/// A view and what to compare it with.
struct Comparison {
    planner: Planner,
    query: ViewQuery,
    view: Collection,
    snapshot: Arc<dyn Snapshot>,
    /// Nobody waits for the answer any more.
    abandoned: Arc<AtomicBool>,
    /// Held as long as the thread is at work.
    _alone: OwnedMutexGuard<()>,
}

/// What came of a comparison.
struct Compared {
    /// Positive: what only the view has. Negative: what only the query gives.
    difference: Delta,
    /// There is more than that.
    more: bool,
    /// Rows of the query's answer.
    rows: u64,
}

/// Tells the thread when the session stops waiting: the client has cancelled or left.
struct Abandon(Arc<AtomicBool>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Session {
    pub(super) async fn verify(&mut self, name: &ObjectName) -> Result<Response, SqlError> {
        let inner = self.engine.inner.clone();
        let alone = inner.verifying.clone().lock_owned().await;
        let catalog = inner.catalog();
        let view = catalog.find(name)?;
        self.check_verifiable(&catalog, &view)?;
        let comparison = self.comparison(&catalog, &view, alone)?;
        let (epoch, held) = (comparison.snapshot.epoch(), comparison.view.rows());
        let _abandon = Abandon(comparison.abandoned.clone());
        let compared = self.in_time(comparison.on_its_own_thread()).await.map_err(|error| explained(error, &view))?;
        self.notices.push(verdict(&view, epoch, held, &compared));
        let schema = verify_schema(&relaxed(&view.schema));
        let differing = as_rows(&compared.difference, schema.clone());
        Ok(Response::Rows { schema, batches: vec![differing], tag: "VERIFY".into() })
    }

    /// The view as it is published now, and its query.
    fn comparison(
        &self,
        catalog: &CatalogState,
        view: &Relation,
        alone: OwnedMutexGuard<()>,
    ) -> Result<Comparison, SqlError> {
        let inner = &self.engine.inner;
        let snapshot = inner.published.snapshot();
        let rows = snapshot.collection(view.id).cloned().ok_or_else(|| no_rows(view))?;
        let watermark = snapshot.watermark(catalog.watermarked(view.id));
        let query = inner.planner.view_query(catalog, &definition_of(view)?, watermark)?;
        let (planner, abandoned) = (inner.planner.clone(), Arc::default());
        Ok(Comparison { planner, query, view: rows, snapshot, abandoned, _alone: alone })
    }

    fn check_verifiable(&self, catalog: &CatalogState, view: &Relation) -> Result<(), SqlError> {
        let name = &view.name;
        if view.kind != RelationKind::MaterializedView {
            let message = format!("\"{name}\" is a {}, not a materialized view", kind_name(view.kind));
            return Err(SqlError::new(state::WRONG_OBJECT_TYPE, message));
        }
        let refuse = |message: String| SqlError::new(state::OBJECT_NOT_IN_PREREQUISITE_STATE, message);
        let stopped = {
            let mut stats = self.engine.inner.stats.lock();
            let counters = stats.counters(view.id);
            (counters.state == "stopped").then(|| counters.reason.clone().unwrap_or_default())
        };
        if let Some(reason) = stopped {
            return Err(refuse(format!("view \"{name}\" has stopped and cannot be verified: {reason}"))
                .hint(format!("ALTER MATERIALIZED VIEW \"{name}\" RESUME builds it anew, once the reason is gone.")));
        }
        let kind_of = |id| catalog.get(id).map(|r: &Arc<Relation>| (r.kind, r.name.clone()));
        let mut inputs = catalog.inputs(view.id).filter_map(kind_of);
        if let Some((_, source)) = inputs.find(|(kind, _)| *kind == RelationKind::Source) {
            let message = format!("view \"{name}\" cannot be verified: rows of source \"{source}\" are not kept");
            return Err(SqlError::not_supported(message)
                .hint("A view over a table can be verified, and so can one over another view, which is kept."));
        }
        Ok(())
    }
}

/// The statement that made the view.
fn definition_of(view: &Relation) -> Result<CreateView, SqlError> {
    match parse(&view.sql)?.pop().map(|statement| statement.kind) {
        Some(StatementKind::CreateView(create)) => Ok(*create),
        _ => Err(SqlError::internal(format!("the definition of \"{}\" is lost", view.name))),
    }
}

fn no_rows(view: &Relation) -> SqlError {
    let message = format!("view \"{}\" cannot be verified: it has no rows to compare yet", view.name);
    SqlError::new(state::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
        .hint("Wait until it has caught up; SHOW MATERIALIZED VIEWS tells.")
}

/// Rows without an answer are put aside by a view, and end a batch.
fn explained(error: SqlError, view: &Relation) -> SqlError {
    if !error.code.starts_with("22") {
        return error;
    }
    let name = &view.name;
    let message = format!("view \"{name}\" cannot be verified: its query fails over the same rows: {}", error.message);
    SqlError::new(state::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
        .hint(format!("A view puts rows without an answer aside; SELECT * FROM \"{name}$errors\" shows them."))
}

fn verdict(view: &Relation, epoch: u64, held: u64, compared: &Compared) -> Notice {
    let name = &view.name;
    if compared.difference.is_empty() {
        let message = format!("view \"{name}\" is right at epoch {epoch}: all of {held} rows compared");
        return Notice { message, hint: None };
    }
    let (rows, differ) = (compared.rows, compared.difference.len());
    let least = if compared.more { "at least " } else { "" };
    let message = format!(
        "view \"{name}\" is wrong at epoch {epoch}: {least}{differ} rows differ; it has {held} rows, its query gives {rows}"
    );
    let hint = if compared.more { format!("Of very many only about {KEPT} are looked at.") } else { String::new() };
    let more = "Please report it with the view's definition; dropping and creating the view computes it anew.";
    Notice { message, hint: Some(format!("{more} {hint}").trim_end().to_owned()) }
}

impl Comparison {
    async fn on_its_own_thread(self) -> Result<Compared, SqlError> {
        let (done, answer) = oneshot::channel();
        let thread = std::thread::Builder::new().name("verify".into()).stack_size(STACK);
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            let compared = runtime
                .map_err(|e| SqlError::internal(format!("no runtime: {e}")))
                .and_then(|runtime| runtime.block_on(self.compare()));
            // Whoever asked may have left.
            let _ = done.send(compared);
        };
        thread.spawn(work).map_err(|e| SqlError::internal(format!("no thread: {e}")))?;
        answer.await.map_err(|_| SqlError::internal("the comparison ended without an answer"))?
    }

    async fn compare(self) -> Result<Compared, SqlError> {
        let shape = relaxed(self.query.schema());
        let internal = |e: arrow::error::ArrowError| SqlError::internal(e.to_string());
        let mut sums = Sums::new(&shape).map_err(internal)?;
        let mut rows = 0;
        self.each_of_query(&mut |delta| {
            rows += delta.len() as u64;
            sums.add(&delta, -1).map_err(internal)
        })
        .await?;
        self.view.runs().iter().try_for_each(|run| sums.add(run, 1)).map_err(internal)?;
        let Some(mut suspects) = sums.suspects() else {
            return Ok(Compared { difference: Delta::empty(shape), more: false, rows });
        };
        self.view.runs().iter().try_for_each(|run| suspects.add(run, 1)).map_err(internal)?;
        self.each_of_query(&mut |delta| suspects.add(&delta, -1).map_err(internal)).await?;
        let more = suspects.more;
        Ok(Compared { difference: suspects.difference(&shape).map_err(internal)?, more, rows })
    }

    async fn each_of_query(
        &self,
        take: &mut (dyn FnMut(Delta) -> Result<(), SqlError> + Send),
    ) -> Result<(), SqlError> {
        let mut each = |rows: arrow::array::RecordBatch| {
            if self.abandoned.load(Ordering::Acquire) {
                return Err(SqlError::new(state::QUERY_CANCELED, "nobody waits for the answer"));
            }
            take(Delta::inserts(rows))
        };
        self.planner.run_view_query(&self.query, &self.snapshot, &mut each).await
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
    use arrow::datatypes::Int64Type;
    use tidemill_delta::batch;
    use tidemill_env::Env;

    use super::*;
    use crate::{Config, Engine};

    async fn run(session: &mut Session, sql: &str) {
        for statement in parse(sql).unwrap() {
            session.execute(&statement, &[]).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        }
    }

    /// Compares view `v` after its published rows were changed.
    async fn compare(session: &Session, corrupt: impl Fn(&mut Collection)) -> (Compared, Notice) {
        let inner = &session.engine.inner;
        let catalog = inner.catalog();
        let name = ObjectName { namespace: None, name: "v".into(), position: None };
        let view = catalog.find(&name).unwrap();
        let alone = inner.verifying.clone().lock_owned().await;
        let mut comparison = session.comparison(&catalog, &view, alone).unwrap();
        corrupt(&mut comparison.view);
        let held = comparison.view.rows();
        let compared = comparison.on_its_own_thread().await.unwrap();
        let verdict = verdict(&view, 1, held, &compared);
        (compared, verdict)
    }

    fn row(collection: &Collection, key: &str, sum: i64, weight: i64) -> Delta {
        let columns: Vec<ArrayRef> =
            vec![Arc::new(StringArray::from(vec![key])), Arc::new(Int64Array::from(vec![sum]))];
        Delta::new(batch(collection.schema().clone(), columns, 1), Int64Array::from(vec![weight]))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_wrong_view_is_found_out_row_by_row() {
        let engine = Engine::start(Config::default(), Env::real()).unwrap();
        let mut session = engine.session();
        run(&mut session, "CREATE TABLE t (k text, x bigint)").await;
        run(&mut session, "CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS s FROM t GROUP BY k").await;
        run(&mut session, "INSERT INTO t VALUES ('a', 1), ('a', 2), ('b', 4)").await;
        let (right, verdict) = compare(&session, |_| ()).await;
        assert!(right.difference.is_empty() && right.rows == 2);
        assert_eq!(verdict.message, "view \"v\" is right at epoch 1: all of 2 rows compared");
        let corrupt = |view: &mut Collection| {
            // A row that should not be, one that is missing, one that is there three times.
            for (key, sum, weight) in [("z", 9, 1), ("b", 1, -1), ("a", 2, 2)] {
                let delta = row(view, key, sum, weight);
                view.push(delta).unwrap();
            }
        };
        let (wrong, verdict) = compare(&session, corrupt).await;
        assert_eq!(verdict.message, "view \"v\" is wrong at epoch 1: 3 rows differ; it has 4 rows, its query gives 2");
        let rows = as_rows(&wrong.difference, verify_schema(&wrong.difference.rows.schema()));
        let text = |column: usize, i: usize| rows.column(column).as_string::<i32>().value(i).to_owned();
        let number = |column: usize, i: usize| rows.column(column).as_primitive::<Int64Type>().value(i);
        let found: Vec<_> =
            (0..rows.num_rows()).map(|i| (text(0, i), number(1, i), text(2, i), number(3, i))).collect();
        let row = |side: &str, times, key: &str, sum| (side.to_owned(), times, key.to_owned(), sum);
        assert_eq!(found, vec![row("view", 2, "a", 2), row("query", 1, "b", 1), row("view", 1, "z", 9)]);
        engine.shutdown();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn views_that_cannot_be_compared_say_why() {
        let engine = Engine::start(Config::default(), Env::real()).unwrap();
        let mut session = engine.session();
        run(&mut session, "CREATE SOURCE s (id bigint) WITH (connector = 'datagen', rows = 10)").await;
        run(&mut session, "CREATE MATERIALIZED VIEW over_source AS SELECT count(*) AS n FROM s").await;
        run(&mut session, "CREATE MATERIALIZED VIEW over_view AS SELECT n + 1 AS m FROM over_source").await;
        run(&mut session, "CREATE TABLE t (a int); CREATE VIEW plain AS SELECT * FROM t").await;
        run(&mut session, "CREATE MATERIALIZED VIEW broken AS SELECT 1 / a AS b FROM t").await;
        run(&mut session, "INSERT INTO t VALUES (0), (1)").await;
        for (name, code, words) in [
            ("over_source", "0A000", "rows of source \"s\" are not kept"),
            ("t", "42809", "\"t\" is a table"),
            ("plain", "42809", "\"plain\" is a view"),
            ("missing", "42P01", "does not exist"),
            ("broken", "55000", "its query fails over the same rows"),
        ] {
            let statement = parse(&format!("VERIFY MATERIALIZED VIEW {name}")).unwrap().remove(0);
            let error = session.execute(&statement, &[]).await.err().unwrap_or_else(|| panic!("{name} is verified"));
            assert!(error.code == code && error.message.contains(words), "{name}: {error:?}");
        }
        run(&mut session, "VERIFY VIEW over_view").await;
        assert!(session.take_notices()[0].message.starts_with("view \"over_view\" is right at epoch "));
        engine.shutdown();
    }
}
