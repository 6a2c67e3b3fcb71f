//! `CREATE` and `DROP`.

use std::sync::Arc;

use tidemill_connect::{Opening, Sink};
use tidemill_delta::Epoch;
use tidemill_plan::RelationId;
use tidemill_sql::{
    Catalog, CreateRelation, CreateSink, CreateView, DropKind, Notice, ObjectName, Relation, RelationKind, SqlError,
    state,
};

use super::{Response, Session};
use crate::catalog::{CatalogState, kind_name};
use crate::conductor::{Define, Request};
use crate::define::{DefinedView, Made, MadeSink, define_view, make_relation, make_sink};
use crate::journal::Object;

/// The lock on definitions.
type Lock = tokio::sync::OwnedMutexGuard<()>;

/// Whether a name is free.
enum Name {
    Free,
    /// It is taken, and that is fine.
    Keep(Notice),
    /// It is taken by something that has to go first.
    Replace(RelationId),
}

fn name_state(catalog: &CatalogState, name: &ObjectName, keep: bool, replace: bool) -> Result<Name, SqlError> {
    let taken = catalog.relation(name.namespace.as_deref(), &name.name).map(|r| r.id);
    let taken = taken.or_else(|| catalog.sink(&name.name).map(|s| s.id));
    let Some(id) = taken else { return Ok(Name::Free) };
    if replace {
        return Ok(Name::Replace(id));
    }
    if keep {
        let message = format!("relation \"{}\" already exists, skipping", name.name);
        return Ok(Name::Keep(Notice { message, hint: None }));
    }
    let error = SqlError::new(state::DUPLICATE_TABLE, format!("relation \"{}\" already exists", name.name));
    Err(match name.position {
        Some(position) => error.at(position),
        None => error,
    })
}

/// Names with a `$` belong to side tables; only `public` can be added to.
fn check_name(name: &ObjectName) -> Result<(), SqlError> {
    if name.name.contains('$') {
        let message = format!("the name \"{}\" is reserved: a $ marks the tables beside another one", name.name);
        return Err(SqlError::new("42602", message));
    }
    match name.namespace.as_deref() {
        None | Some("public") => Ok(()),
        Some(other) => {
            let message = format!("objects can only be created in schema \"public\", not in \"{other}\"");
            Err(SqlError::not_supported(message))
        }
    }
}

impl Session {
    pub(super) async fn create_relation(&mut self, create: &CreateRelation, text: &str) -> Result<Response, SqlError> {
        let tag = if create.source { "CREATE SOURCE" } else { "CREATE TABLE" };
        check_name(&create.name)?;
        let inner = self.engine.inner.clone();
        let one_at_a_time = inner.ddl.clone().lock_owned().await;
        if let Name::Keep(notice) = name_state(&inner.catalog(), &create.name, create.if_not_exists, false)? {
            self.notices.push(notice);
            return Ok(Response::Done(tag.into()));
        }
        let id = inner.new_id();
        let made = make_relation(&inner.planner, id, create, text)?;
        let object = Object { id, sql: text.to_owned(), keep: true, replaces: Vec::new() };
        self.define(made, object, one_at_a_time).await?;
        Ok(Response::Done(tag.into()))
    }

    pub(super) async fn create_view(&mut self, create: &CreateView, text: &str) -> Result<Response, SqlError> {
        let tag = if create.materialized { "CREATE MATERIALIZED VIEW" } else { "CREATE VIEW" };
        check_name(&create.name)?;
        let inner = self.engine.inner.clone();
        let one_at_a_time = inner.ddl.clone().lock_owned().await;
        let (mut catalog, mut replaces) = (inner.catalog(), Vec::new());
        match name_state(&inner.catalog(), &create.name, create.if_not_exists, create.or_replace)? {
            Name::Free => {}
            Name::Keep(notice) => {
                self.notices.push(notice);
                return Ok(Response::Done(tag.into()));
            }
            Name::Replace(id) => {
                let found = inner.catalog().get(id).cloned();
                let kind = if create.materialized { RelationKind::MaterializedView } else { RelationKind::View };
                if found.as_ref().is_none_or(|r| r.kind != kind) {
                    let message = format!("\"{}\" is not a {}", create.name.name, kind_name(kind));
                    return Err(SqlError::new(state::WRONG_OBJECT_TYPE, message));
                }
                replaces = self.with_dependents(&[id], false)?;
                // It may not read itself.
                let mut without = catalog.as_ref().clone();
                replaces.iter().for_each(|id| without.remove(*id));
                catalog = Arc::new(without);
            }
        }
        let id = inner.new_id();
        let DefinedView { relations, spec, reads, notices } = define_view(&inner.planner, &catalog, id, create, text)?;
        let made = Made { relations, spec, reads, notices, ..Made::default() };
        let object = Object { id, sql: text.to_owned(), keep: inner.config.materialize, replaces };
        self.define(made, object, one_at_a_time).await?;
        Ok(Response::Done(tag.into()))
    }

    pub(super) async fn create_sink(&mut self, create: &CreateSink, text: &str) -> Result<Response, SqlError> {
        check_name(&create.name)?;
        let inner = self.engine.inner.clone();
        let one_at_a_time = inner.ddl.clone().lock_owned().await;
        let catalog = inner.catalog();
        if let Name::Keep(notice) = name_state(&catalog, &create.name, create.if_not_exists, false)? {
            self.notices.push(notice);
            return Ok(Response::Done("CREATE SINK".into()));
        }
        let id = inner.new_id();
        let mut made = make_sink(&inner.planner, &catalog, id, create, text, &inner.env)?;
        if let Some(MadeSink { sink: made_sink, name, from, shown }) = made.sink.take() {
            let incarnation = inner.incarnation.load(std::sync::atomic::Ordering::Relaxed);
            let (sink, _) = opened(made_sink, Opening { incarnation, created: true }).await?;
            made.sink = Some(MadeSink { sink, name, from, shown });
        }
        let object = Object { id, sql: text.to_owned(), keep: true, replaces: Vec::new() };
        self.define(made, object, one_at_a_time).await?;
        Ok(Response::Done("CREATE SINK".into()))
    }

    /// Has the conductor define something, and enter it in the catalog. A view that nobody waits for any more is taken back.
    async fn define(&mut self, mut made: Made, object: Object, one_at_a_time: Lock) -> Result<(), SqlError> {
        let inner = self.engine.inner.clone();
        self.notices.append(&mut made.notices);
        let (relations, spec, source) = (made.relations.clone(), made.spec.take(), made.source.take());
        let sink_entry = made.sink.as_ref().map(|sink| (sink.name.clone(), sink.shown.clone()));
        let sink = made.sink.take().map(|sink| (object.id, sink.name, sink.from, sink.sink));
        let defined = object.clone();
        let enter = Box::new(move |catalog: &mut CatalogState| {
            object.replaces.iter().for_each(|id| catalog.remove(*id));
            made.enter(&object, sink_entry, catalog);
            drop(one_at_a_time);
        });
        let define = |reply| Define { relations, spec, object: defined, source, sink, enter, reply };
        inner.ask(|reply| Request::Define(Box::new(define(reply)))).await
    }

    pub(super) async fn drop_objects(
        &mut self,
        kind: DropKind,
        names: &[ObjectName],
        if_exists: bool,
        cascade: bool,
    ) -> Result<Response, SqlError> {
        let inner = self.engine.inner.clone();
        let one_at_a_time = inner.ddl.clone().lock_owned().await;
        let catalog = inner.catalog();
        let mut ids = Vec::new();
        for name in names {
            match find_kind(&catalog, kind, name) {
                Ok(id) => ids.push(id),
                Err(error) if error.code == state::UNDEFINED_TABLE && if_exists => {
                    let message = format!("{} \"{}\" does not exist, skipping", drop_name(kind), name.name);
                    self.notices.push(Notice { message, hint: None });
                }
                Err(error) => return Err(error),
            }
        }
        let ids = self.with_dependents(&ids, cascade)?;
        let gone = ids.clone();
        let enter = Box::new(move |catalog: &mut CatalogState| {
            gone.iter().for_each(|id| catalog.remove(*id));
            drop(one_at_a_time);
        });
        inner.ask(|reply| Request::Drop { ids, enter, reply }).await?;
        Ok(Response::Done(format!("DROP {}", drop_name(kind).to_uppercase())))
    }

    /// Objects that are to go and, with `cascade`, all that reads them, in the order in which they can go. The caller holds the lock on definitions.
    fn with_dependents(&mut self, ids: &[RelationId], cascade: bool) -> Result<Vec<RelationId>, SqlError> {
        let inner = self.engine.inner.clone();
        let catalog = inner.catalog();
        let mut order: Vec<RelationId> = Vec::new();
        for id in ids {
            collect_dependents(&catalog, *id, &mut order);
        }
        // Side tables go with what they stand beside.
        let extra =
            |id: &&RelationId| !ids.contains(id) && !catalog.get(**id).is_some_and(|r| r.kind == RelationKind::System);
        let dependents: Vec<RelationId> = order.iter().filter(extra).copied().collect();
        if !dependents.is_empty() && !cascade {
            let what = ids.first().map(|id| catalog.describe(*id)).unwrap_or_default();
            let on: Vec<_> = dependents.iter().map(|id| catalog.describe(*id)).collect();
            let message = format!("cannot drop {what} because other objects depend on it");
            return Err(SqlError::new(state::DEPENDENT_OBJECTS_STILL_EXIST, message)
                .detail(format!("These read it: {}.", on.join(", ")))
                .hint("Use DROP ... CASCADE to drop them too."));
        }
        for id in &dependents {
            let message = format!("drop cascades to {}", catalog.describe(*id));
            self.notices.push(Notice { message, hint: None });
        }
        Ok(order)
    }
}

/// Lets a sink look at its destination: what is wrong there is told now. That may take a while, so another thread does it.
/// Gives the last epoch that is there, too.
pub(super) async fn opened(
    mut sink: Box<dyn Sink>,
    opening: Opening,
) -> Result<(Box<dyn Sink>, Option<Epoch>), SqlError> {
    let open = tokio::task::spawn_blocking(move || sink.open(opening).map(|committed| (sink, committed)));
    let opened = open.await.map_err(|e| SqlError::internal(format!("a sink could not be opened: {e}")))?;
    opened.map_err(|e| SqlError::new("58000", e.to_string()))
}

/// Dependents first, each once.
fn collect_dependents(catalog: &CatalogState, id: RelationId, order: &mut Vec<RelationId>) {
    // Depth is bounded by the number of objects; a stack of our own keeps long chains off the thread's.
    let mut open = vec![(id, false)];
    while let Some((id, expanded)) = open.pop() {
        if order.contains(&id) {
            continue;
        }
        if expanded {
            order.push(id);
            continue;
        }
        open.push((id, true));
        open.extend(catalog.readers(id).into_iter().map(|reader| (reader, false)));
    }
}

fn drop_name(kind: DropKind) -> &'static str {
    match kind {
        DropKind::Table => "table",
        DropKind::Source => "source",
        DropKind::View => "view",
        DropKind::MaterializedView => "materialized view",
        DropKind::Sink => "sink",
    }
}

pub(super) fn find_kind(catalog: &CatalogState, kind: DropKind, name: &ObjectName) -> Result<RelationId, SqlError> {
    if kind == DropKind::Sink {
        return catalog
            .sink(&name.name)
            .map(|s| s.id)
            .ok_or_else(|| SqlError::new(state::UNDEFINED_TABLE, format!("sink \"{}\" does not exist", name.name)));
    }
    let relation: Arc<Relation> = catalog.find(name)?;
    let fits = matches!(
        (kind, relation.kind),
        (DropKind::Table, RelationKind::Table)
            | (DropKind::Source, RelationKind::Source)
            | (DropKind::View, RelationKind::View)
            | (DropKind::MaterializedView, RelationKind::MaterializedView)
    );
    if fits {
        return Ok(relation.id);
    }
    let own = kind_name(relation.kind);
    let message = format!("\"{}\" is not a {}", relation.name, drop_name(kind));
    let error = SqlError::new(state::WRONG_OBJECT_TYPE, message);
    Err(match relation.kind {
        RelationKind::System => error.hint("It goes with the table or view it stands beside."),
        _ => error.hint(format!("Use DROP {} to remove a {own}.", own.to_uppercase())),
    })
}
