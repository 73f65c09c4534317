//! The partitions of a fetch: what is asked of each, what was last answered, and whose turn it is.
//! Pure.
//!
//! - A partition that returned records goes to the end of the line, so that a full response does
//!   not keep the others from being served.
//! - A partition is *due* until it has nothing to tell: a fetch looks only at those that are. It
//!   becomes due again when it is asked for anew, or has moved.
//! - In an incremental response a partition is told of when it has records, an error or a diverging
//!   epoch, or when one of its offsets is not the one that was last told.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use uuid::Uuid;

/// How a topic is named: by name up to version 12, by id from 13.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TopicKey {
    /// By name.
    Name(Arc<str>),
    /// By id.
    Id(Uuid),
}

/// What is asked of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The first offset wanted.
    pub fetch_offset: i64,
    /// The leader epoch that the client believes in, or -1.
    pub current_leader_epoch: i32,
    /// The epoch of the client's last record, or -1.
    pub last_fetched_epoch: i32,
    /// The most bytes wanted of it.
    pub partition_max_bytes: i32,
}

/// What a partition is answered with, as far as it decides whether it is told at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Bytes of records.
    pub records_len: usize,
    /// It has an error, or a diverging epoch: something that the client has to act on.
    pub is_urgent: bool,
    /// Its high watermark; -1 with an error.
    pub high_watermark: i64,
    /// Its last stable offset; -1 with an error.
    pub last_stable_offset: i64,
    /// Its log's start; -1 with an error.
    pub log_start_offset: i64,
}

/// Where a partition stands in the line; it orders partitions by their turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    turn: u64,
    /// Stays the partition's own until it is forgotten.
    pub slot: usize,
}

/// A partition of a fetch.
#[derive(Clone, Debug)]
pub struct Partition {
    /// Its topic.
    pub topic: TopicKey,
    /// Its number.
    pub index: i32,
    /// What is asked of it.
    pub asked: Asked,
    turn: u64,
    /// High watermark, last stable offset and log start, as last told.
    told: Option<[i64; 3]>,
}

/// The partitions of a fetch, in line.
#[derive(Debug, Default)]
pub struct Partitions {
    slots: Vec<Option<Partition>>,
    free: Vec<usize>,
    by_key: HashMap<(TopicKey, i32), usize>,
    topics: HashMap<TopicKey, TopicEntry>,
    due: BTreeSet<Place>,
    last_turn: u64,
}

#[derive(Debug, Default)]
struct TopicEntry {
    partitions: usize,
    name: Option<Arc<str>>,
}

impl Partitions {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Asks for a partition, anew where it is there already. It is due.
    pub fn ask(&mut self, topic: &TopicKey, index: i32, asked: Asked) {
        if let Some(slot) = self.by_key.get(&(topic.clone(), index)) {
            let slot = *slot;
            if let Some(partition) = self.slots.get_mut(slot).and_then(Option::as_mut) {
                partition.asked = asked;
            }
            self.make_due(slot);
            return;
        }
        self.last_turn += 1;
        let partition = Partition {
            topic: topic.clone(),
            index,
            asked,
            turn: self.last_turn,
            told: None,
        };
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                self.slots.len() - 1
            }
        };
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(partition);
        }
        self.by_key.insert((topic.clone(), index), slot);
        self.topics.entry(topic.clone()).or_default().partitions += 1;
        self.make_due(slot);
    }

    /// Forgets a partition and returns the slot that it had.
    pub fn forget(&mut self, topic: &TopicKey, index: i32) -> Option<usize> {
        let key = (topic.clone(), index);
        let slot = self.by_key.remove(&key)?;
        let partition = self.slots.get_mut(slot)?.take()?;
        let turn = partition.turn;
        self.due.remove(&Place { turn, slot });
        self.free.push(slot);
        let (topic, _) = key;
        if let Some(entry) = self.topics.get_mut(&topic) {
            entry.partitions -= 1;
            if entry.partitions == 0 {
                self.topics.remove(&topic);
            }
        }
        Some(slot)
    }

    /// The partition in a slot.
    pub fn get(&self, slot: usize) -> Option<&Partition> {
        self.slots.get(slot)?.as_ref()
    }

    /// Where a slot's partition stands in the line.
    pub fn place(&self, slot: usize) -> Option<Place> {
        let turn = self.get(slot)?.turn;
        Some(Place { turn, slot })
    }

    /// The name that the topic had when it was first found by its id.
    pub fn topic_name(&self, topic: &TopicKey) -> Option<Arc<str>> {
        self.topics.get(topic)?.name.clone()
    }

    /// Notes the name of a topic that was found by its id.
    pub fn name_topic(&mut self, topic: &TopicKey, name: &str) {
        if let Some(entry) = self.topics.get_mut(topic)
            && entry.name.is_none()
        {
            entry.name = Some(name.into());
        }
    }

    /// Those to be looked at, in line.
    pub fn due(&self) -> Vec<Place> {
        self.due.iter().copied().collect()
    }

    /// A partition has to be looked at.
    pub fn make_due(&mut self, slot: usize) {
        if let Some(place) = self.place(slot) {
            self.due.insert(place);
        }
    }

    /// Every partition has to be looked at.
    pub fn make_all_due(&mut self) {
        for slot in 0..self.slots.len() {
            self.make_due(slot);
        }
    }

    /// A partition need not be looked at until it moves.
    pub fn rest(&mut self, slot: usize) {
        if let Some(place) = self.place(slot) {
            self.due.remove(&place);
        }
    }

    /// Notes what a partition is answered with. True when an incremental response must tell it.
    pub fn answer(&mut self, slot: usize, answer: &Answer) -> bool {
        let Some(partition) = self.slots.get_mut(slot).and_then(Option::as_mut) else {
            return false;
        };
        let offsets = [
            answer.high_watermark,
            answer.last_stable_offset,
            answer.log_start_offset,
        ];
        let is_told = answer.records_len > 0
            || answer.is_urgent
            || partition.told.is_none_or(|told| told != offsets);
        // What follows an error is told in any case: the client has not heard of its offsets.
        partition.told = (!answer.is_urgent).then_some(offsets);
        if answer.records_len > 0 {
            self.last_turn += 1;
            let before = std::mem::replace(&mut partition.turn, self.last_turn);
            let turn = partition.turn;
            if self.due.remove(&Place { turn: before, slot }) {
                self.due.insert(Place { turn, slot });
            }
        }
        is_told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(fetch_offset: i64) -> Asked {
        Asked {
            fetch_offset,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            partition_max_bytes: 1000,
        }
    }

    fn topic(name: &str) -> TopicKey {
        TopicKey::Name(name.into())
    }

    fn quiet(high_watermark: i64) -> Answer {
        Answer {
            records_len: 0,
            is_urgent: false,
            high_watermark,
            last_stable_offset: high_watermark,
            log_start_offset: 0,
        }
    }

    fn three() -> Partitions {
        let mut partitions = Partitions::default();
        for index in 0..3 {
            partitions.ask(&topic("t"), index, asked(0));
        }
        partitions
    }

    fn due(partitions: &Partitions) -> Vec<i32> {
        let due = partitions.due().into_iter();
        due.filter_map(|place| partitions.get(place.slot))
            .map(|partition| partition.index)
            .collect()
    }

    #[test]
    fn what_is_asked_for_again_is_one_partition_with_the_last_word() {
        let mut partitions = three();
        partitions.ask(&topic("t"), 1, asked(7));
        assert_eq!((partitions.len(), due(&partitions)), (3, vec![0, 1, 2]));
        assert_eq!(partitions.get(1).unwrap().asked.fetch_offset, 7);
    }

    #[test]
    fn partitions_with_records_go_to_the_end_of_the_line() {
        let mut partitions = three();
        let records = Answer {
            records_len: 10,
            ..quiet(5)
        };
        assert!(partitions.answer(0, &records));
        assert_eq!(due(&partitions), [1, 2, 0]);
        partitions.answer(1, &quiet(5));
        assert_eq!(due(&partitions), [1, 2, 0]);
        partitions.answer(2, &records);
        assert_eq!(due(&partitions), [1, 0, 2]);
        partitions.rest(0);
        partitions.make_due(0);
        assert_eq!(due(&partitions), [1, 0, 2]);
    }

    #[test]
    fn an_unchanged_partition_is_told_once() {
        let mut partitions = three();
        assert!(partitions.answer(0, &quiet(5)));
        assert!(!partitions.answer(0, &quiet(5)));
        assert!(partitions.answer(0, &quiet(6)), "the high watermark");
        let moved = Answer {
            last_stable_offset: 5,
            ..quiet(6)
        };
        assert!(partitions.answer(0, &moved), "the last stable offset");
        let moved = Answer {
            log_start_offset: 1,
            ..moved
        };
        assert!(partitions.answer(0, &moved), "the log's start");
        assert!(!partitions.answer(0, &moved));
        partitions.ask(&topic("t"), 0, asked(3));
        assert!(!partitions.answer(0, &moved), "asking changes nothing");
    }

    #[test]
    fn an_error_is_told_every_time_and_what_follows_it_too() {
        let mut partitions = three();
        assert!(partitions.answer(0, &quiet(5)));
        let failed = Answer {
            is_urgent: true,
            ..quiet(-1)
        };
        assert!(partitions.answer(0, &failed));
        assert!(partitions.answer(0, &failed));
        assert!(partitions.answer(0, &quiet(5)));
        assert!(!partitions.answer(0, &quiet(5)));
    }

    #[test]
    fn a_partition_that_rests_is_due_when_it_moved_or_is_asked_for() {
        let mut partitions = three();
        for slot in 0..3 {
            partitions.rest(slot);
        }
        assert!(due(&partitions).is_empty());
        partitions.make_due(2);
        partitions.ask(&topic("t"), 1, asked(9));
        assert_eq!(due(&partitions), [1, 2]);
        partitions.make_all_due();
        assert_eq!(due(&partitions), [0, 1, 2]);
    }

    #[test]
    fn a_forgotten_partition_leaves_nothing_behind() {
        let mut partitions = three();
        let id = TopicKey::Id(Uuid::from_u128(7));
        partitions.ask(&id, 0, asked(0));
        partitions.name_topic(&id, "u");
        partitions.name_topic(&id, "v");
        assert_eq!(partitions.topic_name(&id).as_deref(), Some("u"));
        assert_eq!(partitions.forget(&id, 0), Some(3));
        assert_eq!(partitions.forget(&id, 0), None);
        assert_eq!(partitions.topic_name(&id), None);
        assert_eq!(partitions.forget(&topic("t"), 0), Some(0));
        assert_eq!((partitions.len(), due(&partitions)), (2, vec![1, 2]));
        assert!(!partitions.answer(0, &quiet(1)));
        partitions.make_due(0);
        assert_eq!(due(&partitions), [1, 2]);
        // Its slot is another's now, which is last in line.
        partitions.ask(&topic("u"), 5, asked(0));
        assert_eq!(partitions.get(0).unwrap().index, 5);
        assert_eq!(due(&partitions), [1, 2, 5]);
    }
}
