//! The broker is killed or stopped between the steps of a transaction, and within them: the producer goes
//! on, and the transaction is there as a whole or not at all.

use std::time::Duration;

use rdkafka::producer::Producer;
use tests::random::Random;
use tests::transaction::{self, Ended};
use tests::{Isolation, Milena};

use super::{
    Values, committed, expect_committed, nothing_open, producer, queue, topics, uncommitted, write,
};

#[derive(Clone, Copy, Debug)]
enum Ending {
    Kill,
    Stop,
}

fn end(milena: &mut Milena, ending: Ending) {
    match ending {
        Ending::Kill => milena.kill(),
        Ending::Stop => assert!(milena.stop().success(), "{}", milena.log()),
    }
}

/// The broker ends before this step, and is started again after it where the step can be taken without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Begin,
    FirstRecord,
    SecondRecord,
    End,
    Next,
}

const STEPS: [Step; 5] = [
    Step::Begin,
    Step::FirstRecord,
    Step::SecondRecord,
    Step::End,
    Step::Next,
];

#[test]
fn a_transaction_goes_on_after_a_restart_before_any_of_its_steps() {
    let mut milena = Milena::start(&topics(&[("t", 1), ("u", 2)]));
    let producer = producer(&milena, "t");
    let (mut in_t, mut in_u) = (Vec::new(), Vec::new());
    for ending in [Ending::Kill, Ending::Stop] {
        for (number, at) in STEPS.into_iter().enumerate() {
            let mut before = |step: Step| {
                if step == at {
                    end(&mut milena, ending);
                    milena.restart();
                }
            };
            let value = format!("{ending:?} before {at:?}");
            let commits = number % 2 == 0;
            before(Step::Begin);
            producer.begin_transaction().expect("begun");
            before(Step::FirstRecord);
            write(&producer, "t", 0, &value);
            before(Step::SecondRecord);
            write(&producer, "u", 1, &value);
            before(Step::End);
            if commits {
                assert_eq!(transaction::commit(&producer), Ended::Committed, "{value}");
                in_t.push(value.clone());
                in_u.push(value);
            } else {
                assert_eq!(transaction::abort(&producer), Ended::Aborted, "{value}");
            }
            before(Step::Next);
        }
    }
    nothing_open(&milena, "t");
    nothing_open(&milena, "u");
    assert_eq!(committed(&milena, "t"), Values::from([(0, in_t)]));
    assert_eq!(committed(&milena, "u"), Values::from([(1, in_u)]));
    let all = uncommitted(&milena, "t").remove(&0).expect("records");
    assert_eq!(all.len(), 2 * STEPS.len(), "each was written once");
}

#[test]
fn what_is_sent_while_there_is_no_broker_is_in_the_transaction() {
    let mut milena = Milena::start(&topics(&[("t", 1)]));
    let producer = producer(&milena, "t");
    for ending in [Ending::Kill, Ending::Stop] {
        producer.begin_transaction().expect("begun");
        write(&producer, "t", 0, &format!("{ending:?} before"));
        end(&mut milena, ending);
        queue(&producer, "t", 0, &format!("{ending:?} without"));
        let ended = std::thread::scope(|scope| {
            let commit = scope.spawn(|| transaction::commit(&producer));
            std::thread::sleep(Duration::from_millis(300));
            milena.restart();
            commit.join().expect("its end")
        });
        assert_eq!(ended, Ended::Committed);
    }
    let expected = ["Kill before", "Kill without", "Stop before", "Stop without"];
    expect_committed(&milena, "t", &[(0, &expected)]);
}

#[test]
fn a_transaction_whose_end_is_interrupted_is_whole() {
    const ROUNDS: u64 = 12;
    const MOST_MS: u64 = 12;
    let parts = [("t", 0), ("t", 1), ("t", 2), ("u", 0), ("u", 1)];
    let mut milena = Milena::start(&topics(&[("t", 3), ("u", 2)]));
    let mut producer = producer(&milena, "id");
    let mut random = Random::new(7);
    let mut told = Vec::new();
    for round in 0..ROUNDS {
        let commits = round % 3 != 2;
        producer.begin_transaction().expect("begun");
        for (topic, partition) in parts {
            queue(&producer, topic, partition, &round.to_string());
        }
        transaction::flush(&producer);
        let ended = std::thread::scope(|scope| {
            let ending = scope.spawn(|| {
                if commits {
                    transaction::commit(&producer)
                } else {
                    transaction::abort(&producer)
                }
            });
            std::thread::sleep(Duration::from_micros(random.below(MOST_MS * 1_000)));
            end(
                &mut milena,
                if round % 4 == 3 {
                    Ending::Stop
                } else {
                    Ending::Kill
                },
            );
            milena.restart();
            ending.join().expect("its end")
        });
        if matches!(ended, Ended::Unknown(_)) {
            producer = super::producer(&milena, "id");
        }
        told.push(ended);
    }
    println!("{told:?}");
    for topic in ["t", "u"] {
        nothing_open(&milena, topic);
    }
    let (in_t, in_u) = (committed(&milena, "t"), committed(&milena, "u"));
    for (round, told) in told.iter().enumerate() {
        let copies = parts.map(|(topic, partition)| {
            let values = if topic == "t" { &in_t } else { &in_u };
            let value = round.to_string();
            let values = values.get(&partition).into_iter().flatten();
            values.filter(|found| **found == value).count()
        });
        let expected: &[usize] = match told {
            Ended::Committed => &[1],
            Ended::Aborted => &[0],
            Ended::Unknown(_) => &[0, 1],
        };
        assert!(
            copies.iter().all(|count| *count == copies[0]) && expected.contains(&copies[0]),
            "round {round}, {told:?}: in {parts:?} it is {copies:?} times"
        );
    }
}

#[test]
fn what_was_aborted_stays_hidden_over_segments_and_restarts() {
    const TRANSACTIONS: usize = 60;
    let mut milena = Milena::start(
        "[[topic]]\nname = \"t\"\npartitions = 1\nconfigs = { \"internal.segment.bytes\" = 1000 }\n",
    );
    let (one, two) = (producer(&milena, "one"), producer(&milena, "two"));
    let mut expected = Vec::new();
    for n in 0..TRANSACTIONS {
        // The second one's begins in an earlier segment than it ends in, over several of the first one's.
        if n % 10 == 0 {
            two.begin_transaction().expect("begun");
        }
        let (aborts, value) = (n % 3 == 1, format!("two {n}"));
        write(&two, "t", 0, &value);
        if n / 10 % 2 == 0 {
            expected.push(value);
        }
        one.begin_transaction().expect("begun");
        let value = format!("one {n}");
        write(&one, "t", 0, &value);
        if aborts {
            assert_eq!(transaction::abort(&one), Ended::Aborted);
        } else {
            assert_eq!(transaction::commit(&one), Ended::Committed);
            expected.push(value);
        }
        if n % 10 == 9 {
            if n / 10 % 2 == 0 {
                assert_eq!(transaction::commit(&two), Ended::Committed);
            } else {
                assert_eq!(transaction::abort(&two), Ended::Aborted);
            }
        }
    }
    let expected = Values::from([(0, expected)]);
    nothing_open(&milena, "t");
    assert_eq!(committed(&milena, "t"), expected);
    for ending in [Ending::Kill, Ending::Stop, Ending::Stop, Ending::Kill] {
        let before = milena.ends_as(Isolation::ReadUncommitted, "t");
        end(&mut milena, ending);
        milena.restart();
        assert_eq!(milena.ends("t"), before, "nothing is open");
        assert_eq!(committed(&milena, "t"), expected, "{ending:?}");
        let from_the_middle = milena.read_topic_from("t", &[(0, before[&0] / 2)].into());
        let tail: Vec<String> = from_the_middle[&0]
            .iter()
            .map(|record| super::text(record.value.clone()))
            .collect();
        assert!(
            expected[&0].ends_with(&tail) && !tail.is_empty(),
            "{tail:?}"
        );
    }
}
