//! `WITH (key = value, ...)` and `FORMAT x ENCODE y (...)`.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::reader::Reader;
use crate::{SqlError, state};

/// Options in the order written; keys in lower case.
pub(super) type Options = Vec<(String, String)>;

/// `WITH (...)`, if it comes next.
pub(super) fn with_options(reader: &mut Reader<'_>) -> Result<Options, SqlError> {
    if !reader.eat("WITH") {
        return Ok(Vec::new());
    }
    let mut options = Vec::new();
    parenthesized(reader, &mut options)?;
    Ok(options)
}

/// `WITH (...)`, then `FORMAT x ENCODE y (...)`; both may be missing.
pub(super) fn connector_options(reader: &mut Reader<'_>) -> Result<Options, SqlError> {
    let mut options = with_options(reader)?;
    for word in ["FORMAT", "ENCODE"] {
        if reader.eat(word) {
            let value =
                reader.value(&format!("the name of a {}", if word == "FORMAT" { "format" } else { "encoding" }))?;
            add(reader, &mut options, word.to_lowercase(), value.to_lowercase())?;
            if reader.at_token(&Token::LParen) {
                parenthesized(reader, &mut options)?;
            }
        }
    }
    Ok(options)
}

fn parenthesized(reader: &mut Reader<'_>, options: &mut Options) -> Result<(), SqlError> {
    reader.expect_token(&Token::LParen)?;
    if reader.eat_token(&Token::RParen) {
        return Ok(());
    }
    loop {
        let key = key(reader)?;
        reader.expect_token(&Token::Eq)?;
        let value = reader.value("a value")?;
        add(reader, options, key, value)?;
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

fn add(reader: &Reader<'_>, options: &mut Options, key: String, value: String) -> Result<(), SqlError> {
    if options.iter().any(|(known, _)| *known == key) {
        return Err(
            SqlError::new(state::SYNTAX_ERROR, format!("option \"{key}\" is given twice")).at(reader.position())
        );
    }
    options.push((key, value));
    Ok(())
}
