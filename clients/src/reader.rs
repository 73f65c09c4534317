//! Reads batches of records from librdkafka, without copies.
//!
//! With assigned partitions whole batches come from librdkafka's queue by its C interface
//! (`rd_kafka_consume_batch_queue`), which rdkafka doesn't wrap; a group's rebalances need rdkafka's own
//! poll, one record at a time.

use std::ptr;
use std::slice;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings::{
    rd_kafka_consume_batch_queue, rd_kafka_consume_queue, rd_kafka_message_destroy,
    rd_kafka_message_t, rd_kafka_queue_destroy, rd_kafka_queue_get_consumer, rd_kafka_queue_t,
    rd_kafka_resp_err_t,
};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;

use crate::error::{Error, Result};
use crate::producer::error_name;

/// At most so many records in a batch: what is there is taken before more comes.
const BATCH: usize = 512;

/// A consumer that reads.
pub enum Reader {
    /// Partitions that don't change.
    Assigned(Queue),
    /// A member of a group.
    Member(Member),
}

/// A record, or why there is none.
pub type Read<'a> = std::result::Result<Record<'a>, String>;

/// A record, while it is in librdkafka's memory.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its key; a null key is empty.
    pub key: &'a [u8],
    /// The size of its key and value.
    pub bytes: usize,
}

impl Reader {
    /// Reads from these offsets on.
    pub fn assigned(consumer: BaseConsumer, offsets: &TopicPartitionList) -> Result<Self> {
        consumer
            .assign(offsets)
            .map_err(Error::kafka("assigning partitions"))?;
        Ok(Self::Assigned(Queue::of(consumer)))
    }

    /// Joins the group, whose committed offsets become `offsets` first where it has no members.
    pub fn member(consumer: BaseConsumer, topic: &str) -> Result<Self> {
        consumer
            .subscribe(&[topic])
            .map_err(Error::kafka(format!("subscribing to {topic:?}")))?;
        Ok(Self::Member(Member {
            consumer,
            joined: false,
        }))
    }

    /// Whether it has partitions, or had once.
    pub fn joined(&mut self) -> Result<bool> {
        match self {
            Self::Assigned(_) => Ok(true),
            Self::Member(member) => member.joined(),
        }
    }

    /// Waits for a record, and passes it and those that are there already to `each`; how many there were.
    pub fn read(&mut self, wait: Duration, each: impl FnMut(Read<'_>)) -> usize {
        match self {
            Self::Assigned(queue) => queue.read(wait, each),
            Self::Member(member) => member.read(wait, each),
        }
    }
}

/// A member of a group.
pub struct Member {
    consumer: BaseConsumer,
    joined: bool,
}

impl Member {
    fn joined(&mut self) -> Result<bool> {
        if !self.joined {
            let assignment = self
                .consumer
                .assignment()
                .map_err(Error::kafka("the assignment of a consumer"))?;
            self.joined = assignment.count() > 0;
        }
        Ok(self.joined)
    }

    fn read(&mut self, mut wait: Duration, mut each: impl FnMut(Read<'_>)) -> usize {
        let mut count = 0;
        while count < BATCH {
            let Some(result) = self.consumer.poll(wait) else {
                break;
            };
            wait = Duration::ZERO;
            count += 1;
            match result {
                Ok(message) => each(Ok(Record {
                    key: message.key().unwrap_or_default(),
                    bytes: message.payload_len() + message.key_len(),
                })),
                Err(error) => each(Err(error_name(&error))),
            }
        }
        count
    }
}

/// The queue of a consumer whose partitions are assigned.
pub struct Queue {
    queue: *mut rd_kafka_queue_t,
    batch: Vec<*mut rd_kafka_message_t>,
    /// Outlives `queue`, which is destroyed in `drop`, before the fields.
    _consumer: BaseConsumer,
}

impl Queue {
    fn of(consumer: BaseConsumer) -> Self {
        // SAFETY: the consumer is alive; the reference that is returned is given back in `drop`.
        let queue = unsafe { rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        Self {
            queue,
            batch: vec![ptr::null_mut(); BATCH],
            _consumer: consumer,
        }
    }

    fn read(&mut self, wait: Duration, mut each: impl FnMut(Read<'_>)) -> usize {
        // A batch call waits until the batch is full, so the first record is waited for alone.
        // SAFETY: the queue is alive, and is used by this thread only.
        let first = unsafe { rd_kafka_consume_queue(self.queue, wait.as_millis() as i32) };
        if first.is_null() {
            return 0;
        }
        self.batch[0] = first;
        // SAFETY: as above; the pointers are written to a buffer of that many.
        let more = unsafe {
            rd_kafka_consume_batch_queue(self.queue, 0, self.batch[1..].as_mut_ptr(), BATCH - 1)
        };
        let count = 1 + usize::try_from(more).unwrap_or(0);
        for &message in &self.batch[..count] {
            // SAFETY: each of the first `count` pointers is to a message that is ours until it is
            // destroyed, and nothing of it is kept beyond that.
            unsafe {
                each(read_message(&*message));
                rd_kafka_message_destroy(message);
            }
        }
        count
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: it is ours, from `rd_kafka_queue_get_consumer`, and not used after this.
        unsafe { rd_kafka_queue_destroy(self.queue) };
    }
}

/// # Safety
///
/// `message` is as librdkafka gave it.
unsafe fn read_message(message: &rd_kafka_message_t) -> Read<'_> {
    if message.err != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        let code = RDKafkaErrorCode::from(message.err);
        return Err(error_name(&KafkaError::MessageConsumption(code)));
    }
    let key = match message.key.is_null() {
        true => &[][..],
        // SAFETY: librdkafka's key has `key_len` bytes and lives as long as the message.
        false => unsafe { slice::from_raw_parts(message.key.cast::<u8>(), message.key_len) },
    };
    Ok(Record {
        key,
        bytes: message.len + message.key_len,
    })
}
