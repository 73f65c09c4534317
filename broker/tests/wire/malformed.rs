//! Requests that can't be read close their own connection and nothing else.

use std::time::Duration;

use kafka_protocol::messages::{ApiVersionsRequest, DescribeClusterRequest};

use crate::client::Served;

#[test]
fn unknown_apis_and_versions_close() {
    let served = Served::start();
    // An API that does not exist, one that is not served, versions outside the range.
    for (api, version) in [(999, 0), (-1, 0), (4, 0), (3, 14), (1, 3), (60, -1)] {
        let mut client = served.connect();
        client.write_request(api, version, false, &[0; 8]);
        client.assert_closed();
    }
    assert_eq!(
        served
            .connect()
            .call(0, &ApiVersionsRequest::default())
            .error_code,
        0
    );
    served.stop();
}

#[test]
fn lengths_that_lie_close_after_the_earlier_responses() {
    let served = Served::start_with(|config| config.broker.socket_request_max_bytes = 10_000);
    for length in [0, -1, i32::MIN, 10_001, i32::MAX] {
        let mut client = served.connect();
        let earlier = client.send(0, &ApiVersionsRequest::default());
        client.write(&length.to_be_bytes());
        client.receive_for::<ApiVersionsRequest>(0, earlier);
        client.assert_closed();
    }
    // Metadata v0 with 2^31 - 1 topics, and v12 with a tagged field of 4 GiB.
    for (version, flexible, body) in [
        (0, false, &[0x7f, 0xff, 0xff, 0xff][..]),
        (12, true, &[1, 0, 0, 1, 9, 0xff, 0xff, 0xff, 0xff, 0x0f][..]),
    ] {
        let mut client = served.connect();
        client.write_request(3, version, flexible, body);
        client.assert_closed();
    }
    assert_eq!(
        served
            .connect()
            .call(0, &ApiVersionsRequest::default())
            .error_code,
        0
    );
    served.stop();
}

#[test]
fn truncated_frames_and_short_headers_close() {
    let served = Served::start();
    let mut client = served.connect();
    client.write(&[0, 0, 1, 0, 0, 18, 0, 0]);
    client.half_close();
    client.assert_closed();
    for len in 1..10 {
        let mut client = served.connect();
        client.write_frame(&[0, 3, 0, 0, 0, 0, 0, 1, 0, 9][..len]);
        client.assert_closed();
    }
    served.stop();
}

#[test]
fn garbage_does_not_hurt_anybody_else() {
    let served = Served::start();
    let mut bystander = served.connect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..600 {
        let mut client = served.connect();
        let mut frame: Vec<u8> = (0..random() % 200 + 8).map(|_| random() as u8).collect();
        // Mostly an API and a version that exist, so that the body is what is wrong.
        if round % 10 > 0 {
            let api = &broker::router::table()[random() as usize % broker::router::table().len()];
            let versions = api.versions.clone().count() as u64;
            let version = api.versions.start() + (random() % versions) as i16;
            frame[..2].copy_from_slice(&(api.key as i16).to_be_bytes());
            frame[2..4].copy_from_slice(&version.to_be_bytes());
            if frame.len() > 12 {
                frame[8..10].copy_from_slice(&0u16.to_be_bytes());
                frame[10] = 0;
            }
        }
        client.write_frame(&frame);
        client.half_close();
        if round % 50 == 0 {
            assert_eq!(
                bystander
                    .call(0, &DescribeClusterRequest::default())
                    .error_code,
                0
            );
        }
    }
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(
        bystander
            .call(0, &DescribeClusterRequest::default())
            .error_code,
        0
    );
    served.stop();
}
