//! A small file system is filled under load, and freed again, three ways: the broker says so, loses
//! nothing, and goes on without a restart; a start on a full disk serves.
//!
//! The file system is a tmpfs in a mount namespace of the test's own, for which no rights are needed on
//! most systems (`unshare -Urm`), or those of root (`unshare -m`). Where neither can be had the test
//! fails: it has not filled anything.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use broker::quickstart::transactions::{FRAUD_RATE, transaction};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{
    BaseRecord, FutureProducer, FutureRecord, Producer, ProducerContext, ThreadedProducer,
};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use tests::{Milena, PATIENCE, Received, eventually};

const INSIDE: &str = "MILENA_TEST_IN_A_NAMESPACE";
const DISK_BYTES: usize = 32 << 20;
/// Leaves about a third of the disk to the logs.
const FILLER_BYTES: usize = 18 << 20;
const SPARE_BYTES: usize = 2 << 20;
/// Every so many transactions one is no JSON, and goes to the dead letters.
const BAD_EVERY: u64 = 50;
const FULL: &str = "the disk is full: nothing is written for producers";
const ROOM: &str = "there is room on the disk again";

/// What is sent where: record `n` goes to partition `n % partitions`, so that it is at the offset
/// `n / partitions` there if none is lost or doubled and the order is kept.
#[derive(Clone, Copy)]
struct Plan {
    topic: &'static str,
    partitions: u64,
    records: u64,
    payload: fn(u64) -> String,
}

const PLANS: [Plan; 3] = [
    Plan {
        topic: "orders",
        partitions: 4,
        records: 24_000,
        payload: |n| format!("{n:0>700}"),
    },
    Plan {
        topic: "visits",
        partitions: 2,
        records: 12_000,
        payload: |n| format!("{n:0>300}"),
    },
    Plan {
        topic: "transactions",
        partitions: 2,
        records: 8_000,
        payload: scored,
    },
];

fn scored(n: u64) -> String {
    if n.is_multiple_of(BAD_EVERY) {
        return format!("no transaction {n}");
    }
    let mut transaction = transaction(1, n, FRAUD_RATE).transaction;
    transaction.tx_id = n.to_string();
    serde_json::to_string(&transaction).expect("JSON")
}

#[derive(Clone, Default)]
struct Answers {
    acknowledged: Arc<AtomicU64>,
    failures: Arc<Mutex<Vec<KafkaError>>>,
}

impl ClientContext for Answers {}

impl ProducerContext for Answers {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.acknowledged.fetch_add(1, Ordering::SeqCst);
            }
            Err((error, _)) => self
                .failures
                .lock()
                .expect("not poisoned")
                .push(error.clone()),
        }
    }
}

/// An idempotent producer that sends its plan to the end, whatever it takes.
struct Load {
    plan: Plan,
    answers: Answers,
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
}

impl Load {
    fn start(milena: &Milena, plan: Plan) -> Self {
        let answers = Answers::default();
        let mut config = milena.client();
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .set("message.timeout.ms", "240000")
            .set("reconnect.backoff.max.ms", "500")
            .set("retry.backoff.ms", "50")
            .set("retry.backoff.max.ms", "500");
        let producer: ThreadedProducer<Answers> =
            ThreadedProducer::from_config_and_context(&config, answers.clone())
                .expect("a producer");
        let stop = Arc::new(AtomicBool::new(false));
        let (acks, stopped) = (Arc::clone(&answers.acknowledged), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for n in 0..plan.records {
                if n.is_multiple_of(100) {
                    // So that all of them have begun when the disk is full.
                    std::thread::sleep(Duration::from_millis(4));
                }
                while n - acks.load(Ordering::SeqCst) > 400 {
                    if stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(2));
                }
                let payload = (plan.payload)(n);
                let record = BaseRecord::<[u8], str>::to(plan.topic)
                    .partition((n % plan.partitions) as i32)
                    .payload(&payload);
                producer
                    .send(record)
                    .map_err(|(error, _)| error)
                    .expect("sends");
            }
            producer.flush(PATIENCE).expect("everything is delivered");
        });
        Self {
            plan,
            answers,
            thread,
            stop,
        }
    }

    fn acknowledged(&self) -> u64 {
        self.answers.acknowledged.load(Ordering::SeqCst)
    }

    fn finish(self) {
        self.thread
            .join()
            .expect("the producer has sent everything");
        assert_eq!(
            self.answers.acknowledged.load(Ordering::SeqCst),
            self.plan.records
        );
        let failures = self.answers.failures.lock().expect("not poisoned");
        assert!(failures.is_empty(), "{failures:?}");
    }
}

impl Drop for StopLoads {
    fn drop(&mut self) {
        for stop in &self.0 {
            stop.store(true, Ordering::SeqCst);
        }
    }
}

/// Ends the producers where the test ends early.
struct StopLoads(Vec<Arc<AtomicBool>>);

/// Runs this very test in a mount namespace of its own; true where this is it.
fn in_a_namespace(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    // Built here, where the build folder may be written.
    tests::binary();
    for flags in ["-Urm", "-m"] {
        let can = Command::new("unshare")
            .args([flags, "mount", "-t", "tmpfs", "tmpfs", "/mnt"])
            .output();
        if !can.is_ok_and(|output| output.status.success()) {
            continue;
        }
        let status = Command::new("unshare")
            .arg(flags)
            .arg(std::env::current_exe().expect("the test's own path"))
            .args(["--exact", test, "--nocapture"])
            .env(INSIDE, "1")
            .status()
            .expect("unshare runs");
        assert!(status.success(), "in the namespace: {status}");
        return false;
    }
    panic!(
        "no small file system can be mounted here, neither with `unshare -Urm` nor as root: \
         nothing was filled"
    );
}

fn mount(dir: &Path) {
    fs::create_dir_all(dir).expect("a folder");
    let path = CString::new(dir.to_str().expect("UTF-8")).expect("no zero");
    let options = CString::new(format!("size={DISK_BYTES}")).expect("no zero");
    // SAFETY: all four are strings that end with a zero and outlive the call.
    let mounted = unsafe {
        libc::mount(
            c"tmpfs".as_ptr(),
            path.as_ptr(),
            c"tmpfs".as_ptr(),
            0,
            options.as_ptr().cast(),
        )
    };
    assert_eq!(mounted, 0, "mount: {}", std::io::Error::last_os_error());
}

fn lines(milena: &Milena, text: &str) -> usize {
    milena
        .log()
        .lines()
        .filter(|line| line.contains(text))
        .count()
}

fn is_full(milena: &Milena) -> bool {
    milena.metric("milena_disk_full") == 1.0
}

fn wait_until_full(milena: &Milena) {
    eventually("the disk is full", || is_full(milena).then_some(()));
}

fn wait_for_room(milena: &Milena) {
    eventually("there is room again", || (!is_full(milena)).then_some(()));
}

struct Admin {
    runtime: tokio::runtime::Runtime,
    client: AdminClient<DefaultClientContext>,
    producer: FutureProducer,
}

impl Admin {
    fn new(milena: &Milena) -> Self {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        Self {
            client: milena.client_with(&[]),
            producer: milena.client_with(&[("acks", "all"), ("retries", "0")]),
            runtime,
        }
    }

    fn create(&self, name: &str) -> Result<(), RDKafkaErrorCode> {
        let topic = NewTopic::new(name, 3, TopicReplication::Fixed(1));
        let created = self.client.create_topics([&topic], &AdminOptions::new());
        let mut created = self.runtime.block_on(created).expect("an answer");
        created.remove(0).map(drop).map_err(|(_, code)| code)
    }

    fn delete(&self, name: &str) {
        let deleted = self.client.delete_topics(&[name], &AdminOptions::new());
        let deleted = self.runtime.block_on(deleted).expect("an answer");
        assert!(deleted[0].is_ok(), "{deleted:?}");
    }

    fn delete_records(&self, topic: &str, before: &BTreeMap<i32, i64>) {
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in before {
            let offset = Offset::Offset(*offset);
            offsets
                .add_partition_offset(topic, *partition, offset)
                .expect("an offset");
        }
        let deleted = self.client.delete_records(&offsets, &AdminOptions::new());
        let deleted = self.runtime.block_on(deleted).expect("an answer");
        for partition in deleted.elements() {
            partition.error().expect("records are deleted");
        }
    }

    /// One record, without trying again.
    fn produce(&self, topic: &str, bytes: usize) -> Result<(), KafkaError> {
        let payload = vec![b'x'; bytes];
        let record = FutureRecord::<(), [u8]>::to(topic).payload(&payload);
        let sent = self.producer.send(record, PATIENCE);
        let sent = self.runtime.block_on(sent);
        sent.map(drop).map_err(|(error, _)| error)
    }
}

/// Reads on while the disk is full, and is told that it can't commit.
fn check_consumers(milena: &Milena, group: &BaseConsumer) {
    let ends = milena.ends("visits");
    let read = milena.read_topic("visits");
    for (partition, records) in read {
        assert!(
            records.len() as i64 >= ends[&partition],
            "visits-{partition}"
        );
    }
    let mut seen = 0;
    eventually("the group reads on", || {
        if let Some(message) = group.poll(Duration::from_millis(100)) {
            message.expect("a record");
            seen += 1;
        }
        (seen > 100).then_some(())
    });
    let committed = group.commit_consumer_state(CommitMode::Sync);
    let code = committed
        .expect_err("there is no room for it")
        .rdkafka_error_code();
    assert_eq!(code, Some(RDKafkaErrorCode::CoordinatorNotAvailable));
}

/// Every record of the plan that was not deleted is where it belongs.
fn check(
    plan: Plan,
    log: &BTreeMap<i32, Vec<Received>>,
    ends: &BTreeMap<i32, i64>,
    deleted: &BTreeMap<i32, i64>,
) {
    for (partition, records) in log {
        let end = ends[partition];
        assert_eq!(
            end as u64,
            plan.records / plan.partitions,
            "{}-{partition}",
            plan.topic
        );
        let start = deleted.get(partition).copied().unwrap_or(0);
        assert_eq!(
            records.len() as i64,
            end - start,
            "{}-{partition}",
            plan.topic
        );
        for (offset, record) in (start..).zip(records) {
            assert_eq!(record.offset, offset, "{}-{partition}", plan.topic);
            let expected = (plan.payload)(offset as u64 * plan.partitions + *partition as u64);
            let value = record.value.as_deref().unwrap_or_default();
            assert_eq!(
                String::from_utf8_lossy(value),
                expected,
                "{}-{partition} at {offset}",
                plan.topic
            );
        }
    }
}

#[test]
fn a_full_disk_stops_producers_and_nobody_else() {
    if !in_a_namespace("a_full_disk_stops_producers_and_nobody_else") {
        return;
    }
    let model = tests::repository().join("tests/models/fraud_by_row");
    let mut config = String::new();
    for Plan {
        topic, partitions, ..
    } in PLANS
    {
        config += &format!(
            "[[topic]]\nname = \"{topic}\"\npartitions = {partitions}\n\
             configs = {{ \"internal.segment.bytes\" = 262144, \"file.delete.delay.ms\" = 0 }}\n"
        );
    }
    config += &format!(
        "[[topic]]\nname = \"spare\"\npartitions = 1\n\
         configs = {{ \"file.delete.delay.ms\" = 0 }}\n\
         [[model]]\nname = \"fraud\"\nsource = {model:?}\n\
         [[model_topic]]\nname = \"transactions.scored\"\ninput = \"transactions\"\n\
         model = \"fraud\"\non_error = {{ decode = \"dlq\", infer = \"dlq\" }}\n"
    );
    let mut milena = Milena::prepare("checkpoint_interval_ms = 1000", &config);
    let disk = milena.data_dir();
    mount(&disk);
    milena.restart();
    let admin = Admin::new(&milena);
    while milena.data_dir().join("spare-0").exists()
        && fs::metadata(disk.join("spare-0/00000000000000000000.log"))
            .expect("it")
            .len()
            < SPARE_BYTES as u64
    {
        admin.produce("spare", 100_000).expect("there is room");
    }
    fs::write(disk.join("filler"), vec![1; FILLER_BYTES]).expect("there is room");
    let group: BaseConsumer = milena.client_with(&[
        ("group.id", "readers"),
        ("auto.offset.reset", "earliest"),
        ("enable.auto.commit", "false"),
        ("session.timeout.ms", "6000"),
    ]);
    group.subscribe(&["orders"]).expect("subscribes");
    // Before it is full: its topic takes room, too.
    eventually("the group has its partitions", || {
        group.poll(Duration::from_millis(100));
        let assignment = group.assignment().expect("an assignment");
        (assignment.count() > 0).then_some(())
    });

    let loads: Vec<Load> = PLANS.map(|plan| Load::start(&milena, plan)).into();
    let _stop = StopLoads(loads.iter().map(|load| Arc::clone(&load.stop)).collect());
    // 1. It fills up. Producers are told; everybody else goes on.
    wait_until_full(&milena);
    let error = eventually("a producer is told", || {
        admin.produce("visits", 5_000).err()
    });
    let code = error.rdkafka_error_code();
    assert_eq!(code, Some(RDKafkaErrorCode::KafkaStorageError), "{error}");
    check_consumers(&milena, &group);
    let storage_error = Err(RDKafkaErrorCode::KafkaStorageError);
    for _ in 0..3 {
        assert_eq!(admin.create("half-made"), storage_error);
    }
    assert!(!disk.join("half-made-0").exists());
    assert!(is_full(&milena));
    // Once, however many requests there were; a commit that is cut back may leave room for a moment.
    let said = lines(&milena, FULL);
    assert_eq!(said, lines(&milena, ROOM) + 1, "{}", milena.log());
    assert!(said <= 3, "{}", milena.log());
    assert_eq!(milena.metric("milena_read_only_partitions"), 0.0);
    let halted = "milena_model_topic_halted{topic=\"transactions.scored\"}";
    assert_eq!(milena.metric(halted), 0.0);
    println!(
        "full at {:?}",
        loads.iter().map(Load::acknowledged).collect::<Vec<_>>()
    );

    // 2. A kill and a clean stop on the full disk: reads are served after each.
    milena.kill();
    milena.restart();
    wait_until_full(&milena);
    assert!(
        milena
            .read_topic("orders")
            .values()
            .all(|records| !records.is_empty())
    );
    assert!(milena.stop().success(), "a clean stop: {}", milena.log());
    milena.restart();
    wait_until_full(&milena);
    assert!(
        milena
            .read_topic("orders")
            .values()
            .all(|records| !records.is_empty())
    );
    assert_eq!(milena.metric("milena_read_only_partitions"), 0.0);

    // 3. Room by deleting a topic, until that is used up.
    let before: u64 = loads.iter().map(Load::acknowledged).sum();
    admin.delete("spare");
    wait_for_room(&milena);
    wait_until_full(&milena);
    let after: u64 = loads.iter().map(Load::acknowledged).sum();
    assert!(
        after > before,
        "nothing was written into the room of the topic"
    );
    println!("full again at {after}, {before} before the topic was deleted");

    // 4. Room by deleting records.
    let kept_from: BTreeMap<i32, i64> = milena
        .ends("orders")
        .into_iter()
        .map(|(p, end)| (p, end * 3 / 4))
        .collect();
    admin.delete_records("orders", &kept_from);
    wait_for_room(&milena);
    wait_until_full(&milena);
    println!(
        "full again at {}",
        loads.iter().map(Load::acknowledged).sum::<u64>()
    );
    assert_eq!(milena.metric("milena_read_only_partitions"), 0.0);

    // 5. Room from outside: everything ends well, without a restart.
    fs::remove_file(disk.join("filler")).expect("the filler");
    wait_for_room(&milena);
    for load in loads {
        load.finish();
    }
    assert_eq!(lines(&milena, FULL), lines(&milena, ROOM));
    assert_eq!(admin.create("half-made"), Ok(()));
    // It may have to join again: its coordinator was away twice.
    eventually("the group commits", || {
        group.poll(Duration::from_millis(100));
        group.commit_consumer_state(CommitMode::Sync).ok()
    });
    for plan in PLANS {
        let deleted = match plan.topic {
            "orders" => kept_from.clone(),
            _ => BTreeMap::new(),
        };
        let log = milena.read_topic_from(plan.topic, &deleted);
        check(plan, &log, &milena.ends(plan.topic), &deleted);
    }
    check_outputs(&milena);
    milena.stop();
    milena.restart();
    check_outputs(&milena);
}

/// One output for each input, in order, and one dead letter for each that is none.
fn check_outputs(milena: &Milena) {
    let plan = PLANS[2];
    let offsets = 0..(plan.records / plan.partitions) as i64;
    let is_bad = |offset: i64, partition: i32| {
        (offset as u64 * plan.partitions + partition as u64).is_multiple_of(BAD_EVERY)
    };
    for (topic, bad) in [
        ("transactions.scored", false),
        ("transactions.scored.dlq", true),
    ] {
        let expected = |partition: i32| -> Vec<i64> {
            offsets
                .clone()
                .filter(|offset| is_bad(*offset, partition) == bad)
                .collect()
        };
        eventually("every input has its output", || {
            let ends = milena.ends(topic);
            ends.iter()
                .all(|(partition, end)| *end == expected(*partition).len() as i64)
                .then_some(())
        });
        for (partition, records) in milena.read_topic(topic) {
            let sources: Vec<i64> = records
                .iter()
                .map(|record| {
                    let derived = record.header("milena.source.offset");
                    let source = derived.or_else(|| record.header("source")?.rsplit('/').next());
                    source.expect("lineage").parse().expect("an offset")
                })
                .collect();
            assert_eq!(sources, expected(partition), "{topic}-{partition}");
        }
    }
}
