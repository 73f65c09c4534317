//! Kafka's small text files: checkpoints, `partition.metadata` and `meta.properties`.
//!
//! Guarantees:
//!
//! - a file is replaced as a whole: written beside it as `.tmp`, synced, renamed, and the folder
//!   synced. After a crash either the old content is there or the new, never a mixture;
//! - a missing checkpoint reads as an empty one. One that is there and not sound is `CorruptFile`
//!   with the line, never half of its entries;
//! - what is written here is read by Kafka and the other way round.
//!
//! | file | folder | content |
//! |---|---|---|
//! | `leader-epoch-checkpoint` | a partition's | `0`, count, then `epoch start_offset` |
//! | `recovery-point-offset-checkpoint`, `log-start-offset-checkpoint`, `replication-offset-checkpoint`, `cleaner-offset-checkpoint` | the data folder | `0`, count, then `topic partition offset` |
//! | `partition.metadata` | a partition's | `version: 0`, `topic_id: <22 characters>` |
//! | `meta.properties` | the data folder | Java properties, version 1 |

pub mod uuid_text;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use uuid::Uuid;

use crate::Offset;
use crate::disk::{self, Disk};
use crate::error::{Error, Result};

const LEADER_EPOCHS: &str = "leader-epoch-checkpoint";
const PARTITION_METADATA: &str = "partition.metadata";
const META_PROPERTIES: &str = "meta.properties";
const CHECKPOINT_VERSION: &str = "0";
/// How much of a bad line an error shows.
const SHOWN_CHARACTERS: usize = 80;

/// Where the records of a leader epoch begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEntry {
    /// The epoch.
    pub leader_epoch: i32,
    /// The offset of its first record.
    pub start_offset: Offset,
}

/// One of the data folder's files that has an offset per partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetCheckpoint {
    /// Everything below is on the disk: `recovery-point-offset-checkpoint`.
    RecoveryPoint,
    /// `log_start_offset` where it is not the first segment's: `log-start-offset-checkpoint`.
    LogStartOffset,
    /// The high watermark: `replication-offset-checkpoint`.
    HighWatermark,
    /// Compaction has come so far: `cleaner-offset-checkpoint`.
    FirstDirtyOffset,
}

impl OffsetCheckpoint {
    /// The file's name.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::RecoveryPoint => "recovery-point-offset-checkpoint",
            Self::LogStartOffset => "log-start-offset-checkpoint",
            Self::HighWatermark => "replication-offset-checkpoint",
            Self::FirstDirtyOffset => "cleaner-offset-checkpoint",
        }
    }
}

/// An offset per topic and partition.
pub type PartitionOffsets = BTreeMap<(String, i32), Offset>;

/// `meta.properties`: whose data folder it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaProperties {
    /// The broker's `node.id`.
    pub node_id: i32,
    /// `cluster.id`.
    pub cluster_id: String,
    /// `directory.id`, which Kafka has written since 3.7.
    pub directory_id: Option<Uuid>,
}

/// The leader epochs of the partition in `partition_dir`, epochs and offsets ascending.
pub fn read_leader_epochs(disk: &dyn Disk, partition_dir: &Path) -> Result<Vec<EpochEntry>> {
    let mut epochs: Vec<EpochEntry> = Vec::new();
    read_checkpoint(
        disk,
        &partition_dir.join(LEADER_EPOCHS),
        |[epoch, offset]| {
            let entry = EpochEntry {
                leader_epoch: number(epoch)?,
                start_offset: number(offset)?,
            };
            let sound = match epochs.last() {
                Some(last) => {
                    entry.leader_epoch > last.leader_epoch
                        && entry.start_offset >= last.start_offset
                }
                None => entry.leader_epoch >= 0 && entry.start_offset >= 0,
            };
            epochs.push(entry);
            sound.then_some(())
        },
    )?;
    Ok(epochs)
}

/// Replaces the leader epochs of the partition in `partition_dir`.
pub fn write_leader_epochs(
    disk: &dyn Disk,
    partition_dir: &Path,
    epochs: &[EpochEntry],
) -> Result<()> {
    let mut text = format!("{CHECKPOINT_VERSION}\n{}\n", epochs.len());
    for entry in epochs {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} {}", entry.leader_epoch, entry.start_offset);
    }
    write_file(disk, &partition_dir.join(LEADER_EPOCHS), text.as_bytes())
}

/// The offsets in one of the checkpoints of the data folder `log_dir`.
pub fn read_offsets(
    disk: &dyn Disk,
    log_dir: &Path,
    checkpoint: OffsetCheckpoint,
) -> Result<PartitionOffsets> {
    let mut offsets = PartitionOffsets::new();
    let path = log_dir.join(checkpoint.file_name());
    read_checkpoint(disk, &path, |[topic, partition, offset]| {
        let partition = number(partition).filter(|partition| *partition >= 0)?;
        let offset = number(offset).filter(|offset| *offset >= 0)?;
        offsets.insert((topic.to_owned(), partition), offset);
        Some(())
    })?;
    Ok(offsets)
}

/// Replaces one of the checkpoints of the data folder `log_dir`.
pub fn write_offsets(
    disk: &dyn Disk,
    log_dir: &Path,
    checkpoint: OffsetCheckpoint,
    offsets: &PartitionOffsets,
) -> Result<()> {
    let mut text = format!("{CHECKPOINT_VERSION}\n{}\n", offsets.len());
    for ((topic, partition), offset) in offsets {
        let _ = writeln!(text, "{topic} {partition} {offset}");
    }
    write_file(disk, &log_dir.join(checkpoint.file_name()), text.as_bytes())
}

/// The topic id of the partition in `partition_dir`; `None` where the file is missing.
pub fn read_partition_metadata(disk: &dyn Disk, partition_dir: &Path) -> Result<Option<Uuid>> {
    let path = partition_dir.join(PARTITION_METADATA);
    let Some(text) = read_text(disk, &path)? else {
        return Ok(None);
    };
    let mut lines = text.lines();
    let mut field = |number: usize, name: &str| {
        let line = lines.next().unwrap_or_default();
        line.strip_prefix(name)
            .and_then(|rest| rest.strip_prefix(':'))
            .map(str::trim)
            .ok_or_else(|| bad_line(&path, number, line))
    };
    let version = field(1, "version")?;
    if version != CHECKPOINT_VERSION {
        return Err(corrupt(
            &path,
            format!("version {version} is not {CHECKPOINT_VERSION}"),
        ));
    }
    let topic_id = field(2, "topic_id")?;
    match uuid_text::decode(topic_id).filter(|id| !id.is_nil()) {
        Some(id) => Ok(Some(id)),
        None => Err(bad_line(&path, 2, topic_id)),
    }
}

/// Writes the topic id of the partition in `partition_dir`.
pub fn write_partition_metadata(
    disk: &dyn Disk,
    partition_dir: &Path,
    topic_id: Uuid,
) -> Result<()> {
    let topic_id = uuid_text::encode(topic_id);
    // No line end after the last line: so it is in Kafka.
    let text = format!("version: {CHECKPOINT_VERSION}\ntopic_id: {topic_id}");
    write_file(
        disk,
        &partition_dir.join(PARTITION_METADATA),
        text.as_bytes(),
    )
}

/// Whose data folder `log_dir` is; `None` where nobody has said so yet.
pub fn read_meta_properties(disk: &dyn Disk, log_dir: &Path) -> Result<Option<MetaProperties>> {
    let path = log_dir.join(META_PROPERTIES);
    let Some(text) = read_text(disk, &path)? else {
        return Ok(None);
    };
    let mut properties = HashMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        // Java would unescape a backslash; nothing that belongs here has one.
        let property = line.split_once('=').filter(|_| !line.contains('\\'));
        let (key, value) = property.ok_or_else(|| bad_line(&path, index + 1, line))?;
        properties.insert(key.trim_end(), value.trim_start());
    }
    let required = |key: &str| match properties.get(key) {
        Some(value) => Ok(*value),
        None => Err(corrupt(&path, format!("no {key}"))),
    };
    let version = required("version")?;
    if version != "1" {
        return Err(corrupt(&path, format!("version {version} is not 1")));
    }
    let node_id = required("node.id")?;
    let node_id = number(node_id)
        .ok_or_else(|| corrupt(&path, format!("node.id {} is no number", shown(node_id))))?;
    let directory_id = match properties.get("directory.id") {
        Some(id) => Some(
            uuid_text::decode(id)
                .ok_or_else(|| corrupt(&path, format!("directory.id {} is no id", shown(id))))?,
        ),
        None => None,
    };
    let cluster_id = required("cluster.id")?.to_owned();
    // A part of an id is an id, too.
    if !text.ends_with('\n') {
        return Err(corrupt(&path, "its last line has no end".to_owned()));
    }
    Ok(Some(MetaProperties {
        node_id,
        cluster_id,
        directory_id,
    }))
}

/// Writes whose data folder `log_dir` is.
pub fn write_meta_properties(
    disk: &dyn Disk,
    log_dir: &Path,
    properties: &MetaProperties,
) -> Result<()> {
    let MetaProperties {
        node_id,
        cluster_id,
        directory_id,
    } = properties;
    let mut text = format!("version=1\nnode.id={node_id}\ncluster.id={cluster_id}\n");
    if let Some(id) = directory_id {
        let _ = writeln!(text, "directory.id={}", uuid_text::encode(*id));
    }
    write_file(disk, &log_dir.join(META_PROPERTIES), text.as_bytes())
}

/// Replaces the file `path` as a whole: after a crash it has either its old content or `bytes`.
/// Blocking: two syncs.
pub fn write_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let failed = |call: &'static str| {
        let temporary = &temporary;
        move |error| Error::io(call, temporary, &error)
    };
    let file = disk.open(&temporary, true).map_err(failed("open"))?;
    // One that a crash has left behind may be longer.
    let written = file
        .set_len(0)
        .map_err(failed("truncate"))
        .and_then(|()| disk::write_all_at(file.as_ref(), &[bytes], 0).map_err(failed("write")));
    if written.is_err() {
        // It takes room, which may be what is missing. If it stays, the next one takes its place.
        let _ = disk.remove_file(&temporary);
    }
    written?;
    file.sync().map_err(failed("fdatasync"))?;
    disk.rename(&temporary, path).map_err(failed("rename"))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    disk.sync_dir(folder)
        .map_err(|error| Error::io("fsync", folder, &error))
}

/// The content of the file `path`; `None` where it is missing.
pub fn read_file(disk: &dyn Disk, path: &Path) -> Result<Option<Vec<u8>>> {
    let file = match disk.open(path, false) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", path, &error)),
    };
    let len = file
        .len()
        .map_err(|error| Error::io("stat", path, &error))?;
    let len = usize::try_from(len).map_err(|_| corrupt(path, format!("{len} bytes long")))?;
    let mut bytes = vec![0; len];
    let mut read = 0;
    while read < len {
        match file.read_at(&mut bytes[read..], read as u64) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("read", path, &error)),
        }
    }
    bytes.truncate(read);
    Ok(Some(bytes))
}

fn read_text(disk: &dyn Disk, path: &Path) -> Result<Option<String>> {
    let Some(bytes) = read_file(disk, path)? else {
        return Ok(None);
    };
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(error) => {
            let position = error.utf8_error().valid_up_to();
            Err(corrupt(path, format!("no UTF-8 at byte {position}")))
        }
    }
}

/// Reads the checkpoint file `path` and gives each entry's `N` words to `entry`, which answers
/// `None` where they are not sound.
fn read_checkpoint<const N: usize>(
    disk: &dyn Disk,
    path: &Path,
    mut entry: impl FnMut([&str; N]) -> Option<()>,
) -> Result<()> {
    let text = read_text(disk, path)?.unwrap_or_default();
    let mut lines = text.lines();
    // Kafka creates the file empty, and reads it so.
    let Some(version) = lines.next() else {
        return Ok(());
    };
    if version != CHECKPOINT_VERSION {
        let version = shown(version);
        return Err(corrupt(
            path,
            format!("version {version} is not {CHECKPOINT_VERSION}"),
        ));
    }
    let count = lines.next().unwrap_or_default();
    let expected: usize = number(count).ok_or_else(|| bad_line(path, 2, count))?;
    let mut found = 0;
    for line in lines {
        found += 1;
        words(line)
            .and_then(&mut entry)
            .ok_or_else(|| bad_line(path, found + 2, line))?;
    }
    if found == expected {
        Ok(())
    } else {
        Err(corrupt(
            path,
            format!("{found} entries, {expected} by its line 2"),
        ))
    }
}

/// The `N` words of `line`, if it has exactly as many.
fn words<const N: usize>(line: &str) -> Option<[&str; N]> {
    let mut words = line.split_ascii_whitespace();
    let mut out = [""; N];
    for word in &mut out {
        *word = words.next()?;
    }
    words.next().is_none().then_some(out)
}

fn number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn shown(text: &str) -> String {
    format!(
        "{:?}",
        text.chars().take(SHOWN_CHARACTERS).collect::<String>()
    )
}

fn bad_line(path: &Path, number: usize, line: &str) -> Error {
    corrupt(path, format!("malformed line {number}: {}", shown(line)))
}

fn corrupt(path: &Path, reason: String) -> Error {
    Error::CorruptFile {
        path: path.to_owned(),
        reason,
    }
}
