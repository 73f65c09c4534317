//! Every system call that changes what is on disk.
//!
//! Nothing else in this crate opens a file for writing, writes, syncs, renames or removes. A test
//! puts a faulty disk in the place of [`RealDisk`] by implementing the two traits, whose methods
//! are single system calls: they may do less than asked, or be interrupted. The functions beside
//! them go on until all is done.
//!
//! Reads that recovery depends on go through [`File::read_at`] too; reads on the fetch path go
//! through maps of sealed bytes and never through here.

use std::any::Any;
use std::fmt::Debug;
use std::fs;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// Slices in one vectored call: far below any system's `IOV_MAX`.
const MAX_SLICES: usize = 16;

/// An open file. All methods take `&self`: positions are explicit.
pub trait File: Send + Sync + Debug {
    /// `pwritev`: writes the slices' bytes at `position`, or some of the first of them; says how
    /// many.
    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<usize>;
    /// Reads up to `buf.len()` bytes at `position`; 0 at the end of the file.
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize>;
    /// `fdatasync`: data and size are on the device when this returns.
    fn sync(&self) -> io::Result<()>;
    /// Cuts or extends the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves room for the first `len` bytes; the file's size stays as it is.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Size in bytes.
    fn len(&self) -> io::Result<u64>;
    /// True where [`File::len`] is 0.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// When the content was last changed, milliseconds since the epoch.
    fn modified_ms(&self) -> io::Result<i64>;
    /// Says when it was. The next change of the content says otherwise.
    fn set_modified_ms(&self, modified_ms: i64) -> io::Result<()>;
    /// Maps `len` bytes from the start for reading. `len` may be beyond the end of the file; only
    /// bytes that were written may be touched.
    fn map(&self, len: usize) -> io::Result<memmap2::MmapRaw>;
}

/// A file system.
pub trait Disk: Send + Sync + Debug {
    /// Opens for reading and writing; creates the file where `create` is set and it is missing.
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn File>>;
    /// Size in bytes of a file that is not open.
    fn len(&self, path: &Path) -> io::Result<u64> {
        self.open(path, false)?.len()
    }
    /// Creates a folder and its parents.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Renames, replacing the target.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty folder.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The paths of what is in a folder, in no particular order.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// Locks a file, created where missing, for as long as the value lives. `WouldBlock` where
    /// somebody else has it, in this process or another.
    fn lock(&self, path: &Path) -> io::Result<DiskLock>;
    /// Fails where it is known that there is no room for records in the partition folder `dir`,
    /// or for new folders in the data folder: it need not be tried.
    fn room_for(&self, dir: &Path) -> io::Result<()> {
        let _ = dir;
        Ok(())
    }
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

/// Writes all of `bytes` at `position`, in one vectored call where possible. On an error any prefix
/// may have been written.
pub fn write_all_at(file: &dyn File, bytes: &[&[u8]], position: u64) -> io::Result<()> {
    let mut position = position;
    for slices in bytes.chunks(MAX_SLICES) {
        let mut slices: [IoSlice<'_>; MAX_SLICES] =
            std::array::from_fn(|index| IoSlice::new(slices.get(index).copied().unwrap_or(&[])));
        let mut rest = &mut slices[..];
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match file.write_at(rest, position) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    position += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Removes a folder and everything in it.
pub fn remove_dir_all(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    for entry in disk.list(path)? {
        match disk.remove_file(&entry) {
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                remove_dir_all(disk, &entry)?;
            }
            removed => removed?,
        }
    }
    disk.remove_dir(path)
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

    fn len(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
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

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
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
    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        let count = slices.len().min(MAX_SLICES);
        let offset = offset(position)?;
        // SAFETY: an `IoSlice` has the layout of an `iovec`; the first `count` of them are there and
        // outlive the call, and `pwritev` only reads from them.
        let written = unsafe {
            libc::pwritev(
                self.0.as_raw_fd(),
                slices.as_ptr().cast(),
                count as libc::c_int,
                offset,
            )
        };
        usize::try_from(written).map_err(|_| io::Error::last_os_error())
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

    fn allocate(&self, len: u64) -> io::Result<()> {
        let len = offset(len)?;
        // SAFETY: the file is open, and its content and size are left as they are.
        match unsafe { libc::fallocate(self.0.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, 0, len) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn modified_ms(&self) -> io::Result<i64> {
        let modified = self.0.metadata()?.modified()?;
        let since_epoch = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    fn set_modified_ms(&self, modified_ms: i64) -> io::Result<()> {
        let since_epoch = Duration::from_millis(u64::try_from(modified_ms).unwrap_or(0));
        self.0.set_modified(UNIX_EPOCH + since_epoch)
    }

    fn map(&self, len: usize) -> io::Result<memmap2::MmapRaw> {
        memmap2::MmapOptions::new()
            .len(len)
            .map_raw_read_only(&self.0)
    }
}

fn offset(position: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(position).map_err(|_| io::ErrorKind::FileTooLarge.into())
}
