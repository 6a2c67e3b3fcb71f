//! All views at once, each compared with its query as a batch while the tables grow and change.

use tidemill_engine::{Config, Engine, Response, Session, parse};
use tidemill_env::Env;

use super::data::{Table, slices};
use super::measure::put;
use super::queries::{Query, TABLES};
use crate::Failure;
use crate::bench::query::run;

/// How often the load stops to compare.
const STOPS: usize = 10;

/// What is done to the full tables, each followed by a comparison.
const CHANGES: [&str; 10] = [
    "DELETE FROM lineitem WHERE l_orderkey % 7 = 0",
    "UPDATE lineitem SET l_quantity = 51 - l_quantity, l_discount = 0.10 - l_discount, l_tax = 0.01, \
     l_shipdate = l_shipdate + 30, l_suppkey = l_suppkey % 3 + 1 WHERE l_orderkey % 5 = 0",
    "DELETE FROM orders WHERE o_orderkey % 11 = 0",
    "UPDATE orders SET o_custkey = o_custkey % 100 + 1, o_totalprice = o_totalprice + 1, o_orderpriority = '1-URGENT', \
     o_orderdate = o_orderdate - 60 WHERE o_orderkey % 5 = 2",
    "UPDATE customer SET c_acctbal = -c_acctbal, c_nationkey = (c_nationkey + 1) % 25 WHERE c_custkey % 4 = 0; \
     DELETE FROM customer WHERE c_custkey % 13 = 0",
    "UPDATE part SET p_size = 15, p_type = 'ECONOMY ANODIZED STEEL', p_name = 'forest green' WHERE p_partkey % 6 = 0; \
     UPDATE part SET p_brand = 'Brand#23', p_container = 'MED BOX', p_type = 'SMALL BRASS' WHERE p_partkey % 6 = 1; \
     DELETE FROM part WHERE p_partkey % 17 = 0",
    "UPDATE partsupp SET ps_supplycost = 1001 - ps_supplycost, ps_availqty = 9 WHERE ps_partkey % 3 = 0; \
     DELETE FROM partsupp WHERE ps_partkey % 19 = 0",
    "UPDATE supplier SET s_nationkey = (s_nationkey + 2) % 25, s_comment = 'Customer loud Complaints' \
     WHERE s_suppkey % 3 = 0",
    "UPDATE nation SET n_name = 'KENYA', n_regionkey = 3 WHERE n_name = 'GERMANY'; \
     DELETE FROM nation WHERE n_name = 'CHINA'; UPDATE region SET r_comment = 'new'",
    "DELETE FROM lineitem WHERE l_orderkey % 2 = 1; DELETE FROM orders WHERE o_orderkey % 2 = 1",
];

/// What came of a view.
pub struct Verdict {
    /// Which.
    pub query: Query,
    /// How often it was compared.
    pub compared: u64,
    /// How often it had rows then.
    pub with_rows: u64,
    /// When it differed.
    pub wrong: Vec<String>,
    /// How often something was computed anew.
    pub recomputations: u64,
}

/// All views beside their tables.
struct Checked<'a> {
    engine: Engine,
    session: Session,
    tables: &'a [Table],
    verdicts: Vec<Verdict>,
}

/// Loads, deletes and updates, and compares.
pub async fn check(queries: &[Query], tables: &[Table], scale: f64, workers: usize) -> Result<Vec<Verdict>, Failure> {
    let engine = Engine::start(Config { workers, ..Config::default() }, Env::real())?;
    let mut session = engine.session();
    run(&mut session, TABLES).await?;
    let mut verdicts = Vec::new();
    for query in queries {
        run(&mut session, &query.create(scale)).await?;
        verdicts.push(Verdict { query: *query, compared: 0, with_rows: 0, wrong: Vec::new(), recomputations: 0 });
    }
    let mut checked = Checked { engine: engine.clone(), session, tables, verdicts };
    checked.load().await?;
    for change in CHANGES {
        run(&mut checked.session, change).await?;
        checked.compare(change).await?;
    }
    // What was deleted or changed comes back: rows with the same keys take the others' places.
    checked.put(0, 1).await?;
    checked.compare("the first load once more").await?;
    let status = engine.status();
    for verdict in &mut checked.verdicts {
        let name = verdict.query.name();
        let view = status.relations.iter().find(|r| r.relation.name == name);
        verdict.recomputations = view.map_or(0, |view| view.recomputations);
    }
    engine.shutdown();
    Ok(checked.verdicts)
}

impl Checked<'_> {
    async fn load(&mut self) -> Result<(), Failure> {
        let slices = slices(self.tables, STOPS);
        for slice in 0..slices {
            self.put(slice, slices).await?;
            let stops = |slices_done: usize| slices_done * STOPS / slices;
            if stops(slice + 1) > stops(slice) {
                self.compare(&format!("slice {} of {slices}", slice + 1)).await?;
            }
        }
        Ok(())
    }

    /// Puts a slice of each table in.
    async fn put(&mut self, slice: usize, of: usize) -> Result<(), Failure> {
        for table in self.tables {
            put(&self.engine, table.name, table.slice(slice, of), true).await?;
        }
        Ok(())
    }

    async fn compare(&mut self, after: &str) -> Result<(), Failure> {
        for verdict in &mut self.verdicts {
            let name = verdict.query.name();
            let differing = rows(&mut self.session, &format!("VERIFY MATERIALIZED VIEW {name}")).await?;
            verdict.compared += 1;
            let status = self.engine.status();
            let view = status.relations.iter().find(|r| r.relation.name == name);
            verdict.with_rows += u64::from(view.is_some_and(|view| view.rows > 0 && view.state == "running"));
            if differing > 0 {
                verdict.wrong.push(format!("{differing} rows differ after {after}"));
            }
        }
        Ok(())
    }
}

/// How many rows a statement gives.
async fn rows(session: &mut Session, sql: &str) -> Result<usize, Failure> {
    let mut rows = 0;
    for statement in parse(sql)? {
        if let Response::Rows { batches, .. } = session.execute(&statement, &[]).await? {
            rows += batches.iter().map(|batch| batch.num_rows()).sum::<usize>();
        }
    }
    Ok(rows)
}
