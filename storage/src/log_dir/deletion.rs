//! Deleting logs: their folders are moved aside, durably, and what the checkpoints say of them goes, so
//! that it does not outlive them. Logs that are deleted together share the waits for the device.

use std::ops::Range;
use std::path::PathBuf;

use super::{Key, LogDir, folders};
use crate::error::{Error, Result};
use crate::partition_log::lock;

/// A log whose folder was moved aside.
struct Moved {
    key: Key,
    to: PathBuf,
    delay_ms: u64,
}

impl LogDir {
    /// Closes a log; its folder is moved aside at once, durably, and goes after the log's
    /// `file.delete.delay.ms`. Without a delay, and where the log was not open, it is gone when this
    /// returns; what can't be removed is left to the next start.
    pub fn delete_log(&self, topic: &str, partition: i32) -> Result<()> {
        let failed = self.delete_logs(topic, partition..partition.saturating_add(1));
        failed
            .into_iter()
            .next()
            .map_or(Ok(()), |(_, error)| Err(error))
    }

    /// As [`LogDir::delete_log`], of several partitions of a topic. Returns those that failed, and why.
    pub fn delete_logs(&self, topic: &str, partitions: Range<i32>) -> Vec<(i32, Error)> {
        let _opening = lock(&self.opening);
        let (mut moved, mut failed) = (Vec::new(), Vec::new());
        for partition in partitions {
            match self.move_aside(topic, partition) {
                Ok(one) => moved.push(one),
                Err(error) => failed.push((partition, error)),
            }
        }
        if moved.is_empty() {
            return failed;
        }
        if let Err(error) = self.forget_moved(&moved) {
            failed.extend(moved.iter().map(|one| (one.key.1, error.clone())));
            return failed;
        }
        let is_due = moved.iter().any(|one| one.delay_ms == 0);
        for one in moved {
            self.removals.add_folder(one.to, self.due_ms(one.delay_ms));
        }
        if is_due {
            self.remove_due_files();
        }
        failed
    }

    fn move_aside(&self, topic: &str, partition: i32) -> Result<Moved> {
        let dir = self.path().join(folders::name(topic, partition)?);
        let to = self.path().join(folders::deleted_name(topic, partition));
        let rename = || folders::rename_aside(self.disk.as_ref(), &dir, &to);
        let key = (topic.to_owned(), partition);
        let log = lock(&self.logs).remove(&key);
        let delay_ms = match log {
            Some(log) => {
                log.delete(rename)?;
                log.file_delete_delay_ms()
            }
            None => {
                rename()?;
                0
            }
        };
        Ok(Moved { key, to, delay_ms })
    }

    fn forget_moved(&self, moved: &[Moved]) -> Result<()> {
        self.disk
            .sync_dir(self.path())
            .map_err(|error| Error::io("sync", self.path(), &error))?;
        {
            let mut checkpoints = lock(&self.checkpoints);
            moved.iter().for_each(|one| checkpoints.remove(&one.key));
        }
        self.write_checkpoints()
    }
}
