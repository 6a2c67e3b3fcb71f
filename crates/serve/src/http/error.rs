//! Errors as JSON with an HTTP status.

use axum::Json;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use tidemill_engine::{SqlError, state};

/// When to try again what cannot be done now.
const RETRY_SECONDS: &str = "1";

/// An error on its way to a client.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    error: Box<SqlError>,
}

impl ApiError {
    /// An error with a status of its own.
    pub(crate) fn new(status: StatusCode, error: SqlError) -> Self {
        ApiError { status, error: Box::new(error) }
    }

    /// The request as a whole is malformed.
    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::BAD_REQUEST, SqlError::new(state::INVALID_TEXT_REPRESENTATION, message))
    }

    /// Adds what to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.error.hint = Some(hint.into());
        self
    }

    /// The HTTP status.
    #[cfg(test)]
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }
}

impl From<SqlError> for ApiError {
    fn from(error: SqlError) -> Self {
        ApiError::new(status_of(&error), error)
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        let error = SqlError::new(state::INVALID_PARAMETER_VALUE, rejection.body_text());
        ApiError::new(StatusCode::BAD_REQUEST, error)
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        ApiError::malformed(rejection.body_text())
    }
}

impl From<BytesRejection> for ApiError {
    fn from(rejection: BytesRejection) -> Self {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let message = format!("the body is larger than {} MiB", super::MAX_BODY >> 20);
            let error = SqlError::new(state::PROGRAM_LIMIT_EXCEEDED, message).hint("send the rows in several requests");
            return ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, error);
        }
        ApiError::malformed(rejection.body_text())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::warn!(code = self.error.code, error = %self.error, "request failed");
        }
        let mut response = (self.status, Json(json!({ "error": to_json(&self.error) }))).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS));
        }
        response
    }
}

/// The HTTP status that says best what kind of error it is.
pub(crate) fn status_of(error: &SqlError) -> StatusCode {
    match error.code {
        state::UNDEFINED_TABLE => StatusCode::NOT_FOUND,
        state::INTERNAL_ERROR => StatusCode::INTERNAL_SERVER_ERROR,
        // A full disk, too many rows at once, a server that stops: the same request may go well later.
        "53100" | "53000" | "57P01" => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// The fields of an error that are set.
pub(crate) fn to_json(error: &SqlError) -> Value {
    let mut fields = Map::new();
    fields.insert("code".into(), error.code.into());
    fields.insert("message".into(), error.message.clone().into());
    if let Some(position) = error.position {
        fields.insert("position".into(), position.into());
    }
    if let Some(detail) = &error.detail {
        fields.insert("detail".into(), detail.clone().into());
    }
    if let Some(hint) = &error.hint {
        fields.insert("hint".into(), hint.clone().into());
    }
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_set_fields_are_listed() {
        let error = SqlError::new(state::SYNTAX_ERROR, "no").at(3);
        assert_eq!(to_json(&error), json!({"code": "42601", "message": "no", "position": 3}));
        assert_eq!(ApiError::from(error.hint("yes")).status(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn kinds_of_errors_have_their_status() {
        assert_eq!(status_of(&SqlError::new(state::UNDEFINED_TABLE, "t")), StatusCode::NOT_FOUND);
        assert_eq!(status_of(&SqlError::internal("bug")), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(status_of(&SqlError::not_supported("x")), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn who_may_try_again_is_told_when() {
        let response = ApiError::from(SqlError::new("53100", "full")).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()["retry-after"], "1");
    }
}
