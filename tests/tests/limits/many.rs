//! Ten thousand connections: what they cost, and what a client among them notices.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use kafka_protocol::messages::MetadataRequest;
use tests::Milena;

use crate::raw::{call, connect, is_served, raise_open_files};

/// What one connection on which nothing happens may add to the process's own memory.
const BYTES_PER_IDLE_CONNECTION: u64 = 10 * 1024;

/// Ten thousand, or as many as this process may have open.
fn many() -> usize {
    let limit = usize::try_from(raise_open_files()).unwrap_or(usize::MAX);
    // The broker, which has the same limit, gives connections three quarters of it.
    let many = (limit / 4 * 3).saturating_sub(300).min(10_000);
    if many < 10_000 {
        eprintln!("only {many} connections: the limit of open files is {limit}");
    }
    many
}

/// Round trips of a Metadata request, sorted.
fn latencies(stream: &mut TcpStream) -> Vec<Duration> {
    let request = MetadataRequest::default().with_topics(None);
    let mut latencies: Vec<Duration> = (0..1000)
        .map(|_| {
            let begin = Instant::now();
            call(stream, 12, &request);
            begin.elapsed()
        })
        .collect();
    latencies.sort_unstable();
    latencies
}

fn percentiles(sorted: &[Duration]) -> String {
    let at = |share: f64| sorted[(sorted.len() as f64 * share) as usize];
    format!("p50 {:?}, p99 {:?}", at(0.5), at(0.99))
}

#[test]
fn ten_thousand_connections_cost_next_to_nothing() {
    let many = many();
    let milena = Milena::start_with_broker("max_connections = 11000", "");
    let mut client = connect(&milena);
    let alone = latencies(&mut client);
    let (rss_before, before) = milena.resident_bytes();

    let begin = Instant::now();
    let mut idle: Vec<TcpStream> = (0..many).map(|_| connect(&milena)).collect();
    // The last one is served: all were accepted.
    assert!(is_served(&mut idle[many - 1]));
    let accepted = begin.elapsed();
    let (rss_silent, silent) = milena.resident_bytes();
    let of_silent = silent.saturating_sub(before) / many as u64;

    assert!(idle.iter_mut().all(is_served));
    std::thread::sleep(Duration::from_secs(1));
    let (_, served) = milena.resident_bytes();
    let of_served = served.saturating_sub(before) / many as u64;
    let among_many = latencies(&mut client);
    eprintln!(
        "{many} connections accepted in {accepted:?}; RSS {} MB before, {} MB with them; own memory: \
         {of_silent} bytes per silent connection, {of_served} per connection that was served once; \
         Metadata round trip alone: {}; among them: {}",
        rss_before / 1_000_000,
        rss_silent / 1_000_000,
        percentiles(&alone),
        percentiles(&among_many),
    );
    assert!(
        of_silent.max(of_served) <= BYTES_PER_IDLE_CONNECTION,
        "{of_silent} bytes per silent connection, {of_served} per idle one"
    );
    assert!(among_many[500] < Duration::from_millis(200));
}
