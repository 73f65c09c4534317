//! Groups of consumers: each group reads every record of a topic, up to a target.
//!
//! Where a group starts is decided before anything is produced: as explicit offsets with
//! `--assign`, else as the group's committed offsets, which are set first. A group in which a rebalance
//! hands a partition on may read a record twice, as every group may.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, DefaultConsumerContext};

use crate::args::{Consuming, Target};
use crate::clock::seconds_to_us;
use crate::error::{Error, Result};
use crate::meter::Lane;
use crate::reader::Reader;
use crate::run::{Run, Shared};
use crate::settings;
use crate::topic::Topic;

/// How long a consumer waits before it looks whether its group is done.
const LOOK: Duration = Duration::from_millis(20);

/// What the consumers of a group have read together, and when they are done.
#[derive(Debug)]
pub struct Group {
    records: AtomicU64,
    bytes: AtomicU64,
    target_records: AtomicU64,
    target_bytes: u64,
}

impl Group {
    fn new(records: Option<u64>, bytes: Option<u64>) -> Self {
        Self {
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            target_records: AtomicU64::new(records.unwrap_or(u64::MAX)),
            target_bytes: bytes.unwrap_or(u64::MAX),
        }
    }

    /// It is done once it has read so many.
    pub fn set_target(&self, records: u64) {
        self.target_records.store(records, Ordering::SeqCst);
    }

    fn done(&self) -> bool {
        self.records.load(Ordering::SeqCst) >= self.target_records.load(Ordering::SeqCst)
            || self.bytes.load(Ordering::SeqCst) >= self.target_bytes
    }

    /// A consumer has read records of these sizes; how many of them count, and their bytes.
    fn add(&self, sizes: &[usize]) -> (u64, u64) {
        let before = self.records.fetch_add(sizes.len() as u64, Ordering::SeqCst);
        let room = self
            .target_records
            .load(Ordering::SeqCst)
            .saturating_sub(before);
        let records = sizes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        let bytes = sizes[..records].iter().sum::<usize>() as u64;
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
        (records as u64, bytes)
    }
}

/// The groups of a run.
#[derive(Debug)]
pub struct Groups {
    /// One by one.
    pub groups: Vec<Arc<Group>>,
    joined: Arc<AtomicUsize>,
    consumers: usize,
}

/// When the consumers of a run are done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Until {
    /// Each group has read so many records.
    pub records: Option<u64>,
    /// Each group has read so many bytes.
    pub bytes: Option<u64>,
    /// So long after a consumer has its partitions.
    pub seconds: Option<f64>,
}

impl Groups {
    /// Starts all consumers; they read from `offsets` on.
    pub fn spawn(
        run: &mut Run,
        target: &Target,
        consuming: &Consuming,
        topic: &Topic,
        offsets: &TopicPartitionList,
        until: Until,
    ) -> Result<Self> {
        let consumers = usize::from(consuming.consumers);
        topic.check_consumers(consumers)?;
        let mut groups = Self {
            groups: Vec::new(),
            joined: Arc::default(),
            consumers: consumers * usize::from(consuming.groups),
        };
        for number in 1..=consuming.groups {
            let group = Arc::new(Group::new(until.records, until.bytes));
            groups.groups.push(Arc::clone(&group));
            let name = format!("{}-{number}", consuming.group);
            let group_id = (!consuming.assign).then_some(name.as_str());
            let config = settings::consumer(target, group_id, consuming.isolation_level);
            for index in 0..consumers {
                let client: BaseConsumer = settings::create(&config, DefaultConsumerContext)?;
                if index == 0 && !consuming.assign {
                    client
                        .commit(offsets, CommitMode::Sync)
                        .map_err(Error::kafka(format!("first offsets of group {name:?}")))?;
                }
                let work = Work {
                    assigned: match consuming.assign {
                        true => Some(topic.deal(offsets, index, consumers)?),
                        false => None,
                    },
                    client,
                    topic: topic.name.clone(),
                    shared: Arc::clone(run.shared()),
                    lane: run.consumer_lane(),
                    group: Arc::clone(&group),
                    joined: Arc::clone(&groups.joined),
                    seconds: until.seconds,
                };
                run.spawn(format!("{name} consumer {index}"), move || work.run())?;
            }
        }
        Ok(groups)
    }

    /// Whether every consumer has partitions.
    pub fn joined(&self) -> bool {
        self.joined.load(Ordering::SeqCst) == self.consumers
    }
}

/// What a consumer's thread has to do.
struct Work {
    client: BaseConsumer,
    topic: String,
    assigned: Option<TopicPartitionList>,
    shared: Arc<Shared>,
    lane: Arc<Lane>,
    group: Arc<Group>,
    joined: Arc<AtomicUsize>,
    seconds: Option<f64>,
}

impl Work {
    fn run(self) -> Result<()> {
        let shared = self.shared;
        let mut reader = match &self.assigned {
            Some(offsets) => {
                let now_us = shared.clock.now_us();
                if now_us >= shared.counted_from_us() {
                    self.lane.begin(now_us);
                }
                Reader::assigned(self.client, offsets)?
            }
            None => Reader::member(self.client, &self.topic)?,
        };
        let mut deadline_us = u64::MAX;
        let mut joined = false;
        let mut sizes = Vec::new();
        while !self.group.done() && !shared.stopped() && shared.clock.now_us() < deadline_us {
            sizes.clear();
            reader.read(LOOK, |read| match read {
                Ok(record) => sizes.push(record.bytes),
                Err(reason) => self.lane.lock().fail(reason),
            });
            let now_us = shared.clock.now_us();
            if !joined && reader.joined()? {
                joined = true;
                deadline_us = self.seconds.map_or(u64::MAX, |s| now_us + seconds_to_us(s));
                self.joined.fetch_add(1, Ordering::SeqCst);
            }
            if !sizes.is_empty() {
                let (records, bytes) = self.group.add(&sizes);
                let mut counts = self.lane.lock();
                counts.moved = true;
                if now_us >= shared.counted_from_us() {
                    counts.began_us.get_or_insert(now_us);
                    counts.count(records, bytes, now_us);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_counts_up_to_its_target() {
        let group = Group::new(Some(5), None);
        assert_eq!(group.add(&[10, 20, 30]), (3, 60));
        assert!(!group.done());
        assert_eq!(group.add(&[1, 2, 3, 4]), (2, 3));
        assert!(group.done());
        assert_eq!(group.add(&[7]), (0, 0));
    }

    #[test]
    fn a_target_can_come_later() {
        let group = Group::new(None, None);
        group.add(&[1; 500]);
        assert!(!group.done());
        group.set_target(500);
        assert!(group.done());
    }

    #[test]
    fn bytes_are_a_target_too() {
        let group = Group::new(None, Some(100));
        group.add(&[60]);
        assert!(!group.done());
        assert_eq!(group.add(&[60]), (1, 60));
        assert!(group.done());
    }
}
