//! All of it at once, for some minutes. `.ci/long` runs it on a release build:
//!
//! ```text
//! cargo test --release -p tests --test limits -- --ignored --nocapture
//! ```

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kafka_protocol::messages::MetadataRequest;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use tests::{Milena, PATIENCE};

use crate::raw::{connect, is_closed_within, raise_open_files, request, try_call};

const MB: u64 = 1024 * 1024;
const DURATION: Duration = Duration::from_secs(120);
/// `queued.max.request.bytes` and `milena.queued.max.response.bytes`.
const REQUESTS: u64 = 128 * MB;
const RESPONSES: u64 = 32 * MB;
/// `socket.request.max.bytes`.
const LARGEST: u64 = 32 * MB;
/// What a connection may hold beside them.
const CONNECTION: u64 = 40 * 1024;
/// What the broker has without clients, partitions and their files included, and what its allocator keeps.
const REST: u64 = 128 * MB;

/// Who is hostile how, and how often so far.
struct Hostile<'a> {
    milena: &'a Milena,
    done: &'a AtomicBool,
    attempts: &'a AtomicUsize,
}

impl Hostile<'_> {
    /// Opens connections for `act` until the time is over.
    fn go_on(&self, mut act: impl FnMut(&mut TcpStream) -> std::io::Result<()>) {
        while !self.done.load(Ordering::Relaxed) {
            let Ok(mut stream) = crate::raw::try_connect(self.milena) else {
                std::thread::sleep(Duration::from_millis(10));
                continue;
            };
            self.attempts.fetch_add(1, Ordering::Relaxed);
            let _ = act(&mut stream);
        }
    }

    fn garbage(&self) {
        let mut n = 0u64;
        self.go_on(|stream| {
            n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            stream.write_all(&n.to_be_bytes().repeat(20))?;
            stream.shutdown(Shutdown::Write)?;
            std::thread::sleep(Duration::from_millis(2));
            Ok(())
        });
    }

    /// Sends all but the end of a request, and waits to be closed.
    fn half_sent(&self, len: usize) {
        let part = vec![0; len / 10 * 9];
        self.go_on(|stream| {
            stream.write_all(&(len as i32).to_be_bytes())?;
            stream.write_all(&part)?;
            self.wait_for_close(stream);
            Ok(())
        });
    }

    /// Announces a request, and sends a byte now and then.
    fn trickle(&self, len: usize) {
        self.go_on(|stream| {
            stream.write_all(&(len as i32).to_be_bytes())?;
            while !self.done.load(Ordering::Relaxed) {
                stream.write_all(&[0])?;
                std::thread::sleep(Duration::from_millis(500));
            }
            Ok(())
        });
    }

    /// Asks for ever and reads nothing.
    fn never_read(&self) {
        let one = request(12, 7, &MetadataRequest::default().with_topics(None));
        self.go_on(|stream| {
            stream.set_write_timeout(Some(Duration::from_millis(200)))?;
            while !self.done.load(Ordering::Relaxed) {
                match stream.write_all(&one) {
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    other => other?,
                }
            }
            Ok(())
        });
    }

    fn wait_for_close(&self, stream: &mut TcpStream) {
        while !self.done.load(Ordering::Relaxed)
            && !is_closed_within(stream, Duration::from_millis(200))
        {}
    }
}

#[test]
#[ignore = "takes minutes"]
fn hostile_clients_of_every_kind_do_not_make_the_broker_grow_or_stop() {
    let files = usize::try_from(raise_open_files()).unwrap_or(usize::MAX);
    let idle = (files / 4 * 3).saturating_sub(1000).min(10_000);
    let milena = Milena::start_with_broker(
        &format!(
            "max_connections = 12000\nsocket_request_max_bytes = {LARGEST}\n\
             queued_max_request_bytes = {REQUESTS}\nqueued_max_response_bytes = {RESPONSES}"
        ),
        "[[topic]]\nname = \"load\"\npartitions = 8\n\
         [[topic]]\nname = \"wide\"\npartitions = 1000\n",
    );
    let before = milena.resident_bytes();
    let begin = Instant::now();
    let _idle: Vec<TcpStream> = (0..idle).map(|_| connect(&milena)).collect();
    eprintln!(
        "{idle} idle connections in {:?}: {} MB",
        begin.elapsed(),
        milena.resident_bytes().1 / MB
    );
    let (done, attempts) = (AtomicBool::new(false), AtomicUsize::new(0));
    let hostile = Hostile {
        milena: &milena,
        done: &done,
        attempts: &attempts,
    };
    let mut most = (0, 0);
    let mut round_trips = Vec::new();
    let mut sent = 0u64;
    std::thread::scope(|scope| {
        let hostile = &hostile;
        for _ in 0..4 {
            scope.spawn(|| hostile.garbage());
        }
        for n in 0..60 {
            let len = [900_000, 10_000_000, LARGEST as usize][n % 3];
            scope.spawn(move || hostile.half_sent(len));
            scope.spawn(move || hostile.trickle(len));
        }
        for _ in 0..60 {
            scope.spawn(|| hostile.never_read());
        }
        let producer: ThreadedProducer<DefaultProducerContext> =
            milena.client_with(&[("acks", "all"), ("linger.ms", "5")]);
        let mut client = connect(&milena);
        let ask = MetadataRequest::default().with_topics(Some(Vec::new()));
        let payload = [7u8; 1000];
        while begin.elapsed() < DURATION {
            for _ in 0..100 {
                let record = BaseRecord::<[u8], [u8]>::to("load").payload(&payload);
                tests::send(&producer, record);
                sent += 1;
            }
            let asked = Instant::now();
            if try_call(&mut client, 12, &ask).is_err() {
                client = connect(&milena);
            }
            round_trips.push(asked.elapsed());
            let (rss, anonymous) = milena.resident_bytes();
            most = (most.0.max(rss), most.1.max(anonymous));
            std::thread::sleep(Duration::from_millis(20));
        }
        producer.flush(PATIENCE).expect("every record is delivered");
        done.store(true, Ordering::Relaxed);
    });
    round_trips.sort_unstable();
    let at = |share: f64| round_trips[(round_trips.len() as f64 * share) as usize];
    let connections = milena.metric("milena_connections_accepted_total");
    let bound = REST + REQUESTS + 2 * LARGEST + MB + RESPONSES + 12_000 * CONNECTION;
    eprintln!(
        "{DURATION:?}: {} hostile connections, {connections} in all, {sent} records produced; \
         RSS / own memory before {} / {} MB, at most {} / {} MB (bound of the own: {} MB); round trip \
         p50 {:?}, p99 {:?}, max {:?}",
        attempts.load(Ordering::Relaxed),
        before.0 / MB,
        before.1 / MB,
        most.0 / MB,
        most.1 / MB,
        bound / MB,
        at(0.5),
        at(0.99),
        round_trips[round_trips.len() - 1],
    );
    assert!(most.1 <= bound, "{} bytes, at most {bound}", most.1);
    let ends: i64 = milena.ends("load").values().sum();
    assert_eq!(ends as u64, sent, "every record once");
    tests::eventually("nothing is held", || {
        let held = milena.metric("milena_request_memory_bytes")
            + milena.metric("milena_response_memory_bytes");
        (held < 1e6).then_some(())
    });
}
