//! Every system call that changes what is on disk.
//!
//! Nothing else in this crate opens a file for writing, writes, syncs, renames or removes. A test
//! puts a faulty disk in the place of [`RealDisk`] by implementing the two traits.
//!
//! Reads that recovery depends on go through [`File::read_at`] too; reads on the fetch path go
//! through maps of sealed bytes and never through here.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    /// The names in a folder.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
}
