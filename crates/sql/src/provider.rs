//! Names and functions for DataFusion's SQL planner, taken from our catalog.
//!
//! Planning goes through DataFusion's `SqlToRel` with our own provider instead of its session: that is
//! synchronous, and it lets window table functions see tables.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{Constraint, Constraints, DataFusionError, Result, TableReference};
use datafusion::datasource::cte_worktable::CteWorkTable;
use datafusion::datasource::{TableType, provider_as_source};
use datafusion::execution::SessionState;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner, TypePlanner};
use datafusion::logical_expr::{
    AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, LogicalPlanBuilder, ScalarUDF, TableSource, WindowUDF,
};
use datafusion::sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion::sql::sqlparser::ast;

use crate::as_of;
use crate::error_map::sql_error;
use crate::merged;
use crate::names::tell_apart;
use crate::syntax::{for_planning, rewrite_tables};
use crate::told_apart::{has_namesakes, tell_casts_apart};
use crate::{Catalog, Planner, Relation, RelationKind, SqlError, StatementKind, expansion, state};

/// How deep views may be nested.
const VIEW_DEPTH: usize = 64;

/// A relation as DataFusion's planner sees it; scans in logical plans carry it along.
pub(crate) struct RelationSource {
    /// The relation.
    pub(crate) relation: Arc<Relation>,
    constraints: Option<Constraints>,
    /// What a plain view stands for.
    plan: Option<LogicalPlan>,
}

impl RelationSource {
    /// A relation that has rows of its own.
    pub(crate) fn new(relation: Arc<Relation>) -> Self {
        let key = &relation.primary_key;
        let constraints =
            (!key.is_empty()).then(|| Constraints::new_unverified(vec![Constraint::PrimaryKey(key.clone())]));
        RelationSource { relation, constraints, plan: None }
    }

    /// A plain view, to be replaced by its plan.
    fn view(relation: Arc<Relation>, plan: LogicalPlan) -> Self {
        RelationSource { relation, constraints: None, plan: Some(plan) }
    }
}

impl fmt::Debug for RelationSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelationSource({})", self.relation.name)
    }
}

impl TableSource for RelationSource {
    fn schema(&self) -> SchemaRef {
        self.relation.schema.clone()
    }

    fn constraints(&self) -> Option<&Constraints> {
        self.constraints.as_ref()
    }

    fn table_type(&self) -> TableType {
        if self.plan.is_some() { TableType::View } else { TableType::Base }
    }

    fn get_logical_plan(&self) -> Option<Cow<'_, LogicalPlan>> {
        self.plan.as_ref().map(Cow::Borrowed)
    }
}

/// Our catalog and DataFusion's functions.
pub(crate) struct Provider<'a> {
    planner: &'a Planner,
    catalog: &'a dyn Catalog,
    /// How many views we are inside of.
    depth: usize,
}

impl<'a> Provider<'a> {
    /// Names from `catalog`, functions from `planner`.
    pub(crate) fn new(planner: &'a Planner, catalog: &'a dyn Catalog) -> Self {
        Provider { planner, catalog, depth: 0 }
    }

    /// Plans a query.
    pub(crate) fn plan(&self, query: &ast::Query, context: &mut PlannerContext) -> Result<LogicalPlan> {
        let mut query = query.clone();
        crate::pg_catalog::rewrite(&mut query);
        rewrite_tables(&mut query).map_err(external)?;
        as_of::mark(&mut query, self.catalog)?;
        let mut statement = for_planning(ast::Statement::Query(Box::new(query)));
        merged::write_out(&mut statement, self.catalog).map_err(external)?;
        as_of::resolve(self.plan_telling_apart(statement, context)?)
    }

    /// Plans a statement; where columns would have one name, once more with names that differ.
    fn plan_telling_apart(&self, statement: ast::Statement, context: &mut PlannerContext) -> Result<LogicalPlan> {
        let planner = SqlToRel::new_with_options(self, self.parser_options());
        let mut told_apart = statement.clone();
        let planned = planner.sql_statement_to_plan_with_context(statement, &mut context.clone());
        let planned = planned.and_then(|plan| if has_namesakes(&plan)? { Ok(None) } else { Ok(Some(plan)) });
        let error = match planned.map_err(sql_error) {
            Ok(Some(plan)) => return Ok(plan),
            Ok(None) => None,
            Err(error) if error.code == state::DUPLICATE_COLUMN => Some(error),
            Err(error) => return Err(external(error)),
        };
        tell_casts_apart(&mut told_apart);
        let planned = planner.sql_statement_to_plan_with_context(told_apart, context);
        planned.map_err(|second| error.map_or(second, external))
    }

    /// How SQL text is read: from the session's configuration.
    pub(crate) fn parser_options(&self) -> ParserOptions {
        ParserOptions::from(&self.state().config_options().sql_parser)
    }

    fn state(&self) -> &SessionState {
        self.planner.session()
    }

    /// The plan of a plain view, with the view's column names.
    fn expand(&self, view: &Relation) -> Result<LogicalPlan> {
        if self.depth >= VIEW_DEPTH {
            let message = format!("views are nested more than {VIEW_DEPTH} deep at \"{}\"", view.name);
            return Err(external(SqlError::new(state::PROGRAM_LIMIT_EXCEEDED, message)));
        }
        let definition = view.definition.as_deref().unwrap_or_default();
        let query = parse_definition(&view.name, definition).map_err(external)?;
        let inner = Provider { planner: self.planner, catalog: self.catalog, depth: self.depth + 1 };
        let plan = inner.plan(&query, &mut PlannerContext::new())?;
        rename(plan, view)
    }
}

/// Gives a view's plan the view's column names.
fn rename(plan: LogicalPlan, view: &Relation) -> Result<LogicalPlan> {
    let names = view.schema.fields();
    if names.len() != plan.schema().fields().len() {
        let message = format!("view \"{}\" no longer fits its definition", view.name);
        return Err(external(SqlError::new(state::OBJECT_NOT_IN_PREREQUISITE_STATE, message)));
    }
    if names.iter().zip(plan.schema().fields()).all(|(a, b)| a.name() == b.name()) {
        return Ok(plan);
    }
    let columns = plan.schema().columns();
    let renamed: Vec<_> =
        columns.into_iter().zip(names).map(|(column, field)| Expr::Column(column).alias(field.name())).collect();
    LogicalPlanBuilder::from(plan).project(renamed)?.build()
}

/// A plain view's query.
pub(crate) fn parse_definition(name: &str, definition: &str) -> std::result::Result<ast::Query, SqlError> {
    let mut statements = crate::parse(definition)?;
    match statements.pop().map(|s| s.kind) {
        Some(StatementKind::Query(query)) if statements.is_empty() => Ok(*query),
        _ => Err(SqlError::internal(format!("the definition of view \"{name}\" is not a query"))),
    }
}

/// Carries an error of ours through DataFusion.
pub(crate) fn external(error: SqlError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

impl ContextProvider for Provider<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let found = crate::pg_catalog::resolve(self.catalog, name.schema(), name.table());
        let Some(relation) = found else {
            let message = format!("relation \"{name}\" does not exist");
            return Err(external(SqlError::new(state::UNDEFINED_TABLE, message)));
        };
        if relation.kind == RelationKind::View && relation.definition.is_some() {
            let plan = self.expand(&relation)?;
            return Ok(Arc::new(RelationSource::view(relation, plan)));
        }
        Ok(Arc::new(RelationSource::new(relation)))
    }

    fn get_table_function_source(&self, name: &str, args: Vec<Expr>) -> Result<Arc<dyn TableSource>> {
        let Some(function) = self.state().table_functions().get(name) else {
            let message = format!("table function {name}() does not exist");
            return Err(external(SqlError::new(state::UNDEFINED_FUNCTION, message)));
        };
        let args = datafusion::catalog::TableFunctionArgs::new(&args, self.state());
        Ok(provider_as_source(function.create_table_provider_with_args(args)?))
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> Result<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.state().expr_planners()
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        self.state().relation_planners()
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(crate::sql_type::SqlTypes))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        // PostgreSQL's `version()` before DataFusion's.
        let own = crate::pg_catalog::function(self.catalog, name);
        own.or_else(|| self.state().scalar_functions().get(name).cloned())
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.state().higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.state().aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.state().window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.state().config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.state().scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.state().higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.state().aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.state().window_functions().keys().cloned().collect()
    }
}

impl Planner {
    /// The plan of a query, neither coerced nor optimised. Scans are over [`RelationSource`]s; plain
    /// views are expanded.
    pub(crate) fn logical_plan(
        &self,
        catalog: &dyn Catalog,
        query: &ast::Query,
    ) -> std::result::Result<LogicalPlan, SqlError> {
        self.logical_plan_in(catalog, query, &mut PlannerContext::new())
    }

    /// As [`Planner::logical_plan`], with parameter types or tables known in `context`.
    pub(crate) fn logical_plan_in(
        &self,
        catalog: &dyn Catalog,
        query: &ast::Query,
        context: &mut PlannerContext,
    ) -> std::result::Result<LogicalPlan, SqlError> {
        expansion::check_lists(query)?;
        expansion::check_relations(catalog, query)?;
        let mut query = query.clone();
        tell_apart(&mut query);
        let plan = Provider::new(self, catalog).plan(&query, context).map_err(sql_error)?;
        expansion::check_growth(&plan).map_err(sql_error)?;
        Ok(plan)
    }
}
