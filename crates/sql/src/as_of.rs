//! `ASOF JOIN` and temporal joins: each left row beside the right row that is next to it in time.
//!
//! DataFusion's planner knows neither. In the syntax tree they become joins whose condition calls a
//! function of ours ([`mark`]); once that is planned, such a join becomes an [`AsOfNode`] ([`resolve`]).
//!
//! - `a ASOF [LEFT] JOIN b MATCH_CONDITION (a.ts >= b.ts) ON a.k = b.k`
//! - `a [LEFT] JOIN b FOR SYSTEM_TIME AS OF a.ts ON a.k = b.k`, where `b`'s time is the column of its watermark

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, DFSchemaRef, DataFusionError, JoinType, Result};
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, Extension, Join, LogicalPlan, Operator, ScalarFunctionArgs,
    ScalarUDFImpl, Signature, UserDefinedLogicalNodeCore, Volatility,
};
use datafusion::sql::sqlparser::ast::{
    self, JoinConstraint, JoinOperator, TableFactor, TableVersion, TableWithJoins, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::provider::external;
use crate::statement::{fold, is_word};
use crate::walk::{Flow, Stop, stop, walk_mut};
use crate::{Catalog, Relation, SqlError, state};

/// The function that marks the match condition.
const MATCH: &str = "as_of_match";
/// The function that marks the match condition of an `ASOF LEFT JOIN`.
const LEFT_MATCH: &str = "as_of_left_match";

/// `ASOF LEFT JOIN`, which sqlparser does not know, as an `ASOF JOIN` with a marked condition.
pub(crate) fn mark_left(tokens: &mut Vec<TokenWithSpan>) {
    let mut at = 0;
    while at + 2 < tokens.len() {
        let word = |n: usize, word: &str| tokens.get(n).is_some_and(|token| is_word(&token.token, word));
        if !word(at, "ASOF") || !word(at + 1, "LEFT") {
            at += 1;
            continue;
        }
        let outer = usize::from(word(at + 2, "OUTER"));
        if !word(at + 2 + outer, "JOIN") {
            at += 1;
            continue;
        }
        tokens.drain(at + 1..at + 2 + outer);
        let Some(condition) = (at..tokens.len()).find(|n| is_word(&tokens[*n].token, "MATCH_CONDITION")) else {
            return;
        };
        let Some(end) = closing(tokens, condition + 1) else { return };
        let span = tokens[condition].span;
        let close = tokens[end].clone();
        tokens.insert(end, close);
        let marker = [Token::LParen, Token::make_word(LEFT_MATCH, None)].map(|token| TokenWithSpan::new(token, span));
        tokens.splice(condition + 1..condition + 1, marker);
        at = condition;
    }
}

/// `t AS a FOR SYSTEM_TIME AS OF x ON`, with the alias before the version as sqlparser writes but does not read it,
/// as `t FOR SYSTEM_TIME AS OF x AS a ON`.
pub(crate) fn alias_last(tokens: &mut [TokenWithSpan]) {
    for at in 2..tokens.len() {
        let word = |n: usize, word: &str| tokens.get(n).is_some_and(|token| is_word(&token.token, word));
        let version = ["FOR", "SYSTEM_TIME", "AS", "OF"].iter().enumerate().all(|(n, w)| word(at + n, w));
        let name = |n: usize| matches!(tokens[n].token, Token::Word(_)) && !word(n, "JOIN") && !word(n, "FROM");
        if !version || !name(at - 1) || !name(at - 2) {
            continue;
        }
        let start = if word(at - 2, "AS") { at - 2 } else { at - 1 };
        let mut depth = 0;
        let end = (at..tokens.len()).find(|n| {
            depth += i32::from(tokens[*n].token == Token::LParen) - i32::from(tokens[*n].token == Token::RParen);
            depth == 0 && is_word(&tokens[*n].token, "ON")
        });
        if let Some(end) = end {
            tokens[start..end].rotate_left(at - start);
        }
    }
}

/// The parenthesis that closes the one at `open`.
fn closing(tokens: &[TokenWithSpan], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (n, token) in tokens.iter().enumerate().skip(open) {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 1 => return Some(n),
            Token::RParen => depth = depth.checked_sub(1)?,
            _ if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// Turns these joins into ones that DataFusion's planner takes.
pub(crate) fn mark(query: &mut ast::Query, catalog: &dyn Catalog) -> Result<()> {
    let mut marker = Marker { catalog };
    walk_mut(query, &mut marker).map_err(external)
}

struct Marker<'a> {
    catalog: &'a dyn Catalog,
}

impl VisitorMut for Marker<'_> {
    type Break = Stop;

    fn pre_visit_select(&mut self, select: &mut ast::Select) -> Flow {
        select.from.iter_mut().try_for_each(|from| self.joins(from))
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> Flow {
        match factor {
            TableFactor::NestedJoin { table_with_joins, .. } => self.joins(table_with_joins),
            _ => ControlFlow::Continue(()),
        }
    }
}

impl Marker<'_> {
    fn joins(&self, from: &mut TableWithJoins) -> Flow {
        for join in &mut from.joins {
            if let Err(error) = self.join(join) {
                return stop(error);
            }
        }
        ControlFlow::Continue(())
    }

    fn join(&self, join: &mut ast::Join) -> Result<(), SqlError> {
        if let JoinOperator::AsOf { match_condition, constraint } = &join.join_operator {
            let (left, condition) = match match_condition {
                ast::Expr::Function(call) if call.name.to_string() == LEFT_MATCH => (true, match_condition.clone()),
                other => (false, call(MATCH, other.clone())),
            };
            let on = with_condition(constraint, condition)?;
            join.join_operator = if left { JoinOperator::LeftOuter(on) } else { JoinOperator::Inner(on) };
        }
        self.temporal(join)
    }

    /// `JOIN t FOR SYSTEM_TIME AS OF x`: the version of `t` at `x`.
    fn temporal(&self, join: &mut ast::Join) -> Result<(), SqlError> {
        let TableFactor::Table { name, version, alias, .. } = &mut join.relation else { return Ok(()) };
        let Some(TableVersion::ForSystemTimeAsOf(at)) = version.take() else { return Ok(()) };
        let (operator, constraint): (fn(JoinConstraint) -> JoinOperator, _) = match &join.join_operator {
            JoinOperator::Join(on) | JoinOperator::Inner(on) => (JoinOperator::Inner, on),
            JoinOperator::Left(on) | JoinOperator::LeftOuter(on) => (JoinOperator::LeftOuter, on),
            _ => {
                let message = "FOR SYSTEM_TIME AS OF is only possible in JOIN and LEFT JOIN";
                return Err(located(SqlError::not_supported(message), name));
            }
        };
        let time = self.version_time(name)?;
        let qualifier = match alias {
            Some(alias) => vec![alias.name.clone()],
            None => name.0.iter().filter_map(|part| part.as_ident().cloned()).collect(),
        };
        let column = qualifier.into_iter().chain([ast::Ident::with_quote('"', time)]).collect();
        let versions = ast::Expr::CompoundIdentifier(column);
        let condition =
            ast::Expr::BinaryOp { left: Box::new(at), op: ast::BinaryOperator::GtEq, right: Box::new(versions) };
        join.join_operator = operator(with_condition(constraint, call(MATCH, condition))?);
        Ok(())
    }

    /// The column that says since when a row of a relation holds.
    fn version_time(&self, name: &ast::ObjectName) -> Result<String, SqlError> {
        let idents: Vec<_> = name.0.iter().filter_map(|part| part.as_ident()).map(fold).collect();
        let (namespace, table) = match idents.as_slice() {
            [table] => (None, table.as_str()),
            [namespace, table] => (Some(namespace.as_str()), table.as_str()),
            _ => (None, ""),
        };
        let Some(relation) = self.catalog.relation(namespace, table) else {
            let message = format!("relation \"{name}\" does not exist");
            return Err(located(SqlError::new(state::UNDEFINED_TABLE, message), name));
        };
        match time_column(&relation) {
            Some(column) => Ok(column),
            None => {
                let message = format!("FOR SYSTEM_TIME AS OF: \"{name}\" has no times of its versions");
                let hint = "Declare a WATERMARK for the column that says since when a row holds, or use \
                            ASOF JOIN ... MATCH_CONDITION (a.ts >= b.ts) over any time column.";
                Err(located(SqlError::not_supported(message).hint(hint), name))
            }
        }
    }
}

fn time_column(relation: &Relation) -> Option<String> {
    let bound = relation.bounds.first()?;
    relation.schema.fields().get(bound.column).map(|field| field.name().clone())
}

fn located(error: SqlError, name: &ast::ObjectName) -> SqlError {
    match name.0.first().and_then(|part| part.as_ident()) {
        Some(ident) => error.located(ident.span.start.line, ident.span.start.column),
        None => error,
    }
}

fn with_condition(constraint: &JoinConstraint, condition: ast::Expr) -> Result<JoinConstraint, SqlError> {
    match constraint {
        JoinConstraint::None => Ok(JoinConstraint::On(condition)),
        JoinConstraint::On(on) => Ok(JoinConstraint::On(ast::Expr::BinaryOp {
            left: Box::new(ast::Expr::Nested(Box::new(on.clone()))),
            op: ast::BinaryOperator::And,
            right: Box::new(condition),
        })),
        JoinConstraint::Using(_) | JoinConstraint::Natural => {
            let error = SqlError::not_supported("an as-of join with USING or NATURAL is not supported");
            Err(error.hint("Write its keys as ON a.k = b.k."))
        }
    }
}

fn call(name: &str, arg: ast::Expr) -> ast::Expr {
    let arg = ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(arg));
    let list = ast::FunctionArgumentList { duplicate_treatment: None, args: vec![arg], clauses: Vec::new() };
    ast::Expr::Function(ast::Function {
        name: ast::ObjectName::from(vec![ast::Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: ast::FunctionArguments::None,
        args: ast::FunctionArguments::List(list),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// Marks a match condition until [`resolve`] has found it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct MatchMark {
    name: &'static str,
    signature: Signature,
}

impl MatchMark {
    /// For `ASOF JOIN`, and for `ASOF LEFT JOIN`.
    pub(crate) fn both() -> [Self; 2] {
        [MATCH, LEFT_MATCH].map(|name| MatchMark { name, signature: Signature::any(1, Volatility::Immutable) })
    }
}

impl ScalarUDFImpl for MatchMark {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(external(SqlError::new(state::SYNTAX_ERROR, "a match condition stands outside of its ASOF JOIN")))
    }
}

/// An as-of join.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AsOfNode {
    /// Its left input.
    pub(crate) left: LogicalPlan,
    /// Its right input.
    pub(crate) right: LogicalPlan,
    /// Pairs of a left and a right key.
    pub(crate) on: Vec<(Expr, Expr)>,
    /// The left and the right time.
    pub(crate) times: (Expr, Expr),
    /// The right row comes after the left one.
    pub(crate) after: bool,
    /// Equal times match.
    pub(crate) inclusive: bool,
    /// Left rows without match stay.
    pub(crate) outer: bool,
    schema: DFSchemaRef,
}

impl AsOfNode {
    fn with_schema(self) -> Result<Self> {
        let right = self.right.schema();
        let outer = self.outer;
        let nullable = right.iter().map(|(qualifier, field)| {
            let field = if outer { Arc::new(field.as_ref().clone().with_nullable(true)) } else { field.clone() };
            (qualifier.cloned(), field)
        });
        let left = self.left.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone()));
        let fields: Vec<(_, Arc<Field>)> = left.chain(nullable).collect();
        let schema = Arc::new(DFSchema::new_with_metadata(fields, HashMap::new())?);
        Ok(AsOfNode { schema, ..self })
    }
}

impl PartialOrd for AsOfNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for AsOfNode {
    fn name(&self) -> &str {
        "AsOf"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let keys = self.on.iter().flat_map(|(left, right)| [left.clone(), right.clone()]);
        [self.times.0.clone(), self.times.1.clone()].into_iter().chain(keys).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsOf {} {} on {:?}", self.times.0, self.times.1, self.on)
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let (Some(right), Some(left)) = (inputs.pop(), inputs.pop()) else {
            return Err(DataFusionError::Internal("an as-of join needs two inputs".into()));
        };
        let mut pairs = Vec::new();
        let mut exprs = exprs.into_iter();
        while let (Some(left), Some(right)) = (exprs.next(), exprs.next()) {
            pairs.push((left, right));
        }
        if pairs.len() != self.on.len() + 1 {
            return Err(DataFusionError::Internal("an as-of join lost an expression".into()));
        }
        let times = pairs.remove(0);
        AsOfNode { left, right, on: pairs, times, ..self.clone() }.with_schema()
    }

    /// All right columns are needed: they tell which of several rows at one time matches.
    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let left = self.left.schema();
        let mut needed: Vec<_> = output_columns.iter().copied().filter(|c| *c < left.fields().len()).collect();
        let own = self.on.iter().map(|(left, _)| left).chain([&self.times.0]);
        for column in own.flat_map(Expr::column_refs) {
            needed.extend(left.maybe_index_of_column(column));
        }
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed, (0..self.right.schema().fields().len()).collect()])
    }
}

/// Makes as-of joins of the joins that [`mark`] has marked.
pub(crate) fn resolve(plan: LogicalPlan) -> Result<LogicalPlan> {
    let resolved = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Join(join)
            if join.filter.as_ref().is_some_and(|f| split_conjunction(f).into_iter().any(is_mark)) =>
        {
            let node = as_of(join)?;
            Ok(Transformed::yes(LogicalPlan::Extension(Extension { node: Arc::new(node) })))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(resolved.data)
}

fn is_mark(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if call.func.name() == MATCH || call.func.name() == LEFT_MATCH)
}

fn as_of(join: Join) -> Result<AsOfNode> {
    let (left, right) = (join.left.as_ref().clone(), join.right.as_ref().clone());
    let (mut on, mut times) = (join.on, None);
    for condition in join.filter.iter().flat_map(|filter| split_conjunction(filter)) {
        let (inner, marked) = match condition {
            Expr::ScalarFunction(call) if is_mark(condition) => (call.args.first(), true),
            other => (Some(other), false),
        };
        let sided = inner.and_then(|inner| comparison(inner, &left, &right));
        match (marked, sided) {
            (true, Some((pair, op))) if times.is_none() && op != Operator::Eq => {
                times = Some((same_type(pair, &left, &right)?, op));
            }
            (false, Some((pair, Operator::Eq))) => on.push(same_type(pair, &left, &right)?),
            (true, _) => {
                let message = "MATCH_CONDITION must be a.ts >= b.ts, or with >, <= or <, with a column of each side";
                return Err(external(SqlError::not_supported(message)));
            }
            (false, _) => {
                let message = format!("ON of an as-of join takes equalities between both sides, not {condition}");
                let hint = "Put other conditions into a WHERE, or into a subquery of one side.";
                return Err(external(SqlError::not_supported(message).hint(hint)));
            }
        }
    }
    let Some((times, op)) = times else { return Err(DataFusionError::Internal("no match condition".into())) };
    let time = times.0.get_type(left.schema())?;
    if time.primitive_width().is_none() {
        let message = format!("MATCH_CONDITION compares times or numbers, not {time}");
        return Err(external(SqlError::new(state::DATATYPE_MISMATCH, message)));
    }
    let node = AsOfNode {
        after: matches!(op, Operator::Lt | Operator::LtEq),
        inclusive: matches!(op, Operator::LtEq | Operator::GtEq),
        outer: join.join_type == JoinType::Left,
        schema: join.schema,
        left,
        right,
        on,
        times,
    };
    node.with_schema()
}

/// A comparison with a side of the join on either side of it, the left one first.
fn comparison(expr: &Expr, left: &LogicalPlan, right: &LogicalPlan) -> Option<((Expr, Expr), Operator)> {
    use Operator::{Eq, Gt, GtEq, Lt, LtEq};
    let Expr::BinaryExpr(BinaryExpr { left: a, op, right: b }) = expr else { return None };
    if !matches!(op, Eq | Lt | LtEq | Gt | GtEq) {
        return None;
    }
    let of = |expr: &Expr, plan: &LogicalPlan| {
        let columns: Vec<&Column> = expr.column_refs().into_iter().collect();
        !columns.is_empty() && columns.iter().all(|column| plan.schema().has_column(column))
    };
    if of(a, left) && of(b, right) {
        return Some(((a.as_ref().clone(), b.as_ref().clone()), *op));
    }
    (of(a, right) && of(b, left)).then(|| op.swap())?.map(|op| ((b.as_ref().clone(), a.as_ref().clone()), op))
}

fn same_type((a, b): (Expr, Expr), left: &LogicalPlan, right: &LogicalPlan) -> Result<(Expr, Expr)> {
    let (of_a, of_b) = (a.get_type(left.schema())?, b.get_type(right.schema())?);
    let Some(common) = comparison_coercion(&of_a, &of_b) else {
        let message = format!("an as-of join cannot compare {of_a} and {of_b}");
        return Err(external(SqlError::new(state::DATATYPE_MISMATCH, message)));
    };
    Ok((a.cast_to(&common, left.schema())?, b.cast_to(&common, right.schema())?))
}
