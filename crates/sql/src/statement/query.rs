//! Queries, DML and `EXPLAIN`.

use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::create::{Emit, create};
use super::dialect::TidemillDialect;
use super::reader::{Reader, is_word, tokens};
use super::{StatementKind, SubscribeTo};
use crate::SqlError;

/// A query, or an `INSERT` that begins with its `WITH`.
pub(super) fn query(reader: &mut Reader<'_>, emit: Option<Emit>) -> Result<StatementKind, SqlError> {
    if let Some(emit) = emit {
        return Err(emit.misplaced());
    }
    let position = reader.position();
    let first = &reader.parser.peek_token_ref().token;
    if !matches!(first, Token::LParen | Token::Word(_)) {
        return Err(reader.expected("a statement"));
    }
    let query = reader.query()?;
    reader.expect_end()?;
    kind_of(query, position)
}

/// sqlparser reads `WITH x AS (...) INSERT ...` as a query whose body is the `INSERT`.
fn kind_of(mut query: Box<ast::Query>, position: usize) -> Result<StatementKind, SqlError> {
    let with = query.with.take();
    match *query.body {
        ast::SetExpr::Insert(ast::Statement::Insert(mut insert)) => {
            let source = insert.source.as_mut().filter(|source| source.with.is_none() || with.is_none());
            match (source, with) {
                (Some(source), Some(with)) => source.with = Some(with),
                (_, None) => {}
                _ => return Err(SqlError::not_supported("WITH before this INSERT is not supported").at(position)),
            }
            Ok(StatementKind::Insert(Box::new(insert)))
        }
        ast::SetExpr::Insert(_) | ast::SetExpr::Update(_) | ast::SetExpr::Delete(_) | ast::SetExpr::Merge(_) => {
            Err(SqlError::not_supported("WITH before UPDATE, DELETE or MERGE is not supported").at(position))
        }
        body => {
            query.with = with;
            query.body = Box::new(body);
            Ok(StatementKind::Query(query))
        }
    }
}

/// The query in a text of our own making.
pub(crate) fn query_of(text: &str) -> Result<StatementKind, SqlError> {
    let mut tokens = tokens(text)?;
    crate::as_of::mark_left(&mut tokens);
    crate::as_of::alias_last(&mut tokens);
    let dialect = TidemillDialect::for_tokens(tokens.len());
    let mut reader = Reader::new(&dialect, text, tokens);
    query(&mut reader, None)
}

/// Reads `TABLE t` at the start of a statement as `SELECT * FROM t`, which DataFusion can plan.
pub(super) fn table_as_select(tokens: &mut Vec<TokenWithSpan>) {
    let Some(first) = tokens.first().filter(|token| is_word(&token.token, "TABLE")) else { return };
    let span = first.span;
    let select = [Token::make_keyword("SELECT"), Token::Mul, Token::make_keyword("FROM")];
    tokens.splice(0..1, select.map(|token| TokenWithSpan::new(token, span)));
}

/// `INSERT`, `UPDATE`, `DELETE`.
pub(super) fn dml(reader: &mut Reader<'_>) -> Result<StatementKind, SqlError> {
    let statement = reader.statement()?;
    reader.expect_end()?;
    match statement {
        ast::Statement::Insert(insert) => Ok(StatementKind::Insert(Box::new(insert))),
        ast::Statement::Delete(delete) => Ok(StatementKind::Delete(Box::new(delete))),
        update @ ast::Statement::Update(_) => Ok(StatementKind::Update(Box::new(update))),
        _ => Err(SqlError::not_supported("this statement is not supported").at(1)),
    }
}

/// `TRUNCATE [TABLE] t, ...`.
pub(super) fn truncate(reader: &mut Reader<'_>) -> Result<StatementKind, SqlError> {
    reader.expect("TRUNCATE")?;
    reader.eat("TABLE");
    reader.eat("ONLY");
    let names = reader.names("a table's name")?;
    let _ = reader.eat("CONTINUE IDENTITY") || reader.eat("RESTART IDENTITY");
    if reader.at("CASCADE") {
        return Err(reader.not_supported("TRUNCATE CASCADE"));
    }
    reader.eat("RESTRICT");
    reader.expect_end()?;
    Ok(StatementKind::Truncate(names))
}

/// `EXPLAIN ...`.
pub(super) fn explain(reader: &mut Reader<'_>, emit: Option<Emit>) -> Result<StatementKind, SqlError> {
    reader.expect("EXPLAIN")?;
    if reader.at("ANALYZE") {
        return Err(reader.not_supported("EXPLAIN ANALYZE").hint("SHOW VIEWS tells what views do."));
    }
    reader.eat("VERBOSE");
    let explained = match reader.peek_keyword().as_deref() {
        Some("CREATE") => create(reader, emit)?,
        Some("INSERT" | "UPDATE" | "DELETE") => dml(reader)?,
        None if !matches!(reader.parser.peek_token_ref().token, Token::Word(_)) => query(reader, emit)?,
        Some("SELECT" | "WITH" | "VALUES") => query(reader, emit)?,
        Some("TABLE") => {
            return Err(reader.not_supported("EXPLAIN TABLE").hint("EXPLAIN t, or EXPLAIN SELECT * FROM t."));
        }
        // A name, quoted or not.
        _ => {
            let _ = reader.eat("MATERIALIZED VIEW") || reader.eat("VIEW");
            let name = reader.name("a query or a view's name")?;
            reader.expect_end()?;
            StatementKind::Subscribe(SubscribeTo { name, as_of: None, snapshot: true })
        }
    };
    match explained {
        StatementKind::CreateRelation(_) => Err(SqlError::not_supported("EXPLAIN of CREATE TABLE is not supported")),
        kind => Ok(StatementKind::Explain(Box::new(kind))),
    }
}

/// The expression in a text of our own making.
pub(crate) fn expression_of(text: &str) -> Result<ast::Expr, SqlError> {
    let tokens = tokens(text)?;
    let dialect = TidemillDialect::for_tokens(tokens.len());
    let mut reader = Reader::new(&dialect, text, tokens);
    let expression = reader.expression()?;
    reader.expect_end()?;
    Ok(expression)
}
