//! The seeds of the fuzzer's corpus that are made rather than recorded, from what the broker's own
//! code writes.

use std::path::{Path, PathBuf};

use broker::group::records::{GroupMetadataValue, Key, MemberMetadata, OffsetCommitValue};
use broker::transaction::records::{State, TransactionVersion, TransactionalIdState};
use storage::batch::{Batch, BatchBuilder, Compression, Header, compress, layout};
use storage::producer_state::ProducerState;

use crate::indexes;
use crate::model_seeds::model_folders;

const CODECS: [(&str, Compression); 5] = [
    ("none", Compression::None),
    ("gzip", Compression::Gzip),
    ("snappy", Compression::Snappy),
    ("lz4", Compression::Lz4),
    ("zstd", Compression::Zstd),
];

/// The inputs of one target.
pub struct Seeds(PathBuf);

impl Seeds {
    pub fn of(target: &str) -> Self {
        Self::within("corpus", target)
    }

    /// In the corpus, or among what once failed.
    pub fn within(kind: &str, target: &str) -> Self {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let folder = fuzz.join(kind).join(target);
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    pub fn write(&self, name: &str, first: &[u8], bytes: &[u8]) {
        let input = [first, bytes].concat();
        std::fs::write(self.0.join(name), input).expect("written");
    }
}

fn member(n: i32) -> MemberMetadata {
    MemberMetadata {
        member_id: format!("member-{n}"),
        group_instance_id: (n % 2 == 1).then(|| format!("static-{n}")),
        client_id: "rdkafka".to_owned(),
        client_host: "127.0.0.1".to_owned(),
        rebalance_timeout_ms: 300_000,
        session_timeout_ms: 45_000,
        subscription: bytes::Bytes::from_static(b"\0\x01\0\0\0\x01\0\x01t\xff\xff\xff\xff"),
        assignment: bytes::Bytes::from_static(b"\0\x01\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\0"),
    }
}

/// Writes the seeds that are made rather than recorded; those of `request` are made by
/// `broker/src/wire_shape_tests.rs`.
/// `cargo test -p tests --test fuzz_corpus -- --ignored`
#[test]
#[ignore = "writes to tests/fuzz/corpus"]
fn seeds_for_the_fuzzer() {
    batches();
    records();
    segments();
    snapshots();
    checkpoints();
    group_records();
    framing();
    model_folders();
}

/// Batches of every kind in a codec, by name.
fn of_every_kind(codec: Compression) -> [(&'static str, BatchBuilder); 3] {
    let mut plain = BatchBuilder::new(codec);
    let mut full = BatchBuilder::new(codec).producer(1000, 2, 3);
    let mut tiny = BatchBuilder::new(codec);
    let header = |key: &'static str, value: Option<&'static str>| Header {
        key: key.into(),
        value: value.map(Into::into),
    };
    let headers = [header("trace", Some("4bf92f35")), header("", None)];
    for n in 0..20 {
        plain.push(1_700_000_000_000 + n, None, Some(b"hello"), &[]);
        let (key, value) = (format!("key {n}"), "text ".repeat(n as usize));
        full.push(1_700_000_000_000 - n, Some(key.as_bytes()), None, &headers);
        full.push(n, None, Some(value.as_bytes()), &headers[..1]);
    }
    for _ in 0..10_000 {
        tiny.push(0, None, None, &[]);
    }
    [("plain", plain), ("full", full), ("tiny", tiny)]
}

fn batches() {
    let seeds = Seeds::of("batch");
    for (codec, compression) in CODECS {
        for (name, batch) in of_every_kind(compression) {
            if name != "tiny" || compression != Compression::None {
                let (file, bytes) = (format!("{name}-{codec}"), batch.build());
                seeds.write(&file, &[0], &bytes);
                seeds.write(&format!("{file}-resealed"), &[1], &bytes);
            }
        }
        // With keys alone, so that a compacted topic takes it; and into each codec.
        let mut keyed = BatchBuilder::new(compression).producer(1000, 0, 0);
        for n in 0..5 {
            let key = format!("key {n}");
            keyed.push(1_700_000_000_000, Some(key.as_bytes()), None, &[]);
        }
        let keyed = keyed.build();
        for target in 0..8 {
            let how = 1 | (target << 1) | 16;
            seeds.write(&format!("keyed-{codec}-to-{target}"), &[how], &keyed);
        }
        seeds.write(&format!("keyed-{codec}-by-broker"), &[1 | 32], &keyed);
        seeds.write(&format!("keyed-{codec}-recent"), &[1 | 64], &keyed);
    }
}

fn records() {
    let seeds = Seeds::of("records");
    let zeros = |count: usize| vec![0; count];
    for (n, (codec, compression)) in CODECS.into_iter().enumerate() {
        let n = n as u8;
        for (name, batch) in of_every_kind(compression) {
            let (batch, plain) = (batch.build(), name != "tiny");
            let count = Batch::parse(&batch).expect("a batch").records_count() as u16;
            let head = |how: u8| [how, count.to_be_bytes()[0], count.to_be_bytes()[1]];
            let records = &batch[layout::RECORDS..];
            if records.len() < 8_000 {
                seeds.write(&format!("{name}-{codec}"), &head(n), records);
                seeds.write(&format!("{name}-{codec}-by-broker"), &head(n | 8), records);
            }
            if plain && compression == Compression::None {
                for to in 1..CODECS.len() as u8 {
                    let name = format!("{name}-compressed-here-{to}");
                    seeds.write(&name, &head(128 | to), records);
                }
            }
        }
        // More than a batch may be opened to.
        let bomb = match compression {
            Compression::None => continue,
            Compression::Snappy => zeros(300 << 10),
            Compression::Lz4 => zeros(2 << 20),
            Compression::Gzip => zeros(8 << 20),
            Compression::Zstd => zeros(64 << 20),
        };
        let bomb = compress(compression, None, &bomb).expect("compresses");
        seeds.write(&format!("bomb-{codec}"), &[n, 0xff, 0xff], &bomb);
    }
    // A frame of one empty block whose window is said to be of 128 MiB, and two frames in a row.
    let wide = [0x28, 0xb5, 0x2f, 0xfd, 0, 0x88, 1, 0, 0];
    seeds.write("window-zstd", &[4, 0, 1], &wide);
    let twice = [wide, wide].concat();
    seeds.write("frames-zstd", &[4, 0, 1], &twice);
    let record = [12, 0, 0, 0, 1, 1, 0];
    let member = compress(Compression::Gzip, None, &record).expect("compresses");
    seeds.write("members-gzip", &[1, 0, 2], &member.repeat(2));
    // A raw block, as librdkafka sends it.
    let raw = [7, 24, 12, 0, 0, 0, 1, 1, 0];
    seeds.write("raw-snappy", &[2, 0, 1], &raw);
}

fn segments() {
    let seeds = Seeds::of("index");
    let sound = indexes::sound_log();
    let input = |how: u8, files: &indexes::Files, log: &[u8]| {
        let length = |bytes: &[u8]| (bytes.len() as u16).to_be_bytes();
        let (index, time_index) = (&files.index[..], &files.time_index[..]);
        let head = [length(index), length(time_index)].concat();
        [&[how][..], &head, index, time_index, log].concat()
    };
    for (n, (_, files)) in sound.segments.iter().enumerate() {
        for (name, how) in [
            ("unclean", 0),
            ("clean", 4),
            ("compacted", 12),
            ("from-the-end", 96),
        ] {
            let how = how | ((n as u8) << 1);
            seeds.write(
                &format!("sound-{n}-{name}"),
                &[],
                &input(how | 1, files, &[]),
            );
            if n == 0 {
                let log = input(how, files, &files.log);
                seeds.write(&format!("arbitrary-{name}"), &[], &log);
                let resealed = input(how | 16, files, &files.log);
                seeds.write(&format!("arbitrary-{name}-resealed"), &[], &resealed);
            }
        }
        let without = indexes::Files::default();
        seeds.write(
            &format!("missing-{n}"),
            &[],
            &input(1 | 4 | 128, &without, &[]),
        );
        seeds.write(&format!("empty-{n}"), &[], &input(1 | 4, &without, &[]));
    }
}

fn snapshots() {
    let seeds = Seeds::of("snapshot");
    let mut state = ProducerState::new();
    for producers in [0i64, 1, 5, 40] {
        for id in 0..producers {
            for first in 0..3 {
                let mut batch =
                    BatchBuilder::new(Compression::None).producer(id, (id % 3) as i16, first * 2);
                batch.push(0, None, None, &[]);
                batch.push(0, None, None, &[]);
                let batch = batch.build();
                let batch = Batch::parse(&batch).expect("a batch");
                state.update(&batch, 100 * id + i64::from(first), 1_700_000_000_000);
            }
        }
        let bytes = state.encode_snapshot();
        seeds.write(&format!("{producers}-producers"), &[0], &bytes);
        seeds.write(&format!("{producers}-producers-resealed"), &[1], &bytes);
    }
}

fn checkpoints() {
    let seeds = Seeds::of("checkpoint");
    let texts = [
        ("epochs", 0, "0\n3\n0 0\n1 10\n4 27\n"),
        ("epochs-none", 0, "0\n0\n"),
        ("epochs-back", 0, "0\n2\n3 10\n2 20\n"),
        (
            "metadata",
            1,
            "version: 0\ntopic_id: Zm9vYmFyZm9vYmFyZm9vYg",
        ),
        (
            "properties",
            2,
            "#Fri\nversion=1\nnode.id=0\ncluster.id=AAAAAAAAAAAAAAAAAAAAAQ\n\
             directory.id=Zm9vYmFyZm9vYmFyZm9vYg\n",
        ),
        (
            "properties-short",
            2,
            "version=1\nnode.id=-1\ncluster.id=\n",
        ),
        ("recovery-points", 3, "0\n2\nevents 0 42\nevents 1 0\n"),
        (
            "log-starts",
            4,
            "0\n1\n__consumer_offsets 49 9223372036854775807\n",
        ),
        ("high-watermarks", 5, "0\n0\n"),
        ("first-dirty-offsets", 6, "0\n1\nevents.changelog 0 1000\n"),
        ("a-count-that-lies", 5, "0\n99999999999\nevents 0 1\n"),
        ("windows", 3, "0\r\n1\r\nevents 0 42\r\n"),
        ("nothing", 3, ""),
    ];
    for (name, kind, text) in texts {
        seeds.write(name, &[kind], text.as_bytes());
    }
}

fn group_records() {
    let seeds = Seeds::of("group_records");
    let group = || "payments".to_owned();
    let keys = [
        Key::Offset {
            group: group(),
            topic: "transactions".to_owned(),
            partition: 3,
        },
        Key::Group { group: group() },
    ];
    for (n, key) in keys.iter().enumerate() {
        seeds.write(&format!("key-{n}"), &[0], &key.encode().expect("a key"));
    }
    for (n, expire_timestamp_ms) in [None, Some(1_800_000_000_000)].into_iter().enumerate() {
        let value = OffsetCommitValue {
            offset: 42,
            leader_epoch: 1,
            metadata: "noted".to_owned(),
            commit_timestamp_ms: 1_700_000_000_000,
            expire_timestamp_ms,
            topic_id: None,
        };
        let name = format!("offset-{n}");
        seeds.write(&name, &[1], &value.encode().expect("a value"));
    }
    for members in [0, 1, 5] {
        let value = GroupMetadataValue {
            protocol_type: "consumer".to_owned(),
            generation: 7,
            protocol: Some("range".to_owned()),
            leader: Some("member-0".to_owned()),
            current_state_timestamp_ms: 1_700_000_000_000,
            members: (0..members).map(member).collect(),
        };
        let name = format!("group-{members}");
        seeds.write(&name, &[2], &value.encode().expect("a value"));
    }
    for (n, state) in State::ALL.into_iter().enumerate() {
        let topics = ["payments", "scores"].map(str::to_owned);
        let partitions = topics
            .into_iter()
            .flat_map(|topic| [(topic.clone(), 0), (topic, 3)]);
        let value = TransactionalIdState {
            producer_id: 4_000,
            previous_producer_id: [-1, 3_000][n % 2],
            next_producer_id: [5_000, -1][n % 2],
            producer_epoch: 7,
            timeout_ms: 60_000,
            state,
            partitions: partitions.take(n).collect(),
            last_update_ms: 1_700_000_000_001,
            start_ms: 1_700_000_000_000,
            version: [TransactionVersion::V0, TransactionVersion::V2][n % 2],
        };
        let name = format!("transaction-{n}");
        seeds.write(&name, &[3], &value.encode().expect("a value"));
    }
}

fn framing() {
    let seeds = Seeds::of("framing");
    let frames: Vec<Vec<u8>> = std::fs::read_dir(Seeds::of("request").0)
        .expect("requests come first")
        .map(|file| std::fs::read(file.expect("a file").path()).expect("a request"))
        .collect();
    for (n, some) in frames.chunks(frames.len() / 10).enumerate() {
        let mut stream = Vec::new();
        for frame in some.iter().take(6) {
            stream.extend_from_slice(&(frame.len() as u32).to_be_bytes());
            stream.extend_from_slice(frame);
        }
        seeds.write(&format!("requests-{n}"), &[1 + 25 * n as u8], &stream);
    }
    seeds.write("a-length-that-lies", &[7], &[0, 15, 255, 255, 1, 2, 3]);
    seeds.write("a-length-over-the-limit", &[7], &[127, 255, 255, 255, 1]);
    seeds.write("a-negative-length", &[7], &[255, 255, 255, 255, 1]);
}
