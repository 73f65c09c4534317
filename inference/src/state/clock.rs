//! Stream time: how far the records of a task have come.
//!
//! Records come from sources, each in its own order: the partitions of the inputs, also where they come through a repartition
//! topic. Stream time is the least of the sources' highest event times, and never goes back. A source that has given no
//! record for the idle timeout does not hold it back; one that is known and has given none yet does, until then.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

impl Source {
    fn new(now: Instant) -> Self {
        Self {
            highest_ms: None,
            offset: -1,
            last_seen: now,
        }
    }
}

/// Highest time and last offset.
pub(super) fn decode_source(value: &[u8]) -> Option<(i64, i64)> {
    let (time, rest) = value.split_first_chunk()?;
    let (offset, rest) = rest.split_first_chunk()?;
    let source = (i64::from_be_bytes(*time), i64::from_be_bytes(*offset));
    rest.is_empty().then_some(source)
}

/// Of one task.
#[derive(Debug)]
pub struct Clock {
    idle_timeout: Duration,
    stream_ms: i64,
    sources: BTreeMap<i64, Source>,
}

#[derive(Debug)]
struct Source {
    highest_ms: Option<i64>,
    /// Of the last record.
    offset: i64,
    last_seen: Instant,
}

impl Clock {
    /// With no source.
    pub fn new(idle_timeout: Duration) -> Self {
        Self {
            idle_timeout,
            stream_ms: i64::MIN,
            sources: BTreeMap::new(),
        }
    }

    /// A source that may give records.
    pub fn expect(&mut self, source: i64, now: Instant) {
        self.sources.entry(source).or_insert(Source::new(now));
    }

    /// A record at a time; returns stream time, and whether the source's highest time has changed.
    pub fn see(&mut self, source: i64, offset: i64, time_ms: i64, now: Instant) -> (i64, bool) {
        let of_source = self.sources.entry(source).or_insert(Source::new(now));
        of_source.last_seen = now;
        of_source.offset = offset;
        let is_higher = of_source.highest_ms.is_none_or(|highest| highest < time_ms);
        if is_higher {
            of_source.highest_ms = Some(time_ms);
            self.advance(now);
        }
        (self.stream_ms, is_higher)
    }

    /// Stream time, or the least there is.
    pub fn stream_ms(&self) -> i64 {
        self.stream_ms
    }

    /// The highest event time of all sources.
    pub fn highest_ms(&self) -> Option<i64> {
        let sources = self.sources.values();
        sources.filter_map(|source| source.highest_ms).max()
    }

    /// From the changelog.
    pub fn restore_stream(&mut self, stream_ms: i64) {
        self.stream_ms = stream_ms;
    }

    /// From the changelog; `None` where the source is forgotten, or the value no such entry.
    pub fn restore_source(&mut self, source: i64, value: Option<&[u8]>, now: Instant) {
        match value.and_then(decode_source) {
            None => drop(self.sources.remove(&source)),
            Some((highest_ms, offset)) => {
                let of_source = Source {
                    highest_ms: Some(highest_ms),
                    offset,
                    last_seen: now,
                };
                self.sources.insert(source, of_source);
            }
        }
    }

    /// A source as it is in the changelog: its highest time `i64`, and the offset of its last record `i64`.
    pub fn entry(&self, source: i64) -> Option<[u8; 16]> {
        let of_source = self.sources.get(&source)?;
        let mut entry = [0; 16];
        let (time, offset) = entry.split_at_mut(8);
        time.copy_from_slice(&of_source.highest_ms?.to_be_bytes());
        offset.copy_from_slice(&of_source.offset.to_be_bytes());
        Some(entry)
    }

    /// All sources that have given a record, as they are in the changelog.
    pub fn entries(&self) -> Vec<(i64, Vec<u8>)> {
        let sources = self.sources.keys();
        sources
            .filter_map(|&source| Some((source, self.entry(source)?.to_vec())))
            .collect()
    }

    fn advance(&mut self, now: Instant) {
        let mut least: Option<i64> = None;
        for source in self.sources.values() {
            let is_idle = now.duration_since(source.last_seen) >= self.idle_timeout;
            match source.highest_ms {
                _ if is_idle => {}
                None => return,
                Some(highest) => least = Some(least.map_or(highest, |least| least.min(highest))),
            }
        }
        if let Some(least) = least {
            self.stream_ms = self.stream_ms.max(least);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_source_that_is_not_idle_says_how_far_it_is() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut clock = Clock::new(Duration::from_millis(100));
        clock.expect(0, start);
        clock.expect(1, start);
        assert_eq!(clock.see(0, 0, 1_000, at(1)), (i64::MIN, true));
        assert_eq!(clock.see(1, 0, 500, at(2)), (500, true));
        assert_eq!(clock.see(1, 0, 400, at(3)), (500, false));
        assert_eq!(clock.see(1, 0, 2_000, at(4)), (1_000, true));
        // Source 0 is idle, and does not hold back the other; it never goes back.
        assert_eq!(clock.see(1, 0, 3_000, at(150)), (3_000, true));
        assert_eq!(clock.see(0, 0, 1_500, at(151)), (3_000, true));
        assert_eq!(clock.see(1, 0, 4_000, at(152)), (3_000, true));
        assert_eq!(clock.see(0, 0, 3_500, at(153)), (3_500, true));
    }

    #[test]
    fn a_source_that_gives_nothing_is_waited_for_until_it_is_idle() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut clock = Clock::new(Duration::from_millis(100));
        clock.expect(7, start);
        assert_eq!(clock.see(0, 0, 10, at(50)).0, i64::MIN);
        assert_eq!(clock.see(0, 0, 20, at(100)).0, 20);
    }
}
