//! Deletes what topics do not keep, now and then, and the files that are left of it.
//!
//! | name | kind | labels |
//! |---|---|---|
//! | `milena_retention_deleted_segments_total` | counter | reason (`time`, `size`, `log_start`) |
//! | `milena_retention_deleted_bytes_total` | counter, bytes of `.log` files | reason |

use std::sync::Arc;
use std::time::{Duration, Instant};

use storage::LogDir;
use storage::log_dir::Retained;
use storage::retention::Removal;
use tokio::sync::watch;

use super::every;

/// How often files are looked for whose time has come.
const FILES_INTERVAL: Duration = Duration::from_secs(1);

/// Looks for segments to delete every `interval`, until the server stops.
pub(super) async fn run(
    log_dir: Arc<LogDir>,
    interval: Duration,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut checked = Instant::now();
    while every(interval.min(FILES_INTERVAL), &mut shutdown).await {
        let check = checked.elapsed() >= interval;
        if !check && !log_dir.has_due_files() {
            continue;
        }
        let log_dir = Arc::clone(&log_dir);
        // On a thread that may block.
        let round = tokio::task::spawn_blocking(move || {
            if check {
                log_dir.apply_retention().iter().for_each(report);
            }
            log_dir.remove_due_files();
        });
        if let Err(error) = round.await {
            tracing::error!(%error, "retention panicked");
        }
        if check {
            checked = Instant::now();
        }
    }
}

fn report(retained: &Retained) {
    let (topic, partition) = (retained.log.topic(), retained.log.partition());
    let log_start_offset = match &retained.log_start_offset {
        Ok(start) => *start,
        // It is being deleted, or everything is being closed.
        Err(storage::Error::Closed) => return,
        Err(error) => {
            tracing::warn!(topic, partition, %error, "old segments are kept until the next check");
            return;
        }
    };
    for Removal {
        reason,
        segments,
        size_bytes,
    } in &retained.removals
    {
        let reason = reason.name();
        tracing::info!(
            topic,
            partition,
            reason,
            segments,
            bytes = size_bytes,
            log_start_offset,
            "old segments deleted"
        );
        metrics::counter!("milena_retention_deleted_segments_total", "reason" => reason)
            .increment(*segments as u64);
        metrics::counter!("milena_retention_deleted_bytes_total", "reason" => reason)
            .increment(*size_bytes);
    }
}
