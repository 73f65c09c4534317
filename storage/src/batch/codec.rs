//! Compressing and decompressing a batch's records, in each of Kafka's codecs.
//!
//! - gzip: one or more members;
//! - snappy: written in the framing of Java's `SnappyOutputStream` ("xerial"), which every client
//!   reads; read in that framing and as one raw block, which librdkafka and others send;
//! - lz4: the frame format, written with independent blocks of 64 KiB;
//! - zstd: one or more frames.
//!
//! What is read never takes more memory than the caller allows, whatever the bytes claim.

use std::io::{self, Read, Write};

use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use crate::batch::Compression;
use crate::error::{Error, Result};

const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// Magic, version and the oldest version that can read it.
const XERIAL_HEADER_SIZE: usize = 16;
const XERIAL_VERSION: [u8; 4] = [0, 0, 0, 1];
const XERIAL_BLOCK_SIZE: usize = 32 * 1024;
/// Snappy's best is 64 bytes for three; a length that claims more is a lie.
const SNAPPY_MAX_RATIO: usize = 32;
/// The framing from before the frame format, which Kafka's readers do not know; its blocks have 8 MiB.
const LZ4_LEGACY_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// The most that gzip knows.
const GZIP_MAX_LEVEL: u32 = 9;
/// zstd's own default.
const ZSTD_LEVEL: i32 = 3;

/// What `compressed` holds; `CorruptBatch` where it is garbage or more than `max_bytes`.
pub(super) fn decompress(
    codec: Compression,
    compressed: &[u8],
    max_bytes: usize,
) -> Result<Vec<u8>> {
    match codec {
        Compression::None => bounded(compressed, compressed.len(), max_bytes),
        Compression::Gzip => bounded(MultiGzDecoder::new(compressed), compressed.len(), max_bytes),
        Compression::Snappy => unsnap(compressed, max_bytes),
        Compression::Lz4 if compressed.starts_with(&LZ4_LEGACY_MAGIC) => {
            Err(Error::CorruptBatch("lz4: a legacy frame".to_owned()))
        }
        Compression::Lz4 => bounded(FrameDecoder::new(compressed), compressed.len(), max_bytes),
        Compression::Zstd => zstd::stream::read::Decoder::with_buffer(compressed)
            .map_err(|error| damaged(&error))
            .and_then(|decoder| bounded(decoder, compressed.len(), max_bytes)),
    }
}

/// `bytes` compressed, at the codec's own level where none is given; snappy and lz4 have one level.
/// Fails only where a codec itself does, such as for want of memory.
pub fn compress(codec: Compression, level: Option<i32>, bytes: &[u8]) -> io::Result<Vec<u8>> {
    match codec {
        Compression::None => Ok(bytes.to_vec()),
        Compression::Gzip => {
            let level = level
                .and_then(|level| u32::try_from(level).ok())
                .filter(|level| *level <= GZIP_MAX_LEVEL)
                .map_or_else(flate2::Compression::default, flate2::Compression::new);
            let mut encoder = GzEncoder::new(Vec::new(), level);
            encoder.write_all(bytes)?;
            encoder.finish()
        }
        Compression::Snappy => snap(bytes),
        Compression::Lz4 => {
            let frame = FrameInfo::new()
                .block_size(BlockSize::Max64KB)
                .block_mode(BlockMode::Independent);
            let mut encoder = FrameEncoder::with_frame_info(frame, Vec::new());
            encoder.write_all(bytes)?;
            encoder.finish().map_err(io::Error::other)
        }
        Compression::Zstd => zstd::bulk::compress(bytes, level.unwrap_or(ZSTD_LEVEL)),
    }
}

fn bounded(reader: impl Read, compressed_len: usize, max_bytes: usize) -> Result<Vec<u8>> {
    let mut decompressed = Vec::with_capacity(compressed_len.saturating_mul(2).min(max_bytes));
    // One byte more than is allowed tells "as much" from "too much".
    let limit = u64::try_from(max_bytes)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    reader
        .take(limit)
        .read_to_end(&mut decompressed)
        .map_err(|error| damaged(&error))?;
    if decompressed.len() > max_bytes {
        return Err(too_large(max_bytes));
    }
    Ok(decompressed)
}

fn unsnap(compressed: &[u8], max_bytes: usize) -> Result<Vec<u8>> {
    let mut decompressed = Vec::new();
    if !compressed.starts_with(&XERIAL_MAGIC) {
        unsnap_block(compressed, &mut decompressed, max_bytes)?;
        return Ok(decompressed);
    }
    let short = || Error::CorruptBatch("snappy: cut short".to_owned());
    let mut rest = compressed.get(XERIAL_HEADER_SIZE..).ok_or_else(short)?;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| short())?;
        let (block, after) = after.split_at_checked(length).ok_or_else(short)?;
        unsnap_block(block, &mut decompressed, max_bytes)?;
        rest = after;
    }
    Ok(decompressed)
}

/// Appends one raw block to `out`, which may grow to `max_bytes`.
fn unsnap_block(block: &[u8], out: &mut Vec<u8>, max_bytes: usize) -> Result<()> {
    let length = snap::raw::decompress_len(block).map_err(|error| damaged(&error))?;
    if length > block.len().saturating_mul(SNAPPY_MAX_RATIO) {
        return Err(Error::CorruptBatch(format!(
            "snappy: {} bytes cannot hold {length}",
            block.len()
        )));
    }
    let start = out.len();
    let end = start.checked_add(length).filter(|end| *end <= max_bytes);
    out.resize(end.ok_or_else(|| too_large(max_bytes))?, 0);
    snap::raw::Decoder::new()
        .decompress(block, &mut out[start..])
        .map(drop)
        .map_err(|error| damaged(&error))
}

fn snap(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(XERIAL_HEADER_SIZE + bytes.len() / 2);
    out.extend_from_slice(&XERIAL_MAGIC);
    out.extend_from_slice(&XERIAL_VERSION);
    out.extend_from_slice(&XERIAL_VERSION);
    let mut encoder = snap::raw::Encoder::new();
    for block in bytes.chunks(XERIAL_BLOCK_SIZE) {
        let compressed = encoder.compress_vec(block).map_err(io::Error::other)?;
        // A block of 32 KiB cannot need more than 32 bits.
        out.extend_from_slice(&(compressed.len() as u32).to_be_bytes());
        out.extend_from_slice(&compressed);
    }
    Ok(out)
}

fn damaged(error: &dyn std::fmt::Display) -> Error {
    Error::CorruptBatch(format!("records do not decompress: {error}"))
}

fn too_large(max_bytes: usize) -> Error {
    Error::CorruptBatch(format!("records decompress to more than {max_bytes} bytes"))
}
