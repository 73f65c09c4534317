//! Opens the folders in every way that a start can, and compares with what Kafka's clients said.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use storage::batch::header::{Batch, TimestampType, batches, patch_header};
use storage::batch::{BatchBuilder, Compression, records};
use storage::disk::RealDisk;
use storage::log_dir::{LogDirConfig, OpenLog};
use storage::partition_log::{Fetched, Read, ReadLimit, TimestampAndOffset, Visibility};
use storage::{Error, LogConfig, LogDir, PartitionLog};

use crate::archive::copy;
use crate::indexes::files;
use crate::said::{self, Found, Partition, Producer, Record};
use crate::walk::{Walk, committed};

/// As the topics are configured in tests/java/Segments.java.
pub fn config(topic: &str) -> LogConfig {
    let mut config = LogConfig {
        compact: topic == "compacted" || topic.starts_with("__"),
        // The producers wrote when the folder was made.
        producer_id_expiration_ms: u64::MAX,
        ..LogConfig::default()
    };
    if !topic.starts_with("__") {
        config.segment_bytes = 4000;
        config.index_interval_bytes = 300;
        config.segment_index_bytes = 1200;
    }
    config
}

/// Opens a data folder and all its partitions.
pub fn open(path: &Path, said: &[Partition]) -> (LogDir, Vec<Arc<PartitionLog>>) {
    let dir = LogDirConfig {
        path: path.to_owned(),
        node_id: 0,
        sync_threads: 1,
        recovery_threads: 2,
    };
    let dir = LogDir::open(dir, Arc::new(RealDisk)).expect("opens the folder");
    let wanted = said.iter().map(|partition| OpenLog {
        topic: partition.topic.clone(),
        topic_id: partition.topic_id,
        partition: partition.number,
        config: Arc::new(config(&partition.topic)),
        visibility: Visibility::Ordinary,
    });
    let logs = dir.open_logs(wanted.collect()).expect("opens the logs");
    (dir, logs)
}

fn fetch(log: &PartitionLog, offset: i64, max_bytes: usize) -> Bytes {
    let read = log.read(offset, max_bytes, true, ReadLimit::HighWatermark);
    let Fetched { records, .. } = match read.expect("reads") {
        Read::Warm(fetched) => fetched,
        Read::Cold(cold) => cold.load().expect("loads"),
    };
    records
}

fn hex(bytes: Option<&Bytes>) -> String {
    let Some(bytes) = bytes else {
        return "null".to_owned();
    };
    bytes.iter().fold("x".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The records of a batch, as a client sees them: none in a control batch.
fn records_of(batch: &Batch<'_>, bytes: &Bytes) -> Vec<Record> {
    if batch.is_control() {
        return Vec::new();
    }
    let timestamp_type = match batch.timestamp_type() {
        TimestampType::CreateTime => "CreateTime",
        TimestampType::LogAppendTime => "LogAppendTime",
    };
    let records = records::decode(bytes, 1 << 20).expect("decodes");
    let records = records.into_iter().map(|record| {
        let headers: Vec<String> = record
            .headers
            .iter()
            .map(|header| format!("{}={}", hex(Some(&header.key)), hex(header.value.as_ref())))
            .collect();
        Record {
            offset: record.offset,
            timestamp: record.timestamp,
            timestamp_type: timestamp_type.to_owned(),
            leader_epoch: batch.partition_leader_epoch(),
            key: hex(record.key.as_ref()),
            value: hex(record.value.as_ref()),
            headers: if headers.is_empty() {
                "-".to_owned()
            } else {
                headers.join(",")
            },
        }
    });
    records.collect()
}

fn read_all(log: &PartitionLog, start: i64, max_bytes: usize) -> Vec<Record> {
    let mut found = Vec::new();
    let mut next = start;
    loop {
        let fetched = fetch(log, next, max_bytes);
        if fetched.is_empty() {
            break;
        }
        for batch in batches(&fetched) {
            let batch = batch.expect("a whole batch");
            batch.check_crc().expect("the sound bytes");
            found.extend(records_of(&batch, &fetched.slice_ref(batch.bytes())));
            next = batch.next_offset();
        }
    }
    // A client passes over what the first batch has below the offset asked for.
    found.retain(|record| record.offset >= start);
    found
}

fn as_found(found: Option<TimestampAndOffset>) -> Found {
    let none = Found {
        offset: -1,
        timestamp: -1,
        leader_epoch: -1,
    };
    found.map_or(none, |found| Found {
        offset: found.offset,
        timestamp: found.timestamp_ms,
        leader_epoch: found.leader_epoch,
    })
}

fn producers(log: &PartitionLog) -> Vec<Producer> {
    let active = log.active_producers().into_iter();
    active
        .map(|producer| Producer {
            producer_id: producer.producer_id,
            epoch: producer.epoch,
            last_sequence: producer.last_sequence,
            last_timestamp: producer.last_append_ms,
            coordinator_epoch: producer.coordinator_epoch,
            transaction_start: producer.current_txn_first_offset.unwrap_or(-1),
        })
        .collect()
}

/// What does not depend on how the folder was opened.
fn check_records(log: &PartitionLog, said: &Partition, how: How) {
    let place = format!("{} {how:?}", said.topic);
    let offsets = log.offsets();
    assert_eq!(
        (offsets.log_start_offset, offsets.log_end_offset),
        (said.start, said.end),
        "{place}"
    );
    for max_bytes in [1, 700, 1 << 20] {
        let found = read_all(log, said.start, max_bytes);
        for (found, said) in found.iter().zip(&said.records) {
            assert_eq!(found, said, "{place}");
        }
        assert_eq!(found.len(), said.records.len(), "{place}");
    }
    for (asked, answer) in &said.times {
        let mut answer = *answer;
        if said.topic == "compacted" && answer.offset < 0 {
            // Kafka looks into the first segment that once had such a time, though compaction has taken it.
            let first = said
                .records
                .iter()
                .find(|record| record.timestamp >= *asked);
            answer = first.map_or(answer, |record| Found {
                offset: record.offset,
                timestamp: record.timestamp,
                leader_epoch: record.leader_epoch,
            });
        }
        let found = log.offset_for_timestamp(*asked, ReadLimit::HighWatermark);
        let found = as_found(found.expect("looks up"));
        assert_eq!(found, answer, "{place}, at {asked}");
    }
    let found = log.max_timestamp().expect("looks up");
    assert_eq!(as_found(found), said.max_timestamp, "{place}");
    // Where a start begins an epoch of its own, the one before is only known if it has records.
    let newest = said.records.last().map_or(-1, |record| record.leader_epoch);
    let known = said.epochs.iter();
    let known = known.filter(|(_, epoch, _)| *epoch >= 0 && (how.is_clean() || *epoch <= newest));
    for (asked, epoch, end) in known {
        let found = log.end_offset_for_epoch(*asked);
        assert_eq!(found, Some((*epoch, *end)), "{place}, epoch {asked}");
    }
}

/// The producers of a log that was opened after a clean stop are those of Kafka's snapshot. Otherwise the
/// headers of batches say the same, but not when they were appended, nor who coordinated transactions.
fn check_producers(log: &PartitionLog, said: &Partition, how: How) {
    let known = |producer: &Producer| Producer {
        last_timestamp: 0,
        coordinator_epoch: 0,
        ..*producer
    };
    let (mut found, mut expected) = (producers(log), said.producers.clone());
    if said.topic.starts_with("__") {
        return;
    }
    if how != How::Clean {
        found = found.iter().map(known).collect();
        expected = expected.iter().map(known).collect();
    }
    if how == How::BatchesAlone {
        // Those whose batches are all deleted are forgotten, but for what the first segment still has.
        let seen = producer_ids(log);
        let known: HashSet<i64> = found.iter().map(|producer| producer.producer_id).collect();
        assert!(seen.is_subset(&known), "{}", said.topic);
        expected.retain(|producer| known.contains(&producer.producer_id));
    }
    assert_eq!(found, expected, "{} {how:?}", said.topic);
}

fn producer_ids(log: &PartitionLog) -> HashSet<i64> {
    let bytes = log.size_bytes() as usize;
    let offsets = log.offsets();
    let mut ids = HashSet::new();
    let mut next = offsets.log_start_offset;
    while next < offsets.log_end_offset {
        for batch in batches(&fetch(log, next, bytes)) {
            let batch = batch.expect("a whole batch");
            ids.extend(Some(batch.producer_id()).filter(|id| *id >= 0));
            next = batch.next_offset();
        }
    }
    ids
}

/// In which state a folder is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Clean,
    CleanWithoutIndexes,
    Unclean,
    /// All is scanned, though there are indexes.
    WithoutRecoveryPoint,
    WithoutIndexes,
    /// No recovery point, no index, no snapshot.
    BatchesAlone,
}

impl How {
    fn leaves_out(self, path: &Path) -> bool {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.expect("a name in UTF-8");
        // Where that of aborted transactions is missing, none is said to be aborted below a recovery point.
        let aborted = name.ends_with(".txnindex");
        let index = name.ends_with("index") && !aborted;
        let marker = name == ".kafka_cleanshutdown";
        let recovery_point = name == "recovery-point-offset-checkpoint";
        match self {
            Self::Clean => false,
            Self::CleanWithoutIndexes => index,
            Self::Unclean => marker,
            Self::WithoutRecoveryPoint => marker || recovery_point || aborted,
            Self::WithoutIndexes => marker || index,
            Self::BatchesAlone => {
                let snapshot = name.ends_with(".snapshot");
                marker || recovery_point || index || aborted || snapshot
            }
        }
    }

    fn is_clean(self) -> bool {
        matches!(self, Self::Clean | Self::CleanWithoutIndexes)
    }
}

fn check(of: &str, how: How) {
    let said = said::partitions(of);
    let folder = copy(of, |path| how.leaves_out(path));
    let (dir, logs) = open(folder.path(), &said);
    assert_eq!(dir.was_clean(), how.is_clean());
    for (log, said) in logs.iter().zip(&said) {
        check_records(log, said, how);
        check_producers(log, said, how);
        check_transactions(folder.path(), log, said, how);
    }
}

/// What read_committed readers are told is what Kafka's batches say.
fn check_transactions(path: &Path, log: &PartitionLog, said: &Partition, how: How) {
    let place = format!("{} {how:?}", said.topic);
    let walk = walk(&path.join(format!("{}-{}", said.topic, said.number)));
    let stable = log.offsets().last_stable_offset;
    assert_eq!(
        stable,
        walk.last_stable_offset(said.start..said.end),
        "{place}"
    );
    let open: Vec<i64> = said
        .producers
        .iter()
        .map(|said| said.transaction_start)
        .collect();
    let open = open.into_iter().filter(|start| *start >= 0).min();
    assert_eq!(stable, open.unwrap_or(said.end), "{place}");
    let mut next = said.start;
    while next < stable {
        let read = log.read(next, 700, true, ReadLimit::LastStableOffset);
        let fetched = match read.expect("reads") {
            Read::Warm(fetched) => fetched,
            Read::Cold(cold) => cold.load().expect("loads"),
        };
        let first = batches(&fetched.records).next().expect("a batch");
        let last = batches(&fetched.records).last().expect("a batch");
        let end = last.expect("a whole batch").next_offset();
        let read = first.expect("a whole batch").base_offset()..end;
        let told = &fetched.aborted;
        for aborted in told {
            let marker = (aborted.producer_id, aborted.last_offset);
            assert!(walk.abort_markers.contains(&marker), "{place}: {aborted:?}");
        }
        // Of those that compaction has left nothing of, readers may be told still.
        let left = walk.aborted_in(next..end);
        if !config(&said.topic).compact {
            assert_eq!(*told, left, "{place}, from {next}");
        }
        let taken = committed(&fetched.records, told).into_iter();
        let taken: Vec<_> = taken.map(|batch| batch.base_offset()).collect();
        assert_eq!(taken, walk.committed_in(read), "{place}");
        next = end;
    }
}

fn walk(partition: &Path) -> Walk {
    let mut walk = Walk::default();
    for (_, file) in files(partition, "log") {
        for batch in batches(&file) {
            walk.note(&batch.expect("a whole batch"));
        }
    }
    walk
}

#[test]
fn what_kafka_has_closed_is_read_as_kafka_reads_it() {
    check("stopped", How::Clean);
    check("stopped", How::CleanWithoutIndexes);
}

#[test]
fn what_kafka_left_open_is_recovered_to_what_kafka_had() {
    for of in ["killed", "stopped"] {
        check(of, How::Unclean);
        check(of, How::WithoutRecoveryPoint);
        check(of, How::WithoutIndexes);
        check(of, How::BatchesAlone);
    }
}

/// The last batch of each producer, if it is in no transaction, as it would be sent again, and its offset.
fn last_batches(log: &PartitionLog) -> Vec<(i64, Bytes)> {
    let mut last = BTreeMap::new();
    let offsets = log.offsets();
    let mut next = offsets.log_start_offset;
    while next < offsets.log_end_offset {
        let fetched = fetch(log, next, 1 << 20);
        for batch in batches(&fetched) {
            let batch = batch.expect("a whole batch");
            // One that compaction has emptied is no batch of a client's.
            let sent =
                batch.producer_id() >= 0 && batch.records_count() == batch.last_offset_delta() + 1;
            if sent && !batch.is_transactional() {
                let header = patch_header(&batch, 0, -1);
                let bytes = [&header, &batch.bytes()[header.len()..]].concat();
                last.insert(batch.producer_id(), (batch.base_offset(), bytes.into()));
            }
            next = batch.next_offset();
        }
    }
    last.into_values().collect()
}

#[test]
fn producers_go_on_where_kafka_left_them() {
    for (of, how) in [("stopped", How::Clean), ("killed", How::Unclean)] {
        let said = said::partitions(of);
        let folder = copy(of, |path| how.leaves_out(path));
        let (_dir, logs) = open(folder.path(), &said);
        let ordinary =
            |said: &Partition| said.topic.starts_with("codec") || said.topic == "recompressed";
        for (log, said) in logs.iter().zip(&said).filter(|(_, said)| ordinary(said)) {
            let newest = said.epochs.iter().map(|(_, epoch, _)| *epoch).max();
            let newest = newest.expect("an epoch") + i32::from(how == How::Unclean);
            assert_eq!(log.leader_epoch(), newest, "{}", said.topic);
            let last = last_batches(log);
            assert!(last.len() > 2, "{}", said.topic);
            for (base_offset, batch) in &last {
                let again = log.append(batch).expect("a duplicate");
                assert!(again.duplicate, "{}", said.topic);
                assert_eq!(again.base_offset, *base_offset, "{}", said.topic);
            }
            for (end, producer) in (said.end..).zip(&said.producers) {
                let follows = |sequence| {
                    let mut batch = BatchBuilder::new(Compression::Lz4);
                    batch = batch.producer(producer.producer_id, producer.epoch, sequence);
                    batch.push(producer.last_timestamp, Some(b"key"), Some(b"value"), &[]);
                    batch.build()
                };
                let gap = log.append(&follows(producer.last_sequence + 2));
                assert!(matches!(gap, Err(Error::OutOfOrderSequence { .. })));
                let next = log.append(&follows(producer.last_sequence + 1));
                assert_eq!(next.expect("the next sequence").base_offset, end);
            }
            let found = read_all(log, said.end, 1 << 20);
            assert_eq!(found.len(), said.producers.len());
            assert!(found.iter().all(|record| record.leader_epoch == newest));
        }
    }
}
