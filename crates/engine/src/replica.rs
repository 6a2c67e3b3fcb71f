//! The catalog in processes that only work: it follows process 0's definitions, so that a view's
//! statement can be planned where its operators run. Planning is deterministic, so all processes
//! have the same dataflow.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tidemill_dataflow::ViewSpec;
use tidemill_plan::RelationId;
use tidemill_sql::{Planner, SqlError, StatementKind, parse};

use crate::catalog::CatalogState;
use crate::define::{define_relation, define_view, defined_query};
use crate::side_table::sink_tables;

/// A catalog kept by definitions.
pub(crate) struct Replica {
    planner: Planner,
    state: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    catalog: CatalogState,
    /// What each definition became; several workers ask for the same one.
    specs: BTreeMap<RelationId, Option<Arc<ViewSpec>>>,
}

/// A definition for other processes.
pub(crate) fn definition(id: RelationId, sql: &str) -> String {
    json!({ "id": id, "sql": sql }).to_string()
}

impl Replica {
    pub(crate) fn new(planner: Planner) -> Self {
        Replica { planner, state: Mutex::default() }
    }

    /// Learns a definition; gives the dataflow if it is a view's.
    pub(crate) fn deploy(&self, text: &str) -> Option<Arc<ViewSpec>> {
        let parsed: Value = serde_json::from_str(text).ok()?;
        let id = parsed.get("id")?.as_u64()?;
        let sql = parsed.get("sql")?.as_str()?;
        let mut known = self.state.lock();
        if let Some(spec) = known.specs.get(&id) {
            return spec.clone();
        }
        let spec = self
            .learn(&mut known.catalog, id, sql)
            .unwrap_or_else(|error| panic!("process 0 accepted a statement that fails here: {error}: {sql}"));
        known.specs.insert(id, spec.clone());
        spec
    }

    fn learn(&self, catalog: &mut CatalogState, id: RelationId, sql: &str) -> Result<Option<Arc<ViewSpec>>, SqlError> {
        let statement = parse(sql)?.into_iter().next().ok_or_else(|| SqlError::internal("an empty definition"))?;
        match &statement.kind {
            StatementKind::CreateRelation(create) => {
                for relation in define_relation(&self.planner, id, create, sql)? {
                    catalog.add(relation, Default::default());
                }
                Ok(None)
            }
            StatementKind::CreateView(create) => {
                let made = define_view(&self.planner, catalog, id, create, sql)?;
                for relation in &made.relations {
                    let reads = if relation.id == id { made.reads.clone() } else { Default::default() };
                    catalog.add(relation.clone(), reads);
                }
                Ok(made.spec)
            }
            StatementKind::CreateSink(create) => {
                let query = create.query.as_deref();
                let defined = |query| defined_query(&self.planner, catalog, id, query, create.on_close);
                let spec = query.map(defined).transpose()?.map(|(spec, ..)| spec);
                sink_tables(id, create).into_iter().for_each(|table| catalog.add(table, Default::default()));
                Ok(spec)
            }
            _ => Err(SqlError::internal("this statement defines nothing")),
        }
    }
}
