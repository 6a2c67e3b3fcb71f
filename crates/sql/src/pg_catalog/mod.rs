//! The system tables that PostgreSQL's clients ask for: `pg_catalog` and `information_schema`.
//!
//! For name resolution there are three functions, for planning one:
//! - [`system_relation`]: the columns of a system table, by namespace and name; [`resolve`] looks in a catalog
//!   first and then here, as every name in a query should be looked up;
//! - [`system_rows`]: its rows, made from a [`Catalog`] on the spot (they cost nothing until asked for);
//!   [`with_system_tables`] adds them to a snapshot;
//! - [`function`]: functions such as `pg_get_viewdef`, which need to see the catalog;
//! - [`rewrite`]: turns what clients write and DataFusion cannot plan into what it can.
//!
//! Numbers of objects (OIDs) follow from the relation's number and stay the same for its life:
//! `names::relation_oid`. `columns` holds the small language in which system tables are written down.

mod columns;
mod constants;
mod functions;
mod information;
mod names;
mod relations;
mod rewrite;

use std::sync::{Arc, LazyLock};

use arrow::array::RecordBatch;
use tidemill_delta::Epoch;

use crate::{Catalog, Relation, RelationKind, Snapshot, SqlError};

pub(crate) use functions::function;
pub(crate) use names::type_name_of;
pub(crate) use rewrite::rewrite;

use columns::{Row, Table};

/// Numbers of system relations begin here, far from those of the user's relations.
const SYSTEM_IDS: u64 = 1 << 40;

/// A system table: what it looks like and what it holds.
struct Definition {
    table: Table,
    rows: fn(&dyn Catalog) -> Vec<Row>,
}

/// All system tables. A namespace's tables are found by name, of which there are few enough to search.
static DEFINITIONS: LazyLock<Vec<(Definition, Arc<Relation>)>> = LazyLock::new(|| {
    let all = constants::definitions().into_iter().chain(relations::definitions()).chain(information::definitions());
    all.enumerate().map(|(i, d)| (describe(i, &d), d)).map(|(relation, d)| (d, relation)).collect()
});

fn describe(number: usize, definition: &Definition) -> Arc<Relation> {
    Arc::new(Relation {
        id: SYSTEM_IDS + number as u64,
        namespace: definition.table.namespace.to_string(),
        name: definition.table.name.to_string(),
        kind: RelationKind::System,
        schema: definition.table.schema(),
        primary_key: Vec::new(),
        append_only: false,
        event_time: None,
        generated: Vec::new(),
        retention: None,
        defaults: Vec::new(),
        bounds: Vec::new(),
        definition: None,
        sql: String::new(),
    })
}

fn find(namespace: &str, name: &str) -> Option<&'static (Definition, Arc<Relation>)> {
    DEFINITIONS.iter().find(|(d, _)| d.table.namespace == namespace && d.table.name == name)
}

/// A system table's shape.
pub(crate) fn system_relation(namespace: &str, name: &str) -> Option<Arc<Relation>> {
    find(namespace, name).map(|(_, relation)| relation.clone())
}

/// A system table's rows; `relation` is one from [`system_relation`]. `None` for other relations.
pub(crate) fn system_rows(catalog: &dyn Catalog, relation: &Relation) -> Option<Result<RecordBatch, SqlError>> {
    if relation.id < SYSTEM_IDS {
        return None;
    }
    let (definition, _) = find(&relation.namespace, &relation.name)?;
    Some(definition.table.batch(&(definition.rows)(catalog)))
}

/// A snapshot that has the system tables' rows too.
pub(crate) fn with_system_tables(catalog: Arc<dyn Catalog>, snapshot: Arc<dyn Snapshot>) -> Arc<dyn Snapshot> {
    Arc::new(WithSystemTables { catalog, snapshot })
}

struct WithSystemTables {
    catalog: Arc<dyn Catalog>,
    snapshot: Arc<dyn Snapshot>,
}

impl Snapshot for WithSystemTables {
    fn epoch(&self) -> Epoch {
        self.snapshot.epoch()
    }

    fn rows(&self, relation: &Relation) -> Result<Vec<RecordBatch>, SqlError> {
        match system_rows(self.catalog.as_ref(), relation) {
            Some(rows) => Ok(vec![rows?]),
            None => self.snapshot.rows(relation),
        }
    }
}

/// The relation that a name in a query means: the catalog's, then a system table (of `pg_catalog`, if no
/// namespace is given).
pub(crate) fn resolve(catalog: &dyn Catalog, namespace: Option<&str>, name: &str) -> Option<Arc<Relation>> {
    catalog.relation(namespace, name).or_else(|| system_relation(namespace.unwrap_or("pg_catalog"), name))
}

/// All system tables' shapes.
fn system_relations() -> impl Iterator<Item = &'static Arc<Relation>> {
    DEFINITIONS.iter().map(|(_, relation)| relation)
}

/// Whether a system table never has rows here.
fn always_empty(namespace: &str, name: &str) -> bool {
    find(namespace, name).is_some_and(|(d, _)| std::ptr::fn_addr_eq(d.rows, none as fn(&dyn Catalog) -> Vec<Row>))
}

/// The rows of system tables about things that do not exist here.
fn none(_catalog: &dyn Catalog) -> Vec<Row> {
    Vec::new()
}

#[cfg(test)]
mod tests;
