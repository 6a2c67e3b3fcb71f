//! Checkpoints in S3, or in a store that speaks its protocol.
//!
//! Each request is tried again as long as its failure may pass, with growing pauses; then it is an error that names the
//! object and the last cause. An object is put in one request, so none is ever there by half. [`S3Store`] owns a
//! thread that does the network's work; its methods wait for it, so they are for threads that may wait.

mod attempt;
mod options;
mod runtime;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::aws::AmazonS3;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{
    Error, GetOptions, ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, Result as Answer,
};

use crate::error::At;
use crate::store::check;
use crate::{Object, ObjectStore, StorageError};

use attempt::{Attempts, no_bucket};
pub use options::S3Options;
use runtime::Runtime;

/// What a request may take, beside what its bytes may.
const REQUEST: Duration = Duration::from_secs(30);
/// The slowest that bytes may come or go, in bytes a second.
const SLOWEST: u64 = 1 << 20;

/// Objects in a bucket, below a prefix.
pub struct S3Store {
    store: Arc<AmazonS3>,
    /// What stands before names in the bucket: nothing, or a path with a slash at its end.
    prefix: String,
    /// What stands before names in messages.
    url: String,
    patience: Duration,
    runtime: Runtime,
}

impl S3Store {
    /// A store below `s3://bucket/prefix`, which is asked once whether it is there.
    ///
    /// # Errors
    /// If the options are wrong, or the store does not answer or refuses.
    pub fn open(url: &str, options: &S3Options) -> Result<Self, StorageError> {
        let at = PathBuf::from(url);
        let refuse = |cause: String| Err(io::Error::new(io::ErrorKind::InvalidInput, cause)).at("use", &at);
        let place = match options::place(url) {
            Ok(place) => place,
            Err(cause) => return refuse(cause),
        };
        let store = match options.builder(&place.bucket).build() {
            Ok(store) => Arc::new(store),
            Err(error) => return refuse(error.to_string()),
        };
        let runtime = Runtime::start().at("start a thread for", &at)?;
        let url = format!("s3://{}/{}", place.bucket, place.prefix);
        let store = S3Store { store, prefix: place.prefix, url, patience: options.patience, runtime };
        store.list("")?;
        Ok(store)
    }

    fn place(&self, name: &str) -> Path {
        Path::from(format!("{}{name}", self.prefix))
    }

    fn attempts(&self, bytes: usize) -> Attempts {
        Attempts::new(self.patience, REQUEST + Duration::from_secs(bytes as u64 / SLOWEST))
    }

    /// Runs a request to its end and says what failed.
    fn run<T: Send + 'static>(
        &self,
        action: &'static str,
        name: &str,
        request: impl Future<Output = Answer<T>> + Send + 'static,
    ) -> Result<T, StorageError> {
        let answer = self.runtime.run(request).and_then(|answer| answer.map_err(attempt::cause));
        answer.at(action, &self.path(name))
    }
}

impl ObjectStore for S3Store {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        check(name)?;
        let (store, place, attempts) = (self.store.clone(), self.place(name), self.attempts(bytes.len()));
        let payload = PutPayload::from(bytes.to_vec());
        self.run("put", name, async move { attempts.run(|| store.put(&place, payload.clone())).await.map(drop) })
    }

    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<bool, StorageError> {
        check(name)?;
        let (store, place, attempts) = (self.store.clone(), self.place(name), self.attempts(bytes.len()));
        let payload = PutPayload::from(bytes.to_vec());
        self.run("put", name, put_new(store, place, attempts, payload))
    }

    fn get(&self, name: &str, at_most: usize) -> Result<Option<Vec<u8>>, StorageError> {
        check(name)?;
        let (store, place, attempts) = (self.store.clone(), self.place(name), self.attempts(at_most));
        let got = self.run("get", name, async move {
            attempts.run(|| get(&store, &place, at_most)).await.map(Some).or_else(|error| match error {
                Error::NotFound { .. } if !no_bucket(&error) => Ok(None),
                error => Err(error),
            })
        })?;
        let too_long = |length: u64| {
            let cause = format!("the object has {length} bytes where at most {at_most} can be");
            StorageError::damaged(&self.path(name), at_most as u64, cause)
        };
        got.map(|got| got.map_err(too_long)).transpose()
    }

    fn list(&self, prefix: &str) -> Result<Vec<Object>, StorageError> {
        let (store, attempts, start) = (self.store.clone(), self.attempts(0), format!("{}{prefix}", self.prefix));
        let skip = self.prefix.len();
        let mut objects: Vec<Object> = self.run("list", prefix, list(store, attempts, start, skip))?;
        objects.retain(|object| check(&object.name).is_ok());
        objects.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(objects)
    }

    fn delete(&self, name: &str) -> Result<(), StorageError> {
        check(name)?;
        let (store, place, attempts) = (self.store.clone(), self.place(name), self.attempts(0));
        self.run("delete", name, async move {
            attempts.run(|| store.delete(&place)).await.or_else(|error| match error {
                Error::NotFound { .. } if !no_bucket(&error) => Ok(()),
                error => Err(error),
            })
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("{}{name}", self.url))
    }
}

/// Puts an object unless the name is taken.
///
/// If an answer was lost, nobody knows whether the object was stored. When the next attempt finds the name
/// taken, the bytes tell: ours, which nobody else would have put, or not.
async fn put_new(store: Arc<AmazonS3>, place: Path, mut attempts: Attempts, payload: PutPayload) -> Answer<bool> {
    loop {
        let options = PutOptions::from(PutMode::Create);
        match attempts.once(store.put_opts(&place, payload.clone(), options)).await {
            Ok(_) => return Ok(true),
            Err(Error::AlreadyExists { .. }) if attempts.failed() => {
                let most = payload.content_length();
                let there = attempts.run(|| get(&store, &place, most)).await?;
                return Ok(there.is_ok_and(|bytes| payload.iter().flatten().eq(&bytes)));
            }
            Err(Error::AlreadyExists { .. }) => return Ok(false),
            Err(error) => attempts.pause(error).await?,
        }
    }
}

/// An object's bytes, or its length if that is more than there may be.
async fn get(store: &AmazonS3, place: &Path, at_most: usize) -> Answer<Result<Vec<u8>, u64>> {
    let got = store.get_opts(place, GetOptions::default()).await?;
    let length = got.meta.size;
    let Some(length) = usize::try_from(length).ok().filter(|length| *length <= at_most) else {
        return Ok(Err(length));
    };
    let mut bytes = Vec::with_capacity(length);
    let mut pieces = got.into_stream();
    while let Some(piece) = pieces.try_next().await? {
        if bytes.len() + piece.len() > at_most {
            return Ok(Err((bytes.len() + piece.len()) as u64));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(Ok(bytes))
}

/// All objects whose place begins so, named by what comes after the first `skip` bytes.
async fn list(store: Arc<AmazonS3>, attempts: Attempts, start: String, skip: usize) -> Answer<Vec<Object>> {
    let mut objects = Vec::new();
    let mut page_token = None;
    loop {
        // Only what is below the prefix, not below that again.
        let page = attempts.clone().run(|| {
            let options = PaginatedListOptions {
                delimiter: Some("/".into()),
                page_token: page_token.clone(),
                ..PaginatedListOptions::default()
            };
            store.list_paginated(Some(&start), options)
        });
        let page = page.await?;
        for object in page.result.objects {
            if let Some(name) = object.location.as_ref().get(skip..) {
                objects.push(Object { name: name.to_owned(), length: object.size });
            }
        }
        page_token = page.page_token;
        if page_token.is_none() {
            return Ok(objects);
        }
    }
}
