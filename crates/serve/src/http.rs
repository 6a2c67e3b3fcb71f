//! The HTTP door: ingestion, SQL, live subscriptions, status, metrics and the console page.
//!
//! Every answer that is not a success is JSON of one shape, also for unknown paths and methods:
//! `{"error": {"code": "42P01", "message": "...", "hint": "..."}}`.

mod decode;
mod encoding;
mod error;
mod frames;
mod ingest;
mod live;
mod metrics;
mod page;
mod process;
mod sql;
mod status;
mod subscribe;
mod types;

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use tidemill_engine::{Engine, SqlError, state};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use error::ApiError;

/// The largest request body taken.
pub const MAX_BODY: usize = 64 << 20;

/// How many large bodies are held in memory at once; further ones wait before they are read.
const LARGE_BODIES: usize = 8;

/// What all requests share.
#[derive(Clone)]
pub(crate) struct App {
    /// The engine.
    pub engine: Engine,
    /// One permit per large body in memory.
    pub large_bodies: Arc<Semaphore>,
}

/// All paths.
pub fn router(engine: Engine) -> Router {
    let app = App { engine, large_bodies: Arc::new(Semaphore::new(LARGE_BODIES)) };
    Router::new()
        .route("/v1/ingest/{table}", post(ingest::ingest))
        .route("/v1/sql", post(sql::sql))
        .route("/v1/subscribe/{view}", get(subscribe::subscribe))
        .route("/v1/live", get(live::live))
        .route("/v1/views", get(status::views))
        .route("/v1/status", get(status::status))
        .route("/healthz", get(status::healthz))
        .route("/metrics", get(metrics::metrics))
        .route("/", get(page::index))
        .route("/page/{file}", get(page::file))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(same_origin))
        .with_state(app)
}

/// Serves HTTP on a bound listener until the task is dropped.
pub async fn serve(engine: Engine, listener: TcpListener) -> io::Result<()> {
    // Small answers must not wait for the peer's acknowledgement of the one before.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
    });
    axum::serve(listener, router(engine)).await
}

async fn unknown_path(request: Request) -> ApiError {
    let error = SqlError::new(state::UNDEFINED_TABLE, format!("there is nothing at {}", request.uri().path())).hint(
        "POST /v1/ingest/{table}, POST /v1/sql, GET /v1/subscribe/{view}, /v1/views, /v1/status, /healthz, /metrics",
    );
    ApiError::new(StatusCode::NOT_FOUND, error)
}

async fn wrong_method(request: Request) -> ApiError {
    let message = format!("{} does not take {}", request.uri().path(), request.method());
    let hint = match request.method() {
        &Method::GET | &Method::HEAD => "send a POST request",
        _ => "send a GET request",
    };
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, SqlError::not_supported(message).hint(hint))
}

/// Refuses requests that a page of another origin makes a browser send: without this, any web site
/// could send statements to a server on the visitor's own machine.
async fn same_origin(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok());
    let origin = headers.get(header::ORIGIN).map(|o| o.to_str().unwrap_or(""));
    if let Some(origin) = origin {
        let authority = origin.split_once("://").map(|(_, rest)| rest);
        if authority.is_none() || authority != host {
            let error = SqlError::new("28000", format!("requests from pages of {origin:?} are not accepted"))
                .hint("send the request from a page of this server, or from a program that sends no Origin header");
            return ApiError::new(StatusCode::FORBIDDEN, error).into_response();
        }
    }
    next.run(request).await
}
