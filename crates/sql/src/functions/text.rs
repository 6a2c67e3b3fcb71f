//! Text: formats, quoting, regular expressions.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, ListBuilder, StringArray, StringBuilder};
use arrow::datatypes::Int32Type;
use regex::{Regex, RegexBuilder};

use super::Takes::{Any, Int, Text};
use super::{Function, Gives, function, invalid, text_rows, texts};
use crate::assign::value_text;
use crate::{SqlError, state};

pub(super) static FUNCTIONS: &[Function] = &[
    function("format", &[Text, Any], Gives::Text, |args, _| format(args)).required(1).repeats(),
    function("quote_literal", &[Text], Gives::Text, |args, _| {
        text_rows(args, |row| Ok(Some(quoted(texts(&args[0]).value(row)))))
    }),
    function("quote_nullable", &[Text], Gives::Text, |args, _| {
        let text = |value: Option<&str>| Some(value.map_or_else(|| "NULL".to_owned(), quoted));
        Ok(Arc::new(texts(&args[0]).iter().map(text).collect::<StringArray>()))
    }),
    function("regexp_matches", &[Text, Text, Text], Gives::Texts, |args, _| matches(args)).required(2),
    function("regexp_split_to_array", &[Text, Text, Text], Gives::Texts, |args, _| split(args)).required(2),
    function("regexp_substr", &[Text, Text], Gives::Text, |args, _| substring(args, false)),
    function("substr", &[Text, Text], Gives::Text, |args, _| substring(args, true)),
    function("substring_of_pattern", &[Text, Text], Gives::Text, |args, _| substring(args, true)),
    function("similar_to", &[Text, Text], Gives::Bool, |args, _| similar(args)),
    function("unistr", &[Text], Gives::Text, |args, _| {
        text_rows(args, |row| unescaped(texts(&args[0]).value(row)).map(Some))
    }),
    function("normalize", &[Text], Gives::Text, |args, _| Ok(args[0].clone())),
    function("limit_text", &[Text, Int], Gives::Text, |args, _| {
        let limits = args[1].as_primitive::<Int32Type>();
        text_rows(args, |row| Ok(Some(first(texts(&args[0]).value(row), limits.value(row)).to_owned())))
    }),
];

/// The first characters of a text.
fn first(text: &str, characters: i32) -> &str {
    let characters = usize::try_from(characters).unwrap_or(0);
    text.char_indices().nth(characters).map_or(text, |(end, _)| &text[..end])
}

fn quoted(text: &str) -> String {
    let escape = if text.contains('\\') { "E" } else { "" };
    format!("{escape}'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

fn identifier(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { text.to_owned() } else { format!("\"{}\"", text.replace('"', "\"\"")) }
}

/// `format('%s of %I', a, b)`.
fn format(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    let formats = texts(&args[0]);
    let row = |row: usize| match formats.is_valid(row) {
        true => formatted(formats.value(row), &args[1..], row).map(Some),
        false => Ok(None),
    };
    Ok(Arc::new((0..formats.len()).map(row).collect::<Result<StringArray, SqlError>>()?))
}

fn formatted(format: &str, args: &[ArrayRef], row: usize) -> Result<String, SqlError> {
    let (mut out, mut next) = (String::new(), 0);
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let mut digits = String::new();
        let minus = chars.next_if_eq(&'-').is_some();
        while let Some(digit) = chars.next_if(char::is_ascii_digit) {
            digits.push(digit);
        }
        let mut left = minus;
        if chars.next_if_eq(&'$').is_some() {
            let place: usize = digits.parse().map_err(|_| invalid("format specifies argument 0"))?;
            next = place.checked_sub(1).ok_or_else(|| invalid("format specifies argument 0"))?;
            digits.clear();
            left = chars.next_if_eq(&'-').is_some();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
        }
        let kind = chars.next().ok_or_else(|| invalid("unterminated format() type specifier"))?;
        let arg = args.get(next).ok_or_else(|| invalid("too few arguments for format()"))?;
        next += 1;
        let value = value_text(arg, row)?;
        let text = match (kind, value) {
            ('s', value) => value.unwrap_or_default(),
            ('I', Some(value)) => identifier(&value),
            ('I', None) => return Err(invalid("null values cannot be formatted as an SQL identifier")),
            ('L', value) => value.map_or_else(|| "NULL".to_owned(), |v| quoted(&v)),
            (other, _) => return Err(invalid(format!("unrecognized format() type specifier \"{other}\""))),
        };
        let width: usize = digits.parse().unwrap_or(0);
        if width > 10_000 {
            return Err(invalid(format!("the width {width} in format() is too large")));
        }
        let pad = " ".repeat(width.saturating_sub(text.chars().count()));
        out.push_str(&if left { text + &pad } else { pad + &text });
    }
    Ok(out)
}

/// A regular expression with PostgreSQL's flags.
pub(crate) fn expression(pattern: &str, flags: &str) -> Result<Regex, SqlError> {
    let mut builder = RegexBuilder::new(pattern);
    builder.dot_matches_new_line(true).size_limit(10 << 20);
    for flag in flags.chars() {
        match flag {
            'g' | 'c' => {}
            'i' => _ = builder.case_insensitive(true),
            'n' | 'm' => _ = builder.multi_line(true).dot_matches_new_line(false),
            's' => _ = builder.dot_matches_new_line(true),
            'x' => _ = builder.ignore_whitespace(true),
            other => return Err(invalid(format!("invalid regular expression option: \"{other}\""))),
        }
    }
    let invalid = |error: regex::Error| {
        let message = error.to_string();
        let reason = message.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        SqlError::new("2201B", format!("invalid regular expression: {reason}"))
    };
    builder.build().map_err(invalid)
}

/// Compiles each pattern once for neighbouring rows that share it.
struct Compiled {
    last: Option<(String, String, Regex)>,
}

impl Compiled {
    fn get(&mut self, pattern: &str, flags: &str) -> Result<&Regex, SqlError> {
        let known = self.last.as_ref().is_some_and(|(p, f, _)| p == pattern && f == flags);
        if !known {
            self.last = Some((pattern.to_owned(), flags.to_owned(), expression(pattern, flags)?));
        }
        match &self.last {
            Some((_, _, regex)) => Ok(regex),
            None => Err(SqlError::internal("no regular expression")),
        }
    }
}

fn flags_of(args: &[ArrayRef], row: usize) -> &str {
    args.get(2).map_or("", |flags| texts(flags).value(row))
}

fn lists(
    args: &[ArrayRef],
    mut each: impl FnMut(usize, &mut ListBuilder<StringBuilder>) -> Result<bool, SqlError>,
) -> Result<ArrayRef, SqlError> {
    let mut builder = ListBuilder::new(StringBuilder::new());
    for row in 0..args[0].len() {
        let valid = args.iter().all(|array| array.is_valid(row)) && each(row, &mut builder)?;
        builder.append(valid);
    }
    let list: ListArray = builder.finish();
    Ok(Arc::new(list))
}

/// The first match: its groups, or all of it if there are none.
fn matches(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    let mut compiled = Compiled { last: None };
    lists(args, |row, out| {
        let regex = compiled.get(texts(&args[1]).value(row), flags_of(args, row))?;
        let Some(found) = regex.captures(texts(&args[0]).value(row)) else { return Ok(false) };
        let from = usize::from(found.len() > 1);
        for group in from..found.len() {
            out.values().append_option(found.get(group).map(|m| m.as_str()));
        }
        Ok(true)
    })
}

fn split(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    let mut compiled = Compiled { last: None };
    lists(args, |row, out| {
        let regex = compiled.get(texts(&args[1]).value(row), flags_of(args, row))?;
        regex.split(texts(&args[0]).value(row)).for_each(|part| out.values().append_value(part));
        Ok(true)
    })
}

/// The first match; for `substring(text from pattern)` its first group, if there is one.
fn substring(args: &[ArrayRef], group: bool) -> Result<ArrayRef, SqlError> {
    let compiled = std::cell::RefCell::new(Compiled { last: None });
    text_rows(args, |row| {
        let mut compiled = compiled.borrow_mut();
        let regex = compiled.get(texts(&args[1]).value(row), "")?;
        let found = regex.captures(texts(&args[0]).value(row));
        Ok(found.and_then(|found| found.get(usize::from(group && found.len() > 1)).map(|m| m.as_str().to_owned())))
    })
}

fn similar(args: &[ArrayRef]) -> Result<ArrayRef, SqlError> {
    let mut compiled = Compiled { last: None };
    let mut row = |row: usize| -> Result<Option<bool>, SqlError> {
        if args.iter().any(|array| array.is_null(row)) {
            return Ok(None);
        }
        let regex = compiled.get(&similar_pattern(texts(&args[1]).value(row)), "")?;
        Ok(Some(regex.is_match(texts(&args[0]).value(row))))
    };
    let values = (0..args[0].len()).map(&mut row).collect::<Result<BooleanArray, SqlError>>()?;
    Ok(Arc::new(values))
}

/// A pattern of `SIMILAR TO` as a regular expression.
fn similar_pattern(pattern: &str) -> String {
    let mut out = String::from("^(?:");
    let (mut chars, mut in_class) = (pattern.chars(), false);
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                let escaped = chars.next().map(|c| regex::escape(&c.to_string()));
                out.push_str(&escaped.unwrap_or_default());
            }
            '[' | ']' => {
                in_class = c == '[';
                out.push(c);
            }
            c if in_class => out.push(c),
            '%' => out.push_str(".*"),
            '_' => out.push('.'),
            '.' | '^' | '$' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out + ")$"
}

/// `\0061` and `\+000061` as characters.
fn unescaped(text: &str) -> Result<String, SqlError> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('\\') {
            out.push('\\');
            rest = after;
            continue;
        }
        let (digits, skip) = match after.as_bytes().first() {
            Some(b'+') => (after.get(1..7), 7),
            Some(b'u') => (after.get(1..5), 5),
            Some(b'U') => (after.get(1..9), 9),
            _ => (after.get(..4), 4),
        };
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let character = code.and_then(char::from_u32);
        out.push(character.ok_or_else(|| SqlError::new(state::SYNTAX_ERROR, "invalid Unicode escape"))?);
        rest = &after[skip..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;

    use super::*;

    fn one(text: &str) -> ArrayRef {
        Arc::new(StringArray::from(vec![text]))
    }

    fn call(name: &str, args: &[&str]) -> Result<String, SqlError> {
        let args: Vec<_> = args.iter().map(|arg| one(arg)).collect();
        let function = FUNCTIONS.iter().find(|f| f.name == name).expect("a function");
        let value = (function.body)(&args, &DataType::Utf8)?;
        Ok(value_text(&value, 0)?.unwrap_or_else(|| "NULL".into()))
    }

    #[test]
    fn formats() {
        assert_eq!(call("format", &["%s-%I-%L", "a", "b c", "d'e"]), Ok("a-\"b c\"-'d''e'".into()));
        assert_eq!(call("format", &["%5s|%-5s|%%", "a", "b"]), Ok("    a|b    |%".into()));
        assert_eq!(call("format", &["%2$s %1$s", "a", "b"]), Ok("b a".into()));
        assert!(call("format", &["%s"]).is_err());
    }

    #[test]
    fn patterns() {
        assert_eq!(call("similar_to", &["abc", "%(b|d)%"]), Ok("true".into()));
        assert_eq!(call("similar_to", &["abc", "b%"]), Ok("false".into()));
        assert_eq!(call("substring_of_pattern", &["foobar", "o(.)b"]), Ok("o".into()));
        assert_eq!(call("regexp_substr", &["foobar", "z"]), Ok("NULL".into()));
        assert_eq!(call("regexp_substr", &["foobar", "("]).expect_err("bad").code, "2201B");
    }
}
