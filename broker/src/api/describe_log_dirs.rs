//! DescribeLogDirs (35), versions 1 to 4: the data folder, and the size of each partition in it.
//!
//! - `topics` null asks for every partition, internal topics included. Partitions that do not exist
//!   are left out without an error, as in Kafka; one that is named twice is answered once.
//! - A partition's size is that of its `.log` files.
//! - There is one replica of everything: `offset_lag` is 0 and nothing is on its way to another
//!   folder.
//! - A partition that is read-only since a sync failed has no field that says so: Kafka knows a folder
//!   that failed as a whole, and this one serves on. `/metrics` names such partitions.
//! - From version 4: the size of the file system, and what of it can still be written; -1 where the
//!   system does not tell (KIP-827).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::mem::MaybeUninit;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use crate::api::partition_request::partition;
use crate::catalog::{Catalog, Topic};
use crate::router::{Reply, RequestContext};

/// Versions served.
pub const VERSIONS: RangeInclusive<i16> = 1..=4;

/// "The system does not tell" in a size.
const UNKNOWN_BYTES: i64 = -1;

/// Answers from memory, but for the file system's size.
pub async fn handle(
    ctx: &RequestContext,
    request: DescribeLogDirsRequest,
) -> Reply<DescribeLogDirsResponse> {
    let catalog = Arc::clone(&ctx.broker.catalog);
    let topics = match request.topics {
        None => catalog.topics().iter().map(|topic| whole(topic)).collect(),
        Some(asked) => named(&catalog, &asked),
    };
    // Started here and not in the future, which is polled only when earlier responses are written.
    let space = tokio::task::spawn_blocking(move || {
        let folder = catalog.data_folder();
        let path = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        (path.to_string_lossy().into_owned(), space(&path))
    });
    Reply::Later(Box::pin(async move {
        let Ok((path, (total_bytes, usable_bytes))) = space.await else {
            let failed = ResponseError::KafkaStorageError.code();
            return DescribeLogDirsResponse::default().with_results(vec![
                DescribeLogDirsResult::default().with_error_code(failed),
            ]);
        };
        let result = DescribeLogDirsResult::default()
            .with_log_dir(StrBytes::from_string(path))
            .with_topics(topics)
            .with_total_bytes(total_bytes)
            .with_usable_bytes(usable_bytes);
        DescribeLogDirsResponse::default().with_results(vec![result])
    }))
}

fn whole(topic: &Topic) -> DescribeLogDirsTopic {
    described(topic, 0..topic.partition_count())
}

/// What exists of what was asked for.
fn named(catalog: &Catalog, asked: &[DescribableLogDirTopic]) -> Vec<DescribeLogDirsTopic> {
    let mut wanted: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
    for topic in asked {
        let partitions = wanted.entry(&topic.topic).or_default();
        partitions.extend(topic.partitions.iter().copied());
    }
    wanted
        .into_iter()
        .filter_map(|(name, partitions)| {
            let topic = catalog.topic(name)?;
            Some(described(&topic, partitions)).filter(|found| !found.partitions.is_empty())
        })
        .collect()
}

fn described(topic: &Topic, partitions: impl IntoIterator<Item = i32>) -> DescribeLogDirsTopic {
    let partitions = partitions
        .into_iter()
        .filter_map(|index| {
            let size = partition(topic, index).ok()?.size_bytes();
            Some(
                DescribeLogDirsPartition::default()
                    .with_partition_index(index)
                    .with_partition_size(i64::try_from(size).unwrap_or(i64::MAX)),
            )
        })
        .collect();
    DescribeLogDirsTopic::default()
        .with_name(TopicName(StrBytes::from_string(topic.name.clone())))
        .with_partitions(partitions)
}

/// Bytes of the file system that has `path`, and those that this process could still write.
fn space(path: &Path) -> (i64, i64) {
    let unknown = (UNKNOWN_BYTES, UNKNOWN_BYTES);
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return unknown;
    };
    let mut found = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` ends with a zero, and `found` has room for what is written to it.
    if unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) } != 0 {
        return unknown;
    }
    // SAFETY: the call has succeeded, so that it has filled `found`.
    let found = unsafe { found.assume_init() };
    let bytes = |blocks: u64| {
        let bytes = blocks.saturating_mul(found.f_frsize);
        i64::try_from(bytes).unwrap_or(i64::MAX)
    };
    (bytes(found.f_blocks), bytes(found.f_bavail))
}
