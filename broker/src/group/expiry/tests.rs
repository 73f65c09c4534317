use bytes::{BufMut, Bytes, BytesMut};

use super::*;
use crate::group::machine::{Effect, JoinRequest, Limits, Protocol, SyncRequest};

const RETENTION_MS: i64 = 1_000;

fn limits() -> Limits {
    Limits {
        max_size: 10,
        initial_rebalance_delay_ms: 0,
        new_member_join_timeout_ms: 1_000,
        max_pending: 10,
        max_subscription_bytes: 1 << 20,
    }
}

/// A stable group of one member.
fn group_of_one(protocol_type: &str, metadata: Bytes) -> Group {
    let mut group = Group::new(limits());
    let mut effects = Vec::new();
    let protocol = Protocol {
        name: "range".to_owned(),
        metadata,
    };
    let join = JoinRequest {
        ticket: 1,
        member_id: String::new(),
        new_member_id: "m".to_owned(),
        instance_id: None,
        requires_known_member_id: false,
        supports_skip_assignment: false,
        client_id: String::new(),
        client_host: String::new(),
        rebalance_timeout_ms: 1_000,
        session_timeout_ms: 1_000,
        protocol_type: protocol_type.to_owned(),
        protocols: vec![protocol],
    };
    group.join(0, join, &mut effects);
    let sync = SyncRequest {
        ticket: 2,
        member_id: "m".to_owned(),
        instance_id: None,
        generation: 1,
        protocol_type: None,
        protocol: None,
        assignments: Vec::new(),
    };
    group.sync(0, sync, &mut effects);
    let store = effects.into_iter().find_map(|effect| match effect {
        Effect::Store(_, then) => Some(then),
        _ => None,
    });
    group.stored(0, store.expect("a store"), Ok(()), &mut Vec::new());
    assert_eq!(group.state(), State::Stable);
    group
}

fn empty_group(protocol_type: &str) -> Group {
    let mut group = group_of_one(protocol_type, subscription(&[]));
    group.tick(10_000, &mut Vec::new());
    assert_eq!(group.state(), State::Empty);
    group
}

fn subscription(topics: &[&str]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(1);
    bytes.put_i32(topics.len() as i32);
    for topic in topics {
        bytes.put_i16(topic.len() as i16);
        bytes.put_slice(topic.as_bytes());
    }
    bytes.put_i32(-1);
    bytes.freeze()
}

/// Committed for partition 0 of each topic, at these times.
fn committed(commits: &[(&str, i64)]) -> Offsets {
    let mut offsets = Offsets::default();
    for (topic, commit_timestamp_ms) in commits {
        let value = OffsetCommitValue {
            offset: 5,
            leader_epoch: -1,
            metadata: String::new(),
            commit_timestamp_ms: *commit_timestamp_ms,
            expire_timestamp_ms: None,
            topic_id: None,
        };
        offsets.commit(topic, 0, value, 1);
    }
    offsets
}

fn expired(group: &Group, since: Option<i64>, offsets: &Offsets, now_ms: i64) -> Vec<String> {
    let retention = Retention {
        now_ms,
        retention_ms: RETENTION_MS,
    };
    let expired = retention.expired(group, since, offsets);
    expired.into_iter().map(|(topic, _)| topic).collect()
}

#[test]
fn an_empty_groups_offsets_are_kept_from_when_it_became_empty() {
    let group = empty_group("consumer");
    let offsets = committed(&[("old", 100), ("new", 9_000)]);
    assert!(expired(&group, Some(5_000), &offsets, 5_999).is_empty());
    assert_eq!(
        expired(&group, Some(5_000), &offsets, 6_000),
        ["new", "old"]
    );
    // From a record that does not say when.
    assert_eq!(expired(&group, None, &offsets, 6_000), ["old"]);
    // Connect's groups and the like are no different.
    let group = empty_group("connect");
    assert_eq!(expired(&group, Some(5_000), &offsets, 6_000).len(), 2);
}

#[test]
fn a_group_that_never_had_members_keeps_each_offset_from_its_commit() {
    let group = Group::new(limits());
    let offsets = committed(&[("old", 100), ("new", 9_000)]);
    assert!(expired(&group, None, &offsets, 1_099).is_empty());
    assert_eq!(expired(&group, Some(0), &offsets, 1_100), ["old"]);
}

#[test]
fn a_stable_group_forgets_only_what_nobody_has_subscribed_to() {
    let group = group_of_one("consumer", subscription(&["read"]));
    let offsets = committed(&[("read", 100), ("left", 100), ("left-late", 900)]);
    assert_eq!(expired(&group, Some(0), &offsets, 1_100), ["left"]);
    let unreadable = group_of_one("consumer", Bytes::from_static(b"?"));
    assert!(expired(&unreadable, Some(0), &offsets, 1 << 40).is_empty());
    let other = group_of_one("connect", Bytes::new());
    assert!(expired(&other, Some(0), &offsets, 1 << 40).is_empty());
}

#[test]
fn nothing_expires_while_a_group_rebalances() {
    let mut group = group_of_one("consumer", subscription(&["read"]));
    let record = {
        let mut effects = Vec::new();
        let leaver = crate::group::machine::Leaver {
            member_id: "m".to_owned(),
            instance_id: None,
        };
        group.leave(0, &[leaver], &mut effects);
        effects.into_iter().find_map(|effect| match effect {
            Effect::Store(record, _) => Some(record),
            _ => None,
        })
    };
    let offsets = committed(&[("left", 100)]);
    assert!(!expired(&group, Some(0), &offsets, 1 << 40).is_empty());
    // A restored group is empty still, and knows what it was.
    let record = record.expect("a record of the empty group");
    let mut group = Group::restore(limits(), 0, record, &mut Vec::new());
    assert_eq!(group.protocol_type(), Some("consumer"));
    group.join(
        0,
        JoinRequest {
            ticket: 3,
            member_id: String::new(),
            new_member_id: "n".to_owned(),
            instance_id: None,
            requires_known_member_id: false,
            supports_skip_assignment: false,
            client_id: String::new(),
            client_host: String::new(),
            rebalance_timeout_ms: 1_000,
            session_timeout_ms: 1_000,
            protocol_type: "consumer".to_owned(),
            protocols: vec![Protocol {
                name: "range".to_owned(),
                metadata: subscription(&["read"]),
            }],
        },
        &mut Vec::new(),
    );
    assert_eq!(group.state(), State::CompletingRebalance);
    assert!(expired(&group, Some(0), &offsets, 1 << 40).is_empty());
}

#[test]
fn a_commit_with_its_own_expiry_is_kept_until_then_and_no_longer() {
    let mut offsets = Offsets::default();
    for (topic, expire_timestamp_ms) in [("soon", 1_050), ("late", 99_000)] {
        let value = OffsetCommitValue {
            offset: 5,
            leader_epoch: -1,
            metadata: String::new(),
            commit_timestamp_ms: 1_000,
            expire_timestamp_ms: Some(expire_timestamp_ms),
            topic_id: None,
        };
        offsets.commit(topic, 0, value, 1);
    }
    let group = empty_group("consumer");
    assert!(expired(&group, Some(0), &offsets, 1_049).is_empty());
    assert_eq!(expired(&group, Some(0), &offsets, 50_000), ["soon"]);
    let subscribed = group_of_one("consumer", subscription(&["soon"]));
    assert!(expired(&subscribed, Some(0), &offsets, 50_000).is_empty());
}
