//! The shapes against the codec: whatever a shape generates, the codec must read to the last byte
//! and write again byte for byte.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable};

use super::*;

/// Writes a populated request of a shape: two elements in each array, an unknown tagged field in
/// each struct, no value a default.
struct Populate {
    version: i16,
    flexible: bool,
    seed: u8,
}

impl Populate {
    fn fields(&mut self, fields: &[Field], out: &mut BytesMut) {
        let present: Vec<&Field> = fields
            .iter()
            .filter(|field| (field.since..=field.until).contains(&self.version))
            .collect();
        for field in present.iter().filter(|field| field.tag.is_none()) {
            self.value(field.kind, out);
        }
        if self.flexible {
            let tagged: Vec<_> = present.iter().filter(|field| field.tag.is_some()).collect();
            out.put_u8(tagged.len() as u8 + 1);
            for field in tagged {
                let mut content = BytesMut::new();
                self.value(field.kind, &mut content);
                out.put_u8(field.tag.unwrap_or(0) as u8);
                out.put_u8(content.len() as u8);
                out.put_slice(&content);
            }
            out.put_slice(&[99, 3, b'x', b'y', b'z']);
        }
    }

    fn value(&mut self, kind: Kind, out: &mut BytesMut) {
        self.seed = self.seed % 100 + 1;
        let seed = self.seed;
        match kind {
            Kind::Bool => out.put_u8(1),
            Kind::Int8 => out.put_u8(seed),
            Kind::Int16 => out.put_i16(seed.into()),
            Kind::Int32 => out.put_i32(seed.into()),
            Kind::Int64 => out.put_i64(seed.into()),
            Kind::Uuid => out.put_slice(&[seed; 16]),
            Kind::Str | Kind::Blob => {
                let len = seed % 7 + 1;
                match (self.flexible, kind) {
                    (true, _) => out.put_u8(len + 1),
                    (false, Kind::Str) => out.put_i16(len.into()),
                    (false, _) => out.put_i32(len.into()),
                }
                out.put_bytes(b'a' + len, len.into());
            }
            Kind::Array(element) => {
                if self.flexible {
                    out.put_u8(3)
                } else {
                    out.put_i32(2)
                }
                self.value(*element, out);
                self.value(*element, out);
            }
            Kind::Struct(fields) => self.fields(fields, out),
            Kind::NullableStruct(fields) => {
                out.put_u8(1);
                self.fields(fields, out);
            }
        }
    }
}

fn populated(shape: &Shape, version: i16) -> Bytes {
    let mut out = BytesMut::new();
    Populate {
        version,
        flexible: version >= shape.flexible_from,
        seed: 0,
    }
    .fields(shape.fields, &mut out);
    out.freeze()
}

fn through_codec<R: Decodable + Encodable>(version: i16, body: &Bytes) -> Bytes {
    let mut rest = body.clone();
    let request = R::decode(&mut rest, version).expect("the codec reads what the shape wrote");
    assert_eq!(rest.remaining(), 0, "the codec leaves bytes over");
    let mut out = BytesMut::new();
    request
        .encode(&mut out, version)
        .expect("the codec writes it again");
    out.freeze()
}

fn through_codec_of(api: ApiKey, version: i16, body: &Bytes) -> Bytes {
    match api {
        ApiKey::Produce => through_codec::<ProduceRequest>(version, body),
        ApiKey::Fetch => through_codec::<FetchRequest>(version, body),
        ApiKey::ListOffsets => through_codec::<ListOffsetsRequest>(version, body),
        ApiKey::Metadata => through_codec::<MetadataRequest>(version, body),
        ApiKey::OffsetCommit => through_codec::<OffsetCommitRequest>(version, body),
        ApiKey::OffsetFetch => through_codec::<OffsetFetchRequest>(version, body),
        ApiKey::FindCoordinator => through_codec::<FindCoordinatorRequest>(version, body),
        ApiKey::JoinGroup => through_codec::<JoinGroupRequest>(version, body),
        ApiKey::Heartbeat => through_codec::<HeartbeatRequest>(version, body),
        ApiKey::LeaveGroup => through_codec::<LeaveGroupRequest>(version, body),
        ApiKey::SyncGroup => through_codec::<SyncGroupRequest>(version, body),
        ApiKey::DescribeGroups => through_codec::<DescribeGroupsRequest>(version, body),
        ApiKey::ListGroups => through_codec::<ListGroupsRequest>(version, body),
        ApiKey::DeleteGroups => through_codec::<DeleteGroupsRequest>(version, body),
        ApiKey::OffsetDelete => through_codec::<OffsetDeleteRequest>(version, body),
        ApiKey::ApiVersions => through_codec::<ApiVersionsRequest>(version, body),
        ApiKey::CreateTopics => through_codec::<CreateTopicsRequest>(version, body),
        ApiKey::DeleteTopics => through_codec::<DeleteTopicsRequest>(version, body),
        ApiKey::InitProducerId => through_codec::<InitProducerIdRequest>(version, body),
        ApiKey::DescribeConfigs => through_codec::<DescribeConfigsRequest>(version, body),
        ApiKey::DescribeCluster => through_codec::<DescribeClusterRequest>(version, body),
        ApiKey::GetTelemetrySubscriptions => {
            through_codec::<GetTelemetrySubscriptionsRequest>(version, body)
        }
        ApiKey::CreatePartitions => through_codec::<CreatePartitionsRequest>(version, body),
        ApiKey::AlterConfigs => through_codec::<AlterConfigsRequest>(version, body),
        ApiKey::IncrementalAlterConfigs => {
            through_codec::<IncrementalAlterConfigsRequest>(version, body)
        }
        ApiKey::ListConfigResources => through_codec::<ListConfigResourcesRequest>(version, body),
        ApiKey::DescribeTopicPartitions => {
            through_codec::<DescribeTopicPartitionsRequest>(version, body)
        }
        ApiKey::DeleteRecords => through_codec::<DeleteRecordsRequest>(version, body),
        ApiKey::OffsetForLeaderEpoch => through_codec::<OffsetForLeaderEpochRequest>(version, body),
        ApiKey::DescribeLogDirs => through_codec::<DescribeLogDirsRequest>(version, body),
        ApiKey::AddPartitionsToTxn => through_codec::<AddPartitionsToTxnRequest>(version, body),
        ApiKey::AddOffsetsToTxn => through_codec::<AddOffsetsToTxnRequest>(version, body),
        ApiKey::EndTxn => through_codec::<EndTxnRequest>(version, body),
        ApiKey::TxnOffsetCommit => through_codec::<TxnOffsetCommitRequest>(version, body),
        ApiKey::WriteTxnMarkers => through_codec::<WriteTxnMarkersRequest>(version, body),
        ApiKey::DescribeTransactions => through_codec::<DescribeTransactionsRequest>(version, body),
        ApiKey::ListTransactions => through_codec::<ListTransactionsRequest>(version, body),
        ApiKey::DescribeProducers => through_codec::<DescribeProducersRequest>(version, body),
        ApiKey::ElectLeaders => through_codec::<ElectLeadersRequest>(version, body),
        ApiKey::AlterPartitionReassignments => {
            through_codec::<AlterPartitionReassignmentsRequest>(version, body)
        }
        ApiKey::ListPartitionReassignments => {
            through_codec::<ListPartitionReassignmentsRequest>(version, body)
        }
        other => panic!("{other:?} has a shape but no line in this test"),
    }
}

#[test]
fn every_shape_agrees_with_the_codec_at_every_version() {
    let mut seen = 0;
    for shape in table::SHAPES {
        for version in shape.versions.0..=shape.versions.1 {
            let body = populated(shape, version);
            assert_eq!(
                through_codec_of(shape.api, version, &body),
                body,
                "{:?} v{version}",
                shape.api
            );
            assert_eq!(
                check(shape.api, version, &body).map(|it| it.trailing_bytes),
                Ok(0)
            );
            seen += 1;
        }
    }
    assert!(seen > 100, "only {seen} versions were tried");
}

#[test]
fn every_api_that_is_served_has_a_shape() {
    for api in crate::router::table() {
        for version in api.versions.clone() {
            let empty = check(api.key, version, &[]);
            assert!(
                !matches!(empty, Err(ShapeError::Unknown(..))),
                "{:?} v{version}",
                api.key
            );
        }
    }
}

#[test]
fn every_truncation_is_refused() {
    for shape in table::SHAPES {
        for version in shape.versions.0..=shape.versions.1 {
            let body = populated(shape, version);
            for len in 0..body.len() {
                assert!(
                    check(shape.api, version, &body[..len]).is_err(),
                    "{:?} v{version} cut to {len} of {} bytes",
                    shape.api,
                    body.len()
                );
            }
        }
    }
}

#[test]
fn a_lying_array_length_is_refused_by_name_and_value() {
    // Metadata v0: topics only.
    let body = 0x7fff_ffff_i32.to_be_bytes();
    let error = check(ApiKey::Metadata, 0, &body).expect_err("a lie");
    assert_eq!(
        error.to_string(),
        "Metadata v0: field topics announces 2147483647 elements, but 0 bytes are left"
    );
    // Metadata v12, compact: 2^32 - 2 topics.
    let error = check(
        ApiKey::Metadata,
        12,
        &[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0],
    );
    assert!(
        matches!(
            error,
            Err(ShapeError::Length {
                field: "topics",
                value: 4294967294,
                ..
            })
        ),
        "{error:?}"
    );
    // The smallest element counts: a v12 topic takes 18 bytes.
    let mut body = vec![3u8];
    body.extend([0; 35]);
    let error = check(ApiKey::Metadata, 12, &body);
    assert!(
        matches!(
            error,
            Err(ShapeError::Length {
                field: "topics",
                value: 2,
                left: 35,
                ..
            })
        ),
        "{error:?}"
    );
}

#[test]
fn other_lies_are_refused() {
    // A negative length that is not null.
    let error = check(ApiKey::Metadata, 0, &(-2i32).to_be_bytes());
    assert!(
        matches!(error, Err(ShapeError::Length { value: -2, .. })),
        "{error:?}"
    );
    // A string longer than the request.
    let error = check(ApiKey::FindCoordinator, 0, &[0x7f, 0xff, b'a']);
    assert!(
        matches!(
            error,
            Err(ShapeError::Length {
                field: "key",
                value: 32767,
                unit: "bytes",
                left: 1,
                ..
            })
        ),
        "{error:?}"
    );
    // A varint that never ends.
    let error = check(ApiKey::ApiVersions, 3, &[0xff; 9]);
    assert!(
        matches!(
            error,
            Err(ShapeError::Length {
                field: "client_software_name",
                ..
            })
        ),
        "{error:?}"
    );
    // A tagged field longer than the request, and too many of them.
    let error = check(ApiKey::ApiVersions, 3, &[1, 1, 1, 7, 100]);
    assert!(
        matches!(error, Err(ShapeError::Length { value: 100, .. })),
        "{error:?}"
    );
    let error = check(ApiKey::ApiVersions, 3, &[1, 1, 50, 7, 0]);
    assert!(
        matches!(error, Err(ShapeError::Length { unit: "fields", .. })),
        "{error:?}"
    );
}

#[test]
fn bytes_after_the_last_field_are_ignored_as_in_kafka() {
    let checked = check(ApiKey::ApiVersions, 3, &[1, 1, 0, 0, 0]);
    let expected = Checked {
        elements: 0,
        trailing_bytes: 2,
    };
    assert_eq!(checked, Ok(expected));
}

#[test]
fn a_request_of_too_many_elements_is_refused() {
    let count = MAX_ELEMENTS + 1;
    let mut body = BytesMut::new();
    body.put_i32(count as i32);
    body.put_bytes(0, count * 2);
    let error = check(ApiKey::Metadata, 0, &body);
    assert!(
        matches!(error, Err(ShapeError::Elements { field: "topics", value, .. }) if value == count),
        "{error:?}"
    );
}

/// Seeds for the fuzzer (`tests/fuzz`): every API at every version, each field filled in.
/// `cargo test -p broker --lib -- --ignored seeds_for_the_fuzzer`
#[test]
#[ignore = "writes to tests/fuzz/corpus"]
fn seeds_for_the_fuzzer() {
    let folder =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/request");
    std::fs::create_dir_all(&folder).expect("a folder");
    for shape in table::SHAPES {
        for version in shape.versions.0..=shape.versions.1 {
            let mut frame = BytesMut::new();
            RequestHeader::default()
                .with_request_api_key(shape.api as i16)
                .with_request_api_version(version)
                .with_correlation_id(1)
                .encode(&mut frame, shape.api.request_header_version(version))
                .expect("a header");
            frame.extend_from_slice(&populated(shape, version));
            let file = format!("{:?}-v{version}", shape.api);
            std::fs::write(folder.join(file), frame).expect("written");
        }
    }
}
