//! `INSERT`, `UPDATE`, `DELETE`: which rows of a table go and come, found out over a snapshot.

mod change;
mod insert;

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use datafusion::sql::sqlparser::ast::{self, SetExpr};
use tidemill_delta::Epoch;

use crate::complete::row_text;
use crate::error_map::arrow_error;
use crate::statement::{fold, query_of};
use crate::{
    Catalog, DmlRows, Param, Planner, QueryRows, Relation, RelationKind, Snapshot, SqlError, StatementKind, batch,
    params, state,
};

/// See [`Planner::dml`].
pub(crate) async fn dml(
    planner: &Planner,
    catalog: Arc<dyn Catalog>,
    snapshot: Arc<dyn Snapshot>,
    statement: &StatementKind,
    params: &[Param],
) -> Result<DmlRows, SqlError> {
    let run = Run { planner, catalog, snapshot, params };
    match statement {
        StatementKind::Insert(insert) => insert::insert(&run, insert).await,
        StatementKind::Update(statement) => match statement.as_ref() {
            ast::Statement::Update(update) => change::update(&run, update).await,
            _ => Err(SqlError::internal("an UPDATE statement is none")),
        },
        StatementKind::Delete(delete) => change::delete(&run, delete).await,
        _ => Err(SqlError::internal("the statement changes no rows")),
    }
}

/// The parameters' types and the query behind `RETURNING` of a statement that is not run.
pub(crate) fn describe(
    planner: &Planner,
    catalog: &dyn Catalog,
    statement: &StatementKind,
    named: &[Option<DataType>],
) -> Result<(Vec<DataType>, Option<ast::Query>), SqlError> {
    match statement {
        StatementKind::Insert(insert) => insert::describe(planner, catalog, insert, named),
        StatementKind::Update(statement) => match statement.as_ref() {
            ast::Statement::Update(update) => change::describe_update(planner, catalog, update, named),
            _ => Err(SqlError::internal("an UPDATE statement is none")),
        },
        StatementKind::Delete(delete) => change::describe_delete(planner, catalog, delete, named),
        _ => Err(SqlError::internal("the statement changes no rows")),
    }
}

/// One statement's run.
struct Run<'a> {
    planner: &'a Planner,
    catalog: Arc<dyn Catalog>,
    snapshot: Arc<dyn Snapshot>,
    params: &'a [Param],
}

impl Run<'_> {
    async fn query(&self, query: &ast::Query) -> Result<QueryRows, SqlError> {
        batch::query(self.planner, self.catalog.clone(), self.snapshot.clone(), query, self.params).await
    }

    /// What `RETURNING` gives for rows.
    async fn returning(
        &self,
        table: &Relation,
        query: Option<ast::Query>,
        rows: &[RecordBatch],
    ) -> Result<Option<QueryRows>, SqlError> {
        let Some(query) = query else { return Ok(None) };
        let snapshot = Overlay { inner: self.snapshot.clone(), relation: table.id, rows: rows.to_vec() };
        let rows = batch::query(self.planner, self.catalog.clone(), Arc::new(snapshot), &query, self.params).await?;
        Ok(Some(rows))
    }
}

/// A snapshot in which one relation has other rows.
struct Overlay {
    inner: Arc<dyn Snapshot>,
    relation: tidemill_plan::RelationId,
    rows: Vec<RecordBatch>,
}

impl Snapshot for Overlay {
    fn epoch(&self) -> Epoch {
        self.inner.epoch()
    }

    fn rows(&self, relation: &Relation) -> Result<Vec<RecordBatch>, SqlError> {
        if relation.id == self.relation { Ok(self.rows.clone()) } else { self.inner.rows(relation) }
    }
}

/// What a statement does to its table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Insert,
    Update,
    Delete,
}

/// The table that a statement changes.
fn target(catalog: &dyn Catalog, name: &ast::ObjectName, verb: Verb) -> Result<Arc<Relation>, SqlError> {
    let idents: Vec<_> = name.0.iter().filter_map(|part| part.as_ident()).collect();
    let (namespace, ident) = match idents.as_slice() {
        [ident] => (None, ident),
        [namespace, ident] => (Some(fold(namespace)), ident),
        _ => return Err(SqlError::not_supported("names with more than two parts are not supported")),
    };
    let start = idents[0].span.start;
    let Some(table) = catalog.relation(namespace.as_deref(), &fold(ident)) else {
        let message = format!("relation \"{name}\" does not exist");
        return Err(SqlError::new(state::UNDEFINED_TABLE, message).located(start.line, start.column));
    };
    let what = match table.kind {
        RelationKind::Table => return check_append_only(table, verb),
        RelationKind::Source => "source",
        RelationKind::View => "view",
        RelationKind::MaterializedView => "materialized view",
        RelationKind::System => "system table",
    };
    let verb = match verb {
        Verb::Insert => "insert into",
        Verb::Update => "update",
        Verb::Delete => "delete from",
    };
    let message = format!("cannot {verb} {what} \"{}\"", table.name);
    let error = SqlError::new(state::WRONG_OBJECT_TYPE, message).located(start.line, start.column);
    Err(match table.kind {
        RelationKind::View | RelationKind::MaterializedView => error.hint("Change the tables that it reads."),
        _ => error,
    })
}

fn check_append_only(table: Arc<Relation>, verb: Verb) -> Result<Arc<Relation>, SqlError> {
    if !table.append_only || verb == Verb::Insert {
        return Ok(table);
    }
    let verb = if verb == Verb::Update { "UPDATE" } else { "DELETE" };
    let message =
        format!("table \"{}\" only takes new rows, as it has a WATERMARK; {verb} is not possible", table.name);
    Err(SqlError::not_supported(message).hint("Create the table without WATERMARK to change its rows."))
}

/// A name in double quotes.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A relation's name as SQL text.
fn name_text(table: &Relation) -> String {
    format!("{}.{}", quoted(&table.namespace), quoted(&table.name))
}

/// A query of our own making and its `SELECT`, to be filled with parts of the statement.
fn skeleton(text: &str) -> Result<(Box<ast::Query>, Box<ast::Select>), SqlError> {
    let StatementKind::Query(mut query) = query_of(text)? else {
        return Err(SqlError::internal("a skeleton must be a query"));
    };
    let body = std::mem::replace(
        query.body.as_mut(),
        SetExpr::Values(ast::Values { explicit_row: false, value_keyword: false, rows: Vec::new() }),
    );
    match body {
        SetExpr::Select(select) => Ok((query, select)),
        _ => Err(SqlError::internal("a skeleton must be a SELECT")),
    }
}

/// The query of a `RETURNING` clause.
fn returning_query(
    table: &Relation,
    alias: Option<&ast::Ident>,
    items: Option<&Vec<ast::SelectItem>>,
) -> Result<Option<ast::Query>, SqlError> {
    let Some(items) = items else { return Ok(None) };
    let alias = alias.map_or_else(|| table.name.clone(), fold);
    let text = format!("SELECT 1 FROM {} AS {}", name_text(table), quoted(&alias));
    let (mut query, mut select) = skeleton(&text)?;
    select.projection = items.clone();
    *query.body = SetExpr::Select(select);
    Ok(Some(*query))
}

/// Types of parameters from where they stand, then from the queries they occur in, then text.
fn param_types<T: ast::VisitMut + Clone>(
    statement: &T,
    placed: &[(usize, DataType)],
    queries: &[Vec<Option<DataType>>],
    named: &[Option<DataType>],
) -> Result<Vec<DataType>, SqlError> {
    let one = |i: usize| {
        let placed = || placed.iter().find(|(number, _)| *number == i + 1).map(|(_, data_type)| data_type.clone());
        let inferred = || queries.iter().find_map(|types| types.get(i).cloned().flatten());
        named.get(i).cloned().flatten().or_else(placed).or_else(inferred).unwrap_or(DataType::Utf8)
    };
    Ok((0..params::count(statement)?).map(one).collect())
}

/// The first row of `batches` whose key occurred before, if there is one: batch and row.
fn repeated_key(table: &Relation, batches: &[RecordBatch]) -> Result<Option<(usize, usize)>, SqlError> {
    let mut seen = HashSet::new();
    for (i, batch) in batches.iter().enumerate() {
        for (row, key) in keys(table, batch)?.into_iter().enumerate() {
            if !seen.insert(key) {
                return Ok(Some((i, row)));
            }
        }
    }
    Ok(None)
}

/// Each row's key as bytes.
fn keys(table: &Relation, batch: &RecordBatch) -> Result<Vec<Vec<u8>>, SqlError> {
    let columns: Vec<ArrayRef> = table.primary_key.iter().map(|column| batch.column(*column).clone()).collect();
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let converter = RowConverter::new(fields).map_err(|error| arrow_error(&error))?;
    let rows = converter.convert_columns(&columns).map_err(|error| arrow_error(&error))?;
    Ok(rows.iter().map(|row| row.as_ref().to_vec()).collect())
}

/// The error for a key that occurs twice.
fn duplicate_key(table: &Relation, batch: &RecordBatch, row: usize) -> Result<SqlError, SqlError> {
    let names: Vec<_> = table.primary_key.iter().map(|i| table.schema.field(*i).name().as_str()).collect();
    let columns: Vec<ArrayRef> = table.primary_key.iter().map(|i| batch.column(*i).clone()).collect();
    let message = format!("duplicate key value violates unique constraint \"{}_pkey\"", table.name);
    let detail = format!("Key ({})={} occurs twice in the statement.", names.join(", "), row_text(&columns, row)?);
    Ok(SqlError::new(state::UNIQUE_VIOLATION, message).detail(detail))
}

/// Refuses rows whose keys occur twice among them.
fn check_keys(table: &Relation, batches: &[RecordBatch]) -> Result<(), SqlError> {
    if table.primary_key.is_empty() {
        return Ok(());
    }
    match repeated_key(table, batches)? {
        Some((batch, row)) => Err(duplicate_key(table, &batches[batch], row)?),
        None => Ok(()),
    }
}

/// How many rows batches have together.
fn row_count(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}
