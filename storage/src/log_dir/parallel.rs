//! The same work on many partitions, on a few threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Result;

/// How often work that takes long says how far it is.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Runs `work` on all of `items` on `threads` threads; the first error ends it. `report` is
/// told how many are done while it takes long.
pub(super) fn run<T: Sync, R: Send>(
    threads: usize,
    items: &[T],
    work: impl Fn(&T) -> Result<R> + Sync,
    report: impl Fn(usize, Duration),
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    let started = Instant::now();
    let mut results = Vec::with_capacity(items.len());
    thread::scope(|scope| {
        for _ in 0..threads.clamp(1, items.len().max(1)) {
            let (sender, next, work) = (sender.clone(), &next, &work);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { break };
                    if sender.send((index, work(item))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        // Dropped before the threads are waited for, so that an error ends them after what each is
        // at.
        let receiver = receiver;
        let mut reported = started;
        loop {
            if reported.elapsed() >= REPORT_INTERVAL {
                report(results.len(), started.elapsed());
                reported = Instant::now();
            }
            match receiver.recv_timeout(REPORT_INTERVAL) {
                Ok((index, result)) => results.push((index, result?)),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    })?;
    results.sort_unstable_by_key(|(index, _)| *index);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}
