//! Segments that were about to take the place of others when the last stop came (see
//! `partition_log/replace.rs`; Kafka does the same). A `.log.swap` is whole and on the device: what it
//! replaces goes, and it gets its name.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::Recovery;
use crate::Offset;
use crate::error::{Error, Result};
use crate::segment::{
    INDEX_SUFFIX, LOG_SUFFIX, SWAP_SUFFIX, TIME_INDEX_SUFFIX, TXN_INDEX_SUFFIX, end_of_swap,
    file_name, parse_file_name,
};

impl Recovery<'_> {
    /// Finishes what a `.log.swap` among `paths`, the files of `dir`, was for. `bases` are the base
    /// offsets of its segments, ascending.
    pub(super) fn finish_swaps(
        &self,
        dir: &Path,
        paths: &[PathBuf],
        bases: &mut Vec<Offset>,
    ) -> Result<()> {
        let suffix = format!("{LOG_SUFFIX}{SWAP_SUFFIX}");
        let swaps = paths
            .iter()
            .filter_map(|path| parse_file_name(path))
            .filter(|(_, found)| *found == suffix);
        for (base, _) in swaps {
            self.finish_swap(dir, base, bases)?;
        }
        Ok(())
    }

    fn finish_swap(&self, dir: &Path, base: Offset, bases: &mut Vec<Offset>) -> Result<()> {
        let (end, damage) = end_of_swap(self.disk, dir, base)?;
        if let Some(reason) = damage {
            // It was synced before it got this name: no crash's. What it has up to there is replaced.
            let file = dir.join(file_name(base, LOG_SUFFIX));
            let file = file.display();
            tracing::error!(%file, reason, "what compaction has written is damaged");
        }
        let replaced = |other: &Offset| *other == base || (base..end).contains(other);
        let old: Vec<Offset> = bases.iter().copied().filter(replaced).collect();
        tracing::info!(
            dir = %dir.display(),
            base_offset = base,
            end_offset = end,
            replaced = old.len(),
            "finishing a compaction that the last stop has interrupted"
        );
        self.remove_from(dir, &old, "compaction has replaced it")?;
        // The indexes may have their names already, and are built again where they do not.
        for suffix in [INDEX_SUFFIX, TIME_INDEX_SUFFIX, TXN_INDEX_SUFFIX] {
            let name = file_name(base, suffix);
            match self.rename(dir, &name) {
                Err(Error::Io {
                    kind: ErrorKind::NotFound,
                    ..
                }) => {}
                renamed => renamed?,
            }
        }
        self.sync(dir)?;
        self.rename(dir, &file_name(base, LOG_SUFFIX))?;
        self.sync(dir)?;
        bases.retain(|other| !replaced(other));
        bases.insert(bases.partition_point(|other| *other < base), base);
        Ok(())
    }

    fn rename(&self, dir: &Path, name: &str) -> Result<()> {
        let from = dir.join(format!("{name}{SWAP_SUFFIX}"));
        self.disk
            .rename(&from, &dir.join(name))
            .map_err(|error| Error::io("rename", &from, &error))
    }
}
