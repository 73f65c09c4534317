//! Wakes groups when they asked to be woken. Times only ever come too early: a group that has
//! nothing to do then does nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Weak;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;

use super::coordinator::GroupCoordinator;
use super::machine::Millis;

/// A group and the time at which it wants to be woken.
pub(super) type Wake = (Millis, String);

/// Runs until the coordinator is gone. Times count from `start`.
pub(super) async fn run(
    coordinator: Weak<GroupCoordinator>,
    start: Instant,
    mut wakes: UnboundedReceiver<Wake>,
) {
    let mut queue: BinaryHeap<Reverse<Wake>> = BinaryHeap::new();
    loop {
        let due = queue
            .peek()
            .map(|Reverse((at, _))| start.checked_add(Duration::from_millis(*at)));
        tokio::select! {
            wake = wakes.recv() => match wake {
                Some(wake) => queue.push(Reverse(wake)),
                None => return,
            },
            () = sleep_until(due.flatten()) => {
                let Some(Reverse((_, group))) = queue.pop() else { continue };
                let Some(coordinator) = coordinator.upgrade() else { return };
                coordinator.tick(&group);
            }
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
