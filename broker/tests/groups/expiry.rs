//! Offsets that are forgotten with time.

use std::time::{Duration, Instant};

use kafka_protocol::messages::{LeaveGroupRequest, ListGroupsRequest};

use crate::client::{Client, Served, config};
use crate::requests::*;

fn groups(client: &mut Client) -> usize {
    client.call(5, &ListGroupsRequest::default()).groups.len()
}

#[test]
fn an_offset_that_set_its_own_expiry_goes_with_its_group_and_stays_away() {
    let served = Served::start_with(|config| {
        config.group.offsets_retention_check_interval_ms = 20;
    });
    let mut client = served.connect();
    create_topic(&mut client, "t", 2);
    commit_alone(&mut client, "kept", "t", 0, 0);
    for version in 2..=4 {
        let short = Commit {
            group: "short",
            member_id: "",
            generation: -1,
            topic: "t",
            partition: 1,
            offset: 0,
            metadata: "",
        };
        let request = commit_request(version, &short).with_retention_time_ms(1);
        let response = client.call(version, &request);
        assert_eq!(response.topics[0].partitions[0].error_code, 0);
        let deadline = Instant::now() + Duration::from_secs(30);
        while groups(&mut client) > 1 {
            assert!(Instant::now() < deadline, "the group stays");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(offset(&mut client, "short", "t", 1), -1);
    }
    let folder = served.stop();
    let config = config(&folder);
    let served = Served::start_in(folder, config);
    let mut client = served.connect();
    assert_eq!(groups(&mut client), 1);
    assert_eq!(offset(&mut client, "short", "t", 1), -1);
    assert_eq!(offset(&mut client, "kept", "t", 0), 0);
}

/// Which offsets have expired is decided purely, and tested there; here it is that they go, with
/// their group's record, across restarts, and that a group with members keeps what it reads.
#[test]
fn a_group_that_lost_its_members_goes_when_its_time_is_over_and_others_stay() {
    let served = Served::start();
    let mut client = served.connect();
    create_topic(&mut client, "t", 1);
    for name in ["left", "busy"] {
        let join = join_request(name, "").with_session_timeout_ms(60_000);
        let joined = client.call(2, &join);
        let id = joined.member_id.to_string();
        let sync = sync_request(name, &id, 1, &[(&id, b"mine")]);
        assert_eq!(client.call(5, &sync).error_code, 0);
        let request = Commit {
            group: name,
            member_id: &id,
            generation: 1,
            topic: "t",
            partition: 0,
            offset: 0,
            metadata: "",
        };
        let request = commit_request(4, &request).with_retention_time_ms(1);
        let response = client.call(4, &request);
        assert_eq!(response.topics[0].partitions[0].error_code, 0);
        if name == "left" {
            let leave = LeaveGroupRequest::default()
                .with_group_id(group(name))
                .with_member_id(text(&id));
            assert_eq!(client.call(1, &leave).error_code, 0);
        }
    }
    let (mut folder, mut expired) = (served.stop(), false);
    for check_interval_ms in [600_000, 20, 600_000] {
        let mut config = config(&folder);
        config.group.offsets_retention_check_interval_ms = check_interval_ms;
        let served = Served::start_in(folder, config);
        let mut client = served.connect();
        if check_interval_ms == 20 {
            let deadline = Instant::now() + Duration::from_secs(30);
            while groups(&mut client) > 1 {
                assert!(Instant::now() < deadline, "the group stays");
                std::thread::sleep(Duration::from_millis(5));
            }
            expired = true;
        }
        let left = if expired { -1 } else { 0 };
        assert_eq!(offset(&mut client, "left", "t", 0), left);
        assert_eq!(offset(&mut client, "busy", "t", 0), 0);
        folder = served.stop();
    }
}
