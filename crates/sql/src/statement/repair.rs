//! `APPLY LATE` and `ALTER ... RESUME`.

use datafusion::sql::sqlparser::ast;

use super::query::query_of;
use super::reader::Reader;
use super::{DropKind, ObjectName, StatementKind};
use crate::{SqlError, state};

/// `APPLY LATE FROM t$late [WHERE condition]`.
pub(super) fn apply_late(reader: &mut Reader<'_>) -> Result<StatementKind, SqlError> {
    reader.expect("APPLY")?;
    reader.expect("LATE")?;
    reader.expect("FROM")?;
    let from = reader.name("the name of a table's $late")?;
    let selection = if reader.eat("WHERE") { Some(reader.expression()?) } else { None };
    reader.expect_end()?;
    let query = rows_of(&from, selection)?;
    Ok(StatementKind::ApplyLate { from, query })
}

/// `SELECT * FROM name WHERE selection`.
fn rows_of(name: &ObjectName, selection: Option<ast::Expr>) -> Result<Box<ast::Query>, SqlError> {
    let quoted = |part: &str| format!("\"{}\"", part.replace('"', "\"\""));
    let namespace = name.namespace.as_deref().unwrap_or("public");
    let text = format!("SELECT * FROM {}.{}", quoted(namespace), quoted(&name.name));
    let StatementKind::Query(mut query) = query_of(&text)? else {
        return Err(SqlError::internal("a SELECT must be a query"));
    };
    match query.body.as_mut() {
        ast::SetExpr::Select(select) => select.selection = selection,
        _ => return Err(SqlError::internal("a SELECT must have one")),
    }
    Ok(query)
}

/// `ALTER MATERIALIZED VIEW | SOURCE | SINK name RESUME`.
pub(super) fn alter(reader: &mut Reader<'_>) -> Result<StatementKind, SqlError> {
    let start = reader.position();
    reader.expect("ALTER")?;
    let kind = if reader.eat("MATERIALIZED VIEW") {
        DropKind::MaterializedView
    } else if reader.eat("SOURCE") {
        DropKind::Source
    } else if reader.eat("SINK") {
        DropKind::Sink
    } else {
        let error = SqlError::new(state::FEATURE_NOT_SUPPORTED, "ALTER is not supported but for RESUME").at(start);
        return Err(error.hint("Drop the object and create it anew; what has stopped goes on with ALTER ... RESUME."));
    };
    let name = reader.name("a name")?;
    if !reader.eat("RESUME") {
        return Err(reader.expected("RESUME").hint("What is defined cannot be changed: drop it and create it anew."));
    }
    reader.expect_end()?;
    Ok(StatementKind::Resume { kind, name })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    fn one(sql: &str) -> StatementKind {
        parse(sql).unwrap_or_else(|error| panic!("{sql}: {error}")).remove(0).kind
    }

    fn refused(sql: &str) -> SqlError {
        parse(sql).expect_err(sql)
    }

    #[test]
    fn repairs() {
        let StatementKind::ApplyLate { from, query } = one("APPLY LATE FROM t$late WHERE x > 3 AND reason <> ''")
        else {
            panic!("APPLY LATE")
        };
        assert_eq!((from.name.as_str(), from.position), ("t$late", Some(17)));
        assert_eq!(query.to_string(), "SELECT * FROM \"public\".\"t$late\" WHERE x > 3 AND reason <> ''");
        let StatementKind::ApplyLate { query, .. } = one("apply late from \"My\".\"a\"\"b$late\"") else {
            panic!("APPLY LATE")
        };
        assert_eq!(query.to_string(), "SELECT * FROM \"My\".\"a\"\"b$late\"");
        for (sql, kind) in [
            ("ALTER MATERIALIZED VIEW v RESUME", DropKind::MaterializedView),
            ("ALTER SOURCE v RESUME", DropKind::Source),
            ("alter sink v resume", DropKind::Sink),
        ] {
            let StatementKind::Resume { kind: found, name } = one(sql) else { panic!("{sql}") };
            assert_eq!((found, name.name.as_str()), (kind, "v"), "{sql}");
        }
        assert_eq!(refused("ALTER SOURCE s SET x").position, Some(16));
        assert_eq!(refused("APPLY LATE t$late").position, Some(12));
        assert_eq!(refused("APPLY LATE FROM t$late LIMIT 1").position, Some(24));
    }
}
