//! A second member joins a group and leaves it again while records keep coming.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Setup;
use super::client::{Client, ConsumerOptions, Feature};
use super::program::Program;
use super::record::{Read, Record};
use super::reference::{self, Writer};
use super::report::{Case, Outcome};

const PARTITIONS: i32 = 4;

/// Every partition has one owner before, between and after, each member reads what it owns, and no
/// record is lost on the way.
pub fn run(setup: &Setup, client: &Client, cooperative: bool) -> Case {
    if cooperative && let Some(why) = client.lacks(Feature::Cooperative) {
        return Ok(Outcome::Lacking(why));
    }
    let loses = client.lacks(Feature::AtLeastOnce);
    let topic = setup.name(client, if cooperative { "cooperative" } else { "range" });
    reference::create_topic(&setup.bootstrap, &topic, PARTITIONS)?;
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_until(setup, &topic, &ended));
        let members = two_members(setup, client, &topic, cooperative, &ended);
        ended.store(true, Ordering::Relaxed);
        let written = writer
            .join()
            .map_err(|_| "the driver's producer panicked")??;
        let (first, second) = members?;
        // The second member was stopped among records, once.
        let tolerated = usize::from(loses.is_some());
        let missing = |read_by_first: &[Read]| {
            let mut missing = written.clone();
            for (partition, offset) in at(read_by_first).chain(second.iter().copied()) {
                missing.remove(&(partition, offset));
            }
            missing
        };
        let all_read = first.wait_for("every record, read by one of the two", |first| {
            (missing(&first.read).len() <= tolerated).then_some(())
        });
        all_read.map_err(|e| {
            let missing = first.look(|first| missing(&first.read));
            format!("{e}\n    not read (partition, offset): {missing:?}")
        })?;
        first.stop()?;
        super::alone::committed_to_the_end(setup, &topic, PARTITIONS)?;
        Ok(loses.map_or(Outcome::Passed, Outcome::PassedBut))
    })
}

/// A record every few milliseconds, to each partition in turn; where they lie.
fn write_until(
    setup: &Setup,
    topic: &str,
    ended: &AtomicBool,
) -> Result<BTreeSet<(i32, i64)>, String> {
    let writer = Writer::new(&setup.bootstrap, topic, "none")?;
    for (n, partition) in (0..PARTITIONS).cycle().enumerate() {
        if ended.load(Ordering::Relaxed) {
            break;
        }
        writer.send(&Record::new(partition, "k", format!("record {n}")))?;
        std::thread::sleep(Duration::from_millis(5));
    }
    writer.flush()?;
    let ends = reference::ends(&setup.bootstrap, topic, PARTITIONS)?;
    Ok(ends
        .into_iter()
        .flat_map(|(partition, end)| (0..end).map(move |offset| (partition, offset)))
        .collect())
}

fn at(read: &[Read]) -> impl Iterator<Item = (i32, i64)> {
    read.iter().map(|read| (read.partition, read.offset))
}

/// The first member, which has all partitions again, and what the second one has read.
fn two_members(
    setup: &Setup,
    client: &Client,
    topic: &str,
    cooperative: bool,
    ended: &AtomicBool,
) -> Result<(Program, Vec<(i32, i64)>), String> {
    let options = ConsumerOptions {
        cooperative,
        ..ConsumerOptions::default()
    };
    let member = || client.consumer(&setup.bootstrap, topic, topic, options);
    let all: BTreeSet<i32> = (0..PARTITIONS).collect();

    let first = member()?;
    first.wait_for("all partitions for the only member", |said| {
        (said.assigned == all).then_some(())
    })?;
    reads_what_it_has(&first)?;

    let second = member()?;
    second.wait_for("two partitions for the second member", |said| {
        let owned = first.look(|first| first.assigned.clone());
        let between_them: BTreeSet<i32> = owned.union(&said.assigned).copied().collect();
        (said.assigned.len() == 2 && owned.len() == 2 && between_them == all).then_some(())
    })?;
    reads_what_it_has(&first)?;
    reads_what_it_has(&second)?;

    let read_by_second = second.stop()?.read;
    first.wait_for("all partitions after the second has left", |said| {
        (said.assigned == all).then_some(())
    })?;
    reads_what_it_has(&first)?;
    ended.store(true, Ordering::Relaxed);
    Ok((first, at(&read_by_second).collect()))
}

/// Waits for a new record of each partition that it has.
fn reads_what_it_has(member: &Program) -> Result<(), String> {
    let from = member.look(|said| said.read.len());
    member.wait_for("a record of each partition that it has", |said| {
        let new: BTreeSet<i32> = said.read.iter().skip(from).map(|r| r.partition).collect();
        said.assigned.is_subset(&new).then_some(())
    })
}
