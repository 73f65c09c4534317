//! A reader of segment files that shares nothing with the product: batch headers by their layout in
//! Kafka's documentation, and the CRC.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Fields of a record batch, big-endian.
const BATCH_LENGTH: usize = 8;
const MAGIC: usize = 16;
const CRC: usize = 17;
const ATTRIBUTES: usize = 21;
const LAST_OFFSET_DELTA: usize = 23;
const HEADER: usize = 61;

/// What the files of a partition hold.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// The first batch's base offset, where there is one.
    pub start: Option<i64>,
    /// The offset after the last whole batch.
    pub end: i64,
    /// Bytes of the batches from some offset on.
    pub bytes_from: u64,
    /// What follows the last whole batch: torn by the kill.
    pub torn_bytes: u64,
}

/// Reads a partition's files; counts the bytes from `from` on. Everything before the newest segment's
/// end has to be whole and without a gap.
pub(super) fn read(dir: &Path, from: i64) -> Result<Files, String> {
    let mut segments = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))? {
        let path = entry.map_err(|error| error.to_string())?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if let Some(base) = name.strip_suffix(".log") {
            let base: i64 = base
                .parse()
                .map_err(|_| format!("{}: its name", path.display()))?;
            segments.insert(base, path);
        }
    }
    let mut files = Files::default();
    let newest = segments.last_key_value().map(|(base, _)| *base);
    let mut next: Option<i64> = None;
    for (base, path) in &segments {
        let bytes = fs::read(path).map_err(|error| error.to_string())?;
        let at = |position: usize| format!("{} at {position}", path.display());
        if next.is_some_and(|next| next != *base) {
            return Err(format!("{}: offset {next:?} should follow", at(0)));
        }
        next = Some(*base);
        let mut position = 0;
        while position < bytes.len() {
            let Some(batch) = batch(&bytes[position..]) else {
                if Some(*base) != newest {
                    return Err(format!("{}: torn, in the midst of the log", at(position)));
                }
                files.torn_bytes = (bytes.len() - position) as u64;
                break;
            };
            if next != Some(batch.base_offset) {
                return Err(format!(
                    "{}: offset {}, not {next:?}",
                    at(position),
                    batch.base_offset
                ));
            }
            if batch.base_offset >= from {
                files.bytes_from += batch.size as u64;
            }
            files.start.get_or_insert(batch.base_offset);
            next = Some(batch.next_offset);
            position += batch.size;
        }
    }
    files.end = next.unwrap_or(0);
    Ok(files)
}

struct Batch {
    base_offset: i64,
    next_offset: i64,
    size: usize,
}

/// The batch at the start of `bytes`, where it is whole.
fn batch(bytes: &[u8]) -> Option<Batch> {
    let length = i32::from_be_bytes(field(bytes, BATCH_LENGTH)?);
    let size = usize::try_from(length).ok()? + BATCH_LENGTH + 4;
    let bytes = bytes.get(..size).filter(|_| size >= HEADER)?;
    let crc = u32::from_be_bytes(field(bytes, CRC)?);
    if bytes[MAGIC] != 2 || crc32c::crc32c(&bytes[ATTRIBUTES..]) != crc {
        return None;
    }
    let base_offset = i64::from_be_bytes(field(bytes, 0)?);
    let delta = i32::from_be_bytes(field(bytes, LAST_OFFSET_DELTA)?);
    Some(Batch {
        base_offset,
        next_offset: base_offset + i64::from(delta) + 1,
        size,
    })
}

fn field<const N: usize>(bytes: &[u8], position: usize) -> Option<[u8; N]> {
    bytes.get(position..position + N)?.try_into().ok()
}

/// The offsets in `recovery-point-offset-checkpoint`: a version, a count, and lines of topic,
/// partition, offset.
pub(super) fn recovery_points(data_dir: &Path) -> BTreeMap<(String, i32), i64> {
    let path = data_dir.join("recovery-point-offset-checkpoint");
    let text = fs::read_to_string(path).unwrap_or_default();
    let entry = |line: &str| {
        let mut words = line.split(' ');
        let topic = words.next()?.to_owned();
        Some((
            (topic, words.next()?.parse().ok()?),
            words.next()?.parse().ok()?,
        ))
    };
    text.lines().skip(2).filter_map(entry).collect()
}
