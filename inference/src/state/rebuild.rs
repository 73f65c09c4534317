//! Building a state anew from the inputs.
//!
//! What a changelog has of the state is taken away; the inputs are read from their starts once more, and what was already given
//! out for their records is not given out again: they only change the state. It is done in steps, each of which may be the last
//! before a crash; the mark that the first sets says that the others are to be done, whatever was asked.
//!
//! 1. [`Entries::begin`]: the mark, and up to where each source's outputs are there;
//! 2. [`Entries::clear`]: the state goes;
//! 3. the positions go back, and the mark goes ([`end`]).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::clock::decode_source;
use super::{Change, DEFINITION, OWN, REBUILDING, REPLAYED, STREAM_TIME, own_key, split_key};
use crate::stream_log::Task;

/// What a changelog holds of the state, as its newest values.
#[derive(Debug, Default)]
pub struct Entries(BTreeMap<(Task, Bytes), Bytes>);

impl Entries {
    /// Takes a change, in the order of the changelog.
    pub fn take(&mut self, task: Task, key: Bytes, value: Option<Bytes>) {
        match value {
            Some(value) => self.0.insert((task, key), value),
            None => self.0.remove(&(task, key)),
        };
    }

    /// Whether a rebuild has begun and not ended.
    pub fn has_begun(&self) -> bool {
        let mut own = self.own();
        own.any(|(_, slice, _)| slice == REBUILDING)
    }

    /// Of each task's sources, the offset of the last record whose outputs are there, and one more. These are known to the
    /// state of what reads a repartition topic; for others they are the positions.
    pub fn sources(&self) -> BTreeMap<(Task, i64), i64> {
        let mut ends: BTreeMap<(Task, i64), i64> = BTreeMap::new();
        for (task, slice, value) in self.own() {
            let (source, end) = match slice {
                0.. => (slice, decode_source(value).map(|(_, offset)| offset + 1)),
                ..=REPLAYED => (REPLAYED - slice, number(value)),
                _ => continue,
            };
            if let Some(end) = end {
                let known = ends.entry((task, source)).or_insert(end);
                *known = end.max(*known);
            }
        }
        ends
    }

    /// What says that the state is to be built anew, and that nothing is to be given out for the sources' records below
    /// these offsets.
    pub fn begin(ends: &BTreeMap<(Task, i64), i64>) -> Vec<(Task, Change)> {
        let mark = (
            Task { partition: 0 },
            (own_key(REBUILDING), Some(Bytes::from_static(b"1"))),
        );
        let replayed = ends.iter().map(|(&(task, source), end)| {
            let end = Bytes::copy_from_slice(&end.to_be_bytes());
            (task, (own_key(REPLAYED - source), Some(end)))
        });
        std::iter::once(mark).chain(replayed).collect()
    }

    /// What takes the state away, but for what [`Entries::begin`] wrote.
    pub fn clear(&self) -> impl Iterator<Item = (Task, Change)> {
        let goes = |key: &Bytes| match split_key(key) {
            Some((OWN, slice, _)) => slice >= 0 || slice == STREAM_TIME || slice == DEFINITION,
            _ => true,
        };
        let keys = self.0.keys().filter(move |(_, key)| goes(key));
        keys.map(|(task, key)| (*task, (key.clone(), None)))
    }

    fn own(&self) -> impl Iterator<Item = (Task, i64, &[u8])> {
        self.0
            .iter()
            .filter_map(|((task, key), value)| match split_key(key)? {
                (OWN, slice, _) => Some((*task, slice, value.as_ref())),
                _ => None,
            })
    }
}

/// What takes the mark away.
pub fn end() -> (Task, Change) {
    (Task { partition: 0 }, (own_key(REBUILDING), None))
}

/// The offset below which a source's records are not given out again, of such an entry.
pub fn replayed(key: &[u8], value: Option<&[u8]>) -> Option<(i64, Option<i64>)> {
    match split_key(key)? {
        (OWN, slice @ ..=REPLAYED, _) => Some((REPLAYED - slice, value.and_then(number))),
        _ => None,
    }
}

fn number(value: &[u8]) -> Option<i64> {
    value.first_chunk().copied().map(i64::from_be_bytes)
}
