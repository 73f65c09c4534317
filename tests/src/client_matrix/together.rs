//! The cases of the full run that need several clients, or the broker's restart.

use std::collections::BTreeSet;

use super::Setup;
use super::alone;
use super::client::{Client, ConsumerOptions, Feature};
use super::program::Program;
use super::record::Record;
use super::reference;
use super::report::{Case, Outcome, Report};

const PARTITIONS: i32 = 2;

/// Reads what every other client has written with every codec.
pub fn crossed(setup: &Setup, reader: &Client, writers: &[&'static Client]) -> Case {
    for writer in writers.iter().filter(|writer| writer.name != reader.name) {
        let topic = alone::codecs_topic(setup, writer);
        let expected = reference::read(
            &setup.bootstrap,
            &topic,
            super::batches::CODECS.len() as i32,
        )?;
        if expected.is_empty() {
            return Err(format!("{} has written nothing", writer.name));
        }
        let group = format!("{topic}-read-by-{}", reader.name);
        let consumer =
            reader.consumer(&setup.bootstrap, &topic, &group, ConsumerOptions::default())?;
        let from = |error| format!("what {} wrote: {error}", writer.name);
        consumer.wait_for_records(expected.len()).map_err(from)?;
        let read: BTreeSet<_> = consumer.stop().map_err(from)?.read.into_iter().collect();
        if read != expected.into_iter().collect() {
            return Err(from(
                "it was read differently by the driver's librdkafka".to_owned(),
            ));
        }
    }
    Ok(Outcome::Passed)
}

/// A producer and a consumer of each client go on where they were when the broker is killed and
/// started again under them.
pub fn broker_restart(
    setup: &Setup,
    clients: &[&'static Client],
    restart: impl FnOnce(),
    report: &Report,
) {
    let before: Vec<Result<Running, String>> = std::thread::scope(|scope| {
        let started: Vec<_> = clients
            .iter()
            .map(|client| scope.spawn(|| Running::start(setup, client)))
            .collect();
        started
            .into_iter()
            .map(|s| {
                s.join()
                    .unwrap_or_else(|_| Err("the driver panicked".to_owned()))
            })
            .collect()
    });
    restart();
    std::thread::scope(|scope| {
        for (client, running) in clients.iter().zip(before) {
            scope.spawn(|| report.case(client.name, "broker restart", || running?.go_on(setup)));
        }
    });
}

/// How many records are sent before the restart, and again after it.
const BATCH: usize = 40;

/// A client with a consumer in a group and an open producer. One that ends when the broker goes has
/// neither while it is away.
struct Running {
    client: &'static Client,
    topic: String,
    programs: Option<(Program, Program)>,
}

impl Running {
    fn start(setup: &Setup, client: &'static Client) -> Result<Self, String> {
        let topic = setup.name(client, "broker-restart");
        reference::create_topic(&setup.bootstrap, &topic, PARTITIONS)?;
        if client.lacks(Feature::Reconnecting).is_some() {
            client.produce(&setup.bootstrap, &topic, "none", &records(0))?;
            alone::consume_and_stop(setup, client, &topic, BATCH)?;
            return Ok(Self {
                client,
                topic,
                programs: None,
            });
        }
        let options = ConsumerOptions::default();
        let consumer = client.consumer(&setup.bootstrap, &topic, &topic, options)?;
        let mut producer = client.producer(&setup.bootstrap, &topic, "none")?;
        producer.send(&records(0))?;
        consumer.wait_for_records(BATCH)?;
        Ok(Self {
            client,
            topic,
            programs: Some((producer, consumer)),
        })
    }

    fn go_on(self, setup: &Setup) -> Case {
        let (client, topic) = (self.client, self.topic);
        match self.programs {
            None => {
                client.produce(&setup.bootstrap, &topic, "none", &records(BATCH))?;
                let read = alone::consume_and_stop(setup, client, &topic, BATCH)?;
                alone::same_records(&records(BATCH), &read)?;
            }
            Some((mut producer, consumer)) => {
                producer.send(&records(BATCH))?;
                let read_at_least_once = consumer.wait_for("every record", |said| {
                    let read: BTreeSet<_> =
                        said.read.iter().map(|r| (r.partition, r.offset)).collect();
                    (read.len() >= 2 * BATCH).then_some(())
                });
                let written: BTreeSet<_> = producer.end()?.written.into_iter().collect();
                read_at_least_once?;
                if written.len() != 2 * BATCH {
                    return Err(format!("the producer says that it wrote {written:?}"));
                }
                consumer.stop()?;
            }
        }
        let ends = reference::ends(&setup.bootstrap, &topic, PARTITIONS)?;
        if ends.values().sum::<i64>() != 2 * BATCH as i64 {
            return Err(format!(
                "{} records were sent, the ends are {ends:?}",
                2 * BATCH
            ));
        }
        alone::committed_to_the_end(setup, &topic, PARTITIONS)?;
        Ok(client
            .lacks(Feature::Reconnecting)
            .map_or(Outcome::Passed, Outcome::PassedBut))
    }
}

fn records(first: usize) -> Vec<Record> {
    let numbers = first..first + BATCH;
    numbers
        .map(|n| Record::new((n / 20) as i32 % PARTITIONS, "k", format!("record {n}")))
        .collect()
}
