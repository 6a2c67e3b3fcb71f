//! A statement's text as it may be shown: some options' values are secrets.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::is_word;
use super::reader::{position, tokens};

/// The text with other values in its `WITH (...)`: `instead` gives one for an option, or `None` to keep what stands
/// there. Text that cannot be read is not shown at all.
pub fn with_other_values(text: &str, instead: impl Fn(&str) -> Option<String>) -> String {
    let Ok(tokens) = tokens(text) else { return "(not shown)".into() };
    let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    let byte = |token: &TokenWithSpan| starts.get(position(text, token.span.start) - 1).copied().unwrap_or(text.len());
    let options = tokens.windows(2).rposition(|pair| is_word(&pair[0].token, "WITH") && pair[1].token == Token::LParen);
    let (mut shown, mut done) = (String::new(), 0);
    for i in options.map_or(tokens.len(), |at| at + 2)..tokens.len() {
        let Some(other) = (tokens[i].token == Token::Eq).then(|| instead(&key(&tokens[..i]))).flatten() else {
            continue;
        };
        let Some(value) = tokens.get(i + 1) else { continue };
        let sign = usize::from(matches!(value.token, Token::Minus | Token::Plus));
        let end = tokens.get(i + 2 + sign).map_or(text.len(), byte);
        shown.push_str(&text[done..byte(value)]);
        shown.push_str(&format!("'{}'", other.replace('\'', "''")));
        done = end;
    }
    shown.push_str(&text[done..]);
    shown
}

/// The option's name that these tokens end with.
fn key(tokens: &[TokenWithSpan]) -> String {
    let mut key = String::new();
    for token in tokens.iter().rev() {
        let part = match &token.token {
            Token::Word(word) => word.value.as_str(),
            Token::SingleQuotedString(text) => text,
            Token::Period => ".",
            _ => break,
        };
        key.insert_str(0, part);
    }
    key.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_replaced() {
        let instead = |key: &str| (key == "password").then(|| "*'*".to_owned());
        let shown = |text: &str| with_other_values(text, instead);
        assert_eq!(
            shown("CREATE SINK s FROM v WITH (é = 'ü', Password = 'p''w' , port = 5 /* password = 'p' */)"),
            "CREATE SINK s FROM v WITH (é = 'ü', Password = '*''*', port = 5 /* password = 'p' */)"
        );
        assert_eq!(
            shown("CREATE SINK s AS SELECT * FROM t WHERE password = 'p' WITH (\"password\" = -5, x = 1)"),
            "CREATE SINK s AS SELECT * FROM t WHERE password = 'p' WITH (\"password\" = '*''*', x = 1)"
        );
        assert_eq!(
            shown("CREATE SINK s FROM v WITH (\n'PASSWORD' = $$p$$\n)"),
            "CREATE SINK s FROM v WITH (\n'PASSWORD' = '*''*')"
        );
        assert_eq!(shown("CREATE SINK s FROM v"), "CREATE SINK s FROM v");
    }
}
