//! What a group has committed, by topic and partition, and what open transactions will commit when they
//! do: the pending offsets.

use std::collections::BTreeMap;

use storage::Offset;

use super::records::OffsetCommitValue;

/// A committed offset, and where in `__consumer_offsets` it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Committed {
    value: OffsetCommitValue,
    log_offset: Offset,
}

/// The offsets of one group.
#[derive(Clone, Debug, Default)]
pub struct Offsets {
    topics: BTreeMap<String, BTreeMap<i32, Committed>>,
    /// Where in `__consumer_offsets` the last removal of each offset stands, for commits that are
    /// under way; see [`Offsets::settle`].
    removed: BTreeMap<(String, i32), Offset>,
    /// By producer.
    pending: BTreeMap<i64, BTreeMap<(String, i32), Committed>>,
}

impl Offsets {
    /// Nothing is committed, and nothing pending.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty() && self.pending.is_empty()
    }

    /// Takes in a record of a transaction that is open; the producer's last one for a partition counts.
    pub fn pend(
        &mut self,
        producer_id: i64,
        topic: &str,
        partition: i32,
        value: OffsetCommitValue,
        log_offset: Offset,
    ) {
        let pending = self.pending.entry(producer_id).or_default();
        let committed = Committed { value, log_offset };
        pending.insert((topic.to_owned(), partition), committed);
    }

    /// A producer's transaction has ended. What was committed after its record counts over it.
    pub fn end_transaction(&mut self, producer_id: i64, committed: bool) {
        let pending = self.pending.remove(&producer_id).unwrap_or_default();
        if committed {
            for ((topic, partition), it) in pending {
                self.commit(&topic, partition, it.value, it.log_offset);
            }
        }
    }

    /// A transaction that is open has an offset for a partition.
    pub fn is_pending(&self, topic: &str, partition: i32) -> bool {
        // Most groups have none.
        !self.pending.is_empty() && {
            let wanted = (topic.to_owned(), partition);
            self.pending.values().any(|it| it.contains_key(&wanted))
        }
    }

    /// A transaction that is open has an offset.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The topics and partitions that open transactions have offsets for.
    pub fn pending(&self) -> impl Iterator<Item = (String, i32)> {
        self.pending.values().flat_map(|it| it.keys().cloned())
    }

    /// Forgets pending offsets for which `is_gone` holds.
    pub fn forget_pending(&mut self, is_gone: impl Fn(&str, &OffsetCommitValue) -> bool) {
        self.keep_pending(|(topic, _), it| !is_gone(topic, &it.value));
    }

    fn keep_pending(&mut self, keep: impl Fn(&(String, i32), &Committed) -> bool) {
        self.pending.retain(|_, pending| {
            pending.retain(|of, it| keep(of, it));
            !pending.is_empty()
        });
    }

    /// Takes a record in. Commits become durable in any order; the one that was appended last
    /// counts.
    pub fn commit(
        &mut self,
        topic: &str,
        partition: i32,
        value: OffsetCommitValue,
        log_offset: Offset,
    ) {
        if !self.removed.is_empty() {
            let removed = self.removed.get(&(topic.to_owned(), partition));
            if removed.is_some_and(|removed| *removed > log_offset) {
                return;
            }
        }
        let committed = Committed { value, log_offset };
        if !self.topics.contains_key(topic) {
            self.topics.insert(topic.to_owned(), BTreeMap::new());
        }
        let Some(partitions) = self.topics.get_mut(topic) else {
            return;
        };
        match partitions.get_mut(&partition) {
            Some(present) if present.log_offset > log_offset => {}
            Some(present) => *present = committed,
            None => {
                partitions.insert(partition, committed);
            }
        }
    }

    /// Changes what is committed for a partition; later commits count over it.
    pub fn replace(&mut self, topic: &str, partition: i32, value: OffsetCommitValue) {
        let partitions = self.topics.get_mut(topic);
        if let Some(present) = partitions.and_then(|all| all.get_mut(&partition)) {
            present.value = value;
        }
    }

    /// Forgets one, as a record at `log_offset` says, what was pending before it too.
    pub fn remove_at(&mut self, topic: &str, partition: i32, log_offset: Offset) {
        self.remove(topic, partition);
        self.drop_pending_before(topic, partition, log_offset);
    }

    fn drop_pending_before(&mut self, topic: &str, partition: i32, log_offset: Offset) {
        if !self.pending.is_empty() {
            let of = (topic.to_owned(), partition);
            self.keep_pending(|other, it| *other != of || it.log_offset > log_offset);
        }
    }

    /// Forgets one.
    pub fn remove(&mut self, topic: &str, partition: i32) {
        if let Some(partitions) = self.topics.get_mut(topic) {
            partitions.remove(&partition);
            if partitions.is_empty() {
                self.topics.remove(topic);
            }
        }
    }

    /// Forgets one, where it was committed before `log_offset`; commits from before then that come
    /// later are void.
    pub fn remove_before(&mut self, topic: &str, partition: i32, log_offset: Offset) {
        let present = self
            .topics
            .get(topic)
            .and_then(|all| all.get(&partition))
            .is_some_and(|committed| committed.log_offset < log_offset);
        if present {
            self.remove(topic, partition);
        }
        self.drop_pending_before(topic, partition, log_offset);
        let removed = self.removed.entry((topic.to_owned(), partition));
        let removed = removed.or_insert(log_offset);
        *removed = log_offset.max(*removed);
    }

    /// No commit is under way.
    pub fn settle(&mut self) {
        self.removed.clear();
    }

    /// The offset committed for a partition.
    pub fn get(&self, topic: &str, partition: i32) -> Option<&OffsetCommitValue> {
        self.topics
            .get(topic)?
            .get(&partition)
            .map(|committed| &committed.value)
    }

    /// Topic by topic: the partitions with what is committed for them.
    pub fn topics(
        &self,
    ) -> impl Iterator<Item = (&str, impl Iterator<Item = (i32, &OffsetCommitValue)>)> {
        self.topics.iter().map(|(topic, partitions)| {
            let partitions = partitions.iter();
            (
                topic.as_str(),
                partitions.map(|(partition, it)| (*partition, &it.value)),
            )
        })
    }

    /// The partitions of one topic with what is committed for them.
    pub fn of_topic(&self, topic: &str) -> impl Iterator<Item = (i32, &OffsetCommitValue)> {
        self.topics
            .get(topic)
            .into_iter()
            .flatten()
            .map(|(partition, committed)| (*partition, &committed.value))
    }

    /// How many partitions have an offset.
    pub fn len(&self) -> usize {
        self.topics.values().map(BTreeMap::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: Offset) -> OffsetCommitValue {
        OffsetCommitValue {
            offset,
            leader_epoch: -1,
            metadata: String::new(),
            commit_timestamp_ms: 0,
            expire_timestamp_ms: None,
            topic_id: None,
        }
    }

    #[test]
    fn the_commit_that_was_appended_last_counts() {
        let mut offsets = Offsets::default();
        offsets.commit("t", 0, at(20), 2);
        offsets.commit("t", 0, at(10), 1);
        assert_eq!(offsets.get("t", 0), Some(&at(20)));
        offsets.commit("t", 0, at(5), 3);
        assert_eq!(offsets.get("t", 0), Some(&at(5)));
        offsets.remove("t", 0);
        assert!(offsets.is_empty());
    }

    #[test]
    fn a_commit_from_before_a_removal_does_not_bring_the_offset_back() {
        let mut offsets = Offsets::default();
        offsets.commit("t", 0, at(10), 1);
        offsets.remove_before("t", 0, 3);
        offsets.commit("t", 0, at(20), 2);
        assert!(offsets.is_empty());
        offsets.commit("t", 0, at(30), 4);
        offsets.remove_before("t", 0, 3);
        assert_eq!(offsets.get("t", 0), Some(&at(30)));
        offsets.settle();
    }
    #[test]
    fn pending_offsets_count_when_their_transaction_commits() {
        let mut offsets = Offsets::default();
        offsets.commit("t", 0, at(1), 1);
        offsets.pend(7, "t", 0, at(10), 2);
        offsets.pend(8, "t", 1, at(20), 3);
        assert_eq!(offsets.get("t", 0), Some(&at(1)));
        assert!(offsets.is_pending("t", 0) && !offsets.is_pending("t", 2));
        offsets.end_transaction(7, true);
        offsets.end_transaction(8, false);
        assert_eq!(offsets.get("t", 0), Some(&at(10)));
        assert_eq!(offsets.get("t", 1), None);
        assert!(!offsets.has_pending());
    }

    #[test]
    fn what_is_committed_or_removed_after_a_pending_offset_counts_over_it() {
        let mut offsets = Offsets::default();
        offsets.pend(7, "t", 0, at(10), 1);
        offsets.commit("t", 0, at(30), 2);
        offsets.pend(7, "t", 1, at(10), 3);
        offsets.remove_at("t", 1, 4);
        offsets.end_transaction(7, true);
        assert_eq!(offsets.get("t", 0), Some(&at(30)));
        assert_eq!(offsets.get("t", 1), None);
    }
}
