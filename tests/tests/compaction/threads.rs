//! The threads that compact: their number, their priority, and what stops one of them.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use rdkafka::admin::ResourceSpecifier;
use tests::{Milena, eventually};

use super::{LOG, Writer, alter, is_compacted, passes, records, segments, topic};

const KEYS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
const THREADS: &str = "milena_compaction_threads";

/// Name and nice value of each thread that compacts.
fn threads(milena: &Milena) -> Vec<(String, i64)> {
    let tasks = fs::read_dir(format!("/proc/{}/task", milena.pid())).expect("its threads");
    let mut found = Vec::new();
    for task in tasks.flatten() {
        let Ok(stat) = fs::read_to_string(task.path().join("stat")) else {
            continue;
        };
        let (before, after) = stat.rsplit_once(')').expect("a name in brackets");
        let (_, name) = before.split_once('(').expect("a name in brackets");
        if name.starts_with("log-cleaner") {
            // The third field is the first behind the name; nice is the nineteenth.
            let nice = after.split_whitespace().nth(19 - 3).expect("a nice value");
            found.push((name.to_owned(), nice.parse().expect("a number")));
        }
    }
    found.sort();
    found
}

fn broker(milena: &Milena, configs: &[(&str, &str)]) {
    alter(milena, ResourceSpecifier::Broker(0), configs);
}

#[test]
fn threads_run_at_the_lowest_priority_and_change_while_the_broker_runs() {
    let milena = Milena::start(&format!("{LOG}{}", topic("t", &[])));
    let expect = |names: &[&str]| {
        let expected: Vec<_> = names.iter().map(|name| ((*name).to_owned(), 5)).collect();
        eventually(&format!("{names:?} run"), || {
            let metric = milena.metric_if_there(THREADS).unwrap_or(0.0);
            (threads(&milena) == expected && metric == names.len() as f64).then_some(())
        });
    };
    expect(&["log-cleaner-0"]);
    let mut writer = Writer::new(&milena, "t", &[]);
    for threads in ["3", "2"] {
        broker(&milena, &[("log.cleaner.threads", threads)]);
        let names = ["log-cleaner-0", "log-cleaner-1", "log-cleaner-2"];
        expect(&names[..threads.parse().expect("a number")]);
        for _ in 0..60 {
            writer.round(&KEYS);
        }
        eventually("it is compacted", || {
            is_compacted(&milena, "t").then_some(())
        });
    }
    // So slow that the pass would take hours: a change, and a stop, do not wait for it.
    let slow = ("log.cleaner.io.max.bytes.per.second", "1");
    broker(&milena, &[slow]);
    expect(&["log-cleaner-0"]);
    let before = passes(&milena);
    for _ in 0..60 {
        writer.round(&KEYS);
    }
    assert_eq!(passes(&milena), before);
    broker(&milena, &[]);
    eventually("it goes on", || is_compacted(&milena, "t").then_some(()));
    broker(&milena, &[slow]);
    for _ in 0..60 {
        writer.round(&KEYS);
    }
    let mut milena = milena;
    assert!(milena.stop().success());
}

#[test]
fn nothing_is_compacted_where_it_is_switched_off() {
    let config = format!("{LOG}cleaner_enable = false\n{}", topic("t", &[]));
    let mut milena = Milena::start(&config);
    let mut writer = Writer::new(&milena, "t", &[]);
    for _ in 0..60 {
        writer.round(&KEYS);
    }
    assert_eq!(threads(&milena), []);
    assert_eq!(records(&milena, "t").len() as i64, writer.next);
    assert!(milena.stop().success());
    let on = milena.config().replace("cleaner_enable = false", "");
    milena.set_config(on);
    milena.restart();
    eventually("it is compacted", || {
        is_compacted(&milena, "t").then_some(())
    });
}

#[test]
fn a_log_that_cannot_be_compacted_is_named_and_the_others_go_on() {
    let lag = [("min.compaction.lag.ms", "3600000")];
    let topics = [topic("bad", &lag), topic("good", &lag)].concat();
    let mut milena = Milena::start(&format!("{LOG}{topics}"));
    for name in ["bad", "good"] {
        let mut writer = Writer::new(&milena, name, &[]);
        for _ in 0..60 {
            writer.round(&KEYS);
        }
    }
    assert!(milena.stop().success());
    // The length of a closed segment's first batch, below the recovery point: no start looks at it, and
    // nobody can tell where the next batch begins.
    let closed = segments(&milena, "bad").remove(2);
    let file = OpenOptions::new().read(true).write(true).open(&closed);
    let file = file.expect("the segment");
    let mut byte = [0];
    file.read_exact_at(&mut byte, 8).expect("a byte");
    file.write_all_at(&[byte[0] ^ 0x40], 8).expect("written");
    drop(file);
    milena.restart();
    for name in ["bad", "good"] {
        alter(&milena, ResourceSpecifier::Topic(name), &super::COMPACTED);
    }
    eventually("the other one is compacted", || {
        is_compacted(&milena, "good").then_some(())
    });
    eventually("the failure is counted", || {
        let failed = "milena_compaction_passes_total{outcome=\"failed\"}";
        (milena.metric_if_there(failed)? >= 1.0).then_some(())
    });
    assert_eq!(
        milena.metric("milena_compaction_uncleanable_partitions"),
        1.0
    );
    let log = milena.log();
    let mut lines = log.lines().filter(|line| line.contains("is not compacted"));
    let line = lines.next().expect("a line says so");
    for part in ["ERROR", "bad", "partition=0", &closed.display().to_string()] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert_eq!(lines.next(), None, "it is said once");
}
