//! A definition's expression that panics.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use tidemill_env::Env;
use tidemill_sql::{StatementKind, parse};

use crate::catalog::CatalogState;
use crate::conductor::publish::tests::run;
use crate::conductor::{Define, Request};
use crate::define::define_relation;
use crate::journal::Object;
use crate::panics::tests::Unlucky;
use crate::{Config, Engine};

/// Creates `t` with a watermark that SQL cannot write.
async fn create_unlucky(engine: &Engine) {
    let (inner, sql) = (engine.inner.clone(), "CREATE TABLE t (ts timestamp, WATERMARK FOR ts AS ts)");
    let StatementKind::CreateRelation(create) = parse(sql).unwrap().remove(0).kind else { panic!("a table") };
    let id = inner.new_id();
    let mut relations = define_relation(&inner.planner, id, &create, sql).unwrap();
    let mut table = relations[0].as_ref().clone();
    table.event_time.as_mut().unwrap().watermark = Arc::new(Unlucky);
    relations[0] = Arc::new(table);
    let shown = relations.clone();
    let define = |reply| {
        let object = Object { id, sql: sql.into(), keep: true, replaces: Vec::new() };
        let enter = Box::new(move |catalog: &mut CatalogState| {
            relations.into_iter().for_each(|relation| catalog.add(relation, BTreeSet::new()));
        });
        let define = Define { relations: shown, spec: None, object, source: None, sink: None, enter, reply };
        Request::Define(Box::new(define))
    };
    inner.ask(define).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_watermark_fails_its_statement_only() {
    let engine = Engine::start(Config::default(), Env::real()).unwrap();
    let mut session = engine.session();
    run(&mut session, "CREATE TABLE other (a int)").await;
    create_unlucky(&engine).await;
    let sql = "BEGIN; INSERT INTO other VALUES (1); INSERT INTO t VALUES ('1970-01-01 00:00:00.000013')";
    run(&mut session, sql).await;
    let commit = parse("COMMIT").unwrap().remove(0);
    let error = session.execute(&commit, &[]).await.err().unwrap();
    let message = "an expression of \"t\" failed by a bug: thirteen!";
    assert_eq!((error.code, error.message.as_str()), ("XX000", message));
    let times = TimestampMicrosecondArray::from(vec![13]);
    let fields = vec![Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true)];
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![Arc::new(times)]).unwrap();
    let table = engine.relation("t").unwrap();
    let error = engine.ingest(&table, &[0], vec![rows], Vec::new(), true).await.unwrap_err();
    assert_eq!(error.message, message);
    run(&mut session, "INSERT INTO t VALUES ('1970-01-01 00:00:00.000014')").await;
    assert_eq!(run(&mut session, "SELECT count(*) FROM t").await, ["1"]);
    assert_eq!(run(&mut session, "SELECT count(*) FROM other").await, ["0"]);
    let status = engine.status();
    let counts = |name: &str| {
        let found = status.relations.iter().find(|r| r.relation.name == name).unwrap();
        (found.rows_in, found.applied, found.late, found.bad)
    };
    assert_eq!([counts("t"), counts("other")], [(1, 1, 0, 0), (0, 0, 0, 0)]);
    engine.shutdown();
}
