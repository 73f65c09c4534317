//! From when a record is due to when a consumer has it, for every record.
//!
//! The consumers stand at the end of the topic, by explicit offsets, before the first record
//! is produced, so that none is missed and none of before is read. A record's key is its number,
//! in decimal, which a model topic or pipeline passes on.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, DefaultConsumerContext};

use crate::args::{Bounds, EndToEnd, From, Load};
use crate::clock::{seconds_to_us, wake_precisely};
use crate::error::{Error, Result};
use crate::flights::{Arrival, Flights};
use crate::meter::{Lane, latencies};
use crate::pacing::Schedule;
use crate::payload::Payloads;
use crate::producer::{Due, Producer};
use crate::progress::Progress;
use crate::reader::Reader;
use crate::report::Arrivals;
use crate::run::{Measured, Run, Shared};
use crate::settings;
use crate::share::{DIGITS, deadline_us, decimal};
use crate::topic::Topic;
use crate::transactions::check_properties;

/// How long a consumer waits before it looks whether all have arrived.
const LOOK: Duration = Duration::from_millis(20);
/// How long duplicates are waited for after the last record has arrived, in microseconds.
const DUPLICATES_US: u64 = 200_000;
/// At a fixed rate, so many records may be missing at once: 128 MiB of due times.
const MOST_MISSING: u64 = 1 << 24;
/// What is added to the patience with missing records for that with a run where nothing moves: the
/// consumers give up first, and say how many are missing.
const GRACE: Duration = Duration::from_secs(3);

/// Runs it.
pub fn run(arguments: &EndToEnd, payloads: Payloads) -> Result<(Measured, Arrivals)> {
    let target = &arguments.target;
    check_properties(target)?;
    let patience = settings::patience(arguments.bounds.timeout_seconds);
    let input = Topic::prepare(target, patience)?;
    let output = match &arguments.output_topic {
        Some(name) => Topic::existing(target, name, patience)?,
        None => input.clone(),
    };
    let consumers = usize::from(arguments.consumers);
    output.check_consumers(consumers)?;

    let mut run = Run::new();
    let shared = Arc::clone(run.shared());
    let config = settings::producer(target, &arguments.load, arguments.linger_ms, None, None)?;
    let lane = run.producer_lane();
    let producer = Producer::connect(&config, &shared, lane, &input.name, patience)?;
    let isolation = arguments.isolation_level;
    let offsets = output.start(target, From::Latest, isolation, patience)?;
    run.begin(seconds_to_us(arguments.load.warmup_seconds));

    let sky = Arc::new(Sky::default());
    let mut config = settings::consumer(target, None, isolation);
    config.set("fetch.min.bytes", "1");
    for index in 0..consumers {
        let client: BaseConsumer = settings::create(&config, DefaultConsumerContext)?;
        let offsets = output.deal(&offsets, index, consumers)?;
        let watcher = Watcher {
            shared: Arc::clone(&shared),
            lane: run.consumer_lane(),
            sky: Arc::clone(&sky),
            patience_us: patience.as_micros() as u64,
        };
        run.spawn(format!("consumer {index}"), move || {
            watcher.watch(Reader::assigned(client, &offsets)?)
        })?;
    }
    let sender = Sender {
        shared,
        sky: Arc::clone(&sky),
        bounds: arguments.bounds.clone(),
        load: arguments.load.clone(),
        in_flight: u64::from(arguments.in_flight),
    };
    run.spawn("producer".to_owned(), move || {
        sender.send(producer, &payloads);
        Ok(())
    })?;

    let progress = Progress::new(&arguments.output, &arguments.bounds, 1);
    let patience = patience.max(arguments.load.between()) + GRACE;
    let mut measured = run.watch(patience, progress);
    let arrivals = sky.arrivals();
    if measured.failure.is_none() && (arrivals.missing > 0 || arrivals.duplicated > 0) {
        measured.failure = Some(Error::NotExactlyOnce {
            topic: output.name,
            missing: arrivals.missing,
            duplicated: arrivals.duplicated,
        });
    }
    Ok((measured, arrivals))
}

/// Where the records are between producer and consumers.
#[derive(Debug, Default)]
struct Sky {
    state: Mutex<State>,
    landed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    flights: Flights,
    /// When the last record was started, once that is known, or the last one arrived after it.
    closed_us: Option<u64>,
}

impl Sky {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrivals(&self) -> Arrivals {
        let flights = &self.lock().flights;
        Arrivals {
            sent: flights.started(),
            arrived: flights.started() - flights.missing(),
            missing: flights.missing(),
            duplicated: flights.duplicated(),
            foreign: flights.foreign(),
        }
    }
}

/// Sends the records.
struct Sender {
    shared: Arc<Shared>,
    sky: Arc<Sky>,
    bounds: Bounds,
    load: Load,
    in_flight: u64,
}

impl Sender {
    fn send(&self, producer: Producer, payloads: &Payloads) {
        wake_precisely();
        producer.lane().begin(self.shared.counted_from_us());
        let sent = match self.load.rate {
            Some(rate) => self.send_on_schedule(&producer, payloads, rate),
            None => self.send_at_once(&producer, payloads),
        };
        self.sky.lock().closed_us = Some(self.shared.clock.now_us());
        producer.finish(sent);
    }

    fn send_on_schedule(&self, producer: &Producer, payloads: &Payloads, rate: f64) -> u64 {
        let shared = &self.shared;
        let schedule = Schedule::new(rate, shared.begins_us(), 0, 1);
        let deadline_us = deadline_us(&self.bounds, shared);
        let mut left = self.left();
        let mut late = latencies();
        let mut sent = 0;
        while schedule.due_us(sent) < deadline_us && left.is_some() {
            let due_us = schedule.due_us(sent);
            if !schedule.wait(sent, shared) {
                break;
            }
            let Some(bytes) = self.start(producer, payloads, MOST_MISSING, || due_us) else {
                break;
            };
            sent += 1;
            if due_us >= shared.counted_from_us() {
                left.take(bytes);
                late.saturating_record(shared.clock.now_us() - due_us);
            }
        }
        producer.lane().lock().handed_over_late = late;
        sent
    }

    fn send_at_once(&self, producer: &Producer, payloads: &Payloads) -> u64 {
        let clock = self.shared.clock;
        let deadline_us = deadline_us(&self.bounds, &self.shared);
        let mut left = self.left();
        let mut sent = 0;
        while clock.now_us() < deadline_us && left.is_some() && !self.shared.stopped() {
            let mut due_us = 0;
            let now = || {
                due_us = clock.now_us();
                due_us
            };
            let Some(bytes) = self.start(producer, payloads, self.in_flight, now) else {
                break;
            };
            sent += 1;
            if due_us >= self.shared.counted_from_us() {
                left.take(bytes);
            }
        }
        sent
    }

    fn left(&self) -> Left {
        Left {
            records: self.bounds.records.unwrap_or(u64::MAX),
            bytes: self.bounds.bytes.unwrap_or(u64::MAX),
        }
    }

    /// Starts one record when fewer than `most` are missing; its size, or none where the run was
    /// stopped before.
    fn start(
        &self,
        producer: &Producer,
        payloads: &Payloads,
        most: u64,
        due_us: impl FnOnce() -> u64,
    ) -> Option<u64> {
        let mut state = self.sky.lock();
        while state.flights.missing() >= most {
            if self.shared.stopped() {
                return None;
            }
            let waited = self.sky.landed.wait_timeout(state, LOOK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let due_us = due_us();
        let number = state.flights.start(due_us);
        drop(state);
        let mut text = [0; DIGITS];
        let key = decimal(number, &mut text);
        let value = payloads.get(number);
        let sent = producer.send(Some(key), value, Due::At(due_us));
        sent.map(|_| (key.len() + value.len()) as u64)
    }
}

/// What is left to send once the warm-up is over.
struct Left {
    records: u64,
    bytes: u64,
}

impl Left {
    fn is_some(&self) -> bool {
        self.records > 0 && self.bytes > 0
    }

    fn take(&mut self, bytes: u64) {
        self.records -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// Sees records arrive.
struct Watcher {
    shared: Arc<Shared>,
    lane: Arc<Lane>,
    sky: Arc<Sky>,
    patience_us: u64,
}

impl Watcher {
    fn watch(&self, mut reader: Reader) -> Result<()> {
        let counted_from_us = self.shared.counted_from_us();
        self.lane.begin(counted_from_us);
        let mut keys = Keys::default();
        let mut arrived: Vec<(usize, u64)> = Vec::new();
        while !self.shared.stopped() {
            keys.clear();
            reader.read(LOOK, |read| match read {
                Ok(record) => keys.push(record.key, record.bytes),
                Err(reason) => self.lane.lock().fail(reason),
            });
            let now_us = self.shared.clock.now_us();
            arrived.clear();
            {
                let mut state = self.sky.lock();
                for (key, bytes) in keys.iter() {
                    if let Arrival::First(due_us) = state.flights.arrive(key) {
                        arrived.push((bytes, due_us));
                    }
                }
                if state.closed_us.is_some() && !arrived.is_empty() {
                    state.closed_us = Some(now_us);
                }
                let patience_us = match state.flights.missing() {
                    0 => DUPLICATES_US,
                    _ => self.patience_us,
                };
                if (state.closed_us).is_some_and(|us| now_us.saturating_sub(us) >= patience_us) {
                    break;
                }
            }
            if arrived.is_empty() {
                continue;
            }
            self.sky.landed.notify_one();
            let mut counts = self.lane.lock();
            counts.moved = true;
            for &(bytes, due_us) in &arrived {
                if due_us >= counted_from_us {
                    counts.record(bytes, now_us, now_us.saturating_sub(due_us));
                }
            }
        }
        Ok(())
    }
}

/// The keys of a batch, in one piece of memory that is used again.
#[derive(Default)]
struct Keys {
    text: Vec<u8>,
    ends: Vec<(usize, usize)>,
}

impl Keys {
    fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }

    fn push(&mut self, key: &[u8], bytes: usize) {
        self.text.extend_from_slice(key);
        self.ends.push((self.text.len(), bytes));
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], usize)> {
        self.ends.iter().scan(0, |start, &(end, bytes)| {
            let key = &self.text[*start..end];
            *start = end;
            Some((key, bytes))
        })
    }
}
