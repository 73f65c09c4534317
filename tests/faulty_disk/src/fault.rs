//! What a disk does wrong when it is told to.

use std::io;
use std::path::Path;

/// A system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// Opening a file, creating it or not.
    Open,
    /// Creating a file that is not there.
    Create,
    /// Creating a folder.
    CreateDir,
    /// `pread`.
    Read,
    /// `pwritev`.
    Write,
    /// `fdatasync`.
    Sync,
    /// `ftruncate`.
    SetLen,
    /// `fallocate`.
    Allocate,
    /// `rename`.
    Rename,
    /// `unlink`.
    RemoveFile,
    /// `rmdir`.
    RemoveDir,
    /// `fsync` of a folder.
    SyncDir,
}

/// How a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It does nothing and fails with this error number, such as `libc::EIO`.
    Errno(i32),
    /// A read or write does half of what is asked.
    Short,
    /// A write does half, and the next to the same file fails with this error number.
    Torn(i32),
    /// A sync claims to have succeeded, and has done nothing.
    Lie,
}

/// Calls that go wrong.
#[derive(Clone, Debug)]
pub struct Fault {
    pub(crate) call: Call,
    pub(crate) folder: Option<String>,
    pub(crate) suffix: String,
    pub(crate) skip: u64,
    pub(crate) times: u64,
    pub(crate) failure: Failure,
}

impl Fault {
    /// All such calls fail so, until [`crate::FaultyDisk::heal`].
    pub fn new(call: Call, failure: Failure) -> Self {
        Self {
            call,
            folder: None,
            suffix: String::new(),
            skip: 0,
            times: u64::MAX,
            failure,
        }
    }

    /// Only those on what lies in the folder of that name.
    #[must_use]
    pub fn in_folder(mut self, name: &str) -> Self {
        self.folder = Some(name.to_owned());
        self
    }

    /// Only those on names that end so.
    #[must_use]
    pub fn on(mut self, suffix: &str) -> Self {
        suffix.clone_into(&mut self.suffix);
        self
    }

    /// Only the first, after `skip` that go right.
    #[must_use]
    pub fn once_after(mut self, skip: u64) -> Self {
        self.skip = skip;
        self.times = 1;
        self
    }

    /// Only the next one.
    #[must_use]
    pub fn once(self) -> Self {
        self.once_after(0)
    }

    fn concerns(&self, call: Call, path: &Path) -> bool {
        self.call == call
            && path.to_string_lossy().ends_with(&self.suffix)
            && self.folder.as_ref().is_none_or(|name| is_in(path, name))
    }
}

/// Whether `path` lies in a folder of that name.
pub(crate) fn is_in(path: &Path, folder: &str) -> bool {
    path.parent()
        .and_then(Path::file_name)
        .is_some_and(|name| name == folder)
}

/// The faults that are set.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<Fault>);

impl Faults {
    pub fn add(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// How this call goes wrong, if it does.
    pub fn strike(&mut self, call: Call, path: &Path) -> Option<Failure> {
        let index = self.0.iter_mut().position(|fault| {
            if !fault.concerns(call, path) {
                return false;
            }
            let skipped = fault.skip > 0;
            fault.skip = fault.skip.saturating_sub(1);
            !skipped
        })?;
        let fault = &mut self.0[index];
        let failure = fault.failure;
        fault.times -= 1;
        if fault.times == 0 {
            self.0.remove(index);
        }
        Some(failure)
    }
}

pub(crate) fn error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}
