//! From a `CREATE` statement to relations and dataflows; the same in every process.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidemill_connect::{Sink, Source, create_sink, create_source, shown_option};
use tidemill_dataflow::ViewSpec;
use tidemill_env::Env;
use tidemill_plan::RelationId;
use tidemill_sql::{
    CreateRelation, CreateSink, CreateView, Notice, PlannedView, Planner, Relation, RelationKind, SqlError,
    StatementKind, parse, state, with_other_values,
};

use crate::catalog::{CatalogState, SinkEntry, kind_name};
use crate::journal::Object;
use crate::side_table::{bad_table, error_table, late_table, sink_tables};

/// A view, ready to run.
pub(crate) struct DefinedView {
    /// The view and the tables beside it.
    pub(crate) relations: Vec<Arc<Relation>>,
    /// The dataflow, if it is materialized.
    pub(crate) spec: Option<Arc<ViewSpec>>,
    /// What it reads.
    pub(crate) reads: BTreeSet<RelationId>,
    pub(crate) notices: Vec<Notice>,
}

/// All that a definition makes.
#[derive(Default)]
pub(crate) struct Made {
    /// The relation and those beside it.
    pub(crate) relations: Vec<Arc<Relation>>,
    /// A materialized view's dataflow, or that of a sink with a query.
    pub(crate) spec: Option<Arc<ViewSpec>>,
    pub(crate) source: Option<Arc<dyn Source>>,
    pub(crate) sink: Option<MadeSink>,
    /// What it reads.
    pub(crate) reads: BTreeSet<RelationId>,
    pub(crate) notices: Vec<Notice>,
}

/// A sink, ready to run.
pub(crate) struct MadeSink {
    pub(crate) name: String,
    /// Whose changes it takes.
    pub(crate) from: RelationId,
    pub(crate) sink: Box<dyn Sink>,
    /// Its statement, without secrets.
    pub(crate) shown: String,
}

impl Made {
    /// Puts it in the catalog; `sink`: how it is called and shown, if it is a sink.
    pub(crate) fn enter(&self, object: &Object, sink: Option<(String, String)>, catalog: &mut CatalogState) {
        if let Some((name, sql)) = sink {
            catalog.add_sink(Arc::new(SinkEntry { id: object.id, name, sql }), self.reads.clone());
        }
        for relation in &self.relations {
            let own = relation.id == object.id;
            catalog.add(relation.clone(), if own { self.reads.clone() } else { BTreeSet::from([object.id]) });
        }
    }
}

/// Makes what a statement that was accepted before defines.
pub(crate) fn make(planner: &Planner, catalog: &CatalogState, object: &Object, env: &Env) -> Result<Made, SqlError> {
    let statement = parse(&object.sql)?.into_iter().next().ok_or_else(|| SqlError::internal("an empty definition"))?;
    match &statement.kind {
        StatementKind::CreateRelation(create) => make_relation(planner, object.id, create, &object.sql),
        StatementKind::CreateView(create) => {
            let DefinedView { relations, spec, reads, notices } =
                define_view(planner, catalog, object.id, create, &object.sql)?;
            Ok(Made { relations, spec, reads, notices, ..Made::default() })
        }
        StatementKind::CreateSink(create) => make_sink(planner, catalog, object.id, create, &object.sql, env),
        _ => Err(SqlError::internal("this statement defines nothing")),
    }
}

/// A table or source, ready to run.
pub(crate) fn make_relation(
    planner: &Planner,
    id: RelationId,
    create: &CreateRelation,
    text: &str,
) -> Result<Made, SqlError> {
    let relations = define_relation(planner, id, create, text)?;
    let relation = &relations[0];
    let source = if create.source {
        let required =
            |c: &usize| !relation.schema.field(*c).is_nullable() && !relation.generated.iter().any(|g| g.column == *c);
        let not_null: Vec<usize> = (0..relation.schema.fields().len()).filter(required).collect();
        let source = create_source(&create.options, &relation.schema, &not_null);
        Some(source.map_err(|e| SqlError::new(state::INVALID_PARAMETER_VALUE, e.to_string()))?)
    } else {
        None
    };
    Ok(Made { relations, source, ..Made::default() })
}

/// A sink, ready to run.
pub(crate) fn make_sink(
    planner: &Planner,
    catalog: &CatalogState,
    id: RelationId,
    create: &CreateSink,
    text: &str,
    env: &Env,
) -> Result<Made, SqlError> {
    let mut made = Made { relations: sink_tables(id, create), ..Made::default() };
    let (from, schema, append_only) = match (&create.query, &create.from) {
        (Some(query), _) => {
            let (spec, planned, reads) = defined_query(planner, catalog, id, query, create.on_close)?;
            let append_only = planned.dataflow.output().append_only;
            (made.spec, made.reads, made.notices) = (Some(spec), reads, planned.notices);
            (id, planned.schema, append_only)
        }
        (None, Some(name)) => {
            let relation = catalog.find(name)?;
            if matches!(relation.kind, RelationKind::View | RelationKind::Source) {
                let message = format!(
                    "a sink takes the changes of a table or materialized view; \"{}\" is a {}",
                    relation.name,
                    kind_name(relation.kind)
                );
                return Err(
                    SqlError::new(state::WRONG_OBJECT_TYPE, message).hint("Use CREATE SINK ... AS SELECT ... instead.")
                );
            }
            made.reads = BTreeSet::from([relation.id]);
            (relation.id, relation.schema.clone(), relation.append_only)
        }
        (None, None) => return Err(SqlError::internal("a sink of nothing")),
    };
    let name = create.name.name.clone();
    let sink = create_sink(&name, &create.options, &tidemill_delta::relaxed(&schema), append_only, env)
        .map_err(|e| SqlError::new(state::INVALID_PARAMETER_VALUE, e.to_string()))?;
    made.sink = Some(MadeSink { name, from, sink, shown: shown_text(create, text) });
    Ok(made)
}

/// The statement as it may be shown: without the options' secrets.
fn shown_text(create: &CreateSink, text: &str) -> String {
    with_other_values(text, |key| {
        let option = create.options.iter().find(|(known, _)| known == key);
        option.and_then(|(key, value)| shown_option(key, value))
    })
}

/// A table or source and the tables beside it.
pub(crate) fn define_relation(
    planner: &Planner,
    id: RelationId,
    create: &CreateRelation,
    text: &str,
) -> Result<Vec<Arc<Relation>>, SqlError> {
    let relation = planner.create_relation(id, create, text)?;
    let mut all = vec![bad_table(id + 1, &relation)];
    if relation.event_time.is_some() {
        all.push(late_table(id + 2, &relation));
    }
    all.insert(0, relation);
    Ok(all.into_iter().map(Arc::new).collect())
}

/// A query's dataflow, and what it reads.
pub(crate) fn defined_query(
    planner: &Planner,
    catalog: &CatalogState,
    id: RelationId,
    query: &tidemill_sql::Query,
    on_close: bool,
) -> Result<(Arc<ViewSpec>, PlannedView, BTreeSet<RelationId>), SqlError> {
    let planned = planner.plan_view(catalog, query, on_close, &[])?;
    let (spec, reads) = spec_of(catalog, id, &planned);
    Ok((spec, planned, reads))
}

fn spec_of(catalog: &CatalogState, id: RelationId, planned: &PlannedView) -> (Arc<ViewSpec>, BTreeSet<RelationId>) {
    let inputs = &planned.dataflow.inputs;
    let sources = inputs.iter().map(|i| catalog.watermarked(i.relation)).collect();
    let reads = inputs.iter().map(|i| i.relation).collect();
    (Arc::new(ViewSpec { view: id, dataflow: planned.dataflow.clone(), sources }), reads)
}

/// A view, materialized or not.
pub(crate) fn define_view(
    planner: &Planner,
    catalog: &CatalogState,
    id: RelationId,
    create: &CreateView,
    text: &str,
) -> Result<DefinedView, SqlError> {
    let mut relation = Relation {
        id,
        namespace: create.name.namespace.clone().unwrap_or_else(|| "public".into()),
        name: create.name.name.clone(),
        kind: RelationKind::View,
        schema: Arc::new(arrow::datatypes::Schema::empty()),
        primary_key: Vec::new(),
        append_only: false,
        event_time: None,
        generated: Vec::new(),
        retention: None,
        defaults: Vec::new(),
        bounds: Vec::new(),
        definition: Some(create.query.to_string()),
        sql: text.to_owned(),
    };
    if !create.materialized {
        relation.schema = planner.check_query(catalog, &create.query)?;
        if !create.columns.is_empty() {
            let names: Vec<String> = create.columns.iter().map(|c| quoted(c)).collect();
            let (query, name) = (&create.query, quoted(&relation.name));
            relation.definition = Some(format!("SELECT * FROM ({query}) AS {name} ({})", names.join(", ")));
            relation.schema = renamed(&relation.schema, &create.columns);
        }
        let relations = vec![Arc::new(relation)];
        return Ok(DefinedView { relations, spec: None, reads: BTreeSet::new(), notices: Vec::new() });
    }
    let planned = planner.plan_view(catalog, &create.query, create.on_close, &create.columns)?;
    let (spec, reads) = spec_of(catalog, id, &planned);
    relation.kind = RelationKind::MaterializedView;
    relation.schema = planned.schema.clone();
    relation.append_only = planned.dataflow.output().append_only;
    relation.bounds = planned.dataflow.output().bounds.clone();
    let errors = error_table(id + 1, &relation.name);
    let relations = vec![Arc::new(relation), Arc::new(errors)];
    Ok(DefinedView { relations, spec: Some(spec), reads, notices: planned.notices })
}

fn renamed(schema: &arrow::datatypes::SchemaRef, names: &[String]) -> arrow::datatypes::SchemaRef {
    let fields = schema.fields().iter().enumerate().map(|(i, field)| match names.get(i) {
        Some(name) => field.as_ref().clone().with_name(name),
        None => field.as_ref().clone(),
    });
    Arc::new(arrow::datatypes::Schema::new(fields.collect::<Vec<_>>()))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
