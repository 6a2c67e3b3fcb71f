//! Object stores that checkpoints are kept in, by their address.

use std::sync::Arc;

use tidemill_storage::ObjectStore;

use crate::Failure;

/// A store, which is asked whether it is there and may be used.
#[cfg(feature = "s3")]
pub fn open(url: &str) -> Result<Arc<dyn ObjectStore>, Failure> {
    use tidemill_storage::{S3Options, S3Store};

    // A checkpoint that cannot be put is tried again anyway, and whoever waits for a start wants to know.
    let patience = std::time::Duration::from_secs(10);
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let endpoint = set("AWS_ENDPOINT_URL").or_else(|| set("AWS_ENDPOINT"));
    // An address that begins with http:// says by itself that it is to be used without encryption.
    let plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
    let allow_http = (plain && set("AWS_ALLOW_HTTP").is_none()).then_some(true);
    let store = S3Store::open(url, &S3Options { allow_http, patience, ..S3Options::default() });
    let store = store.map_err(|error| {
        let hint = "It needs a bucket that is there, and AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and, if it is \
                    not Amazon's, AWS_ENDPOINT_URL.";
        Failure(format!("error: the store for checkpoints cannot be used: {error}\n{hint}"))
    })?;
    Ok(Arc::new(store))
}

/// This program was built without them.
#[cfg(not(feature = "s3"))]
pub fn open(url: &str) -> Result<Arc<dyn ObjectStore>, Failure> {
    Err(Failure(format!(
        "error: checkpoints cannot be kept in {url}: this program was built without S3; build it with --features s3"
    )))
}
