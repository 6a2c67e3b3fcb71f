//! What expressions do to the time bounds of their columns.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, ExprSchemable, Operator};
use tidemill_delta::Micros;

use crate::window::{DAY, interval_micros};

/// The column that a time expression is made from, and by how much the offset of its bound grows.
///
/// A value `v` of the expression comes from column values up to `v + growth`; when these are final,
/// so is `v`.
pub(super) fn expr_offset(expr: &Expr, columns: &DFSchema) -> Option<(usize, Micros)> {
    match expr {
        Expr::Alias(alias) => expr_offset(&alias.expr, columns),
        Expr::ScalarFunction(function) => truncated(function, columns),
        Expr::Cast(cast) => {
            let (column, growth) = expr_offset(&cast.expr, columns)?;
            let lost = precision_lost(&cast.expr.get_type(columns).ok()?, cast.field.data_type())?;
            Some((column, growth.checked_add(lost)?))
        }
        _ => {
            let (column, shift) = shifted(expr, columns)?;
            Some((column, shift.checked_neg()?))
        }
    }
}

/// `column + shift`, for a timestamp column and a constant interval.
pub(super) fn shifted(expr: &Expr, columns: &DFSchema) -> Option<(usize, Micros)> {
    match expr {
        Expr::Column(column) => {
            let index = columns.maybe_index_of_column(column)?;
            matches!(columns.field(index).data_type(), DataType::Timestamp(_, _)).then_some((index, 0))
        }
        Expr::Alias(alias) => shifted(&alias.expr, columns),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) => match constant(right) {
            Some(shift) => add(shifted(left, columns)?, shift),
            None => add(shifted(right, columns)?, constant(left)?),
        },
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) => {
            add(shifted(left, columns)?, constant(right)?.checked_neg()?)
        }
        Expr::Cast(Cast { expr, field }) => {
            let lost = precision_lost(&expr.get_type(columns).ok()?, field.data_type())?;
            (lost == 0).then(|| shifted(expr, columns))?
        }
        _ => None,
    }
}

fn add((column, shift): (usize, Micros), more: Micros) -> Option<(usize, Micros)> {
    Some((column, shift.checked_add(more)?))
}

fn constant(expr: &Expr) -> Option<Micros> {
    match expr {
        Expr::Literal(value, _) => interval_micros(value),
        Expr::Alias(alias) => constant(&alias.expr),
        _ => None,
    }
}

/// By how much a cast between timestamps may move a value down.
fn precision_lost(from: &DataType, to: &DataType) -> Option<Micros> {
    let (DataType::Timestamp(from, from_zone), DataType::Timestamp(to, to_zone)) = (from, to) else { return None };
    if from_zone != to_zone {
        return None;
    }
    let micros = |unit: &TimeUnit| match unit {
        TimeUnit::Second => 1_000_000,
        TimeUnit::Millisecond => 1000,
        TimeUnit::Microsecond | TimeUnit::Nanosecond => 1,
    };
    Some((micros(to) - micros(from)).max(0))
}

/// `date_trunc` and `date_bin`: values come from up to one bin later.
fn truncated(function: &ScalarFunction, columns: &DFSchema) -> Option<(usize, Micros)> {
    let bin = match (function.func.name(), function.args.as_slice()) {
        ("date_trunc", [Expr::Literal(unit, _), _]) => unit_micros(text(unit)?)?,
        ("date_bin", [Expr::Literal(stride, _), _, ..]) => interval_micros(stride)?,
        _ => return None,
    };
    let (column, growth) = expr_offset(&function.args[1], columns)?;
    add((column, growth), bin.checked_sub(1)?)
}

fn text(value: &ScalarValue) -> Option<&str> {
    value.try_as_str().flatten()
}

/// The longest that a `date_trunc` unit can be.
fn unit_micros(unit: &str) -> Option<Micros> {
    Some(match unit.to_ascii_lowercase().as_str() {
        "microsecond" => 1,
        "millisecond" => 1000,
        "second" => 1_000_000,
        "minute" => 60_000_000,
        "hour" => 3_600_000_000,
        "day" => DAY,
        "week" => 7 * DAY,
        "month" => 31 * DAY,
        "quarter" => 92 * DAY,
        "year" => 366 * DAY,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{Field, Schema};
    use datafusion::functions::datetime::expr_fn::date_trunc;
    use datafusion::logical_expr::{col, lit};

    use super::*;

    fn columns() -> DFSchema {
        let schema = Schema::new(vec![
            Field::new("n", DataType::Int64, true),
            Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        ]);
        DFSchema::try_from(Arc::new(schema)).expect("a schema")
    }

    fn seconds(n: i64) -> Expr {
        Expr::Literal(ScalarValue::DurationSecond(Some(n)), None)
    }

    #[test]
    fn shifting_a_column_shifts_its_bound_the_other_way() {
        assert_eq!(expr_offset(&(col("ts") + seconds(2)), &columns()), Some((1, -2_000_000)));
        assert_eq!(expr_offset(&(col("ts") - seconds(2)), &columns()), Some((1, 2_000_000)));
        assert_eq!(expr_offset(&col("n"), &columns()), None);
    }

    #[test]
    fn truncating_waits_for_the_end_of_the_bin() {
        assert_eq!(expr_offset(&date_trunc(lit("minute"), col("ts")), &columns()), Some((1, 59_999_999)));
        assert_eq!(expr_offset(&date_trunc(lit("eon"), col("ts")), &columns()), None);
    }

    #[test]
    fn casts_to_coarser_units_wait_for_the_unit() {
        let cast = |unit| Expr::Cast(Cast::new(Box::new(col("ts")), DataType::Timestamp(unit, None)));
        assert_eq!(expr_offset(&cast(TimeUnit::Second), &columns()), Some((1, 999_999)));
        assert_eq!(shifted(&cast(TimeUnit::Second), &columns()), None);
        assert_eq!(shifted(&cast(TimeUnit::Nanosecond), &columns()), Some((1, 0)));
    }
}
