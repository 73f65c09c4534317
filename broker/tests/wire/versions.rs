//! What is advertised is what is served.

use bytes::{Buf, BufMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, DescribeClusterRequest, GetTelemetrySubscriptionsRequest,
    MetadataRequest,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::client::Served;

fn api_versions_request() -> ApiVersionsRequest {
    ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("test"))
        .with_client_software_version(StrBytes::from_static_str("1.0"))
}

#[test]
fn api_versions_answers_every_version_from_the_table() {
    let served = Served::start();
    let mut client = served.connect();
    for version in 0..=4 {
        let request = if version < 3 {
            ApiVersionsRequest::default()
        } else {
            api_versions_request()
        };
        let response = client.call(version, &request);
        assert_eq!(response.error_code, 0);
        let found = |key: ApiKey| {
            response
                .api_keys
                .iter()
                .find(|api| api.api_key == key as i16)
                .cloned()
        };
        for api in broker::router::table() {
            let entry = found(api.key).unwrap_or_else(|| panic!("{:?} is missing", api.key));
            assert_eq!(entry.max_version, *api.versions.end());
            let min = if api.key == ApiKey::Produce {
                0
            } else {
                *api.versions.start()
            };
            assert_eq!(entry.min_version, min, "{:?}", api.key);
        }
        assert_eq!(response.api_keys.len(), broker::router::table().len());
        let names: Vec<&str> = response
            .supported_features
            .iter()
            .map(|f| f.name.as_str())
            .collect();
        let expected: &[&str] = if version == 4 {
            &["group.version", "transaction.version"]
        } else {
            &[]
        };
        assert_eq!(names, expected, "v{version}");
        if version >= 3 {
            assert_eq!(response.finalized_features_epoch, 0);
            let [finalized] = response.finalized_features.as_slice() else {
                panic!("{:?}", response.finalized_features);
            };
            // Without it Java clients do not use transactions as KIP-890 has them.
            assert_eq!(&*finalized.name, "transaction.version");
            assert_eq!(
                (finalized.min_version_level, finalized.max_version_level),
                (2, 2)
            );
        }
    }
    served.stop();
}

#[test]
fn the_surface_of_this_release_is_served() {
    use ApiKey::*;
    let expected = [
        (Produce, 3, 13),
        (Fetch, 4, 18),
        (ListOffsets, 1, 10),
        (Metadata, 0, 13),
        (OffsetCommit, 2, 9),
        (OffsetFetch, 1, 9),
        (FindCoordinator, 0, 6),
        (JoinGroup, 0, 9),
        (Heartbeat, 0, 4),
        (LeaveGroup, 0, 5),
        (SyncGroup, 0, 5),
        (ApiVersions, 0, 4),
        (CreateTopics, 2, 7),
        (DeleteTopics, 1, 6),
        (InitProducerId, 0, 5),
        (AddPartitionsToTxn, 0, 5),
        (AddOffsetsToTxn, 0, 4),
        (EndTxn, 0, 5),
        (TxnOffsetCommit, 0, 5),
        (WriteTxnMarkers, 1, 1),
        (DescribeTransactions, 0, 0),
        (ListTransactions, 0, 2),
        (DescribeConfigs, 1, 4),
        (DescribeCluster, 0, 2),
        (GetTelemetrySubscriptions, 0, 0),
    ];
    for (key, min, max) in expected {
        let api = broker::router::table().iter().find(|api| api.key == key);
        let versions = api.map(|api| api.versions.clone());
        assert_eq!(versions, Some(min..=max), "{key:?}");
    }
}

#[test]
fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let served = Served::start();
    let mut client = served.connect();
    for version in [5, 99, i16::MAX, -1] {
        let correlation_id = client.write_request(18, version, true, &[1, 1, 0]);
        let mut body = client.receive().expect("an answer");
        assert_eq!(body.get_i32(), correlation_id);
        assert_eq!(body.get_i16(), 35);
        assert_eq!(body.get_i32(), 1);
        assert_eq!((body.get_i16(), body.get_i16(), body.get_i16()), (18, 0, 4));
        assert!(body.is_empty());
    }
    // The client goes on, on the same connection.
    assert_eq!(client.call(4, &api_versions_request()).error_code, 0);
    served.stop();
}

#[test]
fn unknown_tagged_fields_are_skipped() {
    const TAGGED: &[u8] = &[2, 99, 3, b'a', b'b', b'c', 100, 0];
    let served = Served::start();
    let mut client = served.connect();
    // Metadata v12 of one topic that may not be created, with such fields in the header, in the
    // topic and in the body.
    let mut frame = Vec::new();
    frame.put_slice(&[0, 3, 0, 12, 0, 0, 0, 5, 0xff, 0xff]);
    frame.put_slice(TAGGED);
    frame.put_u8(2);
    frame.put_slice(&[0; 16]);
    frame.put_slice(&[3, b'n', b'o']);
    frame.put_slice(TAGGED);
    frame.put_slice(&[0, 0]);
    frame.put_slice(TAGGED);
    client.write_frame(&frame);
    let response = client.receive_for::<MetadataRequest>(12, 5);
    let [topic] = &response.topics[..] else {
        panic!("one topic: {response:?}")
    };
    assert_eq!(topic.error_code, 3);
    assert_eq!(topic.name.as_ref().map(|name| name.as_str()), Some("no"));
    served.stop();
}

#[test]
fn a_client_software_name_that_is_none_is_refused() {
    let served = Served::start();
    let mut client = served.connect();
    let request =
        api_versions_request().with_client_software_name(StrBytes::from_static_str("a b"));
    let response = client.call(3, &request);
    assert_eq!(response.error_code, 42);
    assert_eq!(response.api_keys, Vec::<ApiVersion>::new());
    served.stop();
}

#[test]
fn produce_before_version_3_is_advertised_and_refused_by_its_own_answer() {
    let served = Served::start();
    let mut client = served.connect();
    let mut body = Vec::new();
    body.put_i16(1);
    body.put_i32(1000);
    body.put_i32(1);
    body.put_i16(1);
    body.put_u8(b't');
    body.put_i32(1);
    body.put_i32(7);
    body.put_i32(0);
    for version in 0..3 {
        let correlation_id = client.write_request(0, version, false, &body);
        let mut answer = client.receive().expect("an answer");
        assert_eq!(answer.get_i32(), correlation_id);
        assert_eq!(answer.get_i32(), 1);
        assert_eq!(answer.get_i16(), 1);
        assert_eq!(answer.get_u8(), b't');
        assert_eq!(answer.get_i32(), 1);
        assert_eq!(answer.get_i32(), 7);
        assert_eq!(answer.get_i16(), 35);
    }
    served.stop();
}

#[test]
fn describe_cluster_names_this_broker() {
    let served = Served::start();
    let mut client = served.connect();
    for version in 0..=2 {
        let response = client.call(version, &DescribeClusterRequest::default());
        assert_eq!(response.error_code, 0);
        assert_eq!(response.cluster_id.len(), 22);
        assert_eq!(response.controller_id.0, 0);
        assert_eq!(response.cluster_authorized_operations, i32::MIN);
        let [broker] = &response.brokers[..] else {
            panic!("one broker")
        };
        assert_eq!(
            (broker.host.as_str(), broker.port),
            ("127.0.0.1", served.address.port().into())
        );
        let metadata = client.call(12, &MetadataRequest::default());
        assert_eq!(
            metadata.cluster_id.as_deref(),
            Some(response.cluster_id.as_str())
        );
    }
    for (endpoint_type, error) in [(2, 114), (3, 115)] {
        let request = DescribeClusterRequest::default().with_endpoint_type(endpoint_type);
        assert_eq!(client.call(1, &request).error_code, error);
    }
    let request =
        DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
    assert_eq!(
        client.call(0, &request).cluster_authorized_operations,
        0b1_1111_1010_0000
    );
    served.stop();
}

#[test]
fn telemetry_subscriptions_are_empty_and_keep_the_clients_id() {
    let served = Served::start();
    let mut client = served.connect();
    let first = client.call(0, &GetTelemetrySubscriptionsRequest::default());
    assert!(!first.client_instance_id.is_nil());
    assert!(first.requested_metrics.is_empty());
    assert_eq!(first.push_interval_ms, 300_000);
    let id = Uuid::from_u128(7);
    let request = GetTelemetrySubscriptionsRequest::default().with_client_instance_id(id);
    assert_eq!(client.call(0, &request).client_instance_id, id);
    served.stop();
}
