//! A JSON value, read and written as PostgreSQL's `jsonb` does.

use std::fmt;

use crate::{SqlError, state};

/// How deep values may nest.
const MAX_DEPTH: usize = 256;

/// A value. Numbers are their text; an object's members are in `jsonb`'s order, each key once.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Number(String),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// A JSON text in its normal form.
pub(crate) fn normal(text: &str) -> Result<String, SqlError> {
    Ok(Json::parse(text)?.to_string())
}

impl Json {
    /// Reads a text.
    pub(super) fn parse(text: &str) -> Result<Json, SqlError> {
        let mut reader = Reader { bytes: text.as_bytes(), text, at: 0 };
        let value = reader.value(0).and_then(|value| {
            reader.space();
            if reader.at == text.len() { Some(value) } else { None }
        });
        value.ok_or_else(|| {
            let shown: String = text.chars().take(200).collect();
            SqlError::new(
                state::INVALID_TEXT_REPRESENTATION,
                format!("invalid input syntax for type json: \"{shown}\""),
            )
        })
    }

    /// An object of members in any order; the last one of a key counts.
    pub(super) fn object(members: Vec<(String, Json)>) -> Json {
        let mut members: Vec<_> = members.into_iter().enumerate().collect();
        members.sort_by(|(i, (a, _)), (j, (b, _))| (a.len(), a, i).cmp(&(b.len(), b, j)));
        let mut kept: Vec<(String, Json)> = Vec::with_capacity(members.len());
        for (_, member) in members {
            match kept.last_mut() {
                Some(last) if last.0 == member.0 => *last = member,
                _ => kept.push(member),
            }
        }
        Json::Object(kept)
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Json::Null => "null",
            Json::Bool(_) => "boolean",
            Json::Number(_) => "number",
            Json::String(_) => "string",
            Json::Array(_) => "array",
            Json::Object(_) => "object",
        }
    }

    /// For messages.
    pub(super) fn article(&self) -> &'static str {
        match self {
            Json::Array(_) => "an array",
            Json::Object(_) => "an object",
            _ => "a scalar",
        }
    }

    /// As `->>` gives it: strings without quotes, null as NULL.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Json::Null => None,
            Json::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    /// The member or element with a name or number.
    pub(super) fn step(&self, step: &str) -> Option<&Json> {
        match self {
            Json::Object(members) => members.iter().find(|(key, _)| key == step).map(|(_, value)| value),
            Json::Array(items) => items.get(place(items.len(), step.parse().ok()?)?),
            _ => None,
        }
    }

    /// The value at a path.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Json> {
        path.iter().try_fold(self, |json, step| json.step(step))
    }

    pub(super) fn without_nulls(self) -> Json {
        match self {
            Json::Object(members) => {
                let members = members.into_iter().filter(|(_, value)| *value != Json::Null);
                Json::Object(members.map(|(key, value)| (key, value.without_nulls())).collect())
            }
            Json::Array(items) => Json::Array(items.into_iter().map(Json::without_nulls).collect()),
            other => other,
        }
    }

    pub(super) fn pretty(&self) -> String {
        let mut out = String::new();
        self.write_pretty(&mut out, 0);
        out
    }

    fn write_pretty(&self, out: &mut String, depth: usize) {
        let line = |out: &mut String, depth: usize| {
            out.push('\n');
            out.push_str(&"    ".repeat(depth));
        };
        let between = |out: &mut String, first: bool| {
            if !first {
                out.push(',');
            }
            line(out, depth + 1);
        };
        match self {
            Json::Array(items) if !items.is_empty() => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    between(out, i == 0);
                    item.write_pretty(out, depth + 1);
                }
                line(out, depth);
                out.push(']');
            }
            Json::Object(members) if !members.is_empty() => {
                out.push('{');
                for (i, (key, value)) in members.iter().enumerate() {
                    between(out, i == 0);
                    out.push_str(&format!("{}: ", Json::String(key.clone())));
                    value.write_pretty(out, depth + 1);
                }
                line(out, depth);
                out.push('}');
            }
            other => out.push_str(&other.to_string()),
        }
    }
}

/// An index, from the end if it is negative.
pub(super) fn place(len: usize, index: i64) -> Option<usize> {
    let from_end = index.unsigned_abs();
    match index < 0 {
        true => len.checked_sub(usize::try_from(from_end).ok()?),
        false => usize::try_from(index).ok().filter(|i| *i < len),
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Json::Null => f.write_str("null"),
            Json::Bool(value) => write!(f, "{value}"),
            Json::Number(text) => f.write_str(text),
            Json::String(text) => write_string(text, f),
            Json::Array(items) => {
                f.write_str("[")?;
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str("]")
            }
            Json::Object(members) => {
                f.write_str("{")?;
                for (i, (key, value)) in members.iter().enumerate() {
                    f.write_str(if i > 0 { ", " } else { "" })?;
                    write_string(key, f)?;
                    write!(f, ": {value}")?;
                }
                f.write_str("}")
            }
        }
    }
}

fn write_string(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            '\u{8}' => f.write_str("\\b")?,
            '\u{c}' => f.write_str("\\f")?,
            c if c < ' ' => write!(f, "\\u{:04x}", u32::from(c))?,
            c => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}

/// Reads one value after the other; `None` where the text is no JSON.
struct Reader<'a> {
    bytes: &'a [u8],
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn space(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        self.space();
        let found = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    fn word(&mut self, word: &str, value: Json) -> Option<Json> {
        self.text.get(self.at..)?.starts_with(word).then(|| {
            self.at += word.len();
            value
        })
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.space();
        match self.bytes.get(self.at)? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string().map(Json::String),
            b't' => self.word("true", Json::Bool(true)),
            b'f' => self.word("false", Json::Bool(false)),
            b'n' => self.word("null", Json::Null),
            _ => self.number(),
        }
    }

    fn object(&mut self, depth: usize) -> Option<Json> {
        self.at += 1;
        let mut members = Vec::new();
        if self.eat(b'}') {
            return Some(Json::Object(members));
        }
        loop {
            self.space();
            let key = self.string()?;
            if !self.eat(b':') {
                return None;
            }
            members.push((key, self.value(depth + 1)?));
            if self.eat(b'}') {
                return Some(Json::object(members));
            }
            if !self.eat(b',') {
                return None;
            }
        }
    }

    fn array(&mut self, depth: usize) -> Option<Json> {
        self.at += 1;
        let mut items = Vec::new();
        if self.eat(b']') {
            return Some(Json::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.eat(b']') {
                return Some(Json::Array(items));
            }
            if !self.eat(b',') {
                return None;
            }
        }
    }

    fn string(&mut self) -> Option<String> {
        if self.bytes.get(self.at) != Some(&b'"') {
            return None;
        }
        self.at += 1;
        let mut out = String::new();
        loop {
            let rest = self.text.get(self.at..)?;
            let end = rest.find(|c: char| c == '"' || c == '\\' || c < ' ')?;
            out.push_str(&rest[..end]);
            self.at += end + 1;
            match rest.as_bytes()[end] {
                b'"' => return Some(out),
                b'\\' => out.push(self.escape()?),
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let escaped = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(match escaped {
            b'"' | b'\\' | b'/' => char::from(escaped),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.hex()?;
                if !(0xd800..0xdc00).contains(&first) {
                    return char::from_u32(first);
                }
                if self.bytes.get(self.at..self.at + 2)? != b"\\u" {
                    return None;
                }
                self.at += 2;
                let second = self.hex()?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
                char::from_u32(0x10000 + ((first - 0xd800) << 10) + second)?
            }
            _ => return None,
        })
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        self.at += 4;
        u32::from_str_radix(digits, 16).ok()
    }

    fn number(&mut self) -> Option<Json> {
        let start = self.at;
        self.at += usize::from(self.bytes.get(self.at) == Some(&b'-'));
        let whole = self.digits();
        let zero = whole > 1 && self.bytes[self.at - whole] == b'0';
        if whole == 0 || zero {
            return None;
        }
        let mut exponent = false;
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return None;
            }
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            exponent = true;
            self.at += 1;
            self.at += usize::from(matches!(self.bytes.get(self.at), Some(b'+' | b'-')));
            if self.digits() == 0 {
                return None;
            }
        }
        let text = &self.text[start..self.at];
        Some(Json::Number(if exponent { written_out(text)? } else { text.to_owned() }))
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        self.at - start
    }
}

/// `1.5e3` as `1500`.
fn written_out(text: &str) -> Option<String> {
    let (mantissa, exponent) = text.split_once(['e', 'E'])?;
    let exponent: i32 = exponent.parse().ok().filter(|e: &i32| e.abs() <= 400)?;
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let point = i32::try_from(whole.len()).ok()? + exponent;
    let length = i32::try_from(digits.len()).ok()?;
    let written = if point <= 0 {
        format!("0.{}{digits}", "0".repeat(point.unsigned_abs() as usize))
    } else if point >= length {
        format!("{digits}{}", "0".repeat((point - length).unsigned_abs() as usize))
    } else {
        let (whole, fraction) = digits.split_at(point.unsigned_abs() as usize);
        format!("{whole}.{fraction}")
    };
    let trimmed = written.trim_start_matches('0');
    let whole = if trimmed.is_empty() || trimmed.starts_with('.') { format!("0{trimmed}") } else { trimmed.to_owned() };
    Some(format!("{sign}{whole}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_a_normal_form() {
        for (text, expected) in [
            (r#" {"bb" : 1,"a":[1, 2.50,{}] , "bb":null}"#, r#"{"a": [1, 2.50, {}], "bb": null}"#),
            (r#""aA\n\u00e9\ud83d\ude00\u0001""#, "\"aA\\né😀\\u0001\""),
            ("1.5e3", "1500"),
            ("-1e-2", "-0.01"),
            ("12E1", "120"),
            ("true", "true"),
        ] {
            assert_eq!(normal(text), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        let deep = "[".repeat(300) + &"]".repeat(300);
        for text in
            ["", "{", "[1,]", "{\"a\"}", "01", "1.", "nul", "\"\\x\"", "\"\u{1}\"", "1 2", "'a'", &deep, "\"\\ud800\""]
        {
            assert!(normal(text).is_err(), "{text}");
        }
    }

    #[test]
    fn steps_lead_into_values() {
        let json = Json::parse(r#"{"a": [1, {"b": "x"}]}"#).expect("JSON");
        assert_eq!(json.at(&["a", "-1", "b"]).and_then(Json::text).as_deref(), Some("x"));
        assert_eq!(json.at(&["a", "2"]), None);
        assert_eq!(place(2, -3), None);
    }
}
