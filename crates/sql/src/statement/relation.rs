//! `CREATE TABLE` and `CREATE SOURCE`.

use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::options::{given_connector, pairs};
use super::reader::Reader;
use super::retention::take_retention;
use super::time_options::take_time_options;
use super::types::data_type;
use super::{ColumnDefinition, CreateRelation, StatementKind};
use crate::{SqlError, state};

/// What follows `CREATE TABLE` or `CREATE SOURCE`.
pub(super) fn create_relation(reader: &mut Reader<'_>, source: bool) -> Result<StatementKind, SqlError> {
    let if_not_exists = reader.eat("IF NOT EXISTS");
    let name = reader.name(if source { "a source's name" } else { "a table's name" })?;
    if reader.at("AS") {
        return Err(reader
            .not_supported("CREATE TABLE AS")
            .hint("Use CREATE MATERIALIZED VIEW, or CREATE TABLE and INSERT."));
    }
    if reader.at("PARTITION OF") || reader.at("OF") {
        return Err(reader.not_supported("this form of CREATE TABLE"));
    }
    let mut body = Body::default();
    body.read(reader)?;
    let mut options = given_connector(reader)?;
    reader.expect_end()?;
    let Body { columns, primary_key, watermark } = body;
    let retention = take_retention(&mut options, source, watermark.is_some())?;
    let time = take_time_options(&mut options, source, watermark.is_some())?;
    let options = pairs(options);
    let create =
        CreateRelation { name, source, columns, primary_key, watermark, time, retention, options, if_not_exists };
    Ok(StatementKind::CreateRelation(Box::new(create)))
}

/// What stands between the parentheses.
#[derive(Default)]
struct Body {
    columns: Vec<ColumnDefinition>,
    primary_key: Vec<String>,
    watermark: Option<(String, ast::Expr)>,
}

impl Body {
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), SqlError> {
        reader.expect_token(&Token::LParen)?;
        if reader.eat_token(&Token::RParen) {
            return Ok(());
        }
        loop {
            self.item(reader)?;
            if !reader.eat_token(&Token::Comma) {
                break;
            }
        }
        if reader.eat_token(&Token::RParen) { Ok(()) } else { Err(reader.expected("\",\" or \")\"")) }
    }

    fn item(&mut self, reader: &mut Reader<'_>) -> Result<(), SqlError> {
        if reader.at("WATERMARK FOR") {
            return self.watermark(reader);
        }
        if reader.eat("CONSTRAINT") {
            reader.identifier("a constraint's name")?;
            if !reader.at("PRIMARY KEY") {
                return Err(
                    reader.not_supported(&format!("a {} constraint", reader.peek_keyword().unwrap_or_default()))
                );
            }
        }
        if reader.at("PRIMARY KEY") {
            let position = reader.position();
            reader.eat("PRIMARY KEY");
            let columns = reader.column_list()?;
            reader.eat("NOT ENFORCED");
            return self.set_primary_key(columns, position);
        }
        for constraint in ["UNIQUE", "CHECK", "FOREIGN KEY", "EXCLUDE", "LIKE"] {
            // A column may have such a name; then a type follows, not a parenthesis or a name.
            let follows = reader.parser.peek_nth_token_ref(1).token == Token::LParen;
            if reader.at(constraint) && (follows || constraint.contains(' ')) {
                return Err(reader.not_supported(&format!("a {constraint} constraint")));
            }
        }
        let column = self.column(reader)?;
        self.columns.push(column);
        Ok(())
    }

    fn watermark(&mut self, reader: &mut Reader<'_>) -> Result<(), SqlError> {
        let position = reader.position();
        reader.expect("WATERMARK FOR")?;
        let column = reader.identifier("a column name")?;
        reader.expect("AS")?;
        let expression = reader.expression()?;
        if self.watermark.is_some() {
            return Err(SqlError::new(state::SYNTAX_ERROR, "there can be only one WATERMARK").at(position));
        }
        self.watermark = Some((column, expression));
        Ok(())
    }

    fn set_primary_key(&mut self, columns: Vec<String>, position: usize) -> Result<(), SqlError> {
        if !self.primary_key.is_empty() {
            return Err(
                SqlError::new(state::INVALID_TABLE_DEFINITION, "there can be only one primary key").at(position)
            );
        }
        self.primary_key = columns;
        Ok(())
    }

    fn column(&mut self, reader: &mut Reader<'_>) -> Result<ColumnDefinition, SqlError> {
        let name = reader.identifier("a column name")?;
        // A generated column may leave its type to the expression.
        let data_type = if reader.at("AS") { ast::DataType::Unspecified } else { data_type(reader)? };
        let mut column = ColumnDefinition { name, data_type, not_null: false, default: None, generated: None };
        while self.column_option(reader, &mut column)? {}
        Ok(column)
    }

    /// Reads one option of a column, if one comes next.
    fn column_option(&mut self, reader: &mut Reader<'_>, column: &mut ColumnDefinition) -> Result<bool, SqlError> {
        let position = reader.position();
        if reader.eat("NOT NULL") {
            column.not_null = true;
        } else if reader.eat("NULL") {
            // What a column is anyway.
        } else if reader.eat("PRIMARY KEY") {
            reader.eat("NOT ENFORCED");
            self.set_primary_key(vec![column.name.clone()], position)?;
        } else if reader.eat("DEFAULT") {
            column.default = Some(reader.expression()?);
        } else if reader.eat("GENERATED ALWAYS AS IDENTITY") || reader.eat("GENERATED BY DEFAULT AS IDENTITY") {
            return Err(SqlError::not_supported("identity columns are not supported").at(position));
        } else if reader.eat("GENERATED ALWAYS AS") || reader.eat("AS") {
            column.generated = Some(reader.expression()?);
            let _ = reader.eat("STORED") || reader.eat("VIRTUAL");
        } else if let Some(word) = reader.peek_keyword().filter(|word| is_constraint(word)) {
            return Err(reader.not_supported(&format!("{word} on a column")));
        } else {
            return Ok(false);
        }
        if column.default.is_some() && column.generated.is_some() {
            let message = format!("column \"{}\" has both a default and a generation expression", column.name);
            return Err(SqlError::new(state::SYNTAX_ERROR, message).at(position));
        }
        Ok(true)
    }
}

fn is_constraint(word: &str) -> bool {
    matches!(word, "UNIQUE" | "CHECK" | "REFERENCES" | "CONSTRAINT" | "COLLATE" | "STORAGE" | "COMPRESSION")
}
