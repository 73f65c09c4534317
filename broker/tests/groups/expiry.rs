//! Offsets that are forgotten with time.

use std::time::{Duration, Instant};

use kafka_protocol::messages::ListGroupsRequest;

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
