//! How long an append takes while something else goes on in the same data folder.
//!
//! A producer appends batches of 16 KiB at a fixed rate (2,000 a second to the page cache, 500 a second
//! that each wait for the disk), and counts from the moment at which a batch was due: what is held up
//! holds up those behind it. Meanwhile
//!
//! - nothing else happens (*alone*), or
//! - another thread compacts another log (*compaction*), or
//! - another thread takes segments from the producer's own log and from a large one, twenty times a
//!   second (*retention*), or
//! - another thread copies as many bytes as the compaction reads, to a file that it syncs, and computes
//!   their CRC-32C (*bare copy*): what any other work of that size costs on the machine.
//!
//! These take turns in every round. A figure is the median over the rounds of a round's percentile, a
//! ratio the median of each round's ratio to its *alone*.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use storage::batch::Compression;
use storage::partition_log::Durability;
use storage::{LogConfig, LogDir, PartitionLog};

use super::Options;
use super::compaction::{Keyed, compactor};
use super::figures::Rounds;
use super::fixture::{Ring, open_dir, open_log};
use crate::statistics::percentile;

const RECORD_BYTES: usize = 1 << 10;
const BATCH_BYTES: usize = 16 << 10;
/// Of the log that loses them.
const SEGMENT_BYTES: u64 = 4 << 20;
/// The producer's log keeps so many of its own.
const SEGMENTS_KEPT: u64 = 4;
const RETENTION_EVERY: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meanwhile {
    Alone,
    Compaction,
    Retention,
    Copy,
}

const MEANWHILE: [(Meanwhile, &str); 4] = [
    (Meanwhile::Alone, "alone"),
    (Meanwhile::Compaction, "compaction"),
    (Meanwhile::Retention, "retention"),
    (Meanwhile::Copy, "bare copy"),
];

/// Prints the table.
pub fn run(options: &Options) {
    println!(
        "| appends that are done | meanwhile | p50 | p99 | p99 beside alone |\n|---|---|---|---|---|"
    );
    precise_sleeps();
    let keyed = Keyed::new(Compression::None, options.bytes() / 2);
    let mut ring = Ring::new(RECORD_BYTES, BATCH_BYTES);
    for durability in [Durability::PageCache, Durability::Disk] {
        let mut figures: [(Rounds, Rounds); 4] = Default::default();
        for _ in 0..options.rounds {
            let mut alone = (f64::NAN, f64::NAN);
            for ((meanwhile, _), (p50, p99)) in MEANWHILE.iter().zip(&mut figures) {
                let times = appends(options, &mut ring, &keyed, *meanwhile, durability);
                let found = (percentile(&times, 0.5), percentile(&times, 0.99));
                if *meanwhile == Meanwhile::Alone {
                    alone = found;
                }
                p50.push(found.0, alone.0);
                p99.push(found.1, alone.1);
            }
        }
        let done = match durability {
            Durability::PageCache => "in the page cache",
            Durability::Disk => "on the disk",
        };
        for ((_, meanwhile), (p50, p99)) in MEANWHILE.iter().zip(&figures) {
            println!(
                "| {done} | {meanwhile} | {:.0} µs | {:.0} µs | {:.2} |",
                p50.ours(),
                p99.ours(),
                p99.percent() / 100.0
            );
        }
    }
}

/// What appends took, in µs.
fn appends(
    options: &Options,
    ring: &mut Ring,
    keyed: &Keyed,
    meanwhile: Meanwhile,
    durability: Durability,
) -> Vec<f64> {
    let folder = options.folder();
    let dir = open_dir(folder.path());
    let config = LogConfig {
        segment_bytes: SEGMENT_BYTES,
        retention_bytes: (SEGMENTS_KEPT * SEGMENT_BYTES) as i64,
        file_delete_delay_ms: 0,
        ..LogConfig::default()
    };
    let log = open_log(&dir, 0, config.clone());
    let large = match meanwhile {
        Meanwhile::Compaction => {
            keyed.append(&dir, 1);
            None
        }
        Meanwhile::Retention => Some(fill(&dir, ring, options.bytes() / 2, &config)),
        Meanwhile::Copy => {
            std::fs::write(folder.path().join("copied"), vec![7; 1 << 20]).expect("writes");
            None
        }
        Meanwhile::Alone => None,
    };
    let seconds = Duration::from_secs_f64(options.seconds);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            match (meanwhile, &large) {
                (Meanwhile::Alone, _) => std::thread::sleep(seconds),
                (Meanwhile::Compaction, _) => {
                    let compacted = dir.compact_next(&mut compactor());
                    let compacted = compacted.expect("a log is to be compacted");
                    compacted.outcome.expect("it is compacted");
                }
                (Meanwhile::Retention, Some(large)) => retain(&dir, large, &config, seconds),
                (Meanwhile::Retention, None) => unreachable!("it was filled"),
                (Meanwhile::Copy, _) => copy(folder.path(), options.bytes() / 2),
            }
            done.store(true, Ordering::Release);
        });
        let times = produce(&log, ring, durability, &done);
        other.join().expect("the other thread is done");
        times
    })
}

fn produce(
    log: &PartitionLog,
    ring: &mut Ring,
    durability: Durability,
    done: &AtomicBool,
) -> Vec<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let interval = match durability {
        Durability::PageCache => Duration::from_micros(500),
        Durability::Disk => Duration::from_millis(2),
    };
    let mut times = Vec::new();
    let mut due = Instant::now();
    while !done.load(Ordering::Acquire) {
        for batch in ring.stamped() {
            due += interval;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let appended = log.append(batch).expect("appends");
            let waited = log.wait(appended.last_offset + 1, durability);
            runtime.block_on(waited).expect("syncs");
            times.push(due.elapsed().as_secs_f64() * 1e6);
            if done.load(Ordering::Acquire) {
                break;
            }
        }
    }
    times
}

/// A log of about `bytes`, all of it on the device.
fn fill(dir: &LogDir, ring: &mut Ring, bytes: u64, config: &LogConfig) -> Arc<PartitionLog> {
    let config = LogConfig {
        retention_bytes: -1,
        ..config.clone()
    };
    let log = open_log(dir, 1, config);
    while log.size_bytes() < bytes {
        for batch in ring.stamped() {
            log.append(batch).expect("appends");
        }
    }
    dir.checkpoint().expect("checkpoints");
    log
}

/// Takes all of a large log, bit by bit, and of the producer's what it does not keep.
fn retain(dir: &LogDir, large: &PartitionLog, config: &LogConfig, seconds: Duration) {
    let begun = Instant::now();
    let bytes = large.size_bytes() as f64;
    while begun.elapsed() < seconds {
        std::thread::sleep(RETENTION_EVERY);
        let left = 1.0 - begun.elapsed().as_secs_f64() / seconds.as_secs_f64();
        large.set_config(Arc::new(LogConfig {
            retention_bytes: (bytes * left) as i64,
            ..config.clone()
        }));
        for retained in dir.apply_retention() {
            retained.log_start_offset.expect("segments go");
        }
    }
    assert!(large.offsets().log_start_offset > 0, "segments have gone");
}

/// Copies `bytes` from a file in the page cache, 1 MiB at a time.
fn copy(folder: &Path, bytes: u64) {
    let from = File::open(folder.join("copied")).expect("the file opens");
    let to = File::create_new(folder.join("copy")).expect("the file is created");
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    while done < bytes {
        from.read_exact_at(&mut buffer, 0).expect("reads");
        std::hint::black_box(crc32c::crc32c(&buffer));
        to.write_all_at(&buffer, done).expect("writes");
        done += buffer.len() as u64;
    }
    to.sync_data().expect("syncs");
}

/// Has sleeps of this thread end when they should, and not up to 50 µs later.
fn precise_sleeps() {
    // SAFETY: this option takes a number, and changes nothing but the thread's timers.
    let result = unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_u64, 0_u64, 0_u64, 0_u64) };
    assert_eq!(result, 0, "the timer slack is set");
}
