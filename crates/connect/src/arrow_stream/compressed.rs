//! What the compressed buffers of a stream unfold to, found out before anything is unfolded.
//!
//! Arrow's reader makes room for the length that a buffer claims, and a length that no machine has room for ends the
//! process. LZ4 it unfolds to the end, whatever was claimed.

use arrow::ipc::{CompressionType, Message, RecordBatch, root_as_message};

use super::refused;
use crate::source::SourceError;

/// Before the length of a message.
const CONTINUATION: u32 = u32::MAX;
/// Before the content of a compressed buffer stands its length.
const PREFIX: usize = 8;
/// No byte of LZ4 unfolds to more bytes than this.
const LZ4_RATIO: usize = 255;
/// The header of an LZ4 frame without the parts that may be missing: a magic number, two bytes and a checksum.
const LZ4_HEADER: usize = 7;
const LZ4_MAGIC: u32 = 0x184d_2204;

/// What is at the front of a stream.
pub(crate) enum Next<'a> {
    /// A message, with its body.
    Whole(&'a [u8], Message<'a>, &'a [u8]),
    /// The beginning of one.
    Begun,
    /// The stream's end, or something that the reader will refuse.
    Other,
}

/// Takes what the compressed buffers of a stream unfold to from what there is room for.
pub(crate) fn check(body: &[u8], room: &mut usize) -> Result<(), SourceError> {
    let mut rest = body;
    while let Next::Whole(whole, message, data) = next(rest) {
        let batch =
            message.header_as_record_batch().or_else(|| message.header_as_dictionary_batch().and_then(|d| d.data()));
        if let Some(batch) = batch {
            *room = room.checked_sub(unfolded(&batch, data)).ok_or_else(refused)?;
        }
        rest = &rest[whole.len()..];
    }
    Ok(())
}

/// Looks at the front of a stream.
pub(crate) fn next(bytes: &[u8]) -> Next<'_> {
    let Some((mut length, mut rest)) = number(bytes) else { return Next::Begun };
    if length == CONTINUATION {
        let Some(second) = number(rest) else { return Next::Begun };
        (length, rest) = second;
    }
    if length == 0 {
        return Next::Other;
    }
    let Some((message, rest)) = rest.split_at_checked(length as usize) else { return Next::Begun };
    let Ok(message) = root_as_message(message) else { return Next::Other };
    let Ok(body) = usize::try_from(message.bodyLength()) else { return Next::Other };
    match rest.split_at_checked(body) {
        Some((data, after)) => Next::Whole(&bytes[..bytes.len() - after.len()], message, data),
        None => Next::Begun,
    }
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    bytes.split_first_chunk().map(|(number, rest)| (u32::from_le_bytes(*number), rest))
}

/// How many bytes the compressed buffers of a batch unfold to, at most.
fn unfolded(batch: &RecordBatch<'_>, data: &[u8]) -> usize {
    let (Some(compression), Some(buffers)) = (batch.compression(), batch.buffers()) else { return 0 };
    let sizes = buffers.iter().filter_map(|buffer| {
        let (from, length) = (usize::try_from(buffer.offset()).ok()?, usize::try_from(buffer.length()).ok()?);
        let (claim, content) = data.get(from..from.checked_add(length)?)?.split_first_chunk::<PREFIX>()?;
        let claim = i64::from_le_bytes(*claim);
        // Nothing, not compressed, or an error.
        if claim <= 0 {
            return None;
        }
        let claim = usize::try_from(claim).unwrap_or(usize::MAX);
        Some(if compression.codec() == CompressionType::LZ4_FRAME { claim.max(lz4(content)) } else { claim })
    });
    sizes.fold(0, usize::saturating_add)
}

/// How many bytes LZ4 frames unfold to, at most: a block never to more than its frame says, nor than its own bytes allow.
fn lz4(frames: &[u8]) -> usize {
    let (mut size, mut rest) = (0usize, frames);
    while let Some((largest, with_checksums, blocks)) = lz4_frame(rest) {
        rest = blocks;
        while let Some((length, after)) = number(rest).filter(|(length, _)| *length > 0) {
            let length = (length & 0x7fff_ffff) as usize;
            size = size.saturating_add(largest.min(length.saturating_mul(LZ4_RATIO)));
            rest = after.get(length + if with_checksums { 4 } else { 0 }..).unwrap_or_default();
        }
        rest = rest.get(4..).unwrap_or_default();
    }
    // Whatever this does not know how to follow.
    size.saturating_add(rest.len().saturating_mul(LZ4_RATIO))
}

/// A frame's largest block, whether its blocks have checksums, and what follows its header.
fn lz4_frame(bytes: &[u8]) -> Option<(usize, bool, &[u8])> {
    let (magic, rest) = number(bytes)?;
    let (flags, block) = (*rest.first()?, *rest.get(1)?);
    // 64 KiB, 256 KiB, 1 MiB or 4 MiB.
    let largest = 1usize.checked_shl(8 + 2 * u32::from(block >> 4 & 7)).filter(|_| block >> 4 & 7 >= 4)?;
    let optional = if flags & 8 != 0 { 8 } else { 0 } + if flags & 1 != 0 { 4 } else { 0 };
    (magic == LZ4_MAGIC).then_some((largest, flags & 16 != 0, bytes.get(LZ4_HEADER + optional..)?))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};

    use super::*;

    fn stream(codec: CompressionType, rows: i64) -> Option<Vec<u8>> {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values((0..rows).map(|i| i / 3)));
        let batch = RecordBatch::try_from_iter([("a", column)]).expect("valid");
        // Whether there is the codec is a matter of the build.
        let options = IpcWriteOptions::default().try_with_compression(Some(codec)).expect("a codec");
        let mut writer = StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options).expect("valid");
        writer.write(&batch).ok()?;
        writer.finish().expect("valid");
        writer.into_inner().ok()
    }

    #[test]
    fn what_compressed_streams_unfold_to_is_known() {
        for codec in [CompressionType::LZ4_FRAME, CompressionType::ZSTD] {
            let Some(body) = stream(codec, 100_000) else { continue };
            assert!(body.len() < 700_000, "it is not compressed");
            assert!(check(&body, &mut 799_999).is_err());
            // The last block may be smaller than it could be.
            assert!(check(&body, &mut (800_000 + (4 << 20))).is_ok());
        }
        let plain = crate::arrow_stream::tests::stream(vec![("a", Arc::new(Int64Array::from(vec![1, 2, 3])))]);
        assert!(check(&plain, &mut 0).is_ok());
    }

    #[test]
    fn lz4_is_followed_block_by_block() {
        let header = [&LZ4_MAGIC.to_le_bytes()[..], &[0x60, 0x40, 0][..]].concat();
        let block = |length: u32| [&length.to_le_bytes()[..], &vec![0; length as usize][..]].concat();
        let frame = [header.clone(), block(10), block(1000), vec![0; 4]].concat();
        assert_eq!(lz4(&frame), 2550 + (64 << 10));
        assert_eq!(lz4(&[frame.clone(), frame].concat()), 2 * (2550 + (64 << 10)));
        assert_eq!(lz4(b"something else"), 14 * 255);
        // A block that is longer than what is there.
        assert_eq!(lz4(&[header, 1000u32.to_le_bytes().to_vec(), vec![0; 20]].concat()), 64 << 10);
    }
}
