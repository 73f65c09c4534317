//! Milena's windows beside those of Kafka Streams: for each record of seven streams, the same windows have the same records,
//! sums and bounds afterwards, and the same are closed. MILENA_WINDOWS names a folder of other streams, which
//! `.ci/windows_beside_kafka_streams` makes.

mod fixture;
mod windows;
#[path = "../stateful/world.rs"]
#[allow(dead_code)]
mod world;

use inference::stream_log::OutputTopic;

use fixture::{Expected, Fixture, Kind, Update, Values};
use windows::Run;
use world::World;

/// Differences that are shown.
const SHOWN: usize = 10;

#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    fn note(
        &mut self,
        fixture: &Fixture,
        record: usize,
        window: usize,
        found: &str,
        expected: &str,
    ) {
        let of = &fixture.records[record];
        self.0.push(format!(
            "{}, record {} (key {:?}, time {}), {}:\n  found    {found}\n  expected {expected}",
            fixture.name,
            record + 1,
            of.key,
            of.time_ms,
            fixture.windows[window].text
        ));
    }

    fn end(self) {
        let shown: Vec<_> = self.0.iter().take(SHOWN).cloned().collect();
        assert!(
            self.0.is_empty(),
            "{} differences\n{}",
            self.0.len(),
            shown.join("\n")
        );
    }
}

/// Whether the values can be compared: in Milena a session of values is one of the records that have one.
fn has_values(kind: Kind, update: &Update) -> bool {
    matches!(kind, Kind::Hopping { .. }) || update.records == update.values.count
}

fn is_same(kind: Kind, found: &Expected, expected: &Expected) -> bool {
    let comparable = |one: &Update, other: &Update| {
        let bounds = |update: &Update| (update.start, update.end, update.records);
        let same_values = !has_values(kind, other) || one.values == other.values;
        bounds(one) == bounds(other) && same_values
    };
    found.dropped == expected.dropped
        && found.updates.len() == expected.updates.len()
        && (found.updates.iter().zip(&expected.updates)).all(|(one, other)| comparable(one, other))
}

#[test]
fn windows_hold_what_kafka_streams_says() {
    let mut differences = Differences::default();
    let (mut compared, mut without_values, mut passed) = (0, 0, 0);
    for fixture in fixture::all() {
        for (window, kafkas) in fixture.windows.iter().enumerate() {
            let Some(mut run) = Run::new(kafkas.kind) else {
                passed += 1;
                continue;
            };
            let mut dropped = 0;
            for (record, expected) in fixture.expected.iter().enumerate() {
                let expected = &expected[window];
                let found = run.see(&fixture.records[record]);
                if !is_same(kafkas.kind, &found, expected) {
                    let (found, expected) = (format!("{found:?}"), format!("{expected:?}"));
                    differences.note(&fixture, record, window, &found, &expected);
                }
                dropped += found.dropped;
                compared += expected.updates.len();
                let values = |update: &&Update| !has_values(kafkas.kind, update);
                without_values += expected.updates.iter().filter(values).count();
            }
            if dropped != fixture.dropped[window] {
                differences.0.push(format!(
                    "{}, {}: {dropped} dropped and not {}",
                    fixture.name, kafkas.text, fixture.dropped[window]
                ));
            }
        }
    }
    differences.end();
    // Sessions with a retention of their own.
    assert_eq!(passed, 2);
    assert!(compared > 5_000, "{compared} updates");
    assert!(
        without_values * 20 < compared,
        "{without_values} without values"
    );
}

/// A feature is of the window that contains the record and starts first; of closed ones Kafka Streams does not tell.
#[tokio::test]
async fn features_of_a_model_topic_are_of_those_windows() {
    let mut differences = Differences::default();
    let mut compared = 0;
    for fixture in fixture::all() {
        let features: Vec<_> = (0..)
            .zip(&fixture.windows)
            .filter_map(|(n, kafkas)| windows::features(kafkas.kind, &format!("w{n}")))
            .collect();
        let world = World::new(1);
        let running = world.start(&format!(
            "output = {{ template = {{ f = '$f' }} }}\nfeature = [{}]",
            features.concat()
        ));
        let records = fixture.records.iter().map(|record| {
            let mut appended = world::record(
                record.time_ms,
                record.key.as_deref().unwrap_or_default(),
                &windows::json(record),
            );
            appended.key = appended.key.filter(|key| !key.is_empty());
            appended
        });
        world.append(records.collect());
        world.until_position(0, fixture.records.len() as i64).await;
        let keyed: Vec<usize> = (0..fixture.records.len())
            .filter(|record| fixture.records[*record].key.is_some())
            .collect();
        let outputs = world.outputs(0, keyed.len()).await;
        let letters = world.topics.outputs(OutputTopic::DeadLetter, 0);
        assert_eq!(
            letters.len(),
            fixture.records.len() - keyed.len(),
            "{}",
            fixture.name
        );
        running.stop().await;
        for (record, output) in keyed.into_iter().zip(&outputs) {
            for (window, kafkas) in fixture.windows.iter().enumerate() {
                let expected = &fixture.expected[record][window];
                let first = expected.updates.first().filter(|_| expected.dropped == 0);
                let (Some(update), false) = (first, kafkas.kind == Kind::Retained) else {
                    continue;
                };
                let of = |name: &str| output["f"][format!("w{window}_{name}")].as_f64();
                let number = |name: &str| of(name).and_then(windows::number);
                let found = Update {
                    records: of("records").unwrap(),
                    values: Values {
                        count: of("count").unwrap(),
                        sum: of("sum").unwrap(),
                        min: number("min"),
                        max: number("max"),
                    },
                    ..update.clone()
                };
                let one = |update: &Update| Expected {
                    updates: vec![update.clone()],
                    dropped: 0,
                };
                if !is_same(kafkas.kind, &one(&found), &one(update)) {
                    let (found, expected) = (format!("{found:?}"), format!("{update:?}"));
                    differences.note(&fixture, record, window, &found, &expected);
                }
                compared += 1;
            }
        }
    }
    differences.end();
    assert!(compared > 3_000, "{compared} windows");
}
