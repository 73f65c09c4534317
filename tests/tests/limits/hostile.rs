//! Clients that are slow, silent, greedy or wrong: each ends, the broker stays within its bound, and
//! an ordinary client does not notice.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::{ApiVersionsRequest, DescribeConfigsRequest, MetadataRequest};
use kafka_protocol::protocol::StrBytes;
use tests::{Milena, PATIENCE};

use crate::raw::{call, connect, is_closed_within, is_served, receive, request, try_call};

const MB: u64 = 1024 * 1024;
/// `connections.max.idle.ms` where a test waits for it.
const SHORT_IDLE: Duration = Duration::from_secs(2);

/// The most that the process's own memory was while `act` ran, and an ordinary client's slowest
/// round trip.
fn watched(milena: &Milena, act: impl FnOnce()) -> (u64, Duration) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut client = connect(milena);
            let request = MetadataRequest::default().with_topics(Some(Vec::new()));
            let (mut most, mut slowest) = (0, Duration::ZERO);
            let mut asked = Instant::now();
            while !done.load(Ordering::Relaxed) {
                let begin = Instant::now();
                if let Err(error) = try_call(&mut client, 12, &request) {
                    // On a machine that is busy a client may be idle for long enough to be closed.
                    assert!(asked.elapsed() > SHORT_IDLE / 2, "not served: {error}");
                    client = connect(milena);
                }
                asked = Instant::now();
                slowest = slowest.max(begin.elapsed());
                most = most.max(milena.resident_bytes().1);
                std::thread::sleep(Duration::from_millis(20));
            }
            (most, slowest)
        });
        act();
        done.store(true, Ordering::Relaxed);
        watching.join().expect("an ordinary client is served")
    })
}

#[test]
fn silent_and_slow_connections_close_in_time() {
    let milena = Milena::start_with_broker("connections_max_idle_ms = 1000", "");
    let mut silent = connect(&milena);
    let mut half = connect(&milena);
    half.write_all(&[0, 0, 0, 100, 0, 18, 0, 0]).expect("sent");
    let mut slow = connect(&milena);
    slow.write_all(&1000i32.to_be_bytes()).expect("sent");
    let slow_writer = slow.try_clone().expect("a handle");
    let trickling = std::thread::spawn(move || trickle(slow_writer));
    // As long as it asks, a connection stays.
    let mut busy = connect(&milena);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(2500) {
        assert!(is_served(&mut busy), "after {:?}", begin.elapsed());
        std::thread::sleep(Duration::from_millis(100));
    }
    for stream in [&mut silent, &mut half, &mut slow] {
        assert!(is_closed_within(stream, PATIENCE));
    }
    assert!(trickling.join().expect("no panic"), "it goes on for ever");
    tests::eventually("the log says why", || {
        milena.log().contains("is not complete after").then_some(())
    });
}

/// Sends a byte now and then until nobody takes it.
fn trickle(mut stream: TcpStream) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        if stream.write_all(&[0]).is_err() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    false
}

#[test]
fn a_request_over_the_limit_closes_its_connection_and_one_at_the_limit_is_served() {
    let milena = Milena::start_with_broker("socket_request_max_bytes = 100000", "");
    // A request that is exactly so large: its last field is followed by bytes that are ignored.
    let mut largest = request(0, 7, &ApiVersionsRequest::default());
    largest.resize(100_004, 0);
    largest[..4].copy_from_slice(&100_000i32.to_be_bytes());
    let mut stream = connect(&milena);
    stream.write_all(&largest).expect("sent");
    assert!(receive(&mut stream).is_ok());
    stream.write_all(&100_001i32.to_be_bytes()).expect("sent");
    assert!(is_closed_within(&mut stream, PATIENCE));
    tests::eventually("the log says why", || {
        let log = milena.log();
        log.contains("socket.request.max.bytes").then_some(())
    });
}

#[test]
fn garbage_on_many_connections_hurts_nobody() {
    let milena = Milena::start("");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let (most, slowest) = watched(&milena, || {
        for _ in 0..2000 {
            let mut stream = connect(&milena);
            let bytes: Vec<u8> = (0..random() % 500 + 4).map(|_| random() as u8).collect();
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(Shutdown::Write);
        }
    });
    eprintln!("garbage: {} MB, slowest round trip {slowest:?}", most / MB);
    assert!(most < 100 * MB, "{most} bytes");
    let lines = milena.log().lines().count();
    assert!(lines < 1000, "{lines} lines of log");
}

#[test]
fn lengths_that_lie_on_many_connections_cost_next_to_nothing() {
    let milena = Milena::start("");
    let before = milena.resident_bytes().1;
    let mut streams: Vec<TcpStream> = (0..1000).map(|_| connect(&milena)).collect();
    let (most, slowest) = watched(&milena, || {
        for stream in &mut streams {
            stream
                .write_all(&100_000_000i32.to_be_bytes())
                .expect("sent");
            stream.write_all(&[0; 100]).expect("sent");
        }
        std::thread::sleep(Duration::from_millis(500));
    });
    let grown = most.saturating_sub(before);
    eprintln!(
        "lies: {} MB more, slowest round trip {slowest:?}",
        grown / MB
    );
    // 8 KiB are reserved ahead for each.
    assert!(grown < 30 * MB, "{grown} bytes");
}

#[test]
fn half_sent_requests_stay_within_the_budget_and_do_not_stop_others() {
    const BUDGET: u64 = 32 * MB;
    const REQUEST: usize = 8 * MB as usize;
    const STUCK: usize = 40;
    let milena = Milena::start_with_broker(
        &format!(
            "socket_request_max_bytes = {REQUEST}\nqueued_max_request_bytes = {BUDGET}\n\
             connections_max_idle_ms = 2000"
        ),
        "[[topic]]\nname = \"t\"\n",
    );
    let before = milena.resident_bytes().1;
    let part = vec![0; REQUEST / 4 * 3];
    let closed = AtomicUsize::new(0);
    let (most, slowest) = watched(&milena, || {
        std::thread::scope(|scope| {
            for _ in 0..STUCK {
                scope.spawn(|| {
                    let mut stream = connect(&milena);
                    let len = (REQUEST as i32).to_be_bytes();
                    // What is not read is not taken: the write waits, until the connection closes.
                    let _ = stream
                        .write_all(&len)
                        .and_then(|()| stream.write_all(&part));
                    closed.fetch_add(
                        usize::from(is_closed_within(&mut stream, PATIENCE)),
                        Ordering::Relaxed,
                    );
                });
            }
            // One that is sent whole among them.
            let produced = Instant::now();
            let config = [("acks", "all"), ("message.max.bytes", "1000000")];
            let producer: rdkafka::producer::BaseProducer = milena.client_with(&config);
            let payload = vec![7; 500_000];
            let record = rdkafka::producer::BaseRecord::<[u8], [u8]>::to("t").payload(&payload);
            producer.send(record).map_err(|(e, _)| e).expect("queued");
            rdkafka::producer::Producer::flush(&producer, PATIENCE).expect("delivered");
            eprintln!("produced among them in {:?}", produced.elapsed());
        });
    });
    let grown = most.saturating_sub(before);
    eprintln!(
        "half-sent: {} MB more, slowest round trip {slowest:?}",
        grown / MB
    );
    assert_eq!(closed.into_inner(), STUCK);
    // The budget, one request beyond it, copies when buffers grow, what the allocator keeps.
    assert!(grown < 2 * BUDGET + 2 * REQUEST as u64, "{grown} bytes");
    assert_eq!(milena.ends("t")[&0], 1);
    let held = tests::eventually("nothing is held", || {
        let held = milena.metric("milena_request_memory_bytes");
        (held < 1e6).then_some(held)
    });
    assert!(held < 1e6);
}

/// The broker's own configs with their documentation: about 10 KB.
fn describe_configs() -> DescribeConfigsRequest {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(4)
        .with_resource_name(StrBytes::from_static_str("0"));
    DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true)
        .with_include_documentation(true)
}

#[test]
fn clients_that_never_read_are_closed_and_hold_little() {
    const BUDGET: u64 = 2 * MB;
    let milena = Milena::start_with_broker(
        &format!("queued_max_response_bytes = {BUDGET}\nconnections_max_idle_ms = 2000"),
        "[[topic]]\nname = \"wide\"\npartitions = 200\n",
    );
    let mut client = connect(&milena);
    let metadata = MetadataRequest::default().with_topics(None);
    for _ in 0..3 {
        call(&mut client, 12, &metadata);
    }
    let before = milena.resident_bytes().1;
    let asked = AtomicUsize::new(0);
    let (most, slowest) = watched(&milena, || {
        std::thread::scope(|scope| {
            for n in 0..30 {
                let one = if n % 2 == 0 {
                    request(12, 7, &metadata)
                } else {
                    request(4, 7, &describe_configs())
                };
                let (milena, asked) = (&milena, &asked);
                scope.spawn(move || {
                    let mut stream = connect(milena);
                    // Asks for ever; ends when it is closed.
                    let begin = Instant::now();
                    while begin.elapsed() < PATIENCE && stream.write_all(&one).is_ok() {
                        asked.fetch_add(1, Ordering::Relaxed);
                    }
                    assert!(begin.elapsed() < PATIENCE, "it is never closed");
                });
            }
        });
    });
    let grown = most.saturating_sub(before);
    eprintln!(
        "never read: {} requests, {} MB more, slowest round trip {slowest:?}",
        asked.into_inner(),
        grown / MB
    );
    // The budget, what each connection has without it, what is being answered.
    assert!(grown < 3 * BUDGET + 40 * MB, "{grown} bytes");
    tests::eventually("nothing is held", || {
        (milena.metric("milena_response_memory_bytes") == 0.0).then_some(())
    });
}
