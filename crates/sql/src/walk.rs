//! Walks over syntax trees.
//!
//! The parser's own walks are compiled anew for each type of visitor, through the thousand types that a tree is made of: a dozen
//! visitors were a fifth of the program and minutes of its build. These are compiled once, and call the visitor through a table.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, ObjectName, Query, Select, TableFactor, Visit, VisitMut, Visitor, VisitorMut,
};

use crate::SqlError;

/// What ends a walk early; in a box, since each of many nested calls has room for it.
pub(crate) type Stop = Box<SqlError>;

/// Whether a walk goes on.
pub(crate) type Flow = ControlFlow<Stop>;

/// Ends a walk with an error.
pub(crate) fn stop(error: SqlError) -> Flow {
    ControlFlow::Break(Box::new(error))
}

/// Takes a visitor through a tree.
pub(crate) fn walk<T: Visit>(tree: &T, visitor: &mut dyn Visitor<Break = Stop>) -> Result<(), SqlError> {
    ended(tree.visit(&mut Reading(visitor)))
}

/// Takes a visitor that may change it through a tree.
pub(crate) fn walk_mut<T: VisitMut>(tree: &mut T, visitor: &mut dyn VisitorMut<Break = Stop>) -> Result<(), SqlError> {
    ended(tree.visit(&mut Changing(visitor)))
}

/// Calls a function for each expression of a tree, inner ones first.
pub(crate) fn walk_expressions<T: VisitMut>(
    tree: &mut T,
    each: impl FnMut(&mut Expr) -> Result<(), SqlError>,
) -> Result<(), SqlError> {
    walk_mut(tree, &mut Expressions(each))
}

fn ended(flow: Flow) -> Result<(), SqlError> {
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

struct Expressions<F>(F);

impl<F: FnMut(&mut Expr) -> Result<(), SqlError>> VisitorMut for Expressions<F> {
    type Break = Stop;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        match (self.0)(expr) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => stop(error),
        }
    }
}

struct Reading<'a>(&'a mut dyn Visitor<Break = Stop>);

impl Visitor for Reading<'_> {
    type Break = Stop;

    fn pre_visit_query(&mut self, query: &Query) -> Flow {
        self.0.pre_visit_query(query)
    }

    fn post_visit_query(&mut self, query: &Query) -> Flow {
        self.0.post_visit_query(query)
    }

    fn pre_visit_select(&mut self, select: &Select) -> Flow {
        self.0.pre_visit_select(select)
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> Flow {
        self.0.pre_visit_table_factor(factor)
    }

    fn pre_visit_relation(&mut self, name: &ObjectName) -> Flow {
        self.0.pre_visit_relation(name)
    }
}

struct Changing<'a>(&'a mut dyn VisitorMut<Break = Stop>);

impl VisitorMut for Changing<'_> {
    type Break = Stop;

    fn pre_visit_query(&mut self, query: &mut Query) -> Flow {
        self.0.pre_visit_query(query)
    }

    fn post_visit_query(&mut self, query: &mut Query) -> Flow {
        self.0.post_visit_query(query)
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> Flow {
        self.0.pre_visit_select(select)
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> Flow {
        self.0.pre_visit_table_factor(factor)
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        self.0.pre_visit_expr(expr)
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        self.0.post_visit_expr(expr)
    }
}
