//! `POST /v1/ingest/{table}`: takes rows in, in the form that the content type names.
//!
//! Good rows are taken, bad records go to `t$bad` and are listed in the answer; only a body that
//! makes no sense as a whole is refused. The answer comes when the rows are durable, with
//! `?wait=published` when every reader sees them.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use tidemill_delta::Epoch;
use tidemill_engine::{BadRow, Relation, RelationKind, SqlError, state};

use super::decode::{CsvOptions, Rows, decode};
use super::encoding::Encoding;
use super::error::ApiError;
use super::{App, MAX_BODY};

/// Larger bodies are decoded on a thread of their own; for smaller ones the way there costs more.
const INLINE_BYTES: usize = 64 << 10;

/// From this size on a body counts as large and waits for its turn.
const LARGE_BYTES: u64 = 1 << 20;

/// How many refused records the answer lists.
const LISTED_ERRORS: usize = 100;

/// The query string.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Options {
    /// `published`: answer when readers see the rows.
    wait: Option<String>,
    /// CSV: whether the first line names the columns; it does unless told otherwise.
    header: Option<bool>,
    /// CSV: between fields; a comma unless told otherwise.
    delimiter: Option<char>,
}

/// The answer.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    accepted: u64,
    refused: u64,
    epoch: Epoch,
    errors: Vec<Refused>,
}

/// A record that was refused.
#[derive(Debug, Serialize)]
struct Refused {
    line: u64,
    reason: String,
}

/// Takes rows in.
pub(crate) async fn ingest(
    State(app): State<App>,
    table: Result<Path<String>, PathRejection>,
    options: Result<Query<Options>, QueryRejection>,
    request: Request,
) -> Result<Json<Answer>, ApiError> {
    let (Query(options), Path(table)) = (options?, table?);
    let wait = wait_published(&options)?;
    let table = target(&app, &table)?;
    let (head, body) = request.into_parts();
    let announced = announced_length(&head.headers)?;
    // Held until the rows are in the engine, as the body's memory is.
    let _turn =
        if announced.is_none_or(|length| length > LARGE_BYTES) { app.large_bodies.acquire().await.ok() } else { None };
    let body = axum::body::to_bytes(body, MAX_BODY).await.map_err(|_| too_large())?;
    let encoding = Encoding::of(&head.headers, &body)?;
    let Rows { columns, batches, bad } =
        decode_body(encoding, &table, body, CsvOptions { header: options.header, delimiter: options.delimiter })
            .await?;
    let errors = list(&bad);
    let receipt = app.engine.ingest(&table, &columns, batches, bad, wait).await?;
    Ok(Json(Answer { accepted: receipt.accepted, refused: receipt.refused, epoch: receipt.epoch, errors }))
}

fn wait_published(options: &Options) -> Result<bool, ApiError> {
    match options.wait.as_deref() {
        None | Some("durable") => Ok(false),
        Some("published") => Ok(true),
        Some(other) => {
            let error = SqlError::new(state::INVALID_PARAMETER_VALUE, format!("cannot wait for {other:?}"));
            Err(ApiError::from(error.hint("wait=durable (the default) or wait=published")))
        }
    }
}

fn target(app: &App, name: &str) -> Result<Arc<Relation>, ApiError> {
    let table = app.engine.relation(name)?;
    match table.kind {
        RelationKind::Table | RelationKind::Source => Ok(table),
        RelationKind::View | RelationKind::MaterializedView | RelationKind::System => {
            let error = SqlError::new(state::WRONG_OBJECT_TYPE, format!("{name} is not a table"));
            Err(error.hint("rows go into tables; views follow by themselves").into())
        }
    }
}

/// The length that the client announces; refuses at once what would be too large anyway.
fn announced_length(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|l| l.to_str().ok()?.parse().ok());
    match length {
        Some(length) if length > MAX_BODY as u64 => Err(too_large()),
        length => Ok(length),
    }
}

/// Also the answer to a body that breaks off: then nobody is there to read it.
fn too_large() -> ApiError {
    let message = format!("the body is larger than {} MiB", MAX_BODY >> 20);
    let error = SqlError::new(state::PROGRAM_LIMIT_EXCEEDED, message).hint("send the rows in several requests");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, error)
}

async fn decode_body(
    encoding: Encoding,
    table: &Arc<Relation>,
    body: Bytes,
    options: CsvOptions,
) -> Result<Rows, ApiError> {
    if body.len() <= INLINE_BYTES {
        return decode(encoding, table, &body, &options);
    }
    let table = Arc::clone(table);
    let work = tokio::task::spawn_blocking(move || decode(encoding, &table, &body, &options));
    work.await.map_err(|e| ApiError::from(SqlError::internal(format!("decoding failed: {e}"))))?
}

fn list(bad: &[BadRow]) -> Vec<Refused> {
    bad.iter().take(LISTED_ERRORS).map(|b| Refused { line: b.position, reason: b.reason.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_has_two_ways() {
        let wait = |w: &str| wait_published(&Options { wait: Some(w.into()), ..Options::default() });
        assert!(wait("published").expect("known"));
        assert!(!wait("durable").expect("known"));
        assert_eq!(wait("forever").expect_err("unknown").status(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn too_long_a_body_is_refused_before_it_is_read() {
        let mut headers = HeaderMap::new();
        assert_eq!(announced_length(&headers).expect("none"), None);
        headers.insert(header::CONTENT_LENGTH, (MAX_BODY as u64 + 1).into());
        assert_eq!(announced_length(&headers).expect_err("large").status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
