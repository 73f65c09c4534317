//! The fuzzer's corpus, and whatever it once found, through the fuzzer's own entry points, on
//! stable: nothing panics, and nothing allocates more than the input is worth.

#[path = "../fuzz/entry.rs"]
mod entry;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

use broker::group::records::{GroupMetadataValue, Key, MemberMetadata, OffsetCommitValue};
use storage::batch::{BatchBuilder, Compression, Header, Opened};

/// Counts what this thread has allocated.
struct Counting;

thread_local! {
    static ALLOCATED: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

fn count(bytes: i64) {
    // A thread that ends has nothing to count any more.
    let _ = ALLOCATED.try_with(|allocated| {
        allocated.set(allocated.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(allocated.get())));
    });
}

// SAFETY: all of it is the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller's promise is the same one.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller's promise is the same one.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: the caller's promise is the same one.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // Both may be there at the same time.
        count(new_size as i64);
        // SAFETY: the caller's promise is the same one.
        let moved = unsafe { System.realloc(pointer, layout, new_size) };
        count(-(layout.size() as i64));
        moved
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that is allocated at the same time while `run` runs, bytes.
fn peak(run: impl FnOnce()) -> i64 {
    let before = ALLOCATED.get();
    PEAK.set(before);
    run();
    PEAK.get() - before
}

/// A target's inputs by file.
fn inputs(target: &str) -> Vec<(String, Vec<u8>)> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let mut inputs = Vec::new();
    for folder in ["corpus", "regressions"] {
        let Ok(files) = std::fs::read_dir(fuzz.join(folder).join(target)) else {
            assert_eq!(folder, "regressions", "{target} has no corpus");
            continue;
        };
        for file in files {
            let path = file.expect("a file").path();
            let input = std::fs::read(&path).expect("an input");
            inputs.push((path.display().to_string(), input));
        }
    }
    inputs.sort();
    assert!(inputs.len() >= 5, "{target} has {} inputs", inputs.len());
    inputs
}

/// Runs every input of a target, and mutations of them; none may allocate more than
/// `least + each * its length`.
fn replay(target: &str, enter: fn(&[u8]), each: i64, least: i64) {
    // What is only set up once counts for nobody.
    enter(&[]);
    enter(&[0; 16]);
    let run = |name: &str, input: &[u8]| {
        let peak = peak(|| enter(input));
        let worth = least + each * input.len() as i64;
        assert!(
            peak <= worth,
            "{name}: {} bytes made it allocate {peak}, {worth} are granted: {input:02x?}",
            input.len()
        );
    };
    let inputs = inputs(target);
    for (name, input) in &inputs {
        run(name, input);
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    // More for a longer search: the seed is the same, so that what is found can be found again.
    let mutations = std::env::var("MUTATIONS").ok().and_then(|n| n.parse().ok());
    for n in 0..mutations.unwrap_or(3_000) {
        let (name, input) = &inputs[random.below(inputs.len())];
        let (_, other) = &inputs[random.below(inputs.len())];
        let mutated = mutated(input, other, &mut random);
        let name = format!("mutation {n} of {name}");
        let entered = std::panic::catch_unwind(|| run(&name, &mutated));
        if let Err(panic) = entered {
            eprintln!("{name}: {mutated:02x?}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// Numbers that look random and are the same in every run (xorshift64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// `input` with some bytes changed, cut out, doubled, or taken from `other`.
fn mutated(input: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    const LENGTHS: [&[u8]; 6] = [
        &[0xff, 0xff, 0xff, 0xff],
        &[0x7f, 0xff, 0xff, 0xff],
        &[0x80, 0, 0, 0],
        &[0x00, 0x0f, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0x7f, 0xff],
    ];
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len());
        let end = (at + random.below(16)).min(bytes.len());
        match random.below(8) {
            0 => drop(bytes.drain(at..end)),
            1 => {
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            2 => {
                let from = random.below(other.len());
                let part = other[from..(from + 32).min(other.len())].to_vec();
                bytes.splice(at..end, part);
            }
            3 | 4 => {
                let length = LENGTHS[random.below(LENGTHS.len())];
                for (byte, new) in bytes[at..].iter_mut().zip(length) {
                    *byte = *new;
                }
            }
            5 => bytes.truncate(at),
            _ => {
                let bit = 1 << random.below(8);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= bit;
                }
            }
        }
    }
    bytes
}

#[test]
fn connections_survive_the_corpus_and_allocate_what_they_read() {
    // A read buffer, and 64 KiB ahead of a length that is only announced.
    replay("framing", entry::framing, 8, 256 << 10);
}

#[test]
fn requests_of_the_corpus_allocate_in_proportion() {
    // An array's element takes at least two bytes on the wire and up to some hundred in memory.
    replay("request", entry::request, 200, 16 << 10);
}

#[test]
fn batches_of_the_corpus_allocate_what_they_may_be_opened_to() {
    // Opened bytes grow by doubling, and the codec has its own window beside them.
    let least = 8 * entry::MAX_DECOMPRESSED_BYTES as i64;
    replay("batch", entry::batch, 8, least);
}

#[test]
fn group_records_of_the_corpus_allocate_in_proportion() {
    replay("group_records", entry::group_records, 64, 16 << 10);
}

#[test]
fn a_batch_of_tiny_records_is_read_in_little_more_than_its_opened_bytes() {
    let mut builder = BatchBuilder::new(Compression::Zstd);
    for _ in 0..200_000 {
        builder.push(0, None, None, &[]);
    }
    let opened_bytes = builder.size_in_bytes() as i64;
    let batch = builder.build();
    assert!(batch.len() < 1 << 20, "{}", batch.len());
    let peak = peak(|| {
        let opened = Opened::open(&batch, 64 << 20).expect("a sound batch");
        assert_eq!(opened.times().filter(Result::is_ok).count(), 200_000);
        let records = opened.records().map(|record| record.expect("a record"));
        assert_eq!(records.map(|record| record.offset).max(), Some(199_999));
    });
    assert!(peak < 4 * opened_bytes, "{peak} for {opened_bytes}");
}

#[test]
fn the_allocator_counts() {
    assert!((1000..2000).contains(&peak(|| drop(std::hint::black_box(vec![0u8; 1000])))));
    let grown = peak(|| {
        let mut bytes = Vec::with_capacity(1000);
        bytes.resize(3000, 1u8);
        drop(std::hint::black_box(bytes));
    });
    assert!(grown >= 4000, "{grown}");
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
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let write = |target: &str, name: &str, first: u8, bytes: &[u8]| {
        let folder = corpus.join(target);
        std::fs::create_dir_all(&folder).expect("a folder");
        let input = [&[first][..], bytes].concat();
        std::fs::write(folder.join(name), input).expect("written");
    };
    for (codec, compression) in [
        ("none", Compression::None),
        ("gzip", Compression::Gzip),
        ("snappy", Compression::Snappy),
        ("lz4", Compression::Lz4),
        ("zstd", Compression::Zstd),
    ] {
        let mut plain = BatchBuilder::new(compression);
        let mut full = BatchBuilder::new(compression).producer(1000, 2, 3);
        let mut tiny = BatchBuilder::new(compression);
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
        for (name, batch) in [("plain", plain), ("full", full), ("tiny", tiny)] {
            if name != "tiny" || compression != Compression::None {
                let (file, bytes) = (format!("{name}-{codec}"), batch.build());
                write("batch", &file, 0, &bytes);
                write("batch", &format!("{file}-resealed"), 1, &bytes);
            }
        }
    }
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
        write(
            "group_records",
            &format!("key-{n}"),
            0,
            &key.encode().expect("a key"),
        );
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
        write("group_records", &name, 1, &value.encode().expect("a value"));
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
        write("group_records", &name, 2, &value.encode().expect("a value"));
    }
    let frames: Vec<Vec<u8>> = std::fs::read_dir(corpus.join("request"))
        .expect("requests come first")
        .map(|file| std::fs::read(file.expect("a file").path()).expect("a request"))
        .collect();
    for (n, some) in frames.chunks(frames.len() / 10).enumerate() {
        let mut stream = Vec::new();
        for frame in some.iter().take(6) {
            stream.extend_from_slice(&(frame.len() as u32).to_be_bytes());
            stream.extend_from_slice(frame);
        }
        write(
            "framing",
            &format!("requests-{n}"),
            1 + 25 * n as u8,
            &stream,
        );
    }
    write(
        "framing",
        "a-length-that-lies",
        7,
        &[0, 15, 255, 255, 1, 2, 3],
    );
    write(
        "framing",
        "a-length-over-the-limit",
        7,
        &[127, 255, 255, 255, 1],
    );
    write("framing", "a-negative-length", 7, &[255, 255, 255, 255, 1]);
}
