//! `WITH (key = value, ...)` and `FORMAT x ENCODE y (...)`.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::reader::Reader;
use crate::{SqlError, state};

/// Options in the order written; keys in lower case.
pub(super) type Options = Vec<(String, String)>;

/// An option as it is written.
pub(super) struct Given {
    pub(super) key: String,
    pub(super) value: String,
    /// Where its value stands.
    pub(super) position: usize,
}

/// `WITH (...)`, if it comes next.
pub(super) fn with_options(reader: &mut Reader<'_>) -> Result<Options, SqlError> {
    Ok(pairs(given_options(reader)?))
}

/// `WITH (...)`, then `FORMAT x ENCODE y (...)`; both may be missing.
pub(super) fn connector_options(reader: &mut Reader<'_>) -> Result<Options, SqlError> {
    Ok(pairs(given_connector(reader)?))
}

pub(super) fn pairs(given: Vec<Given>) -> Options {
    given.into_iter().map(|option| (option.key, option.value)).collect()
}

fn given_options(reader: &mut Reader<'_>) -> Result<Vec<Given>, SqlError> {
    if !reader.eat("WITH") {
        return Ok(Vec::new());
    }
    let mut options = Vec::new();
    parenthesized(reader, &mut options)?;
    Ok(options)
}

/// Like [`connector_options`], with where each stands.
pub(super) fn given_connector(reader: &mut Reader<'_>) -> Result<Vec<Given>, SqlError> {
    let mut options = given_options(reader)?;
    for word in ["FORMAT", "ENCODE"] {
        if reader.eat(word) {
            let position = reader.position();
            let value =
                reader.value(&format!("the name of a {}", if word == "FORMAT" { "format" } else { "encoding" }))?;
            add(&mut options, Given { key: word.to_lowercase(), value: value.to_lowercase(), position })?;
            if reader.at_token(&Token::LParen) {
                parenthesized(reader, &mut options)?;
            }
        }
    }
    Ok(options)
}

fn parenthesized(reader: &mut Reader<'_>, options: &mut Vec<Given>) -> Result<(), SqlError> {
    reader.expect_token(&Token::LParen)?;
    if reader.eat_token(&Token::RParen) {
        return Ok(());
    }
    loop {
        let key = key(reader)?;
        reader.expect_token(&Token::Eq)?;
        let position = reader.position();
        let value = reader.value("a value")?;
        add(options, Given { key, value, position })?;
        if !reader.eat_token(&Token::Comma) || reader.at_token(&Token::RParen) {
            break;
        }
    }
    if reader.eat_token(&Token::RParen) { Ok(()) } else { Err(reader.expected("\",\" or \")\"")) }
}

/// `name`, `dotted.name`, `'quoted name'` or `"quoted name"`.
fn key(reader: &mut Reader<'_>) -> Result<String, SqlError> {
    if matches!(reader.parser.peek_token_ref().token, Token::SingleQuotedString(_)) {
        return Ok(reader.string("an option's name")?.to_lowercase());
    }
    let mut key = reader.identifier("an option's name")?;
    while reader.eat_token(&Token::Period) {
        key.push('.');
        key.push_str(&reader.identifier("an option's name")?);
    }
    Ok(key.to_lowercase())
}

fn add(options: &mut Vec<Given>, option: Given) -> Result<(), SqlError> {
    if options.iter().any(|known| known.key == option.key) {
        let message = format!("option \"{}\" is given twice", option.key);
        return Err(SqlError::new(state::SYNTAX_ERROR, message).at(option.position));
    }
    options.push(option);
    Ok(())
}
