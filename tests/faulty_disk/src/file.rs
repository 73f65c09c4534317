//! An open file of a [`crate::FaultyDisk`].

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use storage::disk::File;

use crate::Shared;
use crate::fault::{Call, Failure, error};
use crate::image::DataChange;
use crate::journal::Change;

#[derive(Debug)]
pub(crate) struct FaultyFile {
    shared: Arc<Shared>,
    real: Arc<dyn File>,
    path: PathBuf,
    file: usize,
}

impl FaultyFile {
    pub fn new(shared: Arc<Shared>, real: Arc<dyn File>, path: &Path, file: usize) -> Self {
        Self {
            shared,
            real,
            path: path.to_owned(),
            file,
        }
    }
}

impl File for FaultyFile {
    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        let whole: Vec<u8> = slices
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect();
        let (mut state, failure) = self.shared.begin(Call::Write, &self.path);
        if state.left == Some(0) {
            return Err(error(libc::EIO));
        }
        if let Some(errno) = state.torn.remove(&self.file) {
            return Err(error(errno));
        }
        let mut count = whole.len();
        match failure {
            Some(Failure::Errno(errno)) => return Err(error(errno)),
            Some(Failure::Short) => count = count.div_ceil(2),
            Some(Failure::Torn(errno)) => {
                count /= 2;
                if count == 0 {
                    return Err(error(errno));
                }
                state.torn.insert(self.file, errno);
            }
            Some(Failure::Lie) | None => {}
        }
        if let Some(random) = &mut state.interrupts {
            match random.below(8) {
                0 => return Err(error(libc::EINTR)),
                1 => count = count.min(1 + random.below(count as u64) as usize),
                _ => {}
            }
        }
        let (len, reserved) = state.sizes.get(&self.file).copied().unwrap_or_default();
        let most = len.max(reserved).saturating_add(state.room());
        count = count.min(most.saturating_sub(position) as usize);
        if count == 0 && !whole.is_empty() {
            return Err(error(libc::ENOSPC));
        }
        storage::disk::write_all_at(self.real.as_ref(), &[&whole[..count]], position)?;
        let end = position + count as u64;
        state.sizes.insert(self.file, (len.max(end), reserved));
        let change = Change::Data {
            file: self.file,
            change: DataChange::Write {
                position,
                bytes: whole[..count].to_vec(),
            },
        };
        state.done(Call::Write, &self.path, change);
        Ok(count)
    }

    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let (mut state, failure) = self.shared.begin(Call::Read, &self.path);
        let mut count = buf.len();
        match failure {
            Some(Failure::Errno(errno) | Failure::Torn(errno)) => return Err(error(errno)),
            Some(Failure::Short) => count = count.div_ceil(2),
            Some(Failure::Lie) | None => {}
        }
        if let Some(random) = &mut state.interrupts {
            match random.below(8) {
                0 => return Err(error(libc::EINTR)),
                1 => count = count.min(1 + random.below(count as u64) as usize),
                _ => {}
            }
        }
        let read = self.real.read_at(&mut buf[..count], position)?;
        *state.bytes_read.entry(self.path.clone()).or_default() += read as u64;
        Ok(read)
    }

    fn sync(&self) -> io::Result<()> {
        let (changes, takes, failure) = {
            let (state, failure) = self.shared.begin(Call::Sync, &self.path);
            (state.image.changes(self.file), state.sync_takes, failure)
        };
        std::thread::sleep(takes);
        let mut state = self.shared.state();
        if state.left == Some(0) {
            return Err(error(libc::EIO));
        }
        let change = match failure {
            Some(Failure::Errno(errno) | Failure::Torn(errno)) => return Err(error(errno)),
            Some(Failure::Lie) => Change::Nothing,
            // Only what was written before it began.
            Some(Failure::Short) | None => Change::SyncFile {
                file: self.file,
                changes,
            },
        };
        state.done(Call::Sync, &self.path, change);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.shared.change(Call::SetLen, &self.path)?;
        self.real.set_len(len)?;
        // What is reserved beyond goes too.
        state.sizes.insert(self.file, (len, 0));
        let change = Change::Data {
            file: self.file,
            change: DataChange::SetLen(len),
        };
        state.done(Call::SetLen, &self.path, change);
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut state = self.shared.change(Call::Allocate, &self.path)?;
        let (size, reserved) = state.sizes.get(&self.file).copied().unwrap_or_default();
        let held = size.max(reserved);
        if len.saturating_sub(held) > state.room() {
            return Err(error(libc::ENOSPC));
        }
        state.sizes.insert(self.file, (size, reserved.max(len)));
        state.done(Call::Allocate, &self.path, Change::Nothing);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.real.len()
    }

    fn modified_ms(&self) -> io::Result<i64> {
        self.real.modified_ms()
    }

    fn set_modified_ms(&self, modified_ms: i64) -> io::Result<()> {
        self.real.set_modified_ms(modified_ms)
    }

    fn map(&self, len: usize) -> io::Result<memmap2::MmapRaw> {
        self.real.map(len)
    }
}
