//! Where the bucket is, and with which rights.

use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{ClientConfigKey, RetryConfig};

/// How to reach a store. What is not said here comes from the variables that Amazon's own tools read:
/// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT_URL`,
/// `AWS_ALLOW_HTTP`; without a key, from the machine's role.
#[derive(Clone)]
pub struct S3Options {
    /// The key's name.
    pub access_key_id: Option<String>,
    /// The key.
    pub secret_access_key: Option<String>,
    /// The store's address if it is not Amazon's, as `http://host:port` or `https://…`.
    pub endpoint: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// Whether the address may be one without encryption.
    pub allow_http: Option<bool>,
    /// How long pauses between attempts at one request may be in all, before it fails.
    pub patience: Duration,
}

impl Default for S3Options {
    fn default() -> Self {
        let (access_key_id, secret_access_key, endpoint, region, allow_http) = Default::default();
        let patience = Duration::from_secs(60);
        S3Options { access_key_id, secret_access_key, endpoint, region, allow_http, patience }
    }
}

/// Without the keys, so that they get into no log.
impl std::fmt::Debug for S3Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let S3Options { endpoint, region, allow_http, patience, .. } = self;
        let mut debug = f.debug_struct("S3Options");
        debug.field("endpoint", endpoint).field("region", region).field("allow_http", allow_http);
        debug.field("patience", patience).finish_non_exhaustive()
    }
}

impl S3Options {
    pub(super) fn builder(&self, bucket: &str) -> AmazonS3Builder {
        let given = [
            (AmazonS3ConfigKey::AccessKeyId, self.access_key_id.clone()),
            (AmazonS3ConfigKey::SecretAccessKey, self.secret_access_key.clone()),
            (AmazonS3ConfigKey::Endpoint, self.endpoint.clone()),
            (AmazonS3ConfigKey::Region, self.region.clone()),
            (AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp), self.allow_http.map(|allow| allow.to_string())),
            // Each attempt has its own limit, by its length.
            (AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), Some("1 day".to_owned())),
        ];
        let given = given.into_iter().filter_map(|(key, value)| Some((key, value?)));
        let builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
        let builder = given.fold(builder, |builder, (key, value)| builder.with_config(key, value));
        // Attempts are counted here, where it is known what a lost answer means.
        builder.with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
    }
}

/// A bucket, and what stands before names in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) bucket: String,
    pub(super) prefix: String,
}

/// What a URL says, or what is wrong with it.
pub(super) fn place(url: &str) -> Result<Place, String> {
    let wrong = |what: &str| Err(format!("{what}; it should be s3://bucket or s3://bucket/prefix"));
    let Some(rest) = url.strip_prefix("s3://") else { return wrong("the address does not begin with s3://") };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
    if bucket.is_empty() || !bucket.bytes().all(plain) {
        return wrong("the bucket's name is empty, or has a character that no bucket has");
    }
    let prefix = prefix.trim_end_matches('/');
    let segment = |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(plain);
    if !prefix.is_empty() && !prefix.split('/').all(segment) {
        return wrong(
            "the prefix has a part that is empty, '.' or '..', or has other characters than A-Z, a-z, 0-9, '-', '_' and '.'",
        );
    }
    let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    Ok(Place { bucket: bucket.to_owned(), prefix })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_bucket_and_a_prefix() {
        for (url, bucket, prefix) in [
            ("s3://b", "b", ""),
            ("s3://b/", "b", ""),
            ("s3://my.bucket-1/a/B_c", "my.bucket-1", "a/B_c/"),
            ("s3://b/a/", "b", "a/"),
        ] {
            let expected = Place { bucket: bucket.into(), prefix: prefix.into() };
            assert_eq!(place(url), Ok(expected), "{url}");
        }
        for url in ["", "b", "http://b", "s3://", "s3:///a", "s3://b/a//c", "s3://b/../c", "s3://b/a b", "s3://b?c"] {
            assert!(place(url).is_err(), "{url}");
        }
    }

    #[test]
    fn the_keys_are_not_printed() {
        let options = S3Options { secret_access_key: Some("very-secret".into()), ..S3Options::default() };
        assert!(!format!("{options:?}").contains("very-secret"));
    }
}
