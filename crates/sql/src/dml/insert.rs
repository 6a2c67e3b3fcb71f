//! `INSERT`.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast::{self, Expr, SetExpr, UnaryOperator, Value};

use super::{Run, Verb, check_keys, keys, param_types, repeated_key, returning_query, row_count, target};
use crate::assign::assign;
use crate::complete::{batch, column_of, complete, default_of};
use crate::error_map::arrow_error;
use crate::params::{inferred, literal, placeholder};
use crate::statement::fold;
use crate::{Catalog, DmlRows, OnConflict, Param, Planner, Relation, SqlError, state};

/// Runs an `INSERT`.
pub(super) async fn insert(run: &Run<'_>, insert: &ast::Insert) -> Result<DmlRows, SqlError> {
    let table = checked_target(run.catalog.as_ref(), insert)?;
    let on_conflict = on_conflict(&table, insert)?;
    let returning = returning_query(&table, alias(insert), insert.returning.as_ref())?;
    if returning.is_some() && on_conflict == OnConflict::Nothing {
        return Err(SqlError::not_supported("RETURNING with ON CONFLICT DO NOTHING is not supported"));
    }
    let mut added = new_rows(run, &table, insert).await?;
    settle_conflicts(&table, on_conflict, &mut added)?;
    let count = row_count(&added);
    let returning = run.returning(&table, returning, &added).await?;
    Ok(DmlRows { table, removed: Vec::new(), added, count, on_conflict, returning })
}

fn alias(insert: &ast::Insert) -> Option<&ast::Ident> {
    insert.table_alias.as_ref().map(|alias| &alias.alias)
}

/// Parameter types and the query behind `RETURNING`.
pub(super) fn describe(
    planner: &Planner,
    catalog: &dyn Catalog,
    insert: &ast::Insert,
    named: &[Option<DataType>],
) -> Result<(Vec<DataType>, Option<ast::Query>), SqlError> {
    let table = checked_target(catalog, insert)?;
    on_conflict(&table, insert)?;
    let returning = returning_query(&table, alias(insert), insert.returning.as_ref())?;
    let mut placed = Vec::new();
    let mut queries = Vec::new();
    match insert.source.as_deref() {
        Some(source) => match plain_values(source) {
            Some(rows) => {
                let columns = target_columns(&table, insert, arity(rows)?)?;
                placed = placed_params(&table, rows, &columns)?;
                queries.push(inferred(planner, catalog, &without_defaults(&table, source, &columns)?)?);
            }
            None => queries.push(inferred(planner, catalog, source)?),
        },
        None => {
            target_columns(&table, insert, 0)?;
        }
    }
    if let Some(query) = &returning {
        queries.push(inferred(planner, catalog, query)?);
    }
    Ok((param_types(insert, &placed, &queries, named)?, returning))
}

fn checked_target(catalog: &dyn Catalog, insert: &ast::Insert) -> Result<Arc<Relation>, SqlError> {
    let other_dialect = insert.overwrite
        || insert.replace_into
        || insert.ignore
        || insert.or.is_some()
        || insert.partitioned.is_some()
        || !insert.assignments.is_empty()
        || !insert.after_columns.is_empty()
        || insert.output.is_some();
    if other_dialect {
        return Err(SqlError::not_supported("this form of INSERT is not supported"));
    }
    match &insert.table {
        ast::TableObject::TableName(name) => target(catalog, name, Verb::Insert),
        _ => Err(SqlError::not_supported("INSERT into a function or query is not supported")),
    }
}

/// The table's columns that the source's columns go to.
fn target_columns(table: &Relation, insert: &ast::Insert, arity: usize) -> Result<Vec<usize>, SqlError> {
    let columns = if insert.columns.is_empty() { positional(table, arity) } else { listed(table, insert)? };
    let error = |message: &str| Err(SqlError::new(state::SYNTAX_ERROR, message));
    match arity {
        arity if arity > columns.len() => error("INSERT has more expressions than target columns"),
        arity if arity < columns.len() && !insert.columns.is_empty() && insert.source.is_some() => {
            error("INSERT has more target columns than expressions")
        }
        _ => Ok(columns.into_iter().take(arity).collect()),
    }
}

/// All columns in order; generated ones are left out when the number of values says so.
fn positional(table: &Relation, arity: usize) -> Vec<usize> {
    let all = 0..table.schema.fields().len();
    let given: Vec<_> = all.clone().filter(|i| !is_generated(table, *i)).collect();
    if arity == given.len() { given } else { all.collect() }
}

fn is_generated(table: &Relation, column: usize) -> bool {
    table.generated.iter().any(|generated| generated.column == column)
}

fn listed(table: &Relation, insert: &ast::Insert) -> Result<Vec<usize>, SqlError> {
    let mut columns = Vec::with_capacity(insert.columns.len());
    for name in &insert.columns {
        let Some(ident) = name.0.last().and_then(|part| part.as_ident()).filter(|_| name.0.len() == 1) else {
            return Err(SqlError::not_supported("INSERT into a field of a column is not supported"));
        };
        let start = ident.span.start;
        let column = column_of(table, &fold(ident)).map_err(|error| error.located(start.line, start.column))?;
        if columns.contains(&column) {
            let message = format!("column \"{}\" specified more than once", fold(ident));
            return Err(SqlError::new(state::DUPLICATE_COLUMN, message).located(start.line, start.column));
        }
        columns.push(column);
    }
    Ok(columns)
}

/// The rows of a source that is nothing but `VALUES`.
fn plain_values(source: &ast::Query) -> Option<&Vec<ast::Parens<Vec<Expr>>>> {
    let plain =
        source.with.is_none() && source.order_by.is_none() && source.limit_clause.is_none() && source.fetch.is_none();
    match source.body.as_ref() {
        SetExpr::Values(values) if plain => Some(&values.rows),
        _ => None,
    }
}

fn arity(rows: &[ast::Parens<Vec<Expr>>]) -> Result<usize, SqlError> {
    let arity = rows.first().map_or(0, |row| row.content.len());
    if rows.iter().any(|row| row.content.len() != arity) {
        return Err(SqlError::new(state::SYNTAX_ERROR, "VALUES lists must all be the same length"));
    }
    Ok(arity)
}

async fn new_rows(run: &Run<'_>, table: &Relation, insert: &ast::Insert) -> Result<Vec<RecordBatch>, SqlError> {
    let Some(source) = insert.source.as_deref() else {
        target_columns(table, insert, 0)?;
        return Ok(vec![complete(run.planner, table, vec![None; table.schema.fields().len()], 1)?]);
    };
    let Some(rows) = plain_values(source) else { return selected(run, table, insert, source).await };
    let columns = target_columns(table, insert, arity(rows)?)?;
    refuse_generated(table, rows, &columns)?;
    if let Some(arrays) = literal_rows(run, table, rows, &columns)? {
        return Ok(vec![assemble(run.planner, table, &columns, arrays, rows.len())?]);
    }
    let mut source = without_defaults(table, source, &columns)?;
    place_params(run, table, &mut source, &columns)?;
    selected(run, table, insert, &source).await
}

/// Rows from a query.
async fn selected(
    run: &Run<'_>,
    table: &Relation,
    insert: &ast::Insert,
    source: &ast::Query,
) -> Result<Vec<RecordBatch>, SqlError> {
    let rows = run.query(source).await?;
    let columns = target_columns(table, insert, rows.schema.fields().len())?;
    if plain_values(source).is_none()
        && let Some(column) = columns.iter().find(|column| is_generated(table, **column))
    {
        return Err(generated_always(table, *column));
    }
    rows.batches
        .iter()
        .map(|rows| assemble(run.planner, table, &columns, rows.columns().to_vec(), rows.num_rows()))
        .collect()
}

/// A table's rows from values for some of its columns.
fn assemble(
    planner: &Planner,
    table: &Relation,
    columns: &[usize],
    values: Vec<ArrayRef>,
    rows: usize,
) -> Result<RecordBatch, SqlError> {
    let mut given = vec![None; table.schema.fields().len()];
    for (column, values) in columns.iter().zip(values) {
        given[*column] = Some(assign(&values, table.schema.field(*column))?);
    }
    complete(planner, table, given, rows)
}

fn is_default(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(ident)
        if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default"))
}

fn refuse_generated(table: &Relation, rows: &[ast::Parens<Vec<Expr>>], columns: &[usize]) -> Result<(), SqlError> {
    for (i, column) in columns.iter().enumerate().filter(|(_, column)| is_generated(table, **column)) {
        if rows.iter().any(|row| !is_default(&row.content[i])) {
            return Err(generated_always(table, *column));
        }
    }
    Ok(())
}

fn generated_always(table: &Relation, column: usize) -> SqlError {
    let name = table.schema.field(column).name();
    let message = format!("cannot insert a non-DEFAULT value into column \"{name}\"");
    SqlError::new(state::GENERATED_ALWAYS, message).detail(format!("Column \"{name}\" is a generated column."))
}

/// Columns of literals, without a plan; `None` if there is anything else. Each literal is assigned to
/// its column on its own, as in PostgreSQL.
fn literal_rows(
    run: &Run<'_>,
    table: &Relation,
    rows: &[ast::Parens<Vec<Expr>>],
    columns: &[usize],
) -> Result<Option<Vec<ArrayRef>>, SqlError> {
    let mut arrays = Vec::with_capacity(columns.len());
    for (i, column) in columns.iter().enumerate() {
        let field = table.schema.field(*column);
        let no_default = !table.defaults.iter().any(|(with_default, _)| with_default == column);
        let mut texts = Vec::with_capacity(rows.len());
        for row in rows {
            match literal_text(&row.content[i], field.data_type(), run.params)? {
                Some(text) => texts.push(text),
                None if is_default(&row.content[i]) && no_default => texts.push(None),
                None => return Ok(None),
            }
        }
        let texts: ArrayRef = Arc::new(StringArray::from_iter(texts));
        arrays.push(assign(&texts, field)?);
    }
    Ok(Some(arrays))
}

/// A literal as the text to assign: `None` if it has to be planned.
fn literal_text(expr: &Expr, target: &DataType, params: &[Param]) -> Result<Option<Option<String>>, SqlError> {
    let (negative, value) = match expr {
        Expr::Value(value) => (false, &value.value),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match expr.as_ref() {
            Expr::Value(value) if matches!(value.value, Value::Number(..)) => (true, &value.value),
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    if matches!(target, DataType::Struct(_)) && *value != Value::Null {
        return Ok(None);
    }
    Ok(match value {
        Value::Null => Some(None),
        Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Some(Some(text.clone())),
        Value::DollarQuotedString(quoted) => Some(Some(quoted.value.clone())),
        Value::Number(digits, _) if takes_number(target, digits) => {
            Some(Some(if negative { format!("-{digits}") } else { digits.clone() }))
        }
        Value::Boolean(value) if *target == DataType::Boolean => Some(Some(value.to_string())),
        Value::Placeholder(_) => match placeholder(expr).transpose()?.and_then(|number| params.get(number - 1)) {
            Some(Param::Text(text)) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    })
}

/// Whether a number can be read as the target type without arithmetic.
fn takes_number(target: &DataType, digits: &str) -> bool {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    match target {
        DataType::Float32 | DataType::Float64 => true,
        DataType::Decimal128(..) => digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'),
        DataType::Utf8 => plain,
        target => target.is_integer() && plain,
    }
}

/// The source with default expressions in place of `DEFAULT`.
fn without_defaults(table: &Relation, source: &ast::Query, columns: &[usize]) -> Result<ast::Query, SqlError> {
    let mut source = source.clone();
    let SetExpr::Values(values) = source.body.as_mut() else { return Ok(source) };
    for row in &mut values.rows {
        for (cell, column) in row.content.iter_mut().zip(columns) {
            if is_default(cell) {
                let null = || Expr::Value(Value::Null.with_empty_span());
                *cell = default_of(table, *column)?.unwrap_or_else(null);
            }
        }
    }
    Ok(source)
}

/// The parameters that are values of a column by themselves, and the columns' types.
fn placed_params(
    table: &Relation,
    rows: &[ast::Parens<Vec<Expr>>],
    columns: &[usize],
) -> Result<Vec<(usize, DataType)>, SqlError> {
    let mut placed = Vec::new();
    for row in rows {
        for (cell, column) in row.content.iter().zip(columns) {
            if let Some(number) = placeholder(cell) {
                placed.push((number?, table.schema.field(*column).data_type().clone()));
            }
        }
    }
    Ok(placed)
}

/// Puts the values of such parameters in their place.
fn place_params(run: &Run<'_>, table: &Relation, source: &mut ast::Query, columns: &[usize]) -> Result<(), SqlError> {
    let SetExpr::Values(values) = source.body.as_mut() else { return Ok(()) };
    for row in &mut values.rows {
        for (cell, column) in row.content.iter_mut().zip(columns) {
            let Some(number) = placeholder(cell) else { continue };
            if let Some(value) = run.params.get(number? - 1) {
                *cell = literal(value, Some(table.schema.field(*column).data_type().clone()))?;
            }
        }
    }
    Ok(())
}

/// Reads `ON CONFLICT`.
fn on_conflict(table: &Relation, insert: &ast::Insert) -> Result<OnConflict, SqlError> {
    let clause = match &insert.on {
        None => return Ok(OnConflict::Error),
        Some(ast::OnInsert::OnConflict(clause)) => clause,
        Some(_) => {
            return Err(SqlError::not_supported("ON DUPLICATE KEY UPDATE is not supported").hint("Use ON CONFLICT."));
        }
    };
    check_conflict_target(table, clause)?;
    match &clause.action {
        ast::OnConflictAction::DoNothing => Ok(OnConflict::Nothing),
        ast::OnConflictAction::DoUpdate(_) if table.append_only => {
            let message = format!("table \"{}\" only takes new rows, as it has a WATERMARK", table.name);
            Err(SqlError::not_supported(message).hint("Use ON CONFLICT DO NOTHING."))
        }
        ast::OnConflictAction::DoUpdate(update) => {
            check_replaces(table, update)?;
            Ok(OnConflict::Replace)
        }
    }
}

fn check_conflict_target(table: &Relation, clause: &ast::OnConflict) -> Result<(), SqlError> {
    let key: HashSet<_> = table.primary_key.iter().map(|i| table.schema.field(*i).name().clone()).collect();
    let fits = match &clause.conflict_target {
        None => !key.is_empty() || matches!(clause.action, ast::OnConflictAction::DoNothing),
        Some(ast::ConflictTarget::Columns(columns)) => {
            !key.is_empty() && columns.iter().map(fold).collect::<HashSet<_>>() == key
        }
        Some(ast::ConflictTarget::OnConstraint(name)) => {
            !key.is_empty() && name.to_string().trim_matches('"') == format!("{}_pkey", table.name)
        }
    };
    if fits {
        return Ok(());
    }
    let message = "there is no unique or exclusion constraint matching the ON CONFLICT specification";
    Err(SqlError::new(state::INVALID_COLUMN_REFERENCE, message).hint("ON CONFLICT names the primary key's columns."))
}

/// `DO UPDATE` has to set all columns to those of `excluded`.
fn check_replaces(table: &Relation, update: &ast::DoUpdate) -> Result<(), SqlError> {
    let mut open: HashSet<usize> = (0..table.schema.fields().len()).collect();
    open.retain(|column| !table.primary_key.contains(column) && !is_generated(table, *column));
    let mut plain = update.selection.is_none();
    for assignment in &update.assignments {
        match replaced_column(table, assignment)? {
            Some(column) => {
                open.remove(&column);
            }
            None => plain = false,
        }
    }
    if plain && open.is_empty() {
        return Ok(());
    }
    Err(SqlError::not_supported("ON CONFLICT DO UPDATE can only replace the whole row")
        .hint("SET every column that is not in the key to EXCLUDED.column, without WHERE; or use UPDATE."))
}

/// The column of `c = excluded.c`.
fn replaced_column(table: &Relation, assignment: &ast::Assignment) -> Result<Option<usize>, SqlError> {
    let ast::AssignmentTarget::ColumnName(name) = &assignment.target else { return Ok(None) };
    let Some(ident) = name.0.last().and_then(|part| part.as_ident()) else { return Ok(None) };
    let column = column_of(table, &fold(ident))?;
    let Expr::CompoundIdentifier(parts) = &assignment.value else { return Ok(None) };
    let same = matches!(parts.as_slice(), [of, name] if fold(of) == "excluded" && fold(name) == fold(ident));
    Ok(same.then_some(column))
}

/// Handles keys that occur twice in the statement itself; those in the table are the engine's.
fn settle_conflicts(table: &Relation, on_conflict: OnConflict, added: &mut [RecordBatch]) -> Result<(), SqlError> {
    if table.primary_key.is_empty() {
        return Ok(());
    }
    match on_conflict {
        OnConflict::Error => check_keys(table, added),
        OnConflict::Nothing => keep_first(table, added),
        OnConflict::Replace => match repeated_key(table, added)? {
            None => Ok(()),
            Some(_) => {
                let message = "ON CONFLICT DO UPDATE command cannot affect row a second time";
                Err(SqlError::new(state::CARDINALITY_VIOLATION, message)
                    .hint("Ensure that no rows of the statement have the same key."))
            }
        },
    }
}

/// Drops rows whose key came before.
fn keep_first(table: &Relation, added: &mut [RecordBatch]) -> Result<(), SqlError> {
    let mut seen = HashSet::new();
    for rows in added {
        let keep: BooleanArray = keys(table, rows)?.into_iter().map(|key| Some(seen.insert(key))).collect();
        if keep.true_count() < rows.num_rows() {
            let kept = filter_record_batch(rows, &keep).map_err(|error| arrow_error(&error))?;
            *rows = batch(table, kept.columns().to_vec(), kept.num_rows())?;
        }
    }
    Ok(())
}
