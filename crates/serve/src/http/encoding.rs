//! In which form a request body holds its rows.

use axum::http::{HeaderMap, StatusCode, header};
use tidemill_engine::SqlError;

use super::error::ApiError;

/// The forms that are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// One JSON object per line.
    Ndjson,
    /// One JSON array of objects.
    JsonArray,
    /// Comma-separated values.
    Csv,
    /// An Arrow IPC stream.
    ArrowStream,
}

impl Encoding {
    /// The form that the header names, or else the one that the body looks like.
    pub(crate) fn of(headers: &HeaderMap, body: &[u8]) -> Result<Encoding, ApiError> {
        if let Some(coding) = headers.get(header::CONTENT_ENCODING).filter(|c| c.as_bytes() != b"identity") {
            let message = format!("cannot read a body with Content-Encoding {coding:?}");
            let error = SqlError::not_supported(message).hint("send the body as it is");
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
        }
        let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(Encoding::sniff(body)) };
        let value = value.to_str().unwrap_or("").to_ascii_lowercase();
        match value.split(';').next().unwrap_or("").trim() {
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines" => {
                Ok(Encoding::Ndjson)
            }
            "application/json" | "text/json" => Ok(Encoding::sniff_json(body)),
            "text/csv" | "application/csv" => Ok(Encoding::Csv),
            "application/vnd.apache.arrow.stream" => Ok(Encoding::ArrowStream),
            // What programs send that were not told what the body is, curl --data-binary among them.
            "" | "application/octet-stream" | "application/x-www-form-urlencoded" | "text/plain" => {
                Ok(Encoding::sniff(body))
            }
            other => Err(ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                SqlError::not_supported(format!("cannot read rows from {other}")),
            )
            .hint("send application/x-ndjson, application/json, text/csv or application/vnd.apache.arrow.stream")),
        }
    }

    fn sniff(body: &[u8]) -> Encoding {
        // An IPC stream begins with a continuation marker and never looks like text.
        if body.starts_with(&[0xff, 0xff, 0xff, 0xff]) {
            return Encoding::ArrowStream;
        }
        match without_mark(body).trim_ascii_start().first() {
            Some(b'{' | b'[') | None => Encoding::sniff_json(body),
            Some(_) => Encoding::Csv,
        }
    }

    fn sniff_json(body: &[u8]) -> Encoding {
        match without_mark(body).trim_ascii_start().first() {
            Some(b'[') => Encoding::JsonArray,
            _ => Encoding::Ndjson,
        }
    }
}

/// Some programs put a byte order mark before UTF-8.
pub(crate) fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(content_type: Option<&str>, body: &[u8]) -> Result<Encoding, ApiError> {
        let mut headers = HeaderMap::new();
        if let Some(t) = content_type {
            headers.insert(header::CONTENT_TYPE, t.parse().expect("header"));
        }
        Encoding::of(&headers, body)
    }

    #[test]
    fn the_header_decides() {
        assert_eq!(of(Some("text/csv; header=present"), b"{").expect("known"), Encoding::Csv);
        assert_eq!(of(Some("Application/X-NDJSON"), b"[").expect("known"), Encoding::Ndjson);
        assert_eq!(of(Some("application/json"), b" [1").expect("known"), Encoding::JsonArray);
        assert_eq!(of(Some("application/json"), b"{}").expect("known"), Encoding::Ndjson);
        let error = of(Some("application/xml"), b"<a/>").expect_err("unknown");
        assert_eq!(error.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
        let packed = HeaderMap::from_iter([(header::CONTENT_ENCODING, "gzip".parse().expect("header"))]);
        assert!(Encoding::of(&packed, b"\x1f\x8b").is_err());
    }

    #[test]
    fn without_a_header_the_body_tells() {
        assert_eq!(of(None, b"{\"a\":1}").expect("known"), Encoding::Ndjson);
        assert_eq!(of(None, b"\xef\xbb\xbf\n [{}]").expect("known"), Encoding::JsonArray);
        assert_eq!(of(None, b"a,b\n1,2\n").expect("known"), Encoding::Csv);
        assert_eq!(of(None, &[0xff, 0xff, 0xff, 0xff, 0, 0]).expect("known"), Encoding::ArrowStream);
        assert_eq!(of(Some("application/x-www-form-urlencoded"), b"a,b").expect("known"), Encoding::Csv);
    }
}
