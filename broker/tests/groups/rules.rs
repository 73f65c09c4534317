//! The rules of classic groups that brokers get wrong, one test each.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest,
    SyncGroupRequest,
};

use crate::client::{Client, Served, config};
use crate::requests::*;

/// Joins alone, with an id that the coordinator gave; the member's id.
fn join_alone(client: &mut Client, name: &str) -> String {
    let told = client.call(9, &join_request(name, ""));
    assert_eq!(told.error_code, ResponseError::MemberIdRequired.code());
    let id = told.member_id.to_string();
    let joined = client.call(9, &join_request(name, &id));
    assert_eq!((joined.error_code, &*joined.member_id), (0, &*id));
    id
}

fn static_join(name: &str, member_id: &str, instance: &str) -> JoinGroupRequest {
    join_request(name, member_id).with_group_instance_id(Some(text(instance)))
}

/// Heartbeats until the group rebalances.
fn await_rebalance(client: &mut Client, name: &str, id: &str, generation: i32) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match heartbeat(client, name, id, generation) {
            0 => assert!(Instant::now() < deadline, "there is no rebalance"),
            error => {
                assert_eq!(error, ResponseError::RebalanceInProgress.code());
                return;
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_member_without_an_id_is_told_one_first_from_version_4_on() {
    let served = Served::start();
    let mut client = served.connect();
    for version in 0..=9 {
        let name = format!("group-{version}");
        let response = client.call(version, &join_request(&name, ""));
        let id = response.member_id.to_string();
        assert!(id.starts_with("test-"), "{id}");
        if version < 4 {
            assert_eq!((response.error_code, response.generation_id), (0, 1));
            continue;
        }
        let required = ResponseError::MemberIdRequired.code();
        assert_eq!(response.error_code, required, "version {version}");
        let joined = client.call(version, &join_request(&name, &id));
        assert_eq!((joined.error_code, &*joined.member_id), (0, &*id));
        // An id that nobody gave out is worth nothing.
        let unknown = client.call(version, &join_request(&name, "made-up"));
        assert_eq!(unknown.error_code, ResponseError::UnknownMemberId.code());
    }
}

#[test]
fn an_empty_groups_first_rebalance_waits_for_more_members() {
    let served = Served::start_with(|config| {
        config.group.group_initial_rebalance_delay_ms = 1_000;
    });
    let (mut first, mut second) = (served.connect(), served.connect());
    let began = Instant::now();
    let one = first.send(3, &join_request("g", ""));
    let two = second.send(3, &join_request("g", ""));
    let one = first.receive_for::<JoinGroupRequest>(3, one);
    let two = second.receive_for::<JoinGroupRequest>(3, two);
    assert!(began.elapsed() >= Duration::from_millis(1_000));
    assert_eq!((one.generation_id, two.generation_id), (1, 1));
    assert_eq!(one.members.len() + two.members.len(), 2, "one rebalance");
}

#[test]
fn a_static_member_comes_back_without_a_rebalance_and_its_old_id_is_fenced() {
    let served = Served::start();
    let (mut old, mut new) = (served.connect(), served.connect());
    create_topic(&mut old, "t", 1);
    for version in 5..=9 {
        let name = format!("group-{version}");
        let joined = old.call(version, &static_join(&name, "", "one"));
        assert_eq!((joined.error_code, joined.generation_id), (0, 1));
        let stale = joined.member_id.to_string();
        assert!(stale.starts_with("one-"), "{stale}");
        let sync = sync_request(&name, &stale, 1, &[(&stale, b"mine")]);
        assert_eq!(old.call(5, &sync).assignment, "mine");

        let again = new.call(version, &static_join(&name, "", "one"));
        assert_eq!((again.error_code, again.generation_id), (0, 1));
        let id = again.member_id.to_string();
        assert_ne!(id, stale);
        assert_eq!(again.skip_assignment, version >= 9, "version {version}");
        let synced = new.call(5, &sync_request(&name, &id, 1, &[]));
        assert_eq!(
            (synced.error_code, &synced.assignment[..]),
            (0, &b"mine"[..])
        );

        let fenced = ResponseError::FencedInstanceId.code();
        let beat = |id: &str| {
            HeartbeatRequest::default()
                .with_group_id(group(&name))
                .with_member_id(text(id))
                .with_generation_id(1)
                .with_group_instance_id(Some(text("one")))
        };
        assert_eq!(old.call(4, &beat(&stale)).error_code, fenced);
        assert_eq!(new.call(4, &beat(&id)).error_code, 0);
        let sync = sync_request(&name, &stale, 1, &[]).with_group_instance_id(Some(text("one")));
        assert_eq!(old.call(5, &sync).error_code, fenced);
        let join = static_join(&name, &stale, "one");
        assert_eq!(old.call(version, &join).error_code, fenced);
        let commit = |id: &str| -> OffsetCommitRequest {
            let commit = Commit {
                group: &name,
                member_id: id,
                generation: 1,
                topic: "t",
                partition: 0,
                offset: 0,
                metadata: "",
            };
            commit_request(9, &commit).with_group_instance_id(Some(text("one")))
        };
        let error = |response: kafka_protocol::messages::OffsetCommitResponse| {
            response.topics[0].partitions[0].error_code
        };
        assert_eq!(error(old.call(9, &commit(&stale))), fenced);
        assert_eq!(error(new.call(9, &commit(&id))), 0);
        let leave = |id: &str| {
            let member = MemberIdentity::default()
                .with_member_id(text(id))
                .with_group_instance_id(Some(text("one")));
            LeaveGroupRequest::default()
                .with_group_id(group(&name))
                .with_members(vec![member])
        };
        let refused = old.call(5, &leave(&stale));
        assert_eq!(refused.members[0].error_code, fenced);
        // An administrator knows its name only.
        assert_eq!(old.call(5, &leave("")).members[0].error_code, 0);
        let gone = ResponseError::UnknownMemberId.code();
        assert_eq!(new.call(4, &beat(&id)).error_code, gone);
    }
}

#[test]
fn a_static_member_that_comes_back_after_a_restart_is_known() {
    let served = Served::start();
    let mut client = served.connect();
    let joined = client.call(9, &static_join("g", "", "one"));
    let id = joined.member_id.to_string();
    let sync = sync_request("g", &id, 1, &[(&id, b"mine")]);
    assert_eq!(client.call(5, &sync).error_code, 0);
    let folder = served.stop();
    let config = config(&folder);
    let served = Served::start_in(folder, config);
    let mut client = served.connect();
    let again = client.call(9, &static_join("g", "", "one"));
    assert_eq!((again.error_code, again.generation_id), (0, 1));
    assert!(again.skip_assignment, "its assignment stands");
    let synced = client.call(5, &sync_request("g", &again.member_id, 1, &[]));
    assert_eq!(synced.assignment, "mine");
}

#[test]
fn member_ids_stay_through_chained_rebalances() {
    let served = Served::start();
    let mut clients: Vec<(Client, String)> = Vec::new();
    for generation in 1..=4 {
        let mut client = served.connect();
        let told = client.call(9, &join_request("g", ""));
        assert_eq!(told.error_code, ResponseError::MemberIdRequired.code());
        let id = told.member_id.to_string();
        let mut waiting = vec![client.send(9, &join_request("g", &id))];
        clients.insert(0, (client, id));
        for (client, id) in clients.iter_mut().skip(1) {
            await_rebalance(client, "g", id, generation - 1);
            // The first try's answer is lost with its connection; the member asks again.
            let mut hasty = served.connect();
            hasty.send(9, &join_request("g", id));
            drop(hasty);
            waiting.push(client.send(9, &join_request("g", id)));
        }
        let mut leaders = Vec::new();
        for ((client, id), waiting) in clients.iter_mut().zip(waiting) {
            let mut joined: JoinGroupResponse = client.receive_for::<JoinGroupRequest>(9, waiting);
            while joined.error_code == ResponseError::RebalanceInProgress.code() {
                // The lost try came in late, and has taken this one's place.
                joined = client.call(9, &join_request("g", id));
            }
            assert_eq!((joined.error_code, &*joined.member_id), (0, id.as_str()));
            assert_eq!(joined.generation_id, generation);
            if joined.leader == joined.member_id {
                leaders.push((id.clone(), joined.members.len()));
            }
        }
        assert_eq!(leaders.len(), 1, "one leader");
        assert_eq!(leaders[0].1, generation as usize, "it sees everybody");
        for (client, id) in &mut clients {
            let given: &[(&str, &'static [u8])] = &[(id, b"some")];
            let given = if *id == leaders[0].0 { given } else { &[] };
            client.send(5, &sync_request("g", id, generation, given));
        }
        for (client, _) in &mut clients {
            client.receive().expect("an assignment");
        }
    }
}

#[test]
fn a_member_that_does_not_rejoin_in_time_is_dropped() {
    let served = Served::start_with(|config| config.group.group_min_session_timeout_ms = 100);
    let (mut slow, mut other) = (served.connect(), served.connect());
    let request = join_request("g", "").with_rebalance_timeout_ms(300);
    let joined = slow.call(3, &request);
    let id = joined.member_id.to_string();
    let sync = sync_request("g", &id, 1, &[(&id, b"all")]);
    assert_eq!(slow.call(5, &sync).error_code, 0);
    let joined = other.call(3, &request);
    assert_eq!((joined.error_code, joined.generation_id), (0, 2));
    assert_eq!(joined.members.len(), 1, "the other one has not come");
    let gone = ResponseError::UnknownMemberId.code();
    assert_eq!(heartbeat(&mut slow, "g", &id, 1), gone);
}

#[test]
fn a_full_group_takes_nobody_else() {
    let served = Served::start_with(|config| config.group.group_max_size = 1);
    let mut client = served.connect();
    let id = join_alone(&mut client, "g");
    let full = ResponseError::GroupMaxSizeReached.code();
    for version in 0..=9 {
        let refused = client.call(version, &join_request("g", ""));
        assert_eq!((refused.error_code, &*refused.member_id), (full, ""));
    }
    assert_eq!(heartbeat(&mut client, "g", &id, 1), 0);
}

#[test]
fn groups_move_from_eager_to_cooperative_and_do_not_mix_the_two() {
    let served = Served::start();
    let mut client = served.connect();
    let offering = |request: JoinGroupRequest, names: &[&str]| {
        let protocols = names.iter().map(|name| {
            JoinGroupRequestProtocol::default()
                .with_name(text(name))
                .with_metadata(Bytes::from_static(b"subscription"))
        });
        request.with_protocols(protocols.collect())
    };
    let id = join_alone(&mut client, "g");
    let mut other = served.connect();
    let cooperative = offering(join_request("g", ""), &["cooperative-sticky"]);
    assert_eq!(
        other.call(9, &cooperative).error_code,
        ResponseError::InconsistentGroupProtocol.code()
    );
    let both = offering(join_request("g", &id), &["cooperative-sticky", "range"]);
    let joined = client.call(9, &both);
    assert_eq!(joined.error_code, 0);
    assert_eq!(joined.protocol_name.as_deref(), Some("cooperative-sticky"));
    assert_eq!(
        other.call(9, &cooperative).error_code,
        ResponseError::MemberIdRequired.code()
    );
}

#[test]
fn a_sync_names_the_chosen_protocol_from_version_5_on() {
    let served = Served::start();
    let mut client = served.connect();
    let id = join_alone(&mut client, "g");
    let inconsistent = ResponseError::InconsistentGroupProtocol.code();
    let sync = sync_request("g", &id, 1, &[(&id, b"mine")]);
    for wrong in [
        sync.clone().with_protocol_name(None),
        sync.clone().with_protocol_type(None),
        sync.clone().with_protocol_name(Some(text("roundrobin"))),
        sync.clone().with_protocol_type(Some(text("connect"))),
    ] {
        assert_eq!(client.call(5, &wrong).error_code, inconsistent);
    }
    let without = sync.with_protocol_name(None).with_protocol_type(None);
    assert_eq!(client.call(4, &without).assignment, "mine");
}

#[test]
fn a_commit_to_a_group_that_is_not_there_has_the_versions_error() {
    let served = Served::start();
    let mut client = served.connect();
    create_topic(&mut client, "t", 1);
    let stranger = Commit {
        group: "missing",
        member_id: "stranger",
        generation: 3,
        topic: "t",
        partition: 0,
        offset: 0,
        metadata: "",
    };
    for version in 2..=9 {
        let expected = if version >= 9 {
            ResponseError::GroupIdNotFound
        } else {
            ResponseError::IllegalGeneration
        };
        let error = commit(&mut client, version, &stranger);
        assert_eq!(error, expected.code(), "version {version}");
    }
}

/// A group that can't be stored says so; nobody is left waiting.
#[test]
fn an_assignment_too_large_for_its_record_is_an_error_and_the_group_goes_on() {
    let served = Served::start();
    let mut client = served.connect();
    let id = join_alone(&mut client, "g");
    let huge = SyncGroupRequestAssignment::default()
        .with_member_id(text(&id))
        .with_assignment(Bytes::from(vec![7; 2 << 20]));
    let sync: SyncGroupRequest = sync_request("g", &id, 1, &[]).with_assignments(vec![huge]);
    assert_eq!(
        client.call(5, &sync).error_code,
        ResponseError::UnknownServerError.code()
    );
    let joined = client.call(9, &join_request("g", &id));
    assert_eq!((joined.error_code, joined.generation_id), (0, 2));
    let sync = sync_request("g", &id, 2, &[(&id, b"mine")]);
    assert_eq!(client.call(5, &sync).assignment, "mine");
}

#[test]
fn a_group_that_says_too_much_about_itself_takes_no_more() {
    let served = Served::start();
    let mut client = served.connect();
    let huge = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from(vec![7; 17 << 20]));
    let request = join_request("g", "").with_protocols(vec![huge]);
    assert_eq!(
        client.call(3, &request).error_code,
        ResponseError::GroupMaxSizeReached.code()
    );
}
