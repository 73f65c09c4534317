//! The cases in which a client is on its own: what it writes it reads.

use std::collections::{BTreeMap, BTreeSet};

use super::Setup;
use super::batches::{self, CODECS};
use super::client::{Client, ConsumerOptions, Feature};
use super::program::Said;
use super::rebalance;
use super::record::{Read, Record};
use super::reference;
use super::report::{Case, Outcome, Report};
use super::scored;
use super::transactions;

const ORDERS: usize = 100;
const ORDERS_AFTER_RESTART: usize = 50;
const ORDER_PARTITIONS: i32 = 3;

/// Runs them all.
pub fn run(setup: &Setup, client: &'static Client, report: &Report) {
    let case = |name, run: &dyn Fn() -> Case| report.case(client.name, name, run);
    case("produce", &|| produce(setup, client));
    case("group", &|| group(setup, client));
    case("restart", &|| restart(setup, client));
    case("idempotent", &|| idempotent(setup, client));
    case("rebalance", &|| rebalance::run(setup, client, false));
    case("cooperative", &|| rebalance::run(setup, client, true));
    codecs(setup, client, report);
    contents(setup, client, report);
    case("by time", &|| by_time(setup, client));
    case("scored", &|| scored::run(setup, client));
    case("transactions", &|| transactions::few(setup, client));
    case("exactly once", &|| transactions::copied(setup, client));
}

fn orders(range: std::ops::Range<usize>) -> Vec<Record> {
    range
        .map(|n| Record {
            key: Some(format!("c-{}", n % 25)),
            value: Some(format!("{{\"order\": {n}}}")),
            ..Record::default()
        })
        .collect()
}

/// Records that the client spreads over the partitions by their keys.
fn produce(setup: &Setup, client: &Client) -> Case {
    let topic = setup.name(client, "orders");
    reference::create_topic(&setup.bootstrap, &topic, ORDER_PARTITIONS)?;
    let orders = orders(0..ORDERS);
    let written = client.produce(&setup.bootstrap, &topic, "none", &orders)?;
    let read = reference::read(&setup.bootstrap, &topic, ORDER_PARTITIONS)?;
    same_records(&orders, &read)?;
    let mut partition_of_key = BTreeMap::new();
    for read in &read {
        let first = *partition_of_key.entry(&read.key).or_insert(read.partition);
        if first != read.partition {
            return Err(format!(
                "key {:?} is in partitions {first} and {}",
                read.key, read.partition
            ));
        }
    }
    if partition_of_key.values().collect::<BTreeSet<_>>().len() != ORDER_PARTITIONS as usize {
        return Err(format!(
            "not every partition is written to: {partition_of_key:?}"
        ));
    }
    if client.lacks(Feature::StreamingProducer).is_none() {
        let said: BTreeSet<_> = written.into_iter().collect();
        let is: BTreeSet<_> = read.iter().map(|r| (r.partition, r.offset)).collect();
        if said != is {
            return Err("the acknowledged offsets are not those of the records".to_owned());
        }
    }
    Ok(Outcome::Passed)
}

fn group(setup: &Setup, client: &Client) -> Case {
    let topic = setup.name(client, "orders");
    let read = consume_and_stop(setup, client, &topic, ORDERS)?;
    same_records(&orders(0..ORDERS), &read)?;
    committed_to_the_end(setup, &topic, ORDER_PARTITIONS)
}

/// A second consumer of the group, after the first has gone, has the records that came since only.
fn restart(setup: &Setup, client: &Client) -> Case {
    let topic = setup.name(client, "orders");
    let more = orders(ORDERS..ORDERS + ORDERS_AFTER_RESTART);
    client.produce(&setup.bootstrap, &topic, "none", &more)?;
    let read = consume_and_stop(setup, client, &topic, ORDERS_AFTER_RESTART)?;
    same_records(&more, &read)?;
    committed_to_the_end(setup, &topic, ORDER_PARTITIONS)
}

/// By the batches of the cases before.
fn idempotent(setup: &Setup, client: &Client) -> Case {
    let Some(data_dir) = &setup.data_dir else {
        return Ok(Outcome::PassedBut("the broker's disk was not looked at"));
    };
    let mut seen = 0;
    for partition in 0..ORDER_PARTITIONS {
        for batch in batches::of_partition(data_dir, &setup.name(client, "orders"), partition)? {
            seen += 1;
            if !batch.idempotent {
                return Err("a batch has no producer id".to_owned());
            }
        }
    }
    if seen == 0 {
        return Err("there are no batches".to_owned());
    }
    Ok(Outcome::Passed)
}

/// Partition `n` of the topic is written with the codec of that number.
fn codecs(setup: &Setup, client: &'static Client, report: &Report) {
    let topic = codecs_topic(setup, client);
    let records = |partition: usize| -> Vec<Record> {
        (0..200)
            .map(|n| {
                Record::new(
                    partition as i32,
                    &format!("c-{n}"),
                    format!("order {n}: {}", "nothing new ".repeat(20)),
                )
            })
            .collect()
    };
    let mut written: Vec<Result<(), String>> = Vec::new();
    let created = reference::create_topic(&setup.bootstrap, &topic, CODECS.len() as i32);
    for (partition, codec) in CODECS.iter().enumerate() {
        written.push(created.clone().and_then(|()| {
            client
                .produce(&setup.bootstrap, &topic, codec, &records(partition))
                .map(|_| ())
        }));
    }
    let count = written.iter().filter(|w| w.is_ok()).count() * records(0).len();
    let read = if count == 0 {
        Ok(Vec::new())
    } else {
        consume_and_stop(setup, client, &topic, count)
    };
    for (partition, codec) in CODECS.iter().enumerate() {
        report.case(client.name, codec, || {
            written[partition].clone()?;
            let mut read = read.clone()?;
            read.retain(|r| r.partition == partition as i32);
            same_records(&records(partition), &read)?;
            let Some(data_dir) = &setup.data_dir else {
                return Ok(Outcome::PassedBut("the broker's disk was not looked at"));
            };
            let batches = batches::of_partition(data_dir, &topic, partition as i32)?;
            let codecs: BTreeSet<_> = batches.iter().map(|b| b.codec).collect();
            if !codecs.contains(codec) || codecs.iter().any(|c| c != codec && *c != "none") {
                return Err(format!("its batches have the codecs {codecs:?}"));
            }
            Ok(Outcome::Passed)
        });
    }
}

/// The topic whose partitions have each a codec.
pub(super) fn codecs_topic(setup: &Setup, client: &Client) -> String {
    setup.name(client, "codecs")
}

/// What a record may carry, in one topic.
fn contents(setup: &Setup, client: &'static Client, report: &Report) {
    let texts = [
        ("trace", "0af7651916cd43dd"),
        ("empty", ""),
        ("city", "Plzeň"),
    ];
    let headers = Record {
        headers: texts
            .iter()
            .map(|(k, v)| ((*k).to_owned(), Some((*v).to_owned())))
            .collect(),
        ..Record::new(0, "headers", "with headers".to_owned())
    };
    let null_header = Record {
        headers: BTreeMap::from([("nothing".to_owned(), None)]),
        ..Record::new(0, "null header", "with a null header".to_owned())
    };
    let null_key = Record {
        key: None,
        ..Record::new(0, "", "without a key".to_owned())
    };
    let null_value = Record {
        value: None,
        ..Record::new(0, "without a value", String::new())
    };
    let large = Record::new(0, "large", large_value());

    let topic = setup.name(client, "contents");
    let no_null_headers = client.lacks(Feature::NullHeaders);
    let read = || -> Result<Vec<Read>, String> {
        reference::create_topic(&setup.bootstrap, &topic, 1)?;
        let mut records = vec![
            headers.clone(),
            null_key.clone(),
            null_value.clone(),
            large.clone(),
        ];
        match no_null_headers {
            Some(_) => reference::produce(
                &setup.bootstrap,
                &topic,
                "none",
                std::slice::from_ref(&null_header),
            )?,
            None => records.push(null_header.clone()),
        }
        client.produce(&setup.bootstrap, &topic, "none", &records)?;
        consume_and_stop(setup, client, &topic, 5)
    };
    let read = read();
    let has = |record: &Record| -> Result<(), String> {
        let read = read.as_ref().map_err(Clone::clone)?;
        if read.iter().filter(|read| record.is_read_as(read)).count() == 1 {
            return Ok(());
        }
        let mut like = read.iter().find(|read| read.key == record.key).cloned();
        if let Some(value) = like.as_mut().and_then(|like| like.value.as_mut()) {
            *value = value.chars().take(100).collect();
        }
        Err(format!(
            "the record with key {:?} was read as {like:?}",
            record.key
        ))
    };
    report.case(client.name, "headers", || {
        has(&headers)?;
        has(&null_header)?;
        Ok(no_null_headers.map_or(Outcome::Passed, Outcome::PassedBut))
    });
    report.case(client.name, "nulls", || {
        has(&null_key)?;
        has(&null_value)?;
        Ok(Outcome::Passed)
    });
    report.case(client.name, "900 kB", || {
        has(&large).map(|()| Outcome::Passed)
    });
}

/// Nine hundred thousand digits that differ from place to place.
fn large_value() -> String {
    let mut value = String::with_capacity(900_016);
    for n in 0_u64.. {
        if value.len() >= 900_000 {
            break;
        }
        value.push_str(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_string());
    }
    value.truncate(900_000);
    value
}

/// Partition 0 has records before and after the time that is asked for; partition 1 before it only,
/// so that it is read from its end.
fn by_time(setup: &Setup, client: &Client) -> Case {
    const FIRST_MS: i64 = 1_700_000_000_000;
    const ASKED_MS: i64 = FIRST_MS + 5_500;
    let (topic, group) = (setup.name(client, "by-time"), setup.name(client, "by-time"));
    let at = |partition: i32, n: i64| Record {
        timestamp_ms: Some(FIRST_MS + n * 1_000),
        ..Record::new(partition, "k", format!("{partition} after {n} s"))
    };
    reference::create_topic(&setup.bootstrap, &topic, 2)?;
    let mut records: Vec<Record> = (0..10).map(|n| at(0, n)).collect();
    records.extend((0..5).map(|n| at(1, n)));
    let no_times = client.lacks(Feature::WritingTimestamps);
    match no_times {
        Some(_) => reference::produce(&setup.bootstrap, &topic, "lz4", &records)?,
        None => client
            .produce(&setup.bootstrap, &topic, "lz4", &records)
            .map(|_| ())?,
    }
    let options = ConsumerOptions {
        from_timestamp_ms: Some(ASKED_MS),
        ..ConsumerOptions::default()
    };
    let consumer = client.consumer(&setup.bootstrap, &topic, &group, options)?;
    consumer.wait_for_records(4)?;
    let later = at(1, 20);
    reference::produce(
        &setup.bootstrap,
        &topic,
        "none",
        std::slice::from_ref(&later),
    )?;
    consumer.wait_for_records(5)?;
    let read = consumer.stop()?.read;
    let mut expected: Vec<Record> = (6..10).map(|n| at(0, n)).collect();
    expected.push(later);
    same_records(&expected, &read)?;
    Ok(no_times.map_or(Outcome::Passed, Outcome::PassedBut))
}

/// A consumer in the group that has the topic's name, until it has read so many records.
pub(super) fn consume_and_stop(
    setup: &Setup,
    client: &Client,
    topic: &str,
    count: usize,
) -> Result<Vec<Read>, String> {
    let consumer = client.consumer(&setup.bootstrap, topic, topic, ConsumerOptions::default())?;
    consumer.wait_for_records(count)?;
    let Said { read, .. } = consumer.stop()?;
    Ok(read)
}

/// Each record once, and the offsets of each partition in order and without a gap.
pub(super) fn same_records(expected: &[Record], read: &[Read]) -> Result<(), String> {
    let mut next: BTreeMap<i32, i64> = BTreeMap::new();
    for read in read {
        if let Some(next) = next
            .insert(read.partition, read.offset + 1)
            .filter(|next| *next != read.offset)
        {
            return Err(format!(
                "partition {}: offset {} follows {}",
                read.partition,
                read.offset,
                next - 1
            ));
        }
    }
    let mut left: Vec<&Read> = read.iter().collect();
    for record in expected {
        let Some(found) = left.iter().position(|read| record.is_read_as(read)) else {
            return Err(format!(
                "the record {:?} with value {:?} is not among {} read",
                record.key,
                record.value,
                read.len()
            ));
        };
        left.swap_remove(found);
    }
    match left.first() {
        None => Ok(()),
        Some(more) => Err(format!(
            "{} records more than expected, such as {more:?}",
            left.len()
        )),
    }
}

/// The group that has the topic's name is at the end of each partition.
pub(super) fn committed_to_the_end(setup: &Setup, topic: &str, partitions: i32) -> Case {
    let ends = reference::ends(&setup.bootstrap, topic, partitions)?;
    let committed = reference::committed(&setup.bootstrap, topic, topic, partitions)?;
    if committed != ends {
        return Err(format!(
            "the group is at {committed:?}, the ends are {ends:?}"
        ));
    }
    Ok(Outcome::Passed)
}
