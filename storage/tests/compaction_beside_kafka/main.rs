//! Milena compacts what Kafka's own cleaner has compacted, and leaves the same.
//!
//! `kafka-4.3.tar.gz` has the data folder of an Apache Kafka 4.3 that ran on the load of
//! tests/java/Compaction.java: few keys, tombstones, records without a key, every codec, idempotent
//! producers and others, transactions that were committed, aborted and left open. Beside it is what
//! Kafka's cleaner left of each log at four times, one after the other: what waits for its delete horizon
//! after the first may go at the third, and so on.
//!
//! - `.ci/compaction_beside_kafka --record` makes the archive anew.
//! - `.ci/compaction_beside_kafka MILENA` does the same with many more records
//!   (`MILENA_COMPACTION_BESIDE_KAFKA` has the path of a folder like the archive's). What Milena has
//!   compacted goes into its folder `milena`.

#[path = "../kafka_segments/folders.rs"]
mod folders;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use storage::batch::{Batch, Compression, batches, decode};
use storage::checkpoint::uuid_text;
use storage::clock::Clock;
use storage::compaction::{Compactor, CompactorConfig, Throttle};
use storage::disk::RealDisk;
use storage::log_dir::{LogDirConfig, OpenLog};
use storage::partition_log::Visibility;
use storage::{LogConfig, LogDir};

const ARCHIVE: &[u8] = include_bytes!("kafka-4.3.tar.gz");
const ROUNDS: usize = 4;

/// What Kafka has left: the archive's folder, and whether it is to be kept.
struct Taken {
    path: PathBuf,
    is_given: bool,
}

impl Taken {
    /// What both were configured to, and when they compacted.
    fn times(&self) -> (Arc<LogConfig>, Vec<i64>) {
        let times = fs::read_to_string(self.path.join("times")).expect("reads");
        let mut times = times
            .split_whitespace()
            .map(|time| time.parse::<i64>().expect("a time"));
        let retention_ms = times.next().expect("delete.retention.ms first");
        (Arc::new(config(retention_ms as u64)), times.collect())
    }
}

fn taken() -> Taken {
    if let Some(path) = std::env::var_os("MILENA_COMPACTION_BESIDE_KAFKA") {
        let (path, is_given) = (PathBuf::from(path), true);
        return Taken { path, is_given };
    }
    static UNPACKED: OnceLock<PathBuf> = OnceLock::new();
    let path = UNPACKED.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compaction_beside_kafka");
        let _ = fs::remove_dir_all(&path);
        folders::unpack(ARCHIVE, &path);
        path
    });
    Taken {
        path: path.clone(),
        is_given: false,
    }
}

/// As in tests/java/Compaction.java.
fn config(delete_retention_ms: u64) -> LogConfig {
    LogConfig {
        segment_bytes: 4000,
        index_interval_bytes: 300,
        segment_index_bytes: 1200,
        compact: true,
        delete: false,
        min_cleanable_dirty_ratio: 0.0,
        min_compaction_lag_ms: 86_400_000,
        delete_retention_ms,
        file_delete_delay_ms: 0,
        producer_id_expiration_ms: u64::MAX,
        ..LogConfig::default()
    }
}

/// The partitions' folders, by name.
fn partitions(data: &Path) -> Vec<String> {
    let entries = fs::read_dir(data).expect("lists the folder");
    let paths = entries.map(|entry| entry.expect("lists the folder").path());
    let names = paths.filter(|path| path.is_dir()).map(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.expect("a name").to_owned()
    });
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

fn topic_id(partition: &Path) -> uuid::Uuid {
    let metadata = fs::read_to_string(partition.join("partition.metadata")).expect("reads");
    let mut lines = metadata.lines();
    let id = lines.find_map(|line| line.strip_prefix("topic_id: "));
    uuid_text::decode(id.expect("a topic id").trim()).expect("a topic id")
}

fn open(path: &Path, config: &Arc<LogConfig>, clock: Clock) -> LogDir {
    let dir = LogDirConfig {
        path: path.to_owned(),
        node_id: 0,
        sync_threads: 1,
        recovery_threads: 2,
    };
    let dir = LogDir::open_with_clock(dir, Arc::new(RealDisk), clock).expect("opens the folder");
    let names = partitions(path);
    let wanted = names.iter().map(|name| OpenLog {
        topic: name.strip_suffix("-0").expect("partition 0").to_owned(),
        topic_id: topic_id(&path.join(name)),
        partition: 0,
        config: Arc::clone(config),
        visibility: Visibility::Ordinary,
    });
    dir.open_logs(wanted.collect()).expect("opens the logs");
    dir
}

fn compactor() -> Compactor {
    Compactor::new(
        CompactorConfig {
            dedupe_buffer_bytes: 1 << 20,
            ..CompactorConfig::default()
        },
        Arc::new(Throttle::new(None)),
        Arc::new(AtomicBool::new(false)),
    )
}

/// All that a partition's `.log` files hold, one after the other.
fn log(partition: &Path) -> Bytes {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(partition).expect("lists the folder") {
        let path = entry.expect("lists the folder").path();
        if path.extension().is_some_and(|suffix| suffix == "log") {
            let bytes = fs::read(&path).expect("reads");
            files.insert(path, bytes);
        }
    }
    files.into_values().flatten().collect::<Vec<u8>>().into()
}

/// How batches compare: the very bytes, or the same compressed by another encoder.
#[derive(Debug, Default)]
struct Compared {
    equal: usize,
    compressed_otherwise: usize,
    /// Of Kafka's: without a record, with a delete horizon, the latter and a marker.
    emptied: usize,
    with_horizon: usize,
    markers_with_horizon: usize,
}

fn compare(ours: &Bytes, kafkas: &Bytes, compared: &mut Compared, place: &str) {
    let mut all_ours = batches(ours).map(|batch| batch.expect("a whole batch"));
    for theirs in batches(kafkas).map(|batch| batch.expect("a whole batch")) {
        let batch = all_ours.next();
        let batch = batch.unwrap_or_else(|| panic!("{place}: no more after {:?}", about(&theirs)));
        compared.emptied += usize::from(theirs.records_count() == 0);
        compared.with_horizon += usize::from(theirs.has_delete_horizon());
        compared.markers_with_horizon +=
            usize::from(theirs.has_delete_horizon() && theirs.is_control());
        if batch.bytes() == theirs.bytes() {
            compared.equal += 1;
            continue;
        }
        assert_eq!(about(&batch), about(&theirs), "{place}");
        assert_ne!(
            batch.compression().expect("a codec"),
            Compression::None,
            "{place}"
        );
        let records = |of: &Bytes, batch: &Batch<'_>| {
            decode(&of.slice_ref(batch.bytes()), 1 << 20).expect("sound records")
        };
        assert_eq!(records(ours, &batch), records(kafkas, &theirs), "{place}");
        compared.compressed_otherwise += 1;
    }
    let more = all_ours.next();
    assert!(
        more.is_none(),
        "{place}: more than Kafka has: {:?}",
        more.as_ref().map(about)
    );
}

/// The header, but for what depends on the encoder.
fn about(batch: &Batch<'_>) -> impl std::fmt::Debug + PartialEq + use<> {
    (
        (
            batch.base_offset(),
            batch.last_offset(),
            batch.records_count(),
        ),
        (
            batch.base_timestamp(),
            batch.max_timestamp(),
            batch.attributes(),
        ),
        (
            batch.producer_id(),
            batch.producer_epoch(),
            batch.base_sequence(),
        ),
        batch.partition_leader_epoch(),
    )
}

/// Where the part ends that is compacted, from Kafka's checkpoint file.
fn first_dirty(data: &Path) -> BTreeMap<String, i64> {
    let Ok(text) = fs::read_to_string(data.join("cleaner-offset-checkpoint")) else {
        return BTreeMap::new();
    };
    let entries = text.lines().skip(2).map(|line| {
        let words: Vec<_> = line.split(' ').collect();
        let name = format!("{}-{}", words[0], words[1]);
        (name, words[2].parse().expect("an offset"))
    });
    entries.collect()
}

#[test]
fn what_is_left_is_what_kafkas_cleaner_leaves() {
    let taken = taken();
    let own = tempfile::tempdir().expect("a folder");
    let data = match taken.is_given {
        true => taken.path.join("milena"),
        false => own.path().to_owned(),
    };
    folders::copy_into(&taken.path.join("data"), &data, &|_| false);
    let (config, times) = taken.times();
    assert_eq!(times.len(), ROUNDS);
    let now_ms = Arc::new(AtomicI64::new(times[0]));
    let clock = Clock::new({
        let now_ms = Arc::clone(&now_ms);
        move || now_ms.load(Ordering::Relaxed)
    });
    let mut dir = open(&data, &config, clock.clone());
    let mut compactor = compactor();
    let mut compared = Compared::default();
    let mut expected_dirty = BTreeMap::new();
    for (round, time) in (1..).zip(&times) {
        now_ms.store(*time, Ordering::Relaxed);
        let mut passes = 0;
        while let Some(compacted) = dir.compact_next(&mut compactor) {
            compacted.outcome.expect("compacts");
            passes += 1;
        }
        let kafkas = taken.path.join(round.to_string());
        let mut kafkas_passes = 0;
        for name in partitions(&data) {
            let place = format!("{name}, round {round}");
            let cleaned = fs::read_to_string(kafkas.join(&name).join("cleaned")).expect("reads");
            if let Some((_, end)) = cleaned.trim().split_once(' ') {
                kafkas_passes += 1;
                expected_dirty.insert(name.clone(), end.parse::<i64>().expect("an offset"));
            }
            let (ours, kafkas) = (log(&data.join(&name)), log(&kafkas.join(&name)));
            compare(&ours, &kafkas, &mut compared, &place);
        }
        assert_eq!(passes, kafkas_passes, "round {round}");
        assert_eq!(first_dirty(&data), expected_dirty, "round {round}");
        // The next round goes on in what a start finds.
        if round == 1 {
            dir.shutdown().expect("stops");
        }
        drop(dir);
        dir = open(&data, &config, clock.clone());
    }
    dir.shutdown().expect("stops");
    println!("{compared:?}");
    // All of it was there to be compared.
    assert!(compared.equal > compared.compressed_otherwise);
    assert!(compared.compressed_otherwise > 0 && compared.emptied > 0);
    assert!(compared.with_horizon > compared.markers_with_horizon);
    assert!(compared.markers_with_horizon > 0);
}

/// Where a log's control batches are, in its segments but for the newest: file, position, base offset.
fn markers(partition: &Path) -> Vec<(PathBuf, usize, i64)> {
    let entries = fs::read_dir(partition).expect("lists the folder");
    let paths = entries.map(|entry| entry.expect("lists the folder").path());
    let mut files: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "log"))
        .collect();
    files.sort();
    files.pop();
    let mut markers = Vec::new();
    for file in files {
        let bytes = fs::read(&file).expect("reads");
        let mut position = 0;
        for batch in batches(&bytes).map(|batch| batch.expect("a whole batch")) {
            if batch.is_control() {
                markers.push((file.clone(), position, batch.base_offset()));
            }
            position += batch.size_in_bytes();
        }
    }
    markers
}

#[test]
fn nothing_is_compacted_from_a_marker_on_that_cannot_be_read() {
    let taken = taken();
    let (config, times) = taken.times();
    let now_ms = *times.last().expect("a time");
    let data = tempfile::tempdir().expect("a folder");
    let partition = data.path().join("transactions-0");
    folders::copy_into(&taken.path.join("data"), data.path(), &|_| false);
    let markers = markers(&partition);
    let (file, position, offset) = &markers[markers.len() / 2];
    let mut bytes = fs::read(file).expect("reads");
    // In the record: the header is what it was.
    bytes[position + 70] ^= 1;
    fs::write(file, &bytes).expect("writes");
    let before = log(&partition);

    let dir = open(data.path(), &config, Clock::new(move || now_ms));
    let mut compactor = compactor();
    let mut outcomes = Vec::new();
    while let Some(compacted) = dir.compact_next(&mut compactor) {
        if compacted.log.topic() == "transactions" {
            outcomes.push(compacted.outcome);
        }
    }
    let end = match outcomes.as_slice() {
        [Ok(stats), Err(_)] => stats.end_offset,
        other => panic!("{other:?}"),
    };
    assert!(end > 0 && end <= *offset, "{end} and {offset}");
    let uncleanable = dir.uncleanable_partitions();
    let (topic, _, reason) = &uncleanable[0];
    assert_eq!((topic.as_str(), uncleanable.len()), ("transactions", 1));
    assert!(reason.contains("transaction"), "{reason}");
    let after = log(&partition);
    assert!(after.len() < before.len());
    let kept = |bytes: &Bytes| {
        let from = batches(bytes).map(|batch| batch.expect("a whole batch"));
        let from = from.skip_while(|batch| batch.base_offset() < end);
        from.flat_map(|batch| batch.bytes().to_vec())
            .collect::<Vec<_>>()
    };
    assert!(
        kept(&before) == kept(&after),
        "what lies from {end} on has changed"
    );
}
