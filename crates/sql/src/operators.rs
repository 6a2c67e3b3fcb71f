//! PostgreSQL's operators that DataFusion has not, or has for other types: `jsonb`'s, those of intervals and
//! times, `&&` of arrays. They become calls of functions of ours where the query is planned.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, ExprSchemable, Operator, ScalarUDF};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use crate::sql_type::TYPE_KEY;

/// Plans them; has the functions.
#[derive(Debug)]
pub(crate) struct Operators {
    functions: Vec<Arc<ScalarUDF>>,
}

/// What an operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Json,
    Text,
    Interval,
    Timestamp,
    Date,
    Time,
    Number,
    List,
    Other,
}

impl Operators {
    /// With these functions.
    pub(crate) fn new(functions: Vec<Arc<ScalarUDF>>) -> Self {
        Operators { functions }
    }

    fn call(&self, name: &str, args: Vec<Expr>) -> Option<Expr> {
        self.functions.iter().find(|function| function.name() == name).map(|function| function.call(args))
    }

    fn planned(&self, op: &BinaryOperator, left: &Expr, right: &Expr, kinds: (Kind, Kind)) -> Option<Expr> {
        let call = |name: &str| self.call(name, vec![left.clone(), right.clone()]);
        let swapped = |name: &str| self.call(name, vec![right.clone(), left.clone()]);
        let time = |kind: Kind| matches!(kind, Kind::Timestamp | Kind::Date);
        match (op, kinds) {
            (BinaryOperator::PGOverlap, (Kind::List, Kind::List)) => call("array_overlap"),
            (BinaryOperator::AtArrow, (Kind::Json, _) | (_, Kind::Json)) => call("jsonb_contains"),
            (BinaryOperator::ArrowAt, (Kind::Json, _) | (_, Kind::Json)) => swapped("jsonb_contains"),
            (BinaryOperator::StringConcat, (Kind::Json, Kind::Json)) => call("jsonb_concat"),
            (BinaryOperator::Minus, (Kind::Json, _)) => call("jsonb_delete"),
            (BinaryOperator::HashMinus, _) => call("jsonb_delete_path"),
            (BinaryOperator::HashArrow, _) => call("jsonb_at_path"),
            (BinaryOperator::HashLongArrow, _) => call("jsonb_at_path_text"),
            (BinaryOperator::Question, _) => call("jsonb_exists"),
            (BinaryOperator::QuestionPipe, _) => call("jsonb_exists_any"),
            (BinaryOperator::QuestionAnd, _) => call("jsonb_exists_all"),
            (BinaryOperator::Multiply, (Kind::Interval, Kind::Number)) => call("interval_times"),
            (BinaryOperator::Multiply, (Kind::Number, Kind::Interval)) => swapped("interval_times"),
            (BinaryOperator::Divide, (Kind::Interval, Kind::Number)) => call("interval_over"),
            (BinaryOperator::Minus, (a, b)) if time(a) && time(b) && (a, b) != (Kind::Date, Kind::Date) => {
                call("timestamp_difference")
            }
            (BinaryOperator::Plus | BinaryOperator::Minus, (Kind::Date, Kind::Interval)) => {
                Some(plain(as_timestamp(left), op, right.clone()))
            }
            (BinaryOperator::Plus, (Kind::Interval, Kind::Date)) => Some(plain(left.clone(), op, as_timestamp(right))),
            (BinaryOperator::Plus, (Kind::Date, Kind::Time)) => {
                Some(plain(as_timestamp(left), op, self.call("clock_interval", vec![right.clone()])?))
            }
            (BinaryOperator::Plus, (Kind::Time, Kind::Date)) => {
                Some(plain(as_timestamp(right), op, self.call("clock_interval", vec![left.clone()])?))
            }
            (op, (Kind::Interval, Kind::Interval)) => {
                let op = comparison(op)?;
                let length = |expr: &Expr| self.call("interval_length", vec![expr.clone()]);
                Some(Expr::BinaryExpr(BinaryExpr {
                    left: Box::new(length(left)?),
                    op,
                    right: Box::new(length(right)?),
                }))
            }
            _ => None,
        }
    }
}

impl ExprPlanner for Operators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let kinds = (kind(&expr.left, schema), kind(&expr.right, schema));
        Ok(match self.planned(&expr.op, &expr.left, &expr.right, kinds) {
            Some(planned) => PlannerResult::Planned(planned),
            None => PlannerResult::Original(expr),
        })
    }
}

fn kind(expr: &Expr, schema: &DFSchema) -> Kind {
    let Ok((_, field)) = expr.to_field(schema) else { return Kind::Other };
    if field.metadata().get(TYPE_KEY).is_some_and(|name| name == "jsonb") {
        return Kind::Json;
    }
    match field.data_type() {
        // What `->` gives before it is made a `jsonb`.
        DataType::Union(..) => Kind::Json,
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => Kind::Text,
        DataType::Interval(_) | DataType::Duration(_) => Kind::Interval,
        DataType::Timestamp(..) => Kind::Timestamp,
        DataType::Date32 | DataType::Date64 => Kind::Date,
        DataType::Time32(_) | DataType::Time64(_) => Kind::Time,
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => Kind::List,
        other if other.is_numeric() => Kind::Number,
        _ => Kind::Other,
    }
}

fn comparison(op: &BinaryOperator) -> Option<Operator> {
    Some(match op {
        BinaryOperator::Eq => Operator::Eq,
        BinaryOperator::NotEq => Operator::NotEq,
        BinaryOperator::Lt => Operator::Lt,
        BinaryOperator::LtEq => Operator::LtEq,
        BinaryOperator::Gt => Operator::Gt,
        BinaryOperator::GtEq => Operator::GtEq,
        _ => return None,
    })
}

fn plain(left: Expr, op: &BinaryOperator, right: Expr) -> Expr {
    let op = if *op == BinaryOperator::Minus { Operator::Minus } else { Operator::Plus };
    Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right: Box::new(right) })
}

fn as_timestamp(expr: &Expr) -> Expr {
    Expr::Cast(Cast::new(Box::new(expr.clone()), DataType::Timestamp(TimeUnit::Microsecond, None)))
}
