//! Model topics' positions, shown as groups.

use std::sync::Arc;

use broker::catalog::{Catalog, NewTopic, TopicDefaults, TopicKind};
use broker::clock::SystemClock;
use broker::config::Config;
use broker::group::machine::{Committer, JoinRequest, Protocol, State};
use broker::group::records::OffsetCommitValue;
use broker::group::{Answer, Fetched, FetchedOffset, GroupCoordinator, NewOffset, ReadOnlyGroups};
use kafka_protocol::ResponseError;
use storage::LogDir;
use storage::disk::RealDisk;
use storage::log_dir::LogDirConfig;
use tempfile::TempDir;

#[derive(Debug)]
struct Positions;

impl ReadOnlyGroups for Positions {
    fn positions(&self, group: &str) -> Option<Vec<(String, i32, i64)>> {
        (group == "model").then(|| vec![("in".to_owned(), 0, 7), ("in".to_owned(), 2, 9)])
    }

    fn names(&self) -> Vec<String> {
        vec!["model".to_owned()]
    }
}

async fn coordinator(folder: &TempDir) -> Arc<GroupCoordinator> {
    let config = LogDirConfig {
        path: folder.path().to_owned(),
        node_id: 0,
        sync_threads: 1,
        recovery_threads: 1,
    };
    let log_dir = Arc::new(LogDir::open(config, Arc::new(RealDisk)).expect("a data folder"));
    let clock = Arc::new(SystemClock);
    let catalog = Catalog::open(log_dir, TopicDefaults::default(), clock.clone()).await;
    let catalog = Arc::new(catalog.expect("a catalog"));
    let new = NewTopic {
        name: "in".to_owned(),
        partitions: 3,
        configs: Default::default(),
        kind: TopicKind::Ordinary,
    };
    catalog.create_topic(new).await.expect("a topic");
    let settings = Config::default().settings();
    GroupCoordinator::open(catalog, &settings, clock)
        .await
        .expect("a coordinator")
}

#[tokio::test]
async fn positions_are_fetched_but_neither_joined_nor_committed() {
    let folder = TempDir::new().expect("a folder");
    let groups = coordinator(&folder).await;
    groups.set_read_only_groups(Arc::new(Positions));
    let offset = |fetched| match fetched {
        Fetched::Committed(value) => Some(value.offset),
        Fetched::Nothing => None,
        Fetched::Unstable => panic!("positions are stable"),
    };
    let offsets = |fetched: Vec<FetchedOffset>| -> Vec<(i32, Option<i64>)> {
        let fetched = fetched.into_iter();
        fetched.map(|(at, it)| (at, offset(it))).collect()
    };
    let some = groups.fetch_offsets("model", "in", &[0, 1, 2], true);
    assert_eq!(offsets(some), [(0, Some(7)), (1, None), (2, Some(9))]);
    let all = groups.fetch_all_offsets("model", true);
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].0, "in");
    assert_eq!(groups.fetch_all_offsets("other", true), []);

    let join = |groups: &GroupCoordinator| JoinRequest {
        ticket: groups.next_ticket(),
        member_id: String::new(),
        new_member_id: groups.new_member_id("client"),
        instance_id: None,
        requires_known_member_id: true,
        supports_skip_assignment: false,
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        rebalance_timeout_ms: 10_000,
        session_timeout_ms: 10_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![Protocol {
            name: "range".to_owned(),
            metadata: Default::default(),
        }],
    };
    for (group, error) in [
        ("model", ResponseError::GroupAuthorizationFailed),
        ("other", ResponseError::MemberIdRequired),
    ] {
        match groups.join(group, join(&groups)).await {
            Answer::Now(answer) => assert_eq!(answer.error, Some(error)),
            Answer::Later(_) => panic!("{group} waits"),
        }
    }
    let committer = Committer {
        member_id: "",
        instance_id: None,
        generation: -1,
    };
    let value = OffsetCommitValue {
        offset: 1,
        leader_epoch: -1,
        metadata: String::new(),
        commit_timestamp_ms: 0,
        expire_timestamp_ms: None,
        topic_id: None,
    };
    let offset = NewOffset {
        topic: "in".to_owned(),
        partition: 0,
        value,
    };
    match groups
        .commit_offsets("model", committer, vec![offset])
        .await
    {
        Answer::Now(result) => assert_eq!(result, Err(ResponseError::GroupAuthorizationFailed)),
        Answer::Later(_) => panic!("it is committed"),
    }
}

#[tokio::test]
async fn positions_are_listed_and_described_but_not_deleted() {
    let folder = TempDir::new().expect("a folder");
    let groups = coordinator(&folder).await;
    groups.set_read_only_groups(Arc::new(Positions));
    let listed = groups.list();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].group, "model");
    assert_eq!(listed[0].state, State::Empty);
    let described = groups.describe("model").expect("it is shown");
    assert_eq!(
        (described.state, described.members.len()),
        (State::Empty, 0)
    );
    assert_eq!(groups.describe("other"), None);
    let refused = ResponseError::GroupAuthorizationFailed;
    let Answer::Now(deleted) = groups.delete_group("model") else {
        panic!("a model topic's positions are being deleted");
    };
    assert_eq!(deleted, Err(refused));
    let offsets = vec![("in".to_owned(), vec![0])];
    let Answer::Now(deleted) = groups.delete_offsets("model", offsets) else {
        panic!("a model topic's positions are being deleted");
    };
    assert_eq!(deleted, Err(refused));
    assert_eq!(groups.fetch_all_offsets("model", true).len(), 1);
}
