//! The machine's disk, with faults on demand and a power cut.
//!
//! - A failed write has written half of its bytes; a failed sync has synced nothing.
//! - A power cut takes back what was appended to a file since its last sync. Names (creations,
//!   renames) and cuts are durable at once.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use storage::disk::{Disk, DiskLock, File, RealDisk};

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Write,
    Sync,
    /// Cutting a file's end off.
    Cut,
}

/// Cheap to clone: all clones are one disk.
#[derive(Clone, Debug, Default)]
pub(super) struct FaultyDisk {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Debug, Default)]
struct State {
    faults: Vec<Fault>,
    /// Folders whose files are not synced until the test says so.
    held: Vec<String>,
    /// Bytes of each file that a power cut leaves.
    durable: HashMap<PathBuf, u64>,
}

#[derive(Debug)]
struct Fault {
    call: Call,
    folder: String,
    suffix: &'static str,
    once: bool,
}

impl FaultyDisk {
    /// The next such call on a file of that folder and suffix fails, those after it do not.
    pub(super) fn fail_next(&self, call: Call, folder: &str, suffix: &'static str) {
        self.add(call, folder, suffix, true);
    }

    /// Every such call fails until [`Self::heal`].
    pub(super) fn fail(&self, call: Call, folder: &str, suffix: &'static str) {
        self.add(call, folder, suffix, false);
    }

    fn add(&self, call: Call, folder: &str, suffix: &'static str, once: bool) {
        self.shared.state().faults.push(Fault {
            call,
            folder: folder.to_owned(),
            suffix,
            once,
        });
    }

    pub(super) fn heal(&self) {
        self.shared.state().faults.clear();
    }

    /// Syncs of a folder's files wait until [`Self::release`].
    pub(super) fn hold_syncs(&self, folder: &str) {
        self.shared.state().held.push(folder.to_owned());
    }

    pub(super) fn release(&self) {
        self.shared.state().held.clear();
        self.shared.released.notify_all();
    }

    /// Takes back what was not synced. Nobody may have a file open.
    pub(super) fn cut_power(&self) {
        let state = self.shared.state();
        for (path, &durable) in &state.durable {
            let Ok(file) = fs::OpenOptions::new().write(true).open(path) else {
                continue;
            };
            if file.metadata().unwrap().len() > durable {
                file.set_len(durable).unwrap();
            }
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, call: Call, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let found = state.faults.iter().position(|fault| {
            fault.call == call
                && is_in(path, &fault.folder)
                && path.to_string_lossy().ends_with(fault.suffix)
        });
        let Some(index) = found else {
            return Ok(());
        };
        if state.faults[index].once {
            state.faults.remove(index);
        }
        Err(io::Error::new(
            io::ErrorKind::StorageFull,
            "injected by the test",
        ))
    }

    fn wait_while_held(&self, path: &Path) {
        let is_held = |state: &mut State| state.held.iter().any(|folder| is_in(path, folder));
        drop(self.released.wait_while(self.state(), is_held));
    }
}

fn is_in(path: &Path, folder: &str) -> bool {
    path.parent()
        .and_then(Path::file_name)
        .is_some_and(|name| name == folder)
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn File>> {
        let before = fs::metadata(path).map_or(0, |metadata| metadata.len());
        let file = RealDisk.open(path, create)?;
        self.shared
            .state()
            .durable
            .entry(path.to_owned())
            .or_insert(before);
        Ok(Arc::new(FaultyFile {
            file,
            path: path.to_owned(),
            shared: self.shared.clone(),
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)?;
        let mut state = self.shared.state();
        state.durable.remove(to);
        if let Some(durable) = state.durable.remove(from) {
            state.durable.insert(to.to_owned(), durable);
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_file(path)?;
        self.shared.state().durable.remove(path);
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_dir_all(path)?;
        let mut state = self.shared.state();
        state.durable.retain(|file, _| !file.starts_with(path));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        RealDisk.list(path)
    }

    fn lock(&self, path: &Path) -> io::Result<DiskLock> {
        RealDisk.lock(path)
    }
}

#[derive(Debug)]
struct FaultyFile {
    file: Arc<dyn File>,
    path: PathBuf,
    shared: Arc<Shared>,
}

impl File for FaultyFile {
    fn write_all_at(&self, bytes: &[&[u8]], position: u64) -> io::Result<()> {
        if let Err(error) = self.shared.check(Call::Write, &self.path) {
            let all = bytes.concat();
            self.file
                .write_all_at(&[&all[..all.len() / 2]], position)
                .unwrap();
            return Err(error);
        }
        self.file.write_all_at(bytes, position)
    }

    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buf, position)
    }

    fn sync(&self) -> io::Result<()> {
        self.shared.wait_while_held(&self.path);
        self.shared.check(Call::Sync, &self.path)?;
        let len = self.file.len()?;
        self.file.sync()?;
        self.shared.state().durable.insert(self.path.clone(), len);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.shared.check(Call::Cut, &self.path)?;
        self.file.set_len(len)?;
        if let Some(durable) = self.shared.state().durable.get_mut(&self.path) {
            *durable = len.min(*durable);
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn map(&self, len: usize) -> io::Result<memmap2::MmapRaw> {
        self.file.map(len)
    }
}
