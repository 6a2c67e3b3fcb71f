//! Errors with the line they are about, and a caret under the place.

use std::fmt::Write;

use tidemill_engine::SqlError;

/// An error in a script, wherever it comes from.
#[derive(Clone, Debug, Default)]
pub struct Report<'a> {
    /// The SQLSTATE.
    pub code: &'a str,
    /// What went wrong.
    pub message: &'a str,
    /// Where in the script, in characters from 0.
    pub at: Option<usize>,
    /// More about the cause.
    pub detail: Option<&'a str>,
    /// What to do.
    pub hint: Option<&'a str>,
}

impl<'a> Report<'a> {
    /// The error of a statement that begins `offset` characters into the script.
    pub fn new(error: &'a SqlError, offset: usize) -> Self {
        Report {
            code: error.code,
            message: &error.message,
            at: error.position.map(|position| offset + position.saturating_sub(1)),
            detail: error.detail.as_deref(),
            hint: error.hint.as_deref(),
        }
    }

    /// Points at the statement if the error does not say where.
    pub fn or_at(mut self, offset: usize) -> Self {
        self.at = self.at.or(Some(offset));
        self
    }

    /// The text for people. `name` is the script's; without one only the line is shown.
    pub fn render(&self, name: Option<&str>, script: &str) -> String {
        let mut text = format!("error[{}]: {}\n", self.code, self.message);
        let mut margin = 0;
        if let Some(at) = self.at {
            let place = Place::find(script, at);
            let number = place.line.to_string();
            margin = number.len();
            if let Some(name) = name {
                let _ = writeln!(text, "{:margin$}--> {name}:{}:{}", "", place.line, place.column);
            }
            let _ = writeln!(text, "{:margin$} |", "");
            let _ = writeln!(text, "{number} | {}", place.text);
            let _ = writeln!(text, "{:margin$} | {}^", "", place.indent);
        }
        for (word, more) in [("detail", self.detail), ("help", self.hint)] {
            if let Some(more) = more {
                let _ = writeln!(text, "{:margin$} = {word}: {more}", "");
            }
        }
        text
    }
}

/// A place in a text as people count.
struct Place<'a> {
    line: usize,
    column: usize,
    text: &'a str,
    /// White space as wide as what stands before the place.
    indent: String,
}

impl<'a> Place<'a> {
    fn find(script: &'a str, at: usize) -> Self {
        let byte = script.char_indices().nth(at).map_or(script.trim_end().len(), |(byte, _)| byte);
        let start = script[..byte].rfind('\n').map_or(0, |newline| newline + 1);
        let text = script[start..].lines().next().unwrap_or_default();
        let before = &script[start..byte];
        let indent = before.chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let line = script[..start].matches('\n').count() + 1;
        Place { line, column: before.chars().count() + 1, text, indent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_at_the_place() {
        let script = "SELECT 1;\nSELECT ü, x FROM t;\n";
        let error = SqlError::new("42703", "column \"x\" does not exist").at(11).hint("try y");
        let text = Report::new(&error, 10).render(Some("a.sql"), script);
        let wanted = "\
error[42703]: column \"x\" does not exist
 --> a.sql:2:11
  |
2 | SELECT ü, x FROM t;
  |           ^
  = help: try y
";
        assert_eq!(text, wanted);
    }

    #[test]
    fn survives_places_beyond_the_end() {
        let error = SqlError::new("42601", "unexpected end of input").at(100);
        assert!(Report::new(&error, 0).render(None, "SELECT\n").contains("1 | SELECT\n  |       ^"));
    }
}
