//! Batches to append, and logs to append them to.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use storage::batch::{BatchBuilder, Compression, layout};
use storage::disk::RealDisk;
use storage::log_dir::{LogDirConfig, OpenLog};
use storage::partition_log::Visibility;
use storage::{LogConfig, LogDir, PartitionLog};
use uuid::Uuid;

/// The topic of all logs.
pub const TOPIC: &str = "bench";

/// Uncompressed batches of one size, to be appended again and again.
#[derive(Debug)]
pub struct Ring {
    batches: Vec<Bytes>,
    crcs: Vec<BatchCrc>,
    next_timestamp: i64,
    /// Records in each.
    pub records: i64,
    /// Bytes of each.
    pub batch_bytes: usize,
}

/// Bytes of all batches of a ring together, about: more than the processor's second cache, as with
/// what comes from many sockets.
const RING_BYTES: usize = 4 << 20;

impl Ring {
    /// Batches of at most `batch_bytes`, or of one record, whose values are of `record_bytes`.
    pub fn new(record_bytes: usize, batch_bytes: usize) -> Self {
        let mut value = vec![0; record_bytes];
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut build = |records: Option<usize>| {
            let mut batch = BatchBuilder::new(Compression::None);
            loop {
                for byte in &mut value {
                    seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                    *byte = (seed >> 56) as u8;
                }
                batch.push(1, None, Some(&value), &[]);
                // A record takes up to ten bytes beside its value here.
                let full = batch.size_in_bytes() + record_bytes + 16 > batch_bytes;
                if records.map_or(full, |records| batch.len() == records) {
                    return (batch.len(), batch.build());
                }
            }
        };
        let (records, first) = build(None);
        let size = first.len();
        let count = (RING_BYTES / size).clamp(8, 1024);
        let mut batches = vec![first];
        batches.extend((1..count).map(|_| build(Some(records)).1));
        let crcs = BatchCrc::of(&batches);
        Self {
            crcs,
            batches,
            next_timestamp: 1,
            records: records as i64,
            batch_bytes: size,
        }
    }

    /// The batches, each with a timestamp that is later than all before: as from producers, so that
    /// the time index has an entry wherever the offset index has one.
    pub fn stamped(&mut self) -> &[Bytes] {
        for (batch, crc) in self.batches.iter_mut().zip(&self.crcs) {
            let mut bytes: BytesMut = std::mem::take(batch)
                .try_into_mut()
                .expect("nobody else has the batch");
            let timestamp = self.next_timestamp;
            self.next_timestamp += 1;
            crc.stamp(&mut bytes, timestamp, timestamp);
            *batch = bytes.freeze();
        }
        &self.batches
    }

    /// Bytes of all batches.
    pub fn bytes(&self) -> u64 {
        (self.batches.len() * self.batch_bytes) as u64
    }
}

/// What it takes to change a batch's header without a look at its records.
#[derive(Clone, Debug)]
pub struct BatchCrc {
    /// CRC-32C of what follows the header.
    records: u32,
    /// What each bit of a header's CRC-32C comes to in that of the batch.
    header_bits: [u32; 32],
}

impl BatchCrc {
    /// Of batches that are all of one size.
    pub fn of(batches: &[Bytes]) -> Vec<Self> {
        let rest = batches
            .first()
            .map_or(0, |batch| batch.len() - layout::RECORDS);
        let header_bits = std::array::from_fn(|bit| crc32c::crc32c_combine(1 << bit, 0, rest));
        let crc = |batch: &Bytes| Self {
            records: crc32c::crc32c(&batch[layout::RECORDS..]),
            header_bits,
        };
        batches.iter().map(crc).collect()
    }

    /// Gives a batch other timestamps, the first and the largest. `batch` may end behind the header.
    pub fn stamp(&self, batch: &mut [u8], first: i64, largest: i64) {
        batch[layout::BASE_TIMESTAMP..layout::MAX_TIMESTAMP].copy_from_slice(&first.to_be_bytes());
        batch[layout::MAX_TIMESTAMP..layout::PRODUCER_ID].copy_from_slice(&largest.to_be_bytes());
        let of_header = crc32c::crc32c(&batch[layout::CRC_COVERS_FROM..layout::RECORDS]);
        let crc = (0..32)
            .filter(|bit| of_header >> bit & 1 == 1)
            .fold(self.records, |crc, bit| crc ^ self.header_bits[bit]);
        batch[layout::CRC..layout::ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
    }
}

/// The files of a log's segments, in order.
pub fn segments(folder: &Path) -> Vec<PathBuf> {
    files(folder, "log")
}

/// A log's files of that suffix, in order.
pub fn files(folder: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder.join(format!("{TOPIC}-0")))
        .expect("the folder is there")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|found| found == suffix))
        .collect();
    files.sort();
    files
}

/// A data folder.
pub fn open_dir(path: &Path) -> LogDir {
    let config = LogDirConfig {
        path: path.to_owned(),
        node_id: 0,
        sync_threads: 1,
        recovery_threads: 1,
    };
    LogDir::open(config, Arc::new(RealDisk)).expect("the data folder opens")
}

/// A log in it.
pub fn open_log(dir: &LogDir, partition: i32, config: LogConfig) -> Arc<PartitionLog> {
    let log = OpenLog {
        topic: TOPIC.to_owned(),
        topic_id: Uuid::from_u128(1),
        partition,
        config: Arc::new(config),
        visibility: Visibility::Ordinary,
    };
    dir.open_logs(vec![log])
        .expect("the log opens")
        .pop()
        .expect("one log")
}

/// Whether the batch is what its CRC says, as the bare loops check it.
pub fn crc_is_right(batch: &[u8]) -> bool {
    let computed = crc32c::crc32c(&batch[layout::CRC_COVERS_FROM..]);
    batch[layout::CRC..layout::ATTRIBUTES] == computed.to_be_bytes()
}

/// Drops what the page cache has of a file that is on the device.
pub fn forget_pages(path: &Path) {
    use std::os::fd::AsRawFd;
    let file = File::open(path).expect("the file opens");
    file.sync_all().expect("the file is synced");
    // SAFETY: the descriptor is open; the call changes no memory of ours.
    let result = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    assert_eq!(result, 0, "the page cache forgets {}", path.display());
}
