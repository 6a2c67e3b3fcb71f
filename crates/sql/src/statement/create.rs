//! `CREATE VIEW`, `CREATE SINK`, `DROP`.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::options::{connector_options, with_options};
use super::reader::{Reader, is_word};
use super::relation::create_relation;
use super::{CreateSink, CreateView, DropKind, StatementKind};
use crate::{SqlError, state};

/// What follows `CREATE`. `emit` is the `EMIT` clause that was taken out of the statement.
pub(super) fn create(reader: &mut Reader<'_>, emit: Option<Emit>) -> Result<StatementKind, SqlError> {
    let start = reader.position();
    reader.expect("CREATE")?;
    let or_replace = reader.eat("OR REPLACE");
    if ["TEMP", "TEMPORARY", "UNLOGGED", "RECURSIVE", "EXTERNAL", "FOREIGN"].iter().any(|word| reader.at(word)) {
        let word = reader.peek_keyword().unwrap_or_default();
        return Err(reader.not_supported(&format!("CREATE {word}")));
    }
    let on_close = emit.is_some_and(|emit| emit.on_close);
    if reader.eat("MATERIALIZED VIEW") {
        return create_view(reader, true, or_replace, on_close);
    }
    let kind = if reader.eat("VIEW") {
        create_view(reader, false, or_replace, on_close)?
    } else if or_replace {
        return Err(reader.expected("VIEW or MATERIALIZED VIEW"));
    } else if reader.eat("SINK") {
        return create_sink(reader, on_close);
    } else if reader.eat("TABLE") {
        create_relation(reader, false)?
    } else if reader.eat("SOURCE") {
        create_relation(reader, true)?
    } else {
        return Err(unknown(reader, "CREATE", start));
    };
    match emit {
        Some(emit) => Err(emit.misplaced()),
        None => Ok(kind),
    }
}

/// What cannot be created or dropped: known to PostgreSQL, or a slip.
fn unknown(reader: &Reader<'_>, verb: &str, position: usize) -> SqlError {
    const KNOWN: &[&str] = &[
        "INDEX",
        "UNIQUE",
        "SCHEMA",
        "DATABASE",
        "ROLE",
        "USER",
        "FUNCTION",
        "TYPE",
        "SEQUENCE",
        "EXTENSION",
        "TRIGGER",
        "CONNECTION",
        "SECRET",
        "DOMAIN",
        "AGGREGATE",
        "PROCEDURE",
        "OPERATOR",
        "POLICY",
        "SERVER",
        "PUBLICATION",
        "SUBSCRIPTION",
        "RULE",
        "CAST",
        "COLLATION",
        "CONVERSION",
        "LANGUAGE",
        "GROUP",
        "EVENT",
        "STATISTICS",
    ];
    match reader.peek_keyword() {
        Some(word) if KNOWN.contains(&word.as_str()) => {
            SqlError::not_supported(format!("{verb} {word} is not supported")).at(position)
        }
        _ => reader.expected("TABLE, SOURCE, VIEW, MATERIALIZED VIEW or SINK"),
    }
}

fn create_view(
    reader: &mut Reader<'_>,
    materialized: bool,
    or_replace: bool,
    on_close: bool,
) -> Result<StatementKind, SqlError> {
    let if_not_exists = reader.eat("IF NOT EXISTS");
    let name = reader.name("a view's name")?;
    let columns = if reader.at_token(&Token::LParen) { reader.column_list()? } else { Vec::new() };
    let options = with_options(reader)?;
    reader.expect("AS")?;
    let query = reader.query()?;
    if materialized && !reader.eat("WITH DATA") && reader.at("WITH NO DATA") {
        return Err(reader.not_supported("WITH NO DATA"));
    }
    reader.expect_end()?;
    let create = CreateView { name, columns, materialized, query, on_close, if_not_exists, or_replace, options };
    Ok(StatementKind::CreateView(Box::new(create)))
}

fn create_sink(reader: &mut Reader<'_>, on_close: bool) -> Result<StatementKind, SqlError> {
    let if_not_exists = reader.eat("IF NOT EXISTS");
    let name = reader.name("a sink's name")?;
    let (from, query) = if reader.eat("FROM") {
        (Some(reader.name("a view's name")?), None)
    } else if reader.eat("AS") {
        (None, Some(reader.query()?))
    } else {
        return Err(reader.expected("FROM or AS"));
    };
    let options = connector_options(reader)?;
    reader.expect_end()?;
    Ok(StatementKind::CreateSink(Box::new(CreateSink { name, from, query, options, on_close, if_not_exists })))
}

/// What follows `DROP`.
pub(super) fn drop(reader: &mut Reader<'_>) -> Result<StatementKind, SqlError> {
    let start = reader.position();
    reader.expect("DROP")?;
    let kind = if reader.eat("TABLE") {
        DropKind::Table
    } else if reader.eat("SOURCE") {
        DropKind::Source
    } else if reader.eat("MATERIALIZED VIEW") {
        DropKind::MaterializedView
    } else if reader.eat("VIEW") {
        DropKind::View
    } else if reader.eat("SINK") {
        DropKind::Sink
    } else {
        return Err(unknown(reader, "DROP", start));
    };
    let if_exists = reader.eat("IF EXISTS");
    let names = reader.names("a name")?;
    let cascade = reader.eat("CASCADE");
    if !cascade {
        reader.eat("RESTRICT");
    }
    reader.expect_end()?;
    Ok(StatementKind::Drop { kind, names, if_exists, cascade })
}

/// An `EMIT` clause.
#[derive(Clone, Copy, Debug)]
pub(super) struct Emit {
    on_close: bool,
    position: usize,
}

impl Emit {
    /// The error for an `EMIT` where nothing is maintained.
    pub(super) fn misplaced(self) -> SqlError {
        SqlError::new(state::SYNTAX_ERROR, "EMIT belongs to CREATE MATERIALIZED VIEW or CREATE SINK").at(self.position)
    }
}

/// Takes `EMIT ON WINDOW CLOSE` or `EMIT ON UPDATE` out of a statement's tokens.
///
/// It has to go before the query is parsed, which would read `EMIT` as an alias.
pub(super) fn take_emit(
    tokens: &mut Vec<TokenWithSpan>,
    position: impl Fn(&TokenWithSpan) -> usize,
) -> Result<Option<Emit>, SqlError> {
    let at = |i: usize, word: &str| tokens.get(i).is_some_and(|token| is_word(&token.token, word));
    let mut found = None;
    let mut depth = 0i64;
    for (i, token) in tokens.iter().enumerate() {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ if depth == 0 && at(i, "EMIT") && at(i + 1, "ON") => {
                let on_close = at(i + 2, "WINDOW") && at(i + 3, "CLOSE");
                if on_close || at(i + 2, "UPDATE") {
                    let emit = Emit { on_close, position: position(token) };
                    found = Some((i, if on_close { 4 } else { 3 }, emit));
                }
            }
            _ => {}
        }
    }
    let Some((start, length, emit)) = found else { return Ok(None) };
    tokens.drain(start..start + length);
    Ok(Some(emit))
}

/// In `CREATE SINK name AS query WITH (...)` puts the query in parentheses: `WITH (` would otherwise be
/// read as a table's hints.
pub(super) fn fence_sink_query(tokens: &mut Vec<TokenWithSpan>) {
    let is = |i: usize, word: &str| tokens.get(i).is_some_and(|token| is_word(&token.token, word));
    if !(is(0, "CREATE") && is(1, "SINK")) {
        return;
    }
    let Some(query) = (2..tokens.len().min(9)).find(|i| is(*i, "AS")).map(|i| i + 1) else { return };
    let mut depth = 0i64;
    let end = (query..tokens.len()).find(|i| {
        match tokens[*i].token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ => {}
        }
        depth == 0 && is(*i, "WITH") && tokens.get(i + 1).is_some_and(|token| token.token == Token::LParen)
    });
    let Some(end) = end.filter(|end| *end > query) else { return };
    let close = TokenWithSpan::new(Token::RParen, tokens[end].span);
    let open = TokenWithSpan::new(Token::LParen, tokens[query].span);
    tokens.insert(end, close);
    tokens.insert(query, open);
}
