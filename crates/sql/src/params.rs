//! Parameters: which types `$1`, `$2`, ... have, and putting values in their place.
//!
//! Values go into the syntax tree as casts of literals, so that they work wherever SQL allows an
//! expression, and planning sees no difference from a statement without parameters.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::{DataType, Field};
use datafusion::sql::sqlparser::ast::{self, CastKind, Expr, Value, VisitMut};

use crate::assign::{assign, value_text};
use crate::sql_type::{arrow_type, cast_type, output_type};
use crate::walk::walk_expressions;
use crate::{Catalog, Param, Planner, SqlError, state};

/// The most parameters that the wire protocol can send.
const MAX_PARAMS: usize = 65_535;

/// The number of a placeholder, from 1.
pub(crate) fn placeholder(expr: &Expr) -> Option<Result<usize, SqlError>> {
    let Expr::Value(value) = expr else { return None };
    let Value::Placeholder(name) = &value.value else { return None };
    let number = name.strip_prefix('$').and_then(|digits| digits.parse().ok());
    Some(match number.filter(|number| (1..=MAX_PARAMS).contains(number)) {
        Some(number) => Ok(number),
        None => Err(SqlError::new(state::UNDEFINED_PARAMETER, format!("there is no parameter {name}"))),
    })
}

/// How many parameters there are: the highest number.
pub(crate) fn count<T: VisitMut + Clone>(node: &T) -> Result<usize, SqlError> {
    let mut highest = 0;
    walk_expressions(&mut node.clone(), |expr| {
        if let Some(number) = placeholder(expr) {
            highest = highest.max(number?);
        }
        Ok(())
    })?;
    Ok(highest)
}

/// The parameters' types: what the client named, else what the query tells, else text.
pub(crate) fn types(
    planner: &Planner,
    catalog: &dyn Catalog,
    query: &ast::Query,
    named: &[Option<DataType>],
) -> Result<Vec<DataType>, SqlError> {
    let found = inferred(planner, catalog, query)?;
    let one =
        |(i, found): (usize, Option<DataType>)| named.get(i).cloned().flatten().or(found).unwrap_or(DataType::Utf8);
    Ok(found.into_iter().enumerate().map(one).collect())
}

/// What a query tells about its parameters' types.
pub(crate) fn inferred(
    planner: &Planner,
    catalog: &dyn Catalog,
    query: &ast::Query,
) -> Result<Vec<Option<DataType>>, SqlError> {
    let count = count(query)?;
    if count == 0 {
        return Ok(Vec::new());
    }
    let mut types = hinted(query, count)?;
    // Without types some plans fail that are fine with values; then the hints are all there is.
    let planned = planner.logical_plan(catalog, query).ok().and_then(|plan| plan.get_parameter_types().ok());
    for (name, data_type) in planned.unwrap_or_default() {
        let number: Option<usize> = name.strip_prefix('$').and_then(|digits| digits.parse().ok());
        if let Some(slot) = number.and_then(|number| types.get_mut(number.wrapping_sub(1))) {
            let known = data_type.filter(|data_type| *data_type != DataType::Null);
            *slot = slot.take().or(known.map(|data_type| output_type(&data_type)));
        }
    }
    Ok(types)
}

/// Types that the text shows: `CAST($1 AS t)`, `LIMIT $1`, `$1 + interval`.
fn hinted(query: &ast::Query, count: usize) -> Result<Vec<Option<DataType>>, SqlError> {
    let mut hints = vec![None; count];
    let mut query = query.clone();
    if let Some(ast::LimitClause::LimitOffset { limit, offset, .. }) = &query.limit_clause {
        for expr in limit.iter().chain(offset.iter().map(|offset| &offset.value)) {
            hint(&mut hints, expr, || Some(DataType::Int64))?;
        }
    }
    walk_expressions(&mut query, |expr| match expr {
        Expr::Cast { expr, data_type, .. } => hint(&mut hints, expr, || arrow_type(data_type).ok()),
        _ => Ok(()),
    })?;
    Ok(hints)
}

fn hint(
    hints: &mut [Option<DataType>],
    expr: &Expr,
    data_type: impl FnOnce() -> Option<DataType>,
) -> Result<(), SqlError> {
    if let Some(number) = placeholder(expr)
        && let Some(slot @ None) = hints.get_mut(number? - 1)
    {
        *slot = data_type();
    }
    Ok(())
}

/// The query with values in place of its parameters.
pub(crate) fn substitute(
    planner: &Planner,
    catalog: &dyn Catalog,
    query: &ast::Query,
    values: &[Param],
) -> Result<ast::Query, SqlError> {
    let types = inferred(planner, catalog, query)?;
    let mut query = query.clone();
    if !types.is_empty() {
        put(&mut query, &types, values)?;
    }
    Ok(query)
}

/// The query with NULLs of the parameters' types, for finding out what it returns.
pub(crate) fn with_nulls(query: &ast::Query, types: &[DataType]) -> Result<ast::Query, SqlError> {
    let mut query = query.clone();
    let types: Vec<_> = types.iter().cloned().map(Some).collect();
    let values = vec![Param::Text(None); types.len()];
    put(&mut query, &types, &values)?;
    Ok(query)
}

/// Puts values in place of all parameters. Those without a type keep the value's, or are text.
pub(crate) fn put<T: VisitMut>(node: &mut T, types: &[Option<DataType>], values: &[Param]) -> Result<(), SqlError> {
    let mut made: HashMap<usize, Expr> = HashMap::new();
    walk_expressions(node, |expr| {
        let Some(number) = placeholder(expr) else { return Ok(()) };
        let number = number?;
        if let Some(known) = made.get(&number) {
            *expr = known.clone();
            return Ok(());
        }
        let value = values.get(number - 1).ok_or_else(|| missing(number, values.len()))?;
        *expr = literal(value, types.get(number - 1).cloned().flatten())?;
        made.insert(number, expr.clone());
        Ok(())
    })
}

fn missing(number: usize, given: usize) -> SqlError {
    SqlError::new(state::UNDEFINED_PARAMETER, format!("there is no parameter ${number}; {given} were given"))
}

/// A value as an expression.
pub(crate) fn literal(value: &Param, wanted: Option<DataType>) -> Result<Expr, SqlError> {
    let (values, wanted): (ArrayRef, DataType) = match value {
        Param::Text(text) => {
            let wanted = wanted.unwrap_or(DataType::Utf8);
            (Arc::new(StringArray::from(vec![text.as_deref()])), wanted)
        }
        Param::Value(values) if values.len() == 1 => {
            let wanted = wanted.unwrap_or_else(|| output_type(values.data_type()));
            (values.clone(), wanted)
        }
        Param::Value(_) => return Err(SqlError::internal("a parameter must have one value")),
    };
    let values = assign(&values, &Field::new("parameter", wanted, true))?;
    array_literal(&values)
}

fn array_literal(values: &ArrayRef) -> Result<Expr, SqlError> {
    if let (DataType::List(_), false) = (values.data_type(), values.is_null(0)) {
        let items = values.as_list::<i32>().value(0);
        let elem = (0..items.len()).map(|i| array_literal(&items.slice(i, 1))).collect::<Result<Vec<_>, _>>()?;
        let array = Expr::Array(ast::Array { elem, named: true });
        return Ok(cast(array, values.data_type()));
    }
    let Some(text) = value_text(values, 0)? else {
        return Ok(cast(Expr::Value(Value::Null.with_empty_span()), values.data_type()));
    };
    Ok(match values.data_type() {
        DataType::Binary => Expr::Value(Value::HexStringLiteral(text).with_empty_span()),
        DataType::Utf8 => Expr::Value(Value::SingleQuotedString(text).with_empty_span()),
        other => cast(Expr::Value(Value::SingleQuotedString(text).with_empty_span()), other),
    })
}

fn cast(expr: Expr, data_type: &DataType) -> Expr {
    match cast_type(data_type) {
        Some(data_type) => {
            let expr = Box::new(expr);
            Expr::Cast { kind: CastKind::Cast, expr, data_type, array: false, format: None }
        }
        None => expr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BinaryArray, Int64Array, ListArray};
    use arrow::datatypes::Int64Type;

    #[test]
    fn values_become_casts() {
        let text = |value: &Param, wanted| literal(value, wanted).expect("a literal").to_string();
        assert_eq!(text(&Param::Text(Some("a'b".into())), None), "'a''b'");
        assert_eq!(text(&Param::Text(Some(" 7 ".into())), Some(DataType::Int32)), "CAST('7' AS INTEGER)");
        assert_eq!(text(&Param::Text(None), Some(DataType::Int32)), "CAST(NULL AS INTEGER)");
        assert_eq!(text(&Param::Value(Arc::new(Int64Array::from(vec![-3]))), None), "CAST('-3' AS BIGINT)");
        let bytes: ArrayRef = Arc::new(BinaryArray::from_vec(vec![&[1, 255]]));
        assert_eq!(text(&Param::Value(bytes), None), "X'01ff'");
        let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1), None])]);
        let list = text(&Param::Value(Arc::new(list)), None);
        assert_eq!(list, "CAST(ARRAY[CAST('1' AS BIGINT), CAST(NULL AS BIGINT)] AS BIGINT[])");
        let error = literal(&Param::Text(Some("x".into())), Some(DataType::Int32)).expect_err("no integer");
        assert_eq!(error.code, state::INVALID_TEXT_REPRESENTATION);
    }
}
