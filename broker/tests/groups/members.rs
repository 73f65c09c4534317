//! Joining, syncing, leaving; finding the coordinator.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::{
    FindCoordinatorRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest,
};

use crate::client::{Client, Served, config};
use crate::requests::*;

/// Joins alone at a version, with the id that the coordinator wants it to use.
fn join_alone(client: &mut Client, version: i16, name: &str) -> (String, i32) {
    let mut response = client.call(version, &join_request(name, ""));
    if version >= 4 {
        assert_eq!(response.error_code, ResponseError::MemberIdRequired.code());
        response = client.call(version, &join_request(name, &response.member_id));
    }
    assert_eq!(response.error_code, 0);
    assert_eq!(response.leader, response.member_id);
    assert_eq!(response.protocol_name.as_deref(), Some("range"));
    assert_eq!(response.members.len(), 1);
    assert_eq!(response.members[0].metadata, "subscription");
    (response.member_id.to_string(), response.generation_id)
}

#[test]
fn every_version_joins_syncs_and_leaves() {
    let served = Served::start();
    let mut client = served.connect();
    for version in 0..=9 {
        let name = format!("group-{version}");
        let (id, generation) = join_alone(&mut client, version, &name);
        assert!(id.starts_with("test-"), "{id}");
        assert_eq!(generation, 1);
        let sync = sync_request(&name, &id, generation, &[(&id, b"mine")]);
        let response = client.call(version.min(5), &sync);
        assert_eq!(
            (response.error_code, &response.assignment[..]),
            (0, &b"mine"[..])
        );
        assert_eq!(heartbeat(&mut client, &name, &id, generation), 0);

        let leave_version = version.min(5);
        let leave = LeaveGroupRequest::default().with_group_id(group(&name));
        let leave = if leave_version < 3 {
            leave.with_member_id(text(&id))
        } else {
            leave.with_members(vec![
                MemberIdentity::default().with_member_id(text(&id)),
                MemberIdentity::default().with_member_id(text("stranger")),
            ])
        };
        let response = client.call(leave_version, &leave);
        assert_eq!(response.error_code, 0);
        let errors: Vec<i16> = response.members.iter().map(|it| it.error_code).collect();
        if leave_version >= 3 {
            assert_eq!(errors, [0, ResponseError::UnknownMemberId.code()]);
        }
        assert_eq!(
            heartbeat(&mut client, &name, &id, generation),
            ResponseError::UnknownMemberId.code()
        );
    }
}

#[test]
fn a_second_member_makes_the_first_rejoin_and_both_share() {
    let served = Served::start();
    let (mut first, mut second) = (served.connect(), served.connect());
    let (a, _) = join_alone(&mut first, 5, "shared");
    let sync = sync_request("shared", &a, 1, &[(&a, b"all")]);
    assert_eq!(first.call(5, &sync).error_code, 0);

    let b = second
        .call(5, &join_request("shared", ""))
        .member_id
        .to_string();
    let waiting = second.send(5, &join_request("shared", &b));
    while heartbeat(&mut first, "shared", &a, 1) == 0 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let again = first.call(5, &join_request("shared", &a));
    let joined = second.receive_for::<JoinGroupRequest>(5, waiting);
    assert_eq!((again.error_code, joined.error_code), (0, 0));
    assert_eq!((again.generation_id, joined.generation_id), (2, 2));
    assert_eq!((again.members.len(), joined.members.len()), (2, 0));
    assert_eq!(joined.leader, again.member_id);

    let waiting = second.send(5, &sync_request("shared", &b, 2, &[]));
    let sync = sync_request("shared", &a, 2, &[(&a, b"half"), (&b, b"other half")]);
    assert_eq!(first.call(5, &sync).assignment, "half");
    let synced = second.receive_for::<SyncGroupRequest>(5, waiting);
    assert_eq!(synced.assignment, "other half");
}

#[test]
fn members_go_on_after_a_restart() {
    let served = Served::start();
    let mut client = served.connect();
    create_topic(&mut client, "t", 1);
    let (id, generation) = join_alone(&mut client, 9, "g");
    let sync = sync_request("g", &id, generation, &[(&id, b"mine")]);
    assert_eq!(client.call(5, &sync).error_code, 0);
    let folder = served.stop();

    let config = config(&folder);
    let served = Served::start_in(folder, config);
    let mut client = served.connect();
    assert_eq!(heartbeat(&mut client, "g", &id, generation), 0);
    let again = client.call(5, &sync_request("g", &id, generation, &[]));
    assert_eq!(again.assignment, "mine");
    let with = |generation| Commit {
        group: "g",
        member_id: &id,
        generation,
        topic: "t",
        partition: 0,
        offset: 0,
        metadata: "",
    };
    assert_eq!(commit(&mut client, 9, &with(generation)), 0);
    assert_eq!(
        commit(&mut client, 9, &with(generation - 1)),
        ResponseError::IllegalGeneration.code()
    );
    assert_eq!(
        heartbeat(&mut client, "g", &id, generation + 1),
        ResponseError::IllegalGeneration.code()
    );
}

#[test]
fn a_silent_member_is_dropped_when_its_session_ends() {
    let served = Served::start_with(|config| config.group.group_min_session_timeout_ms = 100);
    let mut client = served.connect();
    let joined = client.call(0, &join_request("g", "").with_session_timeout_ms(200));
    assert_eq!(joined.error_code, 0);
    let id = joined.member_id.to_string();
    assert_eq!(
        client
            .call(0, &sync_request("g", &id, 1, &[(&id, b"mine")]))
            .error_code,
        0
    );
    std::thread::sleep(std::time::Duration::from_millis(400));
    assert_eq!(
        heartbeat(&mut client, "g", &id, 1),
        ResponseError::UnknownMemberId.code()
    );
}

#[test]
fn nonsense_is_refused() {
    let served = Served::start();
    let mut client = served.connect();
    let code = |client: &mut Client, request: &JoinGroupRequest| client.call(9, request).error_code;
    let request = join_request("", "");
    assert_eq!(
        code(&mut client, &request),
        ResponseError::InvalidGroupId.code()
    );
    for timeout in [-1, 0, 1, i32::MAX] {
        let request = join_request("g", "").with_session_timeout_ms(timeout);
        assert_eq!(
            code(&mut client, &request),
            ResponseError::InvalidSessionTimeout.code()
        );
    }
    let request = join_request("g", "").with_protocols(Vec::new());
    assert_eq!(
        code(&mut client, &request),
        ResponseError::InconsistentGroupProtocol.code()
    );
    let request = join_request("g", "stranger");
    assert_eq!(
        code(&mut client, &request),
        ResponseError::UnknownMemberId.code()
    );
    let sync = sync_request("g", "stranger", 1, &[]);
    assert_eq!(
        client.call(5, &sync).error_code,
        ResponseError::UnknownMemberId.code()
    );
}

#[test]
fn every_version_finds_this_broker_for_groups_and_for_transactions() {
    let served = Served::start();
    let mut client = served.connect();
    for version in 0..=6 {
        for key_type in 0..=i8::from(version >= 1) {
            let keys = ["one", "two"].map(text);
            let request = if version >= 4 {
                FindCoordinatorRequest::default().with_coordinator_keys(keys.to_vec())
            } else {
                FindCoordinatorRequest::default().with_key(keys[0].clone())
            };
            let response = client.call(version, &request.with_key_type(key_type));
            let found: Vec<_> = if version >= 4 {
                let found = response.coordinators.iter();
                found
                    .map(|it| (it.key.to_string(), it.port, it.error_code))
                    .collect()
            } else {
                vec![("one".to_owned(), response.port, response.error_code)]
            };
            let port = i32::from(served.address.port());
            let mut expected = vec![("one".to_owned(), port, 0)];
            if version >= 4 {
                expected.push(("two".to_owned(), port, 0));
            }
            assert_eq!(found, expected, "version {version}, key type {key_type}");
        }
    }
}
