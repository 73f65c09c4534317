//! Transactions into the input topic, over a Kafka connection with acks=all.
//!
//! At most [`MAX_UNSCORED`] transactions are without their score at any time: the feed waits for the
//! scores rather than fill the log ahead of them, so that the latency shown is the system's and not
//! the queue's.

use std::cell::RefCell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use inference::feature::hash::partition_of;
use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, Record,
    RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use tokio::sync::{Semaphore, mpsc, watch};

use super::QuickstartError;
use super::client::{ProduceReceiver, ProduceSender};
use super::tracker::{Alert, Sent, Tracker};
use super::transactions::{self, FRAUD_RATE, Labelled};

/// Transactions sent and not yet scored, at most.
pub const MAX_UNSCORED: usize = 4096;

/// The feed's own seed: the model was trained and evaluated on others.
pub const FEED_SEED: u64 = 20_260;

/// Transactions of one Produce request, at most.
const MAX_BATCH: u64 = 512;
/// How often a paced feed sends.
const PACE: Duration = Duration::from_millis(1);

/// What is sent, and how fast.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Number of the first transaction.
    pub first_index: u64,
    /// How many; `None` until stopped.
    pub records: Option<u64>,
    /// Per second; `None` as fast as they are scored.
    pub rate: Option<u32>,
    /// Of the input topic.
    pub partitions: i32,
}

/// A Produce request on its way: partition and transactions of each of its batches.
pub type Request = Vec<(i32, Vec<Sent>)>;

/// The transaction with this number in the feed.
pub fn transaction(index: u64) -> Labelled {
    transactions::transaction(FEED_SEED, index, FRAUD_RATE)
}

/// Sends until the plan is fulfilled or `stop` turns true. Each request is announced on `requests`
/// before it is written; `room` gives one permit per transaction and gets it back with its score.
pub async fn send(
    plan: Plan,
    mut sender: ProduceSender,
    requests: mpsc::UnboundedSender<Request>,
    room: &Semaphore,
    mut stop: watch::Receiver<bool>,
) -> Result<u64, QuickstartError> {
    let mut pace = plan.rate.map(Pace::new);
    let mut sent = 0;
    loop {
        let wanted = plan.records.map_or(u64::MAX, |records| records - sent);
        if wanted == 0 || *stop.borrow() {
            return Ok(sent);
        }
        let count = async {
            let due = match &mut pace {
                Some(pace) => pace.due().await,
                None => MAX_BATCH,
            };
            let count = due.min(MAX_BATCH).min(wanted);
            let permits = room.acquire_many(count as u32).await;
            permits.map_or(0, |permits| {
                permits.forget();
                count
            })
        };
        let count = tokio::select! {
            count = count => count,
            _ = stop.wait_for(|stop| *stop) => return Ok(sent),
        };
        if count == 0 {
            return Ok(sent);
        }
        let first = plan.first_index + sent;
        let (request, batches) = batches(first, count, plan.partitions)?;
        if requests.send(request).is_err() {
            return Ok(sent);
        }
        sender.send(batches).await?;
        sent += count;
        if let Some(pace) = &mut pace {
            pace.sent(count);
        }
    }
}

/// Takes acknowledgements until the feed has ended and all of its requests are answered.
pub async fn acknowledge(
    mut receiver: ProduceReceiver,
    mut requests: mpsc::UnboundedReceiver<Request>,
    tracker: &RefCell<Tracker>,
    room: &Semaphore,
    mut on_alert: impl FnMut(Alert),
) -> Result<(), QuickstartError> {
    while let Some(request) = requests.recv().await {
        let acknowledged = receiver.receive().await?;
        for (partition, batch) in request {
            let base_offset = acknowledged
                .iter()
                .find(|(index, _)| *index == partition)
                .map(|(_, base_offset)| *base_offset)
                .ok_or(QuickstartError::NotAcknowledged { partition })?;
            let (done, alerts) = tracker
                .borrow_mut()
                .acknowledged(partition, base_offset, batch);
            room.add_permits(done);
            alerts.into_iter().for_each(&mut on_alert);
        }
    }
    Ok(())
}

/// Keeps a rate: says how many are due, and forgives what a pause of over a second left undone.
struct Pace {
    per_second: f64,
    since: Instant,
    sent: f64,
}

impl Pace {
    fn new(per_second: u32) -> Pace {
        Pace {
            per_second: f64::from(per_second.max(1)),
            since: Instant::now(),
            sent: 0.0,
        }
    }

    async fn due(&mut self) -> u64 {
        loop {
            let due = self.since.elapsed().as_secs_f64() * self.per_second - self.sent;
            if due > self.per_second {
                self.sent += due - self.per_second;
            }
            if due >= 1.0 {
                return due as u64;
            }
            tokio::time::sleep(PACE).await;
        }
    }

    fn sent(&mut self, count: u64) {
        self.sent += count as f64;
    }
}

/// The transactions from `first` on, as one batch for each partition that gets any.
fn batches(
    first: u64,
    count: u64,
    partitions: i32,
) -> Result<(Request, Vec<(i32, Bytes)>), QuickstartError> {
    let mut records: Vec<Vec<Record>> = vec![Vec::new(); partitions.max(1) as usize];
    let mut sent: Vec<Vec<Sent>> = vec![Vec::new(); records.len()];
    let at = Instant::now();
    for index in first..first + count {
        let transaction = transaction(index).transaction;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ms = now.map_or(0, |now| now.as_millis() as i64);
        let key = Bytes::from(transaction.customer_id.clone());
        // Where Java's clients put them, too: all transactions of a customer are in one partition.
        let partition = partition_of(&key, partitions.max(1)) as usize;
        let value = serde_json::to_vec(&transaction).map_err(QuickstartError::encode)?;
        let position = records[partition].len();
        records[partition].push(record(position, now_ms, key, value.into()));
        sent[partition].push(Sent { index, at });
    }
    let options = RecordEncodeOptions {
        version: 2,
        compression: Compression::None,
    };
    let mut request = Vec::new();
    let mut encoded = Vec::new();
    for ((partition, records), sent) in (0..).zip(records).zip(sent) {
        if records.is_empty() {
            continue;
        }
        let mut batch = BytesMut::new();
        RecordBatchEncoder::encode(&mut batch, &records, &options)
            .map_err(QuickstartError::encode)?;
        request.push((partition, sent));
        encoded.push((partition, batch.freeze()));
    }
    Ok((request, encoded))
}

fn record(position: usize, timestamp_ms: i64, key: Bytes, value: Bytes) -> Record {
    Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
        producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        timestamp_type: TimestampType::Creation,
        offset: position as i64,
        // The encoder wants it one step with the offset; the batch's own is that of the first: -1.
        sequence: position as i32 - 1,
        timestamp: timestamp_ms,
        key: Some(key),
        value: Some(value),
        headers: Default::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::records::RecordBatchDecoder;

    #[test]
    fn batches_hold_every_transaction_once() {
        let (request, encoded) = batches(1000, 300, 4).unwrap();
        let mut indexes: Vec<u64> = request
            .iter()
            .flat_map(|(_, sent)| sent.iter().map(|sent| sent.index))
            .collect();
        indexes.sort_unstable();
        assert_eq!(indexes, (1000..1300).collect::<Vec<u64>>());
        for ((partition, sent), (encoded_partition, mut bytes)) in request.into_iter().zip(encoded)
        {
            assert_eq!(partition, encoded_partition);
            let sets = RecordBatchDecoder::decode_all(&mut bytes).unwrap();
            assert_eq!(sets.len(), 1, "one batch a partition");
            let records = &sets[0].records;
            assert_eq!(records.len(), sent.len());
            assert_eq!(records[0].sequence, -1);
            for (record, sent) in records.iter().zip(sent) {
                let json: serde_json::Value =
                    serde_json::from_slice(record.value.as_ref().unwrap()).unwrap();
                assert_eq!(json["tx_id"], format!("t-{:09}", sent.index));
                assert_eq!(
                    json["customer_id"].as_str().unwrap().as_bytes(),
                    record.key.as_ref().unwrap()
                );
            }
        }
    }
}
