//! Cuts a script at its semicolons, before anything is parsed.

/// A statement's text and where it begins in the script, in characters from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The text, without the semicolon and the white space around it.
    pub text: &'a str,
    /// Where it begins.
    pub offset: usize,
}

/// The pieces of a script that hold more than white space and comments.
pub fn split(script: &str) -> Vec<Piece<'_>> {
    let mut scan = Scan { text: script, byte: 0, chars: 0 };
    let mut pieces = Vec::new();
    let (mut start, mut start_chars, mut has_content) = (0, 0, false);
    while let Some(ch) = scan.peek() {
        match ch {
            ';' => {
                if has_content {
                    pieces.push(trimmed(&script[start..scan.byte], start_chars));
                }
                scan.next();
                (start, start_chars, has_content) = (scan.byte, scan.chars, false);
            }
            ch if ch.is_whitespace() => {
                scan.next();
            }
            _ => has_content |= scan.skip_lexeme(),
        }
    }
    if has_content {
        pieces.push(trimmed(&script[start..], start_chars));
    }
    pieces
}

fn trimmed(text: &str, offset: usize) -> Piece<'_> {
    let begun = text.trim_start();
    Piece { text: begun.trim_end(), offset: offset + text[..text.len() - begun.len()].chars().count() }
}

/// A place in the script, counted in bytes and in characters.
struct Scan<'a> {
    text: &'a str,
    byte: usize,
    chars: usize,
}

impl Scan<'_> {
    fn rest(&self) -> &str {
        &self.text[self.byte..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let ch = self.peek()?;
        self.byte += ch.len_utf8();
        self.chars += 1;
        Some(ch)
    }

    /// Goes beyond a comment (false), or a quoted text, word or other character (true).
    fn skip_lexeme(&mut self) -> bool {
        if self.rest().starts_with("--") {
            self.skip_while(|ch| ch != '\n');
            return false;
        }
        if self.rest().starts_with("/*") {
            self.skip_comment();
            return false;
        }
        match self.next() {
            Some('\'') => self.skip_quoted('\'', false),
            Some('"') => self.skip_quoted('"', false),
            Some('$') => self.skip_dollar_quoted(),
            Some('e' | 'E') if self.peek() == Some('\'') => {
                self.next();
                self.skip_quoted('\'', true);
            }
            // Words go as a whole: the e of `table'` is no escape mark, the $ of `a$b` no quote.
            Some(ch) if is_word(ch) => self.skip_while(|ch| is_word(ch) || ch == '$'),
            _ => {}
        }
        true
    }

    fn skip_while(&mut self, keep: impl Fn(char) -> bool) {
        while self.peek().is_some_and(&keep) {
            self.next();
        }
    }

    /// Block comments nest.
    fn skip_comment(&mut self) {
        let mut depth = 0usize;
        loop {
            let step = if self.rest().starts_with("/*") {
                depth += 1;
                2
            } else if self.rest().starts_with("*/") {
                depth -= 1;
                2
            } else {
                1
            };
            for _ in 0..step {
                if self.next().is_none() {
                    return;
                }
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// Past the closing quote; a doubled quote is not the end.
    fn skip_quoted(&mut self, quote: char, backslashes: bool) {
        while let Some(ch) = self.next() {
            if backslashes && ch == '\\' {
                self.next();
            } else if ch == quote {
                if self.peek() != Some(quote) {
                    return;
                }
                self.next();
            }
        }
    }

    /// `$tag$ ... $tag$`; a `$1` is no quote.
    fn skip_dollar_quoted(&mut self) {
        let rest = self.rest();
        let tag_len = rest.find(|ch| !is_word(ch)).unwrap_or(rest.len());
        let tag = &rest[..tag_len];
        if !rest[tag_len..].starts_with('$') || tag.starts_with(|ch: char| ch.is_ascii_digit()) {
            return;
        }
        let close = format!("${tag}$");
        let body = tag_len + 1;
        let end = rest[body..].find(&close).map_or(rest.len(), |at| body + at + close.len());
        self.chars += rest[..end].chars().count();
        self.byte += end;
    }
}

fn is_word(ch: char) -> bool {
    ch.is_alphanumeric() || ch == '_' || !ch.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(script: &str) -> Vec<(&str, usize)> {
        split(script).into_iter().map(|piece| (piece.text, piece.offset)).collect()
    }

    #[test]
    fn cuts_at_semicolons_only() {
        assert_eq!(texts("a; b ;\n c"), [("a", 0), ("b", 3), ("c", 8)]);
        assert_eq!(texts("ä 'x;y' ; b"), [("ä 'x;y'", 0), ("b", 10)]);
        assert_eq!(texts(r#"select "a;b", 'it''s;'; c"#), [(r#"select "a;b", 'it''s;'"#, 0), ("c", 24)]);
        assert_eq!(texts(r"select E'\';' ; b"), [(r"select E'\';'", 0), ("b", 16)]);
        assert_eq!(texts(r"select table'\' ; b"), [(r"select table'\'", 0), ("b", 18)]);
    }

    #[test]
    fn dollar_quotes_and_parameters() {
        assert_eq!(texts("do $x$ a; $y$ $x$; b"), [("do $x$ a; $y$ $x$", 0), ("b", 19)]);
        assert_eq!(texts("select $1;select $2"), [("select $1", 0), ("select $2", 10)]);
        assert_eq!(texts("select $$;$$"), [("select $$;$$", 0)]);
        assert_eq!(texts("select a$b$;select a$b$"), [("select a$b$", 0), ("select a$b$", 12)]);
    }

    #[test]
    fn comments_are_no_statements() {
        assert!(texts(" -- only; this\n; /* a /* b; */ ; */ ;").is_empty());
        assert_eq!(texts("/* ; */ a -- ;\n; b"), [("/* ; */ a -- ;", 0), ("b", 17)]);
    }

    #[test]
    fn unterminated_things_end_with_the_script() {
        for script in ["'a;b", "\"a;b", "$$a;b", "a /* ;b", "E'\\"] {
            assert_eq!(split(script).len(), 1, "{script}");
        }
    }
}
