//! `compression.type` over TCP: what is refused, with which code, and what is known of a batch that
//! was stored in another codec.

use storage::batch::{Batch, BatchBuilder, Compression, layout, records};

use super::rules::{CODECS, INVALID_RECORD, MESSAGE_TOO_LARGE, altered, create, fetched, produced};
use super::{Client, TIMESTAMP, TestServer};

const INVALID_TIMESTAMP: i16 = 32;

fn sent(codec: Compression, sequence: i32, value: &[u8]) -> bytes::Bytes {
    let mut builder = BatchBuilder::new(codec).producer(7, 0, sequence);
    builder.push(TIMESTAMP, Some(b"key"), Some(value), &[]);
    builder.push(TIMESTAMP, Some(b"key"), Some(value), &[]);
    builder.build()
}

#[tokio::test]
async fn a_repeated_batch_is_answered_as_the_first_one_whatever_its_codec() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server).await;
    create(&mut client, "t", &[("compression.type", "zstd")]).await;
    for (index, codec) in (0..).zip(CODECS) {
        let batch = sent(codec, index * 2, b"value");
        let base_offset = i64::from(index) * 2;
        for _ in 0..3 {
            let answer = produced(&mut client, "t", batch.clone()).await;
            assert_eq!(answer, (0, base_offset), "{codec:?}");
        }
        let stored = fetched(&mut client, "t", base_offset).await;
        let found = Batch::parse(&stored).unwrap();
        assert_eq!(found.size_in_bytes(), stored.len(), "one batch");
        assert_eq!(found.compression().unwrap(), Compression::Zstd);
        assert_eq!(found.base_sequence(), index * 2);
        let values = records::decode(&stored, 1 << 20).unwrap();
        assert!(
            values
                .iter()
                .all(|record| record.value.as_deref() == Some(b"value"))
        );
    }
}

#[tokio::test]
async fn a_batch_that_cannot_be_opened_has_no_place_where_it_would_have_to_be() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server).await;
    let limit = ("max.message.bytes", "5000");
    create(&mut client, "gzip", &[("compression.type", "gzip"), limit]).await;
    create(
        &mut client,
        "plain",
        &[("compression.type", "uncompressed"), limit],
    )
    .await;
    for topic in ["gzip", "plain"] {
        for codec in [Compression::Snappy, Compression::Lz4, Compression::Zstd] {
            let garbage = altered(&sent(codec, 0, b"value"), layout::RECORDS, &[0xff; 12]);
            let answer = produced(&mut client, topic, garbage).await;
            assert_eq!(answer, (INVALID_RECORD, -1), "{codec:?} to {topic}");
        }
        // Some hundred bytes that become a megabyte.
        let bomb = sent(Compression::Zstd, 0, &[0; 500_000]);
        assert!(bomb.len() < 5_000);
        let answer = produced(&mut client, topic, bomb).await;
        assert_eq!(answer, (INVALID_RECORD, -1), "to {topic}");
    }
    // What is no more than large is told so.
    let large = sent(Compression::Zstd, 0, &[0; 50_000]);
    let answer = produced(&mut client, "plain", large.clone()).await;
    assert_eq!(answer, (MESSAGE_TOO_LARGE, -1));
    assert_eq!(produced(&mut client, "gzip", large).await, (0, 0));
}

#[tokio::test]
async fn only_the_broker_sets_the_brokers_time() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server).await;
    create(
        &mut client,
        "t",
        &[("message.timestamp.type", "LogAppendTime")],
    )
    .await;
    let claims = altered(
        &sent(Compression::None, 0, b"value"),
        layout::ATTRIBUTES,
        &8_i16.to_be_bytes(),
    );
    let answer = produced(&mut client, "t", claims).await;
    assert_eq!(answer, (INVALID_TIMESTAMP, -1));
}
