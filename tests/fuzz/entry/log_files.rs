//! Where the fuzzer enters the files beside a log: snapshots of producers, and Kafka's small text
//! files. A broker reads them at a start, whoever has written them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use storage::batch::{Batch, BatchBuilder, Compression};
use storage::checkpoint::{self, EpochEntry, OffsetCheckpoint, uuid_text};
use storage::disk::{Disk, DiskLock, File};
use storage::producer_state::ProducerState;

/// A producer snapshot. Where the first byte is odd, its CRC is made right first. What decodes is
/// written again, and reads the same; and what is done with it later does not fail either.
pub fn snapshot(data: &[u8]) {
    let Some((how, data)) = data.split_first() else {
        return;
    };
    let mut bytes = data.to_vec();
    if how & 1 == 1
        && let Some((head, covered)) = bytes.split_at_mut_checked(6)
    {
        head[2..].copy_from_slice(&crc32c::crc32c(covered).to_be_bytes());
    }
    let path = Path::new("00000000000000000000.snapshot");
    let Ok(state) = ProducerState::decode_snapshot(path, &bytes) else {
        return;
    };
    let written = state.encode_snapshot();
    let read = ProducerState::decode_snapshot(path, &written).expect("what was written is sound");
    assert_eq!(read, state);
    assert_eq!(read.encode_snapshot(), written);
    let active = state.active();
    assert_eq!(active.len(), state.len());
    // What each of them sends next, and what it has sent last.
    let mut later = state.clone();
    for producer in active.iter().take(16) {
        for sequence in [
            producer.last_sequence,
            producer.last_sequence.wrapping_add(1),
        ] {
            let mut batch = BatchBuilder::new(Compression::None).producer(
                producer.producer_id,
                producer.epoch,
                sequence,
            );
            batch.push(0, None, None, &[]);
            let batch = batch.build();
            let batch = Batch::parse(&batch).expect("a batch");
            if later.check(&batch).is_ok() {
                later.update(&batch, 1 << 40, 0);
            }
        }
    }
    assert_eq!(later.len(), state.len());
    later.cut(1 << 20);
    later.remove_expired(i64::from(*how) << 40, 1);
    later.add_missing(state.clone());
    assert_eq!(later.len(), state.len());
}

/// One of Kafka's small text files, the first byte says which. What decodes is written again, and
/// reads the same.
pub fn checkpoint(data: &[u8]) {
    let Some((kind, text)) = data.split_first() else {
        return;
    };
    let dir = Path::new("folder");
    let disk = Memory::default();
    let put = |name: &str| disk.put(&dir.join(name), text);
    match kind % 7 {
        0 => {
            put("leader-epoch-checkpoint");
            let read = || checkpoint::read_leader_epochs(&disk, dir);
            let Ok(epochs) = read() else { return };
            let ascend = |pair: &[EpochEntry]| {
                pair[0].leader_epoch < pair[1].leader_epoch
                    && pair[0].start_offset <= pair[1].start_offset
            };
            assert!(epochs.windows(2).all(ascend), "{epochs:?}");
            checkpoint::write_leader_epochs(&disk, dir, &epochs).expect("written");
            same(&epochs, read());
        }
        1 => {
            put("partition.metadata");
            let read = || checkpoint::read_partition_metadata(&disk, dir);
            let Ok(Some(id)) = read() else { return };
            checkpoint::write_partition_metadata(&disk, dir, id).expect("written");
            same(&Some(id), read());
        }
        2 => {
            put("meta.properties");
            let read = || checkpoint::read_meta_properties(&disk, dir);
            let Ok(Some(properties)) = read() else { return };
            checkpoint::write_meta_properties(&disk, dir, &properties).expect("written");
            same(&Some(properties), read());
        }
        kind => {
            let which = match kind {
                3 => OffsetCheckpoint::RecoveryPoint,
                4 => OffsetCheckpoint::LogStartOffset,
                6 => OffsetCheckpoint::FirstDirtyOffset,
                _ => OffsetCheckpoint::HighWatermark,
            };
            put(which.file_name());
            let read = || checkpoint::read_offsets(&disk, dir, which);
            let Ok(offsets) = read() else { return };
            checkpoint::write_offsets(&disk, dir, which, &offsets).expect("written");
            same(&offsets, read());
        }
    }
    if let Ok(text) = std::str::from_utf8(text)
        && let Some(id) = uuid_text::decode(text)
    {
        assert_eq!(uuid_text::encode(id), text);
    }
}

fn same<T: PartialEq + Debug>(written: &T, read: storage::Result<T>) {
    assert_eq!(read.as_ref().ok(), Some(written), "{read:?}");
}

/// Files in memory, as much of a disk as small files need.
#[derive(Clone, Debug, Default)]
struct Memory(Arc<Mutex<BTreeMap<PathBuf, MemoryFile>>>);

#[derive(Clone, Debug, Default)]
struct MemoryFile(Arc<Mutex<Vec<u8>>>);

impl Memory {
    fn put(&self, path: &Path, bytes: &[u8]) {
        let file = MemoryFile(Arc::new(Mutex::new(bytes.to_vec())));
        locked(&self.0).insert(path.to_owned(), file);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disk for Memory {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn File>> {
        let mut files = locked(&self.0);
        if create {
            files.entry(path.to_owned()).or_default();
        }
        let file = files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(file.clone()))
    }

    fn create_dir_all(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = locked(&self.0);
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let removed = locked(&self.0).remove(path);
        removed.map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn remove_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let files = locked(&self.0);
        let inside = files.keys().filter(|file| file.parent() == Some(path));
        Ok(inside.cloned().collect())
    }

    fn lock(&self, _path: &Path) -> io::Result<DiskLock> {
        Ok(DiskLock::new(()))
    }
}

impl File for MemoryFile {
    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        let mut bytes = locked(&self.0);
        let start = position as usize;
        let written: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        let end = start + written.len();
        let len = bytes.len().max(end);
        bytes.resize(len, 0);
        bytes[start..end].copy_from_slice(&written);
        Ok(written.len())
    }

    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let bytes = locked(&self.0);
        let rest = bytes.get(position as usize..).unwrap_or_default();
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        locked(&self.0).resize(len as usize, 0);
        Ok(())
    }

    fn allocate(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(locked(&self.0).len() as u64)
    }

    fn modified_ms(&self) -> io::Result<i64> {
        Ok(0)
    }

    fn set_modified_ms(&self, _modified_ms: i64) -> io::Result<()> {
        Ok(())
    }

    fn map(&self, _len: usize) -> io::Result<memmap2::MmapRaw> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
