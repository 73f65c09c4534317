//! The promises of every log, with a killed process and with a power cut for a crash.

use std::collections::BTreeMap;

use inference::spec::Start;
use inference::stream_log::conformance::{Harness, INPUTS, PARTITIONS};
use inference::stream_log::memory::{CommitFault, NewRecord};
use inference::stream_log::{Header, Output, OutputTopic};
use storage::batch::{self, BatchBuilder, Compression};
use storage::checkpoint::{OffsetCheckpoint, write_offsets};
use storage::partition_log::ReadLimit;

use super::super::embedded::EmbeddedLog;
use super::world::{self, Crash, World, failing, records, synced};
use faulty_disk::Call;

const NAMES: [&str; INPUTS] = ["first", "second"];

struct Embedded {
    world: World,
    crash: Crash,
}

impl Embedded {
    async fn create(start: Start, crash: Crash) -> Self {
        assert_eq!(PARTITIONS, world::PARTITIONS);
        let start = match start {
            Start::Earliest => "earliest",
            Start::Latest => "latest",
        };
        let toml = format!(
            "[[model_topic]]\nname = 'scored'\ninput = {NAMES:?}\nmodel = 'm'\nstart = '{start}'\n"
        );
        let world = World::new(&toml).await;
        Self { world, crash }
    }

    async fn killed(start: Start) -> Self {
        Self::create(start, Crash::Kill).await
    }

    async fn without_power(start: Start) -> Self {
        Self::create(start, Crash::PowerCut).await
    }

    async fn world(&mut self) -> &mut World {
        if !self.world.is_open() {
            self.world.open().await;
        }
        &mut self.world
    }
}

impl Harness for Embedded {
    type Log = EmbeddedLog;

    async fn open(&mut self) -> EmbeddedLog {
        self.world().await.log("scored")
    }

    async fn crash(&mut self, log: EmbeddedLog) {
        drop(log);
        self.world.end(self.crash);
    }

    async fn append(&mut self, input: usize, partition: i32, records: Vec<NewRecord>) {
        let mut batch = BatchBuilder::new(Compression::None);
        for record in &records {
            let headers: Vec<batch::Header> = record
                .headers
                .iter()
                .map(|header| batch::Header {
                    key: header.key.clone(),
                    value: header.value.clone(),
                })
                .collect();
            batch.push(
                record.timestamp_ms,
                record.key.as_deref(),
                record.value.as_deref(),
                &headers,
            );
        }
        let log = self.world().await.partition(NAMES[input], partition);
        log.append(&batch.build()).unwrap();
        synced(&log).await;
    }

    /// The suite deletes between a crash and the next start, so that the start finds it done.
    async fn delete_records(&mut self, input: usize, partition: i32, before: i64) {
        assert!(!self.world.is_open());
        let starts = BTreeMap::from([((NAMES[input].to_owned(), partition), before)]);
        let path = self.world.disk_path();
        write_offsets(
            &self.world.disk,
            path,
            OffsetCheckpoint::LogStartOffset,
            &starts,
        )
        .unwrap();
    }

    async fn outputs(&mut self, topic: OutputTopic, partition: i32) -> Vec<Output> {
        let name = match topic {
            OutputTopic::Derived => "scored",
            OutputTopic::DeadLetter => "scored.dlq",
            OutputTopic::Alert(_) => "scored.alerts",
        };
        let log = self.world().await.partition(name, partition);
        records(&log, ReadLimit::HighWatermark)
            .unwrap()
            .into_iter()
            .map(|record| Output {
                topic,
                partition,
                timestamp_ms: record.timestamp,
                key: record.key,
                value: record.value,
                headers: record
                    .headers
                    .into_iter()
                    .map(header)
                    .collect::<Vec<_>>()
                    .into(),
            })
            .collect()
    }

    fn fail_next_commit(&mut self, fault: CommitFault) -> bool {
        match fault {
            CommitFault::Retry => {
                let changelog = "scored.changelog-0";
                self.world
                    .disk
                    .fail(failing(Call::Write, changelog, ".log").once());
                true
            }
            // The disk says at once, or for good, how a commit ended.
            _ => false,
        }
    }
}

fn header(header: batch::Header) -> Header {
    Header {
        key: header.key,
        value: header.value,
    }
}

mod killed {
    use super::Embedded;

    inference::stream_log_conformance!(Embedded::killed);
}

mod without_power {
    use super::Embedded;

    inference::stream_log_conformance!(Embedded::without_power);
}
