//! Record batches: the exact bytes, what is refused, and every codec there and back.

use bytes::Bytes;
use storage::Error;
use storage::batch::{
    Batch, BatchBuilder, Compression, Header, Limits, Record, TimestampType, batches, decode,
    layout, patch_header, patch_header_with_log_append_time, validate_client_batch,
};

const CODECS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];
const LIMITS: Limits = Limits {
    timestamps: i64::MIN..=i64::MAX,
    max_message_bytes: 1 << 20,
    require_keys: false,
};
const COMPACTED: Limits = Limits {
    timestamps: i64::MIN..=i64::MAX,
    max_message_bytes: 1 << 20,
    require_keys: true,
};
const MAX_DECOMPRESSED: usize = 16 << 20;

/// Two records, field by field as Kafka's protocol guide has them.
fn batch_by_hand() -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0]); // base offset
    bytes.extend_from_slice(&[0, 0, 0, 73]); // batch length
    bytes.extend_from_slice(&[0xff, 0xff, 0xff, 0xff]); // partition leader epoch
    bytes.push(2); // magic
    bytes.extend_from_slice(&[0, 0, 0, 0]); // CRC, below
    bytes.extend_from_slice(&[0, 0]); // attributes
    bytes.extend_from_slice(&[0, 0, 0, 1]); // last offset delta
    bytes.extend_from_slice(&[0, 0, 0x01, 0x58, 0x8d, 0xcd, 0x59, 0x38]); // base timestamp
    bytes.extend_from_slice(&[0, 0, 0x01, 0x58, 0x8d, 0xcd, 0x59, 0x3d]); // max timestamp
    bytes.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0x10, 0]); // producer id
    bytes.extend_from_slice(&[0, 3]); // producer epoch
    bytes.extend_from_slice(&[0, 0, 0, 7]); // base sequence
    bytes.extend_from_slice(&[0, 0, 0, 2]); // records
    bytes.extend_from_slice(&[32, 0, 10, 0]); // length 16, attributes, timestamp +5, offset +0
    bytes.extend_from_slice(&[4, b'i', b'd', 6, b'o', b'n', b'e']); // key, value
    bytes.extend_from_slice(&[2, 2, b'h', 4, b'h', b'v']); // one header: h = hv
    bytes.extend_from_slice(&[12, 0, 0, 2, 1, 1, 0]); // null key, null value, no header
    stamp_crc(&mut bytes);
    bytes
}

/// CRC-32C bit by bit, independent of the library.
fn crc32c_bitwise(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & 0u32.wrapping_sub(crc & 1));
        }
    }
    !crc
}

fn stamp_crc(batch: &mut [u8]) {
    let crc = crc32c_bitwise(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// The batch by hand with `change` made to it and the CRC set right again.
fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = batch_by_hand();
    change(&mut bytes);
    stamp_crc(&mut bytes);
    bytes
}

fn header(key: &'static str, value: Option<&'static str>) -> Header {
    Header {
        key: Bytes::from(key),
        value: value.map(Bytes::from),
    }
}

#[test]
fn every_field_of_a_known_batch_is_read() {
    let bytes = batch_by_hand();
    let batch = Batch::parse(&bytes).unwrap();
    assert_eq!(batch.base_offset(), 0);
    assert_eq!(batch.batch_length() as usize, bytes.len() - 12);
    assert_eq!(batch.partition_leader_epoch(), -1);
    assert_eq!(batch.magic(), 2);
    assert_eq!(batch.crc(), crc32c_bitwise(&bytes[21..]));
    assert_eq!(batch.compute_crc(), batch.crc());
    assert_eq!(batch.attributes(), 0);
    assert_eq!(batch.compression().unwrap(), Compression::None);
    assert_eq!(batch.timestamp_type(), TimestampType::CreateTime);
    assert!(!batch.is_control() && !batch.is_transactional() && !batch.has_delete_horizon());
    assert_eq!(batch.base_timestamp(), 1_479_847_795_000);
    assert_eq!(batch.max_timestamp(), 1_479_847_795_005);
    assert_eq!(batch.producer_id(), 4096);
    assert_eq!(batch.producer_epoch(), 3);
    assert_eq!((batch.base_sequence(), batch.last_sequence()), (7, 8));
    assert_eq!((batch.last_offset(), batch.next_offset()), (1, 2));
    assert_eq!(batch.records_count(), 2);
    assert_eq!(batch.size_in_bytes(), bytes.len());
    assert_eq!(batch.records_bytes(), &bytes[61..]);

    validate_client_batch(&bytes, &LIMITS).unwrap();
    let records = decode(&Bytes::from(bytes), 0).unwrap();
    assert_eq!(
        records,
        [
            Record {
                offset: 0,
                timestamp: 1_479_847_795_005,
                key: Some(Bytes::from("id")),
                value: Some(Bytes::from("one")),
                headers: vec![header("h", Some("hv"))],
            },
            Record {
                offset: 1,
                timestamp: 1_479_847_795_000,
                key: None,
                value: None,
                headers: vec![],
            },
        ]
    );
}

#[test]
fn the_builder_writes_the_known_bytes() {
    let mut builder = BatchBuilder::new(Compression::None).producer(4096, 3, 7);
    builder.push(
        1_479_847_795_005,
        Some(b"id"),
        Some(b"one"),
        &[header("h", Some("hv"))],
    );
    builder.push(1_479_847_795_000, None, None, &[]);
    let expected = changed(|bytes| {
        // The builder takes the first record's timestamp as the base: deltas are 0 and -5.
        bytes[27..35].copy_from_slice(&1_479_847_795_005i64.to_be_bytes());
        bytes[63] = 0;
        bytes[80] = 9;
    });
    assert_eq!(builder.len(), 2);
    assert_eq!(builder.size_in_bytes(), expected.len());
    assert_eq!(builder.build(), expected);
}

#[test]
fn sequences_wrap_to_zero() {
    let bytes = changed(|bytes| bytes[53..57].copy_from_slice(&i32::MAX.to_be_bytes()));
    assert_eq!(Batch::parse(&bytes).unwrap().last_sequence(), 0);
    let bytes = changed(|bytes| bytes[53..57].copy_from_slice(&(-1i32).to_be_bytes()));
    assert_eq!(Batch::parse(&bytes).unwrap().last_sequence(), -1);
}

#[test]
fn several_batches_in_one_buffer_are_iterated_and_a_torn_one_ends_them() {
    let one = batch_by_hand();
    let mut buffer = [one.clone(), one.clone()].concat();
    assert_eq!(batches(&buffer).filter(|batch| batch.is_ok()).count(), 2);
    buffer.extend_from_slice(&one[..one.len() - 1]);
    let all: Vec<_> = batches(&buffer).collect();
    assert_eq!(all.len(), 3);
    assert!(matches!(all[2], Err(Error::CorruptBatch(_))));
    assert_eq!(batches(&[]).count(), 0);
}

#[test]
fn patching_changes_two_fields_and_keeps_the_crc() {
    let bytes = batch_by_hand();
    let batch = Batch::parse(&bytes).unwrap();
    let patched = [
        &patch_header(&batch, 1 << 40, 12)[..],
        batch.records_bytes(),
    ]
    .concat();
    let patched = Batch::parse(&patched).unwrap();
    assert_eq!(
        (patched.base_offset(), patched.last_offset()),
        (1 << 40, (1 << 40) + 1)
    );
    assert_eq!(patched.partition_leader_epoch(), 12);
    assert_eq!(patched.bytes()[16..], bytes[16..]);
    patched.check_crc().unwrap();
}

#[test]
fn log_append_time_replaces_every_timestamp_and_the_crc() {
    let bytes = batch_by_hand();
    let batch = Batch::parse(&bytes).unwrap();
    let header = patch_header_with_log_append_time(&batch, 9, 1, 1_700_000_000_123);
    let patched = Bytes::from([&header[..], batch.records_bytes()].concat());
    let view = Batch::parse(&patched).unwrap();
    assert_eq!(view.timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(view.max_timestamp(), 1_700_000_000_123);
    assert_eq!(view.crc(), crc32c_bitwise(&patched[21..]));
    let records = decode(&patched, 0).unwrap();
    assert!(
        records
            .iter()
            .all(|record| record.timestamp == 1_700_000_000_123)
    );
    assert_eq!([records[0].offset, records[1].offset], [9, 10]);
}

#[test]
fn what_is_intact_but_wrong_is_an_invalid_record() {
    let cases: [(&str, Vec<u8>); 16] = [
        ("control bit", changed(|bytes| bytes[22] |= 1 << 5)),
        ("delete horizon", changed(|bytes| bytes[22] |= 1 << 6)),
        (
            "transactional without a producer",
            changed(|bytes| {
                bytes[22] |= 1 << 4;
                bytes[43..51].fill(0xff);
            }),
        ),
        ("base offset", changed(|bytes| bytes[7] = 1)),
        ("count too small", changed(|bytes| bytes[60] = 1)),
        ("count too large", changed(|bytes| bytes[60] = 3)),
        (
            "count and delta too large",
            changed(|bytes| {
                bytes[60] = 3;
                bytes[26] = 2;
            }),
        ),
        (
            "count and delta too small",
            changed(|bytes| {
                bytes[60] = 1;
                bytes[26] = 0;
            }),
        ),
        (
            "no records",
            changed(|bytes| {
                bytes[60] = 0;
                bytes[23..27].fill(0xff);
            }),
        ),
        ("negative count", changed(|bytes| bytes[57] = 0x80)),
        (
            "no producer epoch",
            changed(|bytes| bytes[51..53].fill(0xff)),
        ),
        ("no sequence", changed(|bytes| bytes[53..57].fill(0xff))),
        ("offset delta twice", changed(|bytes| bytes[81] = 0)),
        ("record length", changed(|bytes| bytes[61] += 2)),
        ("header count", changed(|bytes| bytes[72] = 4)),
        (
            "trailing byte",
            changed(|bytes| {
                bytes.push(0);
                bytes[11] += 1;
            }),
        ),
    ];
    for (what, bytes) in cases {
        let result = validate_client_batch(&bytes, &LIMITS);
        let is_refused = matches!(
            result,
            Err(Error::InvalidRecord(_) | Error::InvalidRecordAt { .. })
        );
        assert!(is_refused, "{what}: {result:?}");
    }
}

#[test]
fn two_batches_are_not_one() {
    let bytes = [batch_by_hand(), batch_by_hand()].concat();
    let result = validate_client_batch(&bytes, &LIMITS);
    assert!(matches!(result, Err(Error::InvalidRecord(_))), "{result:?}");
}

#[test]
fn damage_other_formats_and_size_have_errors_of_their_own() {
    let mut bytes = batch_by_hand();
    let limits = Limits {
        max_message_bytes: bytes.len() - 1,
        ..LIMITS
    };
    let result = validate_client_batch(&bytes, &limits);
    assert!(
        matches!(result, Err(Error::BatchTooLarge { .. })),
        "{result:?}"
    );

    let result = validate_client_batch(&changed(|bytes| bytes[22] = 5), &LIMITS);
    assert!(
        matches!(result, Err(Error::CorruptBatch(_))),
        "unknown codec: {result:?}"
    );

    bytes[16] = 1;
    let result = validate_client_batch(&bytes, &LIMITS);
    assert!(
        matches!(result, Err(Error::UnsupportedMagic(1))),
        "{result:?}"
    );

    for length in [-1i32, 0, 48, i32::MAX, i32::MIN] {
        let bytes = changed(|bytes| bytes[8..12].copy_from_slice(&length.to_be_bytes()));
        let result = validate_client_batch(&bytes, &LIMITS);
        assert!(
            matches!(result, Err(Error::CorruptBatch(_))),
            "{length}: {result:?}"
        );
    }
}

#[test]
fn a_compacted_topic_needs_keys_in_every_codec() {
    for codec in CODECS {
        let mut keyed = BatchBuilder::new(codec);
        keyed.push(1, Some(b""), None, &[]);
        keyed.push(2, Some(b"k"), Some(b"v"), &[]);
        validate_client_batch(&keyed.build(), &COMPACTED).unwrap();

        let mut unkeyed = BatchBuilder::new(codec);
        unkeyed.push(1, Some(b"k"), None, &[]);
        unkeyed.push(2, None, Some(b"v"), &[]);
        let unkeyed = unkeyed.build();
        validate_client_batch(&unkeyed, &LIMITS).unwrap();
        let result = validate_client_batch(&unkeyed, &COMPACTED);
        assert!(
            matches!(result, Err(Error::InvalidRecordAt { index: 1, .. })),
            "{codec:?}: {result:?}"
        );
    }
}

#[test]
fn timestamps_out_of_bounds_are_refused_by_record_or_by_header() {
    let limits = Limits {
        timestamps: 100..=200,
        ..LIMITS
    };
    let batch = |codec, times: &[i64]| {
        let mut batch = BatchBuilder::new(codec);
        for time in times {
            batch.push(*time, None, Some(b"v"), &[]);
        }
        batch.build()
    };
    for codec in CODECS {
        for good in [&[100, 200, 150][..], &[-1], &[150]] {
            validate_client_batch(&batch(codec, good), &limits).unwrap();
        }
        // A compressed batch is not opened: its header has the first and the largest.
        let opened = codec == Compression::None;
        for (times, timestamp, index) in [
            (&[150, 201, 150][..], 201, opened.then_some(1)),
            (&[99, 150], 99, Some(0)),
        ] {
            match validate_client_batch(&batch(codec, times), &limits) {
                Err(Error::InvalidTimestamp {
                    index: found,
                    timestamp: at,
                    earliest: 100,
                    latest: 200,
                }) => assert_eq!((found, at), (index, timestamp), "{codec:?}"),
                other => panic!("{codec:?} {times:?}: {other:?}"),
            }
        }
        let hidden = validate_client_batch(&batch(codec, &[150, 99]), &limits);
        assert_eq!(hidden.is_err(), opened, "{codec:?}");
    }
}

#[test]
fn any_cut_or_flipped_bit_is_refused_and_never_panics() {
    for codec in CODECS {
        let mut builder = BatchBuilder::new(codec).producer(1, 0, 0);
        for index in 0..5u8 {
            let headers = [header("h", None), header("g", Some("x"))];
            builder.push(
                i64::from(index),
                Some(&[index]),
                Some(b"some value"),
                &headers,
            );
        }
        let sound = builder.build();
        validate_client_batch(&sound, &COMPACTED).unwrap();
        for cut in 0..sound.len() {
            assert!(
                validate_client_batch(&sound[..cut], &COMPACTED).is_err(),
                "{codec:?} {cut}"
            );
            assert!(
                decode(&sound.slice(..cut), MAX_DECOMPRESSED).is_err(),
                "{codec:?} {cut}"
            );
        }
        for bit in 0..sound.len() * 8 {
            let mut bytes = sound.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let (crc_covers, base_offset) = (bit / 8 >= layout::CRC, bit / 8 < 8);
            let validated = validate_client_batch(&bytes, &COMPACTED);
            let decoded = decode(&Bytes::from(bytes.clone()), MAX_DECOMPRESSED);
            if crc_covers {
                assert!(
                    matches!(validated, Err(Error::CorruptBatch(_))),
                    "{codec:?} {bit}"
                );
                assert!(
                    matches!(decoded, Err(Error::CorruptBatch(_))),
                    "{codec:?} {bit}"
                );
            } else if base_offset {
                assert!(validated.is_err(), "{codec:?} {bit}");
            }
            // With the CRC set right again only "no panic" is left to check.
            stamp_crc(&mut bytes);
            let _ = validate_client_batch(&bytes, &COMPACTED);
            let _ = decode(&Bytes::from(bytes), MAX_DECOMPRESSED);
        }
    }
}

#[test]
fn garbage_where_records_should_be_is_a_corrupt_batch() {
    let mut random = Random(7);
    for codec in 0..5u8 {
        for _ in 0..500 {
            let garbage = changed(|bytes| {
                bytes[22] = codec;
                bytes[61..].fill_with(|| random.next() as u8);
            });
            match decode(&Bytes::from(garbage), MAX_DECOMPRESSED) {
                Ok(_) | Err(Error::CorruptBatch(_)) => {}
                Err(other) => panic!("codec {codec}: {other}"),
            }
        }
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Null, empty, small, or (rarely) large; a part of it repeats so that codecs have work.
    fn bytes(&mut self) -> Option<Bytes> {
        let len = match self.below(20) {
            0..=2 => return None,
            3..=5 => 0,
            6 => self.below(200_000),
            _ => self.below(300),
        };
        let period = 1 + self.below(500) as usize;
        let pattern: Vec<u8> = (0..period).map(|_| self.next() as u8).collect();
        Some(pattern.into_iter().cycle().take(len as usize).collect())
    }

    fn record(&mut self, offset: i64) -> Record {
        let timestamp = match self.below(10) {
            0 => i64::MIN,
            1 => i64::MAX,
            2 => -1,
            _ => 1_700_000_000_000 + self.below(10_000) as i64,
        };
        let headers = (0..self.below(4)).map(|_| Header {
            key: self.bytes().unwrap_or_default(),
            value: self.bytes(),
        });
        let headers = headers.collect();
        Record {
            offset,
            timestamp,
            key: self.bytes(),
            value: self.bytes(),
            headers,
        }
    }
}

#[test]
fn what_was_built_is_decoded_in_every_codec() {
    let mut random = Random(42);
    for round in 0..60 {
        let count = 1 + random.below(40) as i64;
        let records: Vec<Record> = (0..count).map(|offset| random.record(offset)).collect();
        for codec in CODECS {
            let mut builder = BatchBuilder::new(codec);
            for record in &records {
                let (key, value) = (record.key.as_deref(), record.value.as_deref());
                builder.push(record.timestamp, key, value, &record.headers);
            }
            let size = builder.size_in_bytes();
            let batch = builder.build();
            let limits = Limits {
                timestamps: i64::MIN..=i64::MAX,
                max_message_bytes: 16 << 20,
                require_keys: false,
            };
            validate_client_batch(&batch, &limits).unwrap();
            let view = Batch::parse(&batch).unwrap();
            assert_eq!(view.compression().unwrap(), codec);
            let newest = records.iter().map(|record| record.timestamp).max();
            assert_eq!(Some(view.max_timestamp()), newest);
            assert_eq!(
                decode(&batch, size).unwrap(),
                records,
                "round {round}, {codec:?}"
            );
        }
    }
}

#[test]
fn decompression_stops_at_the_limit() {
    let value = vec![0u8; 8 << 20];
    for codec in &CODECS[1..] {
        let mut builder = BatchBuilder::new(*codec);
        builder.push(0, Some(b"k"), Some(&value), &[]);
        let decompressed = builder.size_in_bytes() - layout::RECORDS;
        let batch = builder.build();
        assert_eq!(decode(&batch, decompressed).unwrap().len(), 1, "{codec:?}");
        let result = decode(&batch, decompressed - 1);
        assert!(
            matches!(result, Err(Error::CorruptBatch(_))),
            "{codec:?}: {result:?}"
        );
    }
}

/// The batch by hand with its records as `codec` has them.
fn with_records(codec: u8, records: &[u8]) -> Bytes {
    Bytes::from(changed(|bytes| {
        bytes.truncate(61);
        bytes.extend_from_slice(records);
        let length = (bytes.len() - 12) as i32;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[22] = codec;
    }))
}

#[test]
fn snappy_is_read_raw_and_in_blocks_of_any_size() {
    let plain = batch_by_hand()[61..].to_vec();
    let expected = decode(&Bytes::from(batch_by_hand()), 0).unwrap();
    let mut encoder = snap::raw::Encoder::new();
    let raw = encoder.compress_vec(&plain).unwrap();
    assert_eq!(decode(&with_records(2, &raw), 100).unwrap(), expected);

    let mut framed = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    for block in plain.chunks(5) {
        let block = encoder.compress_vec(block).unwrap();
        framed.extend_from_slice(&(block.len() as u32).to_be_bytes());
        framed.extend_from_slice(&block);
    }
    assert_eq!(decode(&with_records(2, &framed), 100).unwrap(), expected);
    assert!(decode(&with_records(2, &framed), plain.len() - 1).is_err());
    assert!(decode(&with_records(2, &framed[..framed.len() - 1]), 100).is_err());
}

#[test]
fn a_snappy_length_that_lies_is_not_allocated() {
    // A length of 4 GiB - 1, and nothing behind it.
    let result = decode(
        &with_records(2, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        usize::MAX,
    );
    assert!(matches!(result, Err(Error::CorruptBatch(_))), "{result:?}");
}

#[test]
fn zstd_and_gzip_are_read_in_several_frames() {
    let plain = batch_by_hand()[61..].to_vec();
    let expected = decode(&Bytes::from(batch_by_hand()), 0).unwrap();
    let (first, second) = plain.split_at(10);
    let zstd = [first, second].map(|part| zstd::bulk::compress(part, 1).unwrap());
    assert_eq!(
        decode(&with_records(4, &zstd.concat()), 100).unwrap(),
        expected
    );
    let gzip = [first, second].map(|part| {
        let mut encoder = flate2::bufread::GzEncoder::new(part, flate2::Compression::fast());
        let mut out = Vec::new();
        std::io::Read::read_to_end(&mut encoder, &mut out).unwrap();
        out
    });
    assert_eq!(
        decode(&with_records(1, &gzip.concat()), 100).unwrap(),
        expected
    );
}

/// The framing from before the frame format: Kafka's readers do not know it, and its blocks are of 8 MiB.
#[test]
fn lz4_in_its_legacy_framing_is_refused() {
    let mut plain = BatchBuilder::new(Compression::None);
    plain.push(1, Some(b"key"), Some(b"value"), &[]);
    let block = lz4_flex::block::compress(&plain.build()[layout::RECORDS..]);
    let mut records = vec![0x02, 0x21, 0x4c, 0x18];
    records.extend_from_slice(&(block.len() as u32).to_le_bytes());
    records.extend_from_slice(&block);
    let opened = storage::batch::decode(&with_records(3, &records), 1 << 20);
    let refused = opened.expect_err("is no lz4 frame").to_string();
    assert!(refused.contains("legacy frame"), "{refused}");
}
