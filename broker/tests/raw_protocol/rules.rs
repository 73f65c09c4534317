//! Rules of the data APIs that are easily got wrong, over TCP: what is refused, with which code, and
//! what is stored.

use broker::api::{list_offsets, produce};
use bytes::{BufMut, Bytes};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{ApiVersionsRequest, CreateTopicsRequest, ListOffsetsRequest};
use kafka_protocol::protocol::StrBytes;
use storage::batch::{Batch, BatchBuilder, Compression, layout, records};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

use super::{
    Client, TIMESTAMP, TestServer, batch, fetch_request, header, produce_request, put_one,
    put_string, topic_name,
};

const CORRUPT_MESSAGE: i16 = 2;
pub(super) const MESSAGE_TOO_LARGE: i16 = 10;
const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
const INVALID_PRODUCER_EPOCH: i16 = 47;
pub(super) const INVALID_RECORD: i16 = 87;

pub(super) const CODECS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

pub(super) async fn create(
    client: &mut Client,
    name: &str,
    configs: &[(&'static str, &'static str)],
) {
    let configs = configs.iter().map(|(key, value)| {
        CreatableTopicConfig::default()
            .with_name(StrBytes::from_static_str(key))
            .with_value(Some(StrBytes::from_static_str(value)))
    });
    let topic = CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(1)
        .with_replication_factor(1)
        .with_configs(configs.collect());
    let request = CreateTopicsRequest::default()
        .with_timeout_ms(30_000)
        .with_topics(vec![topic]);
    assert_eq!(client.call(5, &request).await.topics[0].error_code, 0);
}

/// Error code and base offset.
pub(super) async fn produced(client: &mut Client, topic: &str, records: Bytes) -> (i16, i64) {
    let request = produce_request(topic, Uuid::nil(), 12, records);
    let response = client.call(12, &request).await;
    let partition = &response.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

/// The batches from `offset` on.
pub(super) async fn fetched(client: &mut Client, topic: &str, offset: i64) -> Bytes {
    let request = fetch_request(topic, Uuid::nil(), 12, offset);
    let mut response = client.call(12, &request).await;
    let partition = response.responses.remove(0).partitions.remove(0);
    assert_eq!(partition.error_code, 0);
    partition.records.unwrap_or_default()
}

/// A batch of `count` records of producer 7.
fn idempotent(epoch: i16, sequence: i32, count: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None).producer(7, epoch, sequence);
    for _ in 0..count {
        builder.push(TIMESTAMP, None, Some(b"value"), &[]);
    }
    builder.build()
}

/// The batch with some bytes replaced and its CRC made right again.
pub(super) fn altered(batch: &Bytes, position: usize, bytes: &[u8]) -> Bytes {
    let mut altered = batch.to_vec();
    altered[position..position + bytes.len()].copy_from_slice(bytes);
    let crc = Batch::parse(&altered).unwrap().compute_crc();
    altered[layout::CRC..layout::CRC + 4].copy_from_slice(&crc.to_be_bytes());
    altered.into()
}

#[tokio::test]
async fn times_are_found_inside_of_compressed_batches_and_in_any_order() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server).await;
    let times = [
        [50, 10, 40],
        [20, 90, 30],
        [60, 70, 5],
        [80, 80, 100],
        [1, 2, 3],
    ];
    create(&mut client, "t", &[]).await;
    for (codec, times) in CODECS.into_iter().zip(times) {
        let mut builder = BatchBuilder::new(codec);
        for time in times {
            builder.push(time, None, Some(b"value"), &[]);
        }
        assert_eq!(produced(&mut client, "t", builder.build()).await.0, 0);
    }
    let times = times.concat();
    let mut ask = async |timestamp| {
        let partition = ListOffsetsPartition::default().with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default()
            .with_name(topic_name("t"))
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_topics(vec![topic]);
        let response = client.call(*list_offsets::VERSIONS.end(), &request).await;
        let found = &response.topics[0].partitions[0];
        (found.error_code, found.timestamp, found.offset)
    };
    for wanted in 0..=101 {
        let first = (0..).zip(&times).find(|(_, time)| **time >= wanted);
        let expected = first.map_or((0, -1, -1), |(offset, time)| (0, *time, offset));
        assert_eq!(ask(wanted).await, expected, "at or after {wanted}");
    }
    assert_eq!(ask(-3).await, (0, 100, 11), "the largest");
    assert_eq!(ask(-1).await, (0, -1, 15), "the latest");
    assert_eq!(ask(-2).await, (0, -1, 0), "the earliest");
    assert_eq!(ask(-4).await, (0, -1, 0), "the earliest that is local");
    assert_eq!(ask(-5).await, (0, -1, -1), "the latest that is tiered");
}

#[tokio::test]
async fn any_of_the_last_five_batches_is_a_duplicate_with_its_first_offset() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server).await;
    create(&mut client, "t", &[]).await;
    for number in 0..7 {
        let answer = produced(&mut client, "t", idempotent(0, number * 2, 2)).await;
        assert_eq!(answer, (0, i64::from(number) * 2));
    }
    for number in 2..7 {
        let answer = produced(&mut client, "t", idempotent(0, number * 2, 2)).await;
        assert_eq!(answer, (0, i64::from(number) * 2), "batch {number} again");
    }
    for (sequence, what) in [(2, "too old"), (15, "a gap"), (13, "half of one")] {
        let answer = produced(&mut client, "t", idempotent(0, sequence, 2)).await;
        assert_eq!(answer, (OUT_OF_ORDER_SEQUENCE_NUMBER, -1), "{what}");
    }
    assert_eq!(
        produced(&mut client, "t", idempotent(0, 14, 1)).await,
        (0, 14)
    );
}

#[tokio::test]
async fn sequences_wrap_and_begin_anywhere_for_an_unknown_producer_and_at_zero_for_a_new_epoch() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server).await;
    create(&mut client, "t", &[]).await;
    assert_eq!(
        produced(&mut client, "t", idempotent(3, i32::MAX - 1, 3)).await,
        (0, 0)
    );
    assert_eq!(
        produced(&mut client, "t", idempotent(3, 1, 1)).await,
        (0, 3)
    );
    assert_eq!(
        produced(&mut client, "t", idempotent(3, i32::MAX - 1, 3)).await,
        (0, 0)
    );
    let not_from_zero = produced(&mut client, "t", idempotent(4, 2, 1)).await;
    assert_eq!(not_from_zero, (OUT_OF_ORDER_SEQUENCE_NUMBER, -1));
    assert_eq!(
        produced(&mut client, "t", idempotent(4, 0, 1)).await,
        (0, 4)
    );
}

#[tokio::test]
async fn a_stale_producer_epoch_is_invalid_producer_epoch() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server).await;
    create(&mut client, "t", &[]).await;
    assert_eq!(
        produced(&mut client, "t", idempotent(5, 0, 1)).await,
        (0, 0)
    );
    for (epoch, sequence) in [(4, 0), (4, 1), (0, 1)] {
        let answer = produced(&mut client, "t", idempotent(epoch, sequence, 1)).await;
        assert_eq!(answer, (INVALID_PRODUCER_EPOCH, -1));
    }
    assert_eq!(
        produced(&mut client, "t", idempotent(5, 1, 1)).await,
        (0, 1)
    );
}

#[tokio::test]
async fn batches_are_checked_and_compressed_ones_are_left_closed() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server).await;
    create(&mut client, "t", &[]).await;
    create(&mut client, "compacted", &[("cleanup.policy", "compact")]).await;

    let mut damaged = batch("value").to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(
        produced(&mut client, "t", damaged.into()).await,
        (CORRUPT_MESSAGE, -1)
    );
    let whole = batch("value");
    let delta = layout::LAST_OFFSET_DELTA;
    let count = altered(&whole, delta, &1_i32.to_be_bytes());
    assert_eq!(
        produced(&mut client, "t", count).await,
        (INVALID_RECORD, -1)
    );
    let control = altered(&whole, layout::ATTRIBUTES, &0x20_i16.to_be_bytes());
    assert_eq!(
        produced(&mut client, "t", control).await,
        (INVALID_RECORD, -1)
    );
    let garbage = altered(&whole, layout::RECORDS, &[0xff; 4]);
    let refused = produced(&mut client, "t", garbage).await.0;
    assert!(
        [CORRUPT_MESSAGE, INVALID_RECORD].contains(&refused),
        "{refused}"
    );

    // What says that it is compressed, and is not, is stored as it came: whoever opens it fails.
    let closed = altered(&whole, layout::ATTRIBUTES, &4_i16.to_be_bytes());
    assert_eq!(produced(&mut client, "t", closed.clone()).await, (0, 0));
    assert_eq!(produced(&mut client, "t", whole.clone()).await, (0, 1));
    let stored = fetched(&mut client, "t", 0).await;
    assert_eq!(stored.len(), closed.len() + whole.len());
    assert!(records::decode(&stored.slice(..closed.len()), 1 << 20).is_err());
    let second = records::decode(&stored.slice(closed.len()..), 1 << 20).unwrap();
    assert_eq!(second[0].value.as_deref(), Some(&b"value"[..]));
    // On a compacted topic it is opened: every record must have a key.
    let refused = produced(&mut client, "compacted", closed).await.0;
    assert!(
        [CORRUPT_MESSAGE, INVALID_RECORD].contains(&refused),
        "{refused}"
    );
    for codec in CODECS {
        let mut builder = BatchBuilder::new(codec);
        builder.push(TIMESTAMP, Some(b"key"), Some(b"value"), &[]);
        builder.push(TIMESTAMP, None, Some(b"value"), &[]);
        let answer = produced(&mut client, "compacted", builder.build()).await;
        assert_eq!(answer, (INVALID_RECORD, -1), "{codec:?}");
    }
}

#[tokio::test]
async fn base_offset_and_leader_epoch_are_stamped_and_nothing_else_changes() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server).await;
    create(&mut client, "t", &[]).await;
    let mut elsewhere = batch("value").to_vec();
    elsewhere[..8].copy_from_slice(&77_i64.to_be_bytes());
    let answer = produced(&mut client, "t", elsewhere.into()).await;
    assert_eq!(answer, (INVALID_RECORD, -1), "a client's batch begins at 0");
    for (offset, codec) in (0..).zip(CODECS) {
        let mut builder = BatchBuilder::new(codec);
        builder.push(TIMESTAMP, Some(b"key"), Some(b"value"), &[]);
        let mut sent = builder.build().to_vec();
        sent[layout::PARTITION_LEADER_EPOCH..layout::MAGIC].copy_from_slice(&[7; 4]);
        assert_eq!(
            produced(&mut client, "t", sent.clone().into()).await,
            (0, offset)
        );
        let stored = fetched(&mut client, "t", offset).await;
        sent[..8].copy_from_slice(&offset.to_be_bytes());
        sent[layout::PARTITION_LEADER_EPOCH..layout::MAGIC].copy_from_slice(&[0; 4]);
        assert_eq!(stored, sent, "{codec:?}");
        Batch::parse(&stored).unwrap().check_crc().unwrap();
    }
}

#[tokio::test]
async fn log_append_time_is_stored_with_a_right_crc_and_returned() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server).await;
    create(
        &mut client,
        "t",
        &[("message.timestamp.type", "LogAppendTime")],
    )
    .await;
    for (offset, codec) in (0..).zip(CODECS) {
        let mut builder = BatchBuilder::new(codec);
        builder.push(TIMESTAMP, None, Some(b"value"), &[]);
        let request = produce_request("t", Uuid::nil(), 12, builder.build());
        let response = client
            .call(*produce::VERSIONS.start().max(&12), &request)
            .await;
        let answer = &response.responses[0].partition_responses[0];
        assert_eq!((answer.error_code, answer.base_offset), (0, offset));
        let time = answer.log_append_time_ms;
        assert!(time > TIMESTAMP, "{codec:?}: {time}");
        let stored = fetched(&mut client, "t", offset).await;
        let header = Batch::parse(&stored).unwrap();
        header.check_crc().unwrap();
        assert_eq!(header.max_timestamp(), time, "{codec:?}");
        let stored = records::decode(&stored, 1 << 20).unwrap();
        assert_eq!(stored[0].timestamp, time, "{codec:?}");
    }
}

#[tokio::test]
async fn a_batch_over_max_message_bytes_is_message_too_large_and_the_connection_stays() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server).await;
    create(&mut client, "t", &[("max.message.bytes", "100")]).await;
    let answer = produced(&mut client, "t", batch(&"x".repeat(100))).await;
    assert_eq!(answer, (MESSAGE_TOO_LARGE, -1));
    assert_eq!(produced(&mut client, "t", batch("x")).await, (0, 0));
}

#[tokio::test]
async fn a_request_over_socket_request_max_bytes_closes_the_connection() {
    let server =
        TestServer::start_with(|config| config.broker.socket_request_max_bytes = 10_000).await;
    let mut client = Client::connect(&server).await;
    create(&mut client, "t", &[]).await;
    assert_eq!(
        produced(&mut client, "t", batch(&"x".repeat(9_000))).await,
        (0, 0)
    );
    client.stream.write_i32(10_001).await.unwrap();
    assert!(client.stream.read_i32().await.is_err(), "it is closed");
    let mut other = Client::connect(&server).await;
    assert_eq!(produced(&mut other, "t", batch("x")).await, (0, 1));
}

/// A Produce v3 request to partition 0 of topic "t".
fn produce_v3(acks: i16, records: &[u8]) -> Vec<u8> {
    let mut frame = header(0, 3);
    frame.put_i16(-1); // transactional_id: null
    frame.put_i16(acks);
    frame.put_i32(30_000); // timeout_ms
    put_one(&mut frame);
    put_string(&mut frame, "t");
    put_one(&mut frame);
    frame.put_i32(0); // partition
    frame.put_i32(records.len() as i32);
    frame.put_slice(records);
    frame
}

async fn send(client: &mut Client, frame: &[u8]) {
    client.stream.write_i32(frame.len() as i32).await.unwrap();
    client.stream.write_all(frame).await.unwrap();
}

#[tokio::test]
async fn acks_0_is_not_answered_and_an_error_closes_the_connection() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server).await;
    create(&mut client, "t", &[]).await;
    for _ in 0..3 {
        send(&mut client, &produce_v3(0, &batch("value"))).await;
    }
    // The next response is of the next request that has one.
    let versions = client.call(0, &ApiVersionsRequest::default()).await;
    assert_eq!(versions.error_code, 0);
    assert_eq!(produced(&mut client, "t", batch("value")).await, (0, 3));

    let mut damaged = batch("value").to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    send(&mut client, &produce_v3(0, &damaged)).await;
    assert!(client.stream.read_i32().await.is_err(), "it is closed");
}

#[tokio::test]
async fn responses_come_in_the_order_of_their_requests() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server).await;
    create(&mut client, "t", &[]).await;
    // A produce waits for the disk and a fetch for its time; what follows them is answered at once.
    let mut poll = header(1, 4);
    poll.put_i32(-1); // replica_id
    poll.put_i32(300); // max_wait_ms
    poll.put_i32(1 << 20); // min_bytes
    poll.put_i32(1 << 20); // max_bytes
    poll.put_i8(0); // isolation_level
    put_one(&mut poll);
    put_string(&mut poll, "t");
    put_one(&mut poll);
    poll.put_i32(0); // partition
    poll.put_i64(0); // fetch_offset
    poll.put_i32(1 << 20); // partition_max_bytes
    let durable = produce_v3(-1, &batch("value"));
    let versions = header(18, 0);
    let mut expected = Vec::new();
    for correlation_id in 100..112_i32 {
        let frame = match correlation_id % 4 {
            0 => &durable,
            1 => &poll,
            _ => &versions,
        };
        let mut frame = frame.clone();
        frame[4..8].copy_from_slice(&correlation_id.to_be_bytes());
        send(&mut client, &frame).await;
        expected.push(correlation_id);
    }
    let mut answered = Vec::new();
    for _ in &expected {
        let size = client.stream.read_i32().await.unwrap();
        answered.push(client.stream.read_i32().await.unwrap());
        let mut rest = vec![0; size as usize - 4];
        client.stream.read_exact(&mut rest).await.unwrap();
    }
    assert_eq!(answered, expected);
}
