//! What is on disk: the durable log, and checkpoints with the manifest that commits them.
//!
//! Everything starts with the [`DataFolder`], which one process owns at a time. In it is the
//! [`Log`], appended to in groups and synced by a thread of its own, and a [`FolderStore`] with
//! the files of [`Checkpoints`]. Acknowledged means synced; what was written is checked when it is
//! read; and what is not as it was written is an error that names the file, the place and the
//! cause. Bytes and files are in [`format`](mod@format).

#![deny(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]

mod checkpoint;
mod claim;
mod error;
mod folder;
mod inspect;
mod log;
mod manifest;
mod owner;
#[cfg(feature = "s3")]
mod s3;
mod sealed;
mod store;

pub use checkpoint::inspect::{CheckpointFinding, CheckpointFindings, inspect_checkpoints};
pub use checkpoint::{Checkpoints, Loaded, Newest};
pub use error::StorageError;
pub use folder::DataFolder;
pub use inspect::{Inspection, Size};
pub use log::inspect::{LogFindings, SegmentFinding};
pub use log::{
    Handlers, Log, LogOptions, LogWriter, Opened, RECORD_HEADER, Record, RecordNumber, Records, Refused, State, Step,
    TornTail,
};
pub use manifest::{FileEntry, Manifest};
pub use owner::{is_owned, own};
#[cfg(feature = "s3")]
pub use s3::{S3Options, S3Store};
pub use sealed::FOOTER;
pub use store::{FolderStore, Object, ObjectStore};

#[doc = include_str!("../FORMAT.md")]
pub mod format {}

/// The little-endian number at a place in bytes that are there.
fn number(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}
