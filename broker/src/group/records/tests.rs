use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Vec<u8> {
    (0..digits.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap())
        .collect()
}

#[test]
fn keys_are_as_kafka_writes_them() {
    let offset = Key::Offset {
        group: "g".into(),
        topic: "orders".into(),
        partition: 7,
    };
    assert_eq!(
        hex(&offset.encode().unwrap()),
        "0001000167".to_owned() + "00066f7264657273" + "00000007"
    );
    let group = Key::Group {
        group: "grp".into(),
    };
    assert_eq!(hex(&group.encode().unwrap()), "00020003677270");
    for key in [offset, group] {
        assert_eq!(Key::decode(&key.encode().unwrap()), Ok(Some(key)));
    }
    // A ConsumerGroupMetadataKey: another protocol's.
    assert_eq!(Key::decode(&unhex("0003000167")), Ok(None));
}

#[test]
fn an_offset_commit_is_as_kafka_writes_it() {
    let value = OffsetCommitValue {
        offset: 100,
        leader_epoch: 10,
        metadata: "m".into(),
        commit_timestamp_ms: 1234,
        expire_timestamp_ms: None,
        topic_id: Some(Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10)),
    };
    let bytes = value.encode().unwrap();
    assert_eq!(
        hex(&bytes),
        "0004".to_owned()
            + "0000000000000064"
            + "0000000a"
            + "026d"
            + "00000000000004d2"
            + "01" // one tagged field
            + "0010" // tag 0, 16 bytes
            + "0102030405060708090a0b0c0d0e0f10"
    );
    assert_eq!(OffsetCommitValue::decode(&bytes), Ok(value));
}

#[test]
fn older_offset_commits_are_read() {
    // Version 0, 1 (with an expiry), 2 and 3 (with a leader epoch).
    let body = "00000000000000050001".to_owned() + "6d" + "0000000000000009";
    let read = |digits: &str| OffsetCommitValue::decode(&unhex(digits)).unwrap();
    let base = OffsetCommitValue {
        offset: 5,
        leader_epoch: -1,
        metadata: "m".into(),
        commit_timestamp_ms: 9,
        expire_timestamp_ms: None,
        topic_id: None,
    };
    assert_eq!(read(&format!("0000{body}")), base);
    assert_eq!(read(&format!("0002{body}")), base);
    let with_expiry = OffsetCommitValue {
        expire_timestamp_ms: Some(16),
        ..base.clone()
    };
    assert_eq!(read(&format!("0001{body}0000000000000010")), with_expiry);
    assert_eq!(
        hex(&with_expiry.encode().unwrap()),
        format!("0001{body}0000000000000010")
    );
    let with_epoch = OffsetCommitValue {
        leader_epoch: 3,
        ..base
    };
    assert_eq!(
        read("000300000000000000050000000300016d0000000000000009"),
        with_epoch
    );
}

fn group() -> GroupMetadataValue {
    GroupMetadataValue {
        protocol_type: "consumer".into(),
        generation: 3,
        protocol: Some("range".into()),
        leader: Some("a".into()),
        current_state_timestamp_ms: 7,
        members: vec![MemberMetadata {
            member_id: "a".into(),
            group_instance_id: Some("i".into()),
            client_id: "c".into(),
            client_host: "h".into(),
            rebalance_timeout_ms: 2,
            session_timeout_ms: 1,
            subscription: Bytes::from_static(&[9]),
            assignment: Bytes::from_static(&[8, 7]),
        }],
    }
}

#[test]
fn a_group_is_as_kafka_writes_it() {
    let bytes = group().encode().unwrap();
    let expected = [
        "0003",                     // version
        "0008636f6e73756d6572",     // protocolType
        "00000003",                 // generation
        "000572616e6765",           // protocol
        "000161",                   // leader
        "0000000000000007",         // currentStateTimestamp
        "00000001",                 // members
        "000161000169000163000168", // memberId, groupInstanceId, clientId, clientHost
        "0000000200000001",         // rebalanceTimeout, sessionTimeout
        "0000000109",               // subscription
        "000000020807",             // assignment
    ];
    assert_eq!(hex(&bytes), expected.concat());
    assert_eq!(GroupMetadataValue::decode(&bytes), Ok(group()));
}

#[test]
fn a_flexible_group_is_read() {
    let bytes = [
        "0004",
        "09636f6e73756d6572",
        "00000003",
        "0672616e6765",
        "0261",
        "0000000000000007",
        "02",
        "0261026902630268",
        "0000000200000001",
        "0209",
        "030807",
        "00",
        "01050100", // an unknown tagged field is skipped
    ];
    assert_eq!(
        GroupMetadataValue::decode(&unhex(&bytes.concat())),
        Ok(group())
    );
}

#[test]
fn cut_off_and_lying_records_are_refused() {
    let bytes = group().encode().unwrap();
    for end in 0..bytes.len() {
        assert!(
            GroupMetadataValue::decode(&bytes[..end]).is_err(),
            "{end} bytes"
        );
    }
    let mut lying = bytes.to_vec();
    let members = 2 + 10 + 4 + 7 + 3 + 8;
    lying[members..members + 4].copy_from_slice(&i32::MAX.to_be_bytes());
    assert!(GroupMetadataValue::decode(&lying).is_err());
    assert_eq!(
        GroupMetadataValue::decode(&[0, 5]),
        Err(RecordError::UnknownVersion {
            record: "GroupMetadataValue",
            version: 5
        })
    );
    let long = Key::Group {
        group: "g".repeat(MAX_STRING_BYTES + 1),
    };
    assert_eq!(
        long.encode(),
        Err(RecordError::StringTooLong {
            bytes: MAX_STRING_BYTES + 1
        })
    );
}
