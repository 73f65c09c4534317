//! Batches to append.

use bytes::Bytes;
use faulty_disk::Random;
use storage::LogConfig;
use storage::batch::{BatchBuilder, Compression, EndMarker, Header, layout};
use storage::config::{CompressionType, NEVER, TimestampType};

use crate::model::Sent;

const CODECS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

/// How many keys there are.
const KEYS: u64 = 7;

/// A client's batch of one to six records, each of whose values is `number` and some more bytes;
/// timestamps are around `now_ms`, in any order. With `keyed` the keys are few, and some of the values are
/// missing.
pub fn batch(
    random: &mut Random,
    number: u64,
    now_ms: i64,
    producer: Option<(i64, i16, i32)>,
    keyed: bool,
) -> Sent {
    made(random, number, now_ms, producer, keyed, false)
}

/// As [`batch`], a part of the producer's transaction.
pub fn part(
    random: &mut Random,
    number: u64,
    now_ms: i64,
    producer: (i64, i16, i32),
    keyed: bool,
) -> Sent {
    made(random, number, now_ms, Some(producer), keyed, true)
}

/// A producer's marker, as of `now_ms`.
pub fn marker(marker: &EndMarker, now_ms: i64) -> Sent {
    Sent {
        bytes: marker.batch(now_ms),
        times: vec![now_ms],
        producer: Some((marker.producer_id, marker.producer_epoch, -1)),
    }
}

fn made(
    random: &mut Random,
    number: u64,
    now_ms: i64,
    producer: Option<(i64, i16, i32)>,
    keyed: bool,
    transactional: bool,
) -> Sent {
    let mut batch = BatchBuilder::new(CODECS[random.below(8).min(4) as usize]);
    if let Some((id, epoch, sequence)) = producer {
        batch = batch.producer(id, epoch, sequence);
    }
    if transactional {
        batch = batch.transactional();
    }
    let count = 1 + random.below(6);
    let mut times = Vec::new();
    // Clients without a clock send -1.
    let timeless = random.one_in(16);
    let mut keys = Random::new(number);
    for _ in 0..count {
        let time = if timeless {
            -1
        } else {
            now_ms - random.below(5_000) as i64
        };
        let mut value = number.to_be_bytes().to_vec();
        value.resize(8 + random.below(90) as usize, random.next() as u8);
        let header = Header {
            key: Bytes::from_static(b"header"),
            value: random.one_in(2).then(|| Bytes::from_static(b"value")),
        };
        let headers = if random.one_in(4) {
            vec![header]
        } else {
            Vec::new()
        };
        if keyed {
            let key = [b'a' + keys.below(KEYS) as u8];
            let value = (!keys.one_in(5)).then_some(&value[..]);
            batch.push(time, Some(&key), value, &headers);
        } else {
            batch.push(time, Some(b"key"), Some(&value), &headers);
        }
        times.push(time);
    }
    Sent {
        bytes: batch.build(),
        times,
        producer,
    }
}

/// A configuration under which logs roll every few batches.
pub fn config(random: &mut Random) -> LogConfig {
    LogConfig {
        segment_bytes: 300 + random.below(3_000),
        segment_ms: if random.one_in(4) { 4_000 } else { 1 << 40 },
        segment_index_bytes: if random.one_in(4) { 48 } else { 10 << 20 },
        index_interval_bytes: random.below(600) as u32,
        max_message_bytes: 4_000,
        message_timestamp_type: match random.below(5) {
            0 => TimestampType::LogAppendTime,
            _ => TimestampType::CreateTime,
        },
        compression: match random.below(6) {
            0 => CompressionType::Codec {
                codec: CODECS[random.below(5) as usize],
                level: None,
            },
            _ => CompressionType::Producer,
        },
        preallocate: random.one_in(5),
        delete: random.one_in(2),
        retention_ms: if random.one_in(3) { 9_000 } else { -1 },
        retention_bytes: if random.one_in(3) { 1_500 } else { -1 },
        file_delete_delay_ms: random.below(2) * 10_000,
        ..LogConfig::default()
    }
}

/// What is compacted, and when.
pub fn compaction(config: &mut LogConfig, random: &mut Random) {
    config.compact = random.below(4) > 0;
    config.min_cleanable_dirty_ratio = [0.0, 0.0, 0.5][random.below(3) as usize];
    config.min_compaction_lag_ms = if random.one_in(4) { 4_000 } else { 0 };
    config.max_compaction_lag_ms = if random.one_in(4) { 9_000 } else { NEVER };
    config.delete_retention_ms = [0, 5_000, 20_000][random.below(3) as usize];
}

/// A batch that has to be refused, whatever the log has.
pub fn refused(random: &mut Random, sound: &Sent, config: &LogConfig, now_ms: i64) -> Bytes {
    let mut bytes = sound.bytes.to_vec();
    let set_crc = |bytes: &mut Vec<u8>| {
        let crc = crc32c::crc32c(&bytes[layout::CRC_COVERS_FROM..]);
        bytes[layout::CRC..layout::ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
    };
    match random.below(7) {
        0 => {
            let position = layout::CRC + random.below((bytes.len() - layout::CRC) as u64) as usize;
            bytes[position] ^= 1 << random.below(8);
        }
        1 => bytes.truncate(random.below(bytes.len() as u64) as usize),
        2 => bytes[layout::MAGIC] = 1,
        3 => {
            let count = sound.times.len() as i32 + 1;
            bytes[layout::RECORDS_COUNT..layout::RECORDS].copy_from_slice(&count.to_be_bytes());
            set_crc(&mut bytes);
        }
        4 => {
            // The bit of control batches.
            bytes[layout::ATTRIBUTES + 1] |= 1 << 5;
            set_crc(&mut bytes);
        }
        5 if config.message_timestamp_type == TimestampType::CreateTime => {
            let mut late = BatchBuilder::new(Compression::None);
            late.push(
                now_ms + config.message_timestamp_after_max_ms + 1,
                None,
                Some(b"late"),
                &[],
            );
            return late.build();
        }
        _ => {
            let mut large = BatchBuilder::new(Compression::None);
            large.push(
                now_ms,
                None,
                Some(&vec![7; config.max_message_bytes as usize]),
                &[],
            );
            return large.build();
        }
    }
    bytes.into()
}
