//! One request: its body, its signature, and what the endpoint makes of it.

use std::fmt::Write as _;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tidemill_delta::{Delta, Epoch};
use tidemill_env::Env;
use ureq::http::{StatusCode, Uri};

use crate::json_out::{json_row, json_string};
use crate::options::Options;
use crate::sink::{Rejected, SinkError};

/// The most of an answer's text that is read, and that is told as a reason.
const ANSWER_BYTES: u64 = 64 << 10;
const REASON_CHARS: usize = 200;

/// Rows that are sent together.
pub(super) struct Request {
    pub(super) epoch: Epoch,
    /// Names these rows, whenever they are sent.
    pub(super) key: String,
    pub(super) delta: Delta,
    pub(super) attempts: u32,
}

/// What became of a request.
pub(super) enum Answer {
    Taken,
    /// It would be refused again.
    Refused(String),
    /// It may be taken another time.
    Later {
        reason: String,
        after: Option<Duration>,
    },
}

/// Where requests go.
pub(super) struct Endpoint {
    sink: String,
    url: Uri,
    secret: Option<Vec<u8>>,
    token: Option<String>,
    agent: ureq::Agent,
    env: Env,
    pub(super) incarnation: u64,
}

impl Request {
    pub(super) fn rejected(self, reason: &str) -> Rejected {
        Rejected { epoch: self.epoch, delta: self.delta, reason: reason.to_owned(), attempts: self.attempts }
    }

    /// `{"sink":"s","epoch":5,"rows":[{"diff":1,"row":{...}}, ...]}`
    fn body(&self, sink: &str) -> String {
        let mut body = String::from("{\"sink\":");
        json_string(sink, &mut body);
        let _ = write!(body, ",\"epoch\":{},\"rows\":[", self.epoch);
        for row in 0..self.delta.len() {
            let comma = if row > 0 { "," } else { "" };
            let _ = write!(body, "{comma}{{\"diff\":{},\"row\":", self.delta.weight(row));
            json_row(&self.delta.rows, row, &mut body);
            body.push('}');
        }
        body.push_str("]}");
        body
    }
}

impl Endpoint {
    pub(super) fn new(sink: &str, options: &mut Options<'_>, env: &Env) -> Result<Endpoint, SinkError> {
        let url = url(options.required("url")?)?;
        let timeout = options.duration("timeout", Duration::from_secs(10))?;
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout.max(Duration::from_millis(1))))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("tidemill/", env!("CARGO_PKG_VERSION")));
        let token = options.get("token").map(|token| format!("Bearer {token}"));
        if token.as_ref().is_some_and(|t| !t.bytes().all(|b| (b' '..=b'~').contains(&b))) {
            return Err(SinkError::fatal("option \"token\" has characters that a header cannot have"));
        }
        Ok(Endpoint {
            sink: sink.to_owned(),
            url,
            secret: options.get("secret").map(|secret| secret.as_bytes().to_vec()),
            token,
            agent: config.build().into(),
            env: env.clone(),
            incarnation: 0,
        })
    }

    pub(super) fn post(&self, request: &Request) -> Answer {
        let body = request.body(&self.sink);
        let mut post = self
            .agent
            .post(self.url.clone())
            .header("content-type", "application/json")
            .header("idempotency-key", header_text(&request.key))
            .header("tidemill-incarnation", self.incarnation.to_string());
        if let Some(secret) = &self.secret {
            let seconds = self.env.now_micros().div_euclid(1_000_000);
            post = post.header("tidemill-signature", signature(secret, seconds, &body));
        }
        if let Some(token) = &self.token {
            post = post.header("authorization", token);
        }
        let mut response = match post.send(body) {
            Ok(response) => response,
            Err(error) => return Answer::Later { reason: error.to_string(), after: None },
        };
        // Read to its end, a connection can be used again.
        let text = response.body_mut().with_config().limit(ANSWER_BYTES).read_to_vec().unwrap_or_default();
        let status = response.status();
        if status.is_success() {
            return Answer::Taken;
        }
        let text = String::from_utf8_lossy(&text);
        let text: String = text.trim().chars().filter(|c| !c.is_control()).take(REASON_CHARS).collect();
        let colon = if text.is_empty() { "" } else { ": " };
        let reason = format!("HTTP {}{colon}{text}", status.as_u16());
        if !is_for_now(status) {
            return Answer::Refused(reason);
        }
        let after = response.headers().get("retry-after").and_then(|v| v.to_str().ok()?.trim().parse().ok());
        Answer::Later { reason, after: after.map(Duration::from_secs) }
    }
}

fn is_for_now(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429)
}

fn url(text: &str) -> Result<Uri, SinkError> {
    let uri: Option<Uri> = text.parse().ok();
    let has_scheme = |scheme| uri.as_ref().is_some_and(|uri| uri.scheme_str() == Some(scheme));
    if has_scheme("https") {
        let message = "a webhook's url is http://...: for TLS put a proxy on this machine between";
        return Err(SinkError::fatal(message));
    }
    // What is wrong is not repeated: it may hold a secret.
    let wrong = || SinkError::fatal("option \"url\" is http://host:port/path");
    if !has_scheme("http") {
        return Err(wrong());
    }
    let uri = uri.ok_or_else(wrong)?;
    match uri.authority() {
        Some(authority) if authority.as_str().contains('@') => {
            let message = "a webhook's url has no user and password: use the options \"token\" or \"secret\"";
            Err(SinkError::fatal(message))
        }
        Some(_) => Ok(uri),
        None => Err(wrong()),
    }
}

/// A sink's name may have any characters, a header only ASCII ones.
fn header_text(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_graphic() && b != b'%';
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02x}") }).collect()
}

/// `t=<seconds>,v1=<HMAC-SHA256 of "<seconds>.<body>">`
pub(super) fn signature(secret: &[u8], seconds: i64, body: &str) -> String {
    let mut text = format!("t={seconds},v1=");
    // A key of this function may have any length.
    if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) {
        mac.update(format!("{seconds}.").as_bytes());
        mac.update(body.as_bytes());
        for byte in mac.finalize().into_bytes() {
            let _ = write!(text, "{byte:02x}");
        }
    }
    text
}
