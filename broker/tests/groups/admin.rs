//! What administrators do: list, describe and delete groups, and delete their offsets.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, JoinGroupRequest, LeaveGroupRequest,
    ListGroupsRequest, OffsetDeleteRequest,
};

use crate::client::{Client, Served, config};
use crate::requests::*;

/// A consumer's subscription, as the clients write it (version 1).
fn subscription(topics: &[&str]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(1);
    bytes.put_i32(topics.len() as i32);
    for topic in topics {
        bytes.put_i16(topic.len() as i16);
        bytes.put_slice(topic.as_bytes());
    }
    bytes.put_i32(-1);
    bytes.put_i32(0);
    bytes.freeze()
}

fn with_metadata(request: JoinGroupRequest, metadata: Bytes) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(metadata);
    request.with_protocols(vec![protocol])
}

/// The id of the only member of a group that is stable.
fn stable_alone(client: &mut Client, name: &str, topics: &[&str]) -> String {
    let join = with_metadata(join_request(name, ""), subscription(topics));
    let joined = client.call(2, &join);
    assert_eq!(joined.error_code, 0);
    let id = joined.member_id.to_string();
    let sync = sync_request(name, &id, joined.generation_id, &[(&id, b"mine")]);
    assert_eq!(client.call(5, &sync).error_code, 0);
    id
}

fn leave(client: &mut Client, name: &str, id: &str) {
    let members = vec![MemberIdentity::default().with_member_id(text(id))];
    let request = LeaveGroupRequest::default()
        .with_group_id(group(name))
        .with_members(members);
    assert_eq!(client.call(5, &request).members[0].error_code, 0);
}

/// Names and states, by name.
fn list(client: &mut Client, states: &[&str], types: &[&str]) -> Vec<(String, String)> {
    let names = |names: &[&str]| names.iter().map(|name| text(name)).collect();
    let request = ListGroupsRequest::default()
        .with_states_filter(names(states))
        .with_types_filter(names(types));
    let response = client.call(5, &request);
    assert_eq!(response.error_code, 0);
    let groups = response.groups.iter();
    let mut groups: Vec<_> = groups
        .map(|it| (it.group_id.to_string(), it.group_state.to_string()))
        .collect();
    groups.sort_unstable();
    groups
}

fn delete(client: &mut Client, names: &[&str]) -> Vec<(String, i16)> {
    let names = names.iter().map(|name| group(name));
    let request = DeleteGroupsRequest::default().with_groups_names(names.collect());
    let results = client.call(2, &request).results;
    let results = results.into_iter();
    results
        .map(|it| (it.group_id.to_string(), it.error_code))
        .collect()
}

/// The request's error, and one for each topic's only partition.
fn delete_offsets(client: &mut Client, name: &str, topics: &[&str]) -> (i16, Vec<i16>) {
    let topics = topics.iter().map(|name| {
        OffsetDeleteRequestTopic::default()
            .with_name(topic(name))
            .with_partitions(vec![OffsetDeleteRequestPartition::default()])
    });
    let request = OffsetDeleteRequest::default()
        .with_group_id(group(name))
        .with_topics(topics.collect());
    let response = client.call(0, &request);
    let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
    let errors = partitions.map(|partition| partition.error_code).collect();
    (response.error_code, errors)
}

fn describe(
    client: &mut Client,
    version: i16,
    names: &[&str],
) -> Vec<kafka_protocol::messages::describe_groups_response::DescribedGroup> {
    let names = names.iter().map(|name| group(name));
    let request = DescribeGroupsRequest::default()
        .with_groups(names.collect())
        .with_include_authorized_operations(version >= 3);
    client.call(version, &request).groups
}

#[test]
fn groups_are_listed_by_state_and_type_whatever_the_case() {
    let served = Served::start();
    let mut client = served.connect();
    create_topic(&mut client, "t", 1);
    stable_alone(&mut client, "busy", &["t"]);
    commit_alone(&mut client, "idle", "t", 0, 3);
    let pair = |name: &str, state: &str| (name.to_owned(), state.to_owned());
    let (busy, idle) = (pair("busy", "Stable"), pair("idle", "Empty"));
    assert_eq!(list(&mut client, &[], &[]), [busy.clone(), idle.clone()]);
    assert_eq!(
        list(&mut client, &["sTaBlE"], &[]),
        std::slice::from_ref(&busy)
    );
    assert_eq!(list(&mut client, &["empty", "dead"], &["CLASSIC"]), [idle]);
    assert_eq!(
        list(&mut client, &["Stable"], &["classic", "share"]),
        [busy]
    );
    assert_eq!(list(&mut client, &["nonsense"], &[]), []);
    assert_eq!(list(&mut client, &[], &["consumer"]), []);
}

#[test]
fn a_stable_group_is_described_with_its_members_and_a_missing_one_as_dead() {
    let served = Served::start();
    let mut client = served.connect();
    let id = stable_alone(&mut client, "busy", &["t"]);
    for version in 0..=6 {
        let described = describe(&mut client, version, &["busy", "missing", "busy"]);
        assert_eq!(described.len(), 2, "a group is described once");
        let busy = &described[0];
        assert_eq!(busy.error_code, 0);
        assert_eq!(&*busy.group_state, "Stable");
        assert_eq!(&*busy.protocol_type, "consumer");
        assert_eq!(&*busy.protocol_data, "range");
        let member = &busy.members[0];
        assert_eq!((busy.members.len(), &*member.member_id), (1, &*id));
        assert_eq!(&*member.client_id, "test");
        assert_eq!(&*member.client_host, "/127.0.0.1");
        assert_eq!(member.member_metadata, subscription(&["t"]));
        assert_eq!(member.member_assignment, "mine");
        let operations = if version >= 3 { 3_400 } else { i32::MIN };
        assert_eq!(busy.authorized_operations, operations);

        let missing = &described[1];
        assert_eq!(&*missing.group_state, "Dead");
        let (error, message) = if version >= 6 {
            (ResponseError::GroupIdNotFound.code(), true)
        } else {
            (0, false)
        };
        assert_eq!(missing.error_code, error, "version {version}");
        let said = missing.error_message.as_deref().unwrap_or_default();
        assert_eq!(said.contains("missing"), message, "version {version}");
    }
    leave(&mut client, "busy", &id);
    let empty = describe(&mut client, 5, &["busy"]).remove(0);
    assert_eq!((&*empty.group_state, empty.members.len()), ("Empty", 0));
    assert_eq!(
        (&*empty.protocol_type, &*empty.protocol_data),
        ("consumer", "")
    );
}

#[test]
fn a_deleted_group_is_gone_with_its_offsets_across_a_restart() {
    let mut served = Served::start();
    let mut client = served.connect();
    create_topic(&mut client, "t", 1);
    let id = stable_alone(&mut client, "left", &["t"]);
    leave(&mut client, "left", &id);
    for name in ["left", "simple", "kept"] {
        commit_alone(&mut client, name, "t", 0, 0);
    }
    let not_found = ResponseError::GroupIdNotFound.code();
    let gone = |name: &str, error: i16| (name.to_owned(), error);
    assert_eq!(
        delete(&mut client, &["left", "simple", "missing", "left"]),
        [
            gone("left", 0),
            gone("simple", 0),
            gone("missing", not_found)
        ]
    );
    for _ in 0..2 {
        assert_eq!(
            list(&mut client, &[], &[]),
            [("kept".to_owned(), "Empty".to_owned())]
        );
        assert_eq!(fetch(&mut client, 9, "left", None), []);
        assert_eq!(offset(&mut client, "kept", "t", 0), 0);
        assert_eq!(delete(&mut client, &["left"]), [gone("left", not_found)]);
        let folder = served.stop();
        let config = config(&folder);
        served = Served::start_in(folder, config);
        client = served.connect();
    }
    // A group of that name is another one.
    let joined = client.call(2, &join_request("left", ""));
    assert_eq!((joined.error_code, joined.generation_id), (0, 1));
}

#[test]
fn a_group_with_members_is_not_deleted() {
    let served = Served::start();
    let mut client = served.connect();
    let id = stable_alone(&mut client, "busy", &["t"]);
    let error = ResponseError::NonEmptyGroup.code();
    assert_eq!(delete(&mut client, &["busy"]), [("busy".to_owned(), error)]);
    assert_eq!(heartbeat(&mut client, "busy", &id, 1), 0);
}

#[test]
fn offsets_are_deleted_for_topics_that_nobody_has_subscribed_to() {
    let mut served = Served::start();
    let mut client = served.connect();
    for name in ["read", "left"] {
        create_topic(&mut client, name, 1);
    }
    let id = stable_alone(&mut client, "g", &["read"]);
    for name in ["read", "left"] {
        let request = Commit {
            group: "g",
            member_id: &id,
            generation: 1,
            topic: name,
            partition: 0,
            offset: 0,
            metadata: "",
        };
        assert_eq!(commit(&mut client, 9, &request), 0);
    }
    let subscribed = ResponseError::GroupSubscribedToTopic.code();
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(
        delete_offsets(&mut client, "g", &["read", "left", "unknown"]),
        (0, vec![subscribed, 0, unknown])
    );
    for _ in 0..2 {
        assert_eq!(offset(&mut client, "g", "read", 0), 0);
        assert_eq!(offset(&mut client, "g", "left", 0), -1);
        let folder = served.stop();
        let config = config(&folder);
        served = Served::start_in(folder, config);
        client = served.connect();
    }
    leave(&mut client, "g", &id);
    assert_eq!(delete_offsets(&mut client, "g", &["read"]), (0, vec![0]));
    assert_eq!(offset(&mut client, "g", "read", 0), -1);
    let not_found = ResponseError::GroupIdNotFound.code();
    assert_eq!(
        delete_offsets(&mut client, "missing", &["read"]),
        (not_found, vec![])
    );
}

#[test]
fn offsets_of_a_group_whose_subscriptions_cannot_be_read_are_kept() {
    let served = Served::start();
    let mut client = served.connect();
    create_topic(&mut client, "t", 1);
    let odd = with_metadata(join_request("odd", ""), Bytes::from_static(b"\0\x01\x7f"));
    assert_eq!(client.call(2, &odd).error_code, 0);
    let subscribed = ResponseError::GroupSubscribedToTopic.code();
    assert_eq!(
        delete_offsets(&mut client, "odd", &["t"]),
        (0, vec![subscribed])
    );
    let other = join_request("connect", "").with_protocol_type(text("connect"));
    assert_eq!(client.call(2, &other).error_code, 0);
    let error = ResponseError::NonEmptyGroup.code();
    assert_eq!(
        delete_offsets(&mut client, "connect", &["t"]),
        (error, vec![])
    );
}
