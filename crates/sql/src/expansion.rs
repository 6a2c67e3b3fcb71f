//! How large a query becomes once its `WITH` queries and plain views are put in their places, and once the
//! expressions of subqueries are put into the conditions above them: both can double with every line of text.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::sql::sqlparser::ast::{self, FunctionArg, FunctionArgExpr, TableFactor, Visitor};
use tidemill_plan::RelationId;

use crate::provider::{external, parse_definition};
use crate::walk::{Flow, Stop, stop, walk};
use crate::{Catalog, Relation, RelationKind, SqlError, state};

/// How often relations may be read in all.
const MAX_RELATIONS: usize = 500;
/// How large a condition may become.
const MAX_CONDITION: usize = 100_000;

/// How many expressions a list of a query may have, and columns a table; as many as in PostgreSQL.
pub(crate) const MAX_COLUMNS: usize = 1600;
/// How many grouping sets a query may have; as many as in PostgreSQL.
const MAX_GROUPING_SETS: usize = 4096;

/// Refuses a query with lists that are too long: planning takes time with the square of their length.
pub(crate) fn check_lists(query: &ast::Query) -> Result<(), SqlError> {
    walk(query, &mut Lists)
}

struct Lists;

fn check_list(what: &str, length: usize) -> Flow {
    if length <= MAX_COLUMNS {
        return ControlFlow::Continue(());
    }
    let message = format!("{what} has {length} expressions, more than the {MAX_COLUMNS} that are allowed");
    stop(SqlError::new(state::TOO_MANY_COLUMNS, message))
}

impl Visitor for Lists {
    type Break = Stop;

    fn pre_visit_query(&mut self, query: &ast::Query) -> Flow {
        match query.order_by.as_ref().map(|order| &order.kind) {
            Some(ast::OrderByKind::Expressions(keys)) => check_list("ORDER BY", keys.len()),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_select(&mut self, select: &ast::Select) -> Flow {
        check_list("SELECT", select.projection.len())?;
        let ast::GroupByExpr::Expressions(groups, _) = &select.group_by else { return ControlFlow::Continue(()) };
        check_list("GROUP BY", groups.len())?;
        let sets = groups.iter().map(grouping_sets).fold(1, usize::saturating_mul);
        if sets > MAX_GROUPING_SETS {
            let message = format!("too many grouping sets: at most {MAX_GROUPING_SETS} are allowed");
            return stop(SqlError::new(state::STATEMENT_TOO_COMPLEX, message));
        }
        ControlFlow::Continue(())
    }
}

/// How many grouping sets a part of a `GROUP BY` stands for.
fn grouping_sets(expr: &ast::Expr) -> usize {
    match expr {
        ast::Expr::Cube(columns) => {
            u32::try_from(columns.len()).ok().and_then(|n| 2usize.checked_pow(n)).unwrap_or(usize::MAX)
        }
        ast::Expr::Rollup(columns) => columns.len() + 1,
        ast::Expr::GroupingSets(sets) => sets.len(),
        _ => 1,
    }
}

/// Refuses a query that reads too many relations.
pub(crate) fn check_relations(catalog: &dyn Catalog, query: &ast::Query) -> Result<(), SqlError> {
    let mut weigher = Weigher { catalog, views: HashMap::new(), scope: Vec::new(), open: vec![Open::default()] };
    // It never stops.
    let _ = walk(query, &mut weigher);
    let relations = weigher.open.first().map_or(0, |open| open.relations);
    if relations <= MAX_RELATIONS {
        return Ok(());
    }
    let message =
        format!("the query reads relations {relations} times, more than the {MAX_RELATIONS} that are allowed");
    Err(SqlError::new(state::STATEMENT_TOO_COMPLEX, message)
        .detail("A WITH query or plain view counts with all that it reads, each time it is used.")
        .hint("Make a materialized view of what is used often."))
}

/// Counts relations.
struct Weigher<'a> {
    catalog: &'a dyn Catalog,
    /// The plain views that are known already.
    views: HashMap<RelationId, usize>,
    /// The `WITH` queries that are visible, the innermost last, and what each reads.
    scope: Vec<(String, usize)>,
    /// The queries that the walk is inside of; the first stands around all.
    open: Vec<Open>,
}

/// A query on the way.
#[derive(Default)]
struct Open {
    relations: usize,
    /// Where its `WITH` queries begin in the scope.
    scope: usize,
    /// The name that its own relations go by, if it stands in a `WITH`.
    name: Option<String>,
    /// Its `WITH` queries that are still to come, the next one last: where they stand in memory, and their names.
    coming: Vec<(*const ast::Query, String)>,
}

fn folded(ident: &ast::Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

impl Weigher<'_> {
    fn add(&mut self, relations: usize) {
        if let Some(open) = self.open.last_mut() {
            open.relations = open.relations.saturating_add(relations);
        }
    }

    fn weight(&mut self, name: &ast::ObjectName) -> usize {
        let parts: Vec<String> = name.0.iter().filter_map(|part| part.as_ident().map(folded)).collect();
        if let [name] = parts.as_slice()
            && let Some((_, relations)) = self.scope.iter().rev().find(|(own, _)| own == name)
        {
            return *relations;
        }
        let found = match parts.as_slice() {
            [name] => self.catalog.relation(None, name),
            [namespace, name] => self.catalog.relation(Some(namespace), name),
            _ => None,
        };
        found.filter(|relation| relation.kind == RelationKind::View).map_or(1, |view| self.weight_of_view(&view))
    }

    fn weight_of_view(&mut self, view: &Relation) -> usize {
        if let Some(known) = self.views.get(&view.id) {
            return *known;
        }
        // A view that reads itself by a new name is found out when it is planned.
        self.views.insert(view.id, 1);
        let relations =
            parse_definition(&view.name, view.definition.as_deref().unwrap_or_default()).map_or(1, |query| {
                let (scope, open) = (std::mem::take(&mut self.scope), std::mem::take(&mut self.open));
                self.open.push(Open::default());
                let _ = walk(&query, self);
                let relations = self.open.first().map_or(1, |open| open.relations);
                (self.scope, self.open) = (scope, open);
                relations.max(1)
            });
        self.views.insert(view.id, relations);
        relations
    }
}

impl Visitor for Weigher<'_> {
    type Break = Stop;

    fn pre_visit_query(&mut self, query: &ast::Query) -> Flow {
        let is_next = |open: &Open| open.coming.last().is_some_and(|(at, _)| std::ptr::eq(*at, query));
        let name = self.open.last_mut().filter(|open| is_next(open)).and_then(|open| open.coming.pop());
        let with = query.with.iter().flat_map(|with| &with.cte_tables);
        let mut coming: Vec<_> =
            with.map(|cte| (std::ptr::from_ref(cte.query.as_ref()), folded(&cte.alias.name))).collect();
        coming.reverse();
        let name = name.map(|(_, name)| name);
        self.open.push(Open { relations: 0, scope: self.scope.len(), name, coming });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &ast::Query) -> Flow {
        let Some(open) = self.open.pop() else { return ControlFlow::Continue(()) };
        self.scope.truncate(open.scope);
        match open.name {
            Some(name) => self.scope.push((name, open.relations.max(1))),
            None => self.add(open.relations),
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> Flow {
        // The table of a window function is an argument.
        if let TableFactor::Table { args: Some(args), .. } = factor {
            for arg in &args.args {
                if let FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Identifier(ident))) = arg {
                    let relations = self.weight(&ast::ObjectName::from(vec![ident.clone()]));
                    self.add(relations - 1);
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, name: &ast::ObjectName) -> Flow {
        let relations = self.weight(name);
        self.add(relations);
        ControlFlow::Continue(())
    }
}

/// Refuses a plan whose conditions grow too large when the optimiser pushes them down.
pub(crate) fn check_growth(plan: &LogicalPlan) -> DfResult<()> {
    sizes(plan).map(drop)
}

/// How large each column becomes when all that is below is written out.
fn sizes(plan: &LogicalPlan) -> DfResult<Vec<usize>> {
    let inputs = plan.inputs();
    let below = inputs.iter().map(|input| sizes(input)).collect::<DfResult<Vec<_>>>()?;
    let width = plan.schema().fields().len();
    let of = |expr: &Expr| {
        let schemas = inputs.iter().map(|input| input.schema().as_ref());
        size_of(expr, &schemas.zip(&below).collect::<Vec<_>>())
    };
    let check = |exprs: &[Expr]| match exprs.iter().map(of).max() {
        Some(size) if size > MAX_CONDITION => Err(external(too_large())),
        _ => Ok(()),
    };
    match plan {
        LogicalPlan::Projection(projection) => Ok(projection.expr.iter().map(of).collect()),
        LogicalPlan::Aggregate(aggregate) => {
            check(&aggregate.group_expr)?;
            let mut sizes: Vec<usize> = aggregate.group_expr.iter().map(of).collect();
            sizes.resize(width, 1);
            Ok(sizes)
        }
        LogicalPlan::Filter(_) | LogicalPlan::Join(_) => {
            check(&plan.expressions())?;
            let mut sizes: Vec<usize> = below.concat();
            sizes.resize(width, 1);
            Ok(sizes)
        }
        LogicalPlan::Union(_) => {
            let widest = |i: usize| below.iter().filter_map(|sizes| sizes.get(i)).max().copied().unwrap_or(1);
            Ok((0..width).map(widest).collect())
        }
        _ => {
            let mut sizes = if below.len() == 1 { below.concat() } else { Vec::new() };
            sizes.resize(width, 1);
            Ok(sizes)
        }
    }
}

fn size_of(expr: &Expr, inputs: &[(&DFSchema, &Vec<usize>)]) -> usize {
    let mut size: usize = 0;
    // Never fails, as the closure does not.
    let _ = expr.apply(|expr| {
        let own = match expr {
            Expr::Column(column) => inputs
                .iter()
                .find_map(|(schema, sizes)| sizes.get(schema.maybe_index_of_column(column)?).copied())
                .unwrap_or(1),
            _ => 1,
        };
        size = size.saturating_add(own);
        Ok(TreeNodeRecursion::Continue)
    });
    size
}

fn too_large() -> SqlError {
    SqlError::new(state::STATEMENT_TOO_COMPLEX, "a condition of the query becomes too large")
        .detail("It uses columns that are made from columns that are made from others, each more than once.")
        .hint("Make a materialized view of the inner queries.")
}
