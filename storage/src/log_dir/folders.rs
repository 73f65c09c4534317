//! The names of folders in the data folder, and moving them about.

use std::io::ErrorKind;
use std::path::Path;

use uuid::Uuid;

use crate::checkpoint;
use crate::disk::{self, Disk};
use crate::error::{Error, Result};

const DELETED: &str = "-delete";
const STRAY: &str = "-stray";
/// In a partition's folder: nobody has opened it since an unclean stop.
const UNRECOVERED: &str = ".unrecovered";
/// Topic ids that differ in so few bits are the same.
const DAMAGED_ID_BITS: u32 = 8;
/// The longest name of a file.
const MAX_NAME_BYTES: usize = 255;

/// The folder of a partition. Refuses names that lead elsewhere.
pub(super) fn name(topic: &str, partition: i32) -> Result<String> {
    let name = format!("{topic}-{partition}");
    if topic.is_empty() || topic.contains(['/', '\0']) || name.len() > MAX_NAME_BYTES {
        let error = std::io::Error::from(ErrorKind::InvalidInput);
        return Err(Error::io("open", name, &error));
    }
    Ok(name)
}

/// The folder that a partition is moved to before it is removed.
pub(super) fn deleted_name(topic: &str, partition: i32) -> String {
    aside_name(&format!("{topic}-{partition}"), DELETED)
}

/// As Kafka names folders that it puts aside; a name that gets too long loses its end.
fn aside_name(name: &str, suffix: &str) -> String {
    let tail = format!(".{}{suffix}", Uuid::new_v4().simple());
    let mut end = name.len().min(MAX_NAME_BYTES - tail.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{tail}", &name[..end])
}

/// Makes the folder of a partition of topic `topic_id`; true where it was not there. One that
/// belongs to another topic is put aside.
pub(super) fn prepare(disk: &dyn Disk, dir: &Path, topic_id: Uuid) -> Result<bool> {
    let exists = exists(disk, dir)?;
    let found = if exists { metadata(disk, dir)? } else { None };
    if found == Some(topic_id) {
        return Ok(false);
    }
    // Ids are random: two that are nearly the same are one, and a damaged file.
    let is_near =
        |other: &Uuid| (other.as_u128() ^ topic_id.as_u128()).count_ones() <= DAMAGED_ID_BITS;
    let damaged = found.filter(is_near);
    if let Some(damaged) = damaged {
        tracing::warn!(dir = %dir.display(), found = %damaged, expected = %topic_id, "a damaged topic id");
    }
    let found = found.filter(|_| damaged.is_none());
    if let Some(other) = found {
        let name = dir
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let stray = dir.with_file_name(aside_name(name, STRAY));
        tracing::warn!(
            dir = %dir.display(),
            found = %other,
            expected = %topic_id,
            moved_to = %stray.display(),
            "folder belongs to another topic id"
        );
        move_aside(disk, dir, &stray)?;
    }
    let created = !exists || found.is_some();
    disk.create_dir_all(dir)
        .map_err(|error| Error::io("create", dir, &error))?;
    checkpoint::write_partition_metadata(disk, dir, topic_id)?;
    Ok(created)
}

/// Notes in a partition's folder that it has to be recovered, whatever the last stop was.
pub(super) fn mark_unrecovered(disk: &dyn Disk, dir: &Path) -> Result<()> {
    checkpoint::write_file(disk, &dir.join(UNRECOVERED), b"")
}

/// Whether a partition's folder has that note.
pub(super) fn is_unrecovered(disk: &dyn Disk, dir: &Path) -> Result<bool> {
    let note = dir.join(UNRECOVERED);
    Ok(list(disk, dir)?.contains(&note))
}

/// Removes the note. It may come back with a power cut: then there is an unclean stop anyway.
pub(super) fn clear_unrecovered(disk: &dyn Disk, dir: &Path) -> Result<()> {
    let note = dir.join(UNRECOVERED);
    disk.remove_file(&note)
        .map_err(|error| Error::io("remove", note, &error))
}

/// Renames a folder, where it exists, durably.
pub(super) fn move_aside(disk: &dyn Disk, from: &Path, to: &Path) -> Result<()> {
    rename_aside(disk, from, to)?;
    sync_parent(disk, from)
}

/// The same, without a sync.
pub(super) fn rename_aside(disk: &dyn Disk, from: &Path, to: &Path) -> Result<()> {
    match disk.rename(from, to) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("rename", from, &error)),
        _ => Ok(()),
    }
}

/// Removes a folder, where it exists.
pub(super) fn remove(disk: &dyn Disk, dir: &Path) -> Result<()> {
    match disk::remove_dir_all(disk, dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", dir, &error)),
        _ => Ok(()),
    }
}

/// Removes what deletions have left.
pub(super) fn remove_deleted(disk: &dyn Disk, path: &Path) -> Result<()> {
    for dir in list(disk, path)? {
        if dir
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.ends_with(DELETED))
        {
            tracing::info!(dir = %dir.display(), "removing a deleted partition");
            remove(disk, &dir)?;
        }
    }
    Ok(())
}

/// The partitions that have a folder: topic, number, topic id where known.
pub(super) fn partitions(disk: &dyn Disk, path: &Path) -> Result<Vec<(String, i32, Option<Uuid>)>> {
    let mut partitions = Vec::new();
    for dir in list(disk, path)? {
        let Some((topic, number)) = dir
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.rsplit_once('-'))
            .filter(|(topic, number)| {
                !topic.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
            })
        else {
            continue;
        };
        if let Ok(number) = number.parse() {
            partitions.push((topic.to_owned(), number, metadata(disk, &dir)?));
        }
    }
    partitions.sort_unstable();
    Ok(partitions)
}

/// Removes the marker of a clean stop, durably; true where it was there.
pub(super) fn take_marker(disk: &dyn Disk, path: &Path, name: &str) -> Result<bool> {
    let marker = path.join(name);
    match disk.remove_file(&marker) {
        Ok(()) => {
            sync_parent(disk, &marker)?;
            Ok(true)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("remove", marker, &error)),
    }
}

/// The topic id of a folder; `None` where the file is missing or a crash has left it unwritten.
fn metadata(disk: &dyn Disk, dir: &Path) -> Result<Option<Uuid>> {
    match checkpoint::read_partition_metadata(disk, dir) {
        Err(error @ Error::CorruptFile { .. }) => {
            tracing::warn!(%error, "passed over a damaged topic id");
            Ok(None)
        }
        // A file of that name is no partition.
        Err(Error::Io {
            kind: ErrorKind::NotADirectory,
            ..
        }) => Ok(None),
        read => read,
    }
}

/// A partition that has no folder: a name that nobody has given.
pub(super) fn any_missing<'a>(
    disk: &dyn Disk,
    path: &Path,
    partitions: impl Iterator<Item = &'a (String, i32)>,
) -> Result<bool> {
    for (topic, partition) in partitions {
        let exists = match name(topic, *partition) {
            Ok(name) => exists(disk, &path.join(name))?,
            Err(_) => false,
        };
        if !exists {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn exists(disk: &dyn Disk, dir: &Path) -> Result<bool> {
    match disk.list(dir) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("list", dir, &error)),
    }
}

fn list(disk: &dyn Disk, path: &Path) -> Result<Vec<std::path::PathBuf>> {
    disk.list(path)
        .map_err(|error| Error::io("list", path, &error))
}

fn sync_parent(disk: &dyn Disk, path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    disk.sync_dir(parent)
        .map_err(|error| Error::io("sync", parent, &error))
}
