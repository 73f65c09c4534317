//! When committed offsets are forgotten. Pure: the time is passed in.
//!
//! As Kafka does (KIP-211), after `offsets.retention.minutes`:
//! - in a group without members, counted from when it lost its last one, whatever was committed
//!   when; where that is not known, from the commit;
//! - in a stable group of consumers, for topics that no member has subscribed to, from the commit;
//! - in a group that never had members (clients that only store their offsets here), from the
//!   commit.
//!
//! A commit that set its own expiry (OffsetCommit up to version 4) is kept until then, and no
//! longer. While a group rebalances nothing expires, nor what an open transaction has an offset for.

use super::machine::{Group, State};
use super::offsets::Offsets;
use super::records::OffsetCommitValue;

/// The time, and how long offsets are kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Milliseconds since the epoch.
    pub now_ms: i64,
    /// `offsets.retention.minutes`, as milliseconds.
    pub retention_ms: i64,
}

/// What an offset's age is counted from.
enum Since {
    Moment(i64),
    Commit,
}

impl Retention {
    /// The topics and partitions whose offsets have expired. The group came to its state at
    /// `state_since_ms`, where that is known.
    pub fn expired(
        self,
        group: &Group,
        state_since_ms: Option<i64>,
        offsets: &Offsets,
    ) -> Vec<(String, i32)> {
        let since = match (group.protocol_type(), group.state()) {
            (None, _) => Since::Commit,
            (Some(_), State::Empty) => state_since_ms.map_or(Since::Commit, Since::Moment),
            (Some(_), State::Stable) if group.is_of_consumers() => Since::Commit,
            _ => return Vec::new(),
        };
        let subscribed = group.subscribed_topics();
        if subscribed.is_none() && group.is_of_consumers() {
            return Vec::new();
        }
        let is_subscribed = |topic: &str| subscribed.as_ref().is_some_and(|it| it.contains(topic));
        let mut expired = Vec::new();
        for (topic, partitions) in offsets.topics() {
            if is_subscribed(topic) {
                continue;
            }
            let gone = partitions.filter(|(partition, value)| {
                self.is_over(value, &since) && !offsets.is_pending(topic, *partition)
            });
            expired.extend(gone.map(|(partition, _)| (topic.to_owned(), partition)));
        }
        expired
    }

    fn is_over(self, value: &OffsetCommitValue, since: &Since) -> bool {
        if let Some(expire_timestamp_ms) = value.expire_timestamp_ms {
            return self.now_ms >= expire_timestamp_ms;
        }
        let since_ms = match *since {
            Since::Moment(ms) => ms,
            Since::Commit => value.commit_timestamp_ms,
        };
        self.now_ms.saturating_sub(since_ms) >= self.retention_ms
    }
}

#[cfg(test)]
mod tests;
