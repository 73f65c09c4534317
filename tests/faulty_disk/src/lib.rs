//! A disk for tests, over a real folder. It fails when it is told to, and knows at any moment what a
//! power cut would leave.
//!
//! | to test | use |
//! |---|---|
//! | EIO, ENOSPC and the like, half a write, a sync that lies | [`FaultyDisk::fail`] with a [`Fault`] |
//! | short and interrupted reads and writes, at random | [`FaultyDisk::interrupt`] |
//! | a full disk that gets room again | [`FaultyDisk::set_capacity`] |
//! | a crash in the middle of anything | [`FaultyDisk::crash_after`] |
//! | what a crash leaves | [`FaultyDisk::image`], [`Image::tree`], [`write_tree`] |
//! | a crash after every system call | [`FaultyDisk::record`], [`Journal::images`] |
//! | what happens while a call takes long | [`FaultyDisk::hold`], [`FaultyDisk::delay_syncs`] |
//!
//! Maps are those of the real files, so that what is written is seen through them at once.

mod fault;
mod file;
mod image;
mod journal;
mod random;

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use storage::disk::{Disk, DiskLock, File, RealDisk};

pub use fault::{Call, Failure, Fault};
pub use image::{Image, Keep, Tree, write_tree};
pub use journal::{Entry, Images, Journal};
pub use random::Random;

use fault::{Faults, error, is_in};
use file::FaultyFile;
use image::{NameChange, Node};
use journal::Change;

/// Cheap to clone: all clones are one disk.
#[derive(Clone, Debug)]
pub struct FaultyDisk {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    state: Mutex<State>,
    /// Calls are held no longer, or one more is.
    held: Condvar,
}

#[derive(Debug)]
struct State {
    image: Image,
    journal: Option<(Image, Vec<Entry>)>,
    faults: Faults,
    /// Files whose next write fails.
    torn: HashMap<usize, i32>,
    interrupts: Option<Random>,
    capacity: Option<u64>,
    /// Bytes of each file, and of what is reserved for it.
    sizes: HashMap<usize, (u64, u64)>,
    /// Changes until nothing is changed any more.
    left: Option<u64>,
    held: Vec<(Call, String)>,
    waiting: usize,
    sync_takes: Duration,
    calls: Vec<(Call, PathBuf)>,
    bytes_read: HashMap<PathBuf, u64>,
}

impl FaultyDisk {
    /// A disk whose root is the folder `root`: what is there is durable.
    pub fn over(root: &Path) -> Self {
        Self::new(root, Image::of(root).expect("reads the folder"))
    }

    /// The disk of `image` after a `kill -9`: all of it is put into the folder `root`, and what was
    /// not durable still is not.
    pub fn after_kill(image: &Image, root: &Path) -> Self {
        write_tree(&image.tree(Keep::All), root).expect("writes the folder");
        Self::new(root, image.clone())
    }

    fn new(root: &Path, image: Image) -> Self {
        let sizes = image.sizes();
        Self {
            shared: Arc::new(Shared {
                root: root.to_owned(),
                state: Mutex::new(State {
                    image,
                    journal: None,
                    faults: Faults::default(),
                    torn: HashMap::new(),
                    interrupts: None,
                    capacity: None,
                    sizes,
                    left: None,
                    held: Vec::new(),
                    waiting: 0,
                    sync_takes: Duration::ZERO,
                    calls: Vec::new(),
                    bytes_read: HashMap::new(),
                }),
                held: Condvar::new(),
            }),
        }
    }

    /// Calls go wrong.
    pub fn fail(&self, fault: Fault) {
        self.shared.state().faults.add(fault);
    }

    /// Nothing goes wrong any more; a full disk stays full.
    pub fn heal(&self) {
        let mut state = self.shared.state();
        state.faults.clear();
        state.torn.clear();
        state.interrupts = None;
    }

    /// From now on reads and writes are cut short or interrupted every now and then.
    pub fn interrupt(&self, seed: u64) {
        self.shared.state().interrupts = Some(Random::new(seed));
    }

    /// All files together have no more room than that, or any.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.shared.state().capacity = bytes;
    }

    /// Bytes of all files.
    pub fn used(&self) -> u64 {
        self.shared.state().used()
    }

    /// After so many more changes nothing is changed any more and everything fails: the process
    /// is dead, and has not noticed yet.
    pub fn crash_after(&self, changes: u64) {
        self.shared.state().left = Some(changes);
    }

    /// [`FaultyDisk::crash_after`] has come to pass.
    pub fn has_crashed(&self) -> bool {
        self.shared.state().left == Some(0)
    }

    /// What a crash would find now.
    pub fn image(&self) -> Image {
        self.shared.state().image.clone()
    }

    /// Remembers every change from now on.
    pub fn record(&self) {
        let mut state = self.shared.state();
        state.journal = Some((state.image.clone(), Vec::new()));
    }

    /// How many changes were recorded so far. What is known to be durable now is so in every image
    /// from there on.
    pub fn recorded(&self) -> usize {
        let state = self.shared.state();
        state
            .journal
            .as_ref()
            .map_or(0, |(_, entries)| entries.len())
    }

    /// What was recorded.
    pub fn journal(&self) -> Journal {
        let state = self.shared.state();
        let (before, entries) = state.journal.clone().expect("recorded");
        Journal {
            before,
            entries: entries.into(),
        }
    }

    /// Such calls on what lies in the folder of that name wait until [`Self::release`].
    pub fn hold(&self, call: Call, folder: &str) {
        self.shared.state().held.push((call, folder.to_owned()));
    }

    /// Waits until so many calls are being held; false where that takes longer than `at_most`.
    pub fn wait_for_held(&self, calls: usize, at_most: Duration) -> bool {
        let state = self.shared.state();
        let (_state, result) = self
            .shared
            .held
            .wait_timeout_while(state, at_most, |state| state.waiting < calls)
            .unwrap_or_else(PoisonError::into_inner);
        !result.timed_out()
    }

    /// No call waits any more.
    pub fn release(&self) {
        self.shared.state().held.clear();
        self.shared.held.notify_all();
    }

    /// Every `fdatasync` takes that long.
    pub fn delay_syncs(&self, each: Duration) {
        self.shared.state().sync_takes = each;
    }

    /// The paths of all such calls so far, but for [`Call::Read`].
    pub fn calls(&self, call: Call) -> Vec<PathBuf> {
        let state = self.shared.state();
        let calls = state.calls.iter().filter(|(other, _)| *other == call);
        calls.map(|(_, path)| path.clone()).collect()
    }

    /// Counts from nothing again.
    pub fn forget_calls(&self) {
        let mut state = self.shared.state();
        state.calls.clear();
        state.bytes_read.clear();
    }

    /// How many such calls there were on paths that end with `suffix`.
    pub fn count(&self, call: Call, suffix: &str) -> u64 {
        let calls = self.calls(call);
        let concerned = calls
            .iter()
            .filter(|path| path.to_string_lossy().ends_with(suffix));
        concerned.count() as u64
    }

    /// Bytes read from files whose paths end with `suffix`.
    pub fn bytes_read(&self, suffix: &str) -> u64 {
        let state = self.shared.state();
        let read = state.bytes_read.iter();
        read.filter(|(path, _)| path.to_string_lossy().ends_with(suffix))
            .map(|(_, bytes)| bytes)
            .sum()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn below_root<'a>(&self, path: &'a Path) -> io::Result<&'a Path> {
        path.strip_prefix(&self.root)
            .map_err(|_| io::Error::other(format!("{} is not on this disk", path.display())))
    }

    /// Begins a call: waits where it is held, and says how it goes wrong, if it does.
    fn begin(&self, call: Call, path: &Path) -> (MutexGuard<'_, State>, Option<Failure>) {
        let mut state = self.state();
        state.waiting += 1;
        self.held.notify_all();
        let is_held = |state: &mut State| {
            let mut held = state.held.iter();
            held.any(|(other, folder)| *other == call && is_in(path, folder))
        };
        let mut state = self
            .held
            .wait_while(state, is_held)
            .unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        if call != Call::Read {
            state.calls.push((call, path.to_owned()));
        }
        let failure = state.faults.strike(call, path);
        (state, failure)
    }

    /// Begins a call that changes something, which either fails at once or is to be done.
    fn change(&self, call: Call, path: &Path) -> io::Result<MutexGuard<'_, State>> {
        let (state, failure) = self.begin(call, path);
        if state.left == Some(0) {
            return Err(error(libc::EIO));
        }
        match failure {
            Some(Failure::Errno(errno) | Failure::Torn(errno)) => Err(error(errno)),
            _ => Ok(state),
        }
    }

    /// The folder that `path` lies in, and its name there.
    fn place(&self, state: &State, path: &Path) -> io::Result<(usize, OsString)> {
        let below = self.below_root(path)?;
        let parent = below.parent().unwrap_or(Path::new(""));
        match (state.image.find(parent), below.file_name()) {
            (Some(Node::Dir(dir)), Some(name)) => Ok((dir, name.to_owned())),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl State {
    /// Something was changed.
    fn done(&mut self, call: Call, path: &Path, change: Change) {
        self.image.apply(&change);
        self.left = self.left.map(|left| left.saturating_sub(1));
        if let Some((_, entries)) = &mut self.journal {
            let name: PathBuf = path
                .iter()
                .rev()
                .take(2)
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .collect();
            let what = format!("{call:?} {}", name.display());
            entries.push(Entry { what, change });
        }
    }

    fn used(&self) -> u64 {
        let linked = self.image.linked_files();
        let sizes = linked.iter().filter_map(|file| self.sizes.get(file));
        sizes.map(|(len, reserved)| len.max(reserved)).sum()
    }

    /// How many bytes more than `held` a file can have.
    fn room(&self) -> u64 {
        self.capacity
            .map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used()))
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn File>> {
        let shared = &self.shared;
        let below = shared.below_root(path)?;
        let found = shared.state().image.find(below);
        let file = match found {
            None if create => {
                let mut state = shared.change(Call::Create, path)?;
                let (dir, name) = shared.place(&state, path)?;
                let real = RealDisk.open(path, true)?;
                let file = state.image.next_file();
                let name = NameChange::Link(name, Node::File(file));
                state.done(Call::Create, path, Change::NewFile { dir, name });
                state.sizes.insert(file, (0, 0));
                (real, file)
            }
            Some(Node::File(file)) => {
                let state = shared.change(Call::Open, path)?;
                drop(state);
                (RealDisk.open(path, false)?, file)
            }
            // As the system says it.
            _ => return RealDisk.open(path, false),
        };
        let (real, file) = file;
        Ok(Arc::new(FaultyFile::new(
            Arc::clone(shared),
            real,
            path,
            file,
        )))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let below = self.shared.below_root(path)?;
        if below.as_os_str().is_empty() {
            return RealDisk.create_dir_all(path);
        }
        if let Some(parent) = path.parent() {
            self.create_dir_all(parent)?;
        }
        if self.shared.state().image.find(below).is_some() {
            return RealDisk.create_dir_all(path);
        }
        let mut state = self.shared.change(Call::CreateDir, path)?;
        let (dir, name) = self.shared.place(&state, path)?;
        RealDisk.create_dir_all(path)?;
        let node = Node::Dir(state.image.next_dir());
        let name = NameChange::Link(name, node);
        state.done(Call::CreateDir, path, Change::NewDir { dir, name });
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.shared.change(Call::Rename, to)?;
        let below = self.shared.below_root(from)?;
        RealDisk.rename(from, to)?;
        let node = state.image.find(below).ok_or(io::ErrorKind::NotFound)?;
        let (from_dir, from_name) = self.shared.place(&state, from)?;
        let (to_dir, to_name) = self.shared.place(&state, to)?;
        let change = if from_dir == to_dir {
            let change = NameChange::Rename(from_name, to_name);
            Change::Names {
                dir: to_dir,
                change,
            }
        } else {
            Change::Move {
                from: (from_dir, NameChange::Unlink(from_name)),
                to: (to_dir, NameChange::Link(to_name, node)),
            }
        };
        state.done(Call::Rename, to, change);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.shared.change(Call::RemoveFile, path)?;
        RealDisk.remove_file(path)?;
        let (dir, name) = self.shared.place(&state, path)?;
        let change = NameChange::Unlink(name);
        state.done(Call::RemoveFile, path, Change::Names { dir, change });
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.shared.change(Call::RemoveDir, path)?;
        RealDisk.remove_dir(path)?;
        let (dir, name) = self.shared.place(&state, path)?;
        let change = NameChange::Unlink(name);
        state.done(Call::RemoveDir, path, Change::Names { dir, change });
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.shared.change(Call::SyncDir, path)?;
        let found = state.image.find(self.shared.below_root(path)?);
        let Some(Node::Dir(dir)) = found else {
            return Err(io::ErrorKind::NotFound.into());
        };
        state.done(Call::SyncDir, path, Change::SyncDir { dir });
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        RealDisk.list(path)
    }

    fn lock(&self, path: &Path) -> io::Result<DiskLock> {
        RealDisk.lock(path)
    }
}
