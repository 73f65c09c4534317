//! Fetch sessions (KIP-227) over TCP.

use std::collections::BTreeMap;
use std::time::Duration;

use broker::catalog::{NewTopic, TopicKind};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::ForgottenTopic;
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use uuid::Uuid;

use super::*;

/// The newest version that names topics by name.
const BY_NAME: i16 = 12;
const BY_ID: i16 = 18;
/// Long enough that a test which waits it out fails.
const LONG: i32 = 60_000;

impl TestServer {
    async fn create(&self, name: &str, partitions: i32) -> Uuid {
        let topic = NewTopic {
            name: name.to_owned(),
            partitions,
            configs: BTreeMap::new(),
            kind: TopicKind::Ordinary,
        };
        let catalog = &self.server.broker().catalog;
        catalog.create_topic(topic).await.unwrap().id
    }

    async fn delete(&self, name: &str) {
        let catalog = &self.server.broker().catalog;
        catalog.delete_topic(name).await.unwrap();
    }

    fn append(&self, topic: &str, partition: usize, value: &str) {
        let topic = self.server.broker().catalog.topic(topic).unwrap();
        topic.partitions[partition].append(&batch(value)).unwrap();
    }
}

/// Asks for (partition, offset) of a topic.
fn topic(name: &str, partitions: &[(i32, i64)]) -> FetchTopic {
    let partitions = partitions.iter().map(|(partition, offset)| {
        FetchPartition::default()
            .with_partition(*partition)
            .with_fetch_offset(*offset)
            .with_partition_max_bytes(1 << 20)
    });
    FetchTopic::default()
        .with_topic(topic_name(name))
        .with_partitions(partitions.collect())
}

/// The same by id.
fn topic_by_id(id: Uuid, partitions: &[(i32, i64)]) -> FetchTopic {
    let mut topic = topic("", partitions);
    topic.topic_id = id;
    topic
}

fn fetch(session: (i32, i32), topics: Vec<FetchTopic>) -> FetchRequest {
    FetchRequest::default()
        .with_max_wait_ms(0)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_id(session.0)
        .with_session_epoch(session.1)
        .with_topics(topics)
}

fn code(response: &FetchResponse) -> Option<ResponseError> {
    ResponseError::try_from_code(response.error_code)
}

/// Each partition in the response: its topic, its number, and its values or its error.
fn told(response: &FetchResponse) -> Vec<(String, i32, Result<Vec<String>, i16>)> {
    let of_topic = |topic: &kafka_protocol::messages::fetch_response::FetchableTopicResponse| {
        let name = topic.topic.to_string();
        let partitions = topic.partitions.iter();
        partitions
            .map(|partition| (name.clone(), partition.partition_index, values(partition)))
            .collect::<Vec<_>>()
    };
    response.responses.iter().flat_map(of_topic).collect()
}

fn values(partition: &PartitionData) -> Result<Vec<String>, i16> {
    if partition.error_code != 0 {
        return Err(partition.error_code);
    }
    let bytes = partition.records.clone().unwrap_or_default();
    let mut values = Vec::new();
    let mut position = 0;
    for batch in storage::batch::batches(&bytes) {
        let size = batch.unwrap().size_in_bytes();
        let records =
            storage::batch::records::decode(&bytes.slice(position..position + size), 1 << 20);
        values.extend(
            records.unwrap().into_iter().map(|record| {
                String::from_utf8(record.value.unwrap_or_default().to_vec()).unwrap()
            }),
        );
        position += size;
    }
    Ok(values)
}

fn expect(topic: &str, partition: i32, values: &[&str]) -> (String, i32, Result<Vec<String>, i16>) {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    (topic.to_owned(), partition, Ok(values))
}

#[tokio::test]
async fn an_incremental_fetch_is_answered_with_what_changed() {
    let server = TestServer::start().await;
    server.create("t", 3).await;
    server.create("u", 1).await;
    server.append("t", 1, "a");
    let mut client = Client::connect(&server).await;
    let topics = vec![topic("t", &[(0, 0), (1, 0), (2, 0)]), topic("u", &[(0, 0)])];
    let opened = client.call(BY_NAME, &fetch((0, 0), topics)).await;
    let id = opened.session_id;
    assert!(id > 0);
    let all = [
        expect("t", 0, &[]),
        expect("t", 1, &["a"]),
        expect("t", 2, &[]),
        expect("u", 0, &[]),
    ];
    assert_eq!(told(&opened), all, "a full fetch is answered in full");

    let request = fetch((id, 1), vec![topic("t", &[(1, 1)])]);
    let response = client.call(BY_NAME, &request).await;
    assert_eq!((code(&response), response.session_id), (None, id));
    assert_eq!(told(&response), []);

    server.append("u", 0, "b");
    let response = client.call(BY_NAME, &fetch((id, 2), vec![])).await;
    assert_eq!(told(&response), [expect("u", 0, &["b"])]);
    // Nothing else was asked: the same again.
    let response = client.call(BY_NAME, &fetch((id, 3), vec![])).await;
    assert_eq!(told(&response), [expect("u", 0, &["b"])]);
    let request = fetch((id, 4), vec![topic("u", &[(0, 1)])]);
    assert_eq!(told(&client.call(BY_NAME, &request).await), []);

    // A partition that the session did not have is told, even where it has no records.
    let log = &server
        .server
        .broker()
        .catalog
        .topic("t")
        .unwrap()
        .partitions[2];
    log.append(&batch("c")).unwrap();
    let request = fetch((id, 5), vec![topic("t", &[(2, 1)])]);
    let response = client.call(BY_NAME, &request).await;
    assert_eq!(told(&response), [expect("t", 2, &[])]);
    assert_eq!(response.responses[0].partitions[0].high_watermark, 1);
    let response = client.call(BY_NAME, &fetch((id, 6), vec![])).await;
    assert_eq!(told(&response), []);
}

#[tokio::test]
async fn errors_are_told_in_every_response_of_a_session() {
    let server = TestServer::start().await;
    server.create("t", 1).await;
    server.append("t", 0, "a");
    let mut client = Client::connect(&server).await;
    let topics = vec![topic("t", &[(0, 9), (7, 0)]), topic("nowhere", &[(0, 0)])];
    let opened = client.call(BY_NAME, &fetch((0, 0), topics)).await;
    let id = opened.session_id;
    let refused = |name: &str, partition, code| (name.to_owned(), partition, Err(code));
    let errors = [
        refused("t", 0, 1),
        refused("t", 7, 3),
        refused("nowhere", 0, 3),
    ];
    assert_eq!(told(&opened), errors);
    for epoch in 1..3 {
        let request = fetch((id, epoch), vec![]).with_max_wait_ms(LONG);
        assert_eq!(told(&client.call(BY_NAME, &request).await), errors);
    }
    server.create("nowhere", 1).await;
    let request = fetch((id, 3), vec![topic("t", &[(0, 1)])]);
    let response = client.call(BY_NAME, &request).await;
    let recovered = [
        expect("t", 0, &[]),
        refused("t", 7, 3),
        expect("nowhere", 0, &[]),
    ];
    assert_eq!(told(&response), recovered);
}

#[tokio::test]
async fn a_session_that_is_unknown_or_at_another_epoch_is_refused() {
    let server = TestServer::start().await;
    server.create("t", 1).await;
    let mut client = Client::connect(&server).await;
    let all = || vec![topic("t", &[(0, 0)])];
    let opened = client.call(BY_NAME, &fetch((0, 0), all())).await;
    let id = opened.session_id;
    let wrong_epoch = Some(ResponseError::InvalidFetchSessionEpoch);
    let unknown_id = Some(ResponseError::FetchSessionIdNotFound);
    for (session, expected) in [
        ((id, 2), wrong_epoch),
        ((id, -2), wrong_epoch),
        ((id, 1), None),
        ((id, 1), wrong_epoch),
        ((id ^ 1, 2), unknown_id),
        ((0, 2), unknown_id),
        ((-1, 2), unknown_id),
        ((id, 2), None),
    ] {
        let response = client.call(BY_NAME, &fetch(session, vec![])).await;
        assert_eq!(code(&response), expected, "{session:?}");
        assert!(response.responses.is_empty());
        let told = if expected.is_none() { id } else { 0 };
        assert_eq!(response.session_id, told);
    }
    let by_id = client.call(BY_ID, &fetch((id, 3), vec![])).await;
    assert_eq!(code(&by_id), Some(ResponseError::FetchSessionTopicIdError));
    let sessionless = client.call(BY_NAME, &fetch((id, -1), all())).await;
    assert_eq!((code(&sessionless), sessionless.session_id), (None, 0));
    let closed = client.call(BY_NAME, &fetch((id, 3), vec![])).await;
    assert_eq!(code(&closed), unknown_id);
}

#[tokio::test]
async fn after_a_lost_response_a_full_fetch_loses_nothing() {
    let server = TestServer::start().await;
    server.create("t", 1).await;
    server.append("t", 0, "a");
    let mut client = Client::connect(&server).await;
    let all = |offset| vec![topic("t", &[(0, offset)])];
    let opened = client.call(BY_NAME, &fetch((0, 0), all(0))).await;
    let id = opened.session_id;
    // Its answer does not arrive.
    let lost = client.call(BY_NAME, &fetch((id, 1), vec![])).await;
    assert_eq!(told(&lost), [expect("t", 0, &["a"])]);
    drop(client);

    let mut client = Client::connect(&server).await;
    let again = client.call(BY_NAME, &fetch((id, 1), vec![])).await;
    assert_eq!(code(&again), Some(ResponseError::InvalidFetchSessionEpoch));
    let opened = client.call(BY_NAME, &fetch((id, 0), all(0))).await;
    assert_eq!(told(&opened), [expect("t", 0, &["a"])]);
    assert!(opened.session_id > 0 && opened.session_id != id);
    let closed = client.call(BY_NAME, &fetch((id, 2), vec![])).await;
    assert_eq!(code(&closed), Some(ResponseError::FetchSessionIdNotFound));
}

#[tokio::test]
async fn a_forgotten_partition_is_not_heard_of_again() {
    let server = TestServer::start().await;
    let id_of_t = server.create("t", 2).await;
    let mut client = Client::connect(&server).await;
    let topics = vec![topic_by_id(id_of_t, &[(0, 0), (1, 0)])];
    let id = client.call(BY_ID, &fetch((0, 0), topics)).await.session_id;
    let forget = |partition| {
        vec![
            ForgottenTopic::default()
                .with_topic_id(id_of_t)
                .with_partitions(vec![partition]),
        ]
    };
    let request = fetch((id, 1), vec![]).with_forgotten_topics_data(forget(0));
    assert_eq!(told(&client.call(BY_ID, &request).await), []);
    server.append("t", 0, "a");
    server.append("t", 1, "b");
    let response = client.call(BY_ID, &fetch((id, 2), vec![])).await;
    assert_eq!(told(&response), [expect("", 1, &["b"])]);
    assert_eq!(response.responses[0].topic_id, id_of_t);
    let request = fetch((id, 3), vec![]).with_forgotten_topics_data(forget(1));
    let response = client.call(BY_ID, &request).await;
    assert_eq!((code(&response), response.session_id), (None, 0), "closed");
    let gone = client.call(BY_ID, &fetch((id, 4), vec![])).await;
    assert_eq!(code(&gone), Some(ResponseError::FetchSessionIdNotFound));
}

#[tokio::test]
async fn a_topic_that_is_created_again_is_another_one_in_a_session() {
    let server = TestServer::start().await;
    let old = server.create("t", 1).await;
    let mut client = Client::connect(&server).await;
    let all = |id| vec![topic_by_id(id, &[(0, 0)])];
    let id = client
        .call(BY_ID, &fetch((0, 0), all(old)))
        .await
        .session_id;
    assert_eq!(told(&client.call(BY_ID, &fetch((id, 1), vec![])).await), []);
    let refused = |error: ResponseError| [(String::new(), 0, Err(error.code()))];
    server.delete("t").await;
    let response = client.call(BY_ID, &fetch((id, 2), vec![])).await;
    let unknown = ResponseError::UnknownTopicOrPartition;
    assert_eq!(told(&response), refused(unknown));
    let new = server.create("t", 1).await;
    let response = client.call(BY_ID, &fetch((id, 3), vec![])).await;
    let inconsistent = ResponseError::InconsistentTopicId;
    assert_eq!(told(&response), refused(inconsistent));
    // Who never knew it by name is told that there is no such id.
    let response = client.call(BY_ID, &fetch((0, -1), all(old))).await;
    assert_eq!(told(&response), refused(ResponseError::UnknownTopicId));
    let forgotten = ForgottenTopic::default()
        .with_topic_id(old)
        .with_partitions(vec![0]);
    let request = fetch((id, 4), all(new)).with_forgotten_topics_data(vec![forgotten]);
    let response = client.call(BY_ID, &request).await;
    assert_eq!(told(&response), [expect("", 0, &[])]);
}

#[tokio::test]
async fn a_session_without_room_is_declined_with_id_zero() {
    let server = TestServer::start_with(|config| {
        config.broker.max_incremental_fetch_session_cache_slots = 1;
    })
    .await;
    server.create("t", 1).await;
    server.append("t", 0, "a");
    let mut client = Client::connect(&server).await;
    let all = || vec![topic("t", &[(0, 0)])];
    let first = client.call(BY_NAME, &fetch((0, 0), all())).await.session_id;
    assert!(first > 0);
    let second = client.call(BY_NAME, &fetch((0, 0), all())).await;
    assert_eq!(second.session_id, 0);
    assert_eq!(told(&second), [expect("t", 0, &["a"])]);
    let sessionless = client.call(BY_NAME, &fetch((first, -1), all())).await;
    assert_eq!(sessionless.session_id, 0);
    let third = client.call(BY_NAME, &fetch((0, 0), all())).await.session_id;
    assert!(third > 0 && third != first);
}

#[tokio::test]
async fn names_that_no_topic_can_have_get_no_session() {
    let server = TestServer::start().await;
    server.create("t", 1).await;
    let mut client = Client::connect(&server).await;
    let long = "x".repeat(30_000);
    let mut topics = vec![topic("t", &[(0, 0)])];
    let id = client
        .call(BY_NAME, &fetch((0, 0), topics.clone()))
        .await
        .session_id;
    topics.push(topic(&long, &[(0, 0)]));
    let response = client.call(BY_NAME, &fetch((0, 0), topics.clone())).await;
    assert_eq!(response.session_id, 0);
    assert_eq!(response.responses[1].partitions[0].error_code, 3);
    let response = client.call(BY_NAME, &fetch((id, 1), topics)).await;
    assert_eq!(code(&response), Some(ResponseError::FetchSessionIdNotFound));
}

#[tokio::test]
async fn a_long_poll_in_a_session_wakes_for_what_moves() {
    let server = TestServer::start().await;
    server.create("t", 50).await;
    let mut client = Client::connect(&server).await;
    let all: Vec<_> = (0..50).map(|partition| (partition, 0)).collect();
    let opened = client
        .call(BY_NAME, &fetch((0, 0), vec![topic("t", &all)]))
        .await;
    let id = opened.session_id;
    let empty = fetch((id, 1), vec![]).with_max_wait_ms(20);
    assert_eq!(told(&client.call(BY_NAME, &empty).await), []);
    let mut positions = [0; 50];
    let mut asked = vec![];
    for (epoch, partition) in (2..).zip([7, 49, 7, 0]) {
        let waiting = fetch((id, epoch), asked).with_max_wait_ms(LONG);
        let (response, ()) = tokio::join!(client.call(BY_NAME, &waiting), async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            server.append("t", partition, "x");
        });
        let index = partition as i32;
        assert_eq!(told(&response), [expect("t", index, &["x"])]);
        positions[partition] += 1;
        asked = vec![topic("t", &[(index, positions[partition])])];
    }
}

#[tokio::test]
async fn a_request_that_goes_on_with_a_session_ends_the_one_that_waits_in_it() {
    let server = TestServer::start().await;
    server.create("t", 1).await;
    let mut first = Client::connect(&server).await;
    let mut second = Client::connect(&server).await;
    let opening = fetch((0, 0), vec![topic("t", &[(0, 0)])]);
    let id = first.call(BY_NAME, &opening).await.session_id;
    let waiting = fetch((id, 1), vec![]).with_max_wait_ms(LONG);
    let (waited, response) = tokio::join!(first.call(BY_NAME, &waiting), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        server.append("t", 0, "a");
        second.call(BY_NAME, &fetch((id, 2), vec![])).await
    });
    // The first may have had its answer before the second came.
    if code(&waited).is_some() {
        assert_eq!(code(&waited), Some(ResponseError::InvalidFetchSessionEpoch));
        assert!(waited.responses.is_empty());
    }
    assert_eq!(told(&response), [expect("t", 0, &["a"])]);

    let waiting = fetch((id, 3), vec![topic("t", &[(0, 1)])]).with_max_wait_ms(LONG);
    let (waited, response) = tokio::join!(first.call(BY_NAME, &waiting), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        second.call(BY_NAME, &fetch((id, 4), vec![])).await
    });
    assert_eq!(code(&waited), Some(ResponseError::InvalidFetchSessionEpoch));
    assert_eq!((code(&response), told(&response)), (None, vec![]));
}

/// Fetches until each of `partitions` full partitions was heard of, asking on from what came, and
/// returns how many fetches that took.
async fn fetches_until_all_are_served(in_session: bool) -> usize {
    const PARTITIONS: i32 = 20;
    let server = TestServer::start().await;
    server.create("t", PARTITIONS).await;
    let value = "x".repeat(1000);
    for partition in 0..PARTITIONS as usize {
        for _ in 0..100 {
            server.append("t", partition, &value);
        }
    }
    let mut client = Client::connect(&server).await;
    let mut line: Vec<_> = (0..PARTITIONS).map(|partition| (partition, 0)).collect();
    let (mut session, mut asked) = ((0, if in_session { 0 } else { -1 }), line.clone());
    let mut served = std::collections::BTreeSet::new();
    for fetches in 1.. {
        let request = fetch(session, vec![topic("t", &asked)]).with_max_bytes(2000);
        let response = client.call(BY_NAME, &request).await;
        assert_eq!(code(&response), None);
        if in_session {
            session = (response.session_id, session.1 + 1);
        }
        asked.clear();
        for (_, partition, values) in told(&response) {
            let count = values.unwrap().len();
            if count == 0 {
                continue;
            }
            served.insert(partition);
            // As clients do: what was served goes to the end.
            let at = line
                .iter()
                .position(|(index, _)| *index == partition)
                .unwrap();
            let (_, offset) = line.remove(at);
            line.push((partition, offset + count as i64));
            asked.extend(line.last());
        }
        if !in_session {
            asked = line.clone();
        }
        if served.len() == PARTITIONS as usize {
            return fetches;
        }
        assert!(fetches <= PARTITIONS as usize, "{served:?} after {fetches}");
    }
    unreachable!()
}

#[tokio::test]
async fn full_partitions_take_turns_in_a_session() {
    assert!(fetches_until_all_are_served(true).await <= 20);
}

#[tokio::test]
async fn full_partitions_take_turns_without_a_session_as_the_client_asks() {
    assert!(fetches_until_all_are_served(false).await <= 20);
}

#[tokio::test]
async fn a_partition_that_is_always_full_does_not_starve_one_that_is_not() {
    let server = TestServer::start().await;
    server.create("t", 2).await;
    let value = "x".repeat(1000);
    for _ in 0..10 {
        server.append("t", 0, &value);
    }
    let mut client = Client::connect(&server).await;
    let opening = fetch((0, 0), vec![topic("t", &[(0, 0), (1, 0)])]).with_max_bytes(1500);
    let id = client.call(BY_NAME, &opening).await.session_id;
    server.append("t", 1, "rare");
    let mut served = Vec::new();
    for epoch in 1..=2 {
        // The same position again: partition 0 stays full.
        let request = fetch((id, epoch), vec![topic("t", &[(0, 0)])]).with_max_bytes(1500);
        served.extend(told(&client.call(BY_NAME, &request).await));
    }
    assert!(served.contains(&expect("t", 1, &["rare"])), "{served:?}");
}
