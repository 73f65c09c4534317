//! What an ordinary librdkafka client expects of a Kafka broker.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{
    BaseProducer, BaseRecord, DefaultProducerContext, Producer, ThreadedProducer,
};
use rdkafka::{Offset, TopicPartitionList};
use tests::{Milena, PATIENCE, eventually};

fn produce(
    milena: &Milena,
    topic: &str,
    settings: &[(&str, &str)],
    values: impl IntoIterator<Item = String>,
) {
    let producer: ThreadedProducer<DefaultProducerContext> = milena.client_with(settings);
    for value in values {
        producer
            .send(
                BaseRecord::<str, str>::to(topic)
                    .payload(&value)
                    .key(&value),
            )
            .map_err(|(e, _)| e)
            .expect("queued");
    }
    producer.flush(PATIENCE).expect("delivered");
}

fn numbers(range: std::ops::Range<u32>) -> impl Iterator<Item = String> {
    range.map(|n| format!("{n:06}"))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

#[test]
fn every_codec_goes_in_and_comes_out() {
    let milena = Milena::start("");
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = format!("codec-{codec}");
        let settings = [
            ("compression.type", codec),
            ("enable.idempotence", "true"),
            ("linger.ms", "20"),
        ];
        produce(&milena, &topic, &settings, numbers(0..2_000));
        let read = milena.read_topic(&topic);
        let values: Vec<String> = read[&0]
            .iter()
            .map(|r| String::from_utf8(r.value.clone().expect("a value")).expect("text"))
            .collect();
        assert_eq!(values, numbers(0..2_000).collect::<Vec<_>>(), "{codec}");
    }
}

#[test]
fn keys_values_headers_and_times_round_trip() {
    let milena = Milena::start("");
    let producer: BaseProducer = milena.client_with(&[]);
    let headers = OwnedHeaders::new()
        .insert(Header {
            key: "h",
            value: Some("1"),
        })
        .insert(Header {
            key: "h",
            value: Some("2"),
        })
        .insert(Header {
            key: "null",
            value: None::<&str>,
        });
    let large = vec![7u8; 900_000];
    producer
        .send(
            BaseRecord::<[u8], [u8]>::to("t")
                .key(b"k")
                .payload(&large)
                .headers(headers)
                .timestamp(1_234),
        )
        .map_err(|(e, _)| e)
        .expect("queued");
    producer
        .send(BaseRecord::<[u8], [u8]>::to("t"))
        .map_err(|(e, _)| e)
        .expect("queued");
    producer
        .send(BaseRecord::<[u8], [u8]>::to("t").key(b"").payload(b""))
        .map_err(|(e, _)| e)
        .expect("queued");
    producer.flush(PATIENCE).expect("delivered");

    let records = milena.read_topic("t").remove(&0).expect("partition 0");
    assert_eq!(records[0].key.as_deref(), Some(&b"k"[..]));
    assert_eq!(records[0].value.as_ref(), Some(&large));
    assert_eq!(records[0].timestamp_ms, Some(1_234));
    let names: Vec<_> = records[0]
        .headers
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_slice()))
        .collect();
    assert_eq!(names, [("h", &b"1"[..]), ("h", b"2"), ("null", b"")]);
    assert_eq!((&records[1].key, &records[1].value), (&None, &None));
    assert_eq!(
        (records[2].key.as_deref(), records[2].value.as_deref()),
        (Some(&b""[..]), Some(&b""[..]))
    );
}

/// Polls until `count` records came, committing each.
fn consume(consumer: &BaseConsumer, count: usize) -> Vec<String> {
    let mut values = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while values.len() < count {
        assert!(
            Instant::now() < deadline,
            "{} of {count} records",
            values.len()
        );
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            let message = message.expect("a record");
            values
                .push(String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned());
            consumer
                .store_offset_from_message(&message)
                .expect("stored");
        }
    }
    consumer
        .commit_consumer_state(CommitMode::Sync)
        .expect("committed");
    values
}

fn group(milena: &Milena, name: &str) -> BaseConsumer {
    let consumer: BaseConsumer = milena.client_with(&[
        ("group.id", name),
        ("auto.offset.reset", "earliest"),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("session.timeout.ms", "10000"),
        ("topic.metadata.refresh.interval.ms", "500"),
    ]);
    consumer.subscribe(&["t"]).expect("subscribe");
    consumer
}

#[test]
fn a_group_commits_and_goes_on_after_a_restart_of_client_and_broker() {
    let mut milena = Milena::start(
        "[[topic]]\nname = \"t\"\npartitions = 4\n[group]\ngroup_initial_rebalance_delay_ms = 100\n",
    );
    produce(&milena, "t", &[], numbers(0..1_000));
    let mut seen = consume(&group(&milena, "g"), 1_000);
    for stop_cleanly in [true, false] {
        if stop_cleanly {
            assert!(milena.stop().success(), "{}", milena.log());
        } else {
            milena.kill();
        }
        milena.restart();
        let next = seen.len() as u32;
        produce(&milena, "t", &[("acks", "all")], numbers(next..next + 500));
        seen.extend(consume(&group(&milena, "g"), 500));
    }
    assert_eq!(seen.len(), 2_000);
    assert_eq!(
        seen.iter().collect::<BTreeSet<_>>().len(),
        2_000,
        "nothing twice"
    );
}

#[test]
fn a_second_member_takes_half_of_the_partitions() {
    let milena = Milena::start(
        "[[topic]]\nname = \"t\"\npartitions = 4\n[group]\ngroup_initial_rebalance_delay_ms = 100\n",
    );
    let (first, second) = (group(&milena, "g"), group(&milena, "g"));
    let assigned = |consumer: &BaseConsumer| {
        let _ = consumer.poll(Duration::from_millis(50));
        consumer.assignment().expect("an assignment").count()
    };
    eventually("both have two partitions", || {
        (assigned(&first) == 2 && assigned(&second) == 2).then_some(())
    });
    drop(second);
    eventually("the first has them all again", || {
        (assigned(&first) == 4).then_some(())
    });
}

#[test]
fn a_consumer_of_a_restarted_broker_goes_on_by_itself() {
    let mut milena =
        Milena::start("[[topic]]\nname = \"t\"\n[group]\ngroup_initial_rebalance_delay_ms = 100\n");
    produce(&milena, "t", &[], numbers(0..100));
    let consumer = group(&milena, "g");
    let mut seen = consume(&consumer, 100);
    assert!(milena.stop().success());
    milena.restart();
    produce(&milena, "t", &[], numbers(100..200));
    let deadline = Instant::now() + PATIENCE;
    while seen.len() < 200 {
        assert!(Instant::now() < deadline, "{} records", seen.len());
        // Errors of the time without a broker are passed over, as an application would.
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            seen.push(String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned());
        }
    }
    assert_eq!(seen, numbers(0..200).collect::<Vec<_>>());
}

#[test]
fn topics_configs_and_ids_survive_and_a_deleted_topic_is_gone() {
    let mut milena = Milena::start("");
    let runtime = runtime();
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    {
        let admin: AdminClient<DefaultClientContext> = milena.client_with(&[]);
        let kept =
            NewTopic::new("kept", 3, TopicReplication::Fixed(1)).set("retention.ms", "12345");
        let gone = NewTopic::new("gone", 1, TopicReplication::Fixed(1));
        let created = runtime
            .block_on(admin.create_topics([&kept, &gone], &options))
            .expect("create");
        assert!(created.iter().all(Result::is_ok), "{created:?}");
        let again = runtime
            .block_on(admin.create_topics([&kept], &options))
            .expect("create");
        assert!(again[0].is_err(), "it exists");
        let deleted = runtime
            .block_on(admin.delete_topics(&["gone"], &options))
            .expect("delete");
        assert!(deleted[0].is_ok(), "{deleted:?}");
    }
    milena.kill();
    milena.restart();
    let admin: AdminClient<DefaultClientContext> = milena.client_with(&[]);
    let metadata = admin
        .inner()
        .fetch_metadata(None, PATIENCE)
        .expect("metadata");
    let topics: Vec<_> = metadata
        .topics()
        .iter()
        .map(|t| (t.name(), t.partitions().len()))
        .collect();
    assert_eq!(topics, [("kept", 3)]);
    let described = runtime
        .block_on(admin.describe_configs([&ResourceSpecifier::Topic("kept")], &options))
        .expect("describe");
    let configs = described[0].as_ref().expect("configs").entry_map();
    assert_eq!(configs["retention.ms"].value.as_deref(), Some("12345"));
    assert!(!configs["retention.ms"].is_default);
    assert_eq!(configs["cleanup.policy"].value.as_deref(), Some("delete"));
    assert!(configs["cleanup.policy"].is_default);
    assert!(!milena.data_dir().join("gone-0").exists());
}

#[test]
fn configs_and_partitions_are_there_after_a_kill_right_after_the_answer() {
    let mut milena = Milena::start("[[topic]]\nname = \"t\"\npartitions = 1\n");
    let runtime = runtime();
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    for round in 1..=5usize {
        let (count, age) = (round + 1, format!("{round}000"));
        let admin: AdminClient<DefaultClientContext> = milena.client_with(&[]);
        let grown = [NewPartitions::new("t", count)];
        let (of_topic, of_broker) = (
            AlterConfig::new(ResourceSpecifier::Topic("t")).set("retention.ms", &age),
            AlterConfig::new(ResourceSpecifier::Broker(0)).set("log.segment.bytes", "2097152"),
        );
        // The last answer of a round is right before the kill: each kind in its turn.
        let grow = || runtime.block_on(admin.create_partitions(&grown, &options));
        let alter = || runtime.block_on(admin.alter_configs([&of_topic, &of_broker], &options));
        let (grown, altered) = if round % 2 == 0 {
            let grown = grow();
            (grown, alter())
        } else {
            let altered = alter();
            (grow(), altered)
        };
        milena.kill();
        assert!(grown.expect("an answer").iter().all(Result::is_ok));
        assert!(altered.expect("an answer").iter().all(Result::is_ok));
        milena.restart();

        let admin: AdminClient<DefaultClientContext> = milena.client_with(&[]);
        let metadata = admin.inner().fetch_metadata(Some("t"), PATIENCE);
        let metadata = metadata.expect("metadata");
        assert_eq!(metadata.topics()[0].partitions().len(), count);
        let resources = [ResourceSpecifier::Topic("t"), ResourceSpecifier::Broker(0)];
        let described = runtime.block_on(admin.describe_configs(&resources, &options));
        let described = described.expect("describe");
        let value = |resource: usize, key: &str| {
            let configs = described[resource].as_ref().expect("configs").entry_map();
            configs[key].value.clone()
        };
        assert_eq!(value(0, "retention.ms"), Some(age));
        assert_eq!(value(1, "log.segment.bytes").as_deref(), Some("2097152"));
        assert_eq!(value(0, "segment.bytes").as_deref(), Some("2097152"));
    }
}

#[test]
fn sigterm_in_the_middle_of_a_load_loses_nothing_accepted() {
    let mut milena = Milena::start("[[topic]]\nname = \"t\"\n");
    let producer: BaseProducer = milena.client_with(&[
        ("acks", "1"),
        ("linger.ms", "0"),
        ("message.timeout.ms", "3000"),
        ("max.in.flight.requests.per.connection", "1"),
        ("retries", "0"),
    ]);
    let mut sent = 0u32;
    let started = Instant::now();
    let status = std::thread::scope(|scope| {
        let stopping = scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            milena.stop()
        });
        while started.elapsed() < Duration::from_millis(600) {
            let value = format!("{sent:06}");
            if producer
                .send(BaseRecord::<str, str>::to("t").payload(&value).partition(0))
                .is_ok()
            {
                sent += 1;
            }
            producer.poll(Duration::ZERO);
        }
        stopping.join().expect("stopped")
    });
    assert!(status.success(), "{}", milena.log());
    let _ = producer.flush(PATIENCE);
    milena.restart();
    let read = milena.read_topic("t").remove(&0).expect("partition 0");
    assert!(
        !read.is_empty() && (read.len() as u32) < sent,
        "{} of {sent}",
        read.len()
    );
    for (n, record) in read.iter().enumerate() {
        assert_eq!(
            record.value.as_deref(),
            Some(format!("{n:06}").as_bytes()),
            "a prefix, in order"
        );
    }
}

#[test]
fn lookups_by_time_and_from_the_ends() {
    let milena = Milena::start("");
    let producer: BaseProducer = milena.client_with(&[("batch.num.messages", "10")]);
    for n in 0..100i64 {
        producer
            .send(
                BaseRecord::<str, str>::to("t")
                    .payload("x")
                    .timestamp(1_000 + n * 10),
            )
            .map_err(|(e, _)| e)
            .expect("queued");
    }
    producer.flush(PATIENCE).expect("delivered");
    let consumer: BaseConsumer = milena.client_with(&[("group.id", "g")]);
    for (time, expected) in [
        (0, Offset::Offset(0)),
        (1_500, Offset::Offset(50)),
        (1_501, Offset::Offset(51)),
        (9_999, Offset::End),
    ] {
        let mut wanted = TopicPartitionList::new();
        wanted
            .add_partition_offset("t", 0, Offset::Offset(time))
            .expect("a time");
        let found = consumer
            .offsets_for_times(wanted, PATIENCE)
            .expect("offsets");
        assert_eq!(found.elements()[0].offset(), expected, "at {time}");
    }
}
