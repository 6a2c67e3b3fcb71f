//! Where JSON values end: skipping what nobody wants, without decoding it.

use memchr::memchr;

use crate::column::{Fault, Step};

/// How deep unwanted arrays and objects may nest.
const MAX_DEPTH: u32 = 128;

/// The first place at or after `at` that is not white space.
#[inline]
pub(crate) fn spaces(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = bytes.get(at) {
        at += 1;
    }
    at
}

/// The place of the quote that ends the string whose content begins at `at`.
#[inline]
pub(crate) fn string_end(bytes: &[u8], at: usize) -> Step<usize> {
    let mut from = at;
    loop {
        let rest = bytes.get(from..).unwrap_or(&[]);
        let Some(found) = memchr(b'"', rest) else {
            return Err(Fault::new("a string does not end"));
        };
        let end = from + found;
        if end == at || bytes[end - 1] != b'\\' || !escaped(&bytes[at..end]) {
            return Ok(end);
        }
        from = end + 1;
    }
}

/// Whether an odd number of backslashes ends the text, so that the quote after it belongs to it.
#[cold]
fn escaped(text: &[u8]) -> bool {
    text.iter().rev().take_while(|b| **b == b'\\').count() % 2 == 1
}

/// The end of the number at `at`; the text has the characters of a number, in the right order but
/// for the details that a number's parser finds.
#[inline]
pub(crate) fn number_end(bytes: &[u8], at: usize) -> Step<usize> {
    let mut end = at + usize::from(bytes.get(at) == Some(&b'-'));
    if !bytes.get(end).is_some_and(u8::is_ascii_digit) {
        return Err(Fault::new("not a JSON value"));
    }
    while let Some(b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-') = bytes.get(end) {
        end += 1;
    }
    Ok(end)
}

/// The end of `true`, `false` or `null` at `at`.
#[inline]
pub(crate) fn word_end(bytes: &[u8], at: usize) -> Step<usize> {
    let rest = &bytes[at..];
    if rest.starts_with(b"null") || rest.starts_with(b"true") {
        Ok(at + 4)
    } else if rest.starts_with(b"false") {
        Ok(at + 5)
    } else {
        Err(Fault::new("not a JSON value"))
    }
}

/// The end of the value that begins at `at`, which is not white space.
#[inline]
pub(crate) fn skip(bytes: &[u8], at: usize) -> Step<usize> {
    match bytes.get(at) {
        Some(b'"') => Ok(string_end(bytes, at + 1)? + 1),
        Some(b'n' | b't' | b'f') => word_end(bytes, at),
        Some(b'{' | b'[') => container(bytes, at, false),
        _ => number_end(bytes, at),
    }
}

/// As [`skip`], but refuses everything that is not JSON: for text that is kept as it is.
pub(crate) fn check(bytes: &[u8], at: usize) -> Step<usize> {
    match bytes.get(at) {
        Some(b'"') => strict_string(bytes, at),
        Some(b'{' | b'[') => container(bytes, at, true),
        Some(b'n' | b't' | b'f') => word_end(bytes, at),
        _ => strict_number(bytes, at),
    }
}

fn strict_string(bytes: &[u8], at: usize) -> Step<usize> {
    let end = string_end(bytes, at + 1)?;
    let text = &bytes[at + 1..end];
    if text.iter().any(|b| *b < 0x20) {
        return Err(Fault::new("a control character in a string"));
    }
    if memchr(b'\\', text).is_some() {
        super::string::unescape(text, &mut Vec::with_capacity(text.len()))?;
    }
    Ok(end + 1)
}

fn strict_number(bytes: &[u8], at: usize) -> Step<usize> {
    let end = number_end(bytes, at)?;
    let text = &bytes[at..end];
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let leading_zero = digits.len() > 1 && digits[0] == b'0' && digits[1].is_ascii_digit();
    let point = digits.iter().position(|b| *b == b'.');
    let bare_point = point.is_some_and(|p| !digits.get(p + 1).is_some_and(u8::is_ascii_digit));
    // A number so large that nothing can hold it is still a number.
    let shaped = crate::parse::float64(text).is_some();
    if leading_zero || bare_point || !shaped { Err(Fault::new("not a JSON number")) } else { Ok(end) }
}

/// Skips an array or object without recursion: the kinds of the open brackets are bits.
fn container(bytes: &[u8], mut at: usize, strict: bool) -> Step<usize> {
    let mut kinds = 0u128;
    let mut depth = 0;
    let scalar = |at| if strict { check(bytes, at) } else { skip(bytes, at) };
    loop {
        // Here a value begins at `at`.
        match bytes.get(at) {
            Some(open @ (b'{' | b'[')) => {
                if depth == MAX_DEPTH {
                    return Err(Fault::new("nested too deeply"));
                }
                depth += 1;
                let object = *open == b'{';
                kinds = kinds << 1 | u128::from(object);
                at = spaces(bytes, at + 1);
                if bytes.get(at) != Some(if object { &b'}' } else { &b']' }) {
                    if object {
                        at = member_value(bytes, at, strict)?;
                    }
                    continue;
                }
            }
            _ => at = scalar(at)?,
        }
        // Here a value, or an empty container's inside, has ended.
        loop {
            at = spaces(bytes, at);
            let object = kinds & 1 == 1;
            match bytes.get(at) {
                Some(b',') => {
                    at = spaces(bytes, at + 1);
                    if object {
                        at = member_value(bytes, at, strict)?;
                    }
                    break;
                }
                Some(close) if *close == if object { b'}' } else { b']' } => {
                    at += 1;
                    kinds >>= 1;
                    depth -= 1;
                    if depth == 0 {
                        return Ok(at);
                    }
                }
                _ => return Err(Fault::new("an array or object does not end")),
            }
        }
    }
}

/// From a member's name to where its value begins.
fn member_value(bytes: &[u8], at: usize, strict: bool) -> Step<usize> {
    if bytes.get(at) != Some(&b'"') {
        return Err(Fault::new("a member without a name"));
    }
    let end = if strict { strict_string(bytes, at)? } else { string_end(bytes, at + 1)? + 1 };
    let colon = spaces(bytes, end);
    if bytes.get(colon) != Some(&b':') {
        return Err(Fault::new("a member without a colon"));
    }
    Ok(spaces(bytes, colon + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_end_where_they_end() {
        for text in [
            "1",
            "-1.5e+3",
            "\"\"",
            "\"a\\\"b\"",
            "\"\\\\\"",
            "null",
            "true",
            "false",
            "[]",
            "{}",
            "[[],{}]",
            "{\"a\": [1, {\"b\": \"}\"}], \"c\": null}",
            " [ 1 , 2 ] ",
        ] {
            let start = spaces(text.as_bytes(), 0);
            let padded = format!("{text},");
            let end = text.trim_end().len();
            assert_eq!(skip(padded.as_bytes(), start).ok(), Some(end), "{text}");
            assert_eq!(check(padded.as_bytes(), start).ok(), Some(end), "{text}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for text in
            ["", "nul", "\"a", "\"\\\"", "[1", "{\"a\" 1}", "{\"a\":}", "[1}", "{a:1}", "[1,]", "+1", "[,1]", "{,}"]
        {
            assert!(skip(text.as_bytes(), 0).is_err(), "{text}");
            assert!(check(text.as_bytes(), 0).is_err(), "{text}");
        }
        for text in ["\"\\q\"", "01", "1.", "1e", "\"\\ud800\"", "[\"\u{1}\"]"] {
            assert!(check(text.as_bytes(), 0).is_err(), "{text}");
        }
        let deep = "[".repeat(200_000);
        assert!(skip(deep.as_bytes(), 0).is_err());
        let deep = format!("{}{}", "[".repeat(128), "]".repeat(128));
        assert_eq!(skip(deep.as_bytes(), 0).ok(), Some(256));
    }
}
