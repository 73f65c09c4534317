//! What one poll reads.

use inference::stream_log::{Event, StreamLog, Task};
use storage::batch::{BatchBuilder, Compression};

use super::world::{Runner, SCORED, World};

const BATCHES: i64 = 8;
const BATCH_BYTES: usize = 700 << 10;

#[tokio::test]
async fn batches_that_are_small_only_on_the_disk_are_opened_bit_by_bit() {
    let world = World::new(SCORED).await;
    let input = world.partition("transactions", 0);
    for _ in 0..BATCHES {
        let mut batch = BatchBuilder::new(Compression::Zstd);
        batch.push(1, None, Some(&vec![b'.'; BATCH_BYTES]), &[]);
        input.append(&batch.build()).unwrap();
    }
    let log = Runner::start(world.log("scored")).await.log;
    let mut read = 0;
    while read < BATCHES {
        let events = log.poll(256 << 10).await.unwrap();
        let mut opened_bytes = 0;
        for event in events {
            let Event::Records {
                task: Task { partition: 0 },
                records,
                next,
                ..
            } = event
            else {
                panic!("{event:?} was not expected");
            };
            for record in &records {
                assert_eq!(record.offset, read, "each once, in order");
                opened_bytes += record.value.as_ref().unwrap().len();
                read += 1;
            }
            assert_eq!(next, read);
        }
        assert!(opened_bytes <= 2 * BATCH_BYTES, "{opened_bytes} at once");
    }
}

#[tokio::test]
async fn a_batch_of_tiny_records_is_given_in_parts() {
    const RECORDS: i64 = 300_000;
    let world = World::new(SCORED).await;
    let mut batch = BatchBuilder::new(Compression::Zstd);
    for _ in 0..RECORDS {
        batch.push(1, None, None, &[]);
    }
    let input = world.partition("transactions", 0);
    input.append(&batch.build()).unwrap();
    let log = Runner::start(world.log("scored")).await.log;
    let (mut read, mut polls) = (0, 0);
    while read < RECORDS {
        polls += 1;
        for event in log.poll(256 << 10).await.unwrap() {
            let Event::Records { records, next, .. } = event else {
                panic!("{event:?} was not expected");
            };
            // At most 16 MiB of them.
            assert!(records.len() < 200_000, "{} at once", records.len());
            for record in &records {
                assert_eq!(record.offset, read, "each once, in order");
                read += 1;
            }
            assert_eq!(next, read);
        }
    }
    assert!(polls > 1);
}
