//! The files of a partition's folder: what a crash left half-made goes, what is cut off the log and
//! may be wanted by a human stays under another name.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Recovery;
use crate::disk::{self, File};
use crate::error::{Error, Result};
use crate::segment::{
    INDEX_SUFFIX, LOG_SUFFIX, Segment, TIME_INDEX_SUFFIX, TXN_INDEX_SUFFIX, file_name,
    parse_file_name,
};
use crate::{LogConfig, Offset};

/// The last part of the name of what was cut off a log.
const CUT_SUFFIX: &str = "cut";
/// Bytes copied at once.
const COPY_BYTES: usize = 1 << 20;

impl Recovery<'_> {
    /// Puts the batches of closed segments on the device that may not be there. Whatever this start
    /// syncs in the folder puts the names of all its files there, and where a log may have gaps, a
    /// segment's name says that nothing before it is lost.
    pub(super) fn sync_closed(&self, dir: &Path) -> Result<()> {
        let paths = self
            .disk
            .list(dir)
            .map_err(|error| Error::io("list", dir, &error))?;
        let logs = paths.iter().filter_map(|path| parse_file_name(path));
        let logs = logs.filter(|(_, suffix)| *suffix == LOG_SUFFIX);
        let mut bases: Vec<Offset> = logs.map(|(base, _)| base).collect();
        bases.sort_unstable();
        // The newest is followed by none.
        bases.pop();
        let trusted = self.recovery_point.unwrap_or(0);
        let first = bases.partition_point(|base| *base <= trusted);
        for base in bases.iter().skip(first.saturating_sub(1)) {
            let path = dir.join(file_name(*base, LOG_SUFFIX));
            self.open_file(&path, false)?
                .sync()
                .map_err(|error| Error::io("sync", &path, &error))?;
        }
        Ok(())
    }

    /// Removes what a crash left half-made, and returns the base offsets of the segments, ascending.
    pub(super) fn tidy(&self, dir: &Path) -> Result<Vec<Offset>> {
        let paths = self
            .disk
            .list(dir)
            .map_err(|error| Error::io("list", dir, &error))?;
        let mut bases: Vec<Offset> = paths
            .iter()
            .filter_map(|path| parse_file_name(path))
            .filter(|(_, suffix)| *suffix == LOG_SUFFIX)
            .map(|(base, _)| base)
            .collect();
        bases.sort_unstable();
        self.finish_swaps(dir, &paths, &mut bases)?;
        for path in &paths {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            // Their time had not come when the last stop did.
            let deleted = name.ends_with(".deleted");
            let temporary = [".tmp", ".cleaned", ".swap"]
                .iter()
                .any(|suffix| name.ends_with(suffix));
            let orphan = parse_file_name(path).is_some_and(|(base, suffix)| {
                [INDEX_SUFFIX, TIME_INDEX_SUFFIX, TXN_INDEX_SUFFIX].contains(&suffix)
                    && bases.binary_search(&base).is_err()
            });
            if !(deleted || temporary || orphan) {
                continue;
            }
            match self.disk.remove_file(path) {
                Ok(()) if deleted => {}
                Ok(()) => tracing::warn!(file = %path.display(), "removed a leftover file"),
                // A swap has been finished.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("remove", path, &error)),
            }
        }
        Ok(bases)
    }

    /// Removes segments behind the end of the log.
    pub(super) fn remove_from(&self, dir: &Path, bases: &[Offset], reason: &str) -> Result<()> {
        // The newest first, so that a crash leaves no gap.
        self.remove_segments(dir, bases.iter().rev(), |path| {
            tracing::warn!(file = %path.display(), reason, "removed a file of no use to the log");
        })
    }

    /// Removes segments before the start of the log: its last stop, or a crash, came before their
    /// files' time.
    pub(super) fn remove_deleted(&self, dir: &Path, bases: &[Offset]) -> Result<()> {
        if !bases.is_empty() {
            let (dir, segments) = (dir.display(), bases.len());
            tracing::info!(%dir, segments, "removing segments below the log's start");
        }
        // The oldest first: here it is so that a crash leaves none.
        self.remove_segments(dir, bases.iter(), |_| {})
    }

    fn remove_segments<'a>(
        &self,
        dir: &Path,
        bases: impl Iterator<Item = &'a Offset>,
        removed: impl Fn(&Path),
    ) -> Result<()> {
        for base in bases {
            // The log last: where a start is cut short, the next one removes the rest. An index that
            // stays alone could be taken for that of a segment which takes the place of this one.
            for suffix in [
                INDEX_SUFFIX,
                TIME_INDEX_SUFFIX,
                TXN_INDEX_SUFFIX,
                LOG_SUFFIX,
            ] {
                let path = dir.join(file_name(*base, suffix));
                match self.disk.remove_file(&path) {
                    Ok(()) => removed(&path),
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(Error::io("remove", &path, &error)),
                }
            }
        }
        Ok(())
    }

    /// Takes segments behind the end of the log out of it. Those with sound batches are kept under
    /// another name. Returns how many sound batches those are.
    pub(super) fn put_aside(
        &self,
        dir: &Path,
        bases: &[Offset],
        config: &LogConfig,
        reason: &str,
    ) -> Result<u64> {
        let mut kept = 0;
        for base in bases.iter().rev() {
            let (segment, _) = Segment::open(self.disk, dir, *base, false, config)?;
            let sound = segment.sound_batches(0, *base, |bytes| self.scanned(bytes))?;
            if sound > 0 {
                let path = segment.path();
                let to = self.unused_name(path, 0)?;
                self.disk
                    .rename(path, &to)
                    .map_err(|error| Error::io("rename", path, &error))?;
                tracing::error!(
                    file = %path.display(),
                    sound_batches = sound,
                    kept_as = %to.display(),
                    reason,
                    "took a segment with sound batches out of a log"
                );
                kept += sound;
            }
            self.remove_from(dir, &[*base], reason)?;
        }
        if !bases.is_empty() {
            self.sync(dir)?;
        }
        Ok(kept)
    }

    /// Copies what is about to be cut off `segment` at `position` to a file beside it, on the device
    /// when this returns. One that has it already is left.
    pub(super) fn keep_cut(&self, segment: &Segment, position: u64) -> Result<PathBuf> {
        let from = segment.path();
        let source = self.open_file(from, false)?;
        let end = segment.size();
        let temporary = name_of(from, position, "cut.tmp");
        let target = self.open_file(&temporary, true)?;
        target
            .set_len(0)
            .map_err(|error| Error::io("truncate", &temporary, &error))?;
        let mut buffer = vec![0; COPY_BYTES];
        let mut at = position;
        while at < end {
            let wanted = (end - at).min(COPY_BYTES as u64) as usize;
            let bytes = buffer.get_mut(..wanted).unwrap_or_default();
            disk::read_exact_at(source.as_ref(), bytes, at)
                .map_err(|error| Error::io("read", from, &error))?;
            disk::write_all_at(target.as_ref(), &[bytes], at - position)
                .map_err(|error| Error::io("write", &temporary, &error))?;
            at += wanted as u64;
        }
        target
            .sync()
            .map_err(|error| Error::io("sync", &temporary, &error))?;
        let to = self.unused_name(from, position)?;
        self.disk
            .rename(&temporary, &to)
            .map_err(|error| Error::io("rename", &temporary, &error))?;
        if let Some(dir) = from.parent() {
            self.sync(dir)?;
        }
        Ok(to)
    }

    /// A name for what is cut off the log file `path` at `position`: an earlier cut stays.
    fn unused_name(&self, path: &Path, position: u64) -> Result<PathBuf> {
        let dir = path.parent().unwrap_or(Path::new("."));
        let taken = self
            .disk
            .list(dir)
            .map_err(|error| Error::io("list", dir, &error))?;
        let mut name = name_of(path, position, CUT_SUFFIX);
        let mut number = 1;
        while taken.contains(&name) {
            number += 1;
            name = name_of(path, position, &format!("{number}.{CUT_SUFFIX}"));
        }
        Ok(name)
    }

    fn open_file(&self, path: &Path, create: bool) -> Result<Arc<dyn File>> {
        self.disk
            .open(path, create)
            .map_err(|error| Error::io("open", path, &error))
    }

    pub(super) fn sync(&self, dir: &Path) -> Result<()> {
        self.disk
            .sync_dir(dir)
            .map_err(|error| Error::io("sync", dir, &error))
    }
}

fn name_of(path: &Path, position: u64, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{position}.{suffix}"));
    PathBuf::from(name)
}
