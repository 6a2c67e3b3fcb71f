//! `POST /v1/sql`: runs statements in one session.
//!
//! The body is the script itself, or JSON `{"sql": "...", "params": [...], "limit": 1000}`. What the
//! statements before a failing one answered is part of the error's answer.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;
use tidemill_connect::{json_array, json_string};
use tidemill_engine::{Notice, Param, Response as Answer, Session, SqlError, Statement, state};

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use super::App;
use super::error::{ApiError, to_json};
use super::types::type_name;

/// How many rows of each result are sent unless the request says otherwise.
const DEFAULT_ROW_LIMIT: usize = 10_000;

/// The query string.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Options {
    /// How many rows of each result to send at most.
    limit: Option<usize>,
}

/// The JSON form of a request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Script {
    sql: String,
    #[serde(default)]
    params: Vec<Value>,
    limit: Option<usize>,
}

/// Runs the statements of the body.
pub(crate) async fn sql(
    State(app): State<App>,
    options: Result<Query<Options>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let Query(options) = options?;
    let script = read_script(&headers, &body?)?;
    let limit = options.limit.or(script.limit).unwrap_or(DEFAULT_ROW_LIMIT);
    let params: Vec<Param> = script.params.iter().map(param).collect();
    let mut answers = Answers::default();
    match run(&mut app.engine.session(), &script.sql, &params, limit, &mut answers).await {
        Ok(()) => Ok(answers.into_response(None)),
        Err(error) => Ok(answers.into_response(Some(&error))),
    }
}

fn read_script(headers: &HeaderMap, body: &[u8]) -> Result<Script, ApiError> {
    let json = headers.get(header::CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"application/json"));
    // No statement begins with a brace, so a forgotten content type does no harm.
    if json || body.trim_ascii_start().starts_with(b"{") {
        return serde_json::from_slice(body).map_err(|e| {
            ApiError::malformed(format!("the body is not a JSON request: {e}")).hint(r#"{"sql": "SELECT 1"}"#)
        });
    }
    let text = std::str::from_utf8(body).map_err(|e| ApiError::malformed(format!("the body is not UTF-8: {e}")))?;
    Ok(Script { sql: text.to_owned(), params: Vec::new(), limit: None })
}

fn param(value: &Value) -> Param {
    Param::Text(match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    })
}

async fn run(
    session: &mut Session,
    script: &str,
    params: &[Param],
    limit: usize,
    answers: &mut Answers,
) -> Result<(), SqlError> {
    for statement in tidemill_engine::parse(script)? {
        let answer = session.execute(&statement, params).await;
        answers.notices.extend(session.take_notices());
        answers.add(answer.map_err(|e| in_script(e, &statement))?, limit).map_err(|e| in_script(e, &statement))?;
    }
    Ok(())
}

/// Moves an error's position from the statement to the script.
fn in_script(mut error: SqlError, statement: &Statement) -> SqlError {
    error.position = error.position.map(|p| p + statement.offset);
    error
}

/// What the statements answered so far, as JSON.
#[derive(Default)]
struct Answers {
    json: String,
    notices: Vec<Notice>,
}

impl Answers {
    fn add(&mut self, answer: Answer, limit: usize) -> Result<(), SqlError> {
        match answer {
            Answer::Rows { schema, batches, tag } => {
                self.rows(&schema, &batches, &tag, limit);
                Ok(())
            }
            Answer::Done(tag) => {
                self.separate();
                self.json.push_str("{\"tag\":");
                json_string(&tag, &mut self.json);
                self.json.push('}');
                Ok(())
            }
            Answer::Empty => Ok(()),
            Answer::Subscribe(_) | Answer::CopyOut { .. } => {
                Err(SqlError::not_supported("this statement answers with a stream")
                    .hint("GET /v1/subscribe/{view} streams changes; SELECT gives rows"))
            }
            Answer::CopyIn { .. } => Err(SqlError::not_supported("COPY FROM STDIN does not work here")
                .hint("POST the rows to /v1/ingest/{table}")),
        }
    }

    fn separate(&mut self) {
        if !self.json.is_empty() {
            self.json.push(',');
        }
    }

    fn rows(&mut self, schema: &Schema, batches: &[RecordBatch], tag: &str, limit: usize) {
        self.separate();
        let columns: Vec<Value> =
            schema.fields().iter().map(|f| serde_json::json!({ "name": f.name(), "type": type_name(f) })).collect();
        let total: usize = batches.iter().map(RecordBatch::num_rows).sum();
        self.json.push_str(&format!("{{\"columns\":{},\"rows\":[", Value::from(columns)));
        let mut left = limit;
        for batch in batches {
            for row in 0..batch.num_rows().min(left) {
                if left < limit || row > 0 {
                    self.json.push(',');
                }
                json_array(batch, row, &mut self.json);
            }
            left -= batch.num_rows().min(left);
        }
        self.json.push_str("],\"tag\":");
        json_string(tag, &mut self.json);
        self.json.push_str(&format!(",\"row_count\":{total},\"truncated\":{}}}", total > limit));
    }

    fn into_response(self, error: Option<&SqlError>) -> Response {
        let notices: Vec<Value> =
            self.notices.iter().map(|n| serde_json::json!({ "message": n.message, "hint": n.hint })).collect();
        let mut out = format!("{{\"results\":[{}],\"notices\":{}", self.json, Value::from(notices));
        let status = error.map_or(StatusCode::OK, |e| match e.code {
            state::INTERNAL_ERROR => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        });
        if let Some(error) = error {
            out.push_str(&format!(",\"error\":{}", to_json(error)));
        }
        out.push('}');
        (status, [(header::CONTENT_TYPE, "application/json")], out).into_response()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    fn batch(values: std::ops::Range<i64>) -> RecordBatch {
        let a: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
        RecordBatch::try_from_iter([("a", a)]).expect("batch")
    }

    async fn body_of(answers: Answers, error: Option<&SqlError>) -> (StatusCode, Value) {
        let response = answers.into_response(error);
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("body");
        (status, serde_json::from_slice(&bytes).expect("JSON"))
    }

    #[tokio::test]
    async fn rows_are_cut_at_the_limit_and_say_so() {
        let mut answers = Answers::default();
        let batches = vec![batch(0..2), batch(2..2), batch(2..6)];
        let schema = batches[0].schema();
        answers.add(Answer::Rows { schema, batches, tag: "SELECT".into() }, 3).expect("rows");
        answers.add(Answer::Done("CREATE TABLE".into()), 3).expect("done");
        let (status, json) = body_of(answers, None).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(json["results"][0]["rows"], serde_json::json!([[0], [1], [2]]));
        assert_eq!(json["results"][0]["truncated"], true);
        assert_eq!(json["results"][0]["row_count"], 6);
        assert_eq!(json["results"][0]["columns"][0]["type"], "bigint");
        assert_eq!(json["results"][1]["tag"], "CREATE TABLE");
    }

    #[tokio::test]
    async fn an_error_comes_with_what_was_answered_before() {
        let mut answers = Answers::default();
        answers.add(Answer::Done("CREATE TABLE".into()), 3).expect("done");
        let error = SqlError::new(state::SYNTAX_ERROR, "no").at(7);
        let (status, json) = body_of(answers, Some(&error)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(json["results"][0]["tag"], "CREATE TABLE");
        assert_eq!(json["error"]["position"], 7);
    }

    #[test]
    fn scripts_come_as_text_or_json() {
        let none = HeaderMap::new();
        assert_eq!(read_script(&none, b"SELECT 1").expect("text").sql, "SELECT 1");
        let script = read_script(&none, br#" {"sql": "SELECT $1", "params": [null, 2, "x"]}"#).expect("JSON");
        assert_eq!(script.sql, "SELECT $1");
        let params: Vec<Param> = script.params.iter().map(param).collect();
        assert!(
            matches!(&params[..], [Param::Text(None), Param::Text(Some(a)), Param::Text(Some(b))] if a == "2" && b == "x")
        );
        assert!(read_script(&none, b"{\"sq\": 1}").is_err());
        assert!(read_script(&none, b"\xff").is_err());
    }
}
