//! Every system call that changes what is on disk.
//!
//! Nothing else in this crate opens a file for writing, writes, syncs, renames or removes. A test
//! puts a faulty disk in the place of [`RealDisk`] by implementing the two traits.
//!
//! Reads that recovery depends on go through [`File::read_at`] too; reads on the fetch path go
//! through maps of sealed bytes and never through here.

use std::any::Any;
use std::fmt::Debug;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Slices in one vectored call: far below any system's `IOV_MAX`.
const MAX_SLICES: usize = 16;

/// An open file. All methods take `&self`: positions are explicit.
pub trait File: Send + Sync + Debug {
    /// Writes all of `bytes` (several slices, one vectored call where possible) at `position`.
    /// On an error any prefix may have been written.
    fn write_all_at(&self, bytes: &[&[u8]], position: u64) -> io::Result<()>;
    /// Reads up to `buf.len()` bytes at `position`; 0 at the end of the file.
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize>;
    /// `fdatasync`: data and size are on the device when this returns.
    fn sync(&self) -> io::Result<()>;
    /// Cuts or extends the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Size in bytes.
    fn len(&self) -> io::Result<u64>;
    /// True where [`File::len`] is 0.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Maps `len` bytes from the start for reading. `len` may be beyond the end of the file; only
    /// bytes that were written may be touched.
    fn map(&self, len: usize) -> io::Result<memmap2::MmapRaw>;
}

/// A file system.
pub trait Disk: Send + Sync + Debug {
    /// Opens for reading and writing; creates the file where `create` is set and it is missing.
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn File>>;
    /// Creates a folder and its parents.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Renames, replacing the target.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder and everything in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The paths of what is in a folder, in no particular order.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// Locks a file, created where missing, for as long as the value lives. `WouldBlock` where
    /// somebody else has it, in this process or another.
    fn lock(&self, path: &Path) -> io::Result<DiskLock>;
}

/// Holds a lock that [`Disk::lock`] took; dropping it lets go.
pub struct DiskLock(Box<dyn Any + Send + Sync>);

impl DiskLock {
    /// Wraps whatever lets go of the lock when it is dropped.
    pub fn new(guard: impl Any + Send + Sync) -> Self {
        Self(Box::new(guard))
    }
}

impl Debug for DiskLock {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let _ = &self.0;
        formatter.write_str("DiskLock")
    }
}

/// Reads exactly `buf.len()` bytes at `position`; `UnexpectedEof` where the file ends before.
pub fn read_exact_at(file: &dyn File, buf: &mut [u8], position: u64) -> io::Result<()> {
    let read = read_full_at(file, buf, position)?;
    if read == buf.len() {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!(
            "{} bytes wanted at position {position}, {read} are there",
            buf.len()
        ),
    ))
}

/// Fills `buf` from `position` as far as the file goes; returns how many bytes there were.
pub fn read_full_at(file: &dyn File, buf: &mut [u8], position: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        match file.read_at(&mut buf[filled..], position + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The process, or the system, has no more handles for open files: a call that opens something has
/// failed with it, and has done nothing else.
pub fn is_out_of_handles(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// The machine's own file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn File>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(create)
            .truncate(false)
            .open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn lock(&self, path: &Path) -> io::Result<DiskLock> {
        let file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(DiskLock::new(file)),
            Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

#[derive(Debug)]
struct RealFile(fs::File);

impl File for RealFile {
    fn write_all_at(&self, bytes: &[&[u8]], position: u64) -> io::Result<()> {
        let mut position = position;
        for slices in bytes.chunks(MAX_SLICES) {
            write_vectored_at(&self.0, slices, position)?;
            position += slices.iter().map(|slice| slice.len() as u64).sum::<u64>();
        }
        Ok(())
    }

    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.0.read_at(buf, position)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn map(&self, len: usize) -> io::Result<memmap2::MmapRaw> {
        memmap2::MmapOptions::new()
            .len(len)
            .map_raw_read_only(&self.0)
    }
}

/// `pwritev` until everything is written. At most [`MAX_SLICES`] slices.
fn write_vectored_at(file: &fs::File, slices: &[&[u8]], position: u64) -> io::Result<()> {
    let total: usize = slices.iter().map(|slice| slice.len()).sum();
    let mut written = 0;
    while written < total {
        let mut skip = written;
        let mut count = 0;
        let mut vectors = [libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        }; MAX_SLICES];
        for slice in slices {
            let skipped = skip.min(slice.len());
            skip -= skipped;
            let rest = &slice[skipped..];
            if let Some(vector) = vectors.get_mut(count).filter(|_| !rest.is_empty()) {
                vector.iov_base = rest.as_ptr().cast_mut().cast();
                vector.iov_len = rest.len();
                count += 1;
            }
        }
        let offset = libc::off_t::try_from(position + written as u64)
            .map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        // SAFETY: the first `count` vectors point into `slices`, which outlive the call, and
        // `pwritev` only reads from them; `count` is at most MAX_SLICES.
        let result = unsafe {
            libc::pwritev(
                file.as_raw_fd(),
                vectors.as_ptr(),
                count as libc::c_int,
                offset,
            )
        };
        match usize::try_from(result) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(more) => written += more,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}
