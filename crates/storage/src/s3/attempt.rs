//! Trying a request again while its failure may pass.

use std::error::Error as _;
use std::io::{self, ErrorKind};
use std::time::Duration;

use object_store::{Error, Result};

/// The first pause; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The attempts at one request.
#[derive(Clone)]
pub(super) struct Attempts {
    /// How long pauses may still be, in all.
    patience: Duration,
    pause: Duration,
    /// How long one attempt may take.
    limit: Duration,
    failed: bool,
}

impl Attempts {
    pub(super) fn new(patience: Duration, limit: Duration) -> Self {
        Attempts { patience, pause: FIRST_PAUSE, limit, failed: false }
    }

    /// Whether any attempt failed so that it may be tried again.
    pub(super) fn failed(&self) -> bool {
        self.failed
    }

    /// Tries until it works, cannot work, or the patience is at its end.
    pub(super) async fn run<T, F: Future<Output = Result<T>>>(mut self, mut request: impl FnMut() -> F) -> Result<T> {
        loop {
            match self.once(request()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => self.pause(error).await?,
            }
        }
    }

    /// Tries once.
    pub(super) async fn once<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        let late = |_| {
            let cause = format!("no answer within {} s", self.limit.as_secs());
            Error::Generic { store: "S3", source: io::Error::new(ErrorKind::TimedOut, cause).into() }
        };
        tokio::time::timeout(self.limit, request).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
    }

    /// Waits before the next attempt; gives the error back if there shall be none.
    pub(super) async fn pause(&mut self, error: Error) -> Result<()> {
        if self.pause > self.patience || !may_pass(&error) {
            return Err(error);
        }
        self.failed = true;
        tokio::time::sleep(self.pause).await;
        self.patience -= self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

/// Whether the same request may work a little later: the network failed, or the server has a problem of its own.
fn may_pass(error: &Error) -> bool {
    let Error::Generic { .. } = error else { return false };
    match refusal(error) {
        Some(status) => status >= 500 || status == 408 || status == 429,
        None => true,
    }
}

/// The status with which the server refused, which the error tells in words only.
fn refusal(error: &Error) -> Option<u16> {
    let text = innermost(error);
    let after = text.split_once("status code: ")?.1;
    after.get(..3)?.parse().ok()
}

/// What the innermost cause says: the outer ones repeat it.
fn innermost(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = source.to_string();
        next = source.source();
    }
    text
}

/// Whether it is the bucket that is missing, not only the object.
pub(super) fn no_bucket(error: &Error) -> bool {
    error.to_string().contains("NoSuchBucket")
}

/// The error as the rest of this crate knows it.
pub(super) fn cause(error: Error) -> io::Error {
    let kind = match &error {
        Error::NotFound { .. } => ErrorKind::NotFound,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => ErrorKind::PermissionDenied,
        _ => ErrorKind::Other,
    };
    io::Error::new(kind, innermost(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(text: &str) -> Error {
        Error::Generic { store: "S3", source: text.into() }
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for (text, passes) in [
            ("Server returned non-2xx status code: 503 Service Unavailable: slow down", true),
            ("Server returned non-2xx status code: 429 Too Many Requests: ", true),
            ("Server returned non-2xx status code: 400 Bad Request: wrong region", false),
            ("Server returned non-2xx status code: 301 Moved: ", false),
            ("connection refused", true),
        ] {
            assert_eq!(may_pass(&failure(text)), passes, "{text}");
        }
        let refused = Error::PermissionDenied { path: "a".into(), source: "no".into() };
        assert!(!may_pass(&refused));
        assert_eq!(cause(refused).kind(), ErrorKind::PermissionDenied);
    }

    #[test]
    fn patience_ends() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut tried = 0;
        let attempts = Attempts::new(Duration::from_millis(320), Duration::from_secs(1));
        let result: Result<()> = runtime.block_on(attempts.run(|| {
            tried += 1;
            async { Err(failure("connection refused")) }
        }));
        assert!(result.is_err());
        assert_eq!(tried, 3, "after 100 and 200 ms");
        let late = Attempts::new(Duration::ZERO, Duration::from_millis(10));
        let result: Result<()> = runtime.block_on(late.run(std::future::pending));
        assert!(cause(result.unwrap_err()).to_string().contains("no answer within"));
    }
}
