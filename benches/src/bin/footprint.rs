//! Start to first answered request with 1,000 partitions and 5 GB of log, resident memory idle and
//! under load, and what the load cost.
//!
//! ```text
//! cargo run --release -p benches --bin footprint
//! ```
//!
//! Medians of [`ROUNDS`] starts. *First answer* is the time from `exec` to the whole response to an
//! ApiVersions request over TCP. Memory is the kernel's: `RSS` counts mapped log files that happen
//! to be in the page cache, `anonymous` is the process's own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use benches::process;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use tests::Milena;

const ROUNDS: usize = 5;
const PARTITIONS: i32 = 1_000;
const LOG_BYTES: u64 = 5_000_000_000;
const RECORD_BYTES: usize = 1_024;

fn main() {
    println!("| what | figure |\n|---|---|");
    let mut empty = Milena::start("");
    row("start to first answer, empty", &starts(&mut empty, false));
    memory(&empty, "idle, empty");
    drop(empty);

    let mut milena = Milena::start(&format!(
        "[[topic]]\nname = \"load\"\npartitions = {PARTITIONS}\n"
    ));
    let started = Instant::now();
    let peak = load(&milena);
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds(&milena));
    let gigabytes = LOG_BYTES as f64 / 1e9;
    println!(
        "| {gigabytes} GB produced in 1 KiB records to {PARTITIONS} partitions, acks=1 | \
         {:.0} MB/s, {:.2} CPU-s/GB of the broker |",
        gigabytes * 1e3 / seconds,
        cpu / gigabytes
    );
    println!(
        "| memory meanwhile, peak: RSS / anonymous | {} MB / {} MB |",
        peak.0 / 1_000,
        peak.1 / 1_000
    );
    let what = format!("start to first answer, {PARTITIONS} partitions and 5 GB, after");
    row(
        &format!("{what} kill -9 before a checkpoint: all is scanned"),
        &starts(&mut milena, true),
    );
    row(&format!("{what} a clean stop"), &starts(&mut milena, false));
    memory(&milena, "idle, 1,000 partitions and 5 GB");
}

/// Milliseconds, one for each start.
fn starts(milena: &mut Milena, kill: bool) -> Vec<f64> {
    (0..ROUNDS)
        .map(|_| {
            if kill {
                milena.kill();
            } else {
                assert!(milena.stop().success(), "{}", milena.log());
            }
            let started = Instant::now();
            milena.spawn();
            milena.wait_until_it_answers();
            started.elapsed().as_secs_f64() * 1e3
        })
        .collect()
}

/// Produces the log, and returns the peak of (RSS, anonymous) in kB.
fn load(milena: &Milena) -> (u64, u64) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut peak = (0, 0);
            while !done.load(Ordering::Relaxed) {
                let (rss, anonymous) = resident_kb(milena.pid());
                peak = (peak.0.max(rss), peak.1.max(anonymous));
                std::thread::sleep(Duration::from_millis(50));
            }
            peak
        });
        produce(milena);
        done.store(true, Ordering::Relaxed);
        watching.join().expect("the watcher")
    })
}

fn produce(milena: &Milena) {
    let producer: ThreadedProducer<DefaultProducerContext> = milena.client_with(&[
        ("acks", "1"),
        ("linger.ms", "5"),
        ("sticky.partitioning.linger.ms", "0"),
        ("queue.buffering.max.kbytes", "262144"),
    ]);
    let payload = vec![b'x'; RECORD_BYTES];
    for n in 0..LOG_BYTES / RECORD_BYTES as u64 {
        // Runs of records to one partition, so that batches fill.
        let partition = (n / 64 % PARTITIONS as u64) as i32;
        let record = BaseRecord::<[u8], [u8]>::to("load")
            .payload(&payload)
            .partition(partition);
        tests::send(&producer, record);
    }
    producer
        .flush(Duration::from_secs(300))
        .expect("every record is delivered");
}

fn row(what: &str, times_ms: &[f64]) {
    let mut sorted = times_ms.to_vec();
    sorted.sort_by(f64::total_cmp);
    println!(
        "| {what}: median (min-max) | {:.1} ms ({:.1}-{:.1}) |",
        sorted[sorted.len() / 2],
        sorted[0],
        sorted[sorted.len() - 1]
    );
}

fn memory(milena: &Milena, what: &str) {
    std::thread::sleep(Duration::from_secs(1));
    let (rss, anonymous) = resident_kb(milena.pid());
    println!(
        "| memory {what}: RSS / anonymous | {} MB / {} MB |",
        rss / 1_000,
        anonymous / 1_000
    );
}

fn cpu_seconds(milena: &Milena) -> f64 {
    process::cpu_seconds(milena.pid()).expect("the broker runs")
}

fn resident_kb(pid: u32) -> (u64, u64) {
    let memory = process::memory(pid).unwrap_or_default();
    (memory.resident / 1024, memory.anonymous / 1024)
}
