use std::collections::BTreeSet;

use super::*;
use crate::random::Random;

const AGGREGATES: [Aggregate; 12] = [
    Aggregate::Count,
    Aggregate::Sum,
    Aggregate::Mean,
    Aggregate::Min,
    Aggregate::Max,
    Aggregate::Std,
    Aggregate::Distinct,
    Aggregate::Quantile(0.5),
    Aggregate::Rate,
    Aggregate::Last,
    Aggregate::Delta,
    Aggregate::TimeSinceLast,
];

fn pane(window: Window) -> Pane {
    let parts = AGGREGATES.into_iter().map(Parts::of);
    Pane {
        id: 9,
        window,
        parts: parts.fold(Parts::default(), Parts::with),
        needs_before: true,
    }
}

fn windows() -> [Window; 7] {
    let sliced = |slice_ms, slices, grace_ms| Window::Sliced {
        slice_ms,
        slices,
        grace_ms,
    };
    let session = |gap_ms, grace_ms| Window::Session { gap_ms, grace_ms };
    [
        sliced(50, 1, 20),
        sliced(10, 5, 0),
        sliced(1, 7, 30),
        session(12, 0),
        session(6, 25),
        Window::Count { records: 4 },
        Window::All,
    ]
}

type Record = (i64, f64);

/// What is known of one key, as records and no more.
#[derive(Default)]
struct Naive {
    /// Those that were taken, in the order of their arrival; of each session for itself.
    sessions: Vec<Vec<Record>>,
}

/// What the window of a record holds: before it and with it, and how many seconds that is.
struct Found {
    before: Vec<Record>,
    after: Vec<Record>,
    seconds: f64,
    is_late: bool,
}

fn times(records: &[Record]) -> (i64, i64) {
    let times = records.iter().map(|record| record.0);
    (times.clone().min().unwrap(), times.max().unwrap())
}

impl Naive {
    fn see(&mut self, window: Window, moment: Moment, value: Option<f64>) -> Found {
        let time = moment.time_ms;
        let record = value.map(|value| (time, value));
        match window {
            Window::Sliced {
                slice_ms,
                slices,
                grace_ms,
            } => {
                let slice = |time: i64| time.div_euclid(slice_ms);
                let is_open = |time| {
                    let end = (slice(time) + slices) * slice_ms;
                    end + grace_ms + moment.update_ms > moment.stream_ms
                };
                let all = self.sessions.iter().flatten().copied();
                let is_in = |one: &Record| {
                    slice(one.0) > slice(time) - slices && slice(one.0) <= slice(time)
                };
                let mut after: Vec<_> = all.filter(|one| is_open(one.0) && is_in(one)).collect();
                let before = after.clone();
                if let Some(record) = record.filter(|record| is_open(record.0)) {
                    self.sessions.push(vec![record]);
                    after.push(record);
                }
                Found {
                    before,
                    after,
                    seconds: (slice_ms * slices) as f64 / 1000.0,
                    is_late: (slice(time) + 1) * slice_ms + grace_ms <= moment.stream_ms,
                }
            }
            Window::Session { gap_ms, grace_ms } => {
                let kept = gap_ms + grace_ms + moment.update_ms;
                self.sessions
                    .retain(|session| times(session).1 + kept > moment.before_ms);
                let is_near = |session: &[Record]| {
                    let (start, end) = times(session);
                    end >= time - gap_ms && start <= time + gap_ms
                };
                let near = self.sessions.iter().filter(|session| is_near(session));
                let before: Vec<_> = near.flatten().copied().collect();
                let end = before.iter().map(|one| one.0).fold(time, i64::max);
                let mut after = before.clone();
                if let Some(record) = record.filter(|_| end + kept >= moment.stream_ms) {
                    after.push(record);
                    self.sessions.retain(|session| !is_near(session));
                    self.sessions.push(after.clone());
                }
                let (first, last) = match after.is_empty() {
                    true => (0, 0),
                    false => times(&after),
                };
                Found {
                    before,
                    after,
                    seconds: (last - first) as f64 / 1000.0,
                    is_late: end + gap_ms + grace_ms < moment.stream_ms,
                }
            }
            Window::Count { .. } | Window::All => {
                self.sessions
                    .retain(|all| times(all).1 + moment.ttl_ms > moment.stream_ms);
                let mut all = self.sessions.pop().unwrap_or_default();
                let last = |all: &[Record], most: i64| {
                    all[all.len().saturating_sub(most as usize)..].to_vec()
                };
                let most = match window {
                    Window::Count { records } => records,
                    _ => i64::MAX,
                };
                // With this one, one fewer of those before are among the last.
                let before = last(&all, most - i64::from(record.is_some()));
                all.extend(record);
                let after = last(&all, most);
                self.sessions.extend((!all.is_empty()).then_some(all));
                let seconds = match window {
                    Window::Count { .. } if !after.is_empty() => {
                        (times(&after).1 - times(&after).0) as f64 / 1000.0
                    }
                    _ => 0.0,
                };
                Found {
                    before,
                    after,
                    seconds,
                    is_late: false,
                }
            }
        }
    }
}

impl Found {
    fn value(&self, aggregate: Aggregate, time: i64, value: Option<f64>) -> Option<f64> {
        let numbers = || self.after.iter().map(|record| record.1);
        let count = self.after.len() as f64;
        let some = |number: f64| (count > 0.0).then_some(number);
        // The latest; of several the last to arrive.
        let before = self.before.iter().max_by_key(|record| record.0);
        let mean = numbers().sum::<f64>() / count;
        match aggregate {
            Aggregate::Count => Some(count),
            Aggregate::Sum => Some(numbers().sum()),
            Aggregate::Mean => some(mean),
            Aggregate::Min => some(numbers().fold(f64::INFINITY, f64::min)),
            Aggregate::Max => some(numbers().fold(f64::NEG_INFINITY, f64::max)),
            Aggregate::Std => {
                let squares = numbers().map(|number| (number - mean).powi(2)).sum::<f64>();
                some((squares / count).sqrt())
            }
            Aggregate::Distinct => {
                Some(numbers().map(f64::to_bits).collect::<BTreeSet<_>>().len() as f64)
            }
            Aggregate::Quantile(q) => {
                let mut sorted: Vec<f64> = numbers().collect();
                sorted.sort_by(f64::total_cmp);
                sorted.get((q * (count - 1.0)) as usize).copied()
            }
            Aggregate::Rate => Some(match self.seconds > 0.0 {
                true => count / self.seconds,
                false => 0.0,
            }),
            Aggregate::Last => Some(before?.1),
            Aggregate::Delta => Some(value? - before?.1),
            Aggregate::TimeSinceLast => Some((time - before?.0).max(0) as f64 / 1000.0),
        }
    }
}

fn agrees(aggregate: Aggregate, found: Option<f64>, expected: Option<f64>) -> bool {
    let relative = match aggregate {
        Aggregate::Quantile(_) => 0.01 + 1e-9,
        _ => 1e-9,
    };
    match (found, expected) {
        (Some(found), Some(expected)) => {
            (found - expected).abs() <= relative * expected.abs() + 1e-9
        }
        (found, expected) => found == expected,
    }
}

#[test]
fn every_aggregate_of_every_window_is_that_of_its_records() {
    let mut random = Random(5);
    for window in windows() {
        let mut late = 0;
        for round in 0..60 {
            let pane = pane(window);
            let update_ms = *random.one_of(&[0, 0, 40]);
            let disorder = *random.one_of(&[1, 30, 150]);
            let pause = *random.one_of(&[3, 20]);
            let (mut cells, mut naive) = (Cells::default(), Naive::default());
            let (mut now, mut stream_ms) =
                (*random.one_of(&[0, -700, 1_700_000_000_000]), i64::MIN);
            for step in 0..60 {
                now += random.between(0, pause);
                let mut at_times = |one_in: usize, most: i64| match random.below(one_in) {
                    0 => random.between(0, most),
                    _ => 0,
                };
                let time_ms = now - at_times(3, disorder);
                // Another key's record may have moved the time.
                let before_ms = stream_ms;
                stream_ms = stream_ms.max(time_ms + at_times(9, 40));
                let moment = Moment {
                    time_ms,
                    stream_ms,
                    before_ms,
                    update_ms,
                    ttl_ms: 60,
                };
                let value = (random.below(6) > 0).then(|| random.between(-40, 200) as f64 / 4.0);
                let is_late = pane.is_late(&cells, moment);
                let held = pane.observe(
                    &mut cells,
                    moment,
                    value.map(Value::Number),
                    &mut Vec::new(),
                );
                let found = naive.see(window, moment, value);
                let place =
                    format!("{window:?}, round {round}, step {step}, {moment:?}, {value:?}");
                assert_eq!(is_late, found.is_late, "{place}");
                late += usize::from(found.is_late);
                for aggregate in AGGREGATES {
                    let held = held.value(aggregate, value);
                    let expected = found.value(aggregate, time_ms, value);
                    assert!(
                        agrees(aggregate, held, expected),
                        "{aggregate:?} is {held:?} and not {expected:?}: {place}"
                    );
                }
            }
        }
        let has_late = !matches!(window, Window::Count { .. } | Window::All);
        assert_eq!(late > 100, has_late, "{window:?}: {late} were late");
    }
}

#[test]
fn what_has_changed_is_what_is_touched() {
    let mut random = Random(6);
    for window in windows() {
        let pane = pane(window);
        let (mut cells, mut replayed) = (Cells::default(), Cells::default());
        let (mut now, mut stream_ms) = (0, i64::MIN);
        for _ in 0..400 {
            now += random.between(-20, 30);
            let before_ms = stream_ms;
            stream_ms = stream_ms.max(now);
            let moment = Moment {
                time_ms: now,
                stream_ms,
                before_ms,
                update_ms: 0,
                ttl_ms: 25,
            };
            let mut touched = Vec::new();
            pane.observe(&mut cells, moment, Some(Value::Number(1.0)), &mut touched);
            for slice in touched {
                match cells.get(pane.id, slice) {
                    Some(value) => replayed.set(pane.id, slice, value),
                    None => drop(replayed.remove(pane.id, slice)),
                }
            }
            let all = |cells: &Cells| -> BTreeSet<(i64, Vec<u8>)> {
                cells
                    .iter()
                    .map(|cell| (cell.slice, cell.value.to_vec()))
                    .collect()
            };
            assert_eq!(all(&replayed), all(&cells), "{window:?}");
        }
    }
}

fn at(time_ms: i64, before_ms: i64, stream_ms: i64) -> Moment {
    Moment {
        time_ms,
        stream_ms,
        before_ms,
        update_ms: 0,
        ttl_ms: 60_000,
    }
}

/// Its count, and seconds.
fn observe(pane: &Pane, cells: &mut Cells, moment: Moment) -> (f64, f64) {
    let held = pane.observe(cells, moment, Some(Value::Number(2.0)), &mut Vec::new());
    (held.value(Aggregate::Count, None).unwrap(), held.seconds)
}

#[test]
fn times_may_be_any() {
    for window in windows() {
        for [first, second] in [
            [i64::MAX, i64::MAX],
            [i64::MAX - 1, i64::MAX],
            [i64::MIN, i64::MIN + 1],
            [i64::MIN, i64::MAX],
            [i64::MIN, 0],
            [0, i64::MAX],
        ] {
            let pane = pane(window);
            let mut cells = Cells::default();
            let moment = at(first, i64::MIN, first);
            assert!(!pane.is_late(&cells, moment), "{window:?}, {moment:?}");
            let held = observe(&pane, &mut cells, moment);
            assert_eq!(held.0, 1.0, "{window:?}, {moment:?}");
            let moment = at(second, first, second);
            assert!(!pane.is_late(&cells, moment), "{window:?}, {moment:?}");
            let held = observe(&pane, &mut cells, moment);
            let is_far = second.checked_sub(first).is_none_or(|passed| passed > 1);
            let is_apart = is_far || slice_apart(window, second);
            let expected = if is_apart && second != first {
                1.0
            } else {
                2.0
            };
            assert_eq!(held.0, expected, "{window:?}, {moment:?}");
            // Late, as far as it goes.
            let moment = at(first, second, second);
            observe(&pane, &mut cells, moment);
            pane.look(&cells, moment);
            for cell in cells.iter() {
                pane.ends_ms(cell, i64::MAX, i64::MAX);
            }
        }
    }
}

/// Whether a bound of a tumbling window is just before a time.
fn slice_apart(window: Window, time: i64) -> bool {
    match window {
        Window::Sliced {
            slice_ms,
            slices: 1,
            ..
        } => time.rem_euclid(slice_ms) == 0,
        _ => false,
    }
}

#[test]
fn a_record_that_a_session_does_not_take_is_not_in_its_time() {
    let pane = pane(Window::Session {
        gap_ms: 1000,
        grace_ms: 0,
    });
    let mut cells = Cells::default();
    observe(&pane, &mut cells, at(10_000, i64::MIN, 10_000));
    assert_eq!(
        observe(&pane, &mut cells, at(10_400, 10_000, 10_400)),
        (2.0, 0.4)
    );
    // Another key's record moves the time, from where the session is still found to where it takes nothing more.
    let late = at(9_500, 11_300, 11_500);
    assert!(pane.is_late(&cells, late));
    let held = pane.observe(&mut cells, late, Some(Value::Number(1.0)), &mut Vec::new());
    assert_eq!(held.value(Aggregate::Count, None), Some(2.0));
    assert_eq!(held.value(Aggregate::Rate, None), Some(5.0));
    // Nor is one that has no value.
    let empty = at(10_900, 10_400, 10_900);
    let held = pane.observe(&mut cells, empty, None, &mut Vec::new());
    assert_eq!(held.value(Aggregate::Rate, None), Some(5.0));
    // Without a session there is no time.
    let held = pane.observe(
        &mut cells,
        at(1_000, 10_900, 10_900),
        Some(Value::Number(1.0)),
        &mut Vec::new(),
    );
    assert_eq!(
        (
            held.value(Aggregate::Count, None),
            held.value(Aggregate::Rate, None)
        ),
        (Some(0.0), Some(0.0))
    );
}

#[test]
fn the_last_records_keep_what_they_are() {
    let pane = pane(Window::Count { records: 5 });
    let mut cells = Cells::default();
    let big = 1i64 << 53;
    let mut distinct = 0.0;
    for number in [big, big + 1, big + 1, 3] {
        let held = pane.observe(
            &mut cells,
            at(1, 1, 1),
            Some(Value::of_integer(number)),
            &mut Vec::new(),
        );
        distinct = held.value(Aggregate::Distinct, None).unwrap();
    }
    assert_eq!(distinct, 3.0);
    for value in [
        Value::Text("a"),
        Value::Hash(7),
        Value::Record,
        Value::Number(-0.5),
    ] {
        let mut bytes = Vec::new();
        put_value(8, value, &mut bytes);
        let kept = match value {
            Value::Text(text) => Value::Hash(crate::feature::hash::of_text(text)),
            other => other,
        };
        assert_eq!(get_value(&bytes), Some((8, kept)));
        bytes[8] = 77;
        assert_eq!(get_value(&bytes), None, "an unknown kind");
    }
}
