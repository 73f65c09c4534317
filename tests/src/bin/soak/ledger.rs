//! What was written, what each group has seen of it, and what does not fit.
//!
//! A record is known by its place (partition, offset) and its [`Stamp`]. Offsets of the topic start
//! at 0, and only the soak's idempotent producers write to it: so each partition holds exactly the
//! acknowledged records, without gaps, each producer's in its order.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Which producer wrote a record, and as its how-manieth: `producer << 32 | sequence`.
pub type Stamp = u64;

/// What is printed of the offsets that a failure is about.
const EXAMPLES: usize = 5;

/// One topic's books.
pub struct Ledger {
    contents: Vec<Mutex<Contents>>,
    groups: Vec<Group>,
    faults: Mutex<Vec<String>>,
}

/// A partition's records by offset.
#[derive(Default)]
struct Contents {
    stamps: Vec<Option<Stamp>>,
    acknowledged: Vec<bool>,
}

struct Group {
    name: String,
    seen: Mutex<Seen>,
}

/// What a group has seen.
struct Seen {
    /// Times that each offset was seen, by partition.
    counts: Vec<Vec<u8>>,
    /// Who read what, in order, by partition: for the message of a failure.
    spans: Vec<Vec<Span>>,
    different: u64,
    all: u64,
    /// When it saw its last record, or began, while records are being written.
    last: Instant,
    writing: bool,
    longest_pause: Duration,
}

struct Span {
    reader: String,
    first: i64,
    last: i64,
}

impl Seen {
    fn pause_ends(&mut self) {
        self.longest_pause = self.longest_pause.max(self.last.elapsed());
    }
}

impl Ledger {
    pub fn new(partitions: usize, groups: &[&str]) -> Self {
        let seen = || Seen {
            counts: vec![Vec::new(); partitions],
            spans: (0..partitions).map(|_| Vec::new()).collect(),
            different: 0,
            all: 0,
            last: Instant::now(),
            writing: true,
            longest_pause: Duration::ZERO,
        };
        Self {
            contents: (0..partitions).map(|_| Mutex::default()).collect(),
            groups: groups
                .iter()
                .map(|&name| Group {
                    name: name.to_owned(),
                    seen: Mutex::new(seen()),
                })
                .collect(),
            faults: Mutex::default(),
        }
    }

    /// A fault that somebody else has found.
    pub fn fault(&self, fault: String) {
        self.faults.lock().expect("the faults").push(fault);
    }

    /// A producer was told that its record is there.
    pub fn acknowledged(&self, partition: i32, offset: i64, stamp: Stamp) {
        let Some(at) = self.enter(partition, offset, stamp, "the acknowledgement") else {
            return;
        };
        let mut contents = self.contents[partition as usize]
            .lock()
            .expect("the contents");
        if std::mem::replace(&mut contents.acknowledged[at], true) {
            drop(contents);
            self.fault(format!(
                "partition {partition}, offset {offset}: acknowledged twice"
            ));
        }
    }

    /// A member of a group has got a record.
    pub fn seen(&self, group: usize, reader: &str, partition: i32, offset: i64, stamp: Stamp) {
        let Some(at) = self.enter(partition, offset, stamp, reader) else {
            return;
        };
        let seen = &mut *self.groups[group].seen.lock().expect("what was seen");
        if seen.writing {
            seen.pause_ends();
            seen.last = Instant::now();
        }
        let counts = &mut seen.counts[partition as usize];
        if counts.len() <= at {
            counts.resize(at + 1, 0);
        }
        counts[at] = counts[at].saturating_add(1);
        seen.all += 1;
        seen.different += u64::from(counts[at] == 1);
        let spans = &mut seen.spans[partition as usize];
        match spans.last_mut() {
            Some(span) if span.reader == reader && span.last + 1 == offset => span.last = offset,
            _ => spans.push(Span {
                reader: reader.to_owned(),
                first: offset,
                last: offset,
            }),
        }
    }

    /// Books the stamp of a place; two stamps for one place, or a place that is none, are faults.
    fn enter(&self, partition: i32, offset: i64, stamp: Stamp, source: &str) -> Option<usize> {
        let contents = usize::try_from(partition)
            .ok()
            .and_then(|partition| self.contents.get(partition));
        let (Some(contents), Ok(at)) = (contents, usize::try_from(offset)) else {
            self.fault(format!(
                "{source}: no such place: partition {partition}, offset {offset}"
            ));
            return None;
        };
        let mut contents = contents.lock().expect("the contents");
        if contents.stamps.len() <= at {
            contents.stamps.resize(at + 1, None);
            contents.acknowledged.resize(at + 1, false);
        }
        let known = *contents.stamps[at].get_or_insert(stamp);
        drop(contents);
        if known != stamp {
            self.fault(format!(
                "{source}: partition {partition}, offset {offset} is {}, and was {} before",
                name(stamp),
                name(known)
            ));
        }
        Some(at)
    }

    /// From now on a group that sees nothing is not standing still.
    pub fn end_of_writing(&self) {
        for group in &self.groups {
            let seen = &mut *group.seen.lock().expect("what was seen");
            seen.pause_ends();
            seen.writing = false;
        }
    }

    /// Records that were acknowledged.
    pub fn written(&self) -> u64 {
        self.ends().iter().sum()
    }

    /// Where each partition ends, going by the acknowledgements.
    pub fn ends(&self) -> Vec<u64> {
        let count = |contents: &Mutex<Contents>| {
            let contents = contents.lock().expect("the contents");
            contents.acknowledged.iter().filter(|&&yes| yes).count() as u64
        };
        self.contents.iter().map(count).collect()
    }

    /// Whether every group has seen something.
    pub fn all_groups_read(&self) -> bool {
        let read = |group: &Group| group.seen.lock().expect("what was seen").all > 0;
        self.groups.iter().all(read)
    }

    /// The groups that have not yet seen as many records as were written, with what they lack.
    pub fn behind(&self) -> Vec<(String, u64)> {
        let written = self.written();
        self.groups
            .iter()
            .filter_map(|group| {
                let seen = group.seen.lock().expect("what was seen").different;
                (seen < written).then(|| (group.name.clone(), written - seen))
            })
            .collect()
    }

    /// For each group: its name, records seen, how many of them not for the first time, and its
    /// longest time without a record while records were being written, its start included.
    pub fn figures(&self) -> Vec<(String, u64, u64, Duration)> {
        self.groups
            .iter()
            .map(|group| {
                let seen = group.seen.lock().expect("what was seen");
                (
                    group.name.clone(),
                    seen.all,
                    seen.all - seen.different,
                    seen.longest_pause,
                )
            })
            .collect()
    }

    /// All that is wrong. `exactly_once` forbids seeing a record twice.
    pub fn audit(&self, exactly_once: bool) -> Vec<String> {
        let mut faults = self.faults.lock().expect("the faults").clone();
        for (partition, contents) in self.contents.iter().enumerate() {
            let contents = contents.lock().expect("the contents");
            audit_contents(partition, &contents, &mut faults);
            for group in &self.groups {
                let seen = group.seen.lock().expect("what was seen");
                audit_group(
                    group,
                    &seen,
                    partition,
                    &contents,
                    exactly_once,
                    &mut faults,
                );
            }
        }
        faults
    }
}

fn audit_contents(partition: usize, contents: &Contents, faults: &mut Vec<String>) {
    let unknown: Vec<usize> = (0..contents.stamps.len())
        .filter(|&at| !contents.acknowledged[at])
        .collect();
    if !unknown.is_empty() {
        faults.push(format!(
            "partition {partition}: {} records that no producer has acknowledged: {}",
            unknown.len(),
            examples(&unknown)
        ));
    }
    let mut last = std::collections::BTreeMap::new();
    for (offset, stamp) in contents.stamps.iter().enumerate() {
        let Some(stamp) = stamp else { continue };
        if let Some(before) = last.insert(stamp >> 32, stamp)
            && before >= stamp
        {
            faults.push(format!(
                "partition {partition}, offset {offset}: {} comes after {}",
                name(*stamp),
                name(*before)
            ));
        }
    }
}

fn audit_group(
    group: &Group,
    seen: &Seen,
    partition: usize,
    contents: &Contents,
    exactly_once: bool,
    faults: &mut Vec<String>,
) {
    let count = |at: usize| seen.counts[partition].get(at).copied().unwrap_or(0);
    let of = |wanted: &dyn Fn(usize) -> bool| -> Vec<usize> {
        (0..contents.stamps.len())
            .filter(|&at| wanted(at))
            .collect()
    };
    let lost = of(&|at| contents.acknowledged[at] && count(at) == 0);
    let repeated = of(&|at| exactly_once && count(at) > 1);
    for (what, offsets) in [("never seen", lost), ("seen more than once", repeated)] {
        let Some(&first) = offsets.first() else {
            continue;
        };
        let near: Vec<String> = seen.spans[partition]
            .iter()
            .filter(|span| (span.first..=span.last + 1).contains(&(first as i64)))
            .map(|span| format!("{} read {}-{}", span.reader, span.first, span.last))
            .collect();
        faults.push(format!(
            "group {}, partition {partition}: {} of {} records {what}: {}; around the first: {}",
            group.name,
            offsets.len(),
            contents.stamps.len(),
            examples(&offsets),
            near.join(", ")
        ));
    }
}

fn examples(offsets: &[usize]) -> String {
    let shown: Vec<String> = offsets
        .iter()
        .take(EXAMPLES)
        .map(usize::to_string)
        .collect();
    let more = if offsets.len() > EXAMPLES {
        ", ..."
    } else {
        ""
    };
    format!("{}{more}", shown.join(", "))
}

fn name(stamp: Stamp) -> String {
    format!("record {} of producer {}", stamp & 0xffff_ffff, stamp >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Stamp = 7;
    const B: Stamp = 1 << 32 | 7;

    fn ledger() -> Ledger {
        let ledger = Ledger::new(2, &["g"]);
        ledger.acknowledged(1, 0, A);
        ledger.acknowledged(1, 1, B);
        ledger
    }

    #[test]
    fn a_record_seen_once_is_right() {
        let ledger = ledger();
        ledger.seen(0, "m", 1, 0, A);
        ledger.seen(0, "m", 1, 1, B);
        assert_eq!(ledger.behind(), []);
        assert_eq!(ledger.audit(true), Vec::<String>::new());
    }

    #[test]
    fn a_record_that_a_group_never_saw_is_found() {
        let ledger = ledger();
        ledger.seen(0, "m", 1, 0, A);
        assert_eq!(ledger.behind(), [("g".to_owned(), 1)]);
        assert_eq!(
            ledger.audit(false),
            ["group g, partition 1: 1 of 2 records never seen: 1; around the first: m read 0-0"]
        );
    }

    #[test]
    fn a_record_seen_twice_is_a_fault_where_nobody_was_killed() {
        let ledger = ledger();
        for (reader, offset, stamp) in [("m", 0, A), ("m", 1, B), ("n", 1, B)] {
            ledger.seen(0, reader, 1, offset, stamp);
        }
        assert_eq!(ledger.audit(false), Vec::<String>::new());
        assert_eq!(
            ledger.audit(true),
            [
                "group g, partition 1: 1 of 2 records seen more than once: 1; around the first: \
                 m read 0-1, n read 1-1"
            ]
        );
    }

    #[test]
    fn another_record_at_a_place_an_unknown_record_and_a_wrong_order_are_found() {
        let ledger = Ledger::new(1, &["g"]);
        ledger.acknowledged(0, 0, A);
        ledger.seen(0, "m", 0, 0, B);
        ledger.seen(0, "m", 0, 1, A - 1);
        ledger.seen(0, "m", 3, 0, A);
        assert_eq!(
            ledger.audit(false),
            [
                "m: partition 0, offset 0 is record 7 of producer 1, and was record 7 of producer 0 \
                 before",
                "m: no such place: partition 3, offset 0",
                "partition 0: 1 records that no producer has acknowledged: 1",
                "partition 0, offset 1: record 6 of producer 0 comes after record 7 of producer 0",
            ]
        );
    }
}
