//! One statement's tokens, with the few steps that the hand-written parsers are made of.

use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer, TokenizerError, Word};

use super::ObjectName;
use super::balance::balance;
use super::dialect::TidemillDialect;
use crate::{SqlError, state};

/// How deep expressions and queries may nest.
const MAX_NESTING: usize = 50;

/// The tokens of a statement; white space and comments are left out.
pub(super) fn tokens(text: &str) -> Result<Vec<TokenWithSpan>, SqlError> {
    let mut tokens = Tokenizer::new(&TidemillDialect::for_tokens(0), text)
        .tokenize_with_location()
        .map_err(|error| bad_token(text, &error))?;
    tokens.retain(|token| !matches!(token.token, Token::Whitespace(_)));
    Ok(tokens)
}

/// Reads a statement from its tokens.
pub(super) struct Reader<'a> {
    /// sqlparser's parser, for expressions, queries and whatever else it knows.
    pub(super) parser: Parser<'a>,
    text: &'a str,
    /// How many characters stand before each line.
    lines: Vec<usize>,
}

impl<'a> Reader<'a> {
    /// `dialect` has to be fresh.
    pub(super) fn new(dialect: &'a TidemillDialect, text: &'a str, tokens: Vec<TokenWithSpan>) -> Self {
        let parser = Parser::new(dialect).with_recursion_limit(MAX_NESTING).with_tokens_with_locations(tokens);
        Reader { parser, text, lines: line_starts(text) }
    }

    /// Whether these words (separated by spaces, upper case) come next.
    pub(super) fn at(&self, words: &str) -> bool {
        words.split(' ').enumerate().all(|(n, word)| is_word(&self.parser.peek_nth_token_ref(n).token, word))
    }

    /// Whether this token comes next.
    pub(super) fn at_token(&self, token: &Token) -> bool {
        self.parser.peek_token_ref().token == *token
    }

    pub(super) fn at_end(&self) -> bool {
        self.at_token(&Token::EOF)
    }

    /// Goes beyond these words if they come next.
    pub(super) fn eat(&mut self, words: &str) -> bool {
        let found = self.at(words);
        if found {
            for _ in words.split(' ') {
                self.parser.advance_token();
            }
        }
        found
    }

    pub(super) fn eat_token(&mut self, token: &Token) -> bool {
        self.parser.consume_token(token)
    }

    pub(super) fn expect(&mut self, words: &str) -> Result<(), SqlError> {
        if self.eat(words) { Ok(()) } else { Err(self.expected(words)) }
    }

    pub(super) fn expect_token(&mut self, token: &Token) -> Result<(), SqlError> {
        if self.eat_token(token) { Ok(()) } else { Err(self.expected(&format!("\"{token}\""))) }
    }

    pub(super) fn expect_end(&self) -> Result<(), SqlError> {
        if self.at_end() { Ok(()) } else { Err(self.expected("the end of the statement")) }
    }

    /// The error that something else should come next.
    pub(super) fn expected(&self, what: &str) -> SqlError {
        let next = self.parser.peek_token_ref();
        unexpected(self.text, &next.token, next.span.start, what)
    }

    /// The error that what comes next is not done here.
    pub(super) fn not_supported(&self, what: &str) -> SqlError {
        SqlError::not_supported(format!("{what} is not supported")).at(self.position())
    }

    /// Where the next token stands, in characters from 1.
    pub(super) fn position(&self) -> usize {
        let location = self.parser.peek_token_ref().span.start;
        let before = usize::try_from(location.line).ok().and_then(|line| self.lines.get(line.checked_sub(1)?));
        match (before, usize::try_from(location.column)) {
            (Some(before), Ok(column)) => before + column.max(1),
            _ => position(self.text, location),
        }
    }

    /// The next word, if it is one and not quoted, in upper case.
    pub(super) fn peek_keyword(&self) -> Option<String> {
        match &self.parser.peek_token_ref().token {
            Token::Word(Word { value, quote_style: None, .. }) => Some(value.to_ascii_uppercase()),
            _ => None,
        }
    }

    /// A name without a namespace, folded.
    pub(super) fn identifier(&mut self, what: &str) -> Result<String, SqlError> {
        match &self.parser.peek_token_ref().token {
            Token::Word(word) => {
                let name = folded(word);
                self.parser.advance_token();
                Ok(name)
            }
            _ => Err(self.expected(what)),
        }
    }

    /// A possibly qualified name.
    pub(super) fn name(&mut self, what: &str) -> Result<ObjectName, SqlError> {
        let position = self.position();
        let first = self.identifier(what)?;
        if !self.eat_token(&Token::Period) {
            return Ok(ObjectName { namespace: None, name: first, position: Some(position) });
        }
        let second = self.identifier(what)?;
        if self.at_token(&Token::Period) {
            return Err(SqlError::not_supported("names with more than two parts are not supported").at(position));
        }
        Ok(ObjectName { namespace: Some(first), name: second, position: Some(position) })
    }

    /// Names separated by commas.
    pub(super) fn names(&mut self, what: &str) -> Result<Vec<ObjectName>, SqlError> {
        self.separated(|reader| reader.name(what))
    }

    /// One or more, separated by commas.
    pub(super) fn separated<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, SqlError>,
    ) -> Result<Vec<T>, SqlError> {
        let mut items = vec![item(self)?];
        while self.eat_token(&Token::Comma) {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// `(a, b, ...)`, names only.
    pub(super) fn column_list(&mut self) -> Result<Vec<String>, SqlError> {
        self.expect_token(&Token::LParen)?;
        let columns = self.separated(|reader| reader.identifier("a column name"))?;
        self.expect_token(&Token::RParen)?;
        Ok(columns)
    }

    /// A text in single quotes.
    pub(super) fn string(&mut self, what: &str) -> Result<String, SqlError> {
        let text = match &self.parser.peek_token_ref().token {
            Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) => text.clone(),
            Token::DollarQuotedString(quoted) => quoted.value.clone(),
            _ => return Err(self.expected(what)),
        };
        self.parser.advance_token();
        Ok(text)
    }

    /// An integer that is not negative.
    pub(super) fn unsigned(&mut self, what: &str) -> Result<u64, SqlError> {
        let parsed = match &self.parser.peek_token_ref().token {
            Token::Number(digits, _) => digits.replace('_', "").parse().ok(),
            _ => None,
        };
        let number = parsed.ok_or_else(|| self.expected(what))?;
        self.parser.advance_token();
        Ok(number)
    }

    /// A literal or word as text: what an option or parameter is set to.
    pub(super) fn value(&mut self, what: &str) -> Result<String, SqlError> {
        let sign = if self.eat_token(&Token::Minus) { "-" } else { "" };
        self.eat_token(&Token::Plus);
        let text = match &self.parser.peek_token_ref().token {
            Token::Number(digits, _) => format!("{sign}{digits}"),
            Token::Word(word) if sign.is_empty() => word.value.clone(),
            _ if sign.is_empty() => return self.string(what),
            _ => return Err(self.expected("a number")),
        };
        self.parser.advance_token();
        Ok(text)
    }

    pub(super) fn expression(&mut self) -> Result<ast::Expr, SqlError> {
        self.parser.parse_expr().map(balance).map_err(|error| self.error(error))
    }

    pub(super) fn query(&mut self) -> Result<Box<ast::Query>, SqlError> {
        self.parser.parse_query().map(balance).map_err(|error| self.error(error))
    }

    pub(super) fn statement(&mut self) -> Result<ast::Statement, SqlError> {
        self.parser.parse_statement().map(balance).map_err(|error| self.error(error))
    }

    /// sqlparser's error in our words.
    pub(super) fn error(&self, error: ParserError) -> SqlError {
        parser_error(self.text, error)
    }
}

/// Whether the token is this word, unquoted.
pub(crate) fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(Word { value, quote_style: None, .. }) if value.eq_ignore_ascii_case(word))
}

/// A word as a name: lower case unless quoted.
fn folded(word: &Word) -> String {
    if word.quote_style.is_some() { word.value.clone() } else { word.value.to_lowercase() }
}

/// A name's part: lower case unless quoted.
pub(crate) fn fold(ident: &ast::Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

fn line_starts(text: &str) -> Vec<usize> {
    let mut count = 0;
    let lines = text.split_inclusive('\n').map(|line| {
        let start = count;
        count += line.chars().count();
        start
    });
    lines.collect()
}

/// A place given by line and column, in characters from 1; the end for places that are not in the text.
pub(crate) fn position(text: &str, location: Location) -> usize {
    let (mut line, mut column) = (1, 1);
    let mut count = 1;
    for ch in text.chars() {
        if line == location.line && column >= location.column {
            return count;
        }
        if ch == '\n' {
            (line, column) = (line + 1, 1);
        } else {
            column += 1;
        }
        count += 1;
    }
    count
}

fn unexpected(text: &str, found: &Token, location: Location, expected: &str) -> SqlError {
    let near = if *found == Token::EOF { None } else { Some(found.to_string()) };
    syntax_error(near.as_deref(), expected, position(text, location))
}

fn syntax_error(near: Option<&str>, expected: &str, position: usize) -> SqlError {
    let message = match near {
        Some(token) => format!("syntax error at or near \"{}\": expected {expected}", shortened(token)),
        None => format!("syntax error at the end of the statement: expected {expected}"),
    };
    SqlError::new(state::SYNTAX_ERROR, message).at(position)
}

/// A token that is short enough for a message.
fn shortened(token: &str) -> String {
    const LONGEST: usize = 60;
    if token.chars().count() <= LONGEST {
        return token.to_owned();
    }
    token.chars().take(LONGEST).chain("...".chars()).collect()
}

fn bad_token(text: &str, error: &TokenizerError) -> SqlError {
    let mut chars = error.message.chars();
    let message: String = chars.next().into_iter().flat_map(char::to_lowercase).chain(chars).collect();
    SqlError::new(state::SYNTAX_ERROR, format!("syntax error: {message}")).at(position(text, error.location))
}

fn parser_error(text: &str, error: ParserError) -> SqlError {
    let message = match error {
        ParserError::RecursionLimitExceeded => {
            return SqlError::new(state::STATEMENT_TOO_COMPLEX, "the statement nests too deeply")
                .detail(format!("expressions and queries may nest {MAX_NESTING} levels deep"));
        }
        ParserError::ParserError(message) | ParserError::TokenizerError(message) => message,
    };
    let (message, location) = split_location(&message);
    let place = location.map_or_else(|| text.chars().count() + 1, |location| position(text, location));
    match message.strip_prefix("Expected: ").and_then(|rest| rest.split_once(", found: ")) {
        Some((expected, "EOF")) => syntax_error(None, readable(expected), place),
        Some((expected, found)) => syntax_error(Some(found), readable(expected), place),
        None => SqlError::new(state::SYNTAX_ERROR, format!("syntax error: {message}")).at(place),
    }
}

/// sqlparser's names of what it wants, in words.
fn readable(expected: &str) -> &str {
    match expected {
        "identifier" => "a name",
        "end of statement" => "the end of the statement",
        "joined table" => "a table",
        "an SQL statement" => "a statement",
        "a data type name" => "a type",
        other => other.trim_end_matches(':'),
    }
}

/// Takes ` at Line: 1, Column: 2` off the end.
fn split_location(message: &str) -> (&str, Option<Location>) {
    let Some((head, tail)) = message.rsplit_once(" at Line: ") else { return (message, None) };
    let Some((line, column)) = tail.split_once(", Column: ") else { return (message, None) };
    match (line.parse(), column.trim().parse()) {
        (Ok(line), Ok(column)) => (head, Some(Location { line, column })),
        _ => (message, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters() {
        let at = |line, column| position("aä\nb c", Location { line, column });
        assert_eq!([at(1, 1), at(1, 2), at(2, 1), at(2, 3), at(0, 0)], [1, 2, 4, 6, 7]);
    }

    #[test]
    fn locations_come_off_the_message() {
        assert_eq!(split_location("x at Line: 2, Column: 31"), ("x", Some(Location { line: 2, column: 31 })));
        assert_eq!(split_location("x at Line: oops"), ("x at Line: oops", None));
    }
}
