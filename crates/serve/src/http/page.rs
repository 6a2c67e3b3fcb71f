//! The console: one hand-written page, embedded in the binary, that asks nothing of any other server.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tidemill_engine::{SqlError, state};

use super::error::ApiError;

/// Only this server's own scripts, styles and data; no frames, no forms to elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page.
struct File {
    name: &'static str,
    kind: &'static str,
    content: &'static str,
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

const INDEX: File = File { name: "", kind: "text/html; charset=utf-8", content: include_str!("page/index.html") };

const FILES: [File; 8] = [
    File { name: "style.css", kind: "text/css; charset=utf-8", content: include_str!("page/style.css") },
    File { name: "main.js", kind: SCRIPT, content: include_str!("page/main.js") },
    File { name: "store.js", kind: SCRIPT, content: include_str!("page/store.js") },
    File { name: "table.js", kind: SCRIPT, content: include_str!("page/table.js") },
    File { name: "chart.js", kind: SCRIPT, content: include_str!("page/chart.js") },
    File { name: "format.js", kind: SCRIPT, content: include_str!("page/format.js") },
    File { name: "sql.js", kind: SCRIPT, content: include_str!("page/sql.js") },
    File { name: "icon.svg", kind: "image/svg+xml", content: include_str!("page/icon.svg") },
];

/// Identifies this build's files: they change together or not at all.
static TAG: LazyLock<String> = LazyLock::new(|| {
    let hash = FILES
        .iter()
        .chain([&INDEX])
        .fold(0, |h: u64, f| h.rotate_left(5) ^ tidemill_delta::hash_bytes(f.content.as_bytes()));
    format!("\"{hash:016x}\"")
});

/// The page.
pub(crate) async fn index(headers: HeaderMap) -> Response {
    answer(&INDEX, &headers)
}

/// A file that the page loads.
pub(crate) async fn file(name: Result<Path<String>, PathRejection>, headers: HeaderMap) -> Result<Response, ApiError> {
    let Path(name) = name?;
    match FILES.iter().find(|f| f.name == name) {
        Some(file) => Ok(answer(file, &headers)),
        None => {
            let error = SqlError::new(state::UNDEFINED_TABLE, format!("the page has no file {name:?}"));
            Err(ApiError::new(StatusCode::NOT_FOUND, error))
        }
    }
}

fn answer(file: &File, headers: &HeaderMap) -> Response {
    let common = [
        (header::ETAG, TAG.as_str()),
        // The browser keeps the files but asks each time, so that an upgrade shows at once.
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    let seen = headers.get(header::IF_NONE_MATCH).is_some_and(|t| t.as_bytes() == TAG.as_bytes());
    if seen {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    (common, [(header::CONTENT_TYPE, file.kind)], file.content).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_only_files_that_exist_and_no_other_server() {
        for file in FILES.iter().chain([&INDEX]) {
            let text = file.content.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains("http://") && !text.contains("https://"), "{}", file.name);
        }
        for part in INDEX.content.split("/page/").skip(1) {
            let name = part.split('"').next().unwrap_or_default();
            assert!(FILES.iter().any(|f| f.name == name), "{name}");
        }
    }

    #[test]
    fn a_known_tag_is_not_sent_again() {
        let mut headers = HeaderMap::new();
        assert_eq!(answer(&INDEX, &headers).status(), StatusCode::OK);
        headers.insert(header::IF_NONE_MATCH, TAG.parse().expect("tag"));
        assert_eq!(answer(&INDEX, &headers).status(), StatusCode::NOT_MODIFIED);
    }
}
