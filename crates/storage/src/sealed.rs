//! Small and large files that are written once: content, then a footer that proves it.
//!
//! The footer's checksum covers the content, its length, the format's version and the file's name,
//! so a file that was cut, changed or put in the place of another one is not taken for it.

use std::path::Path;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::StorageError;

/// Length of the footer in bytes.
pub const FOOTER: usize = 32;

const MAGIC: &[u8; 4] = b"TmSF";
const VERSION: u32 = 1;

/// Adds the footer to a file's content. Returns the checksum, which a manifest may repeat.
pub fn seal(name: &str, bytes: &mut Vec<u8>) -> u64 {
    let checksum = checksum(name, bytes);
    let length = bytes.len() as u64;
    let mut footer = [0; FOOTER];
    footer[0..4].copy_from_slice(MAGIC);
    footer[4..8].copy_from_slice(&VERSION.to_le_bytes());
    footer[8..16].copy_from_slice(&length.to_le_bytes());
    footer[16..24].copy_from_slice(&checksum.to_le_bytes());
    let own = xxh3_64_with_seed(&footer[..24], checksum);
    footer[24..].copy_from_slice(&own.to_le_bytes());
    bytes.extend_from_slice(&footer);
    checksum
}

/// Checks the footer and takes it off. Returns the checksum.
///
/// # Errors
/// `Damaged`, with the path given, if the content is not what was sealed under this name.
pub fn unseal(name: &str, bytes: &mut Vec<u8>, path: &Path) -> Result<u64, StorageError> {
    let damaged = |at: usize, cause: String| Err(StorageError::damaged(path, at as u64, cause));
    let Some((content, footer)) = bytes.split_last_chunk::<FOOTER>() else {
        return damaged(0, format!("{} bytes are too few for a footer", bytes.len()));
    };
    let end = content.len();
    let [length, expected, own] = [8, 16, 24].map(|at| crate::number(footer, at));
    if footer[..4] != *MAGIC || own != xxh3_64_with_seed(&footer[..24], expected) {
        return damaged(end, "no footer; the file was cut or changed".into());
    }
    if footer[4..8] != VERSION.to_le_bytes() {
        let version = u32::from_le_bytes([footer[4], footer[5], footer[6], footer[7]]);
        return damaged(end, format!("format version {version}, but this program reads version {VERSION}"));
    }
    if length != end as u64 {
        return damaged(end, format!("the content has {end} bytes, the footer says {length}"));
    }
    if checksum(name, content) != expected {
        return damaged(0, format!("the content's checksum is not the footer's, or this is not the file {name}"));
    }
    bytes.truncate(end);
    Ok(expected)
}

fn checksum(name: &str, content: &[u8]) -> u64 {
    xxh3_64_with_seed(content, xxh3_64_with_seed(name.as_bytes(), content.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let mut sealed = b"what is on disk".to_vec();
        seal("a", &mut sealed);
        let path = Path::new("a");
        for bit in 0..sealed.len() * 8 {
            let mut bytes = sealed.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal("a", &mut bytes, path).is_err(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(unseal("a", &mut sealed[..length].to_vec(), path).is_err(), "{length}");
        }
        assert!(unseal("b", &mut sealed.clone(), path).is_err(), "under another name");
        unseal("a", &mut sealed, path).unwrap();
        assert_eq!(sealed, b"what is on disk");
    }
}
