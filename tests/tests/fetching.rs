//! What fetches are answered with, and what they cost, over TCP.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, Request, StrBytes};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use storage::batch::{Batch, BatchBuilder, Compression};
use tests::{Milena, PATIENCE, eventually};

const FENCED_LEADER_EPOCH: i16 = 74;
const UNKNOWN_LEADER_EPOCH: i16 = 75;

struct Client(TcpStream);

impl Client {
    fn connect(milena: &Milena) -> Self {
        let stream = TcpStream::connect(milena.bootstrap()).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("nodelay");
        Self(stream)
    }

    fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let key = ApiKey::try_from(R::KEY).expect("a known API");
        let mut frame = BytesMut::zeroed(4);
        RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .encode(&mut frame, key.request_header_version(version))
            .expect("a header");
        request.encode(&mut frame, version).expect("a request");
        let len = (frame.len() - 4) as u32;
        frame[..4].copy_from_slice(&len.to_be_bytes());
        self.0.write_all(&frame).expect("sent");
        let mut len = [0; 4];
        self.0.read_exact(&mut len).expect("an answer");
        let mut answer = vec![0; u32::from_be_bytes(len) as usize];
        self.0.read_exact(&mut answer).expect("an answer");
        let mut answer = Bytes::from(answer);
        ResponseHeader::decode(&mut answer, key.response_header_version(version)).expect("header");
        R::Response::decode(&mut answer, version).expect("a response")
    }

    fn produce(&mut self, partition: i32, records: Bytes) {
        let data = PartitionProduceData::default()
            .with_index(partition)
            .with_records(Some(records));
        let topic = TopicProduceData::default()
            .with_name(name())
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_transactional_id(None)
            .with_acks(1)
            .with_timeout_ms(30_000)
            .with_topic_data(vec![topic]);
        let response = self.call(9, &request);
        let answer = &response.responses[0].partition_responses[0];
        assert_eq!(answer.error_code, 0);
    }
}

fn name() -> TopicName {
    TopicName(StrBytes::from_static_str("t"))
}

fn start(partitions: usize) -> Milena {
    Milena::start(&format!(
        "[[topic]]\nname = \"t\"\npartitions = {partitions}\n"
    ))
}

fn batch(value: &[u8]) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(1_700_000_000_000, None, Some(value), &[]);
    builder.build()
}

fn asked(partition: i32, offset: i64) -> FetchPartition {
    FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20)
}

fn fetch(session: (i32, i32), partitions: Vec<FetchPartition>) -> FetchRequest {
    let topic = FetchTopic::default()
        .with_topic(name())
        .with_partitions(partitions);
    FetchRequest::default()
        .with_max_wait_ms(0)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_id(session.0)
        .with_session_epoch(session.1)
        .with_topics(vec![topic])
}

fn only(response: FetchResponse) -> PartitionData {
    let mut topics = response.responses;
    topics.remove(0).partitions.remove(0)
}

/// The leader epoch of the batch at `offset`; the fetch says that the client knows `epoch`.
fn fetched_epoch(client: &mut Client, offset: i64, epoch: i32) -> Result<i32, i16> {
    let asked = asked(0, offset).with_current_leader_epoch(epoch);
    let answer = only(client.call(12, &fetch((0, -1), vec![asked])));
    if answer.error_code != 0 {
        return Err(answer.error_code);
    }
    let records = answer.records.expect("records");
    Ok(Batch::parse(&records)
        .expect("a batch")
        .partition_leader_epoch())
}

/// The epoch and the offset that ListOffsets tells for a timestamp.
fn listed(client: &mut Client, timestamp: i64, epoch: i32) -> Result<(i32, i64), i16> {
    let partition = ListOffsetsPartition::default()
        .with_timestamp(timestamp)
        .with_current_leader_epoch(epoch);
    let topic = ListOffsetsTopic::default()
        .with_name(name())
        .with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_topics(vec![topic]);
    let mut response = client.call(7, &request);
    let answer = response.topics.remove(0).partitions.remove(0);
    match answer.error_code {
        0 => Ok((answer.leader_epoch, answer.offset)),
        code => Err(code),
    }
}

/// Where an epoch ends, as OffsetForLeaderEpoch tells it.
fn end_of(client: &mut Client, leader_epoch: i32, epoch: i32) -> Result<(i32, i64), i16> {
    let partition = OffsetForLeaderPartition::default()
        .with_leader_epoch(leader_epoch)
        .with_current_leader_epoch(epoch);
    let topic = OffsetForLeaderTopic::default()
        .with_topic(name())
        .with_partitions(vec![partition]);
    let request = OffsetForLeaderEpochRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(vec![topic]);
    let mut response = client.call(4, &request);
    let answer = response.topics.remove(0).partitions.remove(0);
    match answer.error_code {
        0 => Ok((answer.leader_epoch, answer.end_offset)),
        code => Err(code),
    }
}

fn metadata_epoch(client: &mut Client) -> i32 {
    let topic = MetadataRequestTopic::default().with_name(Some(name()));
    let request = MetadataRequest::default().with_topics(Some(vec![topic]));
    client.call(9, &request).topics[0].partitions[0].leader_epoch
}

fn commit(client: &mut Client, offset: i64, epoch: i32) {
    let partition = OffsetCommitRequestPartition::default()
        .with_committed_offset(offset)
        .with_committed_leader_epoch(epoch);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(name())
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(StrBytes::from_static_str("g")))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    let response = client.call(8, &request);
    assert_eq!(response.topics[0].partitions[0].error_code, 0);
}

fn committed(client: &mut Client) -> (i32, i64) {
    let topic = OffsetFetchRequestTopic::default()
        .with_name(name())
        .with_partition_indexes(vec![0]);
    let request = OffsetFetchRequest::default()
        .with_group_id(GroupId(StrBytes::from_static_str("g")))
        .with_topics(Some(vec![topic]));
    let mut response = client.call(7, &request);
    let answer = response.topics.remove(0).partitions.remove(0);
    assert_eq!(answer.error_code, 0);
    (answer.committed_leader_epoch, answer.committed_offset)
}

#[test]
fn leader_epochs_agree_in_every_answer_also_after_an_unclean_restart() {
    let mut milena = start(1);
    let mut client = Client::connect(&milena);
    client.produce(0, batch(b"a"));
    let first = metadata_epoch(&mut client);
    assert_eq!(fetched_epoch(&mut client, 0, first), Ok(first));
    assert_eq!(listed(&mut client, -1, first), Ok((first, 1)));
    assert_eq!(listed(&mut client, -2, first), Ok((first, 0)));
    assert_eq!(end_of(&mut client, first, first), Ok((first, 1)));
    commit(&mut client, 1, first);
    assert_eq!(committed(&mut client), (first, 1));

    milena.kill();
    milena.restart();
    let mut client = Client::connect(&milena);
    client.produce(0, batch(b"b"));
    let second = metadata_epoch(&mut client);
    assert!(second > first, "{second} after {first}");
    assert_eq!(fetched_epoch(&mut client, 0, second), Ok(first));
    assert_eq!(fetched_epoch(&mut client, 1, second), Ok(second));
    assert_eq!(listed(&mut client, -1, second), Ok((second, 2)));
    assert_eq!(listed(&mut client, -2, second), Ok((first, 0)));
    assert_eq!(end_of(&mut client, first, second), Ok((first, 1)));
    assert_eq!(end_of(&mut client, second, second), Ok((second, 2)));
    assert_eq!(committed(&mut client), (first, 1), "as it was committed");

    for (epoch, code) in [
        (first, FENCED_LEADER_EPOCH),
        (second + 1, UNKNOWN_LEADER_EPOCH),
    ] {
        assert_eq!(fetched_epoch(&mut client, 0, epoch), Err(code));
        assert_eq!(listed(&mut client, -1, epoch), Err(code));
        assert_eq!(end_of(&mut client, first, epoch), Err(code));
        let asked = asked(0, 0).with_current_leader_epoch(epoch);
        let opened = client.call(12, &fetch((0, 0), vec![asked]));
        let id = opened.session_id;
        assert_eq!(only(opened).error_code, code);
        let again = client.call(12, &fetch((id, 1), vec![]));
        assert_eq!(only(again).error_code, code, "in a session");
    }
}

/// The file of the only partition.
fn log_file(milena: &Milena) -> std::path::PathBuf {
    milena.data_dir().join("t-0").join(format!("{:020}.log", 0))
}

/// Where the batches of a file begin.
fn positions(bytes: &[u8]) -> Vec<usize> {
    let mut position = 0;
    storage::batch::batches(bytes)
        .map(|batch| {
            let size = batch.expect("a whole batch").size_in_bytes();
            position += size;
            position - size
        })
        .collect()
}

#[test]
fn who_has_read_what_a_power_cut_took_is_told_where_the_logs_part() {
    let mut milena = start(1);
    let mut client = Client::connect(&milena);
    for _ in 0..10 {
        client.produce(0, batch(b"before"));
    }
    let first = metadata_epoch(&mut client);
    let reader = |reset: &str| -> BaseConsumer {
        let consumer: BaseConsumer = milena.client_with(&[
            ("group.id", reset),
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", reset),
            ("topic.metadata.refresh.interval.ms", "500"),
        ]);
        let mut partitions = TopicPartitionList::new();
        let start = rdkafka::Offset::Beginning;
        partitions
            .add_partition_offset("t", 0, start)
            .expect("an offset");
        consumer.assign(&partitions).expect("assigns");
        for offset in 0..10 {
            let record = consumer.poll(PATIENCE).expect("a record").expect("reads");
            assert_eq!(record.offset(), offset);
        }
        consumer
    };
    let (strict, lenient) = (reader("error"), reader("earliest"));

    milena.kill();
    let file = log_file(&milena);
    let bytes = std::fs::read(&file).expect("reads");
    std::fs::write(&file, &bytes[..positions(&bytes)[6]]).expect("cuts");
    milena.restart();
    let mut client = Client::connect(&milena);
    let second = metadata_epoch(&mut client);
    assert!(second > first);
    // Also when the log has gone on past where the readers were.
    for produced in [0, 8] {
        for _ in 0..produced {
            client.produce(0, batch(b"after"));
        }
        let end = 6 + produced;
        for version in 2..=4 {
            let ask = |client: &mut Client, asked, current| {
                let partition = OffsetForLeaderPartition::default()
                    .with_leader_epoch(asked)
                    .with_current_leader_epoch(current);
                let topic = OffsetForLeaderTopic::default()
                    .with_topic(name())
                    .with_partitions(vec![partition]);
                let mut request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
                if version >= 3 {
                    request.replica_id = BrokerId(-1);
                }
                let mut response = client.call(version, &request);
                let answer = response.topics.remove(0).partitions.remove(0);
                (answer.error_code, answer.leader_epoch, answer.end_offset)
            };
            assert_eq!(ask(&mut client, first, second), (0, first, 6));
            assert_eq!(ask(&mut client, second, second), (0, second, end));
            let (code, ..) = ask(&mut client, first, first);
            assert_eq!(code, FENCED_LEADER_EPOCH);
            let (code, ..) = ask(&mut client, first, second + 1);
            assert_eq!(code, UNKNOWN_LEADER_EPOCH);
        }
        for (offset, epoch, parts) in [(10, first, true), (7, first, true), (6, first, false)] {
            let asked = asked(0, offset)
                .with_current_leader_epoch(second)
                .with_last_fetched_epoch(epoch);
            let answer = only(client.call(12, &fetch((0, -1), vec![asked])));
            assert_eq!(answer.error_code, 0, "{offset}");
            let diverging = answer.diverging_epoch;
            let expected = if parts { (first, 6) } else { (-1, -1) };
            assert_eq!(
                (diverging.epoch, diverging.end_offset),
                expected,
                "{offset}"
            );
            let bytes = answer.records.map_or(0, |records| records.len());
            assert_eq!(bytes > 0, !parts && produced > 0, "{offset}");
        }
        assert_eq!(listed(&mut client, -1, second), Ok((second, end)));
        assert_eq!(listed(&mut client, -2, second), Ok((first, 0)));
    }
    // Nothing of the other history is given to who did not agree to that.
    eventually("the reader is told", || {
        use RDKafkaErrorCode::{AutoOffsetReset, LogTruncation};
        match strict.poll(Duration::from_millis(100)) {
            Some(Err(KafkaError::MessageConsumption(LogTruncation | AutoOffsetReset))) => Some(()),
            Some(Ok(record)) => panic!("offset {} of another history", record.offset()),
            // The connection was lost meanwhile.
            _ => None,
        }
    });
    let offset = eventually("the reader is reset", || {
        let record = lenient.poll(Duration::from_millis(100))?.ok()?;
        Some(record.offset())
    });
    assert_eq!(offset, 6, "where the logs part");
}

#[test]
fn a_reader_of_a_damaged_log_is_given_what_is_sound_and_an_error() {
    let mut milena = start(1);
    let mut client = Client::connect(&milena);
    for _ in 0..10 {
        client.produce(0, batch(b"value"));
    }
    assert!(milena.stop().success());
    let file = log_file(&milena);
    let mut bytes = std::fs::read(&file).expect("reads");
    let position = positions(&bytes)[4];
    bytes[position + 16] = 0;
    std::fs::write(&file, &bytes).expect("damages");
    milena.restart();
    let consumer: BaseConsumer = milena.client_with(&[
        ("group.id", "g"),
        ("enable.auto.commit", "false"),
        ("auto.offset.reset", "earliest"),
    ]);
    let mut partitions = TopicPartitionList::new();
    partitions
        .add_partition_offset("t", 0, rdkafka::Offset::Beginning)
        .expect("an offset");
    consumer.assign(&partitions).expect("assigns");
    for offset in 0..4 {
        let record = consumer.poll(PATIENCE).expect("a record").expect("reads");
        assert_eq!(record.offset(), offset);
    }
    for _ in 0..2 {
        let error = consumer.poll(PATIENCE).expect("an error").err();
        assert!(
            matches!(
                error,
                Some(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::InvalidMessage
                ))
            ),
            "{error:?}"
        );
    }
    // Only who says so passes over what is lost.
    consumer
        .seek("t", 0, rdkafka::Offset::Offset(5), PATIENCE)
        .expect("seeks");
    let offset = eventually("the records behind it", || {
        Some(consumer.poll(PATIENCE)?.ok()?.offset())
    });
    assert_eq!(offset, 5);
    let log = milena.log();
    assert_eq!(
        log.matches("a part of a log is damaged").count(),
        1,
        "{log}"
    );
    assert_eq!(
        milena.metric("milena_partition_damaged_ranges{topic=\"t\",partition=\"0\"}"),
        1.0
    );
}

#[test]
fn an_offset_inside_a_batch_gets_the_whole_batch_over_every_limit() {
    let milena = start(1);
    let mut client = Client::connect(&milena);
    let mut builder = BatchBuilder::new(Compression::None);
    for _ in 0..3 {
        builder.push(0, None, Some(&[b'x'; 1000]), &[]);
    }
    let large = builder.build();
    client.produce(0, large.clone());
    client.produce(0, batch(b"next"));
    let asked = asked(0, 1).with_partition_max_bytes(1);
    let request = fetch((0, -1), vec![asked]).with_max_bytes(1);
    let answer = only(client.call(12, &request));
    let records = answer.records.expect("records");
    assert_eq!(records.len(), large.len());
    assert_eq!(Batch::parse(&records).expect("a batch").base_offset(), 0);
}

#[test]
fn the_first_fetch_after_a_start_does_not_stall() {
    let mut milena = start(1);
    Client::connect(&milena).produce(0, batch(b"a"));
    let fastest = (0..5)
        .map(|_| {
            milena.kill();
            milena.restart();
            let mut client = Client::connect(&milena);
            let began = Instant::now();
            let request = fetch((0, 0), vec![asked(0, 0)]).with_max_wait_ms(30_000);
            let answer = only(client.call(12, &request));
            assert!(answer.records.is_some_and(|records| !records.is_empty()));
            began.elapsed()
        })
        .min();
    // What is there is there at once; other brokers took 1.1 s, each time.
    assert!(fastest < Some(Duration::from_millis(500)), "{fastest:?}");
}

/// Reads a hundred partitions' worth of full batches to the end, in a session with responses of
/// 1 MiB, and returns how many fetches that took.
fn fetches_to_read(partitions: i32) -> usize {
    const BATCHES: i32 = 800;
    let milena = start(partitions as usize);
    let mut client = Client::connect(&milena);
    let full = batch(&[b'x'; 16 * 1024]);
    for n in 0..BATCHES {
        client.produce(n % partitions, full.clone());
    }
    let mut positions: BTreeMap<i32, i64> = (0..partitions).map(|p| (p, 0)).collect();
    let mut changed: Vec<_> = positions
        .iter()
        .map(|(p, offset)| asked(*p, *offset))
        .collect();
    let (mut id, mut read) = (0, 0);
    for epoch in 0.. {
        let response = client.call(12, &fetch((id, epoch), std::mem::take(&mut changed)));
        assert_eq!(response.error_code, 0);
        id = response.session_id;
        for partition in response
            .responses
            .iter()
            .flat_map(|topic| &topic.partitions)
        {
            let bytes = partition.records.as_ref().map_or(0, Bytes::len);
            assert_eq!(bytes % full.len(), 0, "whole batches");
            let batches = (bytes / full.len()) as i64;
            if batches > 0 {
                read += batches as i32;
                let position = positions.entry(partition.partition_index).or_default();
                *position += batches;
                changed.push(asked(partition.partition_index, *position));
            }
        }
        if read == BATCHES {
            return epoch as usize + 1;
        }
        assert!(epoch < BATCHES, "{read} of {BATCHES} batches");
    }
    unreachable!()
}

#[test]
fn many_partitions_take_as_few_fetches_as_one() {
    let one = fetches_to_read(1);
    for partitions in [6, 100] {
        let many = fetches_to_read(partitions);
        assert!(many <= one + 2, "{many} with {partitions}, {one} with one");
    }
}

#[test]
fn a_session_of_a_thousand_partitions_costs_what_moves() {
    const PARTITIONS: i32 = 1000;
    const ROUNDS: i32 = 50;
    let milena = start(PARTITIONS as usize);
    let mut client = Client::connect(&milena);
    let all = (0..PARTITIONS)
        .map(|partition| asked(partition, 0))
        .collect();
    let id = client.call(12, &fetch((0, 0), all)).session_id;
    let reads = || milena.metric("milena_fetch_partitions_read_total");
    // The first one finds that nothing is left to be read in any of them.
    let quiet = client.call(12, &fetch((id, 1), vec![]));
    assert_eq!((quiet.error_code, quiet.responses.len()), (0, 0));
    let before = reads();
    let mut changed = vec![];
    for round in 0..ROUNDS {
        client.produce(7, batch(b"x"));
        let request = fetch((id, 2 + round), changed).with_max_wait_ms(30_000);
        let moved = only(client.call(12, &request));
        assert_eq!((moved.error_code, moved.partition_index), (0, 7));
        changed = vec![asked(7, i64::from(round) + 1)];
    }
    let reads = reads() - before;
    assert!(
        reads <= f64::from(4 * ROUNDS),
        "{reads} reads in {ROUNDS} fetches"
    );
}
