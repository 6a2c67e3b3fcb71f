//! What can go wrong in a session, and how the client hears of it.

use std::io;

use pgwire::messages::response::{ErrorResponse, NoticeResponse};
use tidemill_engine::{Notice, SqlError, state};

use super::frame::Violation;

/// Why something was not done.
#[derive(Debug)]
pub enum Failure {
    /// The client is told, and the session goes on.
    Sql(Box<SqlError>),
    /// The client has gone, or cannot be understood any more.
    Gone(io::Error),
}

impl From<SqlError> for Failure {
    fn from(error: SqlError) -> Self {
        Failure::Sql(Box::new(error))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Gone(error)
    }
}

impl From<Violation> for SqlError {
    fn from(violation: Violation) -> Self {
        SqlError::new(if violation.encoding { "22021" } else { "08P01" }, violation.message)
    }
}

/// What a cancelled statement fails with.
pub fn cancelled() -> SqlError {
    SqlError::new(state::QUERY_CANCELED, "canceling statement due to user request")
}

/// The message for an error. `offset` is where the statement begins in what the client sent.
pub fn error_response(error: &SqlError, severity: &str, offset: usize) -> ErrorResponse {
    let mut fields = fields(severity, error.code, &error.message);
    fields.extend(error.detail.iter().map(|d| (b'D', clean(d))));
    fields.extend(error.hint.iter().map(|h| (b'H', clean(h))));
    fields.extend(error.position.map(|p| (b'P', (p + offset).to_string())));
    ErrorResponse::new(fields)
}

/// The message for a notice.
pub fn notice_response(notice: &Notice) -> NoticeResponse {
    let mut fields = fields("NOTICE", "00000", &notice.message);
    fields.extend(notice.hint.iter().map(|h| (b'H', clean(h))));
    NoticeResponse::new(fields)
}

fn fields(severity: &str, code: &str, message: &str) -> Vec<(u8, String)> {
    vec![(b'S', severity.into()), (b'V', severity.into()), (b'C', code.into()), (b'M', clean(message))]
}

/// A zero byte would end the field early.
fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_in_what_was_sent() {
        let error = SqlError::new(state::UNDEFINED_COLUMN, "no\0pe").at(8).hint("try");
        let response = error_response(&error, "ERROR", 10);
        assert!(response.fields.contains(&(b'P', "18".into())));
        assert!(response.fields.contains(&(b'C', "42703".into())));
        assert!(response.fields.contains(&(b'H', "try".into())));
        assert!(response.fields.contains(&(b'M', "no\u{fffd}pe".into())));
    }
}
