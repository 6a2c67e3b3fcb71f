//! Rows on their way into a table: types, defaults, generated columns, NOT NULL.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::{DataType, Schema};
use datafusion::sql::sqlparser::ast;
use tidemill_delta::one_zero;
use tidemill_plan::ColumnPath;

use crate::assign::{assign, value_text};
use crate::error_map::arrow_error;
use crate::relation::{default_values, evaluation_error};
use crate::statement::expression_of;
use crate::{Generated, Planner, Relation, SqlError, state};

/// See [`Planner::complete_rows`].
pub(crate) fn complete_rows(planner: &Planner, table: &Relation, rows: &RecordBatch) -> Result<RecordBatch, SqlError> {
    let mut columns: Vec<Option<ArrayRef>> = vec![None; table.schema.fields().len()];
    for (field, values) in rows.schema().fields().iter().zip(rows.columns()) {
        let column = column_of(table, field.name())?;
        columns[column] = Some(assign(values, table.schema.field(column))?);
    }
    complete(planner, table, columns, rows.num_rows())
}

/// The number of a table's column.
pub(crate) fn column_of(table: &Relation, name: &str) -> Result<usize, SqlError> {
    table.schema.index_of(name).map_err(|_| {
        let message = format!("column \"{name}\" of relation \"{}\" does not exist", table.name);
        SqlError::new(state::UNDEFINED_COLUMN, message)
    })
}

/// Rows of a table from those of its columns that are given, of the right types.
pub(crate) fn complete(
    planner: &Planner,
    table: &Relation,
    mut columns: Vec<Option<ArrayRef>>,
    rows: usize,
) -> Result<RecordBatch, SqlError> {
    for generated in &table.generated {
        columns[generated.column] = None;
    }
    let fields = table.schema.fields();
    for (i, column) in columns.iter_mut().enumerate() {
        if column.is_none() && !table.generated.iter().any(|generated| generated.column == i) {
            *column = Some(match default_of(table, i)? {
                Some(expr) => default_values(planner, &expr, &fields[i], rows)?,
                None => new_null_array(fields[i].data_type(), rows),
            });
        }
    }
    let computed = table.generated.iter().map(|generated| compute(generated, &columns, rows));
    let computed = computed.collect::<Result<Vec<_>, _>>()?;
    for (generated, values) in table.generated.iter().zip(computed) {
        columns[generated.column] = Some(values);
    }
    let columns: Vec<ArrayRef> = columns.into_iter().flatten().collect();
    check_not_null(table, &columns)?;
    batch(table, columns, rows)
}

/// The default expression of a column.
pub(crate) fn default_of(table: &Relation, column: usize) -> Result<Option<ast::Expr>, SqlError> {
    let default = table.defaults.iter().find(|(i, _)| *i == column);
    default.map(|(_, text)| expression_of(text)).transpose()
}

/// A batch in a table's schema.
pub(crate) fn batch(table: &Relation, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, SqlError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let columns = columns.iter().map(one_zero).collect();
    RecordBatch::try_new_with_options(table.schema.clone(), columns, &options).map_err(|error| arrow_error(&error))
}

fn compute(generated: &Generated, columns: &[Option<ArrayRef>], rows: usize) -> Result<ArrayRef, SqlError> {
    let inputs = generated.inputs.iter().map(|path| read(columns, path)).collect::<Result<Vec<_>, _>>()?;
    let fields: Vec<_> = inputs
        .iter()
        .enumerate()
        .map(|(i, values)| arrow::datatypes::Field::new(format!("{i}"), values.data_type().clone(), true))
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let inputs = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), inputs, &options)
        .map_err(|error| arrow_error(&error))?;
    generated.scalar.eval(&inputs).map_err(|error| evaluation_error(&error))
}

/// The values at a path.
fn read(columns: &[Option<ArrayRef>], path: &ColumnPath) -> Result<ArrayRef, SqlError> {
    let missing = || SqlError::internal(format!("column {} is not there to compute from", path.column));
    let mut values = columns.get(path.column).cloned().flatten().ok_or_else(missing)?;
    for name in &path.fields {
        let Some(parent) = values.as_struct_opt() else { return Err(missing()) };
        let child = parent.column_by_name(name).cloned().ok_or_else(missing)?;
        values = under(parent.nulls(), child)?;
    }
    Ok(values)
}

/// A struct's field is NULL where the struct is.
fn under(parent: Option<&arrow::buffer::NullBuffer>, child: ArrayRef) -> Result<ArrayRef, SqlError> {
    let nulls = arrow::buffer::NullBuffer::union(parent, child.nulls());
    if parent.is_none() || *child.data_type() == DataType::Null {
        return Ok(child);
    }
    let data = child.to_data().into_builder().nulls(nulls).build().map_err(|error| arrow_error(&error))?;
    Ok(arrow::array::make_array(data))
}

/// Refuses NULLs where none may be, with the row at fault.
fn check_not_null(table: &Relation, columns: &[ArrayRef]) -> Result<(), SqlError> {
    for (field, values) in table.schema.fields().iter().zip(columns) {
        if field.is_nullable() || values.null_count() == 0 {
            continue;
        }
        let row = (0..values.len()).find(|row| values.is_null(*row)).unwrap_or_default();
        let message = format!(
            "null value in column \"{}\" of relation \"{}\" violates not-null constraint",
            field.name(),
            table.name
        );
        let error = SqlError::new(state::NOT_NULL_VIOLATION, message);
        return Err(error.detail(format!("Failing row contains {}.", row_text(columns, row)?)));
    }
    Ok(())
}

/// A row as PostgreSQL shows it in details.
pub(crate) fn row_text(columns: &[ArrayRef], row: usize) -> Result<String, SqlError> {
    let texts = columns.iter().map(|values| Ok(value_text(values, row)?.unwrap_or_else(|| "null".to_owned())));
    Ok(format!("({})", texts.collect::<Result<Vec<_>, SqlError>>()?.join(", ")))
}
