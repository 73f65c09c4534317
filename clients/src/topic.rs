//! The topic: created where it is not there, its partitions, and the offsets that a run starts from.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, DefaultConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use crate::args::{From, Isolation, Target};
use crate::error::{Error, Result};
use crate::settings;

/// A topic that is there.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its partitions, 0 and up.
    pub partitions: Vec<i32>,
}

impl Topic {
    /// The topic of the run, created if need be and if `--partitions` is given.
    pub fn prepare(target: &Target, patience: Duration) -> Result<Self> {
        let client = client(target, Isolation::Committed)?;
        let found = find(&client, target, &target.topic, patience)?;
        let wanted = target.partitions.map(|n| n as usize);
        match (found, wanted) {
            (Some(topic), Some(wanted)) if topic.partitions.len() != wanted => {
                Err(Error::OtherPartitions {
                    topic: topic.name,
                    actual: topic.partitions.len(),
                    wanted,
                })
            }
            (Some(topic), _) => Ok(topic),
            (None, None) => Err(Error::NoTopic {
                topic: target.topic.clone(),
                hint: ", and no --partitions says how to create it",
            }),
            (None, Some(wanted)) => {
                create(target, wanted, patience)?;
                wait_for(&client, target, wanted, patience)
            }
        }
    }

    /// A topic that must be there.
    pub fn existing(target: &Target, name: &str, patience: Duration) -> Result<Self> {
        let client = client(target, Isolation::Committed)?;
        find(&client, target, name, patience)?.ok_or_else(|| Error::NoTopic {
            topic: name.to_owned(),
            hint: "",
        })
    }

    /// Where a run that starts now starts in each partition: an offset, whatever is written later. The end
    /// is where a consumer of that isolation would stop.
    pub fn start(
        &self,
        target: &Target,
        from: From,
        isolation: Isolation,
        patience: Duration,
    ) -> Result<TopicPartitionList> {
        // ListOffsets takes Kafka's codes for the two ends as if they were timestamps.
        let end = match from {
            From::Earliest => Offset::Beginning,
            From::Latest => Offset::End,
        };
        let doing = || format!("offsets of topic {:?}", self.name);
        let mut asked = TopicPartitionList::with_capacity(self.partitions.len());
        for &partition in &self.partitions {
            asked
                .add_partition_offset(&self.name, partition, end)
                .map_err(Error::kafka(doing()))?;
        }
        let offsets = client(target, isolation)?
            .offsets_for_times(asked, patience)
            .map_err(Error::kafka(doing()))?;
        for element in offsets.elements() {
            element.error().map_err(Error::kafka(doing()))?;
        }
        Ok(offsets)
    }

    /// The part of consumer `index` of `consumers` of such offsets.
    pub fn deal(
        &self,
        offsets: &TopicPartitionList,
        index: usize,
        consumers: usize,
    ) -> Result<TopicPartitionList> {
        let mut part = TopicPartitionList::new();
        for element in offsets.elements() {
            if element.partition() as usize % consumers == index {
                part.add_partition_offset(&self.name, element.partition(), element.offset())
                    .map_err(Error::kafka(format!("offsets of topic {:?}", self.name)))?;
            }
        }
        Ok(part)
    }

    /// Refuses more consumers in a group than there are partitions: the others would have nothing.
    pub fn check_consumers(&self, wanted: usize) -> Result<()> {
        let partitions = self.partitions.len();
        match wanted > partitions {
            true => Err(Error::TooManyConsumers {
                wanted,
                partitions,
                topic: self.name.clone(),
            }),
            false => Ok(()),
        }
    }
}

fn client(target: &Target, isolation: Isolation) -> Result<BaseConsumer> {
    let config = settings::consumer(target, None, isolation);
    settings::create(&config, DefaultConsumerContext)
}

fn find(
    client: &BaseConsumer,
    target: &Target,
    name: &str,
    patience: Duration,
) -> Result<Option<Topic>> {
    let doing = format!("topic {name:?} at {}", target.bootstrap);
    let metadata = client
        .fetch_metadata(Some(name), patience)
        .map_err(Error::kafka(doing.clone()))?;
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
        return Ok(None);
    };
    match topic.error().map(RDKafkaErrorCode::from) {
        None => {
            let mut partitions: Vec<i32> = topic.partitions().iter().map(|p| p.id()).collect();
            partitions.sort_unstable();
            Ok(Some(Topic {
                name: name.to_owned(),
                partitions,
            }))
        }
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
            Ok(None)
        }
        Some(code) => Err(Error::kafka(doing)(
            rdkafka::error::KafkaError::MetadataFetch(code),
        )),
    }
}

fn create(target: &Target, partitions: usize, patience: Duration) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> =
        settings::create(&settings::admin(target), DefaultClientContext)?;
    let mut topic = NewTopic::new(&target.topic, partitions as i32, TopicReplication::Fixed(1));
    for (key, value) in &target.topic_config {
        topic = topic.set(key, value);
    }
    let options = AdminOptions::new().operation_timeout(Some(patience));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|source| Error::System {
            doing: "a runtime for admin requests".to_owned(),
            source,
        })?;
    let created = runtime
        .block_on(admin.create_topics([&topic], &options))
        .map_err(Error::kafka(format!("creating topic {:?}", target.topic)))?;
    for result in created {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, reason)) => return Err(Error::CreateTopic { topic, reason }),
        }
    }
    Ok(())
}

fn wait_for(
    client: &BaseConsumer,
    target: &Target,
    partitions: usize,
    patience: Duration,
) -> Result<Topic> {
    let deadline = Instant::now() + patience;
    loop {
        match find(client, target, &target.topic, patience)? {
            Some(topic) if topic.partitions.len() == partitions => return Ok(topic),
            _ if Instant::now() > deadline => {
                return Err(Error::NoTopic {
                    topic: target.topic.clone(),
                    hint: " although it was created",
                });
            }
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
