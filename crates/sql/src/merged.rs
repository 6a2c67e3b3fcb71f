//! `USING` and `NATURAL`: the columns that two sides share are one column of the join.
//!
//! Of a right join it is the right side's, of a full join whichever is there. DataFusion takes the left side's for all, and does not find
//! it everywhere. So joins by columns' names are written as joins by conditions, and their columns by name as what they are. Where
//! columns are not known before planning (functions in `FROM`, `SELECT *` in a subquery) inner and left joins stay as they are.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Ident, Join, JoinConstraint, JoinOperator, ObjectName, OrderByKind, Query, Select,
    SelectItem, SetExpr, Statement, TableAlias, TableFactor, TableWithJoins, Value, VisitorMut,
};

use crate::syntax::call;
use crate::walk::{Flow, Stop, walk_mut};
use crate::{Catalog, SqlError};

/// Writes the joins of a statement out.
pub(crate) fn write_out(statement: &mut Statement, catalog: &dyn Catalog) -> Result<(), SqlError> {
    let mut writer = Writer { catalog, named: Vec::new() };
    walk_mut(statement, &mut writer)
}

/// Columns by name, each with what it stands for.
type Columns = Vec<(String, Expr)>;

struct Writer<'a> {
    catalog: &'a dyn Catalog,
    /// Common table expressions around, innermost last, with their columns if these are known.
    named: Vec<Vec<(String, Option<Vec<String>>)>>,
}

impl VisitorMut for Writer<'_> {
    type Break = Stop;

    fn pre_visit_query(&mut self, query: &mut Query) -> Flow {
        let tables = query.with.iter().flat_map(|with| &with.cte_tables);
        let named = tables.map(|cte| (folded(&cte.alias.name), columns_of(&cte.query, Some(&cte.alias)))).collect();
        self.named.push(named);
        let SetExpr::Select(select) = query.body.as_mut() else { return ControlFlow::Continue(()) };
        let outputs: Vec<String> = select.projection.iter().filter_map(name_of).collect();
        let mut shared = self.select(select)?;
        // An output column goes before one of the input.
        shared.retain(|(name, _)| !outputs.contains(name));
        if let Some(order) = &mut query.order_by
            && let OrderByKind::Expressions(exprs) = &mut order.kind
        {
            let _ = walk_mut(exprs, &mut Replace { shared: &shared, depth: 0 });
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> Flow {
        self.named.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> Flow {
        self.select(select)?;
        ControlFlow::Continue(())
    }
}

impl Writer<'_> {
    /// Writes out the joins of one `SELECT`; gives the shared columns.
    fn select(&mut self, select: &mut Select) -> ControlFlow<Stop, Columns> {
        let by_name = |join: &Join| {
            matches!(constraint(&join.join_operator), Some(JoinConstraint::Using(_) | JoinConstraint::Natural))
        };
        if !select.from.iter().any(|table| table.joins.iter().any(by_name)) {
            return ControlFlow::Continue(Vec::new());
        }
        let (mut shared, mut all) = (Columns::new(), Some(Columns::new()));
        for table in &mut select.from {
            match self.table(table, &mut shared) {
                Some(columns) => all.iter_mut().for_each(|all| all.extend(columns.clone())),
                None if table.joins.iter().any(|join| by_name(join) && !keeps_left(&join.join_operator)) => {
                    let message =
                        "a right or full join by columns' names over columns that are not known is not supported";
                    return ControlFlow::Break(Box::new(
                        SqlError::not_supported(message).hint("Write the join with ON."),
                    ));
                }
                None => all = None,
            }
        }
        if shared.is_empty() {
            return ControlFlow::Continue(shared);
        }
        if select.projection.iter().any(|item| matches!(item, SelectItem::Wildcard(_))) {
            let Some(all) = all else {
                let message = "SELECT * over such a join and something whose columns are not known is not supported";
                return ControlFlow::Break(Box::new(SqlError::not_supported(message).hint("Name the columns.")));
            };
            spell_out(&mut select.projection, &all);
        }
        name_shared(&mut select.projection, &shared);
        let _ = walk_mut(select, &mut Replace { shared: &shared, depth: 0 });
        ControlFlow::Continue(shared)
    }

    /// Writes out the joins of one item of `FROM`; gives its columns. `None`: they are not known, nothing was changed.
    fn table(&self, table: &mut TableWithJoins, shared: &mut Columns) -> Option<Columns> {
        let mut columns = self.factor(&table.relation)?;
        let mut conditions = Vec::new();
        let mut found = Columns::new();
        for join in &table.joins {
            let right = self.factor(&join.relation)?;
            let names = match constraint(&join.join_operator) {
                Some(JoinConstraint::Using(names)) => names.iter().map(last).collect::<Option<Vec<_>>>()?,
                Some(JoinConstraint::Natural) => {
                    columns.iter().map(|c| &c.0).filter(|name| find(&right, name).is_some()).cloned().collect()
                }
                _ => {
                    columns.extend(right);
                    conditions.push(None);
                    continue;
                }
            };
            let mut merged = Columns::new();
            let mut condition = None;
            for name in names {
                let (l, r) = (find(&columns, &name)?, find(&right, &name)?);
                let equal = binary(l.clone(), BinaryOperator::Eq, r.clone());
                condition = Some(match condition {
                    None => equal,
                    Some(before) => binary(before, BinaryOperator::And, equal),
                });
                merged.push((name, either(&join.join_operator, l, r)));
            }
            let rest = |columns: Columns| columns.into_iter().filter(|c| find(&merged, &c.0).is_none());
            let others: Columns = rest(columns).chain(rest(right)).collect();
            found.retain(|c| find(&merged, &c.0).is_none());
            found.extend(merged.clone());
            columns = merged.into_iter().chain(others).collect();
            conditions.push(Some(condition.unwrap_or_else(|| Expr::value(Value::Boolean(true)))));
        }
        for (join, condition) in table.joins.iter_mut().zip(conditions) {
            if let (Some(condition), Some(constraint)) = (condition, constraint_mut(&mut join.join_operator)) {
                *constraint = JoinConstraint::On(condition);
            }
        }
        shared.extend(found);
        Some(columns)
    }

    /// The columns of a table or subquery.
    fn factor(&self, factor: &TableFactor) -> Option<Columns> {
        let (name, names) = match factor {
            TableFactor::Table { name, alias, args: None, .. } => {
                let own = last(name)?;
                let names = self.relation(name, &own)?;
                (
                    alias.as_ref().map_or(Ident::with_quote('"', own), |a| a.name.clone()),
                    renamed(names, alias.as_ref())?,
                )
            }
            TableFactor::Derived { lateral: false, subquery, alias: Some(alias), .. } => {
                (alias.name.clone(), columns_of(subquery, Some(alias))?)
            }
            _ => return None,
        };
        let column = |column: &String| Expr::CompoundIdentifier(vec![name.clone(), Ident::with_quote('"', column)]);
        Some(names.iter().map(|name| (name.clone(), column(name))).collect())
    }

    fn relation(&self, name: &ObjectName, own: &str) -> Option<Vec<String>> {
        let cte = self.named.iter().rev().flatten().find(|(cte, _)| name.0.len() == 1 && cte == own);
        if let Some((_, columns)) = cte {
            return columns.clone();
        }
        let namespace = match name.0.as_slice() {
            [_] => None,
            [namespace, _] => Some(folded(namespace.as_ident()?)),
            _ => return None,
        };
        let relation = self.catalog.relation(namespace.as_deref(), own)?;
        Some(relation.schema.fields().iter().map(|field| field.name().clone()).collect())
    }
}

/// Replaces shared columns in expressions; those of subqueries are their own.
struct Replace<'a> {
    shared: &'a Columns,
    depth: usize,
}

impl VisitorMut for Replace<'_> {
    type Break = Stop;

    fn pre_visit_query(&mut self, _: &mut Query) -> Flow {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> Flow {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        if let Expr::Identifier(ident) = expr
            && self.depth == 0
            && let Some(column) = find(self.shared, &folded(ident))
        {
            *expr = column;
        }
        ControlFlow::Continue(())
    }
}

/// A name as PostgreSQL keeps it.
fn folded(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

fn last(name: &ObjectName) -> Option<String> {
    Some(folded(name.0.last()?.as_ident()?))
}

/// What a name stands for, if there is exactly one column of that name.
fn find(columns: &Columns, name: &str) -> Option<Expr> {
    let mut found = columns.iter().filter(|c| c.0 == name);
    let first = found.next()?;
    found.next().is_none().then(|| first.1.clone())
}

fn constraint(operator: &JoinOperator) -> Option<&JoinConstraint> {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint) => Some(constraint),
        _ => None,
    }
}

fn constraint_mut(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint) => Some(constraint),
        _ => None,
    }
}

fn keeps_left(operator: &JoinOperator) -> bool {
    !matches!(operator, JoinOperator::Right(_) | JoinOperator::RightOuter(_) | JoinOperator::FullOuter(_))
}

/// The shared column of two.
fn either(operator: &JoinOperator, left: Expr, right: Expr) -> Expr {
    match operator {
        JoinOperator::FullOuter(_) => call("coalesce", vec![left, right]),
        _ if keeps_left(operator) => left,
        _ => right,
    }
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

/// The names of a query's columns, where each has one.
fn columns_of(query: &Query, alias: Option<&TableAlias>) -> Option<Vec<String>> {
    let mut body = query.body.as_ref();
    let select = loop {
        match body {
            SetExpr::Select(select) => break select,
            SetExpr::SetOperation { left, .. } => body = left,
            SetExpr::Query(query) => body = &query.body,
            _ => return None,
        }
    };
    renamed(select.projection.iter().map(name_of).collect::<Option<Vec<_>>>()?, alias)
}

fn renamed(mut names: Vec<String>, alias: Option<&TableAlias>) -> Option<Vec<String>> {
    let given = alias.iter().flat_map(|alias| &alias.columns).map(|column| folded(&column.name));
    for (i, name) in given.enumerate() {
        *names.get_mut(i)? = name;
    }
    Some(names)
}

fn name_of(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(folded(alias)),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(folded(name)),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last().map(folded),
        _ => None,
    }
}

/// `*` as columns: what is shared once, then the rest of the left side, then of the right.
fn spell_out(items: &mut Vec<SelectItem>, all: &Columns) {
    let mut spelt = Vec::new();
    for item in items.drain(..) {
        match item {
            SelectItem::Wildcard(_) => spelt.extend(all.iter().map(|(name, expr)| named(expr.clone(), name))),
            other => spelt.push(other),
        }
    }
    *items = spelt;
}

fn named(expr: Expr, name: &str) -> SelectItem {
    SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', name) }
}

/// A shared column keeps its name.
fn name_shared(items: &mut [SelectItem], shared: &Columns) {
    for item in items {
        if let SelectItem::UnnamedExpr(Expr::Identifier(ident)) = item
            && let Some(expr) = find(shared, &folded(ident))
        {
            *item = named(expr, &folded(ident));
        }
    }
}
