//! `CREATE TABLE` and `CREATE SOURCE`: from a definition to a [`Relation`].

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, ExprSchemable, Volatility};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::planner::{PlannerContext, SqlToRel};
use datafusion::sql::sqlparser::ast;
use tidemill_delta::Micros;
use tidemill_plan::{Bound, ColumnPath, RelationId, Scalar, ScalarError};

use crate::assign::assign;
use crate::error_map::sql_error;
use crate::expansion::MAX_COLUMNS;
use crate::lower::reading;
use crate::provider::Provider;
use crate::scalar::BatchScalar;
use crate::sql_type::{field, output_type, type_name};
use crate::syntax::for_planning;
use crate::{
    Catalog, ColumnDefinition, CreateRelation, EventTime, Generated, Limit, Planner, Relation, RelationKind, Retention,
    RetentionOptions, SqlError, state,
};

/// How far ahead of its arrival a row may be stamped unless an option says otherwise: an hour.
const FUTURE_FENCE: Micros = 3_600_000_000;

/// See [`Planner::create_relation`].
pub(crate) fn create_relation(
    planner: &Planner,
    id: RelationId,
    create: &CreateRelation,
    text: &str,
) -> Result<Relation, SqlError> {
    build(planner, id, create, text).map_err(|error| error.in_text(text))
}

fn build(planner: &Planner, id: RelationId, create: &CreateRelation, text: &str) -> Result<Relation, SqlError> {
    if create.columns.len() > MAX_COLUMNS {
        let (name, columns) = (&create.name.name, create.columns.len());
        let message = format!("\"{name}\" has {columns} columns, more than the {MAX_COLUMNS} that are allowed");
        return Err(SqlError::new(state::TOO_MANY_COLUMNS, message));
    }
    let primary_key = key_columns(create)?;
    let fields = fields(planner, create, &primary_key)?;
    let columns = Columns { planner, definition: create, fields: &fields };
    let generated = columns.generated()?;
    let defaults = columns.defaults()?;
    let event_time = create.watermark.as_ref().map(|(column, expr)| columns.event_time(column, expr)).transpose()?;
    let retention = create.retention.as_ref().map(|options| columns.retention(options)).transpose()?;
    let bounds = event_time.iter().map(|time| Bound { column: time.column, offset: 1 }).collect();
    Ok(Relation {
        id,
        namespace: create.name.namespace.clone().unwrap_or_else(|| "public".to_owned()),
        name: create.name.name.clone(),
        kind: if create.source { RelationKind::Source } else { RelationKind::Table },
        schema: Arc::new(Schema::new(fields)),
        primary_key,
        append_only: create.source || event_time.is_some(),
        event_time,
        generated,
        retention,
        defaults,
        bounds,
        definition: None,
        sql: text.to_owned(),
    })
}

fn key_columns(create: &CreateRelation) -> Result<Vec<usize>, SqlError> {
    let mut key = Vec::new();
    for name in &create.primary_key {
        let Some(column) = create.columns.iter().position(|column| column.name == *name) else {
            let message = format!("column \"{name}\" named in key does not exist");
            return Err(SqlError::new(state::UNDEFINED_COLUMN, message));
        };
        if key.contains(&column) {
            let message = format!("column \"{name}\" appears twice in primary key constraint");
            return Err(SqlError::new(state::DUPLICATE_COLUMN, message));
        }
        key.push(column);
    }
    Ok(key)
}

/// The columns with their types; those of key columns are never NULL.
fn fields(planner: &Planner, create: &CreateRelation, key: &[usize]) -> Result<Vec<FieldRef>, SqlError> {
    let mut fields: Vec<Field> = Vec::with_capacity(create.columns.len());
    for (i, column) in create.columns.iter().enumerate() {
        if fields.iter().any(|known| *known.name() == column.name) {
            let message = format!("column \"{}\" specified more than once", column.name);
            return Err(SqlError::new(state::DUPLICATE_COLUMN, message));
        }
        let nullable = !column.not_null && !key.contains(&i);
        fields.push(match column.data_type {
            // Told by the expression, once the other columns are known.
            ast::DataType::Unspecified => Field::new(&column.name, DataType::Null, nullable),
            _ => field(&column.name, &column.data_type, nullable)?,
        });
    }
    infer_types(planner, create, &mut fields)?;
    Ok(fields.into_iter().map(Arc::new).collect())
}

/// Gives generated columns without a type that of their expression.
fn infer_types(planner: &Planner, create: &CreateRelation, fields: &mut [Field]) -> Result<(), SqlError> {
    for (i, column) in create.columns.iter().enumerate() {
        let (ast::DataType::Unspecified, Some(expr)) = (&column.data_type, &column.generated) else { continue };
        let schema = schema_of(fields.iter().cloned().map(Arc::new))?;
        let expr = resolve(planner, expr, &schema)?;
        let data_type = output_type(&expr.get_type(&schema).map_err(sql_error)?);
        fields[i] = fields[i].clone().with_data_type(data_type);
    }
    Ok(())
}

fn schema_of(fields: impl Iterator<Item = FieldRef>) -> Result<DFSchema, SqlError> {
    DFSchema::from_unqualified_fields(fields.collect(), Default::default()).map_err(sql_error)
}

/// No relations: expressions in definitions see only their table's columns.
struct NoCatalog;

impl Catalog for NoCatalog {
    fn relation(&self, _: Option<&str>, _: &str) -> Option<Arc<Relation>> {
        None
    }

    fn relations(&self) -> Vec<Arc<Relation>> {
        Vec::new()
    }
}

/// An expression over columns as it stands.
fn plan(planner: &Planner, expr: &ast::Expr, schema: &DFSchema) -> Result<Expr, SqlError> {
    let provider = Provider::new(planner, &NoCatalog);
    SqlToRel::new_with_options(&provider, provider.parser_options())
        .sql_to_expr(for_planning(expr.clone()), schema, &mut PlannerContext::new())
        .map_err(sql_error)
}

/// Refuses what would not give the same value again for the same row.
fn refuse_changing(expr: &Expr) -> Result<(), SqlError> {
    let changes = |expr: &Expr| match expr {
        Expr::ScalarFunction(call) => {
            let clock = matches!(call.func.name(), "now" | "current_date" | "current_time" | "today");
            Ok(clock || call.func.signature().volatility == Volatility::Volatile)
        }
        _ => Ok(false),
    };
    if !expr.exists(changes).map_err(sql_error)? {
        return Ok(());
    }
    let message = "generation and watermark expressions must not depend on the clock or on chance";
    Err(SqlError::new(state::INVALID_OBJECT_DEFINITION, message))
}

/// An expression over columns, coerced and simplified.
#[allow(clippy::disallowed_methods, reason = "the planner wants a time for its context")]
pub(crate) fn resolve(planner: &Planner, expr: &ast::Expr, schema: &DFSchema) -> Result<Expr, SqlError> {
    let planned = plan(planner, expr, schema)?;
    refuse_queries(&planned)?;
    let context = SimplifyContext::builder()
        .with_schema(Arc::new(schema.clone()))
        .with_config_options(planner.session().config().options().clone())
        .with_query_execution_start_time(Some(chrono::Utc::now()))
        .build();
    let simplifier = ExprSimplifier::new(context);
    let coerced = simplifier.coerce(planned, schema).map_err(sql_error)?;
    simplifier.simplify(coerced).map_err(sql_error)
}

fn refuse_queries(expr: &Expr) -> Result<(), SqlError> {
    let mut refused = None;
    let walked = expr.apply(|expr| {
        refused = match expr {
            Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_) => {
                Some("a subquery")
            }
            Expr::AggregateFunction(_) => Some("an aggregate function"),
            Expr::WindowFunction(_) => Some("a window function"),
            Expr::Unnest(_) => Some("unnest"),
            Expr::Placeholder(_) => Some("a parameter"),
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        Ok(TreeNodeRecursion::Stop)
    });
    walked.map_err(sql_error)?;
    match refused {
        Some(what) => Err(SqlError::not_supported(format!("{what} cannot be used in a table's definition"))),
        None => Ok(()),
    }
}

/// What the expressions of a definition refer to.
struct Columns<'a> {
    planner: &'a Planner,
    definition: &'a CreateRelation,
    fields: &'a [FieldRef],
}

impl Columns<'_> {
    fn generated(&self) -> Result<Vec<Generated>, SqlError> {
        let columns = self.definition.columns.iter().enumerate();
        columns.filter_map(|(i, c)| c.generated.as_ref().map(|expr| self.generated_column(i, c, expr))).collect()
    }

    fn generated_column(&self, i: usize, column: &ColumnDefinition, expr: &ast::Expr) -> Result<Generated, SqlError> {
        let (scalar, inputs) = self.scalar(expr, &self.fields[i])?;
        let other = inputs.iter().find(|path| self.definition.columns[path.column].generated.is_some());
        if let Some(path) = other {
            let message = format!(
                "column \"{}\" cannot be generated from \"{}\", which is generated itself",
                column.name,
                self.fields[path.column].name()
            );
            return Err(SqlError::new(state::INVALID_OBJECT_DEFINITION, message));
        }
        Ok(Generated { column: i, scalar, inputs })
    }

    /// The expression over the columns it reads, assigned to a column.
    fn scalar(&self, expr: &ast::Expr, target: &FieldRef) -> Result<(Arc<dyn Scalar>, Vec<ColumnPath>), SqlError> {
        let schema = schema_of(self.fields.iter().cloned())?;
        refuse_changing(&plan(self.planner, expr, &schema)?)?;
        let expr = resolve(self.planner, expr, &schema)?;
        let mut read = reading(&schema, vec![expr]).map_err(sql_error)?;
        let Some(expr) = read.exprs.pop() else { return Err(SqlError::internal("an expression went missing")) };
        let session = self.planner.session();
        let inner = BatchScalar::compile(session, &expr, &read.columns).map_err(sql_error)?;
        let scalar = Assigned::new(inner, target.clone())?;
        Ok((Arc::new(scalar), read.paths))
    }

    fn defaults(&self) -> Result<Vec<(usize, String)>, SqlError> {
        let mut defaults = Vec::new();
        for (i, column) in self.definition.columns.iter().enumerate() {
            let Some(expr) = &column.default else { continue };
            default_values(self.planner, expr, &self.fields[i], 1)?;
            defaults.push((i, expr.to_string()));
        }
        Ok(defaults)
    }

    /// Generators make up their times, which need not have to do with the clock.
    fn future_fence(&self) -> Option<Micros> {
        let connector = self.definition.options.iter().find(|(key, _)| key == "connector").map(|(_, name)| name);
        let generator = connector.is_some_and(|name| matches!(name.to_lowercase().as_str(), "nexmark" | "datagen"));
        match self.definition.time.future_fence {
            Limit::Usual => (!generator).then_some(FUTURE_FENCE),
            Limit::Off => None,
            Limit::After(micros) => Some(micros),
        }
    }

    fn retention(&self, options: &RetentionOptions) -> Result<Retention, SqlError> {
        let RetentionOptions { column: name, position, age, rows, bytes } = options;
        let Some(column) = self.fields.iter().position(|field| field.name() == name) else {
            let message = format!("column \"{name}\" named in retention_column does not exist");
            return Err(SqlError::new(state::UNDEFINED_COLUMN, message).at(*position));
        };
        let field = &self.fields[column];
        let time = matches!(field.data_type(), DataType::Timestamp(..) | DataType::Date32 | DataType::Date64);
        if !time || field.is_nullable() {
            let found = if time { "one that may be NULL".into() } else { type_name(field.data_type()) };
            let message = format!("retention_column must be a timestamp or date that is NOT NULL, not {found}");
            return Err(SqlError::new(state::DATATYPE_MISMATCH, message).at(*position));
        }
        Ok(Retention { column, age: *age, rows: *rows, bytes: *bytes })
    }

    fn event_time(&self, name: &str, expr: &ast::Expr) -> Result<EventTime, SqlError> {
        let Some(column) = self.fields.iter().position(|field| field.name() == name) else {
            let message = format!("column \"{name}\" named in WATERMARK does not exist");
            return Err(SqlError::new(state::UNDEFINED_COLUMN, message));
        };
        let field = &self.fields[column];
        if !matches!(field.data_type(), DataType::Timestamp(..)) {
            let found = type_name(field.data_type());
            let message = format!("the WATERMARK column \"{name}\" must be a timestamp, not {found}");
            return Err(SqlError::new(state::DATATYPE_MISMATCH, message));
        }
        let (watermark, inputs) = self.scalar(expr, field)?;
        let (future_fence, idle_timeout) = (self.future_fence(), self.definition.time.idle_timeout);
        Ok(EventTime { column, watermark, inputs, text: expr.to_string(), future_fence, idle_timeout })
    }
}

/// The values of a column's default for so many new rows.
pub(crate) fn default_values(
    planner: &Planner,
    expr: &ast::Expr,
    field: &FieldRef,
    rows: usize,
) -> Result<ArrayRef, SqlError> {
    let schema = DFSchema::empty();
    let expr = resolve(planner, expr, &schema)?;
    let scalar = BatchScalar::compile(planner.session(), &expr, &schema).map_err(sql_error)?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
    let empty = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)
        .map_err(|error| SqlError::internal(error.to_string()))?;
    let values = scalar.eval(&empty).map_err(|error| evaluation_error(&error))?;
    assign(&values, field)
}

/// An expression's failure over some row, as the client sees it.
pub(crate) fn evaluation_error(error: &ScalarError) -> SqlError {
    let code = match error.message.as_str() {
        "division by zero" => state::DIVISION_BY_ZERO,
        text if text.contains("out of range") || text.contains("verflow") => state::NUMERIC_VALUE_OUT_OF_RANGE,
        text if text.contains("ast string") || text.contains("input syntax") => state::INVALID_TEXT_REPRESENTATION,
        _ => state::DATA_EXCEPTION,
    };
    SqlError::new(code, error.message.clone())
}

/// An expression whose values are assigned to a column.
#[derive(Debug)]
struct Assigned {
    inner: Arc<dyn Scalar>,
    target: FieldRef,
}

impl Assigned {
    /// Fails if the types can never fit.
    fn new(inner: Arc<dyn Scalar>, target: FieldRef) -> Result<Self, SqlError> {
        assign(&arrow::array::new_empty_array(inner.data_type()), &target)?;
        Ok(Assigned { inner, target })
    }
}

impl fmt::Display for Assigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Scalar for Assigned {
    fn eval(&self, rows: &RecordBatch) -> Result<ArrayRef, ScalarError> {
        assign(&self.inner.eval(rows)?, &self.target).map_err(|error| ScalarError::new(error.message))
    }

    fn data_type(&self) -> &DataType {
        self.target.data_type()
    }
}
