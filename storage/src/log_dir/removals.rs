//! Files that are no log's any more, until they are removed: segments below a log's start, and the
//! folders of deleted partitions.
//!
//! They stay for `file.delete.delay.ms`, and a segment's at least for as long as somebody holds the
//! segment: a read that has begun finds its file, whenever it gets to open it. What is here is
//! forgotten when the process ends: a start removes what lies below a log's checkpointed start, and
//! folders by their name.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::folders;
use crate::PartitionLog;
use crate::disk::Disk;
use crate::partition_log::lock;
use crate::segment::Segment;

/// What waits for its removal, in the order in which it came.
#[derive(Debug, Default)]
pub(super) struct Removals {
    waiting: Mutex<VecDeque<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    /// Milliseconds since the epoch.
    due_ms: i64,
    files: Files,
}

#[derive(Debug)]
enum Files {
    /// Of a log, oldest first.
    Segments(Arc<PartitionLog>, VecDeque<Arc<Segment>>),
    Folder(PathBuf),
}

impl Removals {
    /// Segments that were taken out of `log`.
    pub fn add_segments(&self, log: &Arc<PartitionLog>, segments: Vec<Arc<Segment>>, due_ms: i64) {
        self.add(Files::Segments(Arc::clone(log), segments.into()), due_ms);
    }

    /// The folder of a deleted partition.
    pub fn add_folder(&self, folder: PathBuf, due_ms: i64) {
        self.add(Files::Folder(folder), due_ms);
    }

    fn add(&self, files: Files, due_ms: i64) {
        lock(&self.waiting).push_back(Waiting { due_ms, files });
    }

    /// Something is due.
    pub fn is_due(&self, now_ms: i64) -> bool {
        let waiting = lock(&self.waiting);
        waiting.iter().any(|waiting| waiting.due_ms <= now_ms)
    }

    /// Blocking. Removes what is due and not held.
    pub fn remove_due(&self, now_ms: i64, disk: &dyn Disk) {
        let due: VecDeque<Waiting> = {
            let mut waiting = lock(&self.waiting);
            let (due, later) = std::mem::take(&mut *waiting)
                .into_iter()
                .partition(|waiting| waiting.due_ms <= now_ms);
            *waiting = later;
            due
        };
        let mut held: VecDeque<Waiting> = due
            .into_iter()
            .filter_map(|waiting| {
                let files = waiting.files.remove(disk)?;
                Some(Waiting { files, ..waiting })
            })
            .collect();
        if !held.is_empty() {
            let mut waiting = lock(&self.waiting);
            held.append(&mut waiting);
            *waiting = held;
        }
    }
}

impl Files {
    /// Returns what can't be removed yet.
    fn remove(self, disk: &dyn Disk) -> Option<Self> {
        let (log, mut segments) = match self {
            Self::Segments(log, segments) => (log, segments),
            Self::Folder(folder) => {
                if let Err(error) = folders::remove(disk, &folder) {
                    tracing::warn!(%error, "a deleted partition's folder is left until the next start");
                }
                return None;
            }
        };
        // Whoever holds none of them by now never will: they are not among the log's segments.
        while let Some(segment) = segments.front()
            && Arc::strong_count(segment) == 1
        {
            if let Err(error) = log.remove_files(segment) {
                let (topic, partition) = (log.topic(), log.partition());
                tracing::warn!(topic, partition, %error, "a file below the log's start is left until the next start");
            }
            segments.pop_front();
        }
        (!segments.is_empty()).then_some(Self::Segments(log, segments))
    }
}
