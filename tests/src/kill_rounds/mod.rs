//! `kill -9` at random moments, again and again, under idempotent load, with an independent checker.
//!
//! Four producers outlive all kills and repeat what was not answered. Segments are small, checkpoints
//! frequent, records are deleted now and then, a model topic reads one of the topics, a group commits
//! what the checker has read; some kills hit the start after another kill. After every kill:
//!
//! - every record that was acknowledged is at the offset that its producer was told, once;
//! - each producer's records are in its order in each partition, and offsets have no gaps;
//! - there is at most one output for each input, in order and without a gap; in the end exactly one;
//! - a committed offset is what was committed last, and not beyond the end;
//! - deleted records stay deleted;
//! - the files, read by a parser of the checker's own, are whole but for the newest segment's end.

mod checker;
mod disk;
mod load;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::random::Random;
use crate::{Milena, PATIENCE, eventually};
use checker::Checker;
use load::Load;

struct Plan {
    name: &'static str,
    partitions: i32,
    /// A model topic reads it.
    scored: bool,
}

const TOPICS: [Plan; 2] = [
    Plan {
        name: "transactions",
        partitions: 4,
        scored: true,
    },
    Plan {
        name: "orders",
        partitions: 6,
        scored: false,
    },
];
const SCORED: &str = "transactions.scored";
const GROUP: &str = "readers";
/// Two for each topic.
const PRODUCERS: u64 = 4;
/// The longest that a round runs before it is killed.
const MAX_ROUND_MS: u64 = 1500;
/// Every so many rounds records are deleted, at about the moment of the kill.
const DELETE_EVERY: u64 = 5;
/// Every so many rounds the start is killed, too, up to [`MAX_START_MS`] after it began.
const KILL_START_EVERY: u64 = 4;
const MAX_START_MS: u64 = 120;

/// What happened.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Rounds with a kill under load.
    pub rounds: u64,
    /// Kills of a start.
    pub killed_starts: u64,
    /// Records that producers were told are durable; each was found.
    pub acknowledged: u64,
    /// Batches that were answered as duplicates, as far as was counted before the next kill.
    pub duplicates: u64,
    /// Outputs, one for each input of the model topic.
    pub outputs: i64,
    /// Commits of a group that were answered.
    pub commits: u64,
    /// Partitions whose records were deleted.
    pub deletions: u64,
    /// Bytes above the recovery points at the kills: what the starts had to scan.
    pub scanned_bytes: u64,
    /// Kills that left a torn batch.
    pub torn: u64,
    /// From exec to the first answer, milliseconds, ascending.
    pub starts_ms: Vec<u64>,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let median = self.starts_ms.get(self.starts_ms.len() / 2).unwrap_or(&0);
        let worst = self.starts_ms.last().unwrap_or(&0);
        write!(
            f,
            "{} rounds, {} starts killed: {} records acknowledged and found once, {} batches answered as \
             duplicates, {} outputs for as many inputs, {} commits, {} deletions of records, {:.1} MB \
             above recovery points, {} torn batches; starts took {median} ms (median), {worst} ms (worst)",
            self.rounds,
            self.killed_starts,
            self.acknowledged,
            self.duplicates,
            self.outputs,
            self.commits,
            self.deletions,
            self.scanned_bytes as f64 / 1e6,
            self.torn,
        )
    }
}

/// Runs `rounds` rounds; what is drawn is drawn from `seed`, when it happens is the machine's matter.
pub fn run(rounds: u64, seed: u64, verbose: bool) -> Result<Figures, String> {
    let model = crate::repository().join("tests/models/fraud_by_row");
    let mut config = String::new();
    for Plan {
        name, partitions, ..
    } in &TOPICS
    {
        config += &format!(
            "[[topic]]\nname = \"{name}\"\npartitions = {partitions}\n\
             configs = {{ \"internal.segment.bytes\" = 131072 }}\n"
        );
    }
    config += &format!(
        "[[model]]\nname = \"fraud\"\nsource = {model:?}\n\
         [[model_topic]]\nname = \"{SCORED}\"\ninput = \"transactions\"\nmodel = \"fraud\"\n"
    );
    let milena = Milena::start_with_broker("checkpoint_interval_ms = 300", &config);
    let loads = (0..PRODUCERS)
        .map(|number| Load::start(&milena, number, number as usize % TOPICS.len(), seed))
        .collect();
    let mut test = Test {
        milena,
        loads,
        random: Random::new(seed),
        checker: Checker::default(),
        committed: BTreeMap::new(),
        deleted: BTreeMap::new(),
        figures: Figures::default(),
    };
    for round in 1..=rounds {
        test.round(round)
            .map_err(|fault| format!("round {round}: {fault}\n{}", test.milena.log()))?;
        if verbose {
            println!("{}", test.figures);
        }
    }
    test.finish()
}

struct Test {
    milena: Milena,
    loads: Vec<Load>,
    random: Random,
    checker: Checker,
    /// What the group has committed last, and was told so.
    committed: BTreeMap<(usize, i32), i64>,
    /// The log starts that deletions were answered with.
    deleted: BTreeMap<i32, i64>,
    figures: Figures,
}

impl Test {
    fn round(&mut self, round: u64) -> Result<(), String> {
        self.commit();
        let deletion = round
            .is_multiple_of(DELETE_EVERY)
            .then(|| self.delete_records());
        std::thread::sleep(Duration::from_millis(self.random.below(MAX_ROUND_MS)));
        self.figures.duplicates += self.duplicates();
        self.milena.kill();
        self.figures.rounds += 1;
        if let Some(deletion) = deletion {
            // Of one that was not answered nothing is known.
            for (partition, start) in deletion.join().map_err(|_| "the deletion panicked")? {
                self.deleted.insert(partition, start);
                self.figures.deletions += 1;
            }
        }
        // What is acknowledged after the start may not be read yet.
        self.take_acknowledged();
        self.look_at_files()?;
        if round.is_multiple_of(KILL_START_EVERY) {
            self.milena.spawn();
            std::thread::sleep(Duration::from_millis(self.random.below(MAX_START_MS)));
            self.milena.kill();
            self.figures.killed_starts += 1;
            self.look_at_files()?;
        }
        let began = Instant::now();
        self.milena.restart();
        self.figures
            .starts_ms
            .push(began.elapsed().as_millis() as u64);
        self.checker.read(&self.milena)?;
        self.figures.acknowledged = self.checker.acknowledged;
        self.check_group()?;
        self.check_log_starts()
    }

    fn take_acknowledged(&mut self) {
        for load in &self.loads {
            self.checker.expect(load.take_acknowledged());
        }
    }

    /// Commits what the checker has read.
    fn commit(&mut self) {
        let group: BaseConsumer = self
            .milena
            .client_with(&[("group.id", GROUP), ("enable.auto.commit", "false")]);
        let mut offsets = TopicPartitionList::new();
        let mut positions = BTreeMap::new();
        for (topic, plan) in TOPICS.iter().enumerate() {
            for (partition, position) in self.checker.positions(topic) {
                offsets
                    .add_partition_offset(plan.name, partition, Offset::Offset(position))
                    .expect("an offset");
                positions.insert((topic, partition), position);
            }
        }
        // What a commit came to that was not answered is not known.
        self.committed.clear();
        if group.commit(&offsets, CommitMode::Sync).is_ok() {
            self.committed = positions;
            self.figures.commits += 1;
        }
    }

    fn check_group(&self) -> Result<(), String> {
        let group: BaseConsumer = self.milena.client_with(&[("group.id", GROUP)]);
        for (topic, plan) in TOPICS.iter().enumerate() {
            let mut asked = TopicPartitionList::new();
            asked.add_partition_range(plan.name, 0, plan.partitions - 1);
            let found = group
                .committed_offsets(asked, PATIENCE)
                .map_err(|error| format!("committed offsets: {error}"))?;
            let ends = self.milena.ends(plan.name);
            for element in found.elements() {
                let (partition, offset) = (element.partition(), element.offset().to_raw());
                let expected = self.committed.get(&(topic, partition)).copied();
                let is_other = expected.is_some() && offset != expected;
                if is_other || offset > ends.get(&partition).copied() {
                    return Err(format!(
                        "{}-{partition}: offset {offset:?} is committed, {expected:?} was, the end is {:?}",
                        plan.name,
                        ends.get(&partition)
                    ));
                }
            }
        }
        Ok(())
    }

    /// Begins to delete half of what was read of the topic that no model topic reads. Answers which
    /// partitions were answered, and their starts.
    fn delete_records(&mut self) -> std::thread::JoinHandle<Vec<(i32, i64)>> {
        let topic = TOPICS.len() - 1;
        let name = TOPICS[topic].name;
        let mut offsets = TopicPartitionList::new();
        for (partition, position) in self.checker.positions(topic) {
            let known = self.deleted.get(&partition).copied().unwrap_or(0);
            let start = known + (position - known) / 2;
            offsets
                .add_partition_offset(name, partition, Offset::Offset(start))
                .expect("an offset");
        }
        let client: AdminClient<DefaultClientContext> = self.milena.client_with(&[]);
        let wait = Duration::from_millis(self.random.below(MAX_ROUND_MS / 5));
        std::thread::spawn(move || {
            std::thread::sleep(wait);
            let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(3)));
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            let deleted = runtime.block_on(client.delete_records(&offsets, &options));
            let Ok(deleted) = deleted else {
                return Vec::new();
            };
            let start = |partition: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
                partition.error().ok()?;
                Some((partition.partition(), partition.offset().to_raw()?))
            };
            deleted.elements().iter().filter_map(start).collect()
        })
    }

    /// Deleted records stay deleted, and no others are.
    fn check_log_starts(&self) -> Result<(), String> {
        let topic = TOPICS.len() - 1;
        let name = TOPICS[topic].name;
        let consumer: BaseConsumer = self.milena.client_with(&[("group.id", "unused")]);
        for (partition, position) in self.checker.positions(topic) {
            let (start, _) = consumer
                .fetch_watermarks(name, partition, PATIENCE)
                .map_err(|error| format!("{name}-{partition}: {error}"))?;
            let known = self.deleted.get(&partition).copied().unwrap_or(0);
            if start < known || start > position {
                return Err(format!(
                    "{name}-{partition} begins at {start}; {known} was answered, {position} was read"
                ));
            }
        }
        Ok(())
    }

    fn look_at_files(&mut self) -> Result<(), String> {
        let data_dir = self.milena.data_dir();
        let recovery_points = disk::recovery_points(&data_dir);
        for Plan {
            name, partitions, ..
        } in &TOPICS
        {
            for partition in 0..*partitions {
                let key = ((*name).to_owned(), partition);
                let from = recovery_points.get(&key).copied().unwrap_or(0);
                let files = disk::read(&data_dir.join(format!("{name}-{partition}")), from)?;
                self.figures.scanned_bytes += files.bytes_from;
                self.figures.torn += u64::from(files.torn_bytes > 0);
            }
        }
        Ok(())
    }

    fn duplicates(&self) -> u64 {
        self.milena
            .metric_if_there("milena_produce_duplicates_total")
            .unwrap_or(0.0) as u64
    }

    fn finish(mut self) -> Result<Figures, String> {
        let mut sent = 0;
        for mut load in std::mem::take(&mut self.loads) {
            sent += load.finish()?;
            self.checker.expect(load.take_acknowledged());
        }
        self.figures.duplicates += self.duplicates();
        let inputs = self.milena.ends(TOPICS[0].name);
        eventually("every input has its output", || {
            (self.milena.ends(SCORED) == inputs).then_some(())
        });
        self.checker.read(&self.milena)?;
        self.checker.check_complete(sent)?;
        if !self.milena.stop().success() {
            return Err(format!("no clean stop:\n{}", self.milena.log()));
        }
        for (topic, plan) in TOPICS.iter().enumerate() {
            for (partition, end) in self.checker.positions(topic) {
                let dir = self
                    .milena
                    .data_dir()
                    .join(format!("{}-{partition}", plan.name));
                let files = disk::read(&dir, 0)?;
                let known = self.deleted.get(&partition).copied().unwrap_or(0);
                let starts_late = files.start.is_some_and(|start| start > known);
                let deletes = topic == TOPICS.len() - 1;
                if files.end != end || files.torn_bytes > 0 || starts_late && !deletes {
                    return Err(format!("{}: {files:?}, {end} were read", dir.display()));
                }
            }
        }
        self.figures.acknowledged = self.checker.acknowledged;
        self.figures.outputs = self.checker.outputs();
        self.figures.starts_ms.sort_unstable();
        Ok(self.figures)
    }
}
