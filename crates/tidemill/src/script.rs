//! Where statements begin and end in a text; what a prompt needs to know.

/// A statement's text and where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The text, without the semicolon and the white space around it.
    pub text: &'a str,
    /// Where it begins in the script, in characters from 0.
    pub offset: usize,
    /// Whether a semicolon ends it.
    pub ended: bool,
}

/// The statements of a script; comments alone are none.
pub fn pieces(script: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut start, mut at, mut blank) = (0, 0, true);
    while at < script.len() {
        let rest = &script[at..];
        if rest.starts_with(';') {
            pieces.extend((!blank).then(|| piece(script, start, at, true)));
            (start, at, blank) = (at + 1, at + 1, true);
            continue;
        }
        let (length, content) = lexeme(rest);
        blank &= !content;
        at += length;
    }
    pieces.extend((!blank).then(|| piece(script, start, script.len(), false)));
    pieces
}

/// Whether the last statement still waits for its semicolon (or for the end of a quote).
pub fn unfinished(script: &str) -> bool {
    pieces(script).last().is_some_and(|last| !last.ended)
}

fn piece(script: &str, start: usize, end: usize, ended: bool) -> Piece<'_> {
    let text = &script[start..end];
    let begun = text.trim_start();
    let before = start + text.len() - begun.len();
    Piece { text: begun.trim_end(), offset: script[..before].chars().count(), ended }
}

/// The length in bytes of what comes first (a comment, a quoted text, else one character), and whether
/// it is content.
fn lexeme(rest: &str) -> (usize, bool) {
    let until = |open: usize, close: &str| rest[open..].find(close).map_or(rest.len(), |i| open + i + close.len());
    let first = rest.chars().next().map_or(1, char::len_utf8);
    match rest.as_bytes()[0] {
        b'-' if rest.starts_with("--") => (until(2, "\n"), false),
        b'/' if rest.starts_with("/*") => (block_comment(rest), false),
        b'\'' => (until(1, "'"), true),
        b'"' => (until(1, "\""), true),
        b'$' => match dollar_tag(rest) {
            Some(tag) => (until(tag.len(), tag), true),
            None => (1, true),
        },
        // A word is taken whole, so that a dollar sign inside it opens no quote.
        b if b.is_ascii_alphanumeric() || b == b'_' => {
            (rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(rest.len()), true)
        }
        b => (first, !b.is_ascii_whitespace()),
    }
}

/// Block comments nest.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// `$$` or `$tag$` at the beginning.
fn dollar_tag(rest: &str) -> Option<&str> {
    let end = rest[1..].find('$')? + 1;
    let name = &rest[1..end];
    let fits = name.chars().all(|c| c.is_alphanumeric() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit());
    fits.then_some(&rest[..=end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_at_semicolons_outside_of_quotes() {
        let script = "SELECT ';' ; -- a; b\nSELECT \";\" /* ; /* ; */ ; */;\n;SELECT $x$;$x$, a$b";
        let texts: Vec<_> = pieces(script).iter().map(|p| (p.text, p.ended)).collect();
        let wanted =
            [("SELECT ';'", true), ("-- a; b\nSELECT \";\" /* ; /* ; */ ; */", true), ("SELECT $x$;$x$, a$b", false)];
        assert_eq!(texts, wanted);
    }

    #[test]
    fn counts_characters() {
        assert_eq!(pieces("SELECT 'ü';  SELECT 2").last().map(|p| p.offset), Some(13));
    }

    #[test]
    fn knows_when_more_is_to_come() {
        assert!(unfinished("SELECT 1"));
        assert!(unfinished("SELECT 'a;"));
        assert!(!unfinished("SELECT 1; -- done"));
        assert!(!unfinished("  "));
    }
}
