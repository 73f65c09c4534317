//! Reading the tables that features look up.

use std::collections::BTreeMap;

use inference::stream_log::{Error, TableRecord};
use storage::batch::{self, Batch};
use storage::partition_log::Read;

use super::embedded::READ_LIMIT;
use super::reader::{MAX_BATCH_BYTES, is_aborted};
use crate::catalog::Topic;

/// Of one partition at a time.
const READ_BYTES: usize = 1 << 20;

/// What is behind positions by partition, which move over it.
pub(super) async fn read(
    topic: &Topic,
    positions: &mut BTreeMap<i32, i64>,
) -> Result<Vec<TableRecord>, Error> {
    let mut records = Vec::new();
    for (partition, log) in (0..).zip(&topic.partitions) {
        let start = log.offsets().log_start_offset;
        let position = positions.entry(partition).or_insert(start);
        // Retention has overtaken it: what is gone is not in the table any more.
        *position = start.max(*position);
        let failed = |error: storage::Error| match error {
            storage::Error::Io { .. } | storage::Error::NotReadable => Error::Retry(format!(
                "table '{}' partition {partition}: {error}",
                topic.name
            )),
            error => Error::Fatal(format!(
                "table '{}' partition {partition}: {error}",
                topic.name
            )),
        };
        let read = log.read(*position, READ_BYTES, true, READ_LIMIT);
        let fetched = match read.map_err(failed)? {
            Read::Warm(fetched) => fetched,
            Read::Cold(cold) => tokio::task::spawn_blocking(move || cold.load())
                .await
                .map_err(|error| Error::Fatal(error.to_string()))?
                .map_err(failed)?,
        };
        let (mut bytes, aborted) = (fetched.records, fetched.aborted);
        while !bytes.is_empty() {
            let header = Batch::parse(&bytes).map_err(failed)?;
            let (size, end) = (header.size_in_bytes(), header.last_offset() + 1);
            let passed_over = header.is_control() || is_aborted(&header, &aborted);
            let batch = bytes.split_to(size);
            if !passed_over {
                let opened = batch::Opened::open(&batch, MAX_BATCH_BYTES);
                match opened.and_then(|opened| opened.check().map(|()| opened)) {
                    Ok(opened) => {
                        let found = opened.records().map_while(Result::ok);
                        let wanted = found.filter(|record| record.offset >= *position);
                        records.extend(wanted.map(|record| (record.key, record.value)));
                    }
                    Err(error) => tracing::error!(
                        topic = topic.name, partition, offset = *position, %error,
                        "table batch can't be read and is passed over"
                    ),
                }
            }
            *position = end;
        }
    }
    Ok(records)
}
