//! Types in column definitions: sqlparser's, and `struct<a int, b text>` / `row(a int, b text)`.

use datafusion::sql::sqlparser::ast::{ArrayElemTypeDef, DataType, Ident, StructBracketKind, StructField};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::reader::Reader;
use crate::{SqlError, state};

/// How deep struct types may nest.
const MAX_DEPTH: usize = 32;

/// A type. Closing angle brackets that belong to an enclosing type (`>>` is one token) are an error
/// here, as there is none.
pub(super) fn data_type(reader: &mut Reader<'_>) -> Result<DataType, SqlError> {
    let (data_type, open) = nested(reader, 0)?;
    if open > 0 { Err(reader.expected("no further \">\"")) } else { Ok(data_type) }
}

/// A type, and how many `>` beyond its own were eaten.
fn nested(reader: &mut Reader<'_>, depth: usize) -> Result<(DataType, usize), SqlError> {
    if depth > MAX_DEPTH {
        let message = format!("struct types may nest {MAX_DEPTH} levels deep");
        return Err(SqlError::new(state::STATEMENT_TOO_COMPLEX, message).at(reader.position()));
    }
    let (mut data_type, surplus) = if reader.at("STRUCT") || reader.at("ROW") {
        structure(reader, depth)?
    } else {
        return plain(reader).map(|data_type| (data_type, 0));
    };
    while surplus == 0 && reader.eat_token(&Token::LBracket) {
        reader.expect_token(&Token::RBracket)?;
        data_type = DataType::Array(ArrayElemTypeDef::SquareBracket(Box::new(data_type), None));
    }
    Ok((data_type, surplus))
}

fn plain(reader: &mut Reader<'_>) -> Result<DataType, SqlError> {
    reader.parser.parse_data_type().map_err(|error| reader.error(error))
}

fn structure(reader: &mut Reader<'_>, depth: usize) -> Result<(DataType, usize), SqlError> {
    reader.parser.advance_token();
    let angle = reader.eat_token(&Token::Lt);
    if !angle && !reader.eat_token(&Token::LParen) {
        return Err(reader.expected("\"<\" or \"(\""));
    }
    let mut fields = Vec::new();
    let mut surplus;
    loop {
        let name = reader.identifier("a field name")?;
        reader.eat_token(&Token::Colon);
        let (field_type, eaten) = nested(reader, depth + 1)?;
        surplus = eaten;
        fields.push(StructField { field_name: Some(Ident::with_quote('"', name)), field_type, options: None });
        if surplus > 0 || !reader.eat_token(&Token::Comma) {
            break;
        }
    }
    let bracket = if angle { StructBracketKind::AngleBrackets } else { StructBracketKind::Parentheses };
    let surplus = if angle { close_angle(reader, surplus)? } else { close_paren(reader, surplus)? };
    Ok((DataType::Struct(fields, bracket), surplus))
}

/// Eats one `>`; the tokenizer makes one token of several.
fn close_angle(reader: &mut Reader<'_>, surplus: usize) -> Result<usize, SqlError> {
    if surplus > 0 {
        return Ok(surplus - 1);
    }
    let eaten = match &reader.parser.peek_token_ref().token {
        Token::Gt => 1,
        Token::ShiftRight => 2,
        Token::CustomBinaryOperator(text) if text.bytes().all(|byte| byte == b'>') => text.len(),
        _ => return Err(reader.expected("\",\" or \">\"")),
    };
    reader.parser.advance_token();
    Ok(eaten - 1)
}

fn close_paren(reader: &mut Reader<'_>, surplus: usize) -> Result<usize, SqlError> {
    if surplus > 0 {
        return Err(reader.expected("no further \">\""));
    }
    reader.expect_token(&Token::RParen)?;
    Ok(0)
}
