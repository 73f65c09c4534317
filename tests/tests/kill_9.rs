//! `kill -9` in the middle of a load, aimed at commits: nothing acknowledged is lost or doubled, and every
//! input has exactly one output.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use broker::quickstart::transactions::{FRAUD_RATE, transaction};
use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, PurgeConfig, ThreadedProducer};
use tests::{Milena, PATIENCE, Received, eventually};

const ROUNDS: u64 = 6;
/// More rounds than this are not tried for one that finds a hidden tail: the moment between outputs
/// and changelog is short, and the threads of a busy machine are scheduled as it pleases.
const MAX_ROUNDS: u64 = 30;
const RECORDS: u64 = 200_000;
const PARTITIONS: i32 = 4;

/// Counts acknowledgements and keeps their ids by partition.
#[derive(Clone, Default)]
struct Acknowledged {
    count: Arc<AtomicU64>,
    ids: Arc<Mutex<BTreeMap<i32, Vec<u64>>>>,
}

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Ok(message) = result {
            let id = id_of(message.payload().expect("a payload"));
            let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
            ids.entry(message.partition()).or_default().push(id);
            self.count.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn id_of(payload: &[u8]) -> u64 {
    serde_json::from_slice::<serde_json::Value>(payload)
        .ok()
        .and_then(|value| value["tx_id"].as_str()?.parse().ok())
        .expect("an id in the payload")
}

/// A transaction as the fraud model reads it.
fn payload(id: u64) -> String {
    let mut transaction = transaction(1, id, FRAUD_RATE).transaction;
    transaction.tx_id = id.to_string();
    serde_json::to_string(&transaction).expect("JSON")
}

/// Loads with acks=all until `kill_after` acknowledgements, kills, and returns what was
/// acknowledged, by partition in order.
///
/// With `aimed`, the kill waits until outputs appear in the derived topic's files: their commit has
/// begun then, and ends only two syncs later.
fn load_and_kill(
    milena: &mut Milena,
    first_id: u64,
    kill_after: u64,
    aimed: bool,
) -> BTreeMap<i32, Vec<u64>> {
    let acknowledged = Acknowledged::default();
    let mut config = milena.client();
    config
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", "2")
        .set("queue.buffering.max.messages", "1000000");
    let producer: ThreadedProducer<Acknowledged> =
        ThreadedProducer::from_config_and_context(&config, acknowledged.clone())
            .expect("a producer");

    let deadline = Instant::now() + PATIENCE;
    let mut sent = 0;
    loop {
        let acks = acknowledged.count.load(Ordering::SeqCst);
        if acks >= kill_after {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "{acks} of {kill_after} acknowledged"
        );
        // A bounded lead keeps acknowledgements coming while the load is still being sent.
        if sent == RECORDS || sent - acks > 20_000 {
            std::thread::sleep(Duration::from_micros(200));
            continue;
        }
        let id = first_id + sent;
        let json = payload(id);
        let record = BaseRecord::<[u8], str>::to("transactions")
            .partition((id % PARTITIONS as u64) as i32)
            .payload(&json);
        match producer.send(record) {
            Ok(()) => sent += 1,
            Err((KafkaError::MessageProduction(_), _)) => std::thread::yield_now(),
            Err((error, _)) => panic!("produce: {error}"),
        }
    }
    if aimed {
        let before = derived_bytes(milena);
        let deadline = Instant::now() + Duration::from_millis(200);
        while derived_bytes(milena) == before && Instant::now() < deadline {}
    }
    milena.kill();
    let acks = acknowledged.count.load(Ordering::SeqCst);
    assert!(
        (1..RECORDS).contains(&acks),
        "killed between the first and the last acknowledgement"
    );
    producer.purge(PurgeConfig::default().queue().inflight());
    drop(producer);
    acknowledged
        .ids
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

/// The size of the derived topic's segments.
fn derived_bytes(milena: &Milena) -> u64 {
    (0..PARTITIONS)
        .filter_map(|partition| {
            let dir = format!("transactions.scored-{partition}");
            let segment = milena.data_dir().join(dir).join(format!("{:020}.log", 0));
            Some(std::fs::metadata(segment).ok()?.len())
        })
        .sum()
}

/// Every acknowledged id is there once, ids only grow, offsets have no holes.
fn check_input(
    log: &BTreeMap<i32, Vec<Received>>,
    from: &BTreeMap<i32, i64>,
    acknowledged: &BTreeMap<i32, Vec<u64>>,
) {
    for (partition, records) in log {
        let start = from.get(partition).copied().unwrap_or(0);
        let ids: Vec<u64> = records
            .iter()
            .map(|r| id_of(r.value.as_deref().expect("a value")))
            .collect();
        for (n, record) in records.iter().enumerate() {
            assert_eq!(
                record.offset,
                start + n as i64,
                "partition {partition}: offsets"
            );
        }
        assert!(
            ids.is_sorted_by(|a, b| a < b),
            "partition {partition}: order or a duplicate"
        );
        for id in acknowledged.get(partition).into_iter().flatten() {
            assert!(
                ids.binary_search(id).is_ok(),
                "partition {partition}: {id} was acknowledged"
            );
        }
    }
}

#[test]
fn nothing_is_lost_or_doubled_over_kills() {
    let model = tests::repository().join("tests/models/fraud_by_row");
    let mut milena = Milena::start(&format!(
        "[[topic]]\nname = \"transactions\"\npartitions = {PARTITIONS}\n\
         [[model]]\nname = \"fraud\"\nsource = {model:?}\n\
         [[model_topic]]\nname = \"transactions.scored\"\ninput = \"transactions\"\nmodel = \"fraud\"\n"
    ));
    // A fixed sequence of moments, spread over the load.
    let mut moment = 0x9E37_79B9_u64;
    let mut ends = BTreeMap::new();
    let mut discarding_rounds = 0;
    let mut round = 0;
    while round < ROUNDS || (discarding_rounds == 0 && round < MAX_ROUNDS) {
        moment = moment
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let kill_after = 1 + (moment >> 33) % (RECORDS * 9 / 10);
        let acknowledged = load_and_kill(
            &mut milena,
            round * RECORDS,
            kill_after,
            round % 2 == 1 || round >= ROUNDS,
        );
        milena.restart();

        let log = milena.read_topic_from("transactions", &ends);
        check_input(&log, &ends, &acknowledged);
        for (partition, records) in &log {
            *ends.entry(*partition).or_insert(0) += records.len() as i64;
        }
        eventually("the model topic runs again", || {
            milena.log().contains("model topic runs").then_some(())
        });
        discarding_rounds += u32::from(milena.log().contains("discarded hidden output tail"));
        println!("round {round}: killed after {kill_after} acknowledgements, {ends:?}");
        round += 1;
    }
    println!("{discarding_rounds} of {round} restarts discarded a hidden tail");
    assert!(
        discarding_rounds > 0,
        "no kill fell between the outputs and the changelog"
    );

    let inputs = milena.ends("transactions");
    eventually("every input has its output", || {
        (milena.ends("transactions.scored") == inputs).then_some(())
    });
    for (partition, outputs) in milena.read_topic("transactions.scored") {
        assert_eq!(outputs.len() as i64, inputs[&partition]);
        for (n, output) in outputs.iter().enumerate() {
            let source = output.header("milena.source.offset").expect("lineage");
            assert_eq!(
                source.parse(),
                Ok(n as i64),
                "partition {partition}: one output per input"
            );
        }
    }
}
