//! Bounds on what a statement may look like, checked on its tokens.
//!
//! sqlparser bounds how deep it calls itself, but a chain such as `a + a + a + ...` makes a tree as
//! deep as the chain is long without any recursion while parsing; copying, printing and dropping that
//! tree recurse. So chains are counted here, before the tree exists.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::{SqlError, state};

/// The longest statement, in bytes.
const MAX_STATEMENT: usize = 1 << 20;
/// How many operators may follow one another, counting those around an open parenthesis.
const MAX_CHAIN: usize = 250;
/// How many `AND`s and `OR`s may follow one another; such chains are made shallow once they are parsed.
const MAX_LOGICAL: usize = 2_000;
/// How many `UNION`s, `INTERSECT`s and `EXCEPT`s a statement may have. sqlparser's copying of each
/// takes some 12 KiB of stack.
const MAX_SET_OPERATIONS: usize = 64;
/// How many parentheses, brackets and `CASE`s may be open at once.
const MAX_OPEN: usize = 64;

/// Refuses a statement that is too long to be looked at.
pub(super) fn check_length(text: &str) -> Result<(), SqlError> {
    if text.len() <= MAX_STATEMENT {
        return Ok(());
    }
    let message = format!("the statement has {} bytes, more than the {MAX_STATEMENT} that are allowed", text.len());
    Err(SqlError::new(state::PROGRAM_LIMIT_EXCEEDED, message).hint("Load many rows with COPY or over HTTP."))
}

/// The operators since the last comma, at one level of nesting. `AND`s and `OR`s are counted by
/// themselves: they are the outermost, and chains of them become shallow trees.
#[derive(Clone, Copy, Default)]
struct Chain {
    logical: usize,
    longest: usize,
    current: usize,
}

impl Chain {
    fn operator(&mut self) {
        self.current += 1;
        self.longest = self.longest.max(self.current);
    }

    fn logical(&mut self) {
        self.logical += 1;
        self.current = 0;
    }

    fn depth(&self) -> usize {
        self.longest
    }
}

/// Refuses a statement whose syntax tree would be too deep. Gives the token at fault.
pub(super) fn check_depth(tokens: &[TokenWithSpan]) -> Result<(), (SqlError, &TokenWithSpan)> {
    let mut open: Vec<Chain> = Vec::new();
    let mut chain = Chain::default();
    let (mut outer, mut set_operations) = (0, 0);
    for token in tokens {
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                // `a[1][2]...` and `f()()...` are chains as well.
                chain.operator();
                outer += chain.depth();
                open.push(std::mem::take(&mut chain));
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                chain = open.pop().unwrap_or_default();
                outer = outer.saturating_sub(chain.depth());
            }
            Token::Comma => chain = Chain::default(),
            Token::Word(word) => match word.keyword {
                Keyword::AND | Keyword::OR => chain.logical(),
                Keyword::CASE => {
                    chain.operator();
                    outer += chain.depth();
                    open.push(std::mem::take(&mut chain));
                }
                Keyword::END => {
                    chain = open.pop().unwrap_or_default();
                    outer = outer.saturating_sub(chain.depth());
                }
                Keyword::WHEN | Keyword::THEN | Keyword::ELSE => chain.current = 0,
                Keyword::UNION | Keyword::INTERSECT | Keyword::EXCEPT => set_operations += 1,
                Keyword::NoKeyword | Keyword::AS => {}
                _ => chain.operator(),
            },
            Token::Number(..) | Token::SingleQuotedString(_) | Token::Period | Token::Placeholder(_) => {}
            _ => chain.operator(),
        }
        if set_operations > MAX_SET_OPERATIONS {
            return Err((too_complex("has too many set operations", MAX_SET_OPERATIONS), token));
        }
        if chain.logical > MAX_LOGICAL {
            return Err((too_complex("chains too many conditions", MAX_LOGICAL), token));
        }
        if outer + chain.depth() > MAX_CHAIN {
            return Err((too_complex("chains too many operators", MAX_CHAIN), token));
        }
        if open.len() > MAX_OPEN {
            return Err((too_complex("nests too deeply", MAX_OPEN), token));
        }
    }
    Ok(())
}

fn too_complex(what: &str, limit: usize) -> SqlError {
    SqlError::new(state::STATEMENT_TOO_COMPLEX, format!("the statement {what}"))
        .detail(format!("at most {limit} are allowed"))
        .hint("Use IN or VALUES for a long list, or a table.")
}
