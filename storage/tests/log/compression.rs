//! `compression.type`: a client's batch is stored in the topic's codec, and is the same batch.

use bytes::Bytes;
use storage::batch::{
    Batch, BatchBuilder, Compression, EndMarker, Header, Record, TransactionResult, batches,
    layout, records,
};
use storage::config::{CompressionType, TimestampType};
use storage::{Error, LogConfig, PartitionLog};

use crate::fixture::{fetch, open_dir, open_log};

const CODECS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

const fn in_codec(codec: Compression) -> CompressionType {
    CompressionType::Codec { codec, level: None }
}

fn storing(compression: CompressionType) -> LogConfig {
    LogConfig {
        compression,
        ..LogConfig::default()
    }
}

/// Keys, values and headers, null ones too, and times that go back and forth.
fn sent(codec: Compression, sequence: i32) -> Bytes {
    let header = |key: &'static str, value: Option<&'static str>| Header {
        key: Bytes::from_static(key.as_bytes()),
        value: value.map(|value| Bytes::from_static(value.as_bytes())),
    };
    let mut batch = BatchBuilder::new(codec).producer(7, 3, sequence);
    let large = [b'x'; 3_000];
    batch.push(2_000, Some(b"key"), Some(b"value"), &[]);
    batch.push(
        9_000,
        None,
        Some(&large),
        &[header("h", Some("1")), header("h", None)],
    );
    batch.push(1_000, Some(b""), None, &[header("", Some(""))]);
    batch.push(-1, None, Some(b""), &[]);
    batch.build()
}

/// `batch` with a field changed, and the CRC that is right then.
fn altered(batch: &Bytes, position: usize, field: &[u8]) -> Bytes {
    let mut bytes = batch.to_vec();
    bytes[position..position + field.len()].copy_from_slice(field);
    stamped(bytes)
}

fn stamped(mut bytes: Vec<u8>) -> Bytes {
    let length = (bytes.len() - layout::LOG_OVERHEAD) as i32;
    bytes[layout::BATCH_LENGTH..][..4].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[layout::CRC_COVERS_FROM..]);
    bytes[layout::CRC..][..4].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

/// The batch at `offset`, which is the last one.
fn stored(log: &PartitionLog, offset: i64) -> Bytes {
    let fetched = fetch(log, offset, 1 << 24).expect("reads").records;
    let mut found = batches(&fetched).map(|batch| batch.expect("a whole batch"));
    let batch = found.next().expect("a batch");
    assert!(found.next().is_none(), "it is the last one");
    fetched.slice_ref(batch.bytes())
}

fn decoded(batch: &Bytes) -> Vec<Record> {
    records::decode(batch, 1 << 24).expect("decodes")
}

/// What is neither the records nor where they lie.
fn identity(batch: &Batch<'_>) -> impl PartialEq + std::fmt::Debug {
    (
        (
            batch.producer_id(),
            batch.producer_epoch(),
            batch.base_sequence(),
        ),
        (batch.records_count(), batch.last_offset_delta()),
        (batch.base_timestamp(), batch.max_timestamp()),
        batch.attributes() & !0b111,
    )
}

#[test]
fn every_codec_becomes_the_topics_and_nothing_else_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let log = open_log(&dir, LogConfig::default());
    let transactional = |batch: Bytes, is: bool| match is {
        false => batch,
        true => {
            let attributes = Batch::parse(&batch).expect("a batch").attributes() | 1 << 4;
            altered(&batch, layout::ATTRIBUTES, &attributes.to_be_bytes())
        }
    };
    let mut sequence = 0;
    for target in CODECS {
        log.set_config(storing(in_codec(target)).into());
        for (source, is_transactional) in CODECS.iter().flat_map(|c| [(*c, false), (*c, true)]) {
            let batch = transactional(sent(source, sequence), is_transactional);
            sequence += 4;
            assert_eq!(
                log.opens(&batch),
                source != target,
                "{source:?} to {target:?}"
            );
            let appended = log.append(&batch).expect("appends");
            let found = stored(&log, appended.base_offset);
            let (before, after) = (Batch::parse(&batch).unwrap(), Batch::parse(&found).unwrap());
            if is_transactional {
                // Else the producer's next batch would have to be part of it.
                let marker = EndMarker {
                    producer_id: before.producer_id(),
                    producer_epoch: before.producer_epoch(),
                    coordinator_epoch: 0,
                    result: TransactionResult::Commit,
                };
                log.append_marker(&marker).expect("appends");
            }
            assert_eq!(after.compression().unwrap(), target, "from {source:?}");
            after.check_crc().unwrap();
            assert_eq!(
                identity(&before),
                identity(&after),
                "{source:?} to {target:?}"
            );
            assert_eq!(after.base_offset(), appended.base_offset);
            assert_eq!(after.last_offset(), appended.last_offset);
            let mut expected = decoded(&batch);
            for record in &mut expected {
                record.offset += appended.base_offset;
            }
            assert_eq!(decoded(&found), expected, "{source:?} to {target:?}");
            if source == target {
                assert_eq!(
                    after.records_bytes(),
                    before.records_bytes(),
                    "left as it came"
                );
            }
        }
    }
}

#[test]
fn the_producers_codec_is_kept_and_the_batch_left_closed() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let log = open_log(&dir, LogConfig::default());
    for (index, codec) in (0..).zip(CODECS) {
        let batch = sent(codec, index * 4);
        assert!(!log.opens(&batch), "{codec:?}");
        let base_offset = log.append(&batch).expect("appends").base_offset;
        let found = stored(&log, base_offset);
        assert_eq!(found[layout::MAGIC..], batch[layout::MAGIC..], "{codec:?}");
    }
    // What cannot be opened is for its reader to find out.
    let garbage = altered(&sent(Compression::Zstd, 20), layout::RECORDS, &[0xff; 8]);
    log.append(&garbage).expect("is not looked into");
}

#[test]
fn what_cannot_be_opened_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let config = LogConfig {
        max_message_bytes: 10_000,
        ..storing(in_codec(Compression::Zstd))
    };
    let log = open_log(&dir, config.clone());
    let with_records = |codec: Compression, records: &[u8]| {
        let whole = sent(codec, 0);
        let mut bytes = whole[..layout::RECORDS].to_vec();
        bytes.extend_from_slice(records);
        stamped(bytes)
    };
    let refused = |batch: &Bytes, what: &str| match log.append(batch) {
        Err(Error::InvalidRecord(reason)) => assert!(reason.contains(what), "{reason}"),
        Err(Error::InvalidRecordAt { reason, .. }) => assert!(reason.contains(what), "{reason}"),
        other => panic!("{what}: {other:?}"),
    };
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4] {
        let whole = sent(codec, 0);
        refused(&with_records(codec, &[0xa5; 100]), "");
        let cut = &whole[layout::RECORDS..whole.len() - 5];
        refused(&with_records(codec, cut), "");
        // Sound in its codec, and no records.
        let mut lies = BatchBuilder::new(codec);
        lies.push(1_000, None, Some(b"value"), &[]);
        let lies = altered(&lies.build(), layout::RECORDS_COUNT, &2_i32.to_be_bytes());
        let lies = altered(&lies, layout::LAST_OFFSET_DELTA, &1_i32.to_be_bytes());
        refused(&lies, "varint without an end");
        // A little that would become a lot.
        let mut bomb = BatchBuilder::new(codec);
        for _ in 0..7 {
            bomb.push(1_000, None, Some(&[0; 100_000]), &[]);
        }
        let bomb = bomb.build();
        // Snappy cannot make it that small.
        if codec != Compression::Snappy {
            refused(&bomb, "more than 640000 bytes");
        }
    }
    // Uncompressed, it is damaged where its CRC says so.
    let mut damaged = sent(Compression::None, 0).to_vec();
    *damaged.last_mut().expect("bytes") ^= 1;
    assert!(matches!(
        log.append(&damaged.into()),
        Err(Error::CorruptBatch(_))
    ));
    assert_eq!(log.offsets().log_end_offset, 0);

    let first = log.append(&sent(Compression::Gzip, 0)).expect("appends");
    assert_eq!(first.base_offset, 0, "nothing was left behind");
}

#[test]
fn a_batch_is_measured_as_it_comes_and_as_it_is_stored() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let config = |codec, max_message_bytes| LogConfig {
        max_message_bytes,
        ..storing(in_codec(codec))
    };
    let small = sent(Compression::Zstd, 0);
    let large = sent(Compression::None, 0);
    assert!(small.len() < 1_000 && large.len() > 3_000);
    let log = open_log(&dir, config(Compression::None, 3_000));
    match log.append(&small) {
        Err(Error::BatchTooLarge { size, limit }) => {
            assert_eq!((size, limit), (large.len(), 3_000))
        }
        other => panic!("{other:?}"),
    }
    // It would be small enough, but it is measured first.
    log.set_config(config(Compression::Zstd, 3_000).into());
    assert!(matches!(
        log.append(&large),
        Err(Error::BatchTooLarge { limit: 3_000, .. })
    ));
    log.set_config(config(Compression::None, 4_000).into());
    let appended = log.append(&small).expect("appends");
    assert_eq!(stored(&log, appended.base_offset).len(), large.len());
}

#[test]
fn a_repeated_batch_is_known_whatever_codec_it_was_stored_in() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let log = open_log(&dir, storing(in_codec(Compression::Gzip)));
    let first = log.append(&sent(Compression::Lz4, 0)).expect("appends");
    let second = log.append(&sent(Compression::Lz4, 4)).expect("appends");
    for config in [in_codec(Compression::Gzip), CompressionType::Producer] {
        log.set_config(storing(config).into());
        let again = log.append(&sent(Compression::Lz4, 4)).expect("is known");
        assert!(again.duplicate);
        assert_eq!(
            (again.base_offset, again.last_offset),
            (second.base_offset, second.last_offset)
        );
    }
    assert_eq!(log.offsets().log_end_offset, 8);
    match log.append(&sent(Compression::Lz4, 12)) {
        Err(Error::OutOfOrderSequence {
            last: 7, found: 12, ..
        }) => {}
        other => panic!("{other:?}"),
    }
    drop((first, log));
    drop(dir);

    // What the log knows when it is read again is the same.
    let dir = open_dir(folder.path());
    let log = open_log(&dir, storing(in_codec(Compression::Gzip)));
    let again = log.append(&sent(Compression::Lz4, 4)).expect("is known");
    assert_eq!((again.duplicate, again.base_offset), (true, 4));
}

#[test]
fn the_brokers_time_and_another_codec_go_together() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let config = LogConfig {
        message_timestamp_type: TimestampType::LogAppendTime,
        ..storing(in_codec(Compression::Zstd))
    };
    let log = open_log(&dir, config);
    for (index, codec) in (0..).zip(CODECS) {
        let appended = log.append(&sent(codec, index * 4)).expect("appends");
        let time = appended.log_append_time_ms.expect("the broker's time");
        let found = stored(&log, appended.base_offset);
        let batch = Batch::parse(&found).unwrap();
        batch.check_crc().unwrap();
        assert_eq!(batch.compression().unwrap(), Compression::Zstd, "{codec:?}");
        assert_eq!(batch.max_timestamp(), time);
        assert!(
            decoded(&found)
                .iter()
                .all(|record| record.timestamp == time)
        );
    }
}

#[test]
fn levels_are_obeyed() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let log = open_log(&dir, LogConfig::default());
    let text: Vec<u8> = (0..40_000_u32)
        .flat_map(|n| format!("{} ", n.wrapping_mul(2_654_435_761) % 5_000).into_bytes())
        .collect();
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(1_000, None, Some(&text), &[]);
    let batch = builder.build();
    let size = |codec, level| {
        log.set_config(storing(CompressionType::Codec { codec, level }).into());
        let base_offset = log.append(&batch).expect("appends").base_offset;
        stored(&log, base_offset).len()
    };
    for (codec, fast, small) in [(Compression::Gzip, 1, 9), (Compression::Zstd, -50, 19)] {
        let (fast, small) = (size(codec, Some(fast)), size(codec, Some(small)));
        assert!(small < fast, "{codec:?}: {small} and {fast} bytes");
        assert!(small <= size(codec, None), "{codec:?}");
    }
}

#[test]
fn a_header_says_what_its_records_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let log = open_log(&dir, LogConfig::default());
    // The largest of the records' times is 9000.
    let lies = |codec, sequence| {
        altered(
            &sent(codec, sequence),
            layout::MAX_TIMESTAMP,
            &2_000_i64.to_be_bytes(),
        )
    };
    let max_timestamp = |batch: Bytes| {
        let base_offset = log.append(&batch).expect("appends").base_offset;
        let found = stored(&log, base_offset);
        let found = Batch::parse(&found).unwrap();
        found.check_crc().unwrap();
        found.max_timestamp()
    };
    assert_eq!(max_timestamp(lies(Compression::None, 0)), 9_000);
    log.set_config(storing(in_codec(Compression::Gzip)).into());
    assert_eq!(max_timestamp(lies(Compression::Zstd, 4)), 9_000);
}

#[test]
fn only_the_broker_says_that_a_time_is_the_brokers() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = open_dir(folder.path());
    let log = open_log(&dir, LogConfig::default());
    let claims = altered(
        &sent(Compression::None, 0),
        layout::ATTRIBUTES,
        &8_i16.to_be_bytes(),
    );
    let base_offset = log.append(&claims).expect("appends").base_offset;
    let found = stored(&log, base_offset);
    Batch::parse(&found).unwrap().check_crc().unwrap();
    let times: Vec<i64> = decoded(&found)
        .iter()
        .map(|record| record.timestamp)
        .collect();
    assert_eq!(times, [2_000, 9_000, 1_000, -1], "they are the producer's");

    log.set_config(
        LogConfig {
            message_timestamp_type: TimestampType::LogAppendTime,
            ..LogConfig::default()
        }
        .into(),
    );
    let claims = altered(
        &sent(Compression::None, 4),
        layout::ATTRIBUTES,
        &8_i16.to_be_bytes(),
    );
    assert!(matches!(
        log.append(&claims),
        Err(Error::TimestampTypeOfBroker)
    ));
}
