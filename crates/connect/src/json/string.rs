//! Escapes in JSON strings.

use memchr::memchr;

use crate::column::{Fault, Step};

/// Appends the text that a string's content stands for.
pub(crate) fn unescape(content: &[u8], out: &mut Vec<u8>) -> Step<()> {
    let mut rest = content;
    while let Some(found) = memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..found]);
        let simple = match rest.get(found + 1) {
            Some(b'"') => b'"',
            Some(b'\\') => b'\\',
            Some(b'/') => b'/',
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                let (c, length) = unicode(&rest[found..])?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                rest = &rest[found + length..];
                continue;
            }
            _ => return Err(Fault::new("an unknown escape in a string")),
        };
        out.push(simple);
        rest = &rest[found + 2..];
    }
    out.extend_from_slice(rest);
    Ok(())
}

/// The character of `\uXXXX` or of a surrogate pair of two of them, and the length of the escape.
fn unicode(text: &[u8]) -> Step<(char, usize)> {
    let fault = || Fault::new("a broken \\u escape in a string");
    let first = unit(text).ok_or_else(fault)?;
    if !(0xD800..0xE000).contains(&first) {
        return Ok((char::from_u32(first).ok_or_else(fault)?, 6));
    }
    let second = unit(&text[6..]).filter(|u| (0xDC00..0xE000).contains(u)).ok_or_else(fault)?;
    if first >= 0xDC00 {
        return Err(fault());
    }
    let code = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
    Ok((char::from_u32(code).ok_or_else(fault)?, 12))
}

/// The number of `\uXXXX` at the front.
fn unit(text: &[u8]) -> Option<u32> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    digits.iter().try_fold(0, |value, d| Some(value << 4 | char::from(*d).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(content: &str) -> Option<String> {
        let mut out = Vec::new();
        unescape(content.as_bytes(), &mut out).ok()?;
        String::from_utf8(out).ok()
    }

    #[test]
    fn escapes() {
        assert_eq!(text(r#"a\"\\\/\b\f\n\r\tb"#).as_deref(), Some("a\"\\/\u{8}\u{c}\n\r\tb"));
        assert_eq!(text(r"\u00e9\ud83d\ude00\u0000").as_deref(), Some("é😀\0"));
        for bad in [r"\", r"\x", r"\u12", r"\ud83d", r"\ud83dx", r"\ud83d\u0041", r"\ude00\ud83d", r"\u+123"] {
            assert_eq!(text(bad), None, "{bad}");
        }
    }
}
