//! A model topic from the outside: the broker's own code for JSON, model and output, in a process with
//! librdkafka.
//!
//! At least once: offsets are committed about every second, after all that was produced before is
//! acknowledged. Each output has its input's key and partition. The partitions are assigned, so that a
//! start waits for no group to gather. A record that is not what the model needs, or is not delivered,
//! ends the program. SIGTERM ends it after a last commit.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use benches::versus::model::kind::Kind;
use benches::versus::model::scorer::Scorer;
use clap::Parser;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

// As the broker has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_millis(100);
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);

/// Scores the records of a topic into another one.
#[derive(Debug, Parser)]
struct Options {
    /// What its records are.
    #[arg(long)]
    kind: Kind,
    /// A model folder.
    #[arg(long)]
    model: PathBuf,
    /// host:port
    #[arg(long)]
    bootstrap: String,
    /// The topic to read.
    #[arg(long)]
    input: String,
    /// The topic to write.
    #[arg(long)]
    output: String,
    /// Partitions of both.
    #[arg(long, value_delimiter = ',')]
    partitions: Vec<i32>,
    /// Whose offsets are committed.
    #[arg(long)]
    group: String,
    /// How long the producer waits for more records.
    #[arg(long, default_value_t = 1.0)]
    linger_ms: f64,
}

static STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn stop(_signal: libc::c_int) {
    STOP.store(true, Ordering::Relaxed);
}

/// Notices records that were not delivered.
#[derive(Default)]
struct Deliveries {
    failed: AtomicBool,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            eprintln!("not delivered: {error}");
            self.failed.store(true, Ordering::Relaxed);
        }
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    // SAFETY: the handler only stores to an atomic.
    unsafe { libc::signal(libc::SIGTERM, stop as *const () as libc::sighandler_t) };
    Pipeline::open(options)?.run()
}

struct Pipeline {
    options: Options,
    scorer: Scorer,
    consumer: BaseConsumer,
    producer: BaseProducer<Deliveries>,
    /// By partition, after what was produced and before what was committed.
    offsets: BTreeMap<i32, i64>,
}

impl Pipeline {
    fn open(options: Options) -> anyhow::Result<Self> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &options.bootstrap)
            .set("group.id", &options.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            // As much as a second takes, and looked after at once when there is room again.
            .set("queued.max.messages.kbytes", "16384")
            .set("fetch.queue.backoff.ms", "10")
            .create()?;
        let producer = ClientConfig::new()
            .set("bootstrap.servers", &options.bootstrap)
            .set("acks", "all")
            .set("linger.ms", options.linger_ms.to_string())
            .set("batch.size", "1000000")
            .set("queue.buffering.max.messages", "500000")
            .set("delivery.report.only.error", "true")
            .create_with_context(Deliveries::default())?;
        let mut assignment = TopicPartitionList::new();
        for partition in &options.partitions {
            assignment.add_partition_offset(&options.input, *partition, Offset::Invalid)?;
        }
        consumer.assign(&assignment)?;
        Ok(Self {
            scorer: Scorer::load(options.kind, &options.model)?,
            options,
            consumer,
            producer,
            offsets: BTreeMap::new(),
        })
    }

    fn run(mut self) -> anyhow::Result<()> {
        let mut committed = Instant::now();
        while !STOP.load(Ordering::Relaxed) {
            let batch = take(&self.consumer, self.options.kind.batch_records())?;
            if !batch.is_empty() {
                let (scorer, producer) = (&mut self.scorer, &self.producer);
                let values = batch
                    .iter()
                    .map(|message| message.payload().unwrap_or_default());
                scorer.score(values, |n, output| {
                    send(producer, &self.options.output, &batch[n], output)
                })?;
                for message in &batch {
                    self.offsets
                        .insert(message.partition(), message.offset() + 1);
                }
                producer.poll(Duration::ZERO);
            }
            drop(batch);
            if committed.elapsed() > COMMIT_INTERVAL {
                self.commit(CommitMode::Async)?;
                committed = Instant::now();
            }
        }
        self.commit(CommitMode::Sync)
    }

    /// Waits for all that was produced, and commits up to there.
    fn commit(&mut self, mode: CommitMode) -> anyhow::Result<()> {
        self.producer
            .flush(FLUSH_TIMEOUT)
            .context("records that were produced")?;
        if self.producer.context().failed.load(Ordering::Relaxed) {
            bail!("a record was not delivered");
        }
        if self.offsets.is_empty() {
            return Ok(());
        }
        let mut positions = TopicPartitionList::new();
        for (partition, offset) in std::mem::take(&mut self.offsets) {
            let offset = Offset::Offset(offset);
            positions.add_partition_offset(&self.options.input, partition, offset)?;
        }
        Ok(self.consumer.commit(&positions, mode)?)
    }
}

/// Waits for a first record, and takes what else is there.
fn take(consumer: &BaseConsumer, most: usize) -> anyhow::Result<Vec<BorrowedMessage<'_>>> {
    let mut batch = Vec::with_capacity(most);
    let mut wait = IDLE;
    while batch.len() < most
        && let Some(message) = consumer.poll(wait)
    {
        batch.push(message?);
        wait = Duration::ZERO;
    }
    Ok(batch)
}

fn send(
    producer: &BaseProducer<Deliveries>,
    topic: &str,
    input: &BorrowedMessage<'_>,
    value: &[u8],
) -> anyhow::Result<()> {
    let mut record = BaseRecord::to(topic)
        .partition(input.partition())
        .payload(value);
    record.key = input.key();
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) => {
                record = returned;
                producer.poll(Duration::from_millis(1));
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}
