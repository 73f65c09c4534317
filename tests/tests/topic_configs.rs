//! Topic configs that a log obeys, with librdkafka over TCP and the batches on the disk.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{
    BaseProducer, BaseRecord, DefaultProducerContext, Producer, ThreadedProducer,
};
use tests::client_matrix::batches::{self, Batch, CODECS};
use tests::{Milena, PATIENCE, Received, send};

const TYPES: [&str; 6] = ["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"];

/// Produces `count` records to a partition of each topic, with keys, headers and times of their own.
fn produce(milena: &Milena, topics: &[&str], partition: i32, codec: &str, count: i64) {
    let producer: ThreadedProducer<DefaultProducerContext> = milena.client_with(&[
        ("compression.type", codec),
        ("enable.idempotence", "true"),
        ("linger.ms", "5"),
        ("batch.num.messages", "100"),
    ]);
    for topic in topics {
        for n in 0..count {
            let (key, value) = (key(n), value(n));
            let headers = OwnedHeaders::new().insert(Header {
                key: "number",
                value: Some(&n.to_string()),
            });
            let record = BaseRecord::<[u8], [u8]>::to(topic)
                .partition(partition)
                .payload(&value)
                .headers(headers)
                .timestamp(1_000_000 - n);
            let record = if n % 5 == 0 { record } else { record.key(&key) };
            send(&producer, record);
        }
    }
    producer.flush(PATIENCE).expect("delivered");
}

fn key(n: i64) -> Vec<u8> {
    format!("key {n}").into_bytes()
}

fn value(n: i64) -> Vec<u8> {
    format!("{n} is the number of this record, ")
        .repeat(8)
        .into_bytes()
}

fn expected(n: i64) -> Received {
    Received {
        offset: n,
        timestamp_ms: Some(1_000_000 - n),
        key: (n % 5 != 0).then(|| key(n)),
        value: Some(value(n)),
        headers: vec![("number".to_owned(), n.to_string().into_bytes())],
    }
}

fn batches(milena: &Milena, topic: &str, partition: i32) -> Vec<Batch> {
    batches::of_partition(&milena.data_dir(), topic, partition).expect("the batches")
}

fn codecs(milena: &Milena, topic: &str, partition: i32) -> Vec<&'static str> {
    let mut codecs: Vec<_> = batches(milena, topic, partition)
        .iter()
        .map(|batch| batch.codec)
        .collect();
    codecs.dedup();
    codecs
}

fn topic(name: &str, partitions: usize, configs: &[(&str, &str)]) -> String {
    let configs: Vec<_> = configs
        .iter()
        .map(|(k, v)| format!("{k:?} = {v:?}"))
        .collect();
    let configs = configs.join(", ");
    format!("[[topic]]\nname = {name:?}\npartitions = {partitions}\nconfigs = {{ {configs} }}\n")
}

fn set(milena: &Milena, topic: &str, configs: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> = milena.client_with(&[]);
    let mut wanted = AlterConfig::new(ResourceSpecifier::Topic(topic));
    for (name, value) in configs {
        wanted = wanted.set(name, value);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let altered = runtime.block_on(admin.alter_configs([&wanted], &AdminOptions::new()));
    for resource in altered.expect("an answer") {
        resource.expect("altered");
    }
}

#[test]
fn every_codec_goes_into_a_topic_of_every_compression_type() {
    const COUNT: i64 = 250;
    let topics: String = TYPES
        .iter()
        .map(|stored| topic(stored, CODECS.len(), &[("compression.type", stored)]))
        .collect();
    let mut milena = Milena::start(&topics);
    for (partition, sent) in (0..).zip(CODECS) {
        produce(&milena, &TYPES, partition, sent, COUNT);
        for stored in TYPES {
            let found = batches(&milena, stored, partition);
            assert!(found.len() >= 3, "{sent} to {stored}: {found:?}");
            let codec = match stored {
                "producer" => sent,
                "uncompressed" => "none",
                codec => codec,
            };
            let idempotent = true;
            for batch in found {
                let found = (batch.codec, batch.idempotent);
                assert_eq!(found, (codec, idempotent), "{sent} to {stored}");
            }
        }
    }
    milena.kill();
    milena.restart();
    for stored in TYPES {
        for (partition, records) in milena.read_topic(stored) {
            let expected: Vec<_> = (0..COUNT).map(expected).collect();
            assert_eq!(records, expected, "{stored}, partition {partition}");
        }
    }
}

#[test]
fn the_codec_is_the_brokers_to_say_and_can_be_changed_while_it_runs() {
    let milena = Milena::start(&format!(
        "[log]\ncompression_type = \"lz4\"\n{}",
        topic("own", 1, &[("compression.type", "gzip")])
    ));
    produce(&milena, &["ours"], 0, "zstd", 10);
    assert_eq!(codecs(&milena, "ours", 0), ["lz4"]);
    produce(&milena, &["own"], 0, "zstd", 10);
    assert_eq!(codecs(&milena, "own", 0), ["gzip"]);
    set(&milena, "own", &[("compression.type", "producer")]);
    produce(&milena, &["own"], 0, "zstd", 10);
    assert_eq!(codecs(&milena, "own", 0), ["gzip", "zstd"]);
    set(&milena, "own", &[("compression.type", "uncompressed")]);
    produce(&milena, &["own"], 0, "zstd", 10);
    assert_eq!(codecs(&milena, "own", 0), ["gzip", "zstd", "none"]);
    assert_eq!(milena.read_topic("own")[&0].len(), 30);
}

#[test]
fn a_batch_that_would_be_stored_too_large_is_refused() {
    let limit = ("max.message.bytes", "20000");
    let milena = Milena::start(&format!(
        "{}{}",
        topic("plain", 1, &[("compression.type", "uncompressed"), limit]),
        topic("as-sent", 1, &[limit]),
    ));
    let delivered = |topic: &str, codec: &str| {
        let producer: BaseProducer = milena.client_with(&[("compression.type", codec)]);
        let value = vec![b'x'; 100_000];
        let record = BaseRecord::<str, [u8]>::to(topic).payload(&value);
        producer
            .send(record)
            .map_err(|(error, _)| error)
            .expect("queued");
        producer.flush(PATIENCE).expect("answered");
    };
    delivered("plain", "zstd");
    delivered("as-sent", "none");
    delivered("as-sent", "zstd");
    assert_eq!(milena.ends("plain")[&0], 0);
    assert_eq!(milena.ends("as-sent")[&0], 1, "the small one alone");
}

#[test]
fn room_for_a_segment_is_taken_ahead_and_given_back() {
    const SEGMENT_BYTES: u64 = 4 << 20;
    let mut milena = Milena::start(&topic(
        "ahead",
        1,
        &[("preallocate", "true"), ("segment.bytes", "4194304")],
    ));
    let log = |base: i64| -> PathBuf { milena_log(&milena, base) };
    let taken = |path: PathBuf| {
        let metadata = path.metadata().expect("a log file");
        (metadata.len(), metadata.blocks() * 512)
    };
    let (len, room) = taken(log(0));
    assert_eq!(len, 0, "a file is as long as what is in it");
    assert!(room >= SEGMENT_BYTES, "{room} bytes");
    let producer: ThreadedProducer<DefaultProducerContext> = milena.client_with(&[]);
    let value = vec![b'x'; 100_000];
    for _ in 0..60 {
        send(
            &producer,
            BaseRecord::<[u8], [u8]>::to("ahead").payload(&value),
        );
    }
    producer.flush(PATIENCE).expect("delivered");
    let bases = bases(&milena);
    assert_eq!(bases.len(), 2, "{bases:?}");
    let near = |(len, room): (u64, u64)| room < len + 128 * 1024;
    assert!(near(taken(log(0))), "{:?}", taken(log(0)));
    let (len, room) = taken(log(bases[1]));
    assert!(
        len < SEGMENT_BYTES && room >= SEGMENT_BYTES,
        "{len} of {room}"
    );
    let paths: Vec<_> = bases.iter().map(|base| log(*base)).collect();
    assert!(milena.stop().success());
    for path in paths {
        assert!(near(taken(path.clone())), "{:?}", taken(path));
    }
    milena.restart();
    assert_eq!(milena.read_topic("ahead")[&0].len(), 60);
}

fn milena_log(milena: &Milena, base: i64) -> PathBuf {
    milena.data_dir().join(format!("ahead-0/{base:020}.log"))
}

fn bases(milena: &Milena) -> Vec<i64> {
    let files = std::fs::read_dir(milena.data_dir().join("ahead-0")).expect("the folder");
    let mut bases: Vec<i64> = files
        .filter_map(|file| {
            let name = file.expect("a file").file_name();
            name.to_str()?.strip_suffix(".log")?.parse().ok()
        })
        .collect();
    bases.sort_unstable();
    bases
}
