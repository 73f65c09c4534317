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

/// A client with a consumer in a group and, where it has one that streams, an open producer.
struct Running {
    client: &'static Client,
    topic: String,
    producer: Option<Program>,
    consumer: Program,
}

impl Running {
    fn start(setup: &Setup, client: &'static Client) -> Result<Self, String> {
        let topic = setup.name(client, "broker-restart");
        reference::create_topic(&setup.bootstrap, &topic, PARTITIONS)?;
        let streams = client.lacks(Feature::StreamingProducer).is_none();
        let producer = streams.then(|| client.producer(&setup.bootstrap, &topic, "none"));
        let mut running = Self {
            consumer: client.consumer(
                &setup.bootstrap,
                &topic,
                &topic,
                ConsumerOptions::default(),
            )?,
            producer: producer.transpose()?,
            client,
            topic,
        };
        running.send_and_read(setup, 0)?;
        Ok(running)
    }

    fn send_and_read(&mut self, setup: &Setup, first: usize) -> Result<(), String> {
        let records: Vec<Record> = (first..first + 40)
            .map(|n| Record::new((n / 20) as i32 % PARTITIONS, "k", format!("record {n}")))
            .collect();
        match &mut self.producer {
            Some(producer) => producer.send(&records)?,
            None => self
                .client
                .produce(&setup.bootstrap, &self.topic, "none", &records)
                .map(|_| ())?,
        }
        self.consumer.wait_for("every record", |said| {
            let read: BTreeSet<_> = said.read.iter().map(|r| (r.partition, r.offset)).collect();
            (read.len() >= first + records.len()).then_some(())
        })
    }

    fn go_on(mut self, setup: &Setup) -> Case {
        self.send_and_read(setup, 40)?;
        if let Some(mut producer) = self.producer.take() {
            let written = producer.end()?.written;
            if written.iter().collect::<BTreeSet<_>>().len() != 80 {
                return Err(format!("the producer says that it wrote {written:?}"));
            }
        }
        self.consumer.stop()?;
        let written = reference::ends(&setup.bootstrap, &self.topic, PARTITIONS)?;
        if written.values().sum::<i64>() != 80 {
            return Err(format!("80 records were sent, the ends are {written:?}"));
        }
        alone::committed_to_the_end(setup, &self.topic, PARTITIONS)
    }
}
