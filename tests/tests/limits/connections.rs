//! How many connections there may be, in all, from one address, and beside the logs' files.

use std::net::{Ipv4Addr, TcpStream};

use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use tests::{Milena, PATIENCE};

use crate::raw::{connect, connect_from, is_closed_within, is_served};

#[test]
fn connections_are_limited_by_address() {
    let milena = Milena::start_with_broker(
        "max_connections_per_ip = 3\nmax_connections_per_ip_overrides = \"127.0.0.2:1\"",
        "",
    );
    // The connection that the start was noticed by may not be gone yet.
    tests::eventually("no connection is open", || {
        (milena.metric("milena_connections") == 0.0).then_some(())
    });
    let from = |last| {
        let address = Ipv4Addr::new(127, 0, 0, last);
        connect_from(&milena, address).expect("the system connects")
    };
    let mut open: Vec<TcpStream> = [1, 1, 1, 2, 3].map(from).into();
    assert!(open.iter_mut().all(is_served));
    for address in [1, 2] {
        let mut refused = from(address);
        assert!(is_closed_within(&mut refused, PATIENCE), "from {address}");
    }
    assert_eq!(milena.metric("milena_connections_refused_total"), 2.0);
    // A place that is given back can be taken again.
    open.remove(0);
    tests::eventually("the place is free", || {
        is_served(&mut from(1)).then_some(())
    });
    assert!(open.iter_mut().all(is_served));
}

#[test]
fn connections_leave_the_logs_their_files() {
    const PARTITIONS: i32 = 40;
    const OPEN_FILES: u64 = 512;
    let mut milena = Milena::prepare(
        "",
        &format!("[[topic]]\nname = \"kept\"\npartitions = {PARTITIONS}\n"),
    );
    milena.limit_open_files(OPEN_FILES);
    milena.restart();
    let mut greedy: Vec<TcpStream> = (0..OPEN_FILES).map(|_| connect(&milena)).collect();
    let refused = tests::eventually("the last one is refused", || {
        let refused = milena.metric("milena_connections_refused_total");
        (refused > 0.0).then_some(refused)
    });
    assert!(refused >= (OPEN_FILES / 4) as f64, "{refused}");
    assert!(is_served(&mut greedy[0]));
    // A client that is served, and files for all that it writes.
    greedy.drain(..20);
    tests::eventually("places are free", || {
        is_served(&mut connect(&milena)).then_some(())
    });
    let producer: ThreadedProducer<DefaultProducerContext> = milena.client_with(&[("acks", "all")]);
    for partition in 0..PARTITIONS {
        let record = BaseRecord::<[u8], [u8]>::to("kept")
            .partition(partition)
            .payload(b"x");
        tests::send(&producer, record);
    }
    producer.flush(PATIENCE).expect("every record is delivered");
    let ends = milena.ends("kept");
    assert_eq!(ends.len(), PARTITIONS as usize);
    assert!(ends.values().all(|end| *end == 1), "{ends:?}");
    assert!(
        milena
            .log()
            .contains("fewer connections than max.connections"),
        "{}",
        milena.log()
    );
}
