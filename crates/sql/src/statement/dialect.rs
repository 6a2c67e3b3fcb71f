//! PostgreSQL's dialect with what the streaming statements need on top.

use std::any::TypeId;
use std::cell::Cell;

use datafusion::sql::sqlparser::ast::Expr;
use datafusion::sql::sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

const PG: PostgreSqlDialect = PostgreSqlDialect {};

/// Tidemill's SQL: PostgreSQL, plus `FOR SYSTEM_TIME AS OF` and `TABLE t` as an argument.
///
/// sqlparser tries several readings of some texts, one inside the other, which can take exponential
/// time; so the dialect, which is asked at each expression, also counts how much was tried.
#[derive(Debug)]
pub struct TidemillDialect {
    /// How many expressions may still be begun.
    budget: Cell<usize>,
}

impl TidemillDialect {
    /// A dialect for one text with so many tokens.
    pub fn for_tokens(count: usize) -> Self {
        TidemillDialect { budget: Cell::new(10_000 + count.saturating_mul(8)) }
    }

    /// Counts an expression; false when there were too many.
    fn spend(&self) -> bool {
        let left = self.budget.get();
        self.budget.set(left.saturating_sub(1));
        left > 0
    }
}

/// Methods that answer what PostgreSQL's dialect answers.
macro_rules! as_postgres {
    ($($method:ident)*) => { $(fn $method(&self) -> bool { PG.$method() })* };
}

impl Dialect for TidemillDialect {
    /// The parser asks for PostgreSQL by type in places that have no method.
    fn dialect(&self) -> TypeId {
        TypeId::of::<PostgreSqlDialect>()
    }

    fn supports_table_versioning(&self) -> bool {
        true
    }

    /// `a JOIN b JOIN c ON ... ON ...`: the conditions close the joins from the inside out.
    fn supports_left_associative_joins_without_parens(&self) -> bool {
        false
    }

    /// `TABLE t` as an argument of a window function, which stands for `t`.
    fn parse_prefix(&self, parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        if !self.spend() {
            // The one error that no attempt swallows.
            return Some(Err(ParserError::RecursionLimitExceeded));
        }
        let Token::Word(word) = &parser.peek_token_ref().token else { return None };
        // `PARTITION BY k` as an argument of SESSION stands for its column.
        if word.keyword == Keyword::PARTITION
            && matches!(&parser.peek_nth_token_ref(1).token, Token::Word(next) if next.keyword == Keyword::BY)
        {
            parser.next_token();
            parser.next_token();
            return Some(parser.parse_expr());
        }
        if word.keyword != Keyword::TABLE || !matches!(parser.peek_nth_token_ref(1).token, Token::Word(_)) {
            return None;
        }
        parser.next_token();
        let name = match parser.parse_object_name(false) {
            Ok(name) => name,
            Err(error) => return Some(Err(error)),
        };
        let mut parts: Vec<_> = name.0.iter().filter_map(|part| part.as_ident().cloned()).collect();
        Some(Ok(match parts.len() {
            1 => Expr::Identifier(parts.remove(0)),
            _ => Expr::CompoundIdentifier(parts),
        }))
    }

    /// `IS [NOT] DISTINCT FROM` binds its right side as tightly as its left one; sqlparser would let
    /// an `AND` after it be a part of the right side.
    fn parse_infix(&self, parser: &mut Parser<'_>, expr: &Expr, precedence: u8) -> Option<Result<Expr, ParserError>> {
        let not = parser.parse_keywords(&[Keyword::IS, Keyword::NOT, Keyword::DISTINCT, Keyword::FROM]);
        if !not && !parser.parse_keywords(&[Keyword::IS, Keyword::DISTINCT, Keyword::FROM]) {
            return None;
        }
        let (left, right) = (Box::new(expr.clone()), parser.parse_subexpr(precedence));
        Some(right.map(|right| match not {
            true => Expr::IsNotDistinctFrom(left, Box::new(right)),
            false => Expr::IsDistinctFrom(left, Box::new(right)),
        }))
    }

    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        PG.identifier_quote_style(identifier)
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        PG.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        PG.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        PG.is_identifier_part(ch)
    }

    fn is_reserved_for_identifier(&self, keyword: Keyword) -> bool {
        PG.is_reserved_for_identifier(keyword)
    }

    fn is_custom_operator_part(&self, ch: char) -> bool {
        PG.is_custom_operator_part(ch)
    }

    fn get_next_precedence(&self, parser: &Parser<'_>) -> Option<Result<u8, ParserError>> {
        // `x NOT NULL` is no expression in PostgreSQL; read as one, it would swallow the NOT NULL
        // that follows DEFAULT in a column definition.
        if let [Token::Word(not), Token::Word(null)] = parser.peek_tokens_ref::<2>().map(|token| &token.token)
            && not.keyword == Keyword::NOT
            && null.keyword == Keyword::NULL
        {
            return Some(Ok(0));
        }
        PG.get_next_precedence(parser)
    }

    fn prec_value(&self, precedence: Precedence) -> u8 {
        PG.prec_value(precedence)
    }

    as_postgres! {
        supports_unicode_string_literal
        supports_filter_during_aggregation
        supports_group_by_expr
        allow_extract_custom
        allow_extract_single_quotes
        supports_create_index_with_clause
        supports_explain_with_utility_options
        supports_listen_notify
        supports_factorial_operator
        supports_bitwise_shift_operators
        supports_comment_on
        supports_load_extension
        supports_named_fn_args_with_colon_operator
        supports_empty_projections
        supports_nested_comments
        supports_string_escape_constant
        supports_numeric_literal_underscores
        supports_array_typedef_with_brackets
        supports_geometric_types
        supports_set_names
        supports_alter_column_type_using
        supports_notnull_operator
        supports_interval_options
        supports_insert_table_alias
        supports_create_table_like_parenthesized
        supports_select_wildcard_with_alias
        supports_comma_separated_trim
        supports_xml_expressions
        supports_comment_optimizer_hint
    }
}
