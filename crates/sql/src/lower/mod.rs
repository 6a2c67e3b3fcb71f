//! A view's query as a dataflow.

use datafusion::sql::sqlparser::ast;

use crate::{Catalog, PlannedView, Planner, SqlError};

/// See [`Planner::plan_view`].
pub(crate) fn plan_view(
    planner: &Planner,
    catalog: &dyn Catalog,
    query: &ast::Query,
    _on_close: bool,
    _columns: &[String],
) -> Result<PlannedView, SqlError> {
    let plan = planner.logical_plan(catalog, query)?;
    Err(SqlError::not_supported(format!("{}", plan.display_indent())))
}
