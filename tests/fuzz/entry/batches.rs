//! Where the fuzzer enters the room of batches: what is checked of a client's batch and stored of
//! it, and what a reader does with one that lies in a log.

use bytes::Bytes;
use storage::LogConfig;
use storage::batch::{self, Batch, Compression, Opened, Record, layout};
use storage::config::{CompressionType, TimestampType};
use storage::partition_log::as_stored;

use crate::allocations::peak;

/// What a batch may be opened to by `batch`.
pub const MAX_DECOMPRESSED_BYTES: usize = 1 << 20;
/// What a batch may be opened to by `records`: every codec reaches it within an input's size.
pub const MAX_RECORDS_BYTES: usize = 256 << 10;
/// The broker's clock.
const NOW_MS: i64 = 1_700_000_000_000;

const CODECS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

/// A record batch, as a produce request brings it and as readers open it. Of the first byte
///
/// - bit 0: length and CRC are made right first, so that what lies behind them is reached;
/// - bits 1 to 3: `compression.type`, where 0 is `producer`, and 6 and 7 are codecs with a level;
/// - bit 4: the topic is compacted, and records need keys;
/// - bit 5: `message.timestamp.type=LogAppendTime`;
/// - bit 6: only timestamps near the clock are taken.
pub fn batch(data: &[u8]) {
    let Some((how, data)) = data.split_first() else {
        return;
    };
    let mut bytes = data.to_vec();
    if how & 1 == 1 {
        reseal(&mut bytes);
    }
    let bytes = Bytes::from(bytes);
    for require_keys in [false, true] {
        let limits = batch::Limits {
            // With keys it is opened, to 64 times that at the most.
            max_message_bytes: MAX_DECOMPRESSED_BYTES / 64,
            require_keys,
            timestamps: 0..=i64::MAX,
        };
        if batch::validate_client_batch(&bytes, &limits).is_ok() {
            let parsed = Batch::parse(&bytes);
            assert!(parsed.is_ok_and(|parsed| parsed.size_in_bytes() == bytes.len()));
        }
    }
    store(&bytes, *how);
    for parsed in batch::batches(&bytes) {
        let Ok(parsed) = parsed else { break };
        let _ = (parsed.last_offset(), parsed.compression());
    }
    if let Ok(opened) = Opened::open(&bytes, MAX_DECOMPRESSED_BYTES) {
        look_at(&opened);
    }
}

/// What an append would store of `sent`: a sound batch of the same records, that the same topic
/// would store as it is.
fn store(sent: &Bytes, how: u8) {
    let codec = |codec, level| CompressionType::Codec { codec, level };
    let compression = match (how >> 1) & 7 {
        0 => CompressionType::Producer,
        6 => codec(Compression::Gzip, Some(9)),
        7 => codec(Compression::Zstd, Some(-5)),
        n => codec(CODECS[usize::from(n) - 1], None),
    };
    let config = LogConfig {
        compression,
        compact: how & 16 != 0,
        max_message_bytes: (MAX_DECOMPRESSED_BYTES / 64) as u32,
        message_timestamp_type: match how & 32 {
            0 => TimestampType::CreateTime,
            _ => TimestampType::LogAppendTime,
        },
        message_timestamp_before_max_ms: match how & 64 {
            0 => i64::MAX,
            _ => 1000,
        },
        ..LogConfig::default()
    };
    let Ok(stored) = as_stored(sent, &config, NOW_MS) else {
        return;
    };
    let (before, after) = (parsed(sent), parsed(&stored));
    after.check_crc().expect("the stored batch's CRC is right");
    let identity = |batch: &Batch<'_>| {
        let producer = (batch.producer_id(), batch.producer_epoch());
        let count = (batch.records_count(), batch.last_offset_delta());
        (
            producer,
            batch.base_sequence(),
            count,
            batch.base_timestamp(),
        )
    };
    assert_eq!(identity(&before), identity(&after));
    assert!(!after.is_control() && !after.has_delete_horizon());
    let sent_as = before.compression().expect("a codec");
    let stored_as = after.compression().expect("a codec");
    match compression {
        CompressionType::Codec { codec, .. } => assert_eq!(stored_as, codec),
        CompressionType::Producer => assert_eq!(stored_as, sent_as),
    }
    // Nobody has looked into a compressed batch that was stored as it came.
    let opened = sent_as == Compression::None || config.compact || stored_as != sent_as;
    if opened {
        let read = |bytes: &Bytes| batch::decode(bytes, MAX_DECOMPRESSED_BYTES);
        let (before, after) = (
            read(sent),
            read(&stored).expect("what was checked is sound"),
        );
        assert!(before.is_ok_and(|before| same_content(&before, &after)));
        assert!(!config.compact || after.iter().all(|record| record.key.is_some()));
        let times = after.iter().map(|record| record.timestamp);
        assert_eq!(times.fold(-1, i64::max), parsed(&stored).max_timestamp());
    }
    let stored = stored.into_owned();
    let again = as_stored(&stored, &config, NOW_MS).expect("what is stored would be stored");
    assert_eq!(*again, stored);
}

/// Keys, values, headers and offsets; a client's flag for the broker's clock is not kept.
fn same_content(one: &[Record], other: &[Record]) -> bool {
    let pairs = || one.iter().zip(other);
    one.len() == other.len()
        && pairs().all(|(one, other)| {
            (one.offset, &one.key, &one.value, &one.headers)
                == (other.offset, &other.key, &other.value, &other.headers)
        })
}

fn parsed(bytes: &Bytes) -> Batch<'_> {
    Batch::parse(bytes).expect("a batch that was stored")
}

/// What a reader makes of the records of a batch whose header is whole and CRC right. The first byte
/// is the codec (and with 8 added: the broker's clock), and with 128 added what follows is compressed
/// here first, otherwise it is what an attacker says is compressed; two bytes are the number of
/// records. However little is sent, what is held at once is bounded.
pub fn records(data: &[u8]) {
    let Some(([how, high, low], payload)) = data.split_first_chunk::<3>() else {
        return;
    };
    let codec = CODECS[usize::from(how & 7) % CODECS.len()];
    let count = u16::from_be_bytes([*high, *low]);
    let by_broker = how & 8 != 0;
    let sealed = |codec, records: &[u8]| Bytes::from(with_header(codec, by_broker, count, records));
    if how & 128 == 0 {
        read_within_bounds(&sealed(codec, payload));
        return;
    }
    let compressed = batch::compress(codec, None, payload).expect("compresses");
    let compressed = sealed(codec, &compressed);
    read_within_bounds(&compressed);
    // A codec changes nothing about what is read.
    let plain = batch::decode(&sealed(Compression::None, payload), MAX_RECORDS_BYTES);
    match (plain, batch::decode(&compressed, MAX_RECORDS_BYTES)) {
        (Ok(plain), Ok(compressed)) => assert_eq!(plain, compressed),
        (Err(plain), Err(compressed)) => assert_eq!(plain.to_string(), compressed.to_string()),
        (plain, compressed) => panic!("uncompressed {plain:?}, in {codec:?} {compressed:?}"),
    }
}

fn read_within_bounds(batch: &Bytes) {
    let held = peak(|| {
        if let Ok(opened) = Opened::open(batch, MAX_RECORDS_BYTES) {
            look_at(&opened);
        }
    });
    // A buffer that grows by doubling is there twice for a moment, and lz4 may have blocks of 4 MiB,
    // two at once. A record's headers take 64 bytes in memory and two in the batch.
    let granted = (9 << 20) + 64 * MAX_RECORDS_BYTES;
    assert!(held <= granted as i64, "{held} bytes held at once");
}

/// Every way to read the records says the same.
fn look_at(opened: &Opened) {
    let sound = opened.check().is_ok();
    // One by one, and each is dropped before the next.
    let read = opened.records().take_while(Result::is_ok).count();
    assert_eq!(sound, opened.records().all(|record| record.is_ok()));
    assert_eq!(read, opened.times().take_while(Result::is_ok).count());
}

/// A batch of `count` records that are `records`, compressed already.
pub fn with_header(codec: Compression, by_broker: bool, count: u16, records: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; layout::RECORDS];
    let mut put = |position: usize, field: &[u8]| {
        bytes[position..position + field.len()].copy_from_slice(field);
    };
    put(layout::BASE_OFFSET, &1000i64.to_be_bytes());
    put(layout::MAGIC, &[2]);
    let attributes = codec.id() | if by_broker { 8 } else { 0 };
    put(layout::ATTRIBUTES, &attributes.to_be_bytes());
    let last = i32::from(count) - 1;
    put(layout::LAST_OFFSET_DELTA, &last.max(0).to_be_bytes());
    put(layout::BASE_TIMESTAMP, &NOW_MS.to_be_bytes());
    put(layout::MAX_TIMESTAMP, &NOW_MS.to_be_bytes());
    put(layout::PRODUCER_ID, &[0xff; 14]);
    put(layout::RECORDS_COUNT, &i32::from(count).to_be_bytes());
    bytes.extend_from_slice(records);
    reseal(&mut bytes);
    bytes
}

/// Makes length and CRC right.
pub fn reseal(bytes: &mut [u8]) {
    if bytes.len() < layout::RECORDS {
        return;
    }
    let length = (bytes.len() - layout::LOG_OVERHEAD) as i32;
    bytes[layout::BATCH_LENGTH..layout::BATCH_LENGTH + 4].copy_from_slice(&length.to_be_bytes());
    let crc = Batch::parse(bytes).map(|batch| batch.compute_crc());
    if let Ok(crc) = crc {
        bytes[layout::CRC..layout::CRC + 4].copy_from_slice(&crc.to_be_bytes());
    }
}
