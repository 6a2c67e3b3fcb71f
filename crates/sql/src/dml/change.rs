//! `UPDATE` and `DELETE`: a query over the table finds the rows, and the new values beside them.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::sql::sqlparser::ast::{self, Expr, Ident, SelectItem, SetExpr, TableFactor, TableWithJoins, Value};

use super::{Run, Verb, check_keys, name_text, param_types, quoted, returning_query, row_count, skeleton, target};
use crate::assign::assign;
use crate::complete::{batch, column_of, complete, default_of};
use crate::error_map::arrow_error;
use crate::params::{inferred, literal, placeholder};
use crate::statement::fold;
use crate::{Catalog, DmlRows, OnConflict, Planner, Relation, SqlError, state};

/// The column that tells one row of the table from another when it is joined.
const ROW: &str = "tidemill_row";

/// A statement as the query that finds its rows.
struct Change {
    table: Arc<Relation>,
    /// The columns: the row's number if `joined`, the table's columns, the new values.
    query: ast::Query,
    /// Whether other tables are read, so that a row may be found more than once.
    joined: bool,
    /// The columns that get new values.
    assigned: Vec<usize>,
    /// Parameters that are new values by themselves.
    placed: Vec<(usize, DataType)>,
    returning: Option<ast::Query>,
}

/// Runs an `UPDATE`.
pub(super) async fn update(run: &Run<'_>, update: &ast::Update) -> Result<DmlRows, SqlError> {
    let mut values = assignments_with_params(run, update)?;
    let change = update_change(run.catalog.as_ref(), update, &mut values)?;
    let (removed, assigned) = found(run, &change).await?;
    let mut added = Vec::with_capacity(removed.len());
    for (old, new) in removed.iter().zip(assigned) {
        let mut columns: Vec<Option<ArrayRef>> = old.columns().iter().cloned().map(Some).collect();
        for (column, values) in change.assigned.iter().zip(new) {
            columns[*column] = Some(assign(&values, change.table.schema.field(*column))?);
        }
        added.push(complete(run.planner, &change.table, columns, old.num_rows())?);
    }
    check_keys(&change.table, &added)?;
    let returning = run.returning(&change.table, change.returning, &added).await?;
    let count = row_count(&removed);
    Ok(DmlRows { table: change.table, removed, added, count, on_conflict: OnConflict::Error, returning })
}

/// Runs a `DELETE`.
pub(super) async fn delete(run: &Run<'_>, delete: &ast::Delete) -> Result<DmlRows, SqlError> {
    let change = delete_change(run.catalog.as_ref(), delete)?;
    let (removed, _) = found(run, &change).await?;
    let returning = run.returning(&change.table, change.returning, &removed).await?;
    let count = row_count(&removed);
    let on_conflict = OnConflict::Error;
    Ok(DmlRows { table: change.table, removed, added: Vec::new(), count, on_conflict, returning })
}

/// Parameter types and the query behind `RETURNING` of an `UPDATE`.
pub(super) fn describe_update(
    planner: &Planner,
    catalog: &dyn Catalog,
    update: &ast::Update,
    named: &[Option<DataType>],
) -> Result<(Vec<DataType>, Option<ast::Query>), SqlError> {
    let change = update_change(catalog, update, &mut update.assignments.clone())?;
    described(planner, catalog, update, change, named)
}

/// Parameter types and the query behind `RETURNING` of a `DELETE`.
pub(super) fn describe_delete(
    planner: &Planner,
    catalog: &dyn Catalog,
    delete: &ast::Delete,
    named: &[Option<DataType>],
) -> Result<(Vec<DataType>, Option<ast::Query>), SqlError> {
    let change = delete_change(catalog, delete)?;
    described(planner, catalog, delete, change, named)
}

fn described<T: ast::VisitMut + Clone>(
    planner: &Planner,
    catalog: &dyn Catalog,
    statement: &T,
    change: Change,
    named: &[Option<DataType>],
) -> Result<(Vec<DataType>, Option<ast::Query>), SqlError> {
    let mut queries = vec![inferred(planner, catalog, &change.query)?];
    if let Some(query) = &change.returning {
        queries.push(inferred(planner, catalog, query)?);
    }
    Ok((param_types(statement, &change.placed, &queries, named)?, change.returning))
}

/// The assignments with the values of parameters that stand by themselves, in their column's type.
fn assignments_with_params(run: &Run<'_>, update: &ast::Update) -> Result<Vec<ast::Assignment>, SqlError> {
    let (name, _) = table_factor(&update.table)?;
    let table = target(run.catalog.as_ref(), name, Verb::Update)?;
    let mut assignments = update.assignments.clone();
    for assignment in &mut assignments {
        let ast::AssignmentTarget::ColumnName(name) = &assignment.target else { continue };
        let (Some(number), Ok(column)) = (placeholder(&assignment.value), assigned_column(&table, name)) else {
            continue;
        };
        if let Some(value) = run.params.get(number? - 1) {
            assignment.value = literal(value, Some(table.schema.field(column).data_type().clone()))?;
        }
    }
    Ok(assignments)
}

fn update_change(
    catalog: &dyn Catalog,
    update: &ast::Update,
    assignments: &mut Vec<ast::Assignment>,
) -> Result<Change, SqlError> {
    if update.output.is_some() || update.or.is_some() || !update.order_by.is_empty() || update.limit.is_some() {
        return Err(SqlError::not_supported("this form of UPDATE is not supported"));
    }
    let (name, alias) = table_factor(&update.table)?;
    let table = target(catalog, name, Verb::Update)?;
    let from = match &update.from {
        None => &[][..],
        Some(ast::UpdateTableFromKind::AfterSet(from) | ast::UpdateTableFromKind::BeforeSet(from)) => from,
    };
    let pairs = assigned_values(&table, std::mem::take(assignments))?;
    let mut placed = Vec::new();
    for (column, value) in &pairs {
        if let Some(number) = placeholder(value) {
            placed.push((number?, table.schema.field(*column).data_type().clone()));
        }
    }
    let (assigned, values): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let query = finding(&table, alias, from, update.selection.clone(), values)?;
    let returning = returning_query(&table, alias, update.returning.as_ref())?;
    Ok(Change { table, query, joined: !from.is_empty(), assigned, placed, returning })
}

fn delete_change(catalog: &dyn Catalog, delete: &ast::Delete) -> Result<Change, SqlError> {
    let refused =
        !delete.tables.is_empty() || delete.output.is_some() || !delete.order_by.is_empty() || delete.limit.is_some();
    let (ast::FromTable::WithFromKeyword(from) | ast::FromTable::WithoutKeyword(from)) = &delete.from;
    let ([only], false) = (from.as_slice(), refused) else {
        return Err(SqlError::not_supported("this form of DELETE is not supported"));
    };
    let (name, alias) = table_factor(only)?;
    let table = target(catalog, name, Verb::Delete)?;
    let using = delete.using.as_deref().unwrap_or_default();
    let query = finding(&table, alias, using, delete.selection.clone(), Vec::new())?;
    let returning = returning_query(&table, alias, delete.returning.as_ref())?;
    Ok(Change { table, query, joined: !using.is_empty(), assigned: Vec::new(), placed: Vec::new(), returning })
}

/// The name and alias of the table to change.
fn table_factor(table: &TableWithJoins) -> Result<(&ast::ObjectName, Option<&Ident>), SqlError> {
    match &table.relation {
        TableFactor::Table { name, alias, args: None, .. } if table.joins.is_empty() => {
            Ok((name, alias.as_ref().map(|alias| &alias.name)))
        }
        _ => Err(SqlError::not_supported("only a table can be changed, not a join or a query")),
    }
}

/// The column that an assignment names: `c`, or `t.c`.
fn assigned_column(table: &Relation, name: &ast::ObjectName) -> Result<usize, SqlError> {
    let Some(ident) = name.0.last().and_then(|part| part.as_ident()) else {
        return Err(SqlError::not_supported("only columns can be assigned"));
    };
    let start = ident.span.start;
    column_of(table, &fold(ident)).map_err(|error| error.located(start.line, start.column))
}

/// Columns and their new values.
fn assigned_values(table: &Relation, assignments: Vec<ast::Assignment>) -> Result<Vec<(usize, Expr)>, SqlError> {
    let mut pairs: Vec<(usize, Expr)> = Vec::new();
    for assignment in assignments {
        let named = match (assignment.target, assignment.value) {
            (ast::AssignmentTarget::ColumnName(name), value) => vec![(name, value)],
            (ast::AssignmentTarget::Tuple(names), Expr::Tuple(values)) if names.len() == values.len() => {
                names.into_iter().zip(values).collect()
            }
            (ast::AssignmentTarget::Tuple(_), _) => {
                return Err(SqlError::not_supported("SET (a, b) = ... takes as many values in parentheses"));
            }
        };
        for (name, value) in named {
            let column = assigned_column(table, &name)?;
            if pairs.iter().any(|(known, _)| *known == column) {
                let message = format!("multiple assignments to same column \"{}\"", table.schema.field(column).name());
                return Err(SqlError::new(state::SYNTAX_ERROR, message));
            }
            pairs.push((column, new_value(table, column, value)?));
        }
    }
    Ok(pairs)
}

fn new_value(table: &Relation, column: usize, value: Expr) -> Result<Expr, SqlError> {
    let default = matches!(&value, Expr::Identifier(ident)
        if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default"));
    if default {
        let null = || Expr::Value(Value::Null.with_empty_span());
        return Ok(default_of(table, column)?.unwrap_or_else(null));
    }
    if table.generated.iter().any(|generated| generated.column == column) {
        let name = table.schema.field(column).name();
        let message = format!("column \"{name}\" can only be updated to DEFAULT");
        return Err(
            SqlError::new(state::GENERATED_ALWAYS, message).detail(format!("Column \"{name}\" is a generated column."))
        );
    }
    Ok(value)
}

/// The query that finds the rows to change, with new values beside them.
fn finding(
    table: &Relation,
    alias: Option<&Ident>,
    others: &[TableWithJoins],
    selection: Option<Expr>,
    values: Vec<Expr>,
) -> Result<ast::Query, SqlError> {
    let joined = !others.is_empty();
    let alias = alias.map_or_else(|| table.name.clone(), fold);
    let name = name_text(table);
    let text = if joined {
        format!("SELECT 1 FROM (SELECT *, row_number() OVER () AS {ROW} FROM {name}) AS {}", quoted(&alias))
    } else {
        format!("SELECT 1 FROM {name} AS {}", quoted(&alias))
    };
    let (mut query, mut select) = skeleton(&text)?;
    let old = table.schema.fields().iter().map(|field| field.name().as_str());
    let old: Vec<_> = joined.then_some(ROW).into_iter().chain(old).collect();
    select.projection = old
        .into_iter()
        .enumerate()
        .map(|(i, name)| {
            let column = vec![Ident::with_quote('"', &alias), Ident::with_quote('"', name)];
            named(Expr::CompoundIdentifier(column), format!("old_{i}"))
        })
        .chain(values.into_iter().enumerate().map(|(i, value)| named(value, format!("new_{i}"))))
        .collect();
    select.from.extend(others.iter().cloned());
    select.selection = selection;
    *query.body = SetExpr::Select(select);
    Ok(*query)
}

fn named(expr: Expr, alias: String) -> SelectItem {
    SelectItem::ExprWithAlias { expr, alias: Ident::new(alias) }
}

/// The rows found, and the new values of each batch.
async fn found(run: &Run<'_>, change: &Change) -> Result<(Vec<RecordBatch>, Vec<Vec<ArrayRef>>), SqlError> {
    let answer = run.query(&change.query).await?;
    let width = change.table.schema.fields().len();
    let mut seen = HashSet::new();
    let (mut old, mut new) = (Vec::new(), Vec::new());
    for rows in answer.batches {
        let rows = if change.joined { first_matches(rows, &mut seen)? } else { rows };
        if rows.num_rows() == 0 {
            continue;
        }
        let mut columns = rows.columns()[usize::from(change.joined)..].to_vec();
        new.push(columns.split_off(width));
        let fields = change.table.schema.fields();
        let columns = columns.iter().zip(fields).map(|(column, field)| assign(column, field));
        old.push(batch(&change.table, columns.collect::<Result<_, _>>()?, rows.num_rows())?);
    }
    Ok((old, new))
}

/// Drops rows of the table that were found before.
fn first_matches(rows: RecordBatch, seen: &mut HashSet<i64>) -> Result<RecordBatch, SqlError> {
    let numbers = rows.column(0).as_primitive_opt::<Int64Type>();
    let numbers = numbers.ok_or_else(|| SqlError::internal("rows are not numbered"))?;
    let keep: BooleanArray = numbers.values().iter().map(|number| Some(seen.insert(*number))).collect();
    filter_record_batch(&rows, &keep).map_err(|error| arrow_error(&error))
}
