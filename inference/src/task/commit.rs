//! A commit in flight: tried again as long as nothing happened.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::stream_log::{Commit, CommitError, StreamLog};

/// The first wait before trying again; each is twice the one before.
const FIRST_BACKOFF: Duration = Duration::from_millis(10);
/// The longest.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// Waits that double.
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) fn new() -> Self {
        Self(FIRST_BACKOFF)
    }

    /// The next wait.
    pub(super) fn next(&mut self) -> Duration {
        let wait = self.0;
        self.0 = (self.0 * 2).min(MAX_BACKOFF);
        wait
    }
}

/// Commits, again and again while that makes sense and nobody stops it.
pub(super) async fn commit<L: StreamLog>(
    topic: String,
    log: Arc<L>,
    commits: Arc<[Commit]>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), CommitError> {
    let mut backoff = Backoff::new();
    loop {
        let result = log.commit(Arc::clone(&commits)).await;
        let Err(CommitError::Retry(reason)) = result else {
            return result;
        };
        let wait = backoff.next();
        tracing::warn!(
            topic,
            reason,
            retry_in_ms = wait.as_millis() as u64,
            "commit is tried again"
        );
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stop.wait_for(|stop| *stop) => return Err(CommitError::Retry(reason)),
        }
    }
}
