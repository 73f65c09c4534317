//! A disk that may be full: it notices, keeps a reserve for what makes room again, and finds out when
//! there is room.
//!
//! - The first call that finds no room closes the disk for records ([`Disk::room_for`]): who would
//!   append is refused without a try, so that what is left, and the reserve, is not used up by them.
//! - The reserve is the file `.reserve` of the data folder, [`RESERVE_BYTES`] long on the disk. A call
//!   that finds no room and is not for records removes it and tries once more. So on a full disk
//!   records and topics can still be deleted, checkpoints written, and a start repairs what it has to.
//!   What compaction writes gets nothing of the reserve, and does not close the disk either.
//! - [`ReservedDisk::look_for_room`], called now and then, opens the disk for records again once there
//!   is room for the reserve and for [`PROBE_BYTES`] beside it.
//!
//! What has failed before, a sync above all, is none of its business.

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::disk::{self, Disk, DiskLock, File};

/// What is kept for what has to be written on a full disk.
pub const RESERVE_BYTES: u64 = 1 << 20;
/// Free room beside the reserve from which on the disk is not full any more: a large batch.
pub const PROBE_BYTES: u64 = 1 << 20;

const RESERVE: &str = ".reserve";
const PROBE: &str = ".room";
/// Written at once where the file system cannot reserve room.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Another disk, with a reserve.
#[derive(Debug)]
pub struct ReservedDisk {
    room: Arc<Room>,
}

#[derive(Debug)]
struct Room {
    disk: Arc<dyn Disk>,
    /// The data folder.
    folder: PathBuf,
    /// Topics whose records may use the reserve.
    essential: &'static [&'static str],
    full: AtomicBool,
    /// Calls that found no room, since the start.
    refused: AtomicU64,
    /// Held while the reserve comes or goes; since when the disk is full.
    reserve: Mutex<Option<Instant>>,
}

impl ReservedDisk {
    /// `disk`, which has the data folder `folder`. Records of the topics `essential` may use the
    /// reserve.
    pub fn new(disk: Arc<dyn Disk>, folder: &Path, essential: &'static [&'static str]) -> Self {
        Self {
            room: Arc::new(Room {
                disk,
                folder: folder.to_owned(),
                essential,
                full: AtomicBool::new(false),
                refused: AtomicU64::new(0),
                reserve: Mutex::new(None),
            }),
        }
    }

    /// There was no room for something, and none has come since.
    pub fn is_full(&self) -> bool {
        self.room.full.load(Ordering::Acquire)
    }

    /// How many calls have found no room.
    pub fn refused(&self) -> u64 {
        self.room.refused.load(Ordering::Relaxed)
    }

    /// Blocking. Makes the reserve, where there is room for it. For whoever has locked the folder.
    pub fn make_reserve(&self) -> io::Result<()> {
        let _reserve = self.room.lock();
        let made = self.room.allocate(RESERVE, RESERVE_BYTES);
        drop(_reserve);
        match made {
            Err(error) if is_full(&error) => {
                self.room
                    .found_full("reserve", &self.room.folder.join(RESERVE), &error);
                Ok(())
            }
            made => made,
        }
    }

    /// Blocking. Where the disk was full: finds out whether there is room again, and says so.
    pub fn look_for_room(&self) -> io::Result<()> {
        if !self.is_full() {
            return Ok(());
        }
        let mut since = self.room.lock();
        let found = self
            .room
            .allocate(RESERVE, RESERVE_BYTES)
            .and_then(|()| self.room.allocate(PROBE, PROBE_BYTES));
        self.room.remove(PROBE)?;
        match found {
            Ok(()) => {}
            Err(error) if is_full(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
        let full_s = since.take().map_or(0, |since| since.elapsed().as_secs());
        self.room.full.store(false, Ordering::Release);
        tracing::info!(
            data_dir = %self.room.folder.display(),
            full_s,
            refused = self.refused(),
            "there is room on the disk again"
        );
        Ok(())
    }
}

impl Room {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.reserve.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file `name` of the data folder gets so much room, or does not exist.
    fn allocate(&self, name: &str, bytes: u64) -> io::Result<()> {
        let path = self.folder.join(name);
        let file = self.disk.open(&path, true)?;
        let allocated = match file.allocate(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => fill(file.as_ref(), bytes),
            allocated => allocated,
        };
        if allocated.is_err() {
            drop(file);
            self.remove(name)?;
        }
        allocated
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match self.disk.remove_file(&self.folder.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Runs a call, and where it finds no room and is `entitled` to the reserve, again without that.
    fn with_room<T>(
        &self,
        name: &'static str,
        path: &Path,
        entitled: bool,
        call: impl Fn() -> io::Result<T>,
    ) -> io::Result<T> {
        match call() {
            Err(error) if is_full(&error) && is_cleaned(path) => Err(error),
            Err(error) if is_full(&error) => {
                self.found_full(name, path, &error);
                if !entitled {
                    return Err(error);
                }
                let _reserve = self.lock();
                self.remove(RESERVE)?;
                call()
            }
            done => done,
        }
    }

    fn found_full(&self, call: &'static str, path: &Path, error: &io::Error) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        if self.full.swap(true, Ordering::AcqRel) {
            return;
        }
        self.lock().get_or_insert_with(Instant::now);
        tracing::error!(
            data_dir = %self.folder.display(),
            call,
            file = %path.display(),
            %error,
            "the disk is full: nothing is written for producers until there is room"
        );
    }

    /// Everything but records, and the records of essential topics.
    fn is_entitled(&self, path: &Path) -> bool {
        let is_log = path.extension().is_some_and(|suffix| suffix == "log");
        !is_log || path.parent().is_some_and(|dir| self.is_essential(dir))
    }

    fn is_essential(&self, dir: &Path) -> bool {
        dir.file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.rsplit_once('-'))
            .is_some_and(|(topic, _)| self.essential.contains(&topic))
    }
}

/// Where the file system cannot reserve room: the file is that long.
fn fill(file: &dyn File, bytes: u64) -> io::Result<()> {
    let mut position = file.len()?;
    while position < bytes {
        let some = usize::try_from(bytes - position).unwrap_or(ZEROS.len());
        disk::write_all_at(file, &[&ZEROS[..some.min(ZEROS.len())]], position)?;
        position += some.min(ZEROS.len()) as u64;
    }
    Ok(())
}

fn no_room() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "the disk is full")
}

/// Compaction writes it: where there is no room for that, there may still be some for records.
fn is_cleaned(path: &Path) -> bool {
    path.extension().is_some_and(|suffix| suffix == "cleaned")
}

/// The disk has no room, or the quota is used up.
pub fn is_full(error: &io::Error) -> bool {
    is_full_kind(error.kind())
}

/// As [`is_full`], of an error's kind.
pub(crate) fn is_full_kind(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

impl Disk for ReservedDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn File>> {
        let entitled = self.room.is_entitled(path);
        let open = || self.room.disk.open(path, create);
        let file = self.room.with_room("open", path, entitled, open)?;
        Ok(Arc::new(ReservedFile {
            file,
            room: Arc::clone(&self.room),
            path: path.to_owned(),
            entitled,
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let create = || self.room.disk.create_dir_all(path);
        self.room.with_room("mkdir", path, true, create)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let rename = || self.room.disk.rename(from, to);
        self.room.with_room("rename", to, true, rename)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let remove = || self.room.disk.remove_file(path);
        self.room.with_room("remove", path, true, remove)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let remove = || self.room.disk.remove_dir(path);
        self.room.with_room("remove", path, true, remove)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.room.disk.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.room.disk.list(path)
    }

    fn lock(&self, path: &Path) -> io::Result<DiskLock> {
        let lock = || self.room.disk.lock(path);
        self.room.with_room("open", path, true, lock)
    }

    fn len(&self, path: &Path) -> io::Result<u64> {
        self.room.disk.len(path)
    }

    fn room_for(&self, dir: &Path) -> io::Result<()> {
        if self.is_full() && !self.room.is_essential(dir) {
            return Err(no_room());
        }
        Ok(())
    }
}

#[derive(Debug)]
struct ReservedFile {
    file: Arc<dyn File>,
    room: Arc<Room>,
    path: PathBuf,
    entitled: bool,
}

impl ReservedFile {
    /// Also where a roll, say, has just taken the reserve: its record does not get the rest.
    fn check_room(&self) -> io::Result<()> {
        if !self.entitled && self.room.full.load(Ordering::Acquire) {
            return Err(no_room());
        }
        Ok(())
    }
}

impl File for ReservedFile {
    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        self.check_room()?;
        let write = || self.file.write_at(slices, position);
        self.room
            .with_room("write", &self.path, self.entitled, write)
    }

    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buf, position)
    }

    fn sync(&self) -> io::Result<()> {
        // Not a second time, whatever it says.
        self.file.sync().inspect_err(|error| {
            if is_full(error) {
                self.room.found_full("sync", &self.path, error);
            }
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        // Also of records: what a write has left is cut off.
        let set_len = || self.file.set_len(len);
        self.room.with_room("truncate", &self.path, true, set_len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.check_room()?;
        let allocate = || self.file.allocate(len);
        let entitled = self.entitled;
        self.room
            .with_room("allocate", &self.path, entitled, allocate)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn modified_ms(&self) -> io::Result<i64> {
        self.file.modified_ms()
    }

    fn set_modified_ms(&self, modified_ms: i64) -> io::Result<()> {
        self.file.set_modified_ms(modified_ms)
    }

    fn map(&self, len: usize) -> io::Result<memmap2::MmapRaw> {
        self.file.map(len)
    }
}
