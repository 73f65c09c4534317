//! Start to first answered request with 1,000 partitions and 5 GB of log, and resident memory idle
//! and under load.
//!
//! ```text
//! cargo run --release -p benches --bin footprint
//! ```
//!
//! Medians of [`ROUNDS`] starts. *First answer* is the time from `exec` to the whole response to an
//! ApiVersions request over TCP. Memory is the kernel's: `RSS` counts mapped log files that happen
//! to be in the page cache, `anonymous` is the process's own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
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
    let peak = load(&milena);
    println!(
        "| memory while {} GB are produced, peak: RSS / anonymous | {} MB / {} MB |",
        LOG_BYTES / 1_000_000_000,
        peak.0 / 1_000,
        peak.1 / 1_000
    );
    let what = format!("start to first answer, {PARTITIONS} partitions and 5 GB, after");
    row(&format!("{what} a clean stop"), &starts(&mut milena, false));
    memory(&milena, "idle, 1,000 partitions and 5 GB");
    row(&format!("{what} kill -9"), &starts(&mut milena, true));
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
            first_answer(milena);
            started.elapsed().as_secs_f64() * 1e3
        })
        .collect()
}

fn first_answer(milena: &Milena) {
    // ApiVersions v0, correlation id 1, no client id.
    const REQUEST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        assert!(Instant::now() < deadline, "no answer:\n{}", milena.log());
        if let Ok(mut stream) = TcpStream::connect(milena.bootstrap()) {
            let mut length = [0; 4];
            stream.write_all(&REQUEST).expect("sent");
            stream.read_exact(&mut length).expect("an answer");
            let mut body = vec![0; u32::from_be_bytes(length) as usize];
            stream.read_exact(&mut body).expect("the whole answer");
            return;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
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
        let mut record = BaseRecord::<[u8], [u8]>::to("load")
            .payload(&payload)
            .partition(partition);
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) => {
                    record = returned;
                    std::thread::sleep(Duration::from_micros(500));
                }
                Err((error, _)) => panic!("produce: {error}"),
            }
        }
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

fn resident_kb(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| {
                line.strip_prefix(name)?
                    .split_whitespace()
                    .next()?
                    .parse()
                    .ok()
            })
            .unwrap_or(0)
    };
    (field("VmRSS:"), field("RssAnon:"))
}
