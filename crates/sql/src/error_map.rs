//! DataFusion's errors as ours: SQLSTATE, a message for people, a position.

use arrow::error::ArrowError;
use datafusion::common::{Column, DataFusionError, Diagnostic, SchemaError};

use crate::{SqlError, state};

/// The error that a client sees.
pub(crate) fn sql_error(error: DataFusionError) -> SqlError {
    match error {
        DataFusionError::External(inner) => match inner.downcast::<SqlError>() {
            Ok(ours) => *ours,
            Err(other) => from_text(&other.to_string()),
        },
        DataFusionError::Diagnostic(diagnostic, inner) => locate(sql_error(*inner), &diagnostic),
        DataFusionError::Context(_, inner) => sql_error(*inner),
        DataFusionError::Shared(inner) => match shared(&inner) {
            Some(ours) => ours,
            None => from_text(&inner.strip_backtrace()),
        },
        DataFusionError::Collection(errors) => match errors.into_iter().next() {
            Some(first) => sql_error(first),
            None => SqlError::internal("planning failed"),
        },
        DataFusionError::SchemaError(inner, _) => schema_error(&inner),
        DataFusionError::SQL(inner, _) => SqlError::new(state::SYNTAX_ERROR, inner.to_string()),
        DataFusionError::ArrowError(inner, _) => arrow_error(&inner),
        DataFusionError::NotImplemented(message) => SqlError::not_supported(clean(&message)),
        DataFusionError::ResourcesExhausted(message) => SqlError::new(state::PROGRAM_LIMIT_EXCEEDED, clean(&message)),
        // Some of them are the user's: a missing signature, for one.
        DataFusionError::Internal(message) => reworded(&message).unwrap_or_else(|| SqlError::internal(clean(&message))),
        DataFusionError::Plan(message)
        | DataFusionError::Execution(message)
        | DataFusionError::Configuration(message)
        | DataFusionError::Substrait(message)
        | DataFusionError::Ffi(message) => from_text(&message),
        other => from_text(&other.strip_backtrace()),
    }
}

/// An error of ours below shared wrappers.
fn shared(error: &DataFusionError) -> Option<SqlError> {
    match error {
        DataFusionError::External(inner) => inner.downcast_ref::<SqlError>().cloned(),
        DataFusionError::Shared(inner) => shared(inner),
        DataFusionError::Context(_, inner) => shared(inner),
        DataFusionError::ArrowError(inner, _) => Some(arrow_error(inner)),
        DataFusionError::SchemaError(inner, _) => Some(schema_error(inner)),
        _ => None,
    }
}

/// What evaluating a batch says when it fails.
pub(crate) fn arrow_error(error: &ArrowError) -> SqlError {
    match error {
        ArrowError::DivideByZero => SqlError::new(state::DIVISION_BY_ZERO, "division by zero"),
        ArrowError::ArithmeticOverflow(_) => SqlError::new(state::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range"),
        ArrowError::ExternalError(inner) => match inner.downcast_ref::<SqlError>() {
            Some(ours) => ours.clone(),
            None => match inner.downcast_ref::<DataFusionError>() {
                Some(inner) => shared(inner).unwrap_or_else(|| from_text(&inner.strip_backtrace())),
                None => from_text(&inner.to_string()),
            },
        },
        ArrowError::CastError(message)
        | ArrowError::ParseError(message)
        | ArrowError::ComputeError(message)
        | ArrowError::InvalidArgumentError(message) => from_text(message),
        other => from_text(&other.to_string()),
    }
}

fn schema_error(error: &SchemaError) -> SqlError {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let message = format!("column {} does not exist", column_name(field));
            let error = SqlError::new(state::UNDEFINED_COLUMN, message);
            match closest(field, valid_fields) {
                Some(name) => error.hint(format!("Perhaps you meant the column {name}.")),
                None => error,
            }
        }
        SchemaError::AmbiguousReference { field } => {
            SqlError::new(state::AMBIGUOUS_COLUMN, format!("column reference \"{}\" is ambiguous", field.name))
        }
        SchemaError::DuplicateQualifiedField { qualifier, name } => duplicate(&format!("{qualifier}.{name}")),
        SchemaError::DuplicateUnqualifiedField { name } => duplicate(name),
    }
}

fn duplicate(name: &str) -> SqlError {
    SqlError::new(state::DUPLICATE_COLUMN, format!("column \"{name}\" is specified more than once"))
        .hint("Give one of them another name with AS.")
}

/// A column as PostgreSQL writes it in messages.
fn column_name(column: &Column) -> String {
    match &column.relation {
        Some(relation) => format!("{}.{}", relation.table(), column.name),
        None => format!("\"{}\"", column.name),
    }
}

/// The column that differs by case only, or by one or two letters.
fn closest(field: &Column, valid: &[Column]) -> Option<String> {
    let wanted = field.name.to_lowercase();
    let best = valid.iter().min_by_key(|c| strsim_distance(&c.name.to_lowercase(), &wanted))?;
    let distance = strsim_distance(&best.name.to_lowercase(), &wanted);
    (distance <= 2 && distance < wanted.chars().count().max(1)).then(|| {
        let plain = best.name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if plain { format!("\"{}\"", best.name) } else { format!("\"{}\" (in double quotes)", best.name) }
    })
}

/// Levenshtein's distance.
fn strsim_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Remembers where in the text DataFusion saw the problem; see [`SqlError::in_text`].
fn locate(error: SqlError, diagnostic: &Diagnostic) -> SqlError {
    match diagnostic.span {
        Some(span) if error.position.is_none() && error.location.is_none() => {
            error.located(span.start.line, span.start.column)
        }
        _ => error,
    }
}

/// Message patterns of DataFusion and arrow, and what they mean to a client.
const PATTERNS: &[(&str, &str)] = &[
    ("Divide by zero", state::DIVISION_BY_ZERO),
    ("division by zero", state::DIVISION_BY_ZERO),
    ("overflow", state::NUMERIC_VALUE_OUT_OF_RANGE),
    ("out of range", state::NUMERIC_VALUE_OUT_OF_RANGE),
    ("too large to store", state::NUMERIC_VALUE_OUT_OF_RANGE),
    ("Can't cast value", state::NUMERIC_VALUE_OUT_OF_RANGE),
    ("Cannot cast string", state::INVALID_TEXT_REPRESENTATION),
    ("Error parsing timestamp", state::INVALID_TEXT_REPRESENTATION),
    ("Cannot cast value", state::INVALID_TEXT_REPRESENTATION),
    ("Invalid function", state::UNDEFINED_FUNCTION),
    ("No function matches", state::UNDEFINED_FUNCTION),
    ("Failed to coerce arguments", state::UNDEFINED_FUNCTION),
    ("must appear in the GROUP BY", state::GROUPING_ERROR),
    ("must be in the GROUP BY", state::GROUPING_ERROR),
    ("non-aggregate values", state::GROUPING_ERROR),
    ("Too many columns", state::SYNTAX_ERROR),
    ("Cannot coerce", state::DATATYPE_MISMATCH),
    ("Cannot infer common", state::DATATYPE_MISMATCH),
    ("type_coercion", state::DATATYPE_MISMATCH),
    ("Unsupported", state::FEATURE_NOT_SUPPORTED),
    ("not supported", state::FEATURE_NOT_SUPPORTED),
    ("not implemented", state::FEATURE_NOT_SUPPORTED),
    ("duplicate", state::DUPLICATE_COLUMN),
    ("ambiguous", state::AMBIGUOUS_COLUMN),
    ("specified more than once", "42712"),
    ("same name", state::DUPLICATE_COLUMN),
];

fn from_text(message: &str) -> SqlError {
    let message = clean(message);
    let found = PATTERNS.iter().find(|(pattern, _)| message.contains(pattern)).map(|(_, code)| *code);
    if let Some(error) = reworded(&message) {
        return error;
    }
    match found {
        Some(state::DIVISION_BY_ZERO) => SqlError::new(state::DIVISION_BY_ZERO, "division by zero"),
        Some(code) => SqlError::new(code, message),
        None => SqlError::new(state::DATA_EXCEPTION, message),
    }
}

/// Messages that PostgreSQL words otherwise.
fn reworded(message: &str) -> Option<SqlError> {
    let between = |from: &str, to: &str| Some(message.split_once(from)?.1.split_once(to)?.0);
    if let Some(call) = between("given name and argument types '", "'") {
        let error = SqlError::new(state::UNDEFINED_FUNCTION, format!("function {call} does not exist"));
        return Some(error.hint("No function matches the given name and argument types; you might need a cast."));
    }
    if let Some(name) = between("Invalid function '", "'") {
        let error = SqlError::new(state::UNDEFINED_FUNCTION, format!("function {name} does not exist"));
        return Some(match between("Did you mean '", "'") {
            Some(other) => error.hint(format!("Did you mean {other}?")),
            None => error,
        });
    }
    if let Some(name) = between("Projections require unique expression names but the expression \"", "\"") {
        let name = name.rsplit('.').next().unwrap_or(name);
        return Some(duplicate(name));
    }
    if let Some(name) = between("column \"", "\" must appear in the GROUP BY") {
        let message =
            format!("column \"{name}\" must appear in the GROUP BY clause or be used in an aggregate function");
        return Some(SqlError::new(state::GROUPING_ERROR, message));
    }
    None
}

/// DataFusion's message without its prefixes and without the backtrace.
fn clean(message: &str) -> String {
    let mut text = message.split(DataFusionError::BACK_TRACE_SEP).next().unwrap_or(message).trim();
    const PREFIXES: &[&str] = &[
        "Error during planning: ",
        "Arrow error: ",
        "Cast error: ",
        "Parser error: ",
        "Execution error: ",
        "Compute error: ",
        "Invalid argument error: ",
        "External error: ",
        "This feature is not implemented: ",
    ];
    while let Some(rest) = PREFIXES.iter().find_map(|p| text.strip_prefix(p)) {
        text = rest;
    }
    text.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn division_by_zero_has_its_code() {
        let error = sql_error(DataFusionError::ArrowError(Box::new(ArrowError::DivideByZero), None));
        assert_eq!((error.code, error.message.as_str()), (state::DIVISION_BY_ZERO, "division by zero"));
    }

    #[test]
    fn missing_columns_are_named_with_a_hint() {
        let inner = SchemaError::FieldNotFound {
            field: Box::new(Column::from_name("datetime")),
            valid_fields: vec![Column::from_name("price"), Column::from_name("dateTime")],
        };
        let error = sql_error(DataFusionError::SchemaError(Box::new(inner), Box::new(None)));
        assert_eq!(error.code, state::UNDEFINED_COLUMN);
        assert_eq!(error.message, "column \"datetime\" does not exist");
        assert!(error.hint.expect("a hint").contains("\"dateTime\" (in double quotes)"));
    }

    #[test]
    fn prefixes_go_and_our_own_errors_pass() {
        let error = sql_error(DataFusionError::Plan("Error during planning: Invalid function 'f'".into()));
        assert_eq!((error.code, error.message.as_str()), (state::UNDEFINED_FUNCTION, "function f does not exist"));
        let ours = SqlError::not_supported("that");
        let wrapped = DataFusionError::External(Box::new(ours.clone())).context("somewhere");
        assert_eq!(sql_error(wrapped), ours);
    }
}
