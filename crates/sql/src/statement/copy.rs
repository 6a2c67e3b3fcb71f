//! `COPY ... FROM STDIN`, `COPY ... TO STDOUT`, with PostgreSQL's options in both spellings.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::reader::Reader;
use super::session::subscribe;
use super::{CopyFormat, CopyOptions, ObjectName, StatementKind, query_of};
use crate::{SqlError, state};

/// A `COPY` statement.
pub(super) fn copy(reader: &mut Reader<'_>) -> Result<StatementKind, SqlError> {
    reader.expect("COPY")?;
    if reader.eat_token(&Token::LParen) {
        let what = if reader.at("SUBSCRIBE") {
            StatementKind::Subscribe(subscribe(reader)?)
        } else {
            StatementKind::Query(reader.query()?)
        };
        reader.expect_token(&Token::RParen)?;
        return copy_to(reader, what);
    }
    let table = reader.name("a table's name or a query in parentheses")?;
    let columns = if reader.at_token(&Token::LParen) { reader.column_list()? } else { Vec::new() };
    if reader.at("TO") {
        let query = whole_table(&table, &columns)?;
        return copy_to(reader, query);
    }
    if !reader.eat("FROM") {
        return Err(reader.expected("FROM or TO"));
    }
    expect_stream(reader, "STDIN")?;
    let options = options(reader)?;
    reader.expect_end()?;
    Ok(StatementKind::CopyFrom { table, columns, options })
}

fn copy_to(reader: &mut Reader<'_>, what: StatementKind) -> Result<StatementKind, SqlError> {
    reader.expect("TO")?;
    expect_stream(reader, "STDOUT")?;
    let options = options(reader)?;
    reader.expect_end()?;
    Ok(StatementKind::CopyTo { what: Box::new(what), options })
}

fn expect_stream(reader: &mut Reader<'_>, stream: &str) -> Result<(), SqlError> {
    if reader.at("PROGRAM") || matches!(reader.parser.peek_token_ref().token, Token::SingleQuotedString(_)) {
        let error = reader.not_supported("COPY with a file or program of the server");
        return Err(error.hint(format!("Use {stream}, or psql's \\copy.")));
    }
    reader.expect(stream)
}

/// The query that `COPY t (columns) TO` stands for.
fn whole_table(table: &ObjectName, columns: &[String]) -> Result<StatementKind, SqlError> {
    let quoted = |name: &String| format!("\"{}\"", name.replace('"', "\"\""));
    let list = match columns {
        [] => "*".to_owned(),
        _ => columns.iter().map(quoted).collect::<Vec<_>>().join(", "),
    };
    let namespace = table.namespace.as_ref().map(|name| quoted(name) + ".").unwrap_or_default();
    query_of(&format!("SELECT {list} FROM {namespace}{}", quoted(&table.name)))
}

/// What was asked for, before the format's defaults fill it up.
#[derive(Default)]
struct Asked {
    csv: bool,
    delimiter: Option<u8>,
    header: bool,
    null: Option<String>,
}

impl Asked {
    fn finish(self) -> CopyOptions {
        let format = if self.csv { CopyFormat::Csv } else { CopyFormat::Text };
        let delimiter = self.delimiter.unwrap_or(if self.csv { b',' } else { b'\t' });
        let null = self.null.unwrap_or_else(|| if self.csv { String::new() } else { "\\N".to_owned() });
        CopyOptions { format, delimiter, header: self.header, null }
    }
}

fn options(reader: &mut Reader<'_>) -> Result<CopyOptions, SqlError> {
    reader.eat("WITH");
    let mut asked = Asked::default();
    if reader.eat_token(&Token::LParen) {
        loop {
            listed_option(reader, &mut asked)?;
            if !reader.eat_token(&Token::Comma) {
                break;
            }
        }
        reader.expect_token(&Token::RParen)?;
    } else {
        while !reader.at_end() {
            old_option(reader, &mut asked)?;
        }
    }
    Ok(asked.finish())
}

/// `FORMAT csv`, `HEADER true`, ...: the spelling in parentheses.
fn listed_option(reader: &mut Reader<'_>, asked: &mut Asked) -> Result<(), SqlError> {
    let position = reader.position();
    let name = reader.identifier("an option of COPY")?;
    match name.as_str() {
        "format" => match reader.value("a format")?.to_lowercase().as_str() {
            "csv" => asked.csv = true,
            "text" => asked.csv = false,
            other => return Err(unsupported(&format!("COPY format \"{other}\""), position)),
        },
        "header" => asked.header = switch(reader)?,
        "delimiter" => asked.delimiter = Some(delimiter(reader)?),
        "null" => asked.null = Some(reader.string("a text")?),
        "quote" | "escape" => double_quote(reader)?,
        "encoding" => utf8(reader)?,
        _ => return Err(unsupported(&format!("COPY option \"{name}\""), position)),
    }
    Ok(())
}

/// `CSV HEADER DELIMITER AS ','`, ...: the spelling without parentheses.
fn old_option(reader: &mut Reader<'_>, asked: &mut Asked) -> Result<(), SqlError> {
    let position = reader.position();
    if reader.eat("CSV") {
        asked.csv = true;
    } else if reader.eat("HEADER") {
        asked.header = true;
    } else if reader.eat("DELIMITER") || reader.eat("DELIMITERS") {
        reader.eat("AS");
        asked.delimiter = Some(delimiter(reader)?);
    } else if reader.eat("NULL") {
        reader.eat("AS");
        asked.null = Some(reader.string("a text")?);
    } else if reader.eat("QUOTE") || reader.eat("ESCAPE") {
        reader.eat("AS");
        double_quote(reader)?;
    } else if reader.eat("ENCODING") {
        utf8(reader)?;
    } else if reader.at("BINARY") || reader.at("FORCE") || reader.at("FREEZE") || reader.at("WHERE") {
        let word = reader.peek_keyword().unwrap_or_default();
        return Err(unsupported(&format!("COPY with {word}"), position));
    } else {
        return Err(reader.expected("an option of COPY"));
    }
    Ok(())
}

fn unsupported(what: &str, position: usize) -> SqlError {
    SqlError::not_supported(format!("{what} is not supported")).at(position)
}

fn switch(reader: &mut Reader<'_>) -> Result<bool, SqlError> {
    if reader.at_token(&Token::Comma) || reader.at_token(&Token::RParen) {
        return Ok(true);
    }
    let position = reader.position();
    match reader.value("true or false")?.to_lowercase().as_str() {
        "true" | "on" | "1" | "match" => Ok(true),
        "false" | "off" | "0" => Ok(false),
        other => Err(invalid(format!("HEADER is true or false, not \"{other}\""), position)),
    }
}

fn delimiter(reader: &mut Reader<'_>) -> Result<u8, SqlError> {
    let position = reader.position();
    match reader.string("a delimiter in quotes")?.as_bytes() {
        [byte] if byte.is_ascii() && !matches!(byte, b'\n' | b'\r' | b'\\' | b'"') => Ok(*byte),
        _ => Err(invalid("the delimiter of COPY must be a single one-byte character".to_owned(), position)),
    }
}

fn double_quote(reader: &mut Reader<'_>) -> Result<(), SqlError> {
    let position = reader.position();
    match reader.string("a character in quotes")?.as_str() {
        "\"" => Ok(()),
        _ => Err(unsupported("COPY with another quote or escape character than \"", position)),
    }
}

fn utf8(reader: &mut Reader<'_>) -> Result<(), SqlError> {
    let position = reader.position();
    match reader.value("an encoding")?.to_lowercase().as_str() {
        "utf8" | "utf-8" => Ok(()),
        other => Err(unsupported(&format!("COPY in the encoding {other}"), position)),
    }
}

fn invalid(message: String, position: usize) -> SqlError {
    SqlError::new(state::INVALID_PARAMETER_VALUE, message).at(position)
}
