//! Where the fuzzer enters a partition's folder: the files of its segments as a start finds them,
//! indexes of any bytes beside a log that is sound, or is not.

use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use storage::batch::{Batch, BatchBuilder, Compression, batches, layout};
use storage::clock::Clock;
use storage::disk::RealDisk;
use storage::log_dir::{LogDirConfig, OpenLog};
use storage::partition_log::{Fetched, Read, ReadLimit, Visibility};
use storage::{Error, LogConfig, LogDir, Offset, PartitionLog};
use uuid::Uuid;

use crate::folder::Folder;

const NOW_MS: i64 = 1_700_000_000_000;
const TOPIC_ID: Uuid = Uuid::from_u128(0x0123_4567_89ab_cdef);
/// Reads of an arbitrary log: each goes on behind the one before, so that few are needed.
const MAX_READS: usize = 200;

/// The files of one segment.
#[derive(Clone, Debug, Default)]
pub struct Files {
    pub log: Vec<u8>,
    pub index: Vec<u8>,
    pub time_index: Vec<u8>,
}

/// A log of two segments as the broker writes it.
pub struct Sound {
    /// By base offset, ascending.
    pub segments: Vec<(Offset, Files)>,
    /// The batches: base offset, last offset, the records' largest timestamp, the bytes.
    batches: Vec<(Offset, Offset, i64, Bytes)>,
    end: Offset,
}

/// Of the first byte
///
/// - bit 0: the log is the sound one, and the indexes are those of its first segment, or with bit 1 of
///   its last; otherwise what follows the indexes is the one segment there is;
/// - bit 2: the stop was clean;
/// - bit 3: the log is compacted, and offsets may be missing;
/// - bit 4: each batch of an arbitrary log has its CRC made right;
/// - bits 5 and 6: the recovery point: none, 0, the middle, the end;
/// - bit 7: an index that is empty is missing.
///
/// Then the two indexes' lengths, two bytes each, the offset index, the time index and the log.
pub fn index(data: &[u8]) {
    let Some(([how, a, b, c, d], rest)) = data.split_first_chunk::<5>() else {
        return;
    };
    let (index, rest) = split(rest, u16::from_be_bytes([*a, *b]));
    let (time_index, log) = split(rest, u16::from_be_bytes([*c, *d]));
    let is = |bit: u8| how & (1 << bit) != 0;
    let mut arbitrary = Files {
        log: log.to_vec(),
        index: index.to_vec(),
        time_index: time_index.to_vec(),
    };
    let sound = is(0).then(sound_log);
    let segments = match sound {
        Some(sound) => {
            let mut segments = sound.segments.clone();
            let at = if is(1) { segments.len() - 1 } else { 0 };
            arbitrary.log = std::mem::take(&mut segments[at].1.log);
            segments[at].1 = arbitrary;
            segments
        }
        None => {
            if is(4) {
                reseal_all(&mut arbitrary.log);
            }
            vec![(0, arbitrary)]
        }
    };
    let recovery_point = match (how >> 5) & 3 {
        0 => None,
        1 => Some(0),
        2 => Some(sound_log().end / 2),
        _ => Some(sound_log().end),
    };
    let folder = Folder::new();
    lay_out(folder.path(), &segments, recovery_point, is(2), is(7));
    let config = LogConfig {
        compact: is(3),
        ..config()
    };
    // Once as it was found, and once as the first start has left it.
    for start in 0..2 {
        let Ok(dir) = open_dir(folder.path()) else {
            break;
        };
        let Ok(log) = open_log(&dir, &config) else {
            assert!(sound.is_none(), "a sound log does not open");
            break;
        };
        match sound {
            Some(sound) => reads_the_sound_log(&log, sound),
            // After a clean stop checksums are compared where the device is read only.
            None => reads_whole_batches(&log, !is(2) && recovery_point.unwrap_or(0) == 0),
        }
        looks_up_times(&log, sound);
        drop(log);
        // Without a clean stop of its own, the second start finds what the first left.
        let stopped = start == 1 || !is(1) || dir.shutdown().is_ok();
        assert!(stopped || sound.is_none(), "a sound log does not close");
    }
}

/// Every offset leads to its batch, byte for byte.
fn reads_the_sound_log(log: &PartitionLog, sound: &Sound) {
    assert_eq!(log.offsets().log_end_offset, sound.end);
    assert_eq!(log.offsets().log_start_offset, 0);
    for (base, last, _, bytes) in &sound.batches {
        for offset in [*base, *last] {
            let fetched = fetch(log, offset, 1).expect("a sound log is read");
            assert_eq!(&fetched.records, bytes, "the batch at {offset}");
        }
    }
    // Several at once.
    let all = fetch(log, 0, 1 << 20).expect("a sound log is read");
    let mut whole = 0;
    for (batch, (base, ..)) in batches(&all.records).zip(&sound.batches) {
        assert_eq!(batch.map(|batch| batch.base_offset()).ok(), Some(*base));
        whole += 1;
    }
    assert!(whole > 0);
}

/// From the start to the end: whatever is read is whole batches, offsets ascend, and an error that
/// says where it goes on is believed.
fn reads_whole_batches(log: &PartitionLog, checked: bool) {
    let offsets = log.offsets();
    assert!(offsets.log_start_offset <= offsets.log_end_offset);
    let mut offset = offsets.log_start_offset;
    for _ in 0..MAX_READS {
        if offset >= offsets.log_end_offset {
            break;
        }
        match fetch(log, offset, 1000) {
            Ok(fetched) => {
                let before = offset;
                for batch in batches(&fetched.records) {
                    let batch = batch.expect("whole batches");
                    if checked {
                        batch.check_crc().expect("a start has checked it");
                    }
                    assert!(
                        batch.last_offset() >= offset,
                        "offsets go back to before {offset}"
                    );
                    assert!(batch.last_offset() < offsets.log_end_offset);
                    offset = batch.next_offset();
                }
                assert!(
                    offset > before,
                    "nothing at {offset}, which is below the end"
                );
            }
            Err(Error::Damaged { from, to, .. }) => {
                assert!(
                    from <= offset && offset < to && to <= offsets.log_end_offset,
                    "{from}..{to} at {offset}"
                );
                offset = to;
            }
            Err(_) => break,
        }
    }
    for offset in [i64::MIN, -1, offsets.log_end_offset + 1, i64::MAX] {
        assert!(
            fetch(log, offset, 1).is_err(),
            "{offset} is outside of the log"
        );
    }
}

/// What a lookup by time finds is in the log; in a sound one it is a record that is late enough.
fn looks_up_times(log: &PartitionLog, sound: Option<&Sound>) {
    let offsets = log.offsets();
    let within = offsets.log_start_offset..offsets.log_end_offset;
    let times = [i64::MIN, 0, NOW_MS, NOW_MS + 35, NOW_MS + 1000, i64::MAX];
    for time in times {
        let Ok(found) = log.offset_for_timestamp(time, ReadLimit::HighWatermark) else {
            assert!(sound.is_none(), "a lookup in a sound log fails");
            continue;
        };
        if let Some(found) = found {
            assert!(within.contains(&found.offset), "{found:?} in {within:?}");
            if let Some(sound) = sound {
                assert!(found.timestamp_ms >= time);
                let holds = |(base, last, max, _): &&(i64, i64, i64, Bytes)| {
                    (*base..=*last).contains(&found.offset) && found.timestamp_ms <= *max
                };
                assert!(sound.batches.iter().any(|batch| holds(&batch)), "{found:?}");
            }
        }
    }
    match log.max_timestamp() {
        Ok(Some(found)) => assert!(within.contains(&found.offset), "{found:?} in {within:?}"),
        Ok(None) => assert!(sound.is_none(), "a sound log has timestamps"),
        Err(_) => assert!(sound.is_none(), "a lookup in a sound log fails"),
    }
}

fn fetch(log: &PartitionLog, offset: Offset, max_bytes: usize) -> storage::Result<Fetched> {
    match log.read(offset, max_bytes, true, ReadLimit::HighWatermark)? {
        Read::Warm(fetched) => Ok(fetched),
        Read::Cold(cold) => cold.load(),
    }
}

fn split(bytes: &[u8], at: u16) -> (&[u8], &[u8]) {
    bytes.split_at(usize::from(at).min(bytes.len()))
}

/// Makes the CRC of every batch right, as far as lengths lead from one to the next.
fn reseal_all(log: &mut [u8]) {
    let mut position = 0;
    while let Some(rest) = log.get_mut(position..) {
        let Ok(batch) = Batch::parse(rest) else { break };
        let (size, crc) = (batch.size_in_bytes(), batch.compute_crc());
        rest[layout::CRC..layout::CRC + 4].copy_from_slice(&crc.to_be_bytes());
        position += size;
    }
}

fn lay_out(
    folder: &Path,
    segments: &[(Offset, Files)],
    recovery_point: Option<Offset>,
    clean: bool,
    empty_is_missing: bool,
) {
    let partition = folder.join("events-0");
    fs::create_dir_all(&partition).expect("creates the folder");
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).expect("writes");
    write(
        "meta.properties",
        b"version=1\nnode.id=0\ncluster.id=AAAAAAAAAAAAAAAAAAAAAQ\n",
    );
    if clean {
        write(
            ".kafka_cleanshutdown",
            b"{\"version\":0,\"brokerEpoch\":-1}",
        );
    }
    if let Some(offset) = recovery_point {
        let text = format!("0\n1\nevents 0 {offset}\n");
        write("recovery-point-offset-checkpoint", text.as_bytes());
    }
    for (base, files) in segments {
        let write = |suffix: &str, bytes: &[u8]| {
            let path = partition.join(format!("{base:020}.{suffix}"));
            fs::write(path, bytes).expect("writes");
        };
        write("log", &files.log);
        for (suffix, bytes) in [("index", &files.index), ("timeindex", &files.time_index)] {
            if !(bytes.is_empty() && empty_is_missing) {
                write(suffix, bytes);
            }
        }
    }
}

/// Segments of a few batches, and an index entry for nearly every one.
fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 2000,
        index_interval_bytes: 100,
        file_delete_delay_ms: 0,
        retention_ms: -1,
        ..LogConfig::default()
    }
}

fn open_dir(folder: &Path) -> storage::Result<LogDir> {
    let config = LogDirConfig {
        path: folder.to_owned(),
        node_id: 0,
        sync_threads: 1,
        recovery_threads: 1,
    };
    LogDir::open_with_clock(config, Arc::new(RealDisk), Clock::new(|| NOW_MS))
}

fn open_log(dir: &LogDir, config: &LogConfig) -> storage::Result<Arc<PartitionLog>> {
    let log = OpenLog {
        topic: "events".to_owned(),
        topic_id: TOPIC_ID,
        partition: 0,
        config: Arc::new(config.clone()),
        visibility: Visibility::Ordinary,
    };
    Ok(dir.open_logs(vec![log])?.remove(0))
}

/// Written once in a process, by the broker's own code.
pub fn sound_log() -> &'static Sound {
    static SOUND: OnceLock<Sound> = OnceLock::new();
    SOUND.get_or_init(|| {
        let folder = Folder::new();
        let dir = open_dir(folder.path()).expect("a new folder");
        let log = open_log(&dir, &config()).expect("a new log");
        let codecs = [Compression::None, Compression::Lz4, Compression::Zstd];
        for n in 0..16 {
            let mut batch = BatchBuilder::new(codecs[n % 3]).producer(
                7 + (n % 2) as i64,
                0,
                3 * (n / 2) as i32,
            );
            for record in 0..3 {
                // The times go up and down.
                let time = NOW_MS + (n as i64 * 7) % 50 + record;
                let value = [n as u8; 60];
                batch.push(time, Some(b"key"), Some(&value), &[]);
            }
            log.append(&batch.build()).expect("appended");
        }
        dir.shutdown().expect("a clean stop");
        let end = log.offsets().log_end_offset;
        let segments = read_segments(&folder.path().join("events-0"));
        assert_eq!(segments.len(), 2, "two segments");
        let mut all = Vec::new();
        for (_, files) in &segments {
            let bytes = Bytes::from(files.log.clone());
            for batch in batches(&bytes) {
                let batch = batch.expect("a batch");
                let (base, last) = (batch.base_offset(), batch.last_offset());
                let whole = bytes.slice_ref(batch.bytes());
                all.push((base, last, batch.max_timestamp(), whole));
            }
        }
        Sound {
            segments,
            batches: all,
            end,
        }
    })
}

fn read_segments(partition: &Path) -> Vec<(Offset, Files)> {
    let mut bases: Vec<Offset> = fs::read_dir(partition)
        .expect("lists the folder")
        .filter_map(|entry| {
            let name = entry.expect("an entry").file_name().into_string().ok()?;
            name.strip_suffix(".log")?.parse().ok()
        })
        .collect();
    bases.sort_unstable();
    let read = |base: Offset, suffix: &str| {
        fs::read(partition.join(format!("{base:020}.{suffix}"))).expect("a segment's file")
    };
    let files = |base| Files {
        log: read(base, "log"),
        index: read(base, "index"),
        time_index: read(base, "timeindex"),
    };
    bases.into_iter().map(|base| (base, files(base))).collect()
}
