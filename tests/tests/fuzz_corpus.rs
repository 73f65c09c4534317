//! The fuzzer's corpus, and whatever it once found, through the fuzzer's own entry points, on
//! stable: nothing panics, and nothing allocates more than the input is worth.

#[path = "../fuzz/allocations.rs"]
mod allocations;
#[path = "../fuzz/entry/batches.rs"]
mod batches;
#[path = "../fuzz/entry/broker.rs"]
mod broker_entry;
#[path = "../fuzz/folder.rs"]
mod folder;
#[path = "../fuzz/entry/indexes.rs"]
mod indexes;
#[path = "../fuzz/entry/log_files.rs"]
mod log_files;
#[path = "fuzz_corpus/model_seeds.rs"]
mod model_seeds;
#[path = "../fuzz/entry/models.rs"]
mod models;
#[path = "fuzz_corpus/seeds.rs"]
mod seeds;

use std::cell::Cell;
use std::path::Path;

use allocations::peak;
use storage::batch::{BatchBuilder, Compression, Opened};

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

/// Runs every input of a target, and so many mutations of them; none may allocate more than
/// `least + each * its length`.
fn replay(target: &str, enter: fn(&[u8]), mutations: usize, each: i64, least: i64) {
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
    let asked = std::env::var("MUTATIONS").ok().and_then(|n| n.parse().ok());
    for n in 0..asked.unwrap_or(mutations) {
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
    replay("framing", broker_entry::framing, 3_000, 8, 256 << 10);
}

#[test]
fn requests_of_the_corpus_allocate_in_proportion() {
    // An array's element takes at least two bytes on the wire and up to some hundred in memory.
    replay("request", broker_entry::request, 3_000, 200, 16 << 10);
}

#[test]
fn batches_of_the_corpus_allocate_what_they_may_be_opened_to() {
    // Opened bytes grow by doubling, and the codec has its own window beside them.
    let least = 8 * batches::MAX_DECOMPRESSED_BYTES as i64;
    replay("batch", batches::batch, 3_000, 8, least);
}

#[test]
fn group_records_of_the_corpus_allocate_in_proportion() {
    replay(
        "group_records",
        broker_entry::group_records,
        3_000,
        64,
        16 << 10,
    );
}

#[test]
fn records_of_the_corpus_hold_what_they_may_be_opened_to() {
    // The target itself bounds what is held while a batch is read; compressing it first comes on top.
    replay("records", batches::records, 3_000, 8, 32 << 20);
}

#[test]
fn segments_of_the_corpus_are_read_whole_or_not_at_all() {
    // What a start puts aside is copied by way of 1 MiB, and checked by way of another.
    replay("index", indexes::index, 150, 64, 8 << 20);
}

#[test]
fn snapshots_of_the_corpus_allocate_in_proportion() {
    replay("snapshot", log_files::snapshot, 3_000, 64, 16 << 10);
}

#[test]
fn checkpoints_of_the_corpus_allocate_in_proportion() {
    replay("checkpoint", log_files::checkpoint, 3_000, 64, 16 << 10);
}

thread_local! {
    static TELLS_SHORT: Cell<bool> = const { Cell::new(false) };
}

/// Panics of this thread are told without where they come from, which takes a hundred megabytes to find
/// out: the loader survives those of a tokenizer.
fn tell_panics_short() {
    TELLS_SHORT.set(true);
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if TELLS_SHORT.get() {
            eprintln!("{panic}");
        } else {
            usual(panic);
        }
    }));
}

#[test]
fn model_folders_of_the_corpus_allocate_in_proportion() {
    tell_panics_short();
    // A byte of a token is a node of some tokenizers' tries, which takes 400. Beside the sound files, rotations are
    // made for as many positions as a config says: four tables of up to 131,072 times 12 numbers.
    replay("model_folder", models::model_folder, 5_000, 500, 32 << 20);
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
