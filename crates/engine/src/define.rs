//! From a `CREATE` statement to relations and dataflows; the same in every process.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidemill_dataflow::ViewSpec;
use tidemill_plan::RelationId;
use tidemill_sql::{CreateRelation, CreateView, Notice, PlannedView, Planner, Relation, RelationKind, SqlError};

use crate::catalog::CatalogState;
use crate::side_table::{bad_table, error_table, late_table};

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
