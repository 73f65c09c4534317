//! Start, stop, limits, and what a second server may not share.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use broker::server::Server;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{
    ApiVersionsRequest, CreateTopicsRequest, FetchRequest, MetadataRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use tempfile::TempDir;

use crate::client::{Client, Served, config};

fn start_error(config: broker::config::Config) -> String {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    match runtime.block_on(Server::start(config)) {
        Ok(_) => panic!("it starts"),
        Err(error) => error.to_string(),
    }
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("http accepts");
    let request = format!("GET {path} HTTP/1.1\r\nhost: milena\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("http takes it");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("http answers");
    answer
}

fn topic(name: &'static str) -> TopicName {
    TopicName(StrBytes::from_static_str(name))
}

#[test]
fn a_port_in_use_is_named() {
    let served = Served::start();
    for http in [false, true] {
        let folder = TempDir::new().expect("a folder");
        let mut config = config(&folder);
        let taken = if http {
            served.http.expect("http is on")
        } else {
            served.address
        };
        let key = if http {
            &mut config.http.listen
        } else {
            &mut config.broker.listen
        };
        *key = taken.to_string();
        let error = start_error(config);
        let key = if http { "http.listen" } else { "broker.listen" };
        assert!(
            error.starts_with(&format!("{key}: can't listen on {taken}: ")),
            "{error}"
        );
        assert!(
            !folder.path().join("data").exists(),
            "nothing else was begun"
        );
    }
    served.stop();
}

#[test]
fn a_data_folder_in_use_is_named() {
    let served = Served::start();
    let mut second = config(&served.folder);
    second.http.listen.clear();
    let error = start_error(second);
    assert!(error.contains("in use by another process"), "{error}");
    assert!(
        error.contains(&*served.folder.path().to_string_lossy()),
        "{error}"
    );
    served.stop();
}

#[test]
fn topics_of_the_configuration_are_created_once_and_survive() {
    let folder = TempDir::new().expect("a folder");
    let text =
        "[[topic]]\nname = \"a\"\npartitions = 3\nconfigs = { \"segment.bytes\" = 1048576 }\n";
    let with_topic = |folder: &TempDir| {
        let parsed = broker::config::Config::parse(text, "milena.toml".as_ref()).expect("legal");
        broker::config::Config {
            topic: parsed.topic,
            ..config(folder)
        }
    };
    let start = with_topic(&folder);
    let mut served = Served::start_in(folder, start);
    let mut ids = Vec::new();
    for _ in 0..2 {
        let response = served
            .connect()
            .call(12, &MetadataRequest::default().with_topics(None));
        let names: Vec<_> = response
            .topics
            .iter()
            .filter_map(|t| t.name.as_ref())
            .collect();
        assert_eq!(names, [&topic("a")]);
        assert_eq!(response.topics[0].partitions.len(), 3);
        ids.push(response.topics[0].topic_id);
        let folder = served.stop();
        let again = with_topic(&folder);
        served = Served::start_in(folder, again);
    }
    assert_eq!(ids[0], ids[1]);
    served.stop();
}

#[test]
fn metrics_and_health_are_served() {
    let served = Served::start();
    let mut client = served.connect();
    client.call(0, &ApiVersionsRequest::default());
    let request = CreateTopicsRequest::default().with_topics(vec![
        CreatableTopic::default()
            .with_name(topic("seen"))
            .with_num_partitions(2)
            .with_replication_factor(1),
    ]);
    assert_eq!(client.call(5, &request).topics[0].error_code, 0);
    let http = served.http.expect("http is on");
    let health = get(http, "/healthz");
    assert!(
        health.starts_with("HTTP/1.1 200") && health.ends_with("ok\n"),
        "{health}"
    );
    let metrics = get(http, "/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
    for line in [
        "milena_requests_total{api=\"ApiVersions\"}",
        "milena_request_seconds_bucket{api=\"ApiVersions\",le=\"0.001\"}",
        "milena_network_in_bytes_total",
        "milena_network_out_bytes_total",
        "milena_connections ",
        "milena_partition_log_end_offset{topic=\"seen\",partition=\"1\"} 0",
        "milena_partition_high_watermark{topic=\"seen\",partition=\"0\"} 0",
    ] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
    assert!(get(http, "/nothing").starts_with("HTTP/1.1 404"));
    served.stop();
}

#[test]
fn one_connection_too_many_is_closed() {
    let served = Served::start_with(|config| config.broker.max_connections = 2);
    let mut first = served.connect();
    let mut second = served.connect();
    first.call(0, &ApiVersionsRequest::default());
    second.call(0, &ApiVersionsRequest::default());
    served.connect().assert_closed();
    drop(first);
    // Its place is free as soon as the server has noticed.
    let begin = Instant::now();
    loop {
        let mut third = served.connect();
        third.send(0, &ApiVersionsRequest::default());
        if third.receive().is_ok() {
            break;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(10),
            "the place is never free"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    served.stop();
}

#[test]
fn idle_connections_close() {
    let served = Served::start_with(|config| config.broker.connections_max_idle_ms = 1000);
    let mut client = served.connect();
    client.call(0, &ApiVersionsRequest::default());
    let begin = Instant::now();
    client.assert_closed();
    assert!(
        begin.elapsed() >= Duration::from_millis(900),
        "{:?}",
        begin.elapsed()
    );
    served.stop();
}

/// A long poll on an empty partition.
fn long_poll(client: &mut Client) -> i32 {
    let partition = FetchPartition::default()
        .with_partition(0)
        .with_partition_max_bytes(1000);
    let request = FetchRequest::default()
        .with_max_wait_ms(60_000)
        .with_min_bytes(1)
        .with_max_bytes(1000)
        .with_topics(vec![
            FetchTopic::default()
                .with_topic(topic("quiet"))
                .with_partitions(vec![partition]),
        ]);
    client.send(11, &request)
}

#[test]
fn a_stop_closes_connections_in_time_and_answers_what_was_read() {
    let served = Served::start();
    let address = served.address;
    let mut client = served.connect();
    let quiet = MetadataRequest::default().with_topics(Some(vec![
        kafka_protocol::messages::metadata_request::MetadataRequestTopic::default()
            .with_name(Some(topic("quiet"))),
    ]));
    assert_eq!(client.call(9, &quiet).topics[0].error_code, 0);
    let poll = long_poll(&mut client);
    let idle = served.connect();
    std::thread::sleep(Duration::from_millis(200));

    let begin = Instant::now();
    let stopping = served.stop_soon();
    idle.assert_closed();
    // The poll is ended with an answer: the connection closes, and nothing hangs.
    let response = client.receive_for::<FetchRequest>(11, poll);
    assert_eq!(response.error_code, 0);
    client.assert_closed();
    stopping.join().expect("a clean stop");
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
    assert!(
        TcpStream::connect(address).is_err(),
        "nobody listens any more"
    );
}
