//! The catalog: relations by name, what reads what, sinks.
//!
//! Readers take a snapshot by cloning an `Arc`; a change makes a new state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidemill_plan::RelationId;
use tidemill_sql::{Catalog, ObjectName, Relation, RelationKind, SqlError, state};

/// Everything that has a name.
#[derive(Clone, Default)]
pub(crate) struct CatalogState {
    names: BTreeMap<(String, String), Arc<Relation>>,
    by_id: BTreeMap<RelationId, Arc<Relation>>,
    /// For each relation, what it reads.
    reads: BTreeMap<RelationId, BTreeSet<RelationId>>,
    /// Sinks by name.
    sinks: BTreeMap<String, Arc<SinkEntry>>,
}

/// A sink in the catalog.
#[derive(Debug)]
pub(crate) struct SinkEntry {
    pub(crate) id: RelationId,
    pub(crate) name: String,
    pub(crate) sql: String,
}

impl CatalogState {
    pub(crate) fn add(&mut self, relation: Arc<Relation>, reads: BTreeSet<RelationId>) {
        self.names.insert((relation.namespace.clone(), relation.name.clone()), relation.clone());
        self.reads.insert(relation.id, reads);
        self.by_id.insert(relation.id, relation);
    }

    pub(crate) fn add_sink(&mut self, sink: Arc<SinkEntry>, reads: BTreeSet<RelationId>) {
        self.reads.insert(sink.id, reads);
        self.sinks.insert(sink.name.clone(), sink);
    }

    pub(crate) fn remove(&mut self, id: RelationId) {
        if let Some(relation) = self.by_id.remove(&id) {
            let name = (relation.namespace.clone(), relation.name.clone());
            // While one replaces another both have it.
            match self.by_id.values().find(|other| other.namespace == name.0 && other.name == name.1) {
                Some(other) => drop(self.names.insert(name, other.clone())),
                None => drop(self.names.remove(&name)),
            }
        }
        self.sinks.retain(|_, sink| sink.id != id);
        self.reads.remove(&id);
    }

    pub(crate) fn get(&self, id: RelationId) -> Option<&Arc<Relation>> {
        self.by_id.get(&id)
    }

    pub(crate) fn sink(&self, name: &str) -> Option<&Arc<SinkEntry>> {
        self.sinks.get(name)
    }

    pub(crate) fn sinks(&self) -> impl Iterator<Item = &Arc<SinkEntry>> {
        self.sinks.values()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Relation>> {
        self.names.values()
    }

    /// The relation with this name, or an error that says what is missing.
    pub(crate) fn find(&self, name: &ObjectName) -> Result<Arc<Relation>, SqlError> {
        self.relation(name.namespace.as_deref(), &name.name).ok_or_else(|| {
            let error = SqlError::new(state::UNDEFINED_TABLE, format!("relation \"{}\" does not exist", name.name));
            match name.position {
                Some(position) => error.at(position),
                None => error,
            }
        })
    }

    /// Who reads a relation directly: relations and sinks.
    pub(crate) fn readers(&self, id: RelationId) -> Vec<RelationId> {
        self.reads.iter().filter(|(_, reads)| reads.contains(&id)).map(|(reader, _)| *reader).collect()
    }

    /// What a relation reads directly.
    pub(crate) fn inputs(&self, id: RelationId) -> impl Iterator<Item = RelationId> + '_ {
        self.reads.get(&id).into_iter().flatten().copied()
    }

    /// The tables whose rows go by themselves, in the order of their creation.
    pub(crate) fn with_retention(&self) -> Vec<Arc<Relation>> {
        self.by_id.values().filter(|relation| relation.retention.is_some()).cloned().collect()
    }

    /// A name for an error message.
    pub(crate) fn describe(&self, id: RelationId) -> String {
        if let Some(sink) = self.sinks.values().find(|s| s.id == id) {
            return format!("sink {}", sink.name);
        }
        self.by_id.get(&id).map_or_else(|| format!("object {id}"), |r| format!("{} {}", kind_name(r.kind), r.name))
    }

    /// The sources and tables with a watermark that a relation is made from.
    pub(crate) fn watermarked(&self, id: RelationId) -> Vec<RelationId> {
        let mut found = BTreeSet::new();
        let mut open = vec![id];
        let mut seen = BTreeSet::new();
        while let Some(id) = open.pop() {
            if !seen.insert(id) {
                continue;
            }
            if self.by_id.get(&id).is_some_and(|r| r.event_time.is_some()) {
                found.insert(id);
            }
            open.extend(self.reads.get(&id).into_iter().flatten().copied());
        }
        found.into_iter().collect()
    }
}

/// What people call a kind of relation.
pub(crate) fn kind_name(kind: RelationKind) -> &'static str {
    match kind {
        RelationKind::Table => "table",
        RelationKind::Source => "source",
        RelationKind::View => "view",
        RelationKind::MaterializedView => "materialized view",
        RelationKind::System => "system table",
    }
}

impl Catalog for CatalogState {
    fn relation(&self, namespace: Option<&str>, name: &str) -> Option<Arc<Relation>> {
        let find = |namespace: &str| self.names.get(&(namespace.to_owned(), name.to_owned())).cloned();
        match namespace {
            Some(namespace) => find(namespace),
            None => find("public"),
        }
    }

    fn relations(&self) -> Vec<Arc<Relation>> {
        self.names.values().cloned().collect()
    }
}
