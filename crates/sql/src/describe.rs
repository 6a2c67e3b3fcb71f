//! What statements take and give, without running them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::sql::sqlparser::ast;

use crate::{Catalog, Description, Planner, ShowWhat, SqlError, StatementKind, batch, dml, params};

/// See [`Planner::describe`].
pub(crate) fn describe(
    planner: &Planner,
    catalog: &dyn Catalog,
    statement: &StatementKind,
    named: &[Option<DataType>],
) -> Result<Description, SqlError> {
    let nothing = |schema| Description { params: Vec::new(), schema };
    Ok(match statement {
        StatementKind::Query(query) => {
            let params = params::types(planner, catalog, query, named)?;
            let schema = query_schema(planner, catalog, query, &params)?;
            Description { params, schema: Some(schema) }
        }
        StatementKind::Insert(_) | StatementKind::Update(_) | StatementKind::Delete(_) => {
            let (params, returning) = dml::describe(planner, catalog, statement, named)?;
            let schema = returning.map(|query| query_schema(planner, catalog, &query, &params)).transpose()?;
            Description { params, schema }
        }
        // What a cursor gives is described when it is fetched from; COPY has no columns on the wire.
        StatementKind::CopyTo { what, .. } | StatementKind::Declare { what, .. } => match what.as_ref() {
            StatementKind::Query(query) => {
                Description { params: params::types(planner, catalog, query, named)?, schema: None }
            }
            _ => nothing(None),
        },
        StatementKind::ApplyLate { query, .. } => {
            Description { params: params::types(planner, catalog, query, named)?, schema: None }
        }
        StatementKind::Explain(_) => nothing(Some(explain_schema())),
        StatementKind::Show(what) => nothing(Some(show_schema(what))),
        StatementKind::Verify(name) => {
            let view = catalog.relation(name.namespace.as_deref(), &name.name);
            nothing(view.map(|view| verify_schema(&view.schema)))
        }
        _ => nothing(None),
    })
}

fn query_schema(
    planner: &Planner,
    catalog: &dyn Catalog,
    query: &ast::Query,
    types: &[DataType],
) -> Result<SchemaRef, SqlError> {
    let query = params::with_nulls(query, types)?;
    batch::result_schema(planner, planner.logical_plan(catalog, &query)?)
}

/// The column of `EXPLAIN`: a line of the plan per row.
pub fn explain_schema() -> SchemaRef {
    text_columns(&["QUERY PLAN"])
}

/// The columns of `VERIFY`: which side has a row (`view` or `query`), how often more than the other, and the row.
pub fn verify_schema(view: &SchemaRef) -> SchemaRef {
    let own = [Field::new("side", DataType::Utf8, false), Field::new("times", DataType::Int64, false)];
    let columns = view.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(own.into_iter().chain(columns).collect::<Vec<_>>()))
}

/// The columns of a `SHOW`; all are text.
pub fn show_schema(what: &ShowWhat) -> SchemaRef {
    match what {
        ShowWhat::Sources => text_columns(&["name", "state", "in", "applied", "late", "bad", "watermark", "reason"]),
        ShowWhat::Tables => {
            text_columns(&["name", "state", "rows", "in", "applied", "late", "bad", "watermark", "reason"])
        }
        ShowWhat::Views => {
            text_columns(&["name", "state", "rows", "changes", "state_bytes", "watermark", "last_epoch", "reason"])
        }
        ShowWhat::Sinks => text_columns(&["name", "state", "epoch", "rows", "reason"]),
        ShowWhat::Epochs => text_columns(&["epoch", "epochs_with_rows", "p50_us", "p99_us"]),
        ShowWhat::Checkpoints => {
            text_columns(&["kept_in", "state", "epoch", "written", "bytes", "log_records", "reason"])
        }
        ShowWhat::Create(_) => text_columns(&["create_statement"]),
        ShowWhat::Columns(_) => text_columns(&["column", "type", "nullable"]),
        ShowWhat::Parameter(name) => text_columns(&[name]),
        ShowWhat::All => text_columns(&["name", "setting"]),
    }
}

fn text_columns(names: &[&str]) -> SchemaRef {
    Arc::new(Schema::new(names.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect::<Vec<_>>()))
}

/// The SQL name of a column's type.
pub fn type_name(field: &Field) -> String {
    match field.metadata().get("tidemill.type") {
        Some(name) => name.clone(),
        None => crate::sql_type::type_name(field.data_type()),
    }
}
