//! A crash after every single system call.
//!
//! A script goes once through what a log does: first start, idempotent producers, rolls,
//! checkpoints, snapshots, deleted records, a topic that is created and deleted, a clean stop and
//! the start after it, and the commits of a model topic whose outputs go to other partitions than
//! its inputs, with a second model topic chained to it. The disk writes down every call. Then, for
//! each of them, what a crash right after it may leave is put into a folder and started from:
//! everything that was not durable kept (`kill -9`), nothing of it, and random parts of it. These
//! starts are crashed in turn, at a random call of theirs; after a `kill -9` what was not durable may
//! be lost then.
//!
//! Each start has to find: what was acknowledged as durable, nothing that was never written, no
//! gap, nothing out of order; indexes that lead to every record; producers that can go on and are
//! told of their duplicates; and, once the model topics have caught up, one output for each input.
//!
//! `MILENA_CRASH_IMAGES` is how many random images are made of each point, 1 where it is not set.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use faulty_disk::{FaultyDisk, Image, Journal, Keep, Random, Tree, write_tree};
use inference::stream_log::Commit;
use storage::batch::{BatchBuilder, Compression};
use storage::partition_log::{DeleteTo, Durability, ReadLimit};
use storage::{LogConfig, Offset, PartitionLog};
use tempfile::TempDir;

use super::world::{PARTITIONS, Runner, World, records, specs};
use crate::catalog::{NewTopic, TopicKind};

const CHAINED: &str = "
    [[model_topic]]
    name = 'scored'
    input = 'transactions'
    model = 'fraud'

    [[model_topic]]
    name = 'alerts'
    input = 'scored'
    model = 'fraud'
";
const TOPICS: [&str; 5] = [
    "transactions",
    "scored",
    "scored.dlq",
    "alerts",
    "alerts.dlq",
];
const PRODUCER: i64 = 7;

/// What somebody was told, and from when on it has to hold.
#[derive(Clone, Debug)]
struct Promise {
    /// After so many system calls.
    since: usize,
    what: Promised,
}

#[derive(Clone, Debug)]
enum Promised {
    /// Inputs below this offset are durable.
    Input { partition: i32, end: Offset },
    /// The log of an input begins here, or later.
    Start { partition: i32, start: Offset },
    /// Consumers have seen so many records.
    Seen {
        topic: &'static str,
        partition: i32,
        count: usize,
    },
    /// A topic is there, or is not.
    Topic { there: bool },
}

/// The script, and what it has promised so far.
struct Script {
    world: World,
    promises: Vec<Promise>,
    scored: Option<Runner>,
    alerts: Option<Runner>,
}

impl Script {
    fn promise(&mut self, what: Promised) {
        let since = self.world.disk.recorded();
        self.promises.push(Promise { since, what });
    }

    async fn start(&mut self) {
        if !self.world.is_open() {
            self.world.open().await;
        }
        small_segments(&self.world);
        let mut scored = Runner::start(self.world.log("scored")).await;
        scored.place = crosswise;
        self.scored = Some(scored);
        self.alerts = Some(Runner::start(self.world.log("alerts")).await);
    }

    /// Several batches of an idempotent producer.
    async fn produce(&mut self, partition: i32, batches: usize, durable: bool) {
        let log = self.world.partition("transactions", partition);
        for size in 1..=batches {
            let end = log.offsets().log_end_offset;
            log.append(&produced(partition, end, size)).unwrap();
        }
        if durable {
            let end = log.offsets().log_end_offset;
            log.wait(end, Durability::Disk).await.unwrap();
            self.promise(Promised::Input { partition, end });
        }
    }

    /// Both tasks of a model topic read what there is and commit it together, or one by one.
    async fn commit(&mut self, model_topic: &'static str, together: bool) {
        let (runner, input) = match model_topic {
            "scored" => (self.scored.as_mut().unwrap(), "transactions"),
            _ => (self.alerts.as_mut().unwrap(), "scored"),
        };
        let mut commits: Vec<Commit> = Vec::new();
        for partition in 0..PARTITIONS {
            let end = self.world.partition(input, partition).offsets();
            commits.extend(
                runner
                    .read(partition, end.high_watermark)
                    .await
                    .iter()
                    .cloned(),
            );
        }
        if together {
            runner.commit(&Arc::from(commits)).await.unwrap();
        } else {
            for commit in commits {
                runner.commit(&Arc::from([commit])).await.unwrap();
            }
        }
        for partition in 0..PARTITIONS {
            let count = self.world.values(model_topic, partition).len();
            self.promise(Promised::Seen {
                topic: model_topic,
                partition,
                count,
            });
        }
    }

    fn delete(&mut self, partition: i32, start: Offset) {
        let log = self.world.partition("transactions", partition);
        let wanted = [(log, DeleteTo::Offset(start))];
        let deleted = self.world.log_dir().delete_records(&wanted);
        assert_eq!(deleted[0].as_ref().unwrap(), &start);
        self.promise(Promised::Start { partition, start });
    }

    fn checkpoint(&self) {
        self.world.log_dir().checkpoint().unwrap();
    }

    async fn stop(&mut self) {
        (self.scored, self.alerts) = (None, None);
        self.world.log_dir().shutdown().unwrap();
        self.world.end(super::world::Crash::Kill);
    }

    async fn run(&mut self) {
        self.start().await;
        self.produce(0, 3, true).await;
        self.produce(1, 4, true).await;
        self.commit("scored", false).await;
        self.checkpoint();
        self.produce(0, 5, false).await;
        self.commit("alerts", true).await;
        self.commit("scored", true).await;
        self.create_other().await;
        self.produce(1, 5, true).await;
        self.checkpoint();
        self.delete(0, 9);
        self.produce(0, 4, true).await;
        self.commit("scored", false).await;
        self.commit("alerts", false).await;
        self.stop().await;
        self.start().await;
        self.produce(0, 2, false).await;
        self.produce(1, 3, true).await;
        self.delete_other().await;
        self.delete(1, 20);
        self.commit("scored", true).await;
        self.produce(1, 1, false).await;
        self.commit("alerts", true).await;
    }

    async fn create_other(&mut self) {
        let topic = NewTopic {
            name: "other".to_owned(),
            partitions: 1,
            configs: BTreeMap::new(),
            kind: TopicKind::Ordinary,
        };
        let created = self.world.catalog().create_topic(topic).await.unwrap();
        created.partitions[0].append(&produced(0, 0, 3)).unwrap();
        self.promise(Promised::Topic { there: true });
    }

    async fn delete_other(&mut self) {
        // From now on nobody is promised either.
        for promise in &mut self.promises {
            if let Promised::Topic { there: true } = promise.what {
                promise.what = Promised::Start {
                    partition: 0,
                    start: 0,
                };
            }
        }
        self.world.catalog().delete_topic("other").await.unwrap();
        self.promise(Promised::Topic { there: false });
    }
}

/// Segments of a few batches.
fn small_segments(world: &World) {
    let config = Arc::new(LogConfig {
        segment_bytes: 700,
        index_interval_bytes: 150,
        ..LogConfig::default()
    });
    for topic in TOPICS {
        for partition in &world.topic(topic).partitions {
            partition.set_config(Arc::clone(&config));
        }
    }
    for model_topic in ["scored", "alerts"] {
        world
            .topics(model_topic)
            .changelog
            .set_config(Arc::clone(&config));
    }
}

/// An output's partition depends on the input's number, not on where it comes from.
fn crosswise(_: i32, value: &[u8]) -> i32 {
    i32::from(value.last().is_some_and(|digit| digit % 2 == 1))
}

fn input(partition: i32, offset: Offset) -> String {
    format!("{partition}:{offset}")
}

/// One batch of the producer whose sequences are its offsets; a record's timestamp is its offset.
fn produced(partition: i32, base: Offset, count: usize) -> Bytes {
    let mut batch =
        BatchBuilder::new(Compression::None).producer(PRODUCER, 0, i32::try_from(base).unwrap());
    for offset in base..base + count as Offset {
        let value = input(partition, offset);
        batch.push(offset, Some(b"key"), Some(value.as_bytes()), &[]);
    }
    batch.build()
}

/// What was appended in all, by partition.
type Ends = BTreeMap<i32, Offset>;

/// Starts from what a crash has left, and checks everything.
struct Restart<'a> {
    world: World,
    kept: &'a [Promise],
    ends: &'a Ends,
}

impl Restart<'_> {
    /// Returns what the start and the catching up did, and what was promised meanwhile.
    async fn check(&mut self) -> (Journal, Vec<Promise>) {
        self.world.open().await;
        let failed = &self.world.recovered().failed;
        assert!(failed.is_empty(), "{failed:?}");
        small_segments(&self.world);
        for partition in 0..PARTITIONS {
            self.check_input(partition);
        }
        let before = self.check_seen();
        let mut promises = self.seen();
        self.check_other();
        let mut runners = self.start_runners().await;
        self.catch_up(&mut runners).await;
        self.check_outputs(&before);
        promises.extend(self.seen());
        let journal = self.world.disk.journal();
        self.go_on();
        self.catch_up(&mut runners).await;
        self.check_outputs(&before);
        (journal, promises)
    }

    /// What consumers of the outputs see now, they are to see for ever.
    fn seen(&self) -> Vec<Promise> {
        let since = self.world.disk.recorded();
        let outputs = ["scored", "alerts"].into_iter();
        outputs
            .flat_map(|topic| (0..PARTITIONS).map(move |partition| (topic, partition)))
            .map(|(topic, partition)| {
                let count = self.world.values(topic, partition).len();
                let what = Promised::Seen {
                    topic,
                    partition,
                    count,
                };
                Promise { since, what }
            })
            .collect()
    }

    fn promised<T: Ord>(&self, of: impl Fn(&Promised) -> Option<T>) -> Option<T> {
        self.kept
            .iter()
            .filter_map(|promise| of(&promise.what))
            .max()
    }

    /// The input is what was appended, up to some batch, and every way into it leads to the same.
    fn check_input(&self, partition: i32) {
        let log = self.world.partition("transactions", partition);
        let offsets = log.offsets();
        let durable = self.promised(|what| match what {
            Promised::Input { partition: of, end } if *of == partition => Some(*end),
            _ => None,
        });
        let start = self.promised(|what| match what {
            Promised::Start {
                partition: of,
                start,
            } if *of == partition => Some(*start),
            _ => None,
        });
        let end = offsets.log_end_offset;
        assert!(
            end >= durable.unwrap_or(0),
            "acknowledged inputs are lost: {offsets:?}"
        );
        assert!(end <= self.ends[&partition], "phantom inputs: {offsets:?}");
        assert!(
            offsets.log_start_offset >= start.unwrap_or(0),
            "{offsets:?}"
        );
        let found: Vec<(Offset, String)> = records(&log, ReadLimit::HighWatermark)
            .unwrap()
            .into_iter()
            .filter(|record| record.offset >= offsets.log_start_offset)
            .map(|record| (record.offset, text(record.value)))
            .collect();
        let expected: Vec<(Offset, String)> = (offsets.log_start_offset..end)
            .map(|offset| (offset, input(partition, offset)))
            .collect();
        assert_eq!(found, expected, "gap, loss or another order");
        check_indexes(&log);
    }

    /// What consumers have seen is there, in the same places.
    fn check_seen(&self) -> BTreeMap<(&'static str, i32), Vec<String>> {
        let mut before = BTreeMap::new();
        for topic in ["scored", "alerts"] {
            for partition in 0..PARTITIONS {
                let values = self.world.values(topic, partition);
                let seen = self.promised(|what| match what {
                    Promised::Seen {
                        topic: t,
                        partition: p,
                        count,
                    } if (*t, *p) == (topic, partition) => Some(*count),
                    _ => None,
                });
                assert!(
                    values.len() >= seen.unwrap_or(0),
                    "{topic}-{partition}: {values:?}"
                );
                check_indexes(&self.world.partition(topic, partition));
                before.insert((topic, partition), values);
            }
        }
        before
    }

    fn check_other(&self) {
        let there = self
            .kept
            .iter()
            .rev()
            .find_map(|promise| match promise.what {
                Promised::Topic { there } => Some(there),
                _ => None,
            });
        if let Some(there) = there {
            assert_eq!(self.world.catalog().topic("other").is_some(), there);
        }
    }

    async fn start_runners(&self) -> [Runner; 2] {
        let mut scored = Runner::start(self.world.log("scored")).await;
        scored.place = crosswise;
        [scored, Runner::start(self.world.log("alerts")).await]
    }

    async fn catch_up(&self, runners: &mut [Runner; 2]) {
        for (runner, input) in runners.iter_mut().zip(["transactions", "scored"]) {
            for partition in 0..PARTITIONS {
                let end = self.world.partition(input, partition).offsets();
                runner.run(partition, end.high_watermark).await.unwrap();
            }
        }
    }

    /// One output for each input, in the order of the inputs.
    fn check_outputs(&self, before: &BTreeMap<(&'static str, i32), Vec<String>>) {
        let outputs = |topic| -> Vec<Vec<String>> {
            let partitions = 0..PARTITIONS;
            partitions
                .map(|partition| self.world.values(topic, partition))
                .collect()
        };
        let (scored, alerts) = (outputs("scored"), outputs("alerts"));
        for ((topic, partition), before) in before {
            let now = if *topic == "scored" { &scored } else { &alerts };
            assert!(
                now[*partition as usize].starts_with(before),
                "{topic}-{partition}"
            );
        }
        let expected: BTreeSet<String> = (0..PARTITIONS)
            .flat_map(|partition| {
                let end = self.world.partition("transactions", partition).offsets();
                (0..end.log_end_offset)
                    .map(move |offset| format!("scored {}", input(partition, offset)))
            })
            .collect();
        let found: BTreeSet<String> = scored.iter().flatten().cloned().collect();
        assert_eq!(found, expected, "scored: not one output for each input");
        assert_eq!(
            scored.iter().flatten().count(),
            expected.len(),
            "scored: twice: {scored:?}"
        );
        for partition in &scored {
            for from in 0..PARTITIONS {
                let prefix = format!("scored {from}:");
                let numbers = partition
                    .iter()
                    .filter_map(|value| value.strip_prefix(&prefix));
                let numbers: Vec<i64> = numbers.map(|number| number.parse().unwrap()).collect();
                assert!(numbers.is_sorted_by(|a, b| a < b), "scored: {numbers:?}");
            }
        }
        for (scored, alerts) in scored.iter().zip(&alerts) {
            let expected: Vec<String> = scored
                .iter()
                .map(|value| format!("scored {value}"))
                .collect();
            assert_eq!(alerts, &expected, "alerts");
        }
    }

    /// The producer's retry is known, its next batch is taken, and what it appends is scored.
    fn go_on(&self) {
        for partition in 0..PARTITIONS {
            let log = self.world.partition("transactions", partition);
            let end = log.offsets().log_end_offset;
            let (_, last) = last_batch(&log).unwrap_or((0, 0));
            if last > 0 {
                let again = log
                    .append(&produced(partition, end - last, last as usize))
                    .unwrap();
                assert!(
                    again.duplicate && again.base_offset == end - last,
                    "{again:?}"
                );
            }
            let next = log.append(&produced(partition, end, 2)).unwrap();
            assert_eq!((next.base_offset, next.duplicate), (end, false));
        }
    }
}

/// The base offset and the number of records of the last batch that is there.
fn last_batch(log: &PartitionLog) -> Option<(Offset, Offset)> {
    let offsets = log.offsets();
    let last = offsets.log_end_offset - 1;
    if last < offsets.log_start_offset {
        return None;
    }
    let fetched = match log.read(last, 1, true, ReadLimit::HighWatermark).unwrap() {
        storage::partition_log::Read::Warm(fetched) => fetched,
        storage::partition_log::Read::Cold(cold) => cold.load().unwrap(),
    };
    let batch = storage::batch::Batch::parse(&fetched.records).unwrap();
    let base = batch.base_offset();
    Some((base, batch.last_offset() - base + 1))
}

/// Every offset and every timestamp leads to its record.
fn check_indexes(log: &PartitionLog) {
    let offsets = log.offsets();
    let all = records(log, ReadLimit::HighWatermark).unwrap();
    for record in all
        .iter()
        .filter(|record| record.offset >= offsets.log_start_offset)
    {
        let read = log
            .read(record.offset, 1, true, ReadLimit::HighWatermark)
            .unwrap();
        let fetched = match read {
            storage::partition_log::Read::Warm(fetched) => fetched,
            storage::partition_log::Read::Cold(cold) => cold.load().unwrap(),
        };
        let batch = storage::batch::Batch::parse(&fetched.records).unwrap();
        assert!((batch.base_offset()..=batch.last_offset()).contains(&record.offset));
        let found = log
            .offset_for_timestamp(record.timestamp, ReadLimit::HighWatermark)
            .unwrap()
            .map(|found| found.offset);
        let expected = all
            .iter()
            .filter(|other| other.offset >= offsets.log_start_offset)
            .find(|other| other.timestamp >= record.timestamp)
            .map(|other| other.offset);
        assert_eq!(found, expected, "the time {}", record.timestamp);
    }
}

fn text(value: Option<Bytes>) -> String {
    String::from_utf8(value.unwrap().to_vec()).unwrap()
}

/// A crash to be tried: after so many calls, with that left.
struct Case {
    calls: usize,
    what: String,
    keep: Keep,
    tree: Tree,
    /// After a `kill -9`: what of the tree is durable.
    image: Option<Image>,
}

/// What the crashes after each call may leave. What is the same as after the call before, and has
/// no more to keep, is not tried again.
fn cases(journal: &Journal, promises: &[Promise], subsets: u64) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut last: BTreeMap<String, (usize, Tree)> = BTreeMap::new();
    let mut images = journal.images();
    while let Some((calls, what, image)) = images.next() {
        let random = (0..subsets).map(|n| Keep::Some(calls as u64 * 1000 + n));
        for keep in [Keep::All, Keep::None].into_iter().chain(random) {
            let tree = image.tree(keep);
            let kind = match keep {
                Keep::Some(seed) => format!("some {}", seed % 1000),
                other => format!("{other:?}"),
            };
            let kept = promises
                .iter()
                .filter(|promise| promise.since <= calls)
                .count();
            if last
                .get(&kind)
                .is_some_and(|(promises, same)| *promises == kept && *same == tree)
            {
                continue;
            }
            last.insert(kind, (kept, tree.clone()));
            cases.push(Case {
                calls,
                what: what.to_owned(),
                keep,
                tree,
                image: (keep == Keep::All).then(|| image.clone()),
            });
        }
    }
    cases
}

async fn try_case(case: &Case, promises: &[Promise], ends: &Ends) {
    let kept = promises
        .iter()
        .filter(|promise| promise.since <= case.calls);
    let mut kept: Vec<Promise> = kept.cloned().collect();
    let (journal, promised) = restart(case, &kept, ends).await;
    let mut random = Random::new(match case.keep {
        Keep::Some(seed) => seed,
        Keep::All => case.calls as u64,
        // As `Keep::Some` may be.
        Keep::None => return,
    });
    let crashed = random.below(journal.len() as u64 + 1) as usize;
    let mut images = journal.images();
    while let Some((calls, what, image)) = images.next() {
        if calls == crashed {
            let keep = match random.below(2) {
                0 => Keep::None,
                _ => Keep::Some(random.next()),
            };
            let again = Case {
                calls,
                what: what.to_owned(),
                keep,
                tree: image.tree(keep),
                image: None,
            };
            let since = |promise: &Promise| promise.since <= crashed;
            kept.extend(promised.into_iter().filter(since));
            let place = Place("its start", &again);
            restart(&again, &kept, ends).await;
            place.left();
            return;
        }
    }
}

/// Starts from what is left, and checks.
async fn restart(case: &Case, kept: &[Promise], ends: &Ends) -> (Journal, Vec<Promise>) {
    let folder = scratch();
    let killed = case
        .image
        .as_ref()
        .map(|image| FaultyDisk::after_kill(image, folder.path()));
    if killed.is_none() {
        write_tree(&case.tree, folder.path()).unwrap();
    }
    let mut world = World::over(folder, specs(CHAINED));
    if let Some(disk) = killed {
        world.disk = disk;
    }
    world.disk.record();
    let mut restart = Restart { world, kept, ends };
    restart.check().await
}

/// A folder in memory, where the system has one: thousands of images are written.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

fn random_images() -> u64 {
    std::env::var("MILENA_CRASH_IMAGES").map_or(1, |images| images.parse().expect("a number"))
}

#[test]
fn a_crash_after_any_system_call_loses_nothing() {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    };
    let (journal, promises, ends) = runtime().block_on(async {
        let world = World::over(scratch(), specs(CHAINED));
        world.disk.record();
        let mut script = Script {
            world,
            promises: Vec::new(),
            scored: None,
            alerts: None,
        };
        script.run().await;
        let ends: Ends = (0..PARTITIONS)
            .map(|partition| {
                let log = script.world.partition("transactions", partition);
                (partition, log.offsets().log_end_offset)
            })
            .collect();
        (script.world.disk.journal(), script.promises, ends)
    });
    let cases = cases(&journal, &promises, random_images());
    println!("{} system calls, {} images", journal.len(), cases.len());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let runtime = runtime();
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let place = Place("the script", case);
                    runtime.block_on(try_case(case, &promises, &ends));
                    place.left();
                }
            });
        }
    });
}

/// Says where it was when a check fails.
struct Place<'a>(&'static str, &'a Case);

impl Place<'_> {
    /// All is well.
    fn left(self) {
        std::mem::forget(self);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Self(of, case) = self;
        let Case {
            calls, what, keep, ..
        } = case;
        eprintln!("crashed after {calls} calls of {of}, the last of them {what}, keeping {keep:?}");
        for (path, content) in &case.tree {
            let bytes = content.as_ref().map_or(0, Vec::len);
            eprintln!("    {bytes:>6} {}", path.display());
        }
    }
}
